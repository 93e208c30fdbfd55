"""For all tests."""

import signal

# A shell starts what it puts into the background deaf to SIGINT, and every process that a test starts would be too.
signal.signal(signal.SIGINT, signal.default_int_handler)

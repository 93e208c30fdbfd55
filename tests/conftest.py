"""For all tests."""

import fcntl
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

# A shell starts what it puts into the background deaf to SIGINT, and every process that a test starts would be too.
signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent
ALONE = tuple(str(TESTS / name) for name in ("benches", "demo", "load", "service/test_overload.py", "soak"))
"""What keeps a pace or measures one: no other test runs beside it."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Around a test and before its time runs; where tests run in several processes, all of them have that file."""
    handle = os.open(TESTS / "conftest.py", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if str(item.path).startswith(ALONE) else fcntl.LOCK_SH)
        return (yield)
    finally:
        os.close(handle)

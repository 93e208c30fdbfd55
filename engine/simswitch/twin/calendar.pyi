# Nothing of it is seen from Python. See calendar.pyx.

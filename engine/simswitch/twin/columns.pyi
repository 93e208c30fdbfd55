# Nothing of it is seen from Python. See columns.pyx.

# Nothing of it is seen from Python. See world.pyx.

"""The state machine: no I/O, no clock, no randomness. Nothing here imports from outside ``core``."""

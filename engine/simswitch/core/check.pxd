# A full walk that verifies the invariants.

from simswitch.core.layout cimport State

cdef list check_state(State *state)

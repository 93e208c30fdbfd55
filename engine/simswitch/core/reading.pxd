# What stands in the state, as Python objects.

from libc.stdint cimport uint32_t

from simswitch.core.layout cimport State

cdef dict read_header(State *state)
cdef list read_entities(State *state, int kind)
cdef object find_entity(State *state, int kind, str name)
cdef dict read_sim(State *state, uint32_t index)
cdef dict read_terminal(State *state, uint32_t index)
cdef dict read_order(State *state, uint32_t index)
cdef dict read_server(State *state, uint32_t index)
cdef dict read_job(State *state, uint32_t job_id)
cdef list read_groups(State *state)
cdef dict read_sims_columns(State *state)
cdef dict read_terminals_columns(State *state)

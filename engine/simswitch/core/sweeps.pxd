# Work that touches more than one command may: it goes on from a cursor in the state, a bounded number of items an apply.

from libc.stdint cimport uint32_t, uint64_t

from simswitch.core.layout cimport State

cdef bint sweep_add(State *state, int kind, uint64_t argument, uint64_t end) noexcept nogil
cdef bint sweep_reconcile(State *state, uint32_t server) noexcept nogil
cdef bint sweeps_wait(State *state) noexcept nogil
cdef void sweeps_run(State *state, uint64_t now_ms, int *work) noexcept nogil
cdef bint job_add_terminal(State *state, uint32_t job, uint32_t terminal, uint64_t now_ms, int *status) noexcept nogil

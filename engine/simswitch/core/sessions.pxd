# Commands of an access server's session.

from libc.stdint cimport uint64_t

from simswitch.core.layout cimport State
from simswitch.core.runs cimport Run

cdef void apply_session_open(State *state, const Run *run) noexcept nogil
cdef void apply_session_holds(State *state, const Run *run) noexcept nogil
cdef void apply_session_ready(State *state, const Run *run) noexcept nogil
cdef void apply_session_close(State *state, const Run *run) noexcept nogil
cdef void apply_acknowledge(State *state, const Run *run) noexcept nogil
cdef void apply_report_load(State *state, const Run *run) noexcept nogil
cdef void restart(State *state, uint64_t now_ms) noexcept nogil

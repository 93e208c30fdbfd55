# Commands on terminals: allocate, renew, release, report usage, report an attach failure, adopt.

from simswitch.core.layout cimport State
from simswitch.core.runs cimport Run

cdef void apply_allocate(State *state, const Run *run) noexcept nogil
cdef void apply_renew(State *state, const Run *run) noexcept nogil
cdef void apply_release(State *state, const Run *run) noexcept nogil
cdef void apply_report_usage(State *state, const Run *run) noexcept nogil
cdef void apply_report_attach_failure(State *state, const Run *run) noexcept nogil
cdef void apply_adopt(State *state, const Run *run) noexcept nogil

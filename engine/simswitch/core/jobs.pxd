# Commands on swap jobs.

from simswitch.core.layout cimport State
from simswitch.core.runs cimport Run

cdef void apply_job_create(State *state, const Run *run) noexcept nogil
cdef void apply_job_add(State *state, const Run *run) noexcept nogil
cdef void apply_job_change(State *state, const Run *run) noexcept nogil
cdef void apply_swaps_stop(State *state, const Run *run) noexcept nogil

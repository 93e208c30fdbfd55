# What the twin's world says to the engine, in columns, and what the engine answers.

from libc.stdint cimport uint8_t, uint64_t

from simswitch.twin.records cimport Run, World


cdef uint64_t run_size(int kind, uint64_t count) noexcept nogil
cdef int plan_runs(World *w, uint64_t *size) except -1 nogil
cdef void write_run(World *w, Run *run, uint8_t *out) noexcept nogil
cdef void turn_boxes(World *w) noexcept nogil
cdef int read_outcomes(World *w, const uint8_t *data, uint64_t size) except -1 nogil

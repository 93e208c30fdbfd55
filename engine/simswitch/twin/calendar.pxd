# When things happen: events in buckets of one quantum each, and a heap of those of the quantum that is being processed.

from libc.stdint cimport int64_t, uint16_t, uint32_t

from simswitch.twin.records cimport World


cdef int heap_push(World *w, uint32_t event) except -1 nogil
cdef uint32_t heap_pop(World *w) noexcept nogil
cdef int schedule(World *w, int64_t at_ns, uint16_t kind, uint32_t subject, uint32_t mark) except -1 nogil

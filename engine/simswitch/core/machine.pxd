# The one class of the core: it owns all memory, and Python sees no pointer of it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from simswitch.core.layout cimport State


cdef class Machine:
    cdef State state
    cdef unsigned char *outcomes
    cdef size_t outcomes_size
    cdef bint busy
    cdef int _take(self, uint64_t sims, uint64_t terminals, uint64_t orders) except -1
    cdef int _begin(self) except -1
    cdef int _resize(self, tuple regions, uint64_t count) except -1
    cdef int _grow_subscribers(self, uint64_t slots) except -1
    cdef int _grow_to(self, uint64_t sims, uint64_t terminals, uint64_t orders) except -1
    cdef uint64_t _used(self, int region) noexcept
    cdef uint64_t _validate(self, const uint8_t *batch, uint64_t size, bint *growth, uint64_t *items) except? 0
    cdef int _grow(self, const uint8_t *batch) except -1
    cdef int _run(
        self, const uint8_t *data, uint64_t size, uint64_t now_ms, uint64_t seed, uint64_t *written,
        uint64_t *digest
    ) except -1

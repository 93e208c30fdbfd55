# Memory of the state: flat regions taken from the system in whole pages, and the one hash used for all checksums.

from libc.stdint cimport uint64_t

from simswitch.core.layout cimport Region, State

cdef int region_take(Region *region, uint64_t item_bytes, uint64_t count) except -1
cdef int region_reserve(Region *region, uint64_t count) except -1
cdef void region_free(Region *region) noexcept nogil
cdef void regions_bind(State *state) noexcept nogil
cdef uint64_t xxh64(const void *data, uint64_t size, uint64_t seed) noexcept nogil
cdef uint64_t mix(uint64_t key) noexcept nogil

# Terminals and their leases: the table by key, and how a lease begins and ends.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from simswitch.core.layout cimport State, Terminal

cdef uint32_t terminal_find(State *state, uint64_t key) noexcept nogil
cdef uint32_t terminal_find_or_add(State *state, uint64_t key) noexcept nogil
cdef void terminal_enter(State *state, uint32_t index) noexcept nogil
cdef uint64_t epoch_new(State *state) noexcept nogil
cdef void lease_begin(
    State *state, uint32_t terminal, uint32_t sim, uint32_t server, int market, int expected_tier, uint64_t epoch,
    uint64_t now_ms) noexcept nogil
cdef void lease_extend(State *state, uint32_t terminal, uint64_t now_ms) noexcept nogil
cdef int64_t expected_bytes(State *state, int market, uint64_t requested) noexcept nogil
cdef uint32_t market_select(State *state, int market, int64_t expected, int tier, bint keep_reserve) noexcept nogil
cdef void prefetch_terminal_slot(State *state, uint64_t key) noexcept nogil
cdef uint32_t prefetch_terminal(State *state, uint64_t key) noexcept nogil

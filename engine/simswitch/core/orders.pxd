# Orders to access servers: switch, stop, revoke; the window and the gate that pace them; how leases end.

from libc.stdint cimport uint32_t, uint64_t

from simswitch.core.layout cimport Job, Order, State

cdef bint order_available(State *state) noexcept nogil
cdef bint order_spare(State *state) noexcept nogil
cdef bint order_was_sent(State *state, uint64_t number) noexcept nogil
cdef uint32_t order_new(
    State *state, int kind, uint32_t terminal, uint32_t source, uint32_t server, int priority, uint32_t job,
    uint64_t epoch, uint64_t now_ms) noexcept nogil
cdef uint32_t order_find(State *state, uint64_t number) noexcept nogil
cdef bint order_outstanding(State *state, uint32_t index) noexcept nogil
cdef void order_confirm(State *state, uint32_t index, uint64_t now_ms) noexcept nogil
cdef void order_refuse(State *state, uint32_t index, bint busy, uint64_t now_ms) noexcept nogil
cdef void order_requeue(State *state, uint32_t index, uint64_t now_ms) noexcept nogil
cdef void order_abandon(State *state, uint32_t index, uint64_t now_ms) noexcept nogil
cdef void order_unpark(State *state, uint32_t index) noexcept nogil
cdef void order_drop(State *state, uint32_t index, uint64_t now_ms) noexcept nogil
cdef void order_timer(State *state, uint32_t index, uint64_t now_ms) noexcept nogil
cdef void server_timer(State *state, uint32_t index, uint64_t now_ms) noexcept nogil
cdef void server_acknowledged(State *state, uint32_t index, uint64_t ordered_ms, bint busy, uint64_t now_ms) noexcept nogil
cdef void server_load(
    State *state, uint32_t index, uint32_t queue_wait_us, uint32_t service_us, uint64_t now_ms) noexcept nogil
cdef void server_count_allocations(State *state, uint32_t index, uint32_t count, uint64_t now_ms) noexcept nogil
cdef void server_set_gate(State *state, uint32_t index, int gate, uint64_t now_ms) noexcept nogil
cdef void server_wake(State *state, uint32_t index) noexcept nogil
cdef void lease_release(State *state, uint32_t terminal, uint64_t now_ms) noexcept nogil
cdef void lease_take_away(State *state, uint32_t terminal, int kind, uint64_t now_ms) noexcept nogil
cdef void lease_replace(State *state, uint32_t terminal, uint32_t server, uint64_t now_ms) noexcept nogil
cdef void lease_timer(State *state, uint32_t terminal, uint64_t now_ms) noexcept nogil
cdef void dispatch(State *state, uint64_t now_ms, int *work) noexcept nogil
cdef Job *job_find(State *state, uint32_t job) noexcept nogil
cdef void job_settle(State *state, uint32_t job, uint64_t now_ms) noexcept nogil

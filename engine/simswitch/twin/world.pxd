# What happens in the twin's world, and when it stops to speak with the engine.

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t

from simswitch.twin.records cimport DEVICE_ON, DEVICE_OFF, NONE, Device, Operation, Station, World


cdef inline bint is_well(World *w, Device *device) noexcept nogil:
    """Whether it has a line that the carrier has not slowed."""
    return device.state == DEVICE_ON and device.sim != NONE and w.slow_bytes_per_s[device.sim] == INT64_MAX


cdef inline void become(World *w, Device *device, uint8_t state) noexcept nogil:
    """The only place that changes a terminal's state; its SIM is set before it is on, and forgotten after."""
    w.well_count -= is_well(w, device)
    w.on_count -= device.state != DEVICE_OFF
    device.state = state
    w.well_count += is_well(w, device)
    w.on_count += state != DEVICE_OFF


cdef int record_wait(World *w, Station *station, int64_t wait_ns) except -1 nogil
cdef int send(World *w, uint32_t server, int kind, uint32_t terminal, uint64_t a, uint64_t b, int64_t at_ns,
    uint32_t flag) except -1 nogil
cdef void begin_switch(World *w, Station *station) noexcept nogil
cdef void end_switch(World *w, Station *station, uint64_t *outcome, int64_t now_ns) noexcept nogil
cdef int acknowledge(World *w, uint32_t server, Operation *operation, int result, int64_t now_ns) except -1 nogil
cdef int enqueue(World *w, uint32_t server, Operation *operation) except -1 nogil
cdef int switch_line(World *w, uint32_t terminal, uint64_t epoch, uint32_t sim, uint64_t order,
    int64_t now_ns) except -1 nogil
cdef int request(World *w, uint32_t terminal, int64_t now_ns) except -1 nogil
cdef int lose_line(World *w, uint32_t terminal, int64_t now_ns) except -1 nogil
cdef int attach(World *w, uint32_t terminal, uint64_t epoch, uint32_t sim, int64_t now_ns) except -1 nogil
cdef int come_back(World *w, uint32_t terminal, int64_t at_ns) except -1 nogil
cdef int fail_request(World *w, uint32_t terminal, int64_t now_ns) except -1 nogil
cdef int arm(World *w, uint32_t terminal, int64_t at_ns) except -1 nogil
cdef int hold(World *w, uint32_t terminal, uint64_t epoch, uint32_t sim, int64_t now_ns) except -1 nogil
cdef int order_batch(World *w, uint32_t server, int64_t now_ns) except -1 nogil
cdef bint is_new(World *w, uint32_t server, const Operation *operation) except -1 nogil
cdef int go_on(World *w, uint32_t server) except -1 nogil
cdef int disconnect(World *w, uint32_t server) except -1 nogil
cdef int take_down(World *w, uint32_t server) except -1 nogil
cdef int move_away(World *w, uint32_t server, const uint32_t *others, uint32_t others_count) except -1 nogil
cdef int advance(World *w, int64_t limit_ns) except -1 nogil

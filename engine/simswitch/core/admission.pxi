# Admission: when more terminals ask at once than their access server can attach, each is told when to come back.
#
#      asks ──▶ room in its access server's queue? ──yes──▶ admitted: the queue grows by one operation
#                              │ no, or others wait
#                              ▼
#               an appointment: the next free place in the book of its lane ──▶ ADMISSION_WAIT, retry_after
#                              │ comes at its time
#                              ▼
#                          admitted before who comes without
#
# An access server's queue is known by what we let in (a virtual time at which it is empty again, as in GCRA) and by what it tells of
# itself. Its books, one for each lane of subscriber priority, say when the next free place is: places of a lane are as
# far apart as its share of the server's pace wants, so none of them stands still, and the first lane's move fastest. Some
# jitter is added to each appointment. An access server that does not tell how long an operation takes lets everybody in.
#
# Where an operation takes a fraction of what it took while places were given, the books begin anew, and appointments beyond their end
# are void. Who would have to wait long is told to ask again before. So a moment in which an access server is slow is over with it.
#
# A terminal's appointment stands where its lease's expiry stands while it has one.


cdef enum:
    ADMISSION_LATE_MS = 120_000   # until an appointment that nobody came to is void
    ADMISSION_PACE = 9            # of ten: what admissions take of an access server's pace while some wait
    ADMISSION_JITTER_MS = 1_000
    ADMISSION_ASK_MS = 600_000    # who waits for longer asks again after that, or twice of it
    ADMISSION_FASTER = 4          # an operation takes so little of what it took that the books begin anew


cdef inline uint64_t _lane_weight(int lane) noexcept nogil:
    return <uint64_t> 4 >> lane


cdef bint admission_booked(const Server *server, uint64_t now_ms) noexcept nogil:
    """Whether terminals have been told to come later than now."""
    cdef int lane
    for lane in range(ADMISSION_LANES):
        if server.booked_ms[lane] > now_ms:
            return True
    return False


cdef uint64_t _queue_ends_us(const Server *server, uint64_t now_ms) noexcept nogil:
    """When an operation that came now would begin, by what was admitted and by what the access server tells."""
    cdef uint64_t ends_us = max(server.admitted_us, now_ms * 1000)
    if server.told_ms and now_ms - server.told_ms <= TOLD_STALE_MS:
        ends_us = max(ends_us, server.told_ms * 1000 + server.queue_wait_us)
    return ends_us


cdef uint64_t _book(State *state, Server *server, int lane, uint64_t interval_us, uint64_t queue_ms, uint64_t now_ms) noexcept nogil:
    """The next free place of the lane."""
    cdef uint64_t at_us, weights = 0
    cdef int other
    for other in range(ADMISSION_LANES):
        if other == lane or server.booked_ms[other] > now_ms:
            weights += _lane_weight(other)
    if server.booked_ms[lane] < now_ms + queue_ms:
        server.booked_ms[lane] = now_ms + queue_ms
        server.booked_us[lane] = 0
    at_us = server.booked_ms[lane] * 1000 + server.booked_us[lane] + interval_us * weights // _lane_weight(lane)
    server.booked_ms[lane] = at_us // 1000
    server.booked_us[lane] = <uint32_t> (at_us % 1000)
    server.stormed = 1
    server.waits_count += server.waits_count < NONE_INDEX
    return server.booked_ms[lane]


cdef bint admission_of_all(const State *state, uint32_t server) noexcept nogil:
    """Whether nobody has to wait: that is the setting, or nobody knows how long an operation takes."""
    return (
        state.header.settings[<int> ADMISSION_QUEUE_MS] == 0
        or not state.servers[server].service_us or not state.servers[server].session
    )


cdef uint64_t admission_wait_ms(State *state, uint32_t server_index, uint32_t terminal, int lane, uint64_t now_ms) noexcept nogil:
    """0: it is admitted, and counted. Otherwise how long it has to wait; a terminal that is known keeps its appointment."""
    cdef Server *server = &state.servers[server_index]
    cdef uint64_t queue_ms = <uint64_t> state.header.settings[<int> ADMISSION_QUEUE_MS]
    # Of places in the books: some of its pace is left to what else it does.
    cdef uint64_t interval_us = <uint64_t> server.service_us * 10 // ADMISSION_PACE
    cdef uint64_t ends_us, ahead_ms, at_ms
    cdef uint64_t appointment_ms = 0, books_end_ms
    cdef bint let_in
    ends_us = _queue_ends_us(server, now_ms)
    ahead_ms = ends_us // 1000 - now_ms
    if terminal != NONE_INDEX:
        appointment_ms = state.terminals[terminal].expires_ms
        books_end_ms = max(server.booked_ms[lane], now_ms + ahead_ms)
        # With its jitter none was given beyond that.
        books_end_ms += (books_end_ms - now_ms) // 8 + ADMISSION_LATE_MS
        if (
            state.terminals[terminal].server != server_index or appointment_ms + ADMISSION_LATE_MS < now_ms
            or appointment_ms > books_end_ms
        ):
            appointment_ms = 0
    if appointment_ms > now_ms:
        return appointment_ms - now_ms
    if appointment_ms:
        # Places of one lane may have been given before another was opened: then there are too many, and the first lane's go first.
        let_in = 2 * ahead_ms <= queue_ms * <uint64_t> (4 - lane)
        at_ms = max(ahead_ms - queue_ms, <uint64_t> (lane + 1) * ADMISSION_JITTER_MS) if not let_in else 0
    else:
        # Nobody is passed over, unless those with appointments don't come.
        let_in = (ahead_ms <= queue_ms and not admission_booked(server, now_ms)) or (
            server.admitted_us + queue_ms * 1000 < now_ms * 1000 and not server.queue_wait_us)
        at_ms = 0
        if not let_in:
            at_ms = _book(state, server, lane, interval_us, queue_ms, now_ms) - now_ms
    server.paced_us = max(server.paced_us, <uint64_t> server.service_us)
    if let_in:
        server.admitted_us = ends_us + server.service_us
        return 0
    return at_ms + draw(state) % (ADMISSION_JITTER_MS + at_ms // 16)


cdef void admission_keep(State *state, uint32_t terminal, uint32_t server, uint64_t now_ms, uint64_t wait_ms) noexcept nogil:
    """Its appointment. It has no lease."""
    if state.terminals[terminal].server != server:
        lease_forget_last(state, terminal)  # what its old access server still reports is of that
    state.terminals[terminal].server = <uint16_t> server
    state.terminals[terminal].expires_ms = now_ms + wait_ms


cdef void admission_paced(Server *server, uint32_t service_us, uint64_t now_ms) noexcept nogil:
    """The access server tells how long an operation takes now. The books begin anew where they were made with far more."""
    if <uint64_t> service_us * ADMISSION_FASTER < server.paced_us:
        server.admitted_us = min(server.admitted_us, now_ms * 1000)
        server.paced_us = 0
        memset(server.booked_ms, 0, sizeof(server.booked_ms))
        memset(server.booked_us, 0, sizeof(server.booked_us))


cdef void admission_ended(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """The storm is over: swaps ramp up again."""
    cdef Server *server = &state.servers[index]
    if server.stormed and not admission_booked(server, now_ms):
        server.stormed = 0
        server.slow_start = 1
        _set_window(state, index, max(server.window // 4, 1), WINDOW_STORM, now_ms)

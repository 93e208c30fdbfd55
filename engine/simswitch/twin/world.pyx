"""The event loop of the twin: terminals, access servers and the carrier, under a virtual clock.

It stands in the place of the world outside the engine. Every event has its own exact instant; only the conversation with
the engine is rounded: what access servers ask within one quantum goes to the engine as one batch at the quantum's end, and
the answers, orders included, arrive then. A wait is measured to the instant at which the operation was served.

    sessions ──▶ ┐                       ┌─▶ operation served ─▶ command columns ─┐
    buckets ───▶ ├─▶ heap of the quantum ┼─▶ terminal's timer ─▶ command columns ─┼─▶ gather() ─▶ engine
                 ┘                       └─▶ line is back ────▶ acknowledgement ──┘        settle() ◀┘

An access server is one FIFO queue with one operation at a time. An allocation and a switch each take one operation. The
operation of a caller who gave up, or of a terminal that has left, is found abandoned when its turn comes and costs
nothing; one whose caller gives up while it is served was paid for in vain. Reports, releases and acknowledgements cost it
nothing: only procedures with a terminal do.

An event costs O(1) to set and O(log of the events in its quantum) to find; empty quanta are skipped at 4 bytes each.
Memory: 136 B a terminal, 40 B for its timer, 16 B a session, 8 B a SIM. Loop owns all of it.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from simswitch.core cimport layout
from simswitch.twin.calendar cimport heap_pop, heap_push, schedule
from simswitch.twin.records cimport (
    NONE,
    DEVICE_ASKED,
    DEVICE_OFF,
    DEVICE_ON,
    DEVICE_PAUSED,
    DEVICE_REQUESTING,
    DEVICE_SWITCHING,
    DEVICE_SWITCH_ASKED,
    EVENT_DEVICE,
    EVENT_LOAD,
    EVENT_RELEASE_BATCH,
    EVENT_SERVED,
    EVENT_SWITCHED,
    EVENT_TELL,
    EVENT_TURNED_ON,
    ITEM_DRIVEN,
    ITEM_FIRST,
    OPERATION_ALLOCATE,
    OPERATION_DRIVEN,
    OPERATION_ORDER,
    OPERATION_VOID,
    OUT_ACKNOWLEDGE,
    OUT_ALLOCATE,
    OUT_KINDS,
    OUT_LOAD,
    OUT_RELEASE,
    OUT_USAGE,
    SEEN,
    SEEN_PENDING,
    Box,
    Device,
    Event,
    Item,
    Operation,
    Station,
    World,
)
from simswitch.twin.world cimport become, is_well

cdef enum:
    TELL_NS = 100_000_000            # between two load reports, at least


# ---------------------------------------------------------------------------------------------- commands

cdef int send(World *w, uint32_t server, int kind, uint32_t terminal, uint64_t a, uint64_t b, int64_t at_ns,
              uint32_t flag) except -1 nogil:
    cdef Station *station = &w.stations[server]
    cdef Box *box = &station.boxes[kind]
    cdef Item *larger
    cdef Item *item
    cdef uint32_t size
    if box.count == box.size:
        size = box.size * 2 if box.size else 16
        larger = <Item *>realloc(box.items, <size_t>size * sizeof(Item))
        if larger == NULL:
            with gil:
                raise MemoryError()
        box.items = larger
        box.size = size
    item = &box.items[box.count]
    box.count += 1
    item.terminal = terminal
    item.a = a
    item.b = b
    item.at_ns = at_ns
    item.flag = flag
    if not station.stopped:
        speak(w, server)
    return 0


cdef void speak(World *w, uint32_t server) noexcept nogil:
    """What is in its boxes leaves at the end of this quantum."""
    cdef Station *station = &w.stations[server]
    if not station.dirty:
        station.dirty = 1
        w.dirty[w.dirty_count] = server
        w.dirty_count += 1


cdef int count_use(World *w, uint32_t terminal, int64_t now_ns) except -1 nogil:
    """Counts what the terminal used until now and reports it, if anything is new."""
    cdef Device *device = &w.devices[terminal]
    cdef int64_t rate = device.rate_bytes_per_s
    cdef int64_t elapsed_ms = (now_ns - device.counted_ns) // 1_000_000
    if device.sim != NONE and w.slow_bytes_per_s[device.sim] < rate:
        rate = w.slow_bytes_per_s[device.sim]
    if elapsed_ms > 0:
        device.counted_ns += elapsed_ms * 1_000_000
        device.used_bytes += <uint64_t>(rate * elapsed_ms) // 1000
    if device.used_bytes > device.reported_bytes:
        device.reported_bytes = device.used_bytes
        send(w, device.server, OUT_USAGE, terminal, device.epoch, device.used_bytes, now_ns, 0)
    return 0


# ---------------------------------------------------------------------------------------- access servers

cdef int record_wait(World *w, Station *station, int64_t wait_ns) except -1 nogil:
    cdef uint32_t wait_us = <uint32_t>(wait_ns // 1000)
    cdef uint32_t *larger
    if w.waits_count == w.waits_size:
        larger = <uint32_t *>realloc(w.waits_us, <size_t>w.waits_size * 2 * sizeof(uint32_t))
        if larger == NULL:
            with gil:
                raise MemoryError()
        w.waits_us = larger
        w.waits_size *= 2
    w.waits_us[w.waits_count] = wait_us
    w.waits_count += 1
    w.wait_sum_us += wait_us
    if wait_us > w.wait_peak_us:
        w.wait_peak_us = wait_us
    if wait_us > station.wait_peak_us:
        station.wait_peak_us = wait_us
    return 0


cdef int tell_load(World *w, uint32_t server, int64_t now_ns) except -1 nogil:
    """What the access server says of itself (proto: Load)."""
    cdef Station *station = &w.stations[server]
    cdef int64_t wait_ns = station.last_wait_ns
    cdef uint64_t service_us = <uint64_t>min(station.service_ns // 1000, <int64_t>0xFFFFFFFF)
    cdef uint64_t wait_us
    if station.stopped or not station.session:
        return 0
    if station.ring_count > 0:
        wait_ns = max(wait_ns, now_ns - station.ring[station.ring_head].arrived_ns)
    wait_us = <uint64_t>min(wait_ns // 1000, <int64_t>0xFFFFFFFF)
    send(w, server, OUT_LOAD, station.taken_count, wait_us | service_us << 32,
         station.ring_count | <uint64_t>(station.failed - station.failed_told) << 32, now_ns,
         <uint32_t>min(station.allocation_wait_ns // 1000, <int64_t>0xFFFFFFFE))
    station.failed_told = station.failed
    station.told_ns = now_ns
    station.told_full = station.ring_count > 0 or wait_ns > station.service_ns
    station.allocation_wait_ns = 0
    return 0


cdef int tell_soon(World *w, uint32_t server, int64_t now_ns) except -1 nogil:
    """Tells its load, at most every TELL_NS."""
    cdef Station *station = &w.stations[server]
    if now_ns - station.told_ns >= TELL_NS:
        return tell_load(w, server, now_ns)
    if station.tell_set:
        return 0
    station.tell_set = 1
    return schedule(w, station.told_ns + TELL_NS, EVENT_TELL, server, 0)


cdef void begin_switch(World *w, Station *station) noexcept nogil:
    w.switches_ordered += 1
    w.in_flight += 1
    station.in_flight += 1
    if w.in_flight > w.in_flight_max:
        w.in_flight_max = w.in_flight
    if w.in_flight > w.in_flight_peak:
        w.in_flight_peak = w.in_flight
    if station.in_flight > station.in_flight_max:
        station.in_flight_max = station.in_flight
    if station.in_flight > w.in_flight_worst_peak:
        w.in_flight_worst_peak = station.in_flight


cdef void end_switch(World *w, Station *station, uint64_t *outcome, int64_t now_ns) noexcept nogil:
    w.in_flight -= 1
    station.in_flight -= 1
    outcome[0] += 1
    if now_ns > w.settled_ns:
        w.settled_ns = now_ns


cdef bint abandoned(World *w, Operation *operation) noexcept nogil:
    """Whether nobody waits for it any more, or there is nothing left to do."""
    cdef Device *device = &w.devices[operation.terminal]
    if operation.kind == OPERATION_ALLOCATE:
        return device.generation != operation.generation or device.state != DEVICE_REQUESTING
    if operation.kind == OPERATION_DRIVEN:
        return device.generation != operation.generation or device.state != DEVICE_ON
    if operation.kind == OPERATION_VOID:
        return True
    if operation.order_kind == layout.SWITCH:
        return device.state != DEVICE_ON or device.sim == NONE or operation.source != device.sim
    return False


cdef int acknowledge(World *w, uint32_t server, Operation *operation, int result, int64_t now_ns) except -1 nogil:
    """An order of the engine is settled: it leaves its place and the engine hears of it."""
    cdef Station *station = &w.stations[server]
    cdef uint32_t place
    station.orders_in_flight -= 1
    if operation.session != station.session:
        return 0
    place = seen_at(station, operation.order)
    if place != SEEN:
        station.seen_result[place] = <uint8_t>result
    return answer(w, server, operation.terminal, operation.order, result, now_ns)


cdef int answer(World *w, uint32_t server, uint32_t terminal, uint64_t order, int result, int64_t now_ns) except -1 nogil:
    """Tells the engine what became of an order, unless the answer is lost on its way."""
    cdef Station *station = &w.stations[server]
    cdef uint64_t draw
    if station.lost_below:
        draw = w.draws[(w.draws_used * 6151 + 71) % w.draws_count]
        w.draws_used += 1
        if draw < station.lost_below:
            w.acknowledgements_lost += 1
            return 0
    return send(w, server, OUT_ACKNOWLEDGE, terminal, order, <uint64_t>result, now_ns, 0)


cdef uint32_t seen_at(const Station *station, uint64_t order) noexcept nogil:
    """Where an order of this session is remembered; SEEN: nowhere."""
    cdef uint32_t back, place
    for back in range(1, <uint32_t>SEEN + 1):
        place = (station.seen_next - back) & (<uint32_t>SEEN - 1)
        if station.seen[place] == order:
            return place
    return SEEN


cdef bint is_new(World *w, uint32_t server, const Operation *operation) except -1 nogil:
    """Whether the order came for the first time. One that the engine asks for again is answered as before."""
    cdef Station *station = &w.stations[server]
    cdef uint32_t place = seen_at(station, operation.order)
    if place == SEEN:
        place = station.seen_next & (<uint32_t>SEEN - 1)
        station.seen_next += 1
        station.seen[place] = operation.order
        station.seen_result[place] = SEEN_PENDING
        return True
    w.orders_repeated += 1
    if station.seen_result[place] != SEEN_PENDING:
        answer(w, server, operation.terminal, operation.order, station.seen_result[place], w.now_ns)
    return False


cdef int abandon(World *w, uint32_t server, Operation *operation, int64_t now_ns) except -1 nogil:
    cdef Station *station = &w.stations[server]
    if operation.kind == OPERATION_DRIVEN:
        end_switch(w, station, &w.switches_withdrawn, now_ns)
    elif operation.kind == OPERATION_ORDER:
        end_switch(w, station, &w.switches_withdrawn, now_ns)
        acknowledge(w, server, operation, layout.ACK_REFUSED, now_ns)
    return 0


cdef int serve_next(World *w, uint32_t server, int64_t now_ns) except -1 nogil:
    """Takes the next operation that somebody still waits for."""
    cdef Station *station = &w.stations[server]
    if station.stopped:
        return 0
    while station.ring_count > 0:
        station.current = station.ring[station.ring_head]
        station.ring_head = (station.ring_head + 1) & (station.ring_size - 1)
        station.ring_count -= 1
        if abandoned(w, &station.current):
            abandon(w, server, &station.current, now_ns)
            continue
        station.serving = 1
        station.last_wait_ns = now_ns - station.current.arrived_ns
        if station.current.kind == OPERATION_ALLOCATE:
            station.allocation_wait_ns = max(station.allocation_wait_ns, station.last_wait_ns)
        # The engine hears at once that there may be room.
        if station.current.kind == OPERATION_ORDER or (station.ring_count == 0 and station.told_full):
            tell_soon(w, server, now_ns)
        return schedule(w, now_ns + station.service_ns, EVENT_SERVED, server, station.serve_mark)
    station.serving = 0
    station.last_wait_ns = 0
    if station.told_full:
        return tell_soon(w, server, now_ns)
    return 0


cdef int enqueue(World *w, uint32_t server, Operation *operation) except -1 nogil:
    cdef Station *station = &w.stations[server]
    cdef Operation *larger
    cdef uint32_t place, size
    if station.down:
        return 0
    station.active = 1
    if station.ring_count == station.ring_size:
        size = station.ring_size * 2
        larger = <Operation *>malloc(<size_t>size * sizeof(Operation))
        if larger == NULL:
            with gil:
                raise MemoryError()
        for place in range(station.ring_count):
            larger[place] = station.ring[(station.ring_head + place) & (station.ring_size - 1)]
        free(station.ring)
        station.ring = larger
        station.ring_size = size
        station.ring_head = 0
    station.ring[(station.ring_head + station.ring_count) & (station.ring_size - 1)] = operation[0]
    station.ring_count += 1
    if not station.serving:
        return serve_next(w, server, operation.arrived_ns)
    return 0


cdef int switch_line(World *w, uint32_t terminal, uint64_t epoch, uint32_t sim, uint64_t order,
                     int64_t now_ns) except -1 nogil:
    """The terminal lets go of its SIM and attaches with another: its line is down for tens of seconds."""
    cdef Device *device = &w.devices[terminal]
    cdef Station *station = &w.stations[device.server]
    cdef uint64_t draw = w.draws[(terminal + <uint64_t>device.switches_count * 7919) % w.draws_count]
    device.switches_count += 1
    become(w, device, DEVICE_SWITCHING)
    device.generation += 1
    device.timer += 1
    device.pending_epoch = epoch
    device.pending_sim = sim
    device.pending_order = order
    device.outage_ns = station.outage_ns + <int64_t>((draw * <uint64_t>station.outage_spread_us) >> 32) * 1000
    return schedule(w, now_ns + device.outage_ns, EVENT_SWITCHED, terminal, device.timer)


cdef bint refuses(World *w, uint32_t terminal, Station *station, uint32_t target) noexcept nogil:
    """Whether this switch fails: a share of them does, by access server and by target SIM, drawn before the run."""
    cdef uint64_t below = station.refused_below
    cdef Device *device = &w.devices[terminal]
    cdef uint64_t draw = w.draws[(terminal * <uint64_t>31 + <uint64_t>device.switches_count * 104729 + 17) % w.draws_count]
    if target != NONE and w.sim_refused_below[target] > below:
        below = w.sim_refused_below[target]
    if draw < below:
        # The next attempt is another draw.
        device.switches_count += 1
        return True
    return False


cdef int served(World *w, uint32_t server, int64_t now_ns) except -1 nogil:
    """An operation is done."""
    cdef Station *station = &w.stations[server]
    cdef Operation operation = station.current
    cdef Device *device = &w.devices[operation.terminal]
    station.active = 1
    if abandoned(w, &operation):
        abandon(w, server, &operation, now_ns)
    elif operation.kind == OPERATION_ALLOCATE and station.asks_first:
        w.waiting -= 1
        w.granted += 1
        record_wait(w, station, now_ns - device.request_ns)
        w.outage_us += (now_ns - device.asked_ns) // 1000
        w.line_last_ns = now_ns
        hold(w, operation.terminal, device.pending_epoch, device.pending_sim, now_ns)
    elif operation.kind == OPERATION_ALLOCATE:
        become(w, device, DEVICE_ASKED)
        device.timer += 1
        send(w, server, OUT_ALLOCATE, operation.terminal, 0, 0, now_ns, 0)
    elif operation.kind == OPERATION_DRIVEN:
        if refuses(w, operation.terminal, station, NONE):
            end_switch(w, station, &w.switches_failed, now_ns)
        else:
            count_use(w, operation.terminal, now_ns)
            become(w, device, DEVICE_SWITCH_ASKED)
            device.timer += 1
            send(w, server, OUT_ALLOCATE, operation.terminal, 0, 0, now_ns, ITEM_DRIVEN)
    elif operation.order_kind == layout.SWITCH:
        if refuses(w, operation.terminal, station, <uint32_t>operation.target):
            end_switch(w, station, &w.switches_failed, now_ns)
            acknowledge(w, server, &operation, layout.ACK_REFUSED, now_ns)
        else:
            count_use(w, operation.terminal, now_ns)
            switch_line(w, operation.terminal, operation.epoch, <uint32_t>operation.target, operation.order, now_ns)
    else:
        acknowledge(w, server, &operation, layout.ACK_DONE, now_ns)
        if device.state == DEVICE_ON and device.epoch == operation.epoch:
            lose_line(w, operation.terminal, now_ns)
    return serve_next(w, server, now_ns)


# --------------------------------------------------------------------------------------------- terminals

cdef int arm(World *w, uint32_t terminal, int64_t at_ns) except -1 nogil:
    """The one timer of a terminal; the earlier one becomes void."""
    cdef Device *device = &w.devices[terminal]
    device.timer += 1
    return schedule(w, at_ns, EVENT_DEVICE, terminal, device.timer)


cdef int request(World *w, uint32_t terminal, int64_t now_ns) except -1 nogil:
    cdef Device *device = &w.devices[terminal]
    cdef Station *station = &w.stations[device.server]
    cdef Operation operation
    cdef int64_t until_ns = now_ns + station.timeout_ns
    memset(&operation, 0, sizeof(Operation))
    become(w, device, DEVICE_REQUESTING)
    device.generation += 1
    device.request_ns = now_ns
    w.requested += 1
    w.waiting += 1
    operation.kind = OPERATION_ALLOCATE
    operation.terminal = terminal
    operation.generation = device.generation
    operation.arrived_ns = now_ns
    arm(w, terminal, min(until_ns, device.off_ns))
    if station.asks_first:
        if not station.down:
            send(w, device.server, OUT_ALLOCATE, terminal, 0, 0, now_ns, ITEM_FIRST)
        return 0
    return enqueue(w, device.server, &operation)


cdef int attach(World *w, uint32_t terminal, uint64_t epoch, uint32_t sim, int64_t now_ns) except -1 nogil:
    """The engine gave it a SIM first: now it attaches, which takes an operation."""
    cdef Device *device = &w.devices[terminal]
    cdef Operation operation
    memset(&operation, 0, sizeof(Operation))
    device.pending_epoch = epoch
    device.pending_sim = sim
    operation.kind = OPERATION_ALLOCATE
    operation.terminal = terminal
    operation.generation = device.generation
    operation.arrived_ns = now_ns
    return enqueue(w, device.server, &operation)


cdef int let_go(World *w, uint32_t terminal, int64_t now_ns) except -1 nogil:
    """It was given a SIM and will not attach with it."""
    cdef Device *device = &w.devices[terminal]
    if device.pending_epoch:
        send(w, device.server, OUT_RELEASE, terminal, device.pending_epoch, 0, now_ns, 0)
        device.pending_epoch = 0
    return 0


cdef int come_back(World *w, uint32_t terminal, int64_t at_ns) except -1 nogil:
    """It was told to ask again then."""
    cdef Device *device = &w.devices[terminal]
    w.waiting -= 1
    w.told_to_wait += 1
    become(w, device, DEVICE_PAUSED)
    device.generation += 1
    return arm(w, terminal, min(at_ns, device.off_ns))


cdef int lose_line(World *w, uint32_t terminal, int64_t now_ns) except -1 nogil:
    """The engine ended its lease while it was on: it asks again."""
    cdef Device *device = &w.devices[terminal]
    w.lines_lost += 1
    become(w, device, DEVICE_PAUSED)
    device.sim = NONE
    device.asked_ns = now_ns
    return request(w, terminal, now_ns)


cdef int turn_off(World *w, uint32_t terminal, int64_t now_ns) except -1 nogil:
    cdef Device *device = &w.devices[terminal]
    if device.state == DEVICE_ON:
        count_use(w, terminal, now_ns)
        send(w, device.server, OUT_RELEASE, terminal, device.epoch, 0, now_ns, 0)
    else:
        if device.state == DEVICE_REQUESTING:
            w.waiting -= 1
            w.withdrawn += 1
            let_go(w, terminal, now_ns)
        w.outage_us += (now_ns - device.asked_ns) // 1000
    become(w, device, DEVICE_OFF)
    device.sim = NONE
    device.generation += 1
    device.timer += 1
    return 0


cdef int fail_request(World *w, uint32_t terminal, int64_t now_ns) except -1 nogil:
    cdef Device *device = &w.devices[terminal]
    cdef Station *station = &w.stations[device.server]
    let_go(w, terminal, now_ns)
    w.waiting -= 1
    w.failed += 1
    station.failed += 1
    record_wait(w, station, station.timeout_ns)
    become(w, device, DEVICE_PAUSED)
    device.generation += 1
    return arm(w, terminal, min(now_ns + station.pause_ns, device.off_ns))


cdef int device_timer(World *w, uint32_t terminal, int64_t now_ns) except -1 nogil:
    cdef Device *device = &w.devices[terminal]
    if now_ns >= device.off_ns:
        return turn_off(w, terminal, now_ns)
    if device.state == DEVICE_REQUESTING:
        return fail_request(w, terminal, now_ns)
    if device.state == DEVICE_PAUSED:
        return request(w, terminal, now_ns)
    count_use(w, terminal, now_ns)
    device.next_report_ns = now_ns + device.report_ns
    return arm(w, terminal, min(device.next_report_ns, device.off_ns))


cdef int hold(World *w, uint32_t terminal, uint64_t epoch, uint32_t sim, int64_t now_ns) except -1 nogil:
    """The terminal has a line from now on, under a new epoch."""
    cdef Device *device = &w.devices[terminal]
    device.epoch = epoch
    device.sim = sim
    device.pending_epoch = 0
    become(w, device, DEVICE_ON)
    device.used_bytes = 0
    device.reported_bytes = 0
    device.counted_ns = now_ns
    device.next_report_ns = now_ns + device.report_ns
    return arm(w, terminal, min(device.next_report_ns, device.off_ns))


cdef int switched(World *w, uint32_t terminal, int64_t now_ns) except -1 nogil:
    cdef Device *device = &w.devices[terminal]
    cdef Station *station = &w.stations[device.server]
    cdef Operation operation
    w.outage_us += device.outage_ns // 1000
    end_switch(w, station, &w.switches_completed, now_ns)
    hold(w, terminal, device.pending_epoch, device.pending_sim, now_ns)
    if device.pending_order:
        memset(&operation, 0, sizeof(Operation))
        operation.order = device.pending_order
        operation.terminal = terminal
        operation.session = station.session
        return acknowledge(w, device.server, &operation, layout.ACK_DONE, now_ns)
    return 0


cdef int turn_on(World *w, uint64_t session, int64_t now_ns) except -1 nogil:
    cdef uint32_t terminal = w.session_terminal[session]
    cdef Device *device = &w.devices[terminal]
    device.off_ns = w.session_off_ns[session]
    # A terminal whose switch outlasted its session is still on: it just stays.
    if device.state == DEVICE_OFF:
        device.asked_ns = now_ns
        return request(w, terminal, now_ns)
    return 0


# ----------------------------------------------------------------------------- access servers that stop and restart

cdef int go_on(World *w, uint32_t server) except -1 nogil:
    """It works again, and says what it had to say meanwhile."""
    cdef Station *station = &w.stations[server]
    cdef int kind
    station.stopped = 0
    station.down = 0
    for kind in range(<int>OUT_KINDS):
        if station.boxes[kind].count:
            speak(w, server)
    if station.frozen:
        station.frozen = 0
        return served(w, server, w.now_ns)
    if not station.serving:
        return serve_next(w, server, w.now_ns)
    return 0


cdef int disconnect(World *w, uint32_t server) except -1 nogil:
    """Its session breaks: what it has not begun of its orders it drops, and nobody hears of the others."""
    cdef Station *station = &w.stations[server]
    cdef uint32_t place, kept, index
    cdef Operation *operation
    cdef Device *device
    station.session = 0
    station.boxes[<int>OUT_ACKNOWLEDGE].count = 0
    station.boxes[<int>OUT_LOAD].count = 0
    station.taken_count = 0
    memset(station.seen, 0, sizeof(station.seen))
    kept = 0
    for place in range(station.ring_count):
        operation = &station.ring[(station.ring_head + place) & (station.ring_size - 1)]
        if operation.kind == OPERATION_ORDER:
            drop_order(w, station, operation)
        else:
            station.ring[(station.ring_head + kept) & (station.ring_size - 1)] = operation[0]
            kept += 1
    station.ring_count = kept
    if station.serving and station.current.kind == OPERATION_ORDER:
        drop_order(w, station, &station.current)
        station.current.kind = OPERATION_VOID
    # Switches that are under way end, but no longer by an acknowledgement.
    for index in range(w.devices_count):
        device = &w.devices[index]
        if device.server == server and device.state == DEVICE_SWITCHING and device.pending_order:
            device.pending_order = 0
            station.orders_in_flight -= 1
    return 0


cdef void drop_order(World *w, Station *station, const Operation *operation) noexcept nogil:
    if operation.order_kind == layout.SWITCH:
        end_switch(w, station, &w.switches_withdrawn, w.now_ns)
    station.orders_in_flight -= 1


cdef int take_down(World *w, uint32_t server) except -1 nogil:
    """It is gone with its session and its queue; terminals keep their lines."""
    cdef Station *station = &w.stations[server]
    cdef Item *item
    cdef uint32_t place
    cdef int kind
    disconnect(w, server)
    station.down = 1
    station.stopped = 1
    station.frozen = 0
    station.serve_mark += 1
    for place in range(station.ring_count):
        if station.ring[(station.ring_head + place) & (station.ring_size - 1)].kind == OPERATION_DRIVEN:
            end_switch(w, station, &w.switches_withdrawn, w.now_ns)
    station.ring_count = 0
    if station.serving:
        if station.current.kind == OPERATION_DRIVEN:
            end_switch(w, station, &w.switches_withdrawn, w.now_ns)
    station.serving = 0
    for place in range(station.boxes[<int>OUT_ALLOCATE].count):
        # It was served, and nobody will tell.
        item = &station.boxes[<int>OUT_ALLOCATE].items[place]
        if item.flag == ITEM_DRIVEN:
            become(w, &w.devices[item.terminal], DEVICE_ON)
            end_switch(w, station, &w.switches_withdrawn, w.now_ns)
            arm(w, item.terminal, min(w.devices[item.terminal].next_report_ns, w.devices[item.terminal].off_ns))
        elif w.devices[item.terminal].state == DEVICE_ASKED:
            fail_request(w, item.terminal, w.now_ns)
    for kind in range(<int>OUT_KINDS):
        station.boxes[kind].count = 0
    return 0


cdef int move_away(World *w, uint32_t server, const uint32_t *others, uint32_t others_count) except -1 nogil:
    """Its terminals go to the others, in turn; who had a line asks there for another."""
    cdef Station *station = &w.stations[server]
    cdef Device *device
    cdef uint32_t index, turn = 0
    cdef uint8_t state
    for index in range(w.devices_count):
        device = &w.devices[index]
        if device.server != server:
            continue
        state = device.state
        if state == DEVICE_SWITCHING:
            end_switch(w, station, &w.switches_withdrawn, w.now_ns)
        if state == DEVICE_REQUESTING:
            fail_request(w, index, w.now_ns)
        device.server = <uint16_t>others[turn]
        turn = (turn + 1) % others_count
        if state == DEVICE_ON or state == DEVICE_SWITCHING:
            w.lines_lost += 1
            become(w, device, DEVICE_PAUSED)
            device.sim = NONE
            device.pending_epoch = 0
            device.asked_ns = w.now_ns
            device.generation += 1
            # Not all in the same instant.
            arm(w, index, min(device.off_ns, w.now_ns + <int64_t>(
                (<uint64_t>(station.pause_ns // 1000) * w.draws[index % w.draws_count]) >> 32) * 1000))
    return 0


# --------------------------------------------------------------------------------------- drivers and load

cdef int order_batch(World *w, uint32_t server, int64_t now_ns) except -1 nogil:
    """A driver's next switches at one access server: all it has left, or ``per_gap`` of them."""
    cdef Station *station = &w.stations[server]
    cdef uint64_t left = w.per_gap
    cdef Operation operation
    cdef uint32_t terminal
    memset(&operation, 0, sizeof(Operation))
    while station.driven_next < station.driven_end and left > 0:
        terminal = w.driven[station.driven_next]
        station.driven_next += 1
        w.driven_left -= 1
        left -= 1
        operation.kind = OPERATION_DRIVEN
        operation.terminal = terminal
        operation.generation = w.devices[terminal].generation
        operation.arrived_ns = now_ns
        begin_switch(w, station)
        enqueue(w, server, &operation)
    if station.driven_next < station.driven_end:
        schedule(w, now_ns + w.gap_ns, EVENT_RELEASE_BATCH, server, 0)
    return 0


cdef int report_load(World *w, int64_t now_ns) except -1 nogil:
    """Once a second from each access server, unless nothing has happened since."""
    cdef uint32_t server
    cdef Station *station
    for server in range(w.stations_count):
        station = &w.stations[server]
        if not station.active and station.ring_count == 0:
            continue
        if station.ring_count == 0 and not station.serving:
            # One more report, of an empty queue, then silence until something happens.
            station.active = 0
            station.last_wait_ns = 0
        tell_load(w, server, now_ns)
    return schedule(w, now_ns + w.load_interval_ns, EVENT_LOAD, 0, 0)


cdef int process(World *w, uint64_t quantum) except -1 nogil:
    """All that happens within one quantum, in order."""
    cdef int64_t end_ns = <int64_t>(quantum + 1) * w.quantum_ns
    cdef uint32_t index, following
    cdef Event event
    w.quantum = quantum + 1
    index = w.buckets[quantum]
    w.buckets[quantum] = NONE
    while index != NONE:
        following = w.events[index].next
        heap_push(w, index)
        index = following
    while w.sessions_next < w.sessions_count and w.session_on_ns[w.sessions_next] < end_ns:
        schedule(w, w.session_on_ns[w.sessions_next], EVENT_TURNED_ON, <uint32_t>w.sessions_next, 0)
        w.sessions_next += 1
    while w.heap_count > 0:
        index = heap_pop(w)
        event = w.events[index]
        w.events[index].next = w.events_free
        w.events_free = index
        w.now_ns = event.at_ns
        w.events_count += 1
        if event.kind == EVENT_DEVICE:
            if w.devices[event.subject].timer == event.mark:
                device_timer(w, event.subject, event.at_ns)
        elif event.kind == EVENT_SERVED:
            if w.stations[event.subject].serve_mark != event.mark:
                pass
            elif w.stations[event.subject].stopped:
                w.stations[event.subject].frozen = 1
            else:
                served(w, event.subject, event.at_ns)
        elif event.kind == EVENT_TURNED_ON:
            turn_on(w, event.subject, event.at_ns)
        elif event.kind == EVENT_SWITCHED:
            if w.devices[event.subject].timer == event.mark:
                switched(w, event.subject, event.at_ns)
        elif event.kind == EVENT_LOAD:
            report_load(w, event.at_ns)
        elif event.kind == EVENT_TELL:
            w.stations[event.subject].tell_set = 0
            tell_soon(w, event.subject, event.at_ns)
        else:
            order_batch(w, event.subject, event.at_ns)
    w.now_ns = end_ns
    return 0


cdef int advance(World *w, int64_t limit_ns) except -1 nogil:
    """Goes on until something has to be said to the engine, or until the limit."""
    cdef uint64_t last = <uint64_t>((limit_ns + w.quantum_ns - 1) // w.quantum_ns)
    cdef uint64_t quantum = w.quantum
    cdef uint64_t arrival = w.quanta
    last = min(last, w.quanta)
    while quantum < last:
        if w.sessions_next < w.sessions_count:
            arrival = <uint64_t>(w.session_on_ns[w.sessions_next] // w.quantum_ns)
        else:
            arrival = w.quanta
        # What waits to be said since the last answers leaves at the end of this quantum.
        if w.dirty_count == 0:
            while quantum < last and quantum < arrival and w.buckets[quantum] == NONE:
                quantum += 1
            if quantum >= last:
                break
        process(w, quantum)
        quantum += 1
        if w.dirty_count > 0:
            return 0
    w.quantum = max(w.quantum, last)
    w.now_ns = max(w.now_ns, <int64_t>last * w.quantum_ns)
    return 0

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

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from simswitch.core cimport layout

cdef enum:
    NONE = 0xFFFFFFFF
    RUN_BYTES = 24
    OUTCOME_BYTES = 16
    ORDERS_KIND = 100
    ITEMS_MAX = 65536            # layout.RUN_ITEMS_MAX
    ITEM_INITIAL = 1             # granted before the scenario begins: no request of it is counted
    ITEM_DRIVEN = 2              # the re-allocation of a driver's switch


# ------------------------------------------------------------------------------------------------ events

cdef inline bint earlier(World *w, uint32_t left, uint32_t right) noexcept nogil:
    cdef Event *a = &w.events[left]
    cdef Event *b = &w.events[right]
    return a.at_ns < b.at_ns or (a.at_ns == b.at_ns and a.sequence < b.sequence)


cdef int heap_push(World *w, uint32_t event) except -1 nogil:
    cdef uint32_t *larger
    cdef uint32_t place, parent
    if w.heap_count == w.heap_size:
        larger = <uint32_t *>realloc(w.heap, <size_t>w.heap_size * 2 * sizeof(uint32_t))
        if larger == NULL:
            with gil:
                raise MemoryError()
        w.heap = larger
        w.heap_size *= 2
    place = w.heap_count
    w.heap_count += 1
    while place > 0:
        parent = (place - 1) // 2
        if not earlier(w, event, w.heap[parent]):
            break
        w.heap[place] = w.heap[parent]
        place = parent
    w.heap[place] = event
    return 0


cdef uint32_t heap_pop(World *w) noexcept nogil:
    cdef uint32_t top = w.heap[0]
    cdef uint32_t last, place, child
    w.heap_count -= 1
    if w.heap_count > 0:
        last = w.heap[w.heap_count]
        place = 0
        while True:
            child = 2 * place + 1
            if child >= w.heap_count:
                break
            if child + 1 < w.heap_count and earlier(w, w.heap[child + 1], w.heap[child]):
                child += 1
            if not earlier(w, w.heap[child], last):
                break
            w.heap[place] = w.heap[child]
            place = child
        w.heap[place] = last
    return top


cdef int schedule(World *w, int64_t at_ns, uint16_t kind, uint32_t subject, uint32_t mark) except -1 nogil:
    """An event past the end of the run is not kept: nobody will see it."""
    cdef uint32_t index
    cdef uint64_t quantum
    cdef Event *larger
    cdef Event *event
    if at_ns < w.now_ns:
        at_ns = w.now_ns
    quantum = <uint64_t>(at_ns // w.quantum_ns)
    if quantum >= w.quanta:
        return 0
    if w.events_free != NONE:
        index = w.events_free
        w.events_free = w.events[index].next
    else:
        if w.events_used == w.events_size:
            larger = <Event *>realloc(w.events, <size_t>w.events_size * 2 * sizeof(Event))
            if larger == NULL:
                with gil:
                    raise MemoryError()
            w.events = larger
            w.events_size *= 2
        index = w.events_used
        w.events_used += 1
    event = &w.events[index]
    event.at_ns = at_ns
    event.sequence = w.event_sequence
    w.event_sequence += 1
    event.subject = subject
    event.mark = mark
    event.kind = kind
    if quantum < w.quantum:
        # The quantum that is being processed now.
        heap_push(w, index)
    else:
        event.next = w.buckets[quantum]
        w.buckets[quantum] = index
    return 0


cdef int arm(World *w, uint32_t terminal, int64_t at_ns) except -1 nogil:
    """The one timer of a terminal; the earlier one becomes void."""
    cdef Device *device = &w.devices[terminal]
    device.timer += 1
    return schedule(w, at_ns, EVENT_DEVICE, terminal, device.timer)


# ------------------------------------------------------------------------------------------------ states

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
    if not station.dirty:
        station.dirty = 1
        w.dirty[w.dirty_count] = server
        w.dirty_count += 1
    return 0


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

cdef int record_wait(World *w, int64_t wait_ns) except -1 nogil:
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
    return 0


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
    if operation.order_kind == layout.SWITCH:
        return device.state != DEVICE_ON or device.sim == NONE or operation.source != device.sim
    return False


cdef int acknowledge(World *w, uint32_t server, Operation *operation, int result, int64_t now_ns) except -1 nogil:
    """An order of the engine is settled: it leaves its place and the engine hears of it."""
    cdef Station *station = &w.stations[server]
    station.orders_in_flight -= 1
    if operation.session == station.session:
        send(w, server, OUT_ACKNOWLEDGE, operation.terminal, operation.order, <uint64_t>result, now_ns, 0)
    return 0


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
    while station.ring_count > 0:
        station.current = station.ring[station.ring_head]
        station.ring_head = (station.ring_head + 1) & (station.ring_size - 1)
        station.ring_count -= 1
        if abandoned(w, &station.current):
            abandon(w, server, &station.current, now_ns)
            continue
        station.serving = 1
        station.last_wait_ns = now_ns - station.current.arrived_ns
        return schedule(w, now_ns + station.service_ns, EVENT_SERVED, server, 0)
    station.serving = 0
    return 0


cdef int enqueue(World *w, uint32_t server, Operation *operation) except -1 nogil:
    cdef Station *station = &w.stations[server]
    cdef Operation *larger
    cdef uint32_t place, size
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


cdef bint refuses(World *w, uint32_t terminal, Station *station) noexcept nogil:
    """Whether the terminal refuses this switch: a share of them does, drawn before the run."""
    cdef Device *device = &w.devices[terminal]
    cdef uint64_t draw = w.draws[(terminal * <uint64_t>31 + <uint64_t>device.switches_count * 104729 + 17) % w.draws_count]
    if draw < station.refused_below:
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
    elif operation.kind == OPERATION_ALLOCATE:
        become(w, device, DEVICE_ASKED)
        device.timer += 1
        send(w, server, OUT_ALLOCATE, operation.terminal, 0, 0, now_ns, 0)
    elif operation.kind == OPERATION_DRIVEN:
        if refuses(w, operation.terminal, station):
            end_switch(w, station, &w.switches_failed, now_ns)
        else:
            count_use(w, operation.terminal, now_ns)
            become(w, device, DEVICE_SWITCH_ASKED)
            device.timer += 1
            send(w, server, OUT_ALLOCATE, operation.terminal, 0, 0, now_ns, ITEM_DRIVEN)
    elif operation.order_kind == layout.SWITCH:
        if refuses(w, operation.terminal, station):
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
    return enqueue(w, device.server, &operation)


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
        w.outage_us += (now_ns - device.asked_ns) // 1000
    become(w, device, DEVICE_OFF)
    device.sim = NONE
    device.generation += 1
    device.timer += 1
    return 0


cdef int fail_request(World *w, uint32_t terminal, int64_t now_ns) except -1 nogil:
    cdef Device *device = &w.devices[terminal]
    cdef Station *station = &w.stations[device.server]
    w.waiting -= 1
    w.failed += 1
    record_wait(w, station.timeout_ns)
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
    become(w, device, DEVICE_ON)
    device.used_bytes = 0
    device.reported_bytes = 0
    device.counted_ns = now_ns
    device.next_report_ns = now_ns + device.report_ns
    return arm(w, terminal, min(device.next_report_ns, device.off_ns))


cdef int switched(World *w, uint32_t terminal, int64_t now_ns) except -1 nogil:
    cdef Device *device = &w.devices[terminal]
    cdef Station *station = &w.stations[device.server]
    w.outage_us += device.outage_ns // 1000
    end_switch(w, station, &w.switches_completed, now_ns)
    hold(w, terminal, device.pending_epoch, device.pending_sim, now_ns)
    if device.pending_order:
        station.orders_in_flight -= 1
        send(w, device.server, OUT_ACKNOWLEDGE, terminal, device.pending_order, layout.ACK_DONE, now_ns, 0)
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
    cdef uint32_t server
    cdef Station *station
    cdef int64_t wait_ns
    for server in range(w.stations_count):
        station = &w.stations[server]
        if not station.active and station.ring_count == 0:
            continue
        wait_ns = station.last_wait_ns
        if station.ring_count > 0:
            wait_ns = max(wait_ns, now_ns - station.ring[station.ring_head].arrived_ns)
        elif not station.serving:
            # One more report, of an empty queue, then silence until something happens.
            station.active = 0
            station.last_wait_ns = 0
        send(w, server, OUT_LOAD, 0, <uint64_t>min(wait_ns // 1000, <int64_t>0xFFFFFFFF),
             <uint64_t>min(station.service_ns // 1000, <int64_t>0xFFFFFFFF), now_ns, 0)
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
            served(w, event.subject, event.at_ns)
        elif event.kind == EVENT_TURNED_ON:
            turn_on(w, event.subject, event.at_ns)
        elif event.kind == EVENT_SWITCHED:
            if w.devices[event.subject].timer == event.mark:
                switched(w, event.subject, event.at_ns)
        elif event.kind == EVENT_LOAD:
            report_load(w, event.at_ns)
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


# ---------------------------------------------------------------------------- columns out, outcomes back

cdef uint64_t run_size(int kind, uint64_t count) noexcept nogil:
    cdef uint64_t item_bytes
    if kind == OUT_ALLOCATE:
        item_bytes = 26
    elif kind == OUT_USAGE:
        item_bytes = 32
    elif kind == OUT_RELEASE:
        item_bytes = 16
    elif kind == OUT_ACKNOWLEDGE:
        item_bytes = 9
    else:
        item_bytes = 8
    return (RUN_BYTES + item_bytes * count + 7) & ~<uint64_t>7


cdef uint16_t command_of(int kind) noexcept nogil:
    if kind == OUT_ALLOCATE:
        return layout.ALLOCATE
    if kind == OUT_USAGE:
        return layout.REPORT_USAGE
    if kind == OUT_RELEASE:
        return layout.RELEASE
    if kind == OUT_ACKNOWLEDGE:
        return layout.ACKNOWLEDGE
    return layout.REPORT_LOAD


cdef void write_run(World *w, Run *run, uint8_t *out) noexcept nogil:
    """One run as simswitch.core.commands lays it out: header, then columns, widest first."""
    cdef Station *station = &w.stations[run.server]
    cdef Item *items = station.said[run.kind].items + run.first
    cdef uint64_t count = run.count
    cdef uint64_t size = run_size(run.kind, count)
    cdef uint64_t index
    cdef uint64_t *wide = <uint64_t *>(out + RUN_BYTES)
    cdef uint32_t *half = <uint32_t *>(out + RUN_BYTES)
    cdef uint16_t *narrow
    (<uint64_t *>(out + size - 8))[0] = 0
    (<uint32_t *>out)[0] = <uint32_t>size
    (<uint16_t *>out)[2] = command_of(run.kind)
    (<uint16_t *>out)[3] = station.number
    (<uint32_t *>out)[2] = <uint32_t>count
    (<uint32_t *>out)[3] = 0
    (<uint64_t *>out)[2] = station.session if run.kind == OUT_ACKNOWLEDGE or run.kind == OUT_LOAD else 0
    if run.kind == OUT_ALLOCATE:
        narrow = <uint16_t *>(wide + 3 * count)
        for index in range(count):
            wide[index] = w.key_first + items[index].terminal
            # Whoever has the terminal is its subscriber.
            wide[count + index] = w.key_first + items[index].terminal
            wide[2 * count + index] = 0
            narrow[index] = w.devices[items[index].terminal].market
    elif run.kind == OUT_USAGE:
        for index in range(count):
            wide[index] = w.key_first + items[index].terminal
            wide[count + index] = items[index].a
            # An eighth goes up.
            wide[2 * count + index] = items[index].b >> 3
            wide[3 * count + index] = items[index].b - (items[index].b >> 3)
    elif run.kind == OUT_RELEASE:
        for index in range(count):
            wide[index] = w.key_first + items[index].terminal
            wide[count + index] = items[index].a
    elif run.kind == OUT_ACKNOWLEDGE:
        for index in range(count):
            wide[index] = items[index].a
            (<uint8_t *>(wide + count))[index] = <uint8_t>items[index].b
    else:
        for index in range(count):
            half[index] = <uint32_t>items[index].a
            half[count + index] = <uint32_t>items[index].b


cdef int plan_runs(World *w, uint64_t *size) except -1 nogil:
    """Which runs leave now: by kind, and within a kind in the order in which access servers had something to say."""
    cdef Run *larger
    cdef uint32_t place, server, first, count
    cdef int kind
    cdef Box *box
    w.runs_count = 0
    size[0] = 0
    for kind in range(<int>OUT_KINDS):
        for place in range(w.dirty_count):
            server = w.dirty[place]
            box = &w.stations[server].boxes[kind]
            first = 0
            while first < box.count:
                count = min(box.count - first, <uint32_t>ITEMS_MAX)
                if w.runs_count == w.runs_size:
                    larger = <Run *>realloc(w.runs, <size_t>w.runs_size * 2 * sizeof(Run))
                    if larger == NULL:
                        with gil:
                            raise MemoryError()
                    w.runs = larger
                    w.runs_size *= 2
                w.runs[w.runs_count].server = server
                w.runs[w.runs_count].kind = kind
                w.runs[w.runs_count].first = first
                w.runs[w.runs_count].count = count
                w.runs_count += 1
                w.commands_count += count
                size[0] += run_size(kind, count)
                first += count
    return 0


cdef int answer_allocation(World *w, Item *item, uint8_t status, uint64_t epoch, uint32_t sim) except -1 nogil:
    cdef uint32_t terminal = item.terminal
    cdef Device *device = &w.devices[terminal]
    cdef Station *station = &w.stations[device.server]
    cdef bint given = status == layout.OK or status == layout.MOVED or status == layout.SAME
    if item.flag == ITEM_DRIVEN:
        if status == layout.OK or status == layout.MOVED:
            return switch_line(w, terminal, epoch, sim, 0, item.at_ns)
        become(w, device, DEVICE_ON)
        end_switch(w, station, &w.switches_withdrawn if given else &w.switches_failed, w.now_ns)
        return arm(w, terminal, min(device.next_report_ns, device.off_ns))
    if item.flag == ITEM_INITIAL:
        if not given:
            device.asked_ns = w.now_ns
            return request(w, terminal, w.now_ns)
        hold(w, terminal, epoch, sim, w.now_ns)
        # Those that were on before the start don't all report at the same time.
        device.next_report_ns = w.now_ns + <int64_t>(
            (<uint64_t>(device.report_ns // 1000) * w.draws[terminal % w.draws_count]) >> 32) * 1000
        return arm(w, terminal, min(device.next_report_ns, device.off_ns))
    if not given:
        return fail_request(w, terminal, w.now_ns)
    w.waiting -= 1
    w.granted += 1
    record_wait(w, item.at_ns - device.request_ns)
    w.outage_us += (item.at_ns - device.asked_ns) // 1000
    hold(w, terminal, epoch, sim, w.now_ns)
    return 0


cdef int read_answers(World *w, Run *run, const uint8_t *data) except -1 nogil:
    cdef Item *items = w.stations[run.server].said[run.kind].items + run.first
    cdef uint64_t count = run.count
    cdef uint64_t index
    cdef const uint64_t *wide = <const uint64_t *>data
    cdef const uint8_t *status = data
    cdef Device *device
    if run.kind == OUT_ALLOCATE:
        # epoch, expires_ms, iccid; sim, retry_after_ms; bank, slot; status
        status = data + count * 36
        for index in range(count):
            answer_allocation(w, &items[index], status[index], wide[index],
                              (<const uint32_t *>(data + count * 24))[index])
        return 0
    for index in range(count):
        if status[index] <= layout.LATE:
            continue
        w.statuses[status[index] & 63] += 1
        if run.kind == OUT_USAGE:
            device = &w.devices[items[index].terminal]
            if (status[index] == layout.NO_LEASE or status[index] == layout.STALE_EPOCH) and (
                    device.state == DEVICE_ON and device.epoch == items[index].a):
                lose_line(w, items[index].terminal, w.now_ns)
    return 0


cdef inline uint32_t sim_of(World *w, uint64_t iccid) noexcept nogil:
    """ICCIDs were given in sequence: the digits between the 89 and the check digit count the SIMs."""
    return <uint32_t>((iccid >> 1) // 10 - w.iccid_first)


cdef int read_orders(World *w, const uint8_t *data, uint64_t count) except -1 nogil:
    cdef const uint64_t *wide = <const uint64_t *>data
    cdef const uint32_t *sessions = <const uint32_t *>(wide + 6 * count)
    cdef const uint16_t *numbers = <const uint16_t *>(sessions + count)
    cdef const uint8_t *kinds = <const uint8_t *>(numbers + 3 * count)
    cdef uint64_t index
    cdef uint32_t server
    cdef Operation operation
    cdef Station *station
    memset(&operation, 0, sizeof(Operation))
    for index in range(count):
        server = w.server_of_number[numbers[index]]
        if server == NONE or wide[count + index] - w.key_first >= w.devices_count:
            with gil:
                raise ValueError("the engine sent an order for an access server or terminal that the scenario has not")
        station = &w.stations[server]
        operation.kind = OPERATION_ORDER
        operation.order_kind = kinds[index]
        operation.order = wide[index]
        operation.terminal = <uint32_t>(wide[count + index] - w.key_first)
        operation.epoch = wide[2 * count + index]
        operation.source = sim_of(w, wide[4 * count + index])
        operation.target = sim_of(w, wide[5 * count + index]) if kinds[index] == layout.SWITCH else NONE
        operation.session = sessions[index]
        operation.arrived_ns = w.now_ns
        if kinds[index] == layout.SWITCH and operation.target >= w.sims_count:
            with gil:
                raise ValueError("the engine ordered a switch to a SIM that the scenario has not")
        station.orders_in_flight += 1
        if station.orders_in_flight > station.orders_in_flight_max:
            station.orders_in_flight_max = station.orders_in_flight
        if kinds[index] == layout.SWITCH:
            begin_switch(w, station)
            if station.busy_above >= 0 and station.ring_count > station.busy_above:
                end_switch(w, station, &w.switches_busy, w.now_ns)
                acknowledge(w, server, &operation, layout.ACK_BUSY, w.now_ns)
                continue
        enqueue(w, server, &operation)
    return 0


cdef void turn_boxes(World *w) noexcept nogil:
    """What is written out waits for its answers in the other boxes: while these are read, the boxes fill anew."""
    cdef uint32_t place
    cdef Station *station
    cdef Box box
    cdef int kind
    for place in range(w.dirty_count):
        station = &w.stations[w.dirty[place]]
        station.dirty = 0
        for kind in range(<int>OUT_KINDS):
            box = station.said[kind]
            station.said[kind] = station.boxes[kind]
            box.count = 0
            station.boxes[kind] = box
    w.dirty_count = 0


cdef int read_outcomes(World *w, const uint8_t *data, uint64_t size) except -1 nogil:
    """The outcome runs stand in the order of the command runs; the orders come last."""
    cdef uint64_t offset = 0
    cdef uint32_t place = 0
    cdef const uint8_t *header
    cdef uint64_t run_bytes
    while offset + OUTCOME_BYTES <= size:
        header = data + offset
        run_bytes = (<const uint32_t *>header)[0]
        if run_bytes < OUTCOME_BYTES or run_bytes > size - offset:
            with gil:
                raise ValueError("an outcome run is longer than the outcomes")
        if (<const uint16_t *>header)[2] == ORDERS_KIND:
            read_orders(w, header + OUTCOME_BYTES, (<const uint32_t *>header)[2])
        elif place < w.runs_count:
            if (<const uint16_t *>header)[2] != command_of(<int>w.runs[place].kind) or (
                    (<const uint32_t *>header)[2] != w.runs[place].count):
                with gil:
                    raise ValueError("the outcomes are not those of the last batch")
            read_answers(w, &w.runs[place], header + OUTCOME_BYTES)
            place += 1
        offset += run_bytes
    w.runs_count = 0
    return 0


# ------------------------------------------------------------------------------------------------ python

cdef void *take(size_t count, size_t item_bytes) except NULL:
    cdef void *memory = calloc(max(count, <size_t>1), item_bytes)
    if memory == NULL:
        raise MemoryError(f"no memory for {count} records of {item_bytes} bytes")
    return memory


cdef class Loop:
    """See loop.pyi."""

    cdef World w

    def __cinit__(self):
        memset(&self.w, 0, sizeof(World))

    def __init__(self, plan, *, numbers, sessions, key_first, iccid_first):
        cdef World *w = &self.w
        cdef uint32_t index
        cdef const int64_t[::1] column
        cdef const uint32_t[::1] draws
        cdef const uint32_t[::1] words
        if w.devices != NULL:
            raise RuntimeError("a loop is begun once")
        w.quantum_ns = plan.quantum_ns
        w.end_ns = plan.end_ns
        w.load_interval_ns = plan.load_interval_ns
        w.key_first = key_first
        w.iccid_first = iccid_first
        w.devices_count = len(plan.terminal_server)
        w.stations_count = len(plan.service_ns)
        w.sims_count = plan.sims_count
        w.draws_count = len(plan.draws)
        w.sessions_count = len(plan.session_on_ns)
        if w.quantum_ns < 1_000_000 or w.quantum_ns % 1_000_000 or w.end_ns < w.quantum_ns or w.load_interval_ns < 1:
            raise ValueError("a quantum is a whole number of milliseconds, and the run at least one quantum")
        if not w.devices_count or not w.stations_count or not w.sims_count or not w.draws_count:
            raise ValueError("a scenario has terminals, access servers, SIMs and draws")
        w.quanta = <uint64_t>((w.end_ns + w.quantum_ns - 1) // w.quantum_ns)
        w.devices = <Device *>take(w.devices_count, sizeof(Device))
        w.stations = <Station *>take(w.stations_count, sizeof(Station))
        w.slow_bytes_per_s = <int64_t *>take(w.sims_count, sizeof(int64_t))
        w.draws = <uint32_t *>take(w.draws_count, sizeof(uint32_t))
        w.session_on_ns = <int64_t *>take(w.sessions_count, sizeof(int64_t))
        w.session_off_ns = <int64_t *>take(w.sessions_count, sizeof(int64_t))
        w.session_terminal = <uint32_t *>take(w.sessions_count, sizeof(uint32_t))
        w.buckets = <uint32_t *>take(w.quanta, sizeof(uint32_t))
        w.events_size = w.heap_size = w.waits_size = 1024
        w.runs_size = 64
        w.events = <Event *>take(w.events_size, sizeof(Event))
        w.heap = <uint32_t *>take(w.heap_size, sizeof(uint32_t))
        w.waits_us = <uint32_t *>take(w.waits_size, sizeof(uint32_t))
        w.runs = <Run *>take(w.runs_size, sizeof(Run))
        w.dirty = <uint32_t *>take(w.stations_count, sizeof(uint32_t))
        w.driven = <uint32_t *>take(w.devices_count, sizeof(uint32_t))
        w.server_of_number = <uint32_t *>take(0x10000, sizeof(uint32_t))
        memset(w.buckets, 0xFF, <size_t>w.quanta * sizeof(uint32_t))
        memset(w.server_of_number, 0xFF, 0x10000 * sizeof(uint32_t))
        w.events_free = NONE
        for index in range(w.sims_count):
            w.slow_bytes_per_s[index] = INT64_MAX
        draws = plan.draws
        for index in range(w.draws_count):
            w.draws[index] = draws[index]
        self._fill_devices(plan)
        self._fill_stations(plan, numbers, sessions)
        column = plan.session_on_ns
        if len(plan.session_off_ns) != len(column) or len(plan.session_terminal) != len(column):
            raise ValueError("the columns of the sessions differ in length")
        for index in range(w.sessions_count):
            w.session_on_ns[index] = column[index]
            if column[index] < 0 or (index and column[index] < column[index - 1]):
                raise ValueError("sessions stand in the order of their beginnings")
        column = plan.session_off_ns
        words = plan.session_terminal
        for index in range(w.sessions_count):
            w.session_off_ns[index] = column[index]
            w.session_terminal[index] = words[index]
            if words[index] >= w.devices_count:
                raise ValueError(f"a session of terminal {words[index]}, but there are {w.devices_count}")
        schedule(w, w.load_interval_ns, EVENT_LOAD, 0, 0)

    def _fill_devices(self, plan):
        cdef World *w = &self.w
        cdef const uint32_t[::1] server = plan.terminal_server
        cdef const uint32_t[::1] market = plan.terminal_market
        cdef const int64_t[::1] rate = plan.terminal_bytes_per_s
        cdef const int64_t[::1] report = plan.terminal_report_ns
        cdef uint32_t index
        if not len(server) == len(market) == len(rate) == len(report):
            raise ValueError("the columns of the terminals differ in length")
        for index in range(w.devices_count):
            if server[index] >= w.stations_count or report[index] < w.quantum_ns or rate[index] < 0:
                raise ValueError(f"terminal {index} has no such access server, or an impossible rate or interval")
            w.devices[index].server = <uint16_t>server[index]
            w.devices[index].market = <uint16_t>market[index]
            w.devices[index].rate_bytes_per_s = rate[index]
            w.devices[index].report_ns = report[index]
            w.devices[index].sim = NONE

    def _fill_stations(self, plan, numbers, sessions):
        cdef World *w = &self.w
        cdef Station *station
        cdef uint32_t index
        for index in range(w.stations_count):
            station = &w.stations[index]
            station.service_ns = plan.service_ns[index]
            station.timeout_ns = plan.timeout_ns[index]
            station.pause_ns = plan.pause_ns[index]
            station.outage_ns = plan.outage_ns[index]
            station.outage_spread_us = plan.outage_spread_ns[index] // 1000
            station.refused_below = plan.refused_below[index]
            station.busy_above = plan.busy_above[index]
            station.number = numbers[index]
            station.session = sessions[index]
            if station.service_ns < 1 or station.timeout_ns < 1 or station.pause_ns < 1:
                raise ValueError(f"access server {index} has no speed, no time-out or no pause")
            station.ring_size = 16
            station.ring = <Operation *>take(station.ring_size, sizeof(Operation))
            w.server_of_number[station.number] = index

    def __dealloc__(self):
        cdef World *w = &self.w
        cdef uint32_t index
        cdef int kind
        if w.stations != NULL:
            for index in range(w.stations_count):
                free(w.stations[index].ring)
                for kind in range(<int>OUT_KINDS):
                    free(w.stations[index].boxes[kind].items)
                    free(w.stations[index].said[kind].items)
        free(w.devices)
        free(w.stations)
        free(w.slow_bytes_per_s)
        free(w.draws)
        free(w.session_on_ns)
        free(w.session_off_ns)
        free(w.session_terminal)
        free(w.buckets)
        free(w.events)
        free(w.heap)
        free(w.waits_us)
        free(w.runs)
        free(w.dirty)
        free(w.driven)
        free(w.server_of_number)

    @property
    def now_ns(self):
        return self.w.now_ns

    def gather(self, int64_t limit_ns):
        cdef World *w = &self.w
        cdef uint64_t size = 0
        cdef uint64_t offset = 0
        cdef uint32_t place
        cdef bytes batch
        cdef uint8_t *out
        if w.runs_count:
            raise RuntimeError("the last batch was not answered yet")
        with nogil:
            advance(w, limit_ns)
            plan_runs(w, &size)
        if not size:
            return b""
        batch = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
        out = <uint8_t *>PyBytes_AS_STRING(batch)
        with nogil:
            turn_boxes(w)
            for place in range(w.runs_count):
                write_run(w, &w.runs[place], out + offset)
                offset += run_size(<int>w.runs[place].kind, w.runs[place].count)
        return batch

    def settle(self, bytes outcomes not None):
        cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(outcomes)
        cdef uint64_t size = <uint64_t>len(outcomes)
        with nogil:
            read_outcomes(&self.w, data, size)

    def begin_on(self, const uint32_t[::1] terminals, const int64_t[::1] off_ns):
        cdef World *w = &self.w
        cdef Py_ssize_t index
        cdef Device *device
        if len(terminals) != len(off_ns):
            raise ValueError("the columns differ in length")
        for index in range(len(terminals)):
            if terminals[index] >= w.devices_count or w.devices[terminals[index]].state != DEVICE_OFF:
                raise ValueError(f"terminal {terminals[index]} does not exist or is on already")
            device = &w.devices[terminals[index]]
            device.off_ns = off_ns[index]
            become(w, device, DEVICE_ASKED)
            send(w, device.server, OUT_ALLOCATE, terminals[index], 0, 0, w.now_ns, ITEM_INITIAL)

    def order_switches(self, terminals, per_gap, int64_t gap_ns):
        cdef World *w = &self.w
        cdef uint32_t server, place, terminal
        cdef const uint32_t[::1] column
        if w.driven_left:
            raise RuntimeError("the driver has not ordered all of its last switches yet")
        if gap_ns < 1:
            raise ValueError("a gap is at least one nanosecond")
        # By access server, and within one in the order in which they were given.
        found = np.ascontiguousarray(terminals, dtype=np.uint32)
        if len(found) != len(np.unique(found)) or (len(found) and int(found.max()) >= w.devices_count):
            raise ValueError("each terminal is switched once, and exists")
        servers = np.array([w.devices[terminal].server for terminal in found], dtype=np.uint32)
        column = np.ascontiguousarray(found[np.argsort(servers, kind="stable")])
        w.per_gap = 0xFFFFFFFF if per_gap is None else per_gap
        w.gap_ns = gap_ns
        w.driven_left = len(column)
        place = 0
        for server in range(w.stations_count):
            w.stations[server].driven_next = place
            while place < len(column) and w.devices[column[place]].server == server:
                w.driven[place] = column[place]
                place += 1
            w.stations[server].driven_end = place
            order_batch(w, server, w.now_ns)

    def slow(self, const uint32_t[::1] sims, int64_t bytes_per_s):
        cdef Py_ssize_t index
        cdef uint32_t terminal
        if bytes_per_s < 0:
            raise ValueError("a speed is not negative")
        for index in range(len(sims)):
            if sims[index] >= self.w.sims_count:
                raise ValueError(f"there is no SIM {sims[index]}")
            self.w.slow_bytes_per_s[sims[index]] = bytes_per_s
        self.w.well_count = 0
        for terminal in range(self.w.devices_count):
            self.w.well_count += is_well(&self.w, &self.w.devices[terminal])

    def set_speed(self, uint32_t server, int64_t service_ns):
        if server >= self.w.stations_count or service_ns < 1:
            raise ValueError("there is no such access server, or no such speed")
        # The operation that is being served ends as it began.
        self.w.stations[server].service_ns = service_ns

    def terminals_on(self, const uint8_t[::1] sims):
        cdef World *w = &self.w
        cdef uint32_t index
        cdef uint32_t found = 0
        if len(sims) != w.sims_count:
            raise ValueError("one mark a SIM")
        result = np.zeros(w.devices_count, dtype=np.uint32)
        cdef uint32_t[::1] column = result
        for index in range(w.devices_count):
            if w.devices[index].state == DEVICE_ON and sims[w.devices[index].sim]:
                column[found] = index
                found += 1
        return result[:found].copy()

    def waits_us(self):
        result = np.zeros(self.w.waits_count, dtype=np.uint32)
        cdef uint32_t[::1] column = result
        if self.w.waits_count:
            memcpy(&column[0], self.w.waits_us, <size_t>self.w.waits_count * sizeof(uint32_t))
        return result

    def sample(self):
        cdef World *w = &self.w
        cdef uint32_t index
        peaks = {
            "in_flight_total": w.in_flight_peak,
            "in_flight_worst": w.in_flight_worst_peak,
            "wait_max_us": w.wait_peak_us,
        }
        w.in_flight_peak = w.in_flight
        w.in_flight_worst_peak = 0
        for index in range(w.stations_count):
            w.in_flight_worst_peak = max(w.in_flight_worst_peak, w.stations[index].in_flight)
        w.wait_peak_us = 0
        return peaks

    def counters(self):
        cdef World *w = &self.w
        cdef uint32_t index
        cdef uint32_t switches_worst = 0
        cdef uint32_t orders_worst = 0
        for index in range(w.stations_count):
            switches_worst = max(switches_worst, w.stations[index].in_flight_max)
            orders_worst = max(orders_worst, w.stations[index].orders_in_flight_max)
        return {
            "requested": w.requested,
            "granted": w.granted,
            "failed": w.failed,
            "withdrawn": w.withdrawn,
            "waiting": w.waiting,
            "events": w.events_count,
            "commands": w.commands_count,
            "switches_ordered": w.switches_ordered,
            "switches_completed": w.switches_completed,
            "switches_failed": w.switches_failed,
            "switches_withdrawn": w.switches_withdrawn,
            "switches_busy": w.switches_busy,
            "in_flight": w.in_flight,
            "in_flight_total_max": w.in_flight_max,
            "in_flight_max": switches_worst,
            "orders_in_flight_max": orders_worst,
            "driven_left": w.driven_left,
            "lines_lost": w.lines_lost,
            "settled_ns": w.settled_ns,
            "on": w.on_count,
            "well": w.well_count,
            "wait_sum_us": w.wait_sum_us,
        }

    def outage_us(self):
        cdef World *w = &self.w
        cdef uint32_t index
        cdef int64_t total_us = w.outage_us
        # Those that still have no line have waited until now.
        for index in range(w.devices_count):
            if w.devices[index].state in (DEVICE_REQUESTING, DEVICE_ASKED, DEVICE_PAUSED):
                total_us += max(w.now_ns - w.devices[index].asked_ns, <int64_t>0) // 1000
        return total_us

    def refusals(self):
        cdef int status
        return {status: self.w.statuses[status] for status in range(64) if self.w.statuses[status]}

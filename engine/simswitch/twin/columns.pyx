"""The conversation with the engine: command runs out, outcome runs and orders back.

The layout of the bytes is that of simswitch.core.commands; it is repeated here because it is written and read without a
Python object per item. What was written waits in ``Station.said`` until it is answered, in the order in which it was said.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memset

from simswitch.core cimport layout
from simswitch.twin.records cimport (
    NONE,
    DEVICE_ON,
    DEVICE_REQUESTING,
    ITEM_DRIVEN,
    ITEM_FIRST,
    ITEM_INITIAL,
    OPERATION_ORDER,
    OUT_ACKNOWLEDGE,
    OUT_ALLOCATE,
    OUT_KINDS,
    OUT_LOAD,
    OUT_RELEASE,
    OUT_USAGE,
    Box,
    Device,
    Item,
    Operation,
    Run,
    Station,
    World,
)
from simswitch.twin.world cimport (
    acknowledge,
    arm,
    attach,
    become,
    begin_switch,
    come_back,
    end_switch,
    enqueue,
    fail_request,
    hold,
    is_new,
    lose_line,
    record_wait,
    request,
    send,
    switch_line,
)

cdef enum:
    RUN_BYTES = 24
    OUTCOME_BYTES = 16
    ORDERS_KIND = 100
    ITEMS_MAX = 65536            # layout.RUN_ITEMS_MAX


cdef uint64_t run_size(int kind, uint64_t count) noexcept nogil:
    cdef uint64_t item_bytes
    if kind == OUT_ALLOCATE:
        item_bytes = 26
    elif kind == OUT_USAGE:
        item_bytes = 43
    elif kind == OUT_RELEASE:
        item_bytes = 16
    elif kind == OUT_ACKNOWLEDGE:
        item_bytes = 9
    else:
        item_bytes = 24
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
        # How the terminals fared is not told.
        memset(wide + 4 * count, 0, 11 * count)
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
            half[count + index] = <uint32_t>(items[index].a >> 32)
            half[2 * count + index] = <uint32_t>items[index].b
            half[3 * count + index] = items[index].terminal
            half[4 * count + index] = items[index].flag
            half[5 * count + index] = <uint32_t>(items[index].b >> 32)


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


cdef int answer_allocation(
    World *w, Item *item, uint8_t status, uint64_t epoch, uint32_t sim, uint32_t retry_after_ms
) except -1 nogil:
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
    if item.flag == ITEM_FIRST:
        if device.state != DEVICE_REQUESTING or device.request_ns != item.at_ns:
            # It gave up, or left, before the answer came.
            return send(w, device.server, OUT_RELEASE, terminal, epoch, 0, w.now_ns, 0) if given else 0
        if given:
            return attach(w, terminal, epoch, sim, w.now_ns)
        if status == layout.ADMISSION_WAIT:
            return come_back(w, terminal, w.now_ns + <int64_t>retry_after_ms * 1_000_000)
        return fail_request(w, terminal, w.now_ns)
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
    record_wait(w, station, item.at_ns - device.request_ns)
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
        # epoch, expires_ms, iccid; sim, retry_after_ms, slow_kbps; bank, slot; status
        status = data + count * 40
        for index in range(count):
            answer_allocation(w, &items[index], status[index], wide[index],
                              (<const uint32_t *>(data + count * 24))[index],
                              (<const uint32_t *>(data + count * 28))[index])
        return 0
    if run.kind == OUT_USAGE:
        # counted_bytes, subscriber; sim, slow_kbps; status
        status = data + count * 24
    for index in range(count):
        if status[index] <= layout.LATE:
            continue
        w.statuses[status[index] & 63] += 1
        if run.kind == OUT_USAGE:
            device = &w.devices[items[index].terminal]
            if (status[index] == layout.ENDED or status[index] == layout.NO_LEASE or status[index] == layout.STALE_EPOCH) and (
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
        if operation.session != station.session:
            # On its way when the session broke.
            continue
        station.taken_count += 1
        if not is_new(w, server, &operation):
            continue
        station.orders_in_flight += 1
        if station.orders_in_flight > station.orders_in_flight_max:
            station.orders_in_flight_max = station.orders_in_flight
        if kinds[index] == layout.WITHDRAW:
            # Its switch never came.
            acknowledge(w, server, &operation, layout.ACK_REFUSED, w.now_ns)
            continue
        if kinds[index] == layout.SWITCH:
            begin_switch(w, station)
            if not station.stopped and (
                    station.busy or (station.busy_above >= 0 and station.ring_count > station.busy_above)):
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

"""The twin's event loop as Python sees it: it owns the world's memory, and checks what comes in. See world.pyx."""

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from simswitch.twin.calendar cimport schedule
from simswitch.twin.columns cimport plan_runs, read_outcomes, run_size, turn_boxes, write_run
from simswitch.twin.records cimport (
    NONE,
    DEVICE_ASKED,
    DEVICE_OFF,
    DEVICE_ON,
    DEVICE_PAUSED,
    DEVICE_REQUESTING,
    DEVICE_SWITCHING,
    DEVICE_SWITCH_ASKED,
    EVENT_LOAD,
    ITEM_INITIAL,
    OUT_ALLOCATE,
    OUT_KINDS,
    Device,
    Event,
    Operation,
    Run,
    Station,
    World,
)
from simswitch.twin.world cimport (
    advance,
    become,
    disconnect,
    go_on,
    is_well,
    move_away,
    order_batch,
    send,
    take_down,
)


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
        w.sim_refused_below = <uint32_t *>take(w.sims_count, sizeof(uint32_t))
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
            station.asks_first = plan.asks_first[index]
            # It says how fast it is before anybody asks.
            station.active = station.asks_first
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
        free(w.sim_refused_below)
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

    def _station(self, uint32_t server):
        if server >= self.w.stations_count:
            raise ValueError(f"there is no access server {server}")

    def set_stopped(self, uint32_t server, bint stopped):
        self._station(server)
        if stopped:
            self.w.stations[server].stopped = 1
        else:
            go_on(&self.w, server)

    def set_busy(self, uint32_t server, bint busy):
        self._station(server)
        self.w.stations[server].busy = busy

    def set_lost(self, uint32_t server, double share):
        self._station(server)
        self.w.stations[server].lost_below = <uint64_t>(share * 4294967296.0)

    def refuse_on(self, const uint32_t[::1] sims, double share):
        cdef Py_ssize_t index
        for index in range(len(sims)):
            if sims[index] >= self.w.sims_count:
                raise ValueError(f"there is no SIM {sims[index]}")
            self.w.sim_refused_below[sims[index]] = <uint32_t>min(share * 4294967296.0, 4294967295.0)

    def disconnect(self, uint32_t server):
        self._station(server)
        disconnect(&self.w, server)

    def take_down(self, uint32_t server):
        self._station(server)
        take_down(&self.w, server)

    def connect(self, uint32_t server, uint64_t session):
        self._station(server)
        self.w.stations[server].session = session

    def move_away(self, uint32_t server, const uint32_t[::1] others):
        cdef Py_ssize_t index
        self._station(server)
        for index in range(len(others)):
            self._station(others[index])
        if not len(others):
            raise ValueError("there is no other access server")
        move_away(&self.w, server, &others[0], <uint32_t>len(others))

    def holdings(self, uint32_t server):
        cdef World *w = &self.w
        cdef uint32_t index
        cdef Device *device
        self._station(server)
        terminals, epochs, sims = [], [], []
        for index in range(w.devices_count):
            device = &w.devices[index]
            if device.server != server:
                continue
            if device.state == DEVICE_SWITCHING:
                # It has let go of its last SIM.
                terminals.append(index)
                epochs.append(device.pending_epoch)
                sims.append(device.pending_sim)
            elif device.state == DEVICE_ON or device.state == DEVICE_SWITCH_ASKED:
                terminals.append(index)
                epochs.append(device.epoch)
                sims.append(device.sim)
        return (
            np.array(terminals, dtype=np.uint64), np.array(epochs, dtype=np.uint64), np.array(sims, dtype=np.uint32))

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

    def server_waits_us(self):
        cdef uint32_t index
        return [self.w.stations[index].wait_peak_us for index in range(self.w.stations_count)]

    def server_failed(self):
        cdef uint32_t index
        return [self.w.stations[index].failed for index in range(self.w.stations_count)]

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
        for index in range(w.stations_count):
            w.stations[index].wait_peak_us = 0
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
            "told_to_wait": w.told_to_wait,
            "line_last_ns": w.line_last_ns,
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
            "acknowledgements_lost": w.acknowledgements_lost,
            "orders_repeated": w.orders_repeated,
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

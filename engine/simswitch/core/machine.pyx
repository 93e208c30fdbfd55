# The state machine as Python sees it: one object that owns all memory, one call that applies a batch.
#
#     apply(batch, now, seed):   validate -> timers -> command runs, in order -> sweeps -> dispatch -> outcomes, hash
#
# It does no I/O, reads no clock and draws no random number. Everything between validation and the copy of the outcomes runs
# without the GIL. Timers, sweeps and dispatch do at most WORK_MAX items each, so an apply's time is bounded by its batch.
# Allocations of a batch come before the dispatch of swaps (I7).
#
# The whole core is one C file, so that the compiler sees through every call: the chapters are included below, from the memory
# up. Only layout (records, enums), wire (messages) and commands.py (columns) are modules of their own.

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

import numpy as np

from simswitch.core import layout
from simswitch.core.commands import COMMAND_COLUMNS, ORDERS, OUTCOME_COLUMNS
from simswitch.core.roles import COMMAND_ROLES

from simswitch.core.invariant cimport invariant
from simswitch.core.layout cimport *
from simswitch.core.runs cimport Grant, Run, grant_columns

include "regions.pxi"
include "tiers.pxi"
include "tables.pxi"
include "timers.pxi"
include "windows.pxi"
include "sims.pxi"
include "expected.pxi"
include "leases.pxi"
include "subscribers.pxi"
include "events.pxi"
include "limits.pxi"
include "breakers.pxi"
include "orders.pxi"
include "feasibility.pxi"
include "automatic.pxi"
include "sweeps.pxi"
include "caps.pxi"
include "lots.pxi"
include "ledger.pxi"
include "pools.pxi"
include "jobs.pxi"
include "sessions.pxi"
include "admission.pxi"
include "allocation.pxi"
include "inventory.pxi"
include "check.pxi"
include "reading.pxi"


cdef enum:
    RUN_HEADER_BYTES = 24
    WIDE_ITEMS_MAX = 256          # items of a command that looks at every entity, group or exemption
    OUTCOME_HEADER_BYTES = 16
    ORDER_BYTES = 59
    EVENT_BYTES = 48
    KINDS = 128
    ENTITIES_MAX = 16384
    GROUPS_MAX = 8192
    CLASSES_MAX = 256
    MARKETS_MAX = 256
    SERVERS_MAX = 4096
    JOBS_MAX = 1024               # a power of two
    SWEEPS_MAX = 256
    ITEMS_MAX = 1 << 26           # SIMs or terminals; a timer's id could name 2^29
    ORDERS_MAX = 1 << 24          # what an order's number can name
    PIECE_BYTES = 1 << 20         # what is hashed as one
    FENCE_MS_BITS = 40            # of an instant: until 2054
    FENCE_EPOCH_BITS = 23         # epochs that an instant has before the next begins: 2 ** 23 a millisecond
    FENCE_TOLD_BITS = 12          # the same of events and of swaps that were given up: numbers stay below 2 ** 53 (JSON)
    FENCE_JOB_BITS = 8            # a job has so many milliseconds (2 ** 8): its number has 32 bits
    FENCE_DRAWN_BITS = 22         # so far apart are the instants of which one is drawn: 70 minutes
    FENCE_DRAWN = 1024            # as many are there: within fifty days


cdef uint64_t FENCES_BEGIN_MS = 1_577_836_800_000   # 2020-01-01


cdef uint64_t _later(uint64_t told, uint64_t count, uint64_t turns):
    """A number above both, whose place in a ring of so many is that of the one before."""
    return told - told % turns + turns + count % turns


cdef uint64_t _reached_ms(Header *header):
    """The first instant whose numbers are all beyond those of the state, and which it has not seen itself."""
    cdef uint64_t reached = header.now_ms - FENCES_BEGIN_MS if header.now_ms > FENCES_BEGIN_MS else 0
    reached = max(reached, (<uint64_t> header.incarnation << 24) + (header.epoch_next >> FENCE_EPOCH_BITS))
    reached = max(reached, header.order_next)
    reached = max(reached, header.events_count >> FENCE_TOLD_BITS)
    reached = max(reached, header.given_up_count >> FENCE_TOLD_BITS)
    return max(reached + 1, (<uint64_t> header.jobs_count + 1) << FENCE_JOB_BITS)


HASH_PIECE_BYTES = int(PIECE_BYTES)


ctypedef struct RunHeader:
    uint32_t size
    uint16_t kind
    uint16_t access_server
    uint32_t count
    uint32_t actor
    uint64_t argument


ctypedef struct OutcomeHeader:
    uint32_t size
    uint16_t kind
    uint16_t reserved
    uint32_t count
    uint32_t reserved2


# Bytes per item by kind, from the tables in commands.py, and who may give the command, a bit per role, from roles.py.
cdef uint32_t COMMAND_BYTES[KINDS]
cdef uint32_t OUTCOME_BYTES[KINDS]
cdef uint32_t PERMITTED[KINDS]

memset(COMMAND_BYTES, 0, sizeof(COMMAND_BYTES))
memset(OUTCOME_BYTES, 0, sizeof(OUTCOME_BYTES))
memset(PERMITTED, 0, sizeof(PERMITTED))
for _kind, _columns in COMMAND_COLUMNS.items():
    COMMAND_BYTES[<int> _kind] = sum(np.dtype(code).itemsize for _, code in _columns)
    OUTCOME_BYTES[<int> _kind] = sum(np.dtype(code).itemsize for _, code in OUTCOME_COLUMNS[_kind])
    for _role in COMMAND_ROLES[_kind]:
        PERMITTED[<int> _kind] |= 1 << <int> _role

cdef tuple REGION_NAMES = (
    "header", "entities", "sims", "sims_cold", "terminals", "terminals_cold", "orders", "groups", "classes", "markets",
    "servers", "ready", "jobs", "sweeps", "wheel", "timers_terminals", "timers_orders", "timers_servers",
    "iccid_table", "imsi_table", "terminal_table", "check", "given_up", "breakers",
    "subscribers", "sims_rolling", "lots", "exemptions", "events", "sims_ledger", "ended_leases",
    "ended_places", "sims_late",
)


class MalformedBatch(ValueError):
    """The batch's bytes are not a sequence of well-formed runs. Nothing was applied."""


cdef class Outcome:
    """What one apply gave."""

    cdef readonly bytes data
    cdef readonly uint64_t hash
    cdef readonly uint32_t orders_count
    cdef readonly uint32_t events_count


def xxh64(data not None, uint64_t seed=0):
    """XXH64 of the bytes, as specified by its author (Yann Collet). Used for every checksum."""
    cdef const uint8_t[::1] view
    cdef uint64_t result
    cdef uint64_t size = len(memoryview(data).cast("B")) if not isinstance(data, bytes) else len(data)
    if size == 0:
        return hash_bytes(NULL, 0, seed)
    view = memoryview(data).cast("B")
    with nogil:
        result = hash_bytes(&view[0], size, seed)
    return result


cdef inline uint64_t _fold(uint64_t digest, uint64_t hash) noexcept nogil:
    """The hash of a row of hashes, by one more of them."""
    return hash_bytes(&hash, 8, digest)


cdef uint64_t _region_hash(const uint8_t *data, uint64_t size) noexcept nogil:
    """By pieces, so that a snapshot's reader may hash them as they come and in any order."""
    cdef uint64_t start = 0, digest = 0
    while start < size:
        digest = _fold(digest, hash_bytes(data + start, min(<uint64_t> PIECE_BYTES, size - start), 0))
        start += PIECE_BYTES
    return digest


cdef inline uint64_t _padded(uint64_t size) noexcept nogil:
    return (size + 7) & ~<uint64_t> 7


cdef bint _permitted(State *state, const RunHeader *header) noexcept nogil:
    """Whether the actor's role may give this command, and speaks for itself only."""
    cdef const Entity *actor
    cdef int64_t role, subject
    if header.actor >= state.header.entities_count or state.entities[header.actor].kind != ACTOR:
        return False
    actor = &state.entities[header.actor]
    role = actor.numbers[<int> ACTOR_ROLE]
    if not (PERMITTED[header.kind] >> role) & 1:
        return False
    if role == ROLE_ACCESS_SERVER:
        subject = actor.numbers[<int> ACTOR_SUBJECT]
        return (
            0 <= subject < state.header.entities_count and state.entities[subject].kind == ACCESS_SERVER
            and state.entities[subject].dense == header.access_server
        )
    return True


cdef bint _said_by_role(State *state, const Run *run) noexcept nogil:
    """Whether a role that may give the command may say all that is in it: the learner says caps that it learned, and which SIMs
    windows show to be slowed, or no longer. One item that it may not say refuses the run."""
    cdef const uint8_t *columns = <const uint8_t *> run.columns
    cdef uint32_t item
    if state.entities[run.actor].numbers[<int> ACTOR_ROLE] != LEARNER:
        return True
    if run.kind == SET_CAP:
        for item in range(run.count):
            # quota, instant, lot, window, basis
            if (<const int64_t *> columns)[item] < 0 or columns[19 * <uint64_t> run.count + item] != BASIS_LEARNED:
                return False
    elif run.kind == SET_HEALTH:
        for item in range(run.count):
            # ICCID, goodput, windows, confidence, health
            if (<const uint16_t *> (columns + 12 * <uint64_t> run.count))[item] == 0:
                return False
            if columns[16 * <uint64_t> run.count + item] not in (HEALTHY, THROTTLED):
                return False
    return True


cdef void _apply_run(State *state, const Run *run) noexcept nogil:
    if run.kind == ALLOCATE:
        apply_allocate(state, run)
    elif run.kind == RENEW:
        apply_renew(state, run)
    elif run.kind == REPORT_USAGE:
        apply_report_usage(state, run)
    elif run.kind == RELEASE:
        apply_release(state, run)
    elif run.kind == ACKNOWLEDGE:
        apply_acknowledge(state, run)
    elif run.kind == REPORT_LOAD:
        apply_report_load(state, run)
    elif run.kind == REPORT_ATTACH_FAILURE:
        apply_report_attach_failure(state, run)
    elif run.kind == SESSION_OPEN:
        apply_session_open(state, run)
    elif run.kind == SESSION_HOLDS:
        apply_session_holds(state, run)
    elif run.kind == SESSION_READY:
        apply_session_ready(state, run)
    elif run.kind == SESSION_CLOSE:
        apply_session_close(state, run)
    elif run.kind == JOB_CREATE:
        apply_job_create(state, run)
    elif run.kind == JOB_ADD:
        apply_job_add(state, run)
    elif run.kind == JOB_PAUSE or run.kind == JOB_RESUME or run.kind == JOB_CANCEL or run.kind == JOB_APPROVE:
        apply_job_change(state, run)
    elif run.kind == DECLARE_DEAD:
        apply_declare_dead(state, run)
    elif run.kind == SERVER_PAUSE or run.kind == SERVER_RESUME:
        apply_server_pause(state, run)
    elif run.kind == GIVEN_UP_RESOLVE:
        apply_given_up_resolve(state, run)
    elif run.kind == SWAPS_STOP or run.kind == SWAPS_LIFT:
        apply_swaps_stop(state, run)
    elif run.kind == DEFINE:
        apply_define(state, run)
    elif run.kind == IMPORT_SIMS:
        apply_import_sims(state, run)
    elif run.kind == ADOPT:
        apply_adopt(state, run)
    elif run.kind == SET_HEALTH:
        apply_set_health(state, run)
    elif run.kind == CONFIGURE:
        apply_configure(state, run)
    elif run.kind == MASK:
        apply_mask(state, run)
    elif run.kind == SET_CAP:
        apply_set_cap(state, run)
    elif run.kind == CARRIER_USAGE:
        apply_carrier_usage(state, run)
    elif run.kind == POOL_USAGE:
        apply_pool_usage(state, run)
    elif run.kind == CAP_CHANGED:
        apply_cap_changed(state, run)
    elif run.kind == SCHEDULE:
        apply_schedule(state, run)
    elif run.kind == EXEMPT:
        apply_exempt(state, run)
    elif run.kind == CARRIER_LIFE:
        apply_carrier_life(state, run)
    elif run.kind == THAW:
        apply_thaw(state, run)
    else:
        run.outcomes[0] = OK  # TICK; RESTART, FREEZE and GROW were carried out before



cdef void _refuse_run(const Run *run) noexcept nogil:
    """NOT_PERMITTED for every item. The status is the last column of every outcome; an index is given as none."""
    if run.kind == DEFINE or run.kind == IMPORT_SIMS or run.kind == JOB_CREATE:
        memset(run.outcomes, 0xFF, 4 * <uint64_t> run.count)
    elif run.kind == ALLOCATE or run.kind == ADOPT or run.kind == REPORT_ATTACH_FAILURE:
        memset(grant_columns(run).sim, 0xFF, 4 * <uint64_t> run.count)
    elif run.kind == REPORT_USAGE:
        memset(run.outcomes + 16 * <uint64_t> run.count, 0xFF, 4 * <uint64_t> run.count)
    memset(run.outcomes + <uint64_t> (OUTCOME_BYTES[run.kind] - 1) * run.count, NOT_PERMITTED, run.count)


cdef void _fire_timers(State *state, uint64_t now_ms) noexcept nogil:
    cdef int work = WORK_MAX
    cdef uint32_t timer = timer_fire(state, now_ms, &work)
    cdef uint32_t kind, index
    while timer != NONE_INDEX:
        kind = timer >> 29
        index = timer & 0x1FFFFFFF
        if kind == TIMER_TERMINAL:
            lease_timer(state, index, now_ms)
        elif kind == TIMER_SIM:
            sim_timer(state, index, now_ms)
        elif kind == TIMER_ORDER:
            order_timer(state, index, now_ms)
        elif kind == TIMER_LOT:
            lot_timer(state, index, now_ms)
        else:
            server_timer(state, index, now_ms)
        timer = timer_fire(state, now_ms, &work)


cdef uint64_t _write_orders(State *state, uint8_t *place) noexcept nogil:
    """The last outcome run but one: the orders of this apply, turned from rows into columns."""
    cdef uint64_t count = state.orders_out_count
    cdef OutcomeHeader *header = <OutcomeHeader *> place
    cdef uint64_t *order = <uint64_t *> (place + OUTCOME_HEADER_BYTES)
    cdef uint64_t *terminal = order + count
    cdef uint64_t *epoch = terminal + count
    cdef uint64_t *deadline_ms = epoch + count
    cdef uint64_t *source = deadline_ms + count
    cdef uint64_t *target = source + count
    cdef uint32_t *session = <uint32_t *> (target + count)
    cdef uint16_t *server = <uint16_t *> (session + count)
    cdef uint16_t *bank = server + count
    cdef uint16_t *slot = bank + count
    cdef uint8_t *kind = <uint8_t *> (slot + count)
    cdef uint64_t item
    cdef const OrderRow *row
    cdef uint64_t size = _padded(OUTCOME_HEADER_BYTES + ORDER_BYTES * count)
    memset(header, 0, sizeof(OutcomeHeader))
    memset(place + OUTCOME_HEADER_BYTES + ORDER_BYTES * count, 0, size - OUTCOME_HEADER_BYTES - ORDER_BYTES * count)
    header.size = <uint32_t> size
    header.kind = 100
    header.count = <uint32_t> count
    for item in range(count):
        row = &state.orders_out[item]
        order[item] = row.order
        terminal[item] = row.terminal
        epoch[item] = row.epoch
        deadline_ms[item] = row.deadline_ms
        source[item] = row.source_iccid
        target[item] = row.target_iccid
        session[item] = row.session
        server[item] = row.access_server
        bank[item] = row.target_bank
        slot[item] = row.target_slot
        kind[item] = row.kind
    return size


cdef uint64_t _write_events(State *state, uint8_t *place) noexcept nogil:
    """The last outcome run: the events of this apply, which are remembered from now on."""
    cdef uint64_t count = state.events_out_count
    cdef OutcomeHeader *header = <OutcomeHeader *> place
    cdef uint64_t *number = <uint64_t *> (place + OUTCOME_HEADER_BYTES)
    cdef uint64_t *terminal = number + count
    cdef uint64_t *subscriber = terminal + count
    cdef uint64_t *a = subscriber + count
    cdef uint64_t *b = a + count
    cdef uint32_t *job = <uint32_t *> (b + count)
    cdef uint16_t *server = <uint16_t *> (job + count)
    cdef uint8_t *kind = <uint8_t *> (server + count)
    cdef uint8_t *reason = kind + count
    cdef uint64_t item
    cdef const EventRow *row
    memset(header, 0, sizeof(OutcomeHeader))
    header.size = <uint32_t> (OUTCOME_HEADER_BYTES + EVENT_BYTES * count)
    header.kind = 101
    header.count = <uint32_t> count
    for item in range(count):
        row = &state.events_out[item]
        number[item] = row.event
        terminal[item] = row.terminal
        subscriber[item] = row.subscriber
        a[item] = row.a
        b[item] = row.b
        job[item] = row.job
        server[item] = row.access_server
        kind[item] = row.kind
        reason[item] = row.reason
        state.events[(row.event - 1) & (EVENTS_KEPT - 1)] = row[0]
    return header.size


cdef uint64_t _apply_batch(
    State *state, const uint8_t *batch, uint64_t batch_size, uint64_t now_ms, uint64_t seed, uint8_t *outcomes
) noexcept nogil:
    """Applies a validated batch; gives the bytes of its outcomes."""
    cdef uint64_t offset = 0, written = 0, size
    cdef const RunHeader *header
    cdef OutcomeHeader *outcome
    cdef Run run
    cdef int work, lots_work
    state.header.now_ms = now_ms
    if state.header.day != day_of(state, now_ms) or not state.header.stamp:
        state.header.day = day_of(state, now_ms)
        state.header.stamp = calendar_stamp(state)
    state.header.seed = seed
    state.header.sequence += 1
    state.orders_out_count = 0
    state.events_out_count = 0
    state.passes_left = WORK_MAX
    # What holds timers back holds back those that are due at this very instant too (fail static).
    while offset < batch_size:
        header = <const RunHeader *> (batch + offset)
        if header.kind == RESTART and _permitted(state, header):
            restart(state, header.argument == 1, now_ms)
        elif header.kind == FREEZE and _permitted(state, header):
            if not state.header.frozen:
                state.header.frozen_s = <uint32_t> (now_ms // 1000)
            state.header.frozen = 1
            answers_delayed(state, now_ms)
        elif header.kind == THAW and state.header.frozen and _permitted(state, header):
            answers_delayed(state, now_ms)
        offset += header.size
    offset = 0
    _fire_timers(state, now_ms)
    while offset < batch_size:
        header = <const RunHeader *> (batch + offset)
        outcome = <OutcomeHeader *> (outcomes + written)
        size = _padded(OUTCOME_HEADER_BYTES + <uint64_t> OUTCOME_BYTES[header.kind] * header.count)
        memset(outcome, 0, size)
        outcome.size = <uint32_t> size
        outcome.kind = header.kind
        outcome.count = header.count
        run.kind = header.kind
        run.count = header.count
        run.actor = header.actor
        run.server = header.access_server
        run.argument = header.argument
        run.now_ms = now_ms
        run.columns = batch + offset + RUN_HEADER_BYTES
        run.outcomes = outcomes + written + OUTCOME_HEADER_BYTES
        if _permitted(state, header) and _said_by_role(state, &run):
            server_calls(state, &run)
            _apply_run(state, &run)
        else:
            _refuse_run(&run)
        offset += header.size
        written += size
    lots_work = LOTS_WORK
    lots_run(state, now_ms, &lots_work)
    work = WORK_MAX - LOTS_WORK + lots_work
    sweeps_run(state, now_ms, &work)
    bounds_run(state)
    jobs_look(state, now_ms)
    automatic_look(state, now_ms)
    breakers_look(state, now_ms)
    work = WORK_MAX
    dispatch(state, now_ms, &work)
    written += _write_orders(state, outcomes + written)
    return written + _write_events(state, outcomes + written)


cdef class Machine:
    """The engine's state and the one way to change it. Used by one thread at a time."""

    def __cinit__(self, sims_max=1024, terminals_max=1024, orders_max=1024):
        memset(&self.state, 0, sizeof(State))
        self.outcomes = NULL
        self.outcomes_size = 0
        self.busy = False
        # Timers ask again what became of some, dispatch sends others.
        self.state.orders_out = <OrderRow *> malloc(2 * WORK_MAX * sizeof(OrderRow))
        if self.state.orders_out == NULL:
            raise MemoryError("no memory for the orders of an apply")

    def __init__(self, sims_max=1024, terminals_max=1024, orders_max=1024):
        self._take(0, 0, 0)
        self._begin()
        self._grow_to(sims_max, terminals_max, orders_max)

    def __dealloc__(self):
        cdef int region
        for region in range(REGIONS):
            region_free(&self.state.regions[region])
        free(self.state.orders_out)
        free(self.state.events_out)
        free(self.outcomes)

    # ------------------------------------------------------------------------------------------------- memory

    cdef int _take(self, uint64_t sims, uint64_t terminals, uint64_t orders) except -1:
        """Takes every region at the given capacities and at the fixed ones; all zero."""
        cdef State *state = &self.state
        cdef uint64_t[REGIONS] items
        cdef uint64_t[REGIONS] counts
        cdef int region
        items[:] = [
            sizeof(Header), sizeof(Entity), sizeof(Sim), sizeof(SimCold), sizeof(Terminal), sizeof(TerminalCold),
            sizeof(Order), sizeof(Group), sizeof(Class), sizeof(Market), sizeof(Server), 8, sizeof(Job), sizeof(Sweep),
            sizeof(Wheel), sizeof(TimerNode), sizeof(TimerNode), sizeof(TimerNode), 4, 4,
            4, sizeof(Check), sizeof(GivenUp), sizeof(Breaker), sizeof(Subscriber), sizeof(SimRolling), sizeof(Lot),
            sizeof(Exemption), sizeof(EventRow), sizeof(SimLedger), sizeof(EndedLease), 2,
            sizeof(SimLate),
        ]
        counts[:] = [
            1, ENTITIES_MAX, sims, sims, terminals, terminals, orders, GROUPS_MAX, CLASSES_MAX, MARKETS_MAX, SERVERS_MAX,
            SERVERS_MAX // 64, JOBS_MAX, SWEEPS_MAX, 1, terminals, orders, SERVERS_MAX, sim_slots(sims), sim_slots(sims),
            terminal_slots(terminals), 1, GIVEN_UP_MAX, ENTITIES_MAX, subscriber_slots(terminals), sims, ENTITIES_MAX,
            EXEMPTIONS_MAX, EVENTS_KEPT, sims, ENDED_MAX, ENDED_MAX, sims,
        ]
        for region in range(REGIONS):
            region_take(&state.regions[region], items[region], counts[region])
        for region in (REGION_ENTITIES, REGION_LOTS, REGION_BREAKERS, REGION_JOBS):
            region_sparse(&state.regions[region])
        regions_bind(state)
        return 0

    cdef int _begin(self) except -1:
        """The state before the first command: empty, with the actor "system" as entity 0."""
        cdef State *state = &self.state
        cdef Header *header = state.header
        header.machine_version = MACHINE_VERSION
        header.epoch_next = 1
        header.order_next = 1
        header.rest_next = 1
        header.orders_free = NONE_INDEX
        header.entities_max = ENTITIES_MAX
        header.groups_max = GROUPS_MAX
        header.classes_max = CLASSES_MAX
        header.markets_max = MARKETS_MAX
        header.servers_max = SERVERS_MAX
        header.jobs_max = JOBS_MAX
        settings_default(state)
        timers_clear(state)
        memset(state.regions[<int> REGION_TIMERS_SERVERS].data, 0xFF, SERVERS_MAX * sizeof(TimerNode))
        table_clear(&state.iccid_table)
        table_clear(&state.imsi_table)
        table_clear(&state.terminal_table)
        state.entities[0].kind = ACTOR
        memcpy(state.entities[0].name, b"system", 6)
        memset(state.entities[0].numbers, 0xFF, sizeof(state.entities[0].numbers))
        state.entities[0].numbers[<int> ACTOR_ROLE] = SYSTEM
        state.entities[0].dense = NONE_SHORT
        header.entities_count = 1
        return 0

    cdef int _resize(self, tuple regions, uint64_t count) except -1:
        """Grows regions together. MemoryError: mappings may have moved, but none of them is larger to the state."""
        cdef int region
        try:
            for region in regions:
                region_reserve(&self.state.regions[region], count)
        finally:
            regions_bind(&self.state)
        for region in regions:
            self.state.regions[region].count = count
        regions_bind(&self.state)
        return 0

    cdef int _grow_subscribers(self, uint64_t slots) except -1:
        """Moves the subscribers to a larger table. MemoryError: nothing has changed."""
        cdef State *state = &self.state
        cdef uint64_t old = state.regions[<int> REGION_SUBSCRIBERS].count
        cdef uint64_t slot
        cdef Subscriber *records = <Subscriber *> malloc(old * sizeof(Subscriber))
        if records == NULL:
            raise MemoryError(f"no room to move {old} subscribers")
        try:
            memcpy(records, state.subscribers, old * sizeof(Subscriber))
            self._resize((REGION_SUBSCRIBERS,), slots)
            memset(state.subscribers, 0, old * sizeof(Subscriber))
            for slot in range(old):
                if records[slot].key:
                    memcpy(subscriber_find(state, records[slot].key), &records[slot], sizeof(Subscriber))
            limits_moved(state)
        finally:
            free(records)
        return 0

    cdef int _grow_to(self, uint64_t sims, uint64_t terminals, uint64_t orders) except -1:
        """Raises the capacities to at least these. MemoryError leaves the state usable as it was."""
        cdef State *state = &self.state
        cdef uint64_t old, index
        if sims > ITEMS_MAX or terminals > ITEMS_MAX or orders > ORDERS_MAX:
            raise ValueError(f"{sims} SIMs, {terminals} terminals, {orders} orders: at most {<int> ITEMS_MAX}, "
                             f"{<int> ITEMS_MAX} and {<int> ORDERS_MAX} are possible")
        if sims > state.header.sims_max:
            self._resize((REGION_SIMS, REGION_SIMS_COLD, REGION_SIMS_ROLLING, REGION_SIMS_LEDGER, REGION_SIMS_LATE), sims)
            self._resize((REGION_ICCID_TABLE, REGION_IMSI_TABLE), sim_slots(sims))
            table_clear(&state.iccid_table)
            table_clear(&state.imsi_table)
            for index in range(state.header.sims_count):
                sim_enter(state, <uint32_t> index)
            state.header.sims_max = <uint32_t> sims
        if terminals > state.header.terminals_max:
            old = state.header.terminals_max
            self._resize((REGION_TERMINALS, REGION_TERMINALS_COLD, REGION_TIMERS_TERMINALS), terminals)
            # Memory for both tables, before either changes.
            region_reserve(&state.regions[<int> REGION_TERMINAL_TABLE], terminal_slots(terminals))
            regions_bind(state)
            self._grow_subscribers(subscriber_slots(terminals))
            self._resize((REGION_TERMINAL_TABLE,), terminal_slots(terminals))
            memset(state.timers[<int> TIMER_TERMINAL] + old * sizeof(TimerNode), 0xFF, (terminals - old) * sizeof(TimerNode))
            table_clear(&state.terminal_table)
            for index in range(state.header.terminals_count):
                table_enter(&state.terminal_table, mix(state.terminals[index].key), <uint32_t> index)
            state.header.terminals_max = <uint32_t> terminals
        if orders > state.header.orders_max:
            old = state.header.orders_max
            self._resize((REGION_ORDERS, REGION_TIMERS_ORDERS), orders)
            memset(state.timers[<int> TIMER_ORDER] + old * sizeof(TimerNode), 0xFF, (orders - old) * sizeof(TimerNode))
            # New orders go before those that are free, lowest first.
            for index in range(orders, old, -1):
                state.orders[index - 1].job = NONE_INDEX
                state.orders[index - 1].previous = NONE_INDEX
                state.orders[index - 1].next = state.header.orders_free
                state.header.orders_free = <uint32_t> (index - 1)
            state.header.orders_max = <uint32_t> orders
        return 0

    cdef uint64_t _used(self, int region) noexcept:
        """How many items of a region are part of the state; what lies behind them is zero and was never used."""
        cdef Header *header = self.state.header
        if region == REGION_ENTITIES or region == REGION_LOTS:
            return header.entities_count
        if region == REGION_SIMS or region == REGION_SIMS_COLD:
            return header.sims_count
        if region == REGION_SIMS_ROLLING:
            return header.rolling_end
        if region == REGION_SIMS_LEDGER:
            return header.ledger_end
        if region == REGION_SIMS_LATE:
            return header.late_end
        if region == REGION_TERMINALS or region == REGION_TERMINALS_COLD or region == REGION_TIMERS_TERMINALS:
            return header.terminals_count
        if region == REGION_GROUPS:
            return header.groups_count
        if region == REGION_EXEMPTIONS:
            return header.exemptions_count
        if region == REGION_CLASSES:
            return header.classes_count
        if region == REGION_MARKETS:
            return header.markets_count
        if region == REGION_SERVERS or region == REGION_TIMERS_SERVERS:
            return header.servers_count
        if region == REGION_EVENTS:
            return min(header.events_count, <uint64_t> EVENTS_KEPT)
        if region == REGION_ENDED_LEASES:
            return min(header.ended_count, <uint64_t> ENDED_MAX)
        if region == REGION_ENDED_PLACES:
            return ENDED_MAX if header.ended_count else 0
        return self.state.regions[region].count

    # -------------------------------------------------------------------------------------------------- apply

    cdef uint64_t _validate(self, const uint8_t *batch, uint64_t size, bint *growth, uint64_t *items) except? 0:
        """Checks the form of every run and counts the items; gives the most bytes that the outcomes but events can take."""
        cdef uint64_t offset = 0, runs = 0, most, room = OUTCOME_HEADER_BYTES + 8 + 2 * WORK_MAX * ORDER_BYTES
        cdef const RunHeader *header
        growth[0] = False
        items[0] = 0
        while offset < size:
            if size - offset < RUN_HEADER_BYTES:
                raise MalformedBatch(f"run {runs} at byte {offset}: its header needs {RUN_HEADER_BYTES} bytes, "
                                     f"{size - offset} are left")
            header = <const RunHeader *> (batch + offset)
            if header.kind >= KINDS or OUTCOME_BYTES[header.kind] == 0:
                raise MalformedBatch(f"run {runs} at byte {offset}: there is no command {header.kind}")
            most = RUN_ITEMS_MAX
            if header.kind == CONFIGURE or header.kind == MASK or header.kind == DEFINE or header.kind == EXEMPT:
                most = WIDE_ITEMS_MAX
            if header.count < 1 or header.count > most:
                raise MalformedBatch(f"run {runs} at byte {offset}: it has {header.count} items; 1 to {most} are allowed")
            if COMMAND_BYTES[header.kind] == 0 and header.count != 1:
                raise MalformedBatch(f"run {runs} at byte {offset}: command {header.kind} comes one at a time, not "
                                     f"{header.count} times")
            wanted = _padded(RUN_HEADER_BYTES + <uint64_t> COMMAND_BYTES[header.kind] * header.count)
            if header.size != wanted or wanted > size - offset:
                raise MalformedBatch(f"run {runs} at byte {offset}: {header.count} of command {header.kind} take {wanted} "
                                     f"bytes; it says {header.size}, and {size - offset} are left")
            if header.kind == GROW:
                growth[0] = True
            room += _padded(OUTCOME_HEADER_BYTES + <uint64_t> OUTCOME_BYTES[header.kind] * header.count)
            items[0] += header.count
            offset += header.size
            runs += 1
        if growth[0] and runs != 1:
            raise MalformedBatch(f"GROW takes memory and stands alone in its batch, which has {runs} runs")
        return room

    cdef int _grow(self, const uint8_t *batch) except -1:
        """Carries out a GROW before time moves: if memory is short, nothing has happened yet."""
        cdef const RunHeader *header = <const RunHeader *> batch
        cdef const uint64_t *sims = <const uint64_t *> (batch + RUN_HEADER_BYTES)
        cdef const uint64_t *terminals = sims + header.count
        cdef const uint64_t *orders = terminals + header.count
        cdef uint32_t item
        if not _permitted(&self.state, header):
            return 0
        for item in range(header.count):
            if sims[item] > ITEMS_MAX or terminals[item] > ITEMS_MAX or orders[item] > ORDERS_MAX:
                raise MalformedBatch(f"GROW to {sims[item]} SIMs, {terminals[item]} terminals, {orders[item]} orders: at most "
                                     f"{<int> ITEMS_MAX}, {<int> ITEMS_MAX} and {<int> ORDERS_MAX} are possible")
        for item in range(header.count):
            self._grow_to(sims[item], terminals[item], orders[item])
        return 0

    def apply(self, batch not None, uint64_t now_ms, uint64_t seed):
        """Applies a batch of command runs at one instant; see machine.pyi."""
        cdef const uint8_t[::1] view
        cdef const uint8_t *data = NULL
        cdef bytes aligned
        cdef Outcome outcome
        cdef uint64_t written
        if len(batch):
            view = batch
            data = &view[0]
            if <size_t> data & 7:
                aligned = bytes(batch)
                view = aligned
                data = &view[0]
        outcome = Outcome.__new__(Outcome)
        self._run(data, len(batch), now_ms, seed, &written, &outcome.hash)
        outcome.data = PyBytes_FromStringAndSize(<char *> self.outcomes, written)
        outcome.orders_count = self.state.orders_out_count
        outcome.events_count = self.state.events_out_count
        return outcome

    def allocate_one(self, uint64_t terminal, uint16_t market, uint64_t now_ms, uint64_t seed):
        """An ALLOCATE of one terminal; see machine.pyi."""
        cdef uint64_t batch[7]
        cdef RunHeader *header = <RunHeader *> batch
        cdef Run run
        cdef Grant grant
        cdef uint64_t written
        memset(batch, 0, sizeof(batch))
        header.size = sizeof(batch)
        header.kind = ALLOCATE
        header.count = 1
        batch[3] = terminal
        batch[4] = terminal
        batch[6] = market
        self._run(<const uint8_t *> batch, sizeof(batch), now_ms, seed, &written, NULL)
        run.count = 1
        run.outcomes = self.outcomes + OUTCOME_HEADER_BYTES
        grant = grant_columns(&run)
        return grant.status[0], grant.sim[0], grant.epoch[0]

    cdef int _run(
        self, const uint8_t *data, uint64_t size, uint64_t now_ms, uint64_t seed, uint64_t *written,
        uint64_t *digest
    ) except -1:
        """Applies an aligned batch: its outcomes stand in ``outcomes``. Without ``digest`` it keeps the GIL."""
        cdef uint64_t room, items, events_max
        cdef bint growth = False
        cdef unsigned char *larger
        cdef EventRow *more
        if self.busy:
            raise RuntimeError("a machine is used by one thread at a time")
        if now_ms < self.state.header.now_ms:
            raise ValueError(f"time goes on: {now_ms} ms is before the last apply's {self.state.header.now_ms} ms")
        if now_ms >= INSTANT_MAX_MS:
            raise ValueError(f"{now_ms} is no instant in Unix milliseconds")
        room = self._validate(data, size, &growth, &items)
        # Pages that no event ever reaches cost nothing.
        events_max = EVENTS_PER_ITEM * (items + 3 * <uint64_t> WORK_MAX) + BREAKERS_LOOK
        if events_max > self.state.events_out_max:
            more = <EventRow *> realloc(self.state.events_out, events_max * sizeof(EventRow))
            if more == NULL:
                raise MemoryError(f"no room for {events_max} events of a batch of {size} bytes")
            self.state.events_out = more
            self.state.events_out_max = events_max
        room += OUTCOME_HEADER_BYTES + EVENT_BYTES * events_max
        if room > self.outcomes_size:
            larger = <unsigned char *> realloc(self.outcomes, room)
            if larger == NULL:
                raise MemoryError(f"no {room} bytes for the outcomes of a batch of {size} bytes")
            self.outcomes = larger
            self.outcomes_size = room
        self.busy = True
        try:
            if growth:
                self._grow(data)
            if digest != NULL:
                with nogil:
                    written[0] = _apply_batch(&self.state, data, size, now_ms, seed, self.outcomes)
                    digest[0] = hash_bytes(self.outcomes, written[0], 0)
            else:
                written[0] = _apply_batch(&self.state, data, size, now_ms, seed, self.outcomes)
        finally:
            self.busy = False
        return 0

    @property
    def sequence(self):
        return int(self.state.header.sequence)

    @property
    def now_ms(self):
        return int(self.state.header.now_ms)

    @property
    def next_due_ms(self):
        """When a TICK is next wanted; None: nothing is due. Work in progress is due at once."""
        cdef State *state = &self.state
        cdef uint64_t due
        cdef uint32_t word
        if timers_behind(state, state.header.now_ms) or (state.header.lots_due_first and not state.header.frozen):
            return int(state.header.now_ms)
        for word in range((state.header.servers_count + 63) // 64):
            if state.ready[word]:
                return int(state.header.now_ms)
        due = timers_next_ms(state)
        if state.header.jobs_due_ms:
            due = min(due, max(state.header.jobs_due_ms, state.header.now_ms))
        if state.header.breakers_due_ms:
            due = min(due, max(state.header.breakers_due_ms, state.header.now_ms))
        if state.header.automatic_due_ms:
            due = min(due, max(state.header.automatic_due_ms, state.header.now_ms))
        if state.header.sweeps_count:
            # A selection that waits for an order to become free needs no more than a look now and then.
            due = min(due, state.header.now_ms + (100 if sweeps_wait(state) else 0))
        return None if due == ~<uint64_t> 0 else int(due)

    # ------------------------------------------------------------------------------------- hash, snapshot, check

    def state_hash(self):
        """XXH64 over all regions (I10), in pieces; see machine.pyi."""
        cdef uint64_t digest = MACHINE_VERSION
        cdef int region
        for region in range(REGIONS):
            digest = _fold(digest, _region_hash(
                <const uint8_t *> self.state.regions[region].data,
                self.state.regions[region].item_bytes * self._used(region)))
        return int(digest)

    def check(self, pause=lambda: None):
        """Verifies I1 to I5 and I8 by a full walk."""
        return check_state(&self.state, pause)

    def snapshot_regions(self):
        """(name, item bytes, count, read-only bytes) of each region. Valid until the next apply."""
        cdef int region
        rows = []
        for region in range(REGIONS):
            used = self._used(region)
            item_bytes = self.state.regions[region].item_bytes
            rows.append((
                REGION_NAMES[region], item_bytes, used,
                PyMemoryView_FromMemory(<char *> self.state.regions[region].data, item_bytes * used, PyBUF_READ),
            ))
        return iter(rows)

    @classmethod
    def _with_header(cls, data):
        """A machine with a snapshot's header and all of its memory taken; everything else is zero."""
        cdef Machine machine
        cdef Header header
        cdef const uint8_t[::1] view
        view = memoryview(data).cast("B")
        if len(view) != sizeof(Header):
            raise ValueError(f"the header has {sizeof(Header)} bytes, not {len(view)}")
        memcpy(&header, &view[0], sizeof(Header))
        if header.machine_version != MACHINE_VERSION:
            raise ValueError(f"the snapshot is of machine version {header.machine_version}, this is {MACHINE_VERSION}")
        if (
            header.sims_count > header.sims_max or header.rolling_end > header.sims_count or header.ledger_end > header.sims_count
            or header.late_end > header.sims_count or header.terminals_count > header.terminals_max
            or header.sims_max > ITEMS_MAX or header.terminals_max > ITEMS_MAX or header.orders_max > ORDERS_MAX
            or header.entities_max != ENTITIES_MAX or header.entities_count > ENTITIES_MAX or header.entities_count < 1
            or header.groups_max != GROUPS_MAX or header.groups_count > GROUPS_MAX
            or header.classes_max != CLASSES_MAX or header.classes_count > CLASSES_MAX
            or header.markets_max != MARKETS_MAX or header.markets_count > MARKETS_MAX
            or header.servers_max != SERVERS_MAX or header.servers_count > SERVERS_MAX or header.jobs_max != JOBS_MAX
            or header.exemptions_count > EXEMPTIONS_MAX or header.sweeps_count > SWEEPS_MAX or header.sweeps_head >= SWEEPS_MAX
        ):
            raise ValueError("the snapshot's header has counts above its capacities")
        machine = cls.__new__(cls)
        machine._take(header.sims_max, header.terminals_max, header.orders_max)
        memcpy(machine.state.header, &header, sizeof(Header))
        return machine

    @classmethod
    def region_sizes(cls, header not None):
        """(name, item bytes, count) of each region that belongs to a snapshot's header."""
        cdef Machine machine = cls._with_header(header)
        cdef int region
        return [
            (REGION_NAMES[region], int(machine.state.regions[region].item_bytes), int(machine._used(region)))
            for region in range(REGIONS)
        ]

    @staticmethod
    def index_table(const uint64_t[::1] keys not None, uint64_t slots):
        """The slots of a table of so many in which each of these keys is entered with its index."""
        found = np.empty(slots, np.uint32)
        cdef uint32_t[::1] place = found
        cdef Region region
        cdef Table table
        cdef uint32_t index
        if len(keys) >= slots:
            raise ValueError(f"a table of {slots} slots has no room for {len(keys)} keys and an empty slot")
        region.data = &place[0]
        region.count = slots
        table = table_of(&region)
        table_clear(&table)
        for index in range(<uint32_t> len(keys)):
            table_enter(&table, mix(keys[index]), index)
        return found

    @classmethod
    def restore(cls, regions):
        """The machine of a snapshot."""
        cdef Machine machine
        cdef Header *header
        cdef int region
        cdef const uint8_t[::1] view
        rows = list(regions)
        if tuple(row[0] for row in rows) != REGION_NAMES:
            raise ValueError(f"a snapshot has the regions {REGION_NAMES}, not {tuple(row[0] for row in rows)}")
        machine = cls._with_header(rows[0][3])
        header = machine.state.header
        for region in range(REGIONS):
            name, item_bytes, count, data = rows[region]
            used = machine._used(region)
            if item_bytes != machine.state.regions[region].item_bytes or count != used:
                raise ValueError(f"region {name} has {count} items of {item_bytes} bytes; {used} of "
                                 f"{machine.state.regions[region].item_bytes} are wanted")
            if count and callable(data):
                # Nobody else knows of the machine yet, and the view ends here.
                with PyMemoryView_FromMemory(
                    <char *> machine.state.regions[region].data, item_bytes * count, PyBUF_WRITE
                ) as place:
                    data(place)
            elif count:
                view = memoryview(data).cast("B")
                if len(view) != item_bytes * count:
                    raise ValueError(f"region {name} has {len(view)} bytes, {item_bytes * count} are wanted")
                memcpy(machine.state.regions[region].data, &view[0], item_bytes * count)
        # What lies behind the used items of these was never armed.
        for region, used, capacity in (
            (REGION_TIMERS_TERMINALS, header.terminals_count, header.terminals_max),
            (REGION_TIMERS_SERVERS, header.servers_count, SERVERS_MAX),
        ):
            memset(
                <char *> machine.state.regions[region].data + <uint64_t> used * sizeof(TimerNode), 0xFF,
                <uint64_t> (capacity - used) * sizeof(TimerNode))
        return machine

    def raise_incarnation(self, uint64_t at_ms, uint32_t lineage):
        """Fences every epoch handed out so far, here and by whatever else came of an earlier state of this machine.

        Of one state several machines can be made, also of an older one after a newer, and none knows of the others. So
        all numbers begin at what one instant says, which comes to more than a machine gives in the time until the next:
        2 ** 23 epochs and an order a millisecond, 4,096 events, a job a quarter of a second. It is ``at_ms``; where the
        state has seen a later one or has numbers beyond, since a clock was ahead or is behind, it is drawn from 1,024
        that lie behind all of that, four million orders apart. Of sessions thousands begin at once when all access servers come back, so what tells
        theirs apart is no instant but ``lineage``, a number that was drawn: their numbers go on below it.
        """
        cdef Header *header = self.state.header
        cdef uint64_t since_ms = at_ms - FENCES_BEGIN_MS if at_ms > FENCES_BEGIN_MS else 0
        cdef uint64_t reached_ms = _reached_ms(header)
        if since_ms < reached_ms:
            since_ms = reached_ms + ((<uint64_t> lineage % FENCE_DRAWN) << FENCE_DRAWN_BITS)
        cdef uint64_t job = since_ms >> FENCE_JOB_BITS
        cdef uint64_t told = since_ms << FENCE_TOLD_BITS
        if since_ms >> FENCE_MS_BITS or job >= NONE_INDEX:
            raise OverflowError(f"no incarnation is left at {at_ms} ms: is the clock right?")
        header.incarnation = <uint32_t> (since_ms >> 24)
        # Half of an incarnation's 48 bits are left for what is given from now on.
        header.epoch_next = (since_ms & 0xFFFFFF) << FENCE_EPOCH_BITS
        # Nor may another number be given a second time: what came of the first is remembered elsewhere.
        header.order_next, header.jobs_count = since_ms, <uint32_t> job
        header.lineage = lineage if lineage and lineage != header.lineage else header.lineage + 1
        # Entries keep their turns: the oldest goes first.
        header.given_up_count = _later(told, header.given_up_count, GIVEN_UP_MAX)
        told = _later(told, header.events_count, EVENTS_KEPT)
        header.events_leapt += told - header.events_count
        header.events_count = told
        # Events are remembered without a gap, so none of before is.
        memset(self.state.events, 0, EVENTS_KEPT * sizeof(EventRow))

    # -------------------------------------------------------------------------------------------------- reading

    def header(self):
        """Counters, settings and totals by name."""
        return read_header(&self.state)

    def entities(self, int kind=0):
        """Entities of a kind (0: all)."""
        return read_entities(&self.state, kind)

    def entity_index(self, int kind, str name not None):
        """The index of the entity of that kind and name, or None."""
        return find_entity(&self.state, kind, name)

    def server_index(self, uint32_t entity):
        """The number of an access server by its entity index, or None."""
        if entity >= self.state.header.entities_count or self.state.entities[entity].kind != ACCESS_SERVER:
            return None
        return int(self.state.entities[entity].dense)

    def find_sim(self, uint64_t iccid):
        """The index of the SIM with that encoded ICCID, or None."""
        cdef uint32_t index = sim_find(&self.state, iccid)
        return None if index == NONE_INDEX else int(index)

    def find_sim_by_imsi(self, uint64_t imsi):
        """The index of the SIM with that IMSI, or None."""
        cdef uint32_t index = sim_find_imsi(&self.state, imsi)
        return None if index == NONE_INDEX else int(index)

    def find_terminal(self, uint64_t key):
        """The index of the terminal with that key, or None."""
        cdef uint32_t index = terminal_find(&self.state, key)
        return None if index == NONE_INDEX else int(index)

    def sim_uses(self, const uint32_t[::1] sims not None):
        """ICCIDs, lots, healths, who is trusted and what was used in each window, by index."""
        return read_sim_uses(&self.state, sims)

    def sim_counts(self, const uint32_t[::1] sims not None):
        """ICCIDs and lifetime counts by index."""
        return read_sim_counts(&self.state, sims)

    def use_places(self, const uint64_t[::1] terminals not None, const uint32_t[::1] sims not None):
        """Markets of terminals and lots of SIMs, by key and by index."""
        return read_use_places(&self.state, terminals, sims)

    def throttled_holders(self):
        """Who holds a throttled SIM."""
        return read_throttled_holders(&self.state)

    def lots_pool(self):
        """What stands in each lot."""
        return read_lots_pool(&self.state)

    def markets_pool(self):
        """Terminals of each market, and those with a lease."""
        return read_markets_pool(&self.state)

    def sim(self, uint32_t index):
        """One SIM. IndexError: there is none of that index."""
        return read_sim(&self.state, index)

    def terminal(self, uint32_t index):
        """One terminal and its lease. IndexError: there is none of that index."""
        return read_terminal(&self.state, index)

    def subscriber(self, uint64_t key):
        """What a subscriber has used today and this month; None: it has used nothing yet."""
        return read_subscriber(&self.state, key)

    def subscriber_now(self, uint64_t key):
        """What its limit makes of a subscriber now."""
        return read_subscriber_now(&self.state, key)

    def exemption(self, uint64_t subscriber):
        """Its exemption, or None."""
        return read_exemption(&self.state, subscriber)

    def exemptions(self):
        """Who is exempt from limits, or was of late, by subscriber."""
        return read_exemptions(&self.state)

    def order(self, uint32_t index):
        """One order of the pool. IndexError: there is none of that index."""
        return read_order(&self.state, index)

    def server(self, uint32_t index):
        """One access server. IndexError: there is none of that index."""
        return read_server(&self.state, index)

    def job(self, uint32_t job_id):
        """One swap job by its id. IndexError: there is none, or its slot was taken by a later one."""
        return read_job(&self.state, job_id)

    def given_up(self):
        """The operator's work list: swaps that were given up and not resolved, oldest first."""
        return read_given_up(&self.state)

    def events(self):
        """The events that are remembered; see machine.pyi."""
        cdef uint64_t used = self._used(REGION_EVENTS)
        rows = np.zeros(used, layout.RECORD_TYPES["events"])
        cdef uint8_t[::1] place
        if used:
            place = rows.view(np.uint8)
            memcpy(&place[0], self.state.events, used * sizeof(EventRow))
        # The state of an older machine remembered none: then rows of numbers that were given before are zero.
        return np.sort(rows[rows["event"] > 0], order="event")

    def breakers(self):
        """The breakers that are not closed, and those that counted a failure lately."""
        return read_breakers(&self.state)

    def job_ids(self):
        """The ids of the jobs that have a slot, in the order in which they were created."""
        cdef uint32_t slot
        ids = []
        for slot in range(self.state.header.jobs_max):
            if self.state.jobs[slot].state != JOB_UNUSED:
                ids.append(int(self.state.jobs[slot].id))
        return sorted(ids)

    def find_sims(
        self, uint32_t first, uint32_t end, uint32_t most, *, lot=None, bank=None, health=None, occupancy=None, trusted=None
    ):
        """The first SIMs from ``first`` to before ``end`` that are so, and where the look has ended; see machine.pyi."""
        return find_sims(
            &self.state, first, end, most, -1 if lot is None else lot, -1 if bank is None else bank,
            -1 if health is None else health, -1 if occupancy is None else occupancy, -1 if trusted is None else trusted)

    def markets(self):
        """What leases are expected to need in each market."""
        return read_markets(&self.state)

    def totals(self):
        """Sums over access servers, jobs, breakers and markets."""
        return read_totals(&self.state)

    def groups(self):
        """Counts of SIMs and of free healthy ones by class, lot and bank."""
        return read_groups(&self.state)

    def lot(self, uint32_t entity):
        """The caps of a lot. IndexError: that entity is no lot."""
        return read_lot(&self.state, entity)

    def sims_columns(self):
        """Copies of the SIM columns as NumPy arrays, one value a SIM."""
        return read_sims_columns(&self.state)

    def terminals_columns(self):
        """Copies of the terminal columns as NumPy arrays, one value a terminal. sim: NONE_INDEX is none."""
        return read_terminals_columns(&self.state)

# Orders to access servers.
#
#   swap   queued -> announced -> queued (in front) -> outstanding -> confirmed        the terminal is on its target, the
#            ^  |    (if wanted)                          |                            source cools
#            |  |                                         |-> refused: waiting (full jitter) -> queued … given up onto
#            |  v                                         |   the work list              the terminal is as it was
#          parked                                         |-> busy: queued again, no failed attempt; the gate backs off
#    (job paused or not                                   '-> past its deadline: unknown, and so it stays until an
#        begun)                                               acknowledgement, traffic under its epoch or reconciliation
#                                                             settles it (I9); it is asked for now and then, or
#                                                             withdrawn when it is not to begin any more
#
#   stop, revoke   queued -> outstanding -> done: the SIM, held until then, cools
#
# A switch that is outstanding when its terminal's lease ends or goes elsewhere is *orphaned*: source and target are held
# until it is settled, and then whichever of them the access server was left with gets a stop of its own.
#
# An access server's orders wait in queues by priority and lane; jobs have lanes of their own and take turns, so that none of them
# delays another (where there are more jobs than lanes some share one, and what its job holds back makes way). A bit per server says
# whom dispatch must look at. Its window bounds how many are outstanding (I3: never over 200), its queue when the next may come, its gate
# whether any is sent. Time alone frees no place: only settling does.
#
# An outstanding switch reserves its target and keeps its source (I9). All is O(1) per order; dispatch does bounded work.


cdef enum:
    NUMBER_BITS = 24              # of an order's number: its place in the pool
    TURN = 64                     # orders that are sent to one access server before the next has its turn
    TOLD_STALE_MS = 5_000         # a report of load says nothing any more after this
    CALM_US = 150_000             # an operation that takes so long is noticed by who waits behind it
    MISSED_MAX = 2                # reports in a row with allocations that waited too long
    ACK_START_US = 1_000_000      # until the first acknowledgement: a window of 20 is sent within a second
    BURST_US = 100_000            # how much pacing may catch up at once
    ASK_APART_US = 10_000         # between two unknown orders that are asked for, at the least
    BACK_OFF_FIRST_MS = 1_000
    BACK_OFF_MAX_MS = 60_000
    RETRY_FIRST_MS = 2_000
    RETRY_MAX_MS = 60_000
    STARVED_MS = 1_000            # until a swap without a target is tried again
    STARVED_MAX = 8               # searches without a target in one go, by priority
    STARVED_LOOK = 256            # swaps looked at for one that is not starved, by priority
    LANE_LOOK = 128               # orders that their job holds back, looked past in one go for one of another job of their lane
    RATE_STALE_MS = 10_000
    WAKE_SPREAD_MS = 1_000        # access servers that wait for the same job's rate don't wake together
    BUDGET_LEAST = 20             # outcomes from which a job's error budget is judged
    ANNOUNCED_MAX = 4096          # announced swaps of one access server
    OUTAGE_START_MS = 30_000      # expected outage of a swap until one was measured
    PROMISE_LATE_MS = 60_000      # after its instant a swap that was announced is announced anew
    POOL_FULL_MS = 1_000          # until an expiry that found no room for its order is tried again


# ------------------------------------------------------------------------------------------------ pool and queues

cdef bint order_available(State *state) noexcept nogil:
    """Whether one more order can be made."""
    return state.header.orders_free != NONE_INDEX


cdef bint order_spare(State *state) noexcept nogil:
    """Whether one is left for what can wait: an eighth of the pool is for what allocations and expiries need (I7)."""
    return state.header.orders_max - state.header.orders_used > state.header.orders_max // 8


cdef bint order_was_sent(State *state, uint64_t number) noexcept nogil:
    """Whether an order of that number was ever sent."""
    cdef uint64_t index = number & ((1 << NUMBER_BITS) - 1)
    return 0 < (number >> NUMBER_BITS) < state.header.order_next and index < state.header.orders_max


cdef inline int _job_lane(const Job *job) noexcept nogil:
    return job.lane if job.lane else 1 + job.id % (LANES - 1)


cdef inline int _lane(const State *state, const Order *order) noexcept nogil:
    return 0 if order.job == NONE_INDEX else _job_lane(&state.jobs[order.job & (JOBS_MAX - 1)])


cdef void job_take_lane(State *state, Job *job) noexcept nogil:
    """A lane of its own, or where there are more jobs than lanes, the one that the fewest share. None of its orders is queued yet."""
    cdef uint32_t[LANES] counts
    cdef uint32_t slot
    cdef int lane
    cdef Job *other
    memset(counts, 0, sizeof(counts))
    job.lane = 1
    for slot in range(state.header.jobs_max):
        other = &state.jobs[slot]
        if other != job and other.begun and not other.finished_ms:
            counts[_job_lane(other)] += 1
    for lane in range(2, LANES):
        if counts[lane] < counts[job.lane]:
            job.lane = <uint8_t> lane
    if counts[job.lane]:
        for slot in range(state.header.jobs_max):
            other = &state.jobs[slot]
            if other.begun and not other.finished_ms and _job_lane(other) == job.lane:
                other.shares_lane = 1
        job.shares_lane = 1


cdef inline bint _lane_shared(const Job *job) noexcept nogil:
    """Whether orders of other jobs may wait behind one of this job."""
    return job != NULL and (job.shares_lane or not job.lane)


cdef void _enqueue(State *state, uint32_t index) noexcept nogil:
    """Behind all others of its lane."""
    cdef Order *order = &state.orders[index]
    cdef Server *server = &state.servers[order.server]
    cdef int lane = _lane(state, order)
    cdef uint32_t tail = server.tail[order.priority][lane]
    order.state = QUEUED
    order.next = NONE_INDEX
    order.previous = tail
    if tail == NONE_INDEX:
        server.head[order.priority][lane] = index
        server.lanes[order.priority] |= 1 << lane
    else:
        state.orders[tail].next = index
    server.tail[order.priority][lane] = index
    server.queued_count += 1
    server.unannounced_count += order.announce
    server_wake(state, order.server)


cdef void _enqueue_first(State *state, uint32_t index) noexcept nogil:
    """Before all others of its lane: it was promised for this instant."""
    cdef Order *order = &state.orders[index]
    cdef Server *server = &state.servers[order.server]
    cdef int lane = _lane(state, order)
    cdef uint32_t head = server.head[order.priority][lane]
    if head == NONE_INDEX:
        _enqueue(state, index)
        return
    order.state = QUEUED
    order.next = head
    order.previous = NONE_INDEX
    state.orders[head].previous = index
    server.head[order.priority][lane] = index
    server.queued_count += 1
    server.unannounced_count += order.announce
    server_wake(state, order.server)


cdef inline void order_queue(State *state, uint32_t index) noexcept nogil:
    """Idle terminals go before others."""
    if state.orders[index].idle:
        _enqueue_first(state, index)
    else:
        _enqueue(state, index)


cdef void _dequeue(State *state, uint32_t index) noexcept nogil:
    cdef Order *order = &state.orders[index]
    cdef Server *server = &state.servers[order.server]
    cdef int lane = _lane(state, order)
    if order.previous == NONE_INDEX:
        server.head[order.priority][lane] = order.next
        if order.next == NONE_INDEX:
            server.lanes[order.priority] &= ~(1 << lane)
    else:
        state.orders[order.previous].next = order.next
    if order.next == NONE_INDEX:
        server.tail[order.priority][lane] = order.previous
    else:
        state.orders[order.next].previous = order.previous
    server.queued_count -= 1
    server.unannounced_count -= order.announce


cdef void _leave_queue(State *state, uint32_t index) noexcept nogil:
    """It will not be sent any more, wherever it waited."""
    if state.orders[index].state == QUEUED:
        _dequeue(state, index)
    _promise_over(state, index)


cdef void _promise_over(State *state, uint32_t index) noexcept nogil:
    """It is sent now, or will not be: no longer one that was announced ahead and is to come."""
    cdef const Order *order = &state.orders[index]
    cdef Job *job
    if order.announced and not order.ordered_ms:
        state.servers[order.server].announced_count -= 1
        job = job_find(state, order.job)
        if job != NULL:
            job.announced_count -= 1
            _canary_place(state, job)


cdef void order_park(State *state, uint32_t index) noexcept nogil:
    """Takes a queued swap out until its job goes on. One that was announced will not come at its instant."""
    cdef Order *order = &state.orders[index]
    _dequeue(state, index)
    order.state = PARKED
    if order.announced and not order.ordered_ms:
        _promise_break(state, index, JOB_HELD)


cdef inline bint _promise_late(const Order *order, uint64_t now_ms) noexcept nogil:
    """Whether the instant that was announced, or the last at which it was sent, is long past."""
    return order.announced and (order.ordered_ms if order.ordered_ms else order.not_before_ms) + PROMISE_LATE_MS < now_ms


cdef void _promise_break(State *state, uint32_t index, int why) noexcept nogil:
    """It was announced and will not come at its instant, nor soon after: it is announced anew before it is sent. Not queued."""
    cdef Order *order = &state.orders[index]
    order_event(state, EVENT_WITHDRAWN, index, why, 0)
    _promise_over(state, index)
    order.ordered_ms = 0
    order.announced = 0
    order.announce = 1


cdef uint32_t order_new(
    State *state, int kind, uint32_t terminal, uint32_t source, uint32_t server, int priority, uint32_t job,
    uint64_t epoch, uint64_t now_ms
) noexcept nogil:
    """Takes an order from the pool and queues it, unless its job is not begun. There is one: ask order_available first."""
    cdef uint32_t index = state.header.orders_free
    cdef Order *order = &state.orders[index]
    cdef Job *record
    invariant(index != NONE_INDEX, "an order is made only where one is available")
    state.header.orders_free = order.next
    state.header.orders_used += 1
    order.number = 0
    order.epoch = epoch
    order.ordered_ms = 0
    order.deadline_ms = 0
    order.not_before_ms = 0
    order.created_ms = now_ms
    order.source_epoch = 0
    order.terminal = terminal
    order.source = source
    order.target = NONE_INDEX
    order.job = job
    order.session = 0
    order.server = <uint16_t> server
    order.kind = <uint8_t> kind
    order.priority = <uint8_t> priority
    order.attempts = 0
    order.orphaned = 0
    order.announce = 0
    order.announced = 0
    order.idle = 0
    order.overdue = 0
    order.probes = 0
    if kind == SWITCH:
        record = job_find(state, job)
        # Nothing is slowed yet where these are moved, so whom it disturbs least goes first.
        order.idle = priority >= PRIORITY_PREDICTED and _idle(state, &state.sims[source], now_ms)
        order.announce = _announce_ahead_ms(state, record, priority) > 0
        swap_unmeasured(state, terminal)
        invariant(state.terminals[terminal].order == NONE_INDEX, "I2: a terminal is in one swap at most")
        state.terminals[terminal].order = index
        if record != NULL and not record.begun:
            order.state = PARKED
            return index
    order_queue(state, index)
    return index


cdef inline bint _idle(const State *state, const Sim *sim, uint64_t now_ms) noexcept nogil:
    """Whether no new bytes were reported for some time of the lease that holds the SIM."""
    return now_ms - <uint64_t> sim.next * 1000 >= <uint64_t> state.header.settings[<int> IDLE_MS]


cdef inline uint64_t _announce_ahead_ms(const State *state, const Job *job, int priority) noexcept nogil:
    """How long ahead a swap of the job, or of none, is announced."""
    if job != NULL:
        return job.announce_ahead_ms
    return <uint64_t> state.header.settings[<int> AUTOMATIC_AHEAD_MS] if priority == PRIORITY_PREDICTED else 0


cdef void order_hurry(State *state, uint32_t index, int priority) noexcept nogil:
    """A swap that waits goes before those of lower priority from now on."""
    cdef Order *order = &state.orders[index]
    cdef bint queued = order.state == QUEUED
    if order.priority <= priority or order_outstanding(state, index):
        return
    if queued:
        _dequeue(state, index)
    order.priority = <uint8_t> priority
    if not _announce_ahead_ms(state, job_find(state, order.job), priority):
        order.announce = 0
    if queued:
        _enqueue(state, index)


cdef inline void _free(State *state, uint32_t index) noexcept nogil:
    cdef Order *order = &state.orders[index]
    if order.state != OUTSTANDING:
        timer_disarm(state, TIMER_ORDER, index)
    if order.kind == REVOKE and order.source != NONE_INDEX and state.sims_cold[order.source].revoke == index + 1:
        state.sims_cold[order.source].revoke = 0
        state.servers[order.server].revokes_count -= 1
        state.header.revokes_count -= 1
    order.state = ORDER_UNUSED
    order.number = 0
    order.job = NONE_INDEX
    order.next = state.header.orders_free
    order.previous = NONE_INDEX
    state.header.orders_free = index
    state.header.orders_used -= 1


cdef uint32_t order_find(State *state, uint64_t number) noexcept nogil:
    """The outstanding or unknown order of that number, or NONE_INDEX: settled long ago, or never sent."""
    cdef uint64_t index = number & ((1 << NUMBER_BITS) - 1)
    if index >= state.header.orders_max or number == 0 or state.orders[index].number != number:
        return NONE_INDEX
    return <uint32_t> index if order_outstanding(state, <uint32_t> index) else NONE_INDEX


# A run of acknowledgements fetches ahead as other runs do (leases.pxi), a block of items at a time: the orders, and a block later
# what settling them touches.

cdef inline void _fetch_orders(State *state, const uint64_t *numbers, uint32_t first, uint32_t behind) noexcept nogil:
    cdef uint64_t index
    cdef uint32_t item
    for item in range(first, behind):
        index = numbers[item] & ((1 << NUMBER_BITS) - 1)
        if index < state.header.orders_max:
            prefetch(&state.orders[index])
            prefetch(<char *> &state.orders[index] + sizeof(Order) - 1)


cdef inline void _fetch_swaps(State *state, const uint64_t *numbers, uint32_t first, uint32_t behind) noexcept nogil:
    cdef uint64_t index
    cdef uint32_t item
    cdef const Order *order
    for item in range(first, behind):
        index = numbers[item] & ((1 << NUMBER_BITS) - 1)
        if index < state.header.orders_max:
            order = &state.orders[index]
            if order.state != ORDER_UNUSED:
                prefetch(&state.terminals[order.terminal])
                terminal_cold_ahead(state, order.terminal)
                if order.source != NONE_INDEX:
                    prefetch(&state.sims[order.source])
                if order.target != NONE_INDEX:
                    prefetch(&state.sims[order.target])


cdef void acknowledged_ahead(State *state, const uint64_t *numbers, uint32_t count, uint32_t item) noexcept nogil:
    """What the block of items ahead of ``item``'s will need, and so on; for the first item of a block."""
    if item == 0:
        _fetch_orders(state, numbers, 0, min(count, <uint32_t> (2 * AHEAD)))
        _fetch_swaps(state, numbers, 0, min(count, <uint32_t> AHEAD))
    _fetch_orders(state, numbers, item + 2 * AHEAD, min(count, item + 3 * AHEAD))
    _fetch_swaps(state, numbers, item + AHEAD, min(count, item + 2 * AHEAD))


cdef bint order_outstanding(State *state, uint32_t index) noexcept nogil:
    """Whether it was sent and is not settled: it counts against the window."""
    return state.orders[index].state == OUTSTANDING or state.orders[index].state == UNKNOWN


cdef inline bint _is_probe(const State *state, uint32_t index) noexcept nogil:
    """Whether its gate opens with the answer to this order, and to no other."""
    return state.servers[state.orders[index].server].probe == index + 1


cdef inline bint _gate_lets(const Server *server) noexcept nogil:
    """Whether its gate lets one more order go."""
    return server.gate == GATE_OPEN or (server.gate == GATE_PROBING and not server.probe)


cdef inline void _leave_place(State *state, uint32_t index) noexcept nogil:
    """The order is settled: its place in the window is free again, and only now."""
    cdef Order *order = &state.orders[index]
    cdef Server *server = &state.servers[order.server]
    invariant(server.outstanding > 0, "I3: an outstanding order is counted")
    server.outstanding -= 1
    if order.probes:
        breakers_unprobed(state, index, state.header.now_ms)
    if _is_probe(state, index):
        server.probe = 0  # settled otherwise than by an answer: the next order is the probe
    if order.state == UNKNOWN:
        timer_disarm(state, TIMER_ORDER, index)
    server_wake(state, order.server)


# --------------------------------------------------------------------------------------------------------- jobs

cdef Job *job_find(State *state, uint32_t job) noexcept nogil:
    """The job with that id, or NULL: never created, or its slot was taken by a later one."""
    cdef Job *record
    if job == NONE_INDEX:
        return NULL
    record = &state.jobs[job & (JOBS_MAX - 1)]
    return record if record.id == job and record.state != JOB_UNUSED else NULL


cdef void job_settle(State *state, uint32_t job, uint64_t now_ms) noexcept nogil:
    """A job with nothing left to select, send or settle is done."""
    cdef Job *record = job_find(state, job)
    if record == NULL or record.selecting or record.queued_count or record.outstanding_count or record.finished_ms:
        return
    if job_ended(record):
        record.finished_ms = now_ms
    elif record.begun:
        record.finished_ms = now_ms
        job_enter(state, record, JOB_DONE, WHY_SIZE if record.beyond_count else WHY_NONE)


cdef inline bint job_ended(const Job *job) noexcept nogil:
    """Whether no more of its swaps will be sent, whatever anybody says."""
    return (
        job.state == JOB_DONE or job.state == JOB_CANCELLED or job.state == JOB_REFUSED or job.state == JOB_CHECKED
    )


cdef inline bint job_sends(const Job *job) noexcept nogil:
    """Whether its swaps are sent now."""
    return job.state == JOB_RUNNING or job.state == JOB_SELECTING


cdef void job_hold(State *state, Job *job, int why) noexcept nogil:
    """Sends no more of it. What is out goes on."""
    if job_sends(job):
        job_enter(state, job, JOB_PAUSED, why)


cdef inline uint64_t _canary_tried(const Job *job) noexcept nogil:
    """Its swaps that were sent and are in flight or came out. One past its deadline has come out, and is not counted twice."""
    return job.outstanding_count - job.overdue_count + job.settled_lately


cdef inline void _canary_place(State *state, const Job *job) noexcept nogil:
    """One of its swaps will not come out: another may take its place, on whatever access server."""
    if job.canary:
        servers_wake(state)


cdef inline void _job_in(State *state, Job *job, const Order *order) noexcept nogil:
    """One of its swaps is in flight no longer."""
    job.outstanding_count -= 1
    # What was late under a machine that did not count it is not there.
    job.overdue_count -= min(<uint64_t> order.overdue, job.overdue_count)


cdef inline void _job_outcome(State *state, Job *job, bint failed) noexcept nogil:
    """One of its swaps was confirmed, refused or late, whichever was first: judges its canary, and then its error budget."""
    cdef bint beyond
    job.settled_lately += 1
    job.failed_lately += failed
    job.failed_count += failed
    beyond = job.failed_lately * 1_000_000 > job.settled_lately * job.budget_ppm
    if job.canary:
        if job.settled_lately < job.canary_count:
            return
        job.canary = 0
        if beyond:
            job_hold(state, job, WHY_CANARY)
        else:
            servers_wake(state)
    elif beyond and failed and job.settled_lately >= BUDGET_LEAST:
        job_hold(state, job, WHY_BUDGET)


cdef bint _job_may_send(State *state, const Job *job, uint64_t now_ms, uint64_t *look_ms) noexcept nogil:
    """Whether the job's own limits let one more of its swaps go; ``look_ms``: no later than that they may."""
    if job.canary and _canary_tried(job) >= job.canary_count:
        return False  # all are woken when these are judged
    if job.rate_per_minute and job.rate_next_us > now_ms * 1000:
        look_ms[0] = min(look_ms[0], job.rate_next_us // 1000 + 1 + draw(state) % WAKE_SPREAD_MS)
        return False
    return True


cdef void order_drop(State *state, uint32_t index, int why, uint64_t now_ms) noexcept nogil:
    """Gives up an order that is not outstanding, ``why``: WithdrawnBy. Nothing changes but the books."""
    cdef Order *order = &state.orders[index]
    cdef Job *job = job_find(state, order.job)
    cdef uint32_t id = order.job
    invariant(not order_outstanding(state, index), "I9: an outstanding order is settled, not dropped")
    if order.announced:
        order_event(state, EVENT_WITHDRAWN, index, why, 0)
    _leave_queue(state, index)
    if order.kind == SWITCH:
        state.terminals[order.terminal].order = NONE_INDEX
    if job != NULL:
        job.queued_count -= 1
        job.skipped_count += job.begun
    _free(state, index)
    job_settle(state, id, now_ms)


cdef bint order_held(State *state, uint32_t index) noexcept nogil:
    """Whether it waits for somebody who lets its job begin or go on, however long that takes."""
    cdef const Job *job = job_find(state, state.orders[index].job)
    if job == NULL or order_outstanding(state, index):
        return False
    return not job.begun or (job.state != JOB_RUNNING and job.state != JOB_SELECTING)


cdef void order_take_out(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Its terminal can't wait for the job: it is skipped there."""
    cdef Job *job = job_find(state, state.orders[index].job)
    job.skipped_count += not job.begun  # order_drop counts them from then on
    order_drop(state, index, JOB_OVER, now_ms)


cdef bint _cancelled(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Drops an order that came back to the queue of a job that was cancelled meanwhile."""
    cdef Job *job = job_find(state, state.orders[index].job)
    if job == NULL or job.state != JOB_CANCELLED:
        return False
    order_drop(state, index, JOB_OVER, now_ms)
    return True


cdef void order_unpark(State *state, uint32_t index) noexcept nogil:
    """Its job goes on."""
    if state.orders[index].state == PARKED:
        order_queue(state, index)


# --------------------------------------------------------------------------------------------- settling an order

cdef void _become_stop(State *state, uint32_t index, uint32_t sim, uint64_t now_ms) noexcept nogil:
    """The access server was left with a SIM that the terminal no longer leases: tell it to let go."""
    cdef Order *order = &state.orders[index]
    order.kind = STOP
    order.orphaned = 0
    order.priority = PRIORITY_STOP
    order.source = sim
    order.target = NONE_INDEX
    order.number = 0
    order.attempts = 0
    _enqueue(state, index)


cdef inline bint held_after(const State *state, const EndedLease *lease) noexcept nogil:
    """Whether the SIM of a lease that is over is held, because its access server has not let go of it."""
    cdef const Sim *sim = &state.sims[lease.sim]
    cdef const Order *order
    if not sim.held:
        return False
    order = &state.orders[sim.next]
    return order.terminal == lease.terminal and lease.epoch == (
        order.source_epoch if order.orphaned and order.source == lease.sim else order.epoch)


cdef void _let_go(State *state, uint32_t terminal, uint64_t epoch, uint32_t sim, uint64_t now_ms) noexcept nogil:
    """The access server no longer uses a SIM that was held after a lease of the terminal."""
    cdef EndedLease lease = lease_over(state, terminal, epoch)
    if lease.epoch and lease.sim == sim and lease_silent(&state.sims[sim], now_ms):
        lease_await_report(state, &lease, now_ms)
    sim_cool(state, sim, now_ms)


cdef void _settle_orphan(State *state, uint32_t index, bint switched, uint64_t now_ms) noexcept nogil:
    cdef Order *order = &state.orders[index]
    cdef uint32_t source = order.source
    cdef uint32_t target = order.target
    if switched:
        if source != NONE_INDEX:
            _let_go(state, order.terminal, order.source_epoch, source, now_ms)
        _become_stop(state, index, target, now_ms)
    else:
        sim_cool(state, target, now_ms)
        order.epoch = order.source_epoch
        if source != NONE_INDEX:
            _become_stop(state, index, source, now_ms)
        else:
            _free(state, index)


cdef EndedLease order_target_lease(const State *state, uint32_t index) noexcept nogil:
    """What the terminal may have on the target of its switch that is outstanding: nobody knows whether it was carried out."""
    cdef const Order *order = &state.orders[index]
    cdef const Terminal *terminal = &state.terminals[order.terminal]
    cdef EndedLease lease
    memset(&lease, 0, sizeof(EndedLease))
    lease.epoch = order.epoch
    lease.subscriber = terminal.subscriber
    lease.terminal = order.terminal
    lease.sim = order.target
    lease.reported_s = <uint32_t> (order.ordered_ms // 1000)
    lease.server = order.server
    lease.expected_tier = <uint8_t> terminal_tier(terminal)
    return lease


cdef void _orphan(State *state, uint32_t index, bint source_let_go, uint64_t now_ms) noexcept nogil:
    """The terminal's lease ends while its switch is outstanding: nobody may get either SIM until it is settled."""
    cdef Order *order = &state.orders[index]
    cdef EndedLease on_target = order_target_lease(state, index)
    cdef Job *job = job_find(state, order.job)
    cdef uint32_t id = order.job
    order_event(state, EVENT_WITHDRAWN, index, LEASE_OVER, 0)
    state.terminals[order.terminal].order = NONE_INDEX
    order.orphaned = 1
    order.source_epoch = state.terminals[order.terminal].epoch
    lease_remember(state, &on_target)
    sim_hold(state, order.target, order.terminal, index, HELD_COUNTED)
    state.sims[order.target].previous = on_target.reported_s
    if source_let_go:
        order.source = NONE_INDEX
    else:
        sim_hold(state, order.source, order.terminal, index, HELD_COUNTED)
    order.job = NONE_INDEX
    if job != NULL:
        _job_in(state, job, order)
        _canary_place(state, job)
        job.skipped_count += 1
        job_settle(state, id, now_ms)


cdef void order_confirm(State *state, uint32_t index, int how, uint64_t now_ms) noexcept nogil:
    """The access server carried it out; ``how`` this is known: ConfirmedBy."""
    cdef Order *order = &state.orders[index]
    cdef Terminal *terminal = &state.terminals[order.terminal]
    cdef Job *job = job_find(state, order.job)
    cdef uint32_t id = order.job
    cdef uint32_t terminal_index = order.terminal
    cdef uint32_t source = order.source
    cdef uint32_t target = order.target
    cdef uint64_t epoch = order.epoch
    cdef uint32_t server = order.server
    cdef uint64_t ordered_ms = order.ordered_ms
    cdef TerminalCold *cold
    order_event(state, EVENT_CONFIRMED, index, how, now_ms - order.ordered_ms)
    if order.kind == SWITCH and not order.orphaned:
        swap_outcome(state, index, how != BY_ATTACH_FAILURE, now_ms)
    _leave_place(state, index)
    state.servers[server].confirmed_count += 1
    if order.orphaned:
        _settle_orphan(state, index, True, now_ms)
        return
    if order.kind == SWITCH:
        invariant(terminal.sim == source, "I9: a swap keeps its source until the target is confirmed")
        lease_leave(state, terminal)
        if lease_silent(&state.sims[source], now_ms):
            last_report_due(state, terminal_index, now_ms)
        sim_cool(state, source, now_ms)
        lease_begin(state, terminal_index, target, server, terminal.market, terminal_tier(terminal), epoch, now_ms)
        cold = &state.terminals_cold[terminal_index]
        terminal_count_swap(state, terminal_index, now_ms)
        cold.swaps_count += cold.swaps_count < NONE_SHORT
        cold.swap_job = id
        cold.to_confirm_ms = <uint32_t> (now_ms - ordered_ms) if now_ms - ordered_ms < NONE_INDEX else NONE_INDEX
        terminal.order = AWAITS_TRAFFIC
        if job != NULL:
            _job_in(state, job, order)
            job.confirmed_count += 1
            if not order.overdue:
                _job_outcome(state, job, how == BY_ATTACH_FAILURE)
    elif state.sims[source].held and state.sims[source].next == index:
        _let_go(state, terminal_index, epoch, source, now_ms)
    _free(state, index)
    job_settle(state, id, now_ms)


cdef void swap_traffic(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Traffic was reported for the first time since the terminal was swapped: the outage lasted from the order until now.

    Reports that come late tell nothing of it: then it stays unmeasured rather than be called long.
    """
    cdef const TerminalCold *cold = &state.terminals_cold[index]
    cdef Job *job
    cdef Server *server = &state.servers[state.terminals[index].server]
    cdef uint64_t outage_ms
    if now_ms - cold.swapped_ms > <uint64_t> state.header.settings[<int> OUTAGE_MAX_MS]:
        swap_unmeasured(state, index)
        return
    state.terminals[index].order = NONE_INDEX
    outage_ms = cold.to_confirm_ms + now_ms - cold.swapped_ms
    if outage_ms > NONE_INDEX:
        outage_ms = NONE_INDEX
    server.outage_ms = <uint32_t> ((<uint64_t> server.outage_ms * 7 + outage_ms) >> 3 if server.outage_ms else outage_ms)
    job = job_find(state, cold.swap_job)
    if job != NULL:
        job.outages_count += 1
        job.outage_ms += outage_ms
        if outage_ms > job.outage_max_ms:
            job.outage_max_ms = <uint32_t> outage_ms
    event(
        state, EVENT_TRAFFIC, index, state.terminals[index].server, cold.swap_job, 0, cold.swapped_ms, outage_ms)


cdef void swap_unmeasured(State *state, uint32_t index) noexcept nogil:
    """No traffic will be told of after the terminal's last swap, if it is still waited for."""
    cdef const TerminalCold *cold = &state.terminals_cold[index]
    cdef Job *job
    if state.terminals[index].order != AWAITS_TRAFFIC:
        return
    state.terminals[index].order = NONE_INDEX
    job = job_find(state, cold.swap_job)
    if job != NULL:
        job.unmeasured_count += 1
    event(state, EVENT_UNMEASURED, index, state.terminals[index].server, cold.swap_job, 0, cold.swapped_ms, 0)


cdef void _return_target(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """The target was never used: it is free again at once, unless another access server named it meanwhile.

    Then it cools, and at the end of that it is asked whether that one has let go (I1).
    """
    cdef Order *order = &state.orders[index]
    cdef uint32_t target = order.target
    if target == NONE_INDEX:
        return
    if state.sims_cold[target].revoke or sim_cooling_until_ms(&state.sims[target]) > now_ms:
        sim_cool(state, target, now_ms)
    else:
        sim_occupy(state, target, FREE, state.sims[target].terminal)
    order.target = NONE_INDEX


cdef void _note_given_up(
    State *state, const Order *order, uint32_t target, int why, uint64_t now_ms
) noexcept nogil:
    """Onto the operator's work list; the oldest entry makes room, and is counted if nobody had resolved it."""
    cdef GivenUp *entry
    state.header.given_up_count += 1
    entry = &state.given_up[state.header.given_up_count % GIVEN_UP_MAX]
    state.header.given_up_lost += entry.number != 0 and not entry.resolved
    entry.number = state.header.given_up_count
    entry.at_ms = now_ms
    entry.terminal = state.terminals[order.terminal].key
    entry.subscriber = state.terminals[order.terminal].subscriber
    entry.job = order.job
    entry.attempts = order.attempts
    entry.server = order.server
    entry.why = <uint8_t> why
    entry.resolved = 0
    entry.target = target + 1


cdef bint _target_fits(const State *state, const Order *order) noexcept nogil:
    """Whether the target of a switch that is out would be chosen still (I4)."""
    cdef const Sim *sim = &state.sims[order.target]
    cdef const Group *group = &state.groups[sim.group]
    return (
        sim.health == HEALTHY and not group.pool_health and state.lots[group.lot].validity == VALID
        and headroom_bytes(sim) >= tier_lowest_bytes(terminal_tier(&state.terminals[order.terminal]))
    )


cdef void order_refuse(State *state, uint32_t index, bint busy, uint64_t now_ms) noexcept nogil:
    """Refused in so many words: the terminal is as it was (I9).

    ``busy`` is no failed attempt, nor is it where the target has become unfit: another takes its place (I4).
    """
    cdef Order *order = &state.orders[index]
    cdef Job *job = job_find(state, order.job)
    cdef uint32_t id = order.job
    cdef uint64_t ceiling
    cdef uint64_t number = order.number
    cdef uint32_t target = order.target
    cdef bint excused = busy or (order.kind == SWITCH and not order.orphaned and not _target_fits(state, order))
    if not excused and order.attempts < 255:
        order.attempts += 1
    order_event(state, EVENT_REFUSED, index, ACK_BUSY if busy else ACK_REFUSED, order.attempts)
    if order.kind == SWITCH and not (excused or order.orphaned):
        swap_outcome(state, index, False, now_ms)
    _leave_place(state, index)
    order.number = 0
    if order.orphaned:
        _settle_orphan(state, index, False, now_ms)
        return
    _return_target(state, index, now_ms)
    if job != NULL:
        _job_in(state, job, order)
        job.queued_count += 1
        job.refused_count += not busy
        if excused:
            _canary_place(state, job)
        elif not order.overdue:
            _job_outcome(state, job, True)
    order.state = WAITING
    if _cancelled(state, index, now_ms):
        return
    if excused:
        _enqueue(state, index)
        return
    if order.kind == SWITCH and order.attempts >= state.header.settings[<int> ATTEMPTS_MAX]:
        state.terminals[order.terminal].order = NONE_INDEX
        if job != NULL:
            job.queued_count -= 1
            job.given_up_count += 1
        event(
            state, EVENT_GIVEN_UP, order.terminal, order.server, id, ACK_REFUSED, number, order.attempts)
        _note_given_up(state, order, target, ACK_REFUSED, now_ms)
        if order.job == NONE_INDEX:
            # Or it would be tried again and again. Its SIM may still want it to move, tomorrow.
            terminal_count_swap(state, order.terminal, now_ms)
            automatic_later(state, now_ms)
        _free(state, index)
        job_settle(state, id, now_ms)
        return
    ceiling = RETRY_FIRST_MS << (order.attempts if order.attempts < 5 else 5)
    if ceiling > RETRY_MAX_MS:
        ceiling = RETRY_MAX_MS
    order.not_before_ms = now_ms + 1 + draw(state) % ceiling
    timer_arm(state, TIMER_ORDER, index, order.not_before_ms)


cdef void order_requeue(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Reconciliation found that it was not carried out and never will be: it is sent again in this session."""
    cdef Order *order = &state.orders[index]
    cdef Job *job = job_find(state, order.job)
    order_event(state, EVENT_REFUSED, index, 0, order.attempts)
    _leave_place(state, index)
    order.number = 0
    if order.orphaned:
        _settle_orphan(state, index, False, now_ms)
        return
    _return_target(state, index, now_ms)
    if job != NULL:
        _job_in(state, job, order)
        _canary_place(state, job)
        job.queued_count += 1
    order.state = WAITING
    if not _cancelled(state, index, now_ms):
        _enqueue(state, index)


cdef void order_abandon(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Reconciliation found that the access server holds nothing that this order is about."""
    cdef Order *order = &state.orders[index]
    cdef Job *job = job_find(state, order.job)
    cdef uint32_t id = order.job
    cdef uint32_t source = order.source
    cdef uint32_t target = order.target
    if order_outstanding(state, index):
        order_event(state, EVENT_WITHDRAWN, index, NOT_HELD, 0)
        _leave_place(state, index)
        if job != NULL:
            _job_in(state, job, order)
            _canary_place(state, job)
    else:
        _leave_queue(state, index)
        if job != NULL:
            job.queued_count -= 1
    if job != NULL:
        job.skipped_count += 1
    if order.orphaned:
        if source != NONE_INDEX:
            sim_cool(state, source, now_ms)
        sim_cool(state, target, now_ms)
    elif order.kind == SWITCH:
        state.terminals[order.terminal].order = NONE_INDEX
        if target != NONE_INDEX:
            sim_cool(state, target, now_ms)
    elif state.sims[source].held and state.sims[source].next == index:
        sim_cool(state, source, now_ms)
    _free(state, index)
    job_settle(state, id, now_ms)


cdef inline uint64_t _ask_interval_us(const Server *server, uint64_t now_ms) noexcept nogil:
    return max(<uint64_t> _interval_us(server, now_ms), <uint64_t> ASK_APART_US)


cdef void _ask_later(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Has the access server asked in a while what became of an unknown order; of one after the other, at its pace."""
    cdef Order *order = &state.orders[index]
    cdef Server *server = &state.servers[order.server]
    cdef uint64_t interval_us = _ask_interval_us(server, now_ms)
    cdef uint64_t first_us = (now_ms + <uint64_t> state.header.settings[<int> UNKNOWN_ASK_MS]) * 1000
    cdef uint64_t at_us = min(max(first_us, server.next_ask_us), first_us + server.outstanding * interval_us)
    server.next_ask_us = at_us + interval_us
    order.not_before_ms = (at_us + 999) // 1000
    timer_arm(state, TIMER_ORDER, index, order.not_before_ms)


cdef bint _may_ask(State *state, const Order *order, uint64_t now_ms) noexcept nogil:
    """Whether an unknown order may be asked for now.

    Who never received it would begin with it. So all that holds an order back the first time does here, but for the window:
    its place it has. One whose job was cancelled is withdrawn.
    """
    cdef const Server *server = &state.servers[order.server]
    cdef const Job *job
    cdef uint64_t look_ms = 0
    if order.session != server.session or not _gate_lets(server):
        return False
    if order.kind == SWITCH:
        job = job_find(state, order.job)
        if state.header.swaps_stopped or (job != NULL and not job_sends(job) and not job_ended(job)):
            return False
    if server.next_order_us > now_ms * 1000 + _ask_interval_us(server, now_ms):
        return False
    return _queue_has_room(state, order.server, now_ms, &look_ms)


cdef bint _unwanted(State *state, const Order *order) noexcept nogil:
    """Whether a switch is not to begin any more: its terminal has gone on, its job is over, or its target is unfit (I4)."""
    cdef const Job *job = job_find(state, order.job)
    return order.orphaned or (job != NULL and job_ended(job)) or not _target_fits(state, order)


cdef void _ask(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Asks for an unknown order: the same number again. Who carried it out says so, and carries nothing out twice.

    One that is not to begin any more is withdrawn under that number: who has not begun it refuses it, and never will.
    """
    cdef const Order *order = &state.orders[index]
    cdef Server *server = &state.servers[order.server]
    _write_order(state, index, WITHDRAW if order.kind == SWITCH and _unwanted(state, order) else order.kind, now_ms)
    if server.gate == GATE_PROBING:
        server.probe = index + 1
    server.next_order_us = max(server.next_order_us, now_ms * 1000 - BURST_US) + _ask_interval_us(server, now_ms)


cdef void answers_delayed(State *state, uint64_t now_ms) noexcept nogil:
    """The service starts again, or stood still, or its clock leaps: what is out gets its whole deadline again."""
    state.header.answers_until_ms = now_ms + <uint64_t> state.header.settings[<int> ORDER_DEADLINE_MS]


cdef void order_timer(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Asked whether its deadline has passed, or its wait is over."""
    cdef Order *order = &state.orders[index]
    cdef Job *job
    cdef uint64_t due_ms
    if order.state == OUTSTANDING:
        due_ms = max(order.deadline_ms, state.header.answers_until_ms)
        if due_ms > now_ms:
            timer_arm(state, TIMER_ORDER, index, due_ms)
            return
        order.state = UNKNOWN
        order.overdue = 1
        _ask_later(state, index, now_ms)
        order_event(state, EVENT_OVERDUE, index, 0, now_ms - order.ordered_ms)
        job = job_find(state, order.job)
        if job != NULL:
            job.overdue_count += 1
            _job_outcome(state, job, True)
        if order.probes:
            # Late is not refused (I9): no failure is counted, but another has to try.
            breakers_unprobed(state, index, now_ms)
        _shrink(state, order.server, 1, 2, WINDOW_DEADLINE, now_ms)
        if _is_probe(state, index):
            _back_off(state, order.server, GATE_BY_DEADLINE, now_ms)
    elif order.state == UNKNOWN:
        if order.not_before_ms > now_ms:
            timer_arm(state, TIMER_ORDER, index, order.not_before_ms)
            return
        _ask_later(state, index, now_ms)
        if _is_probe(state, index):
            _back_off(state, order.server, GATE_BY_DEADLINE, now_ms)
        elif _may_ask(state, order, now_ms):
            _ask(state, index, now_ms)
    elif order.state == WAITING or order.state == ANNOUNCED:
        if order.not_before_ms > now_ms:
            timer_arm(state, TIMER_ORDER, index, order.not_before_ms)
        elif order.state == WAITING:
            _enqueue(state, index)
        elif state.header.swaps_stopped or state.header.unheard_count or state.servers[order.server].paused:
            _promise_break(state, index, PROMISE_BROKEN)
            _enqueue(state, index)
        else:
            _enqueue_first(state, index)


# ---------------------------------------------------------------------------------------- window, pace and gate

cdef inline void server_wake(State *state, uint32_t index) noexcept nogil:
    """Dispatch looks at this access server at the end of the apply."""
    state.ready[index >> 6] |= <uint64_t> 1 << (index & 63)


cdef void servers_wake(State *state) noexcept nogil:
    """What held orders back on all of them holds them back no longer."""
    cdef uint32_t index
    for index in range(state.header.servers_count):
        server_wake(state, index)


cdef void server_set_gate(State *state, uint32_t index, int gate, int reason, uint64_t now_ms) noexcept nogil:
    cdef Server *server = &state.servers[index]
    if server.gate != gate:
        server.gate = <uint8_t> gate
        server.gate_reason = <uint8_t> reason
        server.gate_changed_ms = now_ms
    server.probe = 0
    if gate == GATE_OPEN or gate == GATE_PROBING:
        server_wake(state, index)


cdef void _set_window(State *state, uint32_t index, uint32_t window, int reason, uint64_t now_ms) noexcept nogil:
    cdef Server *server = &state.servers[index]
    if window > WINDOW_MAX:
        window = WINDOW_MAX
    if window < 1:
        window = 1
    server.clean_count = 0
    if window != server.window:
        server.window = <uint16_t> window
        server.window_reason = <uint8_t> reason
        server.window_changed_ms = now_ms


cdef void _shrink(
    State *state, uint32_t index, uint32_t numerator, uint32_t denominator, int reason, uint64_t now_ms
) noexcept nogil:
    """Shrinks the window, at most once a round trip: the orders under way were sent under the old one."""
    cdef Server *server = &state.servers[index]
    cdef uint64_t round_trip_ms = server.ack_us // 1000
    if round_trip_ms < 100:
        round_trip_ms = 100
    if server.window_signal_ms != 0 and now_ms - server.window_signal_ms < round_trip_ms:
        return
    server.window_signal_ms = now_ms
    server.slow_start = 0
    _set_window(state, index, server.window * numerator // denominator, reason, now_ms)


cdef void _back_off(State *state, uint32_t index, int reason, uint64_t now_ms) noexcept nogil:
    """Closes the gate for a while: exponential with full jitter, so that many servers don't come back at once."""
    cdef Server *server = &state.servers[index]
    cdef uint64_t ceiling = <uint64_t> BACK_OFF_FIRST_MS << (server.back_offs if server.back_offs < 6 else 6)
    if ceiling > BACK_OFF_MAX_MS:
        ceiling = BACK_OFF_MAX_MS
    if server.back_offs < 65535:
        server.back_offs += 1
    server_set_gate(state, index, GATE_BACK_OFF, reason, now_ms)
    server.gate_until_ms = now_ms + 1 + draw(state) % ceiling
    timer_arm(state, TIMER_SERVER, index, server.gate_until_ms)


cdef void server_acknowledged(State *state, uint32_t order, int result, uint64_t now_ms) noexcept nogil:
    """An order was answered: the round trip is learned, the window grows when a whole window came back clean."""
    cdef uint32_t index = state.orders[order].server
    cdef Server *server = &state.servers[index]
    cdef uint64_t sample_us = (now_ms - state.orders[order].ordered_ms) * 1000
    if sample_us > NONE_INDEX:
        sample_us = NONE_INDEX
    if sample_us == 0:
        sample_us = 1
    if server.ack_us == 0:
        server.ack_us = <uint32_t> sample_us
    else:
        server.ack_us = <uint32_t> ((<uint64_t> server.ack_us * 7 + sample_us) >> 3)
    if result == ACK_BUSY:
        _shrink(state, index, 1, 2, WINDOW_BUSY, now_ms)
        if server.gate == GATE_OPEN or server.gate == GATE_PROBING:
            _back_off(state, index, GATE_BY_BUSY, now_ms)
        return
    if server.gate == GATE_PROBING:
        if not _is_probe(state, order):
            return  # sent before the gate closed: it says nothing of now
        if result == ACK_REFUSED and server_breaker_open(state, index):
            _back_off(state, index, GATE_BY_FAILURES, now_ms)
            return
        server_breaker_close(state, index, now_ms)
        server.back_offs = 0
        server_set_gate(state, index, GATE_OPEN, GATE_BY_PROBED, now_ms)
        # What it could take before says little now: it ramps up as from the start.
        server.slow_start = 1
        _set_window(state, index, server.window // 4, WINDOW_PROBED, now_ms)
        return
    server.clean_count += 1
    # A window that is not used proves nothing, so only a full one grows.
    if server.clean_count >= server.window and (server.queued_count or server.outstanding + 1 >= server.window):
        _set_window(
            state, index, server.window * 2 if server.slow_start else server.window + 10, WINDOW_CLEAN, now_ms)


cdef void server_load(
    State *state, uint32_t index, uint32_t queue_wait_us, uint32_t service_us, uint32_t waiting, uint32_t taken,
    uint32_t allocation_wait_us, uint64_t now_ms
) noexcept nogil:
    """What the access server says of itself.

    Where it tells what waits, that alone rules when the next order is sent (_queue_has_room). Where it doesn't, its window
    shrinks when allocations miss their target in two reports running while it has orders of ours.
    """
    cdef Server *server = &state.servers[index]
    server.queue_wait_us = queue_wait_us
    server.service_us = service_us
    server.waiting = waiting
    server.allocation_wait_us = allocation_wait_us
    # What it has not been sent it can't have received.
    server.taken_count = min(taken, server.sent_count)
    server.told_ms = now_ms
    admission_paced(server, service_us, now_ms)
    admission_ended(state, index, now_ms)
    if waiting != NONE_INDEX or not server.outstanding or _allocations_wait_us(server) <= _target_us(state):
        server.missed_count = 0
    else:
        server.missed_count += 1
        if server.missed_count == MISSED_MAX:
            server.missed_count = 0
            _shrink(state, index, 1, 2, WINDOW_ALLOCATIONS, now_ms)
    if server.queued_count:
        server_wake(state, index)


cdef inline uint64_t _target_us(const State *state) noexcept nogil:
    return <uint64_t> state.header.settings[<int> ALLOCATION_TARGET_MS] * 1000


cdef inline uint32_t _allocations_wait_us(const Server *server) noexcept nogil:
    """How long allocations waited on it lately; who does not tell serves all operations in one queue."""
    return server.queue_wait_us if server.allocation_wait_us == NONE_INDEX else server.allocation_wait_us


cdef inline bint _tells(const Server *server, uint64_t now_ms) noexcept nogil:
    """Whether it says what waits in its queue, and said so lately."""
    return server.waiting != NONE_INDEX and server.service_us and now_ms - server.told_ms <= TOLD_STALE_MS


cdef bint _queue_has_room(State *state, uint32_t index, uint64_t now_ms, uint64_t *look_ms) noexcept nogil:
    """Whether little enough stands before one more order at the access server.

    Before it stand what waits there, and what was sent and had not arrived when it told: counted, not estimated. They may
    take QUEUE_BUDGET_US; where one operation takes long, the last one must besides have hardly waited, so that it is
    not the end of a busy spell. A server that is never told to be idle, but serves allocations well within their target, still
    gets a twentieth of its capacity in orders (I7).
    """
    cdef Server *server = &state.servers[index]
    cdef uint64_t budget_us = <uint64_t> state.header.settings[<int> QUEUE_BUDGET_US]
    cdef uint64_t service_us = server.service_us
    cdef uint64_t ahead, floor_ms, stale_ms
    if now_ms - server.told_ms > TOLD_STALE_MS:
        return True  # it is silent: paced by time
    stale_ms = server.told_ms + TOLD_STALE_MS + 1
    if not _tells(server, now_ms):
        # Paced by time too, and only while its queue is short by its own account.
        if server.queue_wait_us <= budget_us + service_us:
            return True
    else:
        ahead = <uint64_t> server.waiting + (server.sent_count - server.taken_count)
        if ahead * service_us <= budget_us and (service_us < CALM_US or server.queue_wait_us <= service_us):
            return True
        if 2 * <uint64_t> _allocations_wait_us(server) <= _target_us(state) and not admission_booked(server, now_ms):
            floor_ms = server.last_sent_ms + service_us * 20 // 1000
            if floor_ms <= now_ms:
                return True
            stale_ms = min(stale_ms, floor_ms)
    look_ms[0] = min(look_ms[0], stale_ms)
    return False


cdef void server_count_allocations(State *state, uint32_t index, uint32_t count, uint64_t now_ms) noexcept nogil:
    """Counts what allocations need of the access server: swaps take only what they leave (I7)."""
    cdef Server *server = &state.servers[index]
    cdef uint64_t elapsed_ms = now_ms - server.rate_since_ms
    if elapsed_ms >= 1000:
        if elapsed_ms > RATE_STALE_MS:
            server.allocations_rate = 0
        else:
            server.allocations_rate = <uint32_t> (
                (<uint64_t> server.allocations_rate + <uint64_t> server.allocations_count * 1000 // elapsed_ms) // 2)
        server.allocations_count = 0
        server.rate_since_ms = now_ms
    server.allocations_count += count


cdef uint32_t _capacity_left_ppm(const Server *server, uint64_t now_ms) noexcept nogil:
    """What swaps get of the server's capacity: nine tenths less the rate of allocations, and a twentieth at the least (I7)."""
    cdef uint64_t used_ppm = 0
    # The rate is counted when allocations come: where none came for a while, there are none.
    if now_ms - server.rate_since_ms <= RATE_STALE_MS:
        used_ppm = <uint64_t> server.allocations_rate * server.service_us
    return <uint32_t> (900_000 - used_ppm) if used_ppm < 850_000 else 50_000


cdef uint32_t _interval_us(const Server *server, uint64_t now_ms) noexcept nogil:
    """How far apart orders are sent: a window a round trip, and within the capacity that allocations leave."""
    cdef uint64_t acknowledge_us = server.ack_us if server.ack_us else ACK_START_US
    cdef uint64_t interval = acknowledge_us // server.window
    cdef uint64_t by_capacity
    if server.service_us:
        by_capacity = <uint64_t> server.service_us * 1_000_000 // _capacity_left_ppm(server, now_ms)
        if by_capacity > interval:
            interval = by_capacity
    return <uint32_t> interval if interval < 60_000_000 else 60_000_000


cdef void server_timer(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Asked whether its death is settled, its back-off is over, or its pace allows the next order."""
    cdef Server *server = &state.servers[index]
    if server.gate == GATE_DEAD:
        if server.dead_ms > now_ms:
            timer_arm(state, TIMER_SERVER, index, server.dead_ms)
        elif server.dead_ms and not state.header.frozen:
            server_bury(state, index, now_ms)
    elif server.gate == GATE_BACK_OFF:
        if server.gate_until_ms > now_ms:
            timer_arm(state, TIMER_SERVER, index, server.gate_until_ms)
        else:
            server_set_gate(state, index, GATE_PROBING, GATE_BY_PROBE, now_ms)
    else:
        server_wake(state, index)


# ----------------------------------------------------------------------------------------------- how leases end

cdef void _leave_swap(State *state, uint32_t terminal_index, bint source_let_go, uint64_t now_ms) noexcept nogil:
    """The terminal's lease ends or changes: what becomes of its swap."""
    cdef uint32_t order
    swap_unmeasured(state, terminal_index)
    order = terminal_swap(&state.terminals[terminal_index])
    if order == NONE_INDEX:
        return
    if order_outstanding(state, order):
        _orphan(state, order, source_let_go, now_ms)
    else:
        order_drop(state, order, LEASE_OVER, now_ms)


cdef inline void lease_release(State *state, uint32_t terminal_index, uint64_t now_ms) noexcept nogil:
    """The access server itself gave the SIM back: it cools."""
    cdef Terminal *terminal = &state.terminals[terminal_index]
    cdef uint32_t sim = terminal.sim
    _leave_swap(state, terminal_index, True, now_ms)
    lease_leave(state, terminal)
    if lease_silent(&state.sims[sim], now_ms):
        last_report_due(state, terminal_index, now_ms)
    sim_cool(state, sim, now_ms)


cdef void lease_take_away(State *state, uint32_t terminal_index, int kind, uint64_t now_ms) noexcept nogil:
    """Ends a lease of which the access server does not know yet: the SIM is held until it has let go.

    No switch of the terminal is outstanding, and an order is available.
    """
    cdef Terminal *terminal = &state.terminals[terminal_index]
    cdef uint32_t sim = terminal.sim
    cdef uint32_t order
    _leave_swap(state, terminal_index, False, now_ms)
    lease_leave(state, terminal)
    order = order_new(
        state, kind, terminal_index, sim, terminal.server, PRIORITY_STOP, NONE_INDEX, terminal.epoch, now_ms)
    sim_hold(state, sim, terminal_index, order, HELD_COUNTED)


cdef void lease_replace(State *state, uint32_t terminal_index, uint32_t server, uint64_t now_ms) noexcept nogil:
    """A re-allocation: what becomes of the SIM that the terminal held.

    The server that asks is told of the new lease by its answer, so there the old SIM just cools; another server must
    be told to stop. With a switch outstanding nobody knows which SIM is in use: it is orphaned.
    """
    cdef Terminal *terminal = &state.terminals[terminal_index]
    if terminal_swap(terminal) != NONE_INDEX and order_outstanding(state, terminal.order):
        _orphan(state, terminal.order, False, now_ms)
        lease_leave(state, terminal)
    elif terminal.server == server:
        lease_release(state, terminal_index, now_ms)
    else:
        lease_take_away(state, terminal_index, STOP, now_ms)


cdef void lease_timer(State *state, uint32_t terminal_index, uint64_t now_ms) noexcept nogil:
    """Asked whether its lease has expired (fail static: not while nobody can know whether it is in use)."""
    cdef Terminal *terminal = &state.terminals[terminal_index]
    cdef uint64_t ask_again_ms = 0
    terminal.expected_tier &= ~LEASE_ARMED
    if terminal.sim == NONE_INDEX:
        return
    if terminal.expires_ms > now_ms:
        ask_again_ms = terminal.expires_ms
    elif state.header.frozen:
        ask_again_ms = now_ms + <uint64_t> state.header.settings[<int> LEASE_MS]
    elif now_ms < state.header.thaw_until_ms:
        ask_again_ms = state.header.thaw_until_ms
    elif not state.servers[terminal.server].reconciled and now_ms < state.header.grace_until_ms:
        ask_again_ms = state.header.grace_until_ms
    elif terminal_swap(terminal) != NONE_INDEX and order_outstanding(state, terminal.order):
        ask_again_ms = now_ms + <uint64_t> state.header.settings[<int> LEASE_MS]
    elif state.servers[terminal.server].session == 0:
        # Nobody could be told, and the SIM would be held all the same.
        ask_again_ms = now_ms + <uint64_t> state.header.settings[<int> LEASE_MS]
    elif not order_available(state):
        ask_again_ms = now_ms + POOL_FULL_MS
    if ask_again_ms:
        lease_arm(state, terminal_index, ask_again_ms)
        terminal.expected_tier |= LEASE_ARMED
    else:
        lease_take_away(state, terminal_index, REVOKE, now_ms)


# ----------------------------------------------------------------------------------------------------- dispatch

cdef void _write_order(State *state, uint32_t index, int kind, uint64_t now_ms) noexcept nogil:
    """The order leaves with this apply, as ``kind``."""
    cdef const Order *order = &state.orders[index]
    cdef Server *server = &state.servers[order.server]
    cdef OrderRow *row = &state.orders_out[state.orders_out_count]
    cdef const Sim *target
    state.orders_out_count += 1
    server.sent_count += 1
    server.last_sent_ms = now_ms
    row.order = order.number
    row.terminal = state.terminals[order.terminal].key
    row.epoch = order.epoch
    row.deadline_ms = now_ms + <uint64_t> state.header.settings[<int> ORDER_DEADLINE_MS]
    row.source_iccid = sim_iccid(state, order.source)
    row.session = server.session
    row.access_server = order.server
    row.kind = <uint8_t> kind
    if order.target != NONE_INDEX:
        target = &state.sims[order.target]
        row.target_iccid = target.iccid
        row.target_bank = state.groups[target.group].bank
        row.target_slot = target.slot
    else:
        row.target_iccid = 0
        row.target_bank = NONE_SHORT
        row.target_slot = NONE_SHORT


cdef void _send(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    cdef Order *order = &state.orders[index]
    cdef Server *server = &state.servers[order.server]
    cdef Job *job = job_find(state, order.job)
    cdef bint announced = order.announced and not _promise_late(order, now_ms)
    invariant(server.outstanding < server.window, "I3: no order is sent at or above the window")
    invariant(server.outstanding < WINDOW_MAX, "I3: never more than 200 outstanding")
    server.outstanding += 1
    if server.outstanding > server.outstanding_max:
        server.outstanding_max = server.outstanding
    order.state = OUTSTANDING
    order.number = (state.header.order_next << NUMBER_BITS) | index
    state.header.order_next += 1
    _promise_over(state, index)
    order.ordered_ms = now_ms
    order.deadline_ms = now_ms + <uint64_t> state.header.settings[<int> ORDER_DEADLINE_MS]
    order.session = server.session
    order.overdue = 0
    # The deadline of an order that had this place before is no later, unless the setting was made shorter: then it asks late.
    if timer_node(state, (<uint32_t> TIMER_ORDER << 29) | index).next == NONE_INDEX:
        timer_arm(state, TIMER_ORDER, index, order.deadline_ms)
    if job != NULL:
        job.queued_count -= 1
        job.outstanding_count += 1
        if job.rate_per_minute:
            # A second's worth may be caught up at once.
            job.rate_next_us = max(job.rate_next_us, max(now_ms, 1000) * 1000 - 1_000_000)
            job.rate_next_us += 60_000_000 // job.rate_per_minute
    if order.kind == SWITCH and not announced:
        _announce(state, index, now_ms)
    order_event(state, EVENT_ORDERED, index, order.priority, sim_iccid(state, order.target))
    _write_order(state, index, order.kind, now_ms)


cdef void _announce(State *state, uint32_t index, uint64_t at_ms) noexcept nogil:
    """Tells that the terminal will be swapped, and not before ``at_ms``."""
    cdef Order *order = &state.orders[index]
    cdef const Server *server = &state.servers[order.server]
    order.announced = 1
    event(
        state, EVENT_ANNOUNCED, order.terminal, order.server, order.job, order.priority, at_ms,
        server.outage_ms if server.outage_ms else OUTAGE_START_MS)


cdef bint _announce_ahead(
    State *state, uint32_t index, Job *job, uint64_t now_ms, uint64_t *look_ms
) noexcept nogil:
    """Announces a queued swap, and lets it wait for its instant. False: as many as may be sent till then are announced."""
    cdef Order *order = &state.orders[index]
    cdef Server *server = &state.servers[order.server]
    cdef uint64_t ahead_ms = _announce_ahead_ms(state, job, order.priority)
    cdef uint64_t interval_us = max(<uint64_t> _interval_us(server, now_ms), 1)
    cdef uint64_t most = server.window + ahead_ms * 1250 // interval_us
    if server.announced_count >= min(most, <uint64_t> ANNOUNCED_MAX):
        return False
    if job == NULL:
        pass
    elif job.canary and job.announced_count + _canary_tried(job) >= job.canary_count:
        return False
    elif job.rate_per_minute and job.announced_count > ahead_ms * job.rate_per_minute // 60_000:
        look_ms[0] = min(look_ms[0], now_ms + 60_000 // job.rate_per_minute + draw(state) % WAKE_SPREAD_MS)
        return False
    _dequeue(state, index)
    order.state = ANNOUNCED
    order.announce = 0
    order.not_before_ms = now_ms + ahead_ms
    server.announced_count += 1
    if job != NULL:
        job.announced_count += 1
    timer_arm(state, TIMER_ORDER, index, order.not_before_ms)
    _announce(state, index, order.not_before_ms)
    return True


cdef uint32_t _next_queued(
    const State *state, const Server *server, const uint8_t *skip, int *priority, int *lane
) noexcept nogil:
    """The first order of the lane whose turn it is, at ``priority`` or below it; NONE_INDEX: there is none.

    ``skip``: by priority, a bit per lane that is not looked at.
    """
    cdef int most = 1 if state.header.swaps_stopped or state.header.unheard_count else PRIORITIES
    cdef uint32_t lanes, after
    while priority[0] < most:
        lanes = server.lanes[priority[0]] & ~<uint32_t> skip[priority[0]]
        if lanes:
            after = lanes & (<uint32_t> 0xFFFFFFFE << server.turn[priority[0]])
            lane[0] = first_set(after if after else lanes)
            return server.head[priority[0]][lane[0]]
        priority[0] += 1
    return NONE_INDEX


# A queue is a chain through the pool, so what comes next is not known before an order is here, and a fetch takes longer than
# sending an order does. While one access server has its turn, the queues of the next ones are therefore walked, one step of one of them
# with each order that is sent: what a turn will touch is then on its way since several orders.

cdef enum:
    QUEUES_AHEAD = 4              # access servers whose queues are walked


ctypedef struct Ahead:
    uint32_t[QUEUES_AHEAD] orders  # how far the walk has come in the queue of each; NONE_INDEX: to its end
    uint32_t server                # the last of them; NONE_INDEX: there was none any more
    uint32_t step


cdef inline uint32_t _queued_ahead(State *state, uint32_t index) noexcept nogil:
    """Fetches what sending this order will touch, and the order behind it, which is given; NONE_INDEX: there is none."""
    cdef const Order *order = &state.orders[index]
    prefetch(&state.terminals[order.terminal])
    if order.source != NONE_INDEX:
        prefetch(&state.sims[order.source])
    prefetch(timer_node(state, (<uint32_t> TIMER_ORDER << 29) | index))
    if order.next != NONE_INDEX:
        prefetch(&state.orders[order.next])
        prefetch(<char *> &state.orders[order.next] + sizeof(Order) - 1)
    return order.next


cdef void _ahead_next(State *state, Ahead *ahead) noexcept nogil:
    """The first of the access servers has its turn, and another joins them."""
    cdef uint8_t[PRIORITIES] skip
    cdef int place, priority = 0, lane = 0
    for place in range(QUEUES_AHEAD - 1):
        ahead.orders[place] = ahead.orders[place + 1]
    ahead.orders[QUEUES_AHEAD - 1] = NONE_INDEX
    if ahead.server != NONE_INDEX:
        ahead.server = _next_ready(state, ahead.server + 1)
    if ahead.server != NONE_INDEX:
        memset(skip, 0, sizeof(skip))
        ahead.orders[QUEUES_AHEAD - 1] = _next_queued(state, &state.servers[ahead.server], skip, &priority, &lane)


cdef inline void _ahead_step(State *state, Ahead *ahead) noexcept nogil:
    cdef uint32_t *order = &ahead.orders[ahead.step % QUEUES_AHEAD]
    if order[0] != NONE_INDEX:
        order[0] = _queued_ahead(state, order[0])
    ahead.step += 1


cdef void shortfall(
    State *state, uint32_t index, int tier, bint missing, int priority, uint64_t now_ms
) noexcept nogil:
    """A swap searched its market for a target that has as much left as ``tier``: the shortfall begins, goes on or is over."""
    cdef Market *market = &state.markets[index]
    if missing:
        if not market.short_since_ms:
            market.short_since_ms = now_ms
            market.short_tier = <uint8_t> tier
            event(
                state, EVENT_SHORTFALL, NONE_INDEX, NONE_SHORT, NONE_INDEX, priority, market.entity,
                <uint64_t> tier_lowest_bytes(tier))
        elif tier < market.short_tier:
            market.short_tier = <uint8_t> tier
    elif market.short_since_ms and tier >= market.short_tier:
        event(
            state, EVENT_SHORTFALL_OVER, NONE_INDEX, NONE_SHORT, NONE_INDEX, 0, market.entity, market.short_since_ms)
        market.short_since_ms = 0


cdef int _held_back(State *state, uint32_t index, uint64_t now_ms, uint64_t *look_ms) noexcept nogil:
    """Why one more order may not be sent to the access server now, WaitsFor; ``look_ms``: when to look again."""
    cdef const Server *server = &state.servers[index]
    if not _gate_lets(server):
        if server.gate == GATE_BACK_OFF:
            look_ms[0] = min(look_ms[0], server.gate_until_ms)
        return WAITS_FOR_GATE
    if server.outstanding >= server.window:
        return WAITS_FOR_WINDOW
    if not _queue_has_room(state, index, now_ms, look_ms):
        return WAITS_FOR_QUEUE
    if not _tells(server, now_ms) and server.next_order_us > now_ms * 1000:
        look_ms[0] = min(look_ms[0], (server.next_order_us + 999) // 1000)
        return WAITS_FOR_PACE
    return WAITS_FOR_NOTHING


cdef bint _dispatch_server(State *state, uint32_t index, uint64_t now_ms, int *work, Ahead *ahead) noexcept nogil:
    """One access server's turn: _send_some. What holds it back and ends with time arms its timer."""
    cdef uint64_t look_ms = ~<uint64_t> 0
    cdef bint more = _send_some(state, index, now_ms, work, &look_ms, ahead)
    if look_ms != ~<uint64_t> 0:
        timer_arm(state, TIMER_SERVER, index, look_ms)
    return more


cdef bint _pass_over(
    State *state, uint32_t index, const Job *job, uint8_t *passed, uint64_t now_ms, uint64_t *look_ms
) noexcept nogil:
    """Its job lets no more of its orders go now. True: other jobs share its lane, and it went behind what waits there.

    After LANE_LOOK of them the next look goes on.
    """
    if not _lane_shared(job) or state.orders[index].next == NONE_INDEX:
        return False
    if passed[0] == LANE_LOOK:
        look_ms[0] = min(look_ms[0], now_ms + STARVED_MS)
        return False
    passed[0] += 1
    _dequeue(state, index)
    _enqueue(state, index)
    return True


cdef bint _send_some(
    State *state, uint32_t index, uint64_t now_ms, int *work, uint64_t *look_ms, Ahead *ahead
) noexcept nogil:
    """Sends to one access server what may be sent now. True: its turn is over, or the bound on work was met; there is more.

    A swap for which no target is to be had goes behind the others, and no other of its market that expects as
    much is searched for in this look; after some of them the next priority has its turn. A lane whose job may not send is
    passed over, or in a lane of several jobs, its order goes behind the others; while nothing may be sent, swaps are still
    announced.
    """
    cdef Server *server = &state.servers[index]
    cdef uint64_t now_us = now_ms * 1000
    cdef uint32_t order_index, target
    cdef Order *order
    cdef Terminal *terminal
    cdef Job *job
    cdef int priority = 0, lane = 0, searched = 0, looked = 0, sent = 0, tier, held_back
    cdef bint starved = False, limited = False
    cdef uint8_t[256] starved_tier
    cdef uint8_t[PRIORITIES] skip
    cdef uint8_t[PRIORITIES][LANES] passed
    server.waits_for = WAITS_FOR_NOTHING
    memset(skip, 0, sizeof(skip))
    memset(passed, 0, sizeof(passed))
    while True:
        if not server.queued_count:
            return False
        order_index = _next_queued(state, server, skip, &priority, &lane)
        if order_index == NONE_INDEX:
            if starved:
                look_ms[0] = min(look_ms[0], now_ms + STARVED_MS)
            if not server.waits_for:
                if starved:
                    server.waits_for = WAITS_FOR_TARGET
                elif limited:
                    server.waits_for = WAITS_FOR_JOB
                elif state.header.swaps_stopped:
                    server.waits_for = WAITS_FOR_STOP
                else:
                    server.waits_for = WAITS_FOR_HELLOS
            return False
        held_back = _held_back(state, index, now_ms, look_ms)
        if held_back:
            server.waits_for = <uint8_t> held_back
            if not server.unannounced_count or (
                server.gate == GATE_DISCONNECTED or server.gate == GATE_PAUSED or server.gate == GATE_DEAD
            ):
                return False
        if work[0] <= 0 or sent == TURN:
            return True
        work[0] -= 1
        order = &state.orders[order_index]
        job = NULL
        if order.kind == SWITCH:
            job = job_find(state, order.job)
        if job != NULL:
            if not job_sends(job):
                order_park(state, order_index)
                continue
        if (
            order.kind == SWITCH and not held_back and _promise_late(order, now_ms)
            and (not order.ordered_ms or _announce_ahead_ms(state, job, order.priority))
        ):
            _dequeue(state, order_index)
            _promise_break(state, order_index, PROMISE_BROKEN)
            _enqueue(state, order_index)
            continue
        if order.announce:
            if not _announce_ahead(state, order_index, job, now_ms, look_ms):
                if not _pass_over(state, order_index, job, &passed[priority][lane], now_ms, look_ms):
                    skip[priority] |= 1 << lane
                limited = True
            continue
        if held_back:
            skip[priority] |= 1 << lane
            continue
        if job != NULL:
            if not _job_may_send(state, job, now_ms, look_ms):
                if not _pass_over(state, order_index, job, &passed[priority][lane], now_ms, look_ms):
                    skip[priority] |= 1 << lane
                limited = True
                continue
        server.turn[priority] = <uint8_t> lane
        _dequeue(state, order_index)
        if order.next != NONE_INDEX:
            _queued_ahead(state, order.next)
        _ahead_step(state, ahead)
        if order.kind == SWITCH:
            terminal = &state.terminals[order.terminal]
            target = NONE_INDEX
            tier = terminal_tier(terminal)
            if not starved or tier < starved_tier[terminal.market]:
                target = market_select(
                    state, terminal.market, tier_lowest_bytes(tier), tier, True, order.job == NONE_INDEX)
                searched += target == NONE_INDEX
                shortfall(state, terminal.market, tier, target == NONE_INDEX, order.priority, now_ms)
            if target == NONE_INDEX:
                if not starved:
                    starved = True
                    memset(starved_tier, 0xFF, sizeof(starved_tier))
                if tier < starved_tier[terminal.market]:
                    starved_tier[terminal.market] = <uint8_t> tier
                _enqueue(state, order_index)
                looked += 1
                if searched >= STARVED_MAX or looked >= STARVED_LOOK:
                    priority += 1
                    searched = 0
                    looked = 0
                continue
            if state.sims[target].hint != NONE_INDEX:
                prefetch(&state.sims[state.sims[target].hint])
            order.target = target
            order.epoch = epoch_new(state)
            sim_occupy(state, target, RESERVED, order.terminal)
            if state.groups[state.sims[target].group].pool:
                pool_claim(state, target, tier_lowest_bytes(tier))
            if state.header.breakers_tried:
                breakers_probe(state, order_index, now_ms)
        _send(state, order_index, now_ms)
        sent += 1
        if server.gate == GATE_PROBING:
            server.probe = order_index + 1
        if server.next_order_us + BURST_US < now_us:
            server.next_order_us = now_us - BURST_US
        server.interval_us = _interval_us(server, now_ms)
        server.next_order_us += server.interval_us


cdef uint32_t _next_ready(const State *state, uint32_t index) noexcept nogil:
    """The first access server from ``index`` on that dispatch must look at, or NONE_INDEX. Doesn't go round."""
    cdef uint32_t words = (state.header.servers_count + 63) // 64
    cdef uint32_t word = index >> 6
    cdef uint64_t bits
    if word >= words:
        return NONE_INDEX
    bits = state.ready[word] & (~<uint64_t> 0 << (index & 63))
    while not bits:
        word += 1
        if word == words:
            return NONE_INDEX
        bits = state.ready[word]
    return word * 64 + <uint32_t> first_set(bits)


cdef void dispatch(State *state, uint64_t now_ms, int *work) noexcept nogil:
    """Sends what windows, queues and gates allow; at most ``work`` orders are looked at.

    Access servers take turns of TURN orders, so one with a million queued delays nobody else's. Who is not reached is left
    marked, and the next apply goes on there.
    """
    cdef uint32_t index, place
    cdef Ahead ahead
    ahead.server = NONE_INDEX
    ahead.step = 0
    for place in range(QUEUES_AHEAD):
        ahead.orders[place] = NONE_INDEX
    while True:
        index = _next_ready(state, state.header.dispatch_next)
        if index == NONE_INDEX:
            index = _next_ready(state, 0)
            if index == NONE_INDEX:
                return
        state.header.dispatch_next = index
        if work[0] <= 0:
            return
        if ahead.server == NONE_INDEX:
            # The first turn, or the first of another round.
            ahead.server = index
            for place in range(QUEUES_AHEAD - 1):
                _ahead_next(state, &ahead)
        _ahead_next(state, &ahead)
        if not _dispatch_server(state, index, now_ms, work, &ahead):
            state.ready[index >> 6] &= ~(<uint64_t> 1 << (index & 63))
        elif work[0] <= 0:
            return  # it goes on here
        state.header.dispatch_next = index + 1

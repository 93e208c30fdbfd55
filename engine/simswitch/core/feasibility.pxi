# Whether a job can be done, before it moves anyone.
#
#   1  over the SIMs (of a list, the orders too)   what is free: supply by class and tier; who needs a target: demand by market
#                                                  and tier; who would go without in any case, and why
#   2  over the markets                            demand met from supply, the most demanding first, classes in the market's order
#   3  over the SIMs and orders again              names some of those for whom nothing was left
#
# The tables belong to the job that was checked last (sweeps run one after the other). What changes meanwhile makes the figures a
# little wrong; they are an estimate in any case.

cdef enum:
    CHECK_AHEAD = 12              # orders ahead of the one that is looked at
    MARKET_WORK = 64              # items of work that one market stands for: 128 tiers of up to 12 classes
    RATE_START_US = 30_000_000    # round trip of an order until one was measured, for estimates
    ESTIMATE_MS = 10_000          # how often the end of a running job is estimated again
    ESTIMATE_DAYS_MAX = 400       # quiet hours are looked at so far ahead


cdef inline uint64_t _saturated(uint64_t sum, uint64_t more) noexcept nogil:
    """Their sum, which stays below what a protocol's signed number can hold."""
    return min(sum + min(more, <uint64_t> BYTES_MAX), <uint64_t> BYTES_MAX)


cdef bint job_selects(const State *state, const Job *job, uint32_t index) noexcept nogil:
    """Whether the job's filter names this SIM's terminal."""
    cdef const Sim *sim = &state.sims[index]
    cdef const Group *group = &state.groups[sim.group]
    cdef uint32_t class_entity = state.classes[group.sim_class].entity
    if sim.occupancy != ASSIGNED:
        return False
    if job.health_mask and not (job.health_mask >> sim.health) & 1:
        return False
    if job.lot != NONE_SHORT and group.lot != job.lot:
        return False
    if job.supplier != NONE_SHORT and state.entities[group.lot].numbers[<int> LOT_SUPPLIER] != job.supplier:
        return False
    if job.sim_class != NONE_SHORT and class_entity != job.sim_class:
        return False
    if job.carrier != NONE_SHORT and state.entities[class_entity].numbers[<int> CLASS_CARRIER] != job.carrier:
        return False
    if job.bank != NONE_SHORT and group.bank != job.bank:
        return False
    if job.headroom_below_bytes and sim_headroom_bytes(state, sim) >= <int64_t> job.headroom_below_bytes:
        return False
    return job.server == NONE_SHORT or state.terminals[sim.terminal].server == job.server


cdef bint terminal_rests(const State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Whether it was swapped too lately to be swapped again. Throttling overrides that."""
    cdef uint64_t swapped_ms = state.terminals_cold[index].swapped_ms
    return (
        swapped_ms and swapped_ms + <uint64_t> state.header.settings[<int> SWAP_COOL_DOWN_MS] > now_ms
        and state.sims[state.terminals[index].sim].health != THROTTLED
    )


cdef bint check_begin(State *state, Job *job) noexcept nogil:
    """Has the job checked when its turn among the sweeps comes. False: there are too many."""
    cdef uint64_t items
    job.check_orders = state.header.orders_max if job.listed else 0
    items = <uint64_t> job.check_orders + state.header.sims_count
    return sweep_add(
        state, SWEEP_JOB_CHECK, (items << 32) | job.id, 2 * items + state.header.markets_count)


cdef void _check_clear(State *state, Job *job) noexcept nogil:
    cdef uint32_t index
    memset(state.check, 0, sizeof(Check))
    state.check.job = job.id
    for index in range(state.header.servers_count):
        state.servers[index].planned_count = 0
    for index in range(state.header.entities_count):
        state.lots[index].promised_bytes = 0
    for index in range(state.header.markets_count):
        state.check.share_tier = max(
            state.check.share_tier, <uint32_t> tier_satisfying(expected_bytes(state, <int> index, 0)))
    job.demand_count = 0
    job.targets_count = 0
    job.headroom_needed_bytes = 0
    job.headroom_found_bytes = 0
    memset(job.without, 0, sizeof(job.without))


cdef void _sample(State *state, int why, uint32_t terminal) noexcept nogil:
    cdef Check *check = state.check
    if check.samples_count[why] < SAMPLES_MAX:
        check.samples[why][check.samples_count[why]] = state.terminals[terminal].key
        check.samples_count[why] += 1


cdef int _without(const State *state, const Job *job, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Why the terminal would not be moved whatever targets there are; WITHOUTS: it needs one."""
    cdef const Terminal *terminal = &state.terminals[index]
    cdef uint32_t swap = terminal_swap(terminal)
    if swap != NONE_INDEX and state.orders[swap].job != job.id:
        return WITHOUT_SWAP
    if swap == NONE_INDEX and terminal_rests(state, index, now_ms):
        return WITHOUT_REST
    if swap == NONE_INDEX and terminal_at_ceiling(state, index):
        return WITHOUT_CEILING
    if not state.servers[terminal.server].session or state.servers[terminal.server].paused:
        return WITHOUT_SERVER
    return WITHOUTS


cdef uint32_t _checked_terminal(const State *state, const Job *job, uint32_t item) noexcept nogil:
    """The terminal that an item of the walk is about, or NONE_INDEX."""
    cdef const Order *order
    if item < job.check_orders:
        order = &state.orders[item]
        return order.terminal if order.state != ORDER_UNUSED and order.job == job.id else NONE_INDEX
    item -= job.check_orders
    return state.sims[item].terminal if not job.listed and job_selects(state, job, item) else NONE_INDEX


cdef void _count(State *state, Job *job, uint32_t item, uint64_t now_ms) noexcept nogil:
    """Step 1 for one item."""
    cdef uint32_t index = _checked_terminal(state, job, item)
    cdef const Terminal *terminal
    cdef int why, tier
    if index == NONE_INDEX:
        return
    why = _without(state, job, index, now_ms)
    if why != WITHOUTS:
        job.without[why] += 1
        _sample(state, why, index)
        return
    terminal = &state.terminals[index]
    tier = terminal_tier(terminal)
    state.check.demand[terminal.market][tier] += 1
    state.servers[terminal.server].planned_count += 1
    job.demand_count += 1
    job.headroom_needed_bytes = _saturated(job.headroom_needed_bytes, <uint64_t> tier_lowest_bytes(tier))


cdef void _count_supply(State *state, uint32_t item) noexcept nogil:
    """A SIM of a pool stands for what the most demanding market expects of a lease, and as many do as the pool has that for."""
    cdef const Sim *sim = &state.sims[item]
    cdef const Group *group = &state.groups[sim.group]
    cdef int tier = sim.tier
    cdef Lot *lot
    if tier == TIER_NONE or group.masked:
        return
    if group.pool:
        lot = &state.lots[group.pool]
        tier = min(tier, <int> state.check.share_tier)
        if pool_headroom_bytes(lot) - <int64_t> lot.promised_bytes < tier_lowest_bytes(tier):
            return
        if lot.pool_limit_bytes != NO_LIMIT:
            lot.promised_bytes += <uint64_t> tier_lowest_bytes(tier)
    state.check.supply[group.sim_class][tier] += 1


cdef void _open_class(State *state, Job *job, uint32_t index) noexcept nogil:
    """Takes the reserve off a class's supply, the least SIMs first, and counts the headroom of what is left (I7)."""
    cdef uint32_t *supply = state.check.supply[index]
    cdef uint64_t reserve = state.classes[index].reserve_count
    cdef uint32_t kept
    cdef int tier
    if state.check.counted[index]:
        return
    state.check.counted[index] = 1
    for tier in range(TIERS):
        kept = <uint32_t> min(reserve, <uint64_t> supply[tier])
        supply[tier] -= kept
        reserve -= kept
        job.headroom_found_bytes = _saturated(
            job.headroom_found_bytes, min(<uint64_t> supply[tier] * <uint64_t> (tier_lowest_bytes(tier) >> 20),
                                          <uint64_t> BYTES_MAX >> 20) << 20)


cdef void _meet(State *state, Job *job, uint32_t index) noexcept nogil:
    """Step 2 for one market: what is left of its demand stays in the table."""
    cdef const Market *market = &state.markets[index]
    cdef uint32_t *demand = state.check.demand[index]
    cdef uint32_t *supply
    cdef uint32_t taken
    cdef uint64_t needed = 0
    cdef int tier, better
    cdef uint32_t position
    for tier in range(TIERS):
        needed += demand[tier]
    if not needed:
        return
    for position in range(market.classes_count):
        _open_class(state, job, market.classes[position])
    for tier in range(TIERS - 1, -1, -1):
        for position in range(market.classes_count):
            supply = state.check.supply[market.classes[position]]
            better = tier
            while demand[tier] and better < TIERS:
                taken = min(demand[tier], supply[better])
                supply[better] -= taken
                demand[tier] -= taken
                job.targets_count += taken
                better += 1
        job.without[<int> WITHOUT_TARGET] += demand[tier]


cdef void _name_one(State *state, const Job *job, uint32_t item, uint64_t now_ms) noexcept nogil:
    """Step 3 for one item."""
    cdef uint32_t index = _checked_terminal(state, job, item)
    cdef const Terminal *terminal
    cdef uint32_t *left
    if index == NONE_INDEX or _without(state, job, index, now_ms) != WITHOUTS:
        return
    terminal = &state.terminals[index]
    left = &state.check.demand[terminal.market][terminal_tier(terminal)]
    if left[0]:
        left[0] -= 1
        _sample(state, WITHOUT_TARGET, index)


cdef void check_run(State *state, Sweep *sweep, Job *job, uint64_t now_ms, int *work) noexcept nogil:
    """Items of a job's check, as many as ``work`` allows; a market stands for many."""
    cdef uint64_t items = sweep.argument >> 32
    cdef uint64_t markets = sweep.end - 2 * items
    cdef const Order *order
    if sweep.cursor == 0:
        _check_clear(state, job)
    while sweep.cursor < sweep.end and work[0] > 0:
        if sweep.cursor < job.check_orders:
            order = &state.orders[sweep.cursor + CHECK_AHEAD]
            if sweep.cursor + CHECK_AHEAD < job.check_orders and order.state != ORDER_UNUSED:
                prefetch(&state.terminals[order.terminal])
                terminal_cold_ahead(state, order.terminal)
            _count(state, job, <uint32_t> sweep.cursor, now_ms)
        elif sweep.cursor < items:
            if not job.listed:
                _count(state, job, <uint32_t> sweep.cursor, now_ms)
            _count_supply(state, <uint32_t> (sweep.cursor - job.check_orders))
        elif sweep.cursor < items + markets:
            _meet(state, job, <uint32_t> (sweep.cursor - items))
            work[0] -= MARKET_WORK - 1
        elif not job.without[<int> WITHOUT_TARGET] or state.check.samples_count[<int> WITHOUT_TARGET] == SAMPLES_MAX:
            sweep.cursor = sweep.end - 1
        else:
            _name_one(state, job, <uint32_t> (sweep.cursor - items - markets), now_ms)
        sweep.cursor += 1
        work[0] -= 1


# ---------------------------------------------------------------------------------------- when it would be over

cdef inline bint job_is_quiet(const Job *job, uint64_t at_ms) noexcept nogil:
    return job.quiet_from_ms <= at_ms < job.quiet_until_ms


cdef uint64_t _server_settles_per_ks(const Server *server, uint64_t now_ms) noexcept nogil:
    """How many swaps an access server settles in 1,000 s with the window that it has, or soon will have."""
    cdef uint64_t window = WINDOW_MAX if server.slow_start else server.window
    cdef uint64_t round_trip_us = server.ack_us if server.ack_us else RATE_START_US
    cdef uint64_t by_window = window * 1_000_000_000 // round_trip_us
    cdef uint64_t by_capacity
    if server.service_us:
        by_capacity = <uint64_t> _capacity_left_ppm(server, now_ms) * 1_000 // server.service_us
        by_window = min(by_window, by_capacity)
    return max(by_window, <uint64_t> 1)


cdef uint64_t job_past_quiet(const Job *job, uint64_t from_ms, uint64_t run_ms) noexcept nogil:
    """The instant at which ``run_ms`` of work from ``from_ms`` on are done, with nothing done in quiet hours."""
    cdef uint64_t quiet_from_ms = job.quiet_from_ms
    cdef uint64_t quiet_until_ms = job.quiet_until_ms
    cdef uint64_t at_ms = from_ms
    cdef int days = 0
    if not quiet_until_ms:
        return from_ms + run_ms
    while days < ESTIMATE_DAYS_MAX:
        if at_ms < quiet_from_ms:
            if at_ms + run_ms <= quiet_from_ms:
                break
            run_ms -= quiet_from_ms - at_ms
            at_ms = quiet_until_ms
        elif at_ms < quiet_until_ms:
            at_ms = quiet_until_ms
        quiet_from_ms += DAY_MS
        quiet_until_ms += DAY_MS
        days += 1
    return at_ms + run_ms


cdef void _expect(State *state, Job *job, uint64_t now_ms) noexcept nogil:
    """When a job that was just checked would be over, with today's windows: the slowest access server decides."""
    cdef uint32_t index
    cdef uint64_t run_ms = 0
    cdef const Server *server
    for index in range(state.header.servers_count):
        server = &state.servers[index]
        if server.planned_count:
            run_ms = max(
                run_ms, <uint64_t> server.planned_count * 1_000_000 // _server_settles_per_ks(server, now_ms))
    if job.rate_per_minute:
        run_ms = max(run_ms, job.demand_count * 60_000 // job.rate_per_minute)
    job.run_ms = run_ms + job.announce_ahead_ms
    job.expected_finish_ms = job_past_quiet(job, now_ms, job.run_ms)


cdef bint job_late(Job *job, uint64_t now_ms) noexcept nogil:
    """Whether its deadline can't be kept any more if it goes on now, and it is not to go on then."""
    if not job.begun:
        job.expected_finish_ms = job_past_quiet(job, now_ms, job.run_ms)
    return job.on_infeasible != INFEASIBLE_PROCEED and 0 < job.deadline_ms < (
        now_ms if job.begun else job.expected_finish_ms)


cdef void job_checked(State *state, Job *job, uint64_t now_ms) noexcept nogil:
    """Its check is through: it begins, waits for a second person, or says why not."""
    cdef int why = WHY_NONE
    _expect(state, job, now_ms)
    if job.without[<int> WITHOUT_TARGET]:
        why = WHY_TARGETS
    elif job.deadline_ms and job.expected_finish_ms > job.deadline_ms:
        why = WHY_LATE
    if job.dry_run:
        _job_close(state, job, JOB_CHECKED, why, now_ms)
    elif why == WHY_NONE or job.on_infeasible == INFEASIBLE_PROCEED:
        job_begin(state, job, now_ms)
    else:
        job_infeasible(state, job, why, now_ms)


cdef void job_infeasible(State *state, Job *job, int why, uint64_t now_ms) noexcept nogil:
    """It can't be done as it was asked for, and has not begun."""
    if job.on_infeasible == INFEASIBLE_PAUSE:
        job_enter(state, job, JOB_PAUSED, why)
    else:
        _job_close(state, job, JOB_REFUSED, why, now_ms)


cdef void _job_close(State *state, Job *job, int entered, int why, uint64_t now_ms) noexcept nogil:
    """It ends without having begun. Terminals that were named for it are in no swap any more."""
    job_enter(state, job, entered, why)
    if job.queued_count:
        sweep_add(state, SWEEP_JOB_CANCEL, job.id, state.header.orders_max)
    job_settle(state, job.id, now_ms)


cdef enum:
    SIZE_CHECKED = 1              # as many as its check found
    SIZE_FINAL = 2                # and as many more as its actor might still move alone


cdef uint64_t _moved_alone(const State *state, uint32_t actor, uint64_t now_ms) noexcept nogil:
    """Terminals that somebody moves, or has moved within a day, with no second person: of all jobs that have a slot."""
    cdef const Job *job
    cdef uint32_t slot
    cdef uint64_t count = 0
    for slot in range(state.header.jobs_max):
        job = &state.jobs[slot]
        if (
            job.begun and job.actor == actor and job.approver == NONE_INDEX
            and (not job.finished_ms or job.finished_ms + DAY_MS > now_ms)
        ):
            count += job.queued_count + job.outstanding_count + job.confirmed_count
            if job.selecting and job.size_max > job.terminals_count:
                count += job.size_max - job.terminals_count
    return count


cdef bint job_takes_more(const State *state, Job *job, uint64_t now_ms) noexcept nogil:
    """Whether one more terminal that its filter finds may be moved by it.

    It is sized by its check. What comes under its filter later is beyond what anybody has approved; a job that needed no
    second person goes on up to what its actor may move alone, which is looked up once.
    """
    cdef uint64_t alone, most = <uint64_t> state.header.settings[<int> APPROVAL_ABOVE]
    if not job.bounded or job.terminals_count < job.size_max:
        return True
    if job.bounded == SIZE_CHECKED and job.approver == NONE_INDEX:
        job.bounded = SIZE_FINAL
        alone = _moved_alone(state, job.actor, now_ms)
        if alone < most:
            job.size_max = job.terminals_count + most - alone
            return True
    return False


cdef int job_begin(State *state, Job *job, uint64_t now_ms) noexcept nogil:
    """Lets a job that was checked go, or wait for a second person: what one person moves without one in a day adds up.

    Who has no access server now is moved when that is back, so counts.
    """
    cdef uint64_t count = job.terminals_count if job.listed else job.demand_count + job.without[<int> WITHOUT_SERVER]
    cdef bint room
    if job.approver == NONE_INDEX and count + _moved_alone(state, job.actor, now_ms) > (
        <uint64_t> state.header.settings[<int> APPROVAL_ABOVE]
    ):
        job_enter(state, job, JOB_AWAITING_APPROVAL, WHY_NONE)
        return OK
    if job.listed:
        room = sweep_resume(state, job.id)
    else:
        room = sweep_add(state, SWEEP_JOB_SELECT, job.id, state.header.sims_count)
    if not room:
        return SWEEPS_FULL
    job_take_lane(state, job)
    job.begun = 1
    if not job.listed:
        job.bounded = SIZE_CHECKED
        job.size_max = count
    job.canary = 0 < job.canary_count < count
    job.selecting = 0 if job.listed else 2
    job_enter(state, job, JOB_RUNNING if job.listed else JOB_SELECTING, WHY_NONE)
    jobs_due(state, now_ms)
    job_settle(state, job.id, now_ms)
    return OK


# ------------------------------------------------------------------------------------------- while it is on

cdef inline void jobs_due(State *state, uint64_t at_ms) noexcept nogil:
    """Jobs want to be looked at then, or earlier."""
    if not state.header.jobs_due_ms or at_ms < state.header.jobs_due_ms:
        state.header.jobs_due_ms = at_ms


cdef void _estimate(Job *job, uint64_t now_ms) noexcept nogil:
    """When it will be over, from how fast its swaps are settled of late."""
    cdef uint64_t settled = job.confirmed_count + job.given_up_count
    cdef uint64_t left = job.queued_count + job.outstanding_count
    cdef uint64_t per_ks
    if job.estimated_ms and now_ms > job.estimated_ms:
        per_ks = (settled - job.estimated_settled) * 1_000_000 // (now_ms - job.estimated_ms)
        job.settled_per_ks = (3 * job.settled_per_ks + per_ks) // 4 if job.settled_per_ks else per_ks
        if job.settled_per_ks and not job.selecting:
            job.expected_finish_ms = job_past_quiet(job, now_ms, left * 1_000_000 // job.settled_per_ks)
    job.estimated_ms = now_ms
    job.estimated_settled = settled


cdef void jobs_look(State *state, uint64_t now_ms) noexcept nogil:
    """Quiet hours begin and end, and estimates are renewed. Costs a comparison while nothing of that is due."""
    cdef uint32_t slot
    cdef Job *job
    if not state.header.jobs_due_ms or state.header.jobs_due_ms > now_ms:
        return
    state.header.jobs_due_ms = 0
    for slot in range(state.header.jobs_max):
        job = &state.jobs[slot]
        if job.state == JOB_UNUSED or not job.begun or job_ended(job):
            continue
        while job.quiet_until_ms and job.quiet_until_ms <= now_ms:
            job.quiet_from_ms += DAY_MS
            job.quiet_until_ms += DAY_MS
        if job_is_quiet(job, now_ms):
            job_hold(state, job, WHY_QUIET)
        elif job.state == JOB_PAUSED and job.why == WHY_QUIET:
            if sweep_resume(state, job.id):
                job_enter(state, job, JOB_SELECTING if job.selecting else JOB_RUNNING, WHY_NONE)
            else:
                jobs_due(state, now_ms + 1)
        if job.quiet_until_ms:
            jobs_due(state, job.quiet_until_ms if job_is_quiet(job, now_ms) else job.quiet_from_ms)
        if job.state == JOB_RUNNING or job.state == JOB_SELECTING:
            if now_ms >= job.estimated_ms + ESTIMATE_MS:
                _estimate(job, now_ms)
            jobs_due(state, job.estimated_ms + ESTIMATE_MS)
        else:
            job.estimated_ms = 0

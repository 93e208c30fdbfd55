# Commands on terminals: the hot ones.
#
# Each run is one loop. Cache misses are what they cost, so a run fetches ahead, a block of items at a time (leases.pxi). An allocation never waits (I7): it is granted, or refused at once with the reason and when to try again.


cdef enum:
    CLASSES_NEAR = 8              # so many stay in the cache
    HELD_MAX = 4                  # SIMs that may be held because of one terminal before it is refused another
    QUARANTINES_MAX = 64          # SIMs that are quarantined on the word of one access server in a day
    STRANGERS_MAX = 64            # subscribers nobody knew whom one access server names in a day for leases that others have, at least
    ASIDE_TOLD_MAX = 64           # reports of one run that are told of, each by itself, as set aside
    BURST_BYTES = 1_000_000       # what a shaper may let through at once shows no speed


cdef inline void _refuse(State *state, Grant *grant, uint32_t item, int status) noexcept nogil:
    grant.epoch[item] = 0
    grant.expires_ms[item] = 0
    grant.iccid[item] = 0
    grant.sim[item] = NONE_INDEX
    grant.retry_after_ms[item] = 0
    grant.slow_kbps[item] = 0
    grant.bank[item] = 0xFFFF
    grant.slot[item] = 0xFFFF
    grant.status[item] = <uint8_t> status


cdef inline void _refuse_for_now(State *state, Grant *grant, uint32_t item, int status) noexcept nogil:
    """A refusal that time may cure: with full jitter, so that those refused together don't come back together."""
    cdef uint64_t base = <uint64_t> state.header.settings[<int> RETRY_AFTER_MS]
    _refuse(state, grant, item, status)
    grant.retry_after_ms[item] = <uint32_t> (base + draw(state) % (base + 1))


cdef inline void _grant(State *state, Grant *grant, uint32_t item, uint32_t terminal_index, int status) noexcept nogil:
    cdef Terminal *terminal = &state.terminals[terminal_index]
    cdef Sim *sim = &state.sims[terminal.sim]
    grant.epoch[item] = terminal.epoch
    grant.expires_ms[item] = terminal.expires_ms
    grant.iccid[item] = sim.iccid
    grant.sim[item] = terminal.sim
    grant.retry_after_ms[item] = 0
    grant.slow_kbps[item] = 0
    grant.bank[item] = state.groups[sim.group].bank
    grant.slot[item] = sim.slot
    grant.status[item] = <uint8_t> status


cdef inline bint _usable(const State *state, const Sim *sim) noexcept nogil:
    """Whether a terminal that asks again keeps this SIM."""
    return sim.health <= LOW and state.groups[sim.group].pool_health <= LOW


cdef inline bint _surely_held(const State *state, uint32_t index) noexcept nogil:
    """Whether the terminal's access server has said since a restore that it holds its SIM, or all that it holds."""
    cdef const Server *server = &state.servers[state.terminals[index].server]
    return server.unheard == HEARD or (
        server.session != 0 and state.terminals_cold[index].session == server.session)


cdef inline bint _must_stop_elsewhere(State *state, const Terminal *terminal, uint32_t server) noexcept nogil:
    """Whether a re-allocation needs an order: another access server holds the SIM, and no outstanding switch does."""
    return (
        terminal.sim != NONE_INDEX and terminal.server != server
        and not (terminal_swap(terminal) != NONE_INDEX and order_outstanding(state, terminal.order))
    )


# What is wanted of a SIM. Neighbours in a run mostly want the same, so it is worked out where it changes.
ctypedef struct Wanted:
    uint64_t requested
    uint32_t entity               # of the market
    int market
    int tier
    int64_t expected
    int64_t learned               # of the market: an item may teach it another figure


cdef inline bint _want(State *state, Wanted *wanted, uint32_t entity, uint64_t requested) noexcept nogil:
    """False: there is no such market."""
    if (
        wanted.entity == entity and wanted.requested == requested
        and wanted.learned == <int64_t> state.markets[wanted.market].learned_bytes
    ):
        return True
    if entity >= state.header.entities_count or state.entities[entity].kind != MARKET:
        return False
    wanted.entity = entity
    wanted.requested = requested
    wanted.market = state.entities[entity].dense
    wanted.learned = <int64_t> state.markets[wanted.market].learned_bytes
    wanted.expected = expected_bytes(state, wanted.market, requested)
    wanted.tier = tier_satisfying(wanted.expected)
    return True


cdef bint _may_name(State *state, uint32_t index, uint64_t subscriber) noexcept nogil:
    """Whether a lease that one subscriber has goes on as that of another; one whom nobody knows is counted.

    Else one lease would fill the table of subscribers, name by name, after which no limit holds for who is new.
    """
    cdef Server *server = &state.servers[index]
    if subscriber_find(state, subscriber).key:
        return True
    if server.strangers_day != state.header.day:
        server.strangers_day = <uint32_t> state.header.day
        server.strangers_count = 0
    if server.strangers_count >= max(<uint32_t> STRANGERS_MAX, state.header.terminals_max // 1024):
        return False
    server.strangers_count += 1
    return True


cdef inline void _allocate(
    State *state, Finder *finder, Grant *grant, uint32_t item, uint32_t index, uint64_t key, uint64_t subscriber, const Wanted *wanted,
    uint32_t server, uint32_t group, bint admits_all, int lane, uint64_t now_ms
) noexcept nogil:
    cdef Terminal *terminal = &state.terminals[index] if index != NONE_INDEX else NULL
    cdef bint has_lease = terminal != NULL and terminal.sim != NONE_INDEX
    cdef bint goes_on = (
        has_lease and terminal.server == server and terminal.market == wanted.market
        and _usable(state, &state.sims[terminal.sim])
    )
    cdef Limited limited
    cdef uint64_t wait_ms
    cdef int status
    cdef uint32_t sim
    # Who has the lease has it still where nobody says whose the terminal is, or asking so would evade a limit.
    if has_lease and subscriber != terminal.subscriber and (
        not subscriber or (goes_on and terminal.subscriber and not _may_name(state, server, subscriber))
    ):
        subscriber = terminal.subscriber
    limited = limit_ask(state, subscriber, group, key, server, now_ms)
    if limited.action == ACTION_REFUSE:
        _refuse_for_now(state, grant, item, LIMIT_REACHED)
        grant.retry_after_ms[item] += <uint32_t> (limit_ends_ms(state, &limited) - now_ms)
        return
    if state.header.unheard_count and not (goes_on and _surely_held(state, index)):
        # Also the SIM of its lease may be another's by now: its own may have been changed after the backup.
        _refuse_for_now(state, grant, item, HELLOS_AWAITED)
        return
    if has_lease:
        if goes_on:
            lease_extend(state, index, now_ms)
            terminal.subscriber = subscriber
            limit_join(state, subscriber, group, key, server, now_ms)
            _grant(state, grant, item, index, SAME)
            grant.slow_kbps[item] = limited.slow_kbps
            return
        # A terminal that flaps between servers nobody can reach would otherwise hold one SIM more with each move.
        if _must_stop_elsewhere(state, terminal, server) and (
            not order_available(state) or state.terminals_cold[index].held_count >= HELD_MAX
        ):
            _refuse_for_now(state, grant, item, ORDERS_FULL)
            return
    elif terminal == NULL and not terminal_room(state, server):
        _refuse(state, grant, item, TERMINALS_FULL)
        return
    if not admits_all and not has_lease:
        wait_ms = admission_wait_ms(state, server, index, lane, now_ms)
        if wait_ms:
            _refuse(state, grant, item, ADMISSION_WAIT)
            # It asks again by and by even so: its access server may be fast again long before.
            grant.retry_after_ms[item] = <uint32_t> (
                wait_ms if wait_ms <= ADMISSION_ASK_MS else ADMISSION_ASK_MS + draw(state) % ADMISSION_ASK_MS)
            # A name that nobody has heard of gets a place of its own only where there is room to spare.
            if index == NONE_INDEX and terminal_spare(state):
                index = terminal_add(state, key, server)
            if index != NONE_INDEX:
                admission_keep(state, index, server, now_ms, wait_ms)
            return
    sim = market_select(state, wanted.market, wanted.expected, wanted.tier, False, True)
    if sim == NONE_INDEX:
        _refuse_for_now(state, grant, item, NO_HEALTHY_SIM)
        return
    finder_hint(finder, state.sims[sim].hint)
    status = OK
    if terminal == NULL:
        index = terminal_add(state, key, server)
        terminal = &state.terminals[index]
    elif has_lease:
        lease_replace(state, index, server, now_ms)
        status = MOVED
    lease_begin(state, index, sim, server, wanted.market, wanted.tier, epoch_new(state), now_ms)
    terminal.subscriber = subscriber
    limit_join(state, subscriber, group, key, server, now_ms)
    if attaches_count(state, now_ms):
        attach_begun(state, index, now_ms)
    _grant(state, grant, item, index, status)
    grant.slow_kbps[item] = limited.slow_kbps


# Few classes stay in the cache. Where there are many, their records and those of their groups are as cold as SIMs, and a SIM's
# hint is of a list that is not soon taken from again. So a run fetches these ahead too, in blocks as its terminals (leases.pxi):
#
#     class -> its words for the tier -> the group whose turn it is -> the SIM that stands first
#
# All are guesses: what goes before in the run may change any of them.

cdef inline Class *_preferred(State *state, uint16_t market) noexcept nogil:
    """The first class of a market, by its entity; NULL: there is none."""
    cdef const Market *record
    if market >= state.header.entities_count or state.entities[market].kind != MARKET:
        return NULL
    record = &state.markets[state.entities[market].dense]
    return &state.classes[record.classes[0]] if record.classes_count else NULL


cdef inline int _tier_wanted(
    State *state, Class *sim_class, Shelf *shelf, uint16_t market, uint64_t requested
) noexcept nogil:
    """Of which tier the SIM will be, and of which shelf; TIERS: none that can be told ahead."""
    cdef int wanted = tier_satisfying(expected_bytes(state, state.entities[market].dense, requested))
    cdef int rank
    if sim_class.ranks_count > 1:
        rank = rank_from(sim_class, wanted)
        if rank < RANKS:
            shelf[0] = rank_shelf(sim_class, rank)
            return rank_roomiest(sim_class, rank)
    shelf[0] = class_shelf(sim_class)
    return shelf_tier_from(shelf, wanted, True)


cdef void _fetch_selection(
    State *state, const uint16_t *markets, const uint64_t *requested, uint32_t first, uint32_t behind, int stage
) noexcept nogil:
    """For these items of a run, one stage further than for those behind them."""
    cdef uint32_t item
    cdef Class *sim_class
    cdef Group *group
    cdef Shelf shelf
    cdef int tier, local
    for item in range(first, behind):
        sim_class = _preferred(state, markets[item])
        if sim_class == NULL:
            continue
        if stage == 0:
            prefetch(sim_class)
            continue
        tier = _tier_wanted(state, sim_class, &shelf, markets[item], requested[item])
        if tier == TIERS:
            continue
        if stage == 1:
            local = <int> ((sim_class.last_group + 1) % GROUPS_PER_CLASS)
            prefetch(&sim_class.summary[tier])
            prefetch(&sim_class.groups[tier][local >> 6])
            prefetch(&sim_class.members[local])
            continue
        group = &state.groups[sim_class.members[next_local(sim_class, &shelf, tier)]]
        if stage == 2:
            prefetch(group)
            prefetch(&group.head[tier])
            prefetch(&group.tail[tier])
            prefetch(&group.sim_class)
        else:
            prefetch(&state.sims[group.head[tier]])


cdef void selection_ahead(
    State *state, const uint16_t *markets, const uint64_t *requested, uint32_t count, uint32_t item
) noexcept nogil:
    """For the first item of each block of a run."""
    cdef int stage
    cdef uint32_t start
    for stage in range(4):
        # Before the first block nothing was fetched for those that would have had their turn.
        start = item + (3 - stage) * AHEAD
        _fetch_selection(state, markets, requested, start if item else 0, min(count, start + AHEAD), stage)


cdef void apply_allocate(State *state, const Run *run) noexcept nogil:
    cdef uint32_t count = run.count
    cdef const uint64_t *keys = <const uint64_t *> run.columns
    cdef const uint64_t *subscribers = keys + count
    cdef const uint64_t *requested = subscribers + count
    cdef const uint16_t *markets = <const uint16_t *> (requested + count)
    cdef Grant grant = grant_columns(run)
    cdef Finder finder
    cdef Wanted wanted
    cdef uint32_t item, index
    # The subscriber group that all of them belong to; 0: none.
    cdef uint32_t group = <uint32_t> min(run.argument, <uint64_t> NONE_INDEX)
    cdef bint admits_all, known = group == 0 or _is(state, group, SUBSCRIBER_GROUP)
    cdef bint scattered = state.header.classes_count > CLASSES_NEAR
    cdef bint limits = group != 0 or state.header.limits_count != 0
    cdef int lane = ADMISSION_LANES // 2
    if group and known:
        lane = <int> state.entities[group].numbers[<int> GROUP_PRIORITY] - 1
    if run.server >= state.header.servers_count or not known:
        for item in range(count):
            _refuse(
                state, &grant, item,
                UNKNOWN_ACCESS_SERVER if run.server >= state.header.servers_count else INVALID_ARGUMENT)
        return
    server_count_allocations(state, run.server, count, run.now_ms)
    admits_all = admission_of_all(state, run.server)
    wanted = Wanted(0, NONE_INDEX, 0, 0, 0, 0)
    finder_begin(&finder, state, keys, count, TOUCH_RECORD)
    for item in range(count):
        if scattered and item & (AHEAD - 1) == 0:
            selection_ahead(state, markets, requested, count, item)
        if limits and item + AHEAD_SIM < count:
            prefetch(subscriber_place(state, subscribers[item + AHEAD_SIM]))
        index = finder_next(&finder, item)
        if not _want(state, &wanted, markets[item], requested[item]):
            _refuse(state, &grant, item, UNKNOWN_MARKET)
            continue
        _allocate(
            state, &finder, &grant, item, index, keys[item], subscribers[item], &wanted, run.server, group, admits_all, lane,
            run.now_ms)


cdef inline int _lease_status(
    State *state, uint32_t index, uint64_t epoch, uint32_t server, int how, uint64_t now_ms
) noexcept nogil:
    """OK when ``epoch`` is the lease's, also because it is that of an outstanding switch, which a sign of it confirms, ``how``.

    ``server`` is the access server that speaks: of another one's lease it knows nothing, whatever epoch it guesses.
    """
    cdef Terminal *terminal = &state.terminals[index]
    cdef uint32_t order = terminal_swap(terminal)
    if terminal.sim == NONE_INDEX:
        return NO_LEASE
    if terminal.server != server and server != NONE_SHORT:
        return STALE_EPOCH
    if terminal.epoch == epoch:
        return OK
    if order != NONE_INDEX and order_outstanding(state, order) and state.orders[order].epoch == epoch:
        server_acknowledged(state, order, ACK_DONE, now_ms)
        order_confirm(state, order, how, now_ms)
        return OK
    return STALE_EPOCH


cdef void apply_renew(State *state, const Run *run) noexcept nogil:
    cdef uint32_t count = run.count
    cdef const uint64_t *keys = <const uint64_t *> run.columns
    cdef const uint64_t *epochs = keys + count
    cdef uint64_t *expires_ms = <uint64_t *> run.outcomes
    cdef uint32_t *slow_kbps = <uint32_t *> (expires_ms + count)
    cdef uint8_t *status = <uint8_t *> (slow_kbps + count)
    cdef bint limits = state.header.limits_count != 0
    cdef uint32_t item, index
    cdef Finder finder
    cdef Limited limited
    finder_begin(&finder, state, keys, count, TOUCH_SUBSCRIBER if limits else TOUCH_RECORD)
    for item in range(count):
        expires_ms[item] = 0
        slow_kbps[item] = 0
        index = finder_next(&finder, item)
        if index == NONE_INDEX:
            status[item] = UNKNOWN_TERMINAL
            continue
        status[item] = <uint8_t> _lease_status(state, index, epochs[item], run.server, BY_TRAFFIC, run.now_ms)
        if limits and status[item] == OK:
            limited = limit_of(state, state.terminals[index].subscriber, keys[item], run.server, run.now_ms)
            slow_kbps[item] = limited.slow_kbps
            if limited.action == ACTION_REFUSE:
                status[item] = LIMIT_REACHED
        if status[item] == OK:
            lease_extend(state, index, run.now_ms)
            expires_ms[item] = state.terminals[index].expires_ms


cdef void apply_release(State *state, const Run *run) noexcept nogil:
    cdef uint32_t count = run.count
    cdef const uint64_t *keys = <const uint64_t *> run.columns
    cdef const uint64_t *epochs = keys + count
    cdef uint8_t *status = run.outcomes
    cdef uint32_t item, index
    cdef Finder finder
    finder_begin(&finder, state, keys, count, TOUCH_SIM)
    for item in range(count):
        index = finder_next(&finder, item)
        if index == NONE_INDEX:
            status[item] = UNKNOWN_TERMINAL
            continue
        status[item] = <uint8_t> _lease_status(state, index, epochs[item], run.server, BY_TRAFFIC, run.now_ms)
        if status[item] == OK:
            lease_release(state, index, run.now_ms)


cdef void _set_aside(
    State *state, const Run *run, uint32_t index, uint64_t key, int status, uint64_t told_bytes, uint64_t iccid, uint32_t *told
) noexcept nogil:
    """A report that is not counted: never silently. One of no bytes says nothing.

    ``told``: how many of the run. Past some they only add up: what one access server makes up is not to push out of the ring
    what others wait for.
    """
    cdef EventRow *row
    if told_bytes == 0:
        return
    if status == IMPOSSIBLE_USAGE:
        state.header.impossible_count += 1
    else:
        state.header.set_aside_count += 1
        state.header.set_aside_bytes += min(told_bytes, ~state.header.set_aside_bytes)
    if told[0] < ASIDE_TOLD_MAX:
        told[0] += 1
        row = event(state, EVENT_SET_ASIDE, index, run.server, NONE_INDEX, status, told_bytes, iccid)
        row.terminal = key


cdef uint64_t _shown_kbps(
    uint64_t delta, uint64_t passed_s, uint32_t span_ms, uint32_t goodput_kbps, uint16_t demand_permille
) noexcept nogil:
    """How fast a report shows the SIM to be, kbit/s: by what it newly counts, or by the goodput of the time in which more was wanted
    than went, as far as so much was counted. 0: no more was carried than a shaper may let through at once."""
    # Of reports that were held back and come at once each is of its own span.
    cdef uint64_t kbps = delta // 125 // (max(passed_s, <uint64_t> span_ms // 1000) + 1)
    cdef uint64_t carried = <uint64_t> goodput_kbps * (<uint64_t> span_ms * min(demand_permille, 1000) // 1000) // 8
    if delta < BURST_BYTES:
        return 0
    return max(kbps, <uint64_t> goodput_kbps) if BURST_BYTES <= carried <= delta + delta // 8 else kbps


cdef inline void _heard(State *state, const EndedLease *lease, uint64_t now_s) noexcept nogil:
    """A report was taken of a lease that is over."""
    if held_after(state, lease):
        state.sims[lease.sim].previous = <uint32_t> now_s


cdef void apply_report_usage(State *state, const Run *run) noexcept nogil:
    """Counts each byte once (I8): reports are cumulative per lease epoch, so what is not above the last says nothing.

    The final report of a lease counts also when that lease is over, at the SIM that it was of, whoever has that now, and at who
    used it then. What belongs to a lease that nobody remembers, or to nobody, is set aside. One of a subscriber whose limit refuses
    it a lease does not prolong the one it has.
    """
    cdef uint32_t count = run.count
    cdef const uint64_t *keys = <const uint64_t *> run.columns
    cdef const uint64_t *epochs = keys + count
    cdef const uint64_t *up_bytes = epochs + count
    cdef const uint64_t *down_bytes = up_bytes + count
    cdef const uint32_t *spans_ms = <const uint32_t *> (down_bytes + count)
    cdef const uint32_t *goodputs_kbps = spans_ms + count
    cdef const uint16_t *demands_permille = <const uint16_t *> (goodputs_kbps + count)
    cdef uint64_t *counted_bytes = <uint64_t *> run.outcomes
    cdef uint64_t *subscribers = counted_bytes + count
    cdef uint32_t *sims = <uint32_t *> (subscribers + count)
    cdef uint32_t *slow_kbps = sims + count
    cdef uint8_t *statuses = <uint8_t *> (slow_kbps + count)
    cdef uint64_t line = <uint64_t> state.header.settings[<int> LINE_BYTES_PER_S]
    cdef uint64_t now_s = run.now_ms // 1000
    cdef uint64_t total, delta, passed_s, subscriber
    cdef uint64_t *reported_bytes
    cdef uint32_t *reported_s
    cdef uint32_t item, index, sim_index, lot, pool, told = 0
    cdef bint behind = timers_behind(state, run.now_ms) or run.now_ms < state.header.thaw_until_ms
    cdef int status, refusal
    cdef Finder finder
    cdef Terminal *terminal
    cdef EndedLease *before
    cdef EndedLease lease
    cdef Sim *sim
    cdef Limited limited
    finder_begin(&finder, state, keys, count, TOUCH_USAGE)
    for item in range(count):
        counted_bytes[item] = 0
        subscribers[item] = 0
        sims[item] = NONE_INDEX
        slow_kbps[item] = 0
        index = finder_next(&finder, item)
        total = up_bytes[item] + down_bytes[item]
        if total < up_bytes[item]:
            total = ~<uint64_t> 0
        if index == NONE_INDEX:
            statuses[item] = UNKNOWN_TERMINAL
            _set_aside(state, run, index, keys[item], UNKNOWN_TERMINAL, total, 0, &told)
            continue
        terminal = &state.terminals[index]
        status = _lease_status(state, index, epochs[item], run.server, BY_TRAFFIC, run.now_ms)
        sim_index = terminal.sim
        subscriber = terminal.subscriber
        reported_bytes = &terminal.reported_bytes
        reported_s = &terminal.reported_s
        refusal = LATE
        if status != OK:
            refusal = status
            lease = lease_over(state, index, epochs[item])
            if lease.epoch and (run.server == lease.server or run.server == NONE_SHORT):
                status = ENDED
                sim_index = lease.sim
                subscriber = lease.subscriber
                if terminal_last_sim(terminal) == NONE_INDEX or lease.epoch != terminal.epoch:
                    before = lease_ended(state, index, lease.epoch)
                    reported_bytes = &before.reported_bytes
                    reported_s = &before.reported_s
        if status != OK and status != ENDED:
            statuses[item] = <uint8_t> status
            _set_aside(state, run, index, keys[item], status, total, 0, &told)
            continue
        if total <= reported_bytes[0]:
            statuses[item] = <uint8_t> refusal
            if total < reported_bytes[0]:
                pass
            elif status == ENDED:
                _heard(state, &lease, now_s)
                lease_reported_again(state, &lease, run.now_ms)
            else:
                state.sims[sim_index].previous = <uint32_t> now_s  # nothing more was used: its access server is not silent
            slow_kbps[item] = limit_of(state, subscriber, keys[item], run.server, run.now_ms).slow_kbps
            continue
        delta = total - reported_bytes[0]
        passed_s = now_s - reported_s[0]
        sim = &state.sims[sim_index]
        pool = state.groups[sim.group].pool
        # The seconds are rounded, hence one more at each end. The division can't overflow as the product could. While the clock is frozen
        # nobody knows how many have passed.
        if (
            total == ~<uint64_t> 0 or (delta // line >= passed_s + 2 and not state.header.frozen)
            or sim.counted_bytes + delta >= BYTES_MAX
            or (pool and state.lots[pool].pool_counted_bytes + delta >= BYTES_MAX)
        ):
            statuses[item] = IMPOSSIBLE_USAGE
            _set_aside(state, run, index, keys[item], IMPOSSIBLE_USAGE, total, sim.iccid, &told)
            continue
        lot = state.groups[sim.group].lot
        if status == ENDED:
            # Before its windows start anew: what was allowed for it was of those that end.
            _heard(state, &lease, now_s)
            lease_reported(state, &lease, delta, run.now_ms)
        if behind:
            lot_catch_up(state, lot, run.now_ms)
        if state.header.frozen or state.lots[lot].resetting:
            sim_windows_begin(state, sim_index, run.now_ms)
        reported_bytes[0] = total
        # What the line did not need of the time stays: reports that were held back come one after the other.
        reported_s[0] = <uint32_t> min(now_s, reported_s[0] + delta // line)
        terminal.counted_bytes += delta
        sim.counted_bytes += delta
        state.header.counted_bytes += delta
        limited = limit_count(state, subscriber, delta, keys[item], run.server, run.now_ms)
        counted_bytes[item] = delta
        subscribers[item] = subscriber
        sims[item] = sim_index
        slow_kbps[item] = limited.slow_kbps
        statuses[item] = <uint8_t> status
        if status == OK:
            if limited.action != ACTION_REFUSE:
                lease_extend(state, index, run.now_ms)
            if terminal.order == AWAITS_TRAFFIC:
                swap_traffic(state, index, run.now_ms)
            if sim_untrusted(sim) and sim.health < THROTTLED:
                sim_probed(state, sim_index, index, _shown_kbps(
                    delta, now_s - sim.next, spans_ms[item], goodputs_kbps[item], demands_permille[item]))
            sim.next = <uint32_t> now_s
            sim.previous = <uint32_t> now_s
        if pool:
            pool_count(state, sim_index, delta, status == OK or (sim.held and sim.terminal == index), run.now_ms)
        if sim.health <= EXHAUSTED:
            sim_judge_headroom(state, sim_index, run.now_ms)


cdef bint _server_quarantines(State *state, uint32_t index) noexcept nogil:
    """Whether a SIM is quarantined on the access server's word; it is counted."""
    cdef Server *server = &state.servers[index]
    if server.quarantines_day != state.header.day:
        server.quarantines_day = <uint32_t> state.header.day
        server.quarantines_count = 0
    if server.quarantines_count == QUARANTINES_MAX:
        return False
    server.quarantines_count += 1
    return True


cdef void apply_report_attach_failure(State *state, const Run *run) noexcept nogil:
    """The SIM would not attach: it is quarantined, and its terminal gets another one at once if there is one.

    On the word of one access server only so many a day are: those beyond them cool. What the run itself gives, nobody can have
    tried yet.
    """
    cdef uint32_t count = run.count
    cdef const uint64_t *keys = <const uint64_t *> run.columns
    cdef const uint64_t *epochs = keys + count
    cdef Grant grant = grant_columns(run)
    cdef uint32_t item, index, sim, old
    cdef uint64_t begun = (<uint64_t> state.header.incarnation << 48) | state.header.epoch_next
    cdef uint64_t epoch
    cdef Terminal *terminal
    cdef int tier, status
    for item in range(count):
        index = terminal_find(state, keys[item])
        if index == NONE_INDEX:
            _refuse(state, &grant, item, UNKNOWN_TERMINAL)
            continue
        terminal = &state.terminals[index]
        epoch = terminal.epoch
        status = STALE_EPOCH
        if epochs[item] < begun:
            status = _lease_status(state, index, epochs[item], run.server, BY_ATTACH_FAILURE, run.now_ms)
        if status != OK:
            _refuse(state, &grant, item, status)
            continue
        old = terminal.sim
        if terminal.epoch == epoch:
            attach_failed(state, index, run.now_ms)
        if state.sims[old].health < QUARANTINED and _server_quarantines(state, terminal.server):
            health_event(state, old, QUARANTINED, 0)
            sim_set_health(state, old, QUARANTINED, run.now_ms)
        lease_replace(state, index, terminal.server, run.now_ms)
        tier = terminal_tier(terminal)
        sim = market_select(state, terminal.market, tier_lowest_bytes(tier), tier, False, True)
        if sim == NONE_INDEX:
            _refuse_for_now(state, &grant, item, HELLOS_AWAITED if state.header.unheard_count else NO_HEALTHY_SIM)
            continue
        lease_begin(state, index, sim, terminal.server, terminal.market, tier, epoch_new(state), run.now_ms)
        if attaches_count(state, run.now_ms):
            attach_begun(state, index, run.now_ms)
        _grant(state, &grant, item, index, MOVED)
        grant.slow_kbps[item] = limit_of(
            state, terminal.subscriber, keys[item], terminal.server, run.now_ms).slow_kbps


cdef int _adopt(
    State *state, uint64_t key, uint64_t subscriber, uint64_t iccid, uint64_t requested, uint32_t market_entity,
    uint32_t server, uint64_t now_ms, uint32_t *terminal_out
) noexcept nogil:
    """Terminal T already holds SIM S (a running operation moves over): whatever the SIM's health, it keeps it."""
    cdef uint32_t sim_index = sim_find(state, iccid)
    cdef uint32_t index
    cdef int market
    cdef Sim *sim
    if server >= state.header.servers_count:
        return UNKNOWN_ACCESS_SERVER
    if market_entity >= state.header.entities_count or state.entities[market_entity].kind != MARKET:
        return UNKNOWN_MARKET
    if sim_index == NONE_INDEX:
        return UNKNOWN_SIM
    market = state.entities[market_entity].dense
    sim = &state.sims[sim_index]
    index = terminal_find(state, key)
    if index != NONE_INDEX and state.terminals[index].sim != NONE_INDEX:
        terminal_out[0] = index
        return SAME if state.terminals[index].sim == sim_index else TERMINAL_IN_USE
    if sim.occupancy == ASSIGNED or sim.occupancy == RESERVED or sim.held or state.sims_cold[sim_index].revoke:
        return SIM_IN_USE
    if index == NONE_INDEX:
        if not terminal_room(state, server):
            return TERMINALS_FULL
        index = terminal_add(state, key, server)
    last_report_missing(state, sim_index, now_ms)
    lease_begin(
        state, index, sim_index, server, market, tier_satisfying(expected_bytes(state, market, requested)),
        epoch_new(state), now_ms)
    state.terminals[index].subscriber = subscriber
    terminal_out[0] = index
    return OK


cdef void apply_adopt(State *state, const Run *run) noexcept nogil:
    cdef uint32_t count = run.count
    cdef const uint64_t *keys = <const uint64_t *> run.columns
    cdef const uint64_t *subscribers = keys + count
    cdef const uint64_t *iccids = subscribers + count
    cdef const uint64_t *requested = iccids + count
    cdef const uint16_t *markets = <const uint16_t *> (requested + count)
    cdef Grant grant = grant_columns(run)
    cdef uint32_t item, index = NONE_INDEX
    cdef int status
    for item in range(count):
        status = _adopt(
            state, keys[item], subscribers[item], iccids[item], requested[item], markets[item], run.server, run.now_ms,
            &index)
        if status == OK or status == SAME:
            _grant(state, &grant, item, index, status)
        else:
            _refuse(state, &grant, item, status)

# A full walk over the state that verifies I1 to I5 and I8, for `simswitch check`, the follower and the model tests.
#
# It trusts nothing: it reads every record, and compares what is a cache (the selection index, the counters) with what a
# rebuild would give. It takes 4 bytes a terminal and no more. O(all), with the GIL: not for the process that serves.


cdef enum:
    FAULTS_MAX = 100
    PAUSE_ITEMS = 4096            # about a millisecond's work


cdef list check_state(State *state, object pause):
    """Each line names the invariant that is broken and the records; at most FAULTS_MAX of them."""
    cdef list faults = []
    _check_sims(state, faults, pause)
    _check_index(state, faults, pause)
    _check_terminals(state, faults, pause)
    _check_breakers(state, faults)
    _check_lots(state, faults)
    _check_rings(state, faults, pause)
    _check_pools(state, faults, pause)
    _check_markets(state, faults)
    _check_orders(state, faults)
    _check_limits(state, faults)
    _check_events(state, faults)
    _check_ended(state, faults)
    _check_totals(state, faults, pause)
    return faults[:FAULTS_MAX]


cdef int _check_ended(State *state, list faults) except -1:
    """What an ended lease may be counted at is there, and it stands where it is looked for: from the youngest on each is the next one of
    its chain."""
    cdef uint16_t[::1] chains = np.empty(ENDED_MAX, np.uint16)
    cdef uint64_t age, place
    cdef const EndedLease *lease
    memcpy(&chains[0], state.ended_places, ENDED_MAX * sizeof(uint16_t))
    for age in range(min(state.header.ended_count, <uint64_t> ENDED_MAX)):
        place = (state.header.ended_count - 1 - age) & (ENDED_MAX - 1)
        lease = &state.ended_leases[place]
        if (
            chains[lease.epoch & (ENDED_MAX - 1)] != place
            or lease.terminal >= state.header.terminals_count or lease.sim >= state.header.sims_count
        ):
            faults.append(f"ended leases: that of epoch {lease.epoch} at place {place}, of terminal {lease.terminal} and SIM {lease.sim}")
        chains[lease.epoch & (ENDED_MAX - 1)] = lease.before
    return 0


cdef int _check_events(State *state, list faults) except -1:
    cdef uint64_t place, number
    for place in range(min(state.header.events_count, <uint64_t> EVENTS_KEPT)):
        number = state.events[place].event
        if number and (
            (number - 1) & (EVENTS_KEPT - 1) != place or number > state.header.events_count
            or number + EVENTS_KEPT <= state.header.events_count
        ):
            faults.append(f"events: number {number} of {state.header.events_count} is remembered at place {place}")
    return 0


cdef int _check_markets(State *state, list faults) except -1:
    """The percentile of what leases used stands where the weights have it."""
    cdef uint32_t index
    cdef Market *market
    cdef uint64_t weight, above
    cdef int tier
    for index in range(state.header.markets_count):
        market = &state.markets[index]
        weight = above = 0
        for tier in range(TIERS):
            weight += market.uses[tier]
            above += market.uses[tier] if tier > market.learned_tier else 0
        if weight != market.uses_weight or above != market.above_weight:
            faults.append(
                f"market {index}: leases weigh {weight}, {above} above tier {market.learned_tier}; "
                f"counted are {market.uses_weight} and {market.above_weight}")
    return 0


cdef int _check_sims(State *state, list faults, object pause) except -1:
    cdef uint32_t index
    cdef Sim *sim
    cdef Order *order
    cdef uint32_t revoke
    cdef uint64_t awaited = 0
    cdef bint listed
    cdef int window
    for index in range(state.header.sims_count):
        if not index % PAUSE_ITEMS:
            pause()
        sim = &state.sims[index]
        if sim_find(state, sim.iccid) != index or sim_find_imsi(state, sim_imsi(&state.sims_cold[index])) != index:
            faults.append(f"SIM {index}: not found by its ICCID and IMSI")
        for window in range(WINDOWS):
            if state.sims_cold[index].identity & begun_bit(window) and not reset_comes_to(
                &state.lots[state.groups[sim.group].lot], index, window
            ):
                faults.append(f"SIM {index}: window {window + 1} began before its turn in a reset that does not come to it")
        if not FREE <= sim.occupancy <= COOLING or not HEALTHY <= sim.health <= RETIRED:
            faults.append(f"SIM {index}: occupancy {sim.occupancy}, health {sim.health}")
        if sim.occupancy == ASSIGNED:
            if sim.terminal >= state.header.terminals_count or state.terminals[sim.terminal].sim != index:
                faults.append(f"I1: SIM {index} is assigned to terminal {sim.terminal}, which does not hold it")
        elif sim.occupancy == RESERVED:
            if sim.terminal >= state.header.terminals_count or terminal_swap(&state.terminals[sim.terminal]) == NONE_INDEX:
                faults.append(f"I1: SIM {index} is reserved for terminal {sim.terminal}, which is in no swap")
            elif state.orders[state.terminals[sim.terminal].order].target != index:
                faults.append(f"I1: SIM {index} is reserved for terminal {sim.terminal}, whose swap has another target")
        elif sim.held:
            if sim.occupancy != COOLING or sim.next >= state.header.orders_max:
                faults.append(f"I1: SIM {index} is held by no order")
            else:
                order = &state.orders[sim.next]
                if order.state == ORDER_UNUSED or (order.source != index and order.target != index):
                    faults.append(f"I1: SIM {index} is held by order {sim.next}, which is not about it")
        elif sim.occupancy == COOLING and sim.next == NONE_INDEX:
            faults.append(f"timers: SIM {index} cools and is not on the wheel: nothing will free it")
        revoke = state.sims_cold[index].revoke
        if revoke and (
            revoke > state.header.orders_max or state.orders[revoke - 1].state == ORDER_UNUSED
            or state.orders[revoke - 1].source != index
        ):
            faults.append(f"SIM {index}: order {revoke - 1} is noted as its revoke, and is not")
        listed = sim.occupancy == FREE and sim.health == HEALTHY
        if listed != (sim.tier != TIER_NONE):
            faults.append(f"I4: SIM {index} stands in the index: {sim.tier != TIER_NONE}, free and healthy: {listed}")
        if index < state.header.late_end and state.sims_late[index].counted_bytes > <int64_t> sim.counted_bytes:
            faults.append(f"I8: SIM {index} had counted more when its windows were held up than it has by now")
        if index < state.header.ledger_end and state.sims_ledger[index].unreported_bytes < 0:
            awaited += 1
            if sim.occupancy != COOLING:
                faults.append(f"I4: SIM {index} does not cool, and the last report of its lease is waited for")
    if awaited != state.header.reports_awaited:
        faults.append(f"I4: the last reports of {state.header.reports_awaited} leases are waited for, by their SIMs of {awaited}")
    return 0


cdef int _check_index(State *state, list faults, object pause) except -1:
    """I5: compares tiers, their order and all bitmaps with what a rebuild from the SIM columns would give.

    The rebuild needs no memory. A list whose SIMs belong to its group and tier, by their columns, and rest in rising order
    holds none twice and shares none with another list; so the lists are the rebuild if and only if they are together
    as long as there are free healthy SIMs.
    """
    cdef uint32_t index, before, position
    cdef uint64_t listed = 0, wanted = 0, count, length
    cdef int tier
    cdef Sim *sim
    cdef Group *group
    cdef Class *sim_class
    cdef dict bits = {}
    cdef dict free_counts = {}
    for index in range(state.header.sims_count):
        if not index % PAUSE_ITEMS:
            pause()
        wanted += state.sims[index].occupancy == FREE and state.sims[index].health == HEALTHY
    for position in range(state.header.groups_count):
        group = &state.groups[position]
        count = 0
        for tier in range(TIERS):
            length = 0
            before = NONE_INDEX
            index = group.head[tier]
            while index != NONE_INDEX:
                if index >= state.header.sims_count:
                    faults.append(f"I5: group {position}, tier {tier} names SIM {index}, which there is not")
                    break
                sim = &state.sims[index]
                if (
                    sim.occupancy != FREE or sim.health != HEALTHY or sim.group != position
                    or sim_tier(sim) != tier
                ):
                    faults.append(f"I5: SIM {index} stands in group {position}, tier {tier}, and does not belong there")
                    break
                if before != NONE_INDEX:
                    if sim.previous != before:
                        faults.append(f"I5: SIM {index} in group {position}, tier {tier} has a wrong neighbour")
                    if sim.rest_sequence <= state.sims[before].rest_sequence:
                        faults.append(f"I5: SIM {index} in group {position}, tier {tier} stands behind one that rested less")
                        break
                length += 1
                if not length % PAUSE_ITEMS:
                    pause()
                before = index
                if sim.hint < state.header.sims_count:
                    prefetch(&state.sims[sim.hint])
                index = sim.next
            if length and group.tail[tier] != before:
                faults.append(f"I5: group {position}, tier {tier} ends at {group.tail[tier]}")
            if bool(length) != bool((group.tiers[tier >> 6] >> (tier & 63)) & 1):
                faults.append(f"I5: group {position}, tier {tier}: its bit is wrong")
            if length and not group.masked:
                bits[group.sim_class, tier, group.local] = True
            count += length
        listed += count
        if group.free_count != count:
            faults.append(f"I5: group {position} counts {group.free_count} free SIMs, there are {count}")
        if not group.masked:
            free_counts[group.sim_class] = free_counts.get(group.sim_class, 0) + count
    if listed != wanted:
        faults.append(f"I5: {listed} SIMs stand in the index, {wanted} are free and healthy")
    for position in range(state.header.classes_count):
        sim_class = &state.classes[position]
        if sim_class.free_count != free_counts.get(position, 0):
            faults.append(f"I5: class {position} counts {sim_class.free_count} free SIMs")
        _check_class(position, sim_class, bits, faults)
        _check_ranks(state, position, sim_class, bits, faults)
    return 0


cdef int _check_class(uint32_t position, const Class *sim_class, dict bits, list faults) except -1:
    cdef uint32_t local
    cdef int tier, word
    for tier in range(TIERS):
        words = [0] * GROUP_WORDS
        for local in range(sim_class.groups_count):
            if (position, tier, local) in bits:
                words[local >> 6] |= <uint64_t> 1 << (local & 63)
        summary = 0
        for word in range(GROUP_WORDS):
            if words[word]:
                summary |= 1 << word
            if sim_class.groups[tier][word] != words[word]:
                faults.append(f"I5: class {position}, tier {tier}: the bits of its groups are wrong")
        if sim_class.summary[tier] != summary:
            faults.append(f"I5: class {position}, tier {tier}: the summary is wrong")
        if bool((sim_class.tiers[tier >> 6] >> (tier & 63)) & 1) != bool(summary):
            faults.append(f"I5: class {position}, tier {tier}: its bit is wrong")
    return 0


cdef int _check_ranks(State *state, uint32_t position, const Class *sim_class, dict bits, list faults) except -1:
    """Groups stand in the order of when their lots end. No rank at all: the state is of a program that knew of none, up to its restart."""
    cdef uint32_t local, rank
    cdef int tier
    cdef list ends = [_ends_s(state, state.groups[sim_class.members[local]].lot) for local in range(sim_class.groups_count)]
    cdef list order = sorted(set(ends))[:RANKS]
    cdef list groups = [0] * RANKS
    cdef list tiers = [0] * RANKS
    cdef object one = 1
    if sim_class.ranks_count != len(order) and sim_class.ranks_count:
        faults.append(f"I5: class {position} knows of {sim_class.ranks_count} ends of lots, there are {len(order)}")
    for local in range(sim_class.groups_count if sim_class.ranks_count else 0):
        rank = order.index(min(ends[local], order[len(order) - 1]))
        if state.groups[sim_class.members[local]].rank != rank:
            faults.append(f"I5: class {position}: its group {local} does not stand where its lot's end does")
        if len(order) > 1:
            groups[rank] |= one << local
            tiers[rank] |= sum([one << tier for tier in range(TIERS) if (position, tier, local) in bits])
    for rank in range(RANKS):
        if (
            sum([int(sim_class.rank_groups[rank][word]) << 64 * word for word in range(GROUP_WORDS)]) != groups[rank]
            or sim_class.rank_tiers[2 * rank] | int(sim_class.rank_tiers[2 * rank + 1]) << 64 != tiers[rank]
            or rank_roomiest(sim_class, rank) != max(tiers[rank].bit_length() - 1, 0)
        ):
            faults.append(f"I5: class {position}: the bits of rank {rank} are wrong")
    return 0


cdef int _check_breakers(State *state, list faults) except -1:
    """What selection goes by is what the breakers say; a probe that is out is an order in flight."""
    cdef uint32_t index, blocking = 0, tried = 0
    cdef const Breaker *breaker
    cdef const Group *group
    cdef bint shown
    for index in range(state.header.entities_count):
        breaker = &state.breakers[index]
        if breaker.state == BREAKER_PROBING and (
            breaker.probe == 0 or breaker.probe > state.header.orders_max
            or not order_outstanding(state, breaker.probe - 1) or not state.orders[breaker.probe - 1].probes
        ):
            faults.append(f"the breaker of entity {index} waits for order {breaker.probe - 1}, which is not its probe")
        if state.entities[index].kind != ACCESS_SERVER:
            blocking += breaker_blocks(state, index)
            tried += breaker.state == BREAKER_HALF_OPEN
    if blocking != state.header.breakers_blocking or tried != state.header.breakers_tried:
        faults.append(
            f"{blocking} breakers block and {tried} are half open, "
            f"counted are {state.header.breakers_blocking} and {state.header.breakers_tried}")
    for index in range(state.header.groups_count):
        group = &state.groups[index]
        shown = (state.classes[group.sim_class].broken[group.local >> 6] >> (group.local & 63)) & 1
        if shown != (breaker_blocks(state, group.bank) or breaker_blocks(state, group.lot)):
            faults.append(f"I5: group {index}: its class shows it as broken: {shown}")
    return 0


cdef int _check_lots(State *state, list faults) except -1:
    """Whatever a calendar has for a lot, its timer will come to it; its groups are shown or hidden as they should be."""
    cdef uint32_t index
    cdef const Lot *lot
    cdef dict slowed = {}
    cdef dict exhausted = {}
    for index in range(state.header.sims_count):
        entity = int(state.groups[state.sims[index].group].lot)
        if state.sims[index].health == THROTTLED:
            slowed[entity] = slowed.get(entity, 0) + 1
        elif state.sims[index].health == EXHAUSTED:
            exhausted[entity] = exhausted.get(entity, 0) + 1
    for index in range(state.header.entities_count):
        if state.entities[index].kind != LOT:
            continue
        lot = &state.lots[index]
        if lot.slowed_count != slowed.get(index, 0):
            faults.append(f"I5: lot {index} counts {lot.slowed_count} slowed SIMs, and has {slowed.get(index, 0)}")
        if lot.exhausted_count != exhausted.get(index, 0):
            faults.append(f"I5: lot {index} counts {lot.exhausted_count} exhausted SIMs, and has {exhausted.get(index, 0)}")
        if not lot_armed(lot) and (
            lot.resetting or lot.walk_wanted or lot.tried_ms or any([lot.reset_ms[window] or lot.waiting_ms[window] for window in range(WINDOWS)])
        ):
            faults.append(f"timers: lot {index} has something to come and is not on the wheel")
    for index in range(state.header.groups_count):
        if state.groups[index].masked != group_hidden(state, &state.groups[index]):
            faults.append(f"I5: group {index} is hidden: {state.groups[index].masked}, and should not be or be")
    return 0


cdef int _check_rings(State *state, list faults, object pause) except -1:
    """I4: what we counted on a day is kept beside what its carrier said of it, and beside nothing else."""
    cdef uint32_t index
    cdef int place
    for index in range(state.header.rolling_end):
        if not index % PAUSE_ITEMS:
            pause()
        for place in range(ROLLING_DAYS):
            if state.sims_rolling[index].own[place] and not state.sims_rolling[index].days[place] & DAY_TOLD:
                faults.append(f"I4: SIM {index} keeps our own count of day {place} of its rolling window, of which nothing was told")
    for index in range(state.header.entities_count):
        if state.lots[index].pool_late_bytes > <int64_t> state.lots[index].pool_counted_bytes:
            faults.append(f"I8: pool {index} had counted more when its windows were held up than it has by now")
        for place in range(ROLLING_DAYS):
            if state.lots[index].pool_days_own_bytes[place] and not (state.lots[index].pool_days_told >> place) & 1:
                faults.append(f"I4: pool {index} keeps our own count of day {place} of its rolling window, of which nothing was told")
    return 0


cdef bint _differ(object wanted, object kept):
    """A sum that a pool keeps may have wrapped round before its figures had a bound (pools.pxi)."""
    return (wanted - kept) % 2**64 != 0


cdef int _check_pools(State *state, list faults, object pause) except -1:
    """I8 and I4: what a pool counts and what it keeps for leases are the sums over its SIMs; it is hidden by what is left."""
    cdef uint32_t index, entity
    cdef const Sim *sim
    cdef const Lot *lot
    cdef int health, window
    cdef dict sums = {}
    for index in range(state.header.groups_count):
        entity = state.groups[index].lot
        lot = &state.lots[entity]
        if state.groups[index].pool != (entity if lot.pooled else 0) or state.groups[index].pool_health != lot.pool_health:
            faults.append(f"I4: group {index} does not know that its lot is pooled or exhausted, or that it is not")
        if lot.pooled:
            sums[entity] = [0] * (2 + 5 * WINDOWS)
    if not sums:
        return 0
    for index in range(state.header.sims_count):
        if not index % PAUSE_ITEMS:
            pause()
        sim = &state.sims[index]
        entity = state.groups[sim.group].pool
        if entity:
            sums[entity][0] += sim.counted_bytes
            sums[entity][1] += pool_claim_bytes(state, sim)
            for window in range(WINDOWS):
                sums[entity][2 + window] += ledger_bytes(state, index, window)
                if index < state.header.ledger_end:
                    lot = &state.lots[entity]
                    sums[entity][2 + 4 * WINDOWS + window] += min(state.sims_ledger[index].correction_bytes[window], <int64_t> 0)
                    sums[entity][2 + WINDOWS + window] += state.sims_ledger[index].allowance_bytes[window]
                    if (lot.resetting >> window) & 1 and lot.reset_cursor[window] <= index < lot.reset_end[window]:
                        continue  # what was told of it before the reset is in no sum
                    sums[entity][2 + 2 * WINDOWS + window] += pool_summed_bytes(
                        &state.sims_ledger[index], window, lot.sims_told_since_s[window])
                    sums[entity][2 + 3 * WINDOWS + window] += pool_summed_bytes(
                        &state.sims_ledger[index], window, lot.sims_next_since_s[window])
    for entity, wanted in sums.items():
        lot = &state.lots[entity]
        if _differ(wanted[0], lot.pool_counted_bytes):
            faults.append(f"I8: pool {entity} has counted {lot.pool_counted_bytes} bytes, its SIMs {wanted[0]}")
        if _differ(wanted[1], lot.pool_claimed_bytes):
            faults.append(f"I4: pool {entity} keeps {lot.pool_claimed_bytes} bytes for leases, its SIMs {wanted[1]}")
        for window in range(WINDOWS):
            if _differ(wanted[2 + 2 * WINDOWS + window], lot.sims_told_bytes[window]):
                faults.append(f"pool {entity} has {lot.sims_told_bytes[window]} bytes that its carrier told of single SIMs in window "
                              f"{window + 1}, they {wanted[2 + 2 * WINDOWS + window]}")
            if _differ(wanted[2 + 3 * WINDOWS + window], lot.sims_next_bytes[window]):
                faults.append(f"pool {entity} has {lot.sims_next_bytes[window]} bytes in the next such sum of window {window + 1}, "
                              f"they {wanted[2 + 3 * WINDOWS + window]}")
            if (
                min(lot.pool_raised_bytes[window], lot.pool_added_bytes[window]) < 0
                or (lot.pool_raised_bytes[window] or lot.pool_added_bytes[window])
                and (not lot_pools(lot, window) or not pool_figured(lot, window))
            ):
                faults.append(f"pool {entity} is raised by {lot.pool_raised_bytes[window]} bytes in window {window + 1}, and its SIMs "
                              f"added {lot.pool_added_bytes[window]}: below 0, or to no figure of it")
            if not lot_pools(lot, window):
                continue
            if _differ(wanted[2 + WINDOWS + window], lot.pool_allowance_bytes[window]):
                faults.append(f"I8: pool {entity} allows for {lot.pool_allowance_bytes[window]} bytes in window {window + 1}, "
                              f"the ledgers of its SIMs for {wanted[2 + WINDOWS + window]}")
            if _differ(wanted[2 + 4 * WINDOWS + window], lot.pool_less_bytes[window]):
                faults.append(f"I8: pool {entity} has {lot.pool_less_bytes[window]} bytes by which figures of its SIMs are below our count in "
                              f"window {window + 1}, their ledgers {wanted[2 + 4 * WINDOWS + window]}")
            if _differ(wanted[2 + window], lot.pool_beside_bytes[window]):
                faults.append(f"I8: pool {entity} has {lot.pool_beside_bytes[window]} bytes beside its count in window {window + 1}, "
                              f"the ledgers of its SIMs {wanted[2 + window]}")
        health = EXHAUSTED if <int64_t> lot.pool_counted_bytes > lot.pool_exhausted_bytes else (
            LOW if <int64_t> lot.pool_counted_bytes > lot.pool_low_bytes else 0)
        if health != lot.pool_health:
            faults.append(f"I4: pool {entity} has health {lot.pool_health}, by what is left {health}")
    return 0


cdef int _check_terminals(State *state, list faults, object pause) except -1:
    cdef uint32_t index, unheard = 0
    cdef Terminal *terminal
    cdef Order *order
    # One count a terminal: a silent access server may hold very many SIMs.
    cdef uint32_t[::1] held = np.zeros(state.header.terminals_count, np.uint32)
    cdef uint32_t[::1] leases = np.zeros(state.header.servers_count, np.uint32)
    for index in range(state.header.sims_count):
        if not index % PAUSE_ITEMS:
            pause()
        if state.sims[index].held == HELD_COUNTED and state.sims[index].terminal < state.header.terminals_count:
            held[state.sims[index].terminal] += 1
    for index in range(state.header.terminals_count):
        if not index % PAUSE_ITEMS:
            pause()
        terminal = &state.terminals[index]
        if state.terminals_cold[index].held_count != held[index]:
            faults.append(f"terminal {index}: {state.terminals_cold[index].held_count} SIMs are counted as held because of it, "
                          f"there are {held[index]}")
        if terminal_find(state, terminal.key) != index:
            faults.append(f"terminal {index}: not found by its key")
        armed = timer_node(state, (<uint32_t> TIMER_TERMINAL << 29) | index).next != NONE_INDEX
        if bool(terminal.expected_tier & LEASE_ARMED) != armed or (terminal.sim != NONE_INDEX and not armed):
            faults.append(f"timers: terminal {index} has a lease: {terminal.sim != NONE_INDEX}, is on the wheel: {armed}, and its "
                          f"record says otherwise or nothing will end the lease")
        if terminal.sim != NONE_INDEX:
            leases[terminal.server] += 1
            if terminal.sim >= state.header.sims_count or state.sims[terminal.sim].occupancy != ASSIGNED or (
                state.sims[terminal.sim].terminal != index
            ):
                faults.append(f"I2: terminal {index} holds SIM {terminal.sim}, which is not assigned to it")
        if terminal.order == AWAITS_TRAFFIC:
            if terminal.sim == NONE_INDEX:
                faults.append(f"terminal {index} has no lease and awaits traffic")
        elif terminal.order != NONE_INDEX and terminal.order >= LAST_SIM:
            if terminal.sim != NONE_INDEX or terminal.order - LAST_SIM >= state.header.sims_count:
                faults.append(f"terminal {index} names SIM {terminal.order - LAST_SIM} as that of a lease that is over")
        elif terminal.order != NONE_INDEX:
            order = &state.orders[terminal.order]
            if order.kind != SWITCH or order.terminal != index or order.state == ORDER_UNUSED or order.orphaned:
                faults.append(f"I2: terminal {index} is in swap {terminal.order}, which is not about it")
            elif order.source != terminal.sim or terminal.sim == NONE_INDEX:
                faults.append(f"I9: the swap of terminal {index} does not keep its source SIM")
    for index in range(state.header.servers_count):
        if state.servers[index].leases_count != leases[index]:
            faults.append(f"access server {index}: {state.servers[index].leases_count} leases are counted on it, there are "
                          f"{leases[index]}")
        unheard += state.servers[index].unheard != HEARD
    if unheard != state.header.unheard_count:
        faults.append(f"access servers: {state.header.unheard_count} are counted as not heard since a restore, there are {unheard}")
    return 0


cdef int _check_orders(State *state, list faults) except -1:
    cdef uint32_t index, used = 0
    cdef Order *order
    cdef Server *server
    cdef Job *job
    cdef dict outstanding = {}
    cdef dict queued = {}
    cdef dict revokes = {}
    cdef dict job_queued = {}
    cdef dict job_outstanding = {}
    cdef dict job_overdue = {}
    for index in range(state.header.orders_max):
        order = &state.orders[index]
        if order.state == ORDER_UNUSED:
            continue
        used += 1
        if order.kind == REVOKE and state.sims_cold[order.source].revoke == index + 1:
            revokes[order.server] = revokes.get(order.server, 0) + 1
        if order.state == OUTSTANDING or order.state == UNKNOWN:
            outstanding[order.server] = outstanding.get(order.server, 0) + 1
            job_outstanding[order.job] = job_outstanding.get(order.job, 0) + 1
            job_overdue[order.job] = job_overdue.get(order.job, 0) + order.overdue
            if order.kind == SWITCH and not order.orphaned:
                if state.sims[order.target].occupancy != RESERVED or state.sims[order.target].terminal != order.terminal:
                    faults.append(f"I9: order {index} is outstanding and its target SIM {order.target} is not reserved")
        else:
            job_queued[order.job] = job_queued.get(order.job, 0) + 1
            if order.state == QUEUED:
                queued[order.server] = queued.get(order.server, 0) + 1
        if order.kind == SWITCH and not order.orphaned and state.terminals[order.terminal].order != index:
            faults.append(f"I2: order {index} is a swap of terminal {order.terminal}, which does not know of it")
    if used != state.header.orders_used:
        faults.append(f"orders: {used} in use, {state.header.orders_used} counted")
    if state.header.revokes_count != sum(revokes.values()):
        faults.append(f"orders: {state.header.revokes_count} SIMs are counted that servers named and should not have, "
                      f"there are {sum(revokes.values())}")
    for index in range(state.header.servers_count):
        server = &state.servers[index]
        if server.outstanding != outstanding.get(index, 0):
            faults.append(f"I3: access server {index} counts {server.outstanding} orders outstanding, there are "
                          f"{outstanding.get(index, 0)}")
        if server.outstanding > WINDOW_MAX or not 1 <= server.window <= WINDOW_MAX:
            faults.append(f"I3: access server {index} has {server.outstanding} outstanding, window {server.window}")
        if server.queued_count != queued.get(index, 0):
            faults.append(f"orders: access server {index} counts {server.queued_count} queued")
        if server.revokes_count != revokes.get(index, 0):
            faults.append(f"orders: access server {index} counts {server.revokes_count} SIMs that it named and should not have, "
                          f"there are {revokes.get(index, 0)}")
    for index in range(state.header.jobs_max):
        job = &state.jobs[index]
        if job.state != JOB_UNUSED and (
            job.queued_count != job_queued.get(job.id, 0) or job.outstanding_count != job_outstanding.get(job.id, 0)
        ):
            faults.append(f"jobs: job {job.id} counts {job.queued_count} queued, {job.outstanding_count} outstanding")
        if job.state != JOB_UNUSED and job.overdue_count > job_overdue.get(job.id, 0):
            faults.append(f"jobs: job {job.id} counts {job.overdue_count} overdue, there are {job_overdue.get(job.id, 0)}")
    return 0


cdef int _check_limits(State *state, list faults) except -1:
    """Which rule holds for whom is a cache of the rules; exemptions stand in order."""
    cdef uint32_t index
    cdef const Entity *entity
    cdef dict rules = {}
    for index in range(state.header.entities_count):
        entity = &state.entities[index]
        if entity.kind == LIMIT_RULE and entity.numbers[<int> RULE_WITHDRAWN] != 1:
            if entity.numbers[<int> RULE_GROUP] in rules:
                faults.append(f"limits: two rules hold for subscriber group {entity.numbers[<int> RULE_GROUP]}")
            rules[entity.numbers[<int> RULE_GROUP]] = index
    if state.header.limit_for_all != rules.get(-1, 0) or state.header.limits_count != len(rules):
        faults.append(f"limits: rule {state.header.limit_for_all} holds for all, {state.header.limits_count} in all; there are {rules}")
    if state.header.limits_edition - state.header.limits_settled >= CHANGES:
        faults.append(f"limits: of {state.header.limits_edition - state.header.limits_settled} changes somebody may yet have to hear")
    for index in range(state.header.entities_count):
        entity = &state.entities[index]
        if entity.kind == SUBSCRIBER_GROUP and entity.dense != rules.get(index, NONE_SHORT):
            faults.append(f"limits: rule {entity.dense} holds for subscriber group {index}, there are {rules}")
    for index in range(1, state.header.exemptions_count):
        if state.exemptions[index - 1].subscriber >= state.exemptions[index].subscriber:
            faults.append(f"limits: exemption {index} stands in the wrong place")
    return 0


cdef int _check_totals(State *state, list faults, object pause) except -1:
    """I8: every accepted byte is counted once on a SIM, once on a terminal and once in the total."""
    cdef uint32_t index
    cdef uint64_t by_sim = 0, by_terminal = 0
    cdef list occupancy = [0] * 8
    cdef list health = [0] * 10
    for index in range(state.header.sims_count):
        if not index % PAUSE_ITEMS:
            pause()
        by_sim += state.sims[index].counted_bytes
        occupancy[state.sims[index].occupancy & 7] += 1
        health[state.sims[index].health % 10] += 1
    for index in range(state.header.terminals_count):
        if not index % PAUSE_ITEMS:
            pause()
        by_terminal += state.terminals[index].counted_bytes
    if not by_sim == by_terminal == state.header.counted_bytes:
        faults.append(f"I8: {by_sim} bytes by SIM, {by_terminal} by terminal, {state.header.counted_bytes} in all")
    if occupancy != [state.header.occupancy_count[position] for position in range(8)]:
        faults.append(f"counters: occupancy {occupancy}")
    if health != [state.header.health_count[position] for position in range(10)]:
        faults.append(f"counters: health {health}")
    return 0

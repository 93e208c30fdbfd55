# A SIM's life. It holds the two tables that find a SIM by ICCID and by IMSI, and is the only place where occupancy,
# health and headroom change, so that the selection index always follows them (I4, I5).
#
#     import            reserve (order sent)        assign (lease begins, switch confirmed)
#    --------> free ------------------> reserved -----------> assigned
#               ^  \________________________________________/   |
#               |                                               | release, expiry, re-allocation, attach failure
#               |   cooling is over                             v
#               +------------------------------------------- cooling   held: its access server must let go first
#
# Everything is O(1); the memory belongs to Machine.


cdef enum:
    DAY_MS = 86_400_000


cdef uint32_t sim_find(State *state, uint64_t iccid) noexcept nogil:
    """The index of the SIM with this ICCID, or NONE_INDEX."""
    cdef uint64_t hash = mix(iccid)
    cdef uint32_t place = table_home(&state.iccid_table, hash)
    cdef uint32_t index = table_next(&state.iccid_table, hash, &place)
    while index != NONE_INDEX and state.sims[index].iccid != iccid:
        index = table_next(&state.iccid_table, hash, &place)
    return index


cdef uint32_t sim_find_imsi(State *state, uint64_t imsi) noexcept nogil:
    """The index of the SIM with this IMSI, or NONE_INDEX."""
    cdef uint64_t hash = mix(imsi)
    cdef uint32_t place = table_home(&state.imsi_table, hash)
    cdef uint32_t index = table_next(&state.imsi_table, hash, &place)
    while index != NONE_INDEX and sim_imsi(&state.sims_cold[index]) != imsi:
        index = table_next(&state.imsi_table, hash, &place)
    return index


cdef void sim_enter(State *state, uint32_t index) noexcept nogil:
    """Enters a SIM into both tables. Its ICCID and IMSI are not in them yet."""
    table_enter(&state.iccid_table, mix(state.sims[index].iccid), index)
    table_enter(&state.imsi_table, mix(sim_imsi(&state.sims_cold[index])), index)


cdef extern from *:
    """
    #define SIMSWITCH_COOLING_MASK (((uint64_t) 1 << 44) - 1)
    """
    const uint64_t COOLING_MASK "SIMSWITCH_COOLING_MASK"


cdef inline uint64_t sim_cooling_until_ms(const Sim *sim) noexcept nogil:
    return sim.cooling & COOLING_MASK


cdef inline uint32_t sim_changes_today(const State *state, const Sim *sim) noexcept nogil:
    """How often it was given to another terminal than the one before, today."""
    return <uint32_t> (sim.cooling >> 56) if ((sim.cooling >> 44) & 0x7FF) == (state.header.day & 0x7FF) else 0


cdef inline void _count_change(const State *state, Sim *sim) noexcept nogil:
    cdef uint64_t today = (state.header.day & 0x7FF) << 44
    cdef uint64_t count = sim.cooling >> 56 if (sim.cooling & (<uint64_t> 0x7FF << 44)) == today else 0
    count += count < 255
    sim.cooling = (sim.cooling & (COOLING_MASK | UNTRUSTED)) | today | count << 56


cdef inline void _leave_list(State *state, Sim *sim, Group *group, uint32_t index) noexcept nogil:
    """Off the list that it stands in: of its tier, of the wheel, or that of who holds it."""
    if sim.tier != TIER_NONE:
        index_leave(state, sim, group, index)
    elif sim.held:
        state.terminals_cold[sim.terminal].held_count -= sim.held == HELD_COUNTED
        sim.held = 0
        sim.next = NONE_INDEX
    else:
        timer_disarm(state, TIMER_SIM, index)


cdef inline void sim_occupy(State *state, uint32_t index, int occupancy, uint32_t terminal) noexcept nogil:
    """Changes the occupancy; the index follows. ``terminal`` is kept as the holder or the last holder."""
    cdef Sim *sim = &state.sims[index]
    cdef Group *group = &state.groups[sim.group]
    if group.pool:
        pool_occupy(state, sim, occupancy)
    if sim.occupancy == ASSIGNED:
        sim.next = NONE_INDEX
    elif sim.next != NONE_INDEX or sim.tier != TIER_NONE:
        _leave_list(state, sim, group, index)
    state.header.occupancy_count[sim.occupancy] -= 1
    state.header.occupancy_count[occupancy] += 1
    sim.occupancy = <uint8_t> occupancy
    if (occupancy == ASSIGNED or occupancy == RESERVED) and terminal != sim.terminal:
        _count_change(state, sim)
    sim.terminal = terminal
    if occupancy == FREE and sim.health == HEALTHY:
        index_insert(state, index)


cdef inline void sim_cool(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Released and let go of: it rests for the cooling time, then it is free.

    One that has changed terminal as often today as its plan allows rests until the day is over: carriers look at that.
    """
    cdef Sim *sim = &state.sims[index]
    cdef uint32_t changes_max = state.groups[sim.group].changes_max
    cdef uint64_t until_ms = max(now_ms + <uint64_t> state.header.settings[<int> COOLING_MS], sim_cooling_until_ms(sim))
    cdef Wheel *wheel = state.wheel
    cdef uint32_t earlier = wheel.recent[(wheel.recent_next - HINT_DISTANCE) & (RECENT - 1)]
    sim_occupy(state, index, COOLING, sim.terminal)
    if changes_max and sim_changes_today(state, sim) >= changes_max:
        until_ms = max(until_ms, (state.header.day + 1) * DAY_MS + <uint64_t> state.header.settings[<int> DAY_BEGINS_MS])
    sim.cooling = (sim.cooling & ~COOLING_MASK) | (until_ms & COOLING_MASK)
    timer_arm(state, TIMER_SIM, index, until_ms)
    # SIMs that cool one after the other will fire so too: each learns who stands HINT_DISTANCE behind it (tiers.pxi).
    sim.hint = NONE_INDEX
    if earlier != NONE_INDEX:
        state.sims[earlier].hint = index
    wheel.recent[wheel.recent_next & (RECENT - 1)] = index
    wheel.recent_next += 1


cdef void sim_rest(State *state, uint32_t index, uint64_t until_ms, uint64_t now_ms) noexcept nogil:
    """It is free no earlier than that, whoever has it now."""
    cdef Sim *sim = &state.sims[index]
    if sim_cooling_until_ms(sim) < until_ms:
        sim.cooling = (sim.cooling & ~COOLING_MASK) | (until_ms & COOLING_MASK)
    if sim.occupancy == FREE:
        sim_cool(state, index, now_ms)


cdef void sim_hold(State *state, uint32_t index, uint32_t terminal, uint32_t order, int held) noexcept nogil:
    """Cooling without an end: an access server may still use it, until ``order`` is settled (fail static).

    ``held``: HELD_COUNTED where the terminal is to get no more than some; past what its count can say it is not counted.
    """
    cdef Sim *sim = &state.sims[index]
    cdef int64_t claim = pool_claim_bytes(state, sim)
    cdef uint32_t heard_s = sim.previous if sim.occupancy == ASSIGNED or sim.held else NONE_INDEX
    sim_occupy(state, index, COOLING, terminal)
    if state.terminals_cold[terminal].held_count == 255:
        held = HELD_UNCOUNTED
    sim.held = <uint8_t> held
    if claim:
        pool_claim(state, index, claim)
    sim.next = order
    sim.previous = heard_s
    state.terminals_cold[terminal].held_count += held == HELD_COUNTED


cdef void sim_timer(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Asked whether its cooling is over. An access server that named it, too, must have let go of it first."""
    cdef Sim *sim = &state.sims[index]
    cdef uint32_t revoke = state.sims_cold[index].revoke if state.header.revokes_count else 0
    if sim.hint != NONE_INDEX:
        prefetch(&state.sims[sim.hint])
    if sim_cooling_until_ms(sim) > now_ms:
        timer_arm(state, TIMER_SIM, index, sim_cooling_until_ms(sim))
    elif revoke:
        sim_hold(state, index, sim.terminal, revoke - 1, HELD_UNCOUNTED)
    else:
        if state.header.reports_awaited:
            last_report_missing(state, index, now_ms)
        sim_occupy(state, index, FREE, sim.terminal)


cdef void sim_set_health(State *state, uint32_t index, int health, uint64_t now_ms) noexcept nogil:
    """Sets the health; a free SIM enters or leaves the index with it."""
    cdef Sim *sim = &state.sims[index]
    cdef Lot *lot = &state.lots[state.groups[sim.group].lot]
    if sim.health == health:
        return
    invariant(sim.health != RETIRED, "a retired SIM stays retired")
    if sim.tier != TIER_NONE:
        index_remove(state, index)
    state.header.health_count[sim.health] -= 1
    state.header.health_count[health] += 1
    lot.slowed_count -= sim.health == THROTTLED
    lot.exhausted_count -= sim.health == EXHAUSTED
    lot.exhausted_count += health == EXHAUSTED
    sim.health = <uint8_t> health
    state.sims_cold[index].health_since_s = <uint32_t> (now_ms // 1000)
    if sim.occupancy == FREE and health == HEALTHY:
        index_insert(state, index)
    elif sim.occupancy == ASSIGNED and health != HEALTHY:
        automatic_swap(state, index, now_ms)
    if health == THROTTLED:
        lot_slowed(state, state.groups[sim.group].lot, now_ms)


cdef inline void sim_judge_headroom(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Healthy, low or exhausted by our own count, and its pool's. What others found (throttled, suspended …) is not overruled."""
    cdef Sim *sim = &state.sims[index]
    cdef Group *group
    cdef int64_t headroom
    cdef int health
    if sim.health > EXHAUSTED:
        return
    group = &state.groups[sim.group]
    headroom = headroom_bytes(sim)
    if headroom < group.exhausted_bytes:
        health = EXHAUSTED
    elif headroom < group.low_bytes:
        health = LOW
    else:
        health = HEALTHY
    health = max(health, <int> group.pool_health)
    if health != sim.health:
        sim_set_health(state, index, health, now_ms)
    elif sim.tier != TIER_NONE and sim.tier != sim_tier(sim):
        index_remove(state, index)
        index_insert(state, index)


cdef void sim_set_limit(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Works out anew at which count the nearest cap is reached, its own or its pool's: min over windows of quota - offset."""
    cdef Sim *sim = &state.sims[index]
    cdef const Lot *lot = &state.lots[state.groups[sim.group].lot]
    cdef int64_t limit = NO_LIMIT
    cdef int window
    if lot.validity != VALID:
        limit = <int64_t> sim.counted_bytes - 1  # nothing is left, whatever the watermark
    # Quotas are below 2^62 and offsets within it (checked where they enter), so no difference overflows.
    for window in range(WINDOWS):
        if lot.quota_bytes[window] >= 0 and not lot_pools(lot, window):
            limit = min(limit, lot.quota_bytes[window] - sim_offset_bytes(state, index, window))
    sim.limit_bytes = limit
    if state.groups[sim.group].pool:
        pool_follow(state, state.groups[sim.group].pool, True, now_ms)
    sim_judge_headroom(state, index, now_ms)


cdef void sim_doubt(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """It was slowed, and may not be any more: a terminal that needs little is to show whether it is fast again."""
    state.sims[index].cooling |= UNTRUSTED
    sim_set_health(state, index, HEALTHY, now_ms)


cdef void sim_trust(State *state, uint32_t index) noexcept nogil:
    cdef Sim *sim = &state.sims[index]
    sim.cooling &= ~UNTRUSTED
    if sim.tier != TIER_NONE and sim.tier != sim_tier(sim):
        index_remove(state, index)
        index_insert(state, index)


cdef void group_set_masked(State *state, uint32_t group_index, bint masked) noexcept nogil:
    """Hides a group's SIMs from selection, or shows them again: 128 bits at most, whatever its size."""
    cdef Group *group = &state.groups[group_index]
    cdef Class *sim_class = &state.classes[group.sim_class]
    cdef int tier
    if group.masked == masked:
        return
    group.masked = masked
    for tier in range(TIERS):
        if (group.tiers[tier >> 6] >> (tier & 63)) & 1:
            if masked:
                class_tier_clear(sim_class, tier, group)
            else:
                class_tier_set(sim_class, tier, group)
    if masked:
        sim_class.free_count -= group.free_count
    else:
        sim_class.free_count += group.free_count


cdef uint64_t draw(State *state) noexcept nogil:
    """The next number for jitter: SplitMix64 over the seed that came in with the batch."""
    state.header.draws_count += 1
    return mix(state.header.seed + state.header.draws_count * <uint64_t> 0x9E3779B97F4A7C15ULL)

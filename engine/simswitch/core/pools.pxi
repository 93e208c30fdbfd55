# Lots whose SIMs share a quota: pools. Which windows of a lot are pooled its plan says; in the others each SIM has its own quota.
#
#     used in a window  = counted + offset + beside + own ledger
#     left              = min over the windows that are pooled of quota - used
#     to be handed out  = left - claimed                          pessimistic (I4): a SIM of the pool has no more than this
#
#     counted    what was counted on all SIMs of the lot, over their lifetime: each report once, at its SIM and here (I8)
#     offset     moves when the window starts anew: at once, for all. Opening balances are in it
#     beside     the sum of what stands in the ledger of its SIMs (ledger.pxi): it leaves the window as each of them does. What of it is
#                less than we counted is summed up by itself, too: it takes nothing off a window that has begun, where the walk has yet
#                to come to its SIM, nor off rolling days of which some are the pool's carrier's
#     own ledger what its carrier's last figure of all SIMs together moved it by, and what straddled its instant; for the window's time
#     claimed    the sum over the SIMs that are reserved, assigned or held of what their leases may still use: what was expected of
#                each, less what was reported of it. A SIM's claim stands in its record, where it has its rank in the index while free
#
# A carrier's figure of the pool is worth what one of a SIM is (ledger.pxi): it and what was counted since is used. Whatever its SIMs'
# figures had corrected by then is in it; so are leases that ended before without a word, whose allowances a walk takes away. A figure
# of one of its SIMs changes nothing that this one knows already: of an instant up to its own neither more nor less, of a later one only
# more, since what it says less may have been used before; but what such figures added goes as they are taken back: what opening balances
# did too, and what figures of a SIM's shorter windows made up for, as long as the SIM's own longer one has it as a correction. The same
# holds of the single days of a rolling window.
#
# By now no less is used of a pool than all that the carrier last said of its SIMs one by one, whatever the instants, as all of them are past.
# That sum is kept by window. Where a pool's figure comes to less, or a SIM's makes it so, what is missing is a raise: it counts, and
# stands beside what was said. It falls only as the carrier takes back what it said of SIMs, by no more than that, and is worked out
# anew with the pool's next figure. One that is less than the sum, or than what was said of a shorter window that lies in it, and no older
# than any of it, can't be.
#
#     SIM a     5 GB ---+
#     SIM b         2 GB ---+
#     pool            |     +--- 6 GB: impossible; 7 GB and more: taken
#                     +--- 6 GB of before b's: taken, and 1 GB more counts
#
# The same of single days of a rolling window, which are over: a pool's is not below the sum of its SIMs', or is raised to it.
#
# What the pool's figure of the day has beyond us, and beyond what its SIMs' have, joins the longer windows that are shared as a SIM's does
# (ledger.pxi); so does a single day of the rolling window join the cycle.
#
# What was counted since comes on top: since the pool's figure, where no SIM's is later; otherwise since the last of the SIMs' came, and on
# that SIM since its instant. What the others used between their instants and that they have no sum of: nothing is kept by SIM for it.
#
# The sum is of figures from an instant on, when the window began; a figure of before it is in no sum. Where nobody says when it began a
# second sum is begun when half of the time has gone by that the window lasts at most, and takes the first one's place after all of it: so
# neither has a figure in it that can't be of the window, and none is empty as long as SIMs are told.
#
#     sum      since ----------|---------- over
#     next                   since --------|---------- over
#
# No sum over SIMs wraps: an opening balance, a figure of a SIM or of a day with which theirs would come to more than POOL_MAX is refused;
# what a longer window of a SIM makes up for ends at twice that.
#
# What moves an offset, or the ledger of a SIM, works the SIM's limit out anew, and with it that of its pool (sim_set_limit).
#
# As a SIM keeps the count at which its nearest cap is reached, a pool keeps the counts at which it is low, exhausted and at its end:
# a report costs a few additions and comparisons. Low is what its plan says, or a 32nd of the quota if that is more, and exhausted a
# 128th: a pool is used by many at once. A pool that is low or exhausted is hidden from selection at once, whatever its size. The health of its
# SIMs follows by a walk, which has their terminals swapped as off any SIM of that health; so does its end, when the window starts anew
# or a higher cap comes.
#
# Where a pool above its watermark has too little for a request, selection passes its groups by (breakers.pxi): that costs a look at
# each, and WORK_MAX of them in an apply. Everything else is O(1), or O(groups of a class) where a pool turns.

cdef enum:
    POOL_LOW_SHIFT = 5            # of the quota: below what is left of it a pool is low,
    POOL_EXHAUSTED_SHIFT = 7      # and exhausted
    WHOLE_DAYS_MS = 11 * 3_600_000    # rolling days begin so long before they may at the latest: all but the hour of a clock's change


cdef extern from *:
    """
    #define SIMSWITCH_CLAIM_MAX ((int64_t) 1 << 44)
    """
    const int64_t CLAIM_MAX "SIMSWITCH_CLAIM_MAX"     # of one lease


# Of a state from before these sums had a bound (POOL_MAX) they may have wrapped round: they go on so rather than overflow.
cdef inline void _add(int64_t *sum, int64_t more) noexcept nogil:
    sum[0] = <int64_t> (<uint64_t> sum[0] + <uint64_t> more)


cdef inline uint8_t lot_pooled(const int64_t *plan) noexcept nogil:
    """Which windows a plan pools, a bit each."""
    return <uint8_t> max(plan[<int> PLAN_POOLED], <int64_t> 0)


cdef inline bint lot_pools(const Lot *lot, int window) noexcept nogil:
    return (lot.pooled >> window) & 1


cdef int64_t _pool_void_bytes(const Lot *lot, int window) noexcept nogil:
    """What figures of its SIMs say less than we counted, and takes nothing off the pool; 0 or below."""
    if lot.pool_less_bytes[window] == 0:
        return 0
    if ((lot.resetting | lot.begins) >> window) & 1 or (window == WINDOW_ROLLING - 1 and lot.days_since_s):
        return lot.pool_less_bytes[window]
    # A figure of the whole window knows of them.
    if window == WINDOW_ROLLING - 1 and not pool_figured(lot, window) and lot.pool_days_told & ((1 << rolling_places(lot)) - 1):
        return lot.pool_less_bytes[window]
    return 0


cdef inline int64_t _pool_moved_bytes(const Lot *lot, int window) noexcept nogil:
    """What is used in a window beyond what was ever counted."""
    cdef int64_t moved = lot.pool_offset_bytes[window]
    _add(&moved, lot.pool_beside_bytes[window])
    _add(&moved, -_pool_void_bytes(lot, window))
    _add(&moved, lot.pool_correction_bytes[window])
    _add(&moved, lot.pool_straddling_bytes[window])
    return max(min(moved, BYTES_MAX), -BYTES_MAX)


cdef inline int64_t pool_used_bytes(const Lot *lot, int window) noexcept nogil:
    return <int64_t> lot.pool_counted_bytes + _pool_moved_bytes(lot, window)


cdef inline int64_t pool_left_bytes(const Lot *lot) noexcept nogil:
    """What is left until the nearest cap of the pool; negative past it, NO_LIMIT where there is none."""
    if lot.pool_limit_bytes == NO_LIMIT:
        return NO_LIMIT
    return lot.pool_limit_bytes - <int64_t> lot.pool_counted_bytes


cdef inline int64_t pool_headroom_bytes(const Lot *lot) noexcept nogil:
    """And what of that no lease may use that is under way."""
    if lot.pool_limit_bytes == NO_LIMIT:
        return NO_LIMIT
    return max(pool_left_bytes(lot), -BYTES_MAX) - min(lot.pool_claimed_bytes, BYTES_MAX)


cdef inline bint pool_has(const State *state, const Group *group, int64_t expected) noexcept nogil:
    """Whether a SIM of the group may be handed out to who needs so much, by what its lot shares."""
    return not group.pool or pool_headroom_bytes(&state.lots[group.pool]) >= expected


cdef inline int64_t sim_headroom_bytes(const State *state, const Sim *sim) noexcept nogil:
    """Bytes until the nearest cap, its own or its pool's; negative past it, NO_LIMIT where there is none."""
    cdef const Group *group = &state.groups[sim.group]
    cdef int64_t own = NO_LIMIT if sim.limit_bytes == NO_LIMIT else headroom_bytes(sim)
    return min(own, pool_headroom_bytes(&state.lots[group.pool])) if group.pool else own


# ---------------------------------------------------------------------------------------------------------- claims

cdef inline bint _claims(const Sim *sim) noexcept nogil:
    return sim.occupancy == RESERVED or sim.occupancy == ASSIGNED or sim.held


cdef int64_t pool_claim_bytes(const State *state, const Sim *sim) noexcept nogil:
    """What the lease that the SIM is of may still use of a pool."""
    return <int64_t> sim.rest_sequence if state.groups[sim.group].pool and _claims(sim) else 0


cdef void pool_occupy(State *state, Sim *sim, int occupancy) noexcept nogil:
    """A SIM of a pool changes its occupancy: its claim begins with nothing, or is over."""
    cdef bint claims = occupancy == RESERVED or occupancy == ASSIGNED
    if _claims(sim):
        if claims:
            return
        _add(&state.lots[state.groups[sim.group].pool].pool_claimed_bytes, -<int64_t> sim.rest_sequence)
    sim.rest_sequence = 0


cdef void pool_claim(State *state, uint32_t index, int64_t claim) noexcept nogil:
    """So much may be used on the SIM, which is reserved, assigned or held."""
    cdef Sim *sim = &state.sims[index]
    cdef int64_t *claimed = &state.lots[state.groups[sim.group].pool].pool_claimed_bytes
    claim = min(claim, CLAIM_MAX)
    _add(claimed, claim - <int64_t> sim.rest_sequence)
    sim.rest_sequence = <uint64_t> claim


cdef void pool_count(State *state, uint32_t index, uint64_t delta, bint claimed, uint64_t now_ms) noexcept nogil:
    """So much more was used on a SIM of a pool. ``claimed``: by the lease that its claim is for."""
    cdef Sim *sim = &state.sims[index]
    cdef uint32_t entity = state.groups[sim.group].pool
    cdef Lot *lot = &state.lots[entity]
    lot.pool_counted_bytes += delta
    if claimed:
        delta = min(delta, sim.rest_sequence)
        sim.rest_sequence -= delta
        _add(&lot.pool_claimed_bytes, -<int64_t> delta)
    pool_judge(state, entity, True, now_ms)


# -------------------------------------------------------------------------------------------------------- its state

cdef void pool_judge(State *state, uint32_t entity, bint tell, uint64_t now_ms) noexcept nogil:
    """Hides the lot or shows it again, by what is left, and has the health of its SIMs follow."""
    cdef Lot *lot = &state.lots[entity]
    cdef int64_t counted = <int64_t> lot.pool_counted_bytes
    cdef int health = 0
    if counted > lot.pool_exhausted_bytes:
        health = EXHAUSTED
    elif counted > lot.pool_low_bytes:
        health = LOW
    if health == lot.pool_health:
        return
    lot.pool_health = <uint8_t> health
    lot_show(state, entity)
    lot_judge_sims(state, entity, now_ms)
    if tell:
        event(
            state, EVENT_POOL, NONE_INDEX, NONE_SHORT, NONE_INDEX, health if health else <int> HEALTHY, entity,
            <uint64_t> pool_left_bytes(lot))


cdef void pool_follow(State *state, uint32_t entity, bint tell, uint64_t now_ms) noexcept nogil:
    """A cap, an offset or a watermark is another. ``tell``: not where a plan's lots all follow it."""
    cdef Lot *lot = &state.lots[entity]
    cdef const int64_t *plan = state.entities[state.entities[entity].numbers[<int> LOT_PLAN]].numbers
    cdef const int64_t *settings = state.header.settings
    cdef int64_t low = plan[<int> PLAN_LOW_BYTES], exhausted = plan[<int> PLAN_EXHAUSTED_BYTES]
    cdef int64_t end, quota
    cdef int window
    if not lot.pooled:
        return
    low = low if low >= 0 else settings[<int> LOW_BYTES]
    exhausted = exhausted if exhausted >= 0 else settings[<int> EXHAUSTED_BYTES]
    lot.pool_limit_bytes = lot.pool_low_bytes = lot.pool_exhausted_bytes = NO_LIMIT
    for window in range(WINDOWS):
        quota = lot.quota_bytes[window]
        if quota < 0 or not lot_pools(lot, window):
            continue
        end = quota - _pool_moved_bytes(lot, window)
        lot.pool_limit_bytes = min(lot.pool_limit_bytes, end)
        lot.pool_low_bytes = min(lot.pool_low_bytes, end - max(low, quota >> POOL_LOW_SHIFT))
        lot.pool_exhausted_bytes = min(lot.pool_exhausted_bytes, end - max(exhausted, quota >> POOL_EXHAUSTED_SHIFT))
    pool_judge(state, entity, tell, now_ms)


cdef void pools_follow(State *state, uint64_t now_ms) noexcept nogil:
    cdef uint32_t entity
    for entity in range(state.header.entities_count):
        if state.entities[entity].kind == LOT:
            pool_follow(state, entity, True, now_ms)


cdef void pool_forget(Lot *lot, int window) noexcept nogil:
    """Its own ledger of the window is over. Up to when figures were told stays."""
    lot.pool_correction_bytes[window] = 0
    lot.pool_straddling_bytes[window] = 0
    lot.pool_added_bytes[window] = 0
    if lot.pool_as_of_s[window]:
        lot.pool_raised_bytes[window] = 0
        lot.pool_carrier_bytes[window] = -1  # told again it says something again


cdef int64_t _pool_beyond_bytes(const Lot *lot) noexcept nogil:
    """What the carrier counted beyond us in the rolling window, by its figure of the pool: without what only makes up for what figures
    of its SIMs are less, which goes with those."""
    cdef int64_t beyond = lot.pool_correction_bytes[WINDOW_ROLLING - 1]
    if pool_figured(lot, WINDOW_ROLLING - 1):
        _add(&beyond, lot.pool_less_bytes[WINDOW_ROLLING - 1])
    return max(beyond, <int64_t> 0)


cdef void pool_days_changed(Lot *lot) noexcept nogil:
    """A figure of all rolling days was of others than it has now: what it had beyond us may be of any of them, what it had less holds no more."""
    cdef int window = WINDOW_ROLLING - 1
    cdef int64_t beyond = _pool_beyond_bytes(lot), straddling = lot.pool_straddling_bytes[window]
    pool_forget(lot, window)
    lot.pool_correction_bytes[window] = beyond
    lot.pool_straddling_bytes[window] = straddling


cdef int64_t _days_bytes(const Lot *lot, int places) noexcept nogil:
    cdef int64_t days = 0
    cdef int place
    for place in range(places):
        _add(&days, lot.pool_days[place])
    return days


cdef void pool_count_days(Lot *lot, int places) noexcept nogil:
    """So many places of its ring counted, and others do now."""
    _add(&lot.pool_offset_bytes[<int> WINDOW_ROLLING - 1], _days_bytes(lot, rolling_places(lot)) - _days_bytes(lot, places))


cdef int64_t _turn_days(int64_t *days, int places) noexcept nogil:
    """Gives what leaves the ring."""
    cdef int64_t left = 0
    cdef int place
    for place in range(ROLLING_DAYS - places, ROLLING_DAYS):
        _add(&left, days[place])
    memmove(&days[places], &days[0], (ROLLING_DAYS - places) * sizeof(int64_t))
    memset(&days[0], 0, places * sizeof(int64_t))
    return left


cdef void _keep_left(Lot *lot, int64_t left) noexcept nogil:
    """So much of the days left the ring: it joins the last place, which is of no single day then."""
    _add(&lot.pool_days[<int> ROLLING_DAYS - 1], left)
    lot.sims_days_bytes[<int> ROLLING_DAYS - 1] = 0
    lot.pool_days_raised_bytes[<int> ROLLING_DAYS - 1] = 0
    lot.pool_days_own_bytes[<int> ROLLING_DAYS - 1] = 0
    lot.pool_days_told &= <uint16_t> ~(1 << (ROLLING_DAYS - 1))


cdef void pool_restart(State *state, uint32_t entity, int window, int places, uint64_t now_ms) noexcept nogil:
    """The window starts anew for all of the lot at once; of a rolling one, of whose ring so many places counted, a day is over, or a step.
    Does nothing where it is not pooled."""
    cdef Lot *lot = &state.lots[entity]
    cdef int64_t today, left, own, from_bytes = <int64_t> lot.pool_counted_bytes, past = 0
    cdef bint late = lot.pool_late_s and lot.pool_late_s >= lot.from_s[window]
    if not lot_pools(lot, window):
        return
    if window == WINDOW_ROLLING - 1:
        today = lot.pool_offset_bytes[window]
        _add(&today, <int64_t> lot.pool_counted_bytes)
        # As of a SIM: what its carrier counted beyond us joins the days as today's, what it counted less held up to now.
        _add(&today, _pool_beyond_bytes(lot))
        _add(&today, lot.pool_straddling_bytes[window])
        _add(&today, -_days_bytes(lot, places))
        if late:
            own = lot.pool_offset_bytes[window] - _days_bytes(lot, places)
            _add(&own, <int64_t> lot.pool_counted_bytes)
            from_bytes -= max(min(from_bytes - lot.pool_late_bytes, own), <int64_t> 0)
            today -= <int64_t> lot.pool_counted_bytes - from_bytes
        lot.pool_days_told = <uint16_t> (<uint32_t> lot.pool_days_told << lot.turn_places)
        left = _turn_days(lot.pool_days, lot.turn_places)
        _turn_days(lot.sims_days_bytes, lot.turn_places)
        _turn_days(lot.pool_days_raised_bytes, lot.turn_places)
        _turn_days(lot.pool_days_own_bytes, lot.turn_places)
        lot.pool_days[lot.turn_place] = max(today, <int64_t> 0)
        if lot.turn_keeps:
            _keep_left(lot, left)
        past = _days_bytes(lot, rolling_places(lot))
    elif late:
        from_bytes = max(lot.pool_late_bytes, -lot.pool_offset_bytes[window])
    pool_forget(lot, window)
    lot.pool_offset_bytes[window] = past
    _add(&lot.pool_offset_bytes[window], -from_bytes)
    pool_follow(state, entity, True, now_ms)


cdef bint pool_takes(const Lot *lot, int window, int64_t more) noexcept nogil:
    """Whether the openings of its SIMs and figures of its days may come to so much more."""
    return (
        more <= 0 or not lot_pools(lot, window)
        or <int64_t> lot.pool_counted_bytes + lot.pool_offset_bytes[window] <= POOL_MAX - more
    )


cdef bint pool_takes_day(const Lot *lot, uint64_t place, int64_t more) noexcept nogil:
    """Whether a figure of a day of one of its SIMs may come to so much more."""
    if not lot_pools(lot, WINDOW_ROLLING - 1):
        return True
    if lot.sims_days_bytes[place] > POOL_MAX - max(more, <int64_t> 0):
        return False
    if (lot.pool_days_told >> place) & 1:  # only a raise counts
        more += lot.sims_days_bytes[place] - lot.pool_days[place]
    return pool_takes(lot, WINDOW_ROLLING - 1, more)


cdef bint pool_takes_told(const Lot *lot, int window, int64_t more) noexcept nogil:
    """Whether the carrier's figures of its single SIMs may."""
    return more <= 0 or not lot.pooled or lot.sims_told_bytes[window] <= POOL_MAX - more


cdef int64_t pool_takes_beside_bytes(const Lot *lot, int window) noexcept nogil:
    """What may still come to stand beside what was counted on its SIMs, so that their sum doesn't wrap."""
    cdef int64_t beside
    if not lot_pools(lot, window):
        return BYTES_MAX
    beside = <int64_t> lot.pool_counted_bytes
    _add(&beside, lot.pool_offset_bytes[window])
    _add(&beside, lot.pool_beside_bytes[window])
    return max(2 * POOL_MAX - beside, <int64_t> 0) if beside > 0 else BYTES_MAX


cdef int64_t pool_room_bytes(const Lot *lot) noexcept nogil:
    """What SIMs that are imported may have used, in any window."""
    cdef int64_t most = 0
    cdef int window
    for window in range(WINDOWS):
        most = max(most, lot.sims_told_bytes[window])
        if lot_pools(lot, window):
            most = max(most, <int64_t> lot.pool_counted_bytes + lot.pool_offset_bytes[window])
    return POOL_MAX - most


cdef void pool_opened(State *state, uint32_t index, const uint64_t *openings) noexcept nogil:
    """A SIM was imported that had used so much in the windows."""
    cdef Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef bint figured = index < state.header.ledger_end
    cdef int window
    for window in range(WINDOWS):
        if lot_pools(lot, window):
            _add(&lot.pool_offset_bytes[window], <int64_t> openings[window])
            # What its day only makes up for in a longer window no figure of that takes back.
            if figured and pool_figured(lot, window) and state.sims_ledger[index].as_of_s[window] > lot.pool_as_of_s[window]:
                _add(&lot.pool_added_bytes[window], <int64_t> openings[window])


cdef void pool_beside(State *state, uint32_t index, int window, int64_t more, int64_t allowance) noexcept nogil:
    """What stands in a SIM's ledger has changed by so much, and of that what is only allowed for."""
    cdef Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    if lot_pools(lot, window):
        _add(&lot.pool_beside_bytes[window], more)
        _add(&lot.pool_allowance_bytes[window], allowance)


cdef void pool_less(State *state, uint32_t index, int window, int64_t more) noexcept nogil:
    """So much more of what stands in a SIM's ledger is beyond what we counted, of what is less."""
    cdef Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    if lot_pools(lot, window):
        _add(&lot.pool_less_bytes[window], more)


cdef void pool_turned(State *state, uint32_t index, int64_t kept) noexcept nogil:
    """A day of a SIM's rolling window is over, and so much of what its ledger held stays in the window, as of that day."""
    cdef Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    if lot_pools(lot, WINDOW_ROLLING - 1):
        _add(&lot.pool_days[lot.turn_place], kept)
        if lot.turn_place < rolling_places(lot):
            _add(&lot.pool_offset_bytes[<int> WINDOW_ROLLING - 1], kept)


# ---------------------------------------------------------------------------------------------------- carriers' figures

cdef inline bint pool_figured(const Lot *lot, int window) noexcept nogil:
    """Whether a figure of all its SIMs holds in the window."""
    return lot.pool_as_of_s[window] and lot.pool_carrier_bytes[window] >= 0


cdef inline bint _pool_young(const Lot *lot, int window, uint32_t as_of_s, uint64_t now_ms) noexcept nogil:
    """Whether what was told then is of the window that runs, also where nobody says when that began."""
    return as_of_s and (as_of_s + _lasts_s(lot, window)) * 1000 >= now_ms and not (lot.resetting >> window) & 1


cdef inline bint _in_sum(uint32_t since_s, uint32_t as_of_s) noexcept nogil:
    return since_s and as_of_s >= since_s


cdef int64_t pool_summed_bytes(const SimLedger *ledger, int window, uint32_t since_s) noexcept nogil:
    """What is of this SIM of a sum of what its carrier said of the SIMs of a pool one by one, from an instant on."""
    return max(ledger.carrier_bytes[window], <int64_t> 0) if _in_sum(since_s, ledger.as_of_s[window]) else 0


cdef inline bint _sum_holds(const Lot *lot, int window, uint32_t since_s, uint64_t now_ms) noexcept nogil:
    """Whether all that is in a sum can be of the window that runs, also where nobody says when that began."""
    return since_s and (since_s + _lasts_s(lot, window)) * 1000 >= now_ms


cdef int64_t _told_of_sims_bytes(const Lot *lot, int window, uint64_t now_ms) noexcept nogil:
    """What the carrier said of the SIMs of the pool one by one, in the window that runs."""
    if _sum_holds(lot, window, lot.sims_told_since_s[window], now_ms):
        return lot.sims_told_bytes[window]
    return lot.sims_next_bytes[window] if _sum_holds(lot, window, lot.sims_next_since_s[window], now_ms) else 0


cdef void pool_sims_untold(Lot *lot, int window, uint64_t since_s) noexcept nogil:
    """The window starts anew, or did then: what was told of its SIMs by now is in no sum any more."""
    lot.sims_told_bytes[window] = 0
    lot.sims_told_since_s[window] = <uint32_t> since_s if lot.pooled else 0
    lot.sims_next_bytes[window] = 0
    lot.sims_next_since_s[window] = 0


cdef void _begin_sums(Lot *lot, int window, uint32_t as_of_s, uint64_t now_ms) noexcept nogil:
    """A figure of one SIM is about to be taken. A sum has all figures from an instant on: where none is there this one is in it,
    however late it comes. Where no reset says when the window began, another one is begun when it is of half of the time that
    the window lasts, and takes its place at the end of that."""
    cdef uint64_t half_s = _lasts_s(lot, window) // 2
    # What was taken before is in no sum that is begun.
    cdef uint32_t since_s = max(lot.sims_told_last_s[window] + 1, <uint32_t> (now_ms // 1000 - min(now_ms // 1000, half_s)))
    if not _sum_holds(lot, window, lot.sims_told_since_s[window], now_ms):
        lot.sims_told_bytes[window] = lot.sims_next_bytes[window]
        lot.sims_told_since_s[window] = lot.sims_next_since_s[window]
        lot.sims_next_bytes[window] = 0
        lot.sims_next_since_s[window] = 0
        if not _sum_holds(lot, window, lot.sims_told_since_s[window], now_ms):
            lot.sims_told_bytes[window] = 0
            lot.sims_told_since_s[window] = since_s
            if _sum_holds(lot, window, as_of_s, now_ms):
                lot.sims_told_since_s[window] = max(lot.sims_told_last_s[window] + 1, min(since_s, as_of_s))
    if not lot.sims_next_since_s[window] and (lot.sims_told_since_s[window] + half_s) * 1000 < now_ms:
        lot.sims_next_since_s[window] = since_s


cdef void _sum_up(Lot *lot, int window, int64_t more, uint32_t as_of_s) noexcept nogil:
    if _in_sum(lot.sims_told_since_s[window], as_of_s):
        _add(&lot.sims_told_bytes[window], more)
    if _in_sum(lot.sims_next_since_s[window], as_of_s):
        _add(&lot.sims_next_bytes[window], more)


cdef void pool_sim_untold(State *state, uint32_t index, int window) noexcept nogil:
    """What a carrier said of one SIM says nothing any more."""
    cdef const SimLedger *ledger = &state.sims_ledger[index]
    cdef Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    if lot.pooled:
        _sum_up(lot, window, -max(ledger.carrier_bytes[window], <int64_t> 0), ledger.as_of_s[window])


cdef int64_t pool_sim_told(
    State *state, uint32_t index, int window, int64_t carrier_bytes, uint32_t as_of_s, int64_t since, uint64_t now_ms
) noexcept nogil:
    """A carrier's figure of one SIM, on which ``since`` was counted since, takes the place of its last one. Gives by how much the
    sum fell, or what was said of this SIM, if that was in no sum."""
    cdef SimLedger *ledger = &state.sims_ledger[index]
    cdef Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef int64_t before = 0
    if lot.pooled:
        _begin_sums(lot, window, as_of_s, now_ms)
        before = lot.sims_told_bytes[window]
        pool_sim_untold(state, index, window)
        _sum_up(lot, window, carrier_bytes, as_of_s)
        before -= lot.sims_told_bytes[window]
        if _sum_holds(lot, window, ledger.as_of_s[window], now_ms):
            before = max(before, ledger.carrier_bytes[window] - carrier_bytes)
        lot.sims_told_last_s[window] = max(lot.sims_told_last_s[window], as_of_s)
        lot.sims_told_counted_bytes[window] = lot.pool_counted_bytes - <uint64_t> since
    ledger.carrier_bytes[window] = carrier_bytes
    ledger.as_of_s[window] = as_of_s
    return max(before, <int64_t> 0)


cdef int64_t _told_least_bytes(
    const State *state, const Lot *lot, int window, uint32_t as_of_s, uint64_t now_ms
) noexcept nogil:
    """What the carrier itself, no later, said was used in a window: on single SIMs, or in a shorter window in it."""
    cdef int64_t least = 0, days = 0
    cdef uint32_t told_last_s
    cdef int inner, place
    for inner in range(WINDOWS):
        if inner != window and not _lies_in(state, lot, inner, window, now_ms):
            continue
        if as_of_s >= lot.sims_told_last_s[inner]:
            least = max(least, _told_of_sims_bytes(lot, inner, now_ms))
        if (
            inner != window and lot_pools(lot, inner) and as_of_s >= lot.pool_as_of_s[inner]
            and _pool_young(lot, inner, lot.pool_as_of_s[inner], now_ms)
        ):
            least = max(least, lot.pool_carrier_bytes[inner])
            told_last_s = lot.sims_told_last_s[inner]
            if inner == WINDOW_ROLLING - 1:  # which a day lies in, and may have raised
                told_last_s = max(told_last_s, lot.sims_told_last_s[WINDOW_DAY - 1])
            if as_of_s >= told_last_s:
                least = max(least, lot.pool_carrier_bytes[inner] + lot.pool_raised_bytes[inner])
    if window == WINDOW_ROLLING - 1 and days_told(state, lot, as_of_s, now_ms):
        for place in range(rolling_places(lot)):
            _add(&days, max(lot.pool_days[place] if (lot.pool_days_told >> place) & 1 else 0, lot.sims_days_bytes[place]))
    return max(least, days)


cdef int64_t _floor_bytes(const Lot *lot, int inner, int window, uint64_t now_ms) noexcept nogil:
    """No less is used by now in a window that a figure of the pool holds for: what the carrier said of the SIMs one by one, of whichever
    instants, in it or in one that lies in it, and what was counted since the pool's figure, or since the SIMs' if any of them is later."""
    cdef int64_t told = _told_of_sims_bytes(lot, inner, now_ms)
    cdef uint64_t counted_bytes = lot.pool_told_counted_bytes[window]
    if lot.sims_told_last_s[inner] > lot.pool_as_of_s[window]:
        counted_bytes = max(counted_bytes, lot.sims_told_counted_bytes[inner])
    return told + <int64_t> (lot.pool_counted_bytes - counted_bytes) if told else 0


cdef int64_t pool_base_bytes(const Lot *lot, int window) noexcept nogil:
    """What is used by the pool's own figure, and what was counted and added since: without what is only allowed for, and the raise."""
    cdef int64_t base = <int64_t> lot.pool_counted_bytes
    _add(&base, lot.pool_offset_bytes[window])
    _add(&base, lot.pool_beside_bytes[window])
    _add(&base, lot.pool_correction_bytes[window])
    _add(&base, -lot.pool_raised_bytes[window])
    _add(&base, -lot.pool_allowance_bytes[window])
    return max(min(base, BYTES_MAX), -BYTES_MAX)


cdef void pool_bases(const Lot *lot, int64_t *bases) noexcept nogil:
    cdef int window
    for window in range(WINDOWS):
        bases[window] = pool_base_bytes(lot, window)


cdef void _raise_by(Lot *lot, int window, int64_t raised) noexcept nogil:
    raised = max(raised, <int64_t> 0)
    _add(&lot.pool_correction_bytes[window], raised - lot.pool_raised_bytes[window])
    lot.pool_raised_bytes[window] = raised


cdef void pool_contain_sims(
    State *state, uint32_t index, int of_window, int64_t fall, const int64_t *bases, uint64_t now_ms
) noexcept nogil:
    """A carrier's figure of one SIM was taken: none of its pool counts less than what it says of the SIMs. ``fall``: by so much
    the carrier took back what it had said; ``bases``: of before it."""
    cdef const SimLedger *ledger = &state.sims_ledger[index]
    cdef Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef int64_t least, base
    cdef int window, inner
    if not lot.pooled:
        return
    for window in range(WINDOWS):
        if (
            lot_pools(lot, window) and pool_figured(lot, window)
            and (window == of_window or _lies_in(state, lot, of_window, window, now_ms))
        ):
            base = pool_base_bytes(lot, window)
            least = 0
            for inner in range(WINDOWS):
                if inner == window or _lies_in(state, lot, inner, window, now_ms):
                    least = max(least, _floor_bytes(lot, inner, window, now_ms))
            if ledger.as_of_s[of_window] <= lot.pool_as_of_s[window]:
                least = max(
                    least,
                    ledger.carrier_bytes[of_window] + <int64_t> (lot.pool_counted_bytes - lot.pool_told_counted_bytes[window]))
            # By no more than the fall is less used than before it.
            _raise_by(lot, window, max(
                least - base,
                lot.pool_raised_bytes[window] - max(fall + min(base - bases[window], <int64_t> 0), <int64_t> 0)))


cdef int64_t pool_added_most_bytes(const State *state, uint32_t index, int window, uint64_t now_ms) noexcept nogil:
    """What figures of one SIM, of later instants than the pool's, can have added to it at most: those of shorter windows no more
    than the SIM's correction, where that is all of them. Else a part of it is known to the pool's figure, and nobody which."""
    cdef const SimLedger *ledger = &state.sims_ledger[index]
    cdef const Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef uint32_t told_s = 0
    cdef int inner, place
    if index >= state.header.ledger_end:
        return 0
    if ledger.as_of_s[window] > lot.pool_as_of_s[window]:
        return BYTES_MAX
    if window == WINDOW_DAY - 1 or ledger.as_of_s[window]:
        return 0
    for inner in range(WINDOW_DAY - 1, WINDOWS):
        told_s = max(told_s, ledger.as_of_s[inner])
    if window == WINDOW_CYCLE - 1 and index < state.header.rolling_end:
        for place in range(rolling_places(lot)):
            if rolling_day_told_bytes(&state.sims_rolling[index], place):
                told_s = max(told_s, <uint32_t> (_today_begun_s(state, lot, now_ms) - place * (DAY_MS // 1000)))
                break
    return max(ledger.correction_bytes[window], <int64_t> 0) if told_s > lot.pool_as_of_s[window] else 0


cdef void pool_told(State *state, uint32_t index, int window, int64_t more, uint32_t as_of_s, int64_t added_most) noexcept nogil:
    """A carrier's figure of one SIM has changed what is used on it by so much; its last ones had added ``added_most`` at most."""
    cdef Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef int64_t back
    if not lot_pools(lot, window) or not pool_figured(lot, window):
        return
    if as_of_s > lot.pool_as_of_s[window]:
        if more > 0:
            _add(&lot.pool_added_bytes[window], more)
            return
        back = min(-more, min(added_most, lot.pool_added_bytes[window]))
        lot.pool_added_bytes[window] -= back
        more += back
    _add(&lot.pool_correction_bytes[window], -more)


cdef void _raise_day(Lot *lot, int place) noexcept nogil:
    """No less was used on a day that the carrier told a figure of all of them of than what it said of the SIMs one by one."""
    cdef int64_t told = lot.pool_days[place] - lot.pool_days_raised_bytes[place]
    cdef int64_t raised = max(lot.sims_days_bytes[place] - told, <int64_t> 0)
    _add(&lot.pool_offset_bytes[<int> WINDOW_ROLLING - 1], raised - lot.pool_days_raised_bytes[place])
    lot.pool_days[place] = told + raised
    lot.pool_days_raised_bytes[place] = raised


cdef void pool_day_corrected(State *state, uint32_t index, int place, int64_t more, int64_t more_told) noexcept nogil:
    """A carrier counted so much more on a day of a SIM's rolling window that is over, and said so much more of it."""
    cdef Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    if not lot_pools(lot, WINDOW_ROLLING - 1):
        return
    lot.sims_days_bytes[place] += more_told
    if (lot.pool_days_told >> place) & 1:
        _raise_day(lot, place)
    elif more > 0 or not pool_figured(lot, WINDOW_ROLLING - 1):
        _add(&lot.pool_days[place], more)
        _add(&lot.pool_offset_bytes[<int> WINDOW_ROLLING - 1], more)


cdef void pool_follow_day(State *state, Lot *lot, int place, int64_t base, int64_t raised, uint64_t now_ms) noexcept nogil:
    """Another figure was taken of a day of one SIM. While one of all of them holds for it the pool's cycle, which had ``base``, follows
    that: it is changed by no more than the pool's day is, ``raised``."""
    cdef int window = WINDOW_CYCLE - 1
    cdef bint told = _pool_is_told(lot, window, now_ms)
    cdef int64_t more
    if (
        not lot_pools(lot, window) or not lot_pools(lot, WINDOW_ROLLING - 1) or not (lot.pool_days_told >> place) & 1
        or (told and not _place_is_after(state, lot, place, lot.pool_as_of_s[window], now_ms))
    ):
        return
    more = base + raised - pool_base_bytes(lot, window)
    _pool_take_in(lot, window, more if told else _pool_untold_back_bytes(lot, window, more))


cdef void pool_days_untold(State *state, uint32_t index) noexcept nogil:
    """No day of a SIM's rolling window counts any more."""
    cdef Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef int place
    if lot_pools(lot, WINDOW_ROLLING - 1):
        for place in range(ROLLING_DAYS):
            lot.sims_days_bytes[place] -= rolling_day_told_bytes(&state.sims_rolling[index], place)


cdef void pool_allowances_known(State *state, uint32_t index) noexcept nogil:
    """What a SIM of it may have used that nobody reported: a figure of the pool of a later instant knows."""
    cdef SimLedger *ledger = &state.sims_ledger[index]
    cdef const Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef int64_t allowance
    cdef int window
    if index >= state.header.ledger_end:
        return
    for window in range(WINDOWS):
        allowance = ledger.allowance_bytes[window]
        if allowance and lot_pools(lot, window) and pool_figured(lot, window) and lot.pool_as_of_s[window] > ledger.unreported_s:
            ledger.allowance_bytes[window] = 0
            pool_beside(state, index, window, -allowance, -allowance)
            sim_set_offset_bytes(state, index, window, sim_offset_bytes(state, index, window) - allowance)


cdef uint64_t _sims_count(State *state, uint32_t entity) noexcept nogil:
    cdef const Class *sim_class = lot_class(state, entity)
    cdef uint64_t count = 0
    cdef uint32_t local
    for local in range(<uint32_t> sim_class.groups_count):
        if state.groups[sim_class.members[local]].lot == entity:
            count += state.groups[sim_class.members[local]].sims_count
    return count


cdef inline int64_t pool_day_excess_bytes(const Lot *lot) noexcept nogil:
    """What the pool's figure of the day has beyond us and what figures of its SIMs have, at most: without what only makes up for what
    those are less."""
    cdef int64_t excess = lot.pool_correction_bytes[WINDOW_DAY - 1] + lot.pool_straddling_bytes[WINDOW_DAY - 1]
    if pool_figured(lot, WINDOW_DAY - 1):
        _add(&excess, lot.pool_less_bytes[WINDOW_DAY - 1])
    return max(excess, <int64_t> 0)


cdef inline bint _pool_is_told(const Lot *lot, int window, uint64_t now_ms) noexcept nogil:
    """Whether the carrier has said something of the pool's window that runs."""
    return pool_figured(lot, window) and _pool_young(lot, window, lot.pool_as_of_s[window], now_ms)


cdef void _pool_take_in(Lot *lot, int window, int64_t more) noexcept nogil:
    """So much more was used in a window that the pool shares, or less, as its figures say of shorter ones in it."""
    _add(&lot.pool_correction_bytes[window], min(more, max(POOL_MAX - lot.pool_correction_bytes[window], <int64_t> 0)))


cdef int64_t _pool_untold_back_bytes(const Lot *lot, int window, int64_t more) noexcept nogil:
    """What of less comes off a window that no figure holds for: no more than figures of shorter ones added to it."""
    return max(more, -max(lot.pool_correction_bytes[window] - lot.pool_raised_bytes[window], <int64_t> 0))


cdef int64_t _pool_day_all_bytes(const Lot *lot) noexcept nogil:
    """And with what figures of its SIMs have."""
    cdef int64_t excess = lot.pool_beside_bytes[WINDOW_DAY - 1]
    _add(&excess, lot.pool_correction_bytes[WINDOW_DAY - 1])
    _add(&excess, lot.pool_straddling_bytes[WINDOW_DAY - 1])
    _add(&excess, -lot.pool_allowance_bytes[WINDOW_DAY - 1])
    return max(excess, <int64_t> 0)


cdef void pool_carry_day(
    const State *state, Lot *lot, int64_t before, uint32_t told_s, int64_t since, const int64_t *bases, uint64_t now_ms
) noexcept nogil:
    """A figure of the day was taken: what it changes of what the pool's has beyond us changes the longer windows that are shared too, as
    of a SIM (ledger.pxi, ``_carry``). ``told_s``: the instant of the pool's last one; 0: none held, or this one is of one SIM, so that what
    the pool's had beyond it is less: ``bases`` of before it, by no more than the SIM's own carry added."""
    cdef int64_t more, most
    cdef int window
    if not lot.pooled:
        return
    for window in range(WINDOWS):
        if window == WINDOW_DAY - 1 or not lot_pools(lot, window) or not _lies_in(state, lot, WINDOW_DAY - 1, window, now_ms):
            continue
        more = pool_day_excess_bytes(lot) - before
        if not _pool_is_told(lot, window, now_ms):
            more = _pool_untold_back_bytes(lot, window, more)
        elif not _day_is_after(lot, lot.pool_as_of_s[window]):
            if not told_s or told_s < lot.pool_as_of_s[window]:
                continue
            most = (
                lot.pool_carrier_bytes[window] + lot.pool_carrier_bytes[WINDOW_DAY - 1]
                + lot.pool_straddling_bytes[WINDOW_DAY - 1] + since)
            more = max(min(more, most - pool_base_bytes(lot, window)), <int64_t> 0)
        if bases != NULL:
            more = max(more, min(bases[window] - pool_base_bytes(lot, window), <int64_t> 0))
        _pool_take_in(lot, window, more)


cdef int64_t _pool_known_bytes(const Lot *lot, int window) noexcept nogil:
    """What is used in a window, without what is only allowed for: that goes in each as a figure of it comes."""
    cdef int64_t known = pool_used_bytes(lot, window)
    _add(&known, -lot.pool_allowance_bytes[window])
    return known


cdef int64_t _told_in_bytes(const State *state, const Lot *lot, int window, uint64_t now_ms) noexcept nogil:
    """What was used in a longer window by what figures say of single SIMs, of the day, of days or of all rolling days in it."""
    cdef int64_t begun_ms = _begun_ms(state, lot, window, now_ms), least = 0, of_day = 0, days = 0, before
    cdef bint told = _pool_is_told(lot, window, now_ms)
    cdef int place
    if not told:
        least = _told_of_sims_bytes(lot, window, now_ms)
        if least:
            _add(&least, <int64_t> (lot.pool_counted_bytes - lot.sims_told_counted_bytes[window]))
    if _pool_is_told(lot, WINDOW_DAY - 1, now_ms) and _lies_in(state, lot, WINDOW_DAY - 1, window, now_ms):
        of_day = _pool_known_bytes(lot, WINDOW_DAY - 1)
    if window == WINDOW_CYCLE - 1 and told and of_day and _day_is_after(lot, lot.pool_as_of_s[window]):
        before = lot.pool_carrier_bytes[window]
        _add(&before, of_day)
        least = max(least, before)
    if lot_pools(lot, WINDOW_ROLLING - 1):
        # Whole days, and of a cycle that was told only where somebody says when it began: it may have been after them.
        if (
            window == WINDOW_CYCLE - 1 and _pool_is_told(lot, WINDOW_ROLLING - 1, now_ms) and (lot.last_reset_ms[window] or not told)
            and _begun_ms(state, lot, WINDOW_ROLLING - 1, now_ms) - (WHOLE_DAYS_MS if lot.rolling_days > 1 else 0) >= begun_ms
        ):
            least = max(least, _pool_known_bytes(lot, WINDOW_ROLLING - 1))
        for place in range(rolling_places(lot) if window == WINDOW_ROLLING - 1 or not told else 0):
            if (lot.pool_days_told >> place) & 1 and (
                window == WINDOW_ROLLING - 1 or _days_begun_ms(state, lot, place, now_ms) >= begun_ms
            ):
                _add(&days, lot.pool_days[place])
        if lot.last_reset_ms[WINDOW_DAY - 1] >= lot.last_reset_ms[WINDOW_ROLLING - 1] > 0:
            _add(&days, of_day)  # which began when they were over
    return max(max(least, of_day), days)


cdef void pool_contain_told(State *state, Lot *lot, uint64_t now_ms) noexcept nogil:
    """A carrier's figure was taken: no longer window of the pool has less than what its figures say of what is in it."""
    cdef int64_t missing
    cdef int window
    for window in range(WINDOWS - 1, -1, -1):  # the rolling days before the cycle
        if window != WINDOW_DAY - 1 and lot_pools(lot, window) and not (lot.resetting >> window) & 1:
            missing = _told_in_bytes(state, lot, window, now_ms)
            _add(&missing, -_pool_known_bytes(lot, window))
            _pool_take_in(lot, window, max(missing, <int64_t> 0))


cdef inline int64_t pool_day_most_bytes(const Lot *lot, int place) noexcept nogil:
    """What of a day is in the cycle: as of a SIM."""
    return max(lot.pool_days[place], lot.pool_days_own_bytes[place])


cdef void _pool_contain_days(const State *state, Lot *lot, uint64_t now_ms) noexcept nogil:
    """No less was used in the cycle than by the pool's figure of it and on the days of its rolling window since."""
    cdef int window = WINDOW_CYCLE - 1
    cdef uint32_t as_of_s = lot.pool_as_of_s[window]
    cdef int64_t least = lot.pool_carrier_bytes[window]
    cdef int64_t today = lot.pool_offset_bytes[WINDOW_ROLLING - 1]
    cdef int place
    if (
        not lot_pools(lot, window) or not lot_pools(lot, WINDOW_ROLLING - 1) or not _pool_is_told(lot, window, now_ms)
        or not _days_follow(state, lot, as_of_s, now_ms)
    ):
        return
    _add(&today, <int64_t> lot.pool_counted_bytes)
    for place in range(rolling_places(lot)):
        _add(&today, -lot.pool_days[place])
        if _place_is_after(state, lot, place, as_of_s, now_ms):
            _add(&least, pool_day_most_bytes(lot, place))
    _add(&least, max(today, <int64_t> 0))
    if _pool_is_told(lot, WINDOW_DAY - 1, now_ms):
        _add(&least, _pool_day_all_bytes(lot))
    _pool_take_in(lot, window, max(min(least, BYTES_MAX) - pool_base_bytes(lot, window) - lot.pool_raised_bytes[window], <int64_t> 0))


cdef void _pool_carry_ended_day(const State *state, Lot *lot, int place, int64_t more, uint64_t now_ms) noexcept nogil:
    """So much more was used on a day of the rolling window that is over, or less: the same for the cycle that it is of, if that is shared."""
    cdef int window = WINDOW_CYCLE - 1
    cdef bint told = _pool_is_told(lot, window, now_ms)
    if (
        not lot_pools(lot, window) or _days_begun_ms(state, lot, place, now_ms) < _begun_ms(state, lot, window, now_ms)
        or (told and not _place_is_after(state, lot, place, lot.pool_as_of_s[window], now_ms))
    ):
        return
    _pool_take_in(lot, window, more if told else _pool_untold_back_bytes(lot, window, more))


cdef int _correct_pool(
    State *state, uint16_t entity, int window, int64_t carrier_bytes, uint64_t counted_bytes, uint64_t straddling_bytes,
    uint32_t as_of_s, bint dry_run, uint64_t now_ms, int64_t *correction, int64_t *lowered
) noexcept nogil:
    """A figure of a whole window."""
    cdef Lot *lot = &state.lots[entity]
    cdef int64_t own, excess, least = 0
    cdef uint32_t day_told_s
    cdef int status, inner
    if not as_of_s:
        return INVALID_ARGUMENT
    if not lot.populated or not lot_pools(lot, window):
        return NO_WINDOW
    if counted_bytes > lot.pool_counted_bytes or straddling_bytes > counted_bytes:
        return INVALID_ARGUMENT
    status = figure_fits(
        state, entity, window, carrier_bytes, as_of_s, lot.pool_as_of_s[window], _sims_count(state, entity), now_ms)
    if status != OK:
        return status
    if (lot.begins >> window) & 1 or (window == WINDOW_ROLLING - 1 and lot.days_since_s):
        return WRONG_STATE
    if as_of_s == lot.pool_as_of_s[window] and carrier_bytes == lot.pool_carrier_bytes[window]:
        correction[0] = lot.pool_correction_bytes[window] - lot.pool_raised_bytes[window]
        return SAME
    if carrier_bytes < _told_least_bytes(state, lot, window, as_of_s, now_ms):
        return IMPOSSIBLE_USAGE
    if pool_figured(lot, window) and _pool_young(lot, window, lot.pool_as_of_s[window], now_ms):
        lowered[0] = max(lot.pool_carrier_bytes[window] - carrier_bytes, <int64_t> 0)
    own = <int64_t> counted_bytes
    _add(&own, lot.pool_offset_bytes[window])
    _add(&own, lot.pool_beside_bytes[window])
    _add(&own, -lot.pool_allowance_bytes[window])
    # Below nothing where what its SIMs' figures are less is hidden (_pool_void_bytes), which no longer is beside this one.
    own = max(own, min(own + <int64_t> (lot.pool_counted_bytes - counted_bytes), <int64_t> 0))
    correction[0] = carrier_bytes - own
    if not dry_run:
        excess = pool_day_excess_bytes(lot)
        day_told_s = lot.pool_as_of_s[WINDOW_DAY - 1] if _pool_is_told(lot, WINDOW_DAY - 1, now_ms) else 0
        lot.pool_correction_bytes[window] = correction[0]
        lot.pool_straddling_bytes[window] = max(min(<int64_t> straddling_bytes, own), <int64_t> 0)
        lot.pool_carrier_bytes[window] = carrier_bytes
        lot.pool_raised_bytes[window] = 0
        lot.pool_added_bytes[window] = 0
        lot.pool_told_counted_bytes[window] = counted_bytes
        lot.pool_as_of_s[window] = as_of_s
        if window == WINDOW_DAY - 1:
            pool_carry_day(state, lot, excess, day_told_s, <int64_t> (lot.pool_counted_bytes - counted_bytes), NULL, now_ms)
        elif day_told_s and _lies_in(state, lot, WINDOW_DAY - 1, window, now_ms) and _day_is_after(lot, as_of_s):
            _pool_take_in(lot, window, _pool_day_all_bytes(lot))
        if window == WINDOW_CYCLE - 1:
            _pool_contain_days(state, lot, now_ms)
        for inner in range(WINDOWS):
            if inner == window or _lies_in(state, lot, inner, window, now_ms):
                least = max(least, _floor_bytes(lot, inner, window, now_ms))
        _raise_by(lot, window, least - pool_base_bytes(lot, window))
        pool_contain_told(state, lot, now_ms)
        pool_follow(state, entity, True, now_ms)
        if lot.pool_allowance_bytes[window]:
            lot_judge_sims(state, entity, now_ms)
    return OK


cdef int _correct_pool_day(
    State *state, uint16_t entity, int64_t carrier_bytes, uint32_t ended_s, bint dry_run, uint64_t now_ms, int64_t *correction
) noexcept nogil:
    """A figure of the day of a rolling window that ended then."""
    cdef Lot *lot = &state.lots[entity]
    cdef uint32_t told_s = lot.pool_as_of_s[WINDOW_ROLLING - 1]
    cdef int64_t more
    cdef uint64_t place = 0
    cdef int status
    if not ended_s:
        return INVALID_ARGUMENT
    if not lot.populated or not lot_pools(lot, WINDOW_ROLLING - 1):
        return NO_WINDOW
    status = day_fits(state, lot, carrier_bytes, ended_s, told_s, _sims_count(state, entity), now_ms, &place)
    if status != OK:
        return status
    correction[0] = carrier_bytes - lot.pool_days[place]
    if (lot.pool_days_told >> place) & 1 and carrier_bytes == lot.pool_days[place] - lot.pool_days_raised_bytes[place]:
        correction[0] = 0
        return SAME
    if correction[0] < 0 and day_covered(state, lot, place, told_s, now_ms):
        correction[0] = 0
        return LATE
    if carrier_bytes < lot.sims_days_bytes[place] or not pool_takes(lot, WINDOW_ROLLING - 1, correction[0]):
        correction[0] = 0
        return IMPOSSIBLE_USAGE
    if not dry_run:
        if not (lot.pool_days_told >> place) & 1:
            lot.pool_days_own_bytes[place] = lot.pool_days[place]
        more = -pool_day_most_bytes(lot, <int> place)
        lot.pool_days[place] = carrier_bytes
        _add(&more, pool_day_most_bytes(lot, <int> place))
        _pool_carry_ended_day(state, lot, <int> place, more, now_ms)
        _add(&lot.pool_offset_bytes[<int> WINDOW_ROLLING - 1], correction[0])
        _pool_contain_days(state, lot, now_ms)
        lot.pool_days_raised_bytes[place] = 0
        lot.pool_days_told |= <uint16_t> (1 << place)
        lot.days_told_s = max(lot.days_told_s, ended_s)
        pool_contain_told(state, lot, now_ms)
        pool_follow(state, entity, True, now_ms)
    return OK


cdef void apply_pool_usage(State *state, const Run *run) noexcept nogil:
    """What carriers say was used over all SIMs of lots. A run with an argument only says what would become of its figures."""
    cdef uint32_t count = run.count
    cdef const int64_t *carrier_bytes = <const int64_t *> run.columns
    cdef const uint64_t *counted_bytes = <const uint64_t *> (carrier_bytes + count)
    cdef const uint64_t *straddling_bytes = counted_bytes + count
    cdef const uint32_t *instants_s = <const uint32_t *> (straddling_bytes + count)
    cdef const uint16_t *lots = <const uint16_t *> (instants_s + count)
    cdef const uint8_t *windows = <const uint8_t *> (lots + count)
    cdef int64_t *corrections = <int64_t *> run.outcomes
    cdef int64_t *lowered_bytes = corrections + count
    cdef uint8_t *statuses = <uint8_t *> (lowered_bytes + count)
    cdef uint64_t of_what
    cdef uint32_t item
    cdef EventRow *row
    cdef int window, status
    for item in range(count):
        corrections[item] = 0
        lowered_bytes[item] = 0
        window = windows[item] - 1
        if not _is(state, lots[item], LOT):
            status = UNKNOWN_LOT
        elif windows[item] == ROLLING_DAY:
            status = _correct_pool_day(
                state, lots[item], carrier_bytes[item], instants_s[item], run.argument != 0, run.now_ms, &corrections[item])
        elif not 0 <= window < WINDOWS:
            status = INVALID_ARGUMENT
        else:
            status = _correct_pool(
                state, lots[item], window, carrier_bytes[item], counted_bytes[item], straddling_bytes[item], instants_s[item],
                run.argument != 0, run.now_ms, &corrections[item], &lowered_bytes[item])
        statuses[item] = <uint8_t> status
        if run.argument:
            continue
        of_what = <uint64_t> lots[item] | <uint64_t> windows[item] << 16
        if status == OK:
            state.header.corrections_count += 1
            row = event(
                state, EVENT_POOL_CORRECTED, NONE_INDEX, NONE_SHORT, NONE_INDEX, 0, of_what, <uint64_t> corrections[item])
            row.terminal = <uint64_t> lowered_bytes[item]
        elif figure_aside(status):
            state.header.figures_aside_count += 1
            event(
                state, EVENT_POOL_ASIDE, NONE_INDEX, NONE_SHORT, NONE_INDEX, status, of_what, <uint64_t> carrier_bytes[item])

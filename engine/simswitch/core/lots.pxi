# What a calendar has for a lot: its windows start anew, a cap that was set ahead comes into force, its SIMs begin or cease to
# work. Which instants these are comes in with commands: the core knows no months and no time zones.
#
#     SCHEDULE, SET_CAP, DEFINE --> the lot's timer --> lot_turn: O(1), before the commands of the apply
#                                                           |
#                                 list of lots that are due <--> lots_run: a walk over its SIMs, a few thousand an apply
#
# A reset is spread: its walk goes no faster than the SIMs of the lot take turns over `spread_ms` from its instant on, however late it
# begins, so that a lot whose SIMs are all spent comes back bit by bit. The walk covers the indexes between the lot's first SIM and its
# last, which are its own alone where lots are imported one after the other.
#
# It is we who spread, and not the carrier: what is counted on a SIM from the instant on is of the window that begins. So a SIM whose turn
# has not come begins its window before anything counts in it, and the walk passes it by (a bit in its record, until it does). Those that
# come back to be handed out come by the walk alone.
#
#     instant          report of SIM d           walk passes d by
#     |  a  b  c  ...  d  ...           e  f  g  d  h
#
# While the clock is frozen nothing begins and nothing goes on: a jump resets nothing. What is counted meanwhile is of the window that runs,
# also where its end has passed, and of the one that begins when the clock is confirmed, since nobody knows of which: too much, never too little.
# So is what is counted while a reset that is due waits for the walk of the one before. A carrier's figure of a window whose reset is due is not
# taken until that has begun.
#
#     frozen        instant, by whichever clock        confirmed
#     --|------c0----------|------------------------------|-------c1--->   used in the window that begins: c1 - c0
#
# A SIM that was slowed comes back by a reset of a window that has a cap. Of a lot that has none of which somebody knows when it
# starts anew the calendar has a walk of its own: who was slowed and has not been seen for a day is tried, as after a reset. Not of a
# prepaid lot, whose quota does not come back by itself.

cdef enum:
    LOT_STEP_MS = 1_024           # how often a spread reset goes on, and what could not be done is tried again
    LOTS_WORK = WORK_MAX // 2     # of the items that sweeps may touch in one apply; what is not used is theirs
    SPREAD_MAX_MS = 43_200_000    # half a day: a day's reset is over before the next
    TRIED_AFTER_MS = 86_400_000   # no window of a carrier is shorter than a day, so the shortest has started anew by then
    TRIED_SPREAD_MS = 3_600_000   # over which a lot's SIMs take turns then
    TRYING = WINDOWS              # bit of `resetting`
    DAY_SLACK_MS = 3_600_000      # by which clocks are put back
    SEVERAL = (1 << (ROLLING_DAYS + 1)) - 1


cdef extern from *:
    """
    #define SIMSWITCH_NEVER_MS (~(uint64_t) 0)
    """
    const uint64_t NEVER_MS "SIMSWITCH_NEVER_MS"


cdef int _validity_now(State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    cdef const int64_t *numbers = state.entities[entity].numbers
    if numbers[<int> LOT_ACTIVE_FROM_S] >= 0 and now_ms < <uint64_t> numbers[<int> LOT_ACTIVE_FROM_S] * 1000:
        return NOT_YET_VALID
    if numbers[<int> LOT_VALID_UNTIL_S] >= 0 and now_ms >= <uint64_t> numbers[<int> LOT_VALID_UNTIL_S] * 1000:
        return NO_LONGER_VALID
    return VALID


cdef void _lot_wake(State *state, uint32_t entity, uint64_t turn_ms) noexcept nogil:
    """Its turn comes then; NEVER_MS: it does not."""
    cdef Lot *lot = &state.lots[entity]
    if not lot.timer_next and not lot.timer_previous:
        lot.timer_next = NONE_INDEX  # a node that was never on the wheel
        lot.timer_previous = NONE_INDEX
    lot.turn_ms = turn_ms
    if turn_ms == NEVER_MS:
        timer_disarm(state, TIMER_LOT, entity)
    else:
        timer_arm(state, TIMER_LOT, entity, turn_ms)


cdef bint lot_armed(const Lot *lot) noexcept nogil:
    return (lot.timer_next or lot.timer_previous) and lot.timer_next != NONE_INDEX


cdef void _lot_arm(State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    """For the next thing that the calendar has; what was due and could not be done is tried again soon."""
    cdef Lot *lot = &state.lots[entity]
    cdef uint64_t due_ms = NEVER_MS, turn_ms
    cdef int window
    for window in range(WINDOWS):
        if lot.waiting_ms[window]:
            due_ms = min(due_ms, lot.waiting_ms[window])
        if lot.reset_ms[window]:
            due_ms = min(due_ms, lot.reset_ms[window])
    if lot.tried_ms:
        due_ms = min(due_ms, lot.tried_ms)
    if lot.resetting or lot.walk_wanted or lot.validity != _validity_now(state, entity, now_ms):
        due_ms = min(due_ms, now_ms + LOT_STEP_MS)
    for window in range(LOT_ACTIVE_FROM_S, LOT_VALID_UNTIL_S + 1):
        turn_ms = <uint64_t> max(state.entities[entity].numbers[window], <int64_t> 0) * 1000
        if turn_ms > now_ms:
            due_ms = min(due_ms, turn_ms)
    _lot_wake(state, entity, due_ms if due_ms > now_ms else now_ms + LOT_STEP_MS)


cdef bint group_hidden(State *state, const Group *group) noexcept nogil:
    """Whether none of its SIMs is to be selected."""
    return (
        group.masked_itself or state.entities[group.lot].masked or state.entities[group.bank].masked
        or state.lots[group.lot].validity != VALID or state.lots[group.lot].pool_health
    )


cdef Class *lot_class(State *state, uint32_t entity) noexcept nogil:
    return &state.classes[state.entities[state.entities[entity].numbers[<int> LOT_CLASS]].dense]


cdef uint64_t _ends_s(const State *state, uint32_t entity) noexcept nogil:
    """When the lot ends, Unix seconds; NEVER_MS: it does not, or has ended."""
    cdef int64_t until_s = state.entities[entity].numbers[<int> LOT_VALID_UNTIL_S]
    return NEVER_MS if until_s < 0 or state.lots[entity].validity == NO_LONGER_VALID else <uint64_t> until_s


cdef void class_rank(State *state, Class *sim_class) noexcept nogil:
    """Puts the groups of a class in the order of when their lots end: 1,024 at most. After it has another group, and when one of its
    lots ends or has another end. Of more than RANKS ends the last of them stands for all that come later."""
    cdef uint64_t[RANKS] ends
    cdef uint64_t end
    cdef uint32_t local, rank, count = 0
    cdef Group *group
    for local in range(<uint32_t> sim_class.groups_count):
        end = _ends_s(state, state.groups[sim_class.members[local]].lot)
        rank = count
        while rank and ends[rank - 1] >= end:
            rank -= 1
        if rank == RANKS or (rank < count and ends[rank] == end):
            continue
        count = min(count + 1, <uint32_t> RANKS)
        memmove(&ends[rank + 1], &ends[rank], (count - 1 - rank) * sizeof(uint64_t))
        ends[rank] = end
    sim_class.ranks_count = count
    memset(sim_class.rank_roomiest, 0, sizeof(sim_class.rank_roomiest))
    memset(sim_class.rank_tiers, 0, sizeof(sim_class.rank_tiers))
    memset(sim_class.rank_groups, 0, sizeof(sim_class.rank_groups))
    for local in range(<uint32_t> sim_class.groups_count):
        group = &state.groups[sim_class.members[local]]
        end = _ends_s(state, group.lot)
        rank = 0
        while rank < count - 1 and ends[rank] < end:
            rank += 1
        group.rank = <uint8_t> rank
        if count > 1:
            sim_class.rank_groups[rank][local >> 6] |= <uint64_t> 1 << (local & 63)
            if not group.masked:
                sim_class.rank_tiers[2 * rank] |= group.tiers[0]
                sim_class.rank_tiers[2 * rank + 1] |= group.tiers[1]
    for rank in range(count):
        rank_judge(sim_class, rank)


cdef void lot_show(State *state, uint32_t entity) noexcept nogil:
    """Brings the lot's groups up to date: whether they are selected, and what its pool makes of them."""
    cdef Class *sim_class = lot_class(state, entity)
    cdef uint32_t local, group
    for local in range(<uint32_t> sim_class.groups_count):
        group = sim_class.members[local]
        if state.groups[group].lot == entity:
            group_set_masked(state, group, group_hidden(state, &state.groups[group]))
            state.groups[group].pool_health = state.lots[entity].pool_health


cdef void lot_judge_sims(State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    """Has its SIMs' health follow by the next walk; when no sweep is to spare, a little later."""
    cdef Lot *lot = &state.lots[entity]
    lot.walk_wanted = not lot_walk(state, entity)
    if lot.walk_wanted and (not lot_armed(lot) or now_ms + LOT_STEP_MS < lot.turn_ms):
        _lot_wake(state, entity, now_ms + LOT_STEP_MS)


cdef void lot_judge_validity(State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    """Its SIMs work from now on, or no longer: they are selected or not at once, and a walk judges what each has left."""
    cdef Lot *lot = &state.lots[entity]
    cdef int validity = _validity_now(state, entity, now_ms)
    if state.header.frozen or validity == lot.validity:
        return
    lot.validity = <uint8_t> validity
    bounds_wanted(state)
    lot_show(state, entity)
    class_rank(state, lot_class(state, entity))
    lot.walk_wanted = not lot_walk(state, entity)
    event(state, EVENT_VALIDITY, NONE_INDEX, NONE_SHORT, NONE_INDEX, validity, entity, 0)


cdef void _cap_comes(State *state, uint32_t entity, int window, uint64_t now_ms) noexcept nogil:
    """The cap that was set ahead is in force from now on, if a walk can be had."""
    cdef Lot *lot = &state.lots[entity]
    cdef int64_t quota = lot.waiting_bytes[window]
    cdef int basis = lot.waiting_basis[window]
    if quota < 0:
        quota, basis = lot.planned_bytes[window], lot.planned_basis[window]
    if lot.quota_bytes[window] != quota and not lot_walk(state, entity):
        return
    lot.waiting_ms[window] = 0
    if lot.quota_bytes[window] != quota or lot.basis[window] != basis:
        cap_enter(state, entity, window, quota, basis, now_ms)


cdef bint _turn_begin(Lot *lot, uint64_t days) noexcept nogil:
    """So many days of the rolling window are over. Whether a step is."""
    cdef uint32_t step = rolling_step_days(lot.rolling_days)
    cdef uint32_t several = lot.days_several
    days = min(lot.turned_days + days, <uint64_t> ROLLING_DAYS * step)
    lot.turned_days = <uint16_t> (days % step)
    if days < step:
        return False
    lot.turn_places = <uint8_t> (days // step)
    lot.turn_place = 0 if several & 1 else lot.turn_places - 1
    lot.days_several = <uint16_t> (((several >> 1) << (lot.turn_places + 1) | (several & 1) << (lot.turn_place + 1)) & SEVERAL)
    return True


cdef void _reset_begin(State *state, uint32_t entity, int window, uint64_t now_ms) noexcept nogil:
    cdef Lot *lot = &state.lots[entity]
    cdef uint64_t last_ms = lot.last_reset_ms[window], late_ms = now_ms - lot.reset_ms[window], days = 0, untold = 1
    cdef int places = rolling_places(lot)
    cdef bint held, turns
    if window != WINDOW_CYCLE - 1:
        # Days that are over since it was due, which nobody could say: rather one too few, a day has 25 hours at most.
        days = (late_ms - min(late_ms, DAY_SLACK_MS)) // DAY_MS
        if last_ms:
            untold = max((lot.reset_ms[window] - last_ms + DAY_MS // 2) // DAY_MS, <uint64_t> 1)
    # A stall that began after the instant holds nothing up, unless another day may be over since.
    held = lot.held_s[window] and (lot.held_s[window] <= lot.reset_ms[window] // 1000 or late_ms >= DAY_MS - DAY_SLACK_MS)
    lot.from_s[window] = <uint32_t> (lot.reset_ms[window] // 1000)
    lot.held_over &= <uint8_t> ~(1 << window)
    if lot.held_s[window] and lot.held_s[window] < lot.from_s[window]:
        lot.from_s[window] = lot.held_s[window]
        lot.held_over |= <uint8_t> (1 << window)
    lot.held_s[window] = 0
    lot.last_reset_ms[window] = lot.reset_ms[window] + days * DAY_MS
    lot.reset_ms[window] = 0
    if window == WINDOW_ROLLING - 1:
        if untold > 1 or not last_ms:
            lot.days_several |= 1  # before the first turn nobody said when a day was over
        turns = _turn_begin(lot, days + untold)
        if held:
            lot.days_several |= 1  # what was counted while the clock was frozen is today's, of whichever day it is
        if not turns:
            return
        lot.turns_all -= min(lot.turns_all, lot.turn_places)
        lot.turns_keep = lot.turns_keep and lot.turns_all != 0
        lot.turn_keeps = lot.turns_keep
    lot.begun_ms[window] = now_ms
    lot.ended_ms[window] = 0
    lot.begun_spread_ms[window] = lot.spread_ms[window]
    lot.reset_cursor[window] = lot.sims_first if lot.sims_end else 0
    lot.reset_end[window] = lot.sims_end if lot.sims_end else state.header.sims_count
    lot.reset_count[window] = 0
    lot.resetting |= <uint8_t> (1 << window)
    pool_restart(state, entity, window, places, now_ms)
    pool_sims_untold(lot, window, lot.last_reset_ms[window] // 1000)


cdef inline bint _lot_prepaid(const State *state, uint32_t entity) noexcept nogil:
    return state.entities[entity].numbers[<int> LOT_PREPAID] == 1


cdef bint _lot_endless(const State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    """Whether it has slowed SIMs and no reset is known that would probe them. One of the last day was followed, or will be.

    Of a lot that has ended nothing is to come back."""
    cdef const Lot *lot = &state.lots[entity]
    cdef int window
    if lot.validity == NO_LONGER_VALID:
        return False
    for window in range(WINDOWS):
        if lot.quota_bytes[window] >= 0 and (
            lot.reset_ms[window] or (lot.last_reset_ms[window] and lot.last_reset_ms[window] + TRIED_AFTER_MS > now_ms)
        ):
            return False
    return lot.slowed_count != 0 and state.header.settings[<int> PROBE_KBPS] != 0


cdef inline uint64_t begun_bit(int window) noexcept nogil:
    return (IMSI_MASK + 1) << window


cdef inline bint reset_comes_to(const Lot *lot, uint32_t index, int window) noexcept nogil:
    """Whether a reset is under way whose walk has yet to come to the SIM."""
    return (lot.resetting >> window) & 1 and lot.reset_cursor[window] <= index < lot.reset_end[window]


cdef inline bint _awaits_reset(const State *state, uint32_t index, const Lot *lot, int window) noexcept nogil:
    """And its window has not begun anew either."""
    return reset_comes_to(lot, index, window) and not state.sims_cold[index].identity & begun_bit(window)


cdef bint sim_probed_by_reset(const State *state, uint32_t index) noexcept nogil:
    """Whether it is slowed, and a reset is known that puts it on probation, or is under way and has yet to come to it."""
    cdef const Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef int window
    if state.sims[index].health != THROTTLED or not state.header.settings[<int> PROBE_KBPS] or lot.validity == NO_LONGER_VALID:
        return False
    for window in range(WINDOWS):
        if lot.quota_bytes[window] >= 0 and (
            lot.reset_ms[window] or _awaits_reset(state, index, lot, window)
        ):
            return True
    return False


cdef bint sim_is_tried(const State *state, uint32_t index) noexcept nogil:
    """Whether it is slowed, and is tried by and by, if a day after the last reset still no other is known."""
    return (
        state.sims[index].health == THROTTLED and not sim_probed_by_reset(state, index)
        and lot_tries(state, state.groups[state.sims[index].group].lot, INSTANT_MAX_MS)
    )


cdef bint sim_stays_slowed(const State *state, uint32_t index) noexcept nogil:
    """Whether it is slowed, and nothing brings it back, if a day after the last reset still no other is known."""
    return (
        state.sims[index].health == THROTTLED and not sim_probed_by_reset(state, index)
        and lot_stays_slowed(state, state.groups[state.sims[index].group].lot, INSTANT_MAX_MS)
    )


cdef bint lot_tries(const State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    """Whether its slowed SIMs are tried, since nothing else brings them back."""
    return _lot_endless(state, entity, now_ms) and not _lot_prepaid(state, entity)


cdef bint lot_stays_slowed(const State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    """Whether nothing brings its slowed SIMs back: what they had was prepaid."""
    return _lot_endless(state, entity, now_ms) and _lot_prepaid(state, entity)


cdef void _tries_wanted(State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    cdef Lot *lot = &state.lots[entity]
    lot.tried_ms = now_ms + TRIED_AFTER_MS
    if not lot_armed(lot) or lot.tried_ms < lot.turn_ms:
        _lot_wake(state, entity, lot.tried_ms)


cdef void lot_slowed(State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    """A SIM of it is slowed from now on: whether a reset is known that brings it back is asked when a day is over."""
    cdef Lot *lot = &state.lots[entity]
    cdef uint32_t due_s = <uint32_t> ((now_ms + TRIED_AFTER_MS) // 1000)
    lot.slowed_count += 1
    if (lot.resetting >> TRYING) & 1:
        lot.tried_next_s = min(lot.tried_next_s, due_s) if lot.tried_next_s else due_s
    elif not lot.tried_ms:
        _tries_wanted(state, entity, now_ms)
        if _lot_endless(state, entity, now_ms):
            event(state, EVENT_ENDLESS, NONE_INDEX, NONE_SHORT, NONE_INDEX, _lot_prepaid(state, entity), entity, 0)


cdef void lots_slowed(State *state, uint64_t now_ms) noexcept nogil:
    """Has lots with slowed SIMs looked at in a day that no walk comes to."""
    cdef uint32_t entity
    for entity in range(state.header.entities_count):
        if state.entities[entity].kind == LOT and state.lots[entity].slowed_count and not state.lots[entity].tried_ms:
            _tries_wanted(state, entity, now_ms)


cdef void _tries_begin(State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    cdef Lot *lot = &state.lots[entity]
    if not lot_tries(state, entity, now_ms):
        lot.tried_ms = now_ms + TRIED_AFTER_MS if lot.slowed_count else 0
        return
    lot.tried_ms = now_ms
    lot.tried_next_s = 0
    lot.tried_count = 0
    lot.tried_cursor = lot.sims_first if lot.sims_end else 0
    lot.resetting |= <uint8_t> (1 << TRYING)


cdef uint64_t sim_tried_ms(const State *state, uint32_t index) noexcept nogil:
    """From when on it is tried if it is slowed: a day after it was seen so, and after anybody may have had it."""
    return max(<uint64_t> state.sims_cold[index].health_since_s * 1000, sim_cooling_until_ms(&state.sims[index])) + TRIED_AFTER_MS


cdef void _try(State *state, uint32_t index, Lot *lot, uint64_t now_ms) noexcept nogil:
    """One of its SIMs: on probation, or the walk after this one comes to it if it is slowed."""
    cdef uint64_t due_ms = sim_tried_ms(state, index)
    cdef uint32_t due_s
    if state.sims[index].health != THROTTLED:
        return
    if state.sims[index].occupancy == FREE and due_ms <= now_ms:
        sim_doubt(state, index, now_ms)
        sim_judge_headroom(state, index, now_ms)
        lot.tried_count += state.sims[index].health == HEALTHY
        return
    # Whoever has it may show that it is fast; if nobody does, it is a day from when it is let go of.
    if state.sims[index].occupancy != FREE:
        due_ms = max(due_ms, now_ms + TRIED_AFTER_MS)
    due_s = <uint32_t> ((due_ms + 999) // 1000)
    lot.tried_next_s = min(lot.tried_next_s, due_s) if lot.tried_next_s else due_s


cdef uint64_t _come_to(uint64_t begin, uint64_t end, uint64_t passed_ms, uint64_t spread_ms) noexcept nogil:
    """How far a walk may go that is spread."""
    return begin + (end - begin) * passed_ms // spread_ms if passed_ms < spread_ms else end


cdef void _tries_end(State *state, uint32_t entity, uint64_t next_ms) noexcept nogil:
    cdef Lot *lot = &state.lots[entity]
    lot.resetting &= <uint8_t> ~(1 << TRYING)
    lot.tried_ms = next_ms
    if lot.tried_count:
        event(state, EVENT_ENDLESS, NONE_INDEX, NONE_SHORT, NONE_INDEX, 0, entity, lot.tried_count)


cdef bint _tries_step(State *state, uint32_t entity, uint64_t now_ms, int *work) noexcept nogil:
    """As _reset_step. It ends at once when none is slowed any more, or when somebody has said meanwhile what brings them back, that
    nothing does, or that nothing is probed."""
    cdef Lot *lot = &state.lots[entity]
    cdef uint32_t end = lot.sims_end if lot.sims_end else state.header.sims_count
    cdef uint64_t until = _come_to(lot.sims_first if lot.sims_end else 0, end, now_ms - lot.tried_ms, TRIED_SPREAD_MS)
    if not lot_tries(state, entity, now_ms):
        _tries_end(state, entity, now_ms + TRIED_AFTER_MS if lot.slowed_count else 0)
        return True
    while lot.tried_cursor < until and work[0] > 0:
        work[0] -= 1
        if state.groups[state.sims[lot.tried_cursor].group].lot == entity:
            _try(state, lot.tried_cursor, lot, now_ms)
        lot.tried_cursor += 1
    if lot.tried_cursor < until:
        return False
    if lot.tried_cursor == end:
        _tries_end(state, entity, <uint64_t> lot.tried_next_s * 1000)
    return True


cdef void _lot_due(State *state, uint32_t entity) noexcept nogil:
    """Behind the others that have work to do now."""
    cdef Lot *lot = &state.lots[entity]
    if lot.due:
        return
    lot.due = 1
    lot.due_next = 0
    if state.header.lots_due_first:
        state.lots[state.header.lots_due_last].due_next = entity
    else:
        state.header.lots_due_first = entity
    state.header.lots_due_last = entity


cdef void lot_turn(State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    """Does what is due at once, and has the rest done by lots_run."""
    cdef Lot *lot = &state.lots[entity]
    cdef int window
    if not state.header.frozen:
        if lot.walk_wanted:
            lot.walk_wanted = not lot_walk(state, entity)
        lot_judge_validity(state, entity, now_ms)
        for window in range(WINDOWS):
            if lot.waiting_ms[window] and lot.waiting_ms[window] <= now_ms:
                _cap_comes(state, entity, window, now_ms)
            if lot.reset_ms[window] and lot.reset_ms[window] <= now_ms:
                if (lot.resetting >> window) & 1:
                    lot.begun_spread_ms[window] = 0  # the one before has to be over first
                else:
                    _reset_begin(state, entity, window, now_ms)
        if lot.tried_ms and lot.tried_ms <= now_ms and not (lot.resetting >> TRYING) & 1:
            _tries_begin(state, entity, now_ms)
        if lot.resetting:
            _lot_due(state, entity)
    _lot_arm(state, entity, now_ms)


cdef void lots_thawed(State *state, uint64_t now_ms) noexcept nogil:
    """Resets that were held back begin now, and what was counted since the clock was frozen is of the windows and the days that begin."""
    cdef uint32_t entity
    cdef Lot *lot
    cdef int window
    for entity in range(state.header.entities_count):
        lot = &state.lots[entity]
        for window in range(WINDOWS if _is(state, entity, LOT) else 0):
            if lot.reset_ms[window] and lot.reset_ms[window] <= now_ms:
                if not lot.held_s[window]:
                    lot.held_s[window] = state.header.frozen_s


cdef void lot_timer(State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    """Asked whether something is due."""
    if state.lots[entity].turn_ms > now_ms:
        timer_arm(state, TIMER_LOT, entity, state.lots[entity].turn_ms)
    else:
        lot_turn(state, entity, now_ms)


cdef void sim_reset(State *state, uint32_t index, uint32_t lot, int window, uint64_t now_ms) noexcept nogil:
    """A window of one SIM starts anew; of a rolling one a day is over, or a step.

    If it was slowed it is probed: the carrier's counter may lag behind ours, or count otherwise.
    """
    cdef const SimLate *late = &state.sims_late[index]
    cdef uint32_t from_s = state.lots[lot].from_s[window]
    cdef int64_t from_bytes = <int64_t> state.sims[index].counted_bytes, allowance = 0
    if index < state.header.late_end and late.at_s and late.at_s >= from_s:
        from_bytes = late.counted_bytes
        if late.allowed_s >= from_s and index < state.header.ledger_end:
            allowance = state.sims_ledger[index].allowance_bytes[window]
    if window == WINDOW_ROLLING - 1:
        window_turn(state, index, from_bytes, allowance)
    else:
        # No more of our own count than what ends had.
        from_bytes = max(from_bytes, ledger_bytes(state, index, window) - sim_offset_bytes(state, index, window))
        window_restart(state, index, window, from_bytes, allowance)
    if (
        state.sims[index].health == THROTTLED and state.lots[lot].quota_bytes[window] >= 0
        and state.header.settings[<int> PROBE_KBPS]
    ):
        sim_doubt(state, index, now_ms)
    sim_set_limit(state, index, now_ms)


cdef uint64_t sim_note_late(State *state, uint32_t index, Lot *lot, uint64_t now_ms) noexcept nogil:
    """Something is about to count on the SIM. While the clock is frozen, or a reset that is due waits, it is of the window that begins as
    well: what had been counted before the first of it is kept. Gives since when it is so, Unix seconds; NEVER_MS: it is not."""
    cdef SimLate *late = &state.sims_late[index]
    cdef uint64_t since_s = state.header.frozen_s if state.header.frozen else NEVER_MS
    cdef int window
    for window in range(WINDOWS):
        if lot.reset_ms[window] and lot.reset_ms[window] <= now_ms:
            since_s = min(since_s, lot.reset_ms[window] // 1000)
            if lot.held_s[window]:
                since_s = min(since_s, <uint64_t> lot.held_s[window])
    if since_s == NEVER_MS:
        return since_s
    if late.at_s < since_s:
        state.header.late_end = max(state.header.late_end, index + 1)
        late.counted_bytes = <int64_t> state.sims[index].counted_bytes
    if lot.pool_late_s < since_s:
        lot.pool_late_bytes = <int64_t> lot.pool_counted_bytes
    late.at_s = lot.pool_late_s = <uint32_t> (now_ms // 1000)
    return since_s


cdef void sim_windows_begin(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Something is about to count on the SIM: its windows that resets of its lot have yet to come to begin first."""
    cdef uint32_t entity = state.groups[state.sims[index].group].lot
    cdef Lot *lot = &state.lots[entity]
    cdef int window
    for window in range(WINDOWS):
        if _awaits_reset(state, index, lot, window):
            state.sims_cold[index].identity |= begun_bit(window)
            sim_reset(state, index, entity, window, now_ms)
    sim_note_late(state, index, lot, now_ms)


cdef void lot_catch_up(State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    """Something is about to count on one of its SIMs: a reset that is due begins first, if its timer has yet to be asked."""
    cdef const Lot *lot = &state.lots[entity]
    cdef int window
    for window in range(WINDOWS):
        if lot.reset_ms[window] and lot.reset_ms[window] <= now_ms:
            lot_turn(state, entity, now_ms)


cdef void sim_probed(State *state, uint32_t index, uint32_t terminal, uint64_t kbps) noexcept nogil:
    """So much was carried for the terminal that has the SIM: it is trusted if that is faster than any slowed one."""
    cdef const Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    if kbps >= max(<uint64_t> state.header.settings[<int> PROBE_KBPS], 2 * <uint64_t> lot.slowed_kbps):
        sim_trust(state, index)
        event(
            state, EVENT_TRUSTED, terminal, state.terminals[terminal].server, NONE_INDEX, 0, state.sims[index].iccid, kbps)


cdef bint _reset_step(State *state, uint32_t entity, int window, uint64_t now_ms, int *work) noexcept nogil:
    """Goes on as far as the spread lets it. False: the bound on work stopped it."""
    cdef Lot *lot = &state.lots[entity]
    cdef uint32_t begin = lot.sims_first if lot.sims_end else 0
    cdef uint64_t until = _come_to(begin, lot.reset_end[window], now_ms - lot.last_reset_ms[window], lot.begun_spread_ms[window])
    cdef uint32_t index
    cdef bint awaits
    while lot.reset_cursor[window] < until and work[0] > 0:
        work[0] -= 1
        index = lot.reset_cursor[window]
        awaits = _awaits_reset(state, index, lot, window)
        lot.reset_cursor[window] += 1
        if state.groups[state.sims[index].group].lot == entity:
            state.sims_cold[index].identity &= ~begun_bit(window)
            if awaits:
                sim_reset(state, index, entity, window, now_ms)
            lot.reset_count[window] += 1
    if lot.reset_cursor[window] < until:
        return False
    if lot.reset_cursor[window] == lot.reset_end[window]:
        lot.resetting &= <uint8_t> ~(1 << window)
        lot.ended_ms[window] = now_ms
        event(
            state, EVENT_RESET, NONE_INDEX, NONE_SHORT, NONE_INDEX, 0,
            <uint64_t> entity | (<uint64_t> window + 1) << 16, lot.reset_count[window])
    return True


cdef bint _next_waited(const Lot *lot, uint64_t now_ms) noexcept nogil:
    """Whether a reset is due, and the walk of the one before of its window is over."""
    cdef int window
    for window in range(WINDOWS):
        if lot.reset_ms[window] and lot.reset_ms[window] <= now_ms and not (lot.resetting >> window) & 1:
            return True
    return False


cdef void lots_run(State *state, uint64_t now_ms, int *work) noexcept nogil:
    """Goes on with the lots that are due, in turn."""
    cdef uint32_t entity
    cdef Lot *lot
    cdef int window
    cdef bint through
    while state.header.lots_due_first and work[0] > 0 and not state.header.frozen:
        work[0] -= 1
        entity = state.header.lots_due_first
        lot = &state.lots[entity]
        state.header.lots_due_first = lot.due_next
        lot.due = 0
        through = True
        for window in range(WINDOWS):
            if (lot.resetting >> window) & 1 and not _reset_step(state, entity, window, now_ms, work):
                through = False
        if (lot.resetting >> TRYING) & 1 and not _tries_step(state, entity, now_ms, work):
            through = False
        if not through:
            _lot_due(state, entity)
        elif not lot.resetting or _next_waited(lot, now_ms):
            lot_turn(state, entity, now_ms)


cdef void apply_schedule(State *state, const Run *run) noexcept nogil:
    """Says when a lot's window next starts anew. An instant up to that of the last one that began says nothing new."""
    cdef const uint64_t *instants = <const uint64_t *> run.columns
    cdef const uint32_t *spreads = <const uint32_t *> (instants + run.count)
    cdef const uint16_t *lots = <const uint16_t *> (spreads + run.count)
    cdef const uint8_t *windows = <const uint8_t *> (lots + run.count)
    cdef uint32_t item
    cdef int window
    cdef Lot *lot
    for item in range(run.count):
        if not _is(state, lots[item], LOT):
            run.outcomes[item] = UNKNOWN_LOT
            continue
        lot = &state.lots[lots[item]]
        window = windows[item] - 1
        if (
            not 0 <= window < WINDOWS or (window == WINDOW_ROLLING - 1 and not lot.rolling_days)
            or spreads[item] > SPREAD_MAX_MS or instants[item] >= INSTANT_MAX_MS
        ):
            run.outcomes[item] = INVALID_ARGUMENT
        elif lot.reset_ms[window] == instants[item] and (lot.spread_ms[window] == spreads[item] or not instants[item]):
            run.outcomes[item] = SAME
        elif instants[item] and instants[item] <= lot.last_reset_ms[window]:
            run.outcomes[item] = LATE
        else:
            lot.reset_ms[window] = instants[item]
            lot.spread_ms[window] = spreads[item]
            # Taken back and said again it is held up still, but not one of after the clock was confirmed.
            if instants[item] > run.now_ms or instants[item] >= state.header.thaw_until_ms:
                lot.held_s[window] = 0
            lot_turn(state, lots[item], run.now_ms)
            run.outcomes[item] = OK

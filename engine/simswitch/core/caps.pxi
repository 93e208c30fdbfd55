# The caps of a lot that are in force: what its plan says, until SET_CAP says otherwise (what was learned, say). The latest word
# holds, and the one before stays beside it.
#
# A new cap changes the limits of very many SIMs: they are worked out anew by a walk over the SIMs, which all lots share that were
# changed before it began.


cdef enum:
    LEARNED_LEAST = 32            # what the learner says is at least so small a part of what the plan says


cdef bint lot_walk(State *state, uint32_t lot) noexcept nogil:
    """Has the limits of a lot's SIMs worked out by the next walk. False: no sweep is to spare."""
    cdef Sweep *sweep
    if not state.lots[lot].populated:
        return True
    sweep = sweep_waiting(state, SWEEP_LIMITS)
    if sweep == NULL:
        if not sweep_add(state, SWEEP_LIMITS, 0, state.header.sims_count):
            return False
        state.lots[lot].limits_sweep = state.header.sweep_next
    else:
        sweep.end = state.header.sims_count
        state.lots[lot].limits_sweep = sweep.id
    return True


cdef void lot_limits(State *state, uint32_t index, uint32_t sweep, uint64_t now_ms) noexcept nogil:
    """One SIM of the walk."""
    cdef Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef int window
    if lot.limits_sweep != sweep:
        return
    if lot.begins and index < lot.begins_end:
        for window in range(WINDOWS):
            if (lot.begins >> window) & 1:
                window_restart(state, index, window, <int64_t> state.sims[index].counted_bytes, 0)
    if lot.days_since_s:
        ledger_days_changed(state, index, lot.days_since_s)
    if lot.pooled:
        pool_allowances_known(state, index)
    sim_set_limit(state, index, now_ms)


cdef void lots_walked(State *state, uint32_t sweep, uint64_t now_ms) noexcept nogil:
    """The walk is over."""
    cdef uint32_t entity
    for entity in range(state.header.entities_count):
        if state.lots[entity].limits_sweep == sweep:
            state.lots[entity].begins = 0
            state.lots[entity].days_since_s = 0
            pool_follow(state, entity, True, now_ms)


cdef void _set_cap(
    State *state, uint32_t entity, int window, int64_t quota, int basis, uint64_t now_ms
) noexcept nogil:
    cdef Lot *lot = &state.lots[entity]
    if (
        lot.quota_bytes[window] < 0 and lot.since_ms[window] and window != WINDOW_CYCLE - 1 and not lot.begun_ms[window]
        and lot.since_ms[window] + _lasts_s(lot, window) * 1000 <= now_ms
    ):
        # It never began anew, and what it has was counted over more days than are in it: it counts from now on. Of a cycle somebody
        # said what was used in it when its SIMs were imported.
        lot.begins |= <uint8_t> (1 << window)
        lot.begins_end = state.header.sims_count
        lot.pool_offset_bytes[window] = -<int64_t> lot.pool_counted_bytes
        pool_forget(lot, window)
        pool_sims_untold(lot, window, max(lot.sims_told_last_s[window] + 1, now_ms // 1000))
        if window == WINDOW_ROLLING - 1:
            memset(lot.pool_days, 0, sizeof(lot.pool_days))
            memset(lot.pool_days_own_bytes, 0, sizeof(lot.pool_days_own_bytes))
            memset(lot.pool_days_raised_bytes, 0, sizeof(lot.pool_days_raised_bytes))
            lot.pool_days_told = 0
    bounds_wanted(state)
    lot.before_bytes[window] = lot.quota_bytes[window]
    lot.before_basis[window] = lot.basis[window]
    lot.before_since_ms[window] = lot.since_ms[window]
    lot.quota_bytes[window] = quota
    lot.basis[window] = <uint8_t> (basis if quota >= 0 else 0)
    lot.since_ms[window] = now_ms


cdef void lot_watermarks(State *state, uint32_t entity) noexcept nogil:
    """Has the lot's groups follow its plan and its caps."""
    cdef const Class *sim_class = lot_class(state, entity)
    cdef uint32_t local
    for local in range(<uint32_t> sim_class.groups_count):
        if state.groups[sim_class.members[local]].lot == entity:
            group_watermarks(state, &state.groups[sim_class.members[local]])


cdef uint64_t cap_words(uint32_t entity, int window, int basis) noexcept nogil:
    """The b of EVENT_CAP."""
    return <uint64_t> entity | (<uint64_t> window + 1) << 16 | <uint64_t> basis << 24


cdef void lot_begin(State *state, uint32_t entity) noexcept nogil:
    """A lot is defined: it has no cap yet."""
    cdef Lot *lot = &state.lots[entity]
    cdef int window
    for window in range(WINDOWS):
        lot.quota_bytes[window] = -1
        lot.planned_bytes[window] = -1
        lot.before_bytes[window] = -1


cdef void lot_set_days(Lot *lot, uint16_t days, uint64_t now_ms) noexcept nogil:
    """Its rolling window has so many days now. The walk that follows works out its SIMs' limits, and drops what figures of as many days as
    it had before are less than what we counted: nobody knows of which days."""
    cdef uint32_t before = rolling_step_days(lot.rolling_days), step = rolling_step_days(days)
    cdef int places = rolling_places(lot)
    cdef bint longer = days > lot.rolling_days
    if days != lot.rolling_days and lot.populated:
        lot.days_since_s = <uint32_t> (now_ms // 1000 + 1)
        pool_days_changed(lot)
        pool_sims_untold(lot, WINDOW_ROLLING - 1, max(lot.sims_told_last_s[WINDOW_ROLLING - 1] + 1, now_ms // 1000))
    lot.rolling_days = days
    if step != before:
        lot.turned_days = 0
        lot.turns_keep = step > 1 and (step > before or lot.turns_keep)
        lot.days_several = SEVERAL
    if step != before or (lot.turns_all and longer):
        lot.turns_all = 0
        if step > 1:
            lot.turns_all = <uint8_t> (rolling_places(lot) + 1)
    pool_count_days(lot, places)


cdef int lot_follow_plan(State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    """Takes over what the lot's plan says where it says something new. What was learned stays where it does not.

    Gives a bit for each window that has another cap now.
    """
    cdef Lot *lot = &state.lots[entity]
    cdef const int64_t *plan = state.entities[state.entities[entity].numbers[<int> LOT_PLAN]].numbers
    cdef int window, changed = 0
    cdef int64_t quota, basis
    lot_set_days(lot, <uint16_t> max(plan[<int> PLAN_ROLLING_DAYS], <int64_t> 0), now_ms)
    lot.slowed_kbps = 0
    lot.pooled = lot_pooled(plan)
    if lot.pool_health and not lot.pooled:
        lot.pool_health = 0  # it was hidden for what it does not share any more
        lot_show(state, entity)
    for window in range(WINDOWS):
        lot.slowed_kbps = max(
            lot.slowed_kbps, <uint32_t> min(max(plan[<int> PLAN_SPEED_CYCLE_KBPS + window], <int64_t> 0), <int64_t> NONE_INDEX // 2))
        quota = plan[<int> PLAN_QUOTA_CYCLE + window]
        basis = plan[<int> PLAN_BASIS_CYCLE + window]
        if quota < 0:
            basis = 0
        elif basis < 0:
            basis = BASIS_BELIEVED
        if quota != lot.planned_bytes[window] or basis != lot.planned_basis[window]:
            lot.planned_bytes[window] = quota
            lot.planned_basis[window] = <uint8_t> basis
            _set_cap(state, entity, window, quota, <int> basis, now_ms)
            changed |= 1 << window
        elif not lot.since_ms[window]:
            lot.since_ms[window] = now_ms
    pool_follow(state, entity, False, now_ms)
    # A plan or a lot is refused as SWEEPS_FULL before it comes to this (inventory.pxi).
    lot_walk(state, entity)
    return changed


cdef void cap_enter(
    State *state, uint32_t entity, int window, int64_t quota, int basis, uint64_t now_ms
) noexcept nogil:
    """Another cap is in force from now on. If its quota is another, lot_walk was asked for."""
    _set_cap(state, entity, window, quota, basis, now_ms)
    lot_watermarks(state, entity)
    pool_follow(state, entity, True, now_ms)
    event(
        state, EVENT_CAP, NONE_INDEX, NONE_SHORT, NONE_INDEX, 0, <uint64_t> quota,
        cap_words(entity, window, state.lots[entity].basis[window]))


cdef int _cap_ahead(
    State *state, uint32_t entity, int window, int64_t quota, int basis, uint64_t at_ms, bint replaces, uint64_t now_ms
) noexcept nogil:
    """A cap comes into force later. It takes the place of one that waits already only where that was asked for."""
    cdef Lot *lot = &state.lots[entity]
    if lot.waiting_ms[window] == at_ms and lot.waiting_bytes[window] == quota and lot.waiting_basis[window] == basis:
        return SAME
    if lot.waiting_ms[window] and not replaces:
        return CAP_WAITS
    lot.waiting_ms[window] = at_ms
    lot.waiting_bytes[window] = quota
    lot.waiting_basis[window] = <uint8_t> basis
    lot_turn(state, entity, now_ms)
    return OK


cdef bint _may_be_learned(const Lot *lot, int window, int64_t quota) noexcept nogil:
    """Whether the learner may say so of a window for which the plan has a cap: no more than a contract allows, nor nearly nothing.

    What is beyond that, an operator says.
    """
    cdef int64_t planned = lot.planned_bytes[window]
    if planned < 0:
        return True
    return quota >= planned // LEARNED_LEAST and (quota <= planned or lot.planned_basis[window] != BASIS_CONTRACTUAL)


cdef void apply_set_cap(State *state, const Run *run) noexcept nogil:
    cdef const int64_t *quotas = <const int64_t *> run.columns
    cdef const uint64_t *instants = <const uint64_t *> (quotas + run.count)
    cdef const uint16_t *lots = <const uint16_t *> (instants + run.count)
    cdef const uint8_t *windows = <const uint8_t *> (lots + run.count)
    cdef const uint8_t *bases = windows + run.count
    cdef bint learner = state.entities[run.actor].numbers[<int> ACTOR_ROLE] == LEARNER
    cdef uint32_t item
    cdef int window, basis
    cdef int64_t quota
    cdef Lot *lot
    for item in range(run.count):
        if not _is(state, lots[item], LOT):
            run.outcomes[item] = UNKNOWN_LOT
            continue
        lot = &state.lots[lots[item]]
        window = windows[item] - 1
        if (
            not 0 <= window < WINDOWS or not BASIS_CONTRACTUAL <= bases[item] <= BASIS_LEARNED
            or not -1 <= quotas[item] < BYTES_MAX or (window == WINDOW_ROLLING - 1 and not lot.rolling_days)
            or instants[item] >= INSTANT_MAX_MS
        ):
            run.outcomes[item] = INVALID_ARGUMENT
            continue
        quota, basis = quotas[item], bases[item]
        if learner and not _may_be_learned(lot, window, quota):
            run.outcomes[item] = NOT_PERMITTED
            continue
        if instants[item] > run.now_ms:
            run.outcomes[item] = <uint8_t> _cap_ahead(
                state, lots[item], window, quota, basis, instants[item], run.argument != 0, run.now_ms)
            continue
        if quota < 0:
            quota, basis = lot.planned_bytes[window], lot.planned_basis[window]
        if lot.quota_bytes[window] == quota and lot.basis[window] == basis:
            run.outcomes[item] = SAME
        elif lot.quota_bytes[window] != quota and not lot_walk(state, lots[item]):
            run.outcomes[item] = SWEEPS_FULL
        else:
            cap_enter(state, lots[item], window, quota, basis, run.now_ms)
            run.outcomes[item] = OK


cdef void apply_cap_changed(State *state, const Run *run) noexcept nogil:
    """Tells that a carrier keeps another cap than it did. What is to hold from now on, SET_CAP says."""
    cdef const uint64_t *amounts = <const uint64_t *> run.columns
    cdef const uint64_t *before = amounts + run.count
    cdef const uint32_t *seen_s = <const uint32_t *> (before + run.count)
    cdef const uint16_t *lots = <const uint16_t *> (seen_s + run.count)
    cdef const uint8_t *windows = <const uint8_t *> (lots + run.count)
    cdef const uint8_t *shifts = windows + run.count
    cdef EventRow *row
    cdef uint32_t item
    for item in range(run.count):
        if not _is(state, lots[item], LOT):
            run.outcomes[item] = UNKNOWN_LOT
        elif (
            not WINDOW_CYCLE <= windows[item] <= WINDOW_ROLLING or not CAP_LOWERED <= shifts[item] <= CAP_SPEED
            or amounts[item] >= <uint64_t> BYTES_MAX or before[item] >= <uint64_t> BYTES_MAX
        ):
            run.outcomes[item] = INVALID_ARGUMENT
        else:
            row = event(
                state, EVENT_CAP_CHANGED, NONE_INDEX, NONE_SHORT, NONE_INDEX, shifts[item], amounts[item],
                <uint64_t> lots[item] | <uint64_t> windows[item] << 16 | <uint64_t> seen_s[item] << 24)
            row.terminal = before[item]
            run.outcomes[item] = OK

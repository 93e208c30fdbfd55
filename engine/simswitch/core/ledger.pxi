# What stands in a SIM's windows beside what was counted: carriers' figures.
#
#     used in a window = what the carrier counted up to as_of + what we counted since
#                      = counted + own offset + correction
#     correction       = what the carrier counted up to as_of - what we had counted in the window by then
#
# So a late figure says nothing of what was used since: that stays ours. The lifetime count (I8) is not touched: the correction stands
# in a ledger of its own, a signed number a SIM and window, which is cleared when the window starts anew.
# Whoever sends a figure says what our lifetime count was by then, or less where that is not known exactly: the difference then counts
# twice, never not at all. It is no less than what it was when the window began.
#
# A rolling window takes figures as of today's part of it only: which of its days an older one was of, nobody knows.


cdef enum:
    CYCLE_DAYS_MAX = 31


cdef int64_t ledger_clear(State *state, uint32_t index, int window) noexcept nogil:
    """The window starts anew; gives the correction that it had. Up to when figures were told stays."""
    cdef int64_t correction
    if index >= state.header.ledger_end:
        return 0
    correction = state.sims_ledger[index].correction_bytes[window]
    state.sims_ledger[index].correction_bytes[window] = 0
    return correction


cdef uint64_t _carried_s(const Lot *lot, int window, uint64_t as_of_s) noexcept nogil:
    """For how long at most the window had run then."""
    if window == WINDOW_ROLLING - 1:
        return <uint64_t> lot.rolling_days * DAY_MS // 1000
    if lot.begun_ms[window]:
        return as_of_s - lot.begun_ms[window] // 1000
    return (<uint64_t> CYCLE_DAYS_MAX if window == WINDOW_CYCLE - 1 else 1) * DAY_MS // 1000


cdef int _correct(
    State *state, uint32_t index, int window, int64_t carrier_bytes, uint64_t counted_bytes, uint32_t as_of_s, bint dry_run,
    uint64_t now_ms, int64_t *correction
) noexcept nogil:
    cdef const Sim *sim = &state.sims[index]
    cdef const Lot *lot = &state.lots[state.groups[sim.group].lot]
    cdef SimLedger *ledger = &state.sims_ledger[index]
    cdef uint64_t line = <uint64_t> state.header.settings[<int> LINE_BYTES_PER_S]
    cdef int64_t before = 0, offset
    cdef uint32_t told_s = 0
    if (window == WINDOW_ROLLING - 1 and not lot.rolling_days) or not as_of_s or counted_bytes > sim.counted_bytes:
        return INVALID_ARGUMENT
    if index < state.header.ledger_end:
        before = ledger.correction_bytes[window]
        told_s = ledger.as_of_s[window]
    if carrier_bytes < 0 or carrier_bytes >= BYTES_MAX or <uint64_t> as_of_s * 1000 > now_ms:
        return IMPOSSIBLE_USAGE
    if as_of_s < told_s:
        return LATE
    if (lot.resetting >> window) & 1:
        return WRONG_STATE
    if <uint64_t> as_of_s * 1000 < lot.begun_ms[window] + lot.begun_spread_ms[window]:
        return SAME if as_of_s == told_s else PAST_WINDOW
    if <uint64_t> carrier_bytes // line >= _carried_s(lot, window, as_of_s) + 2:
        return IMPOSSIBLE_USAGE
    offset = sim_offset_bytes(state, index, window) - before
    correction[0] = carrier_bytes - max(<int64_t> counted_bytes + offset, <int64_t> 0)
    if as_of_s == told_s and correction[0] == before:
        return SAME
    if not dry_run:
        state.header.ledger_end = max(state.header.ledger_end, index + 1)
        ledger.correction_bytes[window] = correction[0]
        ledger.as_of_s[window] = as_of_s
        sim_set_offset_bytes(state, index, window, offset + correction[0])
        sim_set_limit(state, index, now_ms)
    return OK


cdef void apply_carrier_usage(State *state, const Run *run) noexcept nogil:
    """What carriers say was used. An older figure than the last one changes nothing, nor does the same one again.

    A run with an argument only says what would become of its figures.
    """
    cdef uint32_t count = run.count
    cdef const uint64_t *iccids = <const uint64_t *> run.columns
    cdef const int64_t *carrier_bytes = <const int64_t *> (iccids + count)
    cdef const uint64_t *counted_bytes = <const uint64_t *> (carrier_bytes + count)
    cdef const uint32_t *instants_s = <const uint32_t *> (counted_bytes + count)
    cdef const uint8_t *windows = <const uint8_t *> (instants_s + count)
    cdef int64_t *corrections = <int64_t *> run.outcomes
    cdef uint8_t *statuses = <uint8_t *> (corrections + count)
    cdef uint32_t item, index
    cdef int window, status
    for item in range(count):
        corrections[item] = 0
        index = sim_find(state, iccids[item])
        window = windows[item] - 1
        if index == NONE_INDEX:
            status = UNKNOWN_SIM
        elif not 0 <= window < WINDOWS:
            status = INVALID_ARGUMENT
        else:
            status = _correct(
                state, index, window, carrier_bytes[item], counted_bytes[item], instants_s[item], run.argument != 0, run.now_ms,
                &corrections[item])
        statuses[item] = <uint8_t> status
        if run.argument:
            continue
        if status == OK:
            state.header.corrections_count += 1
            event(
                state, EVENT_CORRECTION, NONE_INDEX, NONE_SHORT, NONE_INDEX, windows[item], iccids[item],
                <uint64_t> corrections[item])
        elif status == IMPOSSIBLE_USAGE or status == PAST_WINDOW:
            state.header.figures_aside_count += 1
            event(
                state, EVENT_SET_ASIDE, NONE_INDEX, NONE_SHORT, NONE_INDEX, status, <uint64_t> carrier_bytes[item],
                iccids[item])

# What stands in a SIM's windows beside what was counted: carriers' figures, and what may have been used that nobody reported.
#
#     used in a window = what the carrier counted up to as_of + what we counted since
#                      = counted + own offset + correction
#     correction       = what the carrier counted up to as_of - what we had counted in the window by then
#     left in a window = quota - used - allowance - straddling
#
# So a late figure says nothing of what was used since: that stays ours. The lifetime count (I8) is not touched: the correction stands
# in a ledger of its own, a signed number a SIM and window, which is cleared when the window starts anew.
#
#     reports     ---c0-----------c1---       a report straddles as_of: of c1 - c0 nobody knows what was used before it
#     as_of               |
#     counted by as_of    c0 < c <= c1        as if it had gone evenly over the time that the report is of
#     straddling          c - c0              counts once, as used before; that it was used after is allowed for
#
# Whoever sends a figure says both, our lifetime count by as_of and how much of it straddles. Neither reaches back before the window
# began. The same figure again says nothing, also where more is known by then of what straddled it.
#
# What a carrier counted in a window beyond us was used in the longer ones too that it lies in. By what that changes with a figure, theirs
# change as well, up and down:
#
#     the longer window has no figure                            it comes on top; what was wrong goes again
#     its figure is of no later than when the day began          the same: it knows nothing of the day
#     its figure is of within the day                            only what came on top since, from one figure of the day to the next,
#                                                                and no more than both figures say together: goes with its next figure
#
#     a figure of the longer one comes, of no later than that    it, what was counted since, and what the day has beyond us
#
# So the order in which they come does not matter. So with a single day of a rolling window, which is of the cycle; one of the cycle that
# is older than some of these has no less than it says and what they and today have. What the rolling days have beyond us in all may be of
# any of them, so it joins only a cycle of which nothing was said; what the day has is in it, and joins once.
#
# Whatever the instants, where a longer window has less in all its correction makes up for it, also where only some of the rolling days
# are of the cycle. What the carrier says of a longer one later on, and is less than it said
# itself of one in it, can't be. A later figure of the same window that is less than the last one is taken, and told as such: a carrier
# corrects itself, and nothing else could mend a figure that was wrong.
#
#     cycle      begun ------------------------------------ now       \
#     rolling              day 2 | day 1 | today ---------- now        } none has less than those under it
#     day                                 ----------------- now       /
#
# What a SIM had used when it was imported is a figure too, of the instant that was said with it: an older one is late.
#
# A rolling window takes a figure of the whole of it as of today's part only: which of its days an older one was of, nobody knows. A
# figure of a single day (ROLLING_DAY) is told by the instant at which that day ended, and takes the place of what we counted on it:
# of the day whose end, by our turns, is nearest. While a figure of the whole window holds for today, an older day's says LATE; and one
# of the whole window that is less than all of the single days that were over by then, as their carrier told them, can't be. That a day is
# the carrier's goes with it in the ring.
# One of the whole window says nothing of another number of days: where its plan has that, what it was more than we counted stays, as of any
# of them, and what it was less goes.
# Before a lot's first turn today began a day before that one comes: then the days before are none of ours, and count on top of what a
# SIM had used when it was imported.
#
# A lot has a window where a cap of it is in force or comes, or it starts anew; a rolling one where its plan says of how many days.
#
# While a lease runs, its SIM is nobody else's. One that ended without a word of its access server (dead, or it came back and knows of
# no such lease) may have used more than was reported, also where its terminal has turned up elsewhere meanwhile; so may the target of
# a swap that was under way there. What is left of its expected use is allowed for in every window, or as much as
# the line could still have carried if that is less. A report that comes after all takes away what it counts, since more may have been held
# back. One that says the same again takes away all of it, as the last one, but not within FRESH_S: that may be a retry, or an idle minute
# in the middle of what was held back. All of it goes, too, when the lease goes on, when a window starts anew, and with a carrier's figure
# of an instant after the lease's end and its last report, which knows what was used.
#
#     500 MiB allowed for    200    200    300        300      reports after the end
#                             |      |      |          |
#                            300    300    200  > 60 s  0      what is left of it
#
# Each portion comes off at once, but is told only if it is the first, the last, or at most half of what was told as left still is: so a
# lease has few events however many reports were held back. What is told sums up to what comes off: a portion goes with the next that is told.
#
# So with a lease that its access server let go of (released, moved, swapped, expired) without a last report: one no older than FRESH_S when
# it was let go of, or one that comes while the SIM cools, also if it says the same again. What may have been used is worked out at the
# end, and counts once the SIM has cooled: nobody is given it before.
#
#     last report         the lease ends              the SIM is free
#     ----|--------------------|--------------------------|------------>
#         | > FRESH_S: waited for, in the ledger < 0      | no report came: allowed for


cdef enum:
    CYCLE_DAYS_MAX = 31
    FRESH_S = 60                  # when a lease ends, a report that is no older was its last; after one, the same total may be a retry
    TOLD_SHIFT = 51               # SimLedger.unreported_bytes: what is told as left, 6 significant bits and by how many they are shifted
    TOLD_BITS = 6


cdef extern from *:
    """
    #define SIMSWITCH_UNREPORTED_MAX ((int64_t) 1 << 50)
    """
    const int64_t UNREPORTED_MAX "SIMSWITCH_UNREPORTED_MAX"     # of one lease, so that no sum of them overflows


cdef struct Said:                       # of a SIM, before a figure of it is taken
    uint32_t told_s                     # the instant of the last figure of its window; 0: none holds
    int64_t excess_bytes[WINDOWS]       # what shorter windows had beyond us (_inner_excess_bytes)
    int64_t added_most[WINDOWS]         # pool_added_most_bytes


cdef int64_t ledger_allowed_bytes(const State *state, uint32_t index, int window) noexcept nogil:
    """What was perhaps used in a SIM's window."""
    if index >= state.header.ledger_end:
        return 0
    return state.sims_ledger[index].allowance_bytes[window] + state.sims_ledger[index].straddling_bytes[window]


cdef int64_t ledger_bytes(const State *state, uint32_t index, int window) noexcept nogil:
    """What stands in a SIM's window beside what was counted."""
    if index >= state.header.ledger_end:
        return 0
    return state.sims_ledger[index].correction_bytes[window] + ledger_allowed_bytes(state, index, window)


cdef void _set_correction(State *state, uint32_t index, int window, int64_t correction) noexcept nogil:
    cdef SimLedger *ledger = &state.sims_ledger[index]
    pool_less(state, index, window, min(correction, <int64_t> 0) - min(ledger.correction_bytes[window], <int64_t> 0))
    ledger.correction_bytes[window] = correction


cdef void ledger_days_changed(State *state, uint32_t index, uint32_t since_s) noexcept nogil:
    """The rolling window has another number of days since then. As of a pool (pools.pxi): what a figure of the whole window had beyond us stays."""
    cdef int window = WINDOW_ROLLING - 1
    cdef SimLedger *ledger = &state.sims_ledger[index]
    cdef int64_t less = min(ledger.correction_bytes[window], <int64_t> 0) if index < state.header.ledger_end else 0
    if index >= state.header.ledger_end or not 0 < ledger.as_of_s[window] < since_s:
        return
    pool_sim_untold(state, index, window)
    ledger.carrier_bytes[window] = -1
    if less:
        _set_correction(state, index, window, 0)
        pool_beside(state, index, window, -less, 0)
        sim_set_offset_bytes(state, index, window, sim_offset_bytes(state, index, window) - less)


cdef int64_t ledger_clear(State *state, uint32_t index, int window) noexcept nogil:
    """The window starts anew; gives the correction that it had. Up to when figures were told stays."""
    cdef int64_t correction
    if index >= state.header.ledger_end:
        return 0
    correction = state.sims_ledger[index].correction_bytes[window]
    pool_beside(state, index, window, -ledger_bytes(state, index, window), -state.sims_ledger[index].allowance_bytes[window])
    _set_correction(state, index, window, 0)
    state.sims_ledger[index].allowance_bytes[window] = 0
    state.sims_ledger[index].straddling_bytes[window] = 0
    if state.sims_ledger[index].as_of_s[window]:
        if not (state.lots[state.groups[state.sims[index].group].lot].resetting >> window) & 1:
            pool_sim_untold(state, index, window)  # a sum that began with the reset has none of it
        state.sims_ledger[index].carrier_bytes[window] = -1  # told again it says something again
    return correction


cdef void ledger_opened(
    State *state, uint32_t index, int window, int64_t used_bytes, uint32_t as_of_s, uint64_t now_ms
) noexcept nogil:
    """A SIM is imported with what it had used by then. It stands in the SIM's offset, as no correction of ours."""
    state.header.ledger_end = max(state.header.ledger_end, index + 1)
    pool_sim_told(state, index, window, used_bytes, as_of_s, 0, now_ms)


cdef void _tell_unreported(State *state, const EndedLease *lease, int reason, int64_t allowed) noexcept nogil:
    cdef EventRow *row = event(
        state, EVENT_UNREPORTED, lease.terminal, lease.server, NONE_INDEX, reason, state.sims[lease.sim].iccid, <uint64_t> allowed)
    row.subscriber = lease.subscriber


cdef inline int64_t _left_bytes(const SimLedger *ledger) noexcept nogil:
    """What is left of what was allowed for the SIM's last lease of which something may be unreported; below 0: what will be."""
    cdef int64_t bytes = ledger.unreported_bytes
    return bytes if bytes < 0 else bytes & ((<int64_t> 1 << TOLD_SHIFT) - 1)


cdef inline int64_t _told_left_bytes(const SimLedger *ledger) noexcept nogil:
    """And what events have told as left of it."""
    cdef int64_t told = ledger.unreported_bytes >> TOLD_SHIFT
    return (told & ((1 << TOLD_BITS) - 1)) << (told >> TOLD_BITS) if told else _left_bytes(ledger)


cdef int64_t _told_code(int64_t left) noexcept nogil:
    """What is told as left where so much is: no more, and no more than a 32nd less."""
    cdef int64_t shift = 0
    while left >> shift >> TOLD_BITS:
        shift += 1
    return shift << TOLD_BITS | left >> shift


cdef int64_t _unreported_bytes(const State *state, const EndedLease *lease, uint64_t now_ms) noexcept nogil:
    """What a lease that ends now may have used beyond its last report; 0: nothing is expected, or it is allowed for already."""
    cdef uint64_t line = <uint64_t> state.header.settings[<int> LINE_BYTES_PER_S]
    cdef uint64_t silent_s = now_ms // 1000 - lease.reported_s + 1
    cdef int64_t left = tier_lowest_bytes(lease.expected_tier)
    cdef const SimLedger *ledger = &state.sims_ledger[lease.sim]
    if lease.sim < state.header.ledger_end and ledger.unreported_epoch == lease.epoch and ledger.unreported_bytes > 0:
        return 0
    if lease.reported_bytes >= <uint64_t> left:
        return 0
    left -= <int64_t> lease.reported_bytes
    if <uint64_t> left // line >= silent_s:
        left = <int64_t> (line * silent_s)
    return min(left, UNREPORTED_MAX)


cdef void _enter_unreported(State *state, uint32_t index, uint64_t epoch, int64_t bytes) noexcept nogil:
    """The last of the SIM's leases of which something may be unreported; below 0: its report is waited for."""
    cdef SimLedger *ledger = &state.sims_ledger[index]
    state.header.ledger_end = max(state.header.ledger_end, index + 1)
    state.header.reports_awaited += bytes < 0
    state.header.reports_awaited -= ledger.unreported_bytes < 0
    ledger.unreported_epoch = epoch
    ledger.unreported_bytes = bytes


cdef void _allow(State *state, const EndedLease *lease, int64_t left, uint64_t now_ms) noexcept nogil:
    """So much was perhaps used under the lease: it counts in every window of the SIM."""
    cdef uint32_t index = lease.sim
    cdef SimLedger *ledger = &state.sims_ledger[index]
    cdef int window
    lot_catch_up(state, state.groups[state.sims[index].group].lot, now_ms)
    sim_windows_begin(state, index, now_ms)
    for window in range(WINDOWS):
        if window != WINDOW_ROLLING - 1 or state.lots[state.groups[state.sims[index].group].lot].rolling_days:
            ledger.allowance_bytes[window] += left
            pool_beside(state, index, window, left, left)
            sim_set_offset_bytes(state, index, window, sim_offset_bytes(state, index, window) + left)
    if index < state.header.late_end and state.sims_late[index].at_s:
        state.sims_late[index].allowed_s = ledger.unreported_s
    state.header.unreported_count += 1
    state.header.unreported_bytes += <uint64_t> left
    _tell_unreported(state, lease, UNREPORTED_ALLOWED, left)
    sim_set_limit(state, index, now_ms)


cdef void lease_unreported(State *state, const EndedLease *lease, uint64_t now_ms) noexcept nogil:
    """The lease is over, and its access server has not let go of the SIM but is gone, or knows nothing of it."""
    cdef int64_t left = _unreported_bytes(state, lease, now_ms)
    if left:
        _enter_unreported(state, lease.sim, lease.epoch, left)
        state.sims_ledger[lease.sim].unreported_s = <uint32_t> (now_ms // 1000)
        _allow(state, lease, left, now_ms)


cdef inline bint lease_silent(const Sim *sim, uint64_t now_ms) noexcept nogil:
    """Whether no report was taken lately of the lease that the SIM is assigned to, or held after."""
    return <uint32_t> (now_ms // 1000) - sim.previous > FRESH_S


cdef void lease_await_report(State *state, const EndedLease *lease, uint64_t now_ms) noexcept nogil:
    """Its access server, which was silent, has let go of the SIM, which is about to cool: its last report is waited for."""
    cdef int64_t left = _unreported_bytes(state, lease, now_ms)
    if left:
        _enter_unreported(state, lease.sim, lease.epoch, -left)
        state.sims_ledger[lease.sim].unreported_s = <uint32_t> (now_ms // 1000)


cdef void last_report_due(State *state, uint32_t terminal, uint64_t now_ms) noexcept nogil:
    """The same for the terminal's lease, which has just ended and was silent."""
    cdef EndedLease lease = lease_last(state, terminal)
    lease_await_report(state, &lease, now_ms)


cdef void last_report_missing(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """The SIM has cooled. If the last report of its lease is waited for, it is no longer."""
    cdef SimLedger *ledger = &state.sims_ledger[index]
    cdef int64_t left = -ledger.unreported_bytes
    cdef EndedLease lease
    if index >= state.header.ledger_end or left <= 0:
        return
    lease = lease_over(state, state.sims[index].terminal, ledger.unreported_epoch)
    if not lease.epoch:  # so many have ended since that it is forgotten
        lease.terminal = state.sims[index].terminal
        lease.server = NONE_SHORT
        lease.sim = index
    _enter_unreported(state, index, ledger.unreported_epoch, left)
    _allow(state, &lease, left, now_ms)


cdef void lease_reported(State *state, const EndedLease *lease, uint64_t delta, uint64_t now_ms) noexcept nogil:
    """So much more of what the lease used on its SIM was reported after all; UNREPORTED_MAX: all of it was, or the lease goes on.

    While the SIM cools each may be the last report, and nobody is given it before more have come. Later on what is left of the
    allowance stays until it is reported, too.
    """
    cdef uint32_t index = lease.sim
    cdef SimLedger *ledger = &state.sims_ledger[index]
    cdef int64_t reported, taken, left, told, rest
    cdef int window
    if index >= state.header.ledger_end or not ledger.unreported_epoch or ledger.unreported_epoch != lease.epoch:
        return
    if ledger.unreported_bytes < 0:
        _enter_unreported(state, index, 0, 0)
        return
    left = _left_bytes(ledger)
    reported = <int64_t> min(<uint64_t> left, delta)
    for window in range(WINDOWS):
        # A window that has started anew since has none of it.
        taken = min(reported, ledger.allowance_bytes[window])
        ledger.allowance_bytes[window] -= taken
        pool_beside(state, index, window, -taken, -taken)
        sim_set_offset_bytes(state, index, window, sim_offset_bytes(state, index, window) - taken)
    rest = left - reported
    told = _told_left_bytes(ledger)
    if state.header.unreported_count:  # of a state from before these were kept it may not have been counted
        state.header.unreported_count -= not rest
        state.header.unreported_bytes -= min(state.header.unreported_bytes, <uint64_t> reported)
    if rest > told // 2 and ledger.unreported_bytes >> TOLD_SHIFT:
        ledger.unreported_bytes -= reported
    else:
        _enter_unreported(state, index, lease.epoch if rest else 0, _told_code(rest) << TOLD_SHIFT | rest)
        _tell_unreported(state, lease, UNREPORTED_OVER, told - _told_left_bytes(ledger))
    ledger.unreported_s = <uint32_t> (now_ms // 1000)
    sim_set_limit(state, index, now_ms)


cdef void lease_reported_again(State *state, const EndedLease *lease, uint64_t now_ms) noexcept nogil:
    """The same total of it once more: the last one, if that is not a retry of what was taken just now, or an idle minute."""
    cdef SimLedger *ledger = &state.sims_ledger[lease.sim]
    if lease.sim < state.header.ledger_end and (
        ledger.unreported_bytes < 0 or <uint32_t> (now_ms // 1000) - ledger.unreported_s > FRESH_S
    ):
        lease_reported(state, lease, UNREPORTED_MAX, now_ms)


cdef bint _has_window(const Lot *lot, int window) noexcept nogil:
    if window == WINDOW_ROLLING - 1:
        return lot.rolling_days != 0
    return (
        lot.quota_bytes[window] >= 0 or lot.waiting_ms[window] != 0 or lot.reset_ms[window] != 0 or lot.last_reset_ms[window] != 0
    )


cdef uint64_t _today_begun_s(const State *state, const Lot *lot, uint64_t now_ms) noexcept nogil:
    """When the day of the rolling window began, or the step, that is not over."""
    cdef uint64_t next_ms = lot.reset_ms[WINDOW_ROLLING - 1]
    cdef uint64_t last_ms = lot.last_reset_ms[WINDOW_ROLLING - 1]
    if last_ms:
        return (last_ms - min(last_ms, lot.turned_days * <uint64_t> DAY_MS)) // 1000
    if not next_ms:  # nobody has said
        return (state.header.day * DAY_MS + <uint64_t> state.header.settings[<int> DAY_BEGINS_MS]) // 1000
    if next_ms > now_ms:
        next_ms -= (next_ms - now_ms - 1) // DAY_MS * DAY_MS
    return (next_ms - min(next_ms, <uint64_t> DAY_MS)) // 1000


cdef uint64_t _lasts_s(const Lot *lot, int window) noexcept nogil:
    """How long the window is at most."""
    if window == WINDOW_ROLLING - 1:
        return <uint64_t> lot.rolling_days * DAY_MS // 1000
    return (<uint64_t> CYCLE_DAYS_MAX if window == WINDOW_CYCLE - 1 else 1) * DAY_MS // 1000


cdef uint64_t _carried_s(const State *state, const Lot *lot, uint16_t entity, int window, uint64_t as_of_s) noexcept nogil:
    """For how long at most the SIMs of the lot had worked in the window by then."""
    cdef uint64_t from_s = <uint64_t> max(state.entities[entity].numbers[<int> LOT_ACTIVE_FROM_S], <int64_t> 0)
    cdef uint64_t ran_s = _lasts_s(lot, window)
    if lot.last_reset_ms[window] and window != WINDOW_ROLLING - 1:
        ran_s = as_of_s - lot.last_reset_ms[window] // 1000
    return min(ran_s, as_of_s - min(from_s, as_of_s))


cdef int _figure_possible(int64_t carrier_bytes, uint32_t as_of_s, uint64_t now_ms) noexcept nogil:
    """OK, or why a figure can't be true whatever it is of."""
    if carrier_bytes < 0:
        return NEGATIVE_USAGE
    if <uint64_t> as_of_s * 1000 > now_ms:
        return FUTURE_USAGE
    return IMPOSSIBLE_USAGE if carrier_bytes >= BYTES_MAX else OK


cdef int figure_fits(
    const State *state, uint16_t entity, int window, int64_t carrier_bytes, uint32_t as_of_s, uint32_t told_s, uint64_t sims,
    uint64_t now_ms
) noexcept nogil:
    """OK, or why a figure of a whole window is not taken. ``told_s``: the instant of the last one; ``sims``: how many it is of."""
    cdef const Lot *lot = &state.lots[entity]
    cdef uint64_t line = <uint64_t> state.header.settings[<int> LINE_BYTES_PER_S]
    cdef uint64_t lasts_ms = _lasts_s(lot, window) * 1000
    cdef uint64_t begun_ms = lot.last_reset_ms[window]
    cdef int status
    if not _has_window(lot, window):
        return NO_WINDOW
    status = _figure_possible(carrier_bytes, as_of_s, now_ms)
    if status != OK:
        return status
    if as_of_s < told_s:
        return LATE
    if (lot.resetting >> window) & 1 or _reset_due(lot, window, now_ms):
        return WRONG_STATE
    # One that has not begun anew yet has run no longer than it can, seen from when it will.
    if not begun_ms and window != WINDOW_ROLLING - 1 and now_ms < lot.reset_ms[window] <= now_ms + lasts_ms:
        begun_ms = lot.reset_ms[window] - min(lot.reset_ms[window], lasts_ms)
    if <uint64_t> as_of_s * 1000 < begun_ms or <uint64_t> as_of_s * 1000 + lasts_ms < now_ms:
        return SAME if as_of_s == told_s else PAST_WINDOW
    if <uint64_t> carrier_bytes // line // sims >= _carried_s(state, lot, entity, window, as_of_s) + 2:
        return IMPOSSIBLE_USAGE
    return OK


cdef bint _reset_due(const Lot *lot, int window, uint64_t now_ms) noexcept nogil:
    """Whether the window, or a longer one, which a figure of it may change, has yet to start anew although its instant has come."""
    cdef int longer
    for longer in range(WINDOWS):
        if longer == window or longer == WINDOW_CYCLE - 1 or window == WINDOW_DAY - 1:
            if lot.reset_ms[longer] and lot.reset_ms[longer] <= now_ms:
                return True
    return False


cdef int64_t _days_begun_ms(const State *state, const Lot *lot, int64_t place, uint64_t now_ms) noexcept nogil:
    """Until when the day of a rolling window may have begun that stands at a place of its ring; of -1, today. Days have 23 to 25 hours,
    and turn late: half a day is enough for all of them."""
    cdef int64_t today_ms = <int64_t> _today_begun_s(state, lot, now_ms) * 1000
    if place < 0:
        return today_ms + 999
    return today_ms + <int64_t> DAY_MS // 2 - (place + 1) * <int64_t> rolling_step_days(lot.rolling_days) * <int64_t> DAY_MS


cdef int64_t _begun_ms(const State *state, const Lot *lot, int window, uint64_t now_ms) noexcept nogil:
    """When the window that runs began; where nobody has said, the earliest that it can have."""
    cdef uint32_t step
    if window == WINDOW_ROLLING - 1:
        step = rolling_step_days(lot.rolling_days)
        return _days_begun_ms(state, lot, (<int64_t> lot.rolling_days - 1 + step - 1) // step - 1, now_ms)
    if lot.last_reset_ms[window]:
        return <int64_t> lot.last_reset_ms[window]
    return <int64_t> (lot.reset_ms[window] if lot.reset_ms[window] else now_ms) - <int64_t> _lasts_s(lot, window) * 1000


cdef bint _lies_in(const State *state, const Lot *lot, int inner, int window, uint64_t now_ms) noexcept nogil:
    """Whether all of one window lies in another one, which is longer."""
    if window == WINDOW_ROLLING - 1:
        return inner == WINDOW_DAY - 1 and lot.rolling_days != 0
    return (
        window == WINDOW_CYCLE - 1 and (inner == WINDOW_DAY - 1 or (inner == WINDOW_ROLLING - 1 and lot.rolling_days != 0))
        and _begun_ms(state, lot, inner, now_ms) >= _begun_ms(state, lot, window, now_ms)
    )


cdef bint _is_told(const State *state, uint32_t index, const Lot *lot, int window, uint64_t now_ms) noexcept nogil:
    """Whether its carrier has said something of the SIM's window that runs."""
    cdef const SimLedger *ledger = &state.sims_ledger[index]
    return (
        index < state.header.ledger_end and ledger.as_of_s[window] != 0 and ledger.carrier_bytes[window] >= 0
        and (ledger.as_of_s[window] + _lasts_s(lot, window)) * 1000 >= now_ms and not (lot.resetting >> window) & 1
    )


cdef int64_t _used_in_bytes(State *state, uint32_t index, const Lot *lot, int inner, int window, uint64_t now_ms) noexcept nogil:
    """What of the use in one window was used in a longer one too, for certain."""
    cdef int64_t used = sim_used_bytes(state, index, inner)
    cdef int64_t begun_ms
    cdef int place
    if _lies_in(state, lot, inner, window, now_ms):
        return used
    begun_ms = _begun_ms(state, lot, window, now_ms)
    if (
        inner != WINDOW_ROLLING - 1 or window != WINDOW_CYCLE - 1 or not lot.rolling_days
        or _days_begun_ms(state, lot, -1, now_ms) < begun_ms
    ):
        return 0
    # Nobody knows of which of its days it is what the carrier counted more in all of them.
    used -= max(state.sims_ledger[index].correction_bytes[WINDOW_ROLLING - 1], <int64_t> 0) if index < state.header.ledger_end else 0
    for place in range(rolling_places(lot)):
        if index < state.header.rolling_end and _days_begun_ms(state, lot, place, now_ms) < begun_ms:
            used -= rolling_day_bytes(&state.sims_rolling[index], place)
    return used


cdef int64_t _excess_bytes(const State *state, uint32_t index, const Lot *lot, int window, uint64_t now_ms) noexcept nogil:
    """What its carrier counted beyond us in a SIM's window, at most."""
    cdef const SimLedger *ledger = &state.sims_ledger[index]
    cdef uint32_t told_s
    if index >= state.header.ledger_end:
        return 0
    told_s = ledger.as_of_s[window]
    if told_s and not lot.last_reset_ms[window] and (told_s + _lasts_s(lot, window)) * 1000 < now_ms:
        return 0  # of a window that must be over
    return max(ledger.correction_bytes[window] + ledger.straddling_bytes[window], <int64_t> 0)


cdef int64_t _inner_excess_bytes(const State *state, uint32_t index, const Lot *lot, int window, uint64_t now_ms) noexcept nogil:
    """And of that in the shorter windows that lie in this one. The rolling days have what their day has, and what they have beyond
    that may be of before a figure of the cycle."""
    cdef int64_t excess = 0
    if _lies_in(state, lot, WINDOW_DAY - 1, window, now_ms):
        excess = _excess_bytes(state, index, lot, WINDOW_DAY - 1, now_ms)
    if _lies_in(state, lot, WINDOW_ROLLING - 1, window, now_ms) and not _is_told(state, index, lot, window, now_ms):
        excess = max(excess, _excess_bytes(state, index, lot, WINDOW_ROLLING - 1, now_ms))
    return excess


cdef bint _day_is_after(const Lot *lot, uint32_t as_of_s) noexcept nogil:
    """Whether nothing that was known then is of the day that runs: only where somebody says when that began."""
    cdef uint64_t begun_ms = lot.last_reset_ms[WINDOW_DAY - 1]
    if not begun_ms:
        begun_ms = lot.reset_ms[WINDOW_DAY - 1] - min(lot.reset_ms[WINDOW_DAY - 1], <uint64_t> DAY_MS)
    return <uint64_t> as_of_s * 1000 <= begun_ms


cdef bint _place_is_after(const State *state, const Lot *lot, int place, uint32_t as_of_s, uint64_t now_ms) noexcept nogil:
    """The same of the day at a place of the ring; of -1, today. When the clocks change a day has an hour more or less."""
    return <int64_t> as_of_s <= (
        <int64_t> _today_begun_s(state, lot, now_ms) - (place + 1) * <int64_t> (DAY_MS // 1000) + (3_600 if place >= 0 else 0))


cdef bint _days_follow(const State *state, const Lot *lot, uint32_t as_of_s, uint64_t now_ms) noexcept nogil:
    """Whether a rolling window keeps single days, and today's is of after that instant."""
    return (
        lot.rolling_days and rolling_step_days(lot.rolling_days) == 1 and lot.last_reset_ms[WINDOW_ROLLING - 1]
        and not (lot.resetting >> (WINDOW_ROLLING - 1)) & 1 and _place_is_after(state, lot, -1, as_of_s, now_ms)
    )


cdef void _take_in(State *state, uint32_t index, int window, int64_t more, uint32_t as_of_s, int64_t added_most) noexcept nogil:
    """So much more was used in a SIM's window, or less, as figures say of shorter ones in it."""
    cdef const Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef SimLedger *ledger = &state.sims_ledger[index]
    more = min(more, pool_takes_beside_bytes(lot, window))
    more = min(more, BYTES_MAX - max(ledger.correction_bytes[window], <int64_t> 0))
    if more == 0:
        return
    state.header.ledger_end = max(state.header.ledger_end, index + 1)
    _set_correction(state, index, window, ledger.correction_bytes[window] + more)
    pool_beside(state, index, window, more, 0)
    pool_told(state, index, window, more, as_of_s, added_most)
    sim_set_offset_bytes(state, index, window, sim_offset_bytes(state, index, window) + more)


cdef int64_t _untold_back_bytes(const State *state, uint32_t index, int window, int64_t more) noexcept nogil:
    """What of less comes off a window that no figure holds for: no more than figures of shorter ones added to it."""
    return max(more, -max(state.sims_ledger[index].correction_bytes[window], <int64_t> 0))


cdef void _carry(
    State *state, uint32_t index, int inner, const Said *before, int64_t since, uint32_t as_of_s, uint64_t now_ms
) noexcept nogil:
    """A figure was taken, and ``since`` counted since: what it changes of what the carrier counted beyond us changes the longer windows too,
    unless a figure of theirs may know of it already."""
    cdef const Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef const SimLedger *ledger = &state.sims_ledger[index]
    cdef int64_t more, most
    cdef int window
    for window in range(WINDOWS - 1, -1, -1):  # the rolling days before the cycle
        if window == inner or not _lies_in(state, lot, inner, window, now_ms):
            continue
        more = _inner_excess_bytes(state, index, lot, window, now_ms) - before.excess_bytes[window]
        if not _is_told(state, index, lot, window, now_ms):
            more = _untold_back_bytes(state, index, window, more)
        elif not _day_is_after(lot, ledger.as_of_s[window]):
            # What came on top from one figure to the next is surely of later, and all of it no more than what the inner one says.
            if not before.told_s or before.told_s < ledger.as_of_s[window]:
                continue
            most = ledger.carrier_bytes[window] + ledger.carrier_bytes[inner] + ledger.straddling_bytes[inner] + since
            more = max(min(more, most - sim_used_bytes(state, index, window)), <int64_t> 0)
        _take_in(state, index, window, more, as_of_s, before.added_most[window])


cdef Said _said(const State *state, uint32_t index, int inner, uint64_t now_ms) noexcept nogil:
    cdef const Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef Said said
    cdef int window
    said.told_s = state.sims_ledger[index].as_of_s[inner] if _is_told(state, index, lot, inner, now_ms) else 0
    for window in range(WINDOWS):
        said.excess_bytes[window] = _inner_excess_bytes(state, index, lot, window, now_ms)
        said.added_most[window] = pool_added_most_bytes(state, index, window, now_ms)
    return said


cdef int64_t _cycle_least_bytes(State *state, uint32_t index, const Lot *lot, uint64_t now_ms) noexcept nogil:
    """What was used in the cycle by its carrier's figure and on the days of a rolling window since, as far as these are kept."""
    cdef const SimLedger *ledger = &state.sims_ledger[index]
    cdef uint32_t as_of_s = ledger.as_of_s[WINDOW_CYCLE - 1]
    cdef int64_t least = ledger.carrier_bytes[WINDOW_CYCLE - 1]
    cdef int64_t today = sim_used_bytes(state, index, WINDOW_ROLLING - 1) - ledger.correction_bytes[WINDOW_ROLLING - 1]
    cdef int place
    if not _days_follow(state, lot, as_of_s, now_ms) or not _is_told(state, index, lot, WINDOW_CYCLE - 1, now_ms):
        return 0
    for place in range(rolling_places(lot) if index < state.header.rolling_end else 0):
        today -= rolling_day_bytes(&state.sims_rolling[index], place)
        if _place_is_after(state, lot, place, as_of_s, now_ms):
            least += rolling_day_most_bytes(&state.sims_rolling[index], place)
    return least + max(today, <int64_t> 0) + _excess_bytes(state, index, lot, WINDOW_DAY - 1, now_ms)


cdef void _contain(State *state, uint32_t index, int inner, uint32_t as_of_s, uint64_t now_ms) noexcept nogil:
    """No longer window has less than was used in one that lies in it."""
    cdef const Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef int64_t least
    cdef int window
    for window in range(WINDOWS):
        if window == inner or window == WINDOW_DAY - 1 or (lot.resetting >> window) & 1:
            continue
        least = _used_in_bytes(state, index, lot, inner, window, now_ms)
        _take_in(state, index, window, max(least - sim_used_bytes(state, index, window), <int64_t> 0), as_of_s, 0)


cdef void _contain_days(State *state, uint32_t index, uint32_t as_of_s, uint64_t now_ms) noexcept nogil:
    cdef int64_t least = _cycle_least_bytes(state, index, &state.lots[state.groups[state.sims[index].group].lot], now_ms)
    least -= sim_used_bytes(state, index, WINDOW_CYCLE - 1)
    _take_in(state, index, WINDOW_CYCLE - 1, max(least, <int64_t> 0), as_of_s, 0)


cdef void _carry_day(
    State *state, uint32_t index, int place, int64_t more, int64_t raised, uint32_t ended_s, uint64_t now_ms
) noexcept nogil:
    """So much more was used on a day of the rolling window that is over, or less: the same for the cycle that it is of. ``raised``: what
    that changes of the pool's day, if that was told."""
    cdef Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef int window = WINDOW_CYCLE - 1
    cdef bint told = _is_told(state, index, lot, window, now_ms)
    cdef int64_t base
    if (
        _days_begun_ms(state, lot, place, now_ms) < _begun_ms(state, lot, window, now_ms)
        or (told and not _place_is_after(state, lot, place, state.sims_ledger[index].as_of_s[window], now_ms))
    ):
        return
    if not told:
        more = _untold_back_bytes(state, index, window, more)
    base = pool_base_bytes(lot, window)
    _take_in(state, index, window, more, ended_s, pool_added_most_bytes(state, index, window, now_ms))
    pool_follow_day(state, lot, place, base, raised, now_ms)
    _contain_days(state, index, ended_s, now_ms)


cdef bint days_told(const State *state, const Lot *lot, uint32_t as_of_s, uint64_t now_ms) noexcept nogil:
    """Whether the single days that a carrier told figures of were over by then, and their window turns."""
    return (
        as_of_s >= lot.days_told_s and rolling_step_days(lot.rolling_days) == 1 and (lot.last_reset_ms[WINDOW_ROLLING - 1] != 0 or lot.reset_ms[WINDOW_ROLLING - 1] != 0)
        and _today_begun_s(state, lot, now_ms) * 1000 + 2 * <uint64_t> DAY_MS >= now_ms
    )


cdef int64_t _days_told_bytes(
    const State *state, uint32_t index, const Lot *lot, uint32_t as_of_s, uint64_t now_ms
) noexcept nogil:
    """What its carrier said, no later, was used on single days of the rolling window: at least, since they are kept rounded up."""
    cdef const SimRolling *rolling = &state.sims_rolling[index]
    cdef int64_t least = 0
    cdef int place
    if index >= state.header.rolling_end or not days_told(state, lot, as_of_s, now_ms):
        return 0
    for place in range(rolling_places(lot)):
        least += rolling_day_told_bytes(rolling, place)
    return least


cdef int _correct(
    State *state, uint32_t index, int window, int64_t carrier_bytes, uint64_t counted_bytes, uint64_t straddling_bytes,
    uint32_t as_of_s, bint dry_run, uint64_t now_ms, int64_t *correction, int64_t *lowered
) noexcept nogil:
    """A figure of a whole window."""
    cdef const Sim *sim = &state.sims[index]
    cdef uint16_t entity = state.groups[sim.group].lot
    cdef const Lot *lot = &state.lots[entity]
    cdef SimLedger *ledger = &state.sims_ledger[index]
    cdef int64_t beside = 0, allowance = 0, offset, own, straddling, more, fall, since, beyond, carried = 0
    cdef int64_t bases[WINDOWS]
    cdef uint32_t told_s = 0
    cdef Said before
    cdef int status, inner
    if not as_of_s or counted_bytes > sim.counted_bytes or straddling_bytes > counted_bytes:
        return INVALID_ARGUMENT
    if index < state.header.ledger_end:
        beside = ledger_bytes(state, index, window)
        allowance = ledger.allowance_bytes[window]
        told_s = ledger.as_of_s[window]
    status = figure_fits(state, entity, window, carrier_bytes, as_of_s, told_s, 1, now_ms)
    if status != OK:
        return status
    offset = sim_offset_bytes(state, index, window) - beside
    own = max(<int64_t> counted_bytes + offset, <int64_t> 0)
    if as_of_s == told_s and carrier_bytes == ledger.carrier_bytes[window]:
        correction[0] = carrier_bytes - own
        return SAME
    for inner in range(WINDOWS):
        if (
            _lies_in(state, lot, inner, window, now_ms) and _is_told(state, index, lot, inner, now_ms)
            and as_of_s >= ledger.as_of_s[inner] and carrier_bytes < ledger.carrier_bytes[inner]
        ):
            return IMPOSSIBLE_USAGE
    if window == WINDOW_ROLLING - 1 and carrier_bytes < _days_told_bytes(state, index, lot, as_of_s, now_ms):
        return IMPOSSIBLE_USAGE
    if index < state.header.ledger_end:
        carried = pool_summed_bytes(ledger, window, lot.sims_told_since_s[window])
    straddling = min(<int64_t> straddling_bytes, own)
    if (
        not pool_takes_told(lot, window, carrier_bytes - carried)
        or carrier_bytes - own + straddling - (beside - allowance) > pool_takes_beside_bytes(lot, window)
    ):
        return IMPOSSIBLE_USAGE
    if _is_told(state, index, lot, window, now_ms):
        lowered[0] = max(ledger.carrier_bytes[window] - carrier_bytes, <int64_t> 0)
    correction[0] = carrier_bytes - own
    if not dry_run:
        sim_windows_begin(state, index, now_ms)  # the longer ones, which it may change
        before = _said(state, index, window, now_ms)
        beyond = pool_day_excess_bytes(lot)
        state.header.ledger_end = max(state.header.ledger_end, index + 1)
        _set_correction(state, index, window, correction[0])
        ledger.straddling_bytes[window] = straddling
        pool_bases(lot, bases)
        since = max(<int64_t> sim.counted_bytes + offset, <int64_t> 0) - own
        fall = pool_sim_told(state, index, window, carrier_bytes, as_of_s, since, now_ms)
        if as_of_s > ledger.unreported_s:
            ledger.allowance_bytes[window] = 0  # the carrier knows
        sim_set_offset_bytes(state, index, window, offset + ledger_bytes(state, index, window))
        more = ledger_bytes(state, index, window) - beside
        pool_beside(state, index, window, more, ledger.allowance_bytes[window] - allowance)
        pool_told(state, index, window, more - (ledger.allowance_bytes[window] - allowance), as_of_s, before.added_most[window])
        if _day_is_after(lot, as_of_s):
            more = _inner_excess_bytes(state, index, lot, window, now_ms)
            _take_in(state, index, window, more, as_of_s, 0)
        _carry(state, index, window, &before, <int64_t> (sim.counted_bytes - counted_bytes), as_of_s, now_ms)
        if window == WINDOW_CYCLE - 1:
            _contain_days(state, index, as_of_s, now_ms)
        for inner in range(WINDOW_DAY - 1, WINDOWS):
            if _is_told(state, index, lot, inner, now_ms):
                _contain(state, index, inner, as_of_s, now_ms)
        if window == WINDOW_DAY - 1:
            pool_carry_day(state, &state.lots[entity], beyond, 0, 0, bases, now_ms)
        pool_contain_sims(state, index, window, fall, bases, now_ms)
        pool_contain_told(state, &state.lots[entity], now_ms)
        sim_set_limit(state, index, now_ms)
    return OK


cdef int day_fits(
    const State *state, const Lot *lot, int64_t carrier_bytes, uint32_t ended_s, uint32_t told_s, uint64_t sims, uint64_t now_ms,
    uint64_t *place
) noexcept nogil:
    """OK, or why a figure of the day that ended then is not taken. Gives its place. ``told_s``: the instant of the last figure of
    the whole window; ``sims``: how many it is of."""
    cdef uint64_t line = <uint64_t> state.header.settings[<int> LINE_BYTES_PER_S]
    cdef uint64_t begun_s = _today_begun_s(state, lot, now_ms)
    cdef uint64_t half_s = DAY_MS // 2000
    cdef int status
    if not ended_s:
        return INVALID_ARGUMENT
    if not lot.rolling_days or rolling_step_days(lot.rolling_days) != 1:
        return NO_WINDOW
    status = _figure_possible(carrier_bytes, ended_s, now_ms)
    if status != OK:
        return status
    if told_s and (told_s >= begun_s or not lot.last_reset_ms[WINDOW_ROLLING - 1]):
        return LATE  # it is of all days, also of one that was over only after it
    if (lot.resetting >> (WINDOW_ROLLING - 1)) & 1 or _reset_due(lot, WINDOW_ROLLING - 1, now_ms):
        return WRONG_STATE
    if ended_s > begun_s + half_s:
        return FUTURE_USAGE  # its end is nearer to that of today
    place[0] = (begun_s + half_s - ended_s) // (DAY_MS // 1000)
    if place[0] + 1 >= lot.rolling_days:
        return PAST_WINDOW
    # The longest day that there is has 25 hours.
    return IMPOSSIBLE_USAGE if <uint64_t> carrier_bytes // line // sims >= 25 * 3_600 + 2 else OK


cdef bint day_covered(const State *state, const Lot *lot, uint64_t place, uint32_t told_s, uint64_t now_ms) noexcept nogil:
    """What a figure of the whole window had beyond us joined the day on which it was told, whichever day it was of: so a day up to
    then may have been corrected already. And where several days stand nobody knows what of it is of this one."""
    return (lot.days_several >> (place + 1)) & 1 or told_s and told_s + (place + 1) * (DAY_MS // 1000) > _today_begun_s(state, lot, now_ms)


cdef int _correct_day(
    State *state, uint32_t index, int64_t carrier_bytes, uint32_t ended_s, bint dry_run, uint64_t now_ms, int64_t *correction
) noexcept nogil:
    """A figure of the day of a rolling window that ended then."""
    cdef Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef uint64_t place = 0
    cdef int64_t day, told, more, raised, before = 0
    cdef uint32_t told_s = 0
    cdef SimRolling *rolling
    cdef int status
    if index < state.header.ledger_end:
        told_s = state.sims_ledger[index].as_of_s[WINDOW_ROLLING - 1]
    status = day_fits(state, lot, carrier_bytes, ended_s, told_s, 1, now_ms, &place)
    if status != OK:
        return status
    if carrier_bytes >> ROLLING_SHIFT >= <int64_t> DAY_TOLD - 1:
        return IMPOSSIBLE_USAGE
    rolling = &state.sims_rolling[index]
    day = (carrier_bytes + (1 << ROLLING_SHIFT) - 1) >> ROLLING_SHIFT
    if index < state.header.rolling_end:
        before = rolling.days[place] & ~DAY_TOLD
    if day < before and day_covered(state, lot, place, told_s, now_ms):
        return LATE
    if not pool_takes_day(lot, place, (day - before) << ROLLING_SHIFT):
        return IMPOSSIBLE_USAGE
    correction[0] = carrier_bytes - (before << ROLLING_SHIFT)
    if day == before and index < state.header.rolling_end and rolling.days[place] & DAY_TOLD:
        return SAME
    if not dry_run:
        sim_windows_begin(state, index, now_ms)
        state.header.rolling_end = max(state.header.rolling_end, index + 1)
        told = rolling_day_told_bytes(rolling, <int> place)
        if not rolling.days[place] & DAY_TOLD:
            rolling.own[place] = <uint32_t> before
        # What we counted on it stays in the cycle; what its carrier had said goes as it takes that back.
        more = -rolling_day_most_bytes(rolling, <int> place)
        rolling.days[place] = <uint32_t> day | DAY_TOLD
        more += rolling_day_most_bytes(rolling, <int> place)
        lot.days_told_s = max(lot.days_told_s, ended_s)
        told = rolling_day_told_bytes(rolling, <int> place) - told
        raised = -pool_day_most_bytes(lot, <int> place)
        pool_day_corrected(state, index, <int> place, (day - before) << ROLLING_SHIFT, told)
        raised += pool_day_most_bytes(lot, <int> place)
        _carry_day(state, index, <int> place, more, raised, ended_s, now_ms)
        _contain(state, index, WINDOW_ROLLING - 1, ended_s, now_ms)
        pool_contain_told(state, lot, now_ms)
        sim_set_limit(state, index, now_ms)
    return OK


cdef bint figure_aside(int status) noexcept nogil:
    """Whether a figure is set aside and shown."""
    return (
        status == IMPOSSIBLE_USAGE or status == NEGATIVE_USAGE or status == FUTURE_USAGE or status == PAST_WINDOW
        or status == NO_WINDOW
    )


cdef void apply_carrier_usage(State *state, const Run *run) noexcept nogil:
    """What carriers say was used. An older figure than the last one changes nothing, nor does the same one again.

    A run with an argument only says what would become of its figures.
    """
    cdef uint32_t count = run.count
    cdef const uint64_t *iccids = <const uint64_t *> run.columns
    cdef const int64_t *carrier_bytes = <const int64_t *> (iccids + count)
    cdef const uint64_t *counted_bytes = <const uint64_t *> (carrier_bytes + count)
    cdef const uint64_t *straddling_bytes = counted_bytes + count
    cdef const uint32_t *instants_s = <const uint32_t *> (straddling_bytes + count)
    cdef const uint8_t *windows = <const uint8_t *> (instants_s + count)
    cdef int64_t *corrections = <int64_t *> run.outcomes
    cdef int64_t *lowered_bytes = corrections + count
    cdef uint8_t *statuses = <uint8_t *> (lowered_bytes + count)
    cdef uint32_t item, index
    cdef EventRow *row
    cdef int window, status
    for item in range(count):
        corrections[item] = 0
        lowered_bytes[item] = 0
        index = sim_find(state, iccids[item])
        window = windows[item] - 1
        if index == NONE_INDEX:
            status = UNKNOWN_SIM
        elif windows[item] == ROLLING_DAY:
            status = _correct_day(
                state, index, carrier_bytes[item], instants_s[item], run.argument != 0, run.now_ms, &corrections[item])
        elif not 0 <= window < WINDOWS:
            status = INVALID_ARGUMENT
        else:
            status = _correct(
                state, index, window, carrier_bytes[item], counted_bytes[item], straddling_bytes[item], instants_s[item],
                run.argument != 0, run.now_ms, &corrections[item], &lowered_bytes[item])
        statuses[item] = <uint8_t> status
        if run.argument:
            continue
        if status == OK:
            state.header.corrections_count += 1
            row = event(
                state, EVENT_CORRECTION, NONE_INDEX, NONE_SHORT, NONE_INDEX, windows[item], iccids[item],
                <uint64_t> corrections[item])
            row.terminal = <uint64_t> lowered_bytes[item]
        elif figure_aside(status):
            state.header.figures_aside_count += 1
            event(
                state, EVENT_SET_ASIDE, NONE_INDEX, NONE_SHORT, NONE_INDEX, status, <uint64_t> carrier_bytes[item],
                iccids[item])

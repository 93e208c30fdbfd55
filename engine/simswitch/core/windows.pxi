# What a SIM has used in the windows of its plan.
#
#     used in a window = counted_bytes + offset         a reset, an opening balance, a carrier's figure move the offset
#
# Cycle and day stand in the SIM's cold record. A rolling window needs its days one by one, so it has a region of its own, of which
# nothing is touched, hashed or written while no plan rolls.
#
#     offset.. today | 1 | 2 | ... | 14      the days before today, the last one first; as many as the window has count
#
# Of a day that a carrier told what we counted is kept beside it: that is in the cycle, whatever is told, and in whichever order.
#
# All of them are kept, so a plan's window that becomes longer finds them. A window of more days than the ring has places counts in steps of
# several days, and so over some days more than it has: never over fewer. Where a plan's step becomes another one all places count until those
# of before it have left, and where it becomes longer what leaves the ring meanwhile joins its last place, since the longer window needs it;
# where it becomes a day each of them stays for as many days as if it had one.
#
# The ring turns by as many places as days are over, so each day has its own. Who was away counted nothing on them: what was used up to then
# is of the day on which they went. Where more was counted than is of one day (the clock was frozen, nobody said when a day was over, a
# step became shorter) nobody knows of which it is: it is kept as of the last of them, and a figure of a single day takes nothing off.
#
# Everything is O(1); a day's turn is O(ROLLING_DAYS) a SIM.

cdef extern from *:
    """
    #define SIMSWITCH_IMSI_MASK (((uint64_t) 1 << 50) - 1)
    """
    const uint64_t IMSI_MASK "SIMSWITCH_IMSI_MASK"


cdef enum:
    ROLLING_SHIFT = 12            # a day of the ring counts in 4 KiB, rounded up


cdef extern from *:
    """
    #define SIMSWITCH_DAY_TOLD ((uint32_t) 1 << 31)
    """
    const uint32_t DAY_TOLD "SIMSWITCH_DAY_TOLD"     # of a day of the ring: its carrier said so


cdef extern from *:
    """
    #define SIMSWITCH_NO_LIMIT INT64_MAX
    """
    const int64_t NO_LIMIT "SIMSWITCH_NO_LIMIT"     # a SIM's limit when no cap applies


cdef inline uint64_t sim_imsi(const SimCold *cold) noexcept nogil:
    return cold.identity & IMSI_MASK


cdef inline uint32_t rolling_step_days(uint32_t days) noexcept nogil:
    """How many days a place of the ring stands for."""
    return max((max(days, <uint32_t> 1) - 1 + ROLLING_DAYS - 1) // ROLLING_DAYS, <uint32_t> 1)


cdef inline int rolling_places(const Lot *lot) noexcept nogil:
    """How many places of the ring count."""
    cdef uint32_t step = rolling_step_days(lot.rolling_days)
    return ROLLING_DAYS if lot.turns_all else <int> ((max(<uint32_t> lot.rolling_days, <uint32_t> 1) - 1 + step - 1) // step)


cdef inline int64_t rolling_day_bytes(const SimRolling *rolling, int place) noexcept nogil:
    return <int64_t> (rolling.days[place] & ~DAY_TOLD) << ROLLING_SHIFT


cdef inline int64_t rolling_day_most_bytes(const SimRolling *rolling, int place) noexcept nogil:
    """What of a day is in the cycle: what its carrier said, but no less than we counted."""
    return max(rolling_day_bytes(rolling, place), <int64_t> rolling.own[place] << ROLLING_SHIFT)


cdef inline int64_t sim_days_bytes(const State *state, uint32_t index) noexcept nogil:
    """What counts in a SIM's rolling window of the days before today."""
    cdef int64_t days = 0
    cdef int place
    if index < state.header.rolling_end:
        for place in range(rolling_places(&state.lots[state.groups[state.sims[index].group].lot])):
            days += rolling_day_bytes(&state.sims_rolling[index], place)
    return days


cdef inline int64_t sim_offset_bytes(State *state, uint32_t index, int window) noexcept nogil:
    """``window`` counts from 0 here."""
    if window == WINDOW_CYCLE - 1:
        return state.sims_cold[index].offset_cycle_bytes
    if window == WINDOW_DAY - 1:
        return state.sims_cold[index].offset_day_bytes
    return state.sims_rolling[index].offset_bytes + sim_days_bytes(state, index) if index < state.header.rolling_end else 0


cdef inline int64_t sim_used_bytes(State *state, uint32_t index, int window) noexcept nogil:
    """What was counted in a window, by us or by its carrier: without what is only allowed for."""
    return <int64_t> state.sims[index].counted_bytes + sim_offset_bytes(state, index, window) - ledger_allowed_bytes(state, index, window)


cdef inline int64_t rolling_day_told_bytes(const SimRolling *rolling, int place) noexcept nogil:
    """What a carrier said was used on a day: at least, since days are kept rounded up. 0: it said nothing."""
    return max(rolling_day_bytes(rolling, place) - ((1 << ROLLING_SHIFT) - 1), <int64_t> 0) if rolling.days[place] & DAY_TOLD else 0


cdef void sim_set_offset_bytes(State *state, uint32_t index, int window, int64_t offset) noexcept nogil:
    if window == WINDOW_CYCLE - 1:
        state.sims_cold[index].offset_cycle_bytes = offset
    elif window == WINDOW_DAY - 1:
        state.sims_cold[index].offset_day_bytes = offset
    elif offset != sim_offset_bytes(state, index, window):
        state.header.rolling_end = max(state.header.rolling_end, index + 1)
        state.sims_rolling[index].offset_bytes = offset - sim_days_bytes(state, index)


cdef void window_restart(State *state, uint32_t index, int window, int64_t from_bytes, int64_t allowance) noexcept nogil:
    """Nothing counts from before so much was counted; of a rolling window, no day. ``allowance``: stays."""
    ledger_clear(state, index, window)
    if window == WINDOW_ROLLING - 1 and index < state.header.rolling_end:
        pool_days_untold(state, index)
        memset(state.sims_rolling[index].days, 0, sizeof(state.sims_rolling[index].days))
        memset(state.sims_rolling[index].own, 0, sizeof(state.sims_rolling[index].own))
    if allowance:
        state.sims_ledger[index].allowance_bytes[window] = allowance
        pool_beside(state, index, window, allowance, allowance)
    sim_set_offset_bytes(state, index, window, allowance - from_bytes)


cdef void _turn_ring(uint32_t *ring, int places) noexcept nogil:
    memmove(&ring[places], &ring[0], (ROLLING_DAYS - places) * sizeof(uint32_t))
    memset(&ring[0], 0, places * sizeof(uint32_t))


cdef void window_turn(State *state, uint32_t index, int64_t from_bytes, int64_t allowance) noexcept nogil:
    """A day of the rolling window is over, or a step, or several: what was used in it joins the ring, and the oldest leave. What was counted
    from ``from_bytes`` on is today's, and so is ``allowance``."""
    cdef const Lot *lot = &state.lots[state.groups[state.sims[index].group].lot]
    cdef int64_t counted = <int64_t> state.sims[index].counted_bytes
    cdef SimRolling *rolling = &state.sims_rolling[index]
    cdef int64_t beside = ledger_bytes(state, index, WINDOW_ROLLING - 1)
    cdef int64_t today = counted
    cdef int64_t less, later, last = 0
    cdef int place
    if index < state.header.rolling_end:
        today += rolling.offset_bytes
    later = max(min(counted - from_bytes, today - beside), <int64_t> 0)
    today -= later + allowance
    state.header.rolling_end = max(state.header.rolling_end, index + 1)
    # What a carrier counted beyond us joins the ring as today's; what it counted less holds up to now only, since nobody knows
    # on which of the days.
    less = min(ledger_clear(state, index, WINDOW_ROLLING - 1), <int64_t> 0)
    today -= less
    pool_turned(state, index, beside - less - allowance)
    if allowance:
        state.sims_ledger[index].allowance_bytes[<int> WINDOW_ROLLING - 1] = allowance
        pool_beside(state, index, WINDOW_ROLLING - 1, allowance, allowance)
    today = (max(today, <int64_t> 0) + (1 << ROLLING_SHIFT) - 1) >> ROLLING_SHIFT
    for place in range(ROLLING_DAYS - lot.turn_places, ROLLING_DAYS):
        last += rolling.days[place] & ~DAY_TOLD
    _turn_ring(rolling.days, lot.turn_places)
    _turn_ring(rolling.own, lot.turn_places)
    rolling.days[lot.turn_place] = <uint32_t> min(today, <int64_t> DAY_TOLD - 1)
    if lot.turn_keeps:
        last += rolling.days[ROLLING_DAYS - 1] & ~DAY_TOLD
        rolling.days[ROLLING_DAYS - 1] = <uint32_t> min(last, <int64_t> DAY_TOLD - 1)
        rolling.own[ROLLING_DAYS - 1] = 0
    rolling.offset_bytes = later + allowance - counted

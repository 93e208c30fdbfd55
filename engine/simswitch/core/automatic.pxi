# Swaps that nobody orders: off SIMs that turn low while they are assigned, before they are slowed, and off those that are spent
# or throttled, or that their carrier has suspended or terminated.
#
# They obey all that a job's swaps obey. What can't be swapped when its SIM turns is found again by a sweep over the SIMs,
# started some time after; while nothing was turned away there is no sweep.

cdef enum:
    AUTOMATIC_AGAIN_MS = 60_000   # until what was turned away is looked for


cdef bint terminal_at_ceiling(const State *state, uint32_t index) noexcept nogil:
    """Whether it was swapped as often today as a terminal may be."""
    cdef const TerminalCold *cold = &state.terminals_cold[index]
    return (
        cold.swaps_today >= state.header.settings[<int> SWAPS_PER_DAY_MAX]
        and day_of(state, cold.swapped_ms) == state.header.day
    )


cdef inline uint64_t day_of(const State *state, uint64_t at_ms) noexcept nogil:
    """The number of the day, from midnight to midnight local time."""
    cdef uint64_t begins_ms = <uint64_t> state.header.settings[<int> DAY_BEGINS_MS]
    return (at_ms - begins_ms) // DAY_MS if at_ms >= begins_ms else 0


cdef void terminal_count_swap(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """It was swapped, or that was given up: its cool-down begins, and today's count goes up."""
    cdef TerminalCold *cold = &state.terminals_cold[index]
    if day_of(state, cold.swapped_ms) != state.header.day:
        cold.swaps_today = 0
    cold.swaps_today += cold.swaps_today < 255
    cold.swapped_ms = now_ms


cdef void automatic_later(State *state, uint64_t now_ms) noexcept nogil:
    """Somebody should be swapped and can't be now."""
    if not state.header.automatic_due_ms:
        state.header.automatic_due_ms = now_ms + AUTOMATIC_AGAIN_MS


cdef inline bint _short(const State *state, const Terminal *terminal) noexcept nogil:
    """Whether swaps found no target in its market with as much left as it wants."""
    cdef const Market *market = &state.markets[terminal.market]
    return market.short_since_ms != 0 and terminal_tier(terminal) >= market.short_tier


cdef void automatic_swap(State *state, uint32_t sim, uint64_t now_ms) noexcept nogil:
    """An assigned SIM is not as it should be: its terminal is swapped if that is wanted and may be."""
    cdef int health = state.sims[sim].health
    cdef int priority
    cdef int64_t wanted = state.header.settings[<int> AUTOMATIC_SWAPS]
    cdef uint32_t index = state.sims[sim].terminal
    cdef Terminal *terminal = &state.terminals[index]
    cdef uint32_t swap = terminal_swap(terminal)
    if health == LOW and wanted & 1:
        priority = PRIORITY_PREDICTED
    elif (health == EXHAUSTED or health == THROTTLED or health == SUSPENDED or health == RETIRED) and wanted & 2:
        priority = PRIORITY_THROTTLED
    else:
        return
    if swap != NONE_INDEX and not order_held(state, swap):
        order_hurry(state, swap, priority)
    elif (
        terminal_rests(state, index, now_ms) or terminal_at_ceiling(state, index) or not order_spare(state)
        or (priority == PRIORITY_PREDICTED and _short(state, terminal))
    ):
        automatic_later(state, now_ms)
    else:
        if swap != NONE_INDEX:
            order_take_out(state, swap, now_ms)
        order_new(state, SWITCH, index, sim, terminal.server, priority, NONE_INDEX, 0, now_ms)


cdef void automatic_look(State *state, uint64_t now_ms) noexcept nogil:
    """Starts the sweep when something was turned away some time ago.

    Every short market is searched before, once: who met its shortfall may have gone, and then no swap would find it over.
    """
    cdef uint32_t index
    cdef const Market *market
    if state.header.automatic_due_ms and state.header.automatic_due_ms <= now_ms:
        for index in range(state.header.markets_count):
            market = &state.markets[index]
            if market.short_since_ms and market_select(
                state, <int> index, tier_lowest_bytes(market.short_tier), market.short_tier, True, True
            ) != NONE_INDEX:
                shortfall(state, index, market.short_tier, False, 0, now_ms)
        if sweep_add(state, SWEEP_AUTOMATIC, 0, state.header.sims_count):
            state.header.automatic_due_ms = 0

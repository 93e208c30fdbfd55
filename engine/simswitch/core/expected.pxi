# What a lease will need, learned from those that are over: of each market the 95th percentile of what they used.
#
#     uses         [ . 2 9 7 4 . 1 | . 1 . ]    weight of the leases, by the tier of what they used (tiers.pxi)
#                               ^
#                               learned_tier: at most a twentieth of the weight stands above it
#
# The tiers of the selection index are fine enough, since a lease is given a SIM by tiers anyway: the figure is the upper end of one, and
# so up to a quarter above the percentile (from 4 MiB on), never below it.
#
# A lease counts when its terminal's next one begins. By then its final report is in, also if it came after its end; of one that
# nobody reported on nothing is known, and it counts nothing. So reports that are missing pull the figure to no zero. All weights are halved each
# day, so that a market follows what people do now. Everything is O(1): a lease moves the percentile by the tiers between, TIERS at most.

# It is bounded by what SIMs have: one that is left with less than the expected use is handed out no more, so of each SIM that much
# is stranded in each window. Where the smallest cap of a market's lots is small, what leases use is most of it, and a pool would run
# dry while most of its volume is left. (A quota that a lot's SIMs share strands nothing at any of them.) So the figure is at most an eighth of that cap: a lease that needs more is swapped, later.

cdef enum:
    CAP_SHARE = 8                 # of the smallest cap: what is learned is at most one part of so many
    BOUND_GROUPS = 1_024          # that the walk over caps looks at in an apply
    LEASE_WEIGHT = 16             # of one lease, so that halving leaves something of it for four days
    LEASES_LEAST = 32             # of which something is learned
    ABOVE_ONE_IN = 20             # leases may use more than the 95th percentile


cdef void bounds_wanted(State *state) noexcept nogil:
    """A lot has another cap, a class another lot, a market another class: the walk over the groups begins anew."""
    state.header.bounds_cursor = 1


cdef void bounds_run(State *state) noexcept nogil:
    """Goes on with it."""
    cdef uint32_t index, end
    cdef const Lot *lot
    cdef Class *sim_class
    cdef Market *market
    cdef int window, position
    cdef int64_t least
    if not state.header.bounds_cursor:
        return
    if state.header.bounds_cursor == 1:
        for index in range(state.header.classes_count):
            state.classes[index].least_so_far_bytes = 0
    end = min(<uint32_t> state.header.bounds_cursor - 1 + BOUND_GROUPS, state.header.groups_count)
    for index in range(<uint32_t> state.header.bounds_cursor - 1, end):
        lot = &state.lots[state.groups[index].lot]
        sim_class = &state.classes[state.groups[index].sim_class]
        for window in range(WINDOWS):
            if lot.quota_bytes[window] > 0 and not (lot.pooled >> window) & 1 and lot.validity != NO_LONGER_VALID and (
                not sim_class.least_so_far_bytes or lot.quota_bytes[window] < sim_class.least_so_far_bytes
            ):
                sim_class.least_so_far_bytes = lot.quota_bytes[window]
    state.header.bounds_cursor = <uint64_t> end + 1
    if end < state.header.groups_count:
        return
    state.header.bounds_cursor = 0
    for index in range(state.header.classes_count):
        state.classes[index].least_cap_bytes = state.classes[index].least_so_far_bytes
    for index in range(state.header.markets_count):
        market = &state.markets[index]
        market.bound_bytes = 0
        for position in range(<int> market.classes_count):
            least = state.classes[market.classes[position]].least_cap_bytes
            if least and (not market.bound_bytes or least // CAP_SHARE < market.bound_bytes):
                market.bound_bytes = max(least // CAP_SHARE, <int64_t> 1)


cdef void _market_fade(Market *market, uint64_t halvings) noexcept nogil:
    cdef int tier
    market.uses_weight = 0
    market.above_weight = 0
    for tier in range(TIERS):
        market.uses[tier] = market.uses[tier] >> halvings if halvings < 32 else 0
        market.uses_weight += market.uses[tier]
        if tier > market.learned_tier:
            market.above_weight += market.uses[tier]


cdef void market_learn(State *state, int index, uint64_t used_bytes) noexcept nogil:
    """A lease of the market is over, and has used so much."""
    cdef Market *market = &state.markets[index]
    cdef int tier = tier_of(<int64_t> used_bytes)
    if state.header.day > market.faded_day:
        _market_fade(market, state.header.day - market.faded_day)
        market.faded_day = state.header.day
    elif market.uses[tier] > NONE_INDEX - LEASE_WEIGHT:
        _market_fade(market, 1)
    market.uses[tier] += LEASE_WEIGHT
    market.uses_weight += LEASE_WEIGHT
    if tier > market.learned_tier:
        market.above_weight += LEASE_WEIGHT
    while market.above_weight * ABOVE_ONE_IN > market.uses_weight:
        market.learned_tier += 1
        market.above_weight -= market.uses[market.learned_tier]
    while market.learned_tier and (
        (market.above_weight + market.uses[market.learned_tier]) * ABOVE_ONE_IN <= market.uses_weight
    ):
        market.above_weight += market.uses[market.learned_tier]
        market.learned_tier -= 1
    # Of too few leases nothing new is said: what was learned before they faded stays.
    if market.uses_weight >= LEASES_LEAST * LEASE_WEIGHT:
        market.learned_bytes = tier_lowest_bytes(market.learned_tier + 1)


cdef inline int64_t expected_bytes(State *state, int market, uint64_t requested) noexcept nogil:
    """Expected use of a lease: from the request, else the market's figure, else what was learned within its bounds; never below
    the floor."""
    cdef int64_t floor = state.header.settings[<int> EXPECTED_FLOOR_BYTES]
    cdef int64_t expected
    if requested == 0:
        expected = state.markets[market].expected_bytes
        if expected < 0:
            expected = min(state.markets[market].learned_bytes, state.header.settings[<int> EXPECTED_CEILING_BYTES])
            if state.markets[market].bound_bytes:
                expected = min(expected, state.markets[market].bound_bytes)
    elif requested >= <uint64_t> 1 << 62:
        expected = <int64_t> 1 << 62
    else:
        expected = <int64_t> requested
    return expected if expected > floor else floor

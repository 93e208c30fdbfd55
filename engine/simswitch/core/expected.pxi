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

cdef enum:
    LEASE_WEIGHT = 16             # of one lease, so that halving leaves something of it for four days
    LEASES_LEAST = 32             # of which something is learned
    ABOVE_ONE_IN = 20             # leases may use more than the 95th percentile


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
    """Expected use of a lease: from the request, else the market's figure, else what was learned; never below the floor."""
    cdef int64_t floor = state.header.settings[<int> EXPECTED_FLOOR_BYTES]
    cdef int64_t expected
    if requested == 0:
        expected = state.markets[market].expected_bytes
        if expected < 0:
            expected = min(state.markets[market].learned_bytes, state.header.settings[<int> EXPECTED_CEILING_BYTES])
    elif requested >= <uint64_t> 1 << 62:
        expected = <int64_t> 1 << 62
    else:
        expected = <int64_t> requested
    return expected if expected > floor else floor

# The selection index: which free healthy SIM fits a request, in O(1).
#
#     class.tiers    one bit per tier:  [ . . 1 . 1 1 . . ]      some unmasked group has a SIM in the tier
#                                            |
#     class.groups[tier]  one bit per group of the class, 1,024 of them under a summary word
#                                            |
#     group.head[tier] -> SIM -> SIM -> ... -> group.tail[tier]  the one that has rested longest stands first
#
# A tier is a quarter of a power of two of headroom in MiB (two-level segregated fit, as TLSF does for memory blocks:
# Masmano et al. 2004). Of the tiers in which *every* SIM satisfies the request the roomiest is found with find-last-set: who has
# more left is swapped less. A job's swaps take the tightest instead, with find-first-set, since its check has promised a target
# to the most demanding too, and whoever is served first must not take it. Only if there is no such tier, up to OWN_TIER_TRIES SIMs of the tier in which the request itself lies are tried, since there some fit and
# some don't. Groups of a class take turns, so that no bank or lot is emptied first.
#
# Of lots that end an allocation takes the one that ends first, so that no quota expires while others are used: their groups have ranks
# in the order of their ends, lots without one the last (class_rank), and each rank its own bits over the tiers. The first rank that has
# a SIM in a tier that satisfies is found in eight words at most, with a byte for the roomiest tier of each; then it is chosen as above,
# among the groups of the rank. A SIM on probation waits until no rank has one in a roomier tier than it may stand in. Where all lots of
# a class end together, or none does, that costs one comparison.
#
# A SIM stands in the index if and only if it is free and healthy (I4). The index is a cache (I5): check.pxi rebuilds it.
# Masking a group takes its bits out of its class and leaves its lists alone, so it takes effect at once.
#
# The head's `previous` is stale on purpose: taking a SIM then touches no line of the next one. What chains
# would stall on is fetched ahead: each SIM hints at one about HINT_DISTANCE places behind it.


cdef extern from *:
    """
    #define simswitch_first_set(word) __builtin_ctzll(word)
    #define simswitch_last_set(word) (63 - __builtin_clzll(word))
    /* The empty statement keeps gcc from taking a function that only prefetches for one without effect, and leaving it out. */
    #define simswitch_prefetch(place) do { __builtin_prefetch(place, 1); __asm__ volatile (""); } while (0)
    """
    int first_set "simswitch_first_set"(uint64_t word) noexcept nogil
    int last_set "simswitch_last_set"(uint64_t word) noexcept nogil
    void prefetch "simswitch_prefetch"(const void *place) noexcept nogil


cdef inline int64_t headroom_bytes(const Sim *sim) noexcept nogil:
    """Bytes until the nearest cap; negative past it."""
    return sim.limit_bytes - <int64_t> sim.counted_bytes


cdef inline int tier_of(int64_t headroom) noexcept nogil:
    """The tier in which a headroom lies: 0 to 3 MiB one each, then four steps a power of two."""
    cdef uint64_t mebibytes
    cdef int exponent, tier
    if headroom <= 0:
        return 0
    mebibytes = <uint64_t> headroom >> 20
    if mebibytes < 4:
        return <int> mebibytes
    exponent = last_set(mebibytes)
    tier = (exponent - 1) * 4 + <int> ((mebibytes >> (exponent - 2)) & 3)
    return tier if tier < TIERS else TIERS - 1


cdef extern from *:
    """
    #define SIMSWITCH_UNTRUSTED ((uint64_t) 1 << 55)
    """
    const uint64_t UNTRUSTED "SIMSWITCH_UNTRUSTED"     # in Sim.cooling


cdef enum:
    PROBE_TIER = 28               # of 256 MiB


cdef inline bint sim_untrusted(const Sim *sim) noexcept nogil:
    return (sim.cooling & UNTRUSTED) != 0


cdef inline int sim_tier(const Sim *sim) noexcept nogil:
    """The tier in which it stands while it is free and healthy: one that is not trusted is for who needs little."""
    cdef int tier = tier_of(headroom_bytes(sim))
    return tier if tier <= PROBE_TIER or not sim_untrusted(sim) else PROBE_TIER


cdef inline int64_t tier_lowest_bytes(int tier) noexcept nogil:
    """The smallest headroom that lies in a tier."""
    if tier < 4:
        return <int64_t> tier << 20
    return (<int64_t> (4 + (tier & 3)) << ((tier >> 2) - 1)) << 20


cdef inline int tier_satisfying(int64_t expected) noexcept nogil:
    """The lowest tier in which every SIM has ``expected`` bytes left."""
    cdef int tier
    if expected <= 0:
        return 0
    tier = tier_of(expected - 1) + 1
    return tier if tier < TIERS else TIERS - 1


# Among which groups of a class is chosen: all of them, or those of a rank.
ctypedef struct Shelf:
    const uint64_t *tiers         # in which one of them has a SIM
    const uint64_t *groups        # GROUP_WORDS; NULL: all


cdef inline Shelf class_shelf(const Class *sim_class) noexcept nogil:
    return Shelf(&sim_class.tiers[0], NULL)


cdef inline Shelf rank_shelf(const Class *sim_class, int rank) noexcept nogil:
    return Shelf(&sim_class.rank_tiers[2 * rank], &sim_class.rank_groups[rank][0])


cdef inline int rank_roomiest(const Class *sim_class, int rank) noexcept nogil:
    """The highest tier in which the rank has a SIM; 0 also where it has none."""
    return <int> (sim_class.rank_roomiest[rank >> 3] >> (8 * (rank & 7)) & 0xFF)


cdef void rank_judge(Class *sim_class, int rank) noexcept nogil:
    """Its bits over the tiers are others."""
    cdef const uint64_t *tiers = &sim_class.rank_tiers[2 * rank]
    cdef uint64_t roomiest = 64 + last_set(tiers[1]) if tiers[1] else (last_set(tiers[0]) if tiers[0] else 0)
    cdef int shift = 8 * (rank & 7)
    sim_class.rank_roomiest[rank >> 3] = sim_class.rank_roomiest[rank >> 3] & ~(<uint64_t> 0xFF << shift) | roomiest << shift


cdef void rank_tier_set(Class *sim_class, int tier, int rank) noexcept nogil:
    sim_class.rank_tiers[2 * rank + (tier >> 6)] |= <uint64_t> 1 << (tier & 63)
    rank_judge(sim_class, rank)


cdef void rank_tier_clear(Class *sim_class, int tier, int rank) noexcept nogil:
    """A group of the rank has no SIM in the tier any more."""
    cdef int word
    for word in range(GROUP_WORDS):
        if sim_class.groups[tier][word] & sim_class.rank_groups[rank][word]:
            return
    sim_class.rank_tiers[2 * rank + (tier >> 6)] &= ~(<uint64_t> 1 << (tier & 63))
    rank_judge(sim_class, rank)


cdef inline int rank_from(const Class *sim_class, int tier) noexcept nogil:
    """The first rank that has a SIM in ``tier`` or a roomier one; RANKS: none has. With under a MiB left no SIM is looked for."""
    cdef uint64_t ones = 0x0101010101010101ULL, highest = 0x8080808080808080ULL
    cdef uint64_t wanted = <uint64_t> max(tier, 1) * ones
    cdef uint64_t bits
    cdef int word
    for word in range(RANKS // 8):
        # Tiers are below 128: with its highest bit set a byte keeps it, if what is taken away is no more than what was there.
        bits = ((sim_class.rank_roomiest[word] | highest) - wanted) & highest
        if bits:
            return 8 * word + (first_set(bits) >> 3)
    return RANKS


cdef inline void class_tier_set(Class *sim_class, int tier, const Group *group) noexcept nogil:
    """An unmasked group has a SIM in the tier from now on."""
    sim_class.groups[tier][group.local >> 6] |= <uint64_t> 1 << (group.local & 63)
    sim_class.summary[tier] |= <uint64_t> 1 << (group.local >> 6)
    sim_class.tiers[tier >> 6] |= <uint64_t> 1 << (tier & 63)
    if sim_class.ranks_count > 1:
        rank_tier_set(sim_class, tier, group.rank)


cdef inline void class_tier_clear(Class *sim_class, int tier, const Group *group) noexcept nogil:
    cdef uint64_t *word = &sim_class.groups[tier][group.local >> 6]
    word[0] &= ~(<uint64_t> 1 << (group.local & 63))
    if word[0] == 0:
        sim_class.summary[tier] &= ~(<uint64_t> 1 << (group.local >> 6))
        if sim_class.summary[tier] == 0:
            sim_class.tiers[tier >> 6] &= ~(<uint64_t> 1 << (tier & 63))
    if sim_class.ranks_count > 1:
        rank_tier_clear(sim_class, tier, group.rank)


cdef inline void index_insert(State *state, uint32_t index) noexcept nogil:
    """Puts a free healthy SIM behind all others of its tier."""
    cdef Sim *sim = &state.sims[index]
    cdef Group *group = &state.groups[sim.group]
    cdef Class *sim_class = &state.classes[group.sim_class]
    cdef int tier = sim_tier(sim)
    cdef uint32_t tail = group.tail[tier]
    invariant(sim.occupancy == FREE and sim.health == HEALTHY, "I4: only free and healthy SIMs stand in the index")
    invariant(sim.tier == TIER_NONE, "I5: a SIM stands in the index once")
    sim.tier = <uint8_t> tier
    sim.next = NONE_INDEX
    sim.previous = tail
    sim.hint = NONE_INDEX
    sim.rest_sequence = state.header.rest_next
    state.header.rest_next += 1
    if tail == NONE_INDEX:
        group.head[tier] = index
        group.tiers[tier >> 6] |= <uint64_t> 1 << (tier & 63)
        if not group.masked:
            class_tier_set(sim_class, tier, group)
    else:
        state.sims[tail].next = index
    group.tail[tier] = index
    group.free_count += 1
    if not group.masked:
        sim_class.free_count += 1
    # The SIM that was pushed HINT_DISTANCE pushes ago is still warm: it learns who stands that far behind it.
    cdef uint32_t earlier = group.recent[tier][(group.recent_next[tier] - HINT_DISTANCE) & (RECENT - 1)]
    if earlier != NONE_INDEX:
        state.sims[earlier].hint = index
    group.recent[tier][group.recent_next[tier] & (RECENT - 1)] = index
    group.recent_next[tier] += 1


cdef inline void index_remove(State *state, uint32_t index) noexcept nogil:
    index_leave(state, &state.sims[index], &state.groups[state.sims[index].group], index)


cdef inline void index_leave(State *state, Sim *sim, Group *group, uint32_t index) noexcept nogil:
    """Takes a SIM out of its tier, wherever in it."""
    cdef int tier = sim.tier
    invariant(tier < TIERS, "I5: the SIM stands in the index")
    if group.head[tier] == index:
        group.head[tier] = sim.next
    else:
        state.sims[sim.previous].next = sim.next
    if group.tail[tier] == index:
        # A head's previous is stale, so an emptied list is told by its head.
        group.tail[tier] = NONE_INDEX if group.head[tier] == NONE_INDEX else sim.previous
    elif group.head[tier] != sim.next:
        state.sims[sim.next].previous = sim.previous
    if group.head[tier] == NONE_INDEX:
        group.tiers[tier >> 6] &= ~(<uint64_t> 1 << (tier & 63))
        if not group.masked:
            class_tier_clear(&state.classes[group.sim_class], tier, group)
    group.free_count -= 1
    if not group.masked:
        state.classes[group.sim_class].free_count -= 1
    sim.tier = TIER_NONE
    sim.next = NONE_INDEX
    sim.previous = NONE_INDEX


cdef inline int next_local(const Class *sim_class, const Shelf *shelf, int tier) noexcept nogil:
    """The group of the tier whose turn it is: the first after the last one taken, round the ring."""
    cdef int start = <int> ((sim_class.last_group + 1) % (64 * GROUP_WORDS))
    cdef int word = start >> 6
    cdef const uint64_t *groups = &sim_class.groups[tier][0]
    cdef uint64_t bits = groups[word] & (~<uint64_t> 0 << (start & 63))
    cdef uint64_t summary
    if shelf.groups != NULL:
        bits &= shelf.groups[word]
        while bits == 0:
            word = (word + 1) % GROUP_WORDS
            bits = groups[word] & shelf.groups[word]
    elif bits == 0:
        summary = sim_class.summary[tier]
        bits = summary & (~<uint64_t> 0 << (word + 1) if word < GROUP_WORDS - 1 else 0)
        word = first_set(bits if bits != 0 else summary)
        bits = groups[word]
    return (word << 6) + first_set(bits)


cdef inline int shelf_tier_from(const Shelf *shelf, int tier, bint roomy) noexcept nogil:
    """The lowest tier from ``tier`` on in which the shelf has a SIM; ``roomy``: the highest. TIERS: there is none."""
    cdef uint64_t low = 0, high = shelf.tiers[1]
    if tier < 64:
        low = shelf.tiers[0] & (~<uint64_t> 0 << tier)
    else:
        high &= ~<uint64_t> 0 << (tier - 64)
    if roomy:
        return 64 + last_set(high) if high else (last_set(low) if low else TIERS)
    return first_set(low) if low else (64 + first_set(high) if high else TIERS)


cdef inline uint32_t shelf_select(
    State *state, Class *sim_class, const Shelf *shelf, int64_t expected, int tier, bint roomy
) noexcept nogil:
    """A free healthy SIM of the shelf with ``expected`` bytes left, or NONE_INDEX. ``tier`` is tier_satisfying.

    ``roomy``: one that has as much left as any, else as little as will do.
    """
    cdef int own, local
    cdef uint32_t index
    own = shelf_tier_from(shelf, tier, roomy)
    if own < TIERS:
        local = next_local(sim_class, shelf, own)
        if not pool_has(state, &state.groups[sim_class.members[local]], expected):
            return shelf_select_around(state, sim_class, shelf, expected, tier, roomy, False)
        sim_class.last_group = local
        index = state.groups[sim_class.members[local]].head[own]
        if headroom_bytes(&state.sims[index]) >= expected:
            return index
        return NONE_INDEX  # only in the last tier, which is open upwards, and then nothing has that much left
    return _select_own_tier(state, sim_class, shelf, expected, tier, roomy)


cdef uint32_t _select_own_tier(
    State *state, Class *sim_class, const Shelf *shelf, int64_t expected, int tier, bint roomy
) noexcept nogil:
    """Of the tier in which the request itself lies: no other satisfies. Apart from shelf_select, which is part of its callers' loops."""
    cdef int own, tries, local, first
    cdef uint32_t index
    if tier == 0 or tier_of(expected) == tier:
        return NONE_INDEX
    own = tier - 1
    if not (shelf.tiers[own >> 6] >> (own & 63)) & 1:
        return NONE_INDEX
    tries = OWN_TIER_TRIES
    first = -1
    while tries > 0:
        local = next_local(sim_class, shelf, own)
        if local == first:
            break
        if not pool_has(state, &state.groups[sim_class.members[local]], expected):
            return shelf_select_around(state, sim_class, shelf, expected, tier, roomy, False)
        if first < 0:
            first = local
        sim_class.last_group = local
        index = state.groups[sim_class.members[local]].head[own]
        while index != NONE_INDEX and tries > 0:
            if headroom_bytes(&state.sims[index]) >= expected:
                return index
            tries -= 1
            index = state.sims[index].next
    return NONE_INDEX


cdef uint32_t _first_by_rank(State *state, Class *sim_class, int64_t expected, int tier, bint sound) noexcept nogil:
    """The roomiest of the first rank that has one; NONE_INDEX also where only SIMs of the request's own tier are left."""
    cdef int rank
    cdef Shelf shelf
    cdef uint32_t index
    if sound:
        return ranks_select_around(state, sim_class, 0, expected, tier, True)
    rank = rank_from(sim_class, tier)
    if rank == RANKS:
        return NONE_INDEX
    shelf = rank_shelf(sim_class, rank)
    index = shelf_select(state, sim_class, &shelf, expected, tier, True)
    if index == NONE_INDEX:
        index = ranks_select_around(state, sim_class, rank + 1, expected, tier, False)
    return index


cdef uint32_t select_by_rank(State *state, Class *sim_class, int64_t expected, int tier, bint sound) noexcept nogil:
    """The same, but that a SIM on probation waits until no rank has one above its tier, since with roomy fit it is the last to go.

    ``sound``: as class_select_sound.
    """
    cdef uint64_t before = sim_class.last_group
    cdef uint64_t after
    cdef uint32_t trusted, index = _first_by_rank(state, sim_class, expected, tier, sound)
    if index == NONE_INDEX or not sim_untrusted(&state.sims[index]):
        return index
    after = sim_class.last_group
    sim_class.last_group = before  # or the group that is passed by would decide whose turn it is behind it
    trusted = _first_by_rank(state, sim_class, tier_lowest_bytes(PROBE_TIER + 1), PROBE_TIER + 1, sound)
    if trusted != NONE_INDEX:
        return trusted
    sim_class.last_group = after
    return index


cdef inline uint32_t class_select(
    State *state, uint16_t class_index, int64_t expected, int tier, bint roomy
) noexcept nogil:
    """A free healthy SIM of the class. Where the roomiest is wanted those go first whose lot ends first; a job's swaps take the
    tightest of all, as its check has promised."""
    cdef Class *sim_class = &state.classes[class_index]
    cdef Shelf shelf
    cdef uint32_t index
    if roomy and sim_class.ranks_count > 1:
        index = select_by_rank(state, sim_class, expected, tier, False)
        if index != NONE_INDEX:
            return index
    shelf = class_shelf(sim_class)
    return shelf_select(state, sim_class, &shelf, expected, tier, roomy)

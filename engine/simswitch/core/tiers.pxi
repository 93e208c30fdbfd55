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
# Groups whose lot ends soon stand on a shelf of their own besides, with the same bitmaps: an allocation looks there first, so that no
# quota expires while others are used. Where no lot ends soon that costs it one comparison.
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
    cdef int tier = tier_of(expected)
    if tier_lowest_bytes(tier) >= expected:
        return tier
    return tier + 1 if tier + 1 < TIERS else TIERS - 1


# The bitmaps over the groups of a class: over all of them, or over those whose lot ends soon.
ctypedef struct Shelf:
    uint64_t *tiers
    uint64_t *summary
    uint64_t *groups              # GROUP_WORDS a tier


cdef inline Shelf class_shelf(Class *sim_class, bint soon) noexcept nogil:
    cdef Shelf shelf
    shelf.tiers = &sim_class.soon_tiers[0] if soon else &sim_class.tiers[0]
    shelf.summary = &sim_class.soon_summary[0] if soon else &sim_class.summary[0]
    shelf.groups = &sim_class.soon_groups[0][0] if soon else &sim_class.groups[0][0]
    return shelf


cdef inline void shelf_set(const Shelf *shelf, int tier, int local) noexcept nogil:
    shelf.groups[tier * GROUP_WORDS + (local >> 6)] |= <uint64_t> 1 << (local & 63)
    shelf.summary[tier] |= <uint64_t> 1 << (local >> 6)
    shelf.tiers[tier >> 6] |= <uint64_t> 1 << (tier & 63)


cdef inline void shelf_clear(const Shelf *shelf, int tier, int local) noexcept nogil:
    cdef uint64_t *word = &shelf.groups[tier * GROUP_WORDS + (local >> 6)]
    word[0] &= ~(<uint64_t> 1 << (local & 63))
    if word[0] == 0:
        shelf.summary[tier] &= ~(<uint64_t> 1 << (local >> 6))
        if shelf.summary[tier] == 0:
            shelf.tiers[tier >> 6] &= ~(<uint64_t> 1 << (tier & 63))


cdef inline void class_tier_set(Class *sim_class, int tier, const Group *group) noexcept nogil:
    """An unmasked group has a SIM in the tier from now on."""
    cdef Shelf shelf = class_shelf(sim_class, False)
    shelf_set(&shelf, tier, group.local)
    if group.soon:
        shelf = class_shelf(sim_class, True)
        shelf_set(&shelf, tier, group.local)


cdef inline void class_tier_clear(Class *sim_class, int tier, const Group *group) noexcept nogil:
    cdef Shelf shelf = class_shelf(sim_class, False)
    shelf_clear(&shelf, tier, group.local)
    if group.soon:
        shelf = class_shelf(sim_class, True)
        shelf_clear(&shelf, tier, group.local)


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
    """Takes a SIM out of its tier, wherever in it."""
    cdef Sim *sim = &state.sims[index]
    cdef Group *group = &state.groups[sim.group]
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


cdef inline int next_local(const Shelf *shelf, uint64_t last_group, int tier) noexcept nogil:
    """The group of the tier whose turn it is: the first after the last one taken, round the ring."""
    cdef int start = <int> ((last_group + 1) % (64 * GROUP_WORDS))
    cdef int word = start >> 6
    cdef const uint64_t *groups = &shelf.groups[tier * GROUP_WORDS]
    cdef uint64_t bits = groups[word] & (~<uint64_t> 0 << (start & 63))
    cdef uint64_t summary
    if bits == 0:
        summary = shelf.summary[tier]
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
    cdef int own, tries, local, first
    cdef uint32_t index
    own = shelf_tier_from(shelf, tier, roomy)
    if own < TIERS:
        local = next_local(shelf, sim_class.last_group, own)
        if not pool_has(state, &state.groups[sim_class.members[local]], expected):
            return shelf_select_around(state, sim_class, shelf, expected, tier, roomy, False)
        sim_class.last_group = local
        index = state.groups[sim_class.members[local]].head[own]
        if headroom_bytes(&state.sims[index]) >= expected:
            return index
        return NONE_INDEX  # only in the last tier, which is open upwards, and then nothing has that much left
    if tier == 0 or tier_of(expected) == tier:
        return NONE_INDEX
    own = tier - 1
    if not (shelf.tiers[own >> 6] >> (own & 63)) & 1:
        return NONE_INDEX
    tries = OWN_TIER_TRIES
    first = -1
    while tries > 0:
        local = next_local(shelf, sim_class.last_group, own)
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


cdef inline bint class_ends(const Class *sim_class) noexcept nogil:
    """Whether SIMs of it stand in the index whose lot ends soon."""
    return (sim_class.soon_tiers[0] | sim_class.soon_tiers[1]) != 0


cdef inline uint32_t class_select(
    State *state, uint16_t class_index, int64_t expected, int tier, bint roomy
) noexcept nogil:
    """A free healthy SIM of the class, as of its shelves. Where the roomiest is wanted those go first whose lot ends soon; a job's
    swaps take the tightest of all, as its check has promised."""
    cdef Class *sim_class = &state.classes[class_index]
    cdef Shelf shelf
    cdef uint32_t index
    if roomy and class_ends(sim_class):
        shelf = class_shelf(sim_class, True)
        index = shelf_select(state, sim_class, &shelf, expected, tier, True)
        if index != NONE_INDEX:
            return index
    shelf = class_shelf(sim_class, False)
    return shelf_select(state, sim_class, &shelf, expected, tier, roomy)

# Memory of the state.
#
# A region is an anonymous mapping: it starts as zeros, costs nothing until touched, and can be moved to a larger place
# without copying (mremap). Huge pages are asked for: at 10,000,000 SIMs the translation of addresses costs more
# than the cache misses themselves. Memory is taken at start or at explicit growth, never in an operation.


cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/mman.h>
    static void *simswitch_map(size_t size) {
        void *place = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (place == MAP_FAILED) return NULL;
        if (size >= (2u << 20)) madvise(place, size, MADV_HUGEPAGE);  /* advice only: a refusal changes nothing */
        return place;
    }
    static void *simswitch_remap(void *place, size_t from, size_t to) {
        void *moved = mremap(place, from, to, MREMAP_MAYMOVE);
        if (moved == MAP_FAILED) return NULL;
        if (to >= (2u << 20)) madvise(moved, to, MADV_HUGEPAGE);
        return moved;
    }
    static void simswitch_unmap(void *place, size_t size) { munmap(place, size); }
    static void simswitch_small_pages(void *place, size_t size) { madvise(place, size, MADV_NOHUGEPAGE); }
    """
    void *map_pages "simswitch_map"(size_t size) noexcept nogil
    void *remap_pages "simswitch_remap"(void *place, size_t from_size, size_t to_size) noexcept nogil
    void unmap_pages "simswitch_unmap"(void *place, size_t size) noexcept nogil
    void small_pages "simswitch_small_pages"(void *place, size_t size) noexcept nogil


cdef uint64_t _pages(uint64_t size) noexcept nogil:
    """Whole pages; whole huge ones from a quarter of one on, since only such mappings are placed where huge pages can be."""
    cdef uint64_t page = 4096 if size < 1 << 19 else 1 << 21
    return ((size if size > 0 else 1) + page - 1) & ~(page - 1)


cdef int region_take(Region *region, uint64_t item_bytes, uint64_t count) except -1:
    """Takes zeroed memory for ``count`` items. Raises MemoryError and takes nothing."""
    cdef uint64_t size = _pages(item_bytes * count)
    cdef void *place = map_pages(size)
    if place == NULL:
        raise MemoryError(f"no {size} bytes for {count} items of {item_bytes} bytes")
    region.data = place
    region.item_bytes = item_bytes
    region.count = count
    region.mapped_bytes = size
    return 0


cdef void region_sparse(Region *region) noexcept nogil:
    """Of a region that has room for many more items than there ever are: a huge page would be taken for the first of them."""
    small_pages(region.data, region.mapped_bytes)


cdef int region_reserve(Region *region, uint64_t count) except -1:
    """Maps memory for ``count`` items; new ones are zero. Their count stays: it is the caller's to raise.

    The mapping may move. Raises MemoryError and changes nothing.
    """
    cdef uint64_t size = _pages(region.item_bytes * count)
    cdef void *place
    if size > region.mapped_bytes:
        place = remap_pages(region.data, region.mapped_bytes, size)
        if place == NULL:
            raise MemoryError(f"no {size} bytes for {count} items of {region.item_bytes} bytes")
        region.data = place
        region.mapped_bytes = size
    return 0


cdef void region_free(Region *region) noexcept nogil:
    if region.data != NULL:
        unmap_pages(region.data, region.mapped_bytes)
        region.data = NULL


cdef void regions_bind(State *state) noexcept nogil:
    """Sets the typed pointers from the regions; after every take, resize and restore."""
    cdef int kind
    state.header = <Header *> state.regions[<int> REGION_HEADER].data
    state.entities = <Entity *> state.regions[<int> REGION_ENTITIES].data
    state.sims = <Sim *> state.regions[<int> REGION_SIMS].data
    state.sims_cold = <SimCold *> state.regions[<int> REGION_SIMS_COLD].data
    state.sims_rolling = <SimRolling *> state.regions[<int> REGION_SIMS_ROLLING].data
    state.sims_ledger = <SimLedger *> state.regions[<int> REGION_SIMS_LEDGER].data
    state.sims_late = <SimLate *> state.regions[<int> REGION_SIMS_LATE].data
    state.lots = <Lot *> state.regions[<int> REGION_LOTS].data
    state.events = <EventRow *> state.regions[<int> REGION_EVENTS].data
    state.terminals = <Terminal *> state.regions[<int> REGION_TERMINALS].data
    state.terminals_cold = <TerminalCold *> state.regions[<int> REGION_TERMINALS_COLD].data
    state.ended_leases = <EndedLease *> state.regions[<int> REGION_ENDED_LEASES].data
    state.ended_places = <uint16_t *> state.regions[<int> REGION_ENDED_PLACES].data
    state.orders = <Order *> state.regions[<int> REGION_ORDERS].data
    state.groups = <Group *> state.regions[<int> REGION_GROUPS].data
    state.classes = <Class *> state.regions[<int> REGION_CLASSES].data
    state.markets = <Market *> state.regions[<int> REGION_MARKETS].data
    state.servers = <Server *> state.regions[<int> REGION_SERVERS].data
    state.ready = <uint64_t *> state.regions[<int> REGION_READY].data
    state.jobs = <Job *> state.regions[<int> REGION_JOBS].data
    state.sweeps = <Sweep *> state.regions[<int> REGION_SWEEPS].data
    state.check = <Check *> state.regions[<int> REGION_CHECK].data
    state.given_up = <GivenUp *> state.regions[<int> REGION_GIVEN_UP].data
    state.breakers = <Breaker *> state.regions[<int> REGION_BREAKERS].data
    state.subscribers = <Subscriber *> state.regions[<int> REGION_SUBSCRIBERS].data
    state.exemptions = <Exemption *> state.regions[<int> REGION_EXEMPTIONS].data
    state.wheel = <Wheel *> state.regions[<int> REGION_WHEEL].data
    state.timers[<int> TIMER_TERMINAL] = <char *> state.regions[<int> REGION_TIMERS_TERMINALS].data
    state.timers[<int> TIMER_SIM] = <char *> &state.sims.next  # and previous, behind it: a node of the wheel
    state.timers[<int> TIMER_ORDER] = <char *> state.regions[<int> REGION_TIMERS_ORDERS].data
    state.timers[<int> TIMER_SERVER] = <char *> state.regions[<int> REGION_TIMERS_SERVERS].data
    state.timers[<int> TIMER_HEAD] = <char *> state.wheel.heads
    state.timers[<int> TIMER_LOT] = <char *> &state.lots.timer_next
    for kind in range(TIMER_KINDS):
        state.timer_strides[kind] = sizeof(TimerNode)
    state.timer_strides[<int> TIMER_SIM] = sizeof(Sim)
    state.timer_strides[<int> TIMER_LOT] = sizeof(Lot)
    state.iccid_table = table_of(&state.regions[<int> REGION_ICCID_TABLE])
    state.imsi_table = table_of(&state.regions[<int> REGION_IMSI_TABLE])
    state.terminal_table = table_of(&state.regions[<int> REGION_TERMINAL_TABLE])


# XXH64, after its specification (doc/xxhash_spec.md of the xxHash project, Yann Collet). Little-endian machines only, as
# all our formats.
cdef extern from *:
    """
    #define PRIME_1 0x9E3779B185EBCA87ULL
    #define PRIME_2 0xC2B2AE3D27D4EB4FULL
    #define PRIME_3 0x165667B19E3779F9ULL
    #define PRIME_4 0x85EBCA77C2B2AE63ULL
    #define PRIME_5 0x27D4EB2F165667C5ULL
    """
    const uint64_t PRIME_1, PRIME_2, PRIME_3, PRIME_4, PRIME_5


cdef inline uint64_t _rotate(uint64_t value, int bits) noexcept nogil:
    return (value << bits) | (value >> (64 - bits))


cdef inline uint64_t _round(uint64_t lane, uint64_t word) noexcept nogil:
    return _rotate(lane + word * PRIME_2, 31) * PRIME_1


cdef inline uint64_t _merge(uint64_t hash, uint64_t lane) noexcept nogil:
    return (hash ^ _round(0, lane)) * PRIME_1 + PRIME_4


cdef uint64_t hash_bytes(const void *data, uint64_t size, uint64_t seed) noexcept nogil:
    cdef const uint8_t *place = <const uint8_t *> data
    cdef const uint8_t *end = place + size
    cdef uint64_t one, two, three, four, hash, word
    cdef uint32_t half
    if size >= 32:
        one = seed + PRIME_1 + PRIME_2
        two = seed + PRIME_2
        three = seed
        four = seed - PRIME_1
        while end - place >= 32:
            memcpy(&word, place, 8)
            one = _round(one, word)
            memcpy(&word, place + 8, 8)
            two = _round(two, word)
            memcpy(&word, place + 16, 8)
            three = _round(three, word)
            memcpy(&word, place + 24, 8)
            four = _round(four, word)
            place += 32
        hash = _rotate(one, 1) + _rotate(two, 7) + _rotate(three, 12) + _rotate(four, 18)
        hash = _merge(_merge(_merge(_merge(hash, one), two), three), four)
    else:
        hash = seed + PRIME_5
    hash += size
    while end - place >= 8:
        memcpy(&word, place, 8)
        hash = _rotate(hash ^ _round(0, word), 27) * PRIME_1 + PRIME_4
        place += 8
    if end - place >= 4:
        memcpy(&half, place, 4)
        hash = _rotate(hash ^ (<uint64_t> half * PRIME_1), 23) * PRIME_2 + PRIME_3
        place += 4
    while place < end:
        hash = _rotate(hash ^ (<uint64_t> place[0] * PRIME_5), 11) * PRIME_1
        place += 1
    hash = (hash ^ (hash >> 33)) * PRIME_2
    hash = (hash ^ (hash >> 29)) * PRIME_3
    return hash ^ (hash >> 32)


cdef uint64_t mix(uint64_t key) noexcept nogil:
    """Spreads a key over a table: the finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    key = (key ^ (key >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9ULL
    key = (key ^ (key >> 27)) * <uint64_t> 0x94D049BB133111EBULL
    return key ^ (key >> 31)

# Tables that find the index of a record by its key: SIMs by ICCID and by IMSI, terminals by the key that their access server chose.
#
#     key --mix--> home    slots  [ tag | index ] [ tag | index ] [ ~0: empty ] …      4 B a slot
#                                   as far as the next empty slot, round the ring; never deleted from
#
# An index needs only so many bits as there are slots, so what a slot has left holds as many of the key's hash (8 at 10,000,000 SIMs or terminals):
# of the records on the way only one in 256 has to be looked at in vain. That halves a slot against a whole tag beside the index, and
# lets the tables of SIMs be nearly full, since what is passed by there are slots of one or a few lines. Terminals are looked for
# by every operation, so theirs has more room: most searches end where they begin.
#
# A record is entered once and stays. That a search ends is asserted: there is an empty slot. The memory belongs to Machine, which enters
# all records anew where a table grows.


cdef enum:
    EMPTY_SLOT = 0xFFFFFFFF


cdef uint64_t terminal_slots(uint64_t items) noexcept nogil:
    """A load of 0.55 at most."""
    return items * 20 // 11 + 8


cdef uint64_t sim_slots(uint64_t items) noexcept nogil:
    """A load of 0.9 at most."""
    return items * 10 // 9 + 8


cdef Table table_of(const Region *region) noexcept nogil:
    cdef Table table
    table.slots = <uint32_t *> region.data
    table.count = <uint32_t> region.count
    table.index_mask = <uint32_t> ((<uint64_t> 2 << last_set(region.count | 1)) - 1)
    return table


cdef inline uint32_t table_home(const Table *table, uint64_t hash) noexcept nogil:
    """Where the search for a key begins, by the upper half of its hash. Tags are of the lower one."""
    return <uint32_t> (((hash >> 32) * table.count) >> 32)


cdef inline uint32_t _behind(const Table *table, uint32_t place) noexcept nogil:
    return place + 1 if place + 1 < table.count else 0


cdef inline uint32_t table_next(const Table *table, uint32_t hash, uint32_t *place) noexcept nogil:
    """The next index from ``place`` on that may be the key's, and ``place`` goes on behind it; NONE_INDEX: there is no other."""
    cdef uint32_t probes = 0
    cdef uint32_t slot = table.slots[place[0]]
    while slot != EMPTY_SLOT and (slot ^ hash) & ~table.index_mask:
        place[0] = _behind(table, place[0])
        slot = table.slots[place[0]]
        probes += 1
        invariant(probes < table.count, "a table has an empty slot")
    if slot == EMPTY_SLOT:
        return NONE_INDEX
    place[0] = _behind(table, place[0])
    return slot & table.index_mask


cdef inline void table_enter(const Table *table, uint64_t hash, uint32_t index) noexcept nogil:
    """A record whose key is not in the table yet."""
    cdef uint32_t place = table_home(table, hash)
    while table.slots[place] != EMPTY_SLOT:
        place = _behind(table, place)
    table.slots[place] = (<uint32_t> hash & ~table.index_mask) | index


cdef void table_clear(const Table *table) noexcept nogil:
    memset(table.slots, 0xFF, <uint64_t> table.count * sizeof(uint32_t))

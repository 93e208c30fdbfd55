# What each subscriber has used today and this month; the past is in history.
#
#     key --mix--> subscribers  [ key | month word | day word ]   linear probing, load at most 0.8, never deleted from
#
#     month word   bits 0 to 47: bytes of the month · 48 to 61: its group (entity; 0: none) · 62 and 63: what was told of the
#                  month's limit (limits.pxi)
#     day word     bits 0 to 41: bytes of the day · 42 to 46: day of the month · 47 to 57: months since January 1970 · 58 and 59:
#                  what was told of the day's limit · 60 to 63: in which edition of the rules, modulo 16
#
# 24 B a subscriber at a load of 0.8 are 30 B. The records stand in the table itself, so that a report touches one or two lines
# more and an allocation none: a terminal names its subscriber by the key. Counters stop at 4.4 TB a day and 281 TB a month rather
# than wrap. There are as many places as terminals, the last eighth for access servers that have brought less than their equal share; when
# there is none, reports of others are counted at SIM and terminal as ever, and how many missed their subscriber stands in the header. Days begin at DAY_BEGINS_MS, months with the local date.

cdef enum:
    MONTH_BITS = 48
    DAY_BITS = 42
    STAMP_MASK = 0xFFFF           # month and day of the month
    GROUP_MASK = 0x3FFF           # ENTITIES_MAX - 1
    TOLD_MONTH_SHIFT = 62
    TOLD_DAY_SHIFT = 58
    TOLD_EDITION_SHIFT = 60


cdef uint64_t subscriber_slots(uint64_t subscribers) noexcept nogil:
    """Slots of the table for that many subscribers."""
    return subscribers + subscribers // 4 + 1


cdef inline Subscriber *subscriber_place(const State *state, uint64_t key) noexcept nogil:
    """Where the search for a key begins."""
    return &state.subscribers[((mix(key) >> 32) * state.regions[<int> REGION_SUBSCRIBERS].count) >> 32]


cdef inline Subscriber *subscriber_find(State *state, uint64_t key) noexcept nogil:
    """The record of a key that is not 0, or the empty one that it would take."""
    cdef Subscriber *record = subscriber_place(state, key)
    cdef const Subscriber *end = state.subscribers + state.regions[<int> REGION_SUBSCRIBERS].count
    cdef uint64_t probes = 0
    while record.key and record.key != key:
        record += 1
        if record == end:
            record = state.subscribers
        probes += 1
        invariant(probes < state.regions[<int> REGION_SUBSCRIBERS].count, "the table of subscribers has an empty slot")
    return record


cdef inline uint64_t local_day(const State *state) noexcept nogil:
    """Days since 1970-01-01 of the local date. One that begins at noon UTC or later is that of the next date, east of Greenwich."""
    return state.header.day + (state.header.settings[<int> DAY_BEGINS_MS] >= DAY_MS // 2)


cdef uint64_t calendar_stamp(const State *state) noexcept nogil:
    """Months since January 1970 above five bits of the day in its month, of the local date.

    The civil calendar from a day's number, after Howard Hinnant (chrono-compatible low-level date algorithms): years that
    begin in March, in eras of 400 years.
    """
    cdef uint64_t days = local_day(state) + 719_468
    cdef uint64_t of_era = days % 146_097
    cdef uint64_t year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    cdef uint64_t of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    cdef uint64_t month = (5 * of_year + 2) // 153
    cdef uint64_t of_month = of_year - (153 * month + 2) // 5 + 1
    # Months count from March: 10 and 11 are January and February of the next year.
    cdef uint64_t months = (days // 146_097 * 400 + year_of_era) * 12 + month + 2
    return (months - 1970 * 12) << 5 | of_month


cdef inline uint64_t subscriber_stamp(const Subscriber *record) noexcept nogil:
    return record.day >> DAY_BITS & STAMP_MASK


cdef inline uint64_t subscriber_day_bytes(const Subscriber *record) noexcept nogil:
    return record.day & ((<uint64_t> 1 << DAY_BITS) - 1)


cdef inline uint64_t subscriber_month_bytes(const Subscriber *record) noexcept nogil:
    return record.month & ((<uint64_t> 1 << MONTH_BITS) - 1)


cdef inline uint32_t subscriber_group(const Subscriber *record) noexcept nogil:
    """The entity of its subscriber group, as its last lease said; 0: of none."""
    return <uint32_t> (record.month >> MONTH_BITS & GROUP_MASK)


cdef Subscriber *subscriber_have(State *state, uint64_t key, uint32_t server) noexcept nogil:
    """The record of a key that is not 0, made if there is room for one more of the access server's; NULL: there is none."""
    cdef Subscriber *record = subscriber_find(state, key)
    cdef bint known = server < state.header.servers_count  # the cell may report in nobody's name
    if record.key == 0:
        if not room_for_one(
            state, state.header.subscribers_count, state.servers[server].subscribers_brought if known else 0
        ):
            return NULL
        state.header.subscribers_count += 1
        if known:
            state.servers[server].subscribers_brought += 1
        record.key = key
    return record


cdef inline void subscriber_turn(const State *state, Subscriber *record) noexcept nogil:
    """Begins a new day, maybe a new month, if there is one. Days never go back, whatever becomes of the setting."""
    cdef uint64_t stamp = state.header.stamp
    cdef uint64_t before = subscriber_stamp(record)
    if stamp <= before:
        return
    if stamp >> 5 != before >> 5:
        record.month = record.month >> MONTH_BITS << MONTH_BITS
    record.day = (record.day >> TOLD_DAY_SHIFT << TOLD_DAY_SHIFT) | stamp << DAY_BITS


cdef inline void subscriber_count(Subscriber *record, uint64_t delta) noexcept nogil:
    """Accepted bytes of a subscriber, whose day has begun."""
    record.month += min(delta, (<uint64_t> 1 << MONTH_BITS) - 1 - subscriber_month_bytes(record))
    record.day += min(delta, (<uint64_t> 1 << DAY_BITS) - 1 - subscriber_day_bytes(record))

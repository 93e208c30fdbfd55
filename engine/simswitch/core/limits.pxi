# Limits on what a subscriber may use, as they were published, and who is exempt from them.
#
#     subscriber ──group──▶ the group's rule, else the rule for all
#         │                          │
#         └── used in month and day ─┴──▶ under · warned · over ──▶ nothing, or the rule's action: notify, slow, refuse
#                                              exempt ──▶ under
#
# What holds is worked out anew from the figures, the rule and the exemption whenever a subscriber reports, asks or renews: so
# the turn of a day or month, an exemption and its end need no walk. The record only keeps what was told
# of each window, two bits, so that each event comes once; one that is lifted is told of when the subscriber is next met. Where a rule
# is another, is withdrawn, or says otherwise (its action, a figure, its text), a walk meets all who were told of something: those with a lease
# first, of whom the access server is known. Who stays past it hears of it once more as it is now; otherwise that what its old rule said is
# lifted, and then what its new one says.
#
#     rules     --1-----2-----3-->     an edition begins where a group, or all others, get another rule or one that says otherwise
#     record       told at 1           what held for its group before 2 and 3 is kept: of this rule it was told
#
# Of the edition a record keeps four bits, and the header the last CHANGES changes: a rule is refused as SWEEPS_FULL while somebody may yet
# have to hear of one that would be forgotten.
#
# Exemptions stand in the order of their subscribers: 12 steps find one, and only for whom something would follow. At most
# EXEMPTIONS_MAX have not ended; to add one moves up to 393 KB. The past is in history.


ctypedef struct Levels:
    int month                     # UNDER, WARNED or OVER
    int day


ctypedef struct Limited:
    int action                    # LimitAction; 0: the subscriber is under its limit, or has none
    bint month                    # by that of the month
    uint32_t slow_kbps            # slow: to what speed


ctypedef struct Told:
    uint32_t rule                 # of which the subscriber was told; that which holds now, where nothing was
    bint otherwise                # it says otherwise since
    int month                     # UNDER, WARNED, OVER: what was told of the month
    int day                       # and of the day


cdef enum:
    TOLD_MASK = 3                 # 0 nothing · 1 warned · 2 over
    UNDER = 0
    WARNED = 1
    OVER = 2
    CHANGES = 16                  # of rules, that the header keeps
    CHANGES_PER_RULE = 2          # at most: of a rule that is for another group from now on


# ----------------------------------------------------------------------------------------------------- exemptions

cdef uint32_t exemption_place(const State *state, uint64_t subscriber) noexcept nogil:
    """Where the subscriber's exemption stands, or would."""
    cdef uint32_t first = 0, behind = state.header.exemptions_count, middle
    while first < behind:
        middle = (first + behind) // 2
        if state.exemptions[middle].subscriber < subscriber:
            first = middle + 1
        else:
            behind = middle
    return first


cdef bint exempt(const State *state, uint64_t subscriber, uint64_t now_ms) noexcept nogil:
    cdef uint32_t place = exemption_place(state, subscriber)
    return (
        place < state.header.exemptions_count and state.exemptions[place].subscriber == subscriber
        and now_ms < state.exemptions[place].until_ms
    )


cdef void exemptions_clear(State *state, uint64_t now_ms) noexcept nogil:
    """Gives up the places of those that have ended."""
    cdef uint32_t place, kept = 0
    for place in range(state.header.exemptions_count):
        if now_ms < state.exemptions[place].until_ms:
            state.exemptions[kept] = state.exemptions[place]
            kept += 1
    memset(&state.exemptions[kept], 0, (state.header.exemptions_count - kept) * sizeof(Exemption))
    state.header.exemptions_count = kept


# ---------------------------------------------------------------------------------------------------------- rules

cdef void limits_follow(State *state) noexcept nogil:
    """Notes at each group, and for all others, which rule holds, after one was defined."""
    cdef uint32_t index
    cdef const int64_t *numbers
    state.header.limit_for_all = 0
    state.header.limits_count = 0
    for index in range(state.header.entities_count):
        if state.entities[index].kind == SUBSCRIBER_GROUP:
            state.entities[index].dense = NONE_SHORT
    for index in range(state.header.entities_count):
        numbers = state.entities[index].numbers
        if state.entities[index].kind != LIMIT_RULE or numbers[<int> RULE_WITHDRAWN] == 1:
            continue
        state.header.limits_count += 1
        if numbers[<int> RULE_GROUP] < 0:
            state.header.limit_for_all = index
        else:
            state.entities[numbers[<int> RULE_GROUP]].dense = <uint16_t> index


cdef void _limit_changes(State *state, int64_t group, uint32_t before) noexcept nogil:
    state.header.limits_edition += 1
    state.header.limits_group[state.header.limits_edition % CHANGES] = <uint16_t> max(group, <int64_t> 0)
    state.header.limits_before[state.header.limits_edition % CHANGES] = <uint16_t> before


cdef void limits_change(State *state, uint32_t rule, const int64_t *before, const int64_t *after) noexcept nogil:
    """Notes for whom a rule that is defined becomes another, or says otherwise. ``before``: its numbers; NULL: it is new."""
    cdef bint held = before != NULL and before[<int> RULE_WITHDRAWN] != 1
    cdef bint holds = after[<int> RULE_WITHDRAWN] != 1
    if held and holds and before[<int> RULE_GROUP] == after[<int> RULE_GROUP]:
        _limit_changes(state, after[<int> RULE_GROUP], rule)
        return
    if held:
        _limit_changes(state, before[<int> RULE_GROUP], rule)
    if holds:
        _limit_changes(state, after[<int> RULE_GROUP], 0)


cdef inline bint limits_changeable(const State *state) noexcept nogil:
    """Whether the header has room for what another rule changes."""
    return state.header.limits_edition - state.header.limits_settled + CHANGES_PER_RULE < CHANGES


cdef inline uint32_t limit_rule(const State *state, uint32_t group) noexcept nogil:
    """The rule that holds for subscribers of a group (0: of none); 0: none does."""
    if group and state.entities[group].dense != NONE_SHORT:
        return state.entities[group].dense
    return state.header.limit_for_all


cdef inline int _level(uint64_t used, int64_t limit, int64_t warn_permille) noexcept nogil:
    if limit < 0:
        return UNDER
    if used >= <uint64_t> limit:
        return OVER
    return WARNED if warn_permille > 0 and used >= <uint64_t> (limit // 1000 * warn_permille) else UNDER


cdef void _tell(
    State *state, const Subscriber *record, uint32_t rule, bint of_day, int reason, uint64_t terminal, uint32_t server
) noexcept nogil:
    cdef int64_t limit = state.entities[rule].numbers[<int> RULE_DAY_BYTES if of_day else <int> RULE_MONTH_BYTES]
    cdef uint64_t used = subscriber_day_bytes(record) if of_day else subscriber_month_bytes(record)
    cdef EventRow *row = event(
        state, EVENT_LIMIT, NONE_INDEX, server, NONE_INDEX, reason,
        used | <uint64_t> rule << MONTH_BITS | <uint64_t> of_day << TOLD_MONTH_SHIFT, <uint64_t> max(limit, <int64_t> 0))
    row.terminal = terminal
    row.subscriber = record.key


cdef inline void _tell_change(
    State *state, const Subscriber *record, uint32_t rule, bint of_day, int before, int level, bint otherwise, bint counted,
    uint64_t terminal, uint32_t server
) noexcept nogil:
    """Tells what is another than was told of a window.

    ``otherwise``: the rule, which was told of, says otherwise since. ``counted``: by what a report counts, which may go past both marks
    at once: the warning comes first all the same.
    """
    if before == OVER and level != OVER:
        _tell(state, record, rule, of_day, LIMIT_LIFTED, terminal, server)
    if (level == WARNED and before != WARNED) or (
        level == OVER and before == UNDER and counted and state.entities[rule].numbers[<int> RULE_WARN_PERMILLE] > 0
    ):
        _tell(state, record, rule, of_day, LIMIT_WARNED, terminal, server)
    if level == OVER and (before != OVER or otherwise):
        # LimitAction and LimitReason are in the same order.
        _tell(
            state, record, rule, of_day, <int> state.entities[rule].numbers[<int> RULE_ACTION] + LIMIT_WARNED, terminal, server)


cdef inline bint limit_told(const Subscriber *record) noexcept nogil:
    return (record.month >> TOLD_MONTH_SHIFT | (record.day >> TOLD_DAY_SHIFT & TOLD_MASK)) != 0


cdef Told limit_told_of(const State *state, const Subscriber *record) noexcept nogil:
    """What the subscriber was told last."""
    cdef uint32_t group = subscriber_group(record)
    cdef uint32_t edition = state.header.limits_edition
    cdef uint32_t behind = (edition - <uint32_t> (record.day >> TOLD_EDITION_SHIFT)) % CHANGES
    cdef uint32_t own = 0, for_all = state.header.limit_for_all
    cdef bint own_changes = False, for_all_changes = False
    cdef Told told
    told.month = <int> (record.month >> TOLD_MONTH_SHIFT)
    told.day = <int> (record.day >> TOLD_DAY_SHIFT & TOLD_MASK)
    told.rule = limit_rule(state, group)
    told.otherwise = False
    if not behind or not limit_told(record):
        return told
    if group and state.entities[group].dense != NONE_SHORT:
        own = state.entities[group].dense
    # Back to the edition in which it was told, a change at a time.
    for edition in range(edition, edition - behind, -1):
        if not state.header.limits_group[edition % CHANGES]:
            for_all = state.header.limits_before[edition % CHANGES]
            for_all_changes = True
        elif state.header.limits_group[edition % CHANGES] == group:
            own = state.header.limits_before[edition % CHANGES]
            own_changes = True
    told.rule = own if own else for_all
    told.otherwise = own_changes if own else for_all_changes
    return told


cdef inline Levels _levels(const State *state, const Subscriber *record, uint32_t rule, uint64_t now_ms) noexcept nogil:
    """How far the subscriber is by a rule (0: by none), as it stands in its record."""
    cdef const int64_t *numbers = state.entities[rule].numbers
    cdef Levels levels = Levels(UNDER, UNDER)
    if rule:
        levels.month = _level(
            subscriber_month_bytes(record), numbers[<int> RULE_MONTH_BYTES], numbers[<int> RULE_WARN_PERMILLE])
        levels.day = _level(subscriber_day_bytes(record), numbers[<int> RULE_DAY_BYTES], numbers[<int> RULE_WARN_PERMILLE])
        if (levels.month or levels.day) and exempt(state, record.key, now_ms):
            return Levels(UNDER, UNDER)
    return levels


cdef inline Limited limit_does(const State *state, uint32_t rule, Levels levels) noexcept nogil:
    """What the rule does at these levels."""
    cdef const int64_t *numbers = state.entities[rule].numbers
    cdef Limited limited = Limited(0, False, 0)
    if levels.month == OVER or levels.day == OVER:
        limited.action = <int> numbers[<int> RULE_ACTION]
        limited.month = levels.month == OVER
        if limited.action == ACTION_SLOW:
            limited.slow_kbps = <uint32_t> numbers[<int> RULE_SLOW_KBPS]
    return limited


cdef Limited limit_judge(
    State *state, Subscriber *record, Told told, bint counted, uint64_t terminal, uint32_t server, uint64_t now_ms
) noexcept nogil:
    """What the subscriber's limit, if it has one, makes of it now; tells what has changed.

    ``counted``: because of bytes that were just counted. ``terminal`` and ``server``: who shows it; 0 and NONE_SHORT: nobody.
    """
    cdef uint32_t rule = limit_rule(state, subscriber_group(record))
    cdef Levels levels = _levels(state, record, rule, now_ms)
    cdef int month = levels.month, day = levels.day
    if month or day or told.month or told.day:
        if told.rule != rule:
            _tell_change(state, record, told.rule, False, told.month, UNDER, False, False, terminal, server)
            _tell_change(state, record, told.rule, True, told.day, UNDER, False, False, terminal, server)
            told = Told(rule, False, UNDER, UNDER)
        _tell_change(state, record, rule, False, told.month, month, told.otherwise, counted, terminal, server)
        _tell_change(state, record, rule, True, told.day, day, told.otherwise, counted, terminal, server)
        record.month = (record.month & ~(<uint64_t> TOLD_MASK << TOLD_MONTH_SHIFT)) | <uint64_t> month << TOLD_MONTH_SHIFT
        record.day = (
            (record.day & ((<uint64_t> 1 << TOLD_DAY_SHIFT) - 1)) | <uint64_t> day << TOLD_DAY_SHIFT
            | <uint64_t> state.header.limits_edition << TOLD_EDITION_SHIFT
        )
    return limit_does(state, rule, levels)


cdef inline Limited limit_meet(
    State *state, Subscriber *record, bint counted, uint64_t terminal, uint32_t server, uint64_t now_ms
) noexcept nogil:
    """The same for a subscriber that is met: a new day or month begins for it first."""
    if state.header.stamp > subscriber_stamp(record):
        subscriber_turn(state, record)
    if state.header.limits_count or limit_told(record):
        return limit_judge(state, record, limit_told_of(state, record), counted, terminal, server, now_ms)
    return Limited(0, False, 0)


cdef inline Limited limit_count(
    State *state, uint64_t subscriber, uint64_t delta, uint64_t terminal, uint32_t server, uint64_t now_ms
) noexcept nogil:
    """Counts accepted bytes, and says what follows."""
    cdef Subscriber *record
    if subscriber == 0:
        return Limited(0, False, 0)
    record = subscriber_have(state, subscriber, server)
    if record == NULL:
        state.header.subscribers_missed += 1
        return Limited(0, False, 0)
    # What was told of the last day or month is lifted before the new one's bytes could tell it again.
    if state.header.stamp > subscriber_stamp(record):
        limit_meet(state, record, False, terminal, server, now_ms)
    subscriber_count(record, delta)
    return limit_meet(state, record, True, terminal, server, now_ms)


cdef Limited limit_of(State *state, uint64_t subscriber, uint64_t terminal, uint32_t server, uint64_t now_ms) noexcept nogil:
    """What holds for a subscriber that has a lease."""
    cdef Subscriber *record
    if subscriber == 0 or not state.header.limits_count:
        return Limited(0, False, 0)
    record = subscriber_find(state, subscriber)
    return limit_meet(state, record, False, terminal, server, now_ms) if record.key else Limited(0, False, 0)


cdef Limited limit_as(const State *state, const Subscriber *record, uint32_t group, uint64_t now_ms) noexcept nogil:
    """What would hold for the subscriber as one of that group; nobody is told of it."""
    cdef Levels levels = _levels(state, record, limit_rule(state, group), now_ms)
    return limit_does(state, limit_rule(state, group), levels)


cdef inline Limited limit_ask(
    State *state, uint64_t subscriber, uint32_t group, uint64_t terminal, uint32_t server, uint64_t now_ms
) noexcept nogil:
    """What holds for a subscriber that asks for a SIM, as one of that group (0: of the one that is known).

    A question alone makes nobody known, and moves nobody to another group: whoever asks could make up both. Of whom nobody has
    heard has used nothing, and no limit is 0 bytes.
    """
    cdef Subscriber *record
    if subscriber == 0 or not state.header.limits_count:
        return Limited(0, False, 0)
    record = subscriber_find(state, subscriber)
    if record.key == 0:
        return Limited(0, False, 0)
    if group == 0 or group == subscriber_group(record):
        return limit_meet(state, record, False, terminal, server, now_ms)
    if state.header.stamp > subscriber_stamp(record):
        limit_meet(state, record, False, terminal, server, now_ms)
    return limit_as(state, record, group, now_ms)


cdef inline void limit_join(
    State *state, uint64_t subscriber, uint32_t group, uint64_t terminal, uint32_t server, uint64_t now_ms
) noexcept nogil:
    """Who has a lease as one of that group (0: of the one that is known) is of it from now on."""
    if group and subscriber:
        _join(state, subscriber, group, terminal, server, now_ms)


cdef void _join(
    State *state, uint64_t subscriber, uint32_t group, uint64_t terminal, uint32_t server, uint64_t now_ms
) noexcept nogil:
    cdef Subscriber *record = subscriber_have(state, subscriber, server)
    cdef Told told
    if record == NULL or subscriber_group(record) == group:
        return
    told = limit_told_of(state, record)  # as one of the group that it was in
    record.month = (record.month & ~(<uint64_t> GROUP_MASK << MONTH_BITS)) | <uint64_t> group << MONTH_BITS
    subscriber_turn(state, record)
    if state.header.limits_count or limit_told(record):
        limit_judge(state, record, told, False, terminal, server, now_ms)


cdef uint64_t _days_left(uint64_t stamp) noexcept nogil:
    """In the month, today counted."""
    cdef uint64_t year = 1970 + (stamp >> 5) // 12
    cdef uint64_t month = (stamp >> 5) % 12 + 1
    cdef uint64_t days = 31
    if month == 2:
        days = 29 if year % 4 == 0 and (year % 100 or year % 400 == 0) else 28
    elif month == 4 or month == 6 or month == 9 or month == 11:
        days = 30
    return days - (stamp & 31) + 1


cdef uint64_t limit_ends_ms(const State *state, const Limited *limited) noexcept nogil:
    """When the day, or the month, is over."""
    return (
        (state.header.day + (_days_left(state.header.stamp) if limited.month else 1)) * DAY_MS
        + <uint64_t> state.header.settings[<int> DAY_BEGINS_MS]
    )


cdef void limits_walked(State *state) noexcept nogil:
    """A walk is over. Unless another waits for rules that came while it went on, nobody is to hear of a change any more."""
    if sweep_waiting(state, SWEEP_SUBSCRIBERS) == NULL:
        state.header.limits_settled = state.header.limits_edition


cdef bint limits_walk(State *state) noexcept nogil:
    """Rules are others: has all who were told of one met by the next walk. False: no sweep is to spare."""
    cdef Sweep *sweep = sweep_waiting(state, SWEEP_SUBSCRIBERS)
    cdef uint64_t terminals = state.header.terminals_count
    if not state.header.subscribers_count:
        limits_walked(state)
        return True
    if sweep == NULL:
        return sweep_add(state, SWEEP_SUBSCRIBERS, terminals, terminals + state.regions[<int> REGION_SUBSCRIBERS].count)
    sweep.argument = terminals
    sweep.end = terminals + state.regions[<int> REGION_SUBSCRIBERS].count
    return True


cdef void limits_moved(State *state) noexcept nogil:
    """The table of subscribers is another: walks begin anew in it."""
    cdef uint64_t size = state.regions[<int> REGION_SWEEPS].count
    cdef uint64_t position
    cdef Sweep *sweep
    for position in range(state.header.sweeps_count):
        sweep = &state.sweeps[(state.header.sweeps_head + position) % size]
        if sweep.kind == SWEEP_SUBSCRIBERS:
            sweep.cursor = min(sweep.cursor, sweep.argument)
            sweep.end = sweep.argument + state.regions[<int> REGION_SUBSCRIBERS].count


cdef void limit_walked(State *state, const Sweep *sweep, uint64_t now_ms) noexcept nogil:
    """One place of the walk: a terminal, behind them a subscriber."""
    cdef Subscriber *record
    cdef Terminal *terminal
    if sweep.cursor >= sweep.argument:
        record = &state.subscribers[sweep.cursor - sweep.argument]
        if record.key and limit_told(record):
            limit_meet(state, record, False, 0, NONE_SHORT, now_ms)
        return
    terminal = &state.terminals[sweep.cursor]
    if terminal.sim != NONE_INDEX and terminal.subscriber:
        record = subscriber_find(state, terminal.subscriber)
        if record.key and limit_told(record):
            limit_meet(state, record, False, terminal.key, terminal.server, now_ms)


# ---------------------------------------------------------------------------------------------------------- EXEMPT

cdef int _exempt(
    State *state, uint64_t subscriber, uint64_t until_ms, const char *reason, uint32_t actor, uint64_t now_ms
) noexcept nogil:
    cdef uint32_t place = exemption_place(state, subscriber)
    cdef Exemption *exemption = &state.exemptions[place]
    cdef bint there = place < state.header.exemptions_count and exemption.subscriber == subscriber
    cdef bint holds = there and now_ms < exemption.until_ms
    cdef EventRow *row
    cdef Subscriber *record
    if subscriber == 0 or (until_ms and (until_ms <= now_ms or until_ms >= <uint64_t> 1 << 43 or reason[0] == 0)):
        return INVALID_ARGUMENT
    if until_ms == 0:
        if not holds:
            return SAME
        exemption.until_ms = now_ms
    else:
        if holds and exemption.until_ms == until_ms and memcmp(exemption.reason, reason, 64) == 0:
            return SAME
        if not there:
            if state.header.exemptions_count == EXEMPTIONS_MAX:
                exemptions_clear(state, now_ms)
                if state.header.exemptions_count == EXEMPTIONS_MAX:
                    return ENTITIES_FULL
                place = exemption_place(state, subscriber)
                exemption = &state.exemptions[place]
            memmove(exemption + 1, exemption, (state.header.exemptions_count - place) * sizeof(Exemption))
            state.header.exemptions_count += 1
        exemption.subscriber = subscriber
        exemption.since_ms = now_ms
        exemption.until_ms = until_ms
        exemption.actor = actor
        exemption.reserved = 0
        memcpy(exemption.reason, reason, 64)
    row = event(
        state, EVENT_EXEMPT, NONE_INDEX, NONE_SHORT, NONE_INDEX, EXEMPT_BEGUN if until_ms else EXEMPT_ENDED,
        exemption.until_ms, actor)
    row.subscriber = subscriber
    record = subscriber_find(state, subscriber)
    if record.key:
        limit_meet(state, record, False, 0, NONE_SHORT, now_ms)
    return OK


cdef void apply_exempt(State *state, const Run *run) noexcept nogil:
    cdef const char *reasons = <const char *> run.columns
    cdef const uint64_t *subscribers = <const uint64_t *> (reasons + 64 * <uint64_t> run.count)
    cdef const uint64_t *until_ms = subscribers + run.count
    cdef uint32_t item
    for item in range(run.count):
        run.outcomes[item] = <uint8_t> _exempt(
            state, subscribers[item], until_ms[item], reasons + 64 * <uint64_t> item, run.actor, run.now_ms)

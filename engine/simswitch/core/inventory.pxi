# Commands on what there is.
#
# Entities (suppliers, plans, lots, classes, markets, banks, access servers, actors) are few and keep their index for ever;
# defining one again under its kind and name changes it. A group (class x lot x bank) comes into being with its first SIM.


# 18 digits after the leading 89 (and the bit that says so), and 15 of an IMSI, are the most there can be.
cdef uint64_t ICCID_MAX = 2_000_000_000_000_000_000ULL
cdef uint64_t IMSI_MAX = 1_000_000_000_000_000ULL


cdef enum:
    LOW_SHIFT = 2                 # of a SIM's smallest quota: no setting has it low with more than a quarter left,
    EXHAUSTED_SHIFT = 4           # nor exhausted with more than a sixteenth


# ------------------------------------------------------------------------------------------------------ settings

cdef void settings_default(State *state) noexcept nogil:
    """What holds until a CONFIGURE says otherwise."""
    cdef int64_t *settings = state.header.settings
    settings[<int> LEASE_MS] = 3_600_000
    settings[<int> COOLING_MS] = 60_000
    settings[<int> EXPECTED_FLOOR_BYTES] = 64 << 20
    settings[<int> EXPECTED_CEILING_BYTES] = 2 << 30
    settings[<int> LOW_BYTES] = 1 << 30
    settings[<int> EXHAUSTED_BYTES] = 64 << 20
    settings[<int> ORDER_DEADLINE_MS] = 120_000
    settings[<int> ATTEMPTS_MAX] = 5
    settings[<int> SWAP_COOL_DOWN_MS] = 3_600_000
    settings[<int> RETRY_AFTER_MS] = 5_000
    settings[<int> LINE_BYTES_PER_S] = 88_132_000  # 603.008 and 102.048 Mbit/s: LTE of category 12 (3GPP TS 36.306)
    settings[<int> OUTAGE_MAX_MS] = 600_000
    settings[<int> QUEUE_BUDGET_US] = 50_000
    settings[<int> ALLOCATION_TARGET_MS] = 1_000
    settings[<int> APPROVAL_ABOVE] = 10_000
    settings[<int> IDLE_MS] = 600_000
    settings[<int> UNKNOWN_ASK_MS] = 60_000
    settings[<int> AUTOMATIC_SWAPS] = 3
    settings[<int> AUTOMATIC_AHEAD_MS] = 60_000
    settings[<int> SWAPS_PER_DAY_MAX] = 4
    settings[<int> DAY_BEGINS_MS] = 0
    settings[<int> BREAKER_PPM] = 300_000
    settings[<int> BREAKER_MS] = 60_000
    settings[<int> BREAKER_LEAST] = 20
    settings[<int> ADMISSION_QUEUE_MS] = 2_000
    settings[<int> PROBE_KBPS] = 6_000
    settings[<int> FENCING_MS] = 600_000


cdef bint _setting_valid(int setting, int64_t value) noexcept nogil:
    if setting == LEASE_MS or setting == ORDER_DEADLINE_MS:
        return 1_000 <= value <= 7 * <int64_t> DAY_MS
    if setting == COOLING_MS or setting == SWAP_COOL_DOWN_MS:
        return 0 <= value <= 7 * <int64_t> DAY_MS
    if setting == EXPECTED_FLOOR_BYTES:
        return 1 <= value < BYTES_MAX
    if setting == LOW_BYTES or setting == EXHAUSTED_BYTES or setting == EXPECTED_CEILING_BYTES:
        return 0 <= value < BYTES_MAX
    if setting == ATTEMPTS_MAX:
        return 1 <= value <= 100
    if setting == RETRY_AFTER_MS:
        return 1 <= value <= 3_600_000
    if setting == LINE_BYTES_PER_S:
        return 1_000 <= value <= <int64_t> 1 << 40
    if setting == OUTAGE_MAX_MS:
        return 1_000 <= value <= DAY_MS
    if setting == QUEUE_BUDGET_US:
        return 1_000 <= value <= 1_000_000
    if setting == ALLOCATION_TARGET_MS:
        return 10 <= value <= 60_000
    if setting == APPROVAL_ABOVE:
        return 0 <= value < NONE_INDEX
    if setting == IDLE_MS:
        return 0 <= value <= DAY_MS
    if setting == UNKNOWN_ASK_MS:
        return 1_000 <= value <= DAY_MS
    if setting == AUTOMATIC_SWAPS:
        return 0 <= value <= 3
    if setting == AUTOMATIC_AHEAD_MS or setting == DAY_BEGINS_MS:
        return 0 <= value < DAY_MS
    if setting == FENCING_MS:
        return 1_000 <= value <= 7 * <int64_t> DAY_MS
    if setting == BREAKER_PPM:
        return 1 <= value <= 1_000_000
    if setting == PROBE_KBPS:
        return 0 <= value < NONE_INDEX // 2
    if setting == ADMISSION_QUEUE_MS:
        return 0 <= value <= 600_000
    if setting == BREAKER_LEAST:
        return 1 <= value <= 1_000_000
    if setting == BREAKER_MS:
        return 1_000 <= value <= BREAKER_OPEN_MAX_MS
    if setting == SWAPS_PER_DAY_MAX:
        return 1 <= value <= 255
    return False


cdef void apply_configure(State *state, const Run *run) noexcept nogil:
    cdef const int64_t *values = <const int64_t *> run.columns
    cdef const uint16_t *settings = <const uint16_t *> (values + run.count)
    cdef uint32_t item, group
    for item in range(run.count):
        if not _setting_valid(settings[item], values[item]):
            run.outcomes[item] = INVALID_ARGUMENT
        elif state.header.settings[settings[item]] == values[item]:
            run.outcomes[item] = SAME
        else:
            state.header.settings[settings[item]] = values[item]
            # Days may begin at another time.
            state.header.day = day_of(state, run.now_ms)
            state.header.stamp = calendar_stamp(state)
            run.outcomes[item] = OK
            # Watermarks are judged when a SIM's count next changes; groups keep a copy of them.
            for group in range(state.header.groups_count):
                group_watermarks(state, &state.groups[group])
                pool_follow(state, state.groups[group].lot, False, run.now_ms)


# ------------------------------------------------------------------------------------------------------ entities

cdef bint _is(State *state, int64_t index, int kind) noexcept nogil:
    return 0 <= index < state.header.entities_count and state.entities[index].kind == kind


cdef uint32_t _find_entity(State *state, const Entity *wanted) noexcept nogil:
    cdef uint32_t index
    for index in range(state.header.entities_count):
        if state.entities[index].kind == wanted.kind and memcmp(state.entities[index].name, wanted.name, NAME_BYTES) == 0:
            return index
    return NONE_INDEX


cdef int _rule_status(State *state, const Entity *wanted) noexcept nogil:
    """A limit holds only once it is published: with a text, and not later than today. A group has one at a time."""
    cdef const int64_t *numbers = wanted.numbers
    cdef const int64_t *other
    cdef uint32_t index
    if (
        not 1 <= numbers[<int> RULE_TEXT_BYTES] <= wanted.document_size
        or not 0 <= numbers[<int> RULE_PUBLISHED_DAY] <= <int64_t> local_day(state)
    ):
        return INVALID_ARGUMENT
    if (
        numbers[<int> RULE_MONTH_BYTES] == 0 or not -1 <= numbers[<int> RULE_MONTH_BYTES] < BYTES_MAX
        or numbers[<int> RULE_DAY_BYTES] == 0 or not -1 <= numbers[<int> RULE_DAY_BYTES] < BYTES_MAX
        or numbers[<int> RULE_MONTH_BYTES] + numbers[<int> RULE_DAY_BYTES] == -2
        or not -1 <= numbers[<int> RULE_WARN_PERMILLE] < 1000
        or not ACTION_NOTIFY <= numbers[<int> RULE_ACTION] <= ACTION_REFUSE
        or not -1 <= numbers[<int> RULE_WITHDRAWN] <= 1
    ):
        return INVALID_ARGUMENT
    if numbers[<int> RULE_ACTION] == ACTION_SLOW and not 1 <= numbers[<int> RULE_SLOW_KBPS] < NONE_INDEX:
        return INVALID_ARGUMENT
    if numbers[<int> RULE_GROUP] != -1 and not _is(state, numbers[<int> RULE_GROUP], SUBSCRIBER_GROUP):
        return UNKNOWN_ENTITY
    if numbers[<int> RULE_WITHDRAWN] != 1:
        for index in range(state.header.entities_count):
            other = state.entities[index].numbers
            if (
                state.entities[index].kind == LIMIT_RULE and other[<int> RULE_WITHDRAWN] != 1
                and other[<int> RULE_GROUP] == numbers[<int> RULE_GROUP]
                and memcmp(state.entities[index].name, wanted.name, NAME_BYTES) != 0
            ):
                return WRONG_STATE
    return OK


cdef int _definition_status(State *state, const Entity *wanted) noexcept nogil:
    """Whether the record is well formed and what it names exists."""
    cdef const int64_t *numbers = &wanted.numbers[0]
    cdef int position
    cdef bint ended = False
    if wanted.kind < SUPPLIER or wanted.kind > LIMIT_RULE or wanted.name[0] == 0 or wanted.document_size > DOCUMENT_BYTES:
        return INVALID_ARGUMENT
    for position in range(NAME_BYTES):
        if ended and wanted.name[position] != 0:
            return INVALID_ARGUMENT
        ended = wanted.name[position] == 0
    if wanted.kind == PLAN:
        for position in range(PLAN_BASIS_CYCLE + WINDOWS):
            if numbers[position] < -1 or numbers[position] >= BYTES_MAX:
                return INVALID_ARGUMENT
        for position in range(PLAN_BASIS_CYCLE, PLAN_BASIS_CYCLE + WINDOWS):
            if numbers[position] != -1 and not BASIS_CONTRACTUAL <= numbers[position] <= BASIS_LEARNED:
                return INVALID_ARGUMENT
        if numbers[<int> PLAN_ROLLING_DAYS] > ROLLING_DAYS_MAX or numbers[<int> PLAN_POOLED] >= 1 << WINDOWS:
            return INVALID_ARGUMENT
        if numbers[<int> PLAN_QUOTA_ROLLING] >= 0 and numbers[<int> PLAN_ROLLING_DAYS] < 1:
            return INVALID_ARGUMENT
    elif wanted.kind == SUBSCRIBER_GROUP:
        if not 1 <= numbers[<int> GROUP_PRIORITY] <= ADMISSION_LANES:
            return INVALID_ARGUMENT
    elif wanted.kind == LIMIT_RULE:
        return _rule_status(state, wanted)
    elif wanted.kind == LOT:
        if not -1 <= numbers[<int> LOT_CHECK_DIGIT_EXEMPT] <= 1 or not -1 <= numbers[<int> LOT_PREPAID] <= 1:
            return INVALID_ARGUMENT
        for position in range(LOT_ACTIVE_FROM_S, LOT_VALID_UNTIL_S + 1):
            if not -1 <= numbers[position] < NONE_INDEX:
                return INVALID_ARGUMENT
        if (
            not _is(state, numbers[<int> LOT_SUPPLIER], SUPPLIER) or not _is(state, numbers[<int> LOT_PLAN], PLAN)
            or not _is(state, numbers[<int> LOT_CLASS], SIM_CLASS)
        ):
            return UNKNOWN_ENTITY
    elif wanted.kind == SIM_CLASS:
        if numbers[<int> CLASS_RESERVE] < -1 or numbers[<int> CLASS_RESERVE] >= NONE_INDEX:
            return INVALID_ARGUMENT
        if numbers[<int> CLASS_CARRIER] != -1 and not _is(state, numbers[<int> CLASS_CARRIER], CARRIER):
            return UNKNOWN_ENTITY
    elif wanted.kind == MARKET:
        if numbers[<int> MARKET_EXPECTED_BYTES] < -1 or numbers[<int> MARKET_EXPECTED_BYTES] >= BYTES_MAX:
            return INVALID_ARGUMENT
        for position in range(MARKET_CLASSES):
            if numbers[<int> MARKET_FIRST_CLASS + position] == -1:
                break
            if not _is(state, numbers[<int> MARKET_FIRST_CLASS + position], SIM_CLASS):
                return UNKNOWN_ENTITY
    elif wanted.kind == ACTOR:
        # There is one system, the cell itself, and nobody else becomes it.
        if not OPERATOR <= numbers[<int> ACTOR_ROLE] <= LEARNER or numbers[<int> ACTOR_ROLE] == SYSTEM:
            return INVALID_ARGUMENT
        if numbers[<int> ACTOR_SUBJECT] != -1 and not (
            _is(state, numbers[<int> ACTOR_SUBJECT], ACCESS_SERVER) or _is(state, numbers[<int> ACTOR_SUBJECT], SUPPLIER)
        ):
            return UNKNOWN_ENTITY
    return OK


cdef bint _room(State *state, int kind) noexcept nogil:
    if state.header.entities_count == state.header.entities_max:
        return False
    if kind == SIM_CLASS:
        return state.header.classes_count < state.header.classes_max
    if kind == MARKET:
        return state.header.markets_count < state.header.markets_max
    if kind == ACCESS_SERVER:
        return state.header.servers_count < state.header.servers_max
    return True


cdef void group_watermarks(State *state, Group *group) noexcept nogil:
    """Below what is left its SIMs are low, and exhausted: what their plan says, or the settings.

    A setting is of no SIM in particular: where it would take much of the smallest quota, a share of that holds instead.
    """
    cdef const int64_t *plan = state.entities[state.entities[group.lot].numbers[<int> LOT_PLAN]].numbers
    cdef const Lot *lot = &state.lots[group.lot]
    cdef int64_t quota = NO_LIMIT
    cdef int window
    for window in range(WINDOWS):
        if lot.quota_bytes[window] >= 0 and not (lot_pooled(plan) >> window) & 1:
            quota = min(quota, lot.quota_bytes[window])
    group.low_bytes = plan[<int> PLAN_LOW_BYTES]
    if group.low_bytes < 0:
        group.low_bytes = min(state.header.settings[<int> LOW_BYTES], max(quota >> LOW_SHIFT, <int64_t> 1))
    group.exhausted_bytes = plan[<int> PLAN_EXHAUSTED_BYTES]
    if group.exhausted_bytes < 0:
        group.exhausted_bytes = min(
            state.header.settings[<int> EXHAUSTED_BYTES], max(quota >> EXHAUSTED_SHIFT, <int64_t> 1))
    group.pool = group.lot if lot_pooled(plan) else 0
    group.pool_health = lot.pool_health
    group.changes_max = <uint8_t> max(<int64_t> 0, min(plan[<int> PLAN_CHANGES_PER_DAY], <int64_t> 255))


cdef void _begin_dense(State *state, Entity *entity, uint32_t index) noexcept nogil:
    """Classes, markets and access servers have a record of their own beside their entity."""
    cdef Class *sim_class
    cdef Server *server
    cdef int position
    entity.dense = NONE_SHORT
    if entity.kind == SIM_CLASS:
        entity.dense = <uint16_t> state.header.classes_count
        state.header.classes_count += 1
        sim_class = &state.classes[entity.dense]
        sim_class.entity = index
        sim_class.last_group = GROUPS_PER_CLASS - 1
    elif entity.kind == MARKET:
        entity.dense = <uint16_t> state.header.markets_count
        state.header.markets_count += 1
        state.markets[entity.dense].entity = index
    elif entity.kind == ACCESS_SERVER:
        entity.dense = <uint16_t> state.header.servers_count
        state.header.servers_count += 1
        server = &state.servers[entity.dense]
        server.entity = index
        server.waiting = NONE_INDEX
        server.allocation_wait_us = NONE_INDEX
        server.window = WINDOW_START
        server.window_reason = WINDOW_INITIAL
        server.window_changed_ms = state.header.now_ms
        server.gate = GATE_DISCONNECTED
        server.gate_changed_ms = state.header.now_ms
        server.slow_start = 1
        memset(server.head, 0xFF, sizeof(server.head))
        memset(server.tail, 0xFF, sizeof(server.tail))
    elif entity.kind == LOT:
        lot_begin(state, index)


cdef void _follow_definition(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Brings the records that depend on an entity up to date with it."""
    cdef Entity *entity = &state.entities[index]
    cdef Market *market
    cdef int64_t number
    cdef int position, basis, changed = 0
    cdef uint32_t group, other
    cdef const int64_t *numbers
    if entity.kind == SIM_CLASS:
        number = entity.numbers[<int> CLASS_RESERVE]
        state.classes[entity.dense].reserve_count = <uint64_t> number if number > 0 else 0
    elif entity.kind == MARKET:
        market = &state.markets[entity.dense]
        market.expected_bytes = entity.numbers[<int> MARKET_EXPECTED_BYTES]
        market.classes_count = 0
        bounds_wanted(state)
        for position in range(MARKET_CLASSES):
            number = entity.numbers[<int> MARKET_FIRST_CLASS + position]
            if number == -1:
                break
            market.classes[position] = state.entities[number].dense
            market.classes_count += 1
    elif entity.kind == LIMIT_RULE:
        limits_follow(state)
        limits_walk(state)
    elif entity.kind == PLAN or entity.kind == LOT:
        for other in range(state.header.entities_count):
            if state.entities[other].kind == LOT and (
                other == index or state.entities[other].numbers[<int> LOT_PLAN] == <int64_t> index
            ):
                changed |= lot_follow_plan(state, other, now_ms)
                lot_turn(state, other, now_ms)
        for group in range(state.header.groups_count):
            group_watermarks(state, &state.groups[group])
        # A plan's lots follow it; of each of them nothing is told.
        numbers = entity.numbers
        if entity.kind == LOT:
            numbers = state.entities[numbers[<int> LOT_PLAN]].numbers
        for position in range(WINDOWS):
            if (changed >> position) & 1:
                number = numbers[<int> PLAN_QUOTA_CYCLE + position]
                basis = 0 if number < 0 else <int> max(numbers[<int> PLAN_BASIS_CYCLE + position], <int64_t> 0)
                event(
                    state, EVENT_CAP, NONE_INDEX, NONE_SHORT, NONE_INDEX, 0, <uint64_t> number,
                    cap_words(index, position, basis if basis or number < 0 else BASIS_BELIEVED))


cdef bint _pool_begins_or_ends(State *state, uint32_t index, const Entity *wanted) noexcept nogil:
    """Whether a lot that has SIMs would share other windows than it does."""
    cdef uint32_t lot
    if wanted.kind == LOT:
        return state.lots[index].populated and state.lots[index].pooled != lot_pooled(
            state.entities[wanted.numbers[<int> LOT_PLAN]].numbers)
    if wanted.kind == PLAN and lot_pooled(state.entities[index].numbers) != lot_pooled(wanted.numbers):
        for lot in range(state.header.entities_count):
            if state.entities[lot].kind == LOT and state.entities[lot].numbers[<int> LOT_PLAN] == <int64_t> index and (
                state.lots[lot].populated
            ):
                return True
    return False


cdef bint _walk_spare(State *state, const Entity *wanted) noexcept nogil:
    """Whether the walk that follows from another definition can be had."""
    cdef uint32_t kind = SWEEP_SUBSCRIBERS if wanted.kind == LIMIT_RULE else SWEEP_LIMITS
    if wanted.kind == LIMIT_RULE and not limits_changeable(state):
        return False
    return (
        wanted.kind != PLAN and wanted.kind != LOT and wanted.kind != LIMIT_RULE
        or state.header.sweeps_count < state.regions[<int> REGION_SWEEPS].count or sweep_waiting(state, kind) != NULL
    )


cdef int _define(State *state, const Entity *wanted, uint64_t now_ms, uint32_t *index_out) noexcept nogil:
    cdef int status = _definition_status(state, wanted)
    cdef uint32_t index
    cdef Entity *entity
    cdef uint16_t dense
    cdef uint8_t masked
    cdef uint32_t group
    index_out[0] = NONE_INDEX
    if status != OK:
        return status
    index = _find_entity(state, wanted)
    if index == NONE_INDEX:
        if not _room(state, wanted.kind):
            return ENTITIES_FULL
        if wanted.kind == LIMIT_RULE and not _walk_spare(state, wanted):
            return SWEEPS_FULL
        index = state.header.entities_count
        entity = &state.entities[index]
        if wanted.kind == LIMIT_RULE:
            limits_change(state, index, NULL, wanted.numbers)
        memcpy(entity, wanted, sizeof(Entity))
        memset(entity.reserved, 0, sizeof(entity.reserved))
        entity.masked = 0
        state.header.entities_count += 1
        _begin_dense(state, entity, index)
        _follow_definition(state, index, now_ms)
        index_out[0] = index
        return OK
    entity = &state.entities[index]
    index_out[0] = index
    if index == 0:
        return WRONG_STATE
    if (
        memcmp(entity.numbers, wanted.numbers, sizeof(entity.numbers)) == 0
        and entity.document_size == wanted.document_size
        and memcmp(entity.document, wanted.document, wanted.document_size) == 0
    ):
        return SAME
    if entity.kind == LOT and entity.numbers[<int> LOT_CLASS] != wanted.numbers[<int> LOT_CLASS]:
        for group in range(state.header.groups_count):
            if state.groups[group].lot == index:
                return WRONG_STATE  # its SIMs stand in groups of that class
    if _pool_begins_or_ends(state, index, wanted):
        return WRONG_STATE  # what its SIMs have used so far stands in no pool, and may have been handed out by what each has
    if not _walk_spare(state, wanted):
        return SWEEPS_FULL
    if wanted.kind == LIMIT_RULE:
        limits_change(state, index, entity.numbers, wanted.numbers)
    dense = entity.dense
    masked = entity.masked
    memcpy(entity, wanted, sizeof(Entity))
    memset(entity.reserved, 0, sizeof(entity.reserved))
    entity.dense = dense
    entity.masked = masked
    _follow_definition(state, index, now_ms)
    return OK


cdef void apply_define(State *state, const Run *run) noexcept nogil:
    cdef const Entity *definitions = <const Entity *> run.columns
    cdef uint32_t *indexes = <uint32_t *> run.outcomes
    cdef uint8_t *status = <uint8_t *> (indexes + run.count)
    cdef uint8_t[CLASSES_MAX] lots_ends  # 1: one of its lots may have another end
    cdef uint32_t item
    memset(lots_ends, 0, sizeof(lots_ends))
    for item in range(run.count):
        status[item] = <uint8_t> _define(state, &definitions[item], run.now_ms, &indexes[item])
        if status[item] == OK and definitions[item].kind == LOT:
            lots_ends[lot_class(state, indexes[item]) - state.classes] = 1
    for item in range(state.header.classes_count):
        if lots_ends[item]:
            class_rank(state, &state.classes[item])


# ---------------------------------------------------------------------------------------------------------- SIMs

cdef uint32_t _find_or_add_group(State *state, uint32_t lot, uint32_t bank) noexcept nogil:
    """The group of a lot in a bank; NONE_INDEX when there is no room for a new one."""
    cdef uint16_t class_index = state.entities[state.entities[lot].numbers[<int> LOT_CLASS]].dense
    cdef Class *sim_class = &state.classes[class_index]
    cdef Group *group
    cdef uint32_t index
    cdef int position
    for position in range(<int> sim_class.groups_count):
        index = sim_class.members[position]
        if state.groups[index].lot == lot and state.groups[index].bank == bank:
            return index
    if state.header.groups_count == state.header.groups_max or sim_class.groups_count == GROUPS_PER_CLASS:
        return NONE_INDEX
    index = state.header.groups_count
    state.header.groups_count += 1
    bounds_wanted(state)
    group = &state.groups[index]
    for position in range(TIERS):
        group.head[position] = NONE_INDEX
        group.tail[position] = NONE_INDEX
    memset(group.recent, 0xFF, sizeof(group.recent))
    group.sim_class = class_index
    group.local = <uint16_t> sim_class.groups_count
    group.lot = <uint16_t> lot
    group.bank = <uint16_t> bank
    sim_class.members[sim_class.groups_count] = <uint16_t> index
    sim_class.groups_count += 1
    if not state.lots[lot].populated:
        state.lots[lot].populated = 1
        state.lots[lot].sims_first = state.header.sims_count
        state.lots[lot].sims_end = state.header.sims_count + 1
    group.masked = group_hidden(state, group)
    breaker_mark(state, group)
    group_watermarks(state, group)
    class_rank(state, sim_class)
    return index


cdef int _import_sim(
    State *state, uint64_t iccid, uint64_t imsi, uint64_t *openings, uint32_t as_of_s, uint16_t lot, uint16_t bank,
    uint16_t slot, uint8_t health, uint64_t now_ms, uint32_t *index_out
) noexcept nogil:
    cdef uint32_t index = sim_find(state, iccid)
    cdef uint64_t since_s
    cdef int64_t opened
    cdef uint32_t group
    cdef int window
    cdef Sim *sim
    cdef SimCold *cold
    index_out[0] = NONE_INDEX
    if not _is(state, lot, LOT):
        return UNKNOWN_LOT
    if not _is(state, bank, BANK):
        return UNKNOWN_BANK
    if (
        iccid >= ICCID_MAX or (not iccid & 1 and iccid >= ICCID_MAX // 10) or imsi >= IMSI_MAX
        or openings[0] > OPENING_MAX or openings[1] > OPENING_MAX or openings[2] > OPENING_MAX
        or health < HEALTHY or health > RETIRED
    ):
        return INVALID_ARGUMENT
    if index != NONE_INDEX:
        index_out[0] = index
        sim = &state.sims[index]
        if (
            sim_imsi(&state.sims_cold[index]) == imsi and state.groups[sim.group].lot == lot
            and state.groups[sim.group].bank == bank and sim.slot == slot
        ):
            return SAME
        return ICCID_DIFFERS
    if sim_find_imsi(state, imsi) != NONE_INDEX:
        return DUPLICATE_IMSI
    if state.header.sims_count == state.header.sims_max:
        return SIMS_FULL
    if state.lots[lot].pooled and <int64_t> max(openings[0], openings[1], openings[2]) > pool_room_bytes(&state.lots[lot]):
        return INVALID_ARGUMENT
    group = _find_or_add_group(state, lot, bank)
    if group == NONE_INDEX:
        return GROUPS_FULL
    index = state.header.sims_count
    state.header.sims_count += 1
    if state.lots[lot].sims_end:
        state.lots[lot].sims_end = index + 1
    index_out[0] = index
    sim = &state.sims[index]
    cold = &state.sims_cold[index]
    sim.iccid = iccid
    sim.terminal = NONE_INDEX
    sim.next = NONE_INDEX
    sim.previous = NONE_INDEX
    sim.hint = NONE_INDEX
    sim.group = <uint16_t> group
    sim.slot = slot
    sim.tier = TIER_NONE
    sim.occupancy = FREE
    sim.health = health
    cold.identity = imsi
    for window in range(WINDOWS):
        if as_of_s and openings[window]:
            ledger_opened(state, index, window, <int64_t> openings[window], <uint32_t> min(as_of_s, now_ms // 1000), now_ms)
    # What was used today was used in the longer windows too.
    openings[WINDOW_CYCLE - 1] = max(openings[WINDOW_CYCLE - 1], openings[WINDOW_DAY - 1])
    if state.lots[lot].rolling_days:
        openings[WINDOW_ROLLING - 1] = max(openings[WINDOW_ROLLING - 1], openings[WINDOW_DAY - 1])
    for window in range(WINDOWS):
        sim_set_offset_bytes(state, index, window, <int64_t> openings[window])
    since_s = sim_note_late(state, index, &state.lots[lot], now_ms)
    if since_s != NEVER_MS and (not as_of_s or as_of_s >= since_s):
        # The day is in the others.
        opened = <int64_t> max(openings[WINDOW_CYCLE - 1], openings[WINDOW_ROLLING - 1])
        state.sims_late[index].counted_bytes = -opened
        if state.lots[lot].pooled:
            state.lots[lot].pool_late_bytes = max(state.lots[lot].pool_late_bytes - opened, -POOL_MAX)
    cold.health_since_s = <uint32_t> (now_ms // 1000)
    state.header.occupancy_count[<int> FREE] += 1
    state.header.health_count[health] += 1
    state.lots[lot].exhausted_count += health == EXHAUSTED
    state.groups[group].sims_count += 1
    if health == THROTTLED:
        lot_slowed(state, lot, now_ms)
    sim_enter(state, index)
    pool_opened(state, index, openings)
    sim_set_limit(state, index, now_ms)
    if sim.health == HEALTHY and sim.tier == TIER_NONE:
        index_insert(state, index)
    return OK


cdef void apply_import_sims(State *state, const Run *run) noexcept nogil:
    cdef uint64_t count = run.count
    cdef const uint64_t *iccids = <const uint64_t *> run.columns
    cdef const uint64_t *imsis = iccids + count
    cdef const uint64_t *cycles = imsis + count
    cdef const uint64_t *days = cycles + count
    cdef const uint64_t *rollings = days + count
    cdef const uint32_t *instants_s = <const uint32_t *> (rollings + count)
    cdef const uint16_t *lots = <const uint16_t *> (instants_s + count)
    cdef const uint16_t *banks = lots + count
    cdef const uint16_t *slots = banks + count
    cdef const uint8_t *healths = <const uint8_t *> (slots + count)
    cdef uint32_t *indexes = <uint32_t *> run.outcomes
    cdef uint8_t *status = <uint8_t *> (indexes + count)
    cdef uint64_t openings[3]
    cdef uint32_t item
    for item in range(run.count):
        openings[0] = cycles[item]
        openings[1] = days[item]
        openings[2] = rollings[item]
        status[item] = <uint8_t> _import_sim(
            state, iccids[item], imsis[item], openings, instants_s[item], lots[item], banks[item], slots[item], healths[item],
            run.now_ms, &indexes[item])


cdef void apply_set_health(State *state, const Run *run) noexcept nogil:
    cdef const uint64_t *iccids = <const uint64_t *> run.columns
    cdef const uint32_t *goodputs_kbps = <const uint32_t *> (iccids + run.count)
    cdef const uint16_t *windows = <const uint16_t *> (goodputs_kbps + run.count)
    cdef const uint16_t *confidences = windows + run.count
    cdef const uint8_t *healths = <const uint8_t *> (confidences + run.count)
    cdef uint32_t item, index
    for item in range(run.count):
        index = sim_find(state, iccids[item])
        if healths[item] < HEALTHY or healths[item] > RETIRED or confidences[item] > 1000:
            run.outcomes[item] = INVALID_ARGUMENT
        elif index == NONE_INDEX:
            run.outcomes[item] = UNKNOWN_SIM
        elif state.sims[index].health == healths[item] and (healths[item] != HEALTHY or not sim_untrusted(&state.sims[index])):
            run.outcomes[item] = SAME
        elif state.sims[index].health == RETIRED or (windows[item] and state.sims[index].health > THROTTLED):
            # What was observed overrules our own count, and what was observed before. Nobody else.
            run.outcomes[item] = WRONG_STATE
        else:
            health_event(
                state, index, healths[item], <uint64_t> goodputs_kbps[item] | <uint64_t> windows[item] << 32
                | <uint64_t> confidences[item] << 48)
            sim_set_health(state, index, healths[item], run.now_ms)
            # "Healthy" means: nothing but our own count speaks against it.
            if healths[item] == HEALTHY:
                sim_trust(state, index)
                sim_set_limit(state, index, run.now_ms)
            run.outcomes[item] = OK


cdef int _carrier_life(State *state, uint32_t index, int life, uint64_t now_ms) noexcept nogil:
    """Active again says something of a suspended SIM only: what else keeps one out is not the carrier's to lift."""
    cdef Sim *sim = &state.sims[index]
    cdef int health = HEALTHY if life == LIFE_ACTIVE else SUSPENDED if life == LIFE_SUSPENDED else RETIRED
    if sim.health == health or (life == LIFE_ACTIVE and sim.health != SUSPENDED and sim.health != RETIRED):
        return SAME
    # Suspended and then active again it would be fit, whatever kept it out before.
    if sim.health == RETIRED or (life == LIFE_SUSPENDED and sim.health > SUSPENDED):
        return WRONG_STATE
    # One that was slowed when it was suspended is probed when it comes back.
    if sim.health == THROTTLED:
        sim.cooling |= UNTRUSTED
    health_event(state, index, health, 0)
    sim_set_health(state, index, health, now_ms)
    if life == LIFE_ACTIVE:
        sim_set_limit(state, index, now_ms)
    return OK


cdef void apply_carrier_life(State *state, const Run *run) noexcept nogil:
    cdef const char *reasons = <const char *> run.columns
    cdef const uint64_t *iccids = <const uint64_t *> (reasons + 64 * <uint64_t> run.count)
    cdef const uint8_t *lives = <const uint8_t *> (iccids + run.count)
    cdef uint32_t item, index
    for item in range(run.count):
        index = sim_find(state, iccids[item])
        if not LIFE_ACTIVE <= lives[item] <= LIFE_TERMINATED or reasons[64 * <uint64_t> item] == 0:
            run.outcomes[item] = INVALID_ARGUMENT
        elif index == NONE_INDEX:
            run.outcomes[item] = UNKNOWN_SIM
        else:
            run.outcomes[item] = <uint8_t> _carrier_life(state, index, lives[item], run.now_ms)


cdef void apply_mask(State *state, const Run *run) noexcept nogil:
    cdef const uint16_t *lots = <const uint16_t *> run.columns
    cdef const uint16_t *banks = lots + run.count
    cdef const uint8_t *masked = <const uint8_t *> (banks + run.count)
    cdef uint32_t item, index
    cdef Group *group
    for item in range(run.count):
        if lots[item] != NONE_SHORT and not _is(state, lots[item], LOT):
            run.outcomes[item] = UNKNOWN_LOT
            continue
        if banks[item] != NONE_SHORT and not _is(state, banks[item], BANK):
            run.outcomes[item] = UNKNOWN_BANK
            continue
        if masked[item] > 1:
            run.outcomes[item] = INVALID_ARGUMENT
            continue
        # A mask on a lot or on a bank also holds for groups that come later; both masks and a group's own add up.
        if banks[item] == NONE_SHORT:
            for index in range(state.header.entities_count):
                if state.entities[index].kind == LOT and (lots[item] == NONE_SHORT or lots[item] == index):
                    state.entities[index].masked = masked[item]
        elif lots[item] == NONE_SHORT:
            state.entities[banks[item]].masked = masked[item]
        for index in range(state.header.groups_count):
            group = &state.groups[index]
            if group.lot == lots[item] and group.bank == banks[item]:
                group.masked_itself = masked[item]
            group_set_masked(state, index, group_hidden(state, group))
        run.outcomes[item] = OK


cdef void apply_thaw(State *state, const Run *run) noexcept nogil:
    """The clock is confirmed: leases expire and windows reset again. FREEZE holds before timers (machine.pyx).

    The clock leaps to the wall's time, but no lease has aged by the leap: each gets one lease more.
    """
    run.outcomes[0] = OK if state.header.frozen else SAME
    if state.header.frozen:
        state.header.thaw_until_ms = run.now_ms + <uint64_t> state.header.settings[<int> LEASE_MS]
        deaths_delayed(state, run.now_ms)
        lots_thawed(state, run.now_ms)
    state.header.frozen = 0

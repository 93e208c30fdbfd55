# Circuit breakers: where swaps go wrong beyond a budget no more are sent, until one that is tried goes well.
#
#   closed -- too many failed --> open -- its time is over --> half open -- the next swap there --> probing
#      ^                           ^                               ^                                |  |  |
#      |                           '---- failed: twice as long ----+--------------------------------'  |  |
#      |                                                           '---- it came to nothing -----------'  |
#      '---- went well -------------------------------------------------------------------------------- --'
#
# There is one for every bank, lot, class, carrier and access server, beside its entity. A swap's outcome counts for all that its
# target belongs to and for the access server that carried it out; so does each lease that begins by an allocation, as long as
# attaches fail: one that begins counts as well until its attach is told to have failed. Where none has failed lately nothing is
# counted, so the first failure only begins the counting, and an allocation costs one comparison.
# Of these the narrowest that explains the failures is to blame, and
# opens when they are beyond the budget; what was counted until then is explained, and all counts begin anew: a bad lot
# opens itself and neither its banks nor its carrier. Counts are halved every half minute, so that an hour without trouble
# does not hide one that begins.
#
# Half open it closes too when enough leases began there for long enough and none failed: not every market has swaps.
#
# While one is open (or its probe is out), swaps choose targets elsewhere, or wait; allocations go elsewhere if they can,
# and are never refused for it (I7). An access server's is its gate: it backs off, and the gate's probe is the breaker's.


cdef enum:
    BREAKER_FADE_MS = 30_000      # counts are halved each time
    BREAKER_OPEN_MAX_MS = 1_800_000
    ATTACHES_MS = 120_000         # leases that begin are counted for so long after an attach failed
    BREAKERS_LOOK = 64            # that may become half open in one apply
    BELONGS_TO = 4                # entities of a SIM: bank, lot, class, carrier


cdef inline bint breaker_blocks(const State *state, uint32_t entity) noexcept nogil:
    cdef const Breaker *breaker = &state.breakers[entity]
    return breaker.state == BREAKER_OPEN or breaker.state == BREAKER_PROBING


cdef void _belongs_to(const State *state, const Group *group, uint32_t *entities) noexcept nogil:
    """A group's bank, lot, class and carrier, from the narrowest on; NONE_INDEX: it has none."""
    cdef int64_t carrier
    entities[0] = group.bank
    entities[1] = group.lot
    entities[2] = state.classes[group.sim_class].entity
    carrier = state.entities[entities[2]].numbers[<int> CLASS_CARRIER]
    entities[3] = <uint32_t> carrier if carrier >= 0 else NONE_INDEX


cdef void _concerned(const State *state, uint32_t sim, uint32_t server, uint32_t *entities) noexcept nogil:
    """All that a SIM's use on an access server counts for."""
    _belongs_to(state, &state.groups[state.sims[sim].group], entities)
    entities[BELONGS_TO] = state.servers[server].entity


cdef void breaker_mark(State *state, const Group *group) noexcept nogil:
    """The group's bit in its class follows the breakers of its bank and its lot."""
    cdef Class *sim_class = &state.classes[group.sim_class]
    cdef uint64_t bit = <uint64_t> 1 << (group.local & 63)
    if breaker_blocks(state, group.bank) or breaker_blocks(state, group.lot):
        sim_class.broken[group.local >> 6] |= bit
    else:
        sim_class.broken[group.local >> 6] &= ~bit


cdef void _breaker_enter(State *state, uint32_t entity, int entered, uint64_t now_ms) noexcept nogil:
    cdef Breaker *breaker = &state.breakers[entity]
    cdef bint blocked = breaker_blocks(state, entity)
    cdef int kind = state.entities[entity].kind
    cdef uint32_t index
    if kind != ACCESS_SERVER:
        state.header.breakers_tried -= breaker.state == BREAKER_HALF_OPEN
        state.header.breakers_tried += entered == BREAKER_HALF_OPEN
    breaker.state = <uint8_t> entered
    breaker.changed_ms = now_ms
    event(state, EVENT_BREAKER, NONE_INDEX, NONE_SHORT, NONE_INDEX, entered, entity, breaker.retry_ms)
    if breaker_blocks(state, entity) == blocked or kind == ACCESS_SERVER:
        return
    if blocked:
        state.header.breakers_blocking -= 1
    else:
        state.header.breakers_blocking += 1
    if kind == BANK or kind == LOT:
        for index in range(state.header.groups_count):
            if state.groups[index].bank == entity or state.groups[index].lot == entity:
                breaker_mark(state, &state.groups[index])


cdef void _breaker_open(State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    cdef Breaker *breaker = &state.breakers[entity]
    cdef uint64_t span_ms = <uint64_t> state.header.settings[<int> BREAKER_MS] << min(breaker.opens, <uint8_t> 10)
    span_ms = min(span_ms, <uint64_t> BREAKER_OPEN_MAX_MS)
    breaker.opens += breaker.opens < 255
    breaker.probe = 0
    breaker.retry_ms = now_ms + 1 + span_ms // 2 + draw(state) % (span_ms // 2 + 1)
    if not state.header.breakers_due_ms or breaker.retry_ms < state.header.breakers_due_ms:
        state.header.breakers_due_ms = breaker.retry_ms
    _breaker_enter(state, entity, BREAKER_OPEN, now_ms)


cdef void _breaker_close(State *state, uint32_t entity, uint64_t now_ms) noexcept nogil:
    cdef Breaker *breaker = &state.breakers[entity]
    breaker.probe = 0
    breaker.opens = 0
    breaker.failures = 0
    breaker.successes = 0
    breaker.retry_ms = 0
    _breaker_enter(state, entity, BREAKER_CLOSED, now_ms)
    servers_wake(state)


cdef void _breaker_count(State *state, uint32_t entity, bint ok, uint64_t now_ms) noexcept nogil:
    cdef Breaker *breaker = &state.breakers[entity]
    cdef uint64_t halves
    # All at the same instants, so that they can be compared.
    if breaker.faded_ms < now_ms - now_ms % BREAKER_FADE_MS:
        halves = min(now_ms // BREAKER_FADE_MS - breaker.faded_ms // BREAKER_FADE_MS, <uint64_t> 31)
        breaker.failures >>= halves
        breaker.successes >>= halves
        breaker.faded_ms = now_ms
    if ok:
        breaker.successes += 1
    else:
        breaker.failures += 1


cdef bint _beyond(const State *state, const Breaker *breaker) noexcept nogil:
    """Whether it counted enough, and too many of them failed."""
    cdef uint64_t all_count = <uint64_t> breaker.failures + breaker.successes
    return all_count >= <uint64_t> state.header.settings[<int> BREAKER_LEAST] and (
        <uint64_t> breaker.failures * 1_000_000 > all_count * <uint64_t> state.header.settings[<int> BREAKER_PPM])


cdef int _to_blame(const State *state, const uint32_t *entities) noexcept nogil:
    """Which of them explains the failures: of those where nearly as large a share fails as where it is worst, the narrowest
    that has most of the failures. -1: none has counted enough to tell."""
    cdef uint64_t worst_ppm = 0, most = 0
    cdef uint64_t[BELONGS_TO + 1] shares_ppm
    cdef uint64_t all_count
    cdef const Breaker *breaker
    cdef int place
    for place in range(BELONGS_TO + 1):
        shares_ppm[place] = 0
        if entities[place] == NONE_INDEX:
            continue
        breaker = &state.breakers[entities[place]]
        all_count = <uint64_t> breaker.failures + breaker.successes
        if 4 * all_count >= <uint64_t> state.header.settings[<int> BREAKER_LEAST]:
            shares_ppm[place] = <uint64_t> breaker.failures * 1_000_000 // all_count
            worst_ppm = max(worst_ppm, shares_ppm[place])
    for place in range(BELONGS_TO + 1):
        if shares_ppm[place] and 5 * shares_ppm[place] >= 4 * worst_ppm:
            most = max(most, <uint64_t> state.breakers[entities[place]].failures)
    for place in range(BELONGS_TO + 1):
        if shares_ppm[place] and 5 * shares_ppm[place] >= 4 * worst_ppm:
            if 4 * <uint64_t> state.breakers[entities[place]].failures >= 3 * most:
                return place
    return -1


cdef void _judge(State *state, const uint32_t *entities, uint32_t server, uint64_t now_ms) noexcept nogil:
    """One more has failed: opens what is to blame, if it is beyond its budget."""
    cdef int place = _to_blame(state, entities)
    if place < 0 or not _beyond(state, &state.breakers[entities[place]]):
        return
    if place < BELONGS_TO:
        _breaker_open(state, entities[place], now_ms)
    elif state.servers[server].gate == GATE_OPEN:
        _breaker_enter(state, entities[place], BREAKER_OPEN, now_ms)
        _back_off(state, server, GATE_BY_FAILURES, now_ms)
    # What was counted until now is explained.
    for place in range(<int> state.header.entities_count):
        state.breakers[place].failures = 0
        state.breakers[place].successes = 0


cdef inline void swap_outcome(State *state, uint32_t index, bint ok, uint64_t now_ms) noexcept nogil:
    """What became of a swap that was sent, for all that may be to blame. Its target is still known."""
    cdef Order *order = &state.orders[index]
    cdef uint32_t[BELONGS_TO + 1] entities
    cdef Breaker *breaker
    cdef bint explained = False
    # While none is open none need be asked, which is nearly always.
    cdef bint all_closed = not (
        state.header.breakers_blocking or state.header.breakers_tried or server_breaker_open(state, order.server))
    cdef int place
    _concerned(state, order.target, order.server, entities)
    order.probes = 0
    for place in range(0 if all_closed else BELONGS_TO + 1):
        if entities[place] == NONE_INDEX:
            continue
        breaker = &state.breakers[entities[place]]
        if breaker.state != BREAKER_CLOSED:
            explained = True
            if breaker.state == BREAKER_PROBING and breaker.probe == index + 1:
                if ok:
                    _breaker_close(state, entities[place], now_ms)
                else:
                    _breaker_open(state, entities[place], now_ms)
    if explained:
        return
    for place in range(BELONGS_TO + 1):
        if entities[place] != NONE_INDEX:
            _breaker_count(state, entities[place], ok, now_ms)
    if not ok:
        _judge(state, entities, order.server, now_ms)


cdef inline bint attaches_count(const State *state, uint64_t now_ms) noexcept nogil:
    """Whether leases that begin are counted."""
    return state.header.attaches_until_ms > now_ms or state.header.breakers_tried


cdef void attach_begun(State *state, uint32_t terminal, uint64_t now_ms) noexcept nogil:
    """A lease has begun by an allocation: it is taken for well until attach_failed."""
    cdef uint32_t[BELONGS_TO + 1] entities
    cdef Breaker *breaker
    cdef int place
    _concerned(state, state.terminals[terminal].sim, state.terminals[terminal].server, entities)
    for place in range(BELONGS_TO + 1):
        if entities[place] == NONE_INDEX:
            continue
        breaker = &state.breakers[entities[place]]
        if breaker.state == BREAKER_CLOSED:
            _breaker_count(state, entities[place], True, now_ms)
        elif breaker.state == BREAKER_HALF_OPEN and place < BELONGS_TO:
            breaker.successes += 1
            if (
                breaker.successes >= <uint64_t> state.header.settings[<int> BREAKER_LEAST]
                and now_ms - breaker.changed_ms >= <uint64_t> state.header.settings[<int> BREAKER_MS]
            ):
                _breaker_close(state, entities[place], now_ms)


cdef void attach_failed(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """The SIM that the terminal was given would not attach."""
    cdef const Terminal *terminal = &state.terminals[index]
    cdef uint32_t[BELONGS_TO + 1] entities
    cdef Breaker *breaker
    cdef bint explained = False
    cdef int place
    if state.header.attaches_until_ms <= now_ms:
        state.header.attaches_epoch = (<uint64_t> state.header.incarnation << 48) | state.header.epoch_next
    state.header.attaches_until_ms = now_ms + ATTACHES_MS
    _concerned(state, terminal.sim, terminal.server, entities)
    for place in range(BELONGS_TO + 1):
        if entities[place] == NONE_INDEX:
            continue
        breaker = &state.breakers[entities[place]]
        if breaker.state != BREAKER_CLOSED:
            explained = True
            # Seconds are rounded down: what began in the second in which it became half open says nothing.
            if breaker.state == BREAKER_HALF_OPEN and <uint64_t> state.sims[terminal.sim].next * 1000 > breaker.changed_ms:
                _breaker_open(state, entities[place], now_ms)
    if explained or terminal.epoch < state.header.attaches_epoch:
        return
    for place in range(BELONGS_TO + 1):
        if entities[place] != NONE_INDEX:
            _breaker_count(state, entities[place], False, now_ms)
            breaker = &state.breakers[entities[place]]
            breaker.successes -= breaker.successes > 0
    _judge(state, entities, terminal.server, now_ms)


cdef void breakers_probe(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """A swap that is sent is the probe of every half open breaker of its target."""
    cdef Order *order = &state.orders[index]
    cdef uint32_t[BELONGS_TO] entities
    cdef int place
    _belongs_to(state, &state.groups[state.sims[order.target].group], entities)
    for place in range(BELONGS_TO):
        if entities[place] != NONE_INDEX and state.breakers[entities[place]].state == BREAKER_HALF_OPEN:
            state.breakers[entities[place]].probe = index + 1
            order.probes = 1
            _breaker_enter(state, entities[place], BREAKER_PROBING, now_ms)


cdef void breakers_unprobed(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """The probe says nothing: another is wanted."""
    cdef Order *order = &state.orders[index]
    cdef uint32_t[BELONGS_TO] entities
    cdef Breaker *breaker
    cdef int place
    order.probes = 0
    _belongs_to(state, &state.groups[state.sims[order.target].group], entities)
    for place in range(BELONGS_TO):
        if entities[place] == NONE_INDEX:
            continue
        breaker = &state.breakers[entities[place]]
        if breaker.state == BREAKER_PROBING and breaker.probe == index + 1:
            breaker.probe = 0
            _breaker_enter(state, entities[place], BREAKER_HALF_OPEN, now_ms)
            servers_wake(state)


cdef void server_breaker_close(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """The access server's gate opens again."""
    if state.breakers[state.servers[index].entity].state != BREAKER_CLOSED:
        _breaker_close(state, state.servers[index].entity, now_ms)


cdef bint server_breaker_open(const State *state, uint32_t index) noexcept nogil:
    return state.breakers[state.servers[index].entity].state != BREAKER_CLOSED


cdef void breakers_look(State *state, uint64_t now_ms) noexcept nogil:
    """Those whose time is over let one swap through."""
    cdef uint32_t entity, found = 0
    cdef uint64_t next_ms = 0
    cdef const Breaker *breaker
    if not state.header.breakers_due_ms or state.header.breakers_due_ms > now_ms:
        return
    for entity in range(state.header.entities_count):
        breaker = &state.breakers[entity]
        if breaker.state != BREAKER_OPEN or not breaker.retry_ms:
            continue
        if breaker.retry_ms <= now_ms and found < BREAKERS_LOOK:
            found += 1
            _breaker_enter(state, entity, BREAKER_HALF_OPEN, now_ms)
        elif not next_ms or breaker.retry_ms < next_ms:
            next_ms = breaker.retry_ms
    state.header.breakers_due_ms = next_ms
    if found:
        servers_wake(state)


# --------------------------------------------------------------------------------------- choosing around them

cdef int _next_around(
    State *state, const Class *sim_class, const Shelf *shelf, int tier, int64_t expected, bint sound
) noexcept nogil:
    """As next_local, among the groups whose pools have enough, and if ``sound`` whose breakers let a swap through; -1: there is none."""
    cdef int start = <int> ((sim_class.last_group + 1) % (64 * GROUP_WORDS))
    cdef int step, word, local
    cdef uint64_t bits
    for step in range(GROUP_WORDS + 1):
        word = ((start >> 6) + step) % GROUP_WORDS
        bits = sim_class.groups[tier][word]
        if shelf.groups != NULL:
            bits &= shelf.groups[word]
        if sound:
            bits &= ~sim_class.broken[word]
        if step == 0:
            bits &= ~<uint64_t> 0 << (start & 63)
        while bits:
            local = (word << 6) + first_set(bits)
            if pool_has(state, &state.groups[sim_class.members[local]], expected):
                return local
            if not state.passes_left:
                return -1
            state.passes_left -= 1
            bits &= bits - 1
    return -1


cdef uint32_t shelf_select_around(
    State *state, Class *sim_class, const Shelf *shelf, int64_t expected, int tier, bint roomy, bint sound
) noexcept nogil:
    """As shelf_select, where pools have too little, or breakers of its class are open: slower, and only then."""
    cdef int step, own, local, tries
    cdef uint32_t index
    for step in range(TIERS - tier):
        own = TIERS - 1 - step if roomy else tier + step
        if not (shelf.tiers[own >> 6] >> (own & 63)) & 1:
            continue
        local = _next_around(state, sim_class, shelf, own, expected, sound)
        if local >= 0:
            index = state.groups[sim_class.members[local]].head[own]
            if headroom_bytes(&state.sims[index]) < expected:
                return NONE_INDEX  # only in the last tier, which is open upwards
            sim_class.last_group = local
            return index
    if tier == 0 or tier_of(expected) == tier:
        return NONE_INDEX
    local = _next_around(state, sim_class, shelf, tier - 1, expected, sound)
    if local < 0:
        return NONE_INDEX
    index = state.groups[sim_class.members[local]].head[tier - 1]
    for tries in range(OWN_TIER_TRIES):
        if index == NONE_INDEX:
            break
        if headroom_bytes(&state.sims[index]) >= expected:
            sim_class.last_group = local
            return index
        index = state.sims[index].next
    return NONE_INDEX


cdef void _sound_groups(const Class *sim_class, int tier, uint64_t *groups) noexcept nogil:
    """The groups that no breaker keeps away and that have a SIM in ``tier`` or a roomier one, GROUP_WORDS of them."""
    cdef uint64_t words
    cdef int own, word
    memset(groups, 0, GROUP_WORDS * sizeof(uint64_t))
    for own in range(tier, TIERS):
        words = sim_class.summary[own]
        while words:
            word = first_set(words)
            groups[word] |= sim_class.groups[own][word] & ~sim_class.broken[word]
            words &= words - 1


cdef bint _rank_among(const Class *sim_class, uint32_t rank, const uint64_t *groups) noexcept nogil:
    cdef int word
    for word in range(GROUP_WORDS):
        if sim_class.rank_groups[rank][word] & groups[word]:
            return True
    return False


cdef uint32_t ranks_select_around(
    State *state, Class *sim_class, uint32_t first, int64_t expected, int tier, bint sound
) noexcept nogil:
    """The same, from the rank ``first`` on, in the order of ranks. Which of them have a sound group with a SIM is worked out once, or each
    would be looked through tier by tier."""
    cdef uint64_t[GROUP_WORDS] groups
    cdef Shelf shelf
    cdef uint32_t rank, index
    if sound:
        _sound_groups(sim_class, tier, groups)
    for rank in range(first, <uint32_t> sim_class.ranks_count):
        if rank_roomiest(sim_class, rank) >= tier and (not sound or _rank_among(sim_class, rank, groups)):
            shelf = rank_shelf(sim_class, rank)
            index = shelf_select_around(state, sim_class, &shelf, expected, tier, True, sound)
            if index != NONE_INDEX:
                return index
    return NONE_INDEX


cdef uint32_t class_select_sound(
    State *state, uint16_t class_index, int64_t expected, int tier, bint roomy
) noexcept nogil:
    """As class_select, where breakers of its class are open."""
    cdef Class *sim_class = &state.classes[class_index]
    cdef Shelf shelf
    cdef uint32_t index
    if roomy and sim_class.ranks_count > 1:
        index = select_by_rank(state, sim_class, expected, tier, True)
        if index != NONE_INDEX:
            return index
    shelf = class_shelf(sim_class)
    return shelf_select_around(state, sim_class, &shelf, expected, tier, roomy, True)


cdef inline bint class_broken(const State *state, const Class *sim_class) noexcept nogil:
    cdef int64_t carrier = state.entities[sim_class.entity].numbers[<int> CLASS_CARRIER]
    return breaker_blocks(state, sim_class.entity) or (carrier >= 0 and breaker_blocks(state, <uint32_t> carrier))


cdef uint32_t market_select_sound(
    State *state, int market, int64_t expected, int tier, bint keep_reserve, bint roomy
) noexcept nogil:
    """As market_select, and only from where no breaker is in the way."""
    cdef Market *record = &state.markets[market]
    cdef uint32_t position, found
    cdef uint16_t sim_class
    for position in range(record.classes_count):
        sim_class = record.classes[position]
        if (keep_reserve and _spared(state, sim_class)) or class_broken(state, &state.classes[sim_class]):
            continue
        found = class_select_sound(state, sim_class, expected, tier, roomy)
        if found != NONE_INDEX:
            return found
    return NONE_INDEX

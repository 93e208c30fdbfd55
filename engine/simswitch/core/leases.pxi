# Terminals and their leases.
#
#     key --terminal_table--> terminals[index]  64 B: key, epoch, expiry, SIM, swap …   (stable index, order of first sight)
#
# A lease begins with a new epoch and a SIM that is free and healthy with the expected use left (I4). It ends elsewhere
# (orders.pxi), because ending one may need an order. Renewing moves only `expires_ms`: the wheel asks later (timers.pxi).


cdef uint32_t terminal_find(State *state, uint64_t key) noexcept nogil:
    """The index of the terminal, or NONE_INDEX."""
    cdef uint64_t hash = mix(key)
    cdef uint32_t place = table_home(&state.terminal_table, hash)
    cdef uint32_t index = table_next(&state.terminal_table, hash, &place)
    while index != NONE_INDEX and state.terminals[index].key != key:
        index = table_next(&state.terminal_table, hash, &place)
    return index


cdef inline uint32_t terminal_swap(const Terminal *terminal) noexcept nogil:
    """Its swap that is queued or ordered, or NONE_INDEX."""
    return terminal.order if terminal.order < LAST_SIM else NONE_INDEX


cdef inline uint32_t terminal_last_sim(const Terminal *terminal) noexcept nogil:
    """The SIM of its lease that has ended, whose final usage may still come; NONE_INDEX: it has a lease, or never had one."""
    return terminal.order - LAST_SIM if terminal.sim == NONE_INDEX and terminal.order < AWAITS_TRAFFIC else NONE_INDEX


cdef inline int terminal_tier(const Terminal *terminal) noexcept nogil:
    """The tier from which every SIM has the expected use of its lease left."""
    return terminal.expected_tier & ~LEASE_ARMED


# The final report of a lease may come when its terminal has another one already: at another access server, or after a swap. So what
# such a lease was stands in a ring of the last ENDED_MAX; the report of one from before is set aside.
#
#     end of the epoch --> ended_places [ place ] --> ended_leases [ lease, before ] --> [ lease, before ] …   ever older
#
# The ring is written in order, so that a lease that begins touches no random line for the one before it. Nothing is taken out of a chain:
# a place that was written anew since is younger than what names it, and that ends the chain. At most ENDED_TRIES are looked at, since whoever
# wants to can have many leases whose epochs end alike.

cdef inline uint32_t _ended_age(const State *state, uint32_t place) noexcept nogil:
    """How many were remembered since the one that stands there."""
    return <uint32_t> (state.header.ended_count - 1 - place) & (ENDED_MAX - 1)


cdef inline void _fill_last(const Terminal *terminal, uint32_t index, uint32_t sim, EndedLease *lease) noexcept nogil:
    lease.epoch = terminal.epoch
    lease.subscriber = terminal.subscriber
    lease.reported_bytes = terminal.reported_bytes
    lease.terminal = index
    lease.sim = sim
    lease.reported_s = terminal.reported_s
    lease.server = terminal.server
    lease.expected_tier = <uint8_t> terminal_tier(terminal)


cdef EndedLease lease_last(const State *state, uint32_t index) noexcept nogil:
    """The terminal's lease that has ended, if it has no other since; epoch 0: there is none."""
    cdef EndedLease lease
    cdef uint32_t sim = terminal_last_sim(&state.terminals[index])
    memset(&lease, 0, sizeof(EndedLease))
    if sim != NONE_INDEX:
        _fill_last(&state.terminals[index], index, sim, &lease)
    return lease


cdef EndedLease *lease_ended(State *state, uint32_t terminal, uint64_t epoch) noexcept nogil:
    """A lease of the terminal that is over and that it has another one since; NULL: nothing is known of it."""
    cdef uint32_t place = state.ended_places[epoch & (ENDED_MAX - 1)]
    cdef uint32_t age = _ended_age(state, place)
    cdef uint32_t younger, tries
    for tries in range(ENDED_TRIES if epoch else 0):
        if state.ended_leases[place].epoch == epoch:
            return &state.ended_leases[place] if state.ended_leases[place].terminal == terminal else NULL
        place = state.ended_leases[place].before
        younger = age
        age = _ended_age(state, place)
        if age <= younger:
            break
    return NULL


cdef EndedLease lease_over(State *state, uint32_t terminal, uint64_t epoch) noexcept nogil:
    """A lease of the terminal that is over, its last one or one before; epoch 0: nothing is known of it."""
    cdef EndedLease last = lease_last(state, terminal)
    cdef const EndedLease *lease = lease_ended(state, terminal, epoch)
    if last.epoch != epoch:
        memset(&last, 0, sizeof(EndedLease))
        if lease != NULL:
            last = lease[0]
    return last


cdef inline EndedLease *_place_for(State *state, uint64_t epoch) noexcept nogil:
    """Where a lease is to be remembered from now on."""
    cdef uint64_t count = state.header.ended_count
    cdef uint16_t *last = &state.ended_places[epoch & (ENDED_MAX - 1)]
    cdef EndedLease *lease = &state.ended_leases[count & (ENDED_MAX - 1)]
    state.header.ended_count = count + 1
    lease.before = last[0]
    last[0] = <uint16_t> count
    return lease


cdef void lease_remember(State *state, EndedLease *lease) noexcept nogil:
    """Its terminal has, or had, another one."""
    cdef EndedLease *chosen = _place_for(state, lease.epoch)
    lease.before = chosen.before
    chosen[0] = lease[0]


cdef inline void lease_forget_last(State *state, uint32_t index) noexcept nogil:
    """The terminal's record is wanted for something else than its lease that has ended."""
    cdef Terminal *terminal = &state.terminals[index]
    cdef uint32_t sim = terminal_last_sim(terminal)
    if sim != NONE_INDEX:
        _fill_last(terminal, index, sim, _place_for(state, terminal.epoch))
        terminal.order = NONE_INDEX


cdef inline bint terminal_spare(const State *state) noexcept nogil:
    """Whether there is room for a name with which no lease comes: an eighth of it is for those with leases."""
    return state.header.terminals_count < state.header.terminals_max - state.header.terminals_max // 8


cdef inline bint room_for_one(const State *state, uint32_t taken, uint32_t brought) noexcept nogil:
    """Whether an access server that has brought so many of the names that are known may bring one more.

    Nobody is forgotten, so the last eighth of the room is for access servers that have brought less than their equal share:
    one that makes names up, each with a lease, is stopped before it has taken all of it.
    """
    cdef uint32_t most = state.header.terminals_max
    return taken < most - most // 8 or (taken < most and <uint64_t> brought * state.header.servers_count < most)


cdef inline bint terminal_room(const State *state, uint32_t server) noexcept nogil:
    """Whether an access server may have a terminal become known."""
    return room_for_one(state, state.header.terminals_count, state.servers[server].terminals_brought)


cdef uint32_t terminal_add(State *state, uint64_t key, uint32_t server) noexcept nogil:
    """A terminal that was not known becomes so. There is room: ask terminal_room first."""
    cdef uint32_t index = state.header.terminals_count
    cdef Terminal *terminal
    invariant(index < state.header.terminals_max, "a terminal becomes known only where there is room")
    state.header.terminals_count += 1
    state.servers[server].terminals_brought += 1
    terminal = &state.terminals[index]
    terminal.key = key
    terminal.sim = NONE_INDEX
    terminal.order = NONE_INDEX
    table_enter(&state.terminal_table, mix(key), index)
    return index


# A run of commands finds its terminals in stages, each a block of items ahead of the next, so that the misses of many items are under
# way at once: slot of the table -> record -> SIM. A slot's tag names the right record nearly always; only the last stage
# compares keys, and searches again when the tag lied or the terminal came into being in this run.
#
#      item i, the first of a block      i .. i+7    i+8 .. i+15    i+16 .. i+23    i+24 .. i+31
#                                        used now    SIM            record          slot
#
# A whole block is fetched in one go, because a fetch holds up what stands behind it until its address is translated. Where
# the host backs a guest's huge pages with small ones, each random line costs a walk through two page tables, longer than the line
# itself; the walks of one block overlap, those of single fetches an item apart hardly did.

cdef enum:
    AHEAD = 8                     # items of a block
    AHEAD_SIM = AHEAD
    AHEAD_RECORD = 2 * AHEAD
    AHEAD_SLOT = 3 * AHEAD
    AHEAD_RING = 4 * AHEAD        # a power of two


ctypedef struct Finder:
    State *state
    const uint64_t *keys
    uint32_t count
    int touch                     # what the run will touch: TOUCH_*
    uint32_t wanted_count
    uint32_t[AHEAD] wanted        # SIMs that later items will touch, as the hints say: fetched with the next block
    uint32_t[AHEAD_RING] homes
    uint32_t[AHEAD_RING] hashes
    uint32_t[AHEAD_RING] guesses


cdef enum:
    TOUCH_RECORD = 0              # the terminal's record only
    TOUCH_SIM = 1                 # and its SIM
    TOUCH_USAGE = 2               # and its subscriber
    TOUCH_SUBSCRIBER = 5          # the terminal's record and its subscriber
    TOUCH_COLD = 3                # the terminal's records, not its SIM


cdef inline void _fetch_slots(Finder *finder, uint32_t first, uint32_t behind) noexcept nogil:
    cdef Table table = finder.state.terminal_table
    cdef uint64_t hash
    cdef uint32_t item
    for item in range(first, min(behind, finder.count)):
        hash = mix(finder.keys[item])
        finder.hashes[item & (AHEAD_RING - 1)] = <uint32_t> hash
        finder.homes[item & (AHEAD_RING - 1)] = <uint32_t> table_home(&table, hash)
        prefetch(&table.slots[table_home(&table, hash)])


cdef inline void _fetch_records(Finder *finder, uint32_t first, uint32_t behind) noexcept nogil:
    cdef Table table = finder.state.terminal_table
    cdef uint32_t item, place, guess
    for item in range(first, min(behind, finder.count)):
        place = finder.homes[item & (AHEAD_RING - 1)]
        guess = table_next(&table, finder.hashes[item & (AHEAD_RING - 1)], &place)
        finder.guesses[item & (AHEAD_RING - 1)] = guess
        if guess != NONE_INDEX:
            prefetch(&finder.state.terminals[guess])
            if finder.touch == TOUCH_COLD:
                terminal_cold_ahead(finder.state, guess)


cdef inline void terminal_cold_ahead(State *state, uint32_t index) noexcept nogil:
    """Fetches a terminal's cold record: both ends, since a quarter of them lie in two lines."""
    prefetch(&state.terminals_cold[index])
    prefetch(<char *> &state.terminals_cold[index] + sizeof(TerminalCold) - 1)


cdef inline void _fetch_sims(Finder *finder, uint32_t first, uint32_t behind) noexcept nogil:
    cdef State *state = finder.state
    cdef const char *place
    cdef uint32_t item, guess, sim
    for item in range(first, min(behind, finder.count)):
        guess = finder.guesses[item & (AHEAD_RING - 1)]
        if guess != NONE_INDEX:
            sim = state.terminals[guess].sim
            if sim != NONE_INDEX and finder.touch != TOUCH_SUBSCRIBER:
                prefetch(&state.sims[sim])
            if finder.touch == TOUCH_USAGE or finder.touch == TOUCH_SUBSCRIBER:
                place = <const char *> subscriber_place(state, state.terminals[guess].subscriber)
                prefetch(place)
                prefetch(place + 64)  # the search often goes on there


cdef void finder_begin(Finder *finder, State *state, const uint64_t *keys, uint32_t count, int touch) noexcept nogil:
    """For the keys of a run; then finder_next for each item in turn."""
    finder.state = state
    finder.keys = keys
    finder.count = count
    finder.touch = touch
    finder.wanted_count = 0
    _fetch_slots(finder, 0, AHEAD_SLOT)
    _fetch_records(finder, 0, AHEAD_RECORD)
    if touch != TOUCH_RECORD and touch != TOUCH_COLD:
        _fetch_sims(finder, 0, AHEAD_SIM)


cdef void _fetch_block(Finder *finder, uint32_t item) noexcept nogil:
    """What the block of items ahead of ``item``'s will need, and so on."""
    cdef uint32_t place
    for place in range(finder.wanted_count):
        prefetch(&finder.state.sims[finder.wanted[place]])
    finder.wanted_count = 0
    _fetch_slots(finder, item + AHEAD_SLOT, item + AHEAD_RING)
    _fetch_records(finder, item + AHEAD_RECORD, item + AHEAD_SLOT)
    if finder.touch != TOUCH_RECORD and finder.touch != TOUCH_COLD:
        _fetch_sims(finder, item + AHEAD_SIM, item + AHEAD_RECORD)


cdef inline uint32_t finder_next(Finder *finder, uint32_t item) noexcept nogil:
    """The index of the item's terminal, or NONE_INDEX."""
    cdef uint32_t guess
    if item & (AHEAD - 1) == 0:
        _fetch_block(finder, item)
    guess = finder.guesses[item & (AHEAD_RING - 1)]
    if guess != NONE_INDEX and finder.state.terminals[guess].key == finder.keys[item]:
        return guess
    return terminal_find(finder.state, finder.keys[item])


cdef inline void finder_hint(Finder *finder, uint32_t sim) noexcept nogil:
    """The SIM that this item took hints at one that a later item will take."""
    if sim != NONE_INDEX and finder.wanted_count < AHEAD:
        finder.wanted[finder.wanted_count] = sim
        finder.wanted_count += 1


cdef uint64_t epoch_new(State *state) noexcept nogil:
    """Epochs only grow: 16 bits of incarnation above 48 bits of counter."""
    cdef uint64_t counter = state.header.epoch_next
    invariant(counter < <uint64_t> 1 << 48, "lease epochs are not used up")
    state.header.epoch_next = counter + 1
    return (<uint64_t> state.header.incarnation << 48) | counter


cdef inline void lease_leave(State *state, Terminal *terminal) noexcept nogil:
    """The terminal holds its SIM no longer; which it was stays known."""
    state.servers[terminal.server].leases_count -= 1
    terminal.order = LAST_SIM + terminal.sim
    terminal.sim = NONE_INDEX
    terminal.expires_ms = 0


cdef inline void lease_begin(
    State *state, uint32_t terminal_index, uint32_t sim_index, uint32_t server, int market, int expected_tier,
    uint64_t epoch, uint64_t now_ms
) noexcept nogil:
    """The terminal holds the SIM from now on, under ``epoch``."""
    cdef Terminal *terminal = &state.terminals[terminal_index]
    cdef Sim *sim = &state.sims[sim_index]
    cdef Group *group = &state.groups[sim.group]
    invariant(terminal.sim == NONE_INDEX, "I2: a terminal holds at most one assigned SIM")
    invariant(sim.occupancy != ASSIGNED, "I1: a SIM is assigned to at most one terminal")
    sim_occupy(state, sim_index, ASSIGNED, terminal_index)
    if group.pool:
        pool_claim(state, sim_index, tier_lowest_bytes(expected_tier))
    if sim.health != HEALTHY:
        automatic_later(state, now_ms)
    if terminal.epoch != epoch:
        if terminal.reported_bytes:
            market_learn(state, terminal.market, terminal.reported_bytes)
        lease_forget_last(state, terminal_index)
    state.servers[server].leases_count += 1
    terminal.sim = sim_index
    terminal.order = NONE_INDEX
    terminal.epoch = epoch
    terminal.reported_bytes = 0
    terminal.reported_s = <uint32_t> (now_ms / 1000)
    sim.next = terminal.reported_s
    sim.previous = terminal.reported_s
    terminal.server = <uint16_t> server
    terminal.market = <uint8_t> market
    lease_extend(state, terminal_index, now_ms)
    # From here until the lease has ended its timer is armed: only lease_timer takes it off the wheel.
    if not terminal.expected_tier & LEASE_ARMED:
        lease_arm(state, terminal_index, terminal.expires_ms)
    terminal.expected_tier = <uint8_t> (expected_tier | LEASE_ARMED)


cdef void lease_arm(State *state, uint32_t index, uint64_t due_ms) noexcept nogil:
    """Apart from lease_begin, which is part of its callers' loops and seldom needs it."""
    timer_arm(state, TIMER_TERMINAL, index, due_ms)


cdef inline void lease_extend(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """Puts the expiry off to one lease from now. The timer stays where it is and asks."""
    cdef Terminal *terminal = &state.terminals[index]
    cdef Server *server = &state.servers[terminal.server]
    terminal.expires_ms = now_ms + <uint64_t> state.header.settings[<int> LEASE_MS]
    if server.gate == GATE_DEAD:
        server_lives(state, terminal.server, DEATH_BELIED, now_ms)
    if server.reconciling and server.unheard == HEARD:
        # A sign of life counts as being named in the hello that is being compared now. Not after a restore: what these
        # books take for the lease may have ended after the backup, and its last report comes late (I1).
        state.terminals_cold[index].session = server.session


cdef inline bint _spared(const State *state, uint16_t sim_class) noexcept nogil:
    """Whether the class has no more than its reserve (I7)."""
    return state.classes[sim_class].free_count <= state.classes[sim_class].reserve_count


cdef inline uint32_t market_select(
    State *state, int market, int64_t expected, int tier, bint keep_reserve, bint roomy
) noexcept nogil:
    """A free healthy SIM for a terminal in the market, from the first class in its order that has one (I4).

    ``roomy``: with as much left as there is, else as little as will do. With ``keep_reserve`` a class is not taken below its reserve (I7: that is for swaps), and breakers are kept to; an
    allocation only goes around them while it can.
    """
    cdef Market *record = &state.markets[market]
    cdef uint32_t position, found
    if state.header.unheard_count:
        return NONE_INDEX  # any of them may be used by whoever was given it after the backup (I1)
    if state.header.breakers_blocking:
        found = market_select_sound(state, market, expected, tier, keep_reserve, roomy)
        if found != NONE_INDEX or keep_reserve:
            return found
    for position in range(record.classes_count):
        if keep_reserve and _spared(state, record.classes[position]):
            continue
        found = class_select(state, record.classes[position], expected, tier, roomy)
        if found != NONE_INDEX:
            invariant(
                state.sims[found].occupancy == FREE and state.sims[found].health == HEALTHY,
                "I4: a SIM handed out or reserved is free and healthy",
            )
            invariant(
                pool_has(state, &state.groups[state.sims[found].group], expected),
                "I4: the pool of a SIM handed out or reserved has the expected use left",
            )
            return found
    return NONE_INDEX

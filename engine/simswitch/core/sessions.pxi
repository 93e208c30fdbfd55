# An access server's session.
#
#   OPEN    a new session number; whatever an older session says from now on is stale (fencing)
#   HOLDS   what the access server really holds, in as many runs as it takes; each difference is settled at once
#   READY   that was all: what it did not name is over, what an older session left outstanding is settled or sent again,
#           and the gate opens. A walk over orders and terminals finds both (sweeps.pxi), and there is none of either where
#           nothing is outstanding and each lease was named: who says hello again and again makes no work for others
#   CLOSE   the gate closes; SIMs stay held, outstanding orders stay outstanding (fail static)
#
# A restored folder doesn't know what was given after the backup. So nobody is given a SIM anew (market_select) until each access
# server that it knows is heard: READY, and all settled that its hello left open; or declared dead, and what it held is freed (I1).
#
# The access server must have dropped the unexecuted orders of its older session before it says HOLDS.

cdef enum:
    DIFFERENCES_TOLD_MAX = 64     # of one run, that neither changed a lease nor settled a swap: each is an event


cdef inline uint64_t session_number(const State *state, uint32_t session) noexcept nogil:
    """What an access server knows its session by: 32 bits of the lineage above those that count here. 0: none."""
    return <uint64_t> state.header.lineage << 32 | session if session else 0


cdef int _session_status(State *state, const Run *run) noexcept nogil:
    """OK when the run belongs to the access server's present session."""
    if run.server >= state.header.servers_count:
        return UNKNOWN_ACCESS_SERVER
    if run.argument == 0 or session_number(state, state.servers[run.server].session) != run.argument:
        return STALE_SESSION
    return OK


cdef void apply_session_open(State *state, const Run *run) noexcept nogil:
    cdef uint64_t *session = <uint64_t *> run.outcomes
    cdef uint8_t *status = <uint8_t *> (session + 1)
    cdef Server *server
    session[0] = 0
    if run.server >= state.header.servers_count:
        status[0] = UNKNOWN_ACCESS_SERVER
        return
    server = &state.servers[run.server]
    if server.gate == GATE_DEAD and server.sweep:
        # What it named would be compared with what is being freed.
        status[0] = SWEEPS_FULL
        return
    state.header.session_next += 1
    server.session = state.header.session_next
    server.session_opened_ms = run.now_ms
    server.session_epoch = (<uint64_t> state.header.incarnation << 48) | state.header.epoch_next
    server.hello_leases_count = server.leases_count
    server.named_count = 0
    server.reconciled = 0
    server.reconciling = 1
    server.sweep = 0
    server.told_ms = 0
    server.sent_count = 0
    server.taken_count = 0
    server.waiting = NONE_INDEX
    server.allocation_wait_us = NONE_INDEX
    server.missed_count = 0
    if server.gate != GATE_DEAD or not server.dead_ms:
        server_set_gate(state, run.server, GATE_DISCONNECTED, GATE_BY_SESSION, run.now_ms)
    session[0] = session_number(state, server.session)
    status[0] = OK


cdef int _not_now(State *state, uint32_t sim_index, int status, uint64_t now_ms) noexcept nogil:
    """It is not told to let go yet. Who named the SIM may use it, and names it again at the next hello.

    Until that has to come nobody is given it: two leases, in the grace after a restart, and after a restore until that of the
    last access server that is heard; at other times no server's word alone takes any number of SIMs from the pool. So too where another server was told of it.
    """
    if now_ms < state.header.grace_until_ms or state.header.unheard_count or state.sims_cold[sim_index].revoke:
        sim_rest(state, sim_index, now_ms + 2 * <uint64_t> state.header.settings[<int> LEASE_MS], now_ms)
    return status


cdef int _revoke(
    State *state, uint64_t key, uint32_t sim_index, uint64_t epoch, const Run *run
) noexcept nogil:
    """The access server holds what it should not: it is told to let go, and a SIM that nobody else has is held."""
    cdef uint32_t index, order, pending
    cdef Sim *sim = &state.sims[sim_index]
    if sim.held and state.orders[sim.next].server == run.server:
        return REVOKED  # an order for it waits or is outstanding already
    pending = state.sims_cold[sim_index].revoke
    if pending:
        # One revoke a SIM: a faulty access server that names it again and again must not fill the pool. Another server
        # that names it too is told when it says hello again.
        if state.orders[pending - 1].server == run.server:
            return REVOKED
        return _not_now(state, sim_index, ORDERS_FULL, run.now_ms)
    # One server's word alone takes no more of the orders, and so of the pool's SIMs, than this.
    if not order_spare(state) or state.servers[run.server].revokes_count >= max(<uint32_t> 1, state.header.orders_max // 8):
        return _not_now(state, sim_index, ORDERS_FULL, run.now_ms)
    index = terminal_find(state, key)
    if index == NONE_INDEX:
        if not terminal_spare(state):
            return _not_now(state, sim_index, TERMINALS_FULL, run.now_ms)
        index = terminal_add(state, key, run.server)
    order = order_new(state, REVOKE, index, sim_index, run.server, PRIORITY_STOP, NONE_INDEX, epoch, run.now_ms)
    state.sims_cold[sim_index].revoke = order + 1
    state.servers[run.server].revokes_count += 1
    state.header.revokes_count += 1
    if sim.occupancy == FREE or (sim.occupancy == COOLING and not sim.held):
        # Not for what others say of it is the terminal kept from moving. For a report it is waited no longer: somebody uses it.
        last_report_missing(state, sim_index, run.now_ms)
        sim_hold(state, sim_index, index, order, HELD_UNCOUNTED)
    return REVOKED


cdef void _named(State *state, uint32_t index, const Run *run) noexcept nogil:
    """The hello names a terminal with a lease on its server: one that began before the hello is counted, once."""
    cdef Server *server = &state.servers[run.server]
    cdef TerminalCold *cold = &state.terminals_cold[index]
    if cold.session != server.session:
        cold.session = server.session
        server.named_count += state.terminals[index].epoch < server.session_epoch


cdef int _holds(State *state, uint64_t key, uint64_t epoch, uint64_t iccid, const Run *run) noexcept nogil:
    """One thing that the access server really holds, against what we believe."""
    cdef uint32_t sim_index = sim_find(state, iccid)
    cdef uint32_t index = terminal_find(state, key)
    cdef uint32_t order, reported_s
    cdef uint64_t reported_bytes
    cdef EndedLease last
    cdef Terminal *terminal
    cdef Sim *sim
    if sim_index == NONE_INDEX:
        return UNKNOWN_SIM
    sim = &state.sims[sim_index]
    if sim.held and state.orders[sim.next].orphaned and state.orders[sim.next].server == run.server:
        # Now it is known with which of the two SIMs an orphaned switch left the access server: that one must go.
        order = sim.next
        if state.orders[order].session != state.servers[run.server].session:
            if state.orders[order].target == sim_index:
                order_confirm(state, order, BY_RECONCILIATION, run.now_ms)
            else:
                order_requeue(state, order, run.now_ms)
        return REVOKED
    if index == NONE_INDEX:
        return _revoke(state, key, sim_index, epoch, run)
    terminal = &state.terminals[index]
    if terminal.sim != NONE_INDEX and terminal.server == run.server:
        order = terminal_swap(terminal)
        if order != NONE_INDEX and order_outstanding(state, order) and state.orders[order].session != state.servers[run.server].session:
            if state.orders[order].target == sim_index:
                _named(state, index, run)
                order_confirm(state, order, BY_RECONCILIATION, run.now_ms)
                return SETTLED
            if state.orders[order].source == sim_index:
                _named(state, index, run)
                order_requeue(state, order, run.now_ms)
                return SETTLED
        if terminal.sim == sim_index:
            _named(state, index, run)
            return SAME
    if (
        terminal.sim == NONE_INDEX and terminal.epoch == epoch and terminal.server == run.server
        and terminal_last_sim(terminal) == sim_index and sim.terminal == index
        and (sim.occupancy == FREE or sim.occupancy == COOLING)
    ):
        # Its lease ended while it was away and nobody has the SIM since: the lease goes on under the same epoch.
        if sim.held and state.orders[sim.next].server == run.server:
            order_abandon(state, sim.next, run.now_ms)
        # What another access server has to let go of stays so: when this lease has ended, the SIM waits for that again (I1).
        last = lease_last(state, index)
        lease_reported(state, &last, UNREPORTED_MAX, run.now_ms)
        # Reports are cumulative per epoch, and the epoch goes on (I8).
        reported_bytes = terminal.reported_bytes
        reported_s = terminal.reported_s
        lease_begin(state, index, sim_index, run.server, terminal.market, terminal_tier(terminal), epoch, run.now_ms)
        terminal.reported_bytes = reported_bytes
        terminal.reported_s = reported_s
        # Whether it cooled meanwhile or was held, what was heard of the lease before it ended is not kept. Its traffic is of now: nobody
        # knows of an idle time.
        sim.previous = NONE_INDEX
        state.terminals_cold[index].session = state.servers[run.server].session
        return OK
    return _revoke(state, key, sim_index, epoch, run)


cdef void apply_session_holds(State *state, const Run *run) noexcept nogil:
    cdef uint32_t count = run.count
    cdef const uint64_t *keys = <const uint64_t *> run.columns
    cdef const uint64_t *epochs = keys + count
    cdef const uint64_t *iccids = epochs + count
    cdef int refusal = _session_status(state, run)
    cdef int status
    cdef uint32_t item, index, told = 0
    cdef uint64_t believed
    cdef EventRow *row
    if refusal == OK and state.servers[run.server].reconciled:
        refusal = WRONG_STATE  # READY has said that the list was complete
    for item in range(count):
        status = refusal
        if refusal == OK:
            index = terminal_find(state, keys[item])
            believed = sim_iccid(state, state.terminals[index].sim) if index != NONE_INDEX else 0
            status = _holds(state, keys[item], epochs[item], iccids[item], run)
            # What changed a lease or settled a swap is told, always; of what an access server may make up, so much of a run.
            if status == OK or status == SETTLED or (status != SAME and told < DIFFERENCES_TOLD_MAX):
                told += status != OK and status != SETTLED
                row = event(
                    state, EVENT_DIFFERENCE, index, run.server, NONE_INDEX, status, iccids[item], believed)
                row.terminal = keys[item]
        run.outcomes[item] = <uint8_t> status


cdef void server_heard(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """All is settled that its hello left open, or its death; of a restored folder's last one, SIMs are given out again."""
    cdef Server *server = &state.servers[index]
    if server.unheard == HEARD:
        return
    # Who was declared dead before the backup may have come back after it.
    if server.gate == GATE_DEAD and (server.unheard != UNHEARD_DEAD or server.dead_ms):
        return
    server.unheard = HEARD
    state.header.unheard_count -= 1
    # What it named and is not told yet to let go of, it names again in time (_not_now).
    state.header.grace_until_ms = max(
        state.header.grace_until_ms, now_ms + 2 * <uint64_t> state.header.settings[<int> LEASE_MS])
    if not state.header.unheard_count:
        servers_wake(state)


cdef bint _reconcile(State *state, uint32_t index) noexcept nogil:
    """Settles what the hello left open. False: no walk can begin now."""
    cdef Server *server = &state.servers[index]
    cdef bint all_named = server.named_count == server.hello_leases_count
    if all_named and not server.outstanding and not server.unheard:
        server.reconciling = 0
        return True
    return sweep_reconcile(state, index, not all_named)


cdef void apply_session_ready(State *state, const Run *run) noexcept nogil:
    cdef int status = _session_status(state, run)
    cdef Server *server
    if status == OK:
        server = &state.servers[run.server]
        if server.reconciled:
            status = SAME
        elif not _reconcile(state, run.server):
            status = SWEEPS_FULL
        else:
            server.reconciled = 1
            server.back_offs = 0
            server_breaker_close(state, run.server, run.now_ms)
            if server.paused:
                server_set_gate(state, run.server, GATE_PAUSED, GATE_BY_OPERATOR, run.now_ms)
            else:
                server_set_gate(state, run.server, GATE_OPEN, GATE_BY_READY, run.now_ms)
    run.outcomes[0] = <uint8_t> status


cdef void _end_session(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """What it named is no longer compared: without a session nobody knows what the server holds, so all stays as it is."""
    cdef Server *server = &state.servers[index]
    server.session = 0
    server.reconciling = 0
    if server.gate == GATE_DEAD:
        return  # the walk that frees what it held goes on
    server.sweep = 0
    server_set_gate(state, index, GATE_DISCONNECTED, GATE_BY_SESSION, now_ms)


# ------------------------------------------------------------------------------------------ a dead access server
#
# What a silent access server holds is nobody else's: two terminals on one IMSI are worse than one without. When an operator
# declares it dead, what it held is freed after the fencing delay, in which any sign of life belies him. No time counts in which it
# could not be heard, since the service was away, or in which nobody knows how much has passed, since the clock was in doubt.
#
# A session that is not READY belies nothing: an access server that comes again and again and never gets so far would keep for good
# what it held, and after a restore keep SIMs from everybody. The declaration ends it, and so does the burial: what it named it has to
# name again then, while it cools. Signs of life are READY, a lease that its hello begins (a swap that it carried out), and whatever it
# asks for its terminals.

cdef void _tell_death(State *state, uint32_t index, int what) noexcept nogil:
    event(state, EVENT_DEATH, NONE_INDEX, index, NONE_INDEX, what, state.servers[index].dead_ms, 0)


cdef void server_lives(State *state, uint32_t index, int what, uint64_t now_ms) noexcept nogil:
    """It is not dead, ``what``: Death. What was not freed yet stays as it is."""
    cdef Server *server = &state.servers[index]
    if server.dead_ms:
        _tell_death(state, index, what)
    server.dead_ms = 0
    if server.unheard:
        server.unheard = UNHEARD
    server.sweep = 0  # the walk that frees what it held may be under way already
    server_set_gate(
        state, index, GATE_DISCONNECTED, GATE_BY_LIFE if what == DEATH_BELIED else GATE_BY_OPERATOR, now_ms)


cdef void server_calls(State *state, const Run *run) noexcept nogil:
    """What only access servers send has come: whoever calls is not dead, whatever the answer will be."""
    if run.kind == SESSION_OPEN or run.kind == SESSION_HOLDS or run.kind == SESSION_CLOSE:
        return
    if (
        run.kind >= ALLOCATE and run.kind <= REPORT_LOAD and run.server < state.header.servers_count
        and state.servers[run.server].gate == GATE_DEAD
    ):
        server_lives(state, run.server, DEATH_BELIED, run.now_ms)


cdef void server_bury(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    """The fencing delay has passed: all that it held is freed, as if it had said hello and held nothing."""
    cdef Server *server = &state.servers[index]
    if not sweep_reconcile(state, index, True):
        timer_arm(state, TIMER_SERVER, index, now_ms + POOL_FULL_MS)
        return
    _end_session(state, index, now_ms)
    _tell_death(state, index, DEATH_SETTLED)
    server.dead_ms = 0


cdef void deaths_delayed(State *state, uint64_t now_ms) noexcept nogil:
    """The fencing delay of every death that is not settled begins anew."""
    cdef uint32_t index
    for index in range(state.header.servers_count):
        if state.servers[index].dead_ms:
            state.servers[index].dead_ms = now_ms + <uint64_t> state.header.settings[<int> FENCING_MS]
            timer_arm(state, TIMER_SERVER, index, state.servers[index].dead_ms)


cdef int _declare_dead(State *state, uint32_t index, int undo, uint64_t now_ms) noexcept nogil:
    cdef Server *server
    if index >= state.header.servers_count:
        return UNKNOWN_ACCESS_SERVER
    if undo > 1:
        return INVALID_ARGUMENT
    server = &state.servers[index]
    if undo:
        if not server.dead_ms:
            return WRONG_STATE
        server_lives(state, index, DEATH_UNDONE, now_ms)
        return OK
    if server.session and server.reconciled:
        return WRONG_STATE
    if server.gate == GATE_DEAD and server.unheard != UNHEARD:
        return SAME
    if server.session:
        _end_session(state, index, now_ms)
    if server.unheard:
        server.unheard = UNHEARD_DEAD
    server.dead_ms = now_ms + <uint64_t> state.header.settings[<int> FENCING_MS]
    server_set_gate(state, index, GATE_DEAD, GATE_BY_OPERATOR, now_ms)
    timer_arm(state, TIMER_SERVER, index, server.dead_ms)
    _tell_death(state, index, DEATH_DECLARED)
    return OK


cdef void apply_declare_dead(State *state, const Run *run) noexcept nogil:
    cdef uint32_t item
    for item in range(run.count):
        run.outcomes[item] = <uint8_t> _declare_dead(state, run.server, run.columns[item], run.now_ms)


cdef void apply_server_pause(State *state, const Run *run) noexcept nogil:
    """No order is sent to the access server, in this session or a later one, until it is resumed; then one shows how it is.

    What is outstanding is settled as ever, and allocations go on.
    """
    cdef uint8_t paused = run.kind == SERVER_PAUSE
    cdef Server *server
    if run.server >= state.header.servers_count:
        run.outcomes[0] = UNKNOWN_ACCESS_SERVER
        return
    server = &state.servers[run.server]
    run.outcomes[0] = SAME if server.paused == paused else OK
    if server.paused == paused:
        return
    server.paused = paused
    event(state, EVENT_PAUSE, NONE_INDEX, run.server, NONE_INDEX, paused, 0, 0)
    if server.gate == GATE_OPEN or server.gate == GATE_BACK_OFF or server.gate == GATE_PROBING:
        server_set_gate(state, run.server, GATE_PAUSED, GATE_BY_OPERATOR, run.now_ms)
    elif server.gate == GATE_PAUSED:
        server_set_gate(state, run.server, GATE_PROBING, GATE_BY_OPERATOR, run.now_ms)


cdef void apply_session_close(State *state, const Run *run) noexcept nogil:
    cdef int status = _session_status(state, run)
    if status == OK:
        _end_session(state, run.server, run.now_ms)
    run.outcomes[0] = <uint8_t> status


cdef void apply_acknowledge(State *state, const Run *run) noexcept nogil:
    """An acknowledgement that is late, comes twice or is from an old session changes nothing."""
    cdef const uint64_t *numbers = <const uint64_t *> run.columns
    cdef const uint8_t *results = <const uint8_t *> (numbers + run.count)
    cdef int refusal = _session_status(state, run)
    cdef uint32_t item, order
    cdef Order *record
    for item in range(run.count):
        if item & (AHEAD - 1) == 0:
            acknowledged_ahead(state, numbers, run.count, item)
        if refusal != OK:
            run.outcomes[item] = <uint8_t> refusal
            continue
        if results[item] < ACK_DONE or results[item] > ACK_BUSY:
            run.outcomes[item] = INVALID_ARGUMENT
            continue
        order = order_find(state, numbers[item])
        if order == NONE_INDEX:
            run.outcomes[item] = LATE if order_was_sent(state, numbers[item]) else UNKNOWN_ORDER
            continue
        record = &state.orders[order]
        if record.server != run.server or record.session != state.servers[run.server].session:
            run.outcomes[item] = STALE_SESSION
            continue
        server_acknowledged(state, order, results[item], run.now_ms)
        if results[item] == ACK_DONE:
            order_confirm(state, order, BY_ACKNOWLEDGEMENT, run.now_ms)
        else:
            order_refuse(state, order, results[item] == ACK_BUSY, run.now_ms)
        run.outcomes[item] = OK


cdef void apply_report_load(State *state, const Run *run) noexcept nogil:
    cdef const uint32_t *queue_waits_us = <const uint32_t *> run.columns
    cdef const uint32_t *services_us = queue_waits_us + run.count
    cdef const uint32_t *waiting = services_us + run.count
    cdef const uint32_t *taken = waiting + run.count
    cdef const uint32_t *allocation_waits_us = taken + run.count
    cdef int status = _session_status(state, run)
    cdef uint32_t item
    for item in range(run.count):
        if status == OK:
            server_load(
                state, run.server, queue_waits_us[item], services_us[item], waiting[item], taken[item],
                allocation_waits_us[item], run.now_ms)
        run.outcomes[item] = <uint8_t> status


cdef void restart(State *state, bint restored, uint64_t now_ms) noexcept nogil:
    """The service starts again: no session is left, and nothing expires before its server has reconciled or two leases.

    ``restored``: for the first time in a folder that was made of a backup. Of no access server is known what it holds then.
    It holds before the timers of the same apply: they are asked at the instant of the restart, hours later perhaps.
    """
    cdef uint32_t index
    for index in range(state.header.servers_count):
        state.servers[index].reconciled = 0
        _end_session(state, index, now_ms)
        if restored:
            state.servers[index].unheard = UNHEARD
    if restored:
        state.header.unheard_count = state.header.servers_count
    state.header.grace_until_ms = now_ms + 2 * <uint64_t> state.header.settings[<int> LEASE_MS]
    deaths_delayed(state, now_ms)
    answers_delayed(state, now_ms)
    for index in range(state.header.classes_count):
        class_rank(state, &state.classes[index])  # maybe from the state of a program that ordered them otherwise
    bounds_wanted(state)  # maybe from the state of a program that knew of no bounds
    pools_follow(state, now_ms)  # maybe from the state of a program that counted otherwise
    lots_slowed(state, now_ms)  # maybe from the state of a program that left them slowed

# Bounded work in progress: a ring of sweeps, the first of which is worked on until it is through.
#
#   kind                walks          and
#   JOB_SELECT          SIMs           adds the terminals whose SIM the job's filter names
#   JOB_CHECK           feasibility.pxi
#   AUTOMATIC           SIMs           swaps terminals off those that turned low or worse and could not be moved then
#   JOB_CANCEL          orders         drops the job's orders that were not sent
#   JOB_RESUME          orders         queues the job's parked orders again
#   LIMITS              SIMs           works out the limits of the lots whose caps are others (caps.pxi)
#   SUBSCRIBERS         terminals,     tells who was told of a published limit what holds now that rules are others (limits.pxi)
#                       then subscribers
#   RECONCILE           orders, then   settles what an older session of an access server left outstanding, and ends leases
#                       terminals      that it no longer holds, if any were not named; one walk serves all servers that were
#                                      ready before it began


cdef bint sweep_add(State *state, int kind, uint64_t argument, uint64_t end) noexcept nogil:
    """Queues a sweep over items 0 to ``end``. False when the ring is full."""
    cdef uint64_t size = state.regions[<int> REGION_SWEEPS].count
    cdef Sweep *sweep
    if state.header.sweeps_count == size:
        return False
    sweep = &state.sweeps[(state.header.sweeps_head + state.header.sweeps_count) % size]
    state.header.sweeps_count += 1
    sweep.cursor = 0
    sweep.end = end
    sweep.argument = argument
    sweep.kind = <uint32_t> kind
    state.header.sweep_next += 1
    sweep.id = state.header.sweep_next
    return True


cdef Sweep *sweep_waiting(State *state, uint32_t kind) noexcept nogil:
    """A sweep of that kind that has not begun, which others may share; NULL: there is none."""
    cdef uint64_t size = state.regions[<int> REGION_SWEEPS].count
    cdef uint64_t position
    cdef Sweep *sweep
    for position in range(state.header.sweeps_count):
        sweep = &state.sweeps[(state.header.sweeps_head + position) % size]
        if sweep.kind == kind and sweep.cursor == 0:
            return sweep
    return NULL


cdef bint sweep_resume(State *state, uint32_t job) noexcept nogil:
    """Has a job's parked orders queued again, by a walk that waits for that already if there is one."""
    cdef uint64_t size = state.regions[<int> REGION_SWEEPS].count
    cdef uint64_t position
    cdef Sweep *sweep
    for position in range(state.header.sweeps_count):
        sweep = &state.sweeps[(state.header.sweeps_head + position) % size]
        if sweep.kind == SWEEP_JOB_RESUME and sweep.argument == job and sweep.cursor == 0:
            sweep.end = state.header.orders_max
            return True
    return sweep_add(state, SWEEP_JOB_RESUME, job, state.header.orders_max)


cdef bint sweep_reconcile(State *state, uint32_t server, bint leases) noexcept nogil:
    """Has an access server reconciled by the next walk, which a thousand that come back together share.

    ``leases``: also those that it no longer holds; without, what it left outstanding.
    """
    cdef Sweep *sweep = sweep_waiting(state, SWEEP_RECONCILE)
    cdef uint64_t orders = state.header.orders_max
    # The argument is where orders end and terminals begin: the pool of orders may grow meanwhile.
    if sweep != NULL:
        leases = leases or sweep.end > sweep.argument
        sweep.argument = orders
        sweep.end = orders + state.header.terminals_count * leases
        state.servers[server].sweep = sweep.id
        return True
    if not sweep_add(state, SWEEP_RECONCILE, orders, orders + state.header.terminals_count * leases):
        return False
    state.servers[server].sweep = state.header.sweep_next
    return True


cdef bint job_add_terminal(State *state, uint32_t job_id, uint32_t index, uint64_t now_ms, int *status) noexcept nogil:
    """Queues the swap of a terminal. False when there is no order left; ``status`` says what became of it."""
    cdef Job *job = job_find(state, job_id)
    cdef Terminal *terminal = &state.terminals[index]
    if terminal.sim == NONE_INDEX:
        status[0] = NO_LEASE
        return True
    if terminal_swap(terminal) != NONE_INDEX:
        status[0] = SAME
        job.skipped_count += 1
        return True
    if terminal_rests(state, index, now_ms):
        status[0] = RESTING
        job.skipped_count += 1
        return True
    if terminal_at_ceiling(state, index):
        status[0] = DAY_CEILING
        job.skipped_count += 1
        return True
    if not job_takes_more(state, job, now_ms):
        status[0] = SAME
        job.beyond_count += 1
        return True
    if not order_spare(state):
        status[0] = ORDERS_FULL
        return False
    job.terminals_count += 1
    job.queued_count += 1
    order_new(state, SWITCH, index, terminal.sim, terminal.server, job.priority, job_id, 0, now_ms)
    status[0] = OK
    return True


cdef bint _select(State *state, Sweep *sweep, Job *job, uint32_t index, uint64_t now_ms) noexcept nogil:
    """One SIM of a job's selection. False: no order is left, try again later."""
    cdef int status
    if not job_selects(state, job, index):
        return True
    return job_add_terminal(state, job.id, state.sims[index].terminal, now_ms, &status)


cdef bint _gone(State *state, uint32_t index) noexcept nogil:
    """Whether the hello did not name this terminal, whose lease began before it."""
    cdef Terminal *terminal = &state.terminals[index]
    cdef Server *server = &state.servers[terminal.server]
    if server.gate == GATE_DEAD:
        return terminal.sim != NONE_INDEX
    return (
        terminal.sim != NONE_INDEX and terminal.epoch < server.session_epoch
        and state.terminals_cold[index].session != server.session
    )


cdef void _release_gone(State *state, uint32_t index, uint64_t now_ms) noexcept nogil:
    cdef Terminal *terminal = &state.terminals[index]
    cdef EndedLease last
    event(
        state, EVENT_DIFFERENCE, index, terminal.server, NONE_INDEX, NO_LEASE, 0, sim_iccid(state, terminal.sim))
    lease_release(state, index, now_ms)
    last = lease_last(state, index)
    lease_unreported(state, &last, now_ms)


cdef void _unreported(State *state, const EndedLease *lease, uint32_t sim, uint64_t now_ms) noexcept nogil:
    """If that is what the SIM, which comes free, was used under."""
    if lease.epoch and lease.sim == sim:
        lease_unreported(state, lease, now_ms)


cdef void _reconcile_order(State *state, const Sweep *sweep, uint32_t index, uint64_t now_ms) noexcept nogil:
    """What an older session left outstanding and the hello did not settle."""
    cdef Order *order = &state.orders[index]
    cdef Server *server = &state.servers[order.server]
    cdef uint32_t terminal = order.terminal
    cdef uint32_t source = order.source
    cdef uint32_t target = order.target
    cdef bint orphaned = order.orphaned
    cdef EndedLease on_source, on_target
    if server.sweep != sweep.id:
        return
    if server.gate == GATE_DEAD and order.state != ORDER_UNUSED and order.kind != SWITCH:
        # Nobody will let go, and nobody holds it.
        on_source = lease_over(state, terminal, order.epoch)
        if not state.sims[source].held or state.sims[source].next != index:
            source = NONE_INDEX
        order_abandon(state, index, now_ms)
        _unreported(state, &on_source, source, now_ms)
        return
    if not order_outstanding(state, index) or order.session == server.session:
        return
    if order.kind != SWITCH:
        order_requeue(state, index, now_ms)  # letting go twice does no harm
        return
    # Whether it was carried out, nobody will say: the terminal may have used either SIM.
    if orphaned:
        on_source = lease_over(state, terminal, order.source_epoch)
        on_target = lease_over(state, terminal, order.epoch)
    else:
        on_target = order_target_lease(state, index)
        lease_remember(state, &on_target)
    order_abandon(state, index, now_ms)
    _unreported(state, &on_target, target, now_ms)
    if orphaned:
        _unreported(state, &on_source, source, now_ms)
    # An orphan's terminal has its lease elsewhere or none. Otherwise, unless the hello named it, the lease is over.
    if state.terminals[terminal].server == order.server and _gone(state, terminal):
        _release_gone(state, terminal, now_ms)


cdef void _reconcile_lease(State *state, const Sweep *sweep, uint32_t index, uint64_t now_ms) noexcept nogil:
    if state.servers[state.terminals[index].server].sweep == sweep.id and _gone(state, index):
        _release_gone(state, index, now_ms)


cdef bint _step(State *state, Sweep *sweep, uint64_t now_ms) noexcept nogil:
    """One item. False: it could not be done yet, and the sweep stays where it is."""
    cdef uint32_t index = <uint32_t> sweep.cursor
    cdef Job *job
    cdef Order *order
    if sweep.kind == SWEEP_JOB_SELECT:
        job = job_find(state, <uint32_t> sweep.argument)
        if job == NULL or job.state == JOB_CANCELLED:
            sweep.cursor = sweep.end
            return True
        if not _select(state, sweep, job, index, now_ms):
            return False
    elif sweep.kind == SWEEP_AUTOMATIC:
        if state.sims[index].occupancy == ASSIGNED and state.sims[index].health != HEALTHY:
            automatic_swap(state, index, now_ms)
    elif sweep.kind == SWEEP_JOB_CANCEL:
        order = &state.orders[index]
        if order.job == sweep.argument and order.state != ORDER_UNUSED and not order_outstanding(state, index):
            order_drop(state, index, JOB_OVER, now_ms)
    elif sweep.kind == SWEEP_JOB_RESUME:
        if state.orders[index].job == sweep.argument:
            order_unpark(state, index)
    elif sweep.kind == SWEEP_LIMITS:
        lot_limits(state, index, sweep.id, now_ms)
    elif sweep.kind == SWEEP_SUBSCRIBERS:
        limit_walked(state, sweep, now_ms)
    elif sweep.cursor < sweep.argument:
        _reconcile_order(state, sweep, index, now_ms)
    else:
        _reconcile_lease(state, sweep, <uint32_t> (sweep.cursor - sweep.argument), now_ms)
    sweep.cursor += 1
    return True


cdef void _finish(State *state, Sweep *sweep, uint64_t now_ms) noexcept nogil:
    cdef Job *job
    cdef uint32_t index
    if sweep.kind == SWEEP_JOB_SELECT:
        job = job_find(state, <uint32_t> sweep.argument)
        if job != NULL:
            job.selecting = 0
            if job.state == JOB_SELECTING:
                job_enter(state, job, JOB_RUNNING, WHY_NONE)
            job_settle(state, job.id, now_ms)
    elif sweep.kind == SWEEP_JOB_CHECK:
        job = job_find(state, <uint32_t> sweep.argument)
        if job != NULL and job.state == JOB_CHECKING:
            job_checked(state, job, now_ms)
    elif sweep.kind == SWEEP_LIMITS:
        lots_walked(state, sweep.id, now_ms)
    elif sweep.kind == SWEEP_SUBSCRIBERS:
        limits_walked(state)
    elif sweep.kind == SWEEP_RECONCILE:
        for index in range(state.header.servers_count):
            if state.servers[index].sweep == sweep.id:
                state.servers[index].sweep = 0
                state.servers[index].reconciling = 0
                server_heard(state, index, now_ms)


cdef bint sweeps_wait(State *state) noexcept nogil:
    """Whether nothing in the ring can go on: only selections, and no order to spare for them."""
    cdef uint64_t size = state.regions[<int> REGION_SWEEPS].count
    cdef uint64_t position
    if order_spare(state):
        return False
    for position in range(state.header.sweeps_count):
        if state.sweeps[(state.header.sweeps_head + position) % size].kind != SWEEP_JOB_SELECT:
            return False
    return True


cdef void sweeps_run(State *state, uint64_t now_ms, int *work) noexcept nogil:
    """Goes on with the first sweep; a sweep that cannot go on lets the next one work."""
    cdef uint64_t size = state.regions[<int> REGION_SWEEPS].count
    cdef Sweep *sweep
    cdef Sweep first
    cdef Job *job
    cdef uint32_t tries = state.header.sweeps_count
    while state.header.sweeps_count and work[0] > 0 and tries > 0:
        sweep = &state.sweeps[state.header.sweeps_head]
        if sweep.kind == SWEEP_JOB_CHECK:
            job = job_find(state, <uint32_t> sweep.argument)
            if job == NULL or job.state != JOB_CHECKING:
                sweep.cursor = sweep.end
            else:
                check_run(state, sweep, job, now_ms, work)
        while sweep.cursor < sweep.end and work[0] > 0:
            work[0] -= 1
            if not _step(state, sweep, now_ms):
                break
        if sweep.cursor >= sweep.end:
            first = sweep[0]
            state.header.sweeps_head = <uint32_t> ((state.header.sweeps_head + 1) % size)
            state.header.sweeps_count -= 1
            _finish(state, &first, now_ms)
        elif work[0] > 0:
            first = sweep[0]
            state.header.sweeps_head = <uint32_t> ((state.header.sweeps_head + 1) % size)
            state.sweeps[(state.header.sweeps_head + state.header.sweeps_count - 1) % size] = first
            tries -= 1

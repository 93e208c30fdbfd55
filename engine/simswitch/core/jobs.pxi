# Swap jobs: many swaps from one decision.
#
#   by a filter            checking ---------------> awaiting approval -> selecting -> running <-> paused
#   by a list   selecting -> checking -> running     (larger jobs)                        \___________|
#                               |  |                                                         |        |
#                               |  '-> refused, paused: somebody would go without,         done   cancelled
#                               |       or it would be late                                  done: nothing left to select,
#                               '----> checked: a dry run                                    send or settle
#
# A job that is paused, waits for approval or is not begun has its orders parked. Its canary and its error budget pause it, and
# its quiet hours do; these end by themselves.
#
# A job's id grows for ever and its slot is id % jobs_max: a slot is taken again once its job has finished.


ctypedef struct JobColumns:
    const uint8_t *reason
    const uint64_t *deadline_ms
    const uint64_t *quiet_from_ms
    const uint64_t *quiet_until_ms
    const uint64_t *announce_ahead_ms
    const uint64_t *headroom_below_bytes
    const uint32_t *health_mask
    const uint32_t *rate_per_minute
    const uint32_t *canary_count
    const uint32_t *budget_ppm
    const uint16_t *lot
    const uint16_t *supplier
    const uint16_t *carrier
    const uint16_t *sim_class
    const uint16_t *bank
    const uint16_t *server
    const uint8_t *priority
    const uint8_t *selecting
    const uint8_t *on_infeasible
    const uint8_t *dry_run


cdef JobColumns _job_columns(const Run *run) noexcept nogil:
    cdef JobColumns columns
    cdef uint64_t count = run.count
    columns.reason = run.columns
    columns.deadline_ms = <const uint64_t *> (columns.reason + NAME_BYTES * count)
    columns.quiet_from_ms = columns.deadline_ms + count
    columns.quiet_until_ms = columns.quiet_from_ms + count
    columns.announce_ahead_ms = columns.quiet_until_ms + count
    columns.headroom_below_bytes = columns.announce_ahead_ms + count
    columns.health_mask = <const uint32_t *> (columns.headroom_below_bytes + count)
    columns.rate_per_minute = columns.health_mask + count
    columns.canary_count = columns.rate_per_minute + count
    columns.budget_ppm = columns.canary_count + count
    columns.lot = <const uint16_t *> (columns.budget_ppm + count)
    columns.supplier = columns.lot + count
    columns.carrier = columns.supplier + count
    columns.sim_class = columns.carrier + count
    columns.bank = columns.sim_class + count
    columns.server = columns.bank + count
    columns.priority = <const uint8_t *> (columns.server + count)
    columns.selecting = columns.priority + count
    columns.on_infeasible = columns.selecting + count
    columns.dry_run = columns.on_infeasible + count
    return columns


cdef bint _is_or_every(State *state, uint16_t index, int kind) noexcept nogil:
    return index == NONE_SHORT or _is(state, index, kind)


cdef int _job_status(State *state, const JobColumns *asked, uint64_t item, uint64_t now_ms) noexcept nogil:
    """Whether such a job makes sense."""
    cdef uint64_t quiet_from_ms = asked.quiet_from_ms[item], quiet_until_ms = asked.quiet_until_ms[item]
    if (
        asked.priority[item] < 1 or asked.priority[item] >= PRIORITIES or asked.selecting[item] > 1
        or asked.health_mask[item] >= 1 << 10 or asked.dry_run[item] > 1
        or asked.on_infeasible[item] < INFEASIBLE_REFUSE or asked.on_infeasible[item] > INFEASIBLE_PAUSE
        or asked.budget_ppm[item] > 1_000_000 or asked.headroom_below_bytes[item] >= <uint64_t> BYTES_MAX
        or asked.announce_ahead_ms[item] > <uint64_t> DAY_MS or asked.rate_per_minute[item] > 60_000_000
        or asked.deadline_ms[item] >= <uint64_t> 1 << 52
    ):
        return INVALID_ARGUMENT
    if (quiet_from_ms or quiet_until_ms) and not (
        quiet_from_ms < quiet_until_ms < quiet_from_ms + <uint64_t> DAY_MS and now_ms < quiet_until_ms <= now_ms + 2 * <uint64_t> DAY_MS
    ):
        return INVALID_ARGUMENT
    if asked.server[item] != NONE_SHORT and asked.server[item] >= state.header.servers_count:
        return UNKNOWN_ACCESS_SERVER
    if not _is_or_every(state, asked.lot[item], LOT):
        return UNKNOWN_LOT
    if not _is_or_every(state, asked.bank[item], BANK):
        return UNKNOWN_BANK
    if (
        not _is_or_every(state, asked.supplier[item], SUPPLIER) or not _is_or_every(state, asked.carrier[item], CARRIER)
        or not _is_or_every(state, asked.sim_class[item], SIM_CLASS)
    ):
        return UNKNOWN_ENTITY
    return OK


cdef void apply_job_create(State *state, const Run *run) noexcept nogil:
    cdef JobColumns asked = _job_columns(run)
    cdef uint32_t *ids = <uint32_t *> run.outcomes
    cdef uint8_t *status = <uint8_t *> (ids + run.count)
    cdef uint64_t item
    cdef uint32_t id, tries
    cdef Job *job = NULL
    for item in range(run.count):
        ids[item] = NONE_INDEX
        status[item] = <uint8_t> _job_status(state, &asked, item, run.now_ms)
        if status[item] != OK:
            continue
        # The next id whose slot is not taken by a job that goes on.
        id = state.header.jobs_count
        for tries in range(state.header.jobs_max):
            job = &state.jobs[id % state.header.jobs_max]
            if job.state == JOB_UNUSED or job.finished_ms:
                break
            id += 1
        else:
            status[item] = JOBS_FULL
            continue
        if state.header.sweeps_count == state.regions[<int> REGION_SWEEPS].count:
            status[item] = SWEEPS_FULL
            continue
        state.header.jobs_count = id + 1
        memset(job, 0, sizeof(Job))
        job.created_ms = run.now_ms
        job.actor = run.actor
        job.approver = NONE_INDEX
        job.deadline_ms = asked.deadline_ms[item]
        job.quiet_from_ms = asked.quiet_from_ms[item]
        job.quiet_until_ms = asked.quiet_until_ms[item]
        job.announce_ahead_ms = asked.announce_ahead_ms[item]
        job.headroom_below_bytes = asked.headroom_below_bytes[item]
        job.health_mask = asked.health_mask[item]
        job.rate_per_minute = asked.rate_per_minute[item]
        job.canary_count = asked.canary_count[item]
        job.budget_ppm = asked.budget_ppm[item]
        job.lot = asked.lot[item]
        job.supplier = asked.supplier[item]
        job.carrier = asked.carrier[item]
        job.sim_class = asked.sim_class[item]
        job.bank = asked.bank[item]
        job.server = asked.server[item]
        job.priority = asked.priority[item]
        job.on_infeasible = asked.on_infeasible[item]
        job.dry_run = asked.dry_run[item]
        memcpy(job.reason, asked.reason + NAME_BYTES * item, NAME_BYTES)
        job.id = id
        job.listed = not asked.selecting[item]
        job.selecting = job.listed
        if job.listed:
            job_enter(state, job, JOB_SELECTING, WHY_NONE)
        else:
            check_begin(state, job)
            job_enter(state, job, JOB_CHECKING, WHY_NONE)
        ids[item] = id
        status[item] = OK


cdef void apply_job_add(State *state, const Run *run) noexcept nogil:
    cdef const uint64_t *keys = <const uint64_t *> run.columns
    cdef uint8_t *status = run.outcomes
    cdef Job *job = job_find(state, <uint32_t> run.argument) if run.argument < NONE_INDEX else NULL
    cdef uint32_t item, index
    cdef int what
    cdef Finder finder
    finder_begin(&finder, state, keys, run.count, TOUCH_COLD)
    for item in range(run.count):
        index = finder_next(&finder, item)
        if job == NULL:
            status[item] = UNKNOWN_JOB
            continue
        if job.selecting != 1:
            status[item] = WRONG_STATE
            continue
        if index == NONE_INDEX:
            status[item] = UNKNOWN_TERMINAL
            continue
        what = OK
        job_add_terminal(state, job.id, index, run.now_ms, &what)
        status[item] = <uint8_t> what


cdef int _pause(State *state, Job *job) noexcept nogil:
    if job.state == JOB_PAUSED:
        # Whatever paused it: from now on only an operator lets it go on.
        if job.why == WHY_OPERATOR:
            return SAME
        job.why = WHY_OPERATOR
        return OK
    if job.state != JOB_RUNNING and job.state != JOB_SELECTING:
        return WRONG_STATE
    job_enter(state, job, JOB_PAUSED, WHY_OPERATOR)
    return OK


cdef int _resume(State *state, Job *job, uint64_t now_ms) noexcept nogil:
    if job.state == JOB_RUNNING:
        return SAME
    if job.state == JOB_SELECTING or (job.state == JOB_PAUSED and job.selecting == 1):
        if job.selecting == 2:
            return SAME  # a filter's sweep says itself when it is through
        # The list that JOB_ADD gave is complete.
        if not check_begin(state, job):
            return SWEEPS_FULL
        job.selecting = 0
        job_enter(state, job, JOB_CHECKING, WHY_NONE)
        return OK
    if job.state != JOB_PAUSED:
        return WRONG_STATE
    if job.begun and job.on_infeasible == INFEASIBLE_REFUSE and job_late(job, now_ms):
        job.why = WHY_LATE  # it stays as it is, and says so
        return OK
    if not job.begun:
        return job_begin(state, job, now_ms)
    if not sweep_resume(state, job.id):
        return SWEEPS_FULL
    job.settled_lately = 0
    job.failed_lately = 0
    job_enter(state, job, JOB_SELECTING if job.selecting else JOB_RUNNING, WHY_NONE)
    jobs_due(state, now_ms)
    return OK


cdef int _change(State *state, Job *job, const Run *run) noexcept nogil:
    if job_ended(job):
        return SAME if run.kind == JOB_CANCEL and job.state == JOB_CANCELLED else WRONG_STATE
    if run.kind == JOB_PAUSE:
        return _pause(state, job)
    if run.kind == JOB_RESUME:
        return _resume(state, job, run.now_ms)
    if run.kind == JOB_APPROVE:
        if job.state != JOB_AWAITING_APPROVAL:
            return WRONG_STATE
        if job.actor == run.actor:
            return SECOND_PERSON
        if state.header.sweeps_count == state.regions[<int> REGION_SWEEPS].count:
            return SWEEPS_FULL
        job.approver = run.actor
        if job_late(job, run.now_ms):
            job_infeasible(state, job, WHY_LATE, run.now_ms)
            return OK
        return job_begin(state, job, run.now_ms)
    if not sweep_add(state, SWEEP_JOB_CANCEL, job.id, state.header.orders_max):
        return SWEEPS_FULL
    job_enter(state, job, JOB_CANCELLED, WHY_OPERATOR)
    job.selecting = 0
    job_settle(state, job.id, run.now_ms)
    return OK


cdef void apply_job_change(State *state, const Run *run) noexcept nogil:
    """Pause, resume, approve and cancel. What is outstanding finishes in any case."""
    cdef Job *job = job_find(state, <uint32_t> run.argument) if run.argument < NONE_INDEX else NULL
    run.outcomes[0] = <uint8_t> (UNKNOWN_JOB if job == NULL else _change(state, job, run))


cdef void apply_given_up_resolve(State *state, const Run *run) noexcept nogil:
    """Takes entries off the operator's work list."""
    cdef const uint64_t *numbers = <const uint64_t *> run.columns
    cdef uint32_t item
    cdef GivenUp *entry
    for item in range(run.count):
        entry = &state.given_up[numbers[item] % GIVEN_UP_MAX]
        if not numbers[item] or entry.number != numbers[item]:
            run.outcomes[item] = UNKNOWN_ORDER
        else:
            run.outcomes[item] = SAME if entry.resolved else OK
            entry.resolved = 1


cdef void apply_swaps_stop(State *state, const Run *run) noexcept nogil:
    """No switch is sent from now on until lifted; stops and revokes go on, since they free SIMs."""
    cdef uint32_t stop = 0 if run.kind == SWAPS_LIFT else 1
    run.outcomes[0] = SAME if state.header.swaps_stopped == stop else OK
    state.header.swaps_stopped = stop
    if not stop:
        servers_wake(state)

# Swap jobs: many swaps from one decision.
#
#   selecting -> running <-> paused          selecting: terminals are being added (a filter's sweep, or JOB_ADD until
#        \__________|__________/             JOB_RESUME says that the list is complete); they are swapped meanwhile
#             |            |
#         cancelled      done                done: nothing left to select, send or settle
#
# A job's id grows for ever and its slot is id % jobs_max: a slot is taken again once its job has finished.


cdef void apply_job_create(State *state, const Run *run) noexcept nogil:
    cdef uint64_t count = run.count
    cdef const uint8_t *reasons = run.columns
    cdef const uint32_t *masks = <const uint32_t *> (reasons + NAME_BYTES * count)
    cdef const uint16_t *lots = <const uint16_t *> (masks + count)
    cdef const uint16_t *servers = lots + count
    cdef const uint8_t *priorities = <const uint8_t *> (servers + count)
    cdef const uint8_t *selecting = priorities + count
    cdef uint32_t *ids = <uint32_t *> run.outcomes
    cdef uint8_t *status = <uint8_t *> (ids + count)
    cdef uint64_t item
    cdef uint32_t id, tries
    cdef Job *job = NULL
    for item in range(count):
        ids[item] = NONE_INDEX
        if priorities[item] < 1 or priorities[item] >= PRIORITIES or selecting[item] > 1 or masks[item] >= 1 << 10:
            status[item] = INVALID_ARGUMENT
            continue
        if servers[item] != NONE_SHORT and servers[item] >= state.header.servers_count:
            status[item] = UNKNOWN_ACCESS_SERVER
            continue
        if lots[item] != NONE_SHORT and (
            lots[item] >= state.header.entities_count or state.entities[lots[item]].kind != LOT
        ):
            status[item] = UNKNOWN_LOT
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
        if selecting[item] and not sweep_add(state, SWEEP_JOB_SELECT, id, state.header.sims_count):
            status[item] = SWEEPS_FULL
            continue
        state.header.jobs_count = id + 1
        memset(job, 0, sizeof(Job))
        job.created_ms = run.now_ms
        job.actor = run.actor
        job.selecting = 2 if selecting[item] else 1
        job.health_mask = masks[item]
        job.lot = lots[item]
        job.server = servers[item]
        job.priority = priorities[item]
        memcpy(job.reason, reasons + NAME_BYTES * item, NAME_BYTES)
        job.id = id
        job_enter(state, job, JOB_SELECTING)
        ids[item] = id
        status[item] = OK


cdef void apply_job_add(State *state, const Run *run) noexcept nogil:
    cdef const uint64_t *keys = <const uint64_t *> run.columns
    cdef uint8_t *status = run.outcomes
    cdef Job *job = job_find(state, <uint32_t> run.argument) if run.argument < NONE_INDEX else NULL
    cdef uint32_t item, index
    cdef int what
    for item in range(run.count):
        if job == NULL:
            status[item] = UNKNOWN_JOB
            continue
        if job.selecting != 1:
            status[item] = WRONG_STATE
            continue
        index = terminal_find(state, keys[item])
        if index == NONE_INDEX:
            status[item] = UNKNOWN_TERMINAL
            continue
        what = OK
        job_add_terminal(state, job.id, index, run.now_ms, &what)
        status[item] = <uint8_t> what


cdef int _change(State *state, Job *job, uint32_t kind, uint64_t now_ms) noexcept nogil:
    if job.state == JOB_DONE or job.state == JOB_CANCELLED:
        return SAME if kind == JOB_CANCEL and job.state == JOB_CANCELLED else WRONG_STATE
    if kind == JOB_PAUSE:
        if job.state == JOB_PAUSED:
            return SAME
        job_enter(state, job, JOB_PAUSED)
        return OK
    if kind == JOB_RESUME:
        if job.state == JOB_RUNNING:
            return SAME
        if job.state == JOB_SELECTING:
            # The list that JOB_ADD gave is complete. A filter's sweep says so itself.
            if job.selecting == 2:
                return SAME
            job.selecting = 0
            job_enter(state, job, JOB_RUNNING)
            job_settle(state, job.id, now_ms)
            return OK
        if not sweep_add(state, SWEEP_JOB_RESUME, job.id, state.header.orders_max):
            return SWEEPS_FULL
        job_enter(state, job, JOB_SELECTING if job.selecting else JOB_RUNNING)
        return OK
    if not sweep_add(state, SWEEP_JOB_CANCEL, job.id, state.header.orders_max):
        return SWEEPS_FULL
    job_enter(state, job, JOB_CANCELLED)
    job.selecting = 0
    job_settle(state, job.id, now_ms)
    return OK


cdef void apply_job_change(State *state, const Run *run) noexcept nogil:
    """Pause, resume and cancel. What is outstanding finishes in any case."""
    cdef Job *job = job_find(state, <uint32_t> run.argument) if run.argument < NONE_INDEX else NULL
    run.outcomes[0] = <uint8_t> (UNKNOWN_JOB if job == NULL else _change(state, job, run.kind, run.now_ms))


cdef void apply_swaps_stop(State *state, const Run *run) noexcept nogil:
    """No switch is sent from now on until lifted; stops and revokes go on, since they free SIMs."""
    cdef uint32_t stop = 0 if run.kind == SWAPS_LIFT else 1
    cdef uint32_t index
    run.outcomes[0] = SAME if state.header.swaps_stopped == stop else OK
    state.header.swaps_stopped = stop
    if not stop:
        for index in range(state.header.servers_count):
            server_wake(state, index)

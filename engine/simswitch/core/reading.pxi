# What stands in the state, as Python objects: for lists, reports, screens and tests. Everything here takes the GIL and
# copies; nothing on the way of a command comes through this file.


# How the records look from NumPy; the sizes are those that layout.pyx asserts.
_SIM = np.dtype([
    ("iccid", "<u8"), ("counted_bytes", "<u8"), ("limit_bytes", "<i8"), ("rest_sequence", "<u8"),
    ("cooling", "<u8"), ("terminal", "<u4"), ("next", "<u4"), ("previous", "<u4"), ("hint", "<u4"),
    ("group", "<u2"), ("slot", "<u2"), ("tier", "u1"), ("occupancy", "u1"), ("health", "u1"), ("held", "u1"),
])
_SIM_COLD = np.dtype([
    ("identity", "<u8"), ("offset_cycle_bytes", "<i8"), ("offset_day_bytes", "<i8"), ("health_since_s", "<u4"), ("revoke", "<u4"),
])
_TERMINAL = np.dtype([
    ("key", "<u8"), ("subscriber", "<u8"), ("epoch", "<u8"), ("expires_ms", "<u8"), ("reported_bytes", "<u8"),
    ("counted_bytes", "<u8"), ("sim", "<u4"), ("order", "<u4"), ("reported_s", "<u4"), ("server", "<u2"),
    ("market", "u1"), ("expected_tier", "u1"),
])
_GROUP = np.dtype({
    "names": ["lot", "bank"],
    "formats": ["<u2", "<u2"],
    "offsets": [9780, 9782],
    "itemsize": 9792,
})


cdef bytes _bytes(const void *records, uint64_t item_bytes, uint64_t count):
    return PyBytes_FromStringAndSize(<const char *> records, item_bytes * count)


cdef dict read_header(State *state):
    """Counters, settings and totals by name."""
    cdef Header *header = state.header
    return {
        "sequence": int(header.sequence),
        "now_ms": int(header.now_ms),
        "machine_version": int(header.machine_version),
        "incarnation": int(header.incarnation),
        "frozen": bool(header.frozen),
        "swaps_stopped": bool(header.swaps_stopped),
        "grace_until_ms": int(header.grace_until_ms),
        "unheard_count": int(header.unheard_count),
        "sims_count": int(header.sims_count), "sims_max": int(header.sims_max),
        "terminals_count": int(header.terminals_count), "terminals_max": int(header.terminals_max),
        "orders_used": int(header.orders_used), "orders_max": int(header.orders_max),
        "entities_count": int(header.entities_count), "entities_max": int(header.entities_max),
        "groups_count": int(header.groups_count), "groups_max": int(header.groups_max),
        "classes_count": int(header.classes_count), "classes_max": int(header.classes_max),
        "markets_count": int(header.markets_count), "markets_max": int(header.markets_max),
        "servers_count": int(header.servers_count), "servers_max": int(header.servers_max),
        "jobs_count": int(header.jobs_count), "jobs_max": int(header.jobs_max),
        "sweeps_count": int(header.sweeps_count),
        "counted_bytes": int(header.counted_bytes),
        "impossible_count": int(header.impossible_count),
        "subscribers_count": int(header.subscribers_count),
        "subscribers_missed": int(header.subscribers_missed),
        "limit_for_all": int(header.limit_for_all),
        "limits_count": int(header.limits_count),
        "set_aside_count": int(header.set_aside_count),
        "set_aside_bytes": int(header.set_aside_bytes),
        "corrections_count": int(header.corrections_count),
        "figures_aside_count": int(header.figures_aside_count),
        "unreported_count": int(header.unreported_count),
        "unreported_bytes": int(header.unreported_bytes),
        "events_count": int(header.events_count), "events_leapt": int(header.events_leapt),
        "given_up_lost": int(header.given_up_lost),
        "settings": {setting.name.lower(): int(header.settings[<int> setting]) for setting in layout.Setting},
        "occupancy": {
            occupancy.name.lower(): int(header.occupancy_count[<int> occupancy]) for occupancy in layout.Occupancy},
        "health": {health.name.lower(): int(header.health_count[<int> health]) for health in layout.Health},
    }


cdef list read_entities(State *state, int kind):
    """Entities of a kind (0: all)."""
    cdef uint32_t index
    return [
        _entity(state, index) for index in range(state.header.entities_count)
        if kind == 0 or state.entities[index].kind == kind
    ]


cdef dict _entity(State *state, uint32_t index):
    cdef Entity *entity = &state.entities[index]
    return {
        "index": int(index),
        "kind": int(entity.kind),
        "name": entity.name[:64].rstrip(b"\0").decode(),
        "numbers": [int(entity.numbers[position]) for position in range(16)],
        "document": PyBytes_FromStringAndSize(<char *> entity.document, entity.document_size),
    }


cdef str _name(State *state, uint32_t entity):
    return state.entities[entity].name[:64].rstrip(b"\0").decode()


cdef object find_entity(State *state, int kind, str name):
    """The index of the entity of that kind and name, or None."""
    cdef uint32_t index
    cdef bytes wanted = name.encode()
    for index in range(state.header.entities_count):
        if state.entities[index].kind == kind and state.entities[index].name[:64].rstrip(b"\0") == wanted:
            return int(index)
    return None


cdef dict read_sim(State *state, uint32_t index):
    """One SIM. IndexError: there is none of that index."""
    cdef Sim *sim
    cdef SimCold *cold
    cdef Group *group
    if index >= state.header.sims_count:
        raise IndexError(f"there is no SIM {index}; there are {state.header.sims_count}")
    sim = &state.sims[index]
    cold = &state.sims_cold[index]
    group = &state.groups[sim.group]
    return {
        "index": int(index),
        "iccid": int(sim.iccid),
        "imsi": int(sim_imsi(cold)),
        "lot": int(group.lot), "lot_name": _name(state, group.lot),
        "bank": int(group.bank), "bank_name": _name(state, group.bank),
        "class": int(state.classes[group.sim_class].entity),
        "class_name": _name(state, state.classes[group.sim_class].entity),
        "slot": int(sim.slot),
        "tier": None if sim.tier == TIER_NONE else int(sim.tier),
        "tier_bytes": int(tier_lowest_bytes(sim_tier(sim))),
        "changes_max": int(group.changes_max),
        # By an operator: why else its group may be hidden stands elsewhere.
        "masked": bool(group.masked_itself or state.entities[group.lot].masked or state.entities[group.bank].masked),
        "occupancy": int(sim.occupancy),
        "held": bool(sim.held),
        # None: it is not slowed, or a reset brings it back. 0: not as long as somebody has it.
        "tried_ms": int(_tried_ms(state, index, &state.lots[group.lot])) if sim_is_tried(state, index) else None,
        # It is slowed, and a reset that is known, or under way, puts it on probation.
        "reset_probes": bool(sim_probed_by_reset(state, index)),
        # It is slowed, and nothing brings it back.
        "stays_slowed": bool(sim_stays_slowed(state, index)),
        "trusted": not sim_untrusted(sim),
        "health": int(sim.health),
        "health_since_ms": int(cold.health_since_s) * 1000,
        "headroom_bytes": _limited(sim_headroom_bytes(state, sim)),
        "pooled": bool(group.pool),
        "claimed_bytes": int(pool_claim_bytes(state, sim)),
        "counted_bytes": int(sim.counted_bytes),
        "used_cycle_bytes": int(sim_used_bytes(state, index, WINDOW_CYCLE - 1)),
        "used_day_bytes": int(sim_used_bytes(state, index, WINDOW_DAY - 1)),
        "used_rolling_bytes": int(sim_used_bytes(state, index, WINDOW_ROLLING - 1)),
        # By window: what the carrier's last figure moved, and up to when it counted; 0: none was told.
        "corrections_bytes": _ledger(state, index)[0],
        "carrier_as_of_s": _ledger(state, index)[1],
        # By window: what leases may have used that ended without their last report, and what reports that straddle the figure's instant
        # may have of after it.
        "allowances_bytes": _ledger(state, index)[2],
        "straddling_bytes": _ledger(state, index)[3],
        "cooling_until_ms": int(sim_cooling_until_ms(sim)),
        "changes_today": sim_changes_today(state, sim),
        "terminal": None if sim.terminal == NONE_INDEX else int(state.terminals[sim.terminal].key),
        "terminal_index": None if sim.terminal == NONE_INDEX else int(sim.terminal),
    }


cdef uint64_t _tried_ms(State *state, uint32_t index, const Lot *lot) noexcept nogil:
    """The walk under way comes to it soon, or the next one does, which has an instant: the first of those on which the
    lot is looked at that is a day after its last reset."""
    cdef uint64_t due_ms = 0 if (lot.resetting >> TRYING) & 1 else lot.tried_ms
    cdef int window
    if state.sims[index].occupancy != FREE:
        return 0
    for window in range(WINDOWS):
        while lot.quota_bytes[window] >= 0 and lot.last_reset_ms[window] and 0 < due_ms < lot.last_reset_ms[window] + TRIED_AFTER_MS:
            due_ms += TRIED_AFTER_MS
    return max(sim_tried_ms(state, index), due_ms)


cdef tuple _ledger(State *state, uint32_t index):
    cdef const SimLedger *ledger = &state.sims_ledger[index]
    cdef int window
    if index >= state.header.ledger_end:
        return [0] * WINDOWS, [0] * WINDOWS, [0] * WINDOWS, [0] * WINDOWS
    return (
        [int(ledger.correction_bytes[window]) for window in range(WINDOWS)],
        [int(ledger.as_of_s[window]) for window in range(WINDOWS)],
        [int(ledger.allowance_bytes[window]) for window in range(WINDOWS)],
        [int(ledger.straddling_bytes[window]) for window in range(WINDOWS)],
    )


cdef dict read_terminal(State *state, uint32_t index):
    """One terminal and its lease. IndexError: there is none of that index."""
    cdef Terminal *terminal
    if index >= state.header.terminals_count:
        raise IndexError(f"there is no terminal {index}; there are {state.header.terminals_count}")
    terminal = &state.terminals[index]
    return {
        "index": int(index),
        "key": int(terminal.key),
        "subscriber": int(terminal.subscriber),
        "epoch": int(terminal.epoch),
        "expires_ms": int(terminal.expires_ms),
        "reported_bytes": int(terminal.reported_bytes),
        "counted_bytes": int(terminal.counted_bytes),
        "sim": None if terminal.sim == NONE_INDEX else int(terminal.sim),
        "iccid": None if terminal.sim == NONE_INDEX else int(state.sims[terminal.sim].iccid),
        "order": None if terminal_swap(terminal) == NONE_INDEX else int(terminal.order),
        "awaits_traffic": terminal.order == AWAITS_TRAFFIC,
        "server": int(terminal.server),
        "market": int(state.markets[terminal.market].entity),
        "expected_bytes": int(tier_lowest_bytes(terminal.expected_tier & ~LEASE_ARMED)),
        "swapped_ms": int(state.terminals_cold[index].swapped_ms),
        "swaps_count": int(state.terminals_cold[index].swaps_count),
    }


cdef object read_subscriber(State *state, uint64_t key):
    """What a subscriber has used today and this month; None: nobody of that key is known."""
    cdef const Subscriber *record
    cdef uint64_t stamp = state.header.stamp
    if key == 0:
        return None
    record = subscriber_find(state, key)
    if record.key == 0:
        return None
    stamp = max(stamp, subscriber_stamp(record))
    return {
        "key": int(record.key),
        "year": 1970 + int((stamp >> 5) // 12), "month": int((stamp >> 5) % 12 + 1), "day": int(stamp & 31),
        "day_bytes": int(subscriber_day_bytes(record)) if subscriber_stamp(record) == stamp else 0,
        "month_bytes": int(subscriber_month_bytes(record)) if subscriber_stamp(record) >> 5 == stamp >> 5 else 0,
    }


cdef dict read_subscriber_now(State *state, uint64_t key):
    """What a limit makes of a subscriber at the instant of the last apply; also of one that has used nothing yet."""
    cdef const Subscriber *record = subscriber_find(state, key)
    cdef uint64_t stamp = max(state.header.stamp, subscriber_stamp(record))
    cdef uint64_t month_bytes = subscriber_month_bytes(record) if subscriber_stamp(record) >> 5 == stamp >> 5 else 0
    cdef uint64_t day_bytes = subscriber_day_bytes(record) if subscriber_stamp(record) == stamp else 0
    cdef uint32_t group = subscriber_group(record)
    cdef uint32_t rule = limit_rule(state, group)
    cdef const int64_t *numbers = state.entities[rule].numbers
    cdef Limited limited = Limited(0, False, 0)
    cdef bint is_exempt = exempt(state, key, state.header.now_ms)
    if rule and not is_exempt:
        limited.month = _level(month_bytes, numbers[<int> RULE_MONTH_BYTES], 0) == OVER
        if limited.month or _level(day_bytes, numbers[<int> RULE_DAY_BYTES], 0) == OVER:
            limited.action = <int> numbers[<int> RULE_ACTION]
    return {
        "year": 1970 + int((stamp >> 5) // 12), "month": int((stamp >> 5) % 12 + 1), "day": int(stamp & 31),
        "day_bytes": int(day_bytes),
        "month_bytes": int(month_bytes),
        "group": int(group),
        "rule": int(rule),
        "action": limited.action,
        "ends_ms": int(limit_ends_ms(state, &limited)) if limited.action else 0,
        "exemption": read_exemption(state, key) if is_exempt else None,
    }


cdef object read_exemption(State *state, uint64_t subscriber):
    """The subscriber's exemption, also one that has ended and whose place nobody has taken; or None."""
    cdef uint32_t place = exemption_place(state, subscriber)
    cdef const Exemption *record = &state.exemptions[place]
    if place == state.header.exemptions_count or record.subscriber != subscriber:
        return None
    return {
        "subscriber": int(record.subscriber),
        "since_ms": int(record.since_ms),
        "until_ms": int(record.until_ms),
        "actor": int(record.actor),
        "actor_name": _name(state, record.actor),
        "reason": record.reason[:64].rstrip(b"\0").decode(errors="replace"),
        "holds": state.header.now_ms < record.until_ms,
    }


cdef list read_exemptions(State *state):
    """By subscriber."""
    cdef uint32_t place
    return [read_exemption(state, state.exemptions[place].subscriber) for place in range(state.header.exemptions_count)]


cdef dict read_order(State *state, uint32_t index):
    """One order of the pool. IndexError: there is none of that index."""
    cdef Order *order
    if index >= state.header.orders_max:
        raise IndexError(f"there is no order {index}; there is room for {state.header.orders_max}")
    order = &state.orders[index]
    return {
        "index": int(index),
        "number": int(order.number),
        "kind": int(order.kind),
        "state": int(order.state),
        "epoch": int(order.epoch),
        "terminal": int(order.terminal),
        "source": None if order.source == NONE_INDEX else int(order.source),
        "target": None if order.target == NONE_INDEX else int(order.target),
        "job": None if order.job == NONE_INDEX else int(order.job),
        "server": int(order.server),
        "priority": int(order.priority),
        "attempts": int(order.attempts),
        "orphaned": bool(order.orphaned),
        "ordered_ms": int(order.ordered_ms),
        "deadline_ms": int(order.deadline_ms),
        "not_before_ms": int(order.not_before_ms),
    }


cdef dict read_server(State *state, uint32_t index):
    """One access server: window, gate, why each last changed, queue, load. IndexError: there is none."""
    cdef Server *server
    if index >= state.header.servers_count:
        raise IndexError(f"there is no access server {index}; there are {state.header.servers_count}")
    server = &state.servers[index]
    return {
        "index": int(index),
        "entity": int(server.entity),
        "name": _name(state, server.entity),
        "session": int(session_number(state, server.session)),
        "session_opened_ms": int(server.session_opened_ms),
        "reconciled": bool(server.reconciled),
        "gate": int(server.gate),
        "gate_changed_ms": int(server.gate_changed_ms),
        "gate_until_ms": int(server.gate_until_ms),
        "gate_reason": int(server.gate_reason),
        "paused": int(server.paused),
        "waits_for": int(server.waits_for),
        "back_offs": int(server.back_offs),
        "window": int(server.window),
        "window_reason": int(server.window_reason),
        "window_changed_ms": int(server.window_changed_ms),
        "outstanding": int(server.outstanding),
        "outstanding_max": int(server.outstanding_max),
        "queued_count": int(server.queued_count),
        "confirmed_count": int(server.confirmed_count),
        "ack_us": int(server.ack_us),
        "service_us": int(server.service_us),
        "queue_wait_us": int(server.queue_wait_us),
        "waiting": None if server.waiting == NONE_INDEX else int(server.waiting),
        "allocation_wait_us": None if server.allocation_wait_us == NONE_INDEX else int(server.allocation_wait_us),
        "interval_us": int(server.interval_us),
        "allocations_rate": int(server.allocations_rate),
        "dead_ms": int(server.dead_ms),
        "unheard": int(server.unheard),
        "announced_count": int(server.announced_count),
        "waits_count": int(server.waits_count),
        "booked_until_ms": int(max(server.booked_ms[0], server.booked_ms[1], server.booked_ms[2])),
        "outage_ms": int(server.outage_ms),
    }


cdef dict read_job(State *state, uint32_t job_id):
    """One swap job by its id. IndexError: there is none, or its slot was taken by a later one."""
    cdef Job *job = &state.jobs[job_id % state.header.jobs_max]
    cdef int why
    cdef uint32_t sample
    if job.id != job_id or job.state == JOB_UNUSED:
        raise IndexError(f"there is no job {job_id}")
    return {
        "id": int(job.id),
        "state": int(job.state),
        "selecting": bool(job.selecting),
        "reason": job.reason[:64].rstrip(b"\0").decode(errors="replace"),
        "actor": int(job.actor),
        "actor_name": _name(state, job.actor),
        "priority": int(job.priority),
        "health_mask": int(job.health_mask),
        "lot": None if job.lot == NONE_SHORT else int(job.lot),
        "supplier": None if job.supplier == NONE_SHORT else int(job.supplier),
        "carrier": None if job.carrier == NONE_SHORT else int(job.carrier),
        "sim_class": None if job.sim_class == NONE_SHORT else int(job.sim_class),
        "bank": None if job.bank == NONE_SHORT else int(job.bank),
        "server": None if job.server == NONE_SHORT else int(job.server),
        "headroom_below_bytes": int(job.headroom_below_bytes),
        "listed": bool(job.listed),
        "begun": bool(job.begun),
        "canary": bool(job.canary),
        "why": int(job.why),
        "deadline_ms": int(job.deadline_ms),
        "quiet_from_ms": int(job.quiet_from_ms),
        "quiet_until_ms": int(job.quiet_until_ms),
        "announce_ahead_ms": int(job.announce_ahead_ms),
        "rate_per_minute": int(job.rate_per_minute),
        "canary_count": int(job.canary_count),
        "budget_ppm": int(job.budget_ppm),
        "on_infeasible": int(job.on_infeasible),
        "dry_run": bool(job.dry_run),
        "approver": None if job.approver == NONE_INDEX else int(job.approver),
        "expected_finish_ms": int(job.expected_finish_ms),
        "demand_count": int(job.demand_count),
        "targets_count": int(job.targets_count),
        "headroom_needed_bytes": int(job.headroom_needed_bytes),
        "headroom_found_bytes": int(job.headroom_found_bytes),
        "without": [int(job.without[why]) for why in range(WITHOUTS)],
        "samples": [
            [int(state.check.samples[why][sample]) for sample in range(state.check.samples_count[why])]
            for why in range(WITHOUTS)
        ] if state.check.job == job_id else None,
        "failed_count": int(job.failed_count),
        "announced_count": int(job.announced_count),
        "created_ms": int(job.created_ms),
        "finished_ms": int(job.finished_ms),
        "terminals_count": int(job.terminals_count),
        "size_max": int(job.size_max) if job.bounded else None,
        "beyond_count": int(job.beyond_count),
        "queued_count": int(job.queued_count),
        "outstanding_count": int(job.outstanding_count),
        "confirmed_count": int(job.confirmed_count),
        "refused_count": int(job.refused_count),
        "given_up_count": int(job.given_up_count),
        "skipped_count": int(job.skipped_count),
        "outages_count": int(job.outages_count),
        "outage_ms": int(job.outage_ms),
        "outage_max_ms": int(job.outage_max_ms),
        "unmeasured_count": int(job.unmeasured_count),
    }


cdef tuple find_sims(
    State *state, uint32_t first, uint32_t end, uint32_t most, int lot, int bank, int health, int occupancy, int trusted
):
    """Machine.find_sims; -1: however it is."""
    cdef uint32_t index = first
    cdef uint32_t found = 0
    cdef const Sim *sim
    cdef const Group *group
    indexes = []
    end = min(end, state.header.sims_count)
    while index < end and found < most:
        sim = &state.sims[index]
        group = &state.groups[sim.group]
        if (
            (health < 0 or sim.health == health) and (occupancy < 0 or sim.occupancy == occupancy)
            and (trusted < 0 or (not sim_untrusted(sim)) == trusted) and (lot < 0 or group.lot == lot)
            and (bank < 0 or group.bank == bank)
        ):
            indexes.append(int(index))
            found += 1
        index += 1
    return indexes, int(index)


cdef list read_given_up(State *state):
    """The operator's work list, oldest first."""
    cdef uint64_t turn
    cdef GivenUp *entry
    rows = []
    for turn in range(1, GIVEN_UP_MAX + 1):
        entry = &state.given_up[(state.header.given_up_count + turn) % GIVEN_UP_MAX]
        if entry.number and not entry.resolved:
            rows.append({
                "number": int(entry.number),
                "at_ms": int(entry.at_ms),
                "terminal": int(entry.terminal),
                "subscriber": int(entry.subscriber),
                "job": None if entry.job == NONE_INDEX else int(entry.job),
                "attempts": int(entry.attempts),
                "target": sim_iccid(state, entry.target - 1) if entry.target else 0,
                "server": int(entry.server),
                "why": int(entry.why),
            })
    return rows


cdef list read_breakers(State *state):
    """The breakers that are not closed, and those that counted a failure lately."""
    cdef uint32_t index
    cdef const Breaker *breaker
    rows = []
    for index in range(state.header.entities_count):
        breaker = &state.breakers[index]
        if breaker.state != BREAKER_CLOSED or breaker.failures:
            rows.append({
                "entity": int(index),
                "kind": int(state.entities[index].kind),
                "name": _name(state, index),
                "state": int(breaker.state),
                "failures": int(breaker.failures),
                "successes": int(breaker.successes),
                "changed_ms": int(breaker.changed_ms),
                "retry_ms": int(breaker.retry_ms),
                "opens": int(breaker.opens),
            })
    return rows


cdef list read_groups(State *state):
    """Counts of SIMs and of free healthy ones by class, lot and bank."""
    cdef uint32_t index
    cdef Group *group
    rows = []
    for index in range(state.header.groups_count):
        group = &state.groups[index]
        rows.append({
            "index": int(index),
            "class": int(state.classes[group.sim_class].entity),
            "lot": int(group.lot),
            "bank": int(group.bank),
            "masked": bool(group.masked),
            "sims_count": int(group.sims_count),
            "free_count": int(group.free_count),
        })
    return rows


cdef dict read_lot(State *state, uint32_t entity):
    """The caps of a lot; each list has an entry a window, in the order of Window. None: no cap."""
    cdef const Lot *lot = &state.lots[entity]
    cdef int window
    cdef bint capped
    if entity >= state.header.entities_count or state.entities[entity].kind != LOT:
        raise IndexError(f"entity {entity} is no lot")
    capped = lot.pooled and lot.pool_limit_bytes != NO_LIMIT
    return {
        # By window: its SIMs share the quota; and of the pool: what was used of it, what its carrier said last of it, what it said of its SIMs beyond that, and
        # how much more both are than we had (both 0: nothing that holds), what may have been used after that instant, the instant, Unix seconds; what
        # was counted on it ever, what is left until its nearest cap (None: there is none), below how much left it is low and
        # exhausted, what leases may still use of that, and its Health.
        "pooled": [lot_pools(lot, window) for window in range(WINDOWS)],
        "pool_used_bytes": [int(pool_used_bytes(lot, window)) if lot_pools(lot, window) else 0 for window in range(WINDOWS)],
        "pool_carrier_bytes": [max(int(lot.pool_carrier_bytes[window]), 0) for window in range(WINDOWS)],
        "pool_raised_bytes": [int(lot.pool_raised_bytes[window]) for window in range(WINDOWS)],
        "pool_correction_bytes": [int(lot.pool_correction_bytes[window]) for window in range(WINDOWS)],
        "pool_straddling_bytes": [int(lot.pool_straddling_bytes[window]) for window in range(WINDOWS)],
        "pool_as_of_s": [int(lot.pool_as_of_s[window]) if pool_figured(lot, window) else 0 for window in range(WINDOWS)],
        "pool_counted_bytes": int(lot.pool_counted_bytes),
        "pool_room_bytes": int(pool_room_bytes(lot)) if lot.pooled else None,
        "pool_left_bytes": _limited(pool_left_bytes(lot)) if lot.pooled else None,
        "pool_low_left_bytes": int(lot.pool_limit_bytes - lot.pool_low_bytes) if capped else None,
        "pool_exhausted_left_bytes": int(lot.pool_limit_bytes - lot.pool_exhausted_bytes) if capped else None,
        "pool_claimed_bytes": int(lot.pool_claimed_bytes),
        "pool_health": int(lot.pool_health) or int(HEALTHY),
        "rolling_days": int(lot.rolling_days),
        "quota_bytes": [_quota(lot.quota_bytes[window]) for window in range(WINDOWS)],
        "basis": [int(lot.basis[window]) for window in range(WINDOWS)],
        "since_ms": [int(lot.since_ms[window]) for window in range(WINDOWS)],
        "planned_bytes": [_quota(lot.planned_bytes[window]) for window in range(WINDOWS)],
        "planned_basis": [int(lot.planned_basis[window]) for window in range(WINDOWS)],
        "before_bytes": [_quota(lot.before_bytes[window]) for window in range(WINDOWS)],
        "before_basis": [int(lot.before_basis[window]) for window in range(WINDOWS)],
        "before_since_ms": [int(lot.before_since_ms[window]) for window in range(WINDOWS)],
        "waiting_bytes": [_quota(lot.waiting_bytes[window]) for window in range(WINDOWS)],
        "waiting_basis": [int(lot.waiting_basis[window]) for window in range(WINDOWS)],
        "waiting_ms": [int(lot.waiting_ms[window]) for window in range(WINDOWS)],
        "reset_ms": [int(lot.reset_ms[window]) for window in range(WINDOWS)],
        "last_reset_ms": [int(lot.last_reset_ms[window]) for window in range(WINDOWS)],
        "spread_ms": [int(lot.spread_ms[window]) for window in range(WINDOWS)],
        # Whether it may have what was used before it began, since the clock was frozen then.
        "held_over": [bool((lot.held_over >> window) & 1) for window in range(WINDOWS)],
        # Of the last reset that began: when it did, and when it had come to all of its SIMs; 0: it is under way.
        "begun_ms": [int(lot.begun_ms[window]) for window in range(WINDOWS)],
        "ended_ms": [
            0 if (lot.resetting >> window) & 1 else int(lot.ended_ms[window] or lot.begun_ms[window] + lot.begun_spread_ms[window])
            for window in range(WINDOWS)
        ],
        "resetting": [bool((lot.resetting >> window) & 1) for window in range(WINDOWS)],
        # SIMs that are throttled; when the walk begins, or did, that tries those of its slowed SIMs that nobody has; 0: none is, or resets bring them back, or nothing does.
        "slowed_count": int(lot.slowed_count),
        "tried_ms": int(lot.tried_ms) if lot_tries(state, entity, state.header.now_ms) else 0,
        "stays_slowed": bool(lot_stays_slowed(state, entity, state.header.now_ms)),
        "validity": int(lot.validity),
    }


cdef tuple read_throttled_holders(State *state):
    """Terminals that hold a throttled SIM, their subscribers and access servers, as NumPy arrays. A walk over the SIMs,
    which ends with the last throttled one."""
    cdef uint64_t left = state.header.health_count[<int> THROTTLED]
    terminals = np.zeros(left, np.uint64)
    subscribers = np.zeros(left, np.uint64)
    servers = np.zeros(left, np.uint16)
    cdef uint64_t[::1] terminal_column = terminals
    cdef uint64_t[::1] subscriber_column = subscribers
    cdef uint16_t[::1] server_column = servers
    cdef uint64_t found = 0
    cdef uint64_t index
    cdef const Sim *sim
    cdef const Terminal *terminal
    for index in range(state.header.sims_count):
        if left == 0:
            break
        sim = &state.sims[index]
        if sim.health != THROTTLED:
            continue
        left -= 1
        if sim.occupancy == ASSIGNED:
            terminal = &state.terminals[sim.terminal]
            terminal_column[found] = terminal.key
            subscriber_column[found] = terminal.subscriber
            server_column[found] = terminal.server
            found += 1
    return terminals[:found], subscribers[:found], servers[:found]


cdef dict read_lots_pool(State *state):
    """What stands in each lot, as NumPy arrays by its entity: SIMs by health and by occupancy, those without a cap, the
    headroom of the others while they are healthy or low (of a pool, what it has left, once), what was used in this cycle on those that are healthy, low or
    exhausted, those on probation, and all that was ever counted. A walk over the SIMs."""
    cdef uint64_t count = state.header.entities_count
    probation = np.zeros(count, np.uint64)
    cdef uint64_t[::1] probation_column = probation
    healths = np.zeros((count, 10), np.uint64)
    occupancies = np.zeros((count, 8), np.uint64)
    unlimited = np.zeros(count, np.uint64)
    headroom = np.zeros(count, np.uint64)
    cycle = np.zeros(count, np.int64)
    counted = np.zeros(count, np.uint64)
    cdef int64_t[::1] cycle_column = cycle
    cdef uint64_t[:, ::1] health_rows = healths
    cdef uint64_t[:, ::1] occupancy_rows = occupancies
    cdef uint64_t[::1] unlimited_column = unlimited
    cdef uint64_t[::1] headroom_column = headroom
    cdef uint64_t[::1] counted_column = counted
    cdef uint64_t index
    cdef uint16_t lot
    cdef int64_t left
    cdef const Sim *sim
    for index in range(state.header.sims_count):
        sim = &state.sims[index]
        lot = state.groups[sim.group].lot
        health_rows[lot, sim.health] += 1
        occupancy_rows[lot, sim.occupancy] += 1
        probation_column[lot] += sim_untrusted(sim)
        counted_column[lot] += sim.counted_bytes
        if sim.health == HEALTHY or sim.health == LOW or sim.health == EXHAUSTED:
            cycle_column[lot] += sim_used_bytes(state, <uint32_t> index, WINDOW_CYCLE - 1)
        if sim.health != HEALTHY and sim.health != LOW:
            continue
        if sim.limit_bytes == 0x7FFFFFFFFFFFFFFF:
            unlimited_column[lot] += 1
        elif sim.limit_bytes > <int64_t> sim.counted_bytes:
            headroom_column[lot] += <uint64_t> sim.limit_bytes - sim.counted_bytes
    for lot in range(count):
        left = state.lots[lot].pool_limit_bytes - <int64_t> state.lots[lot].pool_counted_bytes
        if state.lots[lot].pooled and state.lots[lot].pool_limit_bytes != NO_LIMIT:
            if unlimited_column[lot] or headroom_column[lot] > <uint64_t> max(left, <int64_t> 0):
                headroom_column[lot] = <uint64_t> max(left, <int64_t> 0)
            unlimited_column[lot] = 0
    return {
        "healths": healths, "occupancies": occupancies, "unlimited": unlimited, "headroom_bytes": headroom,
        "used_cycle_bytes": cycle, "counted_bytes": counted, "probation": probation,
    }


cdef tuple read_markets_pool(State *state):
    """Terminals that were last in each market, and those of them with a lease, as NumPy arrays by the market's entity. A
    walk over the terminals."""
    terminals = np.zeros(state.header.entities_count, np.uint64)
    leased = np.zeros(state.header.entities_count, np.uint64)
    cdef uint64_t[::1] terminal_column = terminals
    cdef uint64_t[::1] leased_column = leased
    cdef uint64_t index
    cdef uint32_t market
    for index in range(state.header.terminals_count):
        market = state.markets[state.terminals[index].market].entity
        terminal_column[market] += 1
        if state.terminals[index].sim != NONE_INDEX:
            leased_column[market] += 1
    return terminals, leased


cdef tuple read_use_places(State *state, const uint64_t[::1] keys, const uint32_t[::1] sims):
    """In which market each of these terminals was last (0: it is gone) and of which lot each of these SIMs is, by entity, as
    NumPy arrays. IndexError: there is no SIM of an index."""
    markets = np.zeros(keys.shape[0], np.uint32)
    lots = np.zeros(sims.shape[0], np.uint32)
    cdef uint32_t[::1] market = markets
    cdef uint32_t[::1] lot = lots
    cdef Py_ssize_t item
    cdef uint32_t index
    for item in range(keys.shape[0]):
        index = terminal_find(state, keys[item])
        if index != NONE_INDEX:
            market[item] = state.markets[state.terminals[index].market].entity
    for item in range(sims.shape[0]):
        if sims[item] >= state.header.sims_count:
            raise IndexError(f"there is no SIM {sims[item]}; there are {state.header.sims_count}")
        lot[item] = state.groups[state.sims[sims[item]].group].lot
    return markets, lots


cdef list read_markets(State *state):
    cdef uint32_t index
    return [
        {
            "entity": int(state.markets[index].entity),
            "expected_bytes": int(expected_bytes(state, <int> index, 0)),
            "learned_bytes": int(state.markets[index].learned_bytes) or None,
            "leases_count": int(state.markets[index].uses_weight // LEASE_WEIGHT),
        }
        for index in range(state.header.markets_count)
    ]


cdef object _limited(int64_t headroom):
    return None if headroom == NO_LIMIT else int(headroom)


cdef dict read_totals(State *state):
    """Sums over access servers, jobs, lots, breakers and markets, made without an object for each: for figures that are asked for
    often. SIMs and terminals are not looked at, so it takes as long with ten million of them. Counts by the number of a
    gate, a job's or a breaker's state; SIMs that are exhausted since their lots are not valid, by Validity; of each market the SIMs that it could be given now, and since when it is short."""
    cdef uint32_t index
    cdef int place
    cdef uint64_t gates[8]
    cdef uint64_t jobs[16]
    cdef uint64_t breakers[4]
    cdef uint64_t not_valid[4]
    cdef uint64_t sessions = 0, paused = 0, window = 0, outstanding = 0, queued = 0, announced = 0, confirmed = 0, waits = 0
    cdef uint64_t selectable
    cdef const Server *server
    cdef const Market *market
    memset(gates, 0, sizeof(gates))
    memset(jobs, 0, sizeof(jobs))
    memset(breakers, 0, sizeof(breakers))
    memset(not_valid, 0, sizeof(not_valid))
    for index in range(state.header.servers_count):
        server = &state.servers[index]
        gates[server.gate & 7] += 1
        sessions += server.session != 0
        paused += server.paused
        window += server.window
        outstanding += server.outstanding
        queued += server.queued_count
        announced += server.announced_count
        confirmed += server.confirmed_count
        waits += server.waits_count
    for index in range(min(state.header.jobs_count, state.header.jobs_max)):
        jobs[state.jobs[index].state & 15] += 1
    for index in range(state.header.entities_count):
        breakers[state.breakers[index].state & 3] += 1
        if state.lots[index].validity != VALID:
            not_valid[state.lots[index].validity & 3] += state.lots[index].exhausted_count
    markets = []
    for index in range(state.header.markets_count):
        market = &state.markets[index]
        selectable = 0
        for place in range(<int> market.classes_count):
            selectable += state.classes[market.classes[place]].free_count
        markets.append((_name(state, market.entity), int(selectable), int(market.short_since_ms)))
    return {
        "gates": [int(gates[place]) for place in range(8)],
        "jobs": [int(jobs[place]) for place in range(16)],
        "breakers": [int(breakers[place]) for place in range(4)],
        "not_valid": [int(not_valid[place]) for place in range(4)],
        "markets": markets,
        "sessions": int(sessions), "paused": int(paused), "window": int(window), "outstanding": int(outstanding),
        "queued": int(queued), "announced": int(announced), "confirmed": int(confirmed), "waits": int(waits),
    }


cdef object _quota(int64_t quota):
    return None if quota < 0 else int(quota)


cdef dict read_sims_columns(State *state):
    """Copies of the SIM columns as NumPy arrays, one value a SIM."""
    cdef uint64_t count = state.header.sims_count
    cdef uint32_t index
    hot = np.frombuffer(_bytes(state.sims, sizeof(Sim), count), _SIM, count)
    cold = np.frombuffer(_bytes(state.sims_cold, sizeof(SimCold), count), _SIM_COLD, count)
    groups = np.frombuffer(_bytes(state.groups, sizeof(Group), state.header.groups_count), _GROUP, state.header.groups_count)
    terminals = np.frombuffer(_bytes(state.terminals, sizeof(Terminal), state.header.terminals_count), _TERMINAL, state.header.terminals_count)
    columns = {
        name: hot[name].copy()
        for name in ("iccid", "counted_bytes", "slot", "occupancy", "health", "held")
    }
    columns["cooling_until_ms"] = hot["cooling"] & np.uint64(COOLING_MASK)
    limit = hot["limit_bytes"]
    columns["headroom_bytes"] = np.where(
        limit == 0x7FFFFFFFFFFFFFFF, limit, limit - hot["counted_bytes"].astype(np.int64))
    columns["lot"] = groups["lot"][hot["group"]] if count else np.zeros(0, np.uint16)
    for index in range(state.header.entities_count):
        if state.lots[index].pooled:
            own = columns["headroom_bytes"]
            pool = columns["lot"] == index
            own[pool] = np.minimum(own[pool], pool_headroom_bytes(&state.lots[index]))
    columns["imsi"] = cold["identity"] & np.uint64(IMSI_MASK)
    for window in ("cycle", "day"):
        columns[f"used_{window}_bytes"] = hot["counted_bytes"].astype(np.int64) + cold[f"offset_{window}_bytes"]
    rolling = np.frombuffer(_bytes(state.sims_rolling, sizeof(SimRolling), state.header.rolling_end), layout.RECORD_TYPES["sims_rolling"])
    places = np.array([rolling_places(&state.lots[index]) for index in range(state.header.entities_count)], np.uint8)
    counts = np.arange(ROLLING_DAYS) < places[columns["lot"][: len(rolling)], np.newaxis]
    days = np.where(counts, rolling["days"] & np.uint32(DAY_TOLD - 1), 0).sum(axis=1, dtype=np.int64)
    columns["used_rolling_bytes"] = hot["counted_bytes"].astype(np.int64)
    columns["used_rolling_bytes"][: len(rolling)] += rolling["offset_bytes"] + (days << ROLLING_SHIFT)
    ledger = np.frombuffer(_bytes(state.sims_ledger, sizeof(SimLedger), state.header.ledger_end), layout.RECORD_TYPES["sims_ledger"])
    for place, window in enumerate(("cycle", "day", "rolling")):
        allowed = ledger["allowance_bytes"][:, place] + ledger["straddling_bytes"][:, place]
        columns[f"used_{window}_bytes"][: len(ledger)] -= allowed
    columns["bank"] = groups["bank"][hot["group"]] if count else np.zeros(0, np.uint16)
    columns["terminal_index"] = hot["terminal"].copy()
    known = hot["terminal"] != 0xFFFFFFFF
    keys = np.zeros(count, np.uint64)
    if len(terminals):
        keys[known] = terminals["key"][hot["terminal"][known]]
    columns["terminal"] = keys
    return columns


cdef dict read_terminals_columns(State *state):
    """Copies of the terminal columns as NumPy arrays, one value a terminal. sim: 0xFFFFFFFF is none."""
    rows = np.frombuffer(_bytes(state.terminals, sizeof(Terminal), state.header.terminals_count), _TERMINAL, state.header.terminals_count)
    return {name: rows[name].copy() for name in rows.dtype.names}


cdef dict read_sim_uses(State *state, const uint32_t[::1] sims):
    """Of SIMs by their index, as NumPy arrays: ICCID, lot (entity index), health, whether it is trusted, and what each has used in its
    windows; -1: its plan has no such window. IndexError: there is none of an index."""
    cdef Py_ssize_t item, count = sims.shape[0]
    columns = {
        "iccid": np.zeros(count, np.uint64), "lot": np.zeros(count, np.uint16), "health": np.zeros(count, np.uint8),
        "trusted": np.zeros(count, bool), "used_bytes": np.zeros((WINDOWS, count), np.int64)}
    cdef uint64_t[::1] iccid = columns["iccid"]
    cdef uint16_t[::1] lot = columns["lot"]
    cdef uint8_t[::1] health = columns["health"]
    cdef uint8_t[::1] trusted = columns["trusted"].view(np.uint8)
    cdef int64_t[:, ::1] used = columns["used_bytes"]
    cdef const Sim *sim
    cdef int window
    for item in range(count):
        if sims[item] >= state.header.sims_count:
            raise IndexError(f"there is no SIM {sims[item]}; there are {state.header.sims_count}")
        sim = &state.sims[sims[item]]
        iccid[item] = sim.iccid
        lot[item] = state.groups[sim.group].lot
        health[item] = sim.health
        trusted[item] = not sim_untrusted(sim)
        for window in range(WINDOWS):
            used[window, item] = sim_used_bytes(state, sims[item], window)
        if not state.lots[lot[item]].rolling_days:
            used[WINDOW_ROLLING - 1, item] = -1
    return columns


cdef tuple read_sim_counts(State *state, const uint32_t[::1] sims):
    """ICCIDs and lifetime counts of SIMs by their index, as NumPy arrays. IndexError: there is none of an index."""
    iccids = np.zeros(sims.shape[0], np.uint64)
    counts = np.zeros(sims.shape[0], np.uint64)
    cdef uint64_t[::1] iccid = iccids
    cdef uint64_t[::1] counted = counts
    cdef Py_ssize_t item
    for item in range(sims.shape[0]):
        if sims[item] >= state.header.sims_count:
            raise IndexError(f"there is no SIM {sims[item]}; there are {state.header.sims_count}")
        iccid[item] = state.sims[sims[item]].iccid
        counted[item] = state.sims[sims[item]].counted_bytes
    return iccids, counts

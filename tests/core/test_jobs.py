"""What jobs promise: rates, turns, announcements, budgets, idle terminals first, a check that says who goes without."""

from __future__ import annotations

from collections import Counter

import pytest
from simswitch.core import commands, layout

from tests.model.transitions import T, allocate, lease_epoch, list_of, new_world
from tests.model.world import DEADLINE_MS, GIB, LEASE_MS, MIB, STEP_MS, World, empty_world

MINUTE_MS = 60_000
DAY_MS = 1_440 * MINUTE_MS


def world_of(terminals: int, servers: int = 1, sims: int = 0, lease_ms: int = LEASE_MS) -> World:
    """So many terminals with a SIM each, spread over access servers."""
    world = empty_world(sims_max=4_000, terminals_max=2_000, orders_max=4_000)
    world.configure(layout.LEASE_MS, lease_ms)
    world.import_sims(sims or 2 * terminals + 10)
    for server in range(servers):
        world.send(world.allocate(list(range(1 + server, terminals + 1, servers)), server=server))
    return world


def begin(world: World, *terminals: int, **options: int) -> int:
    job, run = list_of(world, *terminals, **options)
    world.send(run)
    while world.machine.job(job)["state"] == layout.JOB_CHECKING:
        world.send(commands.run(layout.TICK))
    return job


def answer(world: World, result: int = layout.ACK_DONE, server: int = 0, since: int = 0) -> int:
    """Acknowledges the orders that came since then; how many."""
    orders = [order for order in world.orders[since:] if order["access_server"] == server]
    for order in orders:
        world.send(world.acknowledge(order["order"], result, server))
    return len(orders)


def test_a_rate_is_a_ceiling_over_all_access_servers() -> None:
    world = world_of(200, servers=2)
    begin(world, *range(1, 201), rate_per_minute=60)
    answered = 0
    for _ in range(MINUTE_MS // STEP_MS):
        world.pass_ms(STEP_MS)
        orders, answered = world.orders[answered:], len(world.orders)
        for order in orders:
            world.send(world.acknowledge(order["order"], layout.ACK_DONE, order["access_server"]))
    # One a second, and a second's worth at once.
    assert 50 <= len(world.orders) <= 62
    assert Counter(order["access_server"] for order in world.orders).keys() == {0, 1}


def test_jobs_of_one_access_server_take_turns() -> None:
    world = world_of(220)
    large = begin(world, *range(1, 201))
    small = begin(world, *range(201, 221))
    sent = 0
    for _ in range(200):
        world.pass_ms(10 * STEP_MS)
        answered, sent = sent, len(world.orders)
        answer(world, since=answered)
        if world.machine.job(small)["state"] == layout.JOB_DONE:
            break
    done = world.machine.job(large)["confirmed_count"]
    assert done < 60, f"{done} swaps of the large job were sent before the small one was over"


def test_a_slow_access_server_delays_nobody_else() -> None:
    world = world_of(100, servers=2)
    begin(world, *range(1, 101))
    answered = 0
    for _ in range(100):
        world.pass_ms(10 * STEP_MS)
        orders, answered = world.orders[answered:], len(world.orders)
        for order in orders:
            if order["access_server"] == 1:
                world.send(world.acknowledge(order["order"], layout.ACK_DONE, server=1))
    assert world.machine.server(1)["confirmed_count"] == 50
    assert world.machine.server(0)["confirmed_count"] == 0


def test_what_is_announced_is_not_sent_before_its_instant_and_keeps_the_access_server_fed() -> None:
    world = world_of(100)
    ahead_ms = 40 * STEP_MS
    begin(world, *range(1, 101), announce_ahead_ms=ahead_ms)
    promised: dict[int, int] = {}
    answered = told = 0
    for _ in range(300):
        world.pass_ms(STEP_MS)
        for event in world.events[told:]:
            if event["kind"] == layout.EVENT_ANNOUNCED:
                promised[event["terminal"]] = event["a"]
        told = len(world.events)
        orders, answered = world.orders[answered:], len(world.orders)
        for order in orders:
            assert world.now_ms >= promised[order["terminal"]], f"{order} came before its instant"
            world.send(world.acknowledge(order["order"], layout.ACK_DONE))
    assert world.machine.job(0)["confirmed_count"] == 100
    assert len(promised) == 100
    counts = Counter(event["kind"] for event in world.events)
    assert counts[layout.EVENT_ANNOUNCED] == 100, "a swap was announced twice"


def test_a_job_pauses_on_its_error_budget_and_is_judged_anew_when_it_is_resumed() -> None:
    world = world_of(120)
    job = begin(world, *range(1, 121), budget_ppm=100_000)
    answered = 0
    while world.machine.job(job)["state"] == layout.JOB_RUNNING:
        world.pass_ms(STEP_MS)
        orders, answered = world.orders[answered:], len(world.orders)
        for number, order in enumerate(orders):
            result = layout.ACK_REFUSED if number % 4 == 0 else layout.ACK_DONE
            world.send(world.acknowledge(order["order"], result))
        assert world.now_ms < world.records[0].now_ms + 1_000 * STEP_MS
    record = world.machine.job(job)
    assert (record["state"], record["why"]) == (layout.JOB_PAUSED, layout.WHY_BUDGET)
    assert record["failed_count"] + record["confirmed_count"] >= 20
    assert world.status(world.job(layout.JOB_RESUME, job)) == layout.OK
    world.pass_ms(STEP_MS)
    for order in world.orders[answered : answered + 5]:
        world.send(world.acknowledge(order["order"], layout.ACK_REFUSED))
    assert world.machine.job(job)["state"] == layout.JOB_RUNNING, "the failures before it was resumed count"


def test_a_canary_goes_first_and_the_others_when_it_did_well() -> None:
    world = world_of(100, servers=2)
    job = begin(world, *range(1, 101), canary_count=5, budget_ppm=0)
    for _ in range(20):
        world.pass_ms(STEP_MS)
    assert len(world.orders) == 5
    for server in (0, 1):
        answer(world, server=server)
    for _ in range(20):
        world.pass_ms(STEP_MS)
    assert len(world.orders) > 30
    assert not world.machine.job(job)["canary"]


def test_idle_terminals_go_first() -> None:
    world = world_of(40)
    world.configure(layout.IDLE_MS, 100 * STEP_MS)
    world.pass_ms(200 * STEP_MS)
    for terminal in range(1, 21):
        world.send(world.usage(terminal, lease_epoch(world, terminal), MIB))
    begin(world, *range(1, 41), priority=layout.PRIORITY_REBALANCE)
    for _ in range(20):
        world.pass_ms(STEP_MS)
    first = [order["terminal"] for order in world.orders[:20]]
    assert min(first) > 20, f"{sorted(first)[:3]} had new bytes just before"


def test_a_check_says_how_many_who_and_why() -> None:
    world = new_world(sims=40, terminals_max=64)
    world.send(world.allocate(list(range(1, 31))))
    begin(world, 1, 2)
    world.send(world.acknowledge(world.orders[0]["order"], layout.ACK_DONE))
    (outcome,) = world.send(
        world.job_create(selecting=1, dry_run=1, on_infeasible=layout.INFEASIBLE_REFUSE, bank=world.entities["bank-1"])
    )
    job = world.machine.job(int(outcome["job"][0]))
    assert (job["state"], job["why"]) == (layout.JOB_CHECKED, layout.WHY_TARGETS)
    # Of 40 SIMs 30 are assigned, one is reserved, one cools, and the class keeps one back from swaps.
    free = 40 - 30 - 1 - 1 - 1
    assert job["without"][layout.WITHOUT_REST] == 1
    assert job["without"][layout.WITHOUT_SWAP] == 1
    assert (job["demand_count"], job["targets_count"]) == (28, free)
    assert job["without"][layout.WITHOUT_TARGET] == 28 - free
    assert len(job["samples"][layout.WITHOUT_TARGET]) == 28 - free
    assert job["samples"][layout.WITHOUT_REST] == [1]
    assert job["headroom_needed_bytes"] >= 28 * 100 * MIB
    assert job["expected_finish_ms"] >= world.now_ms
    assert job["terminals_count"] == 0
    assert len(world.orders) == 2, "a dry run moved somebody"


@pytest.mark.parametrize("name", ["supplier", "carrier", "sim_class", "lot", "bank", "headroom_below_bytes"])
def test_a_filter_names_only_what_it_says(name: str) -> None:
    """Each filter on its own: the terminals that it names, and none of the others."""
    world = new_world(sims=0)
    home, other = world.entities["gold-a"], world.entities["silver-a"]
    blue = world.define(layout.CARRIER, "blue")
    world.define(layout.SUPPLIER, "other")
    world.define(layout.SIM_CLASS, "silver", {layout.CLASS_CARRIER: blue})
    numbers = {layout.LOT_SUPPLIER: world.entities["other"], layout.LOT_CLASS: world.entities["silver"]}
    world.define(layout.LOT, "silver-a", {**numbers, layout.LOT_PLAN: world.entities["monthly"]})
    world.import_sims(10, "gold-a", "bank-1", opening_bytes=50 * GIB)
    world.import_sims(10, "silver-a", "bank-2", opening_bytes=99 * GIB)
    world.send(world.allocate(list(range(1, 6)), market="home"), world.allocate(list(range(6, 9)), market="away"))
    value = {
        "supplier": world.entities["other"],
        "carrier": blue,
        "sim_class": world.entities["silver"],
        "lot": other,
        "bank": world.entities["bank-2"],
        "headroom_below_bytes": 2 * GIB,
    }[name]
    (outcome,) = world.send(world.job_create(selecting=1, dry_run=1, **{name: value}))
    assert world.machine.job(int(outcome["job"][0]))["demand_count"] == 3
    assert home != other


def test_two_jobs_over_the_same_terminal_never_swap_it_twice() -> None:
    world = world_of(20)
    for _ in range(3):
        (outcome,) = world.send(world.job_create(selecting=1))
        assert outcome["status"][0] == layout.OK
    answered = 0
    for _ in range(100):
        world.pass_ms(STEP_MS)
        orders, answered = world.orders[answered:], len(world.orders)
        for order in orders:
            world.send(world.acknowledge(order["order"], layout.ACK_DONE))
    assert Counter(order["terminal"] for order in world.orders) == Counter(range(1, 21))
    assert all(world.machine.job(job)["state"] == layout.JOB_DONE for job in range(3))


def test_the_work_list_keeps_the_newest_entries() -> None:
    world = new_world(sims=6)
    world.configure(layout.ATTEMPTS_MAX, 1)
    world.configure(layout.SWAP_COOL_DOWN_MS, 0)
    allocate(world)
    for _ in range(3):
        begin(world, T)
        world.pass_ms(10 * STEP_MS)
        answer(world, layout.ACK_REFUSED, since=len(world.orders) - 1)
    assert [entry["number"] for entry in world.machine.given_up()] == [1, 2, 3]
    world.send(commands.run(layout.GIVEN_UP_RESOLVE, 1, number=2))
    assert [entry["number"] for entry in world.machine.given_up()] == [1, 3]
    assert world.machine.given_up()[0]["terminal"] == T


def withdrawn(world: World) -> list[int]:
    return [event["reason"] for event in world.events if event["kind"] == layout.EVENT_WITHDRAWN]


def test_a_paused_access_server_gets_no_order_and_nothing_is_recalled() -> None:
    world = world_of(60, servers=2)
    begin(world, *range(1, 61))
    world.pass_ms(10 * STEP_MS)
    assert world.status(commands.run(layout.SERVER_PAUSE, access_server=0)) == layout.OK
    outstanding = world.machine.server(0)["outstanding"]
    assert outstanding > 0
    sent = len(world.orders)
    # Also what is not answered in time is not asked for again, and a stop waits too.
    world.send(world.allocate([1], server=1))
    for _ in range(20):
        world.pass_ms(MINUTE_MS)
    assert {order["access_server"] for order in world.orders[sent:]} == {1}
    assert world.machine.server(0)["outstanding"] == outstanding
    # It survives its session and a restart of the service.
    world.send(world.close(0))
    world.send(commands.run(layout.RESTART))
    for server in (0, 1):
        world.open_session(server, ready=False)
    world.send(world.ready(0, world.sessions[0]))
    seen = world.machine.server(0)
    assert (seen["gate"], seen["paused"]) == (layout.GATE_PAUSED, 1)
    sent = len(world.orders)
    world.pass_ms(MINUTE_MS)
    assert not [order for order in world.orders[sent:] if order["access_server"] == 0]
    assert world.machine.check() == []


def test_a_resumed_access_server_is_probed_with_one_order_and_ramps_up() -> None:
    world = world_of(60)
    assert world.status(commands.run(layout.SERVER_PAUSE, access_server=0)) == layout.OK
    begin(world, *range(1, 61), on_infeasible=layout.INFEASIBLE_PROCEED)
    world.pass_ms(MINUTE_MS)
    assert world.orders == []
    assert world.machine.job(0)["without"][layout.WITHOUT_SERVER] == 60
    assert world.status(commands.run(layout.SERVER_RESUME, access_server=0)) == layout.OK
    world.pass_ms(STEP_MS)
    assert (len(world.orders), world.machine.server(0)["gate"]) == (1, layout.GATE_PROBING)
    for _ in range(200):
        world.pass_ms(10 * STEP_MS)
        for order in world.orders:
            if world.machine.order(order["order"] & 0xFFFFFF)["number"] == order["order"]:
                world.send(world.acknowledge(order["order"], layout.ACK_DONE))
    assert world.machine.job(0)["state"] == layout.JOB_DONE


@pytest.mark.parametrize("hold", ["stop", "pause"])
def test_what_was_announced_is_withdrawn_when_it_cannot_come_and_announced_anew(hold: str) -> None:
    world = world_of(10)
    ahead_ms = 40 * STEP_MS
    begin(world, *range(1, 11), announce_ahead_ms=ahead_ms)
    world.pass_ms(STEP_MS)
    begins, ends = {
        "stop": (commands.run(layout.SWAPS_STOP), commands.run(layout.SWAPS_LIFT)),
        "pause": (
            commands.run(layout.SERVER_PAUSE, access_server=0),
            commands.run(layout.SERVER_RESUME, access_server=0),
        ),
    }[hold]
    world.send(begins)
    world.pass_ms(2 * ahead_ms)
    assert withdrawn(world) == [layout.PROMISE_BROKEN] * 10
    told = len(world.events)
    world.pass_ms(2 * ahead_ms)
    assert world.events[told:] == []
    world.send(ends)
    lifted_ms = world.now_ms
    world.pass_ms(STEP_MS)
    again = [event["a"] for event in world.events[told:] if event["kind"] == layout.EVENT_ANNOUNCED]
    assert len(again) == 10
    assert min(again) >= lifted_ms + ahead_ms
    assert world.orders == []


def test_a_job_that_waited_for_approval_moves_no_more_than_was_approved() -> None:
    """Beyond its size it leaves out whoever came under its filter since, and says so in its end."""
    world = world_of(6)
    world.configure(layout.APPROVAL_ABOVE, 3)
    (outcome,) = world.send(world.job_create(selecting=1))
    job = int(outcome["job"][0])
    assert world.machine.job(job)["state"] == layout.JOB_AWAITING_APPROVAL
    world.send(world.allocate([7, 8]))
    assert world.status(world.job(layout.JOB_APPROVE, job, world.entities["operator:second"])) == layout.OK
    answered = 0
    for _ in range(20):
        world.pass_ms(10 * STEP_MS)
        since, answered = answered, len(world.orders)
        answer(world, since=since)
    found = world.machine.job(job)
    assert (found["state"], found["why"]) == (layout.JOB_DONE, layout.WHY_SIZE)
    assert (found["size_max"], found["confirmed_count"], found["beyond_count"]) == (6, 6, 2)
    end = [event for event in world.events if event["kind"] == layout.EVENT_JOB][-1]
    assert (end["a"], end["reason"], end["b"]) == (layout.JOB_DONE, layout.WHY_SIZE, 2)


def test_what_needs_no_second_person_is_not_cut_to_what_the_check_found() -> None:
    """Who comes under the filter after the check is moved too, up to the size that nobody has to approve."""
    world = world_of(2)
    world.configure(layout.APPROVAL_ABOVE, 3)
    for sim in range(world.sims_count):
        if world.machine.sim(sim)["occupancy"] == layout.FREE:
            world.send(world.set_health(sim, layout.QUARANTINED))
    (outcome,) = world.send(world.job_create(selecting=1, on_infeasible=layout.INFEASIBLE_PAUSE))
    job = int(outcome["job"][0])
    assert world.machine.job(job)["state"] == layout.JOB_PAUSED
    for sim in range(world.sims_count):
        world.send(world.set_health(sim, layout.HEALTHY))
    world.send(world.allocate([3, 4, 5]))
    world.send(world.job(layout.JOB_RESUME, job))
    found = world.machine.job(job)
    assert (found["terminals_count"], found["beyond_count"]) == (3, 2)


def test_two_jobs_by_filters_that_find_more_than_their_checks_move_no_more_than_one_person_may() -> None:
    """Each might still take what is left till a second person is needed, and both together do."""
    world = world_of(4)
    world.configure(layout.APPROVAL_ABOVE, 7)
    world.send(world.allocate([11, 12], server=1))
    for sim in range(world.sims_count):
        if world.machine.sim(sim)["occupancy"] == layout.FREE:
            world.send(world.set_health(sim, layout.QUARANTINED))
    jobs = []
    for server in (0, 1):
        (outcome,) = world.send(world.job_create(selecting=1, server=server, on_infeasible=layout.INFEASIBLE_PAUSE))
        jobs.append(int(outcome["job"][0]))
    for sim in range(world.sims_count):
        world.send(world.set_health(sim, layout.HEALTHY))
    world.send(world.allocate([5, 6, 7, 8]))
    world.send(world.allocate([15, 16, 17, 18], server=1))
    world.send(world.job(layout.JOB_RESUME, jobs[0]), world.job(layout.JOB_RESUME, jobs[1]))
    world.pass_ms(STEP_MS)
    found = [world.machine.job(job) for job in jobs]
    assert [each["terminals_count"] for each in found] == [5, 2]
    assert [each["beyond_count"] for each in found] == [3, 4]


def test_terminals_of_an_access_server_that_is_away_count_for_approval() -> None:
    """They are moved when it is back, whatever the check could promise them."""
    world = world_of(6, servers=2)
    world.configure(layout.APPROVAL_ABOVE, 3)
    world.send(commands.run(layout.SESSION_CLOSE, access_server=1, argument=world.sessions[1]))
    (outcome,) = world.send(world.job_create(selecting=1))
    found = world.machine.job(int(outcome["job"][0]))
    assert (found["demand_count"], found["state"]) == (3, layout.JOB_AWAITING_APPROVAL)


def test_whoever_is_served_first_leaves_the_targets_that_the_most_demanding_need() -> None:
    """The check found a target for both; a roomy one for the first would leave none for the second."""
    world = new_world(sims=0)
    world.import_sims(2, "silver-a")
    for terminal, expected in ((1, GIB), (2, 5 * GIB)):
        world.send(world.allocate([terminal], market="away", expected_bytes=expected))
    small, large = world.import_sims(2, "silver-a", opening_bytes=[98 * GIB, 90 * GIB])
    job = begin(world, 1, 2, on_infeasible=layout.INFEASIBLE_REFUSE)
    world.pass_ms(MINUTE_MS)
    assert world.machine.job(job)["outstanding_count"] == 2
    assert [world.machine.sim(sim)["occupancy"] for sim in (small, large)] == [layout.RESERVED] * 2


def test_allocations_and_swaps_of_no_job_take_the_sim_with_most_left() -> None:
    world = new_world(sims=0)
    world.configure(layout.AUTOMATIC_SWAPS, 3)
    world.configure(layout.AUTOMATIC_AHEAD_MS, 0)
    opening_bytes = [80 * GIB, 86 * GIB, 90 * GIB, 98 * GIB]
    first, second, third, tight = world.import_sims(4, "silver-a", opening_bytes=opening_bytes)
    world.send(world.allocate([1], market="away"), world.allocate([2], market="away"))
    assert [world.machine.sim(sim)["occupancy"] for sim in (first, second)] == [layout.ASSIGNED] * 2
    world.send(world.set_health(first, layout.THROTTLED))
    assert world.machine.sim(third)["occupancy"] == layout.RESERVED
    assert world.machine.sim(tight)["occupancy"] == layout.FREE


def test_what_is_more_urgent_goes_first_whoever_was_ordered_first() -> None:
    """Re-allocation after failure, then throttled, then predicted, then rebalance."""
    world = world_of(200)
    world.send(commands.run(layout.SWAPS_STOP))
    urgent = (layout.PRIORITY_REBALANCE, layout.PRIORITY_THROTTLED, layout.PRIORITY_FAILURE, layout.PRIORITY_PREDICTED)
    for place, priority in enumerate(urgent):
        begin(world, *range(1 + 50 * place, 51 + 50 * place), priority=priority)
    world.send(commands.run(layout.SWAPS_LIFT))
    answered = 0
    for _ in range(400):
        world.pass_ms(STEP_MS)
        since, answered = answered, len(world.orders)
        answer(world, since=since)
    wanted = {terminal: urgent[(terminal - 1) // 50] for terminal in range(1, 201)}
    sent = [wanted[order["terminal"]] for order in world.orders]
    assert len(sent) == 200
    assert sent == sorted(sent)


@pytest.mark.parametrize("hold", ["stop", "pause", "quiet", "cancel"])
def test_a_swap_that_is_not_to_be_sent_is_not_asked_for_either(hold: str) -> None:
    """Who never received it would begin with it."""
    world = world_of(20, lease_ms=DAY_MS)
    quiet_from_ms = world.now_ms + 30 * STEP_MS
    quiet = (
        {"quiet_from_ms": quiet_from_ms, "quiet_until_ms": quiet_from_ms + 60 * MINUTE_MS} if hold == "quiet" else {}
    )
    job = begin(world, *range(1, 6), **quiet)
    for _ in range(10):
        world.pass_ms(STEP_MS * 5)
    assert len(world.orders) == 5
    held = {
        "stop": commands.run(layout.SWAPS_STOP),
        "pause": world.job(layout.JOB_PAUSE, job),
        "cancel": world.job(layout.JOB_CANCEL, job),
    }
    if hold in held:
        assert world.status(held[hold]) == layout.OK
    for _ in range(600):
        world.pass_ms(STEP_MS * 10)
    # What is never to be sent again is withdrawn: whoever received nothing says so, and its place is free.
    assert {order["kind"] for order in world.orders[5:]} == ({layout.WITHDRAW} if hold == "cancel" else set())
    # It is asked for again when it may be sent, and settles in any case.
    again = {"stop": commands.run(layout.SWAPS_LIFT), "pause": world.job(layout.JOB_RESUME, job)}
    if hold in again:
        world.status(again[hold])
        for _ in range(100):
            world.pass_ms(STEP_MS)
        assert {order["order"] for order in world.orders[5:]} == {order["order"] for order in world.orders[:5]}
    answer(world, since=0)
    assert world.machine.job(job)["confirmed_count"] == 5


@pytest.mark.parametrize("health", [layout.LOW, layout.THROTTLED, layout.SUSPENDED, layout.QUARANTINED, layout.RETIRED])
def test_no_order_goes_out_again_with_a_target_that_has_become_unfit(health: int) -> None:
    """Nobody answered it, so it may have been lost: it is withdrawn, and another SIM takes its place. That is no
    failed attempt (I4)."""
    world = world_of(4, lease_ms=DAY_MS)
    job = begin(world, 1)
    (order,) = world.orders
    target = next(sim for sim in range(world.sims_count) if world.machine.sim(sim)["iccid"] == order["target_iccid"])
    world.pass_ms(DEADLINE_MS)
    assert world.status(world.set_health(target, health)) == layout.OK
    for _ in range(100):
        world.pass_ms(STEP_MS * 10)
    asked = world.orders[1:]
    assert asked
    assert {(again["order"], again["kind"]) for again in asked} == {(order["order"], layout.WITHDRAW)}
    world.send(world.acknowledge(order["order"], layout.ACK_REFUSED))
    *_, another = world.orders
    assert (another["kind"], another["terminal"]) == (layout.SWITCH, 1)
    assert another["target_iccid"] not in (order["target_iccid"], order["source_iccid"])
    world.send(world.acknowledge(another["order"], layout.ACK_DONE))
    found = world.machine.job(job)
    assert (found["state"], found["confirmed_count"], found["given_up_count"]) == (layout.JOB_DONE, 1, 0)


def test_what_one_person_moves_in_a_day_without_a_second_one_adds_up() -> None:
    """Also what is over; what another has approved is no longer his alone, and others have ordered nothing of it."""
    world = world_of(40, lease_ms=2 * DAY_MS)
    world.configure(layout.APPROVAL_ABOVE, 10)
    first = begin(world, *range(1, 9))
    answer_all(world, 20)
    assert world.machine.job(first)["state"] == layout.JOB_DONE
    second = begin(world, *range(9, 11))
    assert world.machine.job(second)["state"] == layout.JOB_RUNNING
    third = begin(world, 11)
    assert world.machine.job(third)["state"] == layout.JOB_AWAITING_APPROVAL
    assert world.status(world.job(layout.JOB_APPROVE, third, world.entities["operator:second"])) == layout.OK
    assert world.machine.job(third)["state"] == layout.JOB_RUNNING
    answer_all(world, 20)
    finished_ms = world.machine.job(first)["finished_ms"]
    world.pass_ms(finished_ms + DAY_MS - STEP_MS - world.now_ms)
    fourth = begin(world, 12)
    assert world.machine.job(fourth)["state"] == layout.JOB_AWAITING_APPROVAL
    world.pass_ms(STEP_MS)
    fifth = begin(world, *range(13, 21))  # the second job's two are of this day still
    assert world.machine.job(fifth)["state"] == layout.JOB_RUNNING


def filled(terminals: int = 400, outstanding: int = 150) -> World:
    """An access server whose window was wide, with so many orders of which none is answered."""
    world = world_of(terminals, lease_ms=DAY_MS)
    begin(world, *range(1, terminals + 1))
    answered = 0
    while world.machine.server(0)["outstanding"] < outstanding:
        world.pass_ms(STEP_MS)
        since, answered = answered, len(world.orders)
        if world.machine.server(0)["window"] < 160:
            answer(world, since=since)
    return world


def test_what_is_overdue_is_asked_for_at_the_access_servers_pace() -> None:
    world = filled()
    world.send(commands.run(layout.SWAPS_STOP))
    while any(world.machine.order(order["order"] & 0xFFFFFF)["state"] == layout.OUTSTANDING for order in world.orders):
        world.pass_ms(STEP_MS)
    world.send(commands.run(layout.SWAPS_LIFT))
    outstanding, sent = world.machine.server(0)["outstanding"], len(world.orders)
    most = 0
    for _ in range(300):
        before = len(world.orders)
        world.pass_ms(STEP_MS)
        most = max(most, len(world.orders) - before)
    assert len({order["order"] for order in world.orders[sent:]}) == outstanding, "not all were asked for"
    assert most <= 12, f"{most} orders in one apply"
    # After a long silence of the clock, too.
    before = len(world.orders)
    world.pass_ms(60 * MINUTE_MS)
    assert len(world.orders) - before <= 12


def test_nothing_is_asked_for_while_the_gate_backs_off() -> None:
    world = filled()
    for _ in range(8):
        world.send(world.acknowledge(world.orders[-1]["order"], layout.ACK_BUSY))
        sent = len(world.orders)
        while world.machine.server(0)["gate"] == layout.GATE_BACK_OFF:
            assert len(world.orders) == sent, "an order through a closed gate"
            world.pass_ms(STEP_MS)
        # The window is full of what was never answered, so one of these is the probe.
        while len(world.orders) == sent:
            world.pass_ms(STEP_MS)
        world.pass_ms(STEP_MS)
        assert len(world.orders) == sent + 1
    world.send(world.acknowledge(world.orders[-1]["order"], layout.ACK_DONE))
    assert world.machine.server(0)["gate"] == layout.GATE_OPEN


def test_only_the_answer_to_its_probe_opens_the_gate() -> None:
    world = world_of(200)
    begin(world, *range(1, 201))
    while world.machine.server(0)["outstanding"] < 15:
        world.pass_ms(STEP_MS)
    before = list(world.orders)
    world.send(world.acknowledge(before[0]["order"], layout.ACK_BUSY))
    for order in before[1:11]:
        world.send(world.acknowledge(order["order"], layout.ACK_DONE))
    sent = len(world.orders)
    while len(world.orders) == sent:
        world.pass_ms(STEP_MS)
    for order, result in zip(before[11:14], (layout.ACK_REFUSED, layout.ACK_DONE, layout.ACK_DONE), strict=True):
        world.send(world.acknowledge(order["order"], result))
        world.pass_ms(STEP_MS)
    assert world.machine.server(0)["gate"] == layout.GATE_PROBING
    assert len(world.orders) == sent + 1, "a second probe"
    world.send(world.acknowledge(world.orders[sent]["order"], layout.ACK_DONE))
    assert world.machine.server(0)["gate"] == layout.GATE_OPEN


def told_of(world: World, terminal: int) -> list[int]:
    kinds = (layout.EVENT_ANNOUNCED, layout.EVENT_WITHDRAWN, layout.EVENT_ORDERED)
    return [event["kind"] for event in world.events if event["terminal"] == terminal and event["kind"] in kinds]


@pytest.mark.parametrize("ahead_ms", [0, 40 * STEP_MS])
@pytest.mark.parametrize("how", ["refused, then paused", "not carried out"])
def test_a_swap_that_is_sent_again_much_later_is_announced_again(how: str, ahead_ms: int) -> None:
    world = world_of(10, lease_ms=DAY_MS)
    job = begin(world, 1, announce_ahead_ms=ahead_ms)
    while not world.orders:
        world.pass_ms(STEP_MS)
    if how == "not carried out":
        index = world.machine.find_terminal(1)
        assert index is not None
        terminal = world.machine.terminal(index)
        world.send(world.close(0))
        world.pass_ms(180 * MINUTE_MS)
        world.open_session(0, ready=False)
        assert world.statuses(world.holds(0, 1, terminal["epoch"], terminal["sim"])) == [layout.SETTLED]
        world.send(world.ready(0))
    else:
        world.send(world.acknowledge(world.orders[0]["order"], layout.ACK_REFUSED))
        world.status(world.job(layout.JOB_PAUSE, job))
        world.pass_ms(180 * MINUTE_MS)
        world.status(world.job(layout.JOB_RESUME, job))
    since_ms = world.now_ms
    while len(world.orders) == 1:
        world.pass_ms(STEP_MS)
    assert world.now_ms >= since_ms + ahead_ms
    announced, withdrawn_, ordered = layout.EVENT_ANNOUNCED, layout.EVENT_WITHDRAWN, layout.EVENT_ORDERED
    assert told_of(world, 1) == [announced, ordered, *([withdrawn_] if ahead_ms else []), announced, ordered]
    assert world.machine.server(0)["announced_count"] == 0
    assert world.machine.job(job)["announced_count"] == 0


def test_nothing_is_announced_on_an_access_server_that_was_declared_dead() -> None:
    world = world_of(10)
    world.configure(layout.FENCING_MS, 1_000 * STEP_MS)
    world.send(world.close(0))
    assert world.status(commands.run(layout.DECLARE_DEAD, 1, access_server=0, undo=0)) == layout.OK
    told = len(world.events)
    begin(world, 1, 2, 3, announce_ahead_ms=MINUTE_MS, on_infeasible=layout.INFEASIBLE_PROCEED)
    world.pass_ms(STEP_MS)
    assert layout.EVENT_ANNOUNCED not in {event["kind"] for event in world.events[told:]}


def answer_all(world: World, times: int, server: int = 0, never: int = 0) -> None:
    """Lets time pass; what comes to the access server is carried out at once, but for one terminal's swap."""
    sent = 0
    for _ in range(times):
        world.pass_ms(STEP_MS)
        orders, sent = world.orders[sent:], len(world.orders)
        for order in orders:
            if order["access_server"] == server and order["terminal"] != never:
                world.send(world.acknowledge(order["order"], layout.ACK_DONE, server))


LANES_OF_JOBS = layout.LANES - 1


@pytest.mark.parametrize("held", [{"rate_per_minute": 1}, {"canary_count": 1, "rate_per_minute": 1}])
def test_a_job_that_may_not_send_delays_no_other_whatever_their_numbers(held: dict[str, int]) -> None:
    world = world_of(160, lease_ms=DAY_MS)
    slow = begin(world, *range(1, 101), **held)
    for _ in range(LANES_OF_JOBS - 1):
        begin(world, 101, dry_run=1)
    other = begin(world, *range(101, 161))
    assert slow % LANES_OF_JOBS == other % LANES_OF_JOBS
    answer_all(world, 300)
    assert world.machine.job(other)["state"] == layout.JOB_DONE
    assert world.machine.job(slow)["confirmed_count"] <= 3


def test_where_there_are_more_jobs_than_lanes_one_that_may_not_send_makes_way() -> None:
    world = world_of(600, lease_ms=DAY_MS)
    slow = [begin(world, *range(1, 201), rate_per_minute=1)]
    slow += [begin(world, *range(201 + 10 * n, 211 + 10 * n), rate_per_minute=1) for n in range(LANES_OF_JOBS)]
    others = [begin(world, *range(401 + 20 * n, 421 + 20 * n)) for n in range(LANES_OF_JOBS)]
    answer_all(world, 400)
    assert [world.machine.job(job)["state"] for job in others] == [layout.JOB_DONE] * LANES_OF_JOBS
    assert {world.machine.job(job)["state"] for job in slow} == {layout.JOB_RUNNING}
    assert world.machine.check() == []


def test_a_swap_that_is_not_answered_stalls_no_canary() -> None:
    world = world_of(100, lease_ms=DAY_MS)
    job = begin(world, *range(1, 101), canary_count=10, rate_per_minute=120, budget_ppm=500_000)
    answer_all(world, 1_000, never=1)
    found = world.machine.job(job)
    assert (found["canary"], found["confirmed_count"], found["outstanding_count"]) == (False, 99, 1)


def test_a_silent_access_server_fails_the_canary() -> None:
    world = world_of(100, servers=2, lease_ms=DAY_MS)
    assert world.status(commands.run(layout.SERVER_PAUSE, access_server=1)) == layout.OK
    job = begin(world, *range(1, 101), canary_count=30, budget_ppm=50_000, on_infeasible=layout.INFEASIBLE_PROCEED)
    answer_all(world, 100, server=1)
    assert world.status(commands.run(layout.SERVER_RESUME, access_server=1)) == layout.OK
    answer_all(world, 500, server=1)
    found = world.machine.job(job)
    assert (found["state"], found["why"]) == (layout.JOB_PAUSED, layout.WHY_CANARY)


def test_the_canary_takes_another_for_a_swap_whose_terminal_left() -> None:
    """On whatever access server: that of the one that left has no other."""
    world = world_of(40, servers=2, lease_ms=DAY_MS)
    assert world.status(commands.run(layout.SERVER_PAUSE, access_server=1)) == layout.OK
    listed = [*range(1, 7, 2), *range(2, 41, 2)]
    begin(world, *listed, canary_count=3, on_infeasible=layout.INFEASIBLE_PROCEED)
    world.pass_ms(STEP_MS)
    assert [order["access_server"] for order in world.orders] == [0, 0, 0]
    world.status(commands.run(layout.SERVER_RESUME, access_server=1))
    world.pass_ms(STEP_MS)
    assert len(world.orders) == 3
    for order in list(world.orders):
        world.send(world.lease(layout.RELEASE, order["terminal"], lease_epoch(world, order["terminal"])))
    world.pass_ms(STEP_MS)
    moved = [order["access_server"] for order in world.orders if order["kind"] == layout.SWITCH]
    assert moved == [0, 0, 0, 1]


def test_a_late_swap_counts_once_against_the_budget_whatever_comes_of_it() -> None:
    world = world_of(100, lease_ms=DAY_MS)
    job = begin(world, *range(1, 101), budget_ppm=600_000)
    done: set[int] = set()
    for step in range(3_000):
        world.pass_ms(STEP_MS)
        for order in world.orders if step % 2 else []:
            record = world.machine.order(order["order"] & 0xFFFFFF)
            if order["order"] not in done and record["number"] == order["order"] and record["state"] == layout.UNKNOWN:
                done.add(order["order"])
                world.send(world.acknowledge(order["order"], layout.ACK_DONE))
        if world.machine.job(job)["state"] != layout.JOB_RUNNING:
            break
    found = world.machine.job(job)
    assert (found["state"], found["why"]) == (layout.JOB_PAUSED, layout.WHY_BUDGET)
    assert found["confirmed_count"] <= found["failed_count"] < 40


@pytest.mark.parametrize(
    "on_infeasible", [layout.INFEASIBLE_REFUSE, layout.INFEASIBLE_PROCEED, layout.INFEASIBLE_PAUSE]
)
def test_who_approves_too_late_for_the_deadline_is_told_so(on_infeasible: int) -> None:
    world = world_of(20, lease_ms=DAY_MS)
    world.configure(layout.APPROVAL_ABOVE, 5)
    job = begin(world, *range(1, 11), deadline_ms=world.now_ms + 10 * MINUTE_MS, on_infeasible=on_infeasible)
    assert world.machine.job(job)["state"] == layout.JOB_AWAITING_APPROVAL
    # The deadline is still to come: what is left till then is not enough.
    world.pass_ms(10 * MINUTE_MS - 10)
    approve = world.job(layout.JOB_APPROVE, job, world.entities["operator:second"])
    assert world.status(approve) == layout.OK
    found = world.machine.job(job)
    if on_infeasible == layout.INFEASIBLE_PROCEED:
        assert found["state"] == layout.JOB_RUNNING
    elif on_infeasible == layout.INFEASIBLE_REFUSE:
        assert (found["state"], found["why"]) == (layout.JOB_REFUSED, layout.WHY_LATE)
    else:
        assert (found["state"], found["why"]) == (layout.JOB_PAUSED, layout.WHY_LATE)
        assert world.status(world.job(layout.JOB_RESUME, job)) == layout.OK
        assert world.machine.job(job)["state"] == layout.JOB_RUNNING
    world.pass_ms(STEP_MS)
    assert bool(world.orders) == (on_infeasible != layout.INFEASIBLE_REFUSE)


@pytest.mark.parametrize(
    "on_infeasible", [layout.INFEASIBLE_REFUSE, layout.INFEASIBLE_PROCEED, layout.INFEASIBLE_PAUSE]
)
def test_a_job_that_refuses_to_be_late_is_not_resumed_after_its_deadline(on_infeasible: int) -> None:
    world = world_of(100, lease_ms=DAY_MS)
    deadline_ms = world.now_ms + 2 * MINUTE_MS
    job = begin(world, *range(1, 101), rate_per_minute=600, deadline_ms=deadline_ms, on_infeasible=on_infeasible)
    assert world.status(world.job(layout.JOB_PAUSE, job)) == layout.OK
    world.pass_ms(MINUTE_MS)
    assert world.status(world.job(layout.JOB_RESUME, job)) == layout.OK
    assert world.machine.job(job)["state"] == layout.JOB_RUNNING
    assert world.status(world.job(layout.JOB_PAUSE, job)) == layout.OK
    world.pass_ms(2 * MINUTE_MS)
    stays = on_infeasible == layout.INFEASIBLE_REFUSE
    for again in range(2):
        status = world.status(world.job(layout.JOB_RESUME, job))
        assert status == (layout.SAME if again and not stays else layout.OK)
        found = world.machine.job(job)
        wanted = (layout.JOB_PAUSED, layout.WHY_LATE) if stays else (layout.JOB_RUNNING, layout.WHY_NONE)
        assert (found["state"], found["why"]) == wanted


def test_who_pauses_and_resumes_a_job_many_times_takes_no_room_from_others() -> None:
    world = world_of(20, lease_ms=DAY_MS)
    job = begin(world, *range(1, 11), rate_per_minute=1)
    both = [world.job(layout.JOB_PAUSE, job), world.job(layout.JOB_RESUME, job)]
    outcomes = world.send(*both * 400, world.job_create(selecting=1))
    assert {int(status) for outcome in outcomes for status in outcome["status"]} == {layout.OK}
    world.pass_ms(STEP_MS)
    answer_all(world, 5 * MINUTE_MS // STEP_MS // 10)
    assert world.machine.check() == []

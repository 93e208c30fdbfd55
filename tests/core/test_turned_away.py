"""Who could not be swapped at once is found again: in a shortfall, in a job that is held, or on the work list."""

from __future__ import annotations

import pytest
from simswitch.core import commands, layout

from tests.core.test_jobs import MINUTE_MS, answer, begin, world_of
from tests.model.transitions import lease_epoch, sim_index
from tests.model.world import DEADLINE_MS, GIB, STEP_MS, World, empty_world


def short_world(cooling_ms: int) -> World:
    """Twenty terminals of a market that has nothing left for swaps, with automatic swaps on."""
    world = empty_world(sims_max=400, terminals_max=200, orders_max=400)
    world.configure(layout.LEASE_MS, 86_400_000)
    world.configure(layout.COOLING_MS, cooling_ms)
    world.configure(layout.AUTOMATIC_SWAPS, 3)
    world.import_sims(20, "silver-a")
    world.send(world.allocate(list(range(1, 21)), market="away"))
    return world


def told(world: World, kind: int) -> int:
    return sum(event["kind"] == kind for event in world.events)


@pytest.mark.parametrize("who", ["a job that is cancelled", "a terminal that leaves"])
def test_a_shortfall_ends_when_there_is_supply_again_also_when_nobody_waits_any_more(who: str) -> None:
    world = short_world(STEP_MS if who == "a terminal that leaves" else 86_400_000)
    if who == "a terminal that leaves":
        world.send(world.set_health(sim_index(world, 1), layout.THROTTLED))
    else:
        job = begin(world, *range(1, 6), on_infeasible=layout.INFEASIBLE_PROCEED)
    world.pass_ms(STEP_MS)
    assert told(world, layout.EVENT_SHORTFALL) == 1
    if who == "a terminal that leaves":
        world.send(world.lease(layout.RELEASE, 1, lease_epoch(world, 1)))
    else:
        world.send(world.job(layout.JOB_CANCEL, job))
    world.pass_ms(STEP_MS)
    # While there is none nobody is swapped to be early.
    world.send(world.set_health(sim_index(world, 10), layout.LOW))
    world.pass_ms(3 * MINUTE_MS)
    assert (len(world.orders), told(world, layout.EVENT_SHORTFALL_OVER)) == (0, 0)
    world.import_sims(100, "silver-a")
    world.configure(layout.AUTOMATIC_AHEAD_MS, 0)
    for _ in range(3):
        world.pass_ms(MINUTE_MS)
    assert [order["terminal"] for order in world.orders] == [10]
    assert told(world, layout.EVENT_SHORTFALL_OVER) == 1


def test_who_wants_less_than_was_missed_is_swapped_in_a_shortfall() -> None:
    world = short_world(86_400_000)
    world.configure(layout.AUTOMATIC_AHEAD_MS, 0)
    world.send(world.allocate([21], market="home"))
    world.import_sims(1, "silver-a")
    world.send(world.allocate([30], market="away", expected_bytes=40 * GIB))
    world.import_sims(5, "silver-a", opening_bytes=80 * GIB)
    world.send(world.set_health(sim_index(world, 30), layout.THROTTLED))
    world.pass_ms(STEP_MS)
    assert told(world, layout.EVENT_SHORTFALL) == 1
    world.send(world.set_health(sim_index(world, 10), layout.LOW))
    world.pass_ms(STEP_MS)
    assert [order["terminal"] for order in world.orders] == [10]
    assert told(world, layout.EVENT_SHORTFALL_OVER) == 0


@pytest.mark.parametrize("kind", ["an allocation that is refused", "a renewal of nobody's", "a report of load"])
def test_an_access_server_that_calls_is_not_dead_whatever_it_is_answered(kind: str) -> None:
    world = empty_world()
    world.configure(layout.FENCING_MS, MINUTE_MS)
    world.import_sims(5)
    world.send(world.allocate([1, 2, 3, 4, 5]))
    world.send(world.close(0))
    assert world.status(commands.run(layout.DECLARE_DEAD, 1, access_server=0, undo=0)) == layout.OK
    # What operators do about it is no sign of life.
    world.send(commands.run(layout.SERVER_PAUSE, access_server=0), commands.run(layout.SERVER_RESUME, access_server=0))
    assert world.machine.server(0)["gate"] == layout.GATE_DEAD
    if kind == "an allocation that is refused":
        (outcome,) = world.send(world.allocate([77]))
        assert outcome["status"].tolist() == [layout.NO_HEALTHY_SIM]
    elif kind == "a renewal of nobody's":
        assert world.status(world.lease(layout.RENEW, 78, 12_345)) == layout.UNKNOWN_TERMINAL
    else:
        names = ("queue_wait_us", "service_us", "waiting", "taken_count", "allocation_wait_us", "failed_count")
        load = dict.fromkeys(names, 0)
        assert world.status(commands.run(layout.REPORT_LOAD, 1, access_server=0, **load)) == layout.STALE_SESSION
    assert world.machine.server(0)["gate"] == layout.GATE_DISCONNECTED
    assert [event["reason"] for event in world.events if event["kind"] == layout.EVENT_DEATH] == [
        layout.DEATH_DECLARED,
        layout.DEATH_BELIED,
    ]
    world.pass_ms(2 * MINUTE_MS)
    assert all(world.machine.sim(sim)["occupancy"] == layout.ASSIGNED for sim in range(5))


@pytest.mark.parametrize("why", ["the service was away", "the clock was frozen"])
def test_a_death_is_not_settled_by_time_in_which_nobody_could_call(why: str) -> None:
    world = empty_world()
    world.configure(layout.FENCING_MS, 5 * MINUTE_MS)
    world.import_sims(1)
    world.send(world.allocate([1]))
    world.send(world.close(0))
    assert world.status(commands.run(layout.DECLARE_DEAD, 1, access_server=0, undo=0)) == layout.OK
    if why == "the service was away":
        world.now_ms += 10 * MINUTE_MS
        world.send(commands.run(layout.RESTART))
    else:
        world.send(commands.run(layout.FREEZE))
        world.pass_ms(10 * MINUTE_MS)
        assert world.machine.sim(0)["occupancy"] == layout.ASSIGNED
        world.now_ms += 10 * MINUTE_MS
        world.send(commands.run(layout.THAW))
    world.pass_ms(5 * MINUTE_MS - 1_000)
    assert world.machine.sim(0)["occupancy"] == layout.ASSIGNED
    world.pass_ms(2_000)
    assert world.machine.sim(0)["occupancy"] != layout.ASSIGNED


@pytest.mark.parametrize("why", ["the service stood still", "the clock leapt"])
def test_no_swap_is_overdue_by_time_in_which_nobody_could_answer(why: str) -> None:
    world = world_of(5)
    job = begin(world, *range(1, 6))
    world.pass_ms(STEP_MS)
    count = len(world.orders)
    assert count
    window = world.machine.server(0)["window"]

    def out() -> list[int]:
        return [world.machine.order(order)["state"] for order in range(count)]

    if why == "the service stood still":
        world.now_ms += 10 * DEADLINE_MS
        world.send(commands.run(layout.FREEZE), commands.run(layout.THAW))
    else:
        world.send(commands.run(layout.FREEZE))
        world.pass_ms(STEP_MS)
        world.now_ms += 10 * DEADLINE_MS
        world.send(commands.run(layout.THAW))
    world.pass_ms(DEADLINE_MS - STEP_MS)
    assert out() == [layout.OUTSTANDING] * count
    assert told(world, layout.EVENT_OVERDUE) == 0
    assert world.machine.server(0)["window"] == window
    world.pass_ms(2 * STEP_MS)
    assert out() == [layout.UNKNOWN] * count
    # An answer counts whenever it comes (I9).
    answer(world)
    assert world.machine.job(job)["confirmed_count"] == 5
    assert world.machine.check() == []


@pytest.mark.parametrize("held", ["awaiting approval", "a list without end", "paused", "paused as infeasible", "later"])
def test_a_job_that_is_held_keeps_nobody_on_a_throttled_sim(held: str) -> None:
    world = world_of(20)
    world.configure(layout.AUTOMATIC_SWAPS, 3)
    world.configure(layout.LEASE_MS, 86_400_000)
    world.send(world.allocate(list(range(1, 21))))
    terminals = range(1, 11)
    if held == "awaiting approval":
        world.configure(layout.APPROVAL_ABOVE, 5)
        job = begin(world, *terminals)
    elif held == "a list without end":
        (outcome,) = world.send(world.job_create())
        job = int(outcome["job"][0])
        for terminal in terminals:
            world.send(world.job_add(job, terminal))
    elif held == "paused as infeasible":
        job = begin(world, *terminals, deadline_ms=world.now_ms + 1, on_infeasible=layout.INFEASIBLE_PAUSE)
    else:
        job = begin(world, *terminals, rate_per_minute=1)
        if held == "paused":
            world.send(world.job(layout.JOB_PAUSE, job))
    world.send(world.set_health(sim_index(world, 9), layout.THROTTLED))
    if held == "later":
        # It turned while the job went on, which would have moved it in time.
        world.send(world.job(layout.JOB_PAUSE, job))
        for _ in range(2):
            world.pass_ms(MINUTE_MS)
    moved = [order for order in world.orders if order["terminal"] == 9]
    assert len(moved) == 1
    seen = world.machine.job(job)
    assert (seen["skipped_count"], seen["queued_count"] + seen["outstanding_count"]) == (1, 9)
    assert world.machine.check() == []


def test_the_work_list_counts_what_nobody_resolved_and_made_room() -> None:
    world = world_of(200)
    settings = {
        layout.ATTEMPTS_MAX: 1,
        layout.SWAP_COOL_DOWN_MS: 0,
        layout.BREAKER_PPM: 1_000_000,
        layout.LEASE_MS: 86_400_000,
    }
    for setting, value in settings.items():
        world.configure(setting, value)
    world.send(world.allocate(list(range(1, 201))))
    world.keeps_records = False
    for number in range(21):
        job = begin(world, *range(1, 201), budget_ppm=1_000_000)
        for _ in range(400):
            world.pass_ms(10 * STEP_MS)
            answer(world, layout.ACK_REFUSED)
            world.orders.clear()
            if world.machine.job(job)["given_up_count"] == 200:
                break
        assert world.machine.header()["given_up_lost"] == (104 - 30 if number == 20 else 0)
        if number == 0:
            world.send(commands.run(layout.GIVEN_UP_RESOLVE, 30, number=range(1, 31)))
    entries = world.machine.given_up()
    assert (len(entries), entries[0]["number"]) == (4_096, 105)
    assert all(entry["why"] == layout.ACK_REFUSED and entry["target"] for entry in entries)

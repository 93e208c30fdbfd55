"""What is counted on a SIM while a reset of its lot is under way, whose walk has yet to come to it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

from tests.model.records import copy_regions
from tests.model.transitions import SILENCE_MS, T
from tests.model.world import GIB, MIB, STEP_MS, World, empty_world

CYCLE, DAY, ROLLING = layout.WINDOW_CYCLE, layout.WINDOW_DAY, layout.WINDOW_ROLLING
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
LOT, SIMS = "gold-b", 40
LAST = SIMS - 1
USED = ("used_cycle_bytes", "used_day_bytes", "used_rolling_bytes")


def lease(world: World, sim: int, terminal: int = T) -> int:
    """Gives a terminal that very SIM; returns its epoch."""
    (outcome,) = world.send(world.adopt(terminal, sim))
    assert outcome["status"][0] == layout.OK
    return int(outcome["epoch"][0])


def used(world: World, sim: int, window: int) -> int:
    return int(world.machine.sim(sim)[USED[window - 1]])


def report(world: World, epoch: int, total: int, terminal: int = T) -> None:
    assert world.status(world.usage(terminal, epoch, total)) in (layout.OK, layout.ENDED)


def schedule(world: World, window: int, at_ms: int, spread_ms: int = HOUR_MS) -> None:
    assert world.status(world.schedule(LOT, window, at_ms, spread_ms)) == layout.OK


def used_world(pooled: int = 0, sims_max: int = 64) -> tuple[World, int, int]:
    """The last SIM of a lot has used 300 MiB; the epoch of who has it, and when its windows start anew."""
    world = empty_world(sims_max)
    if pooled:
        quotas = {layout.PLAN_QUOTA_CYCLE: 50 * GIB, layout.PLAN_QUOTA_DAY: 3 * GIB, layout.PLAN_QUOTA_ROLLING: 5 * GIB}
        world.define(layout.PLAN, "daily", {**quotas, layout.PLAN_ROLLING_DAYS: 3, layout.PLAN_POOLED: pooled})
    world.configure(layout.LEASE_MS, DAY_MS)
    world.import_sims(SIMS, lot=LOT, opening_bytes=GIB, opening_day_bytes=GIB)
    epoch = lease(world, LAST)
    world.pass_ms(MINUTE_MS)
    report(world, epoch, 300 * MIB)
    return world, epoch, world.now_ms + MINUTE_MS


def test_what_was_allowed_for_and_is_reported_before_a_sims_turn_stands_once_in_its_rolling_window() -> None:
    """What it counts comes off the day that ends, and not only off the one that begins and has nothing of it."""
    world = empty_world()
    world.import_sims(SIMS, lot=LOT)
    epoch = lease(world, LAST)
    world.pass_ms(SILENCE_MS)
    assert world.status(world.lease(layout.RELEASE, T, epoch)) == layout.OK
    world.pass_ms(MINUTE_MS)
    allowed = world.machine.sim(LAST)["allowances_bytes"][ROLLING - 1]
    assert allowed >= 100 * MIB
    schedule(world, ROLLING, world.now_ms + MINUTE_MS)
    world.pass_ms(2 * MINUTE_MS)
    report(world, epoch, 60 * MIB)
    assert allowed <= used(world, LAST, ROLLING) < allowed + 4_096
    assert world.machine.check() == []


@pytest.mark.parametrize("window", [CYCLE, DAY, ROLLING])
def test_a_report_before_a_sims_turn_counts_in_the_window_that_begins(window: int) -> None:
    """The walk passes the SIM by, and those that nobody uses come back bit by bit."""
    world, epoch, at_ms = used_world()
    before = GIB + 300 * MIB if window == ROLLING else 0
    schedule(world, window, at_ms)
    world.pass_ms(2 * MINUTE_MS)
    stood = [used(world, sim, window) for sim in range(1, LAST)]
    report(world, epoch, 500 * MIB)
    assert used(world, LAST, window) == before + 200 * MIB
    assert [used(world, sim, window) for sim in range(1, LAST)] == stood
    world.pass_ms(10 * MINUTE_MS)
    report(world, epoch, 510 * MIB)
    assert world.machine.check() == []
    assert Machine.restore(copy_regions(world.machine)).state_hash() == world.machine.state_hash()
    if window != ROLLING:
        assert used(world, LAST - 1, window) == GIB
    while world.machine.lot(world.entities[LOT])["resetting"][window - 1]:
        world.pass_ms(MINUTE_MS)
    assert world.now_ms >= at_ms + HOUR_MS
    assert used(world, LAST, window) == before + 210 * MIB
    assert used(world, LAST - 1, window) == (GIB if window == ROLLING else 0)
    assert [event["b"] for event in world.events if event["kind"] == layout.EVENT_RESET] == [SIMS]
    assert world.machine.check() == []
    # The next ones come to it as to any other: of three days, the one before leaves with the second.
    for left in (before + 210 * MIB, 210 * MIB) if window == ROLLING else (0,):
        world.pass_ms(STEP_MS)
        schedule(world, window, world.now_ms, spread_ms=0)
        assert used(world, LAST, window) == left


def test_what_may_have_been_used_is_allowed_for_in_the_window_that_begins() -> None:
    """A lease ends without its last report before its SIM's turn."""
    world, _, at_ms = used_world()
    sim, other = LAST - 1, 77
    epoch = lease(world, sim, other)
    schedule(world, DAY, at_ms)
    world.pass_ms(2 * MINUTE_MS)
    assert world.status(world.lease(layout.RELEASE, other, epoch)) == layout.OK
    world.pass_ms(MINUTE_MS)
    found = world.machine.sim(sim)
    allowed = found["allowances_bytes"][DAY - 1]
    assert allowed >= 100 * MIB
    assert used(world, sim, DAY) == 0
    world.pass_ms(2 * HOUR_MS)
    assert world.machine.sim(sim)["allowances_bytes"][DAY - 1] == allowed
    assert world.machine.sim(sim)["headroom_bytes"] == 3 * GIB - allowed


@pytest.mark.parametrize("window", [CYCLE, DAY, ROLLING])
def test_a_pool_and_its_sims_count_alike(window: int) -> None:
    world, epoch, at_ms = used_world(pooled=7)
    schedule(world, window, at_ms)
    world.pass_ms(2 * MINUTE_MS)
    report(world, epoch, 500 * MIB)
    shared = world.machine.lot(world.entities[LOT])["pool_used_bytes"][window - 1]
    assert shared == used(world, LAST, window) + ((SIMS - 1) * GIB if window == ROLLING else 0)
    world.pass_ms(2 * HOUR_MS)
    found = world.machine.lot(world.entities[LOT])["pool_used_bytes"][window - 1]
    assert found == shared
    assert found == sum(used(world, sim, window) for sim in range(SIMS))
    assert world.machine.check() == []


@pytest.mark.parametrize("spread_ms", [0, HOUR_MS])
@pytest.mark.parametrize("window", [CYCLE, DAY, ROLLING])
def test_less_that_a_carrier_said_of_a_sim_in_the_window_that_ends_is_not_less_in_the_one_that_begins(
    window: int, spread_ms: int
) -> None:
    """Nor of its pool while the walk has yet to come to the SIM."""
    world, _, at_ms = used_world(7)
    assert world.status(world.figure(LAST, GIB + MIB, 300 * MIB, world.now_ms // 1000, window)) == layout.OK
    assert world.machine.lot(world.entities[LOT])["pool_used_bytes"][window - 1] == SIMS * GIB + MIB
    schedule(world, window, at_ms, spread_ms)
    world.now_ms = at_ms
    world.pass_ms(STEP_MS)
    counted = SIMS * GIB + 300 * MIB if window == ROLLING else 0
    for _ in range(61):
        lot = world.machine.lot(world.entities[LOT])
        assert lot["pool_used_bytes"][window - 1] == counted
        assert world.machine.check() == []
        world.pass_ms(MINUTE_MS)
    assert not any(lot["resetting"])


def test_after_a_late_start_the_spread_runs_from_the_instant() -> None:
    world, _, at_ms = used_world()
    schedule(world, DAY, at_ms, spread_ms=4 * HOUR_MS)
    world.now_ms = at_ms + HOUR_MS
    world.send(commands.run(layout.RESTART))
    back = [sum(not used(world, sim, DAY) for sim in range(SIMS))]
    while back[-1] < SIMS:
        world.pass_ms(10 * MINUTE_MS)
        back.append(sum(not used(world, sim, DAY) for sim in range(SIMS)))
    assert back[0] == SIMS // 4
    assert max(after - before for before, after in itertools.pairwise(back)) <= SIMS // 24 + 1
    assert world.now_ms <= at_ms + 4 * HOUR_MS + 10 * MINUTE_MS


def test_a_report_finds_its_window_begun_however_many_timers_wait() -> None:
    """After an absence thousands are due before that of its lot, of which an apply asks some only."""
    count = 3 * layout.WORK_MAX
    world = empty_world(sims_max=count + SIMS, terminals_max=2 * count + 64)
    world.configure(layout.LEASE_MS, DAY_MS)
    world.import_sims(SIMS, lot=LOT)
    epoch = lease(world, LAST)
    world.pass_ms(MINUTE_MS)
    report(world, epoch, 300 * MIB)
    world.import_sims(count, lot="silver-a")
    others = np.arange(1_000, 1_000 + count, dtype=np.uint64)
    (outcome,) = world.send(world.allocate(others, market="away", expected_bytes=MIB))
    assert (outcome["status"] == layout.OK).all()
    schedule(world, DAY, world.now_ms + HOUR_MS, spread_ms=0)
    world.send(commands.run(layout.RELEASE, count, access_server=0, terminal=others, epoch=outcome["epoch"]))
    world.now_ms += 2 * HOUR_MS
    report(world, epoch, 500 * MIB)
    assert world.machine.next_due_ms == world.now_ms
    assert used(world, LAST, DAY) == 200 * MIB
    for _ in range(8):
        world.pass_ms(STEP_MS)
    assert used(world, LAST, DAY) == 200 * MIB
    assert world.machine.check() == []


def test_a_carriers_figure_of_a_day_counts_in_the_cycle_that_begins() -> None:
    """One of the window itself waits until its reset is over: of which use it is, nobody knows."""
    world, epoch, at_ms = used_world()
    schedule(world, CYCLE, at_ms)
    schedule(world, DAY, at_ms + MINUTE_MS, spread_ms=0)
    world.pass_ms(2 * MINUTE_MS)
    world.pass_ms(MINUTE_MS)
    now_s, counted = world.now_ms // 1000, 300 * MIB
    assert world.status(world.figure(LAST, GIB, counted, now_s)) == layout.WRONG_STATE
    assert used(world, LAST, CYCLE) == GIB + counted
    assert world.status(world.figure(LAST, GIB, counted, now_s, DAY)) == layout.OK
    assert used(world, LAST, CYCLE) == GIB
    report(world, epoch, 500 * MIB)
    world.pass_ms(2 * HOUR_MS)
    assert used(world, LAST, CYCLE) == GIB + 200 * MIB
    assert world.machine.check() == []


@pytest.mark.parametrize("window", [CYCLE, DAY, ROLLING])
@pytest.mark.parametrize("pooled", [0, 7])
@pytest.mark.parametrize("leap", [False, True])
def test_what_is_counted_while_the_clock_is_frozen_is_of_the_window_that_begins_too(
    window: int, pooled: int, leap: bool
) -> None:
    """The instant comes by our own time while it stands, or by the leap with which it is confirmed."""
    world, epoch, at_ms = used_world(pooled)
    before = GIB + 300 * MIB if window == ROLLING else 0
    schedule(world, window, at_ms + (leap * 2 * HOUR_MS), spread_ms=0)
    world.send(commands.run(layout.FREEZE))
    for total in (400, 500):
        world.pass_ms(HOUR_MS // 2)
        report(world, epoch, total * MIB)
    assert used(world, LAST, window) == GIB + 500 * MIB
    world.pass_ms(leap * 2 * HOUR_MS)
    world.send(commands.run(layout.THAW))
    report(world, epoch, 600 * MIB)
    world.pass_ms(MINUTE_MS)
    shared = world.machine.lot(world.entities[LOT])["pool_used_bytes"][window - 1]
    assert used(world, LAST, window) == before + 300 * MIB
    assert used(world, 0, window) == (GIB if window == ROLLING else 0)
    assert not pooled or shared == sum(used(world, sim, window) for sim in range(SIMS))
    assert world.machine.check() == []
    assert Machine.restore(copy_regions(world.machine)).state_hash() == world.machine.state_hash()
    # The reset after that has none of it.
    world.pass_ms(DAY_MS)
    schedule(world, window, world.now_ms, spread_ms=0)
    world.pass_ms(MINUTE_MS)
    assert used(world, LAST, window) == (before + 300 * MIB if window == ROLLING else 0)


@pytest.mark.parametrize("window", [CYCLE, DAY])
@pytest.mark.parametrize("pooled", [0, 7])
def test_what_may_have_been_used_while_the_clock_was_frozen_stays_allowed_for(window: int, pooled: int) -> None:
    """A lease ended without a word: nobody knows of which window that was."""
    world, epoch, at_ms = used_world(pooled)
    assert world.status(world.lease(layout.RELEASE, T, epoch)) == layout.OK
    world.pass_ms(MINUTE_MS)
    epoch = lease(world, LAST)
    schedule(world, window, at_ms + MINUTE_MS, spread_ms=0)
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(HOUR_MS)
    assert world.status(world.lease(layout.RELEASE, T, epoch)) == layout.OK
    world.pass_ms(MINUTE_MS)
    allowed = world.machine.sim(LAST)["allowances_bytes"][window - 1]
    assert allowed >= 100 * MIB
    world.send(commands.run(layout.THAW))
    world.pass_ms(MINUTE_MS)
    assert (used(world, LAST, window), world.machine.sim(LAST)["allowances_bytes"][window - 1]) == (0, allowed)
    assert world.machine.check() == []
    report(world, epoch, allowed)
    assert (used(world, LAST, window), world.machine.sim(LAST)["allowances_bytes"][window - 1]) == (allowed, 0)
    assert world.machine.check() == []


@pytest.mark.parametrize("window", [CYCLE, DAY])
@pytest.mark.parametrize("pooled", [0, 7])
def test_what_is_counted_while_a_reset_waits_for_the_one_before_is_of_the_window_that_begins(
    window: int, pooled: int
) -> None:
    """More SIMs than one apply comes to are left of the walk before."""
    world, epoch, at_ms = used_world(pooled, 6_064)
    world.import_sims(6_000, lot=LOT)
    schedule(world, window, at_ms)
    world.pass_ms(2 * MINUTE_MS)
    schedule(world, window, at_ms + DAY_MS)
    world.now_ms = at_ms + DAY_MS
    while world.machine.lot(world.entities[LOT])["last_reset_ms"][window - 1] == at_ms:
        before = used(world, LAST, window)
        report(world, epoch, 300 * MIB + (world.now_ms - at_ms - DAY_MS + 1) * MIB)
        world.now_ms += 1
    counted = world.now_ms - at_ms - DAY_MS
    assert counted > 1, "the walk before was over at once"
    assert before > 0
    world.pass_ms(2 * HOUR_MS)
    assert used(world, LAST, window) == counted * MIB
    assert world.machine.check() == []


@pytest.mark.parametrize("window", [CYCLE, DAY, ROLLING])
@pytest.mark.parametrize("pooled", [0, 7])
def test_a_figure_of_between_a_resets_instant_and_its_begin_keeps_what_was_counted_since(
    window: int, pooled: int
) -> None:
    """Of 200 MiB that were counted while the clock was frozen over the instant its carrier knows the first half."""
    world, epoch, at_ms = used_world(pooled)
    before = GIB + 300 * MIB if window == ROLLING else 0
    schedule(world, window, at_ms, spread_ms=0)
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(HOUR_MS)
    report(world, epoch, 400 * MIB)
    as_of_s = world.now_ms // 1000
    world.pass_ms(HOUR_MS)
    report(world, epoch, 500 * MIB)
    world.send(commands.run(layout.THAW))
    world.pass_ms(MINUTE_MS)
    told = before + 100 * MIB
    assert world.status(world.figure(LAST, told, 400 * MIB, as_of_s, window)) == layout.OK
    assert used(world, LAST, window) == before + 200 * MIB
    assert world.machine.check() == []
    if pooled:
        shared = world.machine.lot(world.entities[LOT])["pool_used_bytes"][window - 1]
        told = shared - 100 * MIB
        assert world.status(world.pool_figure(LOT, told, 400 * MIB, as_of_s, window)) == layout.OK
        assert world.machine.lot(world.entities[LOT])["pool_used_bytes"][window - 1] == shared
        assert world.machine.check() == []


@pytest.mark.parametrize("window", [CYCLE, DAY])
@pytest.mark.parametrize("pooled", [0, 7])
@pytest.mark.parametrize("other", [False, True])
def test_a_report_before_what_was_held_up_begins_takes_nothing_of_it_away(
    window: int, pooled: int, other: bool
) -> None:
    """The next reset waits for the walk of the one before; this SIM or another is reported meanwhile."""
    world, epoch, at_ms = used_world(pooled)
    second = lease(world, 3, 55)
    schedule(world, window, at_ms)
    world.pass_ms(2 * MINUTE_MS)
    schedule(world, window, at_ms + DAY_MS)
    world.send(commands.run(layout.FREEZE))
    for total in (400, 800):
        world.pass_ms(5 * MINUTE_MS)
        report(world, epoch, total * MIB)
    world.now_ms = at_ms + DAY_MS + 10 * MINUTE_MS
    world.send(commands.run(layout.THAW))
    if other:
        report(world, second, MIB, 55)
    else:
        report(world, epoch, 801 * MIB)
    world.pass_ms(3 * HOUR_MS)
    assert used(world, LAST, window) == (500 if other else 501) * MIB
    assert world.machine.lot(world.entities[LOT])["held_over"][window - 1]
    if pooled:
        assert world.machine.lot(world.entities[LOT])["pool_used_bytes"][window - 1] == 501 * MIB
    assert world.machine.check() == []


@pytest.mark.parametrize("pooled", [0, 7])
@pytest.mark.parametrize("stood_still", [False, True])
def test_a_clock_that_is_frozen_again_before_what_was_held_up_begins_takes_nothing_of_it_away(
    pooled: int, stood_still: bool
) -> None:
    world, epoch, at_ms = used_world(pooled)
    schedule(world, DAY, at_ms + 2 * HOUR_MS, 0)
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(5 * MINUTE_MS)
    report(world, epoch, 800 * MIB)
    world.now_ms = at_ms + 2 * HOUR_MS + 10 * MINUTE_MS
    world.send(commands.run(layout.THAW))
    world.now_ms += MINUTE_MS if stood_still else 100
    if stood_still:
        world.send(commands.run(layout.FREEZE), commands.run(layout.THAW))
    else:
        world.send(commands.run(layout.FREEZE))
        world.pass_ms(5 * MINUTE_MS)
        world.send(commands.run(layout.THAW))
    world.pass_ms(MINUTE_MS)
    assert used(world, LAST, DAY) == 500 * MIB
    assert world.machine.check() == []


@pytest.mark.parametrize("pooled", [0, 7])
def test_what_is_counted_late_for_one_window_and_then_another_is_in_both(pooled: int) -> None:
    """A day waits for its walk, and then the clock is frozen over the end of the cycle."""
    world, epoch, at_ms = used_world(pooled, 6_064)
    world.import_sims(6_000, lot=LOT)
    schedule(world, DAY, at_ms)
    world.pass_ms(2 * MINUTE_MS)
    schedule(world, DAY, at_ms + DAY_MS)
    schedule(world, CYCLE, at_ms + DAY_MS + 20 * MINUTE_MS, 0)
    world.now_ms = at_ms + DAY_MS
    report(world, epoch, 301 * MIB)
    world.now_ms += 2_000
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(5 * MINUTE_MS)
    report(world, epoch, 800 * MIB)
    world.now_ms = at_ms + DAY_MS + 30 * MINUTE_MS
    world.send(commands.run(layout.THAW))
    world.pass_ms(2 * HOUR_MS)
    assert used(world, LAST, CYCLE) >= 499 * MIB
    assert used(world, LAST, DAY) == 500 * MIB
    assert world.machine.check() == []


@pytest.mark.parametrize("pooled", [0, 7])
@pytest.mark.parametrize("reported", [False, True])
def test_another_lease_of_the_sim_takes_nothing_of_what_stays_allowed_for(pooled: int, reported: bool) -> None:
    world, epoch, at_ms = used_world(pooled)
    assert world.status(world.lease(layout.RELEASE, T, epoch)) == layout.OK
    world.pass_ms(MINUTE_MS)
    epoch = lease(world, LAST)
    schedule(world, DAY, at_ms + MINUTE_MS, 0)
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(HOUR_MS)
    assert world.status(world.lease(layout.RELEASE, T, epoch)) == layout.OK
    world.pass_ms(MINUTE_MS)
    allowed = world.machine.sim(LAST)["allowances_bytes"][DAY - 1]
    assert allowed >= 100 * MIB
    world.configure(layout.COOLING_MS, 10 * MINUTE_MS)
    second = lease(world, LAST, 55)
    world.pass_ms(2 * MINUTE_MS)
    assert world.status(world.lease(layout.RELEASE, 55, second)) == layout.OK
    if reported:
        report(world, second, MIB, 55)
    world.send(commands.run(layout.THAW))
    world.pass_ms(2_000)
    assert world.machine.sim(LAST)["allowances_bytes"][DAY - 1] == allowed
    assert world.machine.check() == []


@pytest.mark.parametrize("pooled", [0, 7])
@pytest.mark.parametrize("window", [CYCLE, DAY])
def test_what_a_sim_had_used_that_is_imported_while_the_clock_is_frozen_is_of_the_window_that_begins(
    window: int, pooled: int
) -> None:
    world, epoch, at_ms = used_world(pooled)
    schedule(world, window, at_ms, 0)
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(HOUR_MS)
    report(world, epoch, 400 * MIB)
    now_s = world.now_ms // 1000
    (new,) = world.import_sims(1, lot=LOT, opening_bytes=2 * GIB, opening_day_bytes=2 * GIB, as_of_s=now_s)
    world.send(commands.run(layout.THAW))
    world.pass_ms(MINUTE_MS)
    assert (used(world, new, window), used(world, LAST, window)) == (2 * GIB, 100 * MIB)
    if pooled:
        assert world.machine.lot(world.entities[LOT])["pool_used_bytes"][window - 1] == 2 * GIB + 100 * MIB
    assert world.machine.check() == []


@pytest.mark.parametrize("pooled", [0, 7])
@pytest.mark.parametrize("told_before", [False, True])
def test_an_import_while_the_clock_is_frozen_gives_no_window_more_than_was_used_in_it(
    pooled: int, told_before: bool
) -> None:
    """Of before the clock was frozen it is of the day that ends."""
    world, _, at_ms = used_world(pooled)
    schedule(world, DAY, at_ms, 0)
    world.send(commands.run(layout.FREEZE))
    as_of_s = world.now_ms // 1000 - 60
    world.pass_ms(HOUR_MS)
    as_of_s = as_of_s if told_before else world.now_ms // 1000
    (new,) = world.import_sims(1, lot=LOT, opening_bytes=40 * GIB, opening_day_bytes=100 * MIB, as_of_s=as_of_s)
    world.send(commands.run(layout.THAW))
    world.pass_ms(MINUTE_MS)
    assert used(world, new, DAY) == (0 if told_before else 100 * MIB)
    assert used(world, new, CYCLE) == 40 * GIB
    if pooled:
        shared = world.machine.lot(world.entities[LOT])["pool_used_bytes"][DAY - 1]
        assert used(world, new, DAY) <= shared <= 40 * GIB
    assert world.machine.check() == []


def test_a_reset_that_is_put_off_has_nothing_of_before_its_instant() -> None:
    world, epoch, at_ms = used_world()
    schedule(world, DAY, at_ms, 0)
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(HOUR_MS)
    report(world, epoch, 400 * MIB)
    world.send(commands.run(layout.THAW), world.schedule(LOT, DAY, world.now_ms + DAY_MS, 0))
    world.pass_ms(DAY_MS - MINUTE_MS)
    report(world, epoch, 2_000 * MIB)
    world.pass_ms(2 * MINUTE_MS)
    assert used(world, LAST, DAY) == 0
    assert world.machine.check() == []


@pytest.mark.parametrize("pooled", [0, 7])
def test_a_reset_that_is_held_up_loses_nothing_where_it_is_taken_back_and_said_again(pooled: int) -> None:
    """It waits for the walk of the one before when its clock is confirmed."""
    world, epoch, at_ms = used_world(pooled)
    schedule(world, DAY, at_ms)
    world.pass_ms(2 * MINUTE_MS)
    at_ms = world.now_ms + 20 * MINUTE_MS
    schedule(world, DAY, at_ms)
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(MINUTE_MS)
    report(world, epoch, 400 * MIB)
    world.now_ms = at_ms + MINUTE_MS
    world.send(commands.run(layout.THAW))
    schedule(world, DAY, 0)
    schedule(world, DAY, at_ms)
    for _ in range(70):
        world.pass_ms(MINUTE_MS)
    assert used(world, LAST, DAY) == 100 * MIB
    if pooled:
        assert world.machine.lot(world.entities[LOT])["pool_used_bytes"][DAY - 1] == 100 * MIB
    assert world.machine.check() == []


@pytest.mark.parametrize("pooled", [0, 7])
def test_a_reset_that_was_taken_back_leaves_nothing_to_one_of_long_after(pooled: int) -> None:
    world, epoch, at_ms = used_world(pooled)
    schedule(world, CYCLE, at_ms)
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(MINUTE_MS)
    report(world, epoch, 400 * MIB)
    world.now_ms = at_ms + HOUR_MS
    world.send(commands.run(layout.THAW), world.schedule(LOT, CYCLE, 0))
    world.pass_ms(MINUTE_MS)
    for day in range(3):
        world.now_ms += DAY_MS - HOUR_MS
        world.send(world.lease(layout.RENEW, T, epoch))
        report(world, epoch, (500 + day) * MIB)
    world.pass_ms(MINUTE_MS)
    schedule(world, CYCLE, world.now_ms)
    world.pass_ms(2 * HOUR_MS)
    assert used(world, LAST, CYCLE) == 0
    assert world.machine.check() == []


def test_while_the_clock_is_frozen_no_report_is_more_than_the_line_could_carry() -> None:
    """Nobody knows for how long it has been used: after days away our own time stands where we went."""
    world, epoch, _ = used_world()
    line = int(world.tables()["header"]["settings"][0][layout.LINE_BYTES_PER_S])
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(1_000)
    report(world, epoch, 300 * MIB + 600 * line)
    assert used(world, LAST, DAY) == GIB + 300 * MIB + 600 * line
    world.send(commands.run(layout.THAW))
    assert world.status(world.usage(T, epoch, 300 * MIB + 3_600 * line)) == layout.IMPOSSIBLE_USAGE
    assert world.machine.check() == []

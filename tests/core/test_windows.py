"""Windows: what counts in them as days pass, and what a cap that changes does to limits."""

from __future__ import annotations

import random

import numpy as np
import pytest
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

from tests.model.records import copy_regions, tables
from tests.model.transitions import DAY_MS, T, allocate
from tests.model.world import GIB, MIB, STEP_MS, World, empty_world

KIB4 = 4096


def rolling_world(days: int, pooled: int = 0) -> tuple[World, int]:
    """A plan with so many rolling days, and a terminal that holds one of its SIMs; its epoch."""
    world = empty_world()
    numbers = {layout.PLAN_QUOTA_ROLLING: 10 * GIB, layout.PLAN_ROLLING_DAYS: days, layout.PLAN_POOLED: pooled}
    world.define(layout.PLAN, "monthly", numbers)
    world.import_sims(3)
    return world, allocate(world)


def a_day_is_over(world: World) -> None:
    world.now_ms += 1
    assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, world.now_ms)) == layout.OK


@pytest.mark.parametrize("days", [1, 2, 3, 7, 15, 16, 30, 31, 90, 366])
def test_a_rolling_window_rolls_and_never_counts_fewer_days_than_it_has(days: int) -> None:
    """Up to fifteen days it is exact but for rounding up; with more it may count some days too many."""
    drawn = random.Random(days)
    world, epoch = rolling_world(days)
    step = max(1, -(-(days - 1) // layout.ROLLING_DAYS))
    total, by_day = 0, [0]
    for _ in range(2 * days + 3):
        for _ in range(2):
            more = drawn.randrange(1, 3 * MIB)
            total, by_day[-1] = total + more, by_day[-1] + more
            assert world.status(world.usage(T, epoch, total)) == layout.OK
        used = world.machine.sim(0)["used_rolling_bytes"]
        least = sum(by_day[-days:])
        most = sum(by_day[-(days + 2 * step - 2) :]) + days * KIB4
        assert least <= used <= most
        assert world.machine.sim(0)["headroom_bytes"] == 10 * GIB - used
        a_day_is_over(world)
        by_day.append(0)
    assert world.machine.check() == []


def with_days(world: World, days: int) -> None:
    numbers = {layout.PLAN_QUOTA_CYCLE: 10 * GIB, layout.PLAN_LOW_BYTES: MIB}
    if days:
        numbers = {layout.PLAN_QUOTA_ROLLING: 10 * GIB, layout.PLAN_ROLLING_DAYS: days}
    world.define(layout.PLAN, "monthly", numbers)
    world.send(commands.run(layout.TICK))


@pytest.mark.parametrize("seed", range(6))
def test_a_rolling_window_whose_days_change_forgets_none_that_its_ring_can_have(seed: int) -> None:
    """As long as each place stands for a day it is exact; else it may count some days too many."""
    drawn = random.Random(seed)
    lengths = [1, 2, 3, 7, 14, 15] if seed % 2 else [2, 7, 15, 16, 30, 31, 40, 90]
    days = known = 3
    world, epoch = rolling_world(days)
    total, by_day = 0, [0]
    for _ in range(150):
        more = drawn.randrange(1, 3 * MIB)
        total, by_day[-1] = total + more, by_day[-1] + more
        assert world.status(world.usage(T, epoch, total)) == layout.OK
        if drawn.random() < 0.15:
            known = min(known, max(days, layout.ROLLING_DAYS + 1))
            days = drawn.choice(lengths)
            with_days(world, days)
        used = world.machine.sim(0)["used_rolling_bytes"]
        assert used >= sum(by_day[-min(days, known) :])
        if seed % 2:
            assert used <= sum(by_day[-days:]) + days * KIB4
        assert world.machine.sim(0)["headroom_bytes"] == 10 * GIB - used
        assert int(world.machine.sims_columns()["used_rolling_bytes"][0]) == used
        if drawn.random() < 0.6:
            a_day_is_over(world)
            by_day.append(0)
            known += 1
    assert world.machine.check() == []


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize(("before", "after"), [(7, 16), (15, 30), (15, 366), (30, 90)])
def test_a_rolling_window_whose_step_becomes_longer_loses_no_day_that_it_needs(
    before: int, after: int, pooled: bool
) -> None:
    numbers = {layout.PLAN_QUOTA_ROLLING: 10 * GIB, layout.PLAN_POOLED: 4 * pooled}
    world, epoch = rolling_world(before, pooled=4 * pooled)
    step = -(-(after - 1) // layout.ROLLING_DAYS)
    for day in range(before + 2 * after):
        if day == before:
            world.define(layout.PLAN, "monthly", numbers | {layout.PLAN_ROLLING_DAYS: after})
            world.send(commands.run(layout.TICK))
        assert world.status(world.usage(T, epoch, (day + 1) * MIB)) == layout.OK
        lot = world.machine.lot(world.entities["gold-a"])
        used = int(lot["pool_used_bytes"][2] if pooled else world.machine.sim(0)["used_rolling_bytes"])
        assert used >= min(day, after if day >= before else before) * MIB
        a_day_is_over(world)
    # When those of before it have left, all is as ever.
    assert used <= (after + 2 * step) * MIB
    assert world.machine.check() == []


@pytest.mark.parametrize("pooled", [False, True])
def test_a_window_that_becomes_longer_twice_with_one_step_loses_no_day_that_it_needs(pooled: bool) -> None:
    """More turns than the first time have days of before the step was another."""
    numbers = {layout.PLAN_QUOTA_ROLLING: 10 * GIB, layout.PLAN_POOLED: 4 * pooled}
    world, epoch = rolling_world(15, pooled=4 * pooled)
    lasts = 15
    for day in range(80):
        if day in (14, 20):
            lasts = {14: 30, 20: 43}[day]
            world.define(layout.PLAN, "monthly", numbers | {layout.PLAN_ROLLING_DAYS: lasts})
            world.send(commands.run(layout.TICK))
        assert world.status(world.usage(T, epoch, (day + 1) * MIB)) == layout.OK
        lot = world.machine.lot(world.entities["gold-a"])
        used = int(lot["pool_used_bytes"][2] if pooled else world.machine.sim(0)["used_rolling_bytes"])
        assert used >= min(day, lasts) * MIB
        a_day_is_over(world)
    assert world.machine.check() == []


@pytest.mark.parametrize("pooled", [False, True])
def test_a_plan_that_is_defined_anew_with_the_same_days_keeps_no_day_for_longer(pooled: bool) -> None:
    numbers = {layout.PLAN_QUOTA_ROLLING: 10 * GIB, layout.PLAN_POOLED: 4 * pooled, layout.PLAN_ROLLING_DAYS: 43}
    world, epoch = rolling_world(15, pooled=4 * pooled)
    for day in range(200):
        if day > 14 and day % 20 == 0:
            world.define(layout.PLAN, "monthly", numbers | {layout.PLAN_LOW_BYTES: day * MIB})
            world.send(commands.run(layout.TICK))
        assert world.status(world.usage(T, epoch, (day + 1) * MIB)) == layout.OK
        a_day_is_over(world)
    lot = world.machine.lot(world.entities["gold-a"])
    used = int(lot["pool_used_bytes"][2] if pooled else world.machine.sim(0)["used_rolling_bytes"])
    assert 42 * MIB <= used <= (42 + 2 * 3) * MIB


@pytest.mark.parametrize("pooled", [False, True])
def test_a_told_day_that_others_join_at_the_end_of_the_ring_is_of_no_single_day(pooled: bool) -> None:
    world, epoch = rolling_world(15, pooled=4)
    for day in range(14):
        assert world.status(world.usage(T, epoch, (day + 1) * MIB)) == layout.OK
        a_day_is_over(world)
    world.pass_ms(1_000)
    ended_s = world.now_ms // 1000 - 1 - 12 * DAY_MS // 1000
    run = world.figure(0, 5 * MIB, 0, ended_s, layout.ROLLING_DAY)
    if pooled:
        run = world.pool_figure("gold-a", 5 * MIB, 0, ended_s, layout.ROLLING_DAY)
    assert world.status(run) == layout.OK
    numbers = {layout.PLAN_QUOTA_ROLLING: 10 * GIB, layout.PLAN_POOLED: 4, layout.PLAN_ROLLING_DAYS: 30}
    world.define(layout.PLAN, "monthly", numbers)
    for _ in range(3):
        a_day_is_over(world)
    lot = tables(copy_regions(world.machine))["lots"][world.entities["gold-a"]]
    assert lot["pool_days"].tolist() == [day * MIB for day in (0, *[1] * 12, 1 + 5)]
    assert (lot["sims_days_bytes"].sum(), lot["pool_days_told"] & 1 << 13) == (0, 0)
    assert world.machine.check() == []


def test_a_rolling_window_that_was_taken_away_over_a_midnight_and_set_again_has_what_was_used() -> None:
    world, epoch = rolling_world(3)
    assert world.status(world.usage(T, epoch, 4 * MIB)) == layout.OK
    assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, world.now_ms + 1)) == layout.OK
    with_days(world, 0)
    world.pass_ms(STEP_MS)
    assert world.machine.sim(0)["used_rolling_bytes"] == 0, "the day is over"
    with_days(world, 3)
    assert world.machine.sim(0)["used_rolling_bytes"] == 4 * MIB


@pytest.mark.parametrize(("pooled", "of_pool"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("days", [2, 3, 9])
@pytest.mark.parametrize(("told", "beyond"), [(200, 0), (900, 400)])
def test_less_that_a_carrier_said_of_other_days_than_a_window_has_now_holds_no_more(
    told: int, beyond: int, days: int, pooled: bool, of_pool: bool
) -> None:
    """What it said more may be of any of them."""
    numbers = {layout.PLAN_QUOTA_ROLLING: 10 * GIB, layout.PLAN_POOLED: 4 * pooled}
    world, epoch = rolling_world(5, pooled=4 * pooled)
    for day in range(8):
        world.send(world.usage(T, epoch, (day + 1) * 100 * MIB))
        if day < 7:
            a_day_is_over(world)
    world.pass_ms(2_000)
    whole = (told * MIB, 800 * MIB, world.now_ms // 1000, layout.WINDOW_ROLLING)
    figure = world.pool_figure("gold-a", *whole) if of_pool else world.figure(0, *whole)
    assert world.status(figure) == layout.OK
    found = []
    for plan_days in (5, days):
        world.define(layout.PLAN, "monthly", numbers | {layout.PLAN_ROLLING_DAYS: plan_days})
        world.pass_ms(2_000)
        lot = world.machine.lot(world.entities["gold-a"])
        found.append(int(lot["pool_used_bytes"][2] if pooled else world.machine.sim(0)["used_rolling_bytes"]) // MIB)
        assert world.machine.check() == []
    # We counted 100 on each day, and 9 days are those that the ring has.
    assert found == [told, min(days, 8) * 100 + beyond]
    assert world.status(figure) == layout.OK  # told again it says something again


def test_a_days_figure_takes_nothing_off_a_place_that_stands_for_several() -> None:
    """What was used stays when a window of steps of three days has only seven in all."""
    world, epoch = rolling_world(30)
    for day in range(6):
        assert world.status(world.usage(T, epoch, (day + 1) * 3 * MIB)) == layout.OK
        a_day_is_over(world)
    with_days(world, 7)
    world.pass_ms(1)
    today_s = world.now_ms // 1000
    assert world.machine.sim(0)["used_rolling_bytes"] == 18 * MIB
    for told, status in ((MIB, layout.LATE), (20 * MIB, layout.OK)):
        assert world.status(world.figure(0, told, 0, today_s, layout.ROLLING_DAY)) == status
    assert world.machine.sim(0)["used_rolling_bytes"] == 29 * MIB


@pytest.mark.parametrize("pooled", [False, True])
def test_days_on_which_nobody_was_there_have_places_of_their_own(pooled: bool) -> None:
    world, epoch = rolling_world(4, pooled=4 * pooled)
    a_day_is_over(world)
    world.pass_ms(1_000)
    assert world.status(world.usage(T, epoch, 4 * MIB)) == layout.OK
    ended_ms = world.now_ms + 8 * 3_600_000
    assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, ended_ms)) == layout.OK
    world.pass_ms(DAY_MS + 17 * 3_600_000)

    def used() -> int:
        lot = world.machine.lot(world.entities["gold-a"])
        return int(lot["pool_used_bytes"][2] if pooled else world.machine.sim(0)["used_rolling_bytes"])

    seen = [used()]
    for days, told in ((1, MIB), (0, 3 * MIB)):
        at_s = (ended_ms + days * DAY_MS) // 1000
        run = world.figure(0, told, 0, at_s, layout.ROLLING_DAY)
        if pooled:
            run = world.pool_figure("gold-a", told, 0, at_s, layout.ROLLING_DAY)
        assert world.status(run) == layout.OK
        seen.append(used())
    assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, ended_ms + 2 * DAY_MS)) == layout.OK
    for _ in range(3):
        world.pass_ms(DAY_MS)
        seen.append(used())
        at_ms = world.machine.lot(world.entities["gold-a"])["last_reset_ms"][2] + DAY_MS
        assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, at_ms)) == layout.OK
    assert seen == [4 * MIB, 5 * MIB, 4 * MIB, 4 * MIB, MIB, 0]
    assert world.machine.check() == []


def test_what_was_counted_while_the_clock_was_frozen_stays_for_as_long_as_it_may_have_to() -> None:
    """Of which day it is nobody knows, and no figure of a single one takes it away."""
    world, epoch = rolling_world(3)
    assert world.status(world.usage(T, epoch, MIB)) == layout.OK
    at_ms = world.now_ms + 1
    assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, at_ms)) == layout.OK
    world.now_ms += 1
    world.send(commands.run(layout.FREEZE))
    assert world.status(world.usage(T, epoch, 4 * MIB)) == layout.OK
    world.pass_ms(2 * DAY_MS)
    world.send(commands.run(layout.THAW))
    world.pass_ms(2_000)
    assert world.machine.sim(0)["used_rolling_bytes"] == 4 * MIB
    ended_s = at_ms // 1000 + 86_400
    # The days of before it are known, and what was counted then is today's.
    for day, told in enumerate((MIB, 0)):
        assert world.status(world.figure(0, told, 0, ended_s - day * 86_400, layout.ROLLING_DAY)) == layout.OK
    assert world.machine.sim(0)["used_rolling_bytes"] == 4 * MIB
    for _ in range(2):
        a_day_is_over(world)
        world.pass_ms(2_000)
        ended_s = world.machine.lot(world.entities["gold-a"])["last_reset_ms"][2] // 1000
        run = world.figure(0, 0, 0, ended_s, layout.ROLLING_DAY)
        assert world.status(run) in (layout.LATE, layout.SAME, layout.OK)
        assert world.machine.sim(0)["used_rolling_bytes"] >= 3 * MIB
    a_day_is_over(world)
    assert world.machine.sim(0)["used_rolling_bytes"] < 3 * MIB


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("silent", [False, True])
def test_what_was_counted_while_the_clock_was_frozen_is_of_the_day_that_begins(pooled: bool, silent: bool) -> None:
    """Of 3 days, it is gone when the third is over after that; so is what a lease may have used that ended then."""
    world, epoch = rolling_world(3, pooled=4 * pooled)
    assert world.status(world.usage(T, epoch, MIB)) == layout.OK

    def used() -> int:
        lot = world.machine.lot(world.entities["gold-a"])
        found = world.machine.sim(0)
        sums = found["used_rolling_bytes"] + found["allowances_bytes"][2]
        return int(lot["pool_used_bytes"][2]) if pooled else int(sums)

    at_ms = world.now_ms + 10_000
    assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, at_ms)) == layout.OK
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(3_600_000)
    if silent:
        assert world.status(world.lease(layout.RELEASE, T, epoch)) == layout.OK
        world.pass_ms(120_000)
    else:
        assert world.status(world.usage(T, epoch, 101 * MIB)) == layout.OK
    world.send(commands.run(layout.THAW))
    world.pass_ms(2_000)
    assert used() >= 100 * MIB
    for day in range(1, 4):
        at_ms += DAY_MS
        world.now_ms = at_ms - 10
        assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, at_ms)) == layout.OK
        assert used() >= 100 * MIB, day
        world.pass_ms(2_000)
    assert used() == 0
    assert world.machine.check() == []


@pytest.mark.parametrize("midnights", [1, 2, 3])
def test_what_a_sim_had_used_in_its_rolling_days_stays_where_it_is_imported_while_the_clock_is_frozen(
    midnights: int,
) -> None:
    """Of before its cycle as well: by then, and so of which days nobody knows."""
    world, _ = rolling_world(3)
    at_ms = world.now_ms + 10_000
    assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, at_ms)) == layout.OK
    world.pass_ms(12_000)
    at_ms += DAY_MS
    assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, at_ms)) == layout.OK
    world.now_ms = at_ms - 5_000
    world.send(commands.run(layout.FREEZE))
    (new,) = world.import_sims(1, opening_rolling_bytes=4 * GIB)
    world.now_ms = at_ms + (midnights - 1) * DAY_MS + 2 * 3_600_000
    world.send(commands.run(layout.THAW))
    world.pass_ms(2_000)
    assert world.machine.sim(new)["used_rolling_bytes"] == 4 * GIB
    a_day_is_over(world)
    world.pass_ms(2_000)
    assert world.machine.sim(new)["used_rolling_bytes"] == 4 * GIB
    assert world.machine.check() == []


@pytest.mark.parametrize(
    ("late_ms", "status"),
    [(1, layout.LATE), (61_000, layout.OK), (DAY_MS - 1_800_000, layout.LATE), (DAY_MS + 7_200_000, layout.LATE)],
)
def test_a_clock_that_is_frozen_after_a_day_is_over_leaves_the_next_one_a_day_of_its_own(
    late_ms: int, status: layout.Status
) -> None:
    """But not where a day may be over since; and nobody knows of less than a second which came first."""
    world, epoch = rolling_world(5)
    a_day_is_over(world)
    world.pass_ms(1_000)
    at_ms = (world.now_ms // 1_000 + 1) * 1_000
    assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, at_ms)) == layout.OK
    world.now_ms = at_ms + late_ms
    world.send(commands.run(layout.FREEZE) + commands.run(layout.THAW))
    world.pass_ms(1_000)
    assert world.status(world.usage(T, epoch, 9 * MIB)) == layout.OK
    last_ms = int(world.machine.lot(world.entities["gold-a"])["last_reset_ms"][2])
    world.now_ms = last_ms + DAY_MS
    assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, world.now_ms)) == layout.OK
    world.pass_ms(1_000)
    assert world.status(world.figure(0, MIB, 0, world.now_ms // 1_000, layout.ROLLING_DAY)) == status
    assert world.machine.check() == []


def test_what_was_counted_while_the_clock_was_frozen_stays_where_more_timers_are_due_than_one_batch_asks() -> None:
    terminals = 5_000
    world = empty_world(terminals + 64, terminals + 64)
    world.define(layout.PLAN, "monthly", {layout.PLAN_QUOTA_ROLLING: 10 * GIB, layout.PLAN_ROLLING_DAYS: 3})
    world.import_sims(terminals + 64)
    epoch = allocate(world)
    a_day_is_over(world)
    for first in range(T + 1, T + 1 + terminals, 1_000):
        many = np.arange(first, first + 1_000)
        world.send(world.allocate(many, subscriber=many))
    at_ms = world.now_ms + 8 * 3_600_000
    assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, at_ms)) == layout.OK
    world.send(commands.run(layout.FREEZE))
    assert world.status(world.usage(T, epoch, 4 * MIB)) == layout.OK
    world.now_ms = at_ms + 2 * DAY_MS + 5 * 3_600_000
    world.send(commands.run(layout.THAW))
    for _ in range(9):
        world.pass_ms(1_000)
    assert world.machine.sim(0)["used_rolling_bytes"] == 4 * MIB


def test_what_was_counted_while_the_reset_before_goes_on_stays_for_as_long_as_it_may_have_to() -> None:
    """A reset is spread over half a day; the next one is due when its walk has yet to end."""
    world = empty_world(9_000)
    world.define(layout.PLAN, "monthly", {layout.PLAN_QUOTA_ROLLING: 10 * GIB, layout.PLAN_ROLLING_DAYS: 3})
    world.configure(layout.LEASE_MS, 7 * DAY_MS)
    world.import_sims(8_000)
    epoch = allocate(world)
    sim = world.machine.terminal(0)["sim"]
    a_day_is_over(world)
    for _ in range(9):
        world.pass_ms(1_500)
    at_ms = world.now_ms + DAY_MS
    assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, at_ms, DAY_MS // 2)) == layout.OK
    world.pass_ms(DAY_MS + 3_600_000)
    assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, at_ms + DAY_MS)) == layout.OK
    world.now_ms = at_ms + 2 * DAY_MS + 5 * 3_600_000
    assert world.status(world.usage(T, epoch, 400 * MIB)) == layout.OK
    for _ in range(9):
        world.pass_ms(1_500)
    for used in (400 * MIB, 400 * MIB, 400 * MIB, 0):
        assert world.machine.sim(sim)["used_rolling_bytes"] == used
        a_day_is_over(world)
        for _ in range(9):
            world.pass_ms(1_500)


@pytest.mark.parametrize("pooled", [False, True])
def test_a_days_figure_takes_nothing_off_what_was_used_before_the_first_turn(pooled: bool) -> None:
    """Nobody said until then when a day was over."""
    world, epoch = rolling_world(7, pooled=4 * pooled)
    world.configure(layout.LEASE_MS, 7 * DAY_MS)
    for day in range(10):
        assert world.status(world.usage(T, epoch, (day + 1) * GIB // 2)) == layout.OK
        world.pass_ms(DAY_MS)
    a_day_is_over(world)
    world.pass_ms(2_000)
    at_s = world.now_ms // 1000
    for told, status in ((GIB, layout.LATE), (6 * GIB, layout.OK)):
        run = world.figure(0, told, 0, at_s, layout.ROLLING_DAY)
        if pooled:
            run = world.pool_figure("gold-a", told, 0, at_s, layout.ROLLING_DAY)
        assert world.status(run) == status
    lot = world.machine.lot(world.entities["gold-a"])
    assert (lot["pool_used_bytes"][2] if pooled else world.machine.sim(0)["used_rolling_bytes"]) == 6 * GIB


def test_nothing_is_kept_for_rolling_days_where_no_plan_has_any() -> None:
    world = empty_world()
    world.define(layout.PLAN, "daily", {layout.PLAN_QUOTA_CYCLE: 50 * GIB, layout.PLAN_QUOTA_DAY: 3 * GIB})
    world.import_sims(5)
    world.import_sims(5, lot="gold-b")
    regions = {name: count for name, _, count, _ in world.machine.snapshot_regions()}
    assert (regions["sims"], regions["sims_rolling"]) == (10, 0)


def test_the_ring_survives_a_snapshot_and_growth() -> None:
    world, epoch = rolling_world(3)
    world.send(world.usage(T, epoch, 700 * MIB))
    a_day_is_over(world)
    world.send(commands.run(layout.GROW, 1, sims=5_000, terminals=100, orders=100))
    restored = Machine.restore(copy_regions(world.machine))
    assert restored.state_hash() == world.machine.state_hash()
    assert restored.sim(0)["used_rolling_bytes"] == world.machine.sim(0)["used_rolling_bytes"] == 700 * MIB


def test_a_learned_cap_stays_when_the_plan_is_defined_anew_and_yields_where_the_plan_says_something_new() -> None:
    world = empty_world()
    (sim,) = world.import_sims(1)
    lot = world.entities["gold-a"]
    assert world.status(world.set_cap("gold-a", layout.WINDOW_CYCLE, 30 * GIB)) == layout.OK
    assert world.machine.sim(sim)["headroom_bytes"] == 30 * GIB
    world.define(layout.PLAN, "monthly", {layout.PLAN_QUOTA_CYCLE: 100 * GIB, layout.PLAN_LOW_BYTES: MIB})
    assert world.machine.lot(lot)["quota_bytes"][0] == 30 * GIB
    world.define(layout.PLAN, "monthly", {layout.PLAN_QUOTA_CYCLE: 60 * GIB, layout.PLAN_LOW_BYTES: MIB})
    caps = world.machine.lot(lot)
    assert (caps["quota_bytes"][0], caps["basis"][0]) == (60 * GIB, layout.BASIS_BELIEVED)
    assert (caps["before_bytes"][0], caps["before_basis"][0]) == (30 * GIB, layout.BASIS_LEARNED)
    assert world.machine.sim(sim)["headroom_bytes"] == 60 * GIB
    told = [(event["a"], event["b"]) for event in world.events if event["kind"] == layout.EVENT_CAP]
    of_plan = world.entities["monthly"] | layout.WINDOW_CYCLE << 16 | layout.BASIS_BELIEVED << 24
    assert told[-2:] == [(30 * GIB, lot | 1 << 16 | layout.BASIS_LEARNED << 24), (60 * GIB, of_plan)]


def test_the_caps_of_many_lots_are_worked_out_in_one_walk() -> None:
    """More lots than there is room for sweeps."""
    world = empty_world(sims_max=5_000)
    numbers = {
        layout.LOT_SUPPLIER: world.entities["supplier"],
        layout.LOT_PLAN: world.entities["monthly"],
        layout.LOT_CLASS: world.entities["gold"],
    }
    lots = [f"lot-{number}" for number in range(300)]
    for lot in lots:
        world.define(layout.LOT, lot, numbers)
        world.import_sims(15, lot=lot)
    run = commands.run(
        layout.SET_CAP,
        len(lots),
        lot=[world.entities[lot] for lot in lots],
        window=layout.WINDOW_CYCLE,
        quota_bytes=7 * GIB,
        basis=layout.BASIS_LEARNED,
    )
    assert set(world.statuses(run)) == {layout.OK}
    while world.machine.header()["sweeps_count"]:
        world.pass_ms(64)
    assert set(world.machine.sims_columns()["headroom_bytes"].tolist()) == {7 * GIB}


def test_a_small_cap_leaves_its_sims_to_be_handed_out_where_the_plan_says_no_watermark() -> None:
    """A setting of 1 GiB below which SIMs are low would take them all, unused as they are."""
    world = empty_world()
    world.define(layout.PLAN, "monthly", {layout.PLAN_QUOTA_DAY: 800 * MIB})
    world.import_sims(2)
    epoch = allocate(world)
    healths = []
    for used in (599, 601, 749, 751):
        world.pass_ms(60_000)
        assert world.status(world.usage(T, epoch, used * MIB)) == layout.OK
        healths.append(world.machine.sim(0)["health"])
    assert healths == [layout.HEALTHY, layout.LOW, layout.LOW, layout.EXHAUSTED]
    # A cap that is set, one that comes with the plan, and none at all.
    for quota, health in ((400, layout.HEALTHY), (0, layout.EXHAUSTED)):
        assert world.status(world.set_cap("gold-a", layout.WINDOW_CYCLE, quota * MIB)) == layout.OK
        world.pass_ms(64)
        assert world.machine.sim(1)["health"] == health
    world.define(layout.PLAN, "monthly", {layout.PLAN_QUOTA_CYCLE: 500 * MIB, layout.PLAN_QUOTA_DAY: GIB})
    world.pass_ms(64)
    assert world.machine.sim(1)["health"] == layout.HEALTHY
    world.define(layout.PLAN, "monthly", {layout.PLAN_QUOTA_CYCLE: 500 * MIB, layout.PLAN_LOW_BYTES: GIB})
    world.pass_ms(64)
    assert world.machine.sim(1)["health"] == layout.LOW


def test_a_plan_says_only_what_can_be() -> None:
    world = empty_world()
    for numbers in (
        {layout.PLAN_QUOTA_ROLLING: GIB},
        {layout.PLAN_QUOTA_ROLLING: GIB, layout.PLAN_ROLLING_DAYS: 367},
        {layout.PLAN_QUOTA_DAY: GIB, layout.PLAN_BASIS_DAY: 4},
    ):
        with pytest.raises(AssertionError, match=str(int(layout.INVALID_ARGUMENT))):
            world.define(layout.PLAN, "wrong", numbers)

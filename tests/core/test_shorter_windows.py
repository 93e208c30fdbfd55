"""I4: what a carrier counted beyond us in a shorter window is used in the longer ones, once, whenever it says so."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from simswitch.core import layout

from tests.model.transitions import DAY_MS, SECOND_MS, T, allocate
from tests.model.world import GIB, MIB, World, empty_world

CYCLE, DAY, ROLLING, OF_DAY = layout.WINDOW_CYCLE, layout.WINDOW_DAY, layout.WINDOW_ROLLING, layout.ROLLING_DAY
LOT = "gold-b"
HOUR_MS = 3_600_000
KIB4 = 4096


def a_day_begins(world: World) -> int:
    """Its instant."""
    world.pass_ms(-world.now_ms % 1000)
    for window in (DAY, ROLLING):
        assert world.status(world.schedule(LOT, window, world.now_ms)) == layout.OK
    begun_s = world.now_ms // 1000
    world.pass_ms(60 * SECOND_MS)
    return begun_s


def two_days(shared: bool = False, used_bytes: int = 0, rolling_days: int = 3) -> tuple[World, int]:
    """A cycle that began two days ago, so much used in it; when today did."""
    world = empty_world()
    world.configure(layout.LEASE_MS, 7 * DAY_MS)
    world.configure(layout.AUTOMATIC_SWAPS, 0)
    plan = {
        layout.PLAN_QUOTA_ROLLING: 100 * GIB,
        layout.PLAN_ROLLING_DAYS: rolling_days,
        layout.PLAN_QUOTA_DAY: 100 * GIB,
    }
    plan |= {layout.PLAN_QUOTA_CYCLE: 100 * GIB, layout.PLAN_POOLED: 7 if shared else 0}
    world.define(layout.PLAN, "daily", plan)
    world.import_sims(1, lot=LOT)
    epoch = allocate(world)
    assert world.status(world.schedule(LOT, CYCLE, world.now_ms)) == layout.OK
    world.pass_ms(SECOND_MS)
    a_day_begins(world)
    world.pass_ms(HOUR_MS)
    assert not used_bytes or world.status(world.usage(T, epoch, used_bytes)) == layout.OK
    for _ in range(2):
        world.pass_ms(DAY_MS - HOUR_MS)
        begun_s = a_day_begins(world)
        world.pass_ms(HOUR_MS)
    return world, begun_s


def used(world: World, shared: bool = False) -> list[int]:
    """In the cycle and in the rolling days."""
    if shared:
        everything = world.machine.lot(world.entities[LOT])["pool_used_bytes"]
        return [int(everything[0]), int(everything[2])]
    found = world.machine.sim(0)
    return [int(found["used_cycle_bytes"]), int(found["used_rolling_bytes"])]


def teller(world: World, shared: bool) -> Callable[..., None]:
    """Says a figure of the SIM, or of its pool."""

    def tell(window: int, told: int, as_of_s: int, counted: int = 0, straddling: int = 0) -> None:
        if shared:
            run = world.pool_figure(LOT, told, counted, as_of_s, window, straddling_bytes=straddling)
        else:
            run = world.figure(0, told, counted, as_of_s, window, False, straddling)
        assert world.status(run) == layout.OK
        assert world.machine.check() == []

    return tell


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_days_add_up_in_whichever_order_they_are_told(order: tuple[int, ...], shared: bool) -> None:
    world, begun_s = two_days(shared)
    figures = [(OF_DAY, begun_s - 86_400), (OF_DAY, begun_s), (DAY, begun_s + 600)]
    tell = teller(world, shared)
    for place in order:
        tell(figures[place][0], (2 + place) * GIB, figures[place][1])
    assert used(world, shared) == [9 * GIB, 9 * GIB]
    # What was wrong takes back all that it added.
    for place in order:
        tell(figures[place][0], 0, figures[place][1])
    assert used(world, shared) == [0, 0]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("day_first", [False, True])
def test_a_figure_of_the_cycle_as_of_when_the_day_began_knows_nothing_of_the_day(day_first: bool, shared: bool) -> None:
    world, begun_s = two_days(shared, used_bytes=4 * GIB)
    tell = teller(world, shared)
    for window in (DAY, CYCLE) if day_first else (CYCLE, DAY):
        tell(window, 2 * GIB if window == DAY else 5 * GIB, begun_s + (600 if window == DAY else 0), 4 * GIB)
    assert used(world, shared) == [7 * GIB, 6 * GIB]
    for told in (50, 3):
        tell(DAY, told * GIB, begun_s + 700, 4 * GIB)
        assert used(world, shared) == [(5 + told) * GIB, (4 + told) * GIB]
    # One of the cycle that knows of it takes its place.
    tell(CYCLE, 9 * GIB, begun_s + 800, 4 * GIB)
    assert used(world, shared)[0] == 9 * GIB


@pytest.mark.parametrize("shared", [False, True])
def test_what_we_counted_on_the_days_before_is_in_the_cycle_too(shared: bool) -> None:
    world, begun_s = two_days(shared, used_bytes=6 * GIB)
    teller(world, shared)(DAY, 2 * GIB, begun_s + 600, 6 * GIB)
    assert used(world, shared) == [8 * GIB, 8 * GIB]


@pytest.mark.parametrize("shared", [False, True])
def test_a_late_figure_of_the_cycle_knows_nothing_of_the_days_since(shared: bool) -> None:
    world, begun_s = two_days(shared)
    tell = teller(world, shared)
    tell(OF_DAY, 3 * GIB, begun_s)
    tell(DAY, 2 * GIB, begun_s + 600)
    tell(CYCLE, 10 * GIB, begun_s - 86_400)
    assert used(world, shared)[0] == 15 * GIB
    # One of noon may know of all that yesterday had.
    tell(CYCLE, 11 * GIB, begun_s - 43_200)
    assert used(world, shared)[0] == 13 * GIB
    tell(OF_DAY, 4 * GIB, begun_s)
    assert used(world, shared)[0] == 13 * GIB


@pytest.mark.parametrize("shared", [False, True])
def test_a_day_that_is_told_late_joins_a_figure_of_the_cycle_of_before_it(shared: bool) -> None:
    world, begun_s = two_days(shared)
    tell = teller(world, shared)
    tell(CYCLE, 10 * GIB, begun_s - 86_400)
    for told in (3, 5, 1):
        tell(OF_DAY, told * GIB, begun_s)
        assert used(world, shared) == [(10 + told) * GIB, told * GIB]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("cycle", [None, 10])
@pytest.mark.parametrize("order", [(3, 5, 3, 5), (7, 3), *itertools.permutations((3, 5, 7, 8))])
def test_a_day_is_in_the_cycle_as_told_and_never_below_what_we_counted(
    order: tuple[int, ...], cycle: int | None, shared: bool
) -> None:
    """Once, whatever was told of it before; with no figure of the cycle, or one of before that day."""
    world, begun_s = two_days(shared, used_bytes=5 * GIB)
    tell = teller(world, shared)
    if cycle:
        tell(CYCLE, cycle * GIB, begun_s - 2 * 86_400)
    for told in order + order:
        tell(OF_DAY, told * GIB, begun_s - 86_400)
        assert used(world, shared) == [((cycle or 0) + max(told, 5)) * GIB, told * GIB]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_a_day_told_too_low_has_what_we_counted_in_a_cycle_told_before_or_after_it(
    order: tuple[int, ...], shared: bool
) -> None:
    world, begun_s = two_days(shared, used_bytes=5 * GIB)
    figures = [(CYCLE, 10, begun_s - 2 * 86_400), (OF_DAY, 3, begun_s - 86_400), (OF_DAY, 7, begun_s)]
    for place in order:
        window, told, as_of_s = figures[place]
        teller(world, shared)(window, told * GIB, as_of_s)
    assert used(world, shared) == [(10 + 5 + 7) * GIB, (3 + 7) * GIB]


@pytest.mark.parametrize("shared", [False, True])
def test_what_we_counted_on_a_day_that_was_told_goes_on_with_it_as_days_pass(shared: bool) -> None:
    world, begun_s = two_days(shared, used_bytes=5 * GIB, rolling_days=4)
    tell = teller(world, shared)
    tell(OF_DAY, 3 * GIB, begun_s - 86_400)
    world.pass_ms(DAY_MS - HOUR_MS)
    begun_s = a_day_begins(world)
    for told in (5, 3, 7):
        tell(OF_DAY, told * GIB, begun_s - 2 * 86_400)
        assert used(world, shared) == [max(told, 5) * GIB, told * GIB]


@pytest.mark.parametrize("pool_first", [False, True])
def test_a_day_of_a_sim_that_swings_under_its_pools_adds_nothing_to_the_pools_cycle(pool_first: bool) -> None:
    world, begun_s = two_days(shared=True, used_bytes=22 * MIB)
    pools = world.pool_figure(LOT, 75 * MIB, 0, begun_s - 86_400, OF_DAY)
    if pool_first:
        assert world.status(pools) == layout.OK
    for swing in range(20):
        for told in (74, 55):
            assert world.status(world.figure(0, told * MIB, 0, begun_s - 86_400, OF_DAY)) == layout.OK
            if not (swing or pool_first):
                assert world.status(pools) in (layout.OK, layout.SAME)
            assert used(world, shared=True) == [75 * MIB, 75 * MIB]
    assert world.machine.check() == []


@pytest.mark.parametrize("told", [74, 75, 80])
@pytest.mark.parametrize("falls_to", [10, 55])
def test_a_pools_cycle_keeps_what_was_told_of_its_day_where_that_of_a_sim_falls(told: int, falls_to: int) -> None:
    world, begun_s = two_days(shared=True, used_bytes=22 * MIB)
    of_day_s = begun_s - 86_400
    for run in (
        world.figure(0, 74 * MIB, 0, of_day_s, OF_DAY),
        world.pool_figure(LOT, told * MIB, 0, of_day_s, OF_DAY),
        world.figure(0, falls_to * MIB, 0, of_day_s, OF_DAY),
    ):
        assert world.status(run) == layout.OK
    assert used(world) == [max(falls_to, 22) * MIB, falls_to * MIB]
    assert used(world, shared=True) == [told * MIB, told * MIB]
    assert world.machine.check() == []


@pytest.mark.parametrize("shared", [False, True])
def test_what_grew_since_a_figure_of_the_cycle_of_the_same_day_joins_it_and_no_swinging_adds_up(shared: bool) -> None:
    world, begun_s = two_days(shared)
    tell = teller(world, shared)
    # Whether the first 2 are in the 10 nobody knows.
    for window, told in ((CYCLE, 10), (DAY, 2), (DAY, 3)):
        begun_s += 60
        tell(window, told * GIB, begun_s)
    assert used(world, shared)[0] == 11 * GIB
    for step in range(40):
        begun_s += 60
        tell(DAY, (2 + step % 2) * GIB, begun_s)
    assert used(world, shared)[0] == 13 * GIB


def test_what_rolling_days_have_beyond_us_joins_a_cycle_of_which_nothing_is_said() -> None:
    """With what their day has, once."""
    world, begun_s = two_days(used_bytes=GIB)
    tell = teller(world, False)
    for window, told, cycle in ((DAY, 2, 3), (ROLLING, 6, 6), (DAY, 3, 6), (ROLLING, 8, 8), (ROLLING, 4, 4)):
        begun_s += 60
        tell(window, told * GIB, begun_s, GIB)
        assert used(world)[0] == cycle * GIB


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("percent", [98, 100, 102])
@pytest.mark.parametrize("cycle_hour", [0, 7, 12, None])
def test_a_month_of_hourly_figures_counts_what_was_used_and_no_day_twice(
    cycle_hour: int | None, percent: int, shared: bool
) -> None:
    """Of the day every hour, of the cycle never or once a day: of noon, or of when the day began, told at seven."""
    drawn = random.Random(percent)
    world, _ = two_days(shared)
    epoch = int(world.machine.terminal(0)["epoch"])
    tell = teller(world, shared)
    total, days = 0, [0]
    for _ in range(28):
        world.pass_ms(-world.now_ms % 1000 + HOUR_MS)
        midnight_s, midnight_bytes = a_day_begins(world), total
        days.append(0)
        for hour in range(23):
            if hour == cycle_hour:
                of_midnight = hour in (0, 7)
                as_of_s = midnight_s if of_midnight else world.now_ms // 1000
                counted = midnight_bytes if of_midnight else total
                tell(CYCLE, counted * percent // 100, as_of_s, counted)
            world.pass_ms(HOUR_MS)
            more = drawn.randrange(1, 100) * MIB
            total, days[-1] = total + more, days[-1] + more
            assert world.status(world.usage(T, epoch, total)) == layout.OK
            tell(DAY, days[-1] * percent // 100, world.now_ms // 1000, total)
            excess = days[-1] * max(percent - 100, 0) // 100
            for found, own in zip(used(world, shared), (total, sum(days[-3:])), strict=True):
                assert found >= own * percent // 100 - 30
                assert found <= own * max(percent, 100) // 100 + excess + 3 * KIB4

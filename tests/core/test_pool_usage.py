"""Carriers' figures of whole pools: nothing used since is forgotten, and no SIM's figure takes it back."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

from tests.model.records import copy_regions, pack, tables
from tests.model.transitions import DAY_MS, SECOND_MS, SILENCE_MS, T, allocate
from tests.model.world import GIB, MIB, World, empty_world

CYCLE, DAY, ROLLING = layout.WINDOW_CYCLE, layout.WINDOW_DAY, layout.WINDOW_ROLLING
LOT = "gold-a"


def shared_world(sims: int = 4, **plan: int) -> World:
    """The SIMs of gold-a share a cycle of 100 GiB."""
    world = empty_world()
    world.define(layout.PLAN, "monthly", {layout.PLAN_QUOTA_CYCLE: 100 * GIB, layout.PLAN_POOLED: 1} | plan_of(**plan))
    world.import_sims(sims)
    return world


def plan_of(**plan: int) -> dict[int, int]:
    return {int(getattr(layout, f"PLAN_{name.upper()}")): value for name, value in plan.items()}


def pool(world: World) -> dict[str, Any]:
    return world.machine.lot(world.entities[LOT])


@pytest.mark.parametrize("seed", range(6))
def test_what_is_left_is_never_more_than_the_last_figure_and_all_that_was_used_since_leave(seed: int) -> None:
    """Whatever its SIMs report and whatever figures of single SIMs say besides, late, early, more or less."""
    drawn = random.Random(seed)
    world = shared_world()
    terminals = [1, 2, 3]
    epochs = {terminal: allocate(world, terminal) for terminal in terminals}
    sims = {terminal: int(world.machine.terminal(place)["sim"]) for place, terminal in enumerate(terminals)}
    totals = dict.fromkeys(terminals, 0)
    counted = [(world.now_ms // 1000, 0, dict(totals))]
    figure: tuple[int, int] | None = None
    said: dict[int, int] = {}
    held = 0
    for _ in range(60):
        world.pass_ms(SECOND_MS)
        for terminal in terminals:
            totals[terminal] += drawn.randrange(1, 100 * MIB)
            assert world.status(world.usage(terminal, epochs[terminal], totals[terminal])) == layout.OK
        counted.append((world.now_ms // 1000, sum(totals.values()), dict(totals)))
        as_of_s, then, by_terminal = counted[-min(drawn.randrange(1, 8), len(counted))]
        told, terminal = drawn.randrange(40 * GIB), drawn.choice(terminals)
        if drawn.random() < 0.3:
            straddling = drawn.choice((0, then // 9))
            run = world.pool_figure(LOT, told, then, as_of_s, straddling_bytes=straddling)
            if world.status(run) == layout.OK:
                figure = (told, then)
                used = told + sum(totals.values()) - then + pool(world)["pool_straddling_bytes"][0]
                used += pool(world)["pool_raised_bytes"][0]
                assert pool(world)["pool_straddling_bytes"][0] in (0, straddling)
                assert pool(world)["pool_used_bytes"][0] == used
                assert pool(world)["pool_left_bytes"] == 100 * GIB - used
        elif drawn.random() < 0.5:
            run = world.figure(sims[terminal], told // 3, by_terminal[terminal], as_of_s)
            if world.status(run) == layout.OK:
                said[terminal] = told // 3
        if figure is not None:
            held += 1
            told, then = figure
            assert pool(world)["pool_used_bytes"][0] >= told + sum(totals.values()) - then
        assert pool(world)["pool_used_bytes"][0] >= sum(said.values())
        assert world.machine.check() == []
    assert held > 20
    assert world.machine.header()["counted_bytes"] == sum(totals.values()) == pool(world)["pool_counted_bytes"]
    restored = Machine.restore(copy_regions(world.machine))
    assert restored.state_hash() == world.machine.state_hash()
    assert restored.lot(world.entities[LOT]) == pool(world)


def test_headroom_is_less_by_what_straddles_and_by_what_leases_may_use() -> None:
    """I4: the carrier leaves 102 GiB, half a GiB of which may be gone; then 64 are claimed."""
    world = shared_world()
    world.send(world.set_cap(LOT, CYCLE, 3200 * GIB))
    epoch = allocate(world)
    world.pass_ms(SECOND_MS)
    world.send(world.usage(T, epoch, GIB))
    told, as_of_s = 3098 * GIB, world.now_ms // 1000
    assert world.status(world.pool_figure(LOT, told, GIB, as_of_s, straddling_bytes=GIB // 2)) == layout.OK
    assert pool(world)["pool_left_bytes"] == 102 * GIB - GIB // 2
    for expected, status in (
        (102 * GIB, layout.NO_HEALTHY_SIM),
        (64 * GIB, layout.OK),
        (64 * GIB, layout.NO_HEALTHY_SIM),
    ):
        assert world.status(world.allocate(5 + status, expected_bytes=expected)) == status
    assert pool(world)["pool_claimed_bytes"] == 64 * GIB


def rolling_world() -> tuple[World, int]:
    """Three rolling days are shared; 1 GiB was used the day before yesterday, 2 yesterday and 3 today."""
    world = shared_world(quota_rolling=50 * GIB, rolling_days=3, pooled=1 << 2 | 1)
    epoch = allocate(world)
    total = 0
    for day in (1, 2):
        world.pass_ms(SECOND_MS)
        total += day * GIB
        world.send(world.usage(T, epoch, total))
        assert world.status(world.schedule(LOT, ROLLING, world.now_ms)) == layout.OK
        world.pass_ms(SECOND_MS)
    world.send(world.usage(T, epoch, total + 3 * GIB))
    return world, epoch


def a_day_is_over(world: World) -> None:
    world.pass_ms(SECOND_MS)
    assert world.status(world.schedule(LOT, ROLLING, world.now_ms)) == layout.OK
    world.pass_ms(SECOND_MS)


def test_a_figure_of_a_single_day_takes_the_place_of_what_was_counted_on_it_and_goes_with_it() -> None:
    world, _ = rolling_world()
    ended_s = world.now_ms // 1000 - 16
    rolling = [pool(world)["pool_used_bytes"][2]]
    assert world.status(world.pool_figure(LOT, 7 * GIB, 0, ended_s, layout.ROLLING_DAY)) == layout.OK
    assert world.status(world.pool_figure(LOT, 7 * GIB, 0, ended_s, layout.ROLLING_DAY)) == layout.SAME
    # What one of its SIMs is said to have used on that day is in it.
    assert world.status(world.figure(0, 6 * GIB, 0, ended_s, layout.ROLLING_DAY)) == layout.OK
    assert world.status(world.figure(0, 0, 0, ended_s, layout.ROLLING_DAY)) == layout.OK
    for _ in range(4):
        rolling.append(pool(world)["pool_used_bytes"][2])
        a_day_is_over(world)
    assert rolling == [6 * GIB, 11 * GIB, 10 * GIB, 3 * GIB, 0]
    assert world.machine.check() == []


def test_figures_of_a_pools_window_count_from_its_instant_on_also_where_we_came_to_it_late() -> None:
    """And none of the pool is below those of its SIMs, of whichever instants in the window."""
    world = shared_world(quota_day=20 * GIB, pooled=3)
    assert world.status(world.usage(T, allocate(world), GIB)) == layout.OK
    began_s = world.now_ms // 1000 + 60
    assert world.status(world.figure(0, GIB, GIB, began_s - 60, DAY)) == layout.OK
    assert world.status(world.schedule(LOT, DAY, began_s * 1000)) == layout.OK
    world.pass_ms(13 * 3_600_000)
    now_s = world.now_ms // 1000
    assert world.status(world.pool_figure(LOT, 6 * GIB, GIB, began_s - 1, DAY)) == layout.PAST_WINDOW
    assert world.status(world.pool_figure(LOT, 6 * GIB, GIB, now_s - 300, DAY)) == layout.OK
    assert pool(world)["pool_used_bytes"][1] == 6 * GIB
    assert world.status(world.figure(1, 5 * GIB, 0, began_s + 600, DAY)) == layout.OK
    assert world.status(world.figure(2, 4 * GIB, 0, began_s + 500, DAY)) == layout.OK
    assert pool(world)["pool_used_bytes"][1] == 9 * GIB
    assert world.machine.check() == []


def test_a_figure_of_the_whole_rolling_window_is_of_today_and_what_it_has_beyond_us_goes_with_today() -> None:
    world, _ = rolling_world()
    assert world.status(world.pool_figure(LOT, 10 * GIB, 6 * GIB, world.now_ms // 1000, ROLLING)) == layout.OK
    rolling = []
    for _ in range(4):
        rolling.append(pool(world)["pool_used_bytes"][2])
        a_day_is_over(world)
    assert rolling == [10 * GIB, 9 * GIB, 7 * GIB, 0]
    # All of them are of the cycle.
    assert pool(world)["pool_correction_bytes"] == [4 * GIB, 0, 0]


@pytest.mark.parametrize("of_sim_first", [False, True])
def test_what_a_carrier_counted_less_comes_off_a_rolling_window_once(of_sim_first: bool) -> None:
    """Of a day of the pool, and of all days of a SIM, in whichever order: nobody knows of which of them that is."""
    world, _ = rolling_world()
    ended_s, now_s = world.now_ms // 1000 - 16, world.now_ms // 1000
    of_pools_day = world.pool_figure(LOT, GIB, 0, ended_s, layout.ROLLING_DAY)
    figures = [of_pools_day, world.figure(0, 4 * GIB, 6 * GIB, now_s, ROLLING)]
    rolling = []
    for figure in figures[::-1] if of_sim_first else figures:
        assert world.status(figure) == layout.OK
        rolling.append(pool(world)["pool_used_bytes"][2] // GIB)
    assert rolling == ([4, 5] if of_sim_first else [5, 5])
    # The SIM's holds until its day is over, the pool's as long as its day counts: 1 + 3.
    a_day_is_over(world)
    assert pool(world)["pool_used_bytes"][2] == 4 * GIB
    assert world.machine.check() == []


@pytest.mark.parametrize("of_sim_first", [False, True])
@pytest.mark.parametrize("told", [3, 4])
@pytest.mark.parametrize("window", [CYCLE, ROLLING])
def test_less_of_one_sim_takes_nothing_off_what_was_said_of_all_of_them_of_the_day(
    window: int, told: int, of_sim_first: bool
) -> None:
    """3 GiB were counted today on one SIM; what the carrier had less of it another one used, and we did not count."""
    world = shared_world(quota_day=50 * GIB, quota_rolling=50 * GIB, rolling_days=3, pooled=7)
    epoch = allocate(world)
    for each in (CYCLE, DAY, ROLLING):
        assert world.status(world.schedule(LOT, each, world.now_ms + SECOND_MS)) == layout.OK
    world.pass_ms(2 * SECOND_MS)
    assert world.status(world.usage(T, epoch, 3 * GIB)) == layout.OK
    now_s = world.now_ms // 1000
    figures = [world.pool_figure(LOT, told * GIB, 3 * GIB, now_s, DAY), world.figure(0, GIB, 3 * GIB, now_s, window)]
    for figure in figures[::-1] if of_sim_first else figures:
        assert world.status(figure) == layout.OK
    assert pool(world)["pool_used_bytes"] == [told * GIB] * 3
    assert world.machine.sim(0)["used_rolling_bytes" if window == ROLLING else "used_cycle_bytes"] == GIB
    assert world.machine.check() == []


def day_of_all_world() -> tuple[World, int]:
    """All windows are shared and begin together; 1 GiB was used yesterday on one SIM, and 1 today. When that began."""
    world = shared_world(quota_day=50 * GIB, quota_rolling=50 * GIB, rolling_days=3, pooled=7)
    world.configure(layout.LEASE_MS, 4 * DAY_MS)
    epoch = allocate(world)
    at_ms = (world.now_ms // 1000 + 1) * 1000 - DAY_MS
    for day in (1, 2):
        at_ms += DAY_MS
        for each in (CYCLE, DAY, ROLLING)[day - 1 :]:
            assert world.status(world.schedule(LOT, each, at_ms)) == layout.OK
        world.now_ms = at_ms
        world.pass_ms(SECOND_MS)
        assert world.status(world.usage(T, epoch, day * GIB)) == layout.OK
    return world, at_ms // 1000


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_a_cycle_has_the_day_and_the_days_before_it_in_whichever_order_they_are_told(order: tuple[int, ...]) -> None:
    """Of the one SIM the carrier counted nothing: others used what it did on them."""
    world, ended_s = day_of_all_world()
    now_s = world.now_ms // 1000
    figures = [
        world.pool_figure(LOT, GIB, 0, ended_s, layout.ROLLING_DAY),
        world.pool_figure(LOT, GIB, 2 * GIB, now_s, DAY),
        world.figure(0, 0, 2 * GIB, now_s),
    ]
    for each in order:
        assert world.status(figures[each]) == layout.OK
    assert pool(world)["pool_used_bytes"] == [2 * GIB, GIB, 2 * GIB]
    assert world.machine.check() == []


@pytest.mark.parametrize("of_sim_first", [False, True])
def test_days_of_a_pool_leave_no_less_than_what_was_said_of_its_sims(of_sim_first: bool) -> None:
    """Of the SIM nothing on the first day, and all on the second: as much in all as we counted."""
    world, ended_s = day_of_all_world()
    of_sim = world.figure(0, 2 * GIB, 2 * GIB, world.now_ms // 1000, ROLLING)
    figures = [world.pool_figure(LOT, 0, 0, ended_s, layout.ROLLING_DAY), of_sim]
    for figure in figures[::-1] if of_sim_first else figures:
        assert world.status(figure) == layout.OK
    assert pool(world)["pool_used_bytes"][2] == 2 * GIB
    a_day_is_over(world)
    assert pool(world)["pool_used_bytes"][2] == 2 * GIB
    assert world.machine.check() == []


@pytest.mark.parametrize("window", [CYCLE, ROLLING])
def test_a_figure_that_is_taken_back_leaves_a_longer_window_what_the_day_has(window: int) -> None:
    """Also where an older figure of that window holds."""
    world, _ = day_of_all_world()
    told = []
    for figure in (
        world.pool_figure(LOT, 2 * GIB, 2 * GIB, world.now_ms // 1000, window),
        world.figure(0, 3 * GIB, 2 * GIB, world.now_ms // 1000 + 1, window),
        world.pool_figure(LOT, 3 * GIB, 2 * GIB, world.now_ms // 1000 + 2, DAY),
        world.figure(0, 2 * GIB, 2 * GIB, world.now_ms // 1000 + 3, window),
    ):
        world.pass_ms(SECOND_MS)
        assert world.status(figure) == layout.OK
        told.append(pool(world)["pool_used_bytes"][window - 1] // GIB)
    assert told == [2, 3, 3, 3]
    assert world.machine.check() == []


def test_what_is_allowed_for_in_the_day_is_no_use_of_a_cycle_whose_own_figure_knows_better() -> None:
    world = shared_world(quota_day=50 * GIB, pooled=3)
    for window in (CYCLE, DAY):
        assert world.status(world.schedule(LOT, window, world.now_ms + SECOND_MS)) == layout.OK
    world.pass_ms(2 * SECOND_MS)
    epoch = allocate(world)
    assert world.status(world.pool_figure(LOT, MIB, 0, world.now_ms // 1000, DAY)) == layout.OK
    world.pass_ms(SILENCE_MS)
    assert world.status(world.lease(layout.RELEASE, T, epoch)) == layout.OK
    world.pass_ms(120_000)
    assert pool(world)["pool_used_bytes"][0] > MIB
    assert world.status(world.pool_figure(LOT, MIB, 0, world.now_ms // 1000)) == layout.OK
    world.pass_ms(SECOND_MS)
    assert world.status(world.figure(3, 0, 0, world.now_ms // 1000)) == layout.OK
    assert pool(world)["pool_used_bytes"][0] == MIB < pool(world)["pool_used_bytes"][1]
    assert world.machine.check() == []


def test_rolling_days_may_be_of_before_a_cycle_of_which_nobody_says_when_it_began() -> None:
    """Its own figure, of a little before, says that it has less."""
    world, _ = rolling_world()
    now_s = world.now_ms // 1000
    assert world.status(world.pool_figure(LOT, 3 * GIB, 6 * GIB, now_s - 1)) == layout.OK
    assert world.status(world.pool_figure(LOT, 10 * GIB, 6 * GIB, now_s, ROLLING)) == layout.OK
    assert pool(world)["pool_used_bytes"] == [3 * GIB, 0, 10 * GIB]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_what_a_sims_day_explains_of_the_pools_stays_in_a_cycle_that_was_told_before(order: tuple[int, ...]) -> None:
    """1 GiB until midnight, and 4 on the day: 2 of them on the SIM, of whose cycle we counted as much."""
    world, midnight_s = day_of_all_world()
    assert world.status(world.pool_figure(LOT, GIB, GIB, midnight_s)) == layout.OK
    now_s = world.now_ms // 1000
    figures = [
        world.pool_figure(LOT, 4 * GIB, 2 * GIB, now_s, DAY),
        world.figure(0, 2 * GIB, 2 * GIB, now_s),
        world.figure(0, 2 * GIB, 2 * GIB, now_s, DAY),
    ]
    for each in order:
        assert world.status(figures[each]) == layout.OK
    assert pool(world)["pool_used_bytes"] == [5 * GIB, 4 * GIB, 5 * GIB]
    assert world.machine.check() == []


@pytest.mark.parametrize("window", [CYCLE, ROLLING])
def test_what_makes_up_in_the_day_for_less_of_a_sim_is_no_use_of_longer_windows(window: int) -> None:
    """They have what we counted."""
    world, _ = day_of_all_world()
    now_s = world.now_ms // 1000
    for figure in (world.pool_figure(LOT, GIB, 2 * GIB, now_s, DAY), world.figure(0, 0, 2 * GIB, now_s, DAY)):
        assert world.status(figure) == layout.OK
    assert pool(world)["pool_used_bytes"][1] == GIB
    assert pool(world)["pool_used_bytes"][window - 1] == 2 * GIB
    assert world.machine.check() == []


def test_a_figure_of_the_pools_rolling_window_holds_where_its_sims_have_less_than_nothing_beside_it() -> None:
    """Yesterday nothing was used of the pool, and of the SIM 1 GiB on all days, of which we counted 6."""
    world, _ = rolling_world()
    now_s = world.now_ms // 1000
    figures = [
        world.pool_figure(LOT, 0, 0, now_s - 16, layout.ROLLING_DAY),
        world.figure(0, GIB, 6 * GIB, now_s, ROLLING),
        world.pool_figure(LOT, 2 * GIB, 6 * GIB, now_s, ROLLING),
    ]
    for figure in figures:
        assert world.status(figure) == layout.OK
    assert pool(world)["pool_used_bytes"][2] == 2 * GIB
    assert world.machine.check() == []


def test_a_rolling_window_has_its_days_and_the_day_also_where_it_was_told_a_little_before() -> None:
    world, midnight_s = day_of_all_world()
    now_s = world.now_ms // 1000
    assert world.status(world.pool_figure(LOT, 5 * GIB, 0, midnight_s, layout.ROLLING_DAY)) == layout.OK
    assert world.status(world.pool_figure(LOT, 5 * GIB, GIB, now_s, ROLLING)) == layout.OK
    world.pass_ms(SECOND_MS)
    assert world.status(world.pool_figure(LOT, 3 * GIB, 2 * GIB, now_s + 1, DAY)) == layout.OK
    assert pool(world)["pool_used_bytes"][2] == 8 * GIB
    assert world.machine.check() == []


@pytest.mark.parametrize(("days", "hours"), [(1, 24), (2, 24), (3, 24), (3, 23), (3, 25)])
@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("pooled", [0, 5])
def test_rolling_days_that_began_with_the_cycle_are_in_it(pooled: int, told: bool, days: int, hours: int) -> None:
    """Also a single one, and also where a clock was changed meanwhile."""
    world = shared_world(quota_rolling=50 * GIB, rolling_days=days, pooled=pooled)
    world.configure(layout.LEASE_MS, 4 * DAY_MS)
    epoch = allocate(world)
    at_ms = (world.now_ms // 1000 + 1) * 1000
    assert world.status(world.schedule(LOT, CYCLE, at_ms)) == layout.OK
    for day in range(days):
        assert world.status(world.schedule(LOT, ROLLING, at_ms)) == layout.OK
        world.now_ms = at_ms
        world.pass_ms(SECOND_MS)
        assert world.status(world.usage(T, epoch, (day + 1) * GIB)) == layout.OK
        if told and day == 0:
            now_s = world.now_ms // 1000
            figure = world.pool_figure(LOT, GIB, GIB, now_s) if pooled else world.figure(0, GIB, GIB, now_s)
            assert world.status(figure) == layout.OK
        at_ms += (hours if day == days - 2 else 24) * 3_600_000
    world.pass_ms(SECOND_MS)
    said = (20 * GIB, days * GIB, world.now_ms // 1000, ROLLING)
    assert world.status(world.pool_figure(LOT, *said) if pooled else world.figure(0, *said)) == layout.OK
    used = pool(world)["pool_used_bytes"][0] if pooled else world.machine.sim(0)["used_cycle_bytes"]
    assert used == 20 * GIB
    assert world.machine.check() == []


def test_less_of_one_sims_cycle_takes_nothing_off_what_was_said_of_all_of_them_of_single_days() -> None:
    world, _ = rolling_world()
    ended_s, now_s = world.now_ms // 1000 - 16, world.now_ms // 1000
    assert world.status(world.pool_figure(LOT, 5 * GIB, 0, ended_s, layout.ROLLING_DAY)) == layout.OK
    assert pool(world)["pool_used_bytes"][0] == 9 * GIB
    assert world.status(world.figure(0, 0, 6 * GIB, now_s)) == layout.OK
    assert pool(world)["pool_used_bytes"][0] == 5 * GIB
    assert world.machine.check() == []


@pytest.mark.parametrize("of_sim_first", [False, True])
@pytest.mark.parametrize("then", ["a day is over", "its plan has more days"])
def test_what_only_makes_up_for_less_of_a_sim_goes_with_that(then: str, of_sim_first: bool) -> None:
    """The pool's figure is as much as we counted, whatever its carrier says of one SIM."""
    world, _ = rolling_world()
    now_s = world.now_ms // 1000
    figures = [world.pool_figure(LOT, 6 * GIB, 6 * GIB, now_s, ROLLING), world.figure(0, GIB, 6 * GIB, now_s, ROLLING)]
    for figure in figures[::-1] if of_sim_first else figures:
        assert world.status(figure) == layout.OK
        assert pool(world)["pool_used_bytes"][2] in (GIB, 6 * GIB)
    assert pool(world)["pool_used_bytes"][2] == 6 * GIB
    if then == "a day is over":
        a_day_is_over(world)
    else:
        more = plan_of(quota_cycle=100 * GIB, quota_rolling=50 * GIB, rolling_days=4, pooled=1 << 2 | 1)
        world.define(layout.PLAN, "monthly", more)
        world.pass_ms(SECOND_MS)
    # The day before yesterday leaves with the turn.
    assert pool(world)["pool_used_bytes"][2] == (5 * GIB if then == "a day is over" else 6 * GIB)
    assert world.machine.check() == []


def test_a_figure_of_a_pools_rolling_window_waits_until_its_sims_follow_their_days() -> None:
    world, _ = rolling_world()
    now_s = world.now_ms // 1000
    more = plan_of(quota_cycle=100 * GIB, quota_rolling=50 * GIB, rolling_days=4, pooled=1 << 2 | 1)
    record = np.frombuffer(commands.definition(layout.PLAN, "monthly", more), "V1024")
    figure = world.pool_figure(LOT, 6 * GIB, 6 * GIB, now_s, ROLLING)
    _, outcome = world.send(commands.run(layout.DEFINE, 1, definition=record), figure)
    assert outcome["status"].tolist() == [layout.WRONG_STATE]
    assert world.status(figure) == layout.OK


def test_a_pool_is_as_a_program_counts_it_from_its_start_on() -> None:
    """One that counted otherwise may have left it."""
    world = shared_world()
    regions = copy_regions(world.machine)
    state = tables(regions)
    record = state["lots"][world.entities[LOT]]
    record["pool_limit_bytes"] += GIB
    world.machine = Machine.restore(pack(regions, state))
    assert pool(world)["pool_left_bytes"] == 101 * GIB
    world.send(commands.run(layout.RESTART))
    assert pool(world)["pool_left_bytes"] == 100 * GIB


def test_a_figure_of_the_whole_rolling_window_is_not_below_its_single_days() -> None:
    world, _ = rolling_world()
    ended_s, now_s = world.now_ms // 1000 - 16, world.now_ms // 1000
    assert world.status(world.pool_figure(LOT, 7 * GIB, 0, ended_s, layout.ROLLING_DAY)) == layout.OK
    assert world.status(world.pool_figure(LOT, 7 * GIB - 1, 0, now_s, ROLLING)) == layout.IMPOSSIBLE_USAGE
    assert world.status(world.pool_figure(LOT, 7 * GIB, 0, now_s, ROLLING)) == layout.OK


def test_no_figure_of_a_pools_day_is_below_those_of_its_sims_of_that_day() -> None:
    """It is set aside, or raised by those that come after it, and falls as they do; days go with their sums."""
    world, _ = rolling_world()
    day, ended_s = layout.ROLLING_DAY, world.now_ms // 1000 - 16
    for sim in (1, 2):
        assert world.status(world.figure(sim, 30 * GIB // sim, 0, ended_s, day)) == layout.OK
    assert world.status(world.pool_figure(LOT, 44 * GIB, 0, ended_s, day)) == layout.IMPOSSIBLE_USAGE
    assert world.status(world.pool_figure(LOT, 44 * GIB, 0, world.now_ms // 1000, ROLLING)) == layout.IMPOSSIBLE_USAGE
    assert world.status(world.pool_figure(LOT, 45 * GIB, 0, ended_s, day)) == layout.OK
    used = [round(pool(world)["pool_used_bytes"][2] / GIB)]
    for gib in (20, 40, 25, 1):
        assert world.status(world.figure(2, gib * GIB, 0, ended_s, day)) == layout.OK
        used.append(round(pool(world)["pool_used_bytes"][2] / GIB))
        assert world.status(world.pool_figure(LOT, 45 * GIB, 0, ended_s, day)) == layout.SAME
    assert used == [49, 54, 74, 59, 49]
    assert world.status(world.figure(2, 20 * GIB, 0, ended_s, day)) == layout.OK
    rolling = []
    for _ in range(3):
        a_day_is_over(world)
        rolling.append(round(pool(world)["pool_used_bytes"][2] / GIB))
    assert rolling == [53, 3, 0]
    assert world.machine.check() == []


def test_what_was_used_in_the_day_was_used_in_the_cycle_that_the_pool_shares_too() -> None:
    world = shared_world(quota_day=50 * GIB, pooled=1 | 1 << 1)
    epoch = allocate(world)
    world.pass_ms(SECOND_MS)
    world.send(world.usage(T, epoch, GIB))
    assert world.status(world.pool_figure(LOT, 20 * GIB, GIB, world.now_ms // 1000, DAY)) == layout.OK
    assert pool(world)["pool_used_bytes"][:2] == [20 * GIB, 20 * GIB]


def test_no_figure_of_a_pool_is_below_what_the_carrier_said_of_its_sims_or_of_a_shorter_window_in_it() -> None:
    """The sum of its last figures counts; what it takes back of a SIM it may take back of the pool."""
    world = shared_world(quota_day=50 * GIB, pooled=1 | 1 << 1)
    world.pass_ms(9 * SECOND_MS)
    now_s = world.now_ms // 1000
    for sim, (used, window) in enumerate(((5, CYCLE), (4, CYCLE), (7, DAY), (5, DAY))):
        assert world.status(world.figure(sim, used * GIB, 0, now_s - 3, window)) == layout.OK

    def told(gib: int, late_s: int, window: int = CYCLE) -> int:
        return world.status(world.pool_figure(LOT, gib * GIB, 0, now_s - late_s, window))

    # 9 of the cycle, and 12 of the day, which is part of it.
    assert [told(11, 2), told(11, 2, DAY), told(12, 2), told(12, 2, DAY)] == [layout.IMPOSSIBLE_USAGE] * 2 + [
        layout.OK
    ] * 2
    assert told(14, 1, DAY) == layout.OK
    assert told(13, 1) == layout.IMPOSSIBLE_USAGE
    assert pool(world)["pool_used_bytes"][:2] == [14 * GIB, 14 * GIB]
    for sim in (2, 3):
        assert world.status(world.figure(sim, GIB, 0, now_s - 1, DAY)) == layout.OK
    assert told(8, 0, DAY) == layout.OK
    assert (told(8, 0), told(9, 0)) == (layout.IMPOSSIBLE_USAGE, layout.OK)
    # It is raised by what is said of its SIMs after it; and nothing of that counts when the window is over.
    assert world.status(world.figure(3, 90 * GIB, 0, now_s)) == layout.OK
    assert pool(world)["pool_used_bytes"][:2] == [99 * GIB, 8 * GIB]
    assert world.status(world.schedule(LOT, CYCLE, world.now_ms)) == layout.OK
    world.pass_ms(3 * SECOND_MS)
    now_s = world.now_ms // 1000
    assert (told(9, 0), pool(world)["pool_used_bytes"][0]) == (layout.OK, 9 * GIB)
    assert world.machine.check() == []


def test_a_lot_whose_plan_was_pooled_by_mistake_is_shown_once_that_is_put_right() -> None:
    """Its SIMs come after that; the quota of a pool would have been low from the first byte."""
    world = empty_world()
    world.define(layout.PLAN, "monthly", {layout.PLAN_QUOTA_CYCLE: GIB // 2, layout.PLAN_POOLED: 1})
    assert pool(world)["pool_health"] == layout.LOW
    world.define(layout.PLAN, "monthly", {layout.PLAN_QUOTA_CYCLE: GIB // 2})
    assert pool(world)["pool_health"] == layout.HEALTHY
    world.import_sims(5)
    assert world.status(world.allocate(T, expected_bytes=1)) == layout.OK
    assert world.machine.check() == []


def test_a_figure_of_nobodys_lot_and_of_one_that_is_no_lot_are_unknown() -> None:
    world = shared_world()
    run = commands.run(
        layout.POOL_USAGE, 2, lot=[65_000, 0], carrier_bytes=0, counted_bytes=0, as_of_s=1, window=int(CYCLE)
    )
    assert world.statuses(run) == [layout.UNKNOWN_LOT] * 2


def test_what_was_said_of_a_pool_stands_beside_what_single_sims_raised_it_by() -> None:
    """Its line a second time says nothing new, and a SIM's figure that is taken back takes its raise back."""
    world = shared_world()
    now_s = world.now_ms // 1000
    assert world.status(world.pool_figure(LOT, 4 * GIB, 0, now_s)) == layout.OK
    assert world.status(world.figure(0, 5 * GIB, 0, now_s - 1)) == layout.OK
    assert world.status(world.pool_figure(LOT, 4 * GIB, 0, now_s)) == layout.SAME
    assert world.status(world.pool_figure(LOT, 4 * GIB + 1, 0, now_s)) == layout.IMPOSSIBLE_USAGE
    assert [pool(world)[f"pool_{what}_bytes"][0] // GIB for what in ("carrier", "raised", "used")] == [4, 1, 5]
    assert world.status(world.figure(0, 4 * GIB + GIB // 2, 0, now_s)) == layout.OK
    assert pool(world)["pool_used_bytes"][0] == 4 * GIB + GIB // 2
    assert world.status(world.figure(0, GIB // 2, 0, now_s)) == layout.OK
    assert [pool(world)[f"pool_{what}_bytes"][0] // GIB for what in ("carrier", "raised", "used")] == [4, 0, 4]
    assert world.machine.check() == []


def test_a_figure_that_never_raised_its_pool_takes_no_raise_back() -> None:
    """What another SIM raised it by stands."""
    world = shared_world()
    world.pass_ms(9 * SECOND_MS)
    now_s = world.now_ms // 1000
    assert world.status(world.pool_figure(LOT, 3 * GIB, 0, now_s - 3)) == layout.OK
    assert world.status(world.figure(0, 5 * GIB, 0, now_s - 5)) == layout.OK
    for sim, gib, late_s in ((2, 6, 1), (3, 4, 1), (3, 2, 0)):
        assert world.status(world.figure(sim, gib * GIB, 0, now_s - late_s)) == layout.OK
    assert pool(world)["pool_raised_bytes"][0] == 2 * GIB
    # Of the one that did raise it as much goes as is taken back.
    assert world.status(world.figure(0, 4 * GIB, 0, now_s)) == layout.OK
    assert pool(world)["pool_raised_bytes"][0] == GIB
    assert world.machine.check() == []


def test_a_younger_figure_of_one_sim_opens_no_way_below_those_of_the_others() -> None:
    world = shared_world()
    now_s = world.now_ms // 1000
    for sim, gib, late_s in ((0, 4, 2), (2, 1, 2), (1, 1, 0)):
        assert world.status(world.figure(sim, gib * GIB, 0, now_s - late_s)) == layout.OK
    assert world.status(world.pool_figure(LOT, GIB, 0, now_s - 1)) == layout.OK
    assert [pool(world)[f"pool_{what}_bytes"][0] // GIB for what in ("carrier", "raised", "used")] == [1, 5, 6]
    # What the carrier takes back of one of them bounds nothing any more; what it said of the others does.
    assert world.status(world.figure(0, GIB, 0, now_s - 2)) == layout.OK
    assert pool(world)["pool_used_bytes"][0] == 3 * GIB
    assert world.machine.check() == []


def test_a_pools_late_figure_takes_away_nothing_that_was_said_of_its_sims_later_on() -> None:
    """In whichever order they come, and where other SIMs used as much meanwhile."""
    used = []
    for sim_first in (True, False):
        world = shared_world()
        epochs = [allocate(world, terminal) for terminal in (1, 2)]
        begun_s = world.now_ms // 1000
        for step in range(1, 4):
            world.pass_ms(SECOND_MS)
            world.send(world.usage(1, epochs[0], step * GIB // 2))
        of_sim = world.figure(int(world.machine.terminal(0)["sim"]), 4 * GIB, GIB, begun_s + 2)
        runs = [of_sim, world.pool_figure(LOT, GIB // 2, GIB // 2, begun_s + 1)]
        world.send(world.usage(2, epochs[1], GIB // 4))
        for run in runs if sim_first else runs[::-1]:
            assert world.status(run) == layout.OK
        used.append(pool(world)["pool_used_bytes"][0])
        assert world.machine.check() == []
    # 4 GiB, and half a one that was counted since on that SIM, and what the other one used.
    assert used == [4 * GIB + GIB // 2, 4 * GIB + 3 * (GIB // 4)]


def test_a_raise_outlasts_the_next_figure_of_the_pool() -> None:
    """Also where one of its SIMs was told of a later instant than that is of."""
    world = shared_world()
    world.pass_ms(9 * SECOND_MS)
    now_s = world.now_ms // 1000
    for sim, gib in ((0, 5), (1, 2)):
        assert world.status(world.figure(sim, gib * GIB, 0, now_s - 8)) == layout.OK
    assert world.status(world.pool_figure(LOT, 7 * GIB, 0, now_s - 5)) == layout.OK
    assert world.status(world.figure(1, 4 * GIB, 0, now_s - 6)) == layout.OK
    assert pool(world)["pool_used_bytes"][0] == 9 * GIB
    assert world.status(world.figure(2, GIB, 0, now_s - 2)) == layout.OK
    assert world.status(world.pool_figure(LOT, 7 * GIB + GIB // 2, 0, now_s - 4)) == layout.OK
    assert pool(world)["pool_used_bytes"][0] == 10 * GIB
    assert world.machine.check() == []


def test_another_sims_figure_that_is_taken_back_takes_no_more_than_itself() -> None:
    """The others' hold whatever was counted since the raise."""
    world = shared_world()
    epoch = allocate(world)
    world.pass_ms(9 * SECOND_MS)
    now_s = world.now_ms // 1000
    assert world.status(world.pool_figure(LOT, 3 * GIB, 0, now_s - 3)) == layout.OK
    assert world.status(world.figure(1, 5 * GIB, 0, now_s - 5)) == layout.OK
    assert world.status(world.figure(2, 2 * GIB, 0, now_s - 2)) == layout.OK
    world.send(world.usage(T, epoch, GIB))
    assert pool(world)["pool_used_bytes"][0] == 8 * GIB
    assert world.status(world.figure(2, GIB, 0, now_s - 1)) == layout.OK
    assert pool(world)["pool_used_bytes"][0] == 7 * GIB
    # The largest one taken back, the next largest and the others still count.
    assert world.status(world.figure(1, GIB, 0, now_s - 1)) == layout.OK
    assert pool(world)["pool_used_bytes"][0] == 5 * GIB
    assert world.machine.check() == []


def test_figures_of_sims_that_swing_about_what_we_count_add_nothing_to_their_pool() -> None:
    """What one of later than the pool's figure added goes when the carrier takes it back."""
    world = shared_world()
    world.pass_ms(SECOND_MS)
    for sim in range(4):
        assert world.status(world.figure(sim, GIB, 0, world.now_ms // 1000)) == layout.OK
    assert world.status(world.pool_figure(LOT, 10 * GIB, 0, world.now_ms // 1000)) == layout.OK
    used = []
    for swing in range(30):
        world.pass_ms(SECOND_MS)
        told = (2 + swing % 2) * GIB
        for sim in range(4):
            assert world.status(world.figure(sim, told, 0, world.now_ms // 1000)) == layout.OK
        used.append(pool(world)["pool_used_bytes"][0] // GIB)
    assert used == [14, 18] * 15
    # But of one whose last figure the pool's has in it nothing goes.
    world.pass_ms(SECOND_MS)
    assert world.status(world.pool_figure(LOT, 20 * GIB, 0, world.now_ms // 1000)) == layout.OK
    world.pass_ms(SECOND_MS)
    for sim, gib in ((0, 5), (1, 1)):
        assert world.status(world.figure(sim, gib * GIB, 0, world.now_ms // 1000)) == layout.OK
    assert pool(world)["pool_used_bytes"][0] == 22 * GIB
    assert world.machine.check() == []


def test_a_wrong_figure_of_a_sims_day_leaves_the_pools_cycle_when_both_are_put_right() -> None:
    """No more than it had added, and nothing for a day that added nothing."""
    world = shared_world(quota_day=50 * GIB)
    epoch = allocate(world)
    world.pass_ms(SECOND_MS)
    world.send(world.usage(T, epoch, 9 * GIB))
    busy = int(world.machine.terminal(0)["sim"])
    sim, other = sorted({0, 1, 2} - {busy})
    assert world.status(world.pool_figure(LOT, 100 * GIB, 9 * GIB, world.now_ms // 1000)) == layout.OK
    used = []
    figures = ((sim, 4000, DAY), (sim, 4, DAY), (sim, 5, CYCLE), (other, 8, CYCLE), (busy, 4, DAY), (busy, 5, CYCLE))
    for of_sim, gib, window in figures:
        world.pass_ms(9 * SECOND_MS)
        counted = 9 * GIB if of_sim == busy else 0
        assert world.status(world.figure(of_sim, gib * GIB, counted, world.now_ms // 1000, window)) == layout.OK
        used.append(pool(world)["pool_used_bytes"][0] // GIB)
    assert used == [4100, 104, 105, 113, 113, 113]
    assert world.machine.check() == []


@pytest.mark.parametrize("late_s", [0, 9])
def test_a_wrong_opening_balance_leaves_its_pool_when_the_carrier_puts_it_right(late_s: int) -> None:
    """Where it is of a later instant than the pool's figure; that of an earlier one may have it in it."""
    world = shared_world()
    world.pass_ms(9 * SECOND_MS)
    assert world.status(world.pool_figure(LOT, 100 * GIB, 0, world.now_ms // 1000 - 3)) == layout.OK
    (sim,) = world.import_sims(1, opening_bytes=60 * GIB, as_of_s=world.now_ms // 1000 - late_s)
    assert pool(world)["pool_used_bytes"][0] == 160 * GIB
    world.pass_ms(SECOND_MS)
    assert world.status(world.figure(sim, 6 * GIB, 0, world.now_ms // 1000)) == layout.OK
    assert pool(world)["pool_used_bytes"][0] == (160 if late_s else 106) * GIB
    assert world.machine.check() == []


def test_less_of_a_sims_day_takes_nothing_of_what_its_cycle_says() -> None:
    world = shared_world(quota_day=50 * GIB)
    now_s = world.now_ms // 1000
    assert world.status(world.figure(0, 40 * GIB, 0, now_s)) == layout.OK
    assert world.status(world.pool_figure(LOT, 4 * GIB, 0, now_s - 1)) == layout.OK
    for gib in (30, 1):
        world.pass_ms(3_600_000)
        assert world.status(world.figure(0, gib * GIB, 0, world.now_ms // 1000, DAY)) == layout.OK
        assert pool(world)["pool_used_bytes"][0] == 40 * GIB
    assert world.machine.check() == []


def test_what_a_sim_had_before_its_pools_figure_takes_back_nothing_that_others_added() -> None:
    """A day of later says nothing of it."""
    world = shared_world(quota_day=50 * GIB)
    first, second = 0, 1
    now_s = world.now_ms // 1000
    assert world.status(world.figure(first, 50 * GIB, 0, now_s)) == layout.OK
    used = []
    world.pass_ms(9 * SECOND_MS)
    assert world.status(world.pool_figure(LOT, 90 * GIB, 0, world.now_ms // 1000)) == layout.OK
    for sim, gib, window in ((second, 40, CYCLE), (first, 1, DAY), (first, 20, CYCLE)):
        world.pass_ms(9 * SECOND_MS)
        assert world.status(world.figure(sim, gib * GIB, 0, world.now_ms // 1000, window)) == layout.OK
        used.append(pool(world)["pool_used_bytes"][0] // GIB)
    assert used == [130, 130, 130]
    assert world.machine.check() == []


def test_a_pools_cycle_may_be_less_than_rolling_days_that_days_of_later_have_raised() -> None:
    world = shared_world(quota_day=50 * GIB, quota_rolling=90 * GIB, rolling_days=3, pooled=1 | 1 << 2)
    epoch = allocate(world)
    sim = int(world.machine.terminal(0)["sim"])
    world.pass_ms(60 * SECOND_MS)
    world.send(world.usage(T, epoch, 40 * GIB))
    now_s = world.now_ms // 1000
    figures = (
        (world.pool_figure(LOT, 10 * GIB, 40 * GIB, now_s - 9, layout.WINDOW_ROLLING), layout.OK),
        (world.figure(sim, 40 * GIB, 40 * GIB, now_s, DAY), layout.OK),
        (world.pool_figure(LOT, 9 * GIB, 40 * GIB, now_s - 5), layout.IMPOSSIBLE_USAGE),
        (world.pool_figure(LOT, 35 * GIB, 40 * GIB, now_s - 5), layout.OK),
    )
    for figure, status in figures:
        assert world.status(figure) == status
    assert pool(world)["pool_used_bytes"][::2] == [40 * GIB, 40 * GIB]
    assert world.machine.check() == []


def test_what_an_opening_day_makes_up_for_in_the_cycle_is_lent_to_no_other_sim() -> None:
    """No figure of the cycle takes it back: it stays until the pool is told again."""
    world = shared_world(quota_day=90 * GIB)
    world.pass_ms(9 * SECOND_MS)
    assert world.status(world.figure(0, 50 * GIB, 0, world.now_ms // 1000 - 9)) == layout.OK
    assert world.status(world.pool_figure(LOT, 100 * GIB, 0, world.now_ms // 1000 - 3)) == layout.OK
    (sim,) = world.import_sims(1, opening_day_bytes=60 * GIB, as_of_s=world.now_ms // 1000)
    for of_sim, gib, window in ((sim, 6, DAY), (sim, 6, CYCLE), (0, 10, CYCLE), (0, 1, CYCLE)):
        world.pass_ms(SECOND_MS)
        assert world.status(world.figure(of_sim, gib * GIB, 0, world.now_ms // 1000, window)) == layout.OK
        assert pool(world)["pool_used_bytes"][0] == 160 * GIB
    assert world.machine.check() == []


@pytest.mark.parametrize("window", [CYCLE, DAY])
def test_a_pools_figure_of_long_ago_is_raised_by_those_of_its_sims_as_long_as_it_counts(window: int) -> None:
    world = shared_world(quota_day=50 * GIB, pooled=1 | 1 << 1)
    epoch = allocate(world)
    sim = int(world.machine.terminal(0)["sim"])
    world.pass_ms(SECOND_MS)
    world.send(world.usage(T, epoch, 9 * GIB))
    assert world.status(world.pool_figure(LOT, 4 * GIB, 9 * GIB, world.now_ms // 1000, window)) == layout.OK
    world.pass_ms(33 * 24 * 3_600_000)
    # What we had counted: it adds nothing to the pool of itself.
    assert world.status(world.figure(sim, 9 * GIB, 9 * GIB, world.now_ms // 1000, window)) == layout.OK
    assert pool(world)["pool_used_bytes"][window - 1] == 9 * GIB
    assert world.machine.check() == []


@pytest.mark.parametrize("window", [CYCLE, DAY])
def test_where_no_resets_are_known_figures_of_sims_hold_on_as_long_as_they_are_told(window: int) -> None:
    """And what was said before the window can have begun holds no longer."""
    world = shared_world(quota_day=50 * GIB, pooled=1 | 1 << 1)
    a_tenth_ms = (31 if window == CYCLE else 1) * 24 * 3_600_000 // 10
    place = window - 1
    assert world.status(world.figure(3, 20 * GIB, 0, world.now_ms // 1000, window)) == layout.OK
    for _ in range(25):
        world.pass_ms(a_tenth_ms)
        now_s = world.now_ms // 1000
        for sim in range(3):
            assert world.status(world.figure(sim, 5 * GIB, 0, now_s - 1, window)) == layout.OK
        assert world.status(world.pool_figure(LOT, 2 * GIB, 0, now_s, window)) == layout.IMPOSSIBLE_USAGE
        assert world.machine.check() == []
    assert world.status(world.pool_figure(LOT, 15 * GIB - 1, 0, now_s, window)) == layout.IMPOSSIBLE_USAGE
    assert world.status(world.pool_figure(LOT, 15 * GIB, 0, now_s, window)) == layout.OK
    assert pool(world)["pool_used_bytes"][place] == 15 * GIB
    # A SIM that is imported with what it had used long ago changes nothing of that.
    world.import_sims(1)
    world.pass_ms(a_tenth_ms)
    for sim in range(3):
        assert world.status(world.figure(sim, 6 * GIB, 0, now_s, window)) == layout.OK
    assert pool(world)["pool_used_bytes"][place] == 18 * GIB


def test_figures_that_come_late_are_in_a_sum_where_there_is_none_yet() -> None:
    """Each day a file comes that is of midnight, in a lot of which nobody said when its days begin."""
    world = shared_world(quota_day=50 * GIB, pooled=1 | 1 << 1)
    for _ in range(3):
        world.pass_ms(24 * 3_600_000)
        now_s = world.now_ms // 1000
        for sim in range(3):
            assert world.status(world.figure(sim, 5 * GIB, 0, now_s - 13 * 3_600, DAY)) == layout.OK
        for told, status in ((15 * GIB - 1, layout.IMPOSSIBLE_USAGE), (15 * GIB, layout.OK)):
            assert world.status(world.pool_figure(LOT, told, 0, now_s, DAY)) == status
    assert world.machine.check() == []


def test_a_pools_figure_of_the_cycle_may_be_less_than_its_sims_days_of_later() -> None:
    """Which had raised its day; and are in the cycle by now."""
    world = shared_world(quota_day=50 * GIB, pooled=1 | 1 << 1)
    epoch = allocate(world)
    sim = int(world.machine.terminal(0)["sim"])
    world.pass_ms(SECOND_MS)
    world.send(world.usage(T, epoch, 9 * GIB))
    now_s = world.now_ms // 1000
    assert world.status(world.pool_figure(LOT, 4 * GIB, 9 * GIB, now_s - 5, DAY)) == layout.OK
    assert world.status(world.figure(sim, 9 * GIB, 9 * GIB, now_s, DAY)) == layout.OK
    assert pool(world)["pool_raised_bytes"][1] == 5 * GIB
    assert world.status(world.pool_figure(LOT, 6 * GIB, 9 * GIB, now_s - 1)) == layout.OK
    assert pool(world)["pool_used_bytes"][:2] == [9 * GIB, 9 * GIB]
    assert world.status(world.pool_figure(LOT, 8 * GIB, 9 * GIB, now_s)) == layout.IMPOSSIBLE_USAGE
    assert world.machine.check() == []


def test_a_figure_that_raised_its_pool_long_ago_takes_the_raise_back_when_it_is_put_right() -> None:
    """Also when the sum that it was in has given way to the next one."""
    world = shared_world()
    now_s = world.now_ms // 1000
    assert world.status(world.pool_figure(LOT, 4 * GIB, 0, now_s)) == layout.OK
    assert world.status(world.figure(0, 90 * GIB, 0, now_s - 1)) == layout.OK
    world.pass_ms(24 * 3_600_000)
    assert world.status(world.figure(1, GIB, 0, world.now_ms // 1000)) == layout.OK
    assert pool(world)["pool_used_bytes"][0] == 91 * GIB
    world.pass_ms(20 * 24 * 3_600_000)
    assert world.status(world.figure(0, 5 * GIB, 0, world.now_ms // 1000)) == layout.OK
    assert pool(world)["pool_used_bytes"][0] == 6 * GIB
    assert world.machine.check() == []


def test_the_same_line_again_says_of_its_pool_what_it_said_at_first() -> None:
    """Not what its SIMs raised it by."""
    world = shared_world()
    now_s = world.now_ms // 1000
    assert world.status(world.figure(0, 40 * GIB, 0, now_s)) == layout.OK
    line = world.pool_figure(LOT, 4 * GIB, 0, now_s - 1)
    said = [world.send(line)[0] for _ in range(2)]
    assert [int(each["status"][0]) for each in said] == [layout.OK, layout.SAME]
    assert [int(each["correction_bytes"][0]) for each in said] == [-36 * GIB] * 2


def openings(count: int, opening_bytes: int) -> tuple[World, list[int]]:
    """The SIMs of gold-a share a cycle, and are imported with so much used in it; and what became of each."""
    world = empty_world(sims_max=2 * count)
    world.define(layout.PLAN, "monthly", {layout.PLAN_QUOTA_CYCLE: 100 * GIB, layout.PLAN_POOLED: 1})
    numbers = range(count)
    (outcome,) = world.send(
        commands.run(
            layout.IMPORT_SIMS,
            count,
            iccid=[2 * (10**15 + number) for number in numbers],
            imsi=[440_100_000_000_000 + number for number in numbers],
            opening_cycle_bytes=opening_bytes,
            opening_day_bytes=0,
            opening_rolling_bytes=0,
            as_of_s=world.now_ms // 1000,
            lot=world.entities[LOT],
            bank=world.entities["bank-1"],
            slot=list(numbers),
            health=layout.HEALTHY,
        )
    )
    return world, outcome["status"].tolist()


def test_no_opening_balances_make_a_pool_empty() -> None:
    """Their sum would come to 2**63 and more: a pool that is used beyond all measure would have all left."""
    assert openings(2, layout.OPENING_MAX + 1)[1] == [layout.INVALID_ARGUMENT] * 2
    most = layout.POOL_MAX // layout.OPENING_MAX
    world, statuses = openings(most + 2, layout.OPENING_MAX)
    assert statuses == [layout.OK] * most + [layout.INVALID_ARGUMENT] * 2
    assert pool(world)["pool_used_bytes"][0] == layout.POOL_MAX
    assert (pool(world)["pool_health"], pool(world)["pool_room_bytes"]) == (layout.EXHAUSTED, 0)
    assert world.machine.check() == []


def test_no_figures_of_single_sims_make_their_pool_empty() -> None:
    world = shared_world(6)
    world.configure(layout.LINE_BYTES_PER_S, 1 << 40)
    now_s = world.now_ms // 1000
    statuses = [world.status(world.figure(sim, layout.POOL_MAX // 4, 0, now_s)) for sim in range(5)]
    assert statuses == [layout.OK] * 4 + [layout.IMPOSSIBLE_USAGE]
    assert world.status(world.figure(0, layout.POOL_MAX // 4 - 1, 0, now_s)) == layout.OK
    assert pool(world)["pool_used_bytes"][0] == layout.POOL_MAX - 1
    assert world.machine.check() == []


def test_no_figures_that_are_in_no_sum_make_their_pool_empty() -> None:
    """They are of long before the first one that came."""
    world = shared_world(6)
    world.configure(layout.LINE_BYTES_PER_S, 1 << 40)
    now_s = world.now_ms // 1000
    figures = [(0, GIB, 0), *((sim, layout.POOL_MAX - GIB, 20 * 24 * 3_600) for sim in range(1, 6))]
    statuses = [world.status(world.figure(sim, told, 0, now_s - late_s)) for sim, told, late_s in figures]
    assert statuses == [layout.OK] * 3 + [layout.IMPOSSIBLE_USAGE] * 3
    assert pool(world)["pool_used_bytes"][0] == 2 * layout.POOL_MAX - GIB
    assert world.machine.check() == []


def test_no_figures_of_single_days_make_a_pool_empty() -> None:
    world, _ = rolling_world()
    world.import_sims(40)
    world.configure(layout.LINE_BYTES_PER_S, 1 << 40)
    yesterday_s = world.now_ms // 1000 - 16
    before_s, most = yesterday_s - 24 * 3_600, layout.POOL_MAX - 8 * GIB
    assert world.status(world.pool_figure(LOT, most, 0, yesterday_s, layout.ROLLING_DAY)) == layout.OK
    assert world.status(world.pool_figure(LOT, most, 0, before_s, layout.ROLLING_DAY)) == layout.IMPOSSIBLE_USAGE
    assert world.status(world.figure(1, 8 * GIB, 0, before_s, layout.ROLLING_DAY)) == layout.IMPOSSIBLE_USAGE
    assert world.status(world.figure(1, GIB, 0, before_s, layout.ROLLING_DAY)) == layout.OK
    assert layout.POOL_MAX - 8 * GIB < pool(world)["pool_used_bytes"][2] <= layout.POOL_MAX
    assert world.machine.check() == []


def test_what_windows_make_up_for_that_are_not_shared_makes_no_pool_empty() -> None:
    """Of each SIM a figure of its rolling days is in the cycle too, and stays there when they turn."""
    world = shared_world(6, quota_rolling=GIB, rolling_days=30, pooled=1)
    world.configure(layout.LINE_BYTES_PER_S, 1 << 40)
    for sim in range(6):
        world.pass_ms(SECOND_MS)
        assert world.status(world.figure(sim, layout.POOL_MAX - 1, 0, world.now_ms // 1000, ROLLING)) == layout.OK
        for _ in range(3):  # a place of the ring
            a_day_is_over(world)
        assert pool(world)["pool_used_bytes"][0] >= layout.POOL_MAX - 1
        assert pool(world)["pool_health"] == layout.EXHAUSTED
    assert world.machine.check() == []


def test_a_sum_that_wrapped_round_before_it_had_a_bound_is_no_damage() -> None:
    world = shared_world()
    for sim in range(4):
        assert world.status(world.figure(sim, GIB, 0, world.now_ms // 1000)) == layout.OK
    regions = copy_regions(world.machine)
    state = tables(regions)
    state["sims_ledger"]["carrier_bytes"][:4, 0] = 1 << 62
    record = state["lots"][world.entities[LOT]]
    record["sims_told_bytes"][0] = 0
    assert Machine.restore(pack(regions, state)).check() == []
    state["sims_ledger"]["carrier_bytes"][0, 0] += 1
    assert len(Machine.restore(pack(regions, state)).check()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("sims_next_bytes", 1), ("pool_raised_bytes", 1), ("pool_raised_bytes", -1), ("pool_added_bytes", -1)],
)
def test_sums_and_raises_that_can_not_be_are_told(name: str, value: int) -> None:
    world = shared_world()
    regions = copy_regions(world.machine)
    state = tables(regions)
    state["lots"][world.entities[LOT]][name][0] = value
    assert len(Machine.restore(pack(regions, state)).check()) == 1

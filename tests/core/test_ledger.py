"""Carriers' figures: what they do to windows, and that nothing used since is ever forgotten."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

from tests.model.records import copy_regions
from tests.model.transitions import DAY_MS, SECOND_MS, SILENCE_MS, T, allocate
from tests.model.world import GIB, MIB, STEP_MS, World, empty_world

CYCLE, DAY, ROLLING = layout.WINDOW_CYCLE, layout.WINDOW_DAY, layout.WINDOW_ROLLING
HOUR_MS = 3_600_000


def a_day_is_over(world: World, lot: str) -> None:
    assert world.status(world.schedule(lot, ROLLING, world.now_ms)) == layout.OK
    world.pass_ms(SECOND_MS)


@pytest.mark.parametrize("seed", range(5))
def test_a_late_figure_leaves_what_was_used_since_as_it_is(seed: int) -> None:
    """Whatever comes between the instant of a figure and its arrival: the window holds the figure and all of that."""
    drawn = random.Random(seed)
    world = empty_world()
    (sim,) = world.import_sims(1, opening_bytes=drawn.randrange(20 * GIB))
    epoch = allocate(world)
    total, counted = 0, [(world.now_ms // 1000, 0)]
    for _ in range(20):
        world.pass_ms(SECOND_MS)
        total += drawn.randrange(900 * MIB)
        assert world.status(world.usage(T, epoch, total)) == layout.OK
        counted.append((world.now_ms // 1000, total))
        if drawn.random() < 0.3:
            as_of_s, then = counted[-min(drawn.randrange(1, 6), len(counted))]
            told = drawn.randrange(30 * GIB)
            if world.status(world.figure(sim, told, then, as_of_s)) == layout.OK:
                found = world.machine.sim(sim)
                assert found["used_cycle_bytes"] == told + total - then
                assert found["headroom_bytes"] == 100 * GIB - told - (total - then)
                assert (found["counted_bytes"], world.machine.header()["counted_bytes"]) == (total, total)
                # One who knows no more than that less was counted by then is on the safe side.
                assert world.status(world.figure(sim, told, then // 2, as_of_s)) in (layout.OK, layout.SAME)
                assert world.machine.sim(sim)["headroom_bytes"] <= found["headroom_bytes"]
    assert world.machine.header()["corrections_count"] > 2
    assert world.machine.check() == []


def rolling_world() -> tuple[World, int]:
    """A SIM with three rolling days and 8 GiB in them, whose terminal used 1 GiB on each; a day begins anew."""
    world = empty_world()
    world.import_sims(1, lot="gold-b")
    epoch = allocate(world)
    for day in range(3):
        world.pass_ms(SECOND_MS)
        assert world.status(world.usage(T, epoch, (day + 1) * GIB)) == layout.OK
        a_day_is_over(world, "gold-b")
    return world, epoch


def used(world: World) -> int:
    return int(world.machine.sim(0)["used_rolling_bytes"])


def test_no_figure_of_all_rolling_days_is_below_what_the_carrier_said_of_them_one_by_one_while_they_are_in_it() -> None:
    """Each is kept in whole 4 KiB, so as much as 4,095 bytes less of each is not below them."""
    world, _ = rolling_world()
    today_s = world.now_ms // 1000
    for told, day in ((2 * GIB, 1), (3 * GIB, 0)):
        run = world.figure(0, told, 0, today_s - day * 86_400, layout.ROLLING_DAY)
        assert world.status(run) == layout.OK
    below = []
    for left in (5 * GIB, 3 * GIB, 0):
        now_s = world.now_ms // 1000
        statuses = [world.status(world.figure(0, left - less, 0, now_s, ROLLING, dry_run=True)) for less in (8_191, 0)]
        below.append((left, statuses))
        a_day_is_over(world, "gold-b")
    impossible = [layout.IMPOSSIBLE_USAGE, layout.OK]
    assert below == [(5 * GIB, impossible), (3 * GIB, impossible), (0, [layout.NEGATIVE_USAGE, layout.OK])]


def test_what_a_carrier_counted_beyond_us_leaves_a_rolling_window_with_the_day_on_which_it_was_told() -> None:
    world, _ = rolling_world()
    assert used(world) == 2 * GIB
    assert world.status(world.figure(0, 5 * GIB, 3 * GIB, world.now_ms // 1000, ROLLING)) == layout.OK
    seen = [used(world)]
    for _ in range(3):
        a_day_is_over(world, "gold-b")
        seen.append(used(world))
    assert seen == [5 * GIB, 4 * GIB, 3 * GIB, 0]


def test_what_a_carrier_counted_less_holds_in_a_rolling_window_for_the_day_on_which_it_was_told() -> None:
    world, epoch = rolling_world()
    assert world.status(world.figure(0, GIB, 3 * GIB, world.now_ms // 1000, ROLLING)) == layout.OK
    assert used(world) == GIB
    world.pass_ms(SECOND_MS)
    assert world.status(world.usage(T, epoch, 3 * GIB + 512 * MIB)) == layout.OK
    assert used(world) == GIB + 512 * MIB
    a_day_is_over(world, "gold-b")
    assert used(world) == GIB + 512 * MIB, "a day that was used stays, and one has left"
    assert world.machine.sim(0)["corrections_bytes"] == [0, 0, 0]


def test_a_cap_that_comes_back_counts_what_was_used_unless_its_window_can_hold_no_such_thing() -> None:
    """As long as what was counted may all be of the window."""
    for waits_ms, used in ((0, 9 * MIB), (DAY_MS - 2 * SECOND_MS, 9 * MIB), (DAY_MS, 0)):
        world = empty_world()
        world.import_sims(1)
        epoch = allocate(world)
        assert world.status(world.usage(T, epoch, 3 * MIB)) == layout.OK
        assert world.status(world.set_cap("gold-a", DAY, GIB)) == layout.OK
        assert world.status(world.figure(0, 9 * MIB, 3 * MIB, world.now_ms // 1000, DAY)) == layout.OK
        assert world.status(world.set_cap("gold-a", DAY, -1)) == layout.OK
        world.pass_ms(waits_ms)
        assert world.status(world.set_cap("gold-a", DAY, GIB)) == layout.OK
        world.pass_ms(SECOND_MS)
        found = world.machine.sim(0)
        assert (found["used_day_bytes"], found["corrections_bytes"][1]) == (used, 6 * MIB if used else 0)


def test_a_cap_of_a_cycle_that_had_none_counts_what_its_sims_had_used_when_they_came() -> None:
    world = empty_world()
    world.define(layout.PLAN, "monthly", {})
    (sim,) = world.import_sims(1, opening_bytes=7 * MIB)
    world.pass_ms(40 * DAY_MS)
    assert world.status(world.set_cap("gold-a", layout.WINDOW_CYCLE, GIB)) == layout.OK
    world.pass_ms(SECOND_MS)
    assert world.machine.sim(sim)["headroom_bytes"] == GIB - 7 * MIB


def test_the_ledger_survives_a_snapshot_and_growth_and_takes_nothing_before_the_first_figure() -> None:
    world = empty_world()
    world.import_sims(5)
    assert {name: count for name, _, count, _ in world.machine.snapshot_regions()}["sims_ledger"] == 0
    assert world.status(world.figure(2, GIB, 0, world.now_ms // 1000)) == layout.OK
    assert {name: count for name, _, count, _ in world.machine.snapshot_regions()}["sims_ledger"] == 3
    world.send(commands.run(layout.GROW, 1, sims=5_000, terminals=100, orders=100))
    restored = Machine.restore(copy_regions(world.machine))
    assert restored.state_hash() == world.machine.state_hash()
    found = restored.sim(2)
    assert (found["corrections_bytes"], found["carrier_as_of_s"]) == ([GIB, 0, 0], [world.now_ms // 1000, 0, 0])
    assert restored.sim(4)["carrier_as_of_s"] == [0, 0, 0]


def forgotten(world: World) -> None:
    """The access server comes back and knows of no lease."""
    world.pass_ms(SECOND_MS)
    world.open_session(0)
    world.pass_ms(SECOND_MS)


def test_a_sim_that_comes_free_without_a_report_is_not_handed_out_on_what_may_be_gone() -> None:
    """I4: with 250 MiB left it serves one lease of 200 and not two, unless it is said what the first used in all."""
    world = empty_world()
    (sim,) = world.import_sims(1, opening_bytes=100 * GIB - 250 * MIB)
    (outcome,) = world.send(world.allocate(T, expected_bytes=200 * MIB))
    epoch = int(outcome["epoch"][0])
    forgotten(world)
    world.pass_ms(SECOND_MS)
    asked = world.allocate(3, expected_bytes=200 * MIB)
    assert world.status(asked) == layout.NO_HEALTHY_SIM
    allowed = world.machine.sim(sim)["allowances_bytes"][0]
    assert world.status(world.usage(T, epoch, MIB)) == layout.ENDED
    found = world.machine.sim(sim)
    assert (found["allowances_bytes"][0], found["headroom_bytes"]) == (allowed - MIB, 250 * MIB - allowed)
    world.pass_ms(SILENCE_MS)
    assert world.status(asked) == layout.NO_HEALTHY_SIM
    assert world.status(world.usage(T, epoch, MIB)) == layout.NO_LEASE
    found = world.machine.sim(sim)
    assert (found["allowances_bytes"], found["headroom_bytes"]) == ([0, 0, 0], 249 * MIB)
    assert world.status(asked) == layout.OK


def test_allowances_add_up_and_go_with_their_window_or_the_carriers_word() -> None:
    world = empty_world()
    world.import_sims(1, lot="gold-b")
    for terminal in (1, 2):
        assert world.status(world.allocate(terminal)) == layout.OK
        forgotten(world)
        world.pass_ms(SECOND_MS)
    each = world.machine.sim(0)["allowances_bytes"][0] // 2
    assert each >= 100 * MIB
    assert world.machine.sim(0)["allowances_bytes"] == [2 * each] * 3
    assert world.status(world.schedule("gold-b", DAY, world.now_ms)) == layout.OK
    assert world.machine.sim(0)["allowances_bytes"] == [2 * each, 0, 2 * each]
    # Only the last lease is known by its epoch: what an earlier one may have used stays.
    epochs = {int(record["key"]): int(record["epoch"]) for record in world.tables()["terminals"]}
    assert world.status(world.usage(1, epochs[1], MIB)) == layout.ENDED
    assert world.status(world.usage(2, epochs[2], MIB)) == layout.ENDED
    assert world.machine.sim(0)["allowances_bytes"] == [2 * each - MIB, 0, 2 * each - MIB]
    world.pass_ms(SILENCE_MS)
    assert world.status(world.usage(2, epochs[2], MIB)) == layout.NO_LEASE
    assert world.machine.sim(0)["allowances_bytes"] == [each, 0, each]
    world.pass_ms(SECOND_MS)
    assert world.status(world.figure(0, 3 * MIB, 2 * MIB, world.now_ms // 1000)) == layout.OK
    found = world.machine.sim(0)
    assert (found["allowances_bytes"], found["used_cycle_bytes"]) == ([0, 0, each], 3 * MIB)
    assert world.machine.check() == []


@pytest.mark.parametrize(("window", "days"), [(CYCLE, 31), (DAY, 1)])
def test_a_figure_of_longer_ago_than_a_window_lasts_is_of_one_that_is_over(window: int, days: int) -> None:
    """Also before the window has begun anew for the first time, when nobody has told when it began."""
    world = empty_world()
    world.import_sims(1, "gold-b")
    oldest_s = world.now_ms // 1000 - days * 86_400
    assert world.status(world.figure(0, GIB, 0, oldest_s - 1, window)) == layout.PAST_WINDOW
    assert world.machine.sim(0)["corrections_bytes"] == [0, 0, 0]
    assert world.status(world.figure(0, GIB, 0, oldest_s + 1, window)) == layout.OK


@pytest.mark.parametrize("spread_ms", [0, HOUR_MS])
@pytest.mark.parametrize(("window", "name"), [(CYCLE, "used_cycle_bytes"), (DAY, "used_day_bytes")])
def test_figures_of_a_window_count_from_its_instant_on_also_where_we_came_to_it_late(
    window: int, name: str, spread_ms: int
) -> None:
    world = empty_world()
    world.import_sims(1, "gold-b")
    assert world.status(world.usage(T, allocate(world), GIB)) == layout.OK
    world.configure(layout.LINE_BYTES_PER_S, 100 * MIB)
    began_ms = (world.now_ms // 1000 + 60) * 1000
    assert world.status(world.schedule("gold-b", window, began_ms, spread_ms)) == layout.OK
    world.pass_ms(13 * HOUR_MS)
    world.pass_ms(2 * HOUR_MS)
    assert world.status(world.figure(0, 5 * GIB, GIB, began_ms // 1000 - 1, window)) == layout.PAST_WINDOW
    # In a minute no more than the line carries.
    assert world.status(world.figure(0, 20 * GIB, GIB, began_ms // 1000 + 60, window)) == layout.IMPOSSIBLE_USAGE
    assert world.status(world.figure(0, 5 * GIB, GIB, began_ms // 1000 + 60, window)) == layout.OK
    assert world.machine.sim(0)[name] == 5 * GIB
    assert world.machine.check() == []


def test_a_figure_of_a_day_is_of_that_day_also_where_the_last_turn_came_half_a_day_late() -> None:
    world = empty_world()
    world.import_sims(1, lot="gold-b")
    epoch = allocate(world)
    assert world.status(world.usage(T, epoch, 400 * MIB)) == layout.OK
    a_day_is_over(world, "gold-b")
    assert world.status(world.usage(T, epoch, 500 * MIB)) == layout.OK
    ended_ms = world.now_ms + 8 * HOUR_MS
    assert world.status(world.schedule("gold-b", ROLLING, ended_ms)) == layout.OK
    world.pass_ms(20 * HOUR_MS + HOUR_MS // 2)
    assert world.status(world.figure(0, 100 * MIB, 0, ended_ms // 1000, layout.ROLLING_DAY)) == layout.OK
    assert used(world) == 500 * MIB


def test_a_line_can_carry_no_more_than_it_can() -> None:
    world = empty_world()
    world.import_sims(1)
    world.configure(layout.LINE_BYTES_PER_S, 1_000)
    allocate(world)
    forgotten(world)
    assert world.machine.sim(0)["allowances_bytes"][0] == 1_000 * (SECOND_MS // 1000 + 1)


def released_silently(world: World, epoch: int, server: int = 0) -> None:
    """The lease ends over a minute after its last report, and its SIM has cooled."""
    world.pass_ms(SILENCE_MS)
    assert world.status(world.lease(layout.RELEASE, T, epoch, server)) == layout.OK
    world.pass_ms(SECOND_MS)


@pytest.mark.parametrize("told", ["nothing", "the same before", "the same while it cools", "after it has cooled"])
def test_a_sim_released_without_a_last_report_is_not_handed_out_on_what_may_be_gone(told: str) -> None:
    """I4: with 250 MiB left it serves one lease of 200 and not two, unless it is told how little the first used."""
    world = empty_world()
    (sim,) = world.import_sims(1, opening_bytes=100 * GIB - 250 * MIB)
    (outcome,) = world.send(world.allocate(T, expected_bytes=200 * MIB))
    epoch = int(outcome["epoch"][0])
    report = world.usage(T, epoch, MIB)
    assert world.status(report) == layout.OK
    world.pass_ms(SILENCE_MS)
    if told == "the same before":
        assert world.status(report) == layout.LATE
    assert world.status(world.lease(layout.RELEASE, T, epoch)) == layout.OK
    if told == "the same while it cools":
        assert world.status(report) == layout.NO_LEASE
    world.pass_ms(SECOND_MS)
    asked = world.allocate(3, expected_bytes=200 * MIB)
    silent = told in ("nothing", "after it has cooled")
    assert (world.machine.sim(sim)["allowances_bytes"][0] > 0) == silent
    if told == "after it has cooled":
        assert world.status(world.usage(T, epoch, 2 * MIB)) == layout.ENDED
        assert world.status(asked) == layout.NO_HEALTHY_SIM
        world.pass_ms(SILENCE_MS)
        assert world.status(world.usage(T, epoch, 2 * MIB)) == layout.NO_LEASE
        assert world.machine.sim(sim)["headroom_bytes"] == 248 * MIB
    assert world.status(asked) == (layout.NO_HEALTHY_SIM if told == "nothing" else layout.OK)
    assert world.machine.check() == []


def in_one_call(world: World, epoch: int, totals: list[int], spans_ms: list[int]) -> list[int]:
    columns = {"terminal": [T], "epoch": [epoch], "up_bytes": [0], "goodput_kbps": [0], "demand_permille": [0]}
    told: dict[str, Any] = {name: np.array(value * len(totals)) for name, value in columns.items()}
    told |= {"down_bytes": np.array(totals), "span_ms": np.array(spans_ms)}
    run = commands.run(layout.REPORT_USAGE, len(totals), access_server=0, **told)
    return [int(status) for status in world.send(run)[0]["status"]]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_reports_that_were_held_back_and_come_in_order_all_count(together: bool, ended: bool) -> None:
    """What a line carries in a silent half hour counts, in any portions, and no more; also once the lease is over."""
    world = empty_world()
    (sim,) = world.import_sims(1)
    world.configure(layout.LINE_BYTES_PER_S, 100 * MIB)
    world.configure(layout.LEASE_MS, DAY_MS)
    epoch = allocate(world)
    began_s = world.now_ms // 1000
    world.pass_ms(1_800_000)
    if ended:
        assert world.status(world.lease(layout.RELEASE, T, epoch)) == layout.OK
    most = (world.now_ms // 1000 - began_s + 2) * 100 * MIB - 1
    totals = [200 * MIB, 200 * MIB, 100 * MIB, 40_000 * MIB, most + 1, most, most + 200 * MIB]
    if together:
        statuses = in_one_call(world, epoch, totals, [60_000] * len(totals))
    else:
        statuses = [world.status(world.usage(T, epoch, total)) for total in totals]
    counts, old = (layout.ENDED, layout.NO_LEASE) if ended else (layout.OK, layout.LATE)
    impossible = layout.IMPOSSIBLE_USAGE
    assert statuses == [counts, old, old, counts, impossible, counts, impossible]
    assert world.machine.sim(sim)["counted_bytes"] == world.machine.header()["counted_bytes"] == most
    assert world.machine.header()["impossible_count"] == 2
    assert world.machine.check() == []


def test_what_was_allowed_for_falls_by_what_is_reported_and_by_no_more() -> None:
    """I4, I8: reports that were held back come when the SIM has cooled, in order, twice and too old."""
    world = empty_world()
    (sim,) = world.import_sims(1)
    (outcome,) = world.send(world.allocate(T, expected_bytes=GIB))
    epoch = int(outcome["epoch"][0])
    released_silently(world, epoch)

    def left() -> tuple[int, int]:
        found = world.machine.sim(sim)
        return found["allowances_bytes"][0], found["headroom_bytes"]

    allowed, headroom = left()
    assert allowed >= GIB
    for total, rest in ((200 * MIB, 200), (200 * MIB, 200), (100 * MIB, 200), (500 * MIB, 500)):
        world.status(world.usage(T, epoch, total))
        assert left() == (allowed - rest * MIB, headroom)
    header = world.machine.header()
    assert (header["unreported_count"], header["unreported_bytes"]) == (1, allowed - 500 * MIB)
    # As much as was expected, and more: nothing is left of it, and the rest is used beyond that.
    assert world.status(world.usage(T, epoch, allowed + 100 * MIB)) == layout.ENDED
    assert left() == (0, headroom - 100 * MIB)
    assert world.status(world.usage(T, epoch, allowed + 100 * MIB)) == layout.NO_LEASE
    assert left() == (0, headroom - 100 * MIB)
    header = world.machine.header()
    assert (header["unreported_count"], header["unreported_bytes"]) == (0, 0)
    assert world.machine.sim(sim)["counted_bytes"] == header["counted_bytes"] == allowed + 100 * MIB
    assert world.machine.check() == []


def test_the_same_total_is_the_last_report_only_where_it_can_be_no_retry() -> None:
    """I4: within a minute of it, it may be one, or an idle minute of a backlog."""
    world = empty_world()
    (sim,) = world.import_sims(1)
    (outcome,) = world.send(world.allocate(T, expected_bytes=GIB))
    epoch = int(outcome["epoch"][0])
    released_silently(world, epoch)
    left = [world.machine.sim(sim)["allowances_bytes"][0] - 200 * MIB]
    for waits_ms, total in ((0, 200), (30_000, 200), (0, 500), (50_000, 500), (0, 500), (SILENCE_MS - 50_000, 500)):
        world.pass_ms(waits_ms)
        world.status(world.usage(T, epoch, total * MIB))
        left.append(world.machine.sim(sim)["allowances_bytes"][0])
    assert left == [*[left[0]] * 3, *[left[0] - 300 * MIB] * 3, 0]
    assert world.machine.check() == []


@pytest.mark.parametrize("portion", [MIB // 2 + 1, 1])
def test_a_backlog_of_many_reports_is_told_in_few_events_that_add_up(portion: int) -> None:
    world = empty_world()
    (sim,) = world.import_sims(1)
    (outcome,) = world.send(world.allocate(T, expected_bytes=GIB))
    epoch = int(outcome["epoch"][0])

    def told(reason: int) -> list[int]:
        of = (event for event in world.events if event["kind"] == layout.EVENT_UNREPORTED)
        return [event["b"] for event in of if event["reason"] == reason]

    released_silently(world, epoch)
    allowed = world.machine.sim(sim)["allowances_bytes"][0]
    assert told(layout.UNREPORTED_ALLOWED) == [allowed]
    for total in (*range(portion, min(allowed, 3_000 * portion), portion), allowed):
        assert world.status(world.usage(T, epoch, total)) == layout.ENDED
        assert world.machine.sim(sim)["allowances_bytes"][0] == allowed - total
        assert world.machine.header()["unreported_bytes"] == allowed - total
    assert len(told(layout.UNREPORTED_OVER)) < 40
    assert sum(told(layout.UNREPORTED_OVER)) == allowed
    assert world.machine.header()["unreported_count"] == 0


def test_a_lease_is_allowed_for_once_also_where_its_server_names_its_sim_later_on() -> None:
    """It was away, and its terminal has another one by then: it has to let go, and reports nothing."""
    world = empty_world()
    world.import_sims(1)
    epoch = allocate(world)
    forgotten(world)
    world.import_sims(1)
    allowed = world.machine.sim(0)["allowances_bytes"]
    assert allowed[0] >= 100 * MIB
    (outcome,) = world.send(world.adopt(T, 1, server=1))
    assert outcome["status"][0] == layout.OK
    world.open_session(0, ready=False)
    assert world.status(world.holds(0, T, epoch, 0)) == layout.REVOKED
    assert world.status(world.ready(0)) == layout.OK
    world.pass_ms(SECOND_MS)
    (revoke,) = (order for order in world.orders if order["kind"] == layout.REVOKE)
    world.send(world.acknowledge(revoke["order"], layout.ACK_DONE))
    world.pass_ms(2 * SECOND_MS)
    assert world.machine.sim(0)["allowances_bytes"] == allowed
    assert world.machine.header()["unreported_count"] == 1
    assert world.machine.check() == []


def test_a_lease_that_goes_on_has_its_speed_from_then_on() -> None:
    world = empty_world()
    world.import_sims(1)
    world.configure(layout.LEASE_MS, DAY_MS)
    world.send(world.set_health(0, layout.THROTTLED))
    world.send(world.schedule("gold-a", CYCLE, world.now_ms))
    epoch = allocate(world)
    world.pass_ms(600_000)
    forgotten(world)
    world.open_session(0, ready=False)
    assert world.status(world.holds(0, T, epoch, 0)) == layout.OK
    assert world.status(world.ready(0)) == layout.OK
    world.pass_ms(SECOND_MS)
    assert world.status(world.usage(T, epoch, 60 * MIB)) == layout.OK
    assert any(event["kind"] == layout.EVENT_TRUSTED for event in world.events)


def test_a_report_that_was_held_back_shows_no_more_speed_than_its_own_span() -> None:
    """18 MiB of one minute are 2.5 Mbit/s, whenever another one came; of a second they are fast."""
    world = empty_world()
    world.import_sims(1)
    world.configure(layout.LEASE_MS, DAY_MS)
    world.send(world.set_health(0, layout.THROTTLED))
    world.send(world.schedule("gold-a", CYCLE, world.now_ms))
    epoch = allocate(world)
    world.pass_ms(120_000)
    for spans_ms, total, fast in (([60_000, 60_000], 20 * MIB, False), ([1_000, 1_000], 40 * MIB, True)):
        assert in_one_call(world, epoch, [total - 18 * MIB, total], spans_ms) == [layout.OK] * 2
        assert any(event["kind"] == layout.EVENT_TRUSTED for event in world.events) == fast
        world.pass_ms(120_000)


def test_a_report_that_cannot_be_makes_no_lease_fresh() -> None:
    world = empty_world()
    (sim,) = world.import_sims(1)
    epoch = allocate(world)
    world.pass_ms(SILENCE_MS)
    assert world.status(world.usage(T, epoch, 10**15)) == layout.IMPOSSIBLE_USAGE
    assert world.status(world.lease(layout.RELEASE, T, epoch)) == layout.OK
    assert world.status(world.usage(T, epoch, 10**15)) == layout.IMPOSSIBLE_USAGE
    world.pass_ms(SECOND_MS)
    assert world.machine.sim(sim)["allowances_bytes"][0] >= 100 * MIB


def test_a_lease_that_was_reported_while_its_sim_is_held_owes_no_last_report() -> None:
    """Its access server has to let go of it first, and reports before that."""
    world = empty_world()
    world.import_sims(2)
    epoch = allocate(world)
    world.pass_ms(SILENCE_MS)
    assert world.status(world.allocate(T, server=1)) == layout.MOVED
    assert world.status(world.usage(T, epoch, MIB)) == layout.ENDED
    world.pass_ms(SECOND_MS)
    (stop,) = (order for order in world.orders if order["kind"] == layout.STOP)
    world.send(world.acknowledge(stop["order"], layout.ACK_DONE))
    assert not (world.tables()["sims_ledger"]["unreported_bytes"] < 0).any()
    world.pass_ms(2 * SECOND_MS)
    assert not world.tables()["sims_ledger"]["allowance_bytes"].any()


def test_what_a_lease_that_is_forgotten_may_have_used_is_allowed_for() -> None:
    """More leases ended while its SIM cooled than are remembered."""
    count = 1 << 16
    world = empty_world(sims_max=count + 4, terminals_max=2 * count)
    world.configure(layout.COOLING_MS, 1_000 * SECOND_MS)
    (sim,) = world.import_sims(1)
    epoch = allocate(world)
    world.import_sims(1)
    world.pass_ms(SILENCE_MS)
    world.send(world.lease(layout.RELEASE, T, epoch))
    assert allocate(world)
    world.import_sims(count)
    others = np.arange(10, 10 + count, dtype=np.uint64)
    world.configure(layout.COOLING_MS, 0)
    applies = range(20)  # timers that fire in one are 4,096 at most
    for _ in range(2):
        (outcome,) = world.send(world.allocate(others))
        assert (outcome["status"] == layout.OK).all()
        world.send(commands.run(layout.RELEASE, count, access_server=0, terminal=others, epoch=outcome["epoch"]))
        for _ in applies:
            world.pass_ms(STEP_MS)
    assert world.machine.sim(sim)["allowances_bytes"] == [0, 0, 0]
    assert world.status(world.usage(T, epoch, MIB)) == layout.STALE_EPOCH
    world.pass_ms(1_000 * SECOND_MS)
    for _ in applies:
        world.pass_ms(STEP_MS)
    assert world.machine.sim(sim)["allowances_bytes"][0] >= 100 * MIB
    assert world.machine.check() == []


def test_what_a_pool_shares_is_less_by_what_a_silent_lease_may_have_used() -> None:
    world = empty_world()
    world.define(layout.PLAN, "shared", {layout.PLAN_QUOTA_CYCLE: 100 * GIB, layout.PLAN_POOLED: 1})
    places = (layout.LOT_SUPPLIER, layout.LOT_PLAN, layout.LOT_CLASS)
    names = ("supplier", "shared", "gold")
    world.define(layout.LOT, "pool", {place: world.entities[name] for place, name in zip(places, names, strict=True)})
    world.import_sims(2, lot="pool")
    released_silently(world, allocate(world))
    allowed = world.machine.sim(0)["allowances_bytes"][0] + world.machine.sim(1)["allowances_bytes"][0]
    assert allowed >= 100 * MIB
    assert world.machine.lot(world.entities["pool"])["pool_used_bytes"][0] == allowed
    assert world.machine.check() == []


def told(world: World, window: int, carrier_bytes: int, as_of_s: int = 0) -> int:
    """The status of a figure of SIM 0, which has counted nothing."""
    return world.status(world.figure(0, carrier_bytes, 0, as_of_s or world.now_ms // 1000, window))


def test_no_longer_window_has_less_than_the_carrier_said_of_one_in_it_whichever_figure_came_first() -> None:
    """What it said later of the longer one, and is less, can't be; what it said earlier lacks what came since."""
    for first_s, status in ((1, layout.IMPOSSIBLE_USAGE), (-1, layout.OK), (0, layout.IMPOSSIBLE_USAGE)):
        for window, name in ((CYCLE, "used_cycle_bytes"), (ROLLING, "used_rolling_bytes")):
            world = empty_world()
            world.import_sims(1, lot="gold-b")
            assert world.status(world.set_cap("gold-b", CYCLE, 100 * GIB)) == layout.OK
            world.pass_ms(SECOND_MS)
            assert told(world, DAY, 2 * GIB, world.now_ms // 1000 - 10) == layout.OK
            assert told(world, window, GIB, world.now_ms // 1000 - 10 + first_s) == status
            assert world.machine.sim(0)[name] == 2 * GIB
            assert world.status(world.schedule("gold-b", DAY, world.now_ms)) == layout.OK
            world.pass_ms(SECOND_MS)
            # The day is over: a carrier that says so again corrects itself.
            assert told(world, window, GIB) == layout.OK
            assert world.machine.sim(0)[name] == GIB
            assert world.machine.check() == []


def test_a_cycle_has_at_least_what_its_rolling_days_have() -> None:
    """Figures of single days, and one of all of them; where the cycle began within them, only of those after that."""
    for cycle_began, of_days, of_all in ((False, 5 * GIB, 7 * GIB), (True, 2 * GIB, 2 * GIB)):
        world = empty_world()
        world.import_sims(1, lot="gold-b")
        assert world.status(world.set_cap("gold-b", CYCLE, 100 * GIB)) == layout.OK
        for day in range(2):
            if cycle_began and day == 0:
                assert world.status(world.schedule("gold-b", CYCLE, world.now_ms)) == layout.OK
            a_day_is_over(world, "gold-b")
            world.pass_ms(DAY_MS - SECOND_MS)
        today_s = world.now_ms // 1000 - 86_400 + 1
        assert told(world, layout.ROLLING_DAY, 3 * GIB, today_s - 86_400) == layout.OK
        assert told(world, layout.ROLLING_DAY, 2 * GIB, today_s) == layout.OK
        assert (used(world), world.machine.sim(0)["used_cycle_bytes"]) == (5 * GIB, of_days)
        assert told(world, ROLLING, 7 * GIB) == layout.OK
        assert (used(world), world.machine.sim(0)["used_cycle_bytes"]) == (7 * GIB, of_all)


@pytest.mark.parametrize(
    ("due", "refused"),
    [(CYCLE, {CYCLE, DAY, ROLLING, layout.ROLLING_DAY}), (DAY, {DAY}), (ROLLING, {DAY, ROLLING, layout.ROLLING_DAY})],
)
def test_no_figure_is_taken_into_a_window_that_should_have_started_anew(due: int, refused: set[int]) -> None:
    """The clock is frozen over the instant: what it says would be gone when the window begins."""
    world = empty_world()
    world.import_sims(1, lot="gold-b")
    assert world.status(world.set_cap("gold-b", CYCLE, 100 * GIB)) == layout.OK
    world.pass_ms(SECOND_MS)
    ended_s = world.now_ms // 1000
    assert world.status(world.schedule("gold-b", ROLLING, world.now_ms)) == layout.OK
    world.pass_ms(SECOND_MS)
    assert world.status(world.schedule("gold-b", due, world.now_ms + SECOND_MS)) == layout.OK
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(2 * SECOND_MS)
    windows = {CYCLE: 0, DAY: 0, ROLLING: 0, layout.ROLLING_DAY: ended_s}
    for window, at_s in windows.items():
        run = world.figure(0, GIB, 0, at_s or world.now_ms // 1000, window, dry_run=True)
        assert world.status(run) == (layout.WRONG_STATE if window in refused else layout.OK)
    world.send(commands.run(layout.THAW))
    world.pass_ms(2 * SECOND_MS)
    assert told(world, due, GIB) == layout.OK


def test_what_we_had_on_a_day_is_told_to_the_byte() -> None:
    """The ring keeps days in 4 KiB, rounded up; of an unused one we had nothing, not less."""
    world, _ = rolling_world()
    day_s = world.now_ms // 1000 - 86_400
    for carrier_bytes, ours, status in ((GIB + 1, GIB, layout.OK), (GIB + 2, GIB + 4_096, layout.SAME)):
        (outcome,) = world.send(world.figure(0, carrier_bytes, 0, day_s, layout.ROLLING_DAY))
        assert (outcome["status"][0], carrier_bytes - outcome["correction_bytes"][0]) == (status, ours)

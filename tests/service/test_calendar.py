"""Months and time zones become instants, and the engine always knows the next one of each window."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from simswitch.client import OperatorClient
from simswitch.core import commands, layout
from simswitch.core.machine import Machine
from simswitch.service.calendar import last_reset_ms, next_reset_ms, zone
from simswitch.v1 import caps_pb2 as pb
from simswitch.v1 import event_pb2
from simswitch.v1 import inventory_pb2 as inv

from tests.service.serving import SIMS, Serving, define
from tests.service.test_calls import refusal

CYCLE, DAY, ROLLING = layout.Window


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


def rule(closing_day: int = 31, time_zone: str = "Asia/Tokyo", lag_s: int = 0, spread_s: int = 0) -> inv.ResetRule:
    return inv.ResetRule(closing_day=closing_day, time_zone=time_zone, lag_seconds=lag_s, spread_seconds=spread_s)


@pytest.mark.parametrize(
    ("closing_day", "after", "wanted"),
    [
        (31, "2026-01-15T12:00+09:00", "2026-02-01T00:00+09:00"),
        (31, "2026-02-01T00:00+09:00", "2026-03-01T00:00+09:00"),
        (31, "2026-04-30T23:59:59+09:00", "2026-05-01T00:00+09:00"),
        (30, "2028-02-10T00:00+09:00", "2028-03-01T00:00+09:00"),
        (28, "2028-02-10T00:00+09:00", "2028-02-29T00:00+09:00"),
        (20, "2026-12-20T12:00+09:00", "2026-12-21T00:00+09:00"),
        (20, "2026-12-21T00:00+09:00", "2027-01-21T00:00+09:00"),
        (1, "2026-01-31T23:00+09:00", "2026-02-02T00:00+09:00"),
        # The local day has begun where the universal one has not.
        (31, "2026-01-31T15:30+00:00", "2026-03-01T00:00+09:00"),
    ],
)
def test_a_cycle_begins_when_its_closing_day_is_over(closing_day: int, after: str, wanted: str) -> None:
    assert next_reset_ms(CYCLE, rule(closing_day), ms(after)) == ms(wanted)


def test_every_closing_day_resets_twelve_times_a_year_and_on_the_day_after_it() -> None:
    for closing_day in range(1, 32):
        at_ms = ms("2027-12-31T23:59:59+00:00")
        instants: list[datetime] = []
        while at_ms < ms("2028-12-31T23:59:59+00:00"):
            before_ms, at_ms = at_ms, next_reset_ms(CYCLE, rule(closing_day, "UTC"), at_ms)
            assert last_reset_ms(CYCLE, rule(closing_day, "UTC"), at_ms) == at_ms
            assert not instants or last_reset_ms(CYCLE, rule(closing_day, "UTC"), at_ms - 1) == before_ms
            instants.append(datetime.fromtimestamp(at_ms / 1_000, UTC))
        assert len(instants) in (12, 13)
        for instant in instants:
            last = instant - timedelta(days=1)
            month_ends = instant.day == 1 and last.day <= closing_day
            assert (instant.hour, instant.minute) == (0, 0)
            assert last.day == closing_day or month_ends


def test_the_lag_moves_the_instant_and_not_the_day() -> None:
    lagged = rule(31, lag_s=7_200)
    assert next_reset_ms(CYCLE, lagged, ms("2026-02-01T01:59+09:00")) == ms("2026-02-01T02:00+09:00")
    assert next_reset_ms(CYCLE, lagged, ms("2026-02-01T02:00+09:00")) == ms("2026-03-01T02:00+09:00")
    assert next_reset_ms(DAY, lagged, ms("2026-02-01T01:59+09:00")) == ms("2026-02-01T02:00+09:00")


def test_days_follow_the_clocks_of_their_zone() -> None:
    """A day of 23 hours, one of 25, and one whose midnight there is not."""
    paris, beirut = rule(0, "Europe/Paris"), rule(0, "Asia/Beirut")
    hours = []
    for begin in ("2026-03-28T23:00+00:00", "2026-10-24T22:00+00:00", "2026-06-01T22:00+00:00"):
        first = next_reset_ms(DAY, paris, ms(begin) - 1)
        assert first == ms(begin)
        hours.append((next_reset_ms(DAY, paris, first) - first) // 3_600_000)
    assert hours == [23, 25, 24]
    at_ms = ms("2026-03-27T12:00+02:00")
    for _ in range(4):
        following = next_reset_ms(ROLLING, beirut, at_ms)
        assert 0 < following - at_ms <= 25 * 3_600_000
        at_ms = following
    assert datetime.fromtimestamp(at_ms / 1_000, ZoneInfo("Asia/Beirut")).day == 31


def test_a_cycle_without_a_closing_day_and_a_zone_that_there_is_not() -> None:
    assert next_reset_ms(CYCLE, rule(0), ms("2026-01-15T12:00+09:00")) == 0
    for name in ("Asia/Nowhere", "../secret", "a" * 300):
        with pytest.raises(ValueError, match="no time zone"):
            zone(name)


# ------------------------------------------------------------------------------------------------ the service


def lot_caps(operator: OperatorClient) -> pb.LotCaps:
    return operator.caps.ListLotCaps(pb.ListLotCapsRequest(lot="lot")).lots[0]


def until(wanted: Callable[[], bool]) -> None:
    """Waits for what comes by itself; the test's own timeout ends it."""
    while not wanted():
        time.sleep(0.01)


def define_plan(operator: OperatorClient, resets: inv.ResetRule | None) -> None:
    windows = [
        inv.CapWindow(kind=inv.CAP_WINDOW_KIND_CYCLE, quota_bytes=100 << 30),
        inv.CapWindow(kind=inv.CAP_WINDOW_KIND_DAY, quota_bytes=3 << 30),
    ]
    plan = inv.Plan(name="plan", carrier="carrier", windows=windows, resets=resets)
    operator.inventory.DefinePlan(inv.DefinePlanRequest(plan=plan))


def happened(operator: OperatorClient, kind: event_pb2.EventKind.ValueType) -> list[event_pb2.Event]:
    request = event_pb2.WatchEventsRequest(after=0, kinds=[kind], once=True)
    return [event for response in operator.events.WatchEvents(request) for event in response.events]


def reset(serving: Serving, at_ms: int) -> None:
    """Of the day, without the service's calendar."""
    lot = serving.cell.call_read(lambda machine: machine.entity_index(layout.LOT, "lot"))
    assert lot is not None
    serving.cell.call(commands.run(layout.SCHEDULE, lot=lot, window=DAY, at_ms=at_ms, spread_ms=0))


def scheduled(operator: OperatorClient) -> dict[int, int]:
    return {int(window.window): window.reset_ms for window in lot_caps(operator).windows}


def test_resets_are_scheduled_by_the_plan_and_again_after_each_and_after_a_restart(
    serving: Serving, pool: OperatorClient
) -> None:
    define_plan(pool, None)
    assert scheduled(pool) == {CYCLE: 0, DAY: 0}
    define_plan(pool, rule(20))
    until(lambda: all(scheduled(pool).values()))
    now_ms = serving.cell.call_read(lambda machine: machine.now_ms)
    wanted = {window: next_reset_ms(window, rule(20), now_ms) for window in (CYCLE, DAY)}
    assert scheduled(pool) == wanted
    # The lot's own closing day, and a spread that is another.
    define_plan(pool, rule(20, spread_s=600))
    lot = inv.Lot(name="lot", supplier="wholesale", plan="plan", sim_class="class", closing_day=5)
    pool.inventory.DefineLot(inv.DefineLotRequest(lot=lot))
    wanted[CYCLE] = next_reset_ms(CYCLE, rule(5), now_ms)
    until(lambda: scheduled(pool) == wanted)
    # One that is due is carried out by the engine; the service schedules the one that follows.
    before_ms = serving.cell.call_read(lambda machine: machine.now_ms)
    reset(serving, before_ms)
    until(lambda: scheduled(pool) == wanted and lot_caps(pool).windows[DAY - 1].last_reset_ms == before_ms)
    (told,) = happened(pool, event_pb2.EVENT_KIND_RESET)
    assert (told.lot_or_plan, int(told.window), told.sims_count) == ("lot", DAY, SIMS)
    serving.drain()
    serving.begin()
    with OperatorClient(serving.address) as again:
        assert scheduled(again) == wanted
        define_plan(again, None)
        lot.closing_day = 0
        again.inventory.DefineLot(inv.DefineLotRequest(lot=lot))
        until(lambda: scheduled(again) == {CYCLE: 0, DAY: 0})


def test_windows_without_a_cap_start_anew_too(serving: Serving, pool: OperatorClient) -> None:
    """What is used in them is what a cap that nobody knew of is learned from."""

    def resets() -> list[int]:
        def read(machine: Machine) -> list[int]:
            lot = machine.entity_index(layout.LOT, "lot")
            assert lot is not None
            return list(machine.lot(lot)["reset_ms"])

        return serving.cell.call_read(read)

    window = inv.CapWindow(kind=inv.CAP_WINDOW_KIND_CYCLE, quota_bytes=100 << 30)
    plan = inv.Plan(name="plan", carrier="carrier", windows=[window], resets=rule(20))
    pool.inventory.DefinePlan(inv.DefinePlanRequest(plan=plan))
    until(lambda: bool(resets()[DAY - 1]))
    now_ms = serving.cell.call_read(lambda machine: machine.now_ms)
    assert resets() == [next_reset_ms(CYCLE, rule(20), now_ms), next_reset_ms(DAY, rule(20), now_ms), 0]


def test_while_the_clock_is_frozen_a_reset_that_is_due_waits(serving: Serving, pool: OperatorClient) -> None:
    define_plan(pool, rule(20))
    until(lambda: all(scheduled(pool).values()))
    now_ms = serving.cell.call_read(lambda machine: machine.now_ms)
    serving.cell.call(commands.run(layout.FREEZE))
    reset(serving, now_ms)
    assert serving.running is not None
    serving.in_loop(serving.running.service.calendar.look)
    serving.cell.call(commands.run(layout.TICK))
    day = lot_caps(pool).windows[DAY - 1]
    assert (day.reset_ms, day.last_reset_ms) == (now_ms, 0)
    serving.cell.call(commands.run(layout.THAW))
    until(lambda: lot_caps(pool).windows[DAY - 1].last_reset_ms == now_ms)
    until(lambda: scheduled(pool)[DAY] > now_ms)


def test_a_rule_that_cannot_be_is_refused(pool: OperatorClient) -> None:
    for wrong in (rule(32), rule(time_zone="Mars/Base"), rule(lag_s=43_201), rule(spread_s=43_201)):
        assert refusal(lambda: define_plan(pool, wrong)).reason == "INVALID_ARGUMENT"  # noqa: B023
    lot = inv.Lot(name="lot", supplier="wholesale", plan="plan", sim_class="class", closing_day=32)
    assert refusal(lambda: pool.inventory.DefineLot(inv.DefineLotRequest(lot=lot))).reason == "INVALID_ARGUMENT"
    lot = inv.Lot(name="lot", supplier="wholesale", plan="plan", sim_class="class", active_from="soon")
    assert refusal(lambda: pool.inventory.DefineLot(inv.DefineLotRequest(lot=lot))).reason == "INVALID_ARGUMENT"


def test_the_last_day_of_a_lot_ends_at_midnight_of_its_plan_s_zone(tmp_path: Path) -> None:
    serving = Serving(tmp_path)
    try:
        with OperatorClient(serving.address) as operator:
            define(operator)
            define_plan(operator, rule(20, "Pacific/Kiritimati"))
            lot = inv.Lot(name="lot", supplier="wholesale", plan="plan", sim_class="class", valid_until="2020-02-29")
            operator.inventory.DefineLot(inv.DefineLotRequest(lot=lot))
            assert lot_caps(operator).validity == inv.VALIDITY_NO_LONGER
            (told,) = happened(operator, event_pb2.EVENT_KIND_VALIDITY)
            assert (told.lot_or_plan, told.validity) == ("lot", inv.VALIDITY_NO_LONGER)
            numbers = serving.cell.call_read(lambda machine: machine.entities(layout.LOT))[0]["numbers"]
            assert numbers[layout.LOT_VALID_UNTIL_S] == ms("2020-03-01T00:00+14:00") // 1_000
    finally:
        serving.end()

"""What each subscriber used today and this month: local days, civil months, a table that may be full."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

from tests.model.transitions import SLOW_KBPS, T, allocate, limit_rule, limited, new_world
from tests.model.world import MIB, STEP_MS, SUBSCRIBER, World

HOUR_MS = 3_600_000


def at(world: World, when: datetime) -> None:
    world.now_ms = int(when.timestamp() * 1000)
    world.send(commands.run(layout.TICK))


def used(world: World) -> tuple[date, int, int]:
    found = world.machine.subscriber(SUBSCRIBER)
    assert found is not None
    return date(found["year"], found["month"], found["day"]), found["day_bytes"], found["month_bytes"]


@pytest.mark.parametrize(("begins_ms", "ahead_hours"), [(0, 0), (15 * HOUR_MS, 9), (5 * HOUR_MS, -5)])
def test_days_and_months_are_local(begins_ms: int, ahead_hours: int) -> None:
    world = new_world()
    world.configure(layout.DAY_BEGINS_MS, begins_ms)
    world.configure(layout.LEASE_MS, 7 * 24 * HOUR_MS)
    midnight = datetime(2021, 3, 1, tzinfo=UTC) - timedelta(hours=ahead_hours)
    at(world, midnight - timedelta(hours=2))
    epoch = allocate(world)
    for step, (when, day, day_bytes, month_bytes) in enumerate(
        (
            (midnight - timedelta(hours=1), date(2021, 2, 28), MIB, MIB),
            (midnight - timedelta(minutes=1), date(2021, 2, 28), 2 * MIB, 2 * MIB),
            (midnight + timedelta(minutes=1), date(2021, 3, 1), MIB, MIB),
            (midnight + timedelta(days=1, minutes=1), date(2021, 3, 2), MIB, 2 * MIB),
        ),
        1,
    ):
        at(world, when)
        assert world.status(world.usage(T, epoch, step * MIB)) == layout.OK
        assert used(world) == (day, day_bytes, month_bytes)
    at(world, midnight + timedelta(days=31, minutes=1))
    assert used(world) == (date(2021, 4, 1), 0, 0)


def test_the_calendar_is_that_of_the_library(record_property: Callable[[str, object], None]) -> None:
    seed = random.randrange(2**32)
    record_property("seed", seed)
    days = sorted(random.Random(seed).sample(range(18_400, 62_000), 200))
    world = new_world()
    for number in days:
        world.now_ms = number * 24 * HOUR_MS
        world.send(commands.run(layout.TICK))
        epoch = allocate(world)
        assert world.status(world.usage(T, epoch, MIB)) == layout.OK
        assert world.status(world.lease(layout.RELEASE, T, epoch)) == layout.OK
        assert used(world)[0] == date(1970, 1, 1) + timedelta(days=number)


def test_a_full_table_refuses_no_report_and_growth_keeps_what_is_counted() -> None:
    world = new_world(terminals_max=1)
    epoch = allocate(world)
    assert world.status(world.usage(T, epoch, MIB)) == layout.OK
    run = commands.run(
        layout.ALLOCATE,
        1,
        access_server=1,
        terminal=T,
        subscriber=SUBSCRIBER + 1,
        expected_bytes=0,
        market=world.entities["home"],
    )
    (outcome,) = world.send(run)
    epoch = int(outcome["epoch"][0])
    assert world.status(world.usage(T, epoch, MIB, server=1)) == layout.OK
    header = world.machine.header()
    assert (header["subscribers_count"], header["subscribers_missed"]) == (1, 1)
    assert header["counted_bytes"] == 2 * MIB
    world.send(commands.run(layout.GROW, 1, sims=0, terminals=1000, orders=0))
    assert used(world)[2] == MIB
    world.send(world.usage(T, epoch, 2 * MIB, server=1))
    found = world.machine.subscriber(SUBSCRIBER + 1)
    assert found is not None
    assert found["month_bytes"] == MIB
    again = Machine.restore(
        [(name, size, count, bytes(data)) for name, size, count, data in world.machine.snapshot_regions()]
    )
    assert again.subscriber(SUBSCRIBER) == world.machine.subscriber(SUBSCRIBER)
    assert again.state_hash() == world.machine.state_hash()


def test_a_rule_that_allows_more_is_told_to_all_whom_it_touched_step_by_step() -> None:
    """Also where the table of subscribers moves meanwhile. Who has no lease is met behind all terminals."""
    world = new_world(terminals_max=40_000)
    epoch = limited(world, "slowed", layout.ACTION_SLOW)
    world.send(world.lease(layout.RELEASE, T, epoch))
    place = int(np.flatnonzero(world.tables()["subscribers"]["key"] == SUBSCRIBER)[0])
    assert place > 3 * layout.WORK_MAX
    world.events.clear()
    world.send(limit_rule(world, action=layout.ACTION_SLOW, slow_kbps=SLOW_KBPS, month_bytes=100 * MIB))
    world.send(commands.run(layout.TICK))
    assert [event["kind"] for event in world.events if event["kind"] == layout.EVENT_LIMIT] == []
    world.send(commands.run(layout.GROW, 1, sims=0, terminals=50_000, orders=0))
    applies = 0
    while world.machine.header()["sweeps_count"]:
        world.send(commands.run(layout.TICK))
        applies += 1
    assert applies > 10
    told = [(event["kind"], event["reason"], event["subscriber"]) for event in world.events]
    assert told == [(layout.EVENT_LIMIT, layout.LIMIT_LIFTED, SUBSCRIBER)]
    world.pass_ms(STEP_MS)
    assert world.machine.check() == []

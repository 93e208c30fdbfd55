"""Published limits that change: who was told of one hears of each change once."""

from __future__ import annotations

from collections import Counter

import numpy as np
from simswitch.core import commands, layout

from tests.model.transitions import SLOW_KBPS, T, limit_rule, limited, new_world
from tests.model.world import MIB, World, empty_world

PEOPLE = 6_000
"""More than a walk meets in one apply, terminals and places of the table taken together."""
WARNED, NOTIFIED, SLOWED = layout.LIMIT_WARNED, layout.LIMIT_PASSED, layout.LIMIT_SLOWED
REFUSED, LIFTED = layout.LIMIT_REFUSED, layout.LIMIT_LIFTED


def told(world: World) -> list[tuple[int, int]]:
    """What limits said since the last time, and of which rule."""
    found = [event for event in world.events if event["kind"] == layout.EVENT_LIMIT]
    world.events.clear()
    return [(event["reason"], event["a"] >> 48 & 0x3FFF) for event in found]


def finish(world: World) -> None:
    while world.machine.header()["sweeps_count"]:
        world.send(commands.run(layout.TICK))


def test_another_action_is_told_to_all_whom_it_touches_once_each_also_to_who_reports_meanwhile() -> None:
    world = empty_world(sims_max=PEOPLE, terminals_max=2 * PEOPLE)
    world.configure(layout.LEASE_MS, 7 * 24 * 3_600_000)
    world.define(layout.PLAN, "monthly")
    world.import_sims(PEOPLE)
    assert world.status(limit_rule(world, action=layout.ACTION_NOTIFY, warn_permille=800)) == layout.OK
    terminals = np.arange(1, PEOPLE + 1)
    (leases,) = world.send(world.allocate(terminals, subscriber=terminals))
    epochs = leases["epoch"].astype(np.uint64)
    world.now_ms += 10_000

    def report(up_bytes: int) -> bytes:
        return commands.run(
            layout.REPORT_USAGE,
            PEOPLE,
            access_server=0,
            terminal=terminals,
            epoch=epochs,
            up_bytes=up_bytes,
            down_bytes=0,
        )

    world.send(report(20 * MIB))
    # Every third has no lease any more.
    gone = terminals % 3 == 0
    world.send(
        commands.run(layout.RELEASE, int(gone.sum()), access_server=0, terminal=terminals[gone], epoch=epochs[gone])
    )
    rule = world.machine.header()["limit_for_all"]
    assert told(world) == [(WARNED, rule), (NOTIFIED, rule)] * PEOPLE
    world.send(limit_rule(world, action=layout.ACTION_REFUSE, warn_permille=800))
    assert world.machine.header()["sweeps_count"]
    world.now_ms += 10_000
    world.send(report(21 * MIB))
    finish(world)
    refused = [event for event in world.events if event["kind"] == layout.EVENT_LIMIT]
    assert {event["reason"] for event in refused} == {REFUSED}
    assert Counter(event["subscriber"] for event in refused) == Counter(terminals.tolist())
    # Where there is a lease, its access server hears it, and for which terminal.
    heard = {event["subscriber"]: (event["terminal"], event["access_server"]) for event in refused}
    assert all(heard[person] == (person, 0) for person in terminals[~gone].tolist())
    world.events.clear()
    world.now_ms += 10_000
    world.send(report(22 * MIB))
    finish(world)
    assert told(world) == []
    assert world.machine.check() == []


def test_what_is_lifted_names_the_rule_that_said_it_whatever_became_of_that_meanwhile() -> None:
    """From the rule for all to a group's, to another of that group, and back: the person hears from what to what."""
    world = new_world()
    epoch = limited(world, "slowed", layout.ACTION_SLOW)
    published = world.machine.header()["limit_for_all"]
    brand = world.define(layout.SUBSCRIBER_GROUP, "brand", {layout.GROUP_PRIORITY: 2})
    assert told(world) == [(WARNED, published), (SLOWED, published)]
    # It asks as one of a group that has no rule: nothing is another. Then the group gets one.
    world.send(world.allocate(T, group=brand))
    assert told(world) == []
    first = int(world.send(limit_rule(world, "first", group=brand))[0]["index"][0])
    assert told(world) == [(LIFTED, published), (REFUSED, first)]
    # Within one apply the rule is withdrawn, another takes its place, and goes too.
    runs = (
        limit_rule(world, "first", group=brand, withdrawn=1),
        limit_rule(world, "second", group=brand, action=layout.ACTION_NOTIFY),
        limit_rule(world, "second", group=brand, action=layout.ACTION_NOTIFY, withdrawn=1),
    )
    world.send(*runs)
    assert told(world) == [(LIFTED, first), (SLOWED, published)]
    # In the same apply its rule slows more and it leaves the group, which changes nothing of what holds for it.
    slower = limit_rule(world, warn_permille=800, action=layout.ACTION_SLOW, slow_kbps=SLOW_KBPS // 2)
    world.send(slower, world.allocate(T))
    assert told(world) == [(SLOWED, published)]
    world.send(limit_rule(world, warn_permille=800, action=layout.ACTION_SLOW, slow_kbps=SLOW_KBPS // 2, withdrawn=1))
    assert told(world) == [(LIFTED, published)]
    assert world.status(world.usage(T, epoch, 30 * MIB)) == layout.OK
    assert told(world) == []
    assert world.machine.check() == []


def test_more_changes_than_are_kept_are_refused_until_all_have_heard_of_those_before() -> None:
    world = new_world()
    limited(world, "passed", layout.ACTION_NOTIFY)
    published = world.machine.header()["limit_for_all"]
    told(world)
    runs = [limit_rule(world, action=layout.ACTION_SLOW, slow_kbps=1_000 + each) for each in range(20)]
    definitions = np.frombuffer(b"".join(run[commands.RUN_HEADER.itemsize :] for run in runs), "V1024")
    statuses = world.statuses(commands.run(layout.DEFINE, 20, definition=definitions))
    assert statuses == [layout.OK] * 14 + [layout.SWEEPS_FULL] * 6
    finish(world)
    assert told(world) == [(SLOWED, published)]
    assert world.statuses(commands.run(layout.DEFINE, 6, definition=definitions[14:])) == [layout.OK] * 6
    finish(world)
    assert told(world) == [(SLOWED, published)]
    assert world.machine.check() == []

"""More terminals ask at once than their access server can attach: who waits, how long, and who goes first."""

from __future__ import annotations

from collections import Counter

import pytest
from simswitch.core import commands, layout
from simswitch.core.commands import OutcomeRun

from tests.core.test_jobs import begin
from tests.model.world import World, empty_world

SERVICE_MS = 100
QUEUE_MS = 2_000
FIRST, LAST = 1, 3
STORM = 400


def world_of(sims: int = 2_000) -> World:
    world = empty_world(sims_max=4_000, terminals_max=4_000, orders_max=1_000)
    world.configure(layout.LEASE_MS, 86_400_000)
    world.configure(layout.ADMISSION_QUEUE_MS, QUEUE_MS)
    world.configure(layout.ORDER_DEADLINE_MS, 600_000)
    for priority in (FIRST, 2, LAST):
        world.define(layout.SUBSCRIBER_GROUP, f"priority-{priority}", {layout.GROUP_PRIORITY: priority})
    world.import_sims(sims)
    tell(world)
    return world


def tell(world: World, service_ms: int = SERVICE_MS, queue_wait_ms: int = 0) -> None:
    run = commands.run(
        layout.REPORT_LOAD,
        access_server=0,
        argument=world.sessions[0],
        queue_wait_us=queue_wait_ms * 1000,
        service_us=service_ms * 1000,
        waiting=queue_wait_ms // service_ms,
        taken_count=0xFFFFFFFF,
        allocation_wait_us=queue_wait_ms * 1000,
    )
    world.send(run)


def ask(world: World, terminals: list[int], priority: int = 0, server: int = 0) -> OutcomeRun:
    run = commands.run(
        layout.ALLOCATE,
        len(terminals),
        access_server=server,
        argument=world.entities[f"priority-{priority}"] if priority else 0,
        terminal=terminals,
        subscriber=0,
        expected_bytes=0,
        market=world.entities["home"],
    )
    (outcome,) = world.send(run)
    return outcome


def come(world: World, waits: dict[int, tuple[int, int]], until_ms: int) -> dict[int, int]:
    """Lets everybody come when they were told to; when each was let in. ``waits``: when to come, and its priority."""
    let_in = {}
    while waits and world.now_ms < until_ms:
        world.pass_ms(64)
        tell(world)
        for priority in (1, 2, 3):
            due = [key for key, (at_ms, lane) in waits.items() if at_ms <= world.now_ms and lane == priority]
            if not due:
                continue
            outcome = ask(world, due, priority)
            for key, status, wait_ms in zip(due, outcome["status"], outcome["retry_after_ms"], strict=True):
                if status == layout.OK:
                    let_in[key] = world.now_ms
                    del waits[key]
                else:
                    assert status == layout.ADMISSION_WAIT
                    waits[key] = (world.now_ms + int(wait_ms), priority)
    return let_in


def test_as_many_as_fit_into_its_queue_are_let_in_and_the_others_come_back_at_its_pace() -> None:
    world = world_of()
    outcome = ask(world, list(range(1, STORM + 1)))
    count = Counter(outcome["status"].tolist())
    assert count == {layout.OK: 1 + QUEUE_MS // SERVICE_MS, layout.ADMISSION_WAIT: STORM - 1 - QUEUE_MS // SERVICE_MS}
    waits = outcome["retry_after_ms"][outcome["status"] == layout.ADMISSION_WAIT].astype(int)
    # A place every 100 ms and a ninth; the jitter is at most a second and a sixteenth.
    assert waits.min() >= QUEUE_MS
    last_ms = QUEUE_MS + len(waits) * SERVICE_MS * 10 // 9
    assert 0.95 * last_ms < waits.max() <= last_ms * 17 // 16 + 1_000
    assert len(set(waits.tolist())) > 0.9 * len(waits)
    assert world.machine.server(0)["waits_count"] == len(waits)


def test_everybody_is_let_in_and_the_queue_stays_short() -> None:
    world = world_of()
    start_ms = world.now_ms
    outcome = ask(world, list(range(1, STORM + 1)))
    waits = {
        key: (world.now_ms + int(wait_ms), 2)
        for key, status, wait_ms in zip(range(1, STORM + 1), outcome["status"], outcome["retry_after_ms"], strict=True)
        if status == layout.ADMISSION_WAIT
    }
    let_in = come(world, waits, start_ms + 120_000)
    assert not waits
    # Never more than 2 x QUEUE_MS of work ahead of what it serves: so many in any window of time.
    at = sorted([start_ms] * (STORM - len(let_in)) + list(let_in.values()))
    served_ms = start_ms
    for instant in at:
        served_ms = max(served_ms, instant) + SERVICE_MS
        assert served_ms - instant <= 2 * QUEUE_MS + 2 * SERVICE_MS
    # And it is not left idle either: nine tenths of its pace, jitter and all.
    assert max(at) - start_ms < 1.3 * STORM * SERVICE_MS


def test_who_has_an_appointment_keeps_it_however_often_it_asks() -> None:
    world = world_of()
    first = ask(world, list(range(1, STORM + 1)))["retry_after_ms"]
    again = ask(world, [STORM])["retry_after_ms"]
    assert again[0] == first[-1]
    world.pass_ms(640)
    assert ask(world, [STORM])["retry_after_ms"][0] == first[-1] - 640
    # Who comes later stands behind.
    assert ask(world, [STORM + 1])["retry_after_ms"][0] > 0.9 * (first[-1] - 640 - 1_000)


def test_a_moment_in_which_it_is_slow_keeps_nobody_away_for_long() -> None:
    """Places that were given at 5 s each stood for hours after it was fast again."""
    world = world_of()
    tell(world, service_ms=5_000)
    waits = ask(world, list(range(1, STORM + 1)))["retry_after_ms"]
    # Who would wait longer asks again in between.
    assert waits.max() < 1_200_000
    assert Counter((waits >= 600_000).tolist())[True] > STORM // 2
    tell(world)
    world.pass_ms(64)
    outcome = ask(world, list(range(1, 2 * STORM + 1)))
    assert Counter(outcome["status"].tolist())[layout.OK] >= QUEUE_MS // SERVICE_MS
    assert outcome["retry_after_ms"].max() < 120_000
    # A pace that varies a little keeps the books.
    again = ask(world, [2 * STORM])["retry_after_ms"][0]
    tell(world, service_ms=SERVICE_MS // 3)
    assert ask(world, [2 * STORM])["retry_after_ms"][0] == again


def test_subscriber_groups_with_priority_go_first_and_nobody_starves() -> None:
    world = world_of()
    start_ms = world.now_ms
    waits: dict[int, tuple[int, int]] = {}
    for priority, keys in ((LAST, range(1, 201)), (FIRST, range(201, 401))):
        outcome = ask(world, list(keys), priority)
        for key, status, wait_ms in zip(keys, outcome["status"], outcome["retry_after_ms"], strict=True):
            if status == layout.ADMISSION_WAIT:
                waits[key] = (start_ms + int(wait_ms), priority)
    let_in = come(world, waits, start_ms + 120_000)
    assert not waits
    means = [
        sum(at_ms - start_ms for key, at_ms in let_in.items() if key in keys) / sum(key in keys for key in let_in)
        for keys in (range(1, 201), range(201, 401))
    ]
    assert means[1] < 0.75 * means[0]
    # Even while the others were let in, some of the last were.
    half_ms = sorted(let_in.values())[len(let_in) // 2]
    assert sum(at_ms <= half_ms for key, at_ms in let_in.items() if key <= 200) > 10


def test_who_has_a_lease_or_asks_where_the_pace_is_unknown_never_waits() -> None:
    world = world_of()
    assert ask(world, [1])["status"].tolist() == [layout.OK]
    ask(world, list(range(2, STORM)))
    assert ask(world, [1])["status"].tolist() == [layout.SAME]
    other = ask(world, list(range(1_001, 1_401)), server=1)
    assert set(other["status"].tolist()) == {layout.OK}
    assert world.machine.check() == []


def test_a_released_lease_is_no_appointment() -> None:
    world = world_of()
    ask(world, [1])
    epoch = int(world.tables()["terminals"]["epoch"][0])
    world.send(world.lease(layout.RELEASE, 1, epoch))
    assert ask(world, [1])["status"].tolist() == [layout.OK]


def test_an_appointment_that_is_missed_by_long_is_void() -> None:
    world = world_of()
    outcome = ask(world, list(range(1, 40)))
    late = outcome["status"].tolist().index(layout.ADMISSION_WAIT) + 1
    world.pass_ms(200_000)
    tell(world)
    assert ask(world, [late])["status"].tolist() == [layout.OK]


def test_no_swap_takes_a_terminals_place_and_the_window_ramps_up_afterwards() -> None:
    world = world_of()
    ask(world, list(range(1, 20)))
    world.pass_ms(10_000)
    tell(world)
    outcome = ask(world, list(range(101, 301)))
    assert layout.ADMISSION_WAIT in outcome["status"].tolist()
    begin(world, *range(1, 20))
    tell(world, queue_wait_ms=1_500)
    sent = {order["order"] for order in world.orders}
    for _ in range(20):
        world.pass_ms(640)
        tell(world, queue_wait_ms=1_500)
    assert {order["order"] for order in world.orders} == sent
    for _ in range(60):
        world.pass_ms(640)
        tell(world)
    seen = world.machine.server(0)
    assert (seen["window"], seen["window_reason"]) == (5, layout.WINDOW_STORM)
    assert len({order["order"] for order in world.orders}) > len(sent)


def test_a_group_that_there_is_not_is_refused() -> None:
    world = world_of()
    world.entities["priority-4"] = world.entities["home"]
    assert ask(world, [1, 2], priority=4)["status"].tolist() == [layout.INVALID_ARGUMENT] * 2


@pytest.mark.parametrize("queue_ms", [0, 600_000])
def test_the_bound_is_a_setting(queue_ms: int) -> None:
    world = world_of()
    world.configure(layout.ADMISSION_QUEUE_MS, queue_ms)
    assert set(ask(world, list(range(1, STORM)))["status"].tolist()) == {layout.OK}

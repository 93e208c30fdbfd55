"""Circuit breakers: what opens them and what does not, what they keep away, how they close again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from simswitch.core import commands, layout

from tests.core.test_jobs import begin
from tests.model.world import World, empty_world

OPEN_MS = 6_400
ANSWERS = {True: layout.ACK_DONE, False: layout.ACK_REFUSED}


def world_of(terminals: int, servers: int = 1) -> World:
    """Terminals that hold SIMs of gold-b, on bank-2; targets are SIMs of gold-a and silver-a, on both banks."""
    world = empty_world(sims_max=4_000, terminals_max=2_000, orders_max=4_000)
    world.configure(layout.BREAKER_MS, OPEN_MS)
    world.configure(layout.LEASE_MS, 86_400_000)
    # Sources don't come back as targets.
    world.configure(layout.COOLING_MS, 86_400_000)
    world.import_sims(terminals, lot="gold-b", bank="bank-2")
    for server in range(servers):
        world.send(world.allocate(list(range(1 + server, terminals + 1, servers)), server=server))
    for lot in ("gold-a", "silver-a"):
        for bank in ("bank-1", "bank-2"):
            world.import_sims(500, lot=lot, bank=bank)
    return world


def target(world: World, order: dict[str, int]) -> dict[str, Any]:
    index = world.machine.find_sim(order["target_iccid"])
    assert index is not None
    return world.machine.sim(index)


def answers(world: World, ok: Callable[[dict[str, int]], bool | None]) -> None:
    """Answers the orders that wait for it, and those that come of that: done or refused. None: not yet."""
    for order in world.orders:
        if world.machine.order(order["order"] & 0xFFFFFF)["number"] != order["order"]:
            continue
        well = ok(order)
        if well is not None:
            world.send(world.acknowledge(order["order"], ANSWERS[well], order["access_server"]))


def breaker(world: World, name: str) -> dict[str, Any]:
    found = [row for row in world.machine.breakers() if row["name"] == name]
    return found[0] if found else {"state": layout.BREAKER_CLOSED, "failures": 0, "successes": 0}


def states(world: World) -> dict[str, int]:
    """Of those that are not closed."""
    return {row["name"]: row["state"] for row in world.machine.breakers() if row["state"] != layout.BREAKER_CLOSED}


def drive(world: World, steps: int, ok: Callable[[dict[str, int]], bool | None]) -> None:
    """Lets time pass; every order is answered within a step."""
    for _ in range(steps):
        world.pass_ms(640)
        answers(world, ok)
        assert world.machine.check() == []


@pytest.mark.parametrize(
    ("bad", "opens"),
    [
        (lambda sim, entities: sim["bank"] == entities["bank-1"], {"bank-1"}),
        (lambda sim, entities: sim["lot"] == entities["gold-a"], {"gold-a"}),
    ],
    ids=["bank", "lot"],
)
def test_the_narrowest_that_explains_the_failures_opens_and_nothing_else(
    bad: Callable[[dict[str, Any], dict[str, int]], bool], opens: set[str]
) -> None:
    world = world_of(400)
    begin(world, *range(1, 401), rate_per_minute=1_200)

    def ok(order: dict[str, int]) -> bool:
        return not bad(target(world, order), world.entities)

    while not states(world):
        drive(world, 1, ok)
    assert set(states(world)) == opens
    # No target comes from there any more, and the others go on.
    sent = len(world.orders)
    confirmed = world.machine.server(0)["confirmed_count"]
    drive(world, 4, ok)
    assert all(ok(order) for order in world.orders[sent:])
    assert world.machine.server(0)["confirmed_count"] > confirmed


def test_a_share_below_the_budget_opens_nothing_and_few_failures_judge_nothing() -> None:
    world = world_of(200)
    begin(world, *range(1, 201))
    count = [0]

    def often(_: dict[str, int]) -> bool:
        count[0] += 1
        return count[0] % 5 != 0

    drive(world, 8, often)
    assert states(world) == {}
    # Each is tried three times.
    world = world_of(6)
    begin(world, *range(1, 7))
    while world.machine.job(0)["given_up_count"] < 6:
        drive(world, 1, lambda _: False)
    assert world.machine.job(0)["refused_count"] == 18
    assert breaker(world, "gold-a")["failures"] > 5
    assert states(world) == {}


def probed(world: World, name: str) -> dict[str, int]:
    """Goes on until a swap to that open lot is tried; only that one is not answered."""
    lot, sent = world.entities[name], len(world.orders)
    while states(world)[name] != layout.BREAKER_PROBING:
        drive(world, 1, lambda order: None if target(world, order)["lot"] == lot else True)
    (probe,) = [order for order in world.orders[sent:] if target(world, order)["lot"] == lot]
    return probe


def opened(world: World, name: str) -> None:
    """Goes on until the swaps to that lot have opened its breaker."""
    while name not in states(world):
        drive(world, 1, lambda order: target(world, order)["lot"] != world.entities[name])
    assert states(world) == {name: layout.BREAKER_OPEN}


def test_it_is_tried_with_one_swap_again_and_again_for_longer_and_closes_when_that_goes_well() -> None:
    world = world_of(1_000)
    begin(world, *range(1, 1_001), rate_per_minute=600)
    opened(world, "gold-a")
    for longest_ms in (OPEN_MS, 2 * OPEN_MS, 4 * OPEN_MS):
        row = breaker(world, "gold-a")
        assert longest_ms // 2 <= row["retry_ms"] - row["changed_ms"] <= longest_ms + 1
        before_ms = row["retry_ms"]
        probe = probed(world, "gold-a")
        assert world.now_ms >= before_ms
        if longest_ms < 4 * OPEN_MS:
            world.send(world.acknowledge(probe["order"], layout.ACK_REFUSED))
            assert states(world) == {"gold-a": layout.BREAKER_OPEN}
    world.send(world.acknowledge(probe["order"], layout.ACK_DONE))
    assert states(world) == {}
    # Its SIMs come first again, as the market's order says.
    sent = len(world.orders)
    drive(world, 10, lambda _: True)
    assert {target(world, order)["lot"] for order in world.orders[sent:]} == {world.entities["gold-a"]}


def test_a_probe_that_comes_to_nothing_makes_room_for_another() -> None:
    world = world_of(400)
    begin(world, *range(1, 401), rate_per_minute=600)
    opened(world, "gold-a")
    probe = probed(world, "gold-a")
    world.send(world.acknowledge(probe["order"], layout.ACK_BUSY))
    assert states(world)["gold-a"] == layout.BREAKER_HALF_OPEN
    assert world.machine.check() == []
    assert probed(world, "gold-a")["order"] != probe["order"]


def lot_of(world: World, terminal: int) -> int:
    """The lot of the SIM that a terminal holds."""
    index = world.machine.find_terminal(terminal)
    assert index is not None
    return int(world.machine.sim(world.machine.terminal(index)["sim"])["lot"])


def test_allocations_go_around_an_open_breaker_while_they_can_and_are_never_refused_for_it() -> None:
    world = world_of(400)
    begin(world, *range(1, 401), rate_per_minute=600)
    gold, silver = world.entities["gold-a"], world.entities["silver-a"]
    opened(world, "gold-a")
    world.send(world.allocate([1_001]))
    assert lot_of(world, 1_001) == silver
    world.send(commands.run(layout.MASK, 1, lot=silver, bank=layout.NONE_SHORT, masked=1))
    world.send(world.allocate([1_002]))
    assert lot_of(world, 1_002) == gold
    # A swap waits rather.
    sent = len(world.orders)
    world.pass_ms(640)
    assert all(target(world, order)["lot"] != gold for order in world.orders[sent:])


def test_around_an_open_breaker_a_sim_on_probation_is_the_last_to_go_too() -> None:
    """Of two lots behind the bank that fails the one whose slowed SIMs have come back ends first."""
    world = world_of(200)
    job = begin(world, *range(1, 201))
    bank = world.entities["bank-1"]
    while "bank-1" not in states(world):
        drive(world, 1, lambda order: target(world, order)["bank"] != bank)
    world.send(world.job(layout.JOB_CANCEL, job))
    (lot,) = (lot for lot in world.machine.entities(layout.LOT) if lot["name"] == "gold-b")
    ends = {layout.LOT_VALID_UNTIL_S: world.now_ms // 1_000 + 86_400}
    world.define(layout.LOT, "gold-b", dict(enumerate(lot["numbers"])) | ends)
    for sim in world.import_sims(2, lot="gold-b", bank="bank-2"):
        world.send(world.set_health(sim, layout.THROTTLED))
    world.send(world.schedule("gold-b", layout.WINDOW_CYCLE, world.now_ms))
    world.pass_ms(1_024)
    assert "bank-1" in states(world)
    world.send(world.allocate([1_001]))
    assert lot_of(world, 1_001) == world.entities["gold-a"]
    world.send(commands.run(layout.MASK, 1, lot=world.entities["gold-a"], bank=layout.NONE_SHORT, masked=1))
    world.send(world.allocate([1_002]))
    assert lot_of(world, 1_002) == world.entities["gold-b"]


def test_an_access_server_whose_swaps_fail_is_left_alone_until_one_goes_well() -> None:
    world = world_of(800, servers=2)
    begin(world, *range(1, 801), rate_per_minute=1_200)
    well = [False]

    def ok(order: dict[str, int]) -> bool:
        return well[0] or order["access_server"] == 0

    # The other's swaps go well, and more of them: what is common to both is not to blame.
    for _ in range(60):
        drive(world, 1, ok)
        if states(world):
            break
    assert states(world) == {"as-2": layout.BREAKER_OPEN}
    seen = world.machine.server(1)
    assert (seen["gate"], seen["gate_reason"]) == (layout.GATE_BACK_OFF, layout.GATE_BY_FAILURES)
    sent = len(world.orders)
    drive(world, 30, ok)
    tried = [order for order in world.orders[sent:] if order["access_server"] == 1]
    assert 1 <= len(tried) <= 8
    assert states(world) == {"as-2": layout.BREAKER_OPEN}
    well[0] = True
    for _ in range(200):
        drive(world, 1, ok)
        if not states(world):
            break
    assert states(world) == {}
    assert world.machine.server(1)["gate"] == layout.GATE_OPEN


def test_what_is_defined_later_in_an_open_bank_is_kept_away_too() -> None:
    world = world_of(200)
    begin(world, *range(1, 201))
    bank = world.entities["bank-1"]
    while "bank-1" not in states(world):
        drive(world, 1, lambda order: target(world, order)["bank"] != bank)
    world.import_sims(10, lot="gold-b", bank="bank-1")
    assert world.machine.check() == []


def test_a_state_with_an_open_breaker_is_restored_as_it_was() -> None:
    world = world_of(100)
    begin(world, *range(1, 101))
    drive(world, 4, lambda order: target(world, order)["lot"] != world.entities["gold-a"])
    assert states(world)
    regions = [(name, size, count, bytes(data)) for name, size, count, data in world.machine.snapshot_regions()]
    restored = type(world.machine).restore(regions)
    assert restored.state_hash() == world.machine.state_hash()
    assert restored.breakers() == world.machine.breakers()


def attach(world: World, count: int, well: Callable[[int], bool], first: int = 1_000) -> None:
    """So many terminals are given a SIM; those on a SIM that is not well say so, until they have one that is."""
    for terminal in range(first, first + count):
        world.send(world.allocate([terminal]))
        for _ in range(20):
            index = world.machine.find_terminal(terminal)
            assert index is not None
            lease = world.machine.terminal(index)
            if well(lease["sim"]):
                break
            world.pass_ms(640)
            world.send(world.lease(layout.REPORT_ATTACH_FAILURE, terminal, lease["epoch"]))
    assert world.machine.check() == []


@pytest.mark.parametrize(("kind", "name"), [("bank", "bank-1"), ("lot", "gold-a")])
def test_attaches_that_fail_open_the_narrowest_that_explains_them(kind: str, name: str) -> None:
    world = world_of(10)
    bad = world.entities[name]

    def well(sim: int) -> bool:
        return bool(world.machine.sim(sim)[kind] != bad)

    attach(world, 120, well)
    assert set(states(world)) == {name}
    # Allocations go elsewhere from now on.
    attach(world, 20, well, first=1_500)
    on = [world.machine.terminal(world.machine.find_terminal(1_500 + place) or 0)["sim"] for place in range(20)]
    assert all(map(well, on))


def test_a_few_attaches_of_many_that_fail_open_nothing() -> None:
    world = world_of(10)
    # One SIM in nine, wherever it stands.
    attach(world, 300, lambda sim: sim % 9 != 0)
    assert states(world) == {}
    assert breaker(world, "gold-a")["failures"] + breaker(world, "silver-a")["failures"] > 0


def test_failures_of_leases_that_were_not_counted_open_nothing() -> None:
    """Whoever reports all failures of an hour at once: of how many leases, nobody knows."""
    world = world_of(10)
    terminals = list(range(1_000, 1_100))
    world.send(world.allocate(terminals))
    for terminal in terminals:
        lease = world.machine.terminal(world.machine.find_terminal(terminal) or 0)
        world.send(world.lease(layout.REPORT_ATTACH_FAILURE, terminal, lease["epoch"]))
    assert states(world) == {}


def test_leases_that_begin_well_close_a_half_open_breaker_and_one_that_fails_opens_it_again() -> None:
    world = world_of(10)
    bad = [True]
    gold, silver = world.entities["gold-a"], world.entities["silver-a"]

    def well(sim: int) -> bool:
        return not (bad[0] and world.machine.sim(sim)["lot"] == gold)

    attach(world, 120, well)
    world.send(commands.run(layout.MASK, 1, lot=silver, bank=layout.NONE_SHORT, masked=1))
    for _ in range(60):
        world.pass_ms(640)
        if states(world).get("gold-a") == layout.BREAKER_HALF_OPEN:
            break
    world.pass_ms(1_000)
    attach(world, 1, well, first=1_300)
    assert states(world)["gold-a"] == layout.BREAKER_OPEN
    bad[0] = False
    for place in range(200):
        world.pass_ms(640)
        attach(world, 1, well, first=1_400 + place)
        if not states(world):
            break
    assert states(world) == {}


def test_a_swap_whose_target_does_not_attach_is_a_failed_one() -> None:
    world = world_of(200)
    begin(world, *range(1, 201), rate_per_minute=1_200, budget_ppm=1_000_000)
    opened_by = world.entities["gold-a"]
    for _ in range(60):
        world.pass_ms(640)
        for order in world.orders:
            if world.machine.order(order["order"] & 0xFFFFFF)["number"] != order["order"]:
                continue
            if target(world, order)["lot"] == opened_by:
                world.send(world.lease(layout.REPORT_ATTACH_FAILURE, order["terminal"], order["epoch"]))
            else:
                world.send(world.acknowledge(order["order"], layout.ACK_DONE))
        if states(world):
            break
    assert states(world) == {"gold-a": layout.BREAKER_OPEN}
    assert world.machine.job(0)["failed_count"] > 0

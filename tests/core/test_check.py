"""``Machine.check`` and the walk's own checks are worth something: a state that was spoiled on purpose is found out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

from tests.model.invariants import violations
from tests.model.records import Table, copy_regions, pack, tables
from tests.model.transitions import allocate, order_swap
from tests.model.world import GIB, World, empty_world


@pytest.fixture(scope="module")
def sound() -> World:
    """Leases, a swap under way, a cooling SIM, SIMs in several tiers."""
    world = empty_world()
    world.import_sims(10, opening_bytes=[0, 0, 0, 0, 0, 0, GIB, 20 * GIB, 40 * GIB, 90 * GIB])
    for terminal in (1, 2, 3):
        allocate(world, terminal)
    order_swap(world, 1)
    world.send(world.usage(2, int(world.tables()["terminals"]["epoch"][1]), 1 << 20))
    assert world.machine.check() == []
    assert violations(world.tables()) == []
    return world


def _swap_terminals_of_sims(state: dict[str, Table]) -> None:
    held = [int(sim) for sim in state["terminals"]["sim"] if sim != layout.NONE_INDEX]
    state["sims"]["terminal"][held[:2]] = state["sims"]["terminal"][held[:2]][::-1].copy()


def _two_terminals_on_one_sim(state: dict[str, Table]) -> None:
    state["terminals"]["sim"][1] = state["terminals"]["sim"][2]


def _assigned_to_nobody(state: dict[str, Table]) -> None:
    state["terminals"]["sim"][2] = layout.NONE_INDEX


def _free_although_reserved(state: dict[str, Table]) -> None:
    reserved = state["sims"]["occupancy"] == layout.RESERVED
    state["sims"]["occupancy"][reserved] = layout.FREE


def _one_more_outstanding(state: dict[str, Table]) -> None:
    state["servers"]["outstanding"][0] += 1


def _window_of_201(state: dict[str, Table]) -> None:
    state["servers"]["window"][0] = 201


def _unhealthy_in_the_index(state: dict[str, Table]) -> None:
    free = state["sims"]["tier"] != layout.TIER_NONE
    state["sims"]["health"][free.nonzero()[0][0]] = layout.THROTTLED


def _tier_of_another_headroom(state: dict[str, Table]) -> None:
    free = state["sims"]["tier"] != layout.TIER_NONE
    state["sims"]["limit_bytes"][free.nonzero()[0][-1]] //= 2


def _lost_list(state: dict[str, Table]) -> None:
    group = state["groups"][0]
    tier = next(tier for tier, head in enumerate(group["head"]) if head != layout.NONE_INDEX)
    state["groups"]["head"][0][tier] = layout.NONE_INDEX


def _lost_bit(state: dict[str, Table]) -> None:
    state["groups"]["tiers"][0] = 0


def _class_that_shows_nothing(state: dict[str, Table]) -> None:
    state["classes"]["tiers"][0] = 0


def _wrong_free_count(state: dict[str, Table]) -> None:
    state["classes"]["free_count"][0] += 1


def _byte_counted_twice(state: dict[str, Table]) -> None:
    state["sims"]["counted_bytes"][0] += 1


def _total_without_a_byte(state: dict[str, Table]) -> None:
    state["header"]["counted_bytes"] += 1


SPOILERS: list[tuple[str, Callable[[dict[str, Table]], None]]] = [
    ("I2", _swap_terminals_of_sims),
    ("I1", _two_terminals_on_one_sim),
    ("I1", _assigned_to_nobody),
    ("I1", _free_although_reserved),
    ("I3", _one_more_outstanding),
    ("I3", _window_of_201),
    ("I5", _unhealthy_in_the_index),
    ("I5", _tier_of_another_headroom),
    ("I5", _lost_list),
    ("I5", _lost_bit),
    ("I5", _class_that_shows_nothing),
    ("I5", _wrong_free_count),
    ("I8", _byte_counted_twice),
    ("I8", _total_without_a_byte),
]


@pytest.mark.parametrize(("invariant", "spoil"), SPOILERS, ids=[spoil.__name__.strip("_") for _, spoil in SPOILERS])
def test_a_spoiled_state_is_found(sound: World, invariant: str, spoil: Callable[[dict[str, Table]], None]) -> None:
    regions = copy_regions(sound.machine)
    changed = tables(regions)
    spoil(changed)
    spoiled = Machine.restore(pack(regions, changed))
    assert spoiled.check(), "Machine.check finds nothing wrong"
    assert violations(tables(copy_regions(spoiled))), "the walk's own checks find nothing wrong"
    assert any(line.startswith(invariant) for line in violations(tables(copy_regions(spoiled))))


def test_a_region_of_another_size_is_refused(sound: World) -> None:
    regions = copy_regions(sound.machine)
    name, size, count, data = regions[2]
    for spoiled in (
        (name, size, count - 1, data[:-size]),
        (name, size, count, data[:-1]),
        ("other", size, count, data),
    ):
        with pytest.raises(ValueError):
            Machine.restore([*regions[:2], spoiled, *regions[3:]])


def test_a_header_with_impossible_counts_is_refused(sound: World) -> None:
    regions = copy_regions(sound.machine)
    changed = tables(regions)
    changed["header"]["sims_count"] = 2**31
    with pytest.raises(ValueError, match="counts above"):
        Machine.restore(pack(regions, changed))


def test_the_hash_sees_every_record(sound: World) -> None:
    """I10: a change of one bit in any region changes the state hash."""
    regions = copy_regions(sound.machine)
    for position, (name, size, count, data) in enumerate(regions):
        if name == "header" or not data:
            continue
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        spoiled = Machine.restore([*regions[:position], (name, size, count, bytes(flipped)), *regions[position + 1 :]])
        assert spoiled.state_hash() != sound.machine.state_hash(), f"region {name} is not in the hash"


def test_a_raised_incarnation_fences_every_epoch(sound: World) -> None:
    restored = Machine.restore(copy_regions(sound.machine))
    restored.raise_incarnation(sound.now_ms, 1)
    world = World(restored, sound.now_ms, entities=sound.entities, keeps_records=False)
    (outcome,) = world.send(world.allocate(77))
    assert outcome["status"][0] == layout.OK
    assert outcome["epoch"][0] > max(int(epoch) for epoch in sound.tables()["terminals"]["epoch"])
    assert int(outcome["epoch"][0]) >> 48 == restored.header()["incarnation"]
    assert commands.outcome_runs(restored.apply(commands.run(layout.TICK), world.now_ms, 1).data)[0]["status"][0] == 1

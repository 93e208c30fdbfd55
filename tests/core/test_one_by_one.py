"""allocate_one is an ALLOCATE of one item and nothing else."""

from __future__ import annotations

import pytest
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

from tests.model.world import empty_world


def allocate(machine: Machine, terminal: int, market: int, now_ms: int, seed: int) -> tuple[int, int, int]:
    """The same by a batch."""
    run = commands.run(
        layout.ALLOCATE, terminal=terminal, subscriber=terminal, expected_bytes=0, market=market, access_server=0
    )
    outcome = commands.outcome_runs(machine.apply(run, now_ms, seed).data)[0]
    status, sim, epoch = (int(outcome[name][0]) for name in ("status", "sim", "epoch"))
    return status, sim, epoch


def test_it_gives_and_leaves_what_a_batch_of_one_does() -> None:
    """Granted, the same again, and none left."""
    one, other = empty_world(sims_max=8, terminals_max=8), empty_world(sims_max=8, terminals_max=8)
    for world in (one, other):
        world.import_sims(5)
    now_ms, market = one.now_ms, one.entities["home"]
    calls = [(terminal, market, now_ms + step, 7 * step) for step, terminal in enumerate([1, 2, 3, 1, 4, 5, 6, 2])]
    found = [one.machine.allocate_one(*call) for call in calls]
    assert found == [allocate(other.machine, *call) for call in calls]
    statuses = [status for status, _, _ in found]
    assert statuses[:4] == [layout.OK, layout.OK, layout.OK, layout.SAME]
    assert statuses[6] >= layout.NOT_PERMITTED
    assert one.machine.state_hash() == other.machine.state_hash()
    assert one.machine.sequence == other.machine.sequence


def test_its_errors_are_those_of_apply() -> None:
    world = empty_world(sims_max=8, terminals_max=8)
    before = world.machine.state_hash()
    with pytest.raises(ValueError, match="time goes on"):
        world.machine.allocate_one(1, 0, world.now_ms - 1, 7)
    with pytest.raises(OverflowError):
        world.machine.allocate_one(-1, 0, world.now_ms, 7)
    assert world.machine.state_hash() == before

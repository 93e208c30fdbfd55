"""Events that are remembered: the last of them, in order, whatever the ring held before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

from tests.model.records import copy_regions
from tests.model.world import World, empty_world

SIMS = 500


def turned(world: World, health: int) -> npt.NDArray[np.uint64]:
    """All SIMs get another health, one event each; the run of events."""
    iccids = [world.machine.sim(index)["iccid"] for index in range(SIMS)]
    outcome = world.machine.apply(commands.set_health(iccids, health), world.machine.now_ms + 1, 1)
    events = commands.outcome_runs(outcome.data)[-1]
    assert len(events["event"]) == SIMS
    return events["event"]


def test_the_last_events_are_remembered_and_no_more() -> None:
    world = empty_world(sims_max=SIMS)
    world.import_sims(SIMS)
    last = 0
    for turn in range(2 * layout.EVENTS_KEPT // SIMS + 3):
        last = int(turned(world, layout.HEALTHY if turn % 2 else layout.QUARANTINED)[-1])
        if turn in (0, layout.EVENTS_KEPT // SIMS, layout.EVENTS_KEPT // SIMS + 1):
            assert_remembered(world.machine, last)
    assert_remembered(world.machine, last)
    assert world.machine.check() == []
    restored = Machine.restore(copy_regions(world.machine))
    assert restored.state_hash() == world.machine.state_hash()
    assert restored.events().tolist() == world.machine.events().tolist()


def assert_remembered(machine: Machine, last: int) -> None:
    kept = machine.events()
    first = max(last - layout.EVENTS_KEPT, 0) + 1
    assert kept["event"].tolist() == list(range(first, last + 1))
    # The newest are those of the last apply, as it told them.
    newest = kept[-SIMS:]
    assert set(newest["kind"].tolist()) == {int(layout.EVENT_HEALTH)}
    assert set(newest["at_ms"].tolist()) == {machine.now_ms}
    assert newest["a"].tolist() == [machine.sim(index)["iccid"] for index in range(SIMS)]


def test_an_event_at_a_wrong_place_is_found() -> None:
    world = empty_world(sims_max=SIMS)
    world.import_sims(SIMS)
    turned(world, layout.QUARANTINED)
    regions = copy_regions(world.machine)
    place = next(index for index, region in enumerate(regions) if region[0] == "events")
    name, item_bytes, count, data = regions[place]
    records = np.frombuffer(bytearray(data), layout.RECORD_TYPES["events"]).copy()
    records[[3, 4]] = records[[4, 3]]
    regions[place] = (name, item_bytes, count, records.tobytes())
    faults = Machine.restore(regions).check()
    assert len(faults) == 2
    assert all("remembered at place" in fault for fault in faults)

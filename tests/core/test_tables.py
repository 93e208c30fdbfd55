"""Tables that find records by their keys: as full as they may be, and after they have grown."""

from __future__ import annotations

import numpy as np
import pytest
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

from tests.model.world import empty_world


def test_a_full_pool_finds_all_that_is_in_it_and_nothing_else_before_and_after_it_grows() -> None:
    """Loads of 0.9 and 0.55, tags of a few bits: of 3,000 keys many have their neighbours' homes and tags."""
    count = 3_000
    world = empty_world(sims_max=count, terminals_max=count)
    world.import_sims(count)
    keys = np.arange(1, count + 1) * 977
    for server, part in enumerate(np.array_split(keys, 2)):
        world.send(world.allocate(part, server=server))
    machine = world.machine
    columns = machine.sims_columns()
    for sims_max in (count, 2 * count):
        world.send(commands.run(layout.GROW, 1, sims=sims_max, terminals=sims_max, orders=0))
        assert [machine.find_terminal(int(key)) for key in keys] == list(range(count))
        assert {machine.find_terminal(int(key) + 1) for key in keys} == {None}
        assert [machine.find_sim(iccid) for iccid in columns["iccid"].tolist()] == list(range(count))
        assert [machine.find_sim_by_imsi(imsi) for imsi in columns["imsi"].tolist()] == list(range(count))
        assert {machine.find_sim_by_imsi(imsi + count) for imsi in columns["imsi"].tolist()} == {None}
        assert machine.check() == []


def test_a_table_keeps_an_empty_slot() -> None:
    keys = np.arange(1, 65, dtype=np.uint64)
    table = Machine.index_table(keys, 65)
    assert (table == layout.NONE_INDEX).sum() == 1
    # As many bits as there are slots hold the index: 7.
    assert sorted((table[table != layout.NONE_INDEX] & 127).tolist()) == list(range(64))
    with pytest.raises(ValueError, match="no room for 64 keys and an empty slot"):
        Machine.index_table(keys, 64)

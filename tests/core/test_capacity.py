"""Memory is taken at start and by GROW only; what does not fit is refused at once and changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from simswitch.core import commands, layout
from simswitch.core.commands import set_health
from simswitch.core.machine import Machine, MalformedBatch

from tests.model.invariants import violations
from tests.model.transitions import T, allocate, lease_epoch, list_job, new_world
from tests.model.walk import Walk
from tests.model.world import STEP_MS, World, empty_world, iccid_number, replay


def grow(sims: int = 0, terminals: int = 0, orders: int = 0) -> bytes:
    return commands.run(layout.GROW, 1, sims=sims, terminals=terminals, orders=orders)


def same_but_the_header(world: World, before: dict[str, np.ndarray]) -> bool:
    after = world.tables()
    return all(
        np.array_equal(before[name], after[name]) for name in before if name not in ("header", "ready", "servers")
    )


def test_growth_under_load_replays_to_the_same_hash() -> None:
    """I10: a machine grown in steps while it works equals its replay, and stays sound."""
    walk = Walk(11, sims=24)
    for target in (40, 64, 200, 700):
        for _ in range(60):
            walk.step()
        walk.apply(grow(sims=target, terminals=target, orders=300 + target // 4))
    for _ in range(60):
        walk.step()
    again = Walk(11, sims=24)
    replay(walk.world.records[len(again.world.records) :], again.machine)
    assert again.machine.state_hash() == walk.machine.state_hash()
    assert walk.machine.header()["sims_max"] == 700


def test_growth_finds_again_what_was_there() -> None:
    """The tables by ICCID, IMSI and terminal are built anew: everything is found as before, and nothing else."""
    world = empty_world(sims_max=700, terminals_max=700)
    world.import_sims(700)
    world.send(world.allocate(list(range(1, 351))))
    world.send(world.allocate(list(range(351, 701)), server=1))
    before = [world.machine.terminal(index) for index in range(700)]
    world.send(grow(sims=50_000, terminals=50_000))
    assert [world.machine.find_sim(iccid_number(number)) for number in range(700)] == list(range(700))
    assert [world.machine.find_terminal(key) for key in range(1, 701)] == list(range(700))
    assert [world.machine.terminal(index) for index in range(700)] == before
    assert world.machine.find_terminal(701) is None
    world.import_sims(10)
    assert world.machine.check() == []
    assert violations(world.tables()) == []


def test_growing_to_less_changes_nothing() -> None:
    world = new_world()
    before = world.machine.header()
    assert world.status(grow(1, 1, 1)) == layout.OK
    after = world.machine.header()
    for name in ("sims_max", "terminals_max", "orders_max"):
        assert before[name] == after[name]


def test_growth_beyond_what_can_be_named_is_malformed() -> None:
    world = new_world()
    before = world.machine.state_hash()
    for batch in (grow(sims=2**30), grow(terminals=2**40), grow(orders=2**25), grow() + world.allocate(T)):
        with pytest.raises(MalformedBatch):
            world.machine.apply(batch, world.now_ms, 1)
    assert world.machine.state_hash() == before


def test_sims_full() -> None:
    world = empty_world(sims_max=3)
    world.import_sims(3)
    before = world.tables()
    run = commands.run(
        layout.IMPORT_SIMS,
        1,
        iccid=iccid_number(99),
        imsi=99,
        opening_cycle_bytes=0,
        opening_day_bytes=0,
        opening_rolling_bytes=0,
        lot=world.entities["gold-a"],
        bank=world.entities["bank-1"],
        slot=0,
        health=layout.HEALTHY,
    )
    assert world.status(run) == layout.SIMS_FULL
    assert same_but_the_header(world, before)
    world.send(grow(sims=4))
    assert world.status(run) == layout.OK
    assert world.status(run) == layout.SAME


def test_terminals_full() -> None:
    world = empty_world(terminals_max=2)
    world.import_sims(5)
    world.send(world.allocate([1, 2]))
    before = world.tables()
    assert world.status(world.allocate(3)) == layout.TERMINALS_FULL
    assert world.status(world.adopt(3, 4)) == layout.TERMINALS_FULL
    assert same_but_the_header(world, before)
    world.send(grow(terminals=3))
    assert world.status(world.allocate(3)) == layout.OK


def test_orders_full() -> None:
    """No order is left: what needs one is refused, what needs none goes on, and when one is settled it works again."""
    world = empty_world(orders_max=1)
    world.import_sims(8)
    for terminal in (1, 2):
        allocate(world, terminal)
    world.send(commands.run(layout.SWAPS_STOP))
    job = list_job(world, 1)
    (outcome,) = world.send(world.job_create())
    other = int(outcome["job"][0])
    before = world.tables()
    assert world.status(world.job_add(other, 2)) == layout.ORDERS_FULL
    assert world.status(world.allocate(2, server=1)) == layout.ORDERS_FULL
    assert same_but_the_header(world, before)
    assert world.status(world.allocate(2)) == layout.SAME
    assert world.status(world.job(layout.JOB_CANCEL, job)) == layout.OK
    assert world.status(world.allocate(2, server=1)) == layout.MOVED
    assert world.machine.check() == []


def test_leases_that_expire_without_an_order_left_go_on() -> None:
    """Fail static: without an order nobody could be told, so the SIM stays with its terminal until there is one."""
    world = empty_world(orders_max=1)
    world.import_sims(8)
    for terminal in (1, 2, 3):
        allocate(world, terminal)
    world.pass_ms(1_000 * STEP_MS)
    assert [world.machine.terminal(index)["sim"] is None for index in range(3)].count(True) == 1
    world.send(grow(orders=8))
    world.pass_ms(100 * STEP_MS)
    assert all(world.machine.terminal(index)["sim"] is None for index in range(3))
    assert world.machine.check() == []


def test_jobs_full_and_their_slots_used_again() -> None:
    """1,024 jobs stand at once; the slot of a finished one is taken again and its number never comes back."""
    world = new_world()
    first = [int(world.send(world.job_create())[0]["job"][0]) for _ in range(1_024)]
    assert first == list(range(1_024))
    assert world.status(world.job_create()) == layout.JOBS_FULL
    assert world.status(world.job(layout.JOB_RESUME, 0)) == layout.OK
    (outcome,) = world.send(world.job_create())
    assert outcome["job"][0] == 1_024
    assert world.status(world.job(layout.JOB_PAUSE, 0)) == layout.UNKNOWN_JOB


def test_sweeps_full() -> None:
    """Work in progress is bounded; what would be one too many in a batch is refused."""
    world = new_world()
    outcomes = world.send(b"".join(world.job_create(selecting=1) for _ in range(300)))
    statuses = [int(outcome["status"][0]) for outcome in outcomes]
    assert set(statuses) == {layout.OK, layout.SWEEPS_FULL}
    accepted = statuses.count(layout.OK)
    assert statuses == [layout.OK] * accepted + [layout.SWEEPS_FULL] * (300 - accepted)
    for _ in range(4 * accepted):
        world.send(commands.run(layout.TICK))
    assert world.machine.header()["sweeps_count"] == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: run[:10],
        lambda run: run[:-8],
        lambda run: run + b"\0" * 8,
        lambda run: run[:4] + (999).to_bytes(2, "little") + run[6:],
        lambda run: run[:8] + (0).to_bytes(4, "little") + run[12:],
        lambda run: run[:8] + (70_000).to_bytes(4, "little") + run[12:],
        lambda run: (8).to_bytes(4, "little") + run[4:],
        lambda run: (2**32 - 8).to_bytes(4, "little") + run[4:],
        lambda run: run + run[:24],
    ],
    ids=[
        "no header",
        "cut",
        "tail",
        "no such command",
        "no items",
        "too many items",
        "size too small",
        "size too large",
        "second run cut",
    ],
)
def test_a_malformed_batch_changes_nothing(spoil: object) -> None:
    assert callable(spoil)
    world = new_world()
    before = world.machine.state_hash()
    with pytest.raises(MalformedBatch):
        world.machine.apply(spoil(world.allocate([1, 2, 3])), world.now_ms, 1)
    assert world.machine.state_hash() == before


def test_time_does_not_go_back() -> None:
    world = new_world()
    before = world.machine.state_hash()
    with pytest.raises(ValueError, match="time goes on"):
        world.machine.apply(commands.run(layout.TICK), world.now_ms - 1, 1)
    assert world.machine.state_hash() == before


def test_who_may_do_what() -> None:
    """An access server speaks for itself only; an unknown actor may do nothing; nothing changes."""
    world = new_world()
    subject = world.entities["as-1"]
    numbers = {layout.ACTOR_ROLE: layout.ROLE_ACCESS_SERVER, layout.ACTOR_SUBJECT: subject}
    actor = world.define(layout.ACTOR, "access-server:as-1", numbers)
    columns = {"terminal": 1, "subscriber": 1, "expected_bytes": 0, "market": world.entities["home"]}
    run = commands.run
    assert world.status(run(layout.ALLOCATE, 1, actor=actor, access_server=0, **columns)) == layout.OK
    before = world.tables()
    assert world.status(run(layout.ALLOCATE, 1, actor=actor, access_server=1, **columns)) == layout.NOT_PERMITTED
    assert world.status(run(layout.ALLOCATE, 1, actor=9_999, access_server=0, **columns)) == layout.NOT_PERMITTED
    refused = set_health([iccid_number(0)], layout.HEALTHY, actor=actor)
    assert world.status(refused) == layout.NOT_PERMITTED
    assert same_but_the_header(world, before)
    assert lease_epoch(world) > 0


def test_a_machine_of_every_small_size_works() -> None:
    for size in (0, 1, 2, 3, 63, 64, 65):
        machine = Machine(size, size, size)
        assert machine.check() == []
        assert Machine.restore([(n, s, c, bytes(d)) for n, s, c, d in machine.snapshot_regions()]).state_hash() == (
            machine.state_hash()
        )

"""Expected use: what a lease will need, learned by market from those that are over."""

from __future__ import annotations

from collections.abc import Callable
from secrets import randbits

import numpy as np
import numpy.typing as npt
import pytest
from simswitch.core import commands, layout

from tests.model.invariants import tier_of
from tests.model.things import lowest_bytes
from tests.model.world import GIB, MIB, World, empty_world

DAY_MS = 86_400_000
BATCH = 1_000


@pytest.fixture
def world() -> World:
    world = empty_world(sims_max=BATCH + 24, terminals_max=2 * BATCH)
    world.configure(layout.EXPECTED_CEILING_BYTES, 1 << 50)
    world.configure(layout.LINE_BYTES_PER_S, 1 << 40)
    world.configure(layout.LEASE_MS, 7 * DAY_MS)
    world.configure(layout.AUTOMATIC_SWAPS, 0)
    world.define(layout.PLAN, "unlimited")
    lot = {layout.LOT_SUPPLIER: world.entities["supplier"], layout.LOT_PLAN: world.entities["unlimited"]}
    world.define(layout.LOT, "endless", {**lot, layout.LOT_CLASS: world.entities["silver"]})
    world.import_sims(BATCH, "endless")
    return world


def market(world: World, name: str = "away") -> dict[str, int]:
    (found,) = [each for each in world.machine.markets() if each["entity"] == world.entities[name]]
    return found


def lease(world: World, used: npt.ArrayLike, name: str = "away", *, late: bool = False, report: bool = True) -> None:
    """One lease a terminal, that uses so much; ``late``: which is told after its end. Then the next ones begin."""
    used = np.asarray(used, np.uint64)
    terminals = np.arange(1, len(used) + 1, dtype=np.uint64)
    (granted,) = world.send(world.allocate(terminals, market=name, expected_bytes=1))
    assert np.isin(granted["status"], (layout.OK, layout.SAME)).all()
    world.pass_ms(60_000)
    steps = [commands.run(layout.RELEASE, len(used), access_server=0, terminal=terminals, epoch=granted["epoch"])]
    if report:
        told = commands.run(
            layout.REPORT_USAGE,
            len(used),
            access_server=0,
            terminal=terminals,
            epoch=granted["epoch"],
            up_bytes=0,
            down_bytes=used,
            span_ms=0,
            goodput_kbps=0,
            demand_permille=0,
            radio=0,
        )
        steps.insert(1 if late else 0, told)
    for step in steps:
        (outcome,) = world.send(step)
        assert np.isin(outcome["status"], (layout.OK, layout.ENDED)).all()
    world.pass_ms(120_000)
    world.send(world.allocate(terminals, market=name, expected_bytes=1))


def test_the_percentile_of_heavy_tailed_use_is_learned_within_a_tier(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    """Half the traffic is of one in twenty, and what is learned is from the percentile up to a quarter above it."""
    seed = randbits(32)
    record_property("seed", seed)
    random = np.random.default_rng(seed)
    used = np.round(random.lognormal(np.log(120 * MIB), 1.681, 4 * BATCH)).astype(np.uint64)
    for batch in np.split(used, 4):
        lease(world, batch)
    exact = int(np.sort(used)[-(-len(used) * 95 // 100) - 1])
    assert exact < market(world)["learned_bytes"] <= max(exact * 1.25, exact + MIB)
    assert market(world)["leases_count"] == len(used)
    assert market(world, "home")["leases_count"] == 0
    assert world.machine.check() == []


@pytest.mark.parametrize("late", [False, True])
def test_a_final_report_counts_also_after_the_end(world: World, late: bool) -> None:
    lease(world, [300 * MIB] * 40, late=late)
    assert market(world)["learned_bytes"] == lowest_bytes(tier_of(300 * MIB) + 1)


def test_leases_that_nobody_reported_on_pull_nothing_down(world: World) -> None:
    lease(world, [300 * MIB] * 40)
    learned = market(world)
    for _ in range(3):
        lease(world, [300 * MIB] * BATCH, report=False)
    assert market(world) == learned


def test_of_few_leases_nothing_is_learned_and_the_floor_holds(world: World) -> None:
    floor = world.machine.header()["settings"]["expected_floor_bytes"]
    assert market(world) | {"leases_count": 0} == {
        "entity": world.entities["away"],
        "expected_bytes": floor,
        "learned_bytes": None,
        "leases_count": 0,
    }
    lease(world, [300 * MIB] * 31)
    assert market(world)["learned_bytes"] is None
    assert market(world)["expected_bytes"] == floor
    lease(world, [300 * MIB])
    assert market(world)["expected_bytes"] == market(world)["learned_bytes"] == 320 * MIB
    lease(world, [MIB // 2] * BATCH)
    assert market(world)["learned_bytes"] == MIB
    assert market(world)["expected_bytes"] == floor


def test_a_lease_without_a_word_gets_a_sim_with_the_learned_use_left(world: World) -> None:
    """I4 by what was learned; within the ceiling, and only where the market says nothing itself."""
    world.import_sims(10, "silver-a", opening_bytes=100 * GIB - 1_500 * MIB)
    world.send(commands.run(layout.MASK, lot=world.entities["endless"], bank=layout.NONE_SHORT, masked=1))
    assert world.status(world.allocate(2_000_000, market="away")) == layout.OK
    world.send(commands.run(layout.MASK, lot=world.entities["endless"], bank=layout.NONE_SHORT, masked=0))
    lease(world, [3 * GIB] * 40)
    world.send(commands.run(layout.MASK, lot=world.entities["endless"], bank=layout.NONE_SHORT, masked=1))
    assert market(world)["expected_bytes"] == 3 * GIB + 512 * MIB
    assert world.status(world.allocate(2_000_001, market="away")) == layout.NO_HEALTHY_SIM
    assert world.status(world.allocate(2_000_001, market="home")) == layout.OK
    world.configure(layout.EXPECTED_CEILING_BYTES, GIB)
    assert market(world)["expected_bytes"] == GIB
    assert world.status(world.allocate(2_000_002, market="away")) == layout.OK


def test_small_caps_bound_what_is_learned_so_that_a_pool_is_used_before_it_is_dry(world: World) -> None:
    """SIMs with less than that left stand still, so it is an eighth of the smallest cap at most."""
    world.define(
        layout.PLAN, "daily", {layout.PLAN_QUOTA_DAY: GIB, layout.PLAN_LOW_BYTES: 0, layout.PLAN_EXHAUSTED_BYTES: 0}
    )
    lot = {layout.LOT_SUPPLIER: world.entities["supplier"], layout.LOT_PLAN: world.entities["daily"]}
    world.define(layout.LOT, "small", {**lot, layout.LOT_CLASS: world.entities["silver"]})
    lease(world, [800 * MIB] * 40)
    assert market(world)["expected_bytes"] == market(world)["learned_bytes"] == 896 * MIB
    (first, *_) = world.import_sims(4, "small")
    assert market(world)["expected_bytes"] == GIB // 8
    assert market(world)["learned_bytes"] == 896 * MIB
    world.send(commands.run(layout.MASK, lot=world.entities["endless"], bank=layout.NONE_SHORT, masked=1))
    handed_out = 0
    for terminal in range(2_000_000, 2_000_004):
        while True:
            (granted,) = world.send(world.allocate(terminal, market="away"))
            if granted["status"][0] != layout.OK:
                break
            handed_out += 1
            world.pass_ms(60_000)
            epoch = int(granted["epoch"][0])
            world.send(world.usage(terminal, epoch, 250 * MIB), world.lease(layout.RELEASE, terminal, epoch))
            world.pass_ms(120_000)
    # Four leases of 250 MiB each on every SIM; with what was learned one each, and three quarters of the volume left.
    assert handed_out == 4 * 4
    assert world.status(world.set_cap("small", layout.WINDOW_DAY, 4 * GIB)) == layout.OK
    assert market(world)["expected_bytes"] == GIB // 2
    assert world.machine.sim(first)["headroom_bytes"] == 3 * GIB + 24 * MIB
    works_until = {layout.LOT_CLASS: world.entities["silver"], layout.LOT_VALID_UNTIL_S: world.now_ms // 1000 + 1}
    world.define(layout.LOT, "small", {**lot, **works_until})
    world.pass_ms(60_000)
    assert market(world)["expected_bytes"] == 896 * MIB
    assert world.machine.check() == []


def test_a_market_follows_what_people_do_now(world: World) -> None:
    """What was used before weighs half as much each day: after four days of other use nothing is left of it."""
    lease(world, [3 * GIB] * 400)
    assert market(world)["learned_bytes"] == 3 * GIB + 512 * MIB
    for _ in range(4):
        world.pass_ms(DAY_MS)
        lease(world, [200 * MIB] * 400)
    assert market(world)["learned_bytes"] == 224 * MIB
    world.pass_ms(40 * DAY_MS)
    lease(world, [300 * MIB] * 3)
    assert market(world) | {"entity": 0, "expected_bytes": 0} == {
        "entity": 0,
        "expected_bytes": 0,
        "learned_bytes": 224 * MIB,
        "leases_count": 3,
    }
    assert world.machine.check() == []

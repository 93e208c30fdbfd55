"""The core alone: commands in batches of 1,000 beside a loop that touches the lines of an allocation (``touch.c``).

Each round allocates for random terminals, renews, reports usage and releases, in random order again, and lets the
SIMs cool; the reference is timed between the rounds, so that a slow spell meets both. Then some terminals are swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from simswitch.core import commands, layout

from benches.reference import Reference
from benches.report import Result
from benches.world import I64, MIB, POOLS, Pool, World

BATCH_ITEMS = 1_000
ROUND_ITEMS_MAX = 200_000
SWAP_SERVERS = 100
SWAPS_MAX = 20_000
# An access server answers after as long as pacing catches up at once, so that each step sends a whole window.
SWAP_STEP_MS = 100
SWAP_STEPS_MAX = 1_000
JOB_GOAL_MS = 15.0
FLEET_GOAL_NS = 1_000.0

KINDS = {
    "allocate": layout.ALLOCATE,
    "renew": layout.RENEW,
    "release": layout.RELEASE,
    "report_usage": layout.REPORT_USAGE,
    "cool": layout.TICK,
    "swap": layout.ACKNOWLEDGE,
}
# Nanoseconds an item of the design's own loop on the reference machine, by number of SIMs. Where ours differs from it
# by more than LOOP_TOLERANCE, the design's absolute figures are the goal.
DESIGN_LOOP_NS = {10_000: 14.0, 100_000: 22.0, 1_000_000: 42.0, 10_000_000: 76.0}
LOOP_TOLERANCE = 0.25
# What an operation may take as a multiple of the loop, at these four sizes.
FACTORS = {
    "allocate": (1.8, 1.5, 1.35, 1.35),
    "renew": (1.0,) * 4,
    "release": (1.1,) * 4,
    "report_usage": (1.4,) * 4,
    "swap": (1.7,) * 4,
}
POOLS_WITH_GOALS = ("spread", "one_tier")
RECORDS = "usage.records"
RECORDS_GOAL = 5_000_000.0

Progress = Callable[[str], None]


def row(operation: str, pool: Pool) -> str:
    """The name of a result: that of the operation alone in the usual pool."""
    return f"core.{operation}" + ("" if pool.name == "spread" else f".{pool.name}")


def rows(pool: Pool) -> tuple[str, ...]:
    """What :func:`measure` gives. A warm pool has no free SIMs to swap to."""
    records = (RECORDS,) if pool.name == "spread" else ()
    return tuple(row(operation, pool) for operation in KINDS if not (pool.warm and operation == "swap")) + records


def goal(operation: str, pool: Pool, size: int, loop_ns: float) -> dict[str, Any]:
    """A ratio to our loop; the design's absolute figure where the two loops differ by more than the tolerance."""
    if size not in DESIGN_LOOP_NS or operation not in FACTORS or pool.name not in POOLS_WITH_GOALS:
        return {}
    factor = FACTORS[operation][list(DESIGN_LOOP_NS).index(size)]
    design_ns = DESIGN_LOOP_NS[size]
    if abs(loop_ns / design_ns - 1) <= LOOP_TOLERANCE:
        return {"goal": factor, "goal_of": "ratio"}
    return {"goal": round(factor * design_ns, 1)}


def measure(size: int, pool: Pool, seed: int, rounds: int, progress: Progress) -> list[Result]:
    """Every operation with ``size`` SIMs and as many terminals."""
    progress(f"core, {size:,} SIMs, {pool.name}: filling")
    moved = min(size // 4, SWAPS_MAX)
    # So few that each has a whole window of swaps.
    servers = min(SWAP_SERVERS, max(1, moved // layout.WINDOW_MAX))
    world = World(size, pool, seed, servers, orders_max=2 * SWAPS_MAX)
    reference = Reference(size)
    items = min(len(world.terminals), size // 2, ROUND_ITEMS_MAX)
    batch_items = min(BATCH_ITEMS, items)
    samples: dict[str, list[float]] = {operation: [] for operation in KINDS}
    touched: list[float] = []
    try:
        for number in range(rounds):
            progress(f"core, {size:,} SIMs, {pool.name}: round {number + 1} of {rounds}")
            # The two share the caches, so the first turn of each only fetches back what the other one drove out.
            for kept in ([], touched):
                chosen = world.random.choice(world.terminals, items, replace=False)
                for part in world.parts(chosen, batch_items):
                    sims = world.random.integers(0, len(world.terminals), len(part), dtype=np.uint32)
                    kept.append(reference.touch_ns(world.allocation(part), sims))
            for _ in range(2):
                turn = use(world, world.random.choice(world.terminals, items, replace=False), batch_items)
            for operation, found in turn.items():
                samples[operation] += found
    finally:
        reference.close()
    if not pool.warm:
        progress(f"core, {size:,} SIMs, {pool.name}: swapping")
        # The second time counts: the first time the kernel clears memory that a swap is the first to touch.
        move(world, moved, min(batch_items, moved // 4), servers)
        world.release_all()
        samples["swap"] = move(world, moved, min(batch_items, moved // 4), servers).confirm_ns
    sound(world)
    loop_ns, state_hash = median(touched), world.hash
    design = f", the design's: {DESIGN_LOOP_NS[size]:.0f}" if size in DESIGN_LOOP_NS else ""
    records = Result(
        name=RECORDS,
        size=size,
        value=1e9 / median(samples["report_usage"]),
        unit="1/s",
        hash=state_hash,
        goal=RECORDS_GOAL,
        better="higher",
        note=f"core.report_usage as a rate; each record counts at a SIM, a terminal and one of {size:,} subscribers",
    )
    return [
        Result(
            name=row(operation, pool),
            size=size,
            value=median(found),
            unit="ns",
            hash=state_hash,
            reference=loop_ns,
            note=f"batches of {batch_items:,}; reference: the loop{design}",
            **goal(operation, pool, size, loop_ns),
        )
        for operation, found in samples.items()
        if found
    ] + [records] * (RECORDS in rows(pool))


def use(world: World, chosen: I64, batch_items: int) -> dict[str, list[float]]:
    """One lease of each terminal until its SIM has cooled: nanoseconds an item of each batch, by operation."""
    turn = {"allocate": world.allocate(chosen, batch_items)}
    world.pass_ms(60_000)
    turn["renew"] = world.renew(world.random.permutation(chosen), batch_items)
    turn["report_usage"] = world.report_usage(world.random.permutation(chosen), batch_items, MIB)
    turn["release"] = world.release(world.random.permutation(chosen), batch_items)
    # Cooling ends in ticks of at most 4,096 SIMs each.
    turn["cool"] = [world.pass_ms(5_000) / len(chosen)]
    return turn


def sound(world: World) -> None:
    """Raises when an invariant doesn't hold any more; a full walk, so not where that would take minutes."""
    damage = world.machine.check() if world.size <= 200_000 else []
    if damage:
        raise RuntimeError(f"the bench left a machine that is not sound: {damage[0]}")


@dataclass
class Moved:
    """Where the core's time went while terminals were moved."""

    select_ns: int = 0
    order_ns: int = 0
    confirm_total_ns: int = 0
    applies: int = 0
    confirm_ns: list[float] = field(default_factory=list)
    """Nanoseconds an item of each batch of confirmations."""

    @property
    def total_ns(self) -> int:
        return self.select_ns + self.order_ns + self.confirm_total_ns


def move(world: World, terminals_count: int, batch_items: int, servers: int = SWAP_SERVERS) -> Moved:
    """Moves random terminals, spread evenly over the access servers, to other SIMs; by an operator's list.

    Swaps are stopped while the list and the answers come, so that choosing targets and sending orders is timed apart
    from both. Only applies are timed: what the access servers do between them costs the core nothing.
    """
    moved = Moved()
    chosen = world.random.choice(world.terminals, terminals_count, replace=False)
    for server, part in enumerate(np.array_split(chosen, servers)):
        world.allocate(part, batch_items, server)
    world.pass_ms(60_000)

    def apply(batch: bytes) -> commands.OutcomeRun:
        outcome = world.one(batch)
        moved.applies += 1
        return outcome

    apply(commands.run(layout.SWAPS_STOP))
    job = int(apply(commands.job_create("bench", priority=layout.PRIORITY_REBALANCE))["job"][0])
    moved.select_ns += world.apply_ns
    for part in world.parts(world.random.permutation(chosen), batch_items):
        world.expect(commands.run(layout.JOB_ADD, len(part), argument=job, terminal=world.keys[part]), layout.OK)
        moved.select_ns += world.apply_ns
        moved.applies += 1
    apply(commands.run(layout.JOB_RESUME, argument=job))
    moved.select_ns += world.apply_ns
    # Whether there is a target for each, and then all are queued.
    while world.machine.next_due_ms == world.now_ms:
        apply(commands.run(layout.TICK))
        moved.select_ns += world.apply_ns
    steps = 0
    while (state := world.machine.job(job))["confirmed_count"] < terminals_count:
        steps += 1
        if steps > SWAP_STEPS_MAX:
            raise RuntimeError(f"the job did not end within {SWAP_STEPS_MAX} steps: {state}")
        orders = []
        batch = commands.run(layout.SWAPS_LIFT)
        while True:
            outcome = world.apply(batch)
            moved.order_ns += world.apply_ns
            moved.applies += 1
            orders.append(commands.outcome_runs(outcome.data)[-2])
            if not outcome.orders_count:
                break
            batch = commands.run(layout.TICK)
        apply(commands.run(layout.SWAPS_STOP))
        world.now_ms += SWAP_STEP_MS
        for items, batch in acknowledgements(world, orders, batch_items):
            world.one(batch)
            moved.confirm_total_ns += world.apply_ns
            moved.applies += 1
            if items >= batch_items:
                moved.confirm_ns.append(world.apply_ns / items)
    return moved


def acknowledgements(world: World, orders: list[commands.OutcomeRun], batch_items: int) -> Iterator[tuple[int, bytes]]:
    """Batches that report these orders done, in random order; one run an access server, and how many items."""
    numbers = np.concatenate([run["order"] for run in orders])
    servers = np.concatenate([run["access_server"] for run in orders])
    parts: list[bytes] = []
    items = 0
    for server in world.random.permutation(np.unique(servers)):
        mine = world.random.permutation(numbers[servers == server])
        parts.append(
            commands.run(
                layout.ACKNOWLEDGE,
                len(mine),
                access_server=int(server),
                argument=world.sessions[int(server)],
                order=mine,
                result=layout.ACK_DONE,
            )
        )
        items += len(mine)
        if items >= batch_items:
            yield items, b"".join(parts)
            parts, items = [], 0
    if parts:
        yield items, b"".join(parts)


def measure_fleet(terminals_count: int, servers: int, seed: int, progress: Progress) -> Result:
    """Core time a swap of a job for ``terminals_count`` terminals on many access servers, and what memory it takes."""
    name = "core.swap.fleet"
    size = 2 * terminals_count
    progress(f"{name}, {terminals_count:,} terminals on {servers:,} access servers: filling")
    world = World(size, POOLS["spread"], seed, servers, orders_max=size)
    progress(f"{name}, {terminals_count:,} terminals on {servers:,} access servers: moving")
    moved = move(world, terminals_count, BATCH_ITEMS, servers)
    sound(world)
    item_bytes = {region: count for region, count, _, _ in world.machine.snapshot_regions()}
    of_swaps = item_bytes["orders"] + item_bytes["timers_orders"]
    return Result(
        name=name,
        size=terminals_count,
        value=moved.total_ns / terminals_count,
        unit="ns",
        hash=world.hash,
        goal=FLEET_GOAL_NS,
        note=(
            f"{servers:,} access servers; selecting {moved.select_ns / terminals_count:.0f}, ordering "
            f"{moved.order_ns / terminals_count:.0f}, confirming {moved.confirm_total_ns / terminals_count:.0f} ns; "
            f"memory: {of_swaps} B an order of the pool, {item_bytes['servers']} B an access server"
        ),
    )


def measure_job(terminals_count: int, seed: int, progress: Progress) -> Result:
    """Core time to move ``terminals_count`` terminals in the books: selecting, ordering and confirming, all applies."""
    size = 2 * terminals_count
    progress(f"core.swap.job, {terminals_count:,} terminals: filling")
    world = World(size, POOLS["spread"], seed, SWAP_SERVERS, orders_max=size)
    reference = Reference(size)
    try:
        loop_ns = median(
            reference.touch_ns(world.allocation(part), world.random.integers(0, size, len(part), dtype=np.uint32))
            for part in world.parts(world.random.permutation(size), BATCH_ITEMS)
        )
    finally:
        reference.close()
    progress(f"core.swap.job, {terminals_count:,} terminals: moving")
    moved = move(world, terminals_count, BATCH_ITEMS)
    sound(world)
    return Result(
        name="core.swap.job",
        size=terminals_count,
        value=moved.total_ns / 1e6,
        unit="ms",
        hash=world.hash,
        reference=loop_ns * terminals_count / 1e6,
        goal=JOB_GOAL_MS,
        note=(
            f"selecting {moved.select_ns / 1e6:.1f}, ordering {moved.order_ns / 1e6:.1f}, confirming "
            f"{moved.confirm_total_ns / 1e6:.1f} ms; {moved.applies:,} applies; reference: the loop, once a terminal"
        ),
    )

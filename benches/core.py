"""The core alone: commands in batches of 1,000 against a loop that touches the same cache lines (``touch.c``).

Each round allocates for half of the terminals in random order, renews, reports usage and releases, in random order
again, and lets the SIMs cool; the reference is timed between the rounds, so that a slow spell meets both.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np
from simswitch.core import commands, layout

from benches.reference import Reference
from benches.report import Result
from benches.world import MIB, Pool, World

BATCH_ITEMS = 1_000
SWAP_SERVERS = 100
SWAP_STEP_MS = 1_000
SWAP_STEPS_MAX = 20_000

# Random cache lines that each operation has to touch.
LINES = {"allocate": 3, "renew": 2, "report_usage": 3, "release": 3}
KINDS = {
    "allocate": layout.ALLOCATE,
    "renew": layout.RENEW,
    "report_usage": layout.REPORT_USAGE,
    "release": layout.RELEASE,
}
# Nanoseconds an item that core.allocate must stay below, by number of SIMs.
ALLOCATE_GOALS = {10_000: 150.0, 1_000_000: 150.0}

Progress = Callable[[str], None]


def measure(size: int, pool: Pool, seed: int, rounds: int, progress: Progress) -> list[Result]:
    """allocate, renew, report_usage and release with ``size`` SIMs."""
    progress(f"core, {size:,} SIMs, {pool}: filling")
    world = World(size, pool, seed)
    reference = Reference(size)
    batch_items = min(BATCH_ITEMS, size // 2)
    samples: dict[str, list[float]] = {name: [] for name in LINES}
    touched: dict[int, list[float]] = {lines: [] for lines in set(LINES.values())}
    try:
        for number in range(rounds):
            progress(f"core, {size:,} SIMs, {pool}: round {number + 1} of {rounds}")
            for lines, found in touched.items():
                sims = world.random.permutation(size).astype(np.uint32)
                found += reference.touch_ns(world.random.permutation(world.keys), sims, batch_items, lines)
            chosen = world.random.permutation(size)[: size // 2]
            samples["allocate"] += world.allocate(chosen, batch_items)
            world.pass_ms(60_000)
            samples["renew"] += world.renew(world.random.permutation(chosen), batch_items)
            samples["report_usage"] += world.report_usage(world.random.permutation(chosen), batch_items, MIB)
            samples["release"] += world.release(world.random.permutation(chosen), batch_items)
            world.pass_ms(5_000)
    finally:
        reference.close()
    damage = world.machine.check() if size <= 100_000 else []
    if damage:
        raise RuntimeError(f"the bench left a machine that is not sound: {damage[0]}")
    return [
        Result(
            name=f"core.{name}" + (".one_tier" if pool == "one_tier" else ""),
            size=size,
            value=median(samples[name]),
            unit="ns",
            hash=world.hash_of(KINDS[name]),
            reference=median(touched[LINES[name]]),
            goal=ALLOCATE_GOALS.get(size) if name == "allocate" else None,
            note=f"batches of {batch_items:,}; reference: {LINES[name]} cache lines",
        )
        for name in LINES
    ]


def measure_swap(terminals_count: int, seed: int, progress: Progress, servers: int = SWAP_SERVERS) -> Result:
    """Core time to move ``terminals_count`` terminals in the books: selecting, ordering and confirming, all applies.

    The access servers answer every order in the next step of virtual time, so windows grow as they would in service.
    """
    progress(f"core.swap, {terminals_count:,} terminals: filling")
    world = World(2 * terminals_count, "spread", seed, servers, orders_max=2 * terminals_count)
    each = terminals_count // servers
    for server in range(servers):
        world.allocate(np.arange(server * each, (server + 1) * each), each, server)
    progress(f"core.swap, {terminals_count:,} terminals: moving")
    created = world.apply(
        commands.run(
            layout.JOB_CREATE,
            1,
            reason=b"bench",
            health_mask=0,
            lot=layout.NONE_SHORT,
            server=layout.NONE_SHORT,
            priority=layout.PRIORITY_REBALANCE,
            selecting=1,
        )
    )
    core_ns = world.apply_ns
    runs = commands.outcome_runs(created.data)
    job = int(runs[0]["job"][0])
    orders = runs[-1]
    steps = 0
    while (state := world.machine.job(job))["confirmed_count"] < each * servers:
        steps += 1
        if steps > SWAP_STEPS_MAX:
            raise RuntimeError(f"the job did not end within {SWAP_STEPS_MAX} steps: {state}")
        # An answer comes in the step after the order, never in the same instant.
        world.now_ms += SWAP_STEP_MS
        batch = acknowledgements(world, orders)
        outcome = world.apply(batch or commands.run(layout.TICK))
        core_ns += world.apply_ns
        orders = commands.outcome_runs(outcome.data)[-1]
    damage = world.machine.check()
    if damage:
        raise RuntimeError(f"the bench left a machine that is not sound: {damage[0]}")
    reference = Reference(2 * terminals_count)
    try:
        sims = world.random.permutation(2 * terminals_count).astype(np.uint32)
        touched = median(reference.touch_ns(world.random.permutation(world.keys), sims, min(1_000, each), 4))
    finally:
        reference.close()
    return Result(
        name="core.swap",
        size=each * servers,
        value=core_ns / 1e6,
        unit="ms",
        hash=world.hash,
        reference=touched * each * servers / 1e6,
        note=f"{servers} access servers, {steps} steps; reference: 4 cache lines a terminal",
    )


def acknowledgements(world: World, orders: commands.OutcomeRun) -> bytes:
    """Runs that report every order of the last step done, one run an access server."""
    numbers = orders["order"]
    servers = orders["access_server"]
    parts = []
    for server in np.unique(servers):
        mine = numbers[servers == server]
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
    return b"".join(parts)

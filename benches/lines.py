"""Random cache lines that an operation touches, counted by a simulated cache (``make bench-lines``).

The bench's batches run under valgrind's callgrind, whose cache of 2 MiB holds what every command uses (heads of
lists, classes, Python itself) and hardly any of the records. What is missed in it is a random line. Fetching ahead
doesn't count there: a line counts once, when it is used. The loop (``touch.c``) goes through the same cache: it has 3.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from simswitch.core.machine import Outcome

from benches import core
from benches.reference import Reference, library
from benches.report import ROOT, Result
from benches.world import MIB, POOLS, World

CACHE = "2097152,16,64"
BATCHES = 20
OPERATIONS = ("allocate", "renew", "report_usage", "release", "swap")
TIMEOUT_S = 300


def measure(folder: Path, size: int, seed: int, progress: Callable[[str], None]) -> list[Result]:
    """Data lines missed, an item. ``folder`` is made, and removed afterwards."""
    if not shutil.which("valgrind"):
        raise RuntimeError("valgrind is not installed (Debian: apt install valgrind)")
    library("probes")
    progress(f"lines, {size:,} SIMs: under callgrind")
    folder.mkdir(parents=True)
    try:
        words = ["valgrind", "--quiet", "--tool=callgrind", "--cache-sim=yes", f"--LL={CACHE}"]
        words += ["--instr-atstart=no", "--collect-atstart=no", f"--callgrind-out-file={folder / 'out'}"]
        words += [sys.executable, "-m", "benches.lines", str(size), str(seed)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode:
            raise RuntimeError(f"callgrind ended with {done.returncode}: {done.stderr[-500:]}")
        items, digest = done.stdout.split()
        counted = dict(counted_events(path) for path in folder.glob("out.*"))
    finally:
        shutil.rmtree(folder)
    return [
        Result(
            name=f"lines.{operation}",
            size=size,
            value=counted[operation].lines / int(items),
            unit="lines",
            hash=digest,
            reference=counted["loop"].lines / int(items),
            note=f"missed in a simulated cache of {int(CACHE.split(',')[0]) >> 10} KiB; reference: the loop; "
            f"{counted[operation].instructions / int(items):,.0f} instructions, the loop "
            f"{counted['loop'].instructions / int(items):,.0f}",
        )
        for operation in OPERATIONS
    ]


class Counted(NamedTuple):
    """In all items of an operation."""

    instructions: int
    lines: int
    """Data lines that missed the last level."""


def counted_events(path: Path) -> tuple[str, Counted]:
    """What a dump is named after, and what was counted."""
    heads = {}
    for line in path.read_text().splitlines():
        head, _, rest = line.partition(": ")
        heads[f"{head}: {rest.partition(':')[0]}" if head == "desc" else head] = rest
    trigger = heads.get("desc: Trigger", "")
    found = dict(zip(heads["events"].split(), map(int, heads["totals"].split()), strict=False))
    return trigger.rpartition(" ")[2], Counted(found.get("Ir", 0), found.get("DLmr", 0) + found.get("DLmw", 0))


class CountedWorld(World):
    """Applies of one kind are counted."""

    counted = -1
    probes: ctypes.CDLL

    def apply(self, batch: bytes) -> Outcome:
        if int.from_bytes(batch[4:6], "little") != self.counted:
            return super().apply(batch)
        self.probes.probes_toggle()
        outcome = super().apply(batch)
        self.probes.probes_toggle()
        return outcome


def main() -> None:
    """What runs under callgrind: prints how many items each operation had, and the hash of the outcomes."""
    size, seed = int(sys.argv[1]), int(sys.argv[2])
    CountedWorld.probes = probes = library("probes")
    items = min(size // 4, core.BATCH_ITEMS * BATCHES)
    batch_items = min(core.BATCH_ITEMS, items)
    world = CountedWorld(size, POOLS["spread"], seed, core.SWAP_SERVERS, orders_max=2 * items)
    reference = Reference(size)
    chosen = world.random.choice(size, items, replace=False)

    def count(operation: str, work: Callable[[], object]) -> None:
        world.counted = core.KINDS.get(operation, -1)
        work()
        world.counted = -1
        probes.probes_dump(operation.encode())

    def loop() -> None:
        for part in world.parts(world.random.choice(size, items, replace=False), batch_items):
            batch, sims = world.allocation(part), world.random.integers(0, size, len(part), dtype=np.uint32)
            probes.probes_toggle()
            reference.touch_ns(batch, sims)
            probes.probes_toggle()

    probes.probes_start()
    core.use(world, world.random.choice(size, items, replace=False), batch_items)
    probes.probes_dump(b"warm-up")
    count("loop", loop)
    count("allocate", lambda: world.allocate(chosen, batch_items))
    world.pass_ms(60_000)
    count("renew", lambda: world.renew(world.random.permutation(chosen), batch_items))
    count("report_usage", lambda: world.report_usage(world.random.permutation(chosen), batch_items, MIB))
    count("release", lambda: world.release(world.random.permutation(chosen), batch_items))
    world.pass_ms(5_000)
    count("swap", lambda: core.move(world, items, batch_items))
    reference.close()
    print(items, world.hash)


if __name__ == "__main__":
    main()

"""Runs the benches, prints one table and writes ``build/bench.json``: ``python -m benches.run``.

A goal that is not met is shown and does not fail the run: absolute figures belong to one machine. A bench that did not
do what it says becomes a row that names the reason, the others still run, and the exit code is 1. So it is when a row
got worse by more than a tenth than in an earlier file (``--against``).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benches import calls, core, journal, lines, pools, rpc, start, virtual, wire
from benches.plot import plot
from benches.report import ROOT, Result, compare, machine_line, print_table, print_worse, write_json
from benches.world import POOLS, Pool

SEED = 20_200_321
# What has to be in the table, measured or not.
REQUIRED = (
    "core.allocate",
    "core.renew",
    "core.release",
    "core.report_usage",
    "core.swap",
    "core.python_call",
    "wire.decode",
    "wire.encode",
    "rpc.batch_100",
    "rpc.batch_1000",
    "rpc.batch_10000",
    "rpc.unary",
    "rpc.unary_latency",
    "rpc.during_job",
    "rpc.during_job.virtual",
    "journal.commit",
    "start.cold",
    "memory.resident",
    "usage.records",
)
# Families that only run when they are asked for.
ON_DEMAND = ("lines",)


@dataclass(frozen=True)
class Sizes:
    """How much the benches do."""

    core: dict[int, int]
    """Rounds by number of SIMs, for a pool with many tiers and one with a single one."""
    pools: int
    """Number of SIMs for the other pools."""
    swap_terminals: int
    swap_fleet: tuple[int, int]
    """Terminals and access servers."""
    python_sims: int
    commit_bytes: tuple[int, ...]
    commit_rounds: int
    wire_items: int
    rpc_python: int
    """Allocations by clients in Python."""
    rpc_batches: int
    """By the compiled one, in batches."""
    rpc_singles: dict[str, int]
    """One by one, by transport."""
    start_sims: int
    lines_sims: int


FULL = Sizes(
    core={10_000: 40, 100_000: 8, 1_000_000: 4, 10_000_000: 3},
    pools=1_000_000,
    swap_terminals=100_000,
    swap_fleet=(1_000_000, 1_000),
    python_sims=100_000,
    commit_bytes=journal.SIZES,
    commit_rounds=100,
    wire_items=10_000,
    rpc_python=400_000,
    rpc_batches=1_500_000,
    rpc_singles={"grpcio": 30_000, "native": 200_000},
    start_sims=start.FULL_SIZE,
    lines_sims=1_000_000,
)
SMOKE = Sizes(
    {2_000: 1},
    2_000,
    500,
    (500, 50),
    2_000,
    journal.SIZES[:1],
    5,
    500,
    2_000,
    4_000,
    {"grpcio": 500, "native": 500},
    20_000,
    2_000,
)


@dataclass(frozen=True)
class Bench:
    """One measurement, and the rows that come of it."""

    rows: tuple[str, ...]
    size: int
    measure: Callable[[core.Progress], list[Result]]


def benches(folder: Path, seed: int, sizes: Sizes) -> list[Bench]:
    """All of them. ``folder`` lies on the disk that is to be measured."""

    def core_bench(size: int, pool: Pool, rounds: int) -> Bench:
        return Bench(core.rows(pool), size, lambda say: core.measure(size, pool, seed, rounds, say))

    def journal_bench(size: int) -> Bench:
        place, rounds = folder / f"journal-{size}", sizes.commit_rounds
        return Bench(("journal.commit",), size, lambda say: [journal.measure(place, size, rounds, say)])

    def batch_bench(items: int, transport: str) -> Bench:
        place, asked, name = folder / "batches", sizes.rpc_batches, calls.row(f"batch_{items}", transport)
        return Bench((name,), asked, lambda say: [calls.measure_batches(place, asked, say, items, transport)])

    def single_bench(transport: str, asked: int) -> Bench:
        place = folder / "singles"
        rows = calls.single_rows(transport)
        return Bench(rows, asked, lambda say: calls.measure_singles(place, asked, say, transport))

    fleet, fleet_servers = sizes.swap_fleet
    swaps, one_by_one, asked = sizes.swap_terminals, sizes.python_sims, sizes.rpc_python
    return [
        *(
            core_bench(size, POOLS[name], rounds)
            for size, rounds in sizes.core.items()
            for name in core.POOLS_WITH_GOALS
        ),
        *(core_bench(sizes.pools, pool, 2) for pool in POOLS.values() if pool.name not in core.POOLS_WITH_GOALS),
        Bench(("core.swap.job",), swaps, lambda say: [core.measure_job(swaps, seed, say)]),
        Bench(("core.swap.fleet",), fleet, lambda say: [core.measure_fleet(fleet, fleet_servers, seed, say)]),
        Bench(("core.python_call",), one_by_one, lambda say: [pools.measure(one_by_one, seed, 3, say)]),
        Bench(wire.ROWS, sizes.wire_items, lambda say: wire.measure(sizes.wire_items, seed, 20, say)),
        *(journal_bench(size) for size in sizes.commit_bytes),
        *(batch_bench(items, "grpcio") for items in (100, 1_000, 10_000)),
        Bench(("rpc.batch_100.python",), asked, lambda say: [rpc.measure(folder / "rpc", asked, say)]),
        batch_bench(1_000, "native"),
        *(single_bench(transport, size) for transport, size in sizes.rpc_singles.items()),
        Bench(("rpc.during_job",), swaps, lambda say: [calls.measure_during_job(folder / "job", swaps, say)]),
        Bench((virtual.NAME,), swaps, lambda say: [virtual.measure(swaps, seed, say)]),
        Bench(start.ROWS, sizes.start_sims, lambda say: start.measure(folder / "start", sizes.start_sims, say)),
        Bench(
            tuple(f"lines.{name}" for name in lines.OPERATIONS),
            sizes.lines_sims,
            lambda say: lines.measure(folder / "lines", sizes.lines_sims, seed, say),
        ),
    ]


def missing(all_benches: list[Bench]) -> list[Bench]:
    """For each row that has to be there and that no bench gives, one that says so."""

    def none(_say: core.Progress) -> list[Result]:
        raise NotImplementedError("no bench measures this yet")

    given = {name for bench in all_benches for name in bench.rows}
    return [Bench((name,), 0, none) for name in REQUIRED if name not in given]


def attempt(bench: Bench, say: core.Progress) -> list[Result]:
    """The rows of a bench; if it fails, the same rows with the reason."""
    try:
        return bench.measure(say)
    except Exception as error:  # Whatever went wrong belongs in the report, beside the figures of the other benches.
        reason = f"failed: {type(error).__name__}: {error}"
        return [Result(name, bench.size, None, "", "", note=reason, failed=True) for name in bench.rows]


def wanted(name: str, only: list[str]) -> bool:
    """Whether ``only`` names this row or a family that it is of: ``core`` has ``core.swap``."""
    if not only:
        return name.partition(".")[0] not in ON_DEMAND
    return any(name == part or name.startswith(f"{part}.") for part in only)


def names() -> list[str]:
    """Every row that can be asked for."""
    found = benches(Path(), SEED, FULL)
    return list(dict.fromkeys(name for bench in [*found, *missing(found)] for name in bench.rows))


def run(seed: int, sizes: Sizes, only: list[str], say: core.Progress) -> list[Result]:
    # On the disk that the clone lies on: a temporary folder might be in memory, where a commit costs nothing.
    (ROOT / "build").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "build"))
    try:
        found = benches(folder, seed, sizes)
        results = [
            result
            for bench in [*found, *missing(found)]
            if any(wanted(name, only) for name in bench.rows)
            for result in attempt(bench, say)
        ]
    finally:
        shutil.rmtree(folder)
    return [result for result in results if wanted(result.name, only)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.run", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a row or a family of rows; may be repeated"
    )
    parser.add_argument("--smoke", action="store_true", help="in a size that shows only that every bench works")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--json", type=Path, help="build/bench.json, or build/bench-smoke.json with --smoke")
    parser.add_argument("--against", type=Path, metavar="FILE", help="an earlier JSON: shows what got worse by a tenth")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draws the core's cost against size (PNG, SVG, PDF)")
    options = parser.parse_args()
    for part in options.only:
        if not any(wanted(name, [part]) for name in names()):
            parser.error(f"there is no bench {part!r}; there are {', '.join(names())}")
    sizes = SMOKE if options.smoke else FULL
    if options.plot and (len(sizes.core) < 2 or not wanted("core.allocate", options.only)):
        parser.error("--plot shows cost against size: it needs core.allocate, and not --smoke, which has one size")
    # Read before hours of measuring, and before a new file may take its place.
    earlier = json.loads(options.against.read_text()) if options.against else None
    # Progress goes to the error output, so that the table can be piped; where nobody watches, every step is a line.
    console = Console(stderr=True)
    with console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                console.print(text, highlight=False)

        results = run(options.seed, sizes, options.only, say)
    path = options.json or ROOT / "build" / ("bench-smoke.json" if options.smoke else "bench.json")
    content = write_json(path, options.seed, results)
    print_table(options.seed, results)
    console.print(f"written to {path}", highlight=False, soft_wrap=True)
    if options.plot:
        plot(options.plot, results, machine_line())
    worse = []
    if earlier is not None:
        # Rows that were not asked for now can't be compared.
        earlier["results"] = [found for found in earlier["results"] if wanted(found["name"], options.only)]
        worse = compare(earlier, content)
        print_worse(options.against, worse)
    return 1 if worse or any(result.failed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())

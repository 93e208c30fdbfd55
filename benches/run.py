"""Runs the benches, prints one table and writes ``build/bench.json``: ``python -m benches.run``.

A goal that is not met is shown and does not fail the run: absolute figures belong to one machine. A bench that did not
do what it says becomes a row that names the reason, the others still run, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console

from benches import core, journal, rpc
from benches.report import ROOT, Result, print_table, write_json
from benches.world import Pool

SEED = 20_200_321
ROUNDS = {10_000: 20, 100_000: 5, 1_000_000: 2}
NAMES = (
    *(f"core.{name}{end}" for name in core.LINES for end in ("", ".one_tier")),
    "core.swap",
    "journal.commit",
    "rpc.batch_100",
)


@dataclass(frozen=True)
class Sizes:
    """How much the benches do."""

    core: tuple[int, ...]
    swap_terminals: int
    swap_servers: int
    commit_bytes: tuple[int, ...]
    commit_rounds: int
    rpc_allocations: int


FULL = Sizes((10_000, 100_000, 1_000_000), 100_000, 100, journal.SIZES, 100, 400_000)
SMOKE = Sizes((2_000,), 500, 5, journal.SIZES[:1], 5, 2_000)


@dataclass(frozen=True)
class Bench:
    """One measurement, and the rows that come of it."""

    rows: tuple[str, ...]
    size: int
    measure: Callable[[core.Progress], list[Result]]


def core_bench(size: int, pool: Pool, seed: int) -> Bench:
    end = ".one_tier" if pool == "one_tier" else ""
    rounds = ROUNDS.get(size, 2)
    rows = tuple(f"core.{name}{end}" for name in core.LINES)
    return Bench(rows, size, lambda say: core.measure(size, pool, seed, rounds, say))


def journal_bench(folder: Path, size: int, rounds: int) -> Bench:
    return Bench(("journal.commit",), size, lambda say: [journal.measure(folder, size, rounds, say)])


def benches(folder: Path, seed: int, sizes: Sizes) -> list[Bench]:
    """All of them. ``folder`` lies on the disk that is to be measured."""
    pools: tuple[Pool, ...] = get_args(Pool)
    return [
        *(core_bench(size, pool, seed) for size in sizes.core for pool in pools),
        Bench(
            ("core.swap",),
            sizes.swap_terminals,
            lambda say: [core.measure_swap(sizes.swap_terminals, seed, say, sizes.swap_servers)],
        ),
        *(journal_bench(folder / f"journal-{size}", size, sizes.commit_rounds) for size in sizes.commit_bytes),
        Bench(
            ("rpc.batch_100",),
            sizes.rpc_allocations,
            lambda say: [rpc.measure(folder / "rpc", sizes.rpc_allocations, say)],
        ),
    ]


def attempt(bench: Bench, say: core.Progress) -> list[Result]:
    """The rows of a bench; if it fails, the same rows with the reason."""
    try:
        return bench.measure(say)
    except Exception as error:  # Whatever went wrong belongs in the report, beside the figures of the other benches.
        reason = f"failed: {type(error).__name__}: {error}"
        return [Result(name, bench.size, None, "", "", note=reason, failed=True) for name in bench.rows]


def wanted(name: str, only: list[str]) -> bool:
    """Whether ``only`` names this row or a family that it is of: ``core`` has ``core.swap``."""
    return not only or any(name == part or name.startswith(f"{part}.") for part in only)


def run(seed: int, sizes: Sizes, only: list[str], say: core.Progress) -> list[Result]:
    # On the disk that the clone lies on: a temporary folder might be in memory, where a commit costs nothing.
    (ROOT / "build").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "build"))
    try:
        results = [
            result
            for bench in benches(folder, seed, sizes)
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
    options = parser.parse_args()
    for part in options.only:
        if not any(wanted(name, [part]) for name in NAMES):
            parser.error(f"there is no bench {part!r}; there are {', '.join(NAMES)}")
    # Progress goes to the error output, so that the table can be piped; where nobody watches, every step is a line.
    console = Console(stderr=True)
    with console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                console.print(text, highlight=False)

        results = run(options.seed, SMOKE if options.smoke else FULL, options.only, say)
    path = options.json or ROOT / "build" / ("bench-smoke.json" if options.smoke else "bench.json")
    write_json(path, options.seed, results)
    print_table(options.seed, results)
    console.print(f"written to {path}", highlight=False, soft_wrap=True)
    return 1 if any(result.failed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs the benches, prints one table and writes ``build/bench.json``: ``python -m benches.run``.

A goal that is not met is shown and does not fail the run: absolute figures belong to one machine. What fails it is a
bench that did not do what it says.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import get_args

from benches import core, journal, rpc
from benches.report import ROOT, Result, print_table, write_json
from benches.world import Pool

SEED = 20_200_321
CORE_SIZES = (10_000, 100_000, 1_000_000)
ROUNDS = {10_000: 20, 100_000: 5, 1_000_000: 2}
SWAP_TERMINALS = 100_000
COMMIT_ROUNDS = 100
RPC_ALLOCATIONS = 400_000
GROUPS = ("core", "swap", "journal", "rpc")


def say(text: str) -> None:
    """Progress goes to the error output, so that the table can be piped."""
    print(text, file=sys.stderr, flush=True)


def run(groups: set[str], seed: int, sizes: tuple[int, ...]) -> list[Result]:
    results: list[Result] = []
    if "core" in groups:
        for size in sizes:
            pools: tuple[Pool, ...] = get_args(Pool)
            for pool in pools:
                results += core.measure(size, pool, seed, ROUNDS.get(size, 2), say)
    if "swap" in groups:
        results.append(core.measure_swap(SWAP_TERMINALS, seed, say))
    # On the disk that the clone lies on: a temporary folder might be in memory, where a commit costs nothing.
    (ROOT / "build").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "build"))
    try:
        if "journal" in groups:
            results += [journal.measure(folder / f"journal-{size}", size, COMMIT_ROUNDS, say) for size in journal.SIZES]
        if "rpc" in groups:
            results.append(rpc.measure(folder / "rpc", RPC_ALLOCATIONS, say))
    finally:
        shutil.rmtree(folder)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.run", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=GROUPS, help="only these; may be given more than once")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--size", type=int, action="append", help="SIMs of the core benches, instead of 1e4, 1e5, 1e6")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json")
    options = parser.parse_args()
    results = run(set(options.only or GROUPS), options.seed, tuple(options.size or CORE_SIZES))
    write_json(options.json, options.seed, results)
    print_table(options.seed, results)
    say(f"written to {options.json}")


if __name__ == "__main__":
    main()

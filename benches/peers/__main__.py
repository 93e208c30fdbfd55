"""Runs the peers beside simswitch, prints one table and writes ``build/bench-peers.json``: ``python -m benches.peers``.

A peer that can't be installed or does not do the job becomes rows that name the reason; the others still run, and the
exit code is 1. Being slower than a peer is shown and fails nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.table import Table

from benches.peers import install, ours, postgresql, redis_lua, sqlite, swap
from benches.peers.contest import Contender, Figures, Plan, Progress, opponent, race, rows
from benches.report import ROOT, Result, commit, machine_line, write_json

SEED = 20_200_321
OPEN = {"redis": redis_lua.contenders, "postgresql": postgresql.contenders, "sqlite": sqlite.contenders}
PHASES = ("allocate", "release")
# The rows that a peer gives, also when it could not be measured.
ROWS = {
    peer: [f"peers.{peer}.{way}.{phase}" for way in ways for phase in PHASES]
    for peer, ways in {
        "redis": ("lua_1000", "lua_1"),
        "postgresql": ("skip_locked_200", "skip_locked_1"),
        "sqlite": ("bulk_1000", "one"),
    }.items()
}
ROWS["postgresql"].append(swap.NAME)
# A third of a second to a few seconds for each phase on two cores.
FULL = Plan(
    pool=1_000_000,
    counts={
        "ours.batch_1000": 300_000,
        "ours.batch_200": 200_000,
        "ours.unary": 6_400,
        "redis.lua_1000": 300_000,
        "redis.lua_1": 64_000,
        "postgresql.skip_locked_200": 200_000,
        "postgresql.skip_locked_1": 32_000,
        "sqlite.bulk_1000": 200_000,
        "sqlite.one": 6_400,
    },
    rounds=5,
    seed=SEED,
    swap_terminals=100_000,
)
SMOKE = Plan(pool=8_000, counts=dict.fromkeys(FULL.counts, 640), rounds=1, seed=SEED, swap_terminals=500)


def measure(
    peers: Sequence[str], plan: Plan, folder: Path, progress: Progress
) -> tuple[list[Result], list[Contender], dict[str, Figures]]:
    """All rows; who took part, and the figures of each."""
    results = []
    with ExitStack() as stack:
        progress(f"ours: importing {plan.pool:,} SIMs")
        mine = stack.enter_context(ours.contenders(folder, plan))
        theirs: list[Contender] = []
        swaps = []
        for peer in peers:
            progress(f"{peer}: starting, {plan.pool:,} SIMs")
            try:
                install.ensure(peer)
                theirs += stack.enter_context(OPEN[peer](folder, plan))
            except (
                Exception
            ) as error:  # Whatever keeps a peer away belongs in the report, beside the figures of others.
                results += failed(ROWS[peer], plan, f"{type(error).__name__}: {error}")
                continue
            if peer == "postgresql":
                swaps.append(peer)
        met = {opponent(contender) for contender in theirs}
        taking_part = [*(contender for contender in mine if contender.name in met), *theirs]
        figures, failures = race(taking_part, plan, progress)
        for contender in theirs:
            if contender.name in figures:
                results += rows(contender, figures)
            else:
                names = [f"peers.{contender.name}.{phase}" for phase in PHASES]
                results += failed(names, plan, failures[contender.name])
    if swaps:
        try:
            results.append(swap.measure(folder / "swap", plan.swap_terminals, plan.seed, progress))
        except Exception as error:  # As above.
            results += failed((swap.NAME,), plan, f"{type(error).__name__}: {error}")
    return results, [contender for contender in taking_part if contender.name in figures], figures


def failed(names: Sequence[str], plan: Plan, reason: str) -> list[Result]:
    """The rows of what could not be measured."""
    return [Result(name, plan.pool, None, "", "", note=f"failed: {reason}", failed=True) for name in names]


def print_table(
    plan: Plan, results: Sequence[Result], taking_part: Sequence[Contender], figures: dict[str, Figures]
) -> None:
    console = Console(width=None if os.isatty(1) else 160)
    title = (
        f"{machine_line()}\ncommit {commit()}, seed {plan.seed}; {plan.pool:,} SIMs, terminals a second, "
        f"medians of {plan.rounds} rounds in turn"
    )
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("", "a request", "in flight", "terminals", "allocate /s", "ours ÷ it", "release /s", "ours ÷ it"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    table.add_column("durable before the answer", no_wrap=True)
    for contender in taking_part:
        theirs = figures[contender.name]
        mine = figures.get(opponent(contender)) if not contender.name.startswith("ours.") else None
        table.add_row(
            contender.name,
            f"{contender.batch_items:,}",
            f"{contender.in_flight:,}",
            f"{theirs.count:,}",
            f"{theirs.allocate:,.0f}",
            f"{mine.allocate / theirs.allocate:.2f}" if mine else "",
            f"{theirs.release:,.0f}",
            f"{mine.release / theirs.release:.2f}" if mine else "",
            contender.durability,
        )
    console.print(table)
    for result in results:
        if result.name == swap.NAME and result.value is not None:
            console.print(
                f"\n{result.size:,} terminals moved in the books: PostgreSQL {result.reference:,.0f} ms, "
                f"ours {result.value:,.1f} ms of core time ({result.note})",
                highlight=False,
                soft_wrap=True,
            )
        if result.failed:
            console.print(f"{result.name}: {result.note}", highlight=False, soft_wrap=True)
    console.print("\nEach with its settings, warmed up by one round:", highlight=False)
    for contender in taking_part:
        console.print(f"  {contender.name}: {contender.settings}; {contender.client}", highlight=False, soft_wrap=True)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    sys.exit(143)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=list(OPEN), default=[], help="a peer; may be repeated")
    parser.add_argument("--smoke", action="store_true", help="in a size that shows only that it works")
    parser.add_argument(
        "--json", type=Path, help="build/bench-peers.json, or build/bench-peers-smoke.json with --smoke"
    )
    options = parser.parse_args()
    # Whatever ends this process on the way ends its servers too.
    signal.signal(signal.SIGTERM, _terminated)
    plan = SMOKE if options.smoke else FULL
    console = Console(stderr=True)
    # On the disk that the clone lies on: a temporary folder might be in memory, where a commit costs nothing.
    (ROOT / "build").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-peers-", dir=ROOT / "build"))
    # The servers' user passes through it.
    folder.chmod(0o711)
    try:
        with console.status("starting") as status:

            def say(text: str) -> None:
                status.update(text)
                if not console.is_terminal:
                    console.print(text, highlight=False)

            results, taking_part, figures = measure(options.only or list(OPEN), plan, folder, say)
    except KeyboardInterrupt:
        console.print("stopped; its servers have ended", highlight=False)
        return 130
    finally:
        shutil.rmtree(folder)
    path = options.json or ROOT / "build" / ("bench-peers-smoke.json" if options.smoke else "bench-peers.json")
    write_json(path, plan.seed, results)
    print_table(plan, results, taking_part, figures)
    console.print(f"written to {path}", highlight=False, soft_wrap=True)
    return 1 if any(result.failed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())

"""What a bench gives: a figure beside its reference and its goal, one table of them, one JSON file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
# How much worse a row may be than in an earlier run.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Result:
    """One figure. ``hash`` is what the bench computed, so that its meaning can't drift unseen.

    ``goal`` bounds the value, or with ``goal_of="ratio"`` the value as a multiple of the reference: from above, or from
    below where higher is better.
    """

    name: str
    size: int
    value: float | None
    unit: str
    hash: str
    reference: float | None = None
    goal: float | None = None
    goal_of: Literal["value", "ratio"] = "value"
    better: Literal["lower", "higher"] = "lower"
    note: str = ""
    failed: bool = False

    @property
    def ratio(self) -> float | None:
        """The figure as a multiple of its reference."""
        return self.value / self.reference if self.value is not None and self.reference else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None: this figure has none. A bench that failed meets nothing."""
        if self.failed:
            return False
        if self.goal is None:
            return None
        measured = self.ratio if self.goal_of == "ratio" else self.value
        if measured is None:
            return False
        return measured <= self.goal if self.better == "lower" else measured >= self.goal

    @property
    def goal_text(self) -> str:
        """The goal in words: ``ratio <= 1.35``."""
        if self.goal is None:
            return ""
        return f"{self.goal_of} {'<=' if self.better == 'lower' else '>='} {_figure(self.goal)}"

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "size": self.size,
            "value": self.value,
            "unit": self.unit,
            "reference": self.reference,
            "ratio": self.ratio,
            "goal": self.goal,
            "met": self.met,
            "goal_of": self.goal_of,
            "better": self.better,
            "hash": self.hash,
            "note": self.note,
        }


def machine_line() -> str:
    """Which machine measured: processor, cores, memory, kernel, Python."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{processor}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def commit() -> str:
    """The commit that was measured, with ``+`` when the tree differs from it; ``unknown`` outside a clone."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def write_json(path: Path, seed: int, results: list[Result]) -> dict[str, Any]:
    """Writes the file that later runs are compared with; gives what stands in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": machine_line(),
        "commit": commit(),
        "seed": seed,
        "results": [result.as_json() for result in results],
    }
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)
    return content


@dataclass(frozen=True)
class Worse:
    """A row that an earlier run did better, and by how much; None: it can't be compared any more."""

    name: str
    size: int
    what: str
    before: float
    now: float | None

    @property
    def factor(self) -> float | None:
        return self.now / self.before if self.now is not None else None


def compare(earlier: dict[str, Any], now: dict[str, Any], tolerance: float = TOLERANCE) -> list[Worse]:
    """The rows that are worse by more than ``tolerance``.

    Ratios are compared where there are any. Figures without a reference say nothing about another machine, so those
    are compared only when both runs were made on the same one. A row that was measured then and isn't now is worse.
    """
    same_machine = earlier["machine"] == now["machine"]
    found = {(row["name"], row["size"]): row for row in now["results"]}
    worse = []
    for row in earlier["results"]:
        name, size = row["name"], row["size"]
        what = "ratio" if row["ratio"] is not None else "value"
        before = row[what]
        if before is None or before <= 0 or (what == "value" and not same_machine):
            continue
        measured = found.get((name, size), {}).get(what)
        if measured is None:
            worse.append(Worse(name, size, what, before, None))
            continue
        lower = row.get("better", "lower") == "lower"
        if (measured > before * (1 + tolerance)) if lower else (measured * (1 + tolerance) < before):
            worse.append(Worse(name, size, what, before, measured))
    return worse


def print_worse(path: Path, worse: list[Worse]) -> None:
    """What :func:`compare` found, one aligned line a row."""
    print(f"\nagainst {path}: " + (f"{len(worse)} rows are worse" if worse else "nothing is worse"))
    width = max((len(row.name) for row in worse), default=0)
    for row in worse:
        now = "not measured" if row.now is None else f"{_figure(row.now):>10}  x {row.factor:.2f}"
        print(f"  {row.name:<{width}}  {row.size:>12,}  {row.what}  {_figure(row.before):>10} -> {now}")


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def print_table(seed: int, results: list[Result]) -> None:
    """One aligned table; columns that a result doesn't have stay empty."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if os.isatty(1) else 240)
    table = Table(title=f"{machine_line()}\ncommit {commit()}, seed {seed}", title_justify="left", box=None)
    for heading, justify in (
        ("bench", "left"),
        ("size", "right"),
        ("value", "right"),
        ("unit", "left"),
        ("reference", "right"),
        ("ratio", "right"),
        ("goal", "left"),
        ("met", "left"),
        ("hash", "left"),
        ("note", "left"),
    ):
        table.add_column(heading, justify="right" if justify == "right" else "left", no_wrap=heading != "note")
    for result in results:
        met = {None: "", True: "yes", False: "NO"}[result.met]
        ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
        table.add_row(
            result.name,
            f"{result.size:,}",
            _figure(result.value),
            result.unit,
            _figure(result.reference),
            ratio,
            result.goal_text,
            met,
            result.hash,
            result.note,
        )
    console.print(table)

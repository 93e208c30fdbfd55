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


@dataclass(frozen=True)
class Result:
    """One figure. ``hash`` is what the bench computed, so that its meaning can't drift unseen."""

    name: str
    size: int
    value: float | None
    unit: str
    hash: str
    reference: float | None = None
    goal: float | None = None
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
        if self.goal is None or self.value is None:
            return None
        return self.value <= self.goal if self.better == "lower" else self.value >= self.goal

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


def write_json(path: Path, seed: int, results: list[Result]) -> None:
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


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.1f}"


def print_table(seed: int, results: list[Result]) -> None:
    """One aligned table; columns that a result doesn't have stay empty."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if os.isatty(1) else 150)
    table = Table(title=f"{machine_line()}\ncommit {commit()}, seed {seed}", title_justify="left", box=None)
    for heading, justify in (
        ("bench", "left"),
        ("size", "right"),
        ("value", "right"),
        ("unit", "left"),
        ("reference", "right"),
        ("ratio", "right"),
        ("goal", "right"),
        ("met", "left"),
        ("hash", "left"),
        ("note", "left"),
    ):
        table.add_column(heading, justify="right" if justify == "right" else "left", no_wrap=heading != "note")
    for result in results:
        goal = "" if result.goal is None else f"{'<' if result.better == 'lower' else '>'} {_figure(result.goal)}"
        met = {None: "", True: "yes", False: "NO"}[result.met]
        ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
        table.add_row(
            result.name,
            f"{result.size:,}",
            _figure(result.value),
            result.unit,
            _figure(result.reference),
            ratio,
            goal,
            met,
            result.hash,
            result.note,
        )
    console.print(table)

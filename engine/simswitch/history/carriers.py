"""What carriers said was used, in history: rows for the projector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simswitch.core import layout
from simswitch.core.commands import CommandRun, OutcomeRun
from simswitch.history.schema import signed

_BYTES_MAX = (1 << 63) - 1

Statement = tuple[str, tuple[Any, ...]]


def figures_told(run: CommandRun, outcome: OutcomeRun, now_ms: int, actor: str) -> Iterator[Statement]:
    """Of a run of CARRIER_USAGE: those that were taken, and those that were set aside."""
    if run.argument:
        return  # a dry run
    names = ("iccid", "window", "as_of_s", "carrier_bytes")
    columns = zip(
        *(run[name].tolist() for name in names),
        outcome["correction_bytes"].tolist(),
        outcome["status"].tolist(),
        strict=True,
    )
    for iccid, window, as_of_s, told, correction, status in columns:
        key = (signed(iccid), window, as_of_s * 1000)
        if status == layout.OK:
            values = (*key, now_ms, told, told - correction, correction, actor)
            yield "INSERT OR REPLACE INTO corrections VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values
        elif status in (layout.IMPOSSIBLE_USAGE, layout.PAST_WINDOW):
            yield "INSERT OR IGNORE INTO set_aside VALUES (?, ?, ?, ?, ?, ?, 0, ?)", (now_ms, *key, told, status, actor)


def report_aside(at_ms: int, iccid: int, told: int, status: int, terminal: int, server: str) -> Statement:
    """Of an event SET_ASIDE that tells of an access server's report."""
    values = (at_ms, signed(iccid), min(told, _BYTES_MAX), status, signed(terminal), server)
    return "INSERT INTO set_aside VALUES (?, ?, NULL, NULL, ?, ?, ?, ?)", values

"""What carriers said was used, in history: rows for the projector, and what we had counted by then."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from typing import Any

from simswitch.core import layout
from simswitch.core.commands import CommandRun, OutcomeRun
from simswitch.history.schema import signed, unsigned

FIGURES_ASIDE = (layout.IMPOSSIBLE_USAGE, layout.NEGATIVE_USAGE, layout.FUTURE_USAGE, layout.PAST_WINDOW)
_BYTES_MAX = (1 << 63) - 1
_HOUR_MS = 3_600_000

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
        elif status in FIGURES_ASIDE:
            yield "INSERT OR IGNORE INTO set_aside VALUES (?, ?, ?, ?, ?, ?, 0, ?)", (now_ms, *key, told, status, actor)


def report_aside(at_ms: int, iccid: int, told: int, status: int, terminal: int, server: str) -> Statement:
    """Of an event SET_ASIDE that tells of an access server's report."""
    values = (at_ms, signed(iccid), min(told, _BYTES_MAX), status, signed(terminal), server)
    return "INSERT INTO set_aside VALUES (?, ?, NULL, NULL, ?, ?, ?, ?)", values


def unreported(event: int, at_ms: int, iccid: int, terminal: int, bytes_: int, reason: int) -> Statement:
    """Of an event UNREPORTED."""
    allowed = bytes_ if reason == layout.UNREPORTED_ALLOWED else -bytes_
    values = (event, at_ms, signed(iccid), signed(terminal), allowed)
    return "INSERT OR REPLACE INTO unreported VALUES (?, ?, ?, ?, ?)", values


def counted_before(
    connection: sqlite3.Connection, iccids: Collection[int], at_ms: int, since_ms: int
) -> dict[int, int]:
    """Lifetime counts at the end of the last hour that was over by then: no more than was counted at ``at_ms``.

    It is looked for hour by hour, back to ``since_ms``; who had no traffic in between is missing.
    """
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS wanted (iccid INTEGER PRIMARY KEY)")
    connection.execute("DELETE FROM wanted")
    connection.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", ((signed(iccid),) for iccid in iccids))
    wanted = len(set(iccids))
    found: dict[int, int] = {}
    for hour in range(at_ms // _HOUR_MS - 1, since_ms // _HOUR_MS - 1, -1):
        if len(found) == wanted:
            break
        rows = connection.execute(
            "SELECT wanted.iccid, counted_bytes FROM wanted CROSS JOIN sim_hour "
            "ON hour = ? AND sim_hour.iccid = wanted.iccid",
            (hour,),
        ).fetchall()
        connection.executemany("DELETE FROM wanted WHERE iccid = ?", ((iccid,) for iccid, _ in rows))
        found.update((unsigned(iccid), counted) for iccid, counted in rows)
    return found


def knows_since(connection: sqlite3.Connection, at_ms: int, since_ms: int) -> bool:
    """Whether history saw every record between the two instants."""
    return not connection.execute(
        "SELECT 1 FROM gaps WHERE from_ms < ? AND until_ms > ? LIMIT 1", (at_ms, since_ms)
    ).fetchone()

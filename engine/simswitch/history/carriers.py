"""What carriers said was used, in history: rows for the projector, and what we had counted by then."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from simswitch.core import layout
from simswitch.core.commands import CommandRun, OutcomeRun
from simswitch.history.retention import SLOT_S
from simswitch.history.schema import signed

FIGURES_ASIDE = (layout.IMPOSSIBLE_USAGE, layout.NEGATIVE_USAGE, layout.FUTURE_USAGE, layout.PAST_WINDOW)
_BYTES_MAX = (1 << 63) - 1
_HOUR_S = 3_600
_SLOTS_AROUND = _HOUR_S // SLOT_S + 1

Statement = tuple[str, tuple[Any, ...]]


def figures_told(run: CommandRun, outcome: OutcomeRun, now_ms: int, actor: str) -> Iterator[Statement]:
    """Of a run of CARRIER_USAGE: those that were taken, and those that were set aside."""
    if run.argument:
        return  # a dry run
    names = ("iccid", "window", "as_of_s", "carrier_bytes", "straddling_bytes")
    columns = zip(
        *(run[name].tolist() for name in names),
        outcome["correction_bytes"].tolist(),
        outcome["status"].tolist(),
        strict=True,
    )
    for iccid, window, as_of_s, told, straddling, correction, status in columns:
        key = (signed(iccid), window, as_of_s * 1000)
        if status == layout.OK:
            straddling = max(min(straddling, told - correction), 0)
            values = (*key, now_ms, told, told - correction, correction, actor, straddling)
            yield "INSERT OR REPLACE INTO corrections VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values
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


class Counted(NamedTuple):
    """Our lifetime count of a SIM at an instant."""

    bytes_: int
    """As if what a report tells had gone evenly over the time that it is of."""
    straddling_bytes: int
    """What of that may have been used after the instant: nobody knows when, within the report."""


def counted_by(
    connection: sqlite3.Connection, wanted: Sequence[tuple[int, int]], longest_s: int
) -> list[Counted | None]:
    """Of ICCIDs and instants (Unix seconds) what had been counted by then; None: nothing was, for ``longest_s`` before.

        rows   --c0---------------------c1--      c0 the last that is surely of before the instant,
        instant            |                      c1 the next: of its bytes those from from_s up to then are before

    They are looked for slot by slot in the hour before and the one after, as far as a report reaches that comes in
    time, then hour by hour. What came later than that counts as used after the instant.
    """
    connection.execute(
        "CREATE TEMP TABLE IF NOT EXISTS wanted (place INTEGER PRIMARY KEY, iccid INTEGER, at_s INTEGER)"
    )
    connection.execute("DELETE FROM wanted")
    connection.executemany(
        "INSERT INTO wanted VALUES (?, ?, ?)",
        ((place, signed(iccid), at_s) for place, (iccid, at_s) in enumerate(wanted)),
    )
    # By place: the rows around its instant, (count, from, until), in the order of time.
    around: list[list[tuple[int, int, int]]] = [[] for _ in wanted]
    before = [False] * len(wanted)
    for offset in range(-_SLOTS_AROUND, _SLOTS_AROUND + 1):
        for place, counted, from_s, until_s, at_s in connection.execute(
            f"SELECT place, counted_bytes, from_s, until_s, at_s FROM wanted CROSS JOIN sim_slot "
            f"ON slot = at_s / {SLOT_S} + ? AND sim_slot.iccid = wanted.iccid",
            (offset,),
        ):
            around[place].append((counted, from_s, until_s))
            before[place] = before[place] or until_s <= at_s
    # The hour that the instant is of has rows by slot, unless those are gone: then it is all that is known of it.
    for place, counted, end_s in _hours(connection, 0):
        if not around[place]:
            around[place].append((counted, end_s - _HOUR_S, end_s))
    connection.executemany(
        "DELETE FROM wanted WHERE place = ?", [(place,) for place, some in enumerate(before) if some]
    )
    base: dict[int, tuple[int, int]] = {}
    left = before.count(False)
    for hours in range(1, longest_s // _HOUR_S + 1):
        if not left:
            break
        found = _hours(connection, -hours)
        base.update((place, (counted, end_s)) for place, counted, end_s in found)
        connection.executemany("DELETE FROM wanted WHERE place = ?", [(place,) for place, _, _ in found])
        left -= len(found)
    return [_at(at_s, base.get(place), around[place]) for place, (_, at_s) in enumerate(wanted)]


def _hours(connection: sqlite3.Connection, offset: int) -> list[tuple[int, int, int]]:
    """Place, count and end of the hour that is so many after that of the instant, of those who had traffic in it."""
    return connection.execute(
        f"SELECT place, counted_bytes, (hour + 1) * {_HOUR_S} FROM wanted CROSS JOIN sim_hour "
        f"ON hour = at_s / {_HOUR_S} + ? AND sim_hour.iccid = wanted.iccid",
        (offset,),
    ).fetchall()


def _at(at_s: int, base: tuple[int, int] | None, around: Sequence[tuple[int, int, int]]) -> Counted | None:
    """``base``: the count at the end of an earlier hour, and when that was."""
    counted, since_s = base if base is not None else (0, 0)
    for total, from_s, until_s in around:
        if until_s <= at_s:
            counted, since_s = total, until_s
            continue
        begin_s = max(from_s, since_s)
        if begin_s >= at_s or not since_s | from_s:
            break
        part = (total - counted) * (at_s - begin_s) // (until_s - begin_s)
        return Counted(counted + part, part)
    return Counted(counted, 0) if base is not None or counted else None


def knows_since(connection: sqlite3.Connection, at_ms: int, since_ms: int) -> bool:
    """Whether history saw every record between the two instants."""
    return not connection.execute(
        "SELECT 1 FROM gaps WHERE from_ms < ? AND until_ms > ? LIMIT 1", (at_ms, since_ms)
    ).fetchone()

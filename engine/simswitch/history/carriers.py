"""What carriers said was used, in history: rows for the projector, and what we had counted by then.

SIMs that share a quota are looked up together (``pool_counted_by``): a row a lot and hour, however many they are.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simswitch.core import layout
from simswitch.core.commands import CommandRun, OutcomeRun
from simswitch.history.retention import HOUR_S, HOURS
from simswitch.history.schema import signed

FIGURES_ASIDE = (
    *(layout.IMPOSSIBLE_USAGE, layout.NEGATIVE_USAGE, layout.FUTURE_USAGE, layout.PAST_WINDOW, layout.NO_WINDOW),
    layout.UNKNOWN_SIM,
)
_BYTES_MAX = (1 << 63) - 1
_DAY_S = 86_400

Statement = tuple[str, tuple[Any, ...]]


def figures_told(run: CommandRun, outcome: OutcomeRun, now_ms: int, actor: str) -> Iterator[Statement]:
    """Of a run of CARRIER_USAGE or POOL_USAGE: those that were taken, and those that were set aside."""
    if run.argument:
        return  # a dry run
    of_pools = run.kind == layout.POOL_USAGE
    table, of_what = ("pool_corrections", "lot") if of_pools else ("corrections", "iccid")
    names = (of_what, "window", "as_of_s", "carrier_bytes", "straddling_bytes")
    columns = zip(
        *(run[name].tolist() for name in names),
        outcome["correction_bytes"].tolist(),
        outcome["status"].tolist(),
        strict=True,
    )
    for number, window, as_of_s, told, straddling, correction, status in columns:
        when = (window, as_of_s * 1000)
        if status == layout.OK:
            straddling = max(min(straddling, told - correction), 0)
            values = (signed(number), *when, now_ms, told, told - correction, correction, actor, straddling)
            yield f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values
        elif status in FIGURES_ASIDE:
            iccid, lot = (0, number) if of_pools else (signed(number), 0)
            yield (
                "INSERT OR IGNORE INTO set_aside VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)",
                (now_ms, iccid, *when, told, status, actor, lot),
            )


def report_aside(at_ms: int, iccid: int, told: int, status: int, terminal: int, server: str) -> Statement:
    """Of an event SET_ASIDE that tells of an access server's report."""
    values = (at_ms, signed(iccid), min(told, _BYTES_MAX), status, signed(terminal), server)
    return "INSERT INTO set_aside VALUES (?, ?, NULL, NULL, ?, ?, ?, ?, 0)", values


def unreported(event: int, at_ms: int, iccid: int, terminal: int, bytes_: int, reason: int) -> Statement:
    """Of an event UNREPORTED."""
    allowed = bytes_ if reason == layout.UNREPORTED_ALLOWED else -bytes_
    values = (event, at_ms, signed(iccid), signed(terminal), allowed)
    return "INSERT OR REPLACE INTO unreported VALUES (?, ?, ?, ?, ?)", values


class Wanted(NamedTuple):
    """A SIM and an instant."""

    iccid: int
    at_s: int
    """Unix seconds."""
    counted_bytes: int
    """The lifetime count now, or at any time that history has come to since."""


class Counted(NamedTuple):
    """Our lifetime count of a SIM at an instant."""

    bytes_: int
    """As if what a row tells had gone evenly over the time that it is of."""
    straddling_bytes: int
    """What of that may have been used after the instant: nobody knows when, within the row."""


def counted_by(connection: sqlite3.Connection, wanted: Sequence[Wanted]) -> list[Counted]:
    """What had been counted by each instant. Who has no row since then counts now what it did.

        row       --before_bytes--------counted_bytes--     the first one that reaches behind the instant: of its
        instant                  |                          bytes those from from_s up to then are before it

    A row reaches back as far as its reports do, however late they came. Rows are by the hour; of instants before those
    that are kept, by the day. What a later row tells counts as used after the instant, never as nothing.
    """
    connection.execute(
        "CREATE TEMP TABLE IF NOT EXISTS wanted (place INTEGER PRIMARY KEY, iccid INTEGER, at_s INTEGER)"
    )
    first, last = connection.execute("SELECT min(hour), max(hour) FROM use_hour").fetchone()
    counts = [Counted(each.counted_bytes, 0) for each in wanted]
    # Of the first hour some rows may be gone.
    by_hour = [first is not None and each.at_s // HOUR_S > first for each in wanted]
    left = _look_for(connection, wanted, [place for place, hourly in enumerate(by_hour) if hourly])
    for offset in range(max((last - at_s // HOUR_S for _, _, at_s in left), default=-1) + 1):
        found = connection.execute(
            "SELECT place, at_s, before_bytes, counted_bytes, from_s, until_s FROM wanted CROSS JOIN use_hour "
            f"ON hour = at_s / {HOUR_S} + ? AND use_hour.iccid = wanted.iccid WHERE until_s > at_s",
            (offset,),
        ).fetchall()
        for place, at_s, before, counted, from_s, until_s in found:
            part = _part(counted - before, at_s, from_s, until_s)
            counts[place] = Counted(before + part, part)
        connection.executemany("DELETE FROM wanted WHERE place = ?", [(place,) for place, *_ in found])
    left = _look_for(connection, wanted, [place for place, hourly in enumerate(by_hour) if not hourly])
    days = connection.execute("SELECT max(day) FROM use_sim").fetchone()[0] or 0
    # A local day begins on the UTC day before, or on it.
    for day in range(min((at_s // _DAY_S - 1 for _, _, at_s in left), default=days + 1), days + 1):
        for place, at_s, used, first_ms, last_ms in connection.execute(
            "SELECT place, at_s, bytes, first_ms, last_ms FROM wanted CROSS JOIN use_sim "
            "ON day = ? AND use_sim.iccid = wanted.iccid WHERE last_ms > at_s * 1000",
            (day,),
        ):
            part = _part(used, at_s, first_ms // 1000, -(-last_ms // 1000))
            then = counts[place]
            counts[place] = Counted(then.bytes_ - used + part, then.straddling_bytes + part)
    return counts


def _look_for(
    connection: sqlite3.Connection, wanted: Sequence[Wanted], places: Sequence[int]
) -> list[tuple[int, int, int]]:
    """Fills the table of who is looked for; gives its rows."""
    rows = [(place, signed(wanted[place].iccid), wanted[place].at_s) for place in places]
    connection.execute("DELETE FROM wanted")
    connection.executemany("INSERT INTO wanted VALUES (?, ?, ?)", rows)
    return rows


def _part(used: int, at_s: int, from_s: int, until_s: int) -> int:
    """How much of it was used by then, if it went evenly."""
    return used * (at_s - from_s) // (until_s - from_s) if from_s < at_s else 0


class PoolUse(NamedTuple):
    """Reports of SIMs that share a quota, in columns."""

    lots: npt.NDArray[Any]
    counted: npt.NDArray[Any]
    from_s: npt.NDArray[Any]
    until_s: npt.NDArray[Any]


def pool_hours(use: PoolUse, counts: Mapping[int, tuple[int, int]]) -> Iterator[Statement]:
    """Rows of ``pool_hour``. ``counts``: of each lot the hour of its last report, and its count after that.

    report    from_s ----|----------------|---- until_s     what it tells is parted by time; what falls before an
    hours            h   |      h + 1     |   h + 2         hour's begin straddles that
    """
    counted, from_s = use.counted.astype(np.int64), np.minimum(use.from_s, use.until_s - 1)
    last = (use.until_s - 1) // HOUR_S
    hour = np.maximum(from_s // HOUR_S, last - HOURS)
    spans = use.until_s - from_s
    whole, rest = np.divmod(counted, spans)
    used: Counter[tuple[int, int]] = Counter()
    straddling: Counter[tuple[int, int]] = Counter()
    going = np.arange(len(counted))
    while len(going):

        def by(instants: npt.NDArray[Any], going: npt.NDArray[Any] = going) -> npt.NDArray[Any]:
            """What of each report was used by then."""
            passed = np.clip(instants - from_s[going], 0, spans[going])
            return np.asarray(whole[going] * passed + rest[going] * passed // spans[going])

        begins = hour[going] * HOUR_S
        before = by(begins)
        rows = zip(
            hour[going].tolist(),
            use.lots[going].tolist(),
            (by(begins + HOUR_S) - before).tolist(),
            before.tolist(),
            strict=True,
        )
        for row_hour, lot, bytes_, bytes_before in rows:
            used[row_hour, lot] += bytes_
            straddling[row_hour, lot] += bytes_before
        hour[going] += 1
        going = going[hour[going] <= last[going]]
    for (row_hour, lot), bytes_ in used.items():
        last_hour, count = counts[lot]
        values = (row_hour, lot, bytes_, straddling[row_hour, lot], count if row_hour == last_hour else 0)
        yield (
            "INSERT INTO pool_hour VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "used_bytes = used_bytes + excluded.used_bytes, "
            "straddling_bytes = straddling_bytes + excluded.straddling_bytes, "
            "counted_bytes = max(counted_bytes, excluded.counted_bytes)",
            values,
        )


class PoolWanted(NamedTuple):
    """A lot whose SIMs share a quota, and an instant."""

    lot: int
    at_s: int
    """Unix seconds."""
    counted_bytes: int
    """The pool's lifetime count, for where history has nothing of it."""


def pool_counted_by(connection: sqlite3.Connection, wanted: Sequence[PoolWanted], at_ms: int) -> list[Counted | None]:
    """What pools had counted by each instant. None: not known, so far back no hours are kept. ``at_ms``: how far it is.

    Surely of before it is what was told of before its hour. What of the hour falls before it is taken to be.
    """
    rows: dict[int, dict[int, tuple[int, int, int]]] = {}
    for hour, lot, *figures in connection.execute(
        "SELECT hour, lot, used_bytes, straddling_bytes, counted_bytes FROM pool_hour"
    ):
        rows.setdefault(lot, {})[hour] = tuple(figures)
    not_kept = max([at_ms // 1000 // HOUR_S - HOURS, *rows.get(0, ())])
    counts: list[Counted | None] = []
    for lot, at_s, counted in wanted:
        mine, hour = rows.get(lot, {}), at_s // HOUR_S
        total = max((count for *_, count in mine.values()), default=counted)
        since = sum(used for its_hour, (used, *_) in mine.items() if its_hour >= hour)
        used, straddling, _ = mine.get(hour, (0, 0, 0))
        part = used * (at_s % HOUR_S) // HOUR_S
        counts.append(None if hour <= not_kept else Counted(total - since + part, straddling + part))
    return counts


def knows_since(connection: sqlite3.Connection, at_ms: int, since_ms: int) -> bool:
    """Whether history saw every record between the two instants."""
    return not connection.execute(
        "SELECT 1 FROM gaps WHERE from_ms < ? AND until_ms > ? LIMIT 1", (at_ms, since_ms)
    ).fetchone()

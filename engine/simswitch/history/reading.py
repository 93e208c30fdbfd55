"""What history answers. Every function takes a connection of ``schema.open_reader``."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from simswitch.history.schema import signed, unsigned

TABLES = (
    "use_day", "use_month", "use_sim", "sim_hour", "swaps", "given_up", "jobs", "refusals", "affected", "waits",
    "slowed", "slowed_terminals", "lots", "leases", "days", "decisions", "observations", "throttles", "health",
    "trusted", "caps", "cap_shifts", "corrections", "set_aside", "limits", "limit_rules", "exemptions", "entities",
    "gaps", "positions",
)  # fmt: skip
_SPANS = {
    "use_day": ("day", 86_400_000),
    "use_sim": ("day", 86_400_000),
    "sim_hour": ("hour", 3_600_000),
    "swaps": ("ordered_ms", 1),
    "given_up": ("at_ms", 1),
    "jobs": ("changed_ms", 1),
    "refusals": ("minute", 60_000),
    "affected": ("hour", 3_600_000),
    "waits": ("minute", 60_000),
    "slowed": ("minute", 60_000),
    "slowed_terminals": ("hour", 3_600_000),
    "lots": ("day", 86_400_000),
    "leases": ("hour", 3_600_000),
    "days": ("day", 86_400_000),
    "decisions": ("at_ms", 1),
    "limits": ("at_ms", 1),
    "corrections": ("at_ms", 1),
    "set_aside": ("at_ms", 1),
    "exemptions": ("since_ms", 1),
    "observations": ("at_ms", 1),
    "throttles": ("at_ms", 1),
    "health": ("at_ms", 1),
    "trusted": ("at_ms", 1),
    "caps": ("at_ms", 1),
    "cap_shifts": ("at_ms", 1),
}
_UNSIGNED = frozenset({"subscriber", "terminal", "order", "source", "target", "iccid", "checksum"})


@dataclass(frozen=True, slots=True)
class Known:
    """How far history is."""

    sequence: int
    at_ms: int
    gaps: list[tuple[int, int, int, int]]
    """First and last record that it never saw, and the instants around them."""


def known(connection: sqlite3.Connection) -> Known:
    row = connection.execute("SELECT sequence, at_ms FROM positions WHERE reader = 'history'").fetchone()
    gaps = connection.execute("SELECT * FROM gaps ORDER BY first_sequence").fetchall()
    sequence, at_ms = row or (0, 0)
    return Known(sequence, at_ms, gaps)


def rows(
    connection: sqlite3.Connection,
    table: str,
    from_ms: int | None = None,
    until_ms: int | None = None,
    *,
    limit: int = -1,
    **equal: int,
) -> Iterator[dict[str, Any]]:
    """Rows of a table, by instant where it has one (from, and before until), and by values of its columns.

    ``ValueError``: there is no such table, or it has no instant.
    """
    if table not in TABLES:
        raise ValueError(f"there is no table {table!r}; there are {', '.join(TABLES)}")
    wanted = []
    values = []
    if from_ms is not None or until_ms is not None:
        if table not in _SPANS:
            raise ValueError(f"{table} has no instants; export it whole")
        column, size_ms = _SPANS[table]
        for instant, sign in ((from_ms, ">="), (until_ms, "<")):
            if instant is not None:
                wanted.append(f"{column} {sign} ?")
                values.append(-(-instant // size_ms) if sign == "<" else instant // size_ms)
    columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    for name, value in equal.items():
        # SQLite would take a name that is no column for a text.
        if name not in columns:
            raise ValueError(f"{table} has no column {name!r}")
        wanted.append(f'"{name}" = ?')
        values.append(signed(value))
    where = f" WHERE {' AND '.join(wanted)}" if wanted else ""
    cursor = connection.execute(f"SELECT * FROM {table}{where} LIMIT ?", (*values, limit))
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield {
            name: unsigned(value) if name in _UNSIGNED and value is not None else value
            for name, value in zip(names, row, strict=True)
        }


def day_totals(connection: sqlite3.Connection, day: int) -> tuple[int, int]:
    """Bytes that were used on a day, and by how many subscribers."""
    found = connection.execute("SELECT bytes, subscribers FROM days WHERE day = ?", (day,)).fetchone()
    if found is None:
        # The day is not over, or nobody followed when it ended.
        found = connection.execute(
            "SELECT coalesce(sum(bytes), 0), count(*) FROM use_day WHERE day = ?", (day,)
        ).fetchone()
    return int(found[0]), int(found[1])


def outages(connection: sqlite3.Connection, from_ms: int, until_ms: int) -> list[tuple[int, int, int]]:
    """Subscriber, swaps and outage in ms, the longest outage first."""
    found = connection.execute(
        "SELECT subscriber, count(*), sum(outage_ms) FROM swaps WHERE ordered_ms >= ? AND ordered_ms < ? "
        "AND outage_ms IS NOT NULL GROUP BY subscriber ORDER BY 3 DESC",
        (from_ms, until_ms),
    )
    return [(unsigned(subscriber), count, outage) for subscriber, count, outage in found]


def subscribers_refused(connection: sqlite3.Connection, from_ms: int, until_ms: int) -> int:
    """How many different subscribers were refused a SIM in the hours that the span touches."""
    found = connection.execute(
        "SELECT count(DISTINCT subscriber) FROM affected WHERE hour BETWEEN ? AND ? AND last_ms >= ? AND first_ms < ?",
        (from_ms // 3_600_000, until_ms // 3_600_000, from_ms, until_ms),
    ).fetchone()
    return int(found[0])


def counted_at(connection: sqlite3.Connection, iccid: int, at_ms: int) -> int | None:
    """A SIM's lifetime count at the end of the last hour with traffic up to that instant. None: not known."""
    found = connection.execute(
        "SELECT counted_bytes FROM sim_hour WHERE hour <= ? AND iccid = ? ORDER BY hour DESC LIMIT 1",
        (at_ms // 3_600_000, signed(iccid)),
    ).fetchone()
    return None if found is None else int(found[0])

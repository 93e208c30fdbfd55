"""What history answers. Every function takes a connection of ``schema.open_reader``."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from simswitch.core.roles import Read
from simswitch.history.schema import signed, unsigned

_DAY_MS, _HOUR_MS, _MINUTE_MS = 86_400_000, 3_600_000, 60_000


class Table(NamedTuple):
    """How a table is read."""

    read: Read
    """Who may; of ``Read.LOTS`` a supplier the rows of its own lots."""
    instant: str = ""
    """The column that says when. Empty: none does."""
    instant_ms: int = 1
    """Its unit."""


TABLES: Mapping[str, Table] = {
    "use_day": Table(Read.SUBSCRIBERS, "day", _DAY_MS),
    "use_month": Table(Read.SUBSCRIBERS),
    "use_sim": Table(Read.SUBSCRIBERS, "day", _DAY_MS),
    "use_market": Table(Read.POOL, "day", _DAY_MS),
    "use_hour": Table(Read.SIMS, "hour", _HOUR_MS),
    "swaps": Table(Read.SWAPS, "ordered_ms"),
    "given_up": Table(Read.SWAPS, "at_ms"),
    "jobs": Table(Read.SWAPS, "changed_ms"),
    "refusals": Table(Read.POOL, "minute", _MINUTE_MS),
    "affected": Table(Read.SUBSCRIBERS, "hour", _HOUR_MS),
    "waits": Table(Read.POOL, "minute", _MINUTE_MS),
    "slowed": Table(Read.POOL, "minute", _MINUTE_MS),
    "slowed_terminals": Table(Read.SUBSCRIBERS, "hour", _HOUR_MS),
    "lots": Table(Read.LOTS, "day", _DAY_MS),
    "leases": Table(Read.POOL, "hour", _HOUR_MS),
    "days": Table(Read.POOL, "day", _DAY_MS),
    "decisions": Table(Read.DECISIONS, "at_ms"),
    "observations": Table(Read.LOTS, "at_ms"),
    "throttles": Table(Read.LOTS, "at_ms"),
    "health": Table(Read.SIMS, "at_ms"),
    "trusted": Table(Read.SIMS, "at_ms"),
    "caps": Table(Read.LOTS, "at_ms"),
    "cap_shifts": Table(Read.LOTS, "at_ms"),
    "corrections": Table(Read.SIMS, "at_ms"),
    "pool_corrections": Table(Read.LOTS, "at_ms"),
    "pool_hour": Table(Read.LOTS, "hour", _HOUR_MS),
    "set_aside": Table(Read.SIMS, "at_ms"),
    "unreported": Table(Read.SIMS, "at_ms"),
    "limits": Table(Read.SUBSCRIBERS, "at_ms"),
    "limit_rules": Table(Read.PLACES),
    "exemptions": Table(Read.SUBSCRIBERS, "since_ms"),
    "entities": Table(Read.DECISIONS),
    "day_begins": Table(Read.POOL, "since_ms"),
    "gaps": Table(Read.POOL),
    "positions": Table(Read.POOL),
}
ENTITIES = frozenset({"lot", "market", "access_server", "subscriber_group", "rule", "actor"})
"""Columns with the index of an entity, where their values are numbers."""
UNSIGNED = frozenset({"subscriber", "terminal", "order", "source", "target", "iccid", "checksum"})
DURATIONS = frozenset({"wait_ms", "outage_ms", "begins_ms"})
"""Columns of milliseconds that are no instants. Of those, 0 is none, or before history began."""
_PERSONAL: Mapping[str, tuple[str, ...]] = {
    "use_day": ("day", "subscriber"),
    "use_month": ("month", "subscriber"),
    "use_sim": ("day", "iccid", "subscriber"),
    "use_hour": ("hour", "iccid"),
    "slowed_terminals": ("hour", "terminal"),
}
"""Tables whose key, or an index, begins with a span, and what stands behind it there."""


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


def each_span(table: str, span: str, first: int | None = None, behind: int | None = None) -> str:
    """The spans of a table whose key begins with them, as SQL: with ``day IN`` it one SIM or person is looked up day by
    day, and not by a walk over everybody's rows."""
    top = f"(SELECT max({span}) FROM {table})"
    low = f"(SELECT min({span}) FROM {table})"
    if behind is not None:
        top = f"min({top}, {behind - 1})"
    if first is not None:
        low = f"max({low}, {first})"
    return (
        f"(WITH RECURSIVE spans (at) AS (SELECT {top} UNION ALL SELECT at - 1 FROM spans WHERE at > {low}) "
        "SELECT at FROM spans)"
    )


def names(connection: sqlite3.Connection, columns: Sequence[str], found: Sequence[Sequence[Any]]) -> dict[int, str]:
    """Of the entities that these rows name."""
    places = [place for place, column in enumerate(columns) if column in ENTITIES]
    named = {row[place] for row in found for place in places if isinstance(row[place], int)}
    wanted = f"SELECT entity, name FROM entities WHERE entity IN ({', '.join(map(str, sorted(named)))})"
    return dict(connection.execute(wanted)) if named else {}


def positions(connection: sqlite3.Connection) -> dict[str, int]:
    """The last record that each reader of the journal has in history."""
    return dict(connection.execute("SELECT reader, sequence FROM positions ORDER BY reader"))


@dataclass(frozen=True, slots=True)
class Question:
    """Which rows of a table, in the order of its instants, where it has any, and its key."""

    table: str
    from_ms: int | None = None
    until_ms: int | None = None
    """Before which instant."""
    equal: Mapping[str, int] = field(default_factory=dict)
    """Values of columns."""
    lots: Sequence[int] | None = None
    """Only rows of these lots (entity indexes)."""
    hidden: frozenset[str] = frozenset()
    """Columns that are left out, and can't be asked for."""


class Page(NamedTuple):
    columns: list[str]
    rows: list[tuple[Any, ...]]
    after: list[Any] | None
    """Where the next page begins. None: this was the last."""


def page(connection: sqlite3.Connection, question: Question, size: int, after: Sequence[Any] | None = None) -> Page:
    """So many rows behind that place. ``ValueError``: there is no such table, it has no instant or no such column."""
    order, columns, where, values = _asked(connection, question)
    if after is not None:
        if len(after) != len(order):
            raise ValueError(f"a page of {question.table} begins behind {', '.join(order)}")
        where = [*where, f"({', '.join(order)}) > ({', '.join('?' * len(order))})"]
        values = [*values, *after]
    found = connection.execute(_select([*columns, *order], question, where, order), (*values, size + 1)).fetchall()
    rest = found[size - 1][len(columns) :] if len(found) > size else None
    names = [name.strip('"') for name in columns]
    return Page(names, [_unsigned(names, row) for row in found[:size]], None if rest is None else list(rest))


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

    ``ValueError`` as of ``page``.
    """
    question = Question(table, from_ms, until_ms, equal)
    order, columns, where, values = _asked(connection, question)
    names = [name.strip('"') for name in columns]
    for row in connection.execute(_select(columns, question, where, order), (*values, limit)):
        yield dict(zip(names, _unsigned(names, row), strict=True))


def _asked(connection: sqlite3.Connection, question: Question) -> tuple[list[str], list[str], list[str], list[Any]]:
    """The columns of its order, those that are shown, the conditions and their values."""
    table = TABLES.get(question.table)
    if table is None:
        raise ValueError(f"there is no table {question.table!r}; there are {', '.join(TABLES)}")
    known_columns = connection.execute(f"PRAGMA table_info({question.table})").fetchall()
    key = [f'"{row[1]}"' for row in sorted(known_columns, key=lambda row: int(row[5])) if row[5]] or ["rowid"]
    instant = f'"{table.instant}"'
    order = [instant, *key] if table.instant and instant not in key else key
    names = [row[1] for row in known_columns if row[1] not in question.hidden]
    where: list[str] = []
    values: list[Any] = []
    if not table.instant and (question.from_ms, question.until_ms) != (None, None):
        raise ValueError(f"{question.table} has no instants; ask for all of it")
    first, behind = _bounds(connection, question, table)
    span, *found_by = _PERSONAL.get(question.table, ("",))
    if question.equal.keys() & set(found_by):
        where.append(f"{span} IN {each_span(question.table, span, first, behind)}")
    where += [f"{instant} {sign} ?" for sign, bound in ((">=", first), ("<", behind)) if bound is not None]
    values += [bound for bound in (first, behind) if bound is not None]
    for name, value in question.equal.items():
        # SQLite would take a name that is no column for a text.
        if name not in names:
            raise ValueError(f"{question.table} has no column {name!r}")
        where.append(f'"{name}" = ?')
        values.append(signed(value))
    if question.lots is not None:
        where.append(f"lot IN ({', '.join(map(str, map(int, question.lots)))})")
    return order, [f'"{name}"' for name in names], where, values


def _bounds(connection: sqlite3.Connection, question: Question, table: Table) -> tuple[int | None, int | None]:
    """From which unit of the table's instants on, and before which. Days are local ones."""
    found: list[int | None] = []
    for bound in (question.from_ms, None if question.until_ms is None else question.until_ms - 1):
        if bound is None or table.instant_ms != _DAY_MS:
            found.append(None if bound is None else bound // table.instant_ms)
        else:
            found.append(day_of(bound, _day_begins_ms_at(connection, bound)))
    first, last = found
    return first, None if last is None else last + 1


def _day_begins_ms_at(connection: sqlite3.Connection, at_ms: int) -> int:
    """The setting at an instant; before history knew it, as it was first known."""
    found = connection.execute(
        "SELECT begins_ms FROM day_begins ORDER BY since_ms > ?, abs(since_ms - ?) LIMIT 1", (at_ms, at_ms)
    ).fetchone()
    return int(found[0]) if found else 0


def _select(columns: Sequence[str], question: Question, where: Sequence[str], order: Sequence[str]) -> str:
    conditions = f" WHERE {' AND '.join(where)}" if where else ""
    source = question.table
    if source == "use_sim" and "subscriber" in question.equal and "iccid" not in question.equal:
        # Left to itself SQLite follows the order of the key, and looks at everybody's rows of each day.
        source += " INDEXED BY use_sim_subscriber"
    return f"SELECT {', '.join(columns)} FROM {source}{conditions} ORDER BY {', '.join(order)} LIMIT ?"


def _unsigned(names: Sequence[str], row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(
        unsigned(value) if name in UNSIGNED and value is not None else value
        for name, value in zip(names, row, strict=False)
    )


def day_of(at_ms: int, day_begins_ms: int) -> int:
    """Days since 1970-01-01 of the local date. A day that begins after 12:00 UTC is that of a place east of it."""
    return (at_ms - begin_ms_of(0, day_begins_ms)) // _DAY_MS


def begin_ms_of(day: int, day_begins_ms: int) -> int:
    """When that local day began."""
    return day * _DAY_MS + (day_begins_ms if day_begins_ms < _DAY_MS // 2 else day_begins_ms - _DAY_MS)


def day_begins_ms(connection: sqlite3.Connection, day: int) -> int | None:
    """The setting as it was on a day. None: it is of before history knew it."""
    found = connection.execute(
        "SELECT begins_ms FROM day_begins WHERE since_ms <= ? ORDER BY since_ms DESC LIMIT 1", ((day + 1) * _DAY_MS,)
    ).fetchone()
    return None if found is None else int(found[0])


def day_totals(connection: sqlite3.Connection, day: int) -> tuple[int, int]:
    """Bytes that were used on a day, and by how many subscribers."""
    found = connection.execute("SELECT bytes, subscribers FROM days WHERE day = ?", (day,)).fetchone()
    if found is None:
        # The day is not over, or nobody followed when it ended.
        found = connection.execute(
            "SELECT coalesce(sum(bytes), 0), count(*) FROM use_day WHERE day = ?", (day,)
        ).fetchone()
    return int(found[0]), int(found[1])


class LotCounted(NamedTuple):
    """A lot when the follower last walked over its SIMs."""

    at_ms: int
    headroom_bytes: int
    unlimited_count: int
    used_cycle_bytes: int
    healthy_count: int
    probation_count: int
    low_count: int
    exhausted_count: int
    throttled_count: int
    quarantined_count: int
    retired_count: int
    others_count: int
    free_count: int
    assigned_count: int
    not_valid_count: int


def lots_counted(connection: sqlite3.Connection) -> dict[int, LotCounted]:
    """The newest figures of every lot, by its entity index."""
    found = connection.execute(
        "SELECT lot, at_ms, headroom_bytes, unlimited, used_cycle_bytes, healthy, probation, low, exhausted, "
        "throttled, quarantined, retired, others, free, assigned, not_valid FROM lots "
        "WHERE day = (SELECT max(day) FROM lots)"
    )
    return {lot: LotCounted(*figures) for lot, *figures in found}


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

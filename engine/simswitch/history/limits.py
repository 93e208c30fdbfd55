"""What published limits did to subscribers, in history: rows for the projector, answers for the service."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from simswitch.core import layout
from simswitch.core.commands import DEFINITION, CommandRun, OutcomeRun
from simswitch.history.reading import each_span
from simswitch.history.schema import signed

TAKEN_MAX = 200
DAYS_MAX = 62
MONTHS_MAX = 14
"""This month, and thirteen before it."""
_USED_MASK = (1 << 48) - 1
_RULE_MASK = (1 << 14) - 1
_OF_DAY = 62

Statement = tuple[str, tuple[Any, ...]]


def begun(entities: list[dict[str, Any]], exemptions: list[dict[str, Any]], now_ms: int) -> Iterator[Statement]:
    """What holds when history begins, or goes on behind a gap, as far as it doesn't know it: rules, exemptions.

    A rule that it knows otherwise was defined anew in the gap: from now on it holds for sure.
    """
    columns = (
        *("name", "subscriber_group", "month_bytes", "day_bytes", "warn_permille", "action", "slow_kbps"),
        *("published_day", "withdrawn", "document"),
    )
    known = (
        "SELECT 1 FROM limit_rules WHERE rule = ? "
        "AND since_ms = (SELECT max(since_ms) FROM limit_rules WHERE rule = ?) "
        f"AND {' AND '.join(f'{name} = ?' for name in columns)}"
    )
    for entity in entities:
        if entity["kind"] == layout.LIMIT_RULE:
            rule = entity["index"]
            values = (entity["name"], *_numbers(entity["numbers"]), bytes(entity["document"]))
            yield (
                "INSERT OR REPLACE INTO limit_rules SELECT ?, CASE WHEN "
                "EXISTS (SELECT 1 FROM limit_rules WHERE rule = ?) "
                f"THEN ? ELSE 0 END, {', '.join('?' * len(values))} WHERE NOT EXISTS ({known})",
                (rule, rule, now_ms, *values, rule, rule, *values),
            )
    for exemption in exemptions:
        if exemption["holds"]:
            subscriber, since_ms = signed(exemption["subscriber"]), exemption["since_ms"]
            yield (
                "INSERT OR IGNORE INTO exemptions VALUES (?, ?, ?, ?, ?, NULL, NULL)",
                (subscriber, since_ms, exemption["until_ms"], exemption["reason"], exemption["actor_name"]),
            )


def defined(run: CommandRun, outcome: OutcomeRun, now_ms: int) -> Iterator[Statement]:
    """Of a run of DEFINE: the rules in it, each as it holds from now on."""
    columns = zip(run["definition"].tolist(), outcome["index"].tolist(), outcome["status"].tolist(), strict=True)
    for data, index, status in columns:
        record = np.frombuffer(bytes(data).ljust(DEFINITION.itemsize, b"\0"), DEFINITION)[0]
        if record["kind"] == layout.LIMIT_RULE and status == layout.OK:
            document = record["document"][: int(record["document_size"])].tobytes()
            name = bytes(record["name"]).decode(errors="replace")
            values = (index, now_ms, name, *_numbers(record["numbers"].tolist()), document)
            yield f"INSERT OR REPLACE INTO limit_rules VALUES ({', '.join('?' * len(values))})", values


def _numbers(numbers: list[int]) -> list[int]:
    return [
        numbers[place]
        for place in (
            layout.RULE_GROUP,
            layout.RULE_MONTH_BYTES,
            layout.RULE_DAY_BYTES,
            layout.RULE_WARN_PERMILLE,
            layout.RULE_ACTION,
            layout.RULE_SLOW_KBPS,
            layout.RULE_PUBLISHED_DAY,
            layout.RULE_WITHDRAWN,
        )
    ]


def limit_row(event: int, at_ms: int, subscriber: int, step: int, a: int, limit: int, terminal: int) -> Statement:
    """Of an event LIMIT."""
    rule = a >> 48 & _RULE_MASK
    values = (event, at_ms, signed(subscriber), step, a >> _OF_DAY & 1, a & _USED_MASK, limit, rule, signed(terminal))
    return "INSERT OR REPLACE INTO limits VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values


def exempted(run: CommandRun, outcome: OutcomeRun, now_ms: int, actor: str) -> Iterator[Statement]:
    """Of a run of EXEMPT: each begins, or has another end or reason (which begins a new one), or ends."""
    columns = zip(
        run["subscriber"].tolist(),
        run["until_ms"].tolist(),
        run["reason"].tolist(),
        outcome["status"].tolist(),
        strict=True,
    )
    for subscriber, until_ms, reason, status in columns:
        if status != layout.OK:
            continue
        ended = (now_ms, actor, signed(subscriber), now_ms)
        holding = "WHERE subscriber = ? AND ended_ms IS NULL AND until_ms > ?"
        yield f"UPDATE exemptions SET ended_ms = ?, ended_by = ? {holding}", ended
        if until_ms:
            values = (signed(subscriber), now_ms, until_ms, reason.decode(errors="replace"), actor)
            yield "INSERT OR REPLACE INTO exemptions VALUES (?, ?, ?, ?, ?, NULL, NULL)", values


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that a limit took."""

    at_ms: int
    step: int
    of_day: bool
    used_bytes: int
    limit_bytes: int
    name: str | None
    """Of the rule. None: a version told of it that did not name the one it was lifted from."""
    document: bytes


@dataclass(frozen=True, slots=True)
class Exemption:
    since_ms: int
    until_ms: int
    reason: str
    actor: str
    ended_ms: int | None
    """When somebody ended it before its end."""


@dataclass(frozen=True, slots=True)
class Person:
    """What history has of a subscriber; each list begins with the newest."""

    at_ms: int
    """How far history is."""
    taken: list[Taken]
    exemptions: list[Exemption]
    months: list[tuple[int, int]]
    """Month since 1970-01 and bytes."""
    days: list[tuple[int, int]]


def person(connection: sqlite3.Connection, subscriber: int) -> Person:
    key = signed(subscriber)
    row = connection.execute("SELECT at_ms FROM positions WHERE reader = 'history'").fetchone()
    taken = connection.execute(
        "SELECT at_ms, step, of_day, used_bytes, limit_bytes, name, coalesce(document, x'') FROM limits "
        "LEFT JOIN limit_rules ON limit_rules.rule = limits.rule AND since_ms = (SELECT max(since_ms) FROM limit_rules "
        "AS held WHERE held.rule = limits.rule AND held.since_ms <= limits.at_ms) "
        "WHERE subscriber = ? ORDER BY at_ms DESC, event DESC LIMIT ?",
        (key, TAKEN_MAX),
    )
    exemptions = connection.execute(
        "SELECT since_ms, until_ms, reason, actor, ended_ms FROM exemptions WHERE subscriber = ? "
        "ORDER BY since_ms DESC LIMIT ?",
        (key, TAKEN_MAX),
    )
    months, days = (
        connection.execute(
            f"SELECT {span}, bytes FROM {table} WHERE {span} IN {each_span(table, span)} AND subscriber = ? "
            f"AND {span} > (SELECT max({span}) FROM {table}) - ? ORDER BY {span} DESC",
            (key, most),
        )
        for table, span, most in (("use_month", "month", MONTHS_MAX), ("use_day", "day", DAYS_MAX))
    )
    return Person(
        row[0] if row else 0,
        [
            Taken(at, step, bool(of_day), used, limit, name, document)
            for at, step, of_day, used, limit, name, document in taken
        ],
        [Exemption(*values) for values in exemptions],
        months.fetchall(),
        days.fetchall(),
    )

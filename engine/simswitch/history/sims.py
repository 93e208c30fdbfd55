"""What history has of one SIM: who used it, what was seen and said of it, and the swaps to it and off it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, NamedTuple

from simswitch.history.reading import each_span
from simswitch.history.schema import signed, unsigned

ROWS_MAX = 200
"""Of each list."""


class Use(NamedTuple):
    """Of one day, terminal and subscriber."""

    day: int
    terminal: int
    subscriber: int
    counted_bytes: int
    first_ms: int
    last_ms: int


class Swap(NamedTuple):
    order: int
    ordered_ms: int
    away: bool
    other: int | None
    """The other SIM's ICCID, encoded. None: not known."""
    terminal: int
    subscriber: int
    access_server: int
    priority: int
    job: int | None
    result: int
    """As in the table ``swaps``."""
    confirmed_ms: int | None
    outage_ms: int | None


@dataclass(frozen=True, slots=True)
class Past:
    """Each list begins with the newest."""

    at_ms: int
    """How far history is."""
    uses: list[Use]
    throttles: list[tuple[int, ...]]
    """at_ms, throttled, goodput_kbps, windows, demand_s, confidence_permille."""
    healths: list[tuple[Any, ...]]
    """at_ms, health, actor's name or None, goodput_kbps, windows, confidence_permille, reason."""
    trusts: list[tuple[int, ...]]
    """at_ms, terminal, goodput_kbps."""
    swaps: list[Swap]
    corrections: list[tuple[Any, ...]]
    """window, as_of_ms, at_ms, carrier_bytes, our_bytes, correction_bytes, actor, straddling_bytes."""
    set_aside: list[tuple[Any, ...]]
    """Of its carrier's figures: at_ms, window, as_of_ms, bytes, status, actor."""
    used_since_ms: int
    """The first report of the terminal that reported last, since another one did. 0: none reported."""


def past(connection: sqlite3.Connection, iccid: int) -> Past:
    key = signed(iccid)
    row = connection.execute("SELECT at_ms FROM positions WHERE reader = 'history'").fetchone()
    uses = connection.execute(
        "SELECT day, terminal, subscriber, bytes, first_ms, last_ms FROM use_sim "
        f"WHERE day IN {each_span('use_sim', 'day')} AND iccid = ? ORDER BY day DESC, last_ms DESC LIMIT ?",
        (key, ROWS_MAX),
    )
    throttles = connection.execute(
        "SELECT at_ms, throttled, goodput_kbps, windows, demand_s, confidence_permille FROM throttles WHERE iccid = ? "
        "ORDER BY at_ms DESC LIMIT ?",
        (key, ROWS_MAX),
    )
    healths = connection.execute(
        "SELECT at_ms, health, name, goodput_kbps, windows, confidence_permille, reason FROM health "
        "LEFT JOIN entities ON entity = actor AND actor > 0 WHERE iccid = ? ORDER BY at_ms DESC LIMIT ?",
        (key, ROWS_MAX),
    )
    trusts = connection.execute(
        "SELECT at_ms, terminal, goodput_kbps FROM trusted WHERE iccid = ? ORDER BY at_ms DESC LIMIT ?", (key, ROWS_MAX)
    )
    corrections = connection.execute(
        "SELECT window, as_of_ms, at_ms, carrier_bytes, our_bytes, correction_bytes, actor, straddling_bytes "
        "FROM corrections "
        "WHERE iccid = ? ORDER BY at_ms DESC LIMIT ?",
        (key, ROWS_MAX),
    )
    set_aside = connection.execute(
        "SELECT at_ms, window, as_of_ms, bytes, status, actor FROM set_aside INDEXED BY set_aside_figures "
        "WHERE iccid = ? AND window IS NOT NULL ORDER BY at_ms DESC LIMIT ?",
        (key, ROWS_MAX),
    )
    found = [
        Use(day, unsigned(terminal), unsigned(subscriber), *figures) for day, terminal, subscriber, *figures in uses
    ]
    return Past(
        row[0] if row else 0,
        found,
        throttles.fetchall(),
        healths.fetchall(),
        [(at_ms, unsigned(terminal), kbps) for at_ms, terminal, kbps in trusts],
        _swaps(connection, key),
        corrections.fetchall(),
        set_aside.fetchall(),
        _used_since_ms(found),
    )


def _swaps(connection: sqlite3.Connection, key: int) -> list[Swap]:
    found = []
    for away, this, other in ((False, "target", "source"), (True, "source", "target")):
        rows = connection.execute(
            f'SELECT "order", ordered_ms, {other}, terminal, subscriber, access_server, priority, job, result, '
            f"confirmed_ms, outage_ms FROM swaps WHERE {this} = ? ORDER BY ordered_ms DESC LIMIT ?",
            (key, ROWS_MAX),
        )
        found += [
            Swap(
                unsigned(order),
                at_ms,
                away,
                None if iccid is None else unsigned(iccid),
                unsigned(terminal),
                unsigned(subscriber),
                *rest,
            )
            for order, at_ms, iccid, terminal, subscriber, *rest in rows
        ]
    return sorted(found, key=lambda swap: swap.ordered_ms, reverse=True)[:ROWS_MAX]


def _used_since_ms(uses: list[Use]) -> int:
    since_ms = 0
    for use in uses:
        if use.terminal != uses[0].terminal:
            break
        since_ms = use.first_ms
    return since_ms

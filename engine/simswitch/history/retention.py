"""How long history is kept: what is of people and of single SIMs goes after so many months. Who decided what, which
rules held, lots, caps and gaps stay.

Rows go with the commits of the projector, at most so many of a table in one, so that a commit stays short when a month
is over. The pages that become free are used again: the file stays as large as it was at most.
"""

from __future__ import annotations

import sqlite3

import numpy as np

MONTHS = 13
ROWS_MAX = 20_000
"""Of a table in one commit."""
HOUR_S = 3_600
HOURS = 96
"""For how many hours counts of SIMs and pools are kept by the hour; carriers' figures come up to two days late."""
_DAY_MS = 86_400_000

FORGOTTEN = (
    # Table, primary key, the column that says when, and how many of its units a day has (0: it counts months).
    ("use_day", "day, subscriber", "day", 1),
    ("use_sim", "day, iccid, terminal, subscriber", "day", 1),
    ("use_month", "month, subscriber", "month", 0),
    ("swaps", '"order"', "ordered_ms", _DAY_MS),
    ("given_up", '"order"', "at_ms", _DAY_MS),
    ("refusals", "minute, access_server, market, status", "minute", 1_440),
    ("affected", "hour, access_server, market, status, terminal", "hour", 24),
    ("slowed_terminals", "hour, terminal", "hour", 24),
    ("limits", "event", "at_ms", _DAY_MS),
    ("throttles", "iccid, at_ms", "at_ms", _DAY_MS),
    ("health", "iccid, at_ms", "at_ms", _DAY_MS),
    ("trusted", "iccid, at_ms", "at_ms", _DAY_MS),
    ("corrections", "iccid, window, as_of_ms, at_ms", "at_ms", _DAY_MS),
    ("set_aside", "rowid", "at_ms", _DAY_MS),
    ("unreported", "event", "at_ms", _DAY_MS),
    ("exemptions", "subscriber, since_ms", "until_ms", _DAY_MS),
)


def forget(connection: sqlite3.Connection, today: int, months: int) -> bool:
    """Keeps the month of that local day and so many before it (0: all); whether rows are left to go the next time."""
    if not months:
        return False
    month = np.datetime64(today, "D").astype("datetime64[M]") - months
    day = int(month.astype("datetime64[D]").astype(np.int64))
    more = False
    for table, key, column, a_day in FORGOTTEN:
        before = day * a_day if a_day else int(month.astype(np.int64))
        more = _forget(connection, table, key, column, before) or more
    return more


def forget_hours(connection: sqlite3.Connection, hour: int, written: int) -> None:
    """What is by the hour goes as it comes, with each commit, and twice as fast: so never more than HOURS are kept, and
    no commit has much to do with what is old."""
    _forget(connection, "use_hour", "hour, iccid", "hour", hour - HOURS, max(ROWS_MAX, 2 * written))
    _forget(connection, "pool_hour", "hour, lot", "hour", hour - HOURS)


def _forget(
    connection: sqlite3.Connection, table: str, key: str, column: str, before: int, rows_max: int = ROWS_MAX
) -> bool:
    gone = connection.execute(
        f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {column} < ? LIMIT {rows_max})",
        (before,),
    )
    return gone.rowcount == rows_max

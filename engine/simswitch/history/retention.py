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
SLOT_S = 300
SLOTS_DAYS = 4
"""For how many days before today counts are kept by SLOT_S; carriers' figures come up to two days late."""
_DAY_MS = 86_400_000

FORGOTTEN = (
    # Table, primary key, the column that says when, and how many of its units a day has (0: it counts months).
    ("use_day", "day, subscriber", "day", 1),
    ("use_sim", "day, iccid, terminal, subscriber", "day", 1),
    ("use_month", "month, subscriber", "month", 0),
    ("sim_hour", "hour, iccid", "hour", 24),
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
    more = _forget(connection, "sim_slot", "slot, iccid", "slot", (today - SLOTS_DAYS) * 86_400 // SLOT_S)
    if not months:
        return more
    month = np.datetime64(today, "D").astype("datetime64[M]") - months
    day = int(month.astype("datetime64[D]").astype(np.int64))
    for table, key, column, a_day in FORGOTTEN:
        before = day * a_day if a_day else int(month.astype(np.int64))
        more = _forget(connection, table, key, column, before) or more
    return more


def _forget(connection: sqlite3.Connection, table: str, key: str, column: str, before: int) -> bool:
    gone = connection.execute(
        f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {column} < ? LIMIT {ROWS_MAX})",
        (before,),
    )
    return gone.rowcount == ROWS_MAX

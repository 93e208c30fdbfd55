"""The hash chain over the decisions in history: whoever knows one hash can tell whether any decision up to it was
changed, left out or put in.

    hash of a row = SHA-256 of the JSON, in ASCII, of [hash of the row before, columns from ``event`` to ``digest``]

The first row has the number 1 and follows 64 zeros; numbers go up by one, and no decision is ever removed. The hash is
written in the transaction that writes the row, so each decision is chained exactly once, whatever is killed when.
The table refuses to change a row that has its hash, or to remove one (its triggers): that is against slips. Against
whoever may write the file a hash that was noted elsewhere helps, as with the chained files (``chain``); and each row's
``digest`` is that of the commands in the journal, as long as the record is there (``folder.audit``).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from simswitch.audit.chain import FIRST, ChainDamaged
from simswitch.audit.verify import DECISIONS, Walked

ROWS_MAX = 20_000
"""That get their hash in one transaction."""
_COLUMNS = "event, at_ms, sequence, run, actor, kind, subject, items, statuses, detail, digest"


def hash_of(previous: str, row: tuple[Any, ...]) -> str:
    """Of a row's columns from ``event`` to ``digest``, after the row whose hash is given."""
    plain = [value.hex() if isinstance(value, bytes) else value for value in row]
    return hashlib.sha256(json.dumps([previous, *plain], separators=(",", ":")).encode("ascii")).hexdigest()


def chain(connection: sqlite3.Connection) -> int:
    """In a transaction of the writer: gives hashes to the next rows that have none. How many they were."""
    last = connection.execute(
        "SELECT event, hash FROM decisions WHERE hash IS NOT NULL ORDER BY event DESC LIMIT 1"
    ).fetchone()
    event, previous = (last[0], last[1].hex()) if last else (0, FIRST)
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM decisions WHERE event > ? ORDER BY event LIMIT {ROWS_MAX}", (event,)
    ).fetchall()
    for row in rows:
        previous = hash_of(previous, row)
        connection.execute("UPDATE decisions SET hash = ? WHERE event = ?", (bytes.fromhex(previous), row[0]))
    return len(rows)


def walk(connection: sqlite3.Connection, wanted: Mapping[int, str]) -> Walked | None:
    """Every decision; None: there is none yet. ``wanted``: hashes that were noted. Raises ``ChainDamaged``."""
    missing = dict(wanted)
    number, previous = 0, FIRST
    for *columns, stored in connection.execute(f"SELECT {_COLUMNS}, hash FROM decisions ORDER BY event"):
        row = tuple(columns)
        where = f"{DECISIONS}, decision {row[0]}"
        if row[0] != number + 1:
            raise ChainDamaged(f"{where} follows decision {number}: something was left out or put in")
        if stored is None or stored.hex() != hash_of(previous, row):
            raise ChainDamaged(f"{where} is not what its hash says: it was changed after it was written")
        number, previous = row[0], stored.hex()
        if missing.pop(number, previous) != previous:
            raise ChainDamaged(f"{where} is not the one that was noted: it was made anew")
    if missing:
        raise ChainDamaged(f"{DECISIONS}: decision {min(missing)} was noted and is not there: the end was cut off")
    return Walked(DECISIONS, 1, number, previous) if number else None

"""SQLite: in the client's own process, as it is a library; one writer: a second would only wait for the first.

There is no network in its figures: what serves it to clients on the wire would cost more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np

from benches.peers.client import Driven, batches
from benches.peers.contest import U64, UNHEALTHY_EVERY, Contender, Pairs, Plan

# What is set on every connection; synchronous 2 is FULL. Checkpoints are made between the rounds, not in them.
PRAGMAS = {
    "journal_mode": "wal",
    "synchronous": 2,
    "wal_autocheckpoint": 0,
    "cache_size": -262_144,
    "mmap_size": 1 << 30,
}
SCHEMA = """
CREATE TABLE sim (id INTEGER PRIMARY KEY, class INTEGER NOT NULL, health INTEGER NOT NULL, terminal INTEGER);
CREATE INDEX sim_free ON sim (class) WHERE terminal IS NULL AND health = 0;
CREATE UNIQUE INDEX sim_terminal ON sim (terminal) WHERE terminal IS NOT NULL;
"""
FREE = "SELECT id FROM sim WHERE class = 0 AND terminal IS NULL AND health = 0 LIMIT"
ALLOCATE_ONE = f"UPDATE sim SET terminal = ? WHERE id = ({FREE} 1) RETURNING id"
FREE_MANY = f"{FREE} ?"
ALLOCATE = "UPDATE sim SET terminal = ? WHERE id = ?"
RELEASE = "UPDATE sim SET terminal = NULL WHERE terminal = ?"
HELD = "SELECT terminal, id FROM sim WHERE terminal IS NOT NULL"


def connect(path: str) -> sqlite3.Connection:
    """With the settings that are measured; raises when SQLite does not take one."""
    connection = sqlite3.connect(path, isolation_level=None)
    for name, value in PRAGMAS.items():
        connection.execute(f"PRAGMA {name} = {value}")
        (stated,) = connection.execute(f"PRAGMA {name}").fetchone()
        if stated != value:
            raise RuntimeError(f"SQLite runs with {name} {stated}, not {value}")
    return connection


@contextmanager
def contenders(folder: Path, plan: Plan) -> Iterator[list[Contender]]:
    """A filled database, and what runs on it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = str(folder / "sqlite.db")
    with ExitStack() as stack:
        connection = stack.enter_context(closing(connect(path)))
        connection.executescript(SCHEMA)
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO sim VALUES (?, 0, ?, NULL)",
            ((sim, int(sim % UNHEALTHY_EVERY == 0)) for sim in range(1, plan.pool + 1)),
        )
        connection.execute("COMMIT")
        connection.execute("ANALYZE")

        def books() -> Pairs:
            found = np.array(connection.execute(HELD).fetchall(), np.uint64).reshape(-1, 2)
            return Pairs(found[:, 0], found[:, 1])

        def checkpoint() -> None:
            connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

        checkpoint()
        yield [
            stack.enter_context(
                Driven(
                    name,
                    batch_items,
                    folder,
                    {"path": path},
                    processes=1,
                    client="Python, in its process, no network",
                    durability="log synced at each commit",
                    settings=f"SQLite {sqlite3.sqlite_version}, WAL, synchronous FULL, checkpoint between rounds",
                    books=books,
                    tidy=checkpoint,
                )
            )
            for name, batch_items in (("sqlite.bulk_1000", 1000), ("sqlite.one", 1))
        ]


class Connections:
    """The one writer."""

    def __init__(self, path: str, number: int, batch_items: int, in_flight: int) -> None:
        assert in_flight == 1
        self._connection = connect(path)
        self._number = number
        self._batch_items = batch_items
        self._releasing = False
        self._asked: list[list[int]] = []

    def allocations(self, terminals: U64) -> list[list[int]]:
        self._releasing = False
        self._asked = [batch.tolist() for batch in batches(terminals, self._batch_items)]
        return self._asked

    def releases(self, terminals: U64) -> list[list[int]]:
        self._releasing = True
        return [batch.tolist() for batch in batches(terminals, self._batch_items)]

    def exchange(self, requests: list[list[int]]) -> list[list[int]]:
        if self._batch_items == 1:
            one = self._release_one if self._releasing else self._allocate_one
            return [one(terminal) for (terminal,) in requests]
        return [self._release(batch) if self._releasing else self._allocate(batch) for batch in requests]

    def granted(self, answers: list[list[int]]) -> Pairs:
        terminals = [
            terminal for batch, sims in zip(self._asked, answers, strict=True) for terminal in batch[: len(sims)]
        ]
        sims = [sim for answer in answers for sim in answer]
        return Pairs(np.array(terminals, np.uint64), np.array(sims, np.uint64))

    def released(self, answers: list[list[int]]) -> int:
        return sum(count for (count,) in answers)

    def _allocate_one(self, terminal: int) -> list[int]:
        # The statement is complete, and so committed, when its rows have been read to the end.
        return [sim for (sim,) in self._connection.execute(ALLOCATE_ONE, (terminal,)).fetchall()]

    def _release_one(self, terminal: int) -> list[int]:
        return [self._connection.execute(RELEASE, (terminal,)).rowcount]

    def _allocate(self, terminals: list[int]) -> list[int]:
        self._connection.execute("BEGIN IMMEDIATE")
        sims = [sim for (sim,) in self._connection.execute(FREE_MANY, (len(terminals),))]
        self._connection.executemany(ALLOCATE, zip(terminals, sims, strict=False))
        self._connection.execute("COMMIT")
        return sims

    def _release(self, terminals: list[int]) -> list[int]:
        self._connection.execute("BEGIN IMMEDIATE")
        count = self._connection.executemany(RELEASE, ((terminal,) for terminal in terminals)).rowcount
        self._connection.execute("COMMIT")
        return [count]

"""PostgreSQL: one table of SIMs, a partial index over the free healthy ones, ``FOR UPDATE SKIP LOCKED``.

Every request looks from a random place of the index on. If all began at its front, 64 clients would skip each other's
locks and the entries that died since the last vacuum: that was 4 to 6 times slower. The unique index makes sure that a
terminal has one SIM. Freed rows go to the same page (fillfactor), and a vacuum runs between the rounds.

One by one is driven by pgbench, PostgreSQL's own client in C; 200 at a time from Python, which then hardly matters.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benches.peers import servers
from benches.peers.client import Driven, batches
from benches.peers.contest import IN_FLIGHT, PROCESSES, U64, UNHEALTHY_EVERY, Contender, NotTheJob, Pairs, Plan
from benches.peers.install import postgresql_programs

# Durable (fsync, synchronous_commit, full_page_writes are the defaults, and checked), and no checkpoint in a round.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_sync_method": "fdatasync",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "min_wal_size": "2GB",
    "checkpoint_timeout": "1h",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}
SCHEMA = f"""
CREATE TABLE sim (id bigint NOT NULL, class smallint NOT NULL, health smallint NOT NULL, terminal bigint)
    WITH (fillfactor = 70);
INSERT INTO sim SELECT id, 0, (id %% {UNHEALTHY_EVERY} = 0)::int, NULL FROM generate_series(1, %s) AS id;
ALTER TABLE sim ADD PRIMARY KEY (id);
CREATE INDEX sim_free ON sim (class, id) WHERE terminal IS NULL AND health = 0;
CREATE UNIQUE INDEX sim_terminal ON sim (terminal) WHERE terminal IS NOT NULL;
"""
FREE = "SELECT id FROM sim WHERE class = 0 AND terminal IS NULL AND health = 0"
# Where nothing is free up to the end of the index, from its front.
ALLOCATE_ONE = f"""
UPDATE sim SET terminal = :terminal WHERE id = coalesce(
    ({FREE} AND id >= :start ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED),
    ({FREE} ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED))
RETURNING id;
"""
RELEASE_ONE = "UPDATE sim SET terminal = NULL WHERE terminal = :terminal RETURNING id;"
ALLOCATE_MANY = f"""
WITH pick AS MATERIALIZED (
    SELECT id, row_number() OVER () AS place
    FROM ({FREE} AND id >= %s ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED) AS locked
), wanted AS MATERIALIZED (
    SELECT terminal, place FROM unnest(%s::bigint[]) WITH ORDINALITY AS asked (terminal, place)
)
UPDATE sim SET terminal = wanted.terminal FROM pick JOIN wanted USING (place)
WHERE sim.id = pick.id RETURNING sim.terminal, sim.id
"""
RELEASE_MANY = "UPDATE sim SET terminal = NULL WHERE terminal = ANY (%s::bigint[])"
HELD = "SELECT terminal, id FROM sim WHERE terminal IS NOT NULL"


@contextmanager
def database(folder: Path) -> Iterator[tuple[Any, str]]:
    """A PostgreSQL of its own: a connection to it and how to reach it."""
    import psycopg

    programs = postgresql_programs()
    assert programs is not None
    owned = servers.own_folder(folder / "postgresql")
    data = owned / "data"
    made = subprocess.run(
        servers.unprivileged(
            str(programs / "initdb"),
            "--pgdata",
            str(data),
            "--username=bench",
            "--auth=trust",
            "--no-locale",
            "--encoding=UTF8",
        ),
        cwd=owned,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise servers.NotStarted(f"initdb failed: {made.stderr.strip()}")
    port = servers.free_port()
    words = [str(programs / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", ""]
    for name, value in SETTINGS.items():
        words += ["-c", f"{name}={value}"]
    target = f"host=127.0.0.1 port={port} user=bench dbname=postgres"
    connection: Any = None

    def answers() -> bool:
        nonlocal connection
        try:
            connection = psycopg.connect(target, autocommit=True)
        except psycopg.OperationalError:
            return False
        return True

    with servers.running(words, owned, answers):
        try:
            stated = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in SETTINGS}
            if stated != SETTINGS:
                raise servers.NotStarted(f"PostgreSQL runs with {stated}, not with {SETTINGS}")
            yield connection, target
        finally:
            connection.close()


def fill(connection: Any, pool: int) -> None:
    """The table and its indexes, as a vacuum leaves them."""
    for statement in (SCHEMA % pool).split(";"):
        if statement.strip():
            connection.execute(statement)
    tidy(connection)


def tidy(connection: Any) -> None:
    """Dead rows cleared, and a checkpoint, so that none comes in a round."""
    connection.execute("VACUUM ANALYZE sim")
    connection.execute("CHECKPOINT")


@contextmanager
def contenders(folder: Path, plan: Plan) -> Iterator[list[Contender]]:
    """A filled database, and what runs on it."""
    with ExitStack() as stack:
        connection, target = stack.enter_context(database(folder))
        fill(connection, plan.pool)
        (version,) = connection.execute("SHOW server_version").fetchone()
        durability = "WAL fdatasynced before the answer"
        settings = (
            f"PostgreSQL {version.split()[0]}, TCP, prepared, synchronous_commit on, shared_buffers 1 GB, "
            "vacuum and checkpoint between rounds"
        )

        def books() -> Pairs:
            found = np.array(connection.execute(HELD, binary=True).fetchall(), np.uint64).reshape(-1, 2)
            return Pairs(found[:, 0], found[:, 1])

        many = Driven(
            "postgresql.skip_locked_200",
            200,
            folder,
            {"target": target, "pool": plan.pool},
            client="Python, psycopg, a thread and connection each",
            durability=durability,
            settings=settings,
            books=books,
            tidy=lambda: tidy(connection),
        )
        yield [stack.enter_context(many), Pgbench(folder, target, plan.pool, connection, books, durability, settings)]


class Pgbench:
    """One by one. Clients don't look at what they are told, so the books alone are checked."""

    name = "postgresql.skip_locked_1"
    batch_items = 1
    in_flight = IN_FLIGHT[1]
    client = "pgbench (C), a connection each"

    def __init__(
        self, folder: Path, target: str, pool: int, connection: Any, books: Any, durability: str, settings: str
    ) -> None:
        self.durability = durability
        self.settings = settings
        self.books = books
        self._folder = folder
        self._target = target
        self._pool = pool
        self._connection = connection

    def allocate(self, terminals: U64) -> float:
        return self._run(terminals, f"\\set start random(1, {self._pool})\n{ALLOCATE_ONE}")

    def release(self, terminals: U64) -> float:
        return self._run(terminals, RELEASE_ONE)

    def answers(self) -> None:
        return None

    def tidy(self) -> None:
        tidy(self._connection)

    def _run(self, terminals: U64, statement: str) -> float:
        """Each client takes its share of the terminals, which pgbench brings into an order as random as the others'."""
        programs = postgresql_programs()
        assert programs is not None
        count = len(terminals)
        each, left = divmod(count, self.in_flight)
        if left:
            raise ValueError(f"{count} terminals are not a multiple of {self.in_flight} clients")
        script = self._folder / "pgbench.sql"
        script.write_text(
            "\\set number :number + 1\n"
            f"\\set terminal permute(:client_id * {each} + :number, {count}, {int(terminals[0])}) + 1\n{statement}\n"
        )
        done = subprocess.run(
            [
                *(str(programs / "pgbench"), "--no-vacuum", "--protocol=prepared", f"--file={script}"),
                *(f"--client={self.in_flight}", f"--jobs={PROCESSES}", f"--transactions={each}"),
                *("--define=number=-1", self._target),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        rate = re.search(r"^tps = ([0-9.]+) \(without initial connection time\)", done.stdout, re.MULTILINE)
        if done.returncode != 0 or rate is None or f"processed: {count}/{count}" not in done.stdout:
            raise NotTheJob(f"{self.name}: pgbench failed: {done.stderr.strip() or done.stdout.strip()}")
        return count / float(rate[1])


class Connections:
    """A thread and a connection for each request under way."""

    def __init__(self, target: str, pool: int, number: int, batch_items: int, in_flight: int) -> None:
        import psycopg

        self._pool = pool
        self._batch_items = batch_items
        self._random = Random(number)
        self._connections = [psycopg.connect(target, autocommit=True) for _ in range(in_flight)]
        self._threads = ThreadPoolExecutor(in_flight)
        self._releasing = False

    def allocations(self, terminals: U64) -> list[list[int]]:
        self._releasing = False
        return [batch.tolist() for batch in batches(terminals, self._batch_items)]

    def releases(self, terminals: U64) -> list[list[int]]:
        self._releasing = True
        return [batch.tolist() for batch in batches(terminals, self._batch_items)]

    def exchange(self, requests: list[list[int]]) -> list[Any]:
        waiting = iter(requests)
        one = self._release if self._releasing else self._allocate

        def worker(connection: Any) -> list[Any]:
            return [one(connection, batch) for batch in waiting]

        return [answer for part in self._threads.map(worker, self._connections) for answer in part]

    def granted(self, answers: list[list[tuple[int, int]]]) -> Pairs:
        found = np.array([pair for answer in answers for pair in answer], np.uint64).reshape(-1, 2)
        return Pairs(found[:, 0], found[:, 1])

    def released(self, answers: list[int]) -> int:
        return sum(answers)

    def _allocate(self, connection: Any, terminals: list[int]) -> list[tuple[int, int]]:
        start = self._random.randrange(self._pool)
        parameters = (start, len(terminals), terminals)
        found: list[tuple[int, int]] = connection.execute(
            ALLOCATE_MANY, parameters, prepare=True, binary=True
        ).fetchall()
        if len(found) < len(terminals) and start:
            # The end of the index: the rest from its front.
            had = {terminal for terminal, _ in found}
            rest = [terminal for terminal in terminals if terminal not in had]
            found += connection.execute(ALLOCATE_MANY, (0, len(rest), rest), prepare=True, binary=True).fetchall()
        return found

    @staticmethod
    def _release(connection: Any, terminals: list[int]) -> int:
        count: int = connection.execute(RELEASE_MANY, (terminals,), prepare=True).rowcount
        return count

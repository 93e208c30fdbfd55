"""100,000 terminals moved to other SIMs in the books: one statement in PostgreSQL, and the core's whole job for it.

The core's time is that of selecting, ordering and confirming every switch; PostgreSQL's that of one durable statement.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benches import core
from benches.peers import postgresql
from benches.peers.contest import NotTheJob, Progress
from benches.report import Result

NAME = "peers.postgresql.swap"
ROUNDS = 3

# Every terminal gets a free SIM; the source goes free in the same statement. Its row is read before the target's is
# written, so the unique index on the terminal never meets both.
MOVE = """
WITH source AS MATERIALIZED (
    SELECT id, terminal, row_number() OVER () AS place FROM sim WHERE terminal IS NOT NULL
), target AS MATERIALIZED (
    SELECT id, row_number() OVER () AS place
    FROM (SELECT id FROM sim WHERE class = 0 AND terminal IS NULL AND health = 0 LIMIT %(count)s FOR UPDATE) AS locked
), freed AS (
    UPDATE sim SET terminal = NULL FROM source WHERE sim.id = source.id RETURNING source.terminal, source.place
)
UPDATE sim SET terminal = freed.terminal FROM freed JOIN target USING (place) WHERE sim.id = target.id
"""


def measure(folder: Path, count: int, seed: int, progress: Progress) -> Result:
    """The two take turns; medians."""
    theirs: list[float] = []
    mine: list[Result] = []
    with postgresql.database(folder) as (connection, _):
        # As many free healthy SIMs as terminals, as in the core's bench, and the unhealthy ones beside them.
        postgresql.fill(connection, 5 * count // 2)
        connection.execute(
            "UPDATE sim SET terminal = place FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM sim "
            "WHERE health = 0 LIMIT %s) AS chosen WHERE sim.id = chosen.id",
            (count,),
        )
        for number in range(ROUNDS + 1):
            progress(f"{NAME}: round {number} of {ROUNDS}")
            postgresql.tidy(connection)
            before = _holders(connection)
            began = time.monotonic()
            moved = connection.execute(MOVE, {"count": count}).rowcount
            theirs.append(time.monotonic() - began)
            after = _holders(connection)
            if moved != count or set(after) != set(before) or any(before[key] == after[key] for key in before):
                raise NotTheJob(f"{NAME}: {moved:,} of {count:,} terminals were moved, or some kept their SIM")
            if len(set(after.values())) != count:
                raise NotTheJob(f"{NAME}: two terminals have one SIM")
            if number:
                mine.append(core.measure_job(count, seed, progress))
    value = median(result.value for result in mine if result.value is not None)
    reference = median(theirs[1:]) * 1e3
    return replace(
        mine[0],
        name=NAME,
        value=value,
        reference=reference,
        goal=reference,
        note="theirs: one durable statement; ours: core time alone, without the disk and without sending the orders; "
        + mine[0].note.partition(";")[0],
    )


def _holders(connection: Any) -> dict[int, int]:
    return dict(connection.execute(postgresql.HELD, binary=True).fetchall())

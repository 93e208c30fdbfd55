"""A process that allocates in a loop on a data folder and prints what was acknowledged, until it is killed.

    python -m tests.journal.allocating_server FOLDER FIRST_TERMINAL

Each line is a terminal and the epoch of its lease. It is printed after the reply, so what stands in it is durable (I6).
"""

from __future__ import annotations

import asyncio
import sys

from simswitch.cell import Capacity, Cell, JournalSettings
from simswitch.core.layout import OK

from tests.cell.small_pool import allocate, fill

CAPACITY = Capacity(sims=60_000, terminals=60_000, orders=1_000)
SETTINGS = JournalSettings(segment_bytes=1024 * 1024, free_mark_bytes=0)


async def serve(folder: str, first_terminal: int) -> None:
    cell = Cell.open(folder, capacity=CAPACITY, journal=SETTINGS)
    assert cell.recovery is not None
    if cell.recovery.journal_id is None:
        fill(cell.step, 50_000)
    cell.start()
    print("ready", flush=True)

    async def client(base: int) -> None:
        for terminal in range(base, base + 1_000):
            outcome = await cell.submit(allocate(terminal))
            if outcome["status"][0] == OK:
                sys.stdout.write(f"{terminal} {outcome['epoch'][0]}\n")
                sys.stdout.flush()

    await asyncio.gather(*(client(first_terminal + base * 1_000) for base in range(8)))
    await asyncio.to_thread(cell.close)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))

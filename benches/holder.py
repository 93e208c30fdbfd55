"""An access server with terminals, which carries out every order at once.

``python -m benches.holder ADDRESS NAME MARKET FIRST COUNT`` gets SIMs for the terminals of the numbers from FIRST on,
prints a line when its session serves, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from simswitch.client import AsyncClient, Holdings, Order, Result, Session

BATCH_ITEMS = 1_000


async def carry_out(_order: Order) -> Result:
    return Result.DONE


async def main() -> None:
    address, name, market, first, count = sys.argv[1:]
    holdings = Holdings()
    terminals = np.arange(int(first), int(first) + int(count), dtype=np.uint64)
    async with AsyncClient(address, access_server=name, holdings=holdings) as client:
        for start in range(0, len(terminals), BATCH_ITEMS):
            part = terminals[start : start + BATCH_ITEMS]
            await client.allocate_many(part, market)
    if len(holdings) != len(terminals):
        raise SystemExit(f"{len(holdings)} of {len(terminals)} terminals got a SIM")
    async with Session(address, name, carry_out, holdings=holdings) as session:
        session.start()
        await session.serving(60.0)
        print("serving", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())

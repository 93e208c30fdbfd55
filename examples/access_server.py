"""A small access server: it gets SIMs for three terminals, then carries out whatever the service orders.

Run it against a service whose inventory is that of this folder; it ends with Ctrl-C.
"""

import asyncio
import sys
from contextlib import suppress

from simswitch.client import AsyncClient, Holdings, Order, Result, Session


async def main(address: str) -> None:
    holdings = Holdings()  # what our terminals hold; it outlives the service's absence

    async def carry_out(order: Order) -> Result:
        print(f"order: {order.kind.name.lower()} terminal {order.terminal}", flush=True)
        await asyncio.sleep(0.5)  # here the modem would attach with the other SIM
        return Result.DONE

    async with Session(address, "as-1", carry_out, holdings=holdings) as session:
        serving = asyncio.create_task(session.run())
        async with AsyncClient(address, access_server="as-1", holdings=holdings) as client:
            for terminal in (355000000000025, 355000000000033, 355000000000041):
                lease = await client.allocate(terminal=terminal, market="tokyo")
                print(f"terminal {terminal} has SIM {lease.iccid} under epoch {lease.epoch}", flush=True)
            await serving


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7467"))

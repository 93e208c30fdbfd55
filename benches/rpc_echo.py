"""A gRPC server that gives each message back: what the transport alone can do with the same messages.

Prints the port that it took, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc


async def echo(request: bytes, _context: Any) -> bytes:
    return request


async def main() -> None:
    server = grpc.aio.server()
    methods = {"AllocateSims": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("simswitch.v1.AllocationService", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())

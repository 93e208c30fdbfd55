"""A gRPC server that does nothing: what the transport alone can do with the same messages.

``python -m benches.rpc_echo [BYTES]`` answers with so many bytes, or gives each message back. It prints the port that
it took, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc


async def main() -> None:
    reply = bytes(int(sys.argv[1])) if sys.argv[1:] else None

    async def echo(request: bytes, _context: Any) -> bytes:
        return request if reply is None else reply

    server = grpc.aio.server()
    methods = {name: grpc.unary_unary_rpc_method_handler(echo) for name in ("Allocate", "AllocateSims")}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("simswitch.v1.AllocationService", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())

"""One client process of the gRPC bench: batches of allocations, several in flight, answered to the last.

It is started with its figures as JSON in the first argument, prepares all messages, says ``ready``, waits for a line,
sends, and prints what it saw as one line of JSON. Times are those of the machine's monotonic clock, which all processes
share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
from simswitch.core import layout
from simswitch.core.machine import xxh64
from simswitch.v1 import allocation_pb2

PATH = "/simswitch.v1.AllocationService/AllocateSims"


def messages(access_server: str, market: str, first: int, count: int, batch_items: int) -> list[bytes]:
    """Requests for ``count`` terminals, each asked for once."""
    found = []
    for start in range(first, first + count, batch_items):
        keys = np.arange(start, min(start + batch_items, first + count), dtype=np.uint64)
        request = allocation_pb2.AllocateSimsRequest(
            access_server=access_server, markets=[market], terminal=keys.tolist(), subscriber=keys.tolist()
        )
        found.append(request.SerializeToString())
    return found


async def exchange(address: str, requests: list[bytes], in_flight: int) -> tuple[float, float, list[bytes]]:
    """Sends all requests, ``in_flight`` at a time; when it began and ended, and the answers."""
    answers: list[bytes] = [b""] * len(requests)
    waiting: Iterator[tuple[int, bytes]] = iter(enumerate(requests))

    async def worker(call: Any) -> None:
        for number, request in waiting:
            answers[number] = await call(request)

    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        call: Any = channel.unary_unary(PATH, request_serializer=None, response_deserializer=None)
        began = time.monotonic()
        await asyncio.gather(*(worker(call) for _ in range(in_flight)))
        return began, time.monotonic(), answers


def main() -> None:
    figures = json.loads(sys.argv[1])
    requests = messages(
        figures["access_server"], figures["market"], figures["first"], figures["count"], figures["batch_items"]
    )
    began, ended, answers = asyncio.run(exchange(figures["address"], requests, figures["in_flight"]))
    granted, folded, sims = 0, 0, 0
    if figures["echo"]:
        granted = figures["count"] if answers == requests else 0
    else:
        iccids: set[int] = set()
        for answer in answers:
            response = allocation_pb2.AllocateSimsResponse.FromString(answer)
            status = np.array(response.status, np.uint8)
            granted += int((status == layout.OK).sum())
            iccids.update(response.iccid)
            folded = xxh64(status.tobytes(), folded)
        sims = len(iccids - {0})
    print(json.dumps({"began": began, "ended": ended, "granted": granted, "sims": sims, "hash": folded}), flush=True)


if __name__ == "__main__":
    main()

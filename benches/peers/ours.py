"""simswitch itself: a real server with its follower, over gRPC.

How the server is started and filled is that of ``benches.rpc``; :func:`served` is the only place that knows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from simswitch.client import OperatorClient
from simswitch.core import layout
from simswitch.v1 import allocation_pb2, pool_pb2, sim_pb2
from simswitch.v1 import inventory_pb2 as inventory

from benches.peers.client import Driven, batches
from benches.peers.contest import PROCESSES, U64, UNHEALTHY_EVERY, Contender, Pairs, Plan
from benches.rpc import MARKET, _assigned, _fill, _server

SERVICE = "/simswitch.v1.AllocationService"
ICCID_FIRST = 10**15
HEALTH_ITEMS = 50_000
# The SIMs that a peer releases can be taken at once; so can ours here.
COOLING_MS = 0


@contextmanager
def served(folder: Path, pool: int) -> Iterator[str]:
    """The address of a server that has ``pool`` SIMs and one access server a client process."""
    folder.mkdir(parents=True)
    with _server(folder, pool) as address:
        _fill(address, pool, PROCESSES)
        yield address


@contextmanager
def contenders(folder: Path, plan: Plan) -> Iterator[list[Contender]]:
    """A filled server, and what runs on it."""
    with ExitStack() as stack:
        address = stack.enter_context(served(folder / "ours", plan.pool))
        _prepare(address, plan.pool)
        yield [
            stack.enter_context(
                Driven(
                    name,
                    batch_items,
                    folder,
                    {"address": address},
                    client=f"Python, grpcio {grpc.__version__}, packed beforehand, a channel a process",
                    durability="journal fdatasynced before the answers",
                    settings=f"gRPC, follower running, cooling {COOLING_MS} ms",
                    books=lambda: _assigned(address),
                )
            )
            for name, batch_items in (("ours.batch_1000", 1000), ("ours.batch_200", 200), ("ours.unary", 1))
        ]


def _prepare(address: str, pool: int) -> None:
    """Suspends the SIMs that can't be used, and lets released ones be taken at once."""
    unhealthy = np.arange(UNHEALTHY_EVERY, pool + 1, UNHEALTHY_EVERY, dtype=np.uint64)
    with OperatorClient(address) as operator:
        setting = pool_pb2.SettingValue(setting=pool_pb2.SETTING_COOLING_MS, value=COOLING_MS)
        operator.pool.Configure(pool_pb2.ConfigureRequest(settings=[setting]))
        for batch in batches(unhealthy, HEALTH_ITEMS):
            operator.inventory.SetSimHealth(
                inventory.SetSimHealthRequest(iccid=_iccids(batch).tolist(), health=sim_pb2.HEALTH_SUSPENDED)
            )


def _iccids(sims: U64) -> U64:
    return np.uint64(2) * (np.uint64(ICCID_FIRST - 1) + sims)


class Connections:
    """One channel, as many calls under way as asked for."""

    def __init__(self, address: str, number: int, batch_items: int, in_flight: int) -> None:
        self._access_server = f"as-{number}"
        self._batch_items = batch_items
        self._in_flight = in_flight
        self._asked: list[U64] = []
        self._epochs: dict[int, int] = {}
        self._path = ""
        self._runner = asyncio.Runner()
        self._channel = self._runner.run(self._connect(address))

    def allocations(self, terminals: U64) -> list[bytes]:
        self._asked = batches(terminals, self._batch_items)
        if self._batch_items == 1:
            self._path = f"{SERVICE}/Allocate"
            return [
                allocation_pb2.AllocateRequest(
                    access_server=self._access_server, market=MARKET, terminal=terminal, subscriber=terminal
                ).SerializeToString()
                for terminal in terminals.tolist()
            ]
        self._path = f"{SERVICE}/AllocateSims"
        return [
            allocation_pb2.AllocateSimsRequest(
                access_server=self._access_server,
                markets=[MARKET],
                terminal=batch.tolist(),
                subscriber=batch.tolist(),
            ).SerializeToString()
            for batch in self._asked
        ]

    def releases(self, terminals: U64) -> list[bytes]:
        self._path = f"{SERVICE}/Release"
        return [
            allocation_pb2.ReleaseRequest(
                access_server=self._access_server,
                terminal=batch.tolist(),
                epoch=[self._epochs[terminal] for terminal in batch.tolist()],
            ).SerializeToString()
            for batch in batches(terminals, self._batch_items)
        ]

    def exchange(self, requests: list[bytes]) -> list[bytes]:
        return self._runner.run(self._exchange(requests))

    def granted(self, answers: list[bytes]) -> Pairs:
        terminals = np.concatenate(self._asked)
        if self._batch_items == 1:
            leases = [allocation_pb2.AllocateResponse.FromString(answer).lease for answer in answers]
            iccids = np.array([_number(lease.iccid) for lease in leases], np.uint64)
            epochs = [lease.epoch for lease in leases]
        else:
            parts = [allocation_pb2.AllocateSimsResponse.FromString(answer) for answer in answers]
            iccids = np.array([iccid for part in parts for iccid in part.iccid], np.uint64)
            epochs = [epoch for part in parts for epoch in part.epoch]
        self._epochs = dict(zip(terminals.tolist(), epochs, strict=True))
        given = iccids != 0
        return Pairs(terminals[given], iccids[given] // np.uint64(2) - np.uint64(ICCID_FIRST - 1))

    def released(self, answers: list[bytes]) -> int:
        return sum(
            int(status) == layout.OK
            for answer in answers
            for status in allocation_pb2.ReleaseResponse.FromString(answer).status
        )

    async def _connect(self, address: str) -> Any:
        channel = grpc.aio.insecure_channel(address)
        await channel.channel_ready()
        return channel

    async def _exchange(self, requests: list[bytes]) -> list[bytes]:
        call = self._channel.unary_unary(self._path, request_serializer=None, response_deserializer=None)
        answers = [b""] * len(requests)
        waiting = iter(enumerate(requests))

        async def worker() -> None:
            for number, request in waiting:
                answers[number] = await call(request)

        await asyncio.gather(*(worker() for _ in range(self._in_flight)))
        return answers


def _number(iccid: str) -> int:
    """The ICCID as the columns carry it."""
    return 2 * int(iccid[2:]) + (len(iccid) == 20)

"""Hot calls: bytes in, a run of commands, bytes out; no object per item."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

from simswitch import contract
from simswitch.cell import Cell
from simswitch.core import layout, wire
from simswitch.core.commands import OutcomeRun, decode_iccid, run
from simswitch.core.wire import Table
from simswitch.service.call import Call
from simswitch.service.directory import Directory
from simswitch.service.errors import of_status, refused
from simswitch.service.methods import Work, hot
from simswitch.service.overload import Kind, Overload
from simswitch.v1 import allocation_pb2

_NUMBER_TAG, _BATCH_TAG = b"\x08", b"\x12"

STREAM_BATCHES_MAX = 16
"""Batches of one AllocateStream that may be under way; the next is read when one of them is answered."""


def read_numbered(data: bytes) -> tuple[int, bytes]:
    """The number and the batch of an AllocateStreamRequest, as its bytes."""
    # The usual form: the number, unless it is 0, and then the batch up to the end.
    place, number = (1, 0) if data[:1] == _NUMBER_TAG else (0, 0)
    if place:
        number, place = _read_varint(data, place, 9)
    if place >= 0 and data[place : place + 1] == _BATCH_TAG:
        size, place = _read_varint(data, place + 1, 4)
        if place >= 0 and place + size == len(data):
            return number, data[place:]
    # Any other: protobuf puts it in order.
    request = allocation_pb2.AllocateStreamRequest.FromString(data)
    return request.request_number, request.batch.SerializeToString()


def _read_varint(data: bytes, place: int, longest: int) -> tuple[int, int]:
    """A number and where it ends; one of more bytes than that, or without an end, leads nowhere: protobuf decides."""
    number = 0
    for index, byte in enumerate(data[place : place + longest]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number, place + index + 1
    return 0, -1


class ColumnCalls:
    """Turns a message of columns into outcomes: what all hot calls have in common."""

    def __init__(self, cell: Cell, directory: Directory) -> None:
        self.cell = cell
        self.directory = directory

    def work(
        self, kind: int, request: Table, response: Table, data: bytes, call: Call, *, markets: bool = False
    ) -> bytes | Work:
        """Refuses an access server that is unknown or not the actor's. ``markets``: the second text field is a list of
        markets."""
        batch = request.decode(data)
        server = self.directory.server(batch.text(0))
        call.may(kind, server)
        if batch.count == 0:
            return b""
        call.charge(batch.count)
        indexes: tuple[Any, ...] = ()
        group = 0
        if markets:
            indexes = (b"", self.directory.indexes(layout.MARKET, batch.names(1)))
        if kind == layout.ALLOCATE:
            group = self.group(batch.text(2))
        commands = batch.run(kind, actor=call.actor.index, access_server=server.server, argument=group, indexes=indexes)
        return Work(commands, lambda outcome: response.encode(outcome.data, outcome.count))

    def group(self, name: str) -> int:
        """A subscriber group; 0: none."""
        return self.directory.get(layout.SUBSCRIBER_GROUP, name).index if name else 0

    async def answer(self, work: bytes | Work, call: Call) -> bytes:
        """For those who wait in the event loop."""
        if isinstance(work, bytes):
            return work
        return work.encode(await self.cell.submit(work.commands, call.deadline))


class AllocationHandlers(ColumnCalls):
    """AllocationService."""

    def __init__(self, cell: Cell, directory: Directory, overload: Overload) -> None:
        super().__init__(cell, directory)
        self._overload = overload

    @hot
    def allocate(self, data: bytes, call: Call) -> bytes | Work:
        request = allocation_pb2.AllocateRequest.FromString(data)
        server = self.directory.server(request.access_server)
        call.may(layout.ALLOCATE, server)
        market = self.directory.get(layout.MARKET, request.market)
        commands = run(
            layout.ALLOCATE,
            actor=call.actor.index,
            access_server=server.server,
            argument=self.group(request.subscriber_group),
            terminal=request.terminal,
            subscriber=request.subscriber,
            expected_bytes=request.expected_bytes,
            market=market.index,
        )
        return Work(commands, partial(self._granted, request))

    def _granted(self, request: allocation_pb2.AllocateRequest, outcome: OutcomeRun) -> bytes:
        status = int(outcome["status"][0])
        if status >= layout.NOT_PERMITTED:
            what = f"terminal {request.terminal} in the market {request.market!r}"
            raise of_status(status, what, int(outcome["retry_after_ms"][0]))
        lease = allocation_pb2.Lease(
            terminal=request.terminal,
            epoch=int(outcome["epoch"][0]),
            expires_ms=int(outcome["expires_ms"][0]),
            iccid=decode_iccid(int(outcome["iccid"][0])),
            bank=self.directory.name(int(outcome["bank"][0])),
            slot=int(outcome["slot"][0]),
        )
        response = allocation_pb2.AllocateResponse(
            status=outcome["status"].tolist()[0], lease=lease, slow_kbps=int(outcome["slow_kbps"][0])
        )
        return response.SerializeToString()

    @hot
    def allocate_sims(self, data: bytes, call: Call) -> bytes | Work:
        return self.work(
            layout.ALLOCATE, contract.ALLOCATE_REQUEST, contract.ALLOCATE_RESPONSE, data, call, markets=True
        )

    async def allocate_stream(self, stream: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes, None]:
        replies: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(STREAM_BATCHES_MAX)

        async def read() -> None:
            try:
                async for data in stream:
                    await call.room()
                    call.hold(len(data))
                    await replies.put(asyncio.create_task(self._allocate_batch(data, call)))
            finally:
                await replies.put(None)

        reader = asyncio.create_task(read())
        try:
            while (reply := await replies.get()) is not None:
                answer = await reply
                yield answer
                call.hold(-len(answer))
            await reader
        finally:
            reader.cancel()
            while not replies.empty():
                left = replies.get_nowait()
                if left is not None:
                    left.cancel()
            with suppress(asyncio.CancelledError):
                await reader

    async def _allocate_batch(self, data: bytes, call: Call) -> bytes:
        asked_bytes = len(data)
        number, batch = read_numbered(data)
        head = allocation_pb2.AllocateStreamResponse(request_number=number)
        try:
            call.keep_pace()
            self._overload.shed(Kind.ALLOCATE)
            work = self.allocate_sims(batch, call)
            del data, batch
            answer = wire.enclose(2, await self.answer(work, call))
        except Exception as error:
            refusal = refused(error)
            if refusal is None:
                raise
            head.refusal.CopyFrom(refusal.message())
            answer = b""
        reply = head.SerializeToString() + answer
        call.hold(len(reply) - asked_bytes)
        return reply

    @hot
    def renew(self, data: bytes, call: Call) -> bytes | Work:
        return self.work(layout.RENEW, contract.RENEW_REQUEST, contract.RENEW_RESPONSE, data, call)

    @hot
    def release(self, data: bytes, call: Call) -> bytes | Work:
        return self.work(layout.RELEASE, contract.RELEASE_REQUEST, contract.RELEASE_RESPONSE, data, call)

    @hot
    def report_attach_failure(self, data: bytes, call: Call) -> bytes | Work:
        return self.work(
            layout.REPORT_ATTACH_FAILURE, contract.ATTACH_FAILURE_REQUEST, contract.ATTACH_FAILURE_RESPONSE, data, call
        )


class UsageHandlers(ColumnCalls):
    """UsageService."""

    @hot
    def report_usage(self, data: bytes, call: Call) -> bytes | Work:
        return self.work(layout.REPORT_USAGE, contract.USAGE_REQUEST, contract.USAGE_RESPONSE, data, call)

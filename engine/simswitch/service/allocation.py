"""Hot calls: bytes in, a run of commands, bytes out; no object per item."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

from simswitch import contract
from simswitch.cell import Cell
from simswitch.core import layout, wire
from simswitch.core.commands import OutcomeRun, decode_iccid, run
from simswitch.core.wire import Batch, Table
from simswitch.service.call import Call
from simswitch.service.directory import Directory, Entity
from simswitch.service.errors import of_status, refused
from simswitch.v1 import allocation_pb2

STREAM_BATCHES_MAX = 16
"""Batches of one AllocateStream that may be under way; the next is read when one of them is answered."""


class ColumnCalls:
    """Turns a message of columns into outcomes: what all hot calls have in common."""

    def __init__(self, cell: Cell, directory: Directory) -> None:
        self.cell = cell
        self.directory = directory

    def prepare(self, kind: int, table: Table, data: bytes, call: Call) -> tuple[Batch, Entity]:
        """Decodes, and refuses an access server that is unknown or not the actor's."""
        batch = table.decode(data)
        server = self.directory.server(batch.text(0))
        call.may(kind, server)
        return batch, server

    async def outcome(
        self, kind: int, batch: Batch, server: Entity, call: Call, *, markets: bool = False
    ) -> OutcomeRun | None:
        """None: there was nothing to do. ``markets``: the second text field is a list of markets."""
        if batch.count == 0:
            return None
        indexes = (b"", self.directory.indexes(layout.MARKET, batch.names(1))) if markets else ()
        commands = batch.run(kind, actor=call.actor.index, access_server=server.server, indexes=indexes)
        return await self.cell.submit(commands, call.deadline)

    async def answer(
        self, kind: int, request: Table, response: Table, data: bytes, call: Call, *, markets: bool = False
    ) -> bytes:
        batch, server = self.prepare(kind, request, data, call)
        outcome = await self.outcome(kind, batch, server, call, markets=markets)
        return b"" if outcome is None else response.encode(outcome.data, outcome.count)


class AllocationHandlers(ColumnCalls):
    """AllocationService."""

    async def allocate(self, data: bytes, call: Call) -> bytes:
        request = allocation_pb2.AllocateRequest.FromString(data)
        server = self.directory.server(request.access_server)
        call.may(layout.ALLOCATE, server)
        market = self.directory.get(layout.MARKET, request.market)
        commands = run(
            layout.ALLOCATE,
            actor=call.actor.index,
            access_server=server.server,
            terminal=request.terminal,
            subscriber=request.subscriber,
            expected_bytes=request.expected_bytes,
            market=market.index,
        )
        outcome = await self.cell.submit(commands, call.deadline)
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
        response = allocation_pb2.AllocateResponse(status=outcome["status"].tolist()[0], lease=lease)
        return response.SerializeToString()

    async def allocate_sims(self, data: bytes, call: Call) -> bytes:
        return await self.answer(
            layout.ALLOCATE, contract.ALLOCATE_REQUEST, contract.ALLOCATE_RESPONSE, data, call, markets=True
        )

    async def allocate_stream(self, stream: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes, None]:
        replies: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(STREAM_BATCHES_MAX)

        async def read() -> None:
            try:
                async for data in stream:
                    await replies.put(asyncio.create_task(self._allocate_batch(data, call)))
            finally:
                await replies.put(None)

        reader = asyncio.create_task(read())
        try:
            while (reply := await replies.get()) is not None:
                yield await reply
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
        # The message's number and its batch are two small fields: protobuf reads the number, the batch stays bytes.
        request = allocation_pb2.AllocateStreamRequest.FromString(data)
        response = allocation_pb2.AllocateStreamResponse(request_number=request.request_number)
        try:
            batch = await self.allocate_sims(request.batch.SerializeToString(), call)
        except Exception as error:
            refusal = refused(error)
            if refusal is None:
                raise
            response.refusal.CopyFrom(refusal.message())
            return response.SerializeToString()
        return response.SerializeToString() + wire.enclose(2, batch)

    async def renew(self, data: bytes, call: Call) -> bytes:
        return await self.answer(layout.RENEW, contract.RENEW_REQUEST, contract.RENEW_RESPONSE, data, call)

    async def release(self, data: bytes, call: Call) -> bytes:
        return await self.answer(layout.RELEASE, contract.RELEASE_REQUEST, contract.RELEASE_RESPONSE, data, call)

    async def report_attach_failure(self, data: bytes, call: Call) -> bytes:
        return await self.answer(
            layout.REPORT_ATTACH_FAILURE, contract.ATTACH_FAILURE_REQUEST, contract.ATTACH_FAILURE_RESPONSE, data, call
        )


class UsageHandlers(ColumnCalls):
    """UsageService."""

    async def report_usage(self, data: bytes, call: Call) -> bytes:
        return await self.answer(layout.REPORT_USAGE, contract.USAGE_REQUEST, contract.USAGE_RESPONSE, data, call)

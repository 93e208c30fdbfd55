"""Sessions of access servers: one each, a newer hello fences the older.

    hello ──▶ SESSION_OPEN ──▶ opened
    holds ──▶ SESSION_HOLDS ──▶ holds_result     … any number
    ready ──▶ SESSION_READY ──▶ ready_result
    acknowledgements, load, usage, ping ──▶ their results, in the order in which they came
    the cell's orders ──▶ the session that they name, or nobody: then reconciliation settles them

What waits to be sent to one access server is bounded: past 1,024 messages, or 8 MiB, its session ends
(SLOW_CONSUMER). The messages of one session are handled one after the other, so its results keep their order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from simswitch import contract
from simswitch.cell import Cell, CellClosed, CellFailed, CellOverloaded, JournalFull
from simswitch.core import layout, wire
from simswitch.core.commands import OutcomeRun, run
from simswitch.core.wire import Table
from simswitch.service.call import Call
from simswitch.service.directory import Directory, Entity
from simswitch.service.errors import (
    DECLARED_DEAD,
    DRAINING,
    FENCED,
    HELLO_EXPECTED,
    READY_EXPECTED,
    SLOW_CONSUMER,
    TOO_MANY_SESSIONS,
    Refused,
    check,
    refused,
)
from simswitch.v1 import access_server_pb2 as pb

log = logging.getLogger("simswitch.service")

SESSIONS_MAX = 4_096
OUTGOING_MAX = 1_024
OUTGOING_BYTES_MAX = 8 << 20
HELLO_WITHIN_S = 10.0
READY_WITHIN_S = 300.0
"""Until then it holds up, after a restore, all who want a SIM."""
CLOSE_AGAIN_S = 1.0

_COUNTED = 0xFFFFFFFF
"""Of a session's number: what orders carry of it. Above stands what a restore has drawn, and none ever changes here."""

_HELLO = pb.SessionRequest.HELLO_FIELD_NUMBER
_HOLDS = pb.SessionRequest.HOLDS_FIELD_NUMBER
_READY = pb.SessionRequest.READY_FIELD_NUMBER
_ACKNOWLEDGEMENTS = pb.SessionRequest.ACKNOWLEDGEMENTS_FIELD_NUMBER
_LOAD = pb.SessionRequest.LOAD_FIELD_NUMBER
_USAGE = pb.SessionRequest.USAGE_FIELD_NUMBER
_PING = pb.SessionRequest.PING_FIELD_NUMBER
_ORDERS = pb.SessionResponse.ORDERS_FIELD_NUMBER

_COLUMN_MESSAGES: dict[int, tuple[int, Table, int, Table]] = {
    _HOLDS: (layout.SESSION_HOLDS, contract.HOLDS, pb.SessionResponse.HOLDS_RESULT_FIELD_NUMBER, contract.HOLDS_RESULT),
    _ACKNOWLEDGEMENTS: (
        layout.ACKNOWLEDGE,
        contract.ACKNOWLEDGEMENTS,
        pb.SessionResponse.ACKNOWLEDGEMENTS_RESULT_FIELD_NUMBER,
        contract.ACKNOWLEDGEMENTS_RESULT,
    ),
    _USAGE: (layout.REPORT_USAGE, contract.USAGE, pb.SessionResponse.USAGE_RESULT_FIELD_NUMBER, contract.USAGE_RESULT),
}


def difference(status: Any, count: int) -> pb.Difference:
    return pb.Difference(status=status, count=count)


def read_message(data: bytes) -> tuple[int, bytes]:
    """Which message of the oneof a SessionRequest is, and its bytes; 0 when it is none that we know."""
    only = wire.only_message(data, _PING)
    if only is None:
        # Several members, or one in pieces: protobuf decides which counts.
        request = pb.SessionRequest.FromString(data)
        request.DiscardUnknownFields()
        only = wire.only_message(request.SerializeToString(), _PING)
    return only or (0, b"")


class Session:
    """One stream of one access server."""

    def __init__(self, server: Entity, number: int, withdraws: bool = False) -> None:
        self.server = server
        self.number = number
        self.withdraws = withdraws
        """It understands orders of that kind."""
        self.differences: Counter[int] = Counter()
        self.ready = False
        """It has said all that it holds."""
        self.ending: Refused | None = None
        self._outgoing: deque[bytes] = deque()
        self._outgoing_bytes = 0
        self._changed = asyncio.Event()
        self._finished = False

    def put(self, message: bytes) -> None:
        """Sends it, after those that wait already."""
        if self.ending is not None or self._finished:
            return
        if len(self._outgoing) >= OUTGOING_MAX or self._outgoing_bytes >= OUTGOING_BYTES_MAX:
            waiting = len(self._outgoing)
            self._outgoing.clear()
            self.end(Refused(SLOW_CONSUMER, f"{waiting:,}"))
            return
        self._outgoing.append(message)
        self._outgoing_bytes += len(message)
        self._changed.set()

    def end(self, ending: Refused, notice: pb.Notice | None = None) -> None:
        """Ends the stream with this status when what waits has been sent."""
        if self.ending is None and not self._finished:
            if notice is not None:
                self._outgoing.append(pb.SessionResponse(notice=notice).SerializeToString())
            self.ending = ending
            self._changed.set()

    def finish(self) -> None:
        """The access server has said all that it wanted to."""
        self._finished = True
        self._changed.set()

    async def next(self) -> bytes | None:
        """The next message to send; None: the stream ends well."""
        while not self._outgoing:
            if self.ending is not None:
                raise self.ending
            if self._finished:
                return None
            self._changed.clear()
            await self._changed.wait()
        message = self._outgoing.popleft()
        self._outgoing_bytes -= len(message)
        return message


class SessionHandlers:
    """AccessServerService."""

    def __init__(self, cell: Cell, directory: Directory) -> None:
        self._cell = cell
        self._directory = directory
        self._sessions: dict[int, Session] = {}
        # Orders for a session whose SESSION_OPEN is durable but whose task has not run since.
        self._opening: Counter[int] = Counter()
        self._early: dict[tuple[int, int], list[bytes]] = {}
        self._draining = False
        # SESSION_CLOSE of streams that are gone, by access server, until it is applied: one that the core takes to be
        # connected can't be declared dead.
        self._unclosed: dict[int, bytes] = {}
        # Hellos between SESSION_OPEN and their place here; the loop itself keeps no reference to a task.
        self._beginning: set[asyncio.Task[Session]] = set()

    @property
    def count(self) -> int:
        return len(self._sessions)

    def deliver(self, orders: OutcomeRun) -> None:
        """Routes the orders of one record (``Cell.on_orders``)."""
        targets = orders["access_server"].astype(np.uint64) << np.uint64(32) | orders["session"]
        for target in np.unique(targets).tolist():
            server, number = target >> 32, target & 0xFFFFFFFF
            session = self._sessions.get(server)
            wanted = targets == target
            if session is None or not session.withdraws:
                wanted &= orders["kind"] != layout.WITHDRAW
            rows = np.flatnonzero(wanted).astype(np.uint32)
            if not len(rows):
                continue
            message = wire.enclose(_ORDERS, contract.ORDERS_MESSAGE.encode(orders.data, orders.count, rows.tobytes()))
            if session is not None and session.number & _COUNTED == number:
                session.put(message)
            elif self._opening[server]:
                self._early.setdefault((server, number), []).append(message)

    def drain(self) -> None:
        """Tells every access server to come back later, and ends the sessions."""
        self._draining = True
        notice = pb.Notice(kind=pb.NOTICE_KIND_DRAINING, text="the service is shutting down")
        for session in list(self._sessions.values()):
            session.end(Refused(DRAINING), notice)

    def declared_dead(self, server: Entity) -> None:
        """The core has ended the session of it that was not ready."""
        session = self._sessions.get(server.server)
        if session is not None and not session.ready:
            session.end(Refused(DECLARED_DEAD, server.name))

    async def session(self, stream: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes, None]:
        session = await self._open(stream, call)
        reader = asyncio.create_task(self._read(stream, session, call))
        look = asyncio.get_running_loop().call_later(READY_WITHIN_S, self._end_unready, session)
        try:
            while (message := await session.next()) is not None:
                yield message
        finally:
            look.cancel()
            try:
                reader.cancel()
                with suppress(asyncio.CancelledError):
                    await reader
            finally:
                # Also when the reader met something unforeseen: the core must not wait for a stream that is gone.
                self._close(session, call)

    def _end_unready(self, session: Session) -> None:
        if not session.ready and session.ending is None:
            log.warning(
                "the session of %s is ended: it has not become ready within %.0f s of its hello. If the access server "
                "is broken, `simswitch access-server declare-dead` frees what it holds",
                session.server.name,
                READY_WITHIN_S,
            )
            session.end(Refused(READY_EXPECTED, f"{READY_WITHIN_S:.0f}"))

    async def _open(self, stream: AsyncIterator[bytes], call: Call) -> Session:
        try:
            async with asyncio.timeout(HELLO_WITHIN_S):
                number, content = read_message(await anext(stream))
        except (StopAsyncIteration, TimeoutError):
            raise Refused(HELLO_EXPECTED, "none came") from None
        if number != _HELLO:
            raise Refused(HELLO_EXPECTED, "something else came first")
        hello = pb.Hello.FromString(content)
        server = self._directory.server(hello.access_server)
        call.may(layout.SESSION_OPEN, server)
        if self._draining:
            raise Refused(DRAINING)
        if len(self._sessions) >= SESSIONS_MAX and server.server not in self._sessions:
            raise Refused(TOO_MANY_SESSIONS, f"{SESSIONS_MAX:,}")
        # Before SESSION_OPEN, after which nothing may fail or be cut off until the session stands here too.
        lease_ms = await self._cell.read(lambda machine: int(machine.header()["settings"]["lease_ms"]))
        beginning = asyncio.create_task(self._begin(server, lease_ms, call, hello.withdraws))
        self._beginning.add(beginning)
        beginning.add_done_callback(self._beginning.discard)
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            beginning.add_done_callback(lambda task: self._abandon(task, call))
            raise

    async def _begin(self, server: Entity, lease_ms: int, call: Call, withdraws: bool = False) -> Session:
        """SESSION_OPEN and the place here, as one: the core and the service must not differ about who stands."""
        self._opening[server.server] += 1
        session: Session | None = None
        try:
            outcome = await self._cell.submit(
                run(layout.SESSION_OPEN, actor=call.actor.index, access_server=server.server)
            )
            check(int(outcome["status"][0]), server.name)
            session = Session(server, int(outcome["session"][0]), withdraws)
            self._take_over(session)
        finally:
            self._opening[server.server] -= 1
            early = [] if session is None else self._early.pop((server.server, session.number & _COUNTED), [])
            if not self._opening[server.server]:
                # What is left is for sessions whose streams have gone.
                for gone in [key for key in self._early if key[0] == server.server]:
                    del self._early[gone]
        opened = pb.Opened(session=session.number, access_server=server.index, lease_ms=lease_ms)
        session.put(pb.SessionResponse(opened=opened).SerializeToString())
        for message in early:
            session.put(message)
        return session

    def _abandon(self, beginning: asyncio.Task[Session], call: Call) -> None:
        """The stream went while its session was being opened."""
        if not beginning.cancelled() and beginning.exception() is None:
            self._close(beginning.result(), call)

    def _take_over(self, session: Session) -> None:
        server = session.server
        notice = pb.Notice(kind=pb.NOTICE_KIND_FENCED, text=f"a newer session of {server.name} stands")
        older = self._sessions.get(server.server)
        if older is not None and older.number > session.number:
            raise Refused(FENCED, repr(server.name))
        self._sessions[server.server] = session
        if older is not None:
            older.end(Refused(FENCED, repr(server.name)), notice)

    def _close(self, session: Session, call: Call) -> None:
        if self._sessions.get(session.server.server) is not session:
            return
        del self._sessions[session.server.server]
        run = self._unclosed[session.server.server] = self._run(layout.SESSION_CLOSE, session, call)
        self._submit_close(session.server.server, run)

    def _submit_close(self, server: int, run: bytes) -> None:
        if self._unclosed.get(server) is not run:
            return  # a later session of it has been closed since, which says more
        try:
            self._cell.submit(run).add_done_callback(partial(self._closed, server, run))
        except CellOverloaded:
            self._close_later(server, run)
        except (CellClosed, CellFailed):
            pass  # recovery closes all sessions

    def _closed(self, server: int, run: bytes, answer: asyncio.Future[OutcomeRun]) -> None:
        error = None if answer.cancelled() else answer.exception()
        if isinstance(error, JournalFull):
            self._close_later(server, run)
        elif self._unclosed.get(server) is run:
            del self._unclosed[server]

    def _close_later(self, server: int, run: bytes) -> None:
        asyncio.get_running_loop().call_later(CLOSE_AGAIN_S, self._submit_close, server, run)

    def _run(self, kind: int, session: Session, call: Call, **columns: int) -> bytes:
        return run(
            kind,
            actor=call.actor.index,
            access_server=session.server.server,
            argument=session.number,
            **columns,
        )

    async def _read(self, stream: AsyncIterator[bytes], session: Session, call: Call) -> None:
        try:
            async for data in stream:
                await call.wait_for_turn()
                number, content = read_message(data)
                await self._handle(number, content, session, call)
            session.finish()
        except Exception as error:
            refusal = refused(error)
            if refusal is None:
                session.finish()
                raise
            session.end(refusal)

    async def _handle(self, number: int, content: bytes, session: Session, call: Call) -> None:
        if number in _COLUMN_MESSAGES:
            await self._handle_columns(number, content, session, call)
        elif number == _READY:
            outcome = await self._cell.submit(self._run(layout.SESSION_READY, session, call))
            self._still_stands(outcome, session)
            status = outcome["status"].tolist()[0]
            session.ready = session.ready or status in (layout.OK, layout.SAME)
            result = pb.ReadyResult(status=status)
            for found, count in sorted(session.differences.items()):
                result.differences.append(difference(found, count))
            session.put(pb.SessionResponse(ready_result=result).SerializeToString())
        elif number == _LOAD:
            load = pb.Load.FromString(content)
            columns = {
                "queue_wait_us": load.queue_wait_us,
                "service_us": load.service_us,
                "waiting": load.waiting if load.HasField("waiting") else layout.NONE_INDEX,
                "taken_count": load.taken_count,
                "allocation_wait_us": (
                    load.allocation_wait_us if load.HasField("allocation_wait_us") else layout.NONE_INDEX
                ),
                "failed_count": load.failed_count,
            }
            outcome = await self._cell.submit(self._run(layout.REPORT_LOAD, session, call, **columns))
            self._still_stands(outcome, session)
        elif number == _PING:
            pong = pb.Pong(nonce=pb.Ping.FromString(content).nonce)
            session.put(pb.SessionResponse(pong=pong).SerializeToString())
        elif number == _HELLO:
            raise Refused(HELLO_EXPECTED, "a second one came")

    async def _handle_columns(self, number: int, content: bytes, session: Session, call: Call) -> None:
        kind, request, answer, response = _COLUMN_MESSAGES[number]
        batch = request.decode(content)
        columns = b""
        if batch.count:
            call.charge(batch.count)
            commands = batch.run(
                kind, actor=call.actor.index, access_server=session.server.server, argument=session.number
            )
            outcome = await self._cell.submit(commands)
            if number == _HOLDS:
                self._still_stands(outcome, session)
            columns = response.encode(outcome.data, outcome.count)
            if number == _HOLDS:
                found, counts = np.unique(outcome["status"], return_counts=True)
                session.differences.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        session.put(wire.enclose(answer, columns))

    def _still_stands(self, outcome: OutcomeRun, session: Session) -> None:
        """Ends a stream that the core calls stale: it would otherwise wait for orders for another or nobody."""
        if layout.STALE_SESSION not in outcome["status"]:
            return
        if self._sessions.get(session.server.server) is session and not session.ready:
            # No newer one has taken its place.
            raise Refused(DECLARED_DEAD, session.server.name)
        raise Refused(FENCED, repr(session.server.name))

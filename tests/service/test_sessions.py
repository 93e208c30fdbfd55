"""Which orders a session is sent, what becomes of those that it does not understand, and how it ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import numpy as np
import pytest
from simswitch.cell import Cell, CellOverloaded, JournalFull
from simswitch.client import OperatorClient, Order, Result, SessionThread
from simswitch.client import Session as ClientSession
from simswitch.client.errors import ServiceError, service_error
from simswitch.core import layout
from simswitch.core.commands import ORDERS, OUTCOME_COLUMNS, OutcomeRun, run
from simswitch.service import sessions as module
from simswitch.service.call import Call
from simswitch.service.directory import Directory, Entity
from simswitch.service.sessions import Session, SessionHandlers
from simswitch.v1 import access_server_pb2 as pb
from simswitch.v1 import access_server_pb2_grpc, pool_pb2, status_pb2

from tests.service.serving import Serving


def orders(kinds: list[int], servers: list[int]) -> OutcomeRun:
    """Numbered from 1, all of session 7."""
    given = {"order": range(1, len(kinds) + 1), "kind": kinds, "access_server": servers, "session": [7] * len(kinds)}
    columns = [np.array(given.get(name, [0] * len(kinds)), dtype).tobytes() for name, dtype in OUTCOME_COLUMNS[ORDERS]]
    return OutcomeRun(ORDERS, len(kinds), memoryview(b"".join(columns)))


def sent(session: Session) -> list[tuple[int, int]]:
    """Numbers and kinds of the orders that wait to be sent."""
    session.finish()
    found: list[tuple[int, int]] = []
    while (message := asyncio.run(session.next())) is not None:
        told = pb.SessionResponse.FromString(message).orders
        found += list(zip(told.order, told.kind, strict=True))
    return found


def test_a_switch_is_withdrawn_only_from_who_said_that_it_understands() -> None:
    handlers = SessionHandlers(cast(Cell, None), cast(Directory, None))
    older, newer = (
        Session(Entity(server, layout.ACCESS_SERVER, f"as-{server}", (), b"", server), 7, withdraws=server == 1)
        for server in (0, 1)
    )
    handlers._sessions.update({0: older, 1: newer})
    handlers.deliver(orders([layout.SWITCH, layout.WITHDRAW, layout.WITHDRAW], [0, 0, 1]))
    handlers.deliver(orders([layout.WITHDRAW], [0]))
    assert sent(older) == [(1, layout.SWITCH)]
    assert sent(newer) == [(3, layout.WITHDRAW)]


class NewerService(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """It opens a session and sends one order, of a kind that nobody knows yet."""

    def __init__(self) -> None:
        self.hellos = 0
        self.results: asyncio.Queue[pb.Acknowledgements] = asyncio.Queue()

    def service(self, _: object) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._session)

    async def _session(self, stream: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        self.hellos += 1
        async for data in stream:
            request = pb.SessionRequest.FromString(data)
            match request.WhichOneof("message"):
                case "hello":
                    yield pb.SessionResponse(opened=pb.Opened(session=self.hellos)).SerializeToString()
                case "ready":
                    ready = pb.ReadyResult(status=cast(Any, layout.OK))
                    yield pb.SessionResponse(ready_result=ready).SerializeToString()
                    order = pb.Orders(order=[5], terminal=[7], epoch=[1], deadline_ms=[1], kind=[cast(Any, 77)])
                    for column in (order.source_iccid, order.target_iccid, order.target_bank, order.target_slot):
                        column.append(2 * 10**15 if column is order.source_iccid else 0)
                    yield pb.SessionResponse(orders=order).SerializeToString()
                case "acknowledgements":
                    await self.results.put(request.acknowledgements)


@asynccontextmanager
async def newer_service() -> AsyncIterator[tuple[NewerService, str]]:
    service = NewerService()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([service])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield service, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def never(order: Order) -> Result:
    raise AssertionError(order)


def test_an_order_of_a_kind_that_nobody_knows_yet_is_refused_and_the_session_goes_on() -> None:
    async def scenario() -> None:
        async with newer_service() as (service, address), ClientSession(address, "as-01", never) as session:
            session.start()
            async with asyncio.timeout(20):
                answer = await service.results.get()
            assert (list(answer.order), list(answer.result)) == ([5], [int(Result.REFUSED)])
            assert service.hellos == 1

    asyncio.run(scenario())


class Faulty(ClientSession):
    def _receive(self, link: Any, response: pb.SessionResponse) -> None:
        raise RuntimeError(f"unforeseen: {response.WhichOneof('message')} in session {link.session}")


def test_what_nobody_foresaw_breaks_the_link_and_not_the_session() -> None:
    errors: list[Exception] = []

    async def scenario() -> None:
        async with (
            newer_service() as (service, address),
            Faulty(address, "as-01", never, on_error=errors.append, pause_first_s=0.01) as session,
        ):
            session.start()
            async with asyncio.timeout(20):
                while service.hellos < 3:
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert str(errors[0]) == "unforeseen: orders in session 1"
    assert len(errors) >= 2


def test_a_close_that_found_no_room_is_said_again_so_that_a_dead_access_server_can_be_declared_dead(
    serving: Serving, pool: OperatorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back to nobody: there is no next hello that would close the session."""
    monkeypatch.setattr(module, "CLOSE_AGAIN_S", 0.01)
    journal, full, refusals = serving.cell._journal, threading.Event(), threading.Semaphore(0)
    assert journal is not None
    admit = journal.admit

    def admit_with_room(payload_bytes: int) -> None:
        if full.is_set():
            refusals.release()
            raise JournalFull("there is no room")
        admit(payload_bytes)

    monkeypatch.setattr(journal, "admit", admit_with_room)
    with SessionThread(serving.address, "as-01", lambda _: Result.DONE) as session:
        session.serving(20)
        full.set()
    for _ in range(10):
        assert refusals.acquire(timeout=20)
    full.clear()
    assert serving.running is not None
    sessions = serving.running.service.sessions
    end_s = time.monotonic() + 20
    while serving.in_loop(lambda: len(sessions._unclosed)):
        assert time.monotonic() < end_s
    assert pool.pool.DeclareDead(pool_pb2.DeclareDeadRequest(access_server="as-01"))
    status = pool.pool.GetAccessServerStatus(pool_pb2.GetAccessServerStatusRequest(name="as-01")).status
    assert status.gate == pool_pb2.GATE_DEAD


def test_a_close_that_the_queue_does_not_take_is_said_again() -> None:
    class Overloaded:
        """Its queue is full once."""

        def __init__(self) -> None:
            self.runs: list[bytes] = []

        def submit(self, run: bytes) -> asyncio.Future[OutcomeRun]:
            self.runs.append(run)
            if len(self.runs) == 1:
                raise CellOverloaded("16384 calls are waiting")
            answered = asyncio.get_running_loop().create_future()
            answered.set_result(None)
            return answered

    async def scenario() -> None:
        cell = Overloaded()
        handlers = SessionHandlers(cast(Cell, cell), cast(Directory, None))
        server = Entity(0, layout.ACCESS_SERVER, "as-01", (), b"", 0)
        session = handlers._sessions[0] = Session(server, 7)
        handlers._close(session, Call(cast(Any, server), None))
        async with asyncio.timeout(20):
            while handlers._unclosed:
                await asyncio.sleep(0.01)
        assert len(cell.runs) == 2
        assert cell.runs[0] == cell.runs[1]

    asyncio.run(scenario())


def test_a_session_that_only_pings_and_does_not_become_ready_ends(
    serving: Serving, pool: OperatorClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a restore all others wait for it while it stands."""
    monkeypatch.setattr(module, "READY_WITHIN_S", 0.1)

    async def scenario() -> None:
        async with grpc.aio.insecure_channel(serving.address) as channel, asyncio.timeout(20):
            stub: Any = access_server_pb2_grpc.AccessServerServiceStub(channel)
            call = stub.Session()
            await call.write(pb.SessionRequest(hello=pb.Hello(access_server="as-01")))
            await call.write(pb.SessionRequest(ping=pb.Ping(nonce=1)))
            while isinstance(await call.read(), pb.SessionResponse):
                pass

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        asyncio.run(scenario())
    error = service_error(caught.value)
    assert error.reason == "READY_EXPECTED"
    assert error.retry_after_ms, "without it our client would not come again"
    assert "the session of as-01 is ended" in caplog.text
    assert pool.pool.DeclareDead(pool_pb2.DeclareDeadRequest(access_server="as-01"))


async def end_of(stream: Any) -> ServiceError:
    try:
        while isinstance(await stream.read(), pb.SessionResponse):
            pass
    except grpc.aio.AioRpcError as error:
        return service_error(error)
    raise AssertionError("it ended well")


def test_a_declaration_of_death_ends_a_session_that_is_not_ready(serving: Serving, pool: OperatorClient) -> None:
    """And it comes again at once, which undoes nothing; to become ready does."""
    request = pool_pb2.DeclareDeadRequest(access_server="as-01")

    def gate() -> int:
        status = pool_pb2.GetAccessServerStatusRequest(name="as-01")
        return pool.pool.GetAccessServerStatus(status).status.gate

    async def scenario() -> str:
        async with grpc.aio.insecure_channel(serving.address) as channel, asyncio.timeout(20):
            stub: Any = access_server_pb2_grpc.AccessServerServiceStub(channel)
            hello = pb.SessionRequest(hello=pb.Hello(access_server="as-01"))
            first = stub.Session()
            await first.write(hello)
            assert (await first.read()).WhichOneof("message") == "opened"
            assert (await asyncio.to_thread(pool.pool.DeclareDead, request)).status.gate == pool_pb2.GATE_DEAD
            error = await end_of(first)
            assert error.retry_after_ms, "without it our client would not come again"
            second = stub.Session()
            await second.write(hello)
            assert (await second.read()).WhichOneof("message") == "opened"
            assert await asyncio.to_thread(gate) == pool_pb2.GATE_DEAD
            await second.write(pb.SessionRequest(ready=pb.Ready()))
            assert (await second.read()).ready_result.status == status_pb2.STATUS_OK
            assert await asyncio.to_thread(gate) == pool_pb2.GATE_OPEN
            with pytest.raises(grpc.RpcError, match="a session that is ready"):
                await asyncio.to_thread(pool.pool.DeclareDead, request)
            return error.reason

    assert asyncio.run(scenario()) == "DECLARED_DEAD"


def test_a_session_that_a_burial_ended_is_not_told_of_a_newer_one(serving: Serving, pool: OperatorClient) -> None:
    """There is none, and a client that is told so stays away."""
    assert pool
    assert serving.running is not None
    sessions = serving.running.service.sessions

    async def scenario() -> str:
        async with grpc.aio.insecure_channel(serving.address) as channel, asyncio.timeout(20):
            stub: Any = access_server_pb2_grpc.AccessServerServiceStub(channel)
            stream = stub.Session()
            await stream.write(pb.SessionRequest(hello=pb.Hello(access_server="as-01")))
            assert (await stream.read()).WhichOneof("message") == "opened"
            (index,) = serving.in_loop(lambda: list(sessions._sessions))
            dead = run(layout.DECLARE_DEAD, 1, access_server=index, undo=0)
            await asyncio.to_thread(serving.in_loop, lambda: sessions._cell.submit(dead))
            await stream.write(pb.SessionRequest(ready=pb.Ready()))
            return (await end_of(stream)).reason

    assert asyncio.run(scenario()) == "DECLARED_DEAD"


def test_a_session_that_is_ready_goes_on(serving: Serving, pool: OperatorClient) -> None:
    assert pool
    assert serving.running is not None
    sessions = serving.running.service.sessions
    with SessionThread(serving.address, "as-01", lambda _: Result.DONE) as client:
        client.serving(20)
        (session,) = serving.in_loop(lambda: list(sessions._sessions.values()))
        serving.in_loop(lambda: sessions._end_unready(session))
        assert session.ending is None

"""The session of an access server with a real service: orders, fencing, the service away, reconciliation."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from simswitch.client import (
    AsyncClient,
    Client,
    Fenced,
    Holdings,
    Lease,
    OperatorClient,
    Order,
    Result,
    ServiceError,
    Session,
    SessionState,
    SessionThread,
)
from simswitch.client.operator import iccid_column
from simswitch.client.session import OrderKind
from simswitch.core import layout
from simswitch.v1 import access_server_pb2 as pb
from simswitch.v1 import access_server_pb2_grpc, inventory_pb2, pool_pb2, sim_pb2, status_pb2, swap_pb2

from tests.service.serving import Serving, define

OK, SAME = status_pb2.STATUS_OK, status_pb2.STATUS_SAME


async def done(order: Order) -> Result:
    assert order.number
    return Result.DONE


async def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def slow(operator: OperatorClient, leases: list[Lease]) -> None:
    """The carrier slows the SIMs of these leases."""
    request = inventory_pb2.SetSimHealthRequest(
        iccid=iccid_column(lease.iccid for lease in leases), health=sim_pb2.HEALTH_THROTTLED
    )
    assert set(operator.inventory.SetSimHealth(request).status) == {OK}


def move(operator: OperatorClient, **options: Any) -> int:
    request = swap_pb2.CreateJobRequest(reason="slowed", healths=[sim_pb2.HEALTH_THROTTLED], **options)
    return operator.swaps.CreateJob(request).job.number


def job_of(operator: OperatorClient, number: int) -> swap_pb2.Job:
    return operator.swaps.GetJob(swap_pb2.GetJobRequest(job=number)).job


def test_a_bulk_switch_reaches_the_access_server(serving: Serving, pool: OperatorClient) -> None:
    async def scenario() -> None:
        holdings = Holdings()
        async with AsyncClient(serving.address, access_server="as-01", holdings=holdings) as client:
            await client.allocate_many(np.arange(1, 61), "jp")
        before = {lease.terminal: lease for lease in holdings}
        async with Session(serving.address, "as-01", done, holdings=holdings) as session:
            session.start()
            found = await session.serving(20)
            assert found.differences == {SAME: 60}
            await asyncio.to_thread(slow, pool, list(before.values())[:50])
            number = await asyncio.to_thread(move, pool)
            await until(lambda: job_of(pool, number).state == swap_pb2.JOB_STATE_DONE)
            assert job_of(pool, number).confirmed_count == 50
            after = {lease.terminal: lease for lease in holdings}
            assert sum(after[terminal].iccid != lease.iccid for terminal, lease in before.items()) == 50
            sims = serving.cell.call_read(
                lambda machine: {key: machine.terminal(machine.find_terminal(key) or 0)["epoch"] for key in after}
            )
            assert sims == {terminal: lease.epoch for terminal, lease in after.items()}

    asyncio.run(scenario())


def test_usage_and_load_go_up(serving: Serving, pool: OperatorClient) -> None:
    async def scenario() -> None:
        holdings = Holdings()
        async with (
            AsyncClient(serving.address, access_server="as-01", holdings=holdings) as client,
            Session(serving.address, "as-01", done, holdings=holdings) as session,
        ):
            assert not session.report_load(1, 2)
            with pytest.raises(ServiceError, match="away"):
                await session.report_usage([1], [1], 1, 1)
            session.start()
            await session.serving(20)
            lease = await client.allocate(1, "jp")
            assert (await session.report_usage([1], [lease.epoch], 3, 4)).tolist() == [OK]
            assert session.report_load(25_000, 1_500)
            await until(lambda: (told().queue_wait_us, told().service_us) == (25_000, 1_500))
            assert not told().HasField("waiting")
            # Of what comes in quick succession the last is sent, with the longest wait.
            for waiting in range(5):
                assert session.report_load(25_000, 1_500, waiting, 9_000 - waiting)
            await until(lambda: told().HasField("waiting"))
            assert (told().waiting, told().allocation_wait_us) in {(4, 9_000), (0, 9_000)}
            await until(lambda: told().waiting == 4)

    def told() -> pool_pb2.AccessServerStatus:
        return pool.pool.GetAccessServerStatus(pool_pb2.GetAccessServerStatusRequest(name="as-01")).status

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("result", "error"),
    [(Result.REFUSED, None), (Result.DONE, RuntimeError("the modem is gone")), (1, TypeError), (None, TypeError)],
)
def test_a_refused_switch_leaves_the_terminal_as_it_was(
    serving: Serving, pool: OperatorClient, result: Any, error: Exception | type[Exception] | None
) -> None:
    async def scenario() -> None:
        holdings = Holdings()
        errors: list[Exception] = []

        async def refuse(_order: Order) -> Result:
            if isinstance(error, Exception):
                raise error
            answer: Result = result
            return answer

        async with AsyncClient(serving.address, access_server="as-01", holdings=holdings) as client:
            lease = await client.allocate(1, "jp")
        async with Session(serving.address, "as-01", refuse, holdings=holdings, on_error=errors.append) as session:
            session.start()
            await session.serving(20)
            await asyncio.to_thread(slow, pool, [lease])
            number = await asyncio.to_thread(move, pool)
            await until(lambda: job_of(pool, number).refused_count >= 1)
        held = holdings.get(1)
        assert held is not None
        assert (held.epoch, held.iccid) == (lease.epoch, lease.iccid)
        if isinstance(error, type):
            assert isinstance(errors[0], error)
        else:
            assert errors[:1] == ([] if error is None else [error])

    asyncio.run(scenario())


def test_a_newer_session_fences_the_older(serving: Serving, pool: OperatorClient) -> None:
    assert pool

    async def scenario() -> None:
        first = Session(serving.address, "as-01", done)
        task = first.start()
        await first.serving(20)
        async with Session(serving.address, "as-01", done) as second:
            second.start()
            newer = await second.serving(20)
            with pytest.raises(Fenced, match="as-01"):
                await asyncio.wait_for(task, 20)
            assert first.state is SessionState.FENCED
            assert first.reconciliation is not None
            assert newer.session > first.reconciliation.session
            assert second.state is SessionState.SERVING

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("access_server", "actor", "reason"),
    [
        ("nobody", "operator:local", "UNKNOWN_ACCESS_SERVER"),
        ("as-01", "access-server:as-02", "NOT_PERMITTED"),
        ("as-01", "auditor:ann", "NOT_PERMITTED"),
    ],
)
def test_a_session_that_is_refused_for_good_says_so(
    serving: Serving, pool: OperatorClient, access_server: str, actor: str, reason: str
) -> None:
    assert pool

    async def scenario() -> None:
        session = Session(serving.address, access_server, done, actor=actor)
        with pytest.raises(ServiceError) as caught:
            await asyncio.wait_for(session.run(), 20)
        assert caught.value.reason == reason

    asyncio.run(scenario())


class Losing(Session):
    """The first orders that come are lost."""

    lost: pb.Orders | None = None

    def _receive(self, link: Any, response: pb.SessionResponse) -> None:
        if response.WhichOneof("message") == "orders" and self.lost is None:
            self.lost = response.orders
        else:
            super()._receive(link, response)


def test_a_switch_that_was_lost_and_whose_target_died_is_withdrawn_and_another_comes(
    serving: Serving, pool: OperatorClient
) -> None:
    settings = [
        pool_pb2.SettingValue(setting=setting, value=1_000)
        for setting in (pool_pb2.SETTING_ORDER_DEADLINE_MS, pool_pb2.SETTING_UNKNOWN_ASK_MS)
    ]
    pool.pool.Configure(pool_pb2.ConfigureRequest(settings=settings))

    async def scenario() -> None:
        holdings = Holdings()
        carried_out: list[Order] = []

        async def carry_out(order: Order) -> Result:
            carried_out.append(order)
            return Result.DONE

        async with AsyncClient(serving.address, access_server="as-01", holdings=holdings) as client:
            await client.allocate_many([1], "jp")
        (lease,) = holdings
        async with Losing(serving.address, "as-01", carry_out, holdings=holdings) as session:
            session.start()
            await session.serving(20)
            await asyncio.to_thread(slow, pool, [lease])
            number = await asyncio.to_thread(move, pool)
            await until(lambda: session.lost is not None)
            assert session.lost is not None
            (target,) = session.lost.target_iccid
            dead = inventory_pb2.SetSimHealthRequest(iccid=[target], health=sim_pb2.HEALTH_SUSPENDED)
            await asyncio.to_thread(pool.inventory.SetSimHealth, dead)
            await until(lambda: job_of(pool, number).state == swap_pb2.JOB_STATE_DONE)
        assert [order.kind for order in carried_out] == [OrderKind.SWITCH]
        assert iccid_column([carried_out[0].target_iccid or ""]) != [target]
        job = job_of(pool, number)
        assert (job.confirmed_count, job.given_up_count) == (1, 0)

    asyncio.run(scenario())


def test_hello_comes_first_and_once(serving: Serving, pool: OperatorClient) -> None:
    assert pool
    hello = pb.SessionRequest(hello=pb.Hello(access_server="as-01"))
    with grpc.insecure_channel(serving.address) as channel:
        stub = access_server_pb2_grpc.AccessServerServiceStub(channel)
        for requests in ([pb.SessionRequest(ready=pb.Ready())], [hello, hello], []):
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.Session(iter(requests)))
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        replies = list(stub.Session(iter([hello, pb.SessionRequest(ping=pb.Ping(nonce=7))])))
        assert [reply.WhichOneof("message") for reply in replies] == ["opened", "pong"]
        assert replies[1].pong.nonce == 7


def test_acknowledging_what_was_never_ordered(serving: Serving, pool: OperatorClient) -> None:
    assert pool
    opening = [pb.SessionRequest(hello=pb.Hello(access_server="as-01")), pb.SessionRequest(ready=pb.Ready())]
    done, refused = pb.ACKNOWLEDGEMENT_RESULT_DONE, pb.ACKNOWLEDGEMENT_RESULT_REFUSED
    never = pb.Acknowledgements(order=[0xFFFFFF, 1], result=[done, refused])
    uneven = pb.Acknowledgements(order=[1, 2], result=[done])
    with grpc.insecure_channel(serving.address) as channel:
        stub = access_server_pb2_grpc.AccessServerServiceStub(channel)
        replies = list(stub.Session(iter([*opening, pb.SessionRequest(acknowledgements=never)])))
        assert list(replies[2].acknowledgements_result.status) == [status_pb2.STATUS_UNKNOWN_ORDER] * 2
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.Session(iter([*opening, pb.SessionRequest(acknowledgements=uneven)])))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_drain_keeps_the_holdings_and_the_session_comes_back(serving: Serving, pool: OperatorClient) -> None:
    assert pool
    states: list[SessionState] = []

    async def scenario() -> None:
        holdings = Holdings()
        port = serving.address
        async with AsyncClient(port, access_server="as-01", holdings=holdings) as client:
            await client.allocate_many([1, 2, 3], "jp")
        session = Session(
            port, "as-01", done, holdings=holdings, on_state=states.append, pause_max_s=0.3, pause_first_s=0.1
        )
        async with session:
            session.start()
            await session.serving(20)
            await asyncio.to_thread(serving.drain)
            await until(lambda: session.state is SessionState.WAITING)
            assert len(holdings) == 3
            await asyncio.to_thread(serving.begin, int(port.rpartition(":")[2]))
            await until(lambda: session.state is SessionState.SERVING)
            assert session.reconciliation is not None
            assert session.reconciliation.differences == {SAME: 3}

    asyncio.run(scenario())
    assert states.count(SessionState.SERVING) == 2


def test_what_the_service_does_not_know_is_told_and_dropped(serving: Serving, pool: OperatorClient) -> None:
    assert pool
    holdings = Holdings()
    holdings.hold(Lease(terminal=5, epoch=1, iccid="8900000000000000000"))
    told: list[Lease] = []

    async def scenario() -> None:
        async with Session(serving.address, "as-01", done, holdings=holdings) as session:
            session.start()
            found = await session.serving(20)
            assert found.differences == {status_pb2.STATUS_UNKNOWN_SIM: 1}
        assert len(holdings) == 1, "nobody was there to take the terminal off the SIM"
        session = Session(serving.address, "as-01", done, holdings=holdings, on_unknown=told.append)
        async with session:
            session.start()
            await session.serving(20)

    asyncio.run(scenario())
    assert len(holdings) == 0
    assert [lease.terminal for lease in told] == [5]


@pytest.mark.parametrize("status", [layout.WRONG_STATE, layout.STALE_SESSION])
def test_a_refused_list_keeps_the_holdings(
    serving: Serving, pool: OperatorClient, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The service has a word against the row, not against the lease: nothing is forgotten, and READY is not said."""
    assert pool
    real = Session._awaited
    refusals = 1

    async def refusing(self: Session, link: Any, wanted: str) -> pb.SessionResponse:
        nonlocal refusals
        response = await real(self, link, wanted)
        if wanted == "holds_result" and refusals:
            refusals -= 1
            statuses: Any = response.holds_result.status
            statuses[:] = [status] * len(statuses)
        return response

    monkeypatch.setattr(Session, "_awaited", refusing)

    async def scenario() -> None:
        holdings = Holdings()
        async with AsyncClient(serving.address, access_server="as-01", holdings=holdings) as client:
            await client.allocate_many(np.arange(1, 101), "jp")
        async with Session(serving.address, "as-01", done, holdings=holdings, pause_first_s=0.05) as session:
            session.start()
            if status == layout.STALE_SESSION:
                with pytest.raises(Fenced):
                    await session.serving(20)
            else:
                assert (await session.serving(20)).differences == {SAME: 100}
        assert len(holdings) == 100

    asyncio.run(scenario())


def test_an_answer_that_does_not_come_is_no_end(
    serving: Serving, pool: OperatorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pool
    real = Session._awaited
    silences = 1

    async def silent(self: Session, link: Any, wanted: str) -> pb.SessionResponse:
        nonlocal silences
        if silences:
            silences -= 1
            await asyncio.Event().wait()
        return await real(self, link, wanted)

    monkeypatch.setattr(Session, "_awaited", silent)
    monkeypatch.setattr("simswitch.client.session.ANSWER_WITHIN_S", 0.5)

    async def scenario() -> None:
        async with Session(serving.address, "as-01", done, pause_first_s=0.05) as session:
            session.start()
            await session.serving(20)
        assert silences == 0

    asyncio.run(scenario())


def test_only_the_service_s_own_final_reasons_end_a_session() -> None:
    session = Session("127.0.0.1:1", "as-01", done)
    for code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED):
        session._judge(ServiceError(code, "", "gRPC's own", 0))
    session._judge(ServiceError(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "busy", 100))
    with pytest.raises(ServiceError, match="nobody"):
        session._judge(ServiceError(grpc.StatusCode.NOT_FOUND, "UNKNOWN_ACCESS_SERVER", "nobody", 0))


def test_waiting_to_serve_ends_with_the_session(serving: Serving, pool: OperatorClient) -> None:
    assert pool

    async def scenario() -> None:
        session = Session(serving.address, "nobody", done, actor="operator:local")
        session.start()
        with pytest.raises(ServiceError) as caught:
            await asyncio.wait_for(session.serving(), 20)
        assert caught.value.reason == "UNKNOWN_ACCESS_SERVER"
        await session.close()

    asyncio.run(scenario())


def test_session_thread(serving: Serving, pool: OperatorClient) -> None:
    holdings = Holdings()
    ordered = threading.Event()

    def carry_out(order: Order) -> Result:
        assert order.target_iccid
        ordered.set()
        return Result.DONE

    with (
        Client(serving.address, access_server="as-01", holdings=holdings) as client,
        SessionThread(serving.address, "as-01", carry_out, holdings=holdings) as session,
    ):
        session.serving(20)
        lease = client.allocate(1, "jp")
        session.report_load(0, 1_000)
        assert session.report_usage([1], [lease.epoch], 1, 1).tolist() == [OK]
        slow(pool, [lease])
        number = move(pool)
        assert ordered.wait(20)
        for reply in pool.swaps.WatchJob(swap_pb2.WatchJobRequest(job=number, interval_ms=100)):
            last = reply.job
        assert (last.state, last.confirmed_count) == (swap_pb2.JOB_STATE_DONE, 1)
        moved = holdings.get(1)
        assert moved is not None
        assert moved.iccid != lease.iccid


@pytest.mark.parametrize("of", ["messages", "bytes"])
def test_a_slow_consumer_is_let_go(serving: Serving, of: str) -> None:
    from simswitch.service.directory import Entity
    from simswitch.service.errors import Refused
    from simswitch.service.sessions import OUTGOING_BYTES_MAX, OUTGOING_MAX
    from simswitch.service.sessions import Session as Side

    assert serving

    async def scenario() -> None:
        side = Side(Entity(1, layout.ACCESS_SERVER, "as-01", (), b"", 0), 1)
        for _ in range(OUTGOING_MAX if of == "messages" else 1):
            side.put(b"x" if of == "messages" else bytes(OUTGOING_BYTES_MAX))
        assert side.ending is None
        side.put(b"x")
        with pytest.raises(Refused) as caught:
            await side.next()
        assert caught.value.reason.name == "SLOW_CONSUMER"

    asyncio.run(scenario())


# --------------------------------------------------------------------------------------- a process that is killed

SERVER = """
import asyncio, sys
from simswitch.cell import Capacity
from simswitch.service.server import serve
from simswitch.service.settings import ServerSettings
settings = ServerSettings(port=int(sys.argv[2]), capacity=Capacity(2_000, 2_000, 1_000))
asyncio.run(serve(sys.argv[1], settings, ready=lambda address: print(address, flush=True)))
"""


def launch(folder: Path, port: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder), str(port)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address == f"127.0.0.1:{port}", address
    return process


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize(
    "options",
    [{}, {"announce_ahead_ms": 500, "canary_count": 10, "rate_per_minute": 3_000}],
    ids=["plain", "announced, canary, rate"],
)
def test_kill_in_the_middle_of_a_job_loses_nothing(tmp_path: Path, options: dict[str, int]) -> None:
    """I6, seen from outside: what was acknowledged stands after SIGKILL, and the job goes on to its end."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    server = launch(tmp_path / "data", port)
    try:
        with OperatorClient(address) as operator:
            define(operator)

        async def scenario() -> None:
            nonlocal server
            holdings = Holdings()
            carried_out: list[Order] = []

            async def carry_out(order: Order) -> Result:
                carried_out.append(order)
                return Result.DONE

            async with AsyncClient(address, access_server="as-01", holdings=holdings) as client:
                grants = await client.allocate_many(np.arange(1, 81), "jp")
                assert set(grants.status.tolist()) == {OK}
            before = {lease.terminal: lease for lease in holdings}
            source = random.Random(1)
            session = Session(
                address, "as-01", carry_out, holdings=holdings, pause_first_s=0.1, pause_max_s=0.5, random_source=source
            )
            async with session:
                session.start()
                await session.serving(20)

                def order_job() -> int:
                    with OperatorClient(address) as operator:
                        slow(operator, list(before.values()))
                        return move(operator, **options)

                number = await asyncio.to_thread(order_job)
                await until(lambda: len(carried_out) >= 5)
                os.kill(server.pid, signal.SIGKILL)
                await asyncio.to_thread(server.wait)
                await until(lambda: session.state is not SessionState.SERVING)
                assert {lease.terminal for lease in holdings} == set(before)
                server = await asyncio.to_thread(launch, tmp_path / "data", port)
                await until(lambda: session.state is SessionState.SERVING)

                def finish() -> swap_pb2.Job:
                    with OperatorClient(address) as operator:
                        request = swap_pb2.WatchJobRequest(job=number, interval_ms=100)
                        job = swap_pb2.Job()
                        for reply in operator.swaps.WatchJob(request, timeout=40):
                            job = reply.job
                        return job

                job = await asyncio.to_thread(finish)
                assert job.state == swap_pb2.JOB_STATE_DONE
                assert (job.terminals_count, job.confirmed_count) == (len(before), len(before))
                after = {lease.terminal: lease for lease in holdings}
                assert set(after) == set(before)
                assert all(after[key].iccid != before[key].iccid for key in before)
                assert len({lease.iccid for lease in after.values()}) == len(after)
            async with AsyncClient(address, access_server="as-01") as client:
                keys = sorted(after)
                renewed = await client.renew(keys, [after[key].epoch for key in keys])
                assert set(renewed.status.tolist()) == {OK}

        asyncio.run(scenario())
        assert (tmp_path / "data" / "address").read_text().strip() == address
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        assert not (tmp_path / "data" / "address").exists()
    finally:
        if server.poll() is None:
            server.kill()
        server.wait()


@pytest.mark.usefixtures("pool")
def test_sessions_that_end_leave_nothing_to_a_loop_that_is_closed(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 90 that ended so 32 did: grpc.aio has one queue for all loops of a process."""
    for _ in range(15):
        sessions = [SessionThread(serving.address, name, lambda _: Result.DONE) for name in ("as-01", "as-02")]
        for session in sessions:
            session.serving(20)
        for session in sessions:
            session.close()
    assert not [record for record in caplog.records if record.name == "asyncio"]

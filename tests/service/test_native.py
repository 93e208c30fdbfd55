"""What only the native transport does: calls that join others, and two servers behind one port."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from simswitch.client import OperatorClient
from simswitch.service import server as service
from simswitch.v1 import allocation_pb2 as pb
from simswitch.v1 import status_pb2

from tests.service.conftest import NATIVE
from tests.service.serving import SIMS, Serving

ALLOCATE = "/simswitch.v1.AllocationService/Allocate"
SESSION = "/simswitch.v1.AccessServerService/Session"


@pytest.fixture(params=[NATIVE])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def single(terminal: int, market: str = "jp", access_server: str = "as-01") -> bytes:
    return pb.AllocateRequest(access_server=access_server, market=market, terminal=terminal).SerializeToString()


def allocating(channel: grpc.Channel) -> Any:
    return channel.unary_unary(ALLOCATE, None, None)


class HeldUp:
    """The cell's workers wait in a read until they are let go, so that calls pile up behind it."""

    def __init__(self, serving: Serving) -> None:
        self._cell = serving.cell
        self._leave = threading.Event()
        entered = threading.Event()

        def hold_up(_machine: object) -> None:
            entered.set()
            self._leave.wait(20)

        self._holding = threading.Thread(target=serving.cell.call_read, args=(hold_up,))
        self._holding.start()
        assert entered.wait(20)

    def wait_for(self, queued: int) -> None:
        while self._cell.statistics().queued_calls < queued:
            threading.Event().wait(0.001)

    def let_go(self) -> None:
        self._leave.set()
        self._holding.join()


@pytest.fixture
def held_up(serving: Serving, pool: OperatorClient) -> Iterator[HeldUp]:
    assert pool
    with grpc.insecure_channel(serving.address) as channel:
        allocating(channel)(single(0), timeout=10)
    held_up = HeldUp(serving)
    yield held_up
    held_up.let_go()


def test_singles_that_join_are_answered_each_for_itself(serving: Serving, held_up: HeldUp) -> None:
    """More than there are SIMs, from two access servers, unknown names among them; a batch of them is one run."""
    sequence = serving.cell.durable_sequence
    asked = [(terminal, "jp", f"as-0{terminal % 2 + 1}") for terminal in range(1, SIMS + 50)]
    asked[7] = (7, "nowhere", "as-01")
    asked[8] = (8, "jp", "nobody")
    with grpc.insecure_channel(serving.address) as channel:
        call = allocating(channel)
        calls = [call.future(single(*one), timeout=30) for one in asked]
        held_up.wait_for(2)
        held_up.let_go()
        outcomes = [
            (one, found.exception() or pb.AllocateResponse.FromString(found.result()))
            for one, found in zip(asked, calls, strict=True)
        ]
    leases = [outcome.lease for _, outcome in outcomes if isinstance(outcome, pb.AllocateResponse)]
    refusals = {one: outcome for one, outcome in outcomes if not isinstance(outcome, pb.AllocateResponse)}
    assert len(leases) == SIMS - 1
    assert len({lease.iccid for lease in leases}) == SIMS - 1
    for one, outcome in outcomes:
        if one not in refusals:
            assert outcome.lease.terminal == one[0]
            assert outcome.status == status_pb2.STATUS_OK
    assert "market is called 'nowhere'" in str(refusals[asked[7]].details())
    assert "access server is called 'nobody'" in str(refusals[asked[8]].details())
    full = [refusal for one, refusal in refusals.items() if one not in asked[7:9]]
    assert {refusal.code() for refusal in full} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert all(dict(refusal.trailing_metadata())["grpc-status-details-bin"] for refusal in full)
    # The workers had nothing else to do: far fewer records than calls.
    assert serving.cell.durable_sequence - sequence < len(asked) // 2


def test_a_deadline_among_singles_that_join_ends_only_its_own_call(serving: Serving, held_up: HeldUp) -> None:
    assert held_up
    with grpc.insecure_channel(serving.address) as channel:
        call = allocating(channel)
        short = [call.future(single(terminal), timeout=0.3) for terminal in (1, 3)]
        long = [call.future(single(terminal), timeout=30) for terminal in (2, 4)]
        assert {found.exception().code() for found in short} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        held_up.let_go()
        leases = [pb.AllocateResponse.FromString(found.result()).lease for found in long]
    assert [lease.terminal for lease in leases] == [2, 4]
    assert serving.cell.call_read(lambda machine: machine.header()["terminals_count"]) == 3


def test_singles_that_all_left_are_dropped(serving: Serving, held_up: HeldUp) -> None:
    with grpc.insecure_channel(serving.address) as channel:
        calls = [allocating(channel).future(single(terminal), timeout=30) for terminal in (1, 2)]
        held_up.wait_for(1)
        for call in calls:
            call.cancel()
        # The front tells of those that left in its own time.
        running = serving.running
        assert running is not None
        assert running._front is not None
        while not all(waiting.cancelled for waiting in running._front._waiting.values()):
            threading.Event().wait(0.001)
        held_up.let_go()
    assert serving.cell.call_read(lambda machine: machine.header()["terminals_count"]) == 1


def test_what_was_taken_is_answered_when_the_server_drains(serving: Serving, held_up: HeldUp) -> None:
    """What comes later is refused, and nothing that was applied stays unanswered."""
    answers: list[Any] = []
    with grpc.insecure_channel(serving.address) as channel:
        calls = [allocating(channel).future(single(terminal), timeout=30) for terminal in range(1, 101)]
        held_up.wait_for(1)
        draining = threading.Thread(target=serving.drain)
        draining.start()
        held_up.let_go()
        for call in calls:
            error = call.exception()
            answers.append(call.result() if error is None else error)
        draining.join()
    refused = [answer for answer in answers if isinstance(answer, grpc.RpcError)]
    assert {answer.code() for answer in refused} <= {grpc.StatusCode.UNAVAILABLE}
    serving.begin()
    terminals = serving.cell.call_read(lambda machine: machine.header()["terminals_count"])
    assert terminals == 1 + len(answers) - len(refused)


def test_of_several_actors_the_last_counts(serving: Serving, pool: OperatorClient) -> None:
    """As with grpcio: a proxy adds its word behind that of the client."""
    assert pool
    with grpc.insecure_channel(serving.address) as channel:
        call = allocating(channel)
        actors = [("simswitch-actor", actor) for actor in ("operator:local", "auditor:ann")]
        with pytest.raises(grpc.RpcError) as caught:
            call(single(1), timeout=10, metadata=actors)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert call(single(1), timeout=10, metadata=actors[::-1])


def test_without_its_package_the_transport_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygrpc_native", None)
    monkeypatch.delitem(sys.modules, "simswitch.service.native", raising=False)
    with pytest.raises(service.TransportMissing, match=r"pip install 'simswitch\[native\]'"):
        asyncio.run(service.serve(tmp_path / "data", service.ServerSettings(transport="native")))
    assert not (tmp_path / "data").exists()


def test_only_loopback(tmp_path: Path) -> None:
    settings = service.ServerSettings(host="0.0.0.0", transport="native")
    with pytest.raises(service.AddressNotAllowed, match="TLS"):
        asyncio.run(service.serve(tmp_path / "data", settings))


def test_a_port_that_is_taken_is_an_error(serving: Serving, tmp_path: Path) -> None:
    port = int(serving.address.rpartition(":")[2])
    settings = service.ServerSettings(port=port, transport="native", follower=False)
    with pytest.raises(OSError, match="in use"):
        asyncio.run(service.serve(tmp_path / "other", settings))


def test_a_client_that_dies_frees_its_session(serving: Serving, pool: OperatorClient) -> None:
    """The stream goes through the front: its end has to come through, too."""
    assert pool
    from simswitch.v1 import access_server_pb2

    channel = grpc.insecure_channel(serving.address)
    hello = access_server_pb2.SessionRequest(hello=access_server_pb2.Hello(access_server="as-01"))
    more = threading.Event()

    def requests() -> Iterator[bytes]:
        yield hello.SerializeToString()
        more.wait(20)

    replies: Any = channel.stream_stream(SESSION, None, None)(requests())
    assert access_server_pb2.SessionResponse.FromString(next(replies)).opened.session
    assert serving.running is not None
    sessions = serving.running.service.sessions
    assert sessions.count == 1
    channel.close()
    more.set()
    while sessions.count:
        threading.Event().wait(0.001)

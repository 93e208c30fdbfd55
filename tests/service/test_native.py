"""What only the native transport does: two servers behind one port, and its own end."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from simswitch.access.tokens import create_token
from simswitch.client import OperatorClient
from simswitch.service import server as service
from simswitch.service.access import AccessSettings
from simswitch.service.joined import SINGLE
from simswitch.service.settings import AddressNotAllowed, ServerSettings, TransportMissing
from simswitch.v1 import allocation_pb2

from tests.service.conftest import NATIVE
from tests.service.joining import HeldUp, allocating, single
from tests.service.serving import Serving, define
from tests.service.test_overload import until

RENEW = "/simswitch.v1.AllocationService/Renew"
SESSION = "/simswitch.v1.AccessServerService/Session"


@pytest.fixture(params=[NATIVE])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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


def test_calls_that_leave_before_their_turn_are_no_failures(
    transport: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Many do where much is to be done: neither the log nor the figures may call it the service's fault."""
    serving = Serving(tmp_path / "data", transport, options={"metrics": ("127.0.0.1", 0)})
    try:
        with OperatorClient(serving.address) as operator:
            define(operator)
        renew = allocation_pb2.RenewRequest(access_server="as-01", terminal=[1], epoch=[1]).SerializeToString()
        with grpc.insecure_channel(serving.address) as channel:
            assert allocating(channel)(single(0), timeout=10)
            held_up = HeldUp(serving)
            calls: list[Any] = [channel.unary_unary(RENEW, None, None).future(renew, timeout=30) for _ in range(5)]
            calls.append(allocating(channel).future(single(1), timeout=30))
            held_up.wait_for(6)
            for call in calls:
                call.cancel()
            until(lambda: all(waiting.cancelled for waiting in list(serving.cell._queue)))
            held_up.let_go()
        assert serving.running is not None
        served = serving.running.service.served
        assert served is not None
        until(lambda: sum(served._codes[RENEW]) == 5 and sum(served._codes[SINGLE]) == 2)
        counts = dict(served.counts())
    finally:
        serving.end()
    assert [failed for failed in caplog.messages if "a call failed" in failed] == []
    assert counts["AllocationService/Renew", "CANCELLED"] == 5
    assert counts["AllocationService/Allocate", "CANCELLED"] == 1


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


def test_the_first_calls_of_an_actor_keep_pace_too(transport: str, tmp_path: Path) -> None:
    """All that come before he is known."""
    serving = Serving(tmp_path, transport, options={"access": AccessSettings(required=True, people_calls_per_s=2)})
    assert serving.running is not None
    _, token = create_token(tmp_path, "operator:alice", 3_600_000)
    access = serving.running.service.access
    until(lambda: bool(access._tokens))
    held = threading.Event()
    serving.hold_loop(held)
    with grpc.insecure_channel(serving.address) as channel:
        proven = [("authorization", f"Bearer {token}")]
        calls = [allocating(channel).future(single(terminal), metadata=proven, timeout=30) for terminal in range(1, 21)]
        overload = serving.running.service.overload
        until(lambda: overload.taken_count >= len(calls))
        held.set()
        codes = Counter(call.exception().code() for call in calls)
    assert codes[grpc.StatusCode.RESOURCE_EXHAUSTED] >= 15
    assert codes[grpc.StatusCode.NOT_FOUND]
    serving.end()


def test_without_its_package_the_transport_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygrpc_native", None)
    monkeypatch.delitem(sys.modules, "simswitch.service.native", raising=False)
    with pytest.raises(TransportMissing, match=r"pip install 'simswitch\[native\]'"):
        asyncio.run(service.serve(tmp_path / "data", ServerSettings(transport="native")))
    assert not (tmp_path / "data").exists()


def test_only_loopback(tmp_path: Path) -> None:
    settings = ServerSettings(host="0.0.0.0", transport="native")
    with pytest.raises(AddressNotAllowed, match="TLS"):
        asyncio.run(service.serve(tmp_path / "data", settings))


def test_a_port_that_is_taken_is_an_error(serving: Serving, tmp_path: Path) -> None:
    port = int(serving.address.rpartition(":")[2])
    settings = ServerSettings(port=port, transport="native", follower=False)
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

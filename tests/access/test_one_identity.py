"""What one identity can hold of the service at a time, and that nobody else misses it. The memory that strangers can
take is in ``test_strangers``."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from simswitch.service import server, share
from simswitch.service.access import AccessSettings
from simswitch.service.share import Share
from simswitch.v1 import allocation_pb2 as pb

from tests.access.doors import Doors, growing_mb, refusal
from tests.service.serving import Serving

RENEW = "/simswitch.v1.AllocationService/Renew"
STREAM = "/simswitch.v1.AllocationService/AllocateStream"
CALLS, READING, HELD_BYTES = 8, 2, 400_000
SOUND = pb.RenewRequest(access_server="as-01", terminal=[1], epoch=[1]).SerializeToString()


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """A service whose bounds can be reached in a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(share, "READING_MAX", READING)
        patch.setattr(server, "CONNECTION_IDLE_MS", 1_000)
        doors = Doors(tmp_path_factory.mktemp("narrow"), calls_max=CALLS, held_bytes_max=HELD_BYTES)
        with doors.client(doors.server("as-01")) as known:
            assert known.allocate(1, "jp")
        try:
            yield doors
        finally:
            doors.serving.end()


@pytest.fixture(autouse=True)
def _nothing_is_left(narrow: Doors) -> Iterator[None]:
    """Whatever became of the calls: what they had of the share is given back."""
    yield
    shares = narrow.access()._shares.values()
    narrow.until(lambda: not any(mine.calls_count or mine.held_bytes or mine._reading for mine in shares))
    assert not any(mine._waiting for mine in shares)


def of_as_01(doors: Doors) -> Share:
    return next(actor.share for actor in doors.access()._by_certificate.values() if actor.name == "access-server:as-01")


def test_calls_that_say_nothing(narrow: Doors) -> None:
    """They take the places of their own identity only, and the turns of reading."""
    silent = threading.Event()
    two = narrow.client(narrow.server("as-02"), "as-02")
    with narrow.server("as-01").channel(narrow.serving.address) as mine, two as other:
        call = mine.stream_unary(RENEW, None, None)
        calls = [call.future(iter(silent.wait, True)) for _ in range(CALLS)]
        narrow.until(lambda: len(of_as_01(narrow)._waiting) == CALLS - READING)
        assert refusal(partial(call, iter([SOUND]), timeout=20)).reason == "TOO_MANY_CALLS"
        assert other.allocate(2, "jp").terminal == 2
        # One of those that wait, then one of those that are read: the turn goes to whoever waits.
        calls[-1].cancel()
        narrow.until(lambda: of_as_01(narrow).calls_count == CALLS - 1)
        last = call.future(iter([SOUND]), timeout=20)
        for waiting in calls[:-1]:
            waiting.cancel()
        assert last.result()
    silent.set()


def test_a_call_that_a_role_may_not_make_is_refused_before_its_message(narrow: Doors) -> None:
    silent = threading.Event()
    with narrow.server("as-01").channel(narrow.serving.address) as mine:
        forbidden = mine.stream_unary("/simswitch.v1.InventoryService/DefinePlan", None, None)
        assert refusal(partial(forbidden, iter(silent.wait, True), timeout=20)).reason == "NOT_PERMITTED"
    silent.set()


def test_answers_that_nobody_takes_hold_up_whoever_asked(narrow: Doors) -> None:
    """No more is read of an identity that has so much; when it takes its answers all goes on, and all are there."""
    batch = pb.AllocateSimsRequest(access_server="as-01", markets=["jp"], terminal=[1] * 20_000)
    asked = [pb.AllocateStreamRequest(request_number=n, batch=batch).SerializeToString() for n in range(1, 31)]
    with narrow.server("as-01").channel(narrow.serving.address) as mine:
        answers: Any = mine.stream_stream(STREAM, None, None)(iter(asked), timeout=60)
        late: list[Any] = []

        def waits() -> bool:
            """Behind the stream's next message: not who comes while an answer or two still find room at the client."""
            if not late or late[-1].done():
                late.append(mine.unary_unary(RENEW, None, None).future(SOUND, timeout=60))
            return len(of_as_01(narrow)._waiting) == 2

        narrow.until(waits)
        with narrow.client(narrow.server("as-02"), "as-02") as other:
            assert other.allocate(2, "jp").terminal == 2
        numbers = [pb.AllocateStreamResponse.FromString(answer).request_number for answer in answers]
        assert numbers == list(range(1, 31))
        assert all(call.result() for call in late)


def test_a_connection_without_calls_is_ended(narrow: Doors) -> None:
    context = ssl.create_default_context(cafile=narrow.own.pem)
    context.load_cert_chain(*narrow.servers.sign("as-01", file="idle"))
    context.set_alpn_protocols(["h2"])
    host, _, port = narrow.serving.address.rpartition(":")
    with context.wrap_socket(socket.create_connection((host, int(port)), 20), server_hostname=host) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        while connection.recv(4_096):
            pass


HOSTILE = """
import sys, grpc
files = [open(name, "rb").read() for name in sys.argv[2:5]]
credentials = grpc.ssl_channel_credentials(*files)
channels = [
    grpc.secure_channel(sys.argv[1], credentials, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(4)
]
calls = [channel.unary_unary(sys.argv[5], None, None) for channel in channels]
for sent in [call.future(bytes(4_000_000), timeout=60) for _ in range(50) for call in calls]:
    print(sent.exception(60).code().name)
"""


def test_messages_of_one_certificate_take_little_memory(shared: Doors) -> None:
    """Of 800 MB that are sent at a time, on several connections."""
    mine = shared.server("as-01")
    files = [str(path) for path in (shared.own.pem, mine.key, mine.certificate)]
    command = [sys.executable, "-c", HOSTILE, shared.serving.address, *files, RENEW]
    with growing_mb() as held_mb:
        sent = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(sent.stdout.split()) <= {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
    assert max(held_mb) < held_mb[0] + 250


def test_the_wait_is_measured_where_everybody_proves_who_he_is(tmp_path: Path) -> None:
    """By calls of our own, which nobody else may make."""
    serving = Serving(tmp_path, options={"access": AccessSettings(required=True)})
    assert serving.running is not None
    probe = serving.running.service.probe
    asyncio.run_coroutine_threadsafe(probe.go_through(), serving._loop).result(20)
    with grpc.insecure_channel(serving.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/simswitch.Probe/Wait", None, None)(b"", timeout=20)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    serving.end()

"""Connections: of one address, of one identity, at a door that is full, and such that say nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from simswitch.access.tokens import create_token
from simswitch.service import connections
from simswitch.service.access import AccessSettings
from simswitch.service.connections import Connections, _end, _peer
from simswitch.service.settings import DoorSettings
from simswitch.v1 import allocation_pb2 as pb
from simswitch.v1 import allocation_pb2_grpc, pool_pb2

from tests.access.doors import Doors, refusal
from tests.fuzz.doors import conversation
from tests.service.serving import Serving

RENEW = "/simswitch.v1.AllocationService/Renew"
SUMMARY = "/simswitch.v1.PoolService/GetSummary"
SOUND = pb.RenewRequest(access_server="as-01", terminal=[1], epoch=[1]).SerializeToString()
ASKED = pool_pb2.GetSummaryRequest().SerializeToString()
OWN = [("grpc.use_local_subchannel_pool", 1)]
OF_ONE, PLACES = 2, 16


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "LOOK_EVERY_S", 0.05)
        patch.setattr(connections, "SILENT_S", 0.5)
        bounds = {"per_address": 4, "per_identity": OF_ONE, "people_connections_max": PLACES, "handshake_ms": 1_000}
        doors = Doors(tmp_path_factory.mktemp("narrow"), **bounds)
        try:
            yield doors
        finally:
            doors.serving.end()


def looked_at(serving: Serving) -> Connections:
    assert serving.running is not None
    return serving.running.service.connections


@contextmanager
def strangers(address: str, count: int, source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """So many connections that never say a word."""
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        made = [socket.create_connection((host, int(port)), 20, (source, 0)) for _ in range(count)]
        yield [stack.enter_context(each) for each in made]


def open_ones(sockets: list[socket.socket]) -> int:
    """How many the other side has not ended."""
    count = 0
    for each in sockets:
        each.setblocking(False)
        try:
            while each.recv(4_096):
                pass
        except BlockingIOError:
            count += 1
        except OSError:
            continue
    return count


def test_connections_of_one_address(narrow: Doors) -> None:
    ended = looked_at(narrow.serving).ended
    before = ended["address"]
    with strangers(narrow.people, 10, "127.0.0.2") as sockets, narrow.operator(narrow.alice) as other:
        narrow.until(lambda: open_ones(sockets) <= 4)
        assert ended["address"] - before >= 6
        assert other.pool.GetSummary(pool_pb2.GetSummaryRequest())
    with strangers(narrow.serving.address, 10, "127.0.0.2") as sockets:
        narrow.until(lambda: open_ones(sockets) <= 4)


def test_connections_of_one_certificate(narrow: Doors) -> None:
    credentials = narrow.server("as-01")
    files = [path.read_bytes() for path in (narrow.own.pem, credentials.key, credentials.certificate) if path]
    with ExitStack() as stack, narrow.client(narrow.server("as-02"), "as-02") as other:
        made = [
            stack.enter_context(
                grpc.secure_channel(narrow.serving.address, grpc.ssl_channel_credentials(*files), options=OWN)
            )
            for _ in range(OF_ONE + 1)
        ]
        calls = [each.unary_unary(RENEW, None, None) for each in made]
        for call in calls[:OF_ONE]:
            call(SOUND, timeout=20)
        assert refusal(partial(calls[OF_ONE], SOUND, timeout=20)).reason == "TOO_MANY_CONNECTIONS"
        narrow.until(lambda: looked_at(narrow.serving).ended["identity"] == 1)
        assert other.allocate(2, "jp").terminal == 2
        for call in calls[:OF_ONE]:
            call(SOUND, timeout=20)
        made[0].close()
        narrow.until(partial(comes_in, calls[OF_ONE], SOUND))


def comes_in(call: Callable[..., bytes], message: bytes, **more: Any) -> bool:
    try:
        call(message, timeout=20, **more)
    except grpc.RpcError:
        return False
    return True


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_connections_of_one_token(tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On both transports, where no certificate is asked for."""
    monkeypatch.setattr(connections, "LOOK_EVERY_S", 0.05)
    options = {"access": AccessSettings(required=True), "doors": DoorSettings(per_identity=OF_ONE)}
    _, token = create_token(tmp_path, "operator:alice", 3_600_000)
    serving = Serving(tmp_path, transport, options=options)
    metadata = (("authorization", f"Bearer {token}"),)
    with ExitStack() as stack:
        made = [stack.enter_context(grpc.insecure_channel(serving.address, OWN)) for _ in range(OF_ONE + 1)]
        calls = [each.unary_unary(RENEW, None, None) for each in made]

        def asked(index: int) -> str:
            return refusal(lambda: calls[index](SOUND, timeout=20, metadata=metadata)).reason

        # It comes that far.
        assert [asked(index) for index in range(OF_ONE)] == ["UNKNOWN_ACCESS_SERVER"] * OF_ONE
        assert asked(OF_ONE) == "TOO_MANY_CONNECTIONS"
        assert asked(0) == "UNKNOWN_ACCESS_SERVER"
    serving.end()


def test_who_says_not_who_he_is_gives_way_at_a_door_that_is_full(narrow: Doors) -> None:
    """As many as the door has places, with TLS and all but a call; gRPC alone would let nobody else in for two
    minutes."""
    context = ssl.create_default_context(cafile=narrow.own.pem)
    context.set_alpn_protocols(["h2"])
    host, _, port = narrow.people.rpartition(":")
    ended = looked_at(narrow.serving).ended
    before = ended["door"]
    with ExitStack() as stack:
        for _ in range(PLACES):
            try:
                plain = socket.create_connection((host, int(port)), 20)
                stranger = stack.enter_context(context.wrap_socket(plain, server_hostname=host))
                stranger.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            except OSError:
                # The door is full already, by what the tests before have left.
                break
        narrow.until(lambda: ended["door"] > before)
        token = (("authorization", f"Bearer {narrow.alice.read_text()}"),)
        credentials = grpc.ssl_channel_credentials(narrow.own.pem.read_bytes())
        with grpc.secure_channel(narrow.people, credentials, OWN) as channel:
            # On a machine that stands still for SILENT_S it may be taken for one more of them.
            narrow.until(partial(comes_in, channel.unary_unary(SUMMARY, None, None), ASKED, metadata=token))


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_a_connection_that_says_nothing(tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOOK_EVERY_S", 0.05)
    serving = Serving(tmp_path, transport, options={"doors": DoorSettings(handshake_ms=500)})
    with grpc.insecure_channel(serving.address, OWN) as channel, strangers(serving.address, 2) as sockets:
        sound = channel.unary_unary(SUMMARY, None, None)
        assert sound(ASKED)
        sockets[0].sendall(b"PRI * HTTP/2.0")
        for each in sockets:
            each.settimeout(20)
            with suppress(ConnectionResetError):
                while each.recv(4_096):
                    pass
        # It goes on.
        assert sound(ASKED)
    serving.end()


def test_a_handshake_that_drips_is_cut_off(narrow: Doors) -> None:
    """A byte of a TLS record that never ends, again and again."""
    with strangers(narrow.people, 1) as (slow,):
        slow.settimeout(0.05)
        slow.sendall(b"\x16\x03\x01\x02\x00")
        ended = False
        while not ended:
            try:
                slow.sendall(b"\1")
                ended = not slow.recv(4_096)
            except TimeoutError:
                continue
            except OSError:
                ended = True


def test_the_other_transports_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its front takes whoever comes; who was there before and calls keeps his place."""
    monkeypatch.setattr(connections, "LOOK_EVERY_S", 0.05)
    serving = Serving(tmp_path, "native", options={"doors": DoorSettings(connections_max=4)})
    with grpc.insecure_channel(serving.address, OWN) as channel:
        sound = channel.unary_unary(SUMMARY, None, None)
        assert sound(ASKED)
        looks = looked_at(serving)
        asyncio.run_coroutine_threadsafe(looks.look(), serving._loop).result(20)
        with strangers(serving.address, 12) as sockets:
            deadline = time.monotonic() + 20
            while open_ones(sockets) > 4:
                assert time.monotonic() < deadline
            assert sound(ASKED)
            assert looks.ended["door"] >= 8
    serving.end()


@pytest.mark.parametrize("door", ["people", "access servers"])
def test_a_call_that_breaks_its_server(door: str, narrow: Doors, caplog: pytest.LogCaptureFixture) -> None:
    """grpc.aio never gets over a path that is no UTF-8: what the server carries goes on, and another one takes the
    next."""
    people = door == "people"
    context = ssl.create_default_context(cafile=narrow.own.pem)
    if not people:
        context.load_cert_chain(*narrow.servers.sign("as-02", file="hostile"))
    context.set_alpn_protocols(["h2"])
    address = narrow.people if people else narrow.serving.address
    host, _, port = address.rpartition(":")
    assert narrow.serving.running is not None
    broken = narrow.serving.running._servers[people]
    call = conversation("PoolService/GetSummary", [], b"").replace(b"PoolService", b"Pool\xdeervice")
    # What the tests before have closed is counted no more.
    narrow.until(lambda: not looked_at(narrow.serving)._shares)
    words = queue.SimpleQueue[pb.AllocateStreamRequest | None]()
    with narrow.server("as-01").channel(narrow.serving.address) as channel:
        said: Any = allocation_pb2_grpc.AllocationServiceStub(channel).AllocateStream(iter(words.get, None), timeout=60)
        words.put(pb.AllocateStreamRequest(request_number=1))
        assert next(said).request_number == 1
        for times in (1, 2):
            with context.wrap_socket(socket.create_connection((host, int(port)), 20), server_hostname=host) as stranger:
                stranger.sendall(call)
                narrow.until(lambda times=times: broken.broken_count == times)  # type: ignore[misc]
        words.put(pb.AllocateStreamRequest(request_number=2))
        assert next(said).request_number == 2
        words.put(None)
    with narrow.operator(narrow.alice) as alice, narrow.client(narrow.server("as-02"), "as-02") as other:
        assert alice.pool.GetSummary(pool_pb2.GetSummaryRequest())
        assert other.allocate(7, "jp").terminal == 7
    gc.collect()
    assert {record.name for record in caplog.records} == {"simswitch.service"}


@pytest.mark.parametrize(
    ("source", "peer"),
    [
        ("ipv4:192.0.2.1:50000", ("192.0.2.1", 50_000)),
        ("ipv6:%5B2001:db8::1%5D:50000", ("2001:db8::1", 50_000)),
        ("ipv6:[::ffff:192.0.2.1]:50000", ("192.0.2.1", 50_000)),
        ("ipv6:%5Bfe80::1%25eth0%5D:50000", ("fe80::1", 50_000)),
        ("unix:", None),
        ("unix-abstract:simswitch", None),
        ("ipv4:nowhere:1", None),
        ("", None),
    ],
)
def test_how_transports_name_the_other_side(source: str, peer: tuple[str, int] | None) -> None:
    assert _peer(source) == peer


def test_a_number_that_has_become_another_file_is_left_alone() -> None:
    """Between looking and ending a connection was closed, and its number is another one's."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:
        address = server.getsockname()
        gone, _ = stack.enter_context(socket.create_connection(address)), server.accept()[0].detach()
        number = gone.fileno()
        found = os.fstat(number)
        other = socket.create_connection(address)
        os.dup2(other.fileno(), number)
        assert not _end(number, (found.st_dev, found.st_ino))
        other.sendall(b"it is open")
        assert _end(other.fileno(), (os.fstat(other.fileno()).st_dev, os.fstat(other.fileno()).st_ino))
        with pytest.raises(OSError, match="pipe"):
            other.sendall(b"it is not")
        other.close()

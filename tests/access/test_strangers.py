"""People's door, where whoever can reach it opens calls before he has said who he is: he takes no place from those who
have."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from simswitch.service import health, server, share
from simswitch.service.settings import DoorSettings

from tests.access.doors import Doors, growing_mb, refusal

WATCH, CHECK = "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check"
PLACES, CALLS = 4, 8


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """A service whose bounds at people's door can be reached in a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "PEOPLE_CALLS_MAX", CALLS)
        patch.setattr(share, "MESSAGE_WITHIN_S", 0.3)
        patch.setattr(health, "ASKING_MAX", PLACES)
        doors = Doors(tmp_path_factory.mktemp("narrow"))
        try:
            yield doors
        finally:
            doors.serving.end()


def channel(doors: Doors) -> Any:
    """One connection for itself."""
    credentials = grpc.ssl_channel_credentials(doors.own.pem.read_bytes())
    return grpc.secure_channel(doors.people, credentials, [("grpc.use_local_subchannel_pool", 1)])


@pytest.mark.parametrize("path", ["AllocationService/Allocate", "PoolService/GetSummary", "EventService/WatchEvents"])
def test_a_call_without_a_message_is_refused_for_who_makes_it(narrow: Doors, path: str) -> None:
    silent = threading.Event()
    token = (("authorization", f"Bearer {narrow.alice.read_text()}"),)
    with channel(narrow) as to:
        call = to.stream_unary(f"/simswitch.v1.{path}", None, None)
        for _ in range(2 * CALLS):
            assert refusal(partial(call, iter(silent.wait, True), timeout=20)).reason == "NO_CREDENTIALS"
        late = partial(call, iter(silent.wait, True), metadata=token, timeout=20)
        assert refusal(late).reason == "MESSAGE_EXPECTED"
    silent.set()


def test_who_watches_health_longest_gives_way(narrow: Doors) -> None:
    silent = threading.Event()
    with channel(narrow) as to:
        first: Any = to.unary_stream(WATCH, None, None)(b"", timeout=20)
        assert next(first)
        wordless = [to.stream_stream(WATCH, None, None)(iter(silent.wait, True)) for _ in range(PLACES - 1)]
        watching: Any = to.unary_stream(WATCH, None, None)(b"")
        status = health_pb2.HealthCheckResponse.FromString(next(watching)).status
        assert status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as gave_way:
            next(first)
        assert gave_way.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for _ in range(2 * PLACES):
            assert to.unary_unary(CHECK, None, None)(b"", timeout=20)
        for call in wordless:
            call.cancel()
    silent.set()


def test_a_full_door_of_people_is_none_of_access_servers(narrow: Doors) -> None:
    silent = threading.Event()
    token = (("authorization", f"Bearer {narrow.alice.read_text()}"),)
    with channel(narrow) as to, narrow.client(narrow.server("as-01")) as access_server:
        importing = to.stream_unary("/simswitch.v1.InventoryService/ImportSims", None, None)
        calls = [importing.future(iter(silent.wait, True), metadata=token) for _ in range(4 * CALLS)]
        narrow.until(lambda: any(call.done() and call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED for call in calls))
        assert access_server.allocate(1, "jp").terminal == 1
        for call in calls:
            call.cancel()
    silent.set()


SENDS = """
import sys, grpc
credentials = grpc.ssl_channel_credentials(open(sys.argv[1], "rb").read())
with grpc.secure_channel(sys.argv[2], credentials) as channel:
    call = channel.unary_unary("/simswitch.v1.AllocationService/AllocateSims", None, None)
    for sent in [call.future(bytes(8_000_000), timeout=60) for _ in range(40)]:
        print(sent.exception(60).code().name)
"""


def test_messages_of_strangers_take_no_memory(narrow: Doors) -> None:
    command = [sys.executable, "-c", SENDS, str(narrow.own.pem), narrow.people]
    with growing_mb() as held_mb:
        sent = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(sent.stdout.split()) <= {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}
    # Of 320 MB that were sent to it.
    assert max(held_mb) < held_mb[0] + 40


def test_connections_leave_files_to_the_journal() -> None:
    """In a process of its own: a limit that was lowered stays so."""
    asked = (
        "import resource\n"
        "from simswitch.service.server import FILES_OWN, _connections_max\n"
        "from simswitch.service.settings import DoorSettings\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (800, 2_000))\n"
        "servers, people = _connections_max(DoorSettings())\n"
        "print(servers, people, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - FILES_OWN - 2 * servers - people)"
    )
    answer = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    servers, people, left = map(int, answer.stdout.split())
    assert left >= 0
    assert 0 < servers < DoorSettings().connections_max
    assert 0 < people < DoorSettings().people_connections_max
    assert "fewer connections" in answer.stderr

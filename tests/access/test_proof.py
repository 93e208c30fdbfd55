"""Who gets in, over TLS on a real socket, and every way in that must not be."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID
from simswitch.access import tokens
from simswitch.access.certificates import CertificateRefused, Certificates, TlsFiles, ends_s, fingerprint
from simswitch.access.tokens import FILE, Token, TokenRefused, create_token, read_tokens, revoke_token
from simswitch.audit.attempts import Attempts
from simswitch.audit.chain import ChainDamaged
from simswitch.client import Client, OperatorClient, Result, ServiceError, SessionState, SessionThread
from simswitch.client.credentials import Credentials, CredentialsRefused
from simswitch.client.operator import service_errors
from simswitch.contract import MESSAGE_BYTES_MAX
from simswitch.core import layout
from simswitch.service import access
from simswitch.service.access import AccessSettings
from simswitch.service.call import SERVER_STREAMS_MAX, Actor, Call
from simswitch.service.errors import Refused
from simswitch.service.events import WATCHERS_OF_ONE_MAX
from simswitch.service.share import Share
from simswitch.v1 import access_server_pb2, allocation_pb2, event_pb2, inventory_pb2, pool_pb2, status_pb2

from tests.access.authority import Authority
from tests.access.doors import Doors, refusal
from tests.service.serving import Serving

SUMMARY = pool_pb2.GetSummaryRequest()
REFUSED_OF_ITSELF = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT}


@pytest.mark.parametrize("uri", ["", "simswitch:access-server:as-01"])
def test_a_certificate_names_its_access_server(shared: Doors, uri: str) -> None:
    with shared.client(shared.server("as-01" if not uri else "anything", uri=uri)) as client:
        assert client.allocate(1, "jp").terminal == 1


def test_an_access_server_speaks_for_itself_only(shared: Doors) -> None:
    one, two = shared.server("as-01"), shared.server("as-02")
    with shared.client(one) as mine:
        grants = mine.allocate_many([1, 2], "jp")
    with shared.client(two, "as-01") as forged:
        assert refusal(lambda: forged.allocate(3, "jp")).reason == "NOT_PERMITTED"
        assert refusal(lambda: forged.release([1], grants.epoch[:1])).reason == "NOT_PERMITTED"
    with shared.client(two, "as-02", actor="access-server:as-01") as claiming:
        assert refusal(lambda: claiming.allocate(3, "jp")).reason == "NOT_PERMITTED"
    with shared.client(two, "as-02") as other:
        # Its own name, the other's terminals, with the right epochs and with forged ones.
        for epochs in (grants.epoch, grants.epoch + np.uint64(1)):
            assert status_pb2.STATUS_OK not in other.release([1, 2], epochs).tolist()
            assert status_pb2.STATUS_OK not in other.renew([1, 2], epochs).status.tolist()
            assert status_pb2.STATUS_OK not in other.report_usage([1, 2], epochs, 10**6, 0).tolist()
    with shared.client(one) as mine:
        assert mine.renew([1, 2], grants.epoch).status.tolist() == [status_pb2.STATUS_OK] * 2
        assert status_pb2.STATUS_OK not in mine.renew([1, 2], grants.epoch + np.uint64(1)).status.tolist()


def test_the_session_of_another_access_server_is_refused(shared: Doors) -> None:
    with pytest.raises(ServiceError, match="can't speak for") as caught:
        SessionThread(
            shared.serving.address, "as-01", lambda _: Result.DONE, credentials=shared.server("as-02")
        ).serving(20)
    assert caught.value.reason == "NOT_PERMITTED"


NO_CONNECTION: dict[str, Callable[[Doors], Credentials]] = {
    "no certificate": lambda doors: Credentials(doors.own.pem),
    "a person's token": lambda doors: Credentials(doors.own.pem, token_file=doors.alice),
    "of another authority": lambda doors: doors.server("as-01", Authority(doors.folder / "foreign")),
    "of the authority that signed the service's own": lambda doors: doors.server("as-01", doors.own),
    "for a service only": lambda doors: doors.server("as-01", file="serving", usage=ExtendedKeyUsageOID.SERVER_AUTH),
    "signed by an access server": lambda doors: doors.server("as-01", doors.servers.pretender("as-02")),
    "expired": lambda doors: doors.server("as-01", file="expired", begins_hours=-48, ends_hours=-1),
    "not valid yet": lambda doors: doors.server("as-01", file="early", begins_hours=1, ends_hours=48),
}


@pytest.mark.parametrize("who", NO_CONNECTION)
def test_without_a_certificate_of_ours_there_is_no_connection(shared: Doors, who: str) -> None:
    with shared.client(NO_CONNECTION[who](shared)) as client:
        error = refusal(lambda: client.allocate(1, "jp"))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "")


def test_a_certificate_opens_no_door_of_people(shared: Doors) -> None:
    credentials = shared.server("as-01")
    with OperatorClient(shared.people, credentials=credentials) as server:
        assert refusal(lambda: server.pool.GetSummary(SUMMARY)).reason == "NO_CREDENTIALS"
    both = Credentials(shared.own.pem, credentials.certificate, credentials.key, shared.alice)
    with shared.client(both) as client:
        assert refusal(lambda: client.allocate(1, "jp")).reason == "TWO_CREDENTIALS"


@pytest.mark.parametrize(
    ("name", "uri", "reason"),
    [
        ("as-99", "", "UNKNOWN_ACCESS_SERVER"),
        # A role's name is a name like any other.
        ("operator:alice", "", "UNKNOWN_ACCESS_SERVER"),
        ("access-server:as-01", "", "UNKNOWN_ACCESS_SERVER"),
        ("x", "simswitch:access-server:operator:alice", "UNKNOWN_ACCESS_SERVER"),
        ("system", "", "UNKNOWN_ACCESS_SERVER"),
        ("as-01", "simswitch:operator:alice", "CERTIFICATE_REFUSED"),
        ("as-01", "SIMSWITCH:access-server:as-02", "CERTIFICATE_REFUSED"),
        ("as-01", "simswitch:access-server:as-99", "UNKNOWN_ACCESS_SERVER"),
    ],
)
def test_a_certificate_that_names_nobody(shared: Doors, name: str, uri: str, reason: str) -> None:
    with shared.client(shared.server(name, uri=uri)) as client:
        assert refusal(lambda: client.allocate(1, "jp")).reason == reason


def test_a_revoked_certificate_ends_its_session_and_counts_no_more(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = doors.server("as-01")
    assert credentials.certificate is not None
    digest = x509.load_pem_x509_certificate(credentials.certificate.read_bytes()).fingerprint(hashes.SHA256()).hex()
    thread = SessionThread(doors.serving.address, "as-01", lambda _: Result.DONE, credentials=credentials)
    thread.serving(20)
    # Certificates that were met since crowd it out of what is remembered, but not its stream.
    monkeypatch.setattr(access, "CERTIFICATES_MAX", 1)
    with doors.client(doors.server("as-02"), "as-02") as other:
        assert other.allocate(2, "jp").terminal == 2
    doors.revoked.write_text(f"{digest}\n")
    with doors.client(credentials) as client:
        doors.until(lambda: any(actor.withdrawn for actor in doors.access()._by_certificate.values()))
        assert refusal(lambda: client.allocate(1, "jp")).reason == "CERTIFICATE_REFUSED"
    doors.until(lambda: thread._session is not None and thread._session.state is SessionState.CLOSED)
    with doors.client(doors.server("as-01", file="renewed")) as client:
        assert client.allocate(1, "jp").terminal == 1


def test_a_certificate_of_a_name_that_is_not_defined_is_an_attempt(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has stolen one was told that the name is not known, revoked or not, and no auditor saw it."""
    noted: list[tuple[str, ...]] = []
    monkeypatch.setattr(doors.access().attempts, "note", lambda why, who, _, what: noted.append((why, who, what)))
    credentials = doors.server("as-9")
    assert credentials.certificate is not None
    with doors.client(credentials, "as-9") as client:
        assert refusal(lambda: client.allocate(1, "jp")).reason == "UNKNOWN_ACCESS_SERVER"
        digest = fingerprint(credentials.certificate.read_bytes())
        doors.revoked.write_text(f"{digest}\n")
        doors.until(lambda: digest in doors.access()._revoked)
        assert refusal(lambda: client.allocate(1, "jp")).reason == "CERTIFICATE_REFUSED"
    assert noted == [
        ("UNKNOWN_ACCESS_SERVER", "access-server:as-9", "'as-9'"),
        ("CERTIFICATE_REFUSED", "access-server:as-9", "it is revoked"),
    ]


def test_without_the_list_of_revoked_certificates_the_service_does_not_start(
    doors: Doors, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a stolen certificate would count again. While it runs the list stays as it was, and the log says so."""
    there = doors.revoked.read_text()
    doors.revoked.unlink()
    doors.until(lambda: f"No such file or directory: '{doors.revoked}'" in caplog.text)
    doors.serving.drain()
    for text in (None, "no fingerprint\n"):
        if text is not None:
            doors.revoked.write_text(text)
        with pytest.raises(CertificateRefused, match=r"list of revoked certificates.*revoked\.txt.*is an empty file"):
            doors.serving.begin()
        doors.serving.cell.close()
    doors.revoked.write_text(there)
    doors.serving.begin()


def test_tokens(shared: Doors) -> None:
    with shared.operator(shared.alice) as alice:
        assert alice.pool.GetSummary(SUMMARY).sims_count
    with shared.operator(shared.token("auditor:ann")) as auditor:
        assert auditor.pool.GetSummary(SUMMARY).sims_count
        define_lot = inventory_pb2.DefineBankRequest(bank=inventory_pb2.Bank(name="x"))
        assert refusal(lambda: auditor.inventory.DefineBank(define_lot)).reason == "NOT_PERMITTED"
    with shared.operator(shared.token("auditor:ann"), actor="operator:alice") as claiming:
        assert refusal(lambda: claiming.pool.GetSummary(SUMMARY)).reason == "NOT_PERMITTED"
    with shared.operator(None) as nobody:
        assert refusal(lambda: nobody.pool.GetSummary(SUMMARY)).reason == "NO_CREDENTIALS"
    forged = shared.folder / "forged"
    forged.write_text(shared.alice.read_text()[:-4] + "0000")
    forged.chmod(0o600)
    with shared.operator(forged) as forger:
        assert refusal(lambda: forger.pool.GetSummary(SUMMARY)).reason == "TOKEN_REFUSED"


def test_an_access_server_has_no_token(shared: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could revoke it with the certificate, and at people's door it took leases and session from whom it named.
    One that was made before counts no more, with TLS or without."""
    with pytest.raises(TokenRefused, match=r"access-server:as-01: an access server has a certificate"):
        create_token(shared.data, "access-server:as-01", 3_600_000)
    with monkeypatch.context() as before:
        before.setattr(tokens, "_is_access_server", lambda _: False)
        file = shared.token("access-server:as-01")
    plain = []
    for transport in ("grpcio", "native"):
        (tmp_path / transport / FILE).parent.mkdir(parents=True)
        shutil.copy(shared.data / FILE, tmp_path / transport / FILE)
        plain.append(Serving(tmp_path / transport, transport, options={"access": AccessSettings(required=True)}))
    try:
        for address, credentials in (
            (shared.people, Credentials(shared.own.pem, token_file=file)),
            *((serving.address, Credentials(token_file=file)) for serving in plain),
        ):
            with Client(address, access_server="as-01", credentials=credentials) as client:
                error = refusal(partial(client.allocate, 1, "jp"))
            assert error.reason == "TOKEN_REFUSED"
            assert "of an access server" in str(error)
            with pytest.raises(ServiceError, match="of an access server"):
                SessionThread(address, "as-01", lambda _: Result.DONE, credentials=credentials).serving(20)
    finally:
        for serving in plain:
            serving.end()


def test_a_revoked_token_and_one_that_expires_end_their_streams(doors: Doors) -> None:
    for lasts_ms in (3_600_000, 2_500):
        token = doors.token("operator:bob", lasts_ms)
        with doors.operator(token) as bob:
            stream: Any = bob.events.WatchEvents(event_pb2.WatchEventsRequest(), timeout=60)
            next(stream)
            if lasts_ms == 3_600_000:
                revoke_token(doors.data, token.name)
            assert refusal(partial(list, stream)).reason == "WITHDRAWN"
            assert refusal(partial(bob.pool.GetSummary, SUMMARY)).reason == "TOKEN_REFUSED"


def test_of_tokens_that_are_damaged_none_counts_until_their_list_is_replaced(
    doors: Doors, caplog: pytest.LogCaptureFixture
) -> None:
    """Also in a service that runs: one may have been revoked where the damage is."""

    def told(count: int) -> bool:
        return caplog.text.count("Until then no token counts, also in a service that runs") == count

    path = doors.data / FILE
    sound = path.read_bytes()
    with doors.operator(doors.alice) as alice, doors.client(doors.server("as-01")) as client:
        for count, damaged in ((1, sound.replace(b"operator:alice", b"operator:Alice", 1)), (2, sound[:-15])):
            stream: Any = alice.events.WatchEvents(event_pb2.WatchEventsRequest(), timeout=60)
            next(stream)
            path.write_bytes(damaged)
            doors.until(partial(told, count))
            assert refusal(partial(list, stream)).reason == "WITHDRAWN"
            assert refusal(partial(alice.pool.GetSummary, SUMMARY)).reason == "TOKEN_REFUSED"
            assert client.allocate(1, "jp").terminal == 1
            with pytest.raises(ChainDamaged, match="no token counts"):
                revoke_token(doors.data, doors.alice.name)
            if count == 1:
                path.write_bytes(sound)
                doors.until(lambda: doors.access()._tokens)
                assert alice.pool.GetSummary(SUMMARY).sims_count
        path.rename(doors.folder / "evidence")
        doors.until(lambda: "who may come in stays as it was: [Errno 2]" in caplog.text)
        assert refusal(partial(alice.pool.GetSummary, SUMMARY)).reason == "TOKEN_REFUSED"
        with doors.operator(doors.token("operator:bob")) as bob:
            assert bob.pool.GetSummary(SUMMARY).sims_count
        assert refusal(partial(alice.pool.GetSummary, SUMMARY)).reason == "TOKEN_REFUSED"


def test_a_revocation_counts_on_a_full_disk_and_when_its_file_can_not_be_read_at_once(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = itertools.count()

    def read(folder: Path) -> dict[str, Token]:
        if next(tries) < 2:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return read_tokens(folder)

    def write() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    token = doors.token("operator:bob")
    with doors.operator(token) as bob:
        stream: Any = bob.events.WatchEvents(event_pb2.WatchEventsRequest(), timeout=60)
        next(stream)
        monkeypatch.setattr(access, "read_tokens", read)
        monkeypatch.setattr(doors.access().attempts, "write", write)
        revoke_token(doors.data, token.name)
        assert refusal(partial(list, stream)).reason == "WITHDRAWN"
    monkeypatch.undo()


def test_a_revocation_counts_while_the_disk_hangs(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    """Revocations were looked for again when the audit log had been written, and so in a thread that all shared."""
    token, goes_on = doors.token("operator:bob"), threading.Event()
    try:
        with doors.operator(token) as bob:
            stream: Any = bob.events.WatchEvents(event_pb2.WatchEventsRequest(), timeout=30)
            next(stream)
            monkeypatch.setattr(doors.access().attempts, "write", goes_on.wait)
            revoke_token(doors.data, token.name)
            assert refusal(partial(list, stream)).reason == "WITHDRAWN"
    finally:
        goes_on.set()
        monkeypatch.undo()


def test_one_identity_leaves_threads_to_others() -> None:
    """A thousand questions of one auditor kept all of them, and who asked next waited for seconds."""

    def call(index: int) -> Call:
        share = Share(0, 1_024, 1 << 20)
        return Call(Actor(index, f"auditor:{index}", layout.AUDITOR, -1, share, Attempts(None), "claimed"), None)

    async def asked() -> None:
        goes_on, much, little = threading.Event(), call(1), call(2)
        many = [asyncio.create_task(much.aside(goes_on.wait)) for _ in range(64)]
        try:
            await asyncio.sleep(0)
            assert await asyncio.wait_for(little.aside(int, "7"), 10) == 7
        finally:
            goes_on.set()
        assert all(await asyncio.gather(*many))
        late = replace(little, deadline=time.monotonic())
        with pytest.raises(Refused, match="deadline"):
            await late.aside(int, "7")

    asyncio.run(asked())


def test_a_token_that_was_over_before_its_first_call(shared: Doors) -> None:
    expired, revoked = shared.token("operator:bob", 1), shared.token("operator:bob")
    revoke_token(shared.data, revoked.name)
    shared.until(lambda: shared.access()._tokens[revoked.name].revoked_ms)
    for token in (expired, revoked):
        with shared.operator(token) as bob:
            assert refusal(partial(bob.pool.GetSummary, SUMMARY)).reason == "TOKEN_REFUSED"


@pytest.mark.parametrize("door", ["people", "access servers"])
def test_oversized_metadata_and_messages(shared: Doors, door: str) -> None:
    """At either door: refused before anything looks at it, and the door stays open for the next call."""
    people = door == "people"
    credentials = Credentials(shared.own.pem, token_file=shared.alice) if people else shared.server("as-01")
    address = shared.people if people else shared.serving.address
    path = "/simswitch.v1.PoolService/GetSummary" if people else "/simswitch.v1.AllocationService/Renew"
    with credentials.channel(address) as channel:
        call = channel.unary_unary(path, None, None)
        proven = credentials.metadata(address, None, "")
        for size in (9_000, 1_000_000):
            error = refusal(partial(call, b"", timeout=10, metadata=(*proven, ("x", "y" * size))))
            assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        many = tuple((f"x-{number}", "y") for number in range(1_000))
        assert refusal(partial(call, b"", timeout=10, metadata=(*proven, *many))).code in REFUSED_OF_ITSELF
        with pytest.raises(grpc.RpcError) as caught:
            call(bytes(MESSAGE_BYTES_MAX + 1), timeout=10, metadata=proven)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        if people:
            assert call(b"", timeout=10, metadata=proven)
        else:
            # An empty one is looked at: it names no access server.
            assert refusal(partial(call, b"", timeout=10, metadata=proven)).code is grpc.StatusCode.NOT_FOUND


def test_one_identity_has_so_many_streams(shared: Doors) -> None:
    """With whatever token: it does not take the places of all who watch."""
    tokens = [shared.token("operator:carol") for _ in range(2)]
    with (
        shared.operator(tokens[0]) as carol,
        shared.operator(tokens[1]) as carol_again,
        shared.operator(shared.alice) as alice,
    ):

        def watch(operator: OperatorClient) -> Any:
            return operator.events.WatchEvents(event_pb2.WatchEventsRequest(), timeout=60)

        streams = [watch(operator) for operator in [carol, carol_again] * (WATCHERS_OF_ONE_MAX // 2)]
        for stream in streams:
            next(stream)
        for operator in (carol, carol_again):
            assert refusal(partial(next, watch(operator))).reason == "TOO_MANY_STREAMS"
        assert next(watch(alice))
        streams.pop().cancel()
        shared.until(lambda: _begins(watch(carol)))
        for stream in streams:
            stream.cancel()


def _begins(stream: Any) -> bool:
    try:
        next(stream)
    except grpc.RpcError:
        return False
    return True


@pytest.mark.parametrize("kind", ["sessions", "grants"])
def test_one_access_server_has_so_many_streams(shared: Doors, kind: str) -> None:
    """Streams of either kind, whether they say a word or none."""
    path = {"sessions": "AccessServerService/Session", "grants": "AllocationService/AllocateStream"}[kind]
    silent = threading.Event()
    with shared.server("as-01").channel(shared.serving.address) as channel:
        call = channel.stream_stream(f"/simswitch.v1.{path}", None, None)
        streams = [call(iter(silent.wait, True), timeout=60) for _ in range(SERVER_STREAMS_MAX)]
        shared.until(
            lambda: any(len(actor.streams) == SERVER_STREAMS_MAX for actor in shared.access()._by_certificate.values())
        )
        assert refusal(partial(next, call(iter(silent.wait, True), timeout=60))).reason == "TOO_MANY_STREAMS"
        with shared.client(shared.server("as-02"), "as-02") as other:
            assert other.allocate(9, "jp")
        for stream in streams:
            stream.cancel()
        silent.set()


@pytest.mark.parametrize("door", ["people", "access servers", "a stream of batches"])
def test_one_identity_can_not_take_all(doors: Doors, door: str) -> None:
    """Whatever the number of its connections; and others go on."""
    doors.serving.drain()
    doors.serving._options["access"] = AccessSettings(tls=doors.files, people_calls_per_s=1, server_calls_per_s=1)
    doors.serving.begin()
    callers: list[Callable[[], object]]
    batches: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    if door == "people":
        people = [doors.operator(token) for token in (doors.alice, doors.alice, doors.token("operator:bob"))]
        callers = [partial(person.pool.GetSummary, SUMMARY) for person in people]
    elif door == "a stream of batches":
        servers = [doors.client(doors.server(name), name) for name in ("as-01", "as-01", "as-02")]
        channel = doors.server("as-01").channel(doors.serving.address)
        answers = channel.stream_stream("/simswitch.v1.AllocationService/AllocateStream", None, None)(
            iter(batches.get, b"end"), timeout=60
        )
        single = [partial(server.allocate, 1, "jp") for server in servers[1:]]
        callers = [partial(_one_of_a_stream, batches, answers), *single]
    else:
        servers = [doors.client(doors.server(name), name) for name in ("as-01", "as-01", "as-02")]
        callers = [partial(server.allocate, key, "jp") for key, server in enumerate(servers, 1)]
    mine, mine_again, other = callers
    error = None
    for _ in range(100):
        try:
            with service_errors():
                mine()
        except ServiceError as refused:
            error = refused
            break
    assert error is not None
    assert error.reason == "RATE_LIMITED"
    assert error.retry_after_ms > 0
    assert refusal(mine_again).reason == "RATE_LIMITED"
    assert other()
    batches.put(b"end")


@pytest.mark.parametrize("way", ["a call", "a session"])
def test_items_count_as_calls_do(doors: Doors, way: str) -> None:
    doors.serving.drain()
    doors.serving._options["access"] = AccessSettings(tls=doors.files, server_calls_per_s=100)
    doors.serving.begin()
    with doors.server("as-01").channel(doors.serving.address) as channel:
        if way == "a call":
            many = allocation_pb2.RenewRequest(access_server="as-01", terminal=range(1, 60_001), epoch=[1] * 60_000)
            channel.unary_unary("/simswitch.v1.AllocationService/Renew", None, None)(
                many.SerializeToString(), timeout=60
            )
        else:
            count = 60_000
            usage = access_server_pb2.Usage(
                terminal=range(1, count + 1), epoch=[1] * count, up_bytes=[1] * count, down_bytes=[0] * count
            )
            hello = access_server_pb2.SessionRequest(hello=access_server_pb2.Hello(access_server="as-01"))
            words = [hello, access_server_pb2.SessionRequest(usage=usage)]
            session = channel.stream_stream("/simswitch.v1.AccessServerService/Session", None, None)
            assert len(list(session(iter([word.SerializeToString() for word in words]), timeout=60))) == len(words)
    # Its 60,000 items are 600 calls, of which a second's worth goes at once.
    with doors.client(doors.server("as-01"), "as-01") as mine:
        error = refusal(partial(mine.allocate, 1, "jp"))
    assert (error.reason, error.retry_after_ms > 1_000) == ("RATE_LIMITED", True)
    with doors.client(doors.server("as-02"), "as-02") as other:
        assert other.allocate(2, "jp")


def _one_of_a_stream(batches: queue.SimpleQueue[bytes], answers: Any) -> None:
    batches.put(allocation_pb2.AllocateStreamRequest(request_number=1).SerializeToString())
    refused = allocation_pb2.AllocateStreamResponse.FromString(next(answers)).refusal
    if refused.reason == "RATE_LIMITED":
        raise ServiceError(grpc.StatusCode.RESOURCE_EXHAUSTED, refused.reason, refused.text, refused.retry_after_ms)


def test_messages_of_a_session_that_come_too_fast_are_read_more_slowly(doors: Doors) -> None:
    doors.serving.drain()
    doors.serving._options["access"] = AccessSettings(tls=doors.files, server_calls_per_s=20)
    doors.serving.begin()
    hello = access_server_pb2.SessionRequest(hello=access_server_pb2.Hello(access_server="as-01"))
    ping = access_server_pb2.SessionRequest(ping=access_server_pb2.Ping(nonce=1))
    with doors.server("as-01").channel(doors.serving.address) as channel:
        session = channel.stream_stream("/simswitch.v1.AccessServerService/Session", None, None)
        began_s = time.monotonic()
        words = [hello, *[ping] * 35]
        said = list(session(iter([word.SerializeToString() for word in words]), timeout=60))
    assert len(said) == len(words)
    # A second's worth of them goes at once, of the other fifteen no more than one in a twentieth of a second.
    assert time.monotonic() - began_s > 0.5


def test_a_certificate_is_replaced_under_traffic(doors: Doors) -> None:
    credentials = doors.server("as-01")
    failures: list[Exception] = []
    stop = threading.Event()

    def go_on() -> None:
        with doors.client(credentials) as client:
            while not stop.is_set():
                try:
                    client.allocate(1, "jp")
                except Exception as error:
                    failures.append(error)

    thread = threading.Thread(target=go_on)
    thread.start()
    other = Authority(doors.folder / "other")
    certificate, key = other.sign("service", host=True)
    # First half of it: key and certificate do not fit together, and the old ones stay.
    shutil.copy(key, doors.files.key)
    with doors.client(credentials) as client:
        assert client.allocate(2, "jp").terminal == 2
    shutil.copy(certificate, doors.files.certificate)
    assert credentials.certificate is not None
    with doors.client(Credentials(other.pem, credentials.certificate, credentials.key)) as client:
        assert client.allocate(3, "jp").terminal == 3
    with doors.client(credentials) as client:
        assert refusal(lambda: client.allocate(4, "jp")).code is grpc.StatusCode.UNAVAILABLE
    stop.set()
    thread.join()
    assert failures == []


def test_an_outdated_certificate_takes_no_good_one_s_place(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    """Last year's file, or next year's. A start has nothing better, and says so."""
    credentials = doors.server("as-01")
    whole = doors.files.certificate.read_bytes(), doors.files.key.read_bytes()
    for number, (begins, ends) in enumerate(((-9, -1), (1, 9))):
        file = f"outdated-{number}"
        pem, key = doors.servers.sign("service", host=True, file=file, begins_hours=begins, ends_hours=ends)
        shutil.copy(key, doors.files.key)
        shutil.copy(pem, doors.files.certificate)
        with doors.client(credentials) as client:
            assert client.allocate(1, "jp").terminal == 1
        assert "the certificate stays as it is" in caplog.text
        assert "and not now: renew it" in caplog.text
        caplog.clear()
        Certificates(doors.files)
        assert "clients that look at it will not connect" in caplog.text
        caplog.clear()
    doors.files.certificate.write_bytes(whole[0])
    doors.files.key.write_bytes(whole[1])
    with doors.client(credentials) as client:
        assert client.allocate(1, "jp").terminal == 1


def test_the_authority_is_changed_under_traffic(doors: Doors) -> None:
    """Both count for a while; a bundle that is half written changes nothing; then the old one counts no more."""
    old, bundle = doors.servers.pem.read_text(), doors.files.client_ca
    assert bundle is not None
    new = Authority(doors.folder / "new")
    before, after = doors.server("as-01"), doors.server("as-01", new)

    def comes_in(credentials: Credentials) -> bool:
        with doors.client(credentials) as client:
            try:
                return client.allocate(2, "jp").terminal == 2
            except ServiceError:
                return False

    with doors.client(before) as standing:
        for text, counting in [
            (old, (True, False)),
            (old + new.pem.read_text(), (True, True)),
            (old + new.pem.read_text()[:300], (True, True)),
            (new.pem.read_text(), (False, True)),
        ]:
            bundle.write_text(text)
            assert (comes_in(before), comes_in(after)) == counting
            # A connection that stands goes on.
            assert standing.allocate(1, "jp").terminal == 1


def test_an_authority_is_given_up_while_the_services_own_certificate_is_over(tmp_path: Path) -> None:
    """It once stayed trusted until somebody renewed the certificate."""
    own, old, new = (Authority(tmp_path / name) for name in ("own", "old", "new"))
    certificate, key = own.sign("service", host=True, ends_hours=-0.5)
    bundle = tmp_path / "bundle.pem"
    shutil.copy(old.pem, bundle)
    certificates = Certificates(TlsFiles(certificate, key, bundle))
    seen, _ = certificates.newest(None)
    shutil.copy(new.pem, bundle)
    seen, taken = certificates.newest(seen)
    assert taken is not None
    # Another one that is over is no worse than the first.
    again = own.sign("service", host=True, file="again", ends_hours=-0.25)
    shutil.copy(again[0], certificate)
    shutil.copy(again[1], key)
    seen, taken = certificates.newest(seen)
    assert taken is not None
    assert certificates.reloads_count == 2


@pytest.mark.parametrize("refused", ["unfit", "early", "gone"])
def test_an_authority_is_given_up_while_the_services_next_pair_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, refused: str
) -> None:
    """A renewal that went half way, or too early, once kept a stolen CA trusted."""
    own, old, new = (Authority(tmp_path / name) for name in ("own", "old", "new"))
    certificate, key = own.sign("service", host=True)
    bundle = tmp_path / "bundle.pem"
    shutil.copy(old.pem, bundle)
    certificates = Certificates(TlsFiles(certificate, key, bundle))
    ends = certificates.ends_s()
    seen, _ = certificates.newest(None)
    following = own.sign("service", host=True, file="next", begins_hours=1, ends_hours=48)
    if refused == "gone":
        certificate.unlink()
    else:
        shutil.copy(following[1], key)
    if refused == "early":
        shutil.copy(following[0], certificate)
    assert certificates.newest(seen) == (seen, None)
    shutil.copy(new.pem, bundle)
    seen, taken = certificates.newest(seen)
    assert taken is not None
    assert certificates.newest(seen) == (seen, None)
    assert certificates._client_ca == new.pem.read_bytes()
    assert certificates.ends_s() == ends
    assert caplog.text.count("the certificate stays as it is") == 1
    # Nor does a bundle that is half written keep a new pair waiting.
    bundle.write_bytes(old.pem.read_bytes()[:300])
    again = own.sign("service", host=True, file="again", ends_hours=36)
    shutil.copy(again[0], certificate)
    shutil.copy(again[1], key)
    assert certificates.ends_s() > ends
    assert certificates._client_ca == new.pem.read_bytes()
    assert "who signs for access servers stays as it is" in caplog.text


def test_files_that_become_again_what_they_were_count_again(tmp_path: Path) -> None:
    """A release whose pair was refused, and that was taken back as it had come, once left its authority trusted."""
    own, old, new = (Authority(tmp_path / name) for name in ("own", "old", "new"))
    certificate, key = own.sign("service", host=True)
    bundle = tmp_path / "bundle.pem"
    shutil.copy(old.pem, bundle)
    certificates = Certificates(TlsFiles(certificate, key, bundle))
    seen, _ = certificates.newest(None)
    kept = {path: path.rename(path.with_suffix(".kept")) for path in (key, bundle)}
    shutil.copy(own.sign("service", host=True, file="next")[1], key)
    shutil.copy(new.pem, bundle)
    seen, _ = certificates.newest(seen)
    assert certificates._client_ca == new.pem.read_bytes()
    for path, was in kept.items():
        was.replace(path)
    seen, taken = certificates.newest(seen)
    assert taken is not None
    assert certificates._client_ca == old.pem.read_bytes()


def test_a_certificate_that_expires_counts_no_more(shared: Doors) -> None:
    """On a connection that stands too, as on one that resumed a TLS session: there nobody looks at it. A clock that was
    wrong is forgiven."""
    with shared.client(shared.server("as-01", file="brief", ends_hours=2)) as client:
        assert client.allocate(1, "jp")
        soon_s = time.time() + 3 * 3_600
        (actor,) = (actor for actor in shared.access()._by_certificate.values() if (actor.ends_s or 0) < soon_s)
        actor.ends_s = time.time()
        shared.until(lambda: actor.withdrawn)
        error = refusal(lambda: client.allocate(1, "jp"))
        assert error.reason == "CERTIFICATE_REFUSED"
        assert "expired" in error.text
        actor.ends_s = soon_s
        shared.until(lambda: not actor.withdrawn)
        assert client.allocate(1, "jp")


def test_when_a_certificate_ends(tmp_path: Path) -> None:
    for days in (1, 40_000):
        pem, _ = Authority(tmp_path / f"{days}").sign("as-01", ends_hours=24 * days)
        ends = x509.load_pem_x509_certificate(pem.read_bytes()).not_valid_after_utc
        assert ends_s(pem.read_bytes()) == ends.timestamp()
    for broken in (b"", b"-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----"):
        with pytest.raises(CertificateRefused):
            ends_s(broken)


def test_a_token_never_goes_out_in_the_clear(shared: Doors) -> None:
    with pytest.raises(CredentialsRefused, match="in the clear"):
        OperatorClient("192.0.2.1:7467", credentials=Credentials(token_file=shared.alice))
    shared.alice.chmod(0o644)
    with pytest.raises(CredentialsRefused, match="others may read"):
        shared.operator(shared.alice)


def test_a_key_that_everybody_may_read_is_refused(shared: Doors) -> None:
    shared.files.key.chmod(0o644)
    with pytest.raises(CertificateRefused, match="everybody may read the key"):
        shared.files.read_pair()
    shared.files.key.chmod(0o640)
    assert shared.files.read_pair()


def test_names_that_are_only_claimed_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is made known in the engine, for good."""
    monkeypatch.setattr(access, "CLAIMED_MAX", 3)
    serving = Serving(tmp_path / "data")
    try:
        refused = []
        for number in range(5):
            with OperatorClient(serving.address, actor=f"operator:{number}") as claiming:
                try:
                    with service_errors():
                        claiming.pool.GetSummary(SUMMARY)
                except ServiceError as error:
                    refused.append(error.reason)
        # The system is one of them.
        assert refused == ["TOO_MANY_ACTORS"] * 3
        with OperatorClient(serving.address, actor="operator:0") as known:
            assert known.pool.GetSummary(SUMMARY)
    finally:
        serving.end()


def test_on_loopback_proof_can_be_required(tmp_path: Path) -> None:
    serving = Serving(tmp_path / "data", options={"access": AccessSettings(required=True)})
    try:
        with OperatorClient(serving.address) as claiming:
            assert refusal(lambda: claiming.pool.GetSummary(SUMMARY)).reason == "NO_CREDENTIALS"
    finally:
        serving.end()

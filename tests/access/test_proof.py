"""Who gets in, over TLS on a real socket, and every way in that must not be."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from simswitch.access.certificates import TlsFiles
from simswitch.access.tokens import create_token, revoke_token
from simswitch.client import Client, OperatorClient, Result, ServiceError, SessionState, SessionThread
from simswitch.client.credentials import Credentials, CredentialsRefused
from simswitch.client.operator import service_errors
from simswitch.service.access import Access, AccessSettings
from simswitch.v1 import event_pb2, inventory_pb2, pool_pb2, status_pb2

from tests.access.authority import Authority
from tests.service.serving import Serving, define

SUMMARY = pool_pb2.GetSummaryRequest()


class Doors:
    """A server with TLS, an authority for its own certificate and one for access servers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir()
        self.own = Authority(folder / "own")
        self.servers = Authority(folder / "servers")
        self.files = TlsFiles(*self.own.sign("service", host=True), self.servers.pem)
        self.revoked = folder / "revoked.txt"
        self.revoked.write_text("# none yet\n")
        access = AccessSettings(tls=self.files, revoked=self.revoked)
        options = {"access": access, "people_address": ("127.0.0.1", 0)}
        self.serving = Serving(self.data, options=options)
        self.alice = self.token("operator:alice")
        with self.operator(self.alice) as operator:
            define(operator)

    @property
    def people(self) -> str:
        assert self.serving.running is not None
        assert self.serving.running.people_address is not None
        return self.serving.running.people_address

    def token(self, actor: str, lasts_ms: int = 3_600_000) -> Path:
        """In a file; the service knows it when this returns."""
        token, text = create_token(self.data, actor, lasts_ms)
        path = self.folder / token.id
        path.write_text(text)
        path.chmod(0o600)
        self.until(lambda: token.id in self.access()._tokens)
        return path

    def access(self) -> Access:
        assert self.serving.running is not None
        return self.serving.running.service.access

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)

    def operator(self, token: Path | None, actor: str | None = None) -> OperatorClient:
        return OperatorClient(self.people, actor=actor, credentials=Credentials(self.own.pem, token_file=token))

    def server(self, name: str, authority: Authority | None = None, uri: str = "", file: str = "") -> Credentials:
        certificate, key = (authority or self.servers).sign(name, uri=uri, file=file)
        return Credentials(self.own.pem, certificate, key)

    def client(self, credentials: Credentials, name: str = "as-01", actor: str | None = None) -> Client:
        return Client(self.serving.address, access_server=name, actor=actor, credentials=credentials)


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    doors = Doors(tmp_path)
    try:
        yield doors
    finally:
        doors.serving.end()


def refusal(call: Callable[[], object]) -> ServiceError:
    with pytest.raises(ServiceError) as caught, service_errors():
        call()
    return caught.value


@pytest.mark.parametrize("uri", ["", "simswitch:access-server:as-01"])
def test_a_certificate_names_its_access_server(doors: Doors, uri: str) -> None:
    with doors.client(doors.server("as-01" if not uri else "anything", uri=uri)) as client:
        assert client.allocate(1, "jp").terminal == 1


def test_an_access_server_speaks_for_itself_only(doors: Doors) -> None:
    one, two = doors.server("as-01"), doors.server("as-02")
    with doors.client(one) as mine:
        grants = mine.allocate_many([1, 2], "jp")
    with doors.client(two, "as-01") as forged:
        assert refusal(lambda: forged.allocate(3, "jp")).reason == "NOT_PERMITTED"
        assert refusal(lambda: forged.release([1], grants.epoch[:1])).reason == "NOT_PERMITTED"
    with doors.client(two, "as-02", actor="access-server:as-01") as claiming:
        assert refusal(lambda: claiming.allocate(3, "jp")).reason == "NOT_PERMITTED"
    with doors.client(two, "as-02") as other:
        # Its own name, the other's terminals, with the right epochs and with forged ones.
        for epochs in (grants.epoch, grants.epoch + np.uint64(1)):
            assert status_pb2.STATUS_OK not in other.release([1, 2], epochs).tolist()
            assert status_pb2.STATUS_OK not in other.renew([1, 2], epochs).status.tolist()
            assert status_pb2.STATUS_OK not in other.report_usage([1, 2], epochs, 10**6, 0).tolist()
    with doors.client(one) as mine:
        assert mine.renew([1, 2], grants.epoch).status.tolist() == [status_pb2.STATUS_OK] * 2
        assert status_pb2.STATUS_OK not in mine.renew([1, 2], grants.epoch + np.uint64(1)).status.tolist()


def test_the_session_of_another_access_server_is_refused(doors: Doors) -> None:
    with pytest.raises(ServiceError, match="can't speak for") as caught:
        SessionThread(doors.serving.address, "as-01", lambda _: Result.DONE, credentials=doors.server("as-02")).serving(
            20
        )
    assert caught.value.reason == "NOT_PERMITTED"


@pytest.mark.parametrize("who", ["nobody", "another authority", "a person's door"])
def test_without_a_certificate_of_ours_there_is_no_connection(doors: Doors, who: str) -> None:
    credentials = Credentials(doors.own.pem)
    if who == "another authority":
        credentials = doors.server("as-01", Authority(doors.folder / "foreign"))
    elif who == "a person's door":
        credentials = Credentials(doors.own.pem, token_file=doors.alice)
    with doors.client(credentials) as client:
        error = refusal(lambda: client.allocate(1, "jp"))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "")


@pytest.mark.parametrize(
    ("name", "uri", "reason"),
    [
        ("as-99", "", "UNKNOWN_ACCESS_SERVER"),
        ("as-01", "simswitch:operator:alice", "CERTIFICATE_REFUSED"),
        ("as-01", "simswitch:access-server:as-99", "UNKNOWN_ACCESS_SERVER"),
    ],
)
def test_a_certificate_that_names_nobody(doors: Doors, name: str, uri: str, reason: str) -> None:
    with doors.client(doors.server(name, uri=uri)) as client:
        assert refusal(lambda: client.allocate(1, "jp")).reason == reason


def test_a_revoked_certificate_ends_its_session_and_counts_no_more(doors: Doors) -> None:
    credentials = doors.server("as-01")
    assert credentials.certificate is not None
    digest = x509.load_pem_x509_certificate(credentials.certificate.read_bytes()).fingerprint(hashes.SHA256()).hex()
    thread = SessionThread(doors.serving.address, "as-01", lambda _: Result.DONE, credentials=credentials)
    thread.serving(20)
    doors.revoked.write_text(f"{digest}\n")
    with doors.client(credentials) as client:
        doors.until(lambda: any(actor.withdrawn for actor in doors.access()._by_certificate.values()))
        assert refusal(lambda: client.allocate(1, "jp")).reason == "CERTIFICATE_REFUSED"
    doors.until(lambda: thread._session is not None and thread._session.state is SessionState.CLOSED)
    with doors.client(doors.server("as-01", file="renewed")) as client:
        assert client.allocate(1, "jp").terminal == 1


def test_tokens(doors: Doors) -> None:
    with doors.operator(doors.alice) as alice:
        assert alice.pool.GetSummary(SUMMARY).sims_count
    with doors.operator(doors.token("auditor:ann")) as auditor:
        assert auditor.pool.GetSummary(SUMMARY).sims_count
        define_lot = inventory_pb2.DefineBankRequest(bank=inventory_pb2.Bank(name="x"))
        assert refusal(lambda: auditor.inventory.DefineBank(define_lot)).reason == "NOT_PERMITTED"
    with doors.operator(doors.token("auditor:ann"), actor="operator:alice") as claiming:
        assert refusal(lambda: claiming.pool.GetSummary(SUMMARY)).reason == "NOT_PERMITTED"
    with doors.operator(None) as nobody:
        assert refusal(lambda: nobody.pool.GetSummary(SUMMARY)).reason == "NO_CREDENTIALS"
    forged = doors.folder / "forged"
    forged.write_text(doors.alice.read_text()[:-4] + "0000")
    forged.chmod(0o600)
    with doors.operator(forged) as forger:
        assert refusal(lambda: forger.pool.GetSummary(SUMMARY)).reason == "TOKEN_REFUSED"


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


def test_oversized_metadata(doors: Doors) -> None:
    with doors.operator(doors.alice) as alice:
        error = refusal(lambda: alice.pool.GetSummary(SUMMARY, metadata=(("x", "y" * 9_000),)))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_one_identity_can_not_take_all(doors: Doors) -> None:
    doors.serving.drain()
    doors.serving._options["access"] = AccessSettings(tls=doors.files, people_calls_per_s=5)
    doors.serving.begin()
    with doors.operator(doors.alice) as alice, doors.operator(doors.token("operator:bob")) as bob:
        refused = None
        for _ in range(100):
            try:
                alice.pool.GetSummary(SUMMARY)
            except grpc.RpcError as error:
                with pytest.raises(ServiceError) as caught, service_errors():
                    raise error
                refused = caught.value
                break
        assert refused is not None
        assert refused.reason == "RATE_LIMITED"
        assert refused.retry_after_ms > 0
        assert bob.pool.GetSummary(SUMMARY)


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


def test_a_token_never_goes_out_in_the_clear(doors: Doors) -> None:
    with pytest.raises(CredentialsRefused, match="in the clear"):
        OperatorClient("192.0.2.1:7467", credentials=Credentials(token_file=doors.alice))
    doors.alice.chmod(0o644)
    with pytest.raises(CredentialsRefused, match="others may read"):
        doors.operator(doors.alice)


def test_on_loopback_proof_can_be_required(tmp_path: Path) -> None:
    serving = Serving(tmp_path / "data", options={"access": AccessSettings(required=True)})
    try:
        with OperatorClient(serving.address) as claiming:
            assert refusal(lambda: claiming.pool.GetSummary(SUMMARY)).reason == "NO_CREDENTIALS"
    finally:
        serving.end()

"""Events posted to a real web server: signed, in order, none lost however receiver and sender fail."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from simswitch.client import OperatorClient
from simswitch.v1 import event_pb2
from simswitch.webhook import (
    KINDS,
    Sender,
    WebhookRefused,
    check_url,
    deliver,
    read_cursor,
    read_secret,
    told_url,
    verify,
    write_cursor,
)

from tests.access.authority import Authority
from tests.service.serving import Serving
from tests.service.test_events import moved

SECRET = b"0123456789abcdef0123456789abcdef"
__all__ = ["moved"]


class Receiver:
    """Answers with what ``answers`` says, one after the other, and then 204; -1 drops the connection."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.taken: list[dict[str, Any]] = []
        self.changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.take(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        with self.changed:
            answer = self.answers.pop(0) if self.answers else 204
            if answer == -1:
                request.connection.close()
                return
            if 200 <= answer < 300:
                signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + body
                mac = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
                assert request.headers["webhook-signature"] == f"v1,{mac}"
                assert verify(SECRET, dict(request.headers), body)
                assert not verify(SECRET[::-1], dict(request.headers), body)
                assert not verify(SECRET, dict(request.headers), body + b" ")
                self.taken += json.loads(body)["events"]
                self.changed.notify_all()
            request.send_response(answer)
            request.send_header("content-length", "0")
            request.end_headers()

    def numbers(self) -> list[int]:
        with self.changed:
            return [event["number"] for event in self.taken]

    def wait_for(self, last: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.taken and self.taken[-1]["number"] >= last, 30), self.numbers()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


def test_what_is_not_taken_is_sent_again_until_it_is(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers = [500, -1, 302, 503]
    complaints: list[str] = []
    pauses: list[float] = []
    sender = Sender(receiver.url, SECRET, complain=complaints.append, sleep=pauses.append)
    cursor = tmp_path / "cursor"
    batches = [([{"number": 1}, {"number": 2}], 2), ([], 7), ([{"number": 8}], 8)]
    deliver(batches, sender, cursor)
    assert receiver.numbers() == [1, 2, 8]
    assert read_cursor(cursor) == 8
    assert len(complaints) == len(pauses) == 4
    assert all(0 <= pause <= 2 ** (tries + 1) for tries, pause in enumerate(pauses))


def test_gone_ends_it_and_the_cursor_stays(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers = [410]
    cursor = tmp_path / "cursor"
    write_cursor(cursor, 4)
    with pytest.raises(WebhookRefused, match="410"):
        deliver([([{"number": 5}], 5)], Sender(receiver.url, SECRET, complain=print), cursor)
    assert read_cursor(cursor) == 4


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_the_body_of_an_answer_is_never_waited_for(encoding: str) -> None:
    """It may be without an end, or become one."""
    taken = threading.Event()
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: 100000000\r\n\r\nx"

    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(head.encode())
            taken.wait(30)

    complaints: list[str] = []

    def complain(text: str) -> None:
        complaints.append(text)
        raise WebhookRefused(text)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        answering = threading.Thread(target=answer)
        answering.start()
        try:
            Sender(f"http://127.0.0.1:{listening.getsockname()[1]}/", SECRET, complain=complain).post([{"number": 1}])
        finally:
            taken.set()
            answering.join()
    assert not complaints


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 500 Sorry\r\n"])
def test_headers_without_an_end_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: bytes, scheme: str
) -> None:
    gone = threading.Event()
    complaints: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if scheme == "https":
        own = Authority(tmp_path)
        context.load_cert_chain(*own.sign("receiver", host=True))
        monkeypatch.setenv("SSL_CERT_FILE", str(own.pem))

    def answer() -> None:
        connection, _ = listening.accept()
        if scheme == "https":
            connection = context.wrap_socket(connection, server_side=True)
        with connection, suppress(OSError):
            connection.recv(65_536)
            connection.sendall(begin or b"HTTP/1.1 ")
            while not gone.wait(0.01):
                connection.sendall(b"x: y\r\n" if begin else b"x")

    def complain(text: str) -> None:
        complaints.append(text)
        raise WebhookRefused(text)

    def post() -> None:
        with suppress(WebhookRefused):
            Sender(url, SECRET, complain=complain, timeout_s=0.5).post([{"number": 1}])

    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"{scheme}://localhost:{listening.getsockname()[1]}/"
        threads = [threading.Thread(target=work, daemon=True) for work in (answer, post)]
        for thread in threads:
            thread.start()
        threads[1].join(10)
        waits = threads[1].is_alive()
        gone.set()
        for thread in threads:
            thread.join(10)
    assert not waits
    (complaint,) = complaints
    assert "were not taken" in complaint
    assert "certificate" not in complaint


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org:99999/?token=secret",
        "https://example.org:secret/",
        "https://[secret/",
        "https://[::1]x/?token=secret",
        "https://exa mple.org/?token=secret",
        f"https://{'a' * 64}.example.org/?token=secret",
    ],
)
def test_an_address_that_nobody_can_have_is_refused_at_once_and_its_secrets_are_not_told(url: str) -> None:
    with pytest.raises(WebhookRefused) as refused:
        Sender(url, SECRET, complain=pytest.fail).post([{"number": 1}])
    assert "secret" not in str(refused.value)


def test_what_is_secret_in_an_address_is_not_told(receiver: Receiver) -> None:
    receiver.answers = [410]
    assert told_url("https://example.org:8443/hook?token=secret#part") == "https://example.org:8443/hook"
    with pytest.raises(WebhookRefused, match="it wants no more") as gone:
        Sender(f"{receiver.url}?token=secret", SECRET, complain=print).post([{"number": 5}])
    # Nobody would be sent it.
    with pytest.raises(WebhookRefused, match="leave it out") as refused:
        check_url("https://alice:secret@example.org/hook")
    assert "secret" not in f"{gone.value} {refused.value}"


@pytest.mark.parametrize("path", ["//x:99999/?token=secret", "//?token=secret", "///hook?token=secret"])
def test_a_path_that_reads_as_a_host_is_refused_without_its_secrets(path: str) -> None:
    """It once was tried for ever, and each time the log had the query."""
    with pytest.raises(WebhookRefused, match="two slashes") as refused:
        Sender(f"https://example.org{path}", SECRET, complain=print)
    assert "secret" not in str(refused.value)


def test_an_old_request_is_not_believed() -> None:
    assert not verify(SECRET, {"webhook-id": "1-1", "webhook-timestamp": "1", "webhook-signature": "v1,x"}, b"")
    assert not verify(SECRET, {}, b"")
    strange = {"webhook-id": "1-1", "webhook-timestamp": "1", "webhook-signature": "v1,\u00e9"}
    assert not verify(SECRET, strange, b"", now_s=1)


@pytest.mark.parametrize("url", ["http://example.org/hook", "ftp://127.0.0.1/", "hook", "https://"])
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(WebhookRefused, match="https"):
        check_url(url)


def test_secrets_and_cursors_that_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    with pytest.raises(WebhookRefused, match="can't be read"):
        read_secret(secret)
    secret.write_bytes(SECRET)
    secret.chmod(0o644)
    with pytest.raises(WebhookRefused, match="chmod 600"):
        read_secret(secret)
    secret.chmod(0o600)
    assert read_secret(secret) == SECRET
    secret.write_bytes(b"short")
    with pytest.raises(WebhookRefused, match="at least 24"):
        read_secret(secret)
    secret.write_text("x")
    with pytest.raises(WebhookRefused, match="no number"):
        read_cursor(secret)


def start_sender(serving: Serving, url: str, folder: Path) -> subprocess.Popen[bytes]:
    secret = folder / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    words = ["webhook", url, "--secret-file", str(secret), "--cursor", str(folder / "cursor")]
    return subprocess.Popen(
        [sys.executable, "-m", "simswitch", *words, "--address", serving.address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_sender_that_is_killed_loses_nothing(
    serving: Serving, pool: OperatorClient, moved: int, receiver: Receiver, tmp_path: Path
) -> None:
    assert moved == 0
    kinds = [event_pb2.EventKind.Value(f"EVENT_KIND_{word}") for word in KINDS]
    request = event_pb2.WatchEventsRequest(after=0, kinds=kinds, once=True)
    wanted = [event.number for response in pool.events.WatchEvents(request) for event in response.events]
    assert len(wanted) >= 24
    # The first one is killed while it is refused, the second goes on and takes all.
    receiver.answers = [500] * 1_000
    first = start_sender(serving, receiver.url, tmp_path)
    try:
        until = time.monotonic() + 30
        while len(receiver.answers) > 998 and time.monotonic() < until:
            with receiver.changed:
                receiver.changed.wait(0.05)
    finally:
        first.kill()
        first.wait()
    receiver.answers = []
    second = start_sender(serving, receiver.url, tmp_path)
    try:
        receiver.wait_for(wanted[-1])
    finally:
        second.kill()
        second.wait()
    assert sorted(set(receiver.numbers())) == wanted
    assert receiver.numbers() == sorted(receiver.numbers())

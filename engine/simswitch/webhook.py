"""Sends events to a web address as they happen, at least once each and in order.

    POST url
    webhook-id: 17-42                      numbers of the first and the last event
    webhook-timestamp: 1584781200          Unix seconds
    webhook-signature: v1,<base64>         HMAC-SHA256 of "id.timestamp.body" with the shared secret

    {"events": [{"number": 17, "kind": "announced", "terminal": 355000000000025, …}, …]}

The names and the signature follow the Standard Webhooks convention. Who answers with 2xx has taken all of them; then
the number of the last is written to the cursor file, durably. Anything else is tried again, with full jitter from 1 s
to 5 minutes, for ever; 410 ends it. So a receiver may see an event twice, and tells by its number. Of an answer the
status counts and its body is never read: neither a large nor a slow one holds up what happens next. Nor do headers
that come byte by byte: ten seconds after the request the connection is cut.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import random
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 300.0
TIMEOUT_S = 10.0
SECRET_BYTES_MIN = 24
TOLERANCE_S = 300
KINDS = ("ANNOUNCED", "WITHDRAWN", "CONFIRMED", "TRAFFIC", "UNMEASURED", "GIVEN_UP", "LIMIT", "EXEMPT")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class WebhookRefused(Exception):
    """The address, the secret or the cursor can't be used, or the receiver wants no more."""


def check_url(url: str) -> str:
    """An https address, or a plain one on loopback."""
    try:
        parts, told = urlsplit(url), told_url(url)
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError:
        # What Python says of it may name a password.
        raise WebhookRefused(
            "the address has no host or port that can be read: https://host/path belongs here"
        ) from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise WebhookRefused(f"{told!r} is no web address: https://host/path belongs here")
    if parts.username is not None or parts.password is not None:
        raise WebhookRefused(f"a user or password in the address of {told!r} is sent to nobody: leave it out")
    if parts.path.startswith("//"):
        # Who sends a request would take what follows for another host, and say so with the query.
        raise WebhookRefused(f"the path of {told!r} begins with two slashes: https://host/path belongs here")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise WebhookRefused(f"{told!r} would send who is where in the clear: only https, or http on loopback")
    return url


def told_url(url: str) -> str:
    """As logs and screens may have it: without what is often a secret, a password or a query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def read_secret(path: Path) -> bytes:
    """The shared secret: the file's text, which nobody else may read."""
    try:
        mode = path.stat().st_mode
        secret = path.read_bytes().strip()
    except OSError as error:
        raise WebhookRefused(f"the secret {path} can't be read: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise WebhookRefused(f"others may read the secret {path}: chmod 600 {path}")
    if len(secret) < SECRET_BYTES_MIN:
        raise WebhookRefused(f"the secret {path} has {len(secret)} bytes; at least {SECRET_BYTES_MIN} belong there")
    return secret


def signature(secret: bytes, identifier: str, timestamp: str, body: bytes) -> str:
    """What stands in ``webhook-signature``."""
    signed = f"{identifier}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def verify(secret: bytes, headers: Mapping[str, str], body: bytes, now_s: float | None = None) -> bool:
    """For receivers: whether the request is from who has the secret, and not older than five minutes."""
    found = {name.lower(): value for name, value in headers.items()}
    try:
        identifier, timestamp = found["webhook-id"], found["webhook-timestamp"]
        age_s = abs((time.time() if now_s is None else now_s) - int(timestamp))
        given = found["webhook-signature"].encode()
    except (KeyError, ValueError):
        return False
    expected = signature(secret, identifier, timestamp, body).encode()
    return age_s <= TOLERANCE_S and any(hmac.compare_digest(each, expected) for each in given.split())


def read_cursor(path: Path) -> int:
    """The number of the last event that was taken; 0 where there is no file yet."""
    try:
        return int(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        raise WebhookRefused(f"the cursor {path} holds no number ({error}): remove it to begin anew") from error


def write_cursor(path: Path, number: int) -> None:
    """Durable before it returns, and never half written."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w", encoding="ascii") as file:
        file.write(f"{number}\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _opened(url: str, timeout_s: float) -> tuple[Any, str]:
    """Who asks a receiver, and for what path there. No part of a request takes longer than ``timeout_s``."""
    import urllib3
    from urllib3.exceptions import LocationValueError

    timeout = urllib3.Timeout(total=timeout_s)
    try:
        target = urllib3.util.parse_url(url).request_uri
        pool: Any = urllib3.connection_from_url(url, retries=False, timeout=timeout, maxsize=1)
    except LocationValueError:
        raise WebhookRefused(f"{told_url(url)!r} is no web address: https://host/path belongs here") from None

    class Connection(pool.ConnectionCls):  # type: ignore[misc]
        def getresponse(self) -> Any:
            # The timeout of a socket begins anew with each byte.
            cut = threading.Timer(timeout_s, _cut, (self.sock,))
            cut.daemon = True
            cut.start()
            try:
                return super().getresponse()
            finally:
                cut.cancel()

    pool.ConnectionCls = Connection
    return pool, target


def _cut(connection: socket.socket) -> None:
    """Below TLS, so that who reads from it sees its end. It may just have been closed."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class Sender:
    """Posts batches of events until they are taken."""

    def __init__(
        self,
        url: str,
        secret: bytes,
        *,
        complain: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
        retry_first_s: float = RETRY_FIRST_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = check_url(url)
        self._secret = secret
        self._complain = complain
        self._sleep = sleep
        self._retry_first_s = retry_first_s
        self._http, self._target = _opened(url, timeout_s)

    def post(self, events: list[dict[str, Any]]) -> None:
        """Returns when the receiver has taken them; raises ``WebhookRefused`` when it wants no more."""
        from urllib3.exceptions import HTTPError

        body = json.dumps({"events": events}, ensure_ascii=False).encode()
        identifier = f"{events[0]['number']}-{events[-1]['number']}"
        tries = 0
        while True:
            timestamp = str(int(time.time()))
            headers = {
                "content-type": "application/json",
                "webhook-id": identifier,
                "webhook-timestamp": timestamp,
                "webhook-signature": signature(self._secret, identifier, timestamp, body),
            }
            try:
                response = self._http.request(
                    "POST", self._target, body=body, headers=headers, redirect=False, preload_content=False
                )
                response.close()
            except HTTPError as error:
                why = str(error)
            else:
                if 200 <= response.status < 300:
                    return
                if response.status == 410:
                    raise WebhookRefused(f"{told_url(self._url)} says that it is gone (410): it wants no more events")
                why = f"it answered {response.status}"
            tries += 1
            pause_s = random.uniform(0, min(self._retry_first_s * 2 ** min(tries, 16), RETRY_MAX_S))
            self._complain(f"events {identifier} were not taken: {why}. Again in {pause_s:.1f} s")
            self._sleep(pause_s)


def deliver(batches: Iterable[tuple[list[dict[str, Any]], int]], sender: Sender, cursor: Path) -> None:
    """Posts each batch and then writes up to where all was taken. Ends when the batches do."""
    for events, last in batches:
        if events:
            sender.post(events)
        write_cursor(cursor, last)

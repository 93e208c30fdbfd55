"""A server with TLS and both doors, and callers with certificates and tokens."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from simswitch.access.certificates import TlsFiles
from simswitch.access.tokens import create_token
from simswitch.client import Client, OperatorClient, ServiceError
from simswitch.client.credentials import Credentials
from simswitch.client.operator import service_errors
from simswitch.service.access import Access, AccessSettings
from simswitch.service.settings import DoorSettings

from tests.access.authority import Authority
from tests.service.serving import Serving, define
from tests.soak.run import process


class Doors:
    """A server with TLS, an authority for its own certificate and one for access servers."""

    def __init__(self, folder: Path, **bounds: int) -> None:
        """``bounds``: of ``DoorSettings`` and ``AccessSettings``."""
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir()
        self.own = Authority(folder / "own")
        self.servers = Authority(folder / "servers")
        self.files = TlsFiles(*self.own.sign("service", host=True), self.servers.pem)
        self.revoked = folder / "revoked.txt"
        self.revoked.write_text("# none yet\n")
        usual = AccessSettings()
        access = AccessSettings(
            tls=self.files,
            revoked=self.revoked,
            calls_max=bounds.pop("calls_max", usual.calls_max),
            held_bytes_max=bounds.pop("held_bytes_max", usual.held_bytes_max),
        )
        options = {"access": access, "doors": DoorSettings(**bounds), "people_address": ("127.0.0.1", 0)}
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

    def server(
        self, name: str, authority: Authority | None = None, uri: str = "", file: str = "", **more: Any
    ) -> Credentials:
        certificate, key = (authority or self.servers).sign(name, uri=uri, file=file, **more)
        return Credentials(self.own.pem, certificate, key)

    def client(self, credentials: Credentials, name: str = "as-01", actor: str | None = None) -> Client:
        return Client(self.serving.address, access_server=name, actor=actor, credentials=credentials)


def refusal(call: Callable[[], object]) -> ServiceError:
    with pytest.raises(ServiceError) as caught, service_errors():
        call()
    return caught.value


@contextmanager
def growing_mb() -> Iterator[list[float]]:
    """Looks all the while at what this process holds of the memory: what it held before stands first."""
    held_mb = [process(os.getpid())[0]]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            held_mb.append(process(os.getpid())[0])

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield held_mb
    finally:
        over.set()
        watching.join()

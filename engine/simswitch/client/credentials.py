"""How a client connects: what it trusts, and what it proves itself with.

An access server has a certificate and its key, a person a token in a file that nobody else may read. With neither, and
no ``ca``, the connection is plain: only a service on loopback takes it. A token is never sent without TLS but on
loopback. The files are read for each connection, so a certificate that was replaced counts from the next one on.
"""

from __future__ import annotations

import ipaddress
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from simswitch import contract

ACTOR_KEY = "simswitch-actor"
TOKEN_KEY = "authorization"
CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", contract.MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", contract.MESSAGE_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Before the service would end a connection that carries no call.
    ("grpc.client_idle_timeout_ms", 60_000),
]

Metadata = tuple[tuple[str, str], ...]


class CredentialsRefused(ValueError):
    """The files can't be used, or not in this way."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files in PEM; of the token, its text."""

    ca: Path | None = None
    """Who signed the service's certificate. None: the connection has no TLS."""
    certificate: Path | None = None
    key: Path | None = None
    token_file: Path | None = None

    def paths(self) -> dict[str, str]:
        """For another process, by name."""
        files = {"ca": self.ca, "certificate": self.certificate, "key": self.key, "token_file": self.token_file}
        return {name: str(path) for name, path in files.items() if path is not None}

    def metadata(self, address: str, actor: str | None, default: str) -> Metadata:
        """What each call says about who makes it. What is proven need not be claimed: ``default`` is then left out."""
        found = []
        if self.token_file is not None:
            if self.ca is None and not _loopback(address):
                raise CredentialsRefused(
                    f"a token would go to {address} in the clear: name the CA of the service's certificate"
                )
            found.append((TOKEN_KEY, f"Bearer {_read_secret(self.token_file)}"))
        if actor is not None:
            found.append((ACTOR_KEY, actor))
        elif self.token_file is None and self.certificate is None:
            found.append((ACTOR_KEY, default))
        return tuple(found)

    def channel(self, address: str) -> Any:
        """For threads."""
        credentials = self._channel_credentials()
        if credentials is None:
            return grpc.insecure_channel(address, CHANNEL_OPTIONS)
        return grpc.secure_channel(address, credentials, CHANNEL_OPTIONS)

    def aio_channel(self, address: str) -> Any:
        """For asyncio."""
        credentials = self._channel_credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(address, credentials, CHANNEL_OPTIONS)

    def _channel_credentials(self) -> grpc.ChannelCredentials | None:
        if (self.certificate is None) != (self.key is None):
            raise CredentialsRefused("a certificate and its key go together: name both")
        if self.ca is None:
            if self.certificate is not None:
                raise CredentialsRefused("a certificate needs TLS: name the CA of the service's certificate")
            return None
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.certificate))


PLAIN = Credentials()


def _read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise CredentialsRefused(f"{path} can't be read: {error.strerror}") from error


def _read_secret(path: Path) -> str:
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise CredentialsRefused(f"others may read the token in {path}: chmod 600 {path}")
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsRefused(f"{path} can't be read: {error}") from error


def _loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

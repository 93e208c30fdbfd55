"""What a server is told, and what of it is refused before anything is made."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from simswitch.access.certificates import Certificates
from simswitch.cell import Capacity, Cell, CellSettings, JournalSettings
from simswitch.clock import AWAY_MS
from simswitch.core import layout
from simswitch.core.commands import outcome_runs, run
from simswitch.metrics import MetricsSettings, shown
from simswitch.service.access import AccessSettings, begin_with


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """How much may come in at a time."""

    connections_max: int = 8_192
    people_connections_max: int = 1_024
    per_address: int = 256
    """Connections of one address, where callers prove who they are; 0: any number."""
    per_identity: int = 64
    """Connections of one identity; 0: any number."""
    handshake_ms: int = 10_000
    message_bytes_max: int = 4 << 20
    """At the door that asks for certificates. An access server's widest call, a report of 65,536 items, has 3.3 MB."""
    unread_s: float = 30.0
    """How long a stream's client may leave unread what it is sent, once no more goes into its connection."""
    drain_s: float = 5.0


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the server listens and what its cell may hold."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: any free one."""
    transport: str = "grpcio"
    """Or ``native``: ``simswitch.service.native``."""
    capacity: Capacity = field(default_factory=Capacity)
    cell: CellSettings = field(default_factory=CellSettings)
    journal: JournalSettings = field(default_factory=JournalSettings)
    away_ms: int = AWAY_MS
    """How long it may have been away, and its start is believed (``clock``); 0: any time."""
    follower: bool = True
    """A process beside the server that follows the journal, checks it and writes the snapshots."""
    follower_options: tuple[str, ...] = ()
    """More words for its command line."""
    learner: tuple[str, ...] | None = None
    """Words of ``simswitch`` before ``learn``, of a process that posts what was observed of slowed SIMs. None: there is
    none."""
    learner_options: tuple[str, ...] = ()
    """More words behind it."""
    learner_address: str = ""
    """Where it reaches the server. Empty: where people come in."""
    access: AccessSettings = field(default_factory=AccessSettings)
    doors: DoorSettings = field(default_factory=DoorSettings)
    people_address: tuple[str, int] | None = None
    """Host and port where people come with tokens and need no certificate; only with TLS."""
    plaintext_beyond_loopback: bool = False
    """The address may be any although there is no TLS: said in so many words. Tokens can then be read on the way."""
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    """Where the service, its follower and its learner tell Prometheus of themselves."""
    engine: Mapping[int, int] = field(default_factory=dict)
    """Settings of the engine (``layout.Setting``) that are to stand at start; the others stay as they are."""


class AddressNotAllowed(ValueError):
    """The server would be reachable from elsewhere without TLS."""


class TransportMissing(ValueError):
    """The package that a transport needs is not installed."""


class NoWayIn(ValueError):
    """No access server could prove which one it is."""


class SettingRefused(ValueError):
    """The engine does not take a value that is to stand at start."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_address(
    host: str,
    transport: str = "grpcio",
    access: AccessSettings | None = None,
    people_address: tuple[str, int] | None = None,
    plaintext_beyond_loopback: bool = False,
) -> None:
    """Raises ``AddressNotAllowed`` when the server would be reachable in a way that nobody asked for."""
    tls = None if access is None else access.tls
    if transport == "native" and (tls is not None or not is_loopback(host)):
        raise AddressNotAllowed(
            "the transport native has no TLS of its own: use grpcio, or loopback and a proxy that ends TLS"
        )
    if tls is not None:
        return
    if people_address is not None:
        raise AddressNotAllowed(
            "people_address needs TLS: set certificate, key and client_ca in the section tls of the settings"
        )
    if not is_loopback(host) and not plaintext_beyond_loopback:
        raise AddressNotAllowed(
            f"{host!r} is not a loopback address, and without TLS everything could be read on the way: set "
            "certificate, key and client_ca in the section tls of the settings, or use 127.0.0.1 or ::1"
        )


def native() -> Any:
    """The module of the second transport. Raises ``TransportMissing``."""
    try:
        return import_module("simswitch.service.native")
    except ModuleNotFoundError as error:
        if error.name != "pygrpc_native":
            raise
        raise TransportMissing(
            "the transport 'native' needs the package pygrpc-native, which is not installed: "
            "pip install 'simswitch[native]', or serve with the transport 'grpcio'"
        ) from error


def checked(settings: ServerSettings, *, new: bool) -> Certificates | None:
    """The certificates, if there are to be any. What can be refused is refused here, before a folder is made or
    recovered; whether ports are free is asked where the folder is ``new``."""
    if settings.transport == "native":
        native()
    settings.metrics.check()
    check_address(
        settings.host,
        settings.transport,
        settings.access,
        settings.people_address,
        settings.plaintext_beyond_loopback,
    )
    if settings.access.required and settings.access.tls is None:
        raise NoWayIn(
            "required in the section access of the settings asks for proof, and an access server's is its certificate, "
            "which needs TLS: set certificate, key and client_ca in the section tls, or take required out"
        )
    certificates = None if settings.access.tls is None else Certificates(settings.access.tls)
    if settings.access.revoked is not None:
        begin_with(settings.access.revoked)
    configure(Cell.in_memory(capacity=Capacity(1, 1, 1)), settings.engine)
    if new:
        for whose, place in (
            ("its calls", (settings.host, settings.port)),
            ("people (people_address)", settings.people_address),
            ("its figures ([metrics] listen)", settings.metrics.service),
        ):
            if place is not None:
                _check_free(whose, *place)
    return certificates


def _check_free(whose: str, host: str, port: int) -> None:
    """Raises ``OSError`` when nobody can listen there, at any of the addresses that a name has."""
    refused: OSError | None = None
    try:
        # Where there is no IPv6, gRPC takes :: for any address.
        found = socket.getaddrinfo(
            None if host == "::" else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, place in found:
            try:
                with socket.socket(family, kind, protocol) as tried:
                    tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    tried.bind(place)
                    return
            except OSError as error:
                refused = error
    except OSError as error:
        refused = error
    raise OSError(f"nobody can listen at {shown(host, port)} for {whose}: {refused and refused.strerror}") from refused


def configure(cell: Cell, settings: Mapping[int, int]) -> None:
    """Before the cell is started, so that no call is decided by other settings. Raises ``SettingRefused``."""
    for setting, value in settings.items():
        outcome = outcome_runs(cell.step(run(layout.CONFIGURE, setting=setting, value=value)).data)[0]
        if int(outcome["status"][0]) >= layout.NOT_PERMITTED:
            name = layout.Setting(setting).name.lower()
            raise SettingRefused(f"the engine refuses the value {value} of its setting {name}")

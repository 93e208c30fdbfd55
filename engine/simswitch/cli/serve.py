"""``simswitch serve``: the service on a data folder."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ConfigOption, settings
from simswitch.cli.screen import complain
from simswitch.masking import log_masked

if TYPE_CHECKING:
    from simswitch.access.certificates import TlsFiles
    from simswitch.config import Config
    from simswitch.metrics import MetricsSettings


class Transport(StrEnum):
    GRPCIO = "grpcio"
    NATIVE = "native"


def serve(
    folder: Annotated[Path, typer.Argument(help="The data folder. Made when it doesn't exist.", file_okay=False)],
    address: Annotated[
        str | None, typer.Option("--address", help="Host and port to listen on; port 0 takes a free one.")
    ] = None,
    config: ConfigOption = None,
    transport: Annotated[
        Transport | None,
        typer.Option("--transport", help="What carries the calls. Default: that of the settings, grpcio."),
    ] = None,
    insecure_plaintext_beyond_loopback: Annotated[
        bool,
        typer.Option(
            "--insecure-plaintext-beyond-loopback",
            help="Listen where others can reach it, without TLS: tokens and all else can be read on the way. For a "
            "network that nobody else is on, or behind a proxy that ends TLS. Access servers, which have "
            "certificates and no tokens, can't come in.",
        ),
    ] = False,
) -> None:
    """Run the service on a data folder until SIGTERM or Ctrl-C."""
    values = settings(config)
    log_masked()
    # gRPC would otherwise write a line for each handshake that fails, and so whoever knocks fills the log.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    host, port = split_address(address or values.text("service", "address"))

    import asyncio

    from simswitch.access.certificates import CertificateRefused
    from simswitch.cell import Capacity, CellSettings, JournalSettings
    from simswitch.core.layout import Setting
    from simswitch.folder.manifest import is_backup
    from simswitch.journal.errors import FolderInUse, JournalError, JournalFull
    from simswitch.metrics import MetricsRefused
    from simswitch.service.access import AccessSettings
    from simswitch.service.server import serve as run_service
    from simswitch.service.settings import (
        AddressNotAllowed,
        DoorSettings,
        NoWayIn,
        ServerSettings,
        SettingRefused,
        TransportMissing,
    )

    if is_backup(folder):
        raise CommandFailed(
            Exit.REFUSED,
            f"{folder} is a backup, and what was handed out after it is not fenced in it: `simswitch restore {folder} "
            "NEW` makes a data folder of it",
        )

    def ready(bound: str) -> None:
        complain(f"simswitch serves {folder} at {bound}; Ctrl-C ends it")

    people = values.values.get(("tls", "people_address"))
    server = ServerSettings(
        host=host,
        port=port,
        transport=transport or values.text("service", "transport"),
        capacity=Capacity(
            values.number("capacity", "sims"),
            values.number("capacity", "terminals"),
            values.number("capacity", "orders"),
        ),
        cell=CellSettings(
            queue_calls_max=values.number("queue", "calls_max"), queue_bytes_max=values.number("queue", "bytes_max")
        ),
        journal=JournalSettings(
            segment_bytes=values.number("journal", "segment_bytes"),
            free_mark_bytes=values.number("journal", "free_mark_bytes"),
            keep_ms=values.number("journal", "keep_hours") * 3_600_000,
        ),
        away_ms=values.number("service", "away_hours") * 3_600_000,
        follower=bool(values.values["follower", "enabled"]),
        follower_options=(
            *("--snapshot-seconds", str(values.number("follower", "snapshot_seconds"))),
            *(() if values.values["follower", "history"] else ("--no-history",)),
            *("--history-months", str(values.number("follower", "history_months"))),
            *("--history-cache-mib", str(values.number("follower", "history_cache_mib"))),
        ),
        learner=learner_words(values, host),
        learner_options=("--learn-every", str(values.number("learner", "learn_seconds"))),
        learner_address=str(values.values.get(("learner", "address"), "")),
        access=AccessSettings(
            tls=tls_files(values),
            revoked=values.path("tls", "revoked"),
            required=bool(values.values["access", "required"]),
            people_calls_per_s=values.number("access", "people_calls_per_s"),
            server_calls_per_s=values.number("access", "access_server_calls_per_s"),
            calls_max=values.number("doors", "calls_per_identity"),
            held_bytes_max=values.number("doors", "bytes_per_identity"),
        ),
        doors=DoorSettings(
            connections_max=values.number("doors", "connections_max"),
            people_connections_max=values.number("doors", "people_connections_max"),
            per_address=values.number("doors", "connections_per_address"),
            per_identity=values.number("doors", "connections_per_identity"),
            handshake_ms=values.number("doors", "handshake_ms"),
            message_bytes_max=values.number("doors", "message_bytes_max"),
            unread_s=values.number("doors", "unread_seconds"),
            drain_s=values.number("doors", "drain_seconds"),
        ),
        people_address=split_address(str(people)) if people is not None else None,
        plaintext_beyond_loopback=insecure_plaintext_beyond_loopback,
        metrics=metrics_settings(values),
        engine={Setting[name.upper()]: value for name, value in values.engine_settings().items()},
    )
    try:
        asyncio.run(run_service(folder, server, ready=ready))
    except (
        AddressNotAllowed,
        CertificateRefused,
        MetricsRefused,
        NoWayIn,
        SettingRefused,
        TransportMissing,
    ) as error:
        raise CommandFailed(Exit.USAGE, str(error)) from error
    except (FolderInUse, JournalFull) as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except JournalError as error:
        raise CommandFailed(Exit.DAMAGED, str(error)) from error
    except (OSError, RuntimeError) as error:
        # gRPC reports a port that is taken as a RuntimeError.
        raise CommandFailed(Exit.REFUSED, f"can't serve {folder} at {host}:{port}: {error}") from error


def metrics_settings(values: Config) -> MetricsSettings:
    from simswitch.metrics import MetricsSettings

    def listen(name: str) -> tuple[str, int] | None:
        address = values.values.get(("metrics", name))
        return None if address is None else split_address(str(address))

    return MetricsSettings(
        listen("listen"),
        listen("follower_listen"),
        listen("learner_listen"),
        bool(values.values["metrics", "beyond_loopback"]),
    )


def learner_words(values: Config, host: str) -> tuple[str, ...] | None:
    """What stands before ``learn`` in the learner's command line; None: there is to be none."""
    if not values.values["learner", "enabled"]:
        return None
    from simswitch.cli.learned import needs_scipy
    from simswitch.service.settings import is_loopback

    needs_scipy()
    if not (values.values["follower", "enabled"] and values.values["follower", "history"]):
        raise CommandFailed(Exit.USAGE, "the learner reads history: enable it in the section follower, or no learner")
    token, ca = values.path("learner", "token_file"), values.path("connection", "ca")
    tls = values.path("tls", "certificate") is not None
    if token is None and (tls or not is_loopback(host)):
        raise CommandFailed(
            Exit.USAGE,
            "nobody is believed without a token here: make one with `simswitch token create DIR learner:local`, and "
            "name its file as token_file in the section learner",
        )
    if tls and values.values.get(("tls", "people_address")) is None:
        raise CommandFailed(Exit.USAGE, "the learner comes with a token: set people_address in the section tls")
    options = {"--token-file": token, "--ca": ca}
    return tuple(word for name, path in options.items() if path is not None for word in (name, str(path)))


def tls_files(values: Config) -> TlsFiles | None:
    """None: the settings ask for no TLS."""
    from simswitch.access.certificates import TlsFiles

    certificate, key, client_ca = (values.path("tls", name) for name in ("certificate", "key", "client_ca"))
    if certificate is None and key is None:
        if client_ca is not None or values.path("tls", "revoked") is not None:
            raise CommandFailed(Exit.USAGE, "the section tls needs certificate and key")
        return None
    if certificate is None or key is None:
        raise CommandFailed(Exit.USAGE, "certificate and key go together in the section tls: give both")
    if client_ca is None:
        raise CommandFailed(
            Exit.USAGE,
            "the section tls has no client_ca: with TLS only its certificate says which access server it is, and none "
            "could come in. Name the file of the authority that signs them, or take certificate and key out",
        )
    return TlsFiles(certificate, key, client_ca)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:7467`` or ``[::1]:7467``."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise CommandFailed(Exit.USAGE, f"{address!r} is no address: host and port belong here, such as 127.0.0.1:7467")
    return host.removeprefix("[").removesuffix("]"), int(port)

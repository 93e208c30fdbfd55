"""``simswitch serve``: the service on a data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ConfigOption, settings
from simswitch.cli.screen import complain


def serve(
    folder: Annotated[Path, typer.Argument(help="The data folder. Made when it doesn't exist.", file_okay=False)],
    address: Annotated[
        str | None, typer.Option("--address", help="Host and port to listen on; port 0 takes a free one.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Run the service on a data folder until SIGTERM or Ctrl-C."""
    values = settings(config)
    host, port = split_address(address or values.text("service", "address"))
    engine = values.engine_settings()

    import asyncio
    import threading

    from simswitch.cell import Capacity, CellSettings, JournalSettings
    from simswitch.journal.errors import FolderInUse, JournalError, JournalFull
    from simswitch.service.server import AddressNotAllowed, ServerSettings
    from simswitch.service.server import serve as run_service

    def ready(bound: str) -> None:
        complain(f"simswitch serves {folder} at {bound}; Ctrl-C ends it")
        if engine:
            # The engine's settings are commands like any other, so they come over the same way: from another thread,
            # because this one is needed to answer.
            threading.Thread(target=_configure, args=(bound, engine), daemon=True).start()

    server = ServerSettings(
        host=host,
        port=port,
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
        ),
        follower=bool(values.values["follower", "enabled"]),
    )
    try:
        asyncio.run(run_service(folder, server, ready=ready))
    except AddressNotAllowed as error:
        raise CommandFailed(Exit.USAGE, str(error)) from error
    except (FolderInUse, JournalFull) as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except JournalError as error:
        raise CommandFailed(Exit.DAMAGED, str(error)) from error
    except (OSError, RuntimeError) as error:
        # gRPC reports a port that is taken as a RuntimeError.
        raise CommandFailed(Exit.REFUSED, f"can't serve {folder} at {host}:{port}: {error}") from error


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:7467`` or ``[::1]:7467``."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise CommandFailed(Exit.USAGE, f"{address!r} is no address: host and port belong here, such as 127.0.0.1:7467")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _configure(address: str, engine: dict[str, int]) -> None:
    from simswitch.cli.connection import connected
    from simswitch.v1 import pool_pb2

    wanted = [
        pool_pb2.SettingValue(setting=pool_pb2.Setting.Value(f"SETTING_{name.upper()}"), value=value)
        for name, value in engine.items()
    ]
    try:
        with connected(address, "operator:config") as service:
            service.pool.Configure(pool_pb2.ConfigureRequest(settings=wanted), timeout=30)
    except CommandFailed as failure:
        complain(f"simswitch: the settings of the section [engine] were not taken: {failure}")

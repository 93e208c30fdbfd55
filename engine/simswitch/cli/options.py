"""The options that several commands share, and what they mean together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simswitch.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from simswitch.config import Config

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="SIMSWITCH_CONFIG", help="Settings file (see `simswitch config --example`)."),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="SIMSWITCH_ADDRESS",
        help="Host and port of the service. Default: that of the settings, 127.0.0.1:7467.",
    ),
]
ActorOption = Annotated[
    str | None, typer.Option("--actor", help="Who acts: role and name. Default: that of the settings, operator:local.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for programs.")]


def settings(path: Path | None) -> Config:
    """The settings of the file, or the defaults."""
    from simswitch.config import default_config, read_config
    from simswitch.toml_lines import TomlRefused

    if path is None:
        return default_config()
    try:
        return read_config(path)
    except TomlRefused as error:
        raise CommandFailed(Exit.USAGE, str(error)) from error
    except OSError as error:
        raise CommandFailed(Exit.USAGE, f"{path} can't be read: {error.strerror}") from error


def target(config: Path | None, address: str | None, actor: str | None) -> tuple[str, str]:
    """Which service to talk to, and as whom."""
    values = settings(config)
    return address or values.text("service", "address"), actor or values.text("service", "actor")

"""The options that several commands share, and what they mean together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from simswitch.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from simswitch.client.credentials import Credentials
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
MetricsOption = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="HOST:PORT",
        help="Where to tell Prometheus of itself. Default: nowhere.",
        show_default=False,
    ),
]
MetricsBeyondOption = Annotated[
    bool, typer.Option("--metrics-beyond-loopback", help="That address may be such as others can reach.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for programs.")]


def file_text(path: Path | None) -> str:
    """What a file says; nothing without one."""
    try:
        return "" if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(Exit.USAGE, f"{path} can't be read: {error}") from error


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


CONNECTION = ("ca", "certificate", "key", "token_file")
"""What `simswitch` itself takes before the command, and the section connection of the settings: files."""

given: dict[str, Path | None] = {}
"""Those that stand before the command, or in the environment."""


class Target(NamedTuple):
    """Which service to talk to, as whom, and how that is proven."""

    address: str
    actor: str | None
    credentials: Credentials


def target(config: Path | None, address: str | None, actor: str | None) -> Target:
    """From the options, the environment and the settings, in this order."""
    from simswitch.client.credentials import Credentials

    values = settings(config)
    files = {name: given.get(name) or values.path("connection", name) for name in CONNECTION}
    credentials = Credentials(**files)
    if actor is None and credentials.token_file is None and credentials.certificate is None:
        actor = values.text("service", "actor")
    return Target(address or values.text("service", "address"), actor, credentials)

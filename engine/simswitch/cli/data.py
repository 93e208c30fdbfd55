"""``simswitch inspect`` and ``simswitch follow``: commands that work on a data folder, without a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ConfigOption, JsonOption, settings
from simswitch.cli.screen import print_json, show, table

Folder = Annotated[Path, typer.Argument(help="The data folder.", exists=True, file_okay=False)]


def inspect(folder: Folder, json: JsonOption = False) -> None:
    """Show what a data folder holds. Changes nothing, and works while a server runs on it."""
    from simswitch.journal.errors import JournalError
    from simswitch.journal.inspect import inspect as inspect_folder

    try:
        found = inspect_folder(folder)
    except JournalError as error:
        raise CommandFailed(Exit.DAMAGED, str(error)) from error
    if json:
        print_json(found)
    else:
        show(*_described(folder, found))
    if found["tail"]["damaged"]:
        raise CommandFailed(Exit.DAMAGED, str(found["tail"]["text"]))
    if found["alarm"]:
        raise CommandFailed(Exit.DAMAGED, f"the follower raised an alarm: {found['alarm']}")


def _described(folder: Path, found: dict[str, Any]) -> list[Any]:
    """Single values as lines, lists of records as tables, in the order in which they were found."""
    parts: list[Any] = [f"Data folder {folder}"]
    for name, value in found.items():
        title = name.replace("_", " ")
        if isinstance(value, list) and value and isinstance(value[0], dict):
            columns = list(dict.fromkeys(key for record in value for key in record))
            rows = [[record.get(column) for column in columns] for record in value]
            parts.append(table(title, [column.replace("_", " ") for column in columns], rows))
        elif isinstance(value, dict):
            words = ", ".join(f"{key.replace('_', ' ')} {entry}" for key, entry in value.items())
            parts.append(f"  {title}: {words}")
        elif isinstance(value, list):
            parts.append(f"  {title}: {', '.join(map(str, value)) or 'none'}")
        else:
            parts.append(f"  {title}: {'none' if value is None else value}")
    return parts


def follow(folder: Folder, config: ConfigOption = None) -> None:
    """Follow a server's journal: check every outcome, and make the snapshots. `serve` starts this by itself."""
    from simswitch.following import main as follow_folder
    from simswitch.journal.errors import JournalError

    seconds = settings(config).number("follower", "snapshot_seconds")

    try:
        code = follow_folder([str(folder), "--snapshot-seconds", str(seconds)])
    except JournalError as error:
        raise CommandFailed(Exit.DAMAGED, str(error)) from error
    if code:
        raise CommandFailed(Exit.DAMAGED, f"following {folder} ended with a failure; the lines above say why")

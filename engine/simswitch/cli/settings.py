"""``simswitch config``: what the settings are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simswitch.cli.options import JsonOption, settings
from simswitch.cli.screen import print_json


def config(
    file: Annotated[Path | None, typer.Argument(help="Check this settings file and show what holds with it.")] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print a settings file with every setting, explained and commented out.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show the settings that hold, or a commented example of all."""
    from simswitch.config import example as example_text

    if example:
        typer.echo(example_text(), nl=False)
        return
    values = settings(file).values
    if json:
        sections: dict[str, dict[str, object]] = {}
        for (section, name), value in values.items():
            sections.setdefault(section, {})[name] = value
        print_json(sections)
        return
    for (section, name), value in values.items():
        # As the file has it.
        word = str(value).lower() if isinstance(value, bool) else value
        typer.echo(f"{section}.{name} = {word}")

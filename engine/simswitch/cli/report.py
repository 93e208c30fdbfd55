"""``simswitch report``: reports for people who were not there."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from simswitch.cli.data import Folder
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.screen import complain

app = typer.Typer(help="Write reports from what happened.", no_args_is_help=True)

_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M"]


class Language(StrEnum):
    JAPANESE = "ja"
    ENGLISH = "en"


@app.command("accident")
def accident(
    folder: Folder,
    facts: Annotated[Path, typer.Option("--facts", help="TOML: what people know (examples/accident-2020.toml).")],
    from_: Annotated[datetime, typer.Option("--from", formats=_FORMATS, help="From when on, in the zone.")],
    to: Annotated[datetime, typer.Option("--to", formats=_FORMATS, help="Before when, in the zone.")],
    zone: Annotated[str, typer.Option("--zone", help="Time zone of the report's dates.")] = "Asia/Tokyo",
    rules: Annotated[
        str, typer.Option("--rules", help="Rule set: the name of one that is shipped, or a TOML file.")
    ] = "jp-2020",
    language: Annotated[Language, typer.Option("--language", help="ja or en.")] = Language.JAPANESE,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write a page that prints well to this file, instead of Markdown."),
    ] = None,
) -> None:
    """Write the report on an accident: when allocations failed, for whom, how long, and what that makes of it."""
    from simswitch.history.schema import HistoryRefused, open_reader
    from simswitch.reports import accident as accidents
    from simswitch.reports import rendering
    from simswitch.reports.rules import read_rules, shipped
    from simswitch.toml_lines import TomlRefused

    try:
        here = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise CommandFailed(Exit.USAGE, f"--zone: there is no time zone {zone!r}") from error
    span = [round(instant.replace(tzinfo=here).timestamp() * 1000) for instant in (from_, to)]
    if span[0] >= span[1]:
        raise CommandFailed(Exit.USAGE, f"--from {from_} is not before --to {to}")
    path = shipped().get(rules, Path(rules))
    try:
        rule_set, known = read_rules(path), accidents.read_facts(facts)
        history = open_reader(folder)
        found = accidents.judge(
            accidents.spans(accidents.refusals(history, *span)),
            accidents.terminals_refused(history, *span),
            known,
            rule_set,
            here,
        )
        document = accidents.report(found, known, rule_set, str(folder))
        page = rendering.markdown(document, language) if html is None else rendering.html(document, language)
    except OSError as error:
        hint = f"; shipped are {', '.join(shipped())}" if error.filename == str(path) else ""
        raise CommandFailed(Exit.REFUSED, f"{error.filename} can't be read: {error.strerror}{hint}") from error
    except ImportError as error:
        raise CommandFailed(Exit.REFUSED, "--html needs Jinja: install simswitch[report]") from error
    except (HistoryRefused, TomlRefused, ValueError) as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    if html is None:
        typer.echo(page, nl=False)
        return
    try:
        html.write_text(page, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(Exit.REFUSED, f"{html} can't be written: {error.strerror}") from error
    complain(f"report: {html}")

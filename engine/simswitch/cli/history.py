"""``simswitch history`` and ``simswitch export``: what happened, from the data folder, with or without a service."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simswitch.cli.amounts import instant_text
from simswitch.cli.data import Folder
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import JsonOption
from simswitch.cli.screen import complain, print_json, show, table

if TYPE_CHECKING:
    import sqlite3

SHOWN = 100

TableName = Annotated[str, typer.Argument(help="Such as use_day, swaps, refusals, affected, jobs, decisions.")]
FromOption = Annotated[
    datetime | None, typer.Option("--from", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="From when on, local time.")
]
ToOption = Annotated[
    datetime | None, typer.Option("--to", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="Before when, local time.")
]


class Format(StrEnum):
    CSV = "csv"
    PARQUET = "parquet"


def history(
    folder: Folder,
    table_name: TableName,
    from_: FromOption = None,
    to: ToOption = None,
    subscriber: Annotated[int | None, typer.Option("--subscriber", help="Only this one.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows at most.")] = SHOWN,
    json: JsonOption = False,
) -> None:
    """Show what happened: a table of history, and from when to when it knows."""
    from simswitch.history.reading import known

    connection = _opened(folder)
    equal = {} if subscriber is None else {"subscriber": subscriber}
    found = _rows(connection, table_name, from_, to, limit, **equal)
    state = known(connection)
    if json:
        gaps = [list(gap) for gap in state.gaps]
        print_json({"sequence": state.sequence, "at_ms": state.at_ms, "gaps": gaps, "rows": found})
        return
    if found:
        show(table(table_name, list(found[0]), [list(map(str, row.values())) for row in found]))
    show(f"{len(found):,} rows; history is as of {instant_text(state.at_ms)} (record {state.sequence:,})")
    for first, last, from_ms, until_ms in state.gaps:
        since = instant_text(from_ms) if from_ms else "the beginning"
        show(f"It does not know the records {first:,} to {last:,}, from {since} to {instant_text(until_ms)}")


def export(
    folder: Folder,
    table_name: TableName,
    file: Annotated[Path, typer.Argument(help="What is written. It must not exist.", dir_okay=False)],
    from_: FromOption = None,
    to: ToOption = None,
    format_: Annotated[Format, typer.Option("--format", help="parquet needs simswitch[export].")] = Format.CSV,
) -> None:
    """Write a table of history to a file."""
    from simswitch.history.exporting import ExportMissing, write_csv, write_parquet
    from simswitch.history.reading import rows

    connection = _opened(folder)
    try:
        with file.open("xb") as target:
            found = rows(connection, table_name, _ms(from_), _ms(to))
            count = (write_csv if format_ is Format.CSV else write_parquet)(found, target)
    except FileExistsError as error:
        raise CommandFailed(Exit.REFUSED, f"{file} exists already: name another") from error
    except (ExportMissing, ValueError) as error:
        file.unlink()
        raise CommandFailed(Exit.USAGE, str(error)) from error
    complain(f"{count:,} rows written to {file}")


def _opened(folder: Path) -> sqlite3.Connection:
    from simswitch.history.schema import HistoryRefused, open_reader

    try:
        return open_reader(folder)
    except HistoryRefused as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error


def _rows(
    connection: sqlite3.Connection, name: str, from_: datetime | None, to: datetime | None, limit: int, **equal: int
) -> list[dict[str, Any]]:
    import sqlite3

    from simswitch.history.reading import rows

    try:
        found = list(rows(connection, name, _ms(from_), _ms(to), limit=limit, **equal))
    except (ValueError, sqlite3.OperationalError) as error:
        raise CommandFailed(Exit.USAGE, f"{name}: {error}") from error
    return [{key: value.hex() if isinstance(value, bytes) else value for key, value in row.items()} for row in found]


def _ms(instant: datetime | None) -> int | None:
    return None if instant is None else int(instant.astimezone().timestamp() * 1000)

"""``simswitch history`` and ``simswitch export``: what happened, from a data folder or from the service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol

import typer

from simswitch.cli.amounts import bytes_text, counted, instant_text
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, Target, target
from simswitch.cli.screen import complain, print_json, show, table

if TYPE_CHECKING:
    import sqlite3

    from simswitch.client import OperatorClient
    from simswitch.history.reading import Known

SHOWN = 100
KEY_MAX = (1 << 64) - 1

FromOption = Annotated[
    datetime | None, typer.Option("--from", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="From when on, local time.")
]
ToOption = Annotated[
    datetime | None, typer.Option("--to", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="Before when, local time.")
]


class Format(StrEnum):
    CSV = "csv"
    PARQUET = "parquet"


FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format", help="Default: what FILE's name ends with, .csv or .parquet. parquet needs simswitch[export]."
    ),
]


def history(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[DIR] TABLE",
            help="A data folder, to read its file; without one the service is asked. Then a table, such as use_day, "
            "use_sim, swaps, jobs, refusals, throttles, decisions; another word is answered with all that there are.",
        ),
    ],
    from_: FromOption = None,
    to: ToOption = None,
    subscriber: Annotated[int | None, typer.Option("--subscriber", help="Only this one.", min=0, max=KEY_MAX)] = None,
    terminal: Annotated[int | None, typer.Option("--terminal", help="Only this one.", min=0, max=KEY_MAX)] = None,
    sim: Annotated[str | None, typer.Option("--sim", help="Only the SIM with this ICCID.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows at most.")] = SHOWN,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show what happened: a table of history, and from when to when it knows. From a folder, or from the service."""
    folder, name = _words(words, 1)
    equal = {"subscriber": subscriber, "terminal": terminal, "iccid": _iccid(sim)}
    question = Question(name, from_, to, {column: value for column, value in equal.items() if value is not None})
    with _source(folder, target(config, address, actor)) as source:
        found = [
            {key: value.hex() if isinstance(value, bytes) else value for key, value in row.items()}
            for row in source.rows(question, limit)
        ]
        columns, state = source.columns(question), source.known()
    if json:
        gaps = [list(gap) for gap in state.gaps]
        print_json({"sequence": state.sequence, "at_ms": state.at_ms, "gaps": gaps, "rows": found})
        return
    if found:
        titles = [_title(column) for column in columns]
        show(table(name.replace("_", " "), titles, [[_shown(*cell) for cell in row.items()] for row in found]))
    rows = counted(len(found), "row") if found else f"{name}: no rows"
    most = " (there may be more: --limit)" if len(found) == limit else ""
    show(f"{rows}{most}; history is as of {instant_text(state.at_ms)} (record {state.sequence:,})")
    for first, last, from_ms, until_ms in state.gaps:
        since = instant_text(from_ms) if from_ms else "the beginning"
        show(f"It does not know the records {first:,} to {last:,}, from {since} to {instant_text(until_ms)}")


def _title(column: str) -> str:
    """Of a column on the screen, where an instant has a date and no milliseconds."""
    from simswitch.history.reading import DURATIONS

    return (column if column in DURATIONS else column.removesuffix("_ms")).replace("_", " ")


def _shown(column: str, value: Any) -> str:
    """A cell on the screen: instants and amounts as people read them."""
    from simswitch.history.reading import DURATIONS

    if value is None or value == "":
        return ""
    if column.endswith("_ms") and column not in DURATIONS:
        return instant_text(value) if value else "before" if column == "since_ms" else ""
    if column == "bytes" or column.endswith("_bytes"):
        return f"{'-' if value < 0 else ''}{bytes_text(abs(value))}"
    return str(value)


def export(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[DIR] TABLE FILE",
            help="A data folder, or none to ask the service; a table; and the file that is written. It must not exist.",
        ),
    ],
    from_: FromOption = None,
    to: ToOption = None,
    format_: FormatOption = None,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Write a table of history to a file, from a folder or from the service."""
    folder, name, file = _words(words, 2)
    with _source(folder, target(config, address, actor)) as source:
        question = Question(name, from_, to, {})
        rows = source.rows(question, None)
        count = write_rows(Path(file), format_, source.columns(question), rows)
    complain(f"{counted(count, 'row')} written to {file}")
    if json:
        print_json({"file": file, "rows_count": count})


def write_rows(file: Path, format_: Format | None, columns: Sequence[str], found: Iterable[dict[str, Any]]) -> int:
    """How many rows were written; nothing is left of a file that failed, and none is overwritten."""
    from simswitch.history.exporting import ExportMissing, write_csv, write_parquet

    if format_ is None:
        format_ = Format.PARQUET if file.suffix.lower() == ".parquet" else Format.CSV
    try:
        with file.open("xb") as written:
            try:
                return (write_csv if format_ is Format.CSV else write_parquet)(columns, found, written)
            except BaseException:
                file.unlink()
                raise
    except FileExistsError as error:
        raise CommandFailed(Exit.REFUSED, f"{file} exists already: name another") from error
    except OSError as error:
        why = f"{file} can't be written: {error.strerror}. Name a file in a folder that is there and has room for it"
        raise CommandFailed(Exit.REFUSED, why) from error
    except ExportMissing as error:
        raise CommandFailed(Exit.USAGE, str(error)) from error


def _words(words: list[str], wanted: int) -> list[str]:
    """The folder, empty when there is none, and so many words behind it."""
    if len(words) == wanted:
        return ["", *words]
    if len(words) != wanted + 1:
        raise CommandFailed(Exit.USAGE, f"{wanted} words belong here, or a folder and {wanted}: {' '.join(words)}")
    if not Path(words[0]).is_dir():
        raise CommandFailed(Exit.USAGE, f"there is no folder {words[0]}")
    return words


def _iccid(digits: str | None) -> int | None:
    from simswitch.core.commands import encode_iccid

    try:
        return None if digits is None else encode_iccid(digits)
    except ValueError as error:
        raise CommandFailed(Exit.USAGE, f"--sim: {error}") from error


class Question(NamedTuple):
    """What is wanted of which table, wherever it is read."""

    table: str
    from_: datetime | None
    to: datetime | None
    equal: dict[str, int]


class Source(Protocol):
    """Where rows come from, in words: a folder's file, or a service."""

    def rows(self, question: Question, limit: int | None) -> Iterator[dict[str, Any]]: ...

    def columns(self, question: Question) -> list[str]: ...

    def known(self) -> Known: ...


@contextmanager
def _source(folder: str, service_at: Target) -> Iterator[Source]:
    if folder:
        from simswitch.history.schema import NAME, HistoryRefused, open_reader

        try:
            connection = open_reader(folder)
        except HistoryRefused as error:
            raise CommandFailed(Exit.REFUSED, str(error)) from error
        with closing(connection):
            yield _File(connection, Path(folder) / NAME)
    else:
        from simswitch.cli.connection import connected

        with connected(*service_at) as service:
            yield _Service(service)


class _File:
    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def rows(self, question: Question, limit: int | None) -> Iterator[dict[str, Any]]:
        import sqlite3

        from simswitch.cli.history_words import worded
        from simswitch.history.reading import rows
        from simswitch.history.schema import damaged

        from_ms, until_ms = _ms(question.from_), _ms(question.to)
        most = -1 if limit is None else limit
        try:
            names = dict(self._connection.execute("SELECT entity, name FROM entities"))
            for row in rows(self._connection, question.table, from_ms, until_ms, limit=most, **question.equal):
                yield worded(question.table, row, names)
        except ValueError as error:
            raise CommandFailed(Exit.USAGE, f"{question.table}: {error}") from error
        except sqlite3.Error as error:
            raise CommandFailed(Exit.REFUSED, str(damaged(self._path, error))) from error

    def columns(self, question: Question) -> list[str]:
        from simswitch.history.reading import Question as Read
        from simswitch.history.reading import page

        try:
            return page(self._connection, Read(question.table), 1).columns
        except ValueError as error:
            raise CommandFailed(Exit.USAGE, f"{question.table}: {error}") from error

    def known(self) -> Known:
        from simswitch.history.reading import known

        return known(self._connection)


class _Service:
    def __init__(self, service: OperatorClient) -> None:
        self._service = service
        self._last: Any = None

    def rows(self, question: Question, limit: int | None) -> Iterator[dict[str, Any]]:
        """Page by page: what is written meanwhile may be in a later one."""
        from simswitch.cli.history_words import worded
        from simswitch.cli.messages import PAGE_SIZE

        left, token = limit, ""
        while left is None or left > 0:
            self._ask(question, PAGE_SIZE if left is None else min(left, PAGE_SIZE), token)
            names = {each.entity: each.name for each in self._last.names}
            for row in self._last.rows:
                values = [getattr(each, kind) if (kind := each.WhichOneof("value")) else None for each in row.values]
                yield worded(question.table, dict(zip(self._last.columns, values, strict=True)), names)
            left = None if left is None else left - len(self._last.rows)
            token = self._last.next_page_token
            if not token:
                return

    def _ask(self, question: Question, size: int, token: str = "") -> None:
        from simswitch.cli.messages import CALL_TIMEOUT_S
        from simswitch.v1 import history_pb2 as pb

        self._last = self._service.history.ListRows(
            pb.ListRowsRequest(
                table=question.table,
                from_ms=_ms(question.from_) or 0,
                until_ms=_ms(question.to) or 0,
                equal=[pb.ColumnValue(column=column, value=value) for column, value in question.equal.items()],
                page_size=size,
                page_token=token,
            ),
            timeout=CALL_TIMEOUT_S,
        )

    def columns(self, question: Question) -> list[str]:
        if self._last is None:
            self._ask(question, 1)
        return list(self._last.columns)

    def known(self) -> Known:
        from simswitch.history.reading import Known

        gaps = [(gap.first_sequence, gap.last_sequence, gap.from_ms, gap.until_ms) for gap in self._last.gaps]
        return Known(self._last.sequence, self._last.at_ms, gaps)


def _ms(instant: datetime | None) -> int | None:
    return None if instant is None else int(instant.astimezone().timestamp() * 1000)

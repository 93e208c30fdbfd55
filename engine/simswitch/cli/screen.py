"""How the commands speak: tables for people on standard output, JSON for programs, complaints on standard error.

Everything that comes from files or from the network is printed as plain text, never as markup, and what a terminal
would obey is escaped. At a terminal a table is fitted to its width: words are never cut, so one that would still be
too wide is shown row by row, a line for each column. Into a pipe or a file nothing is folded.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from simswitch.plain_text import escaped

if TYPE_CHECKING:
    from rich.progress import Progress

_GAP, _NARROW_GAP = 3, 2
"""Between two columns; the narrow one where it would be too wide otherwise."""
_UNIT = r"[kMGT]?B|m?s|%|kbit/s"
_NUMBER = re.compile(rf"[-+]?[\d,.]+ ?({_UNIT})(, shared)?|[-+]?\d{{1,3}}(,\d{{3}})+|[-+]?\d+\.\d+")
"""What stands to the right beside whole numbers: amounts, and numbers with separators. Digits alone are a name."""
_BEFORE_UNIT = re.compile(rf"(?<=\d) (?=({_UNIT})(\W|$))")
_UNBROKEN = "\N{NO-BREAK SPACE}"


class Table(NamedTuple):
    """A title, and rows of as many cells as there are columns."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    to_the_right: list[bool]


def print_json(value: Any) -> None:
    """One JSON document, and nothing else, on standard output."""
    print(escaped(json.dumps(value, ensure_ascii=False, indent=2), "\n"))


def print_json_line(value: Any) -> None:
    """One of many JSON documents, a line each."""
    print(escaped(json.dumps(value, ensure_ascii=False)))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table for ``show``. Columns that have numbers stand to the right."""
    values = [list(row) for row in rows]
    to_the_right = [any(_is_number(row[place]) for row in values) for place in range(len(columns))]
    return Table(title, list(columns), [[shown(value) for value in row] for row in values], to_the_right)


def shown(value: object) -> str:
    """A value as it stands in a table: numbers with separators, nothing for None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else escaped(str(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and _NUMBER.fullmatch(value) is not None)


def show(*parts: Table | str) -> None:
    """Prints tables and lines on standard output, a line for each part that is no table."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else None
    bold = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    for part in parts:
        if isinstance(part, str):
            lines = _folded(escaped(part), width)
        else:
            title = escaped(part.title)
            lines = [f"\x1b[1m{title}\x1b[0m" if bold else title, "", *table_lines(part, width), ""]
        print("\n".join(lines))


def table_lines(what: Table, width: int | None) -> list[str]:
    """The lines of a table below its title, none of which is wider. None: however wide they are."""
    columns, rows, to_the_right = what.columns, what.rows, what.to_the_right
    widths = [max(map(_cells, column)) for column in zip(columns, *rows, strict=True)]
    gap = _GAP
    if width is not None and _total(widths, gap) > width:
        gap = _NARROW_GAP
        for nothing in (("", "-"), ("", "-", "0")):
            # What has nothing in any row is left out, and then what has zeros only.
            places = range(len(columns))
            kept = [place for place in places if any(row[place] not in nothing for row in rows)] or places
            columns, *rows = ([row[place] for place in kept] for row in (columns, *rows))
            to_the_right = [to_the_right[place] for place in kept]
            least = [max(map(_cells, _words(" ".join(column)))) for column in zip(columns, *rows, strict=True)]
            if _total(least, gap) <= width:
                break
        else:
            return _one_by_one(columns, rows, width)
        widths = [max(map(_cells, column)) for column in zip(columns, *rows, strict=True)]
        spare = width - _total(least, gap)
        # Whoever lacks least is given it first: so most columns have no line that is folded.
        for place in sorted(range(len(columns)), key=lambda place: widths[place] - least[place]):
            widths[place] = min(widths[place], least[place] + spare)
            spare -= widths[place] - least[place]
    head = _row_lines(columns, widths, to_the_right, gap, lowest=True)
    body = [line for row in rows for line in _row_lines(row, widths, to_the_right, gap)]
    return [*head, f" {'─' * (_total(widths, gap) - 1)}", *body]


def _total(widths: Sequence[int], gap: int) -> int:
    return 1 + sum(widths) + gap * (len(widths) - 1)


def _row_lines(
    cells: Sequence[str], widths: Sequence[int], to_the_right: Sequence[bool], gap: int, *, lowest: bool = False
) -> Iterator[str]:
    """The lines of one row; a cell of fewer lines than the others has the first ones, or the lowest."""
    folded = [_folded(cell, width) for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, folded))
    for number in range(height):
        line = []
        for part, width, right in zip(folded, widths, to_the_right, strict=True):
            place = number - (height - len(part) if lowest else 0)
            text = part[place] if 0 <= place < len(part) else ""
            space = " " * (width - _cells(text))
            line.append(space + text if right else text + space)
        yield f" {(' ' * gap).join(line)}".rstrip()


def _one_by_one(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """A row after the other, a line for each column in which something stands."""
    label = max(map(_cells, columns))
    lines = []
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            if cell not in ("", "-"):
                first, *others = _folded(cell, max(width - label - 1 - _GAP, 1))
                lines.append(f" {column}{' ' * (label - _cells(column) + _GAP)}{first}")
                lines += [f"{' ' * (1 + label + _GAP)}{other}" for other in others]
        lines.append("")
    return lines[:-1]


def _words(text: str) -> list[str]:
    """What is never broken: an amount and its unit are one word."""
    return _BEFORE_UNIT.sub(_UNBROKEN, text).split(" ")


def _folded(text: str, width: int | None) -> list[str]:
    """A line in pieces that are no wider, broken between words, inside one only where it is wider itself."""
    if width is None or _cells(text) <= width:
        return [text]
    kept = _BEFORE_UNIT.sub(_UNBROKEN, text)
    return [line.replace(_UNBROKEN, " ") for line in textwrap.wrap(kept, width, break_on_hyphens=False)]


def _cells(text: str) -> int:
    """How many places of a terminal a text takes: two for each wide character."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def complain(text: str) -> None:
    """One line on standard error."""
    print(escaped(text), file=sys.stderr)


def progress() -> Progress:
    """A progress display on standard error; it draws nothing when that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )

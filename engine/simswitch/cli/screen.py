"""How the commands speak: tables for people on standard output, JSON for programs, complaints on standard error.

Everything that comes from files or from the network is printed as plain text, never as markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table


_UNBROKEN = 1 << 16
"""Wider than any line of ours."""


def print_json(value: Any) -> None:
    """One JSON document, and nothing else, on standard output."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], numbers_from: int = 1) -> Table:
    """An aligned table; the columns from ``numbers_from`` on stand to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    result = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for position, column in enumerate(columns):
        result.add_column(column, justify="right" if position >= numbers_from else "left", overflow="fold")
    for row in rows:
        result.add_row(*(Text(shown(value)) for value in row))
    return result


def shown(value: object) -> str:
    """A value as it stands in a table: numbers with separators, nothing for None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show(*parts: Any) -> None:
    """Prints tables and lines on standard output."""
    from rich.console import Console

    # Into a pipe or a file the width is that of the text, so that no line is cut or folded.
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_UNBROKEN)
    for part in parts:
        console.print(part, markup=False) if isinstance(part, str) else console.print(part)


def complain(text: str) -> None:
    """One line on standard error."""
    print(text, file=sys.stderr)


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

"""Rows of history as files for other programs: CSV, and Parquet where pyarrow is installed (the extra ``export``)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from itertools import chain, islice
from typing import Any, BinaryIO

from simswitch.history.reading import UNSIGNED

_PIECE = 50_000
_TEXTS = frozenset({"ended_by"})
"""Columns of texts in which a whole piece may have none."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Row = dict[str, Any]


class ExportMissing(ValueError):
    """The package that a format needs is not installed."""


def write_csv(columns: Sequence[str], rows: Iterable[Row], target: BinaryIO) -> int:
    """How many rows were written; bytes stand as hexadecimal digits, and nothing for NULL.

    A text that a spreadsheet would take for a formula has an apostrophe before it; JSON and Parquet have it as it is.
    """
    text = io.TextIOWrapper(target, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(columns)
    count = 0
    for row in rows:
        writer.writerow(_cell(value) for value in row.values())
        count += 1
    text.flush()
    text.detach()
    return count


def _cell(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def write_parquet(columns: Sequence[str], rows: Iterable[Row], target: BinaryIO) -> int:
    """How many rows were written, piece by piece: memory does not grow with the table."""
    try:
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise ExportMissing("Parquet needs the package pyarrow: pip install 'simswitch[export]', or use CSV") from error
    pieces = _pieces(rows)
    first = next(pieces, [])
    schema = arrow.schema([(name, _type(arrow, first, name)) for name in columns])
    count = 0
    with parquet.ParquetWriter(target, schema) as writer:
        for piece in chain([first], pieces):
            writer.write_table(arrow.Table.from_pylist(piece, schema))
            count += len(piece)
    return count


def _pieces(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while piece := list(islice(iterator, _PIECE)):
        yield piece


def _type(arrow: Any, rows: list[Row], name: str) -> Any:
    kinds = {type(row[name]) for row in rows} - {type(None)}
    if kinds == {str} or (not kinds and name in _TEXTS):
        return arrow.string()
    if kinds == {bool}:
        return arrow.bool_()
    if kinds == {bytes}:
        return arrow.binary()
    return arrow.uint64() if name in UNSIGNED else arrow.int64()

"""Rows of history as files for other programs: CSV, and Parquet where pyarrow is installed (the extra ``export``).

What is an instant in both: a text of ISO 8601, or a timestamp of milliseconds, in UTC. Its column is without ``_ms``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import islice
from typing import Any, BinaryIO

from simswitch.history.reading import DURATIONS, ENTITIES, UNSIGNED

_PIECE = 50_000
_TEXTS = ENTITIES | {
    "action", "bank", "basis", "day", "detail", "document", "ended_by", "first_minute", "health", "hour", "iccid",
    "kind", "last_minute", "minute", "month", "name", "occupancy", "priority", "published_day", "reader", "reason",
    "result", "shift", "source", "state", "status", "statuses", "step", "subject", "supplier", "target", "why",
    "window",
}  # fmt: skip
_BINARIES = frozenset({"digest", "hash", "journal_id"})
_FLAGS = frozenset({"on_probation"})
"""What is in columns that have no whole numbers, where rows are in words: the same whatever rows there are."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Row = dict[str, Any]


class ExportMissing(ValueError):
    """The package that a format needs is not installed."""


def write_csv(columns: Sequence[str], rows: Iterable[Row], target: BinaryIO) -> int:
    """How many rows were written; bytes stand as hexadecimal digits, and nothing for NULL.

    A text that a spreadsheet would take for a formula has an apostrophe before it; JSON and Parquet have it as it is.
    """
    text = io.TextIOWrapper(target, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(map(_named, columns))
    count = 0
    for row in rows:
        writer.writerow(_cell(name, value) for name, value in row.items())
        count += 1
    text.flush()
    text.detach()
    return count


def _is_instant(column: str) -> bool:
    return column.endswith("_ms") and column not in DURATIONS


def _named(column: str) -> str:
    return column.removesuffix("_ms") if _is_instant(column) else column


def _cell(column: str, value: Any) -> Any:
    if _is_instant(column) and value is not None:
        return (_EPOCH + timedelta(milliseconds=value)).isoformat(timespec="milliseconds") if value else None
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
    schema = arrow.schema([(_named(name), _type(arrow, name)) for name in columns])
    count = 0
    with parquet.ParquetWriter(target, schema) as writer:
        for piece in _pieces(rows):
            found = [{_named(name): _value(name, value) for name, value in row.items()} for row in piece]
            writer.write_table(arrow.Table.from_pylist(found, schema))
            count += len(piece)
    return count


def _pieces(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while piece := list(islice(iterator, _PIECE)):
        yield piece


def _value(column: str, value: Any) -> Any:
    return None if _is_instant(column) and not value else value


def _type(arrow: Any, name: str) -> Any:
    if _is_instant(name):
        return arrow.timestamp("ms", tz="UTC")
    if name in _TEXTS:
        return arrow.string()
    if name in _BINARIES:
        return arrow.binary()
    if name in _FLAGS:
        return arrow.bool_()
    return arrow.uint64() if name in UNSIGNED else arrow.int64()

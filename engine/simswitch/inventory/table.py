"""A CSV file as chunks of columns.

The header line names the columns, in any order; in a file of somebody else a title may stand above it. Chunks have up
to ``CHUNK_LINES`` lines, so that memory is bounded by the chunk and by what the caller keeps. What a CSV file can get
wrong as a file is found here, with its line: bytes that are not of its encoding, NUL bytes, columns missing, unknown or
named twice, lines with too few or too many fields, a line break inside quotes, a field that is far too long.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from simswitch.inventory.problems import PROBLEMS_MAX, FileRefused, Problem, quoted

CHUNK_LINES = 65_536
FIELD_MAX = 1_024
"""Characters of one field. A longer one is a missing quote or not a CSV file."""
HEADER_SHOWN = 30
"""Names of columns in a message."""
TITLES_MAX = 20
"""Lines above the header: who gave the file, of which month, and when."""

Row = list[str]


@dataclass(frozen=True, slots=True)
class Column:
    """One column that a file may have."""

    name: str
    required: bool
    text: str
    """What stands in it, for people."""


@dataclass(slots=True)
class Chunk:
    """Some lines of a file that have the right number of fields."""

    lines: list[int]
    """Of each row."""
    rows: list[Row]
    columns: dict[str, Sequence[str]]
    """By name; only the columns that the file has."""


class Table:
    """One CSV file, read from its beginning to its end."""

    def __init__(
        self,
        path: Path,
        columns: Sequence[Column],
        *,
        delimiter: str = ",",
        others_allowed: bool = False,
        encoding: str = "utf-8",
    ) -> None:
        """``others_allowed``: somebody else's file, which may have columns beside those, and titles above its header;
        nobody reads either."""
        self.path = path
        self.problems: list[Problem] = []
        self._columns = columns
        self._delimiter = delimiter
        self._others_allowed = others_allowed
        self._encoding = encoding
        self._reading = "utf-8-sig" if encoding == "utf-8" else encoding
        self.header: Row = []
        self._header_line = 1

    @property
    def bad_lines(self) -> dict[int, list[str]]:
        """The refused lines, each with why."""
        reasons: dict[int, list[str]] = {}
        for problem in self.problems:
            reasons.setdefault(problem.line, []).append(
                f"{problem.column}: {problem.text}" if problem.column else problem.text
            )
        return reasons

    def write_rejected(self, target: Path, bad: Mapping[int, Sequence[str]]) -> int:
        """Writes the lines in ``bad`` with their number and why to a CSV; gives their count. The file is read again."""
        count = 0
        with (
            self.path.open(encoding=self._reading, errors="surrogateescape", newline="") as source,
            target.open("w", encoding=self._encoding, errors="surrogateescape", newline="") as output,
        ):
            rows = csv.reader(source, delimiter=self._delimiter)
            writer = csv.writer(output, delimiter=self._delimiter, lineterminator="\n")
            names = next(rows)
            while rows.line_num < self._header_line:
                names = next(rows)
            if names[-2:] == ["line", "problem"]:
                names = names[:-2]
            writer.writerow([*names, "line", "problem"])
            line = rows.line_num + 1
            for row in rows:
                reasons = bad.get(line)
                if reasons:
                    writer.writerow([*row[: len(names)], *[""] * (len(names) - len(row)), line, "; ".join(reasons)])
                    count += 1
                line = rows.line_num + 1
        return count

    def add(self, line: int, column: str, value: str, text: str) -> None:
        """Notes a problem. Past the bound the file is refused at once."""
        self.problems.append(Problem(line, column, value, text))
        if len(self.problems) > PROBLEMS_MAX:
            self.problems.append(
                Problem(
                    line, "", "", f"more than {PROBLEMS_MAX:,} problems; reading stopped here. Is it the right file?"
                )
            )
            raise FileRefused(self.path, self.problems)

    def chunks(self, progress: Callable[[int], None] | None = None) -> Iterator[Chunk]:
        """The file's lines. ``progress`` is told how many bytes of the file have been read.

        Raises ``FileRefused`` when the file can't be read as this table at all; other problems are noted.
        """
        self._refuse_binary()
        limit = csv.field_size_limit(FIELD_MAX)
        try:
            # Bytes that are not of the encoding become lone surrogates, and so can be named by line and column.
            with self.path.open(encoding=self._reading, errors="surrogateescape", newline="") as file:
                yield from self._chunks(file, progress)
        finally:
            csv.field_size_limit(limit)

    def _chunks(self, file: IO[str], progress: Callable[[int], None] | None) -> Iterator[Chunk]:
        reader = csv.reader(file, strict=True, delimiter=self._delimiter)
        try:
            self._take_header(self._below_titles(reader))
            names = self._names(self.header)
            while True:
                before = reader.line_num
                rows = list(islice(reader, CHUNK_LINES))
                if not rows:
                    return
                lines = self._line_numbers(before, reader.line_num, rows)
                chunk = self._regular(names, lines, rows)
                if progress:
                    progress(file.buffer.tell() if hasattr(file, "buffer") else 0)
                yield chunk
        except csv.Error as error:
            self.add(reader.line_num, "", "", f"this is not CSV: {error}; look for a quote that is not closed")
            raise FileRefused(self.path, self.problems) from error

    def _refuse_binary(self) -> None:
        with self.path.open("rb") as file:
            line = 1
            first = True
            while block := file.read(1 << 20):
                if first and block[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    raise FileRefused(self.path, [Problem(1, "", "", "this is UTF-16; save the file as UTF-8")])
                first = False
                position = block.find(b"\0")
                if position >= 0:
                    line += block.count(b"\n", 0, position)
                    text = "there is a NUL byte; this is not a text file, or it is damaged"
                    raise FileRefused(self.path, [Problem(line, "", "", text)])
                line += block.count(b"\n")

    def _below_titles(self, reader: Any) -> Row:
        """The first line that names all columns that are needed; where none does, the first that names most."""
        wanted = {column.name for column in self._columns if column.required}
        found: Row = []
        most = -1
        for header in islice(reader, 1 + (TITLES_MAX if self._others_allowed else 0)):
            count = len(wanted.intersection(self._names(header)))
            if count > most:
                found, most, self._header_line = header, count, reader.line_num
            if count == len(wanted):
                break
        return found

    def _names(self, header: Row) -> list[str]:
        """A header's, as the columns are called: capitals don't matter where no name is the very one."""
        written = [name.strip() for name in header]
        called = {column.name.casefold(): column.name.strip() for column in self._columns if column.name not in written}
        return [called.get(name.casefold(), name) for name in written]

    def _take_header(self, header: Row) -> None:
        self.header = header
        names = self._names(header)
        known = {column.name for column in self._columns}
        for name in dict.fromkeys(names):
            if name not in known and not self._others_allowed:
                columns = ", ".join(column.name for column in self._columns)
                self.add(self._header_line, name, "", f"no such column; the columns are {columns}")
            if names.count(name) > 1 and (name in known or not self._others_allowed):
                self.add(self._header_line, name, "", "the column stands twice; leave one out")
        for column in self._columns:
            if column.required and column.name not in names:
                missing = f"the column is missing: {column.text}; {self._there_are(header)}"
                self.add(self._header_line, column.name, "", missing)
        if self.problems:
            raise FileRefused(self.path, self.problems)

    def _there_are(self, header: Row) -> str:
        """Which columns the file has, for who looks for another."""
        if not all(map(is_utf8, header)):
            other = ", or name its --encoding, such as cp932" if self._others_allowed else ""
            return f"the header is not {self._encoding.upper()}: save the file as UTF-8{other}"
        shown = ", ".join(quoted(name.strip()) for name in header[:HEADER_SHOWN])
        return f"there are {shown}{', …' if len(header) > HEADER_SHOWN else ''}"

    def _line_numbers(self, before: int, after: int, rows: list[Row]) -> list[int]:
        """The line on which each row ends up; a row that spans several lines has its first."""
        if after - before == len(rows):
            return list(range(before + 1, after + 1))
        lines = []
        line = before + 1
        for row in rows:
            lines.append(line)
            line += 1 + sum(field.replace("\r\n", "\n").replace("\r", "\n").count("\n") for field in row)
        return lines

    def _regular(self, names: list[str], lines: list[int], rows: list[Row]) -> Chunk:
        """The rows with the right number of fields and no line break in them; the others are noted."""
        width = len(names)
        spans = lines[-1] - lines[0] != len(lines) - 1 or any("\n" in field for field in rows[-1])
        if spans or any(len(row) != width for row in rows):
            kept_lines, kept_rows = [], []
            for line, row in zip(lines, rows, strict=True):
                if not row:
                    continue  # an empty line
                if any("\n" in field or "\r" in field for field in row):
                    self.add(line, "", "", "there is a line break inside quotes; put the whole record on one line")
                elif len(row) != width:
                    self.add(line, "", ",".join(row), f"{len(row)} fields where the header has {width}")
                else:
                    kept_lines.append(line)
                    kept_rows.append(row)
            lines, rows = kept_lines, kept_rows
        columns: dict[str, Sequence[str]] = dict.fromkeys(names, ())
        if rows:
            columns.update(zip(names, zip(*rows, strict=True), strict=True))
        return Chunk(lines, rows, columns)


def is_utf8(value: str) -> bool:
    """Whether the field was UTF-8 in the file: bytes that were not stand in it as lone surrogates."""
    return not any("\udc80" <= character <= "\udcff" for character in value)

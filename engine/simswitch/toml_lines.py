"""TOML with the line of every key, so that a setting that is wrong can be named by file and line.

``tomllib`` reads the values but forgets where they stood. This module reads them with ``tomllib`` and finds the lines
by a second, shallow walk over the text: it follows table headers and the keys at the start of a line, and skips what is
inside multi-line strings and arrays. A key inside an inline table has the line of the key that the table belongs to.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

KeyPath = tuple[str | int, ...]

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=\s*(.*)", re.DOTALL)
_TOKEN = re.compile(r'"""|\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|[\[\]{}]|#[^\n]*')


class TomlRefused(Exception):
    """The text is no TOML, or a value in it is refused. The message names file and line."""

    def __init__(self, file: Path | str, line: int, text: str) -> None:
        super().__init__(f"{file}:{line}: {text}" if line else f"{file}: {text}")
        self.file = str(file)
        self.line = line
        self.text = text


class TomlDocument:
    """The values of a TOML file, and the line of each."""

    def __init__(self, text: str, file: Path | str = "<text>") -> None:
        self.file = file
        try:
            self.values: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"\(at line (\d+)", str(error))
            line = int(found[1]) if found else text.count("\n") + 1
            raise TomlRefused(file, line, f"this is not TOML: {str(error).split(' (at ')[0]}") from error
        self._lines = _lines_of(text)

    @classmethod
    def read(cls, path: Path) -> TomlDocument:
        """The document of a file. Raises ``TomlRefused`` for what is no TOML, ``OSError`` for what can't be read."""
        data = path.read_bytes()
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise TomlRefused(path, line, "this is not UTF-8; save the file as UTF-8") from error
        return cls(text.replace("\r\n", "\n"), path)

    def line(self, path: KeyPath) -> int:
        """The line of a key, or of the nearest key around it; 0 when there is none."""
        for end in range(len(path), 0, -1):
            found = self._lines.get(path[:end])
            if found:
                return found
        return 0

    def refuse(self, path: KeyPath, text: str) -> TomlRefused:
        """The error to raise about a key."""
        name = ".".join(str(part) for part in path if isinstance(part, str))
        return TomlRefused(self.file, self.line(path), f"{name}: {text}" if name else text)


def _parts(dotted: str) -> list[str]:
    parts = []
    for found in re.finditer(_PART, dotted):
        part = found[0]
        if part[0] == '"':
            part = tomllib.loads(f"x = {part}")["x"]
        elif part[0] == "'":
            part = part[1:-1]
        parts.append(part)
    return parts


def _lines_of(text: str) -> dict[KeyPath, int]:
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    depth = 0  # open brackets of a value that goes on over several lines
    quote = ""  # the multi-line string that we are in
    for number, line in enumerate(text.split("\n"), 1):
        rest = line
        if not quote and not depth:
            header = _HEADER.match(line)
            if header:
                table = _resolve(_parts(header[2]), counts)
                if header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                for end in range(1, len(table) + 1):
                    lines.setdefault(table[:end], number)
                continue
            key = _KEY.match(line)
            if not key:
                continue
            path = table
            for part in _parts(key[1]):
                path = (*path, part)
                lines.setdefault(path, number)
            rest = key[2]
        depth, quote = _follow(rest, depth, quote)
    return lines


def _resolve(parts: list[str], counts: dict[KeyPath, int]) -> KeyPath:
    """The path of a table header: inside an array of tables it means the array's last element."""
    path: KeyPath = ()
    for position, part in enumerate(parts):
        path = (*path, part)
        if path in counts and position < len(parts) - 1:
            path = (*path, counts[path])
    return path


def _follow(rest: str, depth: int, quote: str) -> tuple[int, str]:
    """Whether a value is still open at the end of this piece of its text: brackets, and the multi-line string."""
    position = 0
    while position < len(rest):
        if quote:
            end = rest.find(quote, position)
            if end < 0:
                return depth, quote
            position, quote = end + 3, ""
            continue
        token = _TOKEN.search(rest, position)
        if not token:
            break
        position = token.end()
        if token[0] in ('"""', "'''"):
            quote = token[0]
        elif token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
    return depth, quote

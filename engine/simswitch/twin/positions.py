"""Where each key of a TOML document stands, so that a bad value can be named with its line.

``tomllib`` gives values without positions. This is no second parser: it runs over a document that ``tomllib`` has
accepted and only follows table headers, keys at the beginning of a line, and what may span lines (strings, arrays). A
key inside an inline table has the line of the key that holds it. O(size of the document).
"""

from __future__ import annotations

import re

Path = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_TOKEN = re.compile(r'"""|\'\'\'|"(?:[^"\\]|\\.)*"|\'[^\']*\'|#.*|[\[\]{}]')


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in _PART.findall(dotted)]


class _Values:
    """Whether a value goes on after the end of its line."""

    def __init__(self) -> None:
        self._depth = 0
        self._quotes = ""

    @property
    def open(self) -> bool:
        return self._depth > 0 or self._quotes != ""

    def read(self, text: str) -> None:
        place = 0
        while place < len(text):
            if self._quotes:
                end = text.find(self._quotes, place)
                if end < 0:
                    return
                place = end + 3
                self._quotes = ""
                continue
            token = _TOKEN.search(text, place)
            if token is None or token[0].startswith("#"):
                return
            place = token.end()
            if token[0] in ('"""', "'''"):
                self._quotes = token[0]
            elif token[0] in "[{":
                self._depth += 1
            elif token[0] in "]}":
                self._depth -= 1


def key_lines(text: str) -> dict[Path, int]:
    """The line, from 1, of every table header and every key, by path; members of an array of tables have their index.

    >>> key_lines("seed = 1\\n[[lots]]\\nname = 'a'")[("lots", 0, "name")]
    3
    """
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    value = _Values()
    for number, line in enumerate(text.splitlines(), 1):
        if value.open:
            value.read(line)
            continue
        header = _HEADER.match(line)
        if header is not None:
            table = ()
            names = _parts(header[2])
            for name in names[:-1]:
                table = (*table, name)
                if table in counts:
                    table = (*table, counts[table] - 1)
            table = (*table, names[-1])
            if header[1] == "[[":
                counts[table] = counts.get(table, 0) + 1
                lines.setdefault(table, number)
                table = (*table, counts[table] - 1)
            lines.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key is not None:
            path = table
            for name in _parts(key[1]):
                path = (*path, name)
                lines.setdefault(path, number)
            value.read(line[key.end() :])
    return lines


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of a path, or of the nearest table around it; 1 if there is none."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1

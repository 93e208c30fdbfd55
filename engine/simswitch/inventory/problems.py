"""What is wrong with a file: one record for each problem, so that a person can mend the line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

PROBLEMS_MAX = 100_000
"""More problems than this in one file end the reading: it is not the file that was meant."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where, and what to do about it."""

    line: int
    """Counted from 1, the header line included. 0: the file as a whole."""
    column: str
    """The column's or key's name. Empty: the line as a whole."""
    value: str
    """What stands there."""
    text: str
    """What is wrong and what to do."""

    def render(self, file: Path) -> str:
        """One line in the form that editors and compilers use: file:line: column: value: text."""
        words = [f"{file}:{self.line}" if self.line else str(file)]
        if self.column:
            words.append(self.column)
        if self.value:
            words.append(quoted(self.value))
        words.append(self.text)
        return ": ".join(words)


class FileRefused(Exception):
    """A file has problems; nothing of it was used."""

    def __init__(self, file: Path, problems: list[Problem]) -> None:
        super().__init__(f"{file}: {len(problems)} problem{'s' if len(problems) != 1 else ''}")
        self.file = file
        self.problems = problems


def quoted(value: str) -> str:
    """The value as it can be shown on a terminal: control characters and broken bytes escaped, cut at 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= 62 else text[:60] + '…"'

"""Walks every chained file of a data folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simswitch.access.tokens import FILE as TOKENS
from simswitch.audit.attempts import FILE as ATTEMPTS
from simswitch.audit.chain import ChainDamaged, all_entries, older

RESTORES = "audit/restores.log"
"""Who made the folder out of a backup, up to where, and which records were left out."""
FILES = (TOKENS, ATTEMPTS, RESTORES)
DECISIONS = "history.sqlite"
"""Its table of decisions is a chain too (``audit.decisions``)."""


@dataclass(frozen=True, slots=True)
class Expected:
    """An entry whose hash was noted elsewhere."""

    file: str
    number: int
    hash: str

    @classmethod
    def of(cls, text: str) -> Expected:
        name, _, rest = text.partition(":")
        number, _, digest = rest.partition(":")
        if name not in (*FILES, DECISIONS) or not number.isdigit() or len(digest) != 64:
            raise ValueError(f"{text!r} is not FILE:NUMBER:HASH with one of the files {', '.join((*FILES, DECISIONS))}")
        return cls(name, int(number), digest)


@dataclass(frozen=True, slots=True)
class Walked:
    """One file that is sound: its first and last entry, and the hash of the last."""

    name: str
    first: int
    last: int
    hash: str


def verify_folder(folder: Path, expected: Sequence[Expected] = ()) -> list[Walked]:
    """What was walked; files that are not there are left out. Raises ``ChainDamaged``."""
    found = []
    for name in FILES:
        path = folder / name
        wanted = {entry.number: entry.hash for entry in expected if entry.file == name}
        first = last = 0
        digest = ""
        if path.exists() or older(path).exists():
            for entry in all_entries(path):
                first = first or entry.number
                last, digest = entry.number, entry.hash
                if wanted.pop(entry.number, digest) != digest:
                    raise ChainDamaged(f"{path}: entry {entry.number} is not the one that was noted: it was made anew")
        if wanted:
            raise ChainDamaged(f"{path}: entry {min(wanted)} was noted and is not there: the end was cut off")
        if last:
            found.append(Walked(name, first, last, digest))
    return found

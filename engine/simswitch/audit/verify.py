"""Walks every chained file of a data folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simswitch.access.tokens import FILE as TOKENS
from simswitch.audit.attempts import FILE as ATTEMPTS
from simswitch.audit.chain import ChainDamaged, all_entries, older

RESTORES = "audit/restores.log"
"""Who made the folder out of a backup, up to where, and which records were left out."""
FILES = (TOKENS, ATTEMPTS, RESTORES)
SET_ASIDE = "*/*.log.damaged-*"
"""What was found damaged and is kept until somebody has looked at it (``audit.chain.set_aside``)."""
BOUNDED = (ATTEMPTS,)
"""Of these the beginning goes when they are full (``audit.chain``)."""
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
    gone: str = ""
    """What can't be said of entries that were noted, since they went when the file was full."""


def set_aside_in(folder: Path) -> list[str]:
    """What was set aside in it, by names in the folder."""
    return sorted(os.fspath(path.relative_to(folder)) for path in folder.glob(SET_ASIDE))


def verify_folder(folder: Path, expected: Sequence[Expected] = (), files: Sequence[str] = FILES) -> list[Walked]:
    """What was walked; files that are not there are left out. Raises ``ChainDamaged``."""
    found = []
    for name in files:
        path = folder / name
        wanted = {entry.number: entry.hash for entry in expected if entry.file == name}
        first = last = 0
        digest = ""
        if path.exists() or older(path).exists():
            for entry in all_entries(path, bounded=name in BOUNDED):
                first = first or entry.number
                if first > 1 and name not in BOUNDED:
                    raise ChainDamaged(f"{path}: it begins with entry {first}: those before it were cut off")
                last, digest = entry.number, entry.hash
                if wanted.pop(entry.number, digest) != digest:
                    raise ChainDamaged(f"{path}: entry {entry.number} is not the one that was noted: it was made anew")
        if wanted and max(wanted) > last:
            raise ChainDamaged(f"{path}: entry {max(wanted)} was noted and is not there: the end was cut off")
        gone = ""
        if wanted:
            gone = (
                f"{path}: entry {min(wanted)} was noted and went when the file was full: those from {first} to {last} "
                "are there and sound, and whether they follow the one that was noted can't be told any more. Note a "
                "newer one"
            )
        if last:
            found.append(Walked(name, first, last, digest, gone))
    return found

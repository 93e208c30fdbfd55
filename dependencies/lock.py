"""Reads the locks beside this file, which uv writes and pip installs by (``make lock``).

    numpy==2.4.6 ; python_full_version < '3.12' \\          a release, and where it is the one to take
        --hash=sha256:… \\                                  of each of its files; pip takes no other
        # via
        #   -c dependencies/development.txt                 constraints, which ask for nothing
        #   scipy                                           who asks for it; simswitch (pyproject.toml): we do

    base.txt            what `simswitch serve` and the commands beside it import
    production.txt      and what the extra ``production`` adds
    development.txt     and what building, checking and testing need; `make` installs by it

All three come from one resolution: a release that stands in two of them is the same in both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
BASE, PRODUCTION, DEVELOPMENT = (FOLDER / f"{name}.txt" for name in ("base", "production", "development"))
ROOT = "simswitch (pyproject.toml)"

_RELEASE = re.compile(r"([a-z0-9][a-z0-9.-]*)==([^ ;\\]+)(?: ; ([^\\]+?))?(?: \\)?")
_HASH = re.compile(r"    --hash=sha256:([0-9a-f]{64})(?: \\)?")
_VIA = re.compile(r"    # (?:via(?: (.+))?|  (.+))")


@dataclass(slots=True)
class Release:
    """One release of one package."""

    name: str
    version: str
    marker: str
    """Of Python and platform; empty: everywhere."""
    hashes: list[str]
    via: list[str]
    """Who asks for it."""


def read_lock(path: Path) -> list[Release]:
    """The releases of a lock. Raises ``ValueError`` at a line that has another form."""
    releases: list[Release] = []
    for index, line in enumerate(path.read_text(encoding="ascii").splitlines(), 1):
        if found := _RELEASE.fullmatch(line):
            releases.append(Release(found[1], found[2], found[3] or "", [], []))
        elif releases and (found := _HASH.fullmatch(line)):
            releases[-1].hashes.append(found[1])
        elif releases and (found := _VIA.fullmatch(line)):
            who = found[1] or found[2]
            if who and not who.startswith("-c "):
                releases[-1].via.append(who)
        else:
            raise ValueError(f"{path}:{index}: no release, hash or origin: {line!r}; `make lock` writes this file")
    return releases


def names(path: Path) -> list[str]:
    """The packages of a lock, in its order."""
    return list(dict.fromkeys(release.name for release in read_lock(path)))

"""The process beside a server: the follower, and those who read the journal through it.

    python -m simswitch.following FOLDER [the follower's options] [--no-history]

It is put together here because the follower itself knows nothing of its readers (``journal.follower.Reader``), and they
nothing of each other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from simswitch.caps.observer import Observer
from simswitch.history.projector import Projector
from simswitch.history.retention import MONTHS
from simswitch.journal import follower
from simswitch.journal.follower import OpenReader


def readers_of(folder: str | Path, months: int = MONTHS) -> list[OpenReader]:
    """How each is opened, in the order in which they see a record."""
    return [partial(Projector, folder, months), partial(Observer, folder)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="simswitch-follower", description="Follows a journal for its readers.")
    follower.add_arguments(parser)
    parser.add_argument("--no-history", dest="history", action="store_false", help="keep no history.sqlite")
    parser.add_argument("--history-months", type=int, default=MONTHS, help="how long people's use is kept; 0: for ever")
    parsed = parser.parse_args(arguments)
    return follower.run(parsed, readers_of(parsed.folder, parsed.history_months) if parsed.history else [])


if __name__ == "__main__":
    sys.exit(main())

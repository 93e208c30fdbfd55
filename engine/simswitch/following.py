"""The process beside a server: the follower, and those who read the journal through it.

    python -m simswitch.following FOLDER [the follower's options] [--no-history] [--metrics HOST:PORT]

It is put together here because the follower itself knows nothing of its readers (``journal.follower.Reader``), and they
nothing of each other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from simswitch.array_cache import fill_array_cache
from simswitch.caps.observer import Observer
from simswitch.history.projector import Projector
from simswitch.history.retention import MONTHS
from simswitch.history.schema import CACHE_MIB
from simswitch.journal import follower
from simswitch.journal.disk import RealDisk
from simswitch.journal.follower import Follower, read_alarm
from simswitch.metrics import MetricsRefused, counter, counters, gauge, gauges, listening

EXIT_USAGE = 2
OpenOwn = Callable[[], Projector | Observer]


class FollowerMetrics:
    """What the process tells Prometheus. How far it lags is for the service to say, which knows where the end is."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = folder
        self._follower: Follower | None = None
        self._readers: dict[str, Projector | Observer] = {}

    def watch(self, followed: Follower) -> None:
        self._follower = followed

    def opened(self, opening: OpenOwn) -> Projector | Observer:
        """Opens a reader, and looks at it from now on."""
        reader = opening()
        self._readers[reader.name] = reader
        return reader

    def collect(self) -> Iterator[Any]:
        alarm = read_alarm(RealDisk(self._folder, create=False))
        text = "1: something is wrong with the journal, or there is no room; `simswitch status` says what."
        yield gauge("follower_alarm", text, int(alarm is not None))
        yield counters(
            "follower_rows",
            "Rows of history that were written or taken away since the process began, by reader.",
            ("reader",),
            (((name,), reader.rows_count) for name, reader in self._readers.items()),
        )
        yield gauges(
            "follower_reader_sequence",
            "The last record that is in history, by reader.",
            "reader",
            ((name, reader.sequence) for name, reader in self._readers.items()),
        )
        followed = self._follower
        if followed is None:
            return
        yield counter("follower_records", "The last record that was applied and checked.", followed.sequence)
        yield gauge("follower_snapshot_sequence", "The record of the newest snapshot.", followed.snapshot_sequence)
        yield gauge("follower_tail_bytes", "What lies behind it in the journal.", followed.tail_bytes)
        text = "Processor time that this took, and so a recovery would take for it."
        yield gauge("follower_tail_seconds", text, followed.tail_s)


def readers_of(folder: str | Path, months: int = MONTHS, cache_mib: int = CACHE_MIB) -> list[OpenOwn]:
    """How each is opened, in the order in which they see a record."""
    return [partial(Projector, folder, months, cache_mib), partial(Observer, folder)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="simswitch-follower", description="Follows a journal for its readers.")
    follower.add_arguments(parser)
    parser.add_argument("--no-history", dest="history", action="store_false", help="keep no history.sqlite")
    parser.add_argument("--history-months", type=int, default=MONTHS, help="how long people's use is kept; 0: for ever")
    parser.add_argument("--history-cache-mib", type=int, default=CACHE_MIB, help="memory for pages of history")
    parser.add_argument("--metrics", default=None, metavar="HOST:PORT", help="where to tell Prometheus of itself")
    parser.add_argument("--metrics-beyond-loopback", action="store_true", help="that address may be any")
    parsed = parser.parse_args(arguments)
    fill_array_cache()
    readers = readers_of(parsed.folder, parsed.history_months, parsed.history_cache_mib) if parsed.history else []
    if parsed.metrics is None:
        return follower.run(parsed, readers)
    metrics = FollowerMetrics(parsed.folder)
    try:
        told = listening(parsed.metrics, parsed.metrics_beyond_loopback, metrics.collect, _say)
    except MetricsRefused as error:
        _say(str(error))
        return EXIT_USAGE
    with told:
        return follower.run(parsed, [partial(metrics.opened, opening) for opening in readers], metrics.watch)


def _say(text: str) -> None:
    sys.stderr.write(f"simswitch follower: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())

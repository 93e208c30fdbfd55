"""Who was refused for what it is or may not do: failed authentication, names not defined here, and NOT_PERMITTED.

An attempt is written when it is the first of its kind in a minute (who, from where, what); the others of that minute
are counted, and the count is written when the minute is over. At most 64 kinds a minute are told apart, 16 of each
reason, and all others of a reason are counted together: strangers, who can make up names and come from a new port each
time, hide nobody who has proven who he is and tries what he may not do. So a flood costs at most 140 lines a minute,
and the two files at most 32 MiB. What the disk has no room for is kept, up to 1,024 lines, and tried again.

Nobody is kept out because the list is damaged: a service that starts begins another, and says so.

``note`` only remembers, from any thread, and never waits. ``write`` is for a thread that may wait for the disk.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from simswitch.audit.chain import Chain, ChainDamaged, all_entries, set_aside
from simswitch.masking import masked

FILE = "audit/attempts.log"
KINDS_MAX, KINDS_OF_REASON_MAX = 64, 16
MINUTE_S = 60.0
SIZE_MAX = 16 << 20
LINES_MAX = 1_024
TEXT_MAX = 200

Key = tuple[str, str, str, str]

log = logging.getLogger("simswitch.audit")


def _opened(path: Path) -> tuple[Chain, list[dict[str, Any]]]:
    """Its writer, and what to write first: a file that is damaged is set aside, and the new one names it."""
    try:
        return _sound(path), []
    except ChainDamaged as error:
        text = f"{error}. It is kept as {set_aside(path).name}, and a new one is begun"
        log.error("%s", text)
        return Chain(path, size_max=SIZE_MAX), [_line(("DAMAGED", "", "", text), 1)]


def _sound(path: Path) -> Chain:
    """Its writer, when all of it is as it was written. Raises ``ChainDamaged``, also where it can't be read."""
    chain = Chain(path, size_max=SIZE_MAX)
    try:
        for _ in all_entries(path, bounded=True):
            pass
    except (ChainDamaged, OSError) as error:
        chain.close()
        if isinstance(error, OSError):
            raise ChainDamaged(f"{path} can't be read: {error}") from error
        raise
    return chain


def _line(key: Key, count: int) -> dict[str, Any]:
    why, who, source, what = key
    return {"at_ms": time.time_ns() // 1_000_000, "why": why, "who": who, "from": source, "what": what, "count": count}


class Attempts:
    """What is to be written; without a folder it is only counted."""

    def __init__(self, folder: Path | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._chain: Chain | None = None
        self._lines: list[dict[str, Any]] = []
        if folder is not None:
            self._chain, self._lines = _opened(folder / FILE)
        self._clock = clock
        self._mutex = threading.Lock()
        # Who writes is not interrupted by who closes: the file's number may be another file's a moment later.
        self._writing = threading.Lock()
        self._minute_s = clock()
        self._counts: dict[Key, int] = {}
        # By reason: kinds that are told apart, and attempts that are not.
        self._kinds: Counter[str] = Counter()
        self._others: Counter[str] = Counter()
        self.count = 0
        """Of all attempts since the start."""
        # The service starts also where there is no room left; then it is tried again with what is refused.
        with suppress(OSError):
            self.write()

    def note(self, why: str, who: str, source: str, what: str) -> None:
        """``why``: the refusal's reason. ``who``: the identity, proven or claimed; never a secret."""
        key = (why, masked(who)[:TEXT_MAX], source[:TEXT_MAX], masked(what)[:TEXT_MAX])
        with self._mutex:
            self.count += 1
            self._turn()
            if key in self._counts:
                self._counts[key] += 1
            elif self._kinds[why] < KINDS_OF_REASON_MAX and len(self._counts) < KINDS_MAX:
                self._kinds[why] += 1
                self._counts[key] = 1
                self._lines.append(_line(key, 1))
            else:
                self._others[why] += 1

    def write(self, *, final: bool = False) -> None:
        """Makes what was noted durable; ``final`` also the counts of a minute that is not over. ``OSError``: the rest
        waits for the next time."""
        with self._writing:
            self._write(final=final)

    def _write(self, *, final: bool) -> None:
        with self._mutex:
            self._turn(final=final)
            lines, self._lines = self._lines, []
        if self._chain is None or not lines:
            return
        written = 0
        try:
            for line in lines:
                self._chain.append(line)
                written += 1
        finally:
            with self._mutex:
                self._lines[:0] = lines[written:][:LINES_MAX]
        self._chain.sync()

    def close(self) -> None:
        with self._writing:
            try:
                self._write(final=True)
            finally:
                if self._chain is not None:
                    self._chain.close()
                    self._chain = None

    def _turn(self, *, final: bool = False) -> None:
        """With the mutex held: the counts of a minute that is over become lines."""
        now_s = self._clock()
        if now_s - self._minute_s < MINUTE_S and not final:
            return
        for key, count in self._counts.items():
            if count > 1:
                self._lines.append(_line(key, count - 1) | {"more": True})
        for why, count in self._others.items():
            self._lines.append(_line((why, "others", "", ""), count) | {"more": True})
        self._counts.clear()
        self._kinds.clear()
        self._others.clear()
        self._minute_s = now_s

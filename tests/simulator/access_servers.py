"""What is between the access servers and the cell: servers that lie, repeat themselves, are late, or are not there."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from random import Random

import numpy as np
from simswitch.core import commands, layout

KINDS = frozenset(
    {
        layout.ALLOCATE,
        layout.RENEW,
        layout.RELEASE,
        layout.REPORT_USAGE,
        layout.REPORT_ATTACH_FAILURE,
        layout.SESSION_OPEN,
        layout.SESSION_HOLDS,
        layout.SESSION_READY,
        layout.SESSION_CLOSE,
        layout.ACKNOWLEDGE,
        layout.REPORT_LOAD,
    }
)
_HEADER = struct.Struct("<IHHIIQ")
_ARGUMENT_OFFSET = 16


def split(batch: bytes) -> Iterator[bytes]:
    """The runs of a batch."""
    offset = 0
    while offset < len(batch):
        size = _HEADER.unpack_from(batch, offset)[0]
        yield batch[offset : offset + size]
        offset += size


class Network:
    """Carries runs from access servers, not always as they were meant. Other runs pass."""

    def __init__(self, random: Random, faults: Counter[str], quiet: bool = False) -> None:
        self.quiet = quiet
        """Everything arrives as it was meant."""
        self._random = random
        self._faults = faults
        self._late: list[tuple[int, bytes]] = []
        self._away: dict[int, int] = {}
        """Access servers that can't be reached: until which step."""
        self._turn = 0

    def carry(self, batch: bytes) -> list[bytes]:
        """What arrives of it now, and of what was sent earlier."""
        if self.quiet:
            return list(split(batch))
        self._turn += 1
        arrived = [run for turn, run in self._late if turn <= self._turn]
        self._late = [(turn, run) for turn, run in self._late if turn > self._turn]
        for run in split(batch):
            _, kind, server, _, _, _ = _HEADER.unpack_from(run)
            if kind not in KINDS:
                arrived.append(run)
                continue
            if self._away.get(server, 0) > self._turn:
                self._faults["vanished"] += 1
                continue
            fate = self._random.random()
            if fate < 0.004:
                self._away[server] = self._turn + self._random.randrange(2, 40)
                self._faults["vanished"] += 1
            elif fate < 0.03:
                self._faults["delayed"] += 1
                self._late.append((self._turn + self._random.randrange(1, 30), run))
            elif fate < 0.07:
                self._faults["duplicated"] += 1
                arrived.append(run)
                self._late.append((self._turn + self._random.randrange(0, 8), run))
            elif fate < 0.10:
                self._faults["lied"] += 1
                arrived.append(self._lie(run, kind))
            else:
                arrived.append(run)
        return arrived

    def _lie(self, run: bytes, kind: int) -> bytes:
        """One number of it is another one."""
        told = bytearray(run)
        size, _, _, count, _, argument = _HEADER.unpack_from(run)
        del size
        columns = commands.COMMAND_COLUMNS[kind]
        place = _HEADER.size
        chosen = self._random.randrange(len(columns) + 1)
        if chosen == len(columns):
            struct.pack_into("<Q", told, _ARGUMENT_OFFSET, max(argument + self._random.choice((-1, 1)), 0))
            return bytes(told)
        for name, code in columns[:chosen]:
            del name
            place += np.dtype(code).itemsize * count
        name, code = columns[chosen]
        values = np.frombuffer(told, code, count, place)
        item = self._random.randrange(count)
        # Never a terminal that nobody has: the pool of a few would soon be full of them.
        limit = 24 if name == "terminal" else int(np.iinfo(values.dtype).max)
        before = int(values[item])
        lies = (before + 1, before - 1, before + 2, 0, 1, limit)
        values[item] = min(max(self._random.choice(lies), 1 if name == "terminal" else 0), limit)
        return bytes(told)

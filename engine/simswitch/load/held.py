"""What the terminals of one access server hold, in columns: 25 bytes a terminal instead of a Python object."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from simswitch.client import Holdings, Lease
from simswitch.core.commands import decode_iccid, encode_iccid

FIRST_KEY = 0x10AD << 48
"""Keys of the terminals: above every IMEI, and the same in every run, so that runs do not fill the terminal table."""


class Held(Holdings):
    """Terminal ``FIRST_KEY + server + position × step`` stands at ``position``; epoch 0: it has no SIM.

    The session reads it when it reconciles and writes it when it has carried out an order, the load does the rest; both
    run in one event loop, so nothing here takes a lock.
    """

    def __init__(self, server: int, step: int, count: int) -> None:
        super().__init__()
        self._server = server
        self._step = step
        self.key = np.uint64(FIRST_KEY + server) + np.arange(count, dtype=np.uint64) * np.uint64(step)
        self.epoch = np.zeros(count, np.uint64)
        self.iccid = np.zeros(count, np.uint64)

    def position(self, terminal: int) -> int | None:
        position, rest = divmod(terminal - FIRST_KEY - self._server, self._step)
        return None if rest or not 0 <= position < len(self.epoch) else position

    def __len__(self) -> int:
        return int(np.count_nonzero(self.epoch))

    def __contains__(self, terminal: int) -> bool:
        return self.get(terminal) is not None

    def _lease(self, position: int) -> Lease:
        key, epoch, iccid = (int(column[position]) for column in (self.key, self.epoch, self.iccid))
        return Lease(key, epoch, decode_iccid(iccid))

    def __iter__(self) -> Iterator[Lease]:
        return iter([self._lease(position) for position in np.flatnonzero(self.epoch).tolist()])

    def get(self, terminal: int) -> Lease | None:
        position = self.position(terminal)
        return None if position is None or not self.epoch[position] else self._lease(position)

    def hold(self, lease: Lease) -> None:
        position = self.position(lease.terminal)
        if position is not None and self.epoch[position] <= lease.epoch:
            self.epoch[position] = lease.epoch
            self.iccid[position] = encode_iccid(lease.iccid)

    def slow(self, terminals: npt.ArrayLike, epochs: npt.ArrayLike, slow_kbps: npt.ArrayLike) -> None:
        """Nobody is: what a terminal uses is the load's plan."""

    def drop(self, terminal: int, iccid: str | None = None) -> bool:
        standing = self.get(terminal)
        if standing is None or (iccid is not None and standing.iccid != iccid):
            return False
        self.epoch[self.position(terminal)] = 0
        return True

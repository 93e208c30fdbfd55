"""What an access server holds: terminal by terminal, the SIM and the lease. It outlives the connection.

A client notes here what it was given, a session what it was ordered to do. While the service is away the access server
goes on with what stands here, and the next session tells the service of it. About 250 bytes a terminal; use the column
calls without holdings where the access server keeps its own tables.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Lease:
    """A terminal's hold on a SIM."""

    terminal: int
    epoch: int
    """Fences the lease: every later word about it carries this number."""
    iccid: str
    expires_ms: int = 0
    """Unix milliseconds. 0: not known."""
    slow_kbps: int = 0
    """To what speed the subscriber is to be slowed, because a published limit is reached; 0: he is not."""


class Holdings:
    """Terminals with a SIM. May be used by several threads."""

    def __init__(self) -> None:
        self._leases: dict[int, Lease] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._leases)

    def __contains__(self, terminal: int) -> bool:
        return terminal in self._leases

    def __iter__(self) -> Iterator[Lease]:
        with self._lock:
            return iter(list(self._leases.values()))

    def get(self, terminal: int) -> Lease | None:
        return self._leases.get(terminal)

    def hold(self, lease: Lease) -> None:
        """The terminal has this SIM now. An older epoch than the one that stands changes nothing."""
        with self._lock:
            standing = self._leases.get(lease.terminal)
            if standing is None or standing.epoch <= lease.epoch:
                self._leases[lease.terminal] = lease

    def slow(self, terminals: npt.ArrayLike, epochs: npt.ArrayLike, slow_kbps: npt.ArrayLike) -> None:
        """What an answer says of the speed of these leases' subscribers. The last one holds."""
        each = np.broadcast_arrays(*(np.atleast_1d(column) for column in (terminals, epochs, slow_kbps)))
        with self._lock:
            for terminal, epoch, speed in zip(*(column.tolist() for column in each), strict=True):
                standing = self._leases.get(terminal)
                if standing is not None and standing.epoch == epoch and standing.slow_kbps != speed:
                    self._leases[terminal] = replace(standing, slow_kbps=speed)

    def drop(self, terminal: int, iccid: str | None = None) -> bool:
        """The terminal has no SIM any more; with ``iccid`` only if it has that one. Says whether it had."""
        with self._lock:
            standing = self._leases.get(terminal)
            if standing is None or (iccid is not None and standing.iccid != iccid):
                return False
            del self._leases[terminal]
            return True

"""What the load is: when which terminal does what. It follows from the plan alone, never from the service's answers.

    away ──attach──▶ connected ──leave──▶ away …        connected: renew every R, report usage every U

Stays and absences are drawn from exponential distributions, the first renewal and the first report at random within
their interval. Hence N terminals make, in the long run,

    N / (dwell + away) × (2 + dwell / R + dwell / U)    operations a second,

and a load that begins with dwell / (dwell + away) of them connected is in its steady state at once. A rate that is
asked for shortens or stretches all these times alike, so the mix stays what the times say.

Every random number is a hash of (seed, terminal, how many the terminal drew before): the plan of a terminal does not
depend on which process or access server has it. 44 bytes a terminal; a window of the schedule costs one pass over the
terminals' next instants and then only what is due.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

NEVER = np.iinfo(np.int64).max
SECOND_NS = 1_000_000_000

Instants = npt.NDArray[np.int64]
Indexes = npt.NDArray[np.int64]
Kinds = npt.NDArray[np.uint8]


class Operation(IntEnum):
    """What a terminal does."""

    ATTACH = 0
    RENEW = 1
    USAGE = 2
    LEAVE = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """A load. Times are seconds; renewals or reports every 0 s are none at all."""

    terminals: int
    access_servers: int
    duration_s: float
    warm_up_s: float
    dwell_s: float
    away_s: float
    renew_s: float
    usage_s: float
    rate: float
    """Operations a second, all kinds and access servers together."""
    usage_bytes: int
    """Bytes that a terminal reports more each time."""
    batch: int
    """Terminals a call at most. 1: one call for each, through the unary Allocate."""
    seed: int

    @property
    def span_ns(self) -> int:
        return round((self.warm_up_s + self.duration_s) * SECOND_NS)

    @staticmethod
    def natural(terminals: int, dwell_s: float, away_s: float, renew_s: float, usage_s: float) -> float:
        """Operations a second when the times are not scaled."""
        stay = 2.0 + sum(dwell_s / every_s for every_s in (renew_s, usage_s) if every_s)
        return terminals * stay / (dwell_s + away_s)

    @property
    def scale(self) -> float:
        """What each of the times is multiplied by."""
        return self.natural(self.terminals, self.dwell_s, self.away_s, self.renew_s, self.usage_s) / self.rate

    @property
    def usage_span_ms(self) -> int:
        """What a report of usage covers."""
        return min(round(self.usage_s * self.scale * 1_000), 0xFFFF_FFFF)

    @property
    def connected_share(self) -> float:
        return self.dwell_s / (self.dwell_s + self.away_s)

    @property
    def attach_rate(self) -> float:
        return self.terminals / (self.dwell_s + self.away_s) / self.scale

    @property
    def silence_s(self) -> float:
        """The longest that a connected terminal is not heard of."""
        heard = [every_s for every_s in (self.renew_s, self.usage_s) if every_s]
        return (min(heard) if heard else self.dwell_s) * self.scale


class Schedule:
    """The operations of one access server's terminals, in order: every n-th one, from its own number on."""

    def __init__(self, plan: Plan, server: int) -> None:
        self._plan = plan
        self.terminals: Indexes = np.arange(server, plan.terminals, plan.access_servers, dtype=np.int64)
        count = len(self.terminals)
        self._key = self.terminals.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        self._drawn = np.zeros(count, np.uint32)
        self._next = np.full((len(Operation), count), NEVER, np.int64)
        everyone = np.arange(count)
        self.connected = self._draw(everyone) < plan.connected_share
        """Which terminals have a SIM when the load begins."""
        zero = np.zeros(count, np.int64)
        self._arrive(everyone[self.connected], zero[self.connected])
        self._depart(everyone[~self.connected], zero[~self.connected])
        self._due = self._next.min(axis=0)

    def _draw(self, positions: Indexes) -> npt.NDArray[np.float64]:
        """One number above 0 and below 1 for each terminal (splitmix64's finish over a counter)."""
        offset = np.uint64((self._plan.seed * 0xD1B54A32D192ED03) & 0xFFFF_FFFF_FFFF_FFFF)
        bits = self._key[positions] + offset + self._drawn[positions].astype(np.uint64) * np.uint64(0x8CB92BA72F3D8DD7)
        self._drawn[positions] += 1
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
        bits ^= bits >> np.uint64(31)
        return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def _nanoseconds(self, seconds: float) -> float:
        return seconds * self._plan.scale * SECOND_NS

    def _arrive(self, positions: Indexes, at_ns: Instants) -> None:
        plan = self._plan
        self._next[Operation.ATTACH, positions] = NEVER
        stay = -np.log(self._draw(positions)) * self._nanoseconds(plan.dwell_s)
        self._next[Operation.LEAVE, positions] = at_ns + stay.astype(np.int64)
        for kind, every_s in ((Operation.RENEW, plan.renew_s), (Operation.USAGE, plan.usage_s)):
            phase = self._draw(positions) * self._nanoseconds(every_s)
            self._next[kind, positions] = at_ns + phase.astype(np.int64) if every_s else NEVER

    def _depart(self, positions: Indexes, at_ns: Instants) -> None:
        self._next[:, positions] = NEVER
        absence = -np.log(self._draw(positions)) * self._nanoseconds(self._plan.away_s)
        self._next[Operation.ATTACH, positions] = at_ns + absence.astype(np.int64)

    def until(self, end_ns: int) -> tuple[Instants, Indexes, Kinds]:
        """What is due before ``end_ns`` and was not given yet: instants, positions among ``terminals``, kinds."""
        found: list[tuple[Instants, Indexes, Kinds]] = []
        positions = np.flatnonzero(self._due < end_ns)
        while len(positions):
            upcoming = self._next[:, positions]
            kinds = upcoming.argmin(axis=0)
            at_ns = upcoming.min(axis=0)
            found.append((at_ns, positions, kinds.astype(np.uint8)))
            for kind, every_s in ((Operation.RENEW, self._plan.renew_s), (Operation.USAGE, self._plan.usage_s)):
                again = positions[kinds == kind]
                self._next[kind, again] += max(1, round(self._nanoseconds(every_s)))
            for kind, change in ((Operation.ATTACH, self._arrive), (Operation.LEAVE, self._depart)):
                change(positions[kinds == kind], at_ns[kinds == kind])
            self._due[positions] = self._next[:, positions].min(axis=0)
            positions = positions[self._due[positions] < end_ns]
        if not found:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8)
        at_ns, positions, kinds = (np.concatenate(column) for column in zip(*found, strict=True))
        # Stable: what one terminal does at the same instant stays in the order in which it does it.
        order = np.argsort(at_ns, kind="stable")
        return at_ns[order], positions[order], kinds[order]

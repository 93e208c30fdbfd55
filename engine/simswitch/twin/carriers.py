"""Carriers with hidden limits, as columns over SIMs: what a SIM is slowed to, whatever anybody believes of it.

    bytes ──▶ used in a day, a cycle, rolling days ──▶ at or above a tier's quota, by the carrier's own count?
                      ▲                                           │
                      └── begins anew, up to two hours late ◀─────┴──▶ slowed to the slowest speed of those tiers

A lot may have several tiers, some of which its SIMs share, and change them from a day on without a word. The carrier
counts 2 % more or less than is used, each SIM and window by a factor of its own, drawn anew when the window begins.
About 30 bytes a SIM and window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simswitch.core.layout import WINDOW_CYCLE, WINDOW_DAY, WINDOW_ROLLING, WINDOWS

DAY, CYCLE, ROLLING = WINDOW_DAY - 1, WINDOW_CYCLE - 1, WINDOW_ROLLING - 1
NOISE = 0.02
LAG_HOURS = 2
"""A limit is lifted within so many hours after the window began anew."""
Column = npt.NDArray[Any]


@dataclass(frozen=True)
class Tier:
    """After so much in a window the carrier slows to so much, from a day on and before another."""

    lot: int
    window: int
    """As the place in the core's arrays: a Window less one."""
    quota_bytes: float
    speed_kbps: float
    from_day: int
    until_day: int
    pooled: bool = False
    """All SIMs of the lot together, and all of them are slowed at once: from the end of the hour on that used it up."""


class Carriers:
    """``begin_hour``, then ``line`` and ``use`` for the SIMs that are on."""

    def __init__(
        self, tiers: Sequence[Tier], lots: Sequence[slice], cycle_days: Sequence[int], rolling_days: int, seed: int
    ) -> None:
        self.tiers = tuple(tiers)
        self.lots = tuple(lots)
        self.random = np.random.default_rng(seed)
        sims = max(lot.stop for lot in lots)
        self.sims = sims
        self.lag = self.random.integers(0, LAG_HOURS, sims)
        self.cycle_day = np.zeros(sims, np.int32)
        for lot, day in zip(lots, cycle_days, strict=True):
            self.cycle_day[lot] = day
        self.used = np.zeros((WINDOWS, sims), np.float32)
        self.past = np.zeros((max(rolling_days - 1, 1), sims), np.float32)
        self.noise = self._noise((WINDOWS, sims))
        self.speed = np.full(sims, np.inf, np.float32)
        """What each SIM is slowed to, kbit/s; infinity: it is not."""
        self.room = np.full(sims, np.inf, np.float32)
        """Bytes until it is slowed, or slowed further."""
        self.next_speed = np.full(sims, np.inf, np.float32)
        self._refresh(0)

    def _noise(self, shape: tuple[int, ...]) -> Column:
        noise: Column = self.random.standard_normal(shape, np.float32) * np.float32(NOISE) + np.float32(1)
        return noise

    def quota_bytes(self, lot: int, window: int, day: int) -> float | None:
        """The lowest true cap of a lot in a window on a day. None: there is none."""
        found = [tier.quota_bytes for tier in self._tiers(lot, day) if tier.window == window]
        return min(found, default=None)

    def _tiers(self, lot: int, day: int) -> list[Tier]:
        return [tier for tier in self.tiers if tier.lot == lot and tier.from_day <= day < tier.until_day]

    def begin_hour(self, hour: int) -> None:
        day, of_day = divmod(hour, 24)
        if of_day < LAG_HOURS and hour >= 24:
            due = self.lag == of_day
            self.used[ROLLING, due] -= self.past[-1, due]
            self.past[1:, due] = self.past[:-1, due]
            self.past[0, due] = self.used[DAY, due]
            self.used[DAY, due] = 0
            self.used[CYCLE, due & (self.cycle_day == day)] = 0
            for window in range(WINDOWS):
                which = due if window != CYCLE else due & (self.cycle_day == day)
                self.noise[window, which] = self._noise((int(which.sum()),))
            self._refresh(day)

    def _refresh(self, day: int) -> None:
        for lot, sims in enumerate(self.lots):
            speed, room, next_speed = self.speed[sims], self.room[sims], self.next_speed[sims]
            speed[:], room[:], next_speed[:] = np.inf, np.inf, np.inf
            for tier in self._tiers(lot, day):
                kbps = np.float32(tier.speed_kbps)
                if tier.pooled:
                    if self.used[tier.window, sims].sum(dtype=np.float64) >= tier.quota_bytes:
                        np.minimum(speed, kbps, out=speed)
                    continue
                left = np.float32(tier.quota_bytes) * self.noise[tier.window, sims] - self.used[tier.window, sims]
                reached = left <= 0
                np.minimum(speed, np.where(reached, kbps, np.float32(np.inf)), out=speed)
                closer = ~reached & (left < room)
                room[closer] = left[closer]
                next_speed[closer] = kbps

    def use(self, used_bytes: Column, day: int) -> None:
        """Bytes of every SIM."""
        self.used += used_bytes
        self._refresh(day)

    def counts(self, window: int) -> Column:
        """What the carrier has counted in a window of every SIM: 2 % more or less than was used."""
        # A cap is reached where what was used meets quota x noise.
        counted: Column = self.used[window] / self.noise[window]
        return counted

    def slowed(self, sims: Column) -> Column:
        found: Column = np.isfinite(self.speed[sims])
        return found


def passed(wanted_bytes: Column, line_kbps: Column, speed: Column, room: Column, next_speed: Column) -> Any:
    """What goes through within an hour: bytes, the seconds in which something was wanted, and whether it was slowed.

    One that reaches a limit is slowed for the rest of what it wants; a shaper lets 95 % of its speed through.
    """
    line = line_kbps * np.float32(125)
    shaped = np.minimum(line, speed * np.float32(0.95 * 125))
    bytes_ = np.minimum(wanted_bytes, shaped * np.float32(3600))
    seconds = bytes_ / shaped
    crosses = np.flatnonzero(bytes_ > room)
    if len(crosses):
        first = room[crosses] / shaped[crosses]
        rate = np.minimum(line[crosses], next_speed[crosses] * np.float32(0.95 * 125))
        rest = np.minimum(wanted_bytes[crosses] - room[crosses], rate * (np.float32(3600) - first))
        bytes_[crosses] = room[crosses] + rest
        seconds[crosses] = first + rest / rate
    slowed = np.isfinite(speed)
    return bytes_, seconds, slowed

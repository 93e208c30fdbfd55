"""The clock of a cell: what time it is for the state machine, which reads none itself.

The machine's time never goes back, and doesn't believe every jump of the wall clock:

    wall is ahead by up to 60 s      now = wall
    wall is ahead by more            the jump is not taken: now follows the monotonic clock until `confirm`
    wall is ahead at a start         now = wall, up to a day after the last record; beyond, as any other jump
    wall is behind                   now follows the monotonic clock at half its pace until wall has caught up, so that
                                     leases and deadlines go on and time still does not run away from the wall
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

JUMP_MS = 60_000
AWAY_MS = 86_400_000


class Clock(Protocol):
    def begin(self, now_ms: int) -> None:
        """Told once, before the first reading: the instant of the last command that was recovered."""

    def now_ms(self) -> int:
        """Unix milliseconds, never before the last reading."""

    @property
    def jumped(self) -> bool:
        """The last reading found a jump that it did not take."""

    def confirm(self) -> None:
        """A person has said that the wall clock is right: the next reading takes it."""


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class WallClock:
    """The clock of the service."""

    def __init__(
        self,
        wall_ms: Callable[[], int] = _wall_ms,
        monotonic_ms: Callable[[], int] = _monotonic_ms,
        away_ms: int = AWAY_MS,
    ) -> None:
        """``away_ms``: how long the service may have been away, and its start is believed; 0: any time."""
        self._wall_ms = wall_ms
        self._monotonic_ms = monotonic_ms
        self._away_ms = away_ms
        self._now_ms = 0
        self._read_ms = monotonic_ms()
        self._behind_ms = 0
        self._jumped = False

    def begin(self, now_ms: int) -> None:
        # How long the service was away can't be told from a wrong clock. Up to a day the first reading takes the wall
        # as it is, and RESTART holds back what would expire by it. Time never goes back: a year that was taken
        # would end lots and reset windows for good, so from there on it is a jump like any other.
        wall_ms = self._wall_ms()
        believed = not now_ms or not self._away_ms or wall_ms - now_ms <= self._away_ms
        self._now_ms = max(now_ms, wall_ms) if believed else now_ms
        self._read_ms = self._monotonic_ms()

    @property
    def jumped(self) -> bool:
        return self._jumped

    def now_ms(self) -> int:
        read_ms = self._monotonic_ms()
        elapsed_ms = read_ms - self._read_ms
        wall_ms = self._wall_ms()
        self._read_ms = read_ms
        expected_ms = self._now_ms + elapsed_ms
        if self._jumped or wall_ms > expected_ms + JUMP_MS:
            self._jumped = True
            self._now_ms = expected_ms
        elif wall_ms >= self._now_ms:
            self._now_ms = wall_ms
            self._behind_ms = 0
        else:
            # Halves of single milliseconds are kept, or reading often would stop the clock.
            self._behind_ms += elapsed_ms
            self._now_ms += self._behind_ms // 2
            self._behind_ms %= 2
        return self._now_ms

    def confirm(self) -> None:
        self._jumped = False
        self._now_ms = max(self._now_ms, self._wall_ms())
        self._read_ms = self._monotonic_ms()


class VirtualClock:
    """The clock of the twin and of tests: it stands until it is set."""

    def __init__(self, now_ms: int = 0) -> None:
        self._now_ms = now_ms
        self.jumped = False

    def begin(self, now_ms: int) -> None:
        self._now_ms = max(self._now_ms, now_ms)

    def now_ms(self) -> int:
        return self._now_ms

    def confirm(self) -> None:
        self.jumped = False

    def set(self, now_ms: int) -> None:
        if now_ms < self._now_ms:
            raise ValueError(f"the clock is at {self._now_ms} and does not go back to {now_ms}")
        self._now_ms = now_ms

    def advance(self, elapsed_ms: int) -> None:
        self.set(self._now_ms + elapsed_ms)

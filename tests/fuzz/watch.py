"""What no reader may do besides being wrong: never come to an end, or keep memory. For runs of many inputs."""

from __future__ import annotations

import faulthandler
import signal
from pathlib import Path
from typing import Self

HANG_S = 60
"""Of processor time: processes that share a machine stand still at times. A reader takes a thousandth of this."""
GROWN_PART, GROWN_MB = 0.05, 8.0
LOOKS = 40


class Grown(Exception):
    """Memory grew over the second half of a run, when all that is kept once was there."""


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4_096 / 1e6


class Watch:
    """Around one run of ``inputs``, with ``begin`` before each of them. However the run ends, no timer is left behind:
    it would end the process without a word in whatever comes later."""

    def __init__(self, inputs: int) -> None:
        self._every = max(1, inputs // LOOKS)
        self._count = 0
        self.resident_mb: list[float] = []

    def __enter__(self) -> Self:
        return self

    def begin(self) -> None:
        """An input that does not come to an end within HANG_S ends the process with a trace, in C as in Python."""
        if self._count == 0:
            faulthandler.register(signal.SIGPROF, chain=True)
        if self._count % self._every == 0:
            self.resident_mb.append(resident_mb())
        self._count += 1
        if self._count % 16 == 1:
            signal.setitimer(signal.ITIMER_PROF, HANG_S)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raises ``Grown``."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        if kind is None:
            self._judge()

    def _judge(self) -> None:
        half = self.resident_mb[len(self.resident_mb) // 2 :]
        if len(half) < LOOKS // 2:
            return
        quarter = len(half) // 2
        before, after = (sum(part) / len(part) for part in (half[:quarter], half[quarter:]))
        if after > before * (1 + GROWN_PART) + GROWN_MB:
            raise Grown(f"{before:.0f} MB in the third quarter of the run, {after:.0f} in the fourth")

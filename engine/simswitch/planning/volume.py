"""The pool under a forecast: what the SIMs have left, day by day, and the day on which that is not enough.

What a lot has left depends on its cap, which is a guess with an interval until somebody has proved it. Each path
draws one cap for each lot, the same for all of its SIMs, from the interval: a cap that is wrong is wrong for the
whole lot, which is why the pool of 2020 ran dry at once. SIMs that have already used more than the drawn cap
have nothing left, and their excess helps nobody.

    left(lot) = sum over its SIMs of max(0, cap - used)        at the beginning
    served    = min(demand, sum over lots of min(left, day quota x SIMs))
    left     -= served, in proportion to what each lot could serve; a lot whose cycle begins anew is full again

A path is dry on the first day whose demand can't be served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from simswitch.planning.forecast import Floats, Forecast

_NORMAL_95 = 1.6448536269514722
"""The 95 % quantile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class CapInterval:
    """A cap in bytes for each SIM and cycle, as it is known: the 5 % quantile, the median and the 95 % quantile."""

    low_bytes: float
    middle_bytes: float
    high_bytes: float

    def __post_init__(self) -> None:
        if not 0 < self.low_bytes <= self.middle_bytes <= self.high_bytes:
            raise ValueError(
                f"a cap's quantiles must be above 0 and in order, not "
                f"{self.low_bytes:g}, {self.middle_bytes:g}, {self.high_bytes:g}"
            )

    @classmethod
    def exactly(cls, quota_bytes: float) -> CapInterval:
        """A contractual one."""
        return cls(quota_bytes, quota_bytes, quota_bytes)

    def scaled(self, factor: float) -> CapInterval:
        return CapInterval(self.low_bytes * factor, self.middle_bytes * factor, self.high_bytes * factor)

    def at(self, normals: Floats) -> Floats:
        """Caps for standard normal draws: a lognormal with another width on either side of the median."""
        below = np.log(self.middle_bytes / self.low_bytes) / _NORMAL_95
        above = np.log(self.high_bytes / self.middle_bytes) / _NORMAL_95
        return np.asarray(self.middle_bytes * np.exp(normals * np.where(normals < 0, below, above)))


@dataclass(frozen=True, slots=True)
class LotState:
    """A lot as it is on the first morning."""

    name: str
    cap: CapInterval
    used_bytes: Floats
    """In this cycle, one figure a SIM that is fit for use: healthy, low or spent, not throttled, lost or retired."""
    resets: tuple[date, ...] = ()
    """Days on whose morning its cycle begins anew."""
    day_quota_bytes: float | None = None
    """What a SIM may use in a day; None: any amount."""
    valid_until: date | None = None
    """The last day on which its SIMs work; None: no end."""
    sim_class: str = ""
    carrier: str = ""
    supplier: str = ""

    @property
    def sims(self) -> int:
        return len(self.used_bytes)

    def left(self, caps: Floats) -> Floats:
        """What all of its SIMs have left under each of ``caps``."""
        used = np.sort(self.used_bytes)
        sums = np.concatenate(([0.0], np.cumsum(used)))
        below = np.searchsorted(used, caps)
        return np.asarray(caps * below - sums[below])


@dataclass(frozen=True, slots=True)
class Supply:
    """SIMs that will come: bought, not here yet."""

    name: str
    arrives: date
    sims: int
    cap: CapInterval
    resets: tuple[date, ...] = ()
    day_quota_bytes: float | None = None

    def lot(self) -> LotState:
        return LotState(self.name, self.cap, np.zeros(self.sims), self.resets, self.day_quota_bytes)


@dataclass(frozen=True, slots=True)
class DryDates:
    """On which day the pool runs dry, over all paths."""

    first_day: date
    days: int
    dry_on: npt.NDArray[np.int64]
    """By path: days after the first; ``days`` means not within the time that was looked at."""
    short_bytes: Floats
    """By path: what could not be served, in all."""
    left_bytes: Floats = field(repr=False)
    """``[path, day]``: what the pool had left on each evening."""

    def date_at(self, share: float) -> date | None:
        """The day by which this share of the paths is dry. None: not within the time that was looked at."""
        day = int(np.sort(self.dry_on)[max(0, int(np.ceil(share * len(self.dry_on))) - 1)])
        return self.first_day + timedelta(days=day) if day < self.days else None

    def probability_by(self, day: date) -> float:
        """That it is dry on or before this day."""
        return float(np.mean(self.dry_on <= min((day - self.first_day).days, self.days - 1)))


def run_dry(forecast: Forecast, lots: Sequence[LotState], supplies: Sequence[Supply] = (), *, seed: int) -> DryDates:
    """Follows every path of the forecast through the pool. O(paths x days x lots)."""
    paths, days = forecast.paths.shape
    random = np.random.default_rng(seed)
    first = forecast.first_day
    arrivals = [first] * len(lots) + [supply.arrives for supply in supplies]
    pool = [*lots, *(supply.lot() for supply in supplies)]
    caps: list[Floats] = [lot.cap.at(random.standard_normal(size=(paths,))) for lot in pool]
    left = np.stack([lot.left(cap) for lot, cap in zip(pool, caps, strict=True)]) if pool else np.zeros((0, paths))
    dry_on = np.full(paths, days, dtype=np.int64)
    short = np.zeros(paths)
    evenings = np.zeros((paths, days))
    for day in range(days):
        today = first + timedelta(days=day)
        able = left.copy()
        for place, lot in enumerate(pool):
            if today in lot.resets and today > arrivals[place]:
                left[place] = caps[place] * lot.sims
            able[place] = left[place]
            if lot.day_quota_bytes is not None:
                able[place] = np.minimum(able[place], lot.day_quota_bytes * lot.sims)
            if today < arrivals[place] or (lot.valid_until is not None and today > lot.valid_until):
                able[place] = 0.0
        whole = able.sum(axis=0)
        demand = forecast.paths[:, day]
        served = np.minimum(demand, whole)
        left -= able * np.divide(served, whole, out=np.zeros(paths), where=whole > 0)
        short += demand - served
        dry_on = np.where((dry_on == days) & (demand > whole), day, dry_on)
        evenings[:, day] = left.sum(axis=0)
    return DryDates(first, days, dry_on, short, evenings)

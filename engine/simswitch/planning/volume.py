"""The pool under a forecast: what the SIMs have left, day by day, and the day on which that is not enough.

What a lot has left depends on its cap, which is a guess with an interval until somebody has proved it. Each path
draws one cap for each lot, the same for all of its SIMs, from the interval: a cap that is wrong is wrong for the
whole lot, which is why the pool of 2020 ran dry at once. SIMs that have already used more than the drawn cap
have nothing left, and their excess helps nobody.

    left(lot) = sum over its SIMs of max(0, cap - used)        at the beginning; of slowed ones nothing
    served    = min(demand, sum over lots of min(left, day quota x SIMs))
    left     -= served, in proportion to what each lot could serve; a lot whose cycle begins anew is full again, and
                those of its SIMs that were slowed serve again

A path is dry on the first day whose demand can't be served.
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from simswitch.planning.forecast import Floats, Forecast

_NORMAL_95 = 1.6448536269514722
"""The 95 % quantile of the standard normal distribution."""
_RESETS_MAX = 14


def monthly(first: date, day: int | None = None) -> tuple[date, ...]:
    """This day and the same in the months after it; a month that has no such day has its last.

    ``day`` is told where the first month has no such day itself.
    """
    result = []
    for months in range(_RESETS_MAX):
        year, month = first.year + (first.month - 1 + months) // 12, (first.month - 1 + months) % 12 + 1
        result.append(date(year, month, min(day or first.day, calendar.monthrange(year, month)[1])))
    return tuple(result)


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
    """Days on whose morning its cycle begins anew; the first morning may be one."""
    day_quota_bytes: float | None = None
    """What a SIM may use in a day; None: any amount."""
    valid_until: date | None = None
    """The last day on which its SIMs work; None: no end."""
    sim_class: str = ""
    carrier: str = ""
    supplier: str = ""
    slowed: int = 0
    """SIMs besides that the carrier has slowed: they serve again when its cycle begins anew."""

    @property
    def sims(self) -> int:
        return len(self.used_bytes)

    def part(self, share: float) -> LotState:
        """So large a part of its SIMs, of which as many have used as much."""
        count = round(self.sims * share)
        taken = (np.arange(count) * self.sims // max(count, 1)).astype(np.intp)
        return replace(self, used_bytes=np.sort(self.used_bytes)[taken], slowed=round(self.slowed * share))

    def serves(self, day: date) -> bool:
        return self.valid_until is None or day <= self.valid_until

    def begins(self, caps: Floats, day: date) -> Floats:
        """What it has left on the first morning: all of it where its cycle begins anew on that day."""
        if not self.serves(day):
            return np.zeros_like(caps)
        return caps * (self.sims + self.slowed) if day in self.resets else self.left(caps)

    def lower_bound(self, day: date) -> float:
        """The same under the lower bound of its cap."""
        return float(self.begins(np.array([self.cap.low_bytes]), day)[0])

    def left(self, caps: Floats) -> Floats:
        """What all of its SIMs have left under each of ``caps``."""
        used = np.sort(self.used_bytes)
        sums = np.concatenate(([0.0], np.cumsum(used)))
        below = np.searchsorted(used, caps)
        return np.asarray(caps * below - sums[below])


@dataclass(frozen=True, slots=True)
class Supply:
    """SIMs that will come: bought, not here yet. Their cycles begin anew each month after they have come."""

    name: str
    arrives: date
    sims: int
    cap: CapInterval

    def lot(self) -> LotState:
        return LotState(self.name, self.cap, np.zeros(self.sims), monthly(self.arrives)[1:])


@dataclass(frozen=True, slots=True)
class DryDates:
    """On which day the pool runs dry, over all paths."""

    first_day: date
    days: int
    dry_on: npt.NDArray[np.int64]
    """By path: days after the first; ``days`` means not within the time that was looked at."""
    short_by_day: Floats = field(repr=False)
    """``[path, day]``: what could not be served."""
    left_bytes: Floats = field(repr=False)
    """``[path, day]``: what the SIMs that were there had left on each evening."""

    @property
    def short_bytes(self) -> Floats:
        """By path: what could not be served, in all."""
        return np.asarray(self.short_by_day.sum(axis=1))

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
    left = (
        np.stack([lot.begins(cap, first) for lot, cap in zip(pool, caps, strict=True)])
        if pool
        else np.zeros((0, paths))
    )
    sims = [lot.sims + (lot.slowed if first in lot.resets else 0) for lot in pool]
    dry_on = np.full(paths, days, dtype=np.int64)
    short = np.zeros((paths, days))
    evenings = np.zeros((paths, days))
    for day in range(days):
        today = first + timedelta(days=day)
        there = np.array([arrives <= today and lot.serves(today) for arrives, lot in zip(arrivals, pool, strict=True)])
        able = left.copy()
        for place, lot in enumerate(pool):
            if day and today in lot.resets:
                sims[place] = lot.sims + lot.slowed
                left[place] = caps[place] * sims[place]
            able[place] = left[place] if there[place] else 0.0
            if lot.day_quota_bytes is not None:
                able[place] = np.minimum(able[place], lot.day_quota_bytes * sims[place])
        whole = able.sum(axis=0)
        demand = forecast.paths[:, day]
        served = np.minimum(demand, whole)
        left -= able * np.divide(served, whole, out=np.zeros(paths), where=whole > 0)
        short[:, day] = demand - served
        dry_on = np.where((dry_on == days) & (demand > whole), day, dry_on)
        evenings[:, day] = left[there].sum(axis=0) if pool else 0.0
    return DryDates(first, days, dry_on, short, evenings)

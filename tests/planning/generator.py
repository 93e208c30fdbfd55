"""Months that never were: subscribers whose use is heavy-tailed, a pool whose cap is not what its owner believes.

It shares nothing with the planner but the shape of its inputs: use is drawn subscriber by subscriber and day by day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
from simswitch.planning.forecast import Past

FIRST_DAY = date(2026, 9, 1)
WEEKDAYS = np.array([0.95, 0.93, 0.94, 0.97, 1.05, 1.12, 1.10])


@dataclass(frozen=True, slots=True)
class Month:
    """Two months of use, and the pool of the second."""

    used_bytes: npt.NDArray[np.float64]
    subscribers: npt.NDArray[np.float64]
    cycle_begins: int
    """The day, counted from the first, on which every SIM's cycle begins."""
    sims: int
    believed_bytes: float
    true_bytes: float
    dry_on: int
    """The day on which the pool really ran dry."""


def few(seed: int, subscribers: int = 400, days: int = 56) -> Past:
    """Weeks of so few subscribers that the heaviest of them make the use: which of them are there today is chance."""
    random = np.random.default_rng(seed)
    habit = random.lognormal(-(1.7**2) / 2, 1.7, subscribers)
    used, counts = np.zeros(days), np.zeros(days)
    shared = 0.0
    for day in range(days):
        shared = 0.6 * shared + random.normal(0.0, 0.02)
        visits = random.binomial(4, 0.3, subscribers)
        each = visits * habit * random.gamma(1.5, 1 / 1.5, subscribers)
        weekday = WEEKDAYS[(FIRST_DAY + timedelta(days=day)).weekday()]
        used[day] = 4e8 / 1.2 * weekday * np.exp(shared) * float(each.sum())
        counts[day] = np.count_nonzero(visits)
    return Past(FIRST_DAY, used, counts)


def month(seed: int, *, sigma: float = 1.7, subscribers: int = 20_000, cap_error: float = 0.2) -> Month:
    """A pool that would last under the believed cap, and runs dry in the month under the true one."""
    random = np.random.default_rng(seed)
    days = 30 + 30
    growth = random.uniform(0.0, 0.006)
    counts = np.floor(subscribers * (1 + growth) ** np.arange(days))
    mean_day = 4e8 * random.lognormal(0.0, 0.2)
    largest = int(counts[-1])
    habit = random.lognormal(-(sigma**2) / 2, sigma, largest)
    used = np.zeros(days)
    shared = 0.0
    for day in range(days):
        people = habit[: int(counts[day])]
        shared = 0.6 * shared + random.normal(0.0, 0.02)
        weekday = WEEKDAYS[(FIRST_DAY + timedelta(days=day)).weekday()]
        own = random.gamma(1.5, 1 / 1.5, len(people))
        used[day] = mean_day * weekday * np.exp(shared) * float((people * own).sum())
    believed = random.uniform(60e9, 120e9)
    true = believed * (1 - cap_error)
    # Dry between the 17th and the 27th day of the cycle, so that ten days ahead throttled SIMs can be seen.
    dry_day = 30 + int(random.integers(17, 28))
    cycle = used[30:dry_day].sum() + used[dry_day] * random.uniform(0.05, 0.95)
    sims = int(cycle / true)
    left = sims * true - np.cumsum(used[30:])
    return Month(used, counts, 30, sims, believed, true, 30 + int(np.argmax(left < 0)))

"""How many SIMs must be fit to be handed out so that hardly any terminal finds none.

Terminals are a finite population: one that has a SIM does not ask for another. So the share of time in which all SIMs
are taken is Engset's (T. O. Engset, 1918), and Erlang's B formula (A. K. Erlang, 1917) is its limit for many terminals
of little activity. Both are truncated distributions, Engset's a binomial and Erlang's a Poisson one. Where there are
more SIMs than are wanted on average each is one quotient of a probability and a distribution function, at any size.
Where there are fewer, which is where a pool has run dry, the distribution function may be too small for a number. There
the probabilities fall from the last one down, at least as fast as exp(-j^2 / 2 SIMs), and are added up: no more than
some 9 x sqrt(SIMs) of them count.

Real peaks are shared: a holiday makes everybody active. ``Peak`` says how the activity itself varies from day to day; a
blocking probability is then the mean over it. Ignoring that is how a pool that is large enough on average is too small
in the evening that counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_PEAK_POINTS = 33


def _checked(value: float, name: str, lowest: float, highest: float = float("inf")) -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {value:g}; it must be from {lowest:g} to {highest:g}")


def erlang_b(servers: int, offered_erlangs: float) -> float:
    """The probability that all of ``servers`` are taken when ``offered_erlangs`` come from a very large population."""
    from scipy.stats import poisson

    _checked(servers, "servers", 0)
    _checked(offered_erlangs, "offered traffic", 0)
    if offered_erlangs < servers:
        return float(np.exp(poisson.logpmf(servers, offered_erlangs) - poisson.logcdf(servers, offered_erlangs)))
    if servers == 0:
        return 1.0
    step = np.arange(_steps(servers))
    return float(_last_of(((servers - step) / offered_erlangs)[np.newaxis, :])[0])


def _steps(servers: int) -> int:
    return min(servers, 9 * math.isqrt(servers) + 64)


def _last_of(quotients: Floats) -> Floats:
    """The last one's share of probabilities: going down from it, each is the one before times a quotient."""
    return np.asarray(1 / (1 + np.cumprod(quotients, axis=1).sum(axis=1)))


def engset_time_congestion(sources: int, servers: int, activity: float) -> float:
    """The share of time in which all of ``servers`` are taken by ``sources``.

    ``activity`` is the share of time in which a source would be active if it never found all of them taken: 0 to 1.
    """
    return float(_engset(sources, servers, np.array([activity]))[0])


def engset_call_congestion(sources: int, servers: int, activity: float) -> float:
    """The share of attempts that find all taken: what an arriving source sees is the system without itself."""
    _checked(sources, "sources", 1)
    return engset_time_congestion(sources - 1, servers, activity)


def _engset(sources: int, servers: int, activities: Floats) -> Floats:
    from scipy.stats import binom

    _checked(sources, "sources", 0)
    _checked(servers, "servers", 0)
    _checked(float(activities.min()), "activity", 0, 1)
    _checked(float(activities.max()), "activity", 0, 1)
    if servers > sources:
        return np.zeros_like(activities)
    if servers == 0:
        return np.ones_like(activities)
    result = np.zeros_like(activities)
    # Where the likeliest number of active sources is one that finds a server.
    roomy = activities * (sources + 1) < servers
    if roomy.any():
        those = activities[roomy]
        result[roomy] = np.exp(binom.logpmf(servers, sources, those) - binom.logcdf(servers, sources, those))
    if not roomy.all():
        those = activities[~roomy][:, np.newaxis]
        step = np.arange(_steps(servers))
        quotients = (servers - step) / (sources - servers + 1 + step) * (1 - those) / those
        result[~roomy] = _last_of(quotients)
    return result


@dataclass(frozen=True, slots=True)
class Peak:
    """How active terminals are in the busiest hour, from day to day: a beta distribution."""

    mean: float
    """The share of terminals that are active, on average: above 0; 1: all of them on every day."""
    deviation: float = 0.0
    """The standard deviation of that share from one day's busiest hour to another's."""

    @classmethod
    def observed(cls, shares: npt.ArrayLike) -> Peak:
        """From the busiest hours of past days, each the share of terminals that were active."""
        found = np.asarray(shares, dtype=np.float64)
        if not found.size:
            raise ValueError("a peak needs at least one day")
        return cls(float(found.mean()), float(found.std(ddof=1)) if found.size > 1 else 0.0)

    def activities(self) -> Floats:
        """Equally likely values of the share."""
        from scipy.stats import beta

        _checked(self.mean, "the mean activity", 1e-9, 1)
        room = self.mean * (1 - self.mean)
        # Days that are alike to the last digits leave no distribution to take quantiles of.
        if self.deviation**2 <= room * 1e-9:
            return np.array([self.mean])
        weight = room / min(self.deviation**2, room * 0.999) - 1
        middles = (np.arange(_PEAK_POINTS) + 0.5) / _PEAK_POINTS
        return np.asarray(beta.ppf(middles, self.mean * weight, (1 - self.mean) * weight))


@dataclass(frozen=True, slots=True)
class MarketPeak:
    """How many terminals of a market may want a SIM at once, and how many SIMs serve it."""

    name: str
    terminals: int
    fit: int
    peak: Peak | None
    """None: no busy hours have been seen yet."""


def blocking(terminals: int, sims: int, peak: Peak) -> float:
    """The share of attempts in the busiest hour that find no SIM, over all such hours."""
    _checked(terminals, "terminals", 1)
    return float(_engset(terminals - 1, sims, peak.activities()).mean())


def sims_needed(terminals: int, peak: Peak, blocking_max: float) -> int:
    """The fewest SIMs with which at most ``blocking_max`` of the attempts in the busiest hour find none."""
    _checked(blocking_max, "the blocking that is allowed", 1e-12, 1)
    _checked(terminals, "terminals", 1)
    activities = peak.activities()
    low, high = 0, terminals
    while low < high:
        middle = (low + high) // 2
        if float(_engset(terminals - 1, middle, activities).mean()) <= blocking_max:
            high = middle
        else:
            low = middle + 1
    return low


def described(terminals: int, sims: int, peak: Peak, blocking_max: float) -> dict[str, Any]:
    """The constraint in figures."""
    needed = sims_needed(terminals, peak, blocking_max)
    return {
        "terminals": terminals,
        "sims": sims,
        "peak_activity_mean": peak.mean,
        "peak_activity_deviation": peak.deviation,
        "blocking": blocking(terminals, sims, peak),
        "blocking_erlang_b": erlang_b(sims, terminals * peak.mean),
        "blocking_max": blocking_max,
        "sims_needed": needed,
        "sims_missing": max(0, needed - sims),
    }

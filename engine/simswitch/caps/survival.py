"""Survival analysis of one cap: the use at which SIMs are slowed, from bounds only.

The survival function is the share of SIMs that are not slowed yet when they have used so much. Two estimates of it:

``Posterior``  parametric. A SIM meets its cap at a use that is lognormal around the lot's cap: the carrier's count
    differs from ours by a few percent. Bounds enter as they are: P(lower < cap <= upper) for the interval-censored,
    P(cap > lower) for the right-censored. Every observation may also be of another making (a second limit, a report
    that came two days late, a decision that was wrong), with a share set beforehand, so that no single one can move
    the estimate. Median and spread are integrated over a grid with a prior for the spread: with five SIMs the data
    alone can't tell it, and a maximum of the likelihood would claim that it is nothing. So its quantiles are
    predictive: wide with few SIMs, as narrow as the noise with many.
``turnbull``   not parametric: the distribution of maximum likelihood over the smallest intervals that the bounds
    leave, by self-consistency. It is shown beside the other, so that a shape that is not lognormal is seen.

What is decided is decided upon the lower 5 % quantile, never on the mean. Needs SciPy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from simswitch.caps.throttle import Column

OF_OTHER_MAKING = 0.5
"""Of the interval-censored: a speed may follow on more than one limit."""
OF_OTHER_MAKING_QUIET = 0.05
RANGE = float(np.log(1e12 / 1e6))
"""What is of other making lies anywhere between a megabyte and a terabyte, on a logarithmic scale."""
SPREADS = np.array([0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.09, 0.13])
SPREAD_USUAL, SPREAD_USUAL_FACTOR = 0.025, 0.8
COARSE, FINE = 0.01, 0.003
_WITHIN = 0.4
_BEYOND = 4 * float(SPREADS[-1])


def gains(lower: Column, upper: Column, median: Column, spread: float) -> Column:
    """How much better each observation (rows) is explained by each median (columns) than without a cap: log ratio.

    All in natural logarithms of bytes; an upper bound of infinity is right-censored.
    """
    below = ndtr((lower[:, None] - median) / spread)
    quiet = np.isinf(upper)
    better: Column = np.empty_like(below)
    better[quiet] = np.log1p((OF_OTHER_MAKING_QUIET - 1) * below[quiet])
    slowed = ~quiet
    mass = np.maximum(ndtr((upper[slowed, None] - median) / spread) - below[slowed], 0.0)
    elsewhere = np.maximum(upper[slowed] - lower[slowed], 1e-6) / RANGE
    better[slowed] = np.log((1 - OF_OTHER_MAKING) * mass / elsewhere[:, None] + OF_OTHER_MAKING)
    return better


def candidates(lower: Column, upper: Column, step: float) -> Column:
    """Medians of which one explains the observations best: below every upper bound all gain by a higher one, and above
    every lower bound by a lower one or not at all."""
    return np.arange(float(upper.min()) - _BEYOND, max(float(lower.max()), float(upper.min())) + _BEYOND, step)


@dataclass(frozen=True, slots=True)
class Posterior:
    """Of the median (natural logarithm of bytes) and of the spread, on a grid."""

    median: Column
    weights: Column
    """Spreads by medians; they sum to 1."""
    gain: float
    """How much better the best of them explains the observations than no cap: log ratio."""

    @property
    def best(self) -> tuple[float, float]:
        """The most likely median and spread."""
        row, column = np.unravel_index(int(np.argmax(self.weights)), self.weights.shape)
        return float(self.median[column]), float(SPREADS[row])

    def quantile(self, share: float) -> float:
        """Predictive: with that probability a SIM of this lot is slowed before it has used so much (a logarithm)."""
        edge = 4 * SPREADS[-1]
        low, high = float(self.median[0] - edge), float(self.median[-1] + edge)
        for _ in range(40):
            middle = (low + high) / 2
            slowed = float((ndtr((middle - self.median) / SPREADS[:, None]) * self.weights).sum())
            low, high = (middle, high) if slowed < share else (low, middle)
        return (low + high) / 2

    def median_quantile(self, share: float) -> float:
        """What is known of the median itself: the interval that is shown."""
        total = np.cumsum(self.weights.sum(axis=0))
        return float(np.interp(share, total, self.median))

    def survival(self, used: Column) -> Column:
        """The share of SIMs that are not slowed at each use (logarithms of bytes)."""
        return 1.0 - np.array([float((ndtr((x - self.median) / SPREADS[:, None]) * self.weights).sum()) for x in used])


def posterior(lower: Column, upper: Column) -> Posterior:
    """From observations in natural logarithms of bytes, at least one of them interval-censored."""
    events = np.isfinite(upper)
    if not events.any():
        raise ValueError("a cap can't be estimated from SIMs that were not slowed")
    coarse = candidates(lower, upper, COARSE)
    total = gains(lower, upper, coarse, SPREAD_USUAL).sum(axis=0)
    middle = float(coarse[int(np.argmax(total))])
    # What lies far from it says the same of every median near it.
    near = np.where(events, (upper > middle - 1.0) & (lower < middle + 1.0), lower > middle - 1.0)
    far = float(gains(lower[~near], upper[~near], np.array([middle]), SPREAD_USUAL).sum())
    lower, upper = lower[near], upper[near]
    median = np.arange(middle - _WITHIN, middle + _WITHIN, FINE)
    logs = np.stack([gains(lower, upper, median, float(spread)).sum(axis=0) for spread in SPREADS])
    logs -= 0.5 * (np.log(SPREADS / SPREAD_USUAL)[:, None] / SPREAD_USUAL_FACTOR) ** 2
    top = float(logs.max())
    weights = np.exp(logs - top)
    return Posterior(median, weights / weights.sum(), top + far)


def turnbull(lower: Column, upper: Column, rounds: int = 2000, settled: float = 1e-7) -> tuple[Column, Column]:
    """The right ends of the smallest intervals that the bounds leave, and the survival function after each.

    Mass that lies beyond every upper bound stands in the last interval, whose end is infinity.
    """
    # A smallest interval begins at a lower bound and ends at the next bound, if that is an upper one.
    bounds = np.concatenate([lower, upper])
    is_upper = np.concatenate([np.zeros(len(lower), bool), np.ones(len(upper), bool)])
    order = np.lexsort((~is_upper, bounds))
    bounds, is_upper = bounds[order], is_upper[order]
    smallest = np.flatnonzero(~is_upper[:-1] & is_upper[1:])
    left, right = bounds[smallest], bounds[smallest + 1]
    holds = (lower[:, None] <= left) & (right <= upper[:, None])
    mass = np.full(len(left), 1.0 / len(left))
    for _ in range(rounds):
        shares = holds * mass
        shares /= shares.sum(axis=1, keepdims=True)
        updated = shares.mean(axis=0)
        change = float(np.abs(updated - mass).max())
        mass = updated
        if change < settled:
            break
    return right, 1.0 - np.cumsum(mass)

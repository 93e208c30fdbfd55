"""Use by day in the weeks to come, as paths.

A path is one way in which the days could go; quantiles of a day, of a sum of days or of the day on which something runs
out are read from many of them, so that what hangs together (one week above the trend stays above it) stays together.

Two models are averaged, on the logarithm of the use per subscriber: exponential smoothing with a damped trend and the
day of the week, from statsmodels, which follows what changes; and each day of the week's mean over the last four weeks
with their trend, as far as it is more than chance (shrunk as by W. James and C. Stein, 1961). Where few heavy users
make the use, the first alone loses to last week's figures. Subscribers are counted by whole weeks, so that neither a
quiet Sunday nor chance looks like growth; their growth multiplies the use. Holidays and campaigns that people know of
are divided out of the past and multiplied into the future: a model that has seen three holidays learns nothing of them.

With less than three weeks of past, a week's pattern can't be told from chance, and the days of the week are left out;
with less than eight days the forecast is the mean of what there is.

The model's own bands are too narrow, because it takes its smoothing parameters for certain. So the forecast is tried on
earlier days (``trials``), and its paths are spread by what that shows (``widening``).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
PATHS = 2000
_WEEK = 7
_SEASONAL_DAYS = 3 * _WEEK
_MODEL_DAYS = 8
_PROFILE_DAYS = 4 * _WEEK
TRIALS_MAX = 60
TRIALS_LEAST = 10
WIDENING_UNKNOWN = 2.0
"""While there are too few trials to tell."""


@dataclass(frozen=True, slots=True)
class Past:
    """What was used, one figure a day without a gap."""

    first_day: date
    used_bytes: Floats
    subscribers: Floats
    """Those that used anything, or all there were: the same thing on every day."""

    def __post_init__(self) -> None:
        if len(self.used_bytes) != len(self.subscribers):
            raise ValueError(f"{len(self.used_bytes)} days of use, but {len(self.subscribers)} of subscribers")
        if not len(self.used_bytes):
            raise ValueError("a forecast needs at least one whole day of use")
        if not np.all(self.subscribers > 0):
            raise ValueError("a day without subscribers can't be part of the past: begin after it")

    @property
    def days(self) -> int:
        return len(self.used_bytes)

    @property
    def next_day(self) -> date:
        return self.first_day + timedelta(days=self.days)

    def until(self, day: date) -> Past:
        """What was known on the morning of ``day``."""
        days = (day - self.first_day).days
        return Past(self.first_day, self.used_bytes[:days], self.subscribers[:days])


@dataclass(frozen=True, slots=True)
class Forecast:
    """Use by day from ``first_day`` on: ``paths[path, day]``, in bytes."""

    first_day: date
    paths: Floats
    model: str

    def quantile(self, share: float) -> Floats:
        """By day."""
        return np.asarray(np.quantile(self.paths, share, axis=0))


def _factors(first: date, days: int, known: Mapping[date, float]) -> Floats:
    return np.array([known.get(first + timedelta(days=day), 1.0) for day in range(days)])


def _fitted(logarithms: Floats) -> tuple[Any, str]:
    """The model of the past. Raises ``ValueError`` or ``LinAlgError`` when there is none."""
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    seasonal = len(logarithms) >= _SEASONAL_DAYS
    model = ETSModel(
        logarithms,
        error="add",
        trend="add",
        damped_trend=True,
        seasonal="add" if seasonal else None,
        seasonal_periods=_WEEK if seasonal else None,
    )
    with warnings.catch_warnings():
        # It tells of optimisers that stopped early; the backtest judges what came of it.
        warnings.simplefilter("ignore")
        fitted = model.fit(disp=False)
    if not np.isfinite(fitted.sse):
        raise ValueError("no model fits")
    return fitted, "exponential smoothing" + (" with days of the week" if seasonal else "")


def forecast(
    past: Past,
    days: int,
    *,
    seed: int,
    subscribers_by_day: float | None = None,
    more: npt.ArrayLike = 0.0,
    factors: Mapping[date, float] | None = None,
    paths: int = PATHS,
) -> Forecast:
    """The next ``days``.

    ``subscribers_by_day`` is how many more there are each day; None goes on as the past weeks did. ``more``: who come
    besides, by day. ``factors`` says of days that are unlike others how much more (1.2) or less (0.7) is used on them.
    """
    known = factors or {}
    random = np.random.default_rng(seed)
    smooth = _smoothed(past)
    adjusted = past.used_bytes / smooth / _factors(past.first_day, past.days, known)
    logarithms = np.log(np.maximum(adjusted, 1.0))
    if past.days >= _MODEL_DAYS:
        fitted, model = _fitted(logarithms)
        # Each parameter that was fitted takes from what the past says about chance.
        freedom = max(1, past.days - len(fitted.params))
        errors = random.normal(0.0, float(np.sqrt(fitted.sse / freedom)), (days, paths))
        drawn = np.asarray(fitted.simulate(days, anchor="end", repetitions=paths, random_errors=errors))
        ahead = drawn.reshape(days, paths).T
        ahead += (_profile(logarithms, days) - np.median(ahead, axis=0)) / 2
        model += ", averaged with the mean of four weeks"
    else:
        spread = float(logarithms.std(ddof=1)) if past.days > 1 else 0.3
        level = random.normal(float(logarithms.mean()), spread / np.sqrt(past.days), (paths, 1))
        ahead = level + random.normal(0.0, spread, (paths, days))
        model = f"the mean of {past.days} days"
    per_day = growth(past) if subscribers_by_day is None else subscribers_by_day
    subscribers = np.maximum(smooth[-1] + per_day * np.arange(1, days + 1) + more, 0.0)
    result = np.exp(ahead) * subscribers * _factors(past.next_day, days, known)
    return Forecast(past.next_day, result, model)


def growth(past: Past) -> float:
    """Subscribers a day: the last whole week against the one three weeks before it, or as long before as is known."""
    weeks = min(past.days // _WEEK, 4)
    if weeks < 2:
        return 0.0
    first = past.days - weeks * _WEEK
    gained = past.subscribers[-_WEEK:].mean() - past.subscribers[first : first + _WEEK].mean()
    return float(gained / ((weeks - 1) * _WEEK))


def _smoothed(past: Past) -> Floats:
    """Subscribers by day as the mean of the week around each; the first and the last days go on as the weeks grew."""
    if past.days < _WEEK:
        return np.full(past.days, past.subscribers.mean())
    half, per_day = _WEEK // 2, growth(past)
    means = np.convolve(past.subscribers, np.full(_WEEK, 1 / _WEEK), "valid")
    ends = per_day * np.arange(1, half + 1)
    return np.asarray(np.maximum(np.concatenate((means[0] - ends[::-1], means, means[-1] + ends)), 1e-3))


def _profile(logarithms: Floats, days: int) -> Floats:
    """Each day ahead as the mean of its day of the week lately; with too short a past, as the mean of all days.

    What lies between the older and the newer fortnight goes on, for a fortnight, as far as chance would not make it.
    """
    if len(logarithms) < _SEASONAL_DAYS:
        return np.full(days, logarithms.mean())
    weeks = min(len(logarithms), _PROFILE_DAYS) // _WEEK
    lately = logarithms[-weeks * _WEEK :]
    profile = lately.reshape(weeks, _WEEK).mean(axis=0)
    ahead = np.resize(profile, days)
    if len(lately) == _PROFILE_DAYS:
        half = _PROFILE_DAYS // 2
        middle = (_PROFILE_DAYS - 1) / 2
        slope = (lately[half:].mean() - lately[:half].mean()) / half
        chance = lately - np.resize(profile, _PROFILE_DAYS) - slope * (np.arange(_PROFILE_DAYS) - middle)
        variance = (chance**2).sum() / (_PROFILE_DAYS - _WEEK - 1) * 2 / half**3
        kept = max(0.0, 1 - variance / slope**2) if slope else 0.0
        ahead = ahead + kept * slope * (middle + np.minimum(np.arange(1, days + 1), half))
    return ahead


def naive(past: Past, days: int) -> Floats:
    """What one would say without a model: each day as the same day of last week."""
    lately = past.used_bytes[-_WEEK:]
    return np.array([lately[day % len(lately)] for day in range(days)])


@dataclass(frozen=True, slots=True)
class Trial:
    """What the forecast would have said on an earlier day of the sum over the horizon, against what came."""

    days: int
    """How many days were known then."""
    off: float
    """The logarithm of what came over the median."""
    below: float
    """From the 5 % quantile to the median, and from there to the 95 % quantile, on the same scale."""
    above: float
    error: float
    naive_error: float

    @property
    def score(self) -> float:
        """How many half bands away what came was: above 1 it lay outside."""
        return self.off / max(self.above, 1e-9) if self.off > 0 else -self.off / max(self.below, 1e-9)


def trials(
    past: Past, horizon: int, *, seed: int, first: int = _SEASONAL_DAYS, factors: Mapping[date, float] | None = None
) -> list[Trial]:
    """One for each earlier day, at most ``TRIALS_MAX`` of them, the last ones."""
    result = []
    for days in range(max(min(first, past.days), past.days - horizon + 1 - TRIALS_MAX), past.days - horizon + 1):
        then = past.until(past.first_day + timedelta(days=days))
        sums = forecast(then, horizon, seed=seed + days, factors=factors, paths=500).paths.sum(axis=1)
        came = float(past.used_bytes[days : days + horizon].sum())
        if not came:
            # Of nothing there is no share to be off by.
            continue
        low, middle, high = np.quantile(sums, (0.05, 0.5, 0.95))
        middle, low = max(float(middle), 1.0), max(float(low), 1.0)
        errors = (abs(float(said) - came) / came for said in (middle, naive(then, horizon).sum()))
        off, below, above = np.log(came / middle), np.log(middle / low), np.log(max(float(high), middle) / middle)
        result.append(Trial(days, float(off), float(below), float(above), *errors))
    return result


def widening(found: Sequence[Trial]) -> float:
    """By which the bands are to be widened so that nine in ten of the trials would have lain within.

    It is the quantile of their scores that split conformal prediction takes (V. Vovk and others, 2005). Trials overlap,
    so it is no guarantee; never below 1, since the smoothing parameters' own uncertainty is not in the bands.
    """
    if len(found) < TRIALS_LEAST:
        return WIDENING_UNKNOWN
    scores = sorted(trial.score for trial in found)
    place = min(int(np.ceil((len(scores) + 1) * 0.9)), len(scores))
    return max(1.0, scores[place - 1])


def widened(ahead: Forecast, factor: float) -> Forecast:
    """The same medians by day, and each path so many times as far from them."""
    logarithms = np.log(np.maximum(ahead.paths, 1.0))
    middle = np.median(logarithms, axis=0)
    return replace(ahead, paths=np.exp(middle + factor * (logarithms - middle)))


def backtest(found: Sequence[Trial], horizon: int) -> dict[str, Any]:
    """Errors of the sum over the horizon, as shares of what came, beside the naive ones; how often it lay between the
    5 % and the 95 % quantile, which nine in ten should: of the model's bands, and of the bands as they are widened by
    what was known on that day."""
    if not found:
        return {"origins": 0, "horizon_days": horizon, "widening": WIDENING_UNKNOWN}
    within = [
        trial.score <= widening([earlier for earlier in found if earlier.days + horizon <= trial.days])
        for trial in found
    ]
    return {
        "origins": len(found),
        "horizon_days": horizon,
        "error_mean": float(np.mean([trial.error for trial in found])),
        "naive_error_mean": float(np.mean([trial.naive_error for trial in found])),
        "covered_by_the_model": float(np.mean([trial.score <= 1 for trial in found])),
        "covered": float(np.mean(within)),
        "widening": widening(found),
    }

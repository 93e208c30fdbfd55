"""Which limits a carrier keeps for a lot: window, cap and speed of each, since when, and when one has changed.

    observations ─▶ by speed ─▶ which window, which cap?  the one that explains most, then the next, from what is left
                                      │
                                      └─▶ since when?  the best split in time of its evidence: what is before is retired

A cap is *better explained* in the window in which events agree: a daily cap of 3 GB makes all uses of the day nearly
equal, and the uses of the cycle anything. Right-censored observations weigh against a window in which many used more
and were not slowed.

A change is the split in time after which another cap explains the evidence so much better, by ``CHANGE_GAIN``, that
it is no chance. Lowered caps show as events below the old one, raised ones as SIMs that stay fast beyond it; then
nothing is known but that the cap is above that, until SIMs are slowed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from simswitch.caps.evidence import Observations, Window
from simswitch.caps.survival import Posterior, candidates, gains, posterior
from simswitch.caps.throttle import STEPS_KBPS, Column

SIMS_MIN = 5
"""Throttled SIMs that agree; with fewer nothing is learned."""
GAIN_MIN = 14.0
CHANGE_GAIN = 12.0
CHANGE_COST = 30.0
CHANGE_SIMS_MIN = 3
WINDOWS = (Window.DAY, Window.ROLLING, Window.CYCLE)
LONGER_GAIN = 1.25
"""So much better a longer window has to explain the events: in a cycle's first days both explain most of them. A cap
that is wrongly a day's corrects itself when its SIMs are slowed again; one that is wrongly a cycle's keeps them all
back until the cycle is over, and with them the evidence against it."""
OBSERVATIONS_MAX = 1500
"""The newest of a lot, window and speed. More would say nothing new."""
STEP_WITHIN = 0.2
"""A level that is nearer to a known speed, in logarithms, is that speed: short windows look faster than they are."""
LEVELS_APART = 0.15
DAY_MS = 86_400_000
APART_MS = 20 * 3_600_000
"""A cap holds for most of a day at least, the first too: what looks like two changes in one are SIMs whose limit was
lifted later than our window began, so that they seem to be slowed late."""
COARSE_SPLIT = 0.02
SAME_CAP = 0.06
"""Caps of one window that differ by less, in logarithms, are one cap."""


class ChangeKind(StrEnum):
    LOWERED = "lowered"
    RAISED = "raised"
    SPEED = "speed"


@dataclass(frozen=True, slots=True)
class Change:
    """What a carrier changed without a word."""

    window: Window
    kind: ChangeKind
    at_ms: int
    """The first evidence of it."""
    speed_kbps: int
    before_bytes: int
    after_bytes: int
    """The new median; of a raised cap whose new value isn't known yet: what it is above."""
    speed_before_kbps: int


@dataclass(frozen=True, slots=True)
class LearnedCap:
    """One limit of a lot."""

    window: Window
    speed_kbps: int
    quota_bytes: int
    """The lower 5 % quantile: what is decided upon."""
    median_bytes: int
    low_bytes: int
    high_bytes: int
    """The interval that holds the median with 90 %."""
    upper_bytes: int
    """The upper 5 % quantile."""
    throttled: int
    unthrottled: int
    """Different SIMs that it rests on: slowed; seen fast in the window, whatever they had used."""
    since_ms: int
    """The first evidence that is not retired."""
    evidence: Observations = field(repr=False)
    posterior: Posterior = field(repr=False)


@dataclass(frozen=True, slots=True)
class Findings:
    """Of one lot. Caps by window and size."""

    caps: tuple[LearnedCap, ...]
    changes: tuple[Change, ...]


def find(observations: Observations) -> Findings:
    """What the observations of one lot say."""
    # SIMs may be known by index or by ICCID; here only which are the same matters.
    observations = replace(observations, sim=np.unique(observations.sim, return_inverse=True)[1])
    observations = observations.chosen(np.argsort(observations.at_ms, kind="stable"))
    caps: list[LearnedCap] = []
    changes: list[Change] = []
    for speed, events in _by_speed(observations):
        # In one window a speed has one cap: a second one could never be seen, for the SIM is that slow already.
        windows = list(WINDOWS)
        while windows:
            found = _best(observations, events, speed, windows)
            if found is None:
                break
            cap, changed, explained = found
            caps.append(cap)
            changes += changed
            windows.remove(cap.window)
            events = events.chosen(~np.isin(_event_keys(events), explained))
    merged, changes = _merge_speeds(caps, changes)
    return Findings(
        tuple(sorted(merged, key=lambda cap: (cap.window, cap.quota_bytes))),
        tuple(sorted(changes, key=lambda change: change.at_ms)),
    )


def _by_speed(observations: Observations) -> Iterator[tuple[int, Observations]]:
    """Events by the speed that they slow to: a known one where the level is near it, else levels that lie together."""
    events = observations.chosen(observations.upper_bytes > 0)
    level = np.log(np.maximum(events.goodput_kbps, 1))
    away = level[:, None] - np.log(STEPS_KBPS)
    nearest = np.argmin(np.abs(away), axis=1)
    known = np.abs(away).min(axis=1, initial=np.inf) <= STEP_WITHIN
    speed = np.where(known, np.asarray(STEPS_KBPS)[nearest], 0)
    rest = np.flatnonzero(~known)
    rest = rest[np.argsort(level[rest])]
    if len(rest):
        cluster = np.cumsum(np.diff(level[rest], prepend=level[rest[0]]) > LEVELS_APART)
        for number in range(int(cluster[-1]) + 1):
            members = rest[cluster == number]
            speed[members] = round(float(np.exp(np.median(level[members]))))
    for each in np.unique(speed):
        yield int(each), events.chosen(speed == each)


def _event_keys(events: Observations) -> Column:
    return np.asarray(events.sim * (1 << 32) + events.at_ms // 1000)


def _logs(observations: Observations) -> tuple[Column, Column]:
    upper = np.where(observations.upper_bytes > 0, observations.upper_bytes, 1)
    return (
        np.log(np.maximum(observations.lower_bytes, 1)),
        np.where(observations.upper_bytes > 0, np.log(upper), np.inf),
    )


def _best(
    observations: Observations, events: Observations, speed: int, windows: Sequence[Window]
) -> tuple[LearnedCap, list[Change], Column] | None:
    """The window and the cap that explain most of the events, what changed in it, and the events that it explains."""
    best: tuple[float, Window, Observations, Posterior, list[Change]] | None = None
    for window in windows:
        own = events.chosen(events.window == window)
        if len(np.unique(own.sim)) < SIMS_MIN:
            continue
        quiet = observations.chosen((observations.window == window) & (observations.upper_bytes == 0))
        evidence = _newest(own, quiet)
        # Where not too much was observed to have its beginning here, the first SIM slowed says since when a cap holds.
        not_before_ms = int(own.at_ms.min()) + APART_MS if len(own) <= OBSERVATIONS_MAX else 0
        current, estimate, changes, gain = _current(window, evidence, speed, not_before_ms)
        if gain >= GAIN_MIN and (best is None or gain > LONGER_GAIN * best[0]):
            best = (gain, window, current, estimate, changes)
    if best is None:
        return None
    _, window, evidence, estimate, changes = best
    lower, upper = _logs(evidence)
    slowed = np.isfinite(upper)
    median, spread = estimate.best
    agrees = slowed & (gains(lower, upper, np.array([median]), max(spread, 0.02))[:, 0] > 0)
    throttled = len(np.unique(evidence.sim[agrees]))
    if throttled < SIMS_MIN:
        return None
    own = events.chosen(events.window == window)
    lower, upper = _logs(own)
    # What a retired cap explained is explained too.
    medians = np.array([median, *(np.log(max(change.before_bytes, 1)) for change in changes)])
    explained = _event_keys(own)[(gains(lower, upper, medians, max(spread, 0.02)) > 0).any(axis=1)]
    cap = LearnedCap(
        window=window,
        speed_kbps=speed,
        quota_bytes=_bytes(estimate.quantile(0.05)),
        median_bytes=_bytes(estimate.quantile(0.5)),
        low_bytes=_bytes(estimate.median_quantile(0.05)),
        high_bytes=_bytes(estimate.median_quantile(0.95)),
        upper_bytes=_bytes(estimate.quantile(0.95)),
        throttled=throttled,
        unthrottled=len(np.unique(evidence.sim[~slowed])),
        since_ms=int(evidence.at_ms.min()),
        evidence=evidence,
        posterior=estimate,
    )
    return cap, changes, explained


def _newest(events: Observations, quiet: Observations) -> Observations:
    """Events and the quiet around them, in the order of time."""
    lots, sims, windows, at, lower, upper, speeds = (
        np.concatenate([getattr(events, name)[-OBSERVATIONS_MAX:], getattr(quiet, name)[-OBSERVATIONS_MAX:]])
        for name in Observations.__slots__
    )
    joined = Observations(lots, sims, windows, at, lower, upper, speeds)
    return joined.chosen(np.argsort(joined.at_ms, kind="stable"))


def _current(
    window: Window, evidence: Observations, speed: int, not_before_ms: int
) -> tuple[Observations, Posterior, list[Change], float]:
    """The evidence since the last change, the cap by it, the changes, and what cap and changes explain."""
    changes: list[Change] = []
    lower, upper = _logs(evidence)
    estimate = posterior(lower, upper)
    retired = 0.0
    while True:
        split = _split(lower, upper, evidence, estimate, not_before_ms)
        if split is None:
            return evidence, estimate, changes, retired + estimate.gain
        place, before, after, at_ms = split
        not_before_ms = at_ms + APART_MS
        raised = after > before
        changes.append(
            Change(
                window=window,
                kind=ChangeKind.RAISED if raised else ChangeKind.LOWERED,
                at_ms=at_ms,
                speed_kbps=speed,
                before_bytes=_bytes(before),
                after_bytes=_bytes(after),
                speed_before_kbps=speed,
            )
        )
        newer = evidence.chosen(np.arange(len(evidence)) >= place)
        lower_newer, upper_newer = _logs(newer)
        known = gains(lower_newer, upper_newer, np.array([after]), 0.03)[:, 0] > 0
        if len(np.unique(newer.sim[known & np.isfinite(upper_newer)])) < SIMS_MIN:
            # Too few were slowed since to know the new cap: the old one stays the one that is decided upon.
            return evidence, estimate, changes, retired + estimate.gain
        # A window in which the cap has to change again and again is not the one that the carrier counts in.
        retired += posterior(lower[:place], upper[:place]).gain - CHANGE_COST
        evidence, lower, upper = newer, lower_newer, upper_newer
        estimate = posterior(lower, upper)


def _split(
    lower: Column, upper: Column, evidence: Observations, estimate: Posterior, not_before_ms: int
) -> tuple[int, float, float, int] | None:
    """Where in time the evidence falls apart: the first observation after it, the median before, and after, and when
    the change showed first. One SIM alone may be astray (a report that came late): the second one dates it."""
    events = np.isfinite(upper)
    spread = max(estimate.best[1], 0.02)
    medians = candidates(lower, upper, COARSE_SPLIT)
    each = gains(lower, upper, medians, spread)
    total = np.cumsum(each, axis=0)
    before = total[:-1]
    after = total[-1] - before
    gain = before.max(axis=1, initial=0.0) + after.max(axis=1, initial=0.0) - float(total[-1].max())
    gain[(evidence.at_ms[1:] == evidence.at_ms[:-1]) | (evidence.at_ms[1:] < not_before_ms)] = -np.inf
    if not len(gain) or gain.max() < CHANGE_GAIN:
        return None
    place = int(gain.argmax())
    old_column, new_column = int(before[place].argmax()), int(after[place].argmax())
    old, new = float(medians[old_column]), float(medians[new_column])
    if abs(old - new) < SAME_CAP:
        return None
    newer = np.arange(len(evidence)) > place
    was = ~newer & events & (each[:, old_column] > 0)
    shows = newer & (events & (upper < old - SAME_CAP / 2) if new < old else lower > old + SAME_CAP / 2)
    # Both sides have to be shown by several SIMs; a few outliers are no cap that has changed.
    showing, first = np.unique(evidence.sim[shows], return_index=True)
    if min(len(np.unique(evidence.sim[was])), len(showing)) < CHANGE_SIMS_MIN:
        return None
    return place + 1, old, new, int(np.sort(evidence.at_ms[shows][first])[1])


def _merge_speeds(caps: list[LearnedCap], changes: list[Change]) -> tuple[list[LearnedCap], list[Change]]:
    """One cap that slowed to one speed, and from a day on to another, is one cap whose speed has changed."""
    kept: list[LearnedCap] = []
    for cap in sorted(caps, key=lambda cap: float(np.median(_agreeing_ms(cap))), reverse=True):
        newer = next((other for other in kept if _follows(other, cap)), None)
        if newer is None:
            kept.append(cap)
            continue
        at_ms = int(np.quantile(_agreeing_ms(newer), 0.1))
        # That SIMs were not slowed to the old speed any more is the same change.
        changes = [
            change
            for change in changes
            if change.window != cap.window or change.speed_kbps != cap.speed_kbps or change.at_ms < at_ms - DAY_MS
        ]
        changes.append(
            Change(
                window=cap.window,
                kind=ChangeKind.SPEED,
                at_ms=at_ms,
                speed_kbps=newer.speed_kbps,
                before_bytes=cap.median_bytes,
                after_bytes=newer.median_bytes,
                speed_before_kbps=cap.speed_kbps,
            )
        )
    return kept, changes


def _follows(newer: LearnedCap, older: LearnedCap) -> bool:
    """A stray event or two on the wrong side don't matter."""
    same = newer.window == older.window and abs(np.log(newer.median_bytes / older.median_bytes)) < SAME_CAP
    return bool(same and np.quantile(_agreeing_ms(older), 0.9) <= np.quantile(_agreeing_ms(newer), 0.1))


def _agreeing_ms(cap: LearnedCap) -> Column:
    """The instants of the events that the cap explains."""
    lower, upper = _logs(cap.evidence)
    agrees = gains(lower, upper, np.array([np.log(cap.median_bytes)]), 0.03)[:, 0] > 0
    return cap.evidence.at_ms[np.isfinite(upper) & agrees]


def _bytes(log: float) -> int:
    return round(float(np.exp(log)))

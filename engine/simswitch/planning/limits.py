"""The operating limit that would close the gap: how much each subscriber may use in the month.

Under a limit L a subscriber who has used u and is on the way to p uses min(p, L) - min(u, L) in the rest of the month.
The sum of that grows with L, so the largest L that keeps the month within the pool is found by bisection on both,
sorted: O(n log n) for the sorts and O(log n) for each try, at 10,000,000 subscribers too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simswitch.planning.forecast import Floats


@dataclass(frozen=True, slots=True)
class OperatingLimit:
    """The limit for each subscriber, and whom it would touch."""

    limit_bytes: int | None
    """For the whole month; None: no limit is needed. 0: no limit is enough."""
    touched: int
    """Subscribers that would reach it by the end of the month."""
    touched_already: int
    """Of these, those that have reached it already."""
    subscribers: int
    saved_bytes: float
    enough: bool
    """False: what is used already is more than the pool has."""


def operating_limit(used_bytes: Floats, rest_bytes: Floats, available_bytes: float) -> OperatingLimit:
    """The largest limit under which the rest of the month needs no more than ``available_bytes``.

    ``used_bytes``: what each subscriber has used this month. ``rest_bytes``: what each would use until its end.
    """
    if np.any(rest_bytes < 0):
        raise ValueError("nobody uses less than nothing in the rest of the month")
    used = np.sort(np.asarray(used_bytes, dtype=np.float64))
    projected = np.sort(np.asarray(used_bytes + rest_bytes, dtype=np.float64))
    whole = float(rest_bytes.sum())
    count = len(used)
    if whole <= available_bytes:
        return OperatingLimit(None, 0, 0, count, 0.0, True)
    sums_used, sums_projected = (np.concatenate(([0.0], np.cumsum(each))) for each in (used, projected))

    def within(values: Floats, sums: Floats, limit: float) -> float:
        """The sum of each up to a limit."""
        below = int(np.searchsorted(values, limit))
        return float(sums[below]) + limit * (count - below)

    def rest(limit: float) -> float:
        """What all use in the rest of the month under it."""
        return within(projected, sums_projected, limit) - within(used, sums_used, limit)

    low, high = 0.0, float(projected[-1])
    if available_bytes <= 0:
        high = 0.0
    for _ in range(80):
        middle = (low + high) / 2
        if rest(middle) <= available_bytes:
            low = middle
        else:
            high = middle
    touched = count - int(np.searchsorted(projected, low, side="right"))
    already = count - int(np.searchsorted(used, low, side="left"))
    return OperatingLimit(int(low), touched, already, count, whole - rest(low), available_bytes > 0)

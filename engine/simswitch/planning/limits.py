"""The operating limit that would close the gap: how much each subscriber may use in the month.

Under a limit L a subscriber who is on the way to u uses min(u, L), but never less than what is used already. The sum of
that grows with L, so the largest L that keeps the month within the pool is found by bisection on sorted figures:
O(n log n) for the sort and O(log n) for each try, at 10,000,000 subscribers too.
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


def operating_limit(used_bytes: Floats, rest_share: float, available_bytes: float) -> OperatingLimit:
    """The largest limit under which the rest of the month needs no more than ``available_bytes``.

    ``used_bytes``: what each subscriber has used this month. ``rest_share``: how much everybody's use until the end of
    the month is of what is used already; a subscriber's way of using is taken to go on.
    """
    if rest_share < 0:
        raise ValueError(f"the rest of the month is {rest_share:g} of the use so far; it can't be below 0")
    used = np.sort(np.asarray(used_bytes, dtype=np.float64))
    projected = used * (1 + rest_share)
    whole = float(projected.sum() - used.sum())
    count = len(used)
    if whole <= available_bytes:
        return OperatingLimit(None, 0, 0, count, 0.0, True)
    sums = np.concatenate(([0.0], np.cumsum(used)))

    def rest(limit: float) -> float:
        """What all use in the rest of the month under a limit."""
        free = int(np.searchsorted(projected, limit, side="right"))
        reached = int(np.searchsorted(used, limit, side="left"))
        # Those on the way to less, as they are; those in between, up to the limit; those at it already, nothing.
        between = max(0, reached - free)
        return float(rest_share * sums[free] + limit * between - (sums[free + between] - sums[free]))

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

"""How often a figure fell into which range: what a histogram is made of when somebody asks.

It has one writer, who pays a search in a handful of bounds and two additions; readers may come from any thread, and see
each count as it was at some instant.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Tally:
    """``bounds`` rise; a figure counts at the first that is not below it, or in the last place, which has no bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0
        """The sum of all figures."""

    def add(self, figure: int, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, figure)] += times
        self.total += figure * times

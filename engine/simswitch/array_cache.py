"""numpy's own memory, in processes that run for months: full from the start, so that whatever grows later is a leak."""

from __future__ import annotations

import numpy as np

_SIZES, _EACH = 1_024, 7
"""NBUCKETS and NCACHE of numpy's ``alloc.c``."""


def fill_array_cache() -> None:
    """Of each size under a KiB numpy keeps seven blocks that were freed, of all threads together: 3.7 MB at most.

    Sizes that come seldom would fill it over many hours, which nothing tells from a leak of a megabyte.
    """
    _ = [np.empty(size, np.uint8) for size in range(1, _SIZES) for _ in range(_EACH)]

"""Operating limits and purchases, against brute force."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simswitch.planning.limits import operating_limit
from simswitch.planning.purchase import Offer, advice, critical_share, sims_to_buy
from simswitch.planning.volume import CapInterval, DryDates


def rest_under(used: np.ndarray, rest_share: float, limit: float) -> float:
    """The definition: each uses on towards min(projected, limit), never less than already."""
    return float(np.maximum(np.minimum(used * (1 + rest_share), limit) - used, 0).sum())


@given(
    st.lists(st.integers(0, 10**12), min_size=1, max_size=50),
    st.just(0.0) | st.floats(0.001, 10),
    st.floats(0.01, 1.5),
)
def test_the_limit_is_the_largest_that_fits(counts: list[int], rest_share: float, available_share: float) -> None:
    used = np.array(counts, dtype=float)
    whole = float((used * rest_share).sum())
    available = whole * available_share
    found = operating_limit(used, rest_share, available)
    if found.limit_bytes is None:
        assert whole <= available
        return
    tolerance = whole * 1e-9 + len(used) * 2
    assert rest_under(used, rest_share, found.limit_bytes) <= available + tolerance
    assert rest_under(used, rest_share, found.limit_bytes * 1.001 + len(used) + 2) >= available - tolerance
    assert found.touched == int((used * (1 + rest_share) > found.limit_bytes).sum()) or found.touched >= 1
    assert found.saved_bytes == pytest.approx(whole - rest_under(used, rest_share, found.limit_bytes), abs=tolerance)


def test_a_few_heavy_users_make_the_gap_and_close_it() -> None:
    used = np.concatenate((np.full(990, 1e9), np.full(10, 100e9)))
    found = operating_limit(used, 1.0, 1.5e12)
    assert found.limit_bytes is not None
    assert found.touched == 10
    assert found.touched_already == 0
    # 990 GB for the light ones and 510 GB for the ten: each may use 151 GB.
    assert found.limit_bytes == pytest.approx(151e9, rel=1e-6)


def test_no_limit_is_needed_where_it_is_enough() -> None:
    assert operating_limit(np.array([1e9, 2e9]), 1.0, 3e9).limit_bytes is None


def test_nothing_left_is_said() -> None:
    found = operating_limit(np.array([1e9, 2e9]), 1.0, 0.0)
    assert not found.enough
    assert found.touched == 2


@given(st.floats(0.1, 100), st.floats(0.1, 100), st.integers(0, 2**32))
def test_the_newsvendor_orders_what_costs_least(missing: float, spare: float, seed: int) -> None:
    needed = np.random.default_rng(seed).integers(0, 60, 500).astype(float)
    bought = sims_to_buy(needed * 10, CapInterval.exactly(10), critical_share(missing, spare))

    def cost(sims: int) -> float:
        return float((missing * np.maximum(needed - sims, 0) + spare * np.maximum(sims - needed, 0)).mean())

    assert cost(bought) <= min(cost(sims) for sims in range(61)) * 1.02 + 1e-9


def test_an_order_that_comes_too_late_says_by_how_much() -> None:
    today = date(2026, 11, 2)
    dry = DryDates(today, 20, np.full(100, 5), np.full(100, 95.0), np.zeros((100, 20)))
    offer = Offer("more", CapInterval.exactly(10), price=1.0, lead_days=7, sims_max=4)
    found = advice(dry, offer, missing_cost=9.0, today=today)
    assert found["sims_wanted"] == 10
    assert found["sims"] == 4
    assert found["order_by"] == (today - timedelta(days=2)).isoformat()
    assert found["days_too_late"] == 2


def test_costs_are_above_nothing() -> None:
    with pytest.raises(ValueError, match="above 0"):
        critical_share(0, 1)

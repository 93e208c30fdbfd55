"""Operating limits and purchases, against brute force; whole plans where only people know something."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simswitch.planning.forecast import Past
from simswitch.planning.limits import operating_limit
from simswitch.planning.plan import Situation, outlook, plan
from simswitch.planning.purchase import Offer, advice, critical_share, sims_needed, sims_to_buy
from simswitch.planning.terms import Terms
from simswitch.planning.volume import CapInterval, DryDates, LotState, Supply


def rest_under(used: np.ndarray, rest: np.ndarray, limit: float) -> float:
    """The definition: each uses on towards min(projected, limit), never less than already."""
    return float(np.maximum(np.minimum(used + rest, limit) - used, 0).sum())


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), min_size=1, max_size=50),
    st.floats(0.01, 1.5),
)
def test_the_limit_is_the_largest_that_fits(counts: list[tuple[int, int]], available_share: float) -> None:
    used, to_come = np.array(counts, dtype=float).T
    whole = float(to_come.sum())
    available = whole * available_share
    found = operating_limit(used, to_come, available)
    if found.limit_bytes is None:
        assert whole <= available
        return
    tolerance = (whole + used.sum()) * 1e-9 + len(used) * 2
    assert rest_under(used, to_come, found.limit_bytes) <= available + tolerance
    assert rest_under(used, to_come, found.limit_bytes * 1.001 + len(used) + 2) >= available - tolerance
    # It is cut to whole bytes, so who ends within one is on either side.
    projected = used + to_come
    assert (projected > found.limit_bytes + 1).sum() <= found.touched <= (projected >= found.limit_bytes).sum()
    assert found.touched_already <= (used >= found.limit_bytes).sum()
    assert found.saved_bytes == pytest.approx(whole - rest_under(used, to_come, found.limit_bytes), abs=tolerance)


def test_a_few_heavy_users_make_the_gap_and_close_it() -> None:
    used = np.concatenate((np.full(990, 1e9), np.full(10, 100e9)))
    found = operating_limit(used, used, 1.5e12)
    assert found.limit_bytes is not None
    assert found.touched == 10
    assert found.touched_already == 0
    # 990 GB for the light ones and 510 GB for the ten: each may use 151 GB.
    assert found.limit_bytes == pytest.approx(151e9, rel=1e-6)


def test_no_limit_is_needed_where_it_is_enough() -> None:
    assert operating_limit(np.array([1e9, 2e9]), np.array([1e9, 2e9]), 3e9).limit_bytes is None


def test_on_the_first_of_a_month_habits_say_who_is_heavy() -> None:
    found = operating_limit(np.zeros(3), np.array([1e9, 2e9, 60e9]), 13e9)
    assert found.limit_bytes == pytest.approx(10e9)
    assert (found.touched, found.touched_already) == (1, 0)


def test_nothing_left_is_said() -> None:
    found = operating_limit(np.array([1e9, 2e9]), np.array([1e9, 2e9]), 0.0)
    assert not found.enough
    assert found.touched == 2


@given(st.floats(0.1, 100), st.floats(0.1, 100), st.integers(0, 2**32))
def test_the_newsvendor_orders_what_costs_least(missing: float, price: float, seed: int) -> None:
    needed = np.random.default_rng(seed).integers(0, 60, 500).astype(float)
    bought = sims_to_buy(needed, critical_share(missing, price))

    def cost(sims: int) -> float:
        """What is bought is paid for, needed or not; what is missing costs what its failures cost."""
        return float(price * sims + missing * np.maximum(needed - sims, 0).mean())

    assert cost(bought) <= min(cost(sims) for sims in range(61)) * (1 + 1e-9)


def test_it_is_the_worst_month_that_counts_and_not_their_sum() -> None:
    short = np.zeros((3, 70))
    short[:, 4] = 1_000.0
    short[:, 20], short[:, 30], short[:, 60] = 30.0, 25.0, 40.0
    dry = DryDates(date(2026, 11, 2), 70, np.full(3, 4), short, np.zeros((3, 70)))
    # Who is there on 12 November helps nobody on the 6th; then 55 are missing in the first month and 40 in the second.
    assert sims_needed(dry, CapInterval.exactly(10), date(2026, 11, 12)).tolist() == [6, 6, 6]
    assert sims_needed(dry, CapInterval.exactly(10), date(2026, 11, 25)).tolist() == [4, 4, 4]
    assert sims_needed(dry, CapInterval.exactly(10), date(2027, 5, 1)).tolist() == [0, 0, 0]


def test_an_order_that_comes_too_late_says_by_how_much() -> None:
    today = date(2026, 11, 2)
    short = np.zeros((100, 20))
    short[:, 5], short[:, 10] = 40.0, 95.0
    dry = DryDates(today, 20, np.full(100, 5), short, np.zeros((100, 20)))
    offer = Offer("more", CapInterval.exactly(10), price=1.0, lead_days=7, sims_max=4)
    found = advice(dry, offer, missing_cost=9.0, today=today)
    assert found["sims_wanted"] == 10
    assert found["sims"] == 4
    assert found["order_by"] == (today - timedelta(days=2)).isoformat()
    assert found["days_too_late"] == 2
    assert found["short_before_p50_bytes"] == 40.0


@pytest.fixture(scope="module")
def situation() -> Situation:
    """Five SIMs of 10 GB, of which 1 GB a day is used by ten who come and go no more."""
    past = Past(date(2026, 10, 1), np.full(32, 1e9), np.full(32, 10.0))
    pool = LotState("lot", CapInterval.exactly(10e9), np.zeros(5))
    return Situation(past, (pool,), {"lot": 1.0}, np.zeros(0), np.zeros(0), 10, 5, None)


def test_a_supply_that_should_be_here_is_not_counted_besides(situation: Situation) -> None:
    terms = Terms(
        horizon_days=20,
        supplies=tuple(
            Supply(name, day, 9, CapInterval.exactly(10e9))
            for name, day in (("late", date(2026, 11, 1)), ("lot", date(2026, 11, 9)), ("soon", date(2026, 11, 9)))
        ),
    )
    assert [supply.name for supply in outlook(situation, terms, seed=1).supplies] == ["soon"]
    assert plan(situation, terms, seed=1).document["volume"]["supplies_not_counted"] == ["late", "lot"]


def test_who_is_taken_no_more_may_still_leave(situation: Situation) -> None:
    falling = replace(situation, past=replace(situation.past, subscribers=np.arange(41.0, 9.0, -1.0)))
    found = plan(falling, Terms(horizon_days=20), seed=1).document
    assert found["no_new_sales"]["short_p50_bytes"] == found["volume"]["short_p50_bytes"]


def test_costs_are_above_nothing() -> None:
    with pytest.raises(ValueError, match="above 0"):
        critical_share(0, 1)
    # What costs more than its failures is not bought.
    assert sims_to_buy(np.full(10, 5.0), critical_share(1_000, 2_800)) == 0

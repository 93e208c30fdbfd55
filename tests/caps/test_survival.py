"""The estimates against SciPy's own fit of censored data, against each other, and against what made the data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from simswitch.caps.survival import posterior, turnbull

from tests.caps.carrier import Array

CAP = float(np.log(3e9))


def drawn(random: np.random.Generator, throttled: int, quiet: int, noise: float = 0.02) -> tuple[Array, Array]:
    """Thresholds with noise, looked at now and then; and SIMs that used less."""
    threshold = CAP + random.normal(0, noise, throttled)
    lower = threshold + np.log(1 - random.uniform(0, 0.08, throttled))
    upper = threshold + np.log(1 + random.uniform(0, 0.05, throttled))
    used = CAP + np.log(random.uniform(0.05, 0.95, quiet))
    return np.concatenate([lower, used]), np.concatenate([upper, np.full(quiet, np.inf)])


@pytest.mark.parametrize("throttled", [5, 15, 50])
def test_a_cap_is_found_and_its_lower_quantile_lies_below_it(throttled: int) -> None:
    below, errors = 0, []
    for seed in range(40):
        lower, upper = drawn(np.random.default_rng(seed), throttled, 4 * throttled)
        found = posterior(lower, upper)
        errors.append(abs(found.quantile(0.5) - CAP))
        below += found.quantile(0.05) < CAP
        assert found.quantile(0.05) > CAP - 0.13
        assert found.median_quantile(0.05) < found.median_quantile(0.95)
    assert np.median(errors) < 0.02
    assert below == 40


def test_it_agrees_with_a_maximum_of_the_likelihood() -> None:
    lower, upper = drawn(np.random.default_rng(3), 60, 100)
    events = np.isfinite(upper)
    data = stats.CensoredData(interval=np.column_stack([lower[events], upper[events]]), right=lower[~events])
    median, spread = stats.norm.fit(data)
    found = posterior(lower, upper)
    assert found.quantile(0.5) == pytest.approx(median, abs=0.005)
    assert found.best[1] == pytest.approx(spread, abs=0.012)


def test_what_is_of_other_making_does_not_move_it() -> None:
    random = np.random.default_rng(4)
    lower, upper = drawn(random, 20, 60)
    strays = CAP + np.log(random.uniform(0.1, 0.8, 6))
    over = np.full(3, CAP + 0.3)
    found = posterior(np.concatenate([lower, strays, over]), np.concatenate([upper, strays + 0.03, np.full(3, np.inf)]))
    assert found.quantile(0.5) == pytest.approx(posterior(lower, upper).quantile(0.5), abs=0.01)


def test_without_a_throttled_sim_there_is_no_estimate() -> None:
    with pytest.raises(ValueError, match="not slowed"):
        posterior(np.array([1.0]), np.array([np.inf]))


def test_turnbull_of_exact_and_right_censored_data_is_kaplan_and_meiers() -> None:
    random = np.random.default_rng(8)
    at = np.sort(random.normal(0, 1, 40))
    censored = random.random(40) < 0.4
    right, survival = turnbull(at - np.where(censored, 0.0, 1e-9), np.where(censored, np.inf, at))
    expected = stats.ecdf(stats.CensoredData(uncensored=at[~censored], right=at[censored])).sf
    for x, share in zip(right, survival, strict=True):
        if np.isfinite(x):
            assert share == pytest.approx(float(expected.evaluate(x)), abs=1e-4)


def test_turnbull_follows_what_made_the_data() -> None:
    lower, upper = drawn(np.random.default_rng(9), 80, 200)
    right, survival = turnbull(lower, upper)
    assert (np.diff(survival) <= 1e-12).all()
    found = posterior(lower, upper)
    median = right[np.searchsorted(-survival, -0.5)]
    assert median == pytest.approx(found.quantile(0.5), abs=0.03)

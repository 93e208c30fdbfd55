"""The measurement of fit in short form."""

from __future__ import annotations

from statistics import median

from tests.twin.fit import EXPECTED_BYTES, Figures, measure


def test_an_expected_use_that_is_far_too_low_costs_no_swaps() -> None:
    """With the tightest SIMs it costs a quarter more: they are the first to be spent."""
    seeds = (1, 2, 3)
    found: dict[str, list[Figures]] = {
        asked: [measure(asked, 1_000, 5, seed, sims_per_terminal=0.6) for seed in seeds] for asked in EXPECTED_BYTES
    }
    assert all(figures.refused + figures.refused_large == 0 for kind in found.values() for figures in kind), found
    swaps = {asked: median(figures.swaps_per_terminal_day for figures in kind) for asked, kind in found.items()}
    assert 0 < swaps["floor"] <= 1.05 * min(swaps.values()), found


def test_where_sims_are_scarce_large_requests_go_without_first() -> None:
    found = measure("quantile", 1_000, 5, 1, sims_per_terminal=0.4)
    assert found.refused_large > found.refused > 0, found


def test_the_same_seed_gives_the_same_figures() -> None:
    assert measure("quantile", 200, 3, 7) == measure("quantile", 200, 3, 7)

"""The measurement of tight and roomy fit in short form."""

from __future__ import annotations

from statistics import median

from tests.twin.fit import EXPECTED_BYTES, Figures, measure


def test_fit_in_the_order_that_was_measured_where_there_are_sims_enough() -> None:
    seeds = (1, 2, 3)
    found: dict[str, list[Figures]] = {
        fit: [measure(fit, 1_000, 5, seed, sims_per_terminal=0.6) for seed in seeds] for fit in EXPECTED_BYTES
    }
    assert all(figures.refused + figures.refused_large == 0 for kind in found.values() for figures in kind), found
    swaps = {fit: median(figures.swaps_per_terminal_day for figures in kind) for fit, kind in found.items()}
    stranded = {fit: median(figures.stranded_bytes_per_sim_day for figures in kind) for fit, kind in found.items()}
    assert 0 < swaps["roomy"] < swaps["tight"] < swaps["floor"], found
    assert max(stranded["roomy"], stranded["tight"]) < stranded["floor"], found


def test_tight_fit_refuses_large_requests_where_sims_are_scarce() -> None:
    found = {fit: measure(fit, 1_000, 5, 1, sims_per_terminal=0.4) for fit in ("tight", "roomy")}
    assert found["tight"].refused_large > found["roomy"].refused_large > 0, found


def test_the_same_seed_gives_the_same_figures() -> None:
    assert measure("tight", 200, 3, 7) == measure("tight", 200, 3, 7)

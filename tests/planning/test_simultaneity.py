"""Erlang's and Engset's formulas against published figures, and against their definitions in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import comb, factorial

import pytest
from simswitch.planning.simultaneity import (
    Peak,
    blocking,
    engset_call_congestion,
    engset_time_congestion,
    erlang_b,
    sims_needed,
)

# Offered traffic at which one attempt in a hundred is blocked, by servers: the 1 % column of the usual Erlang B tables.
ERLANG_TABLE = ((1, 0.010101), (2, 0.15259), (5, 1.3608), (10, 4.4612), (20, 12.031), (50, 37.901), (100, 84.064))


def exact_erlang(servers: int, offered: Fraction) -> Fraction:
    terms = [offered**n / factorial(n) for n in range(servers + 1)]
    return terms[-1] / sum(terms)


def exact_engset(sources: int, servers: int, activity: Fraction) -> Fraction:
    ratio = activity / (1 - activity)
    terms = [comb(sources, n) * ratio**n for n in range(servers + 1)]
    return terms[-1] / sum(terms)


@pytest.mark.parametrize(("servers", "offered"), ERLANG_TABLE)
def test_erlang_b_agrees_with_the_table(servers: int, offered: float) -> None:
    # The table rounds the traffic to five digits; next to it the blocking is on either side of 1 %.
    step = offered * 5e-5
    assert erlang_b(servers, offered - step) < 0.01 < erlang_b(servers, offered + step)


@pytest.mark.parametrize(
    ("servers", "offered"),
    [(1, Fraction(1, 2)), (6, Fraction(2)), (30, Fraction(25)), (100, Fraction(80)), (250, Fraction(300))],
)
def test_erlang_b_is_its_definition(servers: int, offered: Fraction) -> None:
    assert erlang_b(servers, float(offered)) == pytest.approx(float(exact_erlang(servers, offered)), rel=1e-9)


def test_engset_agrees_with_the_textbook() -> None:
    # Four sources of offered traffic 1/3 each while idle at three servers: Iversen's example gives 4/85 of the time and
    # 1/64 of the attempts.
    assert engset_time_congestion(4, 3, 0.25) == pytest.approx(4 / 85, rel=1e-9)
    assert engset_call_congestion(4, 3, 0.25) == pytest.approx(1 / 64, rel=1e-9)


@pytest.mark.parametrize(
    ("sources", "servers", "activity"),
    [(10, 3, Fraction(1, 5)), (100, 25, Fraction(1, 5)), (1000, 230, Fraction(1, 5)), (50, 50, Fraction(1, 2))],
)
def test_engset_is_its_definition(sources: int, servers: int, activity: Fraction) -> None:
    exact = float(exact_engset(sources, servers, activity))
    assert engset_time_congestion(sources, servers, float(activity)) == pytest.approx(exact, rel=1e-9)


# Far more is wanted than there is, as when a pool has run dry: the distribution function is no number any more.
OVERLOAD = ((10_000, 1_000, 0.5), (120_000, 30_000, 0.3), (120_000, 35_500, 0.3), (1_000_000, 100_000, 0.9))


@pytest.mark.parametrize(("sources", "servers", "activity"), OVERLOAD)
def test_engset_is_its_recurrence_where_far_more_is_wanted(sources: int, servers: int, activity: float) -> None:
    ratio, inverse = activity / (1 - activity), 1.0
    for number in range(1, servers + 1):
        inverse = 1 + inverse * number / ((sources - number + 1) * ratio)
    assert engset_time_congestion(sources, servers, activity) == pytest.approx(1 / inverse, rel=1e-8)


@pytest.mark.parametrize(("servers", "offered"), [(100, 2_000.0), (1_000, 3_000.0), (30_000, 36_000.0), (50, 50.0)])
def test_erlang_b_is_its_recurrence_where_far_more_is_wanted(servers: int, offered: float) -> None:
    inverse = 1.0
    for number in range(1, servers + 1):
        inverse = 1 + inverse * number / offered
    assert erlang_b(servers, offered) == pytest.approx(1 / inverse, rel=1e-8)


def test_both_ways_of_working_it_out_meet() -> None:
    # One terminal more or less is on the other side of the step between them.
    found = [engset_time_congestion(1_000, servers, 0.2) for servers in range(190, 211)]
    steps = [before - after for before, after in pairwise(found)]
    assert all(0 < after < before for before, after in pairwise(steps))


def test_who_is_always_active_finds_what_there_is() -> None:
    assert engset_time_congestion(10, 3, 1.0) == 1
    assert blocking(100, 60, Peak(1.0)) == 1
    assert blocking(100, 100, Peak(1.0)) == 0
    assert sims_needed(100, Peak.observed([1.0, 1.0, 1.0]), 0.001) == 100
    assert erlang_b(0, 5.0) == engset_time_congestion(5, 0, 0.5) == 1


def test_engset_tends_to_erlang() -> None:
    sources, servers, offered = 10_000_000, 30, 25.0
    assert engset_time_congestion(sources, servers, offered / sources) == pytest.approx(
        erlang_b(servers, offered), rel=1e-4
    )


def test_as_many_servers_as_sources_block_nobody() -> None:
    assert engset_call_congestion(20, 20, 0.9) == 0
    assert engset_time_congestion(20, 21, 0.9) == 0


def test_sims_needed_is_the_least_that_is_enough() -> None:
    peak = Peak(0.3, 0.02)
    needed = sims_needed(20_000, peak, 0.001)
    assert blocking(20_000, needed, peak) <= 0.001 < blocking(20_000, needed - 1, peak)


def test_a_shared_peak_needs_more_sims_than_independent_terminals() -> None:
    assert sims_needed(20_000, Peak(0.3, 0.03), 0.001) > 1.1 * sims_needed(20_000, Peak(0.3), 0.001)


def test_ten_million_terminals_are_no_trouble() -> None:
    needed = sims_needed(10_000_000, Peak(0.35, 0.01), 0.001)
    assert 3_500_000 < needed < 4_000_000


def test_a_peak_is_what_was_observed() -> None:
    peak = Peak.observed([0.2, 0.3, 0.4])
    assert peak.mean == pytest.approx(0.3)
    assert peak.deviation == pytest.approx(0.1)
    assert peak.activities().mean() == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize("activity", [-0.1, 1.1])
def test_an_activity_is_a_share(activity: float) -> None:
    with pytest.raises(ValueError, match=r"activity is .*; it must be from 0 to 1"):
        engset_time_congestion(10, 3, activity)

"""No allocation suffers from a job, and the job is as fast as the best fixed batch: on slow and fast access servers."""

from __future__ import annotations

import pytest

from tests.twin.controller import OUTSTANDING_MAX, Case

CASES = [
    Case(5.0, 0.3, 1_000),
    Case(5.0, 0.8, 400),
    Case(20.0, 0.6, 2_000),
    Case(50.0, 0.9, 2_000),
    Case(1_000.0, 0.6, 4_000),
    Case(5.0, 0.8, 4_000, change=10.0),
    Case(20.0, 0.45, 2_000, change=10.0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_job_costs_no_allocation_and_goes_on(case: Case) -> None:
    alone, found = case.figures("engine", switch=False), case.figures("engine")
    assert found["allocations_requested"] >= alone["allocations_requested"] > 0
    assert found["allocations_failed"] == alone["allocations_failed"] == 0
    assert found["allocation_wait_p99_s"] <= case.limit_s(alone)
    assert found["swaps_in_flight_max"] <= OUTSTANDING_MAX
    # All of them: the time that the case gives is one and a half times what the free capacity needs.
    assert found["swaps_finished_s"]
    assert found["swaps_completed"] >= case.terminals // 3


@pytest.mark.parametrize(("speed", "load"), [(10.0, 0.6), (100.0, 0.6)])
def test_a_job_is_as_fast_as_the_best_fixed_batch(speed: float, load: float) -> None:
    """The issue asks for 1.3 times it, with 5,000 swaps or more."""
    case = Case(speed, load, 10_000)
    best_s = min(found["swaps_finished_s"] for _, _, found in case.fixed())
    assert case.figures("engine")["swaps_finished_s"] <= 1.3 * best_s

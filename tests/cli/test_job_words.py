"""What `simswitch swap` says of a job, where a plain reading of its figures would mislead."""

from __future__ import annotations

import time
from typing import Any

from simswitch.cli.status import over_by_text
from simswitch.cli.swap import check_lines, why_given_up

HOUR_MS = 3_600_000


def job(**more: Any) -> dict[str, Any]:
    """One that was just checked: all of its terminals go without."""
    found = {
        "terminals_count": 0,
        "targets_count": 0,
        "headroom_needed_bytes": 0,
        "headroom_found_bytes": 0,
        "without": [{"why": "swap", "count": 6, "terminals": [101]}],
    }
    found |= more.pop("feasibility", {})
    now_ms = int(time.time() * 1000)
    figures = {"number": 3, "why": "", "deadline_ms": None, "finished_ms": None, "confirmed_count": 0}
    return {"state": "running", "expected_finish_ms": now_ms + HOUR_MS, **figures, **more, "feasibility": found}


def test_a_job_that_moves_nobody_has_no_end_in_sight() -> None:
    nobody = job()
    assert "over by     not known: nobody can be moved now" in check_lines(nobody)
    assert over_by_text(nobody) == ""
    some = job(feasibility={"terminals_count": 6, "targets_count": 1})
    assert any(line.startswith("over by") and line.endswith("today's windows") for line in check_lines(some))
    assert over_by_text(some) != ""


def test_an_estimate_that_has_passed_is_none() -> None:
    assert over_by_text(job(feasibility={"targets_count": 1}, expected_finish_ms=1)) == ""


def test_a_job_says_what_it_waits_for() -> None:
    assert check_lines(job(state="done"))[-1] == "job 3 is over: there was nobody to move."
    assert "goes on by itself" in check_lines(job(state="paused", why="quiet"))[-1]
    assert "`simswitch swap resume 3`" in check_lines(job(state="paused", why="targets"))[-1]


def test_why_a_swap_was_given_up_names_the_sim_that_was_refused() -> None:
    assert why_given_up({"last_result": "refused", "last_target": "8981"}) == "refused, last for SIM 8981"
    assert why_given_up({"last_result": "refused", "last_target": ""}) == "refused"

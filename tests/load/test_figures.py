"""What is made of records: percentiles, the verdict, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from simswitch.core import layout
from simswitch.load.figures import Figures
from simswitch.load.plan import Operation, Plan
from simswitch.load.records import NOT_SENT, RECORD, WORDS_FROM, Recorder

MakePlan = Callable[..., Plan]
MS = 1_000_000


def figures_of(plan: Plan, lines: Sequence[tuple[int, int]], words: dict[int, str] | None = None) -> Figures:
    """One renewal each 10 ms from the end of the warm-up on, with these outcomes and latencies in ms."""
    recorder = Recorder()
    for number, (outcome, latency_ms) in enumerate(lines):
        recorder.one(Operation.RENEW, outcome, round(plan.warm_up_s * 1e9) + number * 10 * MS, 0, latency_ms * MS)
    figures = Figures(plan)
    figures.add(np.frombuffer(recorder.take(), RECORD), words or {})
    return figures


def test_what_was_due_in_the_warm_up_is_not_measured(plan: MakePlan) -> None:
    recorder = Recorder()
    recorder.one(Operation.RENEW, layout.OK, 10 * MS, 0, MS)
    recorder.one(Operation.RENEW, layout.OK, 250 * MS, 0, 5 * MS)
    figures = Figures(plan())
    figures.add(np.frombuffer(recorder.take(), RECORD), {})
    assert figures.planned.total() == 1
    assert figures.document([], [])["latency_ms"]["max"] == pytest.approx(5, rel=0.001)


def test_a_quick_refusal_does_not_make_a_load_look_fast(plan: MakePlan) -> None:
    lines = [(layout.OK, 8)] * 50 + [(layout.NO_HEALTHY_SIM, 1)] * 50
    found = figures_of(plan(), lines).document([0.1], [0.1])
    assert found["latency_ms"]["p50"] == pytest.approx(8, rel=0.001)
    assert found["operations"]["renew"]["refused"] == {"NO_HEALTHY_SIM": 50}
    assert (found["rate"]["held"], found["rate"]["cause"]) == (False, "refused")
    assert "NO_HEALTHY_SIM 50" in found["rate"]["text"]


def test_what_was_never_answered_counts_with_the_time_that_it_waited(plan: MakePlan) -> None:
    words = {WORDS_FROM: "DEADLINE_EXCEEDED", WORDS_FROM + 1: "UNAVAILABLE"}
    lines = [(layout.OK, 1)] * 60 + [(WORDS_FROM, 10_000)] * 20 + [(NOT_SENT, 700)] * 19 + [(WORDS_FROM + 1, 1)]
    found = figures_of(plan(), lines, words).document([0.1], [0.1])
    assert found["latency_ms"]["p50"] == pytest.approx(1, rel=0.001)
    assert found["latency_ms"]["p90"] == pytest.approx(10_000, rel=0.001)
    assert found["operations"]["renew"]["refused"] == {"DEADLINE_EXCEEDED": 20, "NOT_SENT": 19, "UNAVAILABLE": 1}


@pytest.mark.parametrize(
    ("lines", "busy", "held", "cause"),
    [
        ([(layout.OK, 1)] * 99, 0.99, True, ""),
        ([(layout.OK, 1)] * 40 + [(NOT_SENT, 600)] * 60, 0.95, False, "client"),
        ([(layout.OK, 1)] * 40 + [(NOT_SENT, 600)] * 60, 0.30, False, "service"),
        ([(layout.OK, 900)] * 100, 0.30, False, "service"),
        ([(layout.OK, 60)] * 100, 0.30, True, ""),
        ([], 0.0, False, "nothing due"),
    ],
)
def test_the_verdict_names_who_was_the_limit(
    plan: MakePlan, lines: list[tuple[int, int]], busy: float, held: bool, cause: str
) -> None:
    found = figures_of(plan(), lines).document([0.2, busy], [0.2, busy])["rate"]
    assert (found["held"], found["cause"]) == (held, cause)


def test_reasons_past_the_last_number_share_it() -> None:
    recorder = Recorder()
    numbers = [recorder.number(f"REASON_{index}") for index in range(200)]
    assert len(set(numbers)) == 128
    assert max(numbers) == 255
    assert recorder.number("REASON_3") == numbers[3]

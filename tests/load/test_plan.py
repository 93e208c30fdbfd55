"""The plan: the same from the same seed, in its steady state from the beginning, and sound for each terminal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from simswitch.load.plan import SECOND_NS, Operation, Plan, Schedule

MakePlan = Callable[..., Plan]
Line = tuple[int, int, int]


def listed(plan: Plan, window_ns: int) -> list[Line]:
    """Instant, terminal and kind of every operation of the load, over all access servers."""
    lines: list[Line] = []
    for server in range(plan.access_servers):
        schedule = Schedule(plan, server)
        for end_ns in range(window_ns, plan.span_ns + window_ns, window_ns):
            at_ns, positions, kinds = schedule.until(min(end_ns, plan.span_ns))
            lines += zip(at_ns.tolist(), schedule.terminals[positions].tolist(), kinds.tolist(), strict=True)
    return lines


def test_the_same_seed_gives_the_same_plan_however_it_is_cut_and_shared(plan: MakePlan) -> None:
    whole = listed(plan(access_servers=1), 10**12)
    assert whole == sorted(whole, key=lambda line: line[0])
    assert listed(plan(access_servers=1), 7_000_000) == whole
    assert sorted(listed(plan(access_servers=3), 20_000_000)) == sorted(whole)
    assert listed(plan(access_servers=1, seed=8), 10**12) != whole


@pytest.mark.parametrize(
    "changes", [{}, {"renew_s": 0.0}, {"usage_s": 3.0, "dwell_s": 5.0}, {"renew_s": 0.0, "usage_s": 0.0}]
)
def test_the_rate_and_the_mix_are_those_of_the_times(plan: MakePlan, changes: dict[str, float]) -> None:
    told = plan(terminals=5_000, rate=20_000.0, duration_s=3.0, warm_up_s=0.0, **changes)
    lines = listed(told, SECOND_NS)
    kinds = np.bincount([kind for _, _, kind in lines], minlength=len(Operation))
    due = told.rate * 3.0
    assert len(lines) == pytest.approx(due, rel=0.03)
    share = told.dwell_s / (2 + sum(told.dwell_s / every for every in (told.renew_s, told.usage_s) if every))
    for kind, expected in (
        (Operation.ATTACH, share / told.dwell_s),
        (Operation.LEAVE, share / told.dwell_s),
        (Operation.RENEW, share / told.renew_s if told.renew_s else 0.0),
        (Operation.USAGE, share / told.usage_s if told.usage_s else 0.0),
    ):
        assert kinds[kind] / len(lines) == pytest.approx(expected, rel=0.1), kind
    # In its steady state at once: the first tenth has a tenth of the operations.
    first = sum(at_ns < told.span_ns // 10 for at_ns, _, _ in lines)
    assert first == pytest.approx(len(lines) / 10, rel=0.1)


def test_a_terminal_renews_and_reports_only_between_attach_and_leave(plan: MakePlan) -> None:
    told = plan(access_servers=1, dwell_s=3.0, away_s=1.0, renew_s=1.0, usage_s=1.0, rate=4_000.0)
    connected = Schedule(told, 0).connected.copy()
    assert 0 < connected.sum() < len(connected)
    for _, terminal, kind in listed(told, 50_000_000):
        assert connected[terminal] == (kind != Operation.ATTACH)
        if kind in (Operation.ATTACH, Operation.LEAVE):
            connected[terminal] = kind == Operation.ATTACH

"""Windows, caps, speeds and changes from observations made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from simswitch.caps.evidence import Observations, Window, gathered, highest, of_throttled, of_unthrottled
from simswitch.caps.throttle import Decisions, Unslowed
from simswitch.caps.tiers import ChangeKind, find

from tests.caps.carrier import BEGIN_MS, DAY_MS, Array


def seen(
    random: np.random.Generator,
    day: int,
    gigabytes: float,
    kbps: float,
    sims: int = 12,
    quiet: int = 30,
    first: int = 0,
) -> Observations:
    """A day of a lot with a daily cap: events in the windows of day and cycle, and quiet SIMs below the cap."""
    at = BEGIN_MS + day * DAY_MS + np.sort(random.integers(8, 23, sims)) * 3_600_000
    threshold = gigabytes * 1e9 * random.lognormal(0, 0.02, sims)
    earlier = random.uniform(0, 40e9, sims)
    parts = []
    for window, before in ((Window.DAY, np.zeros(sims)), (Window.CYCLE, earlier)):
        parts.append(
            observations(
                window, first + np.arange(sims), at, before + threshold * 0.96, before + threshold * 1.03, kbps
            )
        )
        used = random.uniform(0.3, 0.95, quiet) * gigabytes * 1e9 + (0 if window == Window.DAY else 25e9)
        parts.append(
            observations(window, 1000 + first + np.arange(quiet), np.full(quiet, at[-1]), used, np.zeros(quiet), 0)
        )
    return gathered(parts)


def observations(window: Window, sim: Array, at_ms: Array, lower: Array, upper: Array, kbps: float) -> Observations:
    count = len(sim)
    return Observations(
        lot=np.zeros(count, np.int64),
        sim=sim,
        window=np.full(count, int(window)),
        at_ms=np.asarray(at_ms, np.int64),
        lower_bytes=lower.astype(np.int64),
        upper_bytes=upper.astype(np.int64),
        goodput_kbps=np.full(count, round(kbps)),
    )


def test_the_window_in_which_the_events_agree_is_the_carriers() -> None:
    random = np.random.default_rng(1)
    found = find(gathered([seen(random, day, 3.0, 950) for day in range(3)]))
    assert [(cap.window, cap.speed_kbps, cap.throttled) for cap in found.caps] == [(Window.DAY, 1_000, 12)]
    assert found.caps[0].median_bytes == pytest.approx(3e9, rel=0.03)
    assert found.caps[0].quota_bytes < found.caps[0].low_bytes < found.caps[0].high_bytes
    assert not found.changes


def test_on_the_first_day_of_a_cycle_a_cap_is_held_for_the_days() -> None:
    """Both windows have seen the same use, and of two SIMs only the cycle's is known. A cap of the cycle would keep all
    SIMs back until it is over, and so the evidence against it."""
    random = np.random.default_rng(6)
    sims, lower = np.arange(20), random.normal(1.95e9, 2e7, 20)
    at_ms = BEGIN_MS + np.sort(random.integers(8, 26, 20)) * 3_600_000
    parts = [observations(Window.CYCLE, sims, at_ms, lower, lower * 1.05, 950)]
    parts.append(observations(Window.DAY, sims[:18], at_ms[:18], lower[:18], lower[:18] * 1.05, 950))
    found = find(gathered(parts))
    assert [cap.window for cap in found.caps] == [Window.DAY]


def test_tiers_and_speeds_are_told_apart() -> None:
    random = np.random.default_rng(2)
    found = find(gathered([seen(random, 0, cap, kbps, quiet=0) for cap, kbps in ((3.0, 960), (5.0, 122), (8.0, 700))]))
    assert [(cap.speed_kbps, round(cap.median_bytes / 1e9)) for cap in found.caps] == [(1_000, 3), (128, 5), (700, 8)]


def test_few_sims_or_no_agreement_teach_nothing() -> None:
    random = np.random.default_rng(3)
    assert not find(seen(random, 0, 3.0, 950, sims=4)).caps
    scattered = [
        seen(random, 0, gigabytes, 950, sims=1, quiet=0, first=number)
        for number, gigabytes in enumerate(1.5 ** np.arange(12))
    ]
    assert not find(gathered(scattered)).caps
    assert not find(gathered([])).caps


@pytest.mark.parametrize(("after", "kind"), [(2.0, ChangeKind.LOWERED), (4.5, ChangeKind.RAISED)])
def test_a_silent_change_retires_what_was_known(after: float, kind: ChangeKind) -> None:
    random = np.random.default_rng(4)
    days = [seen(random, day, 3.0, 950) for day in range(4)] + [seen(random, 4, after, 950)]
    found = find(gathered(days))
    assert [change.kind for change in found.changes] == [kind]
    assert found.changes[0].at_ms >= BEGIN_MS + 4 * DAY_MS
    assert found.changes[0].before_bytes == pytest.approx(3e9, rel=0.05)
    (cap,) = found.caps
    assert cap.median_bytes == pytest.approx(after * 1e9, rel=0.05)
    assert cap.since_ms >= BEGIN_MS + 3 * DAY_MS


def test_a_raised_cap_is_told_before_anybody_meets_the_new_one_and_the_old_one_stays_decided_upon() -> None:
    random = np.random.default_rng(5)
    over = observations(
        Window.DAY, 50 + np.arange(10), np.full(10, BEGIN_MS + 4 * DAY_MS), np.full(10, 3.8e9), np.zeros(10), 0
    )
    found = find(gathered([seen(random, day, 3.0, 950) for day in range(4)] + [over]))
    assert [change.kind for change in found.changes] == [ChangeKind.RAISED]
    assert found.caps[0].quota_bytes < 3e9


def test_between_three_and_five_slowed_sims_a_change_is_told_and_the_old_cap_is_still_known() -> None:
    random = np.random.default_rng(8)
    found = find(gathered([seen(random, day, 3.0, 950) for day in range(4)] + [seen(random, 4, 4.5, 950, sims=4)]))
    assert [change.kind for change in found.changes] == [ChangeKind.RAISED]
    assert found.caps[0].median_bytes == pytest.approx(3e9, rel=0.03)


def test_sims_whose_limit_was_lifted_after_our_window_began_are_no_second_change() -> None:
    """In the night of a raised cap SIMs have used what was left of the new one before their carrier's day begins."""
    random = np.random.default_rng(9)
    night = BEGIN_MS + 4 * DAY_MS + np.arange(8) * 1_200_000
    used = random.uniform(5.2e9, 5.8e9, 8)
    late = observations(Window.DAY, 900 + np.arange(8), night, used, used * 1.03, 950)
    days = [seen(random, day, 3.0, 950) for day in range(4)] + [late, seen(random, 4, 4.5, 950, sims=30)]
    found = find(gathered(days))
    assert [(change.kind, round(change.before_bytes / 1e9)) for change in found.changes] == [(ChangeKind.RAISED, 3)]
    assert found.caps[0].median_bytes == pytest.approx(4.5e9, rel=0.03)


def test_in_the_first_night_nothing_has_changed_yet() -> None:
    """So do SIMs in the night in which the lot was first seen, and a cap that nobody knew is not lowered."""
    random = np.random.default_rng(11)
    night, used = BEGIN_MS + np.arange(8) * 600_000, random.uniform(3.6e9, 3.8e9, 8)
    late = observations(Window.DAY, 900 + np.arange(8), night, used * 0.96, used * 1.03, 950)
    found = find(gathered([late, *(seen(random, day, 2.0, 950, sims=30) for day in range(2))]))
    assert not found.changes
    assert found.caps[0].median_bytes == pytest.approx(2e9, rel=0.03)


def test_one_sim_astray_before_a_change_does_not_date_it() -> None:
    random = np.random.default_rng(10)
    astray = observations(
        Window.DAY, np.array([990]), np.array([BEGIN_MS + 4 * DAY_MS - 600_000]), np.array([3.4e9]), np.zeros(1), 0
    )
    found = find(gathered([*(seen(random, day, 3.0, 950) for day in range(4)), astray, seen(random, 4, 4.5, 950)]))
    assert [change.kind for change in found.changes] == [ChangeKind.RAISED]
    assert found.changes[0].at_ms >= BEGIN_MS + 4 * DAY_MS


def test_another_speed_after_the_same_cap_is_a_change_of_speed() -> None:
    random = np.random.default_rng(6)
    found = find(gathered([seen(random, day, 3.0, 950) for day in range(3)] + [seen(random, 3, 3.0, 4_800)]))
    assert [(change.kind, change.speed_before_kbps, change.speed_kbps) for change in found.changes] == [
        (ChangeKind.SPEED, 1_000, 5_000)
    ]
    assert [cap.speed_kbps for cap in found.caps] == [5_000]


def test_a_bound_from_before_the_window_began_says_nothing_about_it() -> None:
    column = np.array([1, 1, 1])
    decisions = Decisions(
        sim=np.array([5, 6, 7]), lot=column, at_ms=column * BEGIN_MS, throttled=np.array([True, True, False]),
        goodput_kbps=column * 950, windows=column * 4, demand_s=column * 900, confidence_permille=column * 995,
        above_s=column * 1_000, above_bytes=column * 200, first_s=column * 1_300, first_bytes=column * 100,
    )  # fmt: skip
    found = of_throttled(decisions, {Window.DAY: np.array([150, 900, 900]), Window.CYCLE: np.array([5_000, -1, 900])})
    rows = zip(found.sim, found.window, found.lower_bytes, found.upper_bytes, found.at_ms, strict=True)
    assert sorted(tuple(map(int, row)) for row in rows) == [
        (5, Window.CYCLE, 4_800, 4_900, 1_300_000),
        (6, Window.DAY, 700, 800, 1_300_000),
    ]


def test_of_the_quiet_those_with_most_use_are_kept_of_each_lot() -> None:
    sims = np.arange(9)
    unslowed = Unslowed(100 + sims, np.full(9, 5_000), np.full(9, 10.0))
    found = highest(of_unthrottled(unslowed, sims % 2, {Window.DAY: 100 * sims, Window.CYCLE: 0 * sims - 1}), keep=2)
    assert list(found.sim) == [108, 106, 107, 105]
    assert list(found.lower_bytes) == [790, 590, 690, 490]
    assert not found.upper_bytes.any()

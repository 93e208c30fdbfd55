"""The detector on windows made by hand: one behaviour a test. What it is worth: test_season.py."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from simswitch.caps.throttle import Decisions, Reports, ThrottleDetector, joined

from tests.caps.carrier import BEGIN_MS, Carrier, Plan, Tier

MATES = 12


def reports(sims: list[int], minute: float, kbps: float, demand: int = 1000, radio: int = 4, mb: float = 10) -> Reports:
    count = len(sims)
    return Reports(
        sim=np.array(sims),
        lot=np.zeros(count, int),
        at_ms=np.full(count, BEGIN_MS + round(minute * 60_000)),
        span_ms=np.full(count, 300_000),
        goodput_kbps=np.full(count, kbps),
        demand_permille=np.full(count, demand),
        radio=np.full(count, radio),
        counted_bytes=np.full(count, round(mb * 1e6)),
    )


class Lot:
    """A detector that has seen SIMs 0 to 11 of one lot at full speed for an hour."""

    def __init__(self) -> None:
        self.detector = ThrottleDetector()
        self.minute = 0.0
        self.show(list(range(MATES)), [20_000 + 700 * number for number in range(12)])

    def show(self, sims: list[int], levels: list[float], **column: Any) -> Decisions:
        found = []
        for kbps in levels:
            self.minute += 5
            found.append(self.detector.observe(reports(sims, self.minute, kbps, **column)))
        return joined(found)


def test_a_lot_that_is_slowed_is_seen_after_three_windows_and_the_bounds_of_its_cap_are_told() -> None:
    lot = Lot()
    first = lot.minute + 5
    found = lot.show(list(range(MATES)), [950, 970, 940, 955])
    assert sorted(found.sim) == list(range(MATES))
    assert found.throttled.all()
    assert found.goodput_kbps == pytest.approx(np.full(MATES, 953), rel=0.02)
    assert (found.windows == 3).all()
    assert (found.demand_s == 900).all()
    assert (found.confidence_permille >= 990).all()
    assert (found.first_s * 1000 == BEGIN_MS + first * 60_000).all()
    assert (found.above_s == found.first_s - 300).all()
    # Two windows since the end of the first one; and the last fast one may have been slowed within.
    assert found.first_bytes == pytest.approx(np.full(MATES, 20e6), rel=1e-6)
    assert found.above_bytes == pytest.approx(np.full(MATES, 40e6), rel=1e-6)


KNOWN = (64, 128, 200, 300, 384, 1_000, 4_000, 5_000)


@pytest.mark.parametrize("kbps", [*KNOWN, 700, 2_500])
def test_every_speed_is_seen_that_carriers_slow_to_and_others_that_a_lot_agrees_upon(kbps: int) -> None:
    lot = Lot()
    known = kbps in KNOWN
    found = lot.show(list(range(MATES)), [0.95 * kbps * level for level in (1.0, 1.01, 0.99)])
    assert len(found) == (MATES if known else 0)
    if not known:
        found = lot.show(list(range(MATES)), [0.95 * kbps * level for level in (1.01, 0.99, 1.0, 1.005)])
    assert sorted(found.sim) == list(range(MATES))
    assert found.goodput_kbps == pytest.approx(np.full(MATES, 0.95 * kbps), rel=0.02)


def test_one_sim_alone_has_to_show_a_known_speed_for_longer() -> None:
    lot = Lot()
    assert not len(lot.show([3], [124, 120, 126, 122, 125, 121]))
    assert list(lot.show([3], [123, 124, 122, 125, 121]).sim) == [3]
    # Neither a speed that no carrier slows to nor one that any full cell may have.
    assert not len(lot.show([4], [700, 690, 705] * 10))
    assert not len(lot.show([5], [4_800, 4_700, 4_750] * 10))


@pytest.mark.parametrize(
    "column",
    [
        {"demand": 0},
        {"demand": 50},
        {"radio": 1},
        {"radio": 2},
    ],
    ids=["idle", "next to idle", "no signal", "weak signal"],
)
def test_what_explains_a_low_goodput_is_no_throttle(column: dict[str, int]) -> None:
    lot = Lot()
    assert not len(lot.show(list(range(MATES)), [950, 970, 940] * 10, **column))


def test_a_busy_cell_wanders() -> None:
    lot = Lot()
    levels = 900 * np.exp(np.random.default_rng(5).normal(0, 0.4, 60))
    assert not len(lot.show([2], list(levels)))


def test_who_comes_down_to_the_level_of_slowed_mates_by_and_by_has_to_stay_for_longer_than_who_falls() -> None:
    """A cell that fills looks the same for a while, but is not left from one window to the next."""
    lot = Lot()
    lot.show(list(range(6)), [950, 970, 940])
    assert not len(lot.show([7], [9_000, 4_000, 2_000, 1_400, 1_000, 960, 1_050]))
    assert list(lot.show([8], [1_000, 960, 1_050]).sim) == [8]
    assert list(lot.show([7], [1_000, 990]).sim) == [7]


def test_one_fast_window_right_before_the_fall_is_enough_to_have_been_faster() -> None:
    """Who meets a cap early on a terminal has shown no more; who is slow from the first on has shown nothing."""
    lot = Lot()
    lot.show(list(range(6)), [950, 970, 940])
    lot.detector.moved(np.array([7, 8]))
    assert list(lot.show([7], [20_000, 955, 940, 960]).sim) == [7]
    assert not len(lot.show([8], [955, 940, 960]))


def test_an_hour_in_which_a_whole_lot_is_slow_at_many_levels_corroborates_nobody() -> None:
    lot = Lot()
    for window in range(12):
        for sim in range(MATES):
            level = 500 * 1.3**sim * (1.0, 0.8, 1.3)[(window + sim) % 3]
            lot.minute += 5 / MATES
            assert not len(lot.detector.observe(reports([sim], lot.minute, level)))


def test_a_device_that_is_slow_by_nature_was_never_faster() -> None:
    lot = Lot()
    slow = [20, 21]
    lot.show(slow, [930, 940, 925] * 20)
    found = lot.show(list(range(MATES)), [950, 970, 940, 955])
    assert len(found) == MATES
    assert not len(lot.show(slow, [930, 940, 925] * 4))


def test_a_sim_on_another_terminal_is_not_held_against_what_it_did_on_the_last() -> None:
    lot = Lot()
    lot.detector.moved(np.array([3]))
    assert not len(lot.show([3], [360, 362, 358] * 10))


def test_a_busy_cell_under_the_plateau_only_delays() -> None:
    lot = Lot()
    found = lot.show(list(range(MATES)), [950, 970, 300, 940, 955])
    assert len(found) == MATES
    assert (found.windows == 3).all()


def test_a_reset_is_noticed_once_and_a_burst_is_none() -> None:
    lot = Lot()
    lot.show(list(range(MATES)), [950, 970, 940])
    assert lot.detector.throttled(np.arange(MATES)).all()
    # Thirty seconds in which a shaper let its bucket through, and a window a little over the plateau.
    assert not len(lot.show(list(range(MATES)), [1_080], demand=100))
    assert not len(lot.show(list(range(MATES)), [1_200, 950]))
    found = lot.show([1, 2], [18_000])
    assert list(found.sim) == [1, 2]
    assert not found.throttled.any()
    assert list(found.goodput_kbps) == [18_000, 18_000]
    assert not found.confidence_permille.any()
    assert not len(lot.show([1, 2], [19_000, 17_000]))
    assert list(np.flatnonzero(~lot.detector.throttled(np.arange(MATES)))) == [1, 2]


def test_a_deeper_tier_is_decided_anew() -> None:
    lot = Lot()
    lot.show(list(range(MATES)), [950, 970, 940])
    found = lot.show(list(range(MATES)), [122, 125, 121, 123, 122, 124])
    assert sorted(found.sim) == list(range(MATES))
    assert found.throttled.all()
    assert found.goodput_kbps == pytest.approx(np.full(MATES, 122.5), rel=0.03)
    assert not len(lot.show(list(range(MATES)), [122, 125, 121, 123] * 5))


class Reset(Lot):
    """SIM 7 has stood at 124 kbit/s, and is on probation after its reset, in terminals that it has never been in."""

    def __init__(self, kbps: int = 124) -> None:
        super().__init__()
        self.detector.told(np.array([7]), np.array([True]), np.array([kbps]))
        self.detector.doubted(np.array([7]))
        self.detector.moved(np.array([7]))


@pytest.mark.parametrize("kbps", [124, 700, 955])
def test_a_sim_that_stands_where_it_stood_before_its_reset_is_found_on_a_terminal_that_knows_no_better(
    kbps: int,
) -> None:
    lot = Reset(kbps)
    assert not lot.detector.throttled(np.array([7]))[0]
    found = lot.show([7], [kbps * level for level in (1.0, 1.01, 0.99)])
    assert list(found.sim) == [7]
    assert found.throttled.all()
    assert list(found.windows) == [3]
    assert list(found.above_s) == [0], "it says nothing of where the cap lies"
    assert lot.detector.throttled(np.array([7]))[0]
    # Another SIM that is as slow on a terminal of its own is not, and neither is it anywhere but there.
    assert not len(lot.show([8 + MATES], [kbps * level for level in (1.0, 1.01, 0.99)] * 2))
    assert not len(Reset(kbps).show([7], [1.7 * kbps * level for level in (1.0, 1.01, 0.99)]))


def test_what_its_terminals_show_of_a_sim_in_doubt_adds_up() -> None:
    """One terminal after the other has it for minutes."""
    lot = Reset()
    for kbps in (124, 122):
        assert not len(lot.show([7], [kbps]))
        lot.detector.moved(np.array([7]))
    assert list(lot.show([7], [125]).sim) == [7]
    # A terminal on which it stands elsewhere says nothing, and what came before it no longer adds up.
    lot = Reset()
    for first, second in ((124, 122), (90, 60), (124, 122)):
        assert not len(lot.show([7], [first, second]))
        lot.detector.moved(np.array([7]))


def test_a_sim_in_doubt_is_cleared_by_fast_windows_and_by_whoever_trusts_it() -> None:
    for seen in (True, False):
        lot = Reset()
        if seen:
            assert not len(lot.show([7], [20_000]))
        else:
            lot.detector.trusted(np.array([7]))
        lot.detector.moved(np.array([7]))
        assert not len(lot.show([7], [124, 122, 125, 123, 124]))
    # Idle, weak, or a burst of a shaper: it is doubted as before.
    for column in ({"demand": 50}, {"demand": 100}, {"demand": 120, "kbps": 172}, {"radio": 1, "kbps": 100}):
        lot = Reset()
        assert not len(lot.show([7], [float(column.pop("kbps", 240))], **column))
        assert list(lot.show([7], [124, 122, 125]).sim) == [7]


def test_who_was_slowed_on_the_terminal_that_it_still_has_is_told_from_a_device_that_is_no_faster() -> None:
    """After the reset both stand where they stood. Only one of them was ever faster there."""
    lot = Lot()
    slow = MATES + 3
    lot.show([*range(MATES), slow], [955, 940, 960, 950, 945, 955, 950])
    who = np.array([7, slow])
    assert lot.detector.throttled(who).all()
    lot.detector.doubted(who)
    assert list(lot.show([7, slow], [955, 940, 960] * 4).sim) == [7]


def test_what_was_shown_before_the_reset_says_nothing_after_it() -> None:
    lot = Lot()
    lot.show(list(range(MATES)), [950, 970, 940, 955])
    lot.detector.doubted(np.arange(MATES))
    assert not len(lot.show(list(range(MATES)), [950, 960]))
    assert len(lot.show(list(range(MATES)), [945])) == MATES


def test_what_somebody_else_decided_is_taken_over() -> None:
    lot = Lot()
    lot.detector.told(np.array([7]), np.array([True]), np.array([950]))
    assert not len(lot.show([7], [950, 970, 940] * 5))
    assert not lot.show([7], [20_000]).throttled.any()
    assert not lot.detector.throttled(np.array([7]))[0]


def test_one_batch_or_many_decide_the_same() -> None:
    """A SIM's second report in a batch counts after its first."""
    steps = [step for step, _ in Carrier(7, [Plan((Tier("day", 1e9, 384),))], 60, 2).steps()]
    one_by_one = ThrottleDetector()
    apart = joined([one_by_one.observe(step) for step in steps])
    assert len(apart) > 20
    whole = ThrottleDetector()
    day = [
        Reports(
            **{
                field.name: np.concatenate([getattr(step, field.name) for step in steps[begin : begin + 288]])
                for field in fields(Reports)
            }
        )
        for begin in (0, 288)
    ]
    together = joined([whole.observe(part) for part in day])
    # Only the corroboration of mates comes at other places: within a batch all first reports come first.
    kept = {(int(sim), bool(throttled)) for sim, throttled in zip(apart.sim, apart.throttled, strict=True)}
    same = {(int(sim), bool(throttled)) for sim, throttled in zip(together.sim, together.throttled, strict=True)}
    assert len(kept & same) >= 0.8 * len(kept)


def test_a_decision_s_bounds_are_those_at_the_end_of_its_batch() -> None:
    lot = Lot()
    steps = [reports(list(range(MATES)), lot.minute + 5 * number, 950, mb=number) for number in range(1, 6)]
    columns = {field.name: np.concatenate([getattr(step, field.name) for step in steps]) for field in fields(Reports)}
    found = lot.detector.observe(Reports(**columns))
    assert sorted(found.sim) == list(range(MATES))
    assert (found.windows == 3).all()
    assert found.first_bytes == pytest.approx(np.full(MATES, (2 + 3 + 4 + 5) * 1e6), rel=1e-6)
    assert found.above_bytes == pytest.approx(np.full(MATES, (10 + 1 + 2 + 3 + 4 + 5) * 1e6), rel=1e-6)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        Reports(*(np.zeros(length) for length in (1, 1, 1, 1, 1, 1, 1, 2)))

"""What time it is for the machine: never back, and no jump forward that nobody confirmed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simswitch.cell import VirtualClock, WallClock
from simswitch.clock import AWAY_MS, JUMP_MS


class Times:
    def __init__(self) -> None:
        self.wall = 1_000_000
        self.monotonic = 50

    def clock(self, recovered_ms: int = 0) -> WallClock:
        clock = WallClock(lambda: self.wall, lambda: self.monotonic)
        clock.begin(recovered_ms)
        return clock

    def go(self, elapsed_ms: int, jump_ms: int = 0) -> None:
        self.monotonic += elapsed_ms
        self.wall += elapsed_ms + jump_ms


def test_it_follows_the_wall_through_small_corrections() -> None:
    times = Times()
    clock = times.clock()
    assert clock.now_ms() == times.wall
    times.go(10, jump_ms=JUMP_MS)
    assert clock.now_ms() == times.wall
    assert not clock.jumped


def test_a_jump_of_more_than_a_minute_is_not_taken_until_it_is_confirmed() -> None:
    times = Times()
    clock = times.clock()
    before = clock.now_ms()
    times.go(10, jump_ms=JUMP_MS + 1)
    assert clock.now_ms() == before + 10
    assert clock.jumped
    times.go(1000)
    assert clock.now_ms() == before + 1010
    clock.confirm()
    assert not clock.jumped
    assert clock.now_ms() == times.wall


def test_a_wall_that_falls_back_slows_time_and_does_not_stop_it() -> None:
    times = Times()
    clock = times.clock()
    before = clock.now_ms()
    times.go(0, jump_ms=-10_000)
    for _ in range(10_000):
        times.go(1)
        clock.now_ms()
    assert clock.now_ms() == before + 5_000
    for _ in range(20):
        times.go(1000)
        clock.now_ms()
    assert clock.now_ms() == times.wall


def test_it_begins_with_the_wall_but_not_before_what_was_recovered() -> None:
    times = Times()
    times.wall += AWAY_MS
    for recovered_ms in (0, times.wall - 5, times.wall - AWAY_MS):
        clock = times.clock(recovered_ms)
        assert clock.now_ms() == times.wall
        assert not clock.jumped
    ahead = times.clock(recovered_ms=times.wall + 9)
    assert ahead.now_ms() == times.wall + 9
    assert not ahead.jumped


def test_a_start_long_after_the_last_record_is_not_taken_until_it_is_confirmed() -> None:
    times = Times()
    recovered_ms = times.wall
    times.wall += AWAY_MS + 1
    clock = times.clock(recovered_ms)
    times.go(70_000)
    assert clock.now_ms() == recovered_ms + 70_000
    assert clock.jumped
    # What was not taken is not taken by another start either, and a clock that is set right is.
    assert times.clock(recovered_ms + 70_000).now_ms() == recovered_ms + 70_000
    clock.confirm()
    assert clock.now_ms() == times.wall
    times.wall = recovered_ms + 80_000
    again = times.clock(recovered_ms + 70_000)
    assert (again.now_ms(), again.jumped) == (times.wall, False)


def test_any_start_is_believed_where_so_it_is_set() -> None:
    times = Times()
    times.wall += 2 * AWAY_MS
    clock = WallClock(lambda: times.wall, lambda: times.monotonic, away_ms=0)
    clock.begin(1)
    assert (clock.now_ms(), clock.jumped) == (times.wall, False)


@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(-500_000, 500_000), st.booleans()), max_size=30))
def test_time_never_goes_back_and_never_faster_than_both_clocks(steps: list[tuple[int, int, bool]]) -> None:
    times = Times()
    clock = times.clock()
    previous = clock.now_ms()
    for elapsed, jump, confirm in steps:
        times.go(elapsed, jump)
        if confirm:
            clock.confirm()
        now = clock.now_ms()
        assert now >= previous
        assert now <= max(previous + elapsed + JUMP_MS, times.wall if confirm else 0)
        previous = now


def test_a_virtual_clock_stands_until_it_is_set() -> None:
    clock = VirtualClock(5)
    clock.begin(3)
    assert clock.now_ms() == 5
    clock.advance(10)
    assert clock.now_ms() == 15
    with pytest.raises(ValueError, match="does not go back"):
        clock.set(14)

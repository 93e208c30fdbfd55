"""The access server's queue: against closed forms, and against a naive walk."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simswitch.demo.queue import Operation, OperationQueue


def test_evenly_spaced_operations_below_capacity_never_wait() -> None:
    queue: OperationQueue[int] = OperationQueue(10)
    finished = []
    for number in range(100):
        queue.add(number, number * 0.125)
        finished += queue.advance(number * 0.125)
    finished += queue.advance(100)
    assert [operation.payload for operation in finished] == list(range(100))
    assert all(operation.finished_s == pytest.approx(operation.arrived_s + 0.1) for operation in finished)


def test_a_burst_drains_at_the_speed_of_the_server() -> None:
    queue: OperationQueue[int] = OperationQueue(50)
    for number in range(500):
        queue.add(number, 0.0)
    assert len(queue.advance(5.0 - 1e-9)) == 249
    assert len(queue.advance(10.0 + 1e-6)) == 251
    assert queue.take_mean_wait_s(10.0) == pytest.approx(4.99)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_random_arrivals_wait_as_long_as_theory_says(load: float) -> None:
    """M/D/1: the mean wait is load / (2 (1 - load)) service times. Many draws bring it within a tenth."""
    draws = random.Random(11)
    queue: OperationQueue[int] = OperationQueue(1)
    now_s, waits = 0.0, []
    for number in range(60_000):
        now_s += draws.expovariate(load)
        waits += [operation.began_s - operation.arrived_s for operation in queue.advance(now_s)]
        queue.add(number, now_s)
    assert sum(waits) / len(waits) == pytest.approx(load / (2 * (1 - load)), rel=0.1)


def test_whoever_gives_up_costs_nothing_and_what_has_begun_is_finished() -> None:
    queue: OperationQueue[str] = OperationQueue(1)
    for name in ("begun", "gone", "gone too"):
        queue.add(name, 0.0, patience_s=0.5)
    queue.add("late", 0.75, patience_s=0.5)
    assert [operation.payload for operation in queue.advance(0.9)] == []
    assert [operation.payload for operation in queue.give_up(0.9)] == ["begun", "gone", "gone too"]
    done = queue.advance(3.0)
    assert [(operation.payload, operation.finished_s) for operation in done] == [("begun", 1.0), ("late", 2.0)]


def test_an_abandoned_operation_is_passed_over() -> None:
    queue: OperationQueue[str] = OperationQueue(1)
    queue.add("first", 0.0)
    queue.add("second", 0.0).abandon()
    queue.add("third", 0.0)
    assert [(operation.payload, operation.finished_s) for operation in queue.advance(9.0)] == [
        ("first", 1.0),
        ("third", 2.0),
    ]


def naive(arrivals: list[tuple[float, float]], service_s: float) -> dict[int, float]:
    """Who is finished when, one after the other."""
    waiting, free_s, finished = deque(enumerate(arrivals)), 0.0, {}
    while waiting:
        number, (arrived_s, patience_s) = waiting.popleft()
        begin_s = max(free_s, arrived_s)
        if arrived_s + patience_s > begin_s:
            free_s = finished[number] = begin_s + service_s
    return finished


@given(
    st.lists(st.tuples(st.floats(0, 3), st.sampled_from([1.5, float("inf")])), max_size=60),
    st.lists(st.floats(0, 30), max_size=20),
)
@settings(max_examples=200)
def test_it_does_what_a_naive_walk_does_however_seldom_it_is_looked_at(
    steps: list[tuple[float, float]], looks: list[float]
) -> None:
    now_s, arrivals = 0.0, []
    for gap_s, patience_s in steps:
        now_s += gap_s
        arrivals.append((now_s, patience_s))
    queue: OperationQueue[int] = OperationQueue(1.25)
    finished: list[Operation[int]] = []
    events = sorted([(at, 0, -1, 0.0) for at in looks] + [(at, 1, n, p) for n, (at, p) in enumerate(arrivals)])
    for at, _, number, patience_s in events:
        finished += queue.advance(at)
        if number >= 0:
            queue.add(number, at, patience_s)
    finished += queue.advance(1e9)
    assert {operation.payload: operation.finished_s for operation in finished} == pytest.approx(naive(arrivals, 0.8))

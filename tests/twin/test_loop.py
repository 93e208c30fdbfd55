"""The access server's queue against closed forms, and the whole loop against a naive model."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simswitch.core import layout
from simswitch.twin.population import SECOND_NS


def _model() -> ModuleType:
    """The model beside this file; tests are not a package."""
    spec = importlib.util.spec_from_file_location("twin_loop_model", Path(__file__).with_name("loop_model.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


model = _model()
HOUR_NS = 3600 * SECOND_NS


def test_regular_arrivals_at_a_slower_server_wait_as_computed() -> None:
    """D/D/1: one arrival every 0.6 s, one second of service each: the n-th waits 0.4 n and is then served."""
    count = 10
    on = 1 + np.arange(count) * 600_000_000
    of = model.plan(
        on_ns=on,
        off_ns=on + HOUR_NS,
        terminal=np.arange(count),
        server=np.zeros(count),
        service_ns=[SECOND_NS],
        end_ns=60 * SECOND_NS,
    )
    loop = model.begin(of)
    model.drive(loop, model.Granter(), of.end_ns)
    assert loop.waits_us().tolist() == [1_000_000 + 400_000 * index for index in range(count)]


def test_a_caller_gives_up_at_its_time_out_and_its_operation_costs_nothing() -> None:
    """Twenty callers at once, a second each, patience of 5 s: five are served, the last of them just in time."""
    count = 20
    on = np.arange(count) + 1
    of = model.plan(
        on_ns=on,
        off_ns=on + HOUR_NS,
        terminal=np.arange(count),
        server=np.zeros(count),
        service_ns=[SECOND_NS],
        end_ns=20 * SECOND_NS,
        pause_s=1000.0,
    )
    loop = model.begin(of)
    model.drive(loop, model.Granter(), of.end_ns)
    counters = loop.counters()
    # The fifth is answered at 5 s and 1 ns, 4 ns before its caller would give up.
    assert (counters["granted"], counters["failed"], counters["waiting"]) == (5, 15, 0)
    waits = loop.waits_us()
    assert int((waits == 5_000_000).sum()) == 15
    assert int(waits.max()) == 5_000_000
    assert counters["requested"] == 20


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_random_arrivals_wait_as_the_formula_of_pollaczek_and_khinchine_says(load: float) -> None:
    """M/D/1: mean time in the queue is load / (2 (1 - load)) service times."""
    service_ns = 10_000_000
    means = []
    for seed in range(5):
        random = np.random.default_rng((seed, 11))
        count = 60_000
        on = np.cumsum(random.exponential(service_ns / load, count)).astype(np.int64)
        of = model.plan(
            on_ns=on,
            off_ns=on + 1000 * HOUR_NS,
            terminal=np.arange(count),
            server=np.zeros(count),
            service_ns=[service_ns],
            end_ns=int(on[-1]) + 10 * SECOND_NS,
            timeout_s=3600.0,
            quantum_ns=100_000_000,
            report_s=1e6,
        )
        loop = model.begin(of)
        model.drive(loop, model.Granter(), of.end_ns)
        waits = loop.waits_us()
        assert len(waits) == count
        means.append(waits.mean() * 1000 / service_ns - 1)
    expected = load / (2 * (1 - load))
    assert np.mean(means) == pytest.approx(expected, rel=0.05)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    terminals=st.integers(1, 60),
    servers=st.integers(1, 3),
    service_ms=st.integers(20, 2000),
    switch_at_s=st.none() | st.integers(20, 80),
)
def test_the_loop_does_what_a_naive_model_does(
    seed: int, terminals: int, servers: int, service_ms: int, switch_at_s: int | None
) -> None:
    random = np.random.default_rng(seed)
    end_ns = 120 * SECOND_NS
    on = random.integers(1, 60 * SECOND_NS, (terminals, 2))
    on.sort(axis=1)
    on[:, 1] += 70 * SECOND_NS
    off = on + random.integers(2 * SECOND_NS, 60 * SECOND_NS, on.shape)
    of = model.plan(
        on_ns=on.ravel(),
        off_ns=off.ravel(),
        terminal=np.repeat(np.arange(terminals), 2),
        server=random.integers(0, servers, terminals),
        # An odd nanosecond keeps two events of different kinds from falling on one instant.
        service_ns=[service_ms * 1_000_000 + 7 * server + 1 for server in range(servers)],
        end_ns=end_ns,
    )
    loop, engine, naive = model.begin(of), model.Granter(), model.Naive(of)
    if switch_at_s is not None:
        at_ns = switch_at_s * SECOND_NS
        model.drive(loop, engine, at_ns)
        naive.run(at_ns)
        chosen = [terminal for terminal in range(terminals) if naive.state[terminal] == "on"]
        on_now = [terminal for terminal in chosen if naive.off[terminal] > at_ns]
        loop.order_switches(np.array(on_now, np.uint32), None, 1)
        # The loop orders server by server; within a server both go by terminal.
        naive.switch(on_now, at_ns)
    model.drive(loop, engine, end_ns)
    naive.run(end_ns)
    counters = loop.counters()
    assert sorted(loop.waits_us().tolist()) == sorted(wait // 1000 for wait in naive.waits)
    for name in ("requested", "granted", "failed", "withdrawn"):
        assert counters[name] == naive.counts[name], name
    assert counters["switches_completed"] == naive.counts["completed"]
    assert counters["switches_withdrawn"] == naive.counts["void"]
    assert counters["in_flight_max"] == max(naive.flight_max)
    assert (
        counters["requested"] == counters["granted"] + counters["failed"] + counters["withdrawn"] + counters["waiting"]
    )


def test_a_fixed_driver_orders_n_at_once_and_n_after_each_gap() -> None:
    count = 50
    on = np.arange(count) + 1
    of = model.plan(
        on_ns=on,
        off_ns=on + HOUR_NS,
        terminal=np.arange(count),
        server=np.zeros(count),
        service_ns=[1_000_000],
        end_ns=100 * SECOND_NS,
        outage_s=2.0,
    )
    loop, engine = model.begin(of), model.Granter()
    model.drive(loop, engine, 10 * SECOND_NS)
    loop.order_switches(np.arange(count, dtype=np.uint32), 20, 5 * SECOND_NS)
    ordered = []
    for second in range(10, 30, 5):
        model.drive(loop, engine, (second + 1) * SECOND_NS)
        ordered.append(loop.counters()["switches_ordered"])
        model.drive(loop, engine, (second + 5) * SECOND_NS)
    assert ordered == [20, 40, 50, 50]
    assert loop.counters()["switches_completed"] == 50
    assert loop.counters()["in_flight_max"] == 20


def test_a_refused_allocation_has_failed_and_is_asked_for_again() -> None:
    of = model.plan(
        on_ns=[1],
        off_ns=[HOUR_NS],
        terminal=[0],
        server=[0],
        service_ns=[1_000_000],
        end_ns=20 * SECOND_NS,
        pause_s=3.0,
    )
    loop, engine = model.begin(of), model.Granter()
    engine.refuse = True
    model.drive(loop, engine, 10 * SECOND_NS)
    counters = loop.counters()
    assert (counters["requested"], counters["failed"], counters["granted"]) == (4, 4, 0)
    assert loop.waits_us().tolist() == [5_000_000] * 4


def test_usage_is_cumulative_and_reaches_the_engine_whole() -> None:
    """1,000 bytes a second from the answer to the end, whatever the reports' instants."""
    of = model.plan(
        on_ns=[1],
        off_ns=[1 + 50 * SECOND_NS],
        terminal=[0],
        server=[0],
        service_ns=[9_999_999],
        end_ns=100 * SECOND_NS,
        report_s=7.0,
    )
    loop, engine = model.begin(of), model.Granter()
    model.drive(loop, engine, of.end_ns)
    assert list(engine.used.values()) == [pytest.approx(50_000 - 10, abs=11)]
    assert engine.told[layout.RELEASE] == 1
    assert not engine.epochs

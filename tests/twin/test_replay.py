"""Whole replays, with the real engine."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simswitch.core import commands
from simswitch.twin import ReplayError, document, plot, replay
from simswitch.twin.replay import _Replay, iccid_numbers, replay_scenario
from simswitch.twin.scenario import Scenario, Slow, Speed, Switch, load

SCENARIOS = Path(str(resources.files("simswitch.twin") / "scenarios"))
TINY = load(SCENARIOS / "tiny.toml")
KEYS = {
    "allocations_requested": int,
    "allocations_failed": int,
    "allocation_wait_p50_s": float,
    "allocation_wait_p99_s": float,
    "allocation_wait_max_s": float,
    "swaps_completed": int,
    "swaps_failed": int,
    "swaps_in_flight_max": int,
    "swaps_in_flight_total_max": int,
    "swaps_finished_s": float,
    "outage_user_seconds": float,
}


def with_servers(scenario: Scenario, **changes: Any) -> Scenario:
    return replace(scenario, access_servers=tuple(replace(group, **changes) for group in scenario.access_servers))


def finished(scenario: Scenario, policy: str = "engine") -> _Replay:
    run = _Replay(scenario, policy, None)
    run.run()
    return run


def test_the_same_seed_gives_the_same_result_and_another_seed_another() -> None:
    first = document(replay(SCENARIOS / "tiny.toml"))
    second = document(replay(SCENARIOS / "tiny.toml"))
    assert json.dumps(first) == json.dumps(second)
    other = document(replay_scenario(replace(TINY, seed=8)))
    assert other["state_hash"] != first["state_hash"]
    assert other["policies"] != first["policies"]


def test_the_result_has_exactly_the_published_keys() -> None:
    result = document(replay(SCENARIOS / "tiny.toml"))
    assert list(result) == ["scenario", "seed", "state_hash", "policies"]
    assert list(result["policies"]) == ["unbounded", "fixed", "engine"]
    for figures in result["policies"].values():
        assert {key: type(value) for key, value in figures.items()} == KEYS
    assert int(result["state_hash"], 16) > 0
    assert json.loads(json.dumps(result)) == result


def test_a_switch_that_is_not_over_has_no_end() -> None:
    slow = replace(TINY, events=(*TINY.events[:-1], Switch(880.0)))
    result = replay_scenario(slow)
    assert [figures["swaps_finished_s"] for figures in result["policies"].values()] == [None] * 3


@pytest.mark.parametrize("policy", ["unbounded", "fixed", "engine"])
@pytest.mark.parametrize("refused", [0.0, 0.3])
def test_every_request_and_every_switch_has_one_end(policy: str, refused: float) -> None:
    run = finished(with_servers(TINY, switch_refused_share=refused), policy)
    counters = run.loop.counters()
    assert (
        counters["requested"] == counters["granted"] + counters["failed"] + counters["withdrawn"] + counters["waiting"]
    )
    settled = sum(counters[f"switches_{end}"] for end in ("completed", "failed", "withdrawn", "busy"))
    assert counters["switches_ordered"] == settled + counters["in_flight"]
    assert counters["switches_completed"] > 50
    assert (counters["switches_failed"] > 0) == (refused > 0)
    assert len(run.loop.waits_us()) == counters["granted"] + counters["failed"]


@pytest.mark.parametrize("policy", ["unbounded", "fixed", "engine"])
def test_the_engine_and_the_world_agree(policy: str) -> None:
    """No report, release or acknowledgement is refused; the engine's invariants hold; its leases are the lines."""
    run = finished(TINY, policy)
    assert run.loop.refusals() == {}
    assert run.loop.counters()["lines_lost"] == 0
    machine = run.engine.cell.machine
    assert machine.check() == []
    held = machine.header()["occupancy"]["assigned"]
    counters = run.loop.counters()
    assert held == len(run.loop.terminals_on(np.ones(run.plan.sims_count, np.uint8))) + counters["in_flight"]
    # I8: what the engine counted is what terminals reported.
    assert machine.header()["counted_bytes"] > 0


def test_the_incident_through_the_engine_fails_no_allocation() -> None:
    result = replay(SCENARIOS / "incident-2020.toml")
    unbounded, fixed, engine = (result["policies"][name] for name in ("unbounded", "fixed", "engine"))
    assert unbounded["allocations_failed"] > 10_000
    assert 0 < fixed["allocations_failed"] < unbounded["allocations_failed"] / 5
    assert engine["allocations_failed"] == 0
    assert unbounded["swaps_in_flight_max"] > 1_000
    assert engine["swaps_in_flight_max"] <= 200
    assert engine["swaps_completed"] > 10_000
    assert engine["swaps_finished_s"] < 3_600
    assert engine["allocation_wait_max_s"] < 10
    assert engine["outage_user_seconds"] < fixed["outage_user_seconds"] < unbounded["outage_user_seconds"]


@settings(max_examples=25)
@given(
    operations_per_s=st.floats(5, 5000),
    terminals=st.integers(1, 3000),
    outage_s=st.floats(0.1, 60),
    refused=st.sampled_from([0.0, 0.1]),
    slower=st.none() | st.floats(0.5, 100),
    busy=st.none() | st.integers(0, 50),
)
def test_never_more_than_200_orders_are_in_flight_on_one_access_server(
    operations_per_s: float, terminals: int, outage_s: float, refused: float, slower: float | None, busy: int | None
) -> None:
    """I3, whatever the access server can take and however it falters."""
    scenario = with_servers(
        TINY,
        count=1,
        operations_per_s=operations_per_s,
        switch_outage_s=outage_s,
        switch_refused_share=refused,
        busy_queue_operations=busy,
    )
    scenario = replace(
        scenario,
        duration_s=300.0,
        lots=tuple(replace(lot, sims=3500) for lot in scenario.lots),
        terminals=(replace(scenario.terminals[0], count=terminals, on_at_start_share=0.9, arrival_until_s=290.0),),
        events=(
            Slow(1.0, "first", 1.0, None, 128, 1.0),
            Switch(5.0),
            *(() if slower is None else (Speed(60.0, "as", slower),)),
        ),
    )
    run = finished(scenario)
    counters = run.loop.counters()
    assert counters["in_flight_max"] <= 200
    assert counters["orders_in_flight_max"] <= 200
    assert run.engine.cell.machine.check() == []


def test_a_fast_access_server_is_used_to_the_full() -> None:
    """The window grows to 200 where nothing speaks against it."""
    scenario = with_servers(TINY, count=1, operations_per_s=2000.0, switch_outage_s=60.0)
    scenario = replace(
        scenario,
        lots=tuple(replace(lot, sims=5000) for lot in scenario.lots),
        terminals=(
            replace(scenario.terminals[0], count=4000, on_at_start_share=1.0, sessions_count=0, session_mean_s=1e6),
        ),
        events=(Slow(1.0, "first", 1.0, None, 128, 1.0), Switch(5.0)),
    )
    assert finished(scenario).loop.counters()["in_flight_max"] == 200


def test_iccids_have_the_check_digit_of_their_issuer() -> None:
    for number in iccid_numbers(2_000).tolist():
        digits = commands.decode_iccid(number)
        assert len(digits) == 19
        total = 0
        for place, digit in enumerate(reversed(digits)):
            doubled = int(digit) * (1 + place % 2)
            total += doubled - 9 * (doubled > 9)
        assert total % 10 == 0


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    result = replay(SCENARIOS / "tiny.toml", ["engine"])
    assert list(result["policies"]) == ["engine"]
    plot(result, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ReplayError, match="not hopeful"):
        replay(SCENARIOS / "tiny.toml", ["hopeful"])


@pytest.mark.timeout(600)
def test_a_million_terminals_day_replays() -> None:
    """With 450 banks it also needs more than one run of definitions."""
    figures = document(replay(SCENARIOS / "million-day.toml"))["policies"]["engine"]
    assert figures["allocations_requested"] > 1_000_000
    assert figures["allocations_failed"] == 0
    assert 0 < figures["swaps_in_flight_max"] <= 200

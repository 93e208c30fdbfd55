"""Access servers that slow down, stop, answer BUSY, lose acknowledgements, restart, lose their session and die."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from simswitch.core import layout
from simswitch.twin.replay import KEY_FIRST, _Replay
from simswitch.twin.scenario import Dead, Scenario, Slow, Switch, load

TROUBLES = load(Path(str(resources.files("simswitch.twin") / "scenarios" / "troubles.toml")))
NAMES = [f"{group.name}-{place + 1}" for group in TROUBLES.access_servers for place in range(group.count)]


def replayed(scenario: Scenario, policy: str = "engine") -> _Replay:
    run = _Replay(scenario, policy, None)
    run.run()
    return run


@pytest.fixture(scope="module")
def troubles() -> _Replay:
    return replayed(TROUBLES)


@pytest.fixture(scope="module")
def untroubled() -> _Replay:
    events = tuple(event for event in TROUBLES.events if isinstance(event, Slow | Switch))
    return replayed(replace(TROUBLES, events=events))


def finished_s(run: _Replay, name: str) -> float:
    """When the last swap of an access server was confirmed."""
    confirmed = run.servers[name]["confirmed"]
    return run.series["at_s"][confirmed.index(confirmed[-1])]


def test_no_allocation_fails_that_would_not_have_failed_without_the_swaps(troubles: _Replay) -> None:
    alone = replayed(TROUBLES, "none")
    failed = dict(zip(NAMES, troubles.loop.server_failed(), strict=True))
    assert failed == dict(zip(NAMES, alone.loop.server_failed(), strict=True))
    assert {name for name, count in failed.items() if count} == {"stops-1", "restarts-1"}
    assert troubles.loop.counters()["orders_in_flight_max"] <= 200


def test_every_terminal_is_swapped_once_and_none_is_forgotten(troubles: _Replay) -> None:
    """What access servers really hold is what the engine believes, to the epoch; the job is done."""
    machine, counters = troubles.engine.cell.machine, troubles.loop.counters()
    job = machine.job(troubles.jobs[0])
    assert job["state"] == layout.JOB_DONE
    assert job["given_up_count"] == 0
    assert job["confirmed_count"] + job["skipped_count"] == job["terminals_count"]
    assert counters["acknowledgements_lost"] > 10
    assert counters["orders_repeated"] > 10
    assert machine.check() == []
    assert troubles.loop.refusals() == {}
    columns = machine.terminals_columns()
    believed = {
        int(key) - KEY_FIRST: (int(epoch), int(sim), int(server))
        for key, epoch, sim, server in zip(
            columns["key"], columns["epoch"], columns["sim"], columns["server"], strict=True
        )
        if sim != layout.NONE_INDEX
    }
    held = {
        int(terminal): (int(epoch), int(sim), troubles.engine.numbers[server])
        for server in range(len(NAMES))
        for terminal, epoch, sim in zip(*troubles.loop.holdings(server), strict=True)
    }
    assert len(held) > 15_000
    assert held == believed
    assert not set(troubles.throttled.nonzero()[0].tolist()) & {sim for _, sim, _ in held.values()}


def test_ones_trouble_is_not_anothers(troubles: _Replay, untroubled: _Replay) -> None:
    """Who has no trouble is done when it would be done anyway; the others are later."""
    assert abs(finished_s(troubles, "steady-1") - finished_s(untroubled, "steady-1")) <= 20
    for name in ("slows-1", "stops-1", "busy-1", "loses-1", "restarts-1", "breaks-1"):
        assert finished_s(troubles, name) > finished_s(untroubled, name) + 60


@pytest.mark.parametrize(
    ("name", "gate"),
    [
        ("busy-1", layout.GATE_BACK_OFF),
        ("restarts-1", layout.GATE_DISCONNECTED),
        ("breaks-1", layout.GATE_DISCONNECTED),
    ],
)
def test_the_gate_closes_and_opens_again(troubles: _Replay, name: str, gate: int) -> None:
    gates = troubles.servers[name]["gate"]
    assert gate in gates
    assert gates[-1] == layout.GATE_OPEN
    assert gate not in troubles.servers["steady-1"]["gate"]


@pytest.mark.parametrize("name", ["stops-1", "busy-1", "loses-1"])
def test_the_window_gives_way_and_comes_back(troubles: _Replay, name: str) -> None:
    windows = troubles.servers[name]["window"]
    steps = np.diff(windows)
    falls = np.flatnonzero(steps < 0)
    assert len(falls)
    assert np.any(steps[falls[-1] :] > 0)
    assert troubles.servers["steady-1"]["window"] == sorted(troubles.servers["steady-1"]["window"])


def test_what_a_dead_access_server_held_is_freed_after_the_fencing_delay_and_not_before() -> None:
    dead = next(event for event in TROUBLES.events if isinstance(event, Dead))
    fenced_s = dead.at_s + dead.declared_after_s + TROUBLES.engine["fencing_s"]
    # Besides, its terminals have long asked elsewhere.
    counts = []
    for duration_s in (fenced_s - 5, fenced_s + 5):
        run = replayed(replace(TROUBLES, duration_s=duration_s, events=(dead,)))
        seen = run.engine.cell.machine.server(run.engine.numbers[NAMES.index("dies-2")])
        assert seen["gate"] == layout.GATE_DEAD
        assert len(run.loop.holdings(NAMES.index("dies-2"))[0]) == 0
        sims = run.engine.cell.machine.sims_columns()
        assigned = int(np.count_nonzero(sims["occupancy"] == layout.ASSIGNED))
        lines = len(run.loop.terminals_on(np.ones(run.plan.sims_count, np.uint8)))
        counts.append((int(seen["queued_count"]), int(np.count_nonzero(sims["held"])), assigned - lines))
    # Stops that nobody heard; SIMs that wait for them; leases of terminals that went off without asking elsewhere.
    assert counts[0][0] > 1_500
    assert counts[0][1] > 1_500
    assert 0 < counts[0][2] < 100
    assert counts[1] == (0, 0, 0)


def test_swaps_keep_away_from_a_lot_whose_sims_fail_and_come_back_when_they_don_t() -> None:
    bad_lot = load(Path(str(resources.files("simswitch.twin") / "scenarios" / "bad-lot.toml")))
    run = replayed(bad_lot)
    never = replayed(replace(bad_lot, engine={"breaker_share": 1.0}))
    failed, failed_anyway = (each.loop.counters()["switches_failed"] for each in (run, never))
    assert failed < 40 < 900 < failed_anyway
    job, anyway = (each.engine.cell.machine.job(0) for each in (run, never))
    assert job["state"] == layout.JOB_DONE
    assert job["confirmed_count"] + job["skipped_count"] == job["terminals_count"]
    assert job["finished_ms"] - job["created_ms"] < 0.9 * (anyway["finished_ms"] - anyway["created_ms"])
    # It was tried while it was bad, and is used now that it is well.
    assert run.engine.cell.machine.breakers() == []
    first, count = run.plan.first_sim["bad"]
    mark = np.zeros(run.plan.sims_count, np.uint8)
    mark[first : first + count] = 1
    on_start = len(run.plan.on_at_start)
    assert len(run.loop.terminals_on(mark)) > 0.2 * on_start


def test_200_000_terminals_that_ask_at_once_are_admitted_at_the_pace_of_their_access_servers() -> None:
    """400 a second can attach: that takes 500 s, and nobody's attempt fails; swaps go on."""
    storm = load(Path(str(resources.files("simswitch.twin") / "scenarios" / "storm-200k.toml")))
    run = replayed(storm)
    counters, figures = run.loop.counters(), run.figures()
    # A few have left meanwhile; whoever is on has a line.
    assert counters["granted"] > 199_900
    assert len(run.loop.terminals_on(np.ones(run.plan.sims_count, np.uint8))) == counters["on"]
    assert figures["allocations_failed"] == 0
    assert (figures["allocation_wait_p99_s"] or 99) <= 1.0
    # Each was told once, and was let in when it came.
    assert counters["told_to_wait"] < 1.05 * counters["granted"]
    assert 500 < counters["line_last_ns"] / 1e9 - 120 < 1.25 * 500
    assert run.engine.cell.machine.job(0)["state"] == layout.JOB_DONE
    assert run.engine.cell.machine.check() == []
    everybody = replayed(replace(storm, engine={**storm.engine, "admission_queue_s": 0.0}, duration_s=300))
    assert everybody.loop.counters()["failed"] > 200_000

"""A bounded run of the simulator, and the simulator itself tested: each deliberate fault is found."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from simswitch.core import layout
from simswitch.core.commands import COMMAND_COLUMNS, EVENTS
from simswitch.core.roles import COMMAND_ROLES

from tests.model.transitions import TABLE, parse
from tests.simulator.faults import KINDS, PATCHES
from tests.simulator.run import simulate
from tests.simulator.simulation import Chances, Simulation, machine_kind

SEED = 11
STEPS_MAX = 20_000
# What is rare is met in one of so many runs; five as a rule.
RUNS_MAX = 12
# Lots end where the seed is a multiple of three.
SEEDS = {"a lot that ends last and goes first": 12, "a straddling report that is forgotten": 12}
# The model sees a fault of the core at once, so nothing else needs to go wrong meanwhile.
CORE_CHANCES = Chances(every_point=0, damage=0, follower=0, power_cut=0.01)
# What comes seldom comes often here: kills, and turns of the follower.
PATCH_CHANCES = {
    "names that are not durable": Chances(
        every_point=0.2, damage=0, killed=0.5, ended=0, failing=0, follower=0.1, grown=0, calm=(1,)
    ),
    "snapshots pruned too early": Chances(every_point=0.3, damage=0, follower=0.9, failing=0, grown=0),
    "a snapshot that is not read back": Chances(every_point=0, damage=0, failing=0, follower=0.9, spoiled=0.3, grown=0),
    "hours that are not kept": Chances(
        every_point=0, damage=0, power_cut=0, killed=0, failing=0, follower=0.9, grown=0
    ),
    "history of undurable records": Chances(every_point=0.3, damage=0, failing=0, follower=0.9, grown=0),
}


def test_i1_i3_i6_i8_i10_a_crash_at_every_durable_point_loses_and_doubles_nothing() -> None:
    report = simulate(2, 150)
    assert report["found"] == []
    assert report["crashes"] > 1_000
    assert report["lives"] > 3
    assert {"torn", "lost", "reordered", "flipped", "misdirected", "power cut", "lied"} <= set(report["faults"])


def test_the_same_seed_gives_the_same_run() -> None:
    assert simulate(3, 25) == simulate(3, 25)


@pytest.mark.timeout(600)
def test_the_load_has_every_role_and_every_command_and_meets_every_answer_and_event() -> None:
    """All that transitions.txt has, with the chances under which faults of the core have to be found: quiet without."""
    rows = parse(TABLE.read_text(encoding="utf-8"))
    missing: set[object] = set(COMMAND_COLUMNS)
    missing |= {
        (layout.Command[row.command.split()[0]], layout.Status[row.status]) for row in rows if row.status != "-"
    }
    missing |= {(EVENTS, kind) for kind in layout.EventKind}
    # Each role gives what it may give, and is refused what it may not. Operators may all but what only the system says.
    missing |= {(layout.Role(role).name, True) for roles in COMMAND_ROLES.values() for role in roles}
    missing |= {(role.name, False) for role in layout.Role if role not in (layout.SYSTEM, layout.OPERATOR)}
    for seed in range(3, 3 + 6 * RUNS_MAX, 6):  # lots end in all of them, and every other has a pool
        simulation = Simulation(seed, CORE_CHANCES)
        for _ in range(600):
            simulation.step()
        missing -= {kind for kind, status in simulation.answers if status != layout.NOT_PERMITTED}
        missing -= set(simulation.answers)
        missing -= {
            (layout.Role(role).name, permitted) for (role, _), found in simulation.spoken.items() for permitted in found
        }
        if not missing:
            break
    assert not missing, f"{missing} in {RUNS_MAX} runs"


@pytest.mark.parametrize("name", [*PATCHES, *KINDS])
def test_a_deliberate_fault_is_caught(name: str) -> None:
    with PATCHES.get(name, nullcontext)():
        report = simulate(
            SEEDS.get(name, SEED),
            STEPS_MAX,
            chances=PATCH_CHANCES.get(name, Chances()) if name in PATCHES else CORE_CHANCES,
            kind=KINDS.get(name, machine_kind),
        )
    assert report["violations"] == 1, f"{name} went unnoticed for {report['steps']} steps"
    assert report["found"][0].split(":")[0].endswith(("Violation", "Mismatch")), report["found"]

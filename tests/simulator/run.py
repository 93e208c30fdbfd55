"""The simulator as a program: ``python -m tests.simulator.run`` (``make simulate``).

Ends after ``--steps``, or with ``--crashes`` when so many were recovered from, and leaves ``build/simulate.json``. The
same seed gives the same file. When something is wrong, it says what, and the command that shows it again; the exit code
is then 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import randrange
from typing import Any

from tests.simulator.log import Violation
from tests.simulator.simulation import Chances, Kind, Simulation, machine_kind

REPORT = Path(__file__).resolve().parents[2] / "build" / "simulate.json"
_PROGRESS_S = 2.0


def simulate(
    seed: int,
    steps: int | None = None,
    crashes: int | None = None,
    *,
    chances: Chances | None = None,
    kind: Kind = machine_kind,
    progress: Callable[[Simulation], object] | None = None,
) -> dict[str, Any]:
    """What a run of this seed came to. ``found``: what was wrong, after which the run ended."""
    found: list[str] = []
    simulation: Simulation | None = None
    try:
        simulation = Simulation(seed, chances, kind)
        while (steps is None or simulation.steps_count < steps) and (
            crashes is None or simulation.crashes_count < crashes
        ):
            simulation.step()
            if progress is not None:
                progress(simulation)
    except (Exception, Violation) as error:
        found.append("".join(traceback.format_exception_only(error)).strip())
        if progress is not None:
            traceback.print_exc()
    report: dict[str, Any] = {"seed": seed, "violations": len(found), "found": found}
    if simulation is not None:
        report |= {
            "steps": simulation.steps_count,
            "records": simulation.log.last,
            "commands": simulation.commands_count,
            "crashes": simulation.crashes_count,
            "lives": simulation.lives_count,
            "faults": dict(sorted(simulation.faults.items())),
        }
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=None, help="another run; drawn and told when it is not given")
    parser.add_argument("--steps", type=int, default=None, help="end after so many (default 2,000)")
    parser.add_argument("--crashes", type=int, default=None, help="end when so many were recovered from")
    parser.add_argument("--json", type=Path, default=REPORT, help="where the report goes")
    asked = parser.parse_args()
    seed = randrange(1 << 32) if asked.seed is None else asked.seed
    steps = 2_000 if asked.steps is None and asked.crashes is None else asked.steps
    began = last = time.monotonic()

    def progress(simulation: Simulation) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_S:
            last = now
            goal = f" of {asked.crashes}" if asked.crashes else ""
            print(
                f"seed {seed}: step {simulation.steps_count}, {simulation.crashes_count}{goal} crashes recovered from, "
                f"{simulation.crashes_count / (now - began):.0f} a second",
                file=sys.stderr,
                flush=True,
            )

    report = simulate(seed, steps, asked.crashes, progress=progress)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))
    print(f"{time.monotonic() - began:.1f} s; the report stands in {asked.json}", file=sys.stderr)
    if report["violations"]:
        print(f"once more: make simulate SEED={seed} STEPS={report.get('steps', 1)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

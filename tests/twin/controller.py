"""One access server, a job and steady allocations: how fast the job is, and what allocations notice of it.

``python -m tests.twin.controller`` prints the whole table, each line beside the best fixed batch that a search finds.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simswitch.twin.replay import replay_scenario
from simswitch.twin.scenario import load

SPEEDS = (5.0, 10.0, 20.0, 50.0, 100.0, 1_000.0, 5_000.0)
LOADS = (0.3, 0.6, 0.8, 0.9)
CHANGES = ((5.0, 0.3, 2.5), (5.0, 0.8, 10.0), (20.0, 0.45, 10.0), (20.0, 0.6, 40.0), (1_000.0, 0.45, 500.0))
ALLOCATIONS_MAX = 3_000.0
"""A second. With more a case has so many terminals that a machine has no numbers for all their orders."""
BATCHES = (5, 10, 20, 50, 100, 200)
OUTSTANDING_MAX = 200
ORDERED_S = 60
CHANGED_S = 300
ATTACH_S = 30

SCENARIO = """
seed = {seed}
start = 2020-02-21T12:00:00+09:00
duration_s = {duration_s}
quantum_ms = 20
[fixed]
n = {batch}
gap_seconds = {gap_s}
[engine]
order_deadline_s = 600
[[plans]]
name = "unlimited"
[[classes]]
name = "standard"
[[lots]]
name = "slowed"
supplier = "wholesaler"
plan = "unlimited"
class = "standard"
sims = {terminals}
[[lots]]
name = "spare"
supplier = "wholesaler"
plan = "unlimited"
class = "standard"
sims = {spare}
[[markets]]
name = "japan"
classes = ["standard"]
[[access_servers]]
name = "as"
operations_per_s = {speed}
client_timeout_s = 10
retry_pause_s = 10
switch_outage_s = 20
switch_outage_spread_s = 20
[[terminals]]
count = {terminals}
market = "japan"
access_servers = "as"
on_at_start_share = 1.0
session_mean_s = 1000000
arrival_from_s = {last_s}
bytes_per_hour = 1000000
report_interval_s = 600
[[terminals]]
count = {arrivals}
market = "japan"
access_servers = "as"
session_mean_s = 1000000
bytes_per_hour = 1000000
report_interval_s = 900
[[events]]
at_s = 20
kind = "slow"
lot = "slowed"
share = 1.0
"""
SWITCH = """
[[events]]
at_s = {ordered_s}
kind = "switch"
"""
CHANGE = """
[[events]]
at_s = {changed_s}
kind = "speed"
access_servers = "as"
operations_per_s = {change}
"""


@dataclass(frozen=True)
class Case:
    """About half of the terminals are to be moved: initial SIMs are spread over both lots."""

    speed: float
    load: float
    """Share of the speed that allocations take."""
    terminals: int
    seed: int = 1
    change: float | None = None
    """The speed from CHANGED_S on."""

    def duration_s(self) -> int:
        slowest = min(self.speed, self.change or self.speed)
        free_per_s = max(slowest - self.load * self.speed, 0.05 * slowest)
        return int(ORDERED_S + CHANGED_S + self.terminals * max(0.75 / free_per_s, 1.5 * ATTACH_S / OUTSTANDING_MAX))

    def figures(self, policy: str, *, switch: bool = True, batch: int = 1, gap_s: int = 1) -> dict[str, Any]:
        duration_s = self.duration_s()
        arrivals = int(self.load * self.speed * duration_s)
        text = SCENARIO + (SWITCH if switch else "") + (CHANGE if self.change else "")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "controller.toml"
            path.write_text(
                text.format(
                    seed=self.seed,
                    duration_s=duration_s,
                    last_s=duration_s - 1,
                    batch=batch,
                    gap_s=gap_s,
                    speed=self.speed,
                    terminals=self.terminals,
                    arrivals=arrivals,
                    spare=self.terminals + arrivals + 2_000,
                    ordered_s=ORDERED_S,
                    changed_s=CHANGED_S,
                    change=self.change,
                )
            )
            figures: dict[str, Any] = replay_scenario(load(path), [policy])["policies"][policy]
        return figures

    def fixed(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Batches of a fixed size at fixed times that fail no allocation and keep the bound of 200."""
        free_per_s = self.speed * (1 - self.load)
        for batch in BATCHES:
            paced_s = max(1, round(batch / free_per_s))
            in_flight_s = max(1, -(-batch * (ATTACH_S + 10) // OUTSTANDING_MAX))
            for gap_s in sorted({paced_s, round(1.2 * paced_s), in_flight_s}):
                found = self.figures("fixed", batch=batch, gap_s=gap_s)
                if (
                    found["allocations_failed"] == 0
                    and found["swaps_finished_s"]
                    and found["swaps_in_flight_max"] <= OUTSTANDING_MAX
                ):
                    yield batch, gap_s, found

    def limit_s(self, alone: dict[str, Any]) -> float:
        """How long allocations may wait at the 99th percentile."""
        return max(1.0, 1.2 * float(alone["allocation_wait_p99_s"]))


def line(case: Case, search: bool) -> str:
    alone, found = case.figures("engine", switch=False), case.figures("engine")
    best = min(case.fixed(), key=lambda one: float(one[2]["swaps_finished_s"]), default=None) if search else None
    took_s = found["swaps_finished_s"]
    beside = ""
    if best is not None:
        batch, gap_s, fixed = best
        ratio = f"{took_s / fixed['swaps_finished_s']:.2f}" if took_s else "-"
        beside = f"{fixed['swaps_finished_s']:10,.0f} ({batch} each {gap_s} s) {ratio:>5}"
    speed = f"{case.speed:g}" + (f" to {case.change:g}" if case.change else "")
    return (
        f"{speed:>12} {case.load:5} {found['swaps_completed']:6,} {took_s or float('nan'):10,.0f} "
        f"{found['allocations_failed']:7,} {alone['allocations_failed']:7,} {found['allocation_wait_p99_s']:7.2f} "
        f"{case.limit_s(alone):7.2f} {found['swaps_in_flight_max']:5} {beside}"
    )


def main() -> None:
    terminals = int(sys.argv[1]) if sys.argv[1:] else 10_000
    print("operations/s  load  swaps   finish s  failed   alone     p99   limit  most  best fixed s, and ours to it")
    for speed in SPEEDS:
        for share in (share for share in LOADS if speed * share <= ALLOCATIONS_MAX):
            print(line(Case(speed, share, terminals), search=True), flush=True)
    for speed, share, change in CHANGES:
        print(line(Case(speed, share, terminals, change=change), search=False), flush=True)


if __name__ == "__main__":
    main()

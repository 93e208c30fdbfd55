"""What allocations notice of a job, exactly: the same access server under a virtual clock, with the job and without.

In the real run (``calls.measure_during_job``) client, access server, service and follower share two cores, and the
access server carries everything out at once. Here it takes its time, as in the scenario ``million-day``, nothing else
is in the way, and the same seed gives the same figures.
"""

from __future__ import annotations

from collections.abc import Callable

from simswitch.core.machine import xxh64

from benches.report import Result
from tests.twin.controller import Case

NAME = "rpc.during_job.virtual"
OPERATIONS_PER_S = 50.0
SHARE_OF_ALLOCATIONS = 0.6
GOAL = 1.2


def measure(terminals: int, seed: int, progress: Callable[[str], None]) -> Result:
    """A job that moves about ``terminals``, half of those that the access server has, beside steady allocations."""
    case = Case(OPERATIONS_PER_S, SHARE_OF_ALLOCATIONS, 2 * terminals, seed)
    progress(f"{NAME}: without the job")
    alone = case.figures("engine", switch=False)
    progress(f"{NAME}: {terminals:,} terminals")
    beside = case.figures("engine")
    if not beside["swaps_finished_s"] or alone["allocations_failed"] or beside["allocations_failed"]:
        raise RuntimeError(f"the job did not end, or an allocation failed: {beside}")
    return Result(
        name=NAME,
        size=beside["swaps_completed"],
        value=beside["allocation_wait_p99_s"] * 1e3,
        unit="ms",
        hash=f"{xxh64(repr((alone, beside)).encode()):016x}",
        reference=alone["allocation_wait_p99_s"] * 1e3,
        goal=GOAL,
        goal_of="ratio",
        note=(
            f"p99 of {beside['allocations_requested']:,} allocations, {SHARE_OF_ALLOCATIONS:.0%} of "
            f"{OPERATIONS_PER_S:g} operations a second of an access server; at most {beside['swaps_in_flight_max']} "
            f"orders outstanding, over after {beside['swaps_finished_s']:,.0f} s; reference: the same without the job"
        ),
    )

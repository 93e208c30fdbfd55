"""What the readers cost the follower: ``python -m tests.caps.share [SIMS] [REPORTS]``.

Writes a journal in which SIMS terminals report every five minutes, 1,000 a record, half of them with demand and one in
fifty slowed, and follows it with no reader, with history, and with history and the detector. Prints processor time a
report, and the memory that the detector took.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from simswitch.caps.observer import Observer
from simswitch.cell import Capacity, Cell, JournalSettings, VirtualClock
from simswitch.core import commands, layout
from simswitch.history.projector import Projector
from simswitch.journal.disk import RealDisk
from simswitch.journal.follower import Follower, FollowerSettings, OpenReader

from tests.cell.small_pool import SERVER_NUMBER, allocate, fill

BEGIN_MS = 1_700_006_400_000
A_RECORD = 1_000
NEVER = FollowerSettings(replay_s=1e9, bytes_max=1 << 60, interval_s=1e9, poll_s=0)
SEED = 20200321


def written(folder: Path, sims: int, reports: int) -> None:
    random = np.random.default_rng(SEED)
    clock = VirtualClock(BEGIN_MS)
    cell = Cell.open(folder, capacity=Capacity(sims, sims, 1_000), journal=JournalSettings(64 << 20, 0), clock=clock)
    fill(cell.step, sims)
    cell.step(commands.run(layout.CONFIGURE, setting=layout.LEASE_MS, value=86_400_000))
    epochs = np.concatenate([
        commands.outcome_runs(cell.step(allocate(1 + first, A_RECORD)).data)[0]["epoch"].copy()
        for first in range(0, sims, A_RECORD)
    ])  # fmt: skip
    fast = random.lognormal(np.log(18_000), 0.4, sims)
    totals = np.zeros(sims, np.int64)
    for first in range(0, reports, A_RECORD):
        clock.advance(300_000 * A_RECORD // sims)
        who = (first + np.arange(A_RECORD)) % sims
        totals[who] += 10_000_000
        slowed = (who % 50 == 0) & (first > reports // 2)
        run = commands.run(
            layout.REPORT_USAGE,
            A_RECORD,
            access_server=SERVER_NUMBER,
            terminal=1 + who,
            epoch=epochs[who],
            up_bytes=0,
            down_bytes=totals[who],
            span_ms=300_000,
            goodput_kbps=np.where(slowed, 950, fast[who] * random.lognormal(0, 0.15, A_RECORD)),
            demand_permille=np.where(random.random(A_RECORD) < 0.5, 600, 0),
            radio=4,
        )
        cell.step(run)
    cell.close(snapshot=False)


def followed(folder: Path, readers: list[OpenReader]) -> float:
    for old in folder.glob("history*"):
        old.unlink()
    follower = Follower(RealDisk(folder), settings=NEVER, readers=readers)
    began_s = time.thread_time()
    while follower.turn(snapshots=False):
        pass
    follower.finish(read_on=False)
    follower.close()
    return time.thread_time() - began_s


def main() -> int:
    sims, reports = (int(word) for word in (*sys.argv[1:], "100000", "1000000")[:2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written(folder, sims, reports)
        before = 0.0
        readers: list[OpenReader] = [partial(Projector, folder), partial(Observer, folder)]
        for count, what in enumerate(("follower alone", "with history", "and the detector")):
            took_s = followed(folder, readers[:count])
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{what:18s} {took_s / reports * 1e9:8.0f} ns a report, {(took_s - before) / reports * 1e9:6.0f} more; "
                f"peak {peak:.0f} MB"
            )
            before = took_s
    return 0


if __name__ == "__main__":
    sys.exit(main())

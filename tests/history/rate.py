"""What history costs where each SIM reports once an hour: ``python -m tests.history.rate [SIMS] [COMMITS]``.

Every SIM has its rows of the day and the hour already; then each commit has the reports of one second, of SIMs all over
the pool, and the first of them take away an hour's rows that are old, ROWS_MAX each.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from simswitch.cell import Capacity, Cell, VirtualClock
from simswitch.core import commands, layout
from simswitch.history.retention import HOURS, ROWS_MAX
from simswitch.history.schema import open_writer
from simswitch.twin.record import RecordedCell

from tests.cell.small_pool import SERVER_NUMBER, allocate, fill

BEGIN_MS = 1_700_006_400_000
A_BATCH = 1_000
SEED = 20200321


def main() -> int:
    sims, commits = (int(word) for word in (*sys.argv[1:], "1000000", "300")[:2])
    random = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "history"
        clock = VirtualClock(BEGIN_MS)
        cell = Cell.in_memory(capacity=Capacity(sims, sims, 1_000), clock=clock)
        fill(cell.step, sims)
        cell.step(commands.run(layout.CONFIGURE, setting=layout.LEASE_MS, value=86_400_000))
        epochs = np.concatenate([
            commands.outcome_runs(cell.step(allocate(1 + first, A_BATCH)).data)[0]["epoch"].copy()
            for first in range(0, sims, A_BATCH)
        ])  # fmt: skip
        recorded = RecordedCell(cell, clock, folder)
        totals = np.zeros(sims, np.int64)

        def report(who: npt.NDArray[np.int64]) -> None:
            totals[who] += 10_000_000
            recorded.step(
                commands.run(
                    layout.REPORT_USAGE,
                    len(who),
                    access_server=SERVER_NUMBER,
                    terminal=1 + who,
                    epoch=epochs[who],
                    up_bytes=0,
                    down_bytes=totals[who],
                    span_ms=3_600_000,
                )
            )

        clock.advance(3_600_000)
        everybody = random.permutation(sims)
        for first in range(0, sims, A_BATCH):
            report(everybody[first : first + A_BATCH])
        recorded.commit()
        a_commit = max(sims // 3_600, 1)
        with open_writer(folder) as history:
            hour = BEGIN_MS // 3_600_000 - HOURS
            history.execute(f"INSERT INTO use_hour SELECT {hour}, iccid, 0, 1, 0, 1 FROM use_hour")
        clock.advance(3_600_000)
        took_s, worked_s, begun_bytes = [], [], _written()
        for number in range(commits):
            clock.advance(1_000)
            report(everybody[number * a_commit : (number + 1) * a_commit])
            began_s, processor_s = time.perf_counter(), time.process_time()
            recorded.commit()
            took_s.append(time.perf_counter() - began_s)
            worked_s.append(time.process_time() - processor_s)
        forgetting = min(-(-sims // ROWS_MAX), commits)
        print(f"{sims:,} SIMs, {a_commit:,} reports a commit; file {_size(folder) / 1e6:,.0f} MB")
        for what, part in (("while old rows go", slice(0, forgetting)), ("else", slice(forgetting, None))):
            print(
                f"{what:18s} {np.median(took_s[part]) * 1e3:6.1f} ms a commit (median), "
                f"{np.median(worked_s[part]) * 1e3:6.1f} ms of the processor"
            )
        print(f"{(_written() - begun_bytes) / commits / 1e6:.1f} MB written a commit")
        recorded.close()
    return 0


def _written() -> int:
    """Bytes that this process has sent to the disk."""
    words = Path("/proc/self/io").read_text().split()
    return int(words[words.index("write_bytes:") + 1])


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


if __name__ == "__main__":
    sys.exit(main())

"""A small service over some days, as its follower writes them into history; what really was is noted beside."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from simswitch.cell import Capacity, Cell, JournalSettings, VirtualClock
from simswitch.core import commands, layout
from simswitch.history.projector import Projector
from simswitch.journal.disk import RealDisk
from simswitch.journal.follower import Follower, FollowerSettings

from tests.cell.small_pool import MARKET_INDEX, SERVER_NUMBER, allocate, fill

FIRST_DAY = date(2026, 9, 28)
NEXT_CYCLE = date(2026, 10, 20)
SIMS = 100
TERMINALS = 40
GIB = 1 << 30


class Days:
    """Terminals that come four times a day, use something and go. On the last day a cap is learned, service suffers."""

    def __init__(self, folder: Path, days: int, *, begins_ms: int = 0, markets: int = 1) -> None:
        """``begins_ms``: the setting. With two markets every other terminal is in the second."""
        random = Random(days)
        begin = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=UTC)
        self.clock = VirtualClock(round(begin.timestamp() * 1000))
        journal = JournalSettings(1 << 20, 0)
        self.cell = Cell.open(folder, capacity=Capacity(200, 2_000, 100), journal=journal, clock=self.clock)
        self.run(commands.run(layout.CONFIGURE, setting=layout.DAY_BEGINS_MS, value=begins_ms))
        fill(self.cell.step, SIMS)
        self.markets = [MARKET_INDEX]
        if markets == 2:
            other = commands.definition(layout.MARKET, "other", {layout.MARKET_FIRST_CLASS: 3})
            self.markets.append(int(self.run(commands.run(layout.DEFINE, definition=other))["index"][0]))
        cycle_ms = self.clock.now_ms() + (NEXT_CYCLE - FIRST_DAY).days * 86_400_000
        calendar = {"at_ms": cycle_ms, "spread_ms": 0, "lot": 4, "window": layout.WINDOW_CYCLE}
        assert self.run(commands.run(layout.SCHEDULE, **calendar))["status"].tolist() == [layout.OK]
        # Twenty that come once: so not everybody is there at once.
        once = self.run(allocate(501, 20))
        leases: dict[str, Any] = {"terminal": np.arange(501, 521), "epoch": once["epoch"]}
        self.run(commands.run(layout.RELEASE, 20, access_server=SERVER_NUMBER, **leases))
        self.used: dict[date, dict[int, int]] = {}
        self.sims: list[dict[str, np.ndarray]] = []
        """The SIM columns at the end of each day."""
        for day in range(days):
            at = date.fromordinal(FIRST_DAY.toordinal() + day)
            self.used[at] = {}
            for hour in (2, 8, 14, 20):
                self.clock.set(round(begin.timestamp() * 1000) + (day * 24 + hour) * 3_600_000)
                self.visit(random, at)
            if day == days - 1:
                self.last_day()
            self.sims.append(self.cell.machine.sims_columns())
        # The first hour of the next day: it ends the last one.
        self.clock.set(round(begin.timestamp() * 1000) + days * 86_400_000 + 1_000)
        self.visit(random, date.fromordinal(FIRST_DAY.toordinal() + days))
        self.cell.close()
        never = FollowerSettings(replay_s=1e9, bytes_max=1 << 60, interval_s=1e9)
        following = Follower(RealDisk(folder), settings=never, readers=[lambda: Projector(folder)])
        following.finish(read_on=True)
        following.close()

    def run(self, run: bytes) -> commands.OutcomeRun:
        return commands.outcome_runs(self.cell.step(run).data)[0]

    def visit(self, random: Random, day: date) -> None:
        terminals = np.arange(1, TERMINALS + 1, dtype=np.uint64)
        granted = self.run(
            commands.run(
                layout.ALLOCATE, TERMINALS, access_server=SERVER_NUMBER, terminal=terminals, subscriber=terminals + 1,
                expected_bytes=0, market=[self.markets[number % len(self.markets)] for number in range(TERMINALS)],
            )
        )  # fmt: skip
        assert set(granted["status"].tolist()) == {layout.OK}
        of_day = self.used.setdefault(day, {})
        bytes_ = [random.randrange(1 << 20, 1 << 22) * (1 + 3 * (terminal == 7)) for terminal in range(TERMINALS)]
        leases: dict[str, Any] = {"terminal": np.arange(1, TERMINALS + 1), "epoch": granted["epoch"]}
        # An hour's turn in between shows the leases.
        self.clock.advance(3_600_000)
        report = commands.run(
            layout.REPORT_USAGE, TERMINALS, access_server=SERVER_NUMBER, up_bytes=0, down_bytes=bytes_, **leases
        )
        assert set(self.run(report)["status"].tolist()) == {layout.OK}
        for terminal, used in enumerate(bytes_, 1):
            of_day[terminal + 1] = of_day.get(terminal + 1, 0) + used
        self.run(commands.run(layout.RELEASE, TERMINALS, access_server=SERVER_NUMBER, **leases))

    def last_day(self) -> None:
        iccids = self.cell.machine.sims_columns()["iccid"]
        self.run(commands.set_health(iccids[:3], layout.THROTTLED))
        self.run(commands.set_health(iccids[3:5], layout.QUARANTINED))
        cap = {"lot": 4, "window": layout.WINDOW_CYCLE, "quota_bytes": 80 * GIB, "basis": layout.BASIS_LEARNED}
        assert self.run(commands.run(layout.SET_CAP, **cap))["status"].tolist() == [layout.OK]
        # More than there are SIMs: some are refused.
        self.clock.advance(600_000)
        asked = self.run(allocate(1_001, SIMS + 5))
        granted = asked["status"] == layout.OK
        self.refused = int((asked["status"] == layout.NO_HEALTHY_SIM).sum())
        assert self.refused >= 5
        leases: dict[str, Any] = {"terminal": 1_001 + np.flatnonzero(granted), "epoch": asked["epoch"][granted]}
        self.run(commands.run(layout.RELEASE, int(granted.sum()), access_server=SERVER_NUMBER, **leases))

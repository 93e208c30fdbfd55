"""What the detector keeps in history, from a real journal: each row once, whatever kills the follower."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from simswitch.caps.evidence import Window
from simswitch.caps.observer import QUIET_MS, Observer
from simswitch.cell import Capacity, Cell, JournalSettings, VirtualClock
from simswitch.core import commands, layout
from simswitch.history.reading import rows
from simswitch.history.schema import open_reader
from simswitch.journal.disk import RealDisk
from simswitch.journal.follower import Follower, FollowerSettings

from tests.cell.small_pool import SERVER_NUMBER, allocate, fill

BEGIN_MS = 1_700_006_400_000
NEVER = FollowerSettings(replay_s=1e9, bytes_max=1 << 60, interval_s=1e9)
MATES = 12
DAY = int(layout.WINDOW_DAY)
LOT = 4
STEP_MS = 300_000
FAST, SLOW, LIMITED = 20_000, 950, 128


class Life:
    """A cell in which terminals 1 to 12 hold SIMs of one lot; each step is a report of five minutes of all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = VirtualClock(BEGIN_MS)
        self.cell = Cell.open(
            folder, capacity=Capacity(100, 100, 100), journal=JournalSettings(1 << 20, 0), clock=self.clock
        )
        fill(self.cell.step, 40)
        self.cell.step(commands.run(layout.CONFIGURE, setting=layout.LEASE_MS, value=86_400_000))
        soon_ms = BEGIN_MS + 40 * 86_400_000
        self.cell.step(commands.run(layout.SCHEDULE, lot=LOT, window=layout.WINDOW_DAY, at_ms=soon_ms, spread_ms=0))
        self.totals: dict[int, int] = {}
        self.epochs: dict[int, int] = {}
        self.iccids: dict[int, int] = {}
        self.attach(1, MATES)
        self.following: Follower | None = None

    def attach(self, first: int, count: int = 1) -> None:
        outcome = commands.outcome_runs(self.cell.step(allocate(first, count)).data)[0]
        for place, terminal in enumerate(range(first, first + count)):
            self.epochs[terminal] = int(outcome["epoch"][place])
            self.iccids[terminal] = int(outcome["iccid"][place])
            self.totals[terminal] = 0

    def show(
        self, levels: list[int], terminals: list[int] | None = None, mb: int = 10, every_ms: int = STEP_MS
    ) -> None:
        who = terminals or list(range(1, MATES + 1))
        for kbps in levels:
            self.clock.advance(every_ms)
            for terminal in who:
                self.totals[terminal] += mb * 1_000_000
            run = commands.run(
                layout.REPORT_USAGE,
                len(who),
                access_server=SERVER_NUMBER,
                terminal=who,
                epoch=[self.epochs[terminal] for terminal in who],
                up_bytes=0,
                down_bytes=[self.totals[terminal] for terminal in who],
                span_ms=STEP_MS,
                goodput_kbps=[kbps + terminal % 10 for terminal in who],
                demand_permille=1_000,
                radio=4,
            )
            statuses = commands.outcome_runs(self.cell.step(run).data)[0]["status"]
            assert set(statuses.tolist()) <= {layout.OK}

    def say(self, terminal: int, health: int) -> None:
        self.clock.advance(1)
        run = commands.set_health([self.iccids[terminal]], health, goodput_kbps=SLOW, windows=3)
        assert commands.outcome_runs(self.cell.step(run).data)[0]["status"][0] == layout.OK

    def limit(self, withdrawn: bool = False) -> None:
        """Everybody is slowed to 128 kbit/s from 100 MB of a month on, or no longer."""
        numbers = {
            layout.RULE_GROUP: -1,
            layout.RULE_MONTH_BYTES: 100_000_000,
            layout.RULE_DAY_BYTES: -1,
            layout.RULE_ACTION: layout.ACTION_SLOW,
            layout.RULE_SLOW_KBPS: LIMITED,
            layout.RULE_TEXT_BYTES: 4,
            layout.RULE_PUBLISHED_DAY: BEGIN_MS // 86_400_000,
            layout.RULE_WITHDRAWN: int(withdrawn),
        }
        record = np.frombuffer(commands.definition(layout.LIMIT_RULE, "fair", numbers, b"text"), "V1024")
        run = commands.run(layout.DEFINE, 1, definition=record)
        assert commands.outcome_runs(self.cell.step(run).data)[0]["status"][0] == layout.OK

    def let_go(self, terminal: int) -> None:
        epoch = [self.epochs[terminal]]
        self.cell.step(commands.run(layout.RELEASE, 1, access_server=SERVER_NUMBER, terminal=[terminal], epoch=epoch))

    def give(self, iccid: int, first: int) -> int:
        """To one of 40 terminals from ``first`` on; the others have other SIMs no longer than it takes."""
        for terminal in range(first, first + 40):
            self.clock.advance(600_000)
            self.attach(terminal)
            if self.iccids[terminal] == iccid:
                for other in range(first, terminal):
                    self.let_go(other)
                return terminal
        pytest.fail("nobody was given the SIM again")

    def follow(self) -> None:
        """As far as the journal goes; commits."""
        if self.following is None:
            self.following = Follower(RealDisk(self.folder), settings=NEVER, readers=[lambda: Observer(self.folder)])
        while self.following.turn():
            pass
        self.following.finish(read_on=False)

    def restart(self, told: bool = True) -> None:
        """The follower ends; what it had gathered is gone unless it was told to commit."""
        if told:
            self.follow()
        if self.following is not None:
            self.following.close()
            self.following = None

    def rows(self, table: str) -> list[dict[str, Any]]:
        connection = open_reader(self.folder)
        try:
            return list(rows(connection, table))
        finally:
            connection.close()


@pytest.fixture
def life(tmp_path: Path) -> Any:
    life = Life(tmp_path)
    life.show([FAST] * 12)
    yield life
    life.restart(told=False)
    life.cell.close()


def test_a_lot_that_is_slowed_stands_in_history_with_its_evidence(life: Life) -> None:
    life.show([SLOW] * 4)
    life.follow()
    decided = life.rows("throttles")
    assert sorted(row["iccid"] for row in decided) == sorted(life.iccids.values())
    for row in decided:
        assert (row["lot"], row["throttled"], row["windows"] >= 3, row["demand_s"] >= 900) == (LOT, 1, True, True)
        assert row["goodput_kbps"] == pytest.approx(SLOW, rel=0.05)
        assert row["confidence_permille"] >= 990
    observed = [row for row in life.rows("observations") if not row["censored"]]
    assert {(row["iccid"], row["window"]) for row in observed} == {
        (iccid, int(window)) for iccid in life.iccids.values() for window in (Window.CYCLE, Window.DAY)
    }
    for row in observed:
        # It was slowed somewhere in the last fast window or in the first slow one.
        assert (row["used_lower"], row["used_upper"]) == pytest.approx((110e6, 130e6), rel=1e-3)
        assert row["goodput_kbps"] == pytest.approx(SLOW, rel=0.05)


def test_whom_a_published_limit_slows_is_not_taken_for_slowed_by_the_carrier(life: Life) -> None:
    life.limit()
    life.show([LIMITED] * 6, mb=5)
    life.limit(withdrawn=True)
    # The report of before the terminals were told, and those that were held back at the access server.
    life.show([LIMITED] * 5, mb=5, every_ms=1)
    life.show([LIMITED], mb=5, every_ms=STEP_MS - 10)
    life.follow()
    assert life.rows("throttles") == []
    life.show([SLOW] * 4)
    life.follow()
    assert {row["iccid"] for row in life.rows("throttles")} == set(life.iccids.values())


def test_a_restart_neither_repeats_a_decision_nor_forgets_one(life: Life) -> None:
    life.show([SLOW] * 4)
    life.follow()
    for terminal in range(1, MATES + 1):
        life.say(terminal, layout.THROTTLED)
    life.restart()
    life.show([SLOW] * 8)
    life.restart()
    assert len(life.rows("throttles")) == MATES
    life.show([FAST] * 3)
    life.follow()
    decided = life.rows("throttles")
    assert sorted(row["iccid"] for row in decided if not row["throttled"]) == sorted(life.iccids.values())
    assert len(decided) == 2 * MATES


def test_what_a_person_overrules_is_decided_anew(life: Life) -> None:
    life.show([SLOW] * 4)
    life.follow()
    for terminal in (1, 2):
        life.say(terminal, layout.THROTTLED)
    life.say(1, layout.HEALTHY)
    life.show([SLOW] * 4)
    life.follow()
    again = [row["iccid"] for row in life.rows("throttles")]
    assert (again.count(life.iccids[1]), again.count(life.iccids[2])) == (2, 1)
    said = [(row["iccid"], row["health"], row["windows"]) for row in life.rows("health")]
    wanted = [(1, layout.THROTTLED), (2, layout.THROTTLED), (1, layout.HEALTHY)]
    assert sorted(said) == sorted((life.iccids[terminal], health, 3) for terminal, health in wanted)


def test_a_sim_that_is_slow_after_its_reset_is_decided_anew(life: Life) -> None:
    life.show([SLOW] * 4)
    life.follow()
    for terminal in range(1, MATES + 1):
        life.say(terminal, layout.THROTTLED)
    life.cell.step(commands.run(layout.SCHEDULE, lot=LOT, window=layout.WINDOW_CYCLE, at_ms=1, spread_ms=0))
    index = life.cell.machine.find_sim(life.iccids[1])
    assert index is not None
    assert life.cell.machine.sim(index)["health"] == layout.HEALTHY
    life.show([SLOW] * 4)
    life.follow()
    again = [row["iccid"] for row in life.rows("throttles") if row["throttled"]]
    assert sorted(again) == sorted(2 * list(life.iccids.values()))


@pytest.mark.parametrize("restarted", [False, True], ids=["", "the follower begins anew"])
def test_a_sim_whose_reset_has_not_come_is_found_though_each_terminal_has_it_for_ten_minutes(
    life: Life, restarted: bool
) -> None:
    life.show([SLOW] * 12, [1])
    life.follow()
    held = life.iccids[1]
    life.say(1, layout.THROTTLED)
    life.let_go(1)
    life.clock.advance(600_000)
    life.cell.step(commands.run(layout.SCHEDULE, lot=LOT, window=layout.WINDOW_CYCLE, at_ms=1, spread_ms=0))
    if restarted:
        life.restart()
    for turn in range(3):
        terminal = life.give(held, 100 + 40 * turn)
        life.show([SLOW] * 2, [terminal])
        life.let_go(terminal)
    life.follow()
    assert [row["throttled"] for row in life.rows("throttles") if row["iccid"] == held] == [1, 1]
    # Trusted by somebody, it is as any other on a terminal that may be no faster.
    terminal = life.give(held, 220)
    life.say(terminal, layout.HEALTHY)
    life.show([SLOW] * 6, [terminal])
    life.follow()
    assert len([row for row in life.rows("throttles") if row["iccid"] == held]) == 2


def test_a_sim_that_no_reset_brings_back_is_tried_a_day_after_it_was_let_go_of(life: Life) -> None:
    """Nobody knows when the windows of its lot begin. As long as it is slow it costs a terminal a day."""
    life.cell.step(commands.run(layout.SCHEDULE, lot=LOT, window=layout.WINDOW_DAY, at_ms=0, spread_ms=0))
    held = life.iccids[1]
    index = life.cell.machine.find_sim(held)
    assert index is not None
    life.show([SLOW] * 12, [1])
    terminal = 1
    for turn in range(3):
        life.follow()
        assert len([row for row in life.rows("throttles") if row["iccid"] == held and row["throttled"]]) == turn + 1
        life.say(terminal, layout.THROTTLED)
        life.let_go(terminal)
        for passed_ms in (3_600_000, 82_000_000):
            life.clock.advance(passed_ms)
            life.cell.step(commands.run(layout.TICK))
            assert life.cell.machine.sim(index)["health"] == layout.THROTTLED
        for _ in range(4):
            life.clock.advance(3_600_000)
            life.cell.step(commands.run(layout.TICK))
        tried = life.cell.machine.sim(index)
        assert (tried["health"], tried["trusted"]) == (layout.HEALTHY, False)
        terminal = life.give(held, 100 + 40 * turn)
        if turn < 2:
            life.show([SLOW] * 4, [terminal])
    life.show([FAST], [terminal], mb=800)
    assert life.cell.machine.sim(index)["trusted"]


def test_another_terminal_on_the_sim_begins_anew(life: Life) -> None:
    """As a device that was never faster: 360 kbit/s would be a throttle on the terminal that did 20 Mbit/s."""
    life.let_go(1)
    held = life.iccids[1]
    terminal = life.give(held, 100)
    life.show([360] * 10, [terminal])
    life.follow()
    assert not life.rows("throttles")
    life.show([360] * 10, [2])
    life.follow()
    assert [row["iccid"] for row in life.rows("throttles")] == [life.iccids[2]]


def test_each_row_once_however_often_the_follower_dies(life: Life) -> None:
    random = Random(11)
    told = 0
    for _ in range(40):
        life.show([random.choice((FAST, SLOW))] * random.randrange(1, 5))
        if random.random() < 0.5:
            terminal = random.randrange(1, MATES + 1)
            index = life.cell.machine.find_sim(life.iccids[terminal])
            assert index is not None
            throttled = life.cell.machine.sim(index)["health"] == layout.THROTTLED
            life.say(terminal, layout.HEALTHY if throttled else layout.THROTTLED)
            told += 1
        if random.random() < 0.3:
            life.restart(told=random.random() < 0.5)
    life.restart()
    assert len(life.rows("health")) == told > 10
    (position,) = life.rows("positions")
    assert (position["reader"], position["sequence"]) == ("caps", life.cell.durable_sequence)
    quiet = [
        (row["iccid"], row["window"], row["at_ms"] // 86_400_000)
        for row in life.rows("observations")
        if row["censored"]
    ]
    assert len(quiet) == len(set(quiet)) > 0
    slowed = [(row["iccid"], row["window"], row["at_ms"]) for row in life.rows("observations") if not row["censored"]]
    assert len(slowed) == len(set(slowed)) > 0


def test_every_ten_minutes_the_quiet_ones_are_kept_at_their_highest(life: Life) -> None:
    life.show([FAST] * 3)
    life.follow()
    life.show([FAST] * 24, mb=20)
    life.follow()
    observed = [row for row in life.rows("observations") if row["window"] == Window.DAY]
    assert sorted(row["iccid"] for row in observed) == sorted(life.iccids.values())
    used = np.array([row["used_lower"] for row in observed])
    # Up to the beginning of the last window that the last look saw.
    late = -(-QUIET_MS // STEP_MS)
    assert (used >= 15 * 10e6 + (24 - late) * 20e6 - 20e6).all()
    assert (used <= 15 * 10e6 + 24 * 20e6).all()
    assert all(row["censored"] and row["used_upper"] is None and not row["goodput_kbps"] for row in observed)


@pytest.mark.parametrize("cycle", [False, True])
def test_what_nobody_ends_is_no_evidence(life: Life, cycle: bool) -> None:
    """What its SIMs ever used would be learned as a day's cap, which each could meet once; and a day's cap as that of a
    cycle which is never over."""
    life.follow()
    assert life.rows("observations"), "while somebody knew the days"
    life.cell.step(commands.run(layout.SCHEDULE, lot=LOT, window=layout.WINDOW_DAY, at_ms=0, spread_ms=0))
    if cycle:
        soon_ms = BEGIN_MS + 40 * 86_400_000
        life.cell.step(commands.run(layout.SCHEDULE, lot=LOT, window=layout.WINDOW_CYCLE, at_ms=soon_ms, spread_ms=0))
    life.show([SLOW] * 4)
    life.follow()
    assert len(life.rows("throttles")) == MATES
    slowed = {row["window"] for row in life.rows("observations") if not row["censored"]}
    assert slowed == ({int(Window.CYCLE)} if cycle else set())
    # What an older version kept of it goes when the follower begins.
    life.restart()
    life.show([SLOW])
    life.follow()
    assert bool(life.rows("observations")) == cycle


def test_what_is_used_beyond_a_reset_that_a_frozen_clock_holds_back_is_no_evidence(life: Life) -> None:
    life.follow()
    before = life.rows("observations")
    soon_ms = life.clock.now_ms() + 60_000
    life.cell.step(commands.run(layout.FREEZE))
    life.cell.step(commands.run(layout.SCHEDULE, lot=LOT, window=layout.WINDOW_DAY, at_ms=soon_ms, spread_ms=0))
    life.show([SLOW] * 4)
    life.follow()
    assert len(life.rows("throttles")) == MATES
    assert life.rows("observations") == before
    life.cell.step(commands.run(layout.THAW))
    # The day that begins has all that was counted meanwhile, the cycle has it once.
    for windows in ({int(Window.CYCLE)}, {int(Window.DAY), int(Window.CYCLE)}):
        life.show([FAST] * 4 + [SLOW] * 4)
        life.follow()
        slowed = [row for row in life.rows("observations") if not row["censored"]]
        assert {row["window"] for row in slowed} == windows
        now_ms = life.clock.now_ms()
        life.cell.step(commands.run(layout.SCHEDULE, lot=LOT, window=layout.WINDOW_DAY, at_ms=now_ms, spread_ms=0))


def test_a_cap_that_changes_with_the_plan_stands_in_the_record_of_each_lot(life: Life) -> None:
    numbers = life.cell.machine.entities(layout.LOT)[0]["numbers"]
    plan = int(numbers[layout.LOT_PLAN])
    life.cell.step(commands.run(layout.SET_CAP, lot=LOT, window=DAY, quota_bytes=5 << 30, basis=layout.BASIS_LEARNED))
    for quotas in ({layout.PLAN_QUOTA_DAY: 3 << 30, layout.PLAN_BASIS_DAY: layout.BASIS_CONTRACTUAL}, {}):
        life.clock.advance(1_000)
        values = {layout.PLAN_QUOTA_CYCLE: 100 << 30, **quotas}
        name = life.cell.machine.entities(layout.PLAN)[0]["name"]
        life.cell.step(commands.run(layout.DEFINE, definition=commands.definition(layout.PLAN, name, values)))
    life.follow()
    days = [row for row in life.rows("caps") if row["window"] == DAY]
    for entity, learned in ((LOT, [(5 << 30, layout.BASIS_LEARNED)]), (plan, [])):
        kept = [(row["quota_bytes"], row["basis"]) for row in days if row["lot"] == entity]
        assert kept == [*learned, (3 << 30, layout.BASIS_CONTRACTUAL), (None, 0)]


def test_another_length_of_a_rolling_window_stands_in_the_record(life: Life) -> None:
    """With the same cap too, and also where the follower ends in between."""
    name = life.cell.machine.entities(layout.PLAN)[0]["name"]
    for quota, days in ((3 << 30, 3), (3 << 30, 30), (3 << 30, 30), (4 << 30, 30)):
        life.clock.advance(1_000)
        values = {layout.PLAN_QUOTA_CYCLE: 100 << 30, layout.PLAN_QUOTA_ROLLING: quota, layout.PLAN_ROLLING_DAYS: days}
        life.cell.step(commands.run(layout.DEFINE, definition=commands.definition(layout.PLAN, name, values)))
        life.restart()
    rolling = [row for row in life.rows("caps") if (row["lot"], row["window"]) == (LOT, Window.ROLLING)]
    believed = layout.BASIS_BELIEVED
    assert [(row["quota_bytes"], row["basis"], row["days"]) for row in rolling] == [
        *((3 << 30, believed, 3), (3 << 30, believed, 30), (4 << 30, believed, 30)),
    ]


def test_caps_and_shifts_are_kept_as_they_were_told(life: Life) -> None:
    cap = {"lot": LOT, "window": layout.WINDOW_CYCLE, "basis": layout.BASIS_LEARNED}
    for quota in (90 << 30, -1):
        life.cell.step(commands.run(layout.SET_CAP, quota_bytes=quota, **cap))
        life.clock.advance(1)
    shift = {"lot": LOT, "window": layout.WINDOW_DAY, "shift": layout.CAP_RAISED}
    life.cell.step(
        commands.run(layout.CAP_CHANGED, amount=4_000_000_000, before=3_000_000_000, seen_s=BEGIN_MS // 1000, **shift)
    )
    life.follow()
    kept = [(row["lot"], row["window"], row["quota_bytes"], row["basis"]) for row in life.rows("caps")]
    cycle = int(layout.WINDOW_CYCLE)
    assert kept[-2:] == [(LOT, cycle, 90 << 30, layout.BASIS_LEARNED), (LOT, cycle, 100 << 30, layout.BASIS_BELIEVED)]
    (shifted,) = life.rows("cap_shifts")
    assert (shifted["shift"], shifted["amount"], shifted["first_evidence_ms"]) == (
        layout.CAP_RAISED, 4_000_000_000, BEGIN_MS,
    )  # fmt: skip

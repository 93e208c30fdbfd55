"""History from a real journal: each thing once, whatever kills the follower, and equal to the machine's counts (I8)."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest
from simswitch.cell import Capacity, Cell, JournalSettings, VirtualClock
from simswitch.client import OperatorClient, Result, SessionThread
from simswitch.core import commands, layout
from simswitch.history import limits
from simswitch.history.carriers import Wanted, counted_by
from simswitch.history.exporting import write_csv
from simswitch.history.limits import person
from simswitch.history.projector import STRANGERS_MAX, Projector, month_of
from simswitch.history.reading import TABLES, Question, begin_ms_of, day_of, known, page, rows, subscribers_refused
from simswitch.history.retention import ROWS_MAX, forget
from simswitch.history.schema import APPLICATION_ID, NAME, SCHEMA, HistoryRefused, damaged, open_reader, open_writer
from simswitch.history.sims import past
from simswitch.journal.disk import RealDisk
from simswitch.journal.follower import Follower, FollowerSettings, read_alarm
from simswitch.journal.snapshot import snapshot_sequences

from tests.cell.small_pool import MARKET_INDEX, SERVER_NUMBER, allocate, fill
from tests.service.serving import Serving, define

BEGIN_MS = 1_700_000_000_000
COLUMNS_OF_ONE = ("subscriber", "terminal", "iccid", "source", "target")
PERSONAL = ("use_day", "use_month", "use_sim", "use_hour")
NEVER = FollowerSettings(replay_s=1e9, bytes_max=1 << 60, interval_s=1e9)


class Life:
    """A cell whose terminals report use; what it counted is noted beside, item by item."""

    def __init__(self, folder: Path, segment_bytes: int = 1 << 20, *, pooled: bool = False) -> None:
        self.clock = VirtualClock(BEGIN_MS)
        self.cell = Cell.open(
            folder, capacity=Capacity(2_000, 2_000, 100), journal=JournalSettings(segment_bytes, 0), clock=self.clock
        )
        fill(self.cell.step, 500, pooled=pooled)
        self.leases: dict[int, int] = {}
        self.reported: dict[int, int] = {}
        self.use: dict[tuple[int, int], int] = {}
        self.users: dict[tuple[int, ...], list[int]] = {}
        """Bytes, first and last instant by day, ICCID, terminal and subscriber."""

    def attach(self, first: int, count: int) -> None:
        outcome = commands.outcome_runs(self.cell.step(allocate(first, count)).data)[0]
        self.leases.update(zip(range(first, first + count), outcome["epoch"].tolist(), strict=True))

    def only(self, run: bytes) -> dict[str, int]:
        """The outcome of a run with one item."""
        outcome = commands.outcome_runs(self.cell.step(run).data)[0]
        return {name: int(outcome[name][0]) for name, _ in commands.OUTCOME_COLUMNS[outcome.kind]}

    def orders(self, run: bytes) -> list[dict[str, int]]:
        """The orders that come of it."""
        orders = commands.outcome_runs(self.cell.step(run).data)[-2]
        names = [name for name, _ in commands.OUTCOME_COLUMNS[commands.ORDERS]]
        return [
            dict(zip(names, row, strict=True)) for row in zip(*(orders[name].tolist() for name in names), strict=True)
        ]

    def report(self, random: Random, count: int) -> None:
        self.clock.advance(random.randrange(1, 4) * 60_000)
        terminals = [random.choice(list(self.leases)) for _ in range(count)]
        totals = []
        for terminal in terminals:
            self.reported[terminal] = self.reported.get(terminal, 0) + random.randrange(1, 10_000)
            totals.append(self.reported[terminal])
        run = commands.run(
            layout.REPORT_USAGE,
            count,
            access_server=SERVER_NUMBER,
            terminal=terminals,
            epoch=[self.leases[terminal] for terminal in terminals],
            up_bytes=0,
            down_bytes=totals,
        )
        outcome = commands.outcome_runs(self.cell.step(run).data)[0]
        day = day_of(self.cell.machine.now_ms, self.cell.machine.header()["settings"]["day_begins_ms"])
        now_ms = self.cell.machine.now_ms
        for terminal, counted in zip(terminals, outcome["counted_bytes"].tolist(), strict=True):
            index = self.cell.machine.find_terminal(terminal)
            assert index is not None
            found = self.cell.machine.terminal(index)
            key = (day, found["subscriber"])
            self.use[key] = self.use.get(key, 0) + counted
            if counted:
                user = self.users.setdefault((day, found["iccid"], terminal, found["subscriber"]), [0, now_ms, 0])
                user[0], user[2] = user[0] + counted, now_ms


def follower(folder: Path) -> Follower:
    return Follower(RealDisk(folder), settings=NEVER, readers=[lambda: Projector(folder)])


def ready(life: Life) -> int:
    """Opens the access server's session."""
    session = life.only(commands.run(layout.SESSION_OPEN, access_server=SERVER_NUMBER))["session"]
    life.cell.step(commands.run(layout.SESSION_READY, access_server=SERVER_NUMBER, argument=session))
    return session


def finished(folder: Path) -> None:
    following = follower(folder)
    while following.turn():
        pass
    following.finish(read_on=False)
    following.close()


def test_use_by_day_and_month_is_what_was_counted_however_often_the_follower_dies(tmp_path: Path) -> None:
    random = Random(7)
    life = Life(tmp_path)
    life.attach(1, 50)
    for _ in range(60):
        life.report(random, 20)
        if random.random() < 0.3:
            following = follower(tmp_path)
            following.turn()
            if random.random() < 0.5:
                following.finish(read_on=False)
            elif random.random() < 0.5:
                following.take_snapshot()
            # Otherwise what it had gathered is gone.
            following.close()
    finished(tmp_path)
    connection = open_reader(tmp_path)
    kept = {(row["day"], row["subscriber"]): row["bytes"] for row in rows(connection, "use_day")}
    assert kept == {key: counted for key, counted in life.use.items() if counted}
    months: dict[tuple[int, int], int] = {}
    for (day, subscriber), counted in kept.items():
        months[month_of(day), subscriber] = months.get((month_of(day), subscriber), 0) + counted
    assert {(row["month"], row["subscriber"]): row["bytes"] for row in rows(connection, "use_month")} == months
    assert sum(kept.values()) == life.cell.machine.header()["counted_bytes"]
    assert len(kept) > 60
    users = {
        (row["day"], row["iccid"], row["terminal"], row["subscriber"]): [row["bytes"], row["first_ms"], row["last_ms"]]
        for row in rows(connection, "use_sim")
    }
    assert users == life.users
    iccid = max(users, key=lambda key: users[key][0])[1]
    mine = sorted((key[0], *users[key]) for key in users if key[1] == iccid)
    uses = past(connection, iccid).uses
    assert sorted((use.day, use.counted_bytes, use.first_ms, use.last_ms) for use in uses) == mine
    columns = life.cell.machine.sims_columns()
    for iccid, counted in zip(columns["iccid"].tolist(), columns["counted_bytes"].tolist(), strict=True):
        if counted:
            before = Wanted(iccid, BEGIN_MS // 1000, counted)
            # Nobody said since when the first report is, so it may have been used before in its hour.
            ((then, straddling),) = counted_by(connection, [before])
            assert then == straddling
            later = Wanted(iccid, life.cell.machine.now_ms // 1000 + 7_200, counted)
            assert counted_by(connection, [later]) == [(counted, 0)]
    state = known(connection)
    assert (state.sequence, state.gaps) == (life.cell.durable_sequence, [])
    life.cell.close()


def position(folder: Path) -> int:
    try:
        return known(open_reader(folder)).sequence
    except HistoryRefused:
        return 0


def test_a_killed_process_leaves_nothing_twice_and_nothing_out(tmp_path: Path) -> None:
    random = Random(11)
    life = Life(tmp_path)
    life.attach(1, 50)
    for _ in range(5):
        for _ in range(30):
            life.report(random, 20)
        process = subprocess.Popen(
            [sys.executable, "-m", "simswitch.following", str(tmp_path), "--poll-ms", "1", "--snapshot-bytes", "50000"]
        )
        end_s = time.monotonic() + 60
        before = position(tmp_path)
        while position(tmp_path) <= before:
            assert process.poll() is None
            assert time.monotonic() < end_s
            life.report(random, 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished(tmp_path)
    kept = {(row["day"], row["subscriber"]): row["bytes"] for row in rows(open_reader(tmp_path), "use_day")}
    assert kept == {key: counted for key, counted in life.use.items() if counted}
    assert known(open_reader(tmp_path)).gaps == []
    life.cell.close()


def test_bytes_are_those_of_the_subscriber_that_the_lease_was_of(tmp_path: Path) -> None:
    """Also when the terminal goes to somebody else in the same record."""
    life = Life(tmp_path)
    life.attach(1, 1)
    life.clock.advance(60_000)
    lease = {"access_server": SERVER_NUMBER, "terminal": 1, "epoch": life.leases[1]}
    report = commands.run(layout.REPORT_USAGE, 1, up_bytes=0, down_bytes=5_000, **lease)
    release = commands.run(layout.RELEASE, 1, **lease)
    next_one = {"subscriber": 999, "expected_bytes": 0, "market": MARKET_INDEX}
    asks = commands.run(layout.ALLOCATE, 1, access_server=SERVER_NUMBER, terminal=1, **next_one)
    life.cell.step(report + release + asks)
    index = life.cell.machine.find_terminal(1)
    assert index is not None
    assert life.cell.machine.terminal(index)["subscriber"] == 999
    finished(tmp_path)
    kept = [(row["subscriber"], row["bytes"]) for row in rows(open_reader(tmp_path), "use_day")]
    assert kept == [(2, 5_000)]
    life.cell.close()


def test_refusals_count_a_terminal_once_a_minute_also_across_commits(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.attach(1, 500)
    following = follower(tmp_path)
    for _ in range(3):
        # There is no SIM left: the same ten are refused thrice within the minute.
        life.cell.step(allocate(10_001, 10))
        following.turn()
        following._commit_readers()
    life.clock.advance(60_000)
    life.cell.step(allocate(10_001, 5))
    following.turn()
    following.finish(read_on=True)
    following.close()
    connection = open_reader(tmp_path)
    found = [(row["status"], row["market"], row["count"], row["terminals"]) for row in rows(connection, "refusals")]
    assert found == [(layout.NO_HEALTHY_SIM, MARKET_INDEX, 30, 10), (layout.NO_HEALTHY_SIM, MARKET_INDEX, 5, 5)]
    assert subscribers_refused(connection, BEGIN_MS, BEGIN_MS + 3_600_000) == 10
    assert subscribers_refused(connection, BEGIN_MS + 7_200_000, BEGIN_MS + 9_000_000) == 0
    life.cell.close()


def test_refused_names_that_may_be_made_up_are_few_and_all_are_counted(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.attach(1, 500)
    for terminal in range(1, 51):
        life.cell.step(
            commands.run(layout.RELEASE, access_server=SERVER_NUMBER, terminal=terminal, epoch=life.leases[terminal])
        )
    life.clock.advance(120_000)
    life.attach(501, 50)
    following = follower(tmp_path)
    # Nobody gets a SIM any more: neither those who had one, nor whoever is made up, twice.
    for _ in range(2):
        life.cell.step(allocate(10_001, 3_000))
        life.cell.step(allocate(1, 50))
        following.turn()
        following._commit_readers()
    # And another market than there is, which is the access server's mistake.
    asked = {"access_server": SERVER_NUMBER, "subscriber": 0, "expected_bytes": 0, "market": 9_999}
    life.cell.step(commands.run(layout.ALLOCATE, 3_000, terminal=np.arange(20_001, 23_001), **asked))
    life.clock.advance(60_000)
    life.cell.step(allocate(13_001, 10))
    following.turn()
    following.finish(read_on=True)
    following.close()
    connection = open_reader(tmp_path)
    found = [(row["status"], row["count"], row["terminals"]) for row in rows(connection, "refusals")]
    named = STRANGERS_MAX + 50
    mistakes, none_left = layout.UNKNOWN_MARKET, layout.NO_HEALTHY_SIM
    assert sorted(found) == [(mistakes, 3_000, 0), (none_left, 10, 10), (none_left, 6_100, named)]
    assert connection.execute("SELECT count(*), sum(count) FROM affected").fetchone() == (named + 10, 2 * named + 10)
    assert connection.execute("SELECT count(*) FROM affected WHERE terminal <= 50").fetchone() == (50,)
    life.cell.close()


def test_decisions_say_who_decided_what_and_refused_ones_too(tmp_path: Path) -> None:
    life = Life(tmp_path)
    iccid = int(life.cell.machine.sim(0)["iccid"])
    setting = commands.run(layout.CONFIGURE, setting=layout.LEASE_MS, value=60_000)
    life.cell.step(setting)
    actor = commands.definition(layout.ACTOR, "auditor:eve", {layout.ACTOR_ROLE: layout.AUDITOR})
    life.cell.step(commands.run(layout.DEFINE, definition=np.frombuffer(actor, "V1024")))
    eve = life.cell.machine.entity_index(layout.ACTOR, "auditor:eve")
    assert eve is not None
    columns = {name: 0 for name, _ in commands.COMMAND_COLUMNS[layout.SET_HEALTH]}
    life.cell.step(
        commands.run(layout.SET_HEALTH, actor=eve, **{**columns, "iccid": iccid, "health": layout.QUARANTINED})
    )
    finished(tmp_path)
    found = list(rows(open_reader(tmp_path), "decisions"))
    assert [row["event"] for row in found] == list(range(1, len(found) + 1))
    last, before = found[-1], found[-3]
    assert (last["actor"], last["kind"], last["statuses"]) == ("auditor:eve", "set_health", '{"not_permitted":1}')
    assert f'"iccid":[{iccid}]' in last["detail"]
    assert (before["kind"], before["statuses"]) == ("configure", '{"ok":1}')
    assert '"value":[60000]' in before["detail"]
    assert all(row["kind"] not in ("allocate", "tick", "report_usage") for row in found)
    target = io.BytesIO()
    assert write_csv(list(found[0]), iter(found), target) == len(found)
    lines = list(csv.DictReader(io.StringIO(target.getvalue().decode())))
    assert lines[-1]["actor"] == "auditor:eve"
    life.cell.close()


def test_a_text_in_a_csv_is_no_formula() -> None:
    target = io.BytesIO()
    write_csv(
        ["name", "bytes", "hash"],
        iter([{"name": "=HYPERLINK(1)", "bytes": -5, "hash": b"\x01"}, {"name": "a=b", "bytes": 1, "hash": b""}]),
        target,
    )
    assert target.getvalue().decode().splitlines() == ["name,bytes,hash", "'=HYPERLINK(1),-5,01", "a=b,1,"]


def test_a_damaged_history_is_refused_with_what_to_do_and_snapshots_go_on(tmp_path: Path) -> None:
    life = Life(tmp_path)
    (tmp_path / NAME).write_bytes(b"this is no database " * 500)
    following = follower(tmp_path)
    following.turn()
    following.take_snapshot()
    following.close()
    assert snapshot_sequences(RealDisk(tmp_path)) == [life.cell.durable_sequence]
    assert "move it and its -wal and -shm away" in (read_alarm(RealDisk(tmp_path)) or "")
    with pytest.raises(HistoryRefused, match="file is not a database"):
        open_reader(tmp_path)
    for name in (NAME, f"{NAME}-wal", f"{NAME}-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    finished(tmp_path)
    # The snapshot is behind, and the first segment still there: a new history knows all of it.
    assert known(open_reader(tmp_path)).gaps == []
    life.cell.close()


def test_a_history_of_another_course_of_the_journal_is_refused(tmp_path: Path) -> None:
    for course, terminals in (("first", 5), ("second", 6)):
        life = Life(tmp_path / course)
        life.attach(1, terminals)
        if course == "second":
            os.replace(tmp_path / "first" / NAME, tmp_path / "second" / NAME)
            life.attach(50, 1)
        finished(tmp_path / course)
        life.cell.close()
    assert "is of another journal" in (read_alarm(RealDisk(tmp_path / "second")) or "")


def test_without_a_file_there_is_no_history_yet(tmp_path: Path) -> None:
    with pytest.raises(HistoryRefused, match="no history yet"):
        open_reader(tmp_path)


def test_the_day_is_that_of_the_place() -> None:
    japan_ms = 54_000_000
    midnight_ms = 1_585_666_800_000  # 2020-04-01 00:00 in Japan
    assert np.datetime64(day_of(midnight_ms, japan_ms), "D") == np.datetime64("2020-04-01")
    assert np.datetime64(day_of(midnight_ms - 1, japan_ms), "D") == np.datetime64("2020-03-31")
    assert np.datetime64(month_of(day_of(midnight_ms, japan_ms)), "M") == np.datetime64("2020-04")
    assert np.datetime64(day_of(midnight_ms, 5 * 3_600_000), "D") == np.datetime64("2020-03-31")


def test_days_are_asked_for_by_the_place_that_they_are_of(tmp_path: Path) -> None:
    japan_ms, day = 54_000_000, 20_000
    connection = open_writer(tmp_path)
    connection.execute("INSERT INTO day_begins VALUES (1, ?)", (japan_ms,))
    connection.executemany("INSERT INTO use_day VALUES (?, 5, 1)", [(day + offset,) for offset in (-1, 0, 1)])
    begin_ms = begin_ms_of(day, japan_ms)
    for equal in ({}, {"subscriber": 5}):
        found = rows(connection, "use_day", begin_ms, begin_ms + 86_400_000, **equal)
        assert [row["day"] for row in found] == [day]
        assert [row["day"] for row in rows(connection, "use_day", begin_ms - 1, begin_ms, **equal)] == [day - 1]
        assert [row["day"] for row in rows(connection, "use_day", begin_ms + 86_400_000, **equal)] == [day + 1]
        assert not list(rows(connection, "use_day", begin_ms + 3 * 86_400_000, **equal))
    connection.close()


def test_a_second_writer_leaves_the_locks_of_the_first_alone(tmp_path: Path) -> None:
    """Else whoever comes next takes himself for the only one, and removes the log in which the first one writes."""
    projector, observer = open_writer(tmp_path), open_writer(tmp_path)
    projector.execute("INSERT INTO use_day VALUES (1, 5, 1)")
    code = (
        "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM use_day').fetchone())"
    )
    look = [sys.executable, "-c", code, str(tmp_path / NAME)]
    assert subprocess.run(look, check=True, capture_output=True, timeout=60).stdout == b"1\n"
    projector.execute("INSERT INTO use_day VALUES (2, 5, 1)")
    assert subprocess.run(look, check=True, capture_output=True, timeout=60).stdout == b"2\n"
    observer.close()
    projector.close()


def test_who_looks_for_one_person_or_sim_reads_nobody_elses_rows(tmp_path: Path) -> None:
    """By the plan that SQLite makes: each search names the person or SIM, whatever else is asked."""
    connection = open_writer(tmp_path)
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    person(connection, 5)
    past(connection, 5)
    for table, column in (
        *(("use_day", "subscriber"), ("use_month", "subscriber"), ("use_sim", "subscriber"), ("use_sim", "iccid")),
        *(("use_hour", "iccid"), ("slowed_terminals", "terminal")),
    ):
        for span in ((None, None), (1, 20_000 * 86_400_000)):
            if table != "use_month" or span == (None, None):
                page(connection, Question(table, span[0], span[1], {column: 5}), 10)
                list(rows(connection, table, span[0], span[1], **{column: 5}))
    connection.set_trace_callback(None)
    wrong = []
    for statement in asked:
        if "SELECT" in statement:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
            large = set(TABLES) - {"day_begins", "positions", "entities", "limit_rules"}
            looked = [step for step in plan if set(step.split()[1:2]) & large]
            # Without a condition it is the first or the last day, found at the end of the key.
            named = [step for step in looked if "(" in step or step.startswith("SCAN")]
            wrong += [step for step in named if not any(f"{column}=?" in step for column in COLUMNS_OF_ONE)]
    assert not wrong
    assert len(asked) > 20
    connection.close()


def test_rules_and_exemptions_of_a_gap_are_known_behind_it(tmp_path: Path) -> None:
    connection = open_writer(tmp_path)

    def begun(now_ms: int, month_bytes: int) -> list[tuple[int, int]]:
        numbers = [-1] * 32
        numbers[layout.RULE_MONTH_BYTES] = month_bytes
        rule = {"kind": layout.LIMIT_RULE, "index": 7, "name": "fair", "numbers": numbers, "document": b""}
        exempt = {"holds": True, "subscriber": 5, "since_ms": 3, "until_ms": 9, "reason": "r", "actor_name": "a"}
        for statement in limits.begun([rule], [exempt], now_ms):
            connection.execute(*statement)
        assert connection.execute("SELECT count(*) FROM exemptions").fetchone() == (1,)
        return connection.execute("SELECT since_ms, month_bytes FROM limit_rules ORDER BY since_ms").fetchall()

    assert begun(100, 25) == begun(200, 25) == [(0, 25)]
    assert begun(300, 30) == [(0, 25), (300, 30)]
    connection.close()


def told(life: Life, session: int, wait_us: int, failed: int) -> None:
    columns = {"queue_wait_us": 0, "service_us": 0, "waiting": 0, "taken_count": 0, "allocation_wait_us": wait_us}
    run = commands.run(
        layout.REPORT_LOAD, access_server=SERVER_NUMBER, argument=session, failed_count=failed, **columns
    )
    assert commands.outcome_runs(life.cell.step(run).data)[0]["status"].tolist() == [layout.OK]


def test_service_by_the_minute_is_kept_once_however_often_the_follower_dies(tmp_path: Path) -> None:
    """Waits that access servers tell of, terminals on throttled SIMs, and the lots at each hour."""
    life = Life(tmp_path)
    life.attach(1, 50)
    opened = life.cell.step(commands.run(layout.SESSION_OPEN, access_server=SERVER_NUMBER))
    session = int(commands.outcome_runs(opened.data)[0]["session"][0])
    columns = life.cell.machine.sims_columns()
    held = columns["iccid"][columns["occupancy"] == layout.ASSIGNED]
    life.cell.step(commands.set_health(held[:7], layout.THROTTLED))
    first = BEGIN_MS // 60_000
    for minute in range(55):
        life.clock.set((first + 1 + minute) * 60_000)
        # Twice in a minute; the second adds to the first. A wait below the target of a second is none.
        told(life, session, 1_500_000 if minute % 2 else 900_000, 3 if minute == 8 else 0)
        if minute % 13 == 6:
            # In the middle of a minute.
            following = follower(tmp_path)
            following.turn()
            if minute % 2:
                following.finish(read_on=False)
            following.close()
        told(life, session, layout.NONE_INDEX, 2 if minute == 8 else 0)
        if minute == 30:
            life.cell.step(commands.set_health(held[:5], layout.HEALTHY))
        if minute == 45:
            # The next record is of another hour.
            finished(tmp_path)
    finished(tmp_path)
    history = open_reader(tmp_path)
    waits = {row["minute"] - first - 1: (row["wait_ms"], row["failed"]) for row in rows(history, "waits")}
    assert waits == {8: (900, 5), **dict.fromkeys(range(1, 55, 2), (1500, 0))}
    slowed = {row["minute"] - first - 1: (row["terminals"], row["leased"]) for row in rows(history, "slowed")}
    assert slowed == {minute: (7 if minute <= 30 else 2, 50) for minute in range(55)}
    minutes = [row["minutes"] for row in rows(history, "slowed_terminals")]
    assert sum(minutes) == 7 * 31 + 2 * 24
    assert max(minutes) == 46
    lots = list(rows(history, "lots"))
    # The last hour's turn stands for the day that runs.
    assert [row["at_ms"] // 3_600_000 for row in lots] == [life.cell.machine.now_ms // 3_600_000]
    columns = life.cell.machine.sims_columns()
    usable = columns["health"] == layout.HEALTHY
    assert lots[0]["sims"] == 500
    assert (lots[0]["throttled"], lots[0]["healthy"], lots[0]["assigned"]) == (2, usable.sum(), 50)
    assert lots[0]["headroom_bytes"] == columns["headroom_bytes"][usable].sum()
    assert lots[0]["used_cycle_bytes"] == lots[0]["counted_bytes"] == columns["counted_bytes"].sum() == 0
    markets = [tuple(row.values())[1:] for row in rows(history, "leases")]
    assert markets == [(MARKET_INDEX, 50, 50, usable.sum())]
    assert json.loads(lots[0]["detail"])["supplier"] == "supplier"
    life.cell.close()


def test_the_pool_by_lot_is_counted_every_minute(tmp_path: Path) -> None:
    random = Random(3)
    life = Life(tmp_path)
    life.attach(1, 30)
    life.report(random, 30)
    life.cell.step(commands.set_health([int(life.cell.machine.sim(0)["iccid"])], layout.THROTTLED))
    life.cell.step(commands.run(layout.SCHEDULE, lot=4, window=layout.WINDOW_CYCLE, at_ms=1, spread_ms=0))
    life.clock.set((life.clock.now_ms() // 60_000 + 1) * 60_000)
    life.cell.step(commands.run(layout.TICK))
    life.report(random, 30)
    pool, at_ms = life.cell.machine.lots_pool(), life.cell.machine.now_ms
    finished(tmp_path)
    (row,) = rows(open_reader(tmp_path), "lots")
    assert (row["at_ms"], row["probation"], row["healthy"]) == (at_ms, 1, int(pool["healths"][4][layout.HEALTHY]))
    assert row["headroom_bytes"] == int(pool["headroom_bytes"][4])
    assert not list(rows(open_reader(tmp_path), "leases"))
    # The lot works from another day on only: then nothing is left of its SIMs, and none of them is exhausted.
    (lot,) = life.cell.machine.entities(layout.LOT)
    from_s = life.cell.machine.now_ms // 1000 + 86_400
    numbers = {**dict(enumerate(lot["numbers"])), layout.LOT_ACTIVE_FROM_S: from_s}
    life.cell.step(commands.run(layout.DEFINE, definition=commands.definition(layout.LOT, "lot", numbers)))
    for _ in range(2):
        life.clock.advance(60_000)
        life.cell.step(commands.run(layout.TICK))
    finished(tmp_path)
    (row,) = rows(open_reader(tmp_path), "lots")
    fit = row["healthy"] + row["low"] + row["exhausted"]
    assert (fit, row["not_valid"], row["others"]) == (0, row["sims"] - row["throttled"], 0)
    life.cell.close()


def test_a_file_of_the_first_version_gets_what_it_lacks(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / NAME)
    connection.executescript(f"{SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;")
    connection.execute("INSERT INTO use_day VALUES (1, 2, 3)")
    connection.commit()
    connection.close()
    with pytest.raises(HistoryRefused, match="start the service with this program once"):
        open_reader(tmp_path)
    open_writer(tmp_path).close()
    history = open_reader(tmp_path)
    assert [row["bytes"] for row in rows(history, "use_day")] == [3]
    assert list(rows(history, "lots")) == []


def test_a_full_disk_is_called_so_and_nobody_is_told_to_move_history_away(tmp_path: Path) -> None:
    life = Life(tmp_path)
    projector = Projector(tmp_path)
    (pages,) = projector._connection.execute("PRAGMA page_count").fetchone()
    projector._connection.execute(f"PRAGMA max_page_count = {pages}")
    life.attach(1, 400)
    life.report(Random(7), 500)
    following = Follower(RealDisk(tmp_path), settings=NEVER, readers=[lambda: projector])
    following.finish(read_on=True)
    following.close()
    alarm = read_alarm(RealDisk(tmp_path)) or ""
    assert "database or disk is full. There is no room on its disk: make some" in alarm
    assert "move" not in alarm
    life.cell.close(snapshot=False)
    # With room again nothing is missing.
    finished(tmp_path)
    history = open_reader(tmp_path)
    assert list(rows(history, "gaps")) == []
    assert sum(row["bytes"] for row in rows(history, "use_day")) == sum(life.use.values())


def _of_sqlite(number: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = number
    return error


@pytest.mark.parametrize(
    ("error", "full", "spoiled"),
    [
        (_of_sqlite(sqlite3.SQLITE_IOERR_SHMSIZE), True, False),
        (_of_sqlite(sqlite3.SQLITE_IOERR_READ), False, True),
        (_of_sqlite(sqlite3.SQLITE_IOERR_WRITE), True, True),
        (_of_sqlite(sqlite3.SQLITE_IOERR_FSYNC), True, True),
        (OSError(errno.ENOSPC, "No space left on device"), True, False),
        (OSError(errno.EIO, "Input/output error"), False, True),
    ],
)
def test_only_where_there_is_no_room_is_history_left_in_its_place(
    error: sqlite3.Error | OSError, full: bool, spoiled: bool, tmp_path: Path
) -> None:
    said = str(damaged(tmp_path / NAME, error))
    assert ("make some" in said, "If it is damaged, stop the service, move it and its -wal" in said) == (full, spoiled)


def test_history_keeps_no_more_pages_in_memory_than_it_is_told(tmp_path: Path) -> None:
    projector = Projector(tmp_path, cache_mib=3)
    assert projector._connection.execute("PRAGMA cache_size").fetchone() == (-3 * 1_024,)
    projector.close()


def test_attempts_given_up_at_an_access_server_come_from_its_load_reports(tmp_path: Path) -> None:
    """Over a real socket. Of reports in quick succession one is sent, with the sum of all and the longest wait."""
    serving = Serving(tmp_path)
    with OperatorClient(serving.address) as operator:
        define(operator)
    with SessionThread(serving.address, "as-01", lambda _: Result.DONE) as session:
        session.serving(20)
        for failed in (2, 3, 4):
            # Only what has the last one in it waits as long as that, be it sent alone.
            session.report_load(0, 1_000, 0, 10_000 * failed, failed)
        until = time.monotonic() + 20
        while serving.cell.call_read(lambda machine: machine.server(0)["allocation_wait_us"]) != 40_000:
            assert time.monotonic() < until
            time.sleep(0.01)
    serving.end()
    finished(tmp_path)
    assert sum(row["failed"] for row in rows(open_reader(tmp_path), "waits")) == 9


def test_swaps_and_jobs_have_a_row_each_with_what_became_of_them(tmp_path: Path) -> None:
    life = Life(tmp_path)
    session = ready(life)
    life.attach(1, 3)
    job = life.only(commands.job_create("a lot is slow"))["job"]
    life.cell.step(commands.run(layout.JOB_ADD, 3, argument=job, terminal=[1, 2, 3]))
    orders = life.orders(commands.run(layout.JOB_RESUME, argument=job))
    assert [order["terminal"] for order in orders] == [1, 2, 3]
    life.clock.advance(8_000)
    answers = [layout.ACK_DONE, layout.ACK_REFUSED]
    numbers = [order["order"] for order in orders[:2]]
    answered = commands.run(
        layout.ACKNOWLEDGE, 2, access_server=SERVER_NUMBER, argument=session, order=numbers, result=answers
    )
    life.cell.step(answered)
    confirmed_ms = life.cell.machine.now_ms
    life.clock.advance(4_000)
    lease = {"access_server": SERVER_NUMBER, "terminal": 1, "epoch": orders[0]["epoch"]}
    life.cell.step(commands.run(layout.REPORT_USAGE, 1, up_bytes=0, down_bytes=5_000, **lease))
    finished(tmp_path)
    connection = open_reader(tmp_path)
    found = {row["order"]: row for row in rows(connection, "swaps")}
    done, refused, out = (found[order["order"]] for order in orders)
    assert [row["job"] for row in (done, refused, out)] == [job] * 3
    assert (done["result"], done["why"], done["confirmed_ms"]) == (1, layout.BY_ACKNOWLEDGEMENT, confirmed_ms)
    assert (done["outage_ms"], done["target"], done["subscriber"]) == (12_000, orders[0]["target_iccid"], 2)
    assert done["source"] == orders[0]["source_iccid"] != orders[0]["target_iccid"]
    assert (refused["result"], refused["why"], refused["confirmed_ms"]) == (2, layout.ACK_REFUSED, None)
    assert (out["result"], out["outage_ms"]) == (0, None)
    assert [row["order"] for row in rows(connection, "swaps", terminal=1)] == [numbers[0]]
    (kept,) = rows(connection, "jobs")
    assert (kept["job"], kept["state"]) == (job, layout.JOB_RUNNING)
    assert '"reason":"a lot is slow"' in kept["detail"]
    life.cell.close()


def test_what_is_of_people_goes_after_its_months_and_decisions_stay(tmp_path: Path) -> None:
    random = Random(5)
    life = Life(tmp_path)
    life.attach(1, 20)
    life.cell.step(commands.run(layout.CONFIGURE, setting=layout.LEASE_MS, value=7 * 86_400_000))
    for _ in range(3):
        life.report(random, 20)
    finished(tmp_path)
    before = {name: len(list(rows(open_reader(tmp_path), name))) for name in (*PERSONAL, "decisions")}
    assert all(before.values())
    # Thirteen months and some days later: the month of the reports is the fourteenth before.
    life.clock.set(BEGIN_MS + 441 * 86_400_000)
    life.cell.step(commands.run(layout.TICK))
    finished(tmp_path)
    kept = {name: len(list(rows(open_reader(tmp_path), name))) for name in PERSONAL}
    assert kept == dict.fromkeys(PERSONAL, 0)
    assert len(list(rows(open_reader(tmp_path), "decisions"))) >= before["decisions"]
    life.cell.close()


def test_a_commit_forgets_so_many_rows_and_the_next_ones_the_rest(tmp_path: Path) -> None:
    connection = open_writer(tmp_path)
    days = [(day, subscriber, 1) for day in (100, 20_000) for subscriber in range(ROWS_MAX + 500)]
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO use_day VALUES (?, ?, ?)", days)
    connection.execute("COMMIT")
    assert forget(connection, 20_000, 13)
    assert connection.execute("SELECT count(*) FROM use_day WHERE day = 100").fetchone() == (500,)
    assert not forget(connection, 20_000, 13)
    assert connection.execute("SELECT DISTINCT day FROM use_day").fetchall() == [(20_000,)]
    connection.close()


WITHOUT_FOLLOWER = """
import asyncio, os, signal, sys
from simswitch.cell import JournalSettings
from simswitch.service import server
from simswitch.service.settings import ServerSettings

async def away(command, path, silent):
    await asyncio.to_thread(silent.wait)

server.keep_follower = away
settings = ServerSettings(journal=JournalSettings(64 * 1024, 0))
asyncio.run(server.serve(sys.argv[1], settings, ready=lambda _: os.kill(os.getpid(), signal.SIGTERM)))
"""


def test_servers_that_end_cleanly_leave_what_no_follower_has_read(tmp_path: Path) -> None:
    """Each leaves a snapshot, so none needs the segments before any more; the follower that comes at last does."""
    life = Life(tmp_path, segment_bytes=64 * 1024)
    life.attach(1, 50)
    random = Random(13)
    for _ in range(60):
        life.report(random, 20)
    life.cell.close()
    segments = sorted(tmp_path.glob("*.journal"))
    assert len(segments) > 1
    for _ in range(3):
        subprocess.run([sys.executable, "-c", WITHOUT_FOLLOWER, str(tmp_path)], check=True, timeout=60)
    assert segments[0].exists()
    finished(tmp_path)
    assert known(open_reader(tmp_path)).gaps == []
    kept = {(row["day"], row["subscriber"]): row["bytes"] for row in rows(open_reader(tmp_path), "use_day")}
    assert kept == {key: counted for key, counted in life.use.items() if counted}

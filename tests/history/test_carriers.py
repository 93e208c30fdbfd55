"""Carriers' figures in history: what was taken and what was set aside, each once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

from simswitch.core import commands, layout
from simswitch.history.carriers import Counted, PoolWanted, Wanted, counted_by, knows_since, pool_counted_by
from simswitch.history.reading import rows
from simswitch.history.retention import HOUR_S, HOURS, ROWS_MAX, forget_hours
from simswitch.history.schema import ADDITIONS, APPLICATION_ID, NAME, SCHEMA, open_reader, open_writer

from tests.cell.small_pool import SERVER_NUMBER
from tests.history.test_projection import BEGIN_MS, Life, finished, ready

DAY_MS = 86_400_000


def figure(life: Life, iccid: int, carrier_bytes: int, counted_bytes: int) -> int:
    """The status of a figure of the cycle, as of now."""
    run = commands.run(
        layout.CARRIER_USAGE,
        1,
        iccid=iccid,
        carrier_bytes=carrier_bytes,
        counted_bytes=counted_bytes,
        as_of_s=life.cell.machine.now_ms // 1000,
        window=layout.WINDOW_CYCLE,
    )
    return life.only(run)["status"]


def test_figures_and_what_was_set_aside_are_there_once_with_their_figures_and_who_told_them(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.attach(1, 1)
    life.report(Random(1), 1)
    machine = life.cell.machine
    sim = machine.sim(machine.terminal(0)["sim"])
    own, used = sim["counted_bytes"], sim["used_cycle_bytes"]
    as_of_ms = machine.now_ms // 1000 * 1000
    key = {"iccid": sim["iccid"], "window": layout.WINDOW_CYCLE, "as_of_ms": as_of_ms}
    assert figure(life, sim["iccid"], used + 5_000_000, own) == layout.OK
    assert figure(life, sim["iccid"], used + 5_000_000, own) == layout.SAME
    finished(tmp_path)
    for _ in range(2):
        assert figure(life, sim["iccid"], -7, own) == layout.NEGATIVE_USAGE
    report = commands.run(
        layout.REPORT_USAGE,
        1,
        access_server=SERVER_NUMBER,
        terminal=1,
        epoch=99,
        up_bytes=0,
        down_bytes=2**64 - 1,
    )
    assert life.only(report)["status"] == layout.STALE_EPOCH
    finished(tmp_path)
    finished(tmp_path)
    server = next(entity["name"] for entity in machine.entities(layout.ACCESS_SERVER))
    with open_reader(tmp_path) as history:
        taken = list(rows(history, "corrections"))
        aside = list(rows(history, "set_aside"))
    told = {"carrier_bytes": used + 5_000_000, "our_bytes": used, "correction_bytes": 5_000_000, "actor": "system"}
    told["straddling_bytes"] = 0
    assert taken == [{**key, "at_ms": machine.now_ms, **told}]
    refused = {"at_ms": machine.now_ms, "terminal": 0, "lot": 0, "actor": "system", "status": layout.NEGATIVE_USAGE}
    stale = {"iccid": 0, "lot": 0, "window": None, "as_of_ms": None, "bytes": 2**63 - 1, "terminal": 1, "actor": server}
    assert aside == [
        {**key, **refused, "bytes": -7},
        {**stale, "at_ms": machine.now_ms, "status": layout.STALE_EPOCH},
    ]
    assert machine.sim(sim["index"])["used_cycle_bytes"] == used + 5_000_000
    assert machine.header()["counted_bytes"] == own
    life.cell.close()


def test_what_was_counted_by_then_is_within_the_reports_around_it_and_exact_where_none_straddles(
    tmp_path: Path,
) -> None:
    random = Random(3)
    life = Life(tmp_path)
    life.attach(1, 4)
    machine = life.cell.machine
    iccids = {terminal: machine.sim(machine.terminal(terminal - 1)["sim"])["iccid"] for terminal in range(1, 5)}
    # By terminal: instants of reports, counts after them, and since when each is of. One reports no more after a while,
    # and one seldom, of many hours then.
    told: dict[int, list[tuple[int, int, int]]] = {
        terminal: [(BEGIN_MS // 1000, 0, BEGIN_MS // 1000)] for terminal in iccids
    }
    now_s = BEGIN_MS // 1000
    for step in range(60):
        passed_s = random.randrange(20, 2_000)
        life.clock.advance(passed_s * 1000)
        now_s += passed_s
        for terminal, before in told.items():
            if random.random() < (0.1 if terminal == 2 else 0.5) and (terminal > 1 or step < 9):
                span_s = random.randrange(1, now_s - before[-1][0] + 1)
                total = before[-1][1] + random.randrange(1, 10**9)
                report = commands.run(
                    layout.REPORT_USAGE,
                    1,
                    access_server=SERVER_NUMBER,
                    terminal=terminal,
                    epoch=life.leases[terminal],
                    up_bytes=0,
                    down_bytes=total,
                    span_ms=span_s * 1000,
                )
                assert life.only(report)["status"] == layout.OK
                assert now_s == machine.now_ms // 1000
                before.append((now_s, total, now_s - span_s))
    finished(tmp_path)
    wanted = [
        (terminal, random.randrange(BEGIN_MS // 1000 + 3_600, now_s + 4_000)) for terminal in told for _ in range(150)
    ]
    asked = [Wanted(iccids[terminal], at_s, told[terminal][-1][1]) for terminal, at_s in wanted]
    with open_reader(tmp_path) as history:
        fine = counted_by(history, asked)
        assert counted_by(history, [Wanted(1, now_s, 7)]) == [(7, 0)], "a SIM without a row has what it has now"
    with open_writer(tmp_path) as history:
        # By the day, when all else of those days has gone.
        history.execute("DELETE FROM use_hour")
        rough = counted_by(history, asked)
    exact = 0
    for (terminal, at_s), by_hour, by_day in zip(wanted, fine, rough, strict=True):
        reports = told[terminal]
        earlier = [total for then_s, total, _ in reports if then_s <= at_s]
        later = [(then_s, total, since_s) for then_s, total, since_s in reports if then_s > at_s]
        for counted, straddling in (by_hour, by_day):
            assert counted - straddling <= earlier[-1], "what surely was used after the instant is in no figure's past"
            assert counted <= reports[-1][1]
        if not later:
            assert by_hour == by_day == (earlier[-1], 0)
            continue
        # Nothing more is known than what the hour of the next report tells together.
        hour = later[0][0] // 3_600
        mine = [(then_s, total, since_s) for then_s, total, since_s in reports[1:] if then_s // 3_600 == hour]
        base = max(total for then_s, total, _ in reports if then_s // 3_600 < hour)
        assert base <= by_hour.bytes_ <= mine[-1][1]
        assert by_hour.straddling_bytes == by_hour.bytes_ - base
        if min(since_s for _, _, since_s in mine) >= at_s:
            exact += 1
            assert by_hour == (earlier[-1], 0)
        elif len(mine) == 1:
            (then_s, total, since_s) = mine[0]
            assert by_hour.bytes_ == base + (total - base) * (at_s - since_s) // (then_s - since_s)
    assert exact > 100
    life.cell.close()


def test_a_report_that_straddles_an_instant_is_split_by_the_time_that_it_is_of_however_late_it_comes(
    tmp_path: Path,
) -> None:
    with open_writer(tmp_path) as history:
        begin_s = BEGIN_MS // 1000 // 3_600 * 3_600
        rows_ = [
            (begin_s // 3_600 - 1, 9, 0, 1, begin_s - 60, begin_s - 30),
            (begin_s // 3_600, 7, 0, 700, begin_s + 100, begin_s + 800),
            # Ten hours, told at their end; then nothing more, and a SIM that is used for the first time.
            (begin_s // 3_600 + 10, 7, 700, 36_700, begin_s + 800, begin_s + 36_800),
            (begin_s // 3_600 + 10, 8, 0, 60, begin_s + 36_000, begin_s + 36_060),
        ]
        history.executemany("INSERT INTO use_hour VALUES (?, ?, ?, ?, ?, ?)", rows_)

        def by(*instants_s: int, iccid: int = 7) -> list[Counted]:
            return counted_by(history, [Wanted(iccid, begin_s + at_s, 36_700) for at_s in instants_s])

        assert by(0, 100, 450, 800) == [(0, 0), (0, 0), (350, 350), (700, 0)]
        assert by(900, 18_800, 36_799) == [(800, 100), (18_700, 18_000), (36_699, 35_999)]
        assert by(36_800, 90_000) == [(36_700, 0)] * 2
        assert by(450, 36_030, iccid=8) == [(0, 0), (30, 30)]


def test_of_days_that_are_kept_by_the_day_only_what_a_day_tells_is_split(tmp_path: Path) -> None:
    with open_writer(tmp_path) as history:
        day = BEGIN_MS // DAY_MS
        at_ms = day * DAY_MS
        history.executemany(
            "INSERT INTO use_sim VALUES (?, 7, ?, 5, ?, ?, ?)",
            [
                (day, 1, 1_000, at_ms + 1_000_000, at_ms + 2_000_000),
                (day, 2, 40, at_ms + 2_000_000, at_ms + 2_000_000),
                (day + 3, 1, 300, at_ms + 3 * DAY_MS, at_ms + 3 * DAY_MS + 1_000),
            ],
        )
        wanted = [Wanted(7, at_ms // 1000 + at_s, 5_000) for at_s in (0, 1_000, 1_500, 2_000, 86_400, 4 * 86_400)]
        assert counted_by(history, wanted) == [(3_660, 0), (3_660, 0), (4_160, 500), (4_700, 0), (4_700, 0), (5_000, 0)]


def test_counts_by_the_hour_go_as_fast_as_they_come(tmp_path: Path) -> None:
    """By a clock on which SIMs report once an hour for days, and the rows of a whole hour come with each commit."""
    with open_writer(tmp_path) as history:
        history.execute("BEGIN")
        for hour in range(2 * HOURS):
            history.executemany("INSERT INTO use_hour VALUES (?, ?, 0, 1, 0, 1)", ((hour, sim) for sim in range(5)))
            forget_hours(history, hour, 5)
            oldest, rows_count = history.execute("SELECT min(hour), count(*) FROM use_hour").fetchone()
            assert (oldest, rows_count) == (max(hour - HOURS, 0), 5 * (min(hour, HOURS) + 1))
        # Who was away for long comes back with much that is old: a commit takes twice what it wrote, at least ROWS_MAX.
        history.executemany("INSERT INTO use_hour VALUES (0, ?, 0, 1, 0, 1)", ((sim,) for sim in range(ROWS_MAX + 90)))
        forget_hours(history, hour, ROWS_MAX // 2 + 40)
        assert history.execute("SELECT count(*) FROM use_hour WHERE hour = 0").fetchone() == (10,)


def test_a_gap_in_history_is_one_of_what_was_counted_before_it_ended(tmp_path: Path) -> None:
    with open_writer(tmp_path) as history:
        history.execute("INSERT INTO gaps VALUES (1, 5, 1000, 2000)")
        assert not knows_since(history, 3_000, 1_500)
        assert not knows_since(history, 1_500, 0)
        assert knows_since(history, 3_000, 2_000)
        assert knows_since(history, 1_000, 0)


def test_what_a_lease_may_have_used_and_nobody_reported_stands_in_history_until_it_is_reported(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.attach(1, 2)
    machine = life.cell.machine
    iccids = [machine.sim(machine.terminal(index)["sim"])["iccid"] for index in range(2)]
    life.clock.advance(60_000)
    ready(life)
    life.clock.advance(1_000)
    life.cell.step(commands.run(layout.TICK))
    allowed = machine.sim(0)["allowances_bytes"][0]
    for reported in (5, allowed):
        reports = commands.run(
            layout.REPORT_USAGE,
            1,
            access_server=SERVER_NUMBER,
            terminal=1,
            epoch=life.leases[1],
            up_bytes=reported,
            down_bytes=0,
        )
        assert life.only(reports)["status"] == layout.ENDED
    finished(tmp_path)
    with open_reader(tmp_path) as history:
        found = [(row["iccid"], row["terminal"], row["bytes"]) for row in rows(history, "unreported")]
    assert allowed > 0
    assert found[:2] == [(iccids[0], 1, allowed), (iccids[1], 2, allowed)]
    # It is told in few events, which add up.
    assert [row[:2] for row in found[2:]] == [(iccids[0], 1)] * 2
    assert sum(row[2] for row in found[2:]) == -allowed
    counts = machine.header()["counted_bytes"]
    assert (counts, [machine.sim(index)["allowances_bytes"][0] for index in range(2)]) == (allowed, [0, allowed])
    life.cell.close()


LOT = 4
"""Of the small pool."""


def test_what_a_pool_had_counted_by_the_begin_of_an_hour_is_what_its_sims_had_and_in_between_within_the_hour(
    tmp_path: Path,
) -> None:
    random = Random(5)
    life = Life(tmp_path, pooled=True)
    life.attach(1, 6)
    machine = life.cell.machine
    begin_s = now_s = BEGIN_MS // 1000
    totals = dict.fromkeys(range(1, 7), 0)
    told: list[tuple[int, int, int]] = []
    """Since when and up to when each report is of, and what it counted."""
    for step in range(90):
        passed_s = random.randrange(20, 3_000)
        life.clock.advance(passed_s * 1000)
        now_s += passed_s
        for terminal in totals:
            if random.random() < 0.3:
                more, span_s = random.randrange(1, 10**9), random.choice((1, 60, 3_600, random.randrange(1, 40_000)))
                totals[terminal] += more
                report = commands.run(
                    layout.REPORT_USAGE,
                    1,
                    access_server=SERVER_NUMBER,
                    terminal=terminal,
                    epoch=life.leases[terminal],
                    up_bytes=0,
                    down_bytes=totals[terminal],
                    span_ms=min(span_s, now_s - begin_s) * 1000,
                )
                assert life.only(report)["status"] == layout.OK
                told.append((max(now_s - span_s, begin_s), now_s, more))
        if step % 30 == 20:
            finished(tmp_path)
    finished(tmp_path)
    assert machine.lot(LOT)["pool_counted_bytes"] == sum(totals.values())

    def by(from_s: int, until_s: int, more: int, at_s: int) -> int:
        passed_s, whole_s = min(max(at_s - from_s, 0), until_s - from_s), until_s - from_s
        return more // whole_s * passed_s + more % whole_s * passed_s // whole_s

    instants = [random.randrange(begin_s + HOUR_S, now_s + 4_000) for _ in range(200)]
    with closing(open_reader(tmp_path)) as history:
        found = pool_counted_by(history, [PoolWanted(LOT, at_s, 7) for at_s in instants], now_s * 1000)
        hours = [at_s // HOUR_S * HOUR_S for at_s in instants]
        begun = pool_counted_by(history, [PoolWanted(LOT, at_s, 7) for at_s in hours], now_s * 1000)
        assert pool_counted_by(history, [PoolWanted(9, now_s, 7)], now_s * 1000) == [(7, 0)], "it has counted no more"
        assert pool_counted_by(history, [PoolWanted(LOT, now_s - (HOURS + 1) * HOUR_S, 7)], now_s * 1000) == [None]
    for at_s, hour_s, then, at_begin in zip(instants, hours, found, begun, strict=True):
        assert then is not None
        assert at_begin is not None
        surely = sum(more for _, until_s, more in told if until_s <= hour_s)
        assert at_begin.bytes_ == sum(by(*each, hour_s) for each in told)
        assert at_begin.bytes_ - at_begin.straddling_bytes == then.bytes_ - then.straddling_bytes == surely
        in_hour = sum(by(*each, hour_s + HOUR_S) for each in told) - at_begin.bytes_
        assert then.bytes_ == at_begin.bytes_ + in_hour * (at_s - hour_s) // HOUR_S
    life.cell.close()


def test_of_pools_nothing_is_known_from_before_their_hours_were_kept(tmp_path: Path) -> None:
    """A file of the version before has no such rows: that is not the same as that nothing was used."""
    connection = sqlite3.connect(tmp_path / NAME)
    added = "".join(text for number, text in ADDITIONS.items() if number < 10)
    connection.executescript(
        f"{SCHEMA} {added} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 9;"
        f"INSERT INTO positions VALUES ('history', 5, {BEGIN_MS}, 0, x'00');"
        "INSERT INTO set_aside VALUES (1, 2, 1, 3, -4, 57, 0, 'alice');"
    )
    connection.close()
    open_writer(tmp_path).close()
    with closing(open_reader(tmp_path)) as history:
        begin_s = BEGIN_MS // 1000
        wanted = [PoolWanted(LOT, at_s, 7) for at_s in (begin_s - HOUR_S, begin_s, begin_s + HOUR_S)]
        assert pool_counted_by(history, wanted, BEGIN_MS + 7_200_000) == [None, None, (7, 0)]
        assert [(row["bytes"], row["lot"]) for row in rows(history, "set_aside")] == [(-4, 0)]


def test_figures_of_a_pool_have_rows_of_their_own(tmp_path: Path) -> None:
    life = Life(tmp_path, pooled=True)
    life.attach(1, 3)
    life.report(Random(1), 9)
    machine = life.cell.machine
    counted = machine.lot(LOT)["pool_counted_bytes"]
    as_of_s = machine.now_ms // 1000

    def told(carrier_bytes: int, **more: int) -> int:
        figure = {"carrier_bytes": carrier_bytes, "counted_bytes": counted, "straddling_bytes": 3, "as_of_s": as_of_s}
        run = commands.run(layout.POOL_USAGE, 1, lot=LOT, window=layout.WINDOW_CYCLE, **figure, **more)
        return life.only(run)["status"]

    assert told(counted + 50, argument=1) == layout.OK
    assert (told(counted + 50), told(counted + 50)) == (layout.OK, layout.SAME)
    assert (told(-1), told(-1)) == (layout.NEGATIVE_USAGE, layout.NEGATIVE_USAGE)
    finished(tmp_path)
    with closing(open_reader(tmp_path)) as history:
        (taken,) = rows(history, "pool_corrections")
        (aside,) = rows(history, "set_aside")
        assert [list(rows(history, "corrections")), history.execute("PRAGMA user_version").fetchone()[0]] == [[], 10]
    key = {"lot": LOT, "window": layout.WINDOW_CYCLE, "as_of_ms": as_of_s * 1000, "at_ms": machine.now_ms}
    figures = {"carrier_bytes": counted + 50, "our_bytes": counted, "correction_bytes": 50, "straddling_bytes": 3}
    assert taken == {**key, **figures, "actor": "system"}
    assert aside == {
        **key,
        "iccid": 0,
        "bytes": -1,
        "status": layout.NEGATIVE_USAGE,
        "terminal": 0,
        "actor": "system",
    }
    assert machine.lot(LOT)["pool_used_bytes"][0] == counted + 50 + 3
    life.cell.close()

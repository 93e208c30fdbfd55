"""Carriers' figures in history: what was taken and what was set aside, each once."""

from __future__ import annotations

from pathlib import Path
from random import Random

from simswitch.core import commands, layout
from simswitch.history.carriers import counted_by, knows_since
from simswitch.history.reading import rows
from simswitch.history.retention import SLOT_S
from simswitch.history.schema import open_reader, open_writer

from tests.cell.small_pool import SERVER_NUMBER
from tests.history.test_projection import BEGIN_MS, Life, finished, ready

HOUR_MS = 3_600_000


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
    refused = {"at_ms": machine.now_ms, "terminal": 0, "actor": "system", "status": layout.NEGATIVE_USAGE}
    stale = {"iccid": 0, "window": None, "as_of_ms": None, "bytes": 2**63 - 1, "terminal": 1, "actor": server}
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
    # By terminal: instants of reports, counts after them, and since when each is of. One reports no more after a while.
    told: dict[int, list[tuple[int, int, int]]] = {
        terminal: [(BEGIN_MS // 1000, 0, BEGIN_MS // 1000)] for terminal in iccids
    }
    now_s = BEGIN_MS // 1000
    for step in range(60):
        passed_s = random.randrange(20, 2_000)
        life.clock.advance(passed_s * 1000)
        now_s += passed_s
        for terminal, before in told.items():
            if random.random() < 0.5 and (terminal > 1 or step < 9):
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
    last_s = max(reports[-1][0] for reports in told.values())
    exact = 0
    with open_reader(tmp_path) as history:
        wanted = [
            (terminal, random.randrange(BEGIN_MS // 1000, last_s + 4_000)) for terminal in told for _ in range(150)
        ]
        found = counted_by(history, [(iccids[terminal], at_s) for terminal, at_s in wanted], 31 * 86_400)
        assert not [each for each in counted_by(history, [(1, last_s)], 31 * 86_400) if each]
        # Reports by the hour, when all else of those days has gone.
        history_now = open_writer(tmp_path)
        history_now.execute("DELETE FROM sim_slot")
        coarse = counted_by(history_now, [(iccids[terminal], at_s) for terminal, at_s in wanted], 31 * 86_400)
        history_now.close()
    for (terminal, at_s), fine, rough in zip(wanted, found, coarse, strict=True):
        reports = told[terminal]
        earlier = [total for then_s, total, _ in reports if then_s <= at_s]
        after = [(total, since_s) for then_s, total, since_s in reports if then_s > at_s]
        next_slot = next((then_s // SLOT_S for then_s, _, _ in reports if then_s > at_s), 0)
        by_then = max([total for then_s, total, _ in reports if then_s // SLOT_S <= next_slot], default=earlier[-1])
        counted, straddling = fine or (0, 0)
        assert counted - straddling <= earlier[-1], "what surely was used after the instant is in no figure's past"
        assert counted <= (by_then if after else earlier[-1])
        slot = at_s // SLOT_S
        alone = not [1 for then_s, _, _ in reports if then_s // SLOT_S == slot]
        if alone and (not after or after[0][1] >= at_s):
            exact += 1
            assert (counted, straddling) == (earlier[-1], 0)
        counted, straddling = rough or (0, 0)
        assert counted - straddling <= earlier[-1]
    assert exact > 200
    life.cell.close()


def test_a_report_that_straddles_an_instant_is_split_by_the_time_that_it_is_of(tmp_path: Path) -> None:
    with open_writer(tmp_path) as history:
        begin_s = BEGIN_MS // 1000 // 3_600 * 3_600
        rows_ = [
            (begin_s // SLOT_S, 7, 100, begin_s, begin_s + 60),
            # 600 bytes over ten minutes, which one report tells in the slot after next.
            ((begin_s + 900) // SLOT_S, 7, 700, begin_s + 300, begin_s + 900),
            # Nobody said since when: then since the row before.
            ((begin_s + 1_900) // SLOT_S, 7, 1_700, 0, begin_s + 1_900),
        ]
        history.executemany("INSERT INTO sim_slot VALUES (?, ?, ?, ?, ?)", rows_)
        history.execute("INSERT INTO sim_hour VALUES (?, 7, 1700)", (begin_s // 3_600,))
        instants = (begin_s + 200, begin_s + 450, begin_s + 899, begin_s + 900, begin_s + 1_400, begin_s + 2_000)
        found = counted_by(history, [(7, at_s) for at_s in instants], 86_400)
        assert found == [(100, 0), (250, 150), (699, 599), (700, 0), (1_200, 500), (1_700, 0)]
        assert counted_by(history, [(7, begin_s + 9 * 3_600)], 86_400) == [(1_700, 0)]
        assert counted_by(history, [(7, begin_s + 30 * 3_600)], 86_400) == [None]


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
    reports = commands.run(
        layout.REPORT_USAGE, 1, access_server=SERVER_NUMBER, terminal=1, epoch=life.leases[1], up_bytes=5, down_bytes=0
    )
    assert life.only(reports)["status"] == layout.ENDED
    finished(tmp_path)
    with open_reader(tmp_path) as history:
        found = [(row["iccid"], row["terminal"], row["bytes"]) for row in rows(history, "unreported")]
    assert allowed > 0
    assert found == [(iccids[0], 1, allowed), (iccids[1], 2, allowed), (iccids[0], 1, -allowed)]
    counts = machine.header()["counted_bytes"]
    assert (counts, [machine.sim(index)["allowances_bytes"][0] for index in range(2)]) == (5, [0, allowed])
    life.cell.close()

"""Carriers' figures in history: what was taken and what was set aside, each once."""

from __future__ import annotations

from pathlib import Path
from random import Random

from simswitch.core import commands, layout
from simswitch.history.carriers import counted_before, knows_since
from simswitch.history.reading import rows
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


def test_what_was_counted_by_then_is_that_of_the_last_hour_that_was_over(tmp_path: Path) -> None:
    random = Random(3)
    life = Life(tmp_path)
    life.attach(1, 6)
    machine = life.cell.machine
    iccids = [machine.sim(machine.terminal(index)["sim"])["iccid"] for index in range(6)]
    # By the hour, what each had at its end; one reports in the first hour only.
    counted: dict[int, list[int]] = {}
    for _ in range(40):
        life.report(random, 3)
        hour = machine.now_ms // HOUR_MS
        counted[hour] = [machine.sim(machine.terminal(index)["sim"])["counted_bytes"] for index in range(6)]
        life.clock.advance(random.randrange(1, 60) * 60_000)
    finished(tmp_path)
    with open_reader(tmp_path) as history:
        for hour in range(min(counted), max(counted) + 2):
            for at_ms in (hour * HOUR_MS, (hour + 1) * HOUR_MS - 1):
                earlier = [each for each in counted if each < hour]
                wanted = counted[max(earlier)] if earlier else [0] * 6
                found = counted_before(history, iccids, at_ms, BEGIN_MS)
                assert [found.get(iccid, 0) for iccid in iccids] == wanted
        last_ms = max(counted) * HOUR_MS
        late = counted_before(history, iccids, last_ms, last_ms - HOUR_MS)
        assert len(late) < 6, "who had no traffic in that span is missing"
        assert knows_since(history, last_ms, BEGIN_MS)
    life.cell.close()


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

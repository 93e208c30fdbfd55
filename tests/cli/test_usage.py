"""`simswitch usage import` against a real server with its follower."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from simswitch.cli.exits import Exit
from simswitch.client import Client, OperatorClient
from simswitch.core import commands
from simswitch.core.layout import FREEZE
from simswitch.demo.processes import Server
from simswitch.v1 import inventory_pb2

from tests.cli.conftest import Run, program
from tests.service.serving import Serving, define, define_pool
from tests.service.test_sims import followed

TERMINAL = 77
MB = 1_000_000


@pytest.mark.timeout(180)
def test_a_portals_file_is_shown_beside_our_count_taken_once_and_kept(run: Run, server: Server, tmp_path: Path) -> None:
    with OperatorClient(server.address) as operator:
        define(operator, 5)
        sims = [sim.iccid for sim in operator.inventory.ListSims(inventory_pb2.ListSimsRequest()).sims]
    with Client(server.address, access_server="as-01") as client:
        lease = client.allocate(TERMINAL, "jp")
        client.report_usage([TERMINAL], [lease.epoch], [0], [120 * MB])
    others = [iccid for iccid in sims if iccid != lease.iccid]
    file = tmp_path / "portal.csv"
    lines = ["Number;Used;Note", f"{lease.iccid};1.500,0;", f"{others[0]};2;new", f"{others[1]};-1;a fault"]
    lines.append(f"{others[2]};900.000.000.000;bytes for megabytes")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    written = ("--columns", "iccid=Number,used=Used,unit=MB", "--delimiter", ";", "--decimal-comma")
    words = ("usage", "import", str(file), *written, "--as-of", datetime.now(UTC).isoformat(timespec="seconds"))

    def told(*more: str) -> CompletedProcess[str]:
        """What it says once history has come so far: until then nothing is taken."""
        while (found := run(*words, *more)).returncode == Exit.REFUSED and "history" in found.stderr:
            time.sleep(0.2)
        return found

    shown = told("--dry-run")
    assert shown.returncode == Exit.OK, shown.stderr
    assert f"{lease.iccid}" in shown.stdout
    assert "would be taken" in shown.stdout
    assert "1.5 GB" in shown.stdout
    report = json.loads(told("--json").stdout)
    aside = {"impossible_usage": 1, "negative_usage": 1}
    assert (report["counts"], report["taken"]) == ({**aside, "ok": 2}, True)
    named = told()
    assert named.returncode == Exit.OK
    assert f"portal.csv:4: {others[1]}: -1.0 MB as of" in named.stderr
    assert "set aside: negative usage (less than nothing was used: ask the carrier for the total" in named.stderr
    assert f"portal.csv:5: {others[2]}: 900,000.0 TB as of" in named.stderr
    assert (
        "set aside: impossible usage (no line carries so much since the window began: look at the unit" in named.stderr
    )
    again = json.loads(told("--json").stdout)
    assert again["counts"] == {**aside, "same": 2}
    assert [each["correction_bytes"] for each in again["figures"]] == [
        each["correction_bytes"] for each in report["figures"]
    ]
    tabs = tmp_path / "portal.tsv"
    tabs.write_text(f"Number\tUsed\n{others[0]}\t2\n", encoding="utf-8")
    for delimiter in ("tab", "\\t"):
        same = run("usage", "import", str(tabs), *written[:2], "--delimiter", delimiter, *words[-2:], "--dry-run")
        assert (same.returncode, "there already" in same.stdout) == (Exit.OK, True), same.stderr
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("1.500,0", "1.400,0"), encoding="utf-8")
    lower = " ".join(told("--dry-run").stdout.split())
    assert f"1 figure below what the carrier said before of the same window, most so SIM {lease.iccid}, by 100" in lower
    file.write_text(text, encoding="utf-8")
    while len(found := history(run, server, "corrections")) < 2 or not history(run, server, "set_aside"):
        time.sleep(0.2)
    assert {row["carrier_bytes"] for row in found} == {1_500 * MB, 2 * MB}
    assert [row["bytes"] for row in history(run, server, "set_aside")] == [-MB, 900_000_000_000 * MB]
    assert "Carriers' figures: 2 taken, " in run("status").stdout
    corrections = run("events", "--kind", "correction").stdout
    assert f"SIM {lease.iccid}, cycle: the carrier counted" in corrections

    # A line that the file has wrong, and one of a SIM that nobody knows.
    file.write_text(f"Number;Used;Note\n{lease.iccid};x;\n8999999999999999999;1;\n{others[2]};3;\n", encoding="utf-8")
    refused = run(*words)
    assert refused.returncode == Exit.REFUSED
    assert 'portal.csv:2: Used: "x"' in refused.stderr
    partial = run(*words, "--partial")
    assert partial.returncode == Exit.OK, partial.stderr
    assert "the service refused it: unknown sim (the pool has no such SIM: import it" in partial.stderr
    left_out = (tmp_path / "portal.csv.rejected.csv").read_text(encoding="utf-8")
    assert left_out.count("\n") == 3
    end_s = time.monotonic() + 60
    while len(kept := history(run, server, "set_aside")) < 3:
        assert time.monotonic() < end_s, kept
        time.sleep(0.2)
    assert (kept[-1]["iccid"], kept[-1]["status"]) == ("8999999999999999999", "unknown_sim")
    assert others[2] not in left_out
    assert run("usage", "import", str(file), *written).returncode == Exit.USAGE
    for wrong, why in (
        (["--as-of", "2026-03-21T07:00"], "--as-of: the offset from UTC is missing"),
        (["--as-of", "2026-03-21T07:00", "--zone", "Tokyo"], "--zone: there is no time zone 'Tokyo'"),
        (["--as-of", "2026-03-21T07:00Z", "--encoding", "utf-16"], "--encoding: utf-16 can't be read here"),
        (["--as-of", "2026-03-21T07:00Z", "--encoding", "sjs"], "--encoding: there is no encoding 'sjs'"),
    ):
        refused = run("usage", "import", str(file), *written, *wrong)
        assert (refused.returncode, why in refused.stderr) == (Exit.USAGE, True), refused.stderr
    many = "".join(f"{lease.iccid};x;\n" for _ in range(60))
    file.write_text(f"Number;Used;Note\n{many}", encoding="utf-8")
    refused = run(*words)
    assert (refused.stderr.count(" x"), "10 more; --json has all" in refused.stderr) == (0, True)
    assert refused.stderr.count("portal.csv:") == 51

    # A window that the lot has not.
    file.write_text(f"Number;Used;Note\n{others[2]};3;\n", encoding="utf-8")
    for window in ("day", "rolling"):
        without = run(*words, "--window", window)
        assert (without.returncode, without.stderr.count("set aside: no window (its lot has no such window")) == (0, 1)
    while len(history(run, server, "set_aside")) < 4:
        time.sleep(0.2)


@pytest.mark.timeout(180)
def test_a_carriers_figure_of_a_whole_pool_is_taken_from_a_column_or_from_a_file_of_one_lot(
    run: Run, server: Server, tmp_path: Path
) -> None:
    with OperatorClient(server.address) as operator:
        define(operator, 5)
        define_pool(operator, 4)
    with Client(server.address, access_server="as-01") as client:
        lease = client.allocate(TERMINAL + 1, "shared")
        client.report_usage([TERMINAL + 1], [lease.epoch], [0], [120 * MB])
    instant = datetime.now(UTC).isoformat(timespec="seconds")
    file = tmp_path / "portal.csv"

    def told(text: str, *more: str) -> dict[str, Any]:
        file.write_text(text, encoding="utf-8")
        words = ("usage", "import", str(file), *more, "--as-of", instant, "--json")
        while (found := run(*words)).returncode == Exit.REFUSED and "history" in found.stderr:
            time.sleep(0.2)
        report: dict[str, Any] = json.loads(found.stdout)
        return report

    by_column = ("--columns", "lot=Contract,used=Data,unit=GB")
    shown = told("Contract,Data\nshared,70\n", *by_column, "--dry-run")
    assert (shown["counts"], shown["taken"], shown["figures"][0]["lot"]) == ({"ok": 1}, False, "shared")
    refused = told("Contract,Data\nshared,70\nother,1\n", *by_column)
    assert (refused["counts"], refused["taken"]) == ({"ok": 1, "unknown_lot": 1}, False)
    taken = told("Contract,Data\nshared,70\nother,1\n", *by_column, "--partial")
    assert taken["counts"] == {"ok": 1, "unknown_lot": 1}
    rejected = Path(taken["rejected_file"]).read_text(encoding="utf-8")
    assert "other,1,3,the service refused it: unknown_lot: there is no such lot" in rejected
    assert told("Contract,Data\nshared,-1\n", *by_column)["counts"] == {"negative_usage": 1}
    # One figure, and no column that says of which lot.
    one = told("Used,Of\n70 GB,100 GB\n", "--lot", "shared", "--columns", "used=Used")
    assert one["counts"] == {"same": 1}
    line = run("caps").stdout.replace("\n", " ")
    assert "its carrier said 70.0 GB as of" in line
    assert "more than we" in line
    assert "its carrier said 70.0 GB as of" in run("pool").stdout.replace("\n", " ")
    assert "shared, cycle, all its SIMs: the carrier counted" in run("events", "--kind", "pool_corrected").stdout
    assert "less than nothing, shared, cycle, all its SIMs" in run("events", "--kind", "pool_aside").stdout
    while not (rows := history(run, server, "pool_corrections")):
        time.sleep(0.2)
    assert [(row["lot"], row["window"], row["carrier_bytes"]) for row in rows] == [("shared", "cycle", 70_000 * MB)]
    file.write_text("Contract,Data\nshared,69\n", encoding="utf-8")
    words = ("usage", "import", str(file), *by_column, "--as-of", instant)
    lower = " ".join(run(*words).stdout.split())
    assert "1 figure below what the carrier said before of the same window, most so shared, by 1.0 GB" in lower
    assert "`simswitch history pool_corrections` has both" in lower
    assert "GB less than it said before" in run("events", "--kind", "pool_corrected").stdout
    of_sim = tmp_path / "sims.csv"
    of_sim.write_text(f"Number,Used\n{lease.iccid},80\n", encoding="utf-8")
    found = run("usage", "import", str(of_sim), "--columns", "iccid=Number,used=Used,unit=GB", "--as-of", instant)
    assert found.returncode == Exit.OK, found.stderr
    again = " ".join(run(*words).stdout.split())
    assert "there already 1" in again
    assert "shared: 11.0 GB more counts than the carrier said of all its SIMs, since it said no less of them" in again
    assert told("Contract,Data\nshared,69\n", *by_column)["figures"][0]["raised_bytes"] == 11_000 * MB
    line = " ".join(run("caps").stdout.split())
    assert "its carrier said 69.0 GB as of" in line
    assert "of its single SIMs 11.0 GB more" in line
    file.write_text("Contract,Data\nshared,68\n", encoding="utf-8")
    below = run(*words)
    assert "shared: 68.0 GB as of" in below.stderr
    assert "set aside: impossible usage (no line carries so much" in below.stderr
    assert "or of the SIMs of that lot: ask it which figure is right" in below.stderr
    assert "68.0 GB, shared, cycle, all its SIMs: impossible usage" in run("events", "--kind", "pool_aside").stdout
    both = run("usage", "import", str(file), "--lot", "shared", *by_column, "--as-of", instant)
    assert (both.returncode, "all lines are of the lot shared" in both.stderr) == (Exit.USAGE, True)


def test_what_is_late_or_of_an_instant_to_come_is_told_with_its_reason(tmp_path: Path) -> None:
    """A single day's figure is late though it is older than none; and the clock may be what is wrong with a figure."""
    serving = Serving(tmp_path / "data")
    try:
        with OperatorClient(serving.address) as operator:
            define(operator, 5)
            rolling = inventory_pb2.CapWindow(kind=inventory_pb2.CAP_WINDOW_KIND_ROLLING, quota_bytes=100 << 30, days=7)
            plan = inventory_pb2.Plan(name="plan", carrier="carrier", windows=[rolling])
            operator.inventory.DefinePlan(inventory_pb2.DefinePlanRequest(plan=plan))
            (sim,) = operator.inventory.ListSims(inventory_pb2.ListSimsRequest(page_size=1)).sims
        file = tmp_path / "portal.csv"
        file.write_text(f"iccid,used\n{sim.iccid},5 GB\n", encoding="utf-8")

        def told(hours: int, *more: str) -> CompletedProcess[str]:
            as_of = datetime.now(UTC) + timedelta(hours=hours)
            words = ("usage", "import", str(file), "--window", "rolling", "--as-of", as_of.isoformat(), *more)
            with ThreadPoolExecutor(1) as asking:
                asked = asking.submit(program, *words, address=serving.address)
                while not wait([asked], 0.2).done:
                    followed(serving)
            found = asked.result()
            assert found.returncode == Exit.OK, found.stderr
            return found

        assert "taken" in told(0).stdout
        assert "older than the last one" in told(-1).stdout
        of_day = " ".join(told(-24, "--of-day").stdout.split())
        assert "of a day for which one of the whole window holds, or which stands as one with others 1" in of_day
        assert "future usage (it is of an instant to come: look at the instant" in told(1).stderr
        serving.cell.call(commands.run(FREEZE))
        frozen = told(1).stderr
        assert "future usage (the service's clock jumped and is at " in frozen
        assert "then `simswitch clock confirm`, and import it again)" in frozen
    finally:
        serving.end()


def history(run: Run, server: Server, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(run("history", str(server.folder), name, "--json").stdout)["rows"]
    return rows

"""`simswitch pool` against a real server."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from simswitch.cli.exits import Exit
from simswitch.client import Client, OperatorClient
from simswitch.demo.processes import Server

from tests.cli.conftest import Run
from tests.service.serving import define


def test_the_pool_is_shown_and_exported(run: Run, server: Server, tmp_path: Path) -> None:
    with OperatorClient(server.address) as operator:
        define(operator, 5)
    with Client(server.address, access_server="as-01") as client:
        lease = client.allocate(1, "jp")
        client.report_usage([1], [lease.epoch], [0], [7_000_000])
    by_lot = json.loads(run("pool", "--json").stdout)
    (lot,) = by_lot["rows"]
    assert (lot["name"], lot["supplier"], lot["sims_count"], lot["selectable_count"]) == ("lot", "wholesale", 5, 4)
    assert (lot["counted_ms"], lot["headroom_bytes"], lot["healthy_count"]) == (0, None, None), "not known is not 0"
    shown = run("pool", "--by", "market")
    assert shown.returncode == 0, shown.stderr
    assert "jp" in shown.stdout
    assert "Some have not been counted yet" in shown.stdout
    assert len(json.loads(run("pool", "--by", "sim", "--limit", "3", "--json").stdout)["rows"]) == 3
    assert json.loads(run("pool", "--by", "sim", "--on-probation", "--json").stdout)["rows"] == []
    assert "107.4 GB" in run("pool", "--by", "sim", "--lot", "lot").stdout
    done = run("pool", "--by", "sim", "--export", "sims.csv")
    assert (done.returncode, "5 rows written" in done.stderr) == (0, True)
    with (tmp_path / "sims.csv").open(newline="") as lines:
        kept = {row["iccid"]: row for row in csv.DictReader(lines)}
    assert len(kept) == 5
    assert int(kept[lease.iccid]["headroom_bytes"]) == (100 << 30) - 7_000_000
    assert run("pool", "--export", "sims.csv").returncode == Exit.REFUSED
    written = run("pool", "--export", "lots.csv", "--json")
    assert json.loads(written.stdout) == {"file": "lots.csv", "rows_count": 1}
    assert run("pool", "--lot", "lot").returncode == Exit.USAGE

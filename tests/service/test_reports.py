"""The daily report and the plan over a real socket: what a folder's commands say, and to each role its part."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from simswitch.client import OperatorClient
from simswitch.v1 import history_pb2 as pb

from tests.reports.service_days import FIRST_DAY, Days
from tests.service.serving import Serving
from tests.service.test_calls import refusal

DAYS = 4
FACTS = Path(__file__).parents[2] / "examples" / "accident-2020.toml"
LAST = (FIRST_DAY + timedelta(days=DAYS - 1)).isoformat()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("reports") / "data"
    Days(folder, DAYS)
    serving = Serving(folder)
    try:
        yield serving
    finally:
        serving.end()


def daily(client: OperatorClient, **fields: Any) -> str:
    request = pb.MakeDailyReportRequest(**{"day": LAST, **fields})
    return client.history.MakeDailyReport(request, timeout=60).page


def figures(client: OperatorClient) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daily(client))
    return found


def run(*words: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "simswitch", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_role_decides_and_not_the_caller(serving: Serving) -> None:
    parties = ("operator:one", "auditor:one", "technology-provider:one", "supplier:supplier")
    found = {}
    for party in parties:
        with OperatorClient(serving.address, actor=party) as client:
            found[party] = figures(client)["today"]
    # By party: its own lots, subscribers, swaps, decisions.
    seen = {
        party: (bool(day["lots"]), bool(day["heavy"]), bool(day["swaps"]), bool(day["decisions"]))
        for party, day in found.items()
    }
    assert seen == {
        "operator:one": (True, True, True, True),
        "auditor:one": (True, True, True, True),
        "technology-provider:one": (False, False, True, False),
        "supplier:supplier": (True, False, False, False),
    }
    assert found["operator:one"]["used_bytes"] > 0
    assert found["supplier:supplier"]["used_bytes"] == 0
    with OperatorClient(serving.address, actor="access-server:as-01") as server:
        assert refusal(partial(daily, server)).reason == "NOT_PERMITTED"
        assert refusal(lambda: server.history.MakePlan(pb.MakePlanRequest())).reason == "NOT_PERMITTED"
    for party in ("technology-provider:one", "supplier:supplier"):
        with OperatorClient(serving.address, actor=party) as client:
            assert refusal(lambda: client.history.MakePlan(pb.MakePlanRequest())).reason == "NOT_PERMITTED"


def test_by_command_it_is_what_the_folder_says(serving: Serving) -> None:
    at = ("--address", serving.address)
    asked = json.loads(run("report", "daily", *at, "--day", LAST, "--zone", "UTC", "--json"))
    assert asked == json.loads(run("report", "daily", serving.folder, "--day", LAST, "--zone", "UTC", "--json"))
    page = run("report", "daily", *at, "--day", LAST, "--zone", "UTC", "--language", "en", "--actor", "auditor:one")
    assert "## The trail of decisions" in page
    planned = json.loads(run("plan", *at, "--json"))
    assert planned["volume"]["groups"]["market"][0]["name"] == "market"
    assert planned == json.loads(run("plan", serving.folder, "--json"))


def test_an_accident_is_reported_to_operators_and_auditors_as_the_folder_has_it(serving: Serving) -> None:
    words = ("--facts", FACTS, "--from", str(FIRST_DAY), "--to", "2026-12-01", "--zone", "UTC", "--language", "en")
    asked = run("report", "accident", "--address", serving.address, *words)
    assert "| users affected | " in asked
    assert asked.replace("history: ", f"{serving.folder}: ") == run("report", "accident", serving.folder, *words)
    request = pb.MakeAccidentReportRequest(
        facts=FACTS.read_text(encoding="utf-8"), from_ms=1, until_ms=1 << 43, form=pb.REPORT_FORM_MARKDOWN
    )
    with OperatorClient(serving.address, actor="technology-provider:one") as client:
        assert refusal(lambda: client.history.MakeAccidentReport(request)).reason == "NOT_PERMITTED"
    with OperatorClient(serving.address, actor="auditor:one") as client:
        assert "影響利用者数" in client.history.MakeAccidentReport(request, timeout=60).page
        for fields, says in (
            ({"form": pb.REPORT_FORM_JSON}, "form is MARKDOWN or HTML"),
            ({"until_ms": 1}, "from_ms is before until_ms"),
            ({"until_ms": 2}, "neither stopped nor degraded in this time"),
            ({"facts": "area = 3"}, "facts: operators: "),
            ({"rules": "x"}, "rules:1: "),
        ):
            wrong = pb.MakeAccidentReportRequest()
            wrong.CopyFrom(request)
            wrong.MergeFrom(pb.MakeAccidentReportRequest(**fields))
            found = refusal(partial(client.history.MakeAccidentReport, wrong, timeout=60))
            assert (found.reason, says in str(found)) == ("INVALID_ARGUMENT", True), str(found)


def test_rows_are_read_while_a_report_is_made(serving: Serving) -> None:
    """The process that makes reports is held; who reads rows does not notice, and who gives up leaves no answer."""
    with OperatorClient(serving.address) as client:
        daily(client)
        assert serving.running is not None
        process = serving.running.service.history.reports.process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        held = client.history.MakePlan.future(pb.MakePlanRequest(), timeout=60)
        found = client.history.ListRows(pb.ListRowsRequest(table="day_begins"), timeout=20)
        assert len(found.rows) == 1
        assert not held.done()
        held.cancel()  # type: ignore[no-untyped-call]
        assert figures(client)["today"]["day"] == LAST


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"zone": "Asia/Nowhere"}, "there is no time zone 'Asia/Nowhere'"),
        ({"zone": "../../etc/passwd"}, "ZoneInfo keys"),
        ({"zone": "Asia"}, "there is no time zone 'Asia'"),
        ({"day": "tomorrow"}, "Invalid isoformat string"),
        ({"language": "fr"}, "language is ja or en"),
        ({"cycle_day": 32}, "cycle_day is 1 to 31"),
        ({"terms": "[aims]"}, "there is no such table here"),
        ({"terms": "#" * 65_537}, "at most 65,536 characters"),
    ],
)
def test_what_makes_no_sense_is_refused(serving: Serving, fields: dict[str, Any], says: str) -> None:
    with OperatorClient(serving.address) as client:
        found = refusal(partial(daily, client, **fields))
    assert found.reason == "INVALID_ARGUMENT"
    assert says in str(found)

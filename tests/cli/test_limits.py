"""`simswitch limit` and `simswitch subscriber` against a real server with its follower."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from simswitch.cli.exits import Exit
from simswitch.client import Client, OperatorClient
from simswitch.demo.processes import Server

from tests.cli.conftest import Run
from tests.service.serving import define

PERSON = "4711"
PUBLISHED = str(datetime.now(UTC).date())
LIMIT = ["limit", "set", "fair-use", "--month", "100MB", "--warn", "80%", "--action", "slow", "--slow-kbps", "128"]


def test_a_limit_without_its_publication_is_refused(run: Run) -> None:
    empty = run(*LIMIT, "--text", "", "--published", PUBLISHED)
    assert empty.returncode == Exit.REFUSED
    assert "a limit that is not published holds for nobody" in empty.stderr
    late = str((datetime.now(UTC) + timedelta(days=3)).date())
    later = run(*LIMIT, "--text", "https://example.org", "--published", late)
    assert later.returncode == Exit.REFUSED
    assert "publish it first" in later.stderr


@pytest.mark.timeout(180)
def test_a_person_is_explained_down_to_the_day(run: Run, server: Server) -> None:
    said = run(*LIMIT, "--text", "https://example.org/terms", "--published", PUBLISHED)
    assert said.returncode == 0, said.stderr
    assert f"100.0 MB a month, warned at 80 %, then slow to 128 kbit/s; published {PUBLISHED}" in said.stdout
    with OperatorClient(server.address) as operator:
        define(operator, 5)
    with Client(server.address, access_server="as-01") as client:
        lease = client.allocate(1, "jp", subscriber=int(PERSON))
        client.report_usage([1], [lease.epoch], [0], [120_000_000])
    end_s = time.monotonic() + 60
    while not (found := json.loads(run("subscriber", PERSON, "--json").stdout))["taken"]:
        assert time.monotonic() < end_s, found
    # The newest first: one report met both.
    assert [(each["step"], each["used_bytes"]) for each in found["taken"]] == [
        ("slowed", 120_000_000),
        ("warned", 120_000_000),
    ]
    page = run("subscriber", PERSON).stdout
    for words in (
        "It is reached: slow, until",
        "https://example.org/terms",
        "limit reached, slowed",
        "120.0 MB in the month",
    ):
        assert words in page, page
    for until, why in (("2020-01-01T00:00", "2020-01-01 00:00:00"), ("9999-01-01T00:00", "9999-01-01 00:00:00")):
        wrong = run("limit", "exempt", PERSON, "--until", until, "--reason", "our fault")
        assert (wrong.returncode, f"--until: {why}" in wrong.stderr) == (Exit.USAGE, True), wrong.stderr
    assert run("limit", "exempt", PERSON, "--until", "30d", "--reason", "our fault").returncode == 0
    assert "our fault" in run("limit", "exemptions").stdout
    assert "It does not touch this subscriber until" in run("subscriber", PERSON).stdout
    assert run("limit", "end-exemption", PERSON).returncode == 0
    assert run("limit", "end-exemption", PERSON).returncode == Exit.REFUSED
    events = run("events", "--kind", "limit", "--kind", "exempt").stdout
    assert f"subscriber {PERSON}: slowed to 128 kbit/s, 120.0 MB of 100.0 MB used in the month (fair-use)" in events
    assert f"subscriber {PERSON}: no longer exempt (operator:local)" in events
    refuse = [*LIMIT[: LIMIT.index("--action")], "--action", "refuse"]
    assert run(*refuse, "--text", "https://example.org/terms/2", "--published", PUBLISHED).returncode == 0
    assert "withdrawn" in run("limit", "withdraw", "fair-use").stdout
    end_s = time.monotonic() + 60
    while len(found := json.loads(run("subscriber", PERSON, "--json").stdout)["taken"]) < 6:
        assert time.monotonic() < end_s, found
    steps = [(each["step"], each["rule"]["name"], each["rule"]["text"][-5:]) for each in found]
    new, old = "rms/2", "terms"
    # The newest first: withdrawn, refused by what was published last, and before that the exemption.
    assert steps == [
        *(("lifted", "fair-use", new), ("refused", "fair-use", new)),
        *(("slowed", "fair-use", old), ("lifted", "fair-use", old), ("slowed", "fair-use", old)),
        ("warned", "fair-use", old),
    ]
    assert "lifted, 120.0 MB of 100.0 MB used in the month (fair-use)" in run("events", "--kind", "limit").stdout
    assert json.loads(run("limit", "list", "--json").stdout)["limits"][0]["withdrawn"]
    rules = json.loads(run("history", "limit_rules", "--json").stdout)["rows"]
    assert {(row["month_bytes"], row["day_bytes"]) for row in rules} == {(100_000_000, None)}

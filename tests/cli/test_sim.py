"""`simswitch sim` against a real server with its follower."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from simswitch.cli.events import details
from simswitch.cli.exits import Exit
from simswitch.cli.sim import chosen, comes_back, lease_text, left_text
from simswitch.client import Client, OperatorClient, Result, SessionThread
from simswitch.core.commands import encode_iccid
from simswitch.demo.processes import Server
from simswitch.v1 import inventory_pb2 as inv
from simswitch.v1 import sim_pb2

from tests.cli.conftest import Run
from tests.service.serving import define

PERSON, TERMINAL = 4711_0815, 35_693_803_564_380


@pytest.mark.timeout(120)
def test_a_sim_is_explained_and_people_are_masked_unless_asked(run: Run, server: Server) -> None:
    with OperatorClient(server.address) as operator:
        define(operator, 5)
        lot = inv.Lot(
            name="lot",
            supplier="wholesale",
            plan="plan",
            sim_class="class",
            sims_count=1_000,
            cost_minor=2_500_000,
            currency="JPY",
            valid_until="2090-12-31",
        )
        operator.inventory.DefineLot(inv.DefineLotRequest(lot=lot))
        with Client(server.address, access_server="as-01") as client:
            lease = client.allocate(TERMINAL, "jp", subscriber=PERSON)
            client.report_usage([TERMINAL], [lease.epoch], [0], [120_000_000])
        said = inv.SetSimHealthRequest(
            iccid=[encode_iccid(lease.iccid)],
            health=sim_pb2.HEALTH_THROTTLED,
            goodput_kbps=[128],
            windows_count=[4],
            confidence_permille=[970],
        )
        operator.inventory.SetSimHealth(said)
    end_s = time.monotonic() + 60
    while not ((found := json.loads(run("sim", lease.iccid, "--json").stdout))["uses"] and found["healths"]):
        assert time.monotonic() < end_s, found
    assert [(each["terminal"], each["subscriber"], each["bytes"]) for each in found["uses"]] == [
        ("3569********80", "******15", 120_000_000)
    ]
    assert found["sim"]["imsi"].startswith("4401**")
    page = run("sim", lease.iccid)
    assert page.returncode == 0, page.stderr
    whole = run("sim", lease.iccid, "--numbers").stdout
    for words in (
        "cost 2,500,000 JPY for 1,000 SIMs, 2,500 JPY each",
        "valid until 2090-12-31",
        "Assigned; throttled since",
        "in jp, in use since",
        "Chosen: By an allocation: a free and healthy SIM of class class, number 1 of market jp today, with at least",
        "Throttled: It is slowed.",
        "said by operator:local",
        "128 kbit/s in 4 windows",
        "Trusted: Not while it is slowed; no reset is known that brings it back, so it is on probation a day after its",
        "107.4 GB",
        "120.0 MB",
    ):
        assert words in page.stdout, page.stdout
        assert words in whole, whole
    # Nobody has said when the windows of its lot begin: it is told where operators look, and what to do.
    for command, told in (
        (("caps",), "lot: 1 SIM of it slowed, and no reset is known that brings such back."),
        (("status",), "SLOWED, AND NO RESET IS KNOWN: SIMs of lot (1)."),
        (("events", "--kind", "endless"), "lot: a SIM was slowed; no reset is known that brings such SIMs back: write"),
    ):
        text = run(*command).stdout
        assert told in text, text
        assert "write `[resets]` into its plan" in text, text
    # What was prepaid does not come back.
    with OperatorClient(server.address) as operator:
        lot.payment = inv.PAYMENT_PREPAID
        operator.inventory.DefineLot(inv.DefineLotRequest(lot=lot))
    for line, told in (
        ("caps", "lot: 1 SIM of it slowed, and nothing brings such back, since it is prepaid: replace"),
        ("status", "Prepaid, slowed, and nothing brings them back: SIMs of lot (1). Replace them; `[resets]` belongs"),
        (f"sim {lease.iccid}", "it is prepaid and no reset is known, so nothing brings such SIMs back: replace"),
    ):
        assert told in run(*line.split()).stdout
    event = {"kind": "endless", "lot_or_plan": "lot", "sims_count": 0, "stays_slowed": True}
    assert "lot: a SIM was slowed; nothing brings such SIMs back, since it is prepaid" in details(event)
    assert "; trusted" not in page.stdout
    for number in (str(TERMINAL), str(PERSON), f"IMSI {found['sim']['imsi']}".replace("*", "0")[:9]):
        assert number in whole
    for number in (str(TERMINAL), str(PERSON)):
        assert number not in page.stdout
    # One of a lot that works no longer: nothing else keeps it from being handed out.
    with OperatorClient(server.address) as operator:
        lot.valid_until = "2020-01-31"
        operator.inventory.DefineLot(inv.DefineLotRequest(lot=lot))
        free = next(sim for sim in operator.inventory.ListSims(inv.ListSimsRequest()).sims if not sim.terminal)
    ended = run("sim", free.iccid).stdout
    for words in (
        "Nothing is left of it: its lot is no longer valid;",
        "Nobody is given it: its lot is no longer valid.",
    ):
        assert words in ended, ended
    assert "operator took" not in ended
    assert " over" not in ended
    unknown = run("sim", "8981999999999999994")
    assert (unknown.returncode, "8981999999999999994" in unknown.stderr) == (Exit.REFUSED, True)


@pytest.mark.timeout(120)
def test_what_a_carrier_did_is_said_with_a_reason_and_kept(run: Run, server: Server, tmp_path: Path) -> None:
    with OperatorClient(server.address) as operator:
        define(operator, 5)
        iccids = [sim.iccid for sim in operator.inventory.ListSims(inv.ListSimsRequest()).sims if not sim.terminal]
    one, other = iccids[:2]
    file = tmp_path / "carrier.txt"
    file.write_text(f"{one}\n\n{other}\n", encoding="ascii")
    said = run("carrier", "suspended", "--file", str(file), "--reason", "an unpaid bill")
    assert (said.returncode, said.stdout.strip()) == (0, "2 SIMs are suspended now."), said.stderr
    page = run("sim", one).stdout
    assert "Free; suspended since" in page
    assert "Trusted: Not while it is suspended at the carrier." in page
    assert ("; trusted" in page, "Nothing has spoken" in page) == (False, False)
    again = run("carrier", "suspended", one, "--reason", "the same")
    assert again.stdout.strip() == "1 SIM was suspended already."
    unknown = "8981999999999999994"
    back = run("carrier", "active", one, unknown, "--reason", "it was paid")
    assert (back.returncode, back.stdout.strip()) == (Exit.REFUSED, "1 SIM is active now.")
    assert f"{unknown}: unknown sim (the pool has no such SIM: compare it" in back.stderr
    assert run("carrier", "terminated", other, "--reason", "the contract is over").returncode == 0
    page = run("sim", other).stdout
    assert "Trusted: No more: it is out of use for good." in page
    assert ("; trusted" in page, "Nothing has spoken" in page) == (False, False)
    final = run("carrier", "active", other, "--reason", "a mistake")
    assert (final.returncode, "it is retired, and stays so" in final.stderr) == (Exit.REFUSED, True)
    file.write_text(f"{one}\n{one[:-1]}x\n", encoding="ascii")
    wrong = run("carrier", "terminated", "--file", str(file), "--reason", "no ICCID")
    assert (wrong.returncode, f"{file}:2: an ICCID has 19 or 20 digits" in wrong.stderr) == (Exit.REFUSED, True)
    assert run("carrier", "active", "--reason", "nobody").returncode == Exit.USAGE
    assert "a reason has 1 to 64 bytes" in run("carrier", "active", one, "--reason", "").stderr
    end_s = time.monotonic() + 60
    while len(found := json.loads(run("sim", one, "--json").stdout)["healths"]) < 2:
        assert time.monotonic() < end_s, found
    told = [(each["health"], each["reason"], each["actor"]) for each in found]
    by = "operator:local"
    assert told == [("healthy", "it was paid", by), ("suspended", "an unpaid bill", by)]
    page = run("sim", one).stdout
    assert "an unpaid bill" in page
    assert "Free; healthy since" in page
    assert "; trusted" in page
    assert "It can be handed out" in page
    kinds = [row["kind"] for row in json.loads(run("history", "decisions", "--json").stdout)["rows"]]
    assert kinds.count("carrier_life") == 5


def test_what_nobody_reported_is_told_with_the_sim_and_counted_in_the_status(run: Run, server: Server) -> None:
    """An access server that comes back and knows of none of its leases."""
    with OperatorClient(server.address) as operator:
        define(operator, 5)
    with Client(server.address, access_server="as-01") as client:
        lease = client.allocate(TERMINAL + 1, "jp", expected_bytes=1_000)
    assert "last report" not in run("status").stdout + run("sim", lease.iccid).stdout
    page = run("sim", lease.iccid).stdout
    assert "Left to the nearest cap: 107.4 GB, of which its lease may yet use 67.1 MB (in no tier)" in page, page
    with Client(server.address, access_server="as-01") as client:
        for reported, may_use in ((60 << 20, 4 << 20), (64 << 20, 0), (65 << 20, 0)):
            client.report_usage([TERMINAL + 1], [lease.epoch], [0], [reported])
            found = json.loads(run("sim", lease.iccid, "--json").stdout)
            assert found["holder"]["may_use_bytes"] == may_use
        assert "its lease may yet" not in run("sim", lease.iccid).stdout
        client.release([TERMINAL + 1], [lease.epoch])
        lease = client.allocate(TERMINAL + 1, "jp", expected_bytes=1_000)
    with SessionThread(server.address, "as-01", lambda _: Result.DONE) as session:
        session.serving(20)
        shown = run("status").stdout
    assert "Leases that ended without their last report: " in shown
    summary = json.loads(run("status", "--json").stdout)["summary"]
    assert summary["unreported_count"] >= 1
    assert summary["unreported_bytes"] > 0
    assert "Beside that up to 67.1 MB may have been used that nobody reported" in run("sim", lease.iccid).stdout
    (window, *_) = json.loads(run("sim", lease.iccid, "--json").stdout)["windows"]
    assert (window["used_bytes"], window["allowed_bytes"]) == (0, 64 << 20)


@pytest.mark.parametrize(
    ("says", "text"),
    [
        ({"reset_probes": True}, "after its reset it is on probation"),
        ({}, "no reset to come is known, or `probe_kbps` is 0"),
        ({"tried_ms": 0}, "no reset is known that brings it back, so it is on probation a day after its terminal"),
        ({"tried_ms": 1_800_000_000_000}, "so it is on probation soon after 2027-01-15"),
        ({"stays_slowed": True}, "nothing brings such SIMs back: replace them"),
        ({"reset_probes": True, "validity": "no_longer"}, "its lot is no longer valid"),
    ],
)
def test_how_a_slowed_sim_comes_back_is_said_of_what_is_known(says: dict[str, Any], text: str) -> None:
    found = {"tried_ms": None, "stays_slowed": False, "reset_probes": False, "validity": None, **says}
    assert text in comes_back(found)


@pytest.mark.parametrize(
    ("left", "pool", "text"),
    [
        (7_000_000, None, ", of which its lease may yet use 5.0 MB"),
        (5_000_000, None, ", of which its lease may yet use all"),
        (-1, None, ""),
        (None, None, ""),
        (7_000_000, {}, ""),
    ],
)
def test_what_a_lease_may_yet_use_is_said_of_what_is_left(left: int | None, pool: Any, text: str) -> None:
    assert lease_text({"sim": {"headroom_bytes": left}, "pool": pool, "holder": {"may_use_bytes": 5_000_000}}) == text


def test_a_sim_that_came_back_by_an_allocation_is_not_explained_by_the_swap_before() -> None:
    def swap(terminal: int, *, away: bool) -> dict[str, Any]:
        return {
            "terminal": terminal,
            "away": away,
            "result": "confirmed",
            "ordered_ms": 1_700_000_000_000,
            "job": None,
            "priority": "predicted",
        }

    def why(*swaps: dict[str, Any]) -> str:
        holder = {"terminal": TERMINAL, "market": "jp", "preference": 1, "expected_bytes": 1}
        lot = {"sim_class": "class"}
        return chosen({"sim": {"occupancy": "assigned"}, "holder": holder, "lot": lot, "swaps": list(swaps)})

    here = swap(TERMINAL, away=False)
    assert why(here).startswith("By the swap that was ordered")
    assert why(swap(TERMINAL + 1, away=True), here).startswith("By the swap that was ordered")
    for others in ((swap(TERMINAL, away=True), here), (swap(TERMINAL + 100, away=False),), ()):
        assert why(*others).startswith("By an allocation")


@pytest.mark.parametrize(
    ("left", "pool_left", "used_day", "text"),
    [
        (-5_300_000_000, 800_000_000, 0, "nothing that the leases of its lot may not yet use"),
        (-5_300_000_000, -1_000_000, 0, "5.3 GB over"),
        (-1_000_000_000, 800_000_000, 3_000_000_000, "1.0 GB over"),
        (700_000_000, 800_000_000, 0, "700.0 MB"),
        (None, None, 0, "any amount, there is none"),
    ],
)
def test_nothing_is_over_of_a_pool_with_room(left: int | None, pool_left: int | None, used_day: int, text: str) -> None:
    windows = [
        {"cap": {"pooled": True, "quota_bytes": 10**10}, "used_bytes": 10**11},
        {"cap": {"pooled": False, "quota_bytes": 2 * 10**9}, "used_bytes": used_day},
    ]
    found = {"sim": {"headroom_bytes": left}, "pool": {"left_bytes": pool_left}, "windows": windows}
    assert left_text(found) == text

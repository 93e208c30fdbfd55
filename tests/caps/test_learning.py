"""A carrier slows SIMs beyond a cap that nobody has told of, and the engine comes to know: a real service with its
follower and its learner, each a process of its own, and terminals that report what they see. Nothing waits for a time:
each step waits for the event that it is about."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from simswitch.client import Client, OperatorClient
from simswitch.demo.processes import Server
from simswitch.v1 import (
    caps_pb2,
    event_pb2,
    inventory_pb2,
    sim_pb2,
    usage_pb2,
    usage_pb2_grpc,
)

from tests.cli.conftest import program
from tests.service.serving import define

TERMINALS = 30
DAY = inventory_pb2.CAP_WINDOW_KIND_DAY
HIDDEN, BELIEVED = 1_000_000_000, 3_000_000_000
STEP_MB = 40
SETTINGS = (
    "[capacity]\nsims = 1_000\nterminals = 1_000\norders = 1_000\n"
    "[journal]\nsegment_bytes = 1_048_576\nfree_mark_bytes = 0\n[engine]\nline_bytes_per_s = 1_000_000_000_000\n"
    "[learner]\nenabled = true\nlearn_seconds = 1\n"
)


class Carrier:
    """Thirty terminals, each on a SIM that is slowed to 1 Mbit/s once it has used a gigabyte or so, unless lifted."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._random = np.random.default_rng(5)
        self.caps = HIDDEN * self._random.lognormal(0, 0.02, TERMINALS)
        self.used = self._random.uniform(0, 0.2, TERMINALS) * HIDDEN
        self.terminals = list(range(1, 1 + TERMINALS))
        with Client(address, access_server="as-01") as client:
            self.epochs = client.allocate_many(self.terminals, "jp").epoch.tolist()

    def report(self, steps: int, lifted: bool = False) -> None:
        usage = usage_pb2_grpc.UsageServiceStub(self._channel).ReportUsage
        for _ in range(steps):
            wanted = STEP_MB * 1e6 * self._random.uniform(0.6, 1.4, TERMINALS)
            room = wanted if lifted else np.clip(self.caps - self.used, 0, wanted)
            fast = room / wanted
            kbps = 20_000 * fast + 950 * (1 - fast) * self._random.normal(1, 0.02, TERMINALS)
            self.used += room + 0.05 * (wanted - room)
            usage(
                usage_pb2.ReportUsageRequest(
                    access_server="as-01",
                    terminal=self.terminals,
                    epoch=self.epochs,
                    up_bytes=[0] * TERMINALS,
                    down_bytes=[int(used) for used in self.used],
                    span_ms=[300_000] * TERMINALS,
                    goodput_kbps=[int(level) for level in kbps],
                    demand_permille=[900] * TERMINALS,
                    radio=[4] * TERMINALS,
                ),
                metadata=(("simswitch-actor", "access-server:as-01"),),
            )

    def close(self) -> None:
        self._channel.close()


class Told:
    """The events of a service of some kinds, after one that was told before."""

    def __init__(self, operator: OperatorClient, *kinds: Any, after: int = 0) -> None:
        request = event_pb2.WatchEventsRequest(after=after, kinds=kinds)
        self._stream: Any = operator.events.WatchEvents(request, timeout=120)

    def wait(self, wanted: Callable[[event_pb2.Event], bool], count: int = 1) -> list[event_pb2.Event]:
        """The first so many that are wanted."""
        found: list[event_pb2.Event] = []
        while len(found) < count:
            found += filter(wanted, next(self._stream).events)
        self._stream.cancel()
        return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    config = tmp_path / "simswitch.toml"
    config.write_text(SETTINGS, encoding="utf-8")
    running = Server(tmp_path / "data", config, tmp_path / "server.log")
    running.start()
    yield running
    running.stop()


def shows(server: Server, folder: Path, quota_bytes: int) -> None:
    """`simswitch caps` has what was learned beside what is believed, as a table, for programs, and as a picture."""
    history = ("--history", str(server.folder))
    text = program("caps", *history, address=server.address)
    assert text.returncode == 0, text.stderr
    found = json.loads(program("caps", *history, "--json", address=server.address).stdout)["lots"][0]
    (cap,) = found["learned"]
    assert (cap["window"], cap["speed_kbps"], cap["sims_slowed"], found["shifts"]) == ("day", 1_000, TERMINALS, [])
    assert cap["decided_bytes"] == pytest.approx(quota_bytes, rel=0.1)
    assert cap["decided_bytes"] < cap["low_bytes"] < cap["median_bytes"] < cap["high_bytes"] < cap["upper_bytes"]
    for column in ("3.0 GB", "1,000 kbit/s", str(TERMINALS)):
        assert column in text.stdout
    picture = folder / "caps.png"
    assert program("caps", *history, "--plot", str(picture), address=server.address).returncode == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    alone = program("caps", "--plot", str(picture), address=server.address)
    assert (alone.returncode, "say --history DIR too" in alone.stderr) == (2, True)
    nowhere = program("caps", "--history", str(folder), address=server.address)
    assert (nowhere.returncode, "there is no history yet" in nowhere.stderr) == (1, True)


@pytest.mark.timeout(900)
def test_a_hidden_cap_becomes_known(server: Server, tmp_path: Path) -> None:
    with OperatorClient(server.address) as operator:
        define(operator, 0)
        believed = inventory_pb2.CapWindow(kind=DAY, quota_bytes=BELIEVED)
        # Of days that somebody ends, and not while this runs: it is noon where the carrier is.
        noon = inventory_pb2.ResetRule(time_zone=f"Etc/GMT{datetime.now(UTC).hour - 12:+d}")
        plan = inventory_pb2.Plan(name="plan", carrier="carrier", windows=[believed], resets=noon)
        operator.inventory.DefinePlan(inventory_pb2.DefinePlanRequest(plan=plan))
        numbers = range(TERMINALS + 10)
        # What was used in the cycle before is anything, so it is not the window that the carrier counts in.
        opening = np.random.default_rng(6).integers(0, 20 * HIDDEN, len(numbers))
        cards = inventory_pb2.ImportSimsRequest(
            lots=["lot"],
            banks=["bank"],
            iccid=[2 * (10**15 + number) for number in numbers],
            imsi=[440_100_000_000_000 + number for number in numbers],
            slot=numbers,
            opening_cycle_bytes=opening.tolist(),
        )
        operator.inventory.ImportSims(iter([cards]))
        carrier = Carrier(server.address)
        try:
            carrier.report(35)
            assert (carrier.used > carrier.caps).all()
            slowed = Told(operator, event_pb2.EVENT_KIND_HEALTH).wait(
                lambda event: event.health == sim_pb2.HEALTH_THROTTLED, TERMINALS
            )
            for event in slowed:
                assert event.windows_count >= 3
                assert event.goodput_kbps == pytest.approx(950, rel=0.05)
                assert event.confidence_permille >= 990
            assert sorted(event.terminal for event in slowed) == carrier.terminals
            (cap,) = Told(operator, event_pb2.EVENT_KIND_CAP).wait(
                lambda event: event.certainty == inventory_pb2.CERTAINTY_LEARNED
            )
            assert (cap.lot_or_plan, cap.window) == ("lot", DAY)
            # The lower 5 % of what single SIMs have: a little below the cap, never above it.
            assert 0.85 * HIDDEN < cap.quota_bytes < HIDDEN
            lot = operator.caps.ListLotCaps(caps_pb2.ListLotCapsRequest(lot="lot")).lots[0]
            (window,) = [each for each in lot.windows if each.window == DAY]
            assert window.quota_bytes == pytest.approx(cap.quota_bytes, rel=0.1)
            assert window.planned_bytes == BELIEVED
            shows(server, tmp_path, cap.quota_bytes)
            # Either side may go away and come back; the carrier lets the SIMs go.
            server.kill()
            server.start()
            carrier.report(4, lifted=True)
            released = Told(operator, event_pb2.EVENT_KIND_HEALTH, after=slowed[-1].number).wait(
                lambda event: bool(event.iccid), TERMINALS
            )
            assert {event.health for event in released} == {sim_pb2.HEALTH_HEALTHY}
            assert sorted(event.terminal for event in released) == carrier.terminals
        finally:
            carrier.close()
    said = (tmp_path / "server.log").read_text()
    assert "SIMs that were seen slowed have another health now" in said
    assert "lot lot, day:" in said
    decided = json.loads(program("history", "decisions", "--limit", "1000", "--json", address=server.address).stdout)
    by_learner = {row["kind"] for row in decided["rows"] if row["actor"] == "learner:local"}
    assert by_learner == {"set_health", "set_cap"}

"""Commands that make many calls keep to the pace of one identity: they wait, go on, and say how far they came."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from simswitch.cli.connection import PATIENCE_S, connected, failure
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.client import OperatorClient, ServiceError
from simswitch.client.credentials import Credentials
from simswitch.inventory import importer
from simswitch.inventory.definitions import AccessServer, Definitions
from simswitch.inventory.sims import Known, SimColumns, read_sims
from simswitch.service.access import AccessSettings
from simswitch.service.call import Call
from simswitch.service.errors import RATE_LIMITED, Refused
from simswitch.service.share import Pace
from simswitch.v1 import inventory_pb2, pool_pb2

from tests.access.doors import Doors, refusal
from tests.cli.conftest import program
from tests.inventory.card_numbers import iccid, imsi

SUMMARY = pool_pb2.GetSummaryRequest()


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """When whoever came too early was told to come again."""
    waits_ms: list[int] = []
    keep_pace = Call.keep_pace

    def noting(call: Call) -> None:
        try:
            keep_pace(call)
        except Refused as error:
            waits_ms.append(error.retry_after_ms)
            raise

    monkeypatch.setattr(Call, "keep_pace", noting)
    return waits_ms


def charge(doors: Doors, over_s: float) -> None:
    """As if alice had made so many calls that the next one has to wait so long."""
    (actor,) = (actor for actor in doors.access()._by_token.values() if actor.name == "operator:alice")
    pace = actor.share.pace
    pace.wait_s()
    pace._due_s += 1 + over_s


def patient(doors: Doors) -> OperatorClient:
    return OperatorClient(
        doors.people, credentials=Credentials(doors.own.pem, token_file=doors.alice), patience_s=PATIENCE_S
    )


def cards(folder: Path, count: int, known: Known) -> SimColumns:
    file = folder / "sims.csv"
    lines = [f"{iccid(number)},{imsi(number)},lot,bank,{number}" for number in range(5_000, 5_000 + count)]
    file.write_text("\n".join(["iccid,imsi,lot,bank,slot", *lines]) + "\n", encoding="utf-8")
    return read_sims(file, known, datetime.now(UTC)).columns


def test_an_import_waits_for_its_turns(doors: Doors, refused: list[int], tmp_path: Path) -> None:
    doors.serving.drain()
    doors.serving._options["access"] = AccessSettings(tls=doors.files, people_calls_per_s=20)
    doors.serving.begin()
    (tmp_path / "more.toml").write_text("".join(f"[access_servers.as-{number}]\n" for number in range(100, 150)))
    trust = ("--ca", str(doors.own.pem), "--token-file", str(doors.alice))
    done = program(*trust, "import", "--definitions", str(tmp_path / "more.toml"), "--json", address=doors.people)
    assert done.returncode == Exit.OK, done.stderr
    assert json.loads(done.stdout)["definitions"]["access_servers"] == 50
    assert refused, "nobody came too early: nothing was shown"


def test_of_a_stream_that_came_too_early_all_is_sent_again(
    doors: Doors, refused: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "CHUNK_ITEMS", 7)
    with patient(doors) as operator:
        catalogue = importer.read_catalogue(operator.inventory)
        known = catalogue.known(datetime.now(UTC))
        before = operator.pool.GetSummary(SUMMARY).sims_count
        columns = cards(tmp_path, 50, known)
        charge(doors, 0.3)
        told: list[int] = []
        found = importer.import_sims(operator.inventory, columns, known, progress=told.append)
        assert (found.received_count, found.imported_count, found.same_count) == (50, 50, 0), found.refused
        assert operator.pool.GetSummary(SUMMARY).sims_count == before + 50
    assert refused, "it did not come too early"
    assert told[-1] == 50
    with patient(doors) as operator:
        # What was taken from an iterator is gone.
        charge(doors, 0.3)
        stream = iter([inventory_pb2.ImportSimsRequest()])
        assert refusal(lambda: operator.inventory.ImportSims(stream)).reason == "RATE_LIMITED"


def test_who_gives_up_says_how_far_it_came(doors: Doors, refused: list[int]) -> None:
    servers = [AccessServer(f"as-{number}", "") for number in range(100, 110)]

    def others_call(done: int) -> None:
        if done == 4:
            charge(doors, 100)

    at = (doors.people, None, Credentials(doors.own.pem, token_file=doors.alice))
    with pytest.raises(CommandFailed) as caught, connected(*at) as operator:
        importer.define(operator.inventory, Definitions(access_servers=servers), [], others_call)
    assert caught.value.code is Exit.REFUSED
    (wait_ms,) = refused
    assert str(caught.value) == (
        "operator:alice calls more often than one identity may. Try again later. (RATE_LIMITED); try again in "
        f"{math.ceil(wait_ms / 100) / 10:.1f} s; 4 of 10 definitions are in; what is in stays, and importing it again "
        "changes nothing of that"
    )


@pytest.mark.parametrize(
    ("words", "how_far"),
    [
        (("carrier", "suspended", iccid(1), "--reason", "fraud"), "it was said of 0 of 1 SIMs, and saying it"),
        (("usage", "import", "used.csv", "--as-of", "2026-03-21T07:00+09:00"), "no figure was taken"),
    ],
)
def test_other_commands_say_it_too(doors: Doors, tmp_path: Path, words: tuple[str, ...], how_far: str) -> None:
    (tmp_path / "used.csv").write_text(f"iccid,used\n{iccid(1)},5MB\n", encoding="utf-8")
    charge(doors, 100)
    trust = ("--ca", str(doors.own.pem), "--token-file", str(doors.alice))
    done = program(*trust, *words, address=doors.people, folder=tmp_path)
    assert done.returncode == Exit.REFUSED
    assert "(RATE_LIMITED); try again in " in done.stderr
    assert f" s; {how_far}" in done.stderr


def test_a_client_without_patience_is_refused_at_once(
    doors: Doors, refused: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with doors.operator(doors.alice) as operator:
        operator.pool.GetSummary(SUMMARY)
        monkeypatch.setattr(Pace, "wait_s", lambda _: 0.0014)
        error = refusal(lambda: operator.pool.GetSummary(SUMMARY))
    assert (error.reason, error.retry_after_ms) == ("RATE_LIMITED", 2), "who comes after 1 ms is refused again"
    assert refused == [2]


def test_nobody_waits_beyond_the_time_out_of_its_call(doors: Doors, refused: list[int]) -> None:
    with patient(doors) as operator:
        operator.pool.GetSummary(SUMMARY)
        charge(doors, 20)
        assert refusal(lambda: operator.pool.GetSummary(SUMMARY, timeout=10)).reason == "RATE_LIMITED"
    assert len(refused) == 1


def test_without_advice_a_call_is_not_made_again(
    doors: Doors, refused: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with patient(doors) as operator:
        operator.pool.GetSummary(SUMMARY)

        def keep_pace(_: Call) -> None:
            refused.append(0)
            error = Refused(RATE_LIMITED, "alice")
            error.retry_after_ms = 0
            raise error

        monkeypatch.setattr(Call, "keep_pace", keep_pace)
        error = refusal(lambda: operator.pool.GetSummary(SUMMARY))
    assert (error.reason, error.retry_after_ms, refused) == ("RATE_LIMITED", 0, [0])


@pytest.mark.parametrize(("wait_ms", "text"), [(5, "5 ms"), (999, "999 ms"), (1_000, "1.0 s"), (1_001, "1.1 s")])
def test_the_wait_is_told_as_it_is(wait_ms: int, text: str) -> None:
    error = ServiceError(grpc.StatusCode.RESOURCE_EXHAUSTED, RATE_LIMITED.name, "too often", wait_ms)
    assert str(failure(error, "here")) == f"too often (RATE_LIMITED); try again in {text}"

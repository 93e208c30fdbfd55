"""Backup while a server runs, and restore to any point: nothing acknowledged is missing, what came later is fenced."""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from simswitch.audit.chain import all_entries
from simswitch.audit.verify import RESTORES
from simswitch.cell import Cell, JournalSettings, VirtualClock
from simswitch.cli.exits import Exit
from simswitch.client import Client, Holdings, OperatorClient, Result, SessionThread
from simswitch.core import commands, layout
from simswitch.core.machine import Machine
from simswitch.demo.processes import Server
from simswitch.folder.apart import Refused
from simswitch.folder.backup import backup
from simswitch.folder.check import check_folder, records, sound_snapshots
from simswitch.folder.manifest import MANIFEST, UNFINISHED
from simswitch.folder.restore import ANEW, BEFORE, Wanted, restore
from simswitch.history.schema import NAME as HISTORY
from simswitch.history.schema import open_reader, open_writer
from simswitch.journal.append import Journal
from simswitch.journal.disk import RealDisk
from simswitch.journal.errors import FolderInUse, OutcomeDiffers
from simswitch.journal.format import SegmentHeader, segment_name
from simswitch.journal.inspect import inspect
from simswitch.journal.recovery import MachineKind, real_machine, recover
from simswitch.journal.snapshot import snapshot_sequences
from simswitch.journal.walk import first_sequence, list_segments
from simswitch.v1 import event_pb2, swap_pb2

from tests.cell.small_pool import allocate
from tests.cli.conftest import program
from tests.folder.lives import BEGIN_MS, SEGMENT_BYTES, Life, content, ending_at, leases, lived, serving
from tests.model.records import copy_regions, tables

MARKET = "market"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Life]:
    """A backup of a folder, and what that has seen."""
    folder = tmp_path_factory.mktemp("kept")
    life = lived(folder / "data")
    backup(folder / "data", folder / "backup")
    return folder / "backup", life


def opened(folder: Path, clock: VirtualClock | None = None) -> Cell:
    return Cell.open(
        folder, journal=JournalSettings(SEGMENT_BYTES, 0, prepare_ahead=False), clock=clock or VirtualClock(BEGIN_MS)
    )


def damage(folder: Path, sequence: int) -> None:
    """One bit of a record's header."""
    disk = RealDisk(folder, create=False)
    headers = {header.sequence: header for header in sound_snapshots(disk)}
    begun = [each.header for each in list_segments(disk) if isinstance(each.header, SegmentHeader)]
    every = records(disk, begun[0].first_sequence, headers, False)
    found = next(each for each in every if each.header.sequence == sequence)
    with (folder / segment_name(found.segment)).open("r+b") as file:
        file.seek(found.offset + 100)
        byte = file.read(1)[0]
        file.seek(found.offset + 100)
        file.write(bytes([byte ^ 1]))


# ------------------------------------------------------------------------------------------------ backup


def test_a_backup_taken_while_a_server_runs_is_sound_and_has_all_that_was_acknowledged(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as life:
        for number in range(2):
            acknowledged = life.cell.durable_sequence
            target = tmp_path / f"backup-{number}"
            answer = program("backup", str(tmp_path / "data"), str(target), "--json")
            assert answer.returncode == Exit.OK, answer.stderr
            found = json.loads(answer.stdout)
            assert found["source_sequence"] >= acknowledged
            told = program("check", str(target), "--json")
            assert told.returncode == Exit.OK, told.stdout
            checked = json.loads(told.stdout)
            assert checked["state_hash"] == f"{life.states[checked['last_sequence']]:016x}"
            assert (target / MANIFEST).exists()
            assert not (target / UNFINISHED).exists()


def test_a_backup_of_a_damaged_folder_is_refused_and_stays_unfinished(kept: tuple[Path, Life], tmp_path: Path) -> None:
    shutil.copytree(kept[0], tmp_path / "data")
    damage(tmp_path / "data", max(kept[1].states) - 2)
    with pytest.raises(Refused, match=rf"sequence {max(kept[1].states) - 2}\b"):
        backup(tmp_path / "data", tmp_path / "backup")
    with pytest.raises(Refused, match="never finished"):
        restore(tmp_path / "backup", tmp_path / "new")
    with pytest.raises(Refused, match="is not empty"):
        backup(tmp_path / "data", tmp_path / "backup")


@pytest.mark.parametrize("back", [0, 5])
def test_a_damaged_record_that_a_snapshot_replaces_is_told_everywhere_and_stops_nobody(
    kept: tuple[Path, Life], tmp_path: Path, back: int
) -> None:
    source, life = tmp_path / "source", kept[1]
    shutil.copytree(kept[0], source)
    newest = snapshot_sequences(RealDisk(source))[-1]
    damage(source, newest - back)
    last = max(life.states)
    checked = check_folder(source)
    (damaged,) = [part for part in checked.parts if not part.sound]
    assert f"sequence {newest - back}:" in damaged.text
    assert f"The snapshot of sequence {newest} holds what it did" in damaged.text
    assert checked.whole
    assert checked.state_hash == f"{life.states[last]:016x}"
    answer = program("check", str(source))
    assert answer.returncode == Exit.DAMAGED
    found = backup(source, tmp_path / "backup")
    assert found["passed_over"] == [damaged.text]
    found = restore(tmp_path / "backup", tmp_path / "new", segment_bytes=SEGMENT_BYTES)
    assert (found["sequence"], len(found["passed_over"])) == (last, 1)
    assert leases(recover(RealDisk(tmp_path / "new"), real_machine(), repair=False).machine) == life.leases[last]
    point = restore(tmp_path / "backup", tmp_path / "point", Wanted(until_sequence=newest), segment_bytes=SEGMENT_BYTES)
    assert (point["sequence"], point["replayed"]) == (newest, 0)
    if back:
        with pytest.raises(Refused, match=rf"sequence {newest - back}\b"):
            restore(tmp_path / "backup", tmp_path / "before", Wanted(until_sequence=newest - 1))
    cell = opened(source)
    assert cell.machine.check() == []
    assert leases(cell.machine) == life.epochs
    cell.close()


def test_a_damaged_segment_header_that_a_snapshot_replaces_is_told_everywhere_and_stops_nobody(
    kept: tuple[Path, Life], tmp_path: Path
) -> None:
    source, life = tmp_path / "source", kept[1]
    shutil.copytree(kept[0], source)
    newest = snapshot_sequences(RealDisk(source))[-1]
    last = max(life.states)
    segments = list_segments(RealDisk(source, create=False))
    begun = [each.header for each in segments if isinstance(each.header, SegmentHeader)]
    holds = max((each for each in begun if each.first_sequence <= newest), key=lambda each: each.number)
    name = segment_name(holds.number)
    with (source / name).open("r+b") as file:
        file.write(b"?")
    checked = check_folder(source)
    (told,) = [part for part in checked.parts if not part.sound]
    assert told.file == name
    assert f"The snapshot of sequence {newest} holds what it did" in told.text
    assert checked.whole
    assert checked.state_hash == f"{life.states[last]:016x}"
    (entry,) = [each for each in inspect(source)["segments"] if each["file"] == name]
    assert entry["state"] == "damaged"
    found = backup(source, tmp_path / "backup")
    assert found["passed_over"] == [told.text]
    found = restore(tmp_path / "backup", tmp_path / "new", segment_bytes=SEGMENT_BYTES)
    assert (found["sequence"], len(found["passed_over"])) == (last, 1)
    assert leases(recover(RealDisk(tmp_path / "new"), real_machine(), repair=False).machine) == life.leases[last]
    # What stands before the damaged header can still be had, also from the copy.
    wanted = Wanted(until_sequence=holds.first_sequence - 1)
    if holds.first_sequence > begun[0].first_sequence:
        before = restore(tmp_path / "backup", tmp_path / "before", wanted, segment_bytes=SEGMENT_BYTES)
        assert before["sequence"] == wanted.until_sequence
    cell = opened(source)
    assert leases(cell.machine) == life.epochs
    cell.close()


# ------------------------------------------------------------------------------------------------ restore


def without_rows(file: Path) -> None:
    file.unlink()
    open_writer(file.parent).close()


@pytest.mark.parametrize("young", [True, False], ids=["young", "old"])
@pytest.mark.parametrize(
    "lose",
    [Path.unlink, lambda file: file.write_bytes(b""), without_rows],
    ids=["missing", "empty", "without rows"],
)
def test_a_backup_that_lost_its_history_is_not_sound_and_restored_only_when_that_is_said(
    lose: Callable[[Path], object], young: bool, kept: tuple[Path, Life], tmp_path: Path
) -> None:
    folder, last = kept[0], max(kept[1].states)
    if young:
        life = Life(tmp_path / "data")
        life.live(1)
        life.follow()
        life.cell.close(snapshot=False)
        folder, last = tmp_path / "its backup", max(life.states)
        backup(life.folder, folder)
    assert (first_sequence(RealDisk(folder)) == 1) == young
    shutil.copytree(folder, tmp_path / "backup")
    lose(tmp_path / "backup" / HISTORY)
    assert MANIFEST in [part.file for part in check_folder(tmp_path / "backup").parts if not part.sound]
    with pytest.raises(Refused, match=rf"{HISTORY}, which is missing or empty.*--until {last}"):
        restore(tmp_path / "backup", tmp_path / "new")
    assert restore(tmp_path / "backup", tmp_path / "new", Wanted(until_sequence=last))["history"] == ANEW


def test_the_end_is_restored_with_history_and_nothing_is_missing(kept: tuple[Path, Life], tmp_path: Path) -> None:
    source, life = kept
    before = content(source)
    found = restore(source, tmp_path / "new", segment_bytes=SEGMENT_BYTES)
    assert content(source) == before
    assert found["sequence"] == max(life.states)
    assert found["history"] == "kept"
    assert check_folder(tmp_path / "new").sound
    cell = opened(tmp_path / "new")
    assert leases(cell.machine) == life.epochs
    assert cell.machine.check() == []
    cell.close()
    with closing(open_reader(tmp_path / "new")) as history:
        assert history.execute("SELECT count(*) FROM gaps").fetchone() == (0,)
        counted = history.execute("SELECT sum(bytes) FROM use_day").fetchone()[0]
    assert counted == cell.machine.header()["counted_bytes"]


def test_every_point_is_restored_as_it_was_and_what_came_later_is_fenced(
    kept: tuple[Path, Life], tmp_path: Path
) -> None:
    source, life = kept
    oldest = snapshot_sequences(RealDisk(source))[0]
    with closing(open_reader(source)) as history:
        known = history.execute("SELECT max(sequence) FROM positions").fetchone()[0]
    points = [oldest, oldest + 1, known - 1, known, known + 3, max(life.states)]
    for sequence in points:
        folder = tmp_path / str(sequence)
        found = restore(source, folder, Wanted(until_sequence=sequence), segment_bytes=SEGMENT_BYTES)
        assert found["sequence"] == sequence
        assert found["history"] == (BEFORE if sequence < known else "kept")
        machine = recover(RealDisk(folder), real_machine(), repair=False).machine
        assert leases(machine) == life.leases[sequence]
        assert machine.header()["incarnation"] > 1
        checked = check_folder(folder)
        assert checked.sound, checked.parts


def test_a_damaged_folder_is_restored_up_to_the_record_before(kept: tuple[Path, Life], tmp_path: Path) -> None:
    source, life = tmp_path / "source", kept[1]
    shutil.copytree(kept[0], source)
    before = max(life.states) - 3
    damage(source, before + 1)
    for until in (before + 1, 1 << 63):
        with pytest.raises(Refused, match=rf"sequence {before + 1}\b"):
            restore(source, tmp_path / "new", Wanted(until_sequence=until), segment_bytes=SEGMENT_BYTES)
    found = restore(source, tmp_path / "new", Wanted(until_sequence=before), segment_bytes=SEGMENT_BYTES)
    assert found["sequence"] == before
    assert leases(recover(RealDisk(tmp_path / "new"), real_machine(), repair=False).machine) == life.leases[before]


def test_an_instant_is_the_last_record_at_or_before_it(kept: tuple[Path, Life], tmp_path: Path) -> None:
    source, life = kept
    wanted = sorted(life.states)[40]
    at = datetime.fromtimestamp((life.instants[wanted] + 999) / 1000).isoformat()
    answer = program("restore", str(source), str(tmp_path / "new"), "--until", at, "--json")
    assert answer.returncode == Exit.OK, answer.stderr
    assert json.loads(answer.stdout)["sequence"] == wanted


def test_what_cannot_be_restored_is_refused_and_leaves_no_folder(kept: tuple[Path, Life], tmp_path: Path) -> None:
    source, _ = kept
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(Refused, match="is there already"):
        restore(source, tmp_path / "full")
    segments = sorted(source.glob("*.journal"))
    assert len(segments) > 1
    with pytest.raises(Refused, match="lies before"):
        restore(source, tmp_path / "new", Wanted(until_ms=BEGIN_MS - 1, until_sequence=-1))
    cell = opened(tmp_path / "in-use")
    cell.step(commands.run(layout.TICK))
    with pytest.raises(Refused, match=f"in use by process {os.getpid()}"):
        restore(tmp_path / "in-use", tmp_path / "new")
    with pytest.raises(FolderInUse):
        opened(tmp_path / "in-use")
    cell.close()
    with pytest.raises(Refused, match="does not know 1000000000"):
        restore(source, tmp_path / "new", Wanted(until_sequence=10**9))
    with pytest.raises(Refused, match="begins after that point"):
        restore(tmp_path / "in-use", tmp_path / "new", Wanted(until_ms=1))
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new.restoring").exists()


class EndingAfterwards(Machine):
    def raise_incarnation(self, *_: object) -> None:
        faulthandler.disable()
        os.abort()


def test_an_end_after_the_last_record_is_not_the_records_fault(kept: tuple[Path, Life], tmp_path: Path) -> None:
    kind = MachineKind(EndingAfterwards, EndingAfterwards.restore, int(layout.MACHINE_VERSION))
    with pytest.raises(Refused, match="not while it applied a record"):
        restore(kept[0], tmp_path / "new", kind=kind)


def test_a_record_that_ends_the_process_is_named(kept: tuple[Path, Life], tmp_path: Path) -> None:
    last = max(kept[1].states)
    with pytest.raises(Refused, match=rf"replaying record {last} .*--skip {last}"):
        restore(kept[0], tmp_path / "new", kind=ending_at(last))
    assert not (tmp_path / "new").exists()


# --------------------------------------------------------------------------------- a record that can't be replayed


def poisoned(folder: Path) -> int:
    """A folder whose last but one record gives other outcomes than were recorded; its number."""
    life = Life(folder)
    life.live(1)
    life.cell.close(snapshot=False)
    recovery = recover(RealDisk(folder), real_machine(), repair=True)
    machine = recovery.machine
    journal = Journal(
        RealDisk(folder),
        recovery.journal_id or b"",
        int(layout.MACHINE_VERSION),
        recovery.place,
        JournalSettings(SEGMENT_BYTES, 0, prepare_ahead=False),
    )
    for batch, wrong in ((allocate(401), 1), (allocate(402), 0)):
        now_ms = machine.now_ms + 1_000
        journal.admit(len(batch))
        journal.append(now_ms, 7, batch, machine.apply(batch, now_ms, 7).hash ^ wrong)
    journal.close()
    return machine.sequence - 1


def test_a_record_is_left_out_only_by_an_explicit_command_that_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    poison = poisoned(folder)
    before = content(folder)
    with pytest.raises(OutcomeDiffers, match=f"sequence {poison}"):
        opened(folder)
    found = program("check", str(folder))
    assert found.returncode == Exit.DAMAGED
    assert f"sequence {poison}" in found.stderr
    new = tmp_path / "new"
    refused = program("restore", str(folder), str(new))
    assert refused.returncode == Exit.REFUSED
    assert f"--skip {poison}" in refused.stderr
    refused = program("restore", str(folder), str(new), "--skip", str(poison))
    assert "--reason" in refused.stderr
    wrong = ("--skip", str(poison), "--skip", str(poison + 40), "--reason", "a typing error")
    refused = program("restore", str(folder), str(new), *wrong)
    assert f"record {poison + 40} is not among" in refused.stderr
    assert not new.exists()
    done = program("restore", str(folder), str(new), "--skip", str(poison), "--reason", "ticket 17", "--json")
    assert done.returncode == Exit.OK, done.stderr
    told = json.loads(done.stdout)
    assert (told["skipped"], told["sequence"]) == ([poison], poison + 1)
    # The terminal of the record that was left out took a SIM; the next one takes it now.
    assert told["changed"] == 1
    assert {name: data for name, data in content(folder).items() if name != "lock"} == {
        name: data for name, data in before.items() if name != "lock"
    }
    cell = opened(new)
    assert 401 not in leases(cell.machine)
    assert 402 in leases(cell.machine)
    cell.close()
    (entry,) = all_entries(new / RESTORES)
    assert (entry.fields["skipped"], entry.fields["reason"], entry.fields["changed"]) == ([poison], "ticket 17", 1)
    verified = program("audit", "verify", str(new))
    assert verified.returncode == Exit.OK
    assert RESTORES in verified.stdout


# ------------------------------------------------------------------------------------------------ end to end


def test_a_client_whose_epoch_was_given_after_the_restored_point_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    Life(folder).cell.close()
    config = tmp_path / "simswitch.toml"
    config.write_text(f"[journal]\nsegment_bytes = {1 << 20}\nfree_mark_bytes = 0\n", encoding="utf-8")
    server = Server(folder, config, tmp_path / "server.log")
    server.start()
    try:
        with Client(server.address, access_server="as-01") as client:
            held = client.allocate(1, MARKET)
            given_back = client.allocate(2, MARKET)
            answer = program("backup", str(folder), str(tmp_path / "backup"))
            assert answer.returncode == Exit.OK, answer.stderr
            client.release([2], [given_back.epoch])
            lost = client.allocate(2, MARKET)
            assert lost.epoch > given_back.epoch
    finally:
        server.kill()
    answer = program("restore", str(tmp_path / "backup"), str(tmp_path / "new"))
    assert answer.returncode == Exit.OK, answer.stderr
    restored = Server(tmp_path / "new", config, tmp_path / "restored.log")
    restored.start()
    try:
        # Nobody is given a SIM anew until it is known what the access server holds.
        holdings = Holdings()
        holdings.hold(held)
        with (
            Client(restored.address, access_server="as-01") as client,
            SessionThread(restored.address, "as-01", lambda _: Result.DONE, holdings=holdings) as session,
            OperatorClient(restored.address) as operator,
        ):
            assert session.serving(20)
            # What stood at the point goes on.
            assert client.renew([1], [held.epoch]).status.tolist() == [layout.OK]
            client.release([2], [given_back.epoch])
            again = client.allocate(2, MARKET)
            assert again.epoch > lost.epoch
            # Without another incarnation this would be the very epoch that another client still has.
            assert client.renew([2], [lost.epoch]).status.tolist() == [layout.STALE_EPOCH]
            assert client.renew([2], [again.epoch]).status.tolist() == [layout.OK]
            # Sessions have numbers that no other restore gives, and orders find their way to them all the same.
            assert session.serving(20).session >> 32
            asked = swap_pb2.CreateJobRequest(reason="after a restore", terminal=[1])
            number = operator.swaps.CreateJob(asked).job.number
            watched = operator.swaps.WatchJob(swap_pb2.WatchJobRequest(job=number, interval_ms=100), timeout=40)
            job = [reply.job for reply in watched][-1]
            assert (job.state, job.confirmed_count) == (swap_pb2.JOB_STATE_DONE, 1)
            # Who has watched until the point has missed nothing, however far the numbers have leapt.
            known = event_pb2.WatchEventsRequest(after=0, once=True)
            told = list(operator.events.WatchEvents(known, timeout=20))
            assert sum(response.missed_count for response in told) < 1_000
            assert min(event.number for response in told for event in response.events) > 1 << 32
    finally:
        restored.stop()
    assert program("check", str(tmp_path / "new")).returncode == Exit.OK


def test_no_number_is_given_twice() -> None:
    machine = Machine()
    data = commands.run(layout.TICK)
    machine.apply(data, BEGIN_MS, 1)
    found = [_numbers(machine)]
    # By the clock, and beyond what there was where the clock is behind.
    for lineage, at_ms in enumerate((BEGIN_MS, BEGIN_MS + 1_000, BEGIN_MS - 10**9, BEGIN_MS + 2_000), 7):
        machine.raise_incarnation(at_ms, lineage)
        found.append(_numbers(machine))
    for name in ("order_next", "events_count", "jobs_count", "given_up_count", "lineage"):
        numbers = [each[name] for each in found]
        assert numbers == sorted(set(numbers)), name
    epochs = [each["incarnation"] << 48 | each["epoch_next"] for each in found]
    assert epochs == sorted(set(epochs))
    # Half of an incarnation is left, whatever the instant.
    assert all(each["epoch_next"] < 1 << 47 for each in found)
    # Receivers that know only floating point tell events apart all the same.
    assert all(each["events_count"] < 1 << 53 for each in found)
    # 40 bits of an order's number are never left behind.
    before = _numbers(machine)
    with pytest.raises(OverflowError, match="is the clock right"):
        machine.raise_incarnation(BEGIN_MS + (1 << 40), 7)
    assert _numbers(machine) == before


NUMBERS = ("incarnation", "epoch_next", "order_next", "events_count", "jobs_count", "given_up_count", "lineage")


def _numbers(machine: Machine) -> dict[str, int]:
    header = tables(copy_regions(machine))["header"]
    return {name: int(header[name][0]) for name in NUMBERS}

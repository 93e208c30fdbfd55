"""``simswitch check``: what is sound is called so, each thing that is not is named, and nothing is changed."""

from __future__ import annotations

import json
import os
import sqlite3
import tarfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from simswitch.access.tokens import FILE as TOKENS
from simswitch.cell import Capacity, Cell, JournalSettings
from simswitch.cli.exits import Exit
from simswitch.core import commands, layout
from simswitch.core.machine import Machine
from simswitch.demo.processes import Server
from simswitch.folder.apart import Refused
from simswitch.folder.backup import backup
from simswitch.folder.check import check_folder
from simswitch.folder.restore import Wanted, restore
from simswitch.following import readers_of
from simswitch.history.schema import LOCK_NAME as HISTORY_LOCK
from simswitch.history.schema import NAME as HISTORY
from simswitch.history.schema import HistoryRefused, open_reader, open_writer
from simswitch.journal.disk import RealDisk
from simswitch.journal.errors import JournalShort
from simswitch.journal.follower import ALARM_NAME, Follower
from simswitch.journal.format import SegmentHeader
from simswitch.journal.recovery import MachineKind, real_machine, recover, restore_newest
from simswitch.journal.snapshot import open_snapshot, snapshot_name, snapshot_sequences, write_snapshot
from simswitch.journal.walk import first_sequence, list_segments

from tests.cli.conftest import program
from tests.folder.lives import NEVER, Life, content, ending_at, lived, serving
from tests.journal.make_format import FORMATS


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Life]:
    folder = tmp_path_factory.mktemp("whole") / "data"
    return folder, lived(folder)


@pytest.fixture
def copied(whole: tuple[Path, Life], tmp_path: Path) -> Path:
    for name, data in content(whole[0]).items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "data"


def test_a_sound_folder_is_called_so_and_is_not_changed(whole: tuple[Path, Life]) -> None:
    folder, life = whole
    before = content(folder)
    answer = program("check", str(folder), "--json")
    assert answer.returncode == Exit.OK, answer.stderr
    found = json.loads(answer.stdout)
    assert found["sound"]
    assert found["server"] is None
    last = max(life.states)
    assert (found["last_sequence"], found["state_hash"]) == (last, f"{life.states[last]:016x}")
    parts = [part["part"] for part in found["parts"]]
    assert parts == ["audit log", "snapshot", "snapshot", "journal", "state", "history", "audit log"]
    assert content(folder) == before
    shown = program("check", str(folder))
    assert shown.returncode == Exit.OK
    assert "every invariant holds" in shown.stdout
    assert content(folder) == before


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 16
    path.write_bytes(data)


def newest_snapshot(folder: Path) -> Path:
    return folder / snapshot_name(snapshot_sequences(RealDisk(folder))[-1])


def other_state(folder: Path) -> None:
    """The newest snapshot is whole, and of another state than the journal gives."""
    disk = RealDisk(folder)
    sequence = snapshot_sequences(disk)[-1]
    with open_snapshot(disk, sequence) as (header, regions):
        machine = Machine.restore(regions)
    machine.raise_incarnation(machine.now_ms, 1)
    newest_snapshot(folder).unlink()
    write_snapshot(disk, machine, header.journal_id, int(layout.MACHINE_VERSION), header.chain)


def snapshots_swapped(folder: Path) -> None:
    older, newer = (folder / snapshot_name(sequence) for sequence in snapshot_sequences(RealDisk(folder)))
    older.rename(folder / "aside")
    newer.rename(older)
    (folder / "aside").rename(newer)


def in_a_record(folder: Path) -> None:
    segment = min(folder.glob("*.journal"))
    flip(segment, 4096 + 200)


def history_ahead(folder: Path) -> None:
    with closing(sqlite3.connect(folder / HISTORY)) as connection, connection:
        connection.execute("UPDATE positions SET sequence = sequence + 1000")


def history_of_another_record(folder: Path) -> None:
    with closing(sqlite3.connect(folder / HISTORY)) as connection, connection:
        connection.execute("UPDATE positions SET checksum = checksum + 1")


def history_damaged(folder: Path) -> None:
    data = bytearray((folder / HISTORY).read_bytes())
    data[4096 * 2 : 4096 * 3] = b"\xff" * 4096
    (folder / HISTORY).write_bytes(data)


def audit_changed(folder: Path) -> None:
    path = folder / TOKENS
    path.write_bytes(path.read_bytes().replace(b"made for", b"mode for"))


@pytest.mark.parametrize(
    ("damage", "part", "words"),
    [
        (lambda folder: flip(newest_snapshot(folder), 30_000), "snapshot", "the hash of the region"),
        (snapshots_swapped, "snapshot", "the file was renamed. Stop the service, and rename it back"),
        (other_state, "snapshot", "the journal gives another state"),
        (in_a_record, "journal", "byte 4096"),
        (lambda folder: sorted(folder.glob("*.journal"))[1].unlink(), "journal", "missing"),
        (history_ahead, "history", "the journal ends at"),
        (history_of_another_record, "history", "another one in the journal"),
        (history_damaged, "history", "move it and its -wal and -shm away"),
        (audit_changed, "audit log", "the line is not what its hash says"),
        (lambda folder: (folder / ALARM_NAME).write_text("an outcome differs\n"), "alarm", "an outcome differs"),
    ],
    ids=["snapshot", "swapped", "state", "record", "segment", "ahead", "other record", "history", "audit", "alarm"],
)
def test_each_thing_that_is_wrong_is_named_and_nothing_is_changed(
    copied: Path, damage: Callable[[Path], Any], part: str, words: str
) -> None:
    damage(copied)
    before = content(copied)
    found = check_folder(copied)
    wrong = [each for each in found.parts if not each.sound]
    assert part in [each.part for each in wrong]
    assert words in " ".join(each.text for each in wrong if each.part == part)
    assert content(copied) == before


def test_swapped_snapshots_end_no_start_and_a_point_between_them_is_not_restored_from_the_later(
    whole: tuple[Path, Life], copied: Path, tmp_path: Path
) -> None:
    older, newer = snapshot_sequences(RealDisk(copied))
    snapshots_swapped(copied)
    recovered = recover(RealDisk(copied), real_machine(), repair=False).machine
    assert recovered.state_hash() == whole[1].states[recovered.sequence]
    assert recovered.sequence == max(whole[1].states)
    with pytest.raises(Refused, match="the file was renamed"):
        restore(copied, tmp_path / "new", Wanted(until_sequence=(older + newer) // 2))
    with pytest.raises(Refused, match="the file was renamed"):
        backup(copied, tmp_path / "backup")


def test_damage_ends_with_its_exit_code_and_says_where(copied: Path) -> None:
    in_a_record(copied)
    answer = program("check", str(copied))
    assert answer.returncode == Exit.DAMAGED
    assert "byte 4096, sequence" in answer.stderr
    assert "holds what it did" in answer.stderr


def schema_flipped(folder: Path, text: bytes = b" TABLE") -> None:
    """One bit, in the text of the schema. SQLite quotes it when it says what is wrong, and then it is no UTF-8."""
    flipped = bytearray((folder / HISTORY).read_bytes())
    flipped[flipped.index(b"CREATE TABLE") :] = flipped[flipped.index(b"CREATE TABLE") :].replace(
        text, bytes([text[0] ^ 0x80]) + text[1:], 1
    )
    (folder / HISTORY).write_bytes(flipped)


def test_a_flipped_bit_in_the_name_of_a_column_is_told_by_whoever_opens_the_file(copied: Path) -> None:
    schema_flipped(copied, b"from_ms")
    with pytest.raises(HistoryRefused, match=r"can't be used: .* UTF-8"):
        open_reader(copied)
    with pytest.raises(HistoryRefused, match=r"can't be used: .* UTF-8"):
        open_writer(copied)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("check",), Exit.DAMAGED),
        (("audit", "verify"), Exit.DAMAGED),
        (("backup",), Exit.REFUSED),
        (("restore",), Exit.REFUSED),
        (("history",), Exit.REFUSED),
    ],
)
def test_a_flipped_bit_in_the_schema_of_history_is_told_with_what_to_do(
    words: tuple[str, ...], status: Exit, copied: Path, tmp_path: Path
) -> None:
    schema_flipped(copied)
    target = {"backup": [str(tmp_path / "new")], "restore": [str(tmp_path / "new")], "history": ["use_day"]}
    answer = program(*words, str(copied), *target.get(words[0], []))
    assert answer.returncode == status, answer.stderr
    assert f"{copied / HISTORY} can't be used: malformed database schema" in answer.stderr
    assert "move it and its -wal and -shm away" in answer.stderr


def test_a_service_starts_beside_a_history_whose_schema_is_damaged_and_says_so(copied: Path, tmp_path: Path) -> None:
    schema_flipped(copied)
    config = tmp_path / "simswitch.toml"
    config.write_text("[capacity]\nsims = 2_000\nterminals = 2_000\norders = 100\n", encoding="utf-8")
    server = Server(copied, config, tmp_path / "server.log")
    server.start()
    server.stop()
    assert f"{HISTORY} can't be used: malformed database schema" in (tmp_path / "server.log").read_text()


def history_without_tables(folder: Path) -> None:
    (folder / HISTORY).unlink()
    with closing(sqlite3.connect(folder / HISTORY)) as connection:
        connection.execute("PRAGMA user_version = 1")


def history_without_rows(folder: Path) -> None:
    (folder / HISTORY).unlink()
    open_writer(folder).close()


def history_emptied(folder: Path) -> None:
    (folder / HISTORY).write_bytes(b"")


def followed(folder: Path) -> list[str]:
    """What a follower of the folder's journal warns of."""
    following = Follower(RealDisk(folder), settings=NEVER, readers=readers_of(folder))
    following.finish(read_on=True)
    following.close()
    return following.warnings


def history_part(folder: Path) -> str:
    checked = check_folder(folder)
    assert checked.sound, checked.parts
    (text,) = [part.text for part in checked.parts if part.part == "history"]
    return text


@pytest.mark.parametrize(
    ("emptied", "words"),
    [
        (lambda folder: (folder / HISTORY).unlink(), "is missing"),
        (history_emptied, "is empty"),
        (history_without_tables, "is empty"),
        (history_without_rows, "is empty"),
    ],
    ids=["missing", "empty", "without tables", "without rows"],
)
def test_a_history_that_is_gone_with_what_the_journal_has_no_more_is_told_and_in_no_backup(
    emptied: Callable[[Path], Any], words: str, copied: Path, tmp_path: Path
) -> None:
    emptied(copied)
    before = content(copied)
    first = first_sequence(RealDisk(copied))
    assert first > 1
    said = f"history was kept and {words}: what happened before record {first} stands nowhere else"
    for command, status in (
        (("check", str(copied)), Exit.DAMAGED),
        (("audit", "verify", str(copied)), Exit.DAMAGED),
        (("backup", str(copied), str(tmp_path / "backup")), Exit.REFUSED),
    ):
        answer = program(*command)
        assert (answer.returncode, said in answer.stderr) == (status, True), answer.stderr
    assert content(copied) == before
    restored = program("restore", str(copied), str(tmp_path / "new"))
    assert restored.returncode == Exit.OK, restored.stderr
    assert "there was no history, so one begins" in restored.stdout


def test_a_history_that_begins_later_says_where_and_one_of_a_backup_can_take_its_place(
    copied: Path, tmp_path: Path
) -> None:
    backup(copied, tmp_path / "backup")
    # Records before the oldest snapshot can't be replayed.
    oldest = snapshot_sequences(RealDisk(copied))[0]
    assert followed(copied) == []
    assert "begins with" not in history_part(copied)
    history_emptied(copied)
    *missed, advice = followed(copied)
    assert missed == [
        f"{reader} does not know the records from 1 to {oldest}, which can't be read again"
        for reader in ("history", "caps")
    ]
    assert advice.startswith("if there was a file with history and caps before, stop the service")
    assert f"and begins with record {oldest + 1};" in history_part(copied)
    assert followed(copied) == []
    backup(copied, tmp_path / "later")
    assert f"and begins with record {oldest + 1};" in history_part(tmp_path / "later")
    # As the guide says.
    (copied / HISTORY).write_bytes((tmp_path / "backup" / HISTORY).read_bytes())
    assert followed(copied) == []
    assert "begins with" not in history_part(copied)


def test_where_no_history_was_kept_or_the_journal_has_all_of_it_nothing_is_missing(
    copied: Path, tmp_path: Path
) -> None:
    for name in (HISTORY, HISTORY_LOCK):
        (copied / name).unlink()
    assert history_part(copied) == "there is none yet"
    backup(copied, tmp_path / "backup")
    life = Life(tmp_path / "young")
    life.follow()
    life.cell.close(snapshot=False)
    history_emptied(life.folder)
    assert history_part(life.folder) == "there is none yet"
    backup(life.folder, tmp_path / "its backup")


def test_what_a_history_lacks_in_between_is_told_and_no_other_file_is_advised(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.live(1)
    life.follow()
    known = life.cell.durable_sequence
    for _ in range(4):
        life.live(1, 200)
        following = Follower(RealDisk(tmp_path), settings=NEVER)
        while following.turn():
            pass
        following.take_snapshot()
        following.close()
    oldest = snapshot_sequences(RealDisk(tmp_path))[0]
    assert followed(tmp_path) == [
        f"{reader} does not know the records from {known + 1} to {oldest}, which can't be read again"
        for reader in ("history", "caps")
    ]
    life.cell.close(snapshot=False)
    assert f"behind the journal, and lacks {oldest - known} records in 1 gap;" in history_part(tmp_path)


def test_a_follower_that_was_killed_before_its_first_record_has_lost_no_history(copied: Path, tmp_path: Path) -> None:
    for name in (HISTORY, HISTORY_LOCK):
        (copied / name).unlink()
    assert first_sequence(RealDisk(copied)) > 1
    (copied / HISTORY_LOCK).touch()
    assert history_part(copied) == "there is none yet"
    open_writer(copied).close()
    assert history_part(copied) == "there is none yet"
    backup(copied, tmp_path / "backup")
    assert not (tmp_path / "backup" / HISTORY).exists()
    # Of a version that wrote no text there.
    followed(copied)
    (copied / HISTORY_LOCK).write_bytes(b"")
    followed(copied)
    history_emptied(copied)
    assert not check_folder(copied).sound


def other_machine_version(folder: Path) -> None:
    """Its journal, which begins with record 1, is of an older one; a snapshot holds what it did."""
    for path in folder.glob("*.journal"):
        path.unlink()
    for path in folder.glob("*.state"):
        path.unlink()
    with tarfile.open(FORMATS / "machine-7.tar.xz") as archive:
        archive.extractall(folder, filter="data")


@pytest.mark.parametrize("spoil", [in_a_record, other_machine_version], ids=["damaged", "another machine version"])
def test_a_journal_that_has_every_record_and_can_t_replay_them_replaces_no_history(
    spoil: Callable[[Path], Any], tmp_path: Path
) -> None:
    life = Life(tmp_path / "young")
    following = Follower(RealDisk(life.folder), settings=NEVER, readers=readers_of(life.folder))
    while following.turn():
        pass
    following.take_snapshot()
    following.finish(read_on=False)
    following.close()
    life.cell.close(snapshot=False)
    spoil(life.folder)
    (life.folder / HISTORY).unlink()
    assert first_sequence(RealDisk(life.folder)) == 1
    (text,) = [part.text for part in check_folder(life.folder).parts if part.part == "history"]
    assert "history was kept and is missing: the journal can't be replayed from its beginning" in text
    with pytest.raises(Refused, match="can't be replayed from its beginning"):
        backup(life.folder, tmp_path / "backup")


class _Unsound(Machine):
    def check(self, pause: Callable[[], object] = lambda: None) -> list[str]:
        pause()
        return ["I1: SIM 7 is assigned twice"]


@pytest.mark.parametrize("words", [("check",), ("backup",), ("audit", "verify")])
def test_a_folder_in_which_nothing_is_is_not_called_sound(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    target = [str(tmp_path / "copy")] if words == ("backup",) else []
    answer = program(*words, str(tmp_path / "empty"), *target)
    assert answer.returncode == Exit.REFUSED, answer.stdout
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty"]


def test_a_server_does_not_begin_anew_what_history_knows_more_of(copied: Path) -> None:
    """I6: its epochs would be given twice."""
    for path in copied.iterdir():
        if path.suffix in (".journal", ".state"):
            path.unlink()
    answer = program("serve", str(copied), "--address", "127.0.0.1:0")
    assert answer.returncode == Exit.DAMAGED, answer.stderr
    assert "the journal ends at 0" in answer.stderr
    assert "the journal ends at 0" in program("check", str(copied)).stderr
    assert not list(copied.glob("*.journal"))


def test_a_journal_without_its_last_files_is_refused_as_far_as_anybody_knows_of_them(copied: Path) -> None:
    """The segment that was written last is gone, with the one that was prepared: a journal that ended there would look
    the same. What history has seen, or else what a snapshot holds, shows that it did not."""
    disk = RealDisk(copied, create=False)
    snapshot = max(snapshot_sequences(disk))
    with closing(sqlite3.connect(copied / HISTORY)) as history:
        (known,) = history.execute("SELECT max(sequence) FROM positions").fetchone()
    assert known > snapshot
    (copied / HISTORY_LOCK).unlink()
    verdicts = []
    for segment in reversed(list_segments(disk)):
        os.remove(copied / segment.name)
        if not isinstance(segment.header, SegmentHeader):
            continue
        end = segment.header.first_sequence - 1
        checked = check_folder(copied)
        assert checked.sound == (end >= known), checked.parts
        if not checked.sound and end >= snapshot:
            assert any(f"history knows {known}" in part.text for part in checked.parts)
        (copied / HISTORY).rename(copied / "apart")
        assert check_folder(copied).sound == (end >= snapshot)
        (copied / "apart").rename(copied / HISTORY)
        verdicts.append((end >= known, end >= snapshot))
        if end < snapshot:
            break
    assert verdicts[-1] == (False, False)
    assert (False, True) in verdicts


def test_what_is_known_of_another_journal_refuses_no_start(tmp_path: Path) -> None:
    def opened(known: tuple[bytes, int]) -> Cell:
        return Cell.open(tmp_path, capacity=Capacity(8, 8, 8), journal=JournalSettings(1 << 20, 0), known=known)

    cell = opened((bytes(16), 0))
    cell.step(commands.run(layout.TICK))
    cell.close()
    opened((bytes(16), 10**6)).close()
    journal_id = recover(RealDisk(tmp_path, create=False), real_machine(), repair=False).journal_id
    assert journal_id is not None
    with pytest.raises(JournalShort, match="the journal ends at"):
        opened((journal_id, 10**6))


def test_a_broken_invariant_and_a_record_that_ends_the_process_are_named(whole: tuple[Path, Life]) -> None:
    found = check_folder(whole[0], MachineKind(_Unsound, _Unsound.restore, int(layout.MACHINE_VERSION)))
    assert ["I1: SIM 7" in part.text for part in found.parts if not part.sound] == [True]
    last = max(whole[1].states)
    with pytest.raises(Refused, match=rf"record {last} .*signal 6.*--skip {last}"):
        check_folder(whole[0], ending_at(last))


def test_the_records_of_an_older_machine_are_told_and_their_snapshot_is_read(tmp_path: Path) -> None:
    with tarfile.open(FORMATS / "machine-7.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    found = check_folder(tmp_path)
    assert found.sound, found.parts
    (journal,) = [part for part in found.parts if part.part == "journal"]
    assert "of another machine version" in journal.text
    assert found.state_hash == f"{restore_newest(RealDisk(tmp_path), real_machine()).machine.state_hash():016x}"


def test_a_snapshot_of_a_newer_program_is_named_and_no_backup_is_made_of_it(copied: Path, tmp_path: Path) -> None:
    """A server of this one does not start on it, though it could replay the whole journal."""
    disk = RealDisk(copied)
    newest = restore_newest(disk, real_machine())
    assert newest.header is not None
    newer = int(layout.MACHINE_VERSION) + 1
    write_snapshot(disk, newest.machine, newest.header.journal_id, newer, newest.header.chain)
    answer = program("check", str(copied))
    said = f"{snapshot_name(newest.machine.sequence)}: machine version {newer}, newer than this program"
    assert (answer.returncode, said in answer.stderr) == (Exit.DAMAGED, True), answer.stderr
    refused = program("backup", str(copied), str(tmp_path / "backup"))
    assert (refused.returncode, "newer than this program" in refused.stderr) == (Exit.REFUSED, True), refused.stderr


def test_it_works_while_a_server_writes_and_removes_what_is_no_longer_needed(tmp_path: Path) -> None:
    with serving(tmp_path) as life:
        lasts = [0]
        for _ in range(2):
            while life.cell.durable_sequence <= lasts[-1]:
                time.sleep(0.01)
            answer = program("check", str(tmp_path), "--json")
            assert answer.returncode == Exit.OK, answer.stderr
            found = json.loads(answer.stdout)
            assert found["server"] == os.getpid()
            assert found["last_sequence"] > lasts[-1]
            lasts.append(found["last_sequence"])

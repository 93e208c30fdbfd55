"""Restores that a hostile day asks for: several of one backup, of one that was cut, with a history that is not its own,
without a record."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import threading
from contextlib import closing
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from simswitch.access.tokens import FILE as TOKENS
from simswitch.access.tokens import TOKENS_MAX, create_token, revoke_token
from simswitch.audit.chain import LINE_BYTES_MAX, Chain, all_entries, line_of, older
from simswitch.audit.verify import RESTORES, verify_folder
from simswitch.cell import Cell, JournalSettings, VirtualClock
from simswitch.cli.amounts import exact_text
from simswitch.cli.data import instant_ms
from simswitch.cli.exits import Exit
from simswitch.client import AsyncClient, Holdings, OperatorClient, Order, Result, Session
from simswitch.core import commands, layout
from simswitch.core.machine import Machine
from simswitch.folder.apart import Refused
from simswitch.folder.backup import backup, copy_chains, copy_history
from simswitch.folder.check import check_folder
from simswitch.folder.manifest import MANIFEST, UNFINISHED
from simswitch.folder.restore import BEFORE, REASON_CHARACTERS_MAX, SKIPPED_MAX, Wanted, restore
from simswitch.history.schema import NAME as HISTORY
from simswitch.history.schema import open_reader, open_writer
from simswitch.journal.disk import RealDisk
from simswitch.journal.recovery import real_machine, recover
from simswitch.journal.snapshot import snapshot_sequences

from tests.cell.small_pool import SERVER_NUMBER, allocate
from tests.cli.conftest import program
from tests.folder.lives import BEGIN_MS, SEGMENT_BYTES, Life, lived
from tests.model.records import copy_regions, pack, tables
from tests.service.serving import Serving, define


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Life]:
    """A backup of a folder, and what that has seen."""
    folder = tmp_path_factory.mktemp("kept")
    life = lived(folder / "data")
    backup(folder / "data", folder / "backup")
    return folder / "backup", life


def opened(folder: Path) -> Cell:
    return Cell.open(
        folder, journal=JournalSettings(SEGMENT_BYTES, 0, prepare_ahead=False), clock=VirtualClock(BEGIN_MS)
    )


def heard(cell: Cell) -> None:
    """All its access servers have said since the restore that they hold what the folder knows."""
    header = cell.machine.header()
    found = tables(copy_regions(cell.machine))
    held = found["terminals"][: header["terminals_count"]]
    held = held[held["sim"] != layout.NONE_INDEX]
    for server in range(header["servers_count"]):
        opening = commands.run(layout.SESSION_OPEN, access_server=server)
        session = int(commands.outcome_runs(cell.step(opening).data)[0]["session"][0])
        here = held[held["server"] == server]
        columns = {
            "terminal": here["key"],
            "epoch": here["epoch"],
            "iccid": found["sims"]["iccid"][here["sim"]],
        }
        if len(here):
            cell.step(commands.run(layout.SESSION_HOLDS, len(here), access_server=server, argument=session, **columns))
        cell.step(commands.run(layout.SESSION_READY, access_server=server, argument=session))
    for _ in range(8):
        cell.step(commands.run(layout.TICK))
    assert cell.machine.header()["unheard_count"] == 0


def counted(folder: Path) -> tuple[int, int]:
    """Bytes by the machine and by history."""
    machine = recover(RealDisk(folder, create=False), real_machine(), repair=False).machine
    with closing(open_reader(folder)) as history:
        told = history.execute("SELECT coalesce(sum(bytes), 0) FROM use_day").fetchone()[0]
    return machine.header()["counted_bytes"], told


# ------------------------------------------------------------------------------------------------ fencing


def test_restores_of_one_backup_and_of_an_older_one_fence_each_other(tmp_path: Path) -> None:
    """One right after the other, and each opens more sessions than the time between them has seconds."""
    life = Life(tmp_path / "data")
    life.live(1)
    backup(life.folder, tmp_path / "older")
    life.live(101)
    backup(life.folder, tmp_path / "newer")
    given = [max(life.epochs.values())]
    numbers: list[int] = []
    told: list[int] = []
    jobs: list[int] = []
    life.cell.close()
    for place, source in enumerate(("newer", "newer", "older")):
        folder = tmp_path / f"restored-{place}"
        restore(tmp_path / source, folder, segment_bytes=SEGMENT_BYTES)
        cell = opened(folder)
        (refused, *_) = commands.outcome_runs(cell.step(allocate(401, 3)).data)
        assert set(refused["status"].tolist()) == {layout.HELLOS_AWAITED}, "also after the server's own RESTART"
        heard(cell)
        (answer, *_) = commands.outcome_runs(cell.step(allocate(401, 3)).data)
        assert answer["epoch"].min() > max(given), "an epoch that another lineage has given, or will give"
        given += answer["epoch"].tolist()
        for _ in range(10):
            session = commands.run(layout.SESSION_OPEN, 1, access_server=SERVER_NUMBER)
            numbers.append(int(commands.outcome_runs(cell.step(session).data)[0]["session"][0]))
        job = commands.outcome_runs(cell.step(commands.job_create("restored", selecting=1)).data)
        told += job[-1]["event"].tolist()
        jobs.append(int(job[0]["job"][0]))
        cell.close()
    assert len(numbers) == len(set(numbers)) == 30, "a session's number is given twice"
    assert told
    assert len(told) == len(set(told)), "an event's number is given twice"
    assert min(jobs) > 1 << 20


NUMBERS = ("epoch", "order_next", "jobs_count", "events_count", "given_up_count")
AN_INSTANT_IS_WORTH = {"epoch": 1 << 23, "order_next": 1, "events_count": 1 << 12, "given_up_count": 1 << 12}
QUARTER_MS = 256
"""A job has so long."""


def numbers(machine: Machine) -> dict[str, int]:
    header = tables(copy_regions(machine))["header"]
    found = {name: int(header[name][0]) for name in NUMBERS[1:]}
    return found | {"epoch": int(header["incarnation"][0]) << 48 | int(header["epoch_next"][0])}


def having(**fields: int) -> Machine:
    """A machine whose header says so."""
    machine = Machine(8, 8, 16)
    if "events_count" in fields:
        machine.raise_incarnation(0, 1)  # so that the ring of events has gone round
    regions = copy_regions(machine)
    header = tables(regions)["header"]
    for name, value in fields.items():
        header[name] = value
    return Machine.restore(pack(regions, {"header": header}))


def test_what_is_restored_later_has_numbers_beyond_all_that_the_earlier_gives_until_then() -> None:
    found = []
    for at_ms in range(BEGIN_MS, BEGIN_MS + 10 * QUARTER_MS, QUARTER_MS):
        machine = having()
        # Whatever is drawn: it is the instant that tells them apart.
        machine.raise_incarnation(at_ms, 1 + at_ms % 7)
        found.append(numbers(machine))
        assert machine.check() == []
    for one, another in pairwise(found):
        assert another["jobs_count"] == one["jobs_count"] + 1
        for name, worth in AN_INSTANT_IS_WORTH.items():
            assert another[name] - one[name] >= QUARTER_MS * worth, name


@pytest.mark.parametrize("name", ["now_ms", "incarnation", "epoch_next", *NUMBERS[1:]])
def test_where_the_state_is_beyond_the_clock_numbers_are_drawn_beyond_all_that_it_has(name: str) -> None:
    """A clock was ahead at an earlier restore, or is behind now; or more was given than an instant is worth."""
    machine = having()
    machine.raise_incarnation(BEGIN_MS + 1, 1)
    beyond = numbers(machine)
    value = {"now_ms": BEGIN_MS, "incarnation": 1 + (beyond["epoch"] >> 48), "epoch_next": beyond["epoch"] % (1 << 48)}
    fields = {name: (value | beyond)[name]}
    if name == "epoch_next":
        fields["incarnation"] = beyond["epoch"] >> 48
    before = numbers(having(**fields))
    by_the_clock = numbers_at(BEGIN_MS)
    found = []
    for lineage in (2, 1, 1025, 4):
        machine = having(**fields)
        machine.raise_incarnation(BEGIN_MS, lineage)
        found.append(numbers(machine))
        assert machine.check() == []
        assert machine.header()["now_ms"] == fields.get("now_ms", 0)
        for each in NUMBERS:
            assert found[-1][each] > before[each], each
        assert found[-1]["epoch"] > by_the_clock["epoch"], "as early as what was restored when the clock was right"
    second, first, same, fourth = found
    assert same == first, "one of 1,024 instants is drawn"
    for each, worth in {**AN_INSTANT_IS_WORTH, "jobs_count": 1 / QUARTER_MS}.items():
        apart = (1 << 22) * worth
        # Of restores with one clock that is behind the next may come any time later.
        assert second[each] - first[each] >= apart - 2_048, each
        assert fourth[each] - second[each] >= 2 * apart - 2_048, each


def numbers_at(at_ms: int) -> dict[str, int]:
    machine = having()
    machine.raise_incarnation(at_ms, 1)
    return numbers(machine)


# ------------------------------------------------------------------------------------------------ points in time


def test_an_instant_is_taken_to_the_millisecond() -> None:
    for at_ms in range(BEGIN_MS, BEGIN_MS + 3_000):
        at = datetime.fromtimestamp(at_ms / 1000).isoformat(timespec="milliseconds")
        assert instant_ms(at) == instant_ms(exact_text(at_ms)) == at_ms


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--until", "0"), "a record's number is 1 to 9,223,372,036,854,775,807, not 0"),
        (("--until", "9223372036854775808"), "a record's number is 1 to"),
        (("--until", "9" * 5_000), "a record's number is 1 to"),
        (("--until", "٣"), "is no record's number and no instant"),
        (("--until", "0001-01-01T00:00+14:00"), "is no record's number and no instant"),
        (("--skip", "0", "--reason", "why"), "0 is not in the range"),
        (("--skip", "1", "--reason", "x" * 1_001), "--reason takes 1,000 characters, this has 1,001"),
    ],
)
def test_numbers_and_words_that_are_none_are_refused_at_once(
    kept: tuple[Path, Life], tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    refused = program("restore", str(kept[0]), str(tmp_path / "new"), *words)
    assert (refused.returncode, says in " ".join(refused.stderr.split())) == (Exit.USAGE, True), refused.stderr
    assert not any(tmp_path.iterdir())


def test_the_instant_that_is_told_restores_the_record_it_was_told_of(kept: tuple[Path, Life], tmp_path: Path) -> None:
    source, life = kept
    wanted = sorted(life.states)[40]
    told = program("restore", str(source), str(tmp_path / "one"), "--until", str(wanted))
    found = re.search(r"record ([\d,]+) \((.*)\)", told.stdout)
    assert found is not None, told
    again = program("restore", str(source), str(tmp_path / "other"), "--until", found[2])
    assert again.stdout.splitlines()[0].endswith(f"record {found[1]} ({found[2]})"), again
    assert (found[1], found[2]) == (f"{wanted:,}", exact_text(life.instants[wanted]))


def test_restores_of_one_hour_are_told_apart(kept: tuple[Path, Life], tmp_path: Path) -> None:
    """All of them said the same number: as if the second had fenced nothing."""
    source, _ = kept
    told = "".join(program("restore", str(source), str(tmp_path / name)).stdout for name in ("one", "two"))
    first, second = re.findall(r"^fenced at (.*): no epoch ", told, re.MULTILINE)
    assert datetime.fromisoformat(first) < datetime.fromisoformat(second)
    (entry,) = all_entries(tmp_path / "two" / RESTORES)
    assert exact_text(entry.fields["at_ms"]) == second


def test_at_between_before_and_behind_records(kept: tuple[Path, Life], tmp_path: Path) -> None:
    source, life = kept
    sequences = sorted(life.states)
    wanted, following = sequences[40], sequences[41]
    last = sequences[-1]
    for number, (until_ms, expected) in enumerate((
        (life.instants[wanted], wanted),
        (life.instants[following] - 1, wanted),
        (life.instants[following], following),
        (life.instants[last], last),
        (life.instants[last] + 1, last),
        (life.instants[last] + 10**9, last),
    )):  # fmt: skip
        found = restore(source, tmp_path / str(number), Wanted(until_ms=until_ms), segment_bytes=SEGMENT_BYTES)
        assert (found["sequence"], found["now_ms"]) == (expected, life.instants[expected])
        assert recovered_hash(tmp_path / str(number)) is not None
    oldest = snapshot_sequences(RealDisk(source))[0]
    for wrong in (Wanted(until_sequence=0), Wanted(until_ms=0), Wanted(until_ms=BEGIN_MS - 1)):
        with pytest.raises(Refused, match=f"lies before|begins after that|reaches back to record {oldest}"):
            restore(source, tmp_path / "new", wrong)


def recovered_hash(folder: Path) -> int:
    machine = recover(RealDisk(folder, create=False), real_machine(), repair=False).machine
    assert machine.check() == []
    return machine.state_hash()


def test_what_was_restored_is_backed_up_and_restored_again(kept: tuple[Path, Life], tmp_path: Path) -> None:
    source, life = kept
    for turn in range(3):
        folder = tmp_path / f"data-{turn}"
        restore(source, folder, segment_bytes=SEGMENT_BYTES)
        cell = opened(folder)
        heard(cell)
        cell.step(allocate(500 + turn))
        cell.close()
        source = tmp_path / f"backup-{turn}"
        backup(folder, source)
        checked = check_folder(source)
        assert checked.sound, checked.parts
    assert len(verify_folder(source)) == 2, "tokens and restores"
    assert set(life.epochs) | {500, 501, 502} == set(terminals(source))


def test_tokens_count_as_at_the_backup_and_restore_says_how_many(kept: tuple[Path, Life], tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(kept[0], source)
    (source / TOKENS).unlink()
    ids = [create_token(source, f"operator:{name}", 60_000)[0].id for name in ("alice", "bob")]
    backup(source, tmp_path / "backup")
    revoke_token(source, ids[1])
    found = restore(tmp_path / "backup", tmp_path / "new", segment_bytes=SEGMENT_BYTES)
    assert found["valid_tokens"] == [f"{ids[0]} operator:alice", f"{ids[1]} operator:bob"]
    (entry,) = all_entries(tmp_path / "new" / RESTORES)
    assert entry.fields["valid_tokens"] == 2
    told = program("restore", str(source), str(tmp_path / "other"))
    assert "1 token counts as it did then" in told.stdout, told.stderr
    assert f"token list {tmp_path / 'other'}" in told.stdout


def test_as_many_tokens_as_there_may_be_are_restored(kept: tuple[Path, Life], tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(kept[0], source)
    (source / TOKENS).unlink()
    fields = {"at_ms": 1, "what": "created", "actor": "operator:alice", "secret_sha256": "0" * 64, "by": "root"}
    chain = Chain(source / TOKENS)
    for number in range(TOKENS_MAX):
        chain.append(fields | {"token": f"{number:016x}", "expires_ms": 1 << 50})
    chain.close()
    found = restore(source, tmp_path / "new", segment_bytes=SEGMENT_BYTES)
    assert len(found["valid_tokens"]) == TOKENS_MAX
    (entry,) = all_entries(tmp_path / "new" / RESTORES)
    assert entry.fields["valid_tokens"] == TOKENS_MAX
    with pytest.raises(Refused, match="at most 1,000 characters"):
        restore(source, tmp_path / "other", Wanted(reason="x" * 1_001))


def test_more_records_than_a_line_of_the_audit_log_has_room_for_are_not_left_out(
    kept: tuple[Path, Life], tmp_path: Path
) -> None:
    far = 1 << 62
    skip = tuple(range(far, far + SKIPPED_MAX))
    longest = {"skipped": skip, "reason": "\U0001f4f6" * REASON_CHARACTERS_MAX, "source": "\udcff" * 4_096}
    assert len(line_of(longest)[1]) + 4_096 < LINE_BYTES_MAX
    with pytest.raises(Refused, match=r"1,001 records are too many to leave out, at most 1,000.*--until"):
        restore(kept[0], tmp_path / "new", Wanted(skip=(*skip, 1), reason="a test"))
    assert not any(tmp_path.iterdir())


def test_of_two_restores_into_one_place_the_second_is_refused(kept: tuple[Path, Life], tmp_path: Path) -> None:
    making = tmp_path / "new.restoring"
    held = RealDisk(making).lock()
    (making / "what the other has made").touch()
    with pytest.raises(Refused, match=rf"process {os.getpid()} restores into {tmp_path / 'new'} just now"):
        restore(kept[0], tmp_path / "new", segment_bytes=SEGMENT_BYTES)
    assert (making / "what the other has made").exists()
    # It was killed: what it left is in nobody's way.
    held.release()
    restore(kept[0], tmp_path / "new", segment_bytes=SEGMENT_BYTES)
    assert not making.exists()
    assert not (tmp_path / "new" / "what the other has made").exists()


def terminals(folder: Path) -> list[int]:
    machine = recover(RealDisk(folder, create=False), real_machine(), repair=False).machine
    found = [machine.terminal(index) for index in range(machine.header()["terminals_count"])]
    return [terminal["key"] for terminal in found if terminal["sim"] is not None]


# ------------------------------------------------------------------------------------------------ cut and damaged


def test_a_backup_that_lost_its_end_is_refused_though_what_is_left_is_sound(
    kept: tuple[Path, Life], tmp_path: Path
) -> None:
    source, last = tmp_path / "cut", max(kept[1].states)
    shutil.copytree(kept[0], source)
    (source / HISTORY).unlink()
    begun = sorted(source.glob("segment-*.journal"))
    begun[-1].unlink()
    checked = check_folder(source)
    (part,) = [part for part in checked.parts if not part.sound]
    assert (part.part, part.file) == ("backup", MANIFEST)
    left = checked.last_sequence
    assert left < last
    for wanted in (Wanted(), Wanted(until_ms=1 << 62)):
        with pytest.raises(Refused, match=rf"ends at record {left}, and had {last}.*--until {left}"):
            restore(source, tmp_path / "new", wanted)
    assert not (tmp_path / "new").exists()
    found = restore(source, tmp_path / "new", Wanted(until_sequence=left), segment_bytes=SEGMENT_BYTES)
    assert found["sequence"] == left


def test_a_folder_that_ends_before_what_history_knows_is_restored_only_when_that_is_said(tmp_path: Path) -> None:
    life = Life(tmp_path / "data")
    life.live(1)
    life.live(101)
    life.follow(snapshot=False)
    life.cell.close(snapshot=False)
    max(life.folder.glob("segment-*.journal")).unlink()
    left = recover(RealDisk(life.folder), real_machine(), repair=False).machine.sequence
    with pytest.raises(Refused, match=rf"ends at record {left}, and had {max(life.states)}, which were acknowledged"):
        restore(life.folder, tmp_path / "new")
    found = restore(life.folder, tmp_path / "new", Wanted(until_sequence=left), segment_bytes=SEGMENT_BYTES)
    assert (found["sequence"], found["history"]) == (left, BEFORE)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"source_sequence": "x"}'])
def test_a_damaged_manifest_is_named(kept: tuple[Path, Life], tmp_path: Path, text: str) -> None:
    source = tmp_path / "cut"
    shutil.copytree(kept[0], source)
    (source / MANIFEST).write_text(text)
    with pytest.raises(Refused, match=MANIFEST):
        restore(source, tmp_path / "new")
    assert [part.file for part in check_folder(source).parts if not part.sound] == [MANIFEST]


def test_a_backup_is_not_served_from_nor_called_sound_before_it_is_finished(
    kept: tuple[Path, Life], tmp_path: Path
) -> None:
    answer = program("serve", str(kept[0]), "--address", "127.0.0.1:0")
    assert answer.returncode == Exit.REFUSED
    assert "simswitch restore" in answer.stderr
    source = tmp_path / "begun"
    shutil.copytree(kept[0], source)
    (source / MANIFEST).rename(source / UNFINISHED)
    assert [part.file for part in check_folder(source).parts if not part.sound] == [UNFINISHED]


# ------------------------------------------------------------------------------------------------ history


def test_history_that_knows_a_record_which_is_left_out_stays_beside(tmp_path: Path) -> None:
    life = Life(tmp_path / "data")
    life.live(1)
    report = max(life.states) - 1
    life.live(101, 5)
    life.follow(snapshot=False)
    life.live(201, 5)
    life.cell.close(snapshot=False)
    wanted = Wanted(skip=(report,), reason="a test")
    found = restore(life.folder, tmp_path / "new", wanted, segment_bytes=SEGMENT_BYTES)
    assert found["history"] == BEFORE
    by_machine, by_history = counted(tmp_path / "new")
    assert by_machine == by_history
    assert by_machine < life.cell.machine.header()["counted_bytes"]
    assert check_folder(tmp_path / "new").sound
    # What history has not seen yet it goes on behind, and says that something is missing.
    later = Wanted(skip=(max(life.states) - 1,), reason="a test")
    found = restore(life.folder, tmp_path / "later", later, segment_bytes=SEGMENT_BYTES)
    assert found["history"] == "kept"
    with closing(open_reader(tmp_path / "later")) as history:
        gaps = history.execute("SELECT first_sequence, last_sequence FROM gaps").fetchall()
    assert gaps == [later.skip * 2]
    by_machine, by_history = counted(tmp_path / "later")
    assert by_machine == by_history


@pytest.mark.parametrize("behind", [1, 2])
def test_history_that_is_behind_a_snapshot_is_brought_up_to_it(tmp_path: Path, behind: int) -> None:
    """As a backup has it while the follower goes on: history first, snapshots later."""
    life = Life(tmp_path / "data")
    life.live(1)
    life.follow()
    with closing(open_reader(life.folder)) as history:
        copy_history(history, tmp_path)
    for first in range(101, 101 + behind * 100, 100):
        life.live(first)
        life.follow()
    life.cell.close(snapshot=False)
    for path in life.folder.glob(f"{HISTORY}*"):
        path.unlink()
    (tmp_path / HISTORY).rename(life.folder / HISTORY)
    backup(life.folder, tmp_path / "backup")
    oldest, _ = snapshot_sequences(RealDisk(tmp_path / "backup"))
    found = restore(tmp_path / "backup", tmp_path / "new", segment_bytes=SEGMENT_BYTES)
    assert found["history"] == "kept"
    with closing(open_reader(tmp_path / "new")) as history:
        assert history.execute("SELECT min(sequence) FROM positions").fetchone() == (max(life.states),)
        gaps = history.execute("SELECT last_sequence FROM gaps").fetchall()
    # Only what stood before the oldest snapshot is gone for good.
    assert gaps == [(oldest,)] * (behind - 1)


def test_history_of_another_journal_is_never_taken_for_this_one(kept: tuple[Path, Life], tmp_path: Path) -> None:
    source = tmp_path / "mixed"
    shutil.copytree(kept[0], source)
    other = lived(tmp_path / "other")
    backup(other.folder, tmp_path / "others")
    shutil.copy(tmp_path / "others" / HISTORY, source / HISTORY)
    last = max(kept[1].states)
    newest = snapshot_sequences(RealDisk(source))[-1]
    for number, until in enumerate((last, newest)):
        folder = tmp_path / f"new-{number}"
        found = restore(source, folder, Wanted(until_sequence=until), segment_bytes=SEGMENT_BYTES)
        assert found["history"] == BEFORE
        assert check_folder(folder).sound
    # The same journal's, and yet it knows another record: one of the two was put back from elsewhere.
    shutil.copy(kept[0] / HISTORY, source / HISTORY)
    with closing(sqlite3.connect(source / HISTORY)) as history, history:
        (known,) = history.execute("SELECT max(sequence) FROM positions").fetchone()
        history.execute("UPDATE positions SET checksum = checksum + 1")
    for number, until in enumerate((known, last)):
        with pytest.raises(Refused, match=f"record {known}"):
            restore(source, tmp_path / f"refused-{number}", Wanted(until_sequence=until), segment_bytes=SEGMENT_BYTES)


def test_a_copy_of_history_ends_though_its_writer_commits_all_the_time(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "copy").mkdir()
    commits_max = 20_000
    with closing(open_writer(tmp_path / "data")) as writer:
        writer.execute("BEGIN")
        rows = ((1, number, 7) for number in range(1 << 20))
        writer.executemany("INSERT INTO use_day VALUES (?, ?, ?)", rows)
        writer.execute("COMMIT")
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    over, commits = threading.Event(), 0

    def write() -> None:
        nonlocal commits
        with closing(open_writer(tmp_path / "data")) as writer:
            writer.execute("PRAGMA synchronous = OFF")
            while not over.is_set() and commits < commits_max:
                writer.execute("INSERT INTO gaps VALUES (?, 2, 3, 4)", (commits,))
                commits += 1

    writing = threading.Thread(target=write)
    writing.start()
    while not commits:
        over.wait(0.001)
    with closing(open_reader(tmp_path / "data")) as reader:
        copy_history(reader, tmp_path / "copy")
    over.set()
    writing.join()
    assert commits < commits_max, "the copy ended only when nobody wrote any more"
    with closing(open_reader(tmp_path / "copy")) as copied:
        assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copied.execute("SELECT count(*) FROM use_day").fetchone() == (1 << 20,)


def test_a_chained_file_that_is_renamed_meanwhile_is_copied_without_a_gap(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "audit" / "attempts.log"
    chain = Chain(path, size_max=20_000)
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            chain.append({"what": "x" * 500})

    writing = threading.Thread(target=write)
    writing.start()
    try:
        while not older(path).exists():
            over.wait(0.001)
        for number in range(200):
            target = tmp_path / str(number)
            target.mkdir()
            copy_chains(tmp_path / "data", target)
            assert len(verify_folder(target)) == 1
    finally:
        over.set()
        writing.join()
        chain.close()


# ------------------------------------------------------------------------------------------------ where to


def test_only_owner_and_group_may_read_a_backup_and_what_is_restored(kept: tuple[Path, Life], tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        shutil.copytree(kept[0], tmp_path / "source")
        (tmp_path / "source" / MANIFEST).unlink()
        (tmp_path / "backup").mkdir(mode=0o755)
        backup(tmp_path / "source", tmp_path / "backup")
        (tmp_path / "new").mkdir(mode=0o755)
        point = Wanted(until_sequence=snapshot_sequences(RealDisk(tmp_path / "backup"))[0])
        restore(tmp_path / "backup", tmp_path / "new", point, segment_bytes=SEGMENT_BYTES)
        restore(tmp_path / "backup", tmp_path / "made", segment_bytes=SEGMENT_BYTES)
    finally:
        os.umask(before)
    for folder in ("backup", "new", "made"):
        for path in (tmp_path / folder).rglob("*"):
            assert not path.stat().st_mode & 0o027, path
    for folder in ("new", "made"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700


def test_a_link_is_followed_and_a_mount_point_refused_before_anything_is_done(
    kept: tuple[Path, Life], tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    restore(kept[0], tmp_path / "link", segment_bytes=SEGMENT_BYTES)
    assert (tmp_path / "link").is_symlink()
    assert check_folder(tmp_path / "link").sound
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    restore(kept[0], tmp_path / "dangling", segment_bytes=SEGMENT_BYTES)
    assert check_folder(tmp_path / "nowhere").sound
    with pytest.raises(Refused, match="mount point"):
        restore(kept[0], "/proc")
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="could not be made"):
        restore(kept[0], tmp_path / "file" / "new")


def test_i1_more_leases_than_orders_that_a_restored_service_never_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its access server once never got ready again, while others were given the SIMs that its terminals used.

    Of an eighth of the 1,024 orders at a time it is told what to let go of, and comes back by itself for the rest.
    """
    monkeypatch.setattr("simswitch.client.session.AGAIN_S", 2.0)
    leases, holdings, others = 200, Holdings(), Holdings()
    rounds = []

    async def done(_: Order) -> Result:
        return Result.DONE

    async def live(address: str) -> None:
        async with AsyncClient(address, access_server="as-01", holdings=holdings) as client:
            await client.allocate_many(np.arange(leases) + 1, "jp")

    async def again(address: str) -> None:
        before = {lease.iccid for lease in holdings}
        async with (
            Session(address, "as-01", done, holdings=holdings, pause_first_s=0.05) as session,
            Session(address, "as-02", done, holdings=others, pause_first_s=0.05) as other,
            AsyncClient(address, access_server="as-02", holdings=others) as client,
        ):
            other.start()
            await other.serving(30)
            # One of two has said what it holds.
            refused = await client.allocate_many(np.arange(10) + 5_001, "jp")
            assert set(refused.status.tolist()) == {layout.HELLOS_AWAITED}
            assert refused.retry_after_ms.all()
            told = await asyncio.to_thread(program, "access-server", "list", "--address", address)
            assert "RESTORED: nobody is given a SIM anew until access server" in told.stdout, told
            assert "as-01 (not connected)" in told.stdout
            assert "awaited: not connected" in told.stdout
            session.start()
            rounds.append((await session.serving(30)).differences)
            await client.allocate_many(np.arange(600) + 5_001, "jp")
            assert before.isdisjoint(lease.iccid for lease in others)
            assert len(others) == 600 - leases
            while len(holdings):
                await asyncio.sleep(0.05)
            rounds.append((await session.serving(30)).differences)

    one = Serving(tmp_path / "data")
    try:
        with OperatorClient(one.address) as operator:
            define(operator, 600)
        # A process with a server in it is not copied (``apart``).
        answer = program("backup", str(tmp_path / "data"), str(tmp_path / "copy"))
        assert answer.returncode == Exit.OK, answer.stderr
        asyncio.run(live(one.address))
    finally:
        one.end()
    answer = program("restore", str(tmp_path / "copy"), str(tmp_path / "again"))
    assert answer.returncode == Exit.OK, answer.stderr
    assert "RESTORED: nobody is given a SIM anew until access servers as-0" in answer.stdout
    assert "simswitch clock confirm" in answer.stdout
    two = Serving(tmp_path / "again")
    try:
        asyncio.run(asyncio.wait_for(again(two.address), 60))
    finally:
        two.end()
    assert rounds[0] == {layout.REVOKED: 128, layout.ORDERS_FULL: leases - 128}
    assert layout.ORDERS_FULL not in rounds[-1]

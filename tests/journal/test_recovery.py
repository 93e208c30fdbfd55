"""Crashes at every point of the disk, then recovery: what was acknowledged is there (I6), with its outcomes (I10)."""

from __future__ import annotations

import errno
from dataclasses import replace
from random import Random

import pytest
from simswitch.cell import Capacity, Cell, JournalFull, VirtualClock
from simswitch.core.machine import MalformedBatch, xxh64
from simswitch.journal.append import START, Journal, JournalSettings
from simswitch.journal.errors import (
    FolderInUse,
    JournalDamaged,
    JournalFailed,
    MachineVersionDiffers,
    OutcomeDiffers,
    RecordRefused,
    RecordTooLarge,
)
from simswitch.journal.follower import Follower, FollowerSettings
from simswitch.journal.format import SegmentHeader
from simswitch.journal.recovery import recover
from simswitch.journal.snapshot import (
    open_snapshot,
    prune,
    snapshot_name,
    snapshot_sequences,
    write_snapshot,
)
from simswitch.journal.walk import Walk, list_segments
from simswitch.journal.walk import repair as repair_end

from tests.journal.faulty_disk import FaultyDisk
from tests.journal.tiny_machine import BROKEN, number_run, numbers_of, tiny_kind
from tests.journal.written import BLOCK, JOURNAL_ID, append, payload, segment, settings, write


def opened(disk: FaultyDisk, blocks: int = 6, version: int = 1) -> Cell:
    return Cell.open(
        "in memory",
        disk=disk,
        machine=tiny_kind(version),
        capacity=Capacity(1, 1, 1),
        journal=settings(blocks),
        clock=VirtualClock(1000),
        entropy=lambda size: JOURNAL_ID[:size],
        seeds=lambda: 7,
        fail_stop=lambda _: None,
    )


def lives(disk: FaultyDisk, acknowledged: list[int], first: int) -> None:
    """One life of a server: some commands, a clean end. What it acknowledged is noted before anything else happens."""
    cell = opened(disk)
    for number in range(first, first + 9):
        cell.step(number_run(number, 24 if number % 3 else 5000))
        acknowledged.append(number)
    cell.close()


def two_lives(disk: FaultyDisk, acknowledged: list[int]) -> None:
    lives(disk, acknowledged, 0)
    lives(disk, acknowledged, 100)


def test_i6_a_crash_at_every_event_of_the_disk_loses_nothing_acknowledged() -> None:
    """Every write, sync, rename and removal fails once; the power goes; what is not durable survives at random."""
    whole = FaultyDisk()
    lives(whole, [], 0)
    lives(whole, [], 100)
    events = len(whole.events)
    assert events > 60
    cut = 0
    for fail_at in range(events):
        disk = FaultyDisk()
        disk.fail_at = fail_at
        acknowledged: list[int] = []
        with pytest.raises((JournalFailed, OSError)):
            two_lives(disk, acknowledged)
        for seed in range(5):
            found = disk.crash(Random(fail_at * 10 + seed))
            cell = opened(found)
            numbers = numbers_of(cell.machine)
            assert numbers[: len(acknowledged)] == acknowledged, f"fail_at={fail_at} seed={seed}"
            # At most the one command that was never answered may stand behind them.
            assert len(numbers) <= len(acknowledged) + 1, f"fail_at={fail_at} seed={seed}"
            assert cell.recovery is not None
            cut += cell.recovery.verdict.case != "@C"
            cell.step(number_run(7777))
            hash_before = cell.machine.state_hash()
            assert recover(found.copy(), tiny_kind(), repair=False).machine.state_hash() == hash_before
            cell.close()
    assert cut > 10


class Killed(BaseException):
    """The process is gone, and nothing of it runs any more."""


def test_i6_names_that_a_killed_process_left_are_durable_before_anything_is_built_on_them() -> None:
    """Killed at every event of the disk, started again, then cut off: what the second life acknowledged stays."""
    whole = FaultyDisk()
    two_lives(whole, [])
    for kill_at in range(len(whole.events)):
        disk = FaultyDisk()

        def killed(_: str, disk: FaultyDisk = disk, kill_at: int = kill_at) -> None:
            if len(disk.events) >= kill_at:
                raise Killed

        disk.before = killed
        acknowledged: list[int] = []
        with pytest.raises(Killed):
            two_lives(disk, acknowledged)
        disk.before = None
        disk.locked = False
        cell = opened(disk)
        # Little, so that no other segment is prepared, which would make all names durable.
        cell.step(number_run(500))
        acknowledged.append(500)
        for seed in range(8):
            found = numbers_of(opened(disk.crash(Random(kill_at * 10 + seed))).machine)
            assert [number for number in found if number in acknowledged] == acknowledged, f"{kill_at=} {seed=}"


def test_p_a_damaged_record_before_the_newest_snapshot_is_passed_over_and_told() -> None:
    """Whatever becomes of it: flipped, lost, overwritten by another one, unreadable. The follower goes on as well."""
    disk = FaultyDisk()
    cell = opened(disk, blocks=64)
    for number in range(12):
        cell.step(number_run(number, 24 if number % 3 else 5000))
    follower = Follower(disk, tiny_kind(), FollowerSettings(interval_s=1e9))
    follower.turn()
    follower.take_snapshot()
    follower.close()
    sequence = cell.durable_sequence
    for number in range(20, 23):
        cell.step(number_run(number))
    expected = cell.machine.state_hash()
    places = {record.header.sequence: record.offset for record in Walk(disk)}
    name = segment(1)
    for damaged_sequence in range(1, sequence + 1):
        offset = places[damaged_sequence]
        for damage in ("header", "payload", "lost", "another", "unreadable"):
            found = disk.copy()
            if damage == "unreadable":
                found.break_sector(name, offset)
            elif damage in ("lost", "another"):
                other = bytes(BLOCK) if damage == "lost" else bytes(found.seen[name].seen[BLOCK : 2 * BLOCK])
                found.overwrite(name, offset, other)
            else:
                found.flip(name, offset + (20 if damage == "header" else 140))
            before = bytes(found.seen[name].seen)
            if before == bytes(disk.seen[name].seen) and found.seen[name].broken is None:
                continue  # the first record over itself
            recovery = recover(found, tiny_kind(), repair=True)
            assert bytes(found.seen[name].seen) == before, "what was damaged is kept as it is"
            assert recovery.machine.state_hash() == expected
            assert recovery.place == recover(disk.copy(), tiny_kind(), repair=False).place
            assert [(told.case, told.file, told.offset) for told in recovery.damages] == [("@P", name, offset)]
            follower = Follower(found, tiny_kind())
            assert follower.turn()
            assert follower.machine.state_hash() == expected
            follower.close()
            # It stays loud until the file is gone, also where the server is asked.
            later = opened(found, blocks=64)
            assert name in later.alarm
            found.unlink(name)
            assert later.alarm == ""


def snapshot_by_follower(disk: FaultyDisk) -> int:
    follower = Follower(disk, tiny_kind(), FollowerSettings(interval_s=1e9))
    while follower.turn():
        pass
    follower.take_snapshot()
    follower.close()
    return follower.snapshot_sequence


@pytest.mark.parametrize("before", [20, 21], ids=["within a segment", "at a segment's end"])
@pytest.mark.parametrize("behind", [0, 7], ids=["nothing behind", "more behind"])
def test_p_a_damaged_segment_header_is_passed_over_up_to_the_newest_snapshot(before: int, behind: int) -> None:
    """Flipped, lost or unreadable. A segment that is read behind the snapshot's record only is refused (@L, @Q)."""
    disk = FaultyDisk()
    cell = opened(disk, blocks=4)
    for number in range(before):
        cell.step(number_run(number))
    snapshot = snapshot_by_follower(disk)
    for number in range(before, before + behind):
        cell.step(number_run(number))
    expected = recover(disk, tiny_kind(), repair=False)
    begun = [each for each in list_segments(disk) if isinstance(each.header, SegmentHeader)]
    firsts = [each.header.first_sequence for each in begun if isinstance(each.header, SegmentHeader)]
    passed_over = 0
    for each, first, following in zip(begun, firsts, [*firsts[1:], snapshot + 100], strict=True):
        for damage in ("flipped", "lost", "unreadable"):
            found = disk.copy()
            if damage == "unreadable":
                found.break_sector(each.name, 100)
            else:
                found.overwrite(each.name, 0, bytes(BLOCK) if damage == "lost" else b"?")
            names = {name: bytes(found.seen[name].seen) for name in found.names()}
            if first > snapshot + 1:
                with pytest.raises(JournalDamaged) as caught:
                    recover(found, tiny_kind(), repair=True)
                assert (caught.value.case, caught.value.file) in (("@L", each.name), ("@Q", each.name))
                assert names == {name: bytes(found.seen[name].seen) for name in found.names()}
                continue
            recovery = recover(found, tiny_kind(), repair=True)
            assert names == {name: bytes(found.seen[name].seen) for name in found.names()}
            assert recovery.machine.state_hash() == expected.machine.state_hash()
            assert recovery.place == expected.place
            needed = following > snapshot + 1
            assert [(told.case, told.file, told.offset) for told in recovery.damages] == [("@P", each.name, 0)] * needed
            passed_over += needed
            # It goes on, and the file goes by itself when two newer snapshots are there; so does what stands before.
            later = opened(found, blocks=4)
            assert (each.name in later.alarm) == needed
            for number in range(100, 106):
                later.step(number_run(number))
                if number % 3 == 2:
                    assert snapshot_by_follower(found) == later.durable_sequence
            assert later.alarm == ""
            assert each.name not in found.names()
    assert passed_over == 3


def test_p_a_damaged_segment_header_is_passed_over_by_proof_only() -> None:
    """The file was cut or renamed, or the snapshot is of another history: what stands in it shows nothing."""
    disk = FaultyDisk()
    cell = opened(disk, blocks=4)
    for number in range(5):
        cell.step(number_run(number))
    snapshot = snapshot_by_follower(disk)
    cell.step(number_run(5))
    header = list_segments(disk)[1].header
    assert isinstance(header, SegmentHeader)
    for wrong in (replace(header, number=3), replace(header, segment_bytes=8 * BLOCK)):
        found = disk.copy()
        found.overwrite(segment(2), 0, wrong.encode())
        with pytest.raises(JournalDamaged, match=r"renamed|on disk"):
            recover(found, tiny_kind(), repair=True)
    offsets = [record.offset for record in Walk(disk, first_sequence=snapshot)]
    disk.overwrite(segment(2), 0, b"?")
    assert recover(disk, tiny_kind(), repair=False).damages
    for offset in offsets:
        disk.flip(segment(2), offset + 20)
    with pytest.raises(JournalDamaged, match="no magic") as caught:
        recover(disk, tiny_kind(), repair=True)
    assert caught.value.case == "@L"


def test_q_what_the_disk_cannot_read_is_refused_by_name_and_a_snapshot_is_passed_over() -> None:
    disk = FaultyDisk()
    for first in (0, 100):
        lives(disk, [], first)
    expected = recover(disk, tiny_kind(), repair=False).machine.state_hash()
    newest = snapshot_name(snapshot_sequences(disk)[-1])
    for offset in (100, BLOCK + 1, disk.seen[newest].seen.__len__() - BLOCK):
        found = disk.copy()
        found.break_sector(newest, offset)
        recovery = recover(found, tiny_kind(), repair=False)
        assert recovery.machine.state_hash() == expected
        assert "can't read it" in str(recovery.damages[0])
    written = write([40, 2 * BLOCK, 40])
    written.disk.fsync_folder()
    for offset, sequence in ((100, 1), (BLOCK, 1), (3 * BLOCK, 2), (5 * BLOCK, 3), (7 * BLOCK - 1, 4)):
        found = written.disk.copy()
        found.break_sector(segment(1), offset)
        told = rf"{segment(1)}, byte \d+, sequence {sequence}: the disk can't"
        with pytest.raises(JournalDamaged, match=told) as caught:
            recover_walk(found)
        assert caught.value.case == "@Q"


def test_i6_a_crash_in_recovery_itself_is_recovered() -> None:
    torn = write([40, 40, 2 * BLOCK])
    torn.disk.flip(segment(1), 3 * BLOCK + 100)
    for fail_at in range(40):
        disk = torn.disk.copy()
        journal_only = recover_walk(disk)
        disk.fail_at = fail_at
        try:
            recover_walk(disk, repair=True)
        except OSError:
            found = disk.crash(Random(fail_at))
            assert recover_walk(found, repair=True) == journal_only
            continue
        assert recover_walk(disk) == journal_only
        return
    pytest.fail("recovery never ended")


def recover_walk(disk: FaultyDisk, *, repair: bool = False) -> list[bytes]:
    walk = Walk(disk)
    payloads = [bytes(record.payload) for record in walk]
    assert walk.verdict is not None
    if repair:
        repair_end(disk, walk.verdict)
    return payloads


def test_recovery_starts_from_the_newest_snapshot_and_falls_back_to_the_older() -> None:
    disk = FaultyDisk()
    for first in (0, 100, 200):
        lives(disk, [], first)
    newest, older = snapshot_sequences(disk)[::-1]
    expected = recover(disk, tiny_kind(), repair=False)
    assert expected.snapshot_sequence == newest
    assert expected.replayed_count == 0
    for offset in (3, 20, 60, 300, BLOCK + 1):
        damaged = disk.copy()
        damaged.flip(snapshot_name(newest), offset)
        recovery = recover(damaged, tiny_kind(), repair=False)
        assert recovery.snapshot_sequence == older
        assert recovery.replayed_count == newest - older
        assert recovery.machine.state_hash() == expected.machine.state_hash()
        assert [told.file for told in recovery.damages] == [snapshot_name(newest)]


def test_a_damaged_snapshot_does_not_count_as_one_of_the_two_that_are_kept() -> None:
    disk = FaultyDisk()
    for first in (0, 100, 200):
        lives(disk, [], first)
    older, newest = snapshot_sequences(disk)
    disk.flip(snapshot_name(newest), BLOCK + 1)
    cell = opened(disk)
    follower = Follower(disk, tiny_kind())
    follower.turn()
    follower.take_snapshot()
    assert snapshot_sequences(disk) == [older, newest, cell.durable_sequence]
    # Should the next one rot as well, there is one to begin from.
    rotten = disk.copy()
    rotten.flip(snapshot_name(cell.durable_sequence), BLOCK + 1)
    assert recover(rotten, tiny_kind(), repair=False).machine.state_hash() == cell.machine.state_hash()
    cell.step(number_run(300))
    cell.close()
    assert snapshot_sequences(disk) == [cell.durable_sequence - 1, cell.durable_sequence]


def test_a_snapshot_that_rotted_since_is_found_before_what_could_replace_it_goes() -> None:
    disk = FaultyDisk()
    cell = opened(disk, blocks=4)
    for number in range(6):
        cell.step(number_run(number))
        if number % 2:
            snapshot_by_follower(disk)
    assert snapshot_sequences(disk) == [4, 6]
    disk.flip(snapshot_name(6), BLOCK + 1)
    cell.step(number_run(6))
    assert snapshot_by_follower(disk) == 7
    assert snapshot_sequences(disk) == [4, 6, 7]
    disk.flip(snapshot_name(7), BLOCK + 1)
    assert recover(disk, tiny_kind(), repair=False).machine.state_hash() == cell.machine.state_hash()


def test_a_snapshot_is_never_half_loaded() -> None:
    disk = FaultyDisk()
    lives(disk, [], 0)
    sequence = snapshot_sequences(disk)[-1]
    name = snapshot_name(sequence)

    def load(disk: FaultyDisk) -> None:
        with open_snapshot(disk, sequence) as (_, regions):
            tiny_kind().restore(regions)

    with open_snapshot(disk, sequence) as (header, _):
        assert header.sequence == sequence
        places = [(BLOCK, len(header.description))]
        places += [(entry.offset, entry.item_bytes * entry.count) for entry in header.regions]
    for offset in [*range(400), *(start + each for start, size in places for each in range(min(size, 400)))]:
        disk.flip(name, offset)
        with pytest.raises(JournalDamaged):
            load(disk)
        disk.flip(name, offset)
    load(disk)
    short = disk.copy()
    del short.seen[name].seen[-1:]
    with pytest.raises(JournalDamaged, match="on disk"):
        load(short)


def test_h_a_snapshot_vouches_for_the_last_record() -> None:
    """The last acknowledged record rots after a clean shutdown: it is not taken for a torn write."""
    disk = FaultyDisk()
    lives(disk, [], 0)
    last = [s for s in list_segments(disk) if s.header is not None][-1]
    content = disk.seen[last.name].seen
    end = max(at for at in range(0, len(content), BLOCK) if any(content[at : at + BLOCK]))
    disk.flip(last.name, end + 3)
    with pytest.raises(JournalDamaged) as caught:
        recover(disk, tiny_kind(), repair=True)
    assert caught.value.case == "@H"


def test_o_a_folder_with_a_snapshot_and_no_journal_is_refused() -> None:
    disk = FaultyDisk()
    lives(disk, [], 0)
    for name in [name for name in disk.names() if name.startswith("segment")]:
        disk.unlink(name)
    with pytest.raises(JournalDamaged) as caught:
        opened(disk)
    assert caught.value.case == "@O"
    assert not disk.locked


def test_j_a_snapshot_of_another_history_is_refused() -> None:
    disk = FaultyDisk()
    lives(disk, [], 0)
    sequence = snapshot_sequences(disk)[-1]
    machine = recover(disk, tiny_kind(), repair=False).machine
    write_snapshot(disk, machine, JOURNAL_ID, 1, chain=99)
    assert snapshot_sequences(disk)[-1] == sequence
    with pytest.raises(JournalDamaged) as caught:
        recover(disk, tiny_kind(), repair=False)
    assert caught.value.case == "@J"


def test_segments_below_the_older_snapshot_go_and_those_above_stay() -> None:
    disk = FaultyDisk()
    for first in range(0, 500, 100):
        lives(disk, [], first)
        older = snapshot_sequences(disk)[0]
        segments = list_segments(disk)
        assert len(snapshot_sequences(disk)) <= 2
        begun = [s.header.first_sequence for s in segments if s.header is not None and not isinstance(s.header, str)]
        # Exactly one segment begins at or below the first record that the older snapshot needs, and it is the first.
        if len(snapshot_sequences(disk)) == 2:
            assert [first for first in begun if first <= older + 1] == begun[:1]
    assert list_segments(disk)[0].number > 1
    assert prune(disk) == []
    assert numbers_of(recover(disk, tiny_kind(), repair=False).machine)[-1] == 408


def test_i10_another_outcome_is_refused_with_its_sequence() -> None:
    disk = FaultyDisk()
    journal = Journal(disk, JOURNAL_ID, 1, START, settings(8))
    machine = tiny_kind().create()
    for number in range(3):
        run = number_run(number)
        journal.admit(len(run))
        journal.append(5, 6, run, machine.apply(run, 5, 6).hash ^ (number == 2))
    journal.close()
    with pytest.raises(OutcomeDiffers, match="sequence 3"):
        recover(disk, tiny_kind(), repair=True)


def test_a_record_that_the_machine_refuses_is_named() -> None:
    disk = FaultyDisk()
    journal = Journal(disk, JOURNAL_ID, 1, START, settings(8))
    machine = tiny_kind().create()
    for number, now_ms in enumerate((5, 3)):
        run = number_run(number)
        journal.admit(len(run))
        journal.append(now_ms, 6, run, machine.apply(run, 5, 6).hash)
    journal.close()
    with pytest.raises(RecordRefused, match=r"sequence 2 can.t be replayed: time went back.*--skip 2"):
        recover(disk, tiny_kind(), repair=True)


def test_a_tail_of_another_machine_version_is_refused_and_a_snapshot_of_it_is_not() -> None:
    disk = FaultyDisk()
    lives(disk, [], 0)
    upgraded = opened(disk.copy(), version=2)
    assert numbers_of(upgraded.machine) == list(range(9))
    cell = opened(disk)
    cell.step(number_run(50))
    with pytest.raises(MachineVersionDiffers, match="snapshot"):
        recover(disk.copy(), tiny_kind(2), repair=True)


def test_a_second_server_is_refused_in_the_same_process_too() -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    with pytest.raises(FolderInUse):
        opened(disk)
    cell.close()
    opened(disk).close()


@pytest.mark.parametrize("event", ["pwrite", "fdatasync"])
def test_a_failing_write_stops_the_process_and_is_not_tried_again(event: str) -> None:
    disk = FaultyDisk()
    stopped: list[str] = []
    journal = Journal(disk, JOURNAL_ID, 1, START, settings(8), fail_stop=stopped.append)
    append(journal, payload(1))
    disk.fail_at = len(disk.events) + (event == "fdatasync")
    with pytest.raises(JournalFailed, match="sequence 2"):
        append(journal, payload(2))
    assert len(stopped) == 1
    assert "the disk failed" in stopped[0]
    events = len(disk.events)
    for attempt in (lambda: journal.admit(10), lambda: journal.append(1, 1, payload(2), xxh64(b""))):
        with pytest.raises(JournalFailed):
            attempt()
    assert len(disk.events) == events
    assert len(stopped) == 1


def test_a_record_larger_than_a_segment_is_refused_before_it_is_applied() -> None:
    disk = FaultyDisk()
    cell = opened(disk, blocks=3)
    largest = 2 * BLOCK - 128
    cell.step(number_run(1, largest))
    with pytest.raises(RecordTooLarge):
        cell.step(number_run(2, largest + 8))
    cell.step(number_run(3))
    assert numbers_of(cell.machine) == [1, 3]
    cell.close()
    assert numbers_of(opened(disk, blocks=3).machine) == [1, 3]


def test_a_batch_that_the_machine_refuses_takes_no_place() -> None:
    disk = FaultyDisk()
    cell = opened(disk, blocks=6)
    cell.step(number_run(0))
    before = disk.names()
    for _ in range(40):
        with pytest.raises(MalformedBatch):
            cell.step(number_run(1, 5000, kind=BROKEN))
    assert disk.names() == before
    cell.step(number_run(2))
    cell.close(snapshot=False)
    assert numbers_of(opened(disk).machine) == [0, 2]


def test_below_the_free_space_mark_nothing_is_admitted_and_nothing_applied() -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    cell.step(number_run(1))
    disk.free = -1
    with pytest.raises(JournalFull, match="free"):
        cell.step(number_run(2))
    disk.free = 1 << 30
    cell.step(number_run(3))
    assert numbers_of(cell.machine) == [1, 3]


def test_no_room_for_another_segment_refuses_and_the_journal_goes_on_when_there_is() -> None:
    disk = FaultyDisk()
    cell = opened(disk, blocks=3)
    cell.step(number_run(1))
    cell.step(number_run(2))
    disk.fail_at = len(disk.events) + 1
    disk.failure = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(JournalFull):
        cell.step(number_run(3))
    cell.step(number_run(4))
    assert numbers_of(cell.machine) == [1, 2, 4]
    assert not [name for name in disk.names() if name.endswith(".preparing")]
    cell.close()
    assert numbers_of(opened(disk, blocks=3).machine) == [1, 2, 4]


def test_segments_are_prepared_ahead_by_a_thread_and_adopted_by_the_next_process() -> None:
    ahead = JournalSettings(segment_bytes=4 * BLOCK, free_mark_bytes=0)
    disk = FaultyDisk()
    journal = Journal(disk, JOURNAL_ID, 1, START, ahead)
    for number in range(20):
        append(journal, payload(number))
    assert journal.next_sequence == 21
    with journal._changed:
        assert journal._changed.wait_for(lambda: journal._prepared_to == journal._segment + 1, timeout=20)
    journal.close()
    begun = [s.number for s in list_segments(disk) if s.header is not None]
    prepared = [s.number for s in list_segments(disk) if s.header is None]
    assert begun == [1, 2, 3, 4, 5, 6, 7]
    assert prepared == [8]


def test_another_segment_size_replaces_what_was_prepared_and_leaves_no_hole() -> None:
    written = write([2 * BLOCK], blocks=4)
    for number in (2, 3):
        written.disk.open(segment(number), create=True).pwrite((bytes(4 * BLOCK),), 0)
    for fail_at in range(20):
        disk = written.disk.copy()
        disk.fail_at = fail_at
        try:
            journal = Journal(disk, JOURNAL_ID, 1, written.place, settings(6), fail_stop=print)
            append(journal, payload(2, 2 * BLOCK))
        except (OSError, JournalFailed):
            assert recover_walk(disk.crash(Random(fail_at)))[0] == written.payloads[0]
    assert recover_walk(disk) == [*written.payloads, payload(2, 2 * BLOCK)]
    assert [s.size for s in list_segments(disk)] == [4 * BLOCK, 6 * BLOCK]

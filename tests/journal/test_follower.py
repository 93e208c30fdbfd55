"""The follower's snapshots, on a disk in memory: when one is due, when there is no room, when it is told to stop."""

from __future__ import annotations

import errno
import math

import pytest
from simswitch.cell import Cell, VirtualClock
from simswitch.core.machine import HASH_PIECE_BYTES, Machine
from simswitch.journal import follower as module
from simswitch.journal.errors import JournalDamaged
from simswitch.journal.follower import (
    Follower,
    FollowerSettings,
    FollowerStopped,
    Reader,
    ReaderFailed,
    follow,
    read_alarm,
)
from simswitch.journal.recovery import real_machine, recover, restore_newest
from simswitch.journal.snapshot import open_snapshot, snapshot_name, snapshot_sequences, write_snapshot
from simswitch.journal.walk import Walk, list_segments

from tests.journal.faulty_disk import Content, FaultyDisk
from tests.journal.test_recovery import opened
from tests.journal.tiny_machine import number_run, tiny_kind
from tests.journal.written import JOURNAL_ID

NEVER = FollowerSettings(replay_s=math.inf, bytes_max=1 << 60, interval_s=math.inf)


def written(disk: FaultyDisk, records: int = 5) -> Cell:
    cell = opened(disk, blocks=64)
    for number in range(records):
        cell.step(number_run(number))
    return cell


@pytest.mark.parametrize(
    ("settings", "due"),
    [
        (NEVER, False),
        (FollowerSettings(replay_s=0.0, bytes_max=1 << 60, interval_s=math.inf), True),
        (FollowerSettings(replay_s=math.inf, bytes_max=5 * 4096, interval_s=math.inf), True),
        (FollowerSettings(replay_s=math.inf, bytes_max=6 * 4096, interval_s=math.inf), False),
        (FollowerSettings(replay_s=math.inf, bytes_max=1 << 60, interval_s=0.0), True),
    ],
    ids=["never", "replay", "bytes", "fewer bytes", "interval"],
)
def test_each_bound_of_the_tail_makes_a_snapshot_due(settings: FollowerSettings, due: bool) -> None:
    disk = FaultyDisk()
    cell = written(disk)
    follower = Follower(disk, tiny_kind(), settings)
    assert follower.turn()
    assert follower.sequence == cell.durable_sequence == 5
    assert snapshot_sequences(disk) == ([5] if due else [])
    # Nothing came since: the next turn has nothing to vouch for.
    assert not follower.turn()
    assert snapshot_sequences(disk) == ([5] if due else [])


def test_a_snapshot_without_room_is_not_begun_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FaultyDisk()
    cell = written(disk)
    disk.free = 1_000_000
    settings = FollowerSettings(replay_s=0.0, free_mark_bytes=1_000_000)
    follower = Follower(disk, tiny_kind(), settings)
    assert follower.turn()
    assert snapshot_sequences(disk) == []
    assert [name for name in disk.names() if name.endswith(".writing")] == []
    alarm = read_alarm(disk)
    assert alarm is not None
    assert "1000000 have to stay free" in alarm
    # It follows on, and the next try comes later.
    disk.free = 1 << 40
    cell.step(number_run(50))
    assert follower.turn()
    assert follower.sequence == cell.durable_sequence
    assert snapshot_sequences(disk) == []
    monkeypatch.setattr(module, "_NO_ROOM_WAIT_S", 0.0)
    follower.turn()
    assert snapshot_sequences(disk) == [cell.durable_sequence]
    assert read_alarm(disk) is None


class FullDisk(FaultyDisk):
    """It has no room for an alarm either."""

    def event(self, name: str, place: str = "") -> None:
        super().event(name, place)
        if name == "pwrite" and place.startswith(module.ALARM_NAME) and not self.free:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_an_alarm_that_has_no_room_leaves_no_empty_file_and_the_log_has_it() -> None:
    """An empty file once stayed for good, and `check` called the folder damaged."""
    disk, said = FullDisk(), list[str]()

    def opening() -> Reader:
        raise ReaderFailed("history is damaged")

    written(disk)
    disk.free = 0
    settings = FollowerSettings(replay_s=0.0, free_mark_bytes=1)
    follower = Follower(disk, tiny_kind(), settings, said=said.append, readers=[opening])
    follower.turn()
    follower.take_snapshot()
    assert not [name for name in disk.names() if name.startswith(module.ALARM_NAME)]
    assert any("no room for the alarm, which is: snapshots go on, but history is damaged" in text for text in said)
    assert any("no room for the alarm, which is: there is no room for a snapshot" in text for text in said)
    disk.free = 1 << 40
    follower.take_snapshot()
    assert read_alarm(disk) == "snapshots go on, but history is damaged"
    disk.seen[module.ALARM_NAME] = Content()
    assert "is empty, since there was no room" in (read_alarm(disk) or "")


def test_damage_that_is_found_on_a_full_disk_is_told_as_soon_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another follower would find the same, so none is started that could tell it later."""
    monkeypatch.setattr(module, "_ALARM_AGAIN_S", 0.0)
    disk, said = FullDisk(), list[str]()

    def broken(*_: object) -> bool:
        raise module.InvariantBroken("I10: another outcome")

    def make_room(text: str) -> None:
        said.append(text)
        if "no room for the alarm" in text:
            disk.free = 1 << 40

    written(disk)
    disk.seen[module.ALARM_NAME] = Content(b"there is no room for a snapshot, and the journal grows")
    disk.free = 0
    monkeypatch.setattr(module, "RealDisk", lambda *_, **__: disk)
    monkeypatch.setattr(Follower, "turn", broken)
    settings = FollowerSettings(niceness=0)
    status = follow("in memory", settings, machine=tiny_kind(), stopped=lambda: False, said=make_room)
    assert status == module.EXIT_DAMAGED
    assert read_alarm(disk) == "I10: another outcome"
    assert len(said) == 2
    # Told to stop it goes at once: the next start finds the damage again.
    disk.unlink(module.ALARM_NAME)
    disk.free = 0
    said.clear()
    status = follow("in memory", settings, machine=tiny_kind(), stopped=lambda: bool(said), said=said.append)
    assert (status, read_alarm(disk)) == (module.EXIT_DAMAGED, None)


@pytest.mark.parametrize(
    ("standing", "stays"),
    [("I10: another outcome", True), ("snapshots go on, but it was damaged otherwise", False)],
)
def test_a_reader_that_fails_leaves_an_alarm_of_damage_as_it_is(standing: str, stays: bool) -> None:
    disk, said = FaultyDisk(), list[str]()

    def opening() -> Reader:
        raise ReaderFailed("history is damaged")

    written(disk)
    disk.seen[module.ALARM_NAME] = Content(standing.encode())
    Follower(disk, tiny_kind(), NEVER, said=said.append, readers=[opening]).turn()
    assert said == ["snapshots go on, but history is damaged"]
    assert read_alarm(disk) == (standing if stays else said[0])


@pytest.mark.parametrize(
    ("standing", "stays"),
    [
        ("I10: another outcome", True),
        ("there is no room for a snapshot, and the journal grows", False),
        ("snapshots go on, but history is damaged", False),
        ("the disk refused the follower, and there are no more snapshots: of before", False),
        (None, False),
    ],
)
def test_a_disk_that_refuses_leaves_an_alarm_of_damage_as_it_is(
    monkeypatch: pytest.MonkeyPatch, standing: str | None, stays: bool
) -> None:
    disk, said = FaultyDisk(), list[str]()

    def refused(*_: object) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    written(disk)
    if standing is not None:
        disk.seen[module.ALARM_NAME] = Content(standing.encode())
    monkeypatch.setattr(module, "RealDisk", lambda *_, **__: disk)
    monkeypatch.setattr(Follower, "turn", refused)
    settings = FollowerSettings(niceness=0)
    status = follow("in memory", settings, machine=tiny_kind(), stopped=lambda: False, said=said.append)
    assert status == module.EXIT_DISK
    assert said == ["the disk refused the follower, and there are no more snapshots: [Errno 5] Input/output error"]
    assert read_alarm(disk) == (standing if stays else said[0])


@pytest.mark.parametrize("standing", [None, "I10: another outcome"])
def test_an_alarm_of_a_full_disk_goes_with_the_next_snapshot_of_whatever_process(standing: str | None) -> None:
    """One that says something else stays as it is."""
    disk = FaultyDisk()
    written(disk)
    if standing is not None:
        disk.seen[module.ALARM_NAME] = Content(standing.encode())
    disk.free = 0
    settings = FollowerSettings(interval_s=1e9, free_mark_bytes=1)
    for free in (0, 1 << 40):
        disk.free = free
        follower = Follower(disk, tiny_kind(), settings)
        follower.turn()
        follower.take_snapshot()
        if free or standing:
            assert read_alarm(disk) == standing
        else:
            assert "there is no room for a snapshot" in (read_alarm(disk) or "")


def test_for_as_long_as_wanted_back_every_point_can_be_restored_and_no_room_ends_it() -> None:
    """A snapshot every ten minutes for six hours, one hour to be kept: the folder reaches back one to two."""
    minute_ms = 60_000
    disk = FaultyDisk()
    cell = opened(disk)
    cell.step(number_run(0))
    clock = cell._clock
    assert isinstance(clock, VirtualClock)
    settings = FollowerSettings(interval_s=1e9, free_mark_bytes=1_000, keep_ms=60 * minute_ms)
    follower = Follower(disk, tiny_kind(), settings)
    begun_ms = cell.machine.now_ms
    for turn in range(36):
        clock.advance(10 * minute_ms)
        for number in range(3):
            cell.step(number_run(turn * 10 + number))
        while follower.turn():
            pass
        follower.take_snapshot()
        sequences = snapshot_sequences(disk)
        assert len(sequences) <= 4
        with open_snapshot(disk, sequences[0]) as (oldest, _):
            back_ms = cell.machine.now_ms - oldest.now_ms
        assert back_ms <= 130 * minute_ms
        assert back_ms >= min(60 * minute_ms, cell.machine.now_ms - begun_ms - 10 * minute_ms)
        walk = Walk(disk, first_sequence=sequences[0] + 1, journal_id=oldest.journal_id, chain=oldest.chain)
        assert [record.header.sequence for record in walk] == list(range(sequences[0] + 1, cell.durable_sequence + 1))
    assert list_segments(disk)[0].number > 5
    cell.step(number_run(999))
    follower.turn()
    disk.free = 2_000
    follower.take_snapshot()
    assert snapshot_sequences(disk) == sequences[-2:], "what is only kept for a restore makes room"


def test_the_snapshot_that_every_point_would_be_kept_from_is_read_before_the_one_before_it_goes() -> None:
    minute_ms = 60_000
    disk = FaultyDisk()
    cell = opened(disk)
    cell.step(number_run(0))
    clock = cell._clock
    assert isinstance(clock, VirtualClock)
    follower = Follower(disk, tiny_kind(), FollowerSettings(interval_s=1e9, keep_ms=60 * minute_ms))
    rotten = 0
    for turn in range(24):
        clock.advance(10 * minute_ms)
        cell.step(number_run(turn))
        while follower.turn():
            pass
        follower.take_snapshot()
        sequences = snapshot_sequences(disk)
        if not rotten and len(sequences) == 4:
            rotten = sequences[1]
            with open_snapshot(disk, rotten) as (header, _):
                (region,) = [entry for entry in header.regions if entry.count and entry.name != "header"][:1]
            disk.flip(snapshot_name(rotten), region.offset)
        sound = [sequence for sequence in sequences if sequence != rotten]
        with open_snapshot(disk, sound[0]) as (oldest, _):
            assert cell.machine.now_ms - oldest.now_ms >= min(60, 10 * turn) * minute_ms
    assert rotten
    assert rotten not in snapshot_sequences(disk), "what nothing can be restored from goes in the end"


def test_a_clean_end_without_room_for_a_snapshot_says_so_and_loses_nothing() -> None:
    disk = FaultyDisk()
    cell = written(disk)
    disk.free = 100
    assert not cell.close()
    assert snapshot_sequences(disk) == []
    disk.free = 1 << 40
    assert not disk.locked
    assert recover(disk, tiny_kind(), repair=False).replayed_count == 5


def test_a_follower_that_is_told_to_stop_gives_its_snapshot_up() -> None:
    disk = FaultyDisk()
    written(disk)
    stopping: list[bool] = []
    follower = Follower(disk, tiny_kind(), NEVER, lambda: bool(stopping))
    follower.turn()
    # The signal comes while the first piece is being made durable.
    disk.before = lambda event: stopping.append(True) if event == "fdatasync" else None
    with pytest.raises(FollowerStopped):
        follower.take_snapshot()
    assert [name for name in disk.names() if "snapshot" in name] == []


def test_a_restore_in_pieces_finds_what_is_wrong_in_any_of_them() -> None:
    disk = FaultyDisk()
    machine = Machine(sims_max=10, terminals_max=300_000)
    header = write_snapshot(disk, machine, JOURNAL_ID, real_machine().version, chain=0)
    assert header.state_hash == machine.state_hash()
    name = snapshot_name(header.sequence)
    (table,) = [entry for entry in header.regions if entry.name == "terminal_table"]
    size = table.item_bytes * table.count
    assert size > 2 * HASH_PIECE_BYTES
    for offset in (0, HASH_PIECE_BYTES - 1, HASH_PIECE_BYTES, size - 1):
        disk.flip(name, table.offset + offset)
        with (
            open_snapshot(disk, header.sequence) as (_, regions),
            pytest.raises(JournalDamaged, match="terminal_table"),
        ):
            Machine.restore(regions)
        disk.flip(name, table.offset + offset)
    restored = restore_newest(disk, real_machine()).machine
    assert restored.state_hash() == header.state_hash

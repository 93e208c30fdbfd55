"""What shows only where the power goes, the disk is full or a state is wrong: lines that nothing else would miss."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, cast
from unittest.mock import patch

import pytest
from simswitch.cell import Cell, VirtualClock
from simswitch.core import layout
from simswitch.core.commands import run as run_of
from simswitch.core.machine import HASH_PIECE_BYTES, Machine
from simswitch.journal import follower as following
from simswitch.journal import snapshot as snapshots
from simswitch.journal.append import START, Journal, JournalSettings
from simswitch.journal.errors import JournalFull, OutcomeDiffers, SnapshotRenamed
from simswitch.journal.follower import EXIT_DAMAGED, Follower, FollowerSettings, follow, read_alarm
from simswitch.journal.format import WRITING_SUFFIX, ZEROS
from simswitch.journal.recovery import MachineKind, recover, replay, restore_newest
from simswitch.journal.snapshot import (
    newest_snapshot_sequence,
    prune,
    read_snapshot_header,
    snapshot_name,
    snapshot_sequences,
    write_snapshot,
)
from simswitch.journal.walk import Walk, list_segments, repair

from tests.journal.faulty_disk import FaultyDisk
from tests.journal.test_recovery import opened, snapshot_by_follower
from tests.journal.tiny_machine import TinyMachine, number_run, tiny_kind
from tests.journal.written import BLOCK, JOURNAL_ID, append, payload, segment, write

POWER_CUTS = 8
MINUTE_MS = 60_000


# ------------------------------------------------------------------------------------------------ writing


def test_another_segment_leaves_what_has_to_stay_free() -> None:
    size, mark = 4 * BLOCK, 100_000
    for free, room in ((mark + size - 1, False), (mark + size, True)):
        disk = FaultyDisk()
        disk.free = free
        journal = Journal(disk, JOURNAL_ID, 1, START, JournalSettings(size, mark, prepare_ahead=False))
        if room:
            assert append(journal, payload(1)) == 1
        else:
            with pytest.raises(JournalFull, match="no room for another journal segment"):
                append(journal, payload(1))
            assert disk.names() == []
        journal.close()


def test_a_record_says_what_was_durable_when_it_was_written() -> None:
    written = write([40] * 5, blocks=4)
    assert [record.header.durable_sequence for record in Walk(written.disk)] == [0, 1, 2, 3, 4]


def test_d_a_torn_record_is_cut_to_its_end_however_long() -> None:
    size = 3 * len(ZEROS)
    blocks = size // BLOCK + 8
    written = write([40, size], blocks=blocks)
    written.disk.flip(segment(1), 2 * BLOCK + 300)
    _, verdict = written.read()
    assert verdict.case == "@D"
    repair(written.disk, verdict)
    assert bytes(written.disk.seen[segment(1)].durable[2 * BLOCK :]) == bytes((blocks - 2) * BLOCK)


# ------------------------------------------------------------------------------------------------ sequences


def test_a_record_is_replayed_at_its_place_only() -> None:
    """The outcome of a tick is the same at any."""
    disk = FaultyDisk()
    cell = opened(disk)
    for _ in range(2):
        cell.step(run_of(layout.TICK))
    first, second = Walk(disk)
    assert first.header.outcome_hash == second.header.outcome_hash
    with pytest.raises(OutcomeDiffers, match="sequence 2"):
        replay(tiny_kind().create(), second, 1)


def test_a_snapshot_of_another_sequence_than_it_says_is_passed_over() -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    for number in range(3):
        cell.step(number_run(number))
    snapshot_by_follower(disk)
    machine = recover(disk, tiny_kind(), repair=False).machine

    class Ahead:
        sequence = machine.sequence + 1
        now_ms = machine.now_ms
        snapshot_regions = machine.snapshot_regions

    write_snapshot(disk, Ahead(), JOURNAL_ID, 1, chain=7)
    base = restore_newest(disk, tiny_kind())
    assert base.machine.sequence == 3
    assert [f"{told.file}: {told.what}" for told in base.damages] == [
        f"{snapshot_name(4)}: the state in it is at sequence 3"
    ]


# ------------------------------------------------------------------------------------------------ syncs


def test_i6_a_snapshot_that_was_taken_is_there_after_a_power_cut() -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    for number in range(3):
        cell.step(number_run(number))
    assert snapshot_by_follower(disk) == 3
    for seed in range(POWER_CUTS):
        assert snapshot_sequences(disk.crash(Random(seed))) == [3], seed
    # What comes last of all is a clean end's: the next version of the machine begins with it.
    cell.step(number_run(9))
    assert cell.close()
    for seed in range(POWER_CUTS):
        assert restore_newest(disk.crash(Random(seed)), tiny_kind(2)).machine.sequence == 4, seed


def of_three_snapshots() -> tuple[FaultyDisk, Cell]:
    """With snapshots 4, 8 and 12; nothing is removed yet."""
    disk = FaultyDisk()
    cell = opened(disk, blocks=4)
    for number in range(12):
        cell.step(number_run(number))
        if number % 4 == 3:
            with patch.object(following, "prune", lambda *_: []):
                assert snapshot_by_follower(disk) == number + 1
    return disk, cell


def test_a_file_that_goes_is_whole_under_its_name_or_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks go step by step: a power cut in between would else leave a part of it, which passes for damage."""
    monkeypatch.setattr(snapshots, "_REMOVE_BYTES", BLOCK)
    disk, cell = of_three_snapshots()
    before, events = disk.names(), len(disk.events)
    cuts = 0

    def cut(_: str) -> None:
        nonlocal cuts
        for seed in range(POWER_CUTS):
            cuts += 1
            found = disk.crash(Random(cuts * POWER_CUTS + seed))
            for sequence in snapshot_sequences(found):
                name = snapshot_name(sequence)
                assert read_snapshot_header(found.open(name), name).sequence == sequence
            assert {each.size for each in list_segments(found)} == {4 * BLOCK}
            assert recover(found, tiny_kind(), repair=True).machine.state_hash() == expected

    expected = cell.machine.state_hash()
    disk.before = cut
    removed = prune(disk)
    disk.before = None
    assert len(removed) > 2
    assert set(disk.names()) == set(before) - set(removed)
    assert disk.events[events:].count("truncate") > 4
    assert cuts > 100


@pytest.mark.parametrize(
    ("named", "renamed"),
    [(8, 11), (4, 5012), (8, 5012), (12, 14), (12, 5)],
    ids=["between", "oldest above the newest", "older above the newest", "newest higher", "newest lower"],
)
def test_nothing_goes_on_the_word_of_the_name_of_a_snapshot_that_was_renamed(
    monkeypatch: pytest.MonkeyPatch, named: int, renamed: int
) -> None:
    disk, cell = of_three_snapshots()
    expected = cell.machine.state_hash()
    disk.rename(snapshot_name(named), snapshot_name(renamed))
    assert newest_snapshot_sequence(disk) == 12
    before = disk.names()
    advice = f"{snapshot_name(renamed)} says that it is {snapshot_name(named)}: the file was renamed. Stop the service"
    with pytest.raises(SnapshotRenamed, match=advice):
        prune(disk)
    # A follower takes none for the newest, or for the one before its readers: it says what is wrong, not what isn't.
    monkeypatch.setattr(following, "RealDisk", lambda *_, **__: disk)
    monkeypatch.setattr("os.nice", lambda _: None)
    assert follow("in memory", machine=tiny_kind(), stopped=lambda: False, said=lambda _: None) == EXIT_DAMAGED
    assert advice in (read_alarm(disk) or "")
    disk.unlink(following.ALARM_NAME)
    assert disk.names() == before
    assert recover(disk, tiny_kind(), repair=False).machine.state_hash() == expected
    # A clean end has its snapshot, removes nothing, and says so.
    cell.step(number_run(12))
    with pytest.raises(SnapshotRenamed, match="the file was renamed"):
        cell.close()
    assert set(before) <= set(disk.names())
    assert snapshot_name(13) in disk.names()
    disk.rename(snapshot_name(renamed), snapshot_name(named))
    assert prune(disk)
    assert recover(disk, tiny_kind(), repair=False).machine.sequence == 13


def test_a_snapshot_is_made_durable_piece_by_piece() -> None:
    """A commit of the server waits for what is on its way to the disk: for a piece at most."""
    disk = FaultyDisk()
    largest = 0

    def look(_: str) -> None:
        nonlocal largest
        for name, content in disk.seen.items():
            if name.endswith(WRITING_SUFFIX):
                largest = max(largest, sum(count for _, _, count, _ in content._undo))

    disk.before = look
    machine = Machine(sims_max=10, terminals_max=100_000)
    header = write_snapshot(disk, machine, JOURNAL_ID, int(layout.MACHINE_VERSION), chain=0)
    assert max(entry.item_bytes * entry.count for entry in header.regions) > 2 * HASH_PIECE_BYTES
    described = -(-len(header.description) // BLOCK) * BLOCK
    assert HASH_PIECE_BYTES <= largest <= described + HASH_PIECE_BYTES


# ------------------------------------------------------------------------------------------------ what is kept


@pytest.mark.parametrize(
    ("minutes", "kept"),
    [
        ((0, 30, 60, 90, 120), (60, 90, 120)),
        ((0, 29, 59, 90, 120), (59, 90, 120)),
        ((0, 30, 90, 100, 105), (30, 90, 100, 105)),
        ((0, 30, 89, 91, 100, 105), (30, 91, 100, 105)),
    ],
    ids=["just old enough", "older", "just young enough", "younger"],
)
def test_of_those_that_are_kept_for_an_hour_the_bounds_are_to_the_millisecond(
    minutes: tuple[int, ...], kept: tuple[int, ...]
) -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    clock = cell._clock
    assert isinstance(clock, VirtualClock)
    begun_ms = 1_000
    for minute in minutes:
        clock.set(begun_ms + minute * MINUTE_MS)
        cell.step(number_run(minute))
        with patch.object(following, "prune", lambda *_: []):
            snapshot_by_follower(disk)
    prune(disk, keep_ms=60 * MINUTE_MS)
    found = []
    for sequence in snapshot_sequences(disk):
        header = read_snapshot_header(disk.open(snapshot_name(sequence)), snapshot_name(sequence))
        found.append((header.now_ms - begun_ms) // MINUTE_MS)
    assert tuple(found) == kept


# ------------------------------------------------------------------------------------------------ the follower


def breaking(at: int) -> MachineKind:
    """A machine whose state is wrong from that record on, and which sees it."""

    class Breaking(TinyMachine):
        def check(self, pause: Callable[[], object]) -> list[str]:
            return ["I8: a byte is missing"] if self.sequence >= at else super().check(pause)

    kind = tiny_kind(1)
    return MachineKind(cast(Any, Breaking), cast(Any, Breaking.restore), 1, kind.migrate)


def test_a_follower_that_finds_an_invariant_broken_says_so_and_removes_nothing() -> None:
    disk = FaultyDisk()
    cell: Cell = opened(disk, blocks=4)
    for number in range(12):
        cell.step(number_run(number))
        if number in (2, 5):
            snapshot_by_follower(disk)
    before = disk.names()
    eager = FollowerSettings(replay_s=1e9, bytes_max=1, interval_s=1e9, niceness=0)
    said: list[str] = []
    with patch.object(following, "RealDisk", lambda *_, **__: disk):
        status = follow("in memory", eager, machine=breaking(12), stopped=lambda: bool(said), said=said.append)
    assert status == EXIT_DAMAGED
    alarm = read_alarm(disk)
    assert alarm == "after sequence 12: I8: a byte is missing"
    assert alarm in said[-1]
    assert set(before) < set(disk.names())
    # What it began with is still there for whoever looks for the cause.
    assert Follower(disk, tiny_kind()).sequence == 12

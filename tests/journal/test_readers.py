"""Readers of the follower: each record once, whatever ends the follower; where it starts so that they miss nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest
from simswitch.cell import Cell
from simswitch.core.commands import OutcomeRun, command_runs
from simswitch.core.machine import Machine
from simswitch.journal.follower import Follower, FollowerSettings, ReaderFailed, read_alarm
from simswitch.journal.recovery import recover
from simswitch.journal.snapshot import snapshot_name, snapshot_sequences
from simswitch.journal.walk import Record

from tests.journal.faulty_disk import FaultyDisk
from tests.journal.test_recovery import opened
from tests.journal.tiny_machine import NUMBER, number_run, numbers_of, tiny_kind
from tests.journal.written import segment

NEVER = FollowerSettings(replay_s=math.inf, bytes_max=1 << 60, interval_s=math.inf)


class Kept:
    """What a reader has durably: the numbers that it saw, and how far it is."""

    def __init__(self) -> None:
        self.sequence = 0
        self.numbers: list[int] = []
        self.jumps: list[tuple[int, int]] = []
        self.commits: list[int] = []


class Noting:
    """A reader that is forgotten when the follower dies, but for what it has committed."""

    name = "noting"

    def __init__(self, kept: Kept, fail: Callable[[str], None] = lambda _: None) -> None:
        self._kept = kept
        self._fail = fail
        self._numbers: list[int] = []
        self._jumps: list[tuple[int, int]] = []
        self._last = kept.sequence
        self.closed = False

    @property
    def sequence(self) -> int:
        return self._kept.sequence

    def applied(self, record: Record, outcomes: list[OutcomeRun], machine: Machine) -> None:
        self._fail("applied")
        sequence = record.header.sequence
        assert machine.sequence == sequence > self._last
        if sequence != self._last + 1:
            self._jumps.append((self._last, sequence))
        self._last = sequence
        runs = command_runs(record.payload)
        assert [run.kind for run in runs] == [outcome.kind for outcome in outcomes[:-2]]
        self._numbers += [run.argument for run in runs if run.kind == NUMBER]

    def commit(self, sequence: int) -> None:
        self._fail("commit")
        kept = self._kept
        kept.numbers += self._numbers
        kept.jumps += self._jumps
        kept.sequence = sequence
        kept.commits.append(sequence)
        self._numbers, self._jumps = [], []

    def close(self) -> None:
        self.closed = True


def following(disk: FaultyDisk, *kept: Kept, version: int = 1) -> Follower:
    return Follower(
        disk,
        tiny_kind(version),
        NEVER,
        readers=[lambda kept=each: Noting(kept) for each in kept],  # type: ignore[misc]
    )


def written(disk: FaultyDisk, first: int, count: int = 5, version: int = 1) -> Cell:
    cell = opened(disk, version=version)
    for number in range(first, first + count):
        cell.step(number_run(number))
    return cell


def test_each_record_is_seen_once_by_readers_that_commit_at_different_records() -> None:
    disk = FaultyDisk()
    early, late = Kept(), Kept()
    cell = opened(disk, blocks=64)
    random = Random(1)
    for life in range(40):
        follower = following(disk, early, late)
        for number in range(random.randrange(4)):
            cell.step(number_run(life * 10 + number))
        follower.turn()
        fate = random.randrange(4)
        if fate == 1:
            follower.take_snapshot()
        elif fate == 2:
            follower.finish(read_on=True)
        elif fate == 3:
            # It dies between the two.
            follower._readers.pop()
            follower._commit_readers()
    following(disk, early, late).finish(read_on=True)
    for kept in (early, late):
        assert kept.numbers == numbers_of(cell.machine)
        assert kept.jumps == []
        assert kept.sequence == cell.durable_sequence
    assert len(early.commits) > len(late.commits) > 3


def committed_before_the_sync(cut: int, random: Random) -> tuple[Kept, FaultyDisk]:
    """The follower sees a record that the server has written and not yet synced; then the power goes."""
    disk = FaultyDisk()
    kept = Kept()
    cell = opened(disk, blocks=64)
    cell.step(number_run(0))
    follower = following(disk, kept)
    after: list[FaultyDisk] = []

    def look(event: str) -> None:
        if event == "fdatasync" and not after and cell.machine.sequence == cut:
            disk.before = None
            follower.finish(read_on=True)
            after.append(disk.crash(random))

    disk.before = look
    for number in range(1, 12):
        cell.step(number_run(number))
    return kept, after[0]


def test_what_is_committed_survives_a_power_cut_in_the_journal() -> None:
    for seed in range(60):
        cut = 2 + seed % 10
        kept, disk = committed_before_the_sync(cut, Random(seed))
        assert kept.sequence == cut
        recovered = recover(disk, tiny_kind(), repair=False).machine
        assert numbers_of(recovered)[: len(kept.numbers)] == kept.numbers, f"seed {seed}"


def test_readers_commit_before_a_snapshot_has_its_name() -> None:
    disk = FaultyDisk()
    kept = Kept()
    cell = written(disk, 0)
    follower = following(disk, kept)
    follower.turn()
    seen: list[int] = []
    disk.before = lambda event: seen.append(kept.sequence) if event == "create" else None
    follower.take_snapshot()
    assert seen == [cell.durable_sequence]
    assert snapshot_sequences(disk) == [cell.durable_sequence]


def test_a_new_reader_begins_with_the_journal_behind_snapshots() -> None:
    disk = FaultyDisk()
    written(disk, 0, 3).close()
    written(disk, 10, 3)
    kept = Kept()
    assert snapshot_sequences(disk) != []
    following(disk, kept).finish(read_on=True)
    assert kept.numbers == [0, 1, 2, 10, 11, 12]
    assert kept.jumps == []


def test_a_reader_that_fell_behind_begins_at_an_older_snapshot() -> None:
    disk = FaultyDisk()
    kept = Kept()
    written(disk, 0, 3).close()
    following(disk, kept).finish(read_on=True)
    known = kept.sequence
    # Two lives without a follower.
    written(disk, 100, 20).close()
    written(disk, 200, 20).close()
    assert segment(1) not in disk.names()
    older, newest = snapshot_sequences(disk)
    follower = following(disk, kept)
    assert follower.snapshot_sequence == older
    follower.turn()
    # It takes no snapshot of a state that one exists of.
    assert snapshot_sequences(disk) == [older, newest]
    follower.finish(read_on=True)
    # What lay before the segments that are left is missed, and the reader was shown where.
    assert kept.jumps == [(known, older + 1)]
    assert kept.numbers == [0, 1, 2, *range(200, 220)]


def test_a_snapshot_before_the_reader_that_is_damaged_costs_records_not_the_follower() -> None:
    disk = FaultyDisk()
    written(disk, 0, 20).close()
    written(disk, 40, 20).close()
    old, new = snapshot_sequences(disk)
    disk.flip(snapshot_name(old), 20)
    kept = Kept()
    follower = following(disk, kept)
    assert follower.snapshot_sequence == new
    follower.finish(read_on=True)
    assert kept.numbers == []


def test_records_of_another_machine_version_are_leapt_over() -> None:
    disk = FaultyDisk()
    kept = Kept()
    written(disk, 0, 3).close()
    cell = written(disk, 10, 3, version=2)
    newest = snapshot_sequences(disk)[-1]
    said: list[str] = []
    follower = Follower(disk, tiny_kind(2), NEVER, said=said.append, readers=[lambda: Noting(kept)])
    follower.finish(read_on=True)
    assert kept.numbers == [10, 11, 12]
    assert kept.jumps == [(0, newest + 1)]
    assert kept.sequence == cell.durable_sequence
    assert "machine version 1" in said[0]
    assert f"from 1 to {newest}" in said[0]


@pytest.mark.parametrize("offset", [4096 + 60, 60], ids=["a record", "a header"])
def test_damage_in_the_last_segment_that_only_readers_would_meet_does_not_stop_the_follower(offset: int) -> None:
    """No later segment shows that something is damaged; the snapshot does."""
    disk = FaultyDisk()
    kept = Kept()
    written(disk, 0, 18).close()
    cell = written(disk, 50, 1)
    disk.flip(segment(4), offset)
    follower = following(disk, kept)
    follower.finish(read_on=True)
    assert kept.numbers == [*range(15), 50]
    assert kept.jumps == [(15, 19)]
    assert follower.sequence == cell.durable_sequence


def test_damage_that_only_readers_would_meet_does_not_stop_the_follower() -> None:
    disk = FaultyDisk()
    kept = Kept()
    written(disk, 0, 20).close()
    newest = snapshot_sequences(disk)[-1]
    cell = written(disk, 50, 3)
    # The newest snapshot lies in a later segment.
    disk.flip(segment(1), 4096 + 60)
    follower = following(disk, kept)
    follower.finish(read_on=True)
    assert kept.numbers == [50, 51, 52]
    assert kept.jumps == [(0, newest + 1)]
    follower.take_snapshot()
    assert snapshot_sequences(disk)[-1] == cell.durable_sequence


@pytest.mark.parametrize("where", ["open", "applied", "commit"])
def test_a_reader_that_fails_is_dropped_loudly_and_snapshots_go_on(where: str) -> None:
    disk = FaultyDisk()
    good = Kept()

    def fail(at: str) -> None:
        if at == where:
            raise ReaderFailed("history is damaged: move it away")

    bad = Noting(Kept(), fail)

    def opening() -> Noting:
        fail("open")
        return bad

    cell = written(disk, 0)
    follower = Follower(disk, tiny_kind(), NEVER, readers=[opening, lambda: Noting(good)])
    follower.turn()
    follower.take_snapshot()
    assert snapshot_sequences(disk) == [cell.durable_sequence]
    assert good.numbers == numbers_of(cell.machine)
    alarm = read_alarm(disk)
    assert alarm is not None
    assert "history is damaged: move it away" in alarm
    assert bad.closed == (where != "open")


def test_a_snapshot_that_found_room_again_leaves_the_alarm_of_a_reader() -> None:
    disk = FaultyDisk()
    written(disk, 0)

    def opening() -> Noting:
        raise ReaderFailed("history is damaged")

    follower = Follower(disk, tiny_kind(), NEVER, readers=[opening])
    follower.turn()
    disk.free = 100
    follower.take_snapshot()
    assert "no room" in (read_alarm(disk) or "")
    disk.free = 1 << 40
    follower.take_snapshot()
    assert "history is damaged" in (read_alarm(disk) or "")


def test_a_reader_of_a_journal_that_went_back_is_dropped() -> None:
    disk = FaultyDisk()
    kept = Kept()
    kept.sequence = 1_000
    written(disk, 0)
    follower = following(disk, kept)
    while follower.turn():
        pass
    assert "knows 1000 records, and the journal ends at" in (read_alarm(disk) or "")
    follower.take_snapshot()
    assert len(snapshot_sequences(disk)) == 1

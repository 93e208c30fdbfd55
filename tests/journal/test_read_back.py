"""A snapshot counts only when the disk gives back what was written: it replaces the records that it covers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from unittest.mock import patch

import pytest
from simswitch.cell import Cell
from simswitch.journal import follower as following
from simswitch.journal.errors import JournalDamaged
from simswitch.journal.follower import ALARM_NAME, EXIT_DAMAGED, Follower, FollowerSettings, follow
from simswitch.journal.format import BLOCK_BYTES, WRITING_SUFFIX
from simswitch.journal.snapshot import read_snapshot_header, snapshot_name, snapshot_sequences

from tests.journal.faulty_disk import Content, FaultyDisk
from tests.journal.test_recovery import opened
from tests.journal.tiny_machine import number_run, numbers_of, tiny_kind

EAGER = FollowerSettings(replay_s=1e9, bytes_max=1, interval_s=1e9, niceness=0)
Spoil = Callable[[Content], object]


def served(disk: FaultyDisk) -> Cell:
    cell = opened(disk)
    for number in range(12):
        cell.step(number_run(number))
    return cell


def covered() -> Iterator[int]:
    """The bytes of such a snapshot that say something: all but the zeros that fill up a block."""
    disk = FaultyDisk()
    served(disk).close()
    name = snapshot_name(12)
    header = read_snapshot_header(disk.open(name), name)
    yield from range(BLOCK_BYTES)
    yield from range(BLOCK_BYTES, BLOCK_BYTES + len(header.description))
    for region in header.regions:
        yield from range(region.offset, region.offset + region.item_bytes * region.count)


def spoiled_by(spoil: Spoil, disk: FaultyDisk) -> None:
    def settled(name: str, content: Content) -> None:
        if name.endswith(WRITING_SUFFIX):
            spoil(content)

    disk.settled = settled


def flipped(place: int, bit: int) -> Spoil:
    def flip(content: Content) -> None:
        content.seen[place] ^= 1 << bit

    return flip


def misdirected(source: int, target: int) -> Spoil:
    """A block's write went over another block."""

    def misdirect(content: Content) -> None:
        block = bytes(content.seen[source : source + BLOCK_BYTES])
        content.seen[source : source + BLOCK_BYTES] = bytes(BLOCK_BYTES)
        content.seen[target : target + BLOCK_BYTES] = block

    return misdirect


def spoils() -> Iterator[tuple[str, Spoil]]:
    places = list(covered())
    # Every byte of the regions and of what the header says, and here and there one of the rest.
    for place in [*places[:400], *places[400:-200:97], *places[-200:]]:
        yield f"byte {place}", flipped(place, place % 8)
    blocks = sorted({place - place % BLOCK_BYTES for place in places})
    for source in blocks:
        yield f"block at {source} lost", misdirected(source, source + BLOCK_BYTES * len(blocks))
        for target in blocks:
            if target != source:
                yield f"block at {source} over {target}", misdirected(source, target)


def test_a_snapshot_that_does_not_read_back_as_written_gets_no_name() -> None:
    """Whichever byte the disk gets wrong, or whichever block it writes elsewhere."""
    disk = FaultyDisk()
    cell = served(disk)
    follower = Follower(disk, tiny_kind(1), FollowerSettings(replay_s=1e9, bytes_max=1 << 60, interval_s=1e9))
    while follower.turn():
        pass
    tried = 0
    for what, spoil in spoils():
        spoiled_by(spoil, disk)
        with suppress(JournalDamaged):
            follower.take_snapshot()
        assert snapshot_sequences(disk) == [], f"{what}: the snapshot was called whole"
        assert not any(name.endswith(WRITING_SUFFIX) for name in disk.names())
        tried += 1
    assert tried > 600
    disk.settled = None
    follower.take_snapshot()
    assert snapshot_sequences(disk) == [12]
    cell.close(snapshot=False)


def test_the_follower_says_so_and_ends_and_nothing_is_lost() -> None:
    disk = FaultyDisk()
    served(disk).close(snapshot=False)
    place = list(covered())[-1]
    spoiled_by(flipped(place, 3), disk)
    said: list[str] = []
    with patch.object(following, "RealDisk", lambda *_, **__: disk):
        assert follow("in memory", EAGER, machine=tiny_kind(1), stopped=lambda: False, said=said.append) == EXIT_DAMAGED
    assert snapshot_sequences(disk) == []
    told = bytes(disk.seen[ALARM_NAME].seen).decode()
    assert snapshot_name(12) in told
    assert "hash of the region numbers is wrong" in told
    assert told.strip() in said[-1]
    disk.settled = None
    cell = opened(disk)
    assert numbers_of(cell.machine) == list(range(12))
    # A clean end says so as well; the journal has everything, and the next start goes on from it.
    spoiled_by(flipped(place, 3), disk)
    with pytest.raises(JournalDamaged, match="hash of the region numbers is wrong"):
        cell.close()
    disk.settled = None
    cell = opened(disk)
    assert numbers_of(cell.machine) == list(range(12))
    cell.close()

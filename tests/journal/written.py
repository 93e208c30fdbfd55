"""Small journals on a disk in memory, for tests that look at their bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from simswitch.core.machine import xxh64
from simswitch.journal.append import START, Journal, JournalSettings, Place
from simswitch.journal.format import BLOCK_BYTES, segment_name
from simswitch.journal.walk import Verdict, Walk

from tests.journal.faulty_disk import FaultyDisk

JOURNAL_ID = bytes(range(16))
BLOCK = BLOCK_BYTES


def settings(blocks: int) -> JournalSettings:
    return JournalSettings(segment_bytes=blocks * BLOCK, free_mark_bytes=0, prepare_ahead=False)


def payload(sequence: int, size: int = 40) -> bytes:
    return f"payload of {sequence} ".encode().ljust(size, b"*")


@dataclass
class Written:
    disk: FaultyDisk
    payloads: list[bytes] = field(default_factory=list)
    place: Place = START

    def read(self, durable_sequence: int = 0) -> tuple[list[bytes], Verdict]:
        return read(self.disk, durable_sequence)


def read(disk: FaultyDisk, durable_sequence: int = 0) -> tuple[list[bytes], Verdict]:
    walk = Walk(disk, durable_sequence=durable_sequence)
    payloads = [bytes(record.payload) for record in walk]
    assert walk.verdict is not None
    return payloads, walk.verdict


def append(journal: Journal, data: bytes) -> int:
    journal.admit(len(data))
    return journal.append(1000, 7, data, xxh64(data))


def write(
    sizes: list[int],
    blocks: int = 8,
    disk: FaultyDisk | None = None,
    place: Place = START,
    journal_id: bytes = JOURNAL_ID,
) -> Written:
    """A journal with one record for each payload size, in segments of so many blocks."""
    written = Written(disk or FaultyDisk())
    journal = Journal(written.disk, journal_id, 1, place, settings(blocks), fail_stop=print)
    for index, size in enumerate(sizes):
        data = payload(place.sequence + index, size)
        append(journal, data)
        written.payloads.append(data)
    written.place = Place(journal._segment, journal._offset, journal.next_sequence, journal.previous_checksum)
    journal.close()
    written.disk.fsync_folder()
    return written


def segment(number: int) -> str:
    return segment_name(number)

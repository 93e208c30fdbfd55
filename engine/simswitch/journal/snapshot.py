"""Snapshots: the whole state of the machine after one record. This comment is the format's specification.

A snapshot is a file ``snapshot-00000000000000000042.state``, named after the sequence it was taken after. All numbers
are little-endian.

    snapshot = | header 4,096 | description | zeros to 4,096 | region | zeros to 4,096 | region | … |

    header                                                      why it is there
    ------  ----  --------------------------------------------  --------------------------------------------------------
         0     8  magic "SIMSWSNP"
         8     8  checksum: XXH64 of bytes 16 to 4,095          the directory is trusted before a region is read
        16     4  format version, 3                            2 had no description, and zeros where it is named
        20     4  machine version                               the state is that machine's; a newer one may read it
        24    16  journal id                                    a snapshot of another journal is recognised
        40     8  sequence: records applied                     the tail is replayed from the next one on
        48     8  now_ms of that record
        56     8  state hash of the machine                     follows from the regions' hashes (I10)
        64     8  checksum of that record                       the tail must continue that very history (the chain)
        72     4  count of regions, at most 60
        76     4  zeros
        80     8  bytes of the file
        88     8  bytes of the description                     it stands at 4,096
        96     8  checksum of the description: XXH64
       104   152  zeros
       256  64·n  directory: name, 24 bytes; u64 each: offset, item bytes, count, hash, zeros

The description names the fields of each region's records (``migration``), so that a later machine version can read
them. It is no part of the state and of its hash.

The hash of a region is that of ``Machine.state_hash``: each piece of 1 MiB has its XXH64, and these are folded. So a
snapshot is written, read and checked piece by piece, and a restore reads several pieces at a time into the very place
where they stay. Folding the regions' hashes gives the state hash: to check them is to check it.

A snapshot is valid if and only if the header's magic, version and checksum are right, the file has its size, the
description its checksum, the regions have their hashes, and these give the state hash. It is written under another
name, made durable, read back from the disk and compared, and only then given its name; so a file of that name was whole
once, and a crash leaves at most a file ending in ``.writing``. It is made durable piece by piece: one flush of it all
would hold up the journal's. For the same reason it is read back in small parts, and a file that is no longer needed is
renamed to end in ``.removing`` and cut shorter step by step: freeing all its blocks at once holds up every commit on
the file system.

The name is no part of that. Of a file that was renamed a start believes the header, and replays the journal from there.
Where names have to be believed it is refused: to restore a point, to copy, to follow, and to remove anything at all.

The two newest are kept, not counting those that are damaged: before anything is removed for the older one's sake, it is
read again. Segments that lie wholly below the older of
the two are not needed by either, and are removed, oldest first and one durable removal after the other, so that a crash
leaves no hole.

Where any point of some time back is to be restored (``keep_ms``), two more are kept, and the segments from there on:

    ───base────────────next──────────────────┬──older──newest──▶       base  the newest that is keep_ms old
       │◀── keep_ms and more ──▶│            now - keep_ms             next  the first that is keep_ms younger: it is
                                                                             the base when it is old enough itself

So the folder reaches back one to two times ``keep_ms``, and four snapshots are kept at most.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol

from simswitch.core import layout
from simswitch.core.machine import HASH_PIECE_BYTES, xxh64
from simswitch.journal.disk import Bytes, Disk, DiskFile
from simswitch.journal.errors import JournalDamaged, SnapshotRenamed
from simswitch.journal.format import BLOCK_BYTES, REMOVING_SUFFIX, WRITING_SUFFIX, SegmentHeader
from simswitch.journal.migration import describe
from simswitch.journal.walk import list_segments

SNAPSHOT_FORMAT_VERSION = 3
SNAPSHOTS_KEPT = 2

_MAGIC = b"SIMSWSNP"
_SUM = struct.Struct("<8sQ")
_FIXED = struct.Struct("<II16sQQQQI4xQQQ")
_ENTRY = struct.Struct("<24sQQQQ8x")
_DIRECTORY_OFFSET = 256
_REGIONS_MAX = 60
_DESCRIPTION_BYTES_MAX = 1 << 20
_VERSIONS = (2, SNAPSHOT_FORMAT_VERSION)
_READERS = 4
_CHECK_BYTES = 128 * 1024
_REMOVE_BYTES = 8 * 1024 * 1024
_NAME = re.compile(r"snapshot-(\d{20})\.state")
_REMEDY = "Keep the file as it is; the state can be put together from the older snapshot and the journal"

Pause = Callable[[float], object]
"""Called after each piece with the seconds that it took. What it raises gives up what was being done."""
Region = tuple[str, int, int, Bytes]
"""Name, bytes of an item, count of items, and the bytes."""
StoredRegion = tuple[str, int, int, Bytes | Callable[[memoryview], object]]
"""The same, of a file: a large region comes as a function that reads it into its place."""


class SnapshotSource(Protocol):
    """What a snapshot is taken of."""

    @property
    def sequence(self) -> int: ...
    @property
    def now_ms(self) -> int: ...
    def snapshot_regions(self) -> Iterable[Region]: ...


@dataclass(frozen=True, slots=True)
class RegionEntry:
    name: str
    offset: int
    item_bytes: int
    count: int
    checksum: int


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    machine_version: int
    journal_id: bytes
    sequence: int
    now_ms: int
    state_hash: int
    chain: int
    file_bytes: int
    regions: tuple[RegionEntry, ...]
    description: bytes
    """Empty in format 2."""

    def encode(self) -> bytes:
        fixed = _FIXED.pack(
            SNAPSHOT_FORMAT_VERSION,
            self.machine_version,
            self.journal_id,
            self.sequence,
            self.now_ms,
            self.state_hash,
            self.chain,
            len(self.regions),
            self.file_bytes,
            len(self.description),
            xxh64(self.description),
        )
        directory = b"".join(
            _ENTRY.pack(entry.name.encode(), entry.offset, entry.item_bytes, entry.count, entry.checksum)
            for entry in self.regions
        )
        summed = fixed.ljust(_DIRECTORY_OFFSET - _SUM.size, b"\0") + directory
        summed = summed.ljust(BLOCK_BYTES - _SUM.size, b"\0")
        return _SUM.pack(_MAGIC, xxh64(summed)) + summed


def snapshot_name(sequence: int) -> str:
    return f"snapshot-{sequence:020d}.state"


def snapshot_sequence(name: str) -> int | None:
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def snapshot_sequences(disk: Disk) -> list[int]:
    """The sequences of the snapshots there are, oldest first."""
    return sorted(sequence for sequence in map(snapshot_sequence, disk.names()) if sequence is not None)


def newest_snapshot_sequence(disk: Disk) -> int:
    """By the headers, or by its name where one can't be read. 0 when there is none."""
    return max((header.sequence if header else named for named, header in _headers(disk).items()), default=0)


def refuse_renamed(disk: Disk) -> dict[int, SnapshotHeader]:
    """The headers that can be read, oldest first. Raises ``SnapshotRenamed`` where one has another's name."""
    headers = {named: header for named, header in _headers(disk).items() if header is not None}
    for named, header in headers.items():
        if header.sequence != named:
            raise SnapshotRenamed(snapshot_name(named), snapshot_name(header.sequence))
    return headers


def _headers(disk: Disk) -> dict[int, SnapshotHeader | None]:
    """By the sequences of the names, oldest first. None: it can't be read."""
    found: dict[int, SnapshotHeader | None] = {}
    for named in snapshot_sequences(disk):
        name = snapshot_name(named)
        found[named] = None
        with suppress(JournalDamaged, OSError):
            file = disk.open(name, writable=False)
            try:
                found[named] = read_snapshot_header(file, name)
            finally:
                file.close()
    return found


def read_snapshot_header(file: DiskFile, name: str) -> SnapshotHeader:
    block = bytes(file.pread(BLOCK_BYTES, 0))

    def refuse(what: str) -> JournalDamaged:
        sequence = int(match[1]) if (match := _NAME.fullmatch(name)) else 0
        return JournalDamaged("snapshot", name, 0, sequence, what, _REMEDY)

    if len(block) < BLOCK_BYTES:
        raise refuse("the file ends inside its header")
    magic, checksum = _SUM.unpack_from(block)
    if magic != _MAGIC or checksum != xxh64(memoryview(block)[_SUM.size :]):
        raise refuse("the snapshot's header is not valid")
    version, machine, identity, sequence, now_ms, state_hash, chain, count, size, described_bytes, described_sum = (
        _FIXED.unpack_from(block, _SUM.size)
    )
    if version not in _VERSIONS:
        raise refuse(f"the snapshot has format version {version}, this program reads {_VERSIONS}")
    if count > _REGIONS_MAX:
        raise refuse(f"the snapshot names {count} regions")
    if file.size() != size:
        raise refuse(f"the snapshot has {size} bytes by its header and {file.size()} on disk")
    if described_bytes > _DESCRIPTION_BYTES_MAX:
        raise refuse(f"the snapshot's description has {described_bytes} bytes")
    description = bytes(file.pread(described_bytes, BLOCK_BYTES)) if described_bytes else b""
    if version > 2 and xxh64(description) != described_sum:
        raise refuse("the checksum of the description is wrong")
    regions = []
    for index in range(count):
        raw, offset, item_bytes, items, region_sum = _ENTRY.unpack_from(block, _DIRECTORY_OFFSET + index * _ENTRY.size)
        region = raw.rstrip(b"\0").decode("utf-8", "replace")
        if offset + item_bytes * items > size:
            raise refuse(f"the region {region} of {items} items of {item_bytes} bytes does not fit into the file")
        regions.append(RegionEntry(region, offset, item_bytes, items, region_sum))
    if not regions or fold((entry.checksum for entry in regions), machine) != state_hash:
        raise refuse("the regions' hashes do not give the state hash (I10)")
    return SnapshotHeader(machine, identity, sequence, now_ms, state_hash, chain, size, tuple(regions), description)


def unreadable_snapshot(name: str, sequence: int, error: OSError) -> JournalDamaged:
    """What is said of one that the disk can't read."""
    return JournalDamaged("snapshot", name, 0, sequence, f"the disk can't read it: {error}", _REMEDY)


def fold(hashes: Iterable[int], digest: int = 0) -> int:
    """The hash of a row of hashes, as the machine folds them."""
    for found in hashes:
        digest = xxh64(found.to_bytes(8, "little"), digest)
    return digest


def _judge(entry: RegionEntry, name: str, sequence: int, hashes: Iterable[int]) -> None:
    if fold(hashes) != entry.checksum:
        what = f"the hash of the region {entry.name} is wrong"
        raise JournalDamaged("snapshot", name, entry.offset, sequence, what, _REMEDY)


def check_regions(file: DiskFile, name: str, header: SnapshotHeader, pause: Pause | None = None) -> None:
    """Reads every region, and raises ``JournalDamaged`` when one is not what was written."""

    def hashes(entry: RegionEntry) -> Iterator[int]:
        end = entry.offset + entry.item_bytes * entry.count
        for start in range(entry.offset, end, HASH_PIECE_BYTES):
            piece = memoryview(bytearray(min(HASH_PIECE_BYTES, end - start)))
            for part in range(0, piece.nbytes, _CHECK_BYTES):
                began_s = time.monotonic()
                file.pread_into(piece[part : part + _CHECK_BYTES], start + part)
                if pause is not None:
                    pause(time.monotonic() - began_s)
            yield xxh64(piece)

    for entry in header.regions:
        _judge(entry, name, header.sequence, hashes(entry))


@contextmanager
def open_snapshot(disk: Disk, sequence: int) -> Iterator[tuple[SnapshotHeader, list[StoredRegion]]]:
    """The header, and the regions as ``Machine.restore`` takes them; each is checked while it is read, or raises
    ``JournalDamaged``."""
    name = snapshot_name(sequence)
    file = disk.open(name, writable=False)
    try:
        header = read_snapshot_header(file, name)
        with ThreadPoolExecutor(_READERS, "simswitch-snapshot") as readers:

            def read(entry: RegionEntry, place: memoryview) -> None:
                def read_piece(start: int) -> int:
                    with place[start : start + HASH_PIECE_BYTES] as piece:
                        file.pread_into(piece, entry.offset + start)
                        return xxh64(piece)

                # One piece is read sooner than another thread would begin.
                each = map if place.nbytes <= HASH_PIECE_BYTES else readers.map
                hashes = each(read_piece, range(0, place.nbytes, HASH_PIECE_BYTES))
                _judge(entry, name, header.sequence, hashes)

            # The first comes as bytes: the places of the others depend on it.
            first, *others = header.regions
            head = memoryview(bytearray(first.item_bytes * first.count))
            read(first, head)
            yield (
                header,
                [
                    (first.name, first.item_bytes, first.count, head),
                    *((entry.name, entry.item_bytes, entry.count, partial(read, entry)) for entry in others),
                ],
            )
    finally:
        file.close()


def write_snapshot(
    disk: Disk,
    machine: SnapshotSource,
    journal_id: bytes,
    machine_version: int,
    chain: int,
    *,
    keep_free_bytes: int = 0,
    pause: Pause | None = None,
) -> SnapshotHeader:
    """Takes a snapshot of a machine that nobody feeds meanwhile. It has its name only when it is durable and was read
    back.

    The record that the machine stands at must be durable before: a snapshot vouches for it. Raises ``OSError`` (ENOSPC)
    before anything is written when less than ``keep_free_bytes`` would be left on the disk.
    """
    regions = list(machine.snapshot_regions())
    description = describe(layout.RECORD_TYPES)
    file_bytes = BLOCK_BYTES + _blocks(len(description))
    file_bytes += sum(_blocks(item_bytes * count) for _, item_bytes, count, _ in regions)
    free = disk.free_bytes()
    if free - file_bytes < keep_free_bytes:
        raise OSError(
            errno.ENOSPC,
            f"a snapshot takes {file_bytes} bytes, its disk has {free} free, and {keep_free_bytes} have to stay free",
        )
    name = snapshot_name(machine.sequence)
    temporary = f"{name}.{os.getpid()}{WRITING_SUFFIX}"
    file = disk.open(temporary, create=True, read_ahead=False)
    try:
        entries = []
        offset = BLOCK_BYTES + _blocks(len(description))
        file.pwrite((description, bytes(-len(description) % BLOCK_BYTES)), BLOCK_BYTES)
        for region, item_bytes, count, data in regions:
            with memoryview(data) as view:
                digest = fold(_write_pieces(file, view.cast("B"), offset, pause))
            entries.append(RegionEntry(region, offset, item_bytes, count, digest))
            offset += _blocks(item_bytes * count)
        header = SnapshotHeader(
            machine_version,
            journal_id,
            machine.sequence,
            machine.now_ms,
            fold((entry.checksum for entry in entries), machine_version),
            chain,
            offset,
            tuple(entries),
            description,
        )
        file.pwrite((header.encode(),), 0)
        file.settle()
        if read_snapshot_header(file, name) != header:
            raise JournalDamaged("snapshot", temporary, 0, header.sequence, "it does not read back as written", _REMEDY)
        check_regions(file, name, header, pause)
        disk.rename(temporary, name)
        disk.fsync_folder()
    except BaseException:
        disk.unlink(temporary)
        raise
    finally:
        file.close()
    return header


def _remove(disk: Disk, name: str, pause: Pause | None) -> None:
    """Takes a file away for good: its name at once, its blocks little by little."""
    removing = name + REMOVING_SUFFIX
    disk.rename(name, removing)
    disk.fsync_folder()
    file = disk.open(removing)
    try:
        for size in range(file.size() - _REMOVE_BYTES, 0, -_REMOVE_BYTES):
            began_s = time.monotonic()
            file.truncate(size)
            file.fdatasync()
            if pause is not None:
                pause(time.monotonic() - began_s)
    finally:
        file.close()
    disk.unlink(removing)


def _blocks(size: int) -> int:
    """What that many bytes take in the file."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _write_pieces(file: DiskFile, view: memoryview, offset: int, pause: Pause | None) -> Iterator[int]:
    """Writes a region and gives the hashes of its pieces."""
    for start in range(0, view.nbytes, HASH_PIECE_BYTES):
        began_s = time.monotonic()
        piece = view[start : start + HASH_PIECE_BYTES]
        yield xxh64(piece)
        file.pwrite((piece, bytes(-piece.nbytes % BLOCK_BYTES)), offset + start)
        file.fdatasync()
        if pause is not None:
            pause(time.monotonic() - began_s)


def prune(
    disk: Disk, pause: Pause | None = None, keep_ms: int = 0, damages: Iterable[JournalDamaged] = ()
) -> list[str]:
    """Removes the snapshots that are not kept, and the segments that none of the others needs. Returns their names.

    ``damages`` names snapshots that a start had to pass over. Raises ``SnapshotRenamed`` before anything is removed.
    """
    headers = refuse_renamed(disk)
    damaged = {damage.file for damage in damages}
    sequences = snapshot_sequences(disk)
    sound = [sequence for sequence in sequences if snapshot_name(sequence) not in damaged]
    while len(sound) >= SNAPSHOTS_KEPT:
        kept = _kept(headers, sound, keep_ms)
        older = sound[-SNAPSHOTS_KEPT]
        removed = [snapshot_name(sequence) for sequence in sequences if sequence < older and sequence not in kept]
        removed += _below(disk, min(kept))
        # The older may have rotted since it was written, and so may the one from which on every point is kept: what
        # goes now is what could replace them.
        relied_on = {older} if min(kept) in sequences[:1] else {older, min(kept)}
        rotten = {sequence for sequence in relied_on if not _is_sound(disk, sequence, pause)} if removed else set()
        if not rotten:
            for name in removed:
                _remove(disk, name, pause)
            return removed
        sound = [sequence for sequence in sound if sequence not in rotten]
    return []


def _below(disk: Disk, sequence: int) -> list[str]:
    """The segments that hold only what stands before that record, or itself. One whose header is damaged is judged by
    the one behind it, and goes with those before it."""
    segments = list_segments(disk)
    needed = max(
        (
            segment.number
            for segment in segments
            if isinstance(segment.header, SegmentHeader) and segment.header.first_sequence <= sequence + 1
        ),
        default=0,
    )
    return [segment.name for segment in segments if segment.number < needed]


def _is_sound(disk: Disk, sequence: int, pause: Pause | None) -> bool:
    name = snapshot_name(sequence)
    file = disk.open(name, writable=False)
    try:
        check_regions(file, name, read_snapshot_header(file, name), pause)
    except (JournalDamaged, OSError):
        return False
    finally:
        file.close()
    return True


def _kept(headers: dict[int, SnapshotHeader], sequences: list[int], keep_ms: int) -> set[int]:
    kept = set(sequences[-SNAPSHOTS_KEPT:])
    if not keep_ms:
        return kept
    # From one whose header can't be read nothing can be restored.
    instants = {sequence: headers[sequence].now_ms for sequence in sequences if sequence in headers}
    if not instants:
        return kept
    until_ms = max(instants.values()) - keep_ms
    base = max((sequence for sequence, at_ms in instants.items() if at_ms <= until_ms), default=min(instants))
    following = (sequence for sequence, at_ms in instants.items() if at_ms >= instants[base] + keep_ms)
    return kept | {base} | set(islice(following, 1))

"""Snapshots: the whole state of the machine after one record. This comment is the format's specification.

A snapshot is a file ``snapshot-00000000000000000042.state``, named after the sequence it was taken after. All numbers
are little-endian.

    snapshot = | header 4,096 | region | zeros to 4,096 | region | … |

    header                                                      why it is there
    ------  ----  --------------------------------------------  --------------------------------------------------------
         0     8  magic "SIMSWSNP"
         8     8  checksum: XXH64 of bytes 16 to 4,095          the directory is trusted before a region is read
        16     4  format version, 1
        20     4  machine version                               the state is that machine's; a newer one may read it
        24    16  journal id                                    a snapshot of another journal is recognised
        40     8  sequence: records applied                     the tail is replayed from the next one on
        48     8  now_ms of that record
        56     8  state hash of the machine                     what was restored is what was saved (I10)
        64     8  checksum of that record                       the tail must continue that very history (the chain)
        72     4  count of regions, at most 60
        76     4  zeros
        80     8  bytes of the file
        88   168  zeros
       256  64·n  directory: name, 24 bytes; u64 each: offset, item bytes, count, XXH64, zeros

A snapshot is valid if and only if the header's magic, version and checksum are right, the file has its size, and each
region has its checksum. It is written under another name, made durable, read back from the disk and compared, and only
then given its name; so a file of that name was whole once, and a crash leaves at most a file ending in ``.writing``.

The two newest are kept. Segments that lie wholly below the older of the two are not needed by either, and are removed,
oldest first and one durable removal after the other, so that a crash leaves no hole.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from simswitch.core.machine import xxh64
from simswitch.journal.disk import Bytes, Disk, DiskFile
from simswitch.journal.errors import JournalDamaged
from simswitch.journal.format import BLOCK_BYTES, SegmentHeader
from simswitch.journal.walk import list_segments

SNAPSHOT_FORMAT_VERSION = 1
SNAPSHOTS_KEPT = 2
WRITING_SUFFIX = ".writing"

_MAGIC = b"SIMSWSNP"
_SUM = struct.Struct("<8sQ")
_FIXED = struct.Struct("<II16sQQQQI4xQ")
_ENTRY = struct.Struct("<24sQQQQ8x")
_DIRECTORY_OFFSET = 256
_REGIONS_MAX = 60
_CHUNK_BYTES = 8 * 1024 * 1024
_NAME = re.compile(r"snapshot-(\d{20})\.state")
_REMEDY = "Keep the file as it is; the state can be put together from the older snapshot and the journal"

Region = tuple[str, int, int, Bytes]
"""Name, bytes of an item, count of items, and the bytes."""


class SnapshotSource(Protocol):
    """What a snapshot is taken of."""

    @property
    def sequence(self) -> int: ...
    @property
    def now_ms(self) -> int: ...
    def state_hash(self) -> int: ...
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


def snapshot_sequences(disk: Disk) -> list[int]:
    """The sequences of the snapshots there are, oldest first."""
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, disk.names()) if match)


def newest_snapshot_sequence(disk: Disk) -> int:
    """0 when there is none."""
    return max(snapshot_sequences(disk), default=0)


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
    version, machine, identity, sequence, now_ms, state_hash, chain, count, size = _FIXED.unpack_from(block, _SUM.size)
    if version != SNAPSHOT_FORMAT_VERSION:
        raise refuse(f"the snapshot has format version {version}, this program reads {SNAPSHOT_FORMAT_VERSION}")
    if count > _REGIONS_MAX:
        raise refuse(f"the snapshot names {count} regions")
    if file.size() != size:
        raise refuse(f"the snapshot has {size} bytes by its header and {file.size()} on disk")
    regions = []
    for index in range(count):
        raw, offset, item_bytes, items, region_sum = _ENTRY.unpack_from(block, _DIRECTORY_OFFSET + index * _ENTRY.size)
        regions.append(RegionEntry(raw.rstrip(b"\0").decode(), offset, item_bytes, items, region_sum))
    return SnapshotHeader(machine, identity, sequence, now_ms, state_hash, chain, size, tuple(regions))


def read_regions(file: DiskFile, name: str, header: SnapshotHeader) -> list[Region]:
    """All regions with their checksums verified, or ``JournalDamaged``; never some of them."""
    regions: list[Region] = []
    for entry in header.regions:
        data = file.view(entry.item_bytes * entry.count, entry.offset)
        if xxh64(data) != entry.checksum:
            raise JournalDamaged(
                "snapshot",
                name,
                entry.offset,
                header.sequence,
                f"the checksum of the region {entry.name} is wrong",
                _REMEDY,
            )
        regions.append((entry.name, entry.item_bytes, entry.count, data))
    return regions


def load_snapshot(disk: Disk, sequence: int) -> tuple[SnapshotHeader, list[Region]]:
    name = snapshot_name(sequence)
    file = disk.open(name, writable=False)
    try:
        header = read_snapshot_header(file, name)
        return header, read_regions(file, name, header)
    finally:
        file.close()


def write_snapshot(
    disk: Disk, machine: SnapshotSource, journal_id: bytes, machine_version: int, chain: int
) -> SnapshotHeader:
    """Takes a snapshot of a machine that nobody feeds meanwhile. It has its name only when it is durable and was read
    back.

    The record that the machine stands at must be durable before: a snapshot vouches for it.
    """
    entries = []
    views = []
    offset = BLOCK_BYTES
    for name, item_bytes, count, view in machine.snapshot_regions():
        entries.append(RegionEntry(name, offset, item_bytes, count, xxh64(view)))
        views.append(memoryview(view))
        offset = -(-(offset + item_bytes * count) // BLOCK_BYTES) * BLOCK_BYTES
    header = SnapshotHeader(
        machine_version,
        journal_id,
        machine.sequence,
        machine.now_ms,
        machine.state_hash(),
        chain,
        offset,
        tuple(entries),
    )
    name = snapshot_name(header.sequence)
    temporary = f"{name}.{os.getpid()}{WRITING_SUFFIX}"
    file = disk.open(temporary, create=True)
    try:
        for entry, view in zip(entries, views, strict=True):
            for start in range(0, view.nbytes, _CHUNK_BYTES):
                file.pwrite((view[start : start + _CHUNK_BYTES],), entry.offset + start)
            end = entry.offset + view.nbytes
            file.pwrite((bytes(-end % BLOCK_BYTES),), end)
        file.pwrite((header.encode(),), 0)
        file.settle()
        if read_snapshot_header(file, name) != header:
            raise JournalDamaged("snapshot", temporary, 0, header.sequence, "it does not read back as written", _REMEDY)
        read_regions(file, name, header)
        disk.rename(temporary, name)
        disk.fsync_folder()
    except BaseException:
        disk.unlink(temporary)
        raise
    finally:
        file.close()
    return header


def clear_unfinished(disk: Disk) -> None:
    """Removes what a crash left of snapshots that were being written (@F of ``walk``)."""
    for name in disk.names():
        if name.endswith(WRITING_SUFFIX):
            disk.unlink(name)


def prune(disk: Disk) -> list[str]:
    """Removes snapshots beyond the two newest, and the segments that neither of the two needs. Returns their names."""
    sequences = snapshot_sequences(disk)
    removed = [snapshot_name(sequence) for sequence in sequences[:-SNAPSHOTS_KEPT]]
    for name in removed:
        disk.unlink(name)
    if removed:
        disk.fsync_folder()
    if len(sequences) < SNAPSHOTS_KEPT:
        return removed
    needed_from = sequences[-SNAPSHOTS_KEPT] + 1
    segments = list_segments(disk)
    for segment, following in pairwise(segments):
        if not isinstance(following.header, SegmentHeader) or following.header.first_sequence > needed_from:
            break
        disk.unlink(segment.name)
        disk.fsync_folder()
        removed.append(segment.name)
    return removed

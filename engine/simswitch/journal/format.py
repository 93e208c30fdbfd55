"""The bytes of the journal. This comment is the specification; the code below only follows it.

A journal is a row of segment files ``segment-0000000001.journal``, numbered from 1 without a gap. Each has a fixed
size, a multiple of 4,096, and was filled with zeros that were made durable before its name appeared, so that writing a
record changes no length and no block map, and one ``fdatasync`` costs one write. All numbers are little-endian.

    segment = | header 4,096 | record | record | … | zeros |

    segment header                                              why it is there
    ------  ----  --------------------------------------------  --------------------------------------------------------
         0     8  magic "SIMSWSEG"                              a person with a hex dump knows what it is
         8     8  checksum: XXH64 of bytes 16 to 4,095
        16     4  format version, 1                             another layout is refused, never guessed at
        20     4  machine version that began the segment        said by `inspect`; each record has its own
        24    16  journal id, random at creation                a file of another journal is recognised
        40     8  segment number                                a renamed file is recognised
        48     8  segment bytes                                 a file that was cut or lengthened is recognised
        56     8  first sequence                                finds the segment that a snapshot goes on in
        64     8  checksum of the record before; 0: none        a missing segment is recognised (the chain)
        72  4024  zeros

    record                                                      begins on a multiple of 4,096
    ------  ----  --------------------------------------------  --------------------------------------------------------
         0     8  magic "SIMSWREC"
         8     8  checksum: XXH64 of bytes 16 to 127            covers the payload too, through its hash
        16     8  XXH64 of the payload                          the payload need not lie beside the header to be summed
        24     4  payload bytes, at least 1
        28     4  machine version                               another version's tail is refused
        32    16  journal id                                    no payload can pass itself off as a record
        48     8  sequence, from 1                              one more than the record before
        56     8  now_ms                                        the clock of the state machine
        64     8  seed                                          its randomness
        72     8  durable sequence                              what was known to be durable when this was written
        80     8  checksum of the record before; 0: none        the chain
        88     8  hash of the outcomes                          replay must reproduce it (I10)
        96    32  zeros
       128     …  payload: the batch of commands
         …     …  zeros to the next multiple of 4,096

A segment header is valid if and only if its magic, format version and checksum are right, the number is its file's and
the bytes are the file's size. A record is valid if and only if its magic and checksum are right, it ends inside the
segment, its payload has the hash and everything between the payload and the next multiple of 4,096 is zero.

One record is one group of commands: one ``pwrite`` and one ``fdatasync``. Record N+1 is written only after N is
durable, and it begins on a boundary of 4,096, so that no write touches a sector that holds an acknowledged record.
Hence a crash can leave at most one record half written, and that is the last. What recovery makes of the bytes is in
``walk``.

A record that doesn't fit into what is left of a segment begins the next one; the rest stays zero. The next segment's
header is durable before its first record is written.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from simswitch.core.machine import xxh64
from simswitch.journal.disk import Bytes

FORMAT_VERSION = 1
BLOCK_BYTES = 4096
SEGMENT_BYTES = 64 * 1024 * 1024
SEGMENT_BYTES_MIN = 2 * BLOCK_BYTES
RECORD_HEADER_BYTES = 128
ZEROS = memoryview(bytes(1024 * 1024))

# What the names of files end in that are being made or removed.
PREPARING_SUFFIX = ".preparing"
WRITING_SUFFIX = ".writing"
REMOVING_SUFFIX = ".removing"

SEGMENT_MAGIC = b"SIMSWSEG"
RECORD_MAGIC = b"SIMSWREC"

_SEGMENT = struct.Struct("<II16sQQQQ")
_RECORD = struct.Struct("<QII16sQQQQQQ32x")
_SUM = struct.Struct("<8sQ")
_SEGMENT_NAME = re.compile(r"segment-(\d{10})\.journal")


def segment_name(number: int) -> str:
    return f"segment-{number:010d}.journal"


def segment_number(name: str) -> int | None:
    match = _SEGMENT_NAME.fullmatch(name)
    return int(match[1]) if match else None


def is_zero(data: Bytes) -> bool:
    view = memoryview(data)
    return all(
        view[offset : offset + len(ZEROS)] == ZEROS[: min(len(ZEROS), len(view) - offset)]
        for offset in range(0, len(view), len(ZEROS))
    )


def record_bytes(payload_bytes: int) -> int:
    """What a record with this payload takes in a segment."""
    return -(-(RECORD_HEADER_BYTES + payload_bytes) // BLOCK_BYTES) * BLOCK_BYTES


def payload_bytes_max(segment_bytes: int) -> int:
    return segment_bytes - BLOCK_BYTES - RECORD_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    machine_version: int
    journal_id: bytes
    number: int
    segment_bytes: int
    first_sequence: int
    previous_checksum: int

    def encode(self) -> bytes:
        fields = _SEGMENT.pack(
            FORMAT_VERSION,
            self.machine_version,
            self.journal_id,
            self.number,
            self.segment_bytes,
            self.first_sequence,
            self.previous_checksum,
        )
        summed = fields + bytes(BLOCK_BYTES - _SUM.size - len(fields))
        return _SUM.pack(SEGMENT_MAGIC, xxh64(summed)) + summed


def is_whole(block: Bytes) -> bool:
    """Whether a segment header's bytes are what was written; it may still be another file's."""
    if len(block) < BLOCK_BYTES:
        return False
    magic, checksum = _SUM.unpack_from(block)
    return bool(magic == SEGMENT_MAGIC and checksum == xxh64(memoryview(block)[_SUM.size : BLOCK_BYTES]))


def decode_segment_header(block: Bytes, number: int, file_bytes: int) -> SegmentHeader | str:
    """The header, or what is wrong with it."""
    if len(block) < BLOCK_BYTES:
        return f"the file ends after {len(block)} bytes, inside its header"
    if bytes(block[: len(SEGMENT_MAGIC)]) != SEGMENT_MAGIC:
        return "the segment header has no magic"
    if not is_whole(block):
        return "the segment header's checksum is wrong"
    version, machine, identity, recorded, size, first, previous = _SEGMENT.unpack_from(block, _SUM.size)
    if version != FORMAT_VERSION:
        return f"the segment has format version {version}, this program reads {FORMAT_VERSION}"
    if recorded != number:
        return f"the segment header says that this is segment {recorded}: the file was renamed"
    if size != file_bytes:
        return f"the segment has {size} bytes by its header and {file_bytes} on disk: it was cut or lengthened"
    return SegmentHeader(machine, identity, recorded, size, first, previous)


@dataclass(frozen=True, slots=True)
class RecordHeader:
    payload_hash: int
    payload_bytes: int
    machine_version: int
    journal_id: bytes
    sequence: int
    now_ms: int
    seed: int
    durable_sequence: int
    previous_checksum: int
    outcome_hash: int

    def encode(self) -> tuple[bytes, int]:
        """The header's bytes, and its checksum: the link of the chain."""
        summed = _RECORD.pack(
            self.payload_hash,
            self.payload_bytes,
            self.machine_version,
            self.journal_id,
            self.sequence,
            self.now_ms,
            self.seed,
            self.durable_sequence,
            self.previous_checksum,
            self.outcome_hash,
        )
        checksum = xxh64(summed)
        return _SUM.pack(RECORD_MAGIC, checksum) + summed, checksum


def decode_record_header(data: Bytes, offset: int = 0) -> tuple[RecordHeader, int] | str:
    """The header and its checksum, or what is wrong with it. Says nothing about the payload."""
    view = memoryview(data)[offset : offset + RECORD_HEADER_BYTES]
    if len(view) < RECORD_HEADER_BYTES:
        return "the file ends inside a record header"
    magic, checksum = _SUM.unpack_from(view)
    if magic != RECORD_MAGIC:
        return "there is no record's magic"
    if checksum != xxh64(view[_SUM.size :]):
        return "the record header's checksum is wrong"
    return RecordHeader(*_RECORD.unpack_from(view, _SUM.size)), checksum


def payload_fault(header: RecordHeader, record: Bytes) -> str | None:
    """What is wrong with the rest of a record whose header is right; None: it is valid."""
    view = memoryview(record)
    end = RECORD_HEADER_BYTES + header.payload_bytes
    if header.payload_bytes < 1 or len(view) < record_bytes(header.payload_bytes):
        return f"the record's length of {header.payload_bytes} does not fit into the segment"
    if xxh64(view[RECORD_HEADER_BYTES:end]) != header.payload_hash:
        return "the payload's hash is wrong"
    if not is_zero(view[end : record_bytes(header.payload_bytes)]):
        return "there is something between the payload and the next record"
    return None

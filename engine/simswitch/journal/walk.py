"""Reading a journal back: which bytes are records, where it ends, and what a crash may have left there.

``S`` is the sequence that the next record must have, ``C`` the checksum of the record before it, ``p`` the place where
it must stand, ``D`` the highest sequence that a snapshot says was durable. The rows are tried from the top; the code
cites them by letter.

    what is found                                                           what it means                        verdict
    ----------------------------------------------------------------------  -----------------------------------  -------
    @A  valid record at p, sequence S, chain C                            the next record                      take
    @B  the next segment is begun, by its header with S and C             this segment is over                 go on
    @C  all zeros at p and behind, no segment begun after it              a clean end                          end
    @P  p is not the record S, a snapshot holds what S did, and behind p  a record was damaged that nobody     go on
        stands the snapshot's own record, or the next, by its checksum    needs any more                       behind it
        the same behind a segment's header that is not valid              a header nobody needs any more
    @D  p is not a valid record, nothing that was written later           the last write was torn by a crash;  cut, end
        exists, S is above D                                              it was never acknowledged
    @E  the last segment's header is not valid, no record stands in it    a crash when a segment was begun     cut, end
    @F  a file whose name ends in .preparing, .writing or .removing       a crash while it was made or removed remove
    @G  p is not a valid record, and one with a sequence of S or above    a durable record was damaged         refuse
        stands behind it, or a segment was begun after it
    @H  p is not a valid record, S is at or below D                       a durable record is gone             refuse
    @I  valid record at p, sequence not S                                 a stale record, or a gap             refuse
    @J  valid record at p, sequence S, chain not C                        not the history that came before     refuse
    @K  record or segment with another journal id                         files of two journals were mixed     refuse
    @L  a segment's header is not valid, but records stand in it          the header was damaged               refuse
        or a segment was begun after it, and it is not @P
    @M  a segment is missing between two that are needed, or before them  a file was lost or removed           refuse
    @N  a segment's size is not what its header says                      a file was cut or lengthened         refuse
    @O  a snapshot is there, and no segment was begun                     the journal was lost                 refuse
    @Q  the disk can't read what is at p or behind it                     a sector is broken                   refuse

"Cut" means: all that is not zero from p on is overwritten with zeros, and that is made durable before anything is
appended, so that no later crash can find the remains. Only what was never acknowledged is cut, because record N+1 is
written after N is durable (``format``): a record that was acknowledged has either something behind it (@G), or a
snapshot of its sequence or a later one (@H), as a clean shutdown and the follower write, or it is the very last. That
last one, if it rots, can't be told from a torn write by anyone. The mark in a record names only what stands before it.

@P asks for proof that nothing is missing: the snapshot names the checksum of its own record, and that record, or one
that follows it by this checksum, has to stand there. Without it, as where the snapshot's own record is the damaged one
and the last, nobody knows what stood behind it: @H.

A segment that is gone with everything behind it leaves a journal that ends where it began, as one does that never went
on. Only who has seen more can tell: a snapshot (@H, @M, @O), history (``JournalShort``), or the list in a backup.

A segment that a crash left prepared but not begun is all zeros, and is used. Non-zero bytes behind @B's end of a
segment are not looked at: the chain shows that nothing is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, cast

from simswitch.journal.append import START, Place
from simswitch.journal.disk import Disk, DiskFile
from simswitch.journal.errors import JournalDamaged
from simswitch.journal.format import (
    BLOCK_BYTES,
    PREPARING_SUFFIX,
    RECORD_HEADER_BYTES,
    RECORD_MAGIC,
    REMOVING_SUFFIX,
    WRITING_SUFFIX,
    ZEROS,
    RecordHeader,
    SegmentHeader,
    decode_record_header,
    decode_segment_header,
    is_whole,
    is_zero,
    payload_fault,
    record_bytes,
    segment_name,
    segment_number,
)

RESTORE = (
    "Nothing was changed. Keep the folder as it is, and restore this file from a copy of the disk; "
    "`simswitch inspect` shows what else it holds"
)
_WINDOW_BYTES = 4 * 1024 * 1024
_UNFINISHED = (PREPARING_SUFFIX, WRITING_SUFFIX, REMOVING_SUFFIX)


@dataclass(frozen=True, slots=True)
class Record:
    header: RecordHeader
    checksum: int
    payload: memoryview
    segment: int
    offset: int


@dataclass(frozen=True, slots=True)
class Residue:
    """Bytes of a write that a crash tore: to be overwritten with zeros."""

    segment: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the journal ends."""

    case: str
    text: str
    place: Place
    residues: tuple[Residue, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment file: ``header`` is None when it was prepared and not begun, a text when it is not valid."""

    number: int
    size: int
    header: SegmentHeader | str | None
    whole: bool
    """The header's bytes are what was written. One that is whole and not valid is another file's, or of a file that was
    cut: the records in it prove nothing."""

    @property
    def fault(self) -> str:
        """What is wrong with the header of a segment that was begun."""
        return self.header if isinstance(self.header, str) else "the segment header is all zeros"

    @property
    def name(self) -> str:
        return segment_name(self.number)


def list_segments(disk: Disk) -> list[Segment]:
    segments = []
    for name in disk.names():
        number = segment_number(name)
        if number is None:
            continue
        try:
            file = disk.open(name, writable=False)
        except FileNotFoundError:
            continue  # a follower has removed it meanwhile
        header: SegmentHeader | str | None
        whole = False
        try:
            size = file.size()
            block = file.pread(BLOCK_BYTES, 0)
            empty = len(block) == BLOCK_BYTES and is_zero(block)
            header = None if empty else decode_segment_header(block, number, size)
            whole = is_whole(block)
        except OSError as error:
            header = f"the disk can't read the segment header: {error}"
        finally:
            file.close()
        segments.append(Segment(number, size, header, whole))
    segments.sort(key=lambda segment: segment.number)
    return segments


def first_sequence(disk: Disk) -> int:
    """Of the first record that the journal still has; 1 when it has none."""
    for segment in list_segments(disk):
        if isinstance(segment.header, SegmentHeader):
            return segment.header.first_sequence
        record = first_record(disk, segment)
        if record is not None:
            return record.header.sequence
    return 1


def first_record(disk: Disk, segment: Segment) -> Record | None:
    """The first that can be read in a segment without a header."""
    reader = RecordReader(disk.open(segment.name, writable=False), segment.number, segment.size)
    try:
        for offset in range(BLOCK_BYTES, segment.size, BLOCK_BYTES):
            with suppress(OSError):
                record = reader.at(offset)
                if not isinstance(record, str):
                    return record
    finally:
        reader.close()
    return None


class RecordReader:
    """The records of one segment by their place. Reads in windows; ``refresh`` forgets what was read before."""

    def __init__(self, file: DiskFile, segment: int, size: int, window_bytes: int = _WINDOW_BYTES) -> None:
        self._file = file
        self._segment = segment
        self._size = size
        self._window_bytes = window_bytes
        self._window = memoryview(b"")
        self._window_offset = 0

    def refresh(self) -> None:
        self._window = memoryview(b"")

    def _bytes(self, offset: int, size: int) -> memoryview:
        start = offset - self._window_offset
        if start < 0 or start + size > len(self._window):
            try:
                window = self._file.pread(min(max(size, self._window_bytes), self._size - offset), offset)
            except OSError:
                # The sector that the disk can't read may lie behind what is wanted.
                window = self._file.pread(size, offset)
            self._window = memoryview(window)
            self._window_offset = offset
            start = 0
        return self._window[start : start + size]

    def behind(self, offset: int, sequence: int, checksum: int, journal_id: bytes) -> Place | None:
        """Where the record after ``sequence`` stands, or has to, from ``offset`` on: what follows that record by its
        checksum, or else the place behind it (@P)."""
        found: Place | None = None
        for start in range(offset, self._size, BLOCK_BYTES):
            try:
                record = self.at(start)
            except OSError:
                continue
            if isinstance(record, str) or record.header.journal_id != journal_id:
                continue
            header = record.header
            if header.sequence == sequence + 1 and header.previous_checksum == checksum:
                return Place(self._segment, start, sequence + 1, checksum)
            if header.sequence == sequence and record.checksum == checksum:
                found = Place(self._segment, start + record_bytes(header.payload_bytes), sequence + 1, checksum)
        return found

    def at(self, offset: int) -> Record | str:
        """The record there, or why there is none."""
        if offset >= self._size:
            return "the segment is full"
        decoded = decode_record_header(self._bytes(offset, BLOCK_BYTES))
        if isinstance(decoded, str):
            return decoded
        header, checksum = decoded
        size = record_bytes(header.payload_bytes)
        if offset + size > self._size:
            return f"the record's length of {header.payload_bytes} does not fit into the segment"
        data = self._bytes(offset, size)
        fault = payload_fault(header, data)
        if fault is not None:
            return fault
        payload = data[RECORD_HEADER_BYTES : RECORD_HEADER_BYTES + header.payload_bytes]
        return Record(header, checksum, payload, self._segment, offset)

    def close(self) -> None:
        self._file.close()


def check_record(record: Record, place: Place, journal_id: bytes) -> None:
    """Refuses a valid record that doesn't belong at this place (@I, @J, @K)."""
    header = record.header
    name = segment_name(place.segment)
    if header.journal_id != journal_id:
        raise JournalDamaged(
            "@K", name, place.offset, place.sequence, f"the record is of journal {header.journal_id.hex()}", RESTORE
        )
    if header.sequence != place.sequence:
        kind = "a stale record" if header.sequence < place.sequence else "a gap"
        what = f"{kind}: the record there has sequence {header.sequence}"
        raise JournalDamaged("@I", name, place.offset, place.sequence, what, RESTORE)
    if header.previous_checksum != place.previous_checksum:
        what = "the record does not follow the one before it"
        raise JournalDamaged("@J", name, place.offset, place.sequence, what, RESTORE)


def passed_over(damage: JournalDamaged, snapshot: int) -> JournalDamaged:
    """What is said of @P."""
    what = f"{damage.what}. The snapshot of sequence {snapshot} holds what it did, so nothing is missing"
    return JournalDamaged(
        "@P", damage.file, damage.offset, damage.sequence, what,
        "Look at the disk. The file goes by itself when two newer snapshots are there",
    )  # fmt: skip


def _unreadable(file: str, offset: int, sequence: int, error: OSError) -> JournalDamaged:
    return JournalDamaged("@Q", file, offset, sequence, f"the disk can't read it: {error}", RESTORE)


class Walk:
    """Iterates over the records from ``first_sequence`` on; afterwards ``verdict`` says how the journal ends, and
    ``damages`` what was passed over on the way (@P).

    ``durable_sequence`` is what snapshots vouch for. ``chain`` is the checksum that the record before
    ``first_sequence`` must have, when a snapshot says so. Reads only; ``repair`` cuts what the verdict names.
    """

    def __init__(
        self,
        disk: Disk,
        *,
        first_sequence: int = 1,
        durable_sequence: int = 0,
        journal_id: bytes | None = None,
        chain: int | None = None,
        settle: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        self._disk = disk
        self._first_sequence = first_sequence
        self._durable_sequence = durable_sequence
        self._chain = chain
        self._settle = settle
        self._progress = progress
        self.journal_id = journal_id
        self.segments = list_segments(disk)
        self.verdict: Verdict | None = None
        self.damages: list[JournalDamaged] = []
        self._begun: list[Segment] = []
        """Those that are needed, and some whose headers were damaged."""
        self._residues: list[Residue] = []

    def __iter__(self) -> Iterator[Record]:
        self._check_segments()
        if not self._begun:
            if self._durable_sequence or self._first_sequence > 1:
                self._refuse(
                    "@O", segment_name(1), 0, self._first_sequence,
                    f"a snapshot vouches for sequence {self._durable_sequence}, and there is no journal",
                )  # fmt: skip
            self.verdict = Verdict("@C", "an empty journal", START, tuple(self._residues))
            return
        place: Place | None = None
        total = sum(segment.size for segment in self._begun)
        done = 0
        for position, segment in enumerate(self._begun):
            following = self._begun[position + 1] if position + 1 < len(self._begun) else None
            file = self._disk.open(segment.name, writable=self._settle)
            if self._settle:
                file.settle()
            reader = RecordReader(file, segment.number, segment.size)
            try:
                place = self._enter(reader, segment, place)
                reported = 0
                while True:
                    record = self._record(reader, place)
                    if isinstance(record, Place):
                        place = record
                        continue
                    if isinstance(record, str):
                        break
                    place = Place(
                        segment.number,
                        place.offset + record_bytes(record.header.payload_bytes),
                        place.sequence + 1,
                        record.checksum,
                    )
                    self._check_chain(place)
                    if record.header.sequence >= self._first_sequence:
                        yield record
                    if self._progress is not None and place.offset - reported >= _WINDOW_BYTES:
                        reported = place.offset
                        self._progress(done + reported, total)
                done += segment.size
                if following is None:
                    self.verdict = self._judge_end(file, segment, place, record)
                else:
                    self._check_over(segment, place, record, following)
            finally:
                reader.close()

    # ------------------------------------------------------------------------------------------ segments

    def _check_segments(self) -> None:
        segments = self.segments
        begun = [segment for segment in segments if isinstance(segment.header, SegmentHeader)]
        last = begun[-1].number if begun else 0
        if self.journal_id is None and begun:
            self.journal_id = cast(SegmentHeader, begun[-1].header).journal_id
        by_number = {segment.number: segment for segment in segments}
        for number, segment in enumerate((segment for segment in segments if segment.number > last), last + 1):
            if segment.number != number:
                # Segments are prepared in order, so this one was there, and may have been begun.
                self._refuse(
                    "@M", segment_name(number), 0, self._first_sequence,
                    f"segment {number} is missing, and segment {segment.number} was prepared after it",
                )  # fmt: skip
            if self._was_begun(segment):
                last = number
        number = last
        while number:
            found = by_number.get(number)
            if found is None:
                if not isinstance(self._begun[0].header, SegmentHeader):
                    break  # what it needed of the one before is judged where it is entered
                self._refuse(
                    "@M", segment_name(number), 0, self._first_sequence,
                    f"segment {number} is missing, and the state needs it from sequence {self._first_sequence} on",
                )  # fmt: skip
            self._begun.insert(0, found)
            header = found.header
            if isinstance(header, SegmentHeader):
                if header.journal_id != self.journal_id:
                    self._refuse(
                        "@K", found.name, 0, header.first_sequence,
                        f"the segment is of journal {header.journal_id.hex()}, not of {(self.journal_id or b'').hex()}",
                    )  # fmt: skip
                if header.first_sequence <= self._first_sequence:
                    break
                if number == 1:
                    self._refuse(
                        "@M", found.name, 0, self._first_sequence,
                        f"the journal begins at sequence {header.first_sequence}, the state needs it from "
                        f"{self._first_sequence} on",
                    )  # fmt: skip
            elif found.whole:
                self._refuse_header(found, self._first_sequence, "a later segment was begun")
            number -= 1

    def _was_begun(self, segment: Segment) -> bool:
        """Of one behind the last whose header is valid: records stand in it, so its header was damaged. Otherwise it is
        all zeros, or a header that a crash tore (@E)."""
        file = self._disk.open(segment.name, writable=False)
        try:
            residue, sequence = self._look_behind(file, segment, 0, 1)
        except JournalDamaged:
            if self._behind_header(RecordReader(file, segment.number, segment.size)) is None:
                raise
            return True
        finally:
            file.close()
        if sequence is not None and segment.whole:
            self._refuse_header(segment, sequence, f"the record {sequence} stands in it")
        if residue is not None and sequence is None:
            self._residues.append(residue)
        return sequence is not None

    def _refuse_header(self, segment: Segment, sequence: int, what: str) -> NoReturn:
        self._refuse(
            "@N" if "on disk" in segment.fault else "@L", segment.name, 0, sequence, f"{segment.fault}, and {what}"
        )

    def _enter(self, reader: RecordReader, segment: Segment, place: Place | None) -> Place:
        """Where to read on in the next segment, ``place`` being behind the record before, if one was read."""
        header = segment.header
        if isinstance(header, SegmentHeader):
            if place is not None:
                return Place(segment.number, BLOCK_BYTES, place.sequence, place.previous_checksum)
            place = Place(segment.number, BLOCK_BYTES, header.first_sequence, header.previous_checksum)
            self._check_chain(place)
            return place
        sequence = self._first_sequence if place is None else place.sequence
        following = self._behind_header(reader) if sequence <= self._first_sequence else None
        if following is None:
            last = segment is self._begun[-1]
            self._refuse_header(segment, sequence, "records stand in it" if last else "a later segment was begun")
        damage = JournalDamaged("@L", segment.name, 0, sequence, segment.fault, RESTORE)
        self.damages.append(passed_over(damage, self._first_sequence - 1))
        return following

    def _behind_header(self, reader: RecordReader) -> Place | None:
        """Where the journal goes on in a segment whose header is damaged (@P)."""
        if self._chain is None or self.journal_id is None:
            return None
        return reader.behind(BLOCK_BYTES, self._first_sequence - 1, self._chain, self.journal_id)

    def _check_over(self, segment: Segment, place: Place, found: str, following: Segment) -> None:
        header = following.header
        if not isinstance(header, SegmentHeader):
            return  # judged where it is entered
        if header.first_sequence == place.sequence and header.previous_checksum == place.previous_checksum:
            return  # @B
        if header.first_sequence == place.sequence:
            self._refuse("@J", following.name, 0, place.sequence, "the segment does not follow the record before it")
        self._refuse(
            "@G", segment.name, place.offset, place.sequence,
            f"{found}, and the next segment begins at sequence {header.first_sequence}",
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ records

    def _record(self, reader: RecordReader, place: Place) -> Record | str | Place:
        """The record at a place, or why there is none, or where the journal goes on behind a damage (@P)."""
        assert self.journal_id is not None
        name = segment_name(place.segment)
        found = ""
        try:
            record = reader.at(place.offset)
            if not isinstance(record, str):
                check_record(record, place, self.journal_id)
                return record
            found = record
            damage = JournalDamaged("@G", name, place.offset, place.sequence, found, RESTORE)
        except JournalDamaged as error:
            damage = error
        except OSError as error:
            damage = _unreadable(name, place.offset, place.sequence, error)
        if self._chain is not None and place.sequence < self._first_sequence:
            following = reader.behind(place.offset, self._first_sequence - 1, self._chain, self.journal_id)
            if following is not None:
                self.damages.append(passed_over(damage, self._first_sequence - 1))
                return following
        if not found:
            raise damage
        return found

    def _check_chain(self, place: Place) -> None:
        """The record before ``first_sequence`` is the one that the snapshot was taken after."""
        if (
            self._chain is not None
            and place.sequence == self._first_sequence
            and self._chain != place.previous_checksum
        ):
            self._refuse(
                "@J", segment_name(place.segment), place.offset, place.sequence,
                "the snapshot was taken after another record than the one before this place",
            )  # fmt: skip

    def _judge_end(self, file: DiskFile, segment: Segment, place: Place, found: str) -> Verdict:
        residue, later = self._look_behind(file, segment, place.offset, place.sequence)
        if later is not None:
            self._refuse(
                "@G", segment.name, place.offset, place.sequence, f"{found}, and the record {later} stands behind it"
            )
        if place.sequence <= self._durable_sequence:
            self._refuse(
                "@H", segment.name, place.offset, place.sequence,
                f"{found}, and the sequence {self._durable_sequence} is known to have been durable",
            )  # fmt: skip
        residues = tuple(self._residues) if residue is None else (residue, *self._residues)
        if residue is not None:
            return Verdict("@D", f"the write of sequence {place.sequence} was torn: {found}", place, residues)
        if residues:
            return Verdict("@E", "a segment was torn when it was begun", place, residues)
        return Verdict("@C", "a clean end", place)

    def _look_behind(
        self, file: DiskFile, segment: Segment, offset: int, sequence: int
    ) -> tuple[Residue | None, int | None]:
        """What is not zero from ``offset`` on, and the sequence of a record behind it that is at least ``sequence``.

        A record behind counts when its header is right: that it was begun shows that all before it were durable. The
        journal id in it keeps the payload of a torn record from passing for one.
        """
        first = last = -1
        for start in range(offset, segment.size, len(ZEROS)):
            try:
                chunk = memoryview(file.pread(min(len(ZEROS), segment.size - start), start))
            except OSError as error:
                raise _unreadable(segment.name, start, sequence, error) from error
            if chunk == ZEROS[: len(chunk)]:
                continue
            for at in range(0, len(chunk), BLOCK_BYTES):
                block = chunk[at : at + BLOCK_BYTES]
                if block == ZEROS[: len(block)]:
                    continue
                first = start + at if first < 0 else first
                last = start + at + len(block)
                if block[:8] != RECORD_MAGIC or (start + at == offset and offset > 0):
                    continue
                decoded = decode_record_header(block)
                if isinstance(decoded, str):
                    continue
                header = decoded[0]
                if self.journal_id in (None, header.journal_id) and header.sequence >= sequence:
                    return Residue(segment.number, first, last - first), header.sequence
        return (None if first < 0 else Residue(segment.number, first, last - first)), None

    def _refuse(self, case: str, file: str, offset: int, sequence: int, what: str) -> NoReturn:
        raise JournalDamaged(case, file, offset, sequence, what, RESTORE)


def repair(disk: Disk, verdict: Verdict) -> None:
    """Overwrites with zeros what the verdict cut (@D, @E), durable, and removes what was never finished (@F).

    All names are durable after it: a process that was killed may have renamed a file and no more, and what is written
    into that from now on is acknowledged.
    """
    for residue in verdict.residues:
        file = disk.open(segment_name(residue.segment))
        try:
            for offset in range(residue.offset, residue.offset + residue.size, len(ZEROS)):
                end = min(offset + len(ZEROS), residue.offset + residue.size)
                file.pwrite((ZEROS[: end - offset],), offset)
            file.fdatasync()
        finally:
            file.close()
    for name in disk.names():
        if name.endswith(_UNFINISHED):
            disk.unlink(name)
    disk.fsync_folder()

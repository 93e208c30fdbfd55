"""Writing the journal: admission, one durable write a group, and the next segment made ready ahead.

    admit(payload bytes)  →  apply  →  append(payload)            the next group may be admitted and applied meanwhile
          │                              │
          │ is there place for it?       └─ pwrite, fdatasync; only when it returns is the group durable
          └─ asks the preparer for another segment when the planned one is used up

Admission comes before applying, so that what was applied always has its place: a full disk refuses, it never loses.
``admit`` and ``append`` may be called by two threads, each by one at a time, in the same order.

A write or an fsync that fails leaves open what the disk holds, and trying again would only hide it. So ``fail_stop`` is
called with a line that says what happened, and ends the process; recovery then finds out.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from simswitch.core.machine import xxh64
from simswitch.journal.disk import Bytes, Disk, DiskFile
from simswitch.journal.errors import JournalFailed, JournalFull, RecordTooLarge
from simswitch.journal.format import (
    BLOCK_BYTES,
    PREPARING_SUFFIX,
    RECORD_HEADER_BYTES,
    SEGMENT_BYTES,
    SEGMENT_BYTES_MIN,
    ZEROS,
    RecordHeader,
    SegmentHeader,
    payload_bytes_max,
    record_bytes,
    segment_name,
)

FREE_MARK_BYTES = 1024 * 1024 * 1024
FAIL_STOP_EXIT_CODE = 70

FailStop = Callable[[str], object]


def end_process(message: str) -> NoReturn:
    """The fail stop of a real server: says why, and ends without running anything else of it."""
    sys.stderr.write(f"simswitch: {message}\n")
    sys.stderr.flush()
    os._exit(FAIL_STOP_EXIT_CODE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next record goes, and what it follows. ``segment`` 0: no segment was begun yet."""

    segment: int
    offset: int
    sequence: int
    previous_checksum: int


START = Place(0, 0, 1, 0)


@dataclass(frozen=True, slots=True)
class JournalSettings:
    segment_bytes: int = SEGMENT_BYTES
    """Size of new segments: a multiple of 4,096. A batch has to fit into one."""
    free_mark_bytes: int = FREE_MARK_BYTES
    """Nothing is admitted while the disk has less than this free."""
    keep_ms: int = 0
    """For so long segments that no snapshot needs are kept, so that any point can be restored (``snapshot.prune``)."""
    prepare_ahead: bool = True
    """False: the next segment is made when it is needed, without a thread (simulator, tests)."""

    def __post_init__(self) -> None:
        if self.segment_bytes < SEGMENT_BYTES_MIN or self.segment_bytes % BLOCK_BYTES:
            raise ValueError(
                f"segment_bytes must be a multiple of {BLOCK_BYTES} and at least {SEGMENT_BYTES_MIN}, "
                f"not {self.segment_bytes}"
            )


class Journal:
    """The writing end of a journal. ``place`` comes from recovery; ``START`` begins a new one."""

    def __init__(
        self,
        disk: Disk,
        journal_id: bytes,
        machine_version: int,
        place: Place = START,
        settings: JournalSettings | None = None,
        fail_stop: FailStop = end_process,
    ) -> None:
        if len(journal_id) != 16:
            raise ValueError("a journal id has 16 bytes")
        self.journal_id = journal_id
        self.settings = settings or JournalSettings()
        self.payload_bytes_max = payload_bytes_max(self.settings.segment_bytes)
        self._disk = disk
        self._machine_version = machine_version
        self._fail_stop = fail_stop
        self._failed: str | None = None
        # The committer's side: where the next record is written.
        self._segment = place.segment
        self._offset = place.offset
        self._sequence = place.sequence
        self._previous_checksum = place.previous_checksum
        self._file: DiskFile | None = None
        self._file_bytes = 0
        # The admitting side: where the next record will stand, groups not yet written included.
        self._planned_segment = place.segment
        self._planned_offset = place.offset
        self._planned_bytes = 0
        self._planned_before = (place.segment, place.offset, 0)
        # Segments that are filled with zeros and wait for their first record, by number.
        self._ready: dict[int, DiskFile] = {}
        self._changed = threading.Condition()
        self._prepared_to = place.segment
        self._wanted_to = place.segment + 1
        self._prepare_error: OSError | None = None
        self._closing = False
        if place.segment:
            self._file = disk.open(segment_name(place.segment))
            self._file_bytes = self._planned_bytes = self._file.size()
        self._adopt_prepared()
        self._preparer: threading.Thread | None = None
        if self.settings.prepare_ahead:
            self._preparer = threading.Thread(target=self._prepare_ahead, name="simswitch-prepare", daemon=True)
            self._preparer.start()

    # ------------------------------------------------------------------------------------------ admission

    @property
    def next_sequence(self) -> int:
        return self._sequence

    @property
    def durable_sequence(self) -> int:
        """The highest sequence that is durable: one below the next, since nothing is written before that."""
        return self._sequence - 1

    @property
    def previous_checksum(self) -> int:
        return self._previous_checksum

    def admit(self, payload_bytes: int) -> None:
        """Makes sure that a record with this payload has its place, or raises before anything is applied."""
        if self._failed is not None:
            raise JournalFailed(self._failed)
        if payload_bytes > self.payload_bytes_max:
            raise RecordTooLarge(
                f"a batch of {payload_bytes} bytes does not fit into a journal segment, which takes "
                f"{self.payload_bytes_max}"
            )
        if full := self.full():
            raise JournalFull(full)
        self._planned_before = (self._planned_segment, self._planned_offset, self._planned_bytes)
        size = record_bytes(payload_bytes)
        if self._planned_offset + size > self._planned_bytes:
            self._wait_prepared(self._planned_segment + 1)
            self._planned_segment += 1
            self._planned_offset = BLOCK_BYTES
            self._planned_bytes = self.settings.segment_bytes
            with self._changed:
                self._wanted_to = self._planned_segment + 1
                self._changed.notify_all()
        self._planned_offset += size

    def withdraw(self) -> None:
        """Takes back the last ``admit``: the batch was refused by the machine and will not be appended."""
        self._planned_segment, self._planned_offset, self._planned_bytes = self._planned_before

    def full(self) -> str:
        """Why nothing is admitted, when the disk is what is in the way; empty: there is room."""
        free = self._disk.free_bytes()
        return self._full_text(free) if free < self.settings.free_mark_bytes else ""

    def _full_text(self, free: int) -> str:
        return (
            f"the journal's disk has {free} bytes free, below the mark of {self.settings.free_mark_bytes}: "
            "nothing is admitted until there is room"
        )

    # ------------------------------------------------------------------------------------------ commit

    def append(self, now_ms: int, seed: int, payload: Bytes, outcome_hash: int) -> int:
        """Writes one record and returns its sequence when it is durable."""
        if self._failed is not None:
            raise JournalFailed(self._failed)
        size = record_bytes(len(payload))
        sequence = self._sequence
        try:
            if self._offset + size > self._file_bytes:
                self._begin_segment()
            header, checksum = RecordHeader(
                xxh64(payload),
                len(payload),
                self._machine_version,
                self.journal_id,
                sequence,
                now_ms,
                seed,
                sequence - 1,
                self._previous_checksum,
                outcome_hash,
            ).encode()
            file = self._file
            assert file is not None
            padding = ZEROS[: size - RECORD_HEADER_BYTES - len(payload)]
            file.pwrite((header, payload, padding), self._offset)
            file.fdatasync()
        except OSError as error:
            self._stop(f"writing the journal at sequence {sequence} failed: {error}. What was not answered may be lost")
        self._offset += size
        self._previous_checksum = checksum
        self._sequence = sequence + 1
        return sequence

    def _begin_segment(self) -> None:
        """The next segment's header becomes durable before any record stands behind it."""
        number = self._segment + 1
        with self._changed:
            file = self._ready.pop(number)
        header = SegmentHeader(
            self._machine_version,
            self.journal_id,
            number,
            self.settings.segment_bytes,
            self._sequence,
            self._previous_checksum,
        )
        file.pwrite((header.encode(),), 0)
        file.fdatasync()
        if self._file is not None:
            self._file.close()
        self._file = file
        self._file_bytes = self.settings.segment_bytes
        self._segment = number
        self._offset = BLOCK_BYTES

    def _stop(self, message: str) -> NoReturn:
        self._failed = message
        self._fail_stop(message)
        raise JournalFailed(message)

    # ------------------------------------------------------------------------------------------ segments ahead

    def _adopt_prepared(self) -> None:
        """Segments that an earlier process had ready are taken over; recovery has made sure that they are all zeros."""
        names = set(self._disk.names())
        while segment_name(self._prepared_to + 1) in names:
            self._prepared_to += 1
            self._ready[self._prepared_to] = self._disk.open(segment_name(self._prepared_to))
        if any(file.size() != self.settings.segment_bytes for file in self._ready.values()):
            # The setting was changed. From the last one down, so that a crash leaves no hole in the numbers.
            for number in sorted(self._ready, reverse=True):
                self._ready.pop(number).close()
                self._disk.unlink(segment_name(number))
                self._disk.fsync_folder()
            self._prepared_to = self._segment
        self._wanted_to = max(self._wanted_to, self._prepared_to)

    def _prepare(self, number: int) -> bool:
        """Makes one segment of durable zeros. False: the journal is closing, and nothing was left behind."""
        size = self.settings.segment_bytes
        free = self._disk.free_bytes()
        if free - size < self.settings.free_mark_bytes:
            raise OSError(errno.ENOSPC, self._full_text(free))
        name = segment_name(number)
        temporary = name + PREPARING_SUFFIX
        file = self._disk.open(temporary, create=True)
        try:
            for offset in range(0, size, len(ZEROS)):
                # Made durable piece by piece: one flush of a whole segment would stand in the way of the commits.
                file.pwrite((ZEROS[: min(len(ZEROS), size - offset)],), offset)
                file.fdatasync()
                if self._closing:
                    file.close()
                    self._disk.unlink(temporary)
                    return False
            self._disk.rename(temporary, name)
            self._disk.fsync_folder()
        except OSError:
            file.close()
            self._disk.unlink(temporary)
            raise
        with self._changed:
            self._ready[number] = file
            self._prepared_to = number
            self._changed.notify_all()
        return True

    def _prepare_ahead(self) -> None:
        while True:
            with self._changed:
                while not self._closing and (self._prepare_error is not None or self._prepared_to >= self._wanted_to):
                    self._changed.wait()
                if self._closing:
                    return
                number = self._prepared_to + 1
            try:
                self._prepare(number)
            except OSError as error:
                with self._changed:
                    self._prepare_error = error
                    self._changed.notify_all()

    def _wait_prepared(self, number: int) -> None:
        if self._preparer is None:
            try:
                while self._prepared_to < number:
                    self._prepare(self._prepared_to + 1)
            except OSError as error:
                self._refuse_unprepared(error)
            return
        with self._changed:
            self._wanted_to = max(self._wanted_to, number)
            if self._prepared_to < number and self._prepare_error is not None and _is_full(self._prepare_error):
                # There may be room by now. Anything else is not tried again.
                self._prepare_error = None
            self._changed.notify_all()
            while self._prepared_to < number:
                if self._prepare_error is not None:
                    self._refuse_unprepared(self._prepare_error)
                self._changed.wait()

    def _refuse_unprepared(self, error: OSError) -> NoReturn:
        if _is_full(error):
            raise JournalFull(f"there is no room for another journal segment: {error.strerror}") from error
        self._stop(f"preparing a journal segment failed: {error}")

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._preparer is not None:
            self._preparer.join()
        for file in self._ready.values():
            file.close()
        self._ready.clear()
        if self._file is not None:
            self._file.close()
            self._file = None


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)

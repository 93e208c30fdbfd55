"""The follower: a process of its own that does all the time what recovery would do after a crash.

It tails the journal, applies every record to its own machine and compares each outcome's hash (I10), verifies the
invariants and writes the snapshots; so nothing of that stands in the way of an allocation, and a state that could not
be recovered is found while the server still has the right one.

    server ──append──▶ segment ──read──▶ follower ──▶ snapshot-….state, and segments that are no longer needed go

- It runs at low priority, gives way after each millisecond of work, and may lag: a snapshot only becomes older by that.
- It does what recovery would do, so its own processor time since the last snapshot says how long recovery would take
  for the tail behind it. When that reaches ``replay_s``, or the tail ``bytes_max``, a snapshot is due. The longest
  tail is hence one such budget and what is written while a snapshot is being made.
- A snapshot is written in pieces, each durable by itself and followed by a rest as long as the piece took, so that a
  commit of the server waits for one piece at most.
- It reads what the server has written, durable or not. A snapshot vouches for its sequence, so before one is taken the
  segment is made durable by an fdatasync of its own.
- A record that is not there yet, or half written, is looked at again; only a later segment shows that it is damaged.
- When an outcome differs, an invariant doesn't hold or the journal is damaged, it leaves a file ``follower-alarm.txt``,
  which the server shows, and exits with status 4; when the disk fails, with status 5. The file stays until a person
  removes it.
- When a snapshot has no room (what the journal needs has to stay free), it leaves the file too, but for one that says
  something else, follows on, tries again every minute, and takes the file away when it has succeeded, also one that the
  process before it left. Where not even the file has room, it says so in the log, and goes on as well.
- It ends by itself on SIGTERM, after it has read what is there, and when the process that started it is gone. One that
  is told of its server (``--parent``) leaves signals to that: a service manager and Ctrl-C signal all processes at
  once, and the server has records to write yet. It ends when its server closes its standard input.

**Readers** get each record that was applied, once, with its outcomes and the state after it; they keep what they make
of it together with the sequence that it reaches, durably. They are told to commit about once a second, before a
snapshot is written (so before any segment is removed) and at the end, and always after the records were made durable in
the journal. After a restart

    the reader has all up to     the follower starts from                             what the reader misses
    -------------------------    -------------------------------------------------    ----------------------------------
    the newest snapshot, more    the newest snapshot                                  nothing
    less                         the newest snapshot it has passed, or the journal's  nothing
                                 beginning, if every record behind that is there
    less, and records are gone   the oldest snapshot from which every record is       what is gone: it sees the jump
                                 there
    less, and what is there is   the oldest; at the record that can't be replayed it  what lies between that record and
    of another machine version   leaps to the newest snapshot                         the newest snapshot
    or damaged

A reader that can't go on (its file is damaged, its disk full) is dropped, with an alarm; the snapshots go on.
"""

from __future__ import annotations

import argparse
import errno
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from simswitch.core.commands import OutcomeRun, outcome_runs
from simswitch.core.machine import Machine
from simswitch.journal.append import Place
from simswitch.journal.disk import Disk, DiskFile, RealDisk
from simswitch.journal.errors import JournalDamaged, JournalError, MachineVersionDiffers
from simswitch.journal.format import (
    BLOCK_BYTES,
    WRITING_SUFFIX,
    SegmentHeader,
    decode_segment_header,
    record_bytes,
    segment_name,
)
from simswitch.journal.recovery import Base, MachineKind, real_machine, replay, restore_newest
from simswitch.journal.snapshot import (
    newest_snapshot_sequence,
    prune,
    refuse_renamed,
    snapshot_sequences,
    write_snapshot,
)
from simswitch.journal.walk import RESTORE, Record, RecordReader, check_record, first_sequence, list_segments

ALARM_NAME = "follower-alarm.txt"
EXIT_STOPPED = 0
EXIT_DAMAGED = 4
EXIT_DISK = 5

_WINDOW_BYTES = 256 * 1024
_RECORDS_PER_TURN = 256
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_ROOM_BEGINS = "there is no room for a snapshot"
_READER_BEGINS = "snapshots go on, but "
_DISK_BEGINS = "the disk refused the follower"
_NO_ROOM_WAIT_S = 60.0
_ALARM_AGAIN_S = 1.0
_AT_A_STRETCH_S = 0.001
_GIVE_WAY_S = 0.0001
_COMMIT_S = 1.0
_COMMIT_SHARE = 20
_FINISH_S = 10.0


class InvariantBroken(JournalError):
    """The walk over the whole state found an invariant that doesn't hold."""


class FollowerStopped(Exception):
    """It was told to stop while it took a snapshot, which was given up."""


class ReaderFailed(Exception):
    """A reader can't go on; the text says what is wrong with what it keeps, and what to do."""


class Reader(Protocol):
    """Sees every record once, in order, and keeps what it makes of them."""

    @property
    def name(self) -> str: ...

    @property
    def sequence(self) -> int:
        """The last record that is in what it keeps, durably."""

    def applied(self, record: Record, outcomes: list[OutcomeRun], machine: Machine) -> None:
        """One record, what it gave, and the state after it; all of them are valid during the call only.

        Sequences go up by one, except where records are gone for good. May raise ``ReaderFailed``.
        """

    def commit(self, sequence: int) -> None:
        """Makes durable, at once or not at all, what came of the records that it was given, of which this is the last.

        It may have been given none. May raise ``ReaderFailed``.
        """

    def close(self) -> None: ...


OpenReader = Callable[[], Reader]
"""May raise ``ReaderFailed``."""


@dataclass(frozen=True, slots=True)
class FollowerSettings:
    """A snapshot is taken when the first of ``replay_s``, ``bytes_max`` and ``interval_s`` is reached since the last
    one."""

    replay_s: float = 1.0
    """Processor time that the records behind the snapshot took."""
    bytes_max: int = 256 * 1024 * 1024
    interval_s: float = 300.0
    free_mark_bytes: int = 0
    """What a snapshot has to leave free on the disk, for the journal."""
    keep_ms: int = 0
    """``JournalSettings.keep_ms``."""
    poll_s: float = 0.02
    niceness: int = 10


def read_alarm(disk: Disk) -> str | None:
    """What a follower has found wrong, for the server to show. None: nothing."""
    if ALARM_NAME not in disk.names():
        return None
    file = disk.open(ALARM_NAME, writable=False)
    try:
        text = bytes(file.pread(65_536, 0)).decode("utf-8", "replace").strip()
        return text or f"{ALARM_NAME} is empty, since there was no room to write why; the log says it"
    finally:
        file.close()


def _is_of_room(alarm: str | None) -> bool:
    return alarm is not None and alarm.startswith(_NO_ROOM_BEGINS)


def _raise_alarm(disk: Disk, text: str) -> None:
    """Whole, or not at all: what stood there stays then."""
    temporary = f"{ALARM_NAME}{WRITING_SUFFIX}"
    file = disk.open(temporary, create=True)
    try:
        file.pwrite((text.encode() + b"\n",), 0)
        file.fdatasync()
        disk.rename(temporary, ALARM_NAME)
    except BaseException:
        disk.unlink(temporary)
        raise
    finally:
        file.close()
    disk.fsync_folder()


class Follower:
    """Follows one journal, one turn at a time. ``follow`` runs it as a process."""

    def __init__(
        self,
        disk: Disk,
        machine: MachineKind | None = None,
        settings: FollowerSettings | None = None,
        stopped: Callable[[], bool] = lambda: False,
        said: Callable[[str], object] = lambda _: None,
        readers: Sequence[OpenReader] = (),
    ) -> None:
        refuse_renamed(disk)
        self._disk = disk
        self._kind = machine or real_machine()
        self._settings = settings or FollowerSettings()
        self._stopped = stopped
        self._said = said
        self._file: DiskFile | None = None
        self._records: RecordReader | None = None
        self._reader_alarm: str | None = None
        self._no_room_s: float | None = None
        self._readers: list[Reader] = []
        for opening in readers:
            try:
                self._readers.append(opening())
            except ReaderFailed as error:
                self._drop(None, error)
        self._commit_due_s = time.monotonic() + _COMMIT_S
        self.warnings: list[str] = []
        self._damages: list[JournalDamaged] = []
        self._newest_sequence = newest_snapshot_sequence(disk)
        self._begin(self._base())
        behind = [reader for reader in self._readers if reader.sequence < self.sequence]
        self.warnings += [
            f"{reader.name} does not know the records from {reader.sequence + 1} to {self.sequence}, which can't be "
            "read again"
            for reader in behind
        ]
        # One that has come some way was not lost.
        anew = " and ".join(reader.name for reader in behind if not reader.sequence)
        if anew:
            self.warnings.append(
                f"if there was a file with {anew} before, stop the service, and put that of a backup from before it "
                "was lost in its place"
            )
        self._gave_way_s = time.monotonic()

    def _begin(self, base: Base) -> None:
        """From here on. What was found wrong is in ``warnings``."""
        header = base.header
        self.machine = base.machine
        self.warnings += [f"passed over: {damage}" for damage in base.damages]
        self._damages += base.damages
        self.snapshot_sequence = header.sequence if header is not None else 0
        self._journal_id = header.journal_id if header is not None else None
        self._chain = header.chain if header is not None else 0
        self._place: Place | None = None
        self._vouched_sequence = self.snapshot_sequence
        self.tail_s = 0.0
        """Processor time that the records behind the snapshot took."""
        self.tail_bytes = 0
        """What they take in the journal."""
        self._snapshot_s = time.monotonic()

    def _base(self) -> Base:
        """What the readers need (the table above); without any, the newest snapshot."""
        wanted = min((reader.sequence for reader in self._readers), default=self._newest_sequence)
        first = first_sequence(self._disk)
        starts = [start for start in (0, *snapshot_sequences(self._disk)) if start + 1 >= first]
        if wanted < self._newest_sequence and starts:
            base = restore_newest(
                self._disk, self._kind, at_most=max((start for start in starts if start <= wanted), default=starts[0])
            )
            if base.machine.sequence + 1 >= first:
                return base
        return restore_newest(self._disk, self._kind)

    @property
    def sequence(self) -> int:
        """The last record that was applied."""
        return self.machine.sequence

    def close(self) -> None:
        self._close_segment()
        for reader in self._readers:
            reader.close()

    def _close_segment(self) -> None:
        if self._records is not None:
            self._records.close()
            self._records = None

    def turn(self, *, snapshots: bool = True) -> bool:
        """Applies what is there, up to a bound, and takes a snapshot when one is due. False: there was nothing new."""
        try:
            return self._turn(snapshots)
        except (JournalDamaged, MachineVersionDiffers) as error:
            if self.machine.sequence >= self._newest_sequence:
                raise
            # Only the readers wanted what lies before the newest snapshot.
            self._commit_readers()
            missed = f"the records from {self.machine.sequence + 1} to {self._newest_sequence} can't be read again"
            self._said(f"{missed}, and stay unknown to history: {error}")
            base = restore_newest(self._disk, self._kind)
            if base.machine.sequence <= self.machine.sequence:
                raise  # the newest can't be read: beginning anew would end here again, for ever
            self._begin(base)
            return True

    def _turn(self, snapshots: bool) -> bool:
        if self._place is None and not self._find_place():
            return False
        applied = 0
        began_s = time.thread_time()
        while applied < _RECORDS_PER_TURN:
            record = self._next_record()
            if record is None:
                break
            self._apply(record)
            self.tail_bytes += record_bytes(record.header.payload_bytes)
            applied += 1
            if time.monotonic() - self._gave_way_s >= _AT_A_STRETCH_S:
                self._give_way()
        if applied:
            self.tail_s += time.thread_time() - began_s
        else:
            self._drop_those_ahead()
        if snapshots and self._snapshot_due():
            self.take_snapshot()
        elif time.monotonic() >= self._commit_due_s:
            self._commit_readers()
        return applied > 0

    def _apply(self, record: Record) -> None:
        outcome = replay(self.machine, record, self._kind.version)
        if not self._readers:
            return
        outcomes = outcome_runs(outcome.data)
        for reader in tuple(self._readers):
            if record.header.sequence > reader.sequence:
                try:
                    reader.applied(record, outcomes, self.machine)
                except ReaderFailed as error:
                    self._drop(reader, error)

    def _commit_readers(self) -> None:
        """What they have seen counts only when no power cut can take it out of the journal again."""
        sequence = self.machine.sequence
        began_s = time.monotonic()
        behind = [reader for reader in self._readers if reader.sequence < sequence]
        if behind:
            self._vouch()
        for reader in behind:
            try:
                reader.commit(sequence)
            except ReaderFailed as error:
                self._drop(reader, error)
        now_s = time.monotonic()
        # The longer it takes the rarer it is: many reports of one subscriber then become one row that is written.
        self._commit_due_s = now_s + max(_COMMIT_S, _COMMIT_SHARE * (now_s - began_s))

    def _drop_those_ahead(self) -> None:
        """At the journal's end: nobody can have seen more than there is, unless the journal went back."""
        for reader in tuple(self._readers):
            if reader.sequence > self.machine.sequence:
                what = f"{reader.name} knows {reader.sequence} records, and the journal ends at {self.machine.sequence}"
                self._drop(reader, ReaderFailed(f"{what}: it is of another journal. Move it away; a new one is begun"))

    def _vouch(self) -> None:
        """The last record that was applied is durable after it."""
        if self._vouched_sequence < self.machine.sequence:
            assert self._file is not None
            self._file.fdatasync()
            self._vouched_sequence = self.machine.sequence

    def _drop(self, reader: Reader | None, error: ReaderFailed) -> None:
        if reader is not None:
            self._readers.remove(reader)
            reader.close()
        self._reader_alarm = f"{_READER_BEGINS}{error}"
        self._said(self._reader_alarm)
        standing = read_alarm(self._disk)
        # What a follower before this one found wrong with journal or state weighs more, and is a person's to remove.
        if standing is None or standing.startswith((_NO_ROOM_BEGINS, _READER_BEGINS)):
            self._raise(self._reader_alarm)

    def _raise(self, text: str) -> None:
        """An alarm, where there is room for it."""
        try:
            _raise_alarm(self._disk, text)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._no_room_s = self._no_room_s or time.monotonic()
            self._said(f"there is no room for the alarm, which is: {text}")

    def finish(self, read_on: bool) -> None:
        """The end: what is there is still read (``read_on``), at most for some seconds, and the readers commit."""
        self._stopped = lambda: False
        end_s = time.monotonic() + _FINISH_S
        while read_on and time.monotonic() < end_s and self.turn(snapshots=False):
            pass
        self._commit_readers()

    def take_snapshot(self) -> None:
        """Vouches for the last record that was applied; first makes sure that it may."""
        place = self._place
        if place is None or place.sequence != self.machine.sequence + 1:
            return
        self._commit_readers()
        began_s = time.monotonic()
        assert self._journal_id is not None
        self._vouch()
        try:
            write_snapshot(
                self._disk,
                self.machine,
                self._journal_id,
                self._kind.version,
                place.previous_checksum,
                keep_free_bytes=self._settings.free_mark_bytes,
                pause=self._rest,
            )
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._no_room_s = time.monotonic()
            # Told of first: who looks for a point that is gone finds why, also when this process ends in between.
            standing = read_alarm(self._disk)
            if standing in (None, self._reader_alarm) or _is_of_room(standing):
                self._raise(f"{_NO_ROOM_BEGINS}, and the journal grows: {error.strerror}")
            # What is only kept for a restore goes first.
            prune(self._disk, self._rest, damages=self._damages)
            return
        self.snapshot_sequence = self.machine.sequence
        self.tail_s = 0.0
        self.tail_bytes = 0
        self._snapshot_s = time.monotonic()
        standing = read_alarm(self._disk)
        if _is_of_room(standing):
            self._disk.unlink(ALARM_NAME)
            standing = None
        if self._no_room_s is not None:
            self._no_room_s = None
            if standing is None and self._reader_alarm is not None:
                self._raise(self._reader_alarm)
        # Only now: the snapshot shortens the tail already, and a fault would come of a replay just as well. What the
        # older one needs stays until then.
        faults = self.machine.check(self._give_way)
        if faults:
            raise InvariantBroken(f"after sequence {self.machine.sequence}: " + "; ".join(faults[:20]))
        prune(self._disk, self._rest, self._settings.keep_ms, self._damages)
        self._said(
            f"snapshot of sequence {self.machine.sequence} written in {self._snapshot_s - began_s:.3f} s, "
            f"state checked in {time.monotonic() - self._snapshot_s:.3f} s"
        )

    def _rest(self, seconds: float) -> None:
        """After work for the disk: leaves it as long as it was held."""
        if self._stopped():
            raise FollowerStopped
        time.sleep(seconds)

    def _give_way(self) -> None:
        """After work for the processor: whoever waits for it may have it. The scheduler alone would let them wait for
        its next tick, up to 10 ms."""
        self._rest(_GIVE_WAY_S)
        self._gave_way_s = time.monotonic()

    def _snapshot_due(self) -> bool:
        settings = self._settings
        if self._no_room_s is not None and time.monotonic() - self._no_room_s < _NO_ROOM_WAIT_S:
            return False
        if self.machine.sequence < self._newest_sequence:
            # There is one behind this record already.
            return False
        return self.tail_bytes > 0 and (
            self.tail_s >= settings.replay_s
            or self.tail_bytes >= settings.bytes_max
            or time.monotonic() - self._snapshot_s >= settings.interval_s
        )

    # ------------------------------------------------------------------------------------------ the tail

    def _find_place(self) -> bool:
        """The segment that holds the record after the snapshot. False: the journal has not been begun."""
        wanted = self.machine.sequence + 1
        segments = list_segments(self._disk)
        # What stands before the snapshot's record, headers too, is recovery's to judge (@P of ``walk``).
        for segment in segments if self.snapshot_sequence else ():
            if not segment.whole:
                self._open_segment(segment.number, segment.size)
                if self._find_behind():
                    return True
        found: SegmentHeader | None = None
        for segment in segments:
            if isinstance(segment.header, SegmentHeader) and segment.header.first_sequence <= wanted:
                found = segment.header
        if found is None:
            return False
        if self._journal_id is None:
            self._journal_id = found.journal_id
        self._enter(found)
        if found.first_sequence == wanted:
            self._check_chain(found.previous_checksum)
            return True
        if not self._find_behind():
            raise JournalDamaged(
                "@H", segment_name(found.number), BLOCK_BYTES, self.machine.sequence,
                "the record that the snapshot was taken after is not in the segment", RESTORE,
            )  # fmt: skip
        return True

    def _find_behind(self) -> bool:
        """Whether the record that the snapshot was taken after, or the next, stands in the segment that is open."""
        assert self._records is not None
        assert self._journal_id is not None
        self._place = self._records.behind(BLOCK_BYTES, self.machine.sequence, self._chain, self._journal_id)
        return self._place is not None

    def _enter(self, header: SegmentHeader) -> None:
        if header.journal_id != self._journal_id:
            raise JournalDamaged(
                "@K",
                segment_name(header.number),
                0,
                header.first_sequence,
                "the segment is of another journal",
                RESTORE,
            )
        self._open_segment(header.number, header.segment_bytes)
        self._place = Place(header.number, BLOCK_BYTES, header.first_sequence, header.previous_checksum)

    def _open_segment(self, number: int, size: int) -> None:
        self._close_segment()
        self._file = self._disk.open(segment_name(number), writable=False)
        self._records = RecordReader(self._file, number, size, _WINDOW_BYTES)

    def _check_chain(self, checksum: int) -> None:
        if checksum != self._chain:
            raise JournalDamaged(
                "@J", segment_name(self._place.segment if self._place else 0), 0, self.machine.sequence,
                "the snapshot was taken after another record than the journal's", RESTORE,
            )  # fmt: skip

    def _next_record(self) -> Record | None:
        place, records = self._place, self._records
        assert place is not None
        assert records is not None
        record = records.at(place.offset)
        if isinstance(record, str):
            # The window may be older than the record, so the second look reads again. The next segment is asked for in
            # between: if it has been begun, everything that belongs here was there by then.
            following = self._begun_segment(place.segment + 1)
            records.refresh()
            record = records.at(place.offset)
            if isinstance(record, str):
                if following is None:
                    if self.machine.sequence < self._newest_sequence:
                        raise JournalDamaged(
                            "@H", segment_name(place.segment), place.offset, place.sequence,
                            f"{record}, and the sequence {self._newest_sequence} is known to have been durable",
                            RESTORE,
                        )  # fmt: skip
                    return None
                if following.first_sequence != place.sequence or following.previous_checksum != place.previous_checksum:
                    raise JournalDamaged(
                        "@G", segment_name(place.segment), place.offset, place.sequence,
                        f"{record}, and the next segment begins at sequence {following.first_sequence}", RESTORE,
                    )  # fmt: skip
                self._enter(following)
                return self._next_record()
        assert self._journal_id is not None
        check_record(record, place, self._journal_id)
        self._place = Place(
            place.segment,
            place.offset + record_bytes(record.header.payload_bytes),
            place.sequence + 1,
            record.checksum,
        )
        return record

    def _begun_segment(self, number: int) -> SegmentHeader | None:
        try:
            file = self._disk.open(segment_name(number), writable=False)
        except FileNotFoundError:
            return None
        try:
            header = decode_segment_header(file.pread(BLOCK_BYTES, 0), number, file.size())
        finally:
            file.close()
        # Zeros, or a header that is being written at this instant: it will be looked at again.
        return header if isinstance(header, SegmentHeader) else None


def follow(
    folder: str | os.PathLike[str],
    settings: FollowerSettings | None = None,
    *,
    machine: MachineKind | None = None,
    stopped: Callable[[], bool] | None = None,
    said: Callable[[str], object] | None = None,
    parent: int | None = None,
    readers: Sequence[OpenReader] = (),
    watch: Callable[[Follower], object] = lambda _: None,
) -> int:
    """Follows the journal of a data folder until it is told to stop, and returns the exit status.

    Takes over SIGTERM and SIGINT unless ``stopped`` is given, and then also stops when the present parent is no longer
    its parent. With ``parent``, a process id, that one has to be it and to stay, and tells it to stop by closing
    standard input; signals do nothing. ``watch`` is given the follower once it is there.
    """
    settings = settings or FollowerSettings()
    say = said or _say
    if stopped is None:
        stopped = _stopped_by_signal(os.getppid()) if parent is None else _stopped_by_parent(parent)
    parent = os.getppid() if parent is None else parent
    os.nice(settings.niceness)
    disk = RealDisk(folder, create=False)
    follower: Follower | None = None
    try:
        follower = Follower(disk, machine, settings, stopped, say, readers)
        watch(follower)
        for warning in follower.warnings:
            say(warning)
        try:
            while not stopped():
                if not follower.turn():
                    time.sleep(settings.poll_s)
        except FollowerStopped:
            pass
        # What its server has written last is still to be read, but not what another server writes after it.
        follower.finish(read_on=os.getppid() == parent)
    except JournalError as error:
        say(f"the follower stops: {error}")
        _leave_alarm(disk, str(error), stopped, say, settings.poll_s)
        return EXIT_DAMAGED
    except OSError as error:
        if stopped():
            # The next server may clear away already what this one was about to write.
            return EXIT_STOPPED
        # Without snapshots the journal only grows, so a disk that refuses must be seen as well.
        text = f"{_DISK_BEGINS}, and there are no more snapshots: {error}"
        say(text)
        try:
            # One of damage says more, and stays until a person removes it.
            if (read_alarm(disk) or text).startswith((_NO_ROOM_BEGINS, _READER_BEGINS, _DISK_BEGINS)):
                _raise_alarm(disk, text)
        except OSError as second:
            say(f"the alarm could not be left: {second}")
        return EXIT_DISK
    finally:
        if follower is not None:
            follower.close()
    return EXIT_STOPPED


def _leave_alarm(
    disk: Disk, text: str, stopped: Callable[[], bool], say: Callable[[str], object], poll_s: float
) -> None:
    """No other follower is started after this one: where the disk has no room for the alarm, it waits for some."""
    said = False
    while True:
        try:
            _raise_alarm(disk, text)
            return
        except OSError as error:
            if error.errno not in _NO_ROOM:
                say(f"the alarm could not be left: {error}")
                return
            if not said:
                say(f"there is no room for the alarm, which is left as soon as there is: {error}")
                said = True
        again_s = time.monotonic() + _ALARM_AGAIN_S
        while not (over := stopped()) and time.monotonic() < again_s:
            time.sleep(poll_s)
        if over:
            return


def _say(text: str) -> None:
    sys.stderr.write(f"simswitch follower: {text}\n")
    sys.stderr.flush()


def _stopped_by_parent(parent: int) -> Callable[[], bool]:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # Asked for no event it still tells of a pipe whose other end is closed, and of nothing that is not a pipe.
    closed = select.poll()
    closed.register(0, 0)
    return lambda: os.getppid() != parent or bool(closed.poll(0))


def _stopped_by_signal(parent: int) -> Callable[[], bool]:
    signals: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        signals.append(number)

    signal.signal(signal.SIGTERM, remember)
    signal.signal(signal.SIGINT, remember)
    return lambda: bool(signals) or os.getppid() != parent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = FollowerSettings()
    parser.add_argument("folder", help="the server's data folder")
    parser.add_argument("--snapshot-replay-ms", type=float, default=defaults.replay_s * 1000, metavar="MS")
    parser.add_argument("--snapshot-bytes", type=int, default=defaults.bytes_max, metavar="BYTES")
    parser.add_argument("--snapshot-seconds", type=float, default=defaults.interval_s, metavar="SECONDS")
    parser.add_argument("--free-mark-bytes", type=int, default=defaults.free_mark_bytes, metavar="BYTES")
    parser.add_argument("--keep-ms", type=int, default=defaults.keep_ms, metavar="MS")
    parser.add_argument("--poll-ms", type=float, default=defaults.poll_s * 1000, metavar="MS")
    # The server names itself: it may be killed before this process first asks who its parent is.
    told = "stop when this is not the parent, or closes standard input, and not on a signal"
    parser.add_argument("--parent", type=int, default=None, metavar="PID", help=told)


def run(
    parsed: argparse.Namespace, readers: Sequence[OpenReader] = (), watch: Callable[[Follower], object] = lambda _: None
) -> int:
    """``follow`` with the words of the command line."""
    settings = FollowerSettings(
        replay_s=parsed.snapshot_replay_ms / 1000,
        bytes_max=parsed.snapshot_bytes,
        interval_s=parsed.snapshot_seconds,
        free_mark_bytes=parsed.free_mark_bytes,
        keep_ms=parsed.keep_ms,
        poll_s=parsed.poll_ms / 1000,
    )
    return follow(parsed.folder, settings, parent=parsed.parent, readers=readers, watch=watch)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="simswitch-follower", description="Follows a journal and writes its snapshots."
    )
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

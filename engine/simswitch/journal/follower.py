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
  segment is made durable by an fdatasync of its own, unless a later record, which the server writes only then, has been
  seen.
- A record that is not there yet, or half written, is looked at again; only a later segment shows that it is damaged.
- When an outcome differs, an invariant doesn't hold or the journal is damaged, it leaves a file ``follower-alarm.txt``,
  which the server shows, and exits with status 4; when the disk fails, with status 5. The file stays until a person
  removes it.
- When a snapshot has no room (what the journal needs has to stay free), it leaves the file too, follows on, tries again
  every minute, and takes the file away when it has succeeded.
- It ends by itself on SIGTERM, and when the process that started it is gone.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from simswitch.journal.append import Place
from simswitch.journal.disk import Disk, DiskFile, RealDisk
from simswitch.journal.errors import JournalDamaged, JournalError
from simswitch.journal.format import BLOCK_BYTES, SegmentHeader, decode_segment_header, record_bytes, segment_name
from simswitch.journal.recovery import MachineKind, real_machine, replay, restore_newest
from simswitch.journal.snapshot import prune, write_snapshot
from simswitch.journal.walk import RESTORE, Record, RecordReader, check_record, list_segments

ALARM_NAME = "follower-alarm.txt"
EXIT_STOPPED = 0
EXIT_DAMAGED = 4
EXIT_DISK = 5

_WINDOW_BYTES = 256 * 1024
_RECORDS_PER_TURN = 256
_NO_ROOM_WAIT_S = 60.0
_AT_A_STRETCH_S = 0.001
_GIVE_WAY_S = 0.0001


class InvariantBroken(JournalError):
    """The walk over the whole state found an invariant that doesn't hold."""


class FollowerStopped(Exception):
    """It was told to stop while it took a snapshot, which was given up."""


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
    poll_s: float = 0.02
    niceness: int = 10


def read_alarm(disk: Disk) -> str | None:
    """What a follower has found wrong, for the server to show. None: nothing."""
    if ALARM_NAME not in disk.names():
        return None
    file = disk.open(ALARM_NAME, writable=False)
    try:
        return bytes(file.pread(65_536, 0)).decode("utf-8", "replace").strip()
    finally:
        file.close()


def _raise_alarm(disk: Disk, text: str) -> None:
    file = disk.open(ALARM_NAME, create=True)
    try:
        file.pwrite((text.encode() + b"\n",), 0)
        file.fdatasync()
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
    ) -> None:
        self._disk = disk
        self._kind = machine or real_machine()
        self._settings = settings or FollowerSettings()
        self._stopped = stopped
        self._said = said
        self._file: DiskFile | None = None
        self._reader: RecordReader | None = None
        self._segment_bytes = 0
        base = restore_newest(disk, self._kind)
        self.machine = base.machine
        self.warnings = base.warnings
        self.snapshot_sequence = base.header.sequence if base.header is not None else 0
        self._journal_id = base.header.journal_id if base.header is not None else None
        self._chain = base.header.chain if base.header is not None else 0
        self._place: Place | None = None
        self._vouched_sequence = self.snapshot_sequence
        self.tail_s = 0.0
        """Processor time that the records behind the snapshot took."""
        self.tail_bytes = 0
        """What they take in the journal."""
        self._snapshot_s = time.monotonic()
        self._no_room_s: float | None = None
        self._gave_way_s = time.monotonic()

    @property
    def sequence(self) -> int:
        """The last record that was applied."""
        return self.machine.sequence

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def turn(self) -> bool:
        """Applies what is there, up to a bound, and takes a snapshot when one is due. False: there was nothing new."""
        if self._place is None and not self._find_place():
            return False
        applied = 0
        began_s = time.thread_time()
        while applied < _RECORDS_PER_TURN:
            record = self._next_record()
            if record is None:
                break
            if record.header.sequence > self.machine.sequence:
                replay(self.machine, record, self._kind.version)
                self.tail_bytes += record_bytes(record.header.payload_bytes)
            applied += 1
            if time.monotonic() - self._gave_way_s >= _AT_A_STRETCH_S:
                self._give_way()
        if applied:
            self.tail_s += time.thread_time() - began_s
        if self._snapshot_due():
            self.take_snapshot()
        return applied > 0

    def take_snapshot(self) -> None:
        """Vouches for the last record that was applied; first makes sure that it may."""
        place = self._place
        if place is None or place.sequence != self.machine.sequence + 1:
            return
        began_s = time.monotonic()
        assert self._journal_id is not None
        assert self._file is not None
        if self._vouched_sequence < self.machine.sequence:
            self._file.fdatasync()
            self._vouched_sequence = self.machine.sequence
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
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._no_room_s = time.monotonic()
            _raise_alarm(self._disk, f"there is no room for a snapshot, and the journal grows: {error.strerror}")
            return
        self.snapshot_sequence = self.machine.sequence
        self.tail_s = 0.0
        self.tail_bytes = 0
        self._snapshot_s = time.monotonic()
        if self._no_room_s is not None:
            self._no_room_s = None
            self._disk.unlink(ALARM_NAME)
        # Only now: the snapshot shortens the tail already, and a fault would come of a replay just as well. What the
        # older one needs stays until then.
        faults = self.machine.check(self._give_way)
        if faults:
            raise InvariantBroken(f"after sequence {self.machine.sequence}: " + "; ".join(faults[:20]))
        prune(self._disk, self._rest)
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
        return self.tail_bytes > 0 and (
            self.tail_s >= settings.replay_s
            or self.tail_bytes >= settings.bytes_max
            or time.monotonic() - self._snapshot_s >= settings.interval_s
        )

    # ------------------------------------------------------------------------------------------ the tail

    def _find_place(self) -> bool:
        """The segment that holds the record after the snapshot. False: the journal has not been begun."""
        wanted = self.machine.sequence + 1
        found: SegmentHeader | None = None
        for segment in list_segments(self._disk):
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
        self.close()
        self._file = self._disk.open(segment_name(header.number), writable=False)
        self._reader = RecordReader(self._file, header.number, header.segment_bytes, _WINDOW_BYTES)
        self._segment_bytes = header.segment_bytes
        self._place = Place(header.number, BLOCK_BYTES, header.first_sequence, header.previous_checksum)

    def _check_chain(self, checksum: int) -> None:
        if checksum != self._chain:
            raise JournalDamaged(
                "@J", segment_name(self._place.segment if self._place else 0), 0, self.machine.sequence,
                "the snapshot was taken after another record than the journal's", RESTORE,
            )  # fmt: skip

    def _next_record(self) -> Record | None:
        place, reader = self._place, self._reader
        assert place is not None
        assert reader is not None
        record = reader.at(place.offset)
        if isinstance(record, str):
            # The window may be older than the record, so the second look reads again. The next segment is asked for in
            # between: if it has been begun, everything that belongs here was there by then.
            following = self._begun_segment(place.segment + 1)
            reader.refresh()
            record = reader.at(place.offset)
            if isinstance(record, str):
                if following is None:
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
        self._vouched_sequence = max(self._vouched_sequence, record.header.durable_sequence)
        if record.header.sequence == self.snapshot_sequence and record.header.sequence == self.machine.sequence:
            self._check_chain(record.checksum)
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
) -> int:
    """Follows the journal of a data folder until it is told to stop, and returns the exit status.

    Takes over SIGTERM and SIGINT unless ``stopped`` is given, and then also stops when ``parent`` (a process id; by
    default the present parent's) is no longer its parent.
    """
    settings = settings or FollowerSettings()
    say = said or _say
    if stopped is None:
        stopped = _stopped_by_signal_or_parent(os.getppid() if parent is None else parent)
    os.nice(settings.niceness)
    disk = RealDisk(folder, create=False)
    follower: Follower | None = None
    try:
        follower = Follower(disk, machine, settings, stopped, say)
        for warning in follower.warnings:
            say(warning)
        while not stopped():
            if not follower.turn():
                time.sleep(settings.poll_s)
    except FollowerStopped:
        return EXIT_STOPPED
    except JournalError as error:
        _raise_alarm(disk, str(error))
        say(f"the follower stops: {error}")
        return EXIT_DAMAGED
    except OSError as error:
        if stopped():
            # The next server may clear away already what this one was about to write.
            return EXIT_STOPPED
        # Without snapshots the journal only grows, so a disk that refuses must be seen as well.
        text = f"the disk refused the follower, and there are no more snapshots: {error}"
        say(text)
        try:
            _raise_alarm(disk, text)
        except OSError as second:
            say(f"the alarm could not be left: {second}")
        return EXIT_DISK
    finally:
        if follower is not None:
            follower.close()
    return EXIT_STOPPED


def _say(text: str) -> None:
    sys.stderr.write(f"simswitch follower: {text}\n")
    sys.stderr.flush()


def _stopped_by_signal_or_parent(parent: int) -> Callable[[], bool]:
    signals: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        signals.append(number)

    signal.signal(signal.SIGTERM, remember)
    signal.signal(signal.SIGINT, remember)
    return lambda: bool(signals) or os.getppid() != parent


def main(arguments: Sequence[str] | None = None) -> int:
    defaults = FollowerSettings()
    parser = argparse.ArgumentParser(
        prog="simswitch-follower", description="Follows a journal and writes its snapshots."
    )
    parser.add_argument("folder", help="the server's data folder")
    parser.add_argument("--snapshot-replay-ms", type=float, default=defaults.replay_s * 1000, metavar="MS")
    parser.add_argument("--snapshot-bytes", type=int, default=defaults.bytes_max, metavar="BYTES")
    parser.add_argument("--snapshot-seconds", type=float, default=defaults.interval_s, metavar="SECONDS")
    parser.add_argument("--free-mark-bytes", type=int, default=defaults.free_mark_bytes, metavar="BYTES")
    parser.add_argument("--poll-ms", type=float, default=defaults.poll_s * 1000, metavar="MS")
    # The server names itself: it may be killed before this process first asks who its parent is.
    parser.add_argument("--parent", type=int, default=None, metavar="PID", help="stop when this is not the parent")
    parsed = parser.parse_args(arguments)
    settings = FollowerSettings(
        replay_s=parsed.snapshot_replay_ms / 1000,
        bytes_max=parsed.snapshot_bytes,
        interval_s=parsed.snapshot_seconds,
        free_mark_bytes=parsed.free_mark_bytes,
        poll_s=parsed.poll_ms / 1000,
    )
    return follow(parsed.folder, settings, parent=parsed.parent)


if __name__ == "__main__":
    sys.exit(main())

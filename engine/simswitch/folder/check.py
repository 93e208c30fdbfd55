"""Whether everything in a data folder is sound. Reads only, and works while a server runs on it.

    snapshots   each is read whole; its regions have their hashes, and these give its state hash
    journal     every record by checksum, chain and place (the table of ``journal.walk``), and replayed from the oldest
                snapshot on, or from the beginning: each gives the outcomes that were recorded (I10), and at a snapshot
                the state is that snapshot's
                a record that is damaged before a sound snapshot is told, and the journal is read on behind it
    state       the walk over the invariants at the end
    history     SQLite's own check, and its position: a record of this journal, by its checksum; but for decisions, the
                values in its tables have no checksum. Where it was kept and is gone, whether the journal has all of it
    audit log   each chained file, and the chain of decisions in history
    backup      of one, whether it was finished, and has all that it was made of
    alarm       what a follower left

A server that runs goes on writing: what is judged is what was there when the reader came by. A record that it was
writing at that instant is read again, and when its follower has removed what was needed, all of it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from simswitch.audit.chain import ChainDamaged
from simswitch.audit.decisions import walk
from simswitch.audit.verify import FILES, Walked, set_aside_in, verify_folder
from simswitch.core import layout
from simswitch.folder.apart import Note, Refused, apart
from simswitch.folder.manifest import MANIFEST, UNFINISHED, history_promised, promised
from simswitch.history.schema import LOCK_NAME as HISTORY_LOCK
from simswitch.history.schema import NAME as HISTORY
from simswitch.history.schema import HistoryRefused, NoHistoryYet, damaged, open_kept, unsigned, was_kept
from simswitch.journal.disk import RealDisk
from simswitch.journal.errors import JournalDamaged, JournalError, JournalShort, SnapshotRenamed
from simswitch.journal.follower import ALARM_NAME, read_alarm
from simswitch.journal.format import SegmentHeader, segment_name
from simswitch.journal.recovery import MachineKind, real_machine, replay, restore_newest
from simswitch.journal.snapshot import (
    SnapshotHeader,
    check_regions,
    newest_snapshot_sequence,
    read_snapshot_header,
    snapshot_name,
    snapshot_sequences,
    unreadable_snapshot,
)
from simswitch.journal.walk import Record, Walk, first_sequence, list_segments, passed_over

TRIES_MAX = 10
BACKUP = "backup"


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that was looked at."""

    part: str
    file: str
    sound: bool
    text: str
    needed: bool = True
    """False: a snapshot holds what it did, or it is a list beside; a server starts without it, and a copy counts."""


@dataclass(slots=True)
class Checked:
    folder: str
    server: int | None
    """The process that runs on it; None: nobody does."""
    parts: list[Part] = field(default_factory=list)
    last_sequence: int = 0
    now_ms: int = 0
    """The instant of the last record."""
    state_hash: str = ""

    @property
    def sound(self) -> bool:
        return all(part.sound for part in self.parts)

    @property
    def whole(self) -> bool:
        """A server starts on it, or on a copy of it, and nothing is missing."""
        return all(part.sound or not part.needed for part in self.parts)

    def plain(self) -> dict[str, Any]:
        return {"sound": self.sound, **asdict(self)}


def check_folder(folder: str | os.PathLike[str], kind: MachineKind | None = None) -> Checked:
    """Raises ``Refused`` when the replay of a record ends the process that does it."""
    return apart(_checked, os.fspath(folder), kind or real_machine())


def _checked(note: Note, folder: str, kind: MachineKind) -> Checked:
    disk = RealDisk(folder, create=False)
    for _ in range(TRIES_MAX):
        before = set(disk.names())
        found = _check(disk, kind, note)
        if found.sound or found.server is None or not was_removed(disk, before):
            break
    return found


def was_removed(disk: RealDisk, before: set[str]) -> bool:
    """Whether the follower of a running server has removed what newer snapshots replace: then it is looked at anew."""
    return any(name.endswith((".journal", ".state")) for name in before - set(disk.names()))


def _check(disk: RealDisk, kind: MachineKind, note: Note) -> Checked:
    folder = Path(disk.folder)
    checked = Checked(os.fspath(folder), disk.locked_by())
    position = _check_history(disk, checked)
    headers: dict[int, SnapshotHeader] = {}
    try:
        for header in sound_snapshots(disk, checked.parts):
            headers[header.sequence] = header
            checked.parts.append(_judge_snapshot(header, kind))
        _check_journal(disk, kind, headers, position, checked, note)
    except SnapshotRenamed as error:
        text = f"{error}. Then check again: without its state the journal can't be judged"
        checked.parts.append(Part("snapshot", error.file, False, text))
    _check_audit(folder, checked)
    _check_backup(folder, checked)
    alarm = read_alarm(disk)
    if alarm is not None:
        text = f"a follower left it: {alarm}. Remove the file when the cause is mended"
        checked.parts.append(Part("alarm", ALARM_NAME, False, text))
    return checked


def _judge_snapshot(header: SnapshotHeader, kind: MachineKind) -> Part:
    known = header.machine_version <= kind.version
    text = f"machine version {header.machine_version}"
    if known:
        text += f", state hash {header.state_hash:016x}"
    else:
        text += f", newer than this program, which has {kind.version} and does not start on it. Use the newer one"
    return Part("snapshot", snapshot_name(header.sequence), known, text)


def sound_snapshots(disk: RealDisk, faults: list[Part] | None = None) -> Iterator[SnapshotHeader]:
    """The headers of those that are whole, oldest first, each after it was read. The others go to ``faults``.

    Raises ``SnapshotRenamed``.
    """
    for sequence in snapshot_sequences(disk):
        name = snapshot_name(sequence)
        try:
            file = disk.open(name, writable=False)
        except FileNotFoundError:
            continue  # the follower has removed it meanwhile
        try:
            header = read_snapshot_header(file, name)
            check_regions(file, name, header)
            if header.sequence != sequence:
                raise SnapshotRenamed(name, snapshot_name(header.sequence))
            yield header
        except (JournalDamaged, OSError) as error:
            if isinstance(error, OSError):
                error = unreadable_snapshot(name, sequence, error)
            if faults is not None:
                faults.append(Part("snapshot", name, False, str(error)))
        finally:
            file.close()


@dataclass(frozen=True, slots=True)
class _Position:
    """How far history is: the record and its checksum."""

    sequence: int
    checksum: int
    journal_id: bytes
    first: int
    """The record that it begins with."""
    gaps: int
    lacking: int
    """Records, in those gaps behind the first."""


def lost_history(disk: RealDisk) -> str | None:
    """What is wrong with a folder without a history. None: it kept none, or still has every record for another."""
    folder = Path(disk.folder)
    if not was_kept(folder):
        return None
    first = first_sequence(disk)
    if first > 1:
        gone = f"what happened before record {first} stands nowhere else"
    elif not replayable(disk, 0, newest_snapshot_sequence(disk), {}, int(layout.MACHINE_VERSION)):
        gone = (
            "the journal can't be replayed from its beginning, so what happened before a snapshot stands nowhere else"
        )
    else:
        return None
    left = [name for name in (HISTORY, HISTORY_LOCK) if (folder / name).exists()]
    return (
        f"history was kept and {'is empty' if HISTORY in left else 'is missing'}: {gone}. Put the file of a backup "
        "from before the loss in its place, with no -wal and -shm beside it; without a backup a start begins another. "
        f"Where none is to be kept any more, remove {' and '.join(left)}"
    )


def _check_history(disk: RealDisk, checked: Checked) -> _Position | None:
    """Before the journal, so that its position can't be ahead of what is read of that."""
    folder = Path(disk.folder)
    try:
        with closing(open_kept(folder, writes_nothing=True)) as connection:
            faults = [row[0] for row in connection.execute("PRAGMA integrity_check(20)")]
            walked = walk(connection, {}) if faults == ["ok"] else None
            row = connection.execute(
                "SELECT sequence, checksum, journal_id, "
                "coalesce((SELECT last_sequence FROM gaps WHERE first_sequence = 1), 0) + 1, "
                "(SELECT count(*) FROM gaps WHERE first_sequence > 1), "
                "(SELECT coalesce(sum(last_sequence - first_sequence + 1), 0) FROM gaps WHERE first_sequence > 1) "
                "FROM positions WHERE reader = 'history'"
            ).fetchone()
    except ChainDamaged as error:
        checked.parts.append(_touched(error))
        return None
    except NoHistoryYet:
        lost = lost_history(disk)
        checked.parts.append(Part("history", HISTORY, lost is None, lost or "there is none yet"))
        return None
    except (HistoryRefused, sqlite3.Error) as error:
        refused = error if isinstance(error, HistoryRefused) else damaged(folder / HISTORY, error)
        checked.parts.append(Part("history", HISTORY, False, str(refused)))
        return None
    if faults != ["ok"]:
        text = f"SQLite finds it damaged: {'; '.join(faults)}. Stop the service, move it away, and start again"
        checked.parts.append(Part("history", HISTORY, False, text))
        return None
    if walked is not None:
        checked.parts.append(_sound(walked))
    return _Position(row[0], unsigned(row[1]), *row[2:]) if row else None


def _check_journal(
    disk: RealDisk,
    kind: MachineKind,
    headers: dict[int, SnapshotHeader],
    position: _Position | None,
    checked: Checked,
    note: Note,
) -> None:
    begun = [segment.header for segment in list_segments(disk) if isinstance(segment.header, SegmentHeader)]
    first = first_sequence(disk)
    start = min((start for start in (0, *headers) if start + 1 >= first), default=0)
    base = restore_newest(disk, kind, at_most=start)
    machine = base.machine
    replayed = unplayed = 0
    last = machine.sequence
    ends = "without a record"
    checksum = None
    damages: list[JournalDamaged] = []
    try:
        for record in records(disk, first, headers, checked.server is not None, damages):
            header = record.header
            if header.sequence > last + 1 and header.sequence - 1 in headers:
                # What stood between is damaged.
                machine = restore_newest(disk, kind, at_most=header.sequence - 1).machine
            last = header.sequence
            ends = f"{segment_name(record.segment)}, byte {record.offset}"
            if position is not None and header.sequence == position.sequence:
                checksum = record.checksum
            if header.sequence <= machine.sequence:
                pass
            elif header.machine_version != kind.version or header.sequence != machine.sequence + 1:
                unplayed += 1
            else:
                note(header.sequence)
                replay(machine, record, kind.version)
                replayed += 1
            snapshot = headers.get(header.sequence)
            if snapshot is None:
                continue
            if machine.sequence < header.sequence:
                # What another machine version wrote is replayed by nobody; its snapshot is read.
                machine = restore_newest(disk, kind, at_most=header.sequence).machine
            elif snapshot.machine_version == kind.version and machine.state_hash() != snapshot.state_hash:
                text = f"the journal gives another state at its sequence: {machine.state_hash():016x} (I10). Keep both"
                checked.parts.append(Part("snapshot", snapshot_name(header.sequence), False, text))
    except (JournalError, FileNotFoundError) as error:
        checked.parts.append(Part("journal", "", False, str(error)))
        checked.parts += [Part("journal", damage.file, False, str(damage), needed=False) for damage in damages]
        return
    finally:
        note(0)
    checked.parts += [Part("journal", damage.file, False, str(damage), needed=False) for damage in damages]
    checked.last_sequence, checked.now_ms = machine.sequence, machine.now_ms
    if machine.sequence != last:
        text = f"it reaches record {last}, and what there is can be replayed up to {machine.sequence} only"
        checked.parts.append(Part("journal", "", False, f"{text}: a snapshot is missing or damaged. Use a backup"))
    checked.state_hash = f"{machine.state_hash():016x}"
    text = f"records {first} to {machine.sequence}, the last in {ends}; {replayed} replayed with the outcomes recorded"
    text += f", {unplayed} of another machine version by checksum only" if unplayed else ""
    checked.parts.append(Part("journal", "", True, text))
    faults = machine.check()
    text = f"state hash {checked.state_hash} at sequence {machine.sequence}, every invariant holds"
    if faults:
        text = f"at sequence {machine.sequence}: {'; '.join(faults)}. Keep the folder, and tell who maintains simswitch"
    checked.parts.append(Part("state", "", not faults, text))
    if position is not None:
        _judge_position(position, begun, checksum, checked)


def records(
    disk: RealDisk,
    first: int,
    headers: Mapping[int, SnapshotHeader],
    live: bool,
    damages: list[JournalDamaged] | None = None,
) -> Iterator[Record]:
    """All of them from ``first`` on. What a running server was writing is looked at a second time.

    With ``damages``, where a sound snapshot stands behind what is damaged, they go on behind that: what was wrong is
    added there.
    """
    vouched = max(headers, default=0)
    newest = headers.get(vouched)
    following, failed_at = first, 0
    chain = headers[first - 1].chain if first - 1 in headers else None
    while True:
        walk = Walk(
            disk,
            first_sequence=following,
            durable_sequence=vouched,
            journal_id=None if newest is None else newest.journal_id,
            chain=chain,
        )
        try:
            for record in walk:
                yield record
                following, chain = record.header.sequence + 1, None
        except JournalDamaged as error:
            if live and failed_at != following:
                failed_at = following
                continue
            behind = min((sequence for sequence in headers if sequence >= max(error.sequence, following)), default=None)
            if damages is None or behind is None:
                raise
            damages.append(passed_over(error, behind))
            following, chain = behind + 1, headers[behind].chain
        else:
            if damages is not None:
                # What it passed over by itself, on its way to the first.
                places = {(damage.file, damage.offset) for damage in damages}
                damages += [damage for damage in walk.damages if (damage.file, damage.offset) not in places]
            return


def replayable(disk: RealDisk, base: int, last: int, headers: Mapping[int, SnapshotHeader], version: int) -> bool:
    """Whether all records from one snapshot, or the beginning, to another are whole, and of this machine version."""
    try:
        for record in records(disk, base + 1, headers, False):
            if record.header.sequence > last:
                break
            if record.header.machine_version != version:
                return False
    except (JournalDamaged, FileNotFoundError):
        return False
    return True


def _judge_position(position: _Position, begun: list[SegmentHeader], checksum: int | None, checked: Checked) -> None:
    last = checked.last_sequence
    text = ""
    anew = "Stop the service, move it away, and start again: a new one is begun"
    if begun and position.journal_id != begun[-1].journal_id:
        text = f"it is of another journal. {anew}"
    elif position.sequence > last:
        # Not the history is at fault, and it is all that tells what was lost.
        text = str(JournalShort(position.sequence, last))
    elif checksum is not None and checksum != position.checksum:
        text = f"record {position.sequence} is another one in the journal than it knows. {anew}"
    if text:
        checked.parts.append(Part("history", HISTORY, False, text))
    else:
        text = f"at record {position.sequence}, {last - position.sequence} behind the journal"
        text += f", and begins with record {position.first}" if position.first > 1 else ""
        text += (
            f", and lacks {position.lacking} {'record' if position.lacking == 1 else 'records'} in {position.gaps} "
            f"{'gap' if position.gaps == 1 else 'gaps'}"
            if position.gaps
            else ""
        )
        text += "; structure and decisions verified, values of other tables have no checksum"
        checked.parts.append(Part("history", HISTORY, True, text))


def _check_audit(folder: Path, checked: Checked) -> None:
    for name in FILES:
        try:
            checked.parts += [_sound(walked) for walked in verify_folder(folder, files=(name,))]
        except ChainDamaged as error:
            checked.parts.append(replace(_touched(error), file=name, needed=False))
    for file in set_aside_in(folder):
        text = "it was found damaged, and another was begun. Look at it, and then move it away"
        checked.parts.append(Part("audit log", file, False, text, needed=False))


def _check_backup(folder: Path, checked: Checked) -> None:
    if (folder / UNFINISHED).exists():
        checked.parts.append(Part(BACKUP, UNFINISHED, False, "it was never finished. Take another one"))
        return
    try:
        made = promised(folder)
    except Refused as error:
        checked.parts.append(Part(BACKUP, MANIFEST, False, str(error)))
        return
    if not made or not checked.state_hash:
        return
    text = f"made up to record {made}"
    sound = checked.last_sequence >= made
    if not sound:
        text += f", and what is there ends at {checked.last_sequence}: files are missing or were cut. Copy it again"
    elif history_promised(folder) and not _has_history(folder):
        sound = False
        text += f", with {HISTORY}, which is missing or empty. Copy it again"
    checked.parts.append(Part(BACKUP, MANIFEST, sound, text))


def _has_history(folder: Path) -> bool:
    """Also one that is damaged, which is told by itself."""
    try:
        open_kept(folder, writes_nothing=True).close()
    except NoHistoryYet:
        return False
    except HistoryRefused:
        pass
    return True


def _sound(walked: Walked) -> Part:
    text = f"entries {walked.first} to {walked.last}, the last hash {walked.hash}"
    return Part("audit log", walked.name, True, text)


def _touched(error: ChainDamaged) -> Part:
    return Part("audit log", "", False, f"{error}. Compare with the hashes that were kept elsewhere")

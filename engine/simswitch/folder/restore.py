"""A data folder out of a backup, up to a record or an instant, perhaps without a record that can't be replayed.

    newest snapshot that lies before ──replay──▶ state at the point ──▶ new incarnation ──▶ snapshot, a new journal

What came after that point was handed out all the same: epochs, order numbers, sessions, events. So was what came of
another restore, of this backup or of an older or newer one. The incarnation fences all of them by one instant, and
sessions by a number that is drawn: none of the new folder's was ever given before (``Machine.raise_incarnation``). The
new journal has an id of its own, and goes on behind the last record's checksum. History goes on where it may: when it
is of this journal, and knows nothing beyond the point and no record that is left out, it is brought up to it; otherwise
it stays beside as ``history-before-restore.sqlite``, and a new one begins with the snapshot. So it does where there was
none, which is told.

What is said to have been there is there, or nothing is restored: a source that ends before the record up to which
its ``backup.json``, or its history, was made is short of files, and so is a backup whose history is gone. ``until``
takes what there is.

``skip`` leaves records out whose replay ends the process or gives other outcomes. In the place of each stands an empty
batch at the instant of the one before. Later records are applied as they were given, and how many of them now have
other outcomes is counted, told, and written into ``audit/restores.log`` with who did it and why.

The folder has its name only when all of it is durable. When root restores, it belongs to whom the empty folder in its
place belonged, otherwise to whom the folder did that the backup was made of, or the source does where nothing says so.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simswitch.access.tokens import FILE as TOKENS
from simswitch.access.tokens import read_tokens
from simswitch.audit.chain import Chain, ChainDamaged, set_aside
from simswitch.audit.verify import FILES, RESTORES, verify_folder
from simswitch.core import commands, layout
from simswitch.core.commands import outcome_runs
from simswitch.core.machine import MalformedBatch
from simswitch.folder.apart import Note, Refused, apart
from simswitch.folder.backup import copy_chains, copy_history, sync
from simswitch.folder.check import records, replayable, sound_snapshots
from simswitch.folder.manifest import UNFINISHED, history_promised, owner_of, promised
from simswitch.following import readers_of
from simswitch.history.schema import NAME as HISTORY
from simswitch.history.schema import HistoryRefused, NoHistoryYet, damaged, open_kept, open_reader, unsigned
from simswitch.journal.append import START, Journal, JournalSettings, Place
from simswitch.journal.disk import LOCK_NAME, RealDisk, make_own_folder, sync_folder
from simswitch.journal.errors import FolderInUse, JournalDamaged, MachineVersionDiffers
from simswitch.journal.follower import Reader, ReaderFailed
from simswitch.journal.format import SegmentHeader
from simswitch.journal.recovery import MachineKind, real_machine, restore_newest
from simswitch.journal.snapshot import SnapshotHeader
from simswitch.journal.walk import Record, first_record, first_sequence, list_segments
from simswitch.owner import name, refuse_ways_of_others, who_types

BEFORE = "history-before-restore.sqlite"
ANEW = "begun"
"""There was none, and one begins behind the snapshot that was read."""
REASON_CHARACTERS_MAX = 1_000
SKIPPED_MAX = 1_000
"""Beside a reason and a source as long as they may be, a line of ``audit/restores.log`` has room for that many."""
_FAR = 1 << 63


@dataclass(frozen=True, slots=True)
class Wanted:
    """How far, and what is left out."""

    until_sequence: int = _FAR
    until_ms: int = _FAR
    skip: tuple[int, ...] = ()
    reason: str = ""


def restore(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    wanted: Wanted | None = None,
    *,
    kind: MachineKind | None = None,
    segment_bytes: int | None = None,
) -> dict[str, Any]:
    """What was restored. Raises ``Refused``, and then there is no new folder."""
    origin, goal = Path(source), Path(folder).resolve()
    wanted = wanted or Wanted()
    if wanted.skip and not wanted.reason.strip():
        raise Refused("a record is left out only for a reason, which is kept: --reason")
    if len(wanted.reason) > REASON_CHARACTERS_MAX:
        raise Refused(f"a reason has at most {REASON_CHARACTERS_MAX:,} characters; name where the rest stands")
    if len(wanted.skip) > SKIPPED_MAX:
        raise Refused(
            f"{len(wanted.skip):,} records are too many to leave out, at most {SKIPPED_MAX:,} are: restore up to the "
            "record before the first of them, with --until"
        )
    if goal.is_mount():
        owner = goal.stat().st_uid
        who = f", as {name(owner)}, whose it is" if owner and not os.geteuid() else ""
        raise Refused(f"{goal} is a mount point, whose place no folder can take: restore into a folder in it{who}")
    if goal.exists() and (not goal.is_dir() or any(goal.iterdir())):
        raise Refused(
            f"{goal} is there already and not empty: restore into a new folder, and then point the server at it"
        )
    if (origin / UNFINISHED).exists():
        raise Refused(f"{origin} is a backup that was never finished: take another one")
    holder = RealDisk(origin, create=False).locked_by()
    if holder is not None:
        raise Refused(f"{origin} is in use by process {holder}: make a backup of it, or stop that process first")
    settings = JournalSettings(free_mark_bytes=0, prepare_ahead=False)
    if segment_bytes is not None:
        settings = JournalSettings(segment_bytes, free_mark_bytes=0, prepare_ahead=False)
    making = goal.with_name(goal.name + ".restoring")
    whose = goal.stat() if goal.exists() else owner_of(origin) or origin.stat()
    try:
        refuse_ways_of_others(Path(folder))
        make_own_folder(making)
    except OSError as error:
        raise Refused(f"{goal} could not be made: {error}") from error
    try:
        disk = RealDisk(making)
        held = disk.lock()
    except FolderInUse as error:
        raise Refused(f"process {disk.locked_by()} restores into {goal} just now: wait until it has ended") from error
    except OSError as error:
        with suppress(OSError):
            making.rmdir()
        raise Refused(f"{goal} could not be made: {error}") from error
    try:
        _clear(making)
        found = apart(_restore, origin, making, wanted, kind or real_machine(), settings)
        sync(making, whose)
        making.replace(goal)
        sync_folder(os.fspath(goal.parent))
    except BaseException as error:
        shutil.rmtree(making, ignore_errors=True)
        if isinstance(error, OSError):
            raise Refused(f"{goal} could not be made: {error}") from error
        raise
    finally:
        held.release()
    return found | {"owner": name(goal.stat().st_uid)}


def _clear(making: Path) -> None:
    """What an attempt that was killed has left, but for the lock."""
    for path in making.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK_NAME:
            path.unlink()


def _restore(
    note: Note, origin: Path, making: Path, wanted: Wanted, kind: MachineKind, settings: JournalSettings
) -> dict[str, Any]:
    disk = RealDisk(origin, create=False)
    headers = {header.sequence: header for header in sound_snapshots(disk)}
    segments = list_segments(disk)
    if not any(segment.header or first_record(disk, segment) for segment in segments):
        raise Refused(f"{origin} holds no journal: nothing can be restored from it")
    begun = [segment.header for segment in segments if isinstance(segment.header, SegmentHeader)]
    journal_ids = [header.journal_id for header in begun] + [header.journal_id for header in headers.values()]
    first = first_sequence(disk)
    known = _known(origin)
    limit = min(wanted.until_sequence, *(sequence - 1 for sequence in wanted.skip), _FAR)
    starts = [
        sequence
        for sequence in (0, *headers)
        if sequence + 1 >= first and sequence <= limit and (not sequence or headers[sequence].now_ms <= wanted.until_ms)
    ]
    if not starts:
        oldest = min(headers, default=0)
        raise Refused(
            f"{origin} reaches back to record {oldest}, and the point that is wanted lies before: use an older backup"
        )
    damages: list[JournalDamaged] = []
    walked = _walk(disk, max(starts), headers, wanted, damages)
    last_before = walked.last
    journal_id = begun[-1].journal_id if begun else headers[max(headers)].journal_id
    ours = known is not None and known.journal_ids <= {journal_id}
    _refuse_short(origin, wanted, walked, max(promised(origin), known.sequence if known is not None and ours else 0))
    if known is None and wanted.until_sequence == wanted.until_ms == _FAR and history_promised(origin):
        raise Refused(
            f"{origin} had {HISTORY}, which is missing or empty. Copy it again, or use another backup; what there is "
            f"can be had with --until {last_before}"
        )
    if not last_before:
        raise Refused(f"{origin} begins after that point: nothing would be in it")
    kept = known is None or (
        ours and known.sequence <= last_before and not any(left <= known.sequence for left in wanted.skip)
    )
    start = max(starts)
    if known is not None and kept and known.least < start:
        # History is brought up to it from where it is, when all between can be replayed.
        earlier = max((sequence for sequence in starts if sequence <= known.least), default=min(starts))
        start = earlier if replayable(disk, earlier, start, headers, kind.version) else start
    base = restore_newest(disk, kind, at_most=start)
    machine = base.machine
    checksum = base.header.chain if base.header is not None else START.previous_checksum
    if known is not None:
        with closing(open_reader(origin, writes_nothing=True)) as history:
            copy_history(history, making)
        if not kept:
            (making / HISTORY).rename(making / BEFORE)
        elif known.sequence == machine.sequence:
            known.compare(checksum)
    history_is = BEFORE if not kept else ANEW if known is None and machine.sequence else "kept"
    readers = _open_readers(making)
    replayed = changed = 0
    skipped: list[int] = []
    wanted_records = records(disk, machine.sequence + 1, headers, live=False)
    while machine.sequence < last_before:
        # No record behind the last one is looked at: it may be what is damaged.
        record = next(wanted_records)
        header = record.header
        if header.machine_version != kind.version:
            raise MachineVersionDiffers(header.sequence, header.machine_version, kind.version)
        note(header.sequence)
        if header.sequence in wanted.skip:
            machine.apply(b"", machine.now_ms, header.seed)
            skipped.append(header.sequence)
        else:
            changed += _apply(machine, record, readers, bool(skipped))
            replayed += 1
        checksum = record.checksum
        if known is not None and kept and known.sequence == header.sequence:
            known.compare(checksum)
    note(0)
    if set(wanted.skip) - set(skipped):
        missing = min(set(wanted.skip) - set(skipped))
        raise Refused(f"record {missing} is not among those that are replayed: {machine.sequence} is the last one")
    for reader in readers:
        reader.commit(machine.sequence)
        reader.close()
    faults = machine.check()
    if faults:
        raise Refused(f"the state at record {machine.sequence} breaks invariants: {'; '.join(faults)}")
    found = _write(
        origin, making, machine, checksum, journal_ids[0], kind, settings, wanted, replayed, changed, history_is
    )
    return found | {"passed_over": [str(damage) for damage in damages]}


def _set_aside(making: Path) -> list[str]:
    """Chained files that are damaged, out of the way: what was damaged in tokens may be that one was revoked, so none
    counts."""
    found = []
    for file in FILES:
        try:
            verify_folder(making, files=(file,))
            if file == TOKENS:
                read_tokens(making)
        except ChainDamaged as error:
            kept = set_aside(making / file).name
            found.append(f"{str(error).replace(os.fspath(making) + '/', '')}. The file is kept as {kept}")
    return found


@dataclass(frozen=True, slots=True)
class _Known:
    """How far history is: the reader that has come farthest, and the one that has not."""

    sequence: int
    least: int
    checksum: int
    journal_ids: frozenset[bytes]

    def compare(self, checksum: int) -> None:
        if self.sequence and self.checksum != checksum:
            raise Refused(
                f"record {self.sequence} is another one in the journal than {HISTORY} knows: move that away, or take "
                "both from the same copy"
            )


def _known(origin: Path) -> _Known | None:
    """None: there is none."""
    try:
        with closing(open_kept(origin, writes_nothing=True)) as history:
            rows = history.execute("SELECT sequence, checksum, journal_id FROM positions ORDER BY sequence").fetchall()
    except NoHistoryYet:
        return None
    except (HistoryRefused, sqlite3.Error) as error:
        raise Refused(str(error if isinstance(error, HistoryRefused) else damaged(origin / HISTORY, error))) from error
    return _Known(rows[-1][0], rows[0][0], unsigned(rows[-1][1]), frozenset(row[2] for row in rows))


@dataclass(frozen=True, slots=True)
class _Walked:
    last: int
    """The last record that is to be in it."""
    ended: bool
    """There is none behind it."""


def _walk(
    disk: RealDisk, base: int, headers: dict[int, SnapshotHeader], wanted: Wanted, damages: list[JournalDamaged]
) -> _Walked:
    """No record behind the last one is looked at: it may be what is damaged."""
    last = base
    found = records(disk, base + 1, headers, False, damages)
    while last < wanted.until_sequence:
        record = next(found, None)
        if record is None:
            return _Walked(last, True)
        if record.header.now_ms > wanted.until_ms:
            break
        last = record.header.sequence
    return _Walked(last, False)


def _refuse_short(origin: Path, wanted: Wanted, walked: _Walked, made: int) -> None:
    if walked.last < wanted.until_sequence < _FAR:
        raise Refused(f"{origin} ends at record {walked.last}, and does not know {wanted.until_sequence}")
    if walked.ended and walked.last < made:
        raise Refused(
            f"{origin} ends at record {walked.last}, and had {made}, which were acknowledged: files are missing or "
            f"were cut. Copy it again, or use another backup; what there is can be had with --until {walked.last}"
        )


def _open_readers(making: Path) -> list[Reader]:
    try:
        return [opening() for opening in readers_of(making)]
    except ReaderFailed as error:
        raise Refused(f"history can't go on: {error}") from error


def _apply(machine: Any, record: Record, readers: Sequence[Reader], after_skip: bool) -> bool:
    """Whether its outcomes are others than they were; without a record left out before it, that is refused."""
    header = record.header
    hint = f"If the record is what is wrong, --skip {header.sequence} leaves it out"
    try:
        outcome = machine.apply(record.payload, header.now_ms, header.seed)
    except (MalformedBatch, ValueError) as error:
        raise Refused(f"record {header.sequence} can't be replayed: {error}. {hint}") from error
    differs = bool(outcome.hash != header.outcome_hash)
    if differs and not after_skip:
        raise Refused(
            f"record {header.sequence} gives outcomes with the hash {outcome.hash:016x}, recorded were "
            f"{header.outcome_hash:016x} (I10): this program is not the one that wrote it, or memory is faulty. {hint}"
        )
    outcomes = outcome_runs(outcome.data)
    for reader in readers:
        if header.sequence > reader.sequence:
            reader.applied(record, outcomes, machine)
    return differs


def _write(
    origin: Path,
    making: Path,
    machine: Any,
    checksum: int,
    journal_id: bytes,
    kind: MachineKind,
    settings: JournalSettings,
    wanted: Wanted,
    replayed: int,
    changed: int,
    history_is: str,
) -> dict[str, Any]:
    from simswitch.journal.snapshot import write_snapshot

    disk = RealDisk(making)
    new_id = os.urandom(16)
    at_ms = time.time_ns() // 1_000_000
    machine.raise_incarnation(at_ms, secrets.randbits(32))
    write_snapshot(disk, machine, new_id, kind.version, checksum)
    found: dict[str, Any] = {
        "sequence": machine.sequence,
        "now_ms": machine.now_ms,
        "at_ms": at_ms,
        "journal": new_id.hex(),
        # Of every epoch the upper 16 bits, which restores of less than five hours have in common.
        "incarnation": machine.header()["incarnation"],
        "replayed": replayed,
        "skipped": list(wanted.skip),
        "changed": changed,
        "history": history_is,
    }
    place = Place(0, 0, machine.sequence + 1, checksum)
    # Nobody relies on it yet: a disk that fails is a refusal like any other, not the end of the process.
    journal = Journal(disk, new_id, kind.version, place, settings, fail_stop=lambda _: None)
    # From here on, whatever restarts: Nobody is given a SIM until all have said what they hold (I1).
    batch = commands.run(layout.RESTART, argument=1)
    journal.admit(len(batch))
    seed = int.from_bytes(os.urandom(8), "little")
    journal.append(machine.now_ms, seed, batch, machine.apply(batch, machine.now_ms, seed).hash)
    journal.close()
    servers = (machine.server(index) for index in range(machine.header()["servers_count"]))
    found["unheard"] = [server["name"] for server in servers if server["unheard"]]
    if (making / HISTORY).exists():
        with closing(sqlite3.connect(making / HISTORY)) as history, history:
            history.execute("UPDATE positions SET journal_id = ?", (new_id,))
    copy_chains(origin, making)
    found["set_aside"] = _set_aside(making)
    # As they were there: whatever was revoked since counts again.
    tokens = [token for token in read_tokens(making).values() if token.state(at_ms) == "valid"]
    found["valid_tokens"] = [f"{token.id} {token.actor}" for token in tokens]
    chain = Chain(making / RESTORES)
    chain.append(
        {
            "what": "restore",
            "who": who_types(),
            "source": os.fspath(origin.resolve()),
            "source_journal": journal_id.hex(),
            "reason": wanted.reason,
            # Which ones stands in their own list, and a line has no room for thousands of them.
            **json.loads(json.dumps(found | {"valid_tokens": len(tokens), "unheard": len(found["unheard"])})),
        }
    )
    chain.sync()
    chain.close()
    return found

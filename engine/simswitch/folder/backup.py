"""A copy of a data folder that a server may be running on: whole, consistent, and checked before it counts.

    history.sqlite   by SQLite's own online copy                      first: its position is then in the journal's copy
    audit log        the chained files without a line that is being written, tokens too
    snapshots        every sound one
    journal          every segment up to the last whole record        last: it reaches everything above
    backup.json      what it holds; written when all else is durable and has been checked

Until then a file ``backup.unfinished`` stands in it, and ``restore`` refuses it. All that was acknowledged before it
began is in it, and it can be restored to any record from its oldest snapshot on, or from the beginning while no
segment has gone. A record that is damaged in the source, and that a snapshot replaces, is damaged in the copy too, and
told: points between it and that snapshot can't be restored. So is a chained file that is damaged. The copy is a data
folder: ``check`` and ``inspect`` read it. Bytes behind the last record are holes.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from simswitch.access.tokens import FILE as TOKENS
from simswitch.audit.chain import is_written, older, without_torn
from simswitch.audit.verify import BOUNDED, FILES, SET_ASIDE
from simswitch.folder.apart import Refused
from simswitch.folder.check import (
    BACKUP,
    TRIES_MAX,
    Checked,
    check_folder,
    lost_history,
    records,
    sound_snapshots,
    was_removed,
)
from simswitch.folder.manifest import MANIFEST, UNFINISHED
from simswitch.history.schema import NAME as HISTORY
from simswitch.history.schema import HistoryRefused, NoHistoryYet, open_kept
from simswitch.journal.disk import RealDisk, make_own_folder, sync_folder
from simswitch.journal.errors import JournalError
from simswitch.journal.format import BLOCK_BYTES, SegmentHeader, record_bytes
from simswitch.journal.snapshot import snapshot_name
from simswitch.journal.walk import first_record, first_sequence, list_segments
from simswitch.owner import Owner, give, reading

_PIECE_BYTES = 1 << 20


def backup(folder: str | os.PathLike[str], target: str | os.PathLike[str]) -> dict[str, Any]:
    """What the backup holds. Raises ``Refused``; what it had begun then says that it is unfinished."""
    source, goal = Path(folder), Path(target)
    begin_empty(goal)
    try:
        (goal / UNFINISHED).touch(mode=0o640)
        # Without its name a copy that a power cut ended would pass for a data folder.
        sync_folder(os.fspath(goal))
        disk = RealDisk(source, create=False)
        for attempt in range(TRIES_MAX):
            before = set(disk.names())
            try:
                _copy(source, goal)
                break
            except (FileNotFoundError, JournalError):
                if not was_removed(disk, before) or attempt == TRIES_MAX - 1:
                    raise
                _clear(goal)
        checked = check_folder(goal)
        checked.parts = [part for part in checked.parts if part.part != BACKUP]
        if not checked.whole:
            faults = "; ".join(f"{part.part} {part.file}: {part.text}" for part in checked.parts if not part.sound)
            raise Refused(
                f"the copy of {source} in {goal} is not sound: {faults}. `simswitch check {source}` says more"
            )
        return _finish(goal, checked, source.stat())
    except (JournalError, HistoryRefused, sqlite3.Error, OSError) as error:
        raise Refused(f"{source} could not be copied to {goal}: {error}") from error


def begin_empty(folder: Path) -> None:
    """Makes a folder, or takes one in which there is nothing, nor can others put something."""
    try:
        make_own_folder(folder)
        if any(folder.iterdir()):
            raise Refused(f"{folder} is not empty: name a folder that is, or that does not exist")
    except OSError as error:
        raise Refused(f"{folder} can't be used: {error.strerror}") from error


def _clear(goal: Path) -> None:
    for path in goal.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != UNFINISHED:
            path.unlink()


def _copy(source: Path, goal: Path) -> None:
    disk = RealDisk(source, create=False)
    live = disk.locked_by() is not None
    try:
        with closing(open_kept(source, writes_nothing=not live)) as history:
            copy_history(history, goal)
    except NoHistoryYet as error:
        lost = lost_history(disk)
        if lost:
            raise Refused(f"{source / HISTORY} can't be copied: {lost}") from error
    copy_chains(source, goal)
    headers = {header.sequence: header for header in sound_snapshots(disk)}
    for sequence in headers:
        _copy_bytes(source / snapshot_name(sequence), goal / snapshot_name(sequence))
    segments = {segment.number: segment for segment in list_segments(disk)}
    ends = {}
    for number, segment in segments.items():
        if isinstance(segment.header, SegmentHeader):
            ends[number] = BLOCK_BYTES
        elif first_record(disk, segment) is not None:
            ends[number] = segment.size
    for record in records(disk, first_sequence(disk), headers, live, damages=[]):
        ends[record.segment] = record.offset + record_bytes(record.header.payload_bytes)
    segments |= {segment.number: segment for segment in list_segments(disk)}
    for number, end in sorted(ends.items()):
        name = segments[number].name
        _copy_bytes(source / name, goal / name, end)
        os.truncate(goal / name, segments[number].size)


def copy_history(history: sqlite3.Connection, goal: Path) -> None:
    os.close(os.open(goal / HISTORY, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
    with closing(sqlite3.connect(goal / HISTORY)) as copy:
        # In one step: begun anew at each commit of the follower, the copy of a large one would never end.
        history.backup(copy)
        # One file, without the log beside it: nobody writes it any more.
        copy.execute("PRAGMA journal_mode = DELETE")


def copy_chains(source: Path, goal: Path) -> None:
    """The chained files, each without a line that is being written. Only their owner may read them."""
    found = {path: text for name in FILES for path, text in _chain(source, name).items()}
    # What was set aside is evidence, to the last byte.
    found |= {path: _read(source, path) for path in source.glob(SET_ASIDE)}
    for path, text in found.items():
        place = goal / path.relative_to(source)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        place.touch(mode=0o600)
        place.write_bytes(text)


def _read(source: Path, path: Path) -> bytes:
    with reading(source, path.relative_to(source)) as file:
        return file.read()


def _chain(source: Path, name: str) -> dict[Path, bytes]:
    """What stands in the older file and in the one that goes on from it, though a full one is renamed meanwhile."""
    path = source / name
    while True:
        found = {}
        try:
            with reading(source, name) as file:
                if older(path).exists():
                    found[older(path)] = _read(source, older(path))
                if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    continue
                text = file.read()
                whole = without_torn(text)
                if whole != text and name not in BOUNDED and not is_written(file):
                    # Nobody is writing it, so it is damage, or its writer has come to the line's end meanwhile.
                    whole = text + file.read()
                found[path] = whole
        except FileNotFoundError:
            # Its writer is just about to make it, or there never was one.
            if older(path).exists():
                found[older(path)] = _read(source, older(path))
        return found


def _copy_bytes(source: Path, goal: Path, size: int | None = None) -> None:
    with reading(source.parent, source.name) as file, goal.open("wb") as writing:
        os.chmod(writing.fileno(), 0o640)
        left = os.fstat(file.fileno()).st_size if size is None else size
        while left:
            piece = file.read(min(left, _PIECE_BYTES))
            if not piece:
                raise Refused(f"{source} became shorter while it was copied: is another program writing it?")
            writing.write(piece)
            left -= len(piece)


def _finish(goal: Path, checked: Checked, owner: os.stat_result) -> dict[str, Any]:
    sync(goal)
    found: dict[str, Any] = {
        "source_sequence": checked.last_sequence,
        "now_ms": checked.now_ms,
        "state_hash": checked.state_hash,
        "snapshots": [part.file for part in checked.parts if part.part == "snapshot"],
        # The copy stays its maker's, so that the folder's owner can't change what root has copied; a restore needs him.
        "uid": owner.st_uid,
        "gid": owner.st_gid,
        "tokens": (goal / TOKENS).exists(),
        "history": (goal / HISTORY).exists(),
        "passed_over": [part.text for part in checked.parts if not part.sound],
    }
    (goal / MANIFEST).touch(mode=0o640)
    (goal / MANIFEST).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sync(goal)
    (goal / UNFINISHED).unlink()
    sync(goal)
    sync_folder(os.fspath(goal.parent))
    return found


def sync(folder: Path, owner: os.stat_result | Owner | None = None) -> None:
    """Everything in a folder, and itself, is durable, and its owner's; itself last: until then nobody else can change
    what is in it."""
    for path in (*folder.rglob("*"), folder):
        place = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if owner is not None:
                give(place, owner)
            os.fsync(place)
        finally:
            os.close(place)

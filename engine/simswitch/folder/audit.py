"""Whether anybody touched what an auditor relies on: the chained files, the chain of decisions in history, and those
decisions beside the journal.

The journal has the commands themselves. So for each record that is still there and that history has seen, the runs that
are decisions must stand in history, and no others. The records behind the oldest snapshot are replayed, in a process of
their own, and of each of their decisions every column must be what history would write now: who, when, what, with which
outcome. Of those before it, whose outcomes nobody can know, the instant and the digest are compared. So whoever may
write history, but not the journal, changes nothing that the journal still reaches back to; and neither does he hide a
decision behind a gap, or behind the record that history is said to have come to.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from simswitch.audit.chain import ChainDamaged
from simswitch.audit.decisions import walk
from simswitch.audit.verify import DECISIONS, Expected, Walked, verify_folder
from simswitch.core import layout
from simswitch.core.commands import command_runs, outcome_runs
from simswitch.folder.apart import Note, apart
from simswitch.folder.check import TRIES_MAX, lost_history, records, sound_snapshots, was_removed
from simswitch.history.projector import DECISION_COLUMNS, decision_row, is_decision, names_of
from simswitch.history.reading import known
from simswitch.history.schema import NoHistoryYet, damaged, open_kept, open_reader
from simswitch.journal.disk import RealDisk
from simswitch.journal.errors import JournalError
from simswitch.journal.recovery import MachineKind, real_machine, replay, restore_newest
from simswitch.journal.walk import first_sequence, list_segments


def verify_audit(folder: Path, expected: Sequence[Expected] = ()) -> list[Walked]:
    """What was walked. Raises ``ChainDamaged``, ``HistoryRefused``, ``JournalError``; ``Refused`` for what the replay
    of the journal meets."""
    found = verify_folder(folder, [entry for entry in expected if entry.file != DECISIONS])
    wanted = {entry.number: entry.hash for entry in expected if entry.file == DECISIONS}
    try:
        with closing(open_kept(folder, writes_nothing=True)) as history:
            history.execute("BEGIN")
            walked = walk(history, wanted)
        fault = apart(_compared, folder)
        if fault:
            raise ChainDamaged(fault)
    except NoHistoryYet as error:
        if wanted:
            raise ChainDamaged(f"{folder / DECISIONS}: decision {min(wanted)} was noted, and {error}") from error
        lost = lost_history(RealDisk(folder, create=False))
        if lost:
            raise ChainDamaged(f"{folder / DECISIONS}: {lost}") from error
        return found
    except sqlite3.Error as error:
        raise damaged(folder / DECISIONS, error) from error
    return found if walked is None else [*found, walked]


def _compared(note: Note, folder: Path) -> str:
    """What is wrong; nothing: all agrees."""
    disk = RealDisk(folder, create=False)
    for tries_left in reversed(range(TRIES_MAX)):
        before = set(disk.names())
        try:
            with closing(open_reader(folder, writes_nothing=True)) as history:
                history.execute("BEGIN")
                compare(folder, history, note=note)
            break
        except ChainDamaged as error:
            return str(error)
        except (JournalError, FileNotFoundError):
            if not tries_left or not was_removed(disk, before):
                raise
    return ""


def compare(
    folder: Path, history: sqlite3.Connection, kind: MachineKind | None = None, *, note: Note | None = None
) -> int:
    """How many decisions stand alike in journal and history. Raises ``ChainDamaged`` at the first that does not."""
    disk = RealDisk(folder, create=False)
    if not any(segment.header for segment in list_segments(disk)):
        return 0
    kind = kind or real_machine()
    seen = known(history)
    last = history.execute("SELECT max(sequence) FROM decisions").fetchone()[0] or 0
    if last > seen.sequence:
        raise ChainDamaged(
            f"{DECISIONS}: it has decisions up to record {last}, and says that it has come to {seen.sequence}: one of "
            "the two was changed"
        )
    first = first_sequence(disk)
    headers = {header.sequence: header for header in sound_snapshots(disk)}
    start = min((start for start in (0, *headers) if start + 1 >= first), default=0)
    machine = restore_newest(disk, kind, at_most=start).machine
    names = names_of(machine)
    compared = 0
    for record in records(disk, first, headers, disk.locked_by() is not None):
        header = record.header
        if header.sequence > seen.sequence:
            break
        replayed = header.machine_version == kind.version and header.sequence == machine.sequence + 1
        if not replayed and any(first <= header.sequence <= last for first, last, *_ in seen.gaps):
            continue
        try:
            runs = command_runs(record.payload)
        except KeyError:
            # An older version had commands that this one does not know: of that record the chain alone speaks.
            if header.machine_version == kind.version:
                raise
            continue
        decisions = [(place, run) for place, run in enumerate(runs) if is_decision(run.kind)]
        columns = "at_ms, run, digest"
        wanted = [(header.now_ms, place, hashlib.sha256(run.whole).digest()) for place, run in decisions]
        if replayed:
            if note is not None:
                note(header.sequence)
            outcomes = outcome_runs(replay(machine, record, kind.version).data)
            if any(run.kind == layout.DEFINE for _, run in decisions):
                names = names_of(machine)
            columns = DECISION_COLUMNS
            wanted = [decision_row(place, run, outcomes[place], record, *names) for place, run in decisions]
        told = history.execute(f"SELECT {columns} FROM decisions WHERE sequence = ? ORDER BY run", (header.sequence,))
        if told.fetchall() != wanted:
            raise ChainDamaged(
                f"{DECISIONS}: the decisions of record {header.sequence}, {len(wanted)} of them, are not those of the "
                "journal. One of the two was changed"
            )
        compared += len(wanted)
    return compared

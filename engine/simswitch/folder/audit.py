"""Whether anybody touched what an auditor relies on: the chained files, the chain of decisions in history, and those
decisions beside the journal.

The journal has the commands themselves. So for each record that is still there and that history has seen, the runs that
are decisions must stand in history, each with the digest of its bytes, and no others. Who rewrites a decision has then
to rewrite the journal too, and all that follows in both.
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
from simswitch.core.commands import command_runs
from simswitch.folder.check import records, sound_snapshots
from simswitch.history.projector import is_decision
from simswitch.history.reading import known
from simswitch.history.schema import NoHistoryYet, damaged, open_reader
from simswitch.journal.disk import RealDisk
from simswitch.journal.format import SegmentHeader
from simswitch.journal.walk import list_segments


def verify_audit(folder: Path, expected: Sequence[Expected] = ()) -> list[Walked]:
    """What was walked. Raises ``ChainDamaged``, ``HistoryRefused``, ``JournalDamaged``."""
    found = verify_folder(folder, [entry for entry in expected if entry.file != DECISIONS])
    wanted = {entry.number: entry.hash for entry in expected if entry.file == DECISIONS}
    try:
        with closing(open_reader(folder, writes_nothing=True)) as history:
            history.execute("BEGIN")
            walked = walk(history, wanted)
            compare(folder, history)
    except NoHistoryYet as error:
        if wanted:
            raise ChainDamaged(f"{folder / DECISIONS}: decision {min(wanted)} was noted, and {error}") from error
        return found
    except sqlite3.Error as error:
        raise damaged(folder / DECISIONS, error) from error
    return found if walked is None else [*found, walked]


def compare(folder: Path, history: sqlite3.Connection) -> int:
    """How many decisions stand alike in journal and history. Raises ``ChainDamaged`` at the first that does not."""
    disk = RealDisk(folder, create=False)
    begun = [segment.header for segment in list_segments(disk) if isinstance(segment.header, SegmentHeader)]
    if not begun:
        return 0
    seen = known(history)
    gaps = [(first, last) for first, last, *_ in seen.gaps]
    headers = {header.sequence: header for header in sound_snapshots(disk)}
    compared = 0
    for record in records(disk, begun[0].first_sequence, headers, disk.locked_by() is not None):
        sequence = record.header.sequence
        if sequence > seen.sequence:
            break
        if any(first <= sequence <= last for first, last in gaps):
            continue
        runs = enumerate(command_runs(record.payload))
        given = {place: hashlib.sha256(run.whole).digest() for place, run in runs if is_decision(run.kind)}
        told = dict(history.execute("SELECT run, digest FROM decisions WHERE sequence = ?", (sequence,)).fetchall())
        if given != told:
            raise ChainDamaged(
                f"{DECISIONS}: the decisions of record {sequence} are not those of the journal: history has "
                f"{len(told)} of them, the journal {len(given)}. One of the two was changed"
            )
        compared += len(given)
    return compared

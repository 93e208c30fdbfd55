"""Putting the machine together: the newest snapshot that is valid, then every record behind it, each outcome checked.

After any crash the state is the replay of a prefix of the commands that includes every acknowledged one (I6), and each
record's outcomes have the hash that was recorded when they were given (I10). What may be at the journal's end, and what
is done about it, is the decision table in ``walk``. Nothing on disk is changed unless recovery succeeds.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from simswitch.core.layout import MACHINE_VERSION
from simswitch.core.machine import Machine, Outcome
from simswitch.journal.append import Place
from simswitch.journal.disk import Disk
from simswitch.journal.errors import (
    JournalDamaged,
    MachineVersionDiffers,
    OutcomeDiffers,
    RecordRefused,
    SnapshotNotMigrated,
)
from simswitch.journal.migration import NotMigrated, migrate
from simswitch.journal.snapshot import (
    SnapshotHeader,
    StoredRegion,
    open_snapshot,
    read_snapshot_header,
    snapshot_name,
    snapshot_sequences,
    unreadable_snapshot,
)
from simswitch.journal.walk import Record, Verdict, Walk
from simswitch.journal.walk import repair as repair_end

Progress = Callable[[str, int, int], object]
"""Told what is being done, how many bytes of it are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class MachineKind:
    """How to come by a machine, and its version. Tests put a small one in its place."""

    create: Callable[[], Machine]
    restore: Callable[[list[Any]], Machine]
    version: int
    migrate: Callable[[SnapshotHeader, list[StoredRegion]], list[StoredRegion]] = migrate
    """Makes the regions of this version from those of an earlier one."""


def real_machine() -> MachineKind:
    return MachineKind(Machine, Machine.restore, int(MACHINE_VERSION))


@dataclass(slots=True)
class Recovery:
    machine: Machine
    journal_id: bytes | None
    """None: the folder held no journal."""
    place: Place
    verdict: Verdict
    snapshot_sequence: int
    """0: no snapshot was used."""
    replayed_count: int
    warnings: list[str] = field(default_factory=list)
    damages: list[JournalDamaged] = field(default_factory=list)
    """What was passed over, since nothing in it is needed: snapshots, and records that a snapshot replaces."""


@dataclass(slots=True)
class Base:
    """What the snapshots give: a machine to start from, and what they vouch for."""

    machine: Machine
    header: SnapshotHeader | None
    durable_sequence: int
    damages: list[JournalDamaged]
    """Newer snapshots that can't be read."""


def restore_newest(
    disk: Disk, kind: MachineKind, progress: Progress | None = None, *, at_most: int | None = None
) -> Base:
    """The newest snapshot that is valid (and not behind the record ``at_most``); a damaged one is passed over, and told
    of, but still vouches for its sequence. One of an earlier machine version becomes this version's state.

    Raises ``SnapshotNotMigrated`` when a sound one is of a version that can't be read.
    """
    damages: list[JournalDamaged] = []
    durable_sequence = 0
    for sequence in reversed(snapshot_sequences(disk)):
        if at_most is not None and sequence > at_most:
            continue
        name = snapshot_name(sequence)
        try:
            durable_sequence = max(durable_sequence, _vouched_sequence(disk, name))
            if progress is not None:
                progress(f"reading {name}", 0, 1)
            with open_snapshot(disk, sequence) as (header, regions):
                machine = _restore(kind, name, header, regions)
        except JournalDamaged as error:
            damages.append(error)
            continue
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            damages.append(unreadable_snapshot(name, sequence, error))
            continue
        if progress is not None:
            progress(f"reading {name}", 1, 1)
        return Base(machine, header, durable_sequence, damages)
    return Base(kind.create(), None, durable_sequence, damages)


def _vouched_sequence(disk: Disk, name: str) -> int:
    file = disk.open(name, writable=False)
    try:
        return read_snapshot_header(file, name).sequence
    finally:
        file.close()


def _restore(kind: MachineKind, name: str, header: SnapshotHeader, regions: list[StoredRegion]) -> Machine:
    def refuse(what: str) -> JournalDamaged:
        return JournalDamaged("snapshot", name, 0, header.sequence, what, "Keep the file as it is")

    try:
        if header.machine_version != kind.version:
            regions = kind.migrate(header, regions)
        machine = kind.restore(regions)
    except NotMigrated as error:
        raise SnapshotNotMigrated(f"{name}: {error}") from error
    except ValueError as error:
        raise refuse(f"the machine refuses its regions: {error}") from error
    if machine.sequence != header.sequence:
        raise refuse(f"the state in it is at sequence {machine.sequence}")
    # Its hash needs no second look: every region was checked where it stays.
    return machine


def replay(machine: Machine, record: Record, version: int) -> Outcome:
    """Applies one record, checks what it gave (I10), and returns that."""
    header = record.header
    if header.machine_version != version:
        raise MachineVersionDiffers(header.sequence, header.machine_version, version)
    try:
        outcome = machine.apply(record.payload, header.now_ms, header.seed)
    except ValueError as error:
        raise RecordRefused(header.sequence, str(error)) from error
    if outcome.hash != header.outcome_hash or machine.sequence != header.sequence:
        raise OutcomeDiffers(header.sequence, header.outcome_hash, outcome.hash)
    return outcome


def recover(disk: Disk, kind: MachineKind, *, repair: bool, progress: Progress | None = None) -> Recovery:
    """``repair`` cuts what a crash left half written; without it the disk is only read."""
    base = restore_newest(disk, kind, progress)
    header = base.header
    snapshot_sequence = header.sequence if header is not None else 0

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("replaying the journal", done, total)

    walk = Walk(
        disk,
        first_sequence=snapshot_sequence + 1,
        durable_sequence=base.durable_sequence,
        journal_id=header.journal_id if header is not None else None,
        chain=header.chain if header is not None else None,
        settle=repair,
        progress=report,
    )
    replayed_count = 0
    for record in walk:
        replay(base.machine, record, kind.version)
        replayed_count += 1
    verdict = walk.verdict
    assert verdict is not None
    if repair:
        repair_end(disk, verdict)
    warnings: list[str] = []
    if verdict.case != "@C":
        warnings.append(f"{verdict.text}; it was never acknowledged, and was cut")
    damages = base.damages + walk.damages
    return Recovery(
        base.machine, walk.journal_id, verdict.place, verdict, snapshot_sequence, replayed_count, warnings, damages
    )

"""What the journal refuses, and how it says so.

Every refusal names the file, the place in it, what is wrong and what a person can do. None of them changes a byte on
disk.
"""

from __future__ import annotations


class JournalError(Exception):
    """The base of all that the journal raises."""


class JournalDamaged(JournalError):
    """The folder holds something that a crash of ours can't have left. Nothing was changed."""

    def __init__(self, case: str, file: str, offset: int, sequence: int, what: str, remedy: str) -> None:
        super().__init__(f"{file}, byte {offset}, sequence {sequence}: {what}. {remedy}")
        self.case = case
        self.file = file
        self.offset = offset
        self.sequence = sequence
        self.what = what
        self.remedy = remedy


class OutcomeDiffers(JournalError):
    """Replaying a record gave other outcomes than were acknowledged (I10)."""

    def __init__(self, sequence: int, recorded: int, replayed: int) -> None:
        super().__init__(
            f"sequence {sequence}: replay gives outcomes with the hash {replayed:016x}, the journal recorded "
            f"{recorded:016x} (I10). This program is not the one that wrote the journal, or memory is faulty: run the "
            "program that wrote it on another machine, and keep the folder as it is"
        )
        self.sequence = sequence
        self.recorded = recorded
        self.replayed = replayed


class JournalShort(JournalError):
    """Somebody has seen later records durable. Nothing was changed."""

    def __init__(self, known: int, last: int) -> None:
        super().__init__(
            f"history knows {known:,} records, which were acknowledged, and the journal ends at {last:,}: what came "
            "behind is missing. Nothing was changed. Put segments and snapshots back from a copy of the disk, or "
            "restore a backup; only where there is neither, move history.sqlite away, and the rest is lost"
        )
        self.known = known
        self.last = last


class RecordRefused(JournalError):
    """The machine refuses a record that it once applied."""

    def __init__(self, sequence: int, what: str) -> None:
        super().__init__(
            f"sequence {sequence} can't be replayed: {what}. This program is not the one that wrote the journal, or "
            f"memory was faulty then. Keep the folder as it is; `simswitch restore` makes one without the record: "
            f"--skip {sequence}"
        )
        self.sequence = sequence


class MachineVersionDiffers(JournalError):
    """The tail of the journal was written by another version of the state machine."""

    def __init__(self, sequence: int, recorded: int, running: int) -> None:
        super().__init__(
            f"sequence {sequence} was written by machine version {recorded}, this is version {running}: a new machine "
            "version opens old state from a snapshot, never from another version's tail. Start the version that wrote "
            "it once and stop it cleanly (it leaves a snapshot at the end of the journal), then start this one"
        )
        self.sequence = sequence
        self.recorded = recorded
        self.running = running


class SnapshotRenamed(JournalError):
    """The file has another snapshot's name, so nobody can go by names. Nothing was changed."""

    def __init__(self, file: str, name: str) -> None:
        super().__init__(
            f"the header of {file} says that it is {name}: the file was renamed. Stop the service, and rename it back; "
            f"if there is a {name}, look into that as well"
        )
        self.file = file


class SnapshotNotMigrated(JournalError):
    """A sound snapshot is of a machine version that this program can't read. Nothing was changed."""


class JournalFull(JournalError):
    """Free space is below the mark: nothing more is admitted until there is room. Nothing was applied."""


class RecordTooLarge(JournalError, ValueError):
    """The batch doesn't fit into a segment. Nothing was applied."""


class JournalFailed(JournalError):
    """A write or an fsync failed, so that nobody knows what is durable. Only recovery can tell; the process has to
    end."""


class FolderInUse(JournalError):
    """Another server holds this data folder."""

"""What a data folder holds, for a person and for programs. Reads only, takes no lock, and works on damaged folders."""

from __future__ import annotations

import os
from typing import Any

from simswitch.journal.disk import RealDisk
from simswitch.journal.errors import JournalDamaged
from simswitch.journal.follower import read_alarm
from simswitch.journal.format import FORMAT_VERSION, SegmentHeader, record_bytes
from simswitch.journal.snapshot import check_regions, read_snapshot_header, snapshot_name, snapshot_sequences
from simswitch.journal.walk import Segment, Walk, first_sequence


def inspect(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Segments, snapshots, lock and the verdict on the journal's end (the cases of ``walk``), as JSON takes it.

    On a folder that a server is writing to, the end is that of one instant: a record may be half written.
    """
    disk = RealDisk(folder, create=False)
    holder = disk.locked_by()
    snapshots = [_snapshot(disk, sequence) for sequence in snapshot_sequences(disk)]
    vouched = max((snapshot["sequence"] for snapshot in snapshots if snapshot["header_valid"]), default=0)
    walk = Walk(disk, first_sequence=first_sequence(disk), durable_sequence=vouched)
    segments = {segment.number: _segment(segment) for segment in walk.segments}
    versions: set[int] = set()
    durable_sequence = vouched
    tail: dict[str, Any]
    try:
        for record in walk:
            entry = segments[record.segment]
            entry["records"] += 1
            entry["last_sequence"] = record.header.sequence
            entry["used_bytes"] = record.offset + record_bytes(record.header.payload_bytes)
            versions.add(record.header.machine_version)
            durable_sequence = max(durable_sequence, record.header.durable_sequence)
        verdict = walk.verdict
        assert verdict is not None
        tail = {
            "case": verdict.case,
            "text": verdict.text,
            "damaged": False,
            "segment": verdict.place.segment,
            "offset": verdict.place.offset,
            "next_sequence": verdict.place.sequence,
            "cut_bytes": sum(residue.size for residue in verdict.residues),
        }
    except JournalDamaged as error:
        tail = {
            "case": error.case,
            "text": str(error),
            "damaged": True,
            "file": error.file,
            "offset": error.offset,
            "next_sequence": error.sequence,
        }
    return {
        "folder": os.fspath(folder),
        "journal_id": None if walk.journal_id is None else walk.journal_id.hex(),
        "format_version": FORMAT_VERSION,
        "machine_versions": sorted(versions),
        "lock": {"held": holder is not None, "pid": holder},
        "segments": list(segments.values()),
        "snapshots": snapshots,
        "durable_sequence": durable_sequence,
        "tail": tail,
        "alarm": read_alarm(disk),
    }


def _segment(segment: Segment) -> dict[str, Any]:
    header = segment.header
    entry: dict[str, Any] = {
        "file": segment.name,
        "bytes": segment.size,
        "state": "prepared",
        "first_sequence": None,
        "last_sequence": None,
        "records": 0,
        "used_bytes": 0,
        "machine_version": None,
        "problem": None,
    }
    if isinstance(header, SegmentHeader):
        entry.update(state="begun", first_sequence=header.first_sequence, machine_version=header.machine_version)
    elif header is not None:
        entry.update(state="damaged", problem=header)
    return entry


def _snapshot(disk: RealDisk, sequence: int) -> dict[str, Any]:
    name = snapshot_name(sequence)
    entry: dict[str, Any] = {
        "file": name,
        "sequence": sequence,
        "header_valid": False,
        "valid": False,
        "bytes": None,
        "now_ms": None,
        "machine_version": None,
        "state_hash": None,
        "problem": None,
    }
    file = disk.open(name, writable=False)
    try:
        header = read_snapshot_header(file, name)
        entry.update(
            sequence=header.sequence,
            header_valid=True,
            bytes=header.file_bytes,
            now_ms=header.now_ms,
            machine_version=header.machine_version,
            state_hash=f"{header.state_hash:016x}",
        )
        check_regions(file, name, header)
        entry["valid"] = True
    except (JournalDamaged, OSError) as error:
        entry["problem"] = str(error)
    finally:
        file.close()
    return entry

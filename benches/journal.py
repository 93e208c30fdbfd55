"""Committing one record: the journal beside a bare ``pwrite`` and ``fdatasync`` of as many bytes to a prewritten file.

The two take turns, so that a slow spell of the disk meets both. Both write whole blocks of 4,096 bytes, further on
each time.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from simswitch.core.layout import MACHINE_VERSION
from simswitch.core.machine import xxh64
from simswitch.journal.append import Journal, JournalSettings
from simswitch.journal.disk import RealDisk
from simswitch.journal.format import record_bytes

from benches.report import Result

SEGMENT_BYTES = 64 << 20
SIZES = (32 << 10, 256 << 10, 1 << 20)
WARM_UP = 5
# Of the time of a bare write and fdatasync.
GOAL = 1.2


def measure(folder: Path, payload_bytes: int, rounds: int, progress: Callable[[str], None]) -> Result:
    """Median time of a durable append of ``payload_bytes``. ``folder`` is made, and removed afterwards."""
    progress(f"journal.commit, {payload_bytes >> 10} KiB")
    size = record_bytes(payload_bytes)
    payload = bytes(range(256)) * (payload_bytes // 256)
    block = bytes(range(256)) * (size // 256)
    ours, bare = [], []
    folded = 0
    settings = JournalSettings(segment_bytes=SEGMENT_BYTES, free_mark_bytes=0)
    journal = Journal(RealDisk(folder), bytes(16), MACHINE_VERSION, settings=settings)
    file = _prewritten(folder / "bare", (rounds + WARM_UP) * size)
    try:
        for number in range(rounds + WARM_UP):
            journal.admit(payload_bytes)
            before = time.perf_counter_ns()
            sequence = journal.append(number, 0, payload, 0)
            ours.append(time.perf_counter_ns() - before)
            folded = xxh64(sequence.to_bytes(8, "little"), folded ^ journal.previous_checksum)
            before = time.perf_counter_ns()
            os.pwrite(file, block, number * size)
            os.fdatasync(file)
            bare.append(time.perf_counter_ns() - before)
    finally:
        os.close(file)
        journal.close()
        shutil.rmtree(folder)
    return Result(
        name="journal.commit",
        size=payload_bytes,
        value=median(ours[WARM_UP:]) / 1e3,
        unit="us",
        hash=f"{folded:016x}",
        reference=median(bare[WARM_UP:]) / 1e3,
        goal=GOAL,
        goal_of="ratio",
        note="reference: pwrite and fdatasync of as many bytes, prewritten file",
    )


def _prewritten(path: Path, size: int) -> int:
    """An open file whose blocks have all been written and are durable."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    zeros = bytes(1 << 20)
    for offset in range(0, size, len(zeros)):
        os.pwrite(file, zeros[: size - offset], offset)
    os.fsync(file)
    return file

"""What happens in a replay, written into a history by the projector that follows a service's journal.

The twin keeps no journal: each batch goes to the projector as the record that a journal would have kept. So whatever is
read from such a history was counted as it is counted in a service, from the same columns.
"""

from __future__ import annotations

from pathlib import Path

from simswitch.cell import Cell
from simswitch.clock import VirtualClock
from simswitch.core import commands, layout
from simswitch.core.machine import Machine, Outcome
from simswitch.history.projector import Projector
from simswitch.history.schema import NAME, HistoryRefused
from simswitch.journal.format import RecordHeader
from simswitch.journal.walk import Record

JOURNAL_ID = b"of a replay, no\0"
"""In the place of a journal's name."""
COMMIT_RECORDS = 4096


class RecordedCell:
    """A cell in memory whose batches go to a history. ``close`` writes the last of it."""

    def __init__(self, cell: Cell, clock: VirtualClock, folder: Path) -> None:
        if (folder / NAME).exists():
            raise HistoryRefused(f"{folder / NAME} exists already: name another folder, or move it away")
        folder.mkdir(parents=True, exist_ok=True)
        self._cell = cell
        self._clock = clock
        self._projector = Projector(folder)
        self._sequence = 0

    @property
    def machine(self) -> Machine:
        return self._cell.machine

    def step(self, batch: bytes) -> Outcome:
        outcome = self._cell.step(batch)
        machine = self._cell.machine
        self._sequence += 1
        header = RecordHeader(
            payload_hash=0,
            payload_bytes=len(batch),
            machine_version=layout.MACHINE_VERSION,
            journal_id=JOURNAL_ID,
            sequence=self._sequence,
            now_ms=machine.now_ms,
            seed=0,
            durable_sequence=0,
            previous_checksum=self._sequence - 1,
            outcome_hash=outcome.hash,
        )
        record = Record(header, self._sequence, memoryview(batch), 0, 0)
        self._projector.applied(record, commands.outcome_runs(outcome.data), machine)
        if self._sequence % COMMIT_RECORDS == 0:
            self.commit()
        return outcome

    def step_tick(self) -> Outcome | None:
        due_ms = self._cell.machine.next_due_ms
        if due_ms is None or due_ms > self._clock.now_ms():
            return None
        return self.step(commands.run(layout.TICK))

    def commit(self) -> None:
        """What has happened so far can be read."""
        self._projector.commit(self._sequence)

    def close(self) -> None:
        self.commit()
        self._projector.close()
        self._cell.close()

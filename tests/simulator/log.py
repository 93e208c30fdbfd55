"""What every record that was ever applied was, and what state it left: the auditor's own memory."""

from __future__ import annotations

from dataclasses import dataclass

from tests.model.records import Regions

# More than a recovery ever replays: where nobody takes snapshots, all since the last clean end.
RECORDS_KEPT = 16_384


class Violation(AssertionError):
    """Something that must never happen has happened."""


@dataclass(slots=True)
class Applied:
    batch: bytes
    now_ms: int
    seed: int
    outcomes: bytes
    outcome_hash: int
    state_hash: int
    regions: Regions | None
    """Until the model has followed."""


class Log:
    """Records by sequence. What a crash took is forgotten; what the model has followed needs its hash only."""

    def __init__(self) -> None:
        self._records: dict[int, Applied] = {}
        self.last = 0
        """The last record that was applied."""
        self.acknowledged = 0
        """The last one of which anybody outside was shown anything."""
        self.followed = 0
        """The last one that the model has followed."""
        self.history = 0
        """The last one that history has committed."""

    def __getitem__(self, sequence: int) -> Applied:
        return self._records[sequence]

    def has(self, sequence: int, batch: bytes, now_ms: int, seed: int) -> bool:
        found = self._records.get(sequence)
        return found is not None and (found.batch, found.now_ms, found.seed) == (batch, now_ms, seed)

    def add(self, sequence: int, record: Applied) -> None:
        if sequence != self.last + 1:
            raise Violation(f"record {sequence} was applied after record {self.last}")
        self._records[sequence] = record
        self.last = sequence
        self._records.pop(sequence - RECORDS_KEPT, None)

    def show(self, sequence: int) -> None:
        self.acknowledged = max(self.acknowledged, sequence)

    def judge(self, sequence: int, state_hash: int, what: str) -> None:
        """Whether a state that was recovered is one that may be found now (I6, I10)."""
        if sequence < self.acknowledged:
            raise Violation(f"I6: {what} ends at sequence {sequence}; {self.acknowledged} was acknowledged")
        if sequence > self.last:
            raise Violation(f"I6: {what} is at sequence {sequence}, and nothing above {self.last} was ever applied")
        if state_hash != self._records[sequence].state_hash:
            raise Violation(f"I10: {what} has another state at sequence {sequence} than was there")

    def cut(self, sequence: int) -> None:
        """The records above are gone for good."""
        for lost in range(sequence + 1, self.last + 1):
            del self._records[lost]
        self.last = sequence

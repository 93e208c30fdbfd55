"""An access server's operations: one honest first-in-first-out queue.

Giving a terminal its SIM and switching a terminal are operations alike: one at a time, each as long as the other. Who
asked waits for the answer at most so long; an operation whose asker has given up is found abandoned when its turn comes
and costs nothing. An operation that has begun is finished even when its asker gives up meanwhile.

Time is what the caller says, so that the queue can be checked against closed forms; finishing times are exact however
seldom the queue is looked at. Unbounded on purpose: that is what happened in 2020.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Operation(Generic[T]):
    """One operation from the moment it is asked for."""

    payload: T
    arrived_s: float
    deadline_s: float
    """When its asker gives up."""
    began_s: float = 0.0
    finished_s: float = 0.0
    """0: not yet."""
    given_up: bool = False
    answered: bool = False
    """Its asker has had an answer, in time or not."""

    def abandon(self) -> None:
        """Nobody wants it any more. When its turn comes it costs nothing."""
        self.deadline_s = float("-inf")


class OperationQueue(Generic[T]):
    """The queue of one access server."""

    def __init__(self, operations_per_s: float) -> None:
        self.service_s = 1.0 / operations_per_s
        self._waiting: deque[Operation[T]] = deque()
        self._impatient: deque[Operation[T]] = deque()
        self._serving: Operation[T] | None = None
        self._free_s = 0.0
        self.last_wait_s = 0.0
        """How long the operation that began last had waited."""
        self._waits_s = 0.0
        self._begun_count = 0
        self._longest_s = 0.0

    def __len__(self) -> int:
        """Operations that wait, abandoned ones included."""
        return len(self._waiting)

    def add(self, payload: T, now_s: float, patience_s: float = float("inf")) -> Operation[T]:
        """Asks for an operation. Impatient ones must all have the same patience, so that they give up in order."""
        operation = Operation(payload, now_s, now_s + patience_s)
        self._waiting.append(operation)
        if patience_s != float("inf"):
            self._impatient.append(operation)
        return operation

    def advance(self, now_s: float) -> list[Operation[T]]:
        """The operations that have finished by now, in order."""
        finished: list[Operation[T]] = []
        while True:
            serving = self._serving
            if serving is not None:
                end = serving.began_s + self.service_s
                if end > now_s:
                    return finished
                serving.finished_s = self._free_s = end
                finished.append(serving)
                self._serving = None
            while self._waiting:
                head = self._waiting.popleft()
                begin = max(self._free_s, head.arrived_s)
                if head.deadline_s <= begin:
                    head.given_up = True  # abandoned: it costs nothing
                    continue
                head.began_s = begin
                self.last_wait_s = begin - head.arrived_s
                self._waits_s += self.last_wait_s
                self._begun_count += 1
                self._longest_s = max(self._longest_s, self.last_wait_s)
                self._serving = head
                break
            else:
                return finished

    def give_up(self, now_s: float) -> list[Operation[T]]:
        """The operations whose askers have given up by now. Call it after ``advance``."""
        gone: list[Operation[T]] = []
        while self._impatient and self._impatient[0].deadline_s <= now_s:
            operation = self._impatient.popleft()
            if not operation.answered:
                operation.given_up = True
                gone.append(operation)
        return gone

    def wait_s(self, now_s: float) -> float:
        """How long an operation waits now before it is begun: what the longest waiting one has waited, at least."""
        waiting = next((operation for operation in self._waiting if operation.deadline_s > now_s), None)
        if waiting is None:
            return self.last_wait_s if self._serving is not None else 0.0
        return max(self.last_wait_s, now_s - waiting.arrived_s)

    def take_mean_wait_s(self, now_s: float) -> float:
        """How long operations waited before they were begun, on average since this was last asked."""
        if not self._begun_count:
            return self.wait_s(now_s)
        mean_s = self._waits_s / self._begun_count
        self._waits_s = 0.0
        self._begun_count = 0
        return mean_s

    def take_longest_wait_s(self) -> float:
        """The longest that an operation waited before it was begun, since this was last asked."""
        longest_s, self._longest_s = self._longest_s, 0.0
        return longest_s

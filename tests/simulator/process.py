"""One life of a server process in the simulator: the real cell, its two workers driven by one thread.

``Cell`` is used as it ships, with its locks, its gathering and its order of apply, commit and deliver. Only who runs
when is taken from the kernel: a group is served when the simulator says so, and while its record is on its way to the
disk the second worker may apply the next group, and then waits for the commit lock until the first one is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from simswitch.cell import Cell, Posted, _answer, _Waiting
from simswitch.core.machine import Machine, Outcome


class PowerCut(BaseException):
    """The machine lost its power: nothing of the process runs any more."""


class ProcessEnded(BaseException):
    """The process ended: its fail stop was called, or somebody killed it."""


class FollowerKilled(BaseException):
    """Somebody killed the follower; its server goes on."""


class Watched:
    """A machine whose applies are told to somebody, before and after."""

    def __init__(self, machine: Machine, witness: Witness) -> None:
        self.machine = machine
        self._witness = witness

    def apply(self, batch: bytes, now_ms: int, seed: int) -> Outcome:
        self._witness.before(self.machine, batch, now_ms, seed)
        outcome = self.machine.apply(batch, now_ms, seed)
        self._witness.after(self.machine, batch, now_ms, seed, outcome)
        return outcome

    def __getattr__(self, name: str) -> Any:
        return getattr(self.machine, name)


class Witness:
    """Whoever wants to know what a machine does."""

    def before(self, machine: Machine, batch: bytes, now_ms: int, seed: int) -> None: ...

    def after(self, machine: Machine, batch: bytes, now_ms: int, seed: int, outcome: Outcome) -> None: ...


class Call(Posted):
    """A run that somebody sent, what it should be answered, and the record that it became part of."""

    __slots__ = ("expected", "sequence")

    def __init__(self, run: bytes, finish: Callable[[Sequence[Posted]], object]) -> None:
        super().__init__(run, finish)
        self.sequence = 0
        self.expected = b""


class _SecondWorker:
    """A thread that runs only while the first one waits for it."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._ended = False
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._work()
        except BaseException as error:
            self._error = error
        self._ended = True
        self._back.release()

    def go_on(self) -> None:
        """Until it waits or ends; what it raised is raised here."""
        if not self._ended:
            self._go.release()
            self._back.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        self._back.release()
        self._go.acquire()

    def end(self) -> None:
        while not self._ended:
            self._go.release()
            self._back.acquire()
        self.thread.join()


class _TurnLock:
    """The commit lock: who finds it taken lets the other worker go on."""

    def __init__(self, process: SimulatedCell) -> None:
        self._process = process
        self._held = False

    def acquire(self) -> None:
        while self._held:
            second = self._process.second
            assert second is not None
            assert threading.current_thread() is second.thread
            second.wait()
            if self._process.dead:
                raise PowerCut
        self._held = True

    def release(self) -> None:
        self._held = False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class SimulatedCell(Cell):
    """A cell whose workers take turns as the simulator says."""

    second: _SecondWorker | None = None
    dead = False

    def begin(self) -> None:
        """As ``start`` does, without threads of its own."""
        self._next_due_ms = self._machine.next_due_ms
        self._workers = [threading.main_thread()]
        self._commit_lock = _TurnLock(self)  # type: ignore[assignment]

    def step(self, batch: bytes) -> Outcome:
        workers, self._workers = self._workers, []
        try:
            return super().step(batch)
        finally:
            self._workers = workers

    def due(self) -> bool:
        """Whether a worker that looked now would find something to do."""
        # How long ticks rest on a full disk is measured in real time, which the simulator has none of.
        self._ticks_paused_until_s = 0.0
        return bool(self._queue) or self._tick_wait_s() <= 0

    def serve(self) -> None:
        """What one worker does with one group, and the other with the next if ``overlap`` was called meanwhile."""
        try:
            self._serve_group()
            if self.second is not None:
                self.second.go_on()
        finally:
            if self.second is not None:
                self.second.end()
                self.second = None

    def overlap(self) -> None:
        """The second worker applies the next group while the first one's is being written."""
        if self.second is None and self.due():
            self.second = _SecondWorker(self._serve_group)
            self.second.go_on()

    @property
    def committing(self) -> bool:
        return self._committing and self.second is None

    def look(self, function: Callable[[Machine], Any], told: Callable[[Future[Any]], object]) -> None:
        """A read, whose result is told when the cell gives it."""
        future: Future[Any] = Future()
        future.add_done_callback(told)
        self._post_waiting(_Waiting(b"", function, future, _answer, None))

    def end(self) -> None:
        """A clean end, with its snapshot."""
        self._workers = []
        self.close()

    def confirm(self) -> None:
        """The operator's word that the wall clock is right; THAW has to follow."""
        self._clock.confirm()

    def note_frozen(self) -> None:
        self._note_frozen(self._machine)

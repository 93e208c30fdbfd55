"""A cell: one engine, one journal and one clock; the only place where commands meet time and disk.

A cell is used in one of two ways. ``step`` applies one batch and returns when it is durable: for the twin, for tools
and tests. After ``start``, calls are gathered into groups: ``post`` from a transport, ``submit`` and ``read`` from
asyncio, ``call`` from any thread.

    post   ──▶ queue ──▶ worker A:  gather, apply ┃ write, fdatasync ┃ deliver
                         worker B:                ┃ gather, apply    ┃ write, fdatasync ┃ deliver
                                                  ┃                  ┃
                            apply lock ───────────┘   commit lock ───┘   deliver lock

Two workers do the same work in turn, and each takes the next lock before it lets go of the last, so groups can't
overtake each other. A group goes from its application to its fdatasync without changing threads; while one worker waits
for the disk, the other gathers and applies the next group.

- A worker that finds the disk idle takes what there is at once. While a commit runs, a small group goes on gathering
  until it ends: applying it earlier would gain nothing and cost the next commit its company. A group that is large
  enough to make applying worth overlapping is closed and applied meanwhile.
- A lone call needn't change threads at all: where nothing else is under way, ``serve_alone`` lets whoever brings it do
  the worker's part, which then sleeps on. A hand-off costs up to 90 µs; a thread that is soon busy with more gains
  nothing by it, so this is for transports that see that no other call has come.
- One group is one record of the journal. When a run in it is malformed, the machine has applied nothing of the group:
  it is halved, each half tried as a record of its own, until the bad run stands alone and is refused alone.
- Nothing leaves before it is durable: no reply, no order, no result of a read. What a read shows is at least as new as
  everything that was submitted before it.
- The queue is bounded in calls and in bytes. Past that, ``CellOverloaded`` at once. A call whose deadline has passed or
  that was cancelled before its turn is dropped without being applied.
- Time in which nothing could be applied, a minute and more of it, takes nobody's lease and settles no death: the clock
  is frozen and confirmed (FREEZE, THAW) before anything else is applied.
- A failed write ends the process (``journal.append``). So does a machine that fails in the middle of a batch.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import logging
import math
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from simswitch.clock import Clock, VirtualClock, WallClock
from simswitch.core import commands
from simswitch.core.commands import OutcomeRun
from simswitch.core.layout import FREEZE, GROW, RESTART, THAW, TICK
from simswitch.core.machine import Machine, MalformedBatch, Outcome
from simswitch.journal.append import FailStop, Journal, JournalSettings, end_process
from simswitch.journal.disk import Disk, Lock, RealDisk
from simswitch.journal.errors import (
    FolderInUse,
    JournalDamaged,
    JournalError,
    JournalFailed,
    JournalFull,
    JournalShort,
    RecordTooLarge,
)
from simswitch.journal.follower import read_alarm
from simswitch.journal.recovery import MachineKind, Progress, Recovery, real_machine, recover
from simswitch.journal.snapshot import newest_snapshot_sequence, prune, write_snapshot
from simswitch.tally import Tally

__all__ = [
    "STALL_S",
    "Capacity",
    "Cell",
    "CellClosed",
    "CellExpired",
    "CellFailed",
    "CellOverloaded",
    "CellSettings",
    "CellStatistics",
    "FolderInUse",
    "JournalDamaged",
    "JournalError",
    "JournalFailed",
    "JournalFull",
    "JournalSettings",
    "Posted",
    "RecordTooLarge",
    "VirtualClock",
    "WallClock",
]

log = logging.getLogger("simswitch.service")

T = TypeVar("T")

_RUN_SIZE_KIND = struct.Struct("<IH")
_RUN_HEADER_BYTES = commands.RUN_HEADER.itemsize
_OUTCOME_HEADER = struct.Struct("<IHHII")

COMMIT_ALONE_US_MAX = 1_000
"""Where the last commit took longer, no caller waits for the next one itself."""

COMMIT_BOUNDS_US = (100, 200, 300, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000, 2_000_000)
GROUP_BOUNDS = tuple(1 << power for power in range(0, 14, 2))

STALL_S = 60.0
"""What runs out by time doesn't count a time of this length in which nothing could be applied."""

# An idle cell looks at the time at least this often, so that a clock that is set while it waits is noticed.
_IDLE_WAIT_MAX_S = 1.0


class CellOverloaded(RuntimeError):
    """The queue is full. Nothing was applied; trying again a little later is safe."""


class CellClosed(RuntimeError):
    """The cell is closing or closed. Nothing was applied."""


class CellExpired(TimeoutError):
    """The deadline passed before the call's turn came. Nothing was applied."""


class CellFailed(RuntimeError):
    """The cell has failed. Whether the call was applied and is durable will be known after recovery."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the machine has memory for. It only grows."""

    sims: int = 100_000
    terminals: int = 100_000
    orders: int = 20_000


@dataclass(frozen=True, slots=True)
class CellSettings:
    queue_calls_max: int = 16_384
    queue_bytes_max: int = 64 * 1024 * 1024
    group_calls_max: int = 4_096
    group_bytes_max: int = 1024 * 1024
    overlap_bytes: int = 32 * 1024
    """A group of this size is applied while the one before is still being made durable; a smaller one goes on
    gathering."""


@dataclass(frozen=True, slots=True)
class CellStatistics:
    groups_count: int
    calls_count: int
    commit_us: int
    """How long the last write and fdatasync took."""
    queued_calls: int
    queued_bytes: int


class Posted:
    """A run that waits for its turn. A transport adds, in a subclass, what it needs to answer it.

    ``finish`` gets all calls of a group that name it, in the order in which they were posted, once they are durable or
    refused; it runs on a worker and must not wait. Each has then either ``outcome`` or ``error``.
    """

    __slots__ = ("cancelled", "deadline", "error", "finish", "outcome", "run")

    def __init__(self, run: bytes, finish: Finish, deadline: float | None = None) -> None:
        self.run = run
        self.finish = finish
        self.deadline = deadline
        """An instant of ``time.monotonic()``."""
        self.cancelled = False
        """Set by whoever posted it when nobody waits any more: it is dropped unless it was applied before."""
        self.outcome: OutcomeRun | None = None
        self.error: BaseException | None = None


Finish = Callable[[Sequence[Posted]], object]


class _Waiting(Posted):
    """A run, or a read, whose result a future waits for; ``future`` is asyncio's or a thread's."""

    __slots__ = ("function", "future", "result")

    def __init__(
        self,
        run: bytes,
        function: Callable[[Machine], Any] | None,
        future: asyncio.Future[Any] | concurrent.futures.Future[Any],
        finish: Finish,
        deadline: float | None,
    ) -> None:
        super().__init__(run, finish, deadline)
        self.function = function
        self.future = future
        self.result: Any = None

    def answer(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.outcome if self.function is None else self.result)


def _answer(calls: Sequence[Posted]) -> None:
    for call in calls:
        assert isinstance(call, _Waiting)
        call.answer()


class _Record:
    """What one apply took and gave, on its way to the journal."""

    __slots__ = ("batch", "now_ms", "outcome", "seed", "told")

    def __init__(self, batch: bytes, now_ms: int, seed: int, outcome: Outcome) -> None:
        self.batch = batch
        self.now_ms = now_ms
        self.seed = seed
        self.outcome = outcome
        self.told: Sequence[OutcomeRun] = ()
        """The runs of orders and of events, where there are any."""


class _Group:
    """Calls that were taken from the queue together, and the records that came of them: one, unless a run was
    malformed."""

    __slots__ = ("calls", "records")

    def __init__(self, calls: list[Posted]) -> None:
        self.calls = calls
        self.records: list[_Record] = []


def _finish(calls: Sequence[Posted]) -> None:
    """Calls each callback once, with all calls that name it."""
    first = calls[0].finish
    if all(call.finish == first for call in calls):
        first(calls)
        return
    groups: dict[Finish, list[Posted]] = {}
    for call in calls:
        groups.setdefault(call.finish, []).append(call)
    for finish, group in groups.items():
        finish(group)


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _random_seed() -> int:
    return int.from_bytes(os.urandom(8), "little")


def _outcome_runs(data: bytes) -> list[OutcomeRun]:
    # commands.outcome_runs reads each header through NumPy; this is in the way of every call.
    view = memoryview(data)
    runs = []
    offset = 0
    while offset < len(view):
        size, kind, _, count, _ = _OUTCOME_HEADER.unpack_from(view, offset)
        runs.append(OutcomeRun(kind, count, view[offset + _OUTCOME_HEADER.size : offset + size]))
        offset += size
    return runs


class Cell:
    """Made by ``Cell.open`` (a data folder) or ``Cell.in_memory``; ended by ``close``."""

    on_orders: Callable[[OutcomeRun], object] | None = None
    """Called once for each record that has orders, in sequence order, before that record's replies are given.
    In the event loop if the cell was started in one, else on a worker."""
    on_events: Callable[[OutcomeRun, int], object] | None = None
    """The same for each record that has events, with its instant."""

    def __init__(
        self,
        machine: Machine,
        clock: Clock,
        seeds: Callable[[], int],
        settings: CellSettings,
        journal: Journal | None = None,
        fail_stop: FailStop = end_process,
    ) -> None:
        self._machine = machine
        self._clock = clock
        self._seeds = seeds
        self._settings = settings
        # A group is one record, and a record has to fit into a segment.
        self._group_bytes_max = min(
            settings.group_bytes_max, settings.group_bytes_max if journal is None else journal.payload_bytes_max
        )
        self._journal = journal
        self._fail_stop = fail_stop
        self._disk: Disk | None = None
        self._lock_held: Lock | None = None
        self._machine_version = 0
        self.recovery: Recovery | None = None
        """What recovery found and did; None for a cell in memory."""
        self._frozen = False
        self._next_due_ms: int | None = None
        self._failed: BaseException | None = None
        self._ended = False
        self._closing = False
        self._closed = False
        # The queue and what belongs to it are guarded by _mutex.
        self._mutex = threading.Lock()
        self._arrived = threading.Condition(self._mutex)
        self._queue: deque[Posted] = deque()
        self._queued_bytes = 0
        self._gathering = False
        self._committing = False
        # A worker that waits for calls has lent its turn to a caller, and sleeps until this instant unless woken.
        self._lent = False
        self._sleeps_until_s = 0.0
        self._ticks_paused_until_s = 0.0
        # When the cell could last have applied something. A full disk, a commit that hangs or a process that is stopped
        # keeps it where it is.
        self._able_s = time.monotonic()
        # Held by the worker that gathers and applies; by the one that writes; by the one that delivers.
        self._apply_lock = threading.Lock()
        self._commit_lock = threading.Lock()
        self._deliver_lock = threading.Lock()
        self._workers: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._groups_count = 0
        self._calls_count = 0
        self._commit_us = 0
        self.commits_us = Tally(COMMIT_BOUNDS_US)
        """How long writes and fdatasyncs took."""
        self.groups_calls = Tally(GROUP_BOUNDS)
        """How many calls the groups had; a tick is a group of none."""

    # ------------------------------------------------------------------------------------------ life cycle

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        capacity: Capacity | None = None,
        settings: CellSettings | None = None,
        journal: JournalSettings | None = None,
        clock: Clock | None = None,
        seeds: Callable[[], int] = _random_seed,
        entropy: Callable[[int], bytes] = os.urandom,
        disk: Disk | None = None,
        machine: MachineKind | None = None,
        fail_stop: FailStop = end_process,
        progress: Progress | None = None,
        known: tuple[bytes, int] | None = None,
    ) -> Cell:
        """Creates the cell of an empty folder, or recovers it. The first command after a recovery is RESTART.

        ``known``: of which journal somebody else has seen how many records durable; one that ends before is refused.
        Raises ``FolderInUse``, ``JournalDamaged`` and the other refusals of recovery; then nothing was changed.
        """
        disk = disk or RealDisk(folder)
        kind = machine or real_machine()
        clock = clock or WallClock()
        lock_held = disk.lock()
        writer: Journal | None = None
        try:
            recovery = recover(disk, kind, repair=True, progress=progress)
            if known and recovery.journal_id in (None, known[0]) and recovery.machine.sequence < known[1]:
                raise JournalShort(known[1], recovery.machine.sequence)
            journal_id = recovery.journal_id or entropy(16)
            writer = Journal(disk, journal_id, kind.version, recovery.place, journal, fail_stop)
            cell = cls(recovery.machine, clock, seeds, settings or CellSettings(), writer, fail_stop)
            cell._disk = disk
            cell._lock_held = lock_held
            cell._machine_version = kind.version
            cell.recovery = recovery
            clock.begin(recovery.machine.now_ms)
            cell._frozen = bool(recovery.machine.header().get("frozen", 0))
            if recovery.journal_id is not None:
                cell.step(commands.run(RESTART))
            cell._grow(capacity or Capacity())
        except BaseException:
            if writer is not None:
                writer.close()
            lock_held.release()
            raise
        return cell

    @classmethod
    def in_memory(
        cls,
        *,
        capacity: Capacity | None = None,
        settings: CellSettings | None = None,
        clock: Clock | None = None,
        seeds: Callable[[], int] = _random_seed,
        machine: MachineKind | None = None,
    ) -> Cell:
        """A cell that keeps no journal: the twin's, and that of tests."""
        kind = machine or real_machine()
        cell = cls(kind.create(), clock or WallClock(), seeds, settings or CellSettings())
        cell._clock.begin(cell._machine.now_ms)
        cell._grow(capacity or Capacity())
        return cell

    def _grow(self, capacity: Capacity) -> None:
        header = self._machine.header()
        sims = max(capacity.sims, header["sims_max"])
        terminals = max(capacity.terminals, header["terminals_max"])
        orders = max(capacity.orders, header["orders_max"])
        if (sims, terminals, orders) == (header["sims_max"], header["terminals_max"], header["orders_max"]):
            return
        outcome = self.step(commands.run(GROW, sims=sims, terminals=terminals, orders=orders))
        status = int(_outcome_runs(outcome.data)[0]["status"][0])
        if status not in (1, 2):
            raise ValueError(f"the machine refused to grow to {capacity} (status {status})")

    def start(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Begins to serve ``submit``, ``read`` and ``call``. Replies go to ``loop``, by default the running one."""
        if self._workers:
            raise RuntimeError("the cell was started before")
        if loop is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                loop = None
        self._loop = loop
        self._able_s = time.monotonic()
        self._next_due_ms = self._machine.next_due_ms
        self._workers = [
            threading.Thread(target=self._work, name=f"simswitch-cell-{name}", daemon=True) for name in ("a", "b")
        ]
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """Takes nothing new, finishes what is queued, and returns when all of it is durable and handed out."""
        with self._mutex:
            self._closing = True
            self._arrived.notify_all()
        for worker in self._workers:
            worker.join()
        # A caller that served itself may still be handing out.
        with self._commit_lock, self._deliver_lock:
            pass

    def close(self, *, snapshot: bool = True, remove: bool = True) -> bool:
        """``stop``, then a snapshot of the last state, and the folder is free for the next server.

        ``remove``: snapshots and segments that are not needed any more to start from. Whoever keeps history may still
        need them.

        False: there was no room for the snapshot. The journal has everything; the next start replays its tail, and only
        a server of the same machine version can.
        """
        self.stop()
        if self._closed:
            return True
        self._closed = True
        journal, disk = self._journal, self._disk
        complete = True
        try:
            if journal is not None and disk is not None and self._failed is None:
                if snapshot and newest_snapshot_sequence(disk) < journal.durable_sequence:
                    try:
                        write_snapshot(
                            disk, self._machine, journal.journal_id, self._machine_version, journal.previous_checksum
                        )
                    except OSError as error:
                        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                            raise
                        complete = False
                if remove:
                    assert self.recovery is not None
                    prune(disk, keep_ms=journal.settings.keep_ms, damages=self.recovery.damages)
        finally:
            if journal is not None:
                journal.close()
            if self._lock_held is not None:
                self._lock_held.release()
        return complete

    # ------------------------------------------------------------------------------------------ one by one

    def step(self, batch: bytes) -> Outcome:
        """Applies a batch at the clock's instant and returns its outcomes when they are durable."""
        if self._workers:
            raise RuntimeError("a started cell takes commands through submit and call")
        if self._failed is not None:
            raise CellFailed(str(self._failed)) from self._failed
        now_ms = self._clock.now_ms()
        if self._clock.jumped and not self._frozen:
            self._commit([self._apply_batch(commands.run(FREEZE), now_ms)])
            self._frozen = True
        record = self._apply_batch(batch, now_ms)
        self._commit([record])
        return record.outcome

    def step_tick(self) -> Outcome | None:
        """A TICK if one is due at the clock's instant, else nothing."""
        due_ms = self._machine.next_due_ms
        if due_ms is None or due_ms > self._clock.now_ms():
            return None
        return self.step(commands.run(TICK))

    @property
    def machine(self) -> Machine:
        """The machine itself, while the cell is not started. Afterwards only ``read`` may see it."""
        if self._workers and not self._closed:
            raise RuntimeError("a started cell shows its machine through read only")
        return self._machine

    @property
    def journal_id(self) -> bytes | None:
        return None if self._journal is None else self._journal.journal_id

    @property
    def durable_sequence(self) -> int:
        """The highest sequence that is durable; in memory, that is applied."""
        return self._machine.sequence if self._journal is None else self._journal.durable_sequence

    @property
    def disk_full(self) -> str:
        """Why nothing that changes something is taken, when the disk is what is in the way; empty: there is room."""
        return "" if self._journal is None else self._journal.full()

    @property
    def alarm(self) -> str:
        """What the follower has found wrong, and what recovery had to pass over as long as its file is there; empty:
        nothing."""
        disk, recovery = self._disk, self.recovery
        if disk is None or recovery is None:
            return ""
        there = set(disk.names()) if recovery.damages else ()
        passed = [str(damage) for damage in recovery.damages if damage.file in there]
        return "; ".join(filter(None, [read_alarm(disk), *passed]))

    @property
    def clock_frozen(self) -> bool:
        """The clock jumped: expiry and resets wait for ``confirm_clock``."""
        return self._frozen

    # ------------------------------------------------------------------------------------------ many at once

    def post(self, calls: Sequence[Posted]) -> None:
        """Queues runs of commands, from any thread; each is finished once, perhaps before ``post`` returns.

        Those that can't be queued are finished at once with ``ValueError`` for bytes that are not one run,
        ``RecordTooLarge``, ``CellOverloaded``, ``CellClosed`` or ``CellFailed``; later errors are ``MalformedBatch``,
        ``CellExpired``, ``JournalFull`` and ``CellFailed``. With all but the last nothing was applied.
        """
        refused: list[Posted] | None = None
        for call in calls:
            call.error = self._wrong(call.run)
        with self._mutex:
            for call in calls:
                if call.error is None:
                    call.error = self._enqueue(call)
                if call.error is not None:
                    refused = refused or []
                    refused.append(call)
            if self._gathering:
                self._arrived.notify()
        if refused is not None:
            _finish(refused)

    def serve_alone(self, call: Posted) -> bool:
        """``post`` that returns when the call is finished, if nothing else is under way; False: nothing was done.

        The thread waits for the disk, so nothing is done either where the last commit was a slow one.
        """
        if self._commit_us > COMMIT_ALONE_US_MAX or self._wrong(call.run) is not None:
            return False
        with self._mutex:
            if not self._gathering or self._committing or self._lent or self._queue or self._closing:
                return False
            if self._failed is not None:
                return False
            self._lent = True
        group = _Group([call])
        try:
            self._apply_for_commit(group)
            with self._mutex:
                # The worker is woken only if it would be late: waking it costs the next lone call its processor.
                self._lent = False
                if self._queue or time.monotonic() + self._tick_wait_s() < self._sleeps_until_s:
                    self._arrived.notify()
            self._commit_and_deliver(group)
        except BaseException as error:
            # Where the fail stop returns, in tests, the workers have to find out too.
            self._end_process(error)
            self._lent = False
            self._fail(error)
        return True

    def submit(self, run: bytes, deadline: float | None = None) -> asyncio.Future[OutcomeRun]:
        """``post`` for the cell's event loop; ``await`` gives the outcomes, the errors of the queue are raised here."""
        future: asyncio.Future[OutcomeRun] = self._running_loop().create_future()
        self._post_waiting(_Waiting(run, None, future, self._finish_in_loop, deadline))
        return future

    def read(self, function: Callable[[Machine], T], deadline: float | None = None) -> asyncio.Future[T]:
        """Runs ``function(machine)`` between two groups; ``await`` gives its result once what it saw is durable.

        The function holds up allocations while it runs, so it should be short, and it must not keep the machine.
        """
        future: asyncio.Future[T] = self._running_loop().create_future()
        self._post_waiting(_Waiting(b"", function, future, self._finish_in_loop, deadline))
        return future

    def call(self, run: bytes, timeout_s: float | None = None) -> OutcomeRun:
        """``submit`` for a thread that is not the event loop's: waits for the outcomes."""
        future: concurrent.futures.Future[OutcomeRun] = concurrent.futures.Future()
        self._post_waiting(_Waiting(run, None, future, _answer, _deadline(timeout_s)))
        return future.result()

    def call_read(self, function: Callable[[Machine], T], timeout_s: float | None = None) -> T:
        """``read`` for a thread that is not the event loop's."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._post_waiting(_Waiting(b"", function, future, _answer, _deadline(timeout_s)))
        return future.result()

    def _post_waiting(self, call: _Waiting) -> None:
        error = self._wrong(call.run) if call.function is None else None
        if error is None:
            with self._mutex:
                error = self._enqueue(call)
                if self._gathering:
                    self._arrived.notify()
        if error is not None:
            raise error

    async def confirm_clock(self, actor: int = 0) -> OutcomeRun:
        """An operator says that the wall clock is right: its time is taken, and THAW lets leases expire again.

        The clock leaps while the machine is still frozen, so that no lease is judged by the leap.
        """
        await self.read(lambda _: self._clock.confirm())
        outcome = await self.submit(commands.run(THAW, actor=actor))
        await self.read(self._note_frozen)
        return outcome

    def _note_frozen(self, machine: Machine) -> None:
        self._frozen = bool(machine.header().get("frozen", 0))

    def statistics(self) -> CellStatistics:
        return CellStatistics(
            self._groups_count, self._calls_count, self._commit_us, len(self._queue), self._queued_bytes
        )

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is None:
            raise RuntimeError("the cell was not started in an event loop")
        return loop

    def _wrong(self, run: bytes) -> Exception | None:
        """The frame of a run is checked before it joins others, so that none can reach into its neighbour's bytes."""
        if len(run) < _RUN_HEADER_BYTES or len(run) % 8 or _RUN_SIZE_KIND.unpack_from(run)[0] != len(run):
            return ValueError("the bytes are not one run of commands: size and header disagree")
        if self._journal is not None and len(run) > self._journal.payload_bytes_max:
            return RecordTooLarge(
                f"a run of {len(run)} bytes does not fit into a journal segment, which takes "
                f"{self._journal.payload_bytes_max}"
            )
        return None

    def _enqueue(self, call: Posted) -> Exception | None:
        """With ``_mutex`` held. What it gives is why the call was not queued."""
        settings = self._settings
        if self._closing or not self._workers:
            return CellClosed("the cell takes no more calls")
        if self._failed is not None:
            return CellFailed(str(self._failed))
        queued_bytes = self._queued_bytes + len(call.run)
        if len(self._queue) >= settings.queue_calls_max or queued_bytes > settings.queue_bytes_max:
            return CellOverloaded(f"{len(self._queue)} calls of {self._queued_bytes} bytes are waiting")
        self._queue.append(call)
        self._queued_bytes = queued_bytes
        return None

    # ------------------------------------------------------------------------------------------ the workers

    def _work(self) -> None:
        try:
            while self._serve_group():
                pass
        except BaseException as error:
            self._end_process(error)
            self._fail(error)

    def _end_process(self, error: BaseException) -> None:
        """The machine or the cell failed in the middle: what stands in memory can no longer be trusted.

        Comes before anybody is told. A journal that failed has ended the process already.
        """
        with self._mutex:
            ended, self._ended = self._ended, True
            self._failed = self._failed or error
        if not ended and not isinstance(error, JournalFailed):
            self._fail_stop(f"the cell failed: {type(error).__name__}: {error}")

    def _serve_group(self) -> bool:
        with self._apply_lock:
            if self._failed is not None:
                return False
            group = self._gather()
            if group is None:
                return False
            self._apply_for_commit(group)
        return self._commit_and_deliver(group)

    def _apply_for_commit(self, group: _Group) -> None:
        """Whose turn it is to apply leaves with the commit lock."""
        try:
            self._apply_group(group)
        except BaseException as error:
            self._end_process(error)
            self._refuse(group.calls, CellFailed(str(error)))
            raise
        self._commit_lock.acquire()
        self._committing = True

    def _commit_and_deliver(self, group: _Group) -> bool:
        try:
            if self._failed is not None:
                self._refuse(group.calls, CellFailed(str(self._failed)))
                return False
            try:
                self._commit(group.records)
            except BaseException as error:
                self._end_process(error)
                self._refuse(group.calls, CellFailed(str(error)))
                raise
            with self._mutex:
                self._committing = False
                # A worker that lent its turn sleeps on as long as it would have without.
                if self._gathering and (self._queue or self._sleeps_until_s == math.inf):
                    self._arrived.notify()
            self._deliver_lock.acquire()
        finally:
            self._commit_lock.release()
        try:
            self._deliver(group)
        finally:
            self._deliver_lock.release()
        return True

    def _gather(self) -> _Group | None:
        """Waits for calls or a due tick, and takes as many calls as one group may have. None: the cell is closing."""
        settings = self._settings
        with self._mutex:
            while True:
                self._note_able()
                ready = not self._committing or self._queued_bytes >= settings.overlap_bytes
                if self._queue and ready and not self._lent:
                    break
                wait_s: float | None = None
                if not self._committing and not self._lent:
                    if self._closing or self._failed is not None:
                        return None
                    wait_s = self._tick_wait_s()
                    if wait_s <= 0:
                        return _Group([])
                self._gathering = True
                self._sleeps_until_s = math.inf if wait_s is None else time.monotonic() + wait_s
                self._arrived.wait(wait_s)
                self._gathering = False
            calls: list[Posted] = []
            size = 0
            while self._queue and len(calls) < settings.group_calls_max:
                size += len(self._queue[0].run)
                if calls and size > self._group_bytes_max:
                    size -= len(self._queue[0].run)
                    break
                calls.append(self._queue.popleft())
            self._queued_bytes -= size
            return _Group(calls)

    def _note_able(self) -> None:
        now_s = time.monotonic()
        # A stall stands until the next apply has made up for it.
        if not self._ticks_paused_until_s and now_s - self._able_s < STALL_S:
            self._able_s = now_s

    def _tick_wait_s(self) -> float:
        if self._next_due_ms is None:
            return _IDLE_WAIT_MAX_S
        wait_s = (self._next_due_ms - self._clock.now_ms()) / 1000
        if self._ticks_paused_until_s:
            wait_s = max(wait_s, self._ticks_paused_until_s - time.monotonic())
        return min(wait_s, _IDLE_WAIT_MAX_S)

    def _apply_group(self, group: _Group) -> None:
        now_s = time.monotonic()
        runs: list[Posted] = []
        reads: list[_Waiting] = []
        for call in group.calls:
            if call.cancelled or (type(call) is _Waiting and call.future.cancelled()):
                continue
            if call.deadline is not None and call.deadline <= now_s:
                call.error = CellExpired("the deadline passed before the call's turn came")
            elif type(call) is _Waiting and call.function is not None:
                reads.append(call)
            else:
                runs.append(call)
        now_ms = self._clock.now_ms()
        try:
            if self._clock.jumped and not self._frozen:
                group.records.append(self._apply_batch(commands.run(FREEZE), now_ms))
                self._frozen = True
            elif now_s - self._able_s >= STALL_S and not self._frozen:
                # Nobody could renew a lease, answer or give a sign of life: leases get one lease more, and what waits
                # for an answer or a sign of life its whole time.
                group.records.append(self._apply_batch(commands.run(FREEZE) + commands.run(THAW), now_ms))
                log.warning(
                    "for %.0f s nothing could be done, since the disk was full or did not answer, or the process stood "
                    "still. Leases, orders and fencing delays don't count that time: each begins anew now",
                    now_s - self._able_s,
                )
                self._able_s = now_s
            if runs:
                self._apply_calls(group, runs, now_ms)
            elif self._next_due_ms is not None and now_ms >= self._next_due_ms:
                group.records.append(self._apply_batch(commands.run(TICK), now_ms))
            if group.records:
                self._ticks_paused_until_s = 0.0
                self._able_s = now_s
        except JournalFull as error:
            self._ticks_paused_until_s = time.monotonic() + _IDLE_WAIT_MAX_S
            for call in runs:
                if call.outcome is None and call.error is None:
                    call.error = error
        self._next_due_ms = self._machine.next_due_ms
        for call in reads:
            function = call.function
            assert function is not None
            try:
                call.result = function(self._machine)
            except Exception as error:
                call.error = error

    def _apply_calls(self, group: _Group, calls: list[Posted], now_ms: int) -> None:
        batch = b"".join([call.run for call in calls]) if len(calls) > 1 else calls[0].run
        try:
            record = self._apply_batch(batch, now_ms)
        except MalformedBatch as error:
            if len(calls) == 1:
                calls[0].error = error
                return
            middle = len(calls) // 2
            self._apply_calls(group, calls[:middle], now_ms)
            self._apply_calls(group, calls[middle:], now_ms)
            return
        group.records.append(record)
        runs = _outcome_runs(record.outcome.data)
        for call, run in zip(calls, runs, strict=False):
            call.outcome = run

    def _apply_batch(self, batch: bytes, now_ms: int) -> _Record:
        """Admission, then application: what was applied always has its place in the journal."""
        journal = self._journal
        if journal is not None:
            journal.admit(len(batch))
        seed = self._seeds()
        try:
            outcome = self._machine.apply(batch, now_ms, seed)
        except MalformedBatch:
            if journal is not None:
                journal.withdraw()
            raise
        except BaseException as error:
            # The machine may have stopped half way: nothing may be built on what stands in memory now.
            self._failed = error
            raise
        record = _Record(batch, now_ms, seed, outcome)
        if outcome.orders_count or outcome.events_count:
            # Whatever the batch was: most orders come of ticks.
            record.told = [found for found in _outcome_runs(outcome.data)[-2:] if found.count]
        return record

    def _commit(self, records: list[_Record]) -> None:
        journal = self._journal
        self._groups_count += len(records)
        if journal is None:
            return
        for record in records:
            began_ns = time.perf_counter_ns()
            try:
                journal.append(record.now_ms, record.seed, record.batch, record.outcome.hash)
            except BaseException as error:
                self._failed = error
                raise
            self._commit_us = (time.perf_counter_ns() - began_ns) // 1000
            self.commits_us.add(self._commit_us)

    def _deliver(self, group: _Group) -> None:
        """The event loop hears of a group once: its orders and events first. Everyone else is told here."""
        self._calls_count += len(group.calls)
        self.groups_calls.add(len(group.calls))
        told = [(found, record.now_ms) for record in group.records for found in record.told]
        in_loop = [call for call in group.calls if call.finish == self._finish_in_loop]
        if self._loop is None:
            self._hand_out(told, in_loop)
        elif told or in_loop:
            self._wake_loop(told, in_loop)
        if len(in_loop) < len(group.calls):
            _finish([call for call in group.calls if call.finish != self._finish_in_loop])

    def _finish_in_loop(self, calls: Sequence[Posted]) -> None:
        self._wake_loop([], calls)

    def _wake_loop(self, told: Sequence[tuple[OutcomeRun, int]], calls: Sequence[Posted]) -> None:
        loop = self._running_loop()
        try:
            loop.call_soon_threadsafe(self._hand_out, told, calls)
        except RuntimeError:
            # Nobody is left to be told. What was committed stays committed.
            if not loop.is_closed():
                raise

    def _hand_out(self, told: Sequence[tuple[OutcomeRun, int]], calls: Sequence[Posted]) -> None:
        try:
            for run, now_ms in told:
                if run.kind == commands.ORDERS:
                    if self.on_orders is not None:
                        self.on_orders(run)
                elif self.on_events is not None:
                    self.on_events(run, now_ms)
        finally:
            _answer(calls)

    def _refuse(self, calls: list[Posted], error: BaseException) -> None:
        for call in calls:
            call.error = error
        self._deliver(_Group(calls))

    def _fail(self, error: BaseException) -> None:
        """Only met where the fail stop returns: in tests. Nothing is acknowledged any more."""
        with self._mutex:
            self._failed = self._failed or error
            calls = list(self._queue)
            self._queue.clear()
            self._queued_bytes = 0
            self._committing = False
            self._arrived.notify_all()
        self._refuse(calls, CellFailed(str(error)))

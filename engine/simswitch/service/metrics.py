"""What the service tells of itself to Prometheus (``simswitch.metrics`` has the way out).

    what stands there anyway      counters of the queue, of what was shed, of commits and groups; files of the folder
    the engine's state            one read between two groups: the header's totals and ``Machine.totals``. It takes as
                                  long with ten million SIMs as with ten, 23 µs with 1,000 access servers
    counted because of it         calls by method and code, how long hot ones took, events by kind

The last is only counted where figures are wanted: a lock, a search and three additions a call, or a group of calls that
are answered together. Calls that gRPC itself turned away nobody sees. When the engine takes no read, as under overload,
its part is missing and ``simswitch_engine_read`` is 0: all else is told, which is what one wants to know then.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import grpc

from simswitch.access.certificates import Certificates
from simswitch.cell import Cell, CellClosed, CellExpired, CellFailed, CellOverloaded
from simswitch.core import layout
from simswitch.core.commands import OutcomeRun
from simswitch.core.machine import Machine
from simswitch.history.reading import positions
from simswitch.history.schema import HistoryRefused, open_reader
from simswitch.journal.format import segment_number
from simswitch.journal.snapshot import snapshot_sequence
from simswitch.metrics import counter, counters, gauge, gauges, histogram
from simswitch.service.connections import Connections
from simswitch.service.methods import Method
from simswitch.service.overload import Overload
from simswitch.service.pool import exhausted_by_use
from simswitch.tally import Tally

READ_S = 1.0
"""How long the engine's part may wait for its turn."""
CALL_BOUNDS_US = (
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000,
)  # fmt: skip
_EVENTS = {int(kind): kind.name.removeprefix("EVENT_").lower() for kind in layout.EventKind}
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class Served:
    """Calls, each counted when it is answered; from any thread."""

    def __init__(self, methods: Iterable[Method]) -> None:
        self._lock = threading.Lock()
        # Of each path by the number of the status.
        self._codes: dict[str, list[int]] = {}
        self.times_us: dict[str, Tally] = {}
        """Of hot ones, by path."""
        for method in methods:
            self._codes[method.path] = [0] * len(_CODES)
            if method.hot:
                self.times_us[method.path] = Tally(CALL_BOUNDS_US)
        self.events: Counter[int] = Counter()
        """By kind. Only the event loop counts them."""

    def answered(self, path: str, seconds: float, calls: int = 1) -> None:
        """So many calls were answered well, all of them so long after they had come."""
        with self._lock:
            self._codes[path][0] += calls
            times_us = self.times_us.get(path)
            if times_us is not None:
                times_us.add(int(seconds * 1e6), calls)

    def refused(self, path: str, code: int) -> None:
        with self._lock:
            self._codes[path][code] += 1

    def heard(self, run: OutcomeRun) -> None:
        self.events.update(run["kind"].tolist())

    def counts(self) -> Iterator[tuple[tuple[str, str], int]]:
        """By method and status, where there were any."""
        for path, counts in self._codes.items():
            for code, count in enumerate(counts):
                if count:
                    yield (_shown(path), _CODES[code]), count

    def unary(self, method: Method, answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """A handler for grpc.aio that counts its calls."""

        async def counted(request: Any, context: Any) -> Any:
            came_s = time.monotonic()
            try:
                reply = await answer(request, context)
            except BaseException as error:
                self.refused(method.path, _code(context, error))
                raise
            self.answered(method.path, time.monotonic() - came_s)
            return reply

        return counted

    def stream(self, method: Method, answer: Callable[[Any, Any], AsyncIterator[Any]]) -> Callable[[Any, Any], Any]:
        """The same, where the answer is a stream: it counts when it ends."""

        async def counted(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                async with aclosing(answer(request, context)) as replies:  # type: ignore[type-var]
                    async for reply in replies:
                        yield reply
            except BaseException as error:
                self.refused(method.path, _code(context, error))
                raise
            self.answered(method.path, 0.0)

        return counted


def _code(context: Any, error: BaseException) -> int:
    """With which status a call has ended. Who went away, or let the deadline pass, gets none."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return int(grpc.StatusCode.CANCELLED.value[0])
    code = context.code()
    return int((code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN).value[0])


class ServiceMetrics:
    """Makes the figures of one service; asked by the listener's thread."""

    def __init__(
        self,
        cell: Cell,
        served: Served,
        overload: Overload,
        connections: Connections,
        folder: Path | None,
        certificates: Certificates | None,
    ) -> None:
        self._cell = cell
        self._served = served
        self._overload = overload
        self._connections = connections
        self._folder = folder
        self._certificates = certificates

    def collect(self) -> Iterator[Any]:
        yield from self._calls()
        yield from self._commits()
        yield from self._stored()
        state = self._state()
        yield gauge(
            "engine_read", "1: the engine's figures are among these; 0: it took no read.", int(state is not None)
        )
        if state is not None:
            yield from _pool(*state)
            yield from _moving(*state)

    def _state(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        def read(machine: Machine) -> tuple[dict[str, Any], dict[str, Any]]:
            return machine.header(), machine.totals()

        try:
            return self._cell.call_read(read, READ_S)
        except (CellOverloaded, CellExpired, CellClosed, CellFailed):
            return None

    def _calls(self) -> Iterator[Any]:
        yield counters(
            "calls",
            "Calls that were answered or refused, by method and gRPC status.",
            ("call", "code"),
            self._served.counts(),
        )
        yield histogram(
            "call_duration_seconds",
            "How long hot calls took that were answered well, from their coming to their answer.",
            (((_shown(path),), tally) for path, tally in self._served.times_us.items()),
            ("call",),
            unit=1e-6,
        )
        yield counters(
            "events",
            "What the engine told since the service began, by kind: ends of swaps, shortages, breakers, resets …",
            ("kind",),
            (((name,), self._served.events[kind]) for kind, name in _EVENTS.items()),
        )
        overload = self._overload
        yield counters(
            "calls_shed",
            "Calls that were refused because of the load, by what is shed together.",
            ("kind",),
            (((kind.name.lower(),), count) for kind, count in overload.shed_counts.items()),
        )
        yield counter(
            "calls_expired", "Calls whose deadline had passed when they were taken up.", overload.expired_count
        )
        yield gauge(
            "call_wait_seconds", "What a call that comes now has to wait; 0: there is no crowd.", overload.wait_s()
        )
        yield gauges("connections", "Connections of clients, by door.", "door", list(self._connections.counts.items()))
        yield counters(
            "connections_ended",
            "Connections that the service ended: too many of one address or identity, a door that is full, silence.",
            ("why",),
            (((why,), count) for why, count in list(self._connections.ended.items())),
        )
        if self._certificates is not None:
            text = "When the service's own certificate ends, the one in use, Unix time."
            yield gauge("certificate_ends_timestamp_seconds", text, self._certificates.ends_s())
        statistics = self._cell.statistics()
        yield gauge("queue_calls", "Calls that wait for the engine.", statistics.queued_calls)
        yield gauge("queue_bytes", "Bytes of the calls that wait for the engine.", statistics.queued_bytes)

    def _commits(self) -> Iterator[Any]:
        cell = self._cell
        text = "How long one write to the journal and its fdatasync took."
        yield histogram("commit_duration_seconds", text, [((), cell.commits_us)], unit=1e-6)
        yield histogram("group_calls", "Calls that were made durable together.", [((), cell.groups_calls)])
        yield counter("journal_records", "Records of the journal that are durable.", cell.durable_sequence)
        yield gauge(
            "disk_full", "1: nothing that changes something is taken, for want of room.", int(bool(cell.disk_full))
        )
        yield gauge(
            "alarm", "1: the follower has found something wrong; `simswitch status` says what.", int(bool(cell.alarm))
        )

    def _stored(self) -> Iterator[Any]:
        """What lies in the data folder, by the names and sizes of its files."""
        if self._folder is None:
            return
        segments, snapshots, size = 0, {0: 0.0}, 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                sequence = snapshot_sequence(entry.name)
                if segment_number(entry.name) is None and sequence is None:
                    continue
                try:
                    found = entry.stat()
                except FileNotFoundError:
                    continue
                if sequence is None:
                    segments += 1
                    size += found.st_size
                else:
                    snapshots[sequence] = found.st_mtime
        newest, newest_s = max(snapshots.items())
        durable = self._cell.durable_sequence
        yield gauge("journal_segments", "Segments of the journal, the one that is ready included.", segments)
        yield gauge("journal_size_bytes", "What the journal's segments take on the disk.", size)
        free = os.statvfs(self._folder)
        yield gauge("disk_free_bytes", "Free on the disk of the data folder.", free.f_bavail * free.f_frsize)
        yield gauge("snapshot_lag_records", "Records behind the newest snapshot.", max(0, durable - newest))
        if newest:
            yield gauge("snapshot_timestamp_seconds", "When the newest snapshot was written, Unix time.", newest_s)
        try:
            with closing(open_reader(self._folder)) as connection:
                read = positions(connection)
        except (HistoryRefused, sqlite3.Error):
            # It isn't there, or is being moved: the lag is missing, and all else is told.
            return
        yield gauges(
            "history_lag_records",
            "Durable records that are not in history yet, by what the follower writes there.",
            "reader",
            ((reader, max(0, durable - sequence)) for reader, sequence in read.items()),
        )


def _pool(header: dict[str, Any], totals: dict[str, Any]) -> Iterator[Any]:
    healths = {
        **exhausted_by_use(header["health"], totals["not_valid"]),
        "not_yet_valid": totals["not_valid"][layout.NOT_YET_VALID],
        "no_longer_valid": totals["not_valid"][layout.NO_LONGER_VALID],
    }
    yield gauges("sims", "SIMs by health, or why their lots are not valid.", "health", healths.items())
    yield gauges("sims_occupancy", "SIMs by occupancy.", "occupancy", header["occupancy"].items())
    yield gauges(
        "market_selectable_sims",
        "SIMs that a market could be given now: free, healthy, not masked. One may serve several markets.",
        "market",
        ((name, count) for name, count, _ in totals["markets"]),
    )
    yield gauges(
        "market_short",
        "1: swaps find no target in the market.",
        "market",
        ((name, int(since_ms > 0)) for name, _, since_ms in totals["markets"]),
    )
    yield gauge("leases", "Terminals that hold a SIM.", header["occupancy"]["assigned"])
    for name, what in (("sims", "SIMs"), ("terminals", "Terminals that ever had a lease"), ("orders", "Orders")):
        yield gauge(f"{name}_capacity", f"{what} that there is memory for.", header[f"{name}_max"])
    yield gauge("terminals", "Terminals that ever had a lease.", header["terminals_count"])
    yield gauge("orders", "Orders that are queued or not settled.", header["orders_used"])
    yield counter("usage_bytes", "Bytes of all accepted reports of usage, ever.", header["counted_bytes"])
    yield counter(
        "usage_set_aside_reports",
        "Reports of usage that were set aside, ever: nobody knows the terminal, or its lease is an older one.",
        header["set_aside_count"],
    )
    yield counter("usage_set_aside_bytes", "What those said.", header["set_aside_bytes"])
    yield counter(
        "usage_impossible_reports",
        "Reports of usage that no line could carry, set aside, ever.",
        header["impossible_count"],
    )
    yield gauge(
        "clock_frozen", "1: the clock jumped, and nothing expires until it is confirmed.", int(header["frozen"])
    )


def _moving(header: dict[str, Any], totals: dict[str, Any]) -> Iterator[Any]:
    yield gauge("sessions", "Access servers with a session.", totals["sessions"])
    gates = {gate.name.removeprefix("GATE_").lower(): totals["gates"][gate] for gate in layout.Gate}
    yield gauges("access_servers", "Access servers by their gate.", "gate", gates.items())
    yield gauge("access_servers_paused", "Access servers that an operator has paused.", totals["paused"])
    yield gauge(
        "access_servers_unheard",
        "Access servers that have not said what they hold since the folder was restored. Above 0 no SIM is given out.",
        header["unheard_count"],
    )
    yield gauge("window_orders", "Orders that all access servers together may have outstanding.", totals["window"])
    yield gauge("orders_outstanding", "Orders that were sent and are not settled.", totals["outstanding"])
    yield gauge("orders_queued", "Orders that wait for their turn.", totals["queued"])
    yield gauge("swaps_announced", "Swaps that were announced ahead and not sent yet.", totals["announced"])
    yield counter("orders_confirmed", "Orders that access servers confirmed, ever.", totals["confirmed"])
    yield counter("allocations_told_to_wait", "Terminals that were told to come again, ever.", totals["waits"])
    jobs = {
        state.name.removeprefix("JOB_").lower(): totals["jobs"][state]
        for state in layout.JobState
        if state != layout.JOB_UNUSED
    }
    yield gauges("swap_jobs", "Swap jobs that are remembered, by state.", "state", jobs.items())
    breakers = {
        state.name.removeprefix("BREAKER_").lower(): totals["breakers"][state]
        for state in layout.BreakerState
        if state != layout.BREAKER_CLOSED
    }
    yield gauges("breakers", "Circuit breakers that are not closed, by state.", "state", breakers.items())
    yield gauge("swaps_stopped", "1: an operator has stopped all swaps.", int(header["swaps_stopped"]))


def _shown(path: str) -> str:
    """``AllocationService/Renew`` of its whole path."""
    return path.removeprefix("/simswitch.v1.")

"""One access server of the load: its session, what its terminals hold, and the calls that the schedule asks for.

    schedule ─due─▶ offered ─┬─ the terminal's earlier operation is under way ─▶ waiting ─▶ offered
                             ├─ no lease ─▶ recorded as not sent
                             └─▶ (gathered, up to N or 5 ms) ─▶ ready ─ a place in flight is free ─▶ call ─▶ recorded

The schedule is never held up: what is due is offered when it is due, and whatever it then waits for (its terminal, its
batch, a place) is part of its latency. A terminal has one operation under way at a time, as a real one would.

Bounds: a share of ``IN_FLIGHT_MAX`` calls under way, ``BACKLOG_MAX`` operations that wait for a place; past that an
operation is recorded as not sent at once.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import Counter, deque

import grpc
import numpy as np
import numpy.typing as npt

from simswitch import contract
from simswitch.client import AsyncClient, Order, Result, ServiceError, Session
from simswitch.client.allocation import TIMEOUT_S
from simswitch.client.credentials import PLAIN, Credentials
from simswitch.client.errors import service_error
from simswitch.client.session import SessionState
from simswitch.core import layout
from simswitch.core.commands import encode_iccid
from simswitch.core.machine import xxh64
from simswitch.core.wire import Table
from simswitch.load.held import Held
from simswitch.load.plan import SECOND_NS, Indexes, Instants, Kinds, Operation, Plan, Schedule
from simswitch.load.records import GRANTED_MAX, NO_LEASE_HERE, NOT_SENT, Recorder
from simswitch.v1 import allocation_pb2, status_pb2, usage_pb2

IN_FLIGHT_MAX = 800
"""All access servers of the load together: a gRPC server cancels calls at random when more than 1,000 wait for it."""
BACKLOG_MAX = 100_000
GATHER_NS = 5_000_000
"""How long an operation waits for others to share its call, in batched mode."""
WINDOW_NS = 20_000_000
"""The schedule is worked out in windows of this length."""
TURN = 32
"""Operations that are offered in a row before answers are read, when the process is behind."""
PAUSE_NS = 1_000_000
"""The shortest pause in batched mode."""
LAST_NS = 100_000_000
"""How long, after the end, operations still begin that wait for their terminal or for a place."""
NAP_NS = 200_000_000
"""The longest sleep, so that a load of few operations can be stopped."""
BULK_ITEMS = 1_000
"""Terminals a call when the load takes its first leases and when it gives all back."""
GIVE_BACK_S = 10.0
RADIO_BEST = 5
OPEN_S = 30.0

_ALLOCATION = "/simswitch.v1.AllocationService/"
_PATHS = {
    Operation.ATTACH: _ALLOCATION + "Allocate",
    Operation.RENEW: _ALLOCATION + "Renew",
    Operation.USAGE: "/simswitch.v1.UsageService/ReportUsage",
    Operation.LEAVE: _ALLOCATION + "Release",
}
_STATUSES = {name.removeprefix("STATUS_"): number for name, number in status_pb2.Status.items()}
_OVER = {layout.ENDED, layout.UNKNOWN_TERMINAL, layout.STALE_EPOCH, layout.NO_LEASE}
"""Answers that say that the lease is over."""

_Single = tuple[int, int, int, int]
_Group = tuple[int, Indexes, Instants, Instants]


class _Messages:
    """Requests for one terminal, from what all of them share: encoded once."""

    def __init__(self, access_server: str, market: str, span_ms: int) -> None:
        request = allocation_pb2.AllocateRequest(access_server=access_server, market=market)
        self._allocate = request.SerializeToString()
        self._renew = allocation_pb2.RenewRequest(access_server=access_server).SerializeToString()
        self._release = allocation_pb2.ReleaseRequest(access_server=access_server).SerializeToString()
        self._usage = usage_pb2.ReportUsageRequest(access_server=access_server).SerializeToString()
        self._lease = struct.Struct("<QQ").pack
        self._span_ms = span_ms
        self._report = struct.Struct("<QQQQIIHB").pack

    def request(self, kind: int, terminal: int, epoch: int, counted_bytes: int) -> bytes:
        if kind == Operation.ATTACH:
            # Protobuf reads two messages one after the other as one with the fields of both.
            return self._allocate + allocation_pb2.AllocateRequest(terminal=terminal).SerializeToString()
        if kind == Operation.RENEW:
            return self._renew + contract.RENEW_REQUEST.encode(self._lease(terminal, epoch), 1)
        if kind == Operation.LEAVE:
            return self._release + contract.RELEASE_REQUEST.encode(self._lease(terminal, epoch), 1)
        half = counted_bytes // 2
        report = self._report(terminal, epoch, half, counted_bytes - half, self._span_ms, 0, 0, RADIO_BEST)
        return self._usage + contract.USAGE_REQUEST.encode(report, 1)


_RESPONSES: dict[int, Table] = {
    Operation.RENEW: contract.RENEW_RESPONSE,
    Operation.USAGE: contract.USAGE_RESPONSE,
    Operation.LEAVE: contract.RELEASE_RESPONSE,
}


class AccessServer:
    """``run`` follows the schedule from an instant of ``time.monotonic_ns()`` on, until the end or ``stop``."""

    def __init__(
        self,
        address: str,
        name: str,
        number: int,
        market: str,
        plan: Plan,
        recorder: Recorder,
        credentials: Credentials = PLAIN,
    ) -> None:
        self.name = name
        self.schedule = Schedule(plan, number)
        self.hash = 0
        """Of the operations that the schedule gave so far."""
        count = len(self.schedule.terminals)
        self.held = Held(number, plan.access_servers, count)
        self.unsure = 0
        """Attaches and leaves of which nobody knows whether they were carried out."""
        self._address = address
        self._market = market
        self._plan = plan
        self._recorder = recorder
        self._messages = _Messages(name, market, plan.usage_span_ms)
        self._credentials = credentials
        self._metadata = credentials.metadata(address, None, f"access-server:{name}")
        self._counted = np.zeros(count, np.int64)
        self._busy = np.zeros(count, np.bool_)
        self._waiting: dict[int, deque[tuple[int, int, int]]] = {}
        self._gathered: list[list[tuple[Indexes, Instants, Instants]]] = [[] for _ in Operation]
        self._gathered_count = [0] * len(Operation)
        self._gathered_ns = [0] * len(Operation)
        self._ready: deque[_Single | _Group] = deque()
        self._backlog = 0
        self._in_flight = 0
        self._in_flight_max = max(1, IN_FLIGHT_MAX // plan.access_servers)
        self._tasks: set[asyncio.Task[None]] = set()
        self._start_ns = 0
        self._stopping = False

    # ------------------------------------------------------------------------------------- before and after the load

    async def open(self) -> None:
        """Begins the session, telling that nothing is held: what an earlier load left here is given back by that."""
        self._channel = self._credentials.aio_channel(self._address)
        self._methods = [self._channel.unary_unary(_PATHS[kind]) for kind in Operation]
        self._client = AsyncClient(self._address, access_server=self.name, credentials=self._credentials)
        self.session = Session(
            self._address,
            self.name,
            _carry_out,
            holdings=self.held,
            credentials=self._credentials,
            software="simswitch load",
        )
        self.session_task = self.session.start()
        await self.session.serving(OPEN_S)

    async def fill(self) -> Counter[int]:
        """Gives a SIM to each terminal that is connected when the load begins; how many got which status."""
        found: Counter[int] = Counter()
        positions = np.flatnonzero(self.schedule.connected)
        for start in range(0, len(positions), BULK_ITEMS):
            if self._stopping:
                break
            piece = positions[start : start + BULK_ITEMS]
            grants = await self._client.allocate_many(self.held.key[piece], self._market)
            granted = grants.granted
            self.held.epoch[piece[granted]] = grants.epoch[granted]
            self.held.iccid[piece[granted]] = grants.iccid[granted]
            found.update(grants.status.tolist())
        return found

    async def give_back(self) -> int:
        """Releases all that is held; how many that were. Tries for a while when the service is away."""
        released = 0
        until_s = time.monotonic() + GIVE_BACK_S
        while len(positions := np.flatnonzero(self.held.epoch)[:BULK_ITEMS]):
            try:
                statuses = await self._client.release(self.held.key[positions], self.held.epoch[positions])
            except ServiceError as error:
                if not (error.unreachable or error.retry_after_ms) or time.monotonic() > until_s:
                    break
                await asyncio.sleep(0.2)
                continue
            released += int(np.count_nonzero(statuses == layout.OK))
            self.held.epoch[positions] = 0
        return released

    async def close(self, *, settle: bool) -> None:
        """Ends the session. ``settle``: a last one tells what is held, so that the service drops what else it has."""
        fenced = self.session.state is SessionState.FENCED
        await self.session.close()
        if settle and not fenced:
            async with Session(
                self._address, self.name, _carry_out, holdings=self.held, credentials=self._credentials
            ) as session:
                session.start()
                try:
                    await session.serving(OPEN_S)
                except (ServiceError, TimeoutError, RuntimeError):
                    self.unsure += 1
        await self._client.close()
        await self._channel.close()

    # ------------------------------------------------------------------------------------- following the schedule

    def stop(self) -> None:
        self._stopping = True

    def _now_ns(self) -> int:
        return time.monotonic_ns() - self._start_ns

    async def run(self, start_ns: int) -> None:
        """Offers everything at its instant, then waits for the calls that are under way."""
        self._start_ns = start_ns
        single = self._plan.batch == 1
        span_ns = self._plan.span_ns
        for begin_ns in range(0, span_ns, WINDOW_NS):
            if self._stopping:
                break
            window = self.schedule.until(min(begin_ns + WINDOW_NS, span_ns))
            self.hash = xxh64(b"".join(column.tobytes() for column in window), self.hash)
            await (self._one_by_one(*window) if single else self._together(*window))
        await self._flush(span_ns)
        for kind in Operation:
            if self._gathered_count[kind] and not self._stopping:
                self._pass_on(kind)
        while (self._ready or self._waiting) and not self._stopping and self._now_ns() < span_ns + LAST_NS:
            await asyncio.sleep(PAUSE_NS / SECOND_NS)
        self._abandon()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _one_by_one(self, due_ns: Instants, positions: Indexes, kinds: Kinds) -> None:
        turn = 0
        for due, position, kind in zip(due_ns.tolist(), positions.tolist(), kinds.tolist(), strict=True):
            while (now := self._now_ns()) < due and not self._stopping:
                await asyncio.sleep(min(due - now, NAP_NS) / SECOND_NS)
                turn = 0
            if self._stopping:
                return
            self._offer(kind, position, due, now - due)
            turn += 1
            if turn % TURN == 0:
                await asyncio.sleep(0)

    async def _together(self, due_ns: Instants, positions: Indexes, kinds: Kinds) -> None:
        first = 0
        while first < len(due_ns) and not self._stopping:
            now = self._now_ns()
            if due_ns[first] > now:
                await self._flush(max(int(due_ns[first]), now + PAUSE_NS))
                continue
            last = int(np.searchsorted(due_ns, now, side="right"))
            late = now - due_ns[first:last]
            self._offer_many(kinds[first:last], positions[first:last], due_ns[first:last], late)
            first = last
            await self._flush(now)

    async def _flush(self, until_ns: int) -> None:
        """Passes on what was gathered for long enough, and waits until the instant."""
        while True:
            now = self._now_ns()
            upcoming = until_ns
            for kind in Operation:
                if self._gathered_count[kind]:
                    if now >= (latest := self._gathered_ns[kind] + GATHER_NS):
                        self._pass_on(kind)
                    else:
                        upcoming = min(upcoming, latest)
            await asyncio.sleep(max(0, min(upcoming - now, NAP_NS)) / SECOND_NS)
            if self._stopping or self._now_ns() >= until_ns:
                return

    def _abandon(self) -> None:
        """The load is over: what has not been sent by now never is."""
        now = self._now_ns()
        for kind in Operation:
            for _, due_ns, late_ns in self._gathered[kind]:
                self._recorder.many(kind, NOT_SENT, due_ns, late_ns, now)
            self._gathered[kind].clear()
            self._gathered_count[kind] = 0
        for item in self._ready:
            self._not_sent(item, now)
        self._ready.clear()
        for waiting in self._waiting.values():
            for kind_, due, late in waiting:
                self._recorder.one(kind_, NOT_SENT, due, late, now - due)
        self._waiting.clear()

    def _not_sent(self, item: _Single | _Group, now: int) -> None:
        kind, _, due, late = item
        self._recorder.many(kind, NOT_SENT, np.atleast_1d(due), np.atleast_1d(late), now)

    # ------------------------------------------------------------------------------------- one terminal a call

    def _offer(self, kind: int, position: int, due: int, late: int) -> None:
        if self._busy[position]:
            self._waiting.setdefault(position, deque()).append((kind, due, late))
        elif kind != Operation.ATTACH and not self.held.epoch[position]:
            self._recorder.one(kind, NO_LEASE_HERE, due, late, late)
        else:
            self._busy[position] = True
            self._enqueue((kind, position, due, late), 1)

    def _enqueue(self, item: _Single | _Group, count: int) -> None:
        if self._backlog + count > BACKLOG_MAX:
            self._busy[item[1]] = False
            self._not_sent(item, self._now_ns())
            return
        self._backlog += count
        self._ready.append(item)
        self._pump()

    def _pump(self) -> None:
        """Begins calls as long as there is a place."""
        while self._ready and self._in_flight < self._in_flight_max:
            kind, position, due, late = self._ready.popleft()
            self._in_flight += 1
            if isinstance(position, int):
                self._backlog -= 1
                task = asyncio.create_task(self._call_one(kind, position, due, late))  # type: ignore[arg-type]
            else:
                self._backlog -= len(position)
                task = asyncio.create_task(self._call_many(kind, position, due, late))  # type: ignore[arg-type]
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _call_one(self, kind: int, position: int, due: int, late: int) -> None:
        held = self.held
        epoch = int(held.epoch[position])
        if kind == Operation.USAGE:
            self._counted[position] += self._plan.usage_bytes
        request = self._messages.request(kind, int(held.key[position]), epoch, int(self._counted[position]))
        try:
            data = await self._methods[kind](request, timeout=TIMEOUT_S, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            outcome = self._failed(service_error(error), kind, 1)
        else:
            if kind == Operation.ATTACH:
                response = allocation_pb2.AllocateResponse.FromString(data)
                outcome = response.status
                held.epoch[position] = response.lease.epoch
                held.iccid[position] = encode_iccid(response.lease.iccid)
                self._counted[position] = 0
            else:
                outcome = _RESPONSES[kind].decode(data).columns()[-1]
                # An order may have given the terminal another lease in the meantime.
                over = outcome in _OVER or (kind == Operation.LEAVE and outcome <= GRANTED_MAX)
                if over and held.epoch[position] == epoch:
                    held.epoch[position] = 0
        self._recorder.one(kind, outcome, due, late, self._now_ns() - due)
        self._busy[position] = False
        self._in_flight -= 1
        waiting = self._waiting.get(position)
        while waiting and not self._busy[position]:
            following, following_due, following_late = waiting.popleft()
            self._offer(following, position, following_due, following_late)
        if waiting is not None and not waiting:
            del self._waiting[position]
        self._pump()

    def _failed(self, error: ServiceError, kind: int, count: int) -> int:
        """The outcome of a call that was refused as a whole."""
        if error.unreachable and kind in (Operation.ATTACH, Operation.LEAVE):
            self.unsure += count
        status = _STATUSES.get(error.reason)
        return self._recorder.number(error.reason or error.code.name) if status is None else status

    # ------------------------------------------------------------------------------------- many terminals a call

    def _offer_many(self, kinds: Kinds, positions: Indexes, due_ns: Instants, late_ns: Instants) -> None:
        """The same for many: the first operation of each terminal that is free goes, the others wait in order."""
        first = np.zeros(len(positions), np.bool_)
        first[np.unique(positions, return_index=True)[1]] = True
        free = first & ~self._busy[positions]
        for row in np.flatnonzero(~free).tolist():
            self._waiting.setdefault(int(positions[row]), deque()).append(
                (int(kinds[row]), int(due_ns[row]), int(late_ns[row]))
            )
        now = self._now_ns()
        for kind in Operation:
            rows = np.flatnonzero(free & (kinds == kind))
            if kind is not Operation.ATTACH:
                leased = self.held.epoch[positions[rows]] != 0
                without = rows[~leased]
                if len(without):
                    self._recorder.many(kind, NO_LEASE_HERE, due_ns[without], late_ns[without], now)
                    self._resume(positions[without])
                rows = rows[leased]
            if not len(rows):
                continue
            self._gather(kind, positions[rows], due_ns[rows], late_ns[rows], now)

    def _gather(self, kind: int, positions: Indexes, due_ns: Instants, late_ns: Instants, now: int) -> None:
        self._busy[positions] = True
        if not self._gathered_count[kind]:
            self._gathered_ns[kind] = now
        self._gathered[kind].append((positions, due_ns, late_ns))
        self._gathered_count[kind] += len(positions)
        if self._gathered_count[kind] >= self._plan.batch:
            self._pass_on(kind)

    def _pass_on(self, kind: int) -> None:
        """What was gathered goes to be sent, in calls of at most ``batch`` terminals."""
        positions, due_ns, late_ns = (np.concatenate(column) for column in zip(*self._gathered[kind], strict=True))
        self._gathered[kind].clear()
        self._gathered_count[kind] = 0
        for start in range(0, len(positions), self._plan.batch):
            piece = slice(start, start + self._plan.batch)
            self._enqueue((kind, positions[piece], due_ns[piece], late_ns[piece]), len(positions[piece]))

    async def _call_many(self, kind: int, positions: Indexes, due_ns: Instants, late_ns: Instants) -> None:
        held = self.held
        keys, epochs = held.key[positions], held.epoch[positions]
        statuses: npt.NDArray[np.uint8] | int
        try:
            if kind == Operation.ATTACH:
                grants = await self._client.allocate_many(keys, self._market)
                statuses, granted = grants.status, grants.granted
                held.epoch[positions[granted]] = grants.epoch[granted]
                held.iccid[positions[granted]] = grants.iccid[granted]
                self._counted[positions[granted]] = 0
            else:
                if kind == Operation.RENEW:
                    statuses = (await self._client.renew(keys, epochs)).status
                elif kind == Operation.LEAVE:
                    statuses = await self._client.release(keys, epochs)
                else:
                    counted = self._counted[positions] = self._counted[positions] + self._plan.usage_bytes
                    half = counted // 2
                    statuses = await self._client.report_usage(
                        keys, epochs, half, counted - half, span_ms=self._plan.usage_span_ms, radio=RADIO_BEST
                    )
                over = np.isin(statuses, list(_OVER)) | ((kind == Operation.LEAVE) & (statuses <= GRANTED_MAX))
                held.epoch[positions[over & (held.epoch[positions] == epochs)]] = 0
        except ServiceError as error:
            statuses = self._failed(error, kind, len(positions))
        self._recorder.many(kind, statuses, due_ns, late_ns, self._now_ns())
        self._busy[positions] = False
        self._in_flight -= 1
        self._resume(positions)
        self._pump()

    def _resume(self, positions: Indexes) -> None:
        """Offers what waits for these terminals next."""
        if not self._waiting:
            return
        now = self._now_ns()
        for position in positions.tolist():
            waiting = self._waiting.get(position)
            while waiting and not self._busy[position]:
                kind, due, late = waiting.popleft()
                if kind != Operation.ATTACH and not self.held.epoch[position]:
                    self._recorder.one(kind, NO_LEASE_HERE, due, late, late)
                else:
                    self._gather(kind, np.array([position]), np.array([due]), np.array([late]), now)
            if waiting is not None and not waiting:
                del self._waiting[position]


async def _carry_out(_order: Order) -> Result:
    """Orders are carried out at once: the terminals of a load have no modem."""
    return Result.DONE

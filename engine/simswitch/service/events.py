"""EventService: what happens, to whoever wants to hear it.

The newest events are remembered, and each watcher has a number up to which it was told. Events are handed over
when they are durable, in the event loop (``Cell.on_events``); those before the start are taken over from the machine.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import numpy.typing as npt

from simswitch.cell import Cell
from simswitch.core import layout
from simswitch.core.commands import OutcomeRun, decode_iccid
from simswitch.core.roles import Read
from simswitch.service.call import Call
from simswitch.service.directory import Directory
from simswitch.service.errors import INVALID_ARGUMENT, SLOW_CONSUMER, TOO_MANY_STREAMS, TOO_MANY_WATCHERS, Refused
from simswitch.v1 import event_pb2 as pb

EVENTS_MAX = int(layout.EVENTS_KEPT)
"""Events that are remembered."""
WATCHERS_MAX = 64
WATCHERS_OF_ONE_MAX = 16
"""Of one identity, so that none takes the places of all."""
RESPONSE_MAX = 1_000
BYTES_MAX = 2**62

_FIELDS = ("event", "terminal", "subscriber", "a", "b", "job", "access_server", "kind", "reason")
_ORDERED = (pb.EVENT_KIND_WITHDRAWN, pb.EVENT_KIND_ORDERED, pb.EVENT_KIND_REFUSED, pb.EVENT_KIND_OVERDUE)
_OF_ORDERS = (*_ORDERED, pb.EVENT_KIND_CONFIRMED, pb.EVENT_KIND_GIVEN_UP)


READS: Mapping[int, Read] = {
    pb.EVENT_KIND_LIMIT: Read.SUBSCRIBERS,
    pb.EVENT_KIND_EXEMPT: Read.SUBSCRIBERS,
    pb.EVENT_KIND_HEALTH: Read.SIMS,
    pb.EVENT_KIND_TRUSTED: Read.SIMS,
    pb.EVENT_KIND_SET_ASIDE: Read.SIMS,
    pb.EVENT_KIND_CORRECTION: Read.SIMS,
    pb.EVENT_KIND_UNREPORTED: Read.SIMS,
    pb.EVENT_KIND_CAP: Read.CAPS,
    pb.EVENT_KIND_CAP_CHANGED: Read.CAPS,
    pb.EVENT_KIND_RESET: Read.CAPS,
    pb.EVENT_KIND_VALIDITY: Read.CAPS,
    pb.EVENT_KIND_POOL: Read.CAPS,
    pb.EVENT_KIND_POOL_CORRECTED: Read.CAPS,
    pb.EVENT_KIND_POOL_ASIDE: Read.CAPS,
    pb.EVENT_KIND_ENDLESS: Read.CAPS,
}
"""Kinds that are told to fewer than those who see swaps."""

BREAKER_STATES = {
    layout.BREAKER_OPEN: pb.BREAKER_STATE_OPEN,
    layout.BREAKER_HALF_OPEN: pb.BREAKER_STATE_HALF_OPEN,
    layout.BREAKER_PROBING: pb.BREAKER_STATE_PROBING,
    layout.BREAKER_CLOSED: pb.BREAKER_STATE_CLOSED,
}


class EventHandlers:
    """EventService."""

    def __init__(self, cell: Cell, directory: Directory) -> None:
        self._cell = cell
        self._directory = directory
        self._events: deque[tuple[int, tuple[int, ...]]] = deque(maxlen=EVENTS_MAX)
        """When it happened, and its columns."""
        self._last = 0
        self._leapt = 0
        self._happened = asyncio.Event()
        self._watchers: Counter[int] = Counter()
        self._draining = False

    def begin(self, remembered: npt.NDArray[Any], last: int, leapt: int) -> None:
        """What the machine remembers, the number of its newest event, and how many numbers restores have leapt over.

        ``tell`` may have been called before.
        """
        before = remembered[remembered["event"] < self._first()] if self._events else remembered
        told = list(self._events)
        self._events.clear()
        self._events.extend(zip(before["at_ms"].tolist(), before[list(_FIELDS)].tolist(), strict=True))
        self._events.extend(told)
        self._last = max(self._last, last)
        self._leapt = leapt

    def tell(self, run: OutcomeRun, now_ms: int) -> None:
        """The events of one record (``Cell.on_events``), at its instant: by the engine's clock, as what the machine
        remembers is."""
        rows = list(zip(*(run[name].tolist() for name in _FIELDS), strict=True))
        self._events.extend((now_ms, row) for row in rows)
        self._last = rows[-1][0]
        happened, self._happened = self._happened, asyncio.Event()
        happened.set()

    def drain(self) -> None:
        """Ends those who watch."""
        self._draining = True
        self._happened.set()

    async def watch_events(self, data: bytes, call: Call) -> AsyncGenerator[bytes, None]:
        call.may_read(Read.SWAPS)
        request = pb.WatchEventsRequest.FromString(data)
        for kind in request.kinds:
            if kind not in pb.EventKind.values() or not kind:
                raise Refused(INVALID_ARGUMENT, f"event kind {kind} does not exist")
            call.may_read(READS.get(kind, Read.SWAPS))
        if request.subscriber:
            call.may_read(Read.SUBSCRIBERS)
        identity = call.actor.index
        if self._watchers[identity] >= WATCHERS_OF_ONE_MAX:
            raise Refused(TOO_MANY_STREAMS, f"{WATCHERS_OF_ONE_MAX}")
        if self._watchers.total() >= WATCHERS_MAX:
            raise Refused(TOO_MANY_WATCHERS, str(WATCHERS_MAX))
        self._watchers[identity] += 1
        try:
            seen = frozenset(kind for kind in pb.EventKind.values() if call.sees(READS.get(kind, Read.SWAPS)))
            async for response in self._watch(request, frozenset(request.kinds) or seen):
                yield call.seen(response).SerializeToString()
        finally:
            self._watchers[identity] -= 1

    async def _watch(
        self, request: pb.WatchEventsRequest, kinds: frozenset[int]
    ) -> AsyncGenerator[pb.WatchEventsResponse, None]:
        after = min(request.after, self._last) if request.HasField("after") else self._last
        missed = max(self._first() - after - 1, 0)
        after += missed
        if missed > self._leapt // 2:
            # It knows of a time before a restore: what that leapt over never happened.
            missed = max(missed - self._leapt, 0)
        first = True
        while not self._draining:
            happened = self._happened
            rows = self._after(after)
            if first or rows:
                await self._directory.caught_up()
                wanted = [
                    self._event(told_ms, row)
                    for told_ms, row in rows
                    if row[7] in kinds and request.subscriber in (0, row[2])
                ]
                after = rows[-1][1][0] if rows else after
                if first or wanted:
                    yield pb.WatchEventsResponse(events=wanted, last=after, missed_count=missed)
                first, missed = False, 0
            if after == self._last:
                if request.once:
                    return
                await happened.wait()

    def _first(self) -> int:
        """The number of the oldest event that is remembered, or of the next one."""
        return self._events[0][1][0] if self._events else self._last + 1

    def _after(self, number: int) -> list[tuple[int, tuple[int, ...]]]:
        """Some of the events after that one."""
        start = number + 1 - self._first()
        if start < 0:
            raise Refused(SLOW_CONSUMER, f"more than {EVENTS_MAX:,}")
        return [self._events[place] for place in range(start, min(start + RESPONSE_MAX, len(self._events)))]

    def _event(self, told_ms: int, row: tuple[int, ...]) -> pb.Event:
        number, terminal, subscriber, a, b, job, server, kind, reason = row
        fields: dict[str, Any] = {}
        if kind in _OF_ORDERS:
            fields["order"] = a
        if kind == pb.EVENT_KIND_ANNOUNCED:
            fields |= {"not_before_ms": a, "expected_outage_ms": b, "priority": reason}
        elif kind == pb.EVENT_KIND_ORDERED:
            fields |= {"priority": reason}
        elif kind == pb.EVENT_KIND_WITHDRAWN:
            fields |= {"withdrawn_by": reason}
        elif kind in (pb.EVENT_KIND_REFUSED, pb.EVENT_KIND_GIVEN_UP):
            fields |= {"attempts_count": b}
        elif kind in (pb.EVENT_KIND_OVERDUE, pb.EVENT_KIND_CONFIRMED):
            fields |= {"elapsed_ms": b}
        elif kind == pb.EVENT_KIND_TRAFFIC:
            fields |= {"outage_ms": b}
        elif kind == pb.EVENT_KIND_DIFFERENCE:
            fields |= {"status": reason}
        elif kind == pb.EVENT_KIND_SET_ASIDE:
            told = 0 if not terminal and a >> 63 else a
            fields |= {"status": reason, "told_bytes": told, "iccid": decode_iccid(b) if b else ""}
        elif kind == pb.EVENT_KIND_UNREPORTED:
            fields |= {"iccid": decode_iccid(a), "allowed_bytes": b, "reported": reason == layout.UNREPORTED_OVER}
        elif kind == pb.EVENT_KIND_POOL:
            fields |= {"lot_or_plan": self._directory.name(a), "health": reason, "left_bytes": b - (b >> 63 << 64)}
        elif kind == pb.EVENT_KIND_CORRECTION:
            fields |= {"iccid": decode_iccid(a), **_window(reason), "correction_bytes": b - (b >> 63 << 64)}
            fields["lowered_bytes"], terminal = terminal, 0
        elif kind == pb.EVENT_KIND_POOL_CORRECTED:
            fields |= {"lot_or_plan": self._directory.name(a & 0xFFFF), **_window(a >> 16)}
            fields["correction_bytes"] = b - (b >> 63 << 64)
            fields["lowered_bytes"], terminal = terminal, 0
        elif kind == pb.EVENT_KIND_POOL_ASIDE:
            fields |= {"lot_or_plan": self._directory.name(a & 0xFFFF), **_window(a >> 16), "status": reason}
            fields["told_bytes"] = 0 if b >> 63 else b
        elif kind == pb.EVENT_KIND_JOB:
            fields |= {"job_state": a, "job_why": reason, "beyond_count": b}
        elif kind == pb.EVENT_KIND_SHORTFALL:
            fields |= {"market": self._directory.name(a), "headroom_bytes": b, "priority": reason}
        elif kind == pb.EVENT_KIND_SHORTFALL_OVER:
            fields |= {"market": self._directory.name(a)}
        elif kind == pb.EVENT_KIND_DEATH:
            fields |= {"death": reason, "freed_ms": a}
        elif kind == pb.EVENT_KIND_BREAKER:
            state = BREAKER_STATES[layout.BreakerState(reason)]
            fields |= {"breaker_state": state, "breaker_name": self._directory.name(a), "retry_ms": b}
        elif kind == pb.EVENT_KIND_HEALTH:
            fields |= {"iccid": decode_iccid(a), "health": reason, "goodput_kbps": b & 0xFFFFFFFF}
            fields |= {"windows_count": b >> 32 & 0xFFFF, "confidence_permille": b >> 48}
        elif kind == pb.EVENT_KIND_CAP:
            fields |= {"lot_or_plan": self._directory.name(b & 0xFFFF), "window": b >> 16 & 0xFF, "certainty": b >> 24}
            fields["of_plan"] = self._directory.is_plan(b & 0xFFFF)
            if a < BYTES_MAX:
                fields["quota_bytes"] = a
        elif kind == pb.EVENT_KIND_CAP_CHANGED:
            fields |= {"lot_or_plan": self._directory.name(b & 0xFFFF), "window": b >> 16 & 0xFF, "shift": reason}
            fields |= {"amount": a, "before": terminal, "first_evidence_ms": (b >> 24) * 1000}
            terminal = 0
        elif kind == pb.EVENT_KIND_TRUSTED:
            fields |= {"iccid": decode_iccid(a), "goodput_kbps": min(b, 0xFFFFFFFF)}
        elif kind == pb.EVENT_KIND_RESET:
            fields |= {"lot_or_plan": self._directory.name(a & 0xFFFF), "window": a >> 16, "sims_count": b}
        elif kind == pb.EVENT_KIND_ENDLESS:
            fields |= {"lot_or_plan": self._directory.name(a), "sims_count": b, "stays_slowed": bool(reason)}
        elif kind == pb.EVENT_KIND_VALIDITY:
            fields |= {"lot_or_plan": self._directory.name(a), "validity": reason}
        elif kind == pb.EVENT_KIND_LIMIT:
            fields |= self._limit(a, b, reason)
        elif kind == pb.EVENT_KIND_EXEMPT:
            fields |= {"exempt": reason == layout.EXEMPT_BEGUN, "freed_ms": a, "actor": self._directory.name(b)}
        elif kind == pb.EVENT_KIND_PAUSE:
            fields |= {"paused": bool(reason)}
        return pb.Event(
            number=number,
            told_ms=told_ms,
            kind=pb.EventKind.ValueType(kind),
            terminal=terminal,
            subscriber=subscriber,
            access_server=self._server(server),
            job=None if job == layout.NONE_INDEX else job,
            **fields,
        )

    def _limit(self, a: int, limit: int, step: int) -> dict[str, Any]:
        rule = a >> 48 & 0x3FFF
        fields: dict[str, Any] = {"limit_step": step, "used_bytes": a & (1 << 48) - 1, "of_day": bool(a >> 62)}
        if rule:
            numbers = self._directory.by_index(rule).numbers
            fields |= {"limit_rule": self._directory.name(rule), "quota_bytes": limit}
            if step == layout.LIMIT_SLOWED:
                fields["slow_kbps"] = numbers[layout.RULE_SLOW_KBPS]
        return fields

    def _server(self, number: int) -> str:
        if number == layout.NONE_SHORT:
            return ""
        return next(entity.name for entity in self._directory.all(layout.ACCESS_SERVER) if entity.server == number)


def _window(window: int) -> dict[str, Any]:
    """That of a figure."""
    of_day = window == layout.ROLLING_DAY
    return {"window": layout.WINDOW_ROLLING if of_day else window, "of_day": of_day}

"""What is refused when more comes than can be served: the least urgent first, before any work is done for it.

    kind        calls                                      some are refused from a wait of … on, all from … on
    READ        lists, figures, whoever begins to watch            100 ms      150 ms
    REPORT      usage, attach failures: both can be sent again     150 ms      200 ms
    RENEW       renewals, releases                                 200 ms      250 ms
    ALLOCATE    allocations                                        300 ms      never: the part that is too much

Sessions and what operators order are never refused for this. Between the two bounds a growing part of a kind is
refused, so that the wait settles and does not swing.

The wait is measured and not counted, because most of the calls that wait stand where nobody can count them: in the
transport. Twenty times a second a call of our own goes the way of all calls and then through the cell's queue. How
long it took, or has been on its way already, is what a call that comes now has to expect. It only counts as overload
where at least 128 calls were taken up meanwhile (a queue of fewer is none) and as long as that, or two looks, lasts.

A refusal (OVERLOADED) says when to come again, at random between half and one and a half times what its kind is told,
so that those who were refused together do not return together. Nobody is told to come at once: a refusal costs the
server a good part of what an answer does, so who asks again without waiting takes the time that answers need.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import IntEnum
from random import Random

from grpc.aio import AioRpcError, Channel, insecure_channel

from simswitch.cell import Cell, CellClosed, CellFailed, CellOverloaded
from simswitch.core import layout
from simswitch.core.roles import CALL_RIGHTS, Read
from simswitch.service.errors import EXPIRED, NOT_PERMITTED, OVERLOADED, Refused

LOOK_EVERY_S = 0.05
CROWD = 128
DECAY = 0.8
"""What a look at least leaves of what the one before it had found."""
PROBE = "/simswitch.Probe/Wait"
"""The path of our own calls."""


class Kind(IntEnum):
    """Calls that may be shed, in this order."""

    READ = 0
    REPORT = 1
    RENEW = 2
    ALLOCATE = 3


_KINDS: Mapping[int, Kind] = {
    layout.ALLOCATE: Kind.ALLOCATE,
    layout.RENEW: Kind.RENEW,
    layout.RELEASE: Kind.RENEW,
    layout.REPORT_USAGE: Kind.REPORT,
    layout.REPORT_ATTACH_FAILURE: Kind.REPORT,
}
_FROM_S = {Kind.READ: 0.1, Kind.REPORT: 0.15, Kind.RENEW: 0.2, Kind.ALLOCATE: 0.3}
_ALL_S = {Kind.READ: 0.15, Kind.REPORT: 0.2, Kind.RENEW: 0.25}
_LEAST_S = min(_FROM_S.values())
RETRY_AFTER_MS = {Kind.READ: 5_000, Kind.REPORT: 5_000, Kind.RENEW: 2_000, Kind.ALLOCATE: 500}
_ADVICES = 64
"""Different ones of a kind, made beforehand: a refusal then costs no message."""


def kind_of(call: str) -> Kind | None:
    """Of a call such as ``AllocationService/Renew``; None: it is never shed."""
    right = CALL_RIGHTS[call]
    return Kind.READ if isinstance(right, Read) else _KINDS.get(right)


class Shed(Refused):
    """A call that was refused because of the load; what it takes along was made before."""

    def __init__(self, like: Refused, metadata: tuple[tuple[str, bytes], ...]) -> None:
        super().__init__(like.reason, retry_after_ms=like.retry_after_ms)
        self._metadata = metadata

    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        return self._metadata


class Overload:
    """Decides which calls are refused. ``admit`` may be called from any thread."""

    def __init__(self, cell: Cell, now_s: Callable[[], float] = time.monotonic) -> None:
        self._cell = cell
        self._now_s = now_s
        random = Random()
        self._advices: dict[Kind, list[tuple[Refused, tuple[tuple[str, bytes], ...]]]] = {}
        for kind, after_ms in RETRY_AFTER_MS.items():
            times_ms = (round(after_ms * random.uniform(0.5, 1.5)) for _ in range(_ADVICES))
            advices = [Refused(OVERLOADED, retry_after_ms=time_ms) for time_ms in times_ms]
            self._advices[kind] = [(advice, advice.metadata()) for advice in advices]
        self.taken_count = 0
        """Calls that were taken up, whether they were refused or not."""
        self.shed_counts = dict.fromkeys(Kind, 0)
        self.expired_count = 0
        """Calls whose deadline had passed when they were taken up."""
        self._measured_s = 0.0
        self._last_s = 0.0
        # The call of our own that is on its way: since when, and how many had been taken up then.
        self._sent_s: float | None = None
        self._sent_count = 0
        # Parts of a refusal that are due, by kind: at a whole one a call is refused.
        self._due = dict.fromkeys(Kind, 0.0)

    def admit(self, kind: Kind | None, remaining_s: float | None) -> None:
        """Refuses a call that has been taken up this moment, or lets it go on. ``remaining_s``: until its deadline."""
        self.taken_count += 1
        if remaining_s is not None and remaining_s <= 0:
            self.expired_count += 1
            raise Refused(EXPIRED)
        if kind is not None:
            self.shed(kind)

    def shed(self, kind: Kind) -> None:
        """``admit`` for what comes in a stream that was let in before."""
        wait_s = self.wait_s()
        if wait_s <= _LEAST_S:
            return
        due = self._due[kind] + shed_part(kind, wait_s)
        if due < 1.0:
            self._due[kind] = due
            return
        self._due[kind] = due - 1.0
        self.shed_counts[kind] += 1
        raise Shed(*self._advices[kind][self.shed_counts[kind] % _ADVICES])

    def wait_s(self) -> float:
        """What a call that comes now has to expect; 0 where there is no crowd."""
        sent_s = self._sent_s
        if sent_s is None or self.taken_count - self._sent_count < CROWD:
            return self._measured_s
        return max(self._measured_s, self._now_s() - sent_s)

    async def watch(self, go_through: Callable[[], Awaitable[object]]) -> None:
        """Until cancelled. ``go_through``: a call of our own, from the client's side."""
        while True:
            before = self.taken_count
            await asyncio.sleep(LOOK_EVERY_S)
            if self.taken_count - before > 1:
                await self.look(go_through)
            else:
                self._measured_s *= DECAY
                self._last_s = 0.0

    async def look(self, go_through: Callable[[], Awaitable[object]]) -> None:
        """Measures the wait once."""
        self._sent_count = self.taken_count
        sent_s = self._sent_s = self._now_s()
        try:
            await go_through()
            await self._cell.read(lambda _: None)
            crowd = self.taken_count - self._sent_count >= CROWD
            wait_s = self._now_s() - sent_s if crowd else 0.0
            # One look is none: a machine that stood still for a moment has calls to catch up with, and no overload. Nor
            # does a moment in which the queue is short let everybody in again, who would come all at once.
            self._measured_s = max(min(wait_s, self._last_s), self._measured_s * DECAY)
            self._last_s = wait_s
        except (AioRpcError, CellClosed, CellFailed, CellOverloaded):
            # That says nothing of the wait: what was measured last stands until the next look.
            return
        finally:
            self._sent_s = None


class Probe:
    """Our own calls: the client's end of them, and what their handler has to know."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(16)
        self._channel: Channel | None = None

    def open(self, address: str) -> None:
        """In the event loop."""
        # It closes before the server, which would end a connection that is not used for longer, with a line in the log.
        self._channel = insecure_channel(address, [("grpc.client_idle_timeout_ms", 30_000)])

    async def go_through(self) -> None:
        """To the handler and back."""
        assert self._channel is not None
        await self._channel.unary_unary(PROBE, None, None)(self._secret)

    def check(self, request: bytes) -> None:
        """Refuses what is not ours: a stranger's call would make the wait look short."""
        if not secrets.compare_digest(request, self._secret):
            raise Refused(NOT_PERMITTED, "only the service itself asks for this")

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close(None)


def shed_part(kind: Kind, wait_s: float) -> float:
    """Which part of a kind is refused at such a wait."""
    over_s = wait_s - _FROM_S[kind]
    if over_s <= 0:
        return 0.0
    if kind is Kind.ALLOCATE:
        return over_s / wait_s
    return min(1.0, over_s / (_ALL_S[kind] - _FROM_S[kind]))

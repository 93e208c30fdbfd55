"""An access server's session with the service: orders come down, what became of them goes up.

    connect ─▶ hello ─▶ holds … ─▶ ready ─▶ serve ─▶ (broken) ─▶ pause ─▶ connect …
                                              │
                                              └─▶ fenced by another process of this name: ends with Fenced

While the service is away nothing is lost: the holdings stand, and the next session tells the service of every one of
them. Orders of an older session that were not yet begun are dropped; what an order has already changed stands in the
holdings, and the service settles it by them. The pause between attempts is drawn between 0 and a bound that doubles
from 0.2 s to 30 s (full jitter), so that a thousand access servers do not come back at once.

Bounds: 65,536 holdings a message, at most 200 orders under way (the service never has more outstanding), one
acknowledgement message for all orders that are done by the time it is written.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, IntEnum
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from simswitch import contract
from simswitch.client import columns
from simswitch.client.credentials import PLAIN, Credentials, CredentialsRefused, Metadata
from simswitch.client.errors import ServiceError, service_error
from simswitch.client.holdings import Holdings, Lease
from simswitch.core import layout
from simswitch.core.commands import ORDERS, OutcomeRun, decode_iccid, encode_iccid
from simswitch.core.wire import ITEMS_MAX
from simswitch.v1 import access_server_pb2 as pb

PAUSE_FIRST_S = 0.2
PAUSE_MAX_S = 30.0
ANSWER_WITHIN_S = 30.0

UsageResult = tuple[npt.NDArray[Any], list[int]]
"""Statuses, and to what speed each subscriber is to be slowed."""

_PATH = "/simswitch.v1.AccessServerService/Session"


class OrderKind(IntEnum):
    """What to do."""

    SWITCH = 1
    """Move the terminal from the source to the target."""
    STOP = 2
    """The terminal was given another SIM elsewhere; let go of the source."""
    REVOKE = 3
    """The lease is over; let go of the source."""
    WITHDRAW = 4
    """Of a switch that nobody answered: do not begin it. The session answers it, and ``on_order`` never sees it."""
    UNKNOWN = 0
    """Of a newer service. The session refuses it."""


_KINDS = {kind.value: kind for kind in OrderKind}


class Result(IntEnum):
    """What became of an order."""

    DONE = 1
    REFUSED = 2
    """Not possible; the terminal is as it was."""
    BUSY = 3
    """Not carried out, the access server is busy."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the service wants done."""

    number: int
    kind: OrderKind
    terminal: int
    epoch: int
    deadline_ms: int
    """Unix milliseconds. A later acknowledgement is still wanted."""
    source_iccid: str
    target_iccid: str | None
    """None unless the kind is SWITCH."""
    target_bank: int
    target_slot: int


class SessionState(Enum):
    """Where a session stands."""

    CONNECTING = "connecting"
    RECONCILING = "reconciling"
    SERVING = "serving"
    WAITING = "waiting"
    """The service is away; the access server goes on with what it holds."""
    FENCED = "fenced"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What the service made of the holdings: how many had which ``simswitch.v1.Status``."""

    session: int
    differences: dict[int, int]


class Fenced(RuntimeError):
    """A newer session of the same access server stands: another process uses its name."""


OrderHandler = Callable[[Order], Awaitable[Result]]


LOAD_INTERVAL_S = 0.1
"""Between two reports of load, at least."""
AGAIN_S = 300.0
"""Until the next hello where the service could not take note of all that is held; half a lease at most."""
_NOT_NOW = frozenset({layout.ORDERS_FULL, layout.TERMINALS_FULL})
ANSWERS_MAX = 1_024
"""Orders whose answers are remembered: more than ever are outstanding."""


class _Link:
    """One stream, from hello to its end."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.outgoing: deque[bytes] = deque()
        self.changed = asyncio.Event()
        self.acknowledgements: list[tuple[int, int]] = []
        self._answers: OrderedDict[int, int | None] = OrderedDict()
        """Of the orders that came last; None: still carried out."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.results: deque[asyncio.Future[UsageResult]] = deque()
        self.session = 0
        self.taken_count = 0
        """Orders received."""
        self.load: pb.Load | None = None
        """To be sent when the time has come."""
        self.load_sent_s = 0.0
        self.again_s: float | None = None
        """When to say hello again although nothing broke."""

    def send(self, message: bytes) -> None:
        self.outgoing.append(message)
        self.changed.set()

    def is_new(self, number: int) -> bool:
        """Whether the order came for the first time. One that the service asks for again is answered as before."""
        if number in self._answers:
            result = self._answers[number]
            if result is not None:
                self.answer(number, result)
            return False
        self._answers[number] = None
        if len(self._answers) > ANSWERS_MAX:
            self._answers.popitem(last=False)
        return True

    def answer(self, number: int, result: int) -> None:
        if number in self._answers:
            self._answers[number] = result
        self.acknowledgements.append((number, result))
        self.changed.set()

    def report_load(
        self,
        queue_wait_us: int,
        service_us: int,
        waiting: int | None,
        allocation_wait_us: int | None,
        failed_count: int,
    ) -> None:
        if self.load is not None:
            # What is sent stands for all that was said since.
            failed_count += self.load.failed_count
            if self.load.HasField("allocation_wait_us"):
                allocation_wait_us = max(allocation_wait_us or 0, self.load.allocation_wait_us)
        due = self.load is None
        self.load = pb.Load(
            queue_wait_us=queue_wait_us,
            service_us=service_us,
            waiting=waiting,
            allocation_wait_us=allocation_wait_us,
            failed_count=failed_count,
        )
        if due:
            loop = asyncio.get_running_loop()
            loop.call_later(self.load_sent_s + LOAD_INTERVAL_S - loop.time(), self._send_load)

    def _send_load(self) -> None:
        assert self.load is not None
        self.load.taken_count = self.taken_count
        self.send(pb.SessionRequest(load=self.load).SerializeToString())
        self.load = None
        self.load_sent_s = asyncio.get_running_loop().time()

    async def write(self) -> None:
        """Sends what there is, as it comes. Acknowledgements that come close together go as one message."""
        while True:
            if self.acknowledgements:
                numbers, results = zip(*self.acknowledgements, strict=True)
                self.acknowledgements = []
                message = pb.Acknowledgements(order=numbers, result=results)
                self.outgoing.append(pb.SessionRequest(acknowledgements=message).SerializeToString())
            while self.outgoing:
                await self.call.write(self.outgoing.popleft())
            if not self.acknowledgements:
                self.changed.clear()
                await self.changed.wait()


class Session:
    """Made with an address, the access server's name, and what carries out an order.

    ``on_order`` is awaited once for each order, for many of them at a time; when it gives ``DONE`` the session changes
    the holdings itself. An exception in it, and anything that is no ``Result``, counts as REFUSED and goes to
    ``on_error``. When the connection breaks it is cancelled: it must then not carry out what it has not begun, and
    finish (shielded) what it has.

    ``on_unknown`` is told of a lease whose SIM the service does not know: the terminal must let go of it, and the
    holdings no longer have it when the call has returned. Without it such a lease stays in the holdings, since nobody
    would take the terminal off the SIM.
    """

    def __init__(
        self,
        address: str,
        access_server: str,
        on_order: OrderHandler,
        *,
        holdings: Holdings | None = None,
        actor: str | None = None,
        credentials: Credentials = PLAIN,
        software: str = "simswitch-client",
        on_state: Callable[[SessionState], object] | None = None,
        on_error: Callable[[Exception], object] | None = None,
        on_unknown: Callable[[Lease], object] | None = None,
        pause_first_s: float = PAUSE_FIRST_S,
        pause_max_s: float = PAUSE_MAX_S,
        random_source: random.Random | None = None,
    ) -> None:
        self.address = address
        self.access_server = access_server
        self.holdings = holdings if holdings is not None else Holdings()
        self.reconciliation: Reconciliation | None = None
        """Of the newest session."""
        self.state = SessionState.CONNECTING
        self._on_order = on_order
        self._on_state = on_state
        self._on_error = on_error
        self._on_unknown = on_unknown
        self._software = software
        self._actor = actor
        self._credentials = credentials
        self._pause_first_s = pause_first_s
        self._pause_max_s = pause_max_s
        self._random = random_source or random.Random()
        self._link: _Link | None = None
        # Set while it serves, and for good when it has ended; then the reason stands beside it.
        self._settled = asyncio.Event()
        self._ended: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def start(self) -> asyncio.Task[None]:
        """``run`` as a task, which ``close`` ends."""
        if self._task is None:
            self._begin()
            self._task = asyncio.create_task(self.run())
        return self._task

    async def close(self) -> None:
        """Ends the session. What is held stays held; the service keeps the SIMs until it hears of them again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError, Fenced, ServiceError):
                await task
        self._change(SessionState.CLOSED)
        self._end(None)

    def _begin(self) -> None:
        self._ended = None
        self._settled.clear()

    def _end(self, error: Exception | None) -> None:
        """Nobody waits any longer for a session that will not serve."""
        if self._ended is None:
            self._ended = error or ServiceError(grpc.StatusCode.CANCELLED, "", "the session has ended", 0)
        self._settled.set()

    async def serving(self, timeout_s: float | None = None) -> Reconciliation:
        """Waits until the service knows what is held and orders may come.

        Raises what ended ``run``: ``Fenced`` or ``ServiceError``.
        """
        async with asyncio.timeout(timeout_s):
            await self._settled.wait()
        if self._ended is not None:
            raise self._ended
        assert self.reconciliation is not None
        return self.reconciliation

    async def run(self) -> None:
        """Keeps a session with the service until cancelled.

        Raises ``Fenced`` when another process speaks for this access server, and ``ServiceError`` when the service
        refuses the session for a reason that waiting does not mend (unknown access server, not permitted).
        """
        self._begin()
        try:
            await self._keep()
        except Exception as error:
            self._end(error)
            raise
        finally:
            self._end(None)

    async def _keep(self) -> None:
        attempts = 0
        while True:
            self._change(SessionState.CONNECTING)
            try:
                # A connection of its own each time: a certificate or a token may have been replaced since.
                metadata = self._credentials.metadata(self.address, self._actor, f"access-server:{self.access_server}")
                async with self._credentials.aio_channel(self.address) as channel:
                    await self._once(channel, metadata)
            except grpc.aio.AioRpcError as error:
                self._judge(service_error(error))
            except ServiceError as error:
                self._judge(error)
            except CredentialsRefused as error:
                # They may be in the middle of being replaced.
                self._failed(error)
            except Exception as error:
                # What nobody foresaw while it served is a broken link: the terminals are still there.
                if not self._settled.is_set():
                    raise
                self._failed(error)
            attempts = 0 if self._settled.is_set() else attempts + 1
            self._settled.clear()
            self._change(SessionState.WAITING)
            bound_s = min(self._pause_max_s, self._pause_first_s * 2 ** min(attempts, 20))
            await asyncio.sleep(self._random.uniform(0, bound_s))

    def _judge(self, error: ServiceError) -> None:
        """Raises when coming again would not help: the service itself has said so, and for a reason that stands.

        A refusal without our reason came from a connection or from gRPC, which refuse and break in many ways.
        """
        if error.reason == "FENCED":
            self._change(SessionState.FENCED)
            raise Fenced(error.text) from error
        unforeseen = error.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
        if not error.reason or error.retry_after_ms or error.unreachable or unforeseen:
            return
        self._change(SessionState.CLOSED)
        raise error

    def _change(self, state: SessionState) -> None:
        if state is not self.state:
            self.state = state
            if self._on_state is not None:
                self._on_state(state)

    async def _once(self, channel: Any, metadata: Metadata) -> None:
        call: Any = channel.stream_stream(_PATH)(metadata=metadata)
        link = _Link(call)
        writer = asyncio.create_task(link.write())
        try:
            hello = pb.Hello(access_server=self.access_server, software=self._software, withdraws=True)
            link.send(pb.SessionRequest(hello=hello).SerializeToString())
            opened = await self._answer(link, "opened")
            link.session = opened.opened.session
            self._change(SessionState.RECONCILING)
            await self._reconcile(link, opened.opened)
            self._link = link
            self._settled.set()
            self._change(SessionState.SERVING)
            with suppress(TimeoutError):
                async with asyncio.timeout(link.again_s):
                    await self._serve(link)
        finally:
            self._link = None
            writer.cancel()
            for task in link.tasks:
                task.cancel()
            for future in link.results:
                future.cancel()
            call.cancel()
            await asyncio.gather(writer, *link.tasks, return_exceptions=True)

    async def _serve(self, link: _Link) -> None:
        while True:
            data = await link.call.read()
            if not isinstance(data, bytes):
                # The stream has ended, and the status of the call says why.
                await self._status(link.call)
                return
            self._receive(link, pb.SessionResponse.FromString(data))

    async def _status(self, call: Any) -> None:
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code, await call.initial_metadata(), await call.trailing_metadata(), await call.details(), None
            )

    async def _answer(self, link: _Link, wanted: str) -> pb.SessionResponse:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await self._awaited(link, wanted)
        except TimeoutError:
            text = f"the service did not answer within {ANSWER_WITHIN_S:g} s"
            raise ServiceError(grpc.StatusCode.DEADLINE_EXCEEDED, "", text, 0) from None

    async def _awaited(self, link: _Link, wanted: str) -> pb.SessionResponse:
        while True:
            data = await link.call.read()
            if not isinstance(data, bytes):
                await self._status(link.call)
                raise ServiceError(grpc.StatusCode.UNAVAILABLE, "", "the service ended the session", 0)
            response = pb.SessionResponse.FromString(data)
            if response.WhichOneof("message") == wanted:
                return response
            self._receive(link, response)

    async def _reconcile(self, link: _Link, opened: pb.Opened) -> None:
        leases = list(self.holdings)
        for start in range(0, len(leases), ITEMS_MAX):
            piece = leases[start : start + ITEMS_MAX]
            holds = pb.Holds(
                terminal=[lease.terminal for lease in piece],
                epoch=[lease.epoch for lease in piece],
                iccid=[encode_iccid(lease.iccid) for lease in piece],
            )
            link.send(pb.SessionRequest(holds=holds).SerializeToString())
            result = await self._answer(link, "holds_result")
            for lease, status in zip(piece, map(int, result.holds_result.status), strict=True):
                # A revoked hold is let go of when its order comes; one that the service does not know, now. Where it
                # has no room for the order the hold is named again: after a start nobody is given the SIM until then.
                if status == layout.UNKNOWN_SIM:
                    self._let_go(lease)
                elif status in _NOT_NOW:
                    link.again_s = min(AGAIN_S, opened.lease_ms / 2_000)
                elif status >= layout.NOT_PERMITTED:
                    raise _not_taken("what is held", status)
        link.send(pb.SessionRequest(ready=pb.Ready()).SerializeToString())
        ready = (await self._answer(link, "ready_result")).ready_result
        if ready.status >= layout.NOT_PERMITTED:
            raise _not_taken("that the list is complete", ready.status)
        differences = {int(difference.status): difference.count for difference in ready.differences}
        self.reconciliation = Reconciliation(link.session, differences)

    def _let_go(self, lease: Lease) -> None:
        if self._on_unknown is None:
            return
        try:
            self._on_unknown(lease)
        except Exception as error:
            # The terminal may still be on the SIM: the lease stays, and is told again next time.
            self._failed(error)
            return
        self.holdings.drop(lease.terminal, lease.iccid)

    def _failed(self, error: Exception) -> None:
        if self._on_error is not None:
            self._on_error(error)

    def _receive(self, link: _Link, response: pb.SessionResponse) -> None:
        kind = response.WhichOneof("message")
        if kind == "orders":
            data = contract.ORDERS_MESSAGE.decode(response.orders.SerializeToString())
            orders = OutcomeRun(ORDERS, data.count, memoryview(data.columns()))
            for order in _orders(orders):
                link.taken_count += 1
                if not link.is_new(order.number):
                    continue
                if order.kind in (OrderKind.WITHDRAW, OrderKind.UNKNOWN):
                    # Of a withdrawn one the switch never came, and is not begun if it still does.
                    link.answer(order.number, int(Result.REFUSED))
                    continue
                task = asyncio.create_task(self._carry_out(link, order))
                link.tasks.add(task)
                task.add_done_callback(link.tasks.discard)
        elif kind == "usage_result" and link.results:
            future = link.results.popleft()
            if not future.done():
                result = response.usage_result
                slow_kbps = result.slow_kbps or [0] * len(result.status)  # left out: nobody is slowed
                future.set_result((np.array(result.status, np.uint8), list(slow_kbps)))

    async def _carry_out(self, link: _Link, order: Order) -> None:
        failure: Exception | None = None
        try:
            result = await self._on_order(order)
            if not isinstance(result, Result):
                raise TypeError(f"on_order gave {result!r} for order {order.number}, which is no Result")
        except Exception as error:
            result, failure = Result.REFUSED, error
        if result is Result.DONE:
            if order.kind is OrderKind.SWITCH and order.target_iccid is not None:
                standing = self.holdings.get(order.terminal)
                slow_kbps = standing.slow_kbps if standing is not None else 0
                self.holdings.hold(Lease(order.terminal, order.epoch, order.target_iccid, slow_kbps=slow_kbps))
            else:
                self.holdings.drop(order.terminal, order.source_iccid)
        link.answer(order.number, int(result))
        if failure is not None:
            self._failed(failure)

    def report_load(
        self,
        queue_wait_us: int,
        service_us: int,
        waiting: int | None = None,
        allocation_wait_us: int | None = None,
        failed_count: int = 0,
    ) -> bool:
        """How busy the access server is, at least once a second. False: the service is away, nothing is sent.

        ``waiting`` counts the operations that are not begun, orders that ``on_order`` holds back among them. Who tells
        it is sent orders by what waits rather than by time, and reports also when it begins an order, and, after it had
        told of a queue, when it begins an operation with nothing behind it and when it has nothing to do. It may call
        this as often as it likes: of what comes within 100 ms the last is sent. ``allocation_wait_us`` is the longest
        wait of an allocation since the last call, ``failed_count`` how many were given up since.
        """
        link = self._link
        if link is None:
            return False
        link.report_load(queue_wait_us, service_us, waiting, allocation_wait_us, failed_count)
        return True

    async def report_usage(
        self,
        terminals: npt.ArrayLike,
        epochs: npt.ArrayLike,
        up_bytes: npt.ArrayLike,
        down_bytes: npt.ArrayLike,
        **fared: npt.ArrayLike,
    ) -> npt.NDArray[Any]:
        """Bytes of each lease since it began; gives a status for each, and notes in the holdings who is to be slowed.

        ``fared``: the columns ``span_ms``, ``goodput_kbps``, ``demand_permille`` and ``radio``, as far as known.
        Raises ``ServiceError`` when the service is away.
        """
        link = self._link
        if link is None:
            raise ServiceError(grpc.StatusCode.UNAVAILABLE, "", "the service is away", 0)
        values = {"terminal": terminals, "epoch": epochs, "up_bytes": up_bytes, "down_bytes": down_bytes, **fared}
        content = columns.request(layout.REPORT_USAGE, contract.USAGE, values, pb.Usage())
        future: asyncio.Future[UsageResult] = asyncio.get_running_loop().create_future()
        link.results.append(future)
        link.send(columns.enclosed(pb.SessionRequest.USAGE_FIELD_NUMBER, content))
        try:
            statuses, slow_kbps = await future
        except asyncio.CancelledError:
            if self._link is link:
                raise
            raise ServiceError(grpc.StatusCode.UNAVAILABLE, "", "the session broke", 0) from None
        if slow_kbps:  # a report that was refused as a whole has no results
            self.holdings.slow(terminals, epochs, slow_kbps)
        return statuses


def _not_taken(what: str, status: int) -> ServiceError:
    """Why an attempt ends before READY. An incomplete list must never be declared complete: the service would give
    away the SIMs that it does not name."""
    if status == layout.STALE_SESSION:
        # Coming again would fence the newer one in turn.
        return ServiceError(grpc.StatusCode.ABORTED, "FENCED", "a newer session of this access server stands", 0)
    text = f"the service does not take {what}: status {status}"
    return ServiceError(grpc.StatusCode.UNAVAILABLE, "", text, 0)


def _orders(run: OutcomeRun) -> list[Order]:
    names = ("order", "kind", "terminal", "epoch", "deadline_ms", "source_iccid", "target_iccid")
    rows = zip(*(run[name].tolist() for name in (*names, "target_bank", "target_slot")), strict=True)
    return [
        Order(
            number,
            _KINDS.get(kind, OrderKind.UNKNOWN),
            terminal,
            epoch,
            deadline_ms,
            decode_iccid(source),
            decode_iccid(target) if kind == OrderKind.SWITCH else None,
            bank,
            slot,
        )
        for number, kind, terminal, epoch, deadline_ms, source, target, bank, slot in rows
    ]

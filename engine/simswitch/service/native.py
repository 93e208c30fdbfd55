"""The second transport: pygrpc-native takes the hot calls, grpcio stays behind it for all others.

    client ──▶ front (Rust, without the GIL) ──hot calls──▶ receiver ──▶ handler ──▶ cell.post
                  │      ▲                                  (a thread)                  ┃ durable
                  │      └── respond ◀── encode ◀── finish, once per group, in a worker of the cell
                  └──every other method──▶ Unix socket ──▶ grpcio, as if it were alone

The front speaks HTTP/2 on the one port that clients see. The hot methods, which are unary and never wait, come out of
it in batches, each call with its number; an answer names the number and may be given by any thread. So a hot call meets
no event loop, no task and no future. Allocations of single terminals that come in one batch are joined (``joined``).

The front carries no request that is a stream, so it forwards what is not hot, byte by byte and flow control included,
to the server that grpcio would be anyway; that one listens on an abstract Unix socket, which vanishes with the process.

Codes, details, deadlines and limits are those of grpcio, and the tests of the service run over both. What differs: the
front reads a hot call's whole message before its size is judged here; it does not punish clients that ping too often.
There is no TLS in it: loopback only, or behind a proxy that ends TLS.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from grpc import StatusCode
from grpc.aio import AioRpcError, insecure_channel
from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

from simswitch.cell import Cell, Posted
from simswitch.contract import MESSAGE_BYTES_MAX
from simswitch.core.commands import OutcomeRun
from simswitch.service.access import Proof, proof
from simswitch.service.call import Call
from simswitch.service.errors import DRAINING, INTERNAL, Refused, refused
from simswitch.service.joined import SINGLE, Joined, Joiner
from simswitch.service.methods import Work
from simswitch.service.overload import PROBE

if TYPE_CHECKING:
    from simswitch.service.server import Service

EVENTS_MAX = 256
"""Calls that are taken from the front at once, and so go to the cell together."""
CALLS_PER_CONNECTION_MAX = 1_024
log = logging.getLogger("simswitch.service")


class _Waiting(Posted):
    """A call that waits for its group."""

    __slots__ = ("came_s", "method", "number", "work")

    def __init__(self, number: int, method: int, work: Work, finish: Any, deadline: float | None) -> None:
        super().__init__(work.commands, finish, deadline)
        self.came_s = time.monotonic()
        self.method = method
        self.number = number
        self.work = work

    def leave(self) -> None:
        """The client went away, or its deadline passed."""
        self.cancelled = True


class Front:
    """Listens from its making on, answers from ``start`` on; ended by ``drain`` and ``close``."""

    def __init__(self, cell: Cell, service: Service, address: str, behind: str) -> None:
        """``behind``: the abstract Unix socket where grpcio listens."""
        self._cell = cell
        self._access = service.access
        self._connections = service.connections
        self._overload = service.overload
        self._probe = service.probe
        hot = [method for method in service.methods.values() if method.hot]
        self._handlers = [method.handler for method in hot]
        self._kinds = [method.kind for method in hot]
        self._paths = [method.path for method in hot]
        self._single = self._paths.index(SINGLE)
        self._served = service.served
        self._front = NativeGrpcFront(
            address,
            [*((method.path, False) for method in hot), (PROBE, False)],
            io_threads=1,
            call_details=True,
            keepalive_time_ms=20_000,
            keepalive_timeout_ms=10_000,
            keepalive_permit_without_calls=False,
            max_concurrent_streams=CALLS_PER_CONNECTION_MAX,
        )
        self.port = self._front.bound_port
        self._address = f"{address.rpartition(':')[0]}:{self.port}"
        self._front.set_fallback(f"\0{behind.removeprefix('unix-abstract:')}")
        self._loop = asyncio.get_running_loop()
        self._receiver = threading.Thread(target=self._receive, name="simswitch-native", daemon=True)
        # Bound once: the cell compares what the calls of a group name.
        self._finish_calls = self._finish
        self._joiner: Joiner[int] = Joiner(service.directory, self._finish_joined)
        # By the call's number; entered by the receiver, taken out by whoever answers.
        self._waiting: dict[int, _Waiting | Joined[int]] = {}
        self._meeting: set[asyncio.Task[None]] = set()
        self._draining = False
        self._idle = asyncio.Event()

    def start(self) -> None:
        self._front.start()
        self._receiver.start()

    async def drain(self, grace_seconds: float) -> None:
        """Refuses what comes from now on, and returns when what came before is answered, or the time is over."""
        self._draining = True
        try:
            async with asyncio.timeout(grace_seconds):
                # So the receiver has entered all that it took before.
                await self._go_round()
                while self._waiting or self._meeting:
                    self._idle.clear()
                    if self._waiting or self._meeting:
                        await self._idle.wait()
                # And the front has written the answers, since closing it loses what it holds: when the first comes back
                # they have been handed to their connections, when the second does these have had their turn.
                await self._go_round(2)
        except TimeoutError:
            log.warning("%d calls are not answered at the end of the grace period", len(self._waiting))

    async def _go_round(self, times: int = 1) -> None:
        """Calls of our own, which are refused: the receiver and the front's one thread take all things in turn."""
        async with insecure_channel(self._address) as channel:
            for _ in range(times):
                with suppress(AioRpcError):
                    await channel.unary_unary(SINGLE, None, None)(b"")

    async def close(self) -> None:
        """Ends every connection, those of the calls that went to grpcio too."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._front.close()
        self._receiver.join()

    def _answered(self) -> None:
        if self._draining and not self._waiting and not self._meeting:
            self._loop.call_soon_threadsafe(self._idle.set)

    # -------------------------------------------------------------------------------------------- the receiver

    def _receive(self) -> None:
        known = self._access.known
        admit = self._overload.admit
        while (events := self._front.recv_batch_details(EVENTS_MAX)) is not None:
            now = time.monotonic()
            calls: list[Posted] = []
            for kind, number, method, data, _, details in events:
                if kind == EVENT_CANCEL:
                    left = self._waiting.get(number)
                    if left is not None:
                        left.leave()
                    continue
                assert data is not None
                assert details is not None
                metadata, source, remaining_s = details
                deadline = None if remaining_s is None else now + remaining_s
                try:
                    if method == len(self._kinds):
                        self._probe.check(data)
                        self._front.respond(number, b"")
                        continue
                    admit(self._kinds[method], remaining_s)
                    given = proof(metadata, None, source)
                    actor = known(given)
                    if actor is None:
                        self._loop.call_soon_threadsafe(self._begin_meeting, number, method, data, given, deadline)
                        continue
                    call = Call(actor, deadline)
                    call.keep_pace()
                    if self._access.required:
                        self._connections.made(source, actor.share)
                except Refused as error:
                    self._refuse(number, method, error)
                    continue
                if method == self._single and not self._draining:
                    joined = self._joiner.join(number, data, call)
                    if joined is not None:
                        self._waiting[number] = joined
                        continue
                self._take(number, method, data, call, calls)
            calls += self._joiner.close()
            # Who comes while this thread serves a lone call waits in the front, and comes out of it together.
            if calls and not (len(events) == 1 and self._cell.serve_alone(calls[0])):
                self._cell.post(calls)

    def _take(self, number: int, method: int, data: bytes, call: Call, calls: list[Posted]) -> None:
        """Answers a call at once, or adds it to those that are to be posted."""
        if len(data) > MESSAGE_BYTES_MAX:
            # Without a reason of ours, as grpcio refuses it.
            text = f"The message has {len(data):,} bytes, more than {MESSAGE_BYTES_MAX:,}."
            self._front.fail(number, StatusCode.RESOURCE_EXHAUSTED.value[0], text)
            self._count_refused(method, StatusCode.RESOURCE_EXHAUSTED.value[0])
            return
        try:
            if self._draining:
                raise Refused(DRAINING)
            work = self._handlers[method](data, call)
            if isinstance(work, bytes):
                self._front.respond(number, work)
                if self._served is not None:
                    self._served.answered(self._paths[method], 0.0)
                return
        except Exception as error:
            self._refuse(number, method, error)
            return
        waiting = _Waiting(number, method, work, self._finish_calls, call.deadline)
        self._waiting[number] = waiting
        calls.append(waiting)

    def _begin_meeting(self, number: int, method: int, data: bytes, given: Proof, deadline: float | None) -> None:
        task = self._loop.create_task(self._meet(number, method, data, given, deadline))
        self._meeting.add(task)
        task.add_done_callback(self._met)

    def _met(self, task: asyncio.Task[None]) -> None:
        self._meeting.discard(task)
        self._answered()

    async def _meet(self, number: int, method: int, data: bytes, given: Proof, deadline: float | None) -> None:
        """The first call of an actor: it has to be made known, durably, before the call itself."""
        try:
            actor = await self._access.meet(given)
            call = Call(actor, deadline)
            call.keep_pace()
            if self._access.required:
                self._connections.made(given.source, actor.share)
        except Exception as error:
            self._refuse(number, method, error)
            return
        calls: list[Posted] = []
        self._take(number, method, data, call, calls)
        self._cell.post(calls)

    # -------------------------------------------------------------------------------------------- answers

    def _finish(self, calls: Sequence[Posted]) -> None:
        """Answers calls that are durable. In a worker of the cell, as what follows."""
        for call in cast(Sequence[_Waiting], calls):
            del self._waiting[call.number]
            answered = self._answer(call.number, call.method, call.work, call.outcome, call.error)
            if answered and self._served is not None:
                self._served.answered(self._paths[call.method], time.monotonic() - call.came_s)
        self._answered()

    def _finish_joined(self, groups: Sequence[Posted]) -> None:
        respond = self._front.respond
        again: list[Posted] = []
        for group in cast(Sequence[Joined[int]], groups):
            for number in group.calls:
                del self._waiting[number]
            if group.outcome is None:
                self._refuse_joined(group, again)
                continue
            answers = group.answers(group.outcome)
            well = len(answers)
            for number, request, answer in zip(group.calls, group.requests, answers, strict=True):
                if isinstance(answer, bytes):
                    respond(number, answer)
                else:
                    work = self._handlers[self._single](request, Call(group.actor, None))
                    well -= not self._answer(number, self._single, work, answer, None)
            if well and self._served is not None:
                self._served.answered(SINGLE, time.monotonic() - group.came_s, well)
        if again:
            self._cell.post(again)
        self._answered()

    def _refuse_joined(self, group: Joined[int], again: list[Posted]) -> None:
        for number, request, deadline in zip(group.calls, group.requests, group.deadlines, strict=True):
            if group.expired_together(deadline):
                self._take(number, self._single, request, Call(group.actor, deadline), again)
            else:
                self._answer(number, self._single, None, None, group.error)

    def _answer(
        self, number: int, method: int, work: Work | None, outcome: OutcomeRun | None, error: BaseException | None
    ) -> bool:
        """Whether the answer is no refusal."""
        try:
            if error is not None:
                raise error
            if outcome is None:
                # Its client had gone before its turn came, so it was dropped.
                self._count_refused(method, StatusCode.CANCELLED.value[0])
                return False
            assert work is not None
            # False, when the client has gone, is nothing to us: it will ask again.
            self._front.respond(number, work.encode(outcome))
        except Exception as failure:
            self._refuse(number, method, failure)
            return False
        return True

    def _refuse(self, number: int, method: int, error: Exception) -> None:
        refusal = refused(error)
        if refusal is None:
            log.error("a call failed", exc_info=error)
            refusal = Refused(INTERNAL, type(error).__name__)
        self._front.fail(number, refusal.reason.code.value[0], refusal.text, refusal.metadata())
        self._count_refused(method, refusal.reason.code.value[0])

    def _count_refused(self, method: int, code: int) -> None:
        # The probe is no call of anybody's.
        if self._served is not None and method < len(self._paths):
            self._served.refused(self._paths[method], code)

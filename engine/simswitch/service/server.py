"""The server: gRPC in, bytes to the handlers, bytes out.

Every method is registered with the bytes of its messages, so that hot calls never become objects and a message that
can't be decoded is refused with a clear status. The methods are those of the contract's descriptors; one without a
handler stops the server from starting.

Bounds: 8 MiB a message, 8 KiB of metadata, 1,024 calls beside 4,096 sessions at a time (the cell's queue bounds their
work), at most 1,024 calls a connection, and those of ``DoorSettings``. Past them RESOURCE_EXHAUSTED, at once. Whose the
connections are and which are ended ``connections`` says. As many files as they need are asked of the system at start;
where it has fewer there may be fewer connections, since without a file to open the journal could not go on.
Long before that calls are shed by what they are (``overload``). Of calls that the event loop has not come to, 2,048 may
wait; more are turned away by gRPC itself, without a reason (CANCELLED or UNAVAILABLE, by the client's library): that
happens to clients that are deaf to refusals. A stream whose client stops reading is cut off.

Without TLS the address must be a loopback one, unless the settings say in so many words that it need not be. With it,
access servers come with certificates (``address``) and people with tokens (``people_address``): one gRPC port can
either insist on a certificate or not ask for one. Where none is asked for strangers come in too, as far as to say who
they are. So people's door is a server of its own, with bounds of its own (1,024 connections, 2,048 calls): whoever
fills that door, with calls that never say a word or anything else, takes no place from access servers.

Where callers prove who they are, at either door, a call is judged before its message is read, and what one identity has
under way is bounded (``share``): calls, messages that are being read, bytes that were read or answered.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import secrets
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc
from grpc_reflection.v1alpha import reflection

from simswitch.access.certificates import Certificates
from simswitch.array_cache import fill_array_cache
from simswitch.cell import Cell, CellClosed, CellFailed, Posted
from simswitch.clock import WallClock
from simswitch.contract import MESSAGE_BYTES_MAX
from simswitch.core import layout
from simswitch.core.commands import OutcomeRun
from simswitch.core.machine import Machine
from simswitch.history.schema import HistoryRefused, open_reader
from simswitch.metrics import shown
from simswitch.owner import opened
from simswitch.service.access import Access, AccessSettings, proof
from simswitch.service.allocation import AllocationHandlers, UsageHandlers
from simswitch.service.calendar import Calendar
from simswitch.service.call import Call
from simswitch.service.caps import CapsHandlers
from simswitch.service.connections import Connections, Door
from simswitch.service.definitions import count_prepaid
from simswitch.service.directory import Directory
from simswitch.service.errors import (
    INTERNAL,
    MESSAGE_EXPECTED,
    NO_CREDENTIALS,
    NOT_PERMITTED,
    SLOW_CONSUMER,
    WITHDRAWN,
    Refused,
    refused,
)
from simswitch.service.events import EventHandlers
from simswitch.service.follower import keep_follower, keep_learner
from simswitch.service.health import NAME as HEALTH_NAME
from simswitch.service.health import Health
from simswitch.service.history import HistoryHandlers
from simswitch.service.inventory import InventoryHandlers
from simswitch.service.joined import SINGLE, Joined, Joiner
from simswitch.service.listening import Listening
from simswitch.service.methods import Method, methods
from simswitch.service.metrics import Served, ServiceMetrics
from simswitch.service.overload import PROBE, Overload, Probe
from simswitch.service.pool import PoolHandlers
from simswitch.service.sessions import SessionHandlers
from simswitch.service.settings import DoorSettings, ServerSettings, checked, configure, is_loopback, native
from simswitch.service.share import MESSAGE_WITHIN_S
from simswitch.service.sims import SimHandlers
from simswitch.service.subscribers import SubscriberHandlers
from simswitch.service.swaps import SwapHandlers
from simswitch.v1 import (
    access_server_pb2,
    allocation_pb2,
    caps_pb2,
    event_pb2,
    history_pb2,
    inventory_pb2,
    pool_pb2,
    sim_service_pb2,
    subscriber_pb2,
    swap_pb2,
    usage_pb2,
)

if TYPE_CHECKING:
    from simswitch.metrics_listener import Listener
    from simswitch.service.native import Front

CALLS_MAX = 1_024
PENDING_MAX = 2_048
"""Calls that have come and were not looked at: at 3,000 to 6,000 a second a wait of half a second."""
METADATA_BYTES_MAX = 8_192
PEOPLE_CALLS_MAX = 2_048
FILES_OWN = 512
"""Open files beside those of connections: journal, history, libraries."""
CONNECTION_AGE_MS = 86_400_000
"""With TLS: after a day a connection is made anew, and a certificate that has expired since is noticed."""
CONNECTION_GRACE_MS = 600_000
_OF_TLS = (
    ("grpc.max_connection_age_ms", CONNECTION_AGE_MS),
    ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_MS),
)
CONNECTION_IDLE_MS = 120_000
"""Where callers prove who they are, a connection without a call for so long is ended: what is bounded by identity are
calls, and so its connections are too. The next call makes a new one."""
GATHER_S = 0.005
"""The longest that a single allocation waits for others to join, while the event loop is busy; else it never waits."""
GATHER_STEP_S = 0.001
BUSY_PART = 0.75
AWAITED_NAMED = 8
AWAITED_LOOK_S = 1.0
ADDRESS_FILE = "address"
PEOPLE_ADDRESS_FILE = "people-address"
METRICS_ADDRESS_FILE = "metrics-address"

# After these the next reset may be another.
_OF_CALENDAR = frozenset((layout.EVENT_RESET, layout.EVENT_CAP))

log = logging.getLogger("simswitch.service")

Context = Any


class Busy:
    """Whether this thread has hardly had time to spare of late: for at least GATHER_STEP_S."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._time = loop.time
        self._since_s, self._used_s = self._time(), time.thread_time()
        self._busy = False

    def __call__(self) -> bool:
        now_s = self._time()
        passed_s = now_s - self._since_s
        if passed_s > GATHER_STEP_S:
            used_s = time.thread_time()
            self._busy = used_s - self._used_s > BUSY_PART * passed_s
            self._since_s, self._used_s = now_s, used_s
        return self._busy


class Service:
    """All handlers over one started cell."""

    def __init__(
        self,
        cell: Cell,
        access: AccessSettings,
        folder: Path | None = None,
        doors: DoorSettings | None = None,
        *,
        counted: bool = False,
    ) -> None:
        """``counted``: calls and events are counted for figures."""
        self.cell = cell
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.directory = Directory(cell)
        self.calendar = Calendar(cell, self.directory)
        self.access = Access(self.directory, access, folder)
        self._tls = access.tls is not None
        self.overload = Overload(cell)
        self.probe = Probe()
        self.doors = doors or DoorSettings()
        self.connections = Connections(self.doors.per_address, self.doors.per_identity, self.doors.handshake_ms / 1_000)
        # Kept here, since the loop itself keeps no reference to a task.
        self._telling: set[asyncio.Task[None]] = set()
        self.sessions = SessionHandlers(cell, self.directory)
        self.swaps = SwapHandlers(cell, self.directory)
        self.events = EventHandlers(cell, self.directory)
        self.inventory = InventoryHandlers(cell, self.directory)
        self.history = HistoryHandlers(self.directory, folder)
        services: list[tuple[Any, str, Any]] = [
            (allocation_pb2, "AllocationService", AllocationHandlers(cell, self.directory, self.overload)),
            (access_server_pb2, "AccessServerService", self.sessions),
            (usage_pb2, "UsageService", UsageHandlers(cell, self.directory)),
            (swap_pb2, "SwapService", self.swaps),
            (event_pb2, "EventService", self.events),
            (inventory_pb2, "InventoryService", self.inventory),
            (pool_pb2, "PoolService", PoolHandlers(cell, self.directory, folder, self.sessions)),
            (caps_pb2, "CapsService", CapsHandlers(cell, self.directory, folder)),
            (history_pb2, "HistoryService", self.history),
            (sim_service_pb2, "SimService", SimHandlers(cell, self.directory, folder)),
            (subscriber_pb2, "SubscriberService", SubscriberHandlers(cell, self.directory, folder)),
        ]
        self.names: list[str] = []
        self.methods: dict[str, Method] = {}
        for module, name, handlers in services:
            descriptor = module.DESCRIPTOR.services_by_name[name]
            self.names.append(descriptor.full_name)
            self.methods.update((method.path, method) for method in methods(descriptor, handlers))
        self.served = Served(self.methods.values()) if counted else None

    async def load(self) -> None:
        """Takes the definitions over from the machine; from then on orders are delivered."""
        await self.directory.load()
        await count_prepaid(self.directory)
        self.cell.on_orders = self.sessions.deliver
        self.cell.on_events = self._tell
        remembered, header = await self.cell.read(lambda machine: (machine.events(), machine.header()))
        self.events.begin(remembered, header["events_count"], header["events_leapt"])
        self.directory.on_change = self.calendar.look

    def _tell(self, run: OutcomeRun, now_ms: int) -> None:
        self.events.tell(run, now_ms)
        if self.served is not None:
            self.served.heard(run)
        if _OF_CALENDAR.intersection(run["kind"].tolist()):
            self.calendar.look()

    def drain(self) -> None:
        """Ends the calls that would never end by themselves."""
        self.sessions.drain()
        self.swaps.drain()
        self.events.drain()

    def generic_handlers(self, *, probe: bool) -> list[Any]:
        """What grpc.aio is given: identity serializers throughout. ``probe``: our own calls come here.

        Where callers prove who they are it has to be known whose a message is before it takes memory. A
        handler of a call with one message begins only when that has come; so there all are handlers of streams, which
        begin at once, and read the message when it has its turn (``share``).
        """
        services: dict[str, dict[str, Any]] = {}
        for method in self.methods.values():
            _, service, name = method.path.split("/")
            if method.response_streaming:
                made = grpc.stream_stream_rpc_method_handler, grpc.unary_stream_rpc_method_handler
                answer = self._to_stream(method)
            else:
                made = grpc.stream_unary_rpc_method_handler, grpc.unary_unary_rpc_method_handler
                answer = self._to_single(method) if method.path == SINGLE else self._to_unary(method)
            of_stream, of_message = made
            handler = (of_stream if method.request_streaming or self.access.required else of_message)(answer)
            services.setdefault(service, {})[name] = handler
        if probe:
            _, service, name = PROBE.split("/")
            # It waits as often as the calls of this door do.
            made = grpc.stream_unary_rpc_method_handler, grpc.unary_unary_rpc_method_handler
            services[service] = {name: made[not self.access.required](self._to_probe)}
        return [grpc.method_handlers_generic_handler(name, handlers) for name, handlers in services.items()]

    async def _to_probe(self, request: Any, context: Context) -> bytes:
        try:
            if self.access.required:
                if not context.peer().startswith("unix"):
                    raise Refused(NOT_PERMITTED, "only the service itself asks for this")
                async with asyncio.timeout(MESSAGE_WITHIN_S):
                    request = await context.read()
            self.probe.check(request)
        except TimeoutError:
            await _abort(context, Refused(MESSAGE_EXPECTED, f"{MESSAGE_WITHIN_S:.0f}"))
        except Refused as error:
            await _abort(context, error)
        return b""

    def _to_unary(self, method: Method) -> Callable[[Any, Context], Any]:
        async def answer(request: Any, context: Context) -> bytes:
            try:
                call = await self._call(context, method)
                return await self._carry_out(method, await self._request(method, request, call, context), call)
            except Exception as error:
                await _abort(context, error)

        return answer if self.served is None else self.served.unary(method, answer)

    async def _request(self, method: Method, request: Any, call: Call, context: Context) -> Any:
        """What a handler is given: the message, or the stream of them. Where callers prove who they are the message is
        read only now, in its turn."""
        if call.held is None or method.request_streaming:
            return request
        return await call.held.message(context)

    async def _carry_out(self, method: Method, request: Any, call: Call) -> bytes:
        if not method.hot:
            reply = bytes(await method.handler(request, call))
        else:
            work = method.handler(request, call)
            if isinstance(work, bytes):
                return work
            reply = bytes(work.encode(await self.cell.submit(work.commands, call.deadline)))
        call.hold(len(reply))
        return reply

    def _to_single(self, method: Method) -> Callable[[Any, Context], Any]:
        """Calls are joined as long as the event loop is busy, which then is busy with more of them; an idle one waits
        for nobody, and serves a lone call itself. A call that can't join goes the way of the others."""
        joiner: Joiner[asyncio.Future[bytes | OutcomeRun | None]] = Joiner(self.directory, self._finish_joined)
        loop = self._loop
        busy = Busy(loop)

        def gather(until_s: float) -> None:
            if busy() and loop.time() < until_s:
                loop.call_later(GATHER_STEP_S, gather, until_s)
                return
            lone = joiner.count == 1
            groups = joiner.close()
            if not (lone and self.cell.serve_alone(groups[0])):
                self.cell.post(groups)

        async def answer(request: Any, context: Context) -> bytes:
            try:
                call = await self._call(context, method)
                request = await self._request(method, request, call, context)
                future: asyncio.Future[bytes | OutcomeRun | None] = loop.create_future()
                joined = joiner.join(future, request, call)
                if joined is None:
                    return await self._carry_out(method, request, call)
                try:
                    if joiner.count == 1:
                        try:
                            # Those that the loop took together with this one come first.
                            await asyncio.sleep(0)
                        finally:
                            gather(loop.time() + GATHER_S)
                    found = await future
                except asyncio.CancelledError:
                    joined.leave()
                    raise
                if isinstance(found, bytes):
                    return found
                if found is None:
                    return await self._carry_out(method, request, call)
                return bytes(method.handler(request, call).encode(found))
            except Exception as error:
                request = None
                await _abort(context, error)

        return answer if self.served is None else self.served.unary(method, answer)

    def _finish_joined(self, groups: Sequence[Posted]) -> None:
        if threading.get_ident() == self._thread:
            _answer_joined(groups)
            return
        try:
            self._loop.call_soon_threadsafe(_answer_joined, groups)
        except RuntimeError:
            # Nobody is left to be told. What was committed stays committed.
            if not self._loop.is_closed():
                raise

    def _to_stream(self, method: Method) -> Callable[[Any, Context], Any]:
        async def answer(request: Any, context: Context) -> AsyncIterator[bytes]:
            stream = asyncio.current_task()
            assert stream is not None
            try:
                call = await self._call(context, method)
                self.access.enter(call, stream)
                try:
                    replies = method.handler(await self._request(method, request, call, context), call)
                    try:
                        async for reply in replies:
                            # It comes back when the reply has gone out, which to a client that does not read it never
                            # does.
                            cutting = self._loop.call_later(self.doors.unread_s, self._cut_off, stream, context)
                            try:
                                yield reply
                            finally:
                                cutting.cancel()
                    finally:
                        await replies.aclose()
                except asyncio.CancelledError:
                    if not call.actor.withdrawn:
                        raise
                    # Cancelled by us: the client is still there, and is told why.
                    raise Refused(WITHDRAWN, call.actor.withdrawn) from None
                finally:
                    self.access.leave(call, stream)
            except Exception as error:
                await _abort(context, error)

        return answer if self.served is None else self.served.stream(method, answer)

    def _cut_off(self, stream: asyncio.Task[object], context: Context) -> None:
        """Ends a stream that nobody reads; its client is told when it reads on."""

        async def tell() -> None:
            with suppress(grpc.aio.AbortError, grpc.aio.UsageError):
                await _abort(context, Refused(SLOW_CONSUMER, "1"))

        stream.cancel()
        telling = self._loop.create_task(tell())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _call(self, context: Context, method: Method) -> Call:
        remaining_s = context.time_remaining()
        self.overload.admit(method.kind, remaining_s)
        given = proof(context.invocation_metadata(), context.auth_context() if self._tls else None, context.peer())
        if self._tls and given.source.startswith("unix"):
            # Only our own calls come that way, and they never come here.
            raise Refused(NO_CREDENTIALS)
        actor = self.access.known(given) or await self.access.meet(given)
        deadline = None if remaining_s is None else time.monotonic() + remaining_s
        call = Call(actor, deadline)
        call.keep_pace()
        if not self.access.required:
            return call
        self.connections.made(given.source, actor.share)
        method.check(call)
        held = actor.share.begin()
        context.add_done_callback(held.end)
        return Call(actor, deadline, held)


def _answer_joined(groups: Sequence[Posted]) -> None:
    """None, as an answer: to be tried again for itself."""
    for group in cast(Sequence[Joined[asyncio.Future[bytes | OutcomeRun | None]]], groups):
        answers: Sequence[bytes | OutcomeRun | None] = [None] * len(group.calls)
        if group.outcome is not None:
            answers = group.answers(group.outcome)
        for future, answer, deadline in zip(group.calls, answers, group.deadlines, strict=True):
            if future.done():
                continue
            if group.error is not None and not group.expired_together(deadline):
                future.set_exception(group.error)
            else:
                future.set_result(answer)


async def _abort(context: Context, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    refusal = refused(error)
    if refusal is None:
        log.error("a call failed", exc_info=error)
        refusal = Refused(INTERNAL, type(error).__name__)
    # gRPC keeps what abort raises in a circle with the frames that it went through. None of them may have the message,
    # which would then be there until garbage is collected.
    error.__traceback__ = None
    await context.abort(refusal.reason.code, refusal.text, refusal.metadata())
    raise AssertionError("abort returned")


class RunningServer:
    """A server that listens; made by ``start``."""

    def __init__(
        self,
        servers: Sequence[Listening],
        health: Health,
        service: Service,
        port: int,
        address: str,
        people_address: str | None = None,
        front: Front | None = None,
        way_in: str = "",
        figures: Listener | None = None,
    ) -> None:
        """``servers``: one for each door. ``way_in``: the address that our own calls go to."""
        self._servers = servers
        self._way_in = way_in
        self._front = front
        self._health = health
        self.service = service
        self.port = port
        self.address = address
        self.people_address = people_address
        self.figures = figures
        """Where it tells of itself, if it does."""
        self._watching: list[asyncio.Task[None]] = []

    async def stop(self) -> None:
        """Says so to the health service, ends sessions, lets calls finish, and stops listening."""
        self._health.end()
        if self.figures is not None:
            await asyncio.to_thread(self.figures.close)
        self.service.drain()
        drain_s = self.service.doors.drain_s
        ends: list[Coroutine[Any, Any, object]] = [server.stop(drain_s) for server in self._servers]
        if self._front is not None:
            ends.append(self._front.drain(drain_s))
        await asyncio.gather(*ends)
        if self._front is not None:
            await self._front.close()
        await self.service.history.close()
        for watching in self._watching:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        await self.service.probe.close()

    async def begin(self) -> None:
        for watch in (self.service.access.watch, self.service.calendar.watch, self.service.connections.watch):
            self._watching.append(asyncio.create_task(watch()))
        for server in self._servers:
            await server.start()
            self._watching.append(asyncio.create_task(server.keep()))
        if self._front is not None:
            self._front.start()
        self.service.probe.open(self._way_in)
        self._watching.append(asyncio.create_task(self.service.overload.watch(self.service.probe.go_through)))


async def start(
    cell: Cell,
    host: str = "127.0.0.1",
    port: int = 0,
    transport: str = "grpcio",
    *,
    access: AccessSettings | None = None,
    certificates: Certificates | None = None,
    doors: DoorSettings | None = None,
    people_address: tuple[str, int] | None = None,
    folder: Path | None = None,
    metrics: tuple[str, int] | None = None,
) -> RunningServer:
    """Serves a cell that was opened and not yet started. Ended by ``RunningServer.stop``, then ``cell.close``.

    In ``folder`` stand the tokens, and the audit log of refused attempts. ``metrics``: host and port of the figures.
    ``certificates``: those of ``access``, when they were read already. Whether the address is allowed ``serve`` asks.
    """
    access = access or AccessSettings()
    if not is_loopback(host):
        access = replace(access, required=True)
    if certificates is None and access.tls is not None:
        certificates = Certificates(access.tls)
    cell.start(asyncio.get_running_loop())
    service = Service(cell, access, folder, doors, counted=metrics is not None)
    await service.load()
    doors = service.doors
    connections, of_people = _connections_max(doors)
    proven = service.access.required
    health = Health(service.names)
    # It vanishes with the process. Our own calls come there, and with the native transport what its front passes on.
    behind = f"unix-abstract:simswitch-{os.getpid()}-{secrets.token_hex(8)}"

    def at_servers(at: int) -> tuple[grpc.aio.Server, int]:
        server = _server(
            CALLS_MAX + 4_096,
            connections,
            MESSAGE_BYTES_MAX if certificates is None else doors.message_bytes_max,
            doors.handshake_ms,
            tls=certificates is not None,
            proven=proven,
        )
        server.add_generic_rpc_handlers((*service.generic_handlers(probe=True), health.handlers()))
        if not proven:
            # It asks nobody who he is. Health does not either, and tells nothing but whether we serve.
            reflection.enable_server_reflection((*service.names, HEALTH_NAME, reflection.SERVICE_NAME), server)
        server.add_insecure_port(behind)
        if transport == "native":
            return server, 0
        if certificates is None:
            return server, server.add_insecure_port(shown(host, at))
        return server, server.add_secure_port(shown(host, at), certificates.credentials(clients_certificate=True))

    def at_people(at: int) -> tuple[grpc.aio.Server, int]:
        assert certificates is not None
        assert people_address is not None
        server = _server(PEOPLE_CALLS_MAX, of_people, MESSAGE_BYTES_MAX, doors.handshake_ms, tls=True, proven=True)
        server.add_generic_rpc_handlers((*service.generic_handlers(probe=False), health.handlers()))
        address = shown(people_address[0], at)
        return server, server.add_secure_port(address, certificates.credentials(clients_certificate=False))

    servers = [Listening(at_servers, port)]
    front: Front | None = None
    people: str | None = None
    bound = servers[0].port
    if transport == "native":
        front = native().Front(cell, service, shown(host, port), behind)
        bound = front.port
    elif certificates is not None and people_address is not None:
        servers.append(Listening(at_people, people_address[1]))
        people = shown(people_address[0], servers[1].port)
        service.connections.doors.append(Door("people", servers[1].port, of_people, proven=True, bounded=True))
    # What the native front hands on comes without the name of its connection.
    grpcio = front is None
    service.connections.doors.append(
        Door("access-servers", bound, connections, proven=proven and grpcio, bounded=grpcio)
    )
    listens = shown(host, bound)
    way_in = behind if front is None else listens
    figures: Listener | None = None
    if metrics is not None:
        from simswitch.metrics_listener import Listener

        assert service.served is not None
        told = ServiceMetrics(cell, service.served, service.overload, service.connections, folder, certificates)
        try:
            figures = Listener(*metrics, told.collect)
        except OSError as error:
            there = f"{metrics[0]}:{metrics[1]}"
            raise OSError(f"its figures ([metrics] listen) have no place at {there}: {error.strerror}") from error
    running = RunningServer(servers, health, service, bound, listens, people, front, way_in, figures)
    await running.begin()
    return running


def _server(
    calls_max: int, connections_max: int, message_bytes_max: int, handshake_ms: int, *, tls: bool, proven: bool
) -> grpc.aio.Server:
    return grpc.aio.server(
        maximum_concurrent_rpcs=calls_max,
        options=[
            ("grpc.max_receive_message_length", message_bytes_max),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            # Both bounds alike: between them gRPC would refuse some at random.
            ("grpc.max_metadata_size", METADATA_BYTES_MAX),
            ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
            ("grpc.max_allowed_incoming_connections", connections_max),
            ("grpc.max_concurrent_streams", CALLS_MAX),
            ("grpc.server_handshake_timeout_ms", handshake_ms),
            ("grpc.so_reuseport", 0),
            # Both bounds alike: between them gRPC would turn some away at random.
            ("grpc.server.max_pending_requests", PENDING_MAX),
            ("grpc.server.max_pending_requests_hard_limit", PENDING_MAX),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            *(_OF_TLS if tls else ()),
            # Windows stay at 64 KiB: of a message that nobody has asked for no more is taken into memory.
            *((("grpc.http2.bdp_probe", 0), ("grpc.max_connection_idle_ms", CONNECTION_IDLE_MS)) if proven else ()),
        ],
    )


def _connections_max(doors: DoorSettings) -> tuple[int, int]:
    """How many connections there may be at a port, and how many at people's: of all the files that the system lets us
    have open, some are left to the journal."""
    # One port is the one for our own calls, which whoever is on this machine finds too.
    wanted = 2 * doors.connections_max + doors.people_connections_max + FILES_OWN
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    room = max(allowed - FILES_OWN, 0) / (wanted - FILES_OWN)
    if room < 1:
        log.warning(
            "%d files may be open here, %d are wanted (ulimit -Hn): there may be fewer connections", hard, wanted
        )
    return max(1, int(doors.connections_max * room)), max(1, int(doors.people_connections_max * room))


def _known(folder: Path) -> tuple[bytes, int] | None:
    """How far history has come in which journal; it takes only what is durable. None: the follower will say why."""
    try:
        with closing(open_reader(folder, writes_nothing=True)) as history:
            row = history.execute("SELECT journal_id, sequence FROM positions WHERE reader = 'history'").fetchone()
            return (bytes(row[0]), int(row[1])) if row else None
    except (HistoryRefused, sqlite3.Error):
        return None


async def serve(
    folder: str | os.PathLike[str],
    settings: ServerSettings | None = None,
    *,
    ready: Callable[[str], object] | None = None,
) -> None:
    """Serves the cell of a folder until SIGTERM or SIGINT, then drains and closes it.

    Once it listens, the address stands in the file ``address`` of the folder, and ``ready`` is called with it.
    """
    settings = settings or ServerSettings()
    path = Path(folder)
    certificates = checked(settings, new=not path.exists())
    fill_array_cache()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    cell = await asyncio.to_thread(
        Cell.open,
        path,
        capacity=settings.capacity,
        settings=settings.cell,
        journal=settings.journal,
        clock=WallClock(away_ms=settings.away_ms),
        known=await asyncio.to_thread(_known, path),
    )
    assert cell.recovery is not None
    for warning in cell.recovery.warnings:
        log.warning("%s", warning)
    for damage in cell.recovery.damages:
        log.error("passed over: %s", damage)
    if cell.clock_frozen:
        log.warning(
            "the machine's clock jumped: nothing expires until `simswitch clock confirm`. Look at the clock first"
        )
    awaiting: asyncio.Task[None] | None = None
    following: asyncio.Task[None] | None = None
    learning: asyncio.Task[None] | None = None
    silent = asyncio.Event()
    try:
        configure(cell, settings.engine)
        running = await start(
            cell,
            settings.host,
            settings.port,
            settings.transport,
            access=settings.access,
            certificates=certificates,
            doors=settings.doors,
            people_address=settings.people_address,
            folder=path,
            metrics=settings.metrics.service,
        )
        awaiting = asyncio.create_task(_tell_awaited(cell))
        if settings.follower:
            command = [sys.executable, "-m", "simswitch.following", str(path), "--parent", str(os.getpid())]
            command += ["--free-mark-bytes", str(settings.journal.free_mark_bytes)]
            command += ["--keep-ms", str(settings.journal.keep_ms), *settings.follower_options]
            command += settings.metrics.words(settings.metrics.follower)
            following = _kept("follower", keep_follower(command, path, silent))
        if settings.learner is not None:
            command = [sys.executable, "-m", "simswitch", *settings.learner, "learn", str(path)]
            reached = settings.learner_address or running.people_address or running.address
            command += ["--address", reached, "--parent", str(os.getpid()), *settings.learner_options]
            command += settings.metrics.words(settings.metrics.learner)
            learning = _kept("learner", keep_learner(command, stopping))
        _write_address(path / ADDRESS_FILE, running.address)
        if running.people_address is not None:
            _write_address(path / PEOPLE_ADDRESS_FILE, running.people_address)
        if running.figures is not None:
            _write_address(path / METRICS_ADDRESS_FILE, running.figures.address)
        if ready is not None:
            ready(running.address)
        await stopping.wait()
        await running.stop()
    finally:
        (path / ADDRESS_FILE).unlink(missing_ok=True)
        if awaiting is not None:
            awaiting.cancel()
        if learning is not None:
            stopping.set()
            await asyncio.wait((learning,))
        # The follower is ended when nothing is written any more, so that history has all of it.
        await asyncio.to_thread(cell.stop)
        silent.set()
        (path / PEOPLE_ADDRESS_FILE).unlink(missing_ok=True)
        (path / METRICS_ADDRESS_FILE).unlink(missing_ok=True)
        if following is not None:
            await asyncio.wait((following,))
        known = await asyncio.to_thread(_known, path)
        # What history has not seen stays for the next follower, also where this server had none in all its life.
        told = known is not None and known[1] >= cell.durable_sequence
        if following is not None and not told and "--no-history" not in settings.follower_options:
            sys.stderr.write(
                "simswitch: history has not seen the last records. Nothing is lost: the journal has it all.\n"
                "Before an upgrade, start this version once more and end it.\n"
            )
        if not await asyncio.to_thread(partial(cell.close, remove=told or not settings.follower)):
            sys.stderr.write(
                "simswitch: there was no room for the last snapshot. Nothing is lost: the journal has it all.\n"
                "Before an upgrade, make room, start this version once more and end it.\n"
            )


def _kept(name: str, keeping: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Keeps a process beside the server. Whatever happens to that is told at once, and the server goes on."""

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("nobody keeps the %s running any more, until the service is started anew: %r", name, error)

    task = asyncio.create_task(keeping)
    task.add_done_callback(ended)
    return task


def _unheard(machine: Machine) -> list[str]:
    header = machine.header()
    if not header["unheard_count"]:
        return []
    servers = (machine.server(index) for index in range(header["servers_count"]))
    return [server["name"] for server in servers if server["unheard"]]


async def _tell_awaited(cell: Cell) -> None:
    """After a restore: whom everybody waits for, and when that is over."""
    awaited = await cell.read(_unheard)
    if not awaited:
        return
    log.warning(
        "restored: nobody is given a SIM anew until the access servers %s have said what they hold; declare dead who "
        "is gone: `simswitch access-server declare-dead NAME`",
        ", ".join(awaited[:AWAITED_NAMED]) + (" …" if len(awaited) > AWAITED_NAMED else ""),
    )
    with suppress(CellClosed, CellFailed):
        while awaited:
            await asyncio.sleep(AWAITED_LOOK_S)
            awaited = await cell.read(_unheard)
        log.warning("all access servers have said what they hold since the restore: SIMs are given out again")


def _write_address(path: Path, address: str) -> None:
    # Whoever waits for the file never sees half of it.
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(opened(path.parent, unfinished.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(f"{address}\n".encode("ascii"))
    unfinished.replace(path)

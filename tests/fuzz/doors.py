"""Whatever comes in at the doors is answered or refused in so many words: targets of ``tests.fuzz.readers``.

    calls       every call of the contract as the doors are given it: metadata and bytes, through the service's own
                way from a call to its answer, on a machine with an inventory, leases, jobs and a history. An answer has
                to be a message of its type, and a refusal to have a reason of ours that is not INTERNAL
    grpcio      what comes over a socket to a server that asks for tokens: HTTP/2 with metadata and messages of any
    native      bytes. Whatever it was, the next caller is answered
    figures     what the listener of figures is sent, over a socket

The service of ``calls`` goes on from one input to the next, as a real one does, and is made anew after WORLD inputs;
its clock goes by what the inputs say. So an input that is a fault may need those before it: ``--first`` where its world
began. All invariants are walked when a world is over.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import socket
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from simswitch.access.tokens import create_token
from simswitch.cell import Capacity, Cell, VirtualClock
from simswitch.core.commands import decode_iccid
from simswitch.core.roles import ROLE_WORDS
from simswitch.history.schema import open_writer
from simswitch.metrics import gauge
from simswitch.metrics_listener import Listener
from simswitch.service.access import AccessSettings, Proof
from simswitch.service.joined import SINGLE
from simswitch.service.server import Service
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
from simswitch.v1 import inventory_pb2 as inv

WORLD = 2_000
START_MS = 1_790_000_000_000
STREAM_REPLIES = 8
LISTENS_S = 0.005
SLOW = ("HistoryService/", "CapsService/ImportCarrierUsage")
"""Calls that processes of their own answer, at a thousandth of the others' pace: made more seldom."""
NAMED = {"access-server": "as-01", "supplier": "wholesale"}
ACTORS = tuple(f"{word}:{NAMED.get(word, 'alice')}" for word in sorted(ROLE_WORDS))
SERVER = "access-server:as-01"
CERTIFICATE = b"of as-01"
TEXTS = (
    "", "as-01", "as-02", "wholesale", "plan", "class", "lot", "jp", "bank", "carrier", "swaps", "decisions", "use_day",
    "nobody", "x" * 300, "é\u202e", "\0", "a\nb", "8981100000000000077", "440100000000001", "Asia/Tokyo", "0",
)  # fmt: skip
NUMBERS = (0, 1, 2, 3, 7, 64, 127, 1_000, 65_536, 1 << 30, (1 << 31) - 1, (1 << 32) - 1, START_MS, (1 << 63) - 1)
MODULES = (
    access_server_pb2, allocation_pb2, caps_pb2, event_pb2, history_pb2, inventory_pb2, pool_pb2, sim_service_pb2,
    subscriber_pb2, swap_pb2, usage_pb2,
)  # fmt: skip


class NotServed(Exception):
    """The call, or the request, was refused in so many words."""


class Fault(Exception):
    """It was answered in a way in which nothing may be."""


METHODS: dict[str, Any] = {
    f"{service.name}/{method.name}": method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


# ------------------------------------------------------------------------------------------------- messages


def message_of(descriptor: Descriptor, random: Random, depth: int = 0) -> Any:
    """Of a type, with names and numbers that mean something here, and others; columns are mostly of one length."""
    message: Any = GetMessageClass(descriptor)()
    length = random.choice((0, 1, 1, 2, 3, 20))
    for field in descriptor.fields:
        if random.random() < (0.3 if depth < 3 else 0.8):
            continue
        if field.is_repeated:
            count = length if random.random() < 0.9 else random.choice((0, 1, 5))
            if field.message_type is None:
                getattr(message, field.name).extend(_value(field, random) for _ in range(count))
            elif depth < 4:
                made = [message_of(field.message_type, random, depth + 1) for _ in range(min(count, 3))]
                getattr(message, field.name).extend(made)
        elif field.message_type is not None:
            if depth < 4:
                getattr(message, field.name).CopyFrom(message_of(field.message_type, random, depth + 1))
        else:
            setattr(message, field.name, _value(field, random))
    return message


def _value(field: FieldDescriptor, random: Random) -> Any:
    known = KNOWN.get(field.name)
    kind = field.cpp_type
    if field.name == "iccid" and random.random() < 0.8:
        iccid = 2 * (10**15 + random.randrange(110))
        return decode_iccid(iccid) if kind == FieldDescriptor.CPPTYPE_STRING else iccid
    if kind == FieldDescriptor.CPPTYPE_STRING:
        text = str(known(random)) if known is not None and random.random() < 0.8 else random.choice(TEXTS)
        return text if field.type == FieldDescriptor.TYPE_STRING else text.encode()
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    if field.enum_type is not None:
        numbers = [value.number for value in field.enum_type.values]
        return random.choice(numbers) if random.random() < 0.9 else random.choice((99, -1, 1 << 30))
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return random.choice((0.0, 1.5, -1.0, float("inf"), float("nan")))
    if known is not None and random.random() < 0.8:
        found = known(random)
        number = found if isinstance(found, int) else 0
    else:
        number = random.choice(NUMBERS) if random.random() < 0.9 else random.randrange(1 << 63)
    most = {FieldDescriptor.CPPTYPE_INT32: 31, FieldDescriptor.CPPTYPE_UINT32: 32, FieldDescriptor.CPPTYPE_INT64: 63}
    return number % (1 << most.get(kind, 64))


def _one_of(*values: str | int) -> Callable[[Random], str | int]:
    return lambda random: random.choice(values)


KNOWN: dict[str, Callable[[Random], str | int]] = {
    "access_server": _one_of("as-01", "as-02"),
    "market": _one_of("jp"),
    "markets": _one_of("jp"),
    "lot": _one_of("lot", "lot-2"),
    "lots": _one_of("lot"),
    "bank": _one_of("bank", "bank-2"),
    "banks": _one_of("bank"),
    "plan": _one_of("plan", "plan-2"),
    "supplier": _one_of("wholesale"),
    "sim_class": _one_of("class", "class-2"),
    "sim_classes": _one_of("class", "class-2"),
    "carrier": _one_of("carrier"),
    "name": _one_of("plan-2", "class-2", "lot-2", "jp", "bank-2", "as-02", "group", "rule", "lot"),
    "table": _one_of("swaps", "use_day", "decisions", "caps", "gaps", "allocations"),
    "column": _one_of("subscriber", "day", "lot", "sequence"),
    "page_token": _one_of(""),
    "page_size": _one_of(0, 1, 7, 1_000),
    "time_zone": _one_of("Asia/Tokyo", "UTC", "Europe/Paris"),
    "terminal": lambda random: random.randrange(1, 12),
    "subscriber": lambda random: random.randrange(20),
    # The first leases have the first epochs, in the order of their terminals.
    "epoch": lambda random: random.randrange(1, 12),
    "imsi": lambda random: 440_100_000_000_000 + random.randrange(120),
    "job": lambda random: random.randrange(4),
    "slot": lambda random: random.randrange(200),
    "order": lambda random: random.randrange(64) | random.randrange(3) << 32,
    "market_index": lambda _: 0,
    "lot_index": lambda _: 0,
    "bank_index": lambda _: 0,
    "from_ms": _one_of(0, START_MS),
    "until_ms": _one_of(0, START_MS + 1, START_MS + 86_400_000),
}
"""What fields of a name are mostly given, so that calls come as far as what they are about."""


def _packed(call: str, actor: str, messages: Sequence[bytes]) -> bytes:
    return f"{call} {actor}\n".encode() + b"".join(len(each).to_bytes(4) + each for each in messages)


def _made(call: str, random: Random) -> bytes:
    method = METHODS[call]
    count = random.randrange(1, 5) if method.client_streaming else 1
    messages = [message_of(method.input_type, random).SerializeToString() for _ in range(count)]
    actor = "operator:alice" if random.random() < 0.7 else random.choice(ACTORS)
    return _packed(call, actor, messages)


def sound_calls() -> list[bytes]:
    """Calls as somebody makes them who may; ``forge_call`` makes all the others."""
    pb = access_server_pb2
    session = (
        pb.SessionRequest(hello=pb.Hello(access_server="as-01")),
        pb.SessionRequest(holds=pb.Holds(terminal=[1], epoch=[1], iccid=[2 * 10**15])),
        pb.SessionRequest(ready=pb.Ready()),
        pb.SessionRequest(
            acknowledgements=pb.Acknowledgements(order=[1, 1 << 32 | 1], result=[pb.ACKNOWLEDGEMENT_RESULT_DONE] * 2)
        ),
        pb.SessionRequest(usage=pb.Usage(terminal=[1, 2], epoch=[1, 2], up_bytes=[1, 1 << 33], down_bytes=[5, 5])),
        pb.SessionRequest(load=pb.Load(queue_wait_us=1, service_us=1, taken_count=1)),
    )
    lists = [call for call in METHODS if "/List" in call and not call.startswith((*SLOW, "PoolService/ListRemaining"))]
    return [
        _packed("AccessServerService/Session", SERVER, [each.SerializeToString() for each in session]),
        *(_packed(call, "operator:alice", [message.SerializeToString()]) for call, message in _inventory()),
        *(_packed(call, "operator:alice", [b""]) for call in lists),
    ]


def forge_call(data: bytearray, random: Random) -> None:
    """Another call, whose messages are well-formed."""
    call = random.choice(list(METHODS))
    if call.startswith(SLOW) and random.random() < 0.95:
        call = random.choice([each for each in METHODS if not each.startswith(SLOW)])
    data[:] = _made(call, random)


# -------------------------------------------------------------------------------------------------- the service


class Context:
    """What grpc.aio gives a handler."""

    def __init__(
        self,
        metadata: Sequence[tuple[str, str | bytes]],
        messages: Sequence[bytes],
        auth: Mapping[str, Sequence[bytes]],
    ) -> None:
        self._metadata = tuple(metadata)
        self._auth = auth
        self._messages = iter(messages)
        self._ends: list[Any] = []
        self.reason = ""

    def time_remaining(self) -> float | None:
        return None

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._metadata

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return self._auth

    def peer(self) -> str:
        return "ipv4:192.0.2.1:50000"

    def add_done_callback(self, callback: Any) -> None:
        self._ends.append(callback)

    async def read(self) -> Any:
        return next(self._messages, None)

    async def stream(self) -> AsyncIterator[bytes]:
        for message in self._messages:
            await asyncio.sleep(0)
            yield message

    async def abort(self, code: grpc.StatusCode, details: str, *_: Any) -> None:
        assert code is not grpc.StatusCode.OK
        details.encode()
        self.reason = f"{code.name} {details}"
        raise grpc.aio.AbortError

    def end(self) -> None:
        for callback in self._ends:
            callback(self)


class World:
    """A service with some inventory, leases and history; callers have tokens, the access server a certificate."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-doors-")))
        self._loop = asyncio.new_event_loop()
        self._tokens = {actor: create_token(folder, actor, 86_400_000)[1] for actor in ACTORS if actor != SERVER}
        _history(folder)
        self._clock = VirtualClock(START_MS)
        self._cell = Cell.in_memory(capacity=Capacity(1_000, 1_000, 500), clock=self._clock)
        self.count = 0
        self._loop.run_until_complete(self._begin(folder))

    async def _begin(self, folder: Path) -> None:
        self._cell.start(asyncio.get_running_loop())
        self._service = Service(
            self._cell, AccessSettings(required=True, people_calls_per_s=0, server_calls_per_s=0), folder
        )
        await self._service.load()
        self._answers = {
            method.path: self._service._to_stream(method)
            if method.response_streaming
            else (self._service._to_single if method.path == SINGLE else self._service._to_unary)(method)
            for method in self._service.methods.values()
        }
        for call, message in _inventory():
            await self._call(call, "operator:alice", [message.SerializeToString()])
        # As if there were TLS, and a handshake had seen it.
        self._service._tls = True
        access = self._service.access
        access._by_certificate[CERTIFICATE] = await access._actor(SERVER, "certificate", Proof(None, None, None, ""))

    def call(self, call: str, actor: str, messages: Sequence[bytes]) -> list[bytes]:
        """Raises ``NotServed``, or ``Fault``."""
        self.count += 1
        return self._loop.run_until_complete(self._call(call, actor, messages))

    async def _call(self, call: str, actor: str, messages: Sequence[bytes]) -> list[bytes]:
        path = f"/simswitch.v1.{call}"
        method = self._service.methods.get(path)
        if method is None:
            raise NotServed(call)
        # Mostly some milliseconds pass, and at times some minutes.
        self._clock.advance(sum(map(len, messages)) % 60 * (1 if self.count % 50 else 10_000))
        if actor == SERVER:
            context = Context([], messages, {"x509_pem_cert": [CERTIFICATE]})
        else:
            context = Context([("authorization", f"Bearer {self._tokens.get(actor, actor)}")], messages, {})
        request = context.stream() if method.request_streaming else None
        answers: list[bytes] = []
        try:
            if method.response_streaming:
                await self._stream(self._answers[path](request, context), answers)
            else:
                answers.append(await self._answers[path](request, context))
        except grpc.aio.AbortError:
            if context.reason.startswith(("INTERNAL", "UNKNOWN")) or not context.reason:
                raise Fault(f"{call}: {context.reason!r}") from None
            raise NotServed(context.reason) from None
        finally:
            context.end()
        answer: Any = GetMessageClass(METHODS[call].output_type)
        for each in answers:
            answer.FromString(each)
        return answers

    async def _stream(self, replies: AsyncGenerator[bytes], answers: list[bytes]) -> None:
        """Takes what comes at once: who watches is told more for as long as he listens."""

        async def take() -> None:
            async for reply in replies:
                answers.append(bytes(reply))
                if len(answers) >= STREAM_REPLIES:
                    return

        taking = asyncio.create_task(take())
        try:
            await asyncio.wait({taking}, timeout=LISTENS_S)
            taking.cancel()
            with suppress(asyncio.CancelledError):
                await taking
        finally:
            await replies.aclose()

    def _check(self) -> None:
        """All invariants of the state that the calls have made."""
        broken = self._loop.run_until_complete(self._cell.read(lambda machine: machine.check()))
        if broken:
            raise Fault(broken[0])

    def close(self) -> None:
        self._check()
        self._loop.run_until_complete(self._service.history.close())
        self._cell.close(snapshot=False)
        self._service.access.attempts.close()
        self._loop.close()
        self._stack.close()


def _inventory() -> Iterator[tuple[str, Any]]:
    yield "InventoryService/DefineSupplier", inv.DefineSupplierRequest(supplier=inv.Supplier(name="wholesale"))
    windows = [inv.CapWindow(kind=inv.CAP_WINDOW_KIND_CYCLE, quota_bytes=1 << 33)]
    windows.append(inv.CapWindow(kind=inv.CAP_WINDOW_KIND_DAY, quota_bytes=1 << 31))
    yield (
        "InventoryService/DefinePlan",
        inv.DefinePlanRequest(plan=inv.Plan(name="plan", carrier="carrier", windows=windows)),
    )
    yield "InventoryService/DefineSimClass", inv.DefineSimClassRequest(sim_class=inv.SimClass(name="class"))
    lot = inv.Lot(name="lot", supplier="wholesale", plan="plan", sim_class="class")
    yield "InventoryService/DefineLot", inv.DefineLotRequest(lot=lot)
    market = inv.Market(name="jp", sim_classes=["class"])
    yield "InventoryService/DefineMarket", inv.DefineMarketRequest(market=market)
    yield "InventoryService/DefineBank", inv.DefineBankRequest(bank=inv.Bank(name="bank"))
    for name in ("as-01", "as-02"):
        server = inv.AccessServer(name=name)
        yield "InventoryService/DefineAccessServer", inv.DefineAccessServerRequest(access_server=server)
    numbers = range(100)
    yield (
        "InventoryService/ImportSims",
        inv.ImportSimsRequest(
            lots=["lot"],
            banks=["bank"],
            iccid=[2 * (10**15 + number) for number in numbers],
            imsi=[440_100_000_000_000 + number for number in numbers],
            slot=numbers,
        ),
    )
    yield (
        "AllocationService/AllocateSims",
        allocation_pb2.AllocateSimsRequest(access_server="as-01", markets=["jp"], terminal=range(1, 65)),
    )
    yield "SwapService/CreateJob", swap_pb2.CreateJobRequest(reason="bad lot", lot="lot")


def _history(folder: Path) -> None:
    connection = open_writer(folder)
    connection.execute("BEGIN")
    use = [(day, person, day * person) for day in range(20_700, 20_710) for person in range(20)]
    connection.executemany("INSERT INTO use_day VALUES (?, ?, ?)", use)
    connection.execute("INSERT INTO gaps VALUES (3, 4, 5, 6)")
    connection.execute("COMMIT")
    connection.close()


_world: list[World] = []


def read_call(data: bytes) -> object:
    if _world and _world[0].count >= WORLD:
        _world.pop().close()
    if not _world:
        _world.append(World())
        if not _ending:
            _ending.append(atexit.register(_end))
    line, _, rest = data.partition(b"\n")
    call, _, actor = line.decode("ascii", "replace").partition(" ")
    messages = []
    while rest:
        size = int.from_bytes(rest[:4])
        messages.append(rest[4 : 4 + size])
        rest = rest[4 + size :]
    return _world[0].call(call, actor, messages or [b""])


_ending: list[object] = []


def _end() -> None:
    while _world:
        _world.pop().close()


# ---------------------------------------------------------------------------------------------------- figures


@cache
def _listener() -> tuple[str, int]:
    logging.getLogger("simswitch.metrics").addHandler(_failures)
    listener = Listener("127.0.0.1", 0, lambda: [gauge("alarm", "A figure.", 1)])
    atexit.register(listener.close)
    host, _, port = listener.address.rpartition(":")
    return host, int(port)


class _Failures(logging.Handler):
    """What the listener did not foresee is a line in its log."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(self.format(record))


_failures = _Failures()


def sound_requests() -> list[bytes]:
    lines = ["GET /metrics HTTP/1.1", "Host: localhost", "Accept: application/openmetrics-text;version=1.0.0;q=0.5,*/*"]
    lines += ["Accept-Encoding: gzip", "Connection: keep-alive"]
    return ["\r\n".join([*lines, "", ""]).encode(), b"GET /metrics?name[]=simswitch_alarm HTTP/1.0\r\n\r\n"]


def read_request(data: bytes) -> object:
    with socket.create_connection(_listener(), 30) as asking:
        answer = b""
        try:
            asking.sendall(data)
            asking.shutdown(socket.SHUT_WR)
            while piece := asking.recv(65_536):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            # It had said what it has to say before all was sent.
            pass
    if _failures.seen:
        raise Fault(_failures.seen.pop())
    if b"simswitch_alarm 1" not in answer:
        raise NotServed(answer[:40])
    return answer


# ------------------------------------------------------------------------------------------------- connections

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _DATA, _SETTINGS, _RESET, _GO_AWAY = 1, 0, 4, 3, 7
_FRAME_BYTES = 9
_END_STREAM, _END_HEADERS = 1, 4
ALIVE_EVERY = 50
"""After so many inputs somebody calls who may."""
ENDS_S = 30.0
ANSWERS_WITHIN_S = 0.05
TRIES = 100


class Door:
    """A server of a transport, and somebody with a token who calls it now and then."""

    def __init__(self, transport: str) -> None:
        # Its tests need it, and nothing else here does.
        from tests.service.serving import Serving

        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-doors-")
        folder = Path(self._folder.name)
        _, token = create_token(folder, "operator:alice", 86_400_000)
        self.serving = Serving(folder, transport, options={"access": AccessSettings(required=True)})
        host, _, port = self.serving.address.rpartition(":")
        self.place = host, int(port)
        self._channel = grpc.insecure_channel(self.serving.address)
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._count = 0
        # Before what its threads need ends, which atexit is behind.
        threading._register_atexit(self._close)  # type: ignore[attr-defined]

    def _close(self) -> None:
        self._channel.close()
        self.serving.end()
        self._folder.cleanup()

    def reached(self) -> socket.socket:
        """A connection; one that broke its server has another one take its place within a moment."""
        for _ in range(TRIES):
            with suppress(ConnectionRefusedError, ConnectionResetError):  # it stops listening just now
                return socket.create_connection(self.place, ENDS_S)
            time.sleep(0.1)
        raise Fault("nobody listens any more")

    def look(self) -> None:
        """Whether hot calls and others are answered."""
        self._count += 1
        if self._count % ALIVE_EVERY:
            return
        summary = self._channel.unary_unary("/simswitch.v1.PoolService/GetSummary", None, None)
        summary(b"", timeout=ENDS_S, metadata=self._metadata, wait_for_ready=True)
        try:
            renew = self._channel.unary_unary("/simswitch.v1.AllocationService/Renew", None, None)
            renew(b"", timeout=ENDS_S, metadata=self._metadata, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise


@cache
def _door(transport: str) -> Door:
    return Door(transport)


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return len(content).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + content


def _text(content: bytes) -> bytes:
    """Of HPACK: a length of seven bits, or more where that is not enough, and the bytes as they are."""
    if len(content) < 127:
        return bytes((len(content),)) + content
    left = len(content) - 127
    return bytes((127, left & 127 | 128, left >> 7)) + content


def conversation(call: str, headers: Sequence[tuple[bytes, bytes]], message: bytes, stream: int = 1) -> bytes:
    """A client's side of one call."""
    usual = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", f"/simswitch.v1.{call}".encode())]
    usual += [(b":authority", b"localhost"), (b"te", b"trailers"), (b"content-type", b"application/grpc")]
    packed = b"".join(b"\0" + _text(name) + _text(value) for name, value in (*usual, *headers))
    data = b"\0" + len(message).to_bytes(4) + message
    return (
        PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, stream, packed)
        + _frame(_DATA, _END_STREAM, stream, data)
    )


@cache
def sound_conversations() -> list[bytes]:
    token = (b"authorization", b"Bearer ss_0123456789abcdef_" + b"0" * 64)
    return [
        conversation(call, [token], b"")
        for call in ("PoolService/GetSummary", "AllocationService/Renew", "AllocationService/Allocate")
    ]


def forge_conversation(data: bytearray, random: Random) -> None:
    """Metadata and messages of any bytes, in frames that are right; a part of them in frames that are not."""
    names = (
        b"authorization",
        b"simswitch-actor",
        b"grpc-timeout",
        b"grpc-encoding",
        b"x-bin",
        b"grpc-status",
        b"x",
        b"X",
    )
    values = (
        b"",
        b"Bearer ss_",
        b"operator:alice",
        b"1S",
        b"99999999H",
        b"gzip",
        b"\xff\xfe",
        b"a\0b",
        b"\xc3\xa9" * 9,
    )
    headers = [
        (random.choice(names), random.choice((*values, random.randbytes(random.randrange(200)))))
        for _ in range(random.randrange(5))
    ]
    call = random.choice(list(METHODS))
    message = message_of(METHODS[call].input_type, random).SerializeToString()
    made = bytearray(conversation(call, headers, message, random.choice((1, 1, 1, 2, 3, 1 << 31, 0))))
    if random.random() < 0.5:
        for _ in range(random.randrange(1, 4)):
            made[random.randrange(len(PREFACE), len(made))] = random.randrange(256)
    data[:] = made


def read_conversation(transport: str, data: bytes) -> object:
    door = _door(transport)
    answer = b""
    with door.reached() as asking:
        try:
            asking.sendall(data)
            # A client that has said its last word may be taken for one that has gone, so it waits a little first.
            asking.settimeout(ENDS_S if data in sound_conversations() else ANSWERS_WITHIN_S)
            with suppress(TimeoutError):
                while _ended_by(answer) is None and (piece := asking.recv(65_536)):
                    answer += piece
            asking.settimeout(ENDS_S)
            asking.shutdown(socket.SHUT_WR)
            while asking.recv(65_536):
                pass
        except TimeoutError:
            raise Fault("the connection is not ended") from None
        except OSError:
            # It was ended before all was sent.
            pass
    door.look()
    if _ended_by(answer) != _HEADERS:
        raise NotServed
    return answer


def _ended_by(answer: bytes) -> int | None:
    """The first frame that answers a call, or ends it or all of them; None: there is none yet."""
    while len(answer) >= _FRAME_BYTES:
        if answer[3] in (_HEADERS, _RESET, _GO_AWAY):
            return answer[3]
        answer = answer[_FRAME_BYTES + int.from_bytes(answer[:3]) :]
    return None

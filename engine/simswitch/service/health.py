"""Whether the service serves, for anybody who asks: gRPC's health service.

Nobody is asked who he is, and nothing else is told. So there are ``ASKING_MAX`` places for all who ask or watch at a
time, and when all are taken the call that has been there longest gives way: who asks and listens is answered within a
moment, and is never that one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

NAME = "grpc.health.v1.Health"
ASKING_MAX = 256
_ANSWERS = health_pb2.HealthCheckResponse


class _GaveWay(Exception):
    """A call was there longest when another came that found no place."""


class Health:
    """For all doors of one service."""

    def __init__(self, names: Iterable[str]) -> None:
        """``names``: of the services; the empty one stands for all."""
        self._names = frozenset(("", *names))
        self._ending = asyncio.Event()
        # In the order in which they came.
        self._asking: dict[asyncio.Task[Any], None] = {}

    def end(self) -> None:
        """From now on it says that nothing is served."""
        self._ending.set()

    def handlers(self) -> Any:
        """What grpc.aio is given. The message is read by us, since who sends none must not keep a place for ever."""
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                "Check": grpc.stream_unary_rpc_method_handler(self._check),
                "Watch": grpc.stream_stream_rpc_method_handler(self._watch),
            },
        )

    async def _check(self, stream: AsyncIterator[bytes], context: Any) -> bytes:
        try:
            with self._place():
                name = await _asked(stream, context)
                if name not in self._names:
                    await context.abort(grpc.StatusCode.NOT_FOUND, "")
                return self._answer(name)
        except _GaveWay:
            await _turn_away(context)

    async def _watch(self, stream: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        try:
            with self._place():
                name = await _asked(stream, context)
                if not self._ending.is_set():
                    yield self._answer(name)
                    await self._ending.wait()
                yield self._answer(name)
        except _GaveWay:
            await _turn_away(context)

    def _answer(self, name: str) -> bytes:
        if name not in self._names:
            status = _ANSWERS.SERVICE_UNKNOWN
        else:
            status = _ANSWERS.NOT_SERVING if self._ending.is_set() else _ANSWERS.SERVING
        answer: bytes = _ANSWERS(status=status).SerializeToString()
        return answer

    @contextmanager
    def _place(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        if len(self._asking) >= ASKING_MAX:
            longest = next(iter(self._asking))
            del self._asking[longest]
            longest.cancel()
        self._asking[task] = None
        try:
            yield
        except asyncio.CancelledError:
            if task in self._asking:
                raise
            task.uncancel()
            raise _GaveWay from None
        finally:
            self._asking.pop(task, None)


async def _turn_away(context: Any) -> NoReturn:
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many ask at a time. Ask again.")
    raise AssertionError("abort returned")


async def _asked(stream: AsyncIterator[bytes], context: Any) -> str:
    try:
        name: str = health_pb2.HealthCheckRequest.FromString(await anext(stream)).service
    except (StopAsyncIteration, DecodeError):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "")
        raise AssertionError("abort returned") from None
    return name

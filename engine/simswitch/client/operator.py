"""For those who run the pool: the operator's services, with the actor in every call.

The methods are those of the contract, typed by the generated stubs: ``client.swaps.CreateJob(CreateJobRequest(…))``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import grpc
import numpy as np
import numpy.typing as npt

from simswitch.client.credentials import PLAIN, Credentials, Metadata
from simswitch.client.errors import service_error
from simswitch.core.commands import encode_iccid
from simswitch.v1 import (
    caps_pb2_grpc,
    event_pb2_grpc,
    history_pb2_grpc,
    inventory_pb2_grpc,
    pool_pb2_grpc,
    sim_service_pb2_grpc,
    subscriber_pb2_grpc,
    swap_pb2_grpc,
)

ACTOR_DEFAULT = "operator:local"
RATE_LIMITED = "RATE_LIMITED"


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


# The stubs of grpcio make these generic, grpcio itself doesn't.
if TYPE_CHECKING:
    _UnaryUnary = grpc.UnaryUnaryClientInterceptor[Any, Any]
    _UnaryStream = grpc.UnaryStreamClientInterceptor[Any, Any]
    _StreamUnary = grpc.StreamUnaryClientInterceptor[Any, Any]
else:
    _UnaryUnary = grpc.UnaryUnaryClientInterceptor
    _UnaryStream = grpc.UnaryStreamClientInterceptor
    _StreamUnary = grpc.StreamUnaryClientInterceptor


class _Caller(_UnaryUnary, _UnaryStream, _StreamUnary):
    """Says with every call who acts, and makes one again that came before its turn.

        refused: RATE_LIMITED ──the service's advice──▶ made again ──▶ answered, or refused as before
                                                          └─ until ``patience_s``, or the call's time-out, would be
                                                             over: refused in earnest

    Nothing was done for such a call, so nothing is done twice.
    """

    def __init__(self, metadata: Metadata, patience_s: float) -> None:
        self._metadata = metadata
        self._patience_s = patience_s

    def _call(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        details = client_call_details
        return continuation(
            _CallDetails(
                details.method,
                details.timeout,
                [*(details.metadata or ()), *self._metadata],
                details.credentials,
                getattr(details, "wait_for_ready", None),
                getattr(details, "compression", None),
            ),
            request,
        )

    def _in_turn(self, call: Callable[[], Any], patience_s: float, timeout_s: float | None) -> Any:
        give_up_s = time.monotonic() + (patience_s if timeout_s is None else min(patience_s, timeout_s))
        while True:
            answer = call()
            # Who asked for a future that is still to come waits for it himself.
            refused_now = isinstance(answer, grpc.RpcError) and isinstance(answer, grpc.Future) and answer.done()
            if not patience_s or not refused_now:
                return answer
            refused = service_error(answer)
            wait_s = refused.retry_after_ms / 1000
            if refused.reason != RATE_LIMITED or not wait_s or time.monotonic() + wait_s > give_up_s:
                return answer
            time.sleep(wait_s)

    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        return self._in_turn(
            lambda: self._call(continuation, client_call_details, request),
            self._patience_s,
            client_call_details.timeout,
        )

    def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        return self._call(continuation, client_call_details, request)

    def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        # What was taken from an iterator is gone: only what can be gone through again is sent again.
        patience_s = 0.0 if iter(request_iterator) is request_iterator else self._patience_s
        return self._in_turn(
            lambda: self._call(continuation, client_call_details, iter(request_iterator)),
            patience_s,
            client_call_details.timeout,
        )


class OperatorClient:
    """The services that an operator uses. ``actor`` is ``operator:local`` unless given or proven.

    A call that is refused since this identity calls too often (RATE_LIMITED) is made again when the service says, for
    up to ``patience_s`` or the call's time-out, from its first try; 0: never. Nor is a stream of requests that can be
    gone through only once, or a future that was not refused at once.
    """

    def __init__(
        self, address: str, *, actor: str | None = None, credentials: Credentials = PLAIN, patience_s: float = 0.0
    ) -> None:
        metadata = credentials.metadata(address, actor, ACTOR_DEFAULT)
        self._channel = credentials.channel(address)
        channel = grpc.intercept_channel(self._channel, _Caller(metadata, patience_s))
        self.inventory = inventory_pb2_grpc.InventoryServiceStub(channel)
        self.swaps = swap_pb2_grpc.SwapServiceStub(channel)
        self.events = event_pb2_grpc.EventServiceStub(channel)
        self.pool = pool_pb2_grpc.PoolServiceStub(channel)
        self.caps = caps_pb2_grpc.CapsServiceStub(channel)
        self.history = history_pb2_grpc.HistoryServiceStub(channel)
        self.sims = sim_service_pb2_grpc.SimServiceStub(channel)
        self.subscribers = subscriber_pb2_grpc.SubscriberServiceStub(channel)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def service_errors() -> Iterator[None]:
    """Within it, what gRPC raises becomes a ``ServiceError``."""
    try:
        yield
    except grpc.RpcError as error:
        refused = service_error(error)
        refused.how_far = getattr(error, "__notes__", [])
        raise refused from error


@contextmanager
def how_far(words: Callable[[], str]) -> Iterator[None]:
    """Of several calls: when one is refused within it, the ``ServiceError`` also says how far they came."""
    try:
        yield
    except grpc.RpcError as error:
        error.add_note(words())
        raise


def iccid_column(digits: Iterable[str]) -> npt.NDArray[np.uint64]:
    """ICCIDs as they travel in columns."""
    values = [encode_iccid(iccid) for iccid in digits]
    return np.array(values, np.uint64)

"""The command line's connection to a running service.

One channel, one actor, and one place where what gRPC raises becomes an exit code and a clear line. Imported only by
commands that talk to a service: it brings gRPC with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc

from simswitch.cli.exits import CommandFailed, Exit
from simswitch.v1 import inventory_pb2_grpc, pool_pb2_grpc, swap_pb2_grpc

ACTOR_KEY = "simswitch-actor"
MESSAGE_BYTES_MAX = 64 << 20


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Actor(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor):  # type: ignore[type-arg]
    """Says with every call who acts."""

    def __init__(self, actor: str) -> None:
        self._actor = actor

    def _named(self, details: Any) -> _CallDetails:
        metadata = [*(details.metadata or ()), (ACTOR_KEY, self._actor)]
        return _CallDetails(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            getattr(details, "wait_for_ready", None),
            getattr(details, "compression", None),
        )

    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        return continuation(self._named(client_call_details), request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        return continuation(self._named(client_call_details), request)

    def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        return continuation(self._named(client_call_details), request_iterator)


class Connection:
    """The services that an operator uses."""

    def __init__(self, address: str, actor: str) -> None:
        self.address = address
        options = [
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ]
        self._channel = grpc.insecure_channel(address, options)
        channel = grpc.intercept_channel(self._channel, _Actor(actor))
        self.inventory = inventory_pb2_grpc.InventoryServiceStub(channel)
        self.swaps = swap_pb2_grpc.SwapServiceStub(channel)
        self.pool = pool_pb2_grpc.PoolServiceStub(channel)

    def close(self) -> None:
        self._channel.close()


@contextmanager
def connected(address: str, actor: str) -> Iterator[Connection]:
    """A connection for the time of a command; what gRPC raises inside becomes ``CommandFailed``."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    connection = Connection(address, actor)
    try:
        yield connection
    except grpc.RpcError as error:
        raise failure(error, address) from error
    finally:
        connection.close()


def failure(error: grpc.RpcError, address: str) -> CommandFailed:
    """What a failed call means for the person at the terminal."""
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    details = (error.details() if isinstance(error, grpc.Call) else str(error)) or code.name.lower().replace("_", " ")
    if code is grpc.StatusCode.UNAVAILABLE:
        return CommandFailed(
            Exit.UNREACHABLE,
            f"no service answers at {address}. Start one with `simswitch serve DIR`, or name another with --address",
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CommandFailed(Exit.UNREACHABLE, f"the service at {address} did not answer in time")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return CommandFailed(Exit.UNREACHABLE, f"what answers at {address} is no simswitch service of this version")
    return CommandFailed(Exit.REFUSED, details)

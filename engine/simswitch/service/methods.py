"""What a transport serves: every method of the contract by its path, bytes in and bytes out.

A *hot* handler is a plain function that never waits and may run in any thread. It gives the answer, or ``Work``: a run
of commands for the cell, and how its outcome becomes the answer once it is durable. Any other handler is a coroutine
function, or an async generator where the answer is a stream, and runs in the event loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from google.protobuf.descriptor import ServiceDescriptor

from simswitch.core.commands import OutcomeRun
from simswitch.core.roles import call_roles
from simswitch.service.call import Call
from simswitch.service.overload import Kind, kind_of


class Work(NamedTuple):
    """What a hot handler wants done."""

    commands: bytes
    """Exactly one run."""
    encode: Callable[[OutcomeRun], bytes]
    """Makes the answer, in any thread; raises ``Refused`` when the outcome is a refusal of the call itself."""


HotHandler = Callable[[bytes, Call], bytes | Work]


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC. ``handler`` takes the bytes, or the stream of them, and the ``Call``."""

    path: str
    handler: Callable[[Any, Call], Any]
    hot: bool
    request_streaming: bool
    response_streaming: bool
    kind: Kind | None
    """As what it is shed under overload; None: never."""
    check: Callable[[Call], None]
    """Refuses who may not make the call. The handler does so itself; it may be known before there is a message."""


_Handler = TypeVar("_Handler", bound=Callable[..., Any])


def hot(handler: _Handler) -> _Handler:
    """Marks a hot handler."""
    handler.hot = True  # type: ignore[attr-defined]
    return handler


def methods(descriptor: ServiceDescriptor, handlers: Any) -> Iterator[Method]:
    """The methods of a service, each behind its row of the role table. One without a handler is an ``AttributeError``,
    one without a row a ``LookupError``."""
    special = getattr(handlers, "definitions", {})
    for method in descriptor.methods:
        handler = special.get(method.name) or getattr(handlers, snake_case(method.name))
        call = f"{descriptor.name}/{method.name}"
        check = _check(call, call_roles(call))
        yield Method(
            f"/{descriptor.full_name}/{method.name}",
            _guarded(handler, check),
            getattr(handler, "hot", False),
            method.client_streaming,
            method.server_streaming,
            kind_of(call),
            check,
        )


def _check(name: str, roles: frozenset[int]) -> Callable[[Call], None]:
    def check(call: Call) -> None:
        if call.actor.role not in roles:
            raise call.denied(f"{call.actor.name} has not the role for {name}")

    return check


def _guarded(handler: Callable[[Any, Call], Any], check: Callable[[Call], None]) -> Callable[[Any, Call], Any]:
    """The one way to a handler, whichever transport brings the call."""

    def guarded(request: Any, call: Call) -> Any:
        check(call)
        return handler(request, call)

    return guarded


def snake_case(name: str) -> str:
    """``AllocateSims`` is ``allocate_sims``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()

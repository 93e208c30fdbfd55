"""One call: who makes it, until when, and what its actor may do. Who an actor is, ``service.access`` finds out."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import ParamSpec, Protocol, TypeVar

from google.protobuf.message import Message

from simswitch.core import layout
from simswitch.core.roles import COMMAND_ROLES, FIELD_READS, READ_ROLES, Read
from simswitch.service.directory import Entity
from simswitch.service.errors import EXPIRED, NOT_PERMITTED, RATE_LIMITED, Refused
from simswitch.service.share import Held, Share

STREAMS_MAX = 64
"""Streams of one identity at a time."""
SERVER_STREAMS_MAX = 16
"""Of an access server: each may have a message of the largest size half read."""

_Answer = TypeVar("_Answer", bound=Message)
_Asked = ParamSpec("_Asked")
_Found = TypeVar("_Found")


def _leave_out(message: Message, hidden: AbstractSet[str]) -> None:
    for each, value in message.ListFields():
        if each.name in hidden:
            message.ClearField(each.name)
        elif each.message_type is not None:
            for inner in value if each.is_repeated else (value,):
                _leave_out(inner, hidden)


class Notes(Protocol):
    """Where refused attempts are noted."""

    def note(self, why: str, who: str, source: str, what: str) -> None: ...


@dataclass(slots=True, eq=False)
class Actor:
    """Who makes calls, by one credential: a certificate, a token, or a claim."""

    index: int
    name: str
    role: int
    subject: int
    """Index of the access server or supplier that it may speak for; -1: it is bound to none."""
    share: Share
    notes: Notes
    credential: str
    """For the audit log, never a secret: ``claimed``, ``token 01ab…``, ``certificate 34cd…``."""
    ends_s: float | None = None
    """Unix seconds at which the credential expires."""
    withdrawn: str = ""
    """Why the credential counts no more."""
    streams: set[asyncio.Task[object]] = field(default_factory=set)
    """Calls that are ended when it is withdrawn."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler knows besides the request."""

    actor: Actor
    deadline: float | None
    """An instant of ``time.monotonic()``."""
    held: Held | None = None
    """What it has of its identity's share; None: nobody proves who he is here, and nothing is bounded by identity."""

    def may(self, command: int, server: Entity | None = None) -> None:
        """Refuses what the actor's role, or its binding to an access server, does not allow."""
        if self.actor.role not in COMMAND_ROLES[command]:
            raise self.denied(f"{self.actor.name} has not the role for it")
        bound = self.actor.role == layout.ROLE_ACCESS_SERVER
        if bound and server is not None and self.actor.subject != server.index:
            raise self.denied(f"{self.actor.name} can't speak for the access server {server.name!r}")

    def may_read(self, read: Read) -> None:
        if not self.sees(read):
            raise self.denied(f"{self.actor.name} has not the role to see it")

    def sees(self, read: Read) -> bool:
        return self.actor.role in READ_ROLES[read]

    def seen(self, answer: _Answer) -> _Answer:
        """The answer without what it names that the actor may not see."""
        hidden = {name for name, read in FIELD_READS.items() if not self.sees(read)}
        if hidden:
            _leave_out(answer, hidden)
        return answer

    def denied(self, what: str) -> Refused:
        """The refusal, which is noted in the audit log."""
        self.actor.notes.note(NOT_PERMITTED.name, self.actor.name, self.actor.credential, what)
        return Refused(NOT_PERMITTED, what)

    def hold(self, count: int) -> None:
        """So many bytes more are held for it, or fewer, until it is over."""
        if self.held is not None:
            self.held.add(count)

    async def room(self) -> None:
        """Waits until its identity may have more held."""
        if self.held is not None:
            await self.held.room()

    def keep_pace(self) -> None:
        """Refuses a call, or a batch of a stream, that comes before its turn."""
        wait_s = self.actor.share.pace.wait_s()
        if wait_s > 0:
            raise Refused(RATE_LIMITED, self.actor.name, math.ceil(wait_s * 1000))

    def charge(self, items: int) -> None:
        """Counts the items of its message, or of its batch."""
        self.actor.share.pace.charge(items)

    async def aside(self, answer: Callable[_Asked, _Found], *asked: _Asked.args, **named: _Asked.kwargs) -> _Found:
        """What a thread beside the event loop finds. Who asks much waits for his own: others need the threads too."""
        async with self.actor.share.aside:
            if self.deadline is not None and time.monotonic() > self.deadline:
                raise Refused(EXPIRED)
            return await asyncio.to_thread(answer, *asked, **named)

    async def wait_for_turn(self) -> None:
        """For messages that can't be refused: what comes too fast is read more slowly."""
        while (wait_s := self.actor.share.pace.wait_s()) > 0:
            await asyncio.sleep(wait_s)

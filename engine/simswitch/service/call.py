"""One call: who makes it, until when, and what its actor may do.

The actor stands in the call's metadata as ``simswitch-actor``, such as ``operator:alice`` or ``access-server:as-01``.
Without one it is ``operator:local``: the service listens on loopback only. An actor that is met for the first time is
defined on the fly, at most 1,024 of them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from simswitch.core import layout
from simswitch.core.roles import COMMAND_ROLES, READ_ROLES, ROLE_WORDS, Read
from simswitch.service.directory import Directory, Entity
from simswitch.service.errors import INVALID_ACTOR, NOT_PERMITTED, TOO_MANY_ACTORS, Refused

ACTOR_KEY = "simswitch-actor"
ACTOR_DEFAULT = "operator:local"
ACTORS_MAX = 1_024


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes calls."""

    index: int
    name: str
    role: int
    subject: int
    """Index of the access server or supplier that it may speak for; -1: it is bound to none."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler knows besides the request."""

    actor: Actor
    deadline: float | None
    """An instant of ``time.monotonic()``."""

    def may(self, command: int, server: Entity | None = None) -> None:
        """Refuses what the actor's role, or its binding to an access server, does not allow."""
        if self.actor.role not in COMMAND_ROLES[command]:
            raise Refused(NOT_PERMITTED, f"{self.actor.name} has not the role for it")
        bound = self.actor.role == layout.ROLE_ACCESS_SERVER
        if bound and server is not None and self.actor.subject != server.index:
            raise Refused(NOT_PERMITTED, f"{self.actor.name} can't speak for the access server {server.name!r}")

    def may_read(self, read: Read) -> None:
        if self.actor.role not in READ_ROLES[read]:
            raise Refused(NOT_PERMITTED, f"{self.actor.name} has not the role to see it")


class Actors:
    """Those that are known."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._lock = asyncio.Lock()
        self._known: dict[str, Actor] = {}

    def known(self, name: str) -> Actor | None:
        """Without waiting: all calls but an actor's first one."""
        return self._known.get(name)

    async def get(self, name: str) -> Actor:
        async with self._lock:
            actor = self._known.get(name)
            if actor is None:
                actor = await self._define(name)
                self._known[name] = actor
            return actor

    async def _define(self, name: str) -> Actor:
        word, _, person = name.partition(":")
        role = ROLE_WORDS.get(word)
        if role is None or not person or len(name.encode()) > layout.NAME_BYTES:
            raise Refused(INVALID_ACTOR, repr(name[:80]))
        subject = -1
        if role == layout.ROLE_ACCESS_SERVER:
            subject = self._directory.get(layout.ACCESS_SERVER, person).index
        elif role == layout.ROLE_SUPPLIER:
            subject = self._directory.get(layout.SUPPLIER, person).index
        entity = self._directory.find(layout.ACTOR, name)
        if entity is None:
            if len(self._directory.all(layout.ACTOR)) >= ACTORS_MAX:
                raise Refused(TOO_MANY_ACTORS, f"{ACTORS_MAX:,}")
            numbers = {layout.ACTOR_ROLE: role, layout.ACTOR_SUBJECT: subject}
            # The system vouches for a new actor: nobody else may exist before it does.
            _, entity = await self._directory.define(layout.ACTOR, name, numbers, b"", actor=0)
        return Actor(entity.index, name, role, subject)

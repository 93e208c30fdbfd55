"""Allocations of single terminals that arrive together become one run of commands, whichever transport brings them.

Those of one actor for one access server that a transport takes at one go are joined (``singles``), checked and applied
as one call of the cell, and answered each for itself. A request that is not of the usual form, or that would be
refused before it reached the cell, is declined: it goes the long way, which knows what is wrong with it.

A call that joined others is dropped unapplied only when all of them have gone away. Where a deadline has passed before
their turn came, each has to try for itself.
"""

from __future__ import annotations

import time
from typing import Generic, TypeVar

from simswitch.cell import CellExpired, Finish, Posted
from simswitch.core import layout
from simswitch.core.commands import OutcomeRun
from simswitch.service.call import Actor, Call
from simswitch.service.directory import Directory
from simswitch.service.errors import Refused
from simswitch.service.singles import Allocations, access_server

SINGLE = "/simswitch.v1.AllocationService/Allocate"
"""The method whose calls can join."""

T = TypeVar("T")


class Joined(Posted, Generic[T]):
    """Calls that became one run; ``T`` is how the transport knows a call."""

    __slots__ = ("actor", "calls", "came_s", "deadlines", "left", "requests", "server", "singles")

    def __init__(self, actor: Actor, server: int, singles: Allocations, finish: Finish) -> None:
        super().__init__(b"", finish)
        self.actor = actor
        self.server = server
        self.singles = singles
        self.calls: list[T] = []
        self.requests: list[bytes] = []
        self.deadlines: list[float | None] = []
        self.left = 0
        self.came_s = time.monotonic()
        """When the first of them came."""

    def leave(self) -> None:
        """One of them needs no answer any more."""
        self.left += 1
        self.cancelled = self.left == len(self.calls)

    def expired_together(self, deadline: float | None) -> bool:
        """The earliest deadline has passed, and a call's own has not: it tries for itself."""
        return isinstance(self.error, CellExpired) and (deadline is None or deadline > time.monotonic())

    def answers(self, outcome: OutcomeRun) -> list[bytes | OutcomeRun]:
        """To each call its AllocateResponse, or the outcome that refuses it."""
        return [
            answer or OutcomeRun(outcome.kind, 1, memoryview(self.singles.outcome_of(item, outcome.data)))
            for item, answer in enumerate(self.singles.answers(outcome.data))
        ]


class Joiner(Generic[T]):
    """Joins calls until ``close``; for one thread."""

    def __init__(self, directory: Directory, finish: Finish) -> None:
        self._directory = directory
        # Bound once: the cell compares what the calls of a group name.
        self._finish = finish
        self._groups: dict[tuple[Actor, bytes], Joined[T]] = {}
        self._last: Joined[T] | None = None
        self.count = 0
        """Calls that joined since ``close``."""

    def join(self, call_of_transport: T, request: bytes, call: Call) -> Joined[T] | None:
        """The group that took the call, or None: declined."""
        group = self._last
        if group is None or group.actor is not call.actor or not group.singles.add(request):
            group = self._find(request, call.actor)
            if group is None:
                return None
            self._last = group
        group.calls.append(call_of_transport)
        group.requests.append(request)
        group.deadlines.append(call.deadline)
        # All that were there before may have left again.
        group.cancelled = False
        self.count += 1
        return group

    def close(self) -> list[Posted]:
        """The groups, to be posted; who comes later joins new ones."""
        groups: list[Posted] = []
        for group in self._groups.values():
            group.run = group.singles.run(group.actor.index, group.server)
            group.deadline = min((deadline for deadline in group.deadlines if deadline is not None), default=None)
            groups.append(group)
        self._groups.clear()
        self._last = None
        self.count = 0
        return groups

    def _find(self, request: bytes, actor: Actor) -> Joined[T] | None:
        name = access_server(request)
        if name is None:
            return None
        group = self._groups.get((actor, name))
        if group is not None:
            return group if group.singles.add(request) else None
        server = self._directory.find(layout.ACCESS_SERVER, name.decode(errors="replace"))
        if server is None:
            return None
        try:
            Call(actor, None).may(layout.ALLOCATE, server)
        except Refused:
            return None
        singles = Allocations(name, self._market_index, self._bank_name)
        if not singles.add(request):
            return None
        group = Joined(actor, server.server, singles, self._finish)
        self._groups[actor, name] = group
        return group

    def _market_index(self, name: bytes) -> int | None:
        market = self._directory.find(layout.MARKET, name.decode(errors="replace"))
        return None if market is None else market.index

    def _bank_name(self, index: int) -> bytes:
        return self._directory.name(index).encode()

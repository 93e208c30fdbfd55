"""Names and what the engine calls them: a copy of the definitions, kept beside the machine and rebuilt at start.

It is read on every call, so it is plain dictionaries; it is changed only after the outcome of a DEFINE is durable,
under a lock, so that it never knows more than the journal.
"""

from __future__ import annotations

import array
import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from simswitch.cell import Cell
from simswitch.core import commands, layout
from simswitch.core.machine import Machine
from simswitch.service.errors import INVALID_ARGUMENT, STATUS_REASONS, Refused, check
from simswitch.service.texts import check_plain

NAME_BYTES_MAX = layout.NAME_BYTES
UNKNOWN = layout.NONE_SHORT
"""Stands for a name that is not defined; the core answers the item with UNKNOWN_…."""

KIND_WORDS: Mapping[int, str] = {
    layout.SUPPLIER: "supplier",
    layout.PLAN: "plan",
    layout.LOT: "lot",
    layout.SIM_CLASS: "class",
    layout.MARKET: "market",
    layout.BANK: "bank",
    layout.ACCESS_SERVER: "access server",
    layout.ACTOR: "actor",
    layout.CARRIER: "carrier",
    layout.SUBSCRIBER_GROUP: "subscriber group",
    layout.LIMIT_RULE: "limit rule",
}
_UNKNOWN_REASONS: Mapping[int, int] = {
    layout.MARKET: layout.UNKNOWN_MARKET,
    layout.LOT: layout.UNKNOWN_LOT,
    layout.BANK: layout.UNKNOWN_BANK,
    layout.ACCESS_SERVER: layout.UNKNOWN_ACCESS_SERVER,
}


@dataclass(frozen=True, slots=True)
class Entity:
    """One definition."""

    index: int
    kind: int
    name: str
    numbers: tuple[int, ...]
    document: bytes
    server: int = UNKNOWN
    """An access server's number in the header of a run."""


def _entities(machine: Machine) -> list[Entity]:
    entities = []
    for entity in machine.entities():
        server = machine.server_index(entity["index"]) if entity["kind"] == layout.ACCESS_SERVER else None
        entities.append(
            Entity(
                entity["index"],
                entity["kind"],
                entity["name"],
                tuple(entity["numbers"]),
                bytes(entity["document"]),
                UNKNOWN if server is None else server,
            )
        )
    return entities


class Directory:
    """All definitions, by kind and name and by index."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._lock = asyncio.Lock()
        # Definitions under way; the loop itself keeps no reference to a task.
        self._defining: set[asyncio.Task[tuple[int, Entity]]] = set()
        self._by_name: dict[int, dict[str, Entity]] = {kind: {} for kind in KIND_WORDS}
        self._by_index: dict[int, Entity] = {}
        self._by_server: dict[int, Entity] = {}
        self.on_change: Callable[[], object] | None = None
        """Called after each definition that was not there before."""

    async def load(self) -> None:
        """Takes over what the machine holds."""
        for entity in await self._cell.read(_entities):
            self._keep(entity)

    def _keep(self, entity: Entity) -> None:
        self._by_name[entity.kind][entity.name] = entity
        self._by_index[entity.index] = entity
        if entity.server != UNKNOWN:
            self._by_server[entity.server] = entity

    def all(self, kind: int) -> list[Entity]:
        """In the order in which they were defined."""
        return sorted(self._by_name[kind].values(), key=lambda entity: entity.index)

    def find(self, kind: int, name: str) -> Entity | None:
        return self._by_name[kind].get(name)

    def get(self, kind: int, name: str) -> Entity:
        """Refuses a name that is not defined."""
        entity = self._by_name[kind].get(name)
        if entity is None:
            status = _UNKNOWN_REASONS.get(kind)
            if status is not None:
                raise Refused(STATUS_REASONS[status], repr(name))
            word = layout.EntityKind(kind).name.removeprefix("SIM_").lower().replace("_", " ")
            raise Refused(STATUS_REASONS[layout.UNKNOWN_ENTITY], f"{word} called {name!r}")
        return entity

    def server(self, name: str) -> Entity:
        return self.get(layout.ACCESS_SERVER, name)

    def name(self, index: int) -> str:
        """Empty when nothing has this index."""
        entity = self._by_index.get(index)
        return "" if entity is None else entity.name

    def is_plan(self, index: int) -> bool:
        entity = self._by_index.get(index)
        return entity is not None and entity.kind == layout.PLAN

    async def caught_up(self) -> None:
        """Until what was durable before has its name: an event of a definition comes before its outcome does."""
        if self._lock.locked():
            async with self._lock:
                pass

    def by_index(self, index: int) -> Entity:
        return self._by_index[index]

    def server_by_number(self, number: int) -> Entity:
        return self._by_server[number]

    def indexes(self, kind: int, names: Iterable[str]) -> array.array[int]:
        """Native uint16 indexes of the names, ``UNKNOWN`` for those that are not defined."""
        known = self._by_name[kind]
        return array.array("H", [known[name].index if name in known else UNKNOWN for name in names])

    async def define(
        self, kind: int, name: str, numbers: dict[int, int], document: bytes, *, actor: int
    ) -> tuple[int, Entity]:
        """Defines or redefines, and returns the status (OK or SAME) and the definition that stands."""
        return await self.define_after(kind, name, lambda: (numbers, document), actor=actor)

    async def define_after(
        self, kind: int, name: str, definition: Callable[[], tuple[dict[int, int], bytes]], *, actor: int
    ) -> tuple[int, Entity]:
        """``define`` of numbers and a document that depend on what is defined: they are asked for when that stands, and
        nothing is defined in between."""
        encoded = name.encode()
        if not 1 <= len(encoded) <= NAME_BYTES_MAX:
            raise Refused(INVALID_ARGUMENT, f"a name has 1 to {NAME_BYTES_MAX} bytes; {name!r} has {len(encoded)}")
        # Names go to logs and screens as they are.
        check_plain("a name", name)
        # A caller that goes away must not separate what is durable from what the directory says.
        defining = asyncio.create_task(self._define(kind, name, definition, actor))
        self._defining.add(defining)
        defining.add_done_callback(self._forget)
        return await asyncio.shield(defining)

    def _forget(self, defining: asyncio.Task[tuple[int, Entity]]) -> None:
        self._defining.discard(defining)
        if not defining.cancelled():
            # Seen also when its caller has gone.
            defining.exception()

    async def _define(
        self, kind: int, name: str, definition: Callable[[], tuple[dict[int, int], bytes]], actor: int
    ) -> tuple[int, Entity]:
        async with self._lock:
            numbers, document = definition()
            if len(document) > layout.DOCUMENT_BYTES:
                raise Refused(
                    INVALID_ARGUMENT,
                    f"the definition of {name!r} has {len(document)} bytes, at most {layout.DOCUMENT_BYTES} fit",
                )
            record = np.frombuffer(commands.definition(kind, name, numbers, document), "V1024")
            outcome = await self._cell.submit(commands.run(layout.DEFINE, actor=actor, definition=record))
            status = int(outcome["status"][0])
            check(status, f"{KIND_WORDS[kind]} {name!r}")
            index = int(outcome["index"][0])
            server = None
            if kind == layout.ACCESS_SERVER:
                server = await self._cell.read(lambda machine: machine.server_index(index))
            full = tuple(numbers.get(position, -1) for position in range(16))
            entity = Entity(index, kind, name, full, document, UNKNOWN if server is None else server)
            self._keep(entity)
        if self.on_change is not None and status == layout.OK:
            self.on_change()
        return status, entity

"""InventoryService: definitions, and the SIMs one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from simswitch import contract
from simswitch.cell import Cell
from simswitch.core import layout
from simswitch.core.commands import decode_iccid, encode_iccid, run, set_health
from simswitch.core.machine import Machine
from simswitch.core.roles import Read
from simswitch.core.wire import ITEMS_MAX
from simswitch.service.allocation import ColumnCalls
from simswitch.service.call import Call
from simswitch.service.definitions import KINDS, Kind, document, message_of, unpublished
from simswitch.service.directory import Directory
from simswitch.service.errors import INVALID_ARGUMENT, STATUS_REASONS, TOO_MANY_ITEMS, Refused
from simswitch.service.imports import Importer
from simswitch.service.methods import Work, hot
from simswitch.service.paging import page_size, page_start, page_token
from simswitch.service.reason import REASON_BYTES, reason_bytes
from simswitch.service.texts import check_texts
from simswitch.v1 import inventory_pb2 as pb
from simswitch.v1 import sim_pb2

LOOKED_AT_MAX = 4_096
"""SIMs that one ListSims looks at, whatever its filter lets through."""
AT_ONCE_MAX = 100
"""Of these it reads so many at a time: a record costs some ten microseconds, and allocations wait meanwhile."""

_TERMS = (layout.SUPPLIER, layout.LOT, layout.PLAN)
_LIST_SIMS = b"sims"
LIVES_MAX = 4_096
"""SIMs of a call that says what their carrier did: each carries the reason in the journal."""
DEFINITION_BYTES_MAX = 16_384
"""Of a request that defines something, of which ``layout.DOCUMENT_BYTES`` are kept: no more is looked at."""

Handler = Callable[[bytes, Call], Awaitable[bytes]]


class InventoryHandlers(ColumnCalls):
    """InventoryService. The three RPCs of each kind of definition are in ``definitions``, by RPC name."""

    def __init__(self, cell: Cell, directory: Directory) -> None:
        super().__init__(cell, directory)
        self._importer = Importer(cell, directory)
        self.definitions: dict[str, Handler] = {}
        for kind in KINDS.values():
            name = kind.message.DESCRIPTOR.name
            self.definitions[f"Define{name}"] = partial(self._define, kind)
            self.definitions[f"Get{name}"] = partial(self._get, kind)
            self.definitions[f"List{kind.plural}"] = partial(self._list, kind)

    async def _define(self, kind: Kind, data: bytes, call: Call) -> bytes:
        call.may(layout.DEFINE)
        if len(data) > DEFINITION_BYTES_MAX:
            said = f"the definition has {len(data):,} bytes, and a request at most {DEFINITION_BYTES_MAX:,}"
            raise Refused(INVALID_ARGUMENT, f"{said}; {layout.DOCUMENT_BYTES} of them fit")
        name = kind.message.DESCRIPTOR.name
        message = getattr(getattr(pb, f"Define{name}Request").FromString(data), kind.field)
        check_texts(message)
        if kind.kind == layout.SIM_CLASS and message.carrier:
            # Carriers are known by name alone, from the classes that name them.
            await self.directory.define(layout.CARRIER, message.carrier, {}, b"", actor=call.actor.index)
        sound = False

        def definition() -> tuple[dict[int, int], bytes]:
            nonlocal sound
            numbers = kind.numbers(message, self.directory)
            kept = document(message)
            sound = len(kept) <= layout.DOCUMENT_BYTES
            return numbers, kept

        try:
            status, entity = await self.directory.define_after(
                kind.kind, message.name, definition, actor=call.actor.index
            )
        except Refused as error:
            if sound and kind.kind == layout.LIMIT_RULE and error.reason is INVALID_ARGUMENT:
                raise Refused(INVALID_ARGUMENT, unpublished(message, error.what)) from error
            raise
        answer = getattr(pb, f"Define{name}Response")(status=status, **{kind.field: message_of(kind, entity)})
        return bytes(answer.SerializeToString())

    def _may_read(self, kind: Kind, call: Call, supplier: int | None = None) -> None:
        # A supplier sees the terms of its own lots.
        if kind.kind == layout.LOT and call.actor.role == layout.ROLE_SUPPLIER and supplier == call.actor.subject:
            return
        call.may_read(Read.TERMS if kind.kind in _TERMS else Read.PLACES)

    async def _get(self, kind: Kind, data: bytes, call: Call) -> bytes:
        name = kind.message.DESCRIPTOR.name
        wanted = getattr(pb, f"Get{name}Request").FromString(data).name
        entity = self.directory.find(kind.kind, wanted)
        self._may_read(kind, call, None if entity is None else entity.numbers[layout.LOT_SUPPLIER])
        found = message_of(kind, self.directory.get(kind.kind, wanted))
        return bytes(getattr(pb, f"Get{name}Response")(**{kind.field: found}).SerializeToString())

    async def _list(self, kind: Kind, data: bytes, call: Call) -> bytes:
        request = getattr(pb, f"List{kind.plural}Request").FromString(data)
        size = page_size(request.page_size)
        list_name = b"ent%c" % kind.kind
        start = page_start(request.page_token, list_name)
        entities = self.directory.all(kind.kind)
        if kind.kind == layout.LOT and call.actor.role == layout.ROLE_SUPPLIER:
            entities = [entity for entity in entities if entity.numbers[layout.LOT_SUPPLIER] == call.actor.subject]
        else:
            self._may_read(kind, call)
        entities = [entity for entity in entities if entity.index >= start]
        following = page_token(entities[size].index, list_name) if len(entities) > size else ""
        page = {kind.list_field: [message_of(kind, entity) for entity in entities[:size]]}
        answer = getattr(pb, f"List{kind.plural}Response")(next_page_token=following, **page)
        return bytes(answer.SerializeToString())

    async def import_sims(self, stream: AsyncIterator[bytes], call: Call) -> bytes:
        return await self._importer.import_sims(stream, call)

    @hot
    def adopt_terminals(self, data: bytes, call: Call) -> bytes | Work:
        return self.work(layout.ADOPT, contract.ADOPT_REQUEST, contract.ADOPT_RESPONSE, data, call, markets=True)

    async def get_sim(self, data: bytes, call: Call) -> bytes:
        call.may_read(Read.SIMS)
        digits = pb.GetSimRequest.FromString(data).iccid
        try:
            iccid = encode_iccid(digits)
        except ValueError as error:
            raise Refused(INVALID_ARGUMENT, str(error)) from error

        def read(machine: Machine) -> Mapping[str, Any] | None:
            index = machine.find_sim(iccid)
            return None if index is None else machine.sim(index)

        sim = await self.cell.read(read)
        if sim is None:
            raise Refused(STATUS_REASONS[layout.UNKNOWN_SIM], digits)
        return pb.GetSimResponse(sim=sim_message(sim)).SerializeToString()

    async def list_sims(self, data: bytes, call: Call) -> bytes:
        call.may_read(Read.SIMS)
        request = pb.ListSimsRequest.FromString(data)
        size = page_size(request.page_size)
        start = page_start(request.page_token, _LIST_SIMS)
        wanted: dict[str, Any] = {}
        if request.lot:
            wanted["lot"] = self.directory.get(layout.LOT, request.lot).index
        if request.bank:
            wanted["bank"] = self.directory.get(layout.BANK, request.bank).index
        if request.health:
            wanted["health"] = int(request.health)
        if request.occupancy:
            wanted["occupancy"] = int(request.occupancy)
        if request.on_probation:
            wanted["trusted"] = False

        sims: list[Mapping[str, Any]] = []
        index, end, count = start, start + LOOKED_AT_MAX, start + 1

        def read(machine: Machine) -> tuple[int, int]:
            """Some of them: others have their turn before the next."""
            found, ended = machine.find_sims(index, end, min(size - len(sims), AT_ONCE_MAX), **wanted)
            sims.extend(machine.sim(place) for place in found)
            return ended, int(machine.header()["sims_count"])

        while index < min(end, count) and len(sims) < size:
            index, count = await self.cell.read(read)
        return pb.ListSimsResponse(
            sims=[sim_message(sim) for sim in sims],
            next_page_token=page_token(index, _LIST_SIMS) if index < count else "",
        ).SerializeToString()

    async def set_sim_health(self, data: bytes, call: Call) -> bytes:
        request = pb.SetSimHealthRequest.FromString(data)
        if not sim_pb2.HEALTH_HEALTHY <= request.health < sim_pb2.HEALTH_RETIRED:
            raise Refused(INVALID_ARGUMENT, f"health {request.health} can't be set")
        columns = {
            "goodput_kbps": request.goodput_kbps,
            "windows": request.windows_count,
            "confidence_permille": request.confidence_permille,
        }
        evidence = {name: np.asarray(column, np.uint64) for name, column in columns.items() if column}
        for name, most in (("goodput_kbps", 2**32), ("windows", 2**16), ("confidence_permille", 1_001)):
            column = evidence.get(name)
            if column is not None and (len(column) != len(request.iccid) or column.max() >= most):
                raise Refused(INVALID_ARGUMENT, f"{name} has {len(request.iccid)} values below {most:,}")
        statuses = await self._set_health(request.iccid, request.health, call, **evidence)
        return pb.SetSimHealthResponse(status=statuses).SerializeToString()

    async def retire_sims(self, data: bytes, call: Call) -> bytes:
        request = pb.RetireSimsRequest.FromString(data)
        statuses = await self._set_health(request.iccid, layout.RETIRED, call)
        return pb.RetireSimsResponse(status=statuses).SerializeToString()

    async def tell_carrier_life(self, data: bytes, call: Call) -> bytes:
        request = pb.TellCarrierLifeRequest.FromString(data)
        call.may(layout.CARRIER_LIFE)
        if not pb.CARRIER_LIFE_ACTIVE <= request.life <= pb.CARRIER_LIFE_TERMINATED:
            raise Refused(INVALID_ARGUMENT, f"life {request.life} does not exist")
        reason = reason_bytes(request.reason)
        count = len(request.iccid)
        if count > LIVES_MAX:
            raise Refused(TOO_MANY_ITEMS, f"{count:,} SIMs; a call may have {LIVES_MAX:,}")
        if not count:
            return b""
        commands = run(
            layout.CARRIER_LIFE,
            count,
            actor=call.actor.index,
            iccid=np.fromiter(request.iccid, np.uint64, count),
            life=int(request.life),
            reason=np.array([reason], f"S{REASON_BYTES}"),
        )
        outcome = await self.cell.submit(commands, call.deadline)
        return pb.TellCarrierLifeResponse(status=outcome["status"].tolist()).SerializeToString()

    async def _set_health(self, iccids: Any, health: int, call: Call, **evidence: Any) -> Any:
        call.may(layout.SET_HEALTH)
        if len(iccids) > ITEMS_MAX:
            raise Refused(TOO_MANY_ITEMS, f"{len(iccids):,} SIMs; a call may have {ITEMS_MAX:,}")
        if not iccids:
            return []
        numbers = np.fromiter(iccids, np.uint64, len(iccids))
        commands = set_health(numbers, health, actor=call.actor.index, **evidence)
        outcome = await self.cell.submit(commands, call.deadline)
        return outcome["status"].tolist()


def sim_message(sim: Mapping[str, Any]) -> sim_pb2.Sim:
    """What the machine has of a SIM, as its message."""
    return sim_pb2.Sim(
        iccid=decode_iccid(sim["iccid"]),
        imsi=str(sim["imsi"]),
        lot=sim["lot_name"],
        bank=sim["bank_name"],
        slot=sim["slot"],
        occupancy=sim["occupancy"],
        health=sim["health"],
        headroom_bytes=sim["headroom_bytes"],
        counted_bytes=sim["counted_bytes"],
        used_cycle_bytes=sim["used_cycle_bytes"],
        used_day_bytes=sim["used_day_bytes"],
        used_rolling_bytes=sim["used_rolling_bytes"],
        terminal=sim["terminal"],
        on_probation=not sim["trusted"],
    )

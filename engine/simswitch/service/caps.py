"""CapsService: the caps that are in force or will be, and when windows start anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from simswitch.cell import Cell
from simswitch.core import layout
from simswitch.core.commands import run
from simswitch.core.machine import Machine
from simswitch.core.roles import Read
from simswitch.service.call import Call
from simswitch.service.directory import Directory, Entity
from simswitch.service.errors import INVALID_ARGUMENT, TOO_MANY_ITEMS, Refused
from simswitch.service.figures import Figures
from simswitch.service.paging import page_size, page_start, page_token
from simswitch.v1 import caps_pb2 as pb
from simswitch.v1 import inventory_pb2

CHANGES_MAX = 4_096
_LIST = b"lots"
_BYTES_MAX = 2**62
_SPEEDS = (layout.PLAN_SPEED_CYCLE_KBPS, layout.PLAN_SPEED_DAY_KBPS, layout.PLAN_SPEED_ROLLING_KBPS)


class CapsHandlers:
    """CapsService."""

    def __init__(self, cell: Cell, directory: Directory, folder: Path | None) -> None:
        self._cell = cell
        self._directory = directory
        self._figures = Figures(cell, directory, folder)

    async def set_caps(self, data: bytes, call: Call) -> bytes:
        call.may(layout.SET_CAP)
        request = pb.SetCapsRequest.FromString(data)
        changes = request.changes
        if len(changes) > CHANGES_MAX:
            raise Refused(TOO_MANY_ITEMS, f"{len(changes):,} caps; a call may have {CHANGES_MAX:,}")
        if not changes:
            return pb.SetCapsResponse().SerializeToString()
        quotas = []
        for change in changes:
            if change.quota_bytes >= _BYTES_MAX:
                raise Refused(INVALID_ARGUMENT, f"quota_bytes is below {_BYTES_MAX:,}, not {change.quota_bytes:,}")
            if not change.certainty:
                raise Refused(INVALID_ARGUMENT, f"certainty is to be said of the cap of {change.lot!r}")
            quotas.append(change.quota_bytes if change.HasField("quota_bytes") else -1)
        commands = run(
            layout.SET_CAP,
            len(changes),
            actor=call.actor.index,
            argument=int(request.replace),
            lot=np.asarray(self._directory.indexes(layout.LOT, (change.lot for change in changes))),
            window=[min(int(change.window), 255) for change in changes],
            quota_bytes=quotas,
            at_ms=[change.at_ms for change in changes],
            basis=[min(int(change.certainty), 255) for change in changes],
        )
        outcome = await self._cell.submit(commands, call.deadline)
        return pb.SetCapsResponse(statuses=outcome["status"].tolist()).SerializeToString()

    async def tell_cap_shifts(self, data: bytes, call: Call) -> bytes:
        call.may(layout.CAP_CHANGED)
        shifts = pb.TellCapShiftsRequest.FromString(data).shifts
        if len(shifts) > CHANGES_MAX:
            raise Refused(TOO_MANY_ITEMS, f"{len(shifts):,} caps; a call may have {CHANGES_MAX:,}")
        if not shifts:
            return pb.TellCapShiftsResponse().SerializeToString()
        commands = run(
            layout.CAP_CHANGED,
            len(shifts),
            actor=call.actor.index,
            lot=np.asarray(self._directory.indexes(layout.LOT, (shift.lot for shift in shifts))),
            window=[min(int(shift.window), 255) for shift in shifts],
            shift=[min(int(shift.shift), 255) for shift in shifts],
            amount=[shift.amount for shift in shifts],
            before=[shift.before for shift in shifts],
            seen_s=[min(shift.first_evidence_ms // 1000, 0xFFFFFFFF) for shift in shifts],
        )
        outcome = await self._cell.submit(commands, call.deadline)
        return pb.TellCapShiftsResponse(statuses=outcome["status"].tolist()).SerializeToString()

    async def import_carrier_usage(self, data: bytes, call: Call) -> bytes:
        call.may(layout.CARRIER_USAGE)
        response = await self._figures.take(pb.ImportCarrierUsageRequest.FromString(data), call)
        return response.SerializeToString()

    async def list_lot_caps(self, data: bytes, call: Call) -> bytes:
        request = pb.ListLotCapsRequest.FromString(data)
        size = page_size(request.page_size)
        start = page_start(request.page_token, _LIST)
        lots = self._lots(request.lot, call)
        lots = [lot for lot in lots if lot.index >= start]
        following = page_token(lots[size].index, _LIST) if len(lots) > size else ""
        lots = lots[:size]

        def read(machine: Machine) -> tuple[bool, list[dict[str, Any]]]:
            return machine.header()["frozen"], [machine.lot(lot.index) for lot in lots]

        frozen, found = await self._cell.read(read)
        return pb.ListLotCapsResponse(
            lots=[self._lot_caps(lot, caps) for lot, caps in zip(lots, found, strict=True)],
            next_page_token=following,
            frozen=frozen,
        ).SerializeToString()

    def _lots(self, name: str, call: Call) -> list[Entity]:
        """The lots of that name, or all, that the actor may see: a supplier its own."""
        lots = [self._directory.get(layout.LOT, name)] if name else self._directory.all(layout.LOT)
        if call.actor.role == layout.ROLE_SUPPLIER:
            return [lot for lot in lots if lot.numbers[layout.LOT_SUPPLIER] == call.actor.subject]
        call.may_read(Read.CAPS)
        return lots

    def _lot_caps(self, lot: Entity, caps: dict[str, Any]) -> pb.LotCaps:
        plan = self._directory.by_index(lot.numbers[layout.LOT_PLAN])
        mark = max(plan.numbers[layout.PLAN_LOW_BYTES], plan.numbers[layout.PLAN_EXHAUSTED_BYTES])
        return pb.LotCaps(
            lot=lot.name,
            plan=plan.name,
            supplier=self._directory.name(lot.numbers[layout.LOT_SUPPLIER]),
            rolling_days=caps["rolling_days"],
            windows=windows_of(plan, caps),
            validity=caps["validity"],
            pool=pool_of(caps),
            tried_ms=caps["tried_ms"],
            stays_slowed=caps["stays_slowed"],
            slowed_count=caps["slowed_count"],
            low_bytes=mark if mark >= 0 else None,
        )


def pool_of(caps: dict[str, Any]) -> pb.Pool | None:
    """What the lot's SIMs share."""
    if not any(caps["pooled"]):
        return None
    return pb.Pool(
        left_bytes=caps["pool_left_bytes"],
        claimed_bytes=caps["pool_claimed_bytes"],
        health=caps["pool_health"],
        low_bytes=caps["pool_low_left_bytes"],
        exhausted_bytes=caps["pool_exhausted_left_bytes"],
    )


def windows_of(plan: Entity, caps: dict[str, Any]) -> list[pb.LotCap]:
    """Those windows of a lot that have a cap, had one or will have one."""
    windows = []
    for place, window in enumerate(layout.Window):
        columns = {name: values[place] for name, values in caps.items() if isinstance(values, list)}
        pool_figure = columns["pooled"] and columns["pool_as_of_s"] > 0
        if columns["quota_bytes"] is None and columns["before_bytes"] is None and not columns["waiting_ms"]:
            continue
        windows.append(
            pb.LotCap(
                window=inventory_pb2.CapWindowKind.ValueType(window),
                quota_bytes=columns["quota_bytes"],
                certainty=columns["basis"],
                since_ms=columns["since_ms"],
                planned_bytes=columns["planned_bytes"],
                planned_certainty=columns["planned_basis"],
                before_bytes=columns["before_bytes"],
                before_certainty=columns["before_basis"],
                before_since_ms=columns["before_since_ms"],
                waiting_ms=columns["waiting_ms"],
                waiting_bytes=columns["waiting_bytes"] if columns["waiting_ms"] else None,
                waiting_certainty=columns["waiting_basis"]
                if columns["waiting_ms"]
                else inventory_pb2.CERTAINTY_UNSPECIFIED,
                reset_ms=columns["reset_ms"],
                last_reset_ms=columns["last_reset_ms"],
                resetting=columns["resetting"],
                reset_spread_ms=columns["spread_ms"],
                begun_ms=columns["begun_ms"],
                ended_ms=columns["ended_ms"],
                pooled=columns["pooled"],
                pool_used_bytes=columns["pool_used_bytes"] if columns["pooled"] else None,
                pool_carrier_bytes=columns["pool_carrier_bytes"] if pool_figure else None,
                pool_as_of_ms=columns["pool_as_of_s"] * 1_000 if pool_figure else 0,
                pool_correction_bytes=columns["pool_correction_bytes"] if columns["pooled"] else 0,
                pool_raised_bytes=columns["pool_raised_bytes"] if columns["pooled"] else 0,
                pool_straddling_bytes=columns["pool_straddling_bytes"] if columns["pooled"] else 0,
                speed_after_bits_per_s=max(plan.numbers[_SPEEDS[place]], 0) * 1_000,
            )
        )
    return windows

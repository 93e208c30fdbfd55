"""SimService: one SIM explained, from the state and from history."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simswitch.cell import Cell
from simswitch.core import layout
from simswitch.core.commands import decode_iccid, encode_iccid
from simswitch.core.machine import Machine
from simswitch.core.roles import Read
from simswitch.history.schema import asked
from simswitch.history.sims import Past, past
from simswitch.service.call import Call
from simswitch.service.caps import pool_of, windows_of
from simswitch.service.definitions import KINDS, message_of
from simswitch.service.directory import Directory, Entity
from simswitch.service.errors import INVALID_ARGUMENT, STATUS_REASONS, Refused
from simswitch.service.inventory import sim_message
from simswitch.v1 import event_pb2, inventory_pb2
from simswitch.v1 import sim_service_pb2 as pb

_USED = {
    inventory_pb2.CAP_WINDOW_KIND_CYCLE: "used_cycle_bytes",
    inventory_pb2.CAP_WINDOW_KIND_DAY: "used_day_bytes",
    inventory_pb2.CAP_WINDOW_KIND_ROLLING: "used_rolling_bytes",
}
_RESULTS = (
    event_pb2.EVENT_KIND_ORDERED,
    event_pb2.EVENT_KIND_CONFIRMED,
    event_pb2.EVENT_KIND_REFUSED,
    event_pb2.EVENT_KIND_OVERDUE,
    event_pb2.EVENT_KIND_WITHDRAWN,
)
"""By ``result`` of the table ``swaps``."""


class SimHandlers:
    """SimService."""

    def __init__(self, cell: Cell, directory: Directory, folder: Path | None) -> None:
        self._cell = cell
        self._directory = directory
        self._folder = folder

    async def explain_sim(self, data: bytes, call: Call) -> bytes:
        digits = pb.ExplainSimRequest.FromString(data).iccid
        try:
            iccid = encode_iccid(digits)
        except ValueError as error:
            raise Refused(INVALID_ARGUMENT, str(error)) from error

        def read(machine: Machine) -> tuple[int, dict[str, Any], dict[str, Any], dict[str, Any] | None] | None:
            index = machine.find_sim(iccid)
            if index is None:
                return None
            sim = machine.sim(index)
            holds = sim["occupancy"] in (layout.RESERVED, layout.ASSIGNED)
            terminal = machine.terminal(sim["terminal_index"]) if holds else None
            return machine.now_ms, sim, machine.lot(sim["lot"]), terminal

        found = await self._cell.read(read)
        lot = None if found is None else self._directory.by_index(found[1]["lot"])
        if call.actor.role == layout.ROLE_SUPPLIER:
            if lot is None or lot.numbers[layout.LOT_SUPPLIER] != call.actor.subject:
                raise call.denied(f"{call.actor.name} is told of the SIMs of its own lots only")
        else:
            call.may_read(Read.SIMS)
        if found is None or lot is None:
            raise Refused(STATUS_REASONS[layout.UNKNOWN_SIM], digits)
        history, missing = await call.aside(asked, self._folder, lambda reader: past(reader, iccid))
        now_ms, sim, caps, terminal = found
        response = self._explained(now_ms, sim, lot, caps)
        response.history_missing = missing
        if terminal is not None:
            response.holder.CopyFrom(self._holder(sim, terminal))
        if history is not None:
            _add_past(response, history, self._directory)
        if not call.sees(Read.SUBSCRIBERS):
            _leave_people_out(response)
        return response.SerializeToString()

    def _explained(
        self, now_ms: int, sim: Mapping[str, Any], lot: Entity, caps: dict[str, Any]
    ) -> pb.ExplainSimResponse:
        plan = self._directory.by_index(lot.numbers[layout.LOT_PLAN])
        terms: Any = message_of(KINDS["lot"], lot)
        carrier = self._directory.by_index(sim["class"]).numbers[layout.CLASS_CARRIER]
        return pb.ExplainSimResponse(
            now_ms=now_ms,
            sim=sim_message(sim),
            lot=terms,
            carrier=terms.carrier
            or (self._directory.name(carrier) if carrier >= 0 else "")
            or inventory_pb2.Plan.FromString(plan.document).carrier,
            validity=caps["validity"],
            health_since_ms=sim["health_since_ms"],
            masked=sim["masked"],
            held=sim["held"],
            cooling_until_ms=sim["cooling_until_ms"],
            changes_today_count=sim["changes_today"],
            changes_per_day_max=sim["changes_max"],
            tier=sim["tier"],
            tier_bytes=sim["tier_bytes"],
            windows=[
                pb.SimWindow(
                    cap=cap,
                    used_bytes=sim[_USED[cap.window]],
                    allowed_bytes=sim["allowances_bytes"][cap.window - 1],
                )
                for cap in windows_of(plan, caps)
            ],
            rolling_days=caps["rolling_days"],
            pool=pool_of(caps),
            tried_ms=sim["tried_ms"],
            stays_slowed=sim["stays_slowed"],
            reset_probes=sim["reset_probes"],
        )

    def _holder(self, sim: Mapping[str, Any], terminal: Mapping[str, Any]) -> pb.SimHolder:
        market = self._directory.by_index(terminal["market"])
        classes = market.numbers[layout.MARKET_FIRST_CLASS : layout.MARKET_FIRST_CLASS + layout.MARKET_CLASSES]
        leased = sim["occupancy"] == layout.ASSIGNED
        return pb.SimHolder(
            terminal=terminal["key"],
            subscriber=terminal["subscriber"],
            access_server=self._directory.server_by_number(terminal["server"]).name,
            market=market.name,
            preference=classes.index(sim["class"]) + 1 if sim["class"] in classes else 0,
            epoch=terminal["epoch"] if leased else 0,
            expires_ms=terminal["expires_ms"] if leased else 0,
            expected_bytes=terminal["expected_bytes"],
            may_use_bytes=max(terminal["expected_bytes"] - terminal["reported_bytes"], 0) if leased else 0,
        )


def _add_past(response: pb.ExplainSimResponse, history: Past, directory: Directory) -> None:
    response.history_ms = history.at_ms
    for use in history.uses:
        response.uses.add(
            day=str(np.datetime64(use.day, "D")),
            terminal=use.terminal,
            subscriber=use.subscriber,
            bytes=use.counted_bytes,
            first_ms=use.first_ms,
            last_ms=use.last_ms,
        )
    for at_ms, throttled, goodput_kbps, windows, demand_s, confidence_permille in history.throttles:
        response.throttles.add(
            at_ms=at_ms,
            throttled=bool(throttled),
            goodput_kbps=goodput_kbps,
            windows_count=windows,
            demand_seconds=demand_s,
            confidence_permille=confidence_permille,
        )
    for at_ms, health, actor, goodput_kbps, windows, confidence_permille, reason in history.healths:
        response.healths.add(
            at_ms=at_ms,
            health=health,
            actor=actor or "",
            goodput_kbps=goodput_kbps,
            windows_count=windows,
            confidence_permille=confidence_permille,
            reason=reason,
        )
    for at_ms, terminal, goodput_kbps in history.trusts:
        response.trusts.add(at_ms=at_ms, terminal=terminal, goodput_kbps=goodput_kbps)
    for window, as_of_ms, at_ms, carrier_bytes, our_bytes, correction_bytes, actor, straddling in history.corrections:
        response.corrections.add(
            window=min(window, layout.WINDOW_ROLLING),
            of_day=window == layout.ROLLING_DAY,
            straddling_bytes=straddling,
            as_of_ms=as_of_ms,
            at_ms=at_ms,
            carrier_bytes=carrier_bytes,
            our_bytes=our_bytes,
            correction_bytes=correction_bytes,
            actor=actor,
        )
    for at_ms, window, as_of_ms, told_bytes, status, actor in history.set_aside:
        response.set_aside.add(
            at_ms=at_ms,
            window=min(window, layout.WINDOW_ROLLING),
            as_of_ms=as_of_ms,
            bytes=told_bytes,
            status=status,
            actor=actor,
        )
    for swap in history.swaps:
        response.swaps.add(
            order=swap.order,
            ordered_ms=swap.ordered_ms,
            away=swap.away,
            other_iccid="" if swap.other is None else decode_iccid(swap.other),
            terminal=swap.terminal,
            subscriber=swap.subscriber,
            access_server=directory.name(swap.access_server) if swap.access_server >= 0 else "",
            priority=swap.priority,
            job=swap.job,
            result=_RESULTS[swap.result],
            confirmed_ms=swap.confirmed_ms or 0,
            outage_ms=swap.outage_ms,
        )
    if response.HasField("holder") and history.uses and history.uses[0].terminal == response.holder.terminal:
        response.holder.used_since_ms = history.used_since_ms


def _leave_people_out(response: pb.ExplainSimResponse) -> None:
    """For who may see no persons. The other SIM of a swap may be another supplier's: it goes too."""
    response.ClearField("holder")
    response.sim.ClearField("terminal")
    for use in response.uses:
        use.terminal = use.subscriber = 0
    for trust in response.trusts:
        trust.terminal = 0
    for swap in response.swaps:
        swap.terminal = swap.subscriber = 0
        swap.other_iccid = ""

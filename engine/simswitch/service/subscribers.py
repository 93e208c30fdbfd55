"""SubscriberService: an answer for each person, and who is exempt from limits."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simswitch.cell import Cell
from simswitch.core import layout
from simswitch.core.commands import run
from simswitch.core.machine import Machine
from simswitch.core.roles import Read
from simswitch.history.limits import Person, person
from simswitch.history.schema import asked
from simswitch.service.call import Call
from simswitch.service.definitions import KINDS, message_of
from simswitch.service.directory import Directory
from simswitch.service.errors import INVALID_ARGUMENT, Refused, check
from simswitch.service.paging import page_size, page_start, page_token
from simswitch.service.reason import REASON_BYTES, reason_bytes
from simswitch.v1 import event_pb2, inventory_pb2
from simswitch.v1 import subscriber_pb2 as pb

_LIST = b"exem"
UNTIL_MS_MAX = 1 << 43
"""The end of an exemption is before it, in the year 2248."""
_DAY_MS = 86_400_000


class SubscriberHandlers:
    """SubscriberService."""

    def __init__(self, cell: Cell, directory: Directory, folder: Path | None) -> None:
        self._cell = cell
        self._directory = directory
        self._folder = folder

    async def get_subscriber(self, data: bytes, call: Call) -> bytes:
        call.may_read(Read.SUBSCRIBERS)
        key = _subscriber(pb.GetSubscriberRequest.FromString(data).subscriber)
        past, missing = await call.aside(asked, self._folder, lambda reader: person(reader, key))
        now = await self._cell.read(lambda machine: machine.subscriber_now(key))
        response = pb.GetSubscriberResponse(
            subscriber=key,
            subscriber_group=self._directory.name(now["group"]) if now["group"] else "",
            day=datetime.date(now["year"], now["month"], now["day"]).isoformat(),
            day_bytes=now["day_bytes"],
            month_bytes=now["month_bytes"],
            action=inventory_pb2.LimitAction.ValueType(now["action"]),
            ends_ms=now["ends_ms"],
            history_missing=missing,
        )
        if now["rule"]:
            rule: Any = message_of(KINDS["limit_rule"], self._directory.by_index(now["rule"]))
            response.rule.CopyFrom(rule)
        if now["exemption"] is not None:
            response.exemption.CopyFrom(_exemption(now["exemption"]))
        if past is not None:
            _add_past(response, past, key)
        return response.SerializeToString()

    async def exempt_subscriber(self, data: bytes, call: Call) -> bytes:
        call.may(layout.EXEMPT)
        request = pb.ExemptSubscriberRequest.FromString(data)
        key = _subscriber(request.subscriber)
        reason = reason_bytes(request.reason)
        if not request.until_ms:
            raise Refused(INVALID_ARGUMENT, "until_ms is to be said: an exemption has an end")
        status = await self._exempt(key, request.until_ms, reason, call)
        found = await self._cell.read(lambda machine: machine.exemption(key))
        return pb.ExemptSubscriberResponse(
            status=status, exemption=None if found is None else _exemption(found)
        ).SerializeToString()

    async def end_exemption(self, data: bytes, call: Call) -> bytes:
        call.may(layout.EXEMPT)
        key = _subscriber(pb.EndExemptionRequest.FromString(data).subscriber)
        return pb.EndExemptionResponse(status=await self._exempt(key, 0, b"", call)).SerializeToString()

    async def _exempt(self, subscriber: int, until_ms: int, reason: bytes, call: Call) -> Any:
        commands = run(
            layout.EXEMPT,
            1,
            actor=call.actor.index,
            reason=np.array([reason], f"S{REASON_BYTES}"),
            subscriber=subscriber,
            until_ms=until_ms,
        )
        outcome = await self._cell.submit(commands, call.deadline)
        status = int(outcome["status"][0])
        if status == layout.INVALID_ARGUMENT:
            raise Refused(INVALID_ARGUMENT, f"until_ms is later than now and below {UNTIL_MS_MAX:,}, not {until_ms:,}")
        check(status, f"subscriber {subscriber}")
        return status

    async def list_exemptions(self, data: bytes, call: Call) -> bytes:
        call.may_read(Read.SUBSCRIBERS)
        request = pb.ListExemptionsRequest.FromString(data)
        size = page_size(request.page_size)
        start = page_start(request.page_token, _LIST)

        def read(machine: Machine) -> list[Mapping[str, Any]]:
            return [each for each in machine.exemptions() if each["holds"] and each["subscriber"] >= start]

        found = await self._cell.read(read)
        following = page_token(found[size]["subscriber"], _LIST) if len(found) > size else ""
        return pb.ListExemptionsResponse(
            exemptions=[_exemption(each) for each in found[:size]], next_page_token=following
        ).SerializeToString()


def _subscriber(key: int) -> int:
    if not key:
        raise Refused(INVALID_ARGUMENT, "subscriber 0 stands for nobody")
    return key


def _exemption(found: Mapping[str, Any]) -> pb.Exemption:
    return pb.Exemption(
        subscriber=found["subscriber"],
        since_ms=found["since_ms"],
        until_ms=found["until_ms"],
        actor=found["actor_name"],
        reason=found["reason"],
    )


def _add_past(response: pb.GetSubscriberResponse, past: Person, key: int) -> None:
    response.history_ms = past.at_ms
    for step in past.taken:
        taken = response.taken.add(
            at_ms=step.at_ms,
            step=event_pb2.LimitStep.ValueType(step.step),
            of_day=step.of_day,
            used_bytes=step.used_bytes,
            limit_bytes=step.limit_bytes,
        )
        if step.name is not None:
            taken.rule.MergeFromString(step.document)
            taken.rule.name = step.name
    for each in past.exemptions:
        response.exemptions.add(
            subscriber=key,
            since_ms=each.since_ms,
            until_ms=each.until_ms if each.ended_ms is None else each.ended_ms,
            actor=each.actor,
            reason=each.reason,
        )
    for month, used in past.months:
        response.months.add(span=str(np.datetime64(month, "M")), bytes=used)
    for day, used in past.days:
        response.days.add(span=str(np.datetime64(day, "D")), bytes=used)

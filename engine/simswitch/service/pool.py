"""PoolService: the pool as a whole, the access servers, the settings."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simswitch.cell import Cell
from simswitch.core import layout
from simswitch.core.commands import run
from simswitch.core.machine import Machine
from simswitch.core.roles import Read
from simswitch.history.reading import LotCounted, lots_counted
from simswitch.history.schema import asked
from simswitch.service.call import Call
from simswitch.service.directory import Directory, Entity
from simswitch.service.errors import INVALID_ARGUMENT, Refused, check
from simswitch.service.events import BREAKER_STATES
from simswitch.service.paging import page_size, page_start, page_token
from simswitch.service.sessions import SessionHandlers
from simswitch.v1 import pool_pb2 as pb
from simswitch.v1 import sim_pb2

_LIST = b"serv"
_NOTHING = LotCounted(*[0] * len(LotCounted._fields))
_TERMS = (layout.LOT, layout.SUPPLIER)
_REMAINING_BY: dict[int, int] = {
    pb.REMAINING_BY_LOT: layout.LOT,
    pb.REMAINING_BY_SUPPLIER: layout.SUPPLIER,
    pb.REMAINING_BY_CLASS: layout.SIM_CLASS,
    pb.REMAINING_BY_MARKET: layout.MARKET,
}
_BREAKER_OF: dict[int, pb.BreakerOf.ValueType] = {
    layout.BANK: pb.BREAKER_OF_BANK,
    layout.LOT: pb.BREAKER_OF_LOT,
    layout.SIM_CLASS: pb.BREAKER_OF_CLASS,
    layout.CARRIER: pb.BREAKER_OF_CARRIER,
    layout.ACCESS_SERVER: pb.BREAKER_OF_ACCESS_SERVER,
}


class PoolHandlers:
    """PoolService."""

    def __init__(self, cell: Cell, directory: Directory, folder: Path | None, sessions: SessionHandlers) -> None:
        self._cell = cell
        self._directory = directory
        self._folder = folder
        self._sessions = sessions
        self._configuring = asyncio.Lock()

    async def get_summary(self, data: bytes, call: Call) -> bytes:
        pb.GetSummaryRequest.FromString(data)
        call.may_read(Read.POOL)
        servers = [entity.server for entity in self._directory.all(layout.ACCESS_SERVER)]
        shared = [lot.index for lot in self._directory.all(layout.LOT) if self._shares(lot)]

        def read(machine: Machine) -> tuple[Any, ...]:
            outstanding = sum(machine.server(server)["outstanding"] for server in servers)
            pools = Counter(machine.lot(lot)["pool_health"] for lot in shared)
            figures = (machine.now_ms, machine.sequence, machine.header(), machine.groups(), machine.markets())
            return *figures, outstanding, pools, machine.totals()["not_valid"]

        now_ms, sequence, header, groups, markets, outstanding, pools, not_valid = await self._cell.read(read)
        classes = _tally(groups, "class")
        response = pb.GetSummaryResponse(
            now_ms=now_ms,
            sequence=sequence,
            sims_count=header["sims_count"],
            terminals_count=header["terminals_count"],
            counted_bytes=header["counted_bytes"],
            outstanding_count=outstanding,
            swaps_stopped=bool(header["swaps_stopped"]),
            frozen=bool(header["frozen"]),
            unheard_count=header["unheard_count"],
            set_aside_count=header["set_aside_count"],
            set_aside_bytes=header["set_aside_bytes"],
            impossible_count=header["impossible_count"],
            corrections_count=header["corrections_count"],
            figures_aside_count=header["figures_aside_count"],
            subscribers_missed_count=header["subscribers_missed"],
            unreported_count=header["unreported_count"],
            unreported_bytes=header["unreported_bytes"],
            pools=[pb.HealthCount(health=health, count=count) for health, count in sorted(pools.items())],
            not_yet_valid_count=not_valid[layout.NOT_YET_VALID],
            no_longer_valid_count=not_valid[layout.NO_LONGER_VALID],
            disk_full=self._cell.disk_full,
            alarm=self._cell.alarm,
            classes=self._names(classes),
            lots=self._names(_tally(groups, "lot")),
            banks=self._names(_tally(groups, "bank")),
            markets=self._markets(classes),
            expected_uses=[
                pb.ExpectedUse(
                    market=self._directory.name(market["entity"]),
                    expected_bytes=market["expected_bytes"],
                    learned_bytes=market["learned_bytes"],
                    leases_count=market["leases_count"],
                )
                for market in markets
            ],
        )
        for name, count in exhausted_by_use(header["health"], not_valid).items():
            if count:
                response.healths.add(health=sim_pb2.Health.Value(f"HEALTH_{name.upper()}"), count=count)
        for name, count in header["occupancy"].items():
            if count:
                response.occupancies.add(occupancy=sim_pb2.Occupancy.Value(f"OCCUPANCY_{name.upper()}"), count=count)
        return response.SerializeToString()

    def _names(self, counts: Mapping[int, list[int]]) -> list[pb.NameCount]:
        return [
            pb.NameCount(
                name=self._directory.name(index), sims_count=sims, selectable_count=selectable, masked_count=masked
            )
            for index, (sims, selectable, masked) in sorted(counts.items())
        ]

    def _markets(self, classes: Mapping[int, list[int]]) -> list[pb.NameCount]:
        counts = {}
        for market in self._directory.all(layout.MARKET):
            served = [classes[index] for index in market.numbers[layout.MARKET_FIRST_CLASS :] if index in classes]
            counts[market.index] = [sum(column) for column in zip([0, 0, 0], *served, strict=True)]
        return self._names(counts)

    async def list_remaining(self, data: bytes, call: Call) -> bytes:
        request = pb.ListRemainingRequest.FromString(data)
        kind = _REMAINING_BY.get(request.by)
        if kind is None:
            raise Refused(INVALID_ARGUMENT, f"by is a lot, supplier, class or market, not {request.by}")
        call.may_read(Read.LOTS if kind in _TERMS else Read.POOL)
        size = page_size(request.page_size)
        list_name = b"rem%c" % kind
        start = page_start(request.page_token, list_name)
        lots = self._directory.all(layout.LOT)
        entities = [entity for entity in self._directory.all(kind) if entity.index >= start]
        if call.actor.role == layout.ROLE_SUPPLIER:
            lots = [lot for lot in lots if lot.numbers[layout.LOT_SUPPLIER] == call.actor.subject]
            own = {call.actor.subject, *(lot.index for lot in lots)}
            entities = [entity for entity in entities if entity.index in own]
        page = entities[:size]
        looked, missing = await call.aside(self._looked)
        now_ms, groups = await self._cell.read(lambda machine: (machine.now_ms, machine.groups()))
        live = _tally(groups, "lot")
        return pb.ListRemainingResponse(
            remaining=[self._remaining(entity, of, live, looked) for entity, of in _with_lots(page, lots)],
            next_page_token=page_token(entities[size].index, list_name) if len(entities) > size else "",
            now_ms=now_ms,
            history_missing=missing,
        ).SerializeToString()

    def _looked(self) -> tuple[dict[int, LotCounted], str]:
        """What the follower counted in each lot when it last walked over the SIMs. For a thread beside the loop."""
        found, missing = asked(self._folder, lots_counted)
        return found or {}, missing or (
            "" if found else "the follower has not counted the pool yet: it does every minute"
        )

    def _remaining(
        self, entity: Entity, lots: list[Entity], live: Mapping[int, list[int]], looked: Mapping[int, LotCounted]
    ) -> pb.Remaining:
        figures = [looked[lot.index] for lot in lots if lot.index in looked]
        sums = LotCounted(*map(sum, zip(_NOTHING, *figures, strict=True)))
        counts = [live[lot.index] for lot in lots if lot.index in live]
        sims, selectable, masked = map(sum, zip([0, 0, 0], *counts, strict=True))
        supplier = entity.numbers[layout.LOT_SUPPLIER] if entity.kind == layout.LOT else -1
        return pb.Remaining(
            name=entity.name,
            supplier=self._directory.name(supplier) if supplier >= 0 else "",
            sims_count=sims,
            selectable_count=selectable,
            masked_count=masked,
            pools_count=sum(self._shares(lot) for lot in lots),
            counted_ms=min((each.at_ms for each in figures), default=0),
            **{name: value for name, value in sums._asdict().items() if name != "at_ms"},
        )

    def _shares(self, lot: Entity) -> bool:
        return self._directory.by_index(lot.numbers[layout.LOT_PLAN]).numbers[layout.PLAN_POOLED] > 0

    async def get_access_server_status(self, data: bytes, call: Call) -> bytes:
        call.may_read(Read.POOL)
        server = self._directory.server(pb.GetAccessServerStatusRequest.FromString(data).name)
        state = await self._cell.read(lambda machine: machine.server(server.server))
        return pb.GetAccessServerStatusResponse(status=_status(server, state)).SerializeToString()

    async def list_access_server_statuses(self, data: bytes, call: Call) -> bytes:
        call.may_read(Read.POOL)
        request = pb.ListAccessServerStatusesRequest.FromString(data)
        size = page_size(request.page_size)
        start = page_start(request.page_token, _LIST)
        servers = [entity for entity in self._directory.all(layout.ACCESS_SERVER) if entity.index >= start]
        page = servers[:size]
        states = await self._cell.read(lambda machine: [machine.server(entity.server) for entity in page])
        return pb.ListAccessServerStatusesResponse(
            statuses=[_status(server, state) for server, state in zip(page, states, strict=True)],
            next_page_token=page_token(servers[size].index, _LIST) if len(servers) > size else "",
        ).SerializeToString()

    async def _settings(self) -> list[pb.SettingValue]:
        settings: Mapping[Any, int] = await self._cell.read(settings_of)
        return [pb.SettingValue(setting=setting, value=value) for setting, value in settings.items()]

    async def get_settings(self, data: bytes, call: Call) -> bytes:
        pb.GetSettingsRequest.FromString(data)
        call.may_read(Read.POOL)
        return pb.GetSettingsResponse(settings=await self._settings()).SerializeToString()

    async def configure(self, data: bytes, call: Call) -> bytes:
        call.may(layout.CONFIGURE)
        wanted = pb.ConfigureRequest.FromString(data).settings
        numbers = [int(value.setting) for value in wanted]
        if not wanted or len(set(numbers)) != len(numbers):
            raise Refused(INVALID_ARGUMENT, "settings has at least one value, and each setting once")
        for value in wanted:
            if value.setting not in pb.Setting.values() or value.setting == pb.SETTING_UNSPECIFIED or value.value < 0:
                raise Refused(INVALID_ARGUMENT, f"setting {value.setting} with the value {value.value}")
        async with self._configuring:
            await self._configure({int(value.setting): value.value for value in wanted}, call)
        return pb.ConfigureResponse(settings=await self._settings()).SerializeToString()

    async def _configure(self, wanted: Mapping[int, int], call: Call) -> None:
        before = await self._cell.read(settings_of)
        if wanted.get(layout.APPROVAL_ABOVE, 0) > before[layout.APPROVAL_ABOVE]:
            # Or whoever wants to do without a second person says that none is needed.
            raise call.denied(
                f"approval_above is {before[layout.APPROVAL_ABOVE]:,}, and a call only lowers it: a higher one stands "
                "in the settings file of the service, section engine, and counts from its next start"
            )
        statuses = await self._set(wanted, call)
        refused = [number for number, status in statuses.items() if status >= layout.NOT_PERMITTED]
        if refused:
            # The core takes each value by itself: put back what it took.
            taken = {number: before[number] for number, status in statuses.items() if status == layout.OK}
            if taken:
                await self._set(taken, call)
            check(statuses[refused[0]], layout.Setting(refused[0]).name.lower())

    async def _set(self, values: Mapping[int, int], call: Call) -> dict[int, int]:
        outcome = await self._cell.submit(
            run(
                layout.CONFIGURE,
                len(values),
                actor=call.actor.index,
                setting=np.array(list(values), np.uint16),
                value=np.array(list(values.values()), np.int64),
            )
        )
        return dict(zip(values, outcome["status"].tolist(), strict=True))

    async def set_mask(self, data: bytes, call: Call) -> bytes:
        call.may(layout.MASK)
        request = pb.SetMaskRequest.FromString(data)
        if not request.lot and not request.bank:
            raise Refused(INVALID_ARGUMENT, "a lot, a bank or both must be named")
        outcome = await self._cell.submit(
            run(
                layout.MASK,
                actor=call.actor.index,
                lot=self._directory.get(layout.LOT, request.lot).index if request.lot else layout.NONE_SHORT,
                bank=self._directory.get(layout.BANK, request.bank).index if request.bank else layout.NONE_SHORT,
                masked=int(request.masked),
            )
        )
        check(int(outcome["status"][0]), request.lot or request.bank)
        return pb.SetMaskResponse().SerializeToString()

    async def declare_dead(self, data: bytes, call: Call) -> bytes:
        call.may(layout.DECLARE_DEAD)
        request = pb.DeclareDeadRequest.FromString(data)
        server = self._directory.server(request.access_server)
        outcome = await self._cell.submit(
            run(layout.DECLARE_DEAD, 1, actor=call.actor.index, access_server=server.server, undo=int(request.undo))
        )
        status = int(outcome["status"][0])
        if status == layout.WRONG_STATE:
            why = "it has a session that is ready"
            if request.undo:
                why = "it is not declared dead, or what it held is freed already"
            check(status, f"{request.access_server}: {why}")
        check(status, request.access_server)
        if status == layout.OK and not request.undo:
            self._sessions.declared_dead(server)
        state = await self._cell.read(lambda machine: machine.server(server.server))
        return pb.DeclareDeadResponse(status=_status(server, state)).SerializeToString()

    async def pause_access_server(self, data: bytes, call: Call) -> bytes:
        name = pb.PauseAccessServerRequest.FromString(data).access_server
        status = await self._change(layout.SERVER_PAUSE, name, call)
        return pb.PauseAccessServerResponse(status=status).SerializeToString()

    async def resume_access_server(self, data: bytes, call: Call) -> bytes:
        name = pb.ResumeAccessServerRequest.FromString(data).access_server
        status = await self._change(layout.SERVER_RESUME, name, call)
        return pb.ResumeAccessServerResponse(status=status).SerializeToString()

    async def _change(self, command: int, name: str, call: Call) -> pb.AccessServerStatus:
        call.may(command)
        server = self._directory.server(name)
        outcome = await self._cell.submit(run(command, actor=call.actor.index, access_server=server.server))
        check(int(outcome["status"][0]), name)
        return _status(server, await self._cell.read(lambda machine: machine.server(server.server)))

    async def list_breakers(self, data: bytes, call: Call) -> bytes:
        call.may_read(Read.POOL)
        pb.ListBreakersRequest.FromString(data)
        return pb.ListBreakersResponse(
            breakers=[
                pb.Breaker(
                    of=_BREAKER_OF[row["kind"]],
                    name=row["name"],
                    state=BREAKER_STATES[layout.BreakerState(row["state"])],
                    failures_count=row["failures"],
                    successes_count=row["successes"],
                    changed_ms=row["changed_ms"],
                    retry_ms=row["retry_ms"] if row["state"] == layout.BREAKER_OPEN else 0,
                    opens_count=row["opens"],
                )
                for row in await self._cell.read(lambda machine: machine.breakers())
            ]
        ).SerializeToString()

    async def confirm_clock(self, data: bytes, call: Call) -> bytes:
        call.may(layout.THAW)
        pb.ConfirmClockRequest.FromString(data)
        outcome = await self._cell.confirm_clock(call.actor.index)
        status = int(outcome["status"][0])
        check(status, "the clock")
        now_ms = await self._cell.read(lambda machine: machine.now_ms)
        response = pb.ConfirmClockResponse(was_frozen=status == layout.OK, now_ms=now_ms)
        return response.SerializeToString()


def settings_of(machine: Machine) -> dict[int, int]:
    """The settings by number."""
    settings = machine.header()["settings"]
    return {int(setting): settings[setting.name.lower()] for setting in layout.Setting}


def exhausted_by_use(healths: Mapping[str, int], not_valid: list[int]) -> dict[str, int]:
    """SIMs by health, without those of which nothing is left since their lots are not valid."""
    return {**healths, "exhausted": healths["exhausted"] - sum(not_valid)}


def _tally(groups: list[dict[str, Any]], field: str) -> dict[int, list[int]]:
    """All, selectable and masked SIMs by the entity index in this field."""
    counts: dict[int, list[int]] = {}
    for group in groups:
        count = counts.setdefault(group[field], [0, 0, 0])
        count[0] += group["sims_count"]
        count[2 if group["masked"] else 1] += group["sims_count"] if group["masked"] else group["free_count"]
    return counts


def _with_lots(entities: list[Entity], lots: list[Entity]) -> Iterator[tuple[Entity, list[Entity]]]:
    """Lots, suppliers, classes or markets, each with the lots that belong to it."""
    of: dict[int, list[Entity]] = {}
    for lot in lots:
        for index in (lot.index, lot.numbers[layout.LOT_SUPPLIER], lot.numbers[layout.LOT_CLASS]):
            of.setdefault(index, []).append(lot)
    for entity in entities:
        served = [entity.index]
        if entity.kind == layout.MARKET:
            served = list(entity.numbers[layout.MARKET_FIRST_CLASS : layout.MARKET_FIRST_CLASS + layout.MARKET_CLASSES])
        yield entity, [lot for index in served for lot in of.get(index, [])]


def _status(server: Entity, state: Mapping[str, Any]) -> pb.AccessServerStatus:
    return pb.AccessServerStatus(
        name=server.name,
        session=state["session"],
        reconciled=bool(state["reconciled"]),
        window=state["window"],
        window_reason=state["window_reason"],
        window_changed_ms=state["window_changed_ms"],
        gate=state["gate"],
        gate_changed_ms=state["gate_changed_ms"],
        gate_reason=state["gate_reason"],
        paused=bool(state["paused"]),
        unheard=bool(state["unheard"]),
        waits_for=state["waits_for"],
        outstanding_count=state["outstanding"],
        outstanding_count_max=state["outstanding_max"],
        queued_count=state["queued_count"],
        confirmed_count=state["confirmed_count"],
        acknowledgement_us=state["ack_us"],
        queue_wait_us=state["queue_wait_us"],
        service_us=state["service_us"],
        allocations_per_s=state["allocations_rate"],
        waiting=state["waiting"],
        allocation_wait_us=state["allocation_wait_us"],
        dead_ms=state["dead_ms"] or None,
        announced_count=state["announced_count"],
        outage_ms=state["outage_ms"],
        waits_count=state["waits_count"],
        booked_until_ms=state["booked_until_ms"],
    )

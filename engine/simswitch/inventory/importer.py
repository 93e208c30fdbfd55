"""Takes what was read from files to a running service, in columns and in bounded messages.

Everything here can be repeated: what stands already gives SAME. The order is what refers to what: suppliers, plans and
classes, then markets, banks and access servers, then lots, then SIMs, then the assignments that are live.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from simswitch.client.operator import how_far
from simswitch.inventory.definitions import Definitions, Plan
from simswitch.inventory.lots import Lot
from simswitch.inventory.sims import Known, SimColumns
from simswitch.v1 import inventory_pb2 as messages
from simswitch.v1 import status_pb2
from simswitch.v1.inventory_pb2_grpc import InventoryServiceStub

CHUNK_ITEMS = 16_384
"""SIMs of one message: about 800 KB."""
NAMES_MAX = 256
"""Names that one message may list."""
PAGE_SIZE = 1_000
CYCLE = messages.CAP_WINDOW_KIND_CYCLE
CALL_TIMEOUT_S = 60.0
IMPORT_TIMEOUT_S = 600.0
AGAIN = "what is in stays, and importing it again changes nothing of that"

Progress = Callable[[int], None]
"""Told how many there are by now."""


@dataclass(slots=True)
class Catalogue:
    """Every name that the service knows, with what an import needs to know of it."""

    suppliers: list[str] = field(default_factory=list)
    plans: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    markets: list[str] = field(default_factory=list)
    banks: list[str] = field(default_factory=list)
    access_servers: list[str] = field(default_factory=list)
    lots: list[str] = field(default_factory=list)
    check_digit_exempt: set[str] = field(default_factory=set)
    defined_plans: dict[str, messages.Plan] = field(default_factory=dict)
    defined_lots: dict[str, messages.Lot] = field(default_factory=dict)

    def extend(self, definitions: Definitions, lots: list[Lot]) -> None:
        """Adds what an import is going to define."""
        for kind in ("suppliers", "plans", "classes", "markets", "banks", "access_servers"):
            names = getattr(self, kind)
            present = set(names)
            names += [entry.name for entry in getattr(definitions, kind) if entry.name not in present]
        present = set(self.lots)
        self.lots += [lot.name for lot in lots if lot.name not in present]
        self.defined_plans |= {plan.name: _plan(plan) for plan in definitions.plans}
        self.defined_lots |= {lot.name: _lot(lot) for lot in lots}
        for lot in lots:
            (self.check_digit_exempt.add if lot.check_digit_exempt else self.check_digit_exempt.discard)(lot.name)

    def known(self, now: datetime) -> Known:
        """The names that a file of SIMs may use, and what it may say that its SIMs have used by now."""
        from simswitch.service.calendar import last_reset_ms, lot_rule

        known = Known(self.lots, frozenset(self.check_digit_exempt), self.banks, self.access_servers, self.markets)
        for name, lot in self.defined_lots.items():
            plan = self.defined_plans.get(lot.plan, messages.Plan())
            rule = lot_rule(lot, plan)
            if rule is not None:
                known.cycle_begun_s[name] = last_reset_ms(CYCLE, rule, int(now.timestamp() * 1_000)) // 1_000
            known.rolling_days[name] = max((window.days for window in plan.windows), default=0)
        return known


def read_catalogue(stub: InventoryServiceStub) -> Catalogue:
    """The names of everything that the service knows."""
    catalogue = Catalogue()
    for kind, entries in (
        ("suppliers", _pages(stub.ListSuppliers, messages.ListSuppliersRequest, "suppliers")),
        ("plans", _pages(stub.ListPlans, messages.ListPlansRequest, "plans")),
        ("classes", _pages(stub.ListSimClasses, messages.ListSimClassesRequest, "sim_classes")),
        ("markets", _pages(stub.ListMarkets, messages.ListMarketsRequest, "markets")),
        ("banks", _pages(stub.ListBanks, messages.ListBanksRequest, "banks")),
        ("access_servers", _pages(stub.ListAccessServers, messages.ListAccessServersRequest, "access_servers")),
        ("lots", _pages(stub.ListLots, messages.ListLotsRequest, "lots")),
    ):
        for entry in entries:
            getattr(catalogue, kind).append(entry.name)
            if kind == "plans":
                catalogue.defined_plans[entry.name] = entry
            if kind == "lots":
                catalogue.defined_lots[entry.name] = entry
                if entry.check_digit_exempt:
                    catalogue.check_digit_exempt.add(entry.name)
    return catalogue


def _pages(call: Any, request: Any, entries: str) -> Iterator[Any]:
    token = ""
    while True:
        page = call(request(page_size=PAGE_SIZE, page_token=token), timeout=CALL_TIMEOUT_S)
        yield from getattr(page, entries)
        token = page.next_page_token
        if not token:
            return


def define(
    stub: InventoryServiceStub, definitions: Definitions, lots: list[Lot], progress: Progress | None = None
) -> None:
    """Defines everything, in the order in which one refers to the other."""
    calls: list[tuple[Any, Any]] = []
    calls += [
        (
            stub.DefineSupplier,
            messages.DefineSupplierRequest(
                supplier=messages.Supplier(name=entry.name, legal_name=entry.legal_name, contact=entry.contact)
            ),
        )
        for entry in definitions.suppliers
    ]
    calls += [(stub.DefinePlan, messages.DefinePlanRequest(plan=_plan(entry))) for entry in definitions.plans]
    calls += [
        (
            stub.DefineSimClass,
            messages.DefineSimClassRequest(
                sim_class=messages.SimClass(
                    name=entry.name, carrier=entry.carrier, coverage=entry.coverage, reserve_count=entry.reserve_count
                )
            ),
        )
        for entry in definitions.classes
    ]
    calls += [
        (
            stub.DefineMarket,
            messages.DefineMarketRequest(
                market=messages.Market(name=entry.name, sim_classes=entry.classes, expected_bytes=entry.expected_bytes)
            ),
        )
        for entry in definitions.markets
    ]
    calls += [
        (
            stub.DefineBank,
            messages.DefineBankRequest(
                bank=messages.Bank(name=entry.name, location=entry.location, slots_count=entry.slots_count)
            ),
        )
        for entry in definitions.banks
    ]
    calls += [
        (
            stub.DefineAccessServer,
            messages.DefineAccessServerRequest(
                access_server=messages.AccessServer(name=entry.name, location=entry.location)
            ),
        )
        for entry in definitions.access_servers
    ]
    calls += [
        (
            stub.DefineSubscriberGroup,
            messages.DefineSubscriberGroupRequest(
                subscriber_group=messages.SubscriberGroup(name=entry.name, priority=entry.priority)
            ),
        )
        for entry in definitions.subscriber_groups
    ]
    calls += [(stub.DefineLot, messages.DefineLotRequest(lot=_lot(lot))) for lot in lots]
    done = 0
    with how_far(lambda: f"{done:,} of {len(calls):,} definitions are in; {AGAIN}"):
        for call, request in calls:
            call(request, timeout=CALL_TIMEOUT_S)
            done += 1
            if progress:
                progress(done)


def _plan(plan: Plan) -> messages.Plan:
    kinds = {"cycle": 1, "day": 2, "rolling": 3}
    certainties = {"contractual": 1, "believed": 2, "learned": 3}
    return messages.Plan(
        name=plan.name,
        carrier=plan.carrier,
        windows=[
            messages.CapWindow(
                kind=messages.CapWindowKind.Name(kinds[window.kind]),  # type: ignore[arg-type]
                quota_bytes=window.quota_bytes,
                days=window.days,
                speed_after_bits_per_s=window.speed_after_bits_per_s,
                certainty=messages.Certainty.Name(certainties[window.certainty]),  # type: ignore[arg-type]
                pooled=window.pooled,
            )
            for window in plan.windows
        ],
        low_bytes=plan.low_bytes,
        exhausted_bytes=plan.exhausted_bytes,
        changes_per_day_max=plan.changes_per_day_max,
        resets=None
        if plan.resets is None
        else messages.ResetRule(
            closing_day=plan.resets.closing_day,
            time_zone=plan.resets.time_zone,
            lag_seconds=plan.resets.lag_seconds,
            spread_seconds=plan.resets.spread_seconds,
        ),
    )


def _lot(lot: Lot) -> messages.Lot:
    payments = {
        "": messages.PAYMENT_UNSPECIFIED,
        "prepaid": messages.PAYMENT_PREPAID,
        "postpaid": messages.PAYMENT_POSTPAID,
    }
    return messages.Lot(
        name=lot.name,
        supplier=lot.supplier,
        plan=lot.plan,
        sim_class=lot.sim_class,
        carrier=lot.carrier,
        sims_count=lot.sims_count,
        cost_minor=lot.cost_minor,
        currency=lot.currency,
        purchase_date=lot.purchase_date,
        valid_until=lot.valid_until,
        payment=payments[lot.payment],
        terms=lot.terms,
        check_digit_exempt=lot.check_digit_exempt,
        active_from=lot.active_from,
        closing_day=lot.closing_day,
    )


@dataclass(slots=True)
class Refused:
    """A line that the service refused, and why."""

    line: int
    what: str
    status: str


@dataclass(slots=True)
class ImportResult:
    """What became of the SIMs and of the assignments."""

    received_count: int = 0
    imported_count: int = 0
    same_count: int = 0
    refused_count: int = 0
    adopted_count: int = 0
    adopted_same_count: int = 0
    refused: list[Refused] = field(default_factory=list)


def import_sims(
    stub: InventoryServiceStub,
    sims: SimColumns,
    known: Known,
    *,
    partial: bool = False,
    progress: Progress | None = None,
) -> ImportResult:
    """Takes SIMs into the pool. Unless ``partial`` all of them, or none."""
    mode = messages.IMPORT_MODE_PARTIAL if partial else messages.IMPORT_MODE_ALL_OR_NOTHING
    requests = _SimRequests(sims, known, mode, progress)
    with how_far(lambda: f"the definitions are in, and perhaps some of the SIMs; {AGAIN}"):
        response = stub.ImportSims(cast(Iterator[messages.ImportSimsRequest], requests), timeout=IMPORT_TIMEOUT_S)
    return ImportResult(
        response.received_count,
        response.imported_count,
        response.same_count,
        response.refused_count,
        refused=[
            Refused(int(sims.line[item]), "iccid", status_pb2.Status.Name(status).removeprefix("STATUS_"))
            for item, status in zip(response.refused_item, response.refused_status, strict=True)
        ],
    )


@dataclass(frozen=True, slots=True)
class _SimRequests:
    """The messages of an import, all of them each time that it is gone through: a call that comes before its turn is
    made again."""

    sims: SimColumns
    known: Known
    mode: messages.ImportMode.ValueType
    progress: Progress | None

    def __iter__(self) -> Iterator[messages.ImportSimsRequest]:
        sims = self.sims
        for part in _parts(sims.count, sims.lot, sims.bank):
            lots, lot = _names(sims.lot[part], self.known.lots)
            banks, bank = _names(sims.bank[part], self.known.banks)
            yield messages.ImportSimsRequest(
                mode=self.mode,
                lots=lots,
                banks=banks,
                iccid=sims.iccid[part].tolist(),
                imsi=sims.imsi[part].tolist(),
                lot=lot,
                bank=bank,
                slot=sims.slot[part].tolist(),
                opening_cycle_bytes=sims.opening_cycle_bytes[part].tolist(),
                opening_day_bytes=sims.opening_day_bytes[part].tolist(),
                opening_rolling_bytes=sims.opening_rolling_bytes[part].tolist(),
                as_of_s=sims.as_of_s[part].tolist(),
                health=sims.health[part].tolist(),
            )
            if self.progress:
                self.progress(part.stop)


def _parts(count: int, *places: npt.NDArray[np.uint16]) -> Iterator[slice]:
    """Slices of at most ``CHUNK_ITEMS`` items with at most ``NAMES_MAX`` names in each column of places."""
    start = 0
    while start < count:
        size = min(CHUNK_ITEMS, count - start)
        while any(len(np.unique(column[start : start + size])) > NAMES_MAX for column in places):
            size //= 2
        yield slice(start, start + size)
        start += size


def _names(places: npt.NDArray[np.uint16], names: Any) -> tuple[list[str], list[int]]:
    """The names that occur, and for each item which of them; nothing when there is only one."""
    distinct, index = np.unique(places, return_inverse=True)
    return [names[place] for place in distinct.tolist()], index.tolist() if len(distinct) > 1 else []


def adopt_terminals(
    stub: InventoryServiceStub,
    sims: SimColumns,
    known: Known,
    result: ImportResult,
    progress: Progress | None = None,
) -> None:
    """Tells the service which terminal holds which SIM already; what became of it is added to ``result``."""
    done = 0
    words = "the definitions and SIMs are in, and {:,} of {:,} live assignments; {}"
    with how_far(lambda: words.format(done, sims.assignments_count, AGAIN)):
        for server in np.unique(sims.access_server).tolist():
            chosen = np.flatnonzero(sims.access_server == server)
            for part in _parts(len(chosen), sims.market[chosen]):
                items = chosen[part]
                markets, market = _names(sims.market[items], known.markets)
                response = stub.AdoptTerminals(
                    messages.AdoptTerminalsRequest(
                        access_server=known.access_servers[server],
                        markets=markets,
                        terminal=sims.terminal[items].tolist(),
                        iccid=sims.assigned_iccid[items].tolist(),
                        subscriber=sims.subscriber[items].tolist(),
                        market=market,
                    ),
                    timeout=CALL_TIMEOUT_S,
                )
                for line, status in zip(sims.assigned_line[items].tolist(), response.status, strict=True):
                    if status == status_pb2.STATUS_OK:
                        result.adopted_count += 1
                    elif status == status_pb2.STATUS_SAME:
                        result.adopted_same_count += 1
                    else:
                        name = status_pb2.Status.Name(status).removeprefix("STATUS_")
                        result.refused.append(Refused(line, "terminal", name))
                done += len(items)
                if progress:
                    progress(done)

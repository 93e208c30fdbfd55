"""Every RPC on a real socket, and what each refuses: a clear status, and nothing has changed."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from simswitch.access.certificates import CertificateRefused, TlsFiles
from simswitch.client import Client, OperatorClient, Result, ServiceError, SessionThread
from simswitch.client.operator import iccid_column, service_errors
from simswitch.core import layout
from simswitch.core.commands import ORDERS, OUTCOME_COLUMNS, OutcomeRun, decode_iccid
from simswitch.core.machine import Machine
from simswitch.metrics import MetricsSettings
from simswitch.plain_text import escaped
from simswitch.service.access import AccessSettings
from simswitch.service.call import Call
from simswitch.service.definitions import KINDS
from simswitch.service.imports import LOOKED_UP_AT_ONCE
from simswitch.service.server import serve
from simswitch.service.settings import AddressNotAllowed, NoWayIn, ServerSettings, SettingRefused, check_address
from simswitch.v1 import (
    access_server_pb2,
    allocation_pb2,
    allocation_pb2_grpc,
    event_pb2,
    inventory_pb2,
    pool_pb2,
    sim_pb2,
    status_pb2,
    subscriber_pb2,
    swap_pb2,
    usage_pb2_grpc,
)

from tests.service.serving import SIMS, Serving, define_pool

inv = inventory_pb2
OK, SAME, MOVED = status_pb2.STATUS_OK, status_pb2.STATUS_SAME, status_pb2.STATUS_MOVED


@pytest.fixture
def client(serving: Serving, pool: OperatorClient) -> Any:
    assert pool
    with Client(serving.address, access_server="as-01") as client:
        yield client


def refusal(call: Callable[[], object]) -> ServiceError:
    with pytest.raises(ServiceError) as caught, service_errors():
        call()
    return caught.value


# ------------------------------------------------------------------------------------------------- allocation


def test_allocate_one_and_again(client: Client, pool: OperatorClient) -> None:
    lease = client.allocate(7, "jp", subscriber=70)
    again = client.allocate(7, "jp")
    assert (again.epoch, again.iccid) == (lease.epoch, lease.iccid)
    assert (lease.terminal, len(lease.iccid)) == (7, 19)
    sim = pool.inventory.GetSim(inv.GetSimRequest(iccid=lease.iccid)).sim
    assert (sim.terminal, sim.occupancy, sim.lot, sim.bank) == (7, sim_pb2.OCCUPANCY_ASSIGNED, "lot", "bank")


def test_columns_through_a_lease_s_life(client: Client) -> None:
    terminals = np.arange(1, 51)
    grants = client.allocate_many(terminals, "jp")
    assert set(grants.status.tolist()) == {OK}
    assert len(set(grants.iccid.tolist())) == 50
    assert set(client.allocate_many(terminals, "jp").status.tolist()) == {SAME}
    assert set(client.renew(terminals, grants.epoch).status.tolist()) == {OK}
    assert set(client.report_usage(terminals, grants.epoch, 1_000, 2_000).tolist()) == {OK}
    assert set(client.report_usage(terminals, grants.epoch, 1_000, 2_000).tolist()) == {status_pb2.STATUS_LATE}
    failed = client.report_attach_failure(terminals[:1], grants.epoch[:1])
    assert failed.status.tolist() == [MOVED]
    assert failed.iccid[0] != grants.iccid[0]
    statuses = client.release(terminals, grants.epoch).tolist()
    assert statuses == [status_pb2.STATUS_STALE_EPOCH] + [OK] * 49
    assert client.release(terminals[1:2], grants.epoch[1:2]).tolist() == [status_pb2.STATUS_NO_LEASE]


def test_many_markets(client: Client, pool: OperatorClient) -> None:
    market = inv.Market(name="us", sim_classes=["class"], expected_bytes=1 << 20)
    pool.inventory.DefineMarket(inv.DefineMarketRequest(market=market))
    grants = client.allocate_many([1, 2, 3], ["us", "nowhere", "jp"], market_index=[0, 1, 2])
    assert grants.status.tolist() == [OK, status_pb2.STATUS_UNKNOWN_MARKET, OK]
    assert grants.epoch[1] == 0
    assert grants.iccid[1] == 0


def test_no_healthy_sim_says_when_to_try_again(client: Client) -> None:
    grants = client.allocate_many(np.arange(SIMS + 1), "jp")
    assert np.count_nonzero(grants.granted) == SIMS
    assert grants.status[~grants.granted].tolist() == [status_pb2.STATUS_NO_HEALTHY_SIM]
    assert grants.retry_after_ms[~grants.granted][0] > 0
    error = refusal(lambda: client.allocate(10**9, "jp"))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_HEALTHY_SIM")
    assert error.retry_after_ms > 0


def test_stream_keeps_order_and_outlives_a_refused_batch(serving: Serving, pool: OperatorClient) -> None:
    assert pool
    batches = [
        allocation_pb2.AllocateSimsRequest(access_server="as-01", markets=["jp"], terminal=range(n * 10, n * 10 + 10))
        for n in range(10)
    ]
    batches[4].access_server = "nobody"
    batches[6].subscriber.append(1)
    with grpc.insecure_channel(serving.address) as channel:
        stub = allocation_pb2_grpc.AllocationServiceStub(channel)
        requests = [
            allocation_pb2.AllocateStreamRequest(request_number=number, batch=batch)
            for number, batch in enumerate(batches)
        ]
        replies = list(stub.AllocateStream(iter(requests)))
    assert [reply.request_number for reply in replies] == list(range(10))
    assert replies[4].refusal.reason == "UNKNOWN_ACCESS_SERVER"
    assert replies[6].refusal.reason == "COLUMNS_DIFFER"
    for reply in (*replies[:4], replies[5], *replies[7:]):
        assert list(reply.batch.status) == [OK] * 10


# ------------------------------------------------------------------------------------------- refused as a whole


def raw(serving: Serving, path: str, data: bytes, **options: Any) -> bytes:
    with grpc.insecure_channel(serving.address) as channel, service_errors():
        return bytes(channel.unary_unary(path, None, None)(data, timeout=10, **options))


def batch(**fields: Any) -> bytes:
    values = {"access_server": "as-01", "markets": ["jp"], "terminal": [1], **fields}
    return allocation_pb2.AllocateSimsRequest(**values).SerializeToString()


ALLOCATE_SIMS = "/simswitch.v1.AllocationService/AllocateSims"


@pytest.mark.parametrize(
    ("path", "data", "code", "reason"),
    [
        (ALLOCATE_SIMS, b"\xff", "INVALID_ARGUMENT", "MALFORMED"),
        (ALLOCATE_SIMS, batch()[:-1], "INVALID_ARGUMENT", "MALFORMED"),
        (ALLOCATE_SIMS, batch(subscriber=[1, 2]), "INVALID_ARGUMENT", "COLUMNS_DIFFER"),
        (ALLOCATE_SIMS, batch(market=[1]), "INVALID_ARGUMENT", "COLUMNS_DIFFER"),
        (ALLOCATE_SIMS, batch(terminal=range(65_537)), "RESOURCE_EXHAUSTED", "TOO_MANY_ITEMS"),
        (ALLOCATE_SIMS, batch(access_server="nobody"), "NOT_FOUND", "UNKNOWN_ACCESS_SERVER"),
        (ALLOCATE_SIMS, bytes(9 << 20), "RESOURCE_EXHAUSTED", ""),
        ("/simswitch.v1.AllocationService/Allocate", b"\x0a\x05a", "INVALID_ARGUMENT", "MALFORMED"),
        ("/simswitch.v1.AllocationService/Nothing", b"", "UNIMPLEMENTED", ""),
        ("/simswitch.v1.SwapService/GetJob", b"", "NOT_FOUND", "UNKNOWN_JOB"),
        ("/simswitch.v1.SwapService/PauseJob", b"", "NOT_FOUND", "UNKNOWN_JOB"),
        ("/simswitch.v1.SwapService/AddJobTerminals", b"", "NOT_FOUND", "UNKNOWN_JOB"),
        ("/simswitch.v1.SwapService/CreateJob", b"", "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("/simswitch.v1.PoolService/Configure", b"", "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("/simswitch.v1.PoolService/SetMask", b"", "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("/simswitch.v1.PoolService/GetAccessServerStatus", b"", "NOT_FOUND", "UNKNOWN_ACCESS_SERVER"),
        ("/simswitch.v1.InventoryService/GetLot", b"", "NOT_FOUND", "UNKNOWN_LOT"),
        ("/simswitch.v1.InventoryService/GetSim", b"", "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("/simswitch.v1.InventoryService/DefineBank", b"", "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("/simswitch.v1.InventoryService/DefineBank", b"\n\5\n\3a\x1bb", "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("/simswitch.v1.InventoryService/SetSimHealth", b"", "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    ],
)
def test_refused_calls_change_nothing(
    serving: Serving, pool: OperatorClient, path: str, data: bytes, code: str, reason: str
) -> None:
    pool.pool.GetSummary(pool_pb2.GetSummaryRequest())
    before = serving.state_hash()
    error = refusal(lambda: raw(serving, path, data))
    assert (error.code.name, error.reason) == (code, reason)
    assert error.text
    assert serving.state_hash() == before


EVIL = "all is\x1b[2J well"


def _texts(message: Any) -> list[tuple[Any, str]]:
    """Requests of a kind, each with one text that is set, and that text's field."""
    found = []
    for field in message.DESCRIPTOR.fields:
        if field.message_type is None and field.cpp_type == field.CPPTYPE_STRING:
            value = [EVIL] if field.is_repeated else EVIL
            found.append((type(message)(**{field.name: value}), field.name))
        elif field.message_type is not None and not field.is_repeated:
            for inner, name in _texts(getattr(message, field.name)):
                found.append((type(message)(**{field.name: inner}), name))
    return found


def test_no_text_that_a_screen_would_obey_is_taken(serving: Serving, pool: OperatorClient) -> None:
    """It would be whoever approves a job that reads its reason."""
    inventory, before = pool.inventory, serving.state_hash()
    requests = [
        (getattr(inventory, f"Define{kind.message.DESCRIPTOR.name}"), *text)
        for kind in KINDS.values()
        for text in _texts(getattr(inv, f"Define{kind.message.DESCRIPTOR.name}Request")())
    ]
    assert len(requests) >= 30
    exempted = subscriber_pb2.ExemptSubscriberRequest(subscriber=1, until_ms=1 << 40, reason=EVIL)
    requests += [
        (pool.swaps.CreateJob, swap_pb2.CreateJobRequest(reason=EVIL), "reason"),
        (pool.subscribers.ExemptSubscriber, exempted, "reason"),
        (inventory.TellCarrierLife, inv.TellCarrierLifeRequest(life=inv.CARRIER_LIFE_ACTIVE, reason=EVIL), "reason"),
    ]
    for call, request, field in requests:
        error = refusal(partial(call, request))
        assert (error.reason, f"{field} is text that a screen shows" in error.text) == ("INVALID_ARGUMENT", True), error
        assert r"its character 7 is '\x1b'" in error.text
    unseen = ("\u3164", "a\u115f\u1160\uffa0", "\u2800")
    for text in ("\u202eabc", "a\nb", "a\r\nb", "a\x9bb", "a\0", "\ufeffa", "a\u2028b", "a\U000e0041", *unseen):
        assert escaped(text) != text
        assert (
            refusal(partial(pool.swaps.CreateJob, swap_pb2.CreateJobRequest(reason=text))).reason == "INVALID_ARGUMENT"
        )
    assert serving.state_hash() == before
    # Letters and spaces of all languages are, and the words of a contract have lines.
    supplier = inv.Supplier(name="運用者\u3000卸", legal_name="例\u3000株式会社", contact="+81\u00a03")
    inventory.DefineSupplier(inv.DefineSupplierRequest(supplier=supplier))
    lot = inventory.GetLot(inv.GetLotRequest(name="lot")).lot
    lot.terms = "30 days\nto the end of a month"
    assert inventory.DefineLot(inv.DefineLotRequest(lot=lot)).lot.terms == lot.terms
    # So are letters of private use, those that no interpreter knows yet, and what joins letters.
    names = ("\ue000商店", "\U000323af屋", "\U0002ffff屋", "👩\u200d💻", "葛\U000e0100城")
    for name in names:
        inventory.DefineSupplier(inv.DefineSupplierRequest(supplier=inv.Supplier(name=name)))
        assert escaped(name) == name
    windows = inv.Lot()
    windows.CopyFrom(lot)
    windows.terms = lot.terms.replace("\n", "\r\n")
    again = inventory.DefineLot(inv.DefineLotRequest(lot=windows))
    assert again.lot == lot
    assert int(again.status) == layout.SAME


def test_unknown_names_of_a_single_allocation(client: Client, serving: Serving) -> None:
    client.allocate(1, "jp")
    before = serving.state_hash()
    # A name that is long is not said back in full, with which the answer would be more than a client takes.
    for market in ("nowhere", "é" * 100_000):
        assert refusal(partial(client.allocate, 1, market)).reason == "UNKNOWN_MARKET"
    assert serving.state_hash() == before


def test_unknown_terminals_and_stale_epochs_per_item(client: Client, serving: Serving) -> None:
    lease = client.allocate(1, "jp")
    terminals, epochs = [1, 99], [lease.epoch + 1, 1]
    expected = [status_pb2.STATUS_STALE_EPOCH, status_pb2.STATUS_UNKNOWN_TERMINAL]
    sims = serving.cell.call_read(lambda machine: machine.header()["occupancy"])
    assert client.renew(terminals, epochs).status.tolist() == expected
    assert client.release(terminals, epochs).tolist() == expected
    assert client.report_usage(terminals, epochs, 1, 1).tolist() == expected
    assert client.report_attach_failure(terminals, epochs).status.tolist() == expected
    assert serving.cell.call_read(lambda machine: machine.header()["occupancy"]) == sims
    assert client.renew([1], [lease.epoch]).status.tolist() == [OK]


def test_empty_batches_are_answered_without_a_record(client: Client, serving: Serving) -> None:
    client.allocate(1, "jp")
    sequence = serving.cell.call_read(lambda machine: machine.sequence)
    assert len(client.allocate_many([], "jp")) == 0
    assert serving.cell.call_read(lambda machine: machine.sequence) == sequence


def test_a_call_past_its_deadline_costs_nothing(serving: Serving, pool: OperatorClient) -> None:
    assert pool
    raw(serving, ALLOCATE_SIMS, batch())
    sequence = serving.cell.call_read(lambda machine: machine.sequence)
    entered, leave = threading.Event(), threading.Event()

    def hold_up(_machine: object) -> None:
        entered.set()
        leave.wait(20)

    holding = threading.Thread(target=serving.cell.call_read, args=(hold_up,))
    holding.start()
    entered.wait(20)
    with grpc.insecure_channel(serving.address) as channel, service_errors():
        method = channel.unary_unary(ALLOCATE_SIMS, None, None)
        error = refusal(lambda: method(batch(terminal=[2]), timeout=0.3))
    leave.set()
    holding.join()
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert serving.cell.call_read(lambda machine: machine.sequence) == sequence


def test_past_the_queue_a_call_is_refused_at_once(serving: Serving, pool: OperatorClient) -> None:
    # The actor is known already: nothing has to be journaled for it.
    pool.pool.GetSettings(pool_pb2.GetSettingsRequest())
    # A server of its own with a queue of no bytes: every command is one too many.
    serving.drain()
    serving.limit(queue_bytes_max=1)
    serving.begin()
    with OperatorClient(serving.address) as operator:
        mask = pool_pb2.SetMaskRequest(lot="lot", masked=True)
        error = refusal(lambda: operator.pool.SetMask(mask))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert error.retry_after_ms > 0


# ------------------------------------------------------------------------------------------------------ actors


@pytest.mark.parametrize(
    ("actor", "code", "reason"),
    [
        ("nobody", "UNAUTHENTICATED", "INVALID_ACTOR"),
        ("system:me", "UNAUTHENTICATED", "INVALID_ACTOR"),
        ("operator:", "UNAUTHENTICATED", "INVALID_ACTOR"),
        ("access-server:as-99", "NOT_FOUND", "UNKNOWN_ACCESS_SERVER"),
        ("access-server:as-02", "PERMISSION_DENIED", "NOT_PERMITTED"),
        ("auditor:ann", "PERMISSION_DENIED", "NOT_PERMITTED"),
        ("supplier:wholesale", "PERMISSION_DENIED", "NOT_PERMITTED"),
    ],
)
def test_who_may_not_allocate(serving: Serving, pool: OperatorClient, actor: str, code: str, reason: str) -> None:
    assert pool
    error = refusal(lambda: raw(serving, ALLOCATE_SIMS, batch(), metadata=(("simswitch-actor", actor),)))
    assert (error.code.name, error.reason) == (code, reason)
    assert serving.cell.call_read(lambda machine: machine.header()["terminals_count"]) == 0


def test_roles(serving: Serving, pool: OperatorClient) -> None:
    with OperatorClient(serving.address, actor="access-server:as-01") as server:
        request = inv.SetSimHealthRequest(iccid=[2 * 10**15], health=sim_pb2.HEALTH_QUARANTINED)
        assert refusal(lambda: server.inventory.SetSimHealth(request)).reason == "NOT_PERMITTED"
        assert refusal(lambda: server.inventory.ListSims(inv.ListSimsRequest())).reason == "NOT_PERMITTED"
        assert len(server.inventory.ListBanks(inv.ListBanksRequest()).banks) == 1
    with OperatorClient(serving.address, actor="supplier:wholesale") as supplier:
        assert [lot.name for lot in supplier.inventory.ListLots(inv.ListLotsRequest()).lots] == ["lot"]
        assert refusal(lambda: supplier.pool.GetSummary(pool_pb2.GetSummaryRequest())).reason == "NOT_PERMITTED"
    with OperatorClient(serving.address, actor="technology-provider:tess") as provider:
        assert provider.swaps.StopAllSwaps(swap_pb2.StopAllSwapsRequest()).status == OK
        assert refusal(lambda: provider.swaps.LiftStop(swap_pb2.LiftStopRequest())).reason == "NOT_PERMITTED"
    assert pool.pool.GetSummary(pool_pb2.GetSummaryRequest()).swaps_stopped


# --------------------------------------------------------------------------------------------------- inventory


def test_definitions_round_trip_and_survive_a_restart(serving: Serving, pool: OperatorClient) -> None:
    lot = inv.Lot(
        name="lot-2",
        supplier="wholesale",
        plan="plan",
        sim_class="class",
        carrier="carrier",
        sims_count=500,
        cost_minor=1_250_000,
        currency="JPY",
        purchase_date="2020-02-21",
        valid_until="2021-02-20",
        payment=inv.PAYMENT_PREPAID,
        terms="as agreed",
        check_digit_exempt=True,
    )
    defined = pool.inventory.DefineLot(inv.DefineLotRequest(lot=lot))
    assert defined.status == OK
    assert pool.inventory.DefineLot(inv.DefineLotRequest(lot=lot)).status == SAME
    serving.drain()
    serving.begin()
    with OperatorClient(serving.address) as again:
        assert again.inventory.GetLot(inv.GetLotRequest(name="lot-2")).lot == defined.lot
        lots = again.inventory.ListLots(inv.ListLotsRequest(page_size=1))
        assert [lot.name for lot in lots.lots] == ["lot"]
        token = lots.next_page_token
        lots = again.inventory.ListLots(inv.ListLotsRequest(page_size=1, page_token=token))
        assert ([lot.name for lot in lots.lots], lots.next_page_token) == (["lot-2"], "")
        wrong = inv.ListBanksRequest(page_token=token)
        assert refusal(lambda: again.inventory.ListBanks(wrong)).reason == "INVALID_PAGE_TOKEN"
        with Client(serving.address, access_server="as-01") as client:
            assert client.allocate(1, "jp").epoch


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        ("DefineLot", inv.DefineLotRequest(lot=inv.Lot(name="l", supplier="x", plan="plan", sim_class="class"))),
        (
            "DefineLot",
            inv.DefineLotRequest(
                lot=inv.Lot(name="l", supplier="wholesale", plan="plan", sim_class="class", purchase_date="2020-13-01")
            ),
        ),
        ("DefineMarket", inv.DefineMarketRequest(market=inv.Market(name="m"))),
        ("DefineMarket", inv.DefineMarketRequest(market=inv.Market(name="m", sim_classes=["class", "class"]))),
        ("DefinePlan", inv.DefinePlanRequest(plan=inv.Plan(name="p", windows=[inv.CapWindow(quota_bytes=1)]))),
        (
            "DefinePlan",
            inv.DefinePlanRequest(
                plan=inv.Plan(name="p", windows=[inv.CapWindow(kind=inv.CAP_WINDOW_KIND_ROLLING, quota_bytes=1)])
            ),
        ),
        ("DefineSupplier", inv.DefineSupplierRequest(supplier=inv.Supplier(name="n" * 65))),
        ("DefineSupplier", inv.DefineSupplierRequest(supplier=inv.Supplier(name="n", contact="c" * 900))),
        ("ListLots", inv.ListLotsRequest(page_size=1_001)),
        ("ListSims", inv.ListSimsRequest(page_token="?")),
    ],
)
def test_bad_definitions_change_nothing(
    serving: Serving, pool: OperatorClient, method: str, request_message: Any
) -> None:
    pool.pool.GetSettings(pool_pb2.GetSettingsRequest())
    before = serving.state_hash()
    error = refusal(lambda: getattr(pool.inventory, method)(request_message))
    assert error.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert serving.state_hash() == before


def test_orders_for_a_session_that_has_gone_are_not_kept(serving: Serving, pool: OperatorClient) -> None:
    """They come while the next one of their access server opens, which keeps its own until it stands."""
    pool.pool.GetSettings(pool_pb2.GetSettingsRequest())
    assert serving.running is not None
    service = serving.running.service
    sessions, (actor,) = service.sessions, service.access._claimed.values()
    row_bytes = sum(np.dtype(code).itemsize for _, code in OUTCOME_COLUMNS[ORDERS])
    orders = OutcomeRun(ORDERS, 1, memoryview(bytes(row_bytes)))

    async def begin() -> list[int]:
        server = service.directory.get(layout.ACCESS_SERVER, "as-01")
        beginning = asyncio.create_task(sessions._begin(server, 5_000, Call(actor, None)))
        # It has asked for its session and has not been answered: the answer takes a turn of this loop.
        await asyncio.sleep(0)
        sessions.deliver(orders)
        kept = len(sessions._early)
        await beginning
        return [kept, len(sessions._early)]

    assert asyncio.run_coroutine_threadsafe(begin(), serving._loop).result(20) == [1, 0]


def sims(first: int, count: int, **fields: Any) -> inv.ImportSimsRequest:
    numbers = range(first, first + count)
    values: dict[str, Any] = {
        "lots": ["lot"],
        "banks": ["bank"],
        "iccid": [2 * (10**15 + number) for number in numbers],
        "imsi": [440_100_000_000_000 + number for number in numbers],
        "slot": numbers,
        **fields,
    }
    return inv.ImportSimsRequest(**values)


@pytest.mark.parametrize(
    ("pieces", "items", "status"),
    [
        ([sims(1000, 5), sims(1004, 5)], [5], "ICCID_DIFFERS"),
        ([sims(1000, 2, lots=["nowhere"])], [0, 1], "UNKNOWN_LOT"),
        ([sims(1000, 2, banks=["bank", "x"], bank=[0, 1])], [1], "UNKNOWN_BANK"),
        ([sims(1000, 2, imsi=[1, 1])], [1], "DUPLICATE_IMSI"),
        ([sims(1000, 2, imsi=[440_100_000_000_000, 5])], [0], "DUPLICATE_IMSI"),
        ([sims(1000, 2, imsi=[10**15, 5])], [0], "INVALID_ARGUMENT"),
        ([sims(1000, 2, opening_cycle_bytes=[layout.OPENING_MAX, layout.OPENING_MAX + 1])], [1], "INVALID_ARGUMENT"),
        ([sims(1, 2, slot=[1, 9])], [1], "ICCID_DIFFERS"),
        ([sims(1000, 1_900)], list(range(1_800, 1_900)), "SIMS_FULL"),
    ],
)
def test_an_import_is_refused_as_a_whole(
    serving: Serving, pool: OperatorClient, pieces: list[inv.ImportSimsRequest], items: list[int], status: str
) -> None:
    pool.pool.GetSettings(pool_pb2.GetSettingsRequest())
    before = serving.state_hash()
    result = pool.inventory.ImportSims(iter(pieces))
    assert serving.state_hash() == before
    assert (result.imported_count, result.refused_count) == (0, len(items))
    assert list(result.refused_item) == items
    assert {status_pb2.Status.Name(value) for value in result.refused_status} == {f"STATUS_{status}"}


def test_an_import_is_refused_whose_sims_had_used_more_than_a_pool_takes(pool: OperatorClient) -> None:
    define_pool(pool, 1)
    count = layout.POOL_MAX // layout.OPENING_MAX + 1
    opening = [layout.OPENING_MAX] * count
    result = pool.inventory.ImportSims(iter([sims(1000, count, lots=["shared"], opening_day_bytes=opening)]))
    assert (result.imported_count, result.refused_count) == (0, count)
    assert set(result.refused_status) == {status_pb2.STATUS_INVALID_ARGUMENT}


class _Watched:
    """A machine for one read: the SIMs that it was asked for."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.asked: set[int] = set()

    def find_sim(self, iccid: int) -> int | None:
        self.asked.add(iccid)
        return self._machine.find_sim(iccid)

    def sims_columns(self) -> None:
        raise AssertionError("all SIMs of the pool are copied")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)


def test_an_import_asks_the_pool_for_what_it_names_a_few_at_a_time(
    serving: Serving, pool: OperatorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one SIM would hold up the cell as long as the pool is large."""
    read = serving.cell.read
    asked: list[int] = []

    def watched(function: Callable[[Any], Any], deadline: float | None = None) -> Any:
        def look(machine: Machine) -> Any:
            seen = _Watched(machine)
            found = function(seen)
            asked.append(len(seen.asked))
            return found

        return read(look, deadline)

    monkeypatch.setattr(serving.cell, "read", watched)
    count = LOOKED_UP_AT_ONCE + 500
    # The last one has the IMSI of a SIM that is there.
    imsis = [*range(1, count), 440_100_000_000_000]
    wrong = sims(SIMS, count, imsi=imsis)
    assert list(pool.inventory.ImportSims(iter([wrong])).refused_item) == [count - 1]
    asked.clear()
    result = pool.inventory.ImportSims(iter([sims(0, 1_000), sims(1_000, count - 1_000)]))
    assert (result.same_count, result.imported_count, result.refused_count) == (SIMS, count - SIMS, 0)
    assert [number for number in asked if number] == [LOOKED_UP_AT_ONCE, 500]


def test_a_partial_import_takes_the_good_ones(pool: OperatorClient) -> None:
    pieces = [
        sims(0, 3, mode=inv.IMPORT_MODE_PARTIAL),
        sims(1000, 3, imsi=[1, 1, 2], opening_cycle_bytes=[99 << 30, 0, 7], health=[1, 8, 8]),
    ]
    result = pool.inventory.ImportSims(iter(pieces))
    assert (result.received_count, result.same_count, result.imported_count, result.refused_count) == (6, 3, 2, 1)
    assert list(result.refused_item) == [4]
    listed = pool.inventory.ListSims(inv.ListSimsRequest(health=sim_pb2.HEALTH_QUARANTINED))
    assert [sim.iccid for sim in listed.sims] == [decode_iccid(2 * (10**15 + 1002))]
    assert listed.sims[0].used_cycle_bytes == 7


def test_adopt_and_health_and_retire(pool: OperatorClient) -> None:
    iccids = [2 * 10**15, 2 * (10**15 + 1), 5]
    adopted = pool.inventory.AdoptTerminals(
        inv.AdoptTerminalsRequest(access_server="as-01", markets=["jp"], terminal=[1, 2, 3], iccid=iccids)
    )
    assert list(adopted.status) == [OK, OK, status_pb2.STATUS_UNKNOWN_SIM]
    health = inv.SetSimHealthRequest(iccid=iccids, health=sim_pb2.HEALTH_SUSPENDED)
    assert list(pool.inventory.SetSimHealth(health).status) == [OK, OK, status_pb2.STATUS_UNKNOWN_SIM]
    spare = iccid_column([decode_iccid(2 * (10**15 + 9))])
    assert list(pool.inventory.RetireSims(inv.RetireSimsRequest(iccid=spare)).status) == [OK]
    back = inv.SetSimHealthRequest(iccid=spare, health=sim_pb2.HEALTH_HEALTHY)
    assert list(pool.inventory.SetSimHealth(back).status) == [status_pb2.STATUS_WRONG_STATE]
    assert (
        refusal(lambda: pool.inventory.GetSim(inv.GetSimRequest(iccid="8900000000000000000"))).reason == "UNKNOWN_SIM"
    )


def test_sims_are_listed_page_by_page(pool: OperatorClient) -> None:
    found: list[str] = []
    request = inv.ListSimsRequest(page_size=7, lot="lot", bank="bank")
    while True:
        page = pool.inventory.ListSims(request)
        found += [sim.iccid for sim in page.sims]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == [decode_iccid(2 * (10**15 + number)) for number in range(SIMS)]


# --------------------------------------------------------------------------------------------- pool and swaps


def test_the_summary_tells_what_leases_are_expected_to_need(client: Client, pool: OperatorClient) -> None:
    """Learned once the next leases begin; a figure that the market has of its own holds."""
    terminals = np.arange(40)
    for used_bytes in (140 << 20, 0):
        epochs = client.allocate_many(terminals, "jp").epoch
        client.report_usage(terminals, epochs, 0, used_bytes)
        client.release(terminals, epochs)
    pool.inventory.DefineMarket(
        inv.DefineMarketRequest(market=inv.Market(name="us", sim_classes=["class"], expected_bytes=1 << 30))
    )
    uses = pool.pool.GetSummary(pool_pb2.GetSummaryRequest()).expected_uses
    assert [(use.market, use.expected_bytes, use.leases_count) for use in uses] == [
        ("jp", 160 << 20, 40),
        ("us", 1 << 30, 0),
    ]
    assert uses[0].learned_bytes == 160 << 20
    assert not uses[1].HasField("learned_bytes")


def test_summary_counts(client: Client, pool: OperatorClient) -> None:
    client.allocate_many(np.arange(10), "jp")
    pool.pool.SetMask(pool_pb2.SetMaskRequest(lot="lot", masked=True))
    summary = pool.pool.GetSummary(pool_pb2.GetSummaryRequest())
    assert {count.occupancy: count.count for count in summary.occupancies} == {
        sim_pb2.OCCUPANCY_FREE: SIMS - 10,
        sim_pb2.OCCUPANCY_ASSIGNED: 10,
    }
    assert [(count.name, count.sims_count, count.masked_count) for count in summary.markets] == [("jp", SIMS, SIMS)]
    assert refusal(lambda: client.allocate(99, "jp")).reason == "NO_HEALTHY_SIM"
    pool.pool.SetMask(pool_pb2.SetMaskRequest(lot="lot"))
    assert client.allocate(99, "jp")


def test_settings(pool: OperatorClient) -> None:
    values = {value.setting: value.value for value in pool.pool.GetSettings(pool_pb2.GetSettingsRequest()).settings}
    assert set(values) == set(pool_pb2.Setting.values()) - {0}
    lease = pool_pb2.SettingValue(setting=pool_pb2.SETTING_LEASE_MS, value=123_000)
    bad = pool_pb2.SettingValue(setting=pool_pb2.SETTING_ATTEMPTS_MAX, value=-1)
    assert refusal(lambda: pool.pool.Configure(pool_pb2.ConfigureRequest(settings=[lease, bad]))).reason
    assert dict_of(pool)[pool_pb2.SETTING_LEASE_MS] == values[pool_pb2.SETTING_LEASE_MS]
    pool.pool.Configure(pool_pb2.ConfigureRequest(settings=[lease]))
    assert dict_of(pool) == {**values, pool_pb2.SETTING_LEASE_MS: 123_000}


def dict_of(pool: OperatorClient) -> dict[int, int]:
    return {value.setting: value.value for value in pool.pool.GetSettings(pool_pb2.GetSettingsRequest()).settings}


def test_jobs(client: Client, pool: OperatorClient) -> None:
    client.allocate_many(np.arange(1, 4), "jp")
    created = pool.swaps.CreateJob(swap_pb2.CreateJobRequest(reason="why", terminal=[1, 2, 999], terminals_follow=True))
    assert list(created.status)[:2] == [OK, OK]
    assert created.status[2] != OK
    number = created.job.number
    assert created.job.actor == "operator:local"
    add = swap_pb2.AddJobTerminalsRequest(job=number, terminal=[3], last=True)
    assert list(pool.swaps.AddJobTerminals(add).status) == [OK]
    assert pool.swaps.PauseJob(swap_pb2.PauseJobRequest(job=number)).job.state == swap_pb2.JOB_STATE_PAUSED
    assert pool.swaps.ResumeJob(swap_pb2.ResumeJobRequest(job=number)).job.state == swap_pb2.JOB_STATE_RUNNING
    assert pool.swaps.GetJob(swap_pb2.GetJobRequest(job=number)).job.queued_count == 3
    pool.swaps.CancelJob(swap_pb2.CancelJobRequest(job=number))
    states = [reply.job.state for reply in pool.swaps.WatchJob(swap_pb2.WatchJobRequest(job=number, interval_ms=100))]
    assert states[-1] in (swap_pb2.JOB_STATE_CANCELLED, swap_pb2.JOB_STATE_DONE)
    assert pool.swaps.StopAllSwaps(swap_pb2.StopAllSwapsRequest()).status == OK
    listed = pool.swaps.ListJobs(swap_pb2.ListJobsRequest())
    assert ([job.number for job in listed.jobs], listed.stopped) == ([number], True)
    assert pool.swaps.LiftStop(swap_pb2.LiftStopRequest()).status == OK
    bad = swap_pb2.WatchJobRequest(job=number, interval_ms=1)
    assert refusal(lambda: list(pool.swaps.WatchJob(bad))).reason == "INVALID_ARGUMENT"


def test_a_job_says_what_it_would_do_and_is_refused_when_it_cant(
    serving: Serving, client: Client, pool: OperatorClient
) -> None:
    client.allocate_many(np.arange(1, 121), "jp")
    asked = swap_pb2.CreateJobRequest(
        reason="half the pool", lot="lot", supplier="wholesale", sim_class="class", bank="bank", dry_run=True
    )
    dry = pool.swaps.CreateJob(asked).job
    assert (dry.state, dry.why) == (swap_pb2.JOB_STATE_CHECKED, swap_pb2.JOB_WHY_UNSPECIFIED)
    (without,) = dry.feasibility.without
    assert (without.why, without.count) == (swap_pb2.WITHOUT_ACCESS_SERVER, 120), "no access server has a session"
    assert len(without.terminals) == 64
    with OperatorClient(serving.address, actor="technology-provider:somebody") as provider:
        jobs = provider.swaps.ListJobs(swap_pb2.ListJobsRequest()).jobs
        jobs.append(provider.swaps.GetJob(swap_pb2.GetJobRequest(job=dry.number)).job)
        assert [job.feasibility.without[0].count for job in jobs if job.number == dry.number] == [120, 120]
        assert not any(without.terminals for job in jobs for without in job.feasibility.without), "nobody by his number"
    refused = refusal(lambda: pool.swaps.CreateJob(swap_pb2.CreateJobRequest(reason="x", carrier="nobody's")))
    assert refused.reason == "UNKNOWN_ENTITY"
    assert "carrier called" in str(refused), "a class may be called that"
    hours = swap_pb2.QuietHours(from_ms=2, until_ms=1)
    for request in (
        swap_pb2.CreateJobRequest(reason="x", quiet_hours=hours),
        swap_pb2.CreateJobRequest(reason="x", error_budget_ppm=2_000_000),
        swap_pb2.CreateJobRequest(reason="x", announce_ahead_ms=10**12),
        swap_pb2.CreateJobRequest(reason="x", rate_per_minute=10**9),
    ):
        assert refusal(partial(pool.swaps.CreateJob, request)).reason == "INVALID_ARGUMENT"


def test_a_large_job_needs_a_second_person(client: Client, pool: OperatorClient, serving: Serving) -> None:
    client.allocate_many(np.arange(1, 11), "jp")
    few = pool_pb2.SettingValue(setting=pool_pb2.SETTING_APPROVAL_ABOVE, value=5)
    pool.pool.Configure(pool_pb2.ConfigureRequest(settings=[few]))
    job = pool.swaps.CreateJob(swap_pb2.CreateJobRequest(reason="large", terminal=range(1, 11))).job
    assert job.state == swap_pb2.JOB_STATE_AWAITING_APPROVAL
    approve = swap_pb2.ApproveJobRequest(job=job.number)
    assert refusal(lambda: pool.swaps.ApproveJob(approve)).reason == "SECOND_PERSON"
    with OperatorClient(serving.address, actor="operator:second") as second:
        approved = second.swaps.ApproveJob(approve).job
    assert (approved.state, approved.approver) == (swap_pb2.JOB_STATE_RUNNING, "operator:second")
    assert refusal(lambda: pool.swaps.ApproveJob(approve)).reason == "WRONG_STATE"


def test_who_orders_does_not_lift_the_number_that_needs_a_second_person(pool: OperatorClient, serving: Serving) -> None:
    def configure(value: int, *others: pool_pb2.SettingValue, client: OperatorClient = pool) -> Callable[[], object]:
        bound = pool_pb2.SettingValue(setting=pool_pb2.SETTING_APPROVAL_ABOVE, value=value)
        return partial(client.pool.Configure, pool_pb2.ConfigureRequest(settings=[*others, bound]))

    def stands() -> int:
        settings = pool.pool.GetSettings(pool_pb2.GetSettingsRequest()).settings
        return next(each.value for each in settings if each.setting == pool_pb2.SETTING_APPROVAL_ABOVE)

    lease = pool_pb2.SettingValue(setting=pool_pb2.SETTING_LEASE_MS, value=5_000)
    configure(10)()
    configure(10)()
    with OperatorClient(serving.address, actor="operator:second") as second:
        for who in (pool, second):
            assert refusal(configure(11, lease, client=who)).reason == "NOT_PERMITTED"
    assert stands() == 10
    assert lease not in pool.pool.GetSettings(pool_pb2.GetSettingsRequest()).settings
    # What is put back because the rest of its request was refused is no raise of his.
    never = pool_pb2.SettingValue(setting=pool_pb2.SETTING_ATTEMPTS_MAX, value=1 << 40)
    assert refusal(configure(5, never)).reason == "INVALID_ARGUMENT"
    assert stands() == 10


def test_an_access_server_is_declared_dead_and_is_not(client: Client, pool: OperatorClient) -> None:
    client.allocate(1, "jp")
    request = pool_pb2.DeclareDeadRequest(access_server="as-01")
    declared = pool.pool.DeclareDead(request).status
    assert declared.gate == pool_pb2.GATE_DEAD
    assert declared.dead_ms > 0
    assert pool.pool.DeclareDead(request).status.dead_ms == declared.dead_ms
    undo = pool_pb2.DeclareDeadRequest(access_server="as-01", undo=True)
    assert pool.pool.DeclareDead(undo).status.gate == pool_pb2.GATE_DISCONNECTED
    assert refusal(lambda: pool.pool.DeclareDead(undo)).reason == "WRONG_STATE"
    unknown = pool_pb2.DeclareDeadRequest(access_server="as-99")
    assert refusal(lambda: pool.pool.DeclareDead(unknown)).reason == "UNKNOWN_ACCESS_SERVER"


def test_an_access_server_is_paused_and_resumed(pool: OperatorClient) -> None:
    request = pool_pb2.PauseAccessServerRequest(access_server="as-01")
    for _ in range(2):
        paused = pool.pool.PauseAccessServer(request).status
        assert (paused.paused, paused.gate) == (True, pool_pb2.GATE_DISCONNECTED)
    resumed = pool.pool.ResumeAccessServer(pool_pb2.ResumeAccessServerRequest(access_server="as-01")).status
    assert not resumed.paused
    happened = pool.events.WatchEvents(event_pb2.WatchEventsRequest(after=0, once=True))
    told = [event for response in happened for event in response.events if event.kind == event_pb2.EVENT_KIND_PAUSE]
    assert [(event.access_server, event.paused) for event in told] == [("as-01", True), ("as-01", False)]
    unknown = pool_pb2.PauseAccessServerRequest(access_server="as-99")
    assert refusal(lambda: pool.pool.PauseAccessServer(unknown)).reason == "UNKNOWN_ACCESS_SERVER"


def test_past_its_pace_terminals_are_told_when_to_come_and_groups_go_before_each_other(
    serving: Serving, client: Client, pool: OperatorClient
) -> None:
    for name, priority in (("first", 1), ("last", 3)):
        group = inventory_pb2.SubscriberGroup(name=name, priority=priority)
        pool.inventory.DefineSubscriberGroup(inventory_pb2.DefineSubscriberGroupRequest(subscriber_group=group))
    listed = pool.inventory.ListSubscriberGroups(inventory_pb2.ListSubscriberGroupsRequest()).subscriber_groups
    assert [(group.name, group.priority) for group in listed] == [("first", 1), ("last", 3)]
    wrong = inventory_pb2.SubscriberGroup(name="wrong", priority=4)
    request = inventory_pb2.DefineSubscriberGroupRequest(subscriber_group=wrong)
    assert refusal(lambda: pool.inventory.DefineSubscriberGroup(request)).reason == "INVALID_ARGUMENT"
    with SessionThread(serving.address, "as-01", lambda _: Result.DONE) as session:
        session.serving(20)
        session.report_load(queue_wait_us=0, service_us=500_000, waiting=0, allocation_wait_us=0)
        deadline = time.monotonic() + 20
        while not serving.cell.call_read(lambda machine: machine.server(0)["service_us"]):
            assert time.monotonic() < deadline
        terminals = np.arange(1, 31)
        last = client.allocate_many(terminals, "jp", subscriber_group="last")
        first = client.allocate_many(terminals + 100, "jp", subscriber_group="first")
        waits = last.status == layout.ADMISSION_WAIT
        assert 4 <= np.count_nonzero(last.status == layout.OK) <= 7
        assert (first.status == layout.ADMISSION_WAIT).all()
        # Their places are a quarter further apart than if they had the access server for themselves.
        assert first.retry_after_ms.max() < last.retry_after_ms.max() * 1.6
        assert (last.retry_after_ms[waits] > 0).all()
        error = refusal(lambda: client.allocate(1_000, "jp", subscriber_group="first"))
        assert (error.reason, error.code.name) == ("ADMISSION_WAIT", "RESOURCE_EXHAUSTED")
        assert error.retry_after_ms > 1_000
        assert refusal(lambda: client.allocate(1, "jp", subscriber_group="none")).reason == "UNKNOWN_ENTITY"
    status = pool.pool.GetAccessServerStatus(pool_pb2.GetAccessServerStatusRequest(name="as-01")).status
    assert status.waits_count == np.count_nonzero(waits) + len(terminals) + 1
    assert status.booked_until_ms > 0


def test_access_server_status(pool: OperatorClient) -> None:
    request = pool_pb2.GetAccessServerStatusRequest(name="as-01")
    status = pool.pool.GetAccessServerStatus(request).status
    assert (status.name, status.gate, status.session) == ("as-01", pool_pb2.GATE_DISCONNECTED, 0)
    page = pool.pool.ListAccessServerStatuses(pool_pb2.ListAccessServerStatusesRequest(page_size=1))
    assert [status.name for status in page.statuses] == ["as-01"]
    page = pool.pool.ListAccessServerStatuses(
        pool_pb2.ListAccessServerStatusesRequest(page_size=1, page_token=page.next_page_token)
    )
    assert ([status.name for status in page.statuses], page.next_page_token) == (["as-02"], "")


# ---------------------------------------------------------------------------------------------- the shell itself


def test_every_method_of_the_contract_is_reflected(serving: Serving) -> None:
    services = {
        service.full_name
        for module in (allocation_pb2, access_server_pb2, inventory_pb2, pool_pb2, swap_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    with grpc.insecure_channel(serving.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        replies = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        listed = {service.name for service in next(iter(replies)).list_services_response.service}
    assert services < listed
    assert "simswitch.v1.UsageService" in listed
    assert usage_pb2_grpc


def test_health_and_drain(serving: Serving) -> None:
    with grpc.insecure_channel(serving.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "simswitch.v1.AllocationService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        # Who watches waits for the next word already; one asked for when the connection is gone may be lost with it.
        with ThreadPoolExecutor(1) as waiting:
            word = waiting.submit(next, watch)
            serving.drain()
            assert word.result(30).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_only_loopback() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        check_address(host)
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(AddressNotAllowed, match="TLS"):
            check_address(host)


def test_what_is_refused_at_the_start_leaves_no_folder_behind(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    taken = socket.create_server(("127.0.0.1", 0))
    here = ("127.0.0.1", taken.getsockname()[1])
    cases: list[tuple[ServerSettings, type[Exception], str]] = [
        (ServerSettings(host="0.0.0.0"), AddressNotAllowed, "TLS"),
        (ServerSettings(access=AccessSettings(tls=TlsFiles(*[nothing] * 3))), CertificateRefused, "can't be read"),
        (ServerSettings(access=AccessSettings(required=True)), NoWayIn, "set certificate, key and client_ca"),
        (ServerSettings(access=AccessSettings(revoked=nothing)), CertificateRefused, "list of revoked certificates"),
        (ServerSettings(engine={layout.ORDER_DEADLINE_MS: 1}), SettingRefused, "order_deadline_ms"),
        (ServerSettings(port=here[1]), OSError, f"at 127.0.0.1:{here[1]} for its calls: Address already in use"),
        (ServerSettings(metrics=MetricsSettings(here)), OSError, "nobody can listen at 127"),
        (ServerSettings(host="192.0.2.1", plaintext_beyond_loopback=True), OSError, ":0 for its calls: Cannot"),
    ]
    with taken:
        for settings, error, says in cases:
            with pytest.raises(error, match=says):
                asyncio.run(serve(tmp_path / "data", settings))
    assert not any(tmp_path.iterdir())


def test_every_refusal_of_the_core_has_a_reason() -> None:
    from simswitch.service.errors import STATUS_REASONS

    refusals = {status for status in layout.Status if status >= layout.NOT_PERMITTED}
    assert set(STATUS_REASONS) == refusals


def test_every_command_has_its_roles() -> None:
    from simswitch.core.roles import COMMAND_ROLES, READ_ROLES, Read

    assert set(COMMAND_ROLES) == set(layout.Command)
    assert set(READ_ROLES) == set(Read)

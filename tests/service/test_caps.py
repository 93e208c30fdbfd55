"""CapsService over a real socket: what is set holds, is told, and can be read by those who may."""

from __future__ import annotations

from simswitch.cli.events import details
from simswitch.cli.messages import plain
from simswitch.client import OperatorClient
from simswitch.core import layout
from simswitch.v1 import caps_pb2 as pb
from simswitch.v1 import event_pb2, inventory_pb2, sim_pb2, status_pb2

from tests.service.serving import Serving
from tests.service.test_calls import refusal

CYCLE, DAY = inventory_pb2.CAP_WINDOW_KIND_CYCLE, inventory_pb2.CAP_WINDOW_KIND_DAY
ROLLING = inventory_pb2.CAP_WINDOW_KIND_ROLLING
LEARNED, BELIEVED = inventory_pb2.CERTAINTY_LEARNED, inventory_pb2.CERTAINTY_BELIEVED
GIB = 1 << 30


def change(
    lot: str = "lot", window: inventory_pb2.CapWindowKind.ValueType = CYCLE, quota: int | None = 40 * GIB
) -> pb.CapChange:
    return pb.CapChange(lot=lot, window=window, quota_bytes=quota, certainty=LEARNED)


def test_a_cap_is_set_shown_and_told(pool: OperatorClient) -> None:
    sim = pool.inventory.ListSims(inventory_pb2.ListSimsRequest(page_size=1)).sims[0]
    before = pool.caps.ListLotCaps(pb.ListLotCapsRequest()).lots[0].windows[0]
    changes = [change(), change(), change("nowhere"), change(window=ROLLING)]
    statuses = pool.caps.SetCaps(pb.SetCapsRequest(changes=changes)).statuses
    wanted = [layout.OK, layout.SAME, layout.UNKNOWN_LOT, layout.INVALID_ARGUMENT]
    assert list(statuses) == [int(status) for status in wanted]
    (lot,) = pool.caps.ListLotCaps(pb.ListLotCapsRequest(lot="lot")).lots
    (window,) = lot.windows
    assert (lot.lot, lot.plan, lot.supplier, lot.rolling_days) == ("lot", "plan", "wholesale", 0)
    assert (window.window, window.quota_bytes, window.certainty) == (CYCLE, 40 * GIB, LEARNED)
    assert (window.planned_bytes, window.planned_certainty) == (100 * GIB, BELIEVED)
    assert (window.before_bytes, window.before_certainty) == (100 * GIB, BELIEVED)
    assert (window.before_since_ms, before.quota_bytes) == (before.since_ms, 100 * GIB)
    assert window.since_ms > before.since_ms > 0
    now = pool.inventory.GetSim(inventory_pb2.GetSimRequest(iccid=sim.iccid)).sim
    assert sim.headroom_bytes - now.headroom_bytes == 60 * GIB
    request = event_pb2.WatchEventsRequest(after=0, kinds=[event_pb2.EVENT_KIND_CAP], once=True)
    told = [event for response in pool.events.WatchEvents(request) for event in response.events][-1]
    assert (told.lot_or_plan, told.window, told.quota_bytes, told.certainty) == ("lot", CYCLE, 40 * GIB, LEARNED)
    assert details(plain(told)).startswith("lot, cycle: 42.9 GB")
    less = inventory_pb2.CapWindow(kind=CYCLE, quota_bytes=30 * GIB)
    plan = inventory_pb2.Plan(name="plan", carrier="carrier", windows=[less])
    pool.inventory.DefinePlan(inventory_pb2.DefinePlanRequest(plan=plan))
    told = [event for response in pool.events.WatchEvents(request) for event in response.events][-1]
    assert (told.lot_or_plan, told.of_plan) == ("plan", True)
    assert details(plain(told)).startswith("the lots of plan plan, cycle: 32.2 GB")


def test_what_the_plan_says_comes_back_after_a_restart_too(serving: Serving, pool: OperatorClient) -> None:
    pool.caps.SetCaps(pb.SetCapsRequest(changes=[change(), change(window=DAY, quota=GIB)]))
    serving.drain()
    serving.begin()
    with OperatorClient(serving.address) as again:
        (lot,) = again.caps.ListLotCaps(pb.ListLotCapsRequest()).lots
        assert [window.quota_bytes for window in lot.windows] == [40 * GIB, GIB]
        back = pb.SetCapsRequest(changes=[change(quota=None), change(window=DAY, quota=None)])
        assert list(again.caps.SetCaps(back).statuses) == [status_pb2.STATUS_OK] * 2
        cycle, day = again.caps.ListLotCaps(pb.ListLotCapsRequest()).lots[0].windows
        assert (cycle.quota_bytes, cycle.certainty) == (100 * GIB, BELIEVED)
        assert (day.HasField("quota_bytes"), day.certainty, day.before_bytes) == (False, 0, GIB)


def test_a_supplier_sees_its_own_lots_and_nobody_but_an_operator_sets_caps(
    serving: Serving, pool: OperatorClient
) -> None:
    other = inventory_pb2.Supplier(name="other")
    pool.inventory.DefineSupplier(inventory_pb2.DefineSupplierRequest(supplier=other))
    theirs = inventory_pb2.Lot(name="theirs", supplier="other", plan="plan", sim_class="class")
    pool.inventory.DefineLot(inventory_pb2.DefineLotRequest(lot=theirs))
    with OperatorClient(serving.address, actor="supplier:other") as supplier:
        assert [lot.lot for lot in supplier.caps.ListLotCaps(pb.ListLotCapsRequest()).lots] == ["theirs"]
        assert not supplier.caps.ListLotCaps(pb.ListLotCapsRequest(lot="lot")).lots
        assert refusal(lambda: supplier.caps.SetCaps(pb.SetCapsRequest(changes=[change()]))).reason == "NOT_PERMITTED"
    with OperatorClient(serving.address, actor="technology-provider:x") as provider:
        assert refusal(lambda: provider.caps.ListLotCaps(pb.ListLotCapsRequest())).reason == "NOT_PERMITTED"
    pages = pb.ListLotCapsRequest(page_size=1)
    first = pool.caps.ListLotCaps(pages)
    second = pool.caps.ListLotCaps(pb.ListLotCapsRequest(page_size=1, page_token=first.next_page_token))
    assert [page.lots[0].lot for page in (first, second)] == ["lot", "theirs"]
    assert not second.next_page_token


def test_a_cap_that_cannot_be_is_refused(pool: OperatorClient) -> None:
    unsaid = pb.CapChange(lot="lot", window=CYCLE, quota_bytes=GIB)
    for wrong in (unsaid, change(quota=1 << 62)):
        assert refusal(lambda: pool.caps.SetCaps(pb.SetCapsRequest(changes=[wrong]))).reason == "INVALID_ARGUMENT"  # noqa: B023
    many = pb.SetCapsRequest(changes=[change()] * 4_097)
    assert refusal(lambda: pool.caps.SetCaps(many)).reason == "TOO_MANY_ITEMS"


def test_the_evidence_for_a_sim_s_health_is_told(pool: OperatorClient) -> None:
    sim = pool.inventory.ListSims(inventory_pb2.ListSimsRequest(page_size=1)).sims[0]
    number = int(sim.iccid[2:]) * 2
    request = inventory_pb2.SetSimHealthRequest(
        iccid=[number],
        health=sim_pb2.HEALTH_THROTTLED,
        goodput_kbps=[384],
        windows_count=[5],
        confidence_permille=[997],
    )
    assert list(pool.inventory.SetSimHealth(request).status) == [status_pb2.STATUS_OK]
    watch = event_pb2.WatchEventsRequest(after=0, kinds=[event_pb2.EVENT_KIND_HEALTH], once=True)
    (told,) = [event for response in pool.events.WatchEvents(watch) for event in response.events]
    assert (told.iccid, told.health) == (sim.iccid, sim_pb2.HEALTH_THROTTLED)
    assert (told.goodput_kbps, told.windows_count, told.confidence_permille) == (384, 5, 997)
    request.confidence_permille[0] = 1_001
    assert refusal(lambda: pool.inventory.SetSimHealth(request)).reason == "INVALID_ARGUMENT"
    request.confidence_permille[:] = [1, 1]
    assert refusal(lambda: pool.inventory.SetSimHealth(request)).reason == "INVALID_ARGUMENT"


def test_what_was_observed_does_not_overrule_a_quarantine(pool: OperatorClient) -> None:
    sim = pool.inventory.ListSims(inventory_pb2.ListSimsRequest(page_size=1)).sims[0]
    number = int(sim.iccid[2:]) * 2

    def say(health: sim_pb2.Health.ValueType, windows: int) -> int:
        request = inventory_pb2.SetSimHealthRequest(
            iccid=[number], health=health, goodput_kbps=[0], windows_count=[windows], confidence_permille=[0]
        )
        return pool.inventory.SetSimHealth(request).status[0]

    assert say(sim_pb2.HEALTH_QUARANTINED, 0) == status_pb2.STATUS_OK
    assert say(sim_pb2.HEALTH_HEALTHY, 2) == status_pb2.STATUS_WRONG_STATE
    assert say(sim_pb2.HEALTH_HEALTHY, 0) == status_pb2.STATUS_OK


def test_a_cap_that_a_carrier_has_changed_is_told_and_nothing_is_set(serving: Serving, pool: OperatorClient) -> None:
    before = pool.caps.ListLotCaps(pb.ListLotCapsRequest())
    seen = [
        pb.CapShiftSeen(
            lot=lot,
            window=window,
            shift=pb.CAP_SHIFT_RAISED,
            amount=4 * GIB,
            before=3 * GIB,
            first_evidence_ms=86_400_500,
        )
        for lot, window in (("lot", DAY), ("nowhere", DAY), ("lot", inventory_pb2.CAP_WINDOW_KIND_UNSPECIFIED))
    ]
    statuses = pool.caps.TellCapShifts(pb.TellCapShiftsRequest(shifts=seen)).statuses
    wanted = [layout.OK, layout.UNKNOWN_LOT, layout.INVALID_ARGUMENT]
    assert list(statuses) == [int(status) for status in wanted]
    assert pool.caps.ListLotCaps(pb.ListLotCapsRequest()) == before
    watch = event_pb2.WatchEventsRequest(after=0, kinds=[event_pb2.EVENT_KIND_CAP_CHANGED], once=True)
    (told,) = [event for response in pool.events.WatchEvents(watch) for event in response.events]
    assert (told.lot_or_plan, told.window, told.shift, told.amount) == ("lot", DAY, pb.CAP_SHIFT_RAISED, 4 * GIB)
    assert (told.before, told.first_evidence_ms, told.terminal) == (3 * GIB, 86_400_000, 0)
    with OperatorClient(serving.address, actor="auditor:eve") as auditor:
        request = pb.TellCapShiftsRequest(shifts=seen[:1])
        assert refusal(lambda: auditor.caps.TellCapShifts(request)).reason == "NOT_PERMITTED"

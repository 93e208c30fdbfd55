"""Events over gRPC: in order, without a gap, for many who watch, and none of them for ever."""

from __future__ import annotations

import asyncio
import threading
import time

import grpc
import numpy as np
import pytest
from simswitch.client import Client, Holdings, OperatorClient, Result, ServiceError, SessionThread
from simswitch.client.operator import iccid_column, service_errors
from simswitch.service import events as hub
from simswitch.v1 import access_server_pb2, inventory_pb2, pool_pb2, sim_pb2, subscriber_pb2, swap_pb2
from simswitch.v1 import event_pb2 as pb

from tests.service.serving import Serving

TERMINALS = 12


@pytest.fixture
def moved(serving: Serving, pool: OperatorClient) -> int:
    """A job that is over; its number."""
    holdings = Holdings()
    with Client(serving.address, access_server="as-01", holdings=holdings) as client:
        client.allocate_many(np.arange(1, TERMINALS + 1), "jp", subscribers=np.arange(101, 101 + TERMINALS))
    with SessionThread(serving.address, "as-01", lambda _: Result.DONE, holdings=holdings) as session:
        session.serving(20)
        slowed = inventory_pb2.SetSimHealthRequest(
            iccid=iccid_column(lease.iccid for lease in holdings), health=sim_pb2.HEALTH_THROTTLED
        )
        pool.inventory.SetSimHealth(slowed)
        asked = swap_pb2.CreateJobRequest(reason="slowed", healths=[sim_pb2.HEALTH_THROTTLED])
        number = pool.swaps.CreateJob(asked).job.number
        for _ in pool.swaps.WatchJob(swap_pb2.WatchJobRequest(job=number, interval_ms=100), timeout=40):
            pass
    return int(number)


def told(pool: OperatorClient, **request: object) -> list[pb.Event]:
    found = []
    for response in pool.events.WatchEvents(pb.WatchEventsRequest(once=True, **request), timeout=20):  # type: ignore[arg-type]
        found += list(response.events)
    return found


def test_each_swap_is_announced_ordered_and_confirmed_in_that_order(pool: OperatorClient, moved: int) -> None:
    found = told(pool, after=0)
    assert [event.number for event in found] == list(range(1, len(found) + 1))
    beside = (pb.EVENT_KIND_DIFFERENCE, pb.EVENT_KIND_HEALTH)
    for terminal in range(1, TERMINALS + 1):
        mine = [event for event in found if event.terminal == terminal and event.kind not in beside]
        kinds = [event.kind for event in mine]
        assert kinds == [pb.EVENT_KIND_ANNOUNCED, pb.EVENT_KIND_ORDERED, pb.EVENT_KIND_CONFIRMED]
        announced = mine[0]
        assert (announced.job, announced.subscriber, announced.access_server) == (moved, 100 + terminal, "as-01")
        assert announced.priority == swap_pb2.PRIORITY_THROTTLED
        assert announced.expected_outage_ms > 0
    states = [event.job_state for event in found if event.kind == pb.EVENT_KIND_JOB]
    assert states[-1] == swap_pb2.JOB_STATE_DONE


def test_what_happened_before_a_restart_is_still_told(serving: Serving, pool: OperatorClient, moved: int) -> None:
    before = told(pool, after=0)
    assert moved == 0
    assert len(before) > 3 * TERMINALS
    serving.drain()
    serving.begin()
    with OperatorClient(serving.address) as other:
        request = pb.WatchEventsRequest(after=0, once=True)
        responses = list(other.events.WatchEvents(request, timeout=20))
    again = [event for response in responses for event in response.events]
    assert sum(response.missed_count for response in responses) == 0
    assert [event.number for event in again] == list(range(1, len(again) + 1))
    assert again[: len(before)] == before


def test_a_filter_and_a_number_to_go_on_from(pool: OperatorClient, moved: int) -> None:
    assert moved == 0
    mine = told(pool, after=0, subscriber=103)
    assert {event.terminal for event in mine} == {3}
    only = told(pool, after=0, kinds=[pb.EVENT_KIND_CONFIRMED])
    assert len(only) == TERMINALS
    assert told(pool, after=only[-1].number, kinds=[pb.EVENT_KIND_CONFIRMED]) == []


def test_who_runs_the_engine_hears_of_swaps_and_not_of_people_and_sims(
    serving: Serving, pool: OperatorClient, moved: int
) -> None:
    assert moved == 0
    in_a_year_ms = (int(time.time()) + 365 * 86_400) * 1000
    exempted = subscriber_pb2.ExemptSubscriberRequest(subscriber=4711, until_ms=in_a_year_ms, reason="ill")
    pool.subscribers.ExemptSubscriber(exempted)
    iccid = pool.inventory.ListSims(inventory_pb2.ListSimsRequest(page_size=1)).sims[0].iccid
    broken = inventory_pb2.SetSimHealthRequest(iccid=iccid_column([iccid]), health=sim_pb2.HEALTH_QUARANTINED)
    pool.inventory.SetSimHealth(broken)
    everything = told(pool, after=0)
    hidden = {pb.EVENT_KIND_EXEMPT, pb.EVENT_KIND_HEALTH, pb.EVENT_KIND_CAP, pb.EVENT_KIND_ENDLESS}
    assert hidden < {event.kind for event in everything}
    with OperatorClient(serving.address, actor="technology-provider:somebody") as provider:
        shown = told(provider, after=0)
        assert [event.number for event in shown] == [event.number for event in everything if event.kind not in hidden]
        assert any(event.terminal for event in everything if event.kind not in hidden)
        assert not any(event.terminal or event.subscriber or event.iccid for event in shown)
        for request in ({"subscriber": 4711}, {"kinds": [pb.EVENT_KIND_HEALTH]}):
            with pytest.raises(ServiceError, match="NOT_PERMITTED"), service_errors():
                told(provider, after=0, **request)


def test_who_watches_hears_what_happens_later(serving: Serving, pool: OperatorClient) -> None:
    heard: list[pb.Event] = []
    first = threading.Event()

    def watch() -> None:
        with OperatorClient(serving.address) as other:
            for response in other.events.WatchEvents(pb.WatchEventsRequest(), timeout=20):
                first.set()
                heard.extend(response.events)
                if heard:
                    return

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert first.wait(20)
    pool.swaps.CreateJob(swap_pb2.CreateJobRequest(reason="nobody", terminals_follow=True))
    watcher.join(20)
    assert [event.kind for event in heard] == [pb.EVENT_KIND_JOB]


def test_what_is_not_remembered_is_counted_and_a_slow_watcher_is_ended(
    serving: Serving, pool: OperatorClient, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert moved == 0
    assert serving.running is not None
    events = serving.running.service.events
    last = events._last
    serving.in_loop(lambda: [events._events.popleft() for _ in range(5)])
    responses = list(pool.events.WatchEvents(pb.WatchEventsRequest(after=0, once=True), timeout=20))
    assert responses[0].missed_count == 5
    assert responses[-1].last == last
    monkeypatch.setattr(hub, "WATCHERS_MAX", 0)
    with pytest.raises(grpc.RpcError, match="watch events already"):
        told(pool, after=0)


def test_a_watcher_that_the_ring_overtakes_is_ended(serving: Serving, pool: OperatorClient, moved: int) -> None:
    assert moved == 0
    assert pool
    assert serving.running is not None
    events = serving.running.service.events

    async def overtaken() -> None:
        watching = events._watch(pb.WatchEventsRequest(after=0), frozenset(pb.EventKind.values()))
        await anext(watching)
        events._events.clear()
        events._last += 5
        events._happened.set()
        await anext(watching)

    with pytest.raises(Exception, match="does not read"):
        asyncio.run_coroutine_threadsafe(overtaken(), serving._loop).result(10)


def test_a_breaker_that_opens_is_told_of_and_listed(serving: Serving, pool: OperatorClient) -> None:
    settings = [pool_pb2.SettingValue(setting=pool_pb2.SETTING_BREAKER_LEAST, value=4)]
    pool.pool.Configure(pool_pb2.ConfigureRequest(settings=settings))
    assert list(pool.pool.ListBreakers(pool_pb2.ListBreakersRequest()).breakers) == []
    holdings = Holdings()
    with Client(serving.address, access_server="as-01", holdings=holdings) as client:
        client.allocate_many(np.arange(1, TERMINALS + 1), "jp")
    with SessionThread(serving.address, "as-01", lambda _: Result.REFUSED, holdings=holdings) as session:
        session.serving(20)
        slowed = inventory_pb2.SetSimHealthRequest(
            iccid=iccid_column(lease.iccid for lease in holdings), health=sim_pb2.HEALTH_THROTTLED
        )
        pool.inventory.SetSimHealth(slowed)
        pool.swaps.CreateJob(swap_pb2.CreateJobRequest(reason="slowed", healths=[sim_pb2.HEALTH_THROTTLED]))
        watch = pb.WatchEventsRequest(after=0, kinds=[pb.EVENT_KIND_BREAKER])
        opened = next(response.events[0] for response in pool.events.WatchEvents(watch, timeout=20) if response.events)
    assert opened.breaker_state == pb.BREAKER_STATE_OPEN
    assert opened.retry_ms > 0
    listed = {breaker.name: breaker for breaker in pool.pool.ListBreakers(pool_pb2.ListBreakersRequest()).breakers}
    found = listed[opened.breaker_name]
    assert (found.state, found.retry_ms) == (pb.BREAKER_STATE_OPEN, opened.retry_ms)
    assert found.of == pool_pb2.BREAKER_OF_BANK


def test_each_event_of_a_definition_has_its_name(serving: Serving, pool: OperatorClient) -> None:
    """It is told when it is durable, which is before the directory has heard of it."""
    named: list[str] = []
    watching = threading.Event()

    def watch() -> None:
        request = pb.WatchEventsRequest(kinds=[pb.EVENT_KIND_CAP])
        with OperatorClient(serving.address) as other:
            for response in other.events.WatchEvents(request, timeout=20):
                watching.set()
                named.extend(event.lot_or_plan for event in response.events)
                if len(named) == 30:
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    assert watching.wait(10)
    window = inventory_pb2.CapWindow(kind=inventory_pb2.CAP_WINDOW_KIND_CYCLE, quota_bytes=100 << 30)
    for number in range(30):
        plan = inventory_pb2.Plan(name=f"plan-{number}", carrier="carrier", windows=[window])
        pool.inventory.DefinePlan(inventory_pb2.DefinePlanRequest(plan=plan))
        lot = inventory_pb2.Lot(name=f"lot-{number}", supplier="wholesale", plan=f"plan-{number}", sim_class="class")
        pool.inventory.DefineLot(inventory_pb2.DefineLotRequest(lot=lot))
    thread.join(20)
    assert named == [f"lot-{number}" for number in range(30)]


def test_the_work_list_says_what_was_refused_last(serving: Serving, pool: OperatorClient) -> None:
    settings = [pool_pb2.SettingValue(setting=pool_pb2.SETTING_ATTEMPTS_MAX, value=1)]
    pool.pool.Configure(pool_pb2.ConfigureRequest(settings=settings))
    holdings = Holdings()
    with Client(serving.address, access_server="as-01", holdings=holdings) as client:
        client.allocate_many([1], "jp")
    with SessionThread(serving.address, "as-01", lambda _: Result.REFUSED, holdings=holdings) as session:
        session.serving(20)
        job = pool.swaps.CreateJob(swap_pb2.CreateJobRequest(reason="slowed", healths=[sim_pb2.HEALTH_HEALTHY])).job
        for _ in pool.swaps.WatchJob(swap_pb2.WatchJobRequest(job=job.number, interval_ms=100), timeout=40):
            pass
        found = pool.swaps.ListGivenUp(swap_pb2.ListGivenUpRequest())
    (entry,) = found.entries
    assert (entry.terminal, entry.attempts_count, found.lost_count) == (1, 1, 0)
    with OperatorClient(serving.address, actor="technology-provider:somebody") as provider:
        (shown,) = provider.swaps.ListGivenUp(swap_pb2.ListGivenUpRequest()).entries
    assert (shown.terminal, shown.subscriber, shown.last_target, shown.attempts_count) == (0, 0, "", 1)
    assert entry.last_result == access_server_pb2.ACKNOWLEDGEMENT_RESULT_REFUSED
    iccids = iccid_column([entry.last_target, *(lease.iccid for lease in holdings)])
    assert iccids[0]
    assert iccids[0] != iccids[1]

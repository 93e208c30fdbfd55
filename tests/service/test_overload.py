"""More comes than can be served: what is refused, in which order, at what cost, and who is cut off."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from simswitch.client import Client, OperatorClient, ServiceError
from simswitch.client.held_back import HeldBack
from simswitch.core import layout
from simswitch.core.roles import CALL_RIGHTS
from simswitch.service.joined import SINGLE
from simswitch.service.overload import CROWD, PROBE, Kind, kind_of, shed_part
from simswitch.service.server import PENDING_MAX
from simswitch.v1 import access_server_pb2, allocation_pb2, inventory_pb2, pool_pb2

from tests.service.joining import HeldUp, allocating, single
from tests.service.serving import Serving

CALLS = {
    Kind.READ: "/simswitch.v1.InventoryService/ListSims",
    Kind.REPORT: "/simswitch.v1.UsageService/ReportUsage",
    Kind.RENEW: "/simswitch.v1.AllocationService/Renew",
    Kind.ALLOCATE: SINGLE,
}
ALLOCATE_STREAM = "/simswitch.v1.AllocationService/AllocateStream"
SESSION = "/simswitch.v1.AccessServerService/Session"
NO_MESSAGE = b"\xff\xff\xff"


def wait_of(serving: Serving, wait_s: float) -> None:
    """The service believes that calls wait so long."""
    assert serving.running is not None
    serving.running.service.overload.wait_s = lambda: wait_s  # type: ignore[method-assign]


def until(true: Callable[[], bool]) -> None:
    """Waits for what has to come; the test's own limit ends it otherwise."""
    while not true():
        time.sleep(0.005)


def refused(channel: grpc.Channel, path: str, data: bytes = NO_MESSAGE) -> tuple[str, int]:
    """Reason and advice; what is no message is told so by whoever reads it."""
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(path, None, None)(data, timeout=20)
    error: Any = caught.value
    reason, retry_after_ms = "", 0
    for detail in status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"]).details:
        information, advice = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(information):
            reason = information.reason
        elif detail.Unpack(advice):
            retry_after_ms = advice.retry_delay.ToMilliseconds()
    return reason, retry_after_ms


def test_a_kind_is_shed_whole_before_the_next_one_begins() -> None:
    for wait_ms in range(0, 5_000, 5):
        parts = [shed_part(kind, wait_ms / 1_000) for kind in Kind]
        for sooner, later in itertools.pairwise(parts):
            assert later == 0.0 or sooner == 1.0
        assert 0.0 <= parts[Kind.ALLOCATE] < 1.0


def test_what_an_operator_orders_and_sessions_are_of_no_kind() -> None:
    of = {call: kind_of(call) for call in CALL_RIGHTS}
    assert {call for call, kind in of.items() if kind is Kind.ALLOCATE} == {
        f"AllocationService/{name}" for name in ("Allocate", "AllocateSims", "AllocateStream")
    }
    assert of["AllocationService/Renew"] is Kind.RENEW
    assert of["UsageService/ReportUsage"] is Kind.REPORT
    assert of["PoolService/GetSummary"] is Kind.READ
    spared = (
        "SwapService/StopAllSwaps",
        "PoolService/DeclareDead",
        "AccessServerService/Session",
        "SwapService/PauseJob",
    )
    assert {of[call] for call in spared} == {None}


@pytest.mark.parametrize(
    ("wait_s", "shed"), [(0.09, 0), (0.15, 1), (0.2, 2), (0.25, 3)], ids=["none", "reads", "reports", "renewals"]
)
def test_the_less_urgent_is_refused_before_it_is_read(
    serving: Serving, pool: OperatorClient, wait_s: float, shed: int
) -> None:
    pool.pool.GetSettings(pool_pb2.GetSettingsRequest())
    wait_of(serving, wait_s)
    with grpc.insecure_channel(serving.address) as channel:
        for kind, path in CALLS.items():
            for _ in range(5):
                reason, retry_after_ms = refused(channel, path)
                assert reason == ("OVERLOADED" if kind < shed else "MALFORMED")
                assert (retry_after_ms > 0) == (kind < shed)
    # Those who have to act are heard at any time.
    pool.pool.SetMask(pool_pb2.SetMaskRequest(lot="lot", masked=True))


def test_of_allocations_the_part_that_is_too_much(serving: Serving, pool: OperatorClient) -> None:
    assert pool
    wait_of(serving, 0.6)
    with grpc.insecure_channel(serving.address) as channel:
        reasons = [refused(channel, SINGLE)[0] for _ in range(20)]
        assert sorted(reasons) == ["MALFORMED"] * 10 + ["OVERLOADED"] * 10
        # In a stream that stands the same.
        batch = allocation_pb2.AllocateSimsRequest(access_server="as-01", markets=["jp"], terminal=[1])
        requests = [allocation_pb2.AllocateStreamRequest(batch=batch).SerializeToString()] * 20
        wait_of(serving, 0.0)
        answers = channel.stream_stream(ALLOCATE_STREAM, None, None)(iter(requests[:1]))
        assert len(list(answers)) == 1
        wait_of(serving, 0.6)
        overload = serving.running.service.overload if serving.running else None
        assert overload is not None
        before = overload.shed_counts[Kind.ALLOCATE]
        got: list[bytes] = []
        while not got:
            try:
                got = list(channel.stream_stream(ALLOCATE_STREAM, None, None)(iter(requests)))
            except grpc.RpcError:
                # The stream itself was the one too many.
                continue
        said = [allocation_pb2.AllocateStreamResponse.FromString(data) for data in got]
        refusals = [one for one in said if one.refusal.reason == "OVERLOADED"]
        assert len(refusals) == 10
        assert overload.shed_counts[Kind.ALLOCATE] - before in (10, 11)


def test_a_crowd_that_waits_is_seen_and_no_allocation_is_lost(serving: Serving, held_up: HeldUp) -> None:
    """Nothing is pinned here: the engine stands still, and calls come."""
    assert serving.running is not None
    overload = serving.running.service.overload
    with grpc.insecure_channel(serving.address) as channel:
        calls = [allocating(channel).future(single(1 + n % 150), timeout=60) for n in range(2 * CROWD)]

        def comes_another() -> bool:
            calls.append(allocating(channel).future(single(1 + len(calls) % 150), timeout=60))
            return overload.wait_s() > 0.15

        until(comes_another)
        assert refused(channel, CALLS[Kind.READ])[0] == "OVERLOADED"
        held_up.let_go()
        granted = [call for call in calls if call.exception() is None]
        turned_away = [call for call in calls if call.exception() is not None]
        assert overload.shed_counts[Kind.ALLOCATE] == len(turned_away)
        assert len(granted) > len(calls) // 2
        until(lambda: overload.wait_s() < 0.1)
        assert refused(channel, CALLS[Kind.READ])[0] == "MALFORMED"


def test_a_few_slow_calls_are_no_overload(serving: Serving, held_up: HeldUp) -> None:
    assert serving.running is not None
    overload = serving.running.service.overload
    with grpc.insecure_channel(serving.address) as channel, ThreadPoolExecutor(1) as threads:
        calls = [allocating(channel).future(single(terminal), timeout=60) for terminal in range(1, CROWD // 2)]
        held_up.wait_for(1)

        def look() -> float:
            time.sleep(0.01)
            return overload.wait_s()

        assert {threads.submit(look).result() for _ in range(40)} == {0.0}
        held_up.let_go()
        assert [call.exception() for call in calls] == [None] * len(calls)


def test_of_calls_that_joined_only_those_in_time_are_carried_out(serving: Serving, held_up: HeldUp) -> None:
    with grpc.insecure_channel(serving.address) as channel:
        late = [allocating(channel).future(single(terminal), timeout=0.3) for terminal in range(1, 21)]
        patient = [allocating(channel).future(single(terminal), timeout=60) for terminal in range(21, 41)]
        assert {call.exception().code() for call in late} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        held_up.let_go()
        assert [call.exception() for call in patient] == [None] * 20
    # And the one that the fixture began with.
    assert serving.cell.call_read(lambda machine: machine.header()["terminals_count"]) == 21


@pytest.mark.parametrize("transport", ["grpcio"], indirect=True)
def test_what_the_event_loop_has_not_come_to_is_bounded(serving: Serving, pool: OperatorClient) -> None:
    """With the native transport hot calls do not wait there."""
    assert pool
    # What has waited long is not shed here: all that the loop comes to is served.
    wait_of(serving, 0.0)
    go_on = threading.Event()
    channels = [grpc.insecure_channel(serving.address, options=[("simswitch.number", number)]) for number in range(3)]
    try:
        for channel in channels:
            allocating(channel)(single(1), timeout=20)
        serving.hold_loop(go_on)
        calls = [
            allocating(channel).future(single(1 + number % 150)) for channel in channels for number in range(1_000)
        ]
        until(lambda: sum(call.done() for call in calls) > len(calls) - PENDING_MAX - 8)
        go_on.set()
        codes = Counter(call.code() for call in calls)
        turned_away = codes[grpc.StatusCode.UNAVAILABLE] + codes[grpc.StatusCode.CANCELLED]
        assert abs(len(calls) - PENDING_MAX - turned_away) <= 8
        assert codes.keys() <= {
            grpc.StatusCode.OK,
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        }
        assert codes[grpc.StatusCode.OK] > PENDING_MAX // 2
    finally:
        go_on.set()
        for channel in channels:
            channel.close()


def test_nobody_else_goes_the_way_of_our_own_calls(serving: Serving, pool: OperatorClient) -> None:
    assert pool
    with grpc.insecure_channel(serving.address) as channel:
        assert refused(channel, PROBE, b"x")[0] == "NOT_PERMITTED"


# ---------------------------------------------------------------------------------------- clients that are stuck


def test_a_stream_that_is_not_read_is_cut_off(serving: Serving, pool: OperatorClient) -> None:
    assert serving.running is not None
    service = serving.running.service
    pool.pool.GetSettings(pool_pb2.GetSettingsRequest())
    service.doors = replace(service.doors, unread_s=0.2)
    batch = allocation_pb2.AllocateSimsRequest(access_server="as-01", markets=["jp"], terminal=range(1, 20_001))
    request = allocation_pb2.AllocateStreamRequest(batch=batch).SerializeToString()
    actor = serving.in_loop(lambda: service.access.known(_nobody()))
    with grpc.insecure_channel(serving.address) as channel:
        replies: Any = channel.stream_stream(ALLOCATE_STREAM, None, None)(request for _ in range(30))
        until(lambda: len(actor.streams) == 1)
        until(lambda: not actor.streams)
        with pytest.raises(grpc.RpcError):
            list(replies)
        # Whoever reads is served as before.
        some: Any = channel.stream_stream(ALLOCATE_STREAM, None, None)(request for _ in range(3))
        assert len(list(some)) == 3


def test_an_access_server_that_does_not_read_loses_its_session(serving: Serving, pool: OperatorClient) -> None:
    assert pool
    assert serving.running is not None
    service = serving.running.service
    service.doors = replace(service.doors, unread_s=0.2)
    hello = access_server_pb2.SessionRequest(hello=access_server_pb2.Hello(access_server="as-01")).SerializeToString()
    usage = access_server_pb2.Usage(terminal=range(1, 5_001), epoch=[0] * 5_000, up_bytes=[0] * 5_000)
    usage.down_bytes.extend(usage.up_bytes)
    report = access_server_pb2.SessionRequest(usage=usage).SerializeToString()
    over = threading.Event()

    def says() -> Iterator[bytes]:
        yield hello
        while not over.is_set():
            yield report

    with grpc.insecure_channel(serving.address) as channel:
        replies: Any = channel.stream_stream(SESSION, None, None)(says())
        until(lambda: service.sessions.count == 1)
        until(lambda: service.sessions.count == 0)
        over.set()
        with pytest.raises(grpc.RpcError):
            list(replies)

        def waits() -> Iterator[bytes]:
            yield hello
            over.wait(20)

        again: Any = channel.stream_stream(SESSION, None, None)(waits())
        assert access_server_pb2.SessionResponse.FromString(next(again)).opened.session


def _nobody() -> Any:
    from simswitch.service.access import proof

    return proof((), None, "test")


# ------------------------------------------------------------------------------------------ clients that comply


def overloaded(retry_after_ms: int = 2_000) -> ServiceError:
    return ServiceError(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "too much", retry_after_ms)


def test_after_the_advice_one_call_asks_for_all() -> None:
    now_s = [100.0]
    held = HeldBack(lambda: now_s[0])
    assert not held.enter("renew")
    held.leave("renew", False, overloaded())
    assert not held.enter("allocate")
    now_s[0] += 0.5
    with pytest.raises(ServiceError) as caught:
        held.enter("renew")
    assert (caught.value.reason, caught.value.retry_after_ms) == ("OVERLOADED", 1_500)
    # An answer to a call that was sent before the refusal says nothing of now.
    held.leave("renew", False)
    with pytest.raises(ServiceError):
        held.enter("renew")
    now_s[0] += 1.5
    assert held.enter("renew")
    with pytest.raises(ServiceError):
        held.enter("renew")
    held.leave("renew", True, overloaded(100))
    now_s[0] += 0.1
    assert held.enter("renew")
    held.leave("renew", True)
    assert not held.enter("renew")


def test_a_client_that_was_refused_sends_nothing_more(serving: Serving, pool: OperatorClient) -> None:
    assert pool
    assert serving.running is not None
    overload = serving.running.service.overload
    with Client(serving.address, access_server="as-01") as client:
        epoch = client.allocate(1, "jp").epoch
        wait_of(serving, 0.25)
        before = overload.shed_counts[Kind.RENEW]
        for _ in range(5):
            with pytest.raises(ServiceError) as caught:
                client.renew([1], [epoch])
            assert caught.value.reason == "OVERLOADED"
            assert 0 < caught.value.retry_after_ms <= 3_000
        assert overload.shed_counts[Kind.RENEW] - before == 1
        assert client.allocate(1, "jp").epoch == epoch
        wait_of(serving, 0.0)
        client.held_back = HeldBack()
        assert client.renew([1], [epoch]).status.tolist() == [layout.OK]


def test_a_page_of_sims_is_refused_and_then_given(serving: Serving, pool: OperatorClient) -> None:
    request = inventory_pb2.ListSimsRequest(page_size=10)
    wait_of(serving, 1.0)
    with pytest.raises(grpc.RpcError) as caught:
        pool.inventory.ListSims(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    wait_of(serving, 0.0)
    assert len(pool.inventory.ListSims(request).sims) == 10

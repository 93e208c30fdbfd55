"""When the next order is sent: by what waits at the access server, where it tells; else by time."""

from __future__ import annotations

import numpy as np
import pytest
from simswitch.core import layout

from tests.core.test_hostile import Pool

SERVICE_US = 10_000
AT_ONCE = 6
"""Orders of 10 ms of which the last begins within the budget of 50 ms."""
TERMINALS = 60


class Paced(Pool):
    """An access server that tells its load, with a job for all of its terminals."""

    def __init__(self, servers: int = 1) -> None:
        super().__init__(sims=400, servers=servers, orders=256)
        self.session = self.connect()
        self.allocate(np.arange(TERMINALS))

    def tell(
        self,
        waiting: int = layout.NONE_INDEX,
        taken_count: int = 0,
        *,
        queue_wait_us: int = 0,
        service_us: int = SERVICE_US,
        allocation_wait_us: int = layout.NONE_INDEX,
        after_ms: int = 1,
    ) -> int:
        """How many orders the report brings."""
        before = len(self.orders)
        assert self.send(
            layout.REPORT_LOAD,
            after_ms=after_ms,
            access_server=0,
            argument=self.session,
            queue_wait_us=queue_wait_us,
            service_us=service_us,
            waiting=waiting,
            taken_count=taken_count,
            allocation_wait_us=allocation_wait_us,
        ) == [layout.OK]
        return len(self.orders) - before

    def sent(self, milliseconds: int, steps: int = 1) -> int:
        """How many orders time alone brings."""
        before = len(self.orders)
        self.pass_ms(milliseconds, steps)
        return len(self.orders) - before

    def acknowledge(self, order: int, result: int) -> None:
        assert self.send(layout.ACKNOWLEDGE, access_server=0, argument=self.session, order=order, result=result) == [
            layout.OK
        ]

    def waits_for(self) -> int:
        return int(self.machine.server(0)["waits_for"])


def test_as_much_is_sent_as_the_budget_lets_stand_before_it() -> None:
    """Counted: what waits there and what is on its way; not what is attaching."""
    pool = Paced()
    pool.tell(waiting=0)
    pool.job()
    pool.settle()
    assert len(pool.orders) == AT_ONCE
    assert pool.waits_for() == layout.WAITS_FOR_QUEUE
    # On their way still, then waiting, then one has begun, then all have.
    assert pool.tell(waiting=0, taken_count=0) == 0
    assert pool.tell(waiting=AT_ONCE, taken_count=AT_ONCE) == 0
    assert pool.tell(waiting=AT_ONCE - 1, taken_count=AT_ONCE) == 1
    assert pool.tell(waiting=1, taken_count=AT_ONCE + 1) == AT_ONCE - 1
    # Others than orders wait too.
    assert pool.tell(waiting=40, taken_count=len(pool.orders)) == 0


def test_a_slow_server_gets_one_when_nothing_waits_and_the_last_hardly_did() -> None:
    pool = Paced()
    pool.tell(waiting=0, service_us=200_000)
    pool.job()
    pool.settle()
    assert len(pool.orders) == 1
    assert pool.tell(waiting=0, taken_count=1, service_us=200_000, queue_wait_us=900_000) == 0
    assert pool.tell(waiting=0, taken_count=1, service_us=200_000, queue_wait_us=180_000) == 1


def test_a_queue_that_is_never_short_leaves_a_twentieth_while_allocations_are_well() -> None:
    pool = Paced()
    pool.tell(waiting=50, allocation_wait_us=400_000)
    pool.job()
    pool.settle()
    began = len(pool.orders)
    for _ in range(4):
        pool.tell(waiting=50, taken_count=len(pool.orders), allocation_wait_us=400_000)
        pool.sent(1_000, steps=100)
    # One in 20 services of 10 ms, rounded up to the wheel's ticks.
    assert 12 <= len(pool.orders) - began <= 20
    pool.tell(waiting=50, taken_count=len(pool.orders), allocation_wait_us=600_000)
    assert pool.sent(1_000, steps=100) == 0
    assert pool.waits_for() == layout.WAITS_FOR_QUEUE


def test_a_server_that_falls_silent_is_paced_by_time() -> None:
    pool = Paced()
    pool.tell(waiting=50, allocation_wait_us=10**6)
    pool.job()
    assert pool.sent(4_000, steps=40) == 0
    assert pool.sent(2_000, steps=20) > 0


def test_a_server_that_does_not_tell_what_waits_is_paced_by_time_while_its_queue_is_short() -> None:
    pool = Paced()
    pool.tell(queue_wait_us=10**6)
    pool.job()
    assert pool.sent(2_000, steps=20) == 0
    assert pool.waits_for() == layout.WAITS_FOR_QUEUE
    pool.tell(queue_wait_us=0)
    assert 0 < len(pool.orders) < 10
    assert pool.waits_for() == layout.WAITS_FOR_PACE


def test_a_report_of_more_orders_than_were_sent_gives_no_more_room() -> None:
    pool = Paced()
    pool.tell(waiting=0, taken_count=10**9)
    pool.job()
    pool.settle()
    assert len(pool.orders) == AT_ONCE
    assert pool.tell(waiting=AT_ONCE, taken_count=10**9) == 0


@pytest.mark.parametrize("tells", [True, False])
def test_the_window_shrinks_when_allocations_wait_too_long_at_a_server_that_does_not_tell(tells: bool) -> None:
    pool = Paced()
    pool.tell(**({"waiting": 0} if tells else {}))
    pool.job()
    pool.settle()
    assert pool.machine.server(0)["outstanding"] > 0
    for _ in range(2):
        pool.tell(**({"waiting": 9} if tells else {}), queue_wait_us=2 * 10**6)
    server = pool.machine.server(0)
    if tells:
        assert server["window"] == layout.WINDOW_START
    else:
        assert (server["window"], server["window_reason"]) == (layout.WINDOW_START // 2, layout.WINDOW_ALLOCATIONS)


def test_after_a_back_off_the_window_ramps_up_from_a_quarter() -> None:
    """And what the gate was changed by can be read."""
    pool = Paced()
    assert pool.machine.server(0)["gate_reason"] == layout.GATE_BY_READY
    pool.tell(waiting=0)
    pool.job()
    pool.settle()
    pool.acknowledge(pool.orders[0], layout.ACK_BUSY)
    server = pool.machine.server(0)
    assert (server["gate"], server["gate_reason"]) == (layout.GATE_BACK_OFF, layout.GATE_BY_BUSY)
    assert pool.tell(waiting=0, taken_count=len(pool.orders)) == 0
    assert pool.waits_for() == layout.WAITS_FOR_GATE
    before = len(pool.orders)
    while pool.machine.server(0)["gate"] == layout.GATE_BACK_OFF:
        pool.pass_ms(100)
    pool.tell(waiting=0, taken_count=before)
    server = pool.machine.server(0)
    assert (server["gate"], server["gate_reason"]) == (layout.GATE_PROBING, layout.GATE_BY_PROBE)
    assert len(pool.orders) == before + 1
    pool.acknowledge(pool.orders[-1], layout.ACK_DONE)
    server = pool.machine.server(0)
    assert (server["gate"], server["gate_reason"]) == (layout.GATE_OPEN, layout.GATE_BY_PROBED)
    # Halved by BUSY, then a quarter of that.
    assert (server["window"], server["window_reason"]) == (layout.WINDOW_START // 8, layout.WINDOW_PROBED)


def test_a_new_session_knows_nothing_of_the_old_ones_load() -> None:
    pool = Paced()
    pool.tell(waiting=70, allocation_wait_us=3)
    assert pool.machine.server(0)["waiting"] == 70
    pool.open()
    server = pool.machine.server(0)
    assert (server["waiting"], server["allocation_wait_us"]) == (None, None)
    assert server["gate_reason"] == layout.GATE_BY_SESSION


def test_a_stop_shows_as_what_orders_wait_for() -> None:
    pool = Paced()
    pool.tell(waiting=0)
    assert pool.waits_for() == layout.WAITS_FOR_NOTHING
    assert pool.send(layout.SWAPS_STOP) == [layout.OK]
    pool.job()
    pool.settle()
    assert pool.orders == []
    assert pool.waits_for() == layout.WAITS_FOR_STOP


def test_an_order_in_a_place_that_was_used_before_has_its_own_deadline() -> None:
    """The wheel still has the entry of the order that was answered there: it asks too early, and once more."""
    pool = Pool(orders=1)
    session = pool.connect()
    pool.allocate([1, 2])
    pool.job()
    pool.settle()
    first_ms = pool.machine.order(0)["deadline_ms"]
    pool.pass_ms((first_ms - pool.now_ms) // 2)
    pool.send(layout.ACKNOWLEDGE, access_server=0, argument=session, order=pool.orders[0], result=layout.ACK_DONE)
    pool.settle()
    assert len(pool.orders) == 2
    deadline_ms = pool.machine.order(0)["deadline_ms"]
    for at_ms, state in (
        (first_ms + 1_000, layout.OUTSTANDING),
        (deadline_ms - 1, layout.OUTSTANDING),
        (deadline_ms + 1_000, layout.UNKNOWN),
    ):
        pool.pass_ms(at_ms - pool.now_ms)
        assert pool.machine.order(0)["state"] == state

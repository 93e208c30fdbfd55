"""What a well-formed but hostile or unlucky batch must not do: each test is one way in which the core once went wrong.

The worlds are built from bare runs, not from the helpers of the model tests, so that numbers which no helper would make
can be sent.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from simswitch.core import commands, layout
from simswitch.core.commands import OutcomeRun
from simswitch.core.machine import Machine

from tests.model.records import copy_regions, tables

START_MS = 1_700_000_000_000
TOP_OF_WHEEL_MS = 7 << 38
"""An instant at which the digit above the top level of the timing wheel turns (December 2030)."""
HOUR_MS = 3_600_000
GIB = 1 << 30
EVERY = layout.NONE_SHORT


class Pool:
    """A machine with one class, one lot, one bank, one market and some access servers, and its clock."""

    def __init__(
        self, now_ms: int = START_MS, sims: int = 20, servers: int = 2, orders: int = 64, terminals: int = 256
    ) -> None:
        self.machine = Machine(1024, terminals, orders)
        self.now_ms = now_ms
        self.seed = 0
        self.orders: list[int] = []
        self.sims_count = 0
        supplier = self.define(layout.SUPPLIER, "supplier")
        self.plan = self.define(layout.PLAN, "plan", {layout.PLAN_QUOTA_CYCLE: 100 * GIB})
        self.supplier = supplier
        self.lot, self.market = self.class_with_lot("first")
        self.bank = self.define(layout.BANK, "bank")
        for number in range(servers):
            self.define(layout.ACCESS_SERVER, f"server-{number}")
        if sims:
            self.import_sims(sims)

    def apply(self, *runs: bytes, after_ms: int = 1) -> list[OutcomeRun]:
        self.now_ms += after_ms
        self.seed += 1
        outcome = self.machine.apply(b"".join(runs), self.now_ms, self.seed)
        found = commands.outcome_runs(outcome.data)
        self.orders += found[-2]["order"].tolist()
        return found

    def send(self, kind: int, count: int = 1, /, *, after_ms: int = 1, **fields: Any) -> list[int]:
        """Applies one run; returns the status of each item."""
        outcome = self.apply(commands.run(kind, count, **fields), after_ms=after_ms)[0]
        return [int(status) for status in outcome["status"]]

    def define(self, kind: int, name: str, numbers: dict[int, int] | None = None, actor: int = 0) -> int:
        record = np.frombuffer(commands.definition(kind, name, numbers), "V1024")
        outcome = self.apply(commands.run(layout.DEFINE, 1, actor=actor, definition=record))[0]
        assert int(outcome["status"][0]) == layout.OK
        return int(outcome["index"][0])

    def class_with_lot(self, name: str) -> tuple[int, int]:
        """A class with a lot and a market of its own; their entity indexes."""
        sim_class = self.define(layout.SIM_CLASS, name)
        lot = self.define(
            layout.LOT,
            name,
            {layout.LOT_SUPPLIER: self.supplier, layout.LOT_PLAN: self.plan, layout.LOT_CLASS: sim_class},
        )
        return lot, self.define(layout.MARKET, name, {layout.MARKET_FIRST_CLASS: sim_class})

    def import_sims(self, count: int) -> None:
        numbers = np.arange(self.sims_count, self.sims_count + count)
        self.sims_count += count
        statuses = self.send(
            layout.IMPORT_SIMS,
            count,
            iccid=1000 + 2 * numbers,
            imsi=numbers,
            opening_cycle_bytes=0,
            opening_day_bytes=0,
            opening_rolling_bytes=0,
            lot=self.lot,
            bank=self.bank,
            slot=0,
            health=layout.HEALTHY,
        )
        assert set(statuses) == {layout.OK}

    def allocate(self, terminals: npt.ArrayLike, server: int = 0, after_ms: int = 1) -> OutcomeRun:
        keys = np.atleast_1d(np.asarray(terminals))
        return self.apply(
            commands.run(
                layout.ALLOCATE,
                len(keys),
                access_server=server,
                terminal=keys,
                subscriber=0,
                expected_bytes=0,
                market=self.market,
            ),
            after_ms=after_ms,
        )[0]

    def open(self, server: int = 0) -> int:
        return int(self.apply(commands.run(layout.SESSION_OPEN, access_server=server), after_ms=0)[0]["session"][0])

    def ready(self, session: int, server: int = 0) -> None:
        assert self.send(layout.SESSION_READY, after_ms=0, access_server=server, argument=session) == [layout.OK]

    def connect(self, server: int = 0) -> int:
        session = self.open(server)
        self.ready(session, server)
        return session

    def holds(self, session: int, lease: OutcomeRun, terminal: int, server: int = 0) -> list[int]:
        return self.send(
            layout.SESSION_HOLDS,
            access_server=server,
            argument=session,
            terminal=terminal,
            epoch=lease["epoch"],
            iccid=lease["iccid"],
        )

    def job(self, lot: int = EVERY, priority: int = layout.PRIORITY_PREDICTED, selecting: int = 1) -> int:
        outcome = self.apply(commands.job_create("test", lot=lot, priority=priority, selecting=selecting))[0]
        assert int(outcome["status"][0]) == layout.OK
        return int(outcome["job"][0])

    def settle(self) -> None:
        """Ticks until nothing is due at this instant."""
        for _ in range(1000):
            due_ms = self.machine.next_due_ms
            if due_ms is None or due_ms > self.now_ms:
                return
            self.apply(commands.run(layout.TICK), after_ms=0)
        pytest.fail("work in progress is due at once, but never ends")

    def pass_ms(self, milliseconds: int, steps: int = 1) -> None:
        for _ in range(steps):
            self.apply(commands.run(layout.TICK), after_ms=milliseconds // steps)
            self.settle()

    def count(self, occupancy: str) -> int:
        return int(self.machine.header()["occupancy"][occupancy])


# -------------------------------------------------------------------------------------------------- timers and time


def test_a_lease_expires_across_the_top_of_the_wheel() -> None:
    """A timer due on the other side of the top digit's turn fires in time, not one round of the wheel later."""
    pool = Pool(now_ms=TOP_OF_WHEEL_MS - 600_000)
    pool.connect()
    pool.allocate(1)
    due_ms = pool.machine.next_due_ms
    assert due_ms is not None
    assert due_ms <= pool.now_ms + HOUR_MS + 64
    pool.pass_ms(2 * HOUR_MS, steps=40)
    assert pool.count("assigned") == 0
    assert pool.machine.check() == []


@pytest.mark.parametrize("kind", [layout.RESTART, layout.FREEZE])
def test_what_holds_expiry_back_does_so_at_its_own_instant(kind: int) -> None:
    """After a long absence the timers that became due meanwhile are asked only once RESTART or FREEZE holds."""
    pool = Pool()
    pool.connect()
    pool.allocate([1, 2, 3])
    pool.send(kind, after_ms=2 * HOUR_MS)
    assert pool.count("assigned") == 3


def test_a_restart_that_is_not_permitted_holds_nothing_back() -> None:
    pool = Pool()
    operator = pool.define(layout.ACTOR, "operator", {layout.ACTOR_ROLE: layout.OPERATOR})
    pool.connect()
    pool.allocate(1)
    assert pool.send(layout.RESTART, actor=operator, after_ms=2 * HOUR_MS) == [layout.NOT_PERMITTED]
    assert pool.count("assigned") == 0


def test_a_hundred_thousand_timers_due_at_once_are_worked_off() -> None:
    """Bounded work: each apply fires some, what is left is due at once, and an end comes."""
    count = 100_000
    pool = Pool(sims=0, servers=1)
    pool.send(layout.GROW, sims=count, terminals=count, orders=2 * count)
    for _ in range(0, count, 50_000):
        pool.import_sims(50_000)
    pool.connect()
    for first in range(0, count, 50_000):
        pool.allocate(np.arange(first, first + 50_000))
    assert pool.count("assigned") == count
    pool.apply(commands.run(layout.TICK), after_ms=2 * HOUR_MS)
    assert 0 < pool.count("assigned") < count
    pool.settle()
    assert pool.count("assigned") == 0


def test_a_year_of_silence() -> None:
    pool = Pool()
    pool.allocate([1, 2])
    pool.send(layout.RELEASE, terminal=1, epoch=1)
    pool.pass_ms(400 * 24 * HOUR_MS)
    assert pool.count("free") == 19
    due_ms = pool.machine.next_due_ms
    assert due_ms is None or due_ms > pool.now_ms
    assert pool.machine.check() == []


# ----------------------------------------------------------------------------------------------------- reconnecting


def test_i8_a_resumed_lease_counts_its_reports_once() -> None:
    """I8: the epoch goes on, so what it reported before it ended is known still."""
    pool = Pool()
    pool.connect()
    lease = pool.allocate(1)
    report: dict[str, Any] = {"terminal": 1, "epoch": lease["epoch"], "up_bytes": 0, "down_bytes": GIB}
    assert pool.send(layout.REPORT_USAGE, after_ms=60_000, **report) == [layout.OK]
    pool.pass_ms(2 * HOUR_MS, steps=4)
    session = pool.open()
    assert pool.holds(session, lease, 1) == [layout.OK]
    pool.ready(session)
    assert pool.send(layout.REPORT_USAGE, after_ms=10_000, **report) == [layout.LATE]
    assert pool.machine.header()["counted_bytes"] == GIB


@pytest.mark.parametrize("sign", ["allocate", "renew", "report"])
def test_a_sign_of_life_between_hello_and_ready_keeps_the_lease(sign: str) -> None:
    """A terminal that came after its access server wrote the list is not taken for gone."""
    pool = Pool()
    pool.connect()
    epoch = pool.allocate(1)["epoch"]
    session = pool.open()
    if sign == "allocate":
        assert pool.allocate(1)["status"].tolist() == [layout.SAME]
    elif sign == "renew":
        assert pool.send(layout.RENEW, access_server=0, terminal=1, epoch=epoch) == [layout.OK]
    else:
        report: dict[str, Any] = {"terminal": 1, "epoch": epoch, "up_bytes": 1, "down_bytes": 0}
        assert pool.send(layout.REPORT_USAGE, access_server=0, **report) == [layout.OK]
    pool.ready(session)
    pool.settle()
    assert pool.count("assigned") == 1


def test_a_lease_without_a_sign_of_life_ends_with_ready() -> None:
    """The other side of the test above: without a sign the lease is over."""
    pool = Pool()
    pool.connect()
    pool.allocate(1)
    pool.connect()
    pool.settle()
    assert pool.count("assigned") == 0


def _reconciling_pool() -> Pool:
    """9,000 leases that the present hello does not name, and a walk that has done its first part."""
    pool = Pool(sims=0, terminals=12_000)
    pool.send(layout.GROW, sims=12_000, terminals=0, orders=0)
    pool.import_sims(9_000)
    pool.connect()
    pool.allocate(np.arange(9_000))
    pool.connect()
    assert 0 < pool.count("assigned") < 9_000
    return pool


def test_a_walk_ends_every_lease_that_was_not_named() -> None:
    pool = _reconciling_pool()
    pool.settle()
    assert pool.count("assigned") == 0


def test_growth_during_a_walk_skips_no_terminal() -> None:
    """GROW of the orders moves nothing that the walk counts by."""
    pool = _reconciling_pool()
    pool.send(layout.GROW, sims=0, terminals=0, orders=4096)
    pool.settle()
    assert pool.count("assigned") == 0


def test_a_server_that_joins_a_waiting_walk_is_covered_wholly() -> None:
    """A terminal that was first seen after the walk was queued belongs to it when its access server joins."""
    pool = Pool(sims=0)
    pool.send(layout.GROW, sims=12_000, terminals=0, orders=0)
    pool.import_sims(9_000)
    first = pool.open(0)
    for _ in range(3):
        pool.job()
    pool.ready(first, 0)
    pool.allocate(77, server=1)
    pool.connect(1)
    assert pool.machine.header()["sweeps_count"] >= 2
    pool.settle()
    assert pool.count("assigned") == 0


def test_a_sweep_that_needs_no_order_does_not_wait_for_one() -> None:
    """A selection that waits for orders is looked at now and then; a cap's walk beside it is due at once."""
    pool = Pool(sims=0, terminals=1024)
    pool.send(layout.GROW, sims=20_000, terminals=0, orders=0)
    pool.import_sims(15_000)
    pool.allocate(np.arange(500))
    pool.job()
    pool.settle()
    pool.send(
        layout.SET_CAP, lot=pool.lot, window=layout.WINDOW_CYCLE, quota_bytes=1 << 40, basis=layout.BASIS_BELIEVED
    )
    assert pool.machine.header()["sweeps_count"] > 1
    assert pool.machine.next_due_ms == pool.now_ms


def test_a_probe_that_the_hello_settles_leaves_the_gate_able_to_open() -> None:
    """However the probe is settled, the next order can be one; a list after READY is refused."""
    pool = Pool(sims=60, orders=256)
    session = pool.connect()
    lease = pool.allocate(1)
    pool.allocate([2, 3, 4])
    job = pool.job(selecting=0)
    pool.send(layout.JOB_ADD, argument=job, terminal=2)
    pool.send(layout.JOB_RESUME, argument=job)
    busy = {"order": pool.orders[-1], "result": layout.ACK_BUSY}
    assert pool.send(layout.ACKNOWLEDGE, access_server=0, argument=session, **busy) == [layout.OK]
    pool.send(layout.SWAPS_STOP)
    sent = len(pool.orders)
    for _ in range(40):
        pool.allocate([2, 3, 4])
        pool.pass_ms(120_000)
        if len(pool.orders) > sent:
            break
    assert pool.machine.server(0)["gate"] == layout.GATE_PROBING
    assert pool.holds(session, lease, 1) == [layout.WRONG_STATE]
    done = {"order": pool.orders[-1], "result": layout.ACK_DONE}
    assert pool.send(layout.ACKNOWLEDGE, access_server=0, argument=session, **done) == [layout.OK]
    assert pool.machine.server(0)["gate"] == layout.GATE_OPEN
    assert pool.machine.check() == []


# -------------------------------------------------------------------------------------------- who takes everything


def test_the_learner_says_what_was_observed_and_nothing_else() -> None:
    pool = Pool()
    learner = pool.define(layout.ACTOR, "learner", {layout.ACTOR_ROLE: layout.LEARNER})
    lot = pool.lot
    cap: dict[str, Any] = {"lot": [lot] * 3, "window": [1, 2, 1], "quota_bytes": [5 << 30] * 3}
    learned, believed = layout.BASIS_LEARNED, layout.BASIS_BELIEVED
    refused = [layout.NOT_PERMITTED] * 3
    assert pool.send(layout.SET_CAP, 3, actor=learner, basis=[learned, learned, believed], **cap) == refused
    back = {**cap, "quota_bytes": [5 << 30, -1, 5 << 30]}
    assert pool.send(layout.SET_CAP, 3, actor=learner, basis=learned, **back) == refused
    assert pool.machine.lot(lot)["basis"][1] == 0
    assert pool.send(layout.SET_CAP, 3, actor=learner, basis=learned, **cap) == [layout.OK, layout.OK, layout.SAME]
    seen: dict[str, Any] = {"iccid": [1000, 1002, 1004], "goodput_kbps": 128, "confidence_permille": 990}
    for healths, windows in (
        ([layout.THROTTLED, layout.THROTTLED, layout.QUARANTINED], [3, 3, 3]),
        ([layout.RETIRED, layout.THROTTLED, layout.THROTTLED], [3, 3, 3]),
        ([layout.THROTTLED, layout.HEALTHY, layout.THROTTLED], [3, 3, 0]),
    ):
        assert pool.send(layout.SET_HEALTH, 3, actor=learner, health=healths, windows=windows, **seen) == refused
    assert {pool.machine.sim(index)["health"] for index in range(3)} == {layout.HEALTHY}
    assert pool.send(layout.SET_HEALTH, 3, actor=learner, health=layout.THROTTLED, windows=3, **seen) == [layout.OK] * 3
    for kind in (layout.SWAPS_STOP, layout.THAW, layout.TICK):
        assert pool.send(kind, actor=learner) == [layout.NOT_PERMITTED]
    assert pool.machine.check() == []


def test_what_the_learner_says_of_a_cap_stays_near_the_plan() -> None:
    """Its token alone took a contract's cap away, or ended all SIMs of a lot with a cap of nothing."""
    pool = Pool()
    learner = pool.define(layout.ACTOR, "learner", {layout.ACTOR_ROLE: layout.LEARNER})
    contract = {layout.PLAN_QUOTA_CYCLE: 64 * GIB, layout.PLAN_BASIS_CYCLE: layout.BASIS_CONTRACTUAL}
    pool.plan = pool.define(layout.PLAN, "contract", contract)
    lots = pool.lot, pool.class_with_lot("second")[0]
    say: dict[str, Any] = {"lot": lots, "window": layout.WINDOW_CYCLE}

    def learned(*quotas: int, **more: int) -> list[int]:
        basis = layout.BASIS_LEARNED
        return pool.send(layout.SET_CAP, 2, actor=learner, basis=basis, quota_bytes=quotas, **say, **more)

    refused, accepted = layout.NOT_PERMITTED, layout.OK
    assert learned(3 * GIB, 2 * GIB - 1) == [refused, refused]
    assert learned(1 << 61, 64 * GIB + 1) == [accepted, refused]
    assert learned(3 * GIB, 64 * GIB + 1, at_ms=pool.now_ms + HOUR_MS) == [refused, refused]
    assert learned(4 * GIB, 2 * GIB) == [accepted, accepted]
    undo: dict[str, Any] = {"basis": layout.BASIS_BELIEVED, "quota_bytes": [0, 0]}
    assert pool.send(layout.SET_CAP, 2, **undo, **say) == [accepted, accepted]


def test_nobody_becomes_the_system_or_changes_it() -> None:
    pool = Pool()
    operator = pool.define(layout.ACTOR, "operator", {layout.ACTOR_ROLE: layout.OPERATOR})
    for actor in (0, operator):
        for name, role, status in (
            ("system", layout.AUDITOR, layout.WRONG_STATE),
            ("usurper", layout.SYSTEM, layout.INVALID_ARGUMENT),
        ):
            record = np.frombuffer(commands.definition(layout.ACTOR, name, {layout.ACTOR_ROLE: role}), "V1024")
            assert pool.send(layout.DEFINE, actor=actor, definition=record) == [status]
    assert pool.send(layout.TICK) == [layout.OK]


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        (layout.RENEW, {}),
        (layout.RELEASE, {}),
        (layout.REPORT_USAGE, {"up_bytes": 1, "down_bytes": 0}),
        (layout.REPORT_ATTACH_FAILURE, {}),
    ],
)
def test_an_access_server_knows_nothing_of_anothers_lease(kind: int, columns: dict[str, int]) -> None:
    """Epochs are counted, so they can be guessed: the right one does not help."""
    pool = Pool()
    other = pool.machine.entity_index(layout.ACCESS_SERVER, "server-1")
    assert other is not None
    role = {layout.ACTOR_ROLE: layout.ROLE_ACCESS_SERVER, layout.ACTOR_SUBJECT: other}
    actor = pool.define(layout.ACTOR, "other", role)
    epoch = pool.allocate(1)["epoch"]
    before = pool.machine.terminal(0)
    statuses = pool.send(kind, actor=actor, access_server=1, terminal=1, epoch=epoch, **columns)
    assert statuses == [layout.STALE_EPOCH]
    assert pool.machine.terminal(0) == before


def test_i7_a_job_leaves_orders_for_allocations() -> None:
    """I7: a job larger than the pool of orders does not keep a terminal from another access server."""
    pool = Pool(sims=400, orders=32, terminals=512)
    pool.allocate(np.arange(100))
    pool.job()
    pool.settle()
    assert pool.allocate(1, server=1)["status"].tolist() == [layout.MOVED]


def test_a_dead_access_server_does_not_use_up_the_orders() -> None:
    """The leases of a server that nobody can tell anything stay, and others' go on expiring."""
    pool = Pool(sims=400, orders=32, terminals=512)
    session = pool.connect(0)
    pool.connect(1)
    pool.allocate(np.arange(100))
    pool.allocate(500, server=1)
    assert pool.send(layout.SESSION_CLOSE, access_server=0, argument=session) == [layout.OK]
    pool.pass_ms(2 * HOUR_MS, steps=60)
    assert pool.count("assigned") == 100
    assert pool.machine.header()["orders_used"] == 1


def test_one_hello_does_not_fill_orders_and_terminals() -> None:
    """A SIM of another terminal, named a hundred times under a hundred names, is one order and few terminals."""
    pool = Pool(orders=32, terminals=64)
    lease = pool.allocate(1)
    for _ in range(3):
        session = pool.open(1)
        pool.send(
            layout.SESSION_HOLDS,
            100,
            access_server=1,
            argument=session,
            terminal=np.arange(1000, 1100),
            epoch=0,
            iccid=lease["iccid"][0],
        )
    assert pool.machine.header()["orders_used"] == 1
    assert pool.machine.header()["terminals_count"] <= 64 - 8
    assert pool.allocate(1, server=1)["status"].tolist() == [layout.MOVED]
    assert pool.machine.check() == []


def test_what_a_server_names_holds_an_eighth_of_the_orders_at_most_and_no_terminal() -> None:
    """SIMs it never had, under one key: a count of them at the terminal wrapped, which ended the follower for good."""
    pool = Pool(sims=600, servers=3, orders=2400)
    pool.connect(0)
    pool.connect(2)
    assert pool.allocate(5)["status"].tolist() == [layout.OK]
    session = pool.open(1)
    statuses = pool.send(
        layout.SESSION_HOLDS,
        400,
        access_server=1,
        argument=session,
        terminal=np.full(400, 5),
        epoch=0,
        iccid=1000 + 2 * np.arange(200, 600),
    )
    assert statuses == [layout.REVOKED] * 300 + [layout.ORDERS_FULL] * 100
    assert pool.machine.check() == []
    assert pool.allocate(5, server=2)["status"].tolist() == [layout.MOVED]


def test_i1_what_a_server_names_beyond_its_orders_rests_until_it_can_name_it_again() -> None:
    """After a restore nobody knew its leases: those beyond an eighth of all orders were given to others at once."""
    pool = Pool(sims=250, servers=2, orders=320, terminals=1024)
    held: dict[str, Any] = {"iccid": 1000 + 2 * np.arange(200), "terminal": np.arange(200), "epoch": np.arange(200)}
    assert pool.send(layout.RESTART) == [layout.OK]
    for _ in range(2):
        session = pool.open(0)
        statuses = pool.send(layout.SESSION_HOLDS, 200, access_server=0, argument=session, **held)
        assert statuses == [layout.REVOKED] * 40 + [layout.ORDERS_FULL] * 160
        pool.ready(session, 0)
        found = pool.allocate(np.arange(300, 550), server=1)
        assert not set(held["iccid"]) & set(found["iccid"].tolist())
        pool.pass_ms(pool.machine.header()["settings"]["lease_ms"], steps=10)
    assert pool.machine.check() == []
    # Whoever never comes back can't keep them for good.
    pool.pass_ms(2 * pool.machine.header()["settings"]["lease_ms"], steps=10)
    assert set(held["iccid"][40:]) <= set(pool.allocate(np.arange(300, 550), server=1)["iccid"].tolist())


def test_no_servers_word_alone_rests_the_pool_but_after_a_start() -> None:
    pool = Pool(sims=250, servers=2, orders=320, terminals=1024)
    named = 1000 + 2 * np.arange(250)
    session = pool.open(0)
    statuses = pool.send(
        layout.SESSION_HOLDS,
        250,
        access_server=0,
        argument=session,
        terminal=np.arange(250),
        epoch=0,
        iccid=named,
    )
    assert statuses == [layout.REVOKED] * 40 + [layout.ORDERS_FULL] * 210
    found = pool.allocate(np.arange(300, 550), server=1)
    assert set(found["iccid"][found["status"] == layout.OK].tolist()) == set(named[40:].tolist())


def test_one_access_servers_word_quarantines_few_sims() -> None:
    """Epochs go up by one, so the next is known: a chain of them once quarantined the whole pool for good."""
    pool = Pool(sims=1000, servers=2)
    pool.connect(0)
    epoch = int(pool.allocate(7)["epoch"][0])
    chain = epoch + np.arange(1000)
    statuses = pool.send(layout.REPORT_ATTACH_FAILURE, 1000, access_server=0, terminal=np.full(1000, 7), epoch=chain)
    assert statuses == [layout.MOVED] + [layout.STALE_EPOCH] * 999
    for _ in range(100):
        epoch = int(pool.allocate(7)["epoch"][0])
        pool.send(layout.REPORT_ATTACH_FAILURE, access_server=0, terminal=7, epoch=epoch)
    health = pool.machine.header()["health"]
    assert (health["quarantined"], health["healthy"]) == (64, 936)
    pool.pass_ms(24 * HOUR_MS, steps=24)
    epoch = int(pool.allocate(7)["epoch"][0])
    pool.send(layout.REPORT_ATTACH_FAILURE, access_server=0, terminal=7, epoch=epoch)
    assert pool.machine.header()["health"]["quarantined"] == 65


def test_made_up_terminals_fill_neither_events_nor_the_table() -> None:
    """Reports of nobody's leases pushed out all events at once; who was told to wait filled the table of terminals."""
    pool = Pool(servers=2, terminals=256)
    session = pool.connect(0)
    made_up = 10_000 + np.arange(5_000)
    before = pool.machine.header()["events_count"]
    told = dict.fromkeys(("epoch", "up_bytes", "down_bytes", "span_ms", "goodput_kbps", "demand_permille", "radio"), 1)
    pool.send(layout.REPORT_USAGE, 5_000, access_server=0, terminal=made_up, **told)
    header = pool.machine.header()
    assert (header["events_count"] - before, header["set_aside_count"]) == (64, 5_000)
    slow = dict.fromkeys(("queue_wait_us", "service_us"), 2**32 - 1)
    idle = dict.fromkeys(("waiting", "taken_count", "allocation_wait_us", "failed_count"), 0)
    pool.send(layout.REPORT_LOAD, access_server=0, argument=session, **slow, **idle)
    room = 256 - 32
    answers = pool.allocate(made_up)["status"].tolist()
    assert answers == [layout.ADMISSION_WAIT] * room + [layout.TERMINALS_FULL] * (5_000 - room)
    assert pool.machine.header()["terminals_count"] == room
    assert pool.allocate(1, server=1)["status"].tolist() == [layout.OK]


def test_a_question_makes_nobody_known_and_moves_nobody_to_another_group() -> None:
    """Made-up people once filled their table, after which no limit held for whoever was new."""
    pool = Pool(sims=20, servers=2)
    priority = {layout.GROUP_PRIORITY: 1}
    large, small = (pool.define(layout.SUBSCRIBER_GROUP, name, priority) for name in ("large", "small"))
    numbers: dict[int, int] = {layout.RULE_GROUP: small, layout.RULE_MONTH_BYTES: 1_000, layout.RULE_TEXT_BYTES: 4}
    numbers |= {layout.RULE_ACTION: layout.ACTION_REFUSE, layout.RULE_PUBLISHED_DAY: 0}
    record = commands.definition(layout.LIMIT_RULE, "rule", numbers, b"text")
    assert pool.send(layout.DEFINE, definition=np.frombuffer(record, "V1024")) == [layout.OK]

    def asked(terminal: int, subscriber: int, server: int, group: int) -> OutcomeRun:
        wanted = {"terminal": terminal, "subscriber": subscriber, "expected_bytes": 0, "market": pool.market}
        return pool.apply(commands.run(layout.ALLOCATE, 1, access_server=server, argument=group, **wanted))[0]

    lease = asked(1, 501, 0, large)
    used = {"up_bytes": 0, "down_bytes": 10_000, "span_ms": 0, "goodput_kbps": 0, "demand_permille": 0, "radio": 0}
    assert pool.send(layout.REPORT_USAGE, access_server=0, terminal=1, epoch=lease["epoch"], **used) == [layout.OK]
    assert asked(999, 501, 1, small)["status"].tolist() == [layout.LIMIT_REACHED]
    assert pool.send(layout.RENEW, access_server=0, terminal=1, epoch=lease["epoch"]) == [layout.OK]
    assert asked(1, 501, 0, 0)["status"].tolist() == [layout.SAME]
    unmeasured = dict.fromkeys(("goodput_kbps", "windows", "confidence_permille"), 0)
    before = pool.machine.header()["subscribers_count"]
    pool.send(layout.SET_HEALTH, 20, iccid=1000 + 2 * np.arange(20), health=layout.SUSPENDED, **unmeasured)
    assert asked(2, 777, 0, small)["status"].tolist() == [layout.NO_HEALTHY_SIM]
    assert pool.machine.header()["subscribers_count"] == before


def test_one_lease_makes_few_people_known() -> None:
    """Named anew in each question, one lease filled the table of people; then no limit held for who was new."""
    pool = Pool(servers=2)
    group = pool.define(layout.SUBSCRIBER_GROUP, "all", {layout.GROUP_PRIORITY: 1})

    def named(subscribers: npt.ArrayLike, terminal: int = 1) -> OutcomeRun:
        count = len(np.atleast_1d(subscribers))
        wanted: dict[str, Any] = {"terminal": np.full(count, terminal), "expected_bytes": 0, "market": pool.market}
        run = commands.run(layout.ALLOCATE, count, access_server=0, argument=group, subscriber=subscribers, **wanted)
        return pool.apply(run)[0]

    named(500)
    for _ in range(3):
        assert set(named(np.arange(1000, 1400))["status"]) == {layout.SAME}
    # Its first, 64 of the day, and whoever has a lease of his own, who may take over another's as well.
    assert pool.machine.header()["subscribers_count"] == 1 + 64
    assert named(777, 2)["status"].tolist() == [layout.OK]
    named(777)
    assert pool.machine.terminal(0)["subscriber"] == 777
    assert pool.machine.header()["subscribers_count"] == 1 + 64 + 1
    pool.pass_ms(24 * HOUR_MS, steps=1)
    named(500)
    named(5_000)
    assert pool.machine.terminal(0)["subscriber"] == 5_000


def test_one_hello_does_not_fill_the_events() -> None:
    """Made-up SIMs pushed out of the ring what others wait for; what changes a lease is told, however many do."""
    pool = Pool(sims=200)
    pool.connect(0)
    leases = pool.allocate(np.arange(1, 101))
    pool.send(layout.RELEASE, 100, access_server=0, terminal=np.arange(1, 101), epoch=leases["epoch"])
    session = pool.open(0)
    before = pool.machine.header()["events_count"]
    made_up: dict[str, Any] = {"terminal": np.arange(5_000), "iccid": 1_000_000 + 2 * np.arange(5_000), "epoch": 1}
    statuses = pool.send(layout.SESSION_HOLDS, 5_000, access_server=0, argument=session, **made_up)
    assert set(statuses) == {layout.UNKNOWN_SIM}
    assert pool.machine.header()["events_count"] - before == 64
    again: dict[str, Any] = {"terminal": np.arange(1, 101), "iccid": leases["iccid"], "epoch": leases["epoch"]}
    statuses = pool.send(layout.SESSION_HOLDS, 100, access_server=0, argument=session, **again)
    assert set(statuses) == {layout.OK}
    assert pool.machine.header()["events_count"] - before == 64 + 100


def test_i1_a_sim_that_another_server_names_rests_until_that_one_lets_go() -> None:
    pool = Pool(sims=1, servers=3)
    pool.connect(0)
    pool.connect(2)
    lease = pool.allocate(1)
    session = pool.open(1)
    assert pool.holds(session, lease, 9, server=1) == [layout.REVOKED]
    pool.orders.clear()
    pool.ready(session, 1)
    pool.settle()
    (order,) = pool.orders
    assert pool.send(layout.RELEASE, terminal=1, epoch=lease["epoch"]) == [layout.OK]
    pool.pass_ms(HOUR_MS // 4, steps=10)
    assert pool.allocate(2, server=2)["status"].tolist() == [layout.NO_HEALTHY_SIM]
    assert pool.machine.check() == []
    acknowledged = pool.send(layout.ACKNOWLEDGE, access_server=1, argument=session, order=order, result=layout.ACK_DONE)
    assert acknowledged == [layout.OK]
    pool.pass_ms(HOUR_MS // 4, steps=10)
    assert pool.allocate(2, server=2)["status"].tolist() == [layout.OK]


def test_i1_a_target_that_comes_back_waits_for_another_server_that_named_it() -> None:
    """Refused, it was free at once, and went to a third server while the second still had it."""
    pool = Pool(sims=3, servers=3)
    session = pool.connect(0)
    pool.connect(2)
    lease = pool.allocate(1)
    pool.job()
    while not pool.orders:
        pool.pass_ms(1_000)
    (target,) = (index for index in range(3) if pool.machine.sim(index)["occupancy"] == layout.RESERVED)
    other = pool.open(1)
    named = {"terminal": 50, "epoch": 7, "iccid": 1000 + 2 * target}
    assert pool.send(layout.SESSION_HOLDS, access_server=1, argument=other, **named) == [layout.REVOKED]
    pool.ready(other, 1)
    refused = {"order": pool.orders[0], "result": layout.ACK_REFUSED}
    assert pool.send(layout.ACKNOWLEDGE, access_server=0, argument=session, **refused) == [layout.OK]
    assert pool.send(layout.RELEASE, terminal=1, epoch=lease["epoch"]) == [layout.OK]
    for _ in range(3):
        assert 1000 + 2 * target not in pool.allocate([60, 61, 62], server=2)["iccid"]
        pool.pass_ms(HOUR_MS // 4, steps=10)
    assert pool.machine.check() == []
    done = {"order": pool.orders[1], "result": layout.ACK_DONE}
    assert pool.send(layout.ACKNOWLEDGE, access_server=1, argument=other, **done) == [layout.OK]
    pool.pass_ms(HOUR_MS // 4, steps=10)
    assert 1000 + 2 * target in pool.allocate([60, 61, 62], server=2)["iccid"]


def test_i1_a_lease_that_goes_on_leaves_what_another_server_is_to_let_go_of() -> None:
    """Its hello withdrew the other's order; released again, the SIM went to a third server."""
    pool = Pool(sims=1, servers=3)
    pool.connect(0)
    pool.connect(2)
    lease = pool.allocate(1)
    session = pool.open(1)
    assert pool.holds(session, lease, 50, server=1) == [layout.REVOKED]
    pool.ready(session, 1)
    assert pool.send(layout.RELEASE, terminal=1, epoch=lease["epoch"]) == [layout.OK]
    pool.pass_ms(HOUR_MS // 4, steps=10)
    assert pool.holds(pool.open(0), lease, 1) == [layout.OK]
    assert pool.machine.header()["orders_used"] == 1
    assert pool.send(layout.RELEASE, terminal=1, epoch=lease["epoch"]) == [layout.OK]
    pool.pass_ms(HOUR_MS // 4, steps=10)
    assert pool.allocate(2, server=2)["status"].tolist() == [layout.NO_HEALTHY_SIM]
    assert pool.machine.check() == []


def test_a_flapping_terminal_does_not_hold_the_pool() -> None:
    """Between two servers that nobody can reach one terminal costs a few SIMs, not one with each move."""
    pool = Pool(sims=20)
    for move in range(40):
        pool.allocate(1, server=move & 1)
    assert pool.count("free") > 10
    assert pool.machine.check() == []


def test_starved_swaps_do_not_hold_up_others() -> None:
    """Swaps without a target go behind those that have one, whatever their priority."""
    pool = Pool(sims=20)
    session = pool.connect()
    pool.allocate(np.arange(20))
    exhausted = pool.lot
    pool.lot, pool.market = pool.class_with_lot("second")
    pool.import_sims(40)
    pool.allocate([100, 101])
    pool.job(exhausted, layout.PRIORITY_FAILURE)
    plenty = pool.job(pool.lot, layout.PRIORITY_REBALANCE)
    pool.pass_ms(10_000, steps=10)
    assert pool.machine.job(plenty)["outstanding_count"] == 2
    assert pool.machine.server(0)["session"] == session


def test_an_unfinished_job_does_not_block_the_next_round_of_slots() -> None:
    """One job that never ends costs its own slot; ids go past it."""
    pool = Pool()
    forever = pool.job(selecting=0)
    ids = []
    for _ in range(1100):
        ids.append(pool.job())
        pool.settle()
    assert len(set(ids)) == 1100
    assert forever not in ids
    assert pool.send(layout.JOB_PAUSE, argument=(1 << 32) + forever) == [layout.UNKNOWN_JOB]


def test_a_mask_on_a_lot_holds_in_a_new_bank() -> None:
    pool = Pool()
    assert pool.send(layout.MASK, lot=pool.lot, bank=EVERY, masked=1) == [layout.OK]
    pool.bank = pool.define(layout.BANK, "another")
    pool.import_sims(5)
    assert pool.allocate(1)["status"].tolist() == [layout.NO_HEALTHY_SIM]
    assert pool.send(layout.MASK, lot=pool.lot, bank=EVERY, masked=0) == [layout.OK]
    assert pool.allocate(1)["status"].tolist() == [layout.OK]


def test_two_numbers_are_never_one_iccid() -> None:
    """An even number has 17 digits after the 89; more would read like its odd neighbour."""
    pool = Pool()
    number = 4 * 10**17
    statuses = pool.send(
        layout.IMPORT_SIMS,
        2,
        iccid=[number, number + 1],
        imsi=[9000, 9001],
        opening_cycle_bytes=0,
        opening_day_bytes=0,
        opening_rolling_bytes=0,
        lot=pool.lot,
        bank=pool.bank,
        slot=0,
        health=layout.HEALTHY,
    )
    assert statuses == [layout.INVALID_ARGUMENT, layout.OK]


def test_swaps_speed_up_again_when_allocations_have_stopped() -> None:
    """I7 takes capacity from swaps only while allocations need it."""
    pool = Pool(sims=100)
    session = pool.connect()
    load = {
        "queue_wait_us": 0,
        "service_us": 50_000,
        "waiting": layout.NONE_INDEX,
        "taken_count": 0,
        "allocation_wait_us": layout.NONE_INDEX,
    }
    assert pool.send(layout.REPORT_LOAD, access_server=0, argument=session, **load) == [layout.OK]
    for _ in range(100):
        pool.allocate(np.arange(40), after_ms=50)
    pool.pass_ms(30 * 60_000)
    pool.job()
    pool.pass_ms(100)
    assert pool.machine.server(0)["interval_us"] < 100_000


def grow_without_memory() -> None:
    """Asks for growth of which the first region fits into the address space and the second does not, kind by kind."""
    pool = Pool()
    pool.connect()
    pool.allocate(np.arange(10))
    before = pool.machine.state_hash()
    page_bytes = resource.getpagesize()
    for growth in (
        {"sims": 5_000_000, "terminals": 0, "orders": 0},
        {"sims": 0, "terminals": 5_000_000, "orders": 0},
        {"sims": 0, "terminals": 0, "orders": 1 << 22},
    ):
        with open("/proc/self/statm", encoding="ascii") as statm:
            used_bytes = int(statm.read().split()[0]) * page_bytes
        resource.setrlimit(resource.RLIMIT_AS, (used_bytes + (400 << 20), resource.RLIM_INFINITY))
        try:
            pool.send(layout.GROW, **growth)
        except MemoryError:
            pool.now_ms -= 1
        else:
            raise AssertionError(f"the limit did not hold for {growth}")
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert pool.machine.state_hash() == before
    assert pool.machine.check() == []
    assert pool.allocate(np.arange(12))["status"].tolist() == [layout.SAME] * 10 + [layout.OK] * 2
    rows = [(name, size, count, bytes(data)) for name, size, count, data in pool.machine.snapshot_regions()]
    assert Machine.restore(rows).state_hash() == pool.machine.state_hash()
    pool.send(layout.GROW, sims=2048, terminals=2048, orders=2048)
    assert pool.machine.check() == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space as Linux does")
def test_a_growth_without_memory_changes_nothing() -> None:
    """In a process of its own: the limit holds for all of it, and what goes wrong here is a crash."""
    script = "from tests.core.test_hostile import grow_without_memory; grow_without_memory()"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# -------------------------------------------------------------------------------------- one certificate and the others


def walks(pool: Pool) -> int:
    """How many walks were ever begun."""
    return int(tables(copy_regions(pool.machine))["header"]["sweep_next"][0])


@pytest.mark.parametrize("left_out", [0, 1])
def test_a_hello_that_names_all_leases_makes_no_walk(left_out: int) -> None:
    """Nor does one of a server without any: who says hello in a loop makes no work for others."""
    pool = Pool(sims=40)
    pool.connect(0)
    leases = pool.allocate(np.arange(1, 21))
    before = walks(pool)
    for _ in range(3):
        pool.connect(1)
    assert walks(pool) == before
    session = pool.open(0)
    # Who is named twice does not stand for the one that is left out.
    named: dict[str, Any] = {
        name: np.concatenate([leases[name][left_out:], leases[name][left_out:]]) for name in ("epoch", "iccid")
    }
    keys = np.arange(1 + left_out, 21)
    status = pool.send(
        layout.SESSION_HOLDS,
        2 * len(keys),
        access_server=0,
        argument=session,
        terminal=np.concatenate([keys, keys]),
        **named,
    )
    assert set(status) == {layout.SAME}
    pool.ready(session, 0)
    assert walks(pool) == before + left_out
    pool.settle()
    assert pool.count("assigned") == 20 - left_out
    assert pool.machine.check() == []


def test_what_is_outstanding_is_settled_by_a_walk_over_orders_alone() -> None:
    """All leases were named, so no terminal has to be looked at; the order that nobody answered is sent again."""
    pool = Pool(sims=40)
    pool.connect(0)
    pool.connect(1)
    lease = pool.allocate(1, server=1)
    pool.allocate(1, server=0)
    (stop,) = pool.orders
    del lease
    before = walks(pool)
    pool.connect(1)
    assert walks(pool) == before + 1
    pool.settle()
    assert len(pool.orders) == 2
    assert pool.orders[1] != stop


def test_one_access_server_with_leases_leaves_an_eighth_of_the_terminals_to_others() -> None:
    """It makes names up, each with a lease that it gives back; nobody is ever forgotten."""
    pool = Pool(sims=600, servers=4, terminals=256)
    lease = pool.allocate(np.arange(1, 301), server=0)
    given = lease["status"].tolist()
    assert given == [layout.OK] * 224 + [layout.TERMINALS_FULL] * 76
    pool.send(layout.RELEASE, 224, terminal=np.arange(1, 225), epoch=lease["epoch"][:224])
    assert set(pool.allocate(np.arange(1, 225), server=0)["status"].tolist()) == {layout.OK}
    for server in range(1, 4):
        names = np.arange(1_000 * server, 1_000 * server + 8)
        assert set(pool.allocate(names, server=server)["status"].tolist()) == {layout.OK}
    assert pool.allocate(4_000, server=0)["status"].tolist() == [layout.TERMINALS_FULL]
    assert pool.machine.check() == []


def test_one_access_server_has_all_the_room_where_there_is_no_other() -> None:
    pool = Pool(sims=400, servers=1, terminals=256)
    given = pool.allocate(np.arange(1, 301), server=0)["status"].tolist()
    assert given == [layout.OK] * 256 + [layout.TERMINALS_FULL] * 44


def test_one_access_server_leaves_an_eighth_of_the_subscribers_to_others() -> None:
    """Past it reports are counted at SIM and terminal, and told as those that missed their subscriber."""
    pool = Pool(sims=20, servers=4, terminals=256)

    def use(server: int, subscribers: range) -> None:
        """One subscriber after the other has a lease of one terminal, and uses a byte."""
        for subscriber in subscribers:
            request = commands.run(
                layout.ALLOCATE,
                access_server=server,
                terminal=1 + server,
                subscriber=subscriber,
                expected_bytes=0,
                market=pool.market,
            )
            epoch = pool.apply(request)[0]["epoch"]
            report = {"terminal": 1 + server, "epoch": epoch, "up_bytes": subscriber, "down_bytes": 0}
            assert pool.send(layout.REPORT_USAGE, access_server=server, after_ms=10_000, **report) == [layout.OK]
            assert pool.send(layout.RELEASE, access_server=server, terminal=1 + server, epoch=epoch) == [layout.OK]
            pool.settle()

    use(0, range(1, 301))
    header = pool.machine.header()
    assert (header["subscribers_count"], header["subscribers_missed"]) == (224, 76)
    use(1, range(1_001, 1_009))
    header = pool.machine.header()
    assert (header["subscribers_count"], header["subscribers_missed"]) == (232, 76)


# ------------------------------------------------------------------------------------------------------------ readers


def test_a_look_for_sims_makes_an_object_of_those_it_finds_only() -> None:
    pool = Pool(sims=100)
    for place in (3, 50, 51, 99):
        sim = pool.machine.sim(place)
        pool.send(
            layout.SET_HEALTH,
            iccid=sim["iccid"],
            health=layout.QUARANTINED,
            goodput_kbps=0,
            windows=0,
            confidence_permille=0,
        )
    found = pool.machine.find_sims
    assert found(0, 100, 10, health=layout.QUARANTINED) == ([3, 50, 51, 99], 100)
    assert found(0, 100, 2, health=layout.QUARANTINED) == ([3, 50], 51)
    assert found(51, 99, 10, health=layout.QUARANTINED) == ([51], 99)
    assert found(0, 4_096, 1_000, lot=pool.lot, bank=pool.bank, occupancy=layout.FREE, trusted=True)[0] == [*range(100)]
    assert found(0, 4_096, 1_000, lot=pool.bank) == ([], 100)
    assert found(0, 4_096, 1_000, trusted=False) == ([], 100)
    assert found(200, 300, 10) == ([], 200)


def test_a_job_that_goes_on_behind_a_thousand_later_ones_is_listed() -> None:
    pool = Pool(sims=20)
    first = pool.job()
    pool.settle()
    pool.allocate(1)
    going_on = pool.job(selecting=0)
    for _ in range(1_100):
        pool.job()
        pool.settle()
    numbers = pool.machine.job_ids()
    assert going_on in numbers
    assert first not in numbers
    assert numbers == sorted(numbers)
    assert len(numbers) == 1_024
    assert [pool.machine.job(number)["id"] for number in numbers] == numbers

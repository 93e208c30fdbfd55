"""Reads ``transitions.txt`` and carries out its rows: one world, one state, one command, and what is there after."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from simswitch.core import commands, layout

from tests.model.records import Table
from tests.model.world import (
    COOLING_MS,
    DEADLINE_MS,
    GIB,
    LEASE_MS,
    LINE_BYTES_PER_S,
    MIB,
    OUTAGE_MAX_MS,
    STEP_MS,
    SUBSCRIBER,
    UNKNOWN_ASK_MS,
    World,
    empty_world,
    iccid_number,
)

TABLE = Path(__file__).parents[2] / "engine/simswitch/core/transitions.txt"
NONE = layout.NONE_INDEX
AHEAD_MS = 10 * STEP_MS
FENCING_MS = 30 * STEP_MS
DAY_MS = 86_400_000
TRIED_SPREAD_MS = 3_600_000
SILENCE_MS = 968 * STEP_MS
"""Over a minute, and less than a lease lasts."""
SECOND_MS = 8_000
"""Whole seconds and whole steps of the wheel."""
T = 1
"""The terminal that a row is about; others are there to be in the way."""
OTHER = 2


@dataclass(frozen=True)
class Row:
    line: int
    subject: str
    state: str
    command: str
    when: str
    status: str
    then: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.subject, self.state, self.command, self.when

    def __str__(self) -> str:
        return f"line {self.line}: {self.subject} {self.state}, {self.command}, {self.when}"


def parse(text: str) -> list[Row]:
    """The rows of the table. A line that is neither a comment nor six columns is an error."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        columns = [column.strip() for column in line.split("|")]
        if len(columns) != 6:
            raise ValueError(f"line {number} has {len(columns)} columns, not 6")
        subject, state, command, when, status, then = columns
        rows.append(Row(number, subject, state, command, when, status, tuple(then.split())))
    return rows


@dataclass
class Case:
    """A world in the state before, the command, and what was seen."""

    world: World
    run: bytes = b""
    wait_ms: int = 0
    named_sim: int = 0
    job: int = 0
    server: int = 0
    lot: int = 0
    window: int = 0
    used_bytes: int = 0
    """What counts in the window afterwards."""
    before: dict[str, Table] = field(default_factory=dict)
    after: dict[str, Table] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    orders: list[dict[str, int]] = field(default_factory=list)
    events: list[dict[str, int]] = field(default_factory=list)
    order: int = NONE
    """Index of the order that the row is about."""

    def carry_out(self) -> None:
        world = self.world
        self.before = world.tables()
        self.order = self._find_order(self.before)
        sent, told = len(world.orders), len(world.events)
        if self.run:
            outcome = world.send(self.run)[-1]
            names = [name for name, _ in commands.OUTCOME_COLUMNS[outcome.kind]]
            self.answer = {name: int(outcome[name][-1]) for name in names}
        else:
            world.pass_ms(self.wait_ms)
        self.orders, self.events = world.orders[sent:], world.events[told:]
        self.after = world.tables()
        assert world.machine.check() == []

    @staticmethod
    def _find_order(tables: dict[str, Table]) -> int:
        """The order that is there before the command: a swap if there is one."""
        used = [index for index, order in enumerate(tables["orders"]) if order["state"] != layout.ORDER_UNUSED]
        swaps = [index for index in used if tables["orders"][index]["kind"] == layout.SWITCH]
        return (swaps or used or [NONE])[0]

    def terminal(self, tables: dict[str, Table], key: int = T) -> Any:
        """The terminal's record, or None."""
        found = [record for record in tables["terminals"] if record["key"] == key]
        return found[0] if found else None

    def sim_of(self, tables: dict[str, Table]) -> Any:
        terminal = self.terminal(tables)
        return None if terminal is None or terminal["sim"] == NONE else tables["sims"][terminal["sim"]]

    @property
    def old_sim(self) -> Any:
        """What became of the SIM that the terminal held before."""
        return self.after["sims"][self.terminal(self.before)["sim"]]

    @property
    def old_order(self) -> Any:
        return self.before["orders"][self.order]


# ----------------------------------------------------------------------------------------- states before


def new_world(sims: int = 6, terminals_max: int = 64, orders_max: int = 64) -> World:
    world = empty_world(terminals_max=terminals_max, orders_max=orders_max)
    if sims:
        world.import_sims(sims)
    return world


def allocate(world: World, terminal: int = T, server: int = 0) -> int:
    """Gives a terminal a lease; returns its epoch."""
    (outcome,) = world.send(world.allocate(terminal, server))
    assert outcome["status"][0] in (layout.OK, layout.MOVED), outcome["status"]
    return int(outcome["epoch"][0])


def lease_epoch(world: World, terminal: int = T) -> int:
    index = world.machine.find_terminal(terminal)
    return 1 if index is None else int(world.machine.terminal(index)["epoch"])


def sim_index(world: World, terminal: int = T) -> int:
    index = world.machine.find_terminal(terminal)
    assert index is not None
    sim = world.machine.terminal(index)["sim"]
    assert sim is not None
    return int(sim)


def ordered_target(world: World) -> int:
    found = world.machine.find_sim(world.orders[-1]["target_iccid"])
    assert found is not None
    return found


def list_job(world: World, *terminals: int) -> int:
    """A job with these terminals, its list complete; returns its number."""
    (outcome,) = world.send(world.job_create())
    assert outcome["status"][0] == layout.OK
    job = int(outcome["job"][0])
    for terminal in terminals:
        assert world.status(world.job_add(job, terminal)) == layout.OK
    assert world.status(world.job(layout.JOB_RESUME, job)) == layout.OK
    return job


def order_swap(world: World, terminal: int = T) -> int:
    """Brings the terminal's swap under way; returns the job."""
    job = list_job(world, terminal)
    assert world.orders, "the switch was not sent"
    assert world.orders[-1]["kind"] == layout.SWITCH
    return job


def suspend_target(world: World) -> None:
    """Of the swap that is under way."""
    target = next(order["target"] for order in world.tables()["orders"] if order["kind"] == layout.SWITCH)
    assert world.status(world.set_health(int(target), layout.SUSPENDED)) == layout.OK


def bring(world: World, state: str) -> None:
    """Brings terminal T into a lease state."""
    if state == "unknown":
        return
    allocate(world)
    if state == "none":
        assert world.status(world.lease(layout.RELEASE, T, lease_epoch(world))) == layout.OK
        world.pass_ms(COOLING_MS)
    elif state in ("swapping", "moved"):
        order_swap(world)
    if state == "moved":
        world.send(world.acknowledge(world.orders[-1]["order"], layout.ACK_DONE))


# ---------------------------------------------------------------------------------------- rows on leases

Builder = Callable[[Row], Case]


def _lease_world(row: Row, state: str | None = None, **capacities: int) -> World:
    world = new_world(**capacities)
    bring(world, state or {"any": "held"}.get(row.state, row.state))
    return world


def _allocation(row: Row) -> Case:
    if row.when == "terminals full":
        world = new_world(terminals_max=1)
        allocate(world, OTHER)
        return Case(world, world.allocate(T))
    world = _lease_world(row)
    server, market, run = 0, "home", None
    if row.when == "access server not defined":
        run = world.allocate(T, server=7)
    elif row.when == "market not defined":
        world.entities["nowhere"] = world.entities["gold"]
        run = world.allocate(T, market="nowhere")
    elif row.when == "no free healthy SIM has the expected use left":
        world.send(world.set_health(sim_index(world), layout.THROTTLED))
        run = world.allocate(T, expected_bytes=10**15)
    elif row.when == "other server":
        server = 1
    elif row.when in ("same server", "-") and row.state in ("held", "swapping"):
        world.send(world.set_health(sim_index(world), layout.THROTTLED))
    world.now_ms += STEP_MS
    world.send(commands.run(layout.TICK))
    if row.when.startswith("restored"):
        restored(world, named="has named" in row.when, ready="one server" in row.when)
    return Case(world, run or world.allocate(T, server, market))


def restored(world: World, *, named: bool = False, ready: bool = False) -> None:
    """The folder was restored; access server 0 has said hello since, and the others have not."""
    held = (lease_epoch(world), sim_index(world)) if named or ready else (0, 0)
    world.send(commands.run(layout.RESTART, argument=1))
    world.open_session(0, ready=False)
    if named or ready:
        world.send(world.holds(0, T, *held))
    if ready:
        world.send(world.ready(0))


def _by_epoch(row: Row) -> Case:
    """RENEW, RELEASE, REPORT_USAGE and REPORT_ATTACH_FAILURE."""
    if row.when == "its access server knew of it no more":
        world = new_world()
        epoch = allocate(world)
        named = sim_index(world)
        forget_leases(world)
        return Case(world, world.usage(T, epoch, 3 * MIB), named_sim=named)
    if row.command == "REPORT_USAGE" and ("the lease before" in row.when or row.when.startswith("of its last lease")):
        return _before(row)
    if row.when.startswith("its last one"):
        world, epoch, named = silent_end()
        if "has cooled" in row.when:
            world.pass_ms(COOLING_MS)
        if "a minute ago" in row.when:
            world.pass_ms(SILENCE_MS)
        used = MIB if row.when.endswith("nothing more was used") else 3 * MIB
        if row.when.endswith("all that is expected was used"):
            used = 128 * MIB
        return Case(world, world.usage(T, epoch, used), named_sim=named)
    if "over a minute old" in row.when and row.command == "RELEASE":
        world, epoch, named = silent_lease(128 * MIB if "all that is expected" in row.when else MIB)
        if row.when.endswith("it told the same since"):
            assert world.status(world.usage(T, epoch, MIB)) == layout.LATE
        return Case(world, world.lease(layout.RELEASE, T, epoch), named_sim=named)
    world = _lease_world(row)
    epoch = lease_epoch(world)
    usage = 3 * MIB
    if row.command == "REPORT_USAGE" and row.state in ("held", "swapping"):
        world.send(world.usage(T, epoch, MIB))
    if row.when == "other epoch":
        epoch += 1_000
    elif row.when.startswith("epoch of the order"):
        epoch = world.orders[-1]["epoch"]
        world.pass_ms(SILENCE_MS if row.when.endswith("a minute old") else 0)
    elif row.when == "not above the last report":
        usage = 0
    elif row.when == "the same as the last report":
        usage = MIB
    elif row.when == "later than the longest outage":
        world.pass_ms(OUTAGE_MAX_MS + STEP_MS)
        world.send(world.lease(layout.RENEW, T, epoch))
    elif row.when == "more than the line could carry":
        usage = 10**15
    elif row.when.endswith("quarantined 64 today"):
        world.configure(layout.COOLING_MS, 1)
        for _ in range(64):
            named = sim_index(world)
            world.pass_ms(STEP_MS)
            assert world.status(world.lease(layout.REPORT_ATTACH_FAILURE, T, lease_epoch(world))) == layout.MOVED
            world.send(world.set_health(named, layout.HEALTHY))
        epoch = lease_epoch(world)
    elif row.when == "no other free healthy SIM":
        for sim in range(world.sims_count):
            if sim != sim_index(world):
                world.send(world.set_health(sim, layout.SUSPENDED))
    elif row.when.startswith("restored"):
        restored(world, named=True)
    world.pass_ms(STEP_MS)
    server = 1 if row.when == "from another access server" else 0
    if row.command == "REPORT_USAGE":
        return Case(world, world.usage(T, epoch, usage, server=server))
    return Case(world, world.lease(int(getattr(layout, row.command)), T, epoch, server))


def silent_lease(reported_bytes: int = MIB) -> tuple[World, int, int]:
    """A lease whose only report is over a minute old, its epoch and its SIM."""
    world = new_world()
    epoch = allocate(world)
    assert world.status(world.usage(T, epoch, reported_bytes)) == layout.OK
    world.pass_ms(SILENCE_MS)
    return world, epoch, sim_index(world)


def silent_end() -> tuple[World, int, int]:
    """The same, released."""
    world, epoch, named = silent_lease()
    assert world.status(world.lease(layout.RELEASE, T, epoch)) == layout.OK
    return world, epoch, named


def _before(row: Row) -> Case:
    """A report of 3 MiB, after one of 1 MiB, of a lease that T had before the one it has or had last."""
    world = new_world()
    world.configure(layout.FENCING_MS, FENCING_MS)
    epoch = allocate(world)
    named = sim_index(world)
    world.send(world.usage(T, epoch, MIB))
    world.pass_ms(SECOND_MS)
    if row.state == "moved":
        order_swap(world)
        world.send(world.acknowledge(world.orders[-1]["order"], layout.ACK_DONE))
    elif row.when.startswith("of its last lease"):
        world.send(world.lease(layout.RELEASE, T, epoch))
        tell_to_wait(world, server=1)
    else:
        later = allocate(world, server=1)
        if row.state == "none":
            world.send(world.lease(layout.RELEASE, T, later, server=1))
    if row.when.endswith("is dead"):
        world.send(world.close(0))
        assert world.status(commands.run(layout.DECLARE_DEAD, 1, access_server=0, undo=0)) == layout.OK
        world.pass_ms(FENCING_MS)
        world.send(world.lease(layout.RENEW, T, later, server=1))
    world.pass_ms(STEP_MS)
    usage = {"not above its last report": MIB, "more than the line could carry": 10**15}.get(
        row.when.split(", ")[-1], 3 * MIB
    )
    server = 1 if row.when.endswith("from another access server") else 0
    return Case(world, world.usage(T, epoch, usage, server=server), named_sim=named)


def tell_to_wait(world: World, server: int) -> None:
    """T, which has no lease, asks at an access server that can attach no more just now."""
    world.configure(layout.ADMISSION_QUEUE_MS, 1_000)
    told = {"queue_wait_us": 0, "service_us": 900_000, "waiting": 0, "taken_count": 0, "allocation_wait_us": NONE}
    world.send(commands.run(layout.REPORT_LOAD, 1, access_server=server, argument=world.sessions[server], **told))
    for other in range(OTHER, OTHER + 3):
        world.send(world.allocate(other, server))
    assert world.status(world.allocate(T, server)) == layout.ADMISSION_WAIT


def _adoption(row: Row) -> Case:
    world = _lease_world(row)
    named = 5
    if row.when == "SIM assigned or reserved":
        allocate(world, OTHER)
        named = sim_index(world, OTHER)
    elif row.when == "SIM held by a server that must let go":
        allocate(world, OTHER)
        named = sim_index(world, OTHER)
        allocate(world, OTHER, server=1)
    elif row.when == "it holds that SIM":
        named = sim_index(world)
    elif row.when.endswith("is waited for"):
        world, _, named = silent_end()
    return Case(world, world.adopt(T, named), named_sim=named)


def _expiry(row: Row) -> Case:
    world = _lease_world(row)
    if row.when == "lease expired, grace has not passed":
        world.send(commands.run(layout.RESTART))
    elif row.when == "lease expired while the clock is frozen":
        world.send(commands.run(layout.FREEZE))
    elif row.when == "lease expired, clock thawed less than a lease ago":
        world.send(commands.run(layout.FREEZE))
        world.pass_ms(LEASE_MS // 2)
        world.send(commands.run(layout.THAW))
        return Case(world, wait_ms=LEASE_MS * 3 // 4)
    elif row.when == "lease expired, access server has no session":
        world.send(world.close(0))
    return Case(world, wait_ms=LEASE_MS)


def forget_leases(world: World) -> None:
    """The first access server comes back and knows of no lease."""
    world.pass_ms(SECOND_MS)
    world.open_session(0)
    world.pass_ms(STEP_MS)


def name_elsewhere(world: World, sim: int) -> None:
    """The other access server says that it holds the SIM, under a name of its own, and does not let go of it."""
    world.open_session(1, ready=False)
    assert world.status(world.holds(1, OTHER + 1, 1, sim)) == layout.REVOKED
    world.send(world.ready(1))


def _hello(row: Row) -> Case:
    world = new_world()
    if row.state == "any":
        bring(world, "held")
        allocate(world, OTHER)
        named, epoch = sim_index(world, OTHER), lease_epoch(world, OTHER)
    elif row.state == "none":
        epoch = allocate(world)
        named = sim_index(world)
        if row.when.endswith("it was said to be gone before"):
            forget_leases(world)
        elif row.when.endswith("which another access server is to let go of"):
            name_elsewhere(world, named)
            world.send(world.lease(layout.RELEASE, T, epoch))
            world.pass_ms(COOLING_MS)
        else:
            world.send(world.lease(layout.RELEASE, T, epoch))
    else:
        bring(world, row.state)
        named, epoch = sim_index(world), lease_epoch(world)
        if row.when == "names the target":
            named, epoch = ordered_target(world), world.orders[-1]["epoch"]
    world.open_session(0, ready=False)
    if row.when == "READY was said":
        world.send(world.ready(0))
    return Case(world, world.holds(0, T, epoch, named), named_sim=named)


def _unnamed(row: Row) -> Case:
    world = _lease_world(row)
    world.pass_ms(STEP_MS)
    if row.when.endswith("all that is expected was reported"):
        assert world.status(world.usage(T, lease_epoch(world), 200 * MIB)) == layout.OK
    world.open_session(0, ready=False)
    return Case(world, world.ready(0))


# ------------------------------------------------------------------------------------------ rows on SIMs


def _automatic(row: Row) -> Case:
    """A SIM that turns while it is assigned, with automatic swaps on."""
    world, job = new_world(), 0
    world.configure(layout.AUTOMATIC_SWAPS, 3)
    world.configure(layout.AUTOMATIC_AHEAD_MS, AHEAD_MS)
    allocate(world)
    if row.when == "it is throttled, its terminal's ceiling is met":
        world.configure(layout.SWAPS_PER_DAY_MAX, 1)
        order_swap(world)
        world.send(world.acknowledge(world.orders[-1]["order"], layout.ACK_DONE))
    elif row.when == "it is throttled, its terminal in a job that is held":
        job, _ = list_of(world, T)
    health = layout.LOW if row.when == "it is low, announced ahead" else layout.THROTTLED
    return Case(world, world.set_health(sim_index(world), health), named_sim=sim_index(world), job=job)


def _changed_often(_row: Row) -> Case:
    world = new_world(sims=0)
    plan = {layout.PLAN_QUOTA_CYCLE: 100 * GIB, layout.PLAN_CHANGES_PER_DAY: 2}
    world.define(layout.PLAN, "monthly", plan)
    world.import_sims(1)
    for terminal in (OTHER, T):
        allocate(world, terminal)
        if terminal == OTHER:
            world.send(world.lease(layout.RELEASE, terminal, lease_epoch(world, terminal)))
            world.pass_ms(COOLING_MS)
    return Case(world, world.lease(layout.RELEASE, T, lease_epoch(world)), named_sim=0)


def _carrier_life(row: Row) -> Case:
    world = new_world()
    named = 0
    if "automatic" in row.when:
        world.configure(layout.AUTOMATIC_SWAPS, 3)
    if row.state == "assigned":
        allocate(world)
        named = sim_index(world)
    said, _, before = row.when.partition(", ")
    for health in (layout.THROTTLED, layout.SUSPENDED, layout.QUARANTINED, layout.RETIRED):
        if health.name.lower() in before:
            if health == layout.SUSPENDED:
                world.send(carrier_life(named, layout.LIFE_SUSPENDED))
            else:
                world.send(world.set_health(named, health))
    reason = b"" if before == "no reason" else b"unpaid"
    life = layout.CarrierLife[f"LIFE_{said.upper()}"]
    if before == "ICCID not known":
        return Case(world, carrier_life(10**6, life, reason))
    return Case(world, carrier_life(named, life, reason), named_sim=named)


def carrier_life(sim: int, life: int, reason: bytes = b"unpaid") -> bytes:
    return commands.run(layout.CARRIER_LIFE, 1, reason=np.array([reason], "S64"), iccid=iccid_number(sim), life=life)


def _health(row: Row) -> Case:
    if row.when.startswith(("it is throttled", "it is low")):
        return _automatic(row)
    if "on probation" in row.when:
        return _probed(row)
    if row.when.startswith("slowed"):
        return _tried(row)
    world = new_world()
    health = layout.SUSPENDED
    named = 0
    if row.when == "healthy":
        world.send(world.set_health(named, layout.SUSPENDED))
        health = layout.HEALTHY
    elif row.when.startswith("observed"):
        before = layout.THROTTLED if row.when.endswith("throttled") else layout.QUARANTINED
        world.send(world.set_health(named, before))
        evidence = {"goodput_kbps": 384, "windows": 2, "confidence_permille": 999}
        run = commands.set_health([iccid_number(named)], layout.HEALTHY, **evidence)
        return Case(world, run, named_sim=named)
    elif row.when == "it is retired":
        world.send(world.set_health(named, layout.RETIRED))
        health = layout.HEALTHY
    elif row.when == "ICCID not known":
        return Case(world, world.set_health(10**6, health))
    elif row.state == "assigned":
        allocate(world)
        named = sim_index(world)
    elif row.state == "reserved":
        bring(world, "swapping")
        named = int(world.tables()["orders"]["target"][0])
    elif row.state == "cooling":
        epoch = allocate(world)
        named = sim_index(world)
        world.send(world.lease(layout.RELEASE, T, epoch))
    return Case(world, world.set_health(named, health), named_sim=named)


def _cooling(row: Row) -> Case:
    if row.when.startswith("its lot works"):
        return _lot_dates(row)
    if row.when.startswith("the lot that ended"):
        return _lot_order(row)
    if row.when.startswith("slowed"):
        return _probed(row) if "starts anew" in row.when else _tried(row)
    if row.when.endswith("is waited for"):
        world, _, named = silent_end()
        return Case(world, wait_ms=COOLING_MS, named_sim=named)
    world = new_world()
    epoch = allocate(world)
    named = sim_index(world)
    if row.state == "held":
        world.send(world.close(1))
        world.send(world.close(0))
        allocate(world, T, server=1)
    else:
        world.send(world.lease(layout.RELEASE, T, epoch))
    return Case(world, wait_ms=COOLING_MS, named_sim=named)


# ---------------------------------------------------------------------------------------- rows on caps


def _cap(row: Row) -> Case:
    """The cycle's cap of gold-a, which its plan has, or the day's, which it has not; one SIM has used something."""
    world = new_world()
    world.send(world.usage(T, allocate(world), 3 * MIB))
    window = layout.WINDOW_DAY if row.state == "none" else layout.WINDOW_CYCLE
    quota, basis = 30 * GIB, layout.BASIS_LEARNED
    at_ms = 0
    if row.when == "of a cycle":
        world.define(layout.PLAN, "monthly", {})
        window = layout.WINDOW_CYCLE
    elif row.when == "of a window that began anew":
        assert world.status(world.schedule("gold-a", window, world.now_ms)) == layout.OK
        world.pass_ms(2 * SECOND_MS)
        world.send(world.usage(T, lease_epoch(world), 5 * MIB))
    elif row.when.startswith("of a window that never began"):
        world.send(world.lease(layout.RELEASE, T, lease_epoch(world)))
        world.pass_ms(DAY_MS)
    if row.state == "set":
        assert world.status(world.set_cap("gold-a", window, quota)) == layout.OK
        quota = -1
    elif row.state == "waiting" or row.when == "from a later instant on":
        at_ms = world.now_ms + 3 * STEP_MS
    elif row.when == "what is in force":
        quota, basis = 100 * GIB, layout.BASIS_BELIEVED
    elif row.when == "a rolling one, its plan has no days":
        window = layout.WINDOW_ROLLING
    elif row.when == "lot not defined":
        world.entities["gold-a"] = world.entities["gold"]
    run = world.set_cap("gold-a", window, quota, basis, at_ms)
    if row.state == "waiting":
        assert world.status(run) == layout.OK
    if row.when.startswith("from another instant on"):
        run = world.set_cap("gold-a", window, quota, basis, at_ms + STEP_MS, replaces=row.when.endswith("in its place"))
    world.pass_ms(STEP_MS)
    if row.when == "its instant has come while the clock is frozen":
        world.send(commands.run(layout.FREEZE))
    if row.command == "(timer)":
        case = Case(world, wait_ms=2 * STEP_MS, named_sim=0, lot=world.entities["gold-a"])
    else:
        case = Case(world, run, named_sim=0, lot=world.entities["gold-a"])
    case.window = window - 1
    return case


def _cap_changed(row: Row) -> Case:
    world = new_world()
    lot = "gold" if row.when == "lot not defined" else "gold-a"
    window = 4 if row.when == "a window that there is not" else layout.WINDOW_CYCLE
    case = Case(world, world.cap_changed(lot, window), named_sim=0, lot=world.entities["gold-a"])
    case.window = layout.WINDOW_CYCLE - 1
    return case


def _reset(row: Row) -> Case:
    """The cycle of gold-a, whose SIM 0 has used something."""
    world = new_world()
    world.send(world.usage(T, allocate(world), 3 * MIB))
    window, spread_ms = layout.WINDOW_CYCLE, 0
    at_ms = world.now_ms + 3 * STEP_MS
    if row.state == "under_way" or row.when == "its instant has come, it is spread":
        spread_ms = 20 * STEP_MS
    if row.state != "none":
        assert world.status(world.schedule("gold-a", window, at_ms, spread_ms)) == layout.OK
    if row.state == "under_way":
        world.pass_ms(3 * STEP_MS)
    if row.when == "the instant of the last one":
        assert world.status(world.schedule("gold-a", window, world.now_ms)) == layout.OK
        at_ms = world.now_ms
    elif row.when == "an instant that is past":
        at_ms = world.now_ms - STEP_MS
    elif row.when == "another instant":
        at_ms += STEP_MS
    elif row.when == "no instant":
        at_ms = 0
    elif row.when == "a rolling one, its plan has no days":
        window = layout.WINDOW_ROLLING
    elif row.when == "lot not defined":
        world.entities["gold-a"] = world.entities["gold"]
    elif row.when == "its instant has come while the clock is frozen":
        world.send(commands.run(layout.FREEZE))
    wait_ms = 32 * STEP_MS if row.state == "under_way" else 3 * STEP_MS
    run = b"" if row.command == "(timer)" else world.schedule("gold-a", window, at_ms, spread_ms)
    case = Case(world, run, wait_ms=wait_ms, named_sim=0, lot=world.entities["gold-a"])
    case.window = window - 1
    return case


def _figure_of_import(row: Row) -> Case:
    """SIM 0 was imported with 10 MiB of its cycle, up to two seconds ago; the carrier says 4 of before then, or 14."""
    world = new_world(sims=0)
    as_of_s = world.now_ms // 1000 - 2
    world.import_sims(1, opening_bytes=10 * MIB, as_of_s=as_of_s)
    later = row.when.startswith("of after")
    told = (14 if later else 4) * MIB
    return Case(world, world.figure(0, told, 0, as_of_s + (1 if later else -1)), used_bytes=told)


def _figure_of_yesterday() -> Case:
    """The day of gold-a has not begun anew yet, and will in three hours: the figure is of more than a day before."""
    world = new_world()
    hours = 3 * 3_600 * SECOND_MS
    assert world.status(world.schedule("gold-a", layout.WINDOW_DAY, world.now_ms + hours)) == layout.OK
    as_of_s = (world.now_ms + hours - DAY_MS) // 1000 - 1
    return Case(world, world.figure(0, 10 * MIB, 0, as_of_s, int(layout.WINDOW_DAY)))


POOL_BYTES = 10 * GIB
"""What six SIMs share in a cycle; they are low with a 32nd of it left, and exhausted with a 128th."""


def _pool(row: Row) -> Case:
    """T has a lease of a SIM of the pool, unless it asks for one."""
    if (
        row.command == "POOL_USAGE"
        or row.when.startswith(("of before the pool", "of after the pool"))
        or "had" in row.when
    ):
        return _pool_figure(row)
    world = new_world(sims=0)
    quota = {
        layout.PLAN_QUOTA_CYCLE: POOL_BYTES,
        layout.PLAN_LOW_BYTES: 64 * MIB,
        layout.PLAN_EXHAUSTED_BYTES: 16 * MIB,
    }
    world.define(layout.PLAN, "monthly", {**quota, layout.PLAN_POOLED: 1})
    lot = world.entities["gold-a"]
    world.import_sims(6)
    holds = "who holds" in row.when or row.command != "ALLOCATE"
    terminal = T if holds else OTHER
    asks, another = world.allocate(T), row.when.endswith(("another lot", "not of another", "swaps are on"))
    if row.when.startswith("leases"):
        world.send(world.allocate(OTHER, expected_bytes=8 * GIB))
        asks = world.allocate(T, expected_bytes=3 * GIB)
    elif holds or row.state != "plenty":
        allocate(world, terminal)
    if another:
        # Without the reserve of its class, so that a swap may take the one SIM that the pool has not.
        world.define(layout.PLAN, "daily", {**quota, layout.PLAN_QUOTA_CYCLE: 3 * POOL_BYTES})
        world.import_sims(2, "gold-b")
    if "automatic" in row.when:
        world.configure(layout.AUTOMATIC_SWAPS, 3)
    epoch = lease_epoch(world, terminal)
    used = {
        "low": POOL_BYTES - 300 * MIB,
        "exhausted": POOL_BYTES - 50 * MIB,
    }
    world.pass_ms(2 * SECOND_MS)
    if row.state != "plenty":
        assert world.status(world.usage(terminal, epoch, used[row.state])) == layout.OK
    case = Case(world, asks, lot=lot, named_sim=0)
    if row.command == "DEFINE":
        record = np.frombuffer(commands.definition(layout.PLAN, "monthly", quota), "V1024")
        case.run = commands.run(layout.DEFINE, 1, definition=record)
    elif row.command == "RELEASE":
        case.run = world.lease(layout.RELEASE, T, epoch)
    elif row.command == "REPORT_USAGE":
        words = row.when.split()
        more = used[words[3]] if len(words) > 3 else 3 * MIB
        world.pass_ms(2 * SECOND_MS)
        case.run = world.usage(T, epoch, more)
    elif row.command == "SET_CAP":
        case.run = world.set_cap("gold-a", layout.WINDOW_CYCLE, 2 * POOL_BYTES)
    elif row.command == "SCHEDULE":
        case.run = world.schedule("gold-a", layout.WINDOW_CYCLE, world.now_ms)
    elif row.command == "CARRIER_USAGE":
        world.send(world.usage(T, epoch, 3 * MIB))
        told = POOL_BYTES - 50 * MIB if row.when.startswith("nearly") else 10 * MIB
        case.run, case.used_bytes = world.figure(0, told, 3 * MIB, world.now_ms // 1000), told
    elif row.command == "(dispatch)":
        list_job(world, T) if row.when == "a swap within it" else None
        case.run = commands.run(layout.TICK)
    elif row.command == "SESSION_READY":
        world.open_session(0, ready=False)
        case.run = world.ready(0)
    elif row.when == "lease expired":
        case.run, case.wait_ms = b"", LEASE_MS
    elif row.command == "(timer)":
        world.send(world.schedule("gold-a", layout.WINDOW_CYCLE, world.now_ms + STEP_MS, 1_000 * STEP_MS))
        case.run, case.wait_ms = b"", STEP_MS
    return case


def _pool_figure(row: Row) -> Case:
    """Gold-a shares a cycle: 3 MiB were counted by an instant and 5 are by now; the carrier says 10 of then."""
    world = new_world(sims=0)
    quotas = {layout.PLAN_QUOTA_CYCLE: POOL_BYTES, layout.PLAN_POOLED: 1}
    quotas |= {layout.PLAN_LOW_BYTES: 64 * MIB, layout.PLAN_EXHAUSTED_BYTES: 16 * MIB}
    for plan in ("monthly", "daily"):
        world.define(layout.PLAN, plan, quotas)
    world.import_sims(6)
    epoch = allocate(world)
    world.pass_ms(2 * SECOND_MS)
    world.send(world.usage(T, epoch, 3 * MIB))
    as_of_s, lot, window, straddling = world.now_ms // 1000, "gold-a", int(layout.WINDOW_CYCLE), 0
    sims_bytes = 0
    world.pass_ms(2 * SECOND_MS)
    now = 5 * MIB if row.state == "plenty" else POOL_BYTES - 50 * MIB
    world.send(world.usage(T, epoch, now))
    told, counted = 10 * MIB, 3 * MIB
    if row.command != "POOL_USAGE" or row.when.startswith(("the same", "of an earlier", "of a later", "another")):
        assert world.status(world.pool_figure(lot, told, counted, as_of_s)) == layout.OK
    if row.when.endswith("ended without a word"):
        forget_leases(world)
    world.pass_ms(SECOND_MS)
    case = Case(world, lot=world.entities[lot], named_sim=0, used_bytes=told + now - counted)
    if row.command == "CARRIER_USAGE":
        if row.when.endswith("less again"):
            assert world.status(world.figure(0, told + 40 * MIB, counted, as_of_s)) == layout.OK
        if row.when.startswith("of before the pool's own figure"):
            more = 40 * MIB if row.when.endswith("more than it") else 0
            case.run = world.figure(0, told + more, counted, as_of_s)
            case.used_bytes += more
        else:
            more = -4 * MIB if "less" in row.when else 4 * MIB
            case.run = world.figure(0, now + more, now, world.now_ms // 1000)
            case.used_bytes += max(more, 0)
        return case
    if row.when.endswith(("starts anew, it had a figure", "has started anew", "began", "just now")):
        spread_ms = 40_000_000 if row.when.endswith("just now") else 0
        world.send(world.schedule(lot, window, world.now_ms + SECOND_MS, spread_ms))
        if row.command == "(timer)":
            case.wait_ms = SECOND_MS
            return case
        world.pass_ms(SECOND_MS)
        if spread_ms:
            as_of_s = world.now_ms // 1000
    if row.when == "lot not defined":
        lot = "nobody's"
    elif row.when == "of a lot without SIMs":
        lot, counted = "gold-b", 0
    elif row.when == "a window that there is not":
        window = 5
    elif row.when == "of a window that its SIMs don't share":
        window = layout.WINDOW_DAY
    elif row.when == "no instant":
        as_of_s = 0
    elif row.when == "more counted by then than ever":
        counted = 6 * MIB
    elif row.when == "more straddles than was counted":
        straddling = counted + 1
    elif row.when == "negative":
        told = -1
    elif row.when == "of an instant to come":
        as_of_s = world.now_ms // 1000 + 1
    elif row.when == "more than its SIMs could carry":
        told = 6 * (31 * DAY_MS // 1000 + 2) * LINE_BYTES_PER_S
    elif row.when == "of an earlier instant":
        as_of_s -= 1
    elif row.when in ("less than we counted", "another of the same instant"):
        told, counted = 2 * MIB, now if row.state != "plenty" else counted
    elif row.when == "a report straddles its instant":
        counted, straddling = 4 * MIB, MIB
    elif row.when.startswith("of a later instant"):
        as_of_s += 1
        told += -MIB if row.when.endswith("less than before") else MIB
    elif row.when.endswith("told since"):
        assert world.status(world.figure(0, 50 * MIB, counted, as_of_s)) == layout.OK
    elif "SIM of it" in row.when:
        of_another = row.when.endswith("of another one later on")
        instant_s = as_of_s + (1 if row.when.endswith("later on") and not of_another else 0)
        assert world.status(world.figure(0, 50 * MIB, counted, instant_s)) == layout.OK
        if of_another:
            assert world.status(world.figure(1, MIB, 0, as_of_s + 1)) == layout.OK
        if row.when.endswith("later on"):
            # All that was said of the SIMs, and what was counted since on the one that was told last.
            sims_bytes = 51 * MIB if of_another else 50 * MIB + now - counted
    elif "two SIMs of it" in row.when:
        sims = [(0, counted), (1, 0)]
        more = 0 if row.when.endswith("as much") else 1
        told_of = [world.status(world.figure(sim, 5 * MIB + more, then, as_of_s)) for sim, then in sims]
        assert told_of == [layout.OK, layout.OK]
    elif row.when == "of after a lease that ended without a word":
        counted, as_of_s = now, world.now_ms // 1000
    elif row.when == "nearly all that there is":
        told = POOL_BYTES - 50 * MIB
    dry_run = row.when == "a dry run"
    case.run = world.pool_figure(lot, told, counted, as_of_s, window, dry_run, straddling)
    case.used_bytes = max(told + now - counted, sims_bytes)
    return case


def _figure(row: Row) -> Case:
    """SIM 0, in the cycle of gold-a: 3 MiB were counted by an instant and 5 are by now; the carrier says 10 of then."""
    if "its lot has none" in row.when or row.when.endswith(("is to come", "that starts anew")):
        return _figure_of_window(row)
    if row.when == "of the day before its lot's first":
        return _figure_of_yesterday()
    if row.when.endswith("the SIM's import"):
        return _figure_of_import(row)
    if row.when.startswith(("of a day", "of the day", "of the lot's first day")):
        return _figure_of_day(row)
    world = new_world()
    epoch = allocate(world)
    world.pass_ms(SECOND_MS)
    world.send(world.usage(T, epoch, 3 * MIB))
    as_of_s, window = world.now_ms // 1000, int(layout.WINDOW_CYCLE)
    world.pass_ms(SECOND_MS)
    world.send(world.usage(T, epoch, 5 * MIB))
    if row.when.endswith("ended without a word"):
        forget_leases(world)
    else:
        world.send(world.lease(layout.RELEASE, T, epoch))
    world.pass_ms(SECOND_MS)
    told, counted, straddling = 10 * MIB, 3 * MIB, 0
    if row.state == "told":
        assert world.status(world.figure(0, told, counted, as_of_s)) == layout.OK
    starts_anew = {"its window starts anew", "its window starts anew just now"}
    if row.when in starts_anew or row.when.endswith("has started anew") or row.when == "of before its window began":
        spread_ms = 100 * SECOND_MS if row.when.endswith("just now") else 0
        world.send(world.schedule("gold-a", window, world.now_ms + SECOND_MS, spread_ms))
        if row.command == "(timer)":
            return Case(world, wait_ms=SECOND_MS, named_sim=0)
        world.pass_ms(SECOND_MS)
        if row.when.endswith("just now"):
            return Case(world, world.figure(0, told, 0, world.now_ms // 1000), named_sim=0)
    elif row.when.startswith("more in the day"):
        window = layout.WINDOW_DAY
        assert world.status(world.set_cap("gold-a", window, GIB)) == layout.OK
        if row.when.endswith("began in it"):
            assert world.status(world.schedule("gold-a", layout.WINDOW_CYCLE, world.now_ms)) == layout.OK
            world.pass_ms(SECOND_MS)
    elif row.when.startswith("less in the cycle"):
        assert world.status(world.set_cap("gold-a", layout.WINDOW_DAY, GIB)) == layout.OK
        later_s = as_of_s + int(row.when.endswith("later on"))
        assert world.status(world.figure(0, told, counted, later_s, layout.WINDOW_DAY)) == layout.OK
        told -= 1
    elif row.when == "a window that there is not":
        window = 5
    elif row.when.startswith("a rolling one"):
        window = layout.WINDOW_ROLLING
    elif row.when.startswith("more counted"):
        counted = 6 * MIB
    elif row.when == "more straddles than was counted":
        straddling = counted + 1
    elif row.when == "a report straddles its instant":
        counted, straddling = 4 * MIB, MIB
    elif row.when == "more than since its lot works":
        numbers = {layout.LOT_SUPPLIER: "supplier", layout.LOT_PLAN: "monthly", layout.LOT_CLASS: "gold"}
        by_index = {place: world.entities[name] for place, name in numbers.items()}
        world.define(layout.LOT, "gold-a", {**by_index, layout.LOT_ACTIVE_FROM_S: as_of_s - 10})
        told = 12 * LINE_BYTES_PER_S
    elif row.when == "negative":
        told = -1
    elif row.when == "of an instant to come":
        as_of_s = world.now_ms // 1000 + 1
    elif row.when == "more than the line could carry":
        told = (31 * DAY_MS // 1000 + 2) * LINE_BYTES_PER_S
    elif row.when == "as much as its cap":
        told = 100 * GIB
    elif row.when in ("less than we counted", "another of the same instant"):
        told = 2 * MIB
    elif row.when == "of an earlier instant":
        as_of_s -= 1
    elif row.when == "of longer ago than its window lasts":
        as_of_s -= 32 * 86_400
    elif row.when == "of after a lease that ended without a word":
        as_of_s, counted = world.now_ms // 1000, 5 * MIB
    elif row.when.startswith("of a later instant"):
        as_of_s, told, counted = as_of_s + 1, (9 if row.when.endswith("less than before") else 12) * MIB, 4 * MIB
    sim, dry_run = 999 if row.when == "ICCID not known" else 0, row.when == "a dry run"
    case = Case(world, world.figure(sim, told, counted, as_of_s, window, dry_run, straddling))
    case.used_bytes = told + 5 * MIB - counted
    return case


def _figure_of_window(row: Row) -> Case:
    """An unused SIM, of gold-a with a cap of the cycle alone or of gold-b with one of the day alone."""
    world = empty_world()
    world.define(layout.PLAN, "daily", {layout.PLAN_QUOTA_DAY: 3 * GIB})
    lot, window = ("gold-b", layout.WINDOW_CYCLE) if "cycle" in row.when else ("gold-a", layout.WINDOW_DAY)
    world.import_sims(1, lot)
    later_ms = world.now_ms + 100 * STEP_MS
    if row.when.endswith("is to come"):
        assert world.status(world.set_cap(lot, window, GIB, at_ms=later_ms)) == layout.OK
    elif row.when.endswith("that starts anew"):
        assert world.status(world.schedule(lot, window, later_ms)) == layout.OK
    case = Case(world, world.figure(0, 10 * MIB, 0, world.now_ms // 1000, window), used_bytes=10 * MIB)
    case.window = window - 1
    return case


def _figure_of_first_day(row: Row) -> Case:
    """SIM 0 of gold-b with three rolling days, none of which has turned: 3 MiB today, which is over in six hours."""
    world = empty_world()
    world.import_sims(1, "gold-b")
    rolling = layout.WINDOW_ROLLING
    ended_s = begun_s = world.now_ms // 1000 - 18 * 3_600
    if row.when.endswith("when days begin"):
        ended_s = world.now_ms // DAY_MS * DAY_MS // 1000
    else:
        world.send(world.schedule("gold-b", rolling, world.now_ms + 6 * 3_600_000))
        ended_s += 13 * 3_600 if row.when.endswith("not over") else 3_600
    epoch = allocate(world)
    world.pass_ms(SECOND_MS)
    world.send(world.usage(T, epoch, 3 * MIB))
    if row.when.endswith("whole window holds"):
        assert world.status(world.figure(0, 9 * MIB, 0, begun_s - 3_600, rolling)) == layout.OK
    return Case(world, world.figure(0, 2 * MIB, 0, ended_s, layout.ROLLING_DAY), used_bytes=5 * MIB)


def _figure_of_day(row: Row) -> Case:
    """SIM 0 of gold-b with three rolling days: 1 MiB on the day before yesterday, 2 yesterday and 3 today."""
    if "the lot's first" in row.when:
        return _figure_of_first_day(row)
    world = empty_world()
    lot, rolling = "gold-a" if row.when.endswith("has no days") else "gold-b", layout.WINDOW_ROLLING
    if row.when.endswith("for several"):
        world.define(layout.PLAN, "daily", {layout.PLAN_QUOTA_ROLLING: 10 * GIB, layout.PLAN_ROLLING_DAYS: 30})
    world.import_sims(1, lot=lot)
    epoch = allocate(world)
    total = 0
    for day in (1, 2):
        world.pass_ms(SECOND_MS)
        total += day * MIB
        world.send(world.usage(T, epoch, total))
        if row.when.endswith("began after it"):
            world.send(world.schedule(lot, layout.WINDOW_CYCLE, world.now_ms))
        world.send(world.schedule(lot, rolling, world.now_ms))
        world.pass_ms(SECOND_MS)
    ended_s = world.now_ms // 1000 - 1
    world.send(world.usage(T, epoch, total + 3 * MIB))
    told, used = 2 * MIB, 6 * MIB
    if row.when.endswith("negative"):
        told = -1
    elif row.when.endswith("whole window holds"):
        assert world.status(world.figure(0, 9 * MIB, 6 * MIB, world.now_ms // 1000, rolling)) == layout.OK
    elif row.when.endswith("just now"):
        world.send(world.schedule(lot, rolling, world.now_ms + SECOND_MS, 100 * SECOND_MS))
        world.pass_ms(SECOND_MS)
    elif row.when.endswith("not over"):
        world.pass_ms(DAY_MS)
        ended_s += 86_400 // 2 + 5
    elif row.when.endswith("left the window"):
        ended_s -= 2 * 86_400
    elif row.when.endswith("on several"):
        # The clock is frozen when a day is over: what is counted then is of that or of the next, which is over too.
        world.send(commands.run(layout.FREEZE))
        world.send(world.schedule(lot, rolling, world.now_ms))
        world.pass_ms(SECOND_MS)
        world.send(world.usage(T, epoch, total + 4 * MIB))
        world.send(commands.run(layout.THAW))
        world.pass_ms(SECOND_MS)
        ended_s, told = world.now_ms // 1000, 4_096
        world.send(world.schedule(lot, rolling, world.now_ms))
        world.pass_ms(SECOND_MS)
    elif row.when.endswith("could carry"):
        # So slow a line that nothing else makes it impossible.
        world.configure(layout.LINE_BYTES_PER_S, MIB)
        told = (25 * 3_600 + 2) * MIB
    elif row.when.endswith("less than we counted"):
        # The day's end need not be told to the minute.
        ended_s, told, used = ended_s - 3_600, 4_096, 4 * MIB + 4_096
    elif "more than" in row.when:
        told, used = 7 * MIB, 11 * MIB
    case = Case(world, world.figure(0, told, 0, ended_s, layout.ROLLING_DAY), named_sim=0)
    if row.when.endswith("the same again"):
        world.send(case.run)
    elif "and then" in row.when:
        # Whole 4 KiB count, and 4,095 bytes less than that may be what was told.
        assert world.status(world.figure(0, 9 * MIB - 4_095, 0, ended_s, layout.ROLLING_DAY)) == layout.OK
        used = 9 * MIB - 4_095 - (1 if "less" in row.when else 0)
        early = 1 if row.when.endswith("before its end") else 0
        case.run = world.figure(0, used, total + 3 * MIB, ended_s - early, rolling)
    case.used_bytes = used
    return case


def _probed(row: Row) -> Case:
    """SIM 0, which was slowed and whose cycle has started anew, or is about to."""
    world = new_world(sims=1)
    cycle = layout.WINDOW_CYCLE
    world.send(world.set_health(0, layout.THROTTLED))
    if row.command == "(timer)":
        if row.when.endswith("nothing is probed"):
            world.configure(layout.PROBE_KBPS, 0)
        world.send(world.schedule("gold-a", cycle, world.now_ms + STEP_MS))
        return Case(world, wait_ms=STEP_MS, named_sim=0)
    world.send(world.schedule("gold-a", cycle, world.now_ms))
    if row.command == "ALLOCATE":
        (lot,) = (lot for lot in world.machine.entities(layout.LOT) if lot["name"] == "gold-a")
        ends = {layout.LOT_VALID_UNTIL_S: (world.now_ms + DAY_MS) // 1000}
        world.define(layout.LOT, "gold-a", dict(enumerate(lot["numbers"])) | ends)
        # Next to nothing is left of the other one where nobody is trusted with more.
        world.import_sims(1, "gold-b", opening_bytes=0 if row.when.endswith("its class") else 50 * GIB - 200 * MIB)
        return Case(world, world.allocate(T), named_sim=0)
    if row.state == "free":
        return Case(world, world.set_health(0, layout.HEALTHY), named_sim=0)
    epoch = allocate(world)
    world.pass_ms(5 * SECOND_MS)
    if row.command == "SET_HEALTH":
        return Case(world, world.set_health(0, layout.THROTTLED), named_sim=0)
    # Four seconds of 6,000 kbit/s are 3 MB.
    fared = {"goodput_kbps": 5_000 if row.when.endswith("slow") else 6_000, "span_ms": 4_000, "demand_permille": 1_000}
    used = 3 * MIB
    if row.when.endswith("burst"):
        fared["span_ms"], used = 1_000, 900_000
    elif row.when.endswith("nobody wanted"):
        fared["demand_permille"] = 0
    elif row.when.endswith("was counted"):
        used = 2 * MIB
    return Case(world, world.usage(T, epoch, used, **fared), named_sim=0)


def prepay(world: World, name: str = "gold-a") -> None:
    """Has the lot's quota end with it."""
    (lot,) = (lot for lot in world.machine.entities(layout.LOT) if lot["name"] == name)
    world.define(layout.LOT, name, dict(enumerate(lot["numbers"])) | {layout.LOT_PREPAID: 1})


def _tried(row: Row) -> Case:
    """SIM 0 of a lot of two, which is slowed; the day and the hour over which they take turns have passed since."""
    world = new_world(sims=2)
    world.configure(layout.LEASE_MS, 2 * DAY_MS)
    reset = world.schedule("gold-a", layout.WINDOW_CYCLE, world.now_ms + 31 * DAY_MS)
    if "reset is known" in row.when and "no reset" not in row.when:
        world.send(reset)
    if "nothing is probed" in row.when:
        world.configure(layout.PROBE_KBPS, 0)
    if "prepaid" in row.when:
        prepay(world)
    if "has ended" in row.when:
        (lot,) = (lot for lot in world.machine.entities(layout.LOT) if lot["name"] == "gold-a")
        ends = {layout.LOT_VALID_UNTIL_S: world.now_ms // 1_000}
        world.define(layout.LOT, "gold-a", dict(enumerate(lot["numbers"])) | ends)
    if "nothing is left" in row.when:
        world.send(world.set_cap("gold-a", layout.WINDOW_CYCLE, 0))
    epoch = allocate(world) if row.state == "assigned" or "let go of" in row.when else 0
    named = sim_index(world) if epoch else 0
    slowed = world.set_health(named, layout.THROTTLED)
    if row.command == "SET_HEALTH":
        return Case(world, slowed, named_sim=named)
    world.send(slowed)
    if "reset was known" in row.when:
        world.send(reset)
        world.send(world.schedule("gold-a", layout.WINDOW_CYCLE, 0))
    if epoch and row.state == "free":
        world.pass_ms(DAY_MS // 2)
        world.send(world.lease(layout.RELEASE, T, epoch))
        world.pass_ms(DAY_MS // 2)
    else:
        world.pass_ms(DAY_MS - (STEP_MS if "less than" in row.when else 0))
    return Case(world, wait_ms=0 if "less than" in row.when else TRIED_SPREAD_MS, named_sim=named)


def _lot_order(row: Row) -> Case:
    """SIM 0, whose lot ends in 60 days, and another one of its class in 30."""
    world = new_world(sims=2)
    world.import_sims(1, "gold-b")
    daily = {layout.LOT_PLAN: world.entities["daily"]}
    monthly = {layout.LOT_PLAN: world.entities["monthly"]}
    ends_s = {days: (world.now_ms + days * DAY_MS) // 1000 for days in (20, 30, 60)}

    def defined(plan: dict[int, int], days: int | None, name: str) -> bytes:
        places = {layout.LOT_SUPPLIER: world.entities["supplier"], layout.LOT_CLASS: world.entities["gold"]}
        ends = {layout.LOT_VALID_UNTIL_S: ends_s[days]} if days else {}
        record = np.frombuffer(commands.definition(layout.LOT, name, {**places, **plan, **ends}), "V1024")
        return commands.run(layout.DEFINE, 1, definition=record)

    for plan, days, name in ((monthly, 60, "gold-a"), (daily, 30, "gold-b")):
        assert world.status(defined(plan, days, name)) == layout.OK
    assert int(world.tables()["groups"]["rank"][0]) == 1
    if row.command == "(timer)":
        return Case(world, wait_ms=30 * DAY_MS, named_sim=0)
    moved = {"before": 20, "with": 30, "no": None}[row.when.split()[3]]
    return Case(world, defined(monthly, moved, "gold-a"), named_sim=0)


def _lot_dates(row: Row) -> Case:
    """SIM 0, whose lot works until an instant, or from one on."""
    world = new_world(sims=2)
    if row.state == "assigned":
        allocate(world)
        world.configure(layout.AUTOMATIC_SWAPS, 3)
    second = world.now_ms // 1000 + 2
    numbers = {
        layout.LOT_SUPPLIER: world.entities["supplier"],
        layout.LOT_PLAN: world.entities["monthly"],
        layout.LOT_CLASS: world.entities["gold"],
    }
    works_no_longer = row.when.startswith("its lot works no longer")
    place = layout.LOT_VALID_UNTIL_S if works_no_longer else layout.LOT_ACTIVE_FROM_S
    world.define(layout.LOT, "gold-a", {**numbers, place: second})
    world.pass_ms(STEP_MS)
    health = layout.HEALTHY if works_no_longer else layout.EXHAUSTED
    assert int(world.tables()["sims"]["health"][0]) == health
    return Case(world, wait_ms=2_000, named_sim=0, lot=world.entities["gold-a"])


# ---------------------------------------------------------------------------------------- rows on orders


def _queued(row: Row) -> Case:
    world = new_world(sims=6)
    allocate(world)
    if row.when == "no target above the reserve":
        for sim in range(world.sims_count):
            if sim not in (sim_index(world), (sim_index(world) + 1) % world.sims_count):
                world.send(world.set_health(sim, layout.SUSPENDED))
        return Case(world, wait_ms=STEP_MS, job=list_job(world, T))
    if row.when == "gate not open, or window full":
        world.send(world.close(0))
        return Case(world, wait_ms=STEP_MS, job=list_job(world, T))
    if row.when == "its job announces ahead":
        job, run = list_of(world, T, announce_ahead_ms=AHEAD_MS)
        world.send(commands.run(layout.SWAPS_STOP))
        world.send(run)
        return Case(world, commands.run(layout.SWAPS_LIFT), job=job)
    if row.state == "announced":
        return _announced(row, world)
    world.send(commands.run(layout.SWAPS_STOP))
    job = list_job(world, T)
    if row.command == "RELEASE":
        return Case(world, world.lease(layout.RELEASE, T, lease_epoch(world)), job=job)
    return Case(world, commands.run(layout.SWAPS_LIFT), job=job)


def _announced(row: Row, world: World) -> Case:
    job, run = list_of(world, T, announce_ahead_ms=AHEAD_MS)
    world.send(run)
    if row.command == "RELEASE":
        return Case(world, world.lease(layout.RELEASE, T, lease_epoch(world)), job=job)
    if row.when == "its instant has come, its job is paused":
        world.send(world.job(layout.JOB_PAUSE, job))
    if row.when == "its instant has come, its access server is paused":
        world.send(commands.run(layout.SERVER_PAUSE, access_server=0))
    return Case(world, wait_ms=AHEAD_MS, job=job)


def _acknowledged(row: Row) -> Case:
    world = new_world()
    result = int(getattr(layout, "ACK_" + row.command.partition(" ")[2]))
    job = 0
    if row.when == "stop or revoke":
        allocate(world)
        allocate(world, T, server=1)
    elif row.when.startswith("revoke"):
        allocate(world)
        world.pass_ms(LEASE_MS)
    else:
        bring(world, "held")
        job = order_swap(world)
    order = world.orders[-1]["order"]
    session = world.sessions[0]
    if row.when == "no attempts left":
        while world.machine.job(job)["refused_count"] + 1 < 3:
            world.send(world.acknowledge(order, layout.ACK_REFUSED))
            while world.orders[-1]["order"] == order:
                world.pass_ms(1_000 * STEP_MS // 10)
                world.send(world.lease(layout.RENEW, T, lease_epoch(world)))
            order = world.orders[-1]["order"]
    if row.state == "unknown":
        world.pass_ms(DEADLINE_MS)
        if row.when == "its target is suspended":
            suspend_target(world)
    elif row.state == "settled":
        world.send(world.acknowledge(order, layout.ACK_DONE))
    elif row.when == "another access server named its target":
        name_elsewhere(world, ordered_target(world))
    elif row.when == "of another access server or session":
        world.send(commands.run(layout.SESSION_OPEN, access_server=0))
    elif row.when == "never sent":
        order += 1 << 40
    else:
        world.pass_ms(STEP_MS)
    return Case(world, world.acknowledge(order, result, session=session), job=job)


def _deadline(row: Row) -> Case:
    if row.state == "announced":
        return _queued(row)
    world = new_world()
    bring(world, "swapping")
    if row.state == "unknown":
        world.pass_ms(DEADLINE_MS)
        if row.when == "swaps are stopped":
            world.send(commands.run(layout.SWAPS_STOP))
        elif row.when.startswith("its job"):
            command = layout.JOB_PAUSE if row.when == "its job is paused" else layout.JOB_CANCEL
            assert world.status(world.job(command, 0)) == layout.OK
        elif row.when == "its target is suspended":
            suspend_target(world)
        elif row.when == "its terminal has gone on":
            assert world.status(world.lease(layout.RELEASE, T, lease_epoch(world))) == layout.OK
    stood_still = commands.run(layout.FREEZE) + commands.run(layout.THAW)
    if "stood still" in row.when:
        world.now_ms += 2 * DEADLINE_MS
    if row.command == "THAW":
        return Case(world, stood_still)
    if row.command == "RESTART":
        world.now_ms += 2 * DEADLINE_MS
        return Case(world, commands.run(layout.RESTART))
    if "stood still" in row.when:
        world.send(stood_still)
    return Case(world, wait_ms=UNKNOWN_ASK_MS if row.state == "unknown" else DEADLINE_MS)


# ----------------------------------------------------------------------------------- rows on gates, jobs


HELLO = ("SESSION_HOLDS", "SESSION_READY", "SESSION_CLOSE")


def _death(row: Row) -> Case:
    world = new_world()
    world.configure(layout.FENCING_MS, FENCING_MS)
    bring(world, "held" if row.when.endswith("elsewhere since") else "swapping")
    named = sim_index(world)
    if "elsewhere since" in row.when:
        allocate(world, server=1)
    if row.when == "the fencing delay passes with it":
        # What an older hello named is what the walk would take.
        world.open_session(0, ready=False)
        world.send(world.holds(0, T, lease_epoch(world), sim_index(world)))
    undo = int(row.when == "undo")
    declare = commands.run(layout.DECLARE_DEAD, 1, access_server=0, undo=undo)
    if row.state != "open":
        world.send(world.close(0))
    if row.state == "dead":
        assert world.status(commands.run(layout.DECLARE_DEAD, 1, access_server=0, undo=0)) == layout.OK
    if row.when == "restored since":
        world.send(commands.run(layout.RESTART, argument=1))
    if row.when.endswith("with a session that is not ready") or row.command in HELLO:
        world.open_session(0, ready=False)
    if row.command == "SESSION_OPEN":
        if row.when == "what it held is freed":
            world.pass_ms(FENCING_MS)
        return Case(world, commands.run(layout.SESSION_OPEN, access_server=0))
    if row.command in HELLO:
        sim = ordered_target(world) if row.when == "names the target" else named
        hello = {
            "SESSION_HOLDS": world.holds(0, T, lease_epoch(world), sim),
            "SESSION_READY": world.ready(0),
            "SESSION_CLOSE": world.close(0),
        }
        return Case(world, hello[row.command])
    if row.command == "RENEW":
        if row.when == "an unknown terminal":
            return Case(world, world.lease(layout.RENEW, T + 1, 1))
        if row.when == "the fencing delay passes with it":
            world.now_ms += FENCING_MS
        return Case(world, world.lease(layout.RENEW, T, lease_epoch(world)))
    if row.command == "(timer)":
        return Case(world, wait_ms=FENCING_MS, named_sim=named)
    return Case(world, declare)


def _pause(row: Row) -> Case:
    world = new_world()
    bring(world, "swapping")
    order = world.orders[-1]["order"]
    if row.state == "back_off":
        world.send(world.acknowledge(order, layout.ACK_BUSY))
    elif row.state == "disconnected":
        world.send(world.close(0))
    elif row.state == "paused":
        assert world.status(commands.run(layout.SERVER_PAUSE, access_server=0)) == layout.OK
    if row.command == "SESSION_CLOSE":
        return Case(world, world.close(0))
    if row.command == "SESSION_READY":
        world.open_session(0, ready=False)
        return Case(world, world.ready(0))
    if row.command.startswith("ACKNOWLEDGE"):
        return Case(world, world.acknowledge(order, int(getattr(layout, "ACK_" + row.command.partition(" ")[2]))))
    server = 99 if row.when == "access server not defined" else 0
    return Case(world, commands.run(getattr(layout, row.command), access_server=server))


def _gate(row: Row) -> Case:
    if row.command.startswith("SERVER_") or row.state == "paused":
        return _pause(row)
    if row.command == "DECLARE_DEAD" or row.state == "dead":
        return _death(row)
    world = new_world()
    if row.command == "SESSION_OPEN":
        return Case(world, commands.run(layout.SESSION_OPEN, access_server=0))
    if row.when == "of an older session":
        older = world.sessions[0]
        world.open_session(0)
        return Case(world, world.ready(0, older))
    if row.command == "SESSION_READY":
        world.open_session(0, ready=False)
        return Case(world, world.ready(0))
    bring(world, "swapping")
    if row.command == "SESSION_CLOSE":
        return Case(world, world.close(0))
    world.send(world.acknowledge(world.orders[-1]["order"], layout.ACK_BUSY))
    assert world.machine.server(0)["gate"] == layout.GATE_BACK_OFF
    if row.state == "back_off":
        # A probe would be answered or not; only the gate is looked at here.
        return Case(world, wait_ms=2_000)
    world.pass_ms(2_000)
    assert world.machine.server(0)["gate"] == layout.GATE_PROBING
    result = int(getattr(layout, "ACK_" + row.command.partition(" ")[2]))
    return Case(world, world.acknowledge(world.orders[-1]["order"], result))


def list_of(world: World, *terminals: int, **options: int) -> tuple[int, bytes]:
    """A job with these terminals, and the command that says that its list is complete."""
    (outcome,) = world.send(world.job_create(**options))
    assert outcome["status"][0] == layout.OK
    job = int(outcome["job"][0])
    for terminal in terminals:
        assert world.status(world.job_add(job, terminal)) == layout.OK
    return job, world.job(layout.JOB_RESUME, job)


def _options(row: Row, world: World) -> dict[str, int]:
    """What a job must be asked for so that its check says what the row says."""
    options = {"on_infeasible": int(layout.INFEASIBLE_REFUSE)}
    if row.when == "a dry run":
        options["dry_run"] = 1
    elif row.when == "it would be late":
        options["deadline_ms"] = world.now_ms + 1
    elif row.when == "it needs a second person" or row.state == "awaiting_approval":
        world.configure(layout.APPROVAL_ABOVE, 0)
        if row.when == "its deadline can't be kept any more":
            options["deadline_ms"] = world.now_ms + 20 * STEP_MS
    elif "would go without" in row.when:
        for sim in range(world.sims_count):
            if sim != sim_index(world):
                world.send(world.set_health(sim, layout.SUSPENDED))
        if row.when.endswith("it proceeds"):
            options["on_infeasible"] = int(layout.INFEASIBLE_PROCEED)
        elif row.when.endswith("it pauses") or row.state == "paused":
            options["on_infeasible"] = int(layout.INFEASIBLE_PAUSE)
    return options


def _checked(row: Row) -> Case:
    """Rows on a job that is checked, or was."""
    world = new_world()
    allocate(world)
    if row.when == "another came under its filter since":
        (outcome,) = world.send(world.job_create(selecting=1, **_options(row, world)))
        allocate(world, OTHER)
        job = int(outcome["job"][0])
        return Case(world, world.job(layout.JOB_APPROVE, job, world.entities["operator:second"]), job=job)
    job, run = list_of(world, T, **_options(row, world))
    if row.state != "selecting":
        world.send(run)
        if row.when == "its deadline can't be kept any more":
            world.pass_ms(20 * STEP_MS)
        second = 0 if row.when == "by who ordered it" else world.entities["operator:second"]
        run = world.job(int(getattr(layout, row.command)), job, second)
    return Case(world, run, job=job)


def _quiet(row: Row) -> Case:
    world = new_world()
    allocate(world)
    world.send(commands.run(layout.SWAPS_STOP))
    quiet = {"quiet_from_ms": world.now_ms + 10 * STEP_MS, "quiet_until_ms": world.now_ms + 20 * STEP_MS}
    job, run = list_of(world, T, **quiet)
    world.send(run)
    if row.state == "paused":
        world.pass_ms(10 * STEP_MS)
    return Case(world, wait_ms=10 * STEP_MS, job=job)


def _canary(_row: Row) -> Case:
    world = new_world()
    allocate(world)
    allocate(world, OTHER)
    job, run = list_of(world, T, OTHER, canary_count=1, budget_ppm=0)
    world.send(run)
    assert len(world.orders) == 1, "the canary is one swap"
    return Case(world, world.acknowledge(world.orders[-1]["order"], layout.ACK_REFUSED), job=job)


def _given_up(row: Row) -> Case:
    world = new_world()
    world.configure(layout.ATTEMPTS_MAX, 1)
    allocate(world)
    order_swap(world)
    world.send(world.acknowledge(world.orders[-1]["order"], layout.ACK_REFUSED))
    resolve = commands.run(layout.GIVEN_UP_RESOLVE, 1, number=2 if row.when == "another number" else 1)
    if row.state == "resolved":
        assert world.status(resolve) == layout.OK
    return Case(world, resolve)


def _job(row: Row) -> Case:
    if row.state in ("selecting", "awaiting_approval") or row.when == "not begun, somebody would go without":
        return _checked(row)
    world = new_world()
    if row.when == "terminal was swapped lately":
        bring(world, "moved")
        job, _ = list_of(world)
        return Case(world, world.job_add(job, T), job=job)
    if row.command == "JOB_ADD":
        bring(world, "none" if row.status == "NO_LEASE" else "swapping")
        (outcome,) = world.send(world.job_create())
        job = int(outcome["job"][0])
        return Case(world, world.job_add(job, T), job=job)
    allocate(world)
    allocate(world, OTHER)
    if row.when == "its deadline can't be kept any more":
        world.send(commands.run(layout.SWAPS_STOP))
        job, run = list_of(world, T, on_infeasible=layout.INFEASIBLE_REFUSE, deadline_ms=world.now_ms + 20 * STEP_MS)
        world.send(run)
        assert world.status(world.job(layout.JOB_PAUSE, job)) == layout.OK
        world.pass_ms(21 * STEP_MS)
        return Case(world, world.job(layout.JOB_RESUME, job), job=job)
    if row.state != "done":
        # One swap under way, one that can't be sent yet.
        job = order_swap(world)
        world.send(commands.run(layout.SWAPS_STOP))
        if row.command == "JOB_CANCEL":
            (outcome,) = world.send(world.job_create())
            job = int(outcome["job"][0])
            world.send(world.job_add(job, OTHER))
            world.send(world.job(layout.JOB_RESUME, job))
    else:
        job = list_job(world)
    if row.state == "paused":
        assert world.status(world.job(layout.JOB_PAUSE, job)) == layout.OK
    return Case(world, world.job(int(getattr(layout, row.command)), job), job=job)


# ------------------------------------------------------------------------------- rows on limits and their rules

RULE_BYTES = 10 * MIB
SLOW_KBPS = 128
_ACTIONS = {
    "passed": layout.ACTION_NOTIFY,
    "warned": layout.ACTION_NOTIFY,
    "all of it, notify": layout.ACTION_NOTIFY,
    "slowed": layout.ACTION_SLOW,
    "all of it, slow": layout.ACTION_SLOW,
}


def limit_rule(
    world: World, name: str = "published", text: bytes = b"https://example.org/limits", **numbers: int
) -> bytes:
    """A rule for all: 10 MiB a month, refuse, unless told otherwise."""
    given: dict[str, int] = {
        "month_bytes": RULE_BYTES,
        "action": layout.ACTION_REFUSE,
        "text_bytes": len(text),
        "published_day": world.now_ms // DAY_MS,
        **numbers,
    }
    fields = {int(getattr(layout, f"RULE_{field.upper()}")): value for field, value in given.items()}
    record = np.frombuffer(commands.definition(layout.LIMIT_RULE, name, fields, text), "V1024")
    return commands.run(layout.DEFINE, 1, definition=record)


def exempt(until_ms: int, reason: bytes = b"a fault", subscriber: int = SUBSCRIBER) -> bytes:
    return commands.run(layout.EXEMPT, 1, reason=np.array([reason], "S64"), subscriber=subscriber, until_ms=until_ms)


def limited(world: World, state: str, action: int) -> int:
    """Brings the subscriber of T, which holds a lease, into a state of its limit; returns the lease's epoch."""
    world.configure(layout.LEASE_MS, 7 * DAY_MS)
    assert world.status(limit_rule(world, warn_permille=800, slow_kbps=SLOW_KBPS, action=action)) == layout.OK
    epoch = allocate(world)
    used = {"under": MIB, "warned": 9 * MIB}.get(state, RULE_BYTES)
    world.pass_ms(STEP_MS)
    assert world.status(world.usage(T, epoch, used)) == layout.OK
    if state == "exempt":
        assert world.status(exempt(world.now_ms + 100 * STEP_MS)) == layout.OK
    return epoch


def _limit(row: Row) -> Case:
    world = new_world()
    action = _ACTIONS.get(row.when, _ACTIONS.get(row.state, layout.ACTION_REFUSE))
    epoch = limited(world, row.state, action)
    if row.command == "DEFINE":
        if row.when.endswith("no lease"):
            world.send(world.lease(layout.RELEASE, T, epoch))
        numbers = {"warn_permille": 800, "slow_kbps": SLOW_KBPS, "action": action}
        text = b"https://example.org/limits" + (b"/2" if "another text" in row.when else b"")
        if row.when.startswith("its rule, withdrawn"):
            numbers |= {"withdrawn": 1}
        elif "allows" in row.when:
            numbers |= {"month_bytes": (9 if "less" in row.when else 12 if "a little" in row.when else 20) * MIB}
        elif "slows more" in row.when:
            numbers |= {"slow_kbps": SLOW_KBPS // 2}
        elif "refuses" in row.when:
            numbers |= {"action": layout.ACTION_REFUSE}
        return Case(world, limit_rule(world, "published", text, **numbers))
    if row.when == "as one of a group with a rule of its own":
        group = world.define(layout.SUBSCRIBER_GROUP, "brand", {layout.GROUP_PRIORITY: 2})
        world.send(limit_rule(world, "brand", group=group, month_bytes=GIB))
    if row.when == "the month is over":
        day = date(1970, 1, 1) + timedelta(days=world.now_ms // DAY_MS)
        world.pass_ms((monthrange(day.year, day.month)[1] - day.day + 1) * DAY_MS - world.now_ms % DAY_MS)
    until_ms = world.now_ms + 100 * STEP_MS
    if row.when == "its end has passed" and row.state == "exempt":
        world.pass_ms(100 * STEP_MS)
    else:
        world.pass_ms(STEP_MS)
    if row.command == "EXEMPT":
        until_ms = {"its end has passed": world.now_ms, "ends now": 0}.get(row.when, until_ms)
        return Case(world, exempt(until_ms, b"" if row.when == "no reason" else b"a fault"))
    if row.command == "REPORT_USAGE":
        used = {"the share at which is warned": 8 * MIB, "not above the last report": RULE_BYTES}.get(
            row.when, 11 * MIB
        )
        return Case(world, world.usage(T, epoch, used))
    if row.command != "ALLOCATE":
        return Case(world, world.lease(int(getattr(layout, row.command)), T, epoch))
    subscriber = 0 if row.when == "nobody says whose the terminal is" else SUBSCRIBER
    return Case(world, world.allocate(T, group=world.entities.get("brand", 0), subscriber=subscriber))


def _rule(row: Row) -> Case:
    world = new_world()
    if row.state == "holds":
        assert world.status(limit_rule(world)) == layout.OK
    if row.when == "no published text":
        return Case(world, limit_rule(world, text=b""))
    if row.when == "published tomorrow":
        return Case(world, limit_rule(world, published_day=world.now_ms // DAY_MS + 1))
    if row.when == "another one for the same group":
        return Case(world, limit_rule(world, "another"))
    return Case(world, limit_rule(world, withdrawn=1) if row.when == "withdrawn" else limit_rule(world))


_BY_COMMAND: dict[tuple[str, str], Builder] = {
    ("lease", "ALLOCATE"): _allocation,
    ("lease", "RENEW"): _by_epoch,
    ("lease", "RELEASE"): _by_epoch,
    ("lease", "REPORT_USAGE"): _by_epoch,
    ("lease", "REPORT_ATTACH_FAILURE"): _by_epoch,
    ("lease", "ADOPT"): _adoption,
    ("lease", "(timer)"): _expiry,
    ("lease", "SESSION_HOLDS"): _hello,
    ("lease", "SESSION_READY"): _unnamed,
    ("sim", "ALLOCATE"): _probed,
    ("sim", "SET_HEALTH"): _health,
    ("sim", "CARRIER_LIFE"): _carrier_life,
    ("sim", "RELEASE"): _changed_often,
    ("sim", "DEFINE"): _lot_order,
    ("sim", "REPORT_USAGE"): _probed,
    ("sim", "(timer)"): _cooling,
    ("order", "(dispatch)"): _queued,
    ("order", "RELEASE"): _queued,
    ("order", "(timer)"): _deadline,
    ("order", "RESTART"): _deadline,
    ("order", "THAW"): _deadline,
    ("order", "ACKNOWLEDGE DONE"): _acknowledged,
    ("order", "ACKNOWLEDGE REFUSED"): _acknowledged,
    ("order", "ACKNOWLEDGE BUSY"): _acknowledged,
    ("gate", "DECLARE_DEAD"): _gate,
    ("gate", "SERVER_PAUSE"): _gate,
    ("gate", "SERVER_RESUME"): _gate,
    ("gate", "RENEW"): _gate,
    ("gate", "SESSION_OPEN"): _gate,
    ("gate", "SESSION_HOLDS"): _gate,
    ("gate", "SESSION_READY"): _gate,
    ("gate", "SESSION_CLOSE"): _gate,
    ("gate", "(timer)"): _gate,
    ("gate", "ACKNOWLEDGE DONE"): _gate,
    ("gate", "ACKNOWLEDGE BUSY"): _gate,
    ("job", "JOB_PAUSE"): _job,
    ("job", "JOB_RESUME"): _job,
    ("job", "JOB_CANCEL"): _job,
    ("job", "JOB_ADD"): _job,
    ("job", "JOB_APPROVE"): _job,
    ("job", "(dispatch)"): _quiet,
    ("job", "ACKNOWLEDGE REFUSED"): _canary,
    ("given_up", "GIVEN_UP_RESOLVE"): _given_up,
    ("cap", "SET_CAP"): _cap,
    ("cap", "CAP_CHANGED"): _cap_changed,
    ("cap", "(timer)"): _cap,
    ("reset", "SCHEDULE"): _reset,
    ("reset", "(timer)"): _reset,
    ("figure", "CARRIER_USAGE"): _figure,
    ("figure", "(timer)"): _figure,
    **{
        ("pool", command): _pool
        for command in ("DEFINE", "ALLOCATE", "RELEASE", "REPORT_USAGE", "(timer)", "CARRIER_USAGE", "(dispatch)")
    },
    ("pool", "POOL_USAGE"): _pool,
    ("pool", "SESSION_READY"): _pool,
    ("pool", "SET_CAP"): _pool,
    ("pool", "SCHEDULE"): _pool,
    ("limit", "REPORT_USAGE"): _limit,
    ("limit", "ALLOCATE"): _limit,
    ("limit", "RENEW"): _limit,
    ("limit", "RELEASE"): _limit,
    ("limit", "REPORT_ATTACH_FAILURE"): _limit,
    ("limit", "EXEMPT"): _limit,
    ("limit", "DEFINE"): _limit,
    ("rule", "DEFINE"): _rule,
}
WHENS = frozenset(
    {
        "-",
        "restored, a server has not said what it holds",
        "restored, its server has not named it yet",
        "restored, its server has named it",
        "restored, all but one server have said what they hold",
        "restored since",
        "epoch of the order, its last report is over a minute old",
        "its last report is over a minute old",
        "the same as the last report",
        "over a minute old, it told the same since",
        "over a minute old, it had used all that is expected",
        "its last one, which is waited for",
        "its last one, which is waited for, and nothing more was used",
        "its last one, its SIM has cooled",
        "its last one, its SIM has cooled a minute ago, and nothing more was used",
        "its last one, its SIM has cooled just now, and nothing more was used",
        "its last one, its SIM has cooled, all that is expected was used",
        "SIM cools, its last report is waited for",
        "cooling is over, its last report is waited for",
        "revoke, its lease had no report for over a minute",
        "its rule, which allows less",
        "from another instant on",
        "from another instant on, in its place",
        "its rule, which refuses",
        "its rule, which refuses, and it has no lease",
        "its rule, which slows more",
        "its rule, with another text",
        "of a cycle without a cap that starts anew",
        "of a cycle, its lot has none",
        "of a day's window, a cap of it is to come",
        "of a day's window, its lot has none",
        "of the day before the lot's first",
        "of the day before the lot's first, nobody says when days begin",
        "of the day before the lot's first, one of the whole window holds",
        "of the lot's first day, which is not over",
        "a higher one",
        "a report straddles its instant",
        "active",
        "active, it is retired",
        "active, it is suspended",
        "active, it is throttled",
        "active, it was throttled and then suspended",
        "suspended",
        "suspended, ICCID not known",
        "suspended, it is quarantined",
        "suspended, it is retired",
        "suspended, it is suspended",
        "suspended, no reason",
        "terminated",
        "terminated, it is retired",
        "a swap within it",
        "down to the exhausted watermark",
        "down to the exhausted watermark, automatic swaps are on",
        "down to the low watermark",
        "its plan shares nothing any more",
        "its window starts anew, it is spread",
        "lease expired",
        "leases may use what is left",
        "leases of one lot may use what is left, not of another",
        "more straddles than was counted",
        "more in the day than in a cycle that began in it",
        "less in the cycle than it said of the day",
        "less in the cycle than it said of the day later on",
        "more in the day than we counted in the cycle",
        "more than since its lot works",
        "more than we counted",
        "nearly all that there is",
        "of a day that has left the window",
        "of a day that is not over",
        "of a day, a place stands for several",
        "of a day, as much as we counted",
        "of a day, the same again",
        "of a day, and then less of all days",
        "of a day, and then as much of all days",
        "of a day, and then less of all days before its end",
        "of a day, its plan has no days",
        "of a day, less than we counted",
        "of a day, less than was counted on several",
        "of a day, more than the line could carry",
        "of a day, more than we counted",
        "of a day, more than in a cycle that began after it",
        "of a day, negative",
        "of a day, one of the whole window holds",
        "of a day, the window turns just now",
        "of who holds a SIM of it, there is another lot",
        "ICCID not known",
        "observed, it is quarantined",
        "observed, it is throttled",
        "a window that there is not",
        "a rolling one, its plan has no days",
        "an instant that is past",
        "another of the same instant",
        "as much as its cap",
        "its access server knew of it no more",
        "of its last lease, it waits at another access server",
        "of the lease before",
        "of the lease before its last",
        "of the lease before, from another access server",
        "of the lease before, more than the line could carry",
        "of the lease before, not above its last report",
        "of the lease before, whose access server is dead",
        "the fencing delay has passed, its terminal is elsewhere since",
        "the fencing delay has passed, its terminal is elsewhere since, with a switch out",
        "its last epoch and SIM, it was said to be gone before",
        "of after a lease that ended without a word",
        "of before a lease that ended without a word",
        "the hello did not name it, all that is expected was reported",
        "its window starts anew",
        "its window starts anew just now",
        "less than we counted",
        "more counted by then than ever",
        "negative",
        "of a later instant",
        "of a later instant, less than before",
        "of an earlier instant",
        "of an instant to come",
        "of before its window began",
        "of the day before its lot's first",
        "of before the SIM's import",
        "of after the SIM's import",
        "of longer ago than its window lasts",
        "the same again, its window has started anew",
        "another instant",
        "from a later instant on",
        "of a cycle",
        "of a window that began anew",
        "of a window that never began, in which more days were counted than are in it",
        "its instant has come while the clock is frozen",
        "its instant has come, it is spread",
        "its lot works from now on",
        "its lot works no longer",
        "its lot ends before the other of its class",
        "its lot ends with the other of its class",
        "its lot ends no more, the other of its class does",
        "the lot that ended before its own works no longer",
        "its spread is over",
        "healthy, on probation",
        "on probation, it is fast",
        "on probation, it is fast for a burst",
        "on probation, it is fast by a goodput that nobody wanted",
        "on probation, it is fast by more than was counted",
        "on probation, it is slow",
        "on probation, its lot ends before the other of its class",
        "on probation, its lot ends and no SIM is trusted with more",
        "on probation, it is throttled",
        "slowed, its cycle starts anew",
        "slowed, no reset is known",
        "slowed, no reset is known, a day has passed",
        "slowed, no reset is known, a day has passed, nothing is probed",
        "slowed, no reset is known, less than a day has passed",
        "slowed, prepaid, no reset is known",
        "slowed, prepaid, no reset is known, a day has passed",
        "slowed, its lot has ended, no reset is known",
        "slowed, its lot has ended, no reset is known, a day has passed",
        "slowed, its lot is prepaid and has ended, no reset is known",
        "slowed, nothing is left, no reset is known, a day has passed",
        "slowed, its reset is known",
        "slowed, its reset is known, a day has passed",
        "slowed, its reset was known, a day has passed",
        "slowed, let go of since, a day has passed",
        "slowed, its cycle starts anew, nothing is probed",
        "no instant",
        "the instant of the last one",
        "the same instant",
        "the same, from the same instant on",
        "all of it, notify",
        "all of it, refuse",
        "all of it, slow",
        "another one for the same group",
        "as one of a group with a rule of its own",
        "nobody says whose the terminal is",
        "ends now",
        "its end has passed",
        "no published text",
        "no reason",
        "published tomorrow",
        "the month is over",
        "its rule, withdrawn",
        "its rule, which allows more",
        "its rule, which allows a little more",
        "its rule, withdrawn, and it has no lease",
        "the same again",
        "the share at which is warned",
        "withdrawn",
        "lot not defined",
        "what is in force",
        "what the plan says",
        "READY was said",
        "from another access server",
        "lease expired, access server has no session",
        "never sent",
        "SIM assigned or reserved",
        "SIM held by a server that must let go",
        "a lease that it holds",
        "an unknown terminal",
        "the fencing delay has passed",
        "the fencing delay has passed, with a session that is not ready",
        "with a session that is not ready",
        "what it held is freed",
        "undo",
        "access server not defined",
        "it is low, announced ahead",
        "it is throttled, automatic swaps are on",
        "suspended, automatic swaps are on",
        "terminated, automatic swaps are on",
        "it is throttled, its terminal's ceiling is met",
        "it is throttled, its terminal in a job that is held",
        "its plan's changes of a day are used up",
        "a dry run",
        "another came under its filter since",
        "another number",
        "by who ordered it",
        "it needs a second person",
        "it would be late",
        "its canary failed",
        "its instant has come",
        "its instant has come, its job is paused",
        "swaps are stopped",
        "its job is paused",
        "its job was cancelled",
        "its target is suspended",
        "its terminal has gone on",
        "its instant has come, its access server is paused",
        "its job announces ahead",
        "its deadline can't be kept any more",
        "its quiet hours begin",
        "its quiet hours end",
        "not begun, somebody would go without",
        "somebody would go without",
        "somebody would go without, it pauses",
        "somebody would go without, it proceeds",
        "terminal was swapped lately",
        "attempts left",
        "back-off is over",
        "cooling is over",
        "deadline passed",
        "deadline passed, the service stood still",
        "deadline passed while nothing ran",
        "deadline passed since it stood still",
        "epoch of the order",
        "gate not open, or window full",
        "healthy",
        "it holds that SIM",
        "later than the longest outage",
        "it is retired",
        "its last epoch and SIM, SIM free or cooling",
        "its last epoch and SIM, which another access server is to let go of",
        "another access server named its target",
        "lease expired while the clock is frozen",
        "lease expired, clock thawed less than a lease ago",
        "lease expired, grace has not passed",
        "lease expired, server reconciled",
        "market not defined",
        "more than the line could carry",
        "names it with its SIM and epoch",
        "names the source",
        "names the target",
        "no attempts left",
        "no free healthy SIM has the expected use left",
        "its access server had quarantined 64 today",
        "no other free healthy SIM",
        "no target above the reserve",
        "not above the last report",
        "not healthy",
        "of an older session",
        "of another access server or session",
        "of its terminal",
        "other epoch",
        "other server",
        "same server",
        "same server, same market, SIM usable",
        "stop or revoke",
        "switch",
        "terminal holds nothing",
        "terminal is already in a swap",
        "terminals full",
        "the fencing delay passes with it",
        "the hello did not name it",
        "of a window that its SIMs don't share",
        "of a lot without SIMs",
        "more than its SIMs could carry",
        "of one SIM of it more was told",
        "of one SIM of it more was told later on",
        "of one SIM of it more was told, of another one later on",
        "the same again, of one SIM of it more was told since",
        "of two SIMs of it more was told",
        "of two SIMs of it as much",
        "of before the pool's own figure",
        "of before the pool's own figure, more than it",
        "of before the pool's own figure, which it raised, less again",
        "of after the pool's own figure, less than we counted",
        "of after the pool's own figure, more than we counted",
        "its window starts anew, it had a figure",
    }
)
"""The conditions that builders know. A row with another one has no builder."""


def build(row: Row) -> Case:
    """The case of a row. KeyError: nobody has said how this row is built."""
    if row.when not in WHENS:
        raise KeyError(f"{row}: the condition {row.when!r} has no builder")
    try:
        builder = _BY_COMMAND[row.subject, row.command]
    except KeyError:
        raise KeyError(f"{row}: no builder") from None
    return builder(row)

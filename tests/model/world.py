"""A small pool, built through commands alone, and a driver that records every batch so that it can be replayed.

Two classes, three lots, two banks, two markets and two access servers are enough for every transition, and few enough
that a plain loop over everything after each step costs little.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from simswitch.core import commands, layout
from simswitch.core.commands import OutcomeRun
from simswitch.core.machine import Machine, Outcome

from tests.model.records import Table, copy_regions, tables

MIB = 1 << 20
GIB = 1 << 30
START_MS = 1_583_000_000_000
# Instants and times are whole steps of the timing wheel, so that a model without a wheel is exact.
STEP_MS = 64
LEASE_MS = 1000 * STEP_MS
COOLING_MS = 10 * STEP_MS
DEADLINE_MS = 50 * STEP_MS
ATTEMPTS_MAX = 3
COOL_DOWN_MS = 40 * STEP_MS
FLOOR_BYTES = 2 * MIB
LOW_BYTES = 64 * MIB
EXHAUSTED_BYTES = 16 * MIB
LINE_BYTES_PER_S = 1_000 * MIB
OUTAGE_MAX_MS = 20 * STEP_MS
UNKNOWN_ASK_MS = 30 * STEP_MS
SUBSCRIBER = 900
ROLLING_BYTES = 8 * GIB
ROLLING_DAYS = 3


def iccid_number(number: int) -> int:
    """A valid ICCID number; the digits need no check digit here."""
    return commands.encode_iccid(f"8981{number:015d}")


@dataclass
class Record:
    """One apply: enough to do it again."""

    batch: bytes
    now_ms: int
    seed: int
    outcome_hash: int


@dataclass
class Driver:
    """A machine that is fed with batches; keeps them all."""

    machine: Machine
    now_ms: int = START_MS
    seed: int = 1
    records: list[Record] = field(default_factory=list)
    orders: list[dict[str, int]] = field(default_factory=list)
    """All orders that ever came out, oldest first."""
    events: list[dict[str, int]] = field(default_factory=list)
    """The same of events."""
    keeps_records: bool = True

    def apply(self, batch: bytes) -> Outcome:
        self.seed = (self.seed * 6364136223846793005 + 1442695040888963407) % 2**64
        outcome = self.machine.apply(batch, self.now_ms, self.seed)
        if self.keeps_records:
            self.records.append(Record(batch, self.now_ms, self.seed, outcome.hash))
        return outcome

    def send(self, *runs: bytes) -> list[OutcomeRun]:
        """Applies a batch; returns its outcome runs without those of orders and events, which are kept."""
        found = commands.outcome_runs(self.apply(b"".join(runs)).data)
        self.orders += rows(found[-2])
        self.events += rows(found[-1])
        return found[:-2]

    def statuses(self, run: bytes) -> list[int]:
        return [int(status) for status in self.send(run)[0]["status"]]

    def status(self, run: bytes) -> int:
        """The status of a run with one item."""
        (only,) = self.statuses(run)
        return only

    def pass_ms(self, milliseconds: int) -> None:
        """Lets time pass and the machine do what became due then."""
        self.now_ms += milliseconds
        self.send(commands.run(layout.TICK))

    def tables(self) -> dict[str, Table]:
        return tables(copy_regions(self.machine))


def rows(run: OutcomeRun) -> list[dict[str, int]]:
    """The items of an outcome run, one dict each."""
    columns = {name: run[name] for name, _ in commands.OUTCOME_COLUMNS[run.kind]}
    return [{name: int(column[row]) for name, column in columns.items()} for row in range(run.count)]


def replay(records: list[Record], machine: Machine) -> None:
    """Feeds recorded batches to another machine; each must have the same outcome (I10)."""
    for number, record in enumerate(records):
        outcome = machine.apply(record.batch, record.now_ms, record.seed)
        assert outcome.hash == record.outcome_hash, f"I10: record {number} has another outcome on replay"


@dataclass
class World(Driver):
    """The pool. Entities by what they are called; SIMs by their number, which is also their index in the core."""

    sims_count: int = 0
    entities: dict[str, int] = field(default_factory=dict)
    servers: list[int] = field(default_factory=list)
    sessions: dict[int, int] = field(default_factory=dict)

    def define(self, kind: int, name: str, numbers: dict[int, int] | None = None) -> int:
        record = np.frombuffer(commands.definition(kind, name, numbers), "V1024")
        (outcome,) = self.send(commands.run(layout.DEFINE, 1, definition=record))
        assert outcome["status"][0] in (layout.OK, layout.SAME), f"{name} was not defined: {outcome['status'][0]}"
        self.entities[name] = int(outcome["index"][0])
        return self.entities[name]

    def configure(self, setting: int, value: int) -> None:
        assert self.status(commands.run(layout.CONFIGURE, 1, setting=setting, value=value)) in (
            layout.OK,
            layout.SAME,
        )

    def import_sims(
        self,
        count: int,
        lot: str = "gold-a",
        bank: str = "bank-1",
        opening_bytes: npt.ArrayLike = 0,
        opening_day_bytes: npt.ArrayLike = 0,
        opening_rolling_bytes: npt.ArrayLike = 0,
        as_of_s: int = 0,
        health: int = layout.HEALTHY,
    ) -> list[int]:
        """Imports ``count`` new SIMs of a lot; returns their numbers."""
        numbers = np.arange(self.sims_count, self.sims_count + count)
        run = commands.run(
            layout.IMPORT_SIMS,
            count,
            iccid=[iccid_number(int(number)) for number in numbers],
            imsi=440_100_000_000_000 + numbers,
            opening_cycle_bytes=opening_bytes,
            opening_day_bytes=opening_day_bytes,
            opening_rolling_bytes=opening_rolling_bytes,
            as_of_s=as_of_s,
            lot=self.entities[lot],
            bank=self.entities[bank],
            slot=numbers % 512,
            health=health,
        )
        (outcome,) = self.send(run)
        assert (outcome["status"] == layout.OK).all(), f"SIMs were not imported: {outcome['status']}"
        assert outcome["sim"].tolist() == numbers.tolist()
        self.sims_count += count
        return [int(number) for number in numbers]

    def open_session(self, server: int, ready: bool = True) -> int:
        (outcome,) = self.send(commands.run(layout.SESSION_OPEN, access_server=server))
        assert outcome["status"][0] == layout.OK
        self.sessions[server] = int(outcome["session"][0])
        if ready:
            assert self.status(self.ready(server)) == layout.OK
        return self.sessions[server]

    # ---------------------------------------------------------------------------------- runs of one command

    def allocate(
        self,
        terminal: npt.ArrayLike,
        server: int = 0,
        market: str = "home",
        expected_bytes: npt.ArrayLike = 0,
        group: int = 0,
        subscriber: npt.ArrayLike = SUBSCRIBER,
    ) -> bytes:
        keys = np.atleast_1d(np.asarray(terminal, np.uint64))
        return commands.run(
            layout.ALLOCATE,
            len(keys),
            access_server=server,
            argument=group,
            terminal=keys,
            subscriber=subscriber,
            expected_bytes=expected_bytes,
            market=self.entities[market],
        )

    @staticmethod
    def lease(kind: int, terminal: int, epoch: int, server: int = 0) -> bytes:
        """RENEW, RELEASE or REPORT_ATTACH_FAILURE."""
        return commands.run(kind, 1, access_server=server, terminal=terminal, epoch=epoch)

    @staticmethod
    def usage(terminal: int, epoch: int, up_bytes: int, down_bytes: int = 0, server: int = 0, **fared: int) -> bytes:
        return commands.run(
            layout.REPORT_USAGE,
            1,
            access_server=server,
            terminal=terminal,
            epoch=epoch,
            up_bytes=up_bytes,
            down_bytes=down_bytes,
            **fared,
        )

    def adopt(
        self, terminal: int, sim: int, server: int = 0, market: str = "home", subscriber: int = SUBSCRIBER
    ) -> bytes:
        return commands.run(
            layout.ADOPT,
            1,
            access_server=server,
            terminal=terminal,
            subscriber=subscriber,
            iccid=iccid_number(sim),
            expected_bytes=0,
            market=self.entities[market],
        )

    @staticmethod
    def set_health(sim: int, health: int) -> bytes:
        return commands.set_health([iccid_number(sim)], health)

    def cap_changed(self, lot: str, window: int = layout.WINDOW_DAY, shift: int = layout.CAP_LOWERED) -> bytes:
        entity = self.entities[lot]
        amounts = {"amount": 2 * 10**9, "before": 3 * 10**9}
        return commands.run(
            layout.CAP_CHANGED, 1, lot=entity, window=window, shift=shift, seen_s=1_580_000_000, **amounts
        )

    def set_cap(
        self,
        lot: str,
        window: int,
        quota_bytes: int,
        basis: int = layout.BASIS_LEARNED,
        at_ms: int = 0,
        replaces: bool = False,
    ) -> bytes:
        cap = {"quota_bytes": quota_bytes, "basis": basis, "at_ms": at_ms}
        return commands.run(layout.SET_CAP, 1, argument=int(replaces), lot=self.entities[lot], window=window, **cap)

    def schedule(self, lot: str, window: int, at_ms: int, spread_ms: int = 0) -> bytes:
        entity = self.entities[lot]
        return commands.run(layout.SCHEDULE, 1, lot=entity, window=window, at_ms=at_ms, spread_ms=spread_ms)

    @staticmethod
    def figure(
        sim: int,
        carrier_bytes: int,
        counted_bytes: int,
        as_of_s: int,
        window: int = layout.WINDOW_CYCLE,
        dry_run: bool = False,
        straddling_bytes: int = 0,
    ) -> bytes:
        return commands.run(
            layout.CARRIER_USAGE,
            1,
            argument=int(dry_run),
            iccid=iccid_number(sim),
            carrier_bytes=carrier_bytes,
            counted_bytes=counted_bytes,
            straddling_bytes=straddling_bytes,
            as_of_s=as_of_s,
            window=window,
        )

    def pool_figure(
        self,
        lot: str,
        carrier_bytes: int,
        counted_bytes: int,
        as_of_s: int,
        window: int = layout.WINDOW_CYCLE,
        dry_run: bool = False,
        straddling_bytes: int = 0,
    ) -> bytes:
        """Of all SIMs of a lot together."""
        told = {"carrier_bytes": carrier_bytes, "counted_bytes": counted_bytes, "straddling_bytes": straddling_bytes}
        entity = self.entities.get(lot, 0)
        return commands.run(
            layout.POOL_USAGE, 1, argument=int(dry_run), lot=entity, as_of_s=as_of_s, window=window, **told
        )

    def ready(self, server: int, session: int | None = None) -> bytes:
        return commands.run(
            layout.SESSION_READY, access_server=server, argument=self.sessions[server] if session is None else session
        )

    def close(self, server: int, session: int | None = None) -> bytes:
        return commands.run(
            layout.SESSION_CLOSE, access_server=server, argument=self.sessions[server] if session is None else session
        )

    def holds(self, server: int, terminal: int, epoch: int, sim: int) -> bytes:
        return commands.run(
            layout.SESSION_HOLDS,
            1,
            access_server=server,
            argument=self.sessions[server],
            terminal=terminal,
            epoch=epoch,
            iccid=iccid_number(sim),
        )

    def acknowledge(self, order: int, result: int, server: int = 0, session: int | None = None) -> bytes:
        return commands.run(
            layout.ACKNOWLEDGE,
            1,
            access_server=server,
            argument=self.sessions[server] if session is None else session,
            order=order,
            result=result,
        )

    @staticmethod
    def job_create(
        health_mask: int = 0,
        lot: int = layout.NONE_SHORT,
        server: int = layout.NONE_SHORT,
        priority: int = layout.PRIORITY_REBALANCE,
        selecting: int = 0,
        **options: int,
    ) -> bytes:
        return commands.job_create(
            "a test",
            health_mask=health_mask,
            lot=lot,
            server=server,
            priority=priority,
            selecting=selecting,
            **options,
        )

    @staticmethod
    def job(kind: int, job: int, actor: int = 0) -> bytes:
        """JOB_PAUSE, JOB_RESUME, JOB_APPROVE or JOB_CANCEL."""
        return commands.run(kind, actor=actor, argument=job)

    @staticmethod
    def job_add(job: int, terminal: int) -> bytes:
        return commands.run(layout.JOB_ADD, 1, argument=job, terminal=terminal)


def empty_world(sims_max: int = 64, terminals_max: int = 64, orders_max: int = 64, world: World | None = None) -> World:
    """Settings and entities, no SIM yet; both access servers connected.

    home   gold, then silver        gold keeps a reserve of one SIM from swaps
    away   silver

    ``world``: one whose machine is still empty, to be filled instead of a new one.
    """
    if world is None:
        world = World(Machine(sims_max=sims_max, terminals_max=terminals_max, orders_max=orders_max))
    for setting, value in (
        (layout.LEASE_MS, LEASE_MS),
        (layout.COOLING_MS, COOLING_MS),
        (layout.EXPECTED_FLOOR_BYTES, FLOOR_BYTES),
        (layout.ORDER_DEADLINE_MS, DEADLINE_MS),
        (layout.ATTEMPTS_MAX, ATTEMPTS_MAX),
        (layout.SWAP_COOL_DOWN_MS, COOL_DOWN_MS),
        (layout.LINE_BYTES_PER_S, LINE_BYTES_PER_S),
        (layout.OUTAGE_MAX_MS, OUTAGE_MAX_MS),
        (layout.UNKNOWN_ASK_MS, UNKNOWN_ASK_MS),
        (layout.AUTOMATIC_SWAPS, 0),
        (layout.SWAPS_PER_DAY_MAX, 255),
        (layout.ADMISSION_QUEUE_MS, 0),
    ):
        world.configure(setting, value)
    world.define(layout.SUPPLIER, "supplier")
    watermarks = {layout.PLAN_LOW_BYTES: LOW_BYTES, layout.PLAN_EXHAUSTED_BYTES: EXHAUSTED_BYTES}
    world.define(layout.PLAN, "monthly", {layout.PLAN_QUOTA_CYCLE: 100 * GIB, **watermarks})
    rolling = {layout.PLAN_QUOTA_ROLLING: ROLLING_BYTES, layout.PLAN_ROLLING_DAYS: ROLLING_DAYS}
    world.define(
        layout.PLAN,
        "daily",
        {layout.PLAN_QUOTA_CYCLE: 50 * GIB, layout.PLAN_QUOTA_DAY: 3 * GIB, **rolling, **watermarks},
    )
    gold = world.define(layout.SIM_CLASS, "gold", {layout.CLASS_RESERVE: 1})
    silver = world.define(layout.SIM_CLASS, "silver")
    for lot, plan, sim_class in (
        ("gold-a", "monthly", gold),
        ("gold-b", "daily", gold),
        ("silver-a", "monthly", silver),
    ):
        world.define(
            layout.LOT,
            lot,
            {
                layout.LOT_SUPPLIER: world.entities["supplier"],
                layout.LOT_PLAN: world.entities[plan],
                layout.LOT_CLASS: sim_class,
            },
        )
    world.define(layout.BANK, "bank-1")
    world.define(layout.BANK, "bank-2")
    first = layout.MARKET_FIRST_CLASS
    world.define(layout.MARKET, "home", {layout.MARKET_EXPECTED_BYTES: 100 * MIB, first: gold, first + 1: silver})
    world.define(layout.MARKET, "away", {first: silver})
    world.define(layout.ACTOR, "operator:second", {layout.ACTOR_ROLE: layout.OPERATOR})
    for name in ("as-1", "as-2"):
        server = world.machine.server_index(world.define(layout.ACCESS_SERVER, name))
        assert server is not None
        world.servers.append(server)
        world.open_session(server)
    return world

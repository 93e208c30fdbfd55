"""A pool of SIMs, terminals and access servers of a given size, built through commands: what the core's benches run on.

The SIMs' order of rest is made random before anything is measured. Freshly imported SIMs leave the pool in the order
in which they lie in memory, which the processor foresees; a pool in service never looks like that.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from simswitch.core import commands, layout
from simswitch.core.machine import Machine, Outcome

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

MIB = 1 << 20
GIB = 1 << 30
START_MS = 1_583_000_000_000
RUN_ITEMS = 50_000
BANKS = 8
QUOTA_BYTES = 100 * GIB
EXPECTED_BYTES = 64 * MIB


@dataclass(frozen=True)
class Pool:
    """What the SIMs are like.

    The first pool is the usual case: one class, opening balances from nothing to nearly the quota (hence many tiers),
    and nearly all SIMs cold, since the one that has rested longest goes first.
    """

    name: str
    one_tier: bool = False
    """A fresh lot: all SIMs have the same headroom."""
    classes: int = 1
    """SIMs stand in as many classes, with as many markets; each market prefers another class and has 12 at most."""
    warm: bool = False
    """All but :data:`WARM_SIMS` are held for good, so that what is allocated was released a moment ago."""


WARM_SIMS = 4_000
POOLS = {
    pool.name: pool
    for pool in (
        Pool("spread"),
        Pool("one_tier", one_tier=True),
        Pool("warm", warm=True),
        Pool("classes_16", classes=16),
        Pool("classes_256", classes=256),
    )
}


class World:
    """A machine with ``size`` SIMs, as many terminals known to it, and ``servers`` access servers with open gates.

    Every apply is timed (:attr:`apply_ns`). ``terminals`` are the ones that a bench may use: all of them, or those that
    keep a pool warm.
    """

    def __init__(self, size: int, pool: Pool, seed: int, servers: int = 1, orders_max: int = 1024) -> None:
        self.size = size
        self.random = np.random.default_rng([seed, size, servers, list(POOLS).index(pool.name)])
        # The first access server brings all terminals, and the last eighth of the room would be for the others.
        terminals = size if servers == 1 else size + size // 7 + 1
        self.machine = Machine(sims_max=size, terminals_max=terminals, orders_max=orders_max)
        self.now_ms = START_MS
        self.apply_ns = 0
        self.keys: U64 = self.random.integers(1, 2**63, size, dtype=np.uint64)
        self.epochs: U64 = np.zeros(size, np.uint64)
        self.terminals: I64 = np.arange(size)
        self._define(servers, pool.classes)
        self._market_of = np.asarray(self.markets, np.uint16)[self.random.integers(0, pool.classes, size)]
        self._import(pool)
        self.sessions = [self._open_session(server) for server in range(servers)]
        self._scramble()
        if pool.warm:
            self.allocate(self.terminals[WARM_SIMS:], RUN_ITEMS)
            self.terminals = self.terminals[:WARM_SIMS]

    @property
    def hash(self) -> str:
        """Of the state: two runs of the same bench give the same one, or it measures something else."""
        return f"{self.machine.state_hash():016x}"

    def apply(self, batch: bytes) -> Outcome:
        """One timed apply at the present instant."""
        before = time.perf_counter_ns()
        outcome = self.machine.apply(batch, self.now_ms, 7)
        self.apply_ns = time.perf_counter_ns() - before
        return outcome

    def one(self, batch: bytes) -> commands.OutcomeRun:
        """The outcome run of a batch of one run."""
        return commands.outcome_runs(self.apply(batch).data)[0]

    def expect(self, batch: bytes, *statuses: int) -> commands.OutcomeRun:
        """As :meth:`one`; raises when an item was answered with another status."""
        run = self.one(batch)
        wrong = ~np.isin(run["status"], statuses)
        if wrong.any():
            raise RuntimeError(
                f"command {run.kind}: {int(wrong.sum())} of {run.count} items answered "
                f"{np.unique(run['status'][wrong])}, "
                f"not {statuses}: the bench would not measure what it says"
            )
        return run

    def pass_ms(self, milliseconds: int) -> int:
        """Lets time pass, and the machine finish what became due; the nanoseconds that this took it."""
        self.now_ms += milliseconds
        self.apply(commands.run(layout.TICK))
        spent_ns = self.apply_ns
        while (due := self.machine.next_due_ms) is not None and due <= self.now_ms:
            self.apply(commands.run(layout.TICK))
            spent_ns += self.apply_ns
        return spent_ns

    def entity(self, kind: int, name: str, numbers: dict[int, int] | None = None) -> int:
        record = np.frombuffer(commands.definition(kind, name, numbers), "V1024")
        return int(self.expect(commands.run(layout.DEFINE, 1, definition=record), layout.OK)["index"][0])

    def _define(self, servers: int, classes: int) -> None:
        for setting, value in (
            (layout.LEASE_MS, 3_600_000),
            (layout.COOLING_MS, 1_000),
            (layout.EXPECTED_FLOOR_BYTES, MIB),
            (layout.LINE_BYTES_PER_S, 10**9),
            (layout.APPROVAL_ABOVE, layout.NONE_INDEX - 1),
            (layout.AUTOMATIC_SWAPS, 0),
            (layout.ADMISSION_QUEUE_MS, 0),
            (layout.SWAPS_PER_DAY_MAX, 255),
            (layout.SWAP_COOL_DOWN_MS, 0),
        ):
            self.expect(commands.run(layout.CONFIGURE, 1, setting=setting, value=value), layout.OK, layout.SAME)
        supplier = self.entity(layout.SUPPLIER, "supplier")
        plan = self.entity(layout.PLAN, "plan", {layout.PLAN_QUOTA_CYCLE: QUOTA_BYTES})
        sim_classes = [self.entity(layout.SIM_CLASS, f"class-{number}") for number in range(classes)]
        self.lots = [
            self.entity(
                layout.LOT,
                f"lot-{number}",
                {layout.LOT_SUPPLIER: supplier, layout.LOT_PLAN: plan, layout.LOT_CLASS: sim_class},
            )
            for number, sim_class in enumerate(sim_classes)
        ]
        self.banks = [self.entity(layout.BANK, f"bank-{number}") for number in range(BANKS)]
        self.markets = []
        for number in range(classes):
            preferred = (sim_classes[number:] + sim_classes[:number])[: layout.MARKET_CLASSES]
            numbers = {layout.MARKET_FIRST_CLASS + place: sim_class for place, sim_class in enumerate(preferred)}
            self.markets.append(
                self.entity(
                    layout.MARKET, f"market-{number}", {layout.MARKET_EXPECTED_BYTES: EXPECTED_BYTES, **numbers}
                )
            )
        for number in range(servers):
            self.entity(layout.ACCESS_SERVER, f"as-{number:04d}")

    def _import(self, pool: Pool) -> None:
        indexes = np.arange(self.size, dtype=np.uint64)
        self.iccids: U64 = (np.uint64(81_000_000_000_000_000) // np.uint64(10) + indexes) * np.uint64(2)
        opening = (
            self.random.integers(0, QUOTA_BYTES - 20 * GIB, self.size, dtype=np.uint64)
            if not pool.one_tier
            else np.zeros(self.size, np.uint64)
        )
        lots = np.asarray(self.lots, np.uint16)[self.random.integers(0, len(self.lots), self.size)]
        banks = np.asarray(self.banks, np.uint16)[self.random.integers(0, BANKS, self.size)]
        for start in range(0, self.size, RUN_ITEMS):
            part = slice(start, min(start + RUN_ITEMS, self.size))
            self.expect(
                commands.run(
                    layout.IMPORT_SIMS,
                    part.stop - part.start,
                    iccid=self.iccids[part],
                    imsi=np.uint64(440_100_000_000_000) + indexes[part],
                    opening_cycle_bytes=opening[part],
                    opening_day_bytes=0,
                    opening_rolling_bytes=0,
                    lot=lots[part],
                    bank=banks[part],
                    slot=indexes[part] % np.uint64(512),
                    health=layout.HEALTHY,
                ),
                layout.OK,
            )

    def _open_session(self, server: int) -> int:
        run = commands.run(layout.SESSION_OPEN, access_server=server)
        session = int(self.expect(run, layout.OK)["session"][0])
        self.expect(commands.run(layout.SESSION_READY, access_server=server, argument=session), layout.OK)
        return session

    def _scramble(self) -> None:
        """Every SIM is handed out once and given back in random order.

        With more classes than a market has, some of its last terminals find none, while SIMs of other classes are left.
        """
        for part in self.parts(self.terminals, RUN_ITEMS):
            self.epochs[part] = self.expect(self.allocation(part), layout.OK, layout.NO_HEALTHY_SIM)["epoch"]
        holders = np.flatnonzero(self.epochs)
        if len(holders) < 0.9 * self.size:
            raise RuntimeError(f"only {len(holders):,} of {self.size:,} terminals found a SIM")
        self.release(self.random.permutation(holders), RUN_ITEMS)
        self.pass_ms(5_000)

    def allocation(self, terminals: I64, server: int = 0) -> bytes:
        """One run of allocations."""
        return commands.run(
            layout.ALLOCATE,
            len(terminals),
            access_server=server,
            terminal=self.keys[terminals],
            subscriber=self.keys[terminals],
            expected_bytes=0,
            market=self._market_of[terminals],
        )

    def allocate(self, terminals: I64, batch_items: int, server: int = 0) -> list[float]:
        """Allocates for these terminals. Nanoseconds an item of each batch."""
        samples = []
        for part in self.parts(terminals, batch_items):
            run = self.expect(self.allocation(part, server), layout.OK)
            samples.append(self.apply_ns / len(part))
            self.epochs[part] = run["epoch"]
        return samples

    def renew(self, terminals: I64, batch_items: int) -> list[float]:
        return self._leases(layout.RENEW, terminals, batch_items)

    def release(self, terminals: I64, batch_items: int) -> list[float]:
        return self._leases(layout.RELEASE, terminals, batch_items)

    def release_all(self) -> None:
        """Ends every lease, whoever's it is and however it began, and lets the SIMs cool."""
        columns = self.machine.terminals_columns()
        for server in range(len(self.sessions)):
            mine = np.flatnonzero((columns["sim"] != layout.NONE_INDEX) & (columns["server"] == server))
            if len(mine):
                leases = {"terminal": columns["key"][mine], "epoch": columns["epoch"][mine]}
                self.expect(commands.run(layout.RELEASE, len(mine), access_server=server, **leases), layout.OK)
        self.pass_ms(5_000)

    def report_usage(self, terminals: I64, batch_items: int, total_bytes: int) -> list[float]:
        """Reports the same cumulative figure for every terminal."""
        return self._leases(layout.REPORT_USAGE, terminals, batch_items, {"up_bytes": 0, "down_bytes": total_bytes})

    def _leases(self, kind: int, terminals: I64, batch_items: int, usage: dict[str, int] | None = None) -> list[float]:
        samples = []
        for part in self.parts(terminals, batch_items):
            columns: dict[str, Any] = {"terminal": self.keys[part], "epoch": self.epochs[part], **(usage or {})}
            self.expect(commands.run(kind, len(part), access_server=0, **columns), layout.OK)
            samples.append(self.apply_ns / len(part))
        return samples

    @staticmethod
    def parts(terminals: I64, batch_items: int) -> list[I64]:
        return [terminals[start : start + batch_items] for start in range(0, len(terminals), batch_items)]

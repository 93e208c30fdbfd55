"""Replays a scenario once per policy and compares them.

    scenario ─▶ population ─▶ Loop ──command runs──▶ Cell (in memory, virtual clock) ─▶ Machine
                                ▲                                                          │
                                └──────────────── outcomes and orders ◀────────────────────┘

What the engine does is the same under every policy. ``engine`` orders the bulk switch as a job of the core;
``unbounded`` and ``fixed`` order switches straight at the simulated access servers, past the core, as was done in
2020, and the access servers then ask the engine for another SIM; ``none`` orders nothing. Python runs once per quantum
in which something was said, never per event.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simswitch.cell import Capacity, Cell
from simswitch.clock import VirtualClock
from simswitch.core import commands, layout
from simswitch.twin import population
from simswitch.twin.loop import Loop
from simswitch.twin.record import RecordedCell
from simswitch.twin.scenario import POLICIES, Bad, Dead, Fault, Lot, Scenario, Slow, Speed, Switch

KEY_FIRST = 350_000_000_000_000
"""The first terminal's key: an IMEI without its check digit."""
ICCID_FIRST = 81_000_000_000_000_0
"""The digits of the first SIM's ICCID after the 89, without the check digit: 81 is Japan's country code."""
IMSI_FIRST = 440_000_000_000_000
SAMPLES = 600
"""Points of the time series."""
SERVERS_SHOWN = 8
"""Access servers that have time series of their own."""
IMPORT_CHUNK = 60_000
DEFINITIONS_MAX = 256

Progress = Callable[[str, float], None]
SERVER_COLUMNS = ("window", "gate", "outstanding", "confirmed", "queue_wait_s", "allocation_wait_s")


class ReplayError(RuntimeError):
    """An unknown policy, or the engine refused what the replay needs: the scenario asks for more than it can hold."""


@dataclass
class _Engine:
    """The cell of one policy, and what its entities are called there."""

    cell: Cell | RecordedCell
    clock: VirtualClock
    start_ms: int
    markets: dict[str, int]
    lots: dict[str, int]
    numbers: list[int]
    sessions: list[int]
    iccids: npt.NDArray[np.uint64]

    def at(self, now_ns: int) -> None:
        self.clock.set(self.start_ms + now_ns // 1_000_000)


def iccid_numbers(count: int) -> npt.NDArray[np.uint64]:
    """The ICCIDs of the first ``count`` SIMs, 19 digits with the check digit (Luhn), as numbers."""
    body = ICCID_FIRST + np.arange(count, dtype=np.uint64)
    # Of the 18 digits before the check digit every second one counts double, beginning with the last; the 89 in front
    # give 8 and twice 9, less 9.
    total = np.full(count, 8 + 9, np.uint64)
    rest = body.copy()
    for place in range(16):
        digit = rest % np.uint64(10)
        rest //= np.uint64(10)
        if place % 2 == 0:
            digit = digit * np.uint64(2)
            digit = digit - np.uint64(9) * (digit > 9)
        total += digit
    check = (np.uint64(10) - total % np.uint64(10)) % np.uint64(10)
    numbers: npt.NDArray[np.uint64] = (body * np.uint64(10) + check) * np.uint64(2)
    return numbers


def _accepted(outcome: commands.OutcomeRun, what: str) -> commands.OutcomeRun:
    status = outcome["status"]
    bad = status[(status != layout.OK) & (status != layout.SAME)]
    if len(bad):
        raise ReplayError(f"the engine refused to {what}: status {int(bad[0])} for {len(bad)} of {len(status)}")
    return outcome


class Builder:
    """Fills an empty engine with a scenario's inventory."""

    def __init__(self, scenario: Scenario, folder: Path | None = None) -> None:
        self.scenario = scenario
        self.start_ms = round(scenario.start.timestamp() * 1000)
        self.clock = VirtualClock(self.start_ms)
        sims = sum(lot.sims for lot in scenario.lots)
        terminals = sum(group.count for group in scenario.terminals)
        seeds = itertools.cycle(population.engine_seeds(scenario))
        cell = Cell.in_memory(
            # Every terminal may be queued for a switch at the same time, and be stopped besides. An eighth of the room
            # is not for those that are only told to wait.
            capacity=Capacity(sims=sims, terminals=terminals + terminals // 7 + 1, orders=2 * terminals + 1024),
            clock=self.clock,
            seeds=lambda: next(seeds),
        )
        self.cell = cell if folder is None else RecordedCell(cell, self.clock, folder)

    def step(self, run: bytes, what: str) -> commands.OutcomeRun:
        return _accepted(commands.outcome_runs(self.cell.step(run).data)[0], what)

    def define(self, kind: int, entities: Iterable[tuple[str, dict[int, int]]], what: str) -> dict[str, int]:
        names, records = [], []
        for name, numbers in entities:
            names.append(name)
            records.append(commands.definition(kind, name, numbers))
        indexes: list[int] = []
        for start in range(0, len(records), DEFINITIONS_MAX):
            part = records[start : start + DEFINITIONS_MAX]
            column = np.frombuffer(b"".join(part), "V1024")
            outcome = self.step(commands.run(layout.DEFINE, len(part), definition=column), f"define {what}")
            indexes += map(int, outcome["index"])
        return dict(zip(names, indexes, strict=True))

    def configure(self) -> None:
        settings = {
            "lease_s": (layout.LEASE_MS, 1000),
            "cooling_s": (layout.COOLING_MS, 1000),
            "order_deadline_s": (layout.ORDER_DEADLINE_MS, 1000),
            "swap_cool_down_s": (layout.SWAP_COOL_DOWN_MS, 1000),
            "retry_after_s": (layout.RETRY_AFTER_MS, 1000),
            "attempts_max": (layout.ATTEMPTS_MAX, 1),
            "unknown_ask_s": (layout.UNKNOWN_ASK_MS, 1000),
            "fencing_s": (layout.FENCING_MS, 1000),
            "automatic_swaps": (layout.AUTOMATIC_SWAPS, 1),
            "admission_queue_s": (layout.ADMISSION_QUEUE_MS, 1000),
            "breaker_share": (layout.BREAKER_PPM, 1_000_000),
        }
        # Nobody else is there to approve a job, and the operator is the one who orders swaps.
        # Its access servers ask when the operation is done, unless it says otherwise.
        for setting, least in (
            (layout.APPROVAL_ABOVE, layout.NONE_INDEX - 1),
            (layout.AUTOMATIC_SWAPS, 0),
            (layout.ADMISSION_QUEUE_MS, 0),
        ):
            run = commands.run(layout.CONFIGURE, setting=setting, value=least)
            self.step(run, f"set {setting.name.lower()}")
        for key, value in self.scenario.engine.items():
            setting, factor = settings[key]
            self.step(commands.run(layout.CONFIGURE, setting=setting, value=round(value * factor)), f"set {key}")

    def inventory(self) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        scenario = self.scenario

        def quota(value: float | None) -> int:
            return -1 if value is None else round(value * 1e9)

        plans = self.define(
            layout.PLAN,
            (
                (
                    plan.name,
                    {
                        layout.PLAN_QUOTA_CYCLE: quota(plan.quota_cycle_gb),
                        layout.PLAN_QUOTA_DAY: quota(plan.quota_day_gb),
                        layout.PLAN_QUOTA_ROLLING: quota(plan.quota_rolling_gb),
                        layout.PLAN_ROLLING_DAYS: -1 if plan.rolling_days is None else plan.rolling_days,
                        layout.PLAN_POOLED: (1 << layout.WINDOWS) - 1 if plan.pooled else -1,
                    },
                )
                for plan in scenario.plans
            ),
            "plans",
        )
        suppliers = self.define(
            layout.SUPPLIER, ((name, {}) for name in dict.fromkeys(lot.supplier for lot in scenario.lots)), "suppliers"
        )
        classes = self.define(
            layout.SIM_CLASS,
            ((sim_class.name, {layout.CLASS_RESERVE: sim_class.reserve}) for sim_class in scenario.classes),
            "classes",
        )
        lots = self.define(
            layout.LOT,
            (
                (
                    lot.name,
                    {
                        layout.LOT_SUPPLIER: suppliers[lot.supplier],
                        layout.LOT_PLAN: plans[lot.plan],
                        layout.LOT_CLASS: classes[lot.sim_class],
                    },
                )
                for lot in scenario.lots
            ),
            "lots",
        )
        markets = self.define(
            layout.MARKET,
            (
                (
                    market.name,
                    {
                        layout.MARKET_EXPECTED_BYTES: -1
                        if market.expected_mb is None
                        else round(market.expected_mb * 1e6),
                        **{
                            layout.MARKET_FIRST_CLASS + place: classes[name]
                            for place, name in enumerate(market.classes)
                        },
                    },
                )
                for market in scenario.markets
            ),
            "markets",
        )
        banks = self.define(
            layout.BANK,
            ((f"{lot.name}-{bank + 1}", {}) for lot in scenario.lots for bank in range(lot.banks)),
            "banks",
        )
        return markets, lots, banks

    def servers(self) -> tuple[list[int], list[int]]:
        """Defines the access servers; each opens its session, holding nothing yet."""
        names = [
            (f"{group.name}-{place + 1}", dict[int, int]())
            for group in self.scenario.access_servers
            for place in range(group.count)
        ]
        entities = self.define(layout.ACCESS_SERVER, names, "access servers")
        numbers, sessions = [], []
        for entity in entities.values():
            number = self.cell.machine.server_index(entity)
            if number is None:
                raise ReplayError("an access server that was defined has no number")
            opened = self.step(commands.run(layout.SESSION_OPEN, access_server=number), "open a session")
            session = int(opened["session"][0])
            self.step(commands.run(layout.SESSION_READY, access_server=number, argument=session), "reconcile a session")
            numbers.append(number)
            sessions.append(session)
        return numbers, sessions

    def sims(self, lots: dict[str, int], banks: dict[str, int]) -> npt.NDArray[np.uint64]:
        iccids = iccid_numbers(sum(lot.sims for lot in self.scenario.lots))
        first = 0
        for lot in self.scenario.lots:
            bank = np.array([banks[f"{lot.name}-{place + 1}"] for place in range(lot.banks)], np.uint16)
            for begin in range(0, lot.sims, IMPORT_CHUNK):
                index = np.arange(begin, min(begin + IMPORT_CHUNK, lot.sims))
                self._import(lot, lots[lot.name], bank, index, first, iccids)
            first += lot.sims
        return iccids

    def _import(self, lot: Lot, entity: int, bank: Any, index: Any, first: int, iccids: Any) -> None:
        outcome = self.step(
            commands.run(
                layout.IMPORT_SIMS,
                len(index),
                iccid=iccids[first + index],
                imsi=IMSI_FIRST + first + index,
                opening_cycle_bytes=0,
                opening_day_bytes=0,
                opening_rolling_bytes=0,
                lot=entity,
                bank=bank[index % lot.banks],
                slot=(index // lot.banks) % 0xFFFF,
                health=layout.HEALTHY,
            ),
            f"import the SIMs of {lot.name}",
        )
        if int(outcome["sim"][0]) != first + int(index[0]):
            raise ReplayError("the engine numbers SIMs in another order than that of their import")

    def build(self) -> _Engine:
        self.configure()
        markets, lots, banks = self.inventory()
        numbers, sessions = self.servers()
        iccids = self.sims(lots, banks)
        return _Engine(self.cell, self.clock, self.start_ms, markets, lots, numbers, sessions, iccids)


class _Replay:
    """One policy's replay."""

    def __init__(
        self, scenario: Scenario, policy: str, progress: Progress | None, engine: _Engine | None = None
    ) -> None:
        self.scenario = scenario
        self.policy = policy
        self.progress = progress
        self.engine = engine or Builder(scenario).build()
        self.plan = population.draw(scenario, self.engine.markets)
        self.loop = Loop(
            self.plan,
            numbers=self.engine.numbers,
            sessions=self.engine.sessions,
            key_first=KEY_FIRST,
            iccid_first=ICCID_FIRST,
        )
        self.throttled = np.zeros(self.plan.sims_count, np.uint8)
        self.jobs: list[int] = []
        self.ordered_ns: int | None = None
        self.finished_ns: int | None = None
        self.series: dict[str, list[float]] = {
            name: []
            for name in (
                "at_s",
                "failed_per_s",
                "wait_mean_s",
                "wait_max_s",
                "in_flight_worst",
                "in_flight_total",
                "well_share",
            )
        }
        # Of the engine's view of the first access servers, by their names.
        names = [f"{group.name}-{place + 1}" for group in scenario.access_servers for place in range(group.count)]
        self.servers: dict[str, dict[str, list[float]]] = {
            name: {column: [] for column in SERVER_COLUMNS} for name in names[:SERVERS_SHOWN]
        }
        self._last: dict[str, int] = {}

    def say(self, run: bytes) -> commands.OutcomeRun:
        """A batch that no access server sent. Orders may come of it."""
        self.engine.at(self.loop.now_ns)
        outcome = self.engine.cell.step(run)
        self.loop.settle(outcome.data)
        return commands.outcome_runs(outcome.data)[0]

    # -------------------------------------------------------------------------------- what the scenario says

    def happenings(self) -> list[tuple[int, Callable[[], None]]]:
        """What happens when, in order; of the same instant, in the order of the file."""
        found: list[tuple[int, Callable[[], None]]] = []
        slowed = iter(self.plan.slowed)
        for event in self.scenario.events:
            at_ns = population.nanoseconds(event.at_s)
            if isinstance(event, Slow):
                sims = next(slowed)
                speed = event.slowed_kbps * 1000 // 8
                found.append((at_ns, partial(self.loop.slow, sims, speed)))
                seen_ns = at_ns + population.nanoseconds(event.observed_after_s)
                found.append((seen_ns, partial(self.observe, sims)))
            elif isinstance(event, Speed):
                found.append((at_ns, partial(self.change_speed, event)))
            elif isinstance(event, Switch):
                if self.policy != "none":
                    found.append((at_ns, partial(self.order, event)))
            elif isinstance(event, Dead):
                found.append((at_ns, partial(self.die, event)))
                dead = self.places(event.access_servers, event.server)[0]
                declared_ns = at_ns + population.nanoseconds(event.declared_after_s)
                found.append((declared_ns, partial(self.declare_dead, dead)))
            else:
                until_ns = at_ns + population.nanoseconds(event.for_s)
                begin, end = self.bad(event) if isinstance(event, Bad) else self.fault(event)
                found += [(at_ns, begin), (until_ns, end)]
        return sorted(found, key=lambda happening: happening[0])

    def observe(self, sims: npt.NDArray[np.uint32]) -> None:
        """It is noticed that the carrier has slowed these SIMs."""
        self.throttled[sims] = 1
        for begin in range(0, len(sims), IMPORT_CHUNK):
            iccids = self.engine.iccids[sims[begin : begin + IMPORT_CHUNK]]
            run = commands.set_health(iccids, layout.THROTTLED)
            _accepted(self.say(run), "set a SIM's health")

    def places(self, name: str, server: int | None) -> list[int]:
        """The access servers of a group, or its one of that number, as the loop counts them."""
        first = 0
        for group in self.scenario.access_servers:
            if group.name == name:
                return list(range(first, first + group.count)) if server is None else [first + server - 1]
            first += group.count
        raise ReplayError(f"there are no access servers {name}")

    def change_speed(self, event: Speed) -> None:
        for server in self.places(event.access_servers, None):
            self.loop.set_speed(server, population.service_ns(event.operations_per_s))

    def fault(self, event: Fault) -> tuple[Callable[[], None], Callable[[], None]]:
        """What begins and ends a fault of access servers."""
        loop = self.loop
        begin: Callable[[int], None]
        end: Callable[[int], None]
        if event.kind == "stop":
            begin, end = partial(loop.set_stopped, stopped=True), partial(loop.set_stopped, stopped=False)
        elif event.kind == "busy":
            begin, end = partial(loop.set_busy, busy=True), partial(loop.set_busy, busy=False)
        elif event.kind == "lose":
            begin, end = partial(loop.set_lost, share=event.share), partial(loop.set_lost, share=0.0)
        elif event.kind == "restart":
            begin, end = partial(self.part, leave=loop.take_down), self.join
        else:
            begin, end = partial(self.part, leave=loop.disconnect), self.join
        servers = self.places(event.access_servers, event.server)

        def each(happen: Callable[[int], None]) -> None:
            for server in servers:
                happen(server)

        return partial(each, begin), partial(each, end)

    def part(self, server: int, leave: Callable[[int], None]) -> None:
        """The session of an access server ends."""
        leave(server)
        number, session = self.engine.numbers[server], self.engine.sessions[server]
        self.say(commands.run(layout.SESSION_CLOSE, access_server=number, argument=session))

    def join(self, server: int) -> None:
        """An access server says hello again, what it holds, and that this was all."""
        number = self.engine.numbers[server]
        opened = self.say(commands.run(layout.SESSION_OPEN, access_server=number))
        session = int(_accepted(opened, "open a session")["session"][0])
        self.engine.sessions[server] = session
        self.loop.connect(server, session)
        self.loop.set_stopped(server, stopped=False)
        terminals, epochs, sims = self.loop.holdings(server)
        for begin in range(0, len(terminals), IMPORT_CHUNK):
            part = slice(begin, begin + IMPORT_CHUNK)
            run = commands.run(
                layout.SESSION_HOLDS,
                len(terminals[part]),
                access_server=number,
                argument=session,
                terminal=KEY_FIRST + terminals[part],
                epoch=epochs[part],
                iccid=self.engine.iccids[sims[part]],
            )
            self.say(run)
        ready = self.say(commands.run(layout.SESSION_READY, access_server=number, argument=session))
        _accepted(ready, "reconcile a session")

    def bad(self, event: Bad) -> tuple[Callable[[], None], Callable[[], None]]:
        first, count = self.plan.first_sim[event.lot]
        sims = np.arange(first, first + count, dtype=np.uint32)
        return partial(self.loop.refuse_on, sims, event.share), partial(self.loop.refuse_on, sims, 0.0)

    def die(self, event: Dead) -> None:
        dead = self.places(event.access_servers, event.server)[0]
        self.part(dead, self.loop.take_down)
        others = [server for server in self.places(event.access_servers, None) if server != dead]
        self.loop.move_away(dead, np.array(others, np.uint32))

    def declare_dead(self, server: int) -> None:
        run = commands.run(layout.DECLARE_DEAD, access_server=self.engine.numbers[server], undo=0)
        _accepted(self.say(run), "declare an access server dead")

    def order(self, event: Switch) -> None:
        """The operator orders every terminal on a throttled SIM, or on a SIM of a lot, to be switched."""
        if self.ordered_ns is None:
            self.ordered_ns = self.loop.now_ns
        if self.policy == "engine":
            options: dict[str, int] = {"announce_ahead_ms": round(event.announce_ahead_s * 1000)}
            if event.lot is None:
                options["health_mask"] = 1 << layout.THROTTLED
            else:
                options["lot"] = self.engine.lots[event.lot]
            if event.canary is not None:
                options["canary_count"] = event.canary
            if event.error_budget is not None:
                options["budget_ppm"] = round(event.error_budget * 1e6)
            if event.rate_per_minute is not None:
                options["rate_per_minute"] = event.rate_per_minute
            run = commands.job_create("slowed by the carrier", selecting=1, **options)
            self.jobs.append(int(_accepted(self.say(run), "create the job")["job"][0]))
            return
        wanted = self.throttled
        if event.lot is not None:
            first, count = self.plan.first_sim[event.lot]
            wanted = np.zeros_like(self.throttled)
            wanted[first : first + count] = 1
        terminals = self.loop.terminals_on(wanted)
        if self.policy == "fixed":
            gap_ns = population.nanoseconds(self.scenario.fixed_gap_seconds)
            self.loop.order_switches(terminals, self.scenario.fixed_n, gap_ns)
        else:
            self.loop.order_switches(terminals, None, 1)

    # ------------------------------------------------------------------------------------------ the run

    def watch(self) -> None:
        """Whether the bulk switch is over; and a point of the time series."""
        counters = self.loop.counters()
        if self.ordered_ns is not None and self.finished_ns is None:
            if self.policy == "engine":
                over = all(self.engine.cell.machine.job(job)["state"] == layout.JOB_DONE for job in self.jobs)
            else:
                over = counters["driven_left"] == 0 and counters["in_flight"] == 0
            if over:
                self.finished_ns = max(counters["settled_ns"], self.ordered_ns)
        self.sample(counters)

    def sample_servers(self) -> None:
        """The engine's view of the first access servers, and what allocations there had to wait."""
        if self.policy != "engine":
            return
        waits_us = self.loop.server_waits_us()
        for place, columns in enumerate(self.servers.values()):
            seen = self.engine.cell.machine.server(self.engine.numbers[place])
            columns["window"].append(seen["window"])
            columns["gate"].append(seen["gate"])
            columns["outstanding"].append(seen["outstanding"])
            columns["confirmed"].append(seen["confirmed_count"])
            columns["queue_wait_s"].append(seen["queue_wait_us"] / 1e6)
            columns["allocation_wait_s"].append(waits_us[place] / 1e6)

    def sample(self, counters: dict[str, int]) -> None:
        self.sample_servers()
        peaks = self.loop.sample()
        now_s = self.loop.now_ns / 1e9
        series = self.series
        answered = counters["granted"] + counters["failed"]
        if not series["at_s"]:
            self._last = dict.fromkeys(counters, 0)
        since_s = now_s - (series["at_s"][-1] if series["at_s"] else 0.0)
        new = answered - self._last["granted"] - self._last["failed"]
        series["at_s"].append(now_s)
        series["failed_per_s"].append((counters["failed"] - self._last["failed"]) / max(since_s, 1e-9))
        series["wait_mean_s"].append((counters["wait_sum_us"] - self._last["wait_sum_us"]) / 1e6 / max(new, 1))
        series["wait_max_s"].append(peaks["wait_max_us"] / 1e6)
        series["in_flight_worst"].append(peaks["in_flight_worst"])
        series["in_flight_total"].append(peaks["in_flight_total"])
        series["well_share"].append(counters["well"] / max(counters["on"], 1))
        self._last = counters
        if self.progress is not None:
            self.progress(self.policy, min(now_s / self.scenario.duration_s, 1.0))

    def advance(self, limit_ns: int) -> None:
        """Lets time pass until ``limit_ns``, with all that access servers and the engine say to each other."""
        loop, cell, at = self.loop, self.engine.cell, self.engine.at
        machine, start_ms = cell.machine, self.engine.start_ms
        quantum_ns = self.plan.quantum_ns
        while loop.now_ns < limit_ns:
            due_ms = machine.next_due_ms
            until_ns = limit_ns
            if due_ms is not None:
                until_ns = min(limit_ns, max((due_ms - start_ms) * 1_000_000, loop.now_ns + quantum_ns))
            batch = loop.gather(until_ns)
            at(loop.now_ns)
            if batch:
                loop.settle(cell.step(batch).data)
            else:
                tick = cell.step_tick()
                if tick is not None:
                    loop.settle(tick.data)

    def run(self) -> None:
        self.loop.begin_on(self.plan.on_at_start, self.plan.on_at_start_off_ns)
        end_ns = self.plan.end_ns
        interval_ns = max(end_ns // SAMPLES, population.SECOND_NS)
        happenings = self.happenings()
        for sample_ns in [*range(interval_ns, end_ns, interval_ns), end_ns]:
            while happenings and happenings[0][0] <= sample_ns:
                at_ns, happen = happenings.pop(0)
                self.advance(at_ns)
                happen()
            self.advance(sample_ns)
            self.watch()

    def figures(self) -> dict[str, int | float | None]:
        counters = self.loop.counters()
        waits = self.loop.waits_us()
        quantiles = np.quantile(waits, (0.5, 0.99, 1.0), method="higher") if len(waits) else (0, 0, 0)
        finished_s = None
        if self.ordered_ns is not None and self.finished_ns is not None:
            finished_s = round((self.finished_ns - self.ordered_ns) / 1e9, 3)
        return {
            "allocations_requested": counters["requested"],
            "allocations_failed": counters["failed"],
            "allocation_wait_p50_s": round(int(quantiles[0]) / 1e6, 6),
            "allocation_wait_p99_s": round(int(quantiles[1]) / 1e6, 6),
            "allocation_wait_max_s": round(int(quantiles[2]) / 1e6, 6),
            "swaps_completed": counters["switches_completed"],
            "swaps_failed": counters["switches_failed"],
            "swaps_in_flight_max": counters["in_flight_max"],
            "swaps_in_flight_total_max": counters["in_flight_total_max"],
            "swaps_finished_s": finished_s,
            "outage_user_seconds": round(self.loop.outage_us() / 1e6, 3),
        }


def replay_scenario(
    scenario: Scenario, policies: Iterable[str] | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Replays a scenario that is already read: ``simswitch.twin.replay``."""
    chosen = tuple(scenario.policies if policies is None else policies)
    unknown = [policy for policy in chosen if policy not in POLICIES]
    if unknown or not chosen:
        raise ReplayError(f"the policies are {', '.join(POLICIES)}, not {', '.join(unknown) or 'none at all'}")
    figures: dict[str, Any] = {}
    series: dict[str, Any] = {}
    servers: dict[str, Any] = {}
    state_hash = 0
    for policy in chosen:
        run = _Replay(scenario, policy, progress)
        run.run()
        figures[policy] = run.figures()
        series[policy] = run.series
        if policy == "engine":
            servers = run.servers
        if policy == "engine" or "engine" not in figures:
            state_hash = run.engine.cell.machine.state_hash()
        run.engine.cell.close()
    ordered_s = next((event.at_s for event in scenario.events if isinstance(event, Switch)), None)
    return {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "state_hash": f"{state_hash:016x}",
        "policies": figures,
        "series": series,
        "servers": servers,
        "ordered_s": ordered_s,
    }


def record_scenario(
    scenario: Scenario, policy: str, folder: Path, said: Callable[[str], object] = lambda _: None
) -> dict[str, dict[str, int | float | None]]:
    """Replays a scenario on each of its dates, one after the other with the same engine, and writes a history of it.

    Between two dates the terminals leave and the carrier lifts its limits. Returns the figures of each date, and says
    when one is over. Raises ``ReplayError`` and ``HistoryRefused``.
    """
    if policy not in POLICIES:
        raise ReplayError(f"the policies are {', '.join(POLICIES)}, not {policy}")
    engine = Builder(scenario, folder).build()
    figures: dict[str, dict[str, int | float | None]] = {}
    for day in scenario.days():
        if figures:
            _begin_anew(engine, day)
        run = _Replay(day, policy, None, engine)
        run.run()
        figures[f"{day.start:%Y-%m-%d}"] = run.figures()
        said(f"{day.start:%Y-%m-%d}")
        for number, session in zip(engine.numbers, engine.sessions, strict=True):
            engine.cell.step(commands.run(layout.SESSION_CLOSE, access_server=number, argument=session))
    engine.cell.close()
    return figures


def _begin_anew(engine: _Engine, scenario: Scenario) -> None:
    """An hour before a later date begins access servers say hello and hold nothing; no SIM is slowed any more."""
    engine.start_ms = round(scenario.start.timestamp() * 1000)

    def settle(until_ms: int) -> None:
        while (due_ms := engine.cell.machine.next_due_ms) is not None and due_ms <= until_ms:
            engine.clock.set(max(due_ms, engine.clock.now_ms()))
            engine.cell.step_tick()
        engine.clock.set(until_ms)

    settle(engine.start_ms - 3_600_000)
    for place, number in enumerate(engine.numbers):
        opened = commands.outcome_runs(engine.cell.step(commands.run(layout.SESSION_OPEN, access_server=number)).data)
        engine.sessions[place] = int(_accepted(opened[0], "open a session")["session"][0])
        ready = commands.run(layout.SESSION_READY, access_server=number, argument=engine.sessions[place])
        _accepted(commands.outcome_runs(engine.cell.step(ready).data)[0], "reconcile a session")
    machine = engine.cell.machine
    columns = machine.sim_uses(np.arange(machine.header()["sims_count"], dtype=np.uint32))
    # Days later those that were slowed are on probation, if nobody has had them since.
    slowed = columns["iccid"][(columns["health"] == layout.THROTTLED) | ~columns["trusted"]]
    for begin in range(0, len(slowed), IMPORT_CHUNK):
        run = commands.set_health(slowed[begin : begin + IMPORT_CHUNK], layout.HEALTHY)
        _accepted(commands.outcome_runs(engine.cell.step(run).data)[0], "set a SIM's health")
    settle(engine.start_ms)


def document(result: dict[str, Any]) -> dict[str, Any]:
    """What goes into the JSON file: the result without the time series."""
    return {key: result[key] for key in ("scenario", "seed", "state_hash", "policies")}

"""A month of terminals that report each hour, on SIMs of carriers that keep other limits than is believed.

    want ──▶ line, carrier ──▶ bytes, goodput ──REPORT_USAGE──▶ engine ──swaps──▶ other SIMs
                 ▲                   │                            ▲
                 └── hidden limits   └──▶ detector ──SET_HEALTH───┤        (policy "learned" only)
                                            └──▶ learner ──SET_CAP┘

The event-driven twin (world.pyx) tells when an access server is busy; this one tells what carriers do to SIMs, so time
goes by the hour, and an hour of all terminals is a few dozen operations on columns. The engine is the same, in the same
cell; orders are carried out at once.

Policies: ``believed`` has the engine with the caps that are believed, and nobody sees that SIMs are slowed, as in 2020;
``learned`` has the detector and the learner of ``simswitch.caps`` beside it, whose findings enter as commands;
``corrected`` has the carriers' own figures of each cycle besides, which come 18 or 42 hours late. A SIM
that was found slowed is trusted again three hours after midnight, when limits have been lifted, unless the learner
knows a limit of its cycle that it has met.

A month is a TOML file with ``kind = "month"`` and these keys; every other one is refused:

    kind, seed, start, policies    as in a scenario; policies: "believed", "learned", "corrected"
    days = 29
    terminals = 100000           all of them are on all the time
    moves_per_day = 0.5          how often each of them restarts, and is given another SIM
    month_gb = 2.8               median use of a terminal in 30 days
    month_sigma = 1.681          of its logarithm over terminals
    expected_mb = 200            expected use of a lease in 10^6 bytes
    idle_share, weak_share, slow_share = 0.0     decoys: terminals that want next to nothing; that often have a weak
                                 signal, and say so; whose modem can't do more than carriers slow to
    busy_cells_share = 0.0       of cells that have a tenth of their rate in the evening
    low_mb = 300                 headroom in 10^6 bytes below which a SIM is low
    [[lots]]
    name, sims                   how many
    quota_cycle_gb, quota_day_gb, quota_rolling_gb      what is believed, in 10^9 bytes; not given: no cap
    pooled = false               it is believed that its SIMs share these
    cycle_day = 0                day on which its cycle begins anew; 0: not within the month
    [[lots.tiers]]               what is true
    window = "day"               or "cycle", or "rolling": three days
    quota_gb, speed_kbps         after so much it is slowed to so much
    pooled = false               all of its SIMs together
    from_day = 0, until_day      days on which that holds; not given: to the end
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simswitch.caps.evidence import Observations, Window, gathered, highest, of_throttled, of_unthrottled
from simswitch.caps.throttle import Decisions, Reports, ThrottleDetector
from simswitch.core import commands, layout
from simswitch.toml_lines import TomlDocument, TomlRefused
from simswitch.twin import scenario as schema
from simswitch.twin.carriers import CYCLE, DAY, ROLLING, Carriers, Column, Tier, passed
from simswitch.twin.replay import ICCID_FIRST, KEY_FIRST, Builder, Progress, ReplayError

POLICIES = ("believed", "learned", "corrected")
WINDOWS = {"cycle": CYCLE, "day": DAY, "rolling": ROLLING}
ROLLING_DAYS = 3
GB, MB = 10**9, 10**6
HOUR_MS = 3_600_000
SERVER_TERMINALS = 50_000
TRUST_HOUR, LEARN_HOUR = 3, 4
FIGURES_HOUR, TOLD_HOUR = 12, 6
"""Carriers' figures are as of noon, and are told in the morning, of every second lot one day later, of others two."""
JUDGED_BYTES = 100 * 10**6
"""SIMs that have used less in their cycle say little of how well it is counted."""
CELL_TERMINALS = 200
SWAP_ROUNDS = 64
"""Orders of one hour are carried out in so many rounds at the most; what is left waits for the next hour."""
TICKS_MAX = 4_096
KEPT_ALIVE_BYTES = 2_000
RESET_LAG_MS, RESET_SPREAD_MS, RESET_STEP_MS = 300_000, 2_400_000, 20_000
"""Windows start anew from five minutes past midnight on, over forty; the engine is given a tick so often meanwhile."""
REPORTED_BEFORE_MS = 60_000
"""Reports of an hour come so long before its end; what follows from them has the rest."""
MET = 0.9
"""A SIM that has used so much of a learned cap of its cycle is not trusted again before the cycle is over."""


@dataclass(frozen=True)
class Month:
    """What the file says."""

    name: str
    seed: int
    start: datetime.datetime
    days: int
    policies: tuple[str, ...]
    terminals: int
    moves_per_day: float
    month_gb: float
    month_sigma: float
    expected_mb: float
    idle_share: float
    weak_share: float
    slow_share: float
    busy_cells_share: float
    low_mb: float
    lots: tuple[schema.Lot, ...]
    plans: tuple[schema.Plan, ...]
    tiers: tuple[Tier, ...]
    cycle_days: tuple[int, ...]

    def slices(self) -> list[slice]:
        ends = np.cumsum([0, *(lot.sims for lot in self.lots)]).tolist()
        return [slice(begin, end) for begin, end in itertools.pairwise(ends)]


def load(path: str | Path) -> Month | None:
    """Reads a file. None: it is no month, but a scenario. Raises ``ScenarioError`` and ``OSError``."""
    file = Path(path)
    try:
        document = TomlDocument.read(file)
    except TomlRefused as refusal:
        raise schema.ScenarioError(refusal.file, refusal.line, refusal.text) from refusal
    if "kind" not in document.values:
        return None
    return _parse(document, file.stem)


def _parse(document: TomlDocument, name: str) -> Month:
    table = schema.Table(document, (), document.values)
    table.text("kind", ("month",))
    start = table.instant("start")
    days = table.integer("days", 2, 62)
    lots: list[schema.Lot] = []
    plans: list[schema.Plan] = []
    tiers: list[Tier] = []
    cycle_days: list[int] = []
    for entry in table.tables("lots"):
        lot = entry.text("name")
        if any(other.name == lot for other in lots):
            raise entry.refuse(f"a second lot is called {lot!r}", "name")
        for tier in entry.tables("tiers", required=False):
            tiers.append(
                Tier(
                    lot=len(lots),
                    window=WINDOWS[tier.text("window", tuple(WINDOWS))],
                    quota_bytes=tier.number("quota_gb", 0.01, 1e6) * GB,
                    speed_kbps=tier.number("speed_kbps", 1, 1e6),
                    from_day=tier.integer("from_day", 0, days, 0),
                    until_day=tier.integer("until_day", 0, days, days),
                    pooled=tier.flag("pooled"),
                )
            )
            tier.finish()
        rolling = entry.maybe_number("quota_rolling_gb", 0.01, 1e6)
        # Who has no such cap still has the window, so that one can be learned.
        plans.append(
            schema.Plan(
                f"plan of {lot}",
                entry.maybe_number("quota_cycle_gb", 0.01, 1e6),
                entry.maybe_number("quota_day_gb", 0.01, 1e6),
                rolling,
                None if rolling is None else ROLLING_DAYS,
                entry.flag("pooled"),
            )
        )
        sims = entry.integer("sims", 1, 10_000_000)
        lots.append(schema.Lot(lot, "wholesaler", f"plan of {lot}", "standard", sims, 4))
        cycle_days.append(entry.integer("cycle_day", 0, days, 0))
        entry.finish()
    month = Month(
        name=name,
        seed=table.integer("seed", 0, 2**63 - 1),
        start=start,
        days=days,
        policies=table.texts("policies", POLICIES, len(POLICIES), POLICIES[:2]),
        terminals=table.integer("terminals", 1, 10_000_000),
        moves_per_day=table.number("moves_per_day", 0, 24, 0.5),
        month_gb=table.number("month_gb", 0.001, 1e4, 2.8),
        month_sigma=table.number("month_sigma", 0, 4, 1.681),
        expected_mb=table.number("expected_mb", 1, 1e6, 200),
        idle_share=table.number("idle_share", 0, 1, 0),
        weak_share=table.number("weak_share", 0, 1, 0),
        slow_share=table.number("slow_share", 0, 1, 0),
        busy_cells_share=table.number("busy_cells_share", 0, 1, 0),
        low_mb=table.number("low_mb", 0, 1e6, 300),
        lots=tuple(lots),
        plans=tuple(plans),
        tiers=tuple(tiers),
        cycle_days=tuple(cycle_days),
    )
    table.finish()
    return month


def _scenario(month: Month) -> schema.Scenario:
    """What the engine is filled with."""
    servers = -(-month.terminals // SERVER_TERMINALS)
    return schema.Scenario(
        name=month.name,
        seed=month.seed,
        start=month.start,
        duration_s=month.days * 86_400,
        quantum_ms=100,
        policies=("engine",),
        fixed_n=1,
        fixed_gap_seconds=1,
        engine={"lease_s": 3 * 3600, "cooling_s": 60, "swap_cool_down_s": 0, "automatic_swaps": 3},
        plans=month.plans,
        classes=(schema.SimClass("standard", 0),),
        lots=month.lots,
        markets=(schema.Market("japan", ("standard",), month.expected_mb),),
        access_servers=(schema.AccessServers("as", servers, 50, 10, 10, 20, 0, 0, None, False),),
        terminals=(schema.Terminals(month.terminals, "japan", "as", 1, 1, 3600, "uniform", 0, 1, 0, 1, 0, 3600),),
        events=(),
    )


class _Demand:
    """Who wants how much, over which line."""

    def __init__(self, month: Month) -> None:
        self.random = random = np.random.default_rng([month.seed, 1])
        count = month.terminals
        hourly = month.month_gb * GB / 720 * np.exp(month.month_sigma * random.standard_normal(count))
        self.hourly = hourly.astype(np.float32)
        self.hourly[random.random(count) < month.idle_share] *= np.float32(0.001)
        self.weak = random.random(count) < month.weak_share
        self.device = (12_000 * np.exp(0.5 * random.standard_normal(count))).astype(np.float32)
        slow = random.random(count) < month.slow_share
        self.device[slow] = random.choice(np.array([360, 930, 4_700], np.float32), int(slow.sum()))
        cells = max(1, count // CELL_TERMINALS)
        self.cell = random.integers(0, cells, count)
        self.busy = random.random(cells) < month.busy_cells_share
        self.wander = np.zeros(cells, np.float32)

    def hour(self, hour: int) -> tuple[Column, Column, Column]:
        """Bytes wanted, the line's kbit/s, the radio quality."""
        random, of_day = self.random, hour % 24
        awake = 0.3 + np.exp(-(((of_day - 12.5) / 3) ** 2)) + 1.6 * np.exp(-(((of_day - 21) / 3) ** 2))
        count = len(self.hourly)
        # On the mean of a day awake is 0.81; a terminal takes what it takes in a third of the hours.
        wanted = self.hourly * random.standard_exponential(count, np.float32) * np.float32(awake / 0.81)
        on = random.random(count, np.float32) < np.float32(1 / 3)
        # Who wants nothing still says that it is there, which renews its lease.
        wanted = np.maximum(np.where(on, 3 * wanted, np.float32(0.02) * wanted), np.float32(KEPT_ALIVE_BYTES))
        evening = np.exp(-(((of_day - 21) / 2.2) ** 2))
        noise = random.standard_normal(len(self.wander), np.float32)
        self.wander = np.float32(0.9) * self.wander + np.float32(0.12) * noise
        cells = np.exp(self.wander - np.where(self.busy, 2.3 * evening, 0.4 * evening)).astype(np.float32)
        line = self.device * cells[self.cell] * np.exp(np.float32(0.1) * random.standard_normal(count, np.float32))
        weak_now = self.weak & (random.random(count, np.float32) < np.float32(0.3))
        line = np.where(weak_now, line * np.float32(0.05), line)
        return wanted, np.maximum(line, np.float32(8)), np.where(weak_now, 1, 4)


class _Learning:
    """The detector and the learner beside the engine, as the follower's reader and its own process have them."""

    def __init__(self, month: Month, lot_of: Column) -> None:
        self.detector = ThrottleDetector(len(lot_of))
        self.lot_of = lot_of
        self.lots = len(month.lots)
        self.rolling = np.array([plan.rolling_days is not None for plan in month.plans])
        self.parts: list[Observations] = []
        self.quiet: list[Observations] = []
        self.learned: list[dict[Window, int]] = [{} for _ in month.lots]
        self.fresh = np.zeros(self.lots, bool)

    def _used(self, counted: Column, sims: Column) -> dict[Window, Column]:
        used = {window: counted[int(window) - 1, sims].astype(np.int64) for window in Window}
        used[Window.ROLLING][~self.rolling[self.lot_of[sims]]] = -1
        return used

    def decided(self, decisions: Decisions, counted: Column) -> None:
        if len(decisions):
            found = of_throttled(decisions, self._used(counted, decisions.sim))
            self.parts.append(found)
            self.fresh[np.unique(found.lot)] = True

    def look_at_quiet(self, counted: Column, since_s: int) -> None:
        """Of each lot and window the SIMs that were seen fast with most used, at the end of a day."""
        unslowed = self.detector.unslowed(0, len(self.lot_of), since_s)
        self.quiet.append(
            highest(of_unthrottled(unslowed, self.lot_of[unslowed.sim], self._used(counted, unslowed.sim)))
        )

    def learn(self) -> list[tuple[int, Window, int]]:
        """Lots, windows and lower bounds that are another now."""
        from simswitch.caps.learner import MOVED, lowest
        from simswitch.caps.tiers import find

        observations = gathered([*self.parts, *self.quiet])
        moved = []
        for lot in np.flatnonzero(self.fresh).tolist():
            for window, cap in lowest(find(observations.chosen(observations.lot == lot))).items():
                before = self.learned[lot].get(window)
                if before is None or abs(cap.quota_bytes - before) > MOVED * before:
                    self.learned[lot][window] = cap.quota_bytes
                    moved.append((lot, window, cap.quota_bytes))
        self.fresh[:] = False
        return moved


class _Run:
    """One policy's month."""

    def __init__(self, month: Month, policy: str, folder: Path | None = None) -> None:
        self.month, self.policy = month, policy
        scenario = _scenario(month)
        self.engine = Builder(scenario, folder).build()
        self.cell = self.engine.cell
        slices = month.slices()
        self.lot_of = np.repeat(np.arange(len(month.lots)), [lot.sims for lot in month.lots])
        self.carriers = Carriers(month.tiers, slices, month.cycle_days, ROLLING_DAYS, month.seed)
        self.demand = _Demand(month)
        self.learning = _Learning(month, self.lot_of) if policy != "believed" else None
        self.lifetime = np.zeros(len(self.lot_of), np.float64)
        # By day: the instant, what was counted of each SIM by then, and what its carrier says of the cycle.
        self.noted: dict[int, tuple[int, Column, Column]] = {}
        self.random = np.random.default_rng([month.seed, 2])
        count = month.terminals
        self.keys = KEY_FIRST + np.arange(count, dtype=np.uint64)
        self.sim = np.full(count, layout.NONE_INDEX, np.uint32)
        self.epoch = np.zeros(count, np.uint64)
        self.used = np.zeros(count, np.uint64)
        self.blocks = [
            (server, slice(begin, min(begin + SERVER_TERMINALS, count)))
            for server, begin in enumerate(range(0, count, SERVER_TERMINALS))
        ]
        self.counted = np.zeros((len(WINDOWS), len(self.lot_of)), np.float64)
        self.past = np.zeros((ROLLING_DAYS - 1, len(self.lot_of)), np.float64)
        self.hour = 0
        self.totals = dict.fromkeys(
            ("reports", "handed_out", "handed_out_slowed", "refused", "swaps", "decisions", "false_decisions"), 0
        )
        self.totals.update(figures=0, figures_aside=0)
        self.wanted_bytes = self.got_bytes = 0.0
        self.slowed_hours = 0
        self.last_slowed = np.full(len(self.lot_of), -(10**6))
        self.series: dict[str, list[float]] = {
            name: [] for name in ("at_s", "slowed_terminals", "handed_out_slowed", "got_share")
        }
        self.caps: dict[str, dict[str, list[float | None]]] = {
            f"{lot.name}, {name}": {"believed": [], "true": [], "learned": []}
            for index, lot in enumerate(month.lots)
            for name, window in WINDOWS.items()
            if any(tier.lot == index and tier.window == window for tier in month.tiers)
        }

    # ------------------------------------------------------------------------------------- what the engine is told

    def at(self, offset_ms: int) -> None:
        self.engine.clock.set(self.engine.start_ms + self.hour * HOUR_MS + offset_ms)

    def step(self, *runs: bytes) -> list[commands.OutcomeRun]:
        """Applies a batch; carries out the orders that come of it, which may bring others."""
        outcomes = commands.outcome_runs(self.cell.step(b"".join(runs)).data)
        orders = outcomes[-2]
        for _ in range(SWAP_ROUNDS):
            if not orders.count:
                break
            orders = commands.outcome_runs(self.cell.step(self._carried_out(orders)).data)[-2]
        return outcomes[:-2]

    def _carried_out(self, orders: commands.OutcomeRun) -> bytes:
        switch = orders["kind"] == layout.SWITCH
        place = (orders["terminal"][switch] - np.uint64(KEY_FIRST)).astype(np.int64)
        source = self.sim[place]
        self.sim[place] = (orders["target_iccid"][switch] // np.uint64(20) - np.uint64(ICCID_FIRST)).astype(np.uint32)
        self.epoch[place] = orders["epoch"][switch]
        self.used[place] = 0
        self.totals["swaps"] += len(place)
        self._given(place, source)
        runs = []
        for server in np.unique(orders["access_server"]).tolist():
            which = orders["access_server"] == server
            runs.append(
                commands.run(
                    layout.ACKNOWLEDGE, int(which.sum()), access_server=server, argument=self.engine.sessions[server],
                    order=orders["order"][which], result=layout.ACK_DONE,
                )
            )  # fmt: skip
        return b"".join(runs)

    def _given(self, place: Column, source: Column) -> None:
        """These terminals have other SIMs now."""
        sims = self.sim[place]
        self.totals["handed_out"] += len(place)
        self.totals["handed_out_slowed"] += int(self.carriers.slowed(sims).sum())
        if self.learning is not None:
            self.learning.detector.moved(np.concatenate([sims, source[source != layout.NONE_INDEX]]).astype(np.int64))

    def _settle(self) -> None:
        """Lets the engine finish what it goes on with from tick to tick: limits, swaps."""
        for count in range(TICKS_MAX):
            if not self.cell.machine.header()["sweeps_count"] and count:
                return
            self.at(self.offset_ms)
            self.step(commands.run(layout.TICK))
            self.offset_ms += 1

    # -------------------------------------------------------------------------------------------------- an hour

    def allocate(self, place: Column) -> None:
        """For the terminals without a SIM."""
        for server, block in self.blocks:
            mine = place[(place >= block.start) & (place < block.stop)]
            if not len(mine):
                continue
            run = commands.run(
                layout.ALLOCATE, len(mine), access_server=self.engine.numbers[server], terminal=self.keys[mine],
                subscriber=self.keys[mine], market=self.engine.markets["japan"],
            )  # fmt: skip
            (outcome,) = self.step(run)
            given = outcome["status"] != layout.NO_HEALTHY_SIM
            self.totals["refused"] += int((~given).sum())
            mine = mine[given]
            self.sim[mine], self.epoch[mine] = outcome["sim"][given], outcome["epoch"][given]
            self.used[mine] = 0
            self._given(mine, np.zeros(0, np.uint32))

    def run_hour(self) -> None:
        self.offset_ms = 0
        self.at(0)
        day, of_day = divmod(self.hour, 24)
        if of_day == 0 and day:
            self._begin_day(day)
        self.carriers.begin_hour(self.hour)
        if self.policy == "corrected":
            self._carriers_tell(day, of_day)
        self.offset_ms = HOUR_MS - REPORTED_BEFORE_MS
        handed_out_slowed = self.totals["handed_out_slowed"]
        held = np.flatnonzero(self.sim != layout.NONE_INDEX)
        everyone = len(held) == len(self.sim)
        wanted, line, radio = self.demand.hour(self.hour)
        if not everyone:
            wanted, line, radio = wanted[held], line[held], radio[held]
        sims = self.sim[held].astype(np.int64)
        carriers = self.carriers
        bytes_, seconds, slowed = passed(
            wanted, line, carriers.speed[sims], carriers.room[sims], carriers.next_speed[sims]
        )
        told = np.floor(bytes_)
        # A SIM has one terminal: in order of SIMs the sums of an hour go by without an index.
        by_sim = np.zeros(len(self.lot_of), np.float32)
        by_sim[sims] = told
        carriers.use(by_sim, day)
        now_slowed = slowed | carriers.slowed(sims)
        self.last_slowed[sims[now_slowed]] = self.hour
        self.counted += by_sim
        self.lifetime += by_sim
        self.wanted_bytes += float(wanted.sum(dtype=np.float64))
        self.got_bytes += float(told.sum(dtype=np.float64))
        self.slowed_hours += int(now_slowed.sum())
        self._report(held, sims, told, seconds, radio)
        self._move()
        if self.learning is not None:
            self._follow(day, of_day)
        self.hour += 1
        series = self.series
        series["at_s"].append(self.hour * 3600.0)
        series["slowed_terminals"].append(int(now_slowed.sum()))
        series["handed_out_slowed"].append(self.totals["handed_out_slowed"] - handed_out_slowed)
        series["got_share"].append(float(told.sum(dtype=np.float64) / max(float(wanted.sum(dtype=np.float64)), 1.0)))
        self._note_caps(day)

    def _carriers_tell(self, day: int, of_day: int) -> None:
        """Carriers note what they counted, and tell it later, by the command that an import gives."""
        if of_day == FIGURES_HOUR:
            figures = self.carriers.counts(CYCLE).astype(np.int64)
            as_of_s = self.engine.start_ms // 1000 + self.hour * 3_600
            self.noted[day] = (as_of_s, self.lifetime.astype(np.uint64), figures)
        if of_day != TOLD_HOUR:
            return
        for lot, sims in enumerate(self.month.slices()):
            if day - 1 - lot % 2 not in self.noted:
                continue
            as_of_s, counted, figures = self.noted[day - 1 - lot % 2]
            for begin in range(sims.start, sims.stop, layout.RUN_ITEMS_MAX):
                part = slice(begin, min(begin + layout.RUN_ITEMS_MAX, sims.stop))
                (outcome,) = self.step(
                    commands.run(
                        layout.CARRIER_USAGE, part.stop - begin, iccid=self.engine.iccids[part],
                        carrier_bytes=figures[part], counted_bytes=counted[part], as_of_s=as_of_s,
                        window=layout.WINDOW_CYCLE,
                    )
                )  # fmt: skip
                self.totals["figures"] += int((outcome["status"] == layout.OK).sum())
                self.totals["figures_aside"] += int((outcome["status"] == layout.PAST_WINDOW).sum())
        self.noted.pop(day - 2, None)

    def _count_error(self) -> float | None:
        """How far our count of a cycle is from its carrier's, on average over the SIMs that used much."""
        counts = self.carriers.counts(CYCLE)
        much = counts > JUDGED_BYTES
        ours = self.cell.machine.sims_columns()["used_cycle_bytes"]
        return round(float(np.mean(np.abs(ours[much] / counts[much] - 1))), 6) if much.any() else None

    def _schedule(self, day: int) -> None:
        """Says when windows next start anew, as the calendar of the service does: with the day, lagged and spread."""
        at_ms = self.engine.start_ms + day * 24 * HOUR_MS + RESET_LAG_MS
        for index, (lot, plan) in enumerate(zip(self.month.lots, self.month.plans, strict=True)):
            windows = [layout.WINDOW_DAY]
            if plan.rolling_days is not None:
                windows.append(layout.WINDOW_ROLLING)
            if self.month.cycle_days[index] == day:
                windows.append(layout.WINDOW_CYCLE)
            entity = self.engine.lots[lot.name]
            self.step(
                commands.run(
                    layout.SCHEDULE, len(windows), lot=entity, window=windows, at_ms=at_ms, spread_ms=RESET_SPREAD_MS
                )
            )  # fmt: skip

    def _begin_day(self, day: int) -> None:
        """The engine starts windows anew by its calendar, and the next day's are scheduled.

        That is over before the first reports of the day come, and so before all limits of the carriers have surely been
        lifted: what was used until then is in the carrier's new day, and were it not in ours, the learner would take
        that for a lowered cap.
        """
        lots = [self.engine.lots[lot.name] for lot in self.month.lots]
        while self.offset_ms <= RESET_LAG_MS + RESET_SPREAD_MS or any(
            any(self.cell.machine.lot(lot)["resetting"]) for lot in lots
        ):
            self.offset_ms += RESET_STEP_MS
            self.at(self.offset_ms)
            self.step(commands.run(layout.TICK))
        self._schedule(day + 1)
        for index, cycle_day in enumerate(self.month.cycle_days):
            if cycle_day == day:
                self.counted[CYCLE, self.month.slices()[index]] = 0
        self.counted[ROLLING] -= self.past[-1]
        self.past[1:] = self.past[:-1]
        self.past[0] = self.counted[DAY]
        self.counted[DAY] = 0

    def _report(self, held: Column, sims: Column, told: Column, seconds: Column, radio: Column) -> None:
        self.used[held] += told.astype(np.uint64)
        busy = seconds >= 2
        noise = self.random.standard_normal(len(held), np.float32) * np.float32(0.02) + np.float32(1)
        kbps = np.where(busy, told / np.maximum(seconds, 1) * np.float32(1 / 125) * noise, 0).astype(np.uint32)
        permille = np.minimum(seconds * np.float32(1000 / 3600), 1000).astype(np.uint16)
        permille[~busy] = 0
        radio = radio.astype(np.uint8)
        self.at(self.offset_ms)
        runs, total = [], 0
        for server, block in self.blocks:
            which = slice(*np.searchsorted(held, (block.start, block.stop)).tolist())
            mine = held[which]
            if not len(mine):
                continue
            runs.append(
                commands.run(
                    layout.REPORT_USAGE, len(mine), access_server=self.engine.numbers[server], terminal=self.keys[mine],
                    epoch=self.epoch[mine], up_bytes=0, down_bytes=self.used[mine], span_ms=HOUR_MS,
                    goodput_kbps=kbps[which], demand_permille=permille[which], radio=radio[which],
                )
            )  # fmt: skip
            total += len(mine)
        outcomes = self.step(*runs)
        refused = sum(
            int(((outcome["status"] != layout.OK) & (outcome["status"] != layout.LATE)).sum()) for outcome in outcomes
        )
        if refused:
            raise ReplayError(f"the engine refused {refused} of {total} usage reports")
        self.totals["reports"] += total
        if self.learning is None:
            return
        count = len(held)
        decisions = self.learning.detector.observe(
            Reports(
                sim=sims, lot=self.lot_of[sims], at_ms=np.full(count, self.engine.clock.now_ms()),
                span_ms=np.full(count, HOUR_MS), goodput_kbps=kbps, demand_permille=permille, radio=radio,
                counted_bytes=told,
            )
        )  # fmt: skip
        self._say(decisions)

    def _say(self, decisions: Decisions) -> None:
        """What was decided, as commands with their evidence."""
        assert self.learning is not None
        self.learning.decided(decisions, self.counted)
        throttled = decisions.throttled.astype(bool)
        about = decisions.sim[throttled]
        self.totals["decisions"] += len(about)
        self.totals["false_decisions"] += int((self.last_slowed[about] < self.hour - 1).sum())
        for health, which in ((layout.THROTTLED, throttled), (layout.HEALTHY, ~throttled)):
            if which.any():
                evidence = {
                    "goodput_kbps": decisions.goodput_kbps[which],
                    "windows": decisions.windows[which],
                    "confidence_permille": decisions.confidence_permille[which],
                }
                iccids = self.engine.iccids[decisions.sim[which]]
                self.step(commands.set_health(iccids, health, **(evidence if health == layout.THROTTLED else {})))

    def _move(self) -> None:
        """Some terminals restart, and ask again; so does who has none."""
        count = len(self.sim)
        leaves = np.flatnonzero(self.random.random(count, np.float32) < np.float32(self.month.moves_per_day / 24))
        leaves = leaves[self.sim[leaves] != layout.NONE_INDEX]
        for server, block in self.blocks:
            mine = leaves[(leaves >= block.start) & (leaves < block.stop)]
            if len(mine):
                self.step(
                    commands.run(
                        layout.RELEASE, len(mine), access_server=self.engine.numbers[server], terminal=self.keys[mine],
                        epoch=self.epoch[mine],
                    )
                )  # fmt: skip
        self.sim[leaves] = layout.NONE_INDEX
        self.allocate(np.flatnonzero(self.sim == layout.NONE_INDEX))

    def _follow(self, day: int, of_day: int) -> None:
        assert self.learning is not None
        learning = self.learning
        if of_day == 23:
            learning.look_at_quiet(self.counted, self.engine.clock.now_ms() // 1000 - 2 * HOUR_MS // 1000)
        if of_day == TRUST_HOUR and day:
            self._trust_again()
        if of_day == LEARN_HOUR and day:
            found = learning.learn()
            if found:
                lots = [self.engine.lots[self.month.lots[lot].name] for lot, _, _ in found]
                self.step(
                    commands.run(
                        layout.SET_CAP, len(found), lot=lots, window=[int(window) for _, window, _ in found],
                        quota_bytes=[quota for _, _, quota in found], basis=layout.BASIS_LEARNED,
                    )
                )  # fmt: skip
            self._settle()

    def _trust_again(self) -> None:
        """Limits of days have been lifted."""
        assert self.learning is not None
        health = self.cell.machine.sims_columns()["health"]
        sims = np.flatnonzero(health == layout.THROTTLED)
        for lot, learned in enumerate(self.learning.learned):
            if (cycle := learned.get(Window.CYCLE)) is not None:
                spent = (self.lot_of[sims] == lot) & (self.counted[CYCLE, sims] >= MET * cycle)
                sims = sims[~spent]
        if len(sims):
            self.learning.detector.told(sims, np.zeros(len(sims), bool), np.zeros(len(sims)))
            self.step(commands.set_health(self.engine.iccids[sims], layout.HEALTHY))

    def _note_caps(self, day: int) -> None:
        for index, lot in enumerate(self.month.lots):
            plan = self.month.plans[index]
            believed = {CYCLE: plan.quota_cycle_gb, DAY: plan.quota_day_gb, ROLLING: plan.quota_rolling_gb}
            for name, window in WINDOWS.items():
                found = self.caps.get(f"{lot.name}, {name}")
                if found is None:
                    continue
                true = self.carriers.quota_bytes(index, window, day)
                learned = None
                if self.learning is not None:
                    learned = self.learning.learned[index].get(Window(window + 1))
                found["believed"].append(believed[window])
                found["true"].append(None if true is None else true / GB)
                found["learned"].append(None if learned is None else learned / GB)

    # ---------------------------------------------------------------------------------------------------- the whole

    def run(self, progress: Progress | None) -> None:
        self.offset_ms = 0
        self.at(0)
        watermarks = ((layout.LOW_BYTES, self.month.low_mb), (layout.EXHAUSTED_BYTES, self.month.low_mb / 4))
        for setting, megabytes in (*watermarks, (layout.SWAPS_PER_DAY_MAX, 255 / MB), (layout.AUTOMATIC_AHEAD_MS, 0)):
            self.step(commands.run(layout.CONFIGURE, setting=setting, value=round(megabytes * MB)))
        self._schedule(1)
        self.allocate(np.arange(len(self.sim)))
        # Those of the first hour were all handed out before anything was used.
        self.totals.update(handed_out=0, handed_out_slowed=0)
        for hour in range(self.month.days * 24):
            self.run_hour()
            if progress is not None:
                progress(self.policy, (hour + 1) / (self.month.days * 24))

    def figures(self) -> dict[str, int | float | None]:
        totals = self.totals
        return {
            "usage_reports": totals["reports"],
            "handed_out": totals["handed_out"],
            "handed_out_slowed": totals["handed_out_slowed"],
            "allocations_refused": totals["refused"],
            "swaps_completed": totals["swaps"],
            "slowed_terminal_hours": self.slowed_hours,
            "wanted_bytes_not_got_share": round(1 - self.got_bytes / max(self.wanted_bytes, 1), 6),
            "count_error_share": self._count_error(),
            "carrier_figures": totals["figures"] if self.policy == "corrected" else None,
            "carrier_figures_set_aside": totals["figures_aside"] if self.policy == "corrected" else None,
            "throttle_decisions": totals["decisions"] if self.learning else None,
            "throttle_decisions_false": totals["false_decisions"] if self.learning else None,
        }


def replay(month: Month, policies: Iterable[str] | None, progress: Progress | None = None) -> dict[str, Any]:
    """As ``simswitch.twin.replay``: the figures of each policy, and what ``plot`` draws."""
    chosen = tuple(month.policies if policies is None else policies)
    unknown = [policy for policy in chosen if policy not in POLICIES]
    if unknown or not chosen:
        raise ReplayError(
            f"the policies of a month are {', '.join(POLICIES)}, not {', '.join(unknown) or 'none at all'}"
        )
    if set(chosen) - {"believed"}:
        _need_scipy()
    figures: dict[str, Any] = {}
    series: dict[str, Any] = {}
    caps: dict[str, Any] = {}
    state_hash = 0
    for policy in chosen:
        run = _Run(month, policy)
        run.run(progress)
        figures[policy], series[policy] = run.figures(), run.series
        if policy != "believed" or len(figures) == 1:
            caps, state_hash = run.caps, run.cell.machine.state_hash()
        run.cell.close()
    return {
        "kind": "month",
        "scenario": month.name,
        "seed": month.seed,
        "state_hash": f"{state_hash:016x}",
        "policies": figures,
        "series": series,
        "servers": {},
        "caps": caps,
    }


def _need_scipy() -> None:
    """The learner imports it only where it learns."""
    try:
        import simswitch.caps.tiers  # noqa: F401
    except ImportError as error:
        raise ReplayError("the policy learned needs SciPy: install simswitch[caps]") from error


def record(month: Month, policy: str, folder: Path) -> dict[str, int | float | None]:
    """Replays one policy and writes a history of it into a folder."""
    if policy not in POLICIES:
        raise ReplayError(f"the policies of a month are {', '.join(POLICIES)}, not {policy}")
    if policy != "believed":
        _need_scipy()
    run = _Run(month, policy, folder)
    run.run(None)
    figures = run.figures()
    run.cell.close()
    return figures

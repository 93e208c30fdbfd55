"""A month on the engine in which the believed cap is wrong: what it said on each day, beside what happened.

    python -m tests.planning.twin_month [--seed N] [--terminals N] [--json FILE] [--plot FILE]

Terminals of heavy-tailed use come and go four times a day on a real engine under a virtual clock. The carrier keeps a
cap 20 % below the one that is believed, and tells nobody: a SIM that has used as much is slowed. That is noticed after
three quarters of an hour and enters as SET_HEALTH, and the terminal gets another SIM; each night what was seen goes
through ``simswitch.caps``, and what it has learned enters as SET_CAP. All that goes into a history by the projector of
a service, and on each morning the planner reads that history as ``simswitch plan DIR`` does. It is scaled down: as many
SIMs as terminals, with a tenth of a usual cap, expected use and watermarks. The month before has the same use and a
pool that is filled thrice.

The pool is dry on the first day on which more than a hundredth of what was wanted was not served.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from simswitch.caps.evidence import Observations, Window
from simswitch.caps.tiers import find
from simswitch.cell import Capacity, Cell
from simswitch.clock import VirtualClock
from simswitch.core import commands, layout
from simswitch.history.schema import open_reader
from simswitch.planning import observed
from simswitch.planning.forecast import backtest, forecast, trials, widened, widening
from simswitch.planning.volume import CapInterval, run_dry
from simswitch.twin.record import RecordedCell
from simswitch.twin.replay import iccid_numbers

FIRST = date(2026, 9, 1)
BEFORE = 30
DAYS = 30
GB = 10**9
BELIEF = 1.25
"""The believed cap over the true one."""
SLOWED_KBPS = 128
NOTICED_S = 2_700
ACTIVE = 0.3
"""Of the terminals, in a visit."""
ROUNDS = 6
"""SIMs that a terminal may go through in a visit."""
VISITS = 4
VISIT_S = 86_400 // VISITS
DRY_SHARE = 0.01
DAYS_AFTER = 3
"""Dry days that are still told of."""
WEEKDAYS = np.array([0.95, 0.93, 0.94, 0.97, 1.05, 1.12, 1.10])
HORIZON = 40
WEEK = 7


@dataclass(frozen=True, slots=True)
class Morning:
    """What was known and said on one."""

    day: str
    throttled: int
    """SIMs that were known to be slowed."""
    cap_bytes: int
    basis: str
    said_p50: str | None
    said_p95: str | None
    believed_p50: str | None
    """What would have been said with the cap as it was believed."""


@dataclass(frozen=True, slots=True)
class Story:
    seed: int
    believed_bytes: int
    true_bytes: int
    dry_on: str | None
    mornings: list[Morning]
    unserved: list[float]
    """By day of the month: the share of what was wanted."""
    backtest: dict[str, Any]


class Month:
    """The engine, its terminals and its carrier."""

    def __init__(self, folder: Path, seed: int, terminals: int) -> None:
        self.random = np.random.default_rng(seed)
        self.folder = folder
        self.terminals = terminals
        self.habit = self.random.lognormal(-(1.7**2) / 2, 1.7, terminals)
        self.mean_day = 4e8 * self.random.lognormal(0.0, 0.1)
        self.shared = 0.0
        self.sims = terminals
        # The true cap lasts for some three weeks.
        month_bytes = self.mean_day * DAYS * float(self.habit.sum())
        self.true_cap = int(month_bytes / self.sims * self.random.uniform(0.6, 0.85))
        self.believed = int(self.true_cap * BELIEF)
        self.begin_ms = round(datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC).timestamp() * 1000)
        self.clock = VirtualClock(self.begin_ms)
        cell = Cell.in_memory(capacity=Capacity(self.sims, 2 * terminals, 1_024), clock=self.clock, seeds=lambda: seed)
        self.cell = RecordedCell(cell, self.clock, folder)
        self.build()
        self.true_bytes = np.zeros(self.sims)
        """What each SIM has used in this cycle, as the carrier counts."""
        self.slowed = np.zeros(self.sims, bool)
        self.sim = np.full(terminals, -1)
        self.epoch = np.zeros(terminals, np.uint64)
        self.reported = np.zeros(terminals)
        self.seen: list[tuple[int, int, int, int]] = []
        """SIM, when, and its use before and after the visit in which it was slowed."""
        self.at_ms = self.begin_ms

    def say(self, kind: int, count: int = 1, /, *, server: bool = False, **columns: Any) -> commands.OutcomeRun:
        run = commands.run(kind, count, access_server=0 if server else layout.NONE_SHORT, **columns)
        return commands.outcome_runs(self.cell.step(run).data)[0]

    def build(self) -> None:
        def define(kind: int, name: str, numbers: dict[int, int]) -> int:
            definition = np.frombuffer(commands.definition(kind, name, numbers), "V1024")
            return int(self.say(layout.DEFINE, definition=definition)["index"][0])

        self.say(layout.CONFIGURE, setting=layout.AUTOMATIC_SWAPS, value=0)
        self.say(layout.CONFIGURE, setting=layout.LEASE_MS, value=4 * VISIT_S * 1000)
        self.say(layout.CONFIGURE, setting=layout.EXPECTED_FLOOR_BYTES, value=GB // 10)
        self.say(layout.CONFIGURE, setting=layout.EXPECTED_CEILING_BYTES, value=GB // 5)
        self.say(layout.CONFIGURE, setting=layout.LOW_BYTES, value=GB // 2)
        self.say(layout.CONFIGURE, setting=layout.EXHAUSTED_BYTES, value=GB // 10)
        supplier = define(layout.SUPPLIER, "wholesaler", {})
        plan = define(
            layout.PLAN,
            "unlimited",
            {layout.PLAN_QUOTA_CYCLE: self.believed, layout.PLAN_BASIS_CYCLE: layout.BASIS_BELIEVED},
        )
        sim_class = define(layout.SIM_CLASS, "standard", {})
        self.lot = define(
            layout.LOT,
            "lot-2020",
            {layout.LOT_SUPPLIER: supplier, layout.LOT_PLAN: plan, layout.LOT_CLASS: sim_class},
        )
        bank = define(layout.BANK, "bank", {})
        self.market = define(layout.MARKET, "japan", {layout.MARKET_FIRST_CLASS: sim_class})
        define(layout.ACCESS_SERVER, "as-1", {})
        numbers = np.arange(self.sims)
        self.iccids = iccid_numbers(self.sims)
        imported = self.say(
            layout.IMPORT_SIMS, self.sims, iccid=self.iccids, imsi=440_100_000_000_000 + numbers, lot=self.lot,
            bank=bank, slot=numbers, health=layout.HEALTHY,
        )  # fmt: skip
        assert set(imported["status"].tolist()) == {layout.OK}

    def new_cycle(self) -> None:
        at_ms = self.cell.machine.now_ms
        self.say(layout.SCHEDULE, lot=self.lot, window=layout.WINDOW_CYCLE, at_ms=at_ms, spread_ms=0)
        healed = self.iccids[self.slowed]
        if len(healed):
            self.cell.step(commands.set_health(healed, layout.HEALTHY))
        self.slowed[:] = False
        self.true_bytes[:] = 0

    def day(self, day: int) -> float:
        """The share of what was wanted that was not served."""
        self.shared = 0.6 * self.shared + self.random.normal(0.0, 0.02)
        weekday = WEEKDAYS[(FIRST + timedelta(days=day)).weekday()]
        wanted = served = 0.0
        for visit in range(VISITS):
            level = self.mean_day / VISITS * weekday * np.exp(self.shared)
            active = self.random.random(self.terminals) < ACTIVE
            demand = active / ACTIVE * level * self.habit * self.random.gamma(1.5, 1 / 1.5, self.terminals)
            # No terminal wants more in six hours than a whole SIM.
            demand = np.minimum(demand, self.true_cap)
            self.at_ms = self.begin_ms + day * 86_400_000 + visit * VISIT_S * 1000
            wanted += float(demand.sum())
            served += self.visit(demand)
        return 1 - served / wanted

    def visit(self, demand: np.ndarray[Any, Any]) -> float:
        """What was served."""
        left = demand.copy()
        self.leave(np.flatnonzero((self.sim >= 0) & (demand <= 0)))
        for round_ in range(ROUNDS):
            self.clock.set(self.at_ms + 60_000 + round_ * NOTICED_S * 1000)
            self.cell.step_tick()
            self.attach(np.flatnonzero((self.sim < 0) & (left > 0)))
            on = np.flatnonzero((self.sim >= 0) & (left > 0))
            if not len(on):
                break
            self.use(on, left)
        return float((demand - left).sum())

    def use(self, on: np.ndarray[Any, Any], left: np.ndarray[Any, Any]) -> None:
        """Those terminals use what their SIMs give; whose SIM is slowed gives it back when that is noticed."""
        sims = self.sim[on]
        before = self.true_bytes[sims]
        fast = np.maximum(self.true_cap - before, 0.0)
        got = np.minimum(left[on], fast + SLOWED_KBPS * 125 * NOTICED_S)
        hit = left[on] > fast
        left[on] -= got
        self.true_bytes[sims] += got
        self.reported[on] += got
        whole = self.reported[on].astype(np.uint64)
        leases = {"terminal": on + 1, "epoch": self.epoch[on]}
        self.clock.advance((NOTICED_S - 60) * 1000)
        self.say(layout.REPORT_USAGE, len(on), server=True, up_bytes=0, down_bytes=whole, **leases)
        found = hit & ~self.slowed[sims]
        if found.any():
            self.slowed[sims[found]] = True
            evidence = {"goodput_kbps": SLOWED_KBPS, "windows": 9, "confidence_permille": 990}
            self.cell.step(commands.set_health(self.iccids[sims[found]], layout.THROTTLED, **evidence))
            after = self.true_bytes[sims[found]]
            uses = zip(sims[found].tolist(), before[found].tolist(), after.tolist(), strict=True)
            self.seen += [(sim, self.at_ms, int(low), int(high)) for sim, low, high in uses]
        self.leave(on[self.slowed[sims]])

    def leave(self, terminals: np.ndarray[Any, Any]) -> None:
        if len(terminals):
            leases = {"terminal": terminals + 1, "epoch": self.epoch[terminals]}
            self.say(layout.RELEASE, len(terminals), server=True, **leases)
            self.sim[terminals] = -1

    def attach(self, terminals: np.ndarray[Any, Any]) -> None:
        if not len(terminals):
            return
        granted = self.say(
            layout.ALLOCATE, len(terminals), server=True, terminal=terminals + 1, subscriber=terminals + 1,
            expected_bytes=0, market=self.market,
        )  # fmt: skip
        good = granted["status"] == layout.OK
        self.sim[terminals[good]] = granted["sim"][good]
        self.epoch[terminals[good]] = granted["epoch"][good]
        self.reported[terminals[good]] = 0

    def learn(self) -> None:
        """At night: what slowed SIMs and fast ones say of the cap."""
        fast = np.flatnonzero(~self.slowed & (self.true_bytes > 0))
        fast = fast[np.argsort(self.true_bytes[fast])][-200:]
        slowed = np.array(self.seen, np.int64).reshape(-1, 4)
        sims = np.concatenate((slowed[:, 0], fast))
        found = find(
            Observations(
                lot=np.zeros(len(sims), np.int64),
                sim=sims,
                window=np.full(len(sims), Window.CYCLE),
                at_ms=np.concatenate((slowed[:, 1], np.full(len(fast), self.at_ms))),
                lower_bytes=np.concatenate((slowed[:, 2], self.true_bytes[fast].astype(np.int64))),
                upper_bytes=np.concatenate((slowed[:, 3], np.zeros(len(fast), np.int64))),
                goodput_kbps=np.concatenate((np.full(len(slowed), SLOWED_KBPS), np.zeros(len(fast), np.int64))),
            )
        )
        for cap in found.caps:
            self.say(
                layout.SET_CAP, lot=self.lot, window=cap.window, quota_bytes=cap.quota_bytes, basis=layout.BASIS_LEARNED
            )


def story(folder: Path, seed: int, terminals: int) -> Story:
    month = Month(folder, seed, terminals)
    mornings: list[Morning] = []
    unserved = []
    tried = []
    for day in range(BEFORE + DAYS):
        if day in (BEFORE // 3, 2 * BEFORE // 3, BEFORE):
            month.clock.set(month.begin_ms + day * 86_400_000)
            month.new_cycle()
        if day >= BEFORE:
            month.clock.set(month.begin_ms + day * 86_400_000 + 30_000)
            month.cell.step(commands.run(layout.TICK))
            month.cell.commit()
            morning = FIRST + timedelta(days=day)
            situation = observed.read_situation(open_reader(folder), until=morning)
            if (day - BEFORE) % WEEK == 0:
                tried = trials(situation.past, WEEK, seed=seed)
            mornings.append(_said(month, situation, morning, widening(tried), seed))
        share = month.day(day)
        if day >= BEFORE:
            unserved.append(share)
            month.learn()
            # After a day on which nothing was served there is nothing to plan from.
            if sum(share > DRY_SHARE for share in unserved) > DAYS_AFTER or share == 1:
                break
    month.cell.close()
    dry = next((place for place, share in enumerate(unserved) if share > DRY_SHARE), None)
    dry_on = None if dry is None else (FIRST + timedelta(days=BEFORE + dry)).isoformat()
    return Story(seed, month.believed, month.true_cap, dry_on, mornings, unserved, backtest(tried, WEEK))


def _said(month: Month, situation: Any, morning: date, wider: float, seed: int) -> Morning:
    caps = month.cell.machine.lot(month.lot)
    ahead = widened(forecast(situation.past, HORIZON, seed=seed), wider)
    lots = situation.lots
    dry = run_dry(ahead, lots, seed=seed)
    as_believed = [replace(lot, cap=CapInterval.exactly(month.believed)) for lot in lots]
    believed = run_dry(ahead, as_believed, seed=seed).date_at(0.5)
    middle, early = dry.date_at(0.5), dry.date_at(0.05)
    return Morning(
        morning.isoformat(),
        int(month.slowed.sum()),
        caps["quota_bytes"][0],
        layout.Basis(caps["basis"][0]).name.removeprefix("BASIS_").lower(),
        middle.isoformat() if middle else None,
        early.isoformat() if early else None,
        believed.isoformat() if believed else None,
    )


def errors_days(told: Story) -> list[int]:
    """How many days the P50 date was off, on each of the last ten mornings before the pool was dry on which a SIM was
    known to be slowed."""
    if told.dry_on is None:
        return []
    dry = date.fromisoformat(told.dry_on)
    return [
        (date.fromisoformat(each.said_p50) - dry).days if each.said_p50 else HORIZON
        for each in told.mornings
        if each.throttled and 0 < (dry - date.fromisoformat(each.day)).days <= 10
    ]


def draw(told: Story, path: Path) -> None:
    import matplotlib.dates as dates
    from matplotlib.figure import Figure

    form: Any = dates.DateFormatter("%d %b")  # type: ignore[no-untyped-call]

    def days(values: list[str | None]) -> Any:
        return [np.nan if value is None else (date.fromisoformat(value) - date(1970, 1, 1)).days for value in values]

    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    mornings = days([each.day for each in told.mornings])
    for values, colour, label in (
        ([each.believed_p50 for each in told.mornings], "#999999", "said with the believed cap"),
        ([each.said_p50 for each in told.mornings], "#1f618d", "said: P50"),
        ([each.said_p95 for each in told.mornings], "#c0392b", "said: P95, not before"),
    ):
        above.plot(mornings, days(values), ".-", color=colour, label=label)
    if told.dry_on:
        dry = days([told.dry_on])[0]
        above.axhline(dry, color="black", linewidth=1, label="really dry")
        above.axvline(dry, color="black", linewidth=0.5, linestyle=":")
    above.yaxis.set_major_formatter(form)
    above.set_ylabel("the pool runs dry on")
    above.legend(loc="lower right", fontsize=8)
    bars = below.bar(mornings, [each.throttled for each in told.mornings], color="#e59866")
    below.set_ylabel("SIMs")
    cap = below.twinx()
    (line,) = cap.step(mornings, [each.cap_bytes / GB for each in told.mornings], color="#1f618d", where="mid")
    cap.set_ylabel("cap in force, GB")
    below.xaxis.set_major_formatter(form)
    below.legend([bars, line], ["SIMs known to be slowed", "cap in force (right)"], loc="upper center", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description="What the engine said on each day of a month, beside what happened.")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--terminals", type=int, default=400)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    words = parser.parse_args()
    seed = secrets.randbits(32) if words.seed is None else words.seed
    with tempfile.TemporaryDirectory(prefix="simswitch-month-") as folder:
        told = story(Path(folder), seed, words.terminals)
    caps = f"believed {told.believed_bytes / GB:.2f} GB, kept by the carrier {told.true_bytes / GB:.2f} GB"
    print(f"seed {seed}: really dry on {told.dry_on}, {caps}")
    print("morning     slowed  cap in force        said P50    said P95    with the believed cap   not served")
    for each, share in zip(told.mornings, told.unserved, strict=True):
        cap = f"{each.cap_bytes / GB:5.2f} GB {each.basis:9}"
        said = (value or "-" for value in (each.said_p50, each.said_p95, each.believed_p50))
        print(f"{each.day} {each.throttled:7} {cap:>17}", *(f"{value:>11}" for value in said), f"{share:>19.2%}")
    print("off by days, in the last ten before it, once SIMs were slowed:", errors_days(told))
    test = told.backtest
    print(
        f"forecast of a week's use on this twin: off by {test['error_mean']:.1%}, the week before by "
        f"{test['naive_error_mean']:.1%}; {test['covered']:.0%} within 5 % to 95 % ({test['origins']} weeks)"
    )
    if words.json:
        words.json.write_text(json.dumps(asdict(told), indent=2) + "\n", encoding="utf-8")
    if words.plot:
        draw(told, words.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A carrier with hidden limits, for the tests of caps: SIMs, cells, people and shapers in steps of five minutes.

It is written from the other side than the detector, and shares none of its assumptions: goodput comes of cells whose
load wanders and follows the day, of devices, signal and servers; a shaper is a bucket that lets a burst through and
swings around its speed; people want by the day and by heavy tails; the carrier counts by its own factor, lifts limits
one SIM after the other after midnight and overlooks some, and part of what is used is reported up to two days late.
What is false here (slow, but not slowed):

    busy cells            by evening a tenth of their rate, wandering
    lunch hour            the whole lot at once, at many levels
    weak signal           told as radio 1 or 2, or not told at all
    slow devices          at a carrier's speed all the time, because the modem can't do more
    slow servers          one level for as long as the download takes
    idle terminals        want next to nothing
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from simswitch.caps.throttle import Reports

STEP_S = 300
STEPS_A_DAY = 86_400 // STEP_S
DAY_MS = 86_400_000
ROLLING_DAYS = 3
BEGIN_MS = 1_580_515_200_000  # midnight, 1 February 2020, UTC
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Tier:
    """What the carrier hides: after so much in a window it slows to so much."""

    window: str
    quota_bytes: float
    kbps: float


@dataclass(slots=True)
class Plan:
    """Of one lot. ``changes`` maps a day to the tiers from its midnight on."""

    tiers: tuple[Tier, ...]
    changes: dict[int, tuple[Tier, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class Truth:
    """Of one step, by SIM."""

    day: int
    slowed: Array
    """Slowed at the end of the step, by whatever tier: its place in the plan, -1 for none."""
    slowed_demand_s: Array
    """Demand in this step while it was slowed."""
    moved: Array
    """SIMs that went to another terminal before this step."""


class Carrier:
    """``steps()`` gives the reports of each step and the truth beside them."""

    def __init__(
        self,
        seed: int,
        plans: list[Plan],
        sims_a_lot: int,
        days: int,
        lag_share: float = 0.03,
        unlifted_share: float = 0.0,
    ) -> None:
        """``unlifted_share``: of the days that end for a slowed SIM, how many the carrier overlooks."""
        self.random = np.random.default_rng(seed)
        self.overlooks = np.random.default_rng((seed, 1))
        self.unlifted_share = unlifted_share
        self.plans = plans
        self.days = days
        self.lag_share = lag_share
        self.sims = sims_a_lot * len(plans)
        self.lot = np.repeat(np.arange(len(plans)), sims_a_lot)
        random, n = self.random, self.sims
        self.cells = max(4, n // 12)
        self.cell = random.integers(0, self.cells, n)
        self.cell_rate = np.log(random.uniform(12_000, 45_000, self.cells))
        self.cell_busy = random.random(self.cells) < 0.15
        self.cell_wander = random.normal(0, 0.35, self.cells)
        self._new_terminals(np.arange(n), first=True)
        # People: heavy tails in how often they are on; a third of the sessions takes all that it gets.
        self.keen = random.lognormal(np.log(0.018), 0.9, n)
        self.idle = random.random(n) < 0.15
        self.session = np.zeros(n, np.int64)
        self.greedy = np.zeros(n, bool)
        self.server_kbps = np.full(n, np.inf)
        self.weak = np.zeros(n, np.int64)
        self.weak_factor = np.ones(n)
        self.phase = random.uniform(0, 2 * np.pi, n)
        # The carrier's count, and the windows by it.
        self.reset_s = random.uniform(0, 5_400, n)
        self.cycle_day = random.choice([3, 8, 13, 28], n)
        self.used: dict[str, Array] = {"day": np.zeros(n), "cycle": random.lognormal(np.log(2e9), 1.0, n)}
        past = random.lognormal(np.log(1.5e9), 1.0, (ROLLING_DAYS - 1, n))
        self.used["rolling"] = past.sum(axis=0)
        self.noise = {window: self._noise(n) for window in self.used}
        # Use of this day and the days before it, as the carrier counts it and as we do.
        self.past = {"carrier": past, "ours": past.copy()}
        # Ours: what was reported, and what still is on its way.
        self.counted = {window: np.zeros(n) for window in self.used}
        for window in ("cycle", "rolling"):
            self.counted[window] = self.used[window].copy()
        self.late_bytes = np.zeros(n)
        self.today = np.zeros(n)

    def _noise(self, n: int) -> Array:
        return self.random.lognormal(0, 0.02, n)

    def _new_terminals(self, sims: Array, first: bool = False) -> None:
        random, n = self.random, self.sims
        if first:
            self.device, self.device_kbps = np.zeros(n), np.full(n, np.inf)
            self.tells_radio = np.ones(n, bool)
        self.device[sims] = random.normal(0, 0.3, len(sims))
        slow = random.random(len(sims)) < 0.03
        kinds = random.choice([360.0, 930.0, 4_700.0, 7_000.0], len(sims))
        self.device_kbps[sims] = np.where(slow, kinds, np.inf)
        self.tells_radio[sims] = random.random(len(sims)) < 0.8
        self.cell[sims] = random.integers(0, self.cells, len(sims))

    def tiers(self, lot: int, day: int) -> tuple[Tier, ...]:
        plan = self.plans[lot]
        tiers = plan.tiers
        for begin, changed in sorted(plan.changes.items()):
            if day >= begin:
                tiers = changed
        return tiers

    def steps(self) -> Iterator[tuple[Reports, Truth]]:
        for step in range(self.days * STEPS_A_DAY):
            yield self._step(step)

    def _step(self, step: int) -> tuple[Reports, Truth]:
        random, n = self.random, self.sims
        day, of_day = divmod(step, STEPS_A_DAY)
        hour = of_day * 24 / STEPS_A_DAY
        moved = np.flatnonzero(random.random(n) < 0.1 / STEPS_A_DAY)
        self._new_terminals(moved)
        self._reset(day, of_day)

        # Who wants how much.
        awake = 0.15 + np.exp(-(((hour - 12.5) / 2.5) ** 2)) + 1.6 * np.exp(-(((hour - 21) / 2.8) ** 2))
        begins = (self.session <= 0) & ~self.idle & (random.random(n) < np.minimum(self.keen * awake, 0.5))
        count = int(begins.sum())
        self.session[begins] = random.geometric(1 / 9, count)
        self.greedy[begins] = random.random(count) < 0.4
        server = random.random(count) < 0.02
        self.server_kbps[begins] = np.where(server, random.lognormal(np.log(2_500), 1.0, count), np.inf)
        on = self.session > 0
        share = np.where(self.greedy, random.uniform(0.4, 1.0, n), random.uniform(0.02, 0.3, n))
        share = np.where(on, share, np.where(random.random(n) < 0.3, random.uniform(0.001, 0.02, n), 0.0))
        self.session -= 1

        # What the line gives.
        evening = np.exp(-(((hour - 21) / 2.2) ** 2))
        self.cell_wander = 0.94 * self.cell_wander + random.normal(0, 0.13, self.cells)
        fading = np.where(self.cell_busy, random.normal(0, 0.25, self.cells), random.normal(0, 0.08, self.cells))
        cell = self.cell_rate - 0.9 * evening + self.cell_wander - np.where(self.cell_busy, 2.8 * evening, 0.0) + fading
        weak_now = (self.weak <= 0) & (random.random(n) < 0.004)
        self.weak[weak_now] = random.geometric(1 / 8, int(weak_now.sum()))
        self.weak_factor[weak_now] = random.uniform(0.01, 0.12, int(weak_now.sum()))
        in_weak = self.weak > 0
        self.weak -= 1
        rate = cell[self.cell] + self.device + random.normal(0, 0.12, n)
        lunch = 2.6 * np.exp(-(((hour - 12.4) / 0.5) ** 2))
        rate = rate - lunch * random.uniform(0.6, 1.2, n)
        rate = np.where(in_weak, rate + np.log(self.weak_factor) + random.normal(0, 0.3, n), rate)
        line = np.minimum(np.exp(rate), self.device_kbps)
        got = np.minimum(line, self.server_kbps * random.normal(1, 0.03, n).clip(0.8, 1.2))

        # What the carrier lets through: fast until a limit is met, slowed from there on.
        seconds = share * STEP_S
        before = self._tier(day)
        shaped = self._shaped(day, before, step, got, seconds)
        bytes_ = shaped * 125.0 * seconds
        room = self._room(day)
        crossing = (before < 0) & (bytes_ > room) & (bytes_ > 0)
        fast_s = np.where(crossing, seconds * np.clip(room / np.maximum(bytes_, 1), 0, 1), seconds)
        self._use(np.where(crossing, room, 0.0))
        after = np.where(crossing, self._tier(day, slack=1.0), before)
        slowed = self._shaped(day, after, step, got, np.maximum(seconds - fast_s, 1.0))
        mixed = (shaped * fast_s + slowed * (seconds - fast_s)) / np.maximum(seconds, 1e-9)
        kbps = np.where(crossing, mixed, shaped)
        total = np.where(crossing, kbps * 125.0 * seconds, bytes_)
        self._use(np.where(crossing, np.maximum(total - room, 0.0), total))
        tier = self._tier(day)

        # What is reported of it.
        late = random.random(n) < self.lag_share / 20
        delivered = (self.late_bytes > 0) & (random.random(n) < 1 / STEPS_A_DAY)
        reported = np.where(late, 0.0, total) + np.where(delivered, self.late_bytes, 0.0)
        self.late_bytes = np.where(delivered, 0.0, self.late_bytes) + np.where(late, total, 0.0)
        for window in self.counted:
            self.counted[window] += reported
        says = on | (share > 0) | delivered
        radio = np.where(in_weak, random.integers(1, 3, n), random.integers(3, 6, n))
        radio = np.where(self.tells_radio, radio, 0)
        told = np.where(seconds >= 2, np.maximum(kbps * random.normal(1, 0.02, n).clip(0.9, 1.1), 1), 0)
        who = np.flatnonzero(says)
        at_ms = BEGIN_MS + (step + 1) * STEP_S * 1000
        reports = Reports(
            sim=who,
            lot=self.lot[who],
            at_ms=np.full(len(who), at_ms),
            span_ms=np.full(len(who), STEP_S * 1000),
            goodput_kbps=told[who].astype(np.int64),
            demand_permille=(share[who] * 1000).astype(np.int64),
            radio=radio[who],
            counted_bytes=reported[who].astype(np.int64),
        )
        slowed_s = np.where(before >= 0, seconds, np.where(crossing, seconds - fast_s, 0.0))
        # A limit that the line is below anyway can't be seen, so it doesn't count as demand while slowed.
        seen = got > 1.6 * self._speed(day, tier)
        return reports, Truth(day, tier, np.where(seen & ((radio == 0) | (radio > 2)), slowed_s, 0.0), moved)

    def _use(self, bytes_: Array) -> None:
        self.today += bytes_
        for window in self.used:
            self.used[window] += bytes_

    def _reset(self, day: int, of_day: int) -> None:
        """Limits are lifted one SIM after the other; our own windows begin at midnight."""
        now_s = of_day * STEP_S
        due = (self.reset_s >= now_s) & (self.reset_s < now_s + STEP_S)
        cycle = due & (self.cycle_day == day)
        lifted = due.copy()
        if self.unlifted_share:
            lifted &= (self._tier(day) < 0) | (self.overlooks.random(self.sims) >= self.unlifted_share)
        for window, drawn, which in (("day", due, lifted), ("cycle", cycle, cycle), ("rolling", due, due)):
            if window == "rolling":
                self.used[window][which] -= self._turned("carrier", which, self.today)
                self.today[which] = 0.0
            else:
                self.used[window][which] = 0.0
            noise = np.zeros(self.sims)
            noise[drawn] = self._noise(int(drawn.sum()))
            self.noise[window][which] = noise[which]
        if of_day == 0:
            everyone = np.ones(self.sims, bool)
            self.counted["rolling"] -= self._turned("ours", everyone, self.counted["day"])
            self.counted["day"][:] = 0.0
            self.counted["cycle"][self.cycle_day == day] = 0.0

    def _turned(self, whose: str, which: Array, today: Array) -> Array:
        """A day begins for some SIMs: the use of the oldest day leaves the rolling window."""
        past = self.past[whose]
        left: Array = past[0, which].copy()
        past[:-1, which] = past[1:, which]
        past[-1, which] = today[which]
        return left

    def _tier(self, day: int, slack: float = 0.0) -> Array:
        """The slowest tier whose limit is reached, -1 for none."""
        found = np.full(self.sims, -1)
        speed = np.full(self.sims, np.inf)
        for lot in range(len(self.plans)):
            for number, tier in enumerate(self.tiers(lot, day)):
                reached = self.used[tier.window] + slack >= tier.quota_bytes * self.noise[tier.window]
                slower = (self.lot == lot) & reached & (tier.kbps < speed)
                found = np.where(slower, number, found)
                speed = np.where(slower, tier.kbps, speed)
        return found

    def _speed(self, day: int, tier: Array) -> Array:
        speed = np.full(self.sims, np.inf)
        for lot in range(len(self.plans)):
            for number, each in enumerate(self.tiers(lot, day)):
                speed = np.where((self.lot == lot) & (tier == number), each.kbps, speed)
        return speed

    def _room(self, day: int) -> Array:
        room = np.full(self.sims, np.inf)
        for lot in range(len(self.plans)):
            for tier in self.tiers(lot, day):
                left = tier.quota_bytes * self.noise[tier.window] - self.used[tier.window]
                room = np.where((self.lot == lot) & (left > 0), np.minimum(room, left), room)
        return room

    def _shaped(self, day: int, tier: Array, step: int, got: Array, seconds: Array) -> Array:
        """A bucket of 200 KB, refilled at 95 % of the speed, which swings."""
        speed = self._speed(day, tier)
        swing = 1 + 0.06 * np.sin(self.phase + step * 0.9) + self.random.normal(0, 0.025, self.sims)
        limit = 0.95 * np.where(np.isinf(speed), 1e12, speed) * swing + 1_600 / np.maximum(seconds, 1.0)
        return np.minimum(got, np.where(np.isinf(speed), np.inf, limit))

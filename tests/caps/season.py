"""Some days of a carrier seen through the detector and the learner, with the truth beside what they found.

``python -m tests.caps.season`` (``make caps``) takes 50 seeds, drawn when it runs, and prints the medians.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from simswitch.caps.evidence import Observations, Window, gathered, of_throttled, of_unthrottled
from simswitch.caps.picture import plot
from simswitch.caps.throttle import Decisions, ThrottleDetector
from simswitch.caps.tiers import Change, ChangeKind, Findings, find

from tests.caps.carrier import BEGIN_MS, DAY_MS, STEP_S, Array, Carrier, Plan, Tier

WINDOWS = {"cycle": Window.CYCLE, "day": Window.DAY, "rolling": Window.ROLLING}
CHANGE_DAY = 3
DAYS = 5
LOOKS_A_DAY = 4
"""How often the learner looks."""
ENOUGH_S = 900
"""Demand while slowed, after which a SIM that nobody has noticed is missed."""
PASSED_S = 3_600
"""So long after it was released, a SIM's last windows may still be those of its throttle."""
LAG_S = 5_400
"""So long after midnight all limits have been lifted that are: the engine takes its resets for done, and doubts."""
UNLIFTED_SHARE = 0.1
"""Of the resets of slowed SIMs: that the carrier leaves out."""
PLANS = (
    Plan(
        (Tier("day", 3e9, 1_000), Tier("day", 3.5e9, 128)),
        {CHANGE_DAY: (Tier("day", 2e9, 1_000), Tier("day", 2.6e9, 128))},
    ),
    Plan((Tier("day", 2e9, 384), Tier("cycle", 30e9, 200))),
    Plan((Tier("day", 3e9, 1_000),), {CHANGE_DAY: (Tier("day", 4.5e9, 1_000),)}),
    Plan((Tier("rolling", 8e9, 1_000),)),
    Plan(()),
)


@dataclass(frozen=True, slots=True)
class Season:
    """What came of one seed."""

    seed: int
    sim_days: int
    slowed_sim_days: int
    false_share: float
    """Of all SIM-days: with a decision about a SIM that was not slowed."""
    missed_share: float
    """Of the SIM-days with 15 minutes of demand while slowed: never held for slowed."""
    held_share: float
    """Of all SIM-days: at their end held for slowed, with 15 minutes of demand on that day, none of it while slowed."""
    unlifted_sim_days: int
    """With 15 minutes of demand while slowed by a limit that a reset should have lifted."""
    unlifted_missed_share: float
    """Of those: not held for slowed again."""
    tier_error: float
    """The largest of the daily tiers, of the median, once 50 SIMs (or all there are) were slowed by it."""
    tier_quota_error: float
    """The same of what is decided upon, the lower 5 % quantile."""
    tiers_missing: int
    tiers_invented: int
    """At the end: limits that nobody keeps."""
    lowered_hours: float
    raised_hours: float
    """From a silent change to the alert; infinity: none came."""
    changes_invented: int


def run(
    seed: int, picture: Path | None = None, plans: Sequence[Plan] = PLANS, sims_a_lot: int = 110, days: int = DAYS
) -> Season:
    """``picture``: where to draw the first lot's first cap."""
    carrier = Carrier(seed, list(plans), sims_a_lot, days, unlifted_share=UNLIFTED_SHARE)
    detector = ThrottleDetector()
    sims = carrier.sims
    everyone = np.arange(sims)
    shape = (days, sims)
    demand_s, slowed_demand_s = np.zeros(shape), np.zeros(shape)
    slowed_days, noticed, wrong, held = (np.zeros(shape, bool) for _ in range(4))
    capped = np.array([bool(plan.tiers) for plan in plans])[carrier.lot]
    unlifted, found_again = np.zeros(sims, bool), np.zeros(shape, bool)
    unlifted_demand_s = np.zeros(shape)
    last_slowed = np.full(sims, -PASSED_S)
    log = _Log(carrier)
    alerts: dict[tuple[int, str], float] = {}
    invented: set[tuple[int, str]] = set()
    for number, (reports, truth) in enumerate(carrier.steps()):
        now_s = (number + 1) * STEP_S
        detector.moved(truth.moved)
        decisions = detector.observe(reports)
        slowed = truth.slowed >= 0
        last_slowed[slowed] = now_s
        slowed_days[truth.day] |= slowed
        slowed_demand_s[truth.day] += truth.slowed_demand_s
        np.add.at(demand_s[truth.day], reports.sim, reports.span_ms * reports.demand_permille / 1e6)
        is_held = detector.throttled(everyone)
        unlifted &= slowed
        unlifted_demand_s[truth.day, unlifted] += truth.slowed_demand_s[unlifted]
        found_again[truth.day] |= unlifted & is_held
        noticed[truth.day] |= is_held & slowed
        held[truth.day] = is_held
        about = decisions.sim[decisions.throttled]
        wrong[truth.day, about] |= last_slowed[about] < now_s - PASSED_S
        log.decided(decisions)
        if now_s % 86_400 == LAG_S:
            reset = is_held & capped
            detector.doubted(everyone[reset])
            unlifted = reset & slowed
        if now_s % 3600 == 0:
            log.quiet(detector, now_s)
        if now_s % (86_400 // LOOKS_A_DAY) == 0 and truth.day >= CHANGE_DAY - 1:
            for lot, findings in enumerate(log.find_all()):
                for change in findings.changes:
                    key = (lot, str(change.kind))
                    if _happened(plans[lot], change):
                        alerts.setdefault(key, now_s / 3600 - CHANGE_DAY * 24)
                    else:
                        invented.add(key)
    if picture is not None:
        findings = log.find_all()[0]
        plot("lot 0", findings.caps[0], findings.changes, int(plans[0].tiers[0].quota_bytes), picture)
    enough = slowed_demand_s >= ENOUGH_S
    enough_again = unlifted_demand_s >= ENOUGH_S
    stuck = held & ~slowed_days & (demand_s >= ENOUGH_S)
    errors, quota_errors, missing, extra = log.judge(days)
    return Season(
        seed=seed,
        sim_days=days * sims,
        slowed_sim_days=int(slowed_days.sum()),
        false_share=float(wrong.mean()),
        missed_share=float((enough & ~noticed).sum() / max(enough.sum(), 1)),
        held_share=float(stuck.mean()),
        unlifted_sim_days=int(enough_again.sum()),
        unlifted_missed_share=float((enough_again & ~found_again).sum() / max(enough_again.sum(), 1)),
        tier_error=max(errors, default=float("inf")),
        tier_quota_error=max(quota_errors, default=float("inf")),
        tiers_missing=missing,
        tiers_invented=extra,
        lowered_hours=alerts.get((0, "lowered"), float("inf")),
        raised_hours=alerts.get((2, "raised"), float("inf")),
        changes_invented=len(invented),
    )


def _happened(plan: Plan, change: Change) -> bool:
    """Whether a change that was told of is one of the plan's: of that tier, in that direction, and not before it."""
    return any(
        (WINDOWS[new.window], _near(new.kbps, change.speed_kbps)) == (change.window, True)
        and change.kind == (ChangeKind.LOWERED if new.quota_bytes < old.quota_bytes else ChangeKind.RAISED)
        and change.at_ms >= BEGIN_MS + day * DAY_MS
        for day, tiers in plan.changes.items()
        for old, new in zip(plan.tiers, tiers, strict=True)
    )


class _Log:
    """Collects observations, as the follower's process does into history."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._parts: list[Observations] = []
        self._quiet: dict[int, list[Observations]] = {}

    def _used(self) -> dict[Window, Array]:
        return {WINDOWS[name]: used.astype(np.int64) for name, used in self._carrier.counted.items()}

    def decided(self, decisions: Decisions) -> None:
        if len(decisions):
            used = {window: column[decisions.sim] for window, column in self._used().items()}
            self._parts.append(of_throttled(decisions, used))

    def quiet(self, detector: ThrottleDetector, now_s: int) -> None:
        unslowed = detector.unslowed(0, self._carrier.sims, BEGIN_MS // 1000 + now_s - 3600)
        used = {window: column[unslowed.sim] for window, column in self._used().items()}
        found = of_unthrottled(unslowed, self._carrier.lot[unslowed.sim], used)
        # Of each SIM, window and day the highest.
        day = (now_s - 1) // 86_400
        parts = [*self._quiet.get(day, []), found]
        joined = gathered(parts)
        order = np.lexsort((-joined.lower_bytes, joined.sim, joined.window))
        first = np.diff(joined.sim[order] * 4 + joined.window[order], prepend=-1) != 0
        self._quiet[day] = [joined.chosen(order[first])]

    def all(self) -> Observations:
        return gathered(self._parts + [part for parts in self._quiet.values() for part in parts])

    def find_all(self) -> list[Findings]:
        observations = self.all()
        return [find(observations.chosen(observations.lot == lot)) for lot in range(len(self._carrier.plans))]

    def judge(self, days: int) -> tuple[list[float], list[float], int, int]:
        """Each tier of the last day against what is learned from the first 50 SIMs that it slowed."""
        errors, quota_errors, missing, invented = [], [], 0, 0
        observations = self.all()
        for lot in range(len(self._carrier.plans)):
            own = observations.chosen(observations.lot == lot)
            found = list(find(own).caps)
            for tier in self._carrier.tiers(lot, days):
                window = WINDOWS[tier.window]
                match = [cap for cap in found if cap.window == window and _near(cap.speed_kbps, tier.kbps)]
                match = [cap for cap in match if _near(cap.median_bytes, tier.quota_bytes)]
                if not match:
                    missing += tier.window == "day"
                    continue
                found.remove(match[0])
                if tier.window != "day":
                    continue
                early = find(_first_sims(own, tier.kbps, match[0].since_ms, 50)).caps
                learned = [cap for cap in early if cap.window == window and _near(cap.speed_kbps, tier.kbps)]
                if not learned:
                    missing += 1
                    continue
                best = min(learned, key=lambda cap: abs(cap.median_bytes - tier.quota_bytes))
                errors.append(abs(best.median_bytes / tier.quota_bytes - 1))
                quota_errors.append(abs(best.quota_bytes / tier.quota_bytes - 1))
            invented += len(found)
        return errors, quota_errors, missing, invented


def _near(one: float, other: float) -> bool:
    return bool(abs(np.log(one / other)) < 0.2)


def _first_sims(own: Observations, kbps: float, since_ms: int, count: int) -> Observations:
    """What was known when so many SIMs had been slowed to a speed since then."""
    events = own.chosen((own.upper_bytes > 0) & (own.at_ms >= since_ms))
    events = events.chosen(np.abs(np.log(events.goodput_kbps / kbps)) < 0.2)
    order = np.argsort(events.at_ms, kind="stable")
    sims, first = np.unique(events.sim[order], return_index=True)
    if len(sims) <= count:
        return own
    until_ms = events.at_ms[order][np.sort(first)[count - 1]]
    return own.chosen(own.at_ms <= until_ms)


def medians(seasons: Sequence[Season]) -> dict[str, float]:
    return {
        name: float(np.median([getattr(season, name) for season in seasons]))
        for name in Season.__slots__
        if name != "seed"
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=None, help="the first seed; default: drawn")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None, help="only the first seed, as a picture of its first lot")
    options = parser.parse_args()
    first = options.first if options.first is not None else secrets.randbelow(1 << 31)
    if options.plot:
        print(json.dumps(asdict(run(first, options.plot))))
        return 0
    print(f"seeds {first} to {first + options.seeds - 1}", flush=True)
    seasons = []
    with ProcessPoolExecutor(options.workers) as pool:
        for season in pool.map(run, range(first, first + options.seeds)):
            seasons.append(season)
            print(json.dumps(asdict(season)), flush=True)
    figures = medians(seasons)
    for name, value in figures.items():
        worst = max(getattr(season, name) for season in seasons)
        print(f"{name:20s} median {value:12.5g}   largest {worst:12.5g}")
    if options.json:
        options.json.write_text(json.dumps({"first_seed": first, "seasons": [asdict(season) for season in seasons]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Seeing that a carrier slows a SIM, from usage reports alone.

A slowed SIM shows one thing that nothing else shows: while more is wanted than goes, its goodput stands still, below
what the SIM did before, at the same level as other SIMs of its lot. So reports are *windows*: one counts if there was
demand in it. Consecutive windows at one level form a *run*:

    goodput  ▲   ▄▄▄▄▄▄▄   above          the last window above the run bounds the cap from below (by its beginning),
             │          ▌                 the first one in it from above
             │          ▌  ▂▂▂▂ ▂▂▂▂▂▂    run: its level, its spread, its windows, its demand
             │                 ▁          below: a busy cell under the plateau; it says nothing, if it is rare
             └──────────────────────────▶ time

Each run is worth points (natural logarithms of odds), which add up to a confidence:

    a SIM is slowed at any one time               PRIOR
    windows that agree                            (windows - 1) x ln(spread of a busy cell / spread of the run)
    the level is a speed that carriers slow to    NEAR_STEP, else OFF_STEP
    the SIM, on this terminal, was faster         DROP x logarithm of how much; by less than 1.6 x: never
    it fell to the level by and by                GRADUAL: the window before was not far above, or there was none
    other SIMs of the lot stand at this level     MATES x logarithm of how many more than at the levels around it

Below ``DECIDED`` nothing is decided. So an idle terminal never counts (no demand), a weak signal neither (its low
windows are passed over), a busy cell rarely agrees with itself and comes down by and by, where a shaper lets go from
one window to the next, and hours in which a whole lot is slow at many levels corroborate none of them. A terminal that
is slow by nature was never faster: when a SIM changes its terminal, what it did before is forgotten.

A slowed SIM is released by windows well above its plateau, more than a burst's length of them, and decided anew when a
deeper plateau follows.

One whose window has started anew is *doubted*: it keeps its plateau. Windows well above that clear it; where it stands
there again, its reset has not come, and what it showed before speaks for that as all mates would. On none of its next
terminals has it been faster, so such a run goes on from one to the other: each of them has it for minutes only.

One record of 64 bytes a SIM, touched when it reports, and 640 bytes a lot. A batch is gathered, worked on as columns
and scattered; a SIM's second report in a batch waits for the next round. No Python object per report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

STEPS_KBPS = (64, 128, 200, 300, 384, 1_000, 4_000, 5_000)
"""Speeds that carriers are known to slow to. What is measured is a little below them: headers count for the carrier."""

PLATEAU_KBPS_MAX = 12_000.0
"""What is faster is not worth calling slow."""
DEMAND_MIN_S = 20.0
"""A window with less demand says nothing."""
BURST_KBIT = 4_000.0
"""What a shaper may let through at once, and so make a short window look faster."""
RUN_DEMAND_MIN_S = 300.0
RUN_WINDOWS_MIN = 3
LONE_WINDOWS_MIN, LONE_SPAN_MIN_S, LONE_KBPS_MAX = 6, 2_700, 2_000.0
"""As long as no other SIM of the lot shows the same: a far server or a full cell may be slow and steady too. Then it
has to be a known speed that few cells are that slow for, for longer than most downloads take."""
NEW_WINDOWS = 30
"""A SIM that was seen for less may have been slowed from the first: its lot says how fast it should be."""
RADIO_WEAK = 2
"""Radio quality at or below it (0: not told, which is taken for normal) explains a low goodput."""
TOLERANCE = 0.2
"""How far a window may be from its run's level, as a natural logarithm."""
FAST = float(np.log(3.0))
"""A window that is less than this below what the SIM does at its best is a fast one."""
DROP_MIN = float(np.log(1.6))
LIFTED = 1.5
LIFTED_WINDOWS = 2
STEP_BELOW, STEP_ABOVE = 0.14, 0.05

SPREAD_OF_BUSY_CELL = 0.28
SPREAD_PRIOR, SPREAD_PRIOR_WINDOWS = 0.06, 1.5
WINDOWS_WORTH_MAX = 12
PRIOR = -4.6
NEAR_STEP, OFF_STEP = 1.3, -0.7
DROP, DROP_WORTH_MAX = 1.2, 3.0
DROP_OF_LOT, DROP_OF_LOT_WORTH_MAX = 0.6, 1.0
FALL_MIN = 1.0
GRADUAL = -2.0
"""Of a run whose level is less than ``FALL_MIN``, as a natural logarithm, below the last window before it."""
MATES, MATES_WORTH_MAX = 1.5, 4.0
TOGETHER = 1.5
"""Mates that are worth less don't corroborate."""
DECIDED = 6.0
"""Confidence 99.7 %."""

_LEVEL_MIN = float(np.log(32.0))
_BIN = 0.06
_BINS = 160
_DAY_MS = 86_400_000
_NORMAL, _THROTTLED, _DOUBTED = 0, 1, 2

_SIM = np.dtype(
    [
        # Bytes counted since …, and the instant, Unix seconds (0: there was none)
        ("above_bytes", "<f4"),  # the last window above the run began: the SIM may have been slowed within it
        ("first_bytes", "<f4"),  # the run's first window
        ("last_bytes", "<f4"),  # the run's last window began
        ("fast_bytes", "<f4"),  # the last window began in which the SIM was surely not slowed
        ("above_s", "<u4"),
        ("first_s", "<u4"),
        ("last_s", "<u4"),
        ("fast_s", "<u4"),
        ("best", "<f4"),  # what the SIM does at its best on this terminal, ln kbit/s; 0: not known
        ("level", "<f4"),  # of the run
        ("above", "<f4"),  # of the last window above the run
        ("squares", "<f4"),  # of the run's deviations, summed
        ("demand_s", "<f4"),  # in the run
        ("plateau", "<f4"),  # at which the SIM was decided to be slowed; of one that is doubted, before its reset
        ("windows", "<u2"),  # in the run; 0: no run
        ("bin", "<i2"),  # where it stands in its lot's table today, from 1; 0: nowhere
        ("below", "u1"),  # windows below the run since it began
        ("lifted", "u1"),  # windows above the plateau in a row
        ("state", "u1"),
        ("best_windows", "u1"),  # that ``best`` rests on
    ]
)
_SINCE = ("above_bytes", "first_bytes", "last_bytes", "fast_bytes")

Column = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Reports:
    """Usage reports as columns of one length, in the order in which they were counted."""

    sim: Column
    lot: Column
    at_ms: Column
    span_ms: Column
    """What the report covers; 0: not told, and then it only counts bytes."""
    goodput_kbps: Column
    """While more was wanted than went; 0: no such time, or not told."""
    demand_permille: Column
    radio: Column
    """0 not told, 1 worst to 5 best."""
    counted_bytes: Column
    """What the report newly counted."""

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, field.name)) for field in fields(self)}
        if len(lengths) > 1:
            raise ValueError(f"the columns of reports are of different lengths: {sorted(lengths)}")


@dataclass(frozen=True, slots=True)
class Decisions:
    """What was decided, as columns."""

    sim: Column
    lot: Column
    at_ms: Column
    throttled: Column
    """False: the SIM is no longer slowed. Then only the columns up to windows say anything."""
    goodput_kbps: Column
    """The plateau; or what the SIM does again."""
    windows: Column
    """Of the plateau that agree; or in a row that were above it, one that was well above for two."""
    demand_s: Column
    confidence_permille: Column
    """0: no longer slowed, which is a rule and no likelihood."""
    above_s: Column
    above_bytes: Column
    """The end of the last window above the plateau, Unix seconds (0: none was seen), and what was counted since it
    began, up to the end of the batch: the SIM may have been slowed within it."""
    first_s: Column
    first_bytes: Column
    """The end of the first window on the plateau, and what was counted since, up to the end of the batch."""

    def __len__(self) -> int:
        return len(self.sim)


@dataclass(frozen=True, slots=True)
class Unslowed:
    """SIMs that were surely not slowed when they were last seen, as columns."""

    sim: Column
    at_s: Column
    """When that was, Unix seconds."""
    since_bytes: Column
    """Counted since that window began."""


class ThrottleDetector:
    """Takes batches of reports and gives decisions. Used by one thread."""

    def __init__(self, sims: int = 0) -> None:
        self._sims = np.zeros(0, _SIM)
        self._votes = np.zeros((0, _BINS), np.float32)
        self._lot_best = np.zeros(0, np.float32)
        self._day = 0
        self._hold(sims, 0)

    def _hold(self, sims: int, lots: int) -> None:
        """Room for so many; grows by doubling. What no SIM has used yet costs no memory."""
        if sims > len(self._sims):
            grown = np.zeros(max(sims, 2 * len(self._sims)), _SIM)
            grown[: len(self._sims)] = self._sims
            self._sims = grown
        if lots > len(self._votes):
            votes = np.zeros((max(lots, 2 * len(self._votes)), _BINS), np.float32)
            votes[: len(self._votes)] = self._votes
            best = np.zeros(len(votes), np.float32)
            best[: len(self._lot_best)] = self._lot_best
            self._votes, self._lot_best = votes, best

    # ------------------------------------------------------------------------------------------ what is known

    def throttled(self, sim: Column) -> Column:
        """Whether each SIM is held for slowed."""
        self._hold(int(sim.max(initial=-1)) + 1, 0)
        return np.asarray(self._sims["state"][sim] == _THROTTLED)

    def unslowed(self, begin: int, end: int, since_s: int) -> Unslowed:
        """Of the SIMs from ``begin`` to before ``end`` those seen fast since an instant under no suspicion since."""
        rows = self._sims[begin:end]
        suspected = (rows["windows"] >= RUN_WINDOWS_MIN) & (rows["level"] < rows["best"] - FAST)
        which = np.flatnonzero((rows["fast_s"] >= max(since_s, 1)) & (rows["state"] == _NORMAL) & ~suspected)
        rows = rows[which]
        return Unslowed(begin + which, rows["fast_s"].astype(np.int64), rows["fast_bytes"].astype(np.float64))

    def moved(self, sim: Column) -> None:
        """The SIMs are on other terminals now: how fast they were says nothing any more, nor do their runs, but for
        those at the plateau of a SIM that is doubted."""
        self._hold(int(sim.max(initial=-1)) + 1, 0)
        for name in ("best", "best_windows"):
            self._sims[name][sim] = 0
        self._sims["windows"][sim[~_stands_again(self._sims[sim])]] = 0

    def told(self, sim: Column, throttled: Column, goodput_kbps: Column) -> None:
        """The SIMs' state as somebody else decided it: a person, or the journal before a restart."""
        self._hold(int(sim.max(initial=-1)) + 1, 0)
        rows = self._sims[sim]
        rows["state"] = np.where(throttled, _THROTTLED, _NORMAL)
        rows["plateau"] = np.log(np.maximum(goodput_kbps, 1))
        rows["lifted"] = 0
        self._sims[sim] = rows

    def doubted(self, sim: Column) -> None:
        """Windows of these slowed SIMs have started anew: by our count they are not slowed, and nobody has seen it.
        Only what they show from now on says whether they are, and nothing of it where their cap lies."""
        self._hold(int(sim.max(initial=-1)) + 1, 0)
        self._sims["state"][sim] = _DOUBTED
        for name in ("windows", "lifted", "above", "above_s"):
            self._sims[name][sim] = 0

    def trusted(self, sim: Column) -> None:
        """Somebody else has seen that these SIMs are fast, or knows it: nothing is held against those in doubt."""
        self._hold(int(sim.max(initial=-1)) + 1, 0)
        self._sims["state"][sim[self._sims["state"][sim] == _DOUBTED]] = _NORMAL

    # ------------------------------------------------------------------------------------------ reports

    def observe(self, reports: Reports) -> Decisions:
        """Counts the reports and gives what they decide."""
        sim = np.asarray(reports.sim, np.int64)
        lot = np.asarray(reports.lot, np.int64)
        if not len(sim):
            return joined([])
        self._hold(int(sim.max()) + 1, int(lot.max()) + 1)
        columns = [
            np.asarray(reports.at_ms, np.int64),
            *(
                np.asarray(column, np.float64)
                for column in (
                    reports.span_ms,
                    reports.goodput_kbps,
                    reports.demand_permille,
                    reports.radio,
                    reports.counted_bytes,
                )
            ),
        ]
        self._turn_day(int(columns[0].max()))
        if np.bincount(sim).max() == 1:
            return joined(self._round(sim, lot, *columns))
        # The place of each report among those of its SIM: round 0 has every SIM's first, and so on.
        order = np.argsort(sim, kind="stable")
        ordered = sim[order]
        begins = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
        lengths = np.diff(np.append(begins, len(ordered)))
        place = np.empty(len(sim), np.int64)
        place[order] = np.arange(len(sim)) - np.repeat(begins, lengths)
        # What each SIM counts behind a report, in the rest of the batch.
        counted = columns[-1][order]
        total = np.cumsum(counted)
        behind = np.empty(len(sim))
        behind[order] = np.repeat(total[np.append(begins[1:], len(order)) - 1], lengths) - total
        found = []
        for number in range(int(place.max()) + 1):
            chosen = np.flatnonzero(place == number)
            parts = self._round(sim[chosen], lot[chosen], *(column[chosen] for column in columns))
            by_sim = chosen[np.argsort(sim[chosen])]
            found += [_later(part, behind[by_sim[np.searchsorted(sim[by_sim], part.sim)]]) for part in parts]
        return joined(found)

    def _turn_day(self, at_ms: int) -> None:
        """With each day what a lot's SIMs have shown counts for a quarter, and each may show it anew."""
        day = at_ms // _DAY_MS
        if day > self._day:
            self._votes *= 0.25 ** min(day - self._day, 8)
            # Not all of them: writing a page that no SIM has touched would take memory for it.
            self._sims["bin"][self._sims["bin"] != 0] = 0
            self._day = day

    def _round(
        self, sim: Column, lot: Column, at_ms: Column, span_ms: Column, goodput: Column, demand: Column, radio: Column,
        counted: Column,
    ) -> list[Decisions]:  # fmt: skip
        """One report a SIM."""
        for name in _SINCE:
            self._sims[name][sim] += counted
        demand_s = np.minimum(demand, 1000.0) * span_ms / 1e6
        wanted = np.flatnonzero((goodput > 0) & (demand_s >= DEMAND_MIN_S))
        if not len(wanted):
            return []
        sim, lot, at_ms, demand_s, radio = sim[wanted], lot[wanted], at_ms[wanted], demand_s[wanted], radio[wanted]
        at_s = at_ms // 1000
        level, counted = np.log(goodput[wanted]), counted[wanted]
        rows = self._sims[sim]

        over = np.exp(level) - LIFTED * np.exp(rows["plateau"])
        high = (rows["state"] != _NORMAL) & (over * demand_s > BURST_KBIT)
        released = self._release(rows, over, high, demand_s)
        found = []
        if released.any():
            lifted = rows.copy()
            lifted["plateau"], lifted["windows"], lifted["demand_s"] = level, rows["lifted"], demand_s
            told = released & (rows["state"] == _THROTTLED)
            found.append(_decisions(sim, lot, at_ms, lifted, told, np.full(len(sim), -np.inf)))
            rows["state"][released] = _NORMAL

        # A weak signal explains a low window. It doesn't explain a high one.
        weak = (radio > 0) & (radio <= RADIO_WEAK)
        passed = weak & (level < np.maximum(rows["level"] + TOLERANCE, rows["best"] - FAST))
        burst = (np.exp(level) - np.exp(rows["level"])) * demand_s < BURST_KBIT
        passed |= (rows["windows"] > 0) & (level > rows["level"] + TOLERANCE) & burst
        seen = ~passed
        # What is no more than a burst above its plateau is not what a SIM in doubt does at its best.
        self._learn_best(rows, lot, level, at_s, counted, seen & ((rows["state"] == _NORMAL) | high))
        self._extend_runs(rows, level, at_s, demand_s, counted, seen)

        score = self._score(rows, lot)
        self._vote(rows, lot, seen)
        deeper = (rows["state"] != _THROTTLED) | (rows["level"] < rows["plateau"] - 2 * TOLERANCE)
        throttled = seen & deeper & (rows["demand_s"] >= RUN_DEMAND_MIN_S) & (score >= DECIDED)
        rows["state"][throttled] = _THROTTLED
        rows["plateau"][throttled] = rows["level"][throttled]
        rows["lifted"][throttled] = 0
        self._sims[sim] = rows
        return [*found, _decisions(sim, lot, at_ms, rows, throttled, score)]

    def _release(self, rows: Column, over: Column, high: Column, demand_s: Column) -> Column:
        """Which SIMs that were slowed are not any more."""
        plateau = np.exp(rows["plateau"])
        # Three times the plateau for a whole minute is more than any shaper lets through.
        worth = np.where((over > LIFTED * plateau) & (demand_s >= 60.0), LIFTED_WINDOWS, 1)
        rows["lifted"] = np.where(high, np.minimum(rows["lifted"] + worth, 200), 0)
        return np.asarray(high & (rows["lifted"] >= LIFTED_WINDOWS))

    def _learn_best(
        self, rows: Column, lot: Column, level: Column, at_s: Column, counted: Column, seen: Column
    ) -> None:
        """What the SIM does at its best: up at once, down slowly, and very slowly while all it shows is slow."""
        best, known = rows["best"], rows["best_windows"] > 0
        normal = seen & (rows["state"] != _THROTTLED)
        over = level - best
        fast = normal & (~known | (over > -FAST))
        moved = best + np.where(over > 0, 0.3, 0.03) * over
        rows["best"] = np.where(
            fast, np.where(~known | (over > FAST), level, moved), best - np.where(normal & ~fast, 0.01, 0.0)
        )
        rows["best_windows"] = np.minimum(rows["best_windows"].astype(np.int64) + fast, 200)
        sure = fast & known
        rows["fast_bytes"][sure] = counted[sure]
        rows["fast_s"][sure] = at_s[sure]
        if sure.any():
            lots = len(self._lot_best)
            count = np.bincount(lot[sure], minlength=lots)
            mean = np.bincount(lot[sure], rows["best"][sure], lots) / np.maximum(count, 1)
            rate = np.where(self._lot_best > 0, np.minimum(0.02 * count, 0.5), 1.0)
            self._lot_best += np.where(count > 0, rate * (mean - self._lot_best), 0.0).astype(np.float32)

    def _extend_runs(
        self, rows: Column, level: Column, at_s: Column, demand_s: Column, counted: Column, seen: Column
    ) -> None:
        """Each window joins its SIM's run, is passed over below it, or begins a new one."""
        windows = rows["windows"].astype(np.int64)
        away = level - rows["level"]
        inside = seen & (windows > 0) & (np.abs(away) <= TOLERANCE)
        under = seen & (windows > 0) & (away < -TOLERANCE)
        # A slow run forgives a window below it for each two in it; a fast one ends at once.
        slow = (rows["level"] < rows["best"] - DROP_MIN) | _stands_again(rows)
        forgiven = under & slow & (2 * (rows["below"] + 1) <= windows)
        begins = seen & ~inside & ~forgiven

        # What came before a fall was above the new run: its last window bounds the cap from below. Before a rise
        # nothing is known to have been, except an earlier window that was above this level too.
        fell = begins & (windows > 0) & (away < 0)
        lost = begins & ~fell & (rows["above"] < level + TOLERANCE)
        for name, last in (("above_bytes", "last_bytes"), ("above_s", "last_s"), ("above", "level")):
            rows[name] = np.where(fell, rows[last], np.where(lost, 0, rows[name]))

        rows["first_bytes"][begins] = 0.0
        rows["first_s"][begins] = at_s[begins]
        joins = inside | begins
        rows["last_bytes"][joins] = counted[joins]
        rows["last_s"][joins] = at_s[joins]
        count = np.where(begins, 1, windows + inside)
        step = np.where(inside, away / np.maximum(np.minimum(count, 64), 1), 0.0)
        rows["squares"] = np.where(begins, 0.0, rows["squares"] + np.where(inside, away * (away - step), 0.0))
        rows["level"] = np.where(begins, level, rows["level"] + step)
        rows["demand_s"] = np.where(begins, demand_s, rows["demand_s"] + np.where(inside, demand_s, 0.0))
        rows["below"] = np.where(begins, 0, np.minimum(rows["below"].astype(np.int64) + forgiven, 200))
        rows["windows"] = np.minimum(count, 60_000)

    def _score(self, rows: Column, lot: Column) -> Column:
        """What each run is worth; minus infinity: it can't be a throttle."""
        windows = rows["windows"].astype(np.float64)
        spread = np.sqrt(
            (rows["squares"] + SPREAD_PRIOR_WINDOWS * SPREAD_PRIOR**2)
            / np.maximum(windows - 1 + SPREAD_PRIOR_WINDOWS, 1)
        )
        agree = (np.minimum(windows, WINDOWS_WORTH_MAX) - 1) * np.log(SPREAD_OF_BUSY_CELL / spread)
        away = rows["level"][:, None] - np.log(STEPS_KBPS)
        near = ((away >= -STEP_BELOW) & (away <= STEP_ABOVE)).any(axis=1)

        # Before a deeper plateau a slowed SIM stood on the one above it.
        slowed = rows["state"] == _THROTTLED
        own_drop = np.where(slowed, rows["plateau"], rows["best"]) - rows["level"]
        own = slowed | ((rows["best_windows"] >= RUN_WINDOWS_MIN) & (own_drop > DROP_MIN))
        # A single fast window is enough if it stood right before the run: whoever meets a cap early on a terminal.
        fall = np.where(rows["above"] > 0, rows["above"] - rows["level"], 0.0)
        own |= (rows["best_windows"] > 0) & (own_drop > FAST) & (fall > FAST)
        own |= rows["best_windows"] >= NEW_WINDOWS
        # Who stands again where it stood before its reset was faster once, and is one more of those slowed to that. On
        # a terminal that was never faster neither that nor its mates say so: the next one is to tell.
        again = _stands_again(rows)
        own |= again | ((rows["state"] == _DOUBTED) & (rows["best_windows"] > 0))
        own_drop = np.where(again, np.maximum(self._lot_best[lot], rows["plateau"] + FAST) - rows["level"], own_drop)
        near |= again
        dropped = np.where(own, own_drop, self._lot_best[lot] - rows["level"])
        drop = np.where(
            own,
            np.minimum(DROP * (dropped - DROP_MIN), DROP_WORTH_MAX),
            np.minimum(DROP_OF_LOT * (dropped - DROP_MIN), DROP_OF_LOT_WORTH_MAX),
        )

        mates, around = self._mates(rows, lot)
        ratio = (mates + 0.5) / (around + 0.5)
        together = np.where(mates >= 1.0, np.clip(MATES * np.log(ratio), 0.0, MATES_WORTH_MAX), 0.0)
        together[again] = MATES_WORTH_MAX
        gradual = np.where(own & ~slowed & ~again & (fall <= FALL_MIN), GRADUAL, 0.0)
        score = PRIOR + agree + np.where(near, NEAR_STEP, OFF_STEP) + drop + gradual + together
        # What speaks against it by itself needs more mates and more windows: a speed that no carrier is known to slow
        # to, and a SIM that was never seen faster.
        lone = together < TOGETHER
        odd = ~near | ~own
        span_s = rows["last_s"].astype(np.int64) - rows["first_s"]
        long = (windows >= LONE_WINDOWS_MIN) & (span_s >= LONE_SPAN_MIN_S)
        alone = ~odd & long & (dropped > FAST) & (rows["level"] < np.log(LONE_KBPS_MAX))
        several = np.where(odd, (windows >= LONE_WINDOWS_MIN) & (together >= 2 * TOGETHER), windows >= RUN_WINDOWS_MIN)
        possible = (dropped > DROP_MIN) & (rows["level"] < np.log(PLATEAU_KBPS_MAX)) & np.where(lone, alone, several)
        return np.where(possible, score, -np.inf)

    def _mates(self, rows: Column, lot: Column) -> tuple[Column, Column]:
        """How many other SIMs of the lot stand at the level of each run, and how many would by those around it."""
        bins = _bins(rows["level"])
        near = bins[:, None] + np.arange(-8, 9)
        votes = self._votes[lot[:, None], np.clip(near, 0, _BINS - 1)]
        votes = np.where((near >= 0) & (near < _BINS), votes, 0.0)
        own = np.abs(rows["bin"].astype(np.int64) - 1 - bins) <= 1
        mates = votes[:, 7:10].sum(axis=1) - np.where((rows["bin"] > 0) & own, 1.0, 0.0)
        around = (votes[:, :6].sum(axis=1) + votes[:, 11:].sum(axis=1)) * 3.0 / 12.0
        return np.maximum(mates, 0.0), around

    def _vote(self, rows: Column, lot: Column, seen: Column) -> None:
        """A SIM whose run has become two windows long, far below what it can do, stands for its level; a longer run at
        another level moves it there."""
        below = np.where(rows["best_windows"] > 0, rows["best"], self._lot_best[lot]) - rows["level"]
        bins = _bins(rows["level"])
        stood = rows["bin"].astype(np.int64) - 1
        elsewhere = (rows["windows"] >= RUN_WINDOWS_MIN) & (np.abs(stood - bins) > 1)
        votes = seen & (below > DROP_MIN) & (rows["windows"] >= 2) & ((stood < 0) | elsewhere)
        leaves = votes & (stood >= 0)
        np.subtract.at(self._votes, (lot[leaves], stood[leaves]), 1.0)
        np.add.at(self._votes, (lot[votes], bins[votes]), 1.0)
        rows["bin"][votes] = bins[votes] + 1


def _stands_again(rows: Column) -> Column:
    """Whose run is at the plateau from before its reset, and not because its terminal is no faster."""
    near = np.abs(rows["level"] - rows["plateau"]) <= TOLERANCE
    slow_by_nature = (rows["best_windows"] > 0) & (rows["best"] - rows["level"] <= DROP_MIN)
    return np.asarray((rows["state"] == _DOUBTED) & (rows["windows"] > 0) & near & ~slow_by_nature)


def _bins(level: Column) -> Column:
    return np.clip(((level - _LEVEL_MIN) / _BIN).astype(np.int64), 0, _BINS - 1)


def _decisions(sim: Column, lot: Column, at_ms: Column, rows: Column, chosen: Column, score: Column) -> Decisions:
    """Of the chosen rows; those whose state is not "throttled" any more are releases."""
    at = np.flatnonzero(chosen)
    rows, score = rows[at], score[at]
    return Decisions(
        sim=sim[at],
        lot=lot[at],
        at_ms=at_ms[at],
        throttled=np.isfinite(score) & (score > 0),
        goodput_kbps=np.rint(np.exp(rows["plateau"])).astype(np.int64),
        windows=rows["windows"].astype(np.int64),
        demand_s=rows["demand_s"].astype(np.int64),
        confidence_permille=np.minimum(np.floor(1000.0 / (1.0 + np.exp(-score))), 999).astype(np.int64),
        above_s=rows["above_s"].astype(np.int64),
        above_bytes=rows["above_bytes"].astype(np.int64),
        first_s=rows["first_s"].astype(np.int64),
        first_bytes=rows["first_bytes"].astype(np.int64),
    )


def _later(decisions: Decisions, counted: Column) -> Decisions:
    """As of an instant at which so much more is counted."""
    more = np.rint(counted).astype(np.int64)
    return replace(decisions, above_bytes=decisions.above_bytes + more, first_bytes=decisions.first_bytes + more)


def joined(parts: Sequence[Decisions]) -> Decisions:
    """Decisions one after the other."""
    return Decisions(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            if parts
            else np.zeros(0, bool if field.name == "throttled" else np.int64)
            for field in fields(Decisions)
        }
    )

"""What came of a load: counted and put into histograms from the workers' records.

The histograms hold every operation that was carried out or never answered (then: how long it waited at least), from
the instant at which it was due. What the service refused in words is counted apart: a quick refusal must not make a
load look fast.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

from simswitch.core.layout import NOT_PERMITTED
from simswitch.load.access_server import IN_FLIGHT_MAX
from simswitch.load.plan import Operation, Plan
from simswitch.load.records import GRANTED_MAX, NO_LEASE_HERE, NOT_SENT, WORDS_FROM
from simswitch.v1 import status_pb2

LATENCY_US_MAX = 3_600_000_000
DIGITS = 3
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)
RATE_HELD = 0.99
"""A rate is held when at least this share of what was due was carried out, and at the rate at which it was due."""
PROMPT_US = 100_000
"""What is carried out so soon after the measured time counts as in it: something is always under way at the end."""
BUSY = 0.9
"""A worker whose event loop ran, or waited for a processor, for more of the time than this was the limit itself."""
LATE_US = 10_000
"""A client that is later than this, at the 99th percentile, is itself part of the latencies that it measures."""
SECOND_US = 1_000_000
UNANSWERED = frozenset({"DEADLINE_EXCEEDED", "EXPIRED"})

Columns = npt.NDArray[Any]


def outcome_word(outcome: int, words: dict[int, str]) -> str:
    if outcome == NO_LEASE_HERE:
        return "NO_LEASE_HERE"
    if outcome == NOT_SENT:
        return "NOT_SENT"
    if outcome >= WORDS_FROM:
        return words.get(outcome, "OTHER")
    return status_pb2.Status.Name(outcome).removeprefix("STATUS_")  # type: ignore[arg-type]


class Figures:
    """Records in, figures out. Only what was due after the warm-up counts."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._from_us = round(plan.warm_up_s * SECOND_US)
        self._until_us = self._from_us + round(plan.duration_s * SECOND_US)
        self.latency = [HdrHistogram(1, LATENCY_US_MAX, DIGITS) for _ in Operation]
        self.lateness = HdrHistogram(1, LATENCY_US_MAX, DIGITS)
        self.planned = Counter[int]()
        self.carried_out = Counter[int]()
        self.refused = Counter[tuple[int, str]]()
        self.in_time = 0
        """Carried out within the measured time, also what was due shortly before it."""
        self.promptly = 0
        """Carried out of what was due in the measured time, before it was over or promptly after."""
        seconds = int(np.ceil(plan.duration_s)) or 1
        self._seconds = np.zeros((3, seconds), np.int64)
        self.recent_us: list[Columns] = []
        self.recent_count = 0

    def cut(self, until_us: int) -> None:
        """The load was ended early: what it would have been counts no further."""
        self._until_us = max(self._from_us, min(self._until_us, until_us))

    @property
    def measured_s(self) -> float:
        return (self._until_us - self._from_us) / SECOND_US

    def add(self, records: Columns, words: dict[int, str]) -> None:
        """Counts what one worker told; ``words`` are its reasons."""
        due, latency, outcome = records["due_us"], records["latency_us"].astype(np.int64), records["outcome"]
        done = outcome <= GRANTED_MAX
        ended = due + latency
        self.in_time += int(np.count_nonzero(done & (ended >= self._from_us) & (ended < self._until_us)))
        self.recent_us.append(latency[done])
        prompt = done & (due >= self._from_us) & (due < self._until_us) & (ended < self._until_us + PROMPT_US)
        self.promptly += int(np.count_nonzero(prompt))
        counted = (due >= self._from_us) & (due < self._until_us)
        records, latency, done, outcome = records[counted], latency[counted], done[counted], outcome[counted]
        _fill(self.lateness, records["late_us"])
        unanswered = outcome == NOT_SENT
        for number, word in words.items():
            if word in UNANSWERED:
                unanswered |= outcome == number
        for kind in Operation:
            of_kind = records["kind"] == kind
            self.planned[kind] += int(np.count_nonzero(of_kind))
            self.carried_out[kind] += int(np.count_nonzero(of_kind & done))
            _fill(self.latency[kind], latency[of_kind & (done | unanswered)])
            for value, count in zip(*np.unique(outcome[of_kind & ~done], return_counts=True), strict=True):
                self.refused[kind, outcome_word(int(value), words)] += int(count)
        second = (records["due_us"] - self._from_us) // SECOND_US
        np.add.at(self._seconds[0], second, 1)
        np.add.at(self._seconds[1], second[done], 1)
        np.maximum.at(self._seconds[2], second, latency)

    def take_recent(self) -> tuple[int, float]:
        """How many were carried out since this was last asked, and their 99th percentile in milliseconds."""
        recent = np.concatenate([np.empty(0, np.int64), *self.recent_us])
        self.recent_us.clear()
        return len(recent), float(np.percentile(recent, 99)) / 1_000 if len(recent) else 0.0

    # ------------------------------------------------------------------------------------- what is said of it

    def held(self) -> bool:
        planned = self.planned.total()
        enough = RATE_HELD * planned
        return planned > 0 and self.carried_out.total() >= enough and max(self.in_time, self.promptly) >= enough

    def cause(self, busy_shares: list[float]) -> tuple[str, str]:
        """Why the rate was missed, as a word for programs and in a sentence."""
        planned = self.planned.total()
        if not planned:
            return "nothing due", "No operation was due in the time measured: make it longer, or the rate higher"
        busiest = max(busy_shares, default=0.0)
        by_word: Counter[str] = Counter()
        for (_, word), count in self.refused.items():
            by_word[word] += count
        unsent = by_word.pop("NOT_SENT", 0)
        told = ", ".join(f"{word} {count:,}" for word, count in by_word.most_common(3))
        if by_word.total() * 2 >= planned - min(max(self.in_time, self.promptly), self.carried_out.total()):
            return "refused", f"{by_word.total():,} operations were not carried out: {told}"
        behind = f"{unsent:,} operations were never sent" if unsent else "answers came too late"
        if busiest >= BUSY:
            return "client", (
                f"The client was saturated ({behind}): the busiest of its processes ran or waited for a processor "
                f"{busiest:.0%} of the time. Use more processes, more processors or larger batches"
            )
        return "service", (
            f"The service was too slow ({behind}): it had up to {IN_FLIGHT_MAX:,} calls at a time, while the busiest "
            f"client process ran or waited for a processor {busiest:.0%} of the time"
        )

    def document(self, busy_shares: list[float], cpu_shares: list[float]) -> dict[str, Any]:
        """All figures as plain values. Rates are operations a second, latencies milliseconds."""
        seconds = max(self.measured_s, 1e-9)
        held = self.held()
        word, text = ("", "") if held else self.cause(busy_shares)
        everything = HdrHistogram(1, LATENCY_US_MAX, DIGITS)
        operations = {}
        for kind in Operation:
            everything.add(self.latency[kind])
            operations[kind.name.lower()] = {
                "planned": self.planned[kind],
                "carried_out": self.carried_out[kind],
                "refused": {word: count for (of, word), count in sorted(self.refused.items()) if of == kind},
                "latency_ms": _percentiles(self.latency[kind]),
            }
        whole = int(np.ceil(self.measured_s))
        return {
            "rate": {
                "told": self._plan.rate,
                "planned": self.planned.total() / seconds,
                "achieved": self.in_time / seconds,
                "held": held,
                "cause": word,
                "text": text,
            },
            "measured_s": self.measured_s,
            "operations": operations,
            "latency_ms": _percentiles(everything),
            "histogram": everything.encode().decode("ascii"),
            "client": {
                "late": self.lateness.get_value_at_percentile(99) > LATE_US,
                "late_ms": _percentiles(self.lateness),
                "busy_shares": busy_shares,
                "cpu_shares": cpu_shares,
            },
            "seconds": {
                "planned": self._seconds[0][:whole].tolist(),
                "carried_out": self._seconds[1][:whole].tolist(),
                "latency_max_ms": (self._seconds[2][:whole] / 1_000).tolist(),
            },
        }


def _fill(histogram: Any, values_us: Columns) -> None:
    values, counts = np.unique(np.clip(values_us, 1, LATENCY_US_MAX), return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        histogram.record_value(value, count)


def _percentiles(histogram: Any) -> dict[str, float | None]:
    names = {percentile: "max" if percentile == 100 else f"p{percentile:g}" for percentile in PERCENTILES}
    if not histogram.get_total_count():
        return dict.fromkeys(names.values())
    found = histogram.get_percentile_to_value_dict(list(PERCENTILES))
    return {name: found[percentile] / 1_000 for percentile, name in names.items()}


assert GRANTED_MAX + 1 == NOT_PERMITTED

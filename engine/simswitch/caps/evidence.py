"""Observations: what decisions and quiet SIMs say about the carrier's limits, censored as they are.

    throttled SIM      its cap lies between the use at the last window above the plateau and at the first one on it:
                       interval-censored, in each window of the plan (cycle, day, rolling) of which both are a part
    unthrottled SIM    its cap, if there is one, is above the use at its last fast window: right-censored

Which window a limit belongs to is not decided here: an event is kept for all of them, and the learner finds the one in
which the events agree. Of the unthrottled, only those of a lot that have used most are kept: that somebody who used
little was not slowed says next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np

from simswitch.caps.throttle import Column, Decisions, Unslowed

QUIET_MAX = 200
"""Unthrottled SIMs that are kept of each lot, window and day."""


class Window(IntEnum):
    """As SET_CAP names them."""

    CYCLE = 1
    DAY = 2
    ROLLING = 3


@dataclass(frozen=True, slots=True)
class Observations:
    """As columns of one length."""

    lot: Column
    sim: Column
    window: Column
    at_ms: Column
    lower_bytes: Column
    upper_bytes: Column
    """0: right-censored, the SIM was not slowed."""
    goodput_kbps: Column
    """What the SIM was slowed to; 0: it was not."""

    def __len__(self) -> int:
        return len(self.lot)

    def chosen(self, which: Column) -> Observations:
        """Some of them, by a mask or by places."""
        return Observations(**{field.name: getattr(self, field.name)[which] for field in fields(self)})


def gathered(parts: Sequence[Observations]) -> Observations:
    """Observations one after the other."""
    return Observations(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            if parts
            else np.zeros(0, np.int64)
            for field in fields(Observations)
        }
    )


def of_throttled(decisions: Decisions, used_bytes: Mapping[Window, Column]) -> Observations:
    """``used_bytes``: what the SIM of each decision has used in each window by now; -1 where its plan has none.

    A bound from before the window began says nothing about it: what was counted since is then more than what was used
    in it.
    """
    parts = []
    for window, used in used_bytes.items():
        lower = used - decisions.above_bytes
        upper = used - decisions.first_bytes
        valid = np.flatnonzero(
            decisions.throttled & (used >= 0) & (decisions.above_s > 0) & (lower > 0) & (upper >= lower)
        )
        parts.append(
            Observations(
                lot=decisions.lot[valid],
                sim=decisions.sim[valid],
                window=np.full(len(valid), int(window)),
                at_ms=decisions.first_s[valid] * 1000,
                lower_bytes=lower[valid],
                upper_bytes=np.maximum(upper[valid], lower[valid] + 1),
                goodput_kbps=decisions.goodput_kbps[valid],
            )
        )
    return gathered(parts)


def of_unthrottled(unslowed: Unslowed, lot: Column, used_bytes: Mapping[Window, Column]) -> Observations:
    """``lot`` and ``used_bytes`` are those of the same SIMs."""
    parts = []
    for window, used in used_bytes.items():
        lower = used - unslowed.since_bytes.astype(np.int64)
        valid = np.flatnonzero((used >= 0) & (lower > 0))
        parts.append(
            Observations(
                lot=lot[valid].astype(np.int64),
                sim=unslowed.sim[valid],
                window=np.full(len(valid), int(window)),
                at_ms=unslowed.at_s[valid] * 1000,
                lower_bytes=lower[valid],
                upper_bytes=np.zeros(len(valid), np.int64),
                goodput_kbps=np.zeros(len(valid), np.int64),
            )
        )
    return highest(gathered(parts))


def highest(quiet: Observations, keep: int = QUIET_MAX) -> Observations:
    """Of each lot and window those that have used most."""
    order = np.lexsort((-quiet.lower_bytes, quiet.window, quiet.lot))
    begins = np.diff(quiet.lot[order] * 4 + quiet.window[order], prepend=-1) != 0
    place = np.arange(len(order)) - np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
    return quiet.chosen(order[place < keep])

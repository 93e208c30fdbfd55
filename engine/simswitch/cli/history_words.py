"""Rows of history in words: dates for the numbers of days, digits for ICCIDs, names for entities, words for enums.

History keeps numbers, since it has a billion rows; people and the programs that read an export want what they mean.
Bytes, counts and instants (Unix milliseconds) stay numbers; an export writes instants as such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from simswitch.core import layout
from simswitch.core.commands import decode_iccid
from simswitch.history.reading import ENTITIES
from simswitch.v1 import inventory_pb2

_RESULTS = ("ordered", "confirmed", "refused", "overdue", "withdrawn")
_WHY = (None, layout.ConfirmedBy, layout.Acknowledgement, None, layout.WithdrawnBy)


def _of(enum: Any, prefix: str = "") -> Callable[[int], str]:
    words = {int(each): each.name.removeprefix(prefix).lower() for each in enum}
    return lambda value: words.get(value, str(value))


def _span(unit: Literal["D", "M", "h", "m"]) -> Callable[[int], str]:
    return lambda value: str(np.datetime64(value, unit)) + ("Z" if unit in "hm" else "")


def _iccid(value: int) -> str:
    return decode_iccid(value) if value else ""


_BASIS = _of(layout.Basis, "BASIS_")
_WINDOW = _of(layout.Window, "WINDOW_")
_MEANING: Mapping[str, Callable[[int], str]] = {
    "day": _span("D"),
    "published_day": _span("D"),
    "month": _span("M"),
    "hour": _span("h"),
    "minute": _span("m"),
    "first_minute": _span("m"),
    "last_minute": _span("m"),
    "iccid": _iccid,
    "source": _iccid,
    "target": _iccid,
    "window": lambda value: "rolling_day" if value == layout.ROLLING_DAY else _WINDOW(value),
    "basis": lambda value: _BASIS(value) if value else "",
    "health": _of(layout.Health),
    "status": _of(layout.Status),
    "priority": _of(layout.Priority, "PRIORITY_"),
    "shift": _of(layout.CapShift, "CAP_"),
    "step": _of(layout.LimitReason, "LIMIT_"),
    "action": _of(layout.LimitAction, "ACTION_"),
    "state": _of(layout.JobState, "JOB_"),
}


def worded(table: str, row: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    """A row in words. ``names``: of entities."""
    found = dict(row)
    for column, value in row.items():
        if not isinstance(value, int):
            continue
        if column in _MEANING:
            found[column] = _MEANING[column](value)
        elif column in ENTITIES:
            # Entity 0 is the actor "system"; as anything else 0 is none.
            unnamed = str(value) if value > 0 else ""
            found[column] = names.get(value, unnamed) if value or column == "actor" else ""
        elif column == "kind":
            found[column] = layout.EntityKind(value).name.lower()
    if table == "swaps":
        why = _WHY[row["result"]]
        found["result"] = _RESULTS[row["result"]]
        found["why"] = _of(why)(row["why"]).removeprefix("ack_") if why is not None and row["why"] else ""
    elif table == "jobs":
        found["why"] = _of(layout.JobWhy, "WHY_")(row["why"])
    elif table == "limit_rules":
        found["document"] = _rule_text(row["document"])
        found |= {name: None for name in ("month_bytes", "day_bytes") if row[name] < 0}
    return found


def _rule_text(document: bytes) -> str:
    """The text of a limit as it was published."""
    return inventory_pb2.LimitRule.FromString(document).text

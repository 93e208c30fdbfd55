"""What a plan is made from, as CSV files.

    use.csv          one line for each day, without a gap
      day              2026-11-01
      used_bytes       what was used on it
      subscribers      that used anything, or all there were: the same on every line
      terminals        that may want a SIM; may be left out
      peak_active      the most that had one at once; may be left out

    lots.csv         one line for each lot
      lot, class, carrier, supplier     its names; carrier and supplier may be left out
      sims             that are fit for use: healthy, low or spent, not slowed, lost or retired
      slowed           by the carrier, besides: they serve again in the next cycle; may be left out
      used_bytes       by all of them in this cycle
      cap_low_bytes, cap_bytes, cap_high_bytes
                       of one SIM in a cycle: the 5 % quantile, the median and the 95 % quantile; a cap that is
                       certain has the same figure three times
      next_reset       the day on whose morning the next cycle begins; it begins anew each month
      day_quota_bytes  what a SIM may use in a day; empty: any amount
      valid_until      the last day on which its SIMs work; empty: no end

    subscribers.csv  one line for each subscriber
      used_bytes       in this calendar month

A lot's use is spread evenly over its SIMs, since the file does not say by SIM.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from simswitch.inventory.problems import FileRefused
from simswitch.inventory.table import Column, Table
from simswitch.planning.forecast import Floats, Past
from simswitch.planning.plan import Situation
from simswitch.planning.simultaneity import Peak
from simswitch.planning.volume import CapInterval, LotState, monthly

_USE = (
    Column("day", True, "the day"),
    Column("used_bytes", True, "what was used on it"),
    Column("subscribers", True, "how many there were"),
    Column("terminals", False, "that may want a SIM"),
    Column("peak_active", False, "the most that had one at once"),
)
_LOTS = (
    Column("lot", True, "the lot's name"),
    Column("class", True, "the class of its SIMs"),
    Column("carrier", False, "whose network"),
    Column("supplier", False, "who sold it"),
    Column("sims", True, "SIMs that are fit for use"),
    Column("used_bytes", True, "by all of them in this cycle"),
    Column("cap_low_bytes", True, "the 5 % quantile of a SIM's cap"),
    Column("cap_bytes", True, "its median"),
    Column("cap_high_bytes", True, "its 95 % quantile"),
    Column("next_reset", True, "when the next cycle begins"),
    Column("day_quota_bytes", False, "what a SIM may use in a day"),
    Column("valid_until", False, "the last day on which its SIMs work"),
    Column("slowed", False, "SIMs that the carrier has slowed"),
)
_SUBSCRIBERS = (Column("used_bytes", True, "in this calendar month"),)


SIMS_MAX = 10_000_000
"""Of a lot; each takes room while the plan is made."""


class _Fields:
    """One line, from which each field is taken and checked; a bad one is noted and stands as zero or None."""

    def __init__(self, table: Table, line: int, values: dict[str, str]) -> None:
        self._table = table
        self.line = line
        self._values = values

    def text(self, column: str) -> str:
        return self._values.get(column, "")

    def refuse(self, column: str, text: str) -> None:
        self._table.add(self.line, column, self.text(column), text)

    def count(self, column: str, least: int = 0) -> int:
        value = self.text(column)
        if not (value.isascii() and value.isdigit() and len(value) <= 18 and int(value) >= least):
            self.refuse(column, f"a whole number from {least} belongs here, without separators")
            return least
        return int(value)

    def day(self, column: str) -> date | None:
        try:
            return date.fromisoformat(self.text(column))
        except ValueError:
            self.refuse(column, "a day such as 2026-11-01 belongs here")
            return None


def _lines(table: Table) -> Iterator[_Fields]:
    for chunk in table.chunks():
        names = list(chunk.columns)
        for line, row in zip(chunk.lines, chunk.rows, strict=True):
            yield _Fields(table, line, dict(zip(names, row, strict=True)))


def _done(table: Table, count: int, what: str) -> None:
    if not count and not table.problems:
        table.add(0, "", "", f"there is no {what} in the file")
    if table.problems:
        raise FileRefused(table.path, table.problems)


def _read_use(path: Path) -> tuple[Past, int, Peak | None]:
    table = Table(path, _USE)
    days: list[date] = []
    used: list[int] = []
    subscribers: list[int] = []
    shares: list[float] = []
    terminals = 0
    for fields in _lines(table):
        day = fields.day("day")
        if day is not None:
            if days and day != days[-1] + timedelta(days=1):
                fields.refuse("day", f"the day after {days[-1]} belongs here: days follow without a gap")
            days.append(day)
        used.append(fields.count("used_bytes"))
        subscribers.append(fields.count("subscribers", 1))
        if fields.text("terminals") or fields.text("peak_active"):
            terminals = fields.count("terminals", 1)
            active = fields.count("peak_active", 1)
            if active > terminals:
                fields.refuse("peak_active", f"no more than the {terminals:,} terminals belong here")
            shares.append(active / terminals)
    _done(table, len(days), "day")
    past = Past(days[0], np.array(used, dtype=float), np.array(subscribers, dtype=float))
    return past, terminals, Peak.observed(shares) if shares else None


def _read_lots(path: Path, today: date) -> tuple[LotState, ...]:
    table = Table(path, _LOTS)
    lots: dict[str, LotState] = {}
    for fields in _lines(table):
        name = fields.text("lot")
        if not name or name in lots:
            fields.refuse("lot", "the lot stands here twice; leave one out" if name else "a name belongs here")
        sims = fields.count("sims")
        if sims > SIMS_MAX:
            fields.refuse("sims", f"no lot has more than {SIMS_MAX:,} SIMs; is this another column?")
            continue
        used = fields.count("used_bytes")
        caps = [fields.count(column, 1) for column in ("cap_low_bytes", "cap_bytes", "cap_high_bytes")]
        if caps != sorted(caps):
            fields.refuse("cap_low_bytes", "the three quantiles of a cap must not fall from low to high")
            continue
        reset = fields.day("next_reset")
        if reset is not None and reset < today:
            fields.refuse("next_reset", f"that lies before {today}, the day after the last one of the use")
        lots[name] = LotState(
            name,
            CapInterval(*map(float, caps)),
            np.full(sims, used / sims if sims else 0.0),
            monthly(reset) if reset is not None else (),
            float(fields.count("day_quota_bytes", 1)) if fields.text("day_quota_bytes") else None,
            fields.day("valid_until") if fields.text("valid_until") else None,
            fields.text("class"),
            fields.text("carrier"),
            fields.text("supplier"),
            fields.count("slowed") if fields.text("slowed") else 0,
        )
    _done(table, len(lots), "lot")
    return tuple(lots.values())


def _read_subscribers(path: Path) -> Floats:
    table = Table(path, _SUBSCRIBERS)
    used = [fields.count("used_bytes") for fields in _lines(table)]
    _done(table, len(used), "subscriber")
    return np.array(used, dtype=float)


def read_situation(use: Path, lots: Path, subscribers: Path | None = None) -> Situation:
    """What the files say. Raises ``FileRefused`` with every problem of the first file that has any, and ``OSError``."""
    past, terminals, peak = _read_use(use)
    pool = _read_lots(lots, past.next_day)
    whole = sum(float(lot.used_bytes.sum()) for lot in pool)
    shares = {lot.name: float(lot.used_bytes.sum()) / whole if whole else 1 / len(pool) for lot in pool}
    month = _read_subscribers(subscribers) if subscribers is not None else np.zeros(0)
    return Situation(past, pool, shares, month, month, terminals, sum(lot.sims for lot in pool), peak)

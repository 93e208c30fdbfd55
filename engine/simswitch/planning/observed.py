"""What a plan is made from, out of a service's history: use by day, the pool by lot, leases by market.

    use          whole local days from ``use_day``, the last ones without a gap, at most ``DAYS_MAX``
    lots         the newest snapshot in ``lots``: SIMs that are fit, what was used in the cycle, and the caps in force,
                 which are lower bounds already (what a carrier promised, what is believed, or the 5 % quantile that was
                 learned); so the plan takes them as they are
    share        of the use, each lot's growth of counted bytes over the last week of snapshots; each market's use over
                 SIMs of each lot in that week (``use_market``)
    peaks        the hour of each day with most leases, of all markets together and of each (``leases``)
    subscribers  what each has used in the running month, and in it and the one before together, which is how they are
                 taken to go on (``use_month``)

When a lot's cycle begins anew is known where it follows a calendar, else it is told. What a lot has left is spread
evenly over its SIMs that are fit, and spent ones have nothing; where there are caps over days its use is spread, as
with files. A cap over rolling days stands for as many of its days; a lot with no cap over a cycle has a day's quota
only, or none. SIMs that the carrier has slowed serve again in the next cycle.
"""

from __future__ import annotations

import calendar
import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from simswitch.core import layout
from simswitch.history.reading import begin_ms_of, day_begins_ms, day_of, day_totals, known
from simswitch.planning.forecast import Floats, Past
from simswitch.planning.plan import MarketUse, Situation
from simswitch.planning.simultaneity import MarketPeak, Peak
from simswitch.planning.volume import CapInterval, LotState, monthly

DAYS_MAX = 180
PEAK_DAYS = 28
SHARE_DAYS = 7
NO_CAP_BYTES = 1e18
_EPOCH = date(1970, 1, 1)
_HOUR_MS = 3_600_000


class NotEnough(ValueError):
    """History doesn't have what a plan needs; the text says what, and what to do."""


def read_situation(
    history: sqlite3.Connection, *, cycle_day: int = 1, until: date | None = None, by_subscriber: bool = True
) -> Situation:
    """What history says, on the morning of ``until`` or of the day on which it ends.

    ``cycle_day`` is the day of the month on which the carriers' cycles begin anew. Without ``by_subscriber`` what each
    has used is left out. Raises ``NotEnough``.
    """
    past = _past(history, until)
    today = past.next_day
    number = (today - _EPOCH).days
    snapshot = history.execute("SELECT max(day) FROM lots WHERE day < ?", (number,)).fetchone()[0]
    if snapshot is None:
        raise NotEnough("history has no snapshot of the pool yet: the follower writes one at every full hour")
    begins_ms = day_begins_ms(history, number) or 0
    lots = _lots(history, snapshot, today, cycle_day, begins_ms)
    hour = begin_ms_of(number, begins_ms) // _HOUR_MS
    markets = _markets(history, hour)
    return Situation(
        past,
        lots,
        _shares(history, snapshot, lots),
        *(_people(history, today) if by_subscriber else (np.zeros(0), np.zeros(0))),
        sum(market.terminals for market in markets),
        history.execute("SELECT sum(healthy + low) FROM lots WHERE day = ?", (snapshot,)).fetchone()[0],
        _peak(history, hour, None),
        markets,
        _use_by_market(history, number, snapshot),
    )


def _past(history: sqlite3.Connection, until: date | None) -> Past:
    # The last day that has use is not over yet.
    newest = history.execute(
        "SELECT max(day) FROM (SELECT max(day) AS day FROM use_day UNION ALL SELECT max(day) + 1 FROM days "
        "WHERE subscribers > 0)"
    ).fetchone()[0]
    if newest is None:
        raise NotEnough("history has no use yet: a plan needs at least one whole day")
    end = newest if until is None else (until - _EPOCH).days
    whole: list[tuple[int, int]] = []
    for day in range(end - 1, end - 1 - DAYS_MAX, -1):
        used, subscribers = day_totals(history, day)
        if not subscribers:
            break
        whole.append((used, subscribers))
    if not whole:
        at = datetime.fromtimestamp(known(history).at_ms / 1000, UTC)
        before = _EPOCH + timedelta(days=end)
        raise NotEnough(f"history has no whole day of use before {before}; it is as of {at:%Y-%m-%d %H:%M} UTC")
    used, subscribers = np.array(whole[::-1], dtype=float).T
    return Past(_EPOCH + timedelta(days=end - len(whole)), used, subscribers)


def _day_in_month(today: date, day: int) -> date:
    return today.replace(day=min(day, calendar.monthrange(today.year, today.month)[1]))


def _lots(history: sqlite3.Connection, day: int, today: date, cycle_day: int, begins_ms: int) -> tuple[LotState, ...]:
    names = dict(history.execute("SELECT entity, name FROM entities WHERE kind = ?", (layout.LOT,)).fetchall())
    result = []
    cursor = history.execute("SELECT * FROM lots WHERE day = ? ORDER BY lot", (day,))
    columns = [column[0] for column in cursor.description]
    for row in cursor:
        figures = dict(zip(columns, row, strict=True))
        detail = json.loads(figures["detail"])
        figures["exhausted"] += figures["not_valid"]  # nothing is left of those either, for now
        if figures["healthy"] + figures["low"] + figures["exhausted"] + figures["throttled"]:
            known_day = detail.get("next_cycle_day")
            if known_day is None:
                days = monthly(_day_in_month(today, cycle_day), cycle_day)
            else:
                days = monthly(_EPOCH + timedelta(days=known_day))
            resets = tuple(reset for reset in days if reset >= today)
            name = names.get(figures["lot"], str(figures["lot"]))
            result.append(_lot(name, figures, detail, resets, begins_ms))
    if not result:
        raise NotEnough("no lot has SIMs that are fit for use, or will be when a cycle begins anew")
    return tuple(result)


def _lot(
    name: str, figures: Mapping[str, Any], detail: Mapping[str, Any], resets: tuple[date, ...], begins_ms: int
) -> LotState:
    usable, spent, slowed = figures["healthy"] + figures["low"], figures["exhausted"], figures["throttled"]
    # What SIMs share is looked at as a part for each of them.
    shared = detail.get("pooled") or [False] * len(detail["quota_bytes"])
    cycle, day, rolling = (
        quota / max(usable + spent + slowed, 1) if quota is not None and pooled else quota
        for quota, pooled in zip(detail["quota_bytes"], shared, strict=True)
    )
    days = [] if day is None else [day]
    if rolling is not None:
        days.append(rolling / max(detail["rolling_days"], 1))
    until = detail["valid_until_s"]
    if cycle and not days and not figures["unlimited"]:
        # What they have left is known to the byte; what spent ones used too much takes nothing from it.
        left = figures["headroom_bytes"] / max(usable, 1)
        used = np.concatenate((np.full(usable, max(cycle - left, 0.0)), np.full(spent, float(cycle))))
    else:
        if not cycle:
            # A day's quota is what slowed it: it serves again on the next one.
            spent, slowed = spent + slowed, 0
        used = np.full(usable + spent, max(figures["used_cycle_bytes"], 0) / max(usable + spent, 1))
    return LotState(
        name,
        CapInterval.exactly(float(cycle) if cycle else NO_CAP_BYTES),
        used,
        resets,
        float(min(days)) if days else None,
        # The instant is the end of its last day.
        _EPOCH + timedelta(days=day_of(until * 1000 - 1, begins_ms)) if until > 0 else None,
        detail["class"],
        detail["carrier"],
        detail["supplier"],
        slowed,
    )


def _shares(history: sqlite3.Connection, day: int, lots: tuple[LotState, ...]) -> dict[str, float]:
    grown = history.execute(
        "SELECT e.name, max(l.counted_bytes) - min(l.counted_bytes) FROM lots AS l "
        "JOIN entities AS e ON e.entity = l.lot WHERE l.day BETWEEN ? AND ? GROUP BY l.lot",
        (day - SHARE_DAYS, day),
    ).fetchall()
    whole = sum(growth for _, growth in grown)
    if whole:
        return {name: growth / whole for name, growth in grown}
    return {lot.name: 1 / len(lots) for lot in lots}


def _use_by_market(history: sqlite3.Connection, day: int, snapshot: int) -> tuple[MarketUse, ...]:
    rows = history.execute(
        "SELECT m.name, l.name, sum(u.bytes) FROM use_market AS u JOIN entities AS m ON m.entity = u.market "
        "JOIN entities AS l ON l.entity = u.lot WHERE u.day >= ? AND u.day < ? GROUP BY u.market, u.lot",
        (day - SHARE_DAYS, day),
    ).fetchall()
    by_market: Counter[str] = Counter()
    by_lot: Counter[str] = Counter()
    for market, lot, used in rows:
        by_market[market] += used
        by_lot[lot] += used
    parts: dict[str, dict[str, float]] = {market: {} for market in by_market}
    for market, lot, used in rows:
        parts[market][lot] = used / by_lot[lot]
    for (text,) in history.execute("SELECT detail FROM lots WHERE day = ?", (snapshot,)):
        detail = json.loads(text)
        name, serves = detail.get("name"), [market for market in detail.get("markets", ()) if market in by_market]
        if serves and not by_lot[name]:
            whole = sum(by_market[market] for market in serves)
            for market in serves:
                parts[market][name] = by_market[market] / whole
    whole = by_market.total()
    return tuple(MarketUse(market, used / whole, parts[market]) for market, used in by_market.items())


def _peak(history: sqlite3.Connection, end_hour: int, market: int | None) -> Peak | None:
    """From the hour of each day with most leases. None: no lease was seen."""
    rows = history.execute(
        "SELECT max(share) FROM (SELECT hour, CAST(sum(leased) AS REAL) / sum(terminals) AS share "
        "FROM leases WHERE hour >= ? AND hour < ? AND terminals > 0 AND (? IS NULL OR market = ?) GROUP BY hour) "
        "GROUP BY (hour - ?) / 24",
        (end_hour - PEAK_DAYS * 24, end_hour, market, market, end_hour - PEAK_DAYS * 24),
    ).fetchall()
    shares = [share for (share,) in rows if 0 < share <= 1]
    return Peak.observed(shares) if shares else None


def _markets(history: sqlite3.Connection, end_hour: int) -> tuple[MarketPeak, ...]:
    """Each market as it was when that hour began, or in the last one before it that is known."""
    rows = history.execute(
        "SELECT e.name, l.market, l.terminals, l.fit FROM leases AS l JOIN entities AS e ON e.entity = l.market "
        "WHERE l.hour = (SELECT max(hour) FROM leases WHERE hour <= ?)",
        (end_hour,),
    ).fetchall()
    return tuple(
        MarketPeak(name, terminals, fit, _peak(history, end_hour, market))
        for name, market, terminals, fit in rows
        if terminals
    )


def _people(history: sqlite3.Connection, today: date) -> tuple[Floats, Floats]:
    """What each has used in this month, and in this one and the one before."""
    month = (today.year - 1970) * 12 + today.month - 1
    kind = np.dtype([("subscriber", np.int64), ("bytes", np.int64)])
    this, last = (
        np.fromiter(history.execute("SELECT subscriber, bytes FROM use_month WHERE month = ?", (at,)), dtype=kind)
        for at in (month, month - 1)
    )
    everybody = np.union1d(this["subscriber"], last["subscriber"])
    used, habits = np.zeros(len(everybody)), np.zeros(len(everybody))
    used[np.searchsorted(everybody, this["subscriber"])] = this["bytes"]
    habits[np.searchsorted(everybody, last["subscriber"])] = last["bytes"]
    return used, habits + used

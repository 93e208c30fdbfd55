"""When the windows of lots start anew: months and time zones become instants here, and enter the engine as commands.

The engine always knows the next instant of each window (SCHEDULE), so that it carries the reset out by itself, also if
this service is busy then, or was away. Windows without a cap start anew too: what was used in them is what a cap that
nobody knew of is learned from, and what counts once it is set. After each reset the one that follows is scheduled.
What was due while the service was away is done once, late: what is counted by then is of before, so nothing is
forgotten too early. The window begins at its instant all the same, and a rolling one turns by as many days as are
over. A clock that jumped freezes all of it until an operator confirms the time: the core begins no reset, and what is
due stays so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from simswitch.cell import Cell, CellClosed, CellFailed, CellOverloaded
from simswitch.core import layout
from simswitch.core.commands import run
from simswitch.core.machine import Machine
from simswitch.service.directory import Directory, Entity
from simswitch.v1 import inventory_pb2 as pb

LOTS_AT_ONCE = 256
"""Lots that one read of the machine looks at."""
LOOK_MAX_S = 3_600.0
RETRY_S = 1.0
AFTER_S = 0.25
"""A reset that is due has begun when so much time has passed; then the next one is scheduled."""

log = logging.getLogger("simswitch.service.calendar")


@lru_cache(maxsize=1_024)
def zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name; empty: UTC. Raises ``ValueError`` when there is none of that name."""
    try:
        return ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone of the IANA database, such as Asia/Tokyo") from error


def midnight_ms(day: date, time_zone: str) -> int:
    """When a day begins there, Unix milliseconds."""
    return round(datetime(day.year, day.month, day.day, tzinfo=zone(time_zone)).timestamp() * 1_000)


def _closing(year: int, month: int, closing_day: int) -> date:
    """The last day of the cycle that ends in that month; months may lie outside 1 to 12."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    following = date(year + month // 12, month % 12 + 1, 1)
    return date(year, month, min(closing_day, (following - timedelta(days=1)).day))


def next_reset_ms(window: int, rule: pb.ResetRule, after_ms: int) -> int:
    """The first instant after another at which the window starts anew; of a rolling one, at which a day is over.

    0: nobody knows.
    """
    local = datetime.fromtimestamp(after_ms / 1_000 - rule.lag_seconds, zone(rule.time_zone)).date()
    if window == layout.WINDOW_CYCLE:
        if not rule.closing_day:
            return 0
        closings = (_closing(local.year, local.month + months, rule.closing_day) for months in range(-1, 3))
        days = [closing + timedelta(days=1) for closing in closings]
    else:
        days = [local + timedelta(days=count) for count in range(3)]
    instants = (midnight_ms(day, rule.time_zone) + rule.lag_seconds * 1_000 for day in days)
    return next(instant for instant in instants if instant > after_ms)


def last_reset_ms(window: int, rule: pb.ResetRule, by_ms: int) -> int:
    """The last instant up to another at which the window started anew, or a day was over. 0: nobody knows."""
    at_ms = next_reset_ms(window, rule, by_ms - 32 * 86_400_000)
    while at_ms and (following_ms := next_reset_ms(window, rule, at_ms)) <= by_ms:
        at_ms = following_ms
    return at_ms


class Calendar:
    """Keeps the next reset of each lot's windows scheduled."""

    def __init__(self, cell: Cell, directory: Directory) -> None:
        self._cell = cell
        self._directory = directory
        self._wanted = asyncio.Event()

    def look(self) -> None:
        """Something has changed that may bear on it."""
        self._wanted.set()

    async def watch(self) -> None:
        """For ever; ended by cancelling it."""
        while True:
            self._wanted.clear()
            try:
                seconds = await self.keep()
            except (CellOverloaded, CellFailed):
                seconds = RETRY_S
            except CellClosed:
                return
            try:
                await asyncio.wait_for(self._wanted.wait(), seconds)
            except TimeoutError:
                continue

    async def keep(self) -> float:
        """Schedules what is not scheduled as it should be; gives the seconds until there may be something to do."""
        every = self._directory.all(layout.LOT)
        seconds = LOOK_MAX_S
        for start in range(0, len(every), LOTS_AT_ONCE):
            some = every[start : start + LOTS_AT_ONCE]

            def read(machine: Machine, some: Sequence[Entity] = some) -> tuple[int, list[dict[str, Any]]]:
                return machine.now_ms, [machine.lot(lot.index) for lot in some]

            now_ms, lots = await self._cell.read(read)
            changes = []
            for entity, lot in zip(some, lots, strict=True):
                rule = self._rule(entity)
                for window in layout.Window:
                    at_ms, spread_ms = lot["reset_ms"][window - 1], lot["spread_ms"][window - 1]
                    if 0 < at_ms <= now_ms:
                        seconds = min(seconds, RETRY_S)  # about to begin, or the clock is frozen
                        continue
                    wanted = (0, 0)
                    if rule is not None and (window != layout.WINDOW_ROLLING or lot["rolling_days"]):
                        wanted = (next_reset_ms(window, rule, now_ms), rule.spread_seconds * 1_000)
                    if wanted[0]:
                        seconds = min(seconds, (wanted[0] - now_ms) / 1_000 + AFTER_S)
                    if wanted != (at_ms, spread_ms) and (wanted[0] or at_ms):
                        changes.append((entity.index, int(window), *wanted))
            if changes:
                await self._schedule(changes)
        return seconds

    async def _schedule(self, changes: list[tuple[int, int, int, int]]) -> None:
        lots, windows, instants, spreads = zip(*changes, strict=True)
        outcome = await self._cell.submit(
            run(layout.SCHEDULE, len(changes), lot=lots, window=windows, at_ms=instants, spread_ms=spreads)
        )
        for change, status in zip(changes, outcome["status"].tolist(), strict=True):
            if status not in (layout.OK, layout.SAME):
                log.error("the reset %s was refused: %s", change, layout.Status(status).name)

    def _rule(self, lot: Entity) -> pb.ResetRule | None:
        return lot_rule(pb.Lot.FromString(lot.document), self._plan(lot))

    def _plan(self, lot: Entity) -> pb.Plan:
        return pb.Plan.FromString(self._directory.by_index(lot.numbers[layout.LOT_PLAN]).document)


def lot_rule(lot: pb.Lot, plan: pb.Plan) -> pb.ResetRule | None:
    """The rule of the plan, with the lot's own closing day. None: nothing resets the lot."""
    if not plan.HasField("resets") and not lot.closing_day:
        return None
    rule = pb.ResetRule()
    rule.CopyFrom(plan.resets)
    if lot.closing_day:
        rule.closing_day = lot.closing_day
    return rule

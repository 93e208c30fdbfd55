"""The CSV of SIMs: one line for each card, with its opening balances and its live assignment.

    column               what                                                                    when left out or empty
    -------------------  ----------------------------------------------------------------------  ----------------------
    iccid                19 or 20 digits that begin with 89, the last one a Luhn check digit       refused
    imsi                 14 or 15 digits (E.212)                                                   refused
    lot                  name of the lot that it was bought in                                     refused
    bank                 name of the bank that holds it                                            refused
    slot                 its place in the bank, 0 to 65,535                                        refused
    used_cycle_bytes     used already in the billing cycle that runs now                           0
    used_day_bytes       used already today                                                        0
    used_rolling_bytes   used already in the rolling days of its plan                              0
    as_of                when these figures held: 2026-03-01T09:00:00+09:00, with the offset       with such figures
    health               healthy, throttled, suspended, unreachable, missing or quarantined        healthy
    terminal             key of the terminal that holds it now: a decimal number below 2^64        nobody holds it
    subscriber           who uses that terminal: a decimal number below 2^64                       unknown
    access_server        name of the access server that the terminal is connected to               with a terminal
    market               name of the market that the terminal is in                                with a terminal

A check digit is not looked at where the lot says ``check_digit_exempt``. ``used_day_bytes`` counts only when ``as_of``
is of the day that runs now in its own offset: otherwise the day has been reset since. So does ``used_cycle_bytes``
where the lot's plan says when the cycle began; and if all of the rolling days lie in it, they can't have more.
``used_rolling_bytes`` of an instant that is longer ago than these days last counts nothing either.

A figure of the carrier's that is older than ``as_of`` changes nothing later.

Cost: columns of 55 bytes for each SIM, and 36 for each live assignment; a million lines take a few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simswitch.core.layout import OPENING_MAX
from simswitch.inventory.digits import Bools, DigitColumn, Numbers, luhn_check_digit
from simswitch.inventory.problems import FileRefused
from simswitch.inventory.table import Chunk, Column, Table, is_utf8

SIMS_MAX = 16_777_216
"""Lines of one file: what one import takes."""

COLUMNS = (
    Column("iccid", True, "the card's number, 19 or 20 digits"),
    Column("imsi", True, "the subscriber identity, 14 or 15 digits"),
    Column("lot", True, "the lot that the card was bought in"),
    Column("bank", True, "the bank that holds the card"),
    Column("slot", True, "the card's place in the bank"),
    Column("used_cycle_bytes", False, "used already in the billing cycle"),
    Column("used_day_bytes", False, "used already today"),
    Column("used_rolling_bytes", False, "used already in the rolling days"),
    Column("as_of", False, "when the used figures held"),
    Column("health", False, "what is known of the card"),
    Column("terminal", False, "the terminal that holds the card now"),
    Column("subscriber", False, "who uses that terminal"),
    Column("access_server", False, "where that terminal is connected"),
    Column("market", False, "where that terminal is"),
    Column("line", False, "in a file of lines that were left out: which it was; not read"),
    Column("problem", False, "in a file of lines that were left out: why; not read"),
)

HEALTHS = {"healthy": 1, "throttled": 4, "suspended": 5, "unreachable": 6, "missing": 7, "quarantined": 8}
"""What an import may say. Low and exhausted come from the engine's own count, retired from an order."""

_CLOCK_SLACK = timedelta(minutes=5)
_UNKNOWN = 0xFFFF
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Known:
    """The names that a file may use, each with its place in a list."""

    lots: Sequence[str]
    check_digit_exempt: Collection[str]
    """Lots whose issuer's check digits deviate."""
    banks: Sequence[str]
    access_servers: Sequence[str] = ()
    markets: Sequence[str] = ()
    cycle_begun_s: dict[str, int] = field(default_factory=dict)
    """When the cycle that runs now began, by lot, Unix seconds. 0, or not there: nobody knows."""
    rolling_days: dict[str, int] = field(default_factory=dict)
    """By lot: of how many days its rolling window is."""


@dataclass(slots=True)
class SimColumns:
    """The good lines of a file, in its order. ``lot``, ``bank``, ``access_server``, ``market``: places in ``Known``."""

    line: npt.NDArray[np.uint32]
    iccid: Numbers
    """As in columns everywhere: the digits after 89, times 2, plus 1 for 20 digits."""
    imsi: Numbers
    opening_cycle_bytes: Numbers
    opening_day_bytes: Numbers
    opening_rolling_bytes: Numbers
    as_of_s: npt.NDArray[np.uint32]
    """When the opening balances held, Unix seconds; 0: not said."""
    lot: npt.NDArray[np.uint16]
    bank: npt.NDArray[np.uint16]
    slot: npt.NDArray[np.uint16]
    health: npt.NDArray[np.uint8]
    assigned_line: npt.NDArray[np.uint32]
    """The columns from here on have one item for each live assignment."""
    assigned_iccid: Numbers
    terminal: Numbers
    subscriber: Numbers
    access_server: npt.NDArray[np.uint16]
    market: npt.NDArray[np.uint16]

    @property
    def count(self) -> int:
        """SIMs."""
        return len(self.iccid)

    @property
    def assignments_count(self) -> int:
        """SIMs that a terminal holds."""
        return len(self.terminal)


@dataclass(slots=True)
class Reading:
    """What a file gave: the good lines, what is wrong with the others, and what a person should know."""

    file: Path
    columns: SimColumns
    table: Table
    notes: list[str] = field(default_factory=list)


def read_sims(
    path: Path,
    known: Known,
    now: datetime,
    *,
    partial: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Reading:
    """Reads and checks a file of SIMs.

    ``now`` is the present instant with its offset. Raises ``FileRefused`` with every problem of the file, unless
    ``partial``: then the good lines come back and the problems stand in ``Reading.table``.
    """
    table = Table(path, COLUMNS)
    reader = _Reader(table, known, now)
    for chunk in table.chunks(progress):
        if chunk.rows:
            reader.take(chunk)
    columns = reader.finish()
    if table.problems and not partial:
        table.problems.sort(key=lambda problem: problem.line)
        raise FileRefused(path, table.problems)
    return Reading(path, columns, table, reader.notes())


class _Names(dict[str, int]):
    """The place of each known name; one that is not known is given ``_UNKNOWN``."""

    def __missing__(self, name: str) -> int:
        return _UNKNOWN


class _Reader:
    """Checks one chunk after the other and gathers the columns of the good lines."""

    def __init__(self, table: Table, known: Known, now: datetime) -> None:
        self._table = table
        self._known = known
        self._now = now
        self._places = {
            "lot": _Names((name, place) for place, name in enumerate(known.lots)),
            "bank": _Names((name, place) for place, name in enumerate(known.banks)),
            "access_server": _Names((name, place) for place, name in enumerate(known.access_servers)),
            "market": _Names((name, place) for place, name in enumerate(known.markets)),
        }
        self._exempt = np.array([name in known.check_digit_exempt for name in known.lots] + [False], bool)
        self._cycle_begun_s = np.array([known.cycle_begun_s.get(name, 0) for name in (*known.lots, "")], np.int64)
        self._rolling_s = np.array([known.rolling_days.get(name, 0) * _DAY_S for name in (*known.lots, "")], np.int64)
        self._parts: list[dict[str, npt.NDArray[Any]]] = []
        self._lines_count = 0
        self._oldest: datetime | None = None
        self._stale_days = 0
        self._stale_cycles = 0
        self._stale_rolling = 0

    def take(self, chunk: Chunk) -> None:
        self._lines_count += len(chunk.rows)
        if self._lines_count > SIMS_MAX:
            self._table.add(chunk.lines[-1], "", "", f"more than {SIMS_MAX:,} SIMs; split the file")
            raise FileRefused(self._table.path, self._table.problems)
        good = np.ones(len(chunk.rows), bool)
        place = {name: self._place(chunk, good, name) for name in ("lot", "bank")}
        iccid = self._iccid(chunk, good, place["lot"])
        imsi = self._imsi(chunk, good)
        slot, _ = self._number(chunk, good, "slot", 0xFFFF, required=True)
        windows = ("cycle", "day", "rolling")
        used = {name: self._number(chunk, good, f"used_{name}_bytes", OPENING_MAX) for name in windows}
        any_used = np.logical_or.reduce([value > 0 for value, _ in used.values()])
        same_day, as_of_s = self._as_of(chunk, good, any_used)
        stale = (used["day"][0] > 0) & ~same_day & good
        self._stale_days += int(stale.sum())
        cycle, said = used["cycle"]
        less = said & same_day & (used["day"][0] > cycle) & good
        whole = "the day is part of the cycle, of which used_cycle_bytes says less"
        self._note(chunk, good, less, "used_day_bytes", lambda _value, _place: whole)
        lot = np.minimum(place["lot"], len(self._cycle_begun_s) - 1)
        begun_s = self._cycle_begun_s[lot]
        within = (begun_s > 0) & (as_of_s - self._rolling_s[lot] >= begun_s)
        less = said & within & (used["rolling"][0] > cycle) & good
        rolling = "these days are part of the cycle, of which used_cycle_bytes says less"
        self._note(chunk, good, less, "used_rolling_bytes", lambda _value, _place: rolling)
        over = (cycle > 0) & (as_of_s < begun_s)
        self._stale_cycles += int((over & good).sum())
        lasts_s = self._rolling_s[lot]
        left = (used["rolling"][0] > 0) & (lasts_s > 0) & (as_of_s + lasts_s < int(self._now.timestamp()))
        self._stale_rolling += int((left & good).sum())
        health = self._health(chunk, good)
        terminal, held = self._number(chunk, good, "terminal", 2**64 - 1)
        subscriber, _ = self._number(chunk, good, "subscriber", 2**64 - 1)
        server = self._place(chunk, good, "access_server", held)
        market = self._place(chunk, good, "market", held)
        self._parts.append(
            {
                "good": good,
                "line": np.array(chunk.lines, np.uint32),
                "iccid": iccid,
                "imsi": imsi,
                "opening_cycle_bytes": np.where(over, np.uint64(0), cycle),
                "opening_day_bytes": np.where(same_day, used["day"][0], np.uint64(0)),
                "opening_rolling_bytes": np.where(left, np.uint64(0), used["rolling"][0]),
                "as_of_s": as_of_s.astype(np.uint32),
                "lot": place["lot"],
                "bank": place["bank"],
                "slot": slot.astype(np.uint16),
                "health": health,
                "held": held,
                "terminal": terminal[held],
                "subscriber": subscriber[held],
                "access_server": server[held],
                "market": market[held],
            }
        )

    def finish(self) -> SimColumns:
        """The columns of all chunks, without the lines that repeat an earlier one."""
        if not self._parts:
            self._table.add(0, "", "", "there is no SIM in the file")
            raise FileRefused(self._table.path, self._table.problems)
        whole = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        self._parts.clear()
        good = whole["good"]
        line = whole["line"]
        held = whole["held"]
        self._repeats("iccid", whole["iccid"], line, good, whole["iccid"] != 0)
        self._repeats("imsi", whole["imsi"], line, good, whole["imsi"] != 0)
        good_held = good[held].copy()
        self._repeats("terminal", whole["terminal"], line[held], good_held, np.ones(len(good_held), bool))
        good[np.flatnonzero(held)[~good_held]] = False
        kept = good[held]
        return SimColumns(
            **{
                name: whole[name][good]
                for name in (
                    *("line", "iccid", "imsi", "opening_cycle_bytes", "opening_day_bytes", "opening_rolling_bytes"),
                    *("as_of_s", "lot", "bank", "slot", "health"),
                )
            },
            assigned_line=line[held][kept],
            assigned_iccid=whole["iccid"][held][kept],
            **{name: whole[name][kept] for name in ("terminal", "subscriber", "access_server", "market")},
        )

    def notes(self) -> list[str]:
        notes = []
        if self._stale_days:
            notes.append(
                f"{self._stale_days:,} SIMs have used_day_bytes of an earlier day, reset since then: 0 is taken"
            )
        if self._stale_cycles:
            notes.append(
                f"{self._stale_cycles:,} SIMs have used_cycle_bytes of a cycle that is over: 0 is taken, and what they "
                "used in this one before now is not known"
            )
        if self._stale_rolling:
            notes.append(
                f"{self._stale_rolling:,} SIMs have used_rolling_bytes of days that have all left the window: 0 is "
                "taken, and what they used in the days since is not known"
            )
        if self._oldest and self._now - self._oldest > timedelta(hours=24):
            notes.append(
                f"the oldest figures are of {self._oldest.isoformat()}: what was used since then is not counted"
            )
        return notes

    def _note(self, chunk: Chunk, good: Bools, bad: Bools, column: str, text: Callable[[str, int], str]) -> None:
        """Notes a problem for each line that is bad; ``text`` gets the value and the line's place in the chunk."""
        for position in np.flatnonzero(bad).tolist():
            values = chunk.columns.get(column)
            value = values[position] if values is not None else ""
            reason = text(value, position) if is_utf8(value) else "this is not UTF-8; save the file as UTF-8"
            self._table.add(chunk.lines[position], column, value, reason)
        good &= ~bad

    def _iccid(self, chunk: Chunk, good: Bools, lot: npt.NDArray[np.uint16]) -> Numbers:
        texts = chunk.columns["iccid"]
        column = DigitColumn(texts)
        long = column.length == 20
        shaped = column.decimal & ((column.length == 19) | long) & column.starts_with("89")
        self._note(chunk, good, ~shaped, "iccid", _iccid_reason)
        exempt = self._exempt[np.minimum(lot, len(self._exempt) - 1)]
        wrong = shaped & (column.luhn_remainder() != 0) & ~exempt
        self._note(chunk, good, wrong, "iccid", _check_digit_reason)
        number: Numbers = column.suffix_numbers(2) * np.uint64(2) + long.astype(np.uint64)
        number[~shaped] = 0
        return number

    def _imsi(self, chunk: Chunk, good: Bools) -> Numbers:
        column = DigitColumn(chunk.columns["imsi"])
        shaped = column.decimal & ((column.length == 14) | (column.length == 15)) & ~column.starts_with("0")
        self._note(chunk, good, ~shaped, "imsi", _imsi_reason)
        number, _ = column.numbers()
        number[~shaped] = 0
        return number

    def _number(
        self, chunk: Chunk, good: Bools, name: str, most: int, *, required: bool = False
    ) -> tuple[Numbers, Bools]:
        """The values of a column of whole numbers, 0 where nothing stands, and where something stands."""
        texts = chunk.columns.get(name)
        if texts is None:
            return np.zeros(len(chunk.rows), np.uint64), np.zeros(len(chunk.rows), bool)
        column = DigitColumn(texts)
        number, fits = column.numbers()
        bad = ~fits | (number > np.uint64(most))
        if required:
            bad |= column.length == 0
        self._note(chunk, good, bad, name, lambda _value, _place: f"a whole number from 0 to {most:,} belongs here")
        return number, (column.length > 0) & ~bad

    def _place(self, chunk: Chunk, good: Bools, name: str, where: Bools | None = None) -> npt.NDArray[np.uint16]:
        """The places of a column of names. ``where`` says which lines need one; the others must have none."""
        texts = chunk.columns.get(name, ("",) * len(chunk.rows))
        places = self._places[name]
        found = np.fromiter(map(places.__getitem__, texts), np.uint16, len(texts))
        what = name.replace("_", " ")
        if where is None:
            self._note(chunk, good, found == _UNKNOWN, name, lambda value, _place: _unknown(what, value, places))
            return found
        empty = np.fromiter(map(len, texts), np.int64, len(texts)) == 0
        self._note(chunk, good, where & (found == _UNKNOWN), name, lambda value, _place: _unknown(what, value, places))
        alone = f"a line without a terminal has no {what}; name the terminal, or leave this empty"
        self._note(chunk, good, ~where & ~empty & good, name, lambda _value, _place: alone)
        return found

    def _health(self, chunk: Chunk, good: Bools) -> npt.NDArray[np.uint8]:
        texts = chunk.columns.get("health")
        if texts is None:
            return np.full(len(chunk.rows), HEALTHS["healthy"], np.uint8)
        allowed = {**HEALTHS, "": HEALTHS["healthy"]}
        health = np.fromiter((allowed.get(text, 0) for text in texts), np.uint8, len(texts))
        self._note(
            chunk, good, health == 0, "health", lambda _value, _place: f"one of {', '.join(HEALTHS)} belongs here"
        )
        return health

    def _as_of(self, chunk: Chunk, good: Bools, needed: Bools) -> tuple[Bools, npt.NDArray[np.int64]]:
        """Which lines' figures are of the day that runs now, and when they held, Unix seconds. There are few distinct
        instants: each is read once."""
        texts = chunk.columns.get("as_of", ("",) * len(chunk.rows))
        meanings = {text: self._instant(text) for text in dict.fromkeys(texts)}
        reasons = np.fromiter((bool(meanings[text][0]) for text in texts), bool, len(texts))
        empty = np.fromiter(map(len, texts), np.int64, len(texts)) == 0
        self._note(chunk, good, reasons & ~empty, "as_of", lambda value, _place: meanings[value][0])
        missing = "figures of use need the instant at which they held, such as 2026-03-01T09:00:00+09:00"
        self._note(chunk, good, needed & empty & good, "as_of", lambda _value, _place: missing)
        same_day = np.fromiter((meanings[text][1] for text in texts), bool, len(texts))
        return same_day, np.fromiter((meanings[text][2] for text in texts), np.int64, len(texts))

    def _instant(self, text: str) -> tuple[str, bool, int]:
        """Why an instant is refused, whether it is of the day that runs now, and its Unix seconds."""
        if not text:
            return "", False, 0
        try:
            instant = datetime.fromisoformat(text)
        except ValueError:
            return "an instant such as 2026-03-01T09:00:00+09:00 belongs here", False, 0
        if instant.tzinfo is None:
            return "the offset from UTC is missing; write it, such as +09:00 or Z", False, 0
        if instant - self._now > _CLOCK_SLACK:
            return "this lies in the future", False, 0
        if self._oldest is None or instant < self._oldest:
            self._oldest = instant
        same_day = instant.date() == self._now.astimezone(instant.tzinfo).date()
        return "", same_day, max(int(instant.timestamp()), 0)

    def _repeats(self, name: str, value: Numbers, line: npt.NDArray[np.uint32], good: Bools, counted: Bools) -> None:
        """Refuses every line whose number stands on an earlier line already, that one named."""
        places = np.flatnonzero(counted)
        order = places[np.argsort(value[places], kind="stable")]
        again = np.flatnonzero(value[order][1:] == value[order][:-1]) + 1
        first: dict[int, int] = {}
        for position in again:
            earlier, later = int(order[position - 1]), int(order[position])
            origin = first.setdefault(int(value[later]), int(line[earlier]))
            text = f"the same {name} stands on line {origin}; leave one of them out"
            self._table.add(int(line[later]), name, _shown(name, int(value[later])), text)
            good[later] = False


def _shown(name: str, number: int) -> str:
    from simswitch.core.commands import decode_iccid

    return decode_iccid(number) if name == "iccid" else str(number)


def _unknown(what: str, value: str, places: Mapping[str, int]) -> str:
    if not value:
        return f"the name of {'an' if what[0] in 'aeiou' else 'a'} {what} belongs here"
    known = ", ".join(list(places)[:5])
    return f"no such {what}; define it first" + (
        f" (there are: {known}{', …' if len(places) > 5 else ''})" if known else ""
    )


def _iccid_reason(value: str, _place: int) -> str:
    if not value:
        return "19 or 20 digits belong here"
    if not value.isascii() or not value.isdigit():
        return "an ICCID has nothing but digits; take out spaces and letters, and keep spreadsheets from rounding it"
    if len(value) not in (19, 20):
        return f"an ICCID has 19 or 20 digits, this one has {len(value)}"
    return "an ICCID begins with 89"


def _check_digit_reason(value: str, _place: int) -> str:
    right = luhn_check_digit(value[:-1])
    return (
        f"the check digit is {value[-1]}, by Luhn it should be {right}; compare with the card, or set "
        "check_digit_exempt for the lot if this issuer's check digits deviate"
    )


def _imsi_reason(value: str, _place: int) -> str:
    if value.isascii() and value.isdigit() and len(value) in (14, 15):
        return "an IMSI begins with a country code, and none begins with 0"
    return "an IMSI has 14 or 15 digits"

"""A CSV of a carrier's portal: what its SIMs, or all of a lot together, have used. Which of its columns says what,
the caller knows.

A portal's file has columns that nobody needs, amounts in one unit or each with its own, and thousands, decimals and
dates as they are written where it comes from. An amount is rounded up to a byte. What could mean two things is refused:
digits of other scripts, 3/4/2026, an instant of nobody knows which time zone, an amount in nobody knows what, or in
Mb, which are megabits where somebody means them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from simswitch.core.commands import encode_iccid
from simswitch.inventory.problems import FileRefused, Problem
from simswitch.inventory.table import Chunk, Column, Table

UNITS: Mapping[str, int] = {
    **dict.fromkeys(("B", "BYTE", "BYTES"), 1),
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
"""By their names in capitals."""
_OF_BITS = re.compile(r"[KMGT]i?b")
"""How amounts of bits are written by who tells them from bytes. Who writes all of it small, as in kb, does not."""
KEYS = ("iccid", "imsi", "lot", "used", "unit", "unit_column", "as_of")
_BYTES_MAX = 1 << 62
_AMOUNT = re.compile(r"([+-]?)([0-9.,'\s]+?)\s*([A-Za-z]*)")
_GROUPS = " '\u00a0\u202f"
_IMSI = re.compile(r"[0-9]{6,15}")
_NARROW = {0xFF01 + place: 0x21 + place for place in range(94)} | {0x3000: 0x20, 0x2212: 0x2D}
"""Full-width digits, letters and signs, as Japanese portals write them, a wide space, and the sign minus."""
_DATE = re.compile(
    r"(?:([0-9]{4})(?:([-/.])([0-9]{1,2})\2([0-9]{1,2})|年([0-9]{1,2})月([0-9]{1,2})日)"
    r"|([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{4}))(?:[ T]+([0-9].*))?"
)
_NO_INSTANT = "this is no instant, such as 2026-03-21T07:00+09:00 or 2026/03/21 7:00"
_EITHER = re.compile(r"[0-9]{1,2}[/-][0-9]{1,2}[/-][0-9]{4}(?:[ T].*)?")
_TITLE = re.compile(r"[(\[]\s*([A-Za-z]+)\s*[)\]]|(?:^|[\s_])([A-Za-z]{2,})$")
"""Where a column's title may name the unit of its amounts: in brackets, or as its last word of two letters or more."""
_OFFSET = re.compile(r"([+-])([0-9]{2}):?([0-9]{2})")


@dataclass(frozen=True, slots=True)
class Format:
    """How a portal writes."""

    iccid: str = ""
    """The column with the ICCID; empty: ``imsi`` names the SIMs, or what is said is of all SIMs of a lot."""
    imsi: str = ""
    lot: str = ""
    """The column with the lot."""
    of_lot: str = ""
    """The lot that all lines are of, where no column names one."""
    used: str = ""
    unit: str = ""
    """Of amounts for which nothing else names one; empty: that of the column's title, such as "Used (MB)", and where it
    names none either, each line has to."""
    unit_column: str = ""
    """The column with the unit of the line's amount; empty: there is none."""
    as_of: str = ""
    """The column with the instant; empty: one is that of all."""
    delimiter: str = ","
    decimal_comma: bool = False
    encoding: str = "utf-8"
    zone: tzinfo | None = None
    """Of instants that name none; None: such are refused."""

    @property
    def named(self) -> str:
        return self.iccid or self.imsi or self.lot


def read_format(text: str, **others: Any) -> Format:
    """From ``iccid=ICC-ID,used=Data used,unit=MB``; a pair with a comma in its column's name stands in quotes. The
    ``others`` of a ``Format`` are taken as they are. Raises ``ValueError`` with what is wrong."""
    words: dict[str, Any] = {}
    for pair in next(csv.reader([text], skipinitialspace=True), []):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if key not in KEYS or not equals or not value or key in words:
            raise ValueError(f"{pair.strip()!r} is none of {'=…, '.join(KEYS)}=…, each said once")
        words[key] = value
    named = len(words.keys() & {"iccid", "imsi", "lot"})
    if "used" not in words or (named != 1 and not others.get("of_lot")):
        of_what = "the ICCID (iccid=…), the IMSI (imsi=…) or the lot (lot=…)"
        raise ValueError(f"say which column has {of_what}, and which the amount (used=…)")
    if named and others.get("of_lot"):
        raise ValueError(f"all lines are of the lot {others['of_lot']}: then no column names SIMs or lots")
    if "unit" in words:
        unit_bytes(words["unit"])
    else:
        words["unit"] = title_unit(words["used"])
    return Format(**words, **others)


def read_zone(text: str) -> tzinfo:
    """``Asia/Tokyo``, ``UTC`` or ``+09:00``."""
    if (found := _OFFSET.fullmatch(text)) is not None and int(found[2]) < 24 and int(found[3]) < 60:
        offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
        return timezone(-offset if found[1] == "-" else offset)
    try:
        return UTC if text == "UTC" else ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {text!r}; it is such as Asia/Tokyo, UTC or +09:00") from None


@dataclass(slots=True)
class Figures:
    """What a file says, a value a good line in each column."""

    table: Table
    line: list[int] = field(default_factory=list)
    sim: list[int] = field(default_factory=list)
    """ICCIDs as they stand in columns, or IMSIs."""
    lot: list[str] = field(default_factory=list)
    """Instead of SIMs, each figure of all those of a lot together."""
    as_of_s: list[int] = field(default_factory=list)
    carrier_bytes: list[int] = field(default_factory=list)
    repeated_count: int = 0
    """Lines beside those that say once more what an earlier one does."""


def read_carrier_usage(path: Path, written: Format, as_of: datetime | None, *, partial: bool = False) -> Figures:
    """Reads a file whole. ``as_of``: up to when all figures count, unless a column says so.

    Raises ``FileRefused`` when it can't be read as such a table, or, unless ``partial``, when one line is bad.
    """
    columns = [Column(written.used, True, "what was used")]
    if written.named:
        columns.insert(0, Column(written.named, True, "which lot" if written.lot else "which SIM"))
    if written.unit_column:
        columns.append(Column(written.unit_column, True, "the unit of what was used"))
    if written.as_of:
        columns.append(Column(written.as_of, True, "up to when"))
    table = Table(path, columns, delimiter=written.delimiter, others_allowed=True, encoding=written.encoding)
    figures = Figures(table)
    seen: dict[tuple[int | str, int], tuple[int, int]] = {}
    for chunk in table.chunks():
        _read_chunk(chunk, written, as_of, figures, seen)
    if table.problems and not partial:
        raise FileRefused(path, table.problems)
    if not figures.line and not table.problems:
        raise FileRefused(path, [Problem(0, "", "", "there is no line with a figure")])
    return figures


def _read_chunk(
    chunk: Chunk,
    written: Format,
    as_of: datetime | None,
    figures: Figures,
    seen: dict[tuple[int | str, int], tuple[int, int]],
) -> None:
    """``seen``: the line and the amount of each SIM, or lot, and instant."""
    table = figures.table
    nothing = [""] * len(chunk.lines)
    units: Sequence[str] = chunk.columns[written.unit_column] if written.unit_column else nothing
    instants: Sequence[str] = chunk.columns[written.as_of] if written.as_of else nothing
    named: Sequence[str] = chunk.columns[written.named] if written.named else [written.of_lot] * len(chunk.lines)
    rows = zip(chunk.lines, named, chunk.columns[written.used], units, instants, strict=True)
    for line, name, used, unit, instant in rows:
        column, value = written.named, name
        try:
            of_what = _iccid(name) if written.iccid else _imsi(name) if written.imsi else _lot(name)
            column, value = written.unit_column, unit
            if unit.strip():
                unit_bytes(unit)
            column, value = written.used, used
            amount = amount_bytes(used, written.unit, said=unit, decimal_comma=written.decimal_comma)
            column, value = written.as_of, instant
            at = read_instant(instant, written.zone) if written.as_of else as_of
            assert at is not None, "an instant is that of all, or each line has one"
            as_of_s = int(at.timestamp())
            if not 0 < as_of_s < 1 << 32:
                raise ValueError("this is no instant of our time")
        except ValueError as error:
            table.add(line, column, value, str(error))
            continue
        before, amount_before = seen.setdefault((of_what, as_of_s), (line, amount))
        if before != line and amount == amount_before:
            figures.repeated_count += 1
            continue
        if before != line:
            of = "lot" if isinstance(of_what, str) else "SIM"
            text = f"line {before} says another amount of the {of} at the same instant; leave one out"
            table.add(line, written.named, name, text)
            continue
        figures.line.append(line)
        if isinstance(of_what, str):
            figures.lot.append(of_what)
        else:
            figures.sim.append(of_what)
        figures.as_of_s.append(as_of_s)
        figures.carrier_bytes.append(amount)


def unit_bytes(name: str) -> int:
    name = _narrowed(name)
    if _OF_BITS.fullmatch(name):
        raise ValueError(f"{name} may be bits or bytes; where it is bytes write {name[:-1]}B")
    size = UNITS.get(name.upper())
    if size is None:
        raise ValueError(f"there is no unit {name.strip()!r}; there are {', '.join(UNITS)}")
    return size


def title_unit(title: str) -> str:
    """The unit that a column's title names last; empty: none."""
    named = [found[1] or found[2] for found in _TITLE.finditer(_narrowed(title))]
    return next((name for name in reversed(named) if name.upper() in UNITS), "")


def amount_bytes(text: str, unit: str, *, said: str = "", decimal_comma: bool = False) -> int:
    """``1,234.5 MB``, or ``1.234,5 MB`` with a decimal comma; an amount without a unit has the one that is said of it,
    else ``unit``."""
    found = _AMOUNT.fullmatch(_narrowed(text))
    if found is None:
        raise ValueError("this is no amount, such as 1234.5 or 1.2 GB")
    sign, digits, named = found.groups()
    said = _narrowed(said)
    name = named or said or unit
    if not name and re.search("[1-9]", digits):
        raise ValueError(
            "nothing names its unit: not the amount, its line or its column's title; say it, such as unit=MB, or unit=B"
        )
    size = unit_bytes(name or "B")  # nothing is nothing in any
    if said and size != unit_bytes(said):
        raise ValueError(f"the amount is in {named}, and its line says {said}")
    point, group = (",", ".") if decimal_comma else (".", ",")
    whole, _, fraction = digits.partition(point)
    separators = "".join(re.escape(each) for each in group + _GROUPS)
    groups = rf"[0-9]+|[0-9]{{1,3}}(?:[{separators}][0-9]{{3}})+"
    if not re.fullmatch(groups, whole) or not re.fullmatch(r"[0-9]*", fraction):
        other = "without" if decimal_comma else "with"
        raise ValueError(f"this can't be read as a number; is it written {other} a decimal comma?")
    amount = Decimal(f"{sign}{re.sub(r'[^0-9]', '', whole)}.{fraction or 0}") * size
    if abs(amount) >= _BYTES_MAX:
        raise ValueError("this is more than anybody can use")
    return int(amount.to_integral_value(ROUND_CEILING))


def read_instant(text: str, zone: tzinfo | None) -> datetime:
    """An instant as ISO 8601 or a portal writes it. ``zone``: of one that names none; None refuses it, since the zone
    of this machine is not the carrier's. A day alone is its beginning. Raises ``ValueError``."""
    text = _narrowed(text)
    if _EITHER.fullmatch(text):
        raise ValueError("whether the day or the month comes first here can't be known; write it as 2026-11-05")
    iso = text
    if (found := _DATE.fullmatch(text)) is not None:
        year, month, day = (
            found.group(1, 3, 4) if found[3] else found.group(1, 5, 6) if found[5] else found.group(9, 8, 7)
        )
        time = found[10] or "00:00"
        iso = f"{year}-{month:0>2}-{day:0>2}T{'0' if time[1:2] == ':' else ''}{time}"
    try:
        instant = datetime.fromisoformat(iso)
    except ValueError:
        raise ValueError(_NO_INSTANT) from None
    if instant.tzinfo is not None:
        return instant
    if zone is None:
        raise ValueError("the offset from UTC is missing; write it, such as +09:00, or say --zone Asia/Tokyo")
    return _in_zone(instant, zone)


def _in_zone(local: datetime, zone: tzinfo) -> datetime:
    """Where clocks go back an hour comes twice, and its first is taken: what we counted since is the more then."""
    try:
        instant = local.replace(tzinfo=zone).astimezone(UTC)
        left_out = instant.astimezone(zone).replace(tzinfo=None) != local
    except OverflowError:
        raise ValueError(_NO_INSTANT) from None
    if left_out:
        raise ValueError(f"clocks in {zone} left this hour out; write the instant with its offset from UTC")
    return instant


def _narrowed(text: str) -> str:
    return text.translate(_NARROW).strip()


def _number(text: str) -> str:
    """Spreadsheets keep a long number from being rounded as ="8981…" or '8981…."""
    number = _narrowed(text)
    return number[2:-1] if number.startswith('="') and number.endswith('"') else number.removeprefix("'")


def _iccid(text: str) -> int:
    return encode_iccid(re.sub(r"[\s-]", "", _number(text)))


def _imsi(text: str) -> int:
    digits = _number(text)
    if not _IMSI.fullmatch(digits):
        raise ValueError("an IMSI has up to 15 digits")
    return int(digits)


def _lot(text: str) -> str:
    if not text.strip():
        raise ValueError("the lot's name is missing")
    return text.strip()

"""A CSV of a carrier's portal: what its SIMs have used. Which of its columns says what, the caller knows.

A portal's file has columns that nobody needs, amounts in one unit or each with its own, and thousands and decimals as
they are written where it comes from. An amount is rounded up to a byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from pathlib import Path

from simswitch.core.commands import encode_iccid
from simswitch.inventory.problems import FileRefused, Problem
from simswitch.inventory.table import Chunk, Column, Table

UNITS: Mapping[str, int] = {
    **dict.fromkeys(("B", "BYTE", "BYTES"), 1),
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
"""By their names in capitals."""
KEYS = ("iccid", "imsi", "used", "unit", "unit_column", "as_of")
_BYTES_MAX = 1 << 62
_AMOUNT = re.compile(r"([+-]?)([\d.,'\s]+?)\s*([A-Za-z]*)")
_GROUPS = " '\u00a0\u202f"
_IMSI = re.compile(r"\d{6,15}")


@dataclass(frozen=True, slots=True)
class Format:
    """How a portal writes."""

    iccid: str = ""
    """The column with the ICCID; empty: ``imsi`` names the SIMs."""
    imsi: str = ""
    used: str = ""
    unit: str = "B"
    """Of amounts for which nothing else names one; empty: each line has to."""
    unit_column: str = ""
    """The column with the unit of the line's amount; empty: there is none."""
    as_of: str = ""
    """The column with the instant; empty: one is that of all."""
    delimiter: str = ","
    decimal_comma: bool = False

    @property
    def named(self) -> str:
        return self.iccid or self.imsi


def read_format(text: str, *, delimiter: str = ",", decimal_comma: bool = False) -> Format:
    """From ``iccid=ICC-ID,used=Data used,unit=MB``. Raises ``ValueError`` with what is wrong."""
    words: dict[str, str] = {}
    for pair in text.split(","):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if key not in KEYS or not equals or not value or key in words:
            raise ValueError(f"{pair.strip()!r} is none of {'=…, '.join(KEYS)}=…, each said once")
        words[key] = value
    if ("iccid" in words) == ("imsi" in words) or "used" not in words:
        raise ValueError("say which column has the ICCID (iccid=…) or the IMSI (imsi=…), and which the amount (used=…)")
    if "unit" in words:
        unit_bytes(words["unit"])
    elif "unit_column" in words:
        words["unit"] = ""
    return Format(**words, delimiter=delimiter, decimal_comma=decimal_comma)


@dataclass(slots=True)
class Figures:
    """What a file says, a value a good line in each column."""

    table: Table
    line: list[int] = field(default_factory=list)
    sim: list[int] = field(default_factory=list)
    """ICCIDs as they stand in columns, or IMSIs."""
    as_of_s: list[int] = field(default_factory=list)
    carrier_bytes: list[int] = field(default_factory=list)


def read_carrier_usage(path: Path, written: Format, as_of: datetime | None, *, partial: bool = False) -> Figures:
    """Reads a file whole. ``as_of``: up to when all figures count, unless a column says so.

    Raises ``FileRefused`` when it can't be read as such a table, or, unless ``partial``, when one line is bad.
    """
    columns = [Column(written.named, True, "which SIM"), Column(written.used, True, "what was used")]
    if written.unit_column:
        columns.append(Column(written.unit_column, True, "the unit of what was used"))
    if written.as_of:
        columns.append(Column(written.as_of, True, "up to when"))
    table = Table(path, columns, delimiter=written.delimiter, others_allowed=True)
    figures = Figures(table)
    seen: dict[tuple[int, int], int] = {}
    for chunk in table.chunks():
        _read_chunk(chunk, written, as_of, figures, seen)
    if table.problems and not partial:
        raise FileRefused(path, table.problems)
    if not figures.line and not table.problems:
        raise FileRefused(path, [Problem(0, "", "", "there is no line with a figure")])
    return figures


def _read_chunk(
    chunk: Chunk, written: Format, as_of: datetime | None, figures: Figures, seen: dict[tuple[int, int], int]
) -> None:
    table = figures.table
    nothing = [""] * len(chunk.lines)
    units: Sequence[str] = chunk.columns[written.unit_column] if written.unit_column else nothing
    instants: Sequence[str] = chunk.columns[written.as_of] if written.as_of else nothing
    rows = zip(chunk.lines, chunk.columns[written.named], chunk.columns[written.used], units, instants, strict=True)
    for line, name, used, unit, instant in rows:
        column, value = written.named, name
        try:
            sim = _iccid(name) if written.iccid else _imsi(name)
            column, value = written.unit_column, unit
            if unit.strip():
                unit_bytes(unit)
            column, value = written.used, used
            amount = amount_bytes(used, written.unit, said=unit, decimal_comma=written.decimal_comma)
            column, value = written.as_of, instant
            at = _instant(instant) if written.as_of else as_of
            assert at is not None, "an instant is that of all, or each line has one"
            as_of_s = int(at.timestamp())
            if not 0 < as_of_s < 1 << 32:
                raise ValueError("this is no instant of our time")
        except ValueError as error:
            table.add(line, column, value, str(error))
            continue
        before = seen.setdefault((sim, as_of_s), line)
        if before != line:
            table.add(line, written.named, name, f"the SIM stands on line {before} already; leave one out")
            continue
        figures.line.append(line)
        figures.sim.append(sim)
        figures.as_of_s.append(as_of_s)
        figures.carrier_bytes.append(amount)


def unit_bytes(name: str) -> int:
    size = UNITS.get(name.strip().upper())
    if size is None:
        raise ValueError(f"there is no unit {name.strip()!r}; there are {', '.join(UNITS)}")
    return size


def amount_bytes(text: str, unit: str, *, said: str = "", decimal_comma: bool = False) -> int:
    """``1,234.5 MB``, or ``1.234,5 MB`` with a decimal comma; an amount without a unit has the one that is said of it,
    else ``unit``."""
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise ValueError("this is no amount, such as 1234.5 or 1.2 GB")
    sign, digits, named = found.groups()
    name = named or said.strip() or unit
    if not name:
        raise ValueError("nothing names its unit: not the amount, not its line, and no unit=")
    size = unit_bytes(name)
    if said.strip() and size != unit_bytes(said):
        raise ValueError(f"the amount is in {named}, and its line says {said.strip()}")
    point, group = (",", ".") if decimal_comma else (".", ",")
    whole, _, fraction = digits.partition(point)
    separators = "".join(re.escape(each) for each in group + _GROUPS)
    if not re.fullmatch(rf"\d+|\d{{1,3}}(?:[{separators}]\d{{3}})+", whole) or not re.fullmatch(r"\d*", fraction):
        other = "without" if decimal_comma else "with"
        raise ValueError(f"this can't be read as a number; is it written {other} a decimal comma?")
    amount = Decimal(f"{sign}{re.sub(r'[^0-9]', '', whole)}.{fraction or 0}") * size
    if abs(amount) >= _BYTES_MAX:
        raise ValueError("this is more than anybody can use")
    return int(amount.to_integral_value(ROUND_CEILING))


def _iccid(text: str) -> int:
    return encode_iccid(re.sub(r"[\s-]", "", text))


def _imsi(text: str) -> int:
    digits = text.strip()
    if not _IMSI.fullmatch(digits):
        raise ValueError("an IMSI has up to 15 digits")
    return int(digits)


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise ValueError("this is no instant, such as 2026-03-21T07:00+09:00") from None

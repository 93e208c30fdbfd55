"""What people write for spans, instants, hours of the day, shares and bytes, and how they read them and counts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from simswitch.cli.exits import CommandFailed, Exit

_SPAN_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
_DAY = timedelta(days=1)
_DIGITS = {
    **dict.fromkeys(
        (
            "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF",
            "XOF", "XPF",
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}  # fmt: skip
"""Of currencies of ISO 4217 whose smallest unit is no hundredth."""
MS_MAX = 1 << 52
"""Instants and spans are below it, some 140,000 years."""
BYTES_MAX = 1 << 62


def _wrong(option: str, text: str, wanted: str) -> CommandFailed:
    return CommandFailed(Exit.USAGE, f"{option} takes {wanted}, not {text!r}")


def span_ms(option: str, text: str) -> int:
    """``90s``, ``5m``, ``4h`` or ``2d`` in milliseconds; a number alone is seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if found is None:
        raise _wrong(option, text, "a span such as 90s, 5m, 4h or 2d")
    milliseconds = round(float(found[1]) * _SPAN_MS[found[2] or "s"])
    if milliseconds >= MS_MAX:
        raise _wrong(option, text, "a shorter span")
    return milliseconds


def instant_ms(option: str, text: str, now: datetime) -> int:
    """A span from now on, or an instant such as ``2026-03-21T07:00`` (of this machine's time zone if it names none)."""
    if re.fullmatch(r"\d+(?:\.\d+)?[smhd]", text.strip()):
        return round(now.timestamp() * 1000) + span_ms(option, text)
    try:
        milliseconds = round(datetime.fromisoformat(text.strip()).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError):
        milliseconds = -1
    if milliseconds < 0:
        raise _wrong(option, text, "a span such as 4h, or an instant such as 2026-03-21T07:00")
    return milliseconds


def hours_ms(option: str, text: str, now: datetime) -> tuple[int, int]:
    """``22:00-07:00``, maybe with a time zone behind it: the one of these spans that runs at ``now`` or comes next."""
    found = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)(?:\s+(\S+))?", text.strip())
    wanted = "hours such as 22:00-07:00, or '22:00-07:00 Asia/Tokyo'"
    if found is None:
        raise _wrong(option, text, wanted)
    zone: tzinfo | None = None
    if found[5]:
        try:
            zone = UTC if found[5] == "UTC" else ZoneInfo(found[5])
        except (ZoneInfoNotFoundError, ValueError):
            raise CommandFailed(Exit.USAGE, f"{option}: there is no time zone {found[5]!r}") from None
    here = now.astimezone(zone)
    try:
        begin = here.replace(hour=int(found[1]), minute=int(found[2]), second=0, microsecond=0)
        end = here.replace(hour=int(found[3]), minute=int(found[4]), second=0, microsecond=0)
    except ValueError:
        raise _wrong(option, text, wanted) from None
    if begin == end:
        raise CommandFailed(Exit.USAGE, f"{option}: {text!r} is no time at all, or always")
    if end < begin:
        begin -= _DAY
    if end <= here:
        begin += _DAY
        end += _DAY
    return round(begin.timestamp() * 1000), round(end.timestamp() * 1000)


def share_ppm(option: str, text: str) -> int:
    """``5%`` or ``0.05`` in millionths."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text.strip())
    ppm = round(float(found[1]) * (10**4 if found[2] else 10**6)) if found else -1
    if not 0 <= ppm <= 10**6:
        raise _wrong(option, text, "a share such as 5% or 0.05, up to 100%")
    return ppm


def bytes_of(option: str, text: str) -> int:
    """``5GB``, ``500MB`` or ``2GiB`` in bytes; only nothing at all, 0, needs no unit."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?i?B?)", text.strip())
    if found is None or found[2] not in _BYTES or (not found[2] and float(found[1])):
        raise _wrong(option, text, f"an amount with its unit, such as 5GB (units: {', '.join(filter(None, _BYTES))})")
    count = round(float(found[1]) * _BYTES[found[2]])
    if count >= BYTES_MAX:
        raise _wrong(option, text, "a smaller amount")
    return count


def bytes_text(count: int) -> str:
    """An amount as people read it."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        # What would round to 1,000.0 of a unit is 1.0 of the next.
        if count >= (size if unit == "MB" else size - size // 20_000):
            return f"{count / size:,.1f} {unit}"
    return f"{count:,} B"


def money_text(minor: float, currency: str) -> str:
    """An amount of money, from its currency's smallest units; a part of such a unit is rounded away."""
    digits = _DIGITS.get(currency, 2)
    return f"{minor / 10**digits:,.{digits}f} {currency}"


def counted(count: int, one: str, many: str = "") -> str:
    """A count with its noun, which has an s behind it where it is no single one unless ``many`` says otherwise."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def exact_text(milliseconds: int) -> str:
    """As ``instant_text``, with the milliseconds by which the records of one second differ."""
    return datetime.fromtimestamp(milliseconds / 1000).astimezone().isoformat(sep=" ", timespec="milliseconds")


def instant_text(milliseconds: int) -> str:
    """An instant in this machine's time zone."""
    return datetime.fromtimestamp(milliseconds / 1000).astimezone().isoformat(sep=" ", timespec="seconds")

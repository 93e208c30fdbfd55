"""What people write for spans, instants, hours, shares and bytes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from simswitch.cli.amounts import bytes_of, bytes_text, hours_ms, instant_ms, money_text, share_ppm, span_ms
from simswitch.cli.exits import CommandFailed

NOON = datetime(2026, 3, 21, 12, 0, tzinfo=UTC)
NOON_MS = round(NOON.timestamp() * 1000)
HOUR_MS = 3_600_000


def test_spans_and_instants() -> None:
    assert [span_ms("--x", text) for text in ("90s", "5m", "4h", "2d", "7", "1.5m")] == [
        *(90_000, 300_000, 4 * HOUR_MS, 48 * HOUR_MS, 7_000, 90_000),
    ]
    assert instant_ms("--x", "4h", NOON) == NOON_MS + 4 * HOUR_MS
    assert instant_ms("--x", "2026-03-21T14:00:00+00:00", NOON) == NOON_MS + 2 * HOUR_MS


@pytest.mark.parametrize(
    ("text", "begins_h", "ends_h"),
    [
        ("22:00-07:00 UTC", 10, 19),
        ("11:00-13:00 UTC", -1, 1),
        ("01:00-02:00 UTC", 13, 14),
        # It is 21:00 in Tokyo.
        ("20:00-06:00 Asia/Tokyo", -1, 9),
    ],
)
def test_hours_are_those_that_run_or_come_next(text: str, begins_h: int, ends_h: int) -> None:
    assert hours_ms("--quiet", text, NOON) == (NOON_MS + begins_h * HOUR_MS, NOON_MS + ends_h * HOUR_MS)


def test_shares_and_bytes() -> None:
    assert [share_ppm("--x", text) for text in ("5%", "0.05", "100%", "0")] == [50_000, 50_000, 10**6, 0]
    assert [bytes_of("--x", text) for text in ("5GB", "500MB", "2GiB", "12B", "0")] == [
        5 * 10**9,
        5 * 10**8,
        2 << 30,
        12,
        0,
    ]
    assert bytes_text(61_000_000_000_000) == "61.0 TB"
    assert [bytes_text(count) for count in (999_949_999, 999_950_000, 999_999_999_999, 999_999)] == [
        "999.9 MB",
        "1.0 GB",
        "1.0 TB",
        "999,999 B",
    ]


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (100, "EUR", "1.00 EUR"),
        (2_500_000, "JPY", "2,500,000 JPY"),
        (2_500, "KWD", "2.500 KWD"),
        (2 / 3, "USD", "0.01 USD"),
    ],
)
def test_money_is_told_in_its_unit(minor: float, currency: str, text: str) -> None:
    assert money_text(minor, currency) == text


@pytest.mark.parametrize(
    ("function", "text"),
    [
        *((span_ms, text) for text in ("", "4 hours", "-1s")),
        *((share_ppm, text) for text in ("120%", "1.5", "x")),
        *((bytes_of, text) for text in ("5XB", "GB", "-5GB", "25", "1.5")),
    ],
)
def test_what_is_none_is_refused(function: object, text: str) -> None:
    assert callable(function)
    with pytest.raises(CommandFailed, match="--x takes"):
        function("--x", text)


@pytest.mark.parametrize("text", ["22-07", "25:00-07:00", "07:00-07:00", "22:00-07:00 Nowhere/Else"])
def test_hours_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(CommandFailed, match="--quiet"):
        hours_ms("--quiet", text, NOON)

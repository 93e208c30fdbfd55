"""The definitions file and the CSV of lots: what is taken, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from simswitch.inventory.definitions import Resets, parse_definitions
from simswitch.inventory.lots import read_lots
from simswitch.inventory.problems import FileRefused
from simswitch.toml_lines import TomlDocument, TomlRefused

GOOD = """
[suppliers.blue]
legal_name = "Blue K.K."
[plans.hundred]
carrier = "blue"
windows = [
    { kind = "cycle", quota_bytes = 100, certainty = "contractual" },
    { kind = "rolling", days = 3, quota_bytes = 10, speed_after_bits_per_s = 128_000, pooled = true },
]
low_bytes = 5
[plans.hundred.resets]
closing_day = 31
time_zone = "Asia/Tokyo"
[classes.nationwide]
reserve_count = 7
[markets.tokyo]
classes = ["nationwide"]
expected_bytes = 3
[banks.b1]
slots_count = 512
[access_servers.as-1]
"""


def test_everything_that_is_documented_is_read() -> None:
    definitions = parse_definitions(TomlDocument(GOOD))
    assert definitions.count == 6
    assert definitions.suppliers[0].legal_name == "Blue K.K."
    plan = definitions.plans[0]
    assert [(window.kind, window.days, window.quota_bytes) for window in plan.windows] == [
        ("cycle", 0, 100),
        ("rolling", 3, 10),
    ]
    assert [window.certainty for window in plan.windows] == ["contractual", "believed"]
    assert [window.pooled for window in plan.windows] == [False, True]
    assert (plan.low_bytes, plan.exhausted_bytes) == (5, None)
    assert plan.resets == Resets(closing_day=31, time_zone="Asia/Tokyo")
    assert definitions.classes[0].reserve_count == 7
    assert definitions.markets[0].classes == ("nationwide",)
    assert definitions.banks[0].slots_count == 512
    assert definitions.access_servers[0].name == "as-1"


def test_the_documented_example_is_right() -> None:
    from simswitch.inventory import definitions as module

    text = "\n".join(
        line[4:].split("   ")[0] if line.startswith("    [") or "   " in line[4:].strip() else line[4:]
        for line in (module.__doc__ or "").splitlines()
        if line.startswith("    ")
    )
    assert parse_definitions(TomlDocument(text)).count == 7


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("[suppliers.blue]", "[sellers.blue]", 2, "no such section"),
        ("legal_name", "name", 3, "no such key"),
        ('carrier = "blue"', "", 4, "the key carrier is missing"),
        ('"cycle"', '"week"', 6, "one of cycle, day, rolling"),
        ('kind = "rolling"', 'kind = "cycle"', 6, "0 to 0"),
        ("days = 3, ", "", 6, "the key days is missing"),
        ("quota_bytes = 10,", "quota_bytes = -1,", 6, "0 to"),
        ("low_bytes = 5", "low_bytes = 5\nexhausted_bytes = 6", 11, "lies above low_bytes"),
        ("closing_day = 31", "closing_day = 32", 12, "0 to 31"),
        ("Asia/Tokyo", "Asia/Nowhere", 13, "the name of a time zone"),
        ('time_zone = "Asia/Tokyo"', "spread_seconds = 43_201", 13, "0 to 43,200"),
        ("closing_day = 31", "closes = 31", 12, "no such key"),
        ("[plans.hundred.resets]", "resets = 3\n[plans.other]", 11, "a table belongs here"),
        ('["nationwide"]', "[]", 17, "1 to 12 names"),
        ("slots_count = 512", "slots_count = 65_537", 20, "0 to 65,536"),
        ("[access_servers.as-1]", f"[access_servers.{'x' * 65}]", 21, "this one has 65"),
        ("[access_servers.as-1]", "[access_servers]\nas-1 = 3", 22, "a table belongs here"),
    ],
)
def test_a_wrong_definition_is_refused_with_its_line(old: str, new: str, line: int, words: str) -> None:
    assert old in GOOD
    with pytest.raises(TomlRefused) as caught:
        parse_definitions(TomlDocument(GOOD.replace(old, new), "inventory.toml"))
    assert caught.value.line == line
    assert words in str(caught.value)
    assert str(caught.value).startswith("inventory.toml:")


HEADER = "name,supplier,plan,class,cost_minor,currency,purchase_date,valid_until,payment,check_digit_exempt"
KNOWN = (["blue"], ["hundred"], ["nationwide"])


def lots_file(folder: Path, *lines: str) -> Path:
    path = folder / "lots.csv"
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return path


def test_lots_are_read(tmp_path: Path) -> None:
    path = lots_file(
        tmp_path,
        "spring,blue,hundred,nationwide,1500000,JPY,2026-03-01,2027-02-28,prepaid,yes",
        "autumn,blue,hundred,nationwide,,,,,,",
    )
    spring, autumn = read_lots(path, *KNOWN)
    assert (spring.cost_minor, spring.currency, spring.payment, spring.check_digit_exempt) == (
        1_500_000,
        "JPY",
        "prepaid",
        True,
    )
    assert (autumn.cost_minor, autumn.valid_until, autumn.check_digit_exempt) == (None, "", False)


def test_a_lot_has_its_own_closing_day_and_a_first_day(tmp_path: Path) -> None:
    path = tmp_path / "lots.csv"
    lines = "spring,blue,hundred,nationwide,2026-03-05,2027-02-28,20\nautumn,blue,hundred,nationwide,,,\n"
    path.write_text("name,supplier,plan,class,active_from,valid_until,closing_day\n" + lines, encoding="utf-8")
    spring, autumn = read_lots(path, *KNOWN)
    assert (spring.active_from, spring.closing_day) == ("2026-03-05", 20)
    assert (autumn.active_from, autumn.closing_day) == ("", 0)
    path.write_text(path.read_text().replace("2026-03-05", "2027-03-01").replace(",20", ",32"), encoding="utf-8")
    with pytest.raises(FileRefused) as caught:
        read_lots(path, *KNOWN)
    assert {problem.column for problem in caught.value.problems} == {"active_from", "closing_day"}


@pytest.mark.parametrize(
    ("line", "column"),
    [
        (",blue,hundred,nationwide,,,,,,", "name"),
        ("a,red,hundred,nationwide,,,,,,", "supplier"),
        ("a,blue,thousand,nationwide,,,,,,", "plan"),
        ("a,blue,hundred,local,,,,,,", "class"),
        ("a,blue,hundred,nationwide,1,,,,,", "currency"),
        ("a,blue,hundred,nationwide,1,yen,,,,", "currency"),
        ("a,blue,hundred,nationwide,1.5,JPY,,,,", "cost_minor"),
        ("a,blue,hundred,nationwide,,,1 March,,,", "purchase_date"),
        ("a,blue,hundred,nationwide,,,2026-03-01,2026-02-01,,", "valid_until"),
        ("a,blue,hundred,nationwide,,,,,monthly,", "payment"),
        ("a,blue,hundred,nationwide,,,,,,perhaps", "check_digit_exempt"),
        ("first,blue,hundred,nationwide,,,,,,", "name"),
    ],
)
def test_a_wrong_lot_is_refused_with_line_and_column(tmp_path: Path, line: str, column: str) -> None:
    with pytest.raises(FileRefused) as caught:
        read_lots(lots_file(tmp_path, "first,blue,hundred,nationwide,,,,,,", line), *KNOWN)
    assert [(problem.line, problem.column) for problem in caught.value.problems] == [(3, column)]

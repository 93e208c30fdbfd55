"""The CSV of SIMs: what is taken, and that everything wrong is refused with its line."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simswitch.core import commands
from simswitch.inventory.digits import DigitColumn, luhn_check_digit
from simswitch.inventory.problems import FileRefused, Problem
from simswitch.inventory.sims import COLUMNS, HEALTHS, Known, read_sims

from tests.inventory.card_numbers import iccid, imsi

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
KNOWN = Known(["spring", "odd"], {"odd"}, ["bank-1", "bank-2"], ["as-1"], ["tokyo", "osaka"])
HEADER = [column.name for column in COLUMNS if column.name not in ("line", "problem")]

Write = Callable[..., Path]


def line(number: int, **changes: str) -> str:
    values = dict.fromkeys(HEADER, "")
    values.update(iccid=iccid(number), imsi=imsi(number), lot="spring", bank="bank-1", slot=str(number))
    values.update(changes)
    return ",".join(values[name] for name in HEADER)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def writer(*lines: str, header: str = ",".join(HEADER), name: str = "sims.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return path

    return writer


def problems(path: Path) -> list[Problem]:
    with pytest.raises(FileRefused) as caught:
        read_sims(path, KNOWN, NOW)
    return caught.value.problems


def test_good_lines_become_columns(write: Write) -> None:
    path = write(
        line(1),
        line(2, iccid=iccid(2, 20), lot="odd", bank="bank-2", health="throttled"),
        line(
            3,
            used_cycle_bytes="7",
            used_day_bytes="5",
            used_rolling_bytes="6",
            as_of="2026-03-02T10:00:00Z",
            terminal="18446744073709551615",
            subscriber="9",
            access_server="as-1",
            market="osaka",
        ),
    )
    columns = read_sims(path, KNOWN, NOW).columns
    assert columns.line.tolist() == [2, 3, 4]
    assert [commands.decode_iccid(number) for number in columns.iccid.tolist()] == [iccid(1), iccid(2, 20), iccid(3)]
    assert columns.imsi.tolist() == [int(imsi(number)) for number in (1, 2, 3)]
    assert columns.lot.tolist() == [0, 1, 0]
    assert columns.bank.tolist() == [0, 1, 0]
    assert columns.slot.tolist() == [1, 2, 3]
    assert columns.health.tolist() == [1, 4, 1]
    assert columns.opening_cycle_bytes.tolist() == [0, 0, 7]
    assert columns.opening_day_bytes.tolist() == [0, 0, 5]
    assert columns.opening_rolling_bytes.tolist() == [0, 0, 6]
    assert columns.as_of_s.tolist() == [0, 0, round(datetime.fromisoformat("2026-03-02T10:00:00Z").timestamp())]
    assert columns.terminal.tolist() == [2**64 - 1]
    assert columns.subscriber.tolist() == [9]
    assert columns.market.tolist() == [1]
    assert columns.assigned_line.tolist() == [4]
    assert columns.assigned_iccid.tolist() == [columns.iccid[2]]


def test_columns_may_stand_in_any_order_and_optional_ones_be_left_out(write: Write) -> None:
    path = write(f"3,bank-2,spring,{imsi(1)},{iccid(1)}", header="slot,bank,lot,imsi,iccid")
    columns = read_sims(path, KNOWN, NOW).columns
    assert (columns.slot.tolist(), columns.bank.tolist(), columns.assignments_count) == ([3], [1], 0)


def test_a_byte_order_mark_and_carriage_returns_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "windows.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{','.join(HEADER)}\r\n{line(1)}\r\n".encode())
    assert read_sims(path, KNOWN, NOW).columns.count == 1


@pytest.mark.parametrize(
    ("changes", "column", "words"),
    [
        ({"iccid": iccid(5)[:18]}, "iccid", "this one has 18"),
        ({"iccid": iccid(5, 20) + "1"}, "iccid", "this one has 21"),
        ({"iccid": iccid(5)[:-1] + str((int(iccid(5)[-1]) + 1) % 10)}, "iccid", f"it should be {iccid(5)[-1]}"),
        ({"iccid": "88" + iccid(5)[2:]}, "iccid", "begins with 89"),
        ({"iccid": "8.98E+18"}, "iccid", "nothing but digits"),
        ({"iccid": iccid(5)[:-1] + "\u0665"}, "iccid", "nothing but digits"),
        ({"iccid": ""}, "iccid", "belong here"),
        ({"imsi": "4401"}, "imsi", "14 or 15 digits"),
        ({"imsi": "001010000000001"}, "imsi", "none begins with 0"),
        ({"lot": "autumn"}, "lot", "no such lot"),
        ({"lot": ""}, "lot", "the name of a lot"),
        ({"bank": "bank-9"}, "bank", "no such bank"),
        ({"slot": "65536"}, "slot", "0 to 65,535"),
        ({"slot": ""}, "slot", "0 to 65,535"),
        ({"slot": "-1"}, "slot", "0 to 65,535"),
        ({"used_cycle_bytes": "1e9"}, "used_cycle_bytes", "a whole number"),
        ({"used_cycle_bytes": "5"}, "as_of", "need the instant"),
        (
            {"used_cycle_bytes": "5", "used_day_bytes": "6", "as_of": "2026-03-02T11:00:00Z"},
            "used_day_bytes",
            "says less",
        ),
        ({"as_of": "2026-03-02T10:00:00"}, "as_of", "offset from UTC is missing"),
        ({"as_of": "yesterday"}, "as_of", "an instant such as"),
        ({"as_of": "2026-03-02T12:06:00Z"}, "as_of", "in the future"),
        ({"health": "low"}, "health", "one of healthy"),
        ({"terminal": "18446744073709551616", "access_server": "", "market": ""}, "terminal", "a whole number"),
        ({"terminal": "7", "market": "tokyo"}, "access_server", "the name of an access server"),
        ({"terminal": "7", "access_server": "as-1", "market": "paris"}, "market", "no such market"),
        ({"market": "tokyo"}, "market", "a line without a terminal"),
    ],
)
def test_a_bad_value_refuses_the_file_and_names_line_and_column(
    write: Write, changes: dict[str, str], column: str, words: str
) -> None:
    found = problems(write(line(1), line(5, **changes), line(6)))
    assert [(problem.line, problem.column) for problem in found] == [(3, column)]
    assert words in found[0].text
    assert found[0].value == changes.get(column, "")


def test_a_deviating_check_digit_is_taken_where_the_lot_says_so(write: Write) -> None:
    wrong = iccid(5)[:-1] + str((int(iccid(5)[-1]) + 1) % 10)
    assert read_sims(write(line(5, iccid=wrong, lot="odd")), KNOWN, NOW).columns.count == 1


def test_every_repetition_names_the_line_that_it_repeats(write: Write) -> None:
    held = {"access_server": "as-1", "market": "tokyo"}
    found = problems(
        write(
            line(1, terminal="4", **held),
            line(2),
            line(3, iccid=iccid(1)),
            line(4, imsi=imsi(2)),
            line(5, iccid=iccid(1)),
            line(6, terminal="4", **held),
        )
    )
    assert {(problem.line, problem.column, problem.text.split(";")[0]) for problem in found} == {
        (4, "iccid", "the same iccid stands on line 2"),
        (6, "iccid", "the same iccid stands on line 2"),
        (5, "imsi", "the same imsi stands on line 3"),
        (7, "terminal", "the same terminal stands on line 2"),
    }


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(
        f"{','.join(HEADER)}\n{line(1)}\n".encode() + line(2, lot="fr\u00fchling").encode("latin-1") + b"\n"
    )
    found = problems(path)
    assert [(problem.line, problem.column) for problem in found] == [(3, "lot")]
    assert "not UTF-8" in found[0].text
    assert found[0].render(path).startswith(f"{path}:3: lot: ")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xfei\0c\0", "UTF-16"),
        (b"iccid,imsi,lot,bank,slot\n1,2,3\0,4,5\n", "NUL"),
        (b"iccid,imsi,lot,bank\n", "the column is missing"),
        (b"iccid,imsi,lot,bank,slot,colour\n", "no such column"),
        (b"iccid,imsi,lot,bank,slot,slot\n", "stands twice"),
        (b"", "the column is missing"),
        (b"iccid,imsi,lot,bank,slot\n", "no SIM in the file"),
        (b'iccid,imsi,lot,bank,slot\n"1,2,3,4,5\n', "not CSV"),
        (b"iccid,imsi,lot,bank,slot\n" + b"1" * 2_000 + b",2,3,4,5\n", "not CSV"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "sims.csv"
    path.write_bytes(data)
    assert any(words in problem.text for problem in problems(path))


def test_lines_with_another_number_of_fields_and_line_breaks_inside_quotes_keep_the_line_count(write: Write) -> None:
    broken = line(4, lot='"spr\ning"')
    path = write(line(1), "", "a,b", line(2), broken, line(3, lot="autumn"))
    found = problems(path)
    assert [(problem.line, problem.column) for problem in found] == [(4, ""), (6, ""), (8, "lot")]
    assert "2 fields" in found[0].text
    assert "line break" in found[1].text


def test_partial_takes_the_good_lines_and_writes_the_others_with_why(write: Write, tmp_path: Path) -> None:
    bad = line(2, lot="autumn", slot="x")
    path = write(line(1), bad, line(3, iccid=iccid(1)), line(4))
    reading = read_sims(path, KNOWN, NOW, partial=True)
    assert reading.columns.line.tolist() == [2, 5]
    target = tmp_path / "rejected.csv"
    assert reading.table.write_rejected(target, reading.table.bad_lines) == 2
    rows = target.read_text(encoding="utf-8").splitlines()
    assert rows[0] == f"{','.join(HEADER)},line,problem"
    assert rows[1].startswith(f'{bad},3,"lot: no such lot')
    assert "slot: a whole number" in rows[1]
    assert ",4,iccid: the same iccid stands on line 2" in rows[2]
    # It can be mended and given back as it is.
    mended = target.with_name("mended.csv")
    mended.write_text("\n".join([rows[0], f"{line(9)},3,mended"]) + "\n", encoding="utf-8")
    assert read_sims(mended, KNOWN, NOW).columns.count == 1


def test_the_day_balance_of_an_earlier_day_is_not_taken(write: Write) -> None:
    used = {"used_cycle_bytes": "9", "used_day_bytes": "5"}
    path = write(
        line(1, as_of="2026-03-01T23:00:00Z", **used),
        line(2, as_of="2026-03-02T01:00:00+09:00", **used),  # in its offset it is the evening of the 2nd now
        line(3, as_of="2026-03-01T22:00:00-10:00", **used),  # in its offset it is 2 o'clock of the 2nd now
    )
    reading = read_sims(path, KNOWN, NOW)
    assert reading.columns.opening_day_bytes.tolist() == [0, 5, 0]
    assert reading.columns.opening_cycle_bytes.tolist() == [9, 9, 9]
    assert any("2 SIMs have used_day_bytes of an earlier day" in note for note in reading.notes)


def test_the_cycles_balance_is_of_the_cycle_that_runs_and_no_less_than_that_of_the_days_in_it(write: Write) -> None:
    """The cycle of spring began on 20 February and its rolling days are three; of odd nobody says."""
    known = Known(
        ["spring", "odd"], (), ["bank-1"], cycle_begun_s={"spring": 1_771_545_600}, rolling_days={"spring": 3}
    )
    used = {"used_cycle_bytes": "9", "used_rolling_bytes": "10"}
    path = write(
        line(1, as_of="2026-02-19T23:59:59Z", **used),
        line(2, as_of="2026-02-22T00:00:00Z", **used),  # one of the days was of the cycle before
        line(3, as_of="2026-03-02T00:00:00Z", **used),
        line(4, as_of="2026-02-27T12:00:00Z", used_rolling_bytes="10"),
        line(5, as_of="2026-02-27T11:59:59Z", used_rolling_bytes="10"),
        line(6, as_of="2026-02-19T23:59:59Z", lot="odd", **used),
    )
    reading = read_sims(path, known, NOW, partial=True)
    assert reading.columns.opening_cycle_bytes.tolist() == [0, 9, 0, 0, 9]
    assert reading.columns.opening_rolling_bytes.tolist() == [0, 0, 10, 0, 10]
    assert any("3 SIMs have used_rolling_bytes of days that have all left the window" in note for note in reading.notes)
    assert [(problem.line, problem.column) for problem in reading.table.problems] == [(4, "used_rolling_bytes")]
    assert any("1 SIMs have used_cycle_bytes of a cycle that is over" in note for note in reading.notes)


def test_a_large_file_is_read_in_chunks_and_the_last_line_is_checked_against_the_first(write: Write) -> None:
    lines = [line(number, slot="1") for number in range(70_000)]
    found = problems(write(*lines, line(0, slot="1")))
    assert {(problem.line, problem.column) for problem in found} == {(70_002, "iccid"), (70_002, "imsi")}


def naive_luhn(digits: str) -> bool:
    values = [int(digit) for digit in reversed(digits)]
    doubled = [sum(divmod(value * 2, 10)) if place % 2 else value for place, value in enumerate(values)]
    return sum(doubled) % 10 == 0


@given(st.lists(st.text("0123456789", min_size=1, max_size=22), min_size=1, max_size=20))
@settings(max_examples=200)
def test_columns_of_digits_agree_with_plain_python(texts: list[str]) -> None:
    column = DigitColumn(texts)
    assert column.length.tolist() == [len(text) for text in texts]
    assert (column.luhn_remainder() == 0).tolist() == [naive_luhn(text) for text in texts]
    numbers, fits = column.numbers()
    assert fits.tolist() == [len(text) <= 20 and int(text) < 2**64 for text in texts]
    assert numbers.tolist() == [int(text) if fit else 0 for text, fit in zip(texts, fits, strict=True)]


@given(st.text("0123456789", min_size=1, max_size=19))
def test_the_check_digit_makes_the_luhn_sum_right(body: str) -> None:
    assert naive_luhn(body + str(luhn_check_digit(body)))


@given(st.lists(st.text(max_size=24), min_size=1, max_size=10))
def test_only_ascii_digits_count_as_digits(texts: list[str]) -> None:
    texts = [text.replace("\0", "x") for text in texts]
    column = DigitColumn(texts)
    assert column.decimal.tolist() == [text == "" or (text.isascii() and text.isdigit()) for text in texts]


def test_random_damage_never_gets_through_unnoticed(write: Write) -> None:
    """Whatever single character of an ICCID is changed to another digit, the file is refused: Luhn sees every one."""
    random_numbers = random.Random(7)
    good = [iccid(number, random_numbers.choice((19, 20))) for number in range(50)]
    damaged = []
    for digits in good:
        place = random_numbers.randrange(2, len(digits))
        other = random_numbers.choice([digit for digit in "0123456789" if digit != digits[place]])
        damaged.append(digits[:place] + other + digits[place + 1 :])
    found = problems(write(*(line(number, iccid=digits) for number, digits in enumerate(damaged))))
    assert [problem.line for problem in found if problem.column == "iccid"] == list(range(2, 52))


def test_the_healths_are_those_of_the_contract() -> None:
    from simswitch.v1 import sim_pb2

    assert {f"HEALTH_{word.upper()}": number for word, number in HEALTHS.items()}.items() <= dict(
        sim_pb2.Health.items()
    ).items()
    assert np.uint8(max(HEALTHS.values())) == max(HEALTHS.values())

"""A carrier portal's CSV: how amounts are written, which columns say what, and every bad line by its name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from simswitch.core.commands import encode_iccid
from simswitch.inventory.carrier_usage import Format, amount_bytes, read_carrier_usage, read_format
from simswitch.inventory.problems import FileRefused

AS_OF = datetime(2026, 3, 21, 0, 0, tzinfo=UTC)
ICCID = "8981100000000000015"
OTHER = "8981100000000000023"


@pytest.mark.parametrize(
    ("text", "unit", "comma", "wanted"),
    [
        ("0", "B", False, 0),
        ("1234", "B", False, 1_234),
        ("1.5", "GB", False, 1_500_000_000),
        ("1,234.5", "MB", False, 1_234_500_000),
        ("1.234,5", "MB", True, 1_234_500_000),
        ("1 234,5 MB", "B", True, 1_234_500_000),
        ("1\u202f234,5\u00a0MB", "B", True, 1_234_500_000),
        ("12'345 KiB", "B", False, 12_345 * 1024),
        ("0.0000001", "MB", False, 1),
        ("2 gib", "MB", False, 2 << 30),
        ("-7", "B", False, -7),
        ("7 bytes", "GB", False, 7),
    ],
)
def test_amounts_are_read_as_they_are_written(text: str, unit: str, comma: bool, wanted: int) -> None:
    assert amount_bytes(text, unit, decimal_comma=comma) == wanted


@pytest.mark.parametrize(
    ("text", "comma", "why"),
    [
        ("", False, "no amount"),
        ("n/a", False, "no amount"),
        ("1,5", False, "with a decimal comma"),
        ("1.5", True, "without a decimal comma"),
        ("1.2.3", False, "decimal comma"),
        ("12,34,567", False, "decimal comma"),
        ("3 PB", False, "no unit 'PB'"),
        ("9" * 30, False, "more than anybody can use"),
    ],
)
def test_what_is_no_amount_is_refused_and_never_guessed(text: str, comma: bool, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        amount_bytes(text, "B", decimal_comma=comma)


def test_a_mapping_names_columns_and_a_unit_each_once() -> None:
    wanted = Format(iccid="ICC-ID", used="Data used", unit="MB", as_of="Stand")
    assert read_format("iccid=ICC-ID, used=Data used ,unit=MB,as_of=Stand") == wanted
    for wrong in ("", "iccid=a", "used=b", "iccid=a,imsi=b,used=c", "iccid=a,used=b,unit=PB", "iccid=a,iccid=b,used=c"):
        with pytest.raises(ValueError, match=r"column|unit|none of"):
            read_format(wrong)


def portal(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "portal.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_a_portals_file_is_read_with_the_columns_that_nobody_needs(tmp_path: Path) -> None:
    spaced = f"{ICCID[:4]} {ICCID[4:]}"
    file = portal(tmp_path, "Tarif;ICC-ID;Verbrauch;Tarif", f"a;{spaced};1.024,5;x", f"b;{OTHER};2 GB;y")
    written = read_format("iccid=ICC-ID,used=Verbrauch,unit=MB", delimiter=";", decimal_comma=True)
    figures = read_carrier_usage(file, written, AS_OF)
    assert figures.sim == [encode_iccid(ICCID), encode_iccid(OTHER)]
    assert figures.carrier_bytes == [1_024_500_000, 2_000_000_000]
    assert figures.as_of_s == [int(AS_OF.timestamp())] * 2
    assert figures.line == [2, 3]


def test_lines_may_have_their_own_units(tmp_path: Path) -> None:
    lines = ("kb", "MB", " GB ", "bytes", "GiB", "")
    file = portal(tmp_path, "imsi,used,unit", *(f"44010000000000{row},2,{unit}" for row, unit in enumerate(lines)))
    with pytest.raises(FileRefused) as refused:
        read_carrier_usage(file, read_format("imsi=imsi,used=used,unit_column=unit"), AS_OF)
    assert [(each.line, each.column) for each in refused.value.problems] == [(7, "used")]
    assert "nothing names its unit" in refused.value.problems[0].text
    figures = read_carrier_usage(file, read_format("imsi=imsi,used=used,unit_column=unit,unit=TB"), AS_OF)
    assert figures.carrier_bytes == [2_000, 2_000_000, 2_000_000_000, 2, 2 << 30, 2_000_000_000_000]
    # A unit that nobody knows, and an amount that names another one than its line.
    file = portal(
        tmp_path, "imsi,used,unit", "440100000000001,2,PB", "440100000000002,2 MB,GB", "440100000000003,2 MB,mb"
    )
    with pytest.raises(FileRefused) as refused:
        read_carrier_usage(file, read_format("imsi=imsi,used=used,unit_column=unit"), AS_OF)
    assert [(each.line, each.column, each.value) for each in refused.value.problems] == [
        (2, "unit", "PB"),
        (3, "used", "2 MB"),
    ]
    assert "there is no unit 'PB'" in refused.value.problems[0].text
    assert "in MB, and its line says GB" in refused.value.problems[1].text


def test_lines_may_have_their_own_instants_and_sims_their_imsi(tmp_path: Path) -> None:
    file = portal(tmp_path, "imsi,used,at", "440100000000001,5,2026-03-20T09:00+09:00", "440100000000001,9,2026-03-21Z")
    with pytest.raises(FileRefused):
        read_carrier_usage(file, read_format("imsi=imsi,used=used,as_of=at"), None)
    file = portal(tmp_path, "imsi,used,at", "440100000000001,5,2026-03-20T09:00+09:00")
    figures = read_carrier_usage(file, read_format("imsi=imsi,used=used,as_of=at"), None)
    assert (figures.sim, figures.as_of_s) == ([440_100_000_000_001], [int(AS_OF.timestamp()) - 86_400])


def test_each_bad_line_is_named_and_the_others_can_be_had(tmp_path: Path) -> None:
    file = portal(tmp_path, "iccid,used", f"{ICCID},5", "123,5", f"{OTHER},much", f"{ICCID},7", f"{OTHER},1,2")
    written = read_format("iccid=iccid,used=used")
    with pytest.raises(FileRefused) as refused:
        read_carrier_usage(file, written, AS_OF)
    found = {(problem.line, problem.column) for problem in refused.value.problems}
    assert found == {(3, "iccid"), (4, "used"), (5, "iccid"), (6, "")}
    assert any("stands on line 2 already" in problem.text for problem in refused.value.problems)
    figures = read_carrier_usage(file, written, AS_OF, partial=True)
    assert (figures.line, figures.carrier_bytes) == ([2], [5])
    target = tmp_path / "rejected.csv"
    assert figures.table.write_rejected(target, figures.table.bad_lines) == 4
    assert target.read_text(encoding="utf-8").splitlines()[0] == "iccid,used,line,problem"


def test_a_file_without_the_column_or_without_a_figure_is_refused(tmp_path: Path) -> None:
    written = read_format("iccid=ICC-ID,used=used")
    with pytest.raises(FileRefused) as refused:
        read_carrier_usage(portal(tmp_path, "iccid,used", f"{ICCID},5"), written, AS_OF)
    assert refused.value.problems[0].column == "ICC-ID"
    with pytest.raises(FileRefused):
        read_carrier_usage(portal(tmp_path, "ICC-ID,used"), written, AS_OF)

"""A carrier portal's CSV: how amounts are written, which columns say what, and every bad line by its name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from simswitch.core.commands import encode_iccid
from simswitch.inventory.carrier_usage import (
    Format,
    amount_bytes,
    read_carrier_usage,
    read_format,
    read_instant,
    read_zone,
)
from simswitch.inventory.problems import FileRefused
from simswitch.inventory.table import TITLES_MAX

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
        ("2 mb", "B", False, 2_000_000),
        ("-7", "B", False, -7),
        ("7 bytes", "GB", False, 7),
        # Full-width digits, letters and signs.
        ("\uff11\uff12\uff13", "MB", False, 123_000_000),
        ("1\uff12", "MB", False, 12_000_000),
        ("12\uff10\u3000\uff2d\uff22", "B", False, 120_000_000),
        ("\uff0d1\uff0c234\uff0e5", "MB", False, -1_234_500_000),
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
        ("5 Mbit", False, "no unit 'Mbit'"),
        ("5 Mb", False, "Mb may be bits or bytes; where it is bytes write MB"),
        ("5 Kb", False, "Kb may be bits or bytes; where it is bytes write KB"),
        ("5 Gib", False, "Gib may be bits or bytes; where it is bytes write GiB"),
        ("9" * 30, False, "more than anybody can use"),
        # Digits of other scripts, and such as stand above or in a circle.
        ("\u0663 GB", False, "no amount"),
        ("1\u0662", False, "no amount"),
        ("12\u00b2", False, "no amount"),
        ("\u2460", False, "no amount"),
    ],
)
def test_what_is_no_amount_is_refused_and_never_guessed(text: str, comma: bool, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        amount_bytes(text, "B", decimal_comma=comma)


def test_a_mapping_names_columns_and_a_unit_each_once() -> None:
    comma = read_format('iccid=ICC-ID, "used=used, total (MB)",unit=MB')
    assert (comma.iccid, comma.used, comma.unit) == ("ICC-ID", "used, total (MB)", "MB")
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


@pytest.mark.parametrize(
    ("title", "unit"),
    [
        ("\u5229\u7528\u91cf(MB)", 1_000_000),
        ("\u5229\u7528\u91cf\uff08\uff27\uff22\uff09", 1_000_000_000),
        ("Volume [GiB]", 1 << 30),
        ("Used MB", 1_000_000),
        ("used_bytes", 1),
        ("Bytes", 1),
        ("Data (new) (kB)", 1_000),
        ("Volume (B)", 1),
        # None of these does.
        ("Used", 0),
        ("Plan B", 0),
        ("Data (new)", 0),
        ("MB used", 0),
        ("thumb", 0),
    ],
)
def test_a_columns_title_may_name_the_unit_and_where_nothing_does_an_amount_is_refused(
    tmp_path: Path, title: str, unit: int
) -> None:
    file = portal(tmp_path, f"ICCID,{title}", f"{ICCID},123", f"{OTHER},0.0")
    written = read_format(f"iccid=ICCID,used={title}")
    if unit:
        assert read_carrier_usage(file, written, AS_OF).carrier_bytes == [123 * unit, 0]
    else:
        with pytest.raises(FileRefused) as refused:
            read_carrier_usage(file, written, AS_OF)
        (problem,) = refused.value.problems
        assert (problem.line, problem.value) == (2, "123")
        assert "say it, such as unit=MB, or unit=B" in problem.text
    # What somebody says is what counts.
    said = read_format(f"iccid=ICCID,used={title},unit=TB")
    assert read_carrier_usage(file, said, AS_OF).carrier_bytes == [123 * 10**12, 0]


def test_lines_may_have_their_own_instants_and_sims_their_imsi(tmp_path: Path) -> None:
    file = portal(tmp_path, "imsi,used,at", "440100000000001,5,2026-03-20T09:00+09:00", "440100000000001,9,2026-03-21Z")
    with pytest.raises(FileRefused):
        read_carrier_usage(file, read_format("imsi=imsi,used=used,unit=B,as_of=at"), None)
    file = portal(tmp_path, "imsi,used,at", "440100000000001,5,2026-03-20T09:00+09:00")
    figures = read_carrier_usage(file, read_format("imsi=imsi,used=used,unit=B,as_of=at"), None)
    assert (figures.sim, figures.as_of_s) == ([440_100_000_000_001], [int(AS_OF.timestamp()) - 86_400])


@pytest.mark.parametrize(
    ("text", "zone", "wanted"),
    [
        ("2026-03-21T07:00+09:00", "", "2026-03-20T22:00Z"),
        ("2026-03-21T07:00Z", "Asia/Tokyo", "2026-03-21T07:00Z"),
        ("2026-03-21T07:00", "Asia/Tokyo", "2026-03-20T22:00Z"),
        ("2026-03-21 07:00:30", "+09:00", "2026-03-20T22:00:30Z"),
        ("2026/11/26 02:50", "Asia/Tokyo", "2026-11-25T17:50Z"),
        ("2026/3/1 2:50", "-0530", "2026-03-01T08:20Z"),
        ("\uff12\uff10\uff12\uff16\uff0f11\uff0f26\u300002\uff1a50", "UTC", "2026-11-26T02:50Z"),
        ("2026\u5e7411\u670826\u65e5 02:50", "Asia/Tokyo", "2026-11-25T17:50Z"),
        ("25.11.2026 00:00", "Europe/Berlin", "2026-11-24T23:00Z"),
        ("25.11.2026", "UTC", "2026-11-25T00:00Z"),
        # Comes twice: the first.
        ("2026-10-25 02:30", "Europe/Berlin", "2026-10-25T00:30Z"),
    ],
)
def test_instants_are_read_as_portals_write_them(text: str, zone: str, wanted: str) -> None:
    assert read_instant(text, read_zone(zone) if zone else None) == datetime.fromisoformat(wanted)


@pytest.mark.parametrize(
    ("text", "zone", "why"),
    [
        # Read in the zone of this machine, such a figure would be hours off, and headroom too high.
        ("2026-03-21T07:00", "", "offset from UTC is missing.*--zone"),
        ("2026/03/21 07:00", "", "offset from UTC is missing"),
        ("03/04/2026 07:00", "UTC", "whether the day or the month comes first"),
        ("25/11/2026", "UTC", "whether the day or the month comes first"),
        ("2026-03-29 02:30", "Europe/Berlin", "clocks in Europe/Berlin left this hour out"),
        ("2026/13/01", "UTC", "no instant"),
        ("2026/11-26", "UTC", "no instant"),
        ("26/11/26", "UTC", "no instant"),
        ("2026-11-26 02:50 PM", "UTC", "no instant"),
        ("yesterday", "UTC", "no instant"),
        ("", "UTC", "no instant"),
        ("0001-01-01 00:00", "Asia/Tokyo", "no instant"),
    ],
)
def test_an_instant_that_could_be_another_is_refused(text: str, zone: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_instant(text, read_zone(zone) if zone else None)


def test_a_zone_that_there_is_not_is_refused() -> None:
    for wrong in ("Tokyo", "+25:00", "JST", "../etc/passwd", ""):
        with pytest.raises(ValueError, match="no time zone"):
            read_zone(wrong)


def test_a_files_instants_are_of_the_zone_that_is_said(tmp_path: Path) -> None:
    file = portal(tmp_path, "iccid,used,at", f"{ICCID},5,2026/03/21 9:00")
    with pytest.raises(FileRefused) as refused:
        read_carrier_usage(file, read_format("iccid=iccid,used=used,unit=B,as_of=at"), None)
    assert [(each.line, each.column) for each in refused.value.problems] == [(2, "at")]
    written = read_format("iccid=iccid,used=used,unit=B,as_of=at", zone=read_zone("Asia/Tokyo"))
    assert read_carrier_usage(file, written, None).as_of_s == [int(AS_OF.timestamp())]


def test_a_file_may_be_of_another_encoding(tmp_path: Path) -> None:
    name = "\u5229\u7528\u91cf(MB)"
    file = portal(tmp_path)
    file.write_text(f"ICCID,{name}\n{ICCID},\uff11\uff12\n{OTHER},\u591a\n", encoding="cp932")
    columns = f"iccid=ICCID,used={name}"
    with pytest.raises(FileRefused) as refused:
        read_carrier_usage(file, read_format(columns), AS_OF)
    assert "the header is not UTF-8: save the file as UTF-8, or name its --encoding" in refused.value.problems[0].text
    figures = read_carrier_usage(file, read_format(columns, encoding="cp932"), AS_OF, partial=True)
    assert figures.carrier_bytes == [12_000_000]
    target = tmp_path / "rejected.csv"
    assert figures.table.write_rejected(target, figures.table.bad_lines) == 1
    assert f"{OTHER},\u591a,3" in target.read_text(encoding="cp932")


def test_numbers_as_spreadsheets_keep_them_are_read(tmp_path: Path) -> None:
    file = portal(tmp_path, "ICCID,Used", f'="{ICCID}",5', f"'{OTHER},7")
    assert read_carrier_usage(file, read_format("iccid=ICCID,used=Used,unit=B"), AS_OF).sim == [
        encode_iccid(ICCID),
        encode_iccid(OTHER),
    ]


def test_the_same_line_again_changes_nothing(tmp_path: Path) -> None:
    file = portal(tmp_path, "iccid,used", f"{ICCID},5 MB", f"{OTHER},7", f"{ICCID},5000 kB")
    figures = read_carrier_usage(file, read_format("iccid=iccid,used=used,unit=B"), AS_OF)
    assert (figures.line, figures.carrier_bytes, figures.repeated_count) == ([2, 3], [5_000_000, 7], 1)


def test_each_bad_line_is_named_and_the_others_can_be_had(tmp_path: Path) -> None:
    file = portal(tmp_path, "iccid,used", f"{ICCID},5", "123,5", f"{OTHER},much", f"{ICCID},7", f"{OTHER},1,2")
    written = read_format("iccid=iccid,used=used,unit=B")
    with pytest.raises(FileRefused) as refused:
        read_carrier_usage(file, written, AS_OF)
    found = {(problem.line, problem.column) for problem in refused.value.problems}
    assert found == {(3, "iccid"), (4, "used"), (5, "iccid"), (6, "")}
    assert any("line 2 says another amount" in problem.text for problem in refused.value.problems)
    figures = read_carrier_usage(file, written, AS_OF, partial=True)
    assert (figures.line, figures.carrier_bytes) == ([2], [5])
    target = tmp_path / "rejected.csv"
    assert figures.table.write_rejected(target, figures.table.bad_lines) == 4
    assert target.read_text(encoding="utf-8").splitlines()[0] == "iccid,used,line,problem"


def test_lines_of_a_title_may_stand_above_the_header(tmp_path: Path) -> None:
    titles = ["Data usage, all lines", '"Account",0042', "", "As of,2026-03-21"]
    file = portal(tmp_path, *titles, "ICCID,Used", f"{ICCID},5", f"{OTHER},much")
    written = read_format("iccid=iccid,used=used,unit=B")
    figures = read_carrier_usage(file, written, AS_OF, partial=True)
    assert (figures.line, figures.carrier_bytes, list(figures.table.bad_lines)) == ([6], [5], [7])
    target = tmp_path / "rejected.csv"
    assert figures.table.write_rejected(target, figures.table.bad_lines) == 1
    assert [line.split(",")[0] for line in target.read_text(encoding="utf-8").splitlines()] == ["ICCID", OTHER]
    # Without the column the line that comes nearest is named; so far down nobody's header stands.
    with pytest.raises(FileRefused) as refused:
        read_carrier_usage(file, read_format("iccid=iccid,used=Bytes"), AS_OF)
    (problem,) = refused.value.problems
    assert (problem.line, problem.column, 'there are "ICCID", "Used"' in problem.text) == (5, "Bytes", True)
    file = portal(tmp_path, *["title"] * (TITLES_MAX + 1), "iccid,used", f"{ICCID},5")
    with pytest.raises(FileRefused) as refused:
        read_carrier_usage(file, written, AS_OF)
    assert {problem.column for problem in refused.value.problems} == {"iccid", "used"}


def test_a_file_without_the_column_or_without_a_figure_is_refused(tmp_path: Path) -> None:
    written = read_format("iccid=ICC-ID,used=used,unit=B")
    with pytest.raises(FileRefused) as refused:
        read_carrier_usage(portal(tmp_path, "iccid,used", f"{ICCID},5"), written, AS_OF)
    assert refused.value.problems[0].column == "ICC-ID"
    assert 'there are "iccid", "used"' in refused.value.problems[0].text
    # Capitals don't matter, unless there are both.
    found = read_carrier_usage(portal(tmp_path, "Icc-id , USED", f"{ICCID},5"), written, AS_OF)
    assert found.carrier_bytes == [5]
    found = read_carrier_usage(portal(tmp_path, "icc-id,USED,used", f"{ICCID},5,6"), written, AS_OF)
    assert found.carrier_bytes == [6]
    with pytest.raises(FileRefused):
        read_carrier_usage(portal(tmp_path, "ICC-ID,used"), written, AS_OF)


def test_a_figure_of_all_sims_of_a_lot_is_named_by_its_lot(tmp_path: Path) -> None:
    file = portal(tmp_path, "contract,used", " gold ,5", "silver,1", "gold,5", "silver,2", ",3")
    written = read_format("lot=contract,used=used,unit=MB")
    figures = read_carrier_usage(file, written, AS_OF, partial=True)
    assert (figures.lot, figures.sim, figures.carrier_bytes) == (["gold", "silver"], [], [5_000_000, 1_000_000])
    assert figures.repeated_count == 1
    assert [(problem.line, problem.text) for problem in figures.table.problems] == [
        (5, "line 3 says another amount of the lot at the same instant; leave one out"),
        (6, "the lot's name is missing"),
    ]
    every = read_carrier_usage(portal(tmp_path, "used", "7"), read_format("used=used,unit=B", of_lot="gold"), AS_OF)
    assert (every.lot, every.carrier_bytes) == (["gold"], [7])
    for columns, of_lot in (("used=used", ""), ("lot=a,iccid=b,used=c", ""), ("lot=a,used=c", "gold")):
        with pytest.raises(ValueError, match=r"say which column|all lines are of the lot"):
            read_format(columns, of_lot=of_lot)

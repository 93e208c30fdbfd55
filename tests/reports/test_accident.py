"""Accidents by the rules, and the report about one, out of a history that a real cell and its follower made."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from simswitch.cell import Capacity, Cell, JournalSettings, VirtualClock
from simswitch.core import commands, layout
from simswitch.history.projector import Projector
from simswitch.journal.disk import RealDisk
from simswitch.journal.follower import Follower, FollowerSettings
from simswitch.reports.accident import (
    Facts,
    Minute,
    Span,
    day_words,
    judge,
    read_facts,
    spans,
)
from simswitch.reports.rendering import Report, Section, Text, both, html, markdown
from simswitch.reports.rules import RuleSet, read_rules, shipped
from simswitch.toml_lines import TomlRefused

from tests.cell.small_pool import allocate, fill

TOKYO = ZoneInfo("Asia/Tokyo")
EXAMPLE = Path(__file__).parents[2] / "examples" / "accident-2020.toml"
DATES = ((2, 21), (2, 24), (3, 6), (3, 9), (3, 12), (3, 15), (3, 16), (3, 18), (3, 19), (3, 20), (3, 21))
"""The eleven dates of 2020; the hours of the day and each date's share of the 9 h 24 min are assumed."""
MINUTES = (51,) * 10 + (54,)
SIMS = 40


def rules() -> RuleSet:
    return read_rules(shipped()["jp-2020"])


def facts(**changes: object) -> Facts:
    return replace(read_facts(EXAMPLE), **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool that is taken, and on each of the dates terminals that ask once a minute and get nothing."""
    folder = tmp_path_factory.mktemp("accident") / "data"
    begins = [round(datetime(2020, month, day, 18, tzinfo=TOKYO).timestamp() * 1000) for month, day in DATES]
    clock = VirtualClock(begins[0] - 3_600_000)
    cell = Cell.open(folder, capacity=Capacity(200, 2_000, 100), journal=JournalSettings(1 << 20, 0), clock=clock)
    fill(cell.step, SIMS)
    granted = commands.outcome_runs(cell.step(allocate(1, SIMS)).data)[0]["status"]
    assert set(granted.tolist()) == {layout.OK}
    for begin_ms, minutes in zip(begins, MINUTES, strict=True):
        clock.advance(begin_ms - clock.now_ms())
        for _ in range(minutes):
            # The same seven each time: whoever is refused again is not one more, nor whoever has several terminals.
            refused = commands.outcome_runs(cell.step(allocate(1_001, 7, [1, 1, 1, 2, 2, 0, 0])).data)[0]["status"]
            assert set(refused.tolist()) == {layout.NO_HEALTHY_SIM}
            clock.advance(60_000)
    never = FollowerSettings(replay_s=1e9, bytes_max=1 << 60, interval_s=1e9)
    following = Follower(RealDisk(folder), settings=never, readers=[lambda: Projector(folder)])
    following.finish(read_on=True)
    following.close()
    cell.close()
    return folder


def run(folder: Path, *words: str | Path, facts: Path = EXAMPLE) -> subprocess.CompletedProcess[str]:
    span = ["--from", "2020-02-01", "--to", "2020-04-01"]
    command = [sys.executable, "-m", "simswitch", "report", "accident", folder, "--facts", facts, *span, *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_the_table_of_the_incident(folder: Path) -> None:
    done = run(folder)
    assert done.returncode == 0, done.stderr
    japanese = done.stdout
    for label in ("事業者名", "影響地域", "事業者への問合せ件数", "障害内容", "発生原因", "再発防止策", "情報周知"):
        assert f"| {label} |" in japanese
    dates = re.search(r"\| 発生日時 \| (.*?)<br><small>", japanese)
    assert dates is not None
    assert dates[1].split("<br>") == [f"令和2年{month}月{day}日" for month, day in DATES]
    assert "| 継続時間 | 9時間24分<br>うち停止(割当失敗) 9時間24分、品質低下のみ 0時間00分<br>" in japanese
    assert "| 影響利用者数 | 30,000以上(" in japanese
    assert "記録された利用者数: 4(うち利用者不明の端末 2)<br>" in japanese
    assert "電話 97,660 件<br>Webフォーム 138,340 件<br>(令和2年5月19日時点)" in japanese
    assert "重大な事故に該当する(2時間以上かつ30,000人以上)。" in japanese
    assert "詳細報告は令和2年3月22日まで。" in japanese
    assert "| as-01 | 3,948 | 0 | - | 0.0 h |" in japanese
    assert "| 2020-02-21 | 18:00 | 18:51 | 0時間51分 | 0時間51分 | 357 | 0 | 0 |" in japanese


def test_in_english_counted_and_as_a_page(folder: Path, tmp_path: Path) -> None:
    counted = tmp_path / "facts.toml"
    counted.write_text(EXAMPLE.read_text(encoding="utf-8").replace('"deemed"', '"counted"'), encoding="utf-8")
    page = tmp_path / "report.html"
    done = run(folder, "--language", "en", "--html", page, facts=counted)
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert "<p>9 h 24 min</p>" in text
    assert "<p>4 (of these 2 terminals of which nobody knows the user)</p>" in text
    assert "Not a serious accident." in text
    assert "In the quarterly report, by 31 May 2020." in text
    # Each figure that was counted says from what.
    assert text.count("refusals, waits and slowed, minutes ") >= 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--zone", "Asia/Nowhere"), "there is no time zone 'Asia/Nowhere'"),
        (("--zone", "Asia"), "there is no time zone 'Asia'"),
        (("--rules", "jp-1999"), "jp-1999 can't be read: No such file or directory; shipped are jp-2020"),
        (("--to", "2020-01-01"), "is not before --to"),
        (("--from", "2020-03-25"), "service was neither stopped nor degraded in this time"),
    ],
)
def test_what_is_asked_wrongly_is_said(folder: Path, words: tuple[str, ...], says: str) -> None:
    done = run(folder, *words)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert not done.stdout


def test_a_folder_without_history_is_said(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1
    assert "there is no history yet" in done.stderr


@pytest.mark.parametrize(
    ("number", "hours", "users", "serious"),
    [
        (1, 1.0, 30_000, True), (1, 0.99, 30_000, False), (1, 1.0, 29_999, False),
        (2, 2.0, 30_000, True), (2, 1.0, 30_000, False), (2, 1.0, 100_000, True),
        (3, 12.0, 30_000, True), (3, 11.9, 999_999, False), (3, 2.0, 1_000_000, True),
        (4, 24.0, 100_000, True), (4, 23.9, 100_000, False), (4, 12.0, 1_000_000, True),
        (5, 2.0, 30_000, True), (5, 1.9, 30_000, False), (5, 1.0, 1_000_000, True), (5, 9.4, 29_999, False),
    ],
)  # fmt: skip
def test_thresholds_of_2020(number: int, hours: float, users: int, serious: bool) -> None:
    assert (rules().judge(number, hours * 3600, users, date(2020, 2, 21)).met is not None) is serious


def test_deadlines() -> None:
    assert rules().judge(5, 9.4 * 3600, 30_000, date(2020, 2, 21)).report_by == date(2020, 3, 22)
    assert rules().judge(5, 60, 30_000, date(2020, 11, 2)).quarterly_by == date(2021, 2, 28)
    small = rules().judge(5, 60, 5, date(2020, 11, 2))
    assert (small.report_by, small.quarterly_by) == (None, None)
    with pytest.raises(ValueError, match="rule set jp-2020 has no class 6; it has 1, 2, 3, 4, 5"):
        rules().judge(6, 1, 1, date(2020, 1, 1))


def test_minutes_are_joined_over_ten_without_trouble_and_not_over_eleven() -> None:
    found = {100: Minute(5), 101: Minute(0, 5), 110: Minute(slowed=7), 120: Minute(2, slowed=3)}
    assert spans(found) == [Span(100, 120, 3, 7, 5, 7)]
    assert spans({100: Minute(5), 111: Minute(late=True)}) == [Span(100, 100, 1, 5, 0, 0), Span(111, 111, 0, 0, 0, 0)]
    assert spans({}) == []


def test_a_rule_set_of_another_time_is_said(folder: Path, tmp_path: Path) -> None:
    assert rules().held_on(date(2020, 12, 31))
    assert not rules().held_on(date(2021, 1, 1))
    later = tmp_path / "later.toml"
    text = shipped()["jp-2020"].read_text(encoding="utf-8")
    later.write_text(text.replace("in_force_from = 2020-01-01", "in_force_from = 2020-04-01"), encoding="utf-8")
    done = run(folder, "--language", "en", "--rules", later)
    assert "Beware: jp-2020 is known to hold from 2020-04-01 to 2020-12-31, not on this day" in done.stdout
    assert "Beware" not in run(folder, "--language", "en").stdout


def test_what_history_does_not_know_is_said(folder: Path, tmp_path: Path) -> None:
    done = run(folder, "--language", "en")
    # The span that is asked for goes on after the last record.
    assert re.search(r"\| not on record \| Records end at 2020-03-21 18:5\d\.<br><small>", done.stdout)
    shutil.copytree(folder, tmp_path / "data")
    begin_ms = round(datetime(2020, 3, 1, 12, tzinfo=TOKYO).timestamp() * 1000)
    history = sqlite3.connect(tmp_path / "data" / "history.sqlite")
    with history:
        history.execute("INSERT INTO gaps VALUES (7, 8, ?, ?)", (begin_ms, begin_ms + 3_600_000))
    history.close()
    done = run(tmp_path / "data", "--language", "en", "--to", "2020-03-20")
    assert "| not on record | There are no records from 2020-03-01 12:00 to 2020-03-01 13:00.<br><small>" in done.stdout


def test_users_are_deemed_only_for_fast_equipment() -> None:
    span = Span(0, 563, 564, 9, 0, 0)
    found = judge([span], 8_000, facts(), rules(), TOKYO)
    assert (found.users, found.users_counted) == (30_000, 8_000)
    assert judge([span], 8_000, facts(basis="counted"), rules(), TOKYO).users == 8_000
    with pytest.raises(ValueError, match=r"more than 2 Gbit/s, and equipment_bits_per_s is 2 Gbit/s"):
        judge([span], 8_000, facts(equipment_bits_per_s=2_000_000_000), rules(), TOKYO)


def test_eras() -> None:
    assert day_words(date(2019, 4, 30))["ja"] == "2019年4月30日"
    assert day_words(date(2019, 5, 1))["ja"] == "令和元年5月1日"
    assert day_words(date(2020, 2, 21)) == both("令和2年2月21日", "21 February 2020")


def test_what_comes_from_files_is_text_and_not_markup() -> None:
    evil = both("<script>1</script>|*x*`a|b`", "<script>1</script>|*x*`a|b`")
    whole = Report(evil, [Section(evil, [(evil, Text([evil], "<b>"))], [evil], [["<b>|"]], evil)])
    assert "<script>1" not in html(whole, "en")
    assert "<b>" not in html(whole, "en")
    assert re.search(r"(?<!\\)(<script>|<b>|\*x|`a\|)", markdown(whole, "en")) is None


TURNS = "\r\u061c\u200e\u200f\u202e\ufeff\U000e0041"


def test_control_characters_never_reach_a_page_or_terminal() -> None:
    evil = both(f"a\x1b[2Jb{TURNS}c", f"a\x1b[2Jb{TURNS}c")
    whole = Report(evil, [Section(evil, [(evil, Text([evil], "x\x07"))], [evil], [["\x1b]0;x\x07"]], evil)])
    for page in (markdown(whole, "en"), html(whole, "en")):
        assert re.search(f"[\x07\x1b{TURNS}]", page) is None
        assert r"\u001b" in page


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("service_class = 5", "", "service_class: a whole number belongs here"),
        ('basis = "deemed"', 'basis = "guessed"', "basis: counted or deemed belongs here, not 'guessed'"),
        ("calls = 97_660", "calls = -1", "calls: a whole number belongs here, not -1"),
        (', en = "all of Japan" }', " }", "area: a text in both languages belongs here"),
        ("calls = ", "call = ", "call: there is no such key here"),
    ],
)
def test_facts_that_are_wrong_are_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    file = tmp_path / "facts.toml"
    file.write_text(EXAMPLE.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(TomlRefused) as refused:
        read_facts(file)
    assert says in str(refused.value)
    assert str(refused.value).startswith(f"{file}:") or str(refused.value).startswith(f"{file}: ")

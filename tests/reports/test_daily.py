"""The daily report against what a small service really did."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from datetime import UTC, date, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from simswitch.core import layout
from simswitch.history.schema import open_reader
from simswitch.masking import hidden
from simswitch.planning import observed
from simswitch.planning.plan import plan
from simswitch.planning.terms import Terms
from simswitch.reports.daily import cap_changes, read_day

from tests.reports.service_days import FIRST_DAY, GIB, NEXT_CYCLE, SIMS, TERMINALS, Days

DAYS = 10
LAST = FIRST_DAY + timedelta(days=DAYS - 1)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Days]:
    folder = tmp_path_factory.mktemp("daily") / "data"
    return folder, Days(folder, DAYS)


def run(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simswitch", "report", "daily", folder, "--zone", "UTC", *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_a_day_is_what_happened_on_it(service: tuple[Path, Days]) -> None:
    folder, really = service
    today = read_day(open_reader(folder), LAST, UTC)
    columns = really.sims[-1]
    health = columns["health"]
    assert (today.pool["sims"], today.pool["throttled"], today.pool["quarantined"]) == (SIMS, 3, 2)
    usable = (health == layout.HEALTHY) | (health == layout.LOW)
    assert today.pool["headroom_bytes"] == columns["headroom_bytes"][usable].sum()
    assert (today.used_bytes, today.subscribers) == (sum(really.used[LAST].values()), TERMINALS)
    heaviest = sorted(really.used[LAST].values(), reverse=True)
    assert [each.bytes for each in today.heavy] == heaviest[:10]
    month = sum(used.get(today.heavy[0].subscriber, 0) for day, used in really.used.items() if day.month == 10)
    assert today.heavy[0].month_bytes == month
    assert [(span.stopped_minutes, span.refused) for span in today.spans] == [(1, really.refused)]
    assert [row.kind for row in today.decisions] == ["set_health", "set_health", "set_cap"]
    assert today.decisions_count == 3


def test_against_yesterday(service: tuple[Path, Days]) -> None:
    folder, _ = service
    history = open_reader(folder)
    today, yesterday = read_day(history, LAST, UTC), read_day(history, LAST - timedelta(days=1), UTC)
    assert yesterday.pool["throttled"] == 0
    changes = cap_changes(today, yesterday)
    assert [(change.before_bytes, change.bytes, change.basis) for change in changes] == [
        (100 * GIB, 80 * GIB, layout.BASIS_LEARNED)
    ]
    done = run(folder, "--language", "en")
    assert done.returncode == 0, done.stderr
    assert f"Daily operations report, {LAST.day} {LAST:%B %Y}" in done.stdout
    assert "| throttled SIMs | 3 (+3)<br>" in done.stdout
    assert re.search(r"\| lot \| cycle \| 107\.4 GB \| 85\.9 GB \| learned \|", done.stdout)
    assert re.search(r"\| supplier \| lot \| plan; 85\.9 GB a cycle, learned \| 100 \| 95 \|", done.stdout)
    assert re.search(r"\| when it runs dry \| P50: .*; P95: ", done.stdout)


def test_in_japanese_as_a_page_and_as_json(service: tuple[Path, Days], tmp_path: Path) -> None:
    folder, really = service
    page = tmp_path / "daily.html"
    done = run(folder, "--html", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert "<h1>日次運用報告 令和8年10月7日</h1>" in text
    assert "<p>3(前日比 +3)</p>" in text
    found = json.loads(run(folder, "--json").stdout)
    assert found["today"]["used_bytes"] == sum(really.used[LAST].values())
    assert found["yesterday"]["day"] == (LAST - timedelta(days=1)).isoformat()
    assert found["caps_changed"][0]["quota_bytes"] == 80 * GIB


def shown(folder: Path, party: str) -> tuple[str, dict[str, Any]]:
    """The page and the JSON for a party."""
    page, figures = run(folder, "--language", "en", "--for", party), run(folder, "--json", "--for", party)
    assert (page.returncode, figures.returncode) == (0, 0), page.stderr + figures.stderr
    return page.stdout, json.loads(figures.stdout)


SECTIONS = {
    "operator": {"lots", "service", "caps", "heavy", "trail"},
    "auditor": {"lots", "service", "caps", "heavy", "trail"},
    "technology-provider": {"service"},
    "supplier:supplier": {"lots", "caps"},
    "supplier:another": set(),
}
TITLES = {
    "lots": "## Suppliers and lots",
    "service": "## Stopped or degraded service",
    "caps": "## Caps learned or changed",
    "heavy": "## Heavy users",
    "trail": "## The trail of decisions",
}


@pytest.mark.parametrize("party", SECTIONS)
def test_each_party_sees_its_part_and_nothing_else(service: tuple[Path, Days], party: str) -> None:
    page, figures = shown(service[0], party)
    assert {name for name, title in TITLES.items() if title in page} == SECTIONS[party]
    today = figures["today"]
    assert bool(today["lots"]) == ("lots" in SECTIONS[party])
    assert bool(figures["caps_changed"]) == ("caps" in SECTIONS[party])
    assert bool(today["service"]) == bool(today["used_bytes"]) == ("service" in SECTIONS[party])
    assert bool(today["heavy"]) == ("heavy" in SECTIONS[party])
    assert bool(today["decisions"]) == bool(today["decisions_count"]) == ("trail" in SECTIONS[party])
    assert bool(today["swaps"]) == bool(figures["shortfall"]) == (not party.startswith("supplier"))
    # The technology provider knows how many SIMs there are, and of no lot.
    assert ("| SIMs | 100 (" in page) == (party != "supplier:another")


def test_the_trail_says_who_decided_what_on_which_figures(service: tuple[Path, Days]) -> None:
    _, figures = shown(service[0], "auditor")
    cap = figures["today"]["decisions"][-1]
    assert (cap["kind"], json.loads(cap["statuses"])) == ("set_cap", {"ok": 1})
    assert json.loads(cap["figures"])["quota_bytes"] == [80 * GIB]
    assert re.fullmatch("[0-9a-f]{64}", cap["digest"])


def test_volume_by_market_is_what_was_counted_there(tmp_path: Path) -> None:
    really = Days(tmp_path / "data", 3, markets=2)
    history = open_reader(tmp_path / "data")
    day = FIRST_DAY + timedelta(days=1)
    number = (day - date(1970, 1, 1)).days
    found = history.execute("SELECT market, lot, bytes FROM use_market WHERE day = ? ORDER BY market", (number,))
    # Terminal n has the subscriber n + 1; the odd ones are in the first market.
    first, other = (sum(used for who, used in really.used[day].items() if who % 2 == odd) for odd in (0, 1))
    assert found.fetchall() == [(really.markets[0], 4, first), (really.markets[1], 4, other)]
    situation = observed.read_situation(history)
    days = [FIRST_DAY + timedelta(days=place) for place in range(3)]
    whole = sum(sum(really.used[each].values()) for each in days)
    of_first = sum(used for each in days for who, used in really.used[each].items() if who % 2 == 0)
    assert [each.name for each in situation.use_by_market] == ["market", "other"]
    assert situation.use_by_market[0].share == pytest.approx(of_first / whole)
    rows = plan(situation, Terms(), seed=1).document["volume"]["groups"]["market"]
    assert sum(row["share_of_use"] for row in rows) == pytest.approx(1)
    assert sum(row["sims"] for row in rows) == situation.lots[0].sims
    left = situation.lots[0].lower_bound(situation.today)
    assert sum(row["left_lower_bound_bytes"] for row in rows) == pytest.approx(left, rel=0.02)


def test_a_quota_that_sims_share_counts_once_in_a_plan(service: tuple[Path, Days]) -> None:
    """However many they are: what is left now, and the whole of it when the cycle has begun anew."""
    history = sqlite3.connect(":memory:")
    open_reader(service[0]).backup(history)
    alone = observed.read_situation(history).lots[0]
    for day, detail in history.execute("SELECT day, detail FROM lots").fetchall():
        shared = json.dumps({**json.loads(detail), "pooled": [True, False, False]})
        figures = (shared, 20 * GIB, day)
        history.execute("UPDATE lots SET detail = ?, headroom_bytes = ?, unlimited = 0 WHERE day = ?", figures)
    situation = observed.read_situation(history)
    lot = situation.lots[0]
    assert (lot.sims, lot.slowed) == (alone.sims, alone.slowed)
    assert lot.slowed > 0
    assert lot.lower_bound(situation.today) == pytest.approx(20 * GIB)
    assert lot.cap.low_bytes * (lot.sims + lot.slowed) == pytest.approx(alone.cap.low_bytes) == 80 * GIB


def test_days_begin_as_the_setting_says_and_the_page_says_where_the_zone_differs(
    service: tuple[Path, Days], tmp_path: Path
) -> None:
    japan_ms = 54_000_000
    Days(tmp_path / "data", 3, begins_ms=japan_ms)
    history = open_reader(tmp_path / "data")
    assert history.execute("SELECT begins_ms FROM day_begins").fetchall() == [(japan_ms,)]
    tokyo = read_day(history, FIRST_DAY, ZoneInfo("Asia/Tokyo"))
    assert tokyo.begins_ms == tokyo.midnight_ms
    # Events are those of the same day, whatever the zone in which they are shown.
    utc = read_day(history, FIRST_DAY, UTC)
    assert (utc.begins_ms, utc.midnight_ms - utc.begins_ms) == (tokyo.begins_ms, 9 * 3_600_000)
    for folder, zone, differs in ((tmp_path / "data", "Asia/Tokyo", False), (service[0], "Asia/Tokyo", True)):
        done = run(folder, "--zone", zone, "--language", "en", "--day", FIRST_DAY.isoformat())
        assert ("set `day_begins_ms = 54000000`, or name another --zone." in done.stdout) == differs, done.stderr


def test_without_the_day_before_nothing_has_changed(service: tuple[Path, Days]) -> None:
    done = run(service[0], "--language", "en", "--day", FIRST_DAY.isoformat())
    assert f"| SIMs | {SIMS} (no record of the day before)<br>" in done.stdout


def test_holidays_and_supplies_move_the_date_in_the_daily_report_too(
    service: tuple[Path, Days], tmp_path: Path
) -> None:
    terms = tmp_path / "terms.toml"
    terms.write_text("[aim]\nhorizon_days = 33\n", encoding="utf-8")
    found = json.loads(run(service[0], "--json", "--terms", terms).stdout)
    assert found["shortfall"] == ["P50: not within 33 days; P95: not within 33 days"]
    terms.write_text("[aims]\n", encoding="utf-8")
    assert "there is no such table here" in run(service[0], "--terms", terms).stderr
    assert "nowhere.toml can't be read" in run(service[0], "--terms", tmp_path / "nowhere.toml").stderr


def test_a_party_that_there_is_none_of(service: tuple[Path, Days]) -> None:
    for party, says in (("janitor", "there is no role 'janitor'"), ("supplier", "which supplier?")):
        refused = run(service[0], "--for", party)
        assert refused.returncode == 2
        assert says in refused.stderr


def test_a_day_of_which_nothing_is_known(service: tuple[Path, Days], tmp_path: Path) -> None:
    done = run(service[0], "--day", "2020-01-01", "--language", "en")
    assert done.returncode == 0, done.stderr
    assert "There is no record of the pool on this day" in done.stdout
    assert "not known: history has no whole day of use" in done.stdout
    assert run(tmp_path).returncode == 1


@pytest.mark.parametrize(("number", "shown"), [(7, "****7"), (123, "****23"), (81_903_112_345, "*********45")])
def test_subscribers_are_masked(number: int, shown: str) -> None:
    assert hidden(number) == shown


def test_the_plan_of_a_folder_is_made_from_what_was_counted(service: tuple[Path, Days]) -> None:
    folder, really = service
    situation = observed.read_situation(open_reader(folder))
    assert situation.past.first_day == FIRST_DAY
    assert situation.today == LAST + timedelta(days=1)
    days = [sum(really.used[FIRST_DAY + timedelta(days=day)].values()) for day in range(DAYS)]
    assert situation.past.used_bytes.tolist() == days
    assert set(situation.past.subscribers.tolist()) == {TERMINALS}
    # Slowed ones serve again when their cycle begins anew; what is left is known to the byte.
    assert situation.lots[0].slowed == 3
    assert situation.lots[0].lower_bound(situation.today) == pytest.approx(
        really.sims[-1]["headroom_bytes"][really.sims[-1]["health"] == layout.HEALTHY].sum()
    )
    lot = situation.lots[0]
    columns = really.sims[-1]
    fit = np.isin(columns["health"], (layout.HEALTHY, layout.LOW, layout.EXHAUSTED))
    assert (lot.sims, lot.cap.low_bytes) == (fit.sum(), 80 * GIB)
    assert situation.sims_fit == lot.sims == SIMS - 5
    assert lot.used_bytes.sum() == pytest.approx(columns["used_cycle_bytes"][fit].sum())
    assert lot.resets[:2] == (NEXT_CYCLE, date(2026, 11, 20))
    assert situation.month_used_bytes.sum() == sum(
        sum(used.values()) for day, used in really.used.items() if day.month == 10
    )
    # 40 of the 60 terminals that were ever seen had a lease at once, day by day; others came on the last evening.
    assert situation.peak is not None
    assert situation.peak.mean == pytest.approx(40 / 60)
    assert [(market.name, market.terminals) for market in situation.markets] == [
        ("market", 60 + SIMS + 5 - really.refused)
    ]


def test_plan_by_command(service: tuple[Path, Days], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "simswitch", "plan", str(service[0]), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["today"] == "2026-10-08"
    assert [row["name"] for row in found["volume"]["groups"]["lot"]] == ["lot"]
    assert found["markets"][0]["market"] == "market"
    for words, says in (
        ([str(service[0]), "lots.csv"], "give the data folder of a service, or two CSV files"),
        ([str(tmp_path)], "there is no history yet"),
    ):
        refused = subprocess.run([*command[:4], *words], capture_output=True, text=True, check=False)
        assert refused.returncode in (1, 2)
        assert says in refused.stderr

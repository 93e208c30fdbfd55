"""A replay on several dates, the history that it leaves, and the report from that: the incident by one command."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from simswitch import twin
from simswitch.cli.replay import shipped
from simswitch.history.reading import rows
from simswitch.history.schema import HistoryRefused, open_reader
from simswitch.reports.accident import by_server, minutes, spans, users_affected

FACTS = Path(__file__).parents[2] / "examples" / "accident-2020.toml"
DATES = ["2020-02-21", "2020-02-24", "2020-03-06"]


def scenario(folder: Path) -> Path:
    """The smallest shipped one, on three dates, with a bulk switch that makes its access servers busy."""
    text = shipped()["tiny"].read_text(encoding="utf-8")
    text = text.replace("seed = 7", f"seed = 7\nalso_on = [{', '.join(DATES[1:])}]").replace(
        "operations_per_s = 5", "operations_per_s = 0.8"
    )
    path = folder / "three-days.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, int | float | None]]]:
    folder = tmp_path_factory.mktemp("replayed")
    return folder / "history", twin.record(scenario(folder), "unbounded", folder / "history")


def begin_ms(day: str) -> int:
    return round(datetime.fromisoformat(f"{day}T12:00:00+09:00").timestamp() * 1000)


def test_history_has_what_failed_on_each_date(
    replayed: tuple[Path, dict[str, dict[str, int | float | None]]],
) -> None:
    folder, figures = replayed
    assert list(figures) == DATES
    history = open_reader(folder)
    for day, counted in figures.items():
        failed = counted["allocations_failed"]
        assert isinstance(failed, int)
        assert failed > 100
        told = rows(history, "waits", begin_ms(day), begin_ms(day) + 900_000)
        # What failed after the last load report of the replay was told to nobody.
        assert failed - 10 <= sum(row["failed"] for row in told) <= failed
    # Another date has other draws.
    assert len({counted["allocations_failed"] for counted in figures.values()}) == 3
    assert not list(rows(history, "gaps"))


def test_terminals_on_slowed_sims_are_counted_by_the_minute_and_once(
    replayed: tuple[Path, dict[str, dict[str, int | float | None]]],
) -> None:
    folder, _ = replayed
    history = open_reader(folder)
    first, until = begin_ms(DATES[0]), begin_ms(DATES[0]) + 900_000
    slowed = {row["minute"]: row for row in rows(history, "slowed", first, until)}
    # They are observed after a minute and a half and leave when the switches are done.
    assert min(slowed) == first // 60_000 + 2
    assert slowed[min(slowed)]["terminals"] > 100
    whole = list(rows(history, "slowed_terminals", first, until))
    assert sum(row["minutes"] for row in whole) == sum(row["terminals"] for row in slowed.values())
    found = spans(minutes(history, first, until))
    assert users_affected(history, found) == (len({row["subscriber"] for row in whole}), 0)
    assert found[0].slowed_max == max(row["terminals"] for row in slowed.values())
    # The carrier lifts its limits before the next date.
    later = begin_ms(DATES[1])
    assert not list(rows(history, "slowed", later, later + 60_000))


def test_by_access_server_it_is_the_same(
    replayed: tuple[Path, dict[str, dict[str, int | float | None]]],
) -> None:
    folder, _ = replayed
    history = open_reader(folder)
    found = spans(minutes(history, 0, 1 << 50))
    servers = by_server(history, found)
    assert {each.name for each in servers} == {"as-1", "as-2"}
    assert sum(each.given_up for each in servers) == sum(span.given_up for span in found)
    assert sum(each.refused for each in servers) == sum(span.refused for span in found)
    assert max(each.wait_ms for each in servers) >= 7_000
    inside = [row["terminals"] for row in rows(history, "slowed") if any(
        span.first_minute <= row["minute"] <= span.last_minute for span in found
    )]  # fmt: skip
    # Hours are counted whole: a few minutes before or after a span may be among them.
    assert sum(inside) <= sum(each.slowed_minutes for each in servers) <= 1.5 * sum(inside)


def test_the_engine_fails_nobody_and_is_degraded_only(tmp_path: Path) -> None:
    figures = twin.record(scenario(tmp_path), "engine", tmp_path / "history")
    assert [counted["allocations_failed"] for counted in figures.values()] == [0, 0, 0]
    history = open_reader(tmp_path / "history")
    found = spans(minutes(history, 0, 1 << 50))
    assert len(found) == 3
    assert all(span.stopped_minutes == 0 and span.slowed_max > 0 for span in found)
    # One engine for all dates: no job or order of an earlier one is written over.
    assert len(list(rows(history, "jobs"))) == 3


def test_one_command_replays_and_reports(tmp_path: Path) -> None:
    words = ["--replay", scenario(tmp_path), "--facts", FACTS]
    command = [sys.executable, "-m", "simswitch", "report", "accident", tmp_path / "history", *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    dates = re.search(r"\| 発生日時 \| (.*?)<br><small>", done.stdout)
    assert dates is not None
    assert dates[1].split("<br>") == ["令和2年2月21日", "令和2年2月24日", "令和2年3月6日"]
    assert re.search(r"断念された割当 [\d,]+ 回", done.stdout)
    again = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "exists already: name another folder" in again.stderr


def test_which_time_has_to_be_said_of_a_service(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "simswitch", "report", "accident", tmp_path, "--facts", FACTS]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Give --from and --to" in done.stderr


def test_a_history_is_not_written_over(replayed: tuple[Path, object], tmp_path: Path) -> None:
    with pytest.raises(HistoryRefused, match="exists already"):
        twin.record(scenario(tmp_path), "none", replayed[0])


@pytest.mark.parametrize("dates", ["[2020-02-21]", "[2020-03-06, 2020-02-24]", "2020-02-24", "[2020-02-24T10:00:00]"])
def test_dates_go_forward(tmp_path: Path, dates: str) -> None:
    path = scenario(tmp_path)
    path.write_text(re.sub(r"also_on = .*", f"also_on = {dates}", path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(twin.ScenarioError, match="also_on is a list of dates such as 2020-02-24, each after 2020-0"):
        twin.record(path, "none", tmp_path / "history")

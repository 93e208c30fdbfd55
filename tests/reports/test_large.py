"""The measurement of large reports, in a size that only shows that it works."""

from __future__ import annotations

from pathlib import Path

from simswitch.history.reading import day_totals
from simswitch.history.schema import open_reader

from tests.reports.large import DATES, DAYS, LOTS, fill, reports


def test_reports_over_a_large_history_in_small(tmp_path: Path) -> None:
    fill(tmp_path, 2_000)
    history = open_reader(tmp_path)
    assert history.execute("SELECT count(*) FROM use_day").fetchone()[0] == 2_000 * DAYS
    assert history.execute("SELECT count(DISTINCT hour) FROM affected").fetchone()[0] == len(DATES)
    first = history.execute("SELECT min(day) FROM use_day").fetchone()[0]
    assert day_totals(history, first)[1] == 2_000
    assert history.execute("SELECT count(DISTINCT lot) FROM lots").fetchone()[0] == LOTS
    assert {name: figures[3] for name, figures in reports(tmp_path).items()} == {
        "report accident": 0,
        "report daily": 0,
    }

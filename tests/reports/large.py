"""Reports over a history of many subscribers and a month: how long they take, and how much memory.

    python -m tests.reports.large [--subscribers N] [--folder DIR] [--keep]

The history is invented but has the shape of one: everybody uses something on every day; on eleven dates a quarter of
all terminals is refused in one hour each and another quarter sits on slowed SIMs. Figures are of the commands as they
are called, in processes of their own. Each must be done within a minute and 4 GB at 10,000,000 subscribers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

from simswitch.core import layout
from simswitch.history.schema import open_writer

FIRST = date(2020, 3, 1)
DAYS = 31
DATES = (2, 5, 8, 11, 14, 15, 17, 18, 19, 20, 21)
LOTS = 200
HOUR_OF_DAY = 9
"""In UTC: the evening in Japan."""
FACTS = Path(__file__).parents[2] / "examples" / "accident-2020.toml"
SECONDS_MAX = 60.0
BYTES_MAX = 4 << 30
_EPOCH = date(1970, 1, 1)


def fill(folder: Path, subscribers: int) -> None:
    """Rows in the order of their keys, by SQLite itself."""
    connection = open_writer(folder)
    connection.execute("PRAGMA synchronous = OFF")
    numbers = f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {subscribers}) "
    first = (FIRST - _EPOCH).days
    for day in range(first, first + DAYS):
        connection.execute("BEGIN")
        connection.execute(
            # A few use ten times as much as the others.
            f"{numbers} INSERT INTO use_day "
            f"SELECT {day}, n, 1000000 + n * 2654435761 % 400000000 * (1 + (n % 997 = 0) * 9) FROM s"
        )
        connection.execute(f"INSERT INTO days SELECT {day}, sum(bytes), count(*) FROM use_day WHERE day = {day}")
        for lot in range(LOTS):
            _lot(connection, day, lot, subscribers)
        connection.execute("COMMIT")
        print(f"{_EPOCH + timedelta(days=day)} is written", file=sys.stderr)
    month = (FIRST.year - 1970) * 12 + FIRST.month - 1
    connection.execute("BEGIN")
    connection.execute(
        f"{numbers} INSERT INTO use_month SELECT {month}, n, 31000000 + n * 2654435761 % 12400000000 FROM s"
    )
    for place, day in enumerate(DATES):
        hour = (first + day - 1) * 24 + HOUR_OF_DAY
        # A quarter of all each time, a different one.
        part, rest = f"n % 4 = {place % 4}", f"n % 4 = {(place + 1) % 4}"
        connection.execute(
            f"{numbers} INSERT INTO affected SELECT {hour}, 1, 2, {int(layout.NO_HEALTHY_SIM)}, n, n, "
            f"{hour} * 3600000 + 60000, {hour} * 3600000 + 3000000, 5 FROM s WHERE {part}"
        )
        connection.execute(
            f"{numbers} INSERT INTO slowed_terminals SELECT {hour}, n, n, 1, {hour} * 60, {hour} * 60 + 50, 51 "
            f"FROM s WHERE {rest}"
        )
        for minute in range(51):
            at = hour * 60 + minute
            row = (at, 1, 2, layout.NO_HEALTHY_SIM, subscribers // 40, subscribers // 50)
            connection.execute("INSERT INTO refusals VALUES (?, ?, ?, ?, ?, ?)", row)
            connection.execute("INSERT INTO slowed VALUES (?, ?, ?)", (at, subscribers // 4, subscribers))
    swaps = (first * 86_400_000, DAYS * 86_400_000 // max(subscribers // 10, 1))
    connection.execute(
        f"{numbers} INSERT INTO swaps SELECT n, NULL, n, n, 1, n, 2, {swaps[0]} + n / 10 * {swaps[1]}, "
        f"{swaps[0]} + n / 10 * {swaps[1]} + 20000, 25000, 1, 1, NULL FROM s WHERE n % 10 = 0"
    )
    connection.execute("COMMIT")
    connection.close()


def _lot(connection: sqlite3.Connection, day: int, lot: int, subscribers: int) -> None:
    sims = subscribers // LOTS
    detail = {
        "supplier": f"supplier-{lot % 7}", "carrier": f"carrier-{lot % 3}", "plan": "plan", "class": "standard",
        "active_from_s": -1, "valid_until_s": -1, "quota_bytes": [80_000_000_000, None, None],
        "basis": [layout.BASIS_LEARNED, 0, 0], "since_ms": [0, 0, 0], "before_bytes": [None] * 3,
        "planned_bytes": [None] * 3, "rolling_days": 0,
    }  # fmt: skip
    figures = (
        day, lot + 1, (day + 1) * 86_400_000, sims, max(sims - 100, 0), 0, 0, 90, 10, 0, 0, sims // 2, sims // 2, 0,
        sims * (60_000_000_000 - (day % 31) * 1_000_000_000), sims * (day % 31) * 1_000_000_000, sims * day * 10**9,
        json.dumps(detail),
    )  # fmt: skip
    connection.execute(f"INSERT INTO lots VALUES ({', '.join('?' * len(figures))}, 0, 0)", figures)
    connection.execute("INSERT OR REPLACE INTO entities VALUES (?, ?, ?)", (lot + 1, layout.LOT, f"lot-{lot:03}"))


def measured(words: list[str]) -> tuple[float, float, int, int]:
    """Seconds, processor seconds, the most memory in bytes, and the exit code of a command."""
    began_s = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "simswitch", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu_s = usage.ru_utime + usage.ru_stime
    return time.monotonic() - began_s, cpu_s, usage.ru_maxrss * 1024, process.returncode


def reports(folder: Path) -> dict[str, tuple[float, float, int, int]]:
    words = [str(folder), "--facts", str(FACTS), "--from", "2020-03-01", "--to", "2020-04-01"]
    return {
        "report accident": measured(["report", "accident", *words]),
        "report daily": measured(["report", "daily", str(folder), "--day", "2020-03-21"]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures reports over a large history.")
    parser.add_argument("--subscribers", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where the history is made, or stands already")
    parser.add_argument("--keep", action="store_true", help="leave it there")
    words = parser.parse_args()
    folder = words.folder or Path(tempfile.mkdtemp(prefix="simswitch-large-"))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "history.sqlite"
    if not file.exists():
        fill(folder, words.subscribers)
    print(f"{words.subscribers:,} subscribers, {DAYS} days, {file.stat().st_size / 1e9:.2f} GB")
    good = True
    for name, (seconds, cpu_s, peak, code) in reports(folder).items():
        good = good and code == 0 and seconds <= SECONDS_MAX and peak <= BYTES_MAX
        print(f"{name:16} {seconds:6.1f} s, of it {cpu_s:.1f} s of processor, {peak / 1e9:.2f} GB at most, exit {code}")
    if not words.keep:
        shutil.rmtree(folder)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

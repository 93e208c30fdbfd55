"""`simswitch plan` on the examples that README shows, and on files with mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "plan"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "simswitch", "plan", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def with_change(folder: Path, name: str, old: str, new: str) -> Path:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert old in text
    changed = folder / name
    changed.write_text(text.replace(old, new, 1), encoding="utf-8")
    return changed


def test_the_examples_give_every_answer(tmp_path: Path) -> None:
    picture = tmp_path / "plan.png"
    done = run(
        EXAMPLES / "use.csv", EXAMPLES / "lots.csv", "--subscribers", EXAMPLES / "subscribers.csv",
        "--terms", EXAMPLES / "terms.toml", "--plot", picture, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(done.stdout)
    assert found["today"] == "2026-11-25"
    dry, early = (date.fromisoformat(found["volume"][key]) for key in ("dry_p50", "dry_p95"))
    assert date(2026, 11, 25) <= early <= dry
    assert found["simultaneity"]["sims_needed"] - found["simultaneity"]["sims"] == found["simultaneity"]["sims_missing"]
    # What closes the gap: every offer at its newsvendor's quantile, and a limit that touches some and not all.
    assert [row["offer"] for row in found["purchases"]] == ["carrier-a, 80 GB", "carrier-b, 100 GB"]
    assert found["purchases"][0]["critical_share"] == pytest.approx((9000 - 2800) / 9000)
    limit = found["operating_limit"]
    assert 0 < limit["touched"] < limit["subscribers"]
    # A cap that is lower makes it dry no later, and less supply misses no less.
    what_if = {row["if"]: row for row in found["what_if"]}
    assert what_if["supply stops"]["short_p50_bytes"] >= what_if["it goes on as it is"]["short_p50_bytes"]
    assert what_if["the caps of carrier-a are 20 % lower"]["dry_p50"] <= found["volume"]["dry_p50"]


def test_the_table_says_it_in_words() -> None:
    done = run(EXAMPLES / "use.csv", EXAMPLES / "lots.csv")
    assert done.returncode == 0, done.stderr
    assert "dry, P50" in done.stdout
    assert "operating limit          not known: say with --subscribers" in done.stdout
    assert "lot lot-2019 is recalled" in done.stdout


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("use.csv", "2026-10-03", "2026-10-04", 'use.csv:4: day: "2026-10-04": the day after 2026-10-02 belongs here'),
        ("use.csv", "used_bytes", "bytes", "use.csv:1: bytes: no such column"),
        ("lots.csv", ",86,", ",-1,", 'lots.csv:2: sims: "-1": a whole number from 0 belongs here'),
        ("lots.csv", "lot-2020", "lot-2019", 'lots.csv:3: lot: "lot-2019": the lot stands here twice'),
        ("lots.csv", "62000000000", "65000000000", "lots.csv:2: cap_low_bytes"),
        ("lots.csv", "2026-12-01", "2026-11-01", 'lots.csv:2: next_reset: "2026-11-01": that lies before 2026-11-25'),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_planned(tmp_path: Path, name: str, old: str, new: str, says: str) -> None:
    files = {other: EXAMPLES / other for other in ("use.csv", "lots.csv")}
    files[name] = with_change(tmp_path, name, old, new)
    done = run(*files.values())
    assert done.returncode == 1
    assert says in done.stderr
    assert "nothing was planned" in done.stderr
    assert not done.stdout


def test_a_picture_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    one = tmp_path / "use.csv"
    one.write_text("day,used_bytes,subscribers\n2026-11-24,1000000000,10\n", encoding="utf-8")
    done = run(one, EXAMPLES / "lots.csv", "--plot", tmp_path / "nowhere" / "plan.png")
    assert done.returncode == 1
    assert "plan.png can't be written: No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_files_that_are_not_there_are_named() -> None:
    done = run("nowhere.csv", EXAMPLES / "lots.csv")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nowhere.csv can't be read" in done.stderr

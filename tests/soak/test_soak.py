"""The soak in short form: that all of it goes on, and that what grows would be found. Hours are for `make soak`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.soak import run


def series(**changed: list[float]) -> dict[str, list[float]]:
    return {name: [100.0] * 200 for name in run.BOUNDS} | changed


def test_what_stays_or_only_warms_up_has_not_grown() -> None:
    warm_up = [50 + 50 * min(1.0, number / 80) for number in range(200)]
    saw = [100.0 + number % 20 for number in range(200)]
    found = run.verdict(series(server_mb=warm_up, journal_mb=saw))
    assert all(of["met"] for of in found.values())


@pytest.mark.parametrize(
    ("name", "climb"), [("server_mb", 12.0), ("follower_mb", 16.0), ("server_files", 5.0), ("follower_threads", 3.0)]
)
def test_what_climbs_is_found_through_noise(name: str, climb: float) -> None:
    noise = np.random.default_rng(1).normal(scale=climb / 10, size=200)
    found = run.verdict(series(**{name: (100 + np.linspace(0, climb, 200) + noise).tolist()}))
    assert {each for each, of in found.items() if not of["met"]} == {name}


def test_a_short_soak_does_all_that_a_long_one_does(tmp_path: Path) -> None:
    words = ("--warm-up", "0", "--dwell", "6", "--away", "1", "--renew", "2", "--usage", "2", "--batch", "16")
    soak = run.Soak(tmp_path, 8.0, 120, 1, round_s=0.5, load=words)
    found = soak.run(lambda _: None)
    assert found["failures"] == []
    counts = found["counts"]
    assert min(counts["probes"], counts["jobs"], counts["lists"], counts["swaps"]) > 0
    assert found["snapshots"] > 1
    private = [tmp_path / "data", *(tmp_path / "data").glob("history.sqlite*"), *(tmp_path / "data").glob("s*-*")]
    assert not any(path.stat().st_mode & 0o007 for path in private)
    assert set(found["load"]["operations"]) == {"attach", "renew", "usage", "leave"}
    assert all(of["carried_out"] for name, of in found["load"]["operations"].items() if name in ("renew", "usage"))
    assert found["series"]["server_files"]["met"]
    assert found["series"]["server_threads"]["met"]
    assert "jobs" in run.table(found)
    run.plot(tmp_path / "soak.png", soak.samples)
    assert (tmp_path / "soak.png").stat().st_size > 10_000

"""The soak in short form: that all of it goes on, and that what grows would be found. Hours are for `make soak`."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.soak import run

HOURS = 2
COUNT = 1_200


def series(**changed: list[float]) -> dict[str, list[float]]:
    found = {name: [100.0] * COUNT for name in (*run.BOUNDS, *run.FLOORS)}
    return found | {"at_s": np.linspace(0, HOURS * 3_600, COUNT).tolist()} | changed


def grew(**changed: list[float]) -> set[str]:
    return {name for name, of in run.verdict(series(**changed)).items() if not of["met"]}


def disturbed() -> npt.NDArray[np.float64]:
    """As a machine that has other work to do shows the server: queues that fill take memory, and give some back."""
    chance = np.random.default_rng(1)
    noise = chance.normal(scale=0.2, size=COUNT)
    for begun in range(700, COUNT, 170):
        noise[begun : begun + 60] += 12.0
        noise[begun + 60 :] += 0.4
    return 130 + noise


def test_what_stays_or_only_warms_up_has_not_grown() -> None:
    warm_up = [50 + 50 * min(1.0, number / 400) for number in range(COUNT)]
    saw = [100.0 + number % 20 for number in range(COUNT)]
    removing = [2.1 * (number % 7 == 0) for number in range(COUNT)]
    assert grew(server_mb=warm_up, behind_s=saw, unneeded_mb=removing) == set()
    assert grew(server_mb=disturbed().tolist()) == set()


@pytest.mark.parametrize(
    ("name", "climb"), [("server_mb", 12.0), ("follower_mb", 16.0), ("server_files", 5.0), ("follower_threads", 3.0)]
)
def test_what_climbs_is_found_through_noise(name: str, climb: float) -> None:
    noise = np.random.default_rng(1).normal(scale=climb / 10, size=COUNT)
    found = grew(**{name: (100 + np.linspace(0, climb, COUNT) + noise).tolist()})
    assert name in found
    assert found <= {name, f"{name}, steady"}


@pytest.mark.parametrize("name", run.STEADY_AN_HOUR)
def test_a_leak_of_one_percent_an_hour_is_found_beside_other_work(name: str) -> None:
    leak = np.linspace(0, 0.01 * 130 * HOURS, COUNT)
    assert f"{name}, steady" in grew(**{name: (disturbed() + leak).tolist()})
    assert f"{name}, steady" in grew(**{name: (130 + leak).tolist()})


def test_in_a_short_form_what_is_about_to_go_at_its_end_has_not_grown() -> None:
    assert run.floor_climb([0.0] * 19 + [2.4]) == 0.0
    assert run.floor_climb([0.0] * 12 + [2.4] * 8) == 2.4


def test_one_file_that_is_left_behind_is_found_whatever_comes_and_goes() -> None:
    removing = np.array([2.1 * (number % 7 == 0) for number in range(COUNT)])
    removing[1_000:] += 2.1
    assert grew(unneeded_mb=removing.tolist()) == {"unneeded_mb"}
    assert grew(snapshot_mb=[10.9 + 0.11 * (number > 900) for number in range(COUNT)]) == {"snapshot_mb"}


WORDS = ("--warm-up", "0", "--dwell", "6", "--away", "1", "--renew", "2", "--usage", "2", "--batch", "16")


def test_a_journal_that_is_not_cleared_away_is_found_in_the_short_form(tmp_path: Path) -> None:
    """The first segment has another name more ten times a second, which nobody takes away."""
    over = threading.Event()

    def keep() -> None:
        number = 0
        while not over.wait(0.1):
            for path in tmp_path.glob("data/segment-0000000001.journal"):
                with suppress(FileNotFoundError):
                    path.with_name(f"{path.name}.{number}.removing").hardlink_to(path)
                number += 1

    keeping = threading.Thread(target=keep)
    keeping.start()
    try:
        found = run.Soak(tmp_path, 8.0, 120, 1, round_s=0.5, load=WORDS).run(lambda _: None)
    finally:
        over.set()
        keeping.join()
    assert not found["series"]["unneeded_mb"]["met"]
    assert not found["met"]


def test_a_short_soak_does_all_that_a_long_one_does(tmp_path: Path) -> None:
    soak = run.Soak(tmp_path, 10.0, 120, 1, round_s=0.5, load=WORDS)
    found = soak.run(lambda _: None)
    assert found["failures"] == []
    counts = found["counts"]
    assert min(counts["probes"], counts["jobs"], counts["lists"], counts["swaps"]) > 0
    assert found["snapshots"] > 1
    private = [tmp_path / "data", *(tmp_path / "data").glob("history.sqlite*"), *(tmp_path / "data").glob("s*-*")]
    assert not any(path.stat().st_mode & 0o007 for path in private)
    assert set(found["load"]["operations"]) == {"attach", "renew", "usage", "leave"}
    assert all(of["carried_out"] for name, of in found["load"]["operations"].items() if name in ("renew", "usage"))
    for name in ("server_files", "unneeded_mb"):
        assert found["series"][name]["met"], found["series"][name]
    assert found["series"]["server_threads"]["met"]
    assert "jobs" in run.table(found)
    run.plot(tmp_path / "soak.png", soak.samples)
    assert (tmp_path / "soak.png").stat().st_size > 10_000

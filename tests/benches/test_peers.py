"""The peers in smoke size: ours and SQLite always, Redis and PostgreSQL where they are installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from benches.peers import install
from benches.peers.__main__ import ROWS, SMOKE, measure, print_table
from benches.peers.contest import NotTheJob, Pairs, verify, verify_books
from benches.report import ROOT, Result

DRIVERS = {"redis": ("redis", "hiredis"), "postgresql": ("psycopg",), "sqlite": ()}
PLAN = replace(SMOKE, swap_terminals=200)


def silent(_text: str) -> None:
    """Progress that nobody wants to see."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Below build/: the servers' user can't enter the folders that pytest makes."""
    path = ROOT / "build" / f"test-peers-{os.getpid()}"
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        subprocess.run(["rm", "-rf", str(path)], check=True)


def needs(peer: str) -> None:
    if peer in install.FIND and install.FIND[peer]() is None:
        pytest.skip(f"{peer} is not installed: the Debian package {install.PACKAGES[peer]}")
    for driver in DRIVERS[peer]:
        if find_spec(driver) is None:
            pytest.skip(f"{driver} is not installed: pip install '.[peers]'")


def left_over(folder: Path) -> list[str]:
    """Processes that were told of this folder, or stand in it: Redis gives itself another command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            words += str((process / "cwd").readlink())
        except OSError:
            continue
        if str(folder) in words and int(process.name) != os.getpid():
            found.append(words)
    return found


def check(peer: str, results: list[Result], folder: Path) -> None:
    """Every row is there, and nothing runs on. That the job was done is checked by the bench itself."""
    assert [result.note for result in results if result.failed] == []
    assert {result.name for result in results} == set(ROWS[peer])
    assert all(result.value and result.reference for result in results)
    assert left_over(folder) == []


@pytest.mark.parametrize("peer", ["redis", "postgresql"])
def test_a_peer_does_the_job(peer: str, folder: Path) -> None:
    needs(peer)
    results, taking_part, figures = measure([peer], PLAN, folder, silent)
    check(peer, results, folder)
    assert {contender.name for contender in taking_part} == set(figures)


def test_the_command_writes_the_rows_and_repeats_their_hashes(folder: Path) -> None:
    path = folder / "peers.json"
    words = ["--smoke", "--only", "sqlite", "--json", str(path)]
    subprocess.run([sys.executable, "-m", "benches.peers", *words], cwd=ROOT, check=True, capture_output=True)
    content = json.loads(path.read_text())
    assert set(content) == {"machine", "commit", "seed", "results"}
    assert all(row["ratio"] == pytest.approx(row["value"] / row["reference"]) for row in content["results"])
    results, _, _ = measure(["sqlite"], PLAN, folder, silent)
    check("sqlite", results, folder)
    assert [(row["name"], row["hash"]) for row in content["results"]] == [(row.name, row.hash) for row in results]


def pairs(terminals: list[int], sims: list[int]) -> Pairs:
    return Pairs(np.array(terminals, np.uint64), np.array(sims, np.uint64))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (pairs([1, 2, 3], [1, 2, 2]), "1 SIMs were given twice"),
        (pairs([1, 2], [1, 2]), "3 terminals asked, 2 have a SIM"),
        (pairs([1, 2, 2], [1, 2, 3]), "3 terminals asked, 2 have a SIM"),
        (pairs([1, 2, 3], [1, 2, 20]), "unhealthy or does not exist"),
        (pairs([1, 2, 3], [1, 2, 101]), "unhealthy or does not exist"),
    ],
)
def test_what_is_not_the_job_is_no_row(found: Pairs, message: str) -> None:
    terminals = np.array([3, 1, 2], np.uint64)
    verify("peer", terminals, 100, pairs([2, 1, 3], [5, 4, 6]))
    with pytest.raises(NotTheJob, match=message):
        verify("peer", terminals, 100, found)


def test_books_have_to_say_what_the_answers_said() -> None:
    terminals = np.array([1, 2], np.uint64)
    told = pairs([1, 2], [5, 6])
    verify_books("peer", terminals, 100, told, pairs([2, 1], [6, 5]))
    verify_books("peer", terminals, 100, told, 2)
    with pytest.raises(NotTheJob, match="another SIM"):
        verify_books("peer", terminals, 100, told, pairs([1, 2], [6, 5]))
    with pytest.raises(NotTheJob, match="1 SIMs are taken"):
        verify_books("peer", terminals, 100, told, 1)


def test_a_peer_that_fails_is_rows_with_the_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One can't be installed; one hands out SIMs that are unhealthy, because it was filled without such."""

    def missing(_peer: str) -> None:
        if _peer == "redis":
            raise install.NotInstalled("redis is not installed and only root may do it")

    monkeypatch.setattr(install, "ensure", missing)
    monkeypatch.setattr("benches.peers.sqlite.UNHEALTHY_EVERY", 10**9)
    results, taking_part, figures = measure(["redis", "sqlite"], PLAN, folder, silent)
    assert {result.name for result in results} == {*ROWS["redis"], *ROWS["sqlite"]}
    assert all(result.met is False for result in results)
    assert all(name.startswith("ours.") for name in figures)
    print_table(PLAN, results, taking_part, figures)
    shown = capsys.readouterr().out
    assert "only root may do it" in shown
    assert "a SIM was given that is unhealthy" in shown
    assert left_over(folder) == []


def test_installing_says_what_it_would_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(install.FIND, "redis", lambda: None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/apt-get")
    with pytest.raises(install.NotInstalled, match="only root may do it: apt-get install redis-server"):
        install.ensure("redis")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(install.NotInstalled, match="there is no apt-get"):
        install.ensure("redis")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_on_the_way_it_ends_its_servers(number: signal.Signals) -> None:
    """Ctrl-C in the middle: every server and client has gone, and so has the folder."""
    before = set((ROOT / "build").glob("bench-peers-*"))
    process = subprocess.Popen(
        [sys.executable, "-m", "benches.peers", "--smoke", "--only", "sqlite"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr as said:
        # All servers and clients run by then.
        assert any("warming up" in line for line in said)
        (mine,) = [path for path in (ROOT / "build").glob("bench-peers-*/") if path not in before]
        assert left_over(mine)
        process.send_signal(number)
        said.read()
    assert process.wait() == (130 if number == signal.SIGINT else 143)
    assert left_over(mine) == []
    assert not mine.exists()

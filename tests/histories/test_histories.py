"""What concurrent clients were told by a server that is killed can be explained; and what can't be, is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.histories.checker import (
    ALLOCATE,
    DONE,
    GRANTED,
    NONE,
    RELEASE,
    RENEW,
    STALE,
    UNANSWERED,
    Call,
    violations,
)
from tests.histories.run import record, summary


def granted(terminal: int, begun_s: float, answered_s: float, epoch: int, sim: str = "a") -> Call:
    return Call(ALLOCATE, terminal, begun_s, answered_s, GRANTED, epoch, sim)


def asked(kind: str, terminal: int, begun_s: float, answered_s: float, epoch: int, answer: str) -> Call:
    return Call(kind, terminal, begun_s, answered_s, answer, epoch)


SOUND = {
    "one after the other": [
        granted(1, 0, 1, 5),
        asked(RENEW, 1, 2, 3, 5, DONE),
        asked(RELEASE, 1, 4, 5, 5, DONE),
        asked(RENEW, 1, 6, 7, 5, NONE),
        granted(1, 8, 9, 6),
        asked(RENEW, 1, 10, 11, 5, STALE),
    ],
    "a renewal beside a release says either": [
        granted(1, 0, 1, 5),
        asked(RELEASE, 1, 2, 6, 5, DONE),
        asked(RENEW, 1, 3, 5, 5, DONE),
        asked(RENEW, 1, 3, 6, 5, NONE),
    ],
    "a release that was not answered took effect": [
        granted(1, 0, 1, 5),
        asked(RELEASE, 1, 2, 3, 5, UNANSWERED),
        asked(RENEW, 1, 4, 5, 5, NONE),
        granted(2, 6, 7, 6),
    ],
    "or did not": [
        granted(1, 0, 1, 5),
        asked(RELEASE, 1, 2, 3, 5, UNANSWERED),
        asked(RENEW, 1, 4, 5, 5, DONE),
    ],
    "a grant that was not told is told later": [
        Call(ALLOCATE, 1, 0, 1, UNANSWERED),
        granted(1, 2, 3, 5),
        granted(1, 4, 5, 5),
    ],
    "the SIM goes on after it was given back": [
        granted(1, 0, 1, 5),
        asked(RELEASE, 1, 2, 5, 5, DONE),
        granted(2, 3, 6, 6),
    ],
}

UNSOUND = {
    "an acknowledged grant is gone": [granted(1, 0, 1, 5), asked(RENEW, 1, 2, 3, 5, NONE)],
    "an acknowledged release is gone": [
        granted(1, 0, 1, 5),
        asked(RELEASE, 1, 2, 3, 5, DONE),
        asked(RENEW, 1, 4, 5, 5, DONE),
    ],
    "a release that was not answered took effect, and then had not": [
        granted(1, 0, 1, 5),
        asked(RELEASE, 1, 2, 3, 5, UNANSWERED),
        asked(RENEW, 1, 4, 5, 5, NONE),
        asked(RENEW, 1, 6, 7, 5, DONE),
    ],
    "an epoch comes twice": [granted(1, 0, 1, 5), asked(RELEASE, 1, 2, 3, 5, DONE), granted(1, 4, 5, 5, "b")],
    "asked again, another SIM": [granted(1, 0, 1, 5), granted(1, 2, 3, 6, "b")],
    "two hold one SIM": [granted(1, 0, 1, 5), granted(2, 2, 3, 6)],
    "two hold one SIM under one epoch": [granted(1, 0, 1, 5), granted(2, 2, 3, 5)],
    "it was given back only later": [
        granted(1, 0, 1, 5),
        granted(2, 2, 3, 6),
        asked(RELEASE, 1, 4, 5, 5, DONE),
    ],
}


@pytest.mark.parametrize("calls", SOUND.values(), ids=SOUND.keys())
def test_what_one_thing_could_have_said_is_sound(calls: list[Call]) -> None:
    assert violations(calls) == []


@pytest.mark.parametrize("calls", UNSOUND.values(), ids=UNSOUND.keys())
def test_what_it_could_not_have_said_is_found(calls: list[Call]) -> None:
    assert violations(calls)


def test_histories_of_a_server_that_is_killed_are_sound(tmp_path: Path) -> None:
    calls = record(tmp_path / "data", 20200321, kills=5)
    found = summary(20200321, 5, calls)
    assert found["violations"] == [], found
    assert found["granted"] > 50
    assert found["released"] > 20
    assert found["answered"] < found["calls"], "nobody waited when the server was killed"


def test_a_server_that_acknowledges_before_it_writes_is_found(tmp_path: Path) -> None:
    """Each kill takes acknowledged records; within a few somebody notices."""
    for attempt in range(10):
        calls = record(tmp_path / str(attempt) / "data", attempt, 2, ("-m", "tests.histories.forgetful"))
        if violations(calls):
            return
    pytest.fail("twenty kills of a server that forgets, and every history could be explained")

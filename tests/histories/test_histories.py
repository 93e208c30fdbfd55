"""What access servers were told by a server that is killed can be explained; and what can't be, is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.histories.checker import (
    ALLOCATE,
    DEATH,
    DONE,
    ENDED,
    FAILED_ATTACH,
    GRANTED,
    HELLO,
    LATE,
    NAMED,
    NONE,
    RELEASE,
    RENEW,
    REPORT,
    STALE,
    SWITCH,
    UNANSWERED,
    Call,
    HealthCall,
    History,
    Holding,
    violations,
)
from tests.histories.run import counted_bytes, record, summary


def granted(terminal: int, begun_s: float, answered_s: float, epoch: int, sim: str = "a", server: str = "as-1") -> Call:
    return Call(ALLOCATE, terminal, server, begun_s, answered_s, GRANTED, granted=epoch, sim=sim)


def asked(
    kind: str, begun_s: float, answered_s: float, epoch: int, answer: str, server: str = "as-1", total: int = 0
) -> Call:
    return Call(kind, 1, server, begun_s, answered_s, answer, epoch, total_bytes=total)


def switch(begun_s: float, answered_s: float, source: str, target: str, epoch: int) -> Call:
    return Call(SWITCH, 1, "as-1", begun_s, answered_s, UNANSWERED, granted=epoch, sim=target, source=source)


def gone(kind: str, begun_s: float, answered_s: float, opened_s: float, epoch: int = 0) -> Call:
    return Call(kind, 1, "as-1", begun_s, answered_s, UNANSWERED, epoch, sim="a" if epoch else "", opened_s=opened_s)


def failed(begun_s: float, answered_s: float, epoch: int, given: int, sim: str, source: str = "a") -> Call:
    return Call(FAILED_ATTACH, 1, "as-1", begun_s, answered_s, GRANTED, epoch, given, sim, source)


SOUND = {
    "one after the other": [
        granted(1, 0, 1, 5),
        asked(RENEW, 2, 3, 5, DONE),
        asked(RELEASE, 4, 5, 5, DONE),
        asked(RENEW, 6, 7, 5, NONE),
        granted(1, 8, 9, 6),
        asked(RENEW, 10, 11, 5, STALE),
    ],
    "a renewal beside a release says either": [
        granted(1, 0, 1, 5),
        asked(RELEASE, 2, 6, 5, DONE),
        asked(RENEW, 3, 5, 5, DONE),
        asked(RENEW, 3, 6, 5, NONE),
    ],
    "a release that was not answered took effect": [
        granted(1, 0, 1, 5),
        asked(RELEASE, 2, 3, 5, UNANSWERED),
        asked(RENEW, 4, 5, 5, NONE),
    ],
    "or did not": [granted(1, 0, 1, 5), asked(RELEASE, 2, 3, 5, UNANSWERED), asked(RENEW, 4, 5, 5, DONE)],
    "a grant that was not told is told later": [
        Call(ALLOCATE, 1, "as-1", 0, 1, UNANSWERED),
        granted(1, 2, 3, 5),
        granted(1, 4, 5, 5),
    ],
    "it goes to another access server": [
        granted(1, 0, 1, 5),
        granted(1, 2, 3, 6, "b", "as-2"),
        asked(RENEW, 4, 5, 5, STALE),
        asked(RENEW, 4, 5, 6, DONE, "as-2"),
    ],
    "reports count once, also after the lease": [
        granted(1, 0, 1, 5),
        asked(REPORT, 2, 3, 5, DONE, total=10),
        asked(REPORT, 4, 5, 5, LATE, total=10),
        asked(REPORT, 6, 7, 5, DONE, total=11),
        asked(RELEASE, 8, 9, 5, DONE),
        asked(REPORT, 10, 11, 5, ENDED, total=12),
        asked(REPORT, 12, 13, 5, NONE, total=12),
        granted(1, 14, 15, 6, "b", "as-2"),
        asked(REPORT, 16, 17, 5, ENDED, total=13),
    ],
    "a switch that was carried out counts when traffic shows it": [
        granted(1, 0, 1, 5),
        switch(2, 9, "a", "b", 6),
        asked(RENEW, 3, 4, 5, DONE),
        asked(RENEW, 5, 6, 6, DONE),
        asked(RENEW, 7, 8, 5, STALE),
    ],
    "what a hello does not name is over": [
        granted(1, 0, 1, 5),
        gone(HELLO, 3, 9, 2),
        asked(RENEW, 4, 5, 5, NONE),
        granted(1, 6, 7, 6),
    ],
    "what a hello names goes on": [
        granted(1, 0, 1, 5),
        gone(HELLO, 2, 9, 1.5, 5),
        gone(NAMED, 2, 4.5, 1.5, 5),
        asked(RELEASE, 3, 4, 5, DONE),
        asked(RENEW, 5, 6, 5, DONE),
    ],
    "what a dead access server had is over": [
        granted(1, 0, 1, 5),
        gone(DEATH, 2, 9, 2),
        asked(RENEW, 4, 5, 5, NONE),
    ],
    "a failed attach gives another": [granted(1, 0, 1, 5), failed(2, 3, 5, 6, "b"), asked(RENEW, 4, 5, 6, DONE)],
}

UNSOUND = {
    "an acknowledged grant is gone": [granted(1, 0, 1, 5), asked(RENEW, 2, 3, 5, NONE)],
    "an acknowledged release is gone": [
        granted(1, 0, 1, 5),
        asked(RELEASE, 2, 3, 5, DONE),
        asked(RENEW, 4, 5, 5, DONE),
    ],
    "a release that was not answered took effect, and then had not": [
        granted(1, 0, 1, 5),
        asked(RELEASE, 2, 3, 5, UNANSWERED),
        asked(RENEW, 4, 5, 5, NONE),
        asked(RENEW, 6, 7, 5, DONE),
    ],
    "an epoch comes twice": [granted(1, 0, 1, 5), asked(RELEASE, 2, 3, 5, DONE), granted(1, 4, 5, 5, "b")],
    "asked again, another SIM": [granted(1, 0, 1, 5), granted(1, 2, 3, 6, "b")],
    "a stale epoch is taken": [granted(1, 0, 1, 5), granted(1, 2, 3, 6, "b", "as-2"), asked(RENEW, 4, 5, 5, DONE)],
    "the right epoch from elsewhere is taken": [granted(1, 0, 1, 5), asked(RENEW, 2, 3, 5, DONE, "as-2")],
    "a report is forgotten": [
        granted(1, 0, 1, 5),
        asked(REPORT, 2, 3, 5, DONE, total=10),
        asked(REPORT, 4, 5, 5, DONE, total=10),
    ],
    "a report is taken for late": [granted(1, 0, 1, 5), asked(REPORT, 2, 3, 5, LATE, total=10)],
    "a switch is taken back": [
        granted(1, 0, 1, 5),
        switch(2, 9, "a", "b", 6),
        asked(RENEW, 3, 4, 6, DONE),
        asked(RENEW, 5, 6, 5, DONE),
    ],
    "a switch that nobody carried out": [granted(1, 0, 1, 5), asked(RENEW, 3, 4, 6, DONE)],
    "a release that is lost after a hello was taken": [
        granted(1, 0, 1, 5),
        gone(HELLO, 2, 9, 1.5, 5),
        gone(NAMED, 2, 2.5, 1.5, 5),
        asked(RELEASE, 3, 4, 5, DONE),
        asked(RENEW, 5, 6, 5, DONE),
    ],
    "what a hello names is over": [granted(1, 0, 1, 5), gone(HELLO, 3, 9, 2, 5), asked(RENEW, 4, 5, 5, NONE)],
    "what was given after a hello is over": [gone(HELLO, 1, 9, 0), granted(1, 2, 3, 5), asked(RENEW, 4, 5, 5, NONE)],
    "it dies before it was declared dead": [
        granted(1, 0, 1, 5),
        asked(RENEW, 2, 3, 5, NONE),
        gone(DEATH, 4, 9, 4),
    ],
}


@pytest.mark.parametrize("calls", SOUND.values(), ids=SOUND.keys())
def test_what_one_thing_could_have_said_is_sound(calls: list[Call]) -> None:
    assert violations(History(calls)) == []


@pytest.mark.parametrize("calls", UNSOUND.values(), ids=UNSOUND.keys())
def test_what_it_could_not_have_said_is_found(calls: list[Call]) -> None:
    assert len(violations(History(calls))) == 1


def test_a_sim_is_somebodys_alone_and_fit_when_it_is_given() -> None:
    def found(calls: list[Call], healths: list[HealthCall], *held: tuple[float, float]) -> list[str]:
        holdings = [Holding("a", number, "as-1", from_s, until_s) for number, (from_s, until_s) in enumerate(held)]
        return violations(History(calls, healths, holdings))

    assert found([], [], (0, 1), (1, 2), (2, 3)) == []
    assert len(found([], [], (0, 1), (1, 2.5), (2, 3))) == 1
    unfit, fit = HealthCall("a", False, 1, 2, True), HealthCall("a", True, 5, 6, True)
    assert len(found([granted(1, 3, 4, 5)], [unfit, fit])) == 1
    assert found([granted(1, 1.5, 4, 5)], [unfit, fit]) == []
    assert found([granted(1, 3, 5.5, 5)], [unfit, fit]) == []
    assert found([granted(1, 3, 4, 5)], [HealthCall("a", False, 1, 2, False)]) == []
    # Who has it is given another one.
    moved = [granted(1, 0, 0.5, 5), granted(1, 3, 4, 6, "b")]
    assert found(moved, [unfit]) == []
    assert len(found(moved, [])) == 1
    # A failed attach is such a word, too.
    assert len(found([granted(1, 0, 1, 5), failed(2, 3, 5, 6, "b"), granted(2, 4, 5, 7)], [])) == 1


def test_what_was_counted_lies_between_what_was_acknowledged_and_what_was_sent() -> None:
    calls = [
        granted(1, 0, 1, 5),
        asked(REPORT, 2, 3, 5, DONE, total=10),
        asked(REPORT, 4, 5, 5, UNANSWERED, total=14),
    ]
    assert [len(violations(History(calls), counted)) for counted in (9, 10, 14, 15)] == [1, 0, 0, 1]


def test_histories_of_a_server_that_is_killed_are_sound(tmp_path: Path) -> None:
    history, happened = record(tmp_path / "data", 20200321, kills=2)
    found = summary(20200321, 2, history, happened, counted_bytes(tmp_path / "data"))
    assert found["violations"] == [], found
    assert found["moves"] > 10
    assert found["in_batches"][GRANTED] > 10
    assert found["switches"] > 0
    assert found["deaths"] == 1
    assert found["answered"] < found["calls"], "nobody waited when the server was killed"


def test_a_server_that_acknowledges_before_it_writes_is_found(tmp_path: Path) -> None:
    """Each kill takes acknowledged records; within a few somebody notices."""
    for attempt in range(10):
        history, _ = record(
            tmp_path / str(attempt) / "data", attempt, 1, ("-m", "tests.histories.spoiled", "forgetful")
        )
        if violations(history):
            return
    pytest.fail("ten kills of a server that forgets, and every history could be explained")


def test_a_careless_server_is_found(tmp_path: Path) -> None:
    """What is asked while the fault shows is a matter of turns; within a few histories each is met."""
    missing = {
        "renew of terminal": "a stale epoch is taken",
        "report of terminal": "a report is forgotten",
        "is held twice": "two have one SIM",
        "was not to be handed out": "a SIM is given out that is unfit",
    }
    for attempt in range(10):
        program = ("-m", "tests.histories.spoiled", "careless")
        found = " ".join(violations(record(tmp_path / str(attempt) / "data", attempt, 0, program, 600)[0]))
        missing = {said: fault for said, fault in missing.items() if said not in found}
        if not missing:
            return
    pytest.fail(f"ten histories in which these faults could be explained: {list(missing.values())}")

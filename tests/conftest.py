"""For all tests."""

import fcntl
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A shell starts what it puts into the background deaf to SIGINT, and every process that a test starts would be too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# As the program does; read when SciPy is loaded, which is later.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# No test fails by a clock: under the sanitizers, in a fresh clone, the first text that is drawn took 37 s.
settings.register_profile("simswitch", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("simswitch")

TESTS = Path(__file__).parent
ALONE = tuple(str(TESTS / name) for name in ("benches", "demo", "load", "service/test_overload.py", "soak"))
"""What keeps a pace or measures one: no other test runs beside it."""


_room: int | None = None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Around a test and before its time runs. Tests run in two processes; the locks are files that all of them have.

    Whoever waits to be alone keeps the door meanwhile, so nobody passes; and stays alone to the last of such tests that
    follow each other, or each of them would wait for one of the other process.
    """
    global _room
    alone = _alone(item)
    if _room is None:
        door = os.open(TESTS, os.O_RDONLY)
        fcntl.flock(door, fcntl.LOCK_EX)
        _room = os.open(TESTS / "conftest.py", os.O_RDONLY)
        fcntl.flock(_room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        os.close(door)
    try:
        return (yield)
    finally:
        if not (alone and nextitem is not None and _alone(nextitem)):
            _leave()


def pytest_sessionfinish() -> None:
    """One of two processes may end before its next test that runs alone (``-x``): the other goes on."""
    _leave()


def _leave() -> None:
    global _room
    if _room is not None:
        os.close(_room)
        _room = None


def _alone(item: pytest.Item) -> bool:
    return str(item.path).startswith(ALONE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Seeds that were drawn are told whatever came of them, so that any run can be had again."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ():
                terminalreporter.write_line(f"{report.nodeid}: {name} {value}")

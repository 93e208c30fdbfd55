"""Work in a process of its own: who waits for it and is interrupted or ended leaves nobody behind."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from simswitch.folder.apart import Refused, _answer, apart

ROOT = Path(__file__).parents[2]

_LOCK = threading.Lock()
"""Stands for those that a library has for itself."""


class Interrupted(Exception):
    pass


def wait_beside(_: object, told: Path) -> None:
    told.write_text(str(os.getpid()))
    parent = os.getppid()
    # It sleeps only where it waits for the answer.
    while Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        pass
    os.kill(parent, signal.SIGUSR1)
    signal.pause()


def test_who_is_interrupted_ends_the_child(tmp_path: Path) -> None:
    told = tmp_path / "child"

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted):
            apart(wait_beside, told)
    finally:
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)


def linger(_: object, told: Path) -> None:
    unfinished = told.with_suffix(".new")
    unfinished.write_text(str(os.getpid()))
    unfinished.replace(told)
    signal.pause()


def ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def until(condition: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.005)
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_is_ended_takes_the_child_with_him(number: signal.Signals, tmp_path: Path) -> None:
    told = tmp_path / "child"
    script = (
        "import sys; from pathlib import Path; from simswitch.folder.apart import apart; "
        "from tests.folder.test_apart import linger; apart(linger, Path(sys.argv[1]))"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(told)], cwd=ROOT) as parent:
        assert until(told.exists)
        parent.send_signal(number)
    child = int(told.read_text())
    gone = until(lambda: ended(child))
    if not gone:
        os.kill(child, signal.SIGKILL)
    assert gone


def place_of(note: object) -> bool:
    return callable(note)


def test_an_answer_that_nobody_waits_for_is_no_error() -> None:
    reading, writing = multiprocessing.Pipe(duplex=False)
    reading.close()
    with writing:
        _answer(ctypes.c_uint64(), writing, place_of, (), {})


def use(_: object) -> bool:
    return _LOCK.acquire(timeout=0)


def test_a_lock_that_somebody_has_is_free_in_the_child() -> None:
    with _LOCK:
        assert apart(use)


def end(note: Callable[[int], object], sequence: int, number: int) -> None:
    note(sequence)
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("sequence", "number", "told"),
    [
        (7, signal.SIGABRT, "record 7 .*signal 6.*--skip 7$"),
        (0, signal.SIGABRT, "not while it applied a record .signal 6"),
        (7, signal.SIGKILL, "killed at record 7 .signal 9.*memory"),
        (0, signal.SIGKILL, "killed .signal 9.*memory"),
    ],
)
def test_only_a_record_that_was_applied_is_blamed(sequence: int, number: int, told: str) -> None:
    with pytest.raises(Refused, match=told) as caught:
        apart(end, sequence, number)
    assert ("--skip" in str(caught.value)) == told.endswith("--skip 7$")


def answer_oddly(note: Callable[[int], object]) -> object:
    note(7)
    return lambda: None


def test_an_answer_that_cannot_be_given_is_no_records_fault() -> None:
    with pytest.raises(Refused, match="not while it applied a record"):
        apart(answer_oddly)

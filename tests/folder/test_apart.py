"""Work in a process of its own: who waits for it and is interrupted leaves nobody behind."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from simswitch.folder.apart import apart

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


def use(_: object) -> bool:
    return _LOCK.acquire(timeout=0)


def test_a_lock_that_somebody_has_is_free_in_the_child() -> None:
    with _LOCK:
        assert apart(use)

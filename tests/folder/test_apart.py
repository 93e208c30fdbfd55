"""Work in a process of its own: who waits for it and is interrupted leaves nobody behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from simswitch.folder.apart import apart


class Interrupted(Exception):
    pass


def test_who_is_interrupted_ends_the_child(tmp_path: Path) -> None:
    told = tmp_path / "child"

    def interrupt(*_: object) -> None:
        raise Interrupted

    def work(_: object) -> None:
        told.write_text(str(os.getpid()))
        parent = os.getppid()
        # It sleeps only where it waits for the answer.
        while Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            pass
        os.kill(parent, signal.SIGUSR1)
        signal.pause()

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted):
            apart(work)
    finally:
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)

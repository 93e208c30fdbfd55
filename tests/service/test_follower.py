"""The follower's process beside a server: real processes that end in the ways a follower ends."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simswitch.cell import Cell
from simswitch.history.reading import known
from simswitch.history.schema import HistoryRefused, open_reader
from simswitch.journal.disk import RealDisk
from simswitch.journal.follower import EXIT_DAMAGED, EXIT_DISK
from simswitch.journal.snapshot import snapshot_sequences
from simswitch.service import follower, server
from simswitch.service.follower import EXIT_LACKING, Patience, keep_follower, keep_learner
from simswitch.service.settings import ServerSettings

from tests.cell.small_pool import allocate, fill
from tests.journal.allocating_server import CAPACITY, SETTINGS

IMPATIENT = Patience(first_wait_s=0.01, longest_wait_s=0.02, failures_max=3, moment_s=0.01)
# Notes that it was started, and ends with the status that stands next in its arguments; without one it stays.
FOLLOWER = (
    "import sys\n"
    "with open(sys.argv[1], 'a+') as file:\n"
    "    file.write('started\\n')\n"
    "    file.seek(0)\n"
    "    starts = len(file.readlines())\n"
    "if starts < len(sys.argv) - 1:\n"
    "    sys.exit(int(sys.argv[starts + 1]))\n"
    "sys.stdin.read()\n"
)


def starts(folder: Path) -> int:
    path = folder / "starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


async def kept(folder: Path, *statuses: int, until: int, learner: bool = False) -> bool:
    """Keeps a process that ends with these statuses until it was started so often. True: it was kept to the last."""
    stopping = asyncio.Event()
    command = [sys.executable, "-c", FOLLOWER, str(folder / "starts"), *map(str, statuses)]
    if learner:
        keeping = asyncio.create_task(keep_learner(command, stopping, IMPATIENT))
    else:
        keeping = asyncio.create_task(keep_follower(command, folder, stopping, IMPATIENT))
    async with asyncio.timeout(30):
        while starts(folder) < until and not keeping.done():
            await asyncio.sleep(0.005)
        left = keeping.done()
        stopping.set()
        await keeping
    return not left


def test_a_follower_that_was_killed_or_refused_by_the_disk_is_started_again(tmp_path: Path) -> None:
    assert asyncio.run(kept(tmp_path, EXIT_DISK, 1, until=3))
    assert starts(tmp_path) == 3


def test_a_follower_that_found_damage_stays_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "follower-alarm.txt").write_text("I10: another outcome")
    assert not asyncio.run(kept(tmp_path, EXIT_DAMAGED, until=2))
    assert starts(tmp_path) == 1
    assert "I10: another outcome. It is not started again" in caplog.text


def test_a_follower_that_always_fails_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not asyncio.run(kept(tmp_path, *[1] * 20, until=20))
    assert starts(tmp_path) == 1 + IMPATIENT.failures_max
    assert "It is started again in 0.02 s" in caplog.text
    assert "It is not started again" in caplog.text


def test_a_follower_that_cannot_be_started_just_now_is_started_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody once knew of it, and the server ended without its last snapshot."""
    start, left = subprocess.Popen, 2
    error = OSError(errno.EAGAIN, "there are processes enough")

    def started(*words: Any, **named: Any) -> subprocess.Popen[bytes]:
        nonlocal left
        left -= 1
        if left >= 0:
            raise error
        return start(*words, **named)

    monkeypatch.setattr(subprocess, "Popen", started)
    assert asyncio.run(kept(tmp_path, until=1))
    assert starts(tmp_path) == 1
    assert caplog.text.count(f"the follower can't be started: {error}. It is started") == 2


@pytest.mark.parametrize("learner", [False, True])
def test_a_process_that_nobody_can_wait_for_is_ended_and_another_is_started(
    learner: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once lived beside the server until that ended."""
    start = subprocess.Popen
    processes: list[subprocess.Popen[bytes]] = []

    def started(*words: Any, **named: Any) -> subprocess.Popen[bytes]:
        processes.append(start(*words, **named))
        return processes[-1]

    class Threads(threading.Thread):
        def start(self) -> None:
            if len(processes) == 1:
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(threading, "Thread", Threads)
    asyncio.run(kept(tmp_path, until=1, learner=learner))
    first, second = processes
    assert first.returncode == -signal.SIGKILL
    assert second.returncode == (-signal.SIGTERM if learner else 0)
    assert all(process.stdin is not None and process.stdin.closed for process in processes)
    assert caplog.text.count("can't be started: can't start new thread. It is started again") == 1


def test_a_follower_whose_reason_cannot_be_read_is_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk that ended the follower fails for the server too."""

    def refused(_: object) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(follower, "read_alarm", refused)
    assert asyncio.run(kept(tmp_path, EXIT_DISK, until=2))
    assert f"has ended with {EXIT_DISK}: its reason can't be read: [Errno 5] Input/output error. It is" in caplog.text


def test_what_happens_to_who_keeps_the_follower_is_told_at_once_and_the_server_ends_as_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: object) -> None:
        raise RuntimeError("nobody thought of it")

    class Reader(logging.Handler):
        """Whoever reads the log ends the server."""

        def emit(self, record: logging.LogRecord) -> None:
            if "nobody keeps the follower running any more" in record.getMessage():
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(server, "keep_follower", failing)
    reader = Reader()
    server.log.addHandler(reader)

    async def served() -> None:
        settings = ServerSettings(capacity=CAPACITY, journal=SETTINGS)
        async with asyncio.timeout(30):
            await server.serve(tmp_path, settings)

    try:
        asyncio.run(served())
    finally:
        server.log.removeHandler(reader)
    assert caplog.text.count("nobody thought of it") == 1
    assert snapshot_sequences(RealDisk(tmp_path))


def test_a_learner_is_started_again_unless_it_lacks_something(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert asyncio.run(kept(tmp_path, 1, EXIT_LACKING, until=3, learner=True)) is False
    assert starts(tmp_path) == 2
    assert "the learner has ended with 2" in caplog.text
    assert "It is not started again, and SIMs that are slowed stay unnoticed" in caplog.text


def position(folder: Path) -> int:
    try:
        return known(open_reader(folder)).sequence
    except HistoryRefused:
        return 0


def follower_process() -> int:
    """The process that this one has started; 0: it has ended."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            if b"simswitch.following" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
    return 0


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_history_has_the_servers_last_records_whoever_was_signalled(
    number: signal.Signals, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A service manager and Ctrl-C signal the follower as well, and the server still writes."""
    cell = Cell.open(tmp_path, capacity=CAPACITY, journal=SETTINGS)
    command = [sys.executable, "-m", "simswitch.following", str(tmp_path), "--parent", str(os.getpid())]

    async def stopped() -> None:
        stopping = asyncio.Event()
        keeping = asyncio.create_task(keep_follower(command, tmp_path, stopping, Patience(moment_s=3_600)))
        fill(cell.step, 1_000)
        await until(lambda: position(tmp_path) == cell.durable_sequence)
        process = follower_process()
        assert process
        os.kill(process, number)
        cell.step(allocate(1, 10))
        await until(lambda: position(tmp_path) == cell.durable_sequence or not follower_process())
        for terminal in range(11, 500, 10):
            cell.step(allocate(terminal, 10))
        cell.stop()
        stopping.set()
        await keeping

    asyncio.run(stopped())
    assert position(tmp_path) == cell.durable_sequence
    assert caplog.text == ""
    cell.close()

"""Snapshots as a person asks for them: by the settings of a server, and by ``simswitch follow`` on a folder."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from simswitch.cell import Capacity, Cell, JournalSettings
from simswitch.cli.exits import Exit
from simswitch.demo.processes import Server
from simswitch.journal.disk import RealDisk
from simswitch.journal.snapshot import newest_snapshot_sequence

from tests.cell.small_pool import fill
from tests.cli.conftest import program

EVERY_SECOND = "[journal]\nsegment_bytes = 1_048_576\nfree_mark_bytes = 0\n[follower]\nsnapshot_seconds = 1\n"


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end_s, "it never happened"
        time.sleep(0.02)


def test_a_server_makes_snapshots_as_often_as_its_settings_say(tmp_path: Path) -> None:
    config = tmp_path / "simswitch.toml"
    config.write_text(EVERY_SECOND, encoding="utf-8")
    running = Server(tmp_path / "data", config, tmp_path / "server.log")
    running.start()
    try:
        assert program("swap", "stop", "--all", address=running.address).returncode == 0
        # The server still runs, so the snapshot is not the one of its clean end.
        wait_until(lambda: newest_snapshot_sequence(RealDisk(tmp_path / "data", create=False)) > 0)
    finally:
        running.stop()


def test_follow_makes_snapshots_of_a_folder_until_sigterm(tmp_path: Path) -> None:
    config = tmp_path / "simswitch.toml"
    config.write_text(EVERY_SECOND, encoding="utf-8")
    folder = tmp_path / "data"
    cell = Cell.open(
        folder,
        capacity=Capacity(2_000, 2_000, 1_000),
        journal=JournalSettings(segment_bytes=1 << 20, free_mark_bytes=0),
    )
    command = [sys.executable, "-m", "simswitch", "follow", str(folder), "--config", str(config)]
    follower = None
    try:
        fill(cell.step, 1_000)
        follower = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        # The cell is not closed yet, so nobody but the follower can have made it.
        wait_until(lambda: newest_snapshot_sequence(RealDisk(folder, create=False)) == cell.durable_sequence)
        follower.send_signal(signal.SIGTERM)
        _, errors = follower.communicate(timeout=30)
        assert follower.returncode == Exit.OK, errors
    finally:
        if follower is not None and follower.poll() is None:
            follower.kill()
            follower.communicate()
        cell.close()

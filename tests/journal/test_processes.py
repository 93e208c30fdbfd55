"""Real processes on a real disk: killed servers, a second server, and the follower beside a server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from simswitch.cell import Cell, FolderInUse, JournalSettings, VirtualClock
from simswitch.core import commands
from simswitch.core.layout import TICK
from simswitch.journal.append import FAIL_STOP_EXIT_CODE
from simswitch.journal.disk import LOCK_NAME, RealDisk, holder
from simswitch.journal.follower import EXIT_DAMAGED, EXIT_STOPPED, Follower, FollowerSettings, read_alarm
from simswitch.journal.format import BLOCK_BYTES, RECORD_MAGIC, segment_name
from simswitch.journal.inspect import inspect
from simswitch.journal.recovery import real_machine, recover
from simswitch.journal.snapshot import newest_snapshot_sequence, open_snapshot, snapshot_sequences

from tests.cell.small_pool import allocate, fill
from tests.journal.allocating_server import CAPACITY, SETTINGS

ROOT = Path(__file__).parents[2]


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@contextmanager
def following(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = started("-m", "simswitch.journal.follower", str(folder), "--poll-ms", "2", *options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert process is None or process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def test_i6_a_server_that_is_killed_loses_no_acknowledged_allocation(tmp_path: Path) -> None:
    acknowledged: dict[int, int] = {}
    for life, lines_before_the_end in enumerate((1, 60, 700, 2500)):
        server = started("-m", "tests.journal.allocating_server", str(tmp_path), str(life * 10_000 + 1))
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        for _ in range(lines_before_the_end):
            terminal, epoch = server.stdout.readline().split()
            acknowledged[int(terminal)] = int(epoch)
        server.send_signal(signal.SIGKILL)
        # What it had printed when it died was acknowledged too; a line without its end may be cut short.
        rest, errors = server.communicate()
        assert server.returncode == -signal.SIGKILL, errors
        for line in rest.splitlines(keepends=True):
            if line.endswith("\n"):
                terminal, epoch = line.split()
                acknowledged[int(terminal)] = int(epoch)
        recovery = recover(RealDisk(tmp_path), real_machine(), repair=False)
        for key, lease in acknowledged.items():
            index = recovery.machine.find_terminal(key)
            assert index is not None, f"life {life}: terminal {key} was acknowledged and is gone"
            assert recovery.machine.terminal(index)["epoch"] == lease
        assert recovery.machine.check() == []
    assert len(acknowledged) > 3000


def test_a_second_server_on_the_folder_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    cell = Cell.open(tmp_path, capacity=CAPACITY, journal=SETTINGS)
    with pytest.raises(FolderInUse, match=f"in use by process {os.getpid()}"):
        Cell.open(tmp_path, capacity=CAPACITY, journal=SETTINGS)
    second = started("-m", "tests.journal.allocating_server", str(tmp_path), "1")
    _, errors = second.communicate(timeout=60)
    assert second.returncode != 0
    assert f"in use by process {os.getpid()}" in errors
    assert inspect(tmp_path)["lock"] == {"held": True, "pid": os.getpid()}
    # Whoever takes the file for a stale one and removes it gets no second server by that.
    (tmp_path / LOCK_NAME).unlink()
    with pytest.raises(FolderInUse):
        Cell.open(tmp_path, capacity=CAPACITY, journal=SETTINGS)
    assert inspect(tmp_path)["lock"] == {"held": True, "pid": os.getpid()}
    cell.close()
    assert inspect(tmp_path)["lock"] == {"held": False, "pid": None}
    Cell.open(tmp_path, capacity=CAPACITY, journal=SETTINGS).close()


def filled(folder: Path, settings: JournalSettings = SETTINGS) -> Cell:
    cell = Cell.open(folder, capacity=CAPACITY, journal=settings, clock=VirtualClock(1_700_000_000_000))
    fill(cell.step, 5_000)
    return cell


def test_i10_the_followers_snapshots_are_the_servers_state(tmp_path: Path) -> None:
    cell = filled(tmp_path)
    disk = RealDisk(tmp_path)
    hashes = {cell.durable_sequence: cell.machine.state_hash()}
    with following(tmp_path, "--snapshot-bytes", str(20 * BLOCK_BYTES)) as follower:
        for turn in range(4):
            for number in range(25):
                cell.step(allocate(1 + turn * 1000 + number * 10, 10))
                hashes[cell.durable_sequence] = cell.machine.state_hash()
            wait_until(lambda: newest_snapshot_sequence(disk) > cell.durable_sequence - 20, follower)
            # The newest stays while the follower takes others away.
            with open_snapshot(disk, newest_snapshot_sequence(disk)) as (header, _):
                assert header.state_hash == hashes[header.sequence]
        wait_until(lambda: len(snapshot_sequences(disk)) == 2, follower)
        follower.send_signal(signal.SIGTERM)
        follower.wait(timeout=30)
        assert follower.returncode == EXIT_STOPPED
    state_hash = cell.machine.state_hash()
    recovery = recover(RealDisk(tmp_path), real_machine(), repair=False)
    assert recovery.snapshot_sequence > 0
    assert recovery.machine.state_hash() == state_hash
    cell.close()


def test_the_follower_lets_segments_go_that_no_snapshot_needs(tmp_path: Path) -> None:
    cell = filled(tmp_path, JournalSettings(segment_bytes=64 * 1024, free_mark_bytes=0))
    follower = Follower(RealDisk(tmp_path), settings=FollowerSettings(bytes_max=10 * BLOCK_BYTES))
    for turn in range(120):
        cell.step(allocate(1 + turn * 10, 10))
        while follower.turn():
            pass
    assert follower.sequence == cell.durable_sequence
    assert follower.machine.state_hash() == cell.machine.state_hash()
    names = os.listdir(tmp_path)
    assert segment_name(1) not in names
    assert len([name for name in names if name.startswith("snapshot")]) == 2
    follower.close()
    cell.close()
    again = Cell.open(tmp_path, capacity=CAPACITY, journal=SETTINGS)
    assert again.machine.find_terminal(1200) is not None
    again.close()


def test_a_follower_that_starts_again_goes_on_from_the_newest_snapshot(tmp_path: Path) -> None:
    cell = filled(tmp_path)
    first = Follower(RealDisk(tmp_path))
    while first.turn():
        pass
    first.take_snapshot()
    first.close()
    cell.step(allocate(1, 10))
    second = Follower(RealDisk(tmp_path))
    assert second.snapshot_sequence == cell.durable_sequence - 1
    while second.turn():
        pass
    assert second.machine.state_hash() == cell.machine.state_hash()
    second.close()
    cell.close()


def test_the_follower_ends_when_the_process_that_started_it_is_gone(tmp_path: Path) -> None:
    cell = filled(tmp_path)
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'simswitch.journal.follower', sys.argv[1], '--poll-ms', '2',"
        " '--snapshot-bytes', '1'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = started("-c", script, str(tmp_path))
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_until(lambda: bool(snapshot_sequences(RealDisk(tmp_path))), parent)
    parent.kill()
    parent.communicate()
    wait_until(lambda: not os.path.exists(f"/proc/{child}") or _is_zombie(child))
    cell.close()


def test_the_follower_ends_when_its_server_was_gone_before_it_looked(tmp_path: Path) -> None:
    cell = filled(tmp_path)
    # A process that has ended has a number that is not this one's, as the number of a server that was killed has.
    gone = subprocess.Popen(["true"])
    gone.wait()
    with following(tmp_path, "--parent", str(gone.pid)) as follower:
        assert follower.wait(timeout=30) == 0
    cell.close()


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_i10_a_follower_that_gets_another_outcome_says_so_loudly(tmp_path: Path) -> None:
    cell = filled(tmp_path)
    assert cell._journal is not None
    run = commands.run(TICK)
    cell._journal.admit(len(run))
    cell._journal.append(cell.machine.now_ms, 1, run, outcome_hash=12345)
    with following(tmp_path) as follower:
        _, errors = follower.communicate(timeout=60)
        assert follower.returncode == EXIT_DAMAGED
    assert "I10" in errors
    alarm = read_alarm(RealDisk(tmp_path))
    assert alarm is not None
    assert f"sequence {cell.durable_sequence}" in alarm
    assert inspect(tmp_path)["alarm"] == alarm


def test_the_follower_waits_for_a_half_written_record_and_refuses_a_damaged_one(tmp_path: Path) -> None:
    cell = filled(tmp_path, JournalSettings(segment_bytes=1024 * 1024, free_mark_bytes=0))
    follower = Follower(RealDisk(tmp_path))
    while follower.turn():
        pass
    assert cell._journal is not None
    offset = cell._journal._offset
    path = tmp_path / segment_name(cell._journal._segment)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(RECORD_MAGIC)
    assert follower.turn() is False
    cell.step(allocate(1, 10))
    assert follower.turn() is True
    assert follower.machine.state_hash() == cell.machine.state_hash()
    follower.close()
    cell.close()


def test_inspect_says_what_the_folder_holds(tmp_path: Path) -> None:
    cell = filled(tmp_path)
    for number in range(10):
        cell.step(allocate(1 + number))
    records = cell.durable_sequence
    cell.close()
    found = inspect(tmp_path)
    assert json.loads(json.dumps(found)) == found
    assert found["tail"]["case"] == "@C"
    assert found["tail"]["next_sequence"] == records + 1
    assert sum(segment["records"] for segment in found["segments"]) == records
    assert [segment["state"] for segment in found["segments"]] == ["begun", "prepared"]
    assert found["durable_sequence"] == records
    assert [(snapshot["sequence"], snapshot["valid"]) for snapshot in found["snapshots"]] == [(records, True)]
    path = tmp_path / segment_name(1)
    data = bytearray(path.read_bytes())
    data[4096 + 20] ^= 1
    path.write_bytes(data)
    damaged = inspect(tmp_path)["tail"]
    assert damaged["damaged"] is True
    assert (damaged["case"], damaged["next_sequence"]) == ("@G", 1)
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "elsewhere")


def test_a_failing_fsync_ends_the_real_process_with_a_line_that_says_why(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from simswitch.cell import Cell\n"
        "from simswitch.core import commands\n"
        "from simswitch.core.layout import TICK\n"
        "from tests.journal.allocating_server import CAPACITY, SETTINGS\n"
        "cell = Cell.open(sys.argv[1], capacity=CAPACITY, journal=SETTINGS)\n"
        "def fail(fd):\n"
        "    raise OSError(5, 'Input/output error')\n"
        "os.fdatasync = fail\n"
        "try:\n"
        "    cell.step(commands.run(TICK))\n"
        "finally:\n"
        "    print('went on')\n"
    )
    process = started("-c", script, str(tmp_path))
    output, errors = process.communicate(timeout=60)
    assert process.returncode == FAIL_STOP_EXIT_CODE
    assert output == ""
    assert "writing the journal at sequence 2 failed" in errors
    assert "Input/output error" in errors


def test_whose_a_lock_is_goes_by_the_device_too(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    assert disk.locked_by() is None
    lock = disk.lock()
    assert disk.locked_by() == os.getpid()
    place = os.stat(tmp_path / LOCK_NAME)
    device = f"{os.major(place.st_dev):02x}:{os.minor(place.st_dev):02x}"

    def line(process: int, device: str) -> str:
        return f"1: FLOCK  ADVISORY  WRITE {process} {device}:{place.st_ino} 0 EOF"

    with subprocess.Popen(["sleep", "60"]) as other:
        assert holder([line(other.pid, device)], [place]) == other.pid
        assert holder([line(other.pid, "fff:7f")], [place]) is None, "a file of the same number on another disk"
        other.kill()
    assert holder([line(os.getpid(), "fff:7f")], [place]) == os.getpid(), "it has it open, whatever the kernel calls it"
    assert holder([line(os.getpid(), device).replace("1: ", "1: -> ")], [place]) is None, "it only waits"
    lock.release()

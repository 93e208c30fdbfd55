"""A real server on a disk that is really full: it acknowledges nothing, says so, and goes on when there is room."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from simswitch.cli.exits import Exit
from simswitch.client import Client, OperatorClient, ServiceError
from simswitch.v1 import pool_pb2

from tests.folder.lives import Life

DISK_BYTES = 32 << 20
MARK_BYTES = 12 << 20
# A disk of its own without being root: memory that is mounted where only this process and its children see it.
ALONE = ("unshare", "--user", "--map-root-user", "--mount")
BESIDE = ("nsenter", "--user", "--preserve-credentials", "--mount", "--wd=/", "--target")
ON_A_SMALL_DISK = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "$0" && cp -r "$1"/. "$0" && shift && exec "$@"'


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The data folder of a server that runs on it, as others reach it, and the server's address."""
    probe = subprocess.run([*ALONE, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no disk can be mounted here; tests/cell has the same on a disk of the tests' own")
    seed, folder, config = tmp_path / "seed", tmp_path / "data", tmp_path / "simswitch.toml"
    Life(seed).cell.close()
    folder.mkdir()
    config.write_text(f"[journal]\nsegment_bytes = {1 << 20}\nfree_mark_bytes = {MARK_BYTES}\n", encoding="utf-8")
    serve = (sys.executable, "-m", "simswitch", "serve", str(folder), "--config", str(config))
    process = subprocess.Popen(
        [*ALONE, "sh", "-c", ON_A_SMALL_DISK, str(folder), str(seed), *serve, "--address", "127.0.0.1:0"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = Path(f"/proc/{process.pid}/root{folder}")
    try:
        end_s = time.monotonic() + 60
        while not (seen / "address").exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end_s, "it does not listen"
            time.sleep(0.02)
        yield seen, (seen / "address").read_text(encoding="ascii").strip()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == Exit.OK, errors
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def refused(client: Client, terminal: int) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        client.allocate(terminal, "market")
    return caught.value


@pytest.mark.parametrize("left_bytes", [MARK_BYTES - (1 << 20), 0], ids=["below the mark", "full"])
def test_nothing_is_acknowledged_on_a_full_disk_and_it_goes_on_when_there_is_room(
    small_disk: tuple[Path, str], left_bytes: int
) -> None:
    folder, address = small_disk
    with Client(address, access_server="as-01") as client:
        held = client.allocate(1, "market")
        # Who calls for the first time has to be made known first, which needs room.
        assert not summary(address).disk_full
        filler = folder / "filler"
        fill(filler, left_bytes)
        error = refused(client, 2)
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL")
        assert f"below the mark of {MARK_BYTES}" in str(error)
        assert f"below the mark of {MARK_BYTES}" in summary(address).disk_full
        # It is refused before it is applied: the state does not move.
        before = checked(folder)
        assert refused(client, 3).reason == "DISK_FULL"
        after = checked(folder)
        assert (after["last_sequence"], after["state_hash"]) == (before["last_sequence"], before["state_hash"])
        filler.unlink()
        assert not summary(address).disk_full
        assert client.allocate(2, "market").epoch > held.epoch
        assert client.renew([1], [held.epoch]).status.tolist() == [1]
    assert checked(folder)["last_sequence"] > before["last_sequence"]


def summary(address: str) -> pool_pb2.GetSummaryResponse:
    with OperatorClient(address) as operator:
        return operator.pool.GetSummary(pool_pb2.GetSummaryRequest())


def checked(folder: Path) -> dict[str, Any]:
    """All is sound; the follower says that it has no room for a snapshot."""
    # SQLite looks its files up by their real names, so it has to see the disk as the server does.
    process, _, inside = str(folder.relative_to("/proc")).partition("/root")
    answer = subprocess.run(
        [*BESIDE, process, sys.executable, "-m", "simswitch", "check", inside, "--json"],
        capture_output=True,
        check=False,
    )
    found: dict[str, Any] = json.loads(answer.stdout)
    wrong = [part for part in found["parts"] if not part["sound"]]
    assert {part["part"] for part in wrong} <= {"alarm"}, wrong
    return found


def fill(filler: Path, left_bytes: int) -> None:
    """Takes what is free but ``left_bytes``."""
    with filler.open("wb", buffering=0) as file:
        try:
            while free_bytes(filler) > left_bytes:
                file.write(bytes(min(1 << 16, max(free_bytes(filler) - left_bytes, 1))))
        except OSError:
            assert left_bytes == 0


def free_bytes(path: Path) -> int:
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize

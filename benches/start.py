"""Start, memory and snapshots of a full pool: a real server and its follower, ``size`` SIMs, terminals and subscribers.

    fill       a process of its own imports the SIMs, allocates for every terminal and reports what it used, through
               commands, and ends: a snapshot
    tail       another one goes on from there until the follower would have made two snapshots, and dies
    start      `simswitch serve` from its call until it listens; every file that it reads has left the page cache
    resident   what the server and its follower hold then, by the kernel's count
    snapshot   allocations at a steady rate, while the follower makes a snapshot and while it does not, in turn

The reference of the start is reading the same bytes off the same files, from the disk, piece by piece.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from simswitch.cell import Capacity, Cell, JournalSettings, VirtualClock
from simswitch.client import Client
from simswitch.core import commands, layout
from simswitch.core.machine import Machine, xxh64
from simswitch.journal.disk import RealDisk
from simswitch.journal.follower import Follower, FollowerSettings
from simswitch.journal.format import SegmentHeader
from simswitch.journal.snapshot import newest_snapshot_sequence, snapshot_name
from simswitch.journal.walk import list_segments

from benches.report import ROOT, Result

ROWS = ("start.cold", "memory.resident", "start.snapshot_p99")
START_GOAL_S = 5.0
RESIDENT_GOAL_GB = 2.5
P99_GOAL = 2.0
HOUR_MS = 3_600_000
LEASE_MS = 24 * HOUR_MS
COOLED_MS = 128
RUN_ITEMS = 50_000
TAIL_ITEMS = 1_000
FREE_SHARE = 10
USED_BYTES = 1 << 20
MARKET = "market"
ACCESS_SERVER = "as-0"
LISTEN_WITHIN_S = 120.0
READ_BYTES = 1 << 20
CALL_ITEMS = 100
CALLS_PER_S = 100
QUIET_S = 10.0
ORDERS = 20_000
FULL_SIZE = 10_000_000
SNAPSHOTS_WITHIN_S = 300.0

Progress = Callable[[str], None]
U64 = npt.NDArray[np.uint64]


# ---------------------------------------------------------------------------------------------- processes of the bench


def keys_of(start: int, stop: int) -> U64:
    """The keys of these terminals: spread over the table as they would be."""
    key = np.arange(start + 1, stop + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return key | np.uint64(1)


class Pool:
    """Commands to a cell, each checked."""

    def __init__(self, data: str, size: int) -> None:
        # It stands while a pool is filled, so that no SIM comes back before every one was given. The server goes by
        # the wall later, which is ahead of it.
        self.clock = VirtualClock(time.time_ns() // 1_000_000 - 2 * HOUR_MS)
        self.cell = Cell.open(
            data,
            capacity=Capacity(size, size, ORDERS),
            journal=JournalSettings(free_mark_bytes=0),
            clock=self.clock,
        )
        self.folded = 0

    def run(self, batch: bytes) -> commands.OutcomeRun:
        run = commands.outcome_runs(self.cell.step(batch).data)[0]
        wrong = run["status"][run["status"] != layout.OK]
        if len(wrong):
            raise RuntimeError(f"command {run.kind}: {len(wrong)} of {run.count} items answered {np.unique(wrong)}")
        return run

    def entity(self, kind: int, name: str, numbers: dict[int, int] | None = None) -> int:
        record = np.frombuffer(commands.definition(kind, name, numbers), "V1024")
        return int(self.run(commands.run(layout.DEFINE, 1, definition=record))["index"][0])

    def fill(self, size: int) -> None:
        """``size`` SIMs, as many terminals with a lease, of which a few are ended again, and as many subscribers."""
        for setting, value in ((layout.LEASE_MS, LEASE_MS), (layout.COOLING_MS, 0)):
            self.run(commands.run(layout.CONFIGURE, 1, setting=setting, value=value))
        plan = self.entity(layout.PLAN, "plan", {layout.PLAN_QUOTA_CYCLE: 100 << 30})
        sim_class = self.entity(layout.SIM_CLASS, "class")
        supplier = self.entity(layout.SUPPLIER, "supplier")
        lot = self.entity(
            layout.LOT, "lot", {layout.LOT_SUPPLIER: supplier, layout.LOT_PLAN: plan, layout.LOT_CLASS: sim_class}
        )
        bank = self.entity(layout.BANK, "bank")
        self.entity(layout.MARKET, MARKET, {layout.MARKET_FIRST_CLASS: sim_class})
        self.entity(layout.ACCESS_SERVER, ACCESS_SERVER)
        numbers = np.arange(size, dtype=np.uint64)
        for start in range(0, size, RUN_ITEMS):
            part = numbers[start : start + RUN_ITEMS]
            self.run(
                commands.run(
                    layout.IMPORT_SIMS,
                    len(part),
                    iccid=np.uint64(2 * 10**15) + 2 * part,
                    imsi=np.uint64(440_100_000_000_000) + part,
                    opening_cycle_bytes=(part * np.uint64(7919) % np.uint64(64)) << np.uint64(30),
                    opening_day_bytes=0,
                    opening_rolling_bytes=0,
                    lot=lot,
                    bank=bank,
                    slot=part % np.uint64(512),
                    health=layout.HEALTHY,
                )
            )
        for start in range(0, size, RUN_ITEMS):
            stop = min(start + RUN_ITEMS, size)
            epochs = self.allocate(keys_of(start, stop))
            self.report_usage(keys_of(start, stop), epochs)
            if start < size // FREE_SHARE:
                count = min(stop, size // FREE_SHARE) - start
                self.release(keys_of(start, start + count), epochs[:count])

    def allocate(self, keys: U64) -> U64:
        market = self.cell.machine.entity_index(layout.MARKET, MARKET)
        assert market is not None
        batch = commands.run(
            layout.ALLOCATE,
            len(keys),
            access_server=0,
            terminal=keys,
            subscriber=keys,
            expected_bytes=0,
            market=market,
        )
        found = self.run(batch)
        # What does not depend on the hour: which SIMs were given.
        self.folded = xxh64(found["iccid"].tobytes(), self.folded)
        return np.array(found["epoch"])

    def report_usage(self, keys: U64, epochs: U64) -> None:
        """A subscriber is known from its first bytes on."""
        self.run(
            commands.run(
                layout.REPORT_USAGE,
                len(keys),
                access_server=0,
                terminal=keys,
                epoch=epochs,
                up_bytes=0,
                down_bytes=USED_BYTES,
            )
        )

    def release(self, keys: U64, epochs: U64) -> None:
        self.run(commands.run(layout.RELEASE, len(keys), access_server=0, terminal=keys, epoch=epochs))


def fill(data: str, size: int) -> dict[str, Any]:
    pool = Pool(data, size)
    pool.fill(size)
    pool.cell.close()
    return {"hash": f"{pool.folded:016x}"}


def tail(data: str, size: int) -> dict[str, Any]:
    """The longest that a crash may leave: the budget of one snapshot, and as much again while that is being made.

    Ends without a word to the cell, as by kill -9.
    """
    limits = FollowerSettings()
    share = min(1.0, size / FULL_SIZE)
    pool = Pool(data, size)
    free = size // FREE_SHARE
    start = 0
    # What it costs to replay is known to a follower.
    follower = Follower(RealDisk(data), settings=FollowerSettings(replay_s=inf, bytes_max=1 << 60, interval_s=inf))
    while follower.tail_s < 2 * limits.replay_s * share and follower.tail_bytes < 2 * limits.bytes_max * share:
        keys = keys_of(start, min(start + TAIL_ITEMS, free))
        pool.clock.advance(COOLED_MS)
        pool.release(keys, pool.allocate(keys))
        start = (start + TAIL_ITEMS) % free
        follower.turn()
    return {
        "records": follower.sequence - follower.snapshot_sequence,
        "bytes": follower.tail_bytes,
        "replay_s": follower.tail_s,
    }


def load(address: str, size: int) -> dict[str, Any]:
    """Allocates and releases at a steady rate until its input ends; when each call was due, and when it was answered.

    A call that is late because the one before was slow counts from when it was due.
    """
    stopped = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        stopped.set()

    threading.Thread(target=wait, daemon=True).start()
    due_s, waited_s = [], []
    free = size // FREE_SHARE
    items = min(CALL_ITEMS, free)
    with Client(address, access_server=ACCESS_SERVER) as client:
        next_s = time.monotonic()
        start = 0
        while not stopped.is_set():
            keys = keys_of(start, start + items)
            start = (start + items) % (free - items + 1)
            next_s += 1 / CALLS_PER_S
            time.sleep(max(0.0, next_s - time.monotonic()))
            grants = client.allocate_many(keys, MARKET)
            due_s.append(next_s)
            waited_s.append(time.monotonic() - next_s)
            if not grants.granted.all():
                raise RuntimeError(f"allocations were answered {np.unique(grants.status)}")
            client.release(keys, grants.epoch)
    return {"due_s": due_s, "waited_s": waited_s}


# ---------------------------------------------------------------------------------------------- what is measured


def _told(*arguments: str) -> dict[str, Any]:
    """What a process of the bench prints at its end."""
    found = subprocess.run(
        [sys.executable, "-m", "benches.start", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    answer: dict[str, Any] = json.loads(found.stdout)
    return answer


def _files(data: Path) -> list[Path]:
    """What a start reads: the newest snapshot, and the segments that do not end before it."""
    disk = RealDisk(data)
    sequence = newest_snapshot_sequence(disk)
    segments = list_segments(disk)
    following = [segment.header for segment in segments[1:]]
    needed = [
        segment.name
        for segment, header in zip(segments, [*following, None], strict=True)
        if not isinstance(header, SegmentHeader) or header.first_sequence > sequence + 1
    ]
    return [data / name for name in (snapshot_name(sequence), *needed)]


def _forget(data: Path) -> None:
    """What a start reads leaves the page cache."""
    for path in _files(data):
        file = os.open(path, os.O_RDWR)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def _read(data: Path) -> tuple[int, float]:
    """Reads the files from the disk: how many bytes, and how long it took."""
    _forget(data)
    place = memoryview(bytearray(READ_BYTES))
    total = 0
    began_s = time.monotonic()
    for path in _files(data):
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(place):
                total += count
    return total, time.monotonic() - began_s


@contextmanager
def _serving(folder: Path, size: int) -> Iterator[tuple[int, str]]:
    """A real ``simswitch serve`` without a follower: its process, and its address once it listens."""
    config = folder / "simswitch.toml"
    config.write_text(
        f"[capacity]\nsims = {size}\nterminals = {size}\norders = {ORDERS}\n"
        "[journal]\nfree_mark_bytes = 0\n[follower]\nenabled = false\n"
    )
    data = folder / "data"
    (data / "address").unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "simswitch",
        "serve",
        str(data),
        "--address",
        "127.0.0.1:0",
        "--config",
        str(config),
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until_s = time.monotonic() + LISTEN_WITHIN_S
            while not (data / "address").exists():
                if server.poll() is not None or time.monotonic() > until_s:
                    raise RuntimeError(f"the server did not start: {(folder / 'log').read_text()}")
                time.sleep(0.005)
            yield server.pid, (data / "address").read_text().strip()
        finally:
            server.kill()
            server.wait()


@contextmanager
def _following(data: Path, quiet_s: float) -> Iterator[tuple[int, list[tuple[float, float]]]]:
    """The follower, which makes a snapshot, rests for ``quiet_s``, makes one …: its process, and the spans of these."""
    command = [sys.executable, "-m", "simswitch.journal.follower", str(data), "--snapshot-seconds", str(quiet_s)]
    follower = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    spans: list[tuple[float, float]] = []

    def listen() -> None:
        assert follower.stderr is not None
        for line in follower.stderr:
            ended_s = time.monotonic()
            found = re.search(r"written in ([\d.]+) s, state checked in ([\d.]+) s", line)
            if found is None:
                sys.stderr.write(line)
            else:
                spans.append((ended_s - float(found[1]) - float(found[2]), ended_s))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield follower.pid, spans
    finally:
        follower.terminate()
        follower.wait()
        listener.join()


def resident_bytes(process: int) -> dict[str, int]:
    """What the kernel counts for a process, in bytes: Rss, Pss, AnonHugePages …"""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(words.split()[0]) << 10 for name, _, words in (line.partition(":") for line in lines)}


def subscribers_bytes(size: int) -> int:
    """The table of the subscribers, at most as many as terminals."""
    regions = Machine(sims_max=1, terminals_max=size).snapshot_regions()
    return next(item_bytes * count for name, item_bytes, count, _ in regions if name == "subscribers")


def _peak_bytes(process: int) -> int:
    """The most that it ever held."""
    (line,) = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def measure(folder: Path, size: int, progress: Progress, pairs: int = 2, quiet_s: float = QUIET_S) -> list[Result]:
    """start.cold, memory.resident and start.snapshot_p99. ``folder`` is made, and removed afterwards."""
    folder.mkdir(parents=True)
    data = folder / "data"
    try:
        progress(f"start, {size:,} SIMs: filling")
        filled = _told("fill", str(data), str(size))
        progress(f"start, {size:,} SIMs: writing the longest tail")
        behind = _told("tail", str(data), str(size))
        progress(f"start, {size:,} SIMs: starting")
        read_bytes, read_s = _read(data)
        _forget(data)
        began_s = time.monotonic()
        with _serving(folder, size) as (server, address):
            start_s = time.monotonic() - began_s
            progress(f"start, {size:,} SIMs: {pairs} snapshots beside allocations")
            with _following(data, quiet_s) as (follower, spans):
                calls = _calls(address, size, spans, pairs)
                held = {name: resident_bytes(process) for name, process in (("server", server), ("follower", follower))}
                peaks = [_peak_bytes(process) for process in (server, follower)]
    finally:
        shutil.rmtree(folder)
    due_s, waited_s = np.array(calls["due_s"]), np.array(calls["waited_s"])
    during = np.zeros(len(due_s), bool)
    for began_s, ended_s in spans[:pairs]:
        during |= (due_s >= began_s) & (due_s <= ended_s)
    # Until the follower has caught up and its first rest has begun nothing counts, nor after the last snapshot.
    quiet = ~during & (due_s > spans[0][0] - quiet_s / 2) & (due_s < spans[pairs - 1][1])
    quiet_ms, during_ms = (float(np.percentile(waited_s[part], 99)) * 1e3 for part in (quiet, during))
    return [
        Result(
            name="start.cold",
            size=size,
            value=start_s,
            unit="s",
            hash=filled["hash"],
            reference=read_s,
            goal=START_GOAL_S,
            note=f"snapshot and a tail of {behind['records']:,} records, {behind['bytes'] / 1e6:,.0f} MB, that take "
            f"{behind['replay_s']:.1f} s to replay; reference: reading these {read_bytes / 1e9:.2f} GB from the disk",
        ),
        Result(
            name="memory.resident",
            size=size,
            value=max(found["Rss"] for found in held.values()) / 1e9,
            unit="GB",
            hash=filled["hash"],
            goal=RESIDENT_GOAL_GB,
            note=", ".join(
                f"{name} {found['Rss'] / 1e9:.2f}, of it in huge pages {found['AnonHugePages'] / 1e9:.2f}"
                for name, found in held.items()
            )
            + f"; most ever {max(peaks) / 1e9:.2f}; as many subscribers, in {subscribers_bytes(size) / 1e9:.2f} of it",
        ),
        Result(
            name="start.snapshot_p99",
            size=size,
            value=during_ms,
            unit="ms",
            hash=filled["hash"],
            reference=quiet_ms,
            goal=P99_GOAL * quiet_ms,
            note=f"{CALLS_PER_S} calls a second of {min(CALL_ITEMS, size // FREE_SHARE)}; {pairs} snapshots of up to "
            f"{max(ended_s - began_s for began_s, ended_s in spans):.1f} s, {int(during.sum()):,} calls meanwhile; "
            f"reference: the {int(quiet.sum()):,} before and between",
        ),
    ]


def _calls(address: str, size: int, spans: list[tuple[float, float]], pairs: int) -> dict[str, Any]:
    """Calls until as many snapshots have been made, and what became of them."""
    client = subprocess.Popen(
        [sys.executable, "-m", "benches.start", "load", address, str(size)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        until_s = time.monotonic() + SNAPSHOTS_WITHIN_S
        while len(spans) < pairs:
            if client.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"{len(spans)} of {pairs} snapshots were made; the client: {client.poll()}")
            time.sleep(0.05)
        output, _ = client.communicate("", 60)
    finally:
        client.kill()
        client.wait()
    calls: dict[str, Any] = json.loads(output)
    return calls


def main() -> None:
    name, place, size = sys.argv[1:]
    process: dict[str, Callable[[str, int], dict[str, Any]]] = {"fill": fill, "tail": tail, "load": load}
    print(json.dumps(process[name](place, int(size))), flush=True)
    if name == "tail":
        os._exit(0)


if __name__ == "__main__":
    main()

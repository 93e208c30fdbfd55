"""A real server and its follower under load for hours: does anything grow? ``make soak`` (``MINUTES=``)

    load        terminals attach, renew, report and leave, by `simswitch load`; its access servers carry out orders
    operator    a swap job each round: run through, paused and resumed, or cancelled half way; lists in between
    probe       a terminal of its own asks and renews: how long it waits
    samples     resident memory, open files and threads of server and follower, journal, snapshots, history

Segments are small and snapshots frequent, so that both come and go many times. The verdict is on the second half, when
all that fills up is full, and is threefold:

    climb    of the straight line through it, which no series may do by more than the bound beside it
    steady   of memory besides: by how much it rises over a tenth of that time, the median over all such tenths, an
             hour. What other work on the machine does to it are steps, up and down; what leaks rises in most of them
    floor    of what has to come back to the same again and again: from the first twelfth's least to the last one's

What the journal takes follows from how much happens: it holds what came since the older of two snapshots. So its bytes
are told, and judged is what they may not depend on: how long ago that snapshot was (``behind_s``), how large the newest
is, and what lies in the folder that neither of the two needs (``unneeded_mb``), down to one file.

History grows with what happens, as it is meant to: of it the rate is told. It leaves ``build/soak.json`` and
``build/soak.png``; the exit code is 1 when something grew, an allocation failed, or `simswitch check` found fault.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from simswitch.client import Client, OperatorClient, ServiceError
from simswitch.journal.disk import RealDisk
from simswitch.journal.format import SegmentHeader, segment_number
from simswitch.journal.snapshot import (
    SNAPSHOTS_KEPT,
    read_snapshot_header,
    snapshot_name,
    snapshot_sequence,
    snapshot_sequences,
)
from simswitch.journal.walk import list_segments
from simswitch.v1 import inventory_pb2, pool_pb2, swap_pb2

from benches.report import ROOT, machine_line
from benches.rpc import MARKET, _fill, served

MINUTES = 120.0
TERMINALS = 2_000
SETTINGS = """lease_ms = 120_000
cooling_ms = {cooling_ms}
swap_cool_down_ms = 0
[journal]
segment_bytes = 2_097_152
[follower]
snapshot_seconds = {snapshot_s}
# As large as by default the cache would go on filling up in the second half.
history_cache_mib = 2
"""
LOAD = ("--warm-up", "0", "--dwell", "120", "--away", "20", "--renew", "20", "--usage", "20", "--batch", "16")
PROBE_TERMINAL = 1 << 40
PROBE_SERVER = "as-0"
SAMPLES = 1_200
ROUND_S = 10.0
COOLING_MS = 5_000
ROUNDS_MAX = 240
"""A job swaps each terminal once, and the engine swaps none more than 255 times a day: a long soak has longer rounds,
so that it swaps to its end."""
JOB_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Bound:
    """By how much a series may climb over the second half: a part of its level, and so much besides."""

    part: float
    plus: float


BOUNDS = {
    "server_mb": Bound(0.03, 2.0),
    "follower_mb": Bound(0.03, 4.0),
    "server_files": Bound(0.0, 2.0),
    "follower_files": Bound(0.0, 2.0),
    "server_threads": Bound(0.0, 1.0),
    "follower_threads": Bound(0.0, 1.0),
    # One interval between snapshots, which a machine that has other work to do stretches.
    "behind_s": Bound(0.0, 20.0),
    "wait_ms": Bound(0.5, 20.0),
}
STEADY_AN_HOUR = {"server_mb": 0.007, "follower_mb": 0.007}
"""A part of the level: a leak of 1 % an hour is more."""
FLOORS = {"unneeded_mb": 0.1, "snapshot_mb": 0.01}
"""What they may rise by over the second half: less than the smallest file, and next to nothing."""
PARTS, TENTH = 60, 6
FLOOR_PARTS, FLOOR_SAMPLES = 12, 4
"""Into so many parts the second half is divided, each of so many samples: what comes and goes is in no floor."""
TOLD = ("journal_mb", "history_mb")


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for path in found for word in path.read_text().split()]


def process(pid: int) -> tuple[float, int, int]:
    """Resident MB, open files, threads."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return int(status["VmRSS"].split()[0]) / 1_000, files, int(status["Threads"])


def size_mb(folder: Path, pattern: str) -> float:
    """Files may vanish meanwhile."""
    total = 0
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total / 1e6


def unneeded(folder: Path) -> tuple[float, float, float]:
    """MB of the journal's files that neither of the two newest snapshots needs, or that were never finished; MB of the
    newest snapshot; the instant of the older one, Unix seconds. A folder that is being used: files may vanish."""
    disk = RealDisk(folder, create=False)
    kept = snapshot_sequences(disk)[-SNAPSHOTS_KEPT:]
    if not kept:
        return 0.0, 0.0, time.time()
    begun = {each.number: each.header for each in list_segments(disk) if isinstance(each.header, SegmentHeader)}
    first = max((number for number, header in begun.items() if header.first_sequence <= kept[0] + 1), default=0)
    total = 0
    for name in disk.names():
        sequence, number = snapshot_sequence(name), segment_number(name)
        needed = sequence in kept if sequence is not None else number is not None and number >= first
        if name.startswith(("segment-", "snapshot-")) and not needed:
            with suppress(FileNotFoundError):
                total += (folder / name).stat().st_size
    file = disk.open(snapshot_name(kept[0]), writable=False)
    try:
        older = read_snapshot_header(file, snapshot_name(kept[0]))
    finally:
        file.close()
    return total / 1e6, (folder / snapshot_name(kept[-1])).stat().st_size / 1e6, older.now_ms / 1000


def grown(series: Sequence[float]) -> tuple[float, float]:
    """The level of the second half, and how much its straight line climbs from end to end."""
    half = np.array(series[len(series) // 2 :])
    if len(half) < 3:
        return float(half.mean()), 0.0
    places = np.arange(len(half))
    slope = np.polyfit(places, half, 1)[0]
    return float(half.mean()), float(slope * (len(half) - 1))


def parts(series: Sequence[float], count: int) -> list[Any]:
    """Of the second half."""
    return np.array_split(np.array(series[len(series) // 2 :]), count)


def steady(series: Sequence[float], seconds: float) -> float:
    """What the second half, which took so long, rises by an hour most of the time."""
    middles = np.array([np.median(part) for part in parts(series, PARTS) if len(part)])
    if len(middles) < PARTS:
        return 0.0
    return float(np.median(middles[TENTH:] - middles[:-TENTH])) * PARTS / TENTH / seconds * 3_600


def floor_climb(series: Sequence[float]) -> float:
    count = min(FLOOR_PARTS, len(series) // 2 // FLOOR_SAMPLES)
    floors = [float(part.min()) for part in parts(series, max(count, 1)) if len(part)]
    return floors[-1] - floors[0]


def verdict(samples: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Each series with its level, its climb and its bound."""
    instants = samples["at_s"]
    seconds = instants[-1] - instants[len(instants) // 2]
    found: dict[str, dict[str, Any]] = {}

    def judge(name: str, series: str, climb: float, bound: float) -> None:
        found[name] = {
            "first": round(samples[series][0], 2),
            "level": round(grown(samples[series])[0], 2),
            "most": round(max(samples[series]), 2),
            "climb": round(climb, 2),
            "bound": round(bound, 2),
            "met": climb <= bound,
        }

    for name, bound in BOUNDS.items():
        level, climb = grown(samples[name])
        judge(name, name, climb, bound.part * level + bound.plus)
    for name, part in STEADY_AN_HOUR.items():
        judge(f"{name}, steady", name, steady(samples[name], seconds), part * grown(samples[name])[0])
    for name, most in FLOORS.items():
        judge(name, name, floor_climb(samples[name]), most)
    return found


class Soak:
    """One run."""

    def __init__(
        self,
        folder: Path,
        seconds: float,
        terminals: int,
        seed: int,
        round_s: float = ROUND_S,
        load: Sequence[str] = LOAD,
    ) -> None:
        self._folder = folder
        self._seconds = seconds
        self._terminals = terminals
        self._seed = seed
        self._round_s = round_s
        self._words = load
        self._over = threading.Event()
        self._failures: list[str] = []
        self.samples: dict[str, list[float]] = {name: [] for name in ("at_s", *BOUNDS, *FLOORS, *TOLD)}
        self.counts: Counter[str] = Counter()
        self._waits: list[float] = []
        self._swaps: list[int] = []
        self.segments_removed = 0
        self.snapshots: set[str] = set()

    def run(self, progress: Callable[[str], None]) -> dict[str, Any]:
        snapshot_s = max(1, min(20, round(self._seconds / 20)))
        settings = SETTINGS.format(snapshot_s=snapshot_s, cooling_ms=COOLING_MS)
        # Each round's SIMs rest while the next ones are moved to others.
        sims = (3 + math.ceil(COOLING_MS / 1000 / self._round_s)) * self._terminals
        with served(self._folder, sims, orders=4 * self._terminals, engine=settings) as (address, pid):
            _fill(address, sims, 1)
            load = self._load(address)
            threads = [
                threading.Thread(target=self._guarded, args=(work, address)) for work in (self._operate, self._probe)
            ]
            try:
                for thread in threads:
                    thread.start()
                self._watch(pid, progress)
            finally:
                self._over.set()
                for thread in threads:
                    thread.join()
                load.send_signal(signal.SIGINT)
                answer, _ = load.communicate(timeout=180)
        figures = json.loads(answer) if answer else {"failure": (self._folder / "load.log").read_text()}
        if figures["failure"]:
            self._failures.append(f"load: {figures['failure']}")
        checked = subprocess.run(
            [sys.executable, "-m", "simswitch", "check", str(self._folder / "data")], capture_output=True, text=True
        )
        if checked.returncode:
            self._failures.append(f"check: {checked.stdout} {checked.stderr}")
        return self._document(figures)

    def _load(self, address: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "simswitch", "load", "--address", address, "--json", *self._words]
        command += ["--duration", str(self._seconds + 60), "--terminals", str(self._terminals)]
        command += ["--access-servers", "4", "--processes", "1", "--seed", str(self._seed), "--market", MARKET]
        with (self._folder / "load.log").open("wb") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, start_new_session=True)

    def _guarded(self, work: Callable[[str], None], address: str) -> None:
        try:
            work(address)
        except Exception as error:
            self._failures.append(f"{work.__name__.strip('_')}: {type(error).__name__}: {error}")

    def _watch(self, pid: int, progress: Callable[[str], None]) -> None:
        began_s = time.monotonic()
        every_s = max(0.25, self._seconds / SAMPLES)
        journal = self._folder / "data"
        segments: set[str] = set()
        shown_s = began_s
        while (now_s := time.monotonic()) < began_s + self._seconds and not self._failures:
            time.sleep(every_s)
            followers = children(pid)
            if len(followers) != 1 or not self._waits:
                continue
            try:
                left, newest, older_s = unneeded(journal)
            except FileNotFoundError:
                continue  # one went at this very instant
            self.samples["at_s"].append(round(now_s - began_s, 1))
            for who, number in (("server", pid), ("follower", followers[0])):
                for what, value in zip(("mb", "files", "threads"), process(number), strict=True):
                    self.samples[f"{who}_{what}"].append(value)
            names = {path.name for path in journal.glob("segment-*.journal")}
            self.segments_removed += len(segments - names)
            segments = names
            self.snapshots |= {path.name for path in journal.glob("snapshot-*.state")}
            self.samples["journal_mb"].append(
                size_mb(journal, "segment-*.journal") + size_mb(journal, "snapshot-*.state")
            )
            self.samples["history_mb"].append(size_mb(journal, "history.sqlite*"))
            self.samples["unneeded_mb"].append(left)
            self.samples["snapshot_mb"].append(newest)
            self.samples["behind_s"].append(time.time() - older_s)
            self._swaps.append(self.counts["swaps"])
            self.samples["wait_ms"].append(float(np.median(self._waits[-50:])))
            if now_s - shown_s > 30:
                shown_s = now_s
                last = {name: round(values[-1], 1) for name, values in self.samples.items()}
                progress(f"{last}, {dict(self.counts)}")

    def _probe(self, address: str) -> None:
        with Client(address, access_server=PROBE_SERVER, actor="operator:local", timeout_s=30) as client:
            while not self._over.wait(0.1):
                began_s = time.monotonic()
                try:
                    epoch = client.allocate(PROBE_TERMINAL, MARKET).epoch
                    client.renew([PROBE_TERMINAL], [epoch])
                    if self.counts["probes"] % 20 == 0:
                        client.release([PROBE_TERMINAL], [epoch])
                except ServiceError as error:
                    # A machine that stands still for a moment sheds some calls when it goes on.
                    if error.reason != "OVERLOADED":
                        raise
                    self.counts["probes, shed"] += 1
                    continue
                self._waits.append((time.monotonic() - began_s) * 500)
                self.counts["probes"] += 1

    def _operate(self, address: str) -> None:
        with OperatorClient(address) as operator:
            number = 0
            while not self._over.wait(self._round_s):
                self._job(operator, ("run", "pause", "cancel")[number % 3])
                with suppress(grpc.RpcError):
                    self._lists(operator)
                number += 1

    def _lists(self, operator: OperatorClient) -> None:
        operator.inventory.ListSims(inventory_pb2.ListSimsRequest(page_size=1_000))
        operator.pool.GetSummary(pool_pb2.GetSummaryRequest())
        operator.pool.ListAccessServerStatuses(pool_pb2.ListAccessServerStatusesRequest())
        self.counts["lists"] += 3

    def _job(self, operator: OperatorClient, what: str) -> None:
        asked = swap_pb2.CreateJobRequest(
            reason="soak",
            priority=swap_pb2.PRIORITY_REBALANCE,
            error_budget_ppm=1_000_000,
            on_infeasible=swap_pb2.INFEASIBLE_PROCEED,
        )
        job = operator.swaps.CreateJob(asked).job.number
        self.counts["jobs"] += 1
        began_s = time.monotonic()
        while not self._over.wait(0.05):
            found = self._look(operator, job)
            if found is None:
                continue
            if found.state in (swap_pb2.JOB_STATE_DONE, swap_pb2.JOB_STATE_CANCELLED, swap_pb2.JOB_STATE_REFUSED):
                break
            if found.state == swap_pb2.JOB_STATE_RUNNING and found.confirmed_count > 20 and what != "run":
                # It may be over before it hears of it.
                with suppress(grpc.RpcError):
                    if what == "cancel":
                        operator.swaps.CancelJob(swap_pb2.CancelJobRequest(job=job))
                    else:
                        operator.swaps.PauseJob(swap_pb2.PauseJobRequest(job=job))
                        self._over.wait(self._round_s / 10)
                        operator.swaps.ResumeJob(swap_pb2.ResumeJobRequest(job=job))
                    self.counts[f"jobs, {what}"] += 1
                what = "run"
            if time.monotonic() > began_s + JOB_TIMEOUT_S:
                operator.swaps.CancelJob(swap_pb2.CancelJobRequest(job=job))
                self.counts["jobs, cut"] += 1
                began_s = time.monotonic()
        found = self._look(operator, job)
        self.counts["swaps"] += 0 if found is None else found.confirmed_count

    def _look(self, operator: OperatorClient, job: int) -> swap_pb2.Job | None:
        """None: the service has no time for it."""
        try:
            return operator.swaps.GetJob(swap_pb2.GetJobRequest(job=job)).job
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            self.counts["looks, shed"] += 1
            return None

    def _document(self, figures: dict[str, Any]) -> dict[str, Any]:
        judged = verdict(self.samples)
        if self._swaps[-1] == self._swaps[len(self._swaps) // 2]:
            self._failures.append("in the second half, which is judged, no terminal was swapped")
        history, journal = self.samples["history_mb"], self.samples["journal_mb"]
        return {
            "machine": machine_line(),
            "seed": self._seed,
            "minutes": round(self._seconds / 60, 2),
            "terminals": self._terminals,
            "series": judged,
            "journal_mb": {
                "first": round(journal[0], 2),
                "most": round(max(journal), 2),
                "last": round(journal[-1], 2),
            },
            "history_mb": {"first": round(history[0], 2), "last": round(history[-1], 2)},
            "history_mb_an_hour": round((history[-1] - history[0]) / self._seconds * 3_600, 1),
            "segments_removed": self.segments_removed,
            "snapshots": len(self.snapshots),
            "counts": dict(self.counts),
            "load": figures,
            "failures": self._failures,
            "met": all(of["met"] for of in judged.values()) and not self._failures,
        }


def table(found: dict[str, Any]) -> str:
    lines = [f"{'':22}{'first':>10}{'level':>10}{'most':>10}{'climb':>10}{'bound':>10}"]
    for name, of in found["series"].items():
        word = "" if of["met"] else "  GREW"
        numbers = "".join(f"{of[key]:>10,.2f}" for key in ("first", "level", "most", "climb", "bound"))
        lines.append(f"{name:22}{numbers}{word}")
    kept = found["journal_mb"]
    lines.append(f"journal and snapshots {kept['first']:.1f} to {kept['last']:.1f} MB, {kept['most']:.1f} at most")
    lines.append(
        f"history {found['history_mb']['first']:.1f} to {found['history_mb']['last']:.1f} MB, "
        f"{found['history_mb_an_hour']:.0f} MB an hour; {found['segments_removed']} segments removed, "
        f"{found['snapshots']} snapshots; {found['counts']}"
    )
    lines += found["failures"]
    lines.append("nothing grew" if found["met"] else "not passed")
    return "\n".join(lines)


def plot(path: Path, samples: dict[str, list[float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = (
        ("resident memory, MB", ("server_mb", "follower_mb")),
        ("journal and history, MB", ("journal_mb", "history_mb")),
        ("open files and threads", ("server_files", "server_threads", "follower_files", "follower_threads")),
        ("wait of a call, ms", ("wait_ms",)),
    )
    figure, axes = plt.subplots(1, len(panels), figsize=(15, 3.6), layout="constrained")
    minutes = np.array(samples["at_s"]) / 60
    for (title, names), axis in zip(panels, axes, strict=True):
        for name in names:
            axis.plot(minutes, samples[name], label=name.replace("_", " "), linewidth=1.2)
        axis.set_title(title)
        axis.set_xlabel("minutes")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--terminals", type=int, default=TERMINALS)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    build = ROOT / "build"
    with tempfile.TemporaryDirectory(dir=build, prefix="soak-") as name:
        seconds = asked.minutes * 60
        soak = Soak(Path(name), seconds, asked.terminals, asked.seed, round_s=max(ROUND_S, seconds / ROUNDS_MAX))
        found = soak.run(lambda text: print(text, file=sys.stderr, flush=True))
    (build / "soak.json").write_text(json.dumps({**found, "samples": soak.samples}) + "\n")
    plot(build / "soak.png", soak.samples)
    print(table(found))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())

"""The service at five times the load that it can carry: ``make overload``, over real sockets, on either transport.

    best       calls of four kinds as fast as they are answered, at several numbers in flight; the best goodput counts
    overload   the same mix at five times that rate, each call sent when it is due, whatever became of those before it
    deaf       once more, by clients that pay no heed to being told when to come again
    after      as at first: what the overload has left behind

Goodput is calls answered in time, a second. A client that is refused holds calls of that kind back until the advice has
passed, as ours do; a call that was held back counts as shed. It leaves ``build/overload.json``: ``met`` says whether
goodput stayed over 80 % of its best, and allocations were shed last.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from simswitch.client import Client
from simswitch.service.overload import PROBE, Kind
from simswitch.v1 import allocation_pb2, inventory_pb2, usage_pb2

from benches.calls import compiled
from benches.peers import install
from benches.report import ROOT, machine_line
from benches.rpc import MARKET, _end, _fill, _line, served

SERVERS = 32
TERMINALS = 1_000
"""Of each access server."""
ITEMS = 100
"""In a renewal, a report, a page of SIMs; an allocation has one."""
TIMES = 5
GOAL = 0.8
TIMEOUT_MS = 2_000
IN_FLIGHT = (32, 128, 512)
PATHS = {
    Kind.READ: "/simswitch.v1.InventoryService/ListSims",
    Kind.REPORT: "/simswitch.v1.UsageService/ReportUsage",
    Kind.RENEW: "/simswitch.v1.AllocationService/Renew",
    Kind.ALLOCATE: "/simswitch.v1.AllocationService/Allocate",
}
SHARES = {Kind.READ: 0.1, Kind.REPORT: 0.2, Kind.RENEW: 0.2, Kind.ALLOCATE: 0.5}
REFUSED = len(PATHS)
"""The kind that is always refused, where an overload is: a stranger's call on the path of the service's own."""
OUTCOMES = ("answered", "held_back", "refused", "expired", "unavailable", "other", "not_sent")
MEMORY_EVERY_S = 0.2
COST_CALLS = 10_000
COST_IN_FLIGHT = 64
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

_DUE = np.dtype([("due_us", "<u4"), ("message", "<u4"), ("connection", "<u2"), ("kind", "<u2")])
_ANSWER = np.dtype([("latency_us", "<u4"), ("late_us", "<u4"), ("outcome", "<u4")])

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Messages:
    """All messages, and where those of a kind begin: each access server has equally many."""

    data: bytes
    first: dict[Kind, int]
    each: dict[Kind, int]


def messages(address: str, servers: int, terminals: int) -> Messages:
    """Gives every terminal a lease, and makes what is then said of them."""
    found: dict[Kind, list[bytes]] = {kind: [] for kind in Kind}
    page = inventory_pb2.ListSimsRequest(page_size=ITEMS).SerializeToString()
    for number in range(servers):
        name = f"as-{number}"
        keys = np.arange(1 + number * terminals, 1 + (number + 1) * terminals, dtype=np.uint64)
        with Client(address, access_server=name, actor="operator:local") as client:
            epochs = client.allocate_many(keys, MARKET, subscribers=keys).epoch
        found[Kind.READ].append(page)
        for key in keys.tolist():
            one = allocation_pb2.AllocateRequest(access_server=name, market=MARKET, terminal=key, subscriber=key)
            found[Kind.ALLOCATE].append(one.SerializeToString())
        for start in range(0, terminals, ITEMS):
            part = slice(start, start + ITEMS)
            lease = {"access_server": name, "terminal": keys[part].tolist(), "epoch": epochs[part].tolist()}
            found[Kind.RENEW].append(allocation_pb2.RenewRequest(**lease).SerializeToString())
            used = [1_000_000] * len(lease["terminal"])
            report = usage_pb2.ReportUsageRequest(**lease, up_bytes=used, down_bytes=used)
            found[Kind.REPORT].append(report.SerializeToString())
    first, count = {}, 0
    for kind, made in found.items():
        first[kind] = count
        count += len(made)
    data = b"".join(struct.pack("<I", len(each)) + each for made in found.values() for each in made)
    return Messages(data, first, {kind: len(made) // servers for kind, made in found.items()})


def schedule(made: Messages, servers: int, rate: float, seconds: float, seed: int) -> npt.NDArray[Any]:
    """Poisson arrivals of the mix."""
    random = np.random.default_rng(seed)
    count = max(1, round(rate * seconds))
    due = np.zeros(count, _DUE)
    due["due_us"] = np.minimum(np.cumsum(random.exponential(1e6 / rate, count)), seconds * 1e6)
    due["connection"] = random.integers(servers, size=count)
    due["kind"] = random.choice([int(kind) for kind in SHARES], size=count, p=list(SHARES.values()))
    for kind in Kind:
        rows = due["kind"] == kind
        each = made.each[kind]
        due["message"][rows] = (
            made.first[kind]
            + due["connection"][rows].astype(np.uint32) * each
            + random.integers(each, size=int(rows.sum()), dtype=np.uint32)
        )
    return due


class Senders:
    """The compiled client."""

    def __init__(self, folder: Path, address: str, made: Messages, servers: int) -> None:
        self._folder = folder
        self._address = address
        self._servers = servers
        (folder / "messages").write_bytes(made.data)
        self._process = subprocess.Popen(
            [compiled("overload_client"), *PATHS.values(), PROBE],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, due: npt.NDArray[Any], *, in_flight: int = 0, deaf: bool = False) -> Sent:
        asked, answered = self._folder / "schedule", self._folder / "answers"
        asked.write_bytes(due.tobytes())
        words = (self._address, self._servers, TIMEOUT_MS, int(deaf), in_flight, self._folder / "messages")
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, (*words, asked, answered))) + "\n")
        self._process.stdin.flush()
        began_ns, ended_ns = map(int, _line(self._process).split())
        answers = np.frombuffer(answered.read_bytes(), _ANSWER)
        return Sent(due, answers, (ended_ns - began_ns) / 1e9, in_flight == 0)

    def end(self) -> None:
        _end(self._process)


@dataclass(frozen=True)
class Sent:
    """What became of one round."""

    due: npt.NDArray[Any]
    answers: npt.NDArray[Any]
    seconds: float
    open: bool
    """Each call was sent when it was due."""

    def goodput(self) -> float:
        """Calls a second that were answered in time."""
        good = (self.answers["outcome"] == 0) & (self.answers["latency_us"] <= TIMEOUT_MS * 1_000)
        if not self.open:
            return float(good.sum() / self.seconds)
        # What comes after the last call was due is not counted, nor is the time that it took.
        until_us = int(self.due["due_us"][-1])
        in_time = self.due["due_us"].astype(np.int64) + self.answers["latency_us"] <= until_us
        return float((good & in_time).sum() / until_us * 1e6)

    def late_ms(self) -> float:
        """How late calls were sent: where it is much, the client could not offer that load."""
        return float(np.percentile(self.answers["late_us"], 99).round() / 1_000)

    def kinds(self) -> dict[str, dict[str, Any]]:
        """By kind: how many were due, what became of them, and how long those that were answered took."""
        found = {}
        for kind in Kind:
            answers = self.answers[(self.due["kind"] == kind) & (self.answers["outcome"] < len(OUTCOMES) - 1)]
            counts = np.bincount(answers["outcome"], minlength=len(OUTCOMES))
            took = answers["latency_us"][answers["outcome"] == 0] / 1_000
            quantiles = np.percentile(took, (50, 99)).round(1).tolist() if len(took) else [None, None]
            found[kind.name.lower()] = {
                "due": len(answers),
                **{name: int(count) for name, count in zip(OUTCOMES[:-1], counts, strict=False)},
                "shed_part": round(1 - float(counts[0]) / max(1, len(answers)), 4),
                "p50_ms": quantiles[0],
                "p99_ms": quantiles[1],
            }
        return found


def costs_us(senders: Senders, made: Messages, pid: int, calls: int) -> dict[str, float]:
    """Processor time of the server for a call of each kind, when it is answered, and for one that is refused."""
    found = {}
    for kind in (*Kind, REFUSED):
        due = np.zeros(calls, _DUE)
        due["due_us"] = 600_000_000
        due["kind"] = int(kind)
        due["message"] = made.first.get(Kind(min(kind, Kind.ALLOCATE)), 0)
        before_s = _used_s(pid)
        senders.send(due, in_flight=COST_IN_FLIGHT, deaf=True)
        name = Kind(kind).name.lower() if kind != REFUSED else "refused"
        found[name] = round((_used_s(pid) - before_s) / calls * 1e6, 1)
    return found


def _used_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


class Memory:
    """Resident memory of a process while something goes on: before, at most, after; in MB."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self.before_mb = self.most_mb = self._look()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _look(self) -> float:
        line = next(line for line in self._status.read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1_000

    def _watch(self) -> None:
        while not self._ending.wait(MEMORY_EVERY_S):
            self.most_mb = max(self.most_mb, self._look())

    def end(self) -> dict[str, float]:
        self._ending.set()
        self._thread.join()
        return {"before_mb": self.before_mb, "most_mb": self.most_mb, "after_mb": self._look()}


def measure(
    folder: Path,
    transport: str,
    progress: Progress,
    *,
    seconds: float = 20.0,
    servers: int = SERVERS,
    terminals: int = TERMINALS,
    in_flight: tuple[int, ...] = IN_FLIGHT,
    cost_calls: int = COST_CALLS,
    seed: int = 1,
) -> dict[str, Any]:
    """One transport. ``folder`` is made, and removed afterwards."""
    folder.mkdir(parents=True)
    sims = servers * terminals * 5 // 4
    try:
        with served(folder, sims, transport=transport) as (address, pid):
            progress(f"{transport}: {sims:,} SIMs, {servers * terminals:,} leases")
            _fill(address, sims, servers)
            made = messages(address, servers, terminals)
            senders = Senders(folder, address, made, servers)
            try:
                progress(f"{transport}: what a call costs")
                costs = costs_us(senders, made, pid, cost_calls)
                # Enough calls for any of them. They take the next as one is answered, whatever the answer.
                many = schedule(made, servers, 100_000, seconds / 2, seed)
                bests = {}
                for number in in_flight:
                    progress(f"{transport}: best, {number} in flight")
                    bests[number] = senders.send(many, in_flight=number, deaf=True)
                best = max(sent.goodput() for sent in bests.values())
                due = schedule(made, servers, TIMES * best, seconds, seed + 1)
                memory = Memory(pid)
                progress(f"{transport}: {TIMES} times {best:,.0f} calls a second")
                over = senders.send(due)
                resident = memory.end()
                progress(f"{transport}: the same from the deaf")
                memory = Memory(pid)
                deaf = senders.send(due, deaf=True)
                resident_deaf = memory.end()
                progress(f"{transport}: after it")
                fastest = max(bests, key=lambda number: bests[number].goodput())
                after = senders.send(many, in_flight=fastest, deaf=True)
            finally:
                senders.end()
    finally:
        shutil.rmtree(folder)
    kinds = over.kinds()
    parts = [kinds[kind.name.lower()]["shed_part"] for kind in Kind]
    in_order = parts == sorted(parts, reverse=True)
    ratio = over.goodput() / best
    return {
        "best_calls_per_s": round(best),
        "in_flight": {number: round(sent.goodput()) for number, sent in bests.items()},
        "best_kinds": bests[fastest].kinds(),
        "offered_calls_per_s": round(len(due) / seconds),
        "goodput_calls_per_s": round(over.goodput()),
        "goodput_ratio": round(ratio, 3),
        "kinds": kinds,
        "memory": resident,
        "sent_late_p99_ms": over.late_ms(),
        "deaf": {
            "goodput_ratio": round(deaf.goodput() / best, 3),
            "kinds": deaf.kinds(),
            "memory": resident_deaf,
            "sent_late_p99_ms": deaf.late_ms(),
        },
        "cost_us": costs,
        "after_ratio": round(after.goodput() / best, 3),
        "allocations_last": in_order,
        "met": ratio > GOAL and in_order,
    }


def table(transport: str, found: dict[str, Any]) -> str:
    costs = ", ".join(f"{name} {cost:.0f}" for name, cost in found["cost_us"].items())
    lines = [
        f"{transport}: best {found['best_calls_per_s']:,} calls/s, offered {found['offered_calls_per_s']:,}, goodput "
        f"{found['goodput_calls_per_s']:,} = {found['goodput_ratio']:.2f} of it (goal over {GOAL}); after it "
        f"{found['after_ratio']:.2f}; deaf clients {found['deaf']['goodput_ratio']:.2f}",
        "resident: {before_mb:.0f} MB before, {most_mb:.0f} at most, {after_mb:.0f} after".format(**found["memory"])
        + "; deaf: {most_mb:.0f} at most, {after_mb:.0f} after".format(**found["deaf"]["memory"]),
        f"processor time of the server, us a call: {costs}",
        f"calls were sent late by {found['sent_late_p99_ms']:.0f} ms (p99); by the deaf, who wait for room in their "
        f"own connections, {found['deaf']['sent_late_p99_ms']:,.0f}",
        f"{'kind':14}{'due':>10}{'answered':>10}{'held back':>10}{'refused':>10}{'late':>8}{'shed':>8}"
        f"{'p50 ms':>9}{'p99 ms':>9}",
    ]
    for name, of in (*found["kinds"].items(), *((f"deaf {name}", of) for name, of in found["deaf"]["kinds"].items())):
        late = of["expired"] + of["unavailable"] + of["other"]
        p50_ms, p99_ms = (f"{of[key]:,.1f}" if of[key] is not None else "-" for key in ("p50_ms", "p99_ms"))
        lines.append(
            f"{name:14}{of['due']:>10,}{of['answered']:>10,}{of['held_back']:>10,}{of['refused']:>10,}{late:>8,}"
            f"{of['shed_part']:>8.1%}{p50_ms:>9}{p99_ms:>9}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.overload", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--transport", choices=("grpcio", "native"), action="append")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    install.ensure(install.CLIENT)
    found: dict[str, Any] = {"machine": machine_line(), "seed": asked.seed, "seconds": asked.seconds}
    found["transports"] = {}
    for transport in asked.transport or ("grpcio", "native"):
        with tempfile.TemporaryDirectory(dir=ROOT / "build", prefix="overload-") as name:
            of = measure(
                Path(name) / transport,
                transport,
                lambda text: print(text, file=sys.stderr),
                seconds=asked.seconds,
                seed=asked.seed,
            )
        found["transports"][transport] = of
        print(table(transport, of))
    found["met"] = all(of["met"] for of in found["transports"].values())
    (ROOT / "build" / "overload.json").write_text(json.dumps(found, indent=1) + "\n")
    print("met" if found["met"] else "missed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

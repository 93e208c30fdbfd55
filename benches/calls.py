"""Durable allocations over gRPC, in batches and one by one, on either transport, beside its own echo in the same run.

The client is compiled and one for all; the server is a real one with its follower. Every terminal is asked for once,
every answer has to say OK, no SIM may be given twice, and after kill -9 the server has to know every lease.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
from simswitch.client import OperatorClient
from simswitch.core import layout
from simswitch.core.machine import xxh64
from simswitch.v1 import allocation_pb2, swap_pb2

from benches import journal
from benches.peers import install
from benches.report import ROOT, Result
from benches.rpc import MARKET, _assigned, _end, _fill, _line, _process, _server
from benches.rpc_client import PATH as ALLOCATE_SIMS
from benches.rpc_client import messages

Progress = Callable[[str], None]

ALLOCATE = ALLOCATE_SIMS.removesuffix("Sims")
ECHOES = {"grpcio": "benches.rpc_echo", "native": "benches.native_echo"}
BATCHES_IN_FLIGHT = 16
SINGLES_IN_FLIGHT = 512
LONE_PAIRS = 10
SERVERS = 2
RELEASE = "/simswitch.v1.AllocationService/Release"
GOALS_BATCH = {
    ("grpcio", 100): 100_000.0,
    ("grpcio", 1_000): 3_000_000.0,
    ("grpcio", 10_000): 3_000_000.0,
    ("native", 1_000): 5_000_000.0,
}
GOALS_UNARY = {"grpcio": 1.0, "native": 0.85}
"""Of the echo."""
GOAL_CONTROL = 0.8
GOAL_DURING_JOB = 1.2
JOB_CALLS = 300
"""In each of twice LONE_PAIRS turns."""
ADD_ITEMS = 50_000
JOB_TIMEOUT_S = 120.0
# A file system in memory, where a commit costs nothing.
MEMORY = Path("/dev/shm")

_ANSWER = struct.Struct("<IIQQ")


class Client:
    """The compiled client; it sends the messages of a file and writes the answers to another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [compiled()], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def send(self, address: str, path: str, requests: list[bytes], in_flight: int) -> Sent:
        asked, answered = self._folder / "asked", self._folder / "answered"
        asked.write_bytes(b"".join(struct.pack("<I", len(request)) + request for request in requests))
        assert self._process.stdin is not None
        self._process.stdin.write(f"{address} {path} {in_flight} {asked} {answered}\n")
        self._process.stdin.flush()
        words = _line(self._process).split()
        return Sent(int(words[0]), int(words[1]), int(words[2]), answered.read_bytes())

    def end(self) -> None:
        _end(self._process)


class Sent:
    """What became of one round."""

    def __init__(self, began_ns: int, ended_ns: int, failed: int, data: bytes) -> None:
        self.seconds = (ended_ns - began_ns) / 1e9
        self.answers: list[bytes] = []
        self.latencies_us: list[float] = []
        offset = 0
        while offset < len(data):
            size, _, _, latency_ns = _ANSWER.unpack_from(data, offset)
            offset += _ANSWER.size
            self.answers.append(data[offset : offset + size])
            self.latencies_us.append(latency_ns / 1e3)
            offset += size
        if failed:
            raise RuntimeError(f"{failed} of {len(self.answers)} calls failed")


def compiled(name: str = "rpc_client") -> str:
    """The client, built when its source is newer. Raises ``install.NotInstalled``."""
    source, program = ROOT / "benches" / f"{name}.cc", ROOT / "build" / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        install.ensure(install.CLIENT)
        program.parent.mkdir(exist_ok=True)
        libraries = subprocess.run(
            ["pkg-config", "--cflags", "--libs", "grpc++"], capture_output=True, text=True, check=True
        ).stdout.split()
        subprocess.run(["g++", "-std=c++17", "-O2", "-o", program, source, *libraries], check=True)
    return str(program)


def singles(first: int, count: int) -> list[bytes]:
    """Requests for one terminal each, from the access servers in turn."""
    return [
        allocation_pb2.AllocateRequest(
            access_server=f"as-{key % SERVERS}", market=MARKET, terminal=key, subscriber=key
        ).SerializeToString()
        for key in range(first, first + count)
    ]


def row(name: str, transport: str) -> str:
    return f"rpc.{name}" if transport == "grpcio" else f"rpc.{name}.{transport}"


def single_rows(transport: str) -> tuple[str, ...]:
    """Of measure_singles."""
    return tuple(row(name, transport) for name in ("unary", "unary_control", "unary_latency"))


@contextmanager
def echo(transport: str, reply_bytes: int, *words: str) -> Iterator[str]:
    process = _process(ECHOES[transport], str(reply_bytes), *words)
    try:
        yield f"127.0.0.1:{_line(process)}"
    finally:
        _end(process)


@contextmanager
def _workplace(folder: Path) -> Iterator[Client]:
    folder.mkdir(parents=True)
    client = Client(folder)
    try:
        yield client
    finally:
        client.end()
        shutil.rmtree(folder)


def _leases(folder: Path, sims: int, expected: int, transport: str) -> None:
    with _server(folder, sims, transport=transport) as address:
        kept = _assigned(address)
    # A SIM that two terminals got would count once here.
    if kept != expected:
        raise RuntimeError(f"{expected} allocations were granted, and {kept} SIMs are assigned after kill -9")


def measure_batches(folder: Path, size: int, progress: Progress, items: int, transport: str) -> Result:
    """Batches of ``items``; ``size`` terminals get a SIM, give it back, and get another one.

    The second time counts: the first time the kernel clears the memory that a terminal's record is the first to touch,
    which happens once in a server's life. The note has both.
    """
    name = row(f"batch_{items}", transport)
    sims = 2 * size + size // 4
    requests = messages("as-0", MARKET, 1, size, items)
    with _workplace(folder) as client:
        progress(f"{name}: importing {sims:,} SIMs")
        with _server(folder, sims, kill=True, transport=transport) as address:
            _fill(address, sims, SERVERS)
            progress(f"{name}: {size:,} allocations, twice")
            first = client.send(address, ALLOCATE_SIMS, requests, BATCHES_IN_FLIGHT)
            client.send(address, RELEASE, _releases(requests, first.answers), BATCHES_IN_FLIGHT)
            served = client.send(address, ALLOCATE_SIMS, requests, BATCHES_IN_FLIGHT)
        progress(f"{name}: counting the leases after kill -9")
        _leases(folder, sims, size, transport)
        progress(f"{name}: echo")
        with echo(transport, len(served.answers[0])) as address:
            client.send(address, ALLOCATE_SIMS, requests[:20], BATCHES_IN_FLIGHT)
            echoed = client.send(address, ALLOCATE_SIMS, requests, BATCHES_IN_FLIGHT)
    folded = _check_batches(first.answers + served.answers, 2 * size)
    return Result(
        name=name,
        size=size,
        value=size / served.seconds,
        unit="1/s",
        hash=f"{folded:016x}",
        reference=size / echoed.seconds,
        goal=GOALS_BATCH.get((transport, items)),
        better="higher",
        note=f"one client, {BATCHES_IN_FLIGHT} calls in flight, follower running; {size / first.seconds:,.0f} where "
        "each terminal is the first to touch its memory; reference: the transport's echo",
    )


def _releases(requests: list[bytes], answers: list[bytes]) -> list[bytes]:
    found = []
    for request, answer in zip(requests, answers, strict=True):
        terminals = allocation_pb2.AllocateSimsRequest.FromString(request).terminal
        epochs = allocation_pb2.AllocateSimsResponse.FromString(answer).epoch
        release = allocation_pb2.ReleaseRequest(access_server="as-0", terminal=terminals, epoch=epochs)
        found.append(release.SerializeToString())
    return found


def _check_batches(answers: list[bytes], granted: int) -> int:
    folded, found = 0, []
    for answer in answers:
        response = allocation_pb2.AllocateSimsResponse.FromString(answer)
        status = np.array(response.status, np.uint8)
        if (status != layout.OK).any():
            raise RuntimeError("an allocation was not granted")
        found.append(np.array(response.iccid, np.uint64))
        folded = xxh64(status.tobytes(), folded)
    if len(np.unique(np.concatenate(found))) != granted:
        raise RuntimeError("a SIM was given to two terminals")
    return folded


def _control(size: int, warm: int, transport: str, progress: Progress) -> float:
    """The same calls to a server whose journal lies in memory: the same gathering, and no disk."""
    requests = singles(1, warm + size)
    sims = len(requests) + len(requests) // 4
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, _workplace(Path(name) / "control") as client:
        folder = Path(name) / "control"
        progress(f"{row('unary_control', transport)}: importing {sims:,} SIMs")
        with _server(folder, sims, transport=transport) as address:
            _fill(address, sims, SERVERS)
            client.send(address, ALLOCATE, requests[:warm], SINGLES_IN_FLIGHT)
            return size / client.send(address, ALLOCATE, requests[warm:], SINGLES_IN_FLIGHT).seconds


def measure_singles(
    folder: Path, size: int, progress: Progress, transport: str, in_flight: int = SINGLES_IN_FLIGHT
) -> list[Result]:
    """One terminal a call: how many a second, and how long a lone one takes."""
    unary, control, latency = single_rows(transport)
    lone = max(20, min(200, size // 100))
    warm = max(100, size // 10)
    sims = size + size // 4 + warm + (LONE_PAIRS + 1) * lone
    requests = singles(1, size + warm + (LONE_PAIRS + 1) * lone)
    many, few = requests[: size + warm], requests[size + warm :]
    alone: tuple[list[float], list[float]] = ([], [])
    with _workplace(folder) as client:
        progress(f"{unary}: importing {sims:,} SIMs")
        with _server(folder, sims, kill=True, transport=transport) as address:
            _fill(address, sims, SERVERS)
            client.send(address, ALLOCATE, many[:warm], in_flight)
            progress(f"{unary}: {size:,} allocations")
            served = client.send(address, ALLOCATE, many[warm:], in_flight)
            reply_bytes = round(median(len(answer) for answer in served.answers))
            with echo(transport, reply_bytes) as echo_address:
                progress(f"{unary}: echo")
                client.send(echo_address, ALLOCATE, many[:warm], in_flight)
                echoed = client.send(echo_address, ALLOCATE, many[warm:], in_flight)
                progress(f"{latency}: in turn with the echo")
                for number in range(LONE_PAIRS + 1):
                    part = few[number * lone : (number + 1) * lone]
                    for at, found in zip((address, echo_address), alone, strict=True):
                        latencies = client.send(at, ALLOCATE, part, 1).latencies_us
                        found += latencies if number else []
        progress(f"{unary}: counting the leases after kill -9")
        _leases(folder, sims, len(requests), transport)
        commit = journal.measure(folder / "commits", 256, 200, lambda _: None)
    rate_control = _control(size, warm, transport, progress)
    assert commit.reference is not None
    folded = _check_singles(served.answers)
    rate, rate_echo = (size / sent.seconds for sent in (served, echoed))
    lone_us, echo_us = (median(found) for found in alone)
    return [
        Result(
            name=unary,
            size=size,
            value=rate,
            unit="1/s",
            hash=f"{folded:016x}",
            reference=rate_echo,
            goal=GOALS_UNARY[transport] * rate_echo,
            better="higher",
            note=f"one client, {in_flight} calls in flight, {SERVERS} access servers, follower running; "
            "reference: the transport's echo",
        ),
        Result(
            name=control,
            size=size,
            value=rate,
            unit="1/s",
            hash=f"{folded:016x}",
            reference=rate_control,
            goal=GOAL_CONTROL * rate_control,
            better="higher",
            note="reference: the same with the journal in memory",
        ),
        Result(
            name=latency,
            size=LONE_PAIRS * lone,
            value=lone_us,
            unit="us",
            hash=f"{folded:016x}",
            reference=echo_us,
            goal=echo_us + 2 * commit.reference,
            note=f"p50, {LONE_PAIRS} pairs in turn; goal: the echo and 2 commits of {commit.reference:.0f} us",
        ),
    ]


def measure_during_job(folder: Path, size: int, progress: Progress) -> Result:
    """One terminal a call on one access server, while a job moves ``size`` terminals of the other one, and at rest, in
    turn; a job for each turn."""
    name = "rpc.during_job"
    each = max(20, min(JOB_CALLS, size // 20))
    requests = [message for message in singles(size + 1, 2 * (2 * LONE_PAIRS + 1) * each) if b"as-1" in message]
    # A SIM that was given back rests for longer than this takes.
    sims = (LONE_PAIRS + 1) * size + size // 4 + len(requests)
    found: tuple[list[float], list[float]] = ([], [])
    answers: list[bytes] = []
    moved = ended = 0
    with _workplace(folder) as client:
        progress(f"{name}: importing {sims:,} SIMs")
        with _server(folder, sims, orders=2 * size, engine="swap_cool_down_ms = 0") as address:
            _fill(address, sims, SERVERS)
            progress(f"{name}: {size:,} terminals get a SIM")
            with _holder(address, "as-0", 1, size), OperatorClient(address) as operator:
                client.send(address, ALLOCATE, requests[:each], 1)
                for pair in range(LONE_PAIRS):
                    progress(f"{name}: {pair + 1} of {LONE_PAIRS}")
                    start = (1 + 2 * pair) * each
                    number = _start_job(operator, size)
                    sent = client.send(address, ALLOCATE, requests[start : start + each], 1)
                    found[0].extend(sent.latencies_us)
                    answers += sent.answers
                    ended += _job(operator, number).state == swap_pb2.JOB_STATE_DONE
                    moved += _ended_job(operator, number, size)
                    start += each
                    sent = client.send(address, ALLOCATE, requests[start : start + each], 1)
                    found[1].extend(sent.latencies_us)
                    answers += sent.answers
    p99, p99_at_rest = (float(np.percentile(values, 99)) for values in found)
    return Result(
        name=name,
        size=size,
        value=p99,
        unit="us",
        hash=f"{_check_singles(answers):016x}",
        reference=p99_at_rest,
        goal=GOAL_DURING_JOB * p99_at_rest,
        note=f"p99 of {len(found[0]):,} lone calls, {LONE_PAIRS} pairs in turn, {moved:,} terminals moved; p50 "
        f"{median(found[0]):,.0f}; reference: at rest, p50 {median(found[1]):,.0f}; {ended} jobs ended early",
    )


@contextmanager
def _holder(address: str, name: str, first: int, count: int) -> Iterator[None]:
    process = _process("benches.holder", address, name, MARKET, str(first), str(count))
    try:
        if _line(process).strip() != "serving":
            raise RuntimeError(f"the access server {name} did not begin to serve")
        yield
    finally:
        _end(process)


def _start_job(operator: OperatorClient, size: int) -> int:
    """A job for the terminals 1 to ``size``."""
    asked = swap_pb2.CreateJobRequest(
        reason="bench",
        priority=swap_pb2.PRIORITY_REBALANCE,
        terminals_follow=True,
        error_budget_ppm=1_000_000,
        on_infeasible=swap_pb2.INFEASIBLE_PROCEED,
    )
    number = operator.swaps.CreateJob(asked).job.number
    for start in range(1, size + 1, ADD_ITEMS):
        terminals = range(start, min(start + ADD_ITEMS, size + 1))
        last = terminals.stop > size
        operator.swaps.AddJobTerminals(swap_pb2.AddJobTerminalsRequest(job=number, terminal=terminals, last=last))
    return number


def _job(operator: OperatorClient, number: int) -> swap_pb2.Job:
    return operator.swaps.GetJob(swap_pb2.GetJobRequest(job=number)).job


def _ended_job(operator: OperatorClient, number: int, size: int) -> int:
    """How many terminals the job moved, when it has ended: all, since nothing stands in its way."""
    until = time.monotonic() + JOB_TIMEOUT_S
    while (job := _job(operator, number)).state != swap_pb2.JOB_STATE_DONE:
        if time.monotonic() > until:
            raise RuntimeError(f"a job of {size} terminals did not end within {JOB_TIMEOUT_S:.0f} s: {job}")
        time.sleep(0.02)
    if job.confirmed_count != size:
        raise RuntimeError(f"of {size} terminals the job moved {job.confirmed_count}: {job}")
    return job.confirmed_count


def _check_singles(answers: list[bytes]) -> int:
    found = set()
    folded = 0
    for answer in answers:
        response = allocation_pb2.AllocateResponse.FromString(answer)
        if int(response.status) != layout.OK:
            raise RuntimeError("an allocation was not granted")
        found.add(response.lease.iccid)
        folded = xxh64(response.status.to_bytes(1, "little"), folded)
    if len(found) != len(answers):
        raise RuntimeError("a SIM was given to two terminals")
    return folded

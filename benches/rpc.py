"""Durable allocations a second over gRPC in batches, by clients in Python: a real server, its follower, two clients.

Every terminal is asked for once, every answer has to say OK, and no SIM may be given twice. Then the server is killed
and started again, and has to know every one of these leases. (That shows that all were written before they were
answered; that they were also on the disk, only a power cut could show.) The reference is grpcio's own echo of the same
messages from the same clients in the same run.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from simswitch.client import OperatorClient
from simswitch.core.machine import xxh64
from simswitch.v1 import inventory_pb2 as inventory
from simswitch.v1 import pool_pb2, sim_pb2

from benches.report import ROOT, Result

CLIENTS = 2
IN_FLIGHT = 32
GOAL = 100_000.0
MARKET = "market"
IMPORT_ITEMS = 50_000
START_TIMEOUT_S = 60.0

Progress = Callable[[str], None]

ENGINE = "approval_above = 4_000_000_000\nautomatic_swaps = 0\nswaps_per_day_max = 255\n"
"""Nobody is there to approve a job, and terminals are swapped again and again."""


def measure(folder: Path, size: int, progress: Progress, items: int = 100) -> Result:
    """Allocates for ``size`` terminals from a quarter more SIMs. ``folder`` is made, and removed afterwards."""
    name, clients, in_flight = f"rpc.batch_{items}.python", CLIENTS, IN_FLIGHT
    each = size // clients
    sims = size + size // 4
    progress(f"{name}: echo")
    with _echo() as address:
        echoed = _race(address, each, clients, in_flight, items, echo=True)
    progress(f"{name}: importing {sims:,} SIMs")
    folder.mkdir(parents=True)
    try:
        with _server(folder, sims, kill=True) as address:
            _fill(address, sims, clients)
            progress(f"{name}: {each * clients:,} allocations")
            served = _race(address, each, clients, in_flight, items, echo=False)
        progress(f"{name}: counting the leases after kill -9")
        with _server(folder, sims) as address:
            kept = _assigned(address)
    finally:
        shutil.rmtree(folder)
    # A SIM that two terminals got would count once here.
    if kept != each * clients:
        raise RuntimeError(f"{each * clients} allocations were granted, and {kept} SIMs are assigned after kill -9")
    return Result(
        name=name,
        size=each * clients,
        value=_rate(served),
        unit="1/s",
        hash=f"{xxh64(json.dumps([answer['hash'] for answer in served]).encode()):016x}",
        reference=_rate(echoed),
        goal=GOAL,
        better="higher",
        note=f"{clients} client processes, {in_flight} calls in flight each, follower running; reference: echo",
    )


def _rate(answers: list[dict[str, Any]]) -> float:
    granted = sum(answer["granted"] for answer in answers)
    began = min(answer["began"] for answer in answers)
    return float(granted / (max(answer["ended"] for answer in answers) - began))


def _race(address: str, each: int, clients: int, in_flight: int, items: int, *, echo: bool) -> list[dict[str, Any]]:
    """Starts the clients, lets them go at once, and gives what they saw."""
    processes = []
    try:
        for number in range(clients):
            figures = {
                "address": address,
                "access_server": f"as-{number}",
                "market": MARKET,
                "first": 1 + number * each,
                "count": each,
                "batch_items": items,
                "in_flight": in_flight,
                "echo": echo,
            }
            processes.append(_process("benches.rpc_client", json.dumps(figures)))
        for process in processes:
            _line(process, "ready")
        for process in processes:
            _say(process)
        answers = [json.loads(_line(process)) for process in processes]
    finally:
        for process in processes:
            _end(process)
    missing = each * clients - sum(answer["granted"] for answer in answers)
    if missing:
        raise RuntimeError(f"{missing} of {each * clients} allocations were not granted")
    if not echo and any(answer["sims"] != each for answer in answers):
        raise RuntimeError("a SIM was given to two terminals")
    return answers


def _process(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str], wanted: str | None = None) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line or (wanted is not None and line != wanted):
        raise RuntimeError(f"{process.args!r} said {line!r} and ended with {process.poll()}")
    return line


def _say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def _end(process: subprocess.Popen[str]) -> None:
    """Closes its input, which ends it, and waits."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def _echo() -> Iterator[str]:
    process = _process("benches.rpc_echo")
    try:
        yield f"127.0.0.1:{_line(process)}"
    finally:
        _end(process)


@contextmanager
def _server(
    folder: Path, size: int, *, kill: bool = False, transport: str = "grpcio", orders: int = 20_000, engine: str = ""
) -> Iterator[str]:
    """The address of a ``served``."""
    with served(folder, size, kill=kill, transport=transport, orders=orders, engine=engine) as (address, _):
        yield address


@contextmanager
def served(
    folder: Path, size: int, *, kill: bool = False, transport: str = "grpcio", orders: int = 20_000, engine: str = ""
) -> Iterator[tuple[str, int]]:
    """A real ``simswitch serve``, its address and process id; at the end SIGTERM, or SIGKILL. ``engine``: lines of its
    settings."""
    config = folder / "simswitch.toml"
    config.write_text(
        f"[capacity]\nsims = {size}\nterminals = {size}\norders = {orders}\n"
        f'[service]\ntransport = "{transport}"\n[engine]\n{ENGINE}{engine}\n'
    )
    data = folder / "data"
    (data / "address").unlink(missing_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "simswitch",
                "serve",
                str(data),
                "--address",
                "127.0.0.1:0",
                "--config",
                str(config),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield _address(process, data / "address", folder / "log"), process.pid
        finally:
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[bytes], path: Path, log: Path) -> str:
    """What the server wrote when it began to listen."""
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        if path.exists() and (address := path.read_text().strip()):
            return address
        time.sleep(0.02)
    raise RuntimeError(f"the server did not start: {log.read_text()}")


def _fill(address: str, size: int, servers: int) -> None:
    """One fresh lot of ``size`` SIMs, one market, and the access servers."""
    with OperatorClient(address) as operator:
        stub = operator.inventory
        stub.DefineSupplier(inventory.DefineSupplierRequest(supplier=inventory.Supplier(name="supplier")))
        window = inventory.CapWindow(kind=inventory.CAP_WINDOW_KIND_CYCLE, quota_bytes=100 << 30)
        plan = inventory.Plan(name="plan", carrier="carrier", windows=[window])
        stub.DefinePlan(inventory.DefinePlanRequest(plan=plan))
        stub.DefineSimClass(inventory.DefineSimClassRequest(sim_class=inventory.SimClass(name="class")))
        lot = inventory.Lot(name="lot", supplier="supplier", plan="plan", sim_class="class")
        stub.DefineLot(inventory.DefineLotRequest(lot=lot))
        stub.DefineMarket(inventory.DefineMarketRequest(market=inventory.Market(name=MARKET, sim_classes=["class"])))
        stub.DefineBank(inventory.DefineBankRequest(bank=inventory.Bank(name="bank")))
        for number in range(servers):
            server = inventory.AccessServer(name=f"as-{number}")
            stub.DefineAccessServer(inventory.DefineAccessServerRequest(access_server=server))
        stub.ImportSims(_chunks(size))


def _assigned(address: str) -> int:
    """How many SIMs a terminal holds."""
    with OperatorClient(address) as operator:
        summary = operator.pool.GetSummary(pool_pb2.GetSummaryRequest())
    return sum(found.count for found in summary.occupancies if found.occupancy == sim_pb2.OCCUPANCY_ASSIGNED)


def _chunks(size: int) -> Iterator[inventory.ImportSimsRequest]:
    for start in range(0, size, IMPORT_ITEMS):
        numbers = np.arange(start, min(start + IMPORT_ITEMS, size), dtype=np.uint64)
        yield inventory.ImportSimsRequest(
            lots=["lot"],
            banks=["bank"],
            iccid=(2 * (10**15 + numbers)).tolist(),
            imsi=(440_100_000_000_000 + numbers).tolist(),
            slot=(numbers % 512).tolist(),
        )

"""Concurrent access servers and an operator against a real server that is killed at random: ``python -m
tests.histories.run`` (``make histories``).

    as-01, as-02, as-03   a session each, callers each; terminals move between them (``access_servers``)
    as-03                 is switched off now and then, declared dead, and comes back with nothing
    the operator          says of SIMs that they are unfit, and fit again, and has terminals swapped by jobs
    the server            is killed, also while it starts, and starts again on either transport

Every call is noted, also those that the server died over, and the history is checked. The seed draws what is asked and
when the server is killed; what the scheduler does is its own. Leaves ``build/histories.json``; exit code 1 when
something can't be explained.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from simswitch.client import OperatorClient, ServiceError
from simswitch.client.operator import iccid_column, service_errors
from simswitch.core.commands import decode_iccid
from simswitch.journal.disk import RealDisk
from simswitch.journal.recovery import real_machine, recover
from simswitch.v1 import inventory_pb2 as inv
from simswitch.v1 import pool_pb2, sim_pb2, swap_pb2

from tests.histories.access_servers import AccessServer, EventLoop
from tests.histories.checker import DEATH, GRANTED, HELLO, NAMED, SWITCH, UNANSWERED, HealthCall, History, violations
from tests.service.serving import SIMS, define

REPORT = Path(__file__).resolve().parents[2] / "build" / "histories.json"
NAMES = ("as-01", "as-02", "as-03")
TERMINALS = range(1, 13)
EVERY_SIM = [decode_iccid(2 * (10**15 + number)) for number in range(SIMS)]
"""As ``define`` makes them."""
CALLS_A_LIFE = 100
"""At least, between a start and the next kill."""
KILLED_AGAIN = 0.25
"""How often it is killed once more while it starts, perhaps over its recovery."""
DIES = 7
"""In every so many lives of the server as-03 is switched off, and in the next one declared dead."""
PAUSE_S = 0.02
"""Between two words of the operator."""
TRANSPORTS = ("grpcio", "native") if find_spec("pygrpc_native") is not None else ("grpcio",)
# A SIM that is given back can be had again at once, a terminal swapped at once; no lease ends by itself.
SETTINGS = """
[capacity]
sims = 1_000
terminals = 1_000
orders = 10_000
[journal]
segment_bytes = 1_048_576
free_mark_bytes = 0
[follower]
snapshot_seconds = 1
[engine]
cooling_ms = 1
lease_ms = 3_600_000
order_deadline_ms = 1_000
swap_cool_down_ms = 0
swaps_per_day_max = 255
attempts_max = 2
automatic_swaps = 0
approval_above = 4_000_000_000
fencing_ms = 1_000
breaker_ppm = 1_000_000
admission_queue_ms = 0
"""


class KilledServer:
    """A server on a folder, started by a program of ours so that a test may spoil it."""

    def __init__(self, folder: Path, program: tuple[str, ...], chance: random.Random) -> None:
        self._folder = folder
        self._program = program
        self._chance = chance
        self._process: subprocess.Popen[bytes] | None = None
        self.address = "127.0.0.1:0"

    def start(self) -> None:
        self.begin()
        file = self._folder / "address"
        while not file.exists():
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError((self._folder.parent / "server.log").read_text(encoding="utf-8")[-2_000:])
            time.sleep(0.01)
        self.address = file.read_text(encoding="ascii").strip()

    def begin(self) -> None:
        """Without waiting until it serves."""
        (self._folder / "address").unlink(missing_ok=True)
        config = self._folder.parent / "simswitch.toml"
        config.write_text(SETTINGS, encoding="utf-8")
        words = ["serve", str(self._folder), "--config", str(config), "--address", self.address]
        words += ["--transport", self._chance.choice(TRANSPORTS)]
        with (self._folder.parent / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._program, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


class _Operator(threading.Thread):
    """Says what is fit and what is not, and orders swaps."""

    def __init__(self, address: str, servers: list[AccessServer], seed: int) -> None:
        super().__init__(daemon=True)
        self.healths: list[HealthCall] = []
        self.jobs_count = 0
        self._address = address
        self._servers = servers
        self._chance = random.Random(f"{seed} operator")
        self._over = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            with OperatorClient(self._address) as operator:
                while not self._over.wait(PAUSE_S):
                    if self._chance.random() < 0.5:
                        self._judge(operator)
                    else:
                        self._order(operator)
        except BaseException as error:
            self._error = error
            raise

    def _judge(self, operator: OperatorClient) -> None:
        books = self._chance.choice(self._servers).books
        held = [lease.iccid for terminal in TERMINALS if (lease := books.get(terminal)) is not None]
        held += [holding.sim for holding in books.past[-3:]]
        fit = not held or self._chance.random() < 0.5
        sims = self._chance.sample(EVERY_SIM, 8) if fit else [self._chance.choice(held)]
        health = sim_pb2.HEALTH_HEALTHY if fit else sim_pb2.HEALTH_QUARANTINED
        request = inv.SetSimHealthRequest(iccid=iccid_column(sims), health=health)
        begun_s = time.monotonic()
        answered = _reached(lambda: operator.inventory.SetSimHealth(request))
        answered_s = time.monotonic()
        self.healths += [HealthCall(sim, fit, begun_s, answered_s, answered) for sim in sims]

    def _order(self, operator: OperatorClient) -> None:
        terminals = self._chance.sample(TERMINALS, 3)
        request = swap_pb2.CreateJobRequest(reason="a test", terminal=terminals)
        self.jobs_count += _reached(lambda: operator.swaps.CreateJob(request))

    def end(self) -> None:
        self._over.set()
        self.join()
        if self._error is not None:
            raise self._error


def _reached(call: Any) -> bool:
    """Whether the service has answered; what it refuses for a reason is an answer."""
    try:
        with service_errors():
            call()
    except ServiceError as error:
        return not error.unreachable
    return True


def record(
    folder: Path, seed: int, kills: int, program: tuple[str, ...] = ("-m", "simswitch"), last_calls: int = CALLS_A_LIFE
) -> tuple[History, dict[str, int]]:
    """What everybody was told while the server was killed so many times, and in its last life; and what there was."""
    folder.mkdir(parents=True)
    chance = random.Random(seed)
    server = KilledServer(folder, program, chance)
    server.start()
    with OperatorClient(server.address) as operator:
        define(operator)
        third = inv.AccessServer(name=NAMES[2])
        operator.inventory.DefineAccessServer(inv.DefineAccessServerRequest(access_server=third))
    said: list[int] = []
    loop = EventLoop()
    part = len(TERMINALS) // len(NAMES)
    servers = [
        AccessServer(name, server.address, TERMINALS, TERMINALS[number * part : (number + 1) * part], seed, said, loop)
        for number, name in enumerate(NAMES)
    ]
    for each in servers:
        each.start()
    operations = _Operator(server.address, servers, seed)
    operations.start()
    deaths = 0
    off_s = 0.0

    def live(calls: int) -> None:
        answered = len(said)
        while len(said) < answered + calls:
            if any(each.errors for each in servers):
                raise RuntimeError("a caller has ended")
            time.sleep(0.01)

    try:
        for life in range(kills):
            live(CALLS_A_LIFE // 2)
            if off_s:
                deaths += _declare_dead(server.address, servers[2], off_s)
                servers[2].switch_on()
                off_s = 0.0
            elif life % DIES == 0:
                off_s = servers[2].switch_off()
            live(CALLS_A_LIFE // 2)
            time.sleep(chance.uniform(0, 0.3))
            server.kill()
            if chance.random() < KILLED_AGAIN:
                server.begin()
                time.sleep(chance.uniform(0, 1))
                server.kill()
            server.start()
        live(last_calls)
        if off_s:
            servers[2].switch_on()
    finally:
        operations.end()
        history = History(healths=operations.healths)
        for each in servers:
            history += each.end()
        loop.end()
        server.kill()
    return history, {"jobs": operations.jobs_count, "deaths": deaths}


def _declare_dead(address: str, server: AccessServer, off_s: float) -> bool:
    """And waits until what it held is free, or nobody knows whether it is."""
    request = pool_pb2.DeclareDeadRequest(access_server=server.name)
    with OperatorClient(address) as operator:
        declared_s = time.monotonic()
        if not _reached(lambda: operator.pool.DeclareDead(request)):
            return False
        server.died(off_s, declared_s)
        asked = pool_pb2.GetAccessServerStatusRequest(name=server.name)
        while operator.pool.GetAccessServerStatus(asked).status.dead_ms:
            time.sleep(0.02)
    return True


def counted_bytes(folder: Path) -> int:
    """Of all usage, as whoever opens the folder finds it. Every invariant has to hold."""
    machine = recover(RealDisk(folder, create=False), real_machine(), repair=False).machine
    faults = machine.check()
    if faults:
        raise RuntimeError("; ".join(faults))
    return int(machine.header()["counted_bytes"])


def summary(seed: int, kills: int, history: History, happened: dict[str, int], counted: int) -> dict[str, Any]:
    calls = [call for call in history.calls if call.kind not in (SWITCH, HELLO, NAMED, DEATH)]
    given = sorted((call for call in calls if call.answer == GRANTED), key=lambda call: (call.terminal, call.granted))
    return {
        "seed": seed,
        "kills": kills,
        "calls": len(calls),
        "answered": sum(call.answer != UNANSWERED for call in calls),
        "answers": dict(sorted(Counter(f"{call.kind}: {call.answer}" for call in calls).items())),
        "in_batches": dict(sorted(Counter(call.answer for call in calls if call.many).items())),
        "moves": sum(one.terminal == other.terminal and one.server != other.server for one, other in pairwise(given)),
        "switches": sum(call.kind == SWITCH for call in history.calls),
        "words_on_sims": len(history.healths),
        **happened,
        "counted_bytes": counted,
        "violations": violations(history, counted),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.histories.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--kills", type=int, default=200)
    asked = parser.parse_args()
    seed = random.randrange(1 << 32) if asked.seed is None else asked.seed
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        history, happened = record(data, seed, asked.kills)
        found = summary(seed, asked.kills, history, happened, counted_bytes(data))
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    return 1 if found["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())

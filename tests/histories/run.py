"""Concurrent clients against a real server that is killed at random: ``python -m tests.histories.run``
(``make histories``).

Every call is noted, also those that the server died over, and the history is checked. The seed draws what the clients
ask and when the server is killed; what the scheduler does is its own. Leaves ``build/histories.json``; exit code 1 when
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
from pathlib import Path
from typing import Any

from simswitch.client import Client, ServiceError
from simswitch.core import layout

from tests.folder.lives import Life
from tests.histories.checker import ALLOCATE, DONE, GRANTED, NONE, RELEASE, RENEW, STALE, UNANSWERED, Call, violations

REPORT = Path(__file__).resolve().parents[2] / "build" / "histories.json"
CLIENTS = 4
TERMINALS = 10
CALLS_A_LIFE = 40
"""At least, between a start and the next kill."""
KILLED_AGAIN = 0.25
"""How often it is killed once more while it starts, perhaps over its recovery."""
MARKET = "market"
# A SIM that is given back can be had again at once; no lease ends by itself.
SETTINGS = (
    "[journal]\nsegment_bytes = 1_048_576\nfree_mark_bytes = 0\n[follower]\nsnapshot_seconds = 1\n"
    "[engine]\ncooling_ms = 1\nlease_ms = 3_600_000\n"
)
_ANSWERS = {layout.OK: DONE, layout.STALE_EPOCH: STALE, layout.NO_LEASE: NONE, layout.UNKNOWN_TERMINAL: NONE}


class KilledServer:
    """A server on a folder, started by a program of ours so that a test may spoil it."""

    def __init__(self, folder: Path, program: tuple[str, ...]) -> None:
        self._folder = folder
        self._program = program
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
        with (self._folder.parent / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._program, "serve", self._folder, "--config", config, "--address", self.address],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


class _Caller(threading.Thread):
    """One client: asks for terminals that others ask for too, and notes what it was told."""

    def __init__(self, address: str, seed: str, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._random = random.Random(seed)
        self._over = over
        self._epochs: dict[int, list[int]] = {}
        self.calls: list[Call] = []

    def run(self) -> None:
        with Client(self._address, access_server="as-01", timeout_s=60) as client:
            while not self._over.is_set():
                self._call(client)

    def _call(self, client: Client) -> None:
        terminal = self._random.randrange(1, TERMINALS + 1)
        known = self._epochs.setdefault(terminal, [])
        kind = self._random.choice((ALLOCATE, RENEW, RELEASE)) if known else ALLOCATE
        epoch = known[-1] if known and self._random.random() < 0.8 else self._random.choice(known or [0])
        begun_s = time.monotonic()
        sim = ""
        try:
            if kind == ALLOCATE:
                lease = client.allocate(terminal, MARKET)
                answer, epoch, sim = GRANTED, lease.epoch, lease.iccid
                known.append(epoch)
            elif kind == RENEW:
                answer = _ANSWERS[layout.Status(int(client.renew([terminal], [epoch]).status[0]))]
            else:
                answer = _ANSWERS[layout.Status(int(client.release([terminal], [epoch])[0]))]
        except ServiceError as error:
            if not error.unreachable:
                raise
            answer = UNANSWERED
        answered_s = time.monotonic()
        self.calls.append(
            Call(kind, terminal, begun_s, answered_s, answer, epoch if kind != ALLOCATE or sim else 0, sim)
        )
        if answer == UNANSWERED:
            # The connection is made anew at its own pace; there is nothing to be learned meanwhile.
            self._over.wait(0.02)


def record(folder: Path, seed: int, kills: int, program: tuple[str, ...] = ("-m", "simswitch")) -> list[Call]:
    """What the clients were told while the server was killed so many times."""
    Life(folder).cell.close()
    chance = random.Random(seed)
    server = KilledServer(folder, program)
    server.start()
    over = threading.Event()
    callers = [_Caller(server.address, f"{seed} {number}", over) for number in range(CLIENTS)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(kills):
            answered = _answered(callers)
            while _answered(callers) < answered + CALLS_A_LIFE:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.3))
            server.kill()
            if chance.random() < KILLED_AGAIN:
                server.begin()
                time.sleep(chance.uniform(0, 1))
                server.kill()
            server.start()
        time.sleep(0.5)
    finally:
        over.set()
        for caller in callers:
            caller.join()
        server.kill()
    return [call for caller in callers for call in caller.calls]


def _answered(callers: list[_Caller]) -> int:
    return sum(call.answer != UNANSWERED for caller in callers for call in caller.calls)


def summary(seed: int, kills: int, calls: list[Call]) -> dict[str, Any]:
    answered = [call for call in calls if call.answer != UNANSWERED]
    return {
        "seed": seed,
        "kills": kills,
        "calls": len(calls),
        "answered": len(answered),
        "granted": sum(call.answer == GRANTED for call in answered),
        "released": sum(call.kind == RELEASE and call.answer == DONE for call in answered),
        "violations": violations(calls),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.histories.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--kills", type=int, default=200)
    asked = parser.parse_args()
    seed = random.randrange(1 << 32) if asked.seed is None else asked.seed
    with tempfile.TemporaryDirectory() as folder:
        found = summary(seed, asked.kills, record(Path(folder) / "data", seed, asked.kills))
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    return 1 if found["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""The client processes of a contender that is driven from Python, and the process itself.

A process is started once with the name of its peer and its options as JSON. Then, for each phase: it reads one line (a
task), prepares all requests, says ``ready``, waits for a line, sends, says when it began and ended by the machine's
monotonic clock, and has written what it was told to a file. Preparing and reading answers is not measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from benches.peers.contest import IN_FLIGHT, PROCESSES, U64, Pairs
from benches.report import ROOT

END_TIMEOUT_S = 10.0


class Client(Protocol):
    """What speaks to one peer; made in the client process as ``module.Connections(**options)``."""

    def allocations(self, terminals: U64) -> list[Any]:
        """The requests, ready to be sent."""

    def releases(self, terminals: U64) -> list[Any]: ...

    def exchange(self, requests: list[Any]) -> list[Any]:
        """Sends all, as many at a time as it was made for, and gives the answers: this is what is measured."""

    def granted(self, answers: list[Any]) -> Pairs: ...

    def released(self, answers: list[Any]) -> int:
        """How many SIMs came back."""


class Driven:
    """A contender whose clients are processes of this module."""

    def __init__(
        self,
        name: str,
        batch_items: int,
        folder: Path,
        options: dict[str, Any],
        *,
        processes: int = PROCESSES,
        client: str,
        durability: str,
        settings: str,
        books: Callable[[], Pairs | int],
        tidy: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.batch_items = batch_items
        self.in_flight = 1 if processes == 1 else IN_FLIGHT[batch_items]
        self.client = client
        self.durability = durability
        self.settings = settings
        self.books = books
        self.tidy = tidy
        self._folder = folder / name
        self._options = options
        self._count = processes
        self._processes: list[subprocess.Popen[str]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        with self._stack as stack:
            for number in range(self._count):
                options = {
                    **self._options,
                    "number": number,
                    "batch_items": self.batch_items,
                    "in_flight": self.in_flight // self._count,
                }
                # A session of its own: Ctrl-C is for the bench; a client ends when its input does.
                process = subprocess.Popen(
                    [sys.executable, "-m", "benches.peers.client", self.name.partition(".")[0], json.dumps(options)],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
                stack.callback(_end, process)
                self._processes.append(process)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def allocate(self, terminals: U64) -> float:
        return self._phase("allocate", terminals)

    def release(self, terminals: U64) -> float:
        return self._phase("release", terminals)

    def answers(self) -> Pairs:
        parts = [np.load(self._folder / f"pairs-{number}.npy") for number in range(self._count)]
        terminals, sims = np.concatenate(parts, axis=1)
        return Pairs(terminals, sims)

    def _phase(self, phase: str, terminals: U64) -> float:
        # A terminal is released by the process that allocated it: it stays on its access server.
        for number, process in enumerate(self._processes):
            np.save(self._folder / f"terminals-{number}.npy", terminals[terminals % self._count == number])
            _say(process, json.dumps({"phase": phase, "folder": str(self._folder)}))
        for process in self._processes:
            _read(process, "ready")
        for process in self._processes:
            _say(process, "go")
        told = [json.loads(_read(process)) for process in self._processes]
        if (done := sum(answer["done"] for answer in told)) != len(terminals):
            raise RuntimeError(f"{self.name}: {phase} for {len(terminals):,} terminals, {done:,} were done")
        return float(max(answer["ended"] for answer in told) - min(answer["began"] for answer in told))


def _say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _read(process: subprocess.Popen[str], wanted: str | None = None) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line or (wanted is not None and line != wanted):
        raise RuntimeError(f"the client {process.args!r} said {line!r} and ended with {process.poll()}")
    return line


def _end(process: subprocess.Popen[str]) -> None:
    """Closes its input, which ends it, and waits."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.close()
        process.wait(END_TIMEOUT_S)
    except (BrokenPipeError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()
    process.stdout.close()


def serve(client: Client, number: int) -> None:
    """Does the tasks of standard input."""
    while line := sys.stdin.readline():
        task = json.loads(line)
        folder = Path(task["folder"])
        allocating = task["phase"] == "allocate"
        terminals: U64 = np.load(folder / f"terminals-{number}.npy")
        requests = client.allocations(terminals) if allocating else client.releases(terminals)
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        answers = client.exchange(requests)
        ended = time.monotonic()
        if allocating:
            pairs = client.granted(answers)
            np.save(folder / f"pairs-{number}.npy", np.stack([pairs.terminals, pairs.sims]))
            done = len(pairs.terminals)
        else:
            done = client.released(answers)
        print(json.dumps({"began": began, "ended": ended, "done": done}), flush=True)


def batches(terminals: U64, items: int) -> list[U64]:
    """In parts of ``items``."""
    return [terminals[start : start + items] for start in range(0, len(terminals), items)]


MODULES = {"ours": "ours", "redis": "redis_lua", "postgresql": "postgresql", "sqlite": "sqlite"}


def main() -> None:
    options = json.loads(sys.argv[2])
    module = import_module(f"benches.peers.{MODULES[sys.argv[1]]}")
    serve(module.Connections(**options), options["number"])


if __name__ == "__main__":
    main()

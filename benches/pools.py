"""One allocation a call through the Python API, beside the pools that one would write in Python without a core.

Each does the same job: take a free healthy SIM with the expected use left for a terminal, record the lease, give SIM
and epoch back; later release it. All are warm, hold as many SIMs, and take turns in one run, 10,000 calls at a time.
None of the others is durable, ordered by market or safe against a second caller; ours goes the way of every command.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Protocol

import numpy as np

from benches.report import Result
from benches.world import EXPECTED_BYTES, POOLS, QUOTA_BYTES, World

TURN_CALLS = 10_000
LEASE_MS = 3_600_000
GOAL_NS = 150.0
TRIES = 8


class PythonPool(Protocol):
    """What is compared. ``allocate`` gives SIM and epoch, and raises when no SIM fits."""

    now_ms: int

    def allocate(self, terminal: int) -> tuple[int, int]: ...
    def release(self, terminal: int) -> None: ...


class DequePool:
    """Leases in a dict, free SIMs in a deque: the one that has rested longest goes first."""

    now_ms = 0

    def __init__(self, headroom_bytes: list[int]) -> None:
        self._headroom_bytes = headroom_bytes
        self._free = deque(range(len(headroom_bytes)))
        self._leases: dict[int, tuple[int, int, int]] = {}
        self._epoch = 0

    def allocate(self, terminal: int) -> tuple[int, int]:
        free = self._free
        for _ in range(TRIES):
            sim = free.popleft()
            if self._headroom_bytes[sim] >= EXPECTED_BYTES:
                self._epoch = epoch = self._epoch + 1
                self._leases[terminal] = (sim, epoch, self.now_ms + LEASE_MS)
                return sim, epoch
            free.append(sim)
        raise LookupError("no SIM fits")

    def release(self, terminal: int) -> None:
        self._free.append(self._leases.pop(terminal)[0])


class HeapPool:
    """Free SIMs in a heap, the one with the most headroom first."""

    now_ms = 0

    def __init__(self, headroom_bytes: list[int]) -> None:
        self._free = [(-headroom, sim) for sim, headroom in enumerate(headroom_bytes)]
        heapq.heapify(self._free)
        self._headroom_bytes = headroom_bytes
        self._leases: dict[int, tuple[int, int, int]] = {}
        self._epoch = 0

    def allocate(self, terminal: int) -> tuple[int, int]:
        if -self._free[0][0] < EXPECTED_BYTES:
            raise LookupError("no SIM fits")
        sim = heapq.heappop(self._free)[1]
        self._epoch = epoch = self._epoch + 1
        self._leases[terminal] = (sim, epoch, self.now_ms + LEASE_MS)
        return sim, epoch

    def release(self, terminal: int) -> None:
        sim = self._leases.pop(terminal)[0]
        heapq.heappush(self._free, (-self._headroom_bytes[sim], sim))


class NumpyPool:
    """Columns in arrays, free SIMs in a ring; a dict from terminal to SIM."""

    now_ms = 0

    def __init__(self, headroom_bytes: list[int]) -> None:
        count = len(headroom_bytes)
        self._headroom_bytes = np.array(headroom_bytes, np.int64)
        self._ring = np.arange(count, dtype=np.uint32)
        self._epochs = np.zeros(count, np.uint64)
        self._expires_ms = np.zeros(count, np.uint64)
        self._holder: dict[int, int] = {}
        self._head = self._tail = 0
        self._epoch = 0

    def allocate(self, terminal: int) -> tuple[int, int]:
        ring = self._ring
        for _ in range(TRIES):
            sim = ring.item(self._head)
            self._head = (self._head + 1) % len(ring)
            if self._headroom_bytes.item(sim) >= EXPECTED_BYTES:
                self._epoch = epoch = self._epoch + 1
                self._epochs[sim] = epoch
                self._expires_ms[sim] = self.now_ms + LEASE_MS
                self._holder[terminal] = sim
                return sim, epoch
            self._give_back(sim)
        raise LookupError("no SIM fits")

    def _give_back(self, sim: int) -> None:
        self._ring[self._tail] = sim
        self._tail = (self._tail + 1) % len(self._ring)

    def release(self, terminal: int) -> None:
        self._give_back(self._holder.pop(terminal))


RIVALS: dict[str, Callable[[list[int]], PythonPool]] = {
    "dict + deque": DequePool,
    "numpy": NumpyPool,
    "heapq": HeapPool,
}


def our_calls_ns(world: World, terminals: list[int]) -> float:
    """Nanoseconds a call of the Python API."""
    allocate_one, market, now_ms = world.machine.allocate_one, world.markets[0], world.now_ms
    before = time.perf_counter_ns()
    for terminal in terminals:
        allocate_one(terminal, market, now_ms, 7)
    return (time.perf_counter_ns() - before) / len(terminals)


def calls_ns(allocate: Callable[[int], object], terminals: list[int]) -> float:
    """Nanoseconds a call."""
    before = time.perf_counter_ns()
    for terminal in terminals:
        allocate(terminal)
    return (time.perf_counter_ns() - before) / len(terminals)


def measure(size: int, seed: int, rounds: int, progress: Callable[[str], None]) -> Result:
    """Ours beside the fastest of the others, with ``size`` SIMs."""
    progress(f"core.python_call, {size:,} SIMs: filling")
    world = World(size, POOLS["spread"], seed)
    headroom_bytes = (QUOTA_BYTES - world.random.integers(0, QUOTA_BYTES - EXPECTED_BYTES, size)).tolist()
    rivals = {name: make(headroom_bytes) for name, make in RIVALS.items()}
    samples: dict[str, list[float]] = {name: [] for name in ("ours", *rivals)}
    for number in range(rounds):
        progress(f"core.python_call, {size:,} SIMs: round {number + 1} of {rounds}")
        chosen = world.random.choice(size, size // 2, replace=False)
        for part in world.parts(chosen, TURN_CALLS):
            terminals = world.keys[part].tolist()
            samples["ours"].append(our_calls_ns(world, terminals))
            for name, rival in rivals.items():
                rival.now_ms = world.now_ms
                samples[name].append(calls_ns(rival.allocate, terminals))
        if (held := world.machine.header()["occupancy"]["assigned"]) != len(chosen):
            raise RuntimeError(f"{held:,} SIMs are assigned after {len(chosen):,} allocations")
        # The terminals became known in the order of their keys.
        world.epochs[chosen] = world.machine.terminals_columns()["epoch"][chosen]
        world.release(world.random.permutation(chosen), TURN_CALLS)
        world.pass_ms(5_000)
        for rival in rivals.values():
            for terminal in world.keys[world.random.permutation(chosen)].tolist():
                rival.release(terminal)
    found = {name: median(values) for name, values in samples.items()}
    fastest = min(rivals, key=lambda name: found[name])
    return Result(
        name="core.python_call",
        size=size,
        value=found["ours"],
        unit="ns",
        hash=world.hash,
        reference=found[fastest],
        goal=GOAL_NS,
        note=f"reference: {fastest}; " + ", ".join(f"{name} {found[name]:,.0f}" for name in rivals),
    )

"""Data folders with something of everything in them, for the tests of check, backup and restore."""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from simswitch.access.tokens import FILE as TOKENS
from simswitch.audit.chain import Chain
from simswitch.cell import Capacity, Cell, JournalSettings, VirtualClock
from simswitch.core import commands, layout
from simswitch.core.machine import Machine
from simswitch.following import readers_of
from simswitch.journal.disk import RealDisk
from simswitch.journal.follower import Follower, FollowerSettings
from simswitch.journal.recovery import MachineKind

from tests.cell.small_pool import SERVER_NUMBER, allocate, fill

BEGIN_MS = 1_700_000_000_000
SEGMENT_BYTES = 64 * 1024
NEVER = FollowerSettings(replay_s=1e9, bytes_max=1 << 60, interval_s=1e9)


class Life:
    """A cell, its follower and history; what stood after each record is noted beside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = VirtualClock(BEGIN_MS)
        self.cell = Cell.open(
            folder,
            capacity=Capacity(2_000, 2_000, 100),
            journal=JournalSettings(SEGMENT_BYTES, 0, prepare_ahead=False),
            clock=self.clock,
        )
        self.epochs: dict[int, int] = {}
        self.states: dict[int, int] = {}
        self.leases: dict[int, dict[int, int]] = {}
        self.instants: dict[int, int] = {}
        fill(self.step, 300)
        chain = Chain(folder / TOKENS)
        chain.append({"what": "made for a test"})
        chain.sync()
        chain.close()

    def step(self, batch: bytes) -> commands.OutcomeRun:
        self.clock.advance(1_000)
        found = commands.outcome_runs(self.cell.step(batch).data)[0]
        sequence = self.cell.durable_sequence
        self.states[sequence] = self.cell.machine.state_hash()
        self.leases[sequence] = leases(self.cell.machine)
        self.instants[sequence] = self.cell.machine.now_ms
        return found

    def attach(self, first: int, count: int = 1) -> list[int]:
        epochs: list[int] = self.step(allocate(first, count))["epoch"].tolist()
        self.epochs.update(zip(range(first, first + count), epochs, strict=True))
        return epochs

    def release(self, terminal: int) -> None:
        self.step(lease(layout.RELEASE, terminal, self.epochs.pop(terminal)))

    def report(self, terminals: range, total: int) -> None:
        self.step(
            commands.run(
                layout.REPORT_USAGE,
                len(terminals),
                access_server=SERVER_NUMBER,
                terminal=np.array(terminals, np.uint64),
                epoch=[self.epochs[terminal] for terminal in terminals],
                up_bytes=0,
                down_bytes=total,
            )
        )

    def live(self, first: int, count: int = 20) -> None:
        """Some leases, some use, some of them given back."""
        for start in range(first, first + count, 5):
            self.attach(start, 5)
            self.report(range(start, start + 5), start * 1_000)
            self.release(start)

    def follow(self, *, snapshot: bool = True) -> None:
        following = Follower(RealDisk(self.folder), settings=NEVER, readers=readers_of(self.folder))
        while following.turn():
            pass
        if snapshot:
            following.take_snapshot()
        following.finish(read_on=False)
        following.close()


@contextmanager
def serving(folder: Path) -> Iterator[Life]:
    """A cell that is used all the time, while its follower takes snapshots and removes what they replace."""
    life = Life(folder)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            life.live(1, 100)
            life.follow()

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield life
    finally:
        over.set()
        server.join()
        life.cell.close()


def leases(machine: Machine) -> dict[int, int]:
    """The epoch of each terminal that has a lease."""
    found = [machine.terminal(index) for index in range(machine.header()["terminals_count"])]
    return {terminal["key"]: terminal["epoch"] for terminal in found if terminal["sim"] is not None}


class Ending(Machine):
    """Ends its process at a record, as a broken invariant does."""

    ends_at = 0

    def apply(self, batch: Any, now_ms: int, seed: int) -> Any:
        if self.sequence + 1 == self.ends_at:
            faulthandler.disable()
            os.abort()
        return super().apply(batch, now_ms, seed)


def ending_at(sequence: int) -> MachineKind:
    return MachineKind(
        partial(_ending, Ending, sequence), partial(_ending, Ending.restore, sequence), int(layout.MACHINE_VERSION)
    )


def _ending(make: Callable[..., Any], sequence: int, *regions: Any) -> Machine:
    machine: Ending = make(*regions)
    machine.ends_at = sequence
    return machine


def lease(kind: int, terminal: int, epoch: int) -> bytes:
    return commands.run(
        kind, 1, access_server=SERVER_NUMBER, terminal=np.array([terminal], np.uint64), epoch=[np.uint64(epoch)]
    )


def lived(folder: Path) -> Life:
    """Two snapshots, a tail behind them, history a little behind its end; the cell is closed without a snapshot."""
    life = Life(folder)
    life.live(1)
    life.follow()
    life.live(101)
    life.follow()
    life.live(201)
    life.follow(snapshot=False)
    life.live(301)
    life.cell.close(snapshot=False)
    return life


def content(folder: Path) -> dict[str, bytes]:
    """Every file and what is in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

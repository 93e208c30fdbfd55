"""A machine that only remembers: the journal's tests need state and outcomes, not SIMs.

It has the face of ``simswitch.core.machine.Machine``. Its state is a running hash and the numbers that its runs
carried, so that a test sees at once which commands survived. A TICK, RESTART … counts; a run of kind ``NUMBER`` carries
one number in its argument and gives it back in its outcome's epoch column. A run of kind ``BROKEN`` makes the whole
batch malformed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, cast

from simswitch.core import commands
from simswitch.core.layout import FREEZE, RENEW, SESSION_OPEN, TICK
from simswitch.core.machine import Machine, MalformedBatch, xxh64
from simswitch.journal.recovery import MachineKind

NUMBER = SESSION_OPEN  # its outcome has one 64-bit column
BROKEN = 0xBAD
WITH_ORDER = RENEW

_RUN = struct.Struct("<IHHIIQ")
_OUTCOME = struct.Struct("<IHHII")
_STATE = struct.Struct("<QQQQQ")


def number_run(number: int, size: int = 24, kind: int = NUMBER) -> bytes:
    """A run that is ``size`` bytes long and carries one number."""
    return _RUN.pack(size, kind, 0xFFFF, 1, 0, number) + b"*" * (size - _RUN.size)


class TinyOutcome:
    def __init__(self, data: bytes, orders_count: int) -> None:
        self.data = data
        self.hash = xxh64(data)
        self.orders_count = orders_count
        self.events_count = 0


class TinyMachine:
    """``next_due_ms`` and ``explode`` are set by tests."""

    def __init__(self) -> None:
        self.sequence = 0
        self.now_ms = 0
        self.running_hash = 0
        self.numbers: list[int] = []
        self.next_due_ms: int | None = None
        self.kinds: list[int] = []
        self.frozen = 0
        self.explode: Exception | None = None

    def apply(self, batch: Any, now_ms: int, seed: int) -> TinyOutcome:
        if now_ms < self.now_ms:
            raise ValueError("time went back")
        if self.explode is not None:
            raise self.explode
        runs = []
        offset = 0
        while offset < len(batch):
            size, kind, _, count, _, argument = _RUN.unpack_from(batch, offset)
            if size < _RUN.size or offset + size > len(batch) or kind == BROKEN:
                raise MalformedBatch(f"the run at byte {offset} is malformed")
            runs.append((kind, count, argument))
            offset += size
        parts = []
        orders = []
        for kind, _, argument in runs:
            self.kinds.append(kind)
            if kind == FREEZE:
                self.frozen = 1
            elif kind == TICK:
                self.next_due_ms = None
            elif kind == NUMBER:
                self.numbers.append(argument)
            elif kind == WITH_ORDER:
                orders.append(argument)
            body = (struct.pack("<Q", argument) if kind in (NUMBER, WITH_ORDER) else b"") + b"\x01"
            parts.append(_outcome(kind, 1, body))
        numbers = struct.pack(f"<{len(orders)}Q", *orders)
        per_order = sum(int(code[2:]) for _, code in commands.OUTCOME_COLUMNS[commands.ORDERS] if code[0] == "<") + 1
        parts.append(_outcome(commands.ORDERS, len(orders), numbers + bytes(len(orders) * (per_order - 8))))
        parts.append(_outcome(commands.EVENTS, 0, b""))
        self.sequence += 1
        self.now_ms = now_ms
        self.running_hash = xxh64(struct.pack("<QQQ", self.running_hash, now_ms, seed) + bytes(batch))
        return TinyOutcome(b"".join(parts), len(orders))

    def state_hash(self) -> int:
        return xxh64(b"".join(bytes(view) for _, _, _, view in self.snapshot_regions()))

    def check(self, pause: Callable[[], object]) -> list[str]:
        pause()
        return []

    def header(self) -> dict[str, Any]:
        return {"sims_max": 1, "terminals_max": 1, "orders_max": 1, "frozen": self.frozen}

    def snapshot_regions(self) -> Iterator[tuple[str, int, int, memoryview]]:
        state = _STATE.pack(self.sequence, self.now_ms, self.running_hash, self.frozen, len(self.numbers))
        yield "header", _STATE.size, 1, memoryview(state)
        yield "numbers", 8, len(self.numbers), memoryview(struct.pack(f"<{len(self.numbers)}Q", *self.numbers))

    @classmethod
    def restore(cls, regions: list[tuple[str, int, int, Any]]) -> TinyMachine:
        if [region[0] for region in regions] != ["header", "numbers"]:
            raise ValueError("a region is missing")
        machine = cls()
        machine.sequence, machine.now_ms, machine.running_hash, machine.frozen, count = _STATE.unpack(regions[0][3])
        numbers = bytearray(8 * count)
        if count:
            regions[1][3](memoryview(numbers))
        machine.numbers = list(struct.unpack(f"<{count}Q", numbers))
        return machine


def _outcome(kind: int, count: int, body: bytes) -> bytes:
    size = -(-(_OUTCOME.size + len(body)) // 8) * 8
    return _OUTCOME.pack(size, kind, 0, count, 0) + body.ljust(size - _OUTCOME.size, b"\0")


def tiny_kind(version: int = 1) -> MachineKind:
    return MachineKind(
        lambda: cast(Machine, TinyMachine()),
        lambda regions: cast(Machine, TinyMachine.restore(regions)),
        version,
        lambda _, regions: regions,
    )


def numbers_of(machine: Machine) -> list[int]:
    return cast(TinyMachine, machine).numbers

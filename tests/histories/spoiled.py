"""A server with a deliberate fault, run in the place of ``-m simswitch``: its first word says which.

    forgetful   acknowledges before it has written: each record reaches the file some records later, so that a killed
                process loses what it acknowledged last. A record may hold one call of a single client, and a lost
                renewal can be explained; several are not
    careless    of terminals by what is left when their number is divided by four: 0 may renew under any epoch, reports
                of 1 are forgotten, 2 are told a SIM that somebody else has. No SIM is unfit, whatever is said

The second changes what goes into the machine and what comes out of it.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
from simswitch import cell
from simswitch.cli.main import main
from simswitch.core import commands, layout
from simswitch.core.machine import Machine
from simswitch.journal.disk import Bytes, RealFile
from simswitch.journal.format import RECORD_MAGIC
from simswitch.journal.recovery import MachineKind, real_machine

LATE_RECORDS = 16
_kept: deque[tuple[RealFile, list[bytes], int]] = deque()
_pwrite, _close = RealFile.pwrite, RealFile.close


def _catch_up(left: int) -> None:
    while len(_kept) > left:
        file, buffers, offset = _kept.popleft()
        _pwrite(file, buffers, offset)


def late(self: RealFile, buffers: Sequence[Bytes], offset: int) -> None:
    """Only what has the form of a record is late."""
    if bytes(buffers[0][:8]) != RECORD_MAGIC:
        _pwrite(self, buffers, offset)
        return
    _kept.append((self, [bytes(buffer) for buffer in buffers], offset))
    _catch_up(LATE_RECORDS)


def close(self: RealFile) -> None:
    _catch_up(0)
    _close(self)


class _Answer:
    """An outcome that says something else than the machine did."""

    def __init__(self, outcome: Any, data: bytes) -> None:
        self.data = data
        self.hash, self.orders_count, self.events_count = outcome.hash, outcome.orders_count, outcome.events_count


class _Careless:
    """A machine that is lied to, and lied about."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._epochs: dict[int, int] = {}
        self._given = 0

    def apply(self, batch: bytes, now_ms: int, seed: int) -> Any:
        told = bytearray(batch)
        runs = commands.command_runs(memoryview(told))
        for run in runs:
            if run.kind == layout.RENEW:
                for item in np.flatnonzero(run["terminal"] % 4 == 0):
                    run["epoch"][item] = self._epochs.get(int(run["terminal"][item]), run["epoch"][item])
            elif run.kind == layout.REPORT_USAGE:
                run["down_bytes"][run["terminal"] % 4 == 1] = 0
            elif run.kind == layout.SET_HEALTH:
                run["health"][:] = layout.HEALTHY
        outcome = self._machine.apply(bytes(told), now_ms, seed)
        data = bytearray(outcome.data)
        for run, answer in zip(runs, commands.outcome_runs(memoryview(data)), strict=False):
            if run.kind == layout.REPORT_USAGE:
                answer["status"][(run["down_bytes"] == 0) & (answer["status"] == layout.LATE)] = layout.OK
            elif run.kind == layout.ALLOCATE:
                for item in np.flatnonzero(answer["status"] <= layout.MOVED):
                    terminal = int(run["terminal"][item])
                    self._epochs[terminal] = int(answer["epoch"][item])
                    if terminal % 4 == 2 and self._given:
                        answer["iccid"][item] = self._given
                    else:
                        self._given = int(answer["iccid"][item])
        return _Answer(outcome, bytes(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)


def careless_machine() -> MachineKind:
    def spoiled(machine: Machine) -> Machine:
        return cast(Machine, _Careless(machine))

    kind = real_machine()
    return replace(kind, create=lambda: spoiled(kind.create()), restore=lambda regions: spoiled(kind.restore(regions)))


if __name__ == "__main__":
    if sys.argv.pop(1) == "forgetful":
        RealFile.pwrite, RealFile.close = late, close  # type: ignore[method-assign]
    else:
        patch.object(cell, "real_machine", careless_machine).start()
    sys.argv[0] = "simswitch"
    main()

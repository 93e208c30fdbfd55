"""Compiles ``touch.c`` with the machine's C compiler and times it: what the memory alone costs here and now."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import subprocess
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from simswitch.core.commands import OUTCOME_COLUMNS, RUN_HEADER, OutcomeRun
from simswitch.core.layout import ALLOCATE

BENCHES = Path(__file__).resolve().parent
BUILD = BENCHES.parent / "build" / "benches"
OUTCOME_BYTES = sum(np.dtype(code).itemsize for _, code in OUTCOME_COLUMNS[ALLOCATE])

U32 = npt.NDArray[np.uint32]


def library(name: str) -> ctypes.CDLL:
    """The compiled ``name``.c; compiled again when its source or the compiler's name has changed."""
    source = BENCHES / f"{name}.c"
    compiler = os.environ.get("CC", "cc")
    digest = hashlib.sha256(source.read_bytes() + compiler.encode()).hexdigest()[:16]
    target = BUILD / f"{name}-{digest}.so"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}.part")
        flags = ["-O3", "-fno-strict-aliasing", "-shared", "-fPIC"]
        subprocess.run([*shlex.split(compiler), *flags, "-o", str(partial), str(source)], check=True)
        partial.replace(target)
    return ctypes.CDLL(str(target))


class Reference:
    """Arrays as large as the core's for ``size`` SIMs and as many terminals."""

    def __init__(self, size: int) -> None:
        loop = library("touch")
        loop.arena_new.restype = ctypes.c_void_p
        loop.arena_new.argtypes = [ctypes.c_uint64]
        loop.arena_free.restype = None
        loop.arena_free.argtypes = [ctypes.c_void_p]
        loop.arena_touch.restype = None
        loop.arena_touch.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_uint64, ctypes.c_void_p]
        self._loop = loop
        self._outcomes = np.empty(0, np.uint8)
        self._arena = loop.arena_new(size)
        if not self._arena:
            raise MemoryError(f"no memory for a reference of {size} lines")

    def close(self) -> None:
        """Gives the memory back."""
        if self._arena:
            self._loop.arena_free(self._arena)
            self._arena = None

    def touch_ns(self, batch: bytes, sims: U32) -> float:
        """Nanoseconds an item: ``batch`` is one run of allocations (commands.py), ``sims`` the SIM that each gets."""
        count = len(sims)
        if len(self._outcomes) < count * OUTCOME_BYTES:
            self._outcomes = np.empty(count * OUTCOME_BYTES, np.uint8)
        columns = np.frombuffer(batch, np.uint8, offset=RUN_HEADER.itemsize).ctypes.data
        before = time.perf_counter_ns()
        self._loop.arena_touch(self._arena, columns, sims.ctypes.data, count, self._outcomes.ctypes.data)
        return (time.perf_counter_ns() - before) / count

    def outcomes(self, count: int) -> OutcomeRun:
        """What the last batch of ``count`` commands wrote."""
        return OutcomeRun(ALLOCATE, count, self._outcomes.data)

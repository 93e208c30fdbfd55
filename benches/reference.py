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

SOURCE = Path(__file__).with_name("touch.c")
BUILD = Path(__file__).resolve().parent.parent / "build" / "benches"

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]


def _library() -> ctypes.CDLL:
    """The compiled loop; compiled again when its source or the compiler's name has changed."""
    compiler = os.environ.get("CC", "cc")
    digest = hashlib.sha256(SOURCE.read_bytes() + compiler.encode()).hexdigest()[:16]
    target = BUILD / f"touch-{digest}.so"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}.part")
        subprocess.run([*shlex.split(compiler), "-O3", "-shared", "-fPIC", "-o", str(partial), str(SOURCE)], check=True)
        partial.replace(target)
    library = ctypes.CDLL(str(target))
    library.arena_new.restype = ctypes.c_void_p
    library.arena_new.argtypes = [ctypes.c_uint64]
    library.arena_free.restype = None
    library.arena_free.argtypes = [ctypes.c_void_p]
    library.arena_touch.restype = ctypes.c_uint64
    library.arena_touch.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_uint64,
        ctypes.c_int,
        ctypes.c_void_p,
    ]
    return library


class Reference:
    """Arrays as large as the core's for ``size`` SIMs and as many terminals."""

    def __init__(self, size: int) -> None:
        self._library = _library()
        self._arena = self._library.arena_new(size)
        if not self._arena:
            raise MemoryError(f"no memory for a reference of {size} lines")

    def close(self) -> None:
        """Gives the memory back."""
        if self._arena:
            self._library.arena_free(self._arena)
            self._arena = None

    def touch_ns(self, keys: U64, sims: U32, batch_items: int, lines: int) -> list[float]:
        """Nanoseconds an item of each batch of ``batch_items``."""
        out = np.empty(batch_items, np.uint64)
        samples = []
        for start in range(0, len(keys) - batch_items + 1, batch_items):
            block = keys[start : start + batch_items]
            order = sims[start : start + batch_items]
            before = time.perf_counter_ns()
            self._library.arena_touch(
                self._arena, block.ctypes.data, order.ctypes.data, batch_items, lines, out.ctypes.data
            )
            samples.append((time.perf_counter_ns() - before) / batch_items)
        return samples

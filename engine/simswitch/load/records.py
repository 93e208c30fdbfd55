"""One record for each operation that was due, from the workers to the process that counts them: 24 bytes.

    | due_us i64 | late_us u32 | latency_us u32 | kind u8 | outcome u8 | 6 reserved |

``due_us`` counts from the common start; ``late_us`` is how long after that the client looked at the operation, and
``latency_us`` how long until its end, the lateness included. ``outcome`` is a ``simswitch.v1.Status``, one of the two
below, or, from ``WORDS_FROM`` on, the number that the worker gave to a reason (``Recorder.number``).
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

RECORD = np.dtype(
    [
        ("due_us", "<i8"),
        ("late_us", "<u4"),
        ("latency_us", "<u4"),
        ("kind", "u1"),
        ("outcome", "u1"),
        ("reserved", "V6"),
    ]
)
GRANTED_MAX = 19
"""Outcomes up to here were carried out."""
NO_LEASE_HERE = 126
"""Not sent: the terminal has no SIM, since it was refused one or has lost it."""
NOT_SENT = 127
"""Not sent: the load ended before its turn came. Its latency is how long it waited until then."""
WORDS_FROM = 128

_PACK = struct.Struct("<qIIBB6x").pack
_U32 = 0xFFFF_FFFF


class Recorder:
    """Gathers records until they are taken."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._numbers: dict[str, int] = {}

    def one(self, kind: int, outcome: int, due_ns: int, late_ns: int, latency_ns: int) -> None:
        late_us, latency_us = min(late_ns // 1_000, _U32), min(latency_ns // 1_000, _U32)
        self._data += _PACK(due_ns // 1_000, late_us, latency_us, kind, outcome)

    def many(
        self,
        kind: int,
        outcomes: npt.NDArray[np.uint8] | int,
        due_ns: npt.NDArray[np.int64],
        late_ns: npt.NDArray[np.int64],
        now_ns: int,
    ) -> None:
        records = np.zeros(len(due_ns), RECORD)
        records["due_us"] = due_ns // 1_000
        records["late_us"] = np.minimum(late_ns // 1_000, _U32)
        records["latency_us"] = np.minimum((now_ns - due_ns) // 1_000, _U32)
        records["kind"] = kind
        records["outcome"] = outcomes
        self._data += records.tobytes()

    def number(self, word: str) -> int:
        """The outcome that stands for a reason. Past 128 different ones all share the last."""
        return self._numbers.setdefault(word, min(WORDS_FROM + len(self._numbers), 255))

    def words(self) -> dict[str, int]:
        return self._numbers

    def take(self) -> bytes:
        data, self._data = self._data, bytearray()
        return bytes(data)

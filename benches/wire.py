"""The wire alone: a message's bytes to a run of commands, and outcomes to a message's bytes.

The message and what becomes of it are warm, as they are in the service: the transport has just written the one and
sends the other next. The reference is one memcpy of the message's bytes into memory that stands ready, timed by turns.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from simswitch import contract
from simswitch.core import layout
from simswitch.core.commands import COMMAND_COLUMNS, OUTCOME_COLUMNS, Columns, run
from simswitch.core.wire import Table
from simswitch.v1 import allocation_pb2, usage_pb2

from benches.report import Result

GOAL_NS = 1.0
MARKETS = 4
# Calls that are timed together, as items: a sample is long enough for the clock.
SAMPLE_ITEMS = 20_000

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Call:
    """A hot call: its command, the tables of its messages, and their classes."""

    kind: int
    request: Table
    response: Table
    request_class: Any
    response_class: Any


# The first call is the widest; its rows are named after nothing else.
CALLS = {
    "": Call(
        layout.ALLOCATE,
        contract.ALLOCATE_REQUEST,
        contract.ALLOCATE_RESPONSE,
        allocation_pb2.AllocateSimsRequest,
        allocation_pb2.AllocateSimsResponse,
    ),
    ".renew": Call(
        layout.RENEW,
        contract.RENEW_REQUEST,
        contract.RENEW_RESPONSE,
        allocation_pb2.RenewRequest,
        allocation_pb2.RenewResponse,
    ),
    ".report_usage": Call(
        layout.REPORT_USAGE,
        contract.USAGE_REQUEST,
        contract.USAGE_RESPONSE,
        usage_pb2.ReportUsageRequest,
        usage_pb2.ReportUsageResponse,
    ),
    ".release": Call(
        layout.RELEASE,
        contract.RELEASE_REQUEST,
        contract.RELEASE_RESPONSE,
        allocation_pb2.ReleaseRequest,
        allocation_pb2.ReleaseResponse,
    ),
}
ROWS = tuple(f"wire.{way}{end}" for end in CALLS for way in ("decode", "encode"))


def _columns(columns: Columns, count: int, random: np.random.Generator) -> dict[str, Any]:
    largest = {"market": MARKETS, "status": layout.MOVED + 1, "u1": 2**7, "<u2": 2**15, "<u4": 2**31, "<u8": 2**63}
    return {
        name: random.integers(1 if name == "status" else 0, largest.get(name, largest[code]), count, np.dtype(code))
        for name, code in columns
    }


def _by_turns(
    work: Callable[[], bytes], data: bytes, items: int, rounds: int, progress: Callable[[int], None]
) -> tuple[float, float]:
    """Nanoseconds an item of ``work`` and of a copy of ``data``: medians of ``rounds`` pairs."""
    # Between two bytearrays of one length an assignment of slices is a memcpy; from bytes it would be two.
    source = bytearray(data)
    target = bytearray(len(data))
    repeats = range(max(1, SAMPLE_ITEMS // items))
    worked: list[float] = []
    copied: list[float] = []
    for number in range(rounds):
        progress(number)
        before = time.perf_counter_ns()
        for _ in repeats:
            work()
        between = time.perf_counter_ns()
        for _ in repeats:
            target[:] = source
        after = time.perf_counter_ns()
        worked.append((between - before) / len(repeats) / items)
        copied.append((after - between) / len(repeats) / items)
    return median(worked), median(copied)


def _decode(call: Call, items: int, random: np.random.Generator) -> tuple[Callable[[], bytes], bytes]:
    """What is timed, and the message."""
    columns = _columns(COMMAND_COLUMNS[call.kind], items, random)
    message = call.request_class(access_server="as-01", **{name: column.tolist() for name, column in columns.items()})
    indexes: Sequence[bytes] = ()
    if "market" in columns:
        message.markets.extend(f"market-{index}" for index in range(MARKETS))
        market_indexes = np.arange(10, 10 + MARKETS, dtype=np.uint16)
        indexes = (b"", market_indexes.tobytes())
        columns["market"] = market_indexes[columns["market"]]
    data: bytes = message.SerializeToString()

    def work() -> bytes:
        batch = call.request.decode(data)
        batch.text(0)
        return batch.run(call.kind, actor=1, access_server=3, indexes=indexes)

    if work() != run(call.kind, items, actor=1, access_server=3, **columns):
        raise RuntimeError(f"{call.request.message} was decoded into other commands")
    return work, data


def _encode(call: Call, items: int, random: np.random.Generator) -> tuple[Callable[[], bytes], bytes]:
    columns = _columns(OUTCOME_COLUMNS[call.kind], items, random)
    outcome = memoryview(b"".join(column.tobytes() for column in columns.values()))

    def work() -> bytes:
        return call.response.encode(outcome, items)

    data = work()
    message = call.response_class.FromString(data)
    if any(list(values) != columns[field.name].tolist() for field, values in message.ListFields()):
        raise RuntimeError(f"{call.response.message} was encoded with other values")
    return work, data


def measure(size: int, seed: int, rounds: int, progress: Progress) -> list[Result]:
    """Decoding and encoding of each hot call with ``size`` items a message."""
    results = []
    for end, call in CALLS.items():
        for way, prepare in (("decode", _decode), ("encode", _encode)):
            name = f"wire.{way}{end}"
            work, data = prepare(call, size, np.random.default_rng(seed))

            def say(number: int, name: str = name) -> None:
                progress(f"{name}, {size:,} items: round {number + 1} of {rounds}")

            value, reference = _by_turns(work, data, size, rounds, say)
            results.append(
                Result(
                    name=name,
                    size=size,
                    value=value,
                    unit="ns",
                    hash=hashlib.sha256(work()).hexdigest()[:16],
                    reference=reference,
                    goal=GOAL_NS,
                    note=f"{len(data) / size:.0f} bytes an item; reference: memcpy of them",
                )
            )
    return results

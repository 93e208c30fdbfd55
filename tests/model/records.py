"""The core's records as NumPy arrays, read out of a machine's snapshot regions.

The field lists are not repeated here: they are parsed from ``layout.pxd``, so a record that changes there changes here.
This is how tests see what the Python face does not show, and how they make a sound state unsound on purpose.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from simswitch.core.machine import Machine

Table = npt.NDArray[Any]
Regions = list[tuple[str, int, int, bytes]]

_LAYOUT = Path(__file__).parents[2] / "engine/simswitch/core/layout.pxd"
_CODES = {
    "uint64_t": "<u8",
    "int64_t": "<i8",
    "uint32_t": "<u4",
    "uint16_t": "<u2",
    "uint8_t": "u1",
    "char": "S1",
}
_RECORDS = {
    "header": "Header",
    "entities": "Entity",
    "sims": "Sim",
    "sims_cold": "SimCold",
    "terminals": "Terminal",
    "terminals_cold": "TerminalCold",
    "ended_leases": "EndedLease",
    "orders": "Order",
    "groups": "Group",
    "markets": "Market",
    "classes": "Class",
    "servers": "Server",
    "jobs": "Job",
    "sweeps": "Sweep",
    "check": "Check",
    "given_up": "GivenUp",
    "breakers": "Breaker",
    "subscribers": "Subscriber",
    "exemptions": "Exemption",
    "events": "EventRow",
    "sims_rolling": "SimRolling",
    "sims_ledger": "SimLedger",
    "sims_late": "SimLate",
    "lots": "Lot",
}
"""Which record stands in which region."""


def parse_records(text: str) -> dict[str, np.dtype[Any]]:
    """The packed structures that a .pxd declares with ``ctypedef struct``."""
    records: dict[str, np.dtype[Any]] = {}
    for match in re.finditer(r"^ctypedef (?:packed )?struct (\w+):.*\n((?:(?:    .*)?\n)+)", text, re.MULTILINE):
        fields: list[Any] = []
        for line in match[2].splitlines():
            field = re.match(r"    (\w+) (\w+)((?:\[\d+\])*)\s*(?:#.*)?$", line)
            if field is None:
                if line.strip() and not line.strip().startswith("#"):
                    break
                continue
            code, name, shape = field.groups()
            if code not in _CODES:
                break
            sizes = tuple(int(size) for size in re.findall(r"\d+", shape))
            if code == "char":
                fields.append((name, f"S{sizes[0]}"))
            else:
                fields.append((name, _CODES[code], sizes) if sizes else (name, _CODES[code]))
        else:
            records[match[1]] = np.dtype(fields)
    return records


@functools.cache
def record_types() -> dict[str, np.dtype[Any]]:
    return parse_records(_LAYOUT.read_text(encoding="utf-8"))


def copy_regions(machine: Machine) -> Regions:
    """A snapshot in memory: what ``Machine.restore`` takes."""
    return [(name, size, count, bytes(data)) for name, size, count, data in machine.snapshot_regions()]


def tables(regions: Iterable[tuple[str, int, int, bytes | memoryview]], *, writable: bool = True) -> dict[str, Table]:
    """Writable copies of the regions that hold records, or what stands there itself (a machine's own regions: until its
    next apply); the others as 32-bit numbers."""
    found: dict[str, Table] = {}
    for name, size, count, data in regions:
        record = _RECORDS.get(name)
        kind = np.dtype("<u4") if record is None else record_types()[record]
        if record is not None and kind.itemsize != size:
            raise AssertionError(f"layout.pxd gives {record} {kind.itemsize} bytes, the machine says {size}")
        found[name] = np.frombuffer(data, kind)
        if writable:
            found[name] = found[name].copy()
        if record is not None and len(found[name]) != count:
            raise AssertionError(f"region {name}: {len(found[name])} records, the machine says {count}")
    return found


def pack(regions: Regions, changed: dict[str, Table]) -> Regions:
    """The snapshot with some regions replaced."""
    return [
        (name, size, count, changed[name].tobytes() if name in changed else data) for name, size, count, data in regions
    ]

"""Old state in a new machine: a snapshot of an earlier machine version is read field by field, by name.

A snapshot of format 3 carries the names, types and places of its records' fields (``describe``). Those of the machine
versions 6 and 7 carry none; ``layouts/`` keeps what they would have said.

    old record   | iccid | counted_bytes | imsi | …            by name        | iccid | counted_bytes | identity | …
                     └──────────┴──────────╳──────────────────────────────────────┴──────────┘        zero, or a hook's

- A field that both have is copied; an array as far as both reach. A value that doesn't fit is refused.
- A field, a region or a place of an array that only the new machine has is zero. Where zero doesn't mean "as before",
  the version that brought it has a hook: ``HEADERS`` for what decides how long regions are, ``STATES`` for all else.
- Tables that find records by their keys are made anew. Another region that is no record (the wheel) is copied as it is.

Hooks of all versions in between run in order, each on the oldest state and the newest. So whoever takes a field away or
changes its meaning looks after the hooks too; the fixtures of ``tests/journal/formats`` show what they forgot. It takes
the memory of both states at once, and happens once: the next snapshot is the new machine's. The same snapshot always
gives the same state (I10).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simswitch.core import layout
from simswitch.core.machine import Machine

if TYPE_CHECKING:
    from simswitch.journal.snapshot import SnapshotHeader, StoredRegion

Types = Mapping[str, np.dtype[Any]]
"""The records of the regions that hold any."""
Tables = dict[str, npt.NDArray[Any]]
"""Regions as arrays of their records."""

_CODE = re.compile(r"<[iu][248]|\|[iuS]1")
_LIMITS_SWEEP, _RESET_SWEEP = int(layout.SWEEP_LIMITS), 2


_IMSI_MASK = np.uint64((1 << 50) - 1)
_TABLES: dict[str, Callable[[Tables], npt.NDArray[np.uint64]]] = {
    "iccid_table": lambda new: np.ascontiguousarray(new["sims"]["iccid"]),
    "imsi_table": lambda new: new["sims_cold"]["identity"] & _IMSI_MASK,
    "terminal_table": lambda new: np.ascontiguousarray(new["terminals"]["key"]),
}
"""What finds records, and by which keys."""


class NotMigrated(ValueError):
    """The state is of another machine version, and nothing here can read it. The text says what to do."""


def describe(types: Types) -> bytes:
    """The fields of records, as a snapshot carries them: by region, each with its name, type, place and shape."""
    return json.dumps(
        {
            region: {
                "bytes": record.itemsize,
                "fields": [_field(name, *record.fields[name][:2]) for name in record.names or () if record.fields],
            }
            for region, record in types.items()
        },
        separators=(",", ":"),
    ).encode()


def _field(name: str, kind: np.dtype[Any], offset: int) -> tuple[str, str, int, tuple[int, ...]]:
    return name, kind.base.str, offset, kind.shape


def described(text: bytes) -> Types:
    """The opposite of ``describe``. Raises ``ValueError`` when it is none."""
    try:
        return {
            region: np.dtype(
                {
                    "names": [field[0] for field in record["fields"]],
                    "formats": [(_code(field[1]), tuple(field[3])) for field in record["fields"]],
                    "offsets": [field[2] for field in record["fields"]],
                    "itemsize": record["bytes"],
                }
            )
            for region, record in json.loads(text).items()
        }
    except (AttributeError, IndexError, KeyError, MemoryError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"the description of the records can't be read: {error}") from error


def _code(text: str) -> str:
    """Numbers and bytes only: what else NumPy makes of a text is no business of a file."""
    if not _CODE.fullmatch(text):
        raise ValueError(f"{text!r} is no type of a field")
    return text


def migrate(header: SnapshotHeader, regions: list[StoredRegion]) -> list[StoredRegion]:
    """The regions of this machine, from those of an earlier one. Raises ``NotMigrated`` when there is no way."""
    running = int(layout.MACHINE_VERSION)
    if header.machine_version > running:
        raise NotMigrated(
            f"the state is of machine version {header.machine_version}, this program has version {running}: a newer "
            "program wrote it. Start that one; there is no way back"
        )
    old = load(machine_types(header), regions)
    begun = {"header": np.zeros(1, layout.RECORD_TYPES["header"])}
    _carry("header", old["header"], begun["header"])
    begun["header"]["machine_version"] = running
    versions = range(header.machine_version + 1, running + 1)
    for version in versions:
        if version in HEADERS:
            HEADERS[version](old, begun["header"])
    new: Tables = {}
    for name, item_bytes, count in Machine.region_sizes(begun["header"].tobytes()):
        new[name] = np.zeros(count, layout.RECORD_TYPES.get(name, np.dtype(f"V{item_bytes}")))
        if name in begun:
            new[name] = begun[name]
        elif name in old and name not in _TABLES:
            _carry(name, old[name], new[name])
    for version in versions:
        if version in STATES:
            STATES[version](old, new)
    for name, keys in _TABLES.items():
        new[name] = Machine.index_table(keys(new), len(new[name]))
    return [(name, table.dtype.itemsize, len(table), memoryview(table.tobytes())) for name, table in new.items()]


def machine_types(header: SnapshotHeader) -> Types:
    """The records of the snapshot's regions, as itself says or as ``layouts/`` does."""
    if header.description:
        return described(header.description)
    file = resources.files("simswitch.journal") / "layouts" / f"machine-{header.machine_version}.json"
    if not file.is_file():
        raise NotMigrated(
            f"the state is of machine version {header.machine_version}, which says nothing of its records, and this "
            "program doesn't know them. Open the folder with a program in between, and stop that one cleanly"
        )
    return described(file.read_bytes())


def load(types: Types, regions: list[StoredRegion]) -> Tables:
    """All of a snapshot as arrays. Raises ``ValueError`` where the description doesn't fit it."""
    tables: Tables = {}
    for name, item_bytes, count, data in regions:
        place = bytearray(item_bytes * count)
        if callable(data):
            if count:
                data(memoryview(place))
        else:
            place[:] = data
        record = types.get(name, np.dtype(f"V{item_bytes}"))
        if record.itemsize != item_bytes:
            raise ValueError(f"region {name} has items of {item_bytes} bytes, its description says {record.itemsize}")
        tables[name] = np.frombuffer(place, record)
    return tables


def _carry(region: str, old: npt.NDArray[Any], new: npt.NDArray[Any]) -> None:
    """Copies what both have of a region."""
    count = min(len(old), len(new))
    if len(old) > count and bytes(old[count:].tobytes()).strip(b"\0"):
        raise NotMigrated(f"region {region} has {len(old)} items, this machine has room for {count}")
    if new.dtype.names is None or old.dtype.names is None:
        if old.dtype.itemsize != new.dtype.itemsize:
            raise NotMigrated(f"region {region} is no record, and its items take other bytes: it needs a hook")
        new[:count] = old[:count]
        return
    for name in set(old.dtype.names) & set(new.dtype.names):
        before, after = old[name][:count], new[name][:count]
        if before.ndim != after.ndim:
            raise NotMigrated(f"field {name} of region {region} has another shape: it needs a hook")
        shared = tuple(slice(min(sizes)) for sizes in zip(before.shape, after.shape, strict=True))
        after[shared] = before[shared]
        if not np.array_equal(after[shared], before[shared]) or np.count_nonzero(after) != np.count_nonzero(before):
            raise NotMigrated(f"field {name} of region {region} has values for which this machine has no room")


def _header_of_7(old: Tables, header: npt.NDArray[Any]) -> None:
    """Rolling windows got a region of their own, which reaches to the last SIM that has one."""
    rolling = np.flatnonzero(old["sims_cold"]["offset_rolling_bytes"])
    header["rolling_end"] = rolling[-1] + 1 if len(rolling) else 0


def _state_of_7(old: Tables, new: Tables) -> None:
    """A SIM's IMSI and the second of its health in fewer bytes; the caps of each lot in a record, with what its plan
    says; one walk that works out the limits of many lots, where each plan and lot had its own."""
    cold, now_ms = old["sims_cold"], int(old["header"]["now_ms"][0])
    new["sims_cold"]["identity"] = cold["imsi"]
    new["sims_cold"]["health_since_s"] = cold["health_since_ms"] // 1000
    rolling = new["sims_rolling"]
    rolling["offset_bytes"] = cold["offset_rolling_bytes"][: len(rolling)]
    populated = set(old["groups"]["lot"].tolist())
    entities = new["entities"]
    for lot in np.flatnonzero(entities["kind"] == layout.LOT).tolist():
        plan = entities["numbers"][entities["numbers"][lot, layout.LOT_PLAN]]
        record = new["lots"][lot]
        quotas = plan[[layout.PLAN_QUOTA_CYCLE, layout.PLAN_QUOTA_DAY, layout.PLAN_QUOTA_ROLLING]]
        record["quota_bytes"] = record["planned_bytes"] = quotas
        record["before_bytes"] = -1
        record["basis"] = record["planned_basis"] = np.where(quotas >= 0, layout.BASIS_BELIEVED, 0)
        record["since_ms"] = now_ms
        record["rolling_days"] = max(plan[layout.PLAN_ROLLING_DAYS], 0)
        record["populated"] = lot in populated
    head, size = int(old["header"]["sweeps_head"][0]), len(new["sweeps"])
    for position in range(int(old["header"]["sweeps_count"][0])):
        sweep = new["sweeps"][(head + position) % size]
        kind, argument = int(sweep["kind"]), int(sweep["argument"])
        if kind == _LIMITS_SWEEP or (kind == _RESET_SWEEP and argument >> 32 == 0):
            # It named a plan, or a lot without a window. The last walk of a lot is the one that counts, from the front.
            lots = np.flatnonzero(entities["kind"] == layout.LOT)
            plans = entities["numbers"][lots, layout.LOT_PLAN]
            named = lots[plans == argument] if kind == _LIMITS_SWEEP else [argument]
            new["lots"]["limits_sweep"][named] = sweep["id"]
            sweep["kind"], sweep["cursor"], sweep["argument"] = _LIMITS_SWEEP, 0, 0


def _state_of_8(_old: Tables, new: Tables) -> None:
    """The bit that says that a SIM is not trusted was the uppermost of a day's number."""
    new["sims"]["cooling"] &= ~np.uint64(1 << 55)


def _state_of_9(_old: Tables, new: Tables) -> None:
    """What is learned of expected use has a ceiling."""
    new["header"]["settings"][:, layout.EXPECTED_CEILING_BYTES] = 2 << 30


def _header_of_11(old: Tables, header: npt.NDArray[Any]) -> None:
    """Leases that have ended stand in a ring, as they were remembered; they had places by their epochs."""
    if "ended_leases" in old:
        leases = old["ended_leases"][old["ended_leases"]["epoch"] > 0]
        old["ended_leases"] = leases[np.argsort(leases["remembered"], kind="stable")]
        header["ended_count"] = len(leases)


def _chain_ended(new: Tables) -> None:
    """Those whose epochs end alike, the last one first."""
    leases, places = new["ended_leases"], new["ended_places"].view(np.uint16)
    for place, end in enumerate((leases["epoch"] & np.uint64(layout.ENDED_MAX - 1)).tolist()):
        leases["before"][place], places[end] = places[end], place


def _state_of_11(_old: Tables, new: Tables) -> None:
    """A reset had a sweep of its own besides the walk of its lot, which goes on with it; ended leases have chains."""
    _chain_ended(new)
    header, lots = new["header"][0], new["lots"]
    for position in range(int(header["sweeps_count"])):
        sweep = new["sweeps"][(int(header["sweeps_head"]) + position) % len(new["sweeps"])]
        if sweep["kind"] != _RESET_SWEEP:
            continue
        entity, window = int(sweep["argument"]) & 0xFFFFFFFF, (int(sweep["argument"]) >> 32) - 1
        lot = lots[entity]
        cursor, end = int(sweep["cursor"]), int(sweep["end"])
        if int(lot["resetting"]) >> window & 1:
            cursor, end = min(cursor, int(lot["reset_cursor"][window])), max(end, int(lot["reset_end"][window]))
        lot["reset_cursor"][window], lot["reset_end"][window], lot["begun_spread_ms"][window] = cursor, end, 0
        lot["resetting"] |= 1 << window
        if not lot["due"]:
            lot["due"], lot["due_next"] = 1, header["lots_due_first"]
            header["lots_due_last"] = header["lots_due_last"] if header["lots_due_first"] else entity
            header["lots_due_first"] = entity
        sweep["kind"], sweep["cursor"], sweep["argument"] = _LIMITS_SWEEP, sweep["end"], 0


def _state_of_12(_old: Tables, new: Tables) -> None:
    """Of how many SIMs each access server is to let go that it named and should not have."""
    revokes = new["sims_cold"]["revoke"]
    servers = new["orders"]["server"][revokes[revokes > 0] - 1]
    new["servers"]["revokes_count"] = np.bincount(servers, minlength=len(new["servers"]))
    new["header"]["revokes_count"] = len(servers)


def _state_of_13(_old: Tables, new: Tables) -> None:
    """How many leases each access server has, and terminals: who was the first to name one is not known any more.
    Subscribers that a terminal names are counted where it is. And what is only allowed for is told apart in the sums of
    pools."""
    terminals = new["terminals"][: int(new["header"]["terminals_count"][0])]
    held = terminals["sim"] != layout.NONE_INDEX
    servers = new["servers"]
    servers["leases_count"] = np.bincount(terminals["server"][held], minlength=len(servers))
    servers["terminals_brought"] = np.bincount(terminals["server"], minlength=len(servers))
    subscribers, first = np.unique(terminals["subscriber"], return_index=True)
    servers["subscribers_brought"] = np.bincount(terminals["server"][first[subscribers > 0]], minlength=len(servers))
    servers["hello_leases_count"] = servers["leases_count"]
    _sum_up(new, "pool_allowance_bytes", new["sims_ledger"]["allowance_bytes"])


def _sum_up(new: Tables, name: str, bytes_: npt.NDArray[Any]) -> None:
    """What stands in the ledgers of SIMs, by window, as a sum of each pool."""
    lots = new["groups"]["lot"][new["sims"]["group"][: len(bytes_)]]
    for window in range(layout.WINDOWS):
        shares = new["lots"]["pooled"][lots] >> window & 1 > 0
        np.add.at(new["lots"][name][:, window], lots[shares], bytes_[shares, window])


def _state_of_14(_old: Tables, new: Tables) -> None:
    """A day of a rolling window has a bit less. How many SIMs of each lot are slowed."""
    new["sims_rolling"]["days"] = np.minimum(new["sims_rolling"]["days"], 2**31 - 1)
    slowed = new["sims"]["health"][: int(new["header"]["sims_count"][0])] == layout.THROTTLED
    of_slowed = new["groups"]["lot"][new["sims"]["group"][: len(slowed)][slowed]]
    new["lots"]["slowed_count"] = np.bincount(of_slowed, minlength=len(new["lots"]))


def _state_of_15(_old: Tables, new: Tables) -> None:
    """What carriers told of the SIMs of pools one by one is kept as a sum of the figures from an instant on: that at
    which the window began, or the earliest of them that can be of it. It holds for the window's time; so another one of
    the second half of that takes its place. And what they told of days of rolling windows is summed up."""
    ledger, record = new["sims_ledger"], new["lots"]
    now_s = int(new["header"]["now_ms"][0]) // 1000
    lots = new["groups"]["lot"][new["sims"]["group"][: len(ledger)]]
    for window, days in ((0, 31), (1, 1), (2, record["rolling_days"].astype(np.int64))):
        lasts_s = np.broadcast_to(np.asarray(days, np.int64) * 86_400, len(record))
        begun_s = -(-record["begun_ms"][:, window].astype(np.int64) // 1000)
        # A reset that is under way has yet to forget what was told before it.
        begun_s += (record["resetting"] >> window & 1) * (begun_s * 1000 == record["begun_ms"][:, window])
        as_of_s, told = ledger["as_of_s"][:, window].astype(np.int64), ledger["carrier_bytes"][:, window]
        shares = record["pooled"][lots] > 0
        half_s = np.maximum(now_s - lasts_s // 2, 1)
        first_s = half_s.copy()
        can_be = shares & (as_of_s > (now_s - lasts_s)[lots])
        np.minimum.at(first_s, lots[can_be], as_of_s[can_be])
        since_s = np.where(begun_s > now_s - lasts_s, np.maximum(begun_s, 1), first_s)
        for name, from_s in (("told", since_s), ("next", np.where(since_s < half_s, half_s, 0))):
            record[f"sims_{name}_since_s"][:, window] = np.where(record["pooled"] > 0, from_s, 0)
            record[f"sims_{name}_bytes"][:, window] = 0
            summed = shares & (told > 0) & (from_s[lots] > 0) & (as_of_s >= from_s[lots])
            np.add.at(record[f"sims_{name}_bytes"][:, window], lots[summed], told[summed])
        np.maximum.at(record["sims_told_last_s"][:, window], lots[shares], as_of_s[shares])
        for when in ("sims", "pool"):
            record[f"{when}_told_counted_bytes"][:, window] = record["pool_counted_bytes"]
    days = new["sims_rolling"]["days"].astype(np.int64)
    lots, index = new["groups"]["lot"][new["sims"]["group"][: len(days)]], np.arange(len(days))
    # Where a turn is under way the rings of some SIMs have not turned yet.
    waits = (record["resetting"][lots] >> 2 & 1 > 0) & (index >= record["reset_cursor"][lots, 2])
    waits &= index < record["reset_end"][lots, 2]
    told = np.where(days >> 31 > 0, np.maximum(((days & (2**31 - 1)) << 12) - 4095, 0), 0)
    told[record["pooled"][lots] >> 2 & 1 == 0] = 0
    told[waits] = np.hstack([np.zeros((len(days), 1), np.int64), told[:, :-1]])[waits]
    record["sims_days_bytes"] = 0
    np.add.at(record["sims_days_bytes"], lots, told)


def _state_of_16(_old: Tables, new: Tables) -> None:
    """How many SIMs of each lot are exhausted. When the lease of a SIM was last reported stands at the SIM. What a
    rolling window's ring has is no part of its offset, and of a pool's only what counts in it. A window that began days
    late began with the last of them; of which single days the places of a ring are is not known."""
    exhausted = new["sims"]["health"][: int(new["header"]["sims_count"][0])] == layout.EXHAUSTED
    of_exhausted = new["groups"]["lot"][new["sims"]["group"][: len(exhausted)][exhausted]]
    new["lots"]["exhausted_count"] = np.bincount(of_exhausted, minlength=len(new["lots"]))
    leases = new["terminals"][new["terminals"]["epoch"] > 0]
    leases = leases[leases["sim"] < len(new["sims"])]
    heard_s = new["sims"]["previous"][leases["sim"]]
    heard_s = np.where(heard_s == layout.NONE_INDEX, 0, heard_s)
    new["sims"]["next"][leases["sim"]] = leases["reported_s"]
    new["sims"]["previous"][leases["sim"]] = np.maximum(heard_s, leases["reported_s"])
    rolling = new["sims_rolling"]
    rolling["offset_bytes"] -= (rolling["days"] & np.uint32(2**31 - 1)).sum(axis=1, dtype=np.int64) << 12
    lots, day_ms = new["lots"], 86_400_000
    past_days = np.maximum(lots["rolling_days"].astype(np.int64), 1) - 1
    places = -(-past_days // np.maximum(-(-past_days // 14), 1))
    beyond = np.arange(14) >= places[:, np.newaxis]
    lots["pool_offset_bytes"][:, 2] -= np.where(beyond, lots["pool_days"], 0).sum(axis=1)
    begun_ms, last_ms, next_ms = (
        lots[f"{name}_ms"][:, 1:].astype(np.int64) for name in ("begun", "last_reset", "reset")
    )
    late_days = (begun_ms - last_ms - 3_600_000) // day_ms  # an hour may have been put back
    late_days = np.where(next_ms > 0, np.minimum(late_days, (next_ms - last_ms - 1) // day_ms), late_days)
    late_days[last_ms == 0] = 0
    late_days[lots["turned_days"] > 0, 1] = 0
    lots["last_reset_ms"][:, 1:] += (np.maximum(late_days, 0) * day_ms).astype(np.uint64)
    lots["days_several"] = np.where(past_days > 0, 2**15 - 1, 0)
    lots["turn_places"] = 1


def _state_of_17(_old: Tables, new: Tables) -> None:
    """What we counted on a day that a carrier told is kept: of those that it told before it is not known, and none of
    what it said leaves the cycle. Nor is it known whether a step of several days became longer or shorter. A clock that
    is frozen is so from now on."""
    header = new["header"]
    header["frozen_s"] = np.where(header["frozen"] > 0, header["now_ms"] // 1000, 0)
    new["lots"]["from_s"] = new["lots"]["last_reset_ms"] // 1000
    days, lots = new["sims_rolling"]["days"], new["lots"]
    new["sims_rolling"]["own"] = np.where(days >> 31 > 0, days & np.uint32(2**31 - 1), 0)
    told = lots["pool_days_told"][:, np.newaxis] >> np.arange(14) & 1 > 0
    lots["pool_days_own_bytes"] = np.where(told, lots["pool_days"], 0)
    lots["turns_keep"] = lots["turns_all"] > 0


def _state_of_18(_old: Tables, new: Tables) -> None:
    """What carriers' figures of the SIMs of pools are less than our count is told apart in the sums."""
    _sum_up(new, "pool_less_bytes", np.minimum(new["sims_ledger"]["correction_bytes"], 0))


HEADERS: dict[int, Callable[[Tables, npt.NDArray[Any]], None]] = {7: _header_of_7, 11: _header_of_11}
STATES: dict[int, Callable[[Tables, Tables], None]] = {
    7: _state_of_7,
    8: _state_of_8,
    9: _state_of_9,
    11: _state_of_11,
    12: _state_of_12,
    13: _state_of_13,
    14: _state_of_14,
    15: _state_of_15,
    16: _state_of_16,
    17: _state_of_17,
    18: _state_of_18,
}

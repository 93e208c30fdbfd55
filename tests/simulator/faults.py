"""Deliberate faults, one at a time, each of which the simulator has to find: it would else prove nothing.

Faults of the Python layers are put in their place by patching. Those of the core are made around the machine, so that
no build can hold them: what it is given, or the records that it has left, are changed on the way, always in the same
manner, so that a replay agrees with what was there and only the model knows better.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast
from unittest.mock import patch

import numpy as np
from simswitch.cell import Cell, _Group, _Record
from simswitch.core import layout
from simswitch.core.machine import Machine, Outcome
from simswitch.journal import recovery, snapshot, walk
from simswitch.journal.append import Journal
from simswitch.journal.follower import Follower
from simswitch.journal.recovery import MachineKind
from simswitch.journal.snapshot import prune, snapshot_sequences
from simswitch.journal.walk import repair

from tests.model.records import Table, tables
from tests.simulator.access_servers import split
from tests.simulator.simulation import Kind, machine_kind

_HEADER = struct.Struct("<IHHIIQ")
# So many SIMs there are when every group has some.
FILLED = 48

# ---------------------------------------------------------------------------------------------- of the Python layers


class _Without:
    """All that a thing is, but for one of its methods, which does nothing."""

    def __init__(self, method: str, whole: Any) -> None:
        self._whole = whole
        setattr(self, method, lambda: None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


@contextmanager
def reply_before_durable() -> Iterator[None]:
    """Calls are answered when they are applied."""
    commit, deliver = Cell._commit, Cell._deliver

    def commit_late(self: Cell, records: list[_Record]) -> None:
        group = early.pop(id(self), None)
        if group is not None:
            deliver(self, group)
        commit(self, records)

    def note(self: Cell, group: _Group) -> None:
        apply_group(self, group)
        early[id(self)] = group

    def deliver_the_rest(self: Cell, group: _Group) -> None:
        if any(call.error is not None for call in group.calls):
            deliver(self, group)

    early: dict[int, _Group] = {}
    apply_group = Cell._apply_group
    with (
        patch.object(Cell, "_commit", commit_late),
        patch.object(Cell, "_apply_group", note),
        patch.object(Cell, "_deliver", deliver_the_rest),
    ):
        yield


@contextmanager
def skipped_sync() -> Iterator[None]:
    """One record of seven is written, and not made durable."""
    append = Journal.append

    def sometimes(self: Journal, now_ms: int, seed: int, payload: Any, outcome_hash: int) -> int:
        file = self._file
        if file is None or self._sequence % 7 or self._offset + 4 * 4096 > self._file_bytes:
            return append(self, now_ms, seed, payload, outcome_hash)
        self._file = cast(Any, _Without("fdatasync", file))
        try:
            return append(self, now_ms, seed, payload, outcome_hash)
        finally:
            self._file = file

    with patch.object(Journal, "append", sometimes):
        yield


@contextmanager
def undurable_names() -> Iterator[None]:
    """Recovery takes the names that it finds for durable, though who gave them was killed over it."""

    def without(disk: Any, verdict: Any) -> Any:
        return repair(cast(Any, _Without("fsync_folder", disk)), verdict)

    with patch.object(recovery, "repair_end", without):
        yield


@contextmanager
def undurable_read() -> Iterator[None]:
    """A read is answered at once, whatever it saw."""
    apply_group = Cell._apply_group

    def answer(self: Cell, group: _Group) -> None:
        apply_group(self, group)
        for call in group.calls:
            if getattr(call, "function", None) is not None:
                cast(Any, call).answer()

    with patch.object(Cell, "_apply_group", answer):
        yield


@contextmanager
def early_snapshot() -> Iterator[None]:
    """The follower vouches for a record without having made it durable."""
    take = Follower.take_snapshot

    def vouch(self: Follower) -> None:
        self._vouched_sequence = self.machine.sequence
        take(self)

    with patch.object(Follower, "take_snapshot", vouch):
        yield


@contextmanager
def early_prune() -> Iterator[None]:
    """What the older snapshots need goes before the new one is there."""
    take = Follower.take_snapshot

    def prune_first(self: Follower) -> None:
        for sequence in snapshot_sequences(self._disk):
            self._disk.unlink(f"snapshot-{sequence:020d}.state")
        self._disk.fsync_folder()
        take(self)

    with patch.object(Follower, "take_snapshot", prune_first):
        yield


@contextmanager
def not_read_back() -> Iterator[None]:
    """A snapshot counts without having been compared with what was written."""
    with patch.object(snapshot, "check_regions", lambda *_: None):
        yield


@contextmanager
def hours_not_kept() -> Iterator[None]:
    """What a restore to some time back needs goes with what no snapshot needs."""

    def forget(disk: Any, pause: Any = None, keep_ms: int = 0, damages: Any = ()) -> list[str]:
        return prune(disk, pause, keep_ms // 1_000, damages)

    with patch("simswitch.journal.follower.prune", forget):
        yield


@contextmanager
def undurable_history() -> Iterator[None]:
    """History commits what the journal may yet lose."""
    commit = Follower._commit_readers

    def at_once(self: Follower) -> None:
        vouched, self._vouched_sequence = self._vouched_sequence, self.machine.sequence
        commit(self)
        self._vouched_sequence = vouched

    with patch.object(Follower, "_commit_readers", at_once):
        yield


@contextmanager
def torn_taken() -> Iterator[None]:
    """A record counts as whole when its header is."""
    with patch.object(walk, "payload_fault", lambda *_: None):
        yield


@contextmanager
def other_instant() -> Iterator[None]:
    """The journal has another instant than the machine was told."""
    begin = Cell._apply_batch

    def backdate(self: Cell, batch: bytes, now_ms: int) -> _Record:
        record = begin(self, batch, now_ms)
        record.now_ms += 64
        return record

    with patch.object(Cell, "_apply_batch", backdate):
        yield


# ---------------------------------------------------------------------------------------------- of the core

Change = Callable[[dict[str, Table]], bool]
"""Changes the records that a machine has left; False: nothing to change."""


class _Records(dict[str, Table]):
    """A machine's records; a region is copied when it is first looked at, since most changes want one or two."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.regions = {region[0]: region for region in machine.snapshot_regions()}

    def __missing__(self, name: str) -> Table:
        _, size, count, data = self.regions[name]
        self[name] = tables([(name, size, count, bytes(data))])[name]
        return self[name]


class _Altered:
    """A machine that has a fault."""

    def __init__(self, machine: Machine, *, before: Change | None = None, after: Change | None = None) -> None:
        self.machine = machine
        self._before, self._after = before, after

    def apply(self, batch: bytes, now_ms: int, seed: int) -> Outcome:
        changed = self._before is None or self._change(self._before)
        outcome = self.machine.apply(batch, now_ms, seed)
        if self._after is not None and changed:
            self._change(self._after)
        return outcome

    def _change(self, change: Change) -> bool:
        state = _Records(self.machine)
        changed = change(state)
        if changed:
            self.machine = Machine.restore(
                (name, size, count, state[name].tobytes() if name in state else data)
                for name, size, count, data in state.regions.values()
            )
        return changed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.machine, name)


def altered(*, before: Change | None = None, after: Change | None = None) -> Kind:
    def kind(watch: Callable[[Machine], Any]) -> MachineKind:
        return machine_kind(lambda machine: watch(cast(Machine, _Altered(machine, before=before, after=after))))

    return kind


def _place_freed(state: dict[str, Table]) -> bool:
    """A place of the window is free as soon as its order is overdue (I3)."""
    overdue = state["orders"]["server"][
        (state["orders"]["state"] == layout.UNKNOWN) & (state["orders"]["attempts"] == 0)
    ]
    changed = False
    for server in set(overdue.tolist()):
        if state["servers"]["outstanding"][server]:
            state["servers"]["outstanding"][server] -= 1
            changed = True
    return changed


def _lost_timer(state: dict[str, Table]) -> bool:
    """The deadline of one order of three is forgotten."""
    orders = state["orders"]
    late = np.flatnonzero((orders["state"] == layout.OUTSTANDING) & (orders["number"] % 3 == 0))
    late = late[orders["deadline_ms"][late] < orders["ordered_ms"][late] + 600_000]
    orders["deadline_ms"][late] += 3_600_000
    return bool(late.size)


def _epoch_reused(state: dict[str, Table]) -> bool:
    """Every fifth epoch is given twice."""
    header = state["header"]
    if header["epoch_next"][0] % 5 or header["sequence"][0] % 3:
        return False
    header["epoch_next"] -= 1
    return True


def _wider_window(state: dict[str, Table]) -> bool:
    """Dispatch sees a larger window than there is, where it keeps something waiting; afterwards it is as it was."""
    servers = state["servers"]
    kept = (servers["queued_count"] > 0) & (servers["outstanding"] >= servers["window"])
    servers["window"][kept] += 1_000
    return bool(kept.any())


def _narrow_again(state: dict[str, Table]) -> bool:
    servers = state["servers"]
    wide = servers["window"] > 200
    servers["window"][wide] = np.maximum(servers["window"][wide], 1_001) - 1_000
    return bool(wide.any())


def _cooled_early(state: dict[str, Table]) -> bool:
    """A SIM that an access server may still use is no longer held."""
    sims = state["sims"]
    held = np.flatnonzero(sims["held"] == 1)
    if not held.size or state["header"]["sequence"][0] % 4:
        return False
    sims["held"][held[:1]] = 0
    return True


def _pool_misses(state: dict[str, Table]) -> bool:
    """A pool counts a byte less than its SIMs."""
    counted = state["lots"]["pool_counted_bytes"]
    used = np.flatnonzero(counted)
    if not used.size or state["header"]["sequence"][0] % 4:
        return False
    counted[used[:1]] -= 1
    return True


def _ended_counts_again(state: dict[str, Table]) -> bool:
    """What was reported of a lease that is over is forgotten: a report of it that comes again counts again."""
    ended = state["ended_leases"]
    told = np.flatnonzero(ended["reported_bytes"])
    if not told.size or state["header"]["sequence"][0] % 4:
        return False
    ended["reported_bytes"][told] = 0
    return True


def _limit_misses(state: dict[str, Table]) -> bool:
    """A day's use of a subscriber is forgotten, by which its limit of the day would be lifted."""
    used = np.flatnonzero(state["subscribers"]["day"])
    if not used.size or state["header"]["sequence"][0] % 4:
        return False
    state["subscribers"]["day"][used[:1]] = 0
    return True


def _suspended_is_fit(state: dict[str, Table]) -> bool:
    """A SIM that its carrier has suspended is healthy."""
    health = state["sims"]["health"]
    suspended = np.flatnonzero(health == layout.SUSPENDED)
    if not suspended.size:
        return False
    health[suspended[:1]] = layout.HEALTHY
    return True


def _ranks_turned(state: dict[str, Table]) -> bool:
    """The SIMs of the lot that ends last go first. Turned once more everything is as it was."""
    classes, groups = state["classes"], state["groups"]
    changed = False
    for number, sim_class in enumerate(classes):
        count = int(sim_class["ranks_count"])
        if count < 2 or state["header"]["sims_count"][0] < FILLED:
            continue  # whose ranks may yet be worked out anew
        changed = True
        mine = np.flatnonzero(groups["sim_class"][: state["header"]["groups_count"][0]] == number)
        groups["rank"][mine] = count - 1 - groups["rank"][mine]
        sim_class["rank_groups"][:count] = sim_class["rank_groups"][:count][::-1].copy()
        tiers = sim_class["rank_tiers"].reshape(-1, 2)
        tiers[:count] = tiers[:count][::-1].copy()
        roomiest = sim_class["rank_roomiest"].view("u1")
        roomiest[:count] = roomiest[:count][::-1].copy()
    return changed


def _straddling_forgotten(state: dict[str, Table]) -> bool:
    """What may have been used after a carrier's instant, though it was counted before, is no longer allowed for."""
    straddling = state["sims_ledger"]["straddling_bytes"]
    told = np.flatnonzero(straddling.any(axis=1))
    if not told.size or state["header"]["sequence"][0] % 4:
        return False
    straddling[told[:1]] = 0
    return True


_FOR_EVER_MS = 1 << 50


def _exemptions_go_on(state: dict[str, Table]) -> bool:
    """Whoever was exempt is exempt still."""
    ends = state["exemptions"]["until_ms"][: state["header"]["exemptions_count"][0]]
    over = ends <= state["header"]["now_ms"][0] + 1_000
    ends[over] += _FOR_EVER_MS
    return bool(over.any())


def _exemptions_ended(state: dict[str, Table]) -> bool:
    ends = state["exemptions"]["until_ms"]
    ends[ends >= _FOR_EVER_MS] -= _FOR_EVER_MS
    return True


class _Doubled:
    """A machine that counts each usage report twice over."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def apply(self, batch: bytes, now_ms: int, seed: int) -> Outcome:
        runs = []
        for run in split(batch):
            _, kind, _, count, _, _ = _HEADER.unpack_from(run)
            if kind == layout.REPORT_USAGE:
                told = bytearray(run)
                up = np.frombuffer(told, "<u8", count, _HEADER.size + 16 * count)
                up[up < 1 << 40] *= 2
                run = bytes(told)
            runs.append(run)
        return self.machine.apply(b"".join(runs), now_ms, seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.machine, name)


def _doubled_usage(watch: Callable[[Machine], Any]) -> MachineKind:
    return machine_kind(lambda machine: watch(cast(Machine, _Doubled(machine))))


PATCHES: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    "reply before durable": reply_before_durable,
    "a skipped fsync": skipped_sync,
    "names that are not durable": undurable_names,
    "a read of undurable state": undurable_read,
    "a snapshot vouching too early": early_snapshot,
    "snapshots pruned too early": early_prune,
    "a snapshot that is not read back": not_read_back,
    "hours that are not kept": hours_not_kept,
    "history of undurable records": undurable_history,
    "a torn record that is taken": torn_taken,
    "another instant in the journal": other_instant,
}
KINDS: Mapping[str, Kind] = {
    "a place freed by time": altered(after=_place_freed),
    "a lost timer": altered(after=_lost_timer),
    "an epoch reused": altered(after=_epoch_reused),
    "an order sent past the window": altered(before=_wider_window, after=_narrow_again),
    "a held SIM let go by time": altered(after=_cooled_early),
    "a doubled usage report": _doubled_usage,
    "a byte that a pool misses": altered(after=_pool_misses),
    "an ended lease that counts again": altered(after=_ended_counts_again),
    "a day's use that a limit misses": altered(after=_limit_misses),
    "a suspended SIM that is fit": altered(after=_suspended_is_fit),
    "a lot that ends last and goes first": altered(before=_ranks_turned, after=_ranks_turned),
    "a straddling report that is forgotten": altered(after=_straddling_forgotten),
    "an exemption without an end": altered(before=_exemptions_go_on, after=_exemptions_ended),
}

"""Old state in a new machine: the folders that released versions left, and what is done field by field."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simswitch.cell import Cell, JournalSettings, VirtualClock
from simswitch.core import commands, layout
from simswitch.core.machine import Machine
from simswitch.journal.disk import RealDisk
from simswitch.journal.errors import JournalDamaged, MachineVersionDiffers, SnapshotNotMigrated
from simswitch.journal.migration import (
    HEADERS,
    STATES,
    NotMigrated,
    Tables,
    describe,
    described,
    load,
    machine_types,
    migrate,
)
from simswitch.journal.recovery import real_machine, recover, restore_newest
from simswitch.journal.snapshot import (
    SnapshotHeader,
    StoredRegion,
    open_snapshot,
    snapshot_name,
    snapshot_sequences,
    write_snapshot,
)

from tests.journal.faulty_disk import FaultyDisk
from tests.journal.make_format import FORMATS, facts
from tests.model.records import Regions, copy_regions, tables
from tests.model.transitions import DAY_MS, T, allocate, new_world
from tests.model.walk import Walk
from tests.model.world import World, empty_world

RUNNING = int(layout.MACHINE_VERSION)
RELEASED = sorted(path.name.removesuffix(".tar.xz") for path in FORMATS.glob("*.tar.xz"))


@pytest.fixture
def released(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, dict[str, Any]]:
    """The data folder of a released version, and what stood in it."""
    with tarfile.open(FORMATS / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path, json.loads((FORMATS / f"{request.param}.json").read_text(encoding="utf-8"))


def known(found: Any, told: Any) -> Any:
    """What the old version knew of too."""
    if isinstance(told, dict):
        return {name: known(found[name], value) for name, value in told.items()}
    return found


@pytest.mark.parametrize("released", RELEASED, indirect=True)
def test_a_released_versions_folder_opens_with_all_that_was_in_it(released: tuple[Path, dict[str, Any]]) -> None:
    folder, told = released
    clock = VirtualClock(0)

    def opened() -> Cell:
        return Cell.open(folder, journal=JournalSettings(segment_bytes=256 * 1024, free_mark_bytes=0), clock=clock)

    cell = opened()
    machine = cell.machine
    found = json.loads(json.dumps(facts(machine), default=int))
    assert known(found, told) == told
    assert machine.check() == []
    assert machine.header()["machine_version"] == RUNNING
    # Leases hold, and go on under the epochs that they had.
    clock.set(machine.now_ms)
    for terminal, lease in told["leases"].items():
        index = machine.find_terminal(int(terminal))
        assert index is not None
        server = machine.terminal(index)["server"]
        run = commands.run(layout.RENEW, 1, access_server=server, terminal=[np.uint64(terminal)], epoch=lease["epoch"])
        (outcome, *_) = commands.outcome_runs(cell.step(run).data)
        assert outcome["status"].tolist() == [layout.OK], terminal
    # Timers, queues and walks that were under way go on.
    for _ in range(200):
        clock.set(clock.now_ms() + 1_000)
        cell.step(commands.run(layout.TICK))
    assert machine.check() == []
    left = machine.state_hash()
    cell.close()
    assert recover(RealDisk(folder), real_machine(), repair=False).machine.state_hash() == left


@pytest.mark.parametrize("released", RELEASED, indirect=True)
def test_i10_the_same_snapshot_gives_the_same_state_and_the_next_snapshot_is_of_this_version(
    released: tuple[Path, dict[str, Any]],
) -> None:
    disk = RealDisk(released[0])
    base = restore_newest(disk, real_machine())
    assert base.damages == []
    assert base.machine.state_hash() == restore_newest(disk, real_machine()).machine.state_hash()
    assert base.header is not None
    target = FaultyDisk()
    write_snapshot(target, base.machine, base.header.journal_id, RUNNING, base.header.chain)
    (sequence,) = snapshot_sequences(target)
    with open_snapshot(target, sequence) as (header, regions):
        assert header.machine_version == RUNNING
        assert described(header.description) == layout.RECORD_TYPES
        assert Machine.restore(regions).state_hash() == base.machine.state_hash() == header.state_hash


@pytest.mark.parametrize("released", [name for name in RELEASED if name != f"machine-{RUNNING}"], indirect=True)
def test_a_released_versions_tail_is_refused(released: tuple[Path, dict[str, Any]]) -> None:
    for path in released[0].glob("snapshot-*"):
        path.unlink()
    with pytest.raises(MachineVersionDiffers, match="stop it cleanly"):
        recover(RealDisk(released[0]), real_machine(), repair=True)


@pytest.mark.parametrize("released", ["machine-6"], indirect=True)
def test_7_takes_caps_from_plans_rolling_offsets_from_cold_records_and_walks_that_were_under_way(
    released: tuple[Path, dict[str, Any]],
) -> None:
    """Machine 6 had no record of a lot: limits came from its plan, by a walk for each plan and lot."""
    disk = RealDisk(released[0])
    with open_snapshot(disk, snapshot_sequences(disk)[-1]) as (header, stored):
        old = load(machine_types(header), stored)
    lots = {entity["name"]: entity["index"] for entity in Machine.restore(migrate(header, packed(old))).entities()}
    rolls = np.flatnonzero(old["groups"]["lot"][old["sims"]["group"]] == lots["gold-b"])
    old["sims_cold"]["offset_rolling_bytes"] = 0
    old["sims_cold"]["offset_rolling_bytes"][rolls[:-1]] = 3 << 30
    old["sims"]["limit_bytes"][rolls] += 1 << 40
    walks = old["sweeps"][(int(old["header"]["sweeps_head"][0]) + np.arange(2)) % len(old["sweeps"])]
    assert int(old["header"]["sweeps_count"][0]) == 0
    walks["kind"] = layout.SWEEP_LIMITS, 2
    walks["argument"] = lots["daily"], lots["silver-a"]
    walks["cursor"], walks["end"], walks["id"] = 7, len(old["sims"]), (901, 902)
    old["sweeps"][(int(old["header"]["sweeps_head"][0]) + np.arange(2)) % len(old["sweeps"])] = walks
    old["header"]["sweeps_count"], old["header"]["sweep_next"] = 2, 902
    silver = np.flatnonzero(old["groups"]["lot"][old["sims"]["group"]] == lots["silver-a"])
    limits = old["sims"]["limit_bytes"][silver].tolist()
    old["sims"]["limit_bytes"][silver] += 1 << 40

    machine = Machine.restore(migrate(header, packed(old)))
    for _ in range(3):
        machine.apply(commands.run(layout.TICK), machine.now_ms, 1)
    now = tables(copy_regions(machine))
    assert int(now["header"]["sweeps_count"][0]) == 0
    assert now["header"]["rolling_end"][0] == rolls[-2] + 1
    assert now["sims"]["limit_bytes"][silver].tolist() == limits
    plan = old["entities"]["numbers"][lots["daily"]]
    cold = old["sims_cold"][rolls]
    offsets = (cold["offset_cycle_bytes"], cold["offset_day_bytes"], cold["offset_rolling_bytes"])
    expected = np.min([quota - used for quota, used in zip(plan[:3], offsets, strict=True) if quota >= 0], axis=0)
    assert now["sims"]["limit_bytes"][rolls].tolist() == expected.tolist()
    assert machine.lot(lots["gold-b"])["quota_bytes"] == [None if quota < 0 else quota for quota in plan[:3].tolist()]
    assert now["lots"]["populated"][[lots[name] for name in ("gold-a", "gold-b", "silver-a")]].tolist() == [1, 1, 1]


def test_15_sums_up_what_carriers_told_of_the_sims_of_pools_one_by_one() -> None:
    """Of the window that runs; a pool is told afterwards as one that this version has had from the start."""
    world = empty_world()
    for plan, pooled in (("monthly", 1), ("daily", 0)):
        world.define(layout.PLAN, plan, {layout.PLAN_QUOTA_CYCLE: 100 << 30, layout.PLAN_POOLED: pooled})
    begun_s = world.now_ms // 1000
    for lot in ("gold-a", "gold-a", "gold-b", "gold-a"):
        world.import_sims(1, lot)
    assert world.status(world.figure(3, 20 << 20, 0, begun_s)) == layout.OK
    world.pass_ms(16 * 24 * 3_600_000)
    assert world.status(world.figure(0, 5 << 20, 0, world.now_ms // 1000)) == layout.OK
    world.pass_ms(16 * 24 * 3_600_000)
    now_s = world.now_ms // 1000
    for sim in (1, 2):
        assert world.status(world.figure(sim, 5 << 20 << sim, 0, now_s)) == layout.OK
    fields = [name for name in layout.RECORD_TYPES["lots"].names or () if name.startswith("sims_")]
    changed = reshaped("lots", **dict.fromkeys(set(fields) - {"sims_first", "sims_end"}))
    for version in (13, 14):
        machine = Machine.restore(migrate(*older(world.machine, {"lots": changed}, version)))
        assert machine.check() == []
        told = tables(copy_regions(machine))["lots"][world.entities["gold-a"]]
        assert [told[f"sims_told_{name}"][0] for name in ("bytes", "last_s")] == [15 << 20, now_s]
        driven = replace(world, machine=machine, now_ms=world.now_ms)
        driven.pass_ms(3_600_000)
        for used, status in (((15 << 20) - 1, layout.IMPOSSIBLE_USAGE), (15 << 20, layout.OK)):
            assert driven.status(driven.pool_figure("gold-a", used, 0, now_s)) == status
        # When the figure of SIM 0 is too old, the other one's counts on.
        driven.pass_ms(15 * 24 * 3_600_000)
        for used, status in (((10 << 20) - 1, layout.IMPOSSIBLE_USAGE), (10 << 20, layout.OK)):
            assert driven.status(driven.pool_figure("gold-a", used, 0, driven.now_ms // 1000)) == status


@pytest.mark.parametrize("spread_ms", [0, 40_000_000])
def test_15_sums_up_what_carriers_told_of_days_also_where_a_turn_is_under_way(spread_ms: int) -> None:
    world = empty_world()
    plan = {layout.PLAN_QUOTA_CYCLE: -1, layout.PLAN_QUOTA_ROLLING: 100 << 30, layout.PLAN_ROLLING_DAYS: 5}
    world.define(layout.PLAN, "monthly", plan | {layout.PLAN_POOLED: 1 << 2})
    world.import_sims(4)
    rolling = layout.WINDOW_ROLLING
    assert world.status(world.schedule("gold-a", rolling, world.now_ms)) == layout.OK
    world.pass_ms(1_000)
    ended_s = world.now_ms // 1000 - 1
    for sim in range(4):
        assert world.status(world.figure(sim, 1 << 20 << sim, 0, ended_s, layout.ROLLING_DAY)) == layout.OK
    assert world.status(world.schedule("gold-a", rolling, world.now_ms, spread_ms)) == layout.OK
    world.pass_ms(spread_ms // 2)
    lot = world.entities["gold-a"]
    assert world.machine.lot(lot)["resetting"][2] == (spread_ms > 0)
    machine = Machine.restore(migrate(*older(world.machine, {"lots": reshaped("lots", sims_days_bytes=None)}, 14)))
    found, expected = (tables(copy_regions(each))["lots"]["sims_days_bytes"][lot] for each in (machine, world.machine))
    assert found.tolist() == expected.tolist()
    assert expected[1] == (15 << 20) - 4 * 4_095


@pytest.mark.parametrize("released", ["machine-10"], indirect=True)
def test_11_goes_on_with_resets_that_had_a_sweep_of_their_own(released: tuple[Path, dict[str, Any]]) -> None:
    disk = RealDisk(released[0])
    with open_snapshot(disk, snapshot_sequences(disk)[-1]) as (header, stored):
        old = load(machine_types(header), stored)
    lots = {entity["name"]: entity["index"] for entity in Machine.restore(migrate(header, packed(old))).entities()}
    names = ("gold-b", "silver-a")
    assert int(old["header"]["sweeps_count"][0]) == 0
    for number, name in enumerate(names):
        place = (int(old["header"]["sweeps_head"][0]) + number) % len(old["sweeps"])
        old["sweeps"][place] = (0, old["header"]["sims_count"][0], lots[name] | 1 << 32, 2, 901 + number)
    old["header"]["sweeps_count"] = len(names)
    old["sims_cold"]["offset_cycle_bytes"] += 1
    machine = Machine.restore(migrate(header, packed(old)))
    for _ in range(3):
        machine.apply(commands.run(layout.TICK), machine.now_ms, 1)
    now = tables(copy_regions(machine))
    assert int(now["header"]["sweeps_count"][0]) == 0
    begun = np.isin(now["groups"]["lot"][now["sims"]["group"]], [lots[name] for name in names])
    begun[int(now["header"]["sims_count"][0]) :] = False
    assert begun.any()
    counted = now["sims"]["counted_bytes"].astype(np.int64)
    assert (now["sims_cold"]["offset_cycle_bytes"][begun] == -counted[begun]).all()


@pytest.mark.parametrize("released", ["machine-10"], indirect=True)
def test_11_has_leases_that_have_ended_in_a_ring_in_their_order(released: tuple[Path, dict[str, Any]]) -> None:
    """Machine 10 had two places for each, by its epoch."""
    disk = RealDisk(released[0])
    with open_snapshot(disk, snapshot_sequences(disk)[-1]) as (header, stored):
        old = load(machine_types(header), stored)
    (taken,) = np.nonzero(old["ended_leases"]["epoch"])
    assert len(taken) > 2
    # Two whose epochs end alike, the later one in the first of their places.
    first, second = taken[:2]
    old["ended_leases"]["epoch"][[second, first]] = 7 << 16 | 6, 8 << 16 | 6
    old["ended_leases"]["remembered"][[second, first]] = old["header"]["epoch_next"] + np.arange(2, dtype=np.uint64)
    before = old["ended_leases"][taken]

    machine = Machine.restore(migrate(header, packed(old)))
    assert machine.check() == []
    after = tables(copy_regions(machine))["ended_leases"]
    assert after["epoch"].tolist() == before["epoch"][np.argsort(before["remembered"])].tolist()
    assert after["epoch"][-2:].tolist() == [7 << 16 | 6, 8 << 16 | 6]
    assert after["before"][-1] == len(taken) - 2


def packed(old: Tables) -> list[StoredRegion]:
    return [(name, table.dtype.itemsize, len(table), memoryview(table.tobytes())) for name, table in old.items()]


def test_every_region_of_records_is_described_as_layout_pxd_says() -> None:
    parsed = tables(copy_regions(Machine()))
    numbers = {name for name in parsed if name.startswith("timers_") or name.endswith("_table")}
    assert set(layout.RECORD_TYPES) == set(parsed) - numbers - {"wheel", "ready", "ended_places"}
    for region, found in described(describe(layout.RECORD_TYPES)).items():
        assert (found.names, found.itemsize) == (parsed[region].dtype.names, parsed[region].dtype.itemsize)
        assert places(found) == places(parsed[region].dtype)


def places(record: np.dtype[Any]) -> list[int]:
    assert record.fields is not None
    return [record.fields[name][1] for name in record.names or ()]


# ------------------------------------------------------------------------------------------- field by field


def walked() -> Machine:
    walk = Walk(3, keeps_records=False)
    for _ in range(60):
        walk.step()
    return walk.machine


def older(
    machine: Machine, changed: dict[str, np.dtype[Any]], version: int
) -> tuple[SnapshotHeader, list[StoredRegion]]:
    """The same state as a machine would have written it whose records in these regions had another layout."""
    types = dict(layout.RECORD_TYPES) | changed
    regions: list[StoredRegion] = []
    for name, item_bytes, count, data in copy_regions(machine):
        if name in changed:
            now = np.frombuffer(data, layout.RECORD_TYPES[name])
            then = np.zeros(count, changed[name])
            for field in set(now.dtype.names or ()) & set(then.dtype.names or ()):
                within = tuple(map(slice, then[field].shape))
                then[field] = now[field][within]
            regions.append((name, then.itemsize, count, then.tobytes()))
        else:
            regions.append((name, item_bytes, count, data))
    header = SnapshotHeader(version, b"", machine.sequence, machine.now_ms, 0, 0, 0, (), describe(types))
    return header, regions


def reshaped(region: str, **fields: Any) -> np.dtype[Any]:
    """The region's record with its fields in the opposite order, some of another type, or (None) left out."""
    now = layout.RECORD_TYPES[region]
    found = [
        (name, fields[name] if name in fields else now[name])
        for name in reversed(now.names or ())
        if fields.get(name, "") is not None
    ]
    return np.dtype(found)


@pytest.fixture
def no_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but names and zeros."""
    for hooks in (HEADERS, STATES):
        for version in tuple(hooks):
            monkeypatch.delitem(hooks, version)


@pytest.mark.usefixtures("no_hooks")
def test_fields_go_by_name_whatever_their_place_and_width_and_new_ones_are_zero() -> None:
    machine = walked()
    changed = {
        "sims": reshaped("sims"),
        "servers": reshaped("servers", window="<u8", admitted_us=None),
        "header": reshaped("header", settings=("<i8", (40,)), swaps_stopped="<u8"),
    }
    before = tables(copy_regions(machine))
    after = tables(loaded(migrate(*older(machine, changed, RUNNING - 1))))
    for name, table in before.items():
        if name == "servers":
            assert after[name]["admitted_us"].tolist() == [0] * len(table)
            table["admitted_us"] = 0
        assert after[name].tobytes() == table.tobytes(), name


def test_sims_that_an_older_machine_left_slowed_are_tried_a_day_after_the_start() -> None:
    world = new_world(sims=3)
    for sim in (0, 2):
        world.send(world.set_health(sim, layout.THROTTLED))
    lots = reshaped("lots", slowed_count=None, tried_ms=None)
    machine = Machine.restore(migrate(*older(world.machine, {"lots": lots}, 13)))
    lot = world.entities["gold-a"]
    assert (machine.lot(lot)["slowed_count"], machine.check()) == (2, [])
    world = World(machine, now_ms=world.now_ms)
    world.send(commands.run(layout.RESTART))
    for passed_ms in (86_400_000, 3_600_000):
        world.pass_ms(passed_ms)
    assert machine.lot(lot)["slowed_count"] == 0


def test_16_counts_the_exhausted_sims_of_each_lot() -> None:
    world = new_world(sims=3)
    world.import_sims(2, opening_bytes=1 << 40)
    lots = reshaped("lots", exhausted_count=None)
    machine = Machine.restore(migrate(*older(world.machine, {"lots": lots}, 15)))
    assert (tables(copy_regions(machine))["lots"]["exhausted_count"].sum(), machine.check()) == (2, [])


def test_16_knows_of_leases_when_they_were_reported_last() -> None:
    world = new_world(sims=3)
    for terminal in (1, 2):
        assert world.status(world.allocate(terminal)) == layout.OK
    header, regions = older(world.machine, {}, 15)
    old, now_s = load(machine_types(header), regions), world.now_ms // 1000
    assigned = old["sims"]["occupancy"] == layout.ASSIGNED
    old["sims"]["next"][assigned] = layout.NONE_INDEX
    old["sims"]["previous"][assigned] = [now_s + 7, layout.NONE_INDEX]
    migrated = tables(loaded(migrate(header, packed(old))))["sims"][assigned]
    assert migrated["next"].tolist() == [now_s, now_s]
    assert migrated["previous"].tolist() == [now_s + 7, now_s]


def rolling_days_of_15(pooled: int, days: int) -> World:
    """A lot whose rolling window had five days, 1 MiB on each of them, and has so many now."""
    world = empty_world()
    plan = {layout.PLAN_QUOTA_ROLLING: 100 << 30, layout.PLAN_ROLLING_DAYS: 5, layout.PLAN_POOLED: pooled}
    world.configure(layout.LEASE_MS, 7 * DAY_MS)
    world.define(layout.PLAN, "monthly", plan)
    world.import_sims(1)
    epoch = allocate(world)
    for day in range(6):
        for window in (layout.WINDOW_DAY, layout.WINDOW_ROLLING):
            assert world.status(world.schedule("gold-a", window, world.now_ms)) == layout.OK
        world.pass_ms(1_000)
        assert world.status(world.usage(T, epoch, (day + 1) << 20)) == layout.OK
        world.pass_ms(DAY_MS - 1_000)
    world.define(layout.PLAN, "monthly", plan | {layout.PLAN_ROLLING_DAYS: days})
    world.pass_ms(1_000)
    return world


def of_15(world: World, late_ms: int = 0) -> World:
    """As 15 kept it: the ring in the offset, of a pool all of it, and a reset that came late at its instant."""
    fields = ("days_several", "turn_places", "turn_place", "turns_all", "turns_keep", "turn_keeps", "ring_unused")
    changed = {
        "lots": reshaped("lots", **dict.fromkeys(fields), pool_days_own_bytes=None),
        "sims_rolling": reshaped("sims_rolling", own=None),
    }
    header, regions = older(world.machine, changed, 15)
    old, lot = load(machine_types(header), regions), world.entities["gold-a"]
    places = world.machine.lot(lot)["rolling_days"] - 1
    old["lots"]["pool_offset_bytes"][lot, 2] += old["lots"]["pool_days"][lot, places:].sum()
    old["lots"]["last_reset_ms"][lot, 1:] -= np.uint64(late_ms)
    rolling = old["sims_rolling"]
    rolling["offset_bytes"] += rolling["days"].sum(axis=1, dtype=np.int64) << 12
    machine = Machine.restore(migrate(header, packed(old)))
    assert machine.check() == []
    return replace(world, machine=machine, now_ms=world.now_ms)


@pytest.mark.parametrize("pooled", [0, 4])
def test_16_counts_no_day_that_a_shortened_window_has_not(pooled: int) -> None:
    world = rolling_days_of_15(pooled, 3)
    driven, seen = of_15(world), []
    for _ in range(4):
        of_pool, of_sim = driven.machine.lot(driven.entities["gold-a"])["pool_used_bytes"], driven.machine.sim(0)
        seen.append(int(of_pool[2] if pooled else of_sim["used_rolling_bytes"]) >> 20)
        assert driven.status(driven.schedule("gold-a", layout.WINDOW_ROLLING, driven.now_ms)) == layout.OK
        driven.pass_ms(DAY_MS)
    assert seen == [3, 2, 1, 0]


def test_16_begins_a_window_that_began_days_late_as_of_the_last_day() -> None:
    """The next turn is one of a day then; of which day what was counted before is it does not know."""
    world = rolling_days_of_15(0, 5)
    began_ms = world.machine.lot(world.entities["gold-a"])["last_reset_ms"]
    ten_hours_ms = 10 * 3_600_000
    driven = of_15(world, 2 * DAY_MS + ten_hours_ms)
    found_ms = driven.machine.lot(driven.entities["gold-a"])["last_reset_ms"]
    assert found_ms[1:] == [instant_ms - ten_hours_ms for instant_ms in began_ms[1:]]
    assert driven.status(driven.schedule("gold-a", layout.WINDOW_ROLLING, driven.now_ms)) == layout.OK
    driven.pass_ms(1_000)
    assert driven.machine.sim(0)["used_rolling_bytes"] == 4 << 20
    ended_s = driven.now_ms // 1000 - 1 - 2 * DAY_MS // 1000
    for told, status in ((0, layout.LATE), (3 << 20, layout.OK)):
        assert driven.status(driven.figure(0, told, 0, ended_s, layout.ROLLING_DAY)) == status


def test_17_keeps_what_is_used_while_a_clock_is_frozen_that_was_so_before_it() -> None:
    world = empty_world()
    world.configure(layout.LEASE_MS, 24 * 3_600_000)
    world.import_sims(1)
    epoch = allocate(world)
    assert world.status(world.schedule("gold-a", layout.WINDOW_DAY, world.now_ms + 60_000)) == layout.OK
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(3_600_000)
    changed = {"header": reshaped("header", frozen_s=None), "lots": reshaped("lots", from_s=None)}
    machine = Machine.restore(migrate(*older(world.machine, changed, 16)))
    driven = replace(world, machine=machine, now_ms=world.now_ms)
    driven.pass_ms(60_000)
    assert driven.status(driven.usage(T, epoch, 300 << 20)) == layout.OK
    driven.send(commands.run(layout.THAW))
    driven.pass_ms(60_000)
    assert machine.sim(0)["used_day_bytes"] == 300 << 20
    assert not any(machine.lot(driven.entities["gold-a"])["held_over"][::2])


@pytest.mark.parametrize("pooled", [0, 7])
def test_17_takes_nothing_off_the_cycle_of_days_that_were_told_before_it(pooled: int) -> None:
    """What we counted on them ourselves it does not know."""
    world = empty_world()
    plan = {layout.PLAN_ROLLING_DAYS: 3, layout.PLAN_QUOTA_ROLLING: 100 << 30, layout.PLAN_POOLED: pooled}
    world.define(layout.PLAN, "monthly", plan | {layout.PLAN_QUOTA_CYCLE: 100 << 30})
    world.import_sims(1)
    for window in (layout.WINDOW_CYCLE, layout.WINDOW_ROLLING):
        assert world.status(world.schedule("gold-a", window, world.now_ms)) == layout.OK
    world.pass_ms(24 * 3_600_000)
    assert world.status(world.schedule("gold-a", layout.WINDOW_ROLLING, world.now_ms)) == layout.OK
    world.pass_ms(1_000)
    ended_s = world.now_ms // 1000 - 1

    def tell(world: World, told: int) -> int:
        run = world.figure(0, told, 0, ended_s, layout.ROLLING_DAY)
        if pooled:
            run = world.pool_figure("gold-a", told, 0, ended_s, layout.ROLLING_DAY)
        assert world.status(run) == layout.OK
        used = world.machine.lot(world.entities["gold-a"])["pool_used_bytes"][0]
        return int(used if pooled else world.machine.sim(0)["used_cycle_bytes"])

    assert tell(world, 7 << 30) == 7 << 30
    changed = {"lots": reshaped("lots", pool_days_own_bytes=None), "sims_rolling": reshaped("sims_rolling", own=None)}
    machine = Machine.restore(migrate(*older(world.machine, changed, 16)))
    assert machine.check() == []
    driven = replace(world, machine=machine, now_ms=world.now_ms)
    assert [tell(driven, told << 30) for told in (3, 8, 3)] == [7 << 30, 8 << 30, 7 << 30]


@pytest.mark.usefixtures("no_hooks")
def test_a_region_that_the_old_machine_had_not_is_zero() -> None:
    machine = walked()
    header, regions = older(machine, {}, RUNNING - 1)
    rest = [region for region in regions if region[0] != "given_up"]
    after = {name: data for name, _, _, data in loaded(migrate(header, rest))}
    before = {name: data for name, _, _, data in copy_regions(machine)}
    assert after.pop("given_up") == bytes(len(before.pop("given_up")))
    assert after == before


@pytest.mark.usefixtures("no_hooks")
@pytest.mark.parametrize(
    ("wider", "value"),
    [({"window": "<u4"}, (1 << 16) + 1), ({"lanes": ("u1", (6,))}, 1)],
    ids=["too large a number", "a place too many"],
)
def test_what_has_no_room_is_refused_and_named(wider: dict[str, Any], value: int) -> None:
    machine = walked()
    (field,) = wider
    header, regions = older(machine, {"servers": reshaped("servers")}, RUNNING - 1)
    record = reshaped("servers", **wider)
    position = [name for name, *_ in regions].index("servers")
    servers = np.zeros(regions[position][2], record)
    servers[field][1] = value
    regions[position] = ("servers", record.itemsize, len(servers), servers.tobytes())
    types = dict(layout.RECORD_TYPES) | {"servers": record}
    with pytest.raises(NotMigrated, match=f"field {field} of region servers"):
        migrate(replace(header, description=describe(types)), regions)


def test_versions_that_cannot_be_read_are_refused_and_nothing_is_passed_over() -> None:
    machine = walked()
    for version, words in ((RUNNING + 1, "a newer program wrote it"), (5, "a program in between")):
        disk = FaultyDisk()
        header = write_snapshot(disk, machine, b"j" * 16, version, 0)
        file = disk.open(snapshot_name(header.sequence))
        if version == 5:
            # Format 2 had no description.
            _rewrite(file, replace(header, description=b""))
        with pytest.raises(SnapshotNotMigrated, match=words):
            restore_newest(disk, real_machine())


def test_a_flipped_bit_in_the_description_is_damage() -> None:
    disk = FaultyDisk()
    header = write_snapshot(disk, walked(), b"j" * 16, RUNNING, 0)
    file = disk.open(snapshot_name(header.sequence))
    file.pwrite((bytes([file.pread(1, 5_000)[0] ^ 4]),), 5_000)
    with pytest.raises(JournalDamaged, match="description"), open_snapshot(disk, header.sequence):
        pass


def _rewrite(file: Any, header: SnapshotHeader) -> None:
    file.pwrite((header.encode(),), 0)


def loaded(regions: Any) -> Regions:
    return [(name, item_bytes, count, bytes(data)) for name, item_bytes, count, data in regions]

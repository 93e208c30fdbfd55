"""What a calendar has for a lot: spread resets, caps that come later, and the dates between which its SIMs work."""

from __future__ import annotations

import itertools
from random import Random

import numpy as np
import pytest
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

from tests.model.records import copy_regions
from tests.model.transitions import T, allocate, list_job, prepay
from tests.model.world import GIB, MIB, STEP_MS, World, empty_world, rows

CYCLE, ROLLING = layout.WINDOW_CYCLE, layout.WINDOW_ROLLING
QUOTA = 100 * GIB
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
IN_AN_APPLY = 2_048


def spent_world(sims: int, lots: tuple[str, ...] = ("gold-a",)) -> World:
    """Lots all of whose SIMs have used up their cycle."""
    world = empty_world(sims_max=sims * len(lots) + 64)
    for lot in lots:
        world.import_sims(sims, lot=lot, opening_bytes=QUOTA)
    return world


def healthy(world: World) -> int:
    return int((world.machine.sims_columns()["health"] == layout.HEALTHY).sum())


def schedule(world: World, at_ms: int, spread_ms: int = 0, lot: str = "gold-a", window: int = CYCLE) -> None:
    assert world.status(world.schedule(lot, window, at_ms, spread_ms)) == layout.OK


def told_resets(world: World) -> list[tuple[int, int]]:
    return [(event["a"], event["b"]) for event in world.events if event["kind"] == layout.EVENT_RESET]


def test_a_spent_lot_comes_back_bit_by_bit_over_its_spread() -> None:
    """No stampede: never more in a second than a second of the spread is worth, and in the end all."""
    world = spent_world(6_000)
    at_ms = world.now_ms + MINUTE_MS
    schedule(world, at_ms, spread_ms=MINUTE_MS)
    back = [healthy(world)]
    while world.now_ms < at_ms + MINUTE_MS + 1_024:
        world.pass_ms(512)
        back.append(healthy(world))
        assert world.now_ms >= at_ms or back[-1] == 0
    steps = [after - before for before, after in itertools.pairwise(back)]
    assert max(steps) <= 6_000 * 1_024 // MINUTE_MS + 1
    assert back[-1] == 6_000
    assert told_resets(world) == [(world.entities["gold-a"] | CYCLE << 16, 6_000)]
    assert world.machine.check() == []


def test_a_reset_without_a_spread_is_bounded_work() -> None:
    world = spent_world(10_000)
    schedule(world, world.now_ms)
    back = [0, healthy(world)]
    while back[-1] < 10_000:
        assert world.machine.next_due_ms == world.now_ms
        world.send(commands.run(layout.TICK))
        back.append(healthy(world))
    steps = [after - before for before, after in itertools.pairwise(back)]
    assert min(steps) > 0
    assert max(steps) <= IN_AN_APPLY


def test_lots_that_reset_at_one_instant_take_turns_and_touch_their_own_sims_only() -> None:
    """More lots than there is room for sweeps, and SIMs of another lot between those of one."""
    world = empty_world(sims_max=5_000)
    numbers = {
        layout.LOT_SUPPLIER: world.entities["supplier"],
        layout.LOT_PLAN: world.entities["monthly"],
        layout.LOT_CLASS: world.entities["gold"],
    }
    lots = [f"lot-{number}" for number in range(300)]
    for lot in lots:
        world.define(layout.LOT, lot, numbers)
        world.import_sims(10, lot=lot, opening_bytes=QUOTA)
    world.import_sims(10, lot="gold-a", opening_bytes=QUOTA)
    world.import_sims(5, lot="lot-0", opening_bytes=QUOTA)
    at_ms = world.now_ms + STEP_MS
    run = commands.run(
        layout.SCHEDULE, 300, lot=[world.entities[lot] for lot in lots], window=CYCLE, at_ms=at_ms, spread_ms=0
    )
    assert set(world.statuses(run)) == {layout.OK}
    world.pass_ms(STEP_MS)
    while world.machine.next_due_ms == world.now_ms:
        world.send(commands.run(layout.TICK))
    columns = world.machine.sims_columns()
    spent = columns["health"] == layout.EXHAUSTED
    assert np.array_equal(spent, columns["lot"] == world.entities["gold-a"])
    assert dict(told_resets(world))[world.entities["lot-0"] | CYCLE << 16] == 15
    assert len(told_resets(world)) == 300


def test_a_jump_of_the_clock_resets_nothing_until_it_is_confirmed() -> None:
    world = spent_world(600)
    at_ms = world.now_ms + 10 * MINUTE_MS
    schedule(world, at_ms, spread_ms=HOUR_MS)
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(30 * MINUTE_MS)
    world.pass_ms(MINUTE_MS)
    assert healthy(world) == 0
    assert world.status(commands.run(layout.THAW)) == layout.OK
    for _ in range(6):
        world.pass_ms(512)
    assert 210 <= healthy(world) <= 211
    world.send(commands.run(layout.FREEZE))
    before = healthy(world)
    world.pass_ms(30 * MINUTE_MS)
    assert healthy(world) == before
    world.send(commands.run(layout.THAW))
    world.pass_ms(2_048)
    assert 510 <= healthy(world) <= 511


def test_a_reset_under_way_survives_a_snapshot() -> None:
    """I10: with the same future."""
    world = spent_world(600)
    schedule(world, world.now_ms, spread_ms=MINUTE_MS)
    world.pass_ms(MINUTE_MS // 2)
    restored = Machine.restore(copy_regions(world.machine))
    assert restored.state_hash() == world.machine.state_hash()
    assert 0 < healthy(world) < 600
    for _ in range(40):
        world.pass_ms(1_024)
        restored.apply(commands.run(layout.TICK), world.now_ms, world.seed)
    assert restored.state_hash() == world.machine.state_hash()
    assert healthy(world) == 600


def test_a_reset_that_comes_before_the_last_is_over_waits_for_it() -> None:
    world = spent_world(600)
    schedule(world, world.now_ms + STEP_MS, spread_ms=MINUTE_MS)
    world.pass_ms(STEP_MS)
    schedule(world, world.now_ms + 10 * STEP_MS)
    world.pass_ms(10 * STEP_MS)
    assert [sims for _, sims in told_resets(world)] == [600, 600]


def test_days_of_a_rolling_window_end_by_schedule() -> None:
    world = empty_world()
    world.define(layout.PLAN, "monthly", {layout.PLAN_QUOTA_ROLLING: 10 * GIB, layout.PLAN_ROLLING_DAYS: 2})
    world.import_sims(1)
    world.send(world.usage(T, allocate(world), 700 * MIB))
    used = []
    for _ in range(3):
        schedule(world, world.now_ms + STEP_MS, window=ROLLING)
        world.pass_ms(STEP_MS)
        used.append(world.machine.sim(0)["used_rolling_bytes"])
    assert used == [700 * MIB, 0, 0]


def test_an_instant_that_was_carried_out_is_not_carried_out_again() -> None:
    """Whoever schedules may come back from a crash and say it once more."""
    world = spent_world(3)
    at_ms = world.now_ms + STEP_MS
    schedule(world, at_ms)
    world.pass_ms(STEP_MS)
    for again_ms in (at_ms, at_ms - STEP_MS):
        assert world.status(world.schedule("gold-a", CYCLE, again_ms)) == layout.LATE
    assert len(told_resets(world)) == 1


def test_a_cap_that_comes_at_an_instant_keeps_both_sides_in_the_record() -> None:
    world = empty_world()
    world.import_sims(2)
    lot, at_ms = world.entities["gold-a"], world.now_ms + 5 * STEP_MS
    assert world.status(world.set_cap("gold-a", CYCLE, 30 * GIB, at_ms=at_ms)) == layout.OK
    another = (CYCLE, 50 * GIB, layout.BASIS_CONTRACTUAL, at_ms)
    assert world.status(world.set_cap("gold-a", *another)) == layout.CAP_WAITS, "the first is not dropped unasked"
    assert world.machine.lot(lot)["waiting_bytes"][0] == 30 * GIB
    assert world.status(world.set_cap("gold-a", *another, replaces=True)) == layout.OK
    world.pass_ms(4 * STEP_MS)
    caps = world.machine.lot(lot)
    assert (caps["quota_bytes"][0], caps["waiting_bytes"][0], caps["waiting_ms"][0]) == (QUOTA, 50 * GIB, at_ms)
    world.pass_ms(STEP_MS)
    caps = world.machine.lot(lot)
    assert (caps["quota_bytes"][0], caps["basis"][0], caps["since_ms"][0]) == (
        50 * GIB,
        layout.BASIS_CONTRACTUAL,
        at_ms,
    )
    assert (caps["before_bytes"][0], caps["before_basis"][0]) == (QUOTA, layout.BASIS_BELIEVED)
    assert caps["waiting_ms"][0] == 0
    assert world.machine.sim(0)["headroom_bytes"] == 50 * GIB


# --------------------------------------------------------------------------------------------------- probing


def slowed_world(speed_kbps: int = -1) -> World:
    """One SIM that was slowed, and whose cycle has just started anew."""
    world = empty_world()
    speed = {layout.PLAN_SPEED_CYCLE_KBPS: speed_kbps}
    world.define(layout.PLAN, "monthly", {layout.PLAN_QUOTA_CYCLE: QUOTA, layout.PLAN_LOW_BYTES: MIB, **speed})
    world.import_sims(1)
    world.send(world.set_health(0, layout.THROTTLED))
    schedule(world, world.now_ms)
    return world


def report(world: World, epoch: int, total: int, goodput_kbps: int) -> None:
    world.pass_ms(4_096)
    fared = {"goodput_kbps": goodput_kbps, "span_ms": 4_000, "demand_permille": 1_000}
    assert world.status(world.usage(T, epoch, total, **fared)) == layout.OK


def trusted(world: World) -> bool:
    return bool(world.machine.sim(0)["trusted"])


def test_a_sim_that_was_slowed_goes_to_who_needs_little_until_it_has_shown_that_it_is_fast() -> None:
    world = slowed_world()
    assert healthy(world) == 1
    assert not trusted(world)
    assert world.status(world.allocate(2, expected_bytes=10 * GIB)) == layout.NO_HEALTHY_SIM
    epoch = allocate(world)
    report(world, epoch, 3 * MIB, 5_000)
    assert not trusted(world)
    report(world, epoch, 6 * MIB, 7_000)
    assert trusted(world)
    told = [event for event in world.events if event["kind"] == layout.EVENT_TRUSTED]
    assert [(event["terminal"], event["b"]) for event in told] == [(T, 7_000)]
    world.send(world.lease(layout.RELEASE, T, epoch))
    world.pass_ms(60_032)
    assert world.status(world.allocate(2, expected_bytes=10 * GIB)) == layout.OK
    assert world.machine.check() == []


def test_what_went_in_the_time_between_reports_shows_it_too() -> None:
    world = slowed_world()
    epoch = allocate(world)
    report(world, epoch, 4 * MIB, 0)
    assert trusted(world)


def test_a_plan_that_slows_to_much_asks_for_twice_as_much() -> None:
    world = slowed_world(speed_kbps=5_000)
    epoch = allocate(world)
    report(world, epoch, 5 * MIB, 9_999)
    assert not trusted(world)
    report(world, epoch, 10 * MIB, 10_000)
    assert trusted(world)


def test_a_throttle_seen_while_it_is_probed_keeps_it_out() -> None:
    world = slowed_world()
    epoch = allocate(world)
    world.send(world.set_health(0, layout.THROTTLED))
    report(world, epoch, 25 * MIB, 50_000)
    world.send(world.lease(layout.RELEASE, T, epoch))
    world.pass_ms(60_032)
    assert not trusted(world)
    assert world.status(world.allocate(2)) == layout.NO_HEALTHY_SIM


def test_only_what_was_slowed_is_probed() -> None:
    """A SIM that our own count says is spent comes back as it was: a reset must not leave a market with nothing."""
    world = spent_world(2)
    schedule(world, world.now_ms)
    assert trusted(world)
    assert world.status(world.allocate(1, expected_bytes=10 * GIB)) == layout.OK


# ------------------------------------------------------------------------------------- slowed, and no reset is known


def throttled_world(sims: int) -> World:
    """All SIMs of a lot are slowed at once. Of a lot beside it, whose reset is known, as many are."""
    world = empty_world(sims_max=2 * sims + 64)
    for lot in ("gold-a", "gold-b"):
        world.import_sims(sims, lot=lot)
        world.send(world.set_cap(lot, CYCLE, QUOTA))
    schedule(world, world.now_ms + 31 * DAY_MS, lot="gold-b")
    for sim in range(2 * sims):
        world.send(world.set_health(sim, layout.THROTTLED))
    return world


def told_endless(world: World) -> list[tuple[int, int]]:
    return [(event["a"], event["b"]) for event in world.events if event["kind"] == layout.EVENT_ENDLESS]


def test_slowed_sims_that_no_reset_brings_back_are_tried_after_a_day_bit_by_bit() -> None:
    """One careful terminal a SIM and day, and no stampede. Who has a known reset waits for it."""
    sims = 600
    world = throttled_world(sims)
    lot = world.entities["gold-a"]
    assert told_endless(world) == [(lot, 0)]
    world.pass_ms(DAY_MS - 1)
    assert healthy(world) == 0
    back = [0]
    for _ in range(61):
        world.pass_ms(MINUTE_MS)
        back.append(healthy(world))
    steps = [after - before for before, after in itertools.pairwise(back)]
    assert (max(steps), back[-1]) == (sims // 60, sims)
    assert told_endless(world)[1:] == [(lot, sims)]
    columns = world.machine.sims_columns()
    assert set(columns["health"][sims:].tolist()) == {layout.THROTTLED}
    # It is as after a reset: for who needs little, and slowed again at once when it is seen so, until a day later.
    assert world.status(world.allocate(1, expected_bytes=10 * GIB)) == layout.NO_HEALTHY_SIM
    assert world.status(world.allocate(1)) == layout.OK
    for sim in range(1, sims, 2):
        world.send(world.set_health(sim, layout.THROTTLED))
    assert healthy(world) == sims // 2
    world.pass_ms(DAY_MS - 1)
    assert healthy(world) == sims // 2
    for _ in range(61):
        world.pass_ms(MINUTE_MS)
    assert healthy(world) == sims
    # With none slowed the calendar has nothing for the lot any more.
    assert world.machine.lot(lot)["slowed_count"] == 0
    assert world.machine.check() == []


def test_slowed_sims_of_a_prepaid_lot_stay_slowed_unless_a_reset_is_known() -> None:
    """What they had is used up, and comes back only where somebody says that it does."""
    world = empty_world()
    world.import_sims(2)
    prepay(world)
    for sim in range(2):
        world.send(world.set_health(sim, layout.THROTTLED))
    lot = world.entities["gold-a"]
    (told,) = (event for event in world.events if event["kind"] == layout.EVENT_ENDLESS)
    assert (told["a"], told["b"], told["reason"]) == (lot, 0, 1)
    for _ in range(3 * 24):
        world.pass_ms(HOUR_MS)
    assert healthy(world) == 0
    assert (world.machine.lot(lot)["tried_ms"], world.machine.lot(lot)["stays_slowed"]) == (0, True)
    assert (world.machine.sim(0)["tried_ms"], world.machine.sim(0)["stays_slowed"]) == (None, True)
    schedule(world, world.now_ms + HOUR_MS)
    assert not world.machine.lot(lot)["stays_slowed"]
    world.pass_ms(2 * HOUR_MS)
    assert (healthy(world), trusted(world)) == (2, False)
    assert world.machine.check() == []


@pytest.mark.parametrize("said", ["prepaid", "reset", "no probes"])
def test_a_walk_that_tries_slowed_sims_ends_once_they_are_not_to_be_tried(said: str) -> None:
    """It does not go on for its hour. It tells how many were tried, and is asked anew a day later."""
    sims = 600
    world = throttled_world(sims)
    lot = world.entities["gold-a"]
    world.pass_ms(DAY_MS)
    world.pass_ms(10 * MINUTE_MS)
    tried = healthy(world)
    assert 0 < tried < sims // 2
    if said == "prepaid":
        prepay(world)
    elif said == "reset":
        schedule(world, world.now_ms + 3 * DAY_MS)
    else:
        world.configure(layout.PROBE_KBPS, 0)
    ended_ms = world.now_ms
    for _ in range(60):
        world.pass_ms(MINUTE_MS)
    assert healthy(world) == tried
    assert told_endless(world)[1:] == [(lot, tried)]
    if said == "no probes":
        world.configure(layout.PROBE_KBPS, 512)
        world.pass_ms(ended_ms + DAY_MS - world.now_ms)
        assert healthy(world) == tried
        for _ in range(61):
            world.pass_ms(MINUTE_MS)
        assert healthy(world) == sims
    assert world.machine.check() == []


def test_a_sim_of_a_prepaid_lot_that_is_slowed_after_its_last_reset_is_told_as_staying_so_at_once() -> None:
    world = empty_world()
    world.import_sims(2)
    prepay(world)
    world.send(world.set_health(0, layout.THROTTLED))
    schedule(world, world.now_ms + HOUR_MS)
    found = world.machine.sim(0)
    assert (found["reset_probes"], found["stays_slowed"]) == (True, False)
    world.pass_ms(HOUR_MS)
    world.pass_ms(2_048)
    world.send(world.set_health(0, layout.THROTTLED))
    found = world.machine.sim(0)
    assert (found["reset_probes"], found["stays_slowed"], found["tried_ms"]) == (False, True, None)
    assert not world.machine.sim(1)["stays_slowed"]


def test_trying_slowed_sims_is_bounded_work() -> None:
    world = empty_world(sims_max=10_064)
    world.import_sims(10_000)
    for first in range(0, 10_000, 1_000):
        iccids = [world.machine.sim(sim)["iccid"] for sim in range(first, first + 1_000)]
        world.send(commands.set_health(iccids, layout.THROTTLED))
    world.pass_ms(DAY_MS)
    world.now_ms += HOUR_MS
    back = [healthy(world)]
    while back[-1] < 10_000:
        world.send(commands.run(layout.TICK))
        back.append(healthy(world))
    steps = [after - before for before, after in itertools.pairwise(back)]
    assert min(steps) > 0
    assert max(steps) <= IN_AN_APPLY


def test_a_person_s_word_or_resets_that_become_known_end_it() -> None:
    """SIMs that were slowed before come back by the reset, those slowed later too, and by nothing else."""
    world = empty_world()
    world.import_sims(3)
    for sim in range(3):
        world.send(world.set_health(sim, layout.THROTTLED))
    world.send(world.set_health(0, layout.HEALTHY))
    assert trusted(world)
    lot = world.entities["gold-a"]
    assert (world.machine.lot(lot)["slowed_count"], world.machine.lot(lot)["tried_ms"]) == (2, world.now_ms + DAY_MS)
    assert world.machine.sim(1)["tried_ms"] // 1_000 == (world.now_ms + DAY_MS) // 1_000
    reset_ms = world.now_ms + 3 * DAY_MS
    schedule(world, reset_ms)
    assert (world.machine.lot(lot)["tried_ms"], world.machine.sim(1)["tried_ms"]) == (0, None)
    assert world.machine.sim(1)["reset_probes"]
    assert not world.machine.sim(0)["reset_probes"], "it is not slowed"
    for _ in range(71):
        world.pass_ms(HOUR_MS)
    assert healthy(world) == 1
    world.send(world.set_health(0, layout.THROTTLED))
    world.pass_ms(HOUR_MS)
    assert healthy(world) == 3
    # For a day after a reset its lot is not told as one without, since the calendar's next word may come. If none does:
    world.send(world.set_health(0, layout.THROTTLED))
    assert not world.machine.sim(0)["reset_probes"]
    assert world.machine.lot(lot)["tried_ms"] == 0
    assert [count for _, count in told_endless(world)] == [0]
    due_ms = world.machine.sim(0)["tried_ms"]
    while world.machine.sim(0)["health"] == layout.THROTTLED:
        world.pass_ms(HOUR_MS)
    assert due_ms <= world.now_ms <= due_ms + 2 * HOUR_MS


def test_a_sim_is_said_to_be_tried_when_its_lot_is() -> None:
    """Not at an instant that has passed: a lot whose resets were known is looked at once a day."""
    world = empty_world()
    world.import_sims(1)
    lot = world.entities["gold-a"]
    reset_ms = world.now_ms + 7 * DAY_MS
    schedule(world, reset_ms)
    world.send(world.set_health(0, layout.THROTTLED))
    for _ in range(3 * 24 + 1):
        world.pass_ms(HOUR_MS)
    schedule(world, 0)
    due_ms = world.machine.lot(lot)["tried_ms"]
    assert world.now_ms < due_ms == world.machine.sim(0)["tried_ms"]
    while world.machine.sim(0)["health"] == layout.THROTTLED:
        world.pass_ms(HOUR_MS)
    assert due_ms <= world.now_ms <= due_ms + 2 * HOUR_MS


def test_no_reset_is_said_to_probe_where_none_may() -> None:
    world = empty_world()
    world.import_sims(1)
    world.send(world.set_health(0, layout.THROTTLED))
    schedule(world, world.now_ms + DAY_MS)
    assert world.machine.sim(0)["reset_probes"]
    world.configure(layout.PROBE_KBPS, 0)
    assert not world.machine.sim(0)["reset_probes"]


def test_a_reset_that_is_under_way_is_said_to_probe_those_it_has_yet_to_come_to() -> None:
    """When it had come to all is when it had, though its clock stood still in between."""
    world = empty_world()
    world.import_sims(10)
    lot = world.entities["gold-a"]
    began_ms = world.now_ms + HOUR_MS
    schedule(world, began_ms, spread_ms=HOUR_MS)
    for sim in range(10):
        world.send(world.set_health(sim, layout.THROTTLED))
    for _ in range(3):
        world.pass_ms(HOUR_MS // 2 + 2_048)
    world.send(world.set_health(0, layout.THROTTLED))
    assert world.machine.lot(lot)["resetting"][CYCLE - 1]
    says = [(world.machine.sim(sim)["reset_probes"], world.machine.sim(sim)["tried_ms"] is None) for sim in (0, 9)]
    assert says == [(False, False), (True, True)]
    world.send(commands.run(layout.FREEZE))
    world.pass_ms(6 * HOUR_MS)
    assert world.machine.lot(lot)["ended_ms"][CYCLE - 1] == 0
    world.send(commands.run(layout.THAW))
    world.pass_ms(2_048)
    found = world.machine.lot(lot)
    assert (healthy(world), found["resetting"][CYCLE - 1]) == (9, False)
    assert found["ended_ms"][CYCLE - 1] > found["begun_ms"][CYCLE - 1] + 6 * HOUR_MS


@pytest.mark.parametrize("prepaid", [False, True])
def test_a_lot_that_has_ended_is_neither_tried_nor_told_as_slowed_for_ever(prepaid: bool) -> None:
    world = throttled_world(4)
    lot = world.entities["gold-a"]
    if prepaid:
        prepay(world)
    assert (bool(world.machine.lot(lot)["tried_ms"]), world.machine.lot(lot)["stays_slowed"]) == (not prepaid, prepaid)
    told = len(told_endless(world))
    (numbers,) = (each["numbers"] for each in world.machine.entities(layout.LOT) if each["name"] == "gold-a")
    ends = {layout.LOT_VALID_UNTIL_S: world.now_ms // 1_000 + 60}
    world.define(layout.LOT, "gold-a", dict(enumerate(numbers)) | ends)
    for _ in range(50):
        world.pass_ms(HOUR_MS)
    assert (world.machine.lot(lot)["tried_ms"], world.machine.lot(lot)["stays_slowed"]) == (0, False)
    assert (world.machine.sim(0)["tried_ms"], world.machine.sim(0)["stays_slowed"]) == (None, False)
    assert len(told_endless(world)) == told
    # Its end is moved: its SIMs are tried within a day.
    world.define(layout.LOT, "gold-a", dict(enumerate(numbers)))
    for _ in range(26):
        world.pass_ms(HOUR_MS)
    assert trusted(world) == prepaid
    assert world.machine.check() == []


def test_of_tried_sims_those_count_that_are_on_probation() -> None:
    """None that has nothing left, of which it is exhausted that is said from then on."""
    world = throttled_world(4)
    lot = world.entities["gold-a"]
    world.send(world.set_cap("gold-a", CYCLE, 0))
    for _ in range(26):
        world.pass_ms(HOUR_MS)
    assert [world.machine.sim(sim)["health"] for sim in range(4)] == [layout.EXHAUSTED] * 4
    assert (told_endless(world)[1:], world.machine.lot(lot)["slowed_count"]) == ([], 0)


# ----------------------------------------------------------------------------------------------------- dates


def dated(world: World, from_s: int = -1, until_s: int = -1) -> None:
    numbers = {
        layout.LOT_SUPPLIER: world.entities["supplier"],
        layout.LOT_PLAN: world.entities["monthly"],
        layout.LOT_CLASS: world.entities["gold"],
        layout.LOT_ACTIVE_FROM_S: from_s,
        layout.LOT_VALID_UNTIL_S: until_s,
    }
    world.define(layout.LOT, "gold-a", numbers)


def test_no_sim_past_its_validity_is_handed_out_not_even_at_the_instant_itself() -> None:
    """I4. The allocation stands in the very batch that the end comes with; a later end brings the SIMs back."""
    world = empty_world()
    world.import_sims(3)
    end_s = world.now_ms // 1000 + 8
    dated(world, until_s=end_s)
    assert allocate(world, 1)
    world.now_ms = end_s * 1000
    (outcome,) = world.send(world.allocate([2, 3]))
    assert set(outcome["status"].tolist()) == {layout.NO_HEALTHY_SIM}
    world.import_sims(2)
    assert healthy(world) == 0
    assert world.machine.check() == []
    dated(world, until_s=end_s + 3_600)
    assert healthy(world) == 5
    assert allocate(world, 2)
    told = [(event["a"], event["reason"]) for event in world.events if event["kind"] == layout.EVENT_VALIDITY]
    assert told == [(world.entities["gold-a"], layout.NO_LONGER_VALID), (world.entities["gold-a"], layout.VALID)]


def test_sims_that_do_not_work_yet_are_not_handed_out() -> None:
    world = empty_world()
    begin_s = world.now_ms // 1000 + 8
    dated(world, from_s=begin_s)
    world.import_sims(2)
    assert world.status(world.allocate(1)) == layout.NO_HEALTHY_SIM
    world.now_ms = begin_s * 1000
    world.pass_ms(STEP_MS)
    assert world.status(world.allocate(1)) == layout.OK


def test_a_mask_that_is_lifted_does_not_show_a_lot_that_works_no_longer() -> None:
    world = empty_world()
    world.import_sims(2)
    dated(world, until_s=world.now_ms // 1000 - 1)
    for masked in (1, 0):
        world.send(commands.run(layout.MASK, 1, lot=layout.NONE_SHORT, bank=layout.NONE_SHORT, masked=masked))
        assert world.status(world.allocate(1)) == layout.NO_HEALTHY_SIM
        assert world.machine.check() == []


@pytest.mark.parametrize("frozen", [False, True])
def test_terminals_are_moved_off_sims_whose_validity_ends(frozen: bool) -> None:
    world = empty_world()
    world.import_sims(1)
    world.configure(layout.AUTOMATIC_SWAPS, 3)
    allocate(world)
    world.import_sims(1, lot="gold-b")
    world.define(layout.SIM_CLASS, "gold", {layout.CLASS_RESERVE: 0})
    dated(world, until_s=world.now_ms // 1000 + 1)
    if frozen:
        world.send(commands.run(layout.FREEZE))
    world.pass_ms(2_048)
    orders = [order["kind"] for order in world.orders]
    assert orders == ([] if frozen else [layout.SWITCH])


def test_rows_of_outcomes_say_what_was_reset() -> None:
    """The event comes when the last SIM is back, in the run of the apply that did it."""
    world = spent_world(4)
    outcome = world.apply(world.schedule("gold-a", CYCLE, world.now_ms))
    events = rows(commands.outcome_runs(outcome.data)[-1])
    assert [event["kind"] for event in events] == [layout.EVENT_RESET]


DAY_MS = 86_400_000


def dated_world(days: dict[str, int], sims_max: int = 64) -> World:
    """Lots of one class, each with two SIMs; those that are named end in so many days."""
    world = empty_world(sims_max)
    plan = {layout.LOT_SUPPLIER: world.entities["supplier"], layout.LOT_PLAN: world.entities["monthly"]}
    for lot, count in days.items():
        ends = {} if count == 0 else {layout.LOT_VALID_UNTIL_S: (world.now_ms + count * DAY_MS) // 1_000}
        world.define(layout.LOT, lot, {**plan, layout.LOT_CLASS: world.entities["silver"], **ends})
        world.import_sims(2, lot)
    return world


def taken(world: World, terminals: range, expected_bytes: int = 0) -> list[str]:
    """The lots of the SIMs that the terminals are given one after the other, in the market that has the class alone."""
    found = []
    for terminal in terminals:
        (outcome,) = world.send(world.allocate(terminal, market="away", expected_bytes=expected_bytes))
        found.append(str(world.machine.sim(int(outcome["sim"][0]))["lot_name"]))
    return found


def test_the_lot_that_ends_first_is_handed_out_first() -> None:
    """Also where others have more left; what needs more than it has, gets one of the next."""
    world = dated_world({"endless": 0, "autumn": 200, "spring": 20})
    first = world.import_sims(2, "spring", opening_bytes=90 * GIB)
    assert taken(world, range(1, 9)) == ["spring"] * 4 + ["autumn"] * 2 + ["endless"] * 2
    for terminal in (3, 4, 5):
        index = world.machine.find_terminal(terminal)
        assert index is not None
        world.send(world.lease(layout.RELEASE, terminal, world.machine.terminal(index)["epoch"]))
    world.pass_ms(2 * MINUTE_MS)
    free = [sim for sim in range(world.sims_count) if world.machine.sim(sim)["occupancy"] == layout.FREE]
    assert set(first) < set(free)
    assert taken(world, range(20, 21), expected_bytes=20 * GIB) == ["autumn"]
    assert world.status(world.allocate(21, market="away", expected_bytes=20 * GIB)) == layout.NO_HEALTHY_SIM
    assert taken(world, range(22, 24)) == ["spring"] * 2
    assert world.machine.check() == []


def test_a_sim_on_probation_is_the_last_to_go_also_where_its_lot_ends_first() -> None:
    """So is one of a lot that ends between it and the trusted ones, whose groups take turns as if it were not there."""
    world = dated_world({"endless": 0, "other": 0, "spring": 20, "summer": 60})
    for sim in range(4, 8):
        world.send(world.set_health(sim, layout.THROTTLED))
    for lot in ("spring", "summer"):
        schedule(world, world.now_ms, lot=lot)
    assert healthy(world) == 8
    found = taken(world, range(1, 9))
    assert sorted(found[:2]) == sorted(found[2:4]) == ["endless", "other"]
    assert found[4:] == ["spring"] * 2 + ["summer"] * 2
    assert world.machine.check() == []


def test_lots_that_end_together_take_turns() -> None:
    world = dated_world({"one": 20, "endless": 0, "other": 20})
    assert sorted(taken(world, range(1, 3))) == ["one", "other"]
    assert sorted(taken(world, range(3, 7))) == ["endless"] * 2 + ["one", "other"]


def test_when_a_lot_ends_the_next_one_goes_first() -> None:
    world = dated_world({"endless": 0, "spring": 1, "summer": 2})
    world.pass_ms(DAY_MS + 2_000)
    assert taken(world, range(1, 5)) == ["summer"] * 2 + ["endless"] * 2
    assert world.machine.check() == []


def test_a_lot_whose_end_changes_moves_in_the_order_and_new_groups_stand_in_it() -> None:
    world = dated_world({"endless": 0, "spring": 20, "summer": 60})
    numbers = dict(enumerate(world.machine.entities(layout.LOT)[-2]["numbers"]))
    later = {layout.LOT_VALID_UNTIL_S: (world.now_ms + 90 * DAY_MS) // 1_000}
    world.define(layout.LOT, "spring", numbers | later)
    assert taken(world, range(1, 2)) == ["summer"]
    world.define(layout.LOT, "spring", numbers)
    world.import_sims(1, "spring", "bank-2")
    assert taken(world, range(2, 6)) == ["spring"] * 3 + ["summer"]
    world.define(layout.LOT, "spring", numbers | {layout.LOT_VALID_UNTIL_S: -1})
    assert world.machine.check() == []


def test_of_many_ends_those_that_come_first_are_told_apart() -> None:
    """Each lot has a SIM. Those that come after are told apart as lots end."""
    random = Random(20261125)
    world = empty_world(sims_max=128, terminals_max=128)
    places = {layout.LOT_SUPPLIER: world.entities["supplier"], layout.LOT_PLAN: world.entities["monthly"]}
    lots = {f"lot-{days}": days for days in random.sample(range(1, 365), layout.RANKS + 20)}
    for name, days in lots.items():
        end = {layout.LOT_VALID_UNTIL_S: (world.now_ms + days * DAY_MS) // 1_000}
        world.define(layout.LOT, name, {**places, layout.LOT_CLASS: world.entities["silver"], **end})
        world.import_sims(1, name)
    assert world.machine.check() == []
    in_order = sorted(lots, key=lots.__getitem__)
    told_apart = taken(world, range(1, layout.RANKS))
    assert told_apart == in_order[: layout.RANKS - 1]
    world.pass_ms(lots[in_order[20]] * DAY_MS)
    assert world.machine.check() == []
    assert taken(world, range(100, 102)) == in_order[layout.RANKS - 1 : layout.RANKS + 1]


def test_past_a_pool_with_too_little_the_next_end_goes_first() -> None:
    world = dated_world({"endless": 0, "spring": 20, "summer": 60})
    shared = {
        layout.PLAN_QUOTA_CYCLE: 4 * GIB,
        layout.PLAN_POOLED: 1,
        layout.PLAN_LOW_BYTES: 0,
        layout.PLAN_EXHAUSTED_BYTES: 0,
    }
    world.define(layout.PLAN, "shared", shared)
    numbers = dict(enumerate(world.machine.entities(layout.LOT)[-1]["numbers"]))
    first = {layout.LOT_PLAN: world.entities["shared"], layout.LOT_VALID_UNTIL_S: (world.now_ms + 10 * DAY_MS) // 1_000}
    world.define(layout.LOT, "pool", numbers | first)
    world.import_sims(2, "pool")
    assert taken(world, range(1, 2), expected_bytes=8 * GIB) == ["spring"]
    assert taken(world, range(2, 3)) == ["pool"]


def test_a_masked_lot_is_not_taken_and_first_again_afterwards() -> None:
    world = dated_world({"endless": 0, "spring": 20})
    world.send(commands.run(layout.MASK, lot=world.entities["spring"], bank=layout.NONE_SHORT, masked=1))
    assert taken(world, range(1, 2)) == ["endless"]
    world.send(commands.run(layout.MASK, lot=world.entities["spring"], bank=layout.NONE_SHORT, masked=0))
    assert taken(world, range(2, 4)) == ["spring"] * 2
    assert world.machine.check() == []


def test_a_jobs_swap_takes_the_tightest_whatever_ends_first() -> None:
    """Its check has promised each a target, the most demanding too."""
    world = dated_world({"spring": 20, "endless": 0})
    (tight,) = world.import_sims(1, "endless", opening_bytes=90 * GIB)
    taken(world, range(1, 2))
    list_job(world, 1)
    world.pass_ms(5_000)
    assert [order["target_iccid"] for order in world.orders] == [int(world.machine.sims_columns()["iccid"][tight])]


def test_a_class_of_more_groups_than_a_word_has_bits_is_walked_over() -> None:
    """Each bank makes a group of its lot; every other one's ends."""
    world = dated_world({"endless": 0, "spring": 20}, 80)
    for number in range(70):
        world.define(layout.BANK, f"rack-{number}")
        world.import_sims(1, ("endless", "spring")[number % 2], f"rack-{number}")
    assert len(world.machine.groups()) == 72
    assert world.machine.check() == []
    assert set(taken(world, range(1, 38))) == {"spring"}
    assert taken(world, range(38, 39)) == ["endless"]
    assert world.machine.check() == []

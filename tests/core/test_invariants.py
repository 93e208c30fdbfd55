"""One test for each invariant of the core, by its number, on the smallest world that shows it.

I6 is about the disk: tests/cell names it. The random walk (tests/model/test_machine.py) checks the others after every
step.
"""

from __future__ import annotations

import numpy as np
import pytest
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

from tests.model.invariants import violations
from tests.model.records import copy_regions, pack, tables
from tests.model.transitions import (
    OTHER,
    SECOND_MS,
    T,
    allocate,
    lease_epoch,
    list_job,
    new_world,
    order_swap,
    ordered_target,
    sim_index,
)
from tests.model.world import (
    COOL_DOWN_MS,
    COOLING_MS,
    DEADLINE_MS,
    GIB,
    LINE_BYTES_PER_S,
    MIB,
    STEP_MS,
    SUBSCRIBER,
    World,
    empty_world,
    replay,
)


def healthy_only(world: World, *sims: int) -> None:
    """Leaves these SIMs healthy and suspends all others."""
    for sim in range(world.sims_count):
        if sim not in sims:
            world.send(world.set_health(sim, layout.SUSPENDED))


def test_i1_a_sim_goes_to_one_terminal() -> None:
    """I1: with one SIM left the first terminal of a batch gets it and no other does, however often it is asked for."""
    world = new_world(sims=1)
    (outcome,) = world.send(world.allocate([1, 2, 3, 1]))
    assert outcome["status"].tolist() == [
        layout.OK,
        layout.NO_HEALTHY_SIM,
        layout.NO_HEALTHY_SIM,
        layout.SAME,
    ]
    assert world.status(world.adopt(2, 0)) == layout.SIM_IN_USE
    assert world.machine.sim(0)["terminal"] == 1


def test_i1_cooling_remembers_the_last_terminal() -> None:
    """I1: a SIM that cools, and one that is free again, still names who had it."""
    world = new_world(sims=1)
    world.send(world.lease(layout.RELEASE, T, allocate(world)))
    assert world.machine.sim(0)["occupancy"] == layout.COOLING
    assert world.machine.sim(0)["terminal"] == T


def test_i1_a_target_that_another_server_says_it_uses_rests_though_nobody_told_that_one_to_let_go() -> None:
    """I1: after a restart, with no order left for it: the swap is refused, and the SIM is nobody's for two leases."""
    world = new_world(orders_max=16)
    allocate(world)
    world.send(commands.run(layout.RESTART))
    world.open_session(0, ready=False)
    world.send(world.holds(0, T, lease_epoch(world), sim_index(world)), world.ready(0))
    order_swap(world)
    order = world.orders[-1]["order"]
    target = ordered_target(world)
    world.open_session(1, ready=False)
    # An eighth of all orders at a time may be of one server's word.
    others = [sim for sim in range(6) if sim not in (target, sim_index(world))]
    for number, sim in enumerate(others[:2]):
        assert world.status(world.holds(1, OTHER + number, 1, sim)) == layout.REVOKED
    assert world.status(world.holds(1, OTHER + 2, 1, target)) == layout.ORDERS_FULL
    assert world.status(world.acknowledge(order, layout.ACK_REFUSED)) == layout.OK
    assert world.machine.sim(target)["occupancy"] == layout.COOLING
    assert violations(world.tables()) == []


def test_i2_a_terminal_holds_one_sim_and_one_target() -> None:
    """I2: a second SIM is refused, and a second swap of a terminal that is in one changes nothing."""
    world = new_world()
    allocate(world)
    assert world.status(world.adopt(T, 5)) == layout.TERMINAL_IN_USE
    order_swap(world)
    (outcome,) = world.send(world.job_create())
    assert world.status(world.job_add(int(outcome["job"][0]), T)) == layout.SAME
    tables = world.tables()
    assert (tables["sims"]["occupancy"] == layout.ASSIGNED).sum() == 1
    assert (tables["sims"]["occupancy"] == layout.RESERVED).sum() == 1


@pytest.mark.parametrize("silent", [True, False], ids=["silent server", "answering server"])
def test_i3_orders_never_go_above_the_window(silent: bool) -> None:
    """I3: whatever the job and the answers, never above the window, never above 200; time frees no place."""
    terminals = 500
    world = empty_world(sims_max=1200, terminals_max=600, orders_max=600)
    world.import_sims(1200)
    world.send(world.allocate(list(range(1, terminals + 1))))
    list_job(world, *range(1, terminals + 1))
    highest = settled = 0
    for _ in range(400):
        # What is unknown is asked for again under its number.
        numbers = list(dict.fromkeys(order["order"] for order in world.orders))
        waiting = numbers[settled:]
        sent = len(numbers)
        world.now_ms += 10 * STEP_MS
        answers = [] if silent else [world.acknowledge(number, layout.ACK_DONE) for number in waiting]
        world.send(*answers, commands.run(layout.TICK))
        settled += len(answers)
        outstanding = world.machine.server(0)["outstanding"]
        known = len({order["order"] for order in world.orders})
        assert outstanding == known - settled
        assert outstanding <= layout.WINDOW_MAX
        if known > sent:
            assert outstanding <= world.machine.server(0)["window"]
        highest = max(highest, outstanding)
    if silent:
        assert known == highest <= layout.WINDOW_START, "time alone freed a place"
    else:
        assert world.machine.job(0)["confirmed_count"] == terminals
        assert highest > layout.WINDOW_START, "the window never grew, so the bound was not tried"


def test_i3_a_shrinking_window_recalls_nothing_and_a_newer_hello_fences_the_older() -> None:
    """I3: what was sent stays outstanding when the window halves; an old session's acknowledgement is stale."""
    world = empty_world(sims_max=200)
    world.import_sims(100)
    world.send(world.allocate(list(range(1, 41))))
    list_job(world, *range(1, 41))
    for _ in range(30):
        world.pass_ms(STEP_MS)
    outstanding = world.machine.server(0)["outstanding"]
    assert outstanding == layout.WINDOW_START
    world.pass_ms(DEADLINE_MS)
    assert world.machine.server(0)["window"] < layout.WINDOW_START
    assert world.machine.server(0)["outstanding"] == outstanding
    older = world.sessions[0]
    world.send(commands.run(layout.SESSION_OPEN, access_server=0))
    late = world.acknowledge(world.orders[0]["order"], layout.ACK_DONE, session=older)
    assert world.status(late) == layout.STALE_SESSION


def test_i4_only_free_healthy_sims_with_the_expected_use_left() -> None:
    """I4: of five SIMs that are each unfit in another way and one that fits, the one is handed out, and then none."""
    world = empty_world()
    quota = 100 * GIB
    world.import_sims(6, opening_bytes=[quota - 2 * GIB] * 5 + [quota - 300 * MIB])
    world.send(world.set_health(0, layout.THROTTLED))
    world.send(world.set_health(1, layout.QUARANTINED))
    assert world.status(world.adopt(OTHER, 2)) == layout.OK
    world.send(world.lease(layout.RELEASE, OTHER, lease_epoch(world, OTHER)))
    world.send(world.adopt(OTHER, 3))
    (outcome,) = world.send(world.allocate([7, 8], expected_bytes=GIB))
    assert outcome["sim"][0] == 4
    assert outcome["status"].tolist() == [layout.OK, layout.NO_HEALTHY_SIM]


def test_i4_an_unfit_target_is_replaced_when_the_order_is_sent() -> None:
    """I4: the target is chosen at the instant of sending: what became unfit while the order was queued is not taken."""
    world = new_world(sims=6)
    allocate(world)
    world.send(commands.run(layout.SWAPS_STOP))
    job = list_job(world, T)
    healthy_only(world, sim_index(world), 4, 5)
    world.send(commands.run(layout.SWAPS_LIFT))
    order = world.orders[-1]
    assert world.machine.find_sim(order["target_iccid"]) in (4, 5)
    assert world.machine.job(job)["refused_count"] == 0


def test_i5_the_index_equals_its_rebuild() -> None:
    """I5: after SIMs of every group came, went, were used up and masked, the index is what the SIM columns say."""
    world = empty_world()
    for lot in ("gold-a", "gold-b", "silver-a"):
        for bank in ("bank-1", "bank-2"):
            world.import_sims(4, lot, bank, opening_bytes=[0, GIB, 2 * GIB, 40 * GIB])
    world.send(world.allocate(list(range(1, 15))))
    for terminal in range(1, 8):
        world.send(world.usage(terminal, lease_epoch(world, terminal), 900 * MIB))
        world.send(world.lease(layout.RELEASE, terminal, lease_epoch(world, terminal)))
    everything = layout.NONE_SHORT
    world.send(commands.run(layout.MASK, 1, lot=everything, bank=world.entities["bank-1"], masked=1))
    world.pass_ms(100 * STEP_MS)
    assert world.machine.check() == []
    assert violations(world.tables()) == []


def test_i5_inside_a_tier_the_longest_rested_sim_goes_first() -> None:
    """I5: the order of a tier is the order in which its SIMs became free."""
    world = new_world(sims=4)
    (outcome,) = world.send(world.allocate([1, 2, 3, 4]))
    assert outcome["sim"].tolist() == [0, 1, 2, 3]
    for terminal in (3, 1, 4, 2):
        world.send(world.lease(layout.RELEASE, terminal, lease_epoch(world, terminal)))
        world.pass_ms(STEP_MS)
    world.pass_ms(100 * STEP_MS)
    (outcome,) = world.send(world.allocate([5, 6, 7, 8]))
    assert outcome["sim"].tolist() == [2, 0, 3, 1]


def test_i7_allocations_of_a_batch_come_before_the_dispatch_of_swaps() -> None:
    """I7: one SIM is left, a swap that could be sent and an allocation come in one batch: the allocation gets it."""
    world = empty_world()
    world.import_sims(2, "silver-a")
    (outcome,) = world.send(world.allocate(T, market="away"))
    assert outcome["status"][0] == layout.OK
    world.send(commands.run(layout.SWAPS_STOP))
    list_job(world, T)
    found = world.send(commands.run(layout.SWAPS_LIFT), world.allocate(OTHER, market="away"))
    assert found[1]["status"][0] == layout.OK
    assert world.orders == []


def test_i7_an_allocation_is_answered_at_once_with_the_reason_and_when_to_try_again() -> None:
    """I7: nothing waits in the core; the advice is jittered, so that those refused don't come back together."""
    world = new_world(sims=0)
    (outcome,) = world.send(world.allocate(list(range(1, 51))))
    assert (outcome["status"] == layout.NO_HEALTHY_SIM).all()
    base = world.machine.header()["settings"]["retry_after_ms"]
    advice = outcome["retry_after_ms"]
    assert base <= advice.min() < advice.max() <= 2 * base
    assert world.machine.header()["terminals_count"] == 0


def test_i7_swaps_leave_a_class_its_reserve() -> None:
    """I7: the class keeps one SIM that a swap doesn't get and an allocation does."""
    world = new_world(sims=2)
    allocate(world)
    list_job(world, T)
    world.pass_ms(100 * STEP_MS)
    assert world.orders == []
    (outcome,) = world.send(world.allocate(OTHER))
    assert outcome["status"][0] == layout.OK


def test_i8_each_byte_is_counted_once() -> None:
    """I8: duplicates and late reports change nothing, and the sums over SIMs, over terminals and the total agree."""
    world = new_world()
    epoch = allocate(world)
    world.now_ms += 10_000
    assert world.status(world.usage(T, epoch, 5 * MIB, 2 * MIB)) == layout.OK
    assert world.status(world.usage(T, epoch, 5 * MIB, 2 * MIB)) == layout.LATE
    assert world.status(world.usage(T, epoch, 3 * MIB)) == layout.LATE
    assert world.status(world.usage(T, epoch, 2**64 - 1, 5)) == layout.IMPOSSIBLE_USAGE
    assert world.status(world.usage(T, epoch, 10**15)) == layout.IMPOSSIBLE_USAGE
    world.send(world.set_health(sim_index(world), layout.THROTTLED))
    second = allocate(world)
    assert world.status(world.usage(T, epoch, 50 * MIB)) == layout.ENDED
    assert world.status(world.usage(T, epoch, 49 * MIB)) == layout.STALE_EPOCH
    assert world.status(world.usage(T, second, 1 * MIB)) == layout.OK
    tables = world.tables()
    assert tables["sims"]["counted_bytes"].sum() == tables["terminals"]["counted_bytes"].sum() == 51 * MIB
    header = world.machine.header()
    assert header["counted_bytes"] == 51 * MIB
    assert header["impossible_count"] == 2


def test_i8_no_more_is_counted_than_the_line_could_carry() -> None:
    """I8: in the seconds between two reports, and one more at each end, since seconds are rounded."""
    for passed_s in (0, 1, 7):
        for beyond, status in ((1, layout.IMPOSSIBLE_USAGE), (0, layout.OK)):
            world = new_world()
            epoch = allocate(world)
            told = 5 * MIB
            assert world.status(world.usage(T, epoch, told)) == layout.OK
            # One byte less than another second would be.
            most = (passed_s + 2) * LINE_BYTES_PER_S - 1
            world.now_ms += passed_s * 1_000
            assert world.status(world.usage(T, epoch, told + most + beyond)) == status, (passed_s, beyond)


def test_i8_the_final_report_of_a_lease_counts_at_its_sim_whoever_has_that_now() -> None:
    """I8: late, but the truth: to the SIM and the terminal that it belonged to; asked again it changes nothing."""
    world = new_world()
    epoch, sim = allocate(world), sim_index(world)
    assert world.status(world.lease(layout.RELEASE, T, epoch)) == layout.OK
    world.pass_ms(2 * COOLING_MS)
    assert world.status(world.adopt(OTHER, sim)) == layout.OK
    assert world.status(world.usage(T, epoch, 5 * MIB)) == layout.ENDED
    assert world.status(world.usage(T, epoch, 5 * MIB)) == layout.NO_LEASE
    tables = world.tables()
    assert tables["sims"]["counted_bytes"][sim] == 5 * MIB == tables["terminals"]["counted_bytes"].sum()
    assert world.machine.header()["set_aside_count"] == 0
    assert world.machine.check() == []
    # Also when the terminal has another lease, of another subscriber; and after a restart.
    world.send(world.adopt(T, (sim + 1) % 6, subscriber=SUBSCRIBER + 1))
    world.machine = Machine.restore(copy_regions(world.machine))
    (outcome,) = world.send(world.usage(T, epoch, 7 * MIB))
    assert (outcome["status"][0], outcome["sim"][0], outcome["counted_bytes"][0]) == (layout.ENDED, sim, 2 * MIB)
    assert outcome["subscriber"][0] == SUBSCRIBER
    # Another terminal's lease is not counted at whoever names its epoch.
    assert world.status(world.usage(OTHER, epoch, 9 * MIB)) == layout.STALE_EPOCH


def test_i8_final_reports_find_their_leases_among_those_whose_epochs_end_alike() -> None:
    """I8: they stand in one chain, the last one first; so many are looked at, and what stands behind is set aside."""
    world = new_world()
    epochs = []
    for number in range(layout.ENDED_TRIES + 2):
        regions = copy_regions(world.machine)
        records = tables(regions)
        records["header"]["epoch_next"] = (number + 1) * layout.ENDED_MAX + 5
        world.machine = Machine.restore(pack(regions, records))
        epochs.append(allocate(world))
        assert world.status(world.lease(layout.RELEASE, T, epochs[-1])) == layout.OK
        world.pass_ms(COOLING_MS)
    assert {epoch % layout.ENDED_MAX for epoch in epochs} == {5}
    assert world.machine.check() == []
    # The last one stands with its terminal, as many before it in the chain that are looked at.
    for epoch in epochs[1:]:
        assert world.status(world.usage(T, epoch, MIB)) == layout.ENDED
    assert world.status(world.usage(T, epochs[0], MIB)) in (layout.NO_LEASE, layout.STALE_EPOCH)
    assert world.machine.header()["set_aside_count"] == 1


def test_i8_of_a_lease_that_nobody_remembers_a_report_is_set_aside_and_told() -> None:
    """I8: there is room for so many leases; how much of one more was counted nobody knows."""
    world = empty_world(sims_max=4_500, terminals_max=2_500)
    world.import_sims(4_500)
    epoch = allocate(world)
    world.send(world.usage(T, epoch, 5 * MIB))
    world.pass_ms(SECOND_MS)
    world.send(world.set_health(sim_index(world), layout.THROTTLED))
    allocate(world)
    assert world.status(world.usage(T, epoch, 6 * MIB)) == layout.ENDED
    keys = np.arange(1_000, 3_000)
    world.define(layout.MARKET, "next", {layout.MARKET_FIRST_CLASS: world.entities["gold"]})
    world.pass_ms(SECOND_MS)
    for number in range(layout.ENDED_MAX // len(keys) + 3):
        world.send(world.allocate(keys, market=("home", "next")[number % 2]))
        world.pass_ms(COOLING_MS)
    assert world.status(world.usage(T, epoch, 9 * MIB)) == layout.STALE_EPOCH
    header = world.machine.header()
    assert (header["set_aside_count"], header["set_aside_bytes"], header["counted_bytes"]) == (1, 9 * MIB, 6 * MIB)
    assert world.machine.check() == []
    told = world.events[-1]
    assert (told["kind"], told["terminal"], told["a"]) == (layout.EVENT_SET_ASIDE, T, 9 * MIB)
    assert told["reason"] == layout.STALE_EPOCH


def test_i9_a_swap_keeps_its_source_until_the_target_is_confirmed() -> None:
    """I9: past its deadline a swap is unknown: it holds source, target and place until an answer comes."""
    world = new_world()
    allocate(world)
    source = sim_index(world)
    order_swap(world)
    order = world.orders[-1]
    target = world.machine.find_sim(order["target_iccid"])
    assert target is not None
    for _ in range(5):
        world.pass_ms(DEADLINE_MS)
        assert sim_index(world) == source
        assert world.machine.sim(target)["occupancy"] == layout.RESERVED
        assert world.machine.server(0)["outstanding"] == 1
    assert world.status(world.acknowledge(order["order"], layout.ACK_DONE)) == layout.OK
    assert sim_index(world) == target
    assert world.machine.sim(source)["occupancy"] == layout.COOLING
    assert world.machine.server(0)["outstanding"] == 0


def test_i9_a_refused_swap_leaves_the_terminal_as_it_was() -> None:
    """I9: a refusal in so many words gives the target back and changes neither SIM, epoch nor expiry."""
    world = new_world()
    allocate(world)
    before = world.machine.terminal(0)
    order_swap(world)
    order = world.orders[-1]
    target = world.machine.find_sim(order["target_iccid"])
    assert target is not None
    assert world.status(world.acknowledge(order["order"], layout.ACK_REFUSED)) == layout.OK
    after = world.machine.terminal(0)
    assert {**after, "order": None} == {**before, "order": None}
    assert world.machine.sim(target)["occupancy"] == layout.FREE


def test_i9_what_a_new_session_is_ordered_before_its_hello_was_compared_is_not_settled_with_the_older_ones() -> None:
    """I9: the walk that settles those comes after walks that were there first, and finds this order under way."""
    world = empty_world(sims_max=20_000)
    world.import_sims(20_000)
    allocate(world)
    allocate(world, OTHER)
    list_job(world, T)
    for _ in range(8):
        world.pass_ms(STEP_MS)
    assert world.machine.server(0)["outstanding"] == 1
    world.open_session(0, ready=False)
    named = world.holds(0, OTHER, lease_epoch(world, OTHER), sim_index(world, OTHER))
    assert world.status(named) == layout.SAME
    list_job(world, OTHER)
    for _ in range(8):
        world.pass_ms(STEP_MS)
    sent = len(world.orders)
    world.send(world.job_create(selecting=1, health_mask=1 << layout.SUSPENDED), world.ready(0))
    world.pass_ms(STEP_MS)
    (order,) = world.orders[sent:]
    assert order["terminal"] == OTHER
    assert world.machine.server(0)["outstanding"] == 2, "the walk has not come by"
    for _ in range(16):
        world.pass_ms(STEP_MS)
    assert not world.machine.header()["sweeps_count"]
    assert world.machine.terminal(0)["sim"] is None, "the hello did not name it: its lease is over, and its swap"
    assert world.machine.server(0)["outstanding"] == 1
    assert world.status(world.acknowledge(order["order"], layout.ACK_DONE)) == layout.OK
    assert world.machine.sim(sim_index(world, OTHER))["iccid"] == order["target_iccid"]


def test_a_cancelled_job_sends_nothing_more() -> None:
    """What is outstanding at the cancel finishes; when it is refused or the server is busy, it is not sent again."""
    for result in (layout.ACK_REFUSED, layout.ACK_BUSY):
        world = new_world()
        allocate(world)
        job = order_swap(world)
        assert world.status(world.job(layout.JOB_CANCEL, job)) == layout.OK
        assert world.status(world.acknowledge(world.orders[-1]["order"], result)) == layout.OK
        for _ in range(50):
            world.pass_ms(50 * STEP_MS)
        switches = [order for order in world.orders if order["kind"] == layout.SWITCH]
        assert len(switches) == 1, f"an order of a cancelled job was sent again after {result}"


def test_an_orphaned_switch_that_was_carried_out_is_stopped_after_a_reconnect() -> None:
    """The access server switched, lost its session, says so in its hello: the target is not free until it lets go."""
    world = new_world()
    epoch = allocate(world)
    order_swap(world)
    order = world.orders[-1]
    target = world.machine.find_sim(order["target_iccid"])
    assert target is not None
    assert world.status(world.lease(layout.RELEASE, T, epoch)) == layout.OK
    world.open_session(0, ready=False)
    world.send(world.holds(0, T, order["epoch"], target))
    world.send(world.ready(0))
    for _ in range(5):
        world.pass_ms(10 * STEP_MS)
    assert world.machine.sim(target)["held"], "the access server holds the SIM, and it may be handed out"
    assert world.orders[-1]["source_iccid"] == order["target_iccid"]
    assert world.orders[-1]["kind"] in (layout.STOP, layout.REVOKE)


def test_the_cool_down_of_a_terminal() -> None:
    """A terminal is not swapped twice within its cool-down, unless its SIM is throttled."""
    world = new_world()
    allocate(world)
    order_swap(world)
    world.send(world.acknowledge(world.orders[-1]["order"], layout.ACK_DONE))
    (outcome,) = world.send(world.job_create())
    job = int(outcome["job"][0])
    assert world.status(world.job_add(job, T)) == layout.RESTING
    world.pass_ms(COOL_DOWN_MS)
    world.send(world.lease(layout.RENEW, T, lease_epoch(world)))
    assert world.status(world.job_add(job, T)) == layout.OK


def test_i10_the_same_commands_give_the_same_state() -> None:
    """I10: a replay has the same outcomes and the same state hash, and so has a machine restored on the way."""
    world = new_world()
    allocate(world)
    order_swap(world)
    restored = Machine.restore(copy_regions(world.machine))
    middle = len(world.records)
    world.send(world.acknowledge(world.orders[-1]["order"], layout.ACK_DONE))
    world.pass_ms(1_000 * STEP_MS)
    fresh = Machine(64, 64, 64)
    replay(world.records, fresh)
    replay(world.records[middle:], restored)
    assert fresh.state_hash() == restored.state_hash() == world.machine.state_hash()


@pytest.mark.parametrize("end", ["close", "restart"])
def test_a_session_that_ends_while_it_is_compared_ends_no_lease(end: str) -> None:
    """Fail static: hello, READY and the session's end come in one batch; the terminal that was named keeps its SIM."""
    world = new_world()
    epoch = allocate(world)
    held = sim_index(world)
    world.open_session(0, ready=False)
    last = world.close(0) if end == "close" else commands.run(layout.RESTART)
    world.send(world.holds(0, T, epoch, held), world.ready(0), last)
    world.pass_ms(STEP_MS)
    assert world.machine.terminal(0)["sim"] == held
    assert world.machine.sim(held)["occupancy"] == layout.ASSIGNED

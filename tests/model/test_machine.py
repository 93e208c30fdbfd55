"""The machine against the naive model: random walks with all invariants after every step, and replay (I10)."""

from __future__ import annotations

import os
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

from tests.model.books import DAY_MS
from tests.model.records import copy_regions, tables
from tests.model.things import Mismatch
from tests.model.walk import Walk
from tests.model.world import DEADLINE_MS, MIB, STEP_MS, SUBSCRIBER, replay

# 100,000 commands over all seeds; more when asked for: SIMSWITCH_WALK_COMMANDS=1000000.
COMMANDS = int(os.environ.get("SIMSWITCH_WALK_COMMANDS", "100000"))
SEEDS = range(10)

WANTED = {
    (layout.ALLOCATE, layout.OK),
    (layout.ALLOCATE, layout.SAME),
    (layout.ALLOCATE, layout.MOVED),
    (layout.ALLOCATE, layout.NO_HEALTHY_SIM),
    (layout.RENEW, layout.OK),
    (layout.RELEASE, layout.OK),
    (layout.REPORT_USAGE, layout.OK),
    (layout.REPORT_USAGE, layout.LATE),
    (layout.REPORT_USAGE, layout.ENDED),
    (layout.REPORT_USAGE, layout.IMPOSSIBLE_USAGE),
    (layout.REPORT_ATTACH_FAILURE, layout.MOVED),
    (layout.SESSION_HOLDS, layout.SAME),
    (layout.SESSION_HOLDS, layout.REVOKED),
    (layout.ACKNOWLEDGE, layout.OK),
    (layout.ACKNOWLEDGE, layout.LATE),
    (layout.ACKNOWLEDGE, layout.STALE_SESSION),
    (layout.CARRIER_USAGE, layout.OK),
    (layout.CARRIER_USAGE, layout.SAME),
    (layout.CARRIER_USAGE, layout.LATE),
    (layout.CARRIER_USAGE, layout.PAST_WINDOW),
    (layout.CARRIER_USAGE, layout.IMPOSSIBLE_USAGE),
    (layout.CARRIER_USAGE, layout.NO_WINDOW),
    (layout.POOL_USAGE, layout.OK),
    (layout.POOL_USAGE, layout.SAME),
    (layout.POOL_USAGE, layout.LATE),
    (layout.POOL_USAGE, layout.PAST_WINDOW),
    (layout.POOL_USAGE, layout.IMPOSSIBLE_USAGE),
    (layout.POOL_USAGE, layout.NO_WINDOW),
    (layout.DECLARE_DEAD, layout.OK),
    (layout.SERVER_PAUSE, layout.OK),
    (layout.SERVER_RESUME, layout.OK),
    (layout.ALLOCATE, layout.LIMIT_REACHED),
    (layout.RENEW, layout.LIMIT_REACHED),
    (layout.EXEMPT, layout.OK),
    (layout.CARRIER_LIFE, layout.OK),
    (layout.DEFINE, layout.OK),
    (layout.DEFINE, layout.WRONG_STATE),
    (layout.JOB_ADD, layout.OK),
    (layout.JOB_APPROVE, layout.OK),
    (layout.JOB_APPROVE, layout.SECOND_PERSON),
    (commands.ORDERS, layout.SWITCH),
    (commands.ORDERS, layout.STOP),
    (commands.ORDERS, layout.REVOKE),
    (commands.EVENTS, layout.EVENT_ANNOUNCED),
    (commands.EVENTS, layout.EVENT_WITHDRAWN),
    (commands.EVENTS, layout.EVENT_ORDERED),
    (commands.EVENTS, layout.EVENT_REFUSED),
    (commands.EVENTS, layout.EVENT_BREAKER),
    (commands.EVENTS, layout.EVENT_PAUSE),
    (commands.EVENTS, layout.EVENT_SET_ASIDE),
    (commands.EVENTS, layout.EVENT_UNREPORTED),
    (commands.EVENTS, layout.EVENT_CAP_CHANGED),
    (commands.EVENTS, layout.EVENT_LIMIT),
    (commands.EVENTS, layout.EVENT_EXEMPT),
    (commands.EVENTS, layout.EVENT_CONFIRMED),
    (commands.EVENTS, layout.EVENT_TRAFFIC),
    (commands.EVENTS, layout.EVENT_UNMEASURED),
    (commands.EVENTS, layout.EVENT_DIFFERENCE),
    (commands.EVENTS, layout.EVENT_JOB),
}
"""What the walks must have met, or they prove little."""
MET: dict[int, set[tuple[int, int]]] = {}
"""By seed."""
EARLY: dict[int, int] = {}
"""Windows of SIMs that began before their turn, since something was counted on them."""


@pytest.mark.parametrize(("seed", "ends_ms"), [(0, 30 * DAY_MS), (0, DAY_MS + DAY_MS // 48), (3, 30 * DAY_MS)])
def test_slowed_sims_of_lots_without_resets_are_tried_as_the_model_does(seed: int, ends_ms: int) -> None:
    """Days at a time, which no random walk lives to see. Some are in use or let go of, others slowed again at once.
    In the second walk a lot ends while its SIMs are tried, in the third one it is prepaid: its SIMs are not tried."""
    walk = Walk(seed, keeps_records=False, ends_ms=(30 * DAY_MS, ends_ms))
    world, tried = walk.world, Counter[int]()
    walk.apply(world.allocate([7_001, 7_002]))
    for day in range(4):
        for sim in range(0, 40, 2 + day):
            walk.apply(world.set_health(sim, layout.THROTTLED))
            world.now_ms += 10_240
        if day == 2:
            walk.apply(commands.run(layout.RESTART))
        world.now_ms += 86_400_000 - 600_000
        for _ in range(40):
            world.now_ms += 153_600
            before = walk.machine.sims_columns()["health"]
            walk.apply(commands.run(layout.TICK))
            back = np.flatnonzero((before == layout.THROTTLED) & (walk.machine.sims_columns()["health"] != before))
            tried.update(walk.machine.sims_columns()["lot"][back].tolist())
            for sim in back[::3].tolist():
                walk.apply(world.set_health(sim, layout.THROTTLED))
    assert tried.total() > 20
    assert (tried[world.entities["gold-a"]] == 0) == (seed == 3)
    ended = int(walk.machine.lot(world.entities["gold-a"])["validity"]) == layout.NO_LONGER_VALID
    assert ended == (ends_ms < 2 * DAY_MS)
    assert (commands.EVENTS, layout.EVENT_ENDLESS) in walk.answers


@pytest.mark.parametrize("seed", [2, 3, 7])
def test_days_on_which_nobody_was_there_turn_windows_as_in_the_model(seed: int) -> None:
    """Late, by several days at once, or while the clock is frozen; figures of windows and of single days follow."""
    walk = Walk(seed, keeps_records=False, ends_ms=(400 * DAY_MS, 400 * DAY_MS))
    drawn, world, several = random.Random(seed), walk.world, 0
    for _ in range(30):
        at_ms = world.now_ms + drawn.randrange(1, DAY_MS)
        for window in (layout.WINDOW_DAY, layout.WINDOW_ROLLING):
            walk.apply(world.schedule("gold-b", window, at_ms, drawn.choice((0, DAY_MS // 24))))
        for _ in range(4):
            walk.step()
        frozen = drawn.random() < 0.3
        if frozen:
            walk.apply(commands.run(layout.FREEZE))
        for away_ms in (drawn.choice((DAY_MS // 2, DAY_MS, 2 * DAY_MS, 5 * DAY_MS)), DAY_MS // 20, STEP_MS):
            world.now_ms += away_ms
            walk.apply(commands.run(layout.TICK))
        if frozen:
            walk.step()
            walk.apply(commands.run(layout.THAW))
        for _ in range(6):
            world.now_ms += STEP_MS
            walk.apply(walk.figure())
            walk.apply(walk.pool_figure())
        several += len(walk.model.lots[world.entities["gold-b"]].turn) > 1
    assert several > 5


@pytest.mark.parametrize("seed", [3, 11])
def test_figures_below_our_count_take_off_their_pool_what_they_do_in_the_model(seed: int) -> None:
    """Of single SIMs and their days, of the pool's days; while windows begin bit by bit, and after."""
    walk = Walk(seed, keeps_records=False, ends_ms=(400 * DAY_MS, 400 * DAY_MS))
    drawn, world, lot = random.Random(seed), walk.world, walk.world.entities["gold-b"]
    void: Counter[tuple[int, bool]] = Counter()

    def apply(*batch: bytes) -> None:
        walk.apply(b"".join(batch))
        for window in range(layout.WINDOWS):
            if walk.model.pool_void(lot, window) < 0:
                void[window, window in walk.model.lots[lot].resets] += 1

    for _ in range(60):
        for _ in range(4):
            walk.step()
        world.now_ms += drawn.choice((STEP_MS, DAY_MS // 3, DAY_MS))
        apply(commands.run(layout.TICK))
        mine = [sim for sim in walk.model.sims if sim.lot == lot]
        if drawn.random() < 0.5:
            told, counted = walk.model.pool_used(lot, 1) + MIB, sum(sim.counted_bytes for sim in mine)
            apply(world.pool_figure("gold-b", told, counted, world.now_ms // 1000, layout.WINDOW_DAY))
        for window in drawn.sample(range(1, layout.WINDOWS + 1), 2):
            for sim in drawn.sample(mine, 3):
                own = sim.counted_bytes + sim.offsets[window - 1]
                told = max(own - drawn.choice((1, MIB, 300 * MIB)), 0)
                apply(world.figure(sim.index, told, sim.counted_bytes, world.now_ms // 1000, window))
            if drawn.random() < 0.5:
                apply(world.schedule("gold-b", window, world.now_ms + 1, drawn.choice((0, 200 * STEP_MS))))
                for _ in range(drawn.choice((1, 8))):
                    world.now_ms += 30 * STEP_MS
                    apply(walk.usage(), walk.usage())
            ended_s = walk.model.today_begun_s(walk.model.lots[lot]) - drawn.choice((0, DAY_MS // 1000))
            apply(world.pool_figure("gold-b", drawn.choice((0, 300 * MIB)), 0, ended_s, layout.ROLLING_DAY))
    assert {(0, True), (1, True), (2, True), (2, False)} <= set(void), void


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.timeout(600)
def test_random_walk_agrees_with_the_model(seed: int) -> None:
    """I1 I2 I3 I4 I5 I7 I8 I9: the walk checks each after every batch; a failure names the seed and how far it came."""
    walk = Walk(seed, keeps_records=False)
    try:
        while walk.commands_count < COMMANDS // len(SEEDS):
            walk.step()
    except Mismatch as mismatch:
        raise AssertionError(f"seed {seed}, after {walk.commands_count} commands: {mismatch}") from mismatch
    MET[seed] = set(walk.answers)
    EARLY[seed] = walk.model.early_count


def test_a_promise_breaks_also_while_its_job_is_paused() -> None:
    """Swaps are stopped besides, so its instant passes; too rare in the walks."""
    walk = Walk(0, keeps_records=False)
    world = walk.world
    walk.apply(world.allocate([7_001, 7_002]))
    walk.apply(world.job_create(announce_ahead_ms=40 * STEP_MS, on_infeasible=layout.INFEASIBLE_PROCEED))
    walk.apply(world.job_add(0, 7_001) + world.job_add(0, 7_002))
    walk.apply(world.job(layout.JOB_RESUME, 0))
    for steps in (1, 1, 1, 50):
        if steps > 1:
            assert walk.machine.job(0)["announced_count"] == 2
            walk.apply(world.job(layout.JOB_PAUSE, 0) + commands.run(layout.SWAPS_STOP))
        world.now_ms += steps * STEP_MS
        walk.apply(commands.run(layout.TICK))
    assert walk.machine.job(0)["announced_count"] == 0


def test_an_order_that_nobody_answers_is_overdue() -> None:
    """Walks answer so soon that few meet it; the walk goes on from there."""
    walk = Walk(0, keeps_records=False)
    world = walk.world
    walk.apply(world.allocate([7_001, 7_002]))
    walk.apply(world.job_create(on_infeasible=layout.INFEASIBLE_PROCEED))
    walk.apply(world.job_add(0, 7_001) + world.job_add(0, 7_002))
    walk.apply(world.job(layout.JOB_RESUME, 0))
    for _ in range(4 * DEADLINE_MS // STEP_MS):
        world.now_ms += STEP_MS
        walk.apply(commands.run(layout.TICK))
    assert (commands.EVENTS, layout.EVENT_ORDERED) in walk.answers
    assert (commands.EVENTS, layout.EVENT_OVERDUE) in walk.answers
    while walk.commands_count < 500:
        walk.step()


def test_a_lease_that_time_ended_goes_on_in_the_same_apply() -> None:
    """Its access server names it in the very batch before which nobody had asked for an hour; too rare in the walks."""
    walk = Walk(0, keeps_records=False)
    world = walk.world
    walk.apply(world.allocate(7_001))
    index = walk.machine.find_terminal(7_001)
    assert index is not None
    terminal = walk.machine.terminal(index)
    walk.apply(commands.run(layout.SESSION_OPEN, access_server=0))
    world.sessions[0] = walk.machine.server(0)["session"]
    world.now_ms += walk.machine.header()["settings"]["lease_ms"] + 60 * STEP_MS
    walk.apply(world.holds(0, 7_001, terminal["epoch"], terminal["sim"]))
    assert (layout.SESSION_HOLDS, layout.OK) in walk.answers


def test_a_lease_that_is_over_may_end_because_nobody_names_it() -> None:
    """Nobody could be told when it was over; before time is asked again its access server is back, without it."""
    walk = Walk(0, keeps_records=False)
    world = walk.world
    walk.apply(world.allocate(7_001))
    walk.apply(commands.run(layout.SESSION_CLOSE, access_server=0, argument=world.sessions[0]))
    world.now_ms += walk.machine.header()["settings"]["lease_ms"] + 2 * STEP_MS
    walk.apply(commands.run(layout.TICK))
    walk.apply(commands.run(layout.SESSION_OPEN, access_server=0))
    world.sessions[0] = walk.machine.server(0)["session"]
    world.now_ms += STEP_MS
    walk.apply(world.ready(0, world.sessions[0]))
    assert (commands.EVENTS, layout.EVENT_DIFFERENCE) in walk.answers


def test_one_persons_day_goes_no_further_than_its_field() -> None:
    walk = Walk(0, keeps_records=False)
    world = walk.world
    walk.apply(commands.run(layout.CONFIGURE, 1, setting=layout.LINE_BYTES_PER_S, value=1 << 40))
    walk.apply(world.allocate(7_001))
    index = walk.machine.find_terminal(7_001)
    assert index is not None
    epoch = walk.machine.terminal(index)["epoch"]
    for total in (3 << 40, 6 << 40):
        world.now_ms += 100 * STEP_MS
        walk.apply(world.usage(7_001, epoch, total))
    record = walk.machine.subscriber(SUBSCRIBER)
    assert record is not None
    assert record["day_bytes"] == (1 << 42) - 1
    assert record["month_bytes"] == 6 << 40


def awaited(walk: Walk) -> int:
    return int(tables(copy_regions(walk.machine))["header"][0]["reports_awaited"])


def test_what_was_heard_of_a_lease_before_time_ended_it_is_not_kept() -> None:
    """It goes on by its access server's word, which lets go of it soon after: the last report is waited for."""
    walk = Walk(0, keeps_records=False)
    world = walk.world
    walk.apply(world.allocate(7_001))
    index = walk.machine.find_terminal(7_001)
    assert index is not None
    terminal = walk.machine.terminal(index)
    lease_ms = walk.machine.header()["settings"]["lease_ms"]
    world.now_ms += lease_ms * 3 // 4
    walk.apply(world.usage(7_001, terminal["epoch"], 0))
    world.now_ms += lease_ms // 4 + STEP_MS
    walk.apply(commands.run(layout.SESSION_OPEN, access_server=0))
    world.sessions[0] = walk.machine.server(0)["session"]
    walk.apply(world.holds(0, 7_001, terminal["epoch"], terminal["sim"]))
    assert awaited(walk) == 0
    walk.apply(world.lease(layout.RELEASE, 7_001, terminal["epoch"], 0))
    assert awaited(walk) == 1


def test_the_walks_met_what_they_must() -> None:
    if len(MET) < len(SEEDS):
        pytest.skip("not all walks were made")
    never = WANTED - set[tuple[int, int]]().union(*MET.values())
    assert not never, f"no walk met {never}"
    assert sum(EARLY.values()) > 0, "nothing was counted on a SIM before its turn in a reset"


@pytest.mark.parametrize("seed", [100, 101])
def test_i10_replay_gives_the_same_outcomes_and_state(seed: int) -> None:
    """I10: the same commands in a fresh machine give the same outcome hashes and the same state hash."""
    walk = Walk(seed)
    first = Walk(seed)
    while walk.commands_count < 2_000:
        walk.step()
        first.step()
    assert [record.outcome_hash for record in walk.world.records] == [
        record.outcome_hash for record in first.world.records
    ]
    assert walk.machine.state_hash() == first.machine.state_hash()


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
def test_i10_a_restored_snapshot_has_the_same_hash_and_the_same_future(cut: float) -> None:
    """I10: what a snapshot leaves out does not matter for anything that follows."""
    walk = Walk(7)
    while len(walk.world.records) < int(600 * cut):
        walk.step()
    restored = Machine.restore(copy_regions(walk.machine))
    assert restored.state_hash() == walk.machine.state_hash()
    assert restored.check() == []
    begun = len(walk.world.records)
    while len(walk.world.records) < 600:
        walk.step()
    replay(walk.world.records[begun:], restored)
    assert restored.state_hash() == walk.machine.state_hash()


class MachineRules(RuleBasedStateMachine):
    """The same commands as the walk's, chosen one by one by Hypothesis, which shrinks what fails."""

    walk: Walk

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        self.walk = Walk(seed, sims=12, keeps_records=False)

    @rule()
    def time_passes(self) -> None:
        self.walk.pass_time()

    @rule(seed=st.integers(0, 2**16))
    def allocate(self, seed: int) -> None:
        self._apply(seed, "allocate")

    @rule(seed=st.integers(0, 2**16), kind=st.sampled_from(("renew", "release", "usage", "attach_failure", "adopt")))
    def on_lease(self, seed: int, kind: str) -> None:
        self._apply(seed, kind)

    @rule(seed=st.integers(0, 2**16), kind=st.sampled_from(("job_create", "job_add", "job_change", "acknowledge")))
    def swap(self, seed: int, kind: str) -> None:
        self._apply(seed, kind)

    @rule(
        seed=st.integers(0, 2**16),
        kind=st.sampled_from(("session_open", "session_holds", "session_ready", "session_close")),
    )
    def session(self, seed: int, kind: str) -> None:
        self._apply(seed, kind)

    @rule(
        seed=st.integers(0, 2**16),
        kind=st.sampled_from(
            (
                *("set_health", "mask", "schedule", "freeze_or_thaw", "stop_or_lift", "report_load", "mend"),
                *("limit_rule", "exempt"),
            )
        ),
    )
    def pool(self, seed: int, kind: str) -> None:
        self._apply(seed, kind)

    @rule(
        seed=st.integers(0, 2**16),
        kinds=st.lists(st.sampled_from(("allocate", "release", "acknowledge", "usage")), min_size=2, max_size=6),
    )
    def batch(self, seed: int, kinds: list[str]) -> None:
        self._apply(seed, *kinds)

    def _apply(self, seed: int, *kinds: str) -> None:
        self.walk.random.seed(seed)
        self.walk.apply(b"".join(getattr(self.walk, kind)() for kind in kinds))


def test_machine_rules() -> None:
    """I1 I2 I3 I4 I5 I7 I8 I9, with Hypothesis choosing the steps."""
    run_state_machine_as_test(
        MachineRules,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )

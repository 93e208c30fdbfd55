"""What the learner posts of a history made by hand, to a real service: once, and after a restart what had no answer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from simswitch.caps.evidence import Observations, gathered
from simswitch.caps.learner import Learner, observed
from simswitch.caps.tiers import Findings, find
from simswitch.cli.amounts import bytes_text
from simswitch.cli.events import details
from simswitch.cli.learned import find_learned
from simswitch.cli.messages import plain
from simswitch.client import OperatorClient
from simswitch.core import commands, layout
from simswitch.history.schema import open_writer
from simswitch.v1 import caps_pb2, event_pb2, inventory_pb2, pool_pb2, sim_pb2

from tests.caps.carrier import BEGIN_MS, DAY_MS
from tests.caps.test_tiers import seen
from tests.service.serving import Serving, define

DAY = inventory_pb2.CAP_WINDOW_KIND_DAY
BELIEVED = inventory_pb2.CERTAINTY_BELIEVED
LOT = 4


@dataclass
class Life:
    operator: OperatorClient
    as_learner: OperatorClient
    history: sqlite3.Connection
    serving: Serving
    said: list[str] = field(default_factory=list)

    def learner(self) -> Learner:
        return Learner(self.as_learner, self.said.append)

    def decided(self, sim: int, at_ms: int, throttled: int = 1) -> None:
        row = (iccid(sim), at_ms, LOT, throttled, 950, 4, 900, 997 * throttled)
        self.history.execute("INSERT INTO throttles VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def history_is_at(self, at_ms: int) -> None:
        self.history.execute("INSERT OR REPLACE INTO positions VALUES ('caps', 1, ?, 0, x'00')", (at_ms,))

    def observe(self, observations: Observations) -> None:
        columns = (
            observations.lot + LOT, observations.sim, observations.window, observations.at_ms,
            observations.lower_bytes, observations.upper_bytes, observations.upper_bytes == 0,
            observations.goodput_kbps,
        )  # fmt: skip
        for row in zip(*(column.astype(np.int64).tolist() for column in columns), strict=True):
            self.history.execute("INSERT OR IGNORE INTO observations VALUES (?, ?, ?, ?, ?, nullif(?, 0), ?, ?)", row)

    def health(self, sim: int) -> int:
        found = self.operator.inventory.GetSim(inventory_pb2.GetSimRequest(iccid=f"89{10**15 + sim:017d}"))
        return found.sim.health

    def told(self, kind: event_pb2.EventKind.ValueType) -> list[event_pb2.Event]:
        request = event_pb2.WatchEventsRequest(after=0, kinds=[kind], once=True)
        return [event for response in self.operator.events.WatchEvents(request) for event in response.events]

    def day_quota(self) -> int | None:
        (lot,) = self.operator.caps.ListLotCaps(caps_pb2.ListLotCapsRequest(lot="lot")).lots
        return next((window.quota_bytes for window in lot.windows if window.window == DAY), None)


def iccid(sim: int) -> int:
    return 2 * (10**15 + sim)


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    serving = Serving(tmp_path / "data")
    history = open_writer(tmp_path)
    history.execute("INSERT INTO entities VALUES (?, ?, 'lot')", (LOT, int(layout.LOT)))
    try:
        with (
            OperatorClient(serving.address) as operator,
            OperatorClient(serving.address, actor="learner:local") as learner,
        ):
            define(operator)
            yield Life(operator, learner, history, serving)
    finally:
        history.close()
        serving.end()


def test_a_decision_is_posted_once_and_of_each_sim_the_last(life: Life) -> None:
    for sim in range(3):
        life.decided(sim, BEGIN_MS + sim)
    life.decided(1, BEGIN_MS + 500, throttled=0)
    learner = life.learner()
    assert learner.decide(life.history) == 3
    assert [life.health(sim) for sim in range(3)] == [
        sim_pb2.HEALTH_THROTTLED, sim_pb2.HEALTH_HEALTHY, sim_pb2.HEALTH_THROTTLED,
    ]  # fmt: skip
    told = life.told(event_pb2.EVENT_KIND_HEALTH)
    assert [(event.goodput_kbps, event.windows_count, event.confidence_permille) for event in told] == [
        (950, 4, 997)
    ] * 2
    assert learner.decide(life.history) == 0
    # Another, before history knows: the same once more changes nothing.
    assert life.learner().decide(life.history) == 3
    assert life.told(event_pb2.EVENT_KIND_HEALTH) == told
    life.decided(2, BEGIN_MS + 600, throttled=0)
    assert learner.decide(life.history) == 1
    assert life.health(2) == sim_pb2.HEALTH_HEALTHY


def reset(life: Life, window: int, spread_ms: int, late_ms: int = 0) -> tuple[int, int]:
    """A window of the lot begins anew now, and has for all of its SIMs. When it began, and when it had."""
    cell = life.serving.cell
    reset_ms = cell.call_read(lambda machine: machine.now_ms) - late_ms
    (entity,) = cell.call_read(lambda machine: [each["index"] for each in machine.entities(layout.LOT)])
    cell.call(commands.run(layout.SCHEDULE, lot=entity, window=window, at_ms=reset_ms, spread_ms=spread_ms))
    while cell.call_read(lambda machine: machine.lot(entity)["resetting"][window - 1]):
        pass
    # No other is known: what is said of the next one's spread is nothing of the last one's.
    cell.call(commands.run(layout.SCHEDULE, lot=entity, window=window, at_ms=0, spread_ms=0))
    found = cell.call_read(lambda machine: machine.lot(entity))
    return int(found["begun_ms"][window - 1]), int(found["ended_ms"][window - 1])


@pytest.mark.parametrize("late_ms", [0, 1_000])
def test_who_was_seen_slowed_before_its_window_began_anew_stays_in_use(life: Life, late_ms: int) -> None:
    """Also where the service did not run at the reset's instant, or its clock was not confirmed: it begins later."""
    spread_ms = 200 + 2 * late_ms
    reset_ms, ended_ms = reset(life, layout.WINDOW_CYCLE, spread_ms, late_ms)
    assert reset_ms + 1 < ended_ms
    life.history_is_at(reset_ms)
    there = life.learner()
    assert there.decide(life.history) == 0
    life.decided(0, reset_ms - 1)
    life.decided(1, ended_ms - 1)
    life.decided(2, ended_ms)
    life.decided(3, reset_ms - 1, throttled=0)
    life.history_is_at(ended_ms)
    late = life.learner()
    assert late.decide(life.history) == 2
    healths = [sim_pb2.HEALTH_HEALTHY, sim_pb2.HEALTH_HEALTHY, sim_pb2.HEALTH_THROTTLED, sim_pb2.HEALTH_HEALTHY]
    assert [life.health(sim) for sim in range(4)] == healths
    assert "2 SIMs that were seen slowed before their window began anew stay in use" in life.said
    assert late.decide(life.history) == 0
    # One that was there all the time: a SIM that is slow right after its own reset is seen so, though others wait.
    assert there.decide(life.history) == 3
    assert [life.health(sim) for sim in (0, 1)] == [sim_pb2.HEALTH_HEALTHY, sim_pb2.HEALTH_THROTTLED]


def test_a_rolling_window_that_lets_go_of_a_day_has_not_begun_anew(life: Life) -> None:
    window = inventory_pb2.CapWindow(kind=inventory_pb2.CAP_WINDOW_KIND_ROLLING, quota_bytes=10**10, days=3)
    plan = inventory_pb2.Plan(name="plan", carrier="carrier", windows=[window])
    life.operator.inventory.DefinePlan(inventory_pb2.DefinePlanRequest(plan=plan))
    reset_ms, _ = reset(life, layout.WINDOW_ROLLING, 0)
    life.decided(0, reset_ms - 1)
    assert life.learner().decide(life.history) == 1
    assert life.health(0) == sim_pb2.HEALTH_THROTTLED


def test_what_had_no_answer_for_a_day_is_not_posted_though_nothing_came_after_it(life: Life) -> None:
    life.decided(0, BEGIN_MS)
    life.history_is_at(BEGIN_MS + 2 * DAY_MS)
    assert life.learner().decide(life.history) == 0
    life.decided(1, BEGIN_MS + 2 * DAY_MS - 1)
    assert life.learner().decide(life.history) == 1
    assert [life.health(sim) for sim in (0, 1)] == [sim_pb2.HEALTH_HEALTHY, sim_pb2.HEALTH_THROTTLED]


def test_whose_word_came_later_holds(life: Life) -> None:
    life.decided(0, BEGIN_MS)
    life.decided(1, BEGIN_MS)
    word = (iccid(0), BEGIN_MS + 1, int(layout.HEALTHY), 0, 0, 0)
    life.history.execute("INSERT INTO health VALUES (?, ?, ?, ?, ?, ?, 0, '')", word)
    assert life.learner().decide(life.history) == 1
    assert [life.health(sim) for sim in (0, 1)] == [sim_pb2.HEALTH_HEALTHY, sim_pb2.HEALTH_THROTTLED]


def test_more_decisions_at_one_instant_than_a_call_takes_are_all_posted(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simswitch.caps.learner.POSTED_MAX", 3)
    for sim in range(10):
        life.decided(sim, BEGIN_MS)
    learner = life.learner()
    assert [learner.decide(life.history) for _ in range(5)] == [3, 3, 3, 1, 0]
    assert len(life.told(event_pb2.EVENT_KIND_HEALTH)) == 10


def test_what_a_person_took_out_of_use_stays_out(life: Life) -> None:
    out = inventory_pb2.SetSimHealthRequest(iccid=[iccid(0)], health=sim_pb2.HEALTH_QUARANTINED)
    life.operator.inventory.SetSimHealth(out)
    for at_ms, throttled in ((BEGIN_MS, 1), (BEGIN_MS + 5, 0)):
        life.decided(0, at_ms, throttled)
        life.learner().decide(life.history)
        assert life.health(0) == sim_pb2.HEALTH_QUARANTINED
    assert life.said == [
        "0 of 1 SIMs that were seen slowed have another health now",
        "0 of 1 SIMs that were seen no longer slowed have another health now",
    ]


def test_a_cap_is_set_by_its_lower_quantile_and_only_when_it_moved(life: Life) -> None:
    random = np.random.default_rng(1)
    life.observe(gathered([seen(random, day, 3.0, 950, first=100 * day) for day in range(3)]))
    learner = life.learner()
    assert learner.learn(life.history) == 1
    quota = life.day_quota()
    assert quota is not None
    assert 2.7e9 < quota < 3.0e9
    assert learner.learn(life.history) == 0
    assert life.learner().learn(life.history) == 1
    assert len([event for event in life.told(event_pb2.EVENT_KIND_CAP) if event.window == DAY]) == 1
    assert len(life.said) == 1
    # A percent more or less is the same cap.
    life.observe(seen(random, 3, 3.01, 950, first=900))
    assert learner.learn(life.history) == 1
    assert life.day_quota() == quota


def test_no_cap_is_learned_while_a_jump_of_the_clock_is_not_confirmed(life: Life) -> None:
    random = np.random.default_rng(1)
    life.observe(gathered([seen(random, day, 3.0, 950, first=100 * day) for day in range(3)]))
    life.serving.cell.call(commands.run(layout.FREEZE))
    learner = life.learner()
    for look in (learner.learn, learner.learn_soon):
        assert look(life.history) == 0
    (said,) = life.said
    assert "no caps are learned until then" in said
    assert not life.day_quota()
    life.operator.pool.ConfirmClock(pool_pb2.ConfirmClockRequest())
    assert learner.learn(life.history) == 1
    assert life.day_quota()


def test_a_contractual_cap_is_only_lowered(life: Life) -> None:
    def agreed(gigabytes: float) -> None:
        window = inventory_pb2.CapWindow(
            kind=DAY, quota_bytes=int(gigabytes * 1e9), certainty=inventory_pb2.CERTAINTY_CONTRACTUAL
        )
        plan = inventory_pb2.Plan(name="plan", carrier="carrier", windows=[window])
        life.operator.inventory.DefinePlan(inventory_pb2.DefinePlanRequest(plan=plan))

    agreed(2.0)
    random = np.random.default_rng(2)
    life.observe(gathered([seen(random, day, 3.0, 950, first=100 * day) for day in range(3)]))
    life.learner().learn(life.history)
    assert life.day_quota() == 2_000_000_000
    agreed(4.0)
    life.learner().learn(life.history)
    assert life.day_quota() == 4_000_000_000, "what was observed before somebody said so overrules nobody"
    days = gathered([seen(random, day, 3.0, 950, first=100 * day) for day in range(4, 7)])
    said_ms = life.operator.caps.ListLotCaps(caps_pb2.ListLotCapsRequest(lot="lot")).lots[0].windows[0].since_ms
    life.observe(replace(days, at_ms=days.at_ms - BEGIN_MS + said_ms))
    life.learner().learn(life.history)
    assert 2.7e9 < (life.day_quota() or 0) < 3.0e9


def test_a_word_of_somebody_holds_against_what_was_observed_before_it(life: Life) -> None:
    """Also once something newer was learned: what is older stays out of it."""
    random = np.random.default_rng(8)
    old = gathered([seen(random, day, 2.0, 950, first=100 * day) for day in range(3)])
    life.observe(old)
    life.learner().learn(life.history)
    assert 1.8e9 < (life.day_quota() or 0) < 2.0e9
    change = caps_pb2.CapChange(lot="lot", window=DAY, quota_bytes=3 * 10**9, certainty=BELIEVED)
    life.operator.caps.SetCaps(caps_pb2.SetCapsRequest(changes=[change]))
    life.learner().learn(life.history)
    assert life.day_quota() == 3 * 10**9
    windows = life.operator.caps.ListLotCaps(caps_pb2.ListLotCapsRequest(lot="lot")).lots[0].windows
    said_ms = next(each.since_ms for each in windows if each.window == DAY)
    row = (LOT, int(DAY), said_ms, 3 * 10**9, int(layout.BASIS_BELIEVED))
    life.history.execute("INSERT INTO caps VALUES (?, ?, ?, ?, ?, NULL)", row)
    days = gathered([seen(random, day, 3.5, 950, first=100 * day) for day in range(4, 8)])
    life.observe(replace(days, at_ms=days.at_ms - BEGIN_MS + said_ms))
    for _ in range(2):
        life.learner().learn(life.history)
        assert 3.2e9 < (life.day_quota() or 0) < 3.5e9


def test_a_lot_that_can_not_be_learned_from_holds_up_no_other(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the service does not know, and one whose fit fails."""

    def fails_for_odd(observations: Observations) -> Findings:
        if LOT - 1 in observations.lot:
            raise ArithmeticError("no fit")
        return find(observations)

    monkeypatch.setattr("simswitch.caps.learner.find", fails_for_odd)
    first = [(LOT - 2, int(layout.LOT), "gone"), (LOT - 1, int(layout.LOT), "odd")]
    life.history.executemany("INSERT INTO entities VALUES (?, ?, ?)", first)
    odd = inventory_pb2.Lot(name="odd", supplier="wholesale", plan="plan", sim_class="class")
    life.operator.inventory.DefineLot(inventory_pb2.DefineLotRequest(lot=odd))
    for lot in (LOT - 1, LOT - 2):
        life.history.execute("INSERT INTO observations VALUES (?, ?, 1, 1, 1, 2, 0, 1)", (lot, lot))
    random = np.random.default_rng(1)
    life.observe(gathered([seen(random, day, 3.0, 950, first=100 * day) for day in range(3)]))
    learner = life.learner()
    assert learner.learn(life.history) == 1
    assert 2.7e9 < (life.day_quota() or 0) < 3.0e9
    assert learner.lots_failed == 2
    assert [line.split(":")[0] for line in life.said if "nothing was learned" in line] == ["lot gone", "lot odd"]
    assert learner.learn(life.history) == 0
    assert learner.lots_failed == 4, "they are looked at again"


def test_who_goes_beyond_a_cap_and_is_not_slowed_is_heard_before_the_hour(life: Life) -> None:
    random = np.random.default_rng(4)
    life.observe(gathered([seen(random, day, 3.0, 950, first=100 * day) for day in range(4)]))
    learner = life.learner()
    learner.learn(life.history)
    assert learner.learn_soon(life.history) == 0
    after = seen(random, 4, 4.5, 950, first=400)
    windows = life.operator.caps.ListLotCaps(caps_pb2.ListLotCapsRequest(lot="lot")).lots[0].windows
    since_ms = next(each.since_ms for each in windows if each.window == DAY)
    quiet = after.chosen(after.upper_bytes == 0)
    life.observe(replace(quiet, at_ms=np.full(len(quiet), since_ms + 1_000)))
    assert len(quiet.lower_bytes[quiet.lower_bytes > 3.1e9]) > 5
    assert learner.learn_soon(life.history) == 1
    assert learner.learn_soon(life.history) == 0


def test_of_sims_that_share_a_quota_nothing_is_learned_nor_told(life: Life, tmp_path: Path) -> None:
    window = inventory_pb2.CapWindow(kind=DAY, quota_bytes=10**12, certainty=BELIEVED, pooled=True)
    plan = inventory_pb2.Plan(name="sharing", carrier="carrier", windows=[window])
    life.operator.inventory.DefinePlan(inventory_pb2.DefinePlanRequest(plan=plan))
    shared = inventory_pb2.Lot(name="shared", supplier="wholesale", plan="sharing", sim_class="class")
    life.operator.inventory.DefineLot(inventory_pb2.DefineLotRequest(lot=shared))
    life.history.execute("INSERT INTO entities VALUES (?, ?, 'shared')", (LOT + 1, int(layout.LOT)))
    random = np.random.default_rng(4)
    days = gathered([seen(random, day, 3.0 + (day == 4), 950, first=100 * day) for day in range(5)])
    life.observe(replace(days, lot=days.lot + 1, sim=days.sim + 5_000))
    caps = [plain(lot) for lot in life.operator.caps.ListLotCaps(caps_pb2.ListLotCapsRequest()).lots]
    assert list(find_learned(tmp_path, caps)) == ["lot"]
    learner = life.learner()
    assert learner.learn(life.history) == 0
    life.observe(days)
    assert learner.learn(life.history) == 1
    kinds = (event_pb2.EVENT_KIND_CAP, event_pb2.EVENT_KIND_CAP_CHANGED)
    told = [event for kind in kinds for event in life.told(kind) if event.certainty != BELIEVED]
    assert {event.lot_or_plan for event in told} == {"lot"}
    assert len(told) == 2


def test_a_lot_whose_windows_nobody_ends_is_named_once(life: Life) -> None:
    learner = life.learner()
    for sim in range(5):
        learner.learn(life.history)
        assert not life.said
        life.decided(sim, BEGIN_MS + sim)
    for _ in range(2):
        learner.learn(life.history)
        (said,) = life.said
        assert "lot lot: 5 SIMs were slowed, but nothing is learned" in said
    life.said.clear()
    window = inventory_pb2.CapWindow(kind=inventory_pb2.CAP_WINDOW_KIND_CYCLE, quota_bytes=100 << 30)
    resets = inventory_pb2.ResetRule(closing_day=31)
    plan = inventory_pb2.Plan(name="plan", carrier="carrier", windows=[window], resets=resets)
    life.operator.inventory.DefinePlan(inventory_pb2.DefinePlanRequest(plan=plan))
    while not life.operator.caps.ListLotCaps(caps_pb2.ListLotCapsRequest(lot="lot")).lots[0].windows[0].reset_ms:
        pass
    life.learner().learn(life.history)
    assert not life.said


@pytest.mark.parametrize(("after", "shift"), [(2.0, caps_pb2.CAP_SHIFT_LOWERED), (4.5, caps_pb2.CAP_SHIFT_RAISED)])
def test_a_silent_change_is_told_once(life: Life, after: float, shift: caps_pb2.CapShift.ValueType) -> None:
    random = np.random.default_rng(4)
    days = [seen(random, day, 3.0, 950, first=100 * day) for day in range(4)]
    learner = life.learner()
    life.observe(gathered(days))
    learner.learn(life.history)
    assert not life.told(event_pb2.EVENT_KIND_CAP_CHANGED)
    life.observe(seen(random, 4, after, 950, first=400))
    learner.learn(life.history)
    (told,) = life.told(event_pb2.EVENT_KIND_CAP_CHANGED)
    assert (told.lot_or_plan, told.window, told.shift) == ("lot", DAY, shift)
    shift_word = caps_pb2.CapShift.Name(shift).removeprefix("CAP_SHIFT_").lower()
    assert told.amount == pytest.approx(after * 1e9, rel=0.05)
    assert told.before == pytest.approx(3e9, rel=0.05)
    words = f"lot, day: {shift_word} without a word, {bytes_text(told.before)} to {bytes_text(told.amount)}, since 20"
    assert details(plain(told)).startswith(words)
    assert told.first_evidence_ms >= BEGIN_MS + 4 * DAY_MS
    assert f"day: {shift_word} without a word" in "".join(life.said)
    # More evidence of the same, and a learner that was started anew with a history that knows.
    life.observe(seen(random, 5, after, 950, first=500))
    learner.learn(life.history)
    row = (LOT, DAY, told.told_ms, shift, told.amount, told.first_evidence_ms)
    life.history.execute("INSERT INTO cap_shifts VALUES (?, ?, ?, ?, ?, ?)", row)
    life.learner().learn(life.history)
    assert len(life.told(event_pb2.EVENT_KIND_CAP_CHANGED)) == 1


def test_what_is_read_of_a_lot_is_the_newest_in_the_order_of_time(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simswitch.caps.learner.SLOWED_MAX", 10)
    random = np.random.default_rng(7)
    life.observe(gathered([seen(random, day, 3.0, 950, first=100 * day) for day in (2, 0, 1)]))
    found = observed(life.history, LOT)
    slowed = found.at_ms[found.upper_bytes > 0]
    assert len(slowed) == 10
    assert (slowed >= BEGIN_MS + 2 * DAY_MS).all()
    assert (np.diff(found.at_ms) >= 0).all()

"""The naive model's books: what becomes of SIMs, leases and orders, whatever command it was that moved them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from simswitch.core import layout

from tests.model.invariants import tier_of
from tests.model.things import (
    EndedModel,
    JobModel,
    LotModel,
    Mismatch,
    OrderModel,
    Row,
    ServerModel,
    SimModel,
    Sweep,
    TerminalModel,
    lowest_bytes,
    tier_satisfying,
)

OWN_TIER_TRIES = 8
DAY_MS = 86_400_000
FRESH_S = 60
TRUSTED_TIER = tier_of(256 << 20) + 1
"""In it and the roomier ones stand SIMs that are trusted."""


@dataclass(eq=False)
class Books:
    """The state as seen from outside."""

    markets: dict[int, tuple[int, list[int]]]
    """By entity: expected bytes and the classes in order of preference."""
    lots: dict[int, LotModel]
    banks: set[int]
    reserves: dict[int, int]
    settings: dict[int, int]
    terminals_max: int
    sims_max: int
    orders_max: int
    now_ms: int
    servers: list[ServerModel]
    last_epoch: int = 0
    before_run: int = 0
    """The last epoch before the run that is followed."""
    told_aside: int = 0
    """Reports of the run that were set aside, or differences that changed nothing."""
    sims: list[SimModel] = field(default_factory=list)
    terminals: dict[int, TerminalModel] = field(default_factory=dict)
    orders: list[OrderModel] = field(default_factory=list)
    jobs: list[JobModel] = field(default_factory=list)
    masked: set[int | tuple[int, int]] = field(default_factory=set)
    """Lots, banks, and groups of their own (a lot and a bank)."""
    sent_count: int = 0
    sweeps: list[Sweep] = field(default_factory=list)
    walk: Sweep | None = None
    """Over limits, that is under way."""
    lots_due: list[int] = field(default_factory=list)
    """Lots with a reset to go on with, the first first."""
    ended: dict[int, EndedModel] = field(default_factory=dict)
    """By epoch: leases that are over, of terminals that have another one since."""
    counted_bytes: int = 0
    impossible_count: int = 0
    set_aside_count: int = 0
    corrections_count: int = 0
    figures_aside_count: int = 0
    unreported_count: int = 0
    unreported_bytes: int = 0
    set_aside_bytes: int = 0
    grace_until_ms: int = 0
    thaw_until_ms: int = 0
    answers_until_ms: int = 0
    """No order is overdue before: it could not be answered."""
    frozen: bool = False
    frozen_s: int = 0
    early_count: int = 0
    """How often a window of a SIM began before its turn, since something was counted on it."""
    swaps_stopped: bool = False
    given_up: list[bool] = field(default_factory=list)
    """The work list: whether each entry, numbered from 1, was seen to."""
    events_count: int = 0
    automatic_due_ms: int = 0
    carriers: dict[int, int] = field(default_factory=dict)
    """Of a class, where it is told."""
    breakers: dict[int, int] = field(default_factory=dict)
    """By entity, where it is not closed. What opens them is not worked out here: they are followed."""
    blocked: set[int] = field(default_factory=set)
    """Entities whose breakers may block at some moment of this apply, and ..."""
    surely_blocked: set[int] = field(default_factory=set)
    """... in all of it."""
    short: dict[int, int] = field(default_factory=dict)
    """Markets in which swaps find no target, and the least tier for which they found none."""
    uses: dict[int, dict[int, int]] = field(default_factory=dict)
    """By market: what the leases that are over weigh, by the tier of what they used."""
    uses_day: dict[int, int] = field(default_factory=dict)
    """By market: when that was last halved."""
    learned: dict[int, int] = field(default_factory=dict)
    bounds: dict[int, int] = field(default_factory=dict)
    """By market: an eighth of the smallest cap that a lot of its classes had at the end of the last apply."""
    """By market: the 95th percentile, the upper end of its tier."""
    job_records: Any = None
    """The core's, after this apply: for what the model does not work out, when a job would be over."""
    events_due: list[tuple[int, ...]] = field(default_factory=list)
    """Of this apply: kind, terminal, subscriber, access server, job, reason, a, b."""

    def _event(
        self,
        kind: int,
        terminal: TerminalModel | EndedModel | None = None,
        server: int = layout.NONE_SHORT,
        *,
        job: int = layout.NONE_INDEX,
        reason: int = 0,
        a: int = 0,
        b: int = 0,
    ) -> None:
        key, subscriber = (terminal.key, terminal.subscriber) if terminal is not None else (0, 0)
        self.events_due.append((kind, key, subscriber, server, job, reason, a, b))

    def _order_event(self, kind: int, order: OrderModel, reason: int, b: int = 0) -> None:
        """Of a swap only."""
        if order.kind == layout.SWITCH and not order.orphaned:
            job = layout.NONE_INDEX if order.job is None else order.job.id
            number = order.number if order.in_flight else 0
            self._event(kind, order.terminal, order.server, job=job, reason=reason, a=number, b=b)

    def _enter(self, job: JobModel, state: int, why: int = layout.WHY_NONE) -> bool:
        job.why = why
        if job.state == state:
            return False
        job.state = state
        self._event(layout.EVENT_JOB, job=job.id, a=state, b=job.beyond, reason=why)
        held = state in (layout.JOB_PAUSED, layout.JOB_AWAITING_APPROVAL)
        if held and self.settings[layout.AUTOMATIC_SWAPS]:
            self._automatic_later()
        return True

    def _hold_job(self, job: JobModel, why: int) -> None:
        if job.state in (layout.JOB_RUNNING, layout.JOB_SELECTING):
            self._enter(job, layout.JOB_PAUSED, why)

    def _job_outcome(self, job: JobModel | None, failed: bool) -> None:
        """The canary is judged when so many swaps have come out, the error budget at each failure from twenty on."""
        if job is None:
            return
        job.settled_lately += 1
        job.failed_lately += failed
        beyond = job.failed_lately * 10**6 > job.settled_lately * job.options["budget_ppm"]
        if job.canary:
            if job.settled_lately >= job.options["canary_count"]:
                job.canary = False
                if beyond:
                    self._hold_job(job, layout.WHY_CANARY)
        elif failed and beyond and job.settled_lately >= 20:
            self._hold_job(job, layout.WHY_BUDGET)

    @staticmethod
    def _require(truth: bool, what: str) -> None:
        if not truth:
            raise Mismatch(what)

    def _masked(self, sim: SimModel) -> bool:
        lot = self.lots[sim.lot]
        hidden = lot.ended or lot.pool_health != layout.HEALTHY
        return hidden or not self.masked.isdisjoint((sim.lot, sim.bank, (sim.lot, sim.bank)))

    # What the SIMs of a lot share.

    def _pool_counted(self, entity: int) -> int:
        return sum(sim.counted_bytes for sim in self.sims if sim.lot == entity)

    def _pool_claimed(self, entity: int) -> int:
        return sum(sim.claim for sim in self.sims if sim.lot == entity)

    def _pool_beside(self, entity: int, window: int) -> int:
        mine = [sim for sim in self.sims if sim.lot == entity]
        return sum(sim.beside(window) for sim in mine)

    def pool_void(self, entity: int, window: int) -> int:
        """What its SIMs' figures say less than was counted, and counts in the pool all the same: the window is over, or
        of some days the carrier has said what the pool had."""
        lot = self.lots[entity]
        less = sum(min(sim.corrections[window], 0) for sim in self.sims if sim.lot == entity)
        walks = [sweep for sweep in (*self.sweeps, self.walk) if sweep is not None and sweep.kind == "limits"]
        if window in lot.resets or any(window in walk.lots.get(entity, ()) for walk in walks):
            return less
        if window != layout.WINDOW_ROLLING - 1 or lot.figured(window):
            return 0
        return less if any(place < lot.places for place in lot.pool_told) else 0

    def pool_used(self, entity: int, window: int) -> int:
        lot, counted = self.lots[entity], self._pool_counted(entity)
        beside = self._pool_beside(entity, window) - self.pool_void(entity, window)
        return counted + lot.pool_offsets[window] + beside + lot.pool_corrections[window] + lot.pool_straddling[window]

    def _pool_left(self, entity: int, reserved: tuple[int, int] = (0, 99)) -> int:
        """What is left to the nearest cap, less what is ``reserved``: so many bytes, or a power of two of the quota."""
        lot, (least, shift) = self.lots[entity], reserved
        return min(
            (
                quota - self.pool_used(entity, window) - max(least, quota >> shift)
                for window, (quota, _) in enumerate(lot.caps)
                if lot.pools(window) and quota >= 0
            ),
            default=2**63 - 1,
        )

    def _pool_has(self, sim: SimModel, expected: int) -> bool:
        left = self._pool_left(sim.lot)
        return left == 2**63 - 1 or left - self._pool_claimed(sim.lot) >= expected

    def _judge_pool(self, entity: int) -> None:
        """What happens at once; that the health of its SIMs follows is a walk."""
        lot = self.lots[entity]
        if not lot.pooled:
            return
        health = int(layout.HEALTHY)
        if self._pool_left(entity, (lot.exhausted_bytes, 7)) < 0:
            health = layout.EXHAUSTED
        elif self._pool_left(entity, (lot.low_bytes, 5)) < 0:
            health = layout.LOW
        if health != lot.pool_health:
            lot.pool_health = health
            if any(sim.lot == entity for sim in self.sims):
                self._walk_lot(entity)
            self._event(layout.EVENT_POOL, reason=health, a=entity, b=self._pool_left(entity) % 2**64)

    def _restart_pool(self, entity: int, window: int) -> None:
        """A window starts anew for all of the lot at once; of a rolling one a day is over."""
        lot, counted = self.lots[entity], self._pool_counted(entity)
        if not lot.pools(window):
            return
        if window == layout.WINDOW_ROLLING - 1:
            # What only makes up for less of its SIMs goes with that.
            less = sum(min(sim.corrections[window], 0) for sim in self.sims if sim.lot == entity)
            beyond = max(lot.pool_corrections[window] + (less if lot.figured(window) else 0), 0)
            beyond += lot.pool_straddling[window]
            own = counted + lot.pool_offsets[window] - sum(lot.pool_days)
            at_s, before = lot.pool_late
            later = max(min(counted - before, own), 0) if 0 < at_s >= lot.from_s[window] else 0
            today = max(own + beyond - later, 0)
            steps = len(lot.turn)
            lot.pool_days = [*(today if counts else 0 for counts in lot.turn), *lot.pool_days][: lot.places]
            lot.pool_told = {place + steps: told for place, told in lot.pool_told.items() if place + steps < 16}
            lot.pool_own = {place + steps: own for place, own in lot.pool_own.items() if place + steps < lot.places}
        lot.forget_figure(window)
        at_s, before = lot.pool_late
        if window == layout.WINDOW_ROLLING - 1:
            before = counted - later - sum(lot.pool_days)
        elif 0 < at_s >= lot.from_s[window]:
            before = max(before, -lot.pool_offsets[window])
        else:
            before = counted
        lot.pool_offsets[window] = -before

    def _walk_lot(self, entity: int) -> set[int]:
        """Its limits are worked out by the next walk, which lots share; gives the windows that begin with it."""
        walk = next((sweep for sweep in self.sweeps if sweep.kind == "limits"), None)
        if walk is None:
            walk = Sweep("limits")
            self.sweeps.append(walk)
        walk.end = len(self.sims)
        return walk.lots.setdefault(entity, set())

    def _orders_spare(self) -> bool:
        """An eighth of the pool is left to what can't wait."""
        return self.orders_max - len(self.orders) > self.orders_max // 8

    def _free_healthy(self, sim_class: int) -> list[SimModel]:
        return [
            sim
            for sim in self.sims
            if sim.sim_class == sim_class
            and sim.occupancy == layout.FREE
            and sim.health == layout.HEALTHY
            and not self._masked(sim)
        ]

    def _belongs_to(self, sim: SimModel) -> set[int]:
        return {sim.bank, sim.lot, sim.sim_class, self.carriers.get(sim.sim_class, sim.sim_class)}

    def _ends_ms(self, sim: SimModel) -> int:
        """When its lot ends, which goes first in the order of that."""
        return self.lots[sim.lot].valid_until_ms

    def _sound(self, sim_class: int) -> list[SimModel]:
        """Free and healthy, and no breaker is in the way."""
        return [sim for sim in self._free_healthy(sim_class) if self.blocked.isdisjoint(self._belongs_to(sim))]

    def _must_find(self, sim_class: int, expected: int) -> bool:
        """Whether the class has a SIM that selection may not miss."""
        return self._must_find_among(self._sound(sim_class), expected)

    def _must_find_among(self, free: list[SimModel], expected: int) -> bool:
        tier = tier_satisfying(expected)
        if any(sim.tier >= tier and sim.headroom_bytes >= expected and self._pool_has(sim, expected) for sim in free):
            return True
        if not all(self._pool_has(sim, expected) for sim in free):
            return False  # of the tier below it looks at one group, and that may have some that don't do
        if expected == lowest_bytes(tier):
            return False  # the tier below holds less, but for SIMs that aren't trusted with as much
        own = [sim for sim in free if sim.tier == tier - 1]
        return len(own) <= OWN_TIER_TRIES and any(sim.headroom_bytes >= expected for sim in own)

    def _check_choice(self, sim: SimModel, market: int, expected: int, what: str, reserve: bool, roomy: bool) -> None:
        """I4, and fit: the first class that can serve, and its roomiest or tightest tier in which every SIM will do."""
        awaited = [index for index, server in enumerate(self.servers) if server.awaited]
        self._require(not awaited, f"I1: {what} got SIM {sim.index}, and nobody knows what {awaited} hold")
        self._require(sim.occupancy == layout.FREE, f"I4: {what} got SIM {sim.index}, which is not free")
        self._require(sim.health == layout.HEALTHY, f"I4: {what} got SIM {sim.index}, which is not healthy")
        self._require(sim.headroom_bytes >= expected, f"I4: {what} got SIM {sim.index} with too little left")
        self._require(not self._masked(sim), f"{what} got SIM {sim.index} of a masked group")
        self._require(self._pool_has(sim, expected), f"I4: {what} got SIM {sim.index} of a pool with too little left")
        classes = self.markets[market][1]
        self._require(sim.sim_class in classes, f"{what} got SIM {sim.index} of a class that does not serve the market")
        for earlier in classes[: classes.index(sim.sim_class)]:
            spared = reserve and len(self._free_healthy(earlier)) <= self.reserves[earlier]
            self._require(spared or not self._must_find(earlier, expected), f"{what} passed class {earlier} over")
        broken = self._belongs_to(sim) & self.surely_blocked
        self._require(not (reserve and broken), f"{what} got SIM {sim.index} although breakers {broken} are open")
        if broken:
            self._require(not self._must_find(sim.sim_class, expected), f"{what} did not go around {broken}")
            return
        wanted = tier_satisfying(expected)
        sound = self._sound(sim.sim_class)
        if roomy:
            ends_ms = self._ends_ms(sim)
            will_do = self._will_do(sound, wanted, expected)
            first_ms = min((self._ends_ms(other) for other in will_do), default=ends_ms)
            if self._roomiest_doubted([other for other in will_do if self._ends_ms(other) == first_ms]):
                trusted = self._will_do(sound, TRUSTED_TIER, lowest_bytes(TRUSTED_TIER))
                self._require(not (sim.untrusted and trusted), f"{what} got SIM {sim.index}, which is on probation")
                if sim in trusted:
                    wanted, expected, will_do = TRUSTED_TIER, lowest_bytes(TRUSTED_TIER), trusted
            for other in will_do:
                passed = self._ends_ms(other) < ends_ms
                self._require(not passed, f"{what} passed lot {other.lot} over, which ends before lot {sim.lot}")
            sound = [other for other in sound if self._ends_ms(other) == ends_ms]
        tiers = {other.tier for other in sound if self._pool_has(other, expected)}
        satisfying = [tier for tier in tiers if tier >= wanted]
        # One that a breaker lets through as its probe may fit better.
        if satisfying:
            tier, best = sim.tier, max(satisfying) if roomy else min(satisfying)
            better = tier >= best if roomy else wanted <= tier <= best
            probes = not self.blocked.isdisjoint(self._belongs_to(sim))
            self._require(tier == best or (better and probes), f"{what} got tier {tier} and not {best}")

    def _will_do(self, sims: list[SimModel], tier: int, expected: int) -> list[SimModel]:
        """Those that are found without a look at SIMs of the request's own tier."""
        return [
            sim
            for sim in sims
            if sim.tier >= max(tier, 1) and sim.headroom_bytes >= expected and self._pool_has(sim, expected)
        ]

    def _roomiest_doubted(self, sims: list[SimModel]) -> bool:
        """Whether one of those with the most left is on probation."""
        roomiest = max((sim.tier for sim in sims), default=0)
        return any(sim.untrusted and sim.tier == roomiest for sim in sims)

    def _judge(self, sim: SimModel) -> None:
        """Healthy, low or exhausted by our own count; what others found stays."""
        if sim.health > layout.EXHAUSTED:
            return
        before = sim.health
        lot = self.lots[sim.lot]
        if sim.headroom_bytes < lot.exhausted_bytes:
            sim.health = layout.EXHAUSTED
        elif sim.headroom_bytes < lot.low_bytes:
            sim.health = layout.LOW
        else:
            sim.health = layout.HEALTHY
        sim.health = max(sim.health, lot.pool_health)
        if sim.health != before:
            self._turned(sim)

    # Swaps that nobody orders, and the ceilings of a day.

    def _day(self, at_ms: int) -> int:
        begins = self.settings[layout.DAY_BEGINS_MS]
        return (at_ms - begins) // DAY_MS if at_ms >= begins else 0

    def _turned(self, sim: SimModel) -> None:
        """The health of a SIM is another now."""
        if sim.occupancy == layout.ASSIGNED and sim.health != layout.HEALTHY:
            self._automatic(sim)

    def _automatic(self, sim: SimModel) -> None:
        terminal, wanted = sim.holder, self.settings[layout.AUTOMATIC_SWAPS]
        assert terminal is not None
        if sim.health == layout.LOW and wanted & 1:
            priority = layout.PRIORITY_PREDICTED
        elif wanted & 2 and sim.health in (layout.EXHAUSTED, layout.THROTTLED, layout.SUSPENDED, layout.RETIRED):
            priority = layout.PRIORITY_THROTTLED
        else:
            return
        job = terminal.swap.job if terminal.swap is not None and not terminal.swap.in_flight else None
        going = (layout.JOB_RUNNING, layout.JOB_SELECTING)
        held = job is not None and not (job.begun and job.state in going)
        if terminal.swap is not None and not held:
            order = terminal.swap
            if not order.in_flight and priority < order.priority:
                order.priority = priority
                if not order.announced_ms:
                    order.ahead_ms = self._ahead_ms(order.job, priority)
            return
        short = priority == layout.PRIORITY_PREDICTED and terminal.expected_tier >= self.short.get(terminal.market, 256)
        if self._rests(terminal) or self._at_ceiling(terminal) or not self._orders_spare() or short:
            self._automatic_later()
            return
        if terminal.swap is not None:
            self._drop_swap(terminal.swap, layout.JOB_OVER)
        self._unmeasured(terminal)
        terminal.swap = OrderModel(
            layout.SWITCH, terminal, sim, terminal.server, 0, ahead_ms=self._ahead_ms(None, priority), priority=priority
        )
        self.orders.append(terminal.swap)

    def _ahead_ms(self, job: JobModel | None, priority: int) -> int:
        if job is not None:
            return int(job.options["announce_ahead_ms"])
        return self.settings[layout.AUTOMATIC_AHEAD_MS] if priority == layout.PRIORITY_PREDICTED else 0

    def _automatic_later(self) -> None:
        self.automatic_due_ms = self.automatic_due_ms or self.now_ms + 60_000

    def _at_ceiling(self, terminal: TerminalModel) -> bool:
        today = self._day(terminal.swapped_ms) == self._day(self.now_ms)
        return today and terminal.swaps_today >= self.settings[layout.SWAPS_PER_DAY_MAX]

    def _count_swap(self, terminal: TerminalModel) -> None:
        if self._day(terminal.swapped_ms) != self._day(self.now_ms):
            terminal.swaps_today = 0
        terminal.swaps_today += 1
        terminal.swapped_ms = self.now_ms

    def _given_to(self, sim: SimModel, terminal: TerminalModel) -> None:
        """Assigned to it or reserved for it."""
        if sim.holder is not terminal:
            today = self._day(self.now_ms)
            day, count = sim.changed
            sim.changed = (today, count + 1 if day == today else 1)
        sim.holder = terminal

    def _set_limit(self, sim: SimModel) -> None:
        lot = self.lots[sim.lot]
        sim.limit_bytes = min(
            (
                quota - sim.offsets[window]
                for window, (quota, _) in enumerate(lot.caps)
                if quota >= 0 and not lot.pools(window)
            ),
            default=2**63 - 1,
        )
        if lot.ended:
            sim.limit_bytes = min(sim.limit_bytes, sim.counted_bytes - 1)
        self._judge_pool(sim.lot)
        self._judge(sim)

    def _cool(self, sim: SimModel) -> None:
        sim.occupancy = layout.COOLING
        sim.claim = 0
        sim.held_by = None
        sim.cooling_until_ms = max(self.now_ms + self.settings[layout.COOLING_MS], sim.cooling_until_ms)
        today, most = self._day(self.now_ms), self.lots[sim.lot].changes_max
        if most and sim.changed[0] == today and sim.changed[1] >= most:
            day_ends_ms = (today + 1) * DAY_MS + self.settings[layout.DAY_BEGINS_MS]
            sim.cooling_until_ms = max(sim.cooling_until_ms, day_ends_ms)

    def _hold(self, sim: SimModel, terminal: TerminalModel, order: OrderModel) -> None:
        if sim.occupancy != layout.ASSIGNED and sim.held_by is None:
            sim.heard_s = 0
        sim.occupancy = layout.COOLING
        sim.holder = terminal
        sim.held_by = order

    def _begin(self, terminal: TerminalModel, sim: SimModel, epoch: int) -> None:
        sim.occupancy = layout.ASSIGNED
        self._given_to(sim, terminal)
        sim.held_by = None
        self._claims(sim, terminal)
        if sim.health != layout.HEALTHY:
            self._automatic_later()
        if terminal.reported_bytes and terminal.epoch != epoch:
            self._learn(terminal.lease_market, tier_of(terminal.reported_bytes))
        if terminal.epoch != epoch and (last := self._last(terminal)) is not None:
            self.ended[terminal.epoch] = last
        terminal.last_sim = None
        terminal.lease_market = terminal.market
        terminal.sim = sim
        terminal.epoch = epoch
        terminal.reported_bytes = 0
        terminal.reported_s = terminal.traffic_s = sim.heard_s = self.now_ms // 1000
        self._extend(terminal)

    @staticmethod
    def _last(terminal: TerminalModel) -> EndedModel | None:
        """Its lease that has ended, if it has no other since."""
        if terminal.last_sim is None:
            return None
        return EndedModel(
            terminal.epoch,
            terminal,
            terminal.last_sim,
            terminal.subscriber,
            terminal.server,
            terminal.expected_tier,
            terminal.reported_bytes,
            terminal.reported_s,
        )

    def _over(self, terminal: TerminalModel, epoch: int) -> EndedModel | None:
        """A lease of the terminal that is over."""
        last = self._last(terminal)
        if last is not None and last.epoch == epoch:
            return last
        ended = self.ended.get(epoch)
        return ended if ended is not None and ended.terminal is terminal else None

    @staticmethod
    def _on_target(order: OrderModel) -> EndedModel:
        """What its terminal may have on the target of a switch that is out."""
        terminal, target = order.terminal, order.target
        assert target is not None
        since_s = order.ordered_ms // 1000
        subscriber, tier = terminal.subscriber, terminal.expected_tier
        return EndedModel(order.epoch, terminal, target, subscriber, order.server, tier, 0, since_s)

    def _claims(self, sim: SimModel, terminal: TerminalModel) -> None:
        """What the lease is expected to use is kept for it."""
        if self.lots[sim.lot].pooled:
            sim.claim = min(lowest_bytes(terminal.expected_tier), 1 << 44)

    def _learn(self, market: int, tier: int) -> None:
        """A lease of the market is over: it weighs 16, and half as much after each midnight."""
        uses, today = self.uses.setdefault(market, {}), self._day(self.now_ms)
        for _ in range(min(today - self.uses_day.setdefault(market, today), 32)):
            for other in uses:
                uses[other] //= 2
        self.uses_day[market] = max(today, self.uses_day[market])
        uses[tier] = uses.get(tier, 0) + 16
        if sum(uses.values()) >= 32 * 16:
            above = [t for t in range(128) if 20 * sum(uses[u] for u in uses if u > t) <= sum(uses.values())]
            self.learned[market] = lowest_bytes(above[0] + 1)

    def _expected(self, market: int, requested: int) -> int:
        expected = requested or self.markets[market][0]
        if expected < 0:
            expected = min(self.learned.get(market, 0), self.settings[layout.EXPECTED_CEILING_BYTES])
            expected = min(expected, self.bounds.get(market) or expected)
        return max(expected, self.settings[layout.EXPECTED_FLOOR_BYTES])

    def _extend(self, terminal: TerminalModel) -> None:
        terminal.expires_ms = self.now_ms + self.settings[layout.LEASE_MS]
        server = self.servers[terminal.server]
        self._lives(terminal.server, layout.DEATH_BELIED)
        if server.reconciling and not server.awaited:
            terminal.named_in = server.session  # the books of a restored folder may take an old lease for it

    def _lives(self, index: int, what: int) -> None:
        """An access server that was declared dead is not."""
        server = self.servers[index]
        if server.dead_ms:
            self._event(layout.EVENT_DEATH, server=index, reason=what, a=server.dead_ms)
        server.dead, server.dead_ms = False, 0
        # Also where it is declared dead anew in the same apply.
        self.sweeps = [sweep for sweep in self.sweeps if sweep.kind != "dead" or sweep.server != index]
        server.awaited = server.awaited and "a hello"

    def _new_epoch(self, epoch: int) -> int:
        self._require(epoch > self.last_epoch, f"epoch {epoch} is not above every earlier one, {self.last_epoch}")
        self.last_epoch = epoch
        return epoch

    def _leave_swap(self, terminal: TerminalModel, source_let_go: bool) -> None:
        self._unmeasured(terminal)
        order = terminal.swap
        if order is None:
            return
        terminal.swap = None
        if not order.in_flight:
            if order.announced_ms:
                self._order_event(layout.EVENT_WITHDRAWN, order, layout.LEASE_OVER)
            self.orders.remove(order)
            return
        self._order_event(layout.EVENT_WITHDRAWN, order, layout.LEASE_OVER)
        assert order.target is not None
        assert order.source is not None
        order.orphaned = True
        order.source_epoch = terminal.epoch
        self.ended[order.epoch] = self._on_target(order)
        order.job = None
        self._hold(order.target, terminal, order)
        order.target.heard_s = order.ordered_ms // 1000
        if source_let_go:
            order.source = None
        else:
            self._hold(order.source, terminal, order)

    def _release(self, terminal: TerminalModel) -> None:
        sim = terminal.sim
        assert sim is not None
        self._leave_swap(terminal, source_let_go=True)
        terminal.sim, terminal.last_sim = None, sim
        self._let_go(self._last(terminal), sim)

    def _let_go(self, lease: EndedModel | None, sim: SimModel) -> None:
        """It cools. A last report of its lease that is older than a minute may not be its last: that is waited for."""
        if lease is not None and lease.sim is sim:
            left = self._unreported_bytes(lease)
            if self.now_ms // 1000 - sim.heard_s > FRESH_S and left > 0:
                sim.unreported, sim.unreported_s = (lease.epoch, -left), self.now_ms // 1000
        self._cool(sim)

    def _unreported_bytes(self, lease: EndedModel) -> int:
        """What it may have used beyond its last report."""
        epoch, allowed = lease.sim.unreported
        if epoch == lease.epoch and allowed > 0:
            return 0
        left = lowest_bytes(lease.expected_tier) - lease.reported_bytes
        silent_s = self.now_ms // 1000 - lease.reported_s + 1
        return min(left, self.settings[layout.LINE_BYTES_PER_S] * silent_s, 1 << 50)

    def _cooled(self, sim: SimModel) -> None:
        """No report is waited for any more: what was worked out when its lease ended is allowed for."""
        epoch, left = sim.unreported
        if left < 0:
            assert sim.holder is not None
            lease = self._over(sim.holder, epoch)
            if lease is None:
                # Held because of another terminal since, or forgotten: nobody knows whose lease it was.
                lease = EndedModel(epoch, sim.holder, sim, 0, layout.NONE_SHORT, 0, 0, 0)
            self._allow(lease, -left)

    def _allow(self, lease: EndedModel, left: int) -> None:
        sim = lease.sim
        sim.unreported, sim.unreported_told = (lease.epoch, left), None
        for window in range(layout.WINDOWS if self.lots[sim.lot].rolling_days else layout.WINDOW_DAY):
            sim.allowances[window] += left
            sim.offsets[window] += left
        self._tell_unreported(lease, layout.UNREPORTED_ALLOWED, left)
        self.unreported_count += 1
        self.unreported_bytes += left
        self._set_limit(sim)

    def _unreported(self, lease: EndedModel | None, sim: SimModel | None) -> None:
        """What may have been used beyond its last report counts in every window until somebody knows better."""
        if lease is None or sim is None or lease.sim is not sim:
            return
        left = self._unreported_bytes(lease)
        if left > 0:
            sim.unreported_s = self.now_ms // 1000
            self._allow(lease, left)

    def _heard(self, lease: EndedModel) -> None:
        """A report of it was taken. Whoever has to let go of its SIM need say no more for a minute."""
        order = lease.sim.held_by
        if order is not None and order.terminal is lease.terminal:
            source_side = order.orphaned and order.source is lease.sim
            if lease.epoch == (order.source_epoch if source_side else order.epoch):
                lease.sim.heard_s = self.now_ms // 1000

    def _reported(self, lease: EndedModel, more: int | None = None) -> None:
        """So much more of it; all that there was, where that is not said."""
        sim = lease.sim
        epoch, left = sim.unreported
        if epoch == 0 or epoch != lease.epoch:
            return
        if left < 0 or more is None or more >= left:
            sim.unreported = (0, 0)
        else:
            sim.unreported = (epoch, left - more)
        if left < 0:
            return
        sim.unreported_s = self.now_ms // 1000
        rest = sim.unreported[1]
        gone = left - rest
        for window in range(layout.WINDOWS):
            taken = min(gone, sim.allowances[window])
            sim.allowances[window] -= taken
            sim.offsets[window] -= taken
        self.unreported_count -= rest == 0
        self.unreported_bytes -= gone
        # Its first portion is told, and its last, and what halves that which was told as left.
        before = sim.unreported_told
        if before is None or 2 * rest <= before:
            coarse = 2 ** max(rest.bit_length() - 6, 0)
            sim.unreported_told = rest - rest % coarse if rest else None
            self._tell_unreported(
                lease, layout.UNREPORTED_OVER, (left if before is None else before) - rest + rest % coarse
            )
        self._set_limit(sim)

    def _reported_again(self, lease: EndedModel) -> None:
        """Its last total once more. It is final where that is no retry, nor an idle minute of a backlog."""
        sim = lease.sim
        if sim.unreported[1] < 0 or self.now_ms // 1000 - sim.unreported_s > FRESH_S:
            self._reported(lease)

    def _tell_unreported(self, lease: EndedModel, reason: int, told: int) -> None:
        self._event(layout.EVENT_UNREPORTED, lease, lease.server, reason=reason, a=lease.sim.iccid, b=told)

    def _take_away(self, terminal: TerminalModel, kind: int) -> None:
        sim = terminal.sim
        assert sim is not None
        self._leave_swap(terminal, source_let_go=False)
        terminal.sim, terminal.last_sim = None, sim
        order = OrderModel(kind, terminal, sim, terminal.server, terminal.epoch)
        self.orders.append(order)
        self._hold(sim, terminal, order)

    def _replace(self, terminal: TerminalModel, server: int) -> None:
        if terminal.swap is not None and terminal.swap.in_flight:
            self._leave_swap(terminal, source_let_go=False)
            terminal.sim, terminal.last_sim = None, terminal.sim
        elif terminal.server == server:
            self._release(terminal)
        else:
            self._take_away(terminal, layout.STOP)

    def _check_grant(self, terminal: TerminalModel, answer: Row, slow_kbps: int = 0) -> None:
        sim = terminal.sim
        assert sim is not None
        expected = {
            "epoch": terminal.epoch,
            "expires_ms": terminal.expires_ms,
            "iccid": sim.iccid,
            "sim": sim.index,
            "retry_after_ms": 0,
            "slow_kbps": slow_kbps,
            "bank": sim.bank,
        }
        for name, value in expected.items():
            self._require(answer[name] == value, f"{name} of the lease is {value}, not {answer[name]}")

    def _refused_for_now(self, answer: Row) -> None:
        base = self.settings[layout.RETRY_AFTER_MS]
        self._require(
            base <= answer["retry_after_ms"] <= 2 * base, f"advice {answer['retry_after_ms']} is not jittered"
        )

    def _sim(self, iccid: int) -> SimModel | None:
        return next((sim for sim in self.sims if sim.iccid == iccid), None)

    def _become_stop(self, order: OrderModel, sim: SimModel) -> None:
        order.kind = layout.STOP
        order.orphaned = False
        order.source, order.target = sim, None
        order.attempts = 0
        order.state = "queued"

    def _settle_orphan(self, order: OrderModel, switched: bool) -> None:
        source, target = order.source, order.target
        assert target is not None
        if switched:
            if source is not None:
                self._let_go(self._over(order.terminal, order.source_epoch), source)
            self._become_stop(order, target)
            return
        self._cool(target)
        order.epoch = order.source_epoch
        if source is not None:
            self._become_stop(order, source)
        else:
            self.orders.remove(order)

    def _confirm(self, order: OrderModel, how: int) -> None:
        self._order_event(layout.EVENT_CONFIRMED, order, how, self.now_ms - order.ordered_ms)
        if order.orphaned:
            self._settle_orphan(order, switched=True)
            return
        self.orders.remove(order)
        source = order.source
        assert source is not None
        if order.kind != layout.SWITCH:
            if source.held_by is order:
                self._let_go(self._over(order.terminal, order.epoch), source)
            return
        terminal, target = order.terminal, order.target
        assert target is not None
        self._require(terminal.sim is source, "I9: the source was lost before the target was confirmed")
        terminal.swap = None
        terminal.last_sim = source
        self._let_go(self._last(terminal), source)
        self._begin(terminal, target, order.epoch)
        self._count_swap(terminal)
        terminal.awaits = (order.ordered_ms, order.job)
        if order.job is not None:
            order.job.confirmed += 1
        if not order.overdue:
            self._job_outcome(order.job, failed=how == layout.BY_ATTACH_FAILURE)

    def _traffic(self, terminal: TerminalModel) -> None:
        """Bytes were counted: the first after a swap tell how long its outage was."""
        if terminal.awaits is None:
            return
        if self.now_ms - terminal.swapped_ms > self.settings[layout.OUTAGE_MAX_MS]:
            self._unmeasured(terminal)
            return
        (ordered_ms, job), terminal.awaits = terminal.awaits, None
        outage_ms = self.now_ms - ordered_ms
        server = self.servers[terminal.server]
        server.outage_ms = (7 * server.outage_ms + outage_ms) >> 3 if server.outage_ms else outage_ms
        if job is not None:
            job.outages.append(outage_ms)
        number = layout.NONE_INDEX if job is None else job.id
        self._event(layout.EVENT_TRAFFIC, terminal, terminal.server, job=number, a=terminal.swapped_ms, b=outage_ms)

    def _unmeasured(self, terminal: TerminalModel) -> None:
        if terminal.awaits is None:
            return
        (_, job), terminal.awaits = terminal.awaits, None
        if job is not None:
            job.unmeasured += 1
        number = layout.NONE_INDEX if job is None else job.id
        self._event(layout.EVENT_UNMEASURED, terminal, terminal.server, job=number, a=terminal.swapped_ms)

    def _return_target(self, order: OrderModel) -> None:
        target, order.target = order.target, None
        if target is None:
            return
        if target.revoke in self.orders or target.cooling_until_ms > self.now_ms:
            self._cool(target)
            return
        target.occupancy = layout.FREE
        target.claim = 0

    def _drop_swap(self, order: OrderModel, why: int) -> None:
        if order.announced_ms:
            self._order_event(layout.EVENT_WITHDRAWN, order, why)
        self.orders.remove(order)
        order.terminal.swap = None

    def _target_fits(self, order: OrderModel) -> bool:
        """Whether the target of a switch that is out would be chosen still (I4)."""
        target = order.target
        assert target is not None
        lot = self.lots[target.lot]
        works = not lot.ended and lot.pool_health == target.health == layout.HEALTHY
        return works and target.headroom_bytes >= lowest_bytes(order.terminal.expected_tier)

    def _refused(self, order: OrderModel, busy: bool) -> None:
        number = order.number
        unfit = order.kind == layout.SWITCH and not order.orphaned and not self._target_fits(order)
        failed = not busy and not unfit
        if failed:
            order.attempts += 1
        self._order_event(layout.EVENT_REFUSED, order, layout.ACK_BUSY if busy else layout.ACK_REFUSED, order.attempts)
        if order.orphaned:
            self._settle_orphan(order, switched=False)
            return
        self._return_target(order)
        order.state = "queued"
        if failed and not order.overdue:
            self._job_outcome(order.job, failed=True)
        cancelled = order.job is not None and order.job.state == layout.JOB_CANCELLED
        given_up = order.kind == layout.SWITCH and order.attempts >= self.settings[layout.ATTEMPTS_MAX] and failed
        if cancelled:
            self._drop_swap(order, layout.JOB_OVER)
        elif given_up:
            self.given_up.append(False)
            self._event(
                layout.EVENT_GIVEN_UP,
                order.terminal,
                order.server,
                job=layout.NONE_INDEX if order.job is None else order.job.id,
                reason=layout.ACK_REFUSED,
                a=number,
                b=order.attempts,
            )
            self.orders.remove(order)
            order.terminal.swap = None
            if order.job is None:
                self._count_swap(order.terminal)
                self._automatic_later()

    def _requeue(self, order: OrderModel) -> None:
        self._order_event(layout.EVENT_REFUSED, order, 0, order.attempts)
        if order.orphaned:
            self._settle_orphan(order, switched=False)
            return
        self._return_target(order)
        order.state = "queued"
        if order.job is not None and order.job.state == layout.JOB_CANCELLED:
            self._drop_swap(order, layout.JOB_OVER)

    def _abandon(self, order: OrderModel) -> None:
        if order.in_flight:
            self._order_event(layout.EVENT_WITHDRAWN, order, layout.NOT_HELD)
        self.orders.remove(order)
        if order.orphaned:
            for sim in (order.source, order.target):
                if sim is not None:
                    self._cool(sim)
        elif order.kind == layout.SWITCH:
            order.terminal.swap = None
            if order.target is not None:
                self._cool(order.target)
        elif order.source is not None and order.source.held_by is order:
            self._cool(order.source)

    def _rests(self, terminal: TerminalModel) -> bool:
        assert terminal.sim is not None
        until_ms = terminal.swapped_ms + self.settings[layout.SWAP_COOL_DOWN_MS]
        return bool(terminal.swapped_ms) and until_ms > self.now_ms and terminal.sim.health != layout.THROTTLED

    def _moved_alone(self, actor: int) -> int:
        """Terminals that somebody moves, or has moved within a day, alone. Jobs without a slot are forgotten."""
        count = 0
        for job in self.jobs:
            if job.id + len(self.job_records) < len(self.jobs):
                continue
            finished_ms = int(self.job_records[job.id % len(self.job_records)]["finished_ms"])
            lately = not finished_ms or finished_ms + DAY_MS > self.now_ms
            if job.begun and job.actor == actor and job.approver is None and lately:
                count += job.confirmed + sum(order.job is job for order in self.orders)
                if job.sweeping:
                    count += max((job.size_max or 0) - job.terminals, 0)
        return count

    def _takes_more(self, job: JobModel) -> bool:
        if job.size_max is None or job.terminals < job.size_max:
            return True
        if not job.size_final and job.approver is None:
            job.size_final = True
            left = self.settings[layout.APPROVAL_ABOVE] - self._moved_alone(job.actor)
            if left > 0:
                job.size_max = job.terminals + left
                return True
        return False

    def _add(self, job: JobModel, terminal: TerminalModel) -> int:
        if terminal.sim is None:
            return layout.NO_LEASE
        if terminal.swap is not None:
            return layout.SAME
        if self._rests(terminal):
            return layout.RESTING
        if self._at_ceiling(terminal):
            return layout.DAY_CEILING
        if not self._takes_more(job):
            job.beyond += 1
            return layout.SAME
        if not self._orders_spare():
            return layout.ORDERS_FULL
        self._unmeasured(terminal)
        priority = job.options["priority"]
        order = OrderModel(
            layout.SWITCH,
            terminal,
            terminal.sim,
            terminal.server,
            0,
            job,
            ahead_ms=self._ahead_ms(job, priority),
            priority=priority,
        )
        self.orders.append(order)
        terminal.swap = order
        job.terminals += 1
        return layout.OK

    def _finish_jobs(self) -> None:
        for job in self.jobs:
            if job.state in (layout.JOB_RUNNING, layout.JOB_PAUSED, layout.JOB_SELECTING):
                waits = job.listing or job.sweeping or any(order.job is job for order in self.orders)
                if job.begun and not waits:
                    self._enter(job, layout.JOB_DONE, layout.WHY_SIZE if job.beyond else layout.WHY_NONE)

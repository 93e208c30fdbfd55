"""What the naive model knows of: SIMs, terminals, orders, jobs, access servers; and the commands of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
from simswitch.core import commands, layout

from tests.model.invariants import MIB, tier_of


class Mismatch(AssertionError):
    """The core did something that the model does not allow."""


NEVER_MS = 1 << 60


@dataclass(eq=False)
class ResetModel:
    begun_ms: int
    spread_ms: int
    first: int
    """Its SIMs lie from here on ..."""
    end: int
    """... and before this."""
    cursor: int
    count: int = 0
    early: set[int] = field(default_factory=set)
    """SIMs on which something was counted before their turn."""


@dataclass(eq=False)
class LotModel:
    sim_class: int
    planned: list[tuple[int, int]]
    """By window: what the plan says, and its basis; -1 and 0: nothing."""
    low_bytes: int
    exhausted_bytes: int
    changes_max: int
    caps: list[tuple[int, int]]
    """What is in force."""
    rolling_days: int = 0
    since_ms: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """By window: since when its cap is in force, or since when it has none."""
    turned_days: int = 0
    turn: list[bool | None] = field(default_factory=list)
    """Of the last time that days were over: the last one first, and of which of them it is what was counted."""
    of_several: bool = False
    """What was counted since then is of more than a day."""
    several: set[int] = field(default_factory=set)
    """Places of the days where such a sum stands."""
    turn_ms: int = NEVER_MS
    """When its timer is due."""
    waiting: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """By window, from 0: the cap that comes, its basis, and when."""
    schedule: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By window: when it next starts anew, and over which time its SIMs are spread."""
    last_reset_ms: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    begun_ms: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    begun_spread_ms: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """When each window last began to start anew, and over which time its SIMs were spread."""
    ended_ms: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """When the last of them had; 0 while others wait."""
    held_s: dict[int, int] = field(default_factory=dict)
    """Windows that were due when the clock was confirmed, and have yet to begin: since when it had been frozen."""
    from_s: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """By window: what counted late from then on is of the one that began last."""
    pool_late: tuple[int, int] = (0, 0)
    """As a SIM's, of all of them."""
    resets: dict[int, ResetModel] = field(default_factory=dict)
    """By window: the one that is under way. Behind the windows: its slowed SIMs are tried."""
    prepaid: bool = False
    """Its slowed SIMs stay slowed where no reset is known."""
    tried_ms: int = 0
    """When the walk begins that tries them, or did; 0: none was slowed."""
    tried_next_s: list[int] = field(default_factory=list)
    """Of the walk under way: when those that it left are due."""
    due: bool = False
    """When its SIMs begin to go before others."""
    active_from_s: int = 0
    """Before it none of its SIMs could carry anything."""
    valid_until_ms: int = NEVER_MS
    ended: bool = False
    """Its SIMs work no longer: none is selected, and nothing is left of any."""
    pooled: int = 0
    """A bit per window whose quota its SIMs share."""
    pool_offsets: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """By window that is pooled: used = what was ever counted on its SIMs + this + what their ledgers say."""
    pool_days: list[int] = field(default_factory=list)
    days_told_s: int = 0
    """The latest end of a day that a carrier told a figure of, of a SIM or of the pool."""
    pool_told: dict[int, int] = field(default_factory=dict)
    """By place of the days of which its carrier said what all its SIMs had used: what."""
    pool_own: dict[int, int] = field(default_factory=dict)
    """Of the same days: what was known of them without it."""
    pool_corrections: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    pool_straddling: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    pool_carrier: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    pool_as_of_s: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """By window: as a SIM's, of figures of all its SIMs together."""
    told_from_s: list[list[int]] = field(default_factory=lambda: [[] for _ in range(layout.WINDOWS)])
    """By window: from when on figures of single SIMs are summed up; then of the sum that follows, if one is begun."""
    told_until_s: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """By window: the latest instant that a figure of a single SIM was ever of."""
    told_at_bytes: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """By window: what was counted on all its SIMs when the last one came, less what was on that SIM since then."""
    pool_told_at_bytes: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """By window: what was counted on all of them by the instant of the pool's figure."""
    pool_raised: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """By window: what counts beyond the figure of the pool, since its SIMs' say more."""
    pool_added: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """By window: what figures of single SIMs, of later instants than the pool's, had beyond what was counted."""
    pool_health: int = layout.HEALTHY
    promised_bytes: int = 0
    """What the job that is checked has of the pool."""

    def has(self, window: int) -> bool:
        if window == layout.WINDOW_ROLLING - 1:
            return self.rolling_days > 0
        comes = window in self.waiting or self.schedule.get(window, (0, 0))[0] or self.last_reset_ms[window]
        return self.caps[window][0] >= 0 or bool(comes)

    def lasts_s(self, window: int) -> int:
        return (31, 1, self.rolling_days)[window] * 86_400

    def told_from(self, window: int, now_ms: int) -> int | None:
        """From when on figures of single SIMs count that can all be of the window that runs."""
        lasts_ms = self.lasts_s(window) * 1000
        return next((since for since in self.told_from_s[window] if since * 1000 + lasts_ms >= now_ms), None)

    def sim_tells(self, window: int, as_of_s: int, now_ms: int) -> None:
        """A figure of one of its SIMs is about to be taken: there is a sum, and in its second half the next one."""
        if self.pooled:
            since = self.told_from(window, now_ms)
            places = self.told_from_s[window]
            places = [] if since is None else places[places.index(since) :]
            half_s = self.lasts_s(window) // 2
            new = max(self.told_until_s[window] + 1, now_ms // 1000 - half_s)
            holds = (as_of_s + 2 * half_s) * 1000 >= now_ms
            places = places or [max(self.told_until_s[window] + 1, min(new, as_of_s)) if holds else new]
            if len(places) < 2 and (places[0] + half_s) * 1000 < now_ms:
                places = [*places, new]
            self.told_from_s[window] = places

    def sims_untold(self, window: int, since_s: int) -> None:
        """The window starts anew, as of then."""
        self.told_from_s[window] = [since_s] if self.pooled else []

    def pools(self, window: int) -> bool:
        return bool(self.pooled >> window & 1)

    def figured(self, window: int) -> bool:
        """Whether a figure of all its SIMs holds."""
        return self.pool_as_of_s[window] > 0 and self.pool_carrier[window] >= 0

    def forget_figure(self, window: int) -> None:
        """The window starts anew."""
        self.pool_corrections[window] = self.pool_straddling[window] = self.pool_raised[window] = 0
        self.pool_added[window] = 0
        self.pool_carrier[window] = -1 if self.pool_as_of_s[window] else 0

    @property
    def places(self) -> int:
        """Of the ring that are used."""
        return -(-(self.rolling_days - 1) // self.step_days)

    @property
    def step_days(self) -> int:
        """A ring of fourteen places has to do for any number of days."""
        return max(1, -(-(self.rolling_days - 1) // 14))


@dataclass(eq=False)
class SimModel:
    index: int
    iccid: int
    sim_class: int
    lot: int
    bank: int
    limit_bytes: int
    health: int
    offsets: list[int]
    occupancy: int = layout.FREE
    holder: TerminalModel | None = None
    counted_bytes: int = 0
    late: tuple[int, int] = (0, 0)
    """When something came last that may be of windows which begin later, and what had been counted before the first."""
    late_allowed_s: int = 0
    """When the last lease had ended for which something was allowed since."""
    cooling_until_ms: int = 0
    health_since_s: int = 0
    changed: tuple[int, int] = (0, 0)
    """A day, and how often it was given to another terminal in it."""
    held_by: OrderModel | None = None
    untrusted: bool = False
    """It was slowed before its reset, and has not shown since that it is fast."""
    days: list[int] = field(default_factory=list)
    """Of a rolling window: what the days before today that count used, the last one first, in whole 4 KiB."""
    days_told: list[int | None] = field(default_factory=list)
    """By place: the least that its carrier said of that day; None: nothing."""
    days_own: dict[int, int] = field(default_factory=dict)
    """By place of the days that it said something of: what we had counted."""
    corrections: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """By window: by how much the carrier's last figure is above our own count."""
    as_of_s: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    allowances: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """By window: what leases may have used that ended without their last report."""
    straddling: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """By window: what may have been used after the instant of the carrier's figure, and is taken to be before it."""
    carrier: list[int] = field(default_factory=lambda: [0] * layout.WINDOWS)
    """By window: the carrier's last figure."""
    unreported: tuple[int, int] = (0, 0)
    """The last of them, and what was allowed for it; below 0: what will be when the SIM has cooled."""
    unreported_told: int | None = None
    """What events have told as left of it; None: as much as is."""
    unreported_s: int = 0
    heard_s: int = 0
    """While it is assigned, or held after that: when a report was taken last, or the lease began."""
    claim: int = 0
    """What its lease may still use, of a pool."""
    revoke: OrderModel | None = None
    """The order that tells an access server to let go of it, which names it although it should not have it."""

    @property
    def held(self) -> int:
        """``Held``: because of its terminal, or of an access server that named it."""
        if self.held_by is None:
            return 0
        return layout.HELD_UNCOUNTED if self.held_by is self.revoke else layout.HELD_COUNTED

    def beside(self, window: int) -> int:
        return self.corrections[window] + self.allowances[window] + self.straddling[window]

    @property
    def headroom_bytes(self) -> int:
        return self.limit_bytes - self.counted_bytes

    @property
    def tier(self) -> int:
        """The tier in which it stands while it is free and healthy."""
        tier = tier_of(self.headroom_bytes)
        return min(tier, tier_of(256 * MIB)) if self.untrusted else tier


@dataclass(eq=False)
class TerminalModel:
    key: int
    subscriber: int = 0
    sim: SimModel | None = None
    epoch: int = 0
    expires_ms: int = 0
    reported_bytes: int = 0
    reported_s: int = 0
    """Its line, had it gone at its limit since the lease began, would have carried by then what was reported."""
    traffic_s: int = 0
    """When its lease began, or new bytes of it were reported."""
    counted_bytes: int = 0
    server: int = 0
    market: int = 0
    lease_market: int = 0
    """Of its lease, or the last one: another than ``market`` only while the next one begins."""
    expected_tier: int = 0
    swap: OrderModel | None = None
    swapped_ms: int = 0
    swaps_today: int = 0
    """On the day of swapped_ms."""
    named_in: int = 0
    last_sim: SimModel | None = None
    """Of its last lease, once that is over."""
    awaits: tuple[int, JobModel | None] | None = None
    """After a swap, until traffic is reported: when it was ordered, and its job."""
    protected_ms: int = 0
    """The last instant at which its lease was over and could not be ended."""


@dataclass(eq=False)
class EndedModel:
    """A lease that is over: of a terminal that has another one since, or a copy of its last."""

    epoch: int
    terminal: TerminalModel
    sim: SimModel
    subscriber: int
    server: int
    expected_tier: int
    reported_bytes: int
    reported_s: int

    @property
    def key(self) -> int:
        return self.terminal.key


@dataclass(eq=False)
class JobModel:
    id: int
    health_mask: int
    lot: int
    server: int
    listing: bool
    sweeping: bool
    state: int = layout.JOB_SELECTING
    options: Row = field(default_factory=dict)
    """The columns of its JOB_CREATE."""
    actor: int = 0
    approver: int | None = None
    listed: bool = False
    begun: bool = False
    canary: bool = False
    why: int = layout.WHY_NONE
    quiet: tuple[int, int] = (0, 0)
    settled_lately: int = 0
    failed_lately: int = 0
    demand: int = 0
    targets: int = 0
    without: list[int] = field(default_factory=lambda: [0] * layout.WITHOUTS)
    confirmed: int = 0
    outages: list[int] = field(default_factory=list)
    unmeasured: int = 0
    terminals: int = 0
    size_max: int | None = None
    """So many terminals it may take by its filter."""
    size_final: bool = False
    """That is what its check found and what its actor might still move alone."""
    beyond: int = 0


@dataclass(eq=False)
class OrderModel:
    kind: int
    terminal: TerminalModel
    source: SimModel | None
    server: int
    epoch: int
    job: JobModel | None = None
    ahead_ms: int = 0
    """How long before it is sent it is announced."""
    priority: int = layout.PRIORITY_STOP
    target: SimModel | None = None
    state: str = "queued"
    number: int = 0
    session: int = 0
    deadline_ms: int = 0
    attempts: int = 0
    orphaned: bool = False
    source_epoch: int = 0
    """Of the source's lease, once it is orphaned."""
    ordered_ms: int = 0
    """When it was last sent."""
    announced_ms: int = 0
    """The instant that was announced for it; 0: none was."""
    overdue: bool = False
    asked_ms: int = 0
    """When it was last asked for, while unknown."""

    @property
    def promised(self) -> bool:
        return self.announced_ms != 0 and not self.ordered_ms

    @property
    def in_flight(self) -> bool:
        return self.state != "queued"


@dataclass(eq=False)
class ServerModel:
    session: int = 0
    open_epoch: int = 0
    reconciled: bool = False
    reconciling: bool = False
    """From its hello until all that the hello did not name is settled."""
    outage_ms: int = 0
    paused: bool = False
    dead: bool = False
    dead_ms: int = 0
    """When what it held is freed; 0: not, or that was done."""
    awaited: str = ""
    """Since a restore: a hello, or its burial once it was declared dead since."""
    terminals_brought: int = 0
    subscribers_brought: int = 0
    strangers: tuple[int, int] = (0, 0)
    """A day, and how many subscribers nobody knew it named for leases that others have in it."""
    quarantines: tuple[int, int] = (0, 0)
    """A day, and how many SIMs were quarantined on its word in it."""


@dataclass(eq=False)
class Sweep:
    kind: str
    server: int = 0
    session: int = 0
    open_epoch: int = 0
    job: JobModel | None = None
    lot: int = 0
    window: int = 0
    cursor: int = 0
    end: int = 0
    lots: dict[int, set[int]] = field(default_factory=dict)
    """Of a walk over limits: the windows that count from now on, by lot."""


@dataclass
class SubscriberModel:
    day: date
    """The last one on which it was met."""
    day_bytes: int = 0
    month_bytes: int = 0
    group: int = 0
    told_month: int = 0
    told_day: int = 0
    told_of: tuple[int, int] = field(default=(0, 0), compare=False)
    """The rule, and how often it had come to act otherwise by then."""


@dataclass(frozen=True)
class RuleModel:
    name: bytes
    group: int
    month_bytes: int
    day_bytes: int
    warn_permille: int
    action: int
    slow_kbps: int
    published_day: int
    withdrawn: bool
    turns: int = field(default=0, compare=False)
    """How often it came to be for somebody, or to act otherwise."""


Row = dict[str, Any]


@dataclass
class Call:
    """One command: the header of its run, its columns, and what the core answered."""

    header: Row
    item: Row
    answer: Row


def lowest_bytes(tier: int) -> int:
    """The smallest headroom of a tier, found by trying."""
    if tier < 4:
        return tier * MIB
    power, quarter = divmod(tier + 4, 4)
    return ((1 << power) + quarter * (1 << power) // 4) * MIB


def tier_satisfying(expected_bytes: int) -> int:
    tier = tier_of(expected_bytes)
    return min(tier if lowest_bytes(tier) >= expected_bytes else tier + 1, layout.TIERS - 1)


def command_runs(batch: bytes) -> Iterator[tuple[Row, list[Row]]]:
    """The runs of a batch: the header and the items, one dict each."""
    offset = 0
    while offset < len(batch):
        header = np.frombuffer(batch, commands.RUN_HEADER, 1, offset)[0]
        place = offset + commands.RUN_HEADER.itemsize
        count = int(header["count"])
        columns = {}
        for name, code in commands.COMMAND_COLUMNS[int(header["kind"])]:
            columns[name] = np.frombuffer(batch, code, count, place).tolist()
            place += np.dtype(code).itemsize * count
        items = [{name: column[item] for name, column in columns.items()} for item in range(count)]
        yield {name: int(header[name]) for name in ("kind", "access_server", "argument", "actor")}, items
        offset += int(header["size"])

"""A naive model of the state machine: dicts and lists, one loop where the core has an index.

It reads the same batches as the core and says for each item which answers are allowed. What the core is free to choose
(which of the SIMs that fit, the numbers of epochs and orders, when exactly a queued order is sent) is checked for being
allowed and then followed. Everything else it works out for itself, and :meth:`Model.compare` finds any difference.

Time is exact as long as every instant and every setting is a multiple of the timing wheel's tick and a TICK has run at each new
instant before other commands come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simswitch.core import commands, layout
from simswitch.core.commands import OutcomeRun
from tests.model.invariants import MIB, tier_of
from tests.model.records import Table

OWN_TIER_TRIES = 8
USABLE = (layout.HEALTHY, layout.LOW)


class Mismatch(AssertionError):
    """The core did something that the model does not allow."""


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
    cooling_until_ms: int = 0
    held_by: OrderModel | None = None

    @property
    def headroom_bytes(self) -> int:
        return self.limit_bytes - self.counted_bytes


@dataclass(eq=False)
class TerminalModel:
    key: int
    sim: SimModel | None = None
    epoch: int = 0
    expires_ms: int = 0
    reported_bytes: int = 0
    reported_s: int = 0
    counted_bytes: int = 0
    server: int = 0
    market: int = 0
    expected_tier: int = 0
    swap: OrderModel | None = None
    swapped_ms: int = 0
    named_in: int = 0
    protected_ms: int = 0
    """The last instant at which its lease was over and could not be ended."""


@dataclass(eq=False)
class JobModel:
    id: int
    health_mask: int
    lot: int
    server: int
    listing: bool
    sweeping: bool
    state: int = layout.JOB_SELECTING
    confirmed: int = 0
    terminals: int = 0


@dataclass(eq=False)
class OrderModel:
    kind: int
    terminal: TerminalModel
    source: SimModel | None
    server: int
    epoch: int
    job: JobModel | None = None
    target: SimModel | None = None
    state: str = "queued"
    number: int = 0
    session: int = 0
    deadline_ms: int = 0
    attempts: int = 0
    orphaned: bool = False

    @property
    def in_flight(self) -> bool:
        return self.state != "queued"


@dataclass(eq=False)
class ServerModel:
    session: int = 0
    open_epoch: int = 0
    reconciled: bool = False
    acknowledged: int = 0
    """Answers since the last compare: without any the window can't grow."""


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


Row = dict[str, Any]


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
        yield {name: int(header[name]) for name in ("kind", "access_server", "argument")}, items
        offset += int(header["size"])


@dataclass(eq=False)
class Model:
    """The state as seen from outside. Take it from a machine's tables with :func:`model_of` before any SIM is imported."""

    markets: dict[int, tuple[int, list[int]]]
    """By entity: expected bytes and the classes in order of preference."""
    lots: dict[int, tuple[int, list[int], int, int]]
    """By entity: class, quotas of the windows, low and exhausted watermarks."""
    banks: set[int]
    reserves: dict[int, int]
    settings: dict[int, int]
    terminals_max: int
    sims_max: int
    orders_max: int
    now_ms: int
    servers: list[ServerModel]
    last_epoch: int = 0
    sims: list[SimModel] = field(default_factory=list)
    terminals: dict[int, TerminalModel] = field(default_factory=dict)
    orders: list[OrderModel] = field(default_factory=list)
    jobs: list[JobModel] = field(default_factory=list)
    masked: set[tuple[int, int]] = field(default_factory=set)
    sweeps: list[Sweep] = field(default_factory=list)
    counted_bytes: int = 0
    impossible_count: int = 0
    grace_until_ms: int = 0
    frozen: bool = False
    swaps_stopped: bool = False

    # -------------------------------------------------------------------------------------------- one apply

    def step(self, batch: bytes, outcomes: list[OutcomeRun], now_ms: int, tables: dict[str, Table]) -> None:
        """Follows one apply, whose outcomes and state afterwards are given; raises at the first thing not allowed."""
        if now_ms != self.now_ms:
            self.now_ms = now_ms
            self._timers(tables)
        runs = list(command_runs(batch))
        self._require(len(outcomes) == len(runs) + 1, "one outcome run for each command run, then the orders")
        for (header, items), outcome in zip(runs, outcomes[:-1], strict=True):
            self._require(outcome.kind == header["kind"] and outcome.count == len(items), "outcomes in request order")
            names = [name for name, _ in commands.OUTCOME_COLUMNS[outcome.kind]]
            columns = {name: outcome[name].tolist() for name in names}
            for position, item in enumerate(items):
                answer = {name: columns[name][position] for name in names}
                allowed = self._command(header, item, answer)
                if answer["status"] not in allowed:
                    raise Mismatch(f"command {header} {item} was answered {answer}; allowed are {sorted(allowed)}")
        self._run_sweeps()
        sent = outcomes[-1]
        names = [name for name, _ in commands.OUTCOME_COLUMNS[commands.ORDERS]]
        columns = {name: sent[name].tolist() for name in names}
        for position in range(sent.count):
            self._sent({name: columns[name][position] for name in names}, tables)
        self._finish_jobs()
        self.compare(tables)

    @staticmethod
    def _require(truth: bool, what: str) -> None:
        if not truth:
            raise Mismatch(what)

    def _command(self, header: Row, item: Row, answer: Row) -> set[int]:
        self._finish_jobs()
        kind = header["kind"]
        if kind in (layout.RENEW, layout.RELEASE, layout.REPORT_USAGE, layout.REPORT_ATTACH_FAILURE):
            return {self._on_lease(kind, item, answer)}
        handler = _HANDLERS.get(kind)
        if handler is None:
            raise Mismatch(f"the model has no command {kind}")
        return handler(self, header, item, answer)

    # --------------------------------------------------------------------------------------------- SIMs

    def _free_healthy(self, sim_class: int) -> list[SimModel]:
        return [
            sim
            for sim in self.sims
            if sim.sim_class == sim_class
            and sim.occupancy == layout.FREE
            and sim.health == layout.HEALTHY
            and (sim.lot, sim.bank) not in self.masked
        ]

    def _must_find(self, sim_class: int, expected: int) -> bool:
        """Whether the class has a SIM that selection may not miss."""
        free = self._free_healthy(sim_class)
        tier = tier_satisfying(expected)
        if any(tier_of(sim.headroom_bytes) >= tier and sim.headroom_bytes >= expected for sim in free):
            return True
        own = [sim for sim in free if tier_of(sim.headroom_bytes) == tier - 1]
        return len(own) <= OWN_TIER_TRIES and any(sim.headroom_bytes >= expected for sim in own)

    def _check_choice(self, sim: SimModel, market: int, expected: int, what: str, reserve: bool) -> None:
        """I4, and good fit: the first class that can serve, its tightest tier in which every SIM will do."""
        self._require(sim.occupancy == layout.FREE, f"I4: {what} got SIM {sim.index}, which is not free")
        self._require(sim.health == layout.HEALTHY, f"I4: {what} got SIM {sim.index}, which is not healthy")
        self._require(sim.headroom_bytes >= expected, f"I4: {what} got SIM {sim.index} with too little left")
        self._require((sim.lot, sim.bank) not in self.masked, f"{what} got SIM {sim.index} of a masked group")
        classes = self.markets[market][1]
        self._require(sim.sim_class in classes, f"{what} got SIM {sim.index} of a class that does not serve the market")
        for earlier in classes[: classes.index(sim.sim_class)]:
            spared = reserve and len(self._free_healthy(earlier)) <= self.reserves[earlier]
            self._require(spared or not self._must_find(earlier, expected), f"{what} passed class {earlier} over")
        tiers = {tier_of(other.headroom_bytes) for other in self._free_healthy(sim.sim_class)}
        satisfying = [tier for tier in tiers if tier >= tier_satisfying(expected)]
        if satisfying:
            self._require(tier_of(sim.headroom_bytes) == min(satisfying), f"{what} did not get the tightest tier")

    def _judge(self, sim: SimModel) -> None:
        """Healthy, low or exhausted by our own count; what others found stays."""
        if sim.health > layout.EXHAUSTED:
            return
        _, _, low, exhausted = self.lots[sim.lot]
        if sim.headroom_bytes < exhausted:
            sim.health = layout.EXHAUSTED
        elif sim.headroom_bytes < low:
            sim.health = layout.LOW
        else:
            sim.health = layout.HEALTHY

    def _set_limit(self, sim: SimModel) -> None:
        quotas = self.lots[sim.lot][1]
        sim.limit_bytes = min(
            (quota - offset for quota, offset in zip(quotas, sim.offsets, strict=True) if quota >= 0),
            default=2**63 - 1,
        )
        self._judge(sim)

    def _cool(self, sim: SimModel) -> None:
        sim.occupancy = layout.COOLING
        sim.held_by = None
        sim.cooling_until_ms = self.now_ms + self.settings[layout.COOLING_MS]

    def _hold(self, sim: SimModel, terminal: TerminalModel, order: OrderModel) -> None:
        sim.occupancy = layout.COOLING
        sim.holder = terminal
        sim.held_by = order

    # ------------------------------------------------------------------------------------------- leases

    def _begin(self, terminal: TerminalModel, sim: SimModel, epoch: int) -> None:
        sim.occupancy = layout.ASSIGNED
        sim.holder = terminal
        sim.held_by = None
        terminal.sim = sim
        terminal.epoch = epoch
        terminal.reported_bytes = 0
        terminal.reported_s = self.now_ms // 1000
        self._extend(terminal)

    def _extend(self, terminal: TerminalModel) -> None:
        terminal.expires_ms = self.now_ms + self.settings[layout.LEASE_MS]

    def _new_epoch(self, epoch: int) -> int:
        self._require(epoch > self.last_epoch, f"epoch {epoch} is not above every earlier one, {self.last_epoch}")
        self.last_epoch = epoch
        return epoch

    def _leave_swap(self, terminal: TerminalModel, source_let_go: bool) -> None:
        order = terminal.swap
        if order is None:
            return
        terminal.swap = None
        if not order.in_flight:
            self.orders.remove(order)
            return
        assert order.target is not None
        assert order.source is not None
        order.orphaned = True
        order.job = None
        self._hold(order.target, terminal, order)
        if source_let_go:
            order.source = None
        else:
            self._hold(order.source, terminal, order)

    def _release(self, terminal: TerminalModel) -> None:
        sim = terminal.sim
        assert sim is not None
        self._leave_swap(terminal, source_let_go=True)
        terminal.sim = None
        self._cool(sim)

    def _take_away(self, terminal: TerminalModel, kind: int) -> None:
        sim = terminal.sim
        assert sim is not None
        self._leave_swap(terminal, source_let_go=False)
        terminal.sim = None
        order = OrderModel(kind, terminal, sim, terminal.server, terminal.epoch)
        self.orders.append(order)
        self._hold(sim, terminal, order)

    def _replace(self, terminal: TerminalModel, server: int) -> None:
        if terminal.swap is not None and terminal.swap.in_flight:
            self._leave_swap(terminal, source_let_go=False)
            terminal.sim = None
        elif terminal.server == server:
            self._release(terminal)
        else:
            self._take_away(terminal, layout.STOP)

    def _check_grant(self, terminal: TerminalModel, answer: Row) -> None:
        sim = terminal.sim
        assert sim is not None
        expected = {
            "epoch": terminal.epoch,
            "expires_ms": terminal.expires_ms,
            "iccid": sim.iccid,
            "sim": sim.index,
            "retry_after_ms": 0,
            "bank": sim.bank,
        }
        for name, value in expected.items():
            self._require(answer[name] == value, f"{name} of the lease is {value}, not {answer[name]}")

    def _refused_for_now(self, answer: Row) -> None:
        base = self.settings[layout.RETRY_AFTER_MS]
        self._require(base <= answer["retry_after_ms"] <= 2 * base, f"advice {answer['retry_after_ms']} is not jittered")

    # ----------------------------------------------------------------------------------------- commands

    def _known_server(self, header: Row) -> bool:
        return bool(header["access_server"] < len(self.servers))

    def _allocate(self, header: Row, item: Row, answer: Row) -> set[int]:
        server, market = header["access_server"], item["market"]
        if not self._known_server(header):
            return {layout.UNKNOWN_ACCESS_SERVER}
        if market not in self.markets:
            return {layout.UNKNOWN_MARKET}
        terminal = self.terminals.get(item["terminal"])
        if terminal is not None and terminal.sim is not None:
            if terminal.server == server and terminal.market == market and terminal.sim.health in USABLE:
                self._extend(terminal)
                self._check_grant(terminal, answer)
                return {layout.SAME}
            in_flight = terminal.swap is not None and terminal.swap.in_flight
            if terminal.server != server and not in_flight and len(self.orders) == self.orders_max:
                return {layout.ORDERS_FULL}
        elif terminal is None and len(self.terminals) == self.terminals_max:
            return {layout.TERMINALS_FULL}
        expected = max(item["expected_bytes"] or self.markets[market][0], self.settings[layout.EXPECTED_FLOOR_BYTES])
        if answer["status"] == layout.NO_HEALTHY_SIM:
            self._refused_for_now(answer)
            for sim_class in self.markets[market][1]:
                self._require(not self._must_find(sim_class, expected), f"refused, but class {sim_class} has a SIM")
            return {layout.NO_HEALTHY_SIM}
        self._require(answer["sim"] < len(self.sims), f"an allocation was answered {answer}")
        sim = self.sims[answer["sim"]]
        self._check_choice(sim, market, expected, f"the allocation of terminal {item['terminal']}", reserve=False)
        status = layout.OK
        if terminal is None:
            terminal = self.terminals[item["terminal"]] = TerminalModel(item["terminal"])
        elif terminal.sim is not None:
            self._replace(terminal, server)
            status = layout.MOVED
        terminal.server, terminal.market = server, market
        terminal.expected_tier = tier_satisfying(expected)
        self._begin(terminal, sim, self._new_epoch(answer["epoch"]))
        self._check_grant(terminal, answer)
        return {status}

    def _by_epoch(self, terminal: TerminalModel | None, epoch: int, traffic: bool) -> int:
        """What a command that names a lease meets; traffic under an outstanding switch's epoch confirms the switch."""
        if terminal is None:
            return layout.UNKNOWN_TERMINAL
        if terminal.sim is None:
            return layout.NO_LEASE
        if terminal.epoch == epoch:
            return layout.OK
        order = terminal.swap
        if traffic and order is not None and order.in_flight and order.epoch == epoch:
            self.servers[order.server].acknowledged += 1
            self._confirm(order)
            return layout.OK
        return layout.STALE_EPOCH

    def _on_lease(self, kind: int, item: Row, answer: Row) -> int:
        terminal = self.terminals.get(item["terminal"])
        status = self._by_epoch(terminal, item["epoch"], kind in (layout.RENEW, layout.REPORT_USAGE))
        if status != layout.OK:
            return status
        assert terminal is not None
        assert terminal.sim is not None
        if kind == layout.RENEW:
            self._extend(terminal)
            self._require(answer["expires_ms"] == terminal.expires_ms, f"expiry {answer} is not {terminal.expires_ms}")
        elif kind == layout.RELEASE:
            self._release(terminal)
        elif kind == layout.REPORT_USAGE:
            return self._usage(terminal, item["up_bytes"] + item["down_bytes"])
        else:
            return self._attach_failure(terminal, answer)
        return layout.OK

    def _usage(self, terminal: TerminalModel, total: int) -> int:
        assert terminal.sim is not None
        line = self.settings[layout.LINE_BYTES_PER_S]
        delta = total - terminal.reported_bytes
        if total < 2**64 and delta <= 0:
            return layout.LATE
        if total >= 2**64 or delta // line >= self.now_ms // 1000 - terminal.reported_s + 2:
            self.impossible_count += 1
            return layout.IMPOSSIBLE_USAGE
        terminal.reported_bytes = total
        terminal.reported_s = self.now_ms // 1000
        terminal.counted_bytes += delta
        terminal.sim.counted_bytes += delta
        self.counted_bytes += delta
        self._extend(terminal)
        self._judge(terminal.sim)
        return layout.OK

    def _attach_failure(self, terminal: TerminalModel, answer: Row) -> int:
        old = terminal.sim
        assert old is not None
        if old.health != layout.RETIRED:
            old.health = layout.QUARANTINED
        self._replace(terminal, terminal.server)
        expected = lowest_bytes(terminal.expected_tier)
        if answer["status"] == layout.NO_HEALTHY_SIM:
            self._refused_for_now(answer)
            for sim_class in self.markets[terminal.market][1]:
                self._require(not self._must_find(sim_class, expected), f"refused, but class {sim_class} has a SIM")
            return layout.NO_HEALTHY_SIM
        self._require(answer["sim"] < len(self.sims), f"an attach failure was answered {answer}")
        sim = self.sims[answer["sim"]]
        self._check_choice(sim, terminal.market, expected, f"the failed terminal {terminal.key}", reserve=False)
        self._begin(terminal, sim, self._new_epoch(answer["epoch"]))
        self._check_grant(terminal, answer)
        return layout.MOVED

    def _sim(self, iccid: int) -> SimModel | None:
        return next((sim for sim in self.sims if sim.iccid == iccid), None)

    def _adopt(self, header: Row, item: Row, answer: Row) -> set[int]:
        sim = self._sim(item["iccid"])
        terminal = self.terminals.get(item["terminal"])
        if not self._known_server(header):
            return {layout.UNKNOWN_ACCESS_SERVER}
        if item["market"] not in self.markets:
            return {layout.UNKNOWN_MARKET}
        if sim is None:
            return {layout.UNKNOWN_SIM}
        if terminal is not None and terminal.sim is not None:
            return {layout.SAME if terminal.sim is sim else layout.TERMINAL_IN_USE}
        if sim.occupancy in (layout.ASSIGNED, layout.RESERVED) or sim.held_by is not None:
            return {layout.SIM_IN_USE}
        if terminal is None:
            if len(self.terminals) == self.terminals_max:
                return {layout.TERMINALS_FULL}
            terminal = self.terminals[item["terminal"]] = TerminalModel(item["terminal"])
        expected = max(
            item["expected_bytes"] or self.markets[item["market"]][0], self.settings[layout.EXPECTED_FLOOR_BYTES]
        )
        terminal.server, terminal.market = header["access_server"], item["market"]
        terminal.expected_tier = tier_satisfying(expected)
        self._begin(terminal, sim, self._new_epoch(answer["epoch"]))
        self._check_grant(terminal, answer)
        return {layout.OK}

    def _import_sims(self, header: Row, item: Row, answer: Row) -> set[int]:
        if item["lot"] not in self.lots:
            return {layout.UNKNOWN_LOT}
        if item["bank"] not in self.banks:
            return {layout.UNKNOWN_BANK}
        known = self._sim(item["iccid"])
        if known is not None:
            return {layout.SAME, layout.ICCID_DIFFERS}
        if len(self.sims) == self.sims_max:
            return {layout.SIMS_FULL}
        if answer["status"] != layout.OK:
            return {layout.OK}
        openings = [item["opening_cycle_bytes"], item["opening_day_bytes"], item["opening_rolling_bytes"]]
        sim = SimModel(
            len(self.sims), item["iccid"], self.lots[item["lot"]][0], item["lot"], item["bank"], 0, item["health"], openings
        )
        self._set_limit(sim)
        self._require(answer["sim"] == sim.index, f"SIM {sim.index} was given the index {answer['sim']}")
        self.sims.append(sim)
        return {layout.OK}

    def _set_health(self, header: Row, item: Row, answer: Row) -> set[int]:
        sim = self._sim(item["iccid"])
        health = item["health"]
        if not layout.HEALTHY <= health <= layout.RETIRED:
            return {layout.INVALID_ARGUMENT}
        if sim is None:
            return {layout.UNKNOWN_SIM}
        if sim.health == health:
            return {layout.SAME}
        if sim.health == layout.RETIRED:
            return {layout.WRONG_STATE}
        sim.health = health
        if health == layout.HEALTHY:
            self._judge(sim)
        return {layout.OK}

    def _mask(self, header: Row, item: Row, answer: Row) -> set[int]:
        lot, bank, masked = item["lot"], item["bank"], item["masked"]
        if answer["status"] in (layout.OK, layout.SAME):
            for sim in self.sims:
                if lot in (layout.NONE_SHORT, sim.lot) and bank in (layout.NONE_SHORT, sim.bank):
                    (self.masked.add if masked else self.masked.discard)((sim.lot, sim.bank))
        if lot != layout.NONE_SHORT and lot not in self.lots:
            return {layout.UNKNOWN_LOT}
        if bank != layout.NONE_SHORT and bank not in self.banks:
            return {layout.UNKNOWN_BANK}
        return {layout.OK, layout.SAME} if masked <= 1 else {layout.INVALID_ARGUMENT}

    def _reset_window(self, header: Row, item: Row, answer: Row) -> set[int]:
        if item["lot"] not in self.lots:
            return {layout.UNKNOWN_LOT}
        if not 1 <= item["window"] <= 3:
            return {layout.INVALID_ARGUMENT}
        if self.frozen:
            return {layout.WRONG_STATE}
        self.sweeps.append(Sweep("reset", lot=item["lot"], window=item["window"], end=len(self.sims)))
        return {layout.OK}

    def _configure(self, header: Row, item: Row, answer: Row) -> set[int]:
        if answer["status"] in (layout.OK, layout.SAME):
            self.settings[item["setting"]] = item["value"]
        return {layout.OK, layout.SAME, layout.INVALID_ARGUMENT}

    def _grow(self, header: Row, item: Row, answer: Row) -> set[int]:
        if answer["status"] == layout.OK:
            self.sims_max = max(self.sims_max, item["sims"])
            self.terminals_max = max(self.terminals_max, item["terminals"])
            self.orders_max = max(self.orders_max, item["orders"])
        return {layout.OK, layout.SAME}

    def _flag(self, header: Row, item: Row, answer: Row) -> set[int]:
        kind = header["kind"]
        if kind in (layout.FREEZE, layout.THAW):
            before, self.frozen = self.frozen, kind == layout.FREEZE
            return {layout.SAME if before == self.frozen else layout.OK}
        before, self.swaps_stopped = self.swaps_stopped, kind == layout.SWAPS_STOP
        return {layout.SAME if before == self.swaps_stopped else layout.OK}

    # ----------------------------------------------------------------------------------------- sessions

    def _session(self, header: Row) -> int:
        if not self._known_server(header):
            return layout.UNKNOWN_ACCESS_SERVER
        if header["argument"] == 0 or self.servers[header["access_server"]].session != header["argument"]:
            return layout.STALE_SESSION
        return layout.OK

    def _session_open(self, header: Row, item: Row, answer: Row) -> set[int]:
        if not self._known_server(header):
            return {layout.UNKNOWN_ACCESS_SERVER}
        server = self.servers[header["access_server"]]
        earlier = max(other.session for other in self.servers)
        self._require(answer["session"] > earlier, f"session {answer['session']} is not above {earlier}")
        server.session = answer["session"]
        server.open_epoch = self.last_epoch + 1
        server.reconciled = False
        return {layout.OK}

    def _session_holds(self, header: Row, item: Row, answer: Row) -> set[int]:
        status = self._session(header)
        if status != layout.OK:
            return {status}
        sim = self._sim(item["iccid"])
        if sim is None:
            return {layout.UNKNOWN_SIM}
        terminal = self.terminals.get(item["terminal"])
        if terminal is None:
            return self._revoke(item["terminal"], sim, item["epoch"], header["access_server"])
        if terminal.sim is not None and terminal.server == header["access_server"]:
            order = terminal.swap
            if order is not None and order.in_flight and order.session != header["argument"]:
                if order.target is sim:
                    terminal.named_in = header["argument"]
                    self._confirm(order)
                    return {layout.SETTLED}
                if order.source is sim:
                    terminal.named_in = header["argument"]
                    self._requeue(order)
                    return {layout.SETTLED}
            if terminal.sim is sim:
                terminal.named_in = header["argument"]
                return {layout.SAME}
        elif (
            terminal.sim is None
            and terminal.server == header["access_server"]
            and terminal.epoch == item["epoch"]
            and sim.holder is terminal
            and sim.occupancy in (layout.FREE, layout.COOLING)
            and not (sim.held_by is not None and sim.held_by.orphaned)
        ):
            if sim.held_by is not None:
                self._abandon(sim.held_by)
            terminal.named_in = header["argument"]
            self._begin(terminal, sim, item["epoch"])
            return {layout.OK}
        return self._revoke(item["terminal"], sim, item["epoch"], header["access_server"])

    def _revoke(self, key: int, sim: SimModel, epoch: int, server: int) -> set[int]:
        if sim.held_by is not None and sim.held_by.server == server:
            return {layout.REVOKED}
        if len(self.orders) == self.orders_max:
            return {layout.ORDERS_FULL}
        if key not in self.terminals:
            if len(self.terminals) == self.terminals_max:
                return {layout.TERMINALS_FULL}
            self.terminals[key] = TerminalModel(key)
        order = OrderModel(layout.REVOKE, self.terminals[key], sim, server, epoch)
        self.orders.append(order)
        if sim.occupancy == layout.FREE or (sim.occupancy == layout.COOLING and sim.held_by is None):
            self._hold(sim, self.terminals[key], order)
        return {layout.REVOKED}

    def _session_ready(self, header: Row, item: Row, answer: Row) -> set[int]:
        status = self._session(header)
        if status != layout.OK:
            return {status}
        server = self.servers[header["access_server"]]
        if server.reconciled:
            return {layout.SAME}
        server.reconciled = True
        for kind in ("reconcile_orders", "reconcile_leases"):
            self.sweeps.append(Sweep(kind, header["access_server"], header["argument"], server.open_epoch))
        return {layout.OK}

    def _session_close(self, header: Row, item: Row, answer: Row) -> set[int]:
        status = self._session(header)
        if status == layout.OK:
            self.servers[header["access_server"]].session = 0
        return {status}

    def _restart(self, header: Row, item: Row, answer: Row) -> set[int]:
        for server in self.servers:
            server.session = 0
            server.reconciled = False
        self.grace_until_ms = self.now_ms + 2 * self.settings[layout.LEASE_MS]
        return {layout.OK}

    def _report_load(self, header: Row, item: Row, answer: Row) -> set[int]:
        return {self._session(header)}

    def _tick(self, header: Row, item: Row, answer: Row) -> set[int]:
        return {layout.OK}

    # ------------------------------------------------------------------------------------------- orders

    def _acknowledge(self, header: Row, item: Row, answer: Row) -> set[int]:
        status = self._session(header)
        if status != layout.OK:
            return {status}
        if not layout.ACK_DONE <= item["result"] <= layout.ACK_BUSY:
            return {layout.INVALID_ARGUMENT}
        order = next((order for order in self.orders if order.in_flight and order.number == item["order"]), None)
        if order is None:
            return {layout.LATE}
        if order.server != header["access_server"] or order.session != header["argument"]:
            return {layout.STALE_SESSION}
        self.servers[order.server].acknowledged += 1
        if item["result"] == layout.ACK_DONE:
            self._confirm(order)
        else:
            self._refused(order, busy=item["result"] == layout.ACK_BUSY)
        return {layout.OK}

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
                self._cool(source)
            self._become_stop(order, target)
            return
        self._cool(target)
        if source is not None:
            self._become_stop(order, source)
        else:
            self.orders.remove(order)

    def _confirm(self, order: OrderModel) -> None:
        if order.orphaned:
            self._settle_orphan(order, switched=True)
            return
        self.orders.remove(order)
        source = order.source
        assert source is not None
        if order.kind != layout.SWITCH:
            if source.held_by is order:
                self._cool(source)
            return
        terminal, target = order.terminal, order.target
        assert target is not None
        self._require(terminal.sim is source, "I9: the source was lost before the target was confirmed")
        self._cool(source)
        terminal.swap = None
        terminal.server = order.server
        self._begin(terminal, target, order.epoch)
        terminal.swapped_ms = self.now_ms
        if order.job is not None:
            order.job.confirmed += 1

    def _return_target(self, order: OrderModel) -> None:
        if order.target is not None:
            order.target.occupancy = layout.FREE
            order.target = None

    def _drop_swap(self, order: OrderModel) -> None:
        self.orders.remove(order)
        order.terminal.swap = None

    def _refused(self, order: OrderModel, busy: bool) -> None:
        if order.orphaned:
            self._settle_orphan(order, switched=False)
            return
        self._return_target(order)
        order.state = "queued"
        cancelled = order.job is not None and order.job.state == layout.JOB_CANCELLED
        if not busy:
            order.attempts += 1
        given_up = order.kind == layout.SWITCH and order.attempts >= self.settings[layout.ATTEMPTS_MAX] and not busy
        if given_up or cancelled:
            self._drop_swap(order)

    def _requeue(self, order: OrderModel) -> None:
        if order.orphaned:
            self._settle_orphan(order, switched=False)
            return
        self._return_target(order)
        order.state = "queued"
        if order.job is not None and order.job.state == layout.JOB_CANCELLED:
            self._drop_swap(order)

    def _abandon(self, order: OrderModel) -> None:
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

    def _sent(self, row: Row, tables: dict[str, Table]) -> None:
        """An order left: it was wanted, its access server may take it, its target fits (I3, I4, I7)."""
        order = next(
            (
                order
                for order in self.orders
                if not order.in_flight
                and (order.kind, order.terminal.key, order.server) == (row["kind"], row["terminal"], row["access_server"])
                and order.source is not None
                and order.source.iccid == row["source_iccid"]
            ),
            None,
        )
        if order is None:
            raise Mismatch(f"nobody asked for the order {row}")
        server = self.servers[order.server]
        record = tables["servers"][order.server]
        self._require(server.session != 0 and row["session"] == server.session, f"order to another session: {row}")
        self._require(record["gate"] in (layout.GATE_OPEN, layout.GATE_PROBING), f"order through a closed gate: {row}")
        self._require(record["outstanding"] <= record["window"], f"I3: sent above the window of {record['window']}")
        order.state = "outstanding"
        order.number, order.session, order.deadline_ms = row["order"], row["session"], row["deadline_ms"]
        self._require(row["deadline_ms"] == self.now_ms + self.settings[layout.ORDER_DEADLINE_MS], f"deadline of {row}")
        if order.kind != layout.SWITCH:
            return
        self._require(not self.swaps_stopped, f"a swap was sent while swaps are stopped: {row}")
        paused = order.job is not None and order.job.state == layout.JOB_PAUSED
        self._require(not paused, f"a swap of a paused job was sent: {row}")
        target = self._sim(row["target_iccid"])
        if target is None:
            raise Mismatch(f"the target of {row} is no SIM")
        terminal = order.terminal
        self._check_choice(target, terminal.market, lowest_bytes(terminal.expected_tier), "a swap", reserve=True)
        left = len(self._free_healthy(target.sim_class)) - 1
        self._require(left >= self.reserves[target.sim_class], f"I7: the swap {row} went below the reserve")
        target.occupancy = layout.RESERVED
        target.holder = terminal
        order.target = target
        order.epoch = self._new_epoch(row["epoch"])

    # --------------------------------------------------------------------------------------------- jobs

    def _job_create(self, header: Row, item: Row, answer: Row) -> set[int]:
        if not 1 <= item["priority"] < layout.PRIORITIES or item["selecting"] > 1 or item["health_mask"] >= 1 << 10:
            return {layout.INVALID_ARGUMENT}
        if item["server"] != layout.NONE_SHORT and item["server"] >= len(self.servers):
            return {layout.UNKNOWN_ACCESS_SERVER}
        if item["lot"] != layout.NONE_SHORT and item["lot"] not in self.lots:
            return {layout.UNKNOWN_LOT}
        if answer["status"] != layout.OK:
            return {layout.JOBS_FULL, layout.SWEEPS_FULL}
        self._require(answer["job"] == len(self.jobs), f"job {len(self.jobs)} was given the number {answer['job']}")
        sweeping = bool(item["selecting"])
        job = JobModel(answer["job"], item["health_mask"], item["lot"], item["server"], not sweeping, sweeping)
        self.jobs.append(job)
        if sweeping:
            self.sweeps.append(Sweep("select", job=job, end=len(self.sims)))
        return {layout.OK}

    def _find_job(self, header: Row) -> JobModel | None:
        return self.jobs[header["argument"]] if header["argument"] < len(self.jobs) else None

    def _job_add(self, header: Row, item: Row, answer: Row) -> set[int]:
        job = self._find_job(header)
        if job is None:
            return {layout.UNKNOWN_JOB}
        if not job.listing:
            return {layout.WRONG_STATE}
        terminal = self.terminals.get(item["terminal"])
        if terminal is None:
            return {layout.UNKNOWN_TERMINAL}
        return {self._add(job, terminal)}

    def _add(self, job: JobModel, terminal: TerminalModel) -> int:
        if terminal.sim is None:
            return layout.NO_LEASE
        if terminal.swap is not None:
            return layout.SAME
        resting = terminal.swapped_ms and terminal.swapped_ms + self.settings[layout.SWAP_COOL_DOWN_MS] > self.now_ms
        if resting and terminal.sim.health != layout.THROTTLED:
            return layout.WRONG_STATE
        if len(self.orders) == self.orders_max:
            return layout.ORDERS_FULL
        order = OrderModel(layout.SWITCH, terminal, terminal.sim, terminal.server, 0, job)
        self.orders.append(order)
        terminal.swap = order
        job.terminals += 1
        return layout.OK

    def _job_change(self, header: Row, item: Row, answer: Row) -> set[int]:
        job, kind = self._find_job(header), header["kind"]
        if job is None:
            return {layout.UNKNOWN_JOB}
        if job.state in (layout.JOB_DONE, layout.JOB_CANCELLED):
            again = kind == layout.JOB_CANCEL and job.state == layout.JOB_CANCELLED
            return {layout.SAME if again else layout.WRONG_STATE}
        if kind == layout.JOB_PAUSE:
            before, job.state = job.state, layout.JOB_PAUSED
            return {layout.SAME if before == layout.JOB_PAUSED else layout.OK}
        if kind == layout.JOB_RESUME:
            return {self._resume(job)}
        job.state = layout.JOB_CANCELLED
        job.listing = job.sweeping = False
        self.sweeps.append(Sweep("cancel", job=job))
        return {layout.OK}

    def _resume(self, job: JobModel) -> int:
        if job.state == layout.JOB_RUNNING:
            return layout.SAME
        if job.state == layout.JOB_SELECTING:
            if job.sweeping:
                return layout.SAME
            job.listing = False
            job.state = layout.JOB_RUNNING
            self._finish_jobs()
            return layout.OK
        job.state = layout.JOB_SELECTING if job.listing or job.sweeping else layout.JOB_RUNNING
        return layout.OK

    def _finish_jobs(self) -> None:
        for job in self.jobs:
            if job.state in (layout.JOB_RUNNING, layout.JOB_PAUSED, layout.JOB_SELECTING):
                waits = job.listing or job.sweeping or any(order.job is job for order in self.orders)
                if not waits:
                    job.state = layout.JOB_DONE

    # ------------------------------------------------------------------------------------ time and sweeps

    def _timers(self, tables: dict[str, Table]) -> None:
        """What time alone does. When exactly a lease that is over ends is left to the core, within a bound."""
        for sim in self.sims:
            cools = sim.occupancy == layout.COOLING and sim.held_by is None
            if cools and sim.cooling_until_ms <= self.now_ms:
                sim.occupancy = layout.FREE
        for order in self.orders:
            if order.state == "outstanding" and order.deadline_ms <= self.now_ms:
                order.state = "unknown"
        over = [
            (terminal, tables["terminals"][index]["sim"] == layout.NONE_INDEX)
            for index, terminal in enumerate(self.terminals.values())
            if terminal.sim is not None and terminal.expires_ms <= self.now_ms
        ]
        # Those that ended come first: they may have taken the last orders from those that go on.
        for terminal, ended in over:
            if ended:
                self._require(not self._protected(terminal), f"the lease of terminal {terminal.key} may not end now")
                self._take_away(terminal, layout.REVOKE)
        full = len(self.orders) >= self.orders_max
        for terminal, ended in over:
            if ended:
                continue
            if full or self._protected(terminal):
                terminal.protected_ms = self.now_ms
            else:
                asked_again_ms = terminal.protected_ms + self.settings[layout.LEASE_MS]
                bound = max(terminal.expires_ms, asked_again_ms, self.grace_until_ms)
                self._require(self.now_ms < bound + 64, f"the lease of terminal {terminal.key} is over and goes on")

    def _protected(self, terminal: TerminalModel) -> bool:
        """Whether a lease that is over goes on, since nobody can know whether it is in use."""
        graced = not self.servers[terminal.server].reconciled and self.now_ms < self.grace_until_ms
        swapping = terminal.swap is not None and terminal.swap.in_flight
        return self.frozen or graced or swapping

    def _run_sweeps(self) -> None:
        """Work in progress, first come first served; what waits for an order to become free lets the others go on."""
        waits = len(self.sweeps)
        while self.sweeps and waits:
            sweep = self.sweeps.pop(0)
            if not self._run_sweep(sweep):
                self.sweeps.append(sweep)
                waits -= 1

    def _run_sweep(self, sweep: Sweep) -> bool:
        if sweep.kind == "reset":
            for sim in self.sims[: sweep.end]:
                if sim.lot == sweep.lot:
                    sim.offsets[sweep.window - 1] = -sim.counted_bytes
                    self._set_limit(sim)
        elif sweep.job is not None:
            return self._job_sweep(sweep, sweep.job)
        elif self.servers[sweep.server].session == sweep.session:
            self._reconcile(sweep)
        return True

    def _job_sweep(self, sweep: Sweep, job: JobModel) -> bool:
        if sweep.kind == "cancel":
            for order in [order for order in self.orders if order.job is job and not order.in_flight]:
                self._drop_swap(order)
            return True
        if job.state == layout.JOB_CANCELLED:
            return True
        while sweep.cursor < sweep.end:
            sim = self.sims[sweep.cursor]
            if self._selects(job, sim) and sim.holder is not None and self._add(job, sim.holder) == layout.ORDERS_FULL:
                return False
            sweep.cursor += 1
        job.sweeping = False
        if job.state == layout.JOB_SELECTING:
            job.state = layout.JOB_RUNNING
        return True

    @staticmethod
    def _selects(job: JobModel, sim: SimModel) -> bool:
        if sim.occupancy != layout.ASSIGNED or sim.holder is None:
            return False
        if job.health_mask and not job.health_mask >> sim.health & 1:
            return False
        return job.lot in (layout.NONE_SHORT, sim.lot) and job.server in (layout.NONE_SHORT, sim.holder.server)

    def _reconcile(self, sweep: Sweep) -> None:
        def gone(terminal: TerminalModel) -> bool:
            here = terminal.sim is not None and terminal.server == sweep.server
            return here and terminal.named_in != sweep.session and terminal.epoch < sweep.open_epoch

        if sweep.kind == "reconcile_orders":
            for order in list(self.orders):
                if order.server != sweep.server or not order.in_flight or order.session == sweep.session:
                    continue
                if order.kind != layout.SWITCH:
                    self._requeue(order)
                    continue
                self._abandon(order)
                if order.terminal.swap is None and gone(order.terminal):
                    self._release(order.terminal)
        else:
            for terminal in self.terminals.values():
                if gone(terminal):
                    self._release(terminal)

    # ------------------------------------------------------------------------------------------ compare

    def compare(self, tables: dict[str, Table]) -> None:
        """Every SIM, terminal, order, job and total against the core's records."""
        header = tables["header"][0]
        numbers = {id(terminal): index for index, terminal in enumerate(self.terminals.values())}
        self._require(header["sims_count"] == len(self.sims), "the number of SIMs")
        self._require(header["terminals_count"] == len(self.terminals), "the number of terminals")
        for sim, record in zip(self.sims, tables["sims"], strict=False):
            self._same(
                f"SIM {sim.index}",
                record,
                occupancy=sim.occupancy,
                health=sim.health,
                held=int(sim.held_by is not None),
                counted_bytes=sim.counted_bytes,
                limit_bytes=sim.limit_bytes,
                terminal=layout.NONE_INDEX if sim.holder is None else numbers[id(sim.holder)],
            )
        for terminal, record in zip(self.terminals.values(), tables["terminals"], strict=False):
            self._same(
                f"terminal {terminal.key}",
                record,
                key=terminal.key,
                sim=layout.NONE_INDEX if terminal.sim is None else terminal.sim.index,
                epoch=terminal.epoch,
                reported_bytes=terminal.reported_bytes,
                counted_bytes=terminal.counted_bytes,
                server=terminal.server,
            )
            if terminal.sim is not None:
                self._same(f"terminal {terminal.key}", record, expires_ms=terminal.expires_ms)
        self._compare_orders(tables, numbers)
        for job, record in zip(self.jobs, tables["jobs"], strict=False):
            mine = [order for order in self.orders if order.job is job]
            self._same(
                f"job {job.id}",
                record,
                state=job.state,
                terminals_count=job.terminals,
                confirmed_count=job.confirmed,
                queued_count=sum(not order.in_flight for order in mine),
                outstanding_count=sum(order.in_flight for order in mine),
            )
        self._same("the totals", header, counted_bytes=self.counted_bytes, impossible_count=self.impossible_count)

    def _same(self, what: str, record: Any, **expected: int) -> None:
        for name, value in expected.items():
            if int(record[name]) != value:
                raise Mismatch(f"{what}: {name} is {value} in the model and {int(record[name])} in the core")

    def _compare_orders(self, tables: dict[str, Table], numbers: dict[int, int]) -> None:
        def place(sim: SimModel | None) -> int:
            return layout.NONE_INDEX if sim is None else sim.index

        states = {layout.OUTSTANDING: "outstanding", layout.UNKNOWN: "unknown"}
        mine = sorted(
            (order.kind, order.state, numbers[id(order.terminal)], order.server, place(order.source), place(order.target))
            for order in self.orders
        )
        columns = ("kind", "state", "terminal", "server", "source", "target")
        used = tables["orders"][tables["orders"]["state"] != layout.ORDER_UNUSED]
        theirs = sorted(
            (kind, states.get(state, "queued"), *rest)
            for kind, state, *rest in zip(*(used[name].tolist() for name in columns), strict=True)
        )
        if mine != theirs:
            only_mine = [order for order in mine if order not in theirs]
            only_theirs = [order for order in theirs if order not in mine]
            raise Mismatch(
                f"orders (kind, state, terminal, server, source, target): only in the model {only_mine}, "
                f"only in the core {only_theirs}"
            )
        for index, server in enumerate(self.servers):
            record = tables["servers"][index]
            in_flight = sum(order.server == index and order.in_flight for order in self.orders)
            self._same(f"access server {index}", record, outstanding=in_flight, session=server.session)
            server.acknowledged = 0


_HANDLERS = {
    layout.TICK: Model._tick,
    layout.ALLOCATE: Model._allocate,
    layout.ADOPT: Model._adopt,
    layout.IMPORT_SIMS: Model._import_sims,
    layout.SET_HEALTH: Model._set_health,
    layout.MASK: Model._mask,
    layout.RESET_WINDOW: Model._reset_window,
    layout.CONFIGURE: Model._configure,
    layout.GROW: Model._grow,
    layout.FREEZE: Model._flag,
    layout.THAW: Model._flag,
    layout.SWAPS_STOP: Model._flag,
    layout.SWAPS_LIFT: Model._flag,
    layout.SESSION_OPEN: Model._session_open,
    layout.SESSION_HOLDS: Model._session_holds,
    layout.SESSION_READY: Model._session_ready,
    layout.SESSION_CLOSE: Model._session_close,
    layout.RESTART: Model._restart,
    layout.REPORT_LOAD: Model._report_load,
    layout.ACKNOWLEDGE: Model._acknowledge,
    layout.JOB_CREATE: Model._job_create,
    layout.JOB_ADD: Model._job_add,
    layout.JOB_PAUSE: Model._job_change,
    layout.JOB_RESUME: Model._job_change,
    layout.JOB_CANCEL: Model._job_change,
}


def model_of(tables: dict[str, Table], now_ms: int) -> Model:
    """A model that begins where a machine stands that has entities and sessions, and no SIM, terminal or job yet."""
    header = tables["header"][0]
    entities = tables["entities"][: header["entities_count"]]
    kinds = {kind: [index for index, entity in enumerate(entities) if entity["kind"] == kind] for kind in range(1, 9)}
    first = layout.MARKET_FIRST_CLASS
    lots = {}
    for index in kinds[layout.LOT]:
        plan = entities[entities[index]["numbers"][layout.LOT_PLAN]]["numbers"].tolist()
        low, exhausted = plan[layout.PLAN_LOW_BYTES], plan[layout.PLAN_EXHAUSTED_BYTES]
        lots[index] = (int(entities[index]["numbers"][layout.LOT_CLASS]), plan[:3], low, exhausted)
    servers = []
    for record in tables["servers"][: header["servers_count"]]:
        servers.append(ServerModel(int(record["session"]), 1, bool(record["reconciled"])))
    return Model(
        markets={
            index: (
                int(entities[index]["numbers"][layout.MARKET_EXPECTED_BYTES]),
                [int(number) for number in entities[index]["numbers"][first:] if number >= 0],
            )
            for index in kinds[layout.MARKET]
        },
        lots=lots,
        banks=set(kinds[layout.BANK]),
        reserves={index: max(int(entities[index]["numbers"][0]), 0) for index in kinds[layout.SIM_CLASS]},
        settings={number: int(value) for number, value in enumerate(header["settings"])},
        terminals_max=int(header["terminals_max"]),
        sims_max=int(header["sims_max"]),
        orders_max=int(header["orders_max"]),
        now_ms=now_ms,
        servers=servers,
        grace_until_ms=int(header["grace_until_ms"]),
    )

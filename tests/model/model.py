"""A naive model of the state machine: dicts and lists, one loop where the core has an index.

It reads the same batches as the core and says for each item which answers are allowed. What the core is free to choose
(which of the SIMs that fit, the numbers of epochs and orders, when exactly a queued order is sent) is checked for being
allowed and then followed. Everything else it works out for itself, and :meth:`Model.compare` finds any difference.

Time is exact as long as every instant and every setting is a multiple of the timing wheel's tick and a TICK has run at
each new instant before other commands come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from simswitch.core import commands, layout
from simswitch.core.commands import OutcomeRun

from tests.model.limits import Limits
from tests.model.records import Table
from tests.model.things import (
    NEVER_MS,
    Call,
    EndedModel,
    JobModel,
    LotModel,
    Mismatch,
    OrderModel,
    ResetModel,
    Row,
    ServerModel,
    SimModel,
    Sweep,
    TerminalModel,
    command_runs,
    lowest_bytes,
    tier_satisfying,
)

USABLE = (layout.HEALTHY, layout.LOW)
# SIMs that may be held because of one terminal before it is refused another.
HELD_MAX = 4
# SIMs that one access server's word quarantines in a day, and reports of one run that are told of as set aside.
QUARANTINES_MAX = 64
ASIDE_TOLD_MAX = 64
# Differences of one run that are told of, but for those that change a lease or settle a swap.
DIFFERENCES_TOLD_MAX = 64
# Subscribers nobody knew whom one access server names in a day for leases that others have.
STRANGERS_MAX = 64
BYTES_MAX = 1 << 62
ORDER_NUMBER_BITS = 24
DAY_MS = 86_400_000
LOT_STEP_MS = 1_024
TRIED_SPREAD_MS = 3_600_000
TRYING = layout.WINDOWS
INSTANT_MAX_MS = 1 << 43
UNTRUSTED = 1 << 55
BREAKER_STEPS = {
    (layout.BREAKER_CLOSED, layout.BREAKER_OPEN),
    (layout.BREAKER_OPEN, layout.BREAKER_HALF_OPEN),
    (layout.BREAKER_HALF_OPEN, layout.BREAKER_PROBING),
    (layout.BREAKER_PROBING, layout.BREAKER_HALF_OPEN),
    (layout.BREAKER_PROBING, layout.BREAKER_OPEN),
    (layout.BREAKER_PROBING, layout.BREAKER_CLOSED),
    # By what became of leases that began there.
    (layout.BREAKER_HALF_OPEN, layout.BREAKER_OPEN),
    (layout.BREAKER_HALF_OPEN, layout.BREAKER_CLOSED),
    # An access server's, whose gate says when it is tried.
    (layout.BREAKER_OPEN, layout.BREAKER_CLOSED),
}
PROMISE_LATE_MS = 60_000
# What only they send: whoever sends it is not dead. A hello that never gets to READY says nothing of that.
OF_ACCESS_SERVERS = set(range(layout.ALLOCATE, layout.REPORT_LOAD + 1)) - {
    layout.SESSION_OPEN,
    layout.SESSION_HOLDS,
    layout.SESSION_CLOSE,
}
ENDED = (layout.JOB_DONE, layout.JOB_CANCELLED, layout.JOB_REFUSED, layout.JOB_CHECKED)
_ENDED_COLUMNS = ("epoch", "subscriber", "server", "expected_tier", "reported_bytes", "reported_s")
_ENDED_FIELDS = attrgetter(*_ENDED_COLUMNS)


@dataclass(eq=False)
class Model(Limits):
    """Says of every command which answers are allowed, and follows. Take it from a machine with :func:`model_of`."""

    # -------------------------------------------------------------------------------------------- one apply

    def step(self, batch: bytes, outcomes: list[OutcomeRun], now_ms: int, tables: dict[str, Table]) -> None:
        """Follows one apply, whose outcomes and state afterwards are given; raises at the first thing not allowed."""
        runs = list(command_runs(batch))
        later, self.now_ms = now_ms != self.now_ms, now_ms
        self.job_records = tables["jobs"]
        ran = [job for job in self.jobs if job.state in (layout.JOB_RUNNING, layout.JOB_SELECTING)]
        stopped = self.swaps_stopped
        self._follow_breakers(outcomes[-1], tables["breakers"])
        # What holds timers back holds back those that are due at this very instant too.
        kinds = [header["kind"] for header, _ in runs]
        if layout.RESTART in kinds:
            self._restart(any(header["kind"] == layout.RESTART and header["argument"] == 1 for header, _ in runs))
        if layout.RESTART in kinds or layout.FREEZE in kinds or (self.frozen and layout.THAW in kinds):
            self.answers_until_ms = self.now_ms + self.settings[layout.ORDER_DEADLINE_MS]
        if layout.FREEZE in kinds and not self.frozen:
            self.frozen, self.frozen_s = True, now_ms // 1000
        broke: set[int] = set()
        if later:
            broke = self._break_promises(outcomes[-1])
            self._timers(tables, _anew(runs, outcomes), _gave_back(runs, outcomes))
        # A command of the same apply may still settle an order that a timer has asked for.
        in_flight = {
            order.number: (order, order.state, self.servers[order.server].session, self._asked_as(order))
            for order in self.orders
            if order.in_flight
        }
        self._require(len(outcomes) == len(runs) + 2, "one outcome run for each command run, then orders and events")
        for (header, items), outcome in zip(runs, outcomes[:-2], strict=True):
            self._require(outcome.kind == header["kind"] and outcome.count == len(items), "outcomes in request order")
            if header["kind"] in OF_ACCESS_SERVERS and self._known_server(header):
                self._lives(header["access_server"], layout.DEATH_BELIED)
            self.before_run, self.told_aside = self.last_epoch, 0
            names = [name for name, _ in commands.OUTCOME_COLUMNS[outcome.kind]]
            columns = {name: outcome[name].tolist() for name in names}
            for position, item in enumerate(items):
                answer = {name: columns[name][position] for name in names}
                allowed = self._command(header, item, answer)
                if answer["status"] not in allowed:
                    raise Mismatch(f"command {header} {item} was answered {answer}; allowed are {sorted(allowed)}")
        self._run_lots()
        self._run_sweeps()
        self._quiet_hours()
        if self.automatic_due_ms and self.automatic_due_ms <= self.now_ms:
            self.automatic_due_ms = 0
            self.sweeps.append(Sweep("automatic", end=len(self.sims)))
        sent = outcomes[-2]
        names = [name for name, _ in commands.OUTCOME_COLUMNS[commands.ORDERS]]
        columns = {name: sent[name].tolist() for name in names}
        for position in range(sent.count):
            row = {name: columns[name][position] for name in names}
            if not self._asked_again(row, in_flight, ran, stopped):
                self._sent(row, tables)
        self._finish_jobs()
        self._bound()
        self._follow_announcements(outcomes[-1], broke)
        self._follow_shortfalls(tables["markets"])
        self._told(outcomes[-1])
        self.compare(tables)

    def _bound(self) -> None:
        for market, (_, classes) in self.markets.items():
            lots = [self.lots[lot] for lot in {sim.lot for sim in self.sims if sim.sim_class in classes}]
            caps = [
                quota
                for lot in lots
                for window, (quota, _) in enumerate(lot.caps)
                if quota > 0 and not lot.ended and not lot.pools(window)
            ]
            self.bounds[market] = min(caps, default=0) // 8

    def _follow_breakers(self, run: OutcomeRun, records: Table) -> None:
        """Each goes from state to state as it may, and ends as the core's records say."""
        blocking = (layout.BREAKER_OPEN, layout.BREAKER_PROBING)
        ever = {entity for entity, state in self.breakers.items() if state in blocking}
        always = set(ever)
        columns = zip(*(run[name].tolist() for name in ("kind", "reason", "a", "b")), strict=True)
        for kind, state, entity, retry_ms in columns:
            if kind != layout.EVENT_BREAKER:
                continue
            step = (self.breakers.get(entity, layout.BREAKER_CLOSED), state)
            self._require(step in BREAKER_STEPS, f"the breaker of entity {entity} went from {step[0]} to {step[1]}")
            self._event(kind, reason=state, a=entity, b=retry_ms)
            self.breakers[entity] = state
            if state in blocking:
                ever.add(entity)
            else:
                always.discard(entity)
        self.blocked, self.surely_blocked = ever, always
        told = {entity: state for entity, state in self.breakers.items() if state != layout.BREAKER_CLOSED}
        seen = {entity: int(records["state"][entity]) for entity in records["state"].nonzero()[0].tolist()}
        self._require(told == seen, f"breakers: told {told}, the core's records say {seen}")

    def _break_promises(self, run: OutcomeRun) -> set[int]:
        """Promises that a timer breaks where nothing may be sent: the lease may end after that in the same apply."""
        broke = set()
        for kind, key, reason in zip(*(run[name].tolist() for name in ("kind", "terminal", "reason")), strict=True):
            order = self.terminals[key].swap if key in self.terminals else None
            if (kind, reason) != (layout.EVENT_WITHDRAWN, layout.PROMISE_BROKEN) or order is None or order.in_flight:
                continue
            held = self.swaps_stopped or self._hellos_awaited or self.servers[order.server].paused
            if held and order.promised and order.announced_ms <= self.now_ms:
                self._order_event(layout.EVENT_WITHDRAWN, order, reason)
                order.announced_ms = 0
                broke.add(key)
        return broke

    def _follow_announcements(self, run: OutcomeRun, broke: set[int]) -> None:
        """When a swap is announced ahead, and when one of a paused job is withdrawn, is the core's choice."""
        columns = zip(*(run[name].tolist() for name in ("kind", "terminal", "reason", "a", "b")), strict=True)
        for kind, key, reason, a, b in columns:
            if kind in (layout.EVENT_SHORTFALL, layout.EVENT_SHORTFALL_OVER):
                self._follow_shortfall(kind, a, reason, b)
                continue
            ahead = kind == layout.EVENT_ANNOUNCED and a > self.now_ms
            broken = kind == layout.EVENT_WITHDRAWN and reason == layout.PROMISE_BROKEN
            held = broken or (kind == layout.EVENT_WITHDRAWN and reason == layout.JOB_HELD)
            if not (ahead or held) or (broken and key in broke):
                continue
            order = self.terminals[key].swap
            if order is None or order.in_flight:
                raise Mismatch(f"terminal {key} is in no swap that waits: {kind}, {reason}")
            promised = order.promised or (broken and order.announced_ms > 0 and self._promise_late(order))
            self._require(promised == held, f"terminal {key}: told {kind} {reason}")
            running = order.job is None or order.job.state in (layout.JOB_RUNNING, layout.JOB_SELECTING)
            # A timer breaks a promise where swaps are stopped or the access server is paused, whatever the job does.
            self._require(broken or running == ahead, f"a swap of terminal {key} was told of: {kind}")
            if held:
                self._order_event(layout.EVENT_WITHDRAWN, order, reason)
                order.announced_ms = order.ordered_ms = 0
                continue
            self._require(a == self.now_ms + order.ahead_ms, f"announced for {a}")
            order.announced_ms = a
            self._announced(order)

    def _follow_shortfall(self, kind: int, market: int, reason: int, b: int) -> None:
        begins = kind == layout.EVENT_SHORTFALL
        self._require(begins != (market in self.short), f"market {market}: told {kind} while short: {self.short}")
        if begins:
            self.short[market] = tier_satisfying(b)
        else:
            del self.short[market]
        self._event(kind, reason=reason, a=market, b=b)

    def _promise_late(self, order: OrderModel) -> bool:
        """Whether it was sent once, so long ago that it has to be announced anew."""
        return 0 < order.ordered_ms < self.now_ms - PROMISE_LATE_MS

    def _follow_shortfalls(self, markets: Table) -> None:
        """For how little none is found is the core's to say, and only while it is told that there is a shortfall."""
        short = markets[markets["short_since_ms"] > 0]
        tiers = dict(zip(short["entity"].tolist(), short["short_tier"].tolist(), strict=True))
        self._require(tiers.keys() == self.short.keys(), f"short markets: told {self.short}, the records say {tiers}")
        lower = {market for market, tier in self.short.items() if tiers[market] > tier}
        self._require(not lower, f"short markets: told {self.short}, the records say {tiers}")
        self.short = tiers

    def _announced(self, order: OrderModel) -> None:
        expected = self.servers[order.server].outage_ms or 30_000
        self._order_event(layout.EVENT_ANNOUNCED, order, order.priority, expected)
        kind, terminal, subscriber, server, job, reason, _, b = self.events_due.pop()
        self.events_due.append((kind, terminal, subscriber, server, job, reason, order.announced_ms, b))

    def _told(self, run: OutcomeRun) -> None:
        """The events: numbered without a gap, and each of those that had to come, once."""
        first = self.events_count + 1
        self.events_count += run.count
        self._require(run["event"].tolist() == list(range(first, first + run.count)), "events have a gap")
        names = ("kind", "terminal", "subscriber", "access_server", "job", "reason", "a", "b")
        told = Counter(zip(*(run[name].tolist() for name in names), strict=True))
        due, self.events_due = Counter(self.events_due), []
        self._require(told == due, f"events {names}: missing {due - told}, too many {told - due}")

    def _command(self, header: Row, item: Row, answer: Row) -> set[int]:
        self._finish_jobs()
        kind = header["kind"]
        if kind in (layout.RENEW, layout.RELEASE, layout.REPORT_USAGE, layout.REPORT_ATTACH_FAILURE):
            return {self._on_lease(header, item, answer)}
        if kind in (layout.TICK, layout.RESTART, layout.FREEZE):
            return {layout.OK}
        handler = _HANDLERS.get(kind)
        if handler is None:
            raise Mismatch(f"the model has no command {kind}")
        return handler(self, Call(header, item, answer))

    # ----------------------------------------------------------------------------------------- commands

    def _known_server(self, header: Row) -> bool:
        return bool(header["access_server"] < len(self.servers))

    def _allocate(self, call: Call) -> set[int]:
        server, market = call.header["access_server"], call.item["market"]
        if not self._known_server(call.header):
            return {layout.UNKNOWN_ACCESS_SERVER}
        group = call.header["argument"]
        if group and group not in self.groups:
            return {layout.INVALID_ARGUMENT}
        if market not in self.markets:
            return {layout.UNKNOWN_MARKET}
        key = call.item["terminal"]
        terminal = self.terminals.get(key)
        subscriber = call.item["subscriber"]
        goes_on = False
        if terminal is not None and terminal.sim is not None:
            usable = terminal.sim.health in USABLE and self.lots[terminal.sim.lot].pool_health in USABLE
            goes_on = terminal.server == server and terminal.market == market and usable
            if not subscriber or (goes_on and not self._may_name(terminal, subscriber)):
                subscriber = terminal.subscriber
        action, slow_kbps = self.limit_asked(subscriber, group, key, server)
        refused = action == layout.ACTION_REFUSE
        self._require(call.answer["slow_kbps"] in (slow_kbps, 0), f"slowed to {call.answer['slow_kbps']}")
        if refused:
            wait_ms = self.limit_ends_ms(subscriber, group) - self.now_ms
            self._refused_for_now({"retry_after_ms": call.answer["retry_after_ms"] - wait_ms})
            return {layout.LIMIT_REACHED}
        if self._hellos_awaited and not (goes_on and terminal is not None and self._told_of(terminal)):
            self._refused_for_now(call.answer)
            return {layout.HELLOS_AWAITED}
        if terminal is not None and terminal.sim is not None:
            if goes_on:
                self._extend(terminal)
                terminal.subscriber = subscriber
                self.limit_joined(subscriber, group, key, server)
                self._check_grant(terminal, call.answer, slow_kbps)
                return {layout.SAME}
            in_flight = terminal.swap is not None and terminal.swap.in_flight
            held = sum(sim.held == layout.HELD_COUNTED and sim.holder is terminal for sim in self.sims)
            refused = len(self.orders) == self.orders_max or held >= HELD_MAX
            if terminal.server != server and not in_flight and refused:
                return {layout.ORDERS_FULL}
        elif terminal is None and not self._room(len(self.terminals), self.servers[server].terminals_brought):
            return {layout.TERMINALS_FULL}
        expected = self._expected(market, call.item["expected_bytes"])
        if call.answer["status"] == layout.NO_HEALTHY_SIM:
            self._refused_for_now(call.answer)
            for sim_class in self.markets[market][1]:
                self._require(not self._must_find(sim_class, expected), f"refused, but class {sim_class} has a SIM")
            return {layout.NO_HEALTHY_SIM}
        self._require(call.answer["sim"] < len(self.sims), f"an allocation was answered {call.answer}")
        sim = self.sims[call.answer["sim"]]
        what = f"the allocation of terminal {call.item['terminal']}"
        self._check_choice(sim, market, expected, what, reserve=False, roomy=True)
        status = layout.OK
        if terminal is None:
            terminal = self._bring(call.item["terminal"], server)
        elif terminal.sim is not None:
            self._replace(terminal, server)
            status = layout.MOVED
        self._lease(terminal, sim, call, expected, subscriber)
        self.limit_joined(subscriber, group, key, server)
        self._check_grant(terminal, call.answer, slow_kbps)
        return {status}

    def _bring(self, key: int, server: int) -> TerminalModel:
        """The access server is the first to name the terminal."""
        self.servers[server].terminals_brought += 1
        self.terminals[key] = TerminalModel(key)
        return self.terminals[key]

    def _may_name(self, terminal: TerminalModel, subscriber: int) -> bool:
        """Whether its lease goes on as that subscriber's."""
        if terminal.subscriber in (0, subscriber) or subscriber in self.subscribers:
            return True
        server, today = self.servers[terminal.server], self._day(self.now_ms)
        count = server.strangers[1] if server.strangers[0] == today else 0
        if count >= max(STRANGERS_MAX, self.terminals_max // 1024):
            return False
        server.strangers = today, count + 1
        return True

    def _by_epoch(self, terminal: TerminalModel | None, epoch: int, server: int, how: int) -> int:
        """What a command that names a lease meets; a sign of an outstanding switch's epoch confirms the switch."""
        if terminal is None:
            return layout.UNKNOWN_TERMINAL
        if terminal.sim is None:
            return layout.NO_LEASE
        if server not in (terminal.server, layout.NONE_SHORT):
            return layout.STALE_EPOCH
        if terminal.epoch == epoch:
            return layout.OK
        order = terminal.swap
        if order is not None and order.in_flight and order.epoch == epoch:
            self._confirm(order, how)
            return layout.OK
        return layout.STALE_EPOCH

    def _on_lease(self, header: Row, item: Row, answer: Row) -> int:
        kind = header["kind"]
        terminal = self.terminals.get(item["terminal"])
        if kind == layout.REPORT_USAGE:
            nothing = answer["status"] not in (layout.OK, layout.ENDED)
            self._require(nothing == (answer["sim"] == layout.NONE_INDEX), f"a report was answered {answer}")
            self._require(nothing != bool(answer["counted_bytes"]), f"a report was answered {answer}")
        how = layout.BY_ATTACH_FAILURE if kind == layout.REPORT_ATTACH_FAILURE else layout.BY_TRAFFIC
        if terminal is not None and how == layout.BY_ATTACH_FAILURE and item["epoch"] > self.before_run:
            return layout.STALE_EPOCH
        status = self._by_epoch(terminal, item["epoch"], header["access_server"], how)
        if kind == layout.REPORT_USAGE:
            return self._usage(header, item, terminal, status, answer)
        if status != layout.OK:
            return status
        assert terminal is not None
        assert terminal.sim is not None
        if kind == layout.RENEW:
            action, slow_kbps = self.limit_of(terminal.subscriber, terminal.key, header["access_server"])
            self._require(answer["slow_kbps"] == slow_kbps, f"slowed to {answer['slow_kbps']}, not {slow_kbps}")
            if action == layout.ACTION_REFUSE:
                return layout.LIMIT_REACHED
            self._extend(terminal)
            self._require(answer["expires_ms"] == terminal.expires_ms, f"expiry {answer} is not {terminal.expires_ms}")
        elif kind == layout.RELEASE:
            self._release(terminal)
        else:
            return self._attach_failure(terminal, answer)
        return layout.OK

    def _usage(self, header: Row, item: Row, terminal: TerminalModel | None, status: int, answer: Row) -> int:
        total = item["up_bytes"] + item["down_bytes"]
        sim = None if terminal is None else terminal.sim
        refusal, over = status, None
        if status != layout.OK and terminal is not None:
            over = self._over(terminal, item["epoch"])
            if over is not None and header["access_server"] in (over.server, layout.NONE_SHORT):
                status, sim = layout.ENDED, over.sim
        if status not in (layout.OK, layout.ENDED):
            return self._aside(header, item, terminal, status, total)
        assert terminal is not None
        assert sim is not None
        lease = terminal if over is None else self.ended.get(item["epoch"], terminal)
        line = self.settings[layout.LINE_BYTES_PER_S]
        delta = total - lease.reported_bytes
        server = header["access_server"]
        if delta <= 0:
            _, slow_kbps = self.limit_of(lease.subscriber, terminal.key, server)
            self._require(answer["slow_kbps"] == slow_kbps, f"slowed to {answer['slow_kbps']}, not {slow_kbps}")
            if delta == 0 and over is not None:
                self._heard(over)
                self._reported_again(over)
            elif delta == 0:
                sim.heard_s = self.now_ms // 1000
            return layout.LATE if status == layout.OK else refusal
        if (
            total >= 2**64
            or sim.counted_bytes + delta >= BYTES_MAX
            or (delta // line >= self.now_ms // 1000 - lease.reported_s + 2 and not self.frozen)
        ):
            return self._aside(header, item, terminal, layout.IMPOSSIBLE_USAGE, total, sim.iccid)
        counted = (answer["counted_bytes"], answer["subscriber"], answer["sim"])
        right = counted == (delta, lease.subscriber, sim.index)
        self._require(right, f"counted at the wrong SIM or subscriber, or not all: {answer}")
        passed_s = self.now_ms // 1000 - terminal.traffic_s
        if over is not None:
            self._heard(over)
            self._reported(over, delta)
        self._catch_up(sim)
        if over is None:
            sim.heard_s = terminal.traffic_s = self.now_ms // 1000
        lease.reported_bytes = total
        lease.reported_s = min(lease.reported_s + delta // line, self.now_ms // 1000)
        terminal.counted_bytes += delta
        sim.counted_bytes += delta
        self.counted_bytes += delta
        if status == layout.OK or (sim.held_by is not None and sim.holder is terminal):
            sim.claim -= min(sim.claim, delta)
        action, slow_kbps = self.limit_counted(lease.subscriber, delta, terminal.key, server)
        self._require(answer["slow_kbps"] == slow_kbps, f"slowed to {answer['slow_kbps']}, not {slow_kbps}")
        if status == layout.OK:
            if action != layout.ACTION_REFUSE:
                self._extend(terminal)
            self._traffic(terminal)
            kbps = self._shown_kbps(item, delta, passed_s)
            fast = kbps >= self.settings[layout.PROBE_KBPS]
            if sim.untrusted and sim.health < layout.THROTTLED and fast:
                sim.untrusted = False
                self._event(layout.EVENT_TRUSTED, terminal, terminal.server, a=sim.iccid, b=kbps)
        self._judge_pool(sim.lot)
        self._judge(sim)
        return status

    @staticmethod
    def _shown_kbps(item: Row, delta: int, passed_s: int) -> int:
        """What a report shows of its SIM's speed: nothing, where a shaper may have let it through at once."""
        burst = 1_000_000
        wanted_ms = item["span_ms"] * min(item["demand_permille"], 1_000) // 1_000
        by_goodput = burst <= item["goodput_kbps"] * wanted_ms // 8 <= delta + delta // 8
        if delta < burst:
            return 0
        passed_s = max(passed_s, item["span_ms"] // 1_000)
        return max(delta // 125 // (passed_s + 1), item["goodput_kbps"] if by_goodput else 0)

    def _aside(
        self, header: Row, item: Row, terminal: TerminalModel | None, status: int, total: int, iccid: int = 0
    ) -> int:
        """Not counted, and never silently."""
        told = min(total, 2**64 - 1)
        if not told:
            return status
        if status == layout.IMPOSSIBLE_USAGE:
            self.impossible_count += 1
        else:
            self.set_aside_count += 1
            self.set_aside_bytes = min(self.set_aside_bytes + told, 2**64 - 1)
        self.told_aside += 1
        if self.told_aside > ASIDE_TOLD_MAX:
            return status
        subscriber = 0 if terminal is None else terminal.subscriber
        server = header["access_server"]
        self.events_due.append(
            (layout.EVENT_SET_ASIDE, item["terminal"], subscriber, server, layout.NONE_INDEX, status, told, iccid)
        )
        return status

    def _lease(self, terminal: TerminalModel, sim: SimModel, call: Call, expected: int, subscriber: int) -> None:
        """A lease begins that was asked for; the one before may still be reported on."""
        last = self._last(terminal)
        if last is not None:
            self.ended[last.epoch] = last
            terminal.last_sim = None
        terminal.subscriber = subscriber
        terminal.server, terminal.market = call.header["access_server"], call.item["market"]
        terminal.expected_tier = tier_satisfying(expected)
        self._begin(terminal, sim, self._new_epoch(call.answer["epoch"]))

    def _attach_failure(self, terminal: TerminalModel, answer: Row) -> int:
        old = terminal.sim
        assert old is not None
        server, today = self.servers[terminal.server], self._day(self.now_ms)
        count = server.quarantines[1] if server.quarantines[0] == today else 0
        if old.health < layout.QUARANTINED and count < QUARANTINES_MAX:
            server.quarantines = today, count + 1
            self._health_event(old, layout.QUARANTINED)
            old.health = layout.QUARANTINED
        self._replace(terminal, terminal.server)
        if self._hellos_awaited:
            self._refused_for_now(answer)
            return layout.HELLOS_AWAITED
        expected = lowest_bytes(terminal.expected_tier)
        if answer["status"] == layout.NO_HEALTHY_SIM:
            self._refused_for_now(answer)
            for sim_class in self.markets[terminal.market][1]:
                self._require(not self._must_find(sim_class, expected), f"refused, but class {sim_class} has a SIM")
            return layout.NO_HEALTHY_SIM
        self._require(answer["sim"] < len(self.sims), f"an attach failure was answered {answer}")
        sim = self.sims[answer["sim"]]
        what = f"the failed terminal {terminal.key}"
        self._check_choice(sim, terminal.market, expected, what, reserve=False, roomy=True)
        self._begin(terminal, sim, self._new_epoch(answer["epoch"]))
        _, slow_kbps = self.limit_of(terminal.subscriber, terminal.key, terminal.server)
        self._check_grant(terminal, answer, slow_kbps)
        return layout.MOVED

    def _adopt(self, call: Call) -> set[int]:
        sim = self._sim(call.item["iccid"])
        terminal = self.terminals.get(call.item["terminal"])
        if not self._known_server(call.header):
            return {layout.UNKNOWN_ACCESS_SERVER}
        if call.item["market"] not in self.markets:
            return {layout.UNKNOWN_MARKET}
        if sim is None:
            return {layout.UNKNOWN_SIM}
        if terminal is not None and terminal.sim is not None:
            return {layout.SAME if terminal.sim is sim else layout.TERMINAL_IN_USE}
        if sim.occupancy in (layout.ASSIGNED, layout.RESERVED) or sim.held_by is not None or sim.revoke in self.orders:
            return {layout.SIM_IN_USE}
        if terminal is None:
            server = call.header["access_server"]
            if not self._room(len(self.terminals), self.servers[server].terminals_brought):
                return {layout.TERMINALS_FULL}
            terminal = self._bring(call.item["terminal"], server)
        expected = self._expected(call.item["market"], call.item["expected_bytes"])
        self._cooled(sim)
        self._lease(terminal, sim, call, expected, call.item["subscriber"])
        self._check_grant(terminal, call.answer)
        return {layout.OK}

    def _import_sims(self, call: Call) -> set[int]:
        if call.item["lot"] not in self.lots:
            return {layout.UNKNOWN_LOT}
        if call.item["bank"] not in self.banks:
            return {layout.UNKNOWN_BANK}
        openings = [
            call.item["opening_cycle_bytes"],
            call.item["opening_day_bytes"],
            call.item["opening_rolling_bytes"],
        ]
        if max(openings) > layout.OPENING_MAX:
            return {layout.INVALID_ARGUMENT}
        known = self._sim(call.item["iccid"])
        if known is not None:
            return {layout.SAME, layout.ICCID_DIFFERS}
        if len(self.sims) == self.sims_max:
            return {layout.SIMS_FULL}
        if call.answer["status"] != layout.OK:
            return {layout.OK}
        as_of_s = min(call.item["as_of_s"], self.now_ms // 1000)
        figures = [(opening, as_of_s) if as_of_s and opening else (0, 0) for opening in openings]
        # The longer windows hold the day.
        longer = (0, 2) if self.lots[call.item["lot"]].rolling_days else (0,)
        for window in longer:
            openings[window] = max(openings[window], openings[1])
        sim = SimModel(
            len(self.sims),
            call.item["iccid"],
            self.lots[call.item["lot"]].sim_class,
            call.item["lot"],
            call.item["bank"],
            0,
            call.item["health"],
            openings,
        )
        self._require(call.answer["sim"] == sim.index, f"SIM {sim.index} was given the index {call.answer['sim']}")
        sim.health_since_s = self.now_ms // 1_000
        if sim.health == layout.THROTTLED:
            self._slowed(sim.lot)
        self.sims.append(sim)
        lot = self.lots[sim.lot]
        for window in range(layout.WINDOWS):
            if window == 0:
                self._begin_windows(sim, call.item["as_of_s"])
            if lot.pools(window):
                lot.pool_offsets[window] += openings[window]
            told, told_s = figures[window]
            if lot.pools(window) and lot.figured(window) and told_s > lot.pool_as_of_s[window]:
                lot.pool_added[window] += openings[window]
            if told_s:
                self._sim_tells(sim, window, told, told_s, 0)
        self._set_limit(sim)
        return {layout.OK}

    def _set_health(self, call: Call) -> set[int]:
        sim = self._sim(call.item["iccid"])
        health = call.item["health"]
        if not layout.HEALTHY <= health <= layout.RETIRED or call.item["confidence_permille"] > 1_000:
            return {layout.INVALID_ARGUMENT}
        if sim is None:
            return {layout.UNKNOWN_SIM}
        if sim.health == health and not (health == layout.HEALTHY and sim.untrusted):
            return {layout.SAME}
        if sim.health == layout.RETIRED or (call.item["windows"] and sim.health > layout.THROTTLED):
            return {layout.WRONG_STATE}
        names = ("goodput_kbps", "windows", "confidence_permille")
        goodput_kbps, windows, confidence = (call.item[name] for name in names)
        self._health_event(sim, health, goodput_kbps | windows << 32 | confidence << 48)
        sim.health, sim.health_since_s = health, self.now_ms // 1_000
        self._turned(sim)
        if health == layout.THROTTLED:
            self._slowed(sim.lot)
        if health == layout.HEALTHY:
            sim.untrusted = False
            self._judge(sim)
        return {layout.OK}

    def _carrier_life(self, call: Call) -> set[int]:
        sim, life = self._sim(call.item["iccid"]), call.item["life"]
        healths = {
            layout.LIFE_ACTIVE: layout.HEALTHY,
            layout.LIFE_SUSPENDED: layout.SUSPENDED,
            layout.LIFE_TERMINATED: layout.RETIRED,
        }
        if life not in healths or not call.item["reason"]:
            return {layout.INVALID_ARGUMENT}
        if sim is None:
            return {layout.UNKNOWN_SIM}
        if sim.health == layout.RETIRED and life != layout.LIFE_TERMINATED:
            return {layout.WRONG_STATE}
        if sim.health > layout.SUSPENDED and life == layout.LIFE_SUSPENDED:
            return {layout.WRONG_STATE}
        if sim.health == healths[life] or (life == layout.LIFE_ACTIVE and sim.health != layout.SUSPENDED):
            return {layout.SAME}
        sim.untrusted |= sim.health == layout.THROTTLED
        self._health_event(sim, healths[life])
        sim.health = healths[life]
        self._turned(sim)
        if life == layout.LIFE_ACTIVE:
            self._judge(sim)
        return {layout.OK}

    def _health_event(self, sim: SimModel, health: int, evidence: int = 0) -> None:
        holder = sim.holder if sim.occupancy == layout.ASSIGNED else None
        server = layout.NONE_SHORT if holder is None else holder.server
        self._event(layout.EVENT_HEALTH, holder, server, reason=health, a=sim.iccid, b=evidence)

    def _set_cap(self, call: Call) -> set[int]:
        entity, window, quota, basis = (call.item[name] for name in ("lot", "window", "quota_bytes", "basis"))
        lot = self.lots.get(entity)
        if lot is None:
            return {layout.UNKNOWN_LOT}
        possible = 1 <= window <= (layout.WINDOWS if lot.rolling_days else layout.WINDOW_DAY)
        possible = possible and call.item["at_ms"] < INSTANT_MAX_MS
        if not possible or not 1 <= basis <= layout.BASIS_LEARNED or not -1 <= quota < BYTES_MAX:
            return {layout.INVALID_ARGUMENT}
        if call.item["at_ms"] > self.now_ms:
            ahead = (quota, basis, call.item["at_ms"])
            if lot.waiting.get(window - 1) == ahead:
                return {layout.SAME}
            if window - 1 in lot.waiting and not call.header["argument"]:
                return {layout.CAP_WAITS}
            lot.waiting[window - 1] = ahead
            self._turn_lot(entity)
            return {layout.OK}
        cap = (quota, basis) if quota >= 0 else lot.planned[window - 1]
        if cap == lot.caps[window - 1]:
            return {layout.SAME}
        self._cap_enters(entity, window, cap)
        return {layout.OK}

    def _cap_enters(self, entity: int, window: int, cap: tuple[int, int]) -> None:
        lot = self.lots[entity]
        before = lot.caps[window - 1]
        lot.caps[window - 1] = cap
        days = lot.rolling_days if window == layout.WINDOW_ROLLING else 1
        # Of more days than are in the window, and nobody has said of which.
        unknown = (
            before[0] < 0
            and window != layout.WINDOW_CYCLE
            and not lot.begun_ms[window - 1]
            and self.now_ms - lot.since_ms[window - 1] >= days * DAY_MS
        )
        lot.since_ms[window - 1] = self.now_ms
        if cap[0] != before[0]:
            self._walk_lot(entity).update({window - 1} if unknown else ())
        if unknown:
            lot.pool_offsets[window - 1] = -self._pool_counted(entity)
            lot.forget_figure(window - 1)
            lot.sims_untold(window - 1, max(lot.told_until_s[window - 1] + 1, self.now_ms // 1000))
            if window == layout.WINDOW_ROLLING:
                lot.pool_days, lot.pool_told, lot.pool_own = [], {}, {}
        self._judge_pool(entity)
        self._event(layout.EVENT_CAP, a=cap[0] % 2**64, b=entity | window << 16 | cap[1] << 24)

    def _schedule(self, call: Call) -> set[int]:
        entity, window, at_ms, spread_ms = (call.item[name] for name in ("lot", "window", "at_ms", "spread_ms"))
        lot = self.lots.get(entity)
        if lot is None:
            return {layout.UNKNOWN_LOT}
        possible = 1 <= window <= (layout.WINDOWS if lot.rolling_days else layout.WINDOW_DAY)
        if not possible or spread_ms > DAY_MS // 2 or at_ms >= INSTANT_MAX_MS:
            return {layout.INVALID_ARGUMENT}
        before_ms, before_spread_ms = lot.schedule.get(window - 1, (0, 0))
        if at_ms == before_ms and (not at_ms or spread_ms == before_spread_ms):
            return {layout.SAME}
        if 0 < at_ms <= lot.last_reset_ms[window - 1]:
            return {layout.LATE}
        lot.schedule[window - 1] = (at_ms, spread_ms)
        if at_ms > self.now_ms or at_ms >= self.thaw_until_ms:
            lot.held_s.pop(window - 1, None)
        self._turn_lot(entity)
        return {layout.OK}

    def _cap_changed(self, call: Call) -> set[int]:
        names = ("lot", "window", "amount", "before", "seen_s", "shift")
        entity, window, amount, before, seen_s, shift = (call.item[name] for name in names)
        if entity not in self.lots:
            return {layout.UNKNOWN_LOT}
        if not 1 <= window <= layout.WINDOWS or not 1 <= shift <= layout.CAP_SPEED or max(amount, before) >= BYTES_MAX:
            return {layout.INVALID_ARGUMENT}
        what = entity | window << 16 | seen_s << 24
        row = (layout.EVENT_CAP_CHANGED, before, 0, layout.NONE_SHORT, layout.NONE_INDEX, shift, amount, what)
        self.events_due.append(row)
        return {layout.OK}

    def _turn_lot(self, entity: int) -> None:
        """Does what a calendar has for a lot at this instant."""
        lot = self.lots[entity]
        if not self.frozen:
            if lot.valid_until_ms <= self.now_ms and not lot.ended:
                lot.ended = True
                self._walk_lot(entity)
                self._event(layout.EVENT_VALIDITY, reason=layout.NO_LONGER_VALID, a=entity)
            for window in range(layout.WINDOWS):
                quota, basis, at_ms = lot.waiting.get(window, (0, 0, NEVER_MS))
                if at_ms <= self.now_ms:
                    del lot.waiting[window]
                    cap = (quota, basis) if quota >= 0 else lot.planned[window]
                    if cap != lot.caps[window]:
                        self._cap_enters(entity, window + 1, cap)
                if 0 < lot.schedule.get(window, (0, 0))[0] <= self.now_ms:
                    if window in lot.resets:
                        lot.resets[window].spread_ms = lot.begun_spread_ms[window] = 0
                    else:
                        self._reset_begins(entity, window)
            if 0 < lot.tried_ms <= self.now_ms and TRYING not in lot.resets:
                if self._tries(entity):
                    lot.tried_ms, lot.tried_next_s = self.now_ms, []
                    mine = [sim.index for sim in self.sims if sim.lot == entity]
                    first = mine[0] if mine else 0
                    lot.resets[TRYING] = ResetModel(self.now_ms, TRIED_SPREAD_MS, first, 0, first)
                else:
                    slowed = self._slowed_count(entity)
                    lot.tried_ms = self.now_ms + DAY_MS if slowed else 0
            if lot.resets and not lot.due:
                lot.due = True
                self.lots_due.append(entity)
        instants = [at_ms for _, _, at_ms in lot.waiting.values()]
        instants += [at_ms for at_ms, _ in lot.schedule.values() if at_ms]
        instants += [lot.tried_ms] if lot.tried_ms else []
        if lot.resets:
            instants.append(self.now_ms + LOT_STEP_MS)
        if not lot.ended:
            instants.append(lot.valid_until_ms)
        due_ms = min(instants, default=NEVER_MS)
        lot.turn_ms = due_ms if due_ms > self.now_ms else self.now_ms + LOT_STEP_MS

    def _endless(self, lot: LotModel) -> bool:
        """No reset is known that brings its slowed SIMs back, and it has not ended."""
        if lot.ended:
            return False
        for window in range(layout.WINDOWS):
            last_ms = lot.last_reset_ms[window]
            known = lot.schedule.get(window, (0, 0))[0] or (last_ms and last_ms + DAY_MS > self.now_ms)
            if lot.caps[window][0] >= 0 and known:
                return False
        return self.settings[layout.PROBE_KBPS] > 0

    def _tries(self, entity: int) -> bool:
        lot = self.lots[entity]
        return self._slowed_count(entity) > 0 and self._endless(lot) and not lot.prepaid

    def _tries_end(self, entity: int, next_ms: int) -> None:
        lot = self.lots[entity]
        lot.tried_ms, count = next_ms, lot.resets.pop(TRYING).count
        if count:
            self._event(layout.EVENT_ENDLESS, a=entity, b=count)

    def _slowed_count(self, entity: int) -> int:
        return self._count(entity, layout.THROTTLED)

    def _count(self, entity: int, health: int) -> int:
        return sum(sim.lot == entity and sim.health == health for sim in self.sims)

    def _slowed(self, entity: int) -> None:
        lot = self.lots[entity]
        if TRYING in lot.resets:
            lot.tried_next_s.append((self.now_ms + DAY_MS) // 1_000)
        elif not lot.tried_ms:
            lot.tried_ms = self.now_ms + DAY_MS
            lot.turn_ms = min(lot.turn_ms, lot.tried_ms)
            if self._endless(lot):
                self._event(layout.EVENT_ENDLESS, reason=lot.prepaid, a=entity)

    def _try_sim(self, lot: LotModel, sim: SimModel) -> bool:
        due_ms = max(sim.health_since_s * 1_000, sim.cooling_until_ms) + DAY_MS
        if sim.health != layout.THROTTLED:
            return False
        if sim.occupancy == layout.FREE and due_ms <= self.now_ms:
            sim.health = layout.HEALTHY
            sim.untrusted = True
            self._judge(sim)
            return sim.health == layout.HEALTHY
        if sim.occupancy != layout.FREE:
            due_ms = max(due_ms, self.now_ms + DAY_MS)
        lot.tried_next_s.append(-(-due_ms // 1_000))
        return False

    def _reset_begins(self, entity: int, window: int) -> None:
        lot = self.lots[entity]
        before_ms = lot.last_reset_ms[window]
        at_ms, spread_ms = lot.schedule.pop(window)
        # Days that were over since nobody could say; that an hour may have been put back counts one too few.
        late = 0 if window == layout.WINDOW_CYCLE - 1 else max(self.now_ms - at_ms - 3_600_000, 0) // DAY_MS
        lot.last_reset_ms[window] = at_ms + late * DAY_MS
        held = window in lot.held_s and (lot.held_s[window] <= at_ms // 1000 or self.now_ms - at_ms >= 23 * 3_600_000)
        lot.from_s[window] = min(at_ms // 1000, lot.held_s.pop(window, at_ms // 1000))
        if window == layout.WINDOW_ROLLING - 1:
            ended = max(round((at_ms - before_ms) / DAY_MS), 1) if before_ms else 1
            lot.of_several = lot.of_several or ended > 1 or not before_ms
            steps, lot.turned_days = divmod(min(lot.turned_days + ended + late, 14 * lot.step_days), lot.step_days)
            if not steps:
                lot.of_several = lot.of_several or held
                return
            # What was counted on several days stands as of the last one, else as of the first.
            lot.turn = [None] * steps
            place = 0 if lot.of_several else steps - 1
            lot.turn[place] = True
            lot.several = {old + steps for old in lot.several if old + steps < 14}
            lot.several |= {place} if lot.of_several else set()
            # What was counted while the clock was frozen is today's, of whichever day.
            lot.of_several = held
        self._restart_pool(entity, window)
        lot.sims_untold(window, lot.last_reset_ms[window] // 1000)
        lot.begun_ms[window], lot.begun_spread_ms[window], lot.ended_ms[window] = self.now_ms, spread_ms, 0
        mine = [sim.index for sim in self.sims if sim.lot == entity]
        first, end = (mine[0], mine[-1] + 1) if mine else (0, len(self.sims))
        lot.resets[window] = ResetModel(lot.last_reset_ms[window], spread_ms, first, end, first)
        if lot.pools(window):
            self._judge_pool(entity)

    def _run_lots(self) -> None:
        """Resets go on, each as far as its spread lets it."""
        while self.lots_due and not self.frozen:
            entity = self.lots_due.pop(0)
            lot = self.lots[entity]
            lot.due = False
            for window, reset in sorted(lot.resets.items()):
                if window == TRYING and not self._tries(entity):
                    self._tries_end(entity, self.now_ms + DAY_MS if self._slowed_count(entity) else 0)
                    continue
                if window == TRYING:
                    reset.end = max((sim.index + 1 for sim in self.sims if sim.lot == entity), default=len(self.sims))
                passed_ms, until = self.now_ms - reset.begun_ms, reset.end
                if passed_ms < reset.spread_ms:
                    until = reset.first + (reset.end - reset.first) * passed_ms // reset.spread_ms
                for sim in self.sims[reset.cursor : until]:
                    if sim.lot == entity and window == TRYING:
                        reset.count += self._try_sim(lot, sim)
                    elif sim.lot == entity:
                        if sim.index not in reset.early:
                            self._reset_sim(sim, window)
                        reset.count += 1
                reset.cursor = max(reset.cursor, until)
                if reset.cursor == reset.end and window == TRYING:
                    self._tries_end(entity, min(lot.tried_next_s, default=0) * 1_000)
                elif reset.cursor == reset.end:
                    del lot.resets[window]
                    lot.ended_ms[window] = self.now_ms
                    self._event(layout.EVENT_RESET, a=entity | window + 1 << 16, b=reset.count)
            waited = [place for place, (at_ms, _) in lot.schedule.items() if 0 < at_ms <= self.now_ms]
            if not lot.resets or any(place not in lot.resets for place in waited):
                self._turn_lot(entity)

    def _catch_up(self, sim: SimModel) -> None:
        """Something counts on it next: of what it used before, nothing is in a window that has begun by now."""
        if any(0 < at_ms <= self.now_ms for at_ms, _ in self.lots[sim.lot].schedule.values()):
            self._turn_lot(sim.lot)
        self._begin_windows(sim)

    def _begin_windows(self, sim: SimModel, new_as_of_s: int | None = None) -> None:
        """``new_as_of_s``: it is imported, with what it had used by then; 0: by now."""
        for window, reset in sorted(self.lots[sim.lot].resets.items()):
            turned = sim.index < reset.cursor or sim.index >= reset.end or sim.index in reset.early
            if window != TRYING and not turned:
                reset.early.add(sim.index)
                self._reset_sim(sim, window)
                self.early_count += 1
        # What comes may be of windows whose begin is held up, by the clock or by another walk.
        lot = self.lots[sim.lot]
        due = [place for place, (at_ms, _) in lot.schedule.items() if 0 < at_ms <= self.now_ms]
        since_s = [lot.schedule[place][0] // 1000 for place in due] + [lot.held_s.get(place, NEVER_MS) for place in due]
        since_s += [self.frozen_s] if self.frozen else []
        if since_s:
            of_then = new_as_of_s is not None and not 0 < new_as_of_s < min(since_s)
            opened = max(sim.offsets[0], sim.offsets[2]) if of_then else 0
            before, shared = sim.counted_bytes - opened, self._pool_counted(sim.lot)
            sim.late = (self.now_ms // 1000, sim.late[1] if sim.late[0] >= min(since_s) else before)
            kept = lot.pool_late[1] if lot.pool_late[0] >= min(since_s) else shared
            lot.pool_late = (self.now_ms // 1000, kept - opened)

    def _allow(self, lease: EndedModel, left: int) -> None:
        self._catch_up(lease.sim)
        super()._allow(lease, left)
        lease.sim.late_allowed_s = lease.sim.unreported_s if lease.sim.late[0] else 0

    def _reset_sim(self, sim: SimModel, window: int) -> None:
        if window == layout.WINDOW_ROLLING - 1:
            self._turn(sim)
        else:
            self._restart_window(sim, window, True)
        capped = self.lots[sim.lot].caps[window][0] >= 0
        if sim.health == layout.THROTTLED and capped and self.settings[layout.PROBE_KBPS]:
            sim.untrusted = True
            sim.health = layout.HEALTHY
        self._set_limit(sim)

    def _restart_window(self, sim: SimModel, window: int, anew: bool) -> None:
        """``anew``: by a reset, and not since its cap is new."""
        at_s, counted = sim.late
        since_s = self.lots[sim.lot].from_s[window]
        held_up = anew and at_s > 0 and at_s >= since_s
        # Of what ended meanwhile without a word nobody knows of which window it was either.
        stays = sim.allowances[window] if held_up and sim.late_allowed_s >= since_s else 0
        # What begins has no more of our own count than what ends had.
        ended = sim.beside(window) - sim.offsets[window]
        sim.offsets[window] = stays - (max(counted, ended) if held_up else sim.counted_bytes)
        sim.corrections[window] = sim.straddling[window] = 0
        sim.allowances[window] = stays
        sim.carrier[window] = -1 if sim.as_of_s[window] else 0
        if window == layout.WINDOW_ROLLING - 1:
            sim.days, sim.days_told, sim.days_own = [], [], {}

    def _carrier_usage(self, call: Call) -> set[int]:
        names = ("carrier_bytes", "counted_bytes", "straddling_bytes", "as_of_s", "window")
        told, counted, straddling, as_of_s, window = (call.item[name] for name in names)
        sim = self._sim(call.item["iccid"])
        if sim is None:
            return {layout.UNKNOWN_SIM}
        lot = self.lots[sim.lot]
        of_day = window == layout.ROLLING_DAY
        possible = 1 <= window <= layout.ROLLING_DAY
        if not possible or not as_of_s or (not of_day and not straddling <= counted <= sim.counted_bytes):
            return {layout.INVALID_ARGUMENT}
        window -= 1
        if not (lot.rolling_days and lot.step_days == 1 if of_day else lot.has(window)):
            return {self._figure_aside(call, sim, layout.NO_WINDOW)}
        if told < 0:
            return {self._figure_aside(call, sim, layout.NEGATIVE_USAGE)}
        if as_of_s * 1000 > self.now_ms:
            return {self._figure_aside(call, sim, layout.FUTURE_USAGE)}
        if told >= BYTES_MAX:
            return {self._figure_aside(call, sim, layout.IMPOSSIBLE_USAGE)}
        if of_day:
            return self._carrier_day(call, sim, told, as_of_s)
        if as_of_s < sim.as_of_s[window]:
            return {layout.LATE}
        begun_ms = lot.last_reset_ms[window]
        again = as_of_s == sim.as_of_s[window]
        if window in lot.resets or self._overdue(lot, window):
            return {layout.WRONG_STATE}
        days = (31, 1, lot.rolling_days)[window]
        over = as_of_s * 1000 + days * DAY_MS < self.now_ms
        if over or as_of_s * 1000 < self._earliest_ms(lot, window):
            return {layout.SAME if again else self._figure_aside(call, sim, layout.PAST_WINDOW)}
        ran_s = (
            as_of_s - begun_ms // 1000 if begun_ms and window != layout.WINDOW_ROLLING - 1 else days * DAY_MS // 1000
        )
        ran_s = min(ran_s, max(as_of_s - lot.active_from_s, 0))
        if told // self.settings[layout.LINE_BYTES_PER_S] >= ran_s + 2:
            return {self._figure_aside(call, sim, layout.IMPOSSIBLE_USAGE)}
        # The window holds what the carrier says and what was counted since; the lifetime count is as it was.
        had = sim.beside(window)
        own = max(counted + sim.offsets[window] - had, 0)
        correction = told - own
        lowered = 0
        if not (again and told == sim.carrier[window]):
            for inner in range(layout.WINDOWS):
                said = self._is_told(sim, lot, inner) and self._lies_in(lot, inner, window)
                if said and as_of_s >= sim.as_of_s[inner] and told < sim.carrier[inner]:
                    return {self._figure_aside(call, sim, layout.IMPOSSIBLE_USAGE)}
            of_days = sum(day for day in sim.days_told if day is not None)
            if window == layout.WINDOW_ROLLING - 1 and told < of_days and self._days_hold(lot, as_of_s):
                return {self._figure_aside(call, sim, layout.IMPOSSIBLE_USAGE)}
            lowered = max(sim.carrier[window] - told, 0) if self._is_told(sim, lot, window) else 0
        self._require(call.answer["correction_bytes"] == correction, f"corrected by {call.answer}, not {correction}")
        self._require(call.answer["lowered_bytes"] == lowered, f"lowered by {call.answer}, not {lowered}")
        if again and told == sim.carrier[window]:
            return {layout.SAME}
        if call.header["argument"]:
            return {layout.OK}
        self._begin_windows(sim)
        if as_of_s > sim.unreported_s:
            sim.allowances[window] = 0
        more = correction - sim.corrections[window] + min(straddling, own) - sim.straddling[window]
        bases = [self._pool_base(sim.lot, place) for place in range(layout.WINDOWS)]
        last_s = sim.as_of_s[window] if self._is_told(sim, lot, window) else 0
        before = [self._within(sim, lot, place) for place in range(layout.WINDOWS)]
        most_back = [self._added_most(sim, lot, place) for place in range(layout.WINDOWS)]
        pool_before = self._pool_day_beyond(sim.lot)
        self._pool_told(lot, window, more, as_of_s, most_back[window])
        sim.corrections[window] = correction
        since = max(sim.counted_bytes + sim.offsets[window] - had, 0) - own
        fall = self._sim_tells(sim, window, told, as_of_s, since)
        sim.straddling[window] = min(straddling, own)
        sim.offsets[window] += sim.beside(window) - had
        cycle, day, rolling = (int(each) - 1 for each in layout.Window)
        if as_of_s * 1000 <= self._day_from_ms(lot):
            self._adds(sim, lot, window, self._within(sim, lot, window), as_of_s)
        for place in (rolling, cycle):
            if self._lies_in(lot, window, place):
                more = self._within(sim, lot, place) - before[place]
                most = told + sim.straddling[window] + sim.counted_bytes - counted
                more = self._carried(sim, lot, place, more, most, last_s)
                self._adds(sim, lot, place, more, as_of_s, most_back[place])
        if window == cycle:
            self._cycle_has_days(sim, lot, as_of_s)
        for inner in (layout.WINDOW_DAY - 1, layout.WINDOW_ROLLING - 1):
            if self._is_told(sim, lot, inner):
                self._contain(sim, lot, inner, as_of_s)
        if window == day:
            self._pool_carries_day(sim.lot, pool_before, bases=bases)
        for place in range(layout.WINDOWS):
            if lot.pools(place) and lot.figured(place) and (place == window or self._lies_in(lot, window, place)):
                # No less than all of the SIMs, and no less than before but for what the carrier took back.
                base = self._pool_base(sim.lot, place)
                back = max(fall - max(bases[place] - base, 0), 0)
                inners = [each for each in range(layout.WINDOWS) if each == place or self._lies_in(lot, each, place)]
                floor = max(self._pool_floor(sim.lot, inner, place) for inner in inners)
                least = max(floor, base + lot.pool_raised[place] - back)
                if as_of_s <= lot.pool_as_of_s[place]:
                    least = max(least, told + self._pool_counted(sim.lot) - lot.pool_told_at_bytes[place])
                self._raise_pool(lot, place, least - base)
        self._pool_keeps_told(sim.lot)
        self._pool_holds_sims(sim.lot)
        self.corrections_count += 1
        self._corrected(sim, window + 1, correction, lowered)
        return {layout.OK}

    def _overdue(self, lot: LotModel, window: int) -> bool:
        """A window that a figure of this one is about should have started anew by now, and has not."""
        cycle, day, rolling = (int(each) - 1 for each in layout.Window)
        about = {cycle: (cycle,), rolling: (rolling, cycle), day: (day, rolling, cycle)}[window]
        return any(0 < lot.schedule.get(each, (0, 0))[0] <= self.now_ms for each in about)

    def _corrected(self, sim: SimModel, window: int, correction: int, lowered: int = 0) -> None:
        told = (window, sim.iccid, correction % 2**64)
        self.events_due.append((layout.EVENT_CORRECTION, lowered, 0, layout.NONE_SHORT, layout.NONE_INDEX, *told))
        self._set_limit(sim)

    def _is_told(self, sim: SimModel, lot: LotModel, window: int) -> bool:
        """The carrier has said something of the window that runs."""
        return sim.carrier[window] >= 0 and self._is_young(lot, window, sim.as_of_s[window])

    def _is_young(self, lot: LotModel, window: int, as_of_s: int) -> bool:
        lasts_ms = (31, 1, lot.rolling_days)[window] * DAY_MS
        return as_of_s > 0 and window not in lot.resets and as_of_s * 1000 + lasts_ms >= self.now_ms

    def _days_hold(self, lot: LotModel, as_of_s: int) -> bool:
        """The days that were told singly were over by then, and the window turns."""
        rolling = layout.WINDOW_ROLLING - 1
        turns = lot.last_reset_ms[rolling] or lot.schedule.get(rolling, (0, 0))[0]
        recent = self.today_begun_s(lot) * 1000 + 2 * DAY_MS >= self.now_ms
        return bool(turns) and recent and as_of_s >= lot.days_told_s

    def _told_least(self, entity: int, window: int, as_of_s: int) -> int:
        """What the carrier said of all SIMs of a lot one by one, or in a shorter window in this one, no later."""
        lot = self.lots[entity]
        known = [0]
        for inner in range(layout.WINDOWS):
            if inner != window and not self._lies_in(lot, inner, window):
                continue
            if lot.told_until_s[inner] <= as_of_s:
                known.append(self._told_of_sims(entity, inner))
            if inner != window and lot.pools(inner) and lot.pool_as_of_s[inner] <= as_of_s:
                counts = lot.pool_carrier[inner]
                in_it = {inner, layout.WINDOW_DAY - 1} if inner == layout.WINDOW_ROLLING - 1 else {inner}
                counts += lot.pool_raised[inner] if max(lot.told_until_s[each] for each in in_it) <= as_of_s else 0
                known.append(counts if self._is_young(lot, inner, lot.pool_as_of_s[inner]) else 0)
        if window == layout.WINDOW_ROLLING - 1 and self._days_hold(lot, as_of_s):
            told = [day if place in lot.pool_told else 0 for place, day in enumerate(lot.pool_days)]
            known.append(sum(map(max, [*told, *[0] * 14][:14], self._days_told(entity))))
        return max(known)

    def _days_begun_ms(self, lot: LotModel) -> list[int]:
        """Of a rolling window, today first: until when each may have begun."""
        today_ms = self.today_begun_s(lot) * 1000
        days = [today_ms + DAY_MS // 2 - place * lot.step_days * DAY_MS for place in range(1, lot.places + 1)]
        return [today_ms + 999, *days]

    def _window_begun_ms(self, lot: LotModel, window: int) -> int:
        if window == layout.WINDOW_ROLLING - 1:
            return self._days_begun_ms(lot)[-1]
        next_ms, _ = lot.schedule.get(window, (0, 0))
        return lot.last_reset_ms[window] or (next_ms or self.now_ms) - (31, 1)[window] * DAY_MS

    def _earliest_ms(self, lot: LotModel, window: int) -> int:
        """Before when no figure is of the window that runs: it began then, or has run for as long as it can."""
        lasts_ms = (31, 1, 0)[window] * DAY_MS
        next_ms, _ = lot.schedule.get(window, (0, 0))
        waits = not lot.last_reset_ms[window] and lasts_ms and self.now_ms < next_ms <= self.now_ms + lasts_ms
        return max(next_ms - lasts_ms, 0) if waits else lot.last_reset_ms[window]

    def _lies_in(self, lot: LotModel, inner: int, window: int) -> bool:
        cycle, day, rolling = (int(each) - 1 for each in layout.Window)
        if inner == cycle or window in (inner, day) or (rolling in (inner, window) and not lot.rolling_days):
            return False
        return window == rolling or self._window_begun_ms(lot, inner) >= self._window_begun_ms(lot, window)

    def _contain(self, sim: SimModel, lot: LotModel, inner: int, as_of_s: int) -> None:
        """What was used in a window was used in the longer ones that it lies in, as far as it does."""
        cycle, day, rolling = (int(window) - 1 for window in layout.Window)
        for window in {cycle, rolling} - {inner} - set(lot.resets):
            used = [offset - sim.allowances[place] - sim.straddling[place] for place, offset in enumerate(sim.offsets)]
            least = used[inner]
            if not self._lies_in(lot, inner, window):
                begun_ms = self._window_begun_ms(lot, window)
                if inner == day or window != cycle or self._days_begun_ms(lot)[0] < begun_ms:
                    continue
                begun = zip(sim.days, self._days_begun_ms(lot)[1:], strict=False)
                outside = sum(bytes_ for bytes_, day_ms in begun if day_ms < begun_ms)
                least -= outside + max(sim.corrections[rolling], 0)
            self._adds(sim, lot, window, max(least - used[window], 0), as_of_s)

    def _adds(self, sim: SimModel, lot: LotModel, window: int, more: int, as_of_s: int, most_back: int = 0) -> None:
        self._pool_told(lot, window, more, as_of_s, most_back)
        sim.corrections[window] += more
        sim.offsets[window] += more

    def _beyond(self, sim: SimModel, lot: LotModel, window: int) -> int:
        """What the carrier may have counted in a window that we did not."""
        told_s = sim.as_of_s[window]
        if told_s and not lot.last_reset_ms[window] and (told_s + lot.lasts_s(window)) * 1000 < self.now_ms:
            return 0
        return max(0, sim.corrections[window] + sim.straddling[window])

    def _within(self, sim: SimModel, lot: LotModel, window: int) -> int:
        """The same in what lies in a window. Of all rolling days a figure of the cycle may know."""
        _, day, rolling = (int(each) - 1 for each in layout.Window)
        inner = {day} if self._is_told(sim, lot, window) else {day, rolling}
        return max([0, *(self._beyond(sim, lot, each) for each in inner if self._lies_in(lot, each, window))])

    def _day_from_ms(self, lot: LotModel) -> int:
        """Of an instant up to this nothing is of the day that runs."""
        day = layout.WINDOW_DAY - 1
        next_ms, _ = lot.schedule.get(day, (0, 0))
        return lot.last_reset_ms[day] or max(next_ms - DAY_MS, 0)

    def _carried(self, sim: SimModel, lot: LotModel, window: int, more: int, most: int, last_s: int) -> int:
        """What of a change a longer window takes. ``most``: all of the shorter one; ``last_s``: of its last figure."""
        if not self._is_told(sim, lot, window):
            return max(more, min(-sim.corrections[window], 0))
        if sim.as_of_s[window] * 1000 <= self._day_from_ms(lot):
            return more
        if last_s < sim.as_of_s[window]:
            return 0
        used = sim.counted_bytes + sim.offsets[window] - sim.allowances[window] - sim.straddling[window]
        return max(min(more, sim.carrier[window] + most - used), 0)

    def _days_since(self, lot: LotModel, as_of_s: int) -> int:
        """How many of a rolling window's days that are over have begun since; -1: today has not, or nobody knows."""
        rolling, begun_s = layout.WINDOW_ROLLING - 1, self.today_begun_s(lot)
        if not lot.rolling_days or lot.step_days > 1 or not lot.last_reset_ms[rolling] or rolling in lot.resets:
            return -1
        return -1 if as_of_s > begun_s else (begun_s - as_of_s + 3_600) // (DAY_MS // 1000)

    def _cycle_has_days(self, sim: SimModel, lot: LotModel, as_of_s: int) -> None:
        """What its carrier said of the cycle, and the days since, are in it."""
        cycle, day, rolling = (int(each) - 1 for each in layout.Window)
        days = self._days_since(lot, sim.as_of_s[cycle]) if self._is_told(sim, lot, cycle) else -1
        if days >= 0:
            used = [sim.counted_bytes + sim.offsets[each] - sim.beside(each) for each in (cycle, rolling)]
            today = max(used[1] - sum(sim.days), 0) + self._beyond(sim, lot, day)
            counted = sum(max(each, sim.days_own.get(place, 0)) for place, each in enumerate(sim.days[:days]))
            least = sim.carrier[cycle] + counted + today
            self._adds(sim, lot, cycle, max(least - used[0] - sim.corrections[cycle], 0), as_of_s)

    def _carrier_day(self, call: Call, sim: SimModel, told: int, ended_s: int) -> set[int]:
        """What a carrier counted on a day of the rolling window that is over takes the place of what we did."""
        lot, rolling = self.lots[sim.lot], layout.WINDOW_ROLLING - 1
        begun_s = self.today_begun_s(lot)
        if sim.as_of_s[rolling] and (sim.as_of_s[rolling] >= begun_s or not lot.last_reset_ms[rolling]):
            return {layout.LATE}
        if rolling in lot.resets or self._overdue(lot, rolling):
            return {layout.WRONG_STATE}
        half_s = DAY_MS // 2000
        if ended_s > begun_s + half_s:
            return {self._figure_aside(call, sim, layout.FUTURE_USAGE)}
        place = (begun_s + half_s - ended_s) // (2 * half_s)
        if place >= lot.rolling_days - 1:
            return {self._figure_aside(call, sim, layout.PAST_WINDOW)}
        if told // self.settings[layout.LINE_BYTES_PER_S] >= 25 * 3_600 + 2 or told >> 12 >= 2**31 - 1:
            return {self._figure_aside(call, sim, layout.IMPOSSIBLE_USAGE)}
        days = sim.days + [0] * (lot.rolling_days - 1 - len(sim.days))
        correction, exactly = -(-told // 4096) * 4096 - days[place], told - days[place]
        as_of_s = sim.as_of_s[rolling]
        covered = as_of_s and as_of_s + (place + 1) * (2 * half_s) > begun_s
        if correction < 0 and (covered or place in lot.several):
            return {layout.LATE}
        self._require(call.answer["correction_bytes"] == exactly, f"corrected by {call.answer}, not {exactly}")
        told_of = sim.days_told + [None] * (lot.rolling_days - 1 - len(sim.days_told))
        if not correction and told_of[place] is not None:
            return {layout.SAME}
        if call.header["argument"]:
            return {layout.OK}
        self._begin_windows(sim)
        # The cycle has what we counted, or what the carrier said if that is more.
        own = sim.days_own.setdefault(place, days[place])
        since = max(days[place] + correction - own, 0) - max(days[place] - own, 0)
        days[place] += correction
        told_of[place] = max(days[place] - 4095, 0)
        sim.days, sim.days_told = days, told_of
        lot.days_told_s = max(lot.days_told_s, ended_s)
        sim.offsets[rolling] += correction
        more = correction if correction > 0 or not lot.figured(rolling) else 0
        lot.pool_days += [0] * (lot.rolling_days - 1 - len(lot.pool_days))
        if place in lot.pool_told:
            more = max(lot.pool_told[place], self._days_told(sim.lot)[place]) - lot.pool_days[place]
        pool_had = max(lot.pool_days[place], lot.pool_own.get(place, 0))
        if lot.pools(rolling):
            lot.pool_days[place] += more
            lot.pool_offsets[rolling] += more
        raised = max(lot.pool_days[place], lot.pool_own.get(place, 0)) - pool_had
        cycle = layout.WINDOW_CYCLE - 1
        told_cycle = self._is_told(sim, lot, cycle)
        if self._joins_cycle(lot, place, sim.as_of_s[cycle] if told_cycle else 0):
            since = since if told_cycle else max(since, min(-sim.corrections[cycle], 0))
            had = self._pool_base(sim.lot, cycle) + raised
            self._adds(sim, lot, cycle, since, ended_s, self._added_most(sim, lot, cycle))
            known = self._pool_is_told(lot, cycle)
            joins = self._joins_cycle(lot, place, lot.pool_as_of_s[cycle] if known else 0)
            if place in lot.pool_told and lot.pools(cycle) and lot.pools(rolling) and joins:
                # The pool's own figure of the day is in its cycle, and no more.
                differs = had - self._pool_base(sim.lot, cycle)
                most_back = 0 if known else max(lot.pool_corrections[cycle] - lot.pool_raised[cycle], 0)
                lot.pool_corrections[cycle] += differs if known else max(differs, -most_back)
            self._cycle_has_days(sim, lot, ended_s)
        self._contain(sim, lot, rolling, ended_s)
        self._pool_keeps_told(sim.lot)
        self.corrections_count += 1
        self._corrected(sim, layout.ROLLING_DAY, exactly)
        return {layout.OK}

    def _joins_cycle(self, lot: LotModel, place: int, as_of_s: int) -> bool:
        """Whether a day that is over is of the cycle, and of after that instant."""
        begun_ms = self.today_begun_s(lot) * 1000 - (place + 1) * DAY_MS
        of_cycle = begun_ms + DAY_MS // 2 >= self._window_begun_ms(lot, layout.WINDOW_CYCLE - 1)
        return of_cycle and as_of_s * 1000 <= begun_ms + 3_600_000

    def _added_most(self, sim: SimModel, lot: LotModel, window: int) -> int:
        """What its figures, of later instants than the pool's, can have added to that."""
        cycle, day, rolling = (int(each) - 1 for each in layout.Window)
        if sim.as_of_s[window] > lot.pool_as_of_s[window]:
            return BYTES_MAX
        if sim.as_of_s[window]:
            return 0
        known = [sim.as_of_s[inner] for inner in (day, rolling) if window != day]
        if window == cycle:
            told = [place for place, bytes_ in enumerate(sim.days_told) if bytes_]
            known += [self.today_begun_s(lot) - place * DAY_MS // 1000 for place in told]
        return max(sim.corrections[window], 0) if max(known, default=0) > lot.pool_as_of_s[window] else 0

    @staticmethod
    def _pool_told(lot: LotModel, window: int, more: int, as_of_s: int, added_most: int = 0) -> None:
        """Of one SIM: what a figure of all knows already says nothing new, and of a later instant less is not less, but
        for what such figures had added."""
        if lot.pools(window) and lot.figured(window):
            later = as_of_s > lot.pool_as_of_s[window]
            added = max(more, -min(lot.pool_added[window], added_most)) if later else 0
            lot.pool_added[window] += added
            lot.pool_corrections[window] -= more - added

    def _sim_tells(self, sim: SimModel, window: int, told: int, as_of_s: int, since: int) -> int:
        """A figure of one SIM is taken. Gives by how much there is less said of all of them."""
        lot = self.lots[sim.lot]
        lot.sim_tells(window, as_of_s, self.now_ms)
        before = self._told_of_sims(sim.lot, window)
        young = sim.as_of_s[window] > 0 and (sim.as_of_s[window] + lot.lasts_s(window)) * 1000 >= self.now_ms
        lowered = sim.carrier[window] - told if young and sim.carrier[window] >= 0 else 0
        sim.carrier[window], sim.as_of_s[window] = told, as_of_s
        lot.told_until_s[window] = max(lot.told_until_s[window], as_of_s)
        lot.told_at_bytes[window] = self._pool_counted(sim.lot) - since
        return max(before - self._told_of_sims(sim.lot, window), lowered, 0)

    def _told_of_sims(self, entity: int, window: int) -> int:
        """What the carrier said of the SIMs one by one."""
        return self._sum_told(entity, window, self.lots[entity].told_from(window, self.now_ms) or 0)

    def _days_told(self, entity: int) -> list[int]:
        """By place of the days: what the carrier said of the SIMs one by one."""
        mine = [sim.days_told for sim in self.sims if sim.lot == entity]
        return [sum(days[place] or 0 for days in mine if place < len(days)) for place in range(14)]

    def _sum_told(self, entity: int, window: int, since_s: int) -> int:
        # What was told before a reset is in no sum, also of SIMs that it has yet to come to.
        reset = self.lots[entity].resets.get(window)
        waiting = range(reset.cursor, reset.end) if reset else ()
        mine = [sim for sim in self.sims if sim.lot == entity and sim.as_of_s[window] >= since_s > 0]
        mine = [sim for sim in mine if sim.index not in waiting]
        return sum(max(sim.carrier[window], 0) for sim in mine)

    def _pool_floor(self, entity: int, inner: int, window: int) -> int:
        """What the carrier said of the SIMs one by one, and what was counted since then, or since its figure of all."""
        lot, of_sims = self.lots[entity], self._told_of_sims(entity, inner)
        later = lot.told_until_s[inner] > lot.pool_as_of_s[window]
        counted = max(lot.pool_told_at_bytes[window], lot.told_at_bytes[inner] if later else 0)
        return of_sims + self._pool_counted(entity) - counted if of_sims else 0

    def _pool_base(self, entity: int, window: int) -> int:
        """What is used by the last figure of all of them."""
        lot = self.lots[entity]
        known = sum(sim.corrections[window] + sim.straddling[window] for sim in self.sims if sim.lot == entity)
        own = lot.pool_corrections[window] - lot.pool_raised[window]
        return self._pool_counted(entity) + lot.pool_offsets[window] + known + own

    @staticmethod
    def _raise_pool(lot: LotModel, window: int, raised: int) -> None:
        lot.pool_corrections[window] += max(raised, 0) - lot.pool_raised[window]
        lot.pool_raised[window] = max(raised, 0)

    def _pool_usage(self, call: Call) -> set[int]:
        names = ("carrier_bytes", "counted_bytes", "straddling_bytes", "as_of_s", "lot", "window")
        told, counted, straddling, as_of_s, entity, window = (call.item[name] for name in names)
        lot = self.lots.get(entity)
        if lot is None:
            return {layout.UNKNOWN_LOT}
        of_day = window == layout.ROLLING_DAY
        place = layout.WINDOW_ROLLING - 1 if of_day else window - 1
        if not 0 <= place < layout.WINDOWS or not as_of_s:
            return {layout.INVALID_ARGUMENT}
        mine = [sim for sim in self.sims if sim.lot == entity]
        if not mine or not lot.pools(place):
            return {self._pool_aside(call, layout.NO_WINDOW)}
        if not of_day and not straddling <= counted <= self._pool_counted(entity):
            return {layout.INVALID_ARGUMENT}
        if not (lot.rolling_days and lot.step_days == 1 if of_day else lot.has(place)):
            return {self._pool_aside(call, layout.NO_WINDOW)}
        if told < 0:
            return {self._pool_aside(call, layout.NEGATIVE_USAGE)}
        if as_of_s * 1000 > self.now_ms:
            return {self._pool_aside(call, layout.FUTURE_USAGE)}
        if told >= BYTES_MAX:
            return {self._pool_aside(call, layout.IMPOSSIBLE_USAGE)}
        a_second = len(mine) * self.settings[layout.LINE_BYTES_PER_S]
        if of_day:
            return self._pool_day(call, lot, told, a_second)
        if as_of_s < lot.pool_as_of_s[place]:
            return {layout.LATE}
        if place in lot.resets or self._overdue(lot, place):
            return {layout.WRONG_STATE}
        begun_ms, days, again = (
            lot.last_reset_ms[place],
            (31, 1, lot.rolling_days)[place],
            as_of_s == lot.pool_as_of_s[place],
        )
        if as_of_s * 1000 + days * DAY_MS < self.now_ms or as_of_s * 1000 < self._earliest_ms(lot, place):
            return {layout.SAME if again else self._pool_aside(call, layout.PAST_WINDOW)}
        ran_s = as_of_s - begun_ms // 1000 if begun_ms and place != layout.WINDOW_ROLLING - 1 else days * DAY_MS // 1000
        if told // a_second >= min(ran_s, max(as_of_s - lot.active_from_s, 0)) + 2:
            return {self._pool_aside(call, layout.IMPOSSIBLE_USAGE)}
        if any(place in sweep.lots.get(entity, ()) for sweep in self.sweeps if sweep.kind == "limits"):
            return {layout.WRONG_STATE}
        # Whatever figures of its SIMs had corrected is in it; what leases may have used unreported comes on top.
        known = sum(sim.corrections[place] + sim.straddling[place] for sim in mine)
        own = counted + lot.pool_offsets[place] + known
        own = max(own, min(own + self._pool_counted(entity) - counted, 0))
        same = again and told == lot.pool_carrier[place]
        correction = lot.pool_corrections[place] - lot.pool_raised[place] if same else told - own
        if not same and told < self._told_least(entity, place, as_of_s):
            return {self._pool_aside(call, layout.IMPOSSIBLE_USAGE)}
        holds = not same and lot.figured(place) and self._is_young(lot, place, lot.pool_as_of_s[place])
        lowered = max(lot.pool_carrier[place] - told, 0) if holds else 0
        self._require(call.answer["correction_bytes"] == correction, f"corrected by {call.answer}, not {correction}")
        self._require(call.answer["lowered_bytes"] == lowered, f"lowered by {call.answer}, not {lowered}")
        if same:
            return {layout.SAME}
        if call.header["argument"]:
            return {layout.OK}
        before = self._pool_day_beyond(entity)
        last_s = lot.pool_as_of_s[1] if self._pool_is_told(lot, 1) else 0
        lot.pool_corrections[place], lot.pool_straddling[place] = correction, max(min(straddling, own), 0)
        lot.pool_carrier[place], lot.pool_as_of_s[place], lot.pool_raised[place] = told, as_of_s, 0
        lot.pool_added[place], lot.pool_told_at_bytes[place] = 0, counted
        day = layout.WINDOW_DAY - 1
        if place == day:
            most = told + lot.pool_straddling[day] + self._pool_counted(entity) - counted
            self._pool_carries_day(entity, before, last_s, most)
        elif last_s and self._lies_in(lot, day, place) and as_of_s * 1000 <= self._day_from_ms(lot):
            lot.pool_corrections[place] += self._pool_day_beyond_all(entity)
        if place == layout.WINDOW_CYCLE - 1:
            self._pool_cycle_has_days(entity)
        inner = [each for each in range(layout.WINDOWS) if each == place or self._lies_in(lot, each, place)]
        least = max(self._pool_floor(entity, each, place) for each in inner)
        self._raise_pool(lot, place, least - self._pool_base(entity, place))
        self._pool_keeps_told(entity)
        self._pool_holds_sims(entity)
        self._judge_pool(entity)
        if any(sim.allowances[place] for sim in mine):
            self._walk_lot(entity)
        self.corrections_count += 1
        of_what = (entity | window << 16, correction % 2**64)
        self.events_due.append(
            (layout.EVENT_POOL_CORRECTED, lowered, 0, layout.NONE_SHORT, layout.NONE_INDEX, 0, *of_what)
        )
        return {layout.OK}

    def _pool_holds_sims(self, entity: int) -> None:
        """However it is kept: of a window whose begin is known, no less is used than its SIMs' last figures say."""
        lot = self.lots[entity]
        mine = [sim for sim in self.sims if sim.lot == entity]
        for window in range(layout.WINDOWS):
            begun_ms = lot.last_reset_ms[window]
            runs = begun_ms > 0 and self.now_ms <= begun_ms + lot.lasts_s(window) * 1000 and window not in lot.resets
            if runs and lot.pools(window) and lot.figured(window):
                told = sum(max(sim.carrier[window], 0) for sim in mine if sim.as_of_s[window] > begun_ms // 1000)
                own = lot.pool_corrections[window] + lot.pool_straddling[window]
                used = self._pool_counted(entity) + lot.pool_offsets[window] + self._pool_beside(entity, window) + own
                self._require(used >= told, f"lot {entity}: {used} used in window {window + 1}, of its SIMs {told}")

    def _pool_is_told(self, lot: LotModel, window: int) -> bool:
        return lot.figured(window) and self._is_young(lot, window, lot.pool_as_of_s[window])

    def _pool_day_beyond(self, entity: int) -> int:
        """What the pool's figure of the day has beyond us and its SIMs' figures; not what those are less."""
        lot = self.lots[entity]
        less = sum(min(sim.corrections[1], 0) for sim in self.sims if sim.lot == entity) if lot.figured(1) else 0
        return max(0, lot.pool_corrections[1] + lot.pool_straddling[1] + less) if lot.pooled else 0

    def _pool_day_beyond_all(self, entity: int) -> int:
        lot = self.lots[entity]
        of_sims = sum(sim.corrections[1] + sim.straddling[1] for sim in self.sims if sim.lot == entity)
        return max(0, of_sims + lot.pool_corrections[1] + lot.pool_straddling[1]) if lot.pools(1) else 0

    def _pool_carries_day(
        self, entity: int, before: int, last_s: int = 0, most: int = 0, bases: list[int] | None = None
    ) -> None:
        """A figure of the day has changed what the pool's has beyond the others: so has it in what the day lies in."""
        lot, day = self.lots[entity], layout.WINDOW_DAY - 1
        for window in (layout.WINDOW_CYCLE - 1, layout.WINDOW_ROLLING - 1):
            if not lot.pools(window) or not self._lies_in(lot, day, window):
                continue
            more = self._pool_day_beyond(entity) - before
            if not self._pool_is_told(lot, window):
                more = max(more, min(lot.pool_raised[window] - lot.pool_corrections[window], 0))
            elif lot.pool_as_of_s[window] * 1000 > self._day_from_ms(lot):
                if last_s < lot.pool_as_of_s[window]:
                    continue
                more = max(min(more, lot.pool_carrier[window] + most - self._pool_base(entity, window)), 0)
            if bases is not None:
                # One SIM's explains a part of it: what the longer window has of that SIM now it needs not have of all.
                more = max(more, -max(self._pool_base(entity, window) - bases[window], 0))
            lot.pool_corrections[window] += more

    def _pool_cycle_has_days(self, entity: int) -> None:
        lot, (cycle, day, rolling) = self.lots[entity], (int(each) - 1 for each in layout.Window)
        if not (lot.pools(cycle) and lot.pools(rolling) and self._pool_is_told(lot, cycle)):
            return
        days = self._days_since(lot, lot.pool_as_of_s[cycle])
        if days >= 0:
            least = lot.pool_carrier[cycle]
            least += sum(max(each, lot.pool_own.get(place, 0)) for place, each in enumerate(lot.pool_days[:days]))
            least += max(self._pool_counted(entity) + lot.pool_offsets[rolling] - sum(lot.pool_days), 0)
            least += self._pool_day_beyond_all(entity) if self._pool_is_told(lot, day) else 0
            used = self._pool_base(entity, cycle) + lot.pool_raised[cycle]
            lot.pool_corrections[cycle] += max(least - used, 0)

    def _pool_keeps_told(self, entity: int) -> None:
        """No longer window of a pool has less than its carrier said of what is in it, in any order and of anybody."""
        lot, (cycle, day, rolling) = self.lots[entity], (int(each) - 1 for each in layout.Window)
        for window in (rolling, cycle):
            if not lot.pools(window) or window in lot.resets:
                continue
            told = self._pool_is_told(lot, window)
            of_sims = 0 if told else self._told_of_sims(entity, window)
            known = [of_sims + self._pool_counted(entity) - lot.told_at_bytes[window] if of_sims else 0]
            of_day = self._pool_is_told(lot, day) and self._lies_in(lot, day, window)
            known.append(self._pool_known(entity, day) if of_day else 0)
            if window == cycle and told and known[1] and lot.pool_as_of_s[cycle] * 1000 <= self._day_from_ms(lot):
                known.append(lot.pool_carrier[cycle] + known[1])
            if lot.pools(rolling):
                begun_ms, begun = self._window_begun_ms(lot, window), self._days_begun_ms(lot)[1 : lot.places + 1]
                early_ms = DAY_MS // 2 - DAY_MS // 24 if lot.rolling_days > 1 else 0
                whole = window == cycle and self._window_begun_ms(lot, rolling) - early_ms >= begun_ms
                if self._pool_is_told(lot, rolling) and whole and (lot.last_reset_ms[cycle] or not told):
                    known.append(self._pool_known(entity, rolling))
                in_it = [place for place, day_ms in enumerate(begun) if place in lot.pool_told and day_ms >= begun_ms]
                days = in_it if window == rolling or not told else []
                follows = 0 < lot.last_reset_ms[rolling] <= lot.last_reset_ms[day]
                known.append(sum(lot.pool_days[place] for place in days) + (known[1] if follows else 0))
            lot.pool_corrections[window] += max(max(known) - self._pool_known(entity, window), 0)

    def _pool_known(self, entity: int, window: int) -> int:
        """Without what leases may have used that ended without a word."""
        return self.pool_used(entity, window) - sum(sim.allowances[window] for sim in self.sims if sim.lot == entity)

    def _pool_day(self, call: Call, lot: LotModel, told: int, a_second: int) -> set[int]:
        rolling, ended_s, as_of_s = layout.WINDOW_ROLLING - 1, call.item["as_of_s"], lot.pool_as_of_s[2]
        begun_s, day_s = self.today_begun_s(lot), DAY_MS // 1000
        if as_of_s and (as_of_s >= begun_s or not lot.last_reset_ms[rolling]):
            return {layout.LATE}
        if rolling in lot.resets or self._overdue(lot, rolling):
            return {layout.WRONG_STATE}
        if ended_s > begun_s + day_s // 2:
            return {self._pool_aside(call, layout.FUTURE_USAGE)}
        place = (begun_s + day_s // 2 - ended_s) // day_s
        if place >= lot.rolling_days - 1:
            return {self._pool_aside(call, layout.PAST_WINDOW)}
        if told // a_second >= 25 * 3_600 + 2:
            return {self._pool_aside(call, layout.IMPOSSIBLE_USAGE)}
        days = lot.pool_days + [0] * (lot.rolling_days - 1 - len(lot.pool_days))
        correction = told - days[place]
        if lot.pool_told.get(place) == told:
            return {layout.SAME}
        covered = as_of_s and as_of_s + (place + 1) * day_s > begun_s
        if correction < 0 and (covered or place in lot.several):
            return {layout.LATE}
        if told < self._days_told(call.item["lot"])[place]:
            return {self._pool_aside(call, layout.IMPOSSIBLE_USAGE)}
        self._require(call.answer["correction_bytes"] == correction, f"corrected by {call.answer}, not {correction}")
        if call.header["argument"]:
            return {layout.OK}
        entity, cycle = call.item["lot"], layout.WINDOW_CYCLE - 1
        told_cycle = self._pool_is_told(lot, cycle)
        own = lot.pool_own.setdefault(place, days[place])
        if lot.pools(cycle) and self._joins_cycle(lot, place, lot.pool_as_of_s[cycle] if told_cycle else 0):
            more = max(told - own, 0) - max(days[place] - own, 0)
            if not told_cycle:
                more = max(more, min(lot.pool_raised[cycle] - lot.pool_corrections[cycle], 0))
            lot.pool_corrections[cycle] += more
        days[place] = told
        lot.pool_days = days
        lot.pool_told[place] = told
        lot.days_told_s = max(lot.days_told_s, ended_s)
        lot.pool_offsets[rolling] += correction
        self._pool_cycle_has_days(entity)
        self._pool_keeps_told(entity)
        self._judge_pool(entity)
        self.corrections_count += 1
        self._event(layout.EVENT_POOL_CORRECTED, a=entity | layout.ROLLING_DAY << 16, b=correction % 2**64)
        return {layout.OK}

    def _pool_aside(self, call: Call, status: int) -> int:
        if not call.header["argument"]:
            self.figures_aside_count += 1
            what = call.item["lot"] | call.item["window"] << 16
            self._event(layout.EVENT_POOL_ASIDE, reason=status, a=what, b=call.item["carrier_bytes"] % 2**64)
        return status

    def _allowances_known(self, sim: SimModel) -> None:
        """A figure of all SIMs of its lot, of after its leases that ended without a word, knows what they used."""
        lot = self.lots[sim.lot]
        for window in range(layout.WINDOWS):
            if lot.pools(window) and lot.figured(window) and lot.pool_as_of_s[window] > sim.unreported_s:
                sim.offsets[window] -= sim.allowances[window]
                sim.allowances[window] = 0

    def today_begun_s(self, lot: LotModel) -> int:
        """When the day of the lot's rolling window began; before its first turn, by when that comes."""
        rolling = layout.WINDOW_ROLLING - 1
        if lot.last_reset_ms[rolling]:
            return max(lot.last_reset_ms[rolling] - lot.turned_days * DAY_MS, 0) // 1000
        next_ms, _ = lot.schedule.get(rolling, (0, 0))
        if not next_ms:
            return self._midnight_ms(self.today()) // 1000
        while next_ms - DAY_MS > self.now_ms:
            next_ms -= DAY_MS
        return max(next_ms - DAY_MS, 0) // 1000

    def _figure_aside(self, call: Call, sim: SimModel, status: int) -> int:
        if not call.header["argument"]:
            self.figures_aside_count += 1
            told = call.item["carrier_bytes"] % 2**64
            self._event(layout.EVENT_SET_ASIDE, reason=status, a=told, b=sim.iccid)
        return status

    def _mask(self, call: Call) -> set[int]:
        lot, bank, masked = call.item["lot"], call.item["bank"], call.item["masked"]
        every = layout.NONE_SHORT
        if lot != every and lot not in self.lots:
            return {layout.UNKNOWN_LOT}
        if bank != every and bank not in self.banks:
            return {layout.UNKNOWN_BANK}
        if masked > 1:
            return {layout.INVALID_ARGUMENT}
        groups = {(sim.lot, sim.bank) for sim in self.sims}
        if bank == every:
            named: set[int | tuple[int, int]] = set(self.lots) if lot == every else {lot}
        elif lot == every:
            named = {bank}
        else:
            named = {(lot, bank)} if (lot, bank) in groups else set()
        self.masked = self.masked | named if masked else self.masked - named
        return {layout.OK}

    def _configure(self, call: Call) -> set[int]:
        if call.answer["status"] in (layout.OK, layout.SAME):
            self.settings[call.item["setting"]] = call.item["value"]
        return {layout.OK, layout.SAME, layout.INVALID_ARGUMENT}

    def _grow(self, call: Call) -> set[int]:
        if call.answer["status"] == layout.OK:
            self.sims_max = max(self.sims_max, call.item["sims"])
            self.terminals_max = max(self.terminals_max, call.item["terminals"])
            self.orders_max = max(self.orders_max, call.item["orders"])
        return {layout.OK, layout.SAME}

    def _thaw(self, call: Call) -> set[int]:
        before, self.frozen = self.frozen, call.header["kind"] == layout.FREEZE
        if before and not self.frozen:
            # No lease has aged by the leap of the clock.
            self.thaw_until_ms = self.now_ms + self.settings[layout.LEASE_MS]
            self._fence_anew()
            for lot in self.lots.values():
                for place, (at_ms, _) in lot.schedule.items():
                    if 0 < at_ms <= self.now_ms:
                        lot.held_s.setdefault(place, self.frozen_s)
        return {layout.OK if before else layout.SAME}

    def _stop_or_lift(self, call: Call) -> set[int]:
        before, self.swaps_stopped = self.swaps_stopped, call.header["kind"] == layout.SWAPS_STOP
        return {layout.SAME if before == self.swaps_stopped else layout.OK}

    def _given_up_resolve(self, call: Call) -> set[int]:
        place = call.item["number"] - 1
        if not 0 <= place < len(self.given_up):
            return {layout.UNKNOWN_ORDER}
        before, self.given_up[place] = self.given_up[place], True
        return {layout.SAME if before else layout.OK}

    # ----------------------------------------------------------------------------------------- sessions

    def _session(self, header: Row) -> int:
        if not self._known_server(header):
            return layout.UNKNOWN_ACCESS_SERVER
        if header["argument"] == 0 or self.servers[header["access_server"]].session != header["argument"]:
            return layout.STALE_SESSION
        return layout.OK

    def _session_open(self, call: Call) -> set[int]:
        if not self._known_server(call.header):
            return {layout.UNKNOWN_ACCESS_SERVER}
        index = call.header["access_server"]
        server = self.servers[index]
        if server.dead and any(sweep.kind == "dead" and sweep.server == index for sweep in self.sweeps):
            self._require(call.answer["session"] == 0, "a session while what it held is freed")
            return {layout.SWEEPS_FULL}
        server.dead = server.dead and server.dead_ms > 0
        earlier = max(other.session for other in self.servers)
        self._require(call.answer["session"] > earlier, f"session {call.answer['session']} is not above {earlier}")
        server.session = call.answer["session"]
        server.open_epoch = self.last_epoch + 1
        server.reconciled = False
        server.reconciling = True
        return {layout.OK}

    def _session_holds(self, call: Call) -> set[int]:
        status = self._session(call.header)
        if status != layout.OK:
            return {status}
        server, key = call.header["access_server"], call.item["terminal"]
        if self.servers[server].reconciled:
            return {layout.WRONG_STATE}
        terminal = self.terminals.get(key)
        believed = terminal.sim.iccid if terminal is not None and terminal.sim is not None else 0
        (status,) = self._hold_status(call)
        always = status in (layout.OK, layout.SETTLED)
        if always or (status != layout.SAME and self.told_aside < DIFFERENCES_TOLD_MAX):
            self.told_aside += not always
            subscriber = terminal.subscriber if terminal is not None else 0
            self.events_due.append(
                (
                    layout.EVENT_DIFFERENCE,
                    key,
                    subscriber,
                    server,
                    layout.NONE_INDEX,
                    status,
                    call.item["iccid"],
                    believed,
                )
            )
        return {status}

    def _hold_status(self, call: Call) -> set[int]:
        server = call.header["access_server"]
        sim = self._sim(call.item["iccid"])
        if sim is None:
            return {layout.UNKNOWN_SIM}
        orphan = sim.held_by
        if orphan is not None and orphan.orphaned and orphan.server == server:
            # Now it is known with which of the two SIMs the access server was left: that one must go.
            if orphan.session != call.header["argument"]:
                self._settle_orphan(orphan, switched=orphan.target is sim)
            return {layout.REVOKED}
        terminal = self.terminals.get(call.item["terminal"])
        if terminal is None:
            return self._revoke(call.item["terminal"], sim, call.item["epoch"], call.header["access_server"])
        if terminal.sim is not None and terminal.server == call.header["access_server"]:
            order = terminal.swap
            if order is not None and order.in_flight and order.session != call.header["argument"]:
                if order.target is sim:
                    terminal.named_in = call.header["argument"]
                    self._confirm(order, layout.BY_RECONCILIATION)
                    return {layout.SETTLED}
                if order.source is sim:
                    terminal.named_in = call.header["argument"]
                    self._requeue(order)
                    return {layout.SETTLED}
            if terminal.sim is sim:
                terminal.named_in = call.header["argument"]
                return {layout.SAME}
        elif (
            terminal.sim is None
            and terminal.server == call.header["access_server"]
            and terminal.epoch == call.item["epoch"]
            and sim.holder is terminal
            and terminal.last_sim is sim
            and sim.occupancy in (layout.FREE, layout.COOLING)
        ):
            if sim.held_by is not None and sim.held_by.server == server:
                self._abandon(sim.held_by)
            terminal.named_in = call.header["argument"]
            last = self._last(terminal)
            assert last is not None
            self._reported(last)
            reported = terminal.reported_bytes, terminal.reported_s
            self._begin(terminal, sim, call.item["epoch"])
            # Reports are cumulative per epoch, and the epoch goes on (I8).
            terminal.reported_bytes, terminal.reported_s = reported
            sim.heard_s = 0
            return {layout.OK}
        return self._revoke(call.item["terminal"], sim, call.item["epoch"], call.header["access_server"])

    def _not_now(self, sim: SimModel, status: int) -> set[int]:
        """Who named the SIM may use it: it rests for two leases, in the grace or while another server is told of it."""
        known = self.now_ms >= self.grace_until_ms and not self._hellos_awaited
        if known and (sim.revoke is None or sim.revoke not in self.orders):
            return {status}
        until_ms = self.now_ms + 2 * self.settings[layout.LEASE_MS]
        sim.cooling_until_ms = max(sim.cooling_until_ms, until_ms)
        if sim.occupancy == layout.FREE:
            self._cool(sim)
        return {status}

    def _revoke(self, key: int, sim: SimModel, epoch: int, server: int) -> set[int]:
        if sim.held_by is not None and sim.held_by.server == server:
            return {layout.REVOKED}
        if sim.revoke is not None and sim.revoke in self.orders:
            return {layout.REVOKED} if sim.revoke.server == server else self._not_now(sim, layout.ORDERS_FULL)
        named = sum(order is order.source.revoke and order.server == server for order in self.orders if order.source)
        if not self._orders_spare() or named >= max(1, self.orders_max // 8):
            return self._not_now(sim, layout.ORDERS_FULL)
        if key not in self.terminals:
            if len(self.terminals) >= self.terminals_max - self.terminals_max // 8:
                return self._not_now(sim, layout.TERMINALS_FULL)
            self._bring(key, server)
        order = OrderModel(layout.REVOKE, self.terminals[key], sim, server, epoch)
        self.orders.append(order)
        sim.revoke = order
        if sim.occupancy == layout.FREE or (sim.occupancy == layout.COOLING and sim.held_by is None):
            self._cooled(sim)
            self._hold(sim, self.terminals[key], order)
        return {layout.REVOKED}

    def _session_ready(self, call: Call) -> set[int]:
        status = self._session(call.header)
        if status != layout.OK:
            return {status}
        server = self.servers[call.header["access_server"]]
        if server.reconciled:
            return {layout.SAME}
        server.reconciled = True
        for kind in ("reconcile_orders", "reconcile_leases"):
            self.sweeps.append(Sweep(kind, call.header["access_server"], call.header["argument"], server.open_epoch))
        return {layout.OK}

    def _session_close(self, call: Call) -> set[int]:
        status = self._session(call.header)
        if status == layout.OK:
            self.servers[call.header["access_server"]].session = 0
            self.servers[call.header["access_server"]].reconciling = False
        return {status}

    def _declare_dead(self, call: Call) -> set[int]:
        index, undo = call.header["access_server"], call.item["undo"]
        if not self._known_server(call.header):
            return {layout.UNKNOWN_ACCESS_SERVER}
        if undo > 1:
            return {layout.INVALID_ARGUMENT}
        server = self.servers[index]
        if undo:
            if not server.dead_ms:
                return {layout.WRONG_STATE}
            self._lives(index, layout.DEATH_UNDONE)
            return {layout.OK}
        if server.session and server.reconciled:
            return {layout.WRONG_STATE}
        if server.dead and server.awaited != "a hello":
            return {layout.SAME}
        server.awaited = server.awaited and "its burial"
        server.session, server.reconciling = 0, False
        server.dead, server.dead_ms = True, self.now_ms + self.settings[layout.FENCING_MS]
        self._event(layout.EVENT_DEATH, server=index, reason=layout.DEATH_DECLARED, a=server.dead_ms)
        return {layout.OK}

    def _server_pause(self, call: Call) -> set[int]:
        if not self._known_server(call.header):
            return {layout.UNKNOWN_ACCESS_SERVER}
        index, paused = call.header["access_server"], call.header["kind"] == layout.SERVER_PAUSE
        if self.servers[index].paused == paused:
            return {layout.SAME}
        self.servers[index].paused = paused
        self._event(layout.EVENT_PAUSE, server=index, reason=int(paused))
        return {layout.OK}

    def _bury(self, sweep: Sweep) -> None:
        """All that a dead access server held is freed, unless it gave a sign of life."""
        if not self.servers[sweep.server].dead:
            return
        for order in [order for order in self.orders if order.server == sweep.server]:
            if order.kind != layout.SWITCH:
                held = order.source is not None and order.source.held_by is order
                over = self._over(order.terminal, order.epoch) if held else None
                self._abandon(order)
                self._unreported(over, order.source)
            elif order.in_flight:
                self._abandon_swap(order)
        for terminal in self.terminals.values():
            if terminal.sim is not None and terminal.server == sweep.server:
                iccid = terminal.sim.iccid
                self._event(layout.EVENT_DIFFERENCE, terminal, sweep.server, reason=layout.NO_LEASE, b=iccid)
                self._release(terminal)
                self._unreported(self._last(terminal), terminal.last_sim)
        if self.servers[sweep.server].awaited == "its burial" and not self.servers[sweep.server].dead_ms:
            self._has_said_all(sweep.server)

    def _abandon_swap(self, order: OrderModel) -> None:
        """Nobody will say whether it was carried out: its terminal may have used either SIM."""
        terminal, source, target = order.terminal, order.source, order.target
        on_source = None
        if order.orphaned:
            on_source, on_target = self._over(terminal, order.source_epoch), self._over(terminal, order.epoch)
        else:
            on_target = self.ended[order.epoch] = self._on_target(order)
        self._abandon(order)
        self._unreported(on_target, target)
        self._unreported(on_source, source)

    def _restart(self, restored: bool) -> None:
        for server in self.servers:
            server.session = 0
            server.reconciled = server.reconciling = False
            if restored:
                server.awaited = "a hello"
        self.grace_until_ms = self.now_ms + 2 * self.settings[layout.LEASE_MS]
        self._fence_anew()

    def _fence_anew(self) -> None:
        """Who was declared dead could not be heard, or nobody knows for how long: the delay begins again."""
        for server in self.servers:
            if server.dead_ms:
                server.dead_ms = self.now_ms + self.settings[layout.FENCING_MS]

    @property
    def _hellos_awaited(self) -> bool:
        """Since a restore: while one may hold what it was given after the backup, nobody is given a SIM anew (I1)."""
        return any(server.awaited for server in self.servers)

    def _told_of(self, terminal: TerminalModel) -> bool:
        """Whether its access server has said since the restore that it holds what it does."""
        server = self.servers[terminal.server]
        return not server.awaited or (server.session != 0 and terminal.named_in == server.session)

    def _has_said_all(self, index: int) -> None:
        if self.servers[index].awaited:
            self.servers[index].awaited = ""
            self.grace_until_ms = max(self.grace_until_ms, self.now_ms + 2 * self.settings[layout.LEASE_MS])

    def _report_load(self, call: Call) -> set[int]:
        return {self._session(call.header)}

    # ------------------------------------------------------------------------------------------- orders

    def _acknowledge(self, call: Call) -> set[int]:
        status = self._session(call.header)
        if status != layout.OK:
            return {status}
        if not layout.ACK_DONE <= call.item["result"] <= layout.ACK_BUSY:
            return {layout.INVALID_ARGUMENT}
        order = next((order for order in self.orders if order.in_flight and order.number == call.item["order"]), None)
        if order is None:
            count, index = divmod(call.item["order"], 1 << ORDER_NUMBER_BITS)
            was_sent = 0 < count <= self.sent_count and index < self.orders_max
            return {layout.LATE if was_sent else layout.UNKNOWN_ORDER}
        if order.server != call.header["access_server"] or order.session != call.header["argument"]:
            return {layout.STALE_SESSION}
        if call.item["result"] == layout.ACK_DONE:
            self._confirm(order, layout.BY_ACKNOWLEDGEMENT)
        else:
            self._refused(order, busy=call.item["result"] == layout.ACK_BUSY)
        return {layout.OK}

    def _sent(self, row: Row, tables: dict[str, Table]) -> None:
        """An order left: it was wanted, its access server may take it, its target fits (I3, I4, I7)."""
        wanted = [
            order
            for order in self.orders
            if not order.in_flight
            and (order.kind, order.terminal.key, order.server) == (row["kind"], row["terminal"], row["access_server"])
            and order.source is not None
            and order.source.iccid == row["source_iccid"]
        ]
        # Two orders may tell the same server to let go of the same SIM: of two leases.
        order = next((order for order in wanted if order.epoch == row["epoch"]), wanted[0] if wanted else None)
        if order is None:
            raise Mismatch(f"nobody asked for the order {row}")
        server = self.servers[order.server]
        record = tables["servers"][order.server]
        self._require(server.session != 0 and row["session"] == server.session, f"order to another session: {row}")
        self._require(record["gate"] in (layout.GATE_OPEN, layout.GATE_PROBING), f"order through a closed gate: {row}")
        self._require(record["outstanding"] <= record["window"], f"I3: sent above the window of {record['window']}")
        self.sent_count += 1
        late = self._promise_late(order)
        first = not order.announced_ms or (late and not order.ahead_ms)
        order.state = "outstanding"
        order.overdue = False
        order.number, order.session, order.deadline_ms = row["order"], row["session"], row["deadline_ms"]
        order.ordered_ms = self.now_ms
        self._require(row["deadline_ms"] == self.now_ms + self.settings[layout.ORDER_DEADLINE_MS], f"deadline of {row}")
        if order.kind != layout.SWITCH:
            return
        self._require(not self.swaps_stopped, f"a swap was sent while swaps are stopped: {row}")
        if order.job is not None:
            running = order.job.begun and order.job.state in (layout.JOB_RUNNING, layout.JOB_SELECTING)
            self._require(running, f"a swap of a job in state {order.job.state} was sent: {row}")
            if order.job.canary:
                out = sum(other.job is order.job and other.in_flight and not other.overdue for other in self.orders)
                tried = out + order.job.settled_lately
                self._require(tried <= order.job.options["canary_count"], f"{tried} swaps of the canary: {row}")
        come = not order.ahead_ms or (0 < order.announced_ms <= self.now_ms and not late)
        self._require(come, f"announced for {order.announced_ms}: {row}")
        if first:
            order.announced_ms = self.now_ms
            self._announced(order)
        target = self._sim(row["target_iccid"])
        if target is None:
            raise Mismatch(f"the target of {row} is no SIM")
        terminal = order.terminal
        lowest = lowest_bytes(terminal.expected_tier)
        self._check_choice(target, terminal.market, lowest, "a swap", reserve=True, roomy=order.job is None)
        left = len(self._free_healthy(target.sim_class)) - 1
        self._require(left >= self.reserves[target.sim_class], f"I7: the swap {row} went below the reserve")
        target.occupancy = layout.RESERVED
        self._given_to(target, terminal)
        self._claims(target, terminal)
        order.target = target
        order.epoch = self._new_epoch(row["epoch"])
        self._order_event(layout.EVENT_ORDERED, order, order.priority, target.iccid)

    # --------------------------------------------------------------------------------------------- jobs

    def _asked_as(self, order: OrderModel) -> int:
        """As what it is sent once more: a switch that is not to begin any more is withdrawn."""
        if order.kind != layout.SWITCH:
            return order.kind
        over = order.orphaned or (order.job is not None and order.job.state in ENDED)
        return layout.WITHDRAW if over or not self._target_fits(order) else order.kind

    def _asked_again(
        self, row: Row, in_flight: dict[int, tuple[OrderModel, str, int, int]], ran: list[JobModel], stopped: bool
    ) -> bool:
        """Whether an order is sent once more under its number, because nobody said what became of it.

        A timer does that, before the commands. What was so then: ``in_flight``: orders by number with their state,
        their access server's session and as what they are sent again; ``ran``: which jobs ran; ``stopped``: whether
        swaps were.
        """
        if row["order"] not in in_flight:
            return False
        order, state, session, kind = in_flight[row["order"]]
        self._require(state == "unknown", f"an order was sent twice: {row}")
        here = order.session == row["session"] == session
        self._require(here, f"asked in another session: {row}")
        self._require(order.epoch == row["epoch"], f"under another epoch: {row}")
        self._require(row["kind"] == kind, f"I4: asked for as {kind}: {row}")
        held = order.job is not None and order.job not in ran and kind != layout.WITHDRAW
        sends = order.kind != layout.SWITCH or not (stopped or held)
        self._require(sends, f"a swap was asked for that is not sent now: {row}")
        self._require(
            self.now_ms >= order.asked_ms + self.settings[layout.UNKNOWN_ASK_MS], f"asked for too often: {row}"
        )
        order.asked_ms = self.now_ms
        return True

    def _job_create(self, call: Call) -> set[int]:
        asked = call.item
        quiet_from, quiet_until = asked["quiet_from_ms"], asked["quiet_until_ms"]
        quiet = not (quiet_from or quiet_until) or (
            quiet_from < quiet_until < quiet_from + DAY_MS and self.now_ms < quiet_until <= self.now_ms + 2 * DAY_MS
        )
        if (
            not 1 <= asked["priority"] < layout.PRIORITIES
            or asked["selecting"] > 1
            or asked["health_mask"] >= 1 << 10
            or not quiet
            or not 1 <= asked["on_infeasible"] <= 3
        ):
            return {layout.INVALID_ARGUMENT}
        if call.item["server"] != layout.NONE_SHORT and call.item["server"] >= len(self.servers):
            return {layout.UNKNOWN_ACCESS_SERVER}
        if call.item["lot"] != layout.NONE_SHORT and call.item["lot"] not in self.lots:
            return {layout.UNKNOWN_LOT}
        if call.answer["status"] != layout.OK:
            return {layout.JOBS_FULL, layout.SWEEPS_FULL}
        self._require(
            call.answer["job"] == len(self.jobs), f"job {len(self.jobs)} was given the number {call.answer['job']}"
        )
        listed = not asked["selecting"]
        job = JobModel(
            call.answer["job"],
            asked["health_mask"],
            asked["lot"],
            asked["server"],
            listing=listed,
            sweeping=False,
            state=layout.JOB_SELECTING if listed else layout.JOB_CHECKING,
            options=asked,
            actor=call.header["actor"],
            listed=listed,
            quiet=(quiet_from, quiet_until),
        )
        self.jobs.append(job)
        self._event(layout.EVENT_JOB, job=job.id, a=job.state)
        if not listed:
            self.sweeps.append(Sweep("check", job=job, end=len(self.sims)))
        return {layout.OK}

    # What the check of a job finds, and what follows from it.

    def _check_job(self, job: JobModel, sims: list[SimModel]) -> None:
        wanted = [order.terminal for order in self.orders if order.job is job]
        if not job.listed:
            wanted = [sim.holder for sim in sims if self._selects(job, sim) and sim.holder is not None]
        demand: list[TerminalModel] = []
        for terminal in wanted:
            if terminal.swap is not None and terminal.swap.job is not job:
                job.without[layout.WITHOUT_SWAP] += 1
            elif terminal.swap is None and self._rests(terminal):
                job.without[layout.WITHOUT_REST] += 1
            elif terminal.swap is None and self._at_ceiling(terminal):
                job.without[layout.WITHOUT_CEILING] += 1
            elif not self.servers[terminal.server].session or self.servers[terminal.server].paused:
                job.without[layout.WITHOUT_SERVER] += 1
            else:
                demand.append(terminal)
        job.demand = len(demand)
        supply: dict[int, list[int]] = {sim_class: [] for sim_class in self.reserves}
        for lot in self.lots.values():
            lot.promised_bytes = 0
        share_tier = max(tier_satisfying(self._expected(market, 0)) for market in self.markets)
        for sim in sims:
            if sim.occupancy == layout.FREE and sim.health == layout.HEALTHY and not self._masked(sim):
                tier, lot = sim.tier, self.lots[sim.lot]
                if lot.pooled:
                    tier = min(tier, share_tier)
                    if not self._pool_has(sim, lot.promised_bytes + lowest_bytes(tier)):
                        continue
                    lot.promised_bytes += lowest_bytes(tier)
                supply[sim.sim_class].append(tier)
        for sim_class, reserve in self.reserves.items():
            supply[sim_class] = sorted(supply[sim_class])[reserve:]
        markets = list(self.markets)
        for terminal in sorted(demand, key=lambda each: (markets.index(each.market), -each.expected_tier)):
            for sim_class in self.markets[terminal.market][1]:
                good = [tier for tier in supply[sim_class] if tier >= terminal.expected_tier]
                if good:
                    supply[sim_class].remove(good[0])
                    job.targets += 1
                    break
            else:
                job.without[layout.WITHOUT_TARGET] += 1
        self._checked(job)

    def _checked(self, job: JobModel) -> None:
        expected = int(self.job_records[job.id % len(self.job_records)]["expected_finish_ms"])
        self._require(expected >= self.now_ms, f"job {job.id} would be over in the past")
        why = layout.WHY_NONE
        if job.without[layout.WITHOUT_TARGET]:
            why = layout.WHY_TARGETS
        elif 0 < job.options["deadline_ms"] < expected:
            why = layout.WHY_LATE
        if job.options["dry_run"]:
            self._close_job(job, layout.JOB_CHECKED, why)
        elif why == layout.WHY_NONE or job.options["on_infeasible"] == layout.INFEASIBLE_PROCEED:
            self._begin_job(job)
        elif job.options["on_infeasible"] == layout.INFEASIBLE_PAUSE:
            self._enter(job, layout.JOB_PAUSED, why)
        else:
            self._close_job(job, layout.JOB_REFUSED, why)

    def _close_job(self, job: JobModel, state: int, why: int) -> None:
        self._enter(job, state, why)
        if any(order.job is job for order in self.orders):
            self.sweeps.append(Sweep("cancel", job=job))

    def _begin_job(self, job: JobModel) -> None:
        count = job.terminals if job.listed else job.demand + job.without[layout.WITHOUT_SERVER]
        if job.approver is None and count + self._moved_alone(job.actor) > self.settings[layout.APPROVAL_ABOVE]:
            self._enter(job, layout.JOB_AWAITING_APPROVAL)
            return
        job.begun = True
        job.size_max = None if job.listed else count
        job.canary = 0 < job.options["canary_count"] < count
        self._enter(job, layout.JOB_RUNNING if job.listed else layout.JOB_SELECTING)
        if not job.listed:
            job.sweeping = True
            self.sweeps.append(Sweep("select", job=job, end=len(self.sims)))
        self._finish_jobs()

    def _quiet_hours(self) -> None:
        self._finish_jobs()
        for job in self.jobs:
            if not job.begun or job.state in ENDED or not job.quiet[1]:
                continue
            while job.quiet[1] <= self.now_ms:
                job.quiet = (job.quiet[0] + DAY_MS, job.quiet[1] + DAY_MS)
            if job.quiet[0] <= self.now_ms:
                self._hold_job(job, layout.WHY_QUIET)
            elif job.state == layout.JOB_PAUSED and job.why == layout.WHY_QUIET:
                self._enter(job, layout.JOB_SELECTING if job.sweeping else layout.JOB_RUNNING)

    def _find_job(self, header: Row) -> JobModel | None:
        return self.jobs[header["argument"]] if header["argument"] < len(self.jobs) else None

    def _job_add(self, call: Call) -> set[int]:
        job = self._find_job(call.header)
        if job is None:
            return {layout.UNKNOWN_JOB}
        if not job.listing:
            return {layout.WRONG_STATE}
        terminal = self.terminals.get(call.item["terminal"])
        if terminal is None:
            return {layout.UNKNOWN_TERMINAL}
        return {self._add(job, terminal)}

    def _job_change(self, call: Call) -> set[int]:
        job, kind = self._find_job(call.header), call.header["kind"]
        if job is None:
            return {layout.UNKNOWN_JOB}
        if job.state in ENDED:
            again = kind == layout.JOB_CANCEL and job.state == layout.JOB_CANCELLED
            return {layout.SAME if again else layout.WRONG_STATE}
        if kind == layout.JOB_PAUSE:
            if job.state not in (layout.JOB_PAUSED, layout.JOB_RUNNING, layout.JOB_SELECTING):
                return {layout.WRONG_STATE}
            same = job.state == layout.JOB_PAUSED and job.why == layout.WHY_OPERATOR
            self._enter(job, layout.JOB_PAUSED, layout.WHY_OPERATOR)
            return {layout.SAME if same else layout.OK}
        if kind == layout.JOB_RESUME:
            return {self._resume(job)}
        if kind == layout.JOB_APPROVE:
            if job.state != layout.JOB_AWAITING_APPROVAL:
                return {layout.WRONG_STATE}
            if job.actor == call.header["actor"]:
                return {layout.SECOND_PERSON}
            job.approver = call.header["actor"]
            if not self._late(job):
                self._begin_job(job)
            elif job.options["on_infeasible"] == layout.INFEASIBLE_PAUSE:
                self._enter(job, layout.JOB_PAUSED, layout.WHY_LATE)
            else:
                self._close_job(job, layout.JOB_REFUSED, layout.WHY_LATE)
            return {layout.OK}
        self._enter(job, layout.JOB_CANCELLED, layout.WHY_OPERATOR)
        job.listing = job.sweeping = False
        self.sweeps.append(Sweep("cancel", job=job))
        return {layout.OK}

    def _late(self, job: JobModel) -> bool:
        """Whether its deadline can't be kept any more, and that matters; when it would be over is the core's to say."""
        over_ms = int(self.job_records[job.id % len(self.job_records)]["expected_finish_ms"])
        matters = job.options["on_infeasible"] != layout.INFEASIBLE_PROCEED
        return bool(matters and 0 < job.options["deadline_ms"] < (self.now_ms if job.begun else over_ms))

    def _resume(self, job: JobModel) -> int:
        if job.state == layout.JOB_RUNNING:
            return layout.SAME
        if job.listing:
            job.listing = False
            self._enter(job, layout.JOB_CHECKING)
            self.sweeps.append(Sweep("check", job=job, end=len(self.sims)))
            return layout.OK
        if job.state == layout.JOB_SELECTING:
            return layout.SAME
        if job.state != layout.JOB_PAUSED:
            return layout.WRONG_STATE
        if job.begun and job.options["on_infeasible"] == layout.INFEASIBLE_REFUSE and self._late(job):
            job.why = layout.WHY_LATE
            return layout.OK
        if not job.begun:
            self._begin_job(job)
            return layout.OK
        job.settled_lately = job.failed_lately = 0
        self._enter(job, layout.JOB_SELECTING if job.sweeping else layout.JOB_RUNNING)
        return layout.OK

    # ------------------------------------------------------------------------------------ time and sweeps

    def _timers(self, tables: dict[str, Table], anew: set[int], gave_back: set[int]) -> None:
        """What time alone does. When exactly a lease that is over ends is left to the core, within a bound.

        ``anew``: terminals that were given a lease in the same apply, and had none by then; ``gave_back``: those that
        still had the one that was over, and lost it otherwise.
        """
        for sim in self.sims:
            cools = sim.occupancy == layout.COOLING and sim.held_by is None
            if cools and sim.cooling_until_ms <= self.now_ms:
                if sim.revoke in self.orders and sim.holder is not None:
                    self._hold(sim, sim.holder, sim.revoke)
                else:
                    self._cooled(sim)
                    sim.occupancy = layout.FREE
        for order in self.orders:
            if order.state == "outstanding" and max(order.deadline_ms, self.answers_until_ms) <= self.now_ms:
                order.state = "unknown"
                order.overdue = True
                order.asked_ms = self.now_ms
                self._job_outcome(order.job, failed=True)
                self._order_event(layout.EVENT_OVERDUE, order, 0, self.now_ms - order.ordered_ms)
        for index, server in enumerate(self.servers):
            if server.dead and 0 < server.dead_ms <= self.now_ms and not self.frozen:
                self._event(layout.EVENT_DEATH, server=index, reason=layout.DEATH_SETTLED, a=server.dead_ms)
                server.dead_ms = server.session = 0
                server.reconciling = False
                self.sweeps.append(Sweep("dead", server=index))
        for entity, lot in self.lots.items():
            if lot.turn_ms <= self.now_ms:
                self._turn_lot(entity)
        over = [
            (
                terminal,
                (tables["terminals"][index]["sim"] == layout.NONE_INDEX or terminal.key in anew)
                and terminal.key not in gave_back - anew
                and not self._protected(terminal),
            )
            for index, terminal in enumerate(self.terminals.values())
            if terminal.sim is not None and terminal.expires_ms <= self.now_ms
        ]
        # Those that ended come first: they may have taken the last orders from those that go on.
        for terminal, ended in over:
            if ended:
                self._take_away(terminal, layout.REVOKE)
        full = len(self.orders) >= self.orders_max
        for terminal, ended in over:
            if ended:
                continue
            if full or self._protected(terminal):
                terminal.protected_ms = self.now_ms
            else:
                asked_again_ms = terminal.protected_ms + self.settings[layout.LEASE_MS]
                bound = max(terminal.expires_ms, asked_again_ms, self.grace_until_ms, self.thaw_until_ms)
                self._require(self.now_ms < bound + 64, f"the lease of terminal {terminal.key} is over and goes on")

    def _protected(self, terminal: TerminalModel) -> bool:
        """Whether a lease that is over goes on, since nobody can know whether it is in use."""
        graced = not self.servers[terminal.server].reconciled and self.now_ms < self.grace_until_ms
        swapping = terminal.swap is not None and terminal.swap.in_flight
        # Nobody could be told, and the SIM would be held all the same.
        untold = self.servers[terminal.server].session == 0
        thawed = self.now_ms < self.thaw_until_ms
        return self.frozen or thawed or graced or swapping or untold

    def _run_sweeps(self) -> None:
        """Work in progress, first come first served; what waits for an order to become free lets the others go on."""
        waits = len(self.sweeps)
        while self.sweeps and waits:
            sweep = self.sweeps.pop(0)
            if not self._run_sweep(sweep):
                self.sweeps.append(sweep)
                waits -= 1

    def _run_sweep(self, sweep: Sweep) -> bool:
        if sweep.kind == "limits":
            self.walk = sweep
            for sim in self.sims[: sweep.end]:
                if sim.lot in sweep.lots:
                    for window in sweep.lots[sim.lot]:
                        self._restart_window(sim, window, False)
                    self._allowances_known(sim)
                    self._set_limit(sim)
            self.walk = None
            for entity in sweep.lots:
                self._judge_pool(entity)
        elif sweep.kind == "subscribers":
            self._walk_subscribers()
        elif sweep.kind == "dead":
            self._bury(sweep)
        elif sweep.kind == "automatic":
            for sim in self.sims[: sweep.end]:
                if sim.occupancy == layout.ASSIGNED and sim.health != layout.HEALTHY:
                    self._automatic(sim)
        elif sweep.job is not None:
            return self._job_sweep(sweep, sweep.job)
        elif self.servers[sweep.server].session == sweep.session:
            self._reconcile(sweep)
        return True

    def _turn(self, sim: SimModel) -> None:
        """A day of the rolling window is over."""
        lot = self.lots[sim.lot]
        today = sim.counted_bytes + sim.offsets[2] - sum(sim.days)
        held_up = 0 < sim.late[0] >= lot.from_s[2]
        later = max(min(sim.counted_bytes - sim.late[1], today - sim.beside(2)), 0) if held_up else 0
        stays = sim.allowances[2] if held_up and sim.late_allowed_s >= lot.from_s[2] else 0
        # What the carrier counted less holds for the day on which it was told.
        today = max(today - min(sim.corrections[2], 0) - later - stays, 0)
        if lot.pools(2) and lot.places:
            kept = sim.beside(2) - min(sim.corrections[2], 0) - stays
            if lot.turn.index(True) < lot.places:
                lot.pool_days += [0] * (lot.places - len(lot.pool_days))
                lot.pool_days[lot.turn.index(True)] += kept
                lot.pool_offsets[2] += kept
        sim.corrections[2], sim.allowances[2], sim.straddling[2] = 0, stays, 0
        sim.carrier[2] = -1 if sim.as_of_s[2] else 0
        ended = [-(-today // 4096) * 4096 if counts else 0 for counts in lot.turn]
        sim.days = [*ended, *sim.days][: -(-(lot.rolling_days - 1) // lot.step_days)]
        sim.days_told = [*[None] * len(ended), *sim.days_told][: len(sim.days)]
        own = {place + len(ended): bytes_ for place, bytes_ in sim.days_own.items()}
        sim.days_own = {place: bytes_ for place, bytes_ in own.items() if place < len(sim.days)}
        sim.offsets[2] = sum(sim.days) - sim.counted_bytes + later + stays

    def _job_sweep(self, sweep: Sweep, job: JobModel) -> bool:
        if sweep.kind == "cancel":
            for order in [order for order in self.orders if order.job is job and not order.in_flight]:
                self._drop_swap(order, layout.JOB_OVER)
            return True
        if sweep.kind == "check":
            if job.state == layout.JOB_CHECKING:
                self._check_job(job, self.sims[: sweep.end])
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
            self._enter(job, layout.JOB_RUNNING)
        return True

    def _selects(self, job: JobModel, sim: SimModel) -> bool:
        if sim.occupancy != layout.ASSIGNED or sim.holder is None:
            return False
        if job.health_mask and not job.health_mask >> sim.health & 1:
            return False
        below = job.options["headroom_below_bytes"]
        if below and sim.headroom_bytes >= below and self._pool_has(sim, below):
            return False
        places = (("lot", sim.lot), ("bank", sim.bank), ("sim_class", sim.sim_class), ("server", sim.holder.server))
        return all(job.options[name] in (layout.NONE_SHORT, place) for name, place in places)

    def _reconcile(self, sweep: Sweep) -> None:
        def gone(terminal: TerminalModel) -> bool:
            here = terminal.sim is not None and terminal.server == sweep.server
            return here and terminal.named_in != sweep.session and terminal.epoch < sweep.open_epoch

        def release(terminal: TerminalModel) -> None:
            assert terminal.sim is not None
            self._event(
                layout.EVENT_DIFFERENCE, terminal, terminal.server, reason=layout.NO_LEASE, b=terminal.sim.iccid
            )
            self._release(terminal)
            self._unreported(self._last(terminal), terminal.last_sim)

        if sweep.kind == "reconcile_orders":
            for order in list(self.orders):
                if order.server != sweep.server or not order.in_flight or order.session == sweep.session:
                    continue
                if order.kind != layout.SWITCH:
                    self._requeue(order)
                    continue
                self._abandon_swap(order)
                if order.terminal.swap is None and gone(order.terminal):
                    release(order.terminal)
        else:
            for terminal in self.terminals.values():
                if gone(terminal):
                    release(terminal)
            self.servers[sweep.server].reconciling = False
            self._has_said_all(sweep.server)

    # ------------------------------------------------------------------------------------------ compare

    def compare(self, tables: dict[str, Table]) -> None:
        """Every SIM, terminal, order, job and total against the core's records."""
        header = tables["header"][0]
        numbers = {id(terminal): index for index, terminal in enumerate(self.terminals.values())}
        unheard = {"": layout.HEARD, "a hello": layout.UNHEARD, "its burial": layout.UNHEARD_DEAD}
        awaited = [unheard[server.awaited] for server in self.servers]
        self._require(
            tables["servers"]["unheard"][: len(awaited)].tolist() == awaited, "who is awaited after a restore"
        )
        self._require(header["unheard_count"] == sum(map(bool, awaited)), "how many are awaited after a restore")
        self._require(header["sims_count"] == len(self.sims), "the number of SIMs")
        self._require(header["terminals_count"] == len(self.terminals), "the number of terminals")
        sims = tables["sims"]
        for sim, limit_bytes in zip(self.sims, sims["limit_bytes"].tolist(), strict=True):
            if self.lots[sim.lot].ended and max(sim.limit_bytes, limit_bytes) < sim.counted_bytes:
                # Nothing is left; of which count that was worked out is the core's choice.
                sim.limit_bytes = limit_bytes
        self._all_same(
            [f"SIM {index}" for index in range(len(self.sims))],
            sims,
            occupancy=[sim.occupancy for sim in self.sims],
            health=[sim.health for sim in self.sims],
            held=[sim.held for sim in self.sims],
            counted_bytes=[sim.counted_bytes for sim in self.sims],
            limit_bytes=[sim.limit_bytes for sim in self.sims],
            cooling=[
                cooling & ~UNTRUSTED | UNTRUSTED * sim.untrusted
                for sim, cooling in zip(self.sims, sims["cooling"].tolist(), strict=True)
            ],
            terminal=[layout.NONE_INDEX if sim.holder is None else numbers[id(sim.holder)] for sim in self.sims],
        )
        self._compare_ledger(tables["sims_ledger"])
        self._compare_ended(tables["ended_leases"], numbers)
        rolling = tables["sims_rolling"]["offset_bytes"].tolist()
        for sim in self.sims:
            offset = rolling[sim.index] if sim.index < len(rolling) else 0
            if offset != sim.offsets[2] - sum(sim.days):
                raise Mismatch(f"SIM {sim.index}: its rolling offset is {offset}")
            places = range(self.lots[sim.lot].places if sim.index < len(rolling) else 0)
            own = [int(tables["sims_rolling"]["own"][sim.index][place]) * 4096 for place in places]
            if own != [sim.days_own.get(place, 0) for place in places]:
                raise Mismatch(f"SIM {sim.index}: of days that were told it says that we counted {own}")
        late = tables["sims_late"][["at_s", "counted_bytes", "allowed_s"]].tolist()
        for sim, found in zip(self.sims, late, strict=False):
            wanted_late = (*sim.late, sim.late_allowed_s)
            self._require(found == wanted_late, f"SIM {sim.index}: counts {found} late, not {wanted_late}")
        self._require(not any(sim.late[0] for sim in self.sims[len(late) :]), "a SIM that counts late is left out")
        records, terminals = tables["terminals"], self.terminals.values()
        self._all_same(
            [f"terminal {terminal.key}" for terminal in terminals],
            records,
            key=[terminal.key for terminal in terminals],
            sim=[layout.NONE_INDEX if terminal.sim is None else terminal.sim.index for terminal in terminals],
            epoch=[terminal.epoch for terminal in terminals],
            reported_bytes=[terminal.reported_bytes for terminal in terminals],
            counted_bytes=[terminal.counted_bytes for terminal in terminals],
            server=[terminal.server for terminal in terminals],
            expires_ms=[
                terminal.expires_ms if terminal.sim is not None else expires_ms
                for terminal, expires_ms in zip(terminals, records["expires_ms"].tolist(), strict=True)
            ],
        )
        for terminal, order in zip(terminals, records["order"].tolist(), strict=True):
            awaits = order == layout.NONE_INDEX - 1
            if awaits != (terminal.awaits is not None):
                raise Mismatch(f"terminal {terminal.key} awaits traffic: {awaits}")
        for entity, lot in self.lots.items():
            self._same(
                f"lot {entity}",
                tables["lots"][entity],
                resetting=sum(1 << window for window in lot.resets),
                turned_days=lot.turned_days,
                tried_ms=lot.tried_ms,
                slowed_count=self._slowed_count(entity),
                exhausted_count=self._count(entity, layout.EXHAUSTED),
                pool_health=0 if lot.pool_health == layout.HEALTHY else lot.pool_health,
                pool_counted_bytes=self._pool_counted(entity) if lot.pooled else 0,
                pool_claimed_bytes=self._pool_claimed(entity),
                pool_days_told=sum(1 << place for place in lot.pool_told),
            )
            of_late = ("held_s", "from_s", "pool_late_s", "pool_late_bytes")
            held_up = [tables["lots"][entity][name].tolist() for name in of_late]
            held_s = [lot.held_s.get(window, 0) for window in range(layout.WINDOWS)]
            known_late = [held_s, lot.from_s, *(lot.pool_late if lot.pooled else held_up[2:])]
            self._require(held_up == known_late, f"lot {entity}: counts {held_up} late, not {known_late}")
            if tables["lots"][entity]["ended_ms"].tolist() != lot.ended_ms:
                raise Mismatch(f"lot {entity}: its resets had ended at {lot.ended_ms} in the model")
            if lot.pools(2) and 2 not in lot.resets:
                of_days = ("sims_days_bytes", "pool_days_raised_bytes", "pool_days_own_bytes")
                days = [tables["lots"][entity][name][: lot.places].tolist() for name in of_days]
                raised = [
                    lot.pool_days[place] - lot.pool_told[place] if place in lot.pool_told else 0
                    for place in range(lot.places)
                ]
                told = self._days_told(entity)[: lot.places]
                own = [lot.pool_own.get(place, 0) for place in range(lot.places)]
                self._require(days == [told, raised, own], f"lot {entity}: of its days it says {days}")
            if lot.pooled:
                left = int(tables["lots"][entity]["pool_limit_bytes"])
                left -= self._pool_counted(entity) if left != 2**63 - 1 else 0
                known_left = self._pool_left(entity)
                self._require(left == known_left, f"lot {entity}: its pool has {left} left, not {known_left}")
            for window in range(layout.WINDOWS) if lot.pooled else ():
                if not lot.pools(window):
                    continue
                names = ("offset_bytes", "beside_bytes", "allowance_bytes", "correction_bytes", "straddling_bytes")
                pool = [int(tables["lots"][entity][f"pool_{name}"][window]) for name in (*names, "less_bytes")]
                pool += [int(tables["lots"][entity][f"pool_{name}"][window]) for name in ("carrier_bytes", "as_of_s")]
                known = [lot.pool_offsets[window], self._pool_beside(entity, window)]
                known.append(sum(sim.allowances[window] for sim in self.sims if sim.lot == entity))
                known += [lot.pool_corrections[window], lot.pool_straddling[window]]
                known.append(sum(min(sim.corrections[window], 0) for sim in self.sims if sim.lot == entity))
                known += [lot.pool_carrier[window], lot.pool_as_of_s[window]]
                pool += [
                    int(tables["lots"][entity][name][window])
                    for name in (
                        *("sims_told_since_s", "sims_next_since_s", "sims_told_last_s", "sims_told_counted_bytes"),
                        *("pool_raised_bytes", "pool_added_bytes", "sims_told_bytes", "sims_next_bytes"),
                    )
                ]
                since_s = [*lot.told_from_s[window], 0, 0][:2]
                known += [*since_s, lot.told_until_s[window], lot.told_at_bytes[window]]
                known += [lot.pool_raised[window], lot.pool_added[window]]
                known += [self._sum_told(entity, window, since) for since in since_s]
                self._require(pool == known, f"lot {entity}: its pool says {pool} of window {window + 1}, not {known}")
            found = {name: tables["lots"][entity][name].tolist() for name in ("quota_bytes", "reset_ms", "waiting_ms")}
            wanted = {
                "quota_bytes": [quota for quota, _ in lot.caps],
                "reset_ms": [lot.schedule.get(window, (0, 0))[0] for window in range(layout.WINDOWS)],
                "waiting_ms": [lot.waiting.get(window, (0, 0, 0))[2] for window in range(layout.WINDOWS)],
            }
            self._require(found == wanted, f"lot {entity}: {found}, should be {wanted}")
        self._compare_markets(tables["markets"][: header["markets_count"]])
        self._compare_orders(tables, numbers)
        for job, record in zip(self.jobs, tables["jobs"], strict=False):
            mine = [order for order in self.orders if order.job is job]
            without = record["without"].tolist()
            self._require(without == job.without, f"job {job.id}: {without} go without, not {job.without}")
            self._same(
                f"job {job.id}",
                record,
                state=job.state,
                why=job.why,
                begun=int(job.begun),
                canary=int(job.canary),
                settled_lately=job.settled_lately,
                failed_lately=job.failed_lately,
                demand_count=job.demand,
                targets_count=job.targets,
                announced_count=sum(order.promised for order in mine),
                terminals_count=job.terminals,
                bounded=0 if job.size_max is None else 1 + job.size_final,
                size_max=job.size_max or 0,
                beyond_count=job.beyond,
                confirmed_count=job.confirmed,
                outages_count=len(job.outages),
                outage_ms=sum(job.outages),
                outage_max_ms=max(job.outages, default=0),
                unmeasured_count=job.unmeasured,
                queued_count=sum(not order.in_flight for order in mine),
                outstanding_count=sum(order.in_flight for order in mine),
                overdue_count=sum(order.in_flight and order.overdue for order in mine),
            )
        self.compare_subscribers(tables["subscribers"], tables["exemptions"], header)
        self._same(
            "the totals",
            header,
            counted_bytes=self.counted_bytes,
            impossible_count=self.impossible_count,
            set_aside_count=self.set_aside_count,
            set_aside_bytes=self.set_aside_bytes,
            corrections_count=self.corrections_count,
            figures_aside_count=self.figures_aside_count,
            unreported_count=self.unreported_count,
            unreported_bytes=self.unreported_bytes,
            reports_awaited=sum(sim.unreported[1] < 0 for sim in self.sims),
        )

    def _compare_ledger(self, records: Table) -> None:
        names = (
            *("correction_bytes", "as_of_s", "allowance_bytes", "straddling_bytes", "carrier_bytes"),
            *(f"unreported_{name}" for name in ("epoch", "bytes", "s")),
        )
        ledger = list(zip(*(records[name].tolist() for name in names), strict=True))
        nothing = [0] * layout.WINDOWS
        for sim in self.sims:
            told = ledger[sim.index] if sim.index < len(ledger) else (*[nothing] * 5, 0, 0, 0)
            figures = (sim.corrections, sim.as_of_s, sim.allowances, sim.straddling, sim.carrier)
            (epoch, left), coarse = sim.unreported, sim.unreported_told
            if coarse is not None and left > 0:
                drops = max(coarse.bit_length() - 6, 0)
                left += (64 * drops + coarse // 2**drops) * 2**51
            mine = (*figures, epoch, left, sim.unreported_s)
            if told != mine:
                raise Mismatch(f"SIM {sim.index}: its ledger says {told}, it should be {mine}")

    def _compare_ended(self, records: Table, numbers: dict[int, int]) -> None:
        used = records[records["epoch"] > 0]
        found = sorted(zip(*(used[name].tolist() for name in ("terminal", "sim", *_ENDED_COLUMNS)), strict=True))
        mine = sorted(
            (numbers[id(lease.terminal)], lease.sim.index, *_ENDED_FIELDS(lease)) for lease in self.ended.values()
        )
        if found != mine:
            raise Mismatch(f"leases that are over: {found}, should be {mine}")

    def _same(self, what: str, record: Any, **expected: int) -> None:
        for name, value in expected.items():
            if int(record[name]) != value:
                raise Mismatch(f"{what}: {name} is {value} in the model and {int(record[name])} in the core")

    def _all_same(self, what: list[str], table: Table, **expected: list[int]) -> None:
        """As ``_same``, for all records of a table, a column at a time."""
        for name, values in expected.items():
            for record, value, found in zip(what, values, table[name].tolist(), strict=True):
                if found != value:
                    raise Mismatch(f"{record}: {name} is {value} in the model and {found} in the core")

    def _compare_markets(self, markets: Table) -> None:
        for market in markets:
            entity = int(market["entity"])
            uses = {tier: weight for tier, weight in enumerate(market["uses"].tolist()) if weight}
            mine = {tier: weight for tier, weight in self.uses.get(entity, {}).items() if weight}
            self._require(uses == mine, f"market {entity}: leases used {uses}, in the model {mine}")
            self._same(f"market {entity}", market, learned_bytes=self.learned.get(entity, 0))
            self._same(f"market {entity}", market, bound_bytes=self.bounds.get(entity, 0))

    def _compare_orders(self, tables: dict[str, Table], numbers: dict[int, int]) -> None:
        def place(sim: SimModel | None) -> int:
            return layout.NONE_INDEX if sim is None else sim.index

        states = {layout.OUTSTANDING: "outstanding", layout.UNKNOWN: "unknown"}
        mine = sorted(
            (
                order.kind,
                order.state,
                numbers[id(order.terminal)],
                order.server,
                place(order.source),
                place(order.target),
            )
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
            self._same(
                f"access server {index}",
                record,
                outstanding=in_flight,
                session=server.session,
                terminals_brought=server.terminals_brought,
                subscribers_brought=server.subscribers_brought,
            )


_HANDLERS: dict[int, Callable[[Model, Call], set[int]]] = {
    layout.ALLOCATE: Model._allocate,
    layout.ADOPT: Model._adopt,
    layout.IMPORT_SIMS: Model._import_sims,
    layout.SET_HEALTH: Model._set_health,
    layout.MASK: Model._mask,
    layout.SET_CAP: Model._set_cap,
    layout.CARRIER_USAGE: Model._carrier_usage,
    layout.POOL_USAGE: Model._pool_usage,
    layout.CAP_CHANGED: Model._cap_changed,
    layout.SCHEDULE: Model._schedule,
    layout.CONFIGURE: Model._configure,
    layout.GROW: Model._grow,
    layout.THAW: Model._thaw,
    layout.SWAPS_STOP: Model._stop_or_lift,
    layout.SWAPS_LIFT: Model._stop_or_lift,
    layout.SESSION_OPEN: Model._session_open,
    layout.SESSION_HOLDS: Model._session_holds,
    layout.SESSION_READY: Model._session_ready,
    layout.SESSION_CLOSE: Model._session_close,
    layout.REPORT_LOAD: Model._report_load,
    layout.ACKNOWLEDGE: Model._acknowledge,
    layout.JOB_CREATE: Model._job_create,
    layout.JOB_ADD: Model._job_add,
    layout.JOB_PAUSE: Model._job_change,
    layout.JOB_RESUME: Model._job_change,
    layout.JOB_CANCEL: Model._job_change,
    layout.JOB_APPROVE: Model._job_change,
    layout.DECLARE_DEAD: Model._declare_dead,
    layout.GIVEN_UP_RESOLVE: Model._given_up_resolve,
    layout.SERVER_PAUSE: Model._server_pause,
    layout.SERVER_RESUME: Model._server_pause,
    layout.DEFINE: Model.define_rule,
    layout.EXEMPT: Model.exempt,
    layout.CARRIER_LIFE: Model._carrier_life,
}


def _anew(runs: list[tuple[Row, list[Row]]], outcomes: list[OutcomeRun]) -> set[int]:
    return {
        item["terminal"]
        for (header, items), outcome in zip(runs, outcomes, strict=False)
        # What an access server holds goes on as OK only where there was no lease: its own may just have ended.
        if header["kind"] in (layout.ALLOCATE, layout.ADOPT, layout.SESSION_HOLDS)
        for item, status in zip(items, outcome["status"].tolist(), strict=True)
        if status == layout.OK
    }


def _gave_back(runs: list[tuple[Row, list[Row]]], outcomes: list[OutcomeRun]) -> set[int]:
    told = outcomes[-1]
    # Its access server was ready without having named it: that ended it before time was asked again.
    unnamed = (told["kind"] == layout.EVENT_DIFFERENCE) & (told["reason"] == layout.NO_LEASE)
    return set(told["terminal"][unnamed].tolist()) | {
        item["terminal"]
        for (header, items), outcome in zip(runs, outcomes, strict=False)
        if header["kind"] in (layout.RELEASE, layout.REPORT_ATTACH_FAILURE)
        for item, status in zip(items, outcome["status"].tolist(), strict=True)
        if status in (layout.OK, layout.NO_HEALTHY_SIM, layout.HELLOS_AWAITED)
    }


def model_of(tables: dict[str, Table], now_ms: int) -> Model:
    """A model that begins where a machine stands that has entities and sessions, and no SIM, terminal or job yet."""
    header = tables["header"][0]
    entities = tables["entities"][: header["entities_count"]]
    kinds = {
        kind: [index for index, entity in enumerate(entities) if entity["kind"] == kind] for kind in layout.EntityKind
    }
    first = layout.MARKET_FIRST_CLASS
    lots = {}
    for index in kinds[layout.LOT]:
        plan = entities[entities[index]["numbers"][layout.LOT_PLAN]]["numbers"].tolist()
        low, exhausted = plan[layout.PLAN_LOW_BYTES], plan[layout.PLAN_EXHAUSTED_BYTES]
        changes = max(plan[layout.PLAN_CHANGES_PER_DAY], 0)
        caps = [(quota, int(layout.BASIS_BELIEVED) if quota >= 0 else 0) for quota in plan[: layout.WINDOWS]]
        sim_class = int(entities[index]["numbers"][layout.LOT_CLASS])
        days = max(plan[layout.PLAN_ROLLING_DAYS], 0)
        lots[index] = LotModel(sim_class, caps, low, exhausted, changes, list(caps), days)
        lots[index].pooled = max(plan[layout.PLAN_POOLED], 0)
        lots[index].prepaid = entities[index]["numbers"][layout.LOT_PREPAID] == 1
        lots[index].since_ms = tables["lots"][index]["since_ms"].tolist()
        lots[index].active_from_s = max(int(entities[index]["numbers"][layout.LOT_ACTIVE_FROM_S]), 0)
        until_s = int(entities[index]["numbers"][layout.LOT_VALID_UNTIL_S])
        if until_s >= 0:
            lots[index].valid_until_ms = until_s * 1_000
            lots[index].turn_ms = until_s * 1_000
    servers = [
        ServerModel(
            int(record["session"]),
            1,
            bool(record["reconciled"]),
            terminals_brought=int(record["terminals_brought"]),
            subscribers_brought=int(record["subscribers_brought"]),
        )
        for record in tables["servers"][: header["servers_count"]]
    ]
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
        groups=set(kinds[layout.SUBSCRIBER_GROUP]),
        carriers={
            index: int(entities[index]["numbers"][layout.CLASS_CARRIER])
            for index in kinds[layout.SIM_CLASS]
            if entities[index]["numbers"][layout.CLASS_CARRIER] >= 0
        },
        reserves={index: max(int(entities[index]["numbers"][0]), 0) for index in kinds[layout.SIM_CLASS]},
        settings={number: int(value) for number, value in enumerate(header["settings"])},
        terminals_max=int(header["terminals_max"]),
        sims_max=int(header["sims_max"]),
        orders_max=int(header["orders_max"]),
        now_ms=now_ms,
        servers=servers,
        grace_until_ms=int(header["grace_until_ms"]),
        thaw_until_ms=int(header["thaw_until_ms"]),
        answers_until_ms=int(header["answers_until_ms"]),
        events_count=int(header["events_count"]),
    )

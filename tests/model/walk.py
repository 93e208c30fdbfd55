"""A random walk through the state machine: batches of commands, some senseless, compared with the model after each.

The walk knows the model, so it can aim: at epochs that are right or just stale, at orders that are outstanding, at
SIMs that are held. Everything is drawn from one seed, which a failure prints.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import date

import numpy as np
from simswitch.core import commands, layout

from tests.model.invariants import violations
from tests.model.model import ENDED, Model, model_of
from tests.model.records import tables
from tests.model.things import JobModel, OrderModel, SimModel, TerminalModel
from tests.model.world import GIB, LEASE_MS, MIB, START_MS, STEP_MS, World, empty_world, iccid_number

TERMINALS = 24
SIMS = 60
UNKNOWN_KEY = 10**12
CLASSES = ("gold", "silver")
JOBS_MAX = 1000
JOBS_ALIVE_MAX = 3
APPROVAL_ABOVE = 5
SWAPS_PER_DAY_MAX = 30
BREAKER_PPM = 250_000
BREAKER_LEAST = 4
# The walk begins some minutes before midnight.
DAY_BEGINS_MS = (START_MS + 10_000 * STEP_MS) % 86_400_000


class Walk:
    """One walk. ``step`` applies one batch; ``commands_count`` counts items."""

    def __init__(
        self,
        seed: int,
        sims: int = SIMS,
        orders_max: int = 256,
        keeps_records: bool = True,
        ends_ms: tuple[int, int] = (3_000 * STEP_MS, 1_000_000 * STEP_MS),
        world: World | None = None,
    ) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.world = empty_world(sims_max=sims, terminals_max=TERMINALS + 2, orders_max=orders_max, world=world)
        self.world.keeps_records = keeps_records
        for setting, value in (
            (layout.APPROVAL_ABOVE, APPROVAL_ABOVE),
            (layout.AUTOMATIC_SWAPS, self.random.randrange(4)),
            (layout.AUTOMATIC_AHEAD_MS, 5 * STEP_MS),
            (layout.SWAPS_PER_DAY_MAX, SWAPS_PER_DAY_MAX),
            (layout.BREAKER_PPM, BREAKER_PPM if seed % 4 else 1_000_000),
            (layout.BREAKER_LEAST, BREAKER_LEAST),
            (layout.BREAKER_MS, 16 * STEP_MS),
            (layout.DAY_BEGINS_MS, DAY_BEGINS_MS),
            (layout.FENCING_MS, 16 * STEP_MS),
        ):
            self.world.configure(setting, value)
        # Every other walk learns what leases need in both markets.
        if seed % 2:
            served = {
                layout.MARKET_FIRST_CLASS + place: self.world.entities[name] for place, name in enumerate(CLASSES)
            }
            self.world.define(layout.MARKET, "home", served)
        # In every third one two lots end, one of them after the other and in the middle of the walk.
        if seed % 3 == 0:
            places = (layout.LOT_SUPPLIER, layout.LOT_PLAN, layout.LOT_CLASS)
            lot = {
                place: self.world.entities[name]
                for place, name in zip(places, ("supplier", "daily", "gold"), strict=True)
            }
            for name, after_ms in zip(("gold-b", "gold-a"), ends_ms, strict=True):
                ends = {
                    layout.LOT_VALID_UNTIL_S: (START_MS + after_ms) // 1_000,
                    layout.LOT_PREPAID: int(name == "gold-a" and seed % 2),
                }
                self.world.define(layout.LOT, name, {**lot, **ends})
        # In every fourth one the SIMs of a lot share what they have in each window.
        self.pooled = seed % 4 == 3
        if self.pooled:
            quotas = {
                layout.PLAN_QUOTA_CYCLE: 3 * GIB,
                layout.PLAN_QUOTA_DAY: 3 * GIB,
                layout.PLAN_QUOTA_ROLLING: 8 * GIB,
                layout.PLAN_ROLLING_DAYS: 3,
            }
            watermarks = {layout.PLAN_LOW_BYTES: 64 * MIB, layout.PLAN_EXHAUSTED_BYTES: 16 * MIB}
            self.world.define(layout.PLAN, "daily", {**quotas, **watermarks, layout.PLAN_POOLED: 7})
        self.groups = [self.world.define(layout.SUBSCRIBER_GROUP, name, {layout.GROUP_PRIORITY: 2}) for name in "ab"]
        self.world.records.clear()
        self.machine = self.world.machine
        self.second = self.world.entities["operator:second"]
        self.model: Model = model_of(self.world.tables(), self.world.now_ms)
        self.commands_count = 0
        self.answers: Counter[tuple[int, int]] = Counter()
        """How often each command was answered with each status; orders by their kind under ``commands.ORDERS``."""
        self._kinds: list[tuple[int, Callable[[], bytes]]] = [
            (20, self.allocate),
            (8, self.renew),
            (12, self.usage),
            (5, self.release),
            (3, self.attach_failure),
            (3, self.adopt),
            (6, self.set_health),
            (2, self.carrier_life),
            (12, self.acknowledge),
            (3, self.report_load),
            (1, self.session_open),
            (3, self.session_holds),
            (2, self.session_ready),
            (1, self.session_close),
            (2, self.declare_dead),
            (2, self.server_pause),
            (4, self.job_create),
            (5, self.job_add),
            (3, self.job_change),
            (1, self.stop_or_lift),
            (1, self.freeze_or_thaw),
            (1, self.mask),
            (1, self.set_cap),
            (1, self.cap_changed),
            (4, self.figure),
            (2, self.pool_figure),
            (1, self.schedule),
            (1, self.import_sims),
            (2, self.limit_rule),
            (2, self.exempt),
        ]
        self._import_pool(sims)

    def _import_pool(self, sims: int) -> None:
        """Most SIMs, in every group, with much or little left; a few stay to be imported on the way."""
        self.imported = 0
        for lot, share in (("gold-a", 0.3), ("gold-b", 0.2), ("silver-a", 0.3)):
            for bank in ("bank-1", "bank-2"):
                self.apply(self._import_run(max(1, int(sims * share / 2)), lot, bank))

    def _import_run(self, count: int, lot: str, bank: str) -> bytes:
        numbers = np.arange(self.imported, self.imported + count)
        self.imported += count
        quota = 100 * GIB if lot != "gold-b" else 50 * GIB
        now_s = self.world.now_ms // 1000
        return commands.run(
            layout.IMPORT_SIMS,
            count,
            iccid=[iccid_number(int(number)) for number in numbers],
            imsi=440_100_000_000_000 + numbers,
            opening_cycle_bytes=[
                0
                if self.pooled and lot == "gold-b"
                else quota - self.random.choice((GIB, 5 * GIB, 20 * GIB, 300 * MIB, 40 * MIB))
                for _ in numbers
            ],
            opening_day_bytes=[0 if number % 3 else GIB for number in numbers],
            opening_rolling_bytes=0,
            as_of_s=[self.random.choice((0, 0, now_s - 5, now_s, now_s + 9)) for _ in numbers],
            lot=self.world.entities[lot],
            bank=self.world.entities[bank],
            slot=numbers,
            health=layout.HEALTHY,
        )

    # --------------------------------------------------------------------------------------------- steps

    def apply(self, batch: bytes) -> None:
        """Applies a batch, follows it in the model and checks every invariant."""
        found = commands.outcome_runs(self.world.apply(batch).data)
        state = tables(self.machine.snapshot_regions(), writable=False)
        for run in found[:-2]:
            self.commands_count += run.count
            self.answers.update((run.kind, int(status)) for status in run["status"])
        for run in found[-2:]:
            self.answers.update((run.kind, int(kind)) for kind in run["kind"])
        self.model.step(batch, found, self.world.now_ms, state)
        wrong = violations(state)
        assert not wrong, f"after {self.commands_count} commands: {wrong}"
        own = self.machine.check()
        assert own == [], f"check() after {self.commands_count} commands: {own}"

    def pass_time(self) -> None:
        """A jump of up to a few leases, mostly short."""
        steps = self.random.choice((1, 1, 1, 2, 2, 3, 5, 12))
        if self._one_in(40):
            steps = self.random.randrange(1, 2 * LEASE_MS // STEP_MS)
        self.world.now_ms += steps * STEP_MS
        self.apply(commands.run(layout.TICK))

    def step(self) -> None:
        """One batch of up to eight runs, after some time or none."""
        if self.random.random() < 0.5:
            self.pass_time()
        if self._one_in(150):
            self.apply(commands.run(layout.RESTART, argument=self.random.choice((0, 0, 1))))
        if self._one_in(2):
            self.apply(self.mend())
        weights = [weight for weight, _ in self._kinds]
        chosen = self.random.choices(self._kinds, weights, k=self.random.randrange(1, 9))
        self.apply(b"".join(make() for _, make in chosen))

    # -------------------------------------------------------------------------------------------- choices

    def _one_in(self, count: int) -> bool:
        return self.random.randrange(count) == 0

    def _key(self) -> int:
        return UNKNOWN_KEY if self._one_in(30) else self.random.randrange(1, TERMINALS + 1)

    def _server(self) -> int:
        return self.random.choice((2, layout.NONE_SHORT)) if self._one_in(40) else self.random.randrange(2)

    def _server_of(self, key: int) -> int:
        terminal = self.model.terminals.get(key)
        return self._server() if terminal is None or self._one_in(10) else terminal.server

    def _market(self) -> int:
        if self._one_in(40):
            return self.random.choice((0, layout.NONE_SHORT, self.world.entities["gold"]))
        return self.world.entities[self.random.choice(("home", "home", "away"))]

    def _sim(self) -> int:
        return iccid_number(10**9 if self._one_in(40) else self.random.randrange(max(self.imported, 1)))

    def _lot(self) -> int:
        return 0 if self._one_in(20) else self.world.entities[self.random.choice(("gold-a", "gold-b", "silver-a"))]

    def _terminal(self) -> tuple[int, int]:
        """A terminal and an epoch: mostly its lease's, also its swap's, sometimes a stale one."""
        key = self._key()
        terminal = self.model.terminals.get(key)
        if terminal is None or self._one_in(12):
            return key, self.random.randrange(3)
        if terminal.swap is not None and terminal.swap.in_flight and self._one_in(2):
            return key, terminal.swap.epoch
        return key, max(terminal.epoch - self._one_in(20), 0)

    def _session(self, server: int) -> int:
        if server >= 2 or self._one_in(25):
            return self.random.randrange(3)
        return self.model.servers[server].session

    # -------------------------------------------------------------------------------------------- commands

    def allocate(self) -> bytes:
        count = self.random.randrange(1, 6)
        server = self._server()
        # Most terminals stay with one access server; the others come and go.
        drawn = [self._key() for _ in range(count)]
        keys = np.array([key if self._one_in(6) else key - key % 2 + server % 2 for key in drawn], np.uint64)
        expected = [self.random.choice((0, 0, 0, 0, 0, 0, 1, 290 * MIB, 2 * GIB, 2**63)) for _ in range(count)]
        return commands.run(
            layout.ALLOCATE,
            count,
            access_server=server,
            argument=self.random.choice((0, 0, *self.groups)) if not self._one_in(40) else 1,
            terminal=keys,
            # Some of nobody, some of two terminals.
            subscriber=keys % (TERMINALS - 1),
            expected_bytes=np.array(expected, np.uint64),
            market=[self._market() for _ in range(count)],
        )

    def _on_lease(self, kind: int) -> bytes:
        key, epoch = self._terminal()
        return self.world.lease(kind, key, epoch, self._server_of(key))

    def renew(self) -> bytes:
        return self._on_lease(layout.RENEW)

    def release(self) -> bytes:
        return self._on_lease(layout.RELEASE)

    def attach_failure(self) -> bytes:
        return self._on_lease(layout.REPORT_ATTACH_FAILURE)

    def usage(self) -> bytes:
        key, epoch = self._terminal()
        server = self._server_of(key)
        moved = [each for each in self.model.terminals.values() if each.awaits is not None]
        if moved and self._one_in(2):
            key, epoch = moved[0].key, moved[0].epoch
            server = self._server_of(key)
        terminal = self.model.terminals.get(key)
        before = 0 if terminal is None else terminal.reported_bytes
        if self.model.ended and self._one_in(4):
            lease = self.random.choice(list(self.model.ended.values())[-8:])
            key, epoch, server, before = lease.key, lease.epoch, lease.server, lease.reported_bytes
        more = self.random.choice((0, -1, 1, 5 * MIB, 300 * MIB, 1_900 * MIB, 500 * GIB))
        up = max(before + more, 0)
        down = 2**64 - 1 if self._one_in(30) else self.random.choice((0, MIB))
        # How the terminal fared changes nothing but what is trusted.
        fared = {
            "goodput_kbps": self.random.choice((up % 2**32, 8_000, 2**32 - 1)),
            "span_ms": self.random.choice((0, 1_000, 5_000, 2**32 - 1)),
            "demand_permille": self.random.choice((0, 500, 1_000, 2**16 - 1)),
            "radio": up % 2**8,
        }
        return self.world.usage(key, epoch, up, down, server, **fared)

    def adopt(self) -> bytes:
        return commands.run(
            layout.ADOPT,
            1,
            access_server=self._server(),
            terminal=self._key(),
            subscriber=7,
            iccid=self._sim(),
            expected_bytes=0,
            market=self._market(),
        )

    def set_health(self) -> bytes:
        health = self.random.choices((0, 1, 2, 3, 4, 5, 8, 9, 10), (1, 40, 4, 3, 12, 3, 3, 0.1, 1))[0]
        evidence = {"goodput_kbps": 384, "windows": 5, "confidence_permille": self.random.choice((990, 1001))}
        return commands.set_health([self._sim()], health, **(evidence if self._one_in(3) else {}))

    def carrier_life(self) -> bytes:
        life = self.random.choices((0, 1, 2, 3), (1, 30, 8, 0.1))[0]
        reason = np.array([self.random.choice((b"", b"unpaid", b"unpaid", b"unpaid"))], "S64")
        return commands.run(layout.CARRIER_LIFE, 1, reason=reason, iccid=self._sim(), life=life)

    def _in_flight(self) -> list[OrderModel]:
        return [order for order in self.model.orders if order.in_flight]

    def acknowledge(self) -> bytes:
        orders = self._in_flight()
        if not orders or self._one_in(15):
            server = self._server()
            return self.world.acknowledge(self.random.randrange(2**30), 1, server, self._session(server))
        order = self.random.choice(orders)
        server = self._server() if self._one_in(20) else order.server
        result = self.random.choices((0, 1, 2, 3, 4), (1, 60, 20, 10, 1))[0]
        return self.world.acknowledge(order.number, result, server, self._session(server))

    def report_load(self) -> bytes:
        server = self._server()
        return commands.run(
            layout.REPORT_LOAD,
            1,
            access_server=server,
            argument=self._session(server),
            queue_wait_us=self.random.choice((0, 15_000, 30_000, 10**6)),
            service_us=self.random.choice((0, 5_000, 20_000)),
            waiting=self.random.choice((0, 0, 1, 30, layout.NONE_INDEX, layout.NONE_INDEX)),
            taken_count=self.random.choice((0, 1, 10**6)),
            allocation_wait_us=self.random.choice((0, 0, 10**7, layout.NONE_INDEX)),
        )

    def session_open(self) -> bytes:
        return commands.run(layout.SESSION_OPEN, access_server=self._server())

    def session_ready(self) -> bytes:
        server = self._server()
        return commands.run(layout.SESSION_READY, access_server=server, argument=self._session(server))

    def session_close(self) -> bytes:
        server = self._server()
        return commands.run(layout.SESSION_CLOSE, access_server=server, argument=self._session(server))

    def declare_dead(self) -> bytes:
        away = [index for index, server in enumerate(self.model.servers) if not server.session]
        server = self.random.choice(away) if away and self._one_in(2) else self._server()
        return commands.run(layout.DECLARE_DEAD, 1, access_server=server, undo=self.random.choice((0, 0, 0, 0, 1, 2)))

    def server_pause(self) -> bytes:
        kind = self.random.choice((layout.SERVER_PAUSE, layout.SERVER_RESUME))
        return commands.run(kind, access_server=self._server())

    def session_holds(self) -> bytes:
        """What an access server says in its hello: mostly the truth as far as it goes, and only before READY."""
        waiting = [index for index, server in enumerate(self.model.servers) if server.session and not server.reconciled]
        if not waiting:
            waiting = [self._server()]
        server = self.random.choice(waiting)
        here = [terminal for terminal in self.model.terminals.values() if terminal.server == server]
        if not here or self._one_in(6):
            row = (self._key(), self.random.randrange(3), self._sim())
        else:
            row = self._held_row(self.random.choice(here))
        return commands.run(
            layout.SESSION_HOLDS,
            1,
            access_server=server,
            argument=self._session(server),
            terminal=row[0],
            epoch=row[1],
            iccid=row[2],
        )

    def _held_row(self, terminal: TerminalModel) -> tuple[int, int, int]:
        if terminal.swap is not None and terminal.swap.target is not None and self._one_in(2):
            return terminal.key, terminal.swap.epoch, terminal.swap.target.iccid
        if terminal.sim is not None:
            return terminal.key, terminal.epoch, terminal.sim.iccid
        last = [sim for sim in self.model.sims if sim.holder is terminal]
        return terminal.key, terminal.epoch, self.random.choice(last).iccid if last else self._sim()

    def mend(self) -> bytes:
        """Keeps the pool from running dry and access servers from staying away: the walk would else end in refusals."""
        if self.model.masked and self._one_in(3):
            everything = layout.NONE_SHORT
            return commands.run(layout.MASK, 1, lot=everything, bank=everything, masked=0)
        stuck = [job for job in self.model.jobs if job.state in (layout.JOB_PAUSED, layout.JOB_AWAITING_APPROVAL)]
        if stuck and self._one_in(3):
            return self._move_on(stuck)
        away = [index for index, server in enumerate(self.model.servers) if not server.session]
        if away and not (self.model.servers[away[0]].dead and self._one_in(2)):
            return commands.run(layout.SESSION_OPEN, access_server=self.random.choice(away))
        waiting = [index for index, server in enumerate(self.model.servers) if not server.reconciled]
        if waiting and self._one_in(3):
            return self.world.ready(waiting[0], self.model.servers[waiting[0]].session)
        if self.model.frozen or self.model.swaps_stopped:
            return commands.run(layout.THAW if self.model.frozen else layout.SWAPS_LIFT)
        answerable = [order for order in self._in_flight() if order.session == self.model.servers[order.server].session]
        if answerable and (len(answerable) > 3 or self._one_in(2)):
            return b"".join(
                self.world.acknowledge(order.number, layout.ACK_DONE, order.server, order.session)
                for order in answerable
            )
        sick = [sim for sim in self.model.sims if sim.health > layout.EXHAUSTED and sim.health != layout.RETIRED]
        if sick:
            return commands.set_health([self.random.choice(sick).iccid], layout.HEALTHY)
        spent = [sim for sim in self.model.sims if sim.health in (layout.LOW, layout.EXHAUSTED)]
        if len(spent) > len(self.model.sims) // 3:
            lot, at_ms = self.random.choice(spent).lot, self.world.now_ms
            return commands.run(layout.SCHEDULE, 1, lot=lot, window=1, at_ms=at_ms, spread_ms=0)
        return self.renew()

    def job_create(self) -> bytes:
        alive = [job for job in self.model.jobs if job.state not in ENDED]
        if len(alive) >= JOBS_ALIVE_MAX or len(self.model.jobs) > JOBS_MAX:
            return self.job_add() if not alive or self._one_in(3) else self._move_on(alive)
        return self.world.job_create(
            health_mask=self.random.choice((0, 1 << layout.THROTTLED, 1 << layout.HEALTHY, 1 << 12)),
            lot=layout.NONE_SHORT if self._one_in(2) else self._lot(),
            server=layout.NONE_SHORT if self._one_in(2) else self._server(),
            priority=self.random.choice((0, 1, 2, 3, 4, 4, 4, 5)),
            selecting=self.random.choice((0, 0, 1, 1, 2)),
            **self._job_options(),
        )

    def _move_on(self, alive: list[JobModel]) -> bytes:
        """Does what one of the jobs waits for; else too few swaps would be sent."""
        job = self.random.choice(alive)
        if self._one_in(4):
            return self.world.job(layout.JOB_CANCEL, job.id)
        if job.state == layout.JOB_AWAITING_APPROVAL:
            return self.world.job(layout.JOB_APPROVE, job.id, 0 if self._one_in(4) else self.second)
        return self.world.job(layout.JOB_RESUME, job.id)

    def _job_options(self) -> dict[str, int]:
        """What a job may be asked for besides; most ask for little of it."""
        now_ms = self.world.now_ms
        steps = self.random.randrange(1, 200)
        every = layout.NONE_SHORT
        offers = {
            "deadline_ms": now_ms + steps * 1_000,
            "quiet_from_ms": 0,
            "announce_ahead_ms": STEP_MS * self.random.choice((1, 5, 20)),
            "headroom_below_bytes": self.random.choice((MIB, GIB, 10 * GIB)),
            "rate_per_minute": self.random.choice((1, 60, 600)),
            "canary_count": self.random.choice((1, 2, 3)),
            "budget_ppm": self.random.choice((0, 50_000, 500_000, 10**6)),
            "bank": self.random.choice((self.world.entities["bank-1"], every)),
            "sim_class": self.random.choice((self.world.entities["gold"], every)),
            "on_infeasible": self.random.choice((0, 1, 2, 2, 3)),
            "dry_run": self._one_in(2),
        }
        options = {name: int(value) for name, value in offers.items() if self._one_in(8)}
        if "quiet_from_ms" in options:
            options["quiet_from_ms"] = now_ms + (steps - 100) * STEP_MS
            options["quiet_until_ms"] = max(now_ms, options["quiet_from_ms"]) + (steps + 1) * STEP_MS
        return options

    def _job(self) -> int:
        if not self.model.jobs or self._one_in(30):
            return self.random.choice((JOBS_MAX + 20, layout.NONE_INDEX, 2**40))
        return self.random.choice(self.model.jobs[-4:]).id

    def job_add(self) -> bytes:
        listing = [job.id for job in self.model.jobs if job.listing]
        job = self._job() if not listing or self._one_in(4) else self.random.choice(listing)
        return self.world.job_add(job, self._key())

    def job_change(self) -> bytes:
        waits = [job.id for job in self.model.jobs if job.state == layout.JOB_AWAITING_APPROVAL]
        if waits and self._one_in(2):
            return self.world.job(layout.JOB_APPROVE, waits[0], 0 if self._one_in(3) else self.second)
        kind = self.random.choice(
            (layout.JOB_PAUSE, layout.JOB_RESUME, layout.JOB_RESUME, layout.JOB_CANCEL, layout.JOB_APPROVE)
        )
        return self.world.job(kind, self._job())

    def stop_or_lift(self) -> bytes:
        stop = not self.model.swaps_stopped and not self._one_in(4)
        return commands.run(layout.SWAPS_STOP if stop else layout.SWAPS_LIFT)

    def freeze_or_thaw(self) -> bytes:
        return commands.run(layout.THAW if self.model.frozen or self._one_in(4) else layout.FREEZE)

    def mask(self) -> bytes:
        bank = self.random.choice((self.world.entities["bank-1"], self.world.entities["bank-2"], layout.NONE_SHORT, 0))
        lot = layout.NONE_SHORT if self._one_in(3) else self._lot()
        return commands.run(layout.MASK, 1, lot=lot, bank=bank, masked=self.random.choice((0, 0, 0, 0, 0, 1, 2)))

    def limit_rule(self) -> bytes:
        """One for all and one for a group, mostly; some that are not to be had."""
        group = self.random.choice((-1, -1, -1, *self.groups, 1))
        today = (self.model.today() - date(1970, 1, 1)).days
        slow = self.random.choice((-1, 0, 128, 1_000))
        numbers = {
            layout.RULE_GROUP: group,
            layout.RULE_MONTH_BYTES: self.random.choice((-1, -1, 0, 300 * MIB, 5 * GIB)),
            layout.RULE_DAY_BYTES: self.random.choice((-1, 5 * MIB, 300 * MIB, 2 * GIB)),
            layout.RULE_WARN_PERMILLE: self.random.choice((-1, 0, 500, 800)),
            layout.RULE_ACTION: self.random.choice((0, 1, 2, 2, 3)),
            layout.RULE_SLOW_KBPS: slow,
            layout.RULE_TEXT_BYTES: self.random.choice((-1, 0, 4, 4, 4, 4, 5)),
            layout.RULE_PUBLISHED_DAY: today + self.random.choice((-1, 0, 0, 0, 1)),
            layout.RULE_WITHDRAWN: self.random.choice((-1, -1, 1)),
        }
        name = f"rule-{group if self._one_in(2) else -1}"
        record = np.frombuffer(commands.definition(layout.LIMIT_RULE, name, numbers, b"text"), "V1024")
        return commands.run(layout.DEFINE, 1, definition=record)

    def exempt(self) -> bytes:
        return commands.run(
            layout.EXEMPT,
            1,
            reason=np.array([self.random.choice((b"", b"a fault", b"a promise"))], "S64"),
            subscriber=0 if self._one_in(10) else self.random.randrange(1, TERMINALS + 1),
            until_ms=self.random.choice((0, 0, self.world.now_ms, self.world.now_ms + 50 * STEP_MS)),
        )

    def import_sims(self) -> bytes:
        return self._import_run(1, "gold-a", "bank-1")

    def cap_changed(self) -> bytes:
        return commands.run(
            layout.CAP_CHANGED,
            1,
            lot=self._lot(),
            window=self.random.choice((0, 1, 2, 3, 4)),
            amount=self.random.choice((0, 3 * GIB, 2**62)),
            before=self.random.choice((0, 5 * GIB, 2**62)),
            seen_s=self.random.randrange(2**32),
            shift=self.random.choice((0, 1, 2, 3, 4)),
        )

    def figure(self, sim: SimModel | None = None) -> bytes:
        """What a carrier says: mostly near our count, of an instant not long ago; often again, late or impossible."""
        sim = sim or self.random.choice(self.model.sims)
        window = self.random.choice((0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5))
        own = sim.counted_bytes + sim.offsets[window - 1] if 1 <= window <= layout.WINDOWS else 0
        told = own + self.random.choice((-5 * GIB, -2 * MIB, 0, MIB, 300 * MIB, 3 * GIB, 2**60))
        last_s = sim.as_of_s[window - 1] if 1 <= window <= layout.WINDOWS else 0
        counted = max(0, sim.counted_bytes - self.random.choice((0, 0, MIB, 300 * MIB, -1)))
        if window == layout.ROLLING_DAY:
            told = self.random.choice((-1, 0, 5_000, MIB, 3 * GIB, 2**60))
            begun_s = self.model.today_begun_s(self.model.lots[sim.lot])
            last_s = max(begun_s - self.random.choice((0, 0, 5, 43_000, 86_400, 200_000)), 0)
        return commands.run(
            layout.CARRIER_USAGE,
            1,
            argument=int(self._one_in(10)),
            iccid=self._sim() if self._one_in(40) else sim.iccid,
            carrier_bytes=told,
            counted_bytes=counted,
            straddling_bytes=self.random.choice((0, 0, min(counted, 3 * MIB), counted, counted + 1)),
            as_of_s=self._as_of_s(last_s),
            window=window,
        )

    def _as_of_s(self, last_s: int) -> int:
        """Mostly of now, or of when the last one was; seldom of none or of an instant to come."""
        now_s = self.world.now_ms // 1000
        return self.random.choice(
            (now_s, now_s, now_s - 1, now_s - 3, last_s, last_s, max(last_s - 1, 0), now_s + 1, 0)
        )

    def pool_figure(self) -> bytes:
        """The same of all SIMs of a lot that shares, seldom of one that does not."""
        entity = self._lot() if self._one_in(10) else self.world.entities["gold-b"]
        lot = self.model.lots.get(entity)
        window = self.random.choice((0, 1, 1, 1, 1, 2, 3, 3, 4, 4, 5))
        counted = sum(sim.counted_bytes for sim in self.model.sims if sim.lot == entity) if self.pooled else 0
        own, last_s = counted, 0
        if lot is not None and 1 <= window <= layout.WINDOWS:
            own = own + lot.pool_offsets[window - 1]
            last_s = self.random.choice((lot.pool_as_of_s[window - 1], lot.told_until_s[window - 1]))
        told = own + self.random.choice((-own, -2 * GIB, -2 * MIB, 0, MIB, 300 * MIB, 2**60))
        if window == layout.ROLLING_DAY and lot is not None:
            told = self.random.choice((-1, 0, 5_000, MIB, 3 * GIB, 2**60))
            begun_s = self.model.today_begun_s(lot)
            last_s = max(begun_s - self.random.choice((0, 0, 5, 43_000, 86_400, 200_000)), 0)
        counted = max(0, counted - self.random.choice((0, 0, MIB, 300 * MIB, -1)))
        return commands.run(
            layout.POOL_USAGE,
            1,
            argument=int(self._one_in(10)),
            lot=entity,
            carrier_bytes=told,
            counted_bytes=counted,
            straddling_bytes=self.random.choice((0, 0, min(counted, 3 * MIB), counted, counted + 1)),
            as_of_s=self._as_of_s(last_s),
            window=window,
        )

    def set_cap(self) -> bytes:
        """Mostly what leaves some SIMs something; now and then the plan's word again."""
        return commands.run(
            layout.SET_CAP,
            1,
            argument=self.random.choice((0, 1)),
            lot=self._lot(),
            window=self.random.choice((0, 1, 1, 1, 2, 2, 3, 4)),
            quota_bytes=self.random.choice((-2, -1, -1, 40 * GIB, 98 * GIB, 300 * GIB, 2**62)),
            at_ms=self._instant(),
            basis=self.random.choice((0, 1, 2, 3, 3, 4)),
        )

    def _instant(self) -> int:
        """Soon, now, never or nonsense."""
        soon_ms = self.world.now_ms + self.random.randrange(-4, 60) * STEP_MS
        return self.random.choice((0, 0, soon_ms, soon_ms, soon_ms, 2**43))

    def schedule(self) -> bytes:
        """Resets that come soon, at once or in some seconds."""
        return commands.run(
            layout.SCHEDULE,
            1,
            lot=self._lot(),
            window=self.random.choice((0, 1, 1, 2, 2, 3, 3, 4)),
            at_ms=self._instant(),
            spread_ms=self.random.choice((0, 0, STEP_MS, 100 * STEP_MS, 100 * STEP_MS, 43_200_001)),
        )

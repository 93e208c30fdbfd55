"""What the simulator asks for besides the walk of the model tests: what an operator says in a real pool, terminals that
can't be switched, SIMs that were slowed, and what the walk comes to by luck alone."""

from __future__ import annotations

from collections import deque
from datetime import date

import numpy as np
from simswitch.core import commands, layout

from tests.model.walk import Walk
from tests.model.world import GIB, LEASE_MS, STEP_MS, World
from tests.simulator.access_servers import KINDS, split

# What an operator changes on the way, and to what.
SETTINGS: tuple[tuple[layout.Setting, tuple[int, ...]], ...] = (
    (layout.SWAPS_PER_DAY_MAX, (0, 5, 30)),
    (layout.APPROVAL_ABOVE, (3, 5)),
    (layout.LEASE_MS, (LEASE_MS, LEASE_MS + 16 * STEP_MS)),
    (layout.COOLING_MS, (0, 16 * STEP_MS, 1 << 62)),
    (layout.ORDER_DEADLINE_MS, (8 * STEP_MS, 600 * STEP_MS)),
    (layout.ATTEMPTS_MAX, (1, 3)),
    (layout.AUTOMATIC_SWAPS, (0, 1, 2, 3)),
    (layout.FENCING_MS, (16 * STEP_MS, 40 * STEP_MS)),
)
STUCK = 4
"""One of so many terminals refuses each switch."""
_SAID_KEPT = 24
# Said again they would stop everything, or begin jobs without end.
_ONCE = KINDS | {layout.TICK, layout.RESTART, layout.FREEZE, layout.SWAPS_STOP, layout.JOB_CREATE}


class Load(Walk):
    """The walk, and more kinds of what may be said in a step."""

    def __init__(self, seed: int, world: World) -> None:
        self._said: deque[bytes] = deque(maxlen=_SAID_KEPT)
        super().__init__(seed, keeps_records=False, world=world)
        self._kinds += [
            (1, self.configure),
            (2, self.resolve),
            (3, self.again),
            (8, self.moves),
            (1, self.resume_server),
            (2, self.figure_again),
            (3, self.pool_figure_amiss),
            (2, self.dead_still),
            (2, self.pause_again),
            (1, self.second_rule),
            (1, self.cap_that_waits),
            (1, self.add_who_moved),
            (1, self.slowed),
            (2, self.retired),
            (1, self.adopted),
        ]

        # In every other run one refusal is enough to give a swap up.
        if seed % 2:
            self.apply(commands.run(layout.CONFIGURE, 1, setting=layout.ATTEMPTS_MAX, value=1))

    def note(self, batch: bytes) -> None:
        """What may be said again."""
        self._said.extend(run for run in split(batch) if int.from_bytes(run[4:6], "little") not in _ONCE)

    def stuck(self, order: int) -> bool:
        """Whether an order is for a terminal that can't be switched."""
        return any(each.number == order and each.terminal.key % STUCK == 0 for each in self._in_flight())

    def configure(self) -> bytes:
        """A setting that the model needs no other pool for; some values are not to be had."""
        setting, values = self.random.choice(SETTINGS)
        return commands.run(layout.CONFIGURE, 1, setting=setting, value=self.random.choice(values))

    def resolve(self) -> bytes:
        """Somebody has seen to one of the last swaps that were given up."""
        number = max(len(self.model.given_up) - self.random.randrange(-1, 3), 0)
        return commands.run(layout.GIVEN_UP_RESOLVE, 1, number=number)

    def again(self) -> bytes:
        """What was said not long ago: people press a key twice, programs ask once more."""
        return self.random.choice(self._said) if self._said else self.renew()

    def moves(self) -> bytes:
        """A job's list is filled with terminals that may be moved, and the job begins."""
        listing = [job.id for job in self.model.jobs if job.listing]
        if not listing:
            return self.job_create()
        able = [
            each.key
            for each in self.model.terminals.values()
            if each.sim and not each.swap and self.model.servers[each.server].reconciled
        ]
        chosen = self.random.sample(able, min(len(able), self.random.randrange(1, 5)))
        job = self.random.choice(listing)
        added = commands.run(layout.JOB_ADD, len(chosen), argument=job, terminal=chosen) if chosen else b""
        return added + self.world.job(layout.JOB_RESUME, job)

    def resume_server(self) -> bytes:
        if self._one_in(6):
            return commands.run(layout.SERVER_PAUSE, access_server=len(self.model.servers))
        paused = [index for index, server in enumerate(self.model.servers) if server.paused]
        server = self.random.choice(paused) if paused else self._server()
        return commands.run(layout.SERVER_RESUME, access_server=server)

    def figure_again(self) -> bytes:
        """The carrier's figure of a SIM of which there is one already, or whose window starts anew just now."""
        now_s = self.world.now_ms // 1_000
        if self._one_in(6):
            return self.world.figure(10**9, GIB, 0, now_s)
        turning = [sim for sim in self.model.sims if self.model.lots[sim.lot].resets]
        if turning:
            sim = self.random.choice(turning)
            return self.world.figure(sim.index, GIB, 0, now_s, 1 + min(self.model.lots[sim.lot].resets))
        told = [sim for sim in self.model.sims if any(sim.as_of_s)]
        return self.figure(self.random.choice(told) if told else None)

    def pool_figure_amiss(self) -> bytes:
        """The carrier's figure of what a lot's SIMs share, as it may not be; where none do, what is asked of a SIM."""
        entity, now_s = self.world.entities["gold-b"], self.world.now_ms // 1_000
        if not self.pooled:
            return self.figure_again()
        if 0 not in self.model.lots[entity].resets and self._one_in(3):
            spread = {"at_ms": self.world.now_ms, "spread_ms": 100 * STEP_MS}
            return commands.run(layout.SCHEDULE, 1, lot=entity, window=layout.WINDOW_CYCLE, **spread)
        late_s = self.random.choice((0, 0, 40 * 86_400, -10_000))
        figure = {"carrier_bytes": self.random.choice((-1, GIB, GIB)), "counted_bytes": 0, "straddling_bytes": 0}
        lot = 0 if self._one_in(6) else entity
        run = commands.run(layout.POOL_USAGE, 1, lot=lot, window=layout.WINDOW_CYCLE, as_of_s=now_s - late_s, **figure)
        return run + run

    def dead_still(self) -> bytes:
        """Somebody else declares the same access server dead."""
        servers = list(enumerate(self.model.servers))
        dead = [index for index, server in servers if server.dead]
        away = dead or [index for index, server in servers if not server.session]
        server = self.random.choice(away) if away else self._server()
        return commands.run(layout.DECLARE_DEAD, 1, access_server=server, undo=0)

    def pause_again(self) -> bytes:
        """A job that waits already, if one does."""
        paused = [job.id for job in self.model.jobs if job.state == layout.JOB_PAUSED]
        return self.world.job(layout.JOB_PAUSE, paused[-1] if paused else self._job())

    def second_rule(self) -> bytes:
        """Another limit for whoever has one."""
        groups = [rule.group for rule in self.model.rules.values() if not rule.withdrawn]
        numbers = {
            layout.RULE_GROUP: self.random.choice(groups or [-1]),
            layout.RULE_MONTH_BYTES: 5 * GIB,
            layout.RULE_DAY_BYTES: -1,
            layout.RULE_ACTION: layout.ACTION_NOTIFY,
            layout.RULE_TEXT_BYTES: 4,
            layout.RULE_PUBLISHED_DAY: (self.model.today() - date(1970, 1, 1)).days,
        }
        record = np.frombuffer(commands.definition(layout.LIMIT_RULE, "rule of another", numbers, b"text"), "V1024")
        return commands.run(layout.DEFINE, 1, definition=record) if groups else self.limit_rule()

    def cap_that_waits(self) -> bytes:
        """Of a lot and a window whose next cap is known already, if there is one."""
        waiting = [(entity, window) for entity, lot in self.model.lots.items() for window in lot.waiting]
        lot, window = self.random.choice(waiting or [(self._lot(), 0)])
        cap = {"quota_bytes": 98 * GIB, "basis": layout.BASIS_BELIEVED, "at_ms": self.world.now_ms + 400 * STEP_MS}
        return commands.run(layout.SET_CAP, 1, argument=int(self._one_in(4)), lot=lot, window=window + 1, **cap)

    def add_who_moved(self) -> bytes:
        """To a job's list: a terminal that was switched last."""
        listing = [job.id for job in self.model.jobs if job.listing]
        moved = max(self.model.terminals.values(), key=lambda each: each.swapped_ms, default=None)
        if not listing or moved is None or moved.sim is None:
            return self.job_add()
        return self.world.job_add(self.random.choice(listing), moved.key)

    def slowed(self) -> bytes:
        """A SIM that a terminal has was slowed, and its cycle starts anew: it is on probation then."""
        taken = [each.sim for each in self.model.terminals.values() if each.sim and each.sim.health == layout.HEALTHY]
        if not taken:
            return self.renew()
        sim = self.random.choice(taken)
        evidence = {"goodput_kbps": 384, "windows": 5, "confidence_permille": 990}
        reset = {"lot": sim.lot, "window": layout.WINDOW_CYCLE, "at_ms": self.world.now_ms, "spread_ms": 0}
        return commands.set_health([sim.iccid], layout.THROTTLED, **evidence) + commands.run(
            layout.SCHEDULE, 1, **reset
        )

    def retired(self) -> bytes:
        """Most of what is said of a SIM that is retired comes too late."""
        gone = [sim.iccid for sim in self.model.sims if sim.health == layout.RETIRED]
        if not gone and self._one_in(3):
            return commands.set_health([self._sim()], layout.RETIRED)
        gone = gone or [self._sim()]
        sim = self.random.choice(gone)
        if self._one_in(2):
            return commands.set_health([sim], layout.HEALTHY)
        reason = np.array([b""], "S64")
        return commands.run(layout.CARRIER_LIFE, 1, reason=reason, iccid=sim, life=layout.LIFE_ACTIVE)

    def adopted(self) -> bytes:
        """A terminal is to have the SIM that it has."""
        held = [each for each in self.model.terminals.values() if each.sim]
        if not held:
            return self.adopt()
        terminal = self.random.choice(held)
        return commands.run(
            layout.ADOPT,
            1,
            access_server=terminal.server,
            terminal=terminal.key,
            subscriber=terminal.subscriber,
            iccid=terminal.sim.iccid if terminal.sim else 0,
            expected_bytes=0,
            market=self.world.entities["home"],
        )

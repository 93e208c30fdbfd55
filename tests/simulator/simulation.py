"""The simulator: one seed drives the load, the time and what goes wrong; an auditor looks at everything.

    load      the random walk of the model tests, all commands and all roles, over access servers that lie (``Network``)
    time      a wall clock that leaps and falls back, a monotonic one, and a disk that takes its time
    faults    power cuts at every durable point, killed processes, full disks, failing writes and syncs, damaged bytes
    engine    the cell that ships, its follower beside it, the journal and the clock that ship (``SimulatedCell``)
    auditor   the naive model follows every record; every recovery is compared with what was there before

At each event of the disk (a write, a sync, a rename …) the power is cut *on a copy*: the copy is recovered by the cell
that ships and judged, and the run goes on. Now and then the cut is real, and the run goes on with what was found:

    ── write ── sync ── write ── sync ── rename ──╳           every ── is cut on a copy; at ╳ the power is really gone
         │       │       │        │        │      └─ recover ── write ── …
      recover  recover recover  recover  recover
       judge    judge   judge    judge    judge

What is judged: the sequence that was recovered is not below anything that anybody was shown, its state has the very
hash that the live machine had at it (I6, I10), and the model agrees with all that follows (I1 to I9).
"""

from __future__ import annotations

import errno
import math
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from simswitch.cell import Capacity, Cell, CellSettings, JournalFull, JournalSettings, Posted, VirtualClock, WallClock
from simswitch.core import commands, layout
from simswitch.core.commands import OutcomeRun
from simswitch.core.machine import Machine, MalformedBatch, Outcome
from simswitch.core.roles import COMMAND_ROLES
from simswitch.journal.errors import JournalDamaged, JournalError
from simswitch.journal.follower import ALARM_NAME, Follower, FollowerSettings
from simswitch.journal.format import BLOCK_BYTES, WRITING_SUFFIX, decode_record_header, record_bytes
from simswitch.journal.recovery import MachineKind
from simswitch.journal.snapshot import (
    check_regions,
    newest_snapshot_sequence,
    read_snapshot_header,
    snapshot_name,
    snapshot_sequences,
)
from simswitch.journal.walk import Record, first_sequence

from tests.journal.faulty_disk import SECTOR_BYTES, Content, FaultyDisk
from tests.model.invariants import violations
from tests.model.model import _HANDLERS as MODEL_HANDLERS
from tests.model.records import copy_regions, tables
from tests.model.walk import SIMS, TERMINALS
from tests.model.world import START_MS, STEP_MS, World
from tests.simulator.access_servers import Network, split
from tests.simulator.load import Load
from tests.simulator.log import Applied, Log, Violation
from tests.simulator.process import Call, FollowerKilled, PowerCut, ProcessEnded, SimulatedCell, Watched, Witness

ORDERS_MAX = 256
SEGMENT_BYTES = 16 * BLOCK_BYTES
SNAPSHOT_BYTES = 24 * BLOCK_BYTES
# The clock may fall to half its pace, and the model wants whole steps of the timing wheel.
TICK_MS = 2 * STEP_MS
PLENTY = 1 << 40
KEEP_MS = 600_000
FREE_MARK = 1 << 20
FAILURES = {
    "pwrite": "write failed",
    "fdatasync": "sync failed",
    "settle": "sync failed",
    "fsync_folder": "sync failed",
}
_HEADER = struct.Struct("<IHHIIQ")
_ACTOR_OFFSET = 12
_FOLLOWED = frozenset(MODEL_HANDLERS) | {
    layout.RENEW,
    layout.RELEASE,
    layout.REPORT_USAGE,
    layout.REPORT_ATTACH_FAILURE,
    layout.TICK,
    layout.RESTART,
    layout.FREEZE,
}
# Of the first record that a copy would write; no record of the run has it.
COPYS_SEED = 0
Kind = Callable[[Callable[[Machine], Machine]], MachineKind]
"""Makes the kind of machine that a cell runs; each machine goes through the function on its way."""


def machine_kind(watch: Callable[[Machine], Any]) -> MachineKind:
    """The real machine, small."""
    return MachineKind(
        lambda: watch(Machine(SIMS, TERMINALS + 2, ORDERS_MAX)),
        lambda regions: watch(Machine.restore(regions)),
        int(layout.MACHINE_VERSION),
    )


@dataclass(slots=True)
class Chances:
    """How often what happens. The defaults make a run lively; a test narrows them to what it is about.

    What ends a life, and what goes wrong with disk and clock, is rarer in some lives (``calm``): in ten steps no swap
    comes to its end, still less what comes of it.
    """

    every_point: float = 1.0
    """That the power is cut on a copy at a durable point."""
    damage: float = 0.02
    """That such a copy is damaged besides, and has to be refused or to be right."""
    power_cut: float = 0.05
    """In a step: the power is gone at some event soon."""
    killed: float = 0.02
    """In a step: the server is killed at some event soon; in a turn of the follower: the follower is."""
    ended: float = 0.01
    """In a step: a clean end, and a start from its snapshot."""
    failing: float = 0.015
    full: float = 0.01
    clock: float = 0.02
    overlap: float = 0.3
    follower: float = 0.3
    spoiled: float = 0.05
    """That the disk keeps a snapshot otherwise than it was written."""
    slow: float = 0.05
    other_role: float = 0.1
    grown: float = 0.01
    calm: tuple[float, ...] = (1, 1, 1 / 4, 1 / 16)
    """One is drawn for each life: how often troubles come in it."""


NOTHING = Chances(
    every_point=0, damage=0, power_cut=0, killed=0, ended=0, failing=0, full=0, clock=0,
    overlap=0, follower=0, spoiled=0, slow=0, other_role=0, grown=0,
)  # fmt: skip

Place = tuple[str, int, int]
"""File, offset, size."""


def _overlap(one: Place, other: Place) -> bool:
    return one[0] == other[0] and one[1] < other[1] + other[2] and other[1] < one[1] + one[2]


def _may_say(role: int, run: bytes) -> bool:
    """Whether a role may give the command, with all that is in it."""
    (told,) = commands.command_runs(run)
    if role == layout.LEARNER and told.kind == layout.SET_CAP:
        return bool(((told["quota_bytes"] >= 0) & (told["basis"] == layout.BASIS_LEARNED)).all())
    if role == layout.LEARNER and told.kind == layout.SET_HEALTH:
        return bool(((told["windows"] > 0) & np.isin(told["health"], (layout.HEALTHY, layout.THROTTLED))).all())
    return role in COMMAND_ROLES[told.kind]


class _Copy(Witness):
    """The machine of a copy of the disk: judged as soon as recovery is done with it."""

    class Recovered(Exception):
        """No need to go on."""

    def __init__(self) -> None:
        self.sequence = -1
        self.state_hash = 0

    def before(self, machine: Machine, batch: bytes, now_ms: int, seed: int) -> None:
        del now_ms, batch
        if seed == COPYS_SEED:
            self.sequence, self.state_hash = machine.sequence, machine.state_hash()
            raise _Copy.Recovered


class SimulatedTime:
    """A wall clock and a monotonic one; the wall may be set."""

    def __init__(self) -> None:
        self.wall_ms = START_MS
        self.monotonic_ms = 0

    def pass_ms(self, elapsed_ms: int) -> None:
        self.wall_ms += elapsed_ms
        self.monotonic_ms += elapsed_ms

    def clock(self) -> WallClock:
        return WallClock(lambda: self.wall_ms, lambda: self.monotonic_ms)


class _History:
    """A reader of the journal, as history is one: each record once, and what it has committed is never taken back."""

    name = "history"

    def __init__(self, log: Log, disk: FaultyDisk) -> None:
        self._log, self._disk = log, disk
        self._seen = log.history

    @property
    def sequence(self) -> int:
        return self._log.history

    def applied(self, record: Record, outcomes: list[OutcomeRun], machine: Machine) -> None:
        del outcomes, machine
        sequence = record.header.sequence
        # A server that ends cleanly twice, and no follower in between, removes the snapshot that history would need.
        first, bases = first_sequence(self._disk), (0, *snapshot_sequences(self._disk))
        if sequence != self._seen + 1 and any(first - 1 <= base <= self._seen for base in bases):
            raise Violation(f"history is given record {sequence} after {self._seen}, and what lies between is there")
        self._seen = sequence
        if self._log[sequence].outcome_hash != record.header.outcome_hash:
            raise Violation(f"history is given another record {sequence} than was applied")

    def commit(self, sequence: int) -> None:
        self._log.history = sequence
        self._log.show(sequence)

    def close(self) -> None: ...


class _World(World):
    """The pool of the model tests, built and driven through the simulator's cell."""

    simulation: Simulation

    def apply(self, batch: bytes) -> Outcome:
        return self.simulation.build(batch)

    def acknowledge(self, order: int, result: int, server: int = 0, session: int | None = None) -> bytes:
        if result == layout.ACK_DONE and self.simulation.stuck(order):
            result = layout.ACK_REFUSED
        return super().acknowledge(order, result, server, session)


class Simulation(Load, Witness):
    """One run. ``step`` raises ``Violation`` (or the model's ``Mismatch``) when something is wrong."""

    def __init__(self, seed: int, chances: Chances | None = None, kind: Kind = machine_kind) -> None:
        self.chances = NOTHING
        self.chance = Random(f"faults {seed}")
        self.faults: Counter[str] = Counter()
        self.spoken: defaultdict[tuple[int, int], set[bool]] = defaultdict(set)
        """Of each role and command: whether it was ever permitted, and ever refused."""
        self.steps_count = 0
        self.crashes_count = 0
        self.lives_count = 1
        self.log = Log()
        self.time = SimulatedTime()
        self._kind = kind
        # Every other run keeps what a restore to any point some time back needs.
        self._keep_ms = seed % 2 * KEEP_MS
        self._oldest = 0
        """The snapshot that was the oldest, when it was last looked at; 0: there was none, and any may be."""
        self._calls: list[Call] = []
        self._orders_shown: list[bytes] = []
        self._recovering = self._serving = False
        self._calm: float = 1
        self._returning: set[int] = set()
        """Access servers that have yet to say in this life what they hold."""
        self._in_event = False
        self._cut_in = self._kill_in = self._fail_in = 0
        self._killed = False
        self._following = self._follower_dead = False
        self._follower_kill_in = 0
        self._full_until = 0
        self._expects_end = False
        self._spoiled = False
        self._no_room: BaseException | None = None
        self._overlap_now: list[bytes] = []
        self._roles: dict[int, tuple[int, int]] = {0: (int(layout.SYSTEM), -1)}
        self.follower: Follower | None = None
        self.disk = self._watch_disk(FaultyDisk())
        machine = Machine(SIMS, TERMINALS + 2, ORDERS_MAX)
        self.log._records[0] = Applied(b"", 0, 0, b"", 0, machine.state_hash(), None)
        self.cell = self._open()
        world = _World(self.cell._machine, now_ms=START_MS)
        world.simulation = self
        self._network = Network(self.chance, self.faults, quiet=True)
        super().__init__(seed, world)
        self._define_actors()
        self.chances = chances or Chances()
        self._network.quiet = False
        self._serving = True

    def build(self, batch: bytes) -> Outcome:
        """A batch of the world's definitions: nothing goes wrong yet."""
        outcome = self.cell.step(batch)
        self.log.followed = self.log.last
        self.log.show(self.log.last)
        return outcome

    def _define_actors(self) -> None:
        """One of each role. The second operator is there already."""
        world = self.world
        subjects = {
            "as-1": world.entities["as-1"],
            "as-2": world.entities["as-2"],
            "supplier": world.entities["supplier"],
        }
        for name, role, subject in (
            ("operator:first", layout.OPERATOR, None),
            ("access-server:as-1", layout.ROLE_ACCESS_SERVER, "as-1"),
            ("access-server:as-2", layout.ROLE_ACCESS_SERVER, "as-2"),
            ("supplier:supplier", layout.ROLE_SUPPLIER, "supplier"),
            ("technology-provider:one", layout.TECHNOLOGY_PROVIDER, None),
            ("auditor:one", layout.AUDITOR, None),
            ("learner:one", layout.LEARNER, None),
        ):
            numbers = {layout.ACTOR_ROLE: int(role)}
            if subject is not None:
                numbers[layout.ACTOR_SUBJECT] = subjects[subject]
            number = world.define(layout.ACTOR, name, numbers)
            self._roles[number] = (
                int(role),
                world.servers[("as-1", "as-2").index(subject)] if subject in ("as-1", "as-2") else -1,
            )
        self._roles[world.entities["operator:second"]] = (int(layout.OPERATOR), -1)
        self._actors = sorted(self._roles)

    # ------------------------------------------------------------------------------------------ steps

    def step(self) -> None:
        self.steps_count += 1
        try:
            self._trouble()
            # Some lose their connection while a switch is out, and say so by coming back.
            away = {order.server for order in self._in_flight() if order.kind == layout.SWITCH}
            self._returning |= {server for server in sorted(away) if self.chance.random() < 0.1}
            for server in sorted(self._returning):
                if self.chance.random() < 0.5:
                    self._returning.discard(server)
                    self.hello(server)
            if self.chance.random() < self.chances.grown:
                self.grow()
            super().step()
            if self.chance.random() < self.chances.follower:
                self._follow_a_turn()
        except (PowerCut, ProcessEnded) as end:
            self._crashed(end)

    def hello(self, server: int) -> None:
        """What an access server says when it is connected again, all of it."""
        self.apply(commands.run(layout.SESSION_OPEN, access_server=server))
        session = self.model.servers[server].session
        rows = [self._held_row(each) for each in self.model.terminals.values() if each.server == server]
        if rows and session:
            terminals, epochs, sims = zip(*rows, strict=True)
            self.apply(
                commands.run(
                    layout.SESSION_HOLDS,
                    len(rows),
                    access_server=server,
                    argument=session,
                    terminal=terminals,
                    epoch=epochs,
                    iccid=sims,
                )
            )
        self.apply(self.world.ready(server, session))

    def grow(self) -> None:
        """The pool has a few places more; the server is told so as it starts, alone in its record."""
        header = self.cell._machine.header()
        more = {name: header[f"{name}_max"] + self.chance.randrange(2) for name in ("sims", "terminals", "orders")}
        self._post([commands.run(layout.GROW, **more)])
        self._serve_due()

    def pass_time(self) -> None:
        """As the walk's, in steps that a clock at half its pace can halve."""
        steps = self.random.choice((1, 1, 2, 3, 5, 12, 30, 80))
        if self._one_in(40):
            steps = self.random.randrange(1, 1000)
        self.time.pass_ms(steps * TICK_MS)
        self._serve_due(tick=True)

    def apply(self, batch: bytes) -> None:
        """The batch's runs are calls of their own; some come while the others are being written."""
        self.note(batch)
        runs = [self._as_role(run) for run in self._network.carry(batch)]
        if not runs:
            return
        kept = self.chance.randrange(1, len(runs) + 1) if self.chance.random() < self.chances.overlap else len(runs)
        self._overlap_now = runs[kept:]
        self._post(runs[:kept])
        if self.chance.random() < 0.2:
            self.cell.look(lambda machine: machine.sequence, self._read)
        self._serve_due()
        if self._overlap_now:
            late, self._overlap_now = self._overlap_now, []
            self._post(late)
            self._serve_due()

    def _as_role(self, run: bytes) -> bytes:
        if self.chance.random() >= self.chances.other_role:
            return run
        # Half of them by whoever, the others by those who may.
        kind = _HEADER.unpack_from(run)[1]
        actors = [actor for actor in self._actors if self._roles[actor][0] in COMMAND_ROLES[kind]]
        told = bytearray(run)
        struct.pack_into("<I", told, _ACTOR_OFFSET, self.chance.choice(self.chance.choice((self._actors, actors))))
        return bytes(told)

    def _post(self, runs: Sequence[bytes]) -> None:
        calls = [Call(run, self._finished) for run in runs]
        self._calls += calls
        self.cell.post(calls)

    def _serve_due(self, tick: bool = False) -> None:
        before = self.log.last
        turns = 0
        while self.cell.due():
            self.cell.serve()
            self._follow_model(self.log.acknowledged)
            turns += 1
            if self._full or turns > 200:
                break
        if tick and self.log.last == before and not self._full:
            # The model wants to hear of every instant at which something may have become due.
            self._post([commands.run(layout.TICK)])
            self.cell.serve()
        self._note_durable()
        if self._calls and not self._full:
            raise Violation(f"{len(self._calls)} calls were never answered")

    def _note_durable(self) -> None:
        """Ticks of the cell are answered to nobody; when it is idle they are durable all the same."""
        self.log.show(self.cell.durable_sequence)
        self._follow_model(self.log.last)
        self.world.now_ms = self.log[self.log.last].now_ms

    # ------------------------------------------------------------------------------------------ what goes wrong

    @property
    def _full(self) -> bool:
        return self.disk.free < FREE_MARK

    def _trouble(self) -> None:
        chance, chances, calm = self.chance, self.chances, self._calm
        if self._full and self.steps_count >= self._full_until:
            self.disk.free = PLENTY
        if chance.random() < calm * chances.power_cut:
            self._cut_in = self.chance.choice((1, 2, 3, 5, 8, 20, 60, 150))
        if chance.random() < calm * chances.killed:
            self._kill_in = self.chance.choice((1, 2, 3, 5, 8, 20, 60))
        if chance.random() < calm * chances.ended:
            self._end_cleanly()
        if chance.random() < calm * chances.failing:
            self._fail_in = self.chance.choice((1, 2, 3, 10, 40))
        if chance.random() < calm * chances.full and not self._full:
            self.faults["full"] += 1
            self.disk.free = FREE_MARK - 1
            self._full_until = self.steps_count + self.chance.randrange(1, 6)
        if chance.random() < calm * chances.clock:
            self._set_clock()

    def _set_clock(self) -> None:
        leap = (
            self.chance.choice((-3_600_000, -60_000, -5_000, 30_000, 90_000, 3_600_000, 86_400_000))
            // TICK_MS
            * TICK_MS
        )
        if self.cell.clock_frozen:
            self.cell.confirm()
            self._post([commands.run(layout.THAW)])
            self._serve_due()
            self.cell.note_frozen()
            return
        self.faults["clock ahead" if leap > 0 else "clock back"] += 1
        self.time.wall_ms += leap
        self._serve_due(tick=True)

    def _watch_disk(self, disk: FaultyDisk) -> FaultyDisk:
        disk.faults = self.faults
        disk.before = self._event
        disk.settled = self._settled
        disk.fail_at = None
        return disk

    def _event(self, name: str) -> None:
        """Before each event of the disk."""
        if self._dead:
            raise PowerCut
        if self._killed:
            raise ProcessEnded
        if self._following and self._follower_dead:
            raise FollowerKilled
        if self._in_event:
            # What happens because of an event is cut at its own.
            self._cut(name)
            return
        self._in_event = True
        try:
            self._beside(name)
        finally:
            self._in_event = False
        self._cut(name)

    _dead = False

    def _cut(self, name: str) -> None:
        chances = self.chances
        if chances.every_point and (chances.every_point >= 1 or self.chance.random() < chances.every_point):
            self._recover_copy()
        if self._cut_in:
            self._cut_in -= 1
            if not self._cut_in:
                self._dead = True
                raise PowerCut
        if self._kill_in:
            self._kill_in -= 1
            if not self._kill_in:
                self.faults["killed"] += 1
                self._killed = self._expects_end = True
                raise ProcessEnded
        if self._following and self._follower_kill_in:
            self._follower_kill_in -= 1
            if not self._follower_kill_in:
                self.faults["follower killed"] += 1
                self._follower_dead = True
                raise FollowerKilled
        if self._fail_in:
            self._fail_in -= 1
            if not self._fail_in:
                self._expects_end = True
                self.faults[FAILURES.get(name, f"{name} failed")] += 1
                full = name in ("pwrite", "create") and self.chance.random() < 0.3
                raise OSError(errno.ENOSPC if full else errno.EIO, "the disk failed")

    def _settled(self, name: str, content: Content) -> None:
        """The disk may have lied about a snapshot that was written: it is about to be read back."""
        if not name.endswith(WRITING_SUFFIX) or self.chance.random() >= self.chances.spoiled:
            return
        self._spoiled = True
        place = self.chance.randrange(len(content.seen))
        if self.chance.random() < 0.5:
            self.faults["snapshot flipped"] += 1
            content.seen[place] ^= 1 << self.chance.randrange(8)
            return
        self.faults["snapshot misdirected"] += 1
        blocks = len(content.seen) // BLOCK_BYTES
        source, target = (self.chance.randrange(blocks) * BLOCK_BYTES for _ in range(2))
        written = bytes(content.seen[source : source + BLOCK_BYTES])
        content.seen[source : source + BLOCK_BYTES] = bytes(BLOCK_BYTES)
        content.seen[target : target + BLOCK_BYTES] = written

    def _judge_spoiled(self) -> None:
        """No file that has a snapshot's name is another one than was written, whatever the disk did."""
        self._spoiled = False
        for sequence in snapshot_sequences(self.disk):
            name = snapshot_name(sequence)
            file = self.disk.open(name)
            try:
                check_regions(file, name, read_snapshot_header(file, name))
            except JournalDamaged as error:
                raise Violation(f"a snapshot that does not read back as written has its name: {error}") from error

    def _beside(self, name: str) -> None:
        """What others do while the event is under way."""
        if not self._serving or name != "fdatasync" or not self.cell.committing:
            return
        if self.chance.random() < self.chances.slow:
            self.faults["slow"] += 1
            self.time.pass_ms(self.chance.choice((1, 2, 10, 100)) * TICK_MS)
        if self._overlap_now:
            late, self._overlap_now = self._overlap_now, []
            self._post(late)
            self.cell.overlap()
        if self.chance.random() < self.chances.follower / 4:
            self._follow_a_turn()

    # ------------------------------------------------------------------------------------------ the follower

    def _follow_a_turn(self) -> None:
        if self._following:
            return  # one at a time
        self._following = True
        if self.chance.random() < self.chances.killed:
            self._follower_kill_in = self.chance.choice((1, 2, 3, 5, 8, 20, 60))
        try:
            if self.follower is None:
                self.follower = _Follower(
                    self.disk,
                    self._kind(lambda machine: machine),
                    FollowerSettings(
                        replay_s=1e9,
                        bytes_max=SNAPSHOT_BYTES,
                        interval_s=1e9,
                        free_mark_bytes=FREE_MARK,
                        keep_ms=self._keep_ms,
                    ),
                    readers=(lambda: _History(self.log, self.disk),),
                )
            while self.follower.turn():
                pass
            if self.chance.random() < 0.3:
                self.follower._commit_readers()
            self._judge_kept()
        except FollowerKilled:
            self.follower = None
        except JournalError as error:
            if not self._spoiled:
                raise Violation(f"the follower refused a sound journal: {error}") from error
            # Its own process ends with an alarm; the server goes on, and so does the next follower.
            self.follower = None
        except OSError as error:
            if not self._expects_end:
                raise
            # Its own process ends with an alarm; the server goes on.
            del error
            self._expects_end = False
            self.follower = None
        finally:
            self._following = self._follower_dead = False
            self._follower_kill_in = 0
            if ALARM_NAME in self.disk.seen:
                self._oldest = 0  # where there was no room it reaches back less, also when the alarm is over
        if self._spoiled:
            self._judge_spoiled()

    def _judge_kept(self) -> None:
        """From the oldest snapshot on every record is there, and it goes only when another one is old enough."""
        sequences = snapshot_sequences(self.disk)
        if not sequences:
            return
        if first_sequence(self.disk) > sequences[0] + 1:
            raise Violation(f"the journal begins behind the oldest snapshot, that of sequence {sequences[0]}")
        instants = [self.log[sequence].now_ms for sequence in (sequences[0], sequences[-1])]
        if (
            self._oldest not in (0, sequences[0])
            and ALARM_NAME not in self.disk.seen
            and instants[1] - instants[0] < self._keep_ms
        ):
            raise Violation(f"the folder reaches back by {instants[1] - instants[0]} ms, not by {self._keep_ms}")
        self._oldest = sequences[0]

    # ------------------------------------------------------------------------------------------ what is shown

    def _finished(self, posted: Sequence[Posted]) -> None:
        for call in posted:
            assert isinstance(call, Call)
            self._calls.remove(call)
            if call.error is not None:
                # One write that found no room refuses all calls of its group, which need not come here together.
                if isinstance(call.error, JournalFull) and (
                    self._full or self._expects_end or call.error is self._no_room
                ):
                    self._no_room, self._expects_end = call.error, False
                    continue
                if isinstance(call.error, MalformedBatch):
                    raise Violation(f"a sound run was called malformed: {call.error}")
                if self._dead or self._expects_end:
                    continue
                raise Violation(f"a call ended with {call.error!r}")
            assert call.outcome is not None
            if not call.sequence:
                raise Violation("a call was answered that was never applied")
            if bytes(call.outcome.data) != call.expected:
                raise Violation(f"record {call.sequence}: a call was answered something else than the machine said")
            self.log.show(call.sequence)

    def _read(self, future: Future[int]) -> None:
        if future.exception() is None:
            self.log.show(future.result())

    def _heard(self, run: OutcomeRun, now_ms: int | None = None) -> None:
        """Orders and events leave the house only when they are durable; events with their record's instant."""
        data = bytes(run.data)
        for sequence in range(self.log.last, max(self.log.last - 8, 0), -1):
            if data in self.log[sequence].outcomes and now_ms in (None, self.log[sequence].now_ms):
                self.log.show(sequence)
                return
        raise Violation("orders or events were told that no record has")

    # ------------------------------------------------------------------------------------------ the auditor

    def before(self, machine: Machine, batch: bytes, now_ms: int, seed: int) -> None:
        """Recovery replays what was there; the first thing that was not ends it."""
        if self._recovering and not self.log.has(machine.sequence + 1, batch, now_ms, seed):
            self._recovering = False
            self.log.judge(machine.sequence, machine.state_hash(), "recovery")
            self._follow_model(machine.sequence)
            self.log.cut(machine.sequence)

    def after(self, machine: Machine, batch: bytes, now_ms: int, seed: int, outcome: Outcome) -> None:
        if self._recovering:
            return
        sequence = machine.sequence
        self.log.add(
            sequence,
            Applied(
                bytes(batch), now_ms, seed, outcome.data, outcome.hash, machine.state_hash(), copy_regions(machine)
            ),
        )
        waiting = iter([call for call in self._calls if not call.sequence])
        call = next(waiting, None)
        for run, answer in zip(split(batch), commands.outcome_runs(outcome.data), strict=False):
            if call is not None and call.run == run:
                call.sequence, call.expected = sequence, bytes(answer.data)
                call = next(waiting, None)

    def _follow_model(self, until: int) -> None:
        while self.log.followed < until:
            self.log.followed += 1
            record = self.log[self.log.followed]
            try:
                self._follow_record(record)
            except AssertionError as error:
                raise Violation(f"record {self.log.followed}: {error}") from error
            record.regions = None

    def _follow_record(self, record: Applied) -> None:
        found = commands.outcome_runs(record.outcomes)
        runs, answers = [], []
        for run, answer in zip(split(record.batch), found, strict=False):
            _, kind, server, _, actor, _ = _HEADER.unpack_from(run)
            self.commands_count += answer.count
            statuses = set(answer["status"].tolist())
            self.answers.update((kind, int(status)) for status in answer["status"])
            role, subject = self._roles.get(actor, (0, -1))
            self.spoken[role, kind] |= {int(layout.NOT_PERMITTED) not in statuses}
            if not _may_say(role, run) or (subject >= 0 and subject != server):
                if statuses != {int(layout.NOT_PERMITTED)}:
                    raise Violation(f"a command {kind} of the role {role} was answered {statuses}")
            elif kind in _FOLLOWED:
                runs.append(run)
                answers.append(answer)
        for told in found[-2:]:
            self.answers.update((told.kind, int(kind)) for kind in told["kind"])
        assert record.regions is not None
        state = tables(record.regions, writable=False)
        self.model.step(b"".join(runs), [*answers, *found[-2:]], record.now_ms, state)
        wrong = violations(state)
        if wrong:
            raise Violation("; ".join(wrong))

    # ------------------------------------------------------------------------------------------ crashes

    def _settings(self) -> dict[str, Any]:
        return {
            "capacity": Capacity(1, 1, 1),
            "settings": CellSettings(overlap_bytes=1),
            "journal": JournalSettings(SEGMENT_BYTES, FREE_MARK, prepare_ahead=False, keep_ms=self._keep_ms),
        }

    def _open(self) -> SimulatedCell:
        def ended(message: str) -> None:
            if not (self._expects_end or self._dead):
                raise Violation(f"the process ended itself: {message}")
            raise ProcessEnded(message)

        cell = SimulatedCell.open(
            "simulated",
            disk=self.disk,
            machine=self._kind(lambda machine: Watched(machine, self)),  # type: ignore[arg-type, return-value]
            clock=self.time.clock(),
            seeds=lambda: self.chance.getrandbits(64) | 1,
            entropy=self.chance.randbytes,
            fail_stop=ended,
            **self._settings(),
        )
        assert isinstance(cell, SimulatedCell)
        cell.on_orders = cell.on_events = self._heard
        cell.begin()
        return cell

    def _recover_copy(self) -> None:
        """The power is cut on a copy of the disk, which is recovered and judged."""
        self.crashes_count += 1
        found = self.disk.crash(self.chance)
        damaged = found.copy() if self.chance.random() < self.chances.damage else None
        sequence = self._judge_copy(found, "a copy whose power was cut")
        assert sequence is not None
        if damaged is not None:
            self._judge_damaged(damaged, sequence)

    def _judge_copy(self, disk: FaultyDisk, what: str) -> int | None:
        """None: it was refused, where that is allowed."""
        copy = _Copy()
        disk.free = PLENTY
        try:
            Cell.open(
                "a copy",
                disk=disk,
                machine=self._kind(lambda machine: Watched(machine, copy)),  # type: ignore[arg-type, return-value]
                clock=VirtualClock(),
                seeds=lambda: COPYS_SEED,
                fail_stop=lambda _: None,
                **self._settings(),
            )
        except _Copy.Recovered:
            self.log.judge(copy.sequence, copy.state_hash, what)
        except JournalError as error:
            raise Violation(f"{what} is refused: {error}") from error
        return copy.sequence

    def _judge_damaged(self, disk: FaultyDisk, sequence: int) -> None:
        """Bytes are not what was written. That is refused, or harmless; only of the last record can nobody know."""
        names = [name for name in disk.names() if name.endswith((".journal", ".state")) and disk.seen[name].writes]
        if not names:
            return
        name = self.chance.choice(names)
        content = disk.seen[name]
        what = self.chance.choice(("flipped", "unreadable", "lost write", "misdirected"))
        places = self._record_places(disk)
        newest = newest_snapshot_sequence(disk)
        if what in ("flipped", "unreadable"):
            offset = self.chance.randrange(len(content.seen))
            if what == "flipped":
                disk.flip(name, offset, self.chance.randrange(8))
            else:
                disk.break_sector(name, offset)
                offset -= offset % SECTOR_BYTES
            spoiled = [(name, offset, 1 if what == "flipped" else SECTOR_BYTES)]
        else:
            back = self.chance.randrange(len(content.writes))
            if what == "lost write":
                spoiled = [(name, *disk.lose_write(name, back))]
            else:
                other = self.chance.choice(names)
                block = self.chance.randrange(max(len(disk.seen[other].seen) // BLOCK_BYTES, 1))
                offset, size = disk.misdirect_write(name, back, other, block)
                spoiled = [(name, offset, size), (other, block * BLOCK_BYTES, size)]
        # Of the last record nobody can know whether it was ever whole, and so on for those before it that are spoiled.
        lowest = sequence
        while lowest in places and any(_overlap(places[lowest], each) for each in spoiled):
            lowest -= 1
        self.faults[what] += 1
        # What the newest snapshot replaces is needed no more, as long as what it goes on from can be told (@P):
        # records, and the headers of segments that begin with one, or with the next.
        replaceable = [place for held, place in places.items() if held < newest]
        replaceable += [(place[0], 0, BLOCK_BYTES) for held, place in places.items() if held <= newest + 1 > 1]
        replaced = what != "misdirected" and any(
            name == place[0] and place[1] <= spoiled[0][1]
            and spoiled[0][1] + spoiled[0][2] <= place[1] + place[2]
            for place in replaceable
        )  # fmt: skip
        before = {each: bytes(disk.seen[each].seen) for each in names}
        copy = _Copy()
        disk.free = PLENTY
        try:
            Cell.open(
                "a damaged copy",
                disk=disk,
                machine=self._kind(lambda machine: Watched(machine, copy)),  # type: ignore[arg-type, return-value]
                clock=VirtualClock(),
                seeds=lambda: COPYS_SEED,
                fail_stop=lambda _: None,
                **self._settings(),
            )
        except _Copy.Recovered:
            if not lowest <= copy.sequence <= sequence:
                raise Violation(
                    f"a copy with a fault ({what}, {spoiled}) was opened at {copy.sequence} instead of {sequence}"
                ) from None
            if copy.state_hash != self.log[copy.sequence].state_hash:
                raise Violation(f"a copy with a fault ({what}, {spoiled}) was opened with another state") from None
            self.faults["passed over"] += replaced
        except JournalError as error:
            if replaced:
                raise Violation(f"a copy with a fault ({what}, {spoiled}) that does no harm was refused") from error
            self.faults["refused"] += 1
            after = {each: bytes(disk.seen[each].seen) for each in names if each in disk.seen}
            if before != after:
                raise Violation("a damaged copy was refused, and changed all the same") from None

    @staticmethod
    def _record_places(disk: FaultyDisk) -> dict[int, Place]:
        """Where each record of the last two segments stands."""
        found: dict[int, Place] = {}
        for name in [name for name in disk.names() if name.endswith(".journal")][-3:]:
            seen = disk.seen[name].seen
            for offset in range(BLOCK_BYTES, len(seen), BLOCK_BYTES):
                decoded = decode_record_header(seen, offset)
                if not isinstance(decoded, str):
                    found[decoded[0].sequence] = (name, offset, record_bytes(decoded[0].payload_bytes))
        return found

    def _crashed(self, end: BaseException) -> None:
        """The run goes on with what is found on the disk."""
        while True:
            if self._dead:
                self.crashes_count += 1
                self.faults["power cut"] += 1
                self.disk = self._watch_disk(self.disk.crash(self.chance))
            elif not self._expects_end:
                raise Violation(f"the process ended: {end!r}") from end
            self._dead = self._killed = self._expects_end = self._in_event = False
            self._cut_in = self._kill_in = self._fail_in = 0
            # Recovery may be cut short as well, or meet a disk that fails.
            trouble, soon = self.chance.random(), self.chance.choice((1, 2, 3, 4, 8))
            if trouble < 0.2:
                self._cut_in = soon
            elif trouble < 0.3:
                self._kill_in = soon
            elif trouble < 0.35:
                self._fail_in = soon
            if self._begin_life():
                return

    def _begin_life(self) -> bool:
        self.lives_count += 1
        self.disk.locked = False
        self.disk.free = PLENTY
        self.follower = None
        self._calls.clear()
        self._overlap_now = []
        self._recovering, self._serving = True, False
        self._calm = self.chance.choice(self.chances.calm)
        self._returning = set(self.world.servers)
        try:
            self._alarm()
            self.cell = self._open()
        except (PowerCut, ProcessEnded):
            return False
        except (OSError, JournalFull):
            # The disk failed, or seemed full, as was wanted: whoever starts the server tries once more.
            if not self._expects_end:
                raise
            return False
        except JournalError as error:
            raise Violation(f"a folder that was never damaged is refused: {error}") from error
        self._serving = True
        self.world.machine = self.cell._machine
        self._note_durable()
        return True

    def _alarm(self) -> None:
        self.disk.seen.pop(ALARM_NAME, None)

    def _end_cleanly(self) -> None:
        self.faults["clean end"] += 1
        try:
            self.cell.end()
        except OSError:
            # The disk failed under the last snapshot, as was wanted; the journal has everything.
            if not self._expects_end:
                raise
        except JournalDamaged as error:
            if not self._spoiled:
                raise Violation(f"a clean end was refused: {error}") from error
        if self._spoiled:
            self._judge_spoiled()
        self._expects_end = True
        raise ProcessEnded


class _Follower(Follower):
    """The follower, which never rests: the simulator has no time for it. Readers commit with a snapshot, or when it is
    drawn, never by a clock."""

    def _turn(self, snapshots: bool) -> bool:
        self._commit_due_s = math.inf
        return super()._turn(snapshots)

    def _rest(self, seconds: float) -> None:
        del seconds

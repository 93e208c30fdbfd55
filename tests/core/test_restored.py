"""I1 after a restore: what access servers were given after the backup the folder doesn't know, so nobody is given a SIM
anew until each has said what it holds, or was declared dead.

Access servers are plain dicts here: they say which terminal really uses which SIM, whatever the machine believes.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

from tests.model.records import copy_regions
from tests.model.world import COOLING_MS, LEASE_MS, STEP_MS, World, empty_world, iccid_number

FENCING_MS = 20 * STEP_MS
GIVEN = (layout.OK, layout.SAME, layout.MOVED)


def pool(sims: int = 12, servers: int = 2, terminals_max: int = 64, orders_max: int = 64) -> World:
    world = empty_world(terminals_max=terminals_max, orders_max=orders_max)
    world.configure(layout.FENCING_MS, FENCING_MS)
    for number in range(2, servers):
        index = world.machine.server_index(world.define(layout.ACCESS_SERVER, f"as-{number + 1}"))
        assert index is not None
        world.servers.append(index)
        world.open_session(index)
    world.import_sims(sims)
    return world


def restore(world: World, backup: Machine, argument: int = 1) -> None:
    """As `simswitch restore` does it, and then the server's start."""
    world.machine = Machine.restore(copy_regions(backup))
    world.machine.raise_incarnation(world.now_ms, 1 + world.seed % 1_000_000)
    world.sessions.clear()
    world.send(commands.run(layout.RESTART, argument=argument))
    world.send(commands.run(layout.RESTART))


def copied(world: World) -> Machine:
    return Machine.restore(copy_regions(world.machine))


def unheard(world: World) -> list[int]:
    found = [server for server in world.servers if world.machine.server(server)["unheard"]]
    assert world.machine.header()["unheard_count"] == len(found)
    return found


def given(world: World, terminal: int, server: int = 0) -> tuple[int, int, int]:
    (outcome,) = world.send(world.allocate(terminal, server))
    return int(outcome["status"][0]), int(outcome["epoch"][0]), int(outcome["sim"][0])


def test_nobody_is_given_a_sim_before_all_have_said_what_they_hold() -> None:
    world = pool(sims=3)
    _, _, first = given(world, 1)
    backup = copied(world)
    # After the backup: terminal 1 goes from the first SIM to the second, and a terminal elsewhere gets the first one.
    world.send(world.set_health(first, layout.THROTTLED))
    _, epoch, second = given(world, 1)
    world.send(world.set_health(first, layout.HEALTHY))
    world.pass_ms(COOLING_MS + STEP_MS)
    for sim in range(3):
        if sim not in (first, second):
            world.send(world.set_health(sim, layout.SUSPENDED))
    status, other_epoch, other = given(world, 2, server=1)
    assert (status, other) == (layout.OK, first)

    restore(world, backup)
    assert unheard(world) == [0, 1]
    (outcome,) = world.send(world.allocate([1, 7]))
    assert outcome["status"].tolist() == [layout.HELLOS_AWAITED] * 2, "its own SIM may be another's by now"
    assert outcome["retry_after_ms"].all()
    world.open_session(0, ready=False)
    world.send(world.holds(0, 1, epoch, second))
    assert given(world, 1)[0] == layout.HELLOS_AWAITED, "what is not named yet"
    world.send(world.ready(0))
    assert unheard(world) == [1]
    assert given(world, 1)[0] == given(world, 7)[0] == layout.HELLOS_AWAITED
    # Neither a restart nor time lifts it.
    world.send(commands.run(layout.RESTART))
    world.pass_ms(5 * LEASE_MS)
    assert given(world, 7)[0] == layout.HELLOS_AWAITED
    world.open_session(1, ready=False)
    world.send(world.holds(1, 2, other_epoch, first))
    assert unheard(world) == [1], "nor part of what it holds"
    world.send(world.ready(1))
    assert unheard(world) == []
    status, _, sim = given(world, 7)
    assert status in (layout.OK, layout.NO_HEALTHY_SIM)
    assert sim not in (first, second)
    assert world.machine.check() == []


def test_a_late_report_does_not_stand_for_the_hello() -> None:
    """To a restored folder it is of the lease that goes on, though that ended after the backup."""
    world = pool(sims=3)
    _, before, first = given(world, 1)
    backup = copied(world)
    world.send(world.set_health(first, layout.THROTTLED))
    _, epoch, second = given(world, 1)
    world.send(world.set_health(first, layout.HEALTHY))

    restore(world, backup)
    world.open_session(0, ready=False)
    world.send(world.holds(0, 1, epoch, second))
    assert world.status(world.usage(1, before, 1_000)) == layout.OK
    assert world.status(world.lease(layout.RENEW, 1, before)) == layout.OK
    assert given(world, 1)[0] == layout.HELLOS_AWAITED
    world.send(world.ready(0))
    assert unheard(world) == [1]
    assert world.machine.terminal(0)["sim"] is None
    assert given(world, 1)[0] == layout.HELLOS_AWAITED
    assert world.machine.check() == []


def test_nor_does_a_late_report_of_what_an_outstanding_switch_began() -> None:
    world = pool(sims=4)
    given(world, 1)
    job = int(world.send(world.job_create(selecting=1))[0]["job"][0])
    world.send(world.job_add(job, 1))
    world.pass_ms(STEP_MS)
    (order,) = world.orders
    backup = copied(world)
    world.send(world.acknowledge(order["order"], layout.ACK_DONE))
    world.send(world.set_health(world.machine.terminal(0)["sim"], layout.THROTTLED))
    _, epoch, sim = given(world, 1)

    restore(world, backup)
    world.open_session(0, ready=False)
    world.send(world.holds(0, 1, epoch, sim))
    assert world.status(world.usage(1, order["epoch"], 1_000)) == layout.OK
    assert given(world, 1)[0] == layout.HELLOS_AWAITED
    world.send(world.ready(0))
    assert unheard(world) == [1]
    assert world.machine.terminal(0)["sim"] is None
    assert world.machine.check() == []


def test_swaps_wait_and_go_on() -> None:
    world = pool()
    given(world, 1)
    _, epoch, sim = given(world, 2)
    backup = copied(world)
    restore(world, backup)
    world.open_session(0, ready=False)
    for terminal in (1, 2):
        record = world.machine.terminal(terminal - 1)
        world.send(world.holds(0, terminal, record["epoch"], record["sim"]))
    world.send(world.ready(0))
    assert world.status(world.lease(layout.RENEW, 2, epoch)) == layout.OK
    (outcome,) = world.send(world.allocate([1, 2]))
    assert outcome["status"].tolist() == [layout.SAME] * 2, "they hold theirs: their access server has said so"
    job = int(world.send(world.job_create(selecting=1))[0]["job"][0])
    world.send(world.job_add(job, 1), world.job_add(job, 2))
    world.configure(layout.AUTOMATIC_SWAPS, 3)
    world.send(world.set_health(sim, layout.THROTTLED))
    for _ in range(20):
        world.pass_ms(STEP_MS)
    before = len(world.orders)
    assert before == 0
    server = world.machine.server(0)
    assert (server["waits_for"], server["queued_count"]) == (layout.WAITS_FOR_HELLOS, 2)
    assert world.events[-1]["kind"] != layout.EVENT_SHORTFALL
    world.open_session(1)
    world.pass_ms(STEP_MS)
    assert sorted(order["terminal"] for order in world.orders) == [1, 2]
    assert world.machine.server(0)["waits_for"] != layout.WAITS_FOR_HELLOS


def test_who_was_declared_dead_since_the_restore_is_waited_for_until_what_it_held_is_freed() -> None:
    world = pool()
    world.send(world.close(1))
    dead = commands.run(layout.DECLARE_DEAD, 1, access_server=1, undo=0)
    assert world.status(dead) == layout.OK
    world.pass_ms(2 * FENCING_MS)
    # It may have come back after the backup, so it is declared dead anew.
    restore(world, copied(world))
    world.open_session(0)
    world.pass_ms(2 * FENCING_MS)
    assert unheard(world) == [1]
    assert world.status(dead) == layout.OK
    assert world.status(dead) == layout.SAME
    world.pass_ms(FENCING_MS - STEP_MS)
    assert given(world, 1)[0] == layout.HELLOS_AWAITED
    # A sign of life belies it.
    world.send(world.lease(layout.RENEW, 9, 1, server=1))
    world.pass_ms(2 * FENCING_MS)
    assert unheard(world) == [1]
    assert world.status(dead) == layout.OK
    world.pass_ms(2 * FENCING_MS)
    assert unheard(world) == []
    assert given(world, 1)[0] == layout.OK
    assert world.machine.check() == []


def test_who_says_hello_again_and_again_and_is_never_ready_can_be_declared_dead() -> None:
    """Each hello is at once after the end of the one before, so that there is always a session."""
    world = pool()
    _, epoch, sim = given(world, 1, server=1)
    restore(world, copied(world))
    world.open_session(0)
    world.open_session(1, ready=False)
    assert world.status(commands.run(layout.DECLARE_DEAD, 1, access_server=1, undo=0)) == layout.OK
    assert world.machine.server(1)["session"] == 0
    assert world.status(world.holds(1, 1, epoch, sim)) == layout.STALE_SESSION
    for _ in range(FENCING_MS // STEP_MS):
        world.open_session(1, ready=False)
        assert world.status(world.holds(1, 1, epoch, sim)) == layout.SAME
        assert unheard(world) == [1]
        world.pass_ms(STEP_MS)
    assert unheard(world) == []
    # What it named is nothing any more. It says so again, while its SIM cools, and goes on.
    assert world.status(world.ready(1)) == layout.STALE_SESSION
    world.open_session(1, ready=False)
    assert world.status(world.holds(1, 1, epoch, sim)) == layout.OK
    assert world.status(world.ready(1)) == layout.OK
    assert given(world, 1, server=1) == (layout.SAME, epoch, sim)
    assert given(world, 2)[0] == layout.OK
    assert world.machine.check() == []


@pytest.mark.parametrize("by", ["READY", "a terminal's traffic"])
def test_who_says_hello_and_then_more_is_not_dead(by: str) -> None:
    world = pool()
    _, epoch, sim = given(world, 1, server=1)
    restore(world, copied(world))
    world.open_session(0)
    world.open_session(1, ready=False)
    assert world.status(commands.run(layout.DECLARE_DEAD, 1, access_server=1, undo=0)) == layout.OK
    world.open_session(1, ready=False)
    world.send(world.holds(1, 1, epoch, sim))
    world.pass_ms(FENCING_MS - STEP_MS)
    if by == "READY":
        assert world.status(world.ready(1)) == layout.OK
        assert unheard(world) == []
    else:
        assert world.status(world.lease(layout.RENEW, 1, epoch, server=1)) == layout.OK
        assert unheard(world) == [1]
    world.pass_ms(2 * FENCING_MS)
    assert world.machine.terminal(0)["sim"] == sim
    refused = world.status(commands.run(layout.DECLARE_DEAD, 1, access_server=1, undo=0))
    assert refused == (layout.WRONG_STATE if by == "READY" else layout.OK)
    assert world.machine.check() == []


def test_a_hello_waits_while_what_a_dead_access_server_held_is_freed() -> None:
    """What it named would be half freed already, and nobody would tell it."""
    world = pool(orders_max=8_192)
    _, epoch, sim = given(world, 1, server=1)
    world.send(world.close(1))
    assert world.status(commands.run(layout.DECLARE_DEAD, 1, access_server=1, undo=0)) == layout.OK
    world.pass_ms(FENCING_MS)
    (outcome,) = world.send(commands.run(layout.SESSION_OPEN, access_server=1))
    assert (outcome["status"].tolist(), outcome["session"].tolist()) == ([layout.SWEEPS_FULL], [0])
    for _ in range(3):
        world.pass_ms(STEP_MS)
    world.open_session(1, ready=False)
    assert world.status(world.holds(1, 1, epoch, sim)) == layout.OK
    assert world.machine.check() == []


def test_a_restart_does_not_end_the_walk_that_frees_what_a_dead_access_server_held() -> None:
    """Longer than one apply's work. Its leases were nobody's to free after that."""
    world = pool(orders_max=8_192)
    _, _, sim = given(world, 1, server=1)
    restore(world, copied(world))
    world.open_session(0)
    assert world.status(commands.run(layout.DECLARE_DEAD, 1, access_server=1, undo=0)) == layout.OK
    world.pass_ms(2 * FENCING_MS)
    assert unheard(world) == [1], "it is still under way"
    world.send(commands.run(layout.RESTART))
    for _ in range(3):
        world.pass_ms(STEP_MS)
    assert unheard(world) == []
    assert world.machine.terminal(0)["sim"] is None
    world.pass_ms(2 * COOLING_MS)
    assert world.machine.sim(sim)["occupancy"] == layout.FREE


def test_without_access_servers_nobody_is_waited_for() -> None:
    world = World(Machine(sims_max=8, terminals_max=8, orders_max=16))
    restore(world, world.machine)
    assert world.machine.header()["unheard_count"] == 0


# ------------------------------------------------------------------------------------------------ by the truth

SERVERS = 3
TERMINALS = 24
SIMS = 48


@dataclass
class AccessServer:
    """What it really has."""

    held: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By terminal: epoch and SIM."""
    inbox: list[dict[str, int]] = field(default_factory=list)
    ended: list[tuple[int, int]] = field(default_factory=list)
    """Terminal and epoch of leases that are over here, and whose last usage report may be on its way still."""
    answers: dict[int, int] = field(default_factory=dict)
    """To orders, by their number: one that comes again is answered as before."""
    session: int = 0
    ready: bool = False
    again_ms: int | None = None
    """Until then it says hello again: it was not told of all that it has to let go of."""

    def begin(self, terminal: int, lease: tuple[int, int]) -> None:
        if terminal in self.held and self.held[terminal] != lease:
            self.end(terminal)
        self.held[terminal] = lease

    def end(self, terminal: int) -> int:
        epoch, _ = self.held.pop(terminal)
        self.ended.append((terminal, epoch))
        return epoch


class TwoOnOne(AssertionError):
    pass


class Fleet:
    """Access servers, terminals and an operator, and what came of it."""

    def __init__(self, seed: int, argument: int) -> None:
        self.random = random.Random(seed)
        self.argument = argument
        self.world = pool(SIMS, SERVERS, orders_max=24, terminals_max=4 * TERMINALS)
        self.world.configure(layout.AUTOMATIC_SWAPS, 3)
        self.servers = {index: AccessServer() for index in self.world.servers}
        self.read = len(self.world.orders)
        self.answers: Counter[int] = Counter()
        self.swaps = 0
        self.reported_bytes = 0
        self.gone: int | None = None
        for index in self.servers:
            self.hello(index)

    def send(self, *runs: bytes) -> list[commands.OutcomeRun]:
        found = self.world.send(*runs)
        for order in self.world.orders[self.read :]:
            server = self.servers[order["access_server"]]
            if server.session & 0xFFFFFFFF == order["session"]:
                server.inbox.append(order)
        self.read = len(self.world.orders)
        return found

    def audit(self) -> None:
        """I1, by what terminals really use."""
        users = Counter(sim for server in self.servers.values() for _, sim in server.held.values())
        for sim, count in users.items():
            if count > 1:
                raise TwoOnOne(f"SIM {sim} is used by {count} terminals")

    def pass_time(self, steps: int) -> None:
        until_ms = self.world.now_ms + steps * STEP_MS
        while True:
            due = {index: server.again_ms for index, server in self.servers.items() if server.again_ms is not None}
            index = min(due, key=lambda each: due[each], default=None)
            if index is None or due[index] > until_ms:
                break
            self.world.now_ms = max(self.world.now_ms, due[index])
            self.hello(index)
        self.world.now_ms = until_ms
        self.send(commands.run(layout.TICK))

    def hello(self, index: int, ready: bool = True) -> None:
        server = self.servers[index]
        server.inbox.clear()
        server.again_ms = None
        server.ready = False
        (outcome,) = self.send(commands.run(layout.SESSION_OPEN, access_server=index))
        server.session = self.world.sessions[index] = int(outcome["session"][0])
        rows = list(server.held.items())
        self.random.shuffle(rows)
        for terminal, (epoch, sim) in rows:
            status = self.world.status(self.world.holds(index, terminal, epoch, sim))
            if status in (layout.ORDERS_FULL, layout.TERMINALS_FULL):
                server.again_ms = self.world.now_ms + LEASE_MS // 2
            if self.random.random() < 0.5:
                self.report_late(index)
            if not ready and self.random.random() < 0.2:
                return  # the connection broke on the way, or it takes long
        if ready:
            self.tell_ready(index)

    def tell_ready(self, index: int) -> None:
        self.send(self.world.ready(index))
        self.servers[index].ready = True

    def allocate(self, terminal: int, index: int) -> int:
        (outcome,) = self.send(self.world.allocate(terminal, index))
        status = int(outcome["status"][0])
        self.answers[status] += 1
        lease = int(outcome["epoch"][0]), int(outcome["sim"][0])
        # Where a switch was carried out, and that is not known yet, the answer is of the lease before.
        if status in GIVEN and lease > self.servers[index].held.get(terminal, (0, 0)):
            self.servers[index].begin(terminal, lease)
        return status

    def carry_out(self, index: int) -> None:
        """One order; some answers are lost on the way."""
        server = self.servers[index]
        if not server.inbox:
            return
        order = server.inbox.pop(self.random.randrange(len(server.inbox)))
        number = order["order"]
        if number not in server.answers:
            server.answers[number] = layout.ACK_DONE if self.done(server, order) else layout.ACK_REFUSED
        if self.random.random() < 0.9:
            self.send(self.world.acknowledge(number, server.answers[number], index, server.session))

    def done(self, server: AccessServer, order: dict[str, int]) -> bool:
        held = {iccid_number(sim): terminal for terminal, (_, sim) in server.held.items()}
        source, terminal = order["source_iccid"], order["terminal"]
        if order["kind"] in (layout.STOP, layout.REVOKE):
            if source in held:
                server.end(held[source])
            return True
        if order["kind"] != layout.SWITCH or held.get(source) != terminal or self.random.random() < 0.1:
            return False
        target = next(sim for sim in range(SIMS) if iccid_number(sim) == order["target_iccid"])
        server.begin(terminal, (order["epoch"], target))
        self.swaps += 1
        return True

    def renew(self, index: int) -> None:
        for terminal, (epoch, _) in list(self.servers[index].held.items()):
            self.send(self.world.lease(layout.RENEW, terminal, epoch, index))

    def let_go(self, index: int) -> None:
        server = self.servers[index]
        if server.held:
            terminal = self.random.choice(list(server.held))
            epoch = server.end(terminal)
            self.send(self.world.lease(layout.RELEASE, terminal, epoch, index))

    def fail_to_attach(self, index: int) -> None:
        server = self.servers[index]
        if not server.held:
            return
        terminal = self.random.choice(list(server.held))
        epoch = server.end(terminal)
        (outcome,) = self.send(self.world.lease(layout.REPORT_ATTACH_FAILURE, terminal, epoch, index))
        if outcome["status"][0] in GIVEN:
            server.begin(terminal, (int(outcome["epoch"][0]), int(outcome["sim"][0])))

    def report_late(self, index: int) -> None:
        """The last usage of a lease that is over: held back, shed, or sent again since its answer was lost.

        A restored folder may take it for a lease that goes on, or that an outstanding switch began.
        """
        ended = self.servers[index].ended
        if ended:
            self.reported_bytes += 1
            terminal, epoch = self.random.choice(ended[-TERMINALS:])
            self.send(self.world.usage(terminal, epoch, self.reported_bytes, server=index))

    def move(self) -> None:
        job = int(self.send(self.world.job_create(selecting=1))[0]["job"][0])
        terminals = [terminal for server in self.servers.values() for terminal in server.held]
        for terminal in self.random.sample(terminals, min(4, len(terminals))):
            self.send(self.world.job_add(job, terminal))

    def step(self) -> None:
        reached = [index for index, server in self.servers.items() if server.session]
        index = self.random.choice(reached or list(self.servers))
        what = self.random.random()
        if what < 0.35:
            asking = [each for each in self.servers if each != self.gone]
            self.allocate(1 + self.random.randrange(TERMINALS), self.random.choice(asking))
        elif what < 0.6:
            self.carry_out(index)
        elif what < 0.68:
            self.let_go(index)
        elif what < 0.71:
            self.fail_to_attach(index)
        elif what < 0.75:
            self.move()
        elif what < 0.78:
            self.renew(index)
        elif what < 0.8:
            self.report_late(index)
        elif what < 0.84:
            sim = self.random.randrange(SIMS)
            self.send(self.world.set_health(sim, self.random.choice((layout.THROTTLED, layout.HEALTHY))))
        elif what < 0.87:
            sims = [sim for sim in range(SIMS) if self.world.machine.sim(sim)["health"] != layout.HEALTHY]
            for sim in sims:
                self.send(self.world.set_health(sim, layout.HEALTHY))
        else:
            self.pass_time(self.random.choice((1, 1, 2, 5, 12, 60)))
        self.audit()

    def backed_up_and_restored(self, steps: int) -> None:
        backup = copied(self.world)
        for _ in range(steps):
            self.step()
        if self.random.random() < 0.5:
            self.pass_time(self.random.choice((1, 100, 3_000)))
        restore(self.world, backup, self.argument)
        self.read = len(self.world.orders)
        for server in self.servers.values():
            server.session, server.ready, server.again_ms = 0, False, None
            server.inbox.clear()
        self.audit()

    def come_back(self) -> None:
        """In any order and time, while terminals ask and jobs run; one may be dead, and the service starts again."""
        gone = self.gone = self.random.choice((None, *self.servers))
        if gone is not None:
            self.servers[gone].held.clear()
            self.servers[gone].ended.clear()
        away = [index for index in self.servers if index != gone]
        declared = gone is None
        while away or not declared or self.world.machine.header()["unheard_count"]:
            for _ in range(self.random.randrange(12)):
                self.step()
            if self.random.random() < 0.05:
                self.send(commands.run(layout.RESTART))
                for server in self.servers.values():
                    server.session, server.ready = 0, False
                    server.inbox.clear()
                away = [index for index in self.servers if index != gone]
            if not declared and self.random.random() < 0.2:
                assert gone is not None
                dead = commands.run(layout.DECLARE_DEAD, 1, access_server=gone, undo=0)
                declared = self.world.status(dead) == layout.OK
            if declared and gone is not None and self.random.random() < 0.2:
                self.pass_time(FENCING_MS // STEP_MS + 1)
            if away and self.random.random() < 0.3:
                index = away.pop(self.random.randrange(len(away)))
                self.hello(index, ready=self.random.random() < 0.7)
            for index, server in self.servers.items():
                if server.session and not server.ready and self.random.random() < 0.3:
                    self.hello(index)
            self.audit()
        self.gone = None
        if gone is not None:
            self.hello(gone)

    def goes_on(self) -> None:
        """Once it is lifted every terminal gets a SIM, and no swap waits."""
        waiting = set(range(1, TERMINALS + 1))
        for _ in range(400):
            for index, server in self.servers.items():
                if not server.ready:
                    self.hello(index)
                while server.inbox:
                    self.carry_out(index)
                self.renew(index)
            for sim in range(SIMS):
                self.send(self.world.set_health(sim, layout.HEALTHY))
            for terminal in sorted(waiting):
                if self.allocate(terminal, terminal % SERVERS) in GIVEN:
                    waiting.discard(terminal)
            self.pass_time(12)
            self.audit()
            queued = sum(self.world.machine.server(index)["queued_count"] for index in self.servers)
            if not waiting and not queued:
                return
        raise AssertionError(f"terminals {waiting} wait on, and {queued} orders")


def lived(seed: int, argument: int = 1) -> Fleet:
    fleet = Fleet(seed, argument)
    for _ in range(150):
        fleet.step()
    for _ in range(2):
        fleet.backed_up_and_restored(fleet.random.randrange(1, 120))
        fleet.come_back()
        assert fleet.world.machine.check() == []
    fleet.goes_on()
    assert fleet.world.machine.check() == []
    return fleet


def test_i1_no_two_terminals_use_one_sim_while_access_servers_come_back_after_a_restore() -> None:
    answers: Counter[int] = Counter()
    swaps = 0
    for seed in range(12):
        fleet = lived(seed)
        answers += fleet.answers
        swaps += fleet.swaps
    assert answers[layout.HELLOS_AWAITED] > 100
    assert answers[layout.SAME] > 100
    assert swaps > 20


def test_a_restore_that_waits_for_nobody_is_found() -> None:
    with pytest.raises(TwoOnOne):
        lived(0, argument=0)

"""A process with some simulated access servers, each a real client of a running service.

An access server here is an honest queue of operations (queue.py), the terminals that are connected to it, and a session
with the service. Terminals turn on at random instants that depend on the seed only, wait for a SIM, keep it for a while
and turn off. An operation that has finished asks the service for the SIM; a switch then costs the terminal its line for
the time of an attach.

The process is told what to do by lines of JSON on standard input and tells what happens by lines of JSON on standard
output; both are listed here:

    in    {"do": "fill", "first": I, "last": I}   these terminals that are connected from the beginning get a SIM
          {"do": "run"}                     terminals begin to turn on and off
          {"do": "switch_all", "first": I, "last": I}   as in 2020: queue a switch of every terminal on such a SIM
          {"do": "watch"}                   the switch was ordered now: figures are counted from here
          {"do": "finish"}                  say the figures and leave
    out   {"event": "ready"}, {"event": "filled"}, {"event": "reconciled", ...}, {"event": "figures", ...}
          {"event": "progress", ...}        five times a second
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from simswitch.client import AsyncClient, Holdings, Lease, Order, Result, ServiceError, Session
from simswitch.client.session import OrderKind
from simswitch.core.commands import encode_iccid
from simswitch.demo.plan import MARKET, Plan
from simswitch.demo.queue import Operation, OperationQueue
from simswitch.v1 import status_pb2

TICK_S = 0.005
PROGRESS_S = 0.2
LOAD_S = 0.1
FILL_BATCH = 200
ASK_AGAIN_S = 0.1
"""Pause between two attempts while the service is away."""
COMING_KEYS_COUNT = 4_096
"""Terminals that come and go, on each access server; a key is used again when its terminal has long left."""


@dataclass(slots=True)
class Asking:
    """A terminal that waits for a SIM."""

    terminal: int
    counted: bool


@dataclass(slots=True)
class Switching:
    """A switch that waits for its turn: by hand as in 2020, or an order of the engine with its answer."""

    terminal: int
    executed: asyncio.Future[None] | None = None
    """Told when an order of the engine has had its turn; None: switched by hand."""


@dataclass(slots=True)
class Figures:
    """What is counted from the moment when the switch was ordered."""

    allocations_requested: int = 0
    allocations_failed: int = 0
    allocations_unanswered: int = 0
    """Of these, whose turn at the access server had come: the service didn't answer in time."""
    waits_s: list[float] = field(default_factory=list)
    swaps_completed: int = 0
    swaps_failed: int = 0
    swaps_in_flight_max: int = 0
    finished_s: float = 0.0
    outage_s: float = 0.0


class AccessServer:
    """One access server. Instants are those of the process's monotonic clock; durations here are real ones."""

    def __init__(self, name: str, number: int, plan: Plan, address: str) -> None:
        self.name = name
        self._plan = plan
        self._scale = plan.scale
        self._timeout_s = plan.client_timeout_s / plan.scale
        self._queue: OperationQueue[Asking | Switching] = OperationQueue(plan.operations_per_s * plan.scale)
        self.holdings = Holdings()
        self._client = AsyncClient(address, access_server=name, holdings=self.holdings)
        self.session = Session(address, name, self._carry_out, holdings=self.holdings, pause_max_s=1.0)
        self._random = random.Random(f"{plan.seed} {name}")
        self._first_key = (number + 1) << 32
        self._coming_next = 0
        self._next_arrival_s = float("inf")
        self._leaving: list[tuple[float, int, int]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.figures = Figures()
        self.watching = False
        self.in_flight = 0
        self.longest_wait_s: float | None = None
        self._failed_untold = 0
        """Of the waits that were counted since the last progress; None: there was none."""

    # ---------------------------------------------------------------------------------------- what it is told

    async def open(self) -> None:
        self.session.start()
        await self.session.serving(timeout_s=30)

    async def close(self) -> None:
        await self.session.close()
        await self._client.close()

    async def fill(self, first: int, last: int) -> None:
        """Some of the terminals that are connected when the story begins, in batches, past the queue."""
        keys = [self._first_key + offset for offset in range(first, last)]
        for start in range(0, len(keys), FILL_BATCH):
            grants = await self._client.allocate_many(keys[start : start + FILL_BATCH], MARKET)
            if not grants.granted.all():
                raise RuntimeError(f"{self.name}: {(~grants.granted).sum()} terminals got no SIM")

    def begin(self, now_s: float) -> None:
        self._next_arrival_s = now_s

    def switch_all(self, slowed: Callable[[int], bool], now_s: float) -> None:
        """The way of 2020: every switch is queued at once, whatever the queue looks like. A batch job has patience."""
        for lease in self.holdings:
            if slowed(encode_iccid(lease.iccid)):
                self._switch_ordered()
                self._queue.add(Switching(lease.terminal), now_s)

    async def _carry_out(self, order: Order) -> Result:
        """An order of the engine: it waits for its turn like everything else, and is answered when it is done."""
        executed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        operation = self._queue.add(Switching(order.terminal, executed), time.monotonic())
        switch = order.kind is OrderKind.SWITCH and order.target_iccid is not None
        if switch:
            self._switch_ordered()
        try:
            await executed
        except asyncio.CancelledError:
            # The session broke before its turn: it is dropped, and the engine will order it again.
            operation.abandon()
            if switch:
                self.in_flight -= 1
            raise
        if switch and order.target_iccid is not None:
            # From here on the terminal has the other SIM, whatever becomes of the session.
            self.holdings.hold(Lease(order.terminal, order.epoch, order.target_iccid))
            await asyncio.shield(self._spawn(self._attach()))
        return Result.DONE

    # ---------------------------------------------------------------------------------------- what happens by itself

    def tick(self, now_s: float) -> None:
        """Everything that is due by now."""
        while self._next_arrival_s <= now_s:
            self._arrive(self._next_arrival_s)
            self._next_arrival_s += self._random.expovariate(self._plan.arrivals_per_s * self._scale)
        asking = []
        for operation in self._queue.advance(now_s):
            payload = operation.payload
            if isinstance(payload, Asking):
                asking.append(operation)
            elif payload.executed is None:
                self._spawn(self._switch_by_hand(payload))
            elif not payload.executed.done():
                payload.executed.set_result(None)
        if asking:
            self._spawn(self._give(asking))
        for operation in self._queue.give_up(now_s):
            if isinstance(operation.payload, Asking):
                unanswered = operation.finished_s > 0
                self._answered(operation.payload, self._timeout_s, failed=True, unanswered=unanswered)
        leaving = [entry for entry in self._leaving if entry[0] <= now_s]
        if leaving:
            self._leaving = [entry for entry in self._leaving if entry[0] > now_s]
            self._spawn(self._release(leaving))

    def load(self, now_s: float) -> tuple[int, int, int, int, int]:
        """As the session reports it: queue wait and service time in microseconds, what waits, the longest wait, and how
        many were given up since."""
        failed, self._failed_untold = self._failed_untold, 0
        return (
            int(self._queue.take_mean_wait_s(now_s) * 1e6),
            int(self._queue.service_s * 1e6),
            len(self._queue),
            int(self._queue.take_longest_wait_s() * 1e6),
            failed,
        )

    def _arrive(self, now_s: float) -> None:
        terminal = self._first_key + (1 << 20) + self._coming_next % COMING_KEYS_COUNT
        self._coming_next += 1
        if self.watching:
            self.figures.allocations_requested += 1
        self._queue.add(Asking(terminal, self.watching), now_s, self._timeout_s)

    async def _give(self, operations: list[Operation[Asking | Switching]]) -> None:
        """Asks the service for the SIMs of the terminals whose turn it was, until their callers give up."""
        last_s = max(operation.deadline_s for operation in operations)
        terminals = [operation.payload.terminal for operation in operations]
        while True:
            try:
                grants = await self._client.allocate_many(terminals, MARKET)
                break
            except ServiceError:
                # The service is away. Whoever still waits is worth another attempt; who has given up is counted there.
                if time.monotonic() >= last_s:
                    return
                await asyncio.sleep(ASK_AGAIN_S)
        now_s = time.monotonic()
        for operation, granted, epoch in zip(operations, grants.granted.tolist(), grants.epoch.tolist(), strict=True):
            asking = operation.payload
            assert isinstance(asking, Asking)
            if not operation.given_up:
                wait_s = now_s - operation.arrived_s
                late = wait_s > self._timeout_s
                self._answered(asking, min(wait_s, self._timeout_s), failed=late or not granted, unanswered=late)
                # Whoever is answered here is not counted again when the time-out passes.
                operation.answered = True
            if granted:
                stay_s = self._random.expovariate(self._scale / self._plan.stay_s)
                self._leaving.append((now_s + stay_s, asking.terminal, epoch))

    async def _release(self, leaving: list[tuple[float, int, int]]) -> None:
        """Gives SIMs back. While the service is away it is tried again with the next tick."""
        try:
            await self._client.release([terminal for _, terminal, _ in leaving], [epoch for _, _, epoch in leaving])
        except ServiceError:
            again_s = time.monotonic() + ASK_AGAIN_S
            self._leaving += [(again_s, terminal, epoch) for _, terminal, epoch in leaving]

    def _answered(self, asking: Asking, wait_s: float, *, failed: bool, unanswered: bool) -> None:
        self._failed_untold += failed
        if asking.counted:
            self.figures.waits_s.append(wait_s)
            self.longest_wait_s = max(wait_s, self.longest_wait_s or 0.0)
            self.figures.allocations_failed += failed
            self.figures.allocations_unanswered += unanswered

    def take_longest_wait_s(self) -> float | None:
        """The longest of the waits that were counted since this was last asked."""
        longest_s, self.longest_wait_s = self.longest_wait_s, None
        return longest_s

    async def _switch_by_hand(self, switching: Switching) -> None:
        grants = await self._client.allocate_many([switching.terminal], MARKET)
        if grants.granted.all():
            await self._attach()
        else:
            self.figures.swaps_failed += 1
            self.in_flight -= 1

    async def _attach(self) -> None:
        """The terminal is without a line for as long as it takes to attach with another SIM."""
        outage_s = self._random.uniform(self._plan.attach_least_s, self._plan.attach_most_s)
        self.figures.outage_s += outage_s
        await asyncio.sleep(outage_s / self._scale)
        self.in_flight -= 1
        self.figures.swaps_completed += 1
        self.figures.finished_s = time.monotonic()

    def _switch_ordered(self) -> None:
        self.in_flight += 1
        self.figures.swaps_in_flight_max = max(self.figures.swaps_in_flight_max, self.in_flight)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Fleet:
    """The access servers of this process, and the conversation with whoever runs the story."""

    def __init__(self, address: str, names: list[tuple[int, str]], plan: Plan) -> None:
        self._plan = plan
        self._servers = [AccessServer(name, number, plan, address) for number, name in names]
        self._reconciled = dict.fromkeys((name for _, name in names), 0)
        self._ordered_s = 0.0
        self._running = True

    async def run(self) -> None:
        for server in self._servers:
            await server.open()
        say("ready")
        ticking = asyncio.create_task(self._tick())
        async for line in lines_of_standard_input():
            words = json.loads(line)
            if words["do"] == "finish":
                break
            await self._obey(words)
        self._running = False
        await ticking
        # The waits of the last moment belong into the picture as they belong into the figures.
        self._say_progress(time.monotonic())
        say("figures", servers=[self._figures(server) for server in self._servers])
        for server in self._servers:
            await server.close()

    async def _obey(self, words: dict[str, Any]) -> None:
        now_s = time.monotonic()
        if words["do"] == "fill":
            for server in self._servers:
                await server.fill(words["first"], words["last"])
            say("filled")
        elif words["do"] == "run":
            for server in self._servers:
                server.begin(now_s)
        elif words["do"] == "watch":
            self._ordered_s = now_s
            for server in self._servers:
                server.watching = True
        elif words["do"] == "switch_all":
            for server in self._servers:
                server.switch_all(lambda iccid: words["first"] <= iccid <= words["last"], now_s)

    async def _tick(self) -> None:
        """Looks at every access server again and again. Being late costs nothing: the queues keep their own time."""
        next_progress_s = next_load_s = 0.0
        while self._running:
            now_s = time.monotonic()
            for server in self._servers:
                server.tick(now_s)
            if now_s >= next_progress_s:
                next_progress_s = now_s + PROGRESS_S
                self._say_progress(now_s)
            if now_s >= next_load_s:
                next_load_s = now_s + LOAD_S
                for server in self._servers:
                    server.session.report_load(*server.load(now_s))
                    self._say_reconciled(server)
            await asyncio.sleep(TICK_S)

    def _say_progress(self, now_s: float) -> None:
        figures = [server.figures for server in self._servers]
        waits_s = [wait_s for server in self._servers if (wait_s := server.take_longest_wait_s()) is not None]
        say(
            "progress",
            t=(now_s - self._ordered_s) if self._ordered_s else None,
            requested=sum(entry.allocations_requested for entry in figures),
            failed=sum(entry.allocations_failed for entry in figures),
            wait_s=max(waits_s, default=None),
            in_flight=sum(server.in_flight for server in self._servers),
            completed=sum(entry.swaps_completed for entry in figures),
            held=sum(len(server.holdings) for server in self._servers),
        )

    def _say_reconciled(self, server: AccessServer) -> None:
        """Tells once for each session what the service made of what this access server holds."""
        found = server.session.reconciliation
        if found is not None and self._reconciled[server.name] != found.session:
            self._reconciled[server.name] = found.session
            words = {status_pb2.Status.Name(s).removeprefix("STATUS_"): n for s, n in found.differences.items()}  # type: ignore[arg-type]
            say("reconciled", access_server=server.name, differences=words)

    def _figures(self, server: AccessServer) -> dict[str, Any]:
        figures = dataclasses.asdict(server.figures)
        figures["finished_s"] = figures["finished_s"] - self._ordered_s if figures["swaps_completed"] else None
        return {"access_server": server.name, "in_flight": server.in_flight, **figures}


def say(event: str, **words: Any) -> None:
    """One line on standard output."""
    sys.stdout.write(json.dumps({"event": event, **words}) + "\n")
    sys.stdout.flush()


async def lines_of_standard_input() -> AsyncIterator[bytes]:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line


def main() -> None:
    """``python -m simswitch.demo.fleet ADDRESS NUMBER=NAME,… PLAN``: the plan is JSON."""
    address, names, plan = sys.argv[1:]
    numbered = [(int(number), name) for number, name in (word.split("=") for word in names.split(","))]

    async def run() -> None:
        await Fleet(address, numbered, Plan(**json.loads(plan))).run()

    asyncio.run(run())


if __name__ == "__main__":
    main()

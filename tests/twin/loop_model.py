"""The twin's world once more, naively: one event at a time, dicts and lists, no columns. And an engine that grants
all."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from typing import Any

import numpy as np
from simswitch.core import commands, layout
from simswitch.twin.loop import Loop
from simswitch.twin.population import DRAWS_COUNT, SECOND_NS, Plan
from simswitch.twin.replay import ICCID_FIRST, KEY_FIRST

QUANTUM_NS = 10_000_000


def plan(
    *,
    on_ns: Any,
    off_ns: Any,
    terminal: Any,
    server: Any,
    service_ns: list[int],
    end_ns: int,
    timeout_s: float = 5.0,
    pause_s: float = 3.0,
    outage_s: float = 2.0,
    spread_s: float = 0.0,
    refused_share: float = 0.0,
    quantum_ns: int = QUANTUM_NS,
    rate: int = 1000,
    report_s: float = 60.0,
) -> Plan:
    """A plan from columns: the sessions, each terminal's access server, each server's service time."""
    order = np.argsort(np.asarray(on_ns), kind="stable")
    servers = len(service_ns)
    count = len(server)
    return Plan(
        quantum_ns=quantum_ns,
        end_ns=end_ns,
        load_interval_ns=SECOND_NS,
        sims_count=4 * count,
        terminal_server=np.asarray(server, np.uint32),
        terminal_market=np.zeros(count, np.uint32),
        terminal_bytes_per_s=np.full(count, rate, np.int64),
        terminal_report_ns=np.full(count, round(report_s * SECOND_NS), np.int64),
        session_on_ns=np.asarray(on_ns, np.int64)[order],
        session_off_ns=np.asarray(off_ns, np.int64)[order],
        session_terminal=np.asarray(terminal, np.uint32)[order],
        on_at_start=np.zeros(0, np.uint32),
        on_at_start_off_ns=np.zeros(0, np.int64),
        service_ns=service_ns,
        timeout_ns=[round(timeout_s * SECOND_NS)] * servers,
        pause_ns=[round(pause_s * SECOND_NS)] * servers,
        outage_ns=[round(outage_s * SECOND_NS)] * servers,
        outage_spread_ns=[round(spread_s * SECOND_NS)] * servers,
        refused_below=[round(refused_share * 2**32)] * servers,
        busy_above=[-1] * servers,
        asks_first=[False] * servers,
        draws=np.random.default_rng(5).integers(0, 2**32, DRAWS_COUNT, dtype=np.uint32),
        first_sim={},
        slowed=[],
    )


class Granter:
    """An engine that gives every terminal what it asks for, and keeps count of what it was told."""

    def __init__(self) -> None:
        self.epochs: dict[int, int] = {}
        self.used: dict[tuple[int, int], int] = {}
        self.told: dict[int, int] = {}
        self.next_epoch = 1
        self.refuse = False

    def apply(self, batch: bytes) -> bytes:
        out = []
        offset = 0
        while offset < len(batch):
            header = np.frombuffer(batch, commands.RUN_HEADER, 1, offset)[0]
            kind, count = int(header["kind"]), int(header["count"])
            columns: dict[str, Any] = {}
            place = offset + commands.RUN_HEADER.itemsize
            for name, code in commands.COMMAND_COLUMNS[kind]:
                columns[name] = np.frombuffer(batch, np.dtype(code), count, place)
                place += np.dtype(code).itemsize * count
            assert -(-(place - offset) // 8) * 8 == header["size"]
            self.told[kind] = self.told.get(kind, 0) + count
            out.append(self._answer(kind, count, columns))
            offset += int(header["size"])
        assert offset == len(batch)
        out.append(self._run(commands.ORDERS, 0, {}))
        out.append(self._run(commands.EVENTS, 0, {}))
        return b"".join(out)

    def _run(self, kind: int, count: int, values: dict[str, Any]) -> bytes:
        body = b"".join(
            np.broadcast_to(np.asarray(values.get(name, 0), code), (count,)).tobytes()
            for name, code in commands.OUTCOME_COLUMNS[kind]
        )
        size = -(-(commands.OUTCOME_HEADER.itemsize + len(body)) // 8) * 8
        header = np.array([(size, kind, 0, count, 0)], commands.OUTCOME_HEADER).tobytes()
        return (header + body).ljust(size, b"\0")

    def _answer(self, kind: int, count: int, columns: dict[str, Any]) -> bytes:
        if kind == layout.ALLOCATE:
            if self.refuse:
                return self._run(kind, count, {"status": layout.NO_HEALTHY_SIM})
            epochs, status = [], []
            for key in columns["terminal"].tolist():
                status.append(layout.MOVED if key in self.epochs else layout.OK)
                self.epochs[key] = self.next_epoch
                epochs.append(self.next_epoch)
                self.next_epoch += 1
            return self._run(kind, count, {"epoch": epochs, "status": status})
        if kind in (layout.RELEASE, layout.REPORT_USAGE):
            for index, (key, epoch) in enumerate(
                zip(columns["terminal"].tolist(), columns["epoch"].tolist(), strict=True)
            ):
                assert self.epochs[key] == epoch
                if kind == layout.RELEASE:
                    del self.epochs[key]
                else:
                    used = int(columns["up_bytes"][index] + columns["down_bytes"][index])
                    assert used > self.used.get((key, epoch), 0)
                    self.used[key, epoch] = used
        return self._run(kind, count, {"status": layout.OK})


def begin(of: Plan) -> Loop:
    servers = len(of.service_ns)
    return Loop(of, numbers=list(range(servers)), sessions=[1] * servers, key_first=KEY_FIRST, iccid_first=ICCID_FIRST)


def drive(loop: Loop, engine: Granter, until_ns: int) -> None:
    while loop.now_ns < until_ns:
        batch = loop.gather(until_ns)
        if batch:
            loop.settle(engine.apply(batch))


class Naive:
    """One terminal, one server, one event at a time."""

    def __init__(self, of: Plan) -> None:
        self.plan = of
        self.heap: list[tuple[int, int, str, int, int]] = []
        self.order = itertools.count()
        self.state = ["off"] * len(of.terminal_server)
        self.mark = [0] * len(of.terminal_server)
        self.off = [0] * len(of.terminal_server)
        self.since = [0] * len(of.terminal_server)
        self.began = [0] * len(of.terminal_server)
        self.queues: list[deque[tuple[str, int, int]]] = [deque() for _ in of.service_ns]
        self.serving: list[tuple[str, int, int] | None] = [None] * len(of.service_ns)
        self.flight = [0] * len(of.service_ns)
        self.flight_max = [0] * len(of.service_ns)
        self.waits: list[int] = []
        self.counts = dict.fromkeys(("requested", "granted", "failed", "withdrawn", "completed", "void"), 0)
        self.outage_ns = 0
        for session, on in enumerate(of.session_on_ns.tolist()):
            self.at(on, "on", session)

    def at(self, instant: int, what: str, subject: int, mark: int = 0) -> None:
        heapq.heappush(self.heap, (instant, next(self.order), what, subject, mark))

    def serve(self, server: int, now: int) -> None:
        self.serving[server] = None
        while self.queues[server]:
            operation = self.queues[server].popleft()
            kind, terminal, mark = operation
            if self.mark[terminal] != mark:
                self.give_up(kind, server)
                continue
            self.serving[server] = operation
            self.at(now + self.plan.service_ns[server], "served", server)
            return

    def give_up(self, kind: str, server: int) -> None:
        if kind == "switch":
            self.counts["void"] += 1
            self.flight[server] -= 1

    def push(self, kind: str, terminal: int, now: int) -> None:
        server = int(self.plan.terminal_server[terminal])
        self.queues[server].append((kind, terminal, self.mark[terminal]))
        if self.serving[server] is None:
            self.serve(server, now)

    def request(self, terminal: int, now: int) -> None:
        self.counts["requested"] += 1
        self.state[terminal] = "requesting"
        self.mark[terminal] += 1
        self.began[terminal] = now
        self.at(now + self.plan.timeout_ns[0], "patience", terminal, self.mark[terminal])
        self.push("allocate", terminal, now)

    def switch(self, terminals: list[int], now: int) -> None:
        for terminal in terminals:
            server = int(self.plan.terminal_server[terminal])
            self.flight[server] += 1
            self.flight_max[server] = max(self.flight_max[server], self.flight[server])
            self.push("switch", terminal, now)

    def run(self, until: int) -> None:
        while self.heap and self.heap[0][0] < until:
            now, _, what, subject, mark = heapq.heappop(self.heap)
            getattr(self, what)(now, subject, mark)

    def on(self, now: int, session: int, _: int) -> None:
        terminal = int(self.plan.session_terminal[session])
        self.off[terminal] = int(self.plan.session_off_ns[session])
        self.since[terminal] = now
        self.request(terminal, now)
        self.at(self.off[terminal], "leave", terminal, self.off[terminal])

    def leave(self, now: int, terminal: int, off: int) -> None:
        if off != self.off[terminal] or self.state[terminal] in ("off", "switching"):
            return
        if self.state[terminal] != "on":
            self.counts["withdrawn"] += self.state[terminal] == "requesting"
            self.outage_ns += now - self.since[terminal]
        self.state[terminal] = "off"
        self.mark[terminal] += 1

    def patience(self, now: int, terminal: int, mark: int) -> None:
        if mark == self.mark[terminal] and self.state[terminal] == "requesting":
            self.counts["failed"] += 1
            self.waits.append(self.plan.timeout_ns[0])
            self.state[terminal] = "paused"
            self.mark[terminal] += 1
            self.at(now + self.plan.pause_ns[0], "again", terminal, self.mark[terminal])

    def again(self, now: int, terminal: int, mark: int) -> None:
        if mark == self.mark[terminal] and self.state[terminal] == "paused":
            self.request(terminal, now)

    def served(self, now: int, server: int, _: int) -> None:
        operation = self.serving[server]
        assert operation is not None
        kind, terminal, mark = operation
        if self.mark[terminal] != mark:
            self.give_up(kind, server)
        elif kind == "allocate":
            self.state[terminal] = "on"
            self.counts["granted"] += 1
            self.waits.append(now - self.began[terminal])
            self.outage_ns += now - self.since[terminal]
        else:
            self.state[terminal] = "switching"
            self.mark[terminal] += 1
            self.at(now + self.plan.outage_ns[0], "back", terminal)
        self.serve(server, now)

    def back(self, now: int, terminal: int, _: int) -> None:
        server = int(self.plan.terminal_server[terminal])
        self.counts["completed"] += 1
        self.flight[server] -= 1
        self.outage_ns += self.plan.outage_ns[0]
        self.state[terminal] = "on"
        if self.off[terminal] <= now:
            self.leave(now, terminal, self.off[terminal])

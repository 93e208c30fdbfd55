"""A load from beginning to end: looks whether the service can bear it, starts the workers, counts, and gives all back.

    look ─▶ sessions ─▶ first leases ─▶ warm-up ─▶ measured ─▶ last answers ─▶ leases given back ─▶ figures

An interrupt at any point goes straight to the last answers; a second one leaves everything as it is.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

import numpy as np

from simswitch.client import OperatorClient
from simswitch.client.credentials import PLAIN, Credentials
from simswitch.client.operator import service_errors
from simswitch.load.figures import Figures
from simswitch.load.plan import SECOND_NS, Plan
from simswitch.load.records import GRANTED_MAX, RECORD
from simswitch.v1 import inventory_pb2, pool_pb2, status_pb2

CALL_TIMEOUT_S = 10.0
OPEN_TIMEOUT_S = 60.0
FILL_TIMEOUT_S = 600.0
LAST_ANSWERS_S = 60.0
LEAD_NS = 200_000_000
"""From the word to run until the first instant, so that all workers have heard it."""
SERVER_NAME = "load-{}"
PAGE_SIZE = 1_000
SHOW_S = 0.5
SPARE = 1.1
"""SIMs that must be there, as a multiple of what the load needs in the mean."""

OnProgress = Callable[[str, float, float, str], object]
"""Told of a phase, how far it is, its length and a few words."""


class LoadRefused(Exception):
    """The load was not begun: the service lacks what it needs, or would suffer. The text says what to do."""


class LoadFailed(Exception):
    """The load ended by a failure; ``document`` holds the figures until then, if there are any."""

    def __init__(self, text: str, document: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.document = document


class _Process:
    """One worker; what it says comes into the queue that all share."""

    def __init__(self, number: int, figures: dict[str, Any], events: queue.Queue[tuple[int, dict[str, Any]]]) -> None:
        self.number = number
        self.data: dict[str, Any] = {}
        self._events = events
        environment = {"GRPC_VERBOSITY": "NONE", **os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "simswitch.load.worker", json.dumps(figures)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._commands: IO[bytes] = self._process.stdin
        self._lines: IO[bytes] = self._process.stdout
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._lines:
            event = json.loads(line)
            if event["event"] == "records":
                event["records"] = np.frombuffer(self._lines.read(event["bytes"]), RECORD)
            self._events.put((self.number, event))
        self._events.put((self.number, {"event": "ended", "code": self._process.wait()}))

    def tell(self, do: str, **words: object) -> None:
        try:
            self._commands.write(json.dumps({"do": do, **words}).encode() + b"\n")
            self._commands.flush()
        except BrokenPipeError:
            # It has ended; its reader says so.
            return

    def end(self, *, kill: bool) -> None:
        with suppress(BrokenPipeError):
            self._commands.close()
        if kill:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        self._lines.close()


class Load:
    """One run. ``run`` gives the figures as a document; ``KeyboardInterrupt`` inside it ends the load in order."""

    def __init__(
        self,
        address: str,
        plan: Plan,
        *,
        processes: int,
        market: str | None = None,
        actor: str | None = None,
        credentials: Credentials = PLAIN,
        leave: bool = False,
    ) -> None:
        if not 1 <= processes <= plan.access_servers <= plan.terminals:
            raise LoadRefused(
                f"{processes} processes, {plan.access_servers} access servers, {plan.terminals} terminals: each "
                "process speaks for one access server at least, and each access server for one terminal"
            )
        self._address = address
        self._plan = plan
        self._processes_count = processes
        self._market = market
        self._actor = actor
        self._credentials = credentials
        self._leave = leave
        self.on_progress: OnProgress = lambda *_: None
        self._events: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue()
        self._workers: list[_Process] = []
        self._figures = Figures(plan)
        self._failure: str | None = None
        self._interrupted = False
        self._start_ns = 0
        """When the load began, of ``time.monotonic_ns()``; 0: it has not yet."""
        self._ended: set[int] = set()
        self._filled: Counter[int] = Counter()

    # ------------------------------------------------------------------------------------- before

    def look(self) -> str:
        """The market that is used. Raises ``LoadRefused`` when the service can't bear the load, or should not."""
        plan = self._plan
        with (
            OperatorClient(self._address, actor=self._actor, credentials=self._credentials) as client,
            service_errors(),
        ):
            summary = client.pool.GetSummary(pool_pb2.GetSummaryRequest(), timeout=CALL_TIMEOUT_S)
            answer = client.pool.GetSettings(pool_pb2.GetSettingsRequest(), timeout=CALL_TIMEOUT_S)
            statuses: dict[str, Any] = {}
            token = ""
            while True:
                request = pool_pb2.ListAccessServerStatusesRequest(page_size=PAGE_SIZE, page_token=token)
                page = client.pool.ListAccessServerStatuses(request, timeout=CALL_TIMEOUT_S)
                statuses.update((status.name, status) for status in page.statuses)
                token = page.next_page_token
                if not token:
                    break
            settings = {entry.setting: entry.value for entry in answer.settings}
            markets = {entry.name: entry for entry in summary.markets}
            market = self._market
            if market is None and len(markets) == 1:
                market = next(iter(markets))
            names = ", ".join(sorted(markets)) or "none: import an inventory first"
            if market is None:
                raise LoadRefused(f"which market? The service has {names}; say it with --market")
            if market not in markets:
                raise LoadRefused(f"the service has no market {market!r}; it has {names}")
            can = markets[market].selectable_count
            if not can:
                raise LoadRefused(
                    f"the market {market!r} has no free healthy SIM: {markets[market].sims_count:,} serve it, and all "
                    "are held, resting or not healthy (see `simswitch status`)"
                )
            lease_s = settings[pool_pb2.SETTING_LEASE_MS] / 1_000
            resting = plan.attach_rate * settings[pool_pb2.SETTING_COOLING_MS] / 1_000
            holding = plan.terminals * plan.connected_share
            if can < (need := SPARE * (holding + resting)):
                raise LoadRefused(
                    f"the load would need {need:,.0f} SIMs of the market {market!r} ({holding:,.0f} held at a time, "
                    f"{resting:,.0f} resting after a release, and a tenth to spare), and {can:,} can be handed out: "
                    "use fewer terminals, a lower rate or a longer stay, so that others are not left without"
                )
            if plan.silence_s >= lease_s:
                raise LoadRefused(
                    f"at {plan.rate:g} operations a second a terminal is silent for {plan.silence_s:,.0f} s, and a "
                    f"lease lasts {lease_s:,.0f} s: use a higher rate, fewer terminals or shorter intervals"
                )
            for number in range(plan.access_servers):
                name = SERVER_NAME.format(number + 1)
                if name in statuses and statuses[name].session:
                    raise LoadRefused(
                        f"the access server {name} has a session: is another load running? Let it end first"
                    )
                if name not in statuses:
                    entity = inventory_pb2.AccessServer(name=name)
                    definition = inventory_pb2.DefineAccessServerRequest(access_server=entity)
                    client.inventory.DefineAccessServer(definition, timeout=CALL_TIMEOUT_S)
        return market

    # ------------------------------------------------------------------------------------- the run

    def run(self) -> dict[str, Any]:
        """The figures, also when it was interrupted. Raises ``LoadRefused``, ``LoadFailed`` or ``ServiceError``."""
        market = self.look()
        finished: dict[int, dict[str, Any]] = {}
        done: dict[int, dict[str, Any]] = {}
        kill = True
        try:
            try:
                self._start(market)
                self._collect("ready", "opening the sessions", OPEN_TIMEOUT_S)
                self._all("fill")
                for event in self._collect("filled", "handing out the first SIMs", FILL_TIMEOUT_S).values():
                    self._filled.update({int(status): count for status, count in event["statuses"].items()})
                self._check_filled()
                self._start_ns = time.monotonic_ns() + LEAD_NS
                self._all("run", start_ns=self._start_ns)
                done = self._collect("done", "load", self._plan.span_ns / SECOND_NS + LAST_ANSWERS_S)
            except KeyboardInterrupt:
                self._interrupted = True
            except LoadFailed as failure:
                self._fail(str(failure))
            self._cut()
            if self._start_ns and len(done) < len(self._workers):
                self._all("stop")
                done |= self._collect("done", "waiting for the last answers", LAST_ANSWERS_S, known=done)
            self._all("finish", leave=self._leave)
            finished = self._collect("finished", "giving the SIMs back", LAST_ANSWERS_S)
            kill = False
        except KeyboardInterrupt:
            self._interrupted = True
        except LoadFailed as failure:
            self._fail(str(failure))
        finally:
            for worker in self._workers:
                worker.end(kill=kill)
        document = self._document(market, done, finished)
        if self._failure is not None:
            raise LoadFailed(self._failure, document)
        return document

    def _fail(self, text: str) -> None:
        """Only the first failure is told; the others follow from it."""
        self._failure = self._failure or text

    def _cut(self) -> None:
        """What is due from now on is not measured."""
        self._figures.cut((time.monotonic_ns() - self._start_ns) // 1_000 if self._start_ns else 0)

    def _start(self, market: str) -> None:
        plan = dataclasses.asdict(self._plan)
        for number in range(self._processes_count):
            mine = range(number, self._plan.access_servers, self._processes_count)
            servers = {server: SERVER_NAME.format(server + 1) for server in mine}
            figures = {"address": self._address, "servers": servers, "market": market, "plan": plan}
            figures["credentials"] = self._credentials.paths()
            self._workers.append(_Process(number, figures, self._events))

    def _all(self, do: str, **words: object) -> None:
        for worker in self._workers:
            worker.tell(do, **words)

    def _collect(
        self, wanted: str, phase: str, within_s: float, known: dict[int, dict[str, Any]] | None = None
    ) -> dict[int, dict[str, Any]]:
        """Waits until every worker that has not ended has said ``wanted``; counts the records that come meanwhile."""
        found = dict(known or {})
        until_s = time.monotonic() + within_s
        shown_s = 0.0
        while not self._ended.union(found).issuperset(range(len(self._workers))):
            now_s = time.monotonic()
            if now_s - shown_s >= SHOW_S:
                self._show(phase, wanted, len(found), now_s - shown_s)
                shown_s = now_s
            try:
                number, event = self._events.get(timeout=SHOW_S / 2)
            except queue.Empty:
                if time.monotonic() > until_s:
                    raise LoadFailed(f"{phase}: no answer within {within_s:.0f} s") from None
                continue
            kind = event["event"]
            if kind == "records":
                self._figures.add(event["records"], {value: word for word, value in event["words"].items()})
            elif kind == "failed":
                if wanted in ("ready", "filled"):
                    raise LoadFailed(event["text"])
                self._fail(event["text"])
                self._cut()
                self._all("stop")
            elif kind == "ended":
                self._ended.add(number)
                if wanted == "finished" and number in found:
                    # It has said all that it had to say; others may take longer.
                    continue
                how = f"exit code {event['code']}" if event["code"] >= 0 else f"signal {-event['code']}"
                self._fail(f"worker {number} has ended ({how}); its last words, if any, are above")
            elif kind == wanted:
                found[number] = event
        return found

    def _show(self, phase: str, wanted: str, count: int, since_s: float) -> None:
        if wanted != "done":
            self.on_progress(phase, count, len(self._workers), "")
            return
        answered, p99_ms = self._figures.take_recent()
        refused = self._figures.refused.total()
        elapsed_s = max(0.0, (time.monotonic_ns() - self._start_ns) / SECOND_NS)
        words = f"{answered / since_s:,.0f}/s of {self._plan.rate:,.0f}/s, p99 {p99_ms:,.1f} ms"
        if refused:
            words += f", {refused:,} not carried out"
        span_s = self._plan.span_ns / SECOND_NS
        phase = "warming up" if elapsed_s < self._plan.warm_up_s else phase
        self.on_progress(phase, min(elapsed_s, span_s), span_s, words)

    def _check_filled(self) -> None:
        granted = sum(count for status, count in self._filled.items() if status <= GRANTED_MAX)
        if self._filled and not granted:
            words = ", ".join(f"{_word(status)} {count:,}" for status, count in self._filled.most_common())
            raise LoadFailed(f"no terminal got a SIM: {words}")

    def _document(
        self, market: str, done: dict[int, dict[str, Any]], finished: dict[int, dict[str, Any]]
    ) -> dict[str, Any]:
        plan = self._plan
        ended = [done[number] for number in sorted(done) if done[number]]
        figures = self._figures.document(
            [event["busy_share"] for event in ended], [event["cpu_share"] for event in ended]
        )
        hashes = dict(sorted(item for event in ended for item in event["hashes"].items()))
        given_back = [event for event in finished.values() if event]
        complete = len(given_back) == len(self._workers)
        return {
            "plan": {
                **dataclasses.asdict(plan),
                "processes": self._processes_count,
                "market": market,
                "scale": plan.scale,
                "hashes": {name: f"{value:016x}" for name, value in hashes.items()},
            },
            "interrupted": self._interrupted,
            "failure": self._failure,
            **figures,
            "leases": {
                "first": {_word(status): count for status, count in sorted(self._filled.items())},
                "held_at_end": sum(event["held"] for event in given_back) if complete else None,
                "given_back": sum(event["released"] for event in given_back),
                "left": sum(event["left"] for event in given_back) if complete else None,
            },
        }


def _word(status: int) -> str:
    return status_pb2.Status.Name(status).removeprefix("STATUS_")  # type: ignore[arg-type]

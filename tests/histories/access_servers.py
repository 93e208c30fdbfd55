"""Access servers as the histories need them: each has a session, some callers, and terminals that come and go.

Like a real one, an access server does one thing at a time with a terminal: calls and orders take turns by the
terminal's lock. Others ask for the same terminals meanwhile. What a terminal really has stands in ``Books``: a SIM is
let go of *before* its release, its failed attach or another allocation is told, and held from the answer on.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

from simswitch.client import Client, Holdings, Lease, Order, Result, ServiceError, Session, SessionState
from simswitch.client.session import OrderKind
from simswitch.core import layout
from simswitch.core.commands import decode_iccid

from tests.histories.checker import (
    ALLOCATE,
    DEATH,
    DONE,
    ENDED,
    FAILED_ATTACH,
    GRANTED,
    HELLO,
    LATE,
    NAMED,
    NONE,
    REFUSED,
    RELEASE,
    RENEW,
    REPORT,
    STALE,
    SWITCH,
    UNANSWERED,
    Call,
    History,
    Holding,
)

MARKET = "jp"
CALLERS = 2
STRANGERS = 0.2
"""How often a terminal is asked for that mostly stays elsewhere."""
OLD_EPOCH = 0.2
REFUSES = 0.1
BATCHES = (1, 1, 1, 1, 1, 2, 3)
"""Of how many terminals a call is; of several it allocates all."""
_ANSWERS = {
    layout.OK: DONE,
    layout.SAME: GRANTED,
    layout.MOVED: GRANTED,
    layout.LATE: LATE,
    layout.ENDED: ENDED,
    layout.STALE_EPOCH: STALE,
    layout.NO_LEASE: NONE,
    layout.UNKNOWN_TERMINAL: NONE,
    layout.NO_HEALTHY_SIM: REFUSED,
    layout.ORDERS_FULL: REFUSED,
    layout.IMPOSSIBLE_USAGE: REFUSED,
}


class Books(Holdings):
    """What the terminals have. Only who has a terminal's lock changes it; the session only reads."""

    def __init__(self, server: str, terminals: range) -> None:
        super().__init__()
        self.locks = {terminal: threading.RLock() for terminal in terminals}
        self.past: list[Holding] = []
        self.events: list[Call] = []
        """What nobody answers: hellos, switches that were carried out, its own death."""
        self.opened_s = 0.0
        """When the session that says hello was opened."""
        self.taken_s: dict[float, float] = {}
        """When what it named was seen to be taken, by the instant at which it was opened."""
        self._server = server
        self._since_s: dict[int, float] = {}

    def hold(self, lease: Lease) -> None:
        """The session's word changes nothing: the order's handler has done it."""

    def drop(self, terminal: int, iccid: str | None = None) -> bool:
        del terminal, iccid
        return False

    def attach(self, lease: Lease, since_s: float) -> None:
        """An older lease than the one that stands changes nothing."""
        standing = self._leases.get(lease.terminal)
        if standing is not None and standing.epoch > lease.epoch:
            return
        if standing is not None and standing.iccid != lease.iccid:
            self.detach(lease.terminal, since_s)
        self._leases[lease.terminal] = lease
        self._since_s.setdefault(lease.terminal, since_s)

    def detach(self, terminal: int, at_s: float) -> Lease | None:
        lease = self._leases.pop(terminal, None)
        if lease is not None:
            begun_s = self._since_s.pop(terminal)
            self.past.append(Holding(lease.iccid, terminal, self._server, begun_s, at_s))
        return lease

    def __iter__(self) -> Iterator[Lease]:
        """What a hello names. A call that is under way is waited for, so that its answer is in the books."""
        begun_s, named = time.monotonic(), []
        for terminal, lock in self.locks.items():
            with lock:
                lease = self._leases.get(terminal)
                sim = lease.iccid if lease is not None else ""
                epoch = lease.epoch if lease is not None else 0
                told = Call(HELLO, terminal, self._server, begun_s, math.inf, UNANSWERED, epoch, sim=sim)
                self.events.append(replace(told, opened_s=self.opened_s))
                if lease is not None:
                    self.events.append(replace(told, kind=NAMED, opened_s=self.opened_s))
                named += [lease] if lease is not None else []
        return iter(named)


class EventLoop:
    """Where all sessions live. Orders are carried out in it, one after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, function: Callable[[], Awaitable[None]]) -> None:
        async def call() -> None:
            await function()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(60)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class AccessServer:
    """One of them. It can be switched off, with all that it holds, and on again."""

    def __init__(
        self, name: str, address: str, terminals: range, own: range, seed: int, said: list[int], loop: EventLoop
    ) -> None:
        """``own``: those terminals that mostly stay here. ``said``: each call that was answered is added there."""
        self.name = name
        self.books = Books(name, terminals)
        self.over = threading.Event()
        self._off = threading.Event()
        self._address = address
        self._terminals, self._own = terminals, own
        self._chance = random.Random(f"{seed} {name}")
        self._said = said
        self._calls: list[Call] = []
        self._epochs: dict[int, list[int]] = defaultdict(list)
        """Every epoch that it was told, by terminal."""
        self._sent_bytes: dict[int, int] = defaultdict(int)
        self._loop = loop
        self._session: Session | None = None
        self._callers = [
            threading.Thread(target=self._call_on, args=(random.Random(f"{seed} {name} {number}"),), daemon=True)
            for number in range(CALLERS)
        ]
        self.errors: list[BaseException] = []

    def start(self) -> None:
        self._open()
        for caller in self._callers:
            caller.start()

    def _open(self) -> None:
        async def open_session() -> None:
            self._session = Session(
                self._address,
                self.name,
                self._carry_out,
                holdings=self.books,
                on_state=self._note_state,
                pause_first_s=0.05,
                pause_max_s=0.2,
            )
            self._session.start()

        self._loop.do(open_session)

    def _close(self) -> None:
        assert self._session is not None
        self._loop.do(self._session.close)

    def _note_state(self, state: SessionState) -> None:
        if state is SessionState.RECONCILING:
            self.books.opened_s = time.monotonic()
        elif state is SessionState.SERVING:
            self.books.taken_s[self.books.opened_s] = time.monotonic()

    def switch_off(self) -> float:
        """Its terminals are off the air from the instant that is returned on."""
        self._off.set()
        for terminal, lock in self.books.locks.items():
            with lock:
                self.books.detach(terminal, time.monotonic())
        off_s = time.monotonic()
        self._close()
        return off_s

    def switch_on(self) -> None:
        self._open()
        self._off.clear()

    def died(self, off_s: float, declared_s: float) -> None:
        """An operator has declared it dead."""
        for terminal in self._terminals:
            told = Call(DEATH, terminal, self.name, declared_s, math.inf, UNANSWERED, opened_s=off_s)
            self.books.events.append(told)

    def end(self) -> History:
        self.over.set()
        for caller in self._callers:
            caller.join()
        self._close()
        if self.errors:
            raise self.errors[0]
        end_s = time.monotonic()
        for terminal in self._terminals:
            self.books.detach(terminal, end_s)
        return History(self._calls + self._windows(end_s), holdings=self.books.past)

    def _windows(self, end_s: float) -> list[Call]:
        """What a hello names takes effect until it was taken, what it does not name until the next one begins; what
        came of a switch that was carried out is settled at the hello after the next at the latest."""
        hellos = sorted({call.begun_s for call in self.books.events if call.kind == HELLO})
        found = []
        for call in self.books.events:
            later = [begun_s for begun_s in hellos if begun_s > call.begun_s]
            needed = 1 if call.kind in (HELLO, NAMED) else 2
            until_s = later[needed - 1] if len(later) >= needed else end_s
            if call.kind == NAMED:
                until_s = min(until_s, self.books.taken_s.get(call.opened_s, until_s))
            found.append(replace(call, answered_s=until_s))
        return found

    # ------------------------------------------------------------------------------------------ orders

    async def _carry_out(self, order: Order) -> Result:
        with self.books.locks[order.terminal]:
            if self._off.is_set():
                return Result.REFUSED
            now_s = time.monotonic()
            lease = self.books.get(order.terminal)
            if order.kind is not OrderKind.SWITCH or order.target_iccid is None:
                if lease is not None and lease.iccid == order.source_iccid:
                    self.books.detach(order.terminal, now_s)
                return Result.DONE
            if lease is not None and (lease.epoch, lease.iccid) == (order.epoch, order.target_iccid):
                return Result.DONE
            if lease is None or lease.iccid != order.source_iccid or self._chance.random() < REFUSES:
                return Result.REFUSED
            self.books.attach(Lease(order.terminal, order.epoch, order.target_iccid), now_s)
            self._epochs[order.terminal].append(order.epoch)
            told = Call(SWITCH, order.terminal, self.name, now_s, math.inf, UNANSWERED, granted=order.epoch)
            self.books.events.append(replace(told, sim=order.target_iccid, source=order.source_iccid))
            return Result.DONE

    # ------------------------------------------------------------------------------------------ calls

    def _call_on(self, chance: random.Random) -> None:
        try:
            with Client(self._address, access_server=self.name, timeout_s=60) as client:
                while not self.over.is_set():
                    count = chance.choice(BATCHES)
                    chosen = chance.sample(self._terminals if chance.random() < STRANGERS else self._own, count)
                    with ExitStack() as locks:
                        # In one order, whoever takes them.
                        for terminal in sorted(chosen):
                            locks.enter_context(self.books.locks[terminal])
                        calls = [] if self._off.is_set() else self._call(client, chosen, chance)
                    if not calls or calls[0].answer == UNANSWERED:
                        # The connection is made anew at its own pace; there is nothing to be learned meanwhile.
                        self.over.wait(0.1)
                    else:
                        self._said += [1] * len(calls)
        except BaseException as error:
            self.errors.append(error)
            raise

    def _call(self, client: Client, chosen: list[int], chance: random.Random) -> list[Call]:
        """One call; several terminals can be allocated in one, and each of them is explained by itself."""
        if len(chosen) > 1:
            lefts = [self.books.detach(terminal, time.monotonic()) for terminal in chosen]
            begun_s = time.monotonic()
            many = [Call(ALLOCATE, terminal, self.name, begun_s, 0, UNANSWERED, many=True) for terminal in chosen]
            calls = _answered(many, lambda: self._ask_many(client, many))
            for call, left in zip(calls, lefts, strict=True):
                self._note(call, left)
            return calls
        (terminal,) = chosen
        known, lease = self._epochs[terminal], self.books.get(terminal)
        kind = chance.choices((ALLOCATE, RENEW, RELEASE, REPORT, FAILED_ATTACH), (6, 5, 3, 6, 1))[0]
        kind = kind if known else ALLOCATE
        epoch = 0
        if kind != ALLOCATE:
            held = lease is not None and chance.random() >= OLD_EPOCH
            epoch = lease.epoch if held and lease is not None else chance.choice(known)
        left = None
        if kind == ALLOCATE or (kind in (RELEASE, FAILED_ATTACH) and lease is not None and lease.epoch == epoch):
            left = self.books.detach(terminal, time.monotonic())
        total_bytes = 0
        if kind == REPORT:
            more = chance.choice((0, 1, chance.randrange(1_000)))
            total_bytes = self._sent_bytes[epoch] = max(self._sent_bytes[epoch] + more, 1)
        asked = Call(kind, terminal, self.name, time.monotonic(), 0, UNANSWERED, epoch, total_bytes=total_bytes)
        if kind == FAILED_ATTACH and left is not None:
            asked = replace(asked, source=left.iccid)
        calls = _answered([asked], lambda: [self._ask(client, asked)])
        self._note(calls[0], left)
        return calls

    def _note(self, call: Call, left: Lease | None) -> None:
        """``left``: what the terminal let go of for it."""
        self._calls.append(call)
        if call.answer == GRANTED:
            self._epochs[call.terminal].append(call.granted)
            given = Lease(call.terminal, call.granted, call.sim)
            # An answer that is older than a switch which was carried out meanwhile takes nobody back.
            if call.kind == ALLOCATE and left is not None and left.epoch > given.epoch:
                given = left
            self.books.attach(given, call.answered_s)

    def _ask_many(self, client: Client, many: list[Call]) -> list[Call]:
        grants = client.allocate_many([call.terminal for call in many], MARKET)
        found = []
        for row, call in enumerate(many):
            answer = _ANSWERS[layout.Status(int(grants.status[row]))]
            if answer in (DONE, GRANTED):
                sim = decode_iccid(int(grants.iccid[row]))
                call = replace(call, answer=GRANTED, granted=int(grants.epoch[row]), sim=sim)
            else:
                call = replace(call, answer=answer)
            found.append(call)
        return found

    def _ask(self, client: Client, asked: Call) -> Call:
        """The call with what was answered."""
        terminal, epoch = [asked.terminal], [asked.epoch]
        if asked.kind == ALLOCATE:
            lease = client.allocate(asked.terminal, MARKET)
            return replace(asked, answer=GRANTED, granted=lease.epoch, sim=lease.iccid)
        if asked.kind == FAILED_ATTACH:
            grants = client.report_attach_failure(terminal, epoch)
            answer = _ANSWERS[layout.Status(int(grants.status[0]))]
            if answer != GRANTED:
                return replace(asked, answer=answer)
            return replace(asked, answer=answer, granted=int(grants.epoch[0]), sim=decode_iccid(int(grants.iccid[0])))
        if asked.kind == RENEW:
            status = client.renew(terminal, epoch).status[0]
        elif asked.kind == RELEASE:
            status = client.release(terminal, epoch)[0]
        else:
            status = client.report_usage(terminal, epoch, [0], [asked.total_bytes])[0]
        return replace(asked, answer=_ANSWERS[layout.Status(int(status))])


def _answered(asked: list[Call], ask: Callable[[], list[Call]]) -> list[Call]:
    try:
        calls = ask()
    except ServiceError as error:
        if error.reason in ("NO_HEALTHY_SIM", "ORDERS_FULL"):
            calls = [replace(call, answer=REFUSED) for call in asked]
        elif error.unreachable:
            calls = asked
        else:
            raise
    answered_s = time.monotonic()
    return [replace(call, answered_s=answered_s) for call in calls]

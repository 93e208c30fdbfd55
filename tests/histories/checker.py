"""Whether a recorded history could have come from one thing that does one call at a time.

Clients note of each call when it was begun and when it was answered. A call takes effect at one instant in between, or,
when the server died over it, perhaps not at all. A history is sound if some choice of instants explains every answer.

A terminal, at one of several access servers (``after`` is all of it):

    no lease ──allocate──▶ (access server, epoch, SIM, bytes) ──release──▶ no lease
                  └─ allocate elsewhere, or with a SIM that may be unfit, or a failed attach: another epoch and SIM
    renew, release, report and failed attach    only for the access server and the epoch of the lease; else stale
    report     counts what is above the last one of its epoch, else it is late: what was acknowledged is not forgotten
    switch     the lease goes on with the target, under the epoch of the order, once it was carried out
    hello      a lease from before it is over when its SIM is not named, or when its access server was declared dead
    named      the last one goes on when a hello names it, which the access server may have done just before it let go:
               until that hello was taken, and no longer, so that a release which is lost is not explained by it

A SIM: whoever holds it is the only one, from when the access server was told of it until it let go; and nobody is given
one that is surely unfit. Between access servers the instant counts at which each really held the SIM, so that a lease
which moved before the old one has let go is found too.

Terminals are checked one by one, as after Wing and Gong, with the set of all states that are still possible carried
along in time (Lowe's just-in-time linearization): an answer that no state allows is a violation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

ALLOCATE, RENEW, RELEASE, REPORT, FAILED_ATTACH = "allocate", "renew", "release", "report", "failed attach"
SWITCH, HELLO, NAMED, DEATH = "switch", "hello", "named", "death"
"""What is answered by nobody: it takes effect until ``answered_s``, or never."""
UNANSWERED = "unanswered"
GRANTED, DONE, LATE, ENDED, STALE, NONE, REFUSED = "granted", "done", "late", "ended", "stale", "none", "refused"


@dataclass(frozen=True, slots=True)
class Call:
    kind: str
    terminal: int
    server: str
    begun_s: float
    answered_s: float
    """Of a call that was not answered: when the connection was seen to be gone; the server was dead by then."""
    answer: str
    epoch: int = 0
    """What was asked about."""
    granted: int = 0
    """The epoch that was given; of a switch its order's."""
    sim: str = ""
    """What was given; of a hello, and what it names, the SIM of this terminal, and ``epoch`` with it."""
    source: str = ""
    """Of a switch."""
    total_bytes: int = 0
    """Of a report: since the epoch began."""
    many: bool = False
    """Asked for together with others."""
    opened_s: float = math.inf
    """Of a hello and a death: leases that were asked for later are not meant."""

    def __str__(self) -> str:
        words = [f"{self.kind} of terminal {self.terminal} by {self.server}: {self.answer}"]
        words += [f"epoch {self.epoch}"] * bool(self.epoch) + [f"given epoch {self.granted}"] * bool(self.granted)
        words += [f"SIM {self.sim}"] * bool(self.sim) + [f"{self.total_bytes} bytes"] * bool(self.total_bytes)
        return f"{', '.join(words)} ({self.begun_s:.4f} to {self.answered_s:.4f} s)"


@dataclass(frozen=True, slots=True)
class HealthCall:
    """An operator's word on a SIM."""

    sim: str
    fit: bool
    begun_s: float
    answered_s: float
    answered: bool


@dataclass(frozen=True, slots=True)
class Holding:
    """A SIM that a terminal really had, at an access server."""

    sim: str
    terminal: int
    server: str
    from_s: float
    until_s: float


@dataclass
class History:
    calls: list[Call] = field(default_factory=list)
    healths: list[HealthCall] = field(default_factory=list)
    holdings: list[Holding] = field(default_factory=list)

    def __add__(self, other: History) -> History:
        return History(self.calls + other.calls, self.healths + other.healths, self.holdings + other.holdings)


@dataclass(frozen=True, slots=True)
class State:
    """Of a terminal. A lease whose grant nobody was told has the epoch -1."""

    server: str = ""
    epoch: int = 0
    sim: str = ""
    asked_s: float = 0.0
    """When the call began that the lease came of."""
    reported_bytes: int = 0
    last: int = 0
    """The highest epoch that it ever had."""
    held: bool = False
    """Otherwise this is its last lease, which is over."""

    def over(self) -> State:
        return replace(self, held=False)


def after(state: State, call: Call, fitness: Fitness) -> State | None:
    """The state after a call that took effect with this answer; None: it can't have."""
    here = state.held and state.server == call.server
    given = State(call.server, call.granted or -1, call.sim, call.begun_s, 0, call.granted or state.last, True)
    newer = not call.granted or call.granted > state.last
    if call.kind == SWITCH:
        moves = here and (state.sim == call.source or state.epoch == -1) and newer
        return given if moves else None
    if call.kind == NAMED:
        # Nobody has the SIM since: what is named goes on.
        named = (state.server, state.epoch, state.sim) == (call.server, call.epoch, call.sim)
        return replace(state, held=True) if named and not state.held else None
    if call.kind in (HELLO, DEATH):
        meant = here and state.asked_s < call.opened_s and (state.epoch == -1 or state.sim != call.sim)
        return state.over() if meant else None
    if call.kind == ALLOCATE:
        if call.answer == REFUSED:
            return state
        if here and (state.epoch, state.sim) == (call.granted, call.sim):
            return state
        may_move = not here or state.epoch == -1 or fitness.may_be_unfit(state.sim, call)
        return given if may_move and newer else None
    meant = (state.server, state.epoch) == (call.server, call.epoch)
    if call.answer == REFUSED:
        return state.over() if here and meant and call.kind == FAILED_ATTACH else state
    if call.kind == REPORT and meant:
        more = call.total_bytes > state.reported_bytes
        told = (DONE if more else LATE) if state.held else (ENDED if more else NONE)
        counted = replace(state, reported_bytes=max(call.total_bytes, state.reported_bytes))
        return counted if call.answer in (UNANSWERED, told) else None
    if not here or not meant:
        late = call.kind == REPORT and call.answer == ENDED
        return state if late or call.answer in (UNANSWERED, STALE if state.held else NONE) else None
    if call.kind == FAILED_ATTACH:
        return given if call.answer in (GRANTED, UNANSWERED) and newer else None
    if call.answer not in (DONE, UNANSWERED):
        return None
    return state.over() if call.kind == RELEASE else state


class Fitness:
    """When SIMs were surely, or perhaps, not to be handed out: from a word that said so until one that took it back."""

    def __init__(self, history: History) -> None:
        self._surely: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._perhaps: dict[str, list[tuple[float, float]]] = defaultdict(list)
        words = list(history.healths)
        words += [
            HealthCall(call.source, False, call.begun_s, call.answered_s, call.answer == GRANTED)
            for call in history.calls
            if call.kind == FAILED_ATTACH and call.source and call.answer in (GRANTED, UNANSWERED)
        ]
        by_sim: dict[str, list[HealthCall]] = defaultdict(list)
        for word in words:
            by_sim[word.sim].append(word)
        for sim, each in by_sim.items():
            back = [word for word in each if word.fit]
            for bad in [word for word in each if not word.fit]:
                later = [word.answered_s for word in back if word.answered and word.begun_s >= bad.answered_s]
                self._perhaps[sim].append((bad.begun_s, min(later, default=math.inf)))
                if bad.answered:
                    maybe = [word.begun_s for word in back if word.answered_s > bad.begun_s]
                    self._surely[sim].append((bad.answered_s, min(maybe, default=math.inf)))

    def may_be_unfit(self, sim: str, call: Call) -> bool:
        return any(begun <= call.answered_s and call.begun_s <= ended for begun, ended in self._perhaps[sim])

    def is_unfit(self, sim: str, call: Call) -> bool:
        return any(begun <= call.begun_s and call.answered_s <= ended for begun, ended in self._surely[sim])


Possible = set[tuple[frozenset[int], State]]
"""Which calls of those under way have taken effect, and the state after them."""


def terminal_violation(calls: list[Call], fitness: Fitness) -> str | None:
    """What can't be explained in the calls on one terminal."""
    events = sorted(
        [(call.begun_s, 0, number) for number, call in enumerate(calls)]
        + [(call.answered_s, 1, number) for number, call in enumerate(calls)]
    )
    under_way: set[int] = set()
    possible: Possible = {(frozenset(), State())}
    for _, ends, number in events:
        if not ends:
            under_way.add(number)
            continue
        reached = _closure(possible, under_way, calls, fitness)
        if calls[number].answer != UNANSWERED:
            reached = {(done, state) for done, state in reached if number in done}
        if not reached:
            return f"{calls[number]} is not explained by any of {sorted({str(state) for _, state in possible})}"
        under_way.remove(number)
        possible = {(done - {number}, state) for done, state in reached}
    return None


def _closure(possible: Possible, under_way: set[int], calls: list[Call], fitness: Fitness) -> Possible:
    """With every choice of calls under way that took effect by now."""
    found, left = set(possible), list(possible)
    while left:
        done, state = left.pop()
        for number in under_way - done:
            following = after(state, calls[number], fitness)
            if following is not None and (reached := (done | {number}, following)) not in found:
                found.add(reached)
                left.append(reached)
    return found


def sim_violations(history: History, fitness: Fitness) -> Iterator[str]:
    """SIMs that somebody had before whoever had them let go, and those that were given out and surely unfit."""
    by_sim: dict[str, list[Holding]] = defaultdict(list)
    for holding in history.holdings:
        by_sim[holding.sim].append(holding)
    for sim, held in by_sim.items():
        for one, other in pairwise(sorted(held, key=lambda each: each.from_s)):
            if other.from_s < one.until_s:
                yield f"SIM {sim} is held twice: {one} and {other}"
    for call in history.calls:
        if call.kind in (ALLOCATE, FAILED_ATTACH) and call.sim and fitness.is_unfit(call.sim, call):
            yield f"SIM {call.sim} was not to be handed out: {call}"


def usage_violations(calls: Iterable[Call], counted_bytes: int) -> Iterator[str]:
    """Of what was reported under each epoch the engine has counted the most that it acknowledged, and no more than was
    sent."""
    taken: dict[int, int] = defaultdict(int)
    sent: dict[int, int] = defaultdict(int)
    for call in calls:
        if call.kind == REPORT:
            sent[call.epoch] = max(sent[call.epoch], call.total_bytes)
            if call.answer in (DONE, ENDED):
                taken[call.epoch] = max(taken[call.epoch], call.total_bytes)
    if not sum(taken.values()) <= counted_bytes <= sum(sent.values()):
        yield f"{sum(taken.values())} bytes were acknowledged, {sum(sent.values())} sent, and {counted_bytes} counted"


def violations(history: History, counted_bytes: int | None = None) -> list[str]:
    """Everything that can't be explained."""
    fitness = Fitness(history)
    by_terminal: dict[int, list[Call]] = defaultdict(list)
    for call in history.calls:
        by_terminal[call.terminal].append(call)
    found = [wrong for one in by_terminal.values() if (wrong := terminal_violation(one, fitness)) is not None]
    found += sim_violations(history, fitness)
    if counted_bytes is not None:
        found += usage_violations(history.calls, counted_bytes)
    return found

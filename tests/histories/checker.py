"""Whether a recorded history could have come from one thing that does one call at a time.

Clients note of each call when it was begun and when it was answered. A call takes effect at one instant in between, or,
when the server died over it, perhaps not at all. A history is sound if some choice of instants explains every answer:

    terminal   no lease ──allocate──▶ (SIM, epoch) ──release(epoch)──▶ no lease; renew(epoch) says if it is that one
    SIM        free ──▶ held under an epoch ──▶ free; the next holding comes after the release of the one before

Terminals are checked one by one, as after Wing and Gong, with the set of all states that are still possible carried
along in time (Lowe's just-in-time linearization): an answer that no state allows is a violation. Calls on one terminal
overlap by no more than there are clients, so the set stays small. For SIMs the order of holdings is known, since
epochs only grow; what is left to show is that each was given back before the next began.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

ALLOCATE, RENEW, RELEASE = "allocate", "renew", "release"
UNANSWERED = "unanswered"
GRANTED, DONE, STALE, NONE = "granted", "done", "stale", "none"


@dataclass(frozen=True, slots=True)
class Call:
    kind: str
    terminal: int
    begun_s: float
    answered_s: float
    """Of a call that was not answered: when the connection was seen to be gone; the server was dead by then."""
    answer: str
    epoch: int = 0
    """Granted, or what was asked about."""
    sim: str = ""

    def __str__(self) -> str:
        what = f"{self.kind} of terminal {self.terminal}, epoch {self.epoch}: {self.answer} {self.sim}"
        return f"{what} ({self.begun_s:.4f} to {self.answered_s:.4f} s)"


@dataclass(frozen=True, slots=True)
class State:
    """Of a terminal. A lease whose grant nobody was told has the epoch -1."""

    epoch: int = 0
    sim: str = ""
    last: int = 0
    """The highest epoch that it ever had."""


Possible = set[tuple[frozenset[int], State]]
"""Which calls of those under way have taken effect, and the state after them."""


def after(state: State, call: Call) -> State | None:
    """The state after a call that took effect with this answer; None: it can't have."""
    if call.kind == ALLOCATE:
        if call.answer == UNANSWERED:
            return state if state.epoch else State(-1, "", state.last)
        if state.epoch > 0:
            return state if (state.epoch, state.sim) == (call.epoch, call.sim) else None
        return State(call.epoch, call.sim, call.epoch) if call.epoch > state.last else None
    held = state.epoch == call.epoch
    if call.answer != UNANSWERED and call.answer != (DONE if held else STALE if state.epoch else NONE):
        return None
    return State(0, "", state.last) if held and call.kind == RELEASE else state


def terminal_violation(calls: list[Call]) -> str | None:
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
        reached = _closure(possible, under_way, calls)
        if calls[number].answer != UNANSWERED:
            reached = {(done, state) for done, state in reached if number in done}
        if not reached:
            before = sorted({(state.epoch, state.sim) for _, state in possible})
            return f"{calls[number]} is not explained by any of {before}"
        under_way.remove(number)
        possible = {(done - {number}, state) for done, state in reached}
    return None


def _closure(possible: Possible, under_way: set[int], calls: list[Call]) -> Possible:
    """With every choice of calls under way that took effect by now."""
    found, left = set(possible), list(possible)
    while left:
        done, state = left.pop()
        for number in under_way - done:
            following = after(state, calls[number])
            if following is not None and (reached := (done | {number}, following)) not in found:
                found.add(reached)
                left.append(reached)
    return found


def sim_violations(calls: Iterable[Call]) -> Iterator[str]:
    """SIMs that somebody got before whoever had them gave them back."""
    holdings: dict[str, dict[tuple[int, int], Call]] = defaultdict(dict)
    released: dict[tuple[int, int], float] = {}
    for call in calls:
        key = (call.epoch, call.terminal)
        if call.kind == ALLOCATE and call.answer == GRANTED:
            first = holdings[call.sim].setdefault(key, call)
            if call.answered_s < first.answered_s:
                holdings[call.sim][key] = call
        elif call.kind == RELEASE and call.answer in (DONE, UNANSWERED):
            released[key] = min(released.get(key, call.begun_s), call.begun_s)
    for sim, held in holdings.items():
        for one, other in pairwise(sorted(held)):
            given_back_s = released.get(one)
            if one[0] == other[0] or given_back_s is None or given_back_s > held[other].answered_s:
                yield f"SIM {sim}: {held[other]}, and it was not given back after {held[one]}"


def violations(calls: list[Call]) -> list[str]:
    """Everything that can't be explained."""
    by_terminal: dict[int, list[Call]] = defaultdict(list)
    for call in calls:
        by_terminal[call.terminal].append(call)
    found = [wrong for one in by_terminal.values() if (wrong := terminal_violation(one)) is not None]
    return found + list(sim_violations(calls))

"""The rounds: every contender allocates and releases once, in turn, so that a slow spell of the machine meets all.

After every phase the answers and the peer's own books are compared with what was asked for. A peer that gives one SIM
to two terminals, or an unhealthy one, does not do the job, and is no row of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np
import numpy.typing as npt
from simswitch.core.machine import xxh64

from benches.report import Result

U64 = npt.NDArray[np.uint64]
Progress = Callable[[str], None]

# SIMs are numbered from 1. Every 20th can't be used.
UNHEALTHY_EVERY = 20
# Requests under way at a time, in all client processes together, by terminals a request.
IN_FLIGHT = {1: 64, 200: 8, 1000: 8}
# Client processes of a contender that is driven from Python.
PROCESSES = 2


class NotTheJob(RuntimeError):
    """What a contender did is not what was asked of it."""


@dataclass(frozen=True)
class Pairs:
    """Who has which SIM, in no order."""

    terminals: U64
    sims: U64


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    pool: int
    """SIMs, the unhealthy ones included."""
    counts: dict[str, int]
    """Terminals a round, by the name of the contender."""
    rounds: int
    seed: int
    swap_terminals: int


class Contender(Protocol):
    """One way to do the job, ready to run."""

    name: str
    batch_items: int
    in_flight: int
    client: str
    """Who drives it, in words."""
    durability: str
    settings: str
    """As the running peer states them."""

    def allocate(self, terminals: U64) -> float:
        """Takes a SIM for each. The seconds between the first request and the last answer."""

    def release(self, terminals: U64) -> float:
        """Gives them back."""

    def answers(self) -> Pairs | None:
        """What the clients were told at the last allocation; None: they threw it away."""

    def books(self) -> Pairs | int:
        """Who has which SIM by the peer's own account, or how many SIMs are taken."""

    def tidy(self) -> None:
        """What a peer does about its own waste. Nobody measures it."""


@dataclass(frozen=True)
class Figures:
    """Medians of one contender, terminals a second."""

    allocate: float
    release: float
    count: int
    hash: str


def healthy(pool: int) -> U64:
    """The SIMs that can be used."""
    sims = np.arange(1, pool + 1, dtype=np.uint64)
    fit: U64 = sims[sims % np.uint64(UNHEALTHY_EVERY) != 0]
    return fit


def verify(name: str, terminals: U64, pool: int, found: Pairs) -> None:
    """Raises unless each of ``terminals`` has exactly one healthy SIM, and no SIM is there twice."""
    if not np.array_equal(np.sort(found.terminals), np.sort(terminals)):
        raise NotTheJob(f"{name}: {len(terminals):,} terminals asked, {len(np.unique(found.terminals)):,} have a SIM")
    if len(np.unique(found.sims)) != len(found.sims):
        raise NotTheJob(f"{name}: {len(found.sims) - len(np.unique(found.sims)):,} SIMs were given twice")
    if not np.isin(found.sims, healthy(pool)).all():
        raise NotTheJob(f"{name}: a SIM was given that is unhealthy or does not exist")


def verify_books(name: str, terminals: U64, pool: int, told: Pairs | None, books: Pairs | int) -> None:
    """Raises unless the peer's account is sound and says what its clients were told."""
    if told is not None:
        verify(name, terminals, pool, told)
    if isinstance(books, int):
        if books != len(terminals):
            raise NotTheJob(f"{name}: {books:,} SIMs are taken by its own account, not {len(terminals):,}")
        return
    verify(name, terminals, pool, books)
    if told is not None:
        first, second = np.argsort(told.terminals), np.argsort(books.terminals)
        if not np.array_equal(told.sims[first], books.sims[second]):
            raise NotTheJob(f"{name}: its books say another SIM than its answer did")


class Record:
    """What one contender has shown so far."""

    def __init__(self) -> None:
        self.allocated: list[float] = []
        self.released: list[float] = []
        self.folded = 0
        self.failure = ""

    def figures(self, count: int) -> Figures:
        """Of the rounds after the first, which warmed up."""
        return Figures(median(self.allocated[1:]), median(self.released[1:]), count, f"{self.folded:016x}")


def one_round(contender: Contender, record: Record, plan: Plan, random: np.random.Generator) -> None:
    """Allocates for each terminal, releases each, and checks both; nothing but the two phases is timed."""
    name = contender.name
    terminals = np.arange(1, plan.counts[name] + 1, dtype=np.uint64)
    seconds = contender.allocate(random.permutation(terminals))
    record.allocated.append(len(terminals) / seconds)
    books = contender.books()
    verify_books(name, terminals, plan.pool, contender.answers(), books)
    held = np.sort(books.terminals).tobytes() if isinstance(books, Pairs) else books.to_bytes(8, "little")
    record.folded = xxh64(held, record.folded)
    seconds = contender.release(random.permutation(terminals))
    record.released.append(len(terminals) / seconds)
    left = contender.books()
    if left if isinstance(left, int) else len(left.sims):
        raise NotTheJob(f"{name}: SIMs are still taken after all were released")
    contender.tidy()


def race(contenders: Sequence[Contender], plan: Plan, progress: Progress) -> tuple[dict[str, Figures], dict[str, str]]:
    """One round to warm up, then ``plan.rounds``: figures by name, and why others have none.

    A peer that fails is out, and the others go on without it. Ours must not fail.
    """
    random = np.random.default_rng(plan.seed)
    records = {contender.name: Record() for contender in contenders}
    for number in range(plan.rounds + 1):
        for contender in contenders:
            record = records[contender.name]
            if record.failure:
                continue
            progress(f"{contender.name}: " + (f"round {number} of {plan.rounds}" if number else "warming up"))
            try:
                one_round(contender, record, plan, random)
            except Exception as error:  # Whatever went wrong with a peer belongs in the report.
                if contender.name.startswith("ours."):
                    raise
                record.failure = f"{type(error).__name__}: {error}"
    figures = {name: record.figures(plan.counts[name]) for name, record in records.items() if not record.failure}
    return figures, {name: record.failure for name, record in records.items() if record.failure}


def opponent(contender: Contender) -> str:
    """Our contender with as many terminals a request."""
    return "ours.unary" if contender.batch_items == 1 else f"ours.batch_{contender.batch_items}"


def rows(contender: Contender, found: dict[str, Figures]) -> list[Result]:
    """Ours, with the peer as the reference; the goal is to be faster than the peer."""
    theirs, ours = found[contender.name], found[opponent(contender)]
    note = (
        f"{contender.batch_items:,} a request, {contender.in_flight} requests in flight; "
        f"{contender.durability}; {contender.client}; {contender.settings}"
    )
    return [
        Result(
            name=f"peers.{contender.name}.{phase}",
            size=theirs.count,
            value=mine,
            unit="1/s",
            hash=theirs.hash,
            reference=other,
            goal=other,
            better="higher",
            note=note,
        )
        for phase, mine, other in (
            ("allocate", ours.allocate, theirs.allocate),
            ("release", ours.release, theirs.release),
        )
    ]

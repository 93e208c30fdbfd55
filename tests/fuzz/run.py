"""The wire against protobuf's own parser on as many inputs as one likes: ``python -m tests.fuzz.run`` (``make fuzz``).

Input number n of a seed is always the same message, so a run can be repeated from any point. What is being tried
stands in ``build/fuzz-input.txt``, as a line of the corpus, in case the process is ended by a sanitizer. A disagreement
is printed as a line for ``tests/fuzz/corpus.txt``; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz import messages
from tests.fuzz.agreement import SHAPES, Disagreement, compare, compare_encoded, compare_numbered, compare_session
from tests.fuzz.watch import Grown, Watch

CORPUS = Path(__file__).with_name("corpus.txt")
INPUT = Path(__file__).resolve().parents[2] / "build" / "fuzz-input.txt"
SESSION, NUMBERED = "SessionRequest", "AllocateStreamRequest"
SEED = 20_200_321
_SHAPES = list(SHAPES.values())
# One input of this many is a session's message, one a stream's, another one goes the other way, from columns to bytes.
_TURNS = 8


def corpus() -> Iterator[tuple[str, bytes, str]]:
    """The inputs that are kept: the message's name, its bytes, and why it is there."""
    for line in CORPUS.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            content, _, why = line.partition("#")
            name, _, encoded = content.strip().partition(" ")
            yield name, bytes.fromhex(encoded), why.strip()


def check(name: str, data: bytes) -> bool:
    """Raises ``Disagreement``, else says whether the message was accepted."""
    if name == SESSION:
        return compare_session(data)
    return compare_numbered(data) if name == NUMBERED else compare(SHAPES[name], data)


def made(seed: int, number: int, known: dict[str, list[bytes]]) -> tuple[str, bytes]:
    """Input ``number`` of a seed: which message, and its bytes."""
    random = Random(seed << 40 | number)
    if number % _TURNS == 0:
        return SESSION, messages.session(SHAPES, random)
    if number % _TURNS == 2:
        return NUMBERED, messages.numbered(SHAPES, random)
    shape = _SHAPES[number % len(_SHAPES)]
    if number % _TURNS == 1:
        return shape.name, compare_encoded(shape, *messages.columns(shape, random))
    return shape.name, messages.message(shape, random, known.get(shape.name))


@dataclass
class Tally:
    """What a run has seen, by message."""

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


def run(seed: int, first: int, inputs: int, say: Callable[[int], None], keep: Callable[[str, bytes], None]) -> Tally:
    """Tries ``inputs`` messages. Raises ``Disagreement``, or ``Grown``."""
    known: dict[str, list[bytes]] = {}
    for name, data, _ in corpus():
        known.setdefault(name, []).append(data)
    tally = Tally()
    with Watch(inputs) as watch:
        for number in range(first, first + inputs):
            watch.begin()
            name, data = made(seed, number, known)
            keep(name, data)
            try:
                (tally.accepted if check(name, data) else tally.refused)[name] += 1
            except Disagreement as error:
                line = f"{name} {data.hex()}  # say here what it shows"
                raise Disagreement(f"input {number} of seed {seed}: {error}\n{line}") from error
            if number % 10_000 == 9_999:
                say(number + 1 - first)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--json", action="store_true", help="figures for programs")
    options = parser.parse_args()
    INPUT.parent.mkdir(exist_ok=True)
    started = time.monotonic()

    def say(done: int) -> None:
        rate = done / (time.monotonic() - started)
        left_s = (options.inputs - done) / rate
        print(f"{done:,} of {options.inputs:,} inputs, {rate:,.0f} a second, {left_s:,.0f} s left", file=sys.stderr)

    with INPUT.open("wb", buffering=0) as file:

        def keep(name: str, data: bytes) -> None:
            line = f"{name} {data.hex()}\n".encode()
            os.pwrite(file.fileno(), line, 0)
            os.ftruncate(file.fileno(), len(line))

        try:
            tally = run(options.seed, options.first, options.inputs, say, keep)
        except (Disagreement, Grown) as error:
            print(error, file=sys.stderr)
            return 1
    INPUT.unlink()
    names = sorted(tally.accepted.keys() | tally.refused.keys())
    if options.json:
        print(json.dumps({name: {"accepted": tally.accepted[name], "refused": tally.refused[name]} for name in names}))
        return 0
    width = max(map(len, names), default=0)
    print(f"{'message':{width}}  {'accepted':>9}  {'refused':>9}")
    for name in names:
        print(f"{name:{width}}  {tally.accepted[name]:9,}  {tally.refused[name]:9,}")
    print(f"{'all':{width}}  {tally.accepted.total():9,}  {tally.refused.total():9,}  seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Whatever stands in a file, it is read or refused in so many words: ``python -m tests.fuzz.readers``
(``make fuzz-readers``).

Each input begins with a sound file, or with one that is kept in ``tests/fuzz/corpus``: what was a fault once, and what
``tests.fuzz.guided`` found to reach most of the code. Some get other bytes, or lose and repeat some; of journals and
snapshots others get headers with other numbers in them and the right checksum, as only a program or an attacker makes
them. Anything but the reader's own refusal is a fault, and so is an input that takes a minute, or memory that grows.
Input number n of a seed is always the same; the number of the one being tried stands in ``build/fuzz-reader-input-…``,
should the process end with it.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import json
import lzma
import os
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache, partial
from hashlib import sha1
from pathlib import Path
from random import Random
from typing import Any

from simswitch.access.certificates import CertificateRefused, ends_s, read_revoked
from simswitch.access.tokens import FILE as TOKENS
from simswitch.access.tokens import create_token, read_tokens, revoke_token
from simswitch.audit.chain import FIRST, ChainDamaged, line_of
from simswitch.config import example, parse_config
from simswitch.core import layout
from simswitch.core.machine import Machine
from simswitch.inventory.carrier_usage import read_carrier_usage, read_format
from simswitch.inventory.definitions import Definitions, parse_definitions
from simswitch.inventory.lots import read_lots
from simswitch.inventory.problems import FileRefused
from simswitch.inventory.sims import read_sims
from simswitch.journal.errors import JournalError
from simswitch.journal.format import BLOCK_BYTES, decode_record_header, decode_segment_header, segment_name
from simswitch.journal.migration import describe, described
from simswitch.journal.recovery import recover
from simswitch.journal.snapshot import open_snapshot, read_snapshot_header, snapshot_name, write_snapshot
from simswitch.planning.tables import read_situation
from simswitch.planning.terms import parse_terms
from simswitch.reports.accident import read_facts
from simswitch.reports.rules import read_rules, shipped
from simswitch.toml_lines import TomlDocument, TomlRefused
from simswitch.twin.month import load as load_month
from simswitch.twin.scenario import ScenarioError, parse

from tests.fuzz import doors
from tests.fuzz.watch import Watch
from tests.inventory.test_definitions import GOOD as DEFINITIONS
from tests.inventory.test_sims import HEADER, KNOWN, NOW, line
from tests.journal.faulty_disk import Content, FaultyDisk
from tests.journal.test_recovery import lives
from tests.journal.tiny_machine import tiny_kind

SEED = 20_200_321
CORPUS = Path(__file__).with_name("corpus")
INPUT = Path(__file__).resolve().parents[2] / "build" / "fuzz-reader-input"
KEPT_MAX, KEPT_BYTES_MAX = 24, 8_192
"""How many inputs of one reader are kept, and how large they may be, compressed."""
SCENARIOS = Path(__file__).parents[2] / "engine/simswitch/twin/scenarios"
DEMO = Path(__file__).parents[2] / "engine/simswitch/demo/data"
EXAMPLES = Path(__file__).parents[2] / "examples"
_CHANGES_MAX = 6
_PIECE_MAX = 64
_ODD = (0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


@dataclass(frozen=True, slots=True)
class Target:
    """A reader: sound inputs, what it does with bytes, what it may raise, and how inputs are made to look right."""

    sound: Callable[[], list[bytes]]
    read: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...]
    forge: Callable[[bytearray, Random], None] | None = None


def changed(data: bytes, random: Random) -> bytes:
    """Some bytes flipped, replaced, taken out, repeated, or all from somewhere on cut off."""
    found = bytearray(data)
    for _ in range(random.randrange(1, _CHANGES_MAX)):
        place = random.randrange(len(found) + 1)
        size = random.randrange(1, _PIECE_MAX)
        kind = random.randrange(6)
        if kind == 0 and found:
            found[place % len(found)] ^= 1 << random.randrange(8)
        elif kind == 1:
            found[place : place + size] = random.randbytes(min(size, len(found) - place))
        elif kind == 2:
            del found[place : place + size]
        elif kind == 3:
            found[place:place] = found[place : place + size]
        elif kind == 4:
            found[place:place] = random.choice((b'"', b",", b"\n", b"=", b"[", b"\x00", b"\xff", b"-1", b"1e999"))
        elif random.random() < 0.2:
            del found[place:]
    return bytes(found)


def other_number(record: Any, random: Random) -> Any:
    """The record with one of its numbers changed."""
    name = random.choice([each.name for each in fields(record) if isinstance(getattr(record, each.name), int)])
    before = getattr(record, name)
    return replace(record, **{name: random.choice((*_ODD, before + 1, max(before - 1, 0), before ^ 1))})


# ------------------------------------------------------------------------------------------------ journal


@cache
def _journals() -> list[bytes]:
    disk = FaultyDisk()
    lives(disk, [], 0)
    return [bytes(disk.seen[segment_name(1)].seen)]


def _read_journal(data: bytes) -> object:
    disk = FaultyDisk()
    decoded = decode_segment_header(data[:BLOCK_BYTES], 1, len(data))
    number = 1 if isinstance(decoded, str) else decoded.number
    disk.seen[segment_name(number)] = Content(data)
    return recover(disk, tiny_kind(), repair=True)


def _forge_record(data: bytearray, random: Random) -> None:
    place = random.randrange(1, max(len(data) // BLOCK_BYTES, 2)) * BLOCK_BYTES
    decoded = decode_record_header(data, place)
    if isinstance(decoded, str):
        header = decode_segment_header(data[:BLOCK_BYTES], data[32], len(data))
        if not isinstance(header, str):
            data[: len(header.encode())] = _packed(other_number(header, random).encode, header.encode())
        return
    made = _packed(lambda: other_number(decoded[0], random).encode()[0], decoded[0].encode()[0])
    data[place : place + len(made)] = made


def _packed(encode: Callable[[], bytes], otherwise: bytes) -> bytes:
    """A number that its field has no room for is none that a file can hold."""
    try:
        return encode()
    except (struct.error, OverflowError):
        return otherwise


# ----------------------------------------------------------------------------------------------- snapshot


@cache
def _snapshots() -> list[bytes]:
    disk = FaultyDisk()
    header = write_snapshot(disk, Machine(64, 64, 64), b"j" * 16, int(layout.MACHINE_VERSION), 0)
    return [bytes(disk.seen[snapshot_name(header.sequence)].seen)]


def _read_snapshot(data: bytes) -> object:
    disk = FaultyDisk()
    disk.seen[snapshot_name(0)] = Content(data)
    with open_snapshot(disk, 0) as (_, regions), suppress(ValueError):
        return Machine.restore(regions)
    return None


def _forge_snapshot(data: bytearray, random: Random) -> None:
    disk = FaultyDisk()
    disk.seen["whole"] = Content(bytes(data))
    header = read_snapshot_header(disk.open("whole", writable=False), "whole")
    regions = list(header.regions)
    if random.random() < 0.3:
        header = other_number(header, random)
    else:
        place = random.randrange(len(regions))
        regions[place] = other_number(regions[place], random)
        header = replace(header, regions=tuple(regions))
    data[:BLOCK_BYTES] = _packed(header.encode, bytes(data[:BLOCK_BYTES]))


# ------------------------------------------------------------------------------------------------- texts


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode())


@cache
def _folder() -> Path:
    """Of files that are read by their names; it goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix="fuzz-readers-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _file(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def of_bytes(data: bytes) -> object:
        path = _folder() / "file"
        path.write_bytes(data)
        return read(path)

    return of_bytes


# ------------------------------------------------------------------------------------- what is bought, and terms


@cache
def _defined() -> Definitions:
    return parse_definitions(TomlDocument((DEMO / "inventory.toml").read_text("utf-8"), "inventory.toml"))


def _read_lots(path: Path) -> object:
    known = _defined()
    names = ({each.name for each in of} for of in (known.suppliers, known.plans, known.classes))
    return read_lots(path, *names)


SITUATION = ("use", "lots", "subscribers")


def _read_situation(path: Path) -> object:
    """One of the three tables of a plan; its first line says which."""
    first, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(rest)
    ours = SITUATION.index(first.decode()) if first.decode("ascii", "replace") in SITUATION else 0
    return read_situation(
        *(path if place == ours else EXAMPLES / f"plan/{name}.csv" for place, name in enumerate(SITUATION))
    )


PORTALS = (
    (
        'SIM;Verbrauch;Stand\n"8981 1000 0000 0000 077";1.234,5 MB;2026-03-21T07:00+09:00\n',
        read_format("iccid=SIM,used=Verbrauch,unit=MB,as_of=Stand", delimiter=";", decimal_comma=True),
    ),
    (
        'imsi,used (MB)\n440100000000001,"1,234.5"\n440100000000002,7GiB\n',
        read_format("imsi=imsi,used=used (MB)"),
    ),
)


def _read_carrier_usage(path: Path) -> object:
    """As either portal writes; the line that says which is of ours."""
    first, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(rest)
    return read_carrier_usage(
        path, PORTALS[first != b"0"][1], datetime(2026, 3, 21, tzinfo=UTC), partial=len(rest) % 2 > 0
    )


# ------------------------------------------------------------------------------------------- who may come in


@cache
def _chains() -> list[bytes]:
    folder = _folder() / "made"
    folder.mkdir()
    for actor in ("operator:alice", "supplier:wholesale"):
        revoke_token(folder, create_token(folder, actor, 1_000)[0].id)
    return [(folder / TOKENS).read_bytes()]


def _read_tokens(data: bytes) -> object:
    path = _folder() / "read" / TOKENS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return read_tokens(_folder() / "read")


CERTIFICATE = (
    bytes.fromhex("3030302ea00302010202010130003000301e") + b"\x17\r200321000000Z" + b"\x17\r300321000000Z" + b"0\0"
)
"""As much of one as is looked at: who signed it, the handshake has seen."""


def _read_certificate(data: bytes) -> object:
    return ends_s(b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(data) + b"-----END CERTIFICATE-----")


def _forge_entry(data: bytearray, random: Random) -> None:
    """A line with other words and the right hash, and those behind it made anew."""
    lines = bytes(data).splitlines()
    place = random.randrange(len(lines))
    previous, made_anew = FIRST, []
    for index, entry in enumerate(lines):
        fields = {**json.loads(entry.partition(b" ")[2]), "previous": previous}
        if index == place:
            name = random.choice(list(fields))
            fields[name] = random.choice((*_ODD, -1, 1e999, "", "\0", None, [], {}, [[]] * 3, "x" * 1_000))
            if random.random() < 0.3:
                del fields[name]
        previous, whole = line_of(fields)
        made_anew.append(whole)
    data[:] = b"".join(made_anew)


TARGETS = {
    "journal": Target(_journals, _read_journal, (JournalError,), _forge_record),
    "snapshot": Target(_snapshots, _read_snapshot, (JournalError,), _forge_snapshot),
    "description": Target(lambda: [describe(layout.RECORD_TYPES)], described, (ValueError,)),
    "config": Target(
        lambda: [example().encode()], _text(lambda text: parse_config(TomlDocument(text, "config"))), (TomlRefused,)
    ),
    "scenario": Target(
        lambda: [
            (SCENARIOS / f"{name}.toml").read_bytes() for name in ("tiny", "troubles", "incident-2020", "bad-lot")
        ],
        _text(lambda text: parse(text, "fuzz")),
        (ScenarioError,),
    ),
    "sims": Target(
        lambda: ["\n".join([",".join(HEADER), *map(line, range(20))]).encode()],
        _file(lambda path: read_sims(path, KNOWN, NOW)),
        (FileRefused,),
    ),
    "definitions": Target(
        lambda: [(DEMO / "inventory.toml").read_bytes(), DEFINITIONS.encode()],
        _text(lambda text: parse_definitions(TomlDocument(text, "definitions"))),
        (TomlRefused,),
    ),
    "lots": Target(lambda: [(DEMO / "lots.csv").read_bytes()], _file(_read_lots), (FileRefused,)),
    "portal": Target(
        lambda: [f"{number}\n{text}".encode() for number, (text, _) in enumerate(PORTALS)],
        _file(_read_carrier_usage),
        (FileRefused,),
    ),
    "terms": Target(
        lambda: [(EXAMPLES / "plan/terms.toml").read_bytes()],
        _text(lambda text: parse_terms(TomlDocument(text, "terms"))),
        (TomlRefused,),
    ),
    "plan": Target(
        lambda: [name.encode() + b"\n" + (EXAMPLES / f"plan/{name}.csv").read_bytes() for name in SITUATION],
        _file(_read_situation),
        (FileRefused,),
    ),
    "facts": Target(lambda: [(EXAMPLES / "accident-2020.toml").read_bytes()], _file(read_facts), (TomlRefused,)),
    "rules": Target(lambda: [path.read_bytes() for path in shipped().values()], _file(read_rules), (TomlRefused,)),
    "month": Target(lambda: [(SCENARIOS / "month.toml").read_bytes()], _file(load_month), (ScenarioError,)),
    "tokens": Target(_chains, _read_tokens, (ChainDamaged,), _forge_entry),
    "revoked": Target(
        lambda: [("# stolen\n" + "\n".join(f"sha256 Fingerprint={'AB:' * 31}{n:02X}" for n in range(9))).encode()],
        _file(read_revoked),
        (CertificateRefused,),
    ),
    "certificate": Target(lambda: [CERTIFICATE], _read_certificate, (CertificateRefused,)),
    "calls": Target(doors.sound_calls, doors.read_call, (doors.NotServed,), doors.forge_call),
    **{
        name: Target(
            doors.sound_conversations,
            partial(doors.read_conversation, name),
            (doors.NotServed,),
            doors.forge_conversation,
        )
        for name in ("grpcio", "native")
    },
    "figures": Target(doors.sound_requests, doors.read_request, (doors.NotServed,)),
}


@cache
def sound_of(name: str) -> list[bytes]:
    return TARGETS[name].sound()


@cache
def kept(name: str) -> list[bytes]:
    """The corpus of a reader, compressed: a journal is mostly zeros."""
    return [lzma.decompress(path.read_bytes()) for path in sorted((CORPUS / name).glob("*.xz"))]


def keep(name: str, inputs: list[bytes]) -> None:
    """Adds to the corpus as many as there is room for, of all sizes."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    packed = [lzma.compress(data) for data in sorted(inputs, key=len)]
    small = [data for data in packed if len(data) <= KEPT_BYTES_MAX]
    room = KEPT_MAX - len(list(folder.glob("*.xz")))
    for number in range(min(room, len(small))):
        data = small[number * len(small) // min(room, len(small))]
        (folder / f"{sha1(data).hexdigest()[:16]}.xz").write_bytes(data)


def made(name: str, seed: int, number: int) -> bytes:
    """Input ``number`` of a seed for a target."""
    target = TARGETS[name]
    random = Random(f"{name} {seed} {number}")
    found = kept(name)
    if found and random.random() < 0.3:
        return changed(random.choice(found), random)
    sound = random.choice(sound_of(name))
    if target.forge is not None and random.random() < 0.7:
        data = bytearray(sound)
        target.forge(data, random)
        return bytes(data)
    return changed(sound, random)


def tried(name: str, data: bytes) -> bool:
    """Whether it was read. Raises what a reader must not raise."""
    try:
        TARGETS[name].read(data)
    except TARGETS[name].refuses:
        return False
    return True


def inputs(first: int, count: int, names: Sequence[str]) -> Iterator[tuple[str, int]]:
    for number in range(first, first + count):
        yield names[number % len(names)], number


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.readers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--reader", choices=sorted(TARGETS), action="append", help="this one only")
    asked = parser.parse_args()
    began_s = time.monotonic()
    read: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    trying = INPUT.with_name(f"{INPUT.name}-{asked.first}")
    trying.parent.mkdir(exist_ok=True)
    file = os.open(trying, os.O_WRONLY | os.O_CREAT)
    with Watch(asked.inputs) as watch:
        for name, number in inputs(asked.first, asked.inputs, asked.reader or list(TARGETS)):
            watch.begin()
            try:
                os.pwrite(file, b"%-24d" % number, 0)
                (read if tried(name, made(name, asked.seed, number)) else refused)[name] += 1
            except Exception as error:
                print(f"{name}, input {number} of seed {asked.seed}: {type(error).__name__}: {error}", file=sys.stderr)
                raise
    os.close(file)
    trying.unlink()
    found = {"seed": asked.seed, "first": asked.first, "inputs": asked.inputs, "read": read, "refused": refused}
    print(json.dumps({**found, "resident_mb": [round(mb) for mb in watch.resident_mb]}, indent=1))
    print(f"{time.monotonic() - began_s:.1f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

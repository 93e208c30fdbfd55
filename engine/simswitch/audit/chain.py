"""A file that only grows, and in which nothing can be changed, left out or put in without it showing.

    <SHA-256 of the JSON, 64 hex digits> <space> <JSON on one line, in ASCII> <newline>

    {"number": 7, "previous": "<the hash of line 6>", "at_ms": …, "what": …, …}

A line counts if and only if its hash is that of its JSON, its ``previous`` is the hash of the line before, and its
number is one more. The first line of all has the number 1 and 64 zeros as previous. So whoever knows one hash can tell
whether anything up to that line was touched. Whoever may write the file can still make all of it anew: against that,
keep a hash elsewhere (``simswitch audit verify`` prints the last) and compare.

What stands behind the last newline is damage: a line may have stood there on which somebody relied, such as that a
token is revoked. Nobody can tell a file that was cut from one whose writer died over a line. While its writer has it
open, what can be the beginning of a line (so many hex digits, the space, printable ASCII) is one that is being written.

In a file with a bound no promise depends on the last lines, so there such a beginning is taken as never written, and
cut off by the next writer. So are zeros behind it: after a power cut the file system had the length before the bytes.

A file with a bound is renamed to ``….1`` when it is full, and the next one goes on with its numbers and hashes; what
stood in an older ``….1`` is gone.

One writer at a time, by an exclusive lock. Files are for the owner only, who is the folder's also when
root writes. Line: at most 64 KiB.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from simswitch.owner import give, opened, reading

LINE_BYTES_MAX = 65_536
FIRST = "0" * 64
_HASH_CHARACTERS = 64
_TORN = re.compile(rb"[0-9a-f]{0,64}|[0-9a-f]{64} [ -~]*")


class ChainDamaged(Exception):
    """A line does not vouch for itself, or not for the one before. Says file, line and what is wrong."""


class ChainInUse(Exception):
    """Another process writes this file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line."""

    number: int
    hash: str
    fields: Mapping[str, Any]


def line_of(fields: Mapping[str, Any]) -> tuple[str, bytes]:
    """The hash and the line of an entry that has all its fields."""
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    if len(text) + _HASH_CHARACTERS + 2 > LINE_BYTES_MAX:
        raise ValueError(f"an entry of {len(text):,} bytes does not fit into a line of {LINE_BYTES_MAX:,}")
    digest = hashlib.sha256(text).hexdigest()
    return digest, digest.encode("ascii") + b" " + text + b"\n"


def entry_of(line: bytes, where: str) -> Entry:
    """The entry of a line without its newline. Raises ``ChainDamaged``."""
    digest, space, text = line.partition(b" ")
    if not space or hashlib.sha256(text).hexdigest().encode("ascii") != digest:
        raise ChainDamaged(f"{where}: the line is not what its hash says: it was changed after it was written")
    try:
        fields = json.loads(text)
        fields["previous"]
        return Entry(int(fields["number"]), digest.decode("ascii"), fields)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ChainDamaged(f"{where}: the line is no entry: {error}") from error


def _is_torn(tail: bytes, zeros: bool = False) -> bool:
    """Whether what stands behind the last newline may be the beginning of a line that is not written whole;
    ``zeros``: also where zeros stand behind it."""
    if zeros:
        tail = tail.rstrip(b"\0")
    digest, _, text = tail.partition(b" ")
    whole = {hashlib.sha256(text[:end]).hexdigest().encode("ascii") for end in (len(text), -1)}
    return len(tail) < LINE_BYTES_MAX and _TORN.fullmatch(tail) is not None and digest not in whole


def is_written(file: IO[bytes]) -> bool:
    """Whether its writer has it open."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def without_torn(text: bytes, *, zeros: bool = False) -> bytes:
    """A file's bytes without the beginning of a line at their end. Damage there stays."""
    end = text.rfind(b"\n") + 1
    return text[:end] if _is_torn(text[end:], zeros) else text


def _ends_in_no_line(where: str | Path) -> ChainDamaged:
    return ChainDamaged(f"{where}: the file ends in no whole line: it was cut or changed, or its writer died")


def older(path: Path) -> Path:
    """Where a file with a bound goes when it is full."""
    return path.with_name(path.name + ".1")


def set_aside(path: Path) -> Path:
    """Takes a damaged file, and the older one before it, out of the way of a new one; gives its new place."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1_000_000}")
    for file, place in ((older(path), older(aside)), (path, aside)):
        with suppress(FileNotFoundError):
            file.replace(place)
    return aside


def entries(path: Path, *, bounded: bool = False) -> Iterator[Entry]:
    """The entries of a file from its first to its last line, each checked, without one that is being written. Raises
    ``ChainDamaged``, and ``OSError`` as ``owner.opened`` does.

    Where the file does not begin with the first entry of all, its first line is taken as it is.
    """
    last: Entry | None = None
    folder = path.parent.parent
    with reading(folder, path.relative_to(folder)) as file:
        for index, line in enumerate(file, 1):
            where = f"{path}:{index}"
            if not line.endswith(b"\n"):
                torn = _is_torn(line, bounded)
                if torn and (bounded or is_written(file)):
                    return
                # Its writer may have been done between the two looks.
                line += file.readline() if torn else b""
                if not line.endswith(b"\n"):
                    raise _ends_in_no_line(where)
            entry = entry_of(line[:-1], where)
            if last is None and entry.number == 1 and entry.fields["previous"] != FIRST:
                raise ChainDamaged(f"{where}: the first entry of all names another before it")
            if last is not None:
                if entry.number != last.number + 1:
                    raise ChainDamaged(
                        f"{where}: entry {entry.number} follows entry {last.number}: something was left out or put in"
                    )
                if entry.fields["previous"] != last.hash:
                    raise ChainDamaged(f"{where}: entry {entry.number} does not follow the entry that stands before it")
            last = entry
            yield entry


def all_entries(path: Path, *, bounded: bool = False) -> Iterator[Entry]:
    """Those of the older file too, where there is one."""
    last: Entry | None = None
    for file in (older(path), path):
        if not file.exists():
            continue
        for entry in entries(file, bounded=bounded):
            if last is not None and file == path:
                if entry.number != last.number + 1 or entry.fields["previous"] != last.hash:
                    raise ChainDamaged(f"{file}:1: entry {entry.number} does not go on from {older(path)}")
                last = None
            elif file != path:
                last = entry
            yield entry


class Chain:
    """The one writer of a file; ended by ``close``."""

    def __init__(self, path: Path, *, size_max: int | None = None) -> None:
        self.path = path
        self._size_max = size_max
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            give(path.parent, path.parent.parent.stat())
        self._file = self._opened()
        try:
            self.last = self._find_last()
            if self.last is None and size_max is not None and older(path).exists():
                # It died between renaming the old file and the first line of the new one.
                for entry in entries(older(path), bounded=True):
                    self.last = entry
        except ChainDamaged:
            self.close()
            raise

    def _opened(self) -> int:
        folder, name = self.path.parent.parent, self.path.relative_to(self.path.parent.parent)
        file = opened(folder, name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise ChainInUse(f"another process writes {self.path}: end it, or wait until it is done") from None
        return file

    def _begin_next(self) -> None:
        """The full file goes, and another goes on from it. What fails here is tried again at the next entry: until the
        next file is open, the full one stays so."""
        self.sync()
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._file), self.path.stat()):
                self.path.replace(older(self.path))
        full, self._file = self._file, self._opened()
        os.close(full)

    def _find_last(self) -> Entry | None:
        size = os.fstat(self._file).st_size
        start = max(0, size - 2 * LINE_BYTES_MAX)
        tail = os.pread(self._file, size - start, start)
        lines = tail if self._size_max is None else without_torn(tail, zeros=True)
        if not lines.endswith(b"\n") and (lines or start):
            # It is kept as it is: whoever looks at it needs the last byte too.
            raise _ends_in_no_line(self.path)
        last = entry_of(lines.splitlines()[-1], f"{self.path}, last line") if lines else None
        if len(lines) < len(tail):
            os.ftruncate(self._file, start + len(lines))
        return last

    @property
    def number(self) -> int:
        """Of the last entry; 0: there is none."""
        return 0 if self.last is None else self.last.number

    def append(self, fields: Mapping[str, Any]) -> Entry:
        """Writes an entry; it is durable after ``sync``. ``OSError``: nothing of it stands in the file."""
        previous = FIRST if self.last is None else self.last.hash
        whole = {"number": self.number + 1, "previous": previous, **fields}
        digest, line = line_of(whole)
        size = os.fstat(self._file).st_size
        if self._size_max is not None and size + len(line) > self._size_max:
            self._begin_next()
            size = 0
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            # A full disk takes a part of it, and the next line must not stand behind that.
            os.ftruncate(self._file, size)
            raise
        self.last = Entry(self.number + 1, digest, whole)
        return self.last

    def sync(self) -> None:
        os.fdatasync(self._file)

    def close(self) -> None:
        os.close(self._file)

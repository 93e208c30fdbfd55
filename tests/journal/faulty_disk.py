"""A disk in memory that fails in the ways disks fail, where a test says.

What was written is seen at once and durable only after ``fdatasync`` (names: after ``fsync_folder``), as with a page
cache. ``crash`` gives the disk that is found afterwards: of what was not durable each sector of 512 bytes has been
written, or not. ``lose_write``, ``misdirect_write`` and ``flip`` are what a disk does that lies,
``break_sector`` one that is worn out.
"""

from __future__ import annotations

import errno
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random

from simswitch.journal.disk import Bytes
from simswitch.journal.errors import FolderInUse

SECTOR_BYTES = 512
BLOCK_BYTES = 4096
_WRITES_KEPT = 4


class Content:
    """One file, whatever its name is at the moment.

    ``_undo`` holds what stood where something was written since the last sync: offset, the bytes before, how many were
    written, and the size of the file before.
    """

    def __init__(self, data: bytes | bytearray = b"") -> None:
        self.seen = bytearray(data)
        self._undo: list[tuple[int, bytes, int, int]] = []
        self._shared = False
        self.writes: deque[tuple[int, bytes, bytes]] = deque(maxlen=_WRITES_KEPT)
        """The last ones: offset, the bytes before, the bytes written."""
        self.broken: int | None = None
        """A sector that can't be read any more."""

    @property
    def durable(self) -> bytearray:
        found = bytearray(self.seen)
        for offset, before, count, size in reversed(self._undo):
            found[offset : offset + max(count, len(before))] = before
            del found[size:]
        return found

    def own(self) -> None:
        """Before a change: other disks may share the bytes."""
        if self._shared:
            self.seen = bytearray(self.seen)
            self._shared = False

    def write(self, offset: int, data: bytes) -> None:
        self.own()
        size = len(self.seen)
        if size < offset:
            self.write(size, bytes(offset - size))
            size = offset
        before = bytes(self.seen[offset : offset + len(data)])
        self._undo.append((offset, before, len(data), size))
        self.writes.append((offset, before, data))
        self.seen[offset : offset + len(data)] = data

    def truncate(self, size: int) -> None:
        self.own()
        self._undo.append((size, bytes(self.seen[size:]), 0, len(self.seen)))
        del self.seen[size:]

    def sync(self) -> None:
        self._undo.clear()

    def shared(self) -> Content:
        """The same bytes for another disk; who writes first takes a copy."""
        other = Content.__new__(Content)
        other.seen = self.seen
        other._undo = []
        other._shared = self._shared = True
        other.writes = self.writes.copy()
        other.broken = None
        return other

    def after_crash(self, random: Random, faults: Counter[str]) -> Content:
        """What is found of it: each sector that was not durable was written, or not."""
        if not self._undo:
            return self.shared()
        durable = self.durable
        found = Content(durable)
        found.writes = self.writes.copy()
        size = random.choice((len(durable), len(self.seen)))
        found.seen = found.seen.ljust(size, b"\0")[:size]
        # A disk carries writes out whole, up to some sector, or in any order.
        way = random.choice(("none", "all", "prefix", "each"))
        states = []
        for offset, before, count, _ in self._undo:
            first, end = offset // SECTOR_BYTES, -(-(offset + max(count, len(before))) // SECTOR_BYTES)
            sectors = range(first, end)
            until = random.randrange(first, end + 1) if way == "prefix" else end
            written = 0
            for sector in sectors:
                if way == "all" or (way == "prefix" and sector < until) or (way == "each" and random.random() < 0.5):
                    at, over = sector * SECTOR_BYTES, min((sector + 1) * SECTOR_BYTES, size, len(self.seen))
                    if at < over:
                        found.seen[at:over] = self.seen[at:over]
                    written += 1
            states.append(written / max(len(sectors), 1))
        faults["torn"] += any(0 < state < 1 for state in states)
        faults["lost"] += any(state == 0 for state in states)
        faults["reordered"] += any(earlier < 1 and later > 0 for earlier, later in pairwise(states))
        return found


class FaultyFile:
    def __init__(self, disk: FaultyDisk, name: str, content: Content) -> None:
        self._disk = disk
        self._name = name
        self.content = content
        self.closed = False

    def pwrite(self, buffers: Sequence[Bytes], offset: int) -> None:
        self.content.write(offset, b"".join(bytes(buffer) for buffer in buffers))
        # A write that fails may have been carried out in part: a crash then decides sector by sector.
        self._disk.event("pwrite", self._name)

    def pread(self, size: int, offset: int) -> bytes:
        self._sound(offset, size)
        return bytes(self.content.seen[offset : offset + size])

    def pread_into(self, place: memoryview, offset: int) -> None:
        self._sound(offset, place.nbytes)
        place[:] = self.content.seen[offset : offset + place.nbytes]

    def _sound(self, offset: int, size: int) -> None:
        broken = self.content.broken
        if broken is not None and offset < (broken + 1) * SECTOR_BYTES and broken * SECTOR_BYTES < offset + size:
            raise OSError(errno.EIO, f"Input/output error at byte {offset}")

    def truncate(self, size: int) -> None:
        self.content.truncate(size)
        self._disk.event("truncate", self._name)

    def fdatasync(self) -> None:
        self._disk.event("fdatasync", self._name)
        self.content.sync()

    def settle(self) -> None:
        self._disk.event("settle", self._name)
        self.content.sync()
        if self._disk.settled is not None:
            self._disk.settled(self._name, self.content)

    def size(self) -> int:
        return len(self.content.seen)

    def close(self) -> None:
        self.closed = True


class FaultyLock:
    def __init__(self, disk: FaultyDisk) -> None:
        self._disk = disk

    def release(self) -> None:
        self._disk.locked = False


class FaultyDisk:
    def __init__(self) -> None:
        self.seen: dict[str, Content] = {}
        self.durable: dict[str, Content] = {}
        self.free = 1 << 40
        self.locked = False
        self.events: list[str] = []
        self.places: list[str] = []
        """Of each event: the name that its file had when it was opened, or both of a renaming."""
        self.fail_at: int | None = None
        """The event with this number, counted from 0, fails."""
        self.failure = OSError(errno.EIO, "the disk failed")
        self.faults: Counter[str] = Counter()
        """What crashes have done, by kind."""
        self.before: Callable[[str], object] | None = None
        """Called before each event; may block."""
        self.settled: Callable[[str, Content], object] | None = None
        """Called when the cache of a file is dropped; may change what the disk has made of its writes."""

    def event(self, name: str, place: str = "") -> None:
        if self.before is not None:
            self.before(name)
        number = len(self.events)
        self.events.append(name)
        self.places.append(place)
        if number == self.fail_at:
            raise self.failure

    def open(self, name: str, *, create: bool = False, writable: bool = True, read_ahead: bool = True) -> FaultyFile:
        if create:
            self.event("create", name)
            self.seen[name] = Content()
        del writable, read_ahead
        if name not in self.seen:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return FaultyFile(self, name, self.seen[name])

    def rename(self, source: str, target: str) -> None:
        self.event("rename", f"{source} {target}")
        self.seen[target] = self.seen.pop(source)

    def unlink(self, name: str) -> None:
        self.event("unlink", name)
        self.seen.pop(name, None)

    def fsync_folder(self) -> None:
        self.event("fsync_folder")
        self.durable = dict(self.seen)

    def names(self) -> list[str]:
        return sorted(self.seen)

    def free_bytes(self) -> int:
        return self.free

    def lock(self) -> FaultyLock:
        if self.locked:
            raise FolderInUse("in use by process 1")
        self.locked = True
        return FaultyLock(self)

    def locked_by(self) -> int | None:
        return 1 if self.locked else None

    # ------------------------------------------------------------------------------------------ what tests do to it

    def crash(self, random: Random) -> FaultyDisk:
        """The disk as it is found after the machine lost its power now."""
        after = FaultyDisk()
        after.free = self.free
        after.faults = self.faults
        # Names that were not synced are found, or not; they are never found half.
        names = dict(self.durable)
        for name in {**self.durable, **self.seen}:
            if self.durable.get(name) is not self.seen.get(name) and random.random() < 0.5:
                if name in self.seen:
                    names[name] = self.seen[name]
                else:
                    names.pop(name, None)
        for name, content in names.items():
            after.seen[name] = content.after_crash(random, self.faults)
        after.durable = dict(after.seen)
        return after

    def copy(self) -> FaultyDisk:
        """Another disk with the same content, everything durable and nothing set to fail."""
        other = FaultyDisk()
        other.free = self.free
        for name, content in self.seen.items():
            other.seen[name] = Content(content.seen)
            other.seen[name].writes = content.writes.copy()
        other.durable = dict(other.seen)
        return other

    def flip(self, name: str, offset: int, bit: int = 0) -> None:
        self.seen[name].own()
        self.seen[name].seen[offset] ^= 1 << bit
        self.seen[name].sync()

    def break_sector(self, name: str, offset: int) -> None:
        """The sector with this byte can't be read any more."""
        self.seen[name].broken = offset // SECTOR_BYTES

    def overwrite(self, name: str, offset: int, data: bytes) -> None:
        self.seen[name].own()
        self.seen[name].seen[offset : offset + len(data)] = data
        self.seen[name].sync()

    def lose_write(self, name: str, back: int = 0) -> tuple[int, int]:
        """The last write but ``back`` was called durable and is not there. Gives its place: offset and size."""
        offset, before, data = self.seen[name].writes[-1 - back]
        self.overwrite(name, offset, before.ljust(len(data), b"\0"))
        return offset, len(data)

    def misdirect_write(self, name: str, back: int, other: str, block: int) -> tuple[int, int]:
        """The same write went to another block, perhaps of another file, over whatever stands there."""
        data = self.seen[name].writes[-1 - back][2]
        place = self.lose_write(name, back)
        room = len(self.seen[other].seen) - block * BLOCK_BYTES
        self.overwrite(other, block * BLOCK_BYTES, data[: max(room, 0)])
        return place

"""A disk in memory that fails in the ways disks fail, where a test says.

What was written is seen at once and durable only after ``fdatasync`` (names: after ``fsync_folder``), as with a page
cache. ``crash`` gives the disk that is found afterwards: of what was not durable each sector of 512 bytes has been
written, or not.
"""

from __future__ import annotations

import copy
import errno
from collections.abc import Callable, Sequence
from random import Random

from simswitch.journal.disk import Bytes
from simswitch.journal.errors import FolderInUse

SECTOR_BYTES = 512


class Content:
    """One file, whatever its name is at the moment."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.durable = bytearray()

    def sync(self) -> None:
        self.durable = bytearray(self.seen)


class FaultyFile:
    def __init__(self, disk: FaultyDisk, content: Content) -> None:
        self._disk = disk
        self.content = content
        self.closed = False

    def pwrite(self, buffers: Sequence[Bytes], offset: int) -> None:
        data = b"".join(bytes(buffer) for buffer in buffers)
        seen = self.content.seen
        if len(seen) < offset + len(data):
            seen.extend(bytes(offset + len(data) - len(seen)))
        seen[offset : offset + len(data)] = data
        # A write that fails may have been carried out in part: a crash then decides sector by sector.
        self._disk.event("pwrite")

    def pread(self, size: int, offset: int) -> bytes:
        return bytes(self.content.seen[offset : offset + size])

    def pread_into(self, place: memoryview, offset: int) -> None:
        place[:] = self.pread(place.nbytes, offset)

    def truncate(self, size: int) -> None:
        del self.content.seen[size:]
        self._disk.event("truncate")

    def fdatasync(self) -> None:
        self._disk.event("fdatasync")
        self.content.sync()

    def settle(self) -> None:
        self.content.sync()

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
        self.fail_at: int | None = None
        """The event with this number, counted from 0, fails."""
        self.failure = OSError(errno.EIO, "the disk failed")
        self.before: Callable[[str], object] | None = None
        """Called before each event; may block."""

    def event(self, name: str) -> None:
        if self.before is not None:
            self.before(name)
        number = len(self.events)
        self.events.append(name)
        if number == self.fail_at:
            raise self.failure

    def open(self, name: str, *, create: bool = False, writable: bool = True, read_ahead: bool = True) -> FaultyFile:
        if create:
            self.event("create")
            self.seen[name] = Content()
        del writable, read_ahead
        if name not in self.seen:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return FaultyFile(self, self.seen[name])

    def rename(self, source: str, target: str) -> None:
        self.event("rename")
        self.seen[target] = self.seen.pop(source)

    def unlink(self, name: str) -> None:
        self.event("unlink")
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
        # Names that were not synced are found, or not; they are never found half.
        names = dict(self.durable)
        for name in {**self.durable, **self.seen}:
            if self.durable.get(name) is not self.seen.get(name) and random.random() < 0.5:
                if name in self.seen:
                    names[name] = self.seen[name]
                else:
                    names.pop(name, None)
        for name, content in names.items():
            found = Content()
            size = random.choice((len(content.durable), len(content.seen)))
            found.seen = bytearray(content.durable.ljust(size, b"\0")[:size])
            for start in range(0, min(size, len(content.seen)), SECTOR_BYTES):
                end = min(start + SECTOR_BYTES, size)
                if found.seen[start:end] != content.seen[start:end] and random.random() < 0.5:
                    found.seen[start:end] = content.seen[start:end]
            found.sync()
            after.seen[name] = found
        after.durable = dict(after.seen)
        return after

    def copy(self) -> FaultyDisk:
        """Another disk with the same content, everything durable and nothing set to fail."""
        other = FaultyDisk()
        other.free = self.free
        for name, content in self.seen.items():
            other.seen[name] = copy.copy(content)
            other.seen[name].seen = bytearray(content.seen)
            other.seen[name].sync()
        other.durable = dict(other.seen)
        return other

    def flip(self, name: str, offset: int, bit: int = 0) -> None:
        self.seen[name].seen[offset] ^= 1 << bit
        self.seen[name].sync()

    def overwrite(self, name: str, offset: int, data: bytes) -> None:
        self.seen[name].seen[offset : offset + len(data)] = data
        self.seen[name].sync()

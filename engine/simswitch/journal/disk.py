"""All that the journal may do to a disk, so that a test can put a disk that fails below it.

A disk is one folder without sub-folders; files go by their names in it. ``RealDisk`` is the only place of the journal
that calls the operating system.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from simswitch.journal.errors import FolderInUse
from simswitch.owner import name as name_of
from simswitch.owner import opened, others_may_write, refuse_ways_of_others

Bytes = bytes | bytearray | memoryview

LOCK_NAME = "lock"
FREE_BYTES_S = 0.01
"""For so long what was free on the disk is believed: asking takes longer than the rest of admitting a group."""


class DiskFile(Protocol):
    def pwrite(self, buffers: Sequence[Bytes], offset: int) -> None:
        """Writes all the buffers one behind the other at ``offset``, or raises ``OSError``; never a part in silence."""

    def pread(self, size: int, offset: int) -> Bytes:
        """The bytes at ``offset``; fewer than ``size`` only where the file ends."""

    def pread_into(self, place: memoryview, offset: int) -> None:
        """The bytes at ``offset``, as many as ``place`` takes, or ``OSError``. Several threads may read at a time."""

    def truncate(self, size: int) -> None:
        """Cuts the file to ``size`` bytes."""

    def fdatasync(self) -> None:
        """Returns when everything written to this file before is durable."""

    def settle(self) -> None:
        """After it, what is read is what the disk holds, not what a dead process had only handed to the page cache.

        A failed fsync may leave pages in the cache that look written and are not. Syncing again would call them
        durable; dropping them shows the truth.
        """

    def size(self) -> int: ...

    def close(self) -> None: ...


class Lock(Protocol):
    def release(self) -> None: ...


class Disk(Protocol):
    def open(self, name: str, *, create: bool = False, writable: bool = True, read_ahead: bool = True) -> DiskFile:
        """Without ``read_ahead`` no more is read than was asked for, so that nobody has to wait for the rest."""

    def rename(self, source: str, target: str) -> None:
        """Replaces ``target`` at once or not at all. Durable after ``fsync_folder``."""

    def unlink(self, name: str) -> None:
        """Removes a file; one that is gone already is no error, since the server and its follower both clear away."""

    def fsync_folder(self) -> None: ...

    def names(self) -> list[str]: ...

    def free_bytes(self) -> int: ...

    def lock(self) -> Lock:
        """Holds the folder for this process. Raises ``FolderInUse``, naming the process that has it."""

    def locked_by(self) -> int | None:
        """The process that holds the folder, without touching the lock."""


class RealFile:
    __slots__ = ("_fd", "_path")

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path

    def pwrite(self, buffers: Sequence[Bytes], offset: int) -> None:
        size = sum(map(len, buffers))
        written = os.pwritev(self._fd, buffers, offset)
        if written != size:
            raise OSError(errno.EIO, f"only {written} of {size} bytes were written")

    def pread(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self._fd, size, offset)
        except OSError as error:
            raise self._unreadable(error, offset) from error

    def pread_into(self, place: memoryview, offset: int) -> None:
        try:
            size = os.preadv(self._fd, (place,), offset)
        except OSError as error:
            raise self._unreadable(error, offset) from error
        if size != place.nbytes:
            raise OSError(errno.EIO, f"only {size} of {place.nbytes} bytes could be read at byte {offset}", self._path)

    def _unreadable(self, error: OSError, offset: int) -> OSError:
        return OSError(error.errno, f"{error.strerror} at byte {offset}", self._path)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def fdatasync(self) -> None:
        os.fdatasync(self._fd)

    def settle(self) -> None:
        os.fdatasync(self._fd)
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RealLock:
    """Two locks: on the file, which names the process, and on the folder itself, for a file can be removed."""

    __slots__ = ("_fd", "_folder_fd")

    def __init__(self, fd: int, folder_fd: int) -> None:
        self._fd = fd
        self._folder_fd = folder_fd

    def release(self) -> None:
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            os.close(self._folder_fd)
            self._fd = -1


class RealDisk:
    """A folder of the file system, made when it is missing and ``create`` is set."""

    def __init__(self, folder: str | os.PathLike[str], *, create: bool = True) -> None:
        self.folder = os.fspath(folder)
        if create:
            make_folders(self.folder, 0o750)
        elif not os.path.isdir(self.folder):
            raise FileNotFoundError(errno.ENOENT, "there is no such data folder", self.folder)
        self._free_bytes = 0
        self._free_until_s = 0.0

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def open(self, name: str, *, create: bool = False, writable: bool = True, read_ahead: bool = True) -> RealFile:
        flags = os.O_RDWR if writable else os.O_RDONLY
        if create:
            flags |= os.O_CREAT | os.O_TRUNC
        path = self._path(name)
        fd = opened(self.folder, name, flags)
        if not read_ahead:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        return RealFile(fd, path)

    def rename(self, source: str, target: str) -> None:
        os.rename(self._path(source), self._path(target))

    def unlink(self, name: str) -> None:
        try:
            os.unlink(self._path(name))
        except FileNotFoundError:
            return

    def fsync_folder(self) -> None:
        sync_folder(self.folder)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    def free_bytes(self) -> int:
        now_s = time.monotonic()
        if now_s >= self._free_until_s:
            state = os.statvfs(self.folder)
            self._free_bytes = state.f_bavail * state.f_frsize
            self._free_until_s = now_s + FREE_BYTES_S
        return self._free_bytes

    def lock(self) -> RealLock:
        fd = opened(self.folder, LOCK_NAME, os.O_RDWR | os.O_CREAT)
        folder_fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            process = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            os.close(folder_fd)
            raise FolderInUse(
                f"{self.folder} is in use by process {process}: one data folder has one server. "
                "Stop that one first, or give this one another folder"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return RealLock(fd, folder_fd)

    def locked_by(self) -> int | None:
        # Trying the lock would refuse a server that starts at this instant, so the kernel's table is read instead.
        places = [os.stat(path) for path in (self.folder, self._path(LOCK_NAME)) if os.path.exists(path)]
        with open("/proc/locks", encoding="ascii") as table:
            return holder(table, places)


def holder(table: Iterable[str], places: Sequence[os.stat_result]) -> int | None:
    """The process that holds one of the files, by the lines of ``/proc/locks``: a word for the kind of lock, the
    process, and the file as device (major and minor, in hexadecimal) and inode. Those that wait are marked ``->``."""
    for line in table:
        words = line.split()
        if words[1] != "FLOCK":
            continue
        process = int(words[4])
        device, _, inode = words[5].rpartition(":")
        for place in places:
            if int(inode) != place.st_ino:
                continue
            # Some file systems show programs another device than they tell the kernel; then the process is asked.
            if device == f"{os.major(place.st_dev):02x}:{os.minor(place.st_dev):02x}" or _has_open(process, place):
                return process
    return None


def _has_open(process: int, place: os.stat_result) -> bool:
    """Whether a process has a file open, or nobody may know."""
    folder = f"/proc/{process}/fd"
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
    for name in names:
        try:
            if os.path.samestat(os.stat(f"{folder}/{name}"), place):
                return True
        except FileNotFoundError:
            continue
    return False


def sync_folder(folder: str) -> None:
    """The names in it are durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folders(folder: str, mode: int) -> None:
    """A folder of this mode, and those that it stands in as far as they are missing; their names are durable, as what
    is written into them will be."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(os.path.abspath(folder))
    make_folders(parent, 0o777)
    os.mkdir(folder, mode)
    sync_folder(parent)


def make_own_folder(folder: Path) -> None:
    """A folder in which nobody else has put anything, or can: a new one, or one of whoever runs this (or of root) that
    is there. Raises ``OSError``."""
    refuse_ways_of_others(folder)
    make_folders(os.fspath(folder.parent), 0o777)
    try:
        folder.mkdir(0o700)
    except FileExistsError:
        found = folder.lstat()
        why = ""
        if not stat.S_ISDIR(found.st_mode):
            why = "it is no folder itself"
        elif found.st_uid not in (0, os.geteuid()):
            why = f"it belongs to {name_of(found.st_uid)}, who may have put something into it"
        elif not os.geteuid() and others_may_write(found):
            why = "others may write it, and may have put something into it"
        if why:
            raise PermissionError(errno.EPERM, f"{why}: move it away, or name another one", os.fspath(folder)) from None
        return
    try:
        sync_folder(os.fspath(folder.parent))
    except OSError:
        folder.rmdir()
        raise

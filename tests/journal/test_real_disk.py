"""That the real disk carries out what the disk in memory counts: the crash tests run on that one, and speak for both.

The same lives of a server and its follower on either; each call of the operating system that changes or syncs
something is compared with the event that stands for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from simswitch.cell import Capacity, Cell, VirtualClock
from simswitch.journal.disk import LOCK_NAME, Disk, RealDisk, make_folders
from simswitch.journal.follower import Follower, FollowerSettings
from simswitch.journal.format import BLOCK_BYTES, PREPARING_SUFFIX, segment_name

from tests.journal.faulty_disk import FaultyDisk
from tests.journal.tiny_machine import number_run, numbers_of, tiny_kind
from tests.journal.written import JOURNAL_ID, settings

EAGER = FollowerSettings(replay_s=1e9, bytes_max=1, interval_s=1e9)
Event = tuple[str, str]
"""What happened, and the name that its file had when it was opened; both names of a renaming."""


def opened(disk: Disk) -> Cell:
    return Cell.open(
        "either",
        disk=disk,
        machine=tiny_kind(1),
        capacity=Capacity(1, 1, 1),
        journal=settings(6),
        clock=VirtualClock(1000),
        entropy=lambda size: JOURNAL_ID[:size],
        seeds=lambda: 7,
        fail_stop=lambda _: None,
    )


def live(disk: Disk) -> None:
    """Segments begun and prepared, snapshots of the follower and of a clean end, all that is removed; then a last write
    that is torn, and an unfinished file, which recovery clears away."""
    for first in (0, 100, 200):
        cell = opened(disk)
        follower = Follower(disk, tiny_kind(1), EAGER)
        for number in range(first, first + 9):
            cell.step(number_run(number, 24 if number % 3 else 5000))
            if number % 5 == 0:
                while follower.turn():
                    pass
        follower.close()
        cell.close()
    last = max(name for name in disk.names() if name.endswith(".journal") and _begun(disk, name))
    file = disk.open(last)
    file.pwrite((b"torn",), file.size() - BLOCK_BYTES)
    file.close()
    disk.open(segment_name(99) + ".preparing", create=True).close()
    cell = opened(disk)
    cell.step(number_run(300))
    assert numbers_of(cell.machine)[-2:] == [208, 300]
    cell.close(snapshot=False)


def _begun(disk: Disk, name: str) -> bool:
    file = disk.open(name, writable=False)
    try:
        return any(file.pread(BLOCK_BYTES, 0))
    finally:
        file.close()


@contextmanager
def recorded(folder: Path) -> Iterator[list[Event]]:
    """The calls below a folder that change or sync something, as ``FaultyDisk`` names them."""
    events: list[Event] = []
    names: dict[int, str] = {}
    real = {name: getattr(os, name) for name in ("open", "close", "fdatasync", "posix_fadvise")}

    def name_of(number: int) -> str:
        if number in names:
            return names[number]
        return Path(os.readlink(f"/proc/self/fd/{number}")).name

    def opening(path: Any, flags: int, *rest: Any, dir_fd: int | None = None) -> int:
        number: int = real["open"](path, flags, *rest, dir_fd=dir_fd)
        names[number] = Path(path).name
        if flags & os.O_TRUNC:
            events.append(("create", names[number]))
        return number

    def closing(number: int) -> None:
        names.pop(number, None)
        real["close"](number)

    def dropping(number: int, offset: int, size: int, advice: int) -> None:
        if advice == os.POSIX_FADV_DONTNEED:
            # All of it, and only what was synced before is dropped at all.
            assert (offset, size) == (0, 0)
            assert events.pop() == ("fdatasync", name_of(number))
            events.append(("settle", name_of(number)))
        real["posix_fadvise"](number, offset, size, advice)

    def after(name: str, place: Callable[..., str], event: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def made(*arguments: Any) -> Any:
            found = call(*arguments)
            if (where := place(*arguments)) != LOCK_NAME:
                events.append((event, where))
            return found

        return made

    def of_number(number: int, *_: Any) -> str:
        return name_of(number)

    def of_folder(number: int) -> str:
        assert Path(os.readlink(f"/proc/self/fd/{number}")) == folder
        return ""

    def of_path(path: str) -> str:
        return Path(path).name

    def of_both(source: str, target: str) -> str:
        return f"{Path(source).name} {Path(target).name}"

    watched: Sequence[tuple[str, Callable[..., Any]]] = (
        ("open", opening),
        ("close", closing),
        ("posix_fadvise", dropping),
        ("pwritev", after("pwritev", of_number, "pwrite")),
        ("fdatasync", after("fdatasync", of_number, "fdatasync")),
        ("fsync", after("fsync", of_folder, "fsync_folder")),
        ("ftruncate", after("ftruncate", of_number, "truncate")),
        ("unlink", after("unlink", of_path, "unlink")),
        ("rename", after("rename", of_both, "rename")),
    )
    with ExitStack() as patches:
        for name, call in watched:
            patches.enter_context(patch.object(os, name, call))
        yield events


def test_i6_the_real_disk_does_what_the_crash_tests_count_in_that_order(tmp_path: Path) -> None:
    expected = FaultyDisk()
    live(expected)
    disk = RealDisk(tmp_path)
    with recorded(tmp_path) as events:
        live(disk)
    counted = list(zip(expected.events, expected.places, strict=True))
    assert events == counted
    met = {event for event, _ in counted}
    assert met == {"create", "pwrite", "fdatasync", "settle", "rename", "fsync_folder", "unlink", "truncate"} - (
        # Snapshots of a tiny machine are too small to be removed in steps.
        {"truncate"}
    )
    # A segment is written and durable in pieces before it has its name, so that no commit has to wait for more than its
    # own bytes.
    prepared = [event for event, place in counted if segment_name(2) + PREPARING_SUFFIX in place]
    assert prepared[:4] == ["create", "pwrite", "fdatasync", "rename"]
    assert {"rename", "settle"} <= {event for event, place in counted if ".state" in place}
    assert {name: (tmp_path / name).read_bytes() for name in disk.names() if name != LOCK_NAME} == {
        name: bytes(content.seen) for name, content in expected.seen.items()
    }


def test_a_folder_that_is_made_is_durable_in_the_one_that_it_stands_in(tmp_path: Path) -> None:
    made: list[tuple[str, str]] = []
    real_mkdir, real_fsync = os.mkdir, os.fsync

    def mkdir(path: str, mode: int) -> None:
        real_mkdir(path, mode)
        made.append(("made", str(Path(path).relative_to(tmp_path))))

    def fsync(number: int) -> None:
        real_fsync(number)
        made.append(("synced", str(Path(os.readlink(f"/proc/self/fd/{number}")).relative_to(tmp_path))))

    with patch.object(os, "mkdir", mkdir), patch.object(os, "fsync", fsync):
        make_folders(str(tmp_path / "a" / "b" / "c"), 0o750)
        make_folders(str(tmp_path / "a" / "b"), 0o750)
    assert made == [
        ("made", "a"),
        ("synced", "."),
        ("made", "a/b"),
        ("synced", "a"),
        ("made", "a/b/c"),
        ("synced", "a/b"),
    ]

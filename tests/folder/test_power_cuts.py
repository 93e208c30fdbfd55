"""The power is cut, or the disk full, at every durable point of a backup and of a restore.

The real functions run on a real folder. At each sync an image is made of what a power cut might leave now: a name that
was made, changed or removed since its folder was synced is there or is not, a file has what was synced of it or what it
has now. SQLite syncs by itself, which nobody sees here; so nothing of it counts before it is synced once more.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from simswitch.folder import restore as restoring
from simswitch.folder.apart import Refused
from simswitch.folder.backup import backup
from simswitch.folder.check import check_folder
from simswitch.folder.manifest import MANIFEST, UNFINISHED
from simswitch.folder.restore import restore
from simswitch.journal.disk import RealDisk
from simswitch.journal.errors import JournalError
from simswitch.journal.recovery import real_machine, recover

from tests.folder.lives import SEGMENT_BYTES, Life, leases

SEED = 20200321
IMAGES = 4
"""Of what a power cut leaves, at each sync."""
SYNCS = ("fsync", "fdatasync")


class Disk:
    """What is durable below a folder, and what is not yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}
        """Of each folder, by its number: names, the number of what they name, and whether that is a folder."""
        self._contents: dict[int, bytes] = {}
        self._note_all(folder)

    def _note_all(self, folder: Path) -> None:
        self.synced(folder)
        for path in folder.iterdir():
            if path.is_dir():
                self._note_all(path)
            else:
                self.synced(path)

    @staticmethod
    def _listed(folder: Path) -> dict[str, tuple[int, bool]]:
        return {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(folder)}

    def synced(self, path: Path) -> None:
        number = path.stat().st_ino
        if path.is_dir():
            self._names[number] = self._listed(path)
        else:
            self._contents[number] = path.read_bytes()

    def image(self, target: Path, chance: Random) -> None:
        """What a power cut leaves."""
        now: dict[int, Path] = {path.stat().st_ino: path for path in (self._folder, *self._folder.rglob("*"))}
        self._make(self._folder.stat().st_ino, target, now, chance)

    def _make(self, number: int, target: Path, now: dict[int, Path], chance: Random) -> None:
        target.mkdir()
        durable = self._names.get(number, {})
        current = self._listed(now[number]) if number in now else durable
        renamed = {named for named, _ in current.values()} & {named for named, _ in durable.values()}
        moved = chance.random() < 0.5
        for name in sorted(durable.keys() | current.keys()):
            before, after = durable.get(name), current.get(name)
            if before == after:
                found = after
            elif (after or before or (0, False))[0] in renamed:
                found = after if moved else before
            else:
                found = chance.choice((before, after))
            if found is None:
                continue
            named, is_folder = found
            if is_folder:
                self._make(named, target / name, now, chance)
                continue
            contents = [self._contents.get(named, b"")]
            contents += [now[named].read_bytes()] if named in now else []
            (target / name).write_bytes(chance.choice(contents))


def _here(work: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return work(lambda _: None, *arguments)
    except (JournalError, OSError) as error:
        raise Refused(str(error)) from error


@contextmanager
def at_each_sync(disk: Disk, event: Callable[[], object]) -> Iterator[None]:
    """The event comes before each sync of anybody but itself; a sync that it lets happen is noted."""
    under_way = False

    def watched(real: Callable[[int], None]) -> Callable[[int], None]:
        def sync(number: int) -> None:
            nonlocal under_way
            if under_way:
                real(number)
                return
            under_way = True
            try:
                event()
            finally:
                under_way = False
            real(number)
            disk.synced(Path(os.readlink(f"/proc/self/fd/{number}")))

        return sync

    with ExitStack() as patches:
        for name in SYNCS:
            patches.enter_context(patch.object(os, name, watched(getattr(os, name))))
        # A child process would note what is durable for itself alone.
        patches.enter_context(patch.object(restoring, "apart", _here))
        yield


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    life = Life(tmp_path_factory.mktemp("life") / "data")
    life.live(1)
    life.follow()
    life.live(101, 5)
    life.cell.close(snapshot=False)
    return life


def held(folder: Path) -> dict[int, int]:
    machine: Any = recover(RealDisk(folder, create=False), real_machine(), repair=False).machine
    return leases(machine)


def test_a_backup_that_a_power_cut_ends_is_whole_or_refused(life: Life, tmp_path: Path) -> None:
    chance = Random(SEED)
    cuts = whole = 0
    returned = False
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk")

    def cut() -> None:
        nonlocal cuts, whole
        for _ in range(2):
            cuts += 1
            image = tmp_path / "image"
            disk.image(image, chance)
            assert (image / "backup").exists() or not returned, "a backup that was done is gone"
            if (image / "backup").exists():
                try:
                    found = restore(image / "backup", tmp_path / "new", segment_bytes=SEGMENT_BYTES)
                except Refused:
                    assert not returned, "a backup that was done is gone"
                else:
                    whole += 1
                    assert found["sequence"] == max(life.states), "a part of a backup passed for all of it"
                    assert held(tmp_path / "new") == life.epochs
                    shutil.rmtree(tmp_path / "new")
            shutil.rmtree(image)

    with at_each_sync(disk, cut):
        backup(life.folder, tmp_path / "disk" / "backup")
    returned = True
    for _ in range(IMAGES):
        cut()
    assert cuts > 40
    assert whole > 2


@pytest.mark.parametrize("there", [False, True])
def test_a_restore_that_a_power_cut_ends_has_made_all_of_the_folder_or_nothing(
    life: Life, tmp_path: Path, there: bool
) -> None:
    chance = Random(SEED)
    backup(life.folder, tmp_path / "backup")
    (tmp_path / "disk").mkdir()
    if there:
        (tmp_path / "disk" / "new").mkdir()
    disk = Disk(tmp_path / "disk")
    cuts = whole = 0
    returned = False
    found: set[tuple[tuple[str, str], ...]] = set()

    def cut() -> None:
        nonlocal cuts, whole
        for _ in range(IMAGES):
            cuts += 1
            image = tmp_path / "image"
            disk.image(image, chance)
            made = (image / "new").exists() and any((image / "new").iterdir())
            assert made or not returned, "a folder that was made is gone"
            if made:
                whole += 1
                checked = check_folder(image / "new")
                assert checked.sound, checked.parts
                found.add(tuple((part.part, part.text) for part in checked.parts))
                assert held(image / "new") == life.epochs
            elif (image / "new.restoring").exists() and cuts % 10 == 0:
                # Whoever tries again is not in the way of what was left.
                restore(tmp_path / "backup", image / "new", segment_bytes=SEGMENT_BYTES)
                assert held(image / "new") == life.epochs
            shutil.rmtree(image)

    with at_each_sync(disk, cut):
        restore(tmp_path / "backup", tmp_path / "disk" / "new", segment_bytes=SEGMENT_BYTES)
    returned = True
    cut()
    assert cuts > 40
    # Those when it had returned, and one that the last sync left whole.
    assert whole > IMAGES
    # An empty history is sound as well, and so is a chain without entries.
    assert found == {tuple((part.part, part.text) for part in check_folder(tmp_path / "disk" / "new").parts)}


@pytest.mark.parametrize("what", ["backup", "restore"])
def test_a_disk_that_fails_at_any_sync_ends_in_a_refusal_that_says_so(life: Life, tmp_path: Path, what: str) -> None:
    """The Nth, for every N; what was begun is told from what is whole."""
    backup(life.folder, tmp_path / "source")
    (tmp_path / "disk").mkdir()
    number = 0
    refused = ""
    while refused or not number:
        number += 1
        code = (errno.ENOSPC, errno.EIO)[number % 2]
        goal = tmp_path / "disk" / str(number)
        refused = _fails(life, tmp_path / "source" if what == "restore" else None, goal, number, code)
        assert not refused or os.strerror(code) in refused
        if what == "restore":
            # Its name may be there already, of which nobody knows whether it is durable.
            assert not goal.exists() or check_folder(goal).sound
            assert not goal.with_name(f"{number}.restoring").exists()
        elif (goal / MANIFEST).exists() and not (goal / UNFINISHED).exists():
            assert check_folder(goal).sound
        shutil.rmtree(goal, ignore_errors=True)
    assert number > 20


def _fails(life: Life, source: Path | None, goal: Path, number: int, code: int) -> str:
    """What a backup, or with a source a restore, says when the disk fails at that sync; nothing: it had fewer."""
    left = number

    def fail() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(code, os.strerror(code))

    with at_each_sync(Disk(goal.parent), fail):
        try:
            if source is None:
                backup(life.folder, goal)
            else:
                restore(source, goal, segment_bytes=SEGMENT_BYTES)
        except Refused as error:
            return str(error)
    return ""

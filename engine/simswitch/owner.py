"""Whose the files of a data folder are, and who types.

The service runs as a user of its own, and people type commands as root. So what root makes in a folder belongs to whom
the folder belongs: otherwise the service could not read its own tokens. And nothing in such a folder may be a symbolic
link: whoever the folder belongs to could have root read, make or give away what is not his. What root makes anew, a
backup or a restored folder, it makes where nobody else can put a link, or another folder in its place.
"""

from __future__ import annotations

import errno
import getpass
import os
import pwd
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_LINK = "nothing in a data folder may be a symbolic link: put the file itself there"
_NO_FILE = "it is no file, and nothing else may have that name in a data folder: move it away"
UID_MAX = (1 << 32) - 2
"""The one above means that the owner stays."""
_LINKS_MAX = 40
"""As many as the kernel follows on the way to a file."""


@dataclass(frozen=True, slots=True)
class Owner:
    """As ``os.stat_result`` has it, where that was noted."""

    st_uid: int
    st_gid: int


def opened(folder: str | os.PathLike[str], name: str | os.PathLike[str], flags: int, mode: int = 0o640) -> int:
    """A file of a data folder, as ``os.open``; what root makes is the folder's owner's.

    Raises ``OSError`` where any part of the name is a symbolic link, or the last one no file: a pipe would be waited
    for.
    """
    *within, last = Path(name).parts
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in within:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = inner
        file = os.open(last, flags | os.O_NOFOLLOW | os.O_NONBLOCK, mode, dir_fd=place)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, _NO_FILE)
            if flags & os.O_CREAT:
                give(file, os.fstat(place))
        except OSError:
            os.close(file)
            raise
        return file
    except OSError as error:
        text = error.strerror
        if error.errno == errno.ELOOP or (within and Path(folder, within[0]).is_symlink()):
            text = _LINK
        raise OSError(error.errno, text, os.path.join(folder, name)) from None
    finally:
        os.close(place)


def reading(folder: str | os.PathLike[str], name: str | os.PathLike[str]) -> BinaryIO:
    """A file of a data folder, for reading only. Raises ``OSError`` as ``opened`` does."""
    return os.fdopen(opened(folder, name, os.O_RDONLY), "rb")


def refuse_no_file(path: Path) -> os.stat_result:
    """For a file of a data folder that others open by its name, as SQLite does: which one it is. Raises ``OSError`` as
    ``opened`` does."""
    found = path.lstat()
    mode = found.st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.ELOOP if stat.S_ISLNK(mode) else errno.EINVAL, _LINK if stat.S_ISLNK(mode) else _NO_FILE)
    return found


def refuse_ways_of_others(folder: Path) -> None:
    """Raises ``PermissionError`` where somebody but root may put another folder in the place of one in which root is to
    work: on the way to it, through links too, he may change one. Does nothing unless this process is root."""
    if os.geteuid():
        return
    place, left, links_count = Path("/"), list(folder.absolute().parts[1:]), 0
    while left:
        _refuse_others(folder, place, place.stat())
        part = left.pop(0)
        if part == os.pardir:
            place = place.parent
            continue
        place /= part
        try:
            found = place.lstat()
        except FileNotFoundError:
            return  # root makes it, and what stands in it
        if stat.S_ISLNK(found.st_mode):
            links_count += 1
            if links_count > _LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(folder))
            _refuse_others(folder, place, found)
            left[:0] = Path(os.readlink(place)).parts
            place = place.parent


def _refuse_others(folder: Path, place: Path, found: os.stat_result) -> None:
    # In a folder like /tmp everybody may put something, but take away only what is his.
    shared = others_may_write(found) and not found.st_mode & stat.S_ISVTX
    if found.st_uid or shared:
        whose, who = "may be written by others", "as the user whom it is for"
        if found.st_uid:
            whose, who = f"belongs to {name(found.st_uid)}", f"as {name(found.st_uid)}"
        raise PermissionError(
            errno.EPERM,
            f"{place} {whose}, who could put something else in its place while root works in it: name a folder that "
            f"only root can move, or run this {who} (docs/operating.md, Backup)",
            os.fspath(folder),
        )


def others_may_write(found: os.stat_result) -> bool:
    """Whether what belongs to root may be written by anybody else: root's own group is root. Of a link the mode says
    nothing."""
    others = stat.S_IWOTH | (stat.S_IWGRP if found.st_gid else 0)
    return not stat.S_ISLNK(found.st_mode) and bool(found.st_mode & others)


def give(made: int | str | os.PathLike[str], owner: os.stat_result | Owner) -> None:
    """What was just made, to the owner of the folder whose state that is. Does nothing unless this process is root."""
    if os.geteuid() or not owner.st_uid:
        return
    found = os.fstat(made) if isinstance(made, int) else os.lstat(made)
    if found.st_uid or (stat.S_ISREG(found.st_mode) and found.st_nlink > 1):
        return
    # Where there is no such user, in a container perhaps, it stays root's, who reads it there.
    with suppress(OSError):
        if isinstance(made, int):
            os.fchown(made, owner.st_uid, owner.st_gid)
        else:
            os.lchown(made, owner.st_uid, owner.st_gid)


def name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def who_types() -> str:
    """Who runs this; a container may have no name for him."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())

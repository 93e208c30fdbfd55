"""Whose the files of a data folder are, and who types.

The service runs as a user of its own, and people type commands as root. So what root makes in a folder belongs to whom
the folder belongs: otherwise the service could not read its own tokens. And nothing in such a folder may be a symbolic
link: whoever the folder belongs to could have root read, make or give away what is not his.
"""

from __future__ import annotations

import errno
import getpass
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path


def opened(folder: str | os.PathLike[str], name: str | os.PathLike[str], flags: int, mode: int = 0o640) -> int:
    """A file of a data folder, as ``os.open``; what root makes is the folder's owner's.

    Raises ``OSError`` where any part of the name is a symbolic link.
    """
    *within, last = Path(name).parts
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in within:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = inner
        file = os.open(last, flags | os.O_NOFOLLOW, mode, dir_fd=place)
        if flags & os.O_CREAT:
            give(file, os.fstat(place))
        return file
    except OSError as error:
        text = error.strerror
        if error.errno == errno.ELOOP or (within and Path(folder, within[0]).is_symlink()):
            text = "nothing in a data folder may be a symbolic link: put the file itself there"
        raise OSError(error.errno, text, os.path.join(folder, name)) from None
    finally:
        os.close(place)


def give(made: int | str | os.PathLike[str], owner: os.stat_result) -> None:
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


def give_all(folder: Path, owner: os.stat_result) -> None:
    """A folder of root's own and everything in it, itself last: until then nobody else can change what is in it."""
    for path in (*folder.rglob("*"), folder):
        give(path, owner)


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

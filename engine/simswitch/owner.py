"""Whose the files of a data folder are, and who types.

The service runs as a user of its own, and people type commands as root. So what root makes in a folder belongs to whom
the folder belongs: otherwise the service could not read its own tokens.
"""

from __future__ import annotations

import getpass
import os
import pwd
from contextlib import suppress
from pathlib import Path


def give(made: int | str | os.PathLike[str], owner: os.stat_result) -> None:
    """What was just made, to the owner of the folder whose state that is. Does nothing unless this process is root."""
    if os.geteuid() == 0 and owner.st_uid:
        # Where there is no such user, in a container perhaps, it stays root's, who reads it there.
        with suppress(OSError):
            os.chown(made, owner.st_uid, owner.st_gid)


def give_all(folder: Path, owner: os.stat_result) -> None:
    """A folder and everything in it."""
    for path in (folder, *folder.rglob("*")):
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

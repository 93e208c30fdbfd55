"""What tells a backup from a data folder: ``backup.json``, and ``backup.unfinished`` until all of it is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from simswitch.folder.apart import Refused
from simswitch.owner import UID_MAX, Owner, reading

MANIFEST = "backup.json"
UNFINISHED = "backup.unfinished"


def is_backup(folder: Path) -> bool:
    """Whether it is one, or was to become one."""
    return (folder / MANIFEST).exists() or (folder / UNFINISHED).exists()


def promised(folder: Path) -> int:
    """Up to which record a backup was made; 0: it is none. Raises ``Refused``."""
    found = _read(folder)
    try:
        return 0 if found is None else int(found["source_sequence"])
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(folder, "the record up to which it was made is missing") from error


def history_promised(folder: Path) -> bool:
    """Whether a history is in a backup. Raises ``Refused``."""
    return bool((_read(folder) or {}).get("history"))


def owner_of(folder: Path) -> Owner | None:
    """Whose the folder was that a backup was made of. None: it is no backup, or one that does not say. Raises
    ``Refused``."""
    found = _read(folder) or {}
    if "uid" not in found:
        return None
    numbers = [found["uid"], found.get("gid")]
    if not all(isinstance(number, int) and 0 <= number <= UID_MAX for number in numbers):
        raise _unreadable(folder, "whose folder it was made of is no number of a user and of a group")
    return Owner(*numbers)


def _read(folder: Path) -> dict[str, Any] | None:
    """None: it is no backup."""
    try:
        with reading(folder, MANIFEST) as file:
            found = json.loads(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(folder, str(error.strerror)) from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(folder, "it is no JSON") from error
    if not isinstance(found, dict):
        raise _unreadable(folder, "it is no JSON object")
    return found


def _unreadable(folder: Path, why: str) -> Refused:
    return Refused(f"{folder / MANIFEST} can't be read: {why}. Copy the backup again, or use another one")

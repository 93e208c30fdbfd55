"""What tells a backup from a data folder: ``backup.json``, and ``backup.unfinished`` until all of it is there."""

from __future__ import annotations

import json
from pathlib import Path

from simswitch.folder.apart import Refused

MANIFEST = "backup.json"
UNFINISHED = "backup.unfinished"


def is_backup(folder: Path) -> bool:
    """Whether it is one, or was to become one."""
    return (folder / MANIFEST).exists() or (folder / UNFINISHED).exists()


def promised(folder: Path) -> int:
    """Up to which record a backup was made; 0: it is none. Raises ``Refused``."""
    path = folder / MANIFEST
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["source_sequence"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path} can't be read: {error!r}. Copy the backup again, or use another one") from error

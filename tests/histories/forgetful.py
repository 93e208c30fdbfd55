"""A server that acknowledges before it has written: each record reaches the file some records later.

Run in the place of ``-m simswitch``. A killed process then loses what it acknowledged last, which the histories have to
show. A record may hold one call of a single client, and a lost renewal can be explained; several are not.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence

from simswitch.cli.main import main
from simswitch.journal.disk import Bytes, RealFile
from simswitch.journal.format import RECORD_MAGIC

LATE_RECORDS = 16
_kept: deque[tuple[RealFile, list[bytes], int]] = deque()
_pwrite, _close = RealFile.pwrite, RealFile.close


def _catch_up(left: int) -> None:
    while len(_kept) > left:
        file, buffers, offset = _kept.popleft()
        _pwrite(file, buffers, offset)


def late(self: RealFile, buffers: Sequence[Bytes], offset: int) -> None:
    """Only what has the form of a record is late."""
    if bytes(buffers[0][:8]) != RECORD_MAGIC:
        _pwrite(self, buffers, offset)
        return
    _kept.append((self, [bytes(buffer) for buffer in buffers], offset))
    _catch_up(LATE_RECORDS)


def close(self: RealFile) -> None:
    _catch_up(0)
    _close(self)


if __name__ == "__main__":
    RealFile.pwrite, RealFile.close = late, close  # type: ignore[method-assign]
    sys.argv[0] = "simswitch"
    main()

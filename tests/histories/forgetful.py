"""A server that acknowledges before it has written: each write of the journal reaches the file with the next one.

Run in the place of ``-m simswitch``. A killed process then loses what it acknowledged last, which the histories have to
show.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from simswitch.cli.main import main
from simswitch.journal.disk import Bytes, RealFile
from simswitch.journal.format import RECORD_MAGIC

_kept: list[tuple[RealFile, list[bytes], int]] = []
_pwrite, _close = RealFile.pwrite, RealFile.close


def _catch_up() -> None:
    while _kept:
        file, buffers, offset = _kept.pop()
        _pwrite(file, buffers, offset)


def late(self: RealFile, buffers: Sequence[Bytes], offset: int) -> None:
    """Only what has the form of a record is late."""
    if bytes(buffers[0][:8]) != RECORD_MAGIC:
        _pwrite(self, buffers, offset)
        return
    _catch_up()
    _kept.append((self, [bytes(buffer) for buffer in buffers], offset))


def close(self: RealFile) -> None:
    if _kept and _kept[0][0] is self:
        _catch_up()
    _close(self)


if __name__ == "__main__":
    RealFile.pwrite, RealFile.close = late, close  # type: ignore[method-assign]
    sys.argv[0] = "simswitch"
    main()

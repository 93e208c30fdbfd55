"""The follower's process beside a server: started, started again when it ends, stopped with the server.

    ends with status 4      it has found journal and state to differ: it stays away, and its alarm stays
    ends otherwise          killed, out of memory, the disk failed: it is started again, after 1 s, 2 s, 4 s … 60 s

One that ran for ten minutes has recovered, and the waits begin anew. After ten failures without that it stays away. The
service goes on all the same: what is acknowledged is durable; but without a follower nobody makes snapshots, and the
journal grows. Every end is an error in the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simswitch.journal.disk import RealDisk
from simswitch.journal.follower import EXIT_DAMAGED, read_alarm

log = logging.getLogger("simswitch.service")


@dataclass(frozen=True, slots=True)
class Patience:
    """When a follower that ended is started again."""

    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    recovered_s: float = 600.0
    failures_max: int = 10


async def keep_follower(
    command: Sequence[str], folder: Path, stopping: asyncio.Event, patience: Patience | None = None
) -> None:
    """Keeps a follower running until ``stopping`` is set; then ends it, which reads on to the end first, and
    returns."""
    patience = patience or Patience()
    failures = 0
    stop = asyncio.create_task(stopping.wait())
    try:
        while not stopping.is_set():
            began_s = time.monotonic()
            process = await asyncio.create_subprocess_exec(*command)
            end = asyncio.create_task(process.wait())
            await asyncio.wait((stop, end), return_when=asyncio.FIRST_COMPLETED)
            if stopping.is_set():
                if process.returncode is None:
                    process.terminate()
                await end
                return
            failures = 1 if time.monotonic() - began_s >= patience.recovered_s else failures + 1
            reason = f"the follower has ended with {process.returncode}: " + (
                read_alarm(RealDisk(folder)) or "no reason was left"
            )
            if process.returncode == EXIT_DAMAGED or failures > patience.failures_max:
                log.error("%s. It is not started again, and nobody makes snapshots", reason)
                return
            wait_s = min(patience.first_wait_s * 2 ** (failures - 1), patience.longest_wait_s)
            log.error("%s. It is started again in %g s", reason, wait_s)
            await asyncio.wait((stop,), timeout=wait_s)
    finally:
        stop.cancel()

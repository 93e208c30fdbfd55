"""The processes beside a server, the follower and the learner: started, started again when they end, stopped with the
server.

    ends so that it helps nobody to begin again     it stays away. The follower: it has found journal and state to
                                                    differ, and its alarm stays; the learner: it lacks something
    ends otherwise, or can't be started             killed, out of memory, the disk failed: it is started again, after
                                                    1 s, 2 s, 4 s … 60 s

One that ran for ten minutes has recovered, and the waits begin anew. After ten failures without that it stays away. The
service goes on all the same: what is acknowledged is durable; but without a follower nobody makes snapshots, and the
journal grows. Every end, and every start that fails, is an error in the log, but an end that comes with the server's: a
service manager signals all processes at once.

The follower has the server's last records to read. So it is told to end by the end of its input and by no signal
(``journal.follower``); and if there is none when the server ends, one is started to read them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from simswitch.journal.disk import RealDisk
from simswitch.journal.follower import EXIT_DAMAGED, read_alarm

log = logging.getLogger("simswitch.service")


@dataclass(frozen=True, slots=True)
class Patience:
    """When a process that ended is started again."""

    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    recovered_s: float = 600.0
    failures_max: int = 10
    moment_s: float = 0.25
    """So long an end may be known before the stop that it comes with."""


async def keep_follower(
    command: Sequence[str], folder: Path, stopping: asyncio.Event, patience: Patience | None = None
) -> None:
    """Keeps a follower running until ``stopping`` is set; then has it, or a new one, read on to the end, and
    returns."""
    without = "nobody makes snapshots"
    follower = Kept("follower", command, EXIT_DAMAGED, without, lambda: read_alarm(RealDisk(folder)), reads_on=True)
    await _keep(follower, stopping, patience or Patience())


async def keep_learner(command: Sequence[str], stopping: asyncio.Event, patience: Patience | None = None) -> None:
    """Keeps a learner running until ``stopping`` is set; then ends it, which loses nothing, since it keeps nothing."""
    learner = Kept("learner", command, EXIT_LACKING, "SIMs that are slowed stay unnoticed", lambda: None)
    await _keep(learner, stopping, patience or Patience())


EXIT_LACKING = 2
"""As ``simswitch`` ends when it is called wrongly, or a package is missing."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A process that is kept running."""

    name: str
    command: Sequence[str]
    hopeless: int
    """The status with which it ends when it helps nobody to start it again."""
    without: str
    """What that means for the service."""
    reason: Callable[[], str | None]
    """What it left behind as it ended."""
    reads_on: bool = False
    """It has work at the end, and goes when its standard input ends; another goes on SIGTERM."""

    def end(self, process: subprocess.Popen[bytes]) -> None:
        if self.reads_on:
            _no_input(process)
        else:
            process.terminate()


def _started(
    command: Sequence[str], environment: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], asyncio.Future[int]]:
    """A process, and its end. When it can't be waited for it is ended again, or it would stay beside the next one:
    ``RuntimeError``. asyncio's own way to start one leaves it running then."""
    loop = asyncio.get_running_loop()
    end: asyncio.Future[int] = loop.create_future()
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)

    def ended(status: int) -> None:
        if not end.done():
            end.set_result(status)

    def wait() -> None:
        status = process.wait()
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(ended, status)

    try:
        threading.Thread(target=wait, name="simswitch-kept", daemon=True).start()
    except RuntimeError:
        process.kill()
        process.wait()
        _no_input(process)
        raise
    end.add_done_callback(lambda _: _no_input(process))
    return process, end


def _no_input(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


async def _keep(kept: Kept, stopping: asyncio.Event, patience: Patience) -> None:
    failures = 0
    stop = asyncio.create_task(stopping.wait())
    # What stands in the environment for people's commands is not for these.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIMSWITCH_")}
    try:
        last = False
        while not last:
            last = stopping.is_set()
            if last and not kept.reads_on:
                return
            began_s = time.monotonic()
            try:
                process, end = _started(kept.command, environment)
            except (OSError, RuntimeError) as error:
                # No memory for it, or a bound on processes and threads, may be over in a moment.
                if last:
                    log.error("the %s can't be started once more to read the end: %s", kept.name, error)
                    return
                reason, hopeless = f"the {kept.name} can't be started: {error}", False
            else:
                await asyncio.wait((stop, end), return_when=asyncio.FIRST_COMPLETED)
                if not end.done():
                    kept.end(process)
                    if await end in (0, kept.hopeless):
                        return
                    continue
                await asyncio.wait((stop,), timeout=patience.moment_s)
                if stopping.is_set():
                    continue
                try:
                    left = kept.reason() or "no reason was left"
                except OSError as error:  # as it was for the process itself, perhaps
                    left = f"its reason can't be read: {error}"
                reason = f"the {kept.name} has ended with {process.returncode}: {left}"
                hopeless = process.returncode == kept.hopeless
            failures = 1 if time.monotonic() - began_s >= patience.recovered_s else failures + 1
            if hopeless or failures > patience.failures_max:
                log.error("%s. It is not started again, and %s", reason, kept.without)
                return
            wait_s = min(patience.first_wait_s * 2 ** (failures - 1), patience.longest_wait_s)
            log.error("%s. It is started again in %g s", reason, wait_s)
            await asyncio.wait((stop,), timeout=wait_s)
    finally:
        stop.cancel()

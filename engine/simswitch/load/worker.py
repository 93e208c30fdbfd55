"""A process of the load: some of its access servers in one event loop.

It is started with its figures as JSON in the first argument, and ends when it is told so or when its standard input
does. Both directions carry lines; a line of records is followed by that many bytes (records.py).

    in    {"do": "fill"}, {"do": "run", "start_ns": T}, {"do": "stop"}, {"do": "finish", "leave": false}
    out   {"event": "ready"}, {"event": "filled", "statuses": {...}}, {"event": "records", "bytes": N, "words": {...}},
          {"event": "done", ...}, {"event": "finished", ...}; {"event": "failed", ...} when it can't go on
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import selectors
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from simswitch.client import ServiceError
from simswitch.client.credentials import Credentials
from simswitch.client.session import Fenced
from simswitch.load.access_server import AccessServer
from simswitch.load.plan import Plan
from simswitch.load.records import Recorder

REPORT_S = 0.25


class Worker:
    """The access servers of one process, and what it says."""

    def __init__(
        self, address: str, servers: dict[int, str], market: str, plan: Plan, credentials: Credentials
    ) -> None:
        self._recorder = Recorder()
        self._servers = [
            AccessServer(address, name, number, market, plan, self._recorder, credentials)
            for number, name in servers.items()
        ]
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    # The parent may be slow to read: a thread of its own writes, so that no operation waits for that.
    def write(self) -> None:
        while (data := self._outgoing.get()) is not None:
            try:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            except BrokenPipeError:
                return

    def _say(self, event: str, **words: Any) -> None:
        self._outgoing.put(json.dumps({"event": event, **words}).encode() + b"\n")

    def end(self) -> None:
        self._outgoing.put(None)

    async def open(self) -> None:
        for server in self._servers:
            await server.open()
            server.session_task.add_done_callback(self._session_ended)
        self._say("ready")

    def _session_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """The load can't go on; what is held is still given back."""
        self.stop()
        if isinstance(error, ServiceError):
            words = {"code": error.code.name, "reason": error.reason, "text": error.text}
        else:
            reason = "FENCED" if isinstance(error, Fenced) else ""
            words = {"code": "", "reason": reason, "text": str(error) or type(error).__name__}
        self._say("failed", **words)

    async def fill(self) -> None:
        statuses: Counter[int] = Counter()
        for server in self._servers:
            statuses += await server.fill()
        self._say("filled", statuses=statuses)

    def stop(self) -> None:
        for server in self._servers:
            server.stop()

    async def run(self, start_ns: int) -> None:
        reporting = asyncio.create_task(self._report())
        cpu_ns, busy_ns = time.process_time_ns(), _busy_ns()
        try:
            await asyncio.gather(*(server.run(start_ns) for server in self._servers))
        finally:
            reporting.cancel()
        wall_ns = max(1, time.monotonic_ns() - start_ns)
        self._records()
        self._say(
            "done",
            cpu_share=(time.process_time_ns() - cpu_ns) / wall_ns,
            busy_share=(_busy_ns() - busy_ns) / wall_ns,
            hashes={server.name: server.hash for server in self._servers},
        )

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            self._records()

    def _records(self) -> None:
        data = self._recorder.take()
        self._say("records", bytes=len(data), words=self._recorder.words())
        self._outgoing.put(data)

    async def finish(self, leave: bool) -> None:
        """Gives back what is held, and ends the sessions."""
        held, released = sum(len(server.held) for server in self._servers), 0
        for server in self._servers:
            if not leave:
                released += await server.give_back()
        left = sum(len(server.held) for server in self._servers)
        for server in self._servers:
            await server.close(settle=not leave and server.unsure > 0)
        self._say("finished", held=held, released=released, left=left)


def _busy_ns() -> int:
    """How long this thread has run or waited for a processor."""
    try:
        with open("/proc/thread-self/schedstat", encoding="ascii") as file:
            running_ns, waiting_ns, _ = file.read().split()
    except OSError:
        return time.thread_time_ns()
    return int(running_ns) + int(waiting_ns)


async def main() -> None:
    figures = json.loads(sys.argv[1])
    servers = {int(number): name for number, name in figures["servers"].items()}
    files = {name: Path(path) for name, path in figures["credentials"].items()}
    credentials = Credentials(**files)
    worker = Worker(figures["address"], servers, figures["market"], Plan(**figures["plan"]), credentials)
    writer = threading.Thread(target=worker.write)
    writer.start()
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def read() -> None:
        lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        async for line in lines:
            words = json.loads(line)
            if words["do"] in ("stop", "finish"):
                worker.stop()
            told.put_nowait(words)
        # Whoever started us has gone: nothing is left behind.
        worker.stop()
        told.put_nowait({"do": "finish", "leave": False})

    reading = asyncio.create_task(read())
    try:
        await worker.open()
        while (words := await told.get())["do"] != "finish":
            try:
                if words["do"] == "fill":
                    await worker.fill()
                elif words["do"] == "run":
                    await worker.run(words["start_ns"])
            except (ServiceError, TimeoutError) as error:
                worker.fail(error)
        await worker.finish(words["leave"])
    except (ServiceError, Fenced, TimeoutError) as error:
        worker.fail(error)
    finally:
        reading.cancel()
        worker.end()
        writer.join()


if __name__ == "__main__":
    # Ctrl-C at the terminal is for the process that started this one, which then ends it in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # select() sleeps to the microsecond, the default selector to the millisecond: operations begin when they are due.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(main())

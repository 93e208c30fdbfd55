"""The gRPC server at a door, kept listening whoever breaks it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from traceback import walk_tb

import grpc

BROKEN_LOOK_S = 0.1
BROKEN_GRACE_S = 60.0
"""How long what a broken server carries may go on: it would go on for ever."""

log = logging.getLogger("simswitch.service")


def _is_of_others(record: logging.LogRecord) -> bool:
    """False for what grpc.aio says of its server's end: whoever breaks servers would fill the log with it."""
    error = (record.exc_info and record.exc_info[1]) or record.msg
    if not isinstance(error, UnicodeDecodeError) or error.__traceback__ is None:
        return True
    *_, (frame, _) = walk_tb(error.__traceback__)
    return not frame.f_code.co_filename.endswith("aio/server.pyx.pxi")


for _logger in ("asyncio", "grpc._cython.cygrpc"):
    logging.getLogger(_logger).addFilter(_is_of_others)


class Listening:
    """The gRPC server at a door, and another in its place when it has broken.

    grpc.aio ends a server for good at a call whose path is no UTF-8, and anybody who reaches the door can send one.
    What it carries goes on; who comes next needs another server, on the same port.
    """

    def __init__(self, make: Callable[[int], tuple[grpc.aio.Server, int]], port: int) -> None:
        """``make``: one that listens at a port, and the port."""
        self._make = make
        self._server, self.port = make(port)
        self._broken: set[asyncio.Task[None]] = set()
        self._over = False
        self.broken_count = 0

    async def start(self) -> None:
        await self._server.start()

    async def keep(self) -> None:
        """Until it is stopped."""
        while True:
            await asyncio.sleep(BROKEN_LOOK_S)
            # Nothing else tells: the server's own end waits for all that it carries.
            if self._over or self._server._server.is_running():  # type: ignore[attr-defined]  # noqa: SLF001
                continue
            try:
                server, _ = self._make(self.port)
            except RuntimeError:
                # Its port is not free yet.
                continue
            ending = asyncio.create_task(self._server.stop(BROKEN_GRACE_S))
            self._broken.add(ending)
            ending.add_done_callback(self._broken.discard)
            self._server = server
            await server.start()
            self.broken_count += 1
            if self.broken_count & (self.broken_count - 1) == 0:
                log.error(
                    "the gRPC server at port %d was broken by a call whose path is no text, for the %d. time since the "
                    "start; another one has taken its place", self.port, self.broken_count,
                )  # fmt: skip

    async def stop(self, grace_s: float) -> None:
        self._over = True
        await self._server.stop(grace_s)
        for ending in list(self._broken):
            ending.cancel()

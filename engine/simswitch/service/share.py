"""What one identity takes of the service at a time, over all its connections and credentials.

    calls a second     the settings' (``Pace``); a message of many items counts as several
    calls              the settings', 1,024: from their first byte until their answer has gone
    messages read      16: the next one waits, and meanwhile no more of it is taken in than its stream's window, 64 KiB
    bytes held         the settings', 32 MiB: of messages that were read and answers that have not gone; beyond, nothing
                       more is read
    questions aside    2 that threads beside the event loop answer (small ones about history): the next one waits
    connections        the settings', 64 (``connections``)

A message is as large as its sender likes, up to what the door takes, and nobody can tell before it has been read. So
reading is what is bounded, in the order in which the calls came; a message that comes at once keeps its place for no
longer than one turn of the event loop. Who sends slowly, or doesn't take his answers, holds up only himself.

Where nobody proves who he is (loopback), all calls are one identity's, and but for the pace none of this is asked for.
Streams are bounded by number (``call``); of each one message is being read at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from simswitch.service.errors import MESSAGE_EXPECTED, TOO_MANY_CALLS, Refused

READING_MAX = 16
ASIDE_MAX = 2
ITEMS_A_CALL = 100
"""So many items of a message count as another call."""
MESSAGE_WITHIN_S = 30.0
"""How long the message of a call may take, from its turn on."""


class Pace:
    """How fast one identity may call: a steady rate, and a second's worth of it at once (GCRA: one number)."""

    __slots__ = ("_due_s", "_step_s")

    def __init__(self, calls_per_s: int) -> None:
        """``calls_per_s``: 0 is any number."""
        self._step_s = 1 / calls_per_s if calls_per_s else 0.0
        self._due_s = 0.0

    def wait_s(self) -> float:
        """How long the call must wait; 0, when it may go on, and then it counts."""
        if not self._step_s:
            return 0.0
        now_s = time.monotonic()
        due_s = max(self._due_s, now_s)
        if due_s - now_s > 1.0:
            return due_s - now_s - 1.0
        self._due_s = due_s + self._step_s
        return 0.0

    def charge(self, items: int) -> None:
        """Counts the items of a call that went on, now that they are known: it is the next calls that wait for them."""
        self._due_s += items // ITEMS_A_CALL * self._step_s


class Share:
    """All that one identity has under way. In the event loop, but for ``pace``."""

    __slots__ = (
        *("_bytes_max", "_calls_max", "_reading", "_waiting"),
        *("aside", "calls_count", "connections", "held_bytes", "pace"),
    )

    def __init__(self, calls_per_s: int, calls_max: int, bytes_max: int) -> None:
        self._calls_max = calls_max
        self._bytes_max = bytes_max
        self.connections: dict[str, tuple[str, int]] = {}
        """As the transport names the other side, and its address and port (``connections``)."""
        self.pace = Pace(calls_per_s)
        self.aside = asyncio.Semaphore(ASIDE_MAX)
        """For what threads beside the event loop answer."""
        self.calls_count = 0
        self.held_bytes = 0
        self._reading = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def begin(self) -> Held:
        """A call begins; ``Held.end`` when it is over."""
        if self.calls_count >= self._calls_max:
            raise Refused(TOO_MANY_CALLS, f"{self._calls_max:,}")
        self.calls_count += 1
        return Held(self)

    async def turn(self) -> None:
        """Waits until a message may be read; ``read`` when it was."""
        if not self._waiting and self._room():
            self._reading += 1
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():
                self.read()
            elif mine in self._waiting:
                self._waiting.remove(mine)
            raise

    def read(self) -> None:
        self._reading -= 1
        self.look()

    def look(self) -> None:
        """Gives turns to those who wait, as far as there is room."""
        while self._waiting and self._room():
            first = self._waiting.popleft()
            # Whose caller has gone has not been told so yet.
            if not first.done():
                self._reading += 1
                first.set_result(None)

    def _room(self) -> bool:
        return self._reading < READING_MAX and self.held_bytes < self._bytes_max


class Held:
    """What one call has of its identity's share."""

    __slots__ = ("_bytes", "_over", "_share")

    def __init__(self, share: Share) -> None:
        self._share = share
        self._bytes = 0
        # What works for a stream may come to its end after the stream itself.
        self._over = False

    async def message(self, context: Any) -> bytes:
        """The message of a call that has one, when its turn has come."""
        await self._share.turn()
        try:
            async with asyncio.timeout(MESSAGE_WITHIN_S):
                message = await context.read()
            # Otherwise it is a mark that none will come.
            if isinstance(message, bytes):
                self.add(len(message))
                return message
        except TimeoutError:
            pass
        finally:
            self._share.read()
        raise Refused(MESSAGE_EXPECTED, f"{MESSAGE_WITHIN_S:.0f}")

    async def room(self) -> None:
        """Waits until another message may be read, by whoever reads it elsewhere."""
        await self._share.turn()
        self._share.read()

    def add(self, count: int) -> None:
        """So many bytes more are held for it, or fewer, until it is over."""
        if not self._over:
            self._bytes += count
            self._share.held_bytes += count
            if count < 0:
                self._share.look()

    def end(self, _: Any) -> None:
        """The call is over: its answer has gone, or its caller has."""
        self._over = True
        self._share.calls_count -= 1
        self._share.held_bytes -= self._bytes
        self._share.look()

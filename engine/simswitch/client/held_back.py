"""Calls that an overloaded service has no time for are not sent again before it may be asked.

    open ──OVERLOADED──▶ held back, until the advice has passed ──▶ one call asks ──answered──▶ open
                                    ▲                                    │
                                    └────────────── OVERLOADED ──────────┘

A refusal costs the service a good part of what an answer does: clients that ask again and again take the time that
answers need. What is held back is refused here, as the service would, and by what way a call takes (its path).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from simswitch.client.errors import ServiceError

OVERLOADED = "OVERLOADED"


@dataclass(slots=True)
class _Held:
    until_s: float
    asking: bool
    error: ServiceError


class HeldBack:
    """Of one client; for threads and for asyncio."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}

    def enter(self, path: str) -> bool:
        """Before a call is sent: raises what the service would say, or says whether this is the one that asks."""
        if path not in self._held:
            return False
        with self._lock:
            held = self._held.get(path)
            if held is None:
                return False
            wait_s = held.until_s - self._now_s()
            if wait_s > 0 or held.asking:
                error = held.error
                wait_ms = max(1, round(wait_s * 1000)) if wait_s > 0 else error.retry_after_ms
                raise ServiceError(error.code, error.reason, error.text, wait_ms)
            held.asking = True
            return True

    def leave(self, path: str, asked: bool, error: ServiceError | None = None) -> None:
        """After it: ``asked`` is what ``enter`` said. Any answer but OVERLOADED lets the others follow."""
        if error is not None and error.reason == OVERLOADED:
            with self._lock:
                self._held[path] = _Held(self._now_s() + error.retry_after_ms / 1000, False, error)
        elif asked:
            with self._lock:
                self._held.pop(path, None)

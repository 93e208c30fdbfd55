"""Single allocations that have time to join: the cell waits until it is told to go on."""

from __future__ import annotations

import threading
from typing import Any

import grpc
from simswitch.service.joined import SINGLE as ALLOCATE
from simswitch.v1 import allocation_pb2 as pb

from tests.service.serving import Serving

__all__ = ["ALLOCATE", "HeldUp", "allocating", "single"]


def single(terminal: int, market: str = "jp", access_server: str = "as-01") -> bytes:
    return pb.AllocateRequest(access_server=access_server, market=market, terminal=terminal).SerializeToString()


def allocating(channel: grpc.Channel) -> Any:
    return channel.unary_unary(ALLOCATE, None, None)


class HeldUp:
    """The cell's workers wait in a read until they are let go, so that calls pile up behind it."""

    def __init__(self, serving: Serving) -> None:
        self._cell = serving.cell
        self._leave = threading.Event()
        entered = threading.Event()

        def hold_up(_machine: object) -> None:
            entered.set()
            self._leave.wait(20)

        self._holding = threading.Thread(target=serving.cell.call_read, args=(hold_up,))
        self._holding.start()
        assert entered.wait(20)

    def wait_for(self, queued: int) -> None:
        while self._cell.statistics().queued_calls < queued:
            threading.Event().wait(0.001)

    def let_go(self) -> None:
        self._leave.set()
        self._holding.join()

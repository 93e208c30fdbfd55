"""Allocations that came one by one, joined into one run of commands, and its outcome taken apart into their answers."""

from collections.abc import Callable

from typing_extensions import Buffer

def access_server(request: bytes) -> bytes | None:
    """The name of the access server of an AllocateRequest; None: it is not of the usual form."""

class Allocations:
    """Requests of one actor for one access server."""

    @property
    def count(self) -> int: ...
    def __init__(
        self,
        access_server: bytes,
        market_index: Callable[[bytes], int | None],
        bank_name: Callable[[int], bytes],
    ) -> None: ...
    def add(self, request: bytes) -> bool:
        """Takes an AllocateRequest as the next item, or declines: it is for another access server, its market is
        unknown, or it is not of the usual form."""
    def run(self, actor: int, access_server: int) -> bytes:
        """The run of commands."""
    def answers(self, outcome: Buffer) -> list[bytes | None]:
        """An AllocateResponse for each item of the run's outcome; None where it was refused."""
    def outcome_of(self, item: int, outcome: Buffer) -> bytes:
        """The columns of one item, as if it had been a run of its own."""

"""Columns of NumPy arrays to the bytes of a request and back, without an object per item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from simswitch.core import wire
from simswitch.core.commands import COMMAND_COLUMNS, OPTIONAL_COLUMNS, OutcomeRun
from simswitch.core.wire import Table

Column = npt.NDArray[Any]


class Grants:
    """The results of an allocation, one value for each terminal of the request."""

    def __init__(self, outcome: OutcomeRun) -> None:
        self.status: Column = outcome["status"]
        """``simswitch.v1.Status``: 1 OK, 2 SAME and 3 MOVED come with a lease, the others without."""
        self.epoch: Column = outcome["epoch"]
        self.expires_ms: Column = outcome["expires_ms"]
        self.iccid: Column = outcome["iccid"]
        """As numbers: ``simswitch.core.commands.decode_iccid`` gives the digits."""
        self.bank: Column = outcome["bank"]
        self.slot: Column = outcome["slot"]
        self.retry_after_ms: Column = outcome["retry_after_ms"]
        self.slow_kbps: Column = outcome["slow_kbps"]
        """To what speed the subscriber is to be slowed, because a published limit is reached; 0: it is not."""

    def __len__(self) -> int:
        return len(self.status)

    @property
    def granted(self) -> Column:
        """Which terminals have a SIM now."""
        return self.status <= 3


class Renewals:
    """The results of a renewal, one value for each lease of the request."""

    def __init__(self, outcome: OutcomeRun) -> None:
        self.status: Column = outcome["status"]
        self.expires_ms: Column = outcome["expires_ms"]
        self.slow_kbps: Column = outcome["slow_kbps"]
        """To what speed the subscriber is to be slowed, because a published limit is reached; 0: it is not, or the
        lease was not prolonged."""

    def __len__(self) -> int:
        return len(self.status)


def request(kind: int, table: Table, columns: Mapping[str, npt.ArrayLike], texts: Message) -> bytes:
    """The request of ``kind``: its columns in the order of the core, and its texts as a message without columns.

    A scalar stands for a column of that value; columns that may be left out are zeros then. Raises
    ``ValueError`` when the columns differ in length.
    """
    layout = COMMAND_COLUMNS[kind]
    given = {**dict.fromkeys(OPTIONAL_COLUMNS.get(kind, ()), 0), **columns}
    arrays = {name: np.asarray(given[name], np.dtype(code)) for name, code in layout}
    lengths = {name: len(array) for name, array in arrays.items() if array.ndim}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns differ in length: {lengths}")
    count = next(iter(lengths.values()), 1)
    parts = [np.broadcast_to(array, (count,)).tobytes() for array in arrays.values()]
    return texts.SerializeToString() + table.encode(b"".join(parts), count)


def outcome(kind: int, table: Table, data: bytes) -> OutcomeRun:
    """The columns of a response, by the names that the core has for them."""
    batch = table.decode(data)
    return OutcomeRun(kind, batch.count, memoryview(batch.columns()))


def enclosed(number: int, content: bytes) -> bytes:
    """A message as the sub-message ``number`` of another one."""
    return wire.enclose(number, content)

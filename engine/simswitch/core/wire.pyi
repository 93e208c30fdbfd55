"""Columns between the bytes of a protobuf message and runs of commands, without an object per item."""

from collections.abc import Iterable
from typing import Literal

from typing_extensions import Buffer

ITEMS_MAX: int
"""Items of one call."""
TEXTS_MAX: int
"""Texts of one repeated field of a call."""

class Malformed(ValueError):
    """The bytes are not a message of this type."""

class ColumnsDiffer(ValueError):
    """The columns of a request differ in length, or an index points past the names."""

class TooManyItems(ValueError):
    """More items or names than one call may have."""

class Table:
    """Which field of a message is which column of a run."""

    @property
    def message(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    def __init__(
        self,
        message: str,
        columns: Iterable[tuple[str, int, Literal["fixed64", "fixed32", "varint"], int, bool, str | None]],
        texts: Iterable[tuple[str, int, bool]] = (),
    ) -> None:
        """Says which field is which column.

        ``columns``, in the order of the run: name, field number (0: only the run has it), wire type, bytes of an item
        in the run, whether it must come, and the text field that its values are indexes into. ``texts``: name, field
        number, whether it is repeated.
        """
    def decode(self, data: bytes) -> Batch:
        """Checks a message. Raises ``Malformed``, ``ColumnsDiffer`` or ``TooManyItems``."""
    def encode(self, columns: Buffer, count: int, rows: Buffer | None = None) -> bytes:
        """The message's columns, from columns that lie one after the other as in a run (without a header).

        ``count`` is how many items ``columns`` holds; ``rows``, native uint32 values, picks some of them.
        """

class Batch:
    """A message that was found sound."""

    @property
    def count(self) -> int: ...
    def text(self, field: int) -> str:
        """The text of a field that is not repeated, by its place in the table; empty when it did not come."""
    def names(self, field: int) -> list[str]:
        """The texts of a repeated field, by its place in the table."""
    def run(
        self, kind: int, *, actor: int, access_server: int, argument: int = 0, indexes: Iterable[Buffer] = ()
    ) -> bytes:
        """The run of commands. ``indexes`` has, for each text field, native uint16 values that stand for its texts.

        Raises ``ColumnsDiffer`` when an index points past the texts.
        """
    def columns(self) -> bytes:
        """The columns one after the other, as in a run, without a header."""

def only_message(data: bytes, number_max: int) -> tuple[int, bytes] | None:
    """The one sub-message that a message consists of: (field number, its bytes).

    None when there is anything else but unknown fields: several fields from 1 to ``number_max``, or one of another wire
    type. Then protobuf's own parser is to put the message in order.
    """

def enclose(number: int, message: bytes) -> bytes:
    """A message as the sub-message ``number`` of another one."""

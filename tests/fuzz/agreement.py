"""What "the wire agrees with protobuf's own parser" means, for every table of the contract.

The parser of the generated classes is the judge: the wire accepts a message if and only if that parser does, except
that it also refuses columns that differ in length and more items or names than a call may have. What it accepts has the
same values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from simswitch import contract
from simswitch.core.commands import COMMAND_COLUMNS, OUTCOME_COLUMNS, RUN_HEADER
from simswitch.core.wire import ITEMS_MAX, TEXTS_MAX, ColumnsDiffer, Malformed, Table, TooManyItems
from simswitch.service.allocation import read_numbered
from simswitch.service.sessions import read_message
from simswitch.v1 import access_server_pb2, allocation_pb2, inventory_pb2, usage_pb2

_MODULES = (access_server_pb2, allocation_pb2, inventory_pb2, usage_pb2)
_INDEXES_INTO = {"market": "markets", "lot": "lots", "bank": "banks"}
_MAY_BE_LEFT_OUT = {
    "AllocateSimsRequest": {"subscriber", "expected_bytes"},
    "AdoptTerminalsRequest": {"subscriber", "expected_bytes"},
    "ImportSimsRequest": {"opening_cycle_bytes", "opening_day_bytes", "opening_rolling_bytes", "as_of_s", "health"},
    "ReportUsageRequest": {"span_ms", "goodput_kbps", "demand_permille", "radio"},
    "Usage": {"span_ms", "goodput_kbps", "demand_permille", "radio"},
    "AllocateSimsResponse": {"slow_kbps"},
    "RenewResponse": {"slow_kbps"},
    "ReportAttachFailureResponse": {"slow_kbps"},
    "ReportUsageResponse": {"slow_kbps"},
    "UsageResult": {"slow_kbps"},
}
_LARGEST = {"u1": 0xFF, "<u2": 0xFFFF, "<u4": 0xFFFF_FFFF, "<u8": 0xFFFF_FFFF_FFFF_FFFF}
# What stands for the texts of a field: any numbers, one for each text.
_STAND_FOR = np.arange(1_000, 1_000 + TEXTS_MAX, dtype=np.uint16)


class Disagreement(AssertionError):
    """The wire and protobuf's parser differ on a message."""


@dataclass(frozen=True)
class Shape:
    """A message that carries columns: its class, its table, and its columns as the core has them."""

    table: Table
    message: Any
    columns: tuple[tuple[str, str], ...]
    texts: tuple[FieldDescriptor, ...]

    @property
    def name(self) -> str:
        return self.table.message

    def fields(self) -> list[FieldDescriptor]:
        return list(self.message.DESCRIPTOR.fields)

    def names_of(self, column: str) -> str | None:
        """The text field that a column's values are indexes into."""
        field = _INDEXES_INTO.get(column)
        return field if field in self.message.DESCRIPTOR.fields_by_name else None


def _shape(table: Table) -> Shape:
    message = next(getattr(module, table.message) for module in _MODULES if hasattr(module, table.message))
    known = [*COMMAND_COLUMNS.values(), *OUTCOME_COLUMNS.values()]
    columns = next(columns for columns in known if tuple(name for name, _ in columns) == table.names)
    texts = [field for field in message.DESCRIPTOR.fields if field.type == FieldDescriptor.TYPE_STRING]
    return Shape(table, message, columns, tuple(texts))


SHAPES = {table.message: _shape(table) for table in vars(contract).values() if isinstance(table, Table)}


def require(condition: bool, data: bytes, what: str) -> None:
    if not condition:
        raise Disagreement(f"{what}: {data.hex()}")


def _parsed(message: Any, data: bytes) -> Any:
    try:
        return message.FromString(data)
    except DecodeError:
        return None


def _values(shape: Shape, expected: Any, column: str) -> list[int]:
    return list(getattr(expected, column)) if column in shape.message.DESCRIPTOR.fields_by_name else []


def _reason_to_refuse(shape: Shape, expected: Any) -> type[ValueError] | None:
    """Why the wire refuses columns that protobuf takes for sound."""
    if any(field.is_repeated and len(getattr(expected, field.name)) > TEXTS_MAX for field in shape.texts):
        return TooManyItems
    lengths = {name: len(_values(shape, expected, name)) for name, _ in shape.columns}
    count = max(lengths.values(), default=0)
    if count > ITEMS_MAX:
        return TooManyItems
    for name, length in lengths.items():
        names = shape.names_of(name)
        if length == count or name not in shape.message.DESCRIPTOR.fields_by_name:
            continue
        if length or not (names or name in _MAY_BE_LEFT_OUT.get(shape.name, ())):
            return ColumnsDiffer
        if names and len(getattr(expected, names)) != 1:
            return ColumnsDiffer
    return None


def compare(shape: Shape, data: bytes) -> bool:
    """Raises ``Disagreement``, else says whether both accept the message."""
    expected = _parsed(shape.message, data)
    try:
        batch = shape.table.decode(data)
    except Malformed as error:
        require(expected is None, data, f"{shape.name} is refused, protobuf accepts it ({error})")
        return False
    except (ColumnsDiffer, TooManyItems) as error:
        # More names than may be are refused where they are found, before what follows was looked at.
        if expected is not None:
            require(_reason_to_refuse(shape, expected) is type(error), data, f"{shape.name} is refused: {error}")
        else:
            require(type(error) is TooManyItems, data, f"{shape.name}, which is malformed, is refused: {error}")
        return False
    require(expected is not None, data, f"{shape.name} is accepted, protobuf refuses it")
    require(_reason_to_refuse(shape, expected) is None, data, f"{shape.name} is accepted although its columns differ")
    for position, field in enumerate(shape.texts):
        if field.is_repeated:
            require(batch.names(position) == list(getattr(expected, field.name)), data, f"names {field.name} differ")
        else:
            require(batch.text(position) == getattr(expected, field.name), data, f"text {field.name} differs")
    _compare_columns(shape, batch, expected, data)
    return True


def _compare_columns(shape: Shape, batch: Any, expected: Any, data: bytes) -> None:
    lengths = {field.name: len(getattr(expected, field.name)) for field in shape.texts if field.is_repeated}
    indexes = [_STAND_FOR[: lengths.get(field.name, 0)].tobytes() for field in shape.texts]
    into = {name: shape.names_of(name) for name, _ in shape.columns}
    past = any(
        value >= lengths[names] for name, names in into.items() if names for value in _values(shape, expected, name)
    )
    try:
        run = batch.run(3, actor=7, access_server=5, argument=9, indexes=indexes)
    except ColumnsDiffer as error:
        require(past, data, f"{shape.name} is refused: {error}")
        return
    require(not past, data, f"{shape.name} is accepted with an index past its names")
    header = np.frombuffer(run, RUN_HEADER, 1)[0]
    require(header.tolist() == (len(run), 3, 5, batch.count, 7, 9), data, "the header differs")
    offset = RUN_HEADER.itemsize
    for name, code in shape.columns:
        found = np.frombuffer(run, code, batch.count, offset).tolist()
        offset += np.dtype(code).itemsize * batch.count
        values = _values(shape, expected, name) or [0] * batch.count
        if into[name]:
            values = [int(_STAND_FOR[value]) for value in values]
        # Values of an enum are signed; those that a column has no room for become its largest value.
        fitting = [
            min(value & 0xFFFF_FFFF_FFFF_FFFF if code == "<u8" else value & 0xFFFF_FFFF, _LARGEST[code])
            for value in values
        ]
        require(found == fitting, data, f"column {name} differs")
    require(len(run) % 8 == 0 and len(run) - offset < 8 and not any(run[offset:]), data, "the padding is not zero")
    if not any(into.values()):
        require(batch.columns() == run[RUN_HEADER.itemsize : offset], data, "columns() is not what the run has")


def compare_encoded(shape: Shape, columns: dict[str, list[int]], rows: list[int] | None = None) -> bytes:
    """Encodes columns and has protobuf read them; the bytes."""
    count = len(next(iter(columns.values()), []))
    packed = b"".join(np.array(columns[name], code).tobytes() for name, code in shape.columns)
    picked = None if rows is None else np.array(rows, np.uint32).tobytes()
    data = shape.table.encode(packed, count, picked)
    read = _parsed(shape.message, data)
    require(read is not None, data, f"{shape.name} is written, protobuf refuses it")
    for name, _ in shape.columns:
        if name in shape.message.DESCRIPTOR.fields_by_name:
            values = columns[name] if rows is None else [columns[name][row] for row in rows]
            written = list(getattr(read, name))
            if name in _MAY_BE_LEFT_OUT.get(shape.name, ()) and not any(values):
                require(not written, data, f"column {name} of {shape.name} is zeros and not left out")
                continue
            require(written == values, data, f"column {name} of {shape.name} is written differently")
    return data


def compare_session(data: bytes) -> bool:
    """The member of a ``SessionRequest``: what ``read_message`` finds is what protobuf settles on."""
    expected = _parsed(access_server_pb2.SessionRequest, data)
    try:
        number, content = read_message(data)
        found = _member(number, content)
    except (DecodeError, Malformed) as error:
        require(expected is None, data, f"SessionRequest is refused, protobuf accepts it ({error})")
        return False
    except (ColumnsDiffer, TooManyItems):
        return False
    require(expected is not None, data, "SessionRequest is accepted, protobuf refuses it")
    name = expected.WhichOneof("message")
    require((name is None) == (number == 0), data, "SessionRequest has another member")
    if name is not None:
        require(
            access_server_pb2.SessionRequest.DESCRIPTOR.fields_by_name[name].number == number,
            data,
            "the member differs",
        )
        member = getattr(expected, name)
        for message in (member, *found):
            message.DiscardUnknownFields()
        require(all(message == member for message in found), data, f"the member {name} differs")
    return True


def compare_numbered(data: bytes) -> bool:
    """An ``AllocateStreamRequest``: the number and the batch that ``read_numbered`` finds are those of protobuf."""
    expected = _parsed(allocation_pb2.AllocateStreamRequest, data)
    try:
        number, content = read_numbered(data)
        found = allocation_pb2.AllocateSimsRequest.FromString(content)
    except DecodeError as error:
        require(expected is None, data, f"AllocateStreamRequest is refused, protobuf accepts it ({error})")
        return False
    require(expected is not None, data, "AllocateStreamRequest is accepted, protobuf refuses it")
    require(expected.request_number == number, data, "the number differs")
    require(expected.batch == found, data, "the batch differs")
    return True


def _member(number: int, content: bytes) -> Iterable[Message]:
    """What the service makes of a member: columns go through their table, the others through protobuf."""
    field = access_server_pb2.SessionRequest.DESCRIPTOR.fields_by_number.get(number)
    if field is None or field.message_type is None:
        return []
    shape = SHAPES.get(field.message_type.name)
    if shape is not None:
        shape.table.decode(content)
    message: Message = getattr(access_server_pb2, field.message_type.name).FromString(content)
    return [message]

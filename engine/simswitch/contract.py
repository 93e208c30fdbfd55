"""Ties the messages of ``simswitch.v1`` that carry columns to the columns of the core, by name.

A column's field has the name of the core's column, so a table is one line, and a name or a type that drifts apart is
found when this module is imported. Service and client share these tables: what one encodes the other decodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from simswitch.core import layout
from simswitch.core.commands import COMMAND_COLUMNS, OPTIONAL_COLUMNS, ORDERS, OUTCOME_COLUMNS, Columns
from simswitch.core.wire import Table
from simswitch.v1 import access_server_pb2, allocation_pb2, inventory_pb2, usage_pb2

MESSAGE_BYTES_MAX = 8 * 1024 * 1024
"""The largest message that either side takes: 65,536 items of the widest request fit twice."""

_WIRES: Mapping[int, Literal["fixed64", "fixed32", "varint"]] = {
    FieldDescriptor.TYPE_FIXED64: "fixed64",
    FieldDescriptor.TYPE_FIXED32: "fixed32",
    FieldDescriptor.TYPE_UINT32: "varint",
    FieldDescriptor.TYPE_ENUM: "varint",
}
_WIDTHS = {"u1": 1, "<u2": 2, "<u4": 4, "<u8": 8}


class _Message(Protocol):
    DESCRIPTOR: Descriptor


def _table(
    message: type[_Message],
    columns: Columns,
    *,
    optional: Iterable[str] = (),
    names: Mapping[str, str] | None = None,
    ignored: Iterable[str] = (),
) -> Table:
    """``columns`` of the core in its order; those that the message lacks are left out, and are 0 when it is decoded.

    ``names`` says which columns are indexes into which repeated text field.
    """
    descriptor = message.DESCRIPTOR
    names = names or {}
    texts = [field for field in descriptor.fields if field.type == FieldDescriptor.TYPE_STRING]
    fields = {field.name: field for field in descriptor.fields if field not in texts and field.name not in ignored}
    if not set(fields) <= {name for name, _ in columns}:
        raise TypeError(
            f"{descriptor.name} has the columns {sorted(fields)}, the core has {[name for name, _ in columns]}"
        )
    return Table(
        descriptor.name,
        [
            (
                name,
                fields[name].number if name in fields else 0,
                _WIRES[fields[name].type] if name in fields else "fixed64",
                _WIDTHS[code],
                name in fields and name not in optional and name not in names,
                names.get(name),
            )
            for name, code in columns
        ],
        [(field.name, field.number, field.is_repeated) for field in texts],
    )


_STATUS: Columns = (("status", "u1"),)

ALLOCATE_REQUEST = _table(
    allocation_pb2.AllocateSimsRequest,
    COMMAND_COLUMNS[layout.ALLOCATE],
    optional=OPTIONAL_COLUMNS[layout.ALLOCATE],
    names={"market": "markets"},
)
ALLOCATE_RESPONSE = _table(
    allocation_pb2.AllocateSimsResponse, OUTCOME_COLUMNS[layout.ALLOCATE], optional=("slow_kbps",)
)
RENEW_REQUEST = _table(allocation_pb2.RenewRequest, COMMAND_COLUMNS[layout.RENEW])
RENEW_RESPONSE = _table(allocation_pb2.RenewResponse, OUTCOME_COLUMNS[layout.RENEW], optional=("slow_kbps",))
RELEASE_REQUEST = _table(allocation_pb2.ReleaseRequest, COMMAND_COLUMNS[layout.RELEASE])
RELEASE_RESPONSE = _table(allocation_pb2.ReleaseResponse, _STATUS)
ATTACH_FAILURE_REQUEST = _table(
    allocation_pb2.ReportAttachFailureRequest, COMMAND_COLUMNS[layout.REPORT_ATTACH_FAILURE]
)
ATTACH_FAILURE_RESPONSE = _table(
    allocation_pb2.ReportAttachFailureResponse, OUTCOME_COLUMNS[layout.REPORT_ATTACH_FAILURE], optional=("slow_kbps",)
)
USAGE_REQUEST = _table(
    usage_pb2.ReportUsageRequest,
    COMMAND_COLUMNS[layout.REPORT_USAGE],
    optional=OPTIONAL_COLUMNS[layout.REPORT_USAGE],
)
USAGE_RESPONSE = _table(usage_pb2.ReportUsageResponse, OUTCOME_COLUMNS[layout.REPORT_USAGE], optional=("slow_kbps",))
HOLDS = _table(access_server_pb2.Holds, COMMAND_COLUMNS[layout.SESSION_HOLDS])
HOLDS_RESULT = _table(access_server_pb2.HoldsResult, _STATUS)
ACKNOWLEDGEMENTS = _table(access_server_pb2.Acknowledgements, COMMAND_COLUMNS[layout.ACKNOWLEDGE])
ACKNOWLEDGEMENTS_RESULT = _table(access_server_pb2.AcknowledgementsResult, _STATUS)
USAGE = _table(
    access_server_pb2.Usage, COMMAND_COLUMNS[layout.REPORT_USAGE], optional=OPTIONAL_COLUMNS[layout.REPORT_USAGE]
)
USAGE_RESULT = _table(access_server_pb2.UsageResult, OUTCOME_COLUMNS[layout.REPORT_USAGE], optional=("slow_kbps",))
ORDERS_MESSAGE = _table(access_server_pb2.Orders, OUTCOME_COLUMNS[ORDERS])
IMPORT_REQUEST = _table(
    inventory_pb2.ImportSimsRequest,
    COMMAND_COLUMNS[layout.IMPORT_SIMS],
    optional=OPTIONAL_COLUMNS[layout.IMPORT_SIMS],
    names={"lot": "lots", "bank": "banks"},
    ignored=("mode",),
)
ADOPT_REQUEST = _table(
    inventory_pb2.AdoptTerminalsRequest,
    COMMAND_COLUMNS[layout.ADOPT],
    optional=OPTIONAL_COLUMNS[layout.ADOPT],
    names={"market": "markets"},
)
ADOPT_RESPONSE = _table(inventory_pb2.AdoptTerminalsResponse, OUTCOME_COLUMNS[layout.ADOPT])

"""What the wire makes of single messages; ``tests/fuzz`` compares it with protobuf's own parser on many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simswitch import contract
from simswitch.core import layout, wire
from simswitch.core.commands import OutcomeRun
from simswitch.core.wire import ColumnsDiffer, Table, TooManyItems
from simswitch.v1 import allocation_pb2

from tests.fuzz.agreement import SHAPES, compare
from tests.fuzz.messages import varint

REQUEST = allocation_pb2.AllocateSimsRequest
ALLOCATE = SHAPES["AllocateSimsRequest"]
U64 = st.integers(0, 2**64 - 1)


def example() -> bytes:
    return REQUEST(
        access_server="as-01",
        markets=["jp", "us"],
        terminal=[1, 2**64 - 1],
        subscriber=[3, 4],
        expected_bytes=[5, 6],
        market=[1, 0],
    ).SerializeToString()


def test_every_truncation_and_every_changed_byte() -> None:
    data = example()
    for end in range(len(data) + 1):
        compare(ALLOCATE, data[:end])
    for place in range(len(data)):
        for value in (0, 0x7F, 0x80, 0xFF, data[place] ^ 1, data[place] ^ 0x80):
            compare(ALLOCATE, data[:place] + bytes([value]) + data[place + 1 :])


def test_a_column_in_pieces_and_one_by_one() -> None:
    pieces = b"".join(REQUEST(terminal=[key], market=[0]).SerializeToString() for key in (1, 2, 3))
    compare(ALLOCATE, pieces + REQUEST(access_server="a", markets=["jp"]).SerializeToString())
    single = b"".join(varint(3 << 3 | 1) + key.to_bytes(8, "little") for key in (4, 5))
    compare(ALLOCATE, single + REQUEST(access_server="a", markets=["jp"], terminal=[6]).SerializeToString())


def test_columns_that_differ_are_named() -> None:
    with pytest.raises(ColumnsDiffer, match=r"terminal 2, subscriber 1, expected_bytes 0, market 0"):
        contract.ALLOCATE_REQUEST.decode(REQUEST(markets=["jp"], terminal=[1, 2], subscriber=[1]).SerializeToString())


def test_an_index_past_the_names() -> None:
    batch = contract.ALLOCATE_REQUEST.decode(REQUEST(markets=["jp"], terminal=[1], market=[1]).SerializeToString())
    with pytest.raises(ColumnsDiffer, match="the column market of AllocateSimsRequest has the index 1"):
        batch.run(layout.ALLOCATE, actor=0, access_server=0, indexes=(b"", b"\0\0"))


def test_a_column_may_only_be_left_out_with_one_name() -> None:
    with pytest.raises(ColumnsDiffer, match="exactly one name"):
        contract.ALLOCATE_REQUEST.decode(REQUEST(markets=["jp", "us"], terminal=[1]).SerializeToString())


def test_items_and_names_are_bounded() -> None:
    full = REQUEST(markets=["jp"], terminal=range(wire.ITEMS_MAX)).SerializeToString()
    assert contract.ALLOCATE_REQUEST.decode(full).count == wire.ITEMS_MAX
    with pytest.raises(TooManyItems, match="65537 items"):
        contract.ALLOCATE_REQUEST.decode(full + REQUEST(terminal=[1]).SerializeToString())
    with pytest.raises(TooManyItems, match="256 names"):
        contract.ALLOCATE_REQUEST.decode(REQUEST(markets=[f"m{n}" for n in range(257)]).SerializeToString())


@settings(max_examples=300)
@given(st.lists(st.tuples(U64, U64, U64, st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1), st.integers(0, 255))))
def test_encoding_is_what_protobuf_reads(rows: list[tuple[int, int, int, int, int, int]]) -> None:
    epoch, expires, iccid, retry, slot, status = (
        (list(column) for column in zip(*rows, strict=True)) if rows else [[]] * 6
    )
    columns = b"".join(
        np.array(values, code).tobytes()
        for values, code in (
            (epoch, "<u8"),
            (expires, "<u8"),
            (iccid, "<u8"),
            ([9] * len(rows), "<u4"),
            (retry, "<u4"),
            (retry, "<u4"),
            (slot, "<u2"),
            (slot, "<u2"),
            (status, "u1"),
        )
    )
    data = contract.ALLOCATE_RESPONSE.encode(columns, len(rows))
    response = allocation_pb2.AllocateSimsResponse.FromString(data)
    assert (list(response.epoch), list(response.expires_ms), list(response.iccid)) == (epoch, expires, iccid)
    assert (list(response.retry_after_ms), list(response.slot), list(response.status)) == (retry, slot, status)
    # The speed that subscribers are slowed to is left out when none is.
    assert list(response.slow_kbps) == (retry if any(retry) else [])
    # And back: the column that the message lacks (sim) comes as 0.
    batch = contract.ALLOCATE_RESPONSE.decode(data)
    outcome = OutcomeRun(layout.ALLOCATE, batch.count, memoryview(batch.columns()))
    assert outcome["status"].tolist() == status
    assert outcome["slot"].tolist() == slot
    assert outcome["slow_kbps"].tolist() == retry
    assert not outcome["sim"].any()


def test_encoding_picks_rows() -> None:
    columns = np.array([1, 2, 3], "<u8").tobytes() + np.array([7, 8, 9], "<u4").tobytes() + bytes([4, 5, 200])
    rows = np.array([2, 0], np.uint32).tobytes()
    response = allocation_pb2.RenewResponse.FromString(contract.RENEW_RESPONSE.encode(columns, 3, rows))
    assert list(response.expires_ms) == [3, 1]
    assert list(response.slow_kbps) == [9, 7]
    assert list(response.status) == [200, 4]
    with pytest.raises(IndexError):
        contract.RENEW_RESPONSE.encode(columns, 3, np.array([3], np.uint32).tobytes())
    with pytest.raises(ValueError, match="too few"):
        contract.RENEW_RESPONSE.encode(columns, 4)


def test_numbers_that_all_take_two_bytes_are_not_copied_as_they_stand() -> None:
    """As many bytes in the message as in the column, but not the same ones."""
    columns = np.array([[1, 2]] * 3, "<u8").tobytes() + np.array([200, 16_383], "<u2").tobytes()
    assert list(REQUEST.FromString(contract.ALLOCATE_REQUEST.encode(columns, 2)).market) == [200, 16_383]


def test_a_left_out_column_needs_what_its_one_name_stands_for() -> None:
    batch = contract.ALLOCATE_REQUEST.decode(REQUEST(markets=["jp"], terminal=[1]).SerializeToString())
    with pytest.raises(
        ColumnsDiffer, match="the column market of AllocateSimsRequest has the index 0, there are 0 names"
    ):
        batch.columns()


def test_indexes_are_bounded() -> None:
    batch = contract.ALLOCATE_REQUEST.decode(example())
    with pytest.raises(ValueError, match="257 indexes are more than 256 texts"):
        batch.run(layout.ALLOCATE, actor=0, access_server=0, indexes=(b"", bytes(2 * 257)))
    with pytest.raises(ValueError, match="5 indexes are more than the text fields"):
        batch.run(layout.ALLOCATE, actor=0, access_server=0, indexes=[b""] * 5)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (("a", 1, "fixed64", 4, True, None), "column a of M, fixed64, can't be 4 bytes wide"),
        (("a", 1, "fixed32", 1, True, None), "column a of M, fixed32, can't be 1 bytes wide"),
        (("a", 1, "varint", 4, True, None), "column a of M, varint, can't be 4 bytes wide"),
        (("a", 1, "varint", 1, True, "names"), "has to be varint and 2 bytes wide"),
        (("a", 2, "varint", 1, True, None), "field 2 of M is out of range or taken"),
        (("a", 32, "varint", 1, True, None), "field 32 of M is out of range or taken"),
    ],
)
def test_a_table_that_the_wire_cannot_follow_is_refused(column: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Table("M", [column], [("names", 2, True)])

"""The wire against protobuf's own parser: the same messages accepted, the same values, the same refusals."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from simswitch import contract
from simswitch.core import layout, wire
from simswitch.core.commands import COMMAND_COLUMNS, RUN_HEADER, OutcomeRun
from simswitch.core.wire import ColumnsDiffer, Malformed, TooManyItems
from simswitch.service.sessions import read_message
from simswitch.v1 import access_server_pb2, allocation_pb2

REQUEST = allocation_pb2.AllocateSimsRequest
U64 = st.integers(0, 2**64 - 1)


def varint(value: int, longer: int = 0) -> bytes:
    """A number, in ``longer`` bytes more than it needs."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    if not longer:
        return bytes(encoded) + bytes([value])
    return bytes(encoded) + bytes([value | 0x80]) + b"\x80" * (longer - 1) + b"\0"


@st.composite
def fields(draw: st.DrawFn) -> bytes:
    """One field, mostly one that the request knows; its form is anything that a peer might send."""
    number = draw(st.sampled_from([1, 2, 3, 4, 5, 6] * 3 + [0, 7, 9, 100, 2**29 - 1]))
    usual = {1: 2, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2}.get(number, 0)
    kind = draw(st.sampled_from([usual] * 8 + [0, 1, 2, 3, 4, 5, 6, 7]))
    tag = varint(number << 3 | kind, draw(st.sampled_from([0] * 10 + [1, 2, 3, 4, 5])))
    if kind == 0:
        return tag + varint(draw(U64), draw(st.sampled_from([0] * 5 + [1, 9])))
    if kind == 1:
        return tag + draw(st.binary(min_size=8, max_size=8))
    if kind == 5:
        return tag + draw(st.binary(min_size=4, max_size=4))
    if kind == 3:
        depth = draw(st.sampled_from([1, 2, 99, 100, 101, 102]))
        return tag + b"\x1b" * (depth - 1) + b"\x1c" * (depth - 1) + varint(number << 3 | 4)
    if kind != 2:
        return tag
    if number in (3, 4, 5):
        content = (
            draw(st.binary(max_size=40))
            if draw(st.integers(0, 9)) == 0
            else b"".join(value.to_bytes(8, "little") for value in draw(st.lists(U64, max_size=4)))
        )
    elif number == 6:
        values = draw(st.lists(st.sampled_from([0, 0, 1, 200, 2**32, 2**40]), max_size=4))
        content = b"".join(varint(value, draw(st.sampled_from([0, 0, 0, 3]))) for value in values)
    else:
        content = draw(st.sampled_from([b"as-01", b"jp", b"", b"\xc3\xa9", b"\xff", b"\xed\xa0\x80"]))
    return tag + varint(len(content), draw(st.sampled_from([0] * 10 + [1, 2, 3, 4, 5]))) + content


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    data = b"".join(draw(st.lists(fields(), max_size=6)))
    if data and draw(st.integers(0, 4)) == 0:
        data = data[: draw(st.integers(0, len(data)))]
    if data and draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(data) - 1))
        data = data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]
    return data


def compare(data: bytes) -> None:
    """Protobuf and the wire agree on one message."""
    try:
        expected: allocation_pb2.AllocateSimsRequest | None = REQUEST.FromString(data)
    except DecodeError:
        expected = None
    try:
        batch = contract.ALLOCATE_REQUEST.decode(data)
    except Malformed:
        assert expected is None, data.hex()
        return
    except ColumnsDiffer:
        assert expected is not None, data.hex()
        lengths = {len(expected.terminal), len(expected.subscriber), len(expected.expected_bytes), len(expected.market)}
        assert len(lengths) > 1 or len(expected.markets) != 1
        return
    assert expected is not None, data.hex()
    assert batch.text(0) == expected.access_server
    assert batch.names(1) == list(expected.markets)
    names = np.arange(100, 100 + len(expected.markets), dtype=np.uint16)
    try:
        run = batch.run(layout.ALLOCATE, actor=7, access_server=3, indexes=(b"", names.tobytes()))
    except ColumnsDiffer:
        assert any(index >= len(expected.markets) for index in expected.market)
        return
    header = np.frombuffer(run, RUN_HEADER, 1)[0]
    assert (header["size"], header["kind"], header["access_server"]) == (len(run), layout.ALLOCATE, 3)
    assert (header["count"], header["actor"], header["argument"]) == (batch.count, 7, 0)
    offset = RUN_HEADER.itemsize
    for name, code in COMMAND_COLUMNS[layout.ALLOCATE]:
        found = np.frombuffer(run, code, batch.count, offset).tolist()
        offset += np.dtype(code).itemsize * batch.count
        values = list(getattr(expected, name)) or [0] * batch.count
        assert found == ([100 + value for value in values] if name == "market" else values)
    assert not any(run[offset:])


@settings(max_examples=2_000, deadline=None)
@given(messages())
def test_accepts_what_protobuf_accepts(data: bytes) -> None:
    compare(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    compare(data)


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
        compare(data[:end])
    for place in range(len(data)):
        for value in (0, 0x7F, 0x80, 0xFF, data[place] ^ 1, data[place] ^ 0x80):
            compare(data[:place] + bytes([value]) + data[place + 1 :])


def test_a_column_in_pieces_and_one_by_one() -> None:
    pieces = b"".join(REQUEST(terminal=[key], market=[0]).SerializeToString() for key in (1, 2, 3))
    compare(pieces + REQUEST(access_server="a", markets=["jp"]).SerializeToString())
    single = b"".join(varint(3 << 3 | 1) + key.to_bytes(8, "little") for key in (4, 5))
    compare(single + REQUEST(access_server="a", markets=["jp"], terminal=[6]).SerializeToString())


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


@settings(max_examples=300, deadline=None)
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
            (slot, "<u2"),
            (slot, "<u2"),
            (status, "u1"),
        )
    )
    data = contract.ALLOCATE_RESPONSE.encode(columns, len(rows))
    response = allocation_pb2.AllocateSimsResponse.FromString(data)
    assert (list(response.epoch), list(response.expires_ms), list(response.iccid)) == (epoch, expires, iccid)
    assert (list(response.retry_after_ms), list(response.slot), list(response.status)) == (retry, slot, status)
    # And back: the column that the message lacks (sim) comes as 0.
    batch = contract.ALLOCATE_RESPONSE.decode(data)
    outcome = OutcomeRun(layout.ALLOCATE, batch.count, memoryview(batch.columns()))
    assert outcome["status"].tolist() == status
    assert outcome["slot"].tolist() == slot
    assert not outcome["sim"].any()


def test_encoding_picks_rows() -> None:
    columns = np.array([1, 2, 3], "<u8").tobytes() + np.array([4, 5, 200], "u1").tobytes()
    rows = np.array([2, 0], np.uint32).tobytes()
    response = allocation_pb2.RenewResponse.FromString(contract.RENEW_RESPONSE.encode(columns, 3, rows))
    assert list(response.expires_ms) == [3, 1]
    assert list(response.status) == [200, 4]
    with pytest.raises(IndexError):
        contract.RENEW_RESPONSE.encode(columns, 3, np.array([3], np.uint32).tobytes())
    with pytest.raises(ValueError, match="too few"):
        contract.RENEW_RESPONSE.encode(columns, 4)


SESSION_PARTS = st.sampled_from(
    [
        access_server_pb2.SessionRequest(hello=access_server_pb2.Hello(access_server="as-01")),
        access_server_pb2.SessionRequest(hello=access_server_pb2.Hello(software="x")),
        access_server_pb2.SessionRequest(holds=access_server_pb2.Holds(terminal=[1], epoch=[2], iccid=[3])),
        access_server_pb2.SessionRequest(holds=access_server_pb2.Holds(terminal=[4])),
        access_server_pb2.SessionRequest(ready=access_server_pb2.Ready()),
        access_server_pb2.SessionRequest(load=access_server_pb2.Load(queue_wait_us=7)),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(SESSION_PARTS, max_size=4), st.binary(max_size=8))
def test_members_of_a_oneof_as_protobuf_settles_them(
    parts: list[access_server_pb2.SessionRequest], tail: bytes
) -> None:
    data = b"".join(part.SerializeToString() for part in parts) + tail
    try:
        expected = access_server_pb2.SessionRequest.FromString(data)
    except DecodeError:
        with pytest.raises((Malformed, DecodeError)):
            # Where the envelope is sound, what is in it is refused by its own decoder.
            access_server_pb2.SessionRequest.FromString(wire.enclose(*read_message(data)))
        return
    number, content = read_message(data)
    member = expected.WhichOneof("message")
    assert (number == 0) == (member is None)
    if member is not None:
        again = access_server_pb2.SessionRequest.FromString(wire.enclose(number, content))
        again.DiscardUnknownFields()
        expected.DiscardUnknownFields()
        assert again == expected

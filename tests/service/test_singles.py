"""Single allocations joined into one run: what is taken and what is answered is what protobuf would read and write."""

from __future__ import annotations

import struct

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from simswitch.core import layout
from simswitch.core.commands import OUTCOME_COLUMNS, OutcomeRun, decode_iccid, run
from simswitch.service.singles import Allocations, access_server
from simswitch.v1 import allocation_pb2 as pb

SERVER = "as-1 ü"
MARKETS = {"jp": 3, "": 4, "m" * 127: 5}
BANKS = ["", "bank", "b" * 64]
MAX64 = 2**64 - 1

numbers = st.one_of(st.integers(0, MAX64), st.sampled_from([0, 1, 127, 128, 2**56, 2**63 - 1, 2**63, MAX64]))
servers = st.one_of(st.just(SERVER), st.text(max_size=3), st.just("s" * 128))
requests = st.builds(
    pb.AllocateRequest,
    access_server=servers,
    market=st.sampled_from([*MARKETS, "us", "m" * 128]),
    terminal=numbers,
    subscriber=numbers,
    expected_bytes=numbers,
).map(pb.AllocateRequest.SerializeToString)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A request with a byte changed, or cut off, or with another one behind it."""
    data = bytearray(draw(requests))
    for _ in range(draw(st.integers(0, 2))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) + draw(
        st.one_of(st.just(b""), st.binary(max_size=4), requests)
    )


def collect() -> Allocations:
    return Allocations(
        SERVER.encode(), lambda name: MARKETS.get(name.decode(errors="replace")), lambda bank: BANKS[bank].encode()
    )


def plain_run(found: list[pb.AllocateRequest]) -> bytes:
    return run(
        layout.ALLOCATE,
        len(found),
        actor=7,
        access_server=9,
        terminal=[request.terminal for request in found],
        subscriber=[request.subscriber for request in found],
        expected_bytes=[request.expected_bytes for request in found],
        market=[MARKETS[request.market] for request in found],
    )


@given(st.lists(st.one_of(requests, mutated(), st.binary(max_size=8)), max_size=40))
def test_what_is_taken_is_what_protobuf_reads(data: list[bytes]) -> None:
    singles = collect()
    found = []
    for request in data:
        read = protobuf_reads(request)
        name = access_server(request)
        # A text that is not UTF-8 is no known name, so nothing is taken that protobuf would refuse.
        if name is not None and read is not None:
            assert name == read.access_server.encode()
        if singles.add(request):
            assert read is not None
            found.append(read)
    assert singles.count == len(found)
    assert all(request.access_server == SERVER for request in found)
    assert singles.run(7, 9) == plain_run(found)


def protobuf_reads(request: bytes) -> pb.AllocateRequest | None:
    try:
        return pb.AllocateRequest.FromString(request)
    except DecodeError:
        return None


@given(requests)
def test_the_usual_form_is_taken(data: bytes) -> None:
    """Else everything would go the long way and no other test would tell."""
    request = pb.AllocateRequest.FromString(data)
    usual = request.access_server == SERVER and request.market in MARKETS and request.expected_bytes < 2**63
    assert collect().add(data) == usual


@pytest.mark.parametrize(
    "data",
    [
        b"\x19" + bytes(7),
        b"\x28",
        b"\x28" + b"\xff" * 10,
        b"\x0a",
        b"\x0a\x05as",
        b"\x19" + bytes(8) + b"\x19" + bytes(8),
        b"\x1a\x00",
        b"\x00",
        b"\x32\x00",
        b"\x0a\x01\xff",
    ],
)
def test_anything_else_is_declined(data: bytes) -> None:
    usual = pb.AllocateRequest(access_server=SERVER, market="jp").SerializeToString()
    singles = collect()
    assert not singles.add(usual + data)
    assert singles.add(usual)
    assert singles.count == 1


grants = st.tuples(
    numbers,
    numbers,
    st.builds(lambda digits, long: digits * 2 + long, st.integers(0, 10**17 - 1), st.integers(0, 1)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 0, 0, 128]),
    st.integers(0, len(BANKS) - 1),
    st.one_of(st.integers(0, 2**16 - 1), st.sampled_from([0, 127, 128, 16_383, 16_384])),
    st.sampled_from([layout.OK, layout.SAME, layout.MOVED, layout.NO_HEALTHY_SIM, layout.NOT_PERMITTED]),
)


@given(st.lists(st.tuples(numbers, grants), min_size=1, max_size=20))
def test_answers_are_what_protobuf_writes(items: list[tuple[int, tuple[int, ...]]]) -> None:
    singles = collect()
    for terminal, _ in items:
        assert singles.add(pb.AllocateRequest(access_server=SERVER, terminal=terminal).SerializeToString())
    columns = zip(*(grant for _, grant in items), strict=True)
    codes = "QQQIIIHHB"
    outcome = b"".join(
        struct.pack(f"<{len(items)}{code}", *column) for code, column in zip(codes, columns, strict=True)
    )
    for item, ((terminal, grant), answer) in enumerate(zip(items, singles.answers(outcome), strict=True)):
        epoch, expires_ms, iccid, _, _, slow_kbps, bank, slot, status = grant
        if slow_kbps or status not in (layout.OK, layout.SAME, layout.MOVED):
            assert answer is None
        else:
            lease = pb.Lease(
                terminal=terminal,
                epoch=epoch,
                expires_ms=expires_ms,
                iccid=decode_iccid(iccid),
                bank=BANKS[bank],
                slot=slot,
            )
            expected = pb.AllocateResponse(lease=lease)
            expected.status = status  # type: ignore[assignment]
            assert answer is not None
            assert pb.AllocateResponse.FromString(answer) == expected
        one = OutcomeRun(layout.ALLOCATE, 1, memoryview(singles.outcome_of(item, outcome)))
        assert tuple(int(one[name][0]) for name, _ in OUTCOME_COLUMNS[layout.ALLOCATE]) == grant


def test_an_outcome_that_is_too_short_is_an_error() -> None:
    singles = collect()
    assert singles.add(pb.AllocateRequest(access_server=SERVER).SerializeToString())
    for short in (bytes(40), b""):
        with pytest.raises(ValueError, match="of 1 allocations has"):
            singles.answers(short)
    with pytest.raises(ValueError, match="no item 1"):
        singles.outcome_of(1, bytes(82))


def test_protobuf_refuses_what_no_text_is() -> None:
    """Why a name is never taken unread: it has to be known, and so it is UTF-8."""
    data = b"\x0a\x01\xff"
    assert access_server(data) == b"\xff"
    with pytest.raises(DecodeError):
        pb.AllocateRequest.FromString(data)

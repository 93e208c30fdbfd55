"""A fresh server for each test."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import grpc
import pytest
from simswitch.client import OperatorClient

from tests.service.joining import HeldUp, allocating, single
from tests.service.serving import Serving, define

NATIVE = pytest.param(
    "native",
    marks=pytest.mark.skipif(find_spec("pygrpc_native") is None, reason="the extra simswitch[native] is missing"),
)


@pytest.fixture(params=["grpcio", NATIVE])
def transport(request: pytest.FixtureRequest) -> str:
    """What carries the calls: every test runs over both."""
    return str(request.param)


@pytest.fixture
def serving(tmp_path: Path, transport: str) -> Iterator[Serving]:
    serving = Serving(tmp_path / "data", transport)
    try:
        yield serving
    finally:
        serving.end()


@pytest.fixture
def operator(serving: Serving) -> Iterator[OperatorClient]:
    with OperatorClient(serving.address) as operator:
        yield operator


@pytest.fixture
def pool(operator: OperatorClient) -> OperatorClient:
    """The operator of a server with a small inventory."""
    define(operator)
    return operator


@pytest.fixture
def held_up(serving: Serving, pool: OperatorClient) -> Iterator[HeldUp]:
    assert pool
    with grpc.insecure_channel(serving.address) as channel:
        allocating(channel)(single(0), timeout=10)
    held_up = HeldUp(serving)
    yield held_up
    held_up.let_go()

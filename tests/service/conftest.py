"""A fresh server for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simswitch.client import OperatorClient

from tests.service.serving import Serving, define


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path / "data")
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

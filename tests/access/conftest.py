"""A server with TLS: one for each test that changes how it is entered, one for all others of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.access.doors import Doors


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    doors = Doors(tmp_path)
    try:
        yield doors
    finally:
        doors.serving.end()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    doors = Doors(tmp_path_factory.mktemp("shared"))
    try:
        yield doors
    finally:
        doors.serving.end()

"""The bench of the wire in smoke size: its rows, and hashes that depend on the seed alone."""

from __future__ import annotations

from benches import wire


def silent(_text: str) -> None:
    """Progress that nobody wants to see."""


def test_wire() -> None:
    first = wire.measure(100, 1, 2, silent)
    assert tuple(result.name for result in first) == wire.ROWS
    assert all(result.value and result.reference for result in first)
    assert [result.hash for result in first] == [result.hash for result in wire.measure(100, 1, 1, silent)]
    assert first[0].hash != wire.measure(100, 2, 1, silent)[0].hash

"""The bench of overload in a size that only shows that it works: counts, and the order of shedding by the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from benches import overload
from benches.peers import install

NEEDS = pytest.mark.skipif(install.compiler() is None, reason="no compiler with gRPC for C++")


@NEEDS
@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_the_bench_counts_every_call(tmp_path: Path, transport: str) -> None:
    if transport == "native":
        pytest.importorskip("pygrpc_native")
    found = overload.measure(
        tmp_path / "bench",
        transport,
        lambda _: None,
        seconds=0.5,
        servers=3,
        terminals=200,
        in_flight=(16,),
        cost_calls=50,
    )
    assert found["best_calls_per_s"] > 0
    assert set(found["cost_us"]) == {"read", "report", "renew", "allocate", "refused"}
    for kinds in (found["kinds"], found["deaf"]["kinds"]):
        for of in kinds.values():
            assert of["due"] == sum(of[name] for name in overload.OUTCOMES[:-1])
            assert of["other"] == 0
    assert found["kinds"]["allocate"]["answered"] > 0
    assert not any(of["held_back"] for of in found["deaf"]["kinds"].values())
    assert f"{transport}: best" in overload.table(transport, found)

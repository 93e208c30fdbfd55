"""Every bench runs in a size that costs next to nothing, so that none rots; hashes are compared, times never."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benches import core, journal, rpc, run
from benches.reference import Reference
from benches.report import Result, print_table, write_json
from benches.world import Pool

T = TypeVar("T")


def silent(_text: str) -> None:
    """Progress that nobody wants to see."""


def once(benchmark: BenchmarkFixture, bench: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    """One run under pytest-benchmark, whose own figures are of no interest here."""
    pedantic: Callable[..., T] = benchmark.pedantic
    return pedantic(bench, arguments)


@pytest.mark.parametrize("pool", get_args(Pool))
def test_core(benchmark: BenchmarkFixture, pool: Pool) -> None:
    """Two runs give the same hash, another seed another one."""
    first = once(benchmark, core.measure, (2_000, pool, 1, 1, silent))
    assert [result.name.split(".")[1] for result in first] == ["allocate", "renew", "report_usage", "release"]
    again = core.measure(2_000, pool, 1, 1, silent)
    assert [result.hash for result in first] == [result.hash for result in again]
    assert core.measure(2_000, pool, 2, 1, silent)[0].hash != first[0].hash


def test_swap(benchmark: BenchmarkFixture) -> None:
    first = once(benchmark, core.measure_swap, (500, 1, silent, 5))
    assert first.size == 500
    assert first.hash == core.measure_swap(500, 1, silent, 5).hash


def test_journal(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    first = once(benchmark, journal.measure, (tmp_path / "first", 32 << 10, 5, silent))
    assert first.hash == journal.measure(tmp_path / "second", 32 << 10, 5, silent).hash
    assert list(tmp_path.iterdir()) == []


def test_rpc(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """A real server, its follower and two clients: every allocation is granted, or the bench raises."""
    result = once(benchmark, rpc.measure, (tmp_path / "rpc", 2_000, silent))
    assert result.size == 2_000
    assert result.value is not None
    assert result.value > 0
    assert result.hash == rpc.measure(tmp_path / "rpc", 2_000, silent).hash
    assert list(tmp_path.iterdir()) == []


def test_run_names_its_rows(tmp_path: Path) -> None:
    """What can be asked for by name is what the benches say they give."""
    rows = {name for bench in run.benches(tmp_path, 1, run.SMOKE) for name in bench.rows}
    assert rows == set(run.NAMES)
    results = run.run(1, run.SMOKE, ["core"], silent)
    assert {result.name for result in results} == {name for name in run.NAMES if name.startswith("core.")}
    assert all(re.fullmatch("[0-9a-f]{16}", result.hash) for result in results)


def test_a_bench_that_fails_is_a_row_with_the_reason() -> None:
    def broken(_say: core.Progress) -> list[Result]:
        raise RuntimeError("3 allocations were not granted")

    (result,) = run.attempt(run.Bench(("rpc.batch_100",), 10, broken), silent)
    assert result.name == "rpc.batch_100"
    assert result.met is False
    assert result.value is None
    assert "3 allocations were not granted" in result.note


def test_the_reference_touches_what_it_says() -> None:
    reference = Reference(1_000)
    try:
        keys = np.arange(1_000, dtype=np.uint64)
        assert len(reference.touch_ns(keys, keys.astype(np.uint32), 100, 4)) == 10
    finally:
        reference.close()


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goals are judged in the right direction, and the file has what its readers expect."""
    results = [
        Result("a", 10, 100.0, "ns", "00", reference=50.0, goal=150.0),
        Result("b", 10, 100.0, "1/s", "01", goal=150.0, better="higher"),
        Result("c", 10, 100.0, "ns", "02"),
    ]
    write_json(tmp_path / "bench.json", 7, results)
    content = json.loads((tmp_path / "bench.json").read_text())
    assert set(content) == {"machine", "commit", "seed", "results"}
    assert [result["met"] for result in content["results"]] == [True, False, None]
    assert [result["ratio"] for result in content["results"]] == [2.0, None, None]
    print_table(7, results)
    shown = capsys.readouterr().out
    assert "NO" in shown
    assert "seed 7" in shown

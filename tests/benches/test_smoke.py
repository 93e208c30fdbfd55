"""Every bench runs in a size that costs next to nothing, so that none rots; hashes are compared, times never."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from simswitch.core import layout
from simswitch.core.machine import xxh64

from benches import calls, core, journal, lines, pools, rpc, run, virtual
from benches.peers.install import compiler
from benches.plot import PANELS, plot
from benches.reference import Reference
from benches.report import Result, compare, print_table, write_json
from benches.world import EXPECTED_BYTES, POOLS, WARM_SIMS, Pool, World

T = TypeVar("T")


def silent(_text: str) -> None:
    """Progress that nobody wants to see."""


def once(benchmark: BenchmarkFixture, bench: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    """One run under pytest-benchmark, whose own figures are of no interest here."""
    pedantic: Callable[..., T] = benchmark.pedantic
    return pedantic(bench, arguments)


@pytest.mark.parametrize("pool", POOLS.values(), ids=list(POOLS))
def test_core(benchmark: BenchmarkFixture, pool: Pool) -> None:
    """Two runs give the same hash, another seed another one."""
    first = once(benchmark, core.measure, (2_000, pool, 1, 1, silent))
    assert sorted(result.name for result in first) == sorted(core.rows(pool))
    again = core.measure(2_000, pool, 1, 1, silent)
    assert [result.hash for result in first] == [result.hash for result in again]
    assert core.measure(2_000, pool, 2, 1, silent)[0].hash != first[0].hash


def test_a_pool_has_the_classes_and_the_warmth_that_it_says() -> None:
    assert len(World(2_000, POOLS["classes_16"], 1).machine.groups()) == 16 * 8
    world = World(6_000, POOLS["warm"], 1)
    assert len(world.terminals) == WARM_SIMS
    assert world.machine.header()["occupancy"]["free"] == WARM_SIMS


def test_swap_job(benchmark: BenchmarkFixture) -> None:
    first = once(benchmark, core.measure_job, (500, 1, silent))
    assert first.size == 500
    assert first.hash == core.measure_job(500, 1, silent).hash


def test_moving_terminals_confirms_each_once() -> None:
    world = World(4_000, POOLS["spread"], 1, core.SWAP_SERVERS, orders_max=4_000)
    moved = core.move(world, 1_000, 100)
    assert world.machine.job(0)["confirmed_count"] == 1_000
    assert moved.total_ns == moved.select_ns + moved.order_ns + moved.confirm_total_ns
    assert min(moved.select_ns, moved.order_ns, moved.confirm_total_ns) > 0


def test_goals_follow_the_loop() -> None:
    """A ratio while our loop is near the design's; its absolute figure where it is not; none where it names none."""
    spread = POOLS["spread"]
    assert core.goal("allocate", spread, 10_000, 14.0) == {"goal": 1.8, "goal_of": "ratio"}
    assert core.goal("allocate", spread, 10_000, 10.4) == {"goal": 25.2}
    assert core.goal("swap", spread, 10_000_000, 96.0) == {"goal": 129.2}
    assert core.goal("cool", spread, 10_000, 14.0) == {}
    assert core.goal("allocate", POOLS["warm"], 10_000, 14.0) == {}


def test_python_call(benchmark: BenchmarkFixture) -> None:
    first = once(benchmark, pools.measure, (2_000, 1, 1, silent))
    assert first.hash == pools.measure(2_000, 1, 1, silent).hash


@pytest.mark.parametrize("make", pools.RIVALS.values(), ids=list(pools.RIVALS))
def test_a_rival_pool_does_the_same_job(make: Callable[[list[int]], pools.PythonPool]) -> None:
    """A SIM goes to one terminal at a time, fits, and comes back."""
    fits = [EXPECTED_BYTES - 1, EXPECTED_BYTES, 2 * EXPECTED_BYTES]
    pool = make(fits)
    given = {pool.allocate(terminal) for terminal in (7, 8)}
    assert {sim for sim, _ in given} == {1, 2}
    assert len({epoch for _, epoch in given}) == 2
    with pytest.raises((LookupError, IndexError)):
        pool.allocate(9)
    pool.release(8)
    assert pool.allocate(9)[0] in (1, 2)


def test_lines_reads_what_callgrind_wrote(tmp_path: Path) -> None:
    dump = "desc: Trigger: Client Request: renew\nevents: Ir Dr Dw DLmr DLmw\ntotals: 9 8 7 40 2\n"
    (tmp_path / "out.1").write_text(dump)
    assert lines.counted_events(tmp_path / "out.1") == ("renew", lines.Counted(instructions=9, lines=42))


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


needs_compiler = pytest.mark.skipif(
    compiler() is None,
    reason="g++ or the headers of gRPC for C++ are missing",
)
NATIVE = pytest.param(
    "native",
    marks=pytest.mark.skipif(find_spec("pygrpc_native") is None, reason="the extra simswitch[native] is missing"),
)


@needs_compiler
@pytest.mark.parametrize("transport", ["grpcio", NATIVE])
def test_calls(benchmark: BenchmarkFixture, tmp_path: Path, transport: str) -> None:
    """Every allocation is granted and known after kill -9, or the bench raises; so few at once that none is shed."""
    batches = once(benchmark, calls.measure_batches, (tmp_path / "calls", 4_000, silent, 1_000, transport))
    singles = calls.measure_singles(tmp_path / "calls", 500, silent, transport, in_flight=16)
    assert batches.name == calls.row("batch_1000", transport)
    assert tuple(result.name for result in singles) == calls.single_rows(transport)
    assert all(result.value and result.reference for result in (batches, *singles))
    # The statuses of four answers, twice: the same on either transport.
    folded = reduce(lambda seed, _: xxh64(bytes([layout.OK]) * 1_000, seed), range(8), 0)
    assert batches.hash == f"{folded:016x}"
    assert list(tmp_path.iterdir()) == []


def test_run_names_its_rows() -> None:
    """What can be asked for by name is what the benches give; every row that the table has to have is among them."""
    assert set(run.REQUIRED) <= set(run.names())
    results = run.run(1, run.SMOKE, ["core"], silent)
    assert {result.name for result in results} == {name for name in run.names() if name.startswith("core.")}
    assert all(re.fullmatch("[0-9a-f]{16}", result.hash) for result in results)


def test_a_bench_that_fails_is_a_row_with_the_reason() -> None:
    def broken(_say: core.Progress) -> list[Result]:
        raise RuntimeError("3 allocations were not granted")

    (result,) = run.attempt(run.Bench(("rpc.batch_100",), 10, broken), silent)
    assert result.name == "rpc.batch_100"
    assert result.met is False
    assert result.value is None
    assert "3 allocations were not granted" in result.note


def test_a_required_row_that_no_bench_gives_is_there() -> None:
    (lacking,) = run.missing([run.Bench(run.REQUIRED[1:], 10, lambda _say: [])])
    (result,) = run.attempt(lacking, silent)
    assert result.name == run.REQUIRED[0]
    assert result.met is False
    assert "no bench" in result.note


def test_what_costs_much_runs_only_when_asked_for() -> None:
    assert not run.wanted("lines.allocate", [])
    assert run.wanted("lines.allocate", ["lines"])
    assert run.wanted("core.allocate", [])


def test_the_reference_touches_each_terminal_and_sim() -> None:
    """Its outcomes are those of an allocation: the terminal changes with each, the SIM is the one named."""
    world = World(1_000, POOLS["spread"], 1)
    reference = Reference(1_000)
    try:
        sims = np.arange(99, -1, -1, dtype=np.uint32)
        batch = world.allocation(np.arange(100))
        reference.touch_ns(batch, sims)
        assert reference.outcomes(100)["sim"].tolist() == sims.tolist()
        assert reference.outcomes(100)["iccid"].tolist() == sims.tolist()
        before = reference.outcomes(100)["epoch"].copy()
        reference.touch_ns(batch, sims)
        assert (reference.outcomes(100)["epoch"] != before).all()
    finally:
        reference.close()


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goals are judged in the right direction, and the file has what its readers expect."""
    results = [
        Result("a", 10, 100.0, "ns", "00", reference=50.0, goal=150.0),
        Result("b", 10, 100.0, "1/s", "01", goal=150.0, better="higher"),
        Result("c", 10, 100.0, "ns", "02"),
        Result("d", 10, 100.0, "ns", "03", reference=50.0, goal=1.5, goal_of="ratio"),
        Result("e", 10, None, "ns", "04", goal=1.5),
    ]
    write_json(tmp_path / "bench.json", 7, results)
    content = json.loads((tmp_path / "bench.json").read_text())
    assert set(content) == {"machine", "commit", "seed", "results"}
    assert [result["met"] for result in content["results"]] == [True, False, None, False, False]
    assert [result["ratio"] for result in content["results"]] == [2.0, None, None, 2.0, None]
    fields = {"name", "size", "value", "unit", "reference", "ratio", "goal", "met"}
    assert all(fields <= set(result) for result in content["results"])
    print_table(7, results)
    shown = capsys.readouterr().out
    assert "NO" in shown
    assert "value >= 150" in shown
    assert "ratio <= 1.5" in shown
    assert "seed 7" in shown


def test_compare() -> None:
    """Ratios where there are any, in the right direction; what is not measured any more is worse."""

    def content(machine: str, rows: list[Result]) -> dict[str, Any]:
        return {"machine": machine, "results": [row.as_json() for row in rows]}

    before = [
        Result("slower", 10, 100.0, "ns", "", reference=100.0),
        Result("same", 10, 100.0, "ns", "", reference=100.0),
        Result("fewer", 10, 100.0, "1/s", "", better="higher"),
        Result("gone", 10, 100.0, "ns", "", reference=100.0),
    ]
    now = [
        Result("slower", 10, 56.0, "ns", "", reference=50.0),
        Result("same", 10, 218.0, "ns", "", reference=200.0),
        Result("fewer", 10, 90.0, "1/s", "", better="higher"),
        Result("gone", 10, None, "", "", failed=True),
    ]
    worse = compare(content("m", before), content("m", now))
    assert [row.name for row in worse] == ["slower", "fewer", "gone"]
    elsewhere = compare(content("m", before), content("another", now))
    assert [row.name for row in elsewhere] == ["slower", "gone"]


def test_against_an_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command: a file whose figures no run reaches fails it, one that any run beats does not."""
    path = tmp_path / "now.json"
    arguments = ["run", "--smoke", "--only", "core.swap.job", "--json", str(path)]
    monkeypatch.setattr("sys.argv", arguments)
    assert run.main() == 0
    earlier = json.loads(path.read_text())
    for factor, code, words in ((1e-6, 1, "1 rows are worse"), (1e6, 0, "nothing is worse")):
        changed = {**earlier, "results": [{**row, "ratio": row["ratio"] * factor} for row in earlier["results"]]}
        (tmp_path / "earlier.json").write_text(json.dumps(changed))
        monkeypatch.setattr("sys.argv", [*arguments, "--against", str(tmp_path / "earlier.json")])
        assert run.main() == code
        assert words in capsys.readouterr().out


def test_plot(tmp_path: Path) -> None:
    results = [
        Result(f"core.{name}{end}", size, 10.0, "ns", "", reference=5.0)
        for name in PANELS
        for end in ("", ".one_tier")
        for size in (10, 100)
    ]
    plot(tmp_path / "bench.png", results, "a machine")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="two sizes"):
        plot(tmp_path / "bench.png", results[:1], "a machine")


@needs_compiler
def test_during_job(tmp_path: Path) -> None:
    result = calls.measure_during_job(tmp_path / "job", 500, silent)
    assert result.value
    assert result.reference
    assert "5,000 terminals moved" in result.note
    assert result.hash
    assert list(tmp_path.iterdir()) == []


def test_during_job_under_a_virtual_clock() -> None:
    result = virtual.measure(500, 1, silent)
    assert result.ratio is not None
    assert 1 <= result.ratio <= 1.2
    assert result.hash == virtual.measure(500, 1, silent).hash

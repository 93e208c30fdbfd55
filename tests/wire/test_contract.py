"""The committed generated code is that of the contract, and both speak of the same things as the core."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from simswitch.core import layout
from simswitch.v1 import access_server_pb2, pool_pb2, sim_pb2, status_pb2, swap_pb2

ROOT = Path(__file__).resolve().parents[2]
ELEMENT = re.compile(
    r"\s*((message|enum|service|rpc|oneof|repeated|optional) |[A-Za-z0-9_.]+ [a-z_0-9]+ = \d+;|[A-Z0-9_]+ = \d+;)"
)
GENERATED = ROOT / "engine" / "simswitch" / "v1"


def test_generated_code_is_current(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "proto" / "generate.py"))["generate"](tmp_path)
    fresh = tmp_path / "simswitch" / "v1"
    names = {path.name for path in fresh.iterdir()}
    assert names == {path.name for path in GENERATED.iterdir() if path.is_file()}
    for name in sorted(names):
        assert (fresh / name).read_bytes() == (GENERATED / name).read_bytes(), f"{name} is stale: run `make proto`"


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (layout.Status, status_pb2.Status, "STATUS_"),
        (layout.Health, sim_pb2.Health, "HEALTH_"),
        (layout.Occupancy, sim_pb2.Occupancy, "OCCUPANCY_"),
        (layout.Setting, pool_pb2.Setting, "SETTING_"),
        (layout.OrderKind, access_server_pb2.OrderKind, "ORDER_KIND_"),
    ],
)
def test_enums_have_the_numbers_of_the_core(ours: Any, theirs: Any, prefix: str) -> None:
    values = {name.removeprefix(prefix): number for name, number in theirs.items()}
    assert values.pop("UNSPECIFIED") == 0
    assert values == {member.name: int(member) for member in ours}


@pytest.mark.parametrize(
    ("ours", "prefix", "theirs", "their_prefix"),
    [
        (layout.Gate, "GATE_", pool_pb2.Gate, "GATE_"),
        (layout.WindowReason, "WINDOW_", pool_pb2.WindowReason, "WINDOW_REASON_"),
        (layout.JobState, "JOB_", swap_pb2.JobState, "JOB_STATE_"),
        (layout.Priority, "PRIORITY_", swap_pb2.Priority, "PRIORITY_"),
        (layout.Acknowledgement, "ACK_", access_server_pb2.AcknowledgementResult, "ACKNOWLEDGEMENT_RESULT_"),
    ],
)
def test_prefixed_enums_have_the_numbers_of_the_core(ours: Any, prefix: str, theirs: Any, their_prefix: str) -> None:
    values = {name.removeprefix(their_prefix): number for name, number in theirs.items()}
    assert values.pop("UNSPECIFIED") == 0
    # 0 is the core's own: a slot that is not used, and the priority of stop orders, which no job can ask for.
    expected = {member.name.removeprefix(prefix): int(member) for member in ours}
    assert values == {name: number for name, number in expected.items() if number}


def test_everything_has_a_comment() -> None:
    for path in sorted((ROOT / "proto").rglob("*.proto")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if ELEMENT.match(line):
                assert lines[number - 1].lstrip().startswith("//"), f"{path.name}:{number + 1} has no comment: {line}"


def test_buf_lint_is_clean() -> None:
    local = ROOT / "node_modules" / ".bin" / "buf"
    buf = str(local) if local.exists() else shutil.which("buf")
    if buf is None:
        pytest.skip("buf is a development tool from npm and is not installed")
    done = subprocess.run([buf, "lint"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""The wheel: what is in it, and that it works outside the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TINY_ALLOCATE = """
import simswitch
from simswitch.core import commands, layout
from simswitch.core.machine import Machine

machine = Machine()
machine.apply(commands.run(layout.GROW, sims=100, terminals=100, orders=100), 1_000, 1)


def define(kind, name, numbers=None):
    record = commands.definition(kind, name, numbers)
    outcome = machine.apply(commands.run(layout.DEFINE, definition=record), 1_000, 1)
    return int(commands.outcome_runs(outcome.data)[0]["index"][0])


supplier = define(layout.SUPPLIER, "supplier")
plan = define(layout.PLAN, "plan")
sim_class = define(layout.SIM_CLASS, "class")
lot = define(
    layout.LOT, "lot", {layout.LOT_SUPPLIER: supplier, layout.LOT_PLAN: plan, layout.LOT_CLASS: sim_class}
)
bank = define(layout.BANK, "bank")
market = define(layout.MARKET, "market", {layout.MARKET_FIRST_CLASS: sim_class})
server = machine.server_index(define(layout.ACCESS_SERVER, "server"))
iccid = commands.encode_iccid("8981100000000000015")
sim = dict(imsi=440100000000001, opening_cycle_bytes=0, opening_day_bytes=0, opening_rolling_bytes=0, slot=0)
machine.apply(
    commands.run(layout.IMPORT_SIMS, iccid=iccid, lot=lot, bank=bank, health=layout.HEALTHY, **sim), 1_000, 1
)
ask = dict(terminal=7, subscriber=0, expected_bytes=0, market=market)
allocate = commands.run(layout.ALLOCATE, access_server=server, **ask)
grant = commands.outcome_runs(machine.apply(allocate, 1_000, 1).data)[0]
print(simswitch.__file__)
print(commands.decode_iccid(int(grant["iccid"][0])), int(grant["status"][0]))
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*build, "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)], check=True)
    (found,) = folder.glob("simswitch-*.whl")
    return found


@pytest.mark.timeout(600)
def test_the_wheel_holds_what_a_user_needs_and_no_sources_of_extensions(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    sources = sorted(path.relative_to(ROOT / "engine") for path in (ROOT / "engine").rglob("*.pyx"))
    for source in sources:
        assert str(source.with_suffix("")) + suffix in names
        assert str(source.with_suffix(".pyi")) in names or source.parent.name == "core"
    assert "simswitch/py.typed" in names
    assert "simswitch/demo/data/inventory.toml" in names
    assert any(name.startswith("simswitch/twin/scenarios/") and name.endswith(".toml") for name in names)
    assert not [name for name in names if name.endswith((".pyx", ".pxd", ".pxi", ".c", ".html"))]
    assert not [name for name in names if name.startswith(("tests/", "benches/"))]


@pytest.mark.timeout(600)
def test_the_wheel_works_outside_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin" / "python"
    # Everything but simswitch comes from the environment that runs this test: a .pth file names its folder, and the
    # .pth files in that folder, the editable simswitch among them, are not followed.
    site = Path(sysconfig.get_path("purelib", vars={"base": str(venv), "platbase": str(venv)}))
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(wheel)], check=True
    )

    outside = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    version = subprocess.run(
        [venv / "bin" / "simswitch", "--version"], cwd=tmp_path, env=outside, capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith("simswitch ")
    allocated = subprocess.run(
        [python, "-c", TINY_ALLOCATE], cwd=tmp_path, env=outside, capture_output=True, text=True, check=False
    )
    assert allocated.returncode == 0, allocated.stderr
    file, grant = allocated.stdout.splitlines()
    assert Path(file).is_relative_to(venv)
    assert grant == "8981100000000000015 1"

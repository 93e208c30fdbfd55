"""The operating guide does what it says: each command is run against a real server, and what it prints compared."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.operating import service_manager
from tests.operating.guide import ASSUMED, missing, read_guide
from tests.operating.scenes import FULL, ROOT, SCENES, SMALL_DISK_BYTES, Machine, furnished, play

# A disk of its own without being root: memory that is mounted where only these processes see it.
ALONE = ("unshare", "--user", "--map-root-user", "--mount")
ON_A_SMALL_DISK = f'mount -t tmpfs -o size={SMALL_DISK_BYTES} tmpfs "$0" && exec "$@"'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("furnished"))


@pytest.mark.parametrize("section", [section for section in SCENES if section != FULL])
def test_each_section(section: str, tmp_path: Path, data: Path) -> None:
    run = [command for command, _ in play(section, tmp_path, data)]
    assert run == read_guide().sections[section]


def test_a_full_disk(tmp_path: Path, data: Path) -> None:
    if subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    (tmp_path / "var").mkdir()
    play_it = (sys.executable, "-m", "tests.operating.scenes", str(tmp_path), str(data), FULL)
    found = subprocess.run(
        [*ALONE, "sh", "-c", ON_A_SMALL_DISK, str(tmp_path / "var"), *play_it],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr + found.stdout
    assert found.stdout.count("operating.md:") == len(read_guide().sections[FULL])


def test_a_stop_leaves_nothing_out_of_history(tmp_path: Path, data: Path) -> None:
    machine = Machine(tmp_path, read_guide())
    try:
        shutil.copytree(data, machine.data)
        shutil.copy(data.parents[2] / "etc/simswitch/token", machine.token)
        machine.start()
        machine.serving("as-1", range(1, 11))
    finally:
        machine.end()
    assert " 0 behind the journal" in machine.bash("simswitch check /var/lib/simswitch")[1]
    log = (tmp_path / service_manager.LOG).read_text(encoding="utf-8")
    assert "ERROR" not in log
    assert "has not seen" not in log


def test_no_section_is_left_out() -> None:
    assert {*SCENES, ASSUMED} == set(read_guide().sections)


def test_what_is_compared() -> None:
    """A guide that says something else fails."""
    printed = " name    SIMs \n as-1      12\n as-2       7\n"
    assert missing(["name SIMs", " as-2 … 7"], printed) is None
    assert missing([" as-2 …", " as-1 …"], printed) == " as-1 …"
    assert missing([" as-1 … 7"], printed) == " as-1 … 7"
    assert missing([" as-1"], printed) == " as-1"

"""Whose a data folder's files are: the service's user can use what root has made in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from simswitch.access.tokens import create_token, revoke_token
from simswitch.folder.backup import backup
from simswitch.folder.restore import restore
from simswitch.history.projector import Projector
from simswitch.journal.disk import RealDisk

from tests.folder.lives import Life

OTHER, GROUP = 12_345, 12_346
# Nobody has this number, as in a container that has no name for its user.
NAMELESS = ("unshare", "--user", f"--map-user={OTHER}")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")


def owners(folder: Path) -> set[tuple[int, int]]:
    return {(path.stat().st_uid, path.stat().st_gid) for path in (folder, *folder.rglob("*"))}


def lived(folder: Path) -> None:
    life = Life(folder)
    life.live(1)
    life.cell.close()


@as_root
def test_what_root_makes_in_the_services_folder_is_the_services(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(0o700)
    os.chown(folder, OTHER, GROUP)
    token, _ = create_token(folder, "operator:alice", 60_000)
    revoke_token(folder, token.id)
    lived(folder)
    Projector(folder).close()
    RealDisk(folder).lock().release()
    assert owners(folder) == {(OTHER, GROUP)}


@as_root
@pytest.mark.parametrize("empty", [False, True])
def test_what_root_restores_is_whose_it_was_or_whose_place_it_takes(tmp_path: Path, empty: bool) -> None:
    folder, copy, new = (tmp_path / name for name in ("data", "copy", "new"))
    folder.mkdir(0o700)
    os.chown(folder, OTHER, GROUP)
    lived(folder)
    backup(folder, copy)
    assert owners(copy) == {(OTHER, GROUP)}
    wanted = (OTHER, GROUP)
    if empty:
        new.mkdir()
        wanted = (OTHER + 1, GROUP + 1)
        os.chown(new, *wanted)
    assert restore(copy, new)["owner"] == str(wanted[0])
    assert owners(new) == {wanted}


def test_a_user_without_a_name_restores(tmp_path: Path) -> None:
    if subprocess.run([*NAMELESS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no other user can be had here")
    lived(tmp_path / "data")
    words = ("-m", "simswitch", "restore", str(tmp_path / "data"), str(tmp_path / "new"))
    environment = {
        key: value for key, value in os.environ.items() if key not in ("LOGNAME", "USER", "LNAME", "USERNAME")
    }
    found = subprocess.run(
        [*NAMELESS, sys.executable, *words], capture_output=True, text=True, check=False, env=environment
    )
    assert found.returncode == 0, found.stderr
    assert f'"who":"{OTHER}"' in (tmp_path / "new" / "audit" / "restores.log").read_text()

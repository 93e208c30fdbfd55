"""Whose a data folder's files are: the service's user can use what root has made in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from simswitch.access.tokens import create_token, revoke_token
from simswitch.folder.apart import Refused
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


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("access/tokens.log", lambda folder: create_token(folder, "operator:alice", 60_000)),
        ("access", lambda folder: create_token(folder, "operator:alice", 60_000)),
        ("lock", lambda folder: RealDisk(folder).lock()),
        ("history.lock", Projector),
    ],
)
def test_nothing_is_made_or_given_away_through_a_link(
    tmp_path: Path, name: str, make: Callable[[Path], object]
) -> None:
    """The folder's owner has put it there, and root types the command."""
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    folder.mkdir(0o700)
    elsewhere.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, OTHER, GROUP)
    secret = elsewhere / "secret"
    secret.write_text("secret")
    (folder / name).parent.mkdir(exist_ok=True)
    for target in (elsewhere,) if name == "access" else (secret, elsewhere / "new"):
        (folder / name).symlink_to(target)
        with pytest.raises(OSError, match="symbolic link"):
            make(folder)
        (folder / name).unlink()
    assert list(elsewhere.iterdir()) == [secret]
    assert (secret.read_text(), secret.stat().st_uid) == ("secret", os.geteuid())


@pytest.mark.parametrize("name", ["access/tokens.log", "audit/attempts.log.damaged-1", "history.sqlite"])
def test_a_backup_takes_nothing_through_a_link(tmp_path: Path, name: str) -> None:
    folder, copy, secret = tmp_path / "data", tmp_path / "copy", tmp_path / "secret"
    lived(folder)
    Projector(folder).close()
    secret.write_text("secret\n")
    place = folder / name
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        place.rename(secret)
    place.symlink_to(secret)
    with pytest.raises(Refused, match="symbolic link"):
        backup(folder, copy)
    assert not (copy / name).exists()


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

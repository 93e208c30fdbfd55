"""Whose a data folder's files are: the service's user can use what root has made in it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from simswitch.access.tokens import create_token, read_tokens, revoke_token
from simswitch.cli.exits import Exit
from simswitch.folder.apart import Refused
from simswitch.folder.backup import backup
from simswitch.folder.check import check_folder
from simswitch.folder.manifest import MANIFEST
from simswitch.folder.restore import restore
from simswitch.history.projector import Projector
from simswitch.history.schema import HistoryRefused, open_reader, open_writer
from simswitch.journal.disk import RealDisk
from simswitch.owner import opened
from simswitch.service.server import ADDRESS_FILE, _write_address

from tests.cli.conftest import program
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
def test_roots_backup_is_roots_and_what_is_restored_is_whose_it_was_or_whose_place_it_takes(
    tmp_path: Path, empty: bool
) -> None:
    """Whoever the folder belongs to can't empty or change what root has copied of it."""
    folder, copy, new = (tmp_path / name for name in ("data", "copy", "new"))
    folder.mkdir(0o700)
    os.chown(folder, OTHER, GROUP)
    lived(folder)
    backup(folder, copy)
    assert {owner for owner, _ in owners(copy)} == {0}
    assert copy.stat().st_mode & 0o777 == 0o700
    wanted = (OTHER, GROUP)
    if empty:
        new.mkdir()
        wanted = (OTHER + 1, GROUP + 1)
        os.chown(new, *wanted)
    assert restore(copy, new)["owner"] == str(wanted[0])
    assert owners(new) == {wanted}


@as_root
def test_a_backup_that_does_not_say_whose_folder_it_was_restores_to_its_own_owner(tmp_path: Path) -> None:
    lived(tmp_path / "data")
    copy = tmp_path / "copy"
    backup(tmp_path / "data", copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    assert (manifest.pop("uid"), manifest.pop("gid")) == (os.geteuid(), os.getegid())
    (copy / MANIFEST).write_text(json.dumps(manifest))
    for path in (copy, *copy.rglob("*")):
        os.chown(path, OTHER, GROUP)
    restore(copy, tmp_path / "new")
    assert owners(tmp_path / "new") == {(OTHER, GROUP)}


@pytest.mark.parametrize(("uid", "gid"), [(-1, 0), (1 << 32, 0), ("root", 0), (0, None)])
def test_a_manifest_that_names_no_owner_is_refused(tmp_path: Path, uid: object, gid: object) -> None:
    lived(tmp_path / "data")
    backup(tmp_path / "data", tmp_path / "copy")
    place = tmp_path / "copy" / MANIFEST
    place.write_text(json.dumps(json.loads(place.read_text()) | {"uid": uid, "gid": gid}))
    with pytest.raises(Refused, match="no number of a user"):
        restore(tmp_path / "copy", tmp_path / "new")
    assert not (tmp_path / "new").exists()


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
@pytest.mark.parametrize("copies", [backup, restore])
def test_neither_backup_nor_restore_takes_anything_through_a_link(
    tmp_path: Path, name: str, copies: Callable[[Path, Path], object]
) -> None:
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
        copies(folder, copy)
    assert not (copy / name).exists()


@pytest.mark.parametrize("name", ["access/tokens.log", "access/tokens.log.1", "access"])
def test_tokens_are_read_through_no_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    create_token(tmp_path / "data", "operator:alice", 60_000)
    place = tmp_path / "data" / name
    if place.exists():
        place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere" if name != "access/tokens.log.1" else tmp_path / "data/access/tokens.log")
    with pytest.raises(OSError, match="symbolic link"):
        read_tokens(tmp_path / "data")
    for words in (("token", "create", "operator:bob"), ("token", "list"), ("audit", "verify")):
        refused = program(*words[:2], str(tmp_path / "data"), *words[2:])
        assert (refused.returncode, refused.stderr.count("\n")) == (Exit.REFUSED, 1), refused.stderr
        assert "symbolic link" in refused.stderr


@pytest.mark.parametrize("opens", [open_reader, open_writer])
@pytest.mark.parametrize("make", ["symlink_to", "pipe"])
def test_history_is_neither_a_link_nor_a_pipe(
    tmp_path: Path, opens: Callable[[Path], sqlite3.Connection], make: str
) -> None:
    """Of another program's database the whole schema was made, and a pipe was waited for."""
    folder, others = tmp_path / "data", tmp_path / "others.sqlite"
    folder.mkdir()
    with closing(sqlite3.connect(others)) as database, database:
        database.execute("CREATE TABLE theirs (x)")
    before = others.read_bytes()
    if make == "pipe":
        os.mkfifo(folder / "history.sqlite")
    else:
        (folder / "history.sqlite").symlink_to(others)
    with pytest.raises(HistoryRefused, match="move it away" if make == "pipe" else "symbolic link"):
        opens(folder)
    assert others.read_bytes() == before


@pytest.mark.parametrize("opens", [open_reader, open_writer])
@pytest.mark.parametrize("put", ["symlink_to", "hardlink_to"])
def test_history_is_not_what_is_put_in_its_place_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: Callable[[Path], sqlite3.Connection], put: str
) -> None:
    open_writer(tmp_path).close()
    place, others, connect = tmp_path / "history.sqlite", tmp_path / "others", sqlite3.connect
    others.touch()

    def late(*words: Any, **named: Any) -> sqlite3.Connection:
        place.unlink()
        getattr(place, put)(others)
        made: sqlite3.Connection = connect(*words, **named)
        return made

    monkeypatch.setattr(sqlite3, "connect", late)
    with pytest.raises(HistoryRefused, match=r"symbolic link|put in its place just now"):
        opens(tmp_path)
    assert others.read_bytes() == b""


@pytest.mark.parametrize("pragma", ["", "application_id = 1", "user_version = 1", "user_version = 1000"])
def test_of_another_programs_database_no_history_is_made(tmp_path: Path, pragma: str) -> None:
    place = tmp_path / "history.sqlite"
    with closing(sqlite3.connect(place)) as database, database:
        database.execute(f"PRAGMA {pragma}" if pragma else "CREATE TABLE theirs (x)")
    before = place.read_bytes()
    assert before
    with pytest.raises(HistoryRefused, match="is no history of simswitch"):
        open_writer(tmp_path)
    assert place.read_bytes() == before
    assert os.listdir(tmp_path) == [place.name]


def test_the_address_is_written_through_no_link(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for name in (ADDRESS_FILE, f"{ADDRESS_FILE}.new"):
        (tmp_path / name).symlink_to(secret)
    _write_address(tmp_path / ADDRESS_FILE, "127.0.0.1:7467")
    assert secret.read_text() == "secret"
    assert not (tmp_path / ADDRESS_FILE).is_symlink()
    assert (tmp_path / ADDRESS_FILE).read_text() == "127.0.0.1:7467\n"


@pytest.mark.parametrize("name", ["access/tokens.log", "audit/restores.log", "backup.json"])
def test_a_pipe_holds_nobody_up(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    lived(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    descriptors = len(os.listdir("/proc/self/fd"))
    for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT):
        with pytest.raises(OSError, match="no file"):
            opened(folder, name, flags)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    if name == "backup.json":
        assert "no file" in next(part.text for part in check_folder(folder).parts if part.file == name)
    else:
        with pytest.raises(Refused, match="no file"):
            backup(folder, tmp_path / "copy")


def test_of_what_a_manifest_links_to_nothing_is_told(tmp_path: Path) -> None:
    folder, secret = tmp_path / "data", tmp_path / "secret"
    lived(folder)
    secret.write_bytes(b"secret\xff")
    (folder / "backup.json").symlink_to(secret)
    with pytest.raises(Refused, match="symbolic link") as caught:
        restore(folder, tmp_path / "new")
    assert "secret" not in str(caught.value)


@as_root
@pytest.mark.parametrize("copies", [backup, restore])
@pytest.mark.parametrize("planted", ["link", "folder", "place", "place for all", "way"])
def test_root_works_where_nobody_else_can_put_anything(
    tmp_path: Path, copies: Callable[[Path, Path], object], planted: str
) -> None:
    """Root once emptied the folder that a link in the place of its own led to."""
    source, place, elsewhere = tmp_path / "source", tmp_path / "place", tmp_path / "elsewhere"
    lived(source)
    for made in (place, elsewhere):
        made.mkdir()
    (elsewhere / "kept").touch()
    goal = place / "data"
    working = goal if copies is backup else place / "data.restoring"
    if planted == "link":
        working.symlink_to(elsewhere)
    elif planted == "folder":
        working.mkdir()
        os.chown(working, OTHER, GROUP)
    elif planted == "place":
        os.chown(place, OTHER, GROUP)
    elif planted == "place for all":
        place.chmod(0o777)
    else:
        goal = place / "way" / "data"
        (place / "way").symlink_to(elsewhere)
        os.lchown(place / "way", OTHER, GROUP)
    before = {path: path.lstat().st_uid for path in tmp_path.rglob("*")}
    with pytest.raises(Refused, match=r"move it away|or run this as (12345|the user whom it is for)"):
        copies(source, goal)
    assert {path: path.lstat().st_uid for path in tmp_path.rglob("*")} == before


@as_root
@pytest.mark.parametrize("copies", [backup, restore])
def test_root_works_where_roots_own_group_may_write(tmp_path: Path, copies: Callable[[Path, Path], object]) -> None:
    """As most folders are under a umask of 002."""
    lived(tmp_path / "source")
    place = tmp_path / "place"
    place.mkdir()
    for mode, group, refused in ((0o2775, GROUP, True), (0o777, 0, True), (0o775, 0, False)):
        os.chown(place, 0, group)
        place.chmod(mode)
        with pytest.raises(Refused, match="run this as the user") if refused else nullcontext():
            copies(tmp_path / "source", place / "data")
        assert (place / "data").exists() != refused


@as_root
def test_root_is_told_as_whom_to_restore_into_anothers_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root would be refused in it, where the first message once sent it."""
    volume = tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, OTHER, GROUP)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == volume)
    with pytest.raises(Refused, match=f"restore into a folder in it, as {OTHER}, whose it is"):
        restore(tmp_path, volume)
    with pytest.raises(Refused, match=f"run this as {OTHER} "):
        restore(tmp_path, volume / "data")


def test_what_a_killed_restore_of_ones_own_has_left_is_taken(tmp_path: Path) -> None:
    lived(tmp_path / "data")
    (tmp_path / "new.restoring" / "audit").mkdir(parents=True)
    (tmp_path / "new.restoring" / "audit" / "restores.log").write_text("half")
    restore(tmp_path / "data", tmp_path / "new")
    assert check_folder(tmp_path / "new").sound
    assert not (tmp_path / "new.restoring").exists()


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

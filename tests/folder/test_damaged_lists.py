"""One changed byte in a list of the audit log: the service starts, a backup is taken and restored, and all say so."""

from __future__ import annotations

import errno
from pathlib import Path
from unittest.mock import Mock

import pytest
from simswitch.access.tokens import FILE as TOKENS
from simswitch.access.tokens import create_token, read_tokens
from simswitch.audit.attempts import FILE as ATTEMPTS
from simswitch.audit.attempts import Attempts
from simswitch.audit.chain import Chain, ChainDamaged, entries, older
from simswitch.audit.verify import FILES, RESTORES, set_aside_in
from simswitch.cli.exits import Exit
from simswitch.folder.backup import backup
from simswitch.folder.check import check_folder
from simswitch.folder.restore import restore

from tests.cli.conftest import program
from tests.folder.lives import Life


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists") / "data"
    life = Life(folder)
    life.live(1)
    life.cell.close()
    create_token(folder, "operator:alice", 86_400_000)
    for file in (ATTEMPTS, RESTORES):
        chain = Chain(folder / file)
        for number in range(3):
            chain.append({"at_ms": number, "what": "something"})
        chain.close()
    return folder


@pytest.mark.parametrize("file", [TOKENS, RESTORES])
def test_half_a_line_is_damage_and_copied_but_where_it_is_being_written(file: str, lived: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    backup(lived, source)
    (source / "backup.json").unlink()
    *lines, last = (source / file).read_bytes().splitlines(keepends=True)
    writer = Chain(source / file)
    (source / file).write_bytes(b"".join(lines) + last[:-15])
    assert not backup(source, tmp_path / "while")["passed_over"]
    assert (tmp_path / "while" / file).read_bytes() == b"".join(lines)
    writer.close()
    assert [part.file for part in check_folder(source).parts if not part.sound] == [file]
    (told,) = backup(source, tmp_path / "copy")["passed_over"]
    assert "ends in no whole line" in told
    assert (tmp_path / "copy" / file).read_bytes() == b"".join(lines) + last[:-15]
    (told,) = restore(tmp_path / "copy", tmp_path / "new")["set_aside"]
    assert file in told


PLACES = [(0, -3), (-1, -3), (-1, -2), (-1, -1)]
"""Of bytes that are changed: their line, and where in it."""


def damage(folder: Path, file: str, line: int, place: int) -> None:
    lines = [bytearray(each) for each in (folder / file).read_bytes().splitlines(keepends=True)]
    # A newline becomes an asterisk.
    lines[line][place] ^= 32
    (folder / file).write_bytes(b"".join(lines))


@pytest.mark.parametrize(("line", "place"), PLACES)
@pytest.mark.parametrize("file", FILES)
def test_a_folder_with_a_damaged_list_is_copied_and_restored(
    file: str, line: int, place: int, lived: Path, tmp_path: Path
) -> None:
    source, copy, new = (tmp_path / name for name in ("source", "copy", "new"))
    backup(lived, source)
    (source / "backup.json").unlink()
    damage(source, file, line, place)
    checked = check_folder(source)
    assert [part.file for part in checked.parts if not part.sound] == [file]
    (told,) = backup(source, copy)["passed_over"]
    assert "changed" in told
    assert (copy / file).read_bytes() == (source / file).read_bytes()
    found = restore(copy, new)
    (told,) = found["set_aside"]
    assert file in told
    assert len(found["valid_tokens"]) == (file != TOKENS)
    (aside,) = new.glob("*/*.damaged-*")
    assert aside.read_bytes() == (source / file).read_bytes()
    # What was set aside is told until somebody takes it away.
    assert [part.file for part in check_folder(new).parts if not part.sound] == [str(aside.relative_to(new))]
    assert set_aside_in(new) == [str(aside.relative_to(new))]
    assert [entry.fields["what"] for entry in entries(new / RESTORES)][-1] == "restore"


@pytest.mark.parametrize(("line", "place"), PLACES)
def test_a_service_begins_another_list_of_attempts(
    line: int, place: int, lived: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / ATTEMPTS).write_bytes((lived / ATTEMPTS).read_bytes())
    damage(tmp_path, ATTEMPTS, line, place)
    Attempts(tmp_path).close()
    (aside,) = tmp_path.glob("*/*.damaged-*")
    assert aside.name in caplog.text
    (entry,) = entries(tmp_path / ATTEMPTS)
    assert aside.name in entry.fields["what"]
    Attempts(tmp_path).close()
    verified = program("audit", "verify", str(tmp_path))
    assert verified.returncode == Exit.DAMAGED
    assert str(aside.relative_to(tmp_path)) in verified.stderr
    assert "The audit log is sound" not in verified.stdout
    # Also where nothing else is there: somebody moved the new list away, or there was no room for it.
    whole = (tmp_path / ATTEMPTS).read_bytes()
    (tmp_path / ATTEMPTS).unlink()
    verified = program("audit", "verify", str(tmp_path))
    assert (verified.returncode, verified.stdout) == (Exit.DAMAGED, "")
    assert str(aside.relative_to(tmp_path)) in verified.stderr
    (tmp_path / ATTEMPTS).write_bytes(whole)
    aside.unlink()
    assert program("audit", "verify", str(tmp_path)).returncode == Exit.OK


@pytest.mark.parametrize("unreadable", [False, True])
def test_an_older_list_of_attempts_that_is_damaged_is_set_aside_with_the_one_that_goes_on_from_it(
    unreadable: bool, lived: Path, tmp_path: Path
) -> None:
    (tmp_path / "audit").mkdir()
    lines = (lived / ATTEMPTS).read_bytes().splitlines(keepends=True)
    old = older(tmp_path / ATTEMPTS)
    old.write_bytes(b"".join(lines[:2]))
    (tmp_path / ATTEMPTS).write_bytes(lines[2])
    Attempts(tmp_path).close()
    assert not set_aside_in(tmp_path)
    if unreadable:
        old.unlink()
        old.mkdir()
    else:
        damage(tmp_path, f"{ATTEMPTS}.1", 0, -3)
    Attempts(tmp_path).close()
    (entry,) = entries(tmp_path / ATTEMPTS)
    assert str(old) in entry.fields["what"]
    assert [name.endswith(".1") for name in set_aside_in(tmp_path)] == [False, True]


def test_another_list_names_the_damaged_one_as_soon_as_there_is_room(
    lived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / ATTEMPTS).write_bytes((lived / ATTEMPTS).read_bytes())
    damage(tmp_path, ATTEMPTS, -1, -3)
    with monkeypatch.context() as patch:
        patch.setattr(Chain, "append", Mock(side_effect=OSError(errno.ENOSPC, "no space left")))
        attempts = Attempts(tmp_path)
    attempts.write()
    (entry,) = entries(tmp_path / ATTEMPTS)
    assert entry.fields["why"] == "DAMAGED"
    attempts.close()


@pytest.mark.parametrize(("line", "place"), PLACES)
def test_of_damaged_tokens_none_counts_and_the_way_out_is_told(line: int, place: int, tmp_path: Path) -> None:
    for name in ("alice", "bob"):
        create_token(tmp_path, f"operator:{name}", 60_000)
    damage(tmp_path, TOKENS, line, place)
    damaged = (tmp_path / TOKENS).read_bytes()
    with pytest.raises(ChainDamaged, match="make new tokens"):
        read_tokens(tmp_path)
    with pytest.raises(ChainDamaged, match="make new tokens"):
        create_token(tmp_path, "operator:carol", 60_000)
    assert (tmp_path / TOKENS).read_bytes() == damaged

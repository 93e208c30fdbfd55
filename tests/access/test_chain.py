"""The audit log: what is changed in it shows; what is refused stands in it, bounded and without secrets."""

from __future__ import annotations

import errno
import json
import logging
import re
import resource
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from simswitch.access.tokens import FILE as TOKENS
from simswitch.access.tokens import create_token, read_tokens, revoke_token
from simswitch.audit.attempts import FILE, Attempts
from simswitch.audit.chain import (
    LINE_BYTES_MAX,
    Chain,
    ChainDamaged,
    ChainInUse,
    Entry,
    all_entries,
    entries,
    line_of,
    older,
)
from simswitch.audit.verify import Expected, verify_folder
from simswitch.journal.format import segment_name
from simswitch.journal.snapshot import snapshot_name
from simswitch.masking import MaskingFormatter, masked


def written(path: Path, count: int = 5, *, size_max: int | None = None) -> list[bytes]:
    chain = Chain(path, size_max=size_max)
    for number in range(count):
        chain.append({"what": f"{number}"})
    chain.close()
    return path.read_bytes().splitlines(keepends=True)


def test_one_with_a_bound_goes_on_where_it_ended_and_cuts_off_what_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "log"
    *lines, last = written(path)
    for size in range(len(last) - 1):
        path.write_bytes(b"".join(lines) + last[:size])
        assert [entry.number for entry in entries(path, bounded=True)] == [1, 2, 3, 4]
        written(path, 2, size_max=1 << 20)
        assert [entry.number for entry in entries(path)] == [1, 2, 3, 4, 5, 6]


def test_a_line_that_is_being_written_is_none_yet_and_is_damage_when_its_writer_has_died(tmp_path: Path) -> None:
    path = tmp_path / "log"
    *lines, last = written(path)
    path.write_bytes(b"".join(lines))
    writer = Chain(path)
    for size in range(1, len(last) - 1):
        path.write_bytes(b"".join(lines) + last[:size])
        assert [entry.number for entry in entries(path)] == [1, 2, 3, 4]
    path.write_bytes(b"".join(lines) + last)
    assert [entry.number for entry in entries(path)] == [1, 2, 3, 4, 5]
    writer.close()
    for size in range(1, len(last)):
        damaged = b"".join(lines) + last[:size]
        path.write_bytes(damaged)
        with pytest.raises(ChainDamaged, match="ends in no whole line"):
            list(entries(path))
        with pytest.raises(ChainDamaged, match="ends in no whole line"):
            Chain(path)
        assert path.read_bytes() == damaged


def test_a_line_whose_writer_is_done_between_two_looks_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    *lines, last = written(path)
    path.write_bytes(b"".join(lines) + last[:80])

    def done(_: object) -> bool:
        path.write_bytes(b"".join(lines) + last)
        return False

    monkeypatch.setattr("simswitch.audit.chain.is_written", done)
    assert [entry.number for entry in entries(path)] == [1, 2, 3, 4, 5]


SED = next(
    found[1]
    for found in re.finditer(
        r"`runuser -u simswitch -- (sed [^`]*) FILE`", (Path(__file__).parents[2] / "docs/operating.md").read_text()
    )
)


@pytest.mark.parametrize("revocation", [0, 1, 15, 64, 70, -2, None])
@pytest.mark.parametrize("zeros", [0, 1, 4_096])
def test_a_revoked_token_stays_revoked_until_a_person_has_looked_at_the_cut_line(
    tmp_path: Path, revocation: int | None, zeros: int
) -> None:
    """The writer died over the line, power failed, or the file was cut; docs/operating.md has the way out."""
    token, _ = create_token(tmp_path, "operator:alice", 60_000)
    revoke_token(tmp_path, token.id)
    path = tmp_path / TOKENS
    made, revoked = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(made + revoked[:revocation] + bytes(zeros))
    if path.read_bytes() not in (made, made + revoked):
        for look in (read_tokens, verify_folder, lambda folder: create_token(folder, "operator:bob", 60_000)):
            with pytest.raises(ChainDamaged):
                look(tmp_path)
    subprocess.run([*shlex.split(SED), str(path)], check=True)
    # A line that is whole is kept.
    assert path.read_bytes() == made + (revoked if revocation is None else b"")
    assert read_tokens(tmp_path)[token.id].state(token.created_ms) == ("valid" if revocation is not None else "revoked")
    revoke_token(tmp_path, token.id)
    assert read_tokens(tmp_path)[token.id].revoked_ms


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda text: text[:-1] + b"*", id="its newline is another byte"),
        pytest.param(lambda text: text[:-2] + b"*\n", id="its brace is another byte"),
        pytest.param(lambda text: text[:-1], id="its newline is missing"),
        pytest.param(lambda text: text[:-100] + bytes(100), id="zeros"),
        pytest.param(lambda text: text + bytes(100), id="zeros behind it"),
        pytest.param(lambda text: text + b"0" * 64 + b" " + b"0" * LINE_BYTES_MAX, id="no line is so long"),
        pytest.param(lambda text: text + bytes(2 * LINE_BYTES_MAX), id="more than is looked at"),
        pytest.param(lambda text: bytes(len(text)), id="nothing is left"),
    ],
)
def test_an_end_that_was_changed_is_no_torn_one_and_is_kept(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "log"
    damaged = damage(b"".join(written(path)))
    path.write_bytes(damaged)
    with pytest.raises(ChainDamaged):
        list(entries(path))
    with pytest.raises(ChainDamaged):
        Chain(path)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("begun", [0, 1, 64, 65, -2])
@pytest.mark.parametrize("zeros", [1, 4_096, LINE_BYTES_MAX])
def test_of_a_file_with_a_bound_zeros_behind_what_is_whole_are_a_torn_line(
    tmp_path: Path, begun: int, zeros: int
) -> None:
    """The power failed: the file system had the length already, and the bytes not yet."""
    path = tmp_path / FILE
    *lines, last = written(path)
    cut = b"".join(lines) + last[:begun] + bytes(zeros)
    path.write_bytes(cut)
    (walked,) = verify_folder(tmp_path)
    assert walked.last == 4
    chain = Chain(path, size_max=1 << 20)
    assert chain.append({"what": "next"}).number == 5
    chain.close()
    assert [entry.number for entry in entries(path)] == [1, 2, 3, 4, 5]
    path.write_bytes(cut.replace(b"\0", b"\xff", 1))
    with pytest.raises(ChainDamaged):
        verify_folder(tmp_path)


def test_zeros_longer_than_what_is_looked_at_are_damage(tmp_path: Path) -> None:
    """What stands before them was once forgotten, and the file begun again behind them, at number 1."""
    path = tmp_path / FILE
    whole = b"".join(written(path)) + bytes(4 * LINE_BYTES_MAX)
    path.write_bytes(whole)
    with pytest.raises(ChainDamaged):
        Chain(path, size_max=1 << 20)
    assert path.read_bytes() == whole


def test_while_no_next_file_can_be_opened_the_full_one_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    chain = Chain(path, size_max=1_000)
    chain.append({"what": "x" * 700})
    with monkeypatch.context() as patch:
        patch.setattr("simswitch.audit.chain.opened", Mock(side_effect=OSError(errno.EMFILE, "too many")))
        for _ in range(2):
            with pytest.raises(OSError, match="too many"):
                chain.append({"what": "the next"})
    # Whoever opens a file now gets no number that the writer still takes for its own.
    with (tmp_path / "other").open("wb"):
        chain.append({"what": "the next"})
        chain.close()
    assert not (tmp_path / "other").stat().st_size
    assert [entry.number for entry in entries(older(path))] == [1]
    assert [entry.number for entry in all_entries(path)] == [1, 2]


@pytest.mark.parametrize("how", ["changed", "left out", "twice", "swapped", "first cut off and renumbered"])
def test_every_change_is_found(tmp_path: Path, how: str) -> None:
    path = tmp_path / "log"
    lines = written(path)
    if how == "changed":
        lines[2] = lines[2].replace(b'"what":"2"', b'"what":"9"')
    elif how == "left out":
        del lines[2]
    elif how == "twice":
        lines.insert(2, lines[2])
    elif how == "swapped":
        lines[1], lines[2] = lines[2], lines[1]
    else:
        fields = json.loads(lines[1].partition(b" ")[2]) | {"number": 1}
        lines[:2] = [line_of(fields)[1]]
    path.write_bytes(b"".join(lines))
    with pytest.raises(ChainDamaged):
        list(entries(path))


def test_one_made_anew_is_found_by_a_hash_that_was_noted(tmp_path: Path) -> None:
    create_token(tmp_path, "operator:alice", 1_000)
    create_token(tmp_path, "operator:eve", 1_000)
    (walked,) = verify_folder(tmp_path)
    noted = Expected(TOKENS, walked.last, walked.hash)
    assert verify_folder(tmp_path, [noted]) == [walked]
    (tmp_path / TOKENS).unlink()
    create_token(tmp_path, "operator:alice", 1_000)
    with pytest.raises(ChainDamaged, match="cut off"):
        verify_folder(tmp_path, [noted])
    create_token(tmp_path, "operator:mallory", 1_000)
    with pytest.raises(ChainDamaged, match="made anew"):
        verify_folder(tmp_path, [noted])


def test_a_file_without_its_beginning_is_found(tmp_path: Path) -> None:
    for name in ("alice", "eve"):
        create_token(tmp_path, f"operator:{name}", 1_000)
    path = tmp_path / TOKENS
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(ChainDamaged, match="begins with entry 2"):
        verify_folder(tmp_path)


def test_an_entry_that_went_when_its_file_was_full_is_not_called_cut_off(tmp_path: Path) -> None:
    path = tmp_path / FILE
    chain = Chain(path, size_max=1_000)
    noted = [Expected(FILE, entry.number, entry.hash) for entry in (chain.append({"what": n}) for n in range(20))]
    chain.close()
    (walked,) = verify_folder(tmp_path, noted[-1:])
    assert walked.last == 20
    assert not walked.gone
    (walked,) = verify_folder(tmp_path, [noted[0], noted[-1]])
    assert "entry 1 was noted and went" in walked.gone
    assert f"from {walked.first} to 20" in walked.gone
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(ChainDamaged, match=r"entry 20 was noted .* cut off"):
        verify_folder(tmp_path, [noted[0], noted[-1]])


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "log")
    with pytest.raises(ChainInUse):
        Chain(tmp_path / "log")
    chain.close()


def test_a_full_file_goes_on_in_another(tmp_path: Path) -> None:
    path = tmp_path / "log"
    chain = Chain(path, size_max=1_000)
    for number in range(20):
        chain.append({"what": number})
    chain.close()
    numbers = [entry.number for entry in all_entries(path)]
    assert numbers == list(range(numbers[0], 21))
    assert path.stat().st_size <= 1_000


def test_a_full_disk_takes_no_half_line(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    attempts.note("TOKEN_REFUSED", "token 1", "ipv4:192.0.2.1:1", "it is not known")
    attempts.write()
    attempts.note("TOKEN_REFUSED", "token 2", "ipv4:192.0.2.1:1", "it is not known")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / FILE).stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            attempts.write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    attempts.close()
    assert [entry.fields["who"] for entry in entries(tmp_path / FILE)] == ["token 1", "token 2"]


def test_who_closes_waits_for_who_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that ends while its thread waits for the disk."""
    attempts = Attempts(tmp_path)
    writing, going_on = threading.Event(), threading.Event()
    append = Chain.append

    def slow(chain: Chain, fields: Mapping[str, Any]) -> Entry:
        writing.set()
        going_on.wait(0.2)
        return append(chain, fields)

    monkeypatch.setattr(Chain, "append", slow)
    attempts.note("TOKEN_REFUSED", "token 1", "ipv4:192.0.2.1:1", "it is not known")
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(attempts.write)
        assert writing.wait(20)
        attempts.close()
        writer.result(20)
    assert [entry.fields["who"] for entry in entries(tmp_path / FILE)] == ["token 1"]


def test_an_entry_that_is_none_of_tokens_is_named(tmp_path: Path) -> None:
    chain = Chain(tmp_path / TOKENS)
    chain.append({"what": "revoked", "token": "0123"})
    chain.close()
    with pytest.raises(ChainDamaged, match="entry 1 is none of tokens"):
        read_tokens(tmp_path)


def test_a_flood_of_attempts_is_counted_and_costs_few_lines(tmp_path: Path) -> None:
    now_s = [0.0]
    attempts = Attempts(tmp_path, clock=lambda: now_s[0])
    for number in range(100_000):
        attempts.note("TOKEN_REFUSED", f"token {number % 1000}", "ipv4:192.0.2.1:1", "it is not known")
    attempts.note("NOT_PERMITTED", "auditor:mallory", "token 01", "has not the role for it")
    attempts.write()
    now_s[0] = 61.0
    attempts.write()
    attempts.close()
    found = [entry.fields for entry in entries(tmp_path / FILE)]
    assert len(found) <= 130
    assert sum(fields["count"] for fields in found) == 100_001
    # And it hides nobody.
    assert "auditor:mallory" in [fields["who"] for fields in found]


def test_tokens_are_hashed_and_every_one_is_its_own_audit_trail(tmp_path: Path) -> None:
    token, text = create_token(tmp_path, "operator:alice", 1_000)
    revoke_token(tmp_path, token.id)
    stored = (tmp_path / TOKENS).read_text()
    assert text not in stored
    assert text.rpartition("_")[2] not in stored
    assert (tmp_path / TOKENS).stat().st_mode & 0o077 == 0
    assert read_tokens(tmp_path)[token.id].state(0) == "revoked"
    assert [entry.fields["what"] for entry in entries(tmp_path / TOKENS)] == ["created", "revoked"]


def test_what_is_logged_is_masked(tmp_path: Path) -> None:
    _, text = create_token(tmp_path, "operator:alice", 1_000)
    line = masked(f"SIM 8981100000000000077 of 440100000000001 by {text}, job 12345678")
    assert line == f"SIM 8981*************77 of 4401*********01 by {text[:19]}_…, job 12345678"
    assert masked("8981100000000000077440100000000001") == f"8981{'*' * 28}01"


def test_the_names_of_our_files_stay_readable_in_the_log_and_hide_no_number() -> None:
    for name in (snapshot_name(31), snapshot_name(10**13 - 1), segment_name(31)):
        assert masked(f"/data/{name}: damaged") == f"/data/{name}: damaged"
    assert masked("snapshot-89811000000000000771.state") == "snapshot-8981**************71.state"
    assert masked("snapshot-00000440100000000001.state") == "snapshot-0000**************01.state"
    assert masked("snapshot-00000000000000000031.state of 440100000000001").endswith("31.state of 4401*********01")


def test_what_is_logged_is_plain_and_one_line_but_for_a_traceback() -> None:
    evil = "a\x1b[2J\u202e\nERROR b"
    try:
        raise ValueError("\x1b[2J 440100000000001")
    except ValueError:
        record = logging.LogRecord("simswitch", logging.ERROR, "", 0, "%s", (evil,), sys.exc_info())
    first, *traceback = MaskingFormatter("%(message)s").format(record).split("\n")
    assert first == r"a\u001b[2J\u202e\nERROR b"
    assert traceback[-1] == r"ValueError: \u001b[2J 4401*********01"

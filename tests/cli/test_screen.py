"""Tables at terminals of every width: nothing is wider, no word is cut while there is another way, nothing is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from simswitch.cli.amounts import counted
from simswitch.cli.main import app
from simswitch.cli.screen import Table, complain, print_json, print_json_line, show, table, table_lines
from typer.testing import CliRunner

JOBS = table(
    "Jobs",
    ["job", "state", "ordered by", "left", "terminals moved", "given up", "over by", "none"],
    [
        [1, "awaiting approval", "operator:alice", "1.5 GB", 12_000, 0, "2026-03-21 09:30:00+09:00", ""],
        [12, "done", "運用者:田中", "500 B, shared", 7, 0, "", None],
    ],
)


def words(lines: list[str]) -> list[str]:
    return sorted(word for line in lines for word in line.split() if word.strip("─"))


def wide(line: str) -> int:
    return len(line) + len(re.findall(r"[\u3000-\u9fff]", line))


def test_numbers_and_amounts_stand_to_the_right_and_names_of_digits_to_the_left() -> None:
    found = table("", ["name", "count", "left"], [["8981", 5, "7 B"], ["7", 1_000, "12.5 GB"]])
    assert table_lines(found, None) == [
        " name   count      left",
        " ──────────────────────",
        " 8981       5       7 B",
        " 7      1,000   12.5 GB",
    ]


def test_a_table_that_fits_is_the_same_as_in_a_file() -> None:
    natural = table_lines(JOBS, None)
    assert table_lines(JOBS, max(map(wide, natural))) == natural
    assert table_lines(JOBS, max(map(wide, natural)) - 1) != natural


def test_at_every_width_nothing_is_wider_cut_or_lost() -> None:
    seen = set()
    for width in range(40, 130):
        lines = table_lines(JOBS, width)
        assert max(map(wide, lines)) <= width, "\n".join(lines)
        shown = words(lines)
        for word in ("awaiting", "approval", "operator:alice", "運用者:田中", "12,000", "2026-03-21", "09:30:00+09:00"):
            assert word in shown, "\n".join(lines)
        # An amount keeps its unit beside it.
        assert any("1.5 GB" in line for line in lines), "\n".join(lines)
        seen.add(lines[0].split()[:3] == ["job", "1"])
    assert seen == {True, False}, "both row by row and as a table"


def test_what_has_nothing_to_say_goes_first() -> None:
    narrow = table_lines(JOBS, 100)
    assert "none" not in words(narrow)
    assert "given" not in words(table_lines(JOBS, 66)), "zeros only"
    assert "given" in words(narrow)


def test_row_by_row_a_word_that_is_too_wide_itself_is_cut() -> None:
    digest = "0123456789abcdef" * 4
    lines = table_lines(Table("", ["event", "digest"], [["1", digest]], [False, False]), 40)
    assert max(map(len, lines)) <= 40
    assert "".join(line[10:] for line in lines[1:]) == digest


def test_a_table_without_rows_is_its_head() -> None:
    assert table_lines(table("", ["a", "b"], []), 5) == [" a  b", " ────"]


def test_one_of_a_kind_is_no_plural() -> None:
    assert [counted(count, "SIM") for count in (0, 1, 2, 1_000)] == ["0 SIMs", "1 SIM", "2 SIMs", "1,000 SIMs"]
    assert [counted(count, "process", "processes") for count in (1, 2)] == ["1 process", "2 processes"]


@pytest.mark.parametrize("group", ["", *(found.name for found in app.registered_groups)])
def test_what_a_command_does_is_said_whole_at_100_columns(group: str) -> None:
    shown = CliRunner().invoke(app, [*group.split(), "--help"], terminal_width=100)
    assert shown.exit_code == 0
    summaries = shown.stdout.split("Commands:")[1]
    assert "..." not in summaries


def commands(of: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, found in of.commands.items():
        words = f"{path} {name}".strip()
        yield from commands(found, words) if hasattr(found, "commands") else [(words, found)]


def test_what_shows_or_changes_something_has_json() -> None:
    without = {
        words
        for words, found in commands(typer.main.get_command(app))
        if not any("--json" in parameter.opts for parameter in found.params)
    }
    assert without == {"serve", "follow", "learn", "webhook", "demo", "report accident"}


def test_what_others_wrote_does_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b2J\u202eabc\u2028\udcff\rALL IS WELL\nALL IS WELL"
    shown = r"\u001b]0;owned\u0007\u001b[2J\u009b2J\u202eabc\u2028\udcff\rALL IS WELL\nALL IS WELL"
    show(evil, table(evil, ["reason"], [[evil]]))
    complain(evil)
    captured = capsys.readouterr()
    assert captured.out.split("\n") == [shown, shown, "", " reason", f" {'─' * len(shown)}", f" {shown}", "", ""]
    assert captured.err == f"{shown}\n"
    # What programs read says the same, and is no less safe to look at.
    print_json({"reason": evil})
    print_json_line({"reason": evil})
    whole, line = capsys.readouterr().out.split("}\n", 1)
    assert line.isascii()
    assert json.loads(line) == json.loads(whole + "}") == {"reason": evil}
    assert shown in whole
    # Letters of all languages, and their spaces, stay as they are.
    show("運用者\u3000田中, 5\u00a0GB")
    assert capsys.readouterr().out == "運用者\u3000田中, 5\u00a0GB\n"

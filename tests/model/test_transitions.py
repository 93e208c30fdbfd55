"""Every row of ``transitions.txt`` is built through commands, carried out and compared. A row that lies fails."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simswitch.core import layout

from tests.model.observed import differences
from tests.model.transitions import TABLE, Row, build, parse

ROWS = parse(TABLE.read_text(encoding="utf-8"))


def told(row: Row) -> list[str]:
    case = build(row)
    case.carry_out()
    return differences(row, case)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row_holds(row: Row) -> None:
    assert told(row) == []


def test_every_command_on_a_lease_or_an_order_is_in_the_table() -> None:
    named = {row.command.split()[0] for row in ROWS}
    wanted = {
        command.name
        for command in layout.Command
        if layout.ALLOCATE <= command <= layout.JOB_CANCEL and command not in (layout.REPORT_LOAD, layout.JOB_CREATE)
    }
    assert wanted <= named


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_changed_status_fails(row: Row) -> None:
    """A row that says another status than the core gives does not pass."""
    if row.status == "-":
        wrong = replace(row, then=("gone_astray", *row.then[1:]))
    else:
        wrong = replace(row, status="OK" if row.status != "OK" else "LATE")
    assert told(wrong)


def test_a_changed_after_state_fails() -> None:
    changed = 0
    for row in ROWS[::7]:
        state, *words = row.then
        other = "none" if state not in ("none", "unchanged") else "gone_astray"
        assert told(replace(row, then=(other, *words))), f"{row} passes with {other}"
        changed += 1
    assert changed > 5


def test_a_row_without_a_builder_fails() -> None:
    with pytest.raises(KeyError, match="no builder"):
        build(replace(ROWS[0], when="the moon is full"))


def test_a_line_of_another_form_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 2 has 3 columns"):
        parse("# fine\nlease | held | RENEW\n")

"""`simswitch history` and `simswitch export`, as a person calls them on a data folder."""

from __future__ import annotations

import csv
import json
import time
from contextlib import closing
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pytest
from simswitch.cli.exits import Exit
from simswitch.cli.history_words import worded
from simswitch.cli.pool import _OF_SIM
from simswitch.core import commands, layout
from simswitch.demo.processes import Server
from simswitch.history import exporting
from simswitch.history.reading import TABLES
from simswitch.history.schema import open_reader

from tests.cell.small_pool import SERVER_NUMBER
from tests.cli.conftest import Run, program
from tests.history.test_carriers import figure
from tests.history.test_projection import Life, finished


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty terminals that reported thrice."""
    folder = tmp_path_factory.mktemp("history")
    life = Life(folder)
    life.attach(1, 20)
    for _ in range(3):
        life.report(Random(3), 20)
    finished(folder)
    life.cell.close()
    return folder


def test_a_table_is_shown_and_how_far_history_is(folder: Path) -> None:
    shown = program("history", str(folder), "use_day", "--limit", "3")
    assert shown.returncode == 0, shown.stderr
    assert "3 rows (there may be more: --limit); history is as of" in shown.stdout
    assert "2023-11-14" in shown.stdout
    used = program("history", str(folder), "use_sim", "--limit", "2")
    assert " 89" in used.stdout
    assert "2023-11-14 " in used.stdout
    assert ("first" in used.stdout, "_ms" in used.stdout) == (True, False)
    # Into a pipe nothing is cut: a decision's whole hash is there.
    assert "…" not in program("history", str(folder), "decisions").stdout
    found = json.loads(program("history", str(folder), "use_day", "--subscriber", "2", "--json").stdout)
    assert [row["subscriber"] for row in found["rows"]] == [2]
    assert (found["gaps"], found["sequence"] > 0) == ([], True)


def test_what_is_of_no_lot_names_none(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.attach(1, 1)
    stale = {"access_server": SERVER_NUMBER, "terminal": 1, "epoch": 99, "up_bytes": 0, "down_bytes": 1_000}
    assert life.only(commands.run(layout.REPORT_USAGE, 1, **stale))["status"] == layout.STALE_EPOCH
    sim = life.cell.machine.sim(life.cell.machine.terminal(0)["sim"])
    assert figure(life, sim["iccid"], -7, sim["counted_bytes"]) == layout.NEGATIVE_USAGE
    finished(tmp_path)
    server = next(entity["name"] for entity in life.cell.machine.entities(layout.ACCESS_SERVER))
    life.cell.close()
    rows = json.loads(program("history", str(tmp_path), "set_aside", "--json").stdout)["rows"]
    assert sorted((row["bytes"], row["lot"], row["actor"]) for row in rows) == [
        (-7, "", "system"),
        (1_000, "", server),
    ]


def test_what_is_asked_wrongly_is_said(folder: Path, tmp_path: Path) -> None:
    nothing = program("history", str(tmp_path), "use_day")
    assert (nothing.returncode, "no history yet" in nothing.stderr) == (Exit.REFUSED, True)
    unknown = program("history", str(folder), "nonsense")
    assert (unknown.returncode, "there is no table" in unknown.stderr) == (Exit.USAGE, True)
    large = program("history", str(folder), "use_day", "--subscriber", str(1 << 64))
    assert (large.returncode, "--subscriber" in large.stderr, "Traceback" in large.stderr) == (Exit.USAGE, True, False)
    wrong = program("history", str(folder), "decisions", "--subscriber", "2")
    assert (wrong.returncode, "decisions" in wrong.stderr) == (Exit.USAGE, True)


def test_a_table_is_exported_as_csv_and_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "use.csv"
    done = program("export", str(folder), "use_month", str(file))
    assert done.returncode == 0, done.stderr
    with file.open(newline="") as lines:
        kept = list(csv.DictReader(lines))
    assert list(kept[0]) == ["month", "subscriber", "bytes"]
    assert len({row["subscriber"] for row in kept}) == len(kept) > 10
    again = program("export", str(folder), "use_month", str(file))
    assert (again.returncode, "exists already" in again.stderr) == (Exit.REFUSED, True)
    nowhere = program("export", str(folder), "use_month", str(tmp_path / "missing" / "use.csv"))
    assert (nowhere.returncode, "can't be written" in nowhere.stderr) == (Exit.REFUSED, True)
    assert "Traceback" not in nowhere.stderr


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="the extra simswitch[export] is missing")
def test_parquet_has_the_rows_of_the_csv_with_their_types(folder: Path, tmp_path: Path) -> None:
    parquet: Any = import_module("pyarrow.parquet")
    # The format is what the file's name says.
    for name in ("use.parquet", "use.csv"):
        assert program("export", str(folder), "use_day", str(tmp_path / name)).returncode == 0
    table = parquet.read_table(tmp_path / "use.parquet")
    assert [str(field.type) for field in table.schema] == ["string", "uint64", "int64"]
    with (tmp_path / "use.csv").open(newline="") as lines:
        kept = [
            {**row, "subscriber": int(row["subscriber"]), "bytes": int(row["bytes"])} for row in csv.DictReader(lines)
        ]
    assert table.to_pylist() == kept
    assert kept[0]["day"] == "2023-11-14"
    for name in ("positions", "exemptions"):
        # A checksum has 64 bits without a sign; a table without rows has its columns.
        assert program("export", str(folder), name, str(tmp_path / name), "--format", "parquet").returncode == 0
    assert len(parquet.read_table(tmp_path / "positions")) == 1
    assert parquet.read_table(tmp_path / "exemptions").column_names[:2] == ["subscriber", "since"]
    # An instant is one in both.
    for name in ("positions.csv", "decisions.parquet", "decisions.csv"):
        table_name = name.partition(".")[0]
        assert program("export", str(folder), table_name, str(tmp_path / name)).returncode == 0
    decisions = parquet.read_table(tmp_path / "decisions.parquet")
    assert str(decisions.schema.field("at").type) == "timestamp[ms, tz=UTC]"
    with (tmp_path / "decisions.csv").open(newline="") as lines:
        written = [row["at"] for row in csv.DictReader(lines)]
    assert [datetime.fromisoformat(text) for text in written] == decisions.column("at").to_pylist()
    assert written[0].startswith("2023-11-14T")
    assert written[0].endswith("+00:00")


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="the extra simswitch[export] is missing")
@pytest.mark.parametrize("name", [*TABLES, "pool by sim"])
def test_a_column_has_its_type_whatever_rows_there_are(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet: Any = import_module("pyarrow.parquet")
    row: dict[str, Any]
    # Each row is a piece of its own.
    monkeypatch.setattr(exporting, "_PIECE", 1)
    if name in TABLES:
        with closing(open_reader(folder)) as connection:
            kinds = {row[1]: row[2] for row in connection.execute(f"PRAGMA table_info({name})")}
        values = {column: {"TEXT": "text", "BLOB": b"", "INTEGER": 1}[kind] for column, kind in kinds.items()}
        row = worded(name, values, {1: "named"})
    else:
        row = {**dict.fromkeys(_OF_SIM, 1), "on_probation": True}
        row |= dict.fromkeys(("iccid", "lot", "bank", "occupancy", "health"), "text")
    for file, rows in (("none", []), ("late", [dict.fromkeys(row), row])):
        with (tmp_path / file).open("wb") as target:
            exporting.write_parquet(list(row), rows, target)
    late = parquet.read_table(tmp_path / "late")
    assert parquet.read_schema(tmp_path / "none") == late.schema
    assert len(late) == 2
    said = {str: "string", bytes: "binary", bool: "bool", int: ("int64", "uint64", "timestamp[ms, tz=UTC]")}
    for field, value in zip(late.schema, row.values(), strict=True):
        assert str(field.type) in said[type(value)], field


@pytest.mark.timeout(120)
def test_the_service_says_what_its_folder_says(run: Run, server: Server, tmp_path: Path) -> None:
    end_s = time.monotonic() + 60
    rows: list[Any] = []
    while not rows:
        asked = run("history", "entities", "--json")
        assert not asked.returncode or "no history yet" in asked.stderr
        assert time.monotonic() < end_s
        rows = json.loads(asked.stdout)["rows"] if asked.stdout else []
    read = program("history", str(server.folder), "entities", "--json", "--limit", str(len(rows)))
    assert json.loads(read.stdout)["rows"] == rows
    shown = run("history", "decisions", "--limit", "1")
    assert ("1 row (there may be more" in shown.stdout, shown.stderr) == (True, "")
    wrong = run("history", "entities", "--subscriber", "5")
    assert (wrong.returncode, "no column 'subscriber'" in wrong.stderr) == (Exit.REFUSED, True)
    for words in (["history"], ["history", "no-folder", "use_day"], ["history", "a", "b", "c"]):
        assert run(*words).returncode == Exit.USAGE
    assert run("export", "entities", "served.csv").returncode == 0
    with (tmp_path / "served.csv").open(newline="") as lines:
        assert [row["name"] for row in csv.DictReader(lines)][: len(rows)] == [row["name"] for row in rows]

"""The chain of decisions: each stands in it once, whatever is killed, and whatever is done to one shows."""

from __future__ import annotations

import hashlib
import sqlite3
import tarfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from simswitch.audit.chain import FIRST, ChainDamaged
from simswitch.audit.decisions import chain, hash_of
from simswitch.audit.verify import DECISIONS, Expected
from simswitch.cell import Cell, JournalSettings
from simswitch.core import commands, layout
from simswitch.folder.audit import compare, verify_audit
from simswitch.folder.check import check_folder
from simswitch.history.projector import Projector
from simswitch.history.reading import rows
from simswitch.history.schema import NAME, open_reader
from simswitch.journal.recovery import real_machine

from tests.cell.small_pool import SERVER_NUMBER
from tests.history.test_projection import Life, finished, follower
from tests.journal.make_format import FORMATS

ACTOR = "operator:alice"


def decide(life: Life, kind: int, **columns: int) -> None:
    """One command of Alice's."""
    alice = life.cell.machine.entity_index(layout.ACTOR, ACTOR)
    if alice is None:
        definition = commands.definition(layout.ACTOR, ACTOR, {layout.ACTOR_ROLE: layout.OPERATOR})
        life.cell.step(commands.run(layout.DEFINE, definition=np.frombuffer(definition, "V1024")))
        alice = life.cell.machine.entity_index(layout.ACTOR, ACTOR)
    assert alice is not None
    asked = {name: 0 for name, _ in commands.COMMAND_COLUMNS[kind]} | columns
    life.cell.step(commands.run(kind, actor=alice, **asked))


@pytest.fixture
def life(tmp_path: Path) -> Life:
    """Alice sets a cap, declares an access server dead, exempts somebody and stops all swaps."""
    life = Life(tmp_path)
    decide(life, layout.SET_CAP, lot=0, window=1, quota_bytes=10**9, basis=layout.BASIS_CONTRACTUAL)
    decide(life, layout.DECLARE_DEAD, access_server=SERVER_NUMBER)
    decide(life, layout.EXEMPT, subscriber=5, until_ms=life.cell.machine.now_ms + 3_600_000)
    decide(life, layout.SWAPS_STOP)
    finished(tmp_path)
    return life


def test_the_auditor_reads_who_decided_what_and_that_nobody_touched_it(life: Life, tmp_path: Path) -> None:
    with closing(open_reader(tmp_path)) as history:
        mine = [row for row in rows(history, "decisions") if row["actor"] == ACTOR]
        noted: list[int] = []
        assert compare(tmp_path, history, note=noted.append) == len(list(rows(history, "decisions")))
    # A record that ends the process is named.
    assert noted[-1] == mine[-1]["sequence"]
    assert [row["kind"] for row in mine] == ["set_cap", "declare_dead", "exempt", "swaps_stop"]
    assert '"quota_bytes":[1000000000]' in mine[0]["detail"]
    (walked,) = verify_audit(tmp_path)
    assert (walked.name, walked.first, walked.last) == (NAME, 1, mine[-1]["event"])
    assert walked.hash == mine[-1]["hash"].hex()
    part = next(part for part in check_folder(tmp_path).parts if part.file == NAME and part.part == "audit log")
    assert part.sound
    assert walked.hash in part.text
    life.cell.close()


def test_a_cap_that_comes_instead_of_one_that_waits_leaves_both_in_the_record(tmp_path: Path) -> None:
    life = Life(tmp_path)
    lot = next(entity["index"] for entity in life.cell.machine.entities() if entity["kind"] == layout.LOT)
    cap = {"lot": lot, "window": 1, "basis": layout.BASIS_CONTRACTUAL, "at_ms": 1 << 42}
    for quota_bytes, replaces in ((10**9, 0), (2 * 10**9, 0), (3 * 10**9, 1)):
        decide(life, layout.SET_CAP, argument=replaces, quota_bytes=quota_bytes, **cap)
    finished(tmp_path)
    with closing(open_reader(tmp_path)) as history:
        mine = [row for row in rows(history, "decisions") if row["kind"] == "set_cap"]
    assert [(row["subject"], row["statuses"]) for row in mine] == [
        ("", '{"ok":1}'),
        ("", '{"cap_waits":1}'),
        ("instead of what waits", '{"ok":1}'),
    ]
    assert ['"quota_bytes":[1000000000]' in row["detail"] for row in mine] == [True, False, False]
    life.cell.close()


def test_each_is_chained_once_however_often_the_follower_dies(tmp_path: Path) -> None:
    random = Random(11)
    life = Life(tmp_path)
    given = 0
    for _ in range(40):
        decide(life, random.choice([layout.SWAPS_STOP, layout.SWAPS_LIFT]))
        given += 1
        if random.random() < 0.4:
            following = follower(tmp_path)
            following.turn()
            if random.random() < 0.5:
                following.finish(read_on=False)
            following.close()
    finished(tmp_path)
    (walked,) = verify_audit(tmp_path)
    with closing(open_reader(tmp_path)) as history:
        found = [row for row in rows(history, "decisions") if row["actor"] == ACTOR]
    assert (len(found), found[-1]["event"]) == (given, walked.last)
    life.cell.close()


TAMPERED: dict[str, str] = {
    "who": "UPDATE decisions SET actor = 'operator:bob' WHERE kind = 'set_cap'",
    "on which figures": "UPDATE decisions SET detail = replace(detail, '1000000000', '2000000000')",
    "when": "UPDATE decisions SET at_ms = at_ms + 1 WHERE kind = 'declare_dead'",
    "left out": "DELETE FROM decisions WHERE kind = 'declare_dead'",
    "put in": "INSERT INTO decisions SELECT max(event) + 1, at_ms, sequence, run + 100, actor, kind, subject, items, "
    "statuses, detail, digest, hash FROM decisions",
    "the hash": "UPDATE decisions SET hash = zeroblob(32) WHERE kind = 'exempt'",
    "no hash": "UPDATE decisions SET hash = NULL WHERE kind = 'swaps_stop'",
}


def tamper(folder: Path, *statements: str) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / NAME)
    for trigger in ("decisions_change", "decisions_go"):
        connection.execute(f"DROP TRIGGER {trigger}")
    for statement in statements:
        assert connection.execute(statement).rowcount > 0
    connection.commit()
    return connection


@pytest.mark.parametrize("what", TAMPERED)
def test_whatever_is_changed_shows(life: Life, tmp_path: Path, what: str) -> None:
    tamper(tmp_path, TAMPERED[what]).close()
    with pytest.raises(ChainDamaged, match="decision"):
        verify_audit(tmp_path)
    faults = [part for part in check_folder(tmp_path).parts if not part.sound]
    assert [part.part for part in faults] == ["audit log"]
    life.cell.close()


def anew(connection: sqlite3.Connection) -> None:
    """All hashes, as one would make them who has read how."""
    connection.execute("UPDATE decisions SET hash = NULL")
    while chain(connection):
        pass
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM decisions WHERE event = 1", "left out or put in"),
        ("DELETE FROM decisions WHERE event = (SELECT max(event) FROM decisions)", "not those of the journal"),
        (TAMPERED["put in"], "not those of the journal"),
        ("UPDATE decisions SET digest = zeroblob(32) WHERE kind = 'set_cap'", "not those of the journal"),
        (TAMPERED["who"], "not those of the journal"),
        (TAMPERED["on which figures"], "not those of the journal"),
        (TAMPERED["when"], "not those of the journal"),
        ("UPDATE decisions SET statuses = '{\"not_permitted\":1}' WHERE kind = 'exempt'", "not those of the journal"),
        ("UPDATE decisions SET subject = '' WHERE kind = 'declare_dead'", "not those of the journal"),
        ("UPDATE positions SET sequence = sequence - 1", "says that it has come to"),
    ],
    ids=[
        "the first left out",
        "the last left out",
        "put in",
        "another command",
        "who",
        "on which figures",
        "when",
        "with which outcome",
        "about whom",
        "not seen yet",
    ],
)
def test_a_chain_that_was_made_anew_does_not_agree_with_the_journal(
    life: Life, tmp_path: Path, statement: str, found: str
) -> None:
    anew(tamper(tmp_path, statement))
    with pytest.raises(ChainDamaged, match=found):
        verify_audit(tmp_path)
    life.cell.close()


def test_no_gap_hides_a_decision_that_the_journal_has(life: Life, tmp_path: Path) -> None:
    last = "SELECT max(sequence) FROM decisions"
    anew(tamper(
        tmp_path,
        f"INSERT INTO gaps SELECT max(sequence), max(sequence), 0, 0 FROM decisions WHERE sequence = ({last})",
        f"DELETE FROM decisions WHERE sequence = ({last})",
    ))  # fmt: skip
    with pytest.raises(ChainDamaged, match="not those of the journal"):
        verify_audit(tmp_path)
    life.cell.close()


def test_what_can_not_be_replayed_is_compared_by_its_instant_and_its_bytes(life: Life, tmp_path: Path) -> None:
    """As what stands before the oldest snapshot, or is of another machine version."""
    other = replace(real_machine(), version=0)
    with closing(open_reader(tmp_path)) as history:
        assert compare(tmp_path, history, other) == len(list(rows(history, "decisions")))
    anew(tamper(tmp_path, TAMPERED["when"]))
    with closing(open_reader(tmp_path)) as history, pytest.raises(ChainDamaged, match="not those of the journal"):
        compare(tmp_path, history, other)
    life.cell.close()


def test_of_commands_that_are_no_more_the_chain_alone_speaks(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of older versions; in a record of this one such a command is damage."""
    monkeypatch.delitem(commands._COMMAND_PLACES, layout.SWAPS_STOP)
    with closing(open_reader(tmp_path)) as history:
        given = list(rows(history, "decisions"))
        assert compare(tmp_path, history, replace(real_machine(), version=0)) == len(given) - 1
        with pytest.raises(KeyError):
            compare(tmp_path, history)
    life.cell.close()


def test_one_that_was_made_anew_is_found_by_a_hash_that_was_noted(life: Life, tmp_path: Path) -> None:
    (walked,) = verify_audit(tmp_path)
    noted = Expected.of(f"{DECISIONS}:{walked.last}:{walked.hash}")
    assert verify_audit(tmp_path, [noted]) == [walked]
    # With the journal gone, only that hash is left to say so.
    for segment in tmp_path.glob("segment-*.journal"):
        segment.unlink()
    anew(tamper(tmp_path, TAMPERED["who"]))
    verify_audit(tmp_path)
    with pytest.raises(ChainDamaged, match="made anew"):
        verify_audit(tmp_path, [noted])
    (tmp_path / NAME).unlink()
    with pytest.raises(ChainDamaged, match="was noted"):
        verify_audit(tmp_path, [noted])
    life.cell.close()


@pytest.mark.parametrize("statement", ["UPDATE decisions SET actor = 'nobody'", "DELETE FROM decisions"])
def test_a_slip_changes_nothing(life: Life, tmp_path: Path, statement: str) -> None:
    with closing(sqlite3.connect(tmp_path / NAME)) as connection, pytest.raises(sqlite3.IntegrityError, match="never"):
        connection.execute(statement)
    life.cell.close()


def test_decisions_of_before_the_chain_are_chained_when_the_file_is_opened(life: Life, tmp_path: Path) -> None:
    (before,) = verify_audit(tmp_path)
    tamper(tmp_path, "UPDATE decisions SET hash = NULL").close()
    Projector(tmp_path).close()
    assert verify_audit(tmp_path) == [before]
    life.cell.close()


def test_the_specification() -> None:
    row = (1, 2, 3, 0, "operator:alice", "set_cap", "", 1, '{"ok":1}', '{"ö":1}', b"\x01\xff")
    text = (
        f'["{FIRST}",1,2,3,0,"operator:alice","set_cap","",1,'
        r'"{\"ok\":1}","{\"\u00f6\":1}","01ff"]'
    )
    assert hash_of(FIRST, row) == hashlib.sha256(text.encode("ascii")).hexdigest()


@pytest.mark.parametrize("machine", ["machine-6", "machine-10"])
def test_records_of_an_older_version_are_no_damage(tmp_path: Path, machine: str) -> None:
    """They have a command that this version does not know, and history begins behind them."""
    with tarfile.open(FORMATS / f"{machine}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    cell = Cell.open(tmp_path, journal=JournalSettings(1 << 20, 0))
    alice = commands.definition(layout.ACTOR, ACTOR, {layout.ACTOR_ROLE: layout.OPERATOR})
    cell.step(commands.run(layout.DEFINE, definition=np.frombuffer(alice, "V1024")))
    cell.close(snapshot=False)
    finished(tmp_path)
    (walked,) = verify_audit(tmp_path)
    assert (walked.name, walked.first) == (NAME, 1)

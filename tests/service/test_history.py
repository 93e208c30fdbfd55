"""History over a real socket: page by page what the file has, to each role its part, and never another's answer."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from simswitch.client import OperatorClient
from simswitch.core import layout
from simswitch.core.roles import FIELD_READS, READ_ROLES, ROLE_WORDS, Read
from simswitch.history.reading import TABLES, rows
from simswitch.history.schema import open_reader, open_writer
from simswitch.service import answering
from simswitch.service.answering import Answer, answer
from simswitch.service.errors import HISTORY_MISSING, Refused
from simswitch.service.history import OF_ONE_MAX, WAITING_MAX, AnsweringProcess
from simswitch.v1 import history_pb2 as pb
from simswitch.v1 import inventory_pb2 as inv

from tests.service.serving import Serving, define
from tests.service.test_calls import refusal
from tests.service.test_overload import until

NAMES = {"access-server": "as-01", "supplier": "wholesale"}
SWAPS, DAYS, PEOPLE = 40, 3, 2_000
QUESTION: dict[str, Any] = {
    "kind": "rows", "table": "use_day", "from_ms": None, "until_ms": None, "equal": {"bytes": 1}, "lots": None,
    "hidden": [], "size": 10, "token": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server whose history has some rows; two suppliers with a lot each."""
    serving = Serving(tmp_path_factory.mktemp("history") / "data")
    with OperatorClient(serving.address) as operator:
        define(operator, 5)
        other = inv.Supplier(name="another")
        operator.inventory.DefineSupplier(inv.DefineSupplierRequest(supplier=other))
        lot = inv.Lot(name="another-lot", supplier="another", plan="plan", sim_class="class")
        operator.inventory.DefineLot(inv.DefineLotRequest(lot=lot))
    entities = serving.cell.call_read(lambda machine: machine.entities(layout.LOT))
    lots = [entity["index"] for entity in entities]
    connection = open_writer(serving.folder)
    connection.execute("BEGIN")
    use = [(day, person, day * person) for day in range(20_000, 20_000 + DAYS) for person in range(PEOPLE)]
    connection.executemany("INSERT INTO use_day VALUES (?, ?, ?)", use)
    # Many at one instant: a page may end between them. Numbers beyond 63 bits come back without a sign.
    swaps = [(-number, None, number, -number, 1, 7, 2, number // 9, None, None, 0, 0, 8) for number in range(SWAPS)]
    connection.executemany("INSERT INTO swaps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", swaps)
    for lot_index in lots:
        connection.execute("INSERT INTO caps VALUES (?, 1, 5, NULL, 3, NULL)", (lot_index,))
    connection.execute("INSERT INTO gaps VALUES (3, 4, 5, 6)")
    connection.execute("COMMIT")
    connection.close()
    try:
        yield serving
    finally:
        serving.end()


def asked(operator: OperatorClient, table: str, **fields: Any) -> pb.ListRowsResponse:
    return operator.history.ListRows(pb.ListRowsRequest(table=table, **fields), timeout=20)


def values_of(response: pb.ListRowsResponse) -> list[tuple[Any, ...]]:
    return [
        tuple(getattr(value, kind) if (kind := value.WhichOneof("value")) else None for value in row.values)
        for row in response.rows
    ]


@pytest.mark.parametrize(
    ("table", "size", "wanted"),
    [
        ("swaps", 7, {}),
        ("use_day", 999, {}),
        ("use_day", 300, {"from_ms": 20_001 * 86_400_000, "until_ms": 20_002 * 86_400_000}),
        ("use_day", 2, {"equal": [pb.ColumnValue(column="subscriber", value=5)]}),
        ("swaps", 3, {"from_ms": 2, "until_ms": 4}),
    ],
)
def test_pages_together_are_what_the_file_has(serving: Serving, table: str, size: int, wanted: dict[str, Any]) -> None:
    found: list[tuple[Any, ...]] = []
    token = ""
    with OperatorClient(serving.address) as operator:
        while True:
            response = asked(operator, table, page_size=size, page_token=token, **wanted)
            assert len(response.rows) <= size
            found += values_of(response)
            token = response.next_page_token
            if not token:
                break
    equal = {each.column: each.value for each in wanted.get("equal", [])}
    connection = open_reader(serving.folder)
    whole = list(rows(connection, table, wanted.get("from_ms"), wanted.get("until_ms"), **equal))
    connection.close()
    assert whole
    assert found == [tuple(row.values()) for row in whole]
    assert list(response.columns) == list(whole[0])
    assert [(gap.first_sequence, gap.until_ms) for gap in response.gaps] == [(3, 6)]


@pytest.mark.parametrize("word", sorted(ROLE_WORDS))
def test_each_role_on_each_table(serving: Serving, word: str) -> None:
    role = ROLE_WORDS[word]
    wrong: list[tuple[str, object]] = []
    with OperatorClient(serving.address, actor=f"{word}:{NAMES.get(word, 'somebody')}") as party:
        for name, table in TABLES.items():
            allowed = role in READ_ROLES[Read.PARTS] and role in READ_ROLES[table.read]
            try:
                columns = set(asked(party, name).columns)
            except grpc.RpcError as error:
                if allowed or error.code() is not grpc.StatusCode.PERMISSION_DENIED:
                    wrong.append((name, error))
            else:
                seen = {column for column in columns & set(FIELD_READS) if role not in READ_ROLES[FIELD_READS[column]]}
                if not allowed or seen:
                    wrong.append((name, seen))
    assert not wrong


def test_what_the_parties_must_never_see(serving: Serving) -> None:
    """Pinned beside the tables, so that a slip in them shows."""
    with OperatorClient(serving.address, actor="supplier:wholesale") as supplier:
        own = values_of(asked(supplier, "caps"))
        assert len(own) == 1
        for name in ("use_day", "use_sim", "swaps", "decisions", "refusals"):
            assert refusal(partial(asked, supplier, name)).reason == "NOT_PERMITTED"
        other = values_of(asked(supplier, "caps", equal=[pb.ColumnValue(column="lot", value=own[0][0] + 1)]))
        assert other == []
    with OperatorClient(serving.address, actor="technology-provider:somebody") as provider:
        swaps = asked(provider, "swaps")
        assert len(swaps.rows) == SWAPS
        assert not {"subscriber", "terminal", "source", "target"} & set(swaps.columns)
        person = [pb.ColumnValue(column="subscriber", value=5)]
        assert refusal(lambda: asked(provider, "swaps", equal=person)).reason == "INVALID_ARGUMENT"
        for name in ("use_day", "affected", "limits", "exemptions", "lots", "health", "decisions"):
            assert refusal(partial(asked, provider, name)).reason == "NOT_PERMITTED"


def test_what_makes_no_sense_is_refused(serving: Serving) -> None:
    with OperatorClient(serving.address) as operator:
        other = asked(operator, "use_day", page_size=2).next_page_token
        refused: tuple[tuple[dict[str, Any], str], ...] = (
            ({"table": "sqlite_schema"}, "INVALID_ARGUMENT"),
            ({"table": "entities", "from_ms": 5}, "INVALID_ARGUMENT"),
            ({"table": "use_day", "from_ms": 1 << 62}, "INVALID_ARGUMENT"),
            ({"table": "use_day", "page_size": 1_001}, "INVALID_ARGUMENT"),
            ({"table": "use_day", "equal": [pb.ColumnValue(column='day" OR "1', value=1)]}, "INVALID_ARGUMENT"),
            ({"table": "use_day", "equal": [pb.ColumnValue(column="day")] * 5}, "INVALID_ARGUMENT"),
            ({"table": "swaps", "page_token": other}, "INVALID_PAGE_TOKEN"),
            ({"table": "use_day", "page_token": "WyJ1c2VfZGF5IiwgWzFlOTldXQ=="}, "INVALID_PAGE_TOKEN"),
            ({"table": "use_day", "page_token": "!"}, "INVALID_PAGE_TOKEN"),
        )
        for fields, reason in refused:
            assert refusal(partial(asked, operator, **fields)).reason == reason, fields


def test_who_has_gone_leaves_no_answer_for_the_next(serving: Serving) -> None:
    """The process is held, so that the first caller goes while it is asked; what it would have said is nobody's."""
    with OperatorClient(serving.address) as operator:
        asked(operator, "gaps")
        assert serving.running is not None
        process = serving.running.service.history.rows.process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(grpc.RpcError) as caught:
            operator.history.ListRows(pb.ListRowsRequest(table="use_day"), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert values_of(asked(operator, "gaps")) == [(3, 4, 5, 6)]


def test_one_who_asks_much_is_answered_in_turn_with_the_others(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is held while all of them ask; an auditor fills his part, and the operator waits for one of them."""
    with OperatorClient(serving.address) as operator, OperatorClient(serving.address, actor="auditor:eve") as auditor:
        asked(operator, "gaps")
        asked(auditor, "gaps")
        assert serving.running is not None
        rows_process = serving.running.service.history.rows
        process = rows_process.process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        turns: list[str] = []
        answered = rows_process._answered

        async def noted(folder: Path, question: bytes) -> tuple[int, bytes]:
            turns.append(json.loads(question)["table"])
            return await answered(folder, question)

        monkeypatch.setattr(rows_process, "_answered", noted)

        def ask(client: OperatorClient, table: str) -> Any:
            return client.history.ListRows.future(pb.ListRowsRequest(table=table), timeout=60)

        greedy: list[Any] = []
        for _ in range(OF_ONE_MAX):
            greedy.append(ask(auditor, "gaps"))
            until(lambda: rows_process._waiting == len(greedy))
        for _ in range(WAITING_MAX):
            assert refusal(partial(asked, auditor, "gaps")).reason == "TOO_MANY_CALLS"
        mine = ask(operator, "caps")
        until(lambda: rows_process._waiting == OF_ONE_MAX + 1)
        os.kill(process.pid, signal.SIGCONT)
        assert all(future.result().rows for future in (mine, *greedy))
        assert turns == ["gaps", "caps", *["gaps"] * (OF_ONE_MAX - 1)]
        until(lambda: not rows_process._asking)
        assert asked(auditor, "gaps")


def test_the_process_that_answers_is_started_without_a_thread_and_later_where_it_can_not_be_now(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a thread to wait for its end it once lived on, known to nobody, and each question started another."""
    start, left = subprocess.Popen, 1

    class Threads(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    def started(*words: Any, **named: Any) -> subprocess.Popen[bytes]:
        nonlocal left
        left -= 1
        if left >= 0:
            raise OSError(errno.EAGAIN, "there are processes enough")
        return start(*words, **named)

    async def ask() -> None:
        answering = AnsweringProcess(serving.folder)
        question = {**QUESTION, "deadline": time.monotonic() + 60}
        with pytest.raises(Refused, match=r"can't be started: \[Errno 11\] there are processes enough") as caught:
            await answering.asked(question, 1)
        assert caught.value.reason is HISTORY_MISSING
        kind, _ = await answering.asked(question, 1)
        assert kind == Answer.GOOD
        process = answering.process
        await answering.close()
        assert process is not None
        assert process.returncode == -signal.SIGKILL

    monkeypatch.setattr(threading, "Thread", Threads)
    monkeypatch.setattr(subprocess, "Popen", started)
    asyncio.run(ask())


def test_a_question_is_given_up_when_its_time_is_over(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "LOOK_EVERY", 1_000)
    late = answer(str(serving.folder), {**QUESTION, "deadline": time.monotonic() - 1})
    assert late == (Answer.LATE, b"")
    kind, _ = answer(str(serving.folder), {**QUESTION, "deadline": time.monotonic() + 60})
    assert kind == Answer.GOOD
    nothing = answer(str(serving.folder / "nowhere"), {**QUESTION, "deadline": time.monotonic() + 60})
    assert nothing[0] == Answer.MISSING
    assert b"no history yet" in nothing[1]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"terms": ".".join("a" * 30_000) + " = 1"}, b"256 dots"),
        ({"terms": "[" + '."\u2028"' * 15_000 + "]"}, b"256 dots"),
        ({"terms": "a = " + "[" * 30_000}, b"nested too deeply"),
        ({"terms": "a = " + "{a=" * 20_000}, b"nested too deeply"),
        ({"day": "9999-12-31"}, b"out of range"),
        ({"day": "0001-01-01"}, b"out of range"),
        ({"kind": "rows", "token": base64.urlsafe_b64encode(b"[" * 40_000).decode()}, None),
    ],
)
@pytest.mark.timeout(30)
def test_no_question_ends_or_occupies_the_process(serving: Serving, asked: dict[str, Any], why: bytes | None) -> None:
    """Sixty thousand characters once took a minute and a half, and others ended it with a traceback."""
    question: dict[str, Any] = {
        "kind": "daily", "role": int(layout.ROLE_SUPPLIER), "name": "wholesale", "day": "2026-11-25", "zone": "UTC",
        "language": "ja", "form": pb.REPORT_FORM_MARKDOWN, "terms": "", "cycle_day": 1, "table": "lots",
        "from_ms": None, "until_ms": None, "equal": {}, "lots": [1], "hidden": [], "size": 10, "token": "",
    }  # fmt: skip
    kind, told = answer(str(serving.folder), {**question, **asked, "deadline": time.monotonic() + 60})
    assert kind == (Answer.WRONG if why else Answer.WRONG_TOKEN)
    assert (why or b"") in told

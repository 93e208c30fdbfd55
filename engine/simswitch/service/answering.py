"""The process that reads history for a service: ``python -m simswitch.service.answering FOLDER``.

It is a process of its own, at low priority, because a busy thread in the service's would hold up every call. A question
is one line of JSON on standard input, and one is answered after the other; an answer is a head (kind, length) and as
many bytes on standard output. It ends when its input does, so it never outlives its service.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import sqlite3
import struct
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import date, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from simswitch.history.reading import UNSIGNED, Page, Question, known, names, page
from simswitch.history.schema import HistoryRefused, open_reader
from simswitch.toml_lines import TomlDocument, TomlRefused
from simswitch.v1 import history_pb2 as pb

if TYPE_CHECKING:
    from simswitch.planning.terms import Terms

HEAD = struct.Struct("<BI")
RULES = "jp-2020"
"""The rule set of an accident report that names none."""
DOTS_MAX = 256
"""In a line of terms."""
LOOK_EVERY = 20_000
"""Steps of SQLite's machine between two looks at the clock, some milliseconds."""


class Answer(IntEnum):
    """What an answer is."""

    GOOD = 1
    WRONG = 2
    """The question makes no sense: why."""
    WRONG_TOKEN = 3
    MISSING = 4
    """There is no history that could be read: why."""
    LATE = 5
    """The deadline passed."""


def answer(folder: str, asked: dict[str, Any]) -> tuple[Answer, bytes]:
    try:
        with closing(open_reader(folder)) as connection:
            deadline = asked["deadline"]
            connection.set_progress_handler(lambda: int(time.monotonic() > deadline), LOOK_EVERY)
            return Answer.GOOD, _MAKERS[asked["kind"]](connection, asked)
    except HistoryRefused as error:
        return Answer.MISSING, str(error).encode()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return Answer.LATE, b""
        return Answer.MISSING, str(error).encode()
    except sqlite3.Error as error:
        return Answer.MISSING, str(error).encode()
    except _WrongToken:
        return Answer.WRONG_TOKEN, b""
    except (ValueError, OverflowError, TomlRefused) as error:
        return Answer.WRONG, str(error).encode()
    except RecursionError:
        return Answer.WRONG, b"what was asked is nested too deeply"
    except ImportError as error:
        return Answer.WRONG, f"the service has no {error.name}: install simswitch[plan,report] for it".encode()


class _WrongToken(Exception):
    """It is not one of ours, or of another table."""


def _rows(connection: sqlite3.Connection, asked: dict[str, Any]) -> bytes:
    hidden = frozenset(asked["hidden"])
    question = Question(asked["table"], asked["from_ms"], asked["until_ms"], asked["equal"], asked["lots"], hidden)
    after = _place(asked["token"], question.table)
    return _message(connection, question.table, page(connection, question, asked["size"], after)).SerializeToString()


def _message(connection: sqlite3.Connection, table: str, found: Page) -> pb.ListRowsResponse:
    state = known(connection)
    numbers = ("identity" if name in UNSIGNED else "number" for name in found.columns)
    kinds = [{int: number, str: "text", bytes: "data"} for number in numbers]
    response = pb.ListRowsResponse(
        columns=found.columns,
        next_page_token=_token(table, found.after) if found.after is not None else "",
        sequence=state.sequence,
        at_ms=state.at_ms,
        gaps=[
            pb.HistoryGap(first_sequence=first, last_sequence=last, from_ms=from_ms, until_ms=until_ms)
            for first, last, from_ms, until_ms in state.gaps
        ],
        names=[
            pb.EntityName(entity=entity, name=name)
            for entity, name in names(connection, found.columns, found.rows).items()
        ],
    )
    for row in found.rows:
        values = response.rows.add().values
        for kind, value in zip(kinds, row, strict=True):
            single = values.add()
            if value is not None:
                setattr(single, kind[type(value)], value)
    return response


def _daily(connection: sqlite3.Connection, asked: dict[str, Any]) -> bytes:
    """The report as the role may see it."""
    from simswitch.reports import daily, rendering
    from simswitch.reports.views import View

    zone = _zone(asked["zone"])
    wanted = date.fromisoformat(asked["day"]) if asked["day"] else daily.last_day(connection)
    if wanted is None:
        raise ValueError("history has no day that is over yet: name one")
    view = View(asked["role"], asked["name"])
    days = (daily.read_day(connection, day, zone) for day in (wanted, wanted - timedelta(days=1)))
    today, yesterday = (view.seen(day) for day in days)
    shortfall = daily.shortfall_text(connection, wanted, asked["cycle_day"], _terms(asked), today.rights)
    if asked["form"] in (pb.REPORT_FORM_MARKDOWN, pb.REPORT_FORM_HTML):
        report = daily.report(today, yesterday, shortfall, zone, "history")
        render = rendering.markdown if asked["form"] == pb.REPORT_FORM_MARKDOWN else rendering.html
        page = render(report, asked["language"])
    else:
        page = json.dumps(daily.document(today, yesterday, shortfall), ensure_ascii=False)
    return pb.MakeDailyReportResponse(page=page).SerializeToString()


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(f"there is no time zone {name!r}") from error


def _accident(connection: sqlite3.Connection, asked: dict[str, Any]) -> bytes:
    from simswitch.reports import accident, rendering
    from simswitch.reports.rules import parse_rules, read_rules, shipped

    zone = _zone(asked["zone"])
    facts = accident.parse_facts(TomlDocument(asked["facts"], "facts"))
    rules = parse_rules(TomlDocument(asked["rules"], "rules")) if asked["rules"] else read_rules(shipped()[RULES])
    found = accident.read_accident(connection, asked["from_ms"], asked["until_ms"], facts, rules, zone)
    found.unknown.extend(accident.not_on_record(connection, asked["from_ms"], asked["until_ms"], zone))
    report = accident.report(found, facts, rules, "history")
    render = rendering.markdown if asked["form"] == pb.REPORT_FORM_MARKDOWN else rendering.html
    return pb.MakeAccidentReportResponse(page=render(report, asked["language"])).SerializeToString()


def _plan(connection: sqlite3.Connection, asked: dict[str, Any]) -> bytes:
    from simswitch.planning import observed, plan

    situation = observed.read_situation(connection, cycle_day=asked["cycle_day"])
    found = plan.plan(situation, _terms(asked), seed=asked["seed"])
    return pb.MakePlanResponse(document=json.dumps(found.document, ensure_ascii=False)).SerializeToString()


def _terms(asked: dict[str, Any]) -> Terms:
    from simswitch.planning.terms import parse_terms

    # Reading a key takes time by the square of its parts, and nothing looks at the deadline meanwhile.
    if any(line.count(".") > DOTS_MAX for line in asked["terms"].split("\n")):
        raise ValueError(f"terms: a line has more than {DOTS_MAX} dots")
    return parse_terms(TomlDocument(asked["terms"], "terms"))


_MAKERS: Mapping[str, Callable[[sqlite3.Connection, dict[str, Any]], bytes]] = {
    "rows": _rows,
    "daily": _daily,
    "accident": _accident,
    "plan": _plan,
}


def _token(table: str, after: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps([table, after]).encode()).decode("ascii")


def _place(token: str, table: str) -> list[Any] | None:
    if not token:
        return None
    try:
        name, after = json.loads(base64.urlsafe_b64decode(token.encode("ascii")))
    except (binascii.Error, UnicodeError, ValueError, TypeError, RecursionError) as error:
        raise _WrongToken from error
    if name != table or not isinstance(after, list):
        raise _WrongToken
    for value in after:
        if not isinstance(value, str) and not (isinstance(value, int) and abs(value) < 1 << 63):
            raise _WrongToken
    return after


def main() -> None:
    os.nice(10)
    folder = sys.argv[1]
    target = sys.stdout.buffer
    for line in sys.stdin.buffer:
        kind, data = answer(folder, json.loads(line))
        target.write(HEAD.pack(kind, len(data)) + data)
        target.flush()


if __name__ == "__main__":
    main()

"""HistoryService: who may ask what, and the process that answers (``service.answering``)."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simswitch.core import layout
from simswitch.core.roles import FIELD_READS, Read
from simswitch.history.reading import TABLES
from simswitch.service.answering import HEAD, Answer
from simswitch.service.call import Call
from simswitch.service.directory import Directory
from simswitch.service.errors import (
    EXPIRED,
    HISTORY_MISSING,
    INVALID_ARGUMENT,
    INVALID_PAGE_TOKEN,
    OVERLOADED,
    TOO_MANY_CALLS,
    Refused,
)
from simswitch.service.paging import page_size
from simswitch.v1 import history_pb2 as pb

WAITING_MAX = 16
"""Calls that wait while one is answered."""
OF_ONE_MAX = 4
"""Of these and the one that is answered, those of one actor."""
LONGEST_S = 30.0
REPORT_LONGEST_S = 60.0
EQUAL_MAX = 4
TEXT_MAX = 1 << 16
_INSTANT_MAX_MS = 1 << 43
"""Every instant of the engine is before it."""


def _planned_with(request: pb.MakeDailyReportRequest | pb.MakePlanRequest, call: Call) -> dict[str, Any]:
    if request.cycle_day > 31:
        raise Refused(INVALID_ARGUMENT, f"cycle_day is 1 to 31, not {request.cycle_day}")
    terms = _text("terms", request.terms)
    return {"terms": terms, "cycle_day": request.cycle_day or 1, "deadline": _deadline(call)}


def _text(name: str, text: str) -> str:
    if len(text) > TEXT_MAX:
        raise Refused(INVALID_ARGUMENT, f"{name} has at most {TEXT_MAX:,} characters, not {len(text):,}")
    return text


def _language(name: str) -> str:
    if name not in ("", "ja", "en"):
        raise Refused(INVALID_ARGUMENT, f"language is ja or en, not {name!r}")
    return name or "ja"


def _deadline(call: Call) -> float:
    until_s = time.monotonic() + REPORT_LONGEST_S
    return until_s if call.deadline is None else min(call.deadline, until_s)


@dataclass(slots=True)
class _OfOne:
    """What one actor asks. One of his questions at a time stands among everybody's: who asks many is answered in turn
    with the others, and waits for his own."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    count: int = 0


class AnsweringProcess:
    """A process that answers questions about history, one after the other. It is started with the first."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._asking: dict[int, _OfOne] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def asked(self, question: dict[str, Any], actor: int) -> tuple[int, bytes]:
        if self._folder is None:
            raise Refused(HISTORY_MISSING, "the service keeps no data folder")
        if self._waiting > WAITING_MAX:
            raise Refused(OVERLOADED)
        mine = self._asking.setdefault(actor, _OfOne())
        if mine.count >= OF_ONE_MAX:
            raise Refused(TOO_MANY_CALLS, f"{OF_ONE_MAX}")
        self._waiting += 1
        mine.count += 1
        try:
            async with mine.turn, self._turn:
                if time.monotonic() > question["deadline"]:
                    raise Refused(EXPIRED)
                # It looks at the deadline itself where it reads; what takes so long is then a forecast.
                async with asyncio.timeout(question["deadline"] + 1 - time.monotonic()):
                    return await self._answered(self._folder, json.dumps(question).encode())
        except TimeoutError as error:
            raise Refused(EXPIRED) from error
        finally:
            self._waiting -= 1
            mine.count -= 1
            if not mine.count:
                del self._asking[actor]

    async def _answered(self, folder: Path, question: bytes) -> tuple[int, bytes]:
        try:
            source, target = self._streams or await self._begin(folder)
            target.write(question + b"\n")
            kind, size = HEAD.unpack(await source.readexactly(HEAD.size))
            return kind, await source.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            await self.close()
            raise Refused(HISTORY_MISSING, "the process that reads it has ended; another is started") from error
        except BaseException:
            # The caller has gone, and the answer would be taken for that to the next question.
            await self.close()
            raise

    async def _begin(self, folder: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Starts the process. asyncio's own way leaves it running where no thread can be had to wait for its end."""
        try:
            mine, its = socket.socketpair()
            with its:
                command = (sys.executable, "-m", "simswitch.service.answering", str(folder))
                self.process = subprocess.Popen(command, stdin=its.fileno(), stdout=its.fileno())
        except OSError as error:
            raise Refused(HISTORY_MISSING, f"the process that reads it can't be started: {error}") from error
        self._streams = await asyncio.open_unix_connection(sock=mine)
        return self._streams

    async def close(self) -> None:
        """Ends the process; the next question starts another."""
        process, self.process = self.process, None
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
        if process is not None:
            process.kill()
            while process.poll() is None:
                await asyncio.sleep(0.01)


class HistoryHandlers:
    """HistoryService."""

    def __init__(self, directory: Directory, folder: Path | None) -> None:
        self._directory = directory
        # A report takes seconds, and nobody who reads rows waits for it.
        self.rows = AnsweringProcess(folder)
        self.reports = AnsweringProcess(folder)

    async def list_rows(self, data: bytes, call: Call) -> bytes:
        request = pb.ListRowsRequest.FromString(data)
        table = TABLES.get(request.table)
        if table is None:
            raise Refused(INVALID_ARGUMENT, f"there is no table {request.table!r}; there are {', '.join(TABLES)}")
        call.may_read(table.read)
        if len(request.equal) > EQUAL_MAX:
            raise Refused(INVALID_ARGUMENT, f"equal has at most {EQUAL_MAX} columns, not {len(request.equal)}")
        if max(request.from_ms, request.until_ms) >= _INSTANT_MAX_MS:
            raise Refused(INVALID_ARGUMENT, f"every instant is before {_INSTANT_MAX_MS:,} ms")
        lots = None
        if call.actor.role == layout.ROLE_SUPPLIER and table.read is Read.LOTS:
            everybodys = self._directory.all(layout.LOT)
            lots = [lot.index for lot in everybodys if lot.numbers[layout.LOT_SUPPLIER] == call.actor.subject]
        until_s = time.monotonic() + LONGEST_S
        question = {
            "kind": "rows",
            "table": request.table,
            "from_ms": request.from_ms or None,
            "until_ms": request.until_ms or None,
            "equal": {each.column: each.value for each in request.equal},
            "lots": lots,
            "hidden": [name for name, read in FIELD_READS.items() if not call.sees(read)],
            "size": page_size(request.page_size),
            "token": request.page_token,
            "deadline": until_s if call.deadline is None else min(call.deadline, until_s),
        }
        return await self._answer(self.rows, question, call)

    async def make_daily_report(self, data: bytes, call: Call) -> bytes:
        request = pb.MakeDailyReportRequest.FromString(data)
        actor = call.actor
        return await self._answer(
            self.reports,
            {
                "kind": "daily",
                "role": actor.role,
                "name": self._directory.name(actor.subject) if actor.role == layout.ROLE_SUPPLIER else "",
                "day": request.day,
                "zone": request.zone or "UTC",
                "language": _language(request.language),
                "form": request.form,
                **_planned_with(request, call),
            },
            call,
        )

    async def make_accident_report(self, data: bytes, call: Call) -> bytes:
        request = pb.MakeAccidentReportRequest.FromString(data)
        if request.form not in (pb.REPORT_FORM_MARKDOWN, pb.REPORT_FORM_HTML):
            raise Refused(INVALID_ARGUMENT, "form is MARKDOWN or HTML")
        if not request.from_ms < request.until_ms < 1 << 51:
            raise Refused(INVALID_ARGUMENT, "from_ms is before until_ms, and that within what history can hold")
        question = {
            "kind": "accident",
            "facts": _text("facts", request.facts),
            "rules": _text("rules", request.rules),
            "from_ms": request.from_ms,
            "until_ms": request.until_ms,
            "zone": request.zone or "UTC",
            "language": _language(request.language),
            "form": request.form,
            "deadline": _deadline(call),
        }
        return await self._answer(self.reports, question, call)

    async def make_plan(self, data: bytes, call: Call) -> bytes:
        request = pb.MakePlanRequest.FromString(data)
        question = {"kind": "plan", "seed": request.seed, **_planned_with(request, call)}
        return await self._answer(self.reports, question, call)

    async def _answer(self, process: AnsweringProcess, question: dict[str, Any], call: Call) -> bytes:
        kind, answer = await process.asked(question, call.actor.index)
        match kind:
            case Answer.GOOD:
                return answer
            case Answer.WRONG:
                raise Refused(INVALID_ARGUMENT, answer.decode())
            case Answer.WRONG_TOKEN:
                raise Refused(INVALID_PAGE_TOKEN, repr(question["token"][:80]))
            case Answer.LATE:
                raise Refused(EXPIRED)
            case _:
                raise Refused(HISTORY_MISSING, answer.decode())

    async def close(self) -> None:
        """Ends the processes."""
        await self.rows.close()
        await self.reports.close()

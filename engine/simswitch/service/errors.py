"""Why a call is refused: the one table from the engine's words to a gRPC status, a reason and what to do.

A refusal leaves as a ``google.rpc.Status`` in the trailing metadata: an ErrorInfo with the reason and the domain
``simswitch``, and a RetryInfo where trying again helps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from simswitch.cell import CellClosed, CellExpired, CellFailed, CellOverloaded, JournalFull, RecordTooLarge
from simswitch.core import layout
from simswitch.core.commands import OutOfRange
from simswitch.core.wire import ColumnsDiffer, Malformed, TooManyItems
from simswitch.v1.status_pb2 import Refusal as RefusalMessage

DOMAIN = "simswitch"
WHAT_MAX = 500
"""Characters of what a refusal names. It goes twice into metadata, of which clients take 8 KiB; and what was too long
to be right need not be said back in full."""
_Code = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class Reason:
    """One way to be refused. ``text`` may name ``{what}``."""

    code: grpc.StatusCode
    name: str
    text: str
    retry_after_ms: int = 0


class Refused(Exception):
    """Ends a call, or refuses one batch of a stream; nothing was changed."""

    def __init__(self, reason: Reason, what: str = "", retry_after_ms: int | None = None) -> None:
        what = what if len(what) <= WHAT_MAX else f"{what[:WHAT_MAX]}…"
        self.reason = reason
        self.what = what
        self.text = reason.text.format(what=what)
        self.retry_after_ms = reason.retry_after_ms if retry_after_ms is None else retry_after_ms
        super().__init__(self.text)

    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        """The trailing metadata that carries the details."""
        status = status_pb2.Status(code=self.reason.code.value[0], message=self.text)
        information = error_details_pb2.ErrorInfo(reason=self.reason.name, domain=DOMAIN)
        if self.what:
            information.metadata["what"] = self.what
        status.details.add().Pack(information)
        if self.retry_after_ms:
            advice = error_details_pb2.RetryInfo()
            advice.retry_delay.FromMilliseconds(self.retry_after_ms)
            status.details.add().Pack(advice)
        return (("grpc-status-details-bin", status.SerializeToString()),)

    def message(self) -> RefusalMessage:
        """The same, where a stream goes on."""
        return RefusalMessage(
            code=self.reason.code.value[0],
            reason=self.reason.name,
            text=self.text,
            retry_after_ms=self.retry_after_ms,
        )


MALFORMED = Reason(_Code.INVALID_ARGUMENT, "MALFORMED", "The bytes are not a message of this type: {what}.")
COLUMNS_DIFFER = Reason(_Code.INVALID_ARGUMENT, "COLUMNS_DIFFER", "The request is not consistent: {what}.")
TOO_MANY_ITEMS = Reason(_Code.RESOURCE_EXHAUSTED, "TOO_MANY_ITEMS", "{what}. Send them in several calls.")
INVALID_ARGUMENT = Reason(
    _Code.INVALID_ARGUMENT, "INVALID_ARGUMENT", "The request can't be carried out as it is: {what}."
)
INVALID_PAGE_TOKEN = Reason(
    _Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN", "{what} is not a page token of this list. Begin without one."
)
INVALID_ACTOR = Reason(
    _Code.UNAUTHENTICATED,
    "INVALID_ACTOR",
    "The actor {what} is not of the form role:name with a known role, such as operator:alice.",
)
NO_CREDENTIALS = Reason(
    _Code.UNAUTHENTICATED, "NO_CREDENTIALS", "Nobody is believed here without a client certificate or a token."
)
TOKEN_REFUSED = Reason(_Code.UNAUTHENTICATED, "TOKEN_REFUSED", "The token does not count: {what}. Ask for another.")
CERTIFICATE_REFUSED = Reason(
    _Code.UNAUTHENTICATED, "CERTIFICATE_REFUSED", "The client's certificate does not count: {what}."
)
WITHDRAWN = Reason(_Code.UNAUTHENTICATED, "WITHDRAWN", "What the stream was opened with counts no more: {what}.")
TWO_CREDENTIALS = Reason(
    _Code.UNAUTHENTICATED, "TWO_CREDENTIALS", "A call comes with a certificate or with a token: {what}."
)
RATE_LIMITED = Reason(
    _Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", "{what} calls more often than one identity may. Try again later.", 1_000
)
TOO_MANY_STREAMS = Reason(
    _Code.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", "The identity has {what} streams open already. Close one.", 5_000
)
TOO_MANY_CALLS = Reason(
    _Code.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS", "The identity has {what} calls under way already. Try again.", 1_000
)
TOO_MANY_CONNECTIONS = Reason(
    _Code.RESOURCE_EXHAUSTED,
    "TOO_MANY_CONNECTIONS",
    "The identity has {what} connections already, and this one is ended. Use one of those, or close some.",
    5_000,
)
NOT_PERMITTED = Reason(_Code.PERMISSION_DENIED, "NOT_PERMITTED", "The actor may not do this: {what}.")
OVERLOADED = Reason(_Code.RESOURCE_EXHAUSTED, "OVERLOADED", "Too many calls are waiting. Try again later.", 100)
TOO_MANY_SESSIONS = Reason(
    _Code.RESOURCE_EXHAUSTED, "TOO_MANY_SESSIONS", "There are {what} sessions already. Try again later.", 5_000
)
TOO_MANY_WATCHERS = Reason(
    _Code.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS", "{what} watch events already. Try again later.", 5_000
)
SLOW_CONSUMER = Reason(
    _Code.RESOURCE_EXHAUSTED,
    "SLOW_CONSUMER",
    "The stream does not read what it is sent ({what} messages are waiting). Connect again.",
    1_000,
)
DISK_FULL = Reason(
    _Code.RESOURCE_EXHAUSTED, "DISK_FULL", "The journal's disk is nearly full: {what}. Make room there.", 30_000
)
IMPORT_RUNNING = Reason(
    _Code.RESOURCE_EXHAUSTED, "IMPORT_RUNNING", "Another import is running. Try again when it has ended.", 5_000
)
IMPORT_IDLE = Reason(
    _Code.DEADLINE_EXCEEDED,
    "IMPORT_IDLE",
    "The import sent nothing for {what} s, and others wait. Begin again: what is there already gives SAME.",
)
HISTORY_BEHIND = Reason(
    _Code.FAILED_PRECONDITION,
    "HISTORY_BEHIND",
    "What was counted by the instant of a figure history knows: {what}. Try again when its follower has come on.",
    5_000,
)
TOO_MANY_ACTORS = Reason(
    _Code.RESOURCE_EXHAUSTED, "TOO_MANY_ACTORS", "No more actors can be known than {what}. Use a known one."
)
DRAINING = Reason(_Code.UNAVAILABLE, "DRAINING", "The service is shutting down. Connect again later.", 1_000)
FAILED = Reason(_Code.UNAVAILABLE, "FAILED", "The service has failed and is going down: {what}.", 5_000)
EXPIRED = Reason(_Code.DEADLINE_EXCEEDED, "EXPIRED", "The deadline passed before the call's turn came.")
HISTORY_MISSING = Reason(_Code.UNAVAILABLE, "HISTORY_MISSING", "History can't be read: {what}.", 5_000)
FENCED = Reason(
    _Code.ABORTED, "FENCED", "A newer session of the access server {what} stands. Find out who the other one is."
)
HELLO_EXPECTED = Reason(_Code.FAILED_PRECONDITION, "HELLO_EXPECTED", "A session begins with exactly one hello: {what}.")
READY_EXPECTED = Reason(
    _Code.ABORTED,
    "READY_EXPECTED",
    "The session has not become ready within {what} s of its hello: say what is held, then ready. Connect again.",
    1_000,
)
DECLARED_DEAD = Reason(
    _Code.ABORTED,
    "DECLARED_DEAD",
    "The access server {what} was declared dead before its session was ready. If it is not dead, connect again: say "
    "what is held, then ready.",
    1_000,
)
MESSAGE_EXPECTED = Reason(
    _Code.DEADLINE_EXCEEDED, "MESSAGE_EXPECTED", "The call's message has not come within {what} s."
)
INTERNAL = Reason(_Code.INTERNAL, "INTERNAL", "The service met a condition that it does not know: {what}.")

_NOT_FOUND = _Code.NOT_FOUND
_PRECONDITION = _Code.FAILED_PRECONDITION
_FULL = _Code.RESOURCE_EXHAUSTED

STATUS_REASONS: Mapping[int, Reason] = {
    layout.NOT_PERMITTED: NOT_PERMITTED,
    layout.INVALID_ARGUMENT: INVALID_ARGUMENT,
    layout.UNKNOWN_ACCESS_SERVER: Reason(
        _NOT_FOUND, "UNKNOWN_ACCESS_SERVER", "No access server is called {what}. Define it first."
    ),
    layout.UNKNOWN_MARKET: Reason(_NOT_FOUND, "UNKNOWN_MARKET", "No market is called {what}. Define it first."),
    layout.UNKNOWN_LOT: Reason(_NOT_FOUND, "UNKNOWN_LOT", "No lot is called {what}. Define it first."),
    layout.UNKNOWN_BANK: Reason(_NOT_FOUND, "UNKNOWN_BANK", "No bank is called {what}. Define it first."),
    layout.UNKNOWN_ENTITY: Reason(_NOT_FOUND, "UNKNOWN_ENTITY", "There is no {what}. Define it first."),
    layout.UNKNOWN_TERMINAL: Reason(_NOT_FOUND, "UNKNOWN_TERMINAL", "The terminal {what} never had a lease."),
    layout.UNKNOWN_SIM: Reason(_NOT_FOUND, "UNKNOWN_SIM", "No SIM has the ICCID {what}."),
    layout.UNKNOWN_ORDER: Reason(_NOT_FOUND, "UNKNOWN_ORDER", "No order has the number {what}."),
    layout.UNKNOWN_JOB: Reason(_NOT_FOUND, "UNKNOWN_JOB", "No swap job has the number {what}."),
    layout.STALE_SESSION: FENCED,
    layout.STALE_EPOCH: Reason(
        _Code.ABORTED, "STALE_EPOCH", "The lease is over, another one took its place: {what}. Drop it."
    ),
    layout.NO_LEASE: Reason(_PRECONDITION, "NO_LEASE", "The terminal {what} holds no SIM."),
    layout.SIM_IN_USE: Reason(_PRECONDITION, "SIM_IN_USE", "Another terminal holds the SIM: {what}."),
    layout.TERMINAL_IN_USE: Reason(_PRECONDITION, "TERMINAL_IN_USE", "The terminal holds another SIM: {what}."),
    layout.WRONG_STATE: Reason(_PRECONDITION, "WRONG_STATE", "Not possible in the present state: {what}."),
    layout.ICCID_DIFFERS: Reason(_Code.ALREADY_EXISTS, "ICCID_DIFFERS", "The ICCID exists with other data: {what}."),
    layout.DUPLICATE_IMSI: Reason(_Code.ALREADY_EXISTS, "DUPLICATE_IMSI", "Another SIM has the IMSI: {what}."),
    layout.IMPOSSIBLE_USAGE: Reason(
        _Code.INVALID_ARGUMENT,
        "IMPOSSIBLE_USAGE",
        "No line carries so many bytes, or its carrier said more of a window in it: {what}. The figure was set aside.",
    ),
    layout.NO_HEALTHY_SIM: Reason(
        _FULL, "NO_HEALTHY_SIM", "No free healthy SIM with enough headroom serves {what}. Try again later.", 1_000
    ),
    layout.TERMINALS_FULL: Reason(
        _FULL,
        "TERMINALS_FULL",
        "There is no room for another terminal, or no more of it than other access servers have a right to: {what}.",
    ),
    layout.SIMS_FULL: Reason(_FULL, "SIMS_FULL", "There is no room for another SIM: {what}."),
    layout.ORDERS_FULL: Reason(
        _FULL,
        "ORDERS_FULL",
        "Nobody more can be told now to let go of a SIM, for want of room for another order or because the terminal's "
        "earlier SIMs are still held elsewhere: {what}.",
        1_000,
    ),
    layout.JOBS_FULL: Reason(_FULL, "JOBS_FULL", "There is no room for another swap job: {what}.", 5_000),
    layout.ENTITIES_FULL: Reason(_FULL, "ENTITIES_FULL", "There is no room for another definition: {what}."),
    layout.GROUPS_FULL: Reason(_FULL, "GROUPS_FULL", "There is no room for another group of SIMs: {what}."),
    layout.SECOND_PERSON: Reason(
        _PRECONDITION, "SECOND_PERSON", "Who ordered it can't approve it: {what}. Another operator must."
    ),
    layout.DAY_CEILING: Reason(
        _PRECONDITION, "DAY_CEILING", "The terminal was swapped as often today as a terminal may be: {what}."
    ),
    layout.ADMISSION_WAIT: Reason(
        _FULL,
        "ADMISSION_WAIT",
        "More terminals ask there than the access server can attach; the place is kept: {what}.",
    ),
    layout.HELLOS_AWAITED: Reason(
        _FULL,
        "HELLOS_AWAITED",
        "The folder was restored, and not all access servers have said since what they hold, so nobody is given a SIM "
        "anew: {what}. `simswitch status` names those that are waited for. Try again later.",
        1_000,
    ),
    layout.LIMIT_REACHED: Reason(
        _FULL,
        "LIMIT_REACHED",
        "The subscriber has used what the published limit allows: {what}. `simswitch subscriber` explains it.",
    ),
    layout.PAST_WINDOW: Reason(
        _PRECONDITION, "PAST_WINDOW", "The figure is of before its window had begun at all SIMs of the lot: {what}."
    ),
    layout.NO_WINDOW: Reason(
        _PRECONDITION, "NO_WINDOW", "The figure is of a window that its lot has not: {what}. It was set aside."
    ),
    layout.CAP_WAITS: Reason(
        _PRECONDITION,
        "CAP_WAITS",
        "Another cap of the window waits for its instant: {what}. Let it come, or ask to replace it.",
    ),
    layout.NEGATIVE_USAGE: Reason(
        _Code.INVALID_ARGUMENT, "NEGATIVE_USAGE", "A figure is below nothing: {what}. It was set aside."
    ),
    layout.FUTURE_USAGE: Reason(
        _Code.INVALID_ARGUMENT, "FUTURE_USAGE", "A figure is of an instant to come: {what}. It was set aside."
    ),
    layout.COUNT_UNKNOWN: Reason(
        _PRECONDITION, "COUNT_UNKNOWN", "What we had counted by then is not known, history has a gap: {what}."
    ),
    layout.RESTING: Reason(_PRECONDITION, "RESTING", "The terminal was swapped too lately: {what}."),
    layout.SWEEPS_FULL: Reason(_FULL, "SWEEPS_FULL", "Too much work goes on already: {what}. Try again soon.", 1_000),
}


def of_status(status: int, what: str, retry_after_ms: int | None = None) -> Refused:
    """The refusal of a call that has a single item."""
    reason = STATUS_REASONS.get(status)
    if reason is None:
        return Refused(INTERNAL, f"status {status} of {what}")
    return Refused(reason, what, retry_after_ms or None)


def check(status: int, what: str) -> None:
    """Passes what was carried out, refuses the rest."""
    if status >= layout.NOT_PERMITTED:
        raise of_status(status, what)


def refused(error: Exception) -> Refused | None:
    """The refusal that an exception of the layers below stands for; None: nobody foresaw it."""
    match error:
        case Refused():
            return error
        case Malformed() | DecodeError():
            return Refused(MALFORMED, str(error) or "it can't be decoded")
        case ColumnsDiffer():
            return Refused(COLUMNS_DIFFER, str(error))
        case OutOfRange():
            return Refused(INVALID_ARGUMENT, str(error))
        case TooManyItems() | RecordTooLarge():
            return Refused(TOO_MANY_ITEMS, str(error))
        case CellOverloaded():
            return Refused(OVERLOADED)
        case JournalFull():
            return Refused(DISK_FULL, str(error))
        case CellClosed():
            return Refused(DRAINING)
        case CellExpired():
            return Refused(EXPIRED)
        case CellFailed():
            return Refused(FAILED, str(error))
        case _:
            return None

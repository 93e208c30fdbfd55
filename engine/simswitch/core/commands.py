"""The columns of every command and outcome, and how a batch of them is put together.

A batch is a sequence of *runs*. A run is many commands of one kind from one actor: a header, then one column
per field, widest first, so that every column is aligned without padding; the run ends on a multiple of 8.

    run      = | size u32 | kind u16 | access_server u16 | count u32 | actor u32 | argument u64 | columns … | pad |
    outcome  = | size u32 | kind u16 | reserved u16      | count u32 | reserved u32             | columns … | pad |

``access_server`` is the server's number (``NONE_SHORT``: none); ``argument`` means what the kind says: the session for
``SESSION_*``, ``ACKNOWLEDGE`` and ``REPORT_LOAD``, the job for ``JOB_*``, the subscriber group (0: none) for
``ALLOCATE``. An apply's outcomes are the outcome runs in the order of the command runs, then one run of orders
(``ORDERS``) and one of events (``EVENTS``). All numbers are little-endian.
The same bytes are what the journal keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from simswitch.core.layout import (
    ACKNOWLEDGE,
    ADOPT,
    ALLOCATE,
    CAP_CHANGED,
    CARRIER_LIFE,
    CARRIER_USAGE,
    CONFIGURE,
    DECLARE_DEAD,
    DEFINE,
    DOCUMENT_BYTES,
    EXEMPT,
    FREEZE,
    GIVEN_UP_RESOLVE,
    GROW,
    IMPORT_SIMS,
    INFEASIBLE_PROCEED,
    JOB_ADD,
    JOB_APPROVE,
    JOB_CANCEL,
    JOB_CREATE,
    JOB_PAUSE,
    JOB_RESUME,
    MASK,
    NONE_SHORT,
    POOL_USAGE,
    PRIORITY_THROTTLED,
    RELEASE,
    RENEW,
    REPORT_ATTACH_FAILURE,
    REPORT_LOAD,
    REPORT_USAGE,
    RESTART,
    SCHEDULE,
    SERVER_PAUSE,
    SERVER_RESUME,
    SESSION_CLOSE,
    SESSION_HOLDS,
    SESSION_OPEN,
    SESSION_READY,
    SET_CAP,
    SET_HEALTH,
    SWAPS_LIFT,
    SWAPS_STOP,
    THAW,
    TICK,
)

RUN_HEADER = np.dtype(
    [
        ("size", "<u4"),
        ("kind", "<u2"),
        ("access_server", "<u2"),
        ("count", "<u4"),
        ("actor", "<u4"),
        ("argument", "<u8"),
    ]
)
OUTCOME_HEADER = np.dtype(
    [("size", "<u4"), ("kind", "<u2"), ("reserved", "<u2"), ("count", "<u4"), ("reserved2", "<u4")]
)
DEFINITION = np.dtype(
    [
        ("numbers", "<i8", (16,)),
        ("name", "S64"),
        ("kind", "u1"),
        ("reserved", "u1", (5,)),
        ("document_size", "<u2"),
        ("document", "u1", (DOCUMENT_BYTES,)),
    ]
)
ORDERS = 100
"""Kind of the outcome run that lists the orders to send."""
EVENTS = 101
"""Kind of the outcome run that lists what happened to swaps and jobs: ``core/events.pxi``."""

Columns = tuple[tuple[str, str], ...]

_LEASE: Columns = (("terminal", "<u8"), ("epoch", "<u8"))
_STATUS: Columns = (("status", "u1"),)
_GRANT: Columns = (
    ("epoch", "<u8"),
    ("expires_ms", "<u8"),
    ("iccid", "<u8"),
    ("sim", "<u4"),
    ("retry_after_ms", "<u4"),
    # To what speed its subscriber is to be slowed; 0: it is not.
    ("slow_kbps", "<u4"),
    ("bank", "<u2"),
    ("slot", "<u2"),
    ("status", "u1"),
)

COMMAND_COLUMNS: Mapping[int, Columns] = {
    TICK: (),
    # One record of 1,024 bytes an entity; it is defined, or redefined when kind and name exist.
    DEFINE: (("definition", "V1024"),),
    # Opening balances are what each SIM has already used in the window that runs now, up to then (0: nobody has said).
    IMPORT_SIMS: (
        ("iccid", "<u8"),
        ("imsi", "<u8"),
        ("opening_cycle_bytes", "<u8"),
        ("opening_day_bytes", "<u8"),
        ("opening_rolling_bytes", "<u8"),
        ("as_of_s", "<u4"),
        ("lot", "<u2"),
        ("bank", "<u2"),
        ("slot", "<u2"),
        ("health", "u1"),
    ),
    ADOPT: (
        ("terminal", "<u8"),
        ("subscriber", "<u8"),
        ("iccid", "<u8"),
        ("expected_bytes", "<u8"),
        ("market", "<u2"),
    ),
    # What speaks for it, zeros when a person says so: goodput under demand, how many windows showed it, how sure it is.
    SET_HEALTH: (
        ("iccid", "<u8"),
        ("goodput_kbps", "<u4"),
        ("windows", "<u2"),
        ("confidence_permille", "<u2"),
        ("health", "u1"),
    ),
    CONFIGURE: (("value", "<i8"), ("setting", "<u2")),
    GROW: (("sims", "<u8"), ("terminals", "<u8"), ("orders", "<u8")),
    RESTART: (),
    FREEZE: (),
    THAW: (),
    # window: Window; shift: CapShift. amount: bytes from which SIMs are slowed now; of a raised cap those up to which
    # they were seen not to be; of another speed the kbit/s. before: what it was. seen_s: the first evidence, Unix
    # seconds.
    CAP_CHANGED: (
        ("amount", "<u8"),
        ("before", "<u8"),
        ("seen_s", "<u4"),
        ("lot", "<u2"),
        ("window", "u1"),
        ("shift", "u1"),
    ),
    # quota_bytes: the lower bound that is to be used; -1: what the plan says. window: Window; basis: Basis. at_ms: when
    # it comes into force; 0, or an instant that is past: now. With an argument one that is to come takes the place of
    # one that waits.
    SET_CAP: (("quota_bytes", "<i8"), ("at_ms", "<u8"), ("lot", "<u2"), ("window", "u1"), ("basis", "u1")),
    # What a carrier says was used in a window up to as_of_s, Unix seconds, and what we had counted of the SIM by then,
    # over its lifetime; less is on the safe side. window: Window. With an argument the run only says what would be.
    CARRIER_USAGE: (
        ("iccid", "<u8"),
        ("carrier_bytes", "<i8"),
        ("counted_bytes", "<u8"),
        ("straddling_bytes", "<u8"),
        ("as_of_s", "<u4"),
        ("window", "u1"),
    ),
    # The same of all SIMs of a lot together, which share the window: what was counted by then is that of the pool.
    POOL_USAGE: (
        ("carrier_bytes", "<i8"),
        ("counted_bytes", "<u8"),
        ("straddling_bytes", "<u8"),
        ("as_of_s", "<u4"),
        ("lot", "<u2"),
        ("window", "u1"),
    ),
    # When the window next starts anew (of a rolling one a day is over), at once if that is past; 0: nobody knows.
    # spread_ms: over which time its SIMs are spread.
    SCHEDULE: (("at_ms", "<u8"), ("spread_ms", "<u4"), ("lot", "<u2"), ("window", "u1")),
    # lot and bank: NONE_SHORT is every; masked: 1 or 0.
    MASK: (("lot", "<u2"), ("bank", "<u2"), ("masked", "u1")),
    # expected_bytes 0: the market's figure.
    ALLOCATE: (("terminal", "<u8"), ("subscriber", "<u8"), ("expected_bytes", "<u8"), ("market", "<u2")),
    RENEW: _LEASE,
    RELEASE: _LEASE,
    # Bytes are cumulative since the epoch began. What follows is of the span that the report covers, and only kept: how
    # long it was, the sustained rate while more was wanted than went (0: no demand), the share of the span with such
    # demand, and the radio, 1 worst to 5 best. 0 is not told; read a share above 1,000 and a radio above 5 as not told.
    REPORT_USAGE: (
        *_LEASE,
        ("up_bytes", "<u8"),
        ("down_bytes", "<u8"),
        ("span_ms", "<u4"),
        ("goodput_kbps", "<u4"),
        ("demand_permille", "<u2"),
        ("radio", "u1"),
    ),
    REPORT_ATTACH_FAILURE: _LEASE,
    SESSION_OPEN: (),
    SESSION_HOLDS: (*_LEASE, ("iccid", "<u8")),
    SESSION_READY: (),
    SESSION_CLOSE: (),
    ACKNOWLEDGE: (("order", "<u8"), ("result", "u1")),
    # failed_count: allocations given up since the last report, without the engine's doing; only kept.
    REPORT_LOAD: (
        ("queue_wait_us", "<u4"),
        ("service_us", "<u4"),
        ("waiting", "<u4"),
        ("taken_count", "<u4"),
        ("allocation_wait_us", "<u4"),
        ("failed_count", "<u4"),
    ),
    # health_mask: bit 1 << Health, 0 every; lot to server: NONE_SHORT every; headroom_below_bytes: 0 every.
    # selecting: 1 selects by this filter, 0 waits for JOB_ADD. deadline_ms, quiet_from_ms, rate_per_minute and
    # canary_count: 0 none.
    JOB_CREATE: (
        ("reason", "S64"),
        ("deadline_ms", "<u8"),
        ("quiet_from_ms", "<u8"),
        ("quiet_until_ms", "<u8"),
        ("announce_ahead_ms", "<u8"),
        ("headroom_below_bytes", "<u8"),
        ("health_mask", "<u4"),
        ("rate_per_minute", "<u4"),
        ("canary_count", "<u4"),
        ("budget_ppm", "<u4"),
        ("lot", "<u2"),
        ("supplier", "<u2"),
        ("carrier", "<u2"),
        ("sim_class", "<u2"),
        ("bank", "<u2"),
        ("server", "<u2"),
        ("priority", "u1"),
        ("selecting", "u1"),
        ("on_infeasible", "u1"),
        ("dry_run", "u1"),
    ),
    JOB_ADD: (("terminal", "<u8"),),
    JOB_PAUSE: (),
    JOB_RESUME: (),
    JOB_CANCEL: (),
    JOB_APPROVE: (),
    GIVEN_UP_RESOLVE: (("number", "<u8"),),
    SWAPS_STOP: (),
    SWAPS_LIFT: (),
    DECLARE_DEAD: (("undo", "u1"),),
    SERVER_PAUSE: (),
    SERVER_RESUME: (),
    # life: CarrierLife.
    CARRIER_LIFE: (("reason", "S64"), ("iccid", "<u8"), ("life", "u1")),
    # until_ms: when it ends; 0: now, and the reason is not looked at.
    EXEMPT: (("reason", "S64"), ("subscriber", "<u8"), ("until_ms", "<u8")),
}
"""What goes into a run of each kind. A kind without columns has exactly one item."""

OPTIONAL_COLUMNS: Mapping[int, tuple[str, ...]] = {
    ALLOCATE: ("subscriber", "expected_bytes"),
    ADOPT: ("subscriber", "expected_bytes"),
    IMPORT_SIMS: ("opening_cycle_bytes", "opening_day_bytes", "opening_rolling_bytes", "as_of_s", "health"),
    REPORT_USAGE: ("span_ms", "goodput_kbps", "demand_permille", "radio"),
    CARRIER_USAGE: ("straddling_bytes",),
    POOL_USAGE: ("straddling_bytes",),
    REPORT_LOAD: ("failed_count",),
    SET_CAP: ("at_ms",),
}
"""Columns that whoever puts a run together may leave out, here and in messages: they are zeros then."""

OUTCOME_COLUMNS: Mapping[int, Columns] = {
    **dict.fromkeys(COMMAND_COLUMNS, _STATUS),
    DEFINE: (("index", "<u4"), ("status", "u1")),
    IMPORT_SIMS: (("sim", "<u4"), ("status", "u1")),
    ADOPT: _GRANT,
    ALLOCATE: _GRANT,
    REPORT_ATTACH_FAILURE: _GRANT,
    RENEW: (("expires_ms", "<u8"), ("slow_kbps", "<u4"), ("status", "u1")),
    # What the report newly counted (0: nothing), for whom (0: for nobody) and at which SIM (NONE_INDEX: none), none of
    # which goes on the wire; to what speed the subscriber is to be slowed (0: it is not, or the report was not taken).
    REPORT_USAGE: (
        ("counted_bytes", "<u8"),
        ("subscriber", "<u8"),
        ("sim", "<u4"),
        ("slow_kbps", "<u4"),
        ("status", "u1"),
    ),
    # By how much the carrier's figure is above our own count as of the same instant; 0 unless it was taken (OK, SAME).
    # And by how much it is below the carrier's last one of the window that runs; 0: it is not, or that was none.
    CARRIER_USAGE: (("correction_bytes", "<i8"), ("lowered_bytes", "<i8"), ("status", "u1")),
    POOL_USAGE: (("correction_bytes", "<i8"), ("lowered_bytes", "<i8"), ("status", "u1")),
    SESSION_OPEN: (("session", "<u8"), ("status", "u1")),
    JOB_CREATE: (("job", "<u4"), ("status", "u1")),
    ORDERS: (
        ("order", "<u8"),
        ("terminal", "<u8"),
        ("epoch", "<u8"),
        ("deadline_ms", "<u8"),
        ("source_iccid", "<u8"),
        ("target_iccid", "<u8"),
        ("session", "<u4"),
        ("access_server", "<u2"),
        ("target_bank", "<u2"),
        ("target_slot", "<u2"),
        ("kind", "u1"),
    ),
    EVENTS: (
        ("event", "<u8"),
        ("terminal", "<u8"),
        ("subscriber", "<u8"),
        ("a", "<u8"),
        ("b", "<u8"),
        ("job", "<u4"),
        ("access_server", "<u2"),
        ("kind", "u1"),
        ("reason", "u1"),
    ),
}
"""What comes back for each kind, the orders, and the events."""


def _columns_bytes(columns: Columns, count: int) -> int:
    return sum(np.dtype(code).itemsize for _, code in columns) * count


class OutOfRange(ValueError):
    """A number that its column has no room for, such as an enum's that nobody knows."""


def run(
    kind: int,
    count: int = 1,
    /,
    *,
    actor: int = 0,
    access_server: int = NONE_SHORT,
    argument: int = 0,
    **columns: npt.ArrayLike,
) -> bytes:
    """One run of ``count`` commands of ``kind``; each column is an array of that length or a scalar.

    Raises ``ValueError`` when a column is missing that may not be left out, unknown or of another length, and
    ``OutOfRange``.
    """
    layout = COMMAND_COLUMNS[kind]
    given: dict[str, npt.ArrayLike] = {**dict.fromkeys(OPTIONAL_COLUMNS.get(kind, ()), 0), **columns}
    if set(given) != {name for name, _ in layout}:
        raise ValueError(f"command {kind} takes the columns {[name for name, _ in layout]}, not {sorted(columns)}")
    size = RUN_HEADER.itemsize + _columns_bytes(layout, count)
    padded = -(-size // 8) * 8
    header = np.array([(padded, kind, access_server, count, actor, argument)], RUN_HEADER)
    parts: list[bytes | memoryview] = [header.data]
    for name, code in layout:
        try:
            value = np.asarray(given[name], dtype=np.dtype(code))
        except OverflowError as error:
            held = np.iinfo(code)
            raise OutOfRange(f"{name} has to be from {held.min} to {held.max}") from error
        if value.shape != (count,) or not value.flags.c_contiguous:
            value = np.ascontiguousarray(np.broadcast_to(value, (count,)))
        parts.append(value.data)
    parts.append(bytes(padded - size))
    return b"".join(parts)


def job_create(reason: str = "", *, actor: int = 0, **options: Any) -> bytes:
    """A run of one JOB_CREATE. What is not given in ``options`` (its columns) is not asked for."""
    asked: dict[str, Any] = {
        "deadline_ms": 0,
        "quiet_from_ms": 0,
        "quiet_until_ms": 0,
        "announce_ahead_ms": 0,
        "headroom_below_bytes": 0,
        "health_mask": 0,
        "rate_per_minute": 0,
        "canary_count": 0,
        "budget_ppm": 1_000_000,
        "lot": NONE_SHORT,
        "supplier": NONE_SHORT,
        "carrier": NONE_SHORT,
        "sim_class": NONE_SHORT,
        "bank": NONE_SHORT,
        "server": NONE_SHORT,
        "priority": PRIORITY_THROTTLED,
        "selecting": 0,
        "on_infeasible": INFEASIBLE_PROCEED,
        "dry_run": 0,
        **options,
    }
    return run(JOB_CREATE, 1, actor=actor, reason=np.array([reason.encode()], "S64"), **asked)


def set_health(iccids: npt.ArrayLike, health: npt.ArrayLike, *, actor: int = 0, **evidence: npt.ArrayLike) -> bytes:
    """A run of SET_HEALTH. Without ``evidence`` (its columns) a person says so."""
    numbers = np.asarray(iccids, np.uint64)
    columns: dict[str, Any] = {"goodput_kbps": 0, "windows": 0, "confidence_permille": 0, **evidence}
    return run(SET_HEALTH, len(numbers), actor=actor, iccid=numbers, health=health, **columns)


def definition(kind: int, name: str, numbers: Mapping[int, int] | None = None, document: bytes = b"") -> bytes:
    """The 1,024-byte record of ``DEFINE``. Numbers that are not given are -1."""
    encoded = name.encode()
    if not 1 <= len(encoded) <= 64:
        raise ValueError(f"a name has 1 to 64 bytes, {name!r} has {len(encoded)}")
    if len(document) > DOCUMENT_BYTES:
        raise ValueError(f"the description of {name!r} has {len(document)} bytes, more than {DOCUMENT_BYTES}")
    record = np.zeros((), DEFINITION)
    record["numbers"] = -1
    for position, number in (numbers or {}).items():
        record["numbers"][position] = number
    record["name"] = encoded
    record["kind"] = kind
    record["document_size"] = len(document)
    record["document"][: len(document)] = np.frombuffer(document, np.uint8)
    return record.tobytes()


def _places(columns: Columns) -> dict[str, tuple[int, np.dtype[Any]]]:
    """Of each column, the bytes an item that stand before it, and its type."""
    places = {}
    before = 0
    for name, code in columns:
        places[name] = (before, np.dtype(code))
        before += np.dtype(code).itemsize
    return places


_COMMAND_PLACES = {kind: _places(columns) for kind, columns in COMMAND_COLUMNS.items()}
_OUTCOME_PLACES = {kind: _places(columns) for kind, columns in OUTCOME_COLUMNS.items()}


class _Columns:
    """The columns of one run, by name: read-only arrays with one value an item."""

    __slots__ = ("_places", "count", "data", "kind")

    def __init__(self, kind: int, count: int, data: memoryview, places: dict[str, tuple[int, np.dtype[Any]]]) -> None:
        self.kind = kind
        self.count = count
        self.data = data
        self._places = places

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        before, kind = self._places[name]
        return np.frombuffer(self.data, kind, self.count, before * self.count)


class OutcomeRun(_Columns):
    """The outcomes of one run: ``outcome["status"]`` is a read-only array with one value per command."""

    __slots__ = ()

    def __init__(self, kind: int, count: int, data: memoryview) -> None:
        super().__init__(kind, count, data, _OUTCOME_PLACES[kind])


class CommandRun(_Columns):
    """The commands of one run, as a record of the journal holds them."""

    __slots__ = ("access_server", "actor", "argument", "whole")

    def __init__(self, header: Any, whole: memoryview) -> None:
        kind = int(header["kind"])
        super().__init__(kind, int(header["count"]), whole[RUN_HEADER.itemsize :], _COMMAND_PLACES[kind])
        self.access_server = int(header["access_server"])
        self.actor = int(header["actor"])
        self.argument = int(header["argument"])
        self.whole = whole
        """Header and columns."""


def command_runs(batch: bytes | memoryview) -> list[CommandRun]:
    """Splits a batch that an apply has taken. The arrays look into ``batch``."""
    view = memoryview(batch)
    runs = []
    offset = 0
    while offset < len(view):
        header = np.frombuffer(view, RUN_HEADER, 1, offset)[0]
        end = offset + int(header["size"])
        runs.append(CommandRun(header, view[offset:end]))
        offset = end
    return runs


def outcome_runs(data: bytes | memoryview) -> list[OutcomeRun]:
    """Splits the outcomes of one apply. The last two are always those of orders and events (maybe with no items)."""
    view = memoryview(data)
    runs = []
    offset = 0
    while offset < len(view):
        header = np.frombuffer(view, OUTCOME_HEADER, 1, offset)[0]
        end = offset + int(header["size"])
        runs.append(OutcomeRun(int(header["kind"]), int(header["count"]), view[offset + OUTCOME_HEADER.itemsize : end]))
        offset = end
    return runs


def encode_iccid(digits: str) -> int:
    """The number that stands for an ICCID of 19 or 20 digits that begins with 89 (E.118, telecommunication)."""
    if len(digits) not in (19, 20) or not digits.isascii() or not digits.isdigit() or not digits.startswith("89"):
        raise ValueError(f"an ICCID has 19 or 20 digits and begins with 89: {digits!r}")
    return int(digits[2:]) * 2 + (len(digits) == 20)


def decode_iccid(number: int) -> str:
    """The digits of an ICCID; the inverse of :func:`encode_iccid`."""
    return f"89{number >> 1:0{18 if number & 1 else 17}d}"

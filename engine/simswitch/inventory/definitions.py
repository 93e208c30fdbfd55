"""The definitions file: the few things that an inventory is made of, as TOML.

    [suppliers.blue-mobile]            who sells SIMs
    legal_name = "Blue Mobile K.K."    optional
    contact = "noc@blue.example"       optional

    [plans.blue-100]                   the caps of a carrier's offer
    carrier = "blue"
    windows = [                        none, or each kind once
        { kind = "cycle", quota_bytes = 100_000_000_000, speed_after_bits_per_s = 128_000, certainty = "believed" },
        { kind = "rolling", days = 3, quota_bytes = 10_000_000_000, certainty = "contractual" },
    ]                                  pooled = true besides: the SIMs of a lot share that quota
    low_bytes = 2_000_000_000          optional: headroom below which a SIM is low
    exhausted_bytes = 200_000_000      optional: headroom below which it is exhausted
    changes_per_day_max = 4            optional: how often its SIMs may change terminal in a day
    [plans.blue-100.resets]            optional: when its windows start anew; without it nothing resets them
    closing_day = 31                   optional: the cycle's last day, in shorter months the month's last; 1 to 31
    time_zone = "Asia/Tokyo"           optional: whose midnight; UTC without it
    lag_seconds = 7_200                optional: how long after midnight the carrier really does it
    spread_seconds = 3_600             optional: over which time its SIMs come back

    [classes.blue-nationwide]          SIMs that are interchangeable for selection
    carrier = "blue"                   optional
    coverage = "all of Japan"          optional
    reserve_count = 100                optional: free healthy SIMs that swaps never touch

    [markets.tokyo]                    where terminals are
    classes = ["blue-nationwide"]      1 to 12, in order of preference
    expected_bytes = 500_000_000       optional: what a lease is expected to need; it is learned where nothing is said

    [banks.bank-01]                    the hardware that holds cards
    location = "Tokyo 1"               optional
    slots_count = 512                  optional

    [access_servers.as-01]             the machines that give terminals their SIMs
    location = "Tokyo 1"               optional

    [subscriber_groups.brand-a]        who uses terminals
    priority = 1                       optional, 1 to 3: who is admitted first when more ask at once than can be

Every key is checked; one that does not stand here is refused with its line. Names have 1 to 64 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from simswitch.toml_lines import KeyPath, TomlDocument

NAME_BYTES_MAX = 64
CERTAINTIES = ("contractual", "believed", "learned")
WINDOW_KINDS = ("cycle", "day", "rolling")
CLASSES_OF_MARKET_MAX = 12
RESET_SECONDS_MAX = 43_200
_BYTES_MAX = 2**62


@dataclass(frozen=True, slots=True)
class Window:
    """One cap of a plan."""

    kind: str
    quota_bytes: int
    days: int = 0
    speed_after_bits_per_s: int = 0
    certainty: str = "believed"
    pooled: bool = False
    """The SIMs of a lot share it."""


@dataclass(frozen=True, slots=True)
class Supplier:
    name: str
    legal_name: str = ""
    contact: str = ""


@dataclass(frozen=True, slots=True)
class Resets:
    """When the windows of a plan start anew."""

    closing_day: int = 0
    time_zone: str = ""
    lag_seconds: int = 0
    spread_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    name: str
    carrier: str
    windows: tuple[Window, ...] = ()
    low_bytes: int | None = None
    exhausted_bytes: int | None = None
    changes_per_day_max: int = 0
    resets: Resets | None = None


@dataclass(frozen=True, slots=True)
class SimClass:
    name: str
    carrier: str = ""
    coverage: str = ""
    reserve_count: int = 0


@dataclass(frozen=True, slots=True)
class Market:
    name: str
    classes: tuple[str, ...]
    expected_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Bank:
    name: str
    location: str = ""
    slots_count: int = 0


@dataclass(frozen=True, slots=True)
class AccessServer:
    name: str
    location: str = ""


@dataclass(frozen=True, slots=True)
class SubscriberGroup:
    name: str
    priority: int = 2


@dataclass(slots=True)
class Definitions:
    """What a definitions file defines, in its order."""

    suppliers: list[Supplier] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    classes: list[SimClass] = field(default_factory=list)
    markets: list[Market] = field(default_factory=list)
    banks: list[Bank] = field(default_factory=list)
    access_servers: list[AccessServer] = field(default_factory=list)
    subscriber_groups: list[SubscriberGroup] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Everything that is defined."""
        kinds = (
            *(self.suppliers, self.plans, self.classes, self.markets, self.banks),
            *(self.access_servers, self.subscriber_groups),
        )
        return sum(len(kind) for kind in kinds)


def read_definitions(path: Path) -> Definitions:
    """The definitions of a file. Raises ``TomlRefused`` naming the line of the first key that is wrong."""
    return parse_definitions(TomlDocument.read(path))


def parse_definitions(document: TomlDocument) -> Definitions:
    """The definitions of a document that was read already."""
    definitions = Definitions()
    sections = {
        "suppliers": _supplier,
        "plans": _plan,
        "classes": _sim_class,
        "markets": _market,
        "banks": _bank,
        "access_servers": _access_server,
        "subscriber_groups": _subscriber_group,
    }
    for section, tables in document.values.items():
        if section not in sections:
            raise document.refuse((section,), f"no such section; there are {', '.join(sections)}")
        if not isinstance(tables, dict):
            raise document.refuse((section,), f"a table for each name belongs here, such as [{section}.example]")
        for name, values in tables.items():
            path: KeyPath = (section, name)
            if not isinstance(values, dict):
                raise document.refuse(path, f"a table belongs here: [{section}.{name}]")
            if not 1 <= len(name.encode()) <= NAME_BYTES_MAX:
                raise document.refuse(
                    path, f"a name has 1 to {NAME_BYTES_MAX} bytes, this one has {len(name.encode())}"
                )
            table = _Table(document, path, values)
            getattr(definitions, section).append(sections[section](name, table))
            table.refuse_unknown()
    return definitions


class _Table:
    """One table, from which each key is taken once with its type and range."""

    def __init__(self, document: TomlDocument, path: KeyPath, values: Mapping[str, Any]) -> None:
        self.document = document
        self.path = path
        self._values = dict(values)
        self._known: list[str] = []

    def text(self, key: str, default: str | None = "") -> str:
        value = self._take(key, default)
        if not isinstance(value, str):
            raise self.refuse(key, "text in quotes belongs here")
        return value

    def choice(self, key: str, choices: tuple[str, ...], default: str | None) -> str:
        value = self.text(key, default)
        if value not in choices:
            raise self.refuse(key, f"one of {', '.join(choices)} belongs here, not {value!r}")
        return value

    def number(self, key: str, default: int | None, least: int, most: int) -> int:
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.refuse(key, f"a whole number from {least:,} to {most:,} belongs here, not {value!r}")
        return value

    def flag(self, key: str) -> bool:
        value = self._take(key, False)
        if not isinstance(value, bool):
            raise self.refuse(key, f"true or false belongs here, not {value!r}")
        return value

    def optional_number(self, key: str, least: int, most: int) -> int | None:
        if key not in self._values:
            self._known.append(key)
            return None
        return self.number(key, None, least, most)

    def optional_table(self, key: str) -> Mapping[str, Any] | None:
        if key not in self._values:
            self._known.append(key)
            return None
        value = self._take(key, None)
        if not isinstance(value, dict):
            raise self.refuse(key, "a table belongs here")
        return value

    def items(self, key: str) -> list[Any]:
        value = self._take(key, [])
        if not isinstance(value, list):
            raise self.refuse(key, "a list in square brackets belongs here")
        return value

    def refuse(self, key: str, text: str) -> Exception:
        return self.document.refuse((*self.path, key), text)

    def refuse_unknown(self) -> None:
        for key in self._values:
            raise self.refuse(key, f"no such key; there are {', '.join(self._known)}")

    def _take(self, key: str, default: Any) -> Any:
        self._known.append(key)
        if key in self._values:
            return self._values.pop(key)
        if default is None:
            raise self.document.refuse(self.path, f"the key {key} is missing")
        return default


def _supplier(name: str, table: _Table) -> Supplier:
    return Supplier(name, table.text("legal_name"), table.text("contact"))


def _plan(name: str, table: _Table) -> Plan:
    carrier = table.text("carrier", None)
    windows = tuple(_window(table, position, value) for position, value in enumerate(table.items("windows")))
    kinds = [window.kind for window in windows]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise table.refuse("windows", f"the window {kind} stands twice")
    low_bytes = table.optional_number("low_bytes", 0, _BYTES_MAX)
    exhausted_bytes = table.optional_number("exhausted_bytes", 0, _BYTES_MAX)
    if low_bytes is not None and exhausted_bytes is not None and exhausted_bytes > low_bytes:
        raise table.refuse(
            "exhausted_bytes", f"this lies above low_bytes ({low_bytes:,}): a SIM is low before it is exhausted"
        )
    changes = table.number("changes_per_day_max", 0, 0, 255)
    return Plan(name, carrier, windows, low_bytes, exhausted_bytes, changes, _resets(table))


def _resets(table: _Table) -> Resets | None:
    values = table.optional_table("resets")
    if values is None:
        return None
    inner = _Table(table.document, (*table.path, "resets"), values)
    resets = Resets(
        inner.number("closing_day", 0, 0, 31),
        inner.text("time_zone"),
        inner.number("lag_seconds", 0, 0, RESET_SECONDS_MAX),
        inner.number("spread_seconds", 0, 0, RESET_SECONDS_MAX),
    )
    inner.refuse_unknown()
    try:
        ZoneInfo(resets.time_zone or "UTC")
    except (KeyError, ValueError, OSError) as error:
        raise inner.refuse("time_zone", "the name of a time zone belongs here, such as Asia/Tokyo") from error
    return resets


def _window(table: _Table, position: int, value: Any) -> Window:
    path: KeyPath = (*table.path, "windows", position)
    if not isinstance(value, dict):
        raise table.document.refuse(path, 'a table in braces belongs here, such as { kind = "cycle", quota_bytes = 1 }')
    inner = _Table(table.document, path, value)
    kind = inner.choice("kind", WINDOW_KINDS, None)
    window = Window(
        kind,
        inner.number("quota_bytes", None, 0, _BYTES_MAX),
        inner.number(
            "days", None if kind == "rolling" else 0, 1 if kind == "rolling" else 0, 366 if kind == "rolling" else 0
        ),
        inner.number("speed_after_bits_per_s", 0, 0, 10**12),
        inner.choice("certainty", CERTAINTIES, "believed"),
        inner.flag("pooled"),
    )
    inner.refuse_unknown()
    return window


def _sim_class(name: str, table: _Table) -> SimClass:
    return SimClass(name, table.text("carrier"), table.text("coverage"), table.number("reserve_count", 0, 0, 2**31))


def _market(name: str, table: _Table) -> Market:
    classes = table.items("classes")
    if not 1 <= len(classes) <= CLASSES_OF_MARKET_MAX or not all(isinstance(entry, str) for entry in classes):
        raise table.refuse(
            "classes", f"1 to {CLASSES_OF_MARKET_MAX} names of classes belong here, the preferred one first"
        )
    return Market(name, tuple(classes), table.optional_number("expected_bytes", 0, _BYTES_MAX))


def _bank(name: str, table: _Table) -> Bank:
    return Bank(name, table.text("location"), table.number("slots_count", 0, 0, 65_536))


def _access_server(name: str, table: _Table) -> AccessServer:
    return AccessServer(name, table.text("location"))


def _subscriber_group(name: str, table: _Table) -> SubscriberGroup:
    return SubscriberGroup(name, table.number("priority", 2, 1, 3))

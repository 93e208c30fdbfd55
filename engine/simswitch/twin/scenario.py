"""Scenarios: what the world outside the engine is like. This is the one place where their schema is documented.

A scenario is a TOML file. Every key that is not listed here is refused, and every refusal names the file and the line.

    seed = 1                     all randomness comes from it; the same seed gives the same result, bit for bit
    start = 2020-02-21T06:00:00+09:00    the instant at which virtual time begins, with its offset
    duration_s = 14400           how long to replay
    also_on = [2020-02-24]       later dates on which the same happens again, with other draws: for ``record`` only
    quantum_ms = 100             1 to 10,000. How long requests to the engine gather (events keep their exact instants)
    policies = ["unbounded", "fixed", "engine"]     the ways of switching in bulk to compare; "none" never does: what
                                 happens without it

    [fixed]                      of the policy of that name: at each access server ...
    n = 200                      ... so many switches at once ...
    gap_seconds = 60             ... and again after each gap

    [engine]                     settings of the engine; what is not given keeps the engine's default
    lease_s, cooling_s, order_deadline_s, swap_cool_down_s, retry_after_s, attempts_max, unknown_ask_s, fencing_s,
    automatic_swaps              0 (the default here) to 3, see the service's settings
    admission_queue_s            0 (the default here): nobody is told to wait
    breaker_share                of failed swaps at which a circuit breaker opens; 1: never

    [[plans]]
    name = "..."
    quota_cycle_gb, quota_day_gb, quota_rolling_gb    caps in 10^9 bytes; not given: this window has no cap
    rolling_days                 needed with quota_rolling_gb

    [[classes]]                  SIMs that are interchangeable
    name = "..."
    reserve = 0                  free healthy SIMs that switches never touch

    [[lots]]
    name, supplier, plan, class  text; plan and class are names of the above
    sims = 1000                  how many
    banks = 1                    over how many banks they are spread

    [[markets]]
    name = "..."
    classes = ["..."]            in order of preference, 1 to 12
    expected_mb                  expected use of a lease in 10^6 bytes; not given: the engine's floor

    [[access_servers]]           a group of servers that are alike
    name = "..."
    count = 1
    operations_per_s = 50.0      an allocation and a switch each take one operation
    client_timeout_s = 10.0      after which the caller of an allocation gives up: it has failed
    retry_pause_s = 10.0         after which a terminal whose allocation failed asks again
    switch_outage_s = 20.0       how long a switching terminal has no line, at least ...
    switch_outage_spread_s = 0.0 ... and how much longer, at most (uniform, drawn per switch)
    switch_refused_share = 0.0   share of switches that the terminal refuses
    asks = "after"               the engine is asked for a SIM after the operation of an allocation, or "first": then a
                                 terminal may be told when to come back (admission_queue_s), and comes
    busy_queue_operations        queued operations above which an order of the engine is answered BUSY; not given: never

    [[terminals]]                a group of terminals that are alike
    count = 10000
    market = "..."
    access_servers = "..."       the group that they are spread over
    on_at_start_share = 0.0      share that is on, with a SIM, when the scenario begins
    sessions_count = 1           how often each turns on
    session_mean_s = 3600.0      mean length of a session (exponential)
    arrival = "uniform"          "uniform", "peak" (triangular, highest at arrival_peak_s) or "diurnal" (a day's
                                 rhythm, 1 + 0.8 cos: lowest at 04:30 by the offset of start, highest at 16:30)
    arrival_from_s = 0.0         sessions begin between these
    arrival_until_s              not given: the duration
    arrival_peak_s               of "peak"
    bytes_per_hour = 50_000_000  median use while on
    bytes_sigma = 0.0            of its logarithm, over terminals: 1.681 reproduces a market of unlimited plans
    report_interval_s = 600.0    between usage reports, which renew the lease

    [[events]]                   at_s and kind, then by kind:
    kind = "slow"                the carrier slows SIMs of a lot:  lot, share or count, slowed_kbps = 128,
                                 observed_after_s = 0 (then the SIMs are set to throttled in the engine)
    kind = "speed"               access servers become slower or faster:  access_servers, operations_per_s
    kind = "switch"              the operator orders all terminals on throttled SIMs to be switched, or all on a lot's:
                                 lot; for the engine also canary, error_budget (share), rate_per_minute,
                                 announce_ahead_s. Drivers can be given one order in a scenario, the engine any number
    kind = "stop"                access servers do nothing and say nothing; their queues stand: access_servers, for_s
    kind = "restart"             access servers go with their sessions and queues, and say hello after for_s
    kind = "disconnect"          access servers lose their sessions, and say hello after for_s
    kind = "busy"                access servers answer every switch BUSY: access_servers, for_s
    kind = "lose"                a share of acknowledgements is lost on the way: access_servers, for_s, share
                                 All five: server = 2 is only the second of the group
    kind = "bad"                 switches to SIMs of a lot fail: lot, for_s, share = 1.0
    kind = "dead"                an access server is gone for good and its terminals ask at the group's others:
                                 access_servers, server, and declared_after_s until the operator says so to the engine
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simswitch.toml_lines import KeyPath, TomlDocument, TomlRefused

POLICIES = ("unbounded", "fixed", "engine", "none")
FAULTS = ("stop", "restart", "disconnect", "busy", "lose")
TERMINALS_MAX = 20_000_000
SIMS_MAX = 20_000_000
SERVERS_MAX = 4_096
QUANTA_MAX = 200_000_000
SESSIONS_MAX = 200_000_000
DAYS_QUANTUM_MS = 500


class ScenarioError(ValueError):
    """A scenario that cannot be replayed: file, line, and what is wrong with it."""

    def __init__(self, file: str, line: int, text: str) -> None:
        super().__init__(f"{file}:{line}: {text}")
        self.file = file
        self.line = line
        self.text = text


@dataclass(frozen=True)
class Plan:
    name: str
    quota_cycle_gb: float | None
    quota_day_gb: float | None
    quota_rolling_gb: float | None
    rolling_days: int | None
    pooled: bool = False
    """The SIMs of a lot share its quotas."""


@dataclass(frozen=True)
class SimClass:
    name: str
    reserve: int


@dataclass(frozen=True)
class Lot:
    name: str
    supplier: str
    plan: str
    sim_class: str
    sims: int
    banks: int


@dataclass(frozen=True)
class Market:
    name: str
    classes: tuple[str, ...]
    expected_mb: float | None


@dataclass(frozen=True)
class AccessServers:
    name: str
    count: int
    operations_per_s: float
    client_timeout_s: float
    retry_pause_s: float
    switch_outage_s: float
    switch_outage_spread_s: float
    switch_refused_share: float
    busy_queue_operations: int | None
    asks_first: bool


@dataclass(frozen=True)
class Terminals:
    count: int
    market: str
    access_servers: str
    on_at_start_share: float
    sessions_count: int
    session_mean_s: float
    arrival: str
    arrival_from_s: float
    arrival_until_s: float
    arrival_peak_s: float
    bytes_per_hour: int
    bytes_sigma: float
    report_interval_s: float


@dataclass(frozen=True)
class Slow:
    at_s: float
    lot: str
    share: float | None
    count: int | None
    slowed_kbps: int
    observed_after_s: float


@dataclass(frozen=True)
class Speed:
    at_s: float
    access_servers: str
    operations_per_s: float


@dataclass(frozen=True)
class Switch:
    at_s: float
    lot: str | None = None
    canary: int | None = None
    error_budget: float | None = None
    rate_per_minute: int | None = None
    announce_ahead_s: float = 0.0


@dataclass(frozen=True)
class Fault:
    """One of FAULTS."""

    at_s: float
    kind: str
    access_servers: str
    server: int | None
    """From 1; None: all of the group."""
    for_s: float
    share: float


@dataclass(frozen=True)
class Bad:
    at_s: float
    lot: str
    for_s: float
    share: float


@dataclass(frozen=True)
class Dead:
    at_s: float
    access_servers: str
    server: int
    declared_after_s: float


Event = Slow | Speed | Switch | Fault | Bad | Dead


@dataclass(frozen=True)
class Scenario:
    name: str
    seed: int
    start: datetime.datetime
    duration_s: float
    quantum_ms: int
    policies: tuple[str, ...]
    fixed_n: int
    fixed_gap_seconds: float
    engine: Mapping[str, float]
    plans: tuple[Plan, ...]
    classes: tuple[SimClass, ...]
    lots: tuple[Lot, ...]
    markets: tuple[Market, ...]
    access_servers: tuple[AccessServers, ...]
    terminals: tuple[Terminals, ...]
    events: tuple[Event, ...]
    also_on: tuple[datetime.date, ...] = ()

    def days(self) -> list[Scenario]:
        """The scenario on each of its dates. The draws of a later one come from a seed of its own.

        What is said gathers for half a second at least: who asks for this wants figures by the minute.
        """
        first = self.start.date()
        quantum_ms = max(self.quantum_ms, DAYS_QUANTUM_MS)
        return [
            replace(self, seed=self.seed + (day - first).days, start=self.start + (day - first), quantum_ms=quantum_ms)
            for day in (first, *self.also_on)
        ]


class Table:
    """A table of the document while it is read: each key once, then ``finish`` refuses what is left."""

    def __init__(self, document: TomlDocument, path: KeyPath, values: dict[str, Any]) -> None:
        self.document = document
        self.path = path
        self.values = values
        self._read: set[str] = set()

    def refuse(self, text: str, key: str | None = None) -> ScenarioError:
        path = self.path if key is None else (*self.path, key)
        # What the document as a whole lacks has no line of its own: its first one is named.
        return ScenarioError(str(self.document.file), self.document.line(path) or 1, text)

    def _take(self, key: str, default: Any, required: bool) -> Any:
        self._read.add(key)
        if key in self.values:
            return self.values[key]
        if required:
            where = (
                f"[{'.'.join(str(part) for part in self.path if isinstance(part, str))}]" if self.path else "the file"
            )
            raise self.refuse(f"{where} lacks {key!r}")
        return default

    def maybe_number(self, key: str, low: float, high: float) -> float | None:
        value = self._take(key, None, False)
        if value is None:
            return None
        # NaN compares false with everything, so it is refused here too.
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.refuse(f"{key} is a number from {low:g} to {high:g}, not {value!r}", key)
        return float(value)

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        value = self.maybe_number(key, low, high)
        if value is None:
            return float(self._take(key, default, default is None))
        return value

    def maybe_integer(self, key: str, low: int, high: int) -> int | None:
        value = self._take(key, None, False)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refuse(f"{key} is a whole number from {low} to {high}, not {value!r}", key)
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self.maybe_integer(key, low, high)
        if value is None:
            return int(self._take(key, default, default is None))
        return value

    def flag(self, key: str) -> bool:
        value = self._take(key, False, required=False)
        if not isinstance(value, bool):
            raise self.refuse(f"{key} has to be true or false, not {value!r}", key)
        return value

    def text(self, key: str, choices: tuple[str, ...] = (), default: str | None = None) -> str:
        value = self._take(key, default, default is None)
        if not isinstance(value, str) or not 1 <= len(value.encode()) <= 56:
            raise self.refuse(f"{key} is a text of 1 to 56 bytes, not {value!r}", key)
        if choices and value not in choices:
            raise self.refuse(f"{key} is one of {', '.join(choices)}, not {value!r}", key)
        return value

    def texts(self, key: str, choices: tuple[str, ...], most: int, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        value = self._take(key, default, not default)
        if (
            not isinstance(value, list | tuple)
            or not 1 <= len(value) <= most
            or len(set(map(str, value))) != len(value)
        ):
            raise self.refuse(f"{key} is a list of 1 to {most} different names", key)
        for name in value:
            if name not in choices:
                raise self.refuse(f"{key} may name {', '.join(choices)}, not {name!r}", key)
        return tuple(value)

    def instant(self, key: str) -> datetime.datetime:
        value = self._take(key, None, True)
        if not isinstance(value, datetime.datetime) or value.tzinfo is None or not 1971 <= value.year <= 2200:
            raise self.refuse(f"{key} is a date and time with its offset, such as 2020-02-21T06:00:00+09:00", key)
        return value

    def dates(self, key: str, after: datetime.date) -> tuple[datetime.date, ...]:
        value = self._take(key, [], False)
        last = after
        for day in value if isinstance(value, list) else [None]:
            # An instant is a date too, in Python only.
            if not isinstance(day, datetime.date) or isinstance(day, datetime.datetime) or day <= last:
                raise self.refuse(f"{key} is a list of dates such as 2020-02-24, each after {last}", key)
            last = day
        return tuple(value)

    def table(self, key: str) -> Table:
        value = self._take(key, {}, False)
        if not isinstance(value, dict):
            raise self.refuse(f"{key} is a table: [{key}]", key)
        return Table(self.document, (*self.path, key), value)

    def tables(self, key: str, required: bool = True) -> list[Table]:
        value = self._take(key, [], required)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value) or (required and not value):
            raise self.refuse(f"{key} is a list of tables: [[{key}]]", key)
        return [Table(self.document, (*self.path, key, index), item) for index, item in enumerate(value)]

    def finish(self) -> None:
        for key in self.values:
            if key not in self._read:
                known = ", ".join(sorted(self._read))
                raise self.refuse(f"there is no key {key!r} here; known are {known}", key)


def _unique(tables: list[Table], kind: str) -> tuple[str, ...]:
    names: list[str] = []
    for table in tables:
        name = table.text("name")
        if name in names:
            raise table.refuse(f"a second {kind} is called {name!r}", "name")
        names.append(name)
    return tuple(names)


_SETTINGS = {
    "lease_s": (1.0, 1e7),
    "cooling_s": (0.0, 1e7),
    "order_deadline_s": (1.0, 1e6),
    "swap_cool_down_s": (0.0, 1e7),
    "retry_after_s": (0.001, 1e5),
    "attempts_max": (1.0, 100.0),
    "unknown_ask_s": (1.0, 1e5),
    "fencing_s": (1.0, 1e6),
    "automatic_swaps": (0.0, 3.0),
    "admission_queue_s": (0.0, 600.0),
    "breaker_share": (0.000001, 1.0),
}


def _read_plan(table: Table) -> Plan:
    plan = Plan(
        table.text("name"),
        table.maybe_number("quota_cycle_gb", 0.001, 1e6),
        table.maybe_number("quota_day_gb", 0.001, 1e6),
        table.maybe_number("quota_rolling_gb", 0.001, 1e6),
        table.maybe_integer("rolling_days", 2, 31),
    )
    if (plan.quota_rolling_gb is None) != (plan.rolling_days is None):
        raise table.refuse("quota_rolling_gb and rolling_days go together")
    table.finish()
    return plan


def _read_servers(table: Table) -> AccessServers:
    servers = AccessServers(
        table.text("name"),
        table.integer("count", 1, SERVERS_MAX, 1),
        table.number("operations_per_s", 0.01, 1e6),
        table.number("client_timeout_s", 0.01, 3600),
        table.number("retry_pause_s", 0.01, 86400),
        table.number("switch_outage_s", 0.001, 3600),
        table.number("switch_outage_spread_s", 0.0, 3600, 0.0),
        table.number("switch_refused_share", 0.0, 1.0, 0.0),
        table.maybe_integer("busy_queue_operations", 0, 1_000_000),
        table.text("asks", ("after", "first"), "after") == "first",
    )
    table.finish()
    return servers


def _read_terminals(table: Table, markets: tuple[str, ...], servers: tuple[str, ...], duration_s: float) -> Terminals:
    begin_s = table.number("arrival_from_s", 0.0, duration_s, 0.0)
    until_s = table.number("arrival_until_s", 0.0, duration_s, duration_s)
    if until_s <= begin_s:
        raise table.refuse("arrival_until_s is after arrival_from_s", "arrival_until_s")
    arrival = table.text("arrival", ("uniform", "peak", "diurnal"), "uniform")
    peak_s = table.maybe_number("arrival_peak_s", begin_s, until_s)
    if (arrival == "peak") != (peak_s is not None):
        raise table.refuse('arrival_peak_s goes with arrival = "peak"', "arrival_peak_s")
    terminals = Terminals(
        table.integer("count", 1, TERMINALS_MAX),
        table.text("market", markets),
        table.text("access_servers", servers),
        table.number("on_at_start_share", 0.0, 1.0, 0.0),
        table.integer("sessions_count", 0, 1000, 1),
        table.number("session_mean_s", 1.0, 1e7),
        arrival,
        begin_s,
        until_s,
        begin_s if peak_s is None else peak_s,
        table.integer("bytes_per_hour", 0, 10**12),
        table.number("bytes_sigma", 0.0, 4.0, 0.0),
        table.number("report_interval_s", 1.0, 1e6),
    )
    table.finish()
    return terminals


def _read_event(
    table: Table, lots: Mapping[str, Lot], servers: Mapping[str, AccessServers], duration_s: float
) -> Event:
    at_s = table.number("at_s", 0.0, duration_s)
    kind = table.text("kind", ("slow", "speed", "switch", *FAULTS, "bad", "dead"))
    event: Event
    if kind == "slow":
        lot = table.text("lot", tuple(lots))
        share = table.maybe_number("share", 0.0, 1.0)
        count = table.maybe_integer("count", 0, lots[lot].sims)
        if (share is None) == (count is None):
            raise table.refuse("slow takes either share or count")
        kbps = table.integer("slowed_kbps", 0, 10**6, 128)
        event = Slow(at_s, lot, share, count, kbps, table.number("observed_after_s", 0.0, duration_s, 0.0))
    elif kind == "speed":
        event = Speed(at_s, table.text("access_servers", tuple(servers)), table.number("operations_per_s", 0.01, 1e6))
    elif kind == "switch":
        event = Switch(
            at_s,
            table.text("lot", tuple(lots)) if "lot" in table.values else None,
            table.maybe_integer("canary", 1, 10**9),
            table.maybe_number("error_budget", 0.0, 1.0),
            table.maybe_integer("rate_per_minute", 1, 10**6),
            table.number("announce_ahead_s", 0.0, 86_400.0, 0.0),
        )
    elif kind == "bad":
        lot = table.text("lot", tuple(lots))
        event = Bad(at_s, lot, table.number("for_s", 0.001, 1e8), table.number("share", 0.0, 1.0, 1.0))
    else:
        group = servers[table.text("access_servers", tuple(servers))]
        place = table.maybe_integer("server", 1, group.count)
        if kind == "dead":
            if place is None or group.count < 2:
                raise table.refuse("dead names one server of a group of several, from 1")
            event = Dead(at_s, group.name, place, table.number("declared_after_s", 0.0, 1e8))
        else:
            share = table.number("share", 0.0, 1.0) if kind == "lose" else 1.0
            event = Fault(at_s, kind, group.name, place, table.number("for_s", 0.001, 1e8), share)
    table.finish()
    return event


def parse(text: str, name: str, file: str = "<scenario>") -> Scenario:
    """Reads and checks the text of a scenario. Raises ``ScenarioError``."""
    try:
        document = TomlDocument(text, file)
    except TomlRefused as refusal:
        raise _refused(refusal) from refusal
    return _parse(document, name)


def _refused(refusal: TomlRefused) -> ScenarioError:
    return ScenarioError(refusal.file, refusal.line, refusal.text)


def _parse(document: TomlDocument, name: str) -> Scenario:
    root = Table(document, (), document.values)
    seed = root.integer("seed", 0, 2**63 - 1)
    start = root.instant("start")
    also_on = root.dates("also_on", start.date())
    duration_s = root.number("duration_s", 1.0, 1e8)
    quantum_ms = root.integer("quantum_ms", 1, 10_000, 100)
    if duration_s * 1000 / quantum_ms > QUANTA_MAX:
        raise root.refuse(f"that is more than {QUANTA_MAX} quanta: raise quantum_ms", "quantum_ms")
    policies = root.texts("policies", POLICIES, len(POLICIES), POLICIES[:3])
    fixed = root.table("fixed")
    fixed_n = fixed.integer("n", 1, 10**9, 200)
    fixed_gap_seconds = fixed.number("gap_seconds", 0.001, 1e6, 60.0)
    fixed.finish()
    engine = root.table("engine")
    settings: dict[str, float] = {}
    for key, (low, high) in _SETTINGS.items():
        setting = engine.maybe_number(key, low, high)
        if setting is not None:
            settings[key] = setting
    engine.finish()

    tables = root.tables("plans")
    plan_names = _unique(tables, "plan")
    plans = tuple(_read_plan(table) for table in tables)

    tables = root.tables("classes")
    class_names = _unique(tables, "class")
    classes = []
    for table in tables:
        classes.append(SimClass(table.text("name"), table.integer("reserve", 0, SIMS_MAX, 0)))
        table.finish()

    tables = root.tables("lots")
    _unique(tables, "lot")
    lots: dict[str, Lot] = {}
    for table in tables:
        lot = Lot(
            table.text("name"),
            table.text("supplier"),
            table.text("plan", plan_names),
            table.text("class", class_names),
            table.integer("sims", 1, SIMS_MAX),
            table.integer("banks", 1, 1000, 1),
        )
        table.finish()
        lots[lot.name] = lot
    if sum(lot.sims for lot in lots.values()) > SIMS_MAX:
        raise root.refuse(f"there are more than {SIMS_MAX} SIMs", "lots")

    tables = root.tables("markets")
    market_names = _unique(tables, "market")
    markets = []
    for table in tables:
        served_by = table.texts("classes", class_names, 12)
        markets.append(Market(table.text("name"), served_by, table.maybe_number("expected_mb", 0.0, 1e6)))
        table.finish()

    tables = root.tables("access_servers")
    server_names = _unique(tables, "group of access servers")
    servers = tuple(_read_servers(table) for table in tables)
    if sum(group.count for group in servers) > SERVERS_MAX:
        raise root.refuse(f"there are more than {SERVERS_MAX} access servers", "access_servers")

    tables = root.tables("terminals")
    terminals = tuple(_read_terminals(table, market_names, server_names, duration_s) for table in tables)
    for table, group in zip(tables, terminals, strict=True):
        if "lease_s" in settings and group.report_interval_s >= settings["lease_s"]:
            raise table.refuse("reports renew the lease: report_interval_s is below lease_s", "report_interval_s")
        if group.report_interval_s * 1000 < quantum_ms:
            raise table.refuse("report_interval_s is at least a quantum", "report_interval_s")
    if sum(group.count for group in terminals) > TERMINALS_MAX:
        raise root.refuse(f"there are more than {TERMINALS_MAX} terminals", "terminals")
    if sum(group.count * group.sessions_count for group in terminals) > SESSIONS_MAX:
        raise root.refuse(f"there are more than {SESSIONS_MAX} sessions", "terminals")

    tables = root.tables("events", required=False)
    by_name = {group.name: group for group in servers}
    events = tuple(_read_event(table, lots, by_name, duration_s) for table in tables)
    switches = [table for table, event in zip(tables, events, strict=True) if isinstance(event, Switch)]
    if len(switches) > 1 and not {"unbounded", "fixed"}.isdisjoint(policies):
        raise switches[1].refuse("a second bulk switch: only the engine, or none, can be given two")
    root.finish()
    return Scenario(
        name,
        seed,
        start,
        duration_s,
        quantum_ms,
        policies,
        fixed_n,
        fixed_gap_seconds,
        settings,
        plans,
        tuple(classes),
        tuple(lots.values()),
        tuple(markets),
        servers,
        terminals,
        events,
        also_on,
    )


def load(path: str | Path) -> Scenario:
    """Reads a scenario file. Raises ``ScenarioError``, and ``OSError`` when the file cannot be read."""
    file = Path(path)
    try:
        document = TomlDocument.read(file)
    except TomlRefused as refusal:
        raise _refused(refusal) from refusal
    return _parse(document, file.stem)

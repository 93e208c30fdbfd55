"""The settings of the service and of the command line: one TOML file, every setting in one table.

``SETTINGS`` below is the only list: what a setting is called, what it means, its default and its bounds. The example
file (``simswitch config --example``), the validation and the documentation all come from it. A key that isn't in the
table is refused, with file and line; so is a value of another type or out of bounds.

The section ``engine`` is special: its values live in the engine's state, not in the process. One that stands in the
file is set when the service starts; one that doesn't is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from simswitch.toml_lines import TomlDocument

Value = int | str | bool


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting."""

    section: str
    name: str
    default: Value | None
    """None: what the engine's state says is left as it is."""
    text: str
    least: int = 0
    most: int = 0
    example: Value | None = None
    """Shown in the example file where there is no default."""
    choices: tuple[str, ...] = ()
    """The only texts that there are."""


_DAY_MS = 86_400_000
_GIB = 1 << 30

SECTIONS: Final[Mapping[str, str]] = {
    "service": "Where the service listens, and where the other commands look for it.",
    "tls": "What the service proves itself with. Files in PEM, read anew when they change.",
    "access": "How callers prove who they are.",
    "doors": "How much may come in at a time, and how long it may take. Past these bounds a call is refused with a "
    "reason, or its connection ended.",
    "connection": "What the other commands prove themselves with. Options of the same names count before these.",
    "capacity": "What memory is taken for at the start. It can be raised later, and never shrinks.",
    "journal": "How the journal lies on the disk.",
    "queue": "Calls that wait for the engine. Past these bounds a call is refused at once, and told when to try again.",
    "follower": "The process beside the service that checks the journal all the time and makes the snapshots.",
    "learner": "The process beside the service that learns what carriers allow. It needs the extra simswitch[caps].",
    "metrics": "Where figures for Prometheus are told, over HTTP and to anybody who asks. It needs the extra "
    "simswitch[metrics].",
    "engine": "How the engine decides. Without a value here the engine keeps the one that it has.",
}

SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "service",
        "address",
        "127.0.0.1:7467",
        "Host and port. Without TLS only loopback is accepted. Port 0 takes a free one, which is shown and written to "
        "the file 'address' in the data folder.",
    ),
    Setting(
        "service",
        "transport",
        "grpcio",
        "What carries the calls. native answers many more a second, and needs the extra simswitch[native].",
        choices=("grpcio", "native"),
    ),
    Setting(
        "service",
        "away_hours",
        24,
        "A start so long after the last record is believed. After more, by the machine's clock, nothing expires until "
        "'simswitch clock confirm'. 0: any start is believed.",
        0,
        87_600,
    ),
    Setting("service", "actor", "operator:local", "Who the commands act as: a role and a name."),
    Setting(
        "tls",
        "certificate",
        None,
        "The service's certificate. With it the service speaks TLS only.",
        example="tls/server.pem",
    ),
    Setting("tls", "key", None, "Its key, without a password.", example="tls/server.key"),
    Setting(
        "tls",
        "client_ca",
        None,
        "Who signs the access servers' certificates, and no others; several while it is changed. With TLS nobody comes "
        "in at 'address' without such a certificate, so it goes with 'certificate'.",
        example="tls/access-servers-ca.pem",
    ),
    Setting(
        "tls",
        "revoked",
        None,
        "Certificates of access servers that count no more: SHA-256 fingerprints, one a line. Without the file the "
        "service does not start; where none is revoked it is empty.",
        example="tls/revoked.txt",
    ),
    Setting(
        "tls",
        "people_address",
        None,
        "Host and port where people come with tokens and without certificates.",
        example="0.0.0.0:7468",
    ),
    Setting(
        "access",
        "required",
        False,
        "Nobody is believed without proof. With TLS it is always so; without it no access server could come in, so "
        "the service does not start.",
    ),
    Setting("access", "people_calls_per_s", 200, "Calls a second of a person with a token; 0: any number.", 0, 1 << 20),
    Setting(
        "access",
        "access_server_calls_per_s",
        20_000,
        "Calls a second of one access server with a certificate, 100 items as another call; 0: any number.",
        0,
        1 << 20,
    ),
    Setting("doors", "connections_max", 8_192, "Connections at 'address'.", 16, 65_536),
    Setting("doors", "people_connections_max", 1_024, "Connections at 'people_address'.", 16, 65_536),
    Setting(
        "doors",
        "connections_per_address",
        256,
        "Connections from one address (IPv6: one network of 64 bits) where callers prove who they are; 0: any number. "
        "127.0.0.1 and ::1 are not counted.",
        0,
        65_536,
    ),
    Setting(
        "doors",
        "connections_per_identity",
        64,
        "Connections on which one certificate's or token's owner makes calls; 0: any number.",
        0,
        65_536,
    ),
    Setting("doors", "handshake_ms", 10_000, "By when a new connection has to be ready for calls.", 500, 60_000),
    Setting("doors", "calls_per_identity", 1_024, "Calls of one identity under way at a time.", 16, 65_536),
    Setting(
        "doors",
        "bytes_per_identity",
        32 << 20,
        "Bytes of what one identity has sent and of answers that it has not taken; beyond, no more of it is read.",
        8 << 20,
        4 * _GIB,
    ),
    Setting(
        "doors",
        "message_bytes_max",
        4 << 20,
        "A message of an access server with a certificate. The widest batch, a report of 65,536 items, takes 3.3 MB.",
        64 << 10,
        8 << 20,
    ),
    Setting("doors", "unread_seconds", 30, "How long a stream's client may leave unread what it is sent.", 1, 3_600),
    Setting("doors", "drain_seconds", 5, "How long calls may take to finish when the service is ended.", 0, 600),
    Setting("connection", "ca", None, "Who signed the service's certificate.", example="tls/ca.pem"),
    Setting("connection", "certificate", None, "An access server's certificate.", example="tls/as-01.pem"),
    Setting("connection", "key", None, "Its key.", example="tls/as-01.key"),
    Setting("connection", "token_file", None, "A person's token; nobody else may read the file.", example="token"),
    Setting("capacity", "sims", 100_000, "SIMs.", 1, 16_777_216),
    Setting(
        "capacity",
        "terminals",
        100_000,
        "Terminals that ever had a lease; the last eighth is not for those that are only told to wait.",
        1,
        16_777_216,
    ),
    Setting("capacity", "orders", 20_000, "Orders that are queued or outstanding.", 1, 16_777_216),
    Setting("journal", "segment_bytes", 64 << 20, "Size of a segment file, a multiple of 4,096.", 1 << 20, 4 * _GIB),
    Setting(
        "journal",
        "free_mark_bytes",
        _GIB,
        "With less free space than this on the disk nothing more is admitted.",
        0,
        1 << 50,
    ),
    Setting(
        "journal",
        "keep_hours",
        0,
        "For so long back any point can be restored. What is kept for it goes when there is no room for a snapshot.",
        0,
        8_760,
    ),
    Setting("queue", "calls_max", 16_384, "Calls that wait.", 1, 1 << 20),
    Setting("queue", "bytes_max", 64 << 20, "Bytes of the calls that wait.", 1 << 20, 4 * _GIB),
    Setting("follower", "enabled", True, "Without it the only snapshot is the one of a clean shutdown."),
    Setting(
        "follower", "snapshot_seconds", 300, "Longest time between two snapshots while something happens.", 1, 86_400
    ),
    Setting("follower", "history", True, "Keep what happened in history.sqlite, beside the journal."),
    Setting(
        "follower",
        "history_months",
        13,
        "How many months before this one history keeps use, swaps, refusals and limits of people and SIMs. 0: all.",
        0,
        1_200,
    ),
    Setting(
        "follower", "history_cache_mib", 64, "Memory for pages of history.sqlite that are written often.", 1, 65_536
    ),
    Setting("learner", "enabled", False, "Post what the follower saw: SIMs that are slowed, and caps as learned."),
    Setting("learner", "learn_seconds", 3_600, "Time between two looks at the caps of lots.", 1, 86_400),
    Setting(
        "learner",
        "address",
        None,
        "Where it reaches the service, as the service's certificate names it. Otherwise: where people come in.",
        example="simswitch.example:7468",
    ),
    Setting(
        "learner",
        "token_file",
        None,
        "Its token, made for learner:local, where callers have to prove who they are; nobody else may read the file.",
        example="learner-token",
    ),
    Setting("metrics", "listen", None, "Host and port where the service tells them.", example="127.0.0.1:9467"),
    Setting("metrics", "follower_listen", None, "And where its follower does.", example="127.0.0.1:9468"),
    Setting("metrics", "learner_listen", None, "And where its learner does.", example="127.0.0.1:9469"),
    Setting(
        "metrics",
        "beyond_loopback",
        False,
        "These addresses may be such as others can reach. For a network that nobody else is on.",
    ),
    Setting("engine", "lease_ms", None, "How long a lease lasts without traffic.", 1_000, _DAY_MS, 3_600_000),
    Setting("engine", "cooling_ms", None, "How long a released SIM rests.", 0, _DAY_MS, 60_000),
    Setting(
        "engine",
        "expected_floor_bytes",
        None,
        "Expected use of a lease is never below this.",
        1,
        1 << 50,
        67_108_864,
    ),
    Setting(
        "engine",
        "expected_ceiling_bytes",
        None,
        "Expected use that is learned is never above this. What a market or a request says may be.",
        0,
        1 << 50,
        2 * _GIB,
    ),
    Setting(
        "engine", "low_bytes", None, "Headroom below which a SIM is low, where its plan says nothing.", 0, 1 << 50, _GIB
    ),
    Setting(
        "engine",
        "exhausted_bytes",
        None,
        "Headroom below which a SIM is exhausted, where its plan says nothing.",
        0,
        1 << 50,
        67_108_864,
    ),
    Setting("engine", "order_deadline_ms", None, "By when an order is to be acknowledged.", 1_000, 3_600_000, 120_000),
    Setting("engine", "attempts_max", None, "Refusals of one swap before it is given up.", 1, 100, 5),
    Setting(
        "engine", "swap_cool_down_ms", None, "A terminal is not swapped again within this.", 0, 7 * _DAY_MS, 3_600_000
    ),
    Setting(
        "engine",
        "retry_after_ms",
        None,
        "Base of the advice to a refused allocation; jitter is added.",
        1,
        3_600_000,
        5_000,
    ),
    Setting(
        "engine",
        "line_bytes_per_s",
        None,
        "What a terminal's radio can carry at most, both ways. A report of use above this rate since the last one, or "
        "a carrier's figure since its window began, is impossible and set aside. Unless told: LTE of category 12. Peak "
        "rates by 3GPP TS 36.306 (tables 4.1-1 and 4.1-2, bits a millisecond) and 38.306 (4.1.2): LTE of category 4 "
        "25_222_000, 6 44_066_000, 12 88_132_000; NR in 100 MHz 450_000_000.",
        1_000,
        1 << 40,
        88_132_000,
    ),
    Setting(
        "engine",
        "outage_max_ms",
        None,
        "Traffic that is first reported later than this after a swap does not measure its outage.",
        1_000,
        _DAY_MS,
        600_000,
    ),
    Setting(
        "engine",
        "queue_budget_us",
        None,
        "An order is sent while what stands before it at the access server takes less than this.",
        1_000,
        1_000_000,
        50_000,
    ),
    Setting(
        "engine",
        "allocation_target_ms",
        None,
        "How long an allocation may wait on an access server before swaps give way.",
        10,
        60_000,
        1_000,
    ),
    Setting(
        "engine",
        "approval_above",
        None,
        "Who moves more terminals by jobs within a day needs a second person.",
        0,
        (1 << 32) - 2,
        10_000,
    ),
    Setting(
        "engine",
        "automatic_swaps",
        None,
        "Swaps without a job: 1 off SIMs that turn low, 2 off those that are spent, throttled, suspended or retired, "
        "3 both, 0 none.",
        0,
        3,
        3,
    ),
    Setting(
        "engine",
        "automatic_ahead_ms",
        None,
        "How long ahead swaps off low SIMs are announced.",
        0,
        _DAY_MS - 1,
        60_000,
    ),
    Setting("engine", "swaps_per_day_max", None, "Swaps of one terminal in a day.", 1, 255, 4),
    Setting(
        "engine",
        "day_begins_ms",
        None,
        "When the day begins: local midnight, after midnight UTC (54_000_000 in Japan).",
        0,
        _DAY_MS - 1,
        0,
    ),
    Setting(
        "engine",
        "fencing_ms",
        None,
        "From declaring an access server dead until what it held is freed.",
        1_000,
        7 * _DAY_MS,
        600_000,
    ),
    Setting(
        "engine",
        "breaker_ppm",
        None,
        "Failed swaps in a million at which no more go to that bank, lot, class, carrier or access server; all: never.",
        1,
        1_000_000,
        300_000,
    ),
    Setting(
        "engine",
        "breaker_ms",
        None,
        "How long that lasts at first; twice as long each time, up to half an hour.",
        1_000,
        1_800_000,
        60_000,
    ),
    Setting("engine", "breaker_least", None, "Swaps from which that is judged.", 1, 1_000_000, 20),
    Setting(
        "engine",
        "admission_queue_ms",
        None,
        "How much work an access server's queue may hold before terminals are told to wait; 0: they never are.",
        0,
        600_000,
        2_000,
    ),
    Setting(
        "engine",
        "probe_kbps",
        None,
        "Goodput, kbit/s, at which a SIM that was slowed before its reset is trusted again; 0: it stays slowed.",
        0,
        (1 << 31) - 2,
        6_000,
    ),
    Setting("engine", "idle_ms", None, "A terminal without new bytes for so long is idle.", 0, _DAY_MS, 600_000),
    Setting(
        "engine",
        "unknown_ask_ms",
        None,
        "How often an access server is asked what became of an order that it did not answer.",
        1_000,
        _DAY_MS,
        60_000,
    ),
)


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one file, or the defaults."""

    values: Mapping[tuple[str, str], Value]
    """By section and name; a setting of the section ``engine`` only when it was given."""
    file: Path | None = None

    def number(self, section: str, name: str) -> int:
        value = self.values[section, name]
        if not isinstance(value, int):
            raise TypeError(f"{section}.{name} is no number")
        return value

    def text(self, section: str, name: str) -> str:
        return str(self.values[section, name])

    def path(self, section: str, name: str) -> Path | None:
        """A file, as seen from the folder of the settings."""
        value = self.values.get((section, name))
        if value is None:
            return None
        path = Path(str(value))
        return path if self.file is None else self.file.parent / path

    def engine_settings(self) -> dict[str, int]:
        """The engine's settings that the file gives, by name."""
        return {name: self.number(section, name) for section, name in self.values if section == "engine"}


def default_config() -> Config:
    """What holds without a file."""
    return Config({(entry.section, entry.name): entry.default for entry in SETTINGS if entry.default is not None})


def read_config(path: Path) -> Config:
    """The settings of a file. Raises ``TomlRefused`` naming the line of the first setting that is wrong."""
    return parse_config(TomlDocument.read(path), path)


def parse_config(document: TomlDocument, path: Path | None = None) -> Config:
    """The settings of a document that was read already."""
    known = {(entry.section, entry.name): entry for entry in SETTINGS}
    values = dict(default_config().values)
    for section, table in document.values.items():
        if section not in SECTIONS:
            raise document.refuse((section,), f"no such section; there are {', '.join(SECTIONS)}")
        if not isinstance(table, dict):
            raise document.refuse((section,), f"a table belongs here: [{section}]")
        for name, value in table.items():
            entry = known.get((section, name))
            if entry is None:
                names = ", ".join(entry.name for entry in SETTINGS if entry.section == section)
                raise document.refuse((section, name), f"no such setting; there are {names}")
            reason = _reason(entry, value)
            if reason:
                raise document.refuse((section, name), reason)
            values[section, name] = value
    return Config(values, path)


def _reason(entry: Setting, value: object) -> str:
    """Why a value is refused; empty when it is right."""
    kind = type(entry.default if entry.default is not None else entry.example)
    if kind is bool:
        return "" if isinstance(value, bool) else f"true or false belongs here, not {value!r}"
    if entry.choices and value not in entry.choices:
        return f"{' or '.join(entry.choices)} belongs here, not {value!r}"
    if kind is str:
        return "" if isinstance(value, str) and value else f"text in quotes belongs here, not {value!r}"
    if isinstance(value, bool) or not isinstance(value, int) or not entry.least <= value <= entry.most:
        return f"a whole number from {entry.least:,} to {entry.most:,} belongs here, not {value!r}"
    if entry.name == "segment_bytes" and value % 4_096:
        return f"a multiple of 4,096 belongs here, not {value:,}"
    return ""


def example() -> str:
    """A file with every setting, its meaning, bounds and default; all are commented out."""
    lines = [
        "# simswitch.toml: every setting of simswitch. A line that is commented out shows the default.",
        "# Numbers may have underscores: 1_000_000.",
    ]
    for section, text in SECTIONS.items():
        lines += ["", f"# {text}", f"[{section}]"]
        for entry in SETTINGS:
            if entry.section != section:
                continue
            lines.append("")
            lines += _comment(entry.text)
            if entry.most:
                lines.append(f"# {entry.least:_} to {entry.most:_}")
            if entry.choices:
                lines.append(f"# {' or '.join(entry.choices)}")
            value = entry.default if entry.default is not None else entry.example
            lines.append(f"#{entry.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    import textwrap

    return [f"# {line}" for line in textwrap.wrap(text, 100)]


def _toml(value: Value | None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:_}" if isinstance(value, int) else f'"{value}"'

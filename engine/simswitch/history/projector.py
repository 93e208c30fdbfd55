"""What the journal's records mean for history: a reader of the follower.

Between two commits use is gathered as arrays and added up once, so that a subscriber's many reports become one row that
is written. Whatever is gathered is lost with the process, and comes again: the position moves with the rows, in one
transaction. A commit costs about one row a subscriber and a SIM that had traffic since the last one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simswitch.audit.decisions import ROWS_MAX, chain
from simswitch.core import layout
from simswitch.core.commands import COMMAND_COLUMNS, CommandRun, OutcomeRun, command_runs
from simswitch.core.machine import Machine
from simswitch.core.roles import COMMAND_ROLES
from simswitch.history import carriers, limits
from simswitch.history.reading import day_of
from simswitch.history.retention import HOUR_S, MONTHS, forget, forget_hours
from simswitch.history.schema import (
    CACHE_MIB,
    LOCK_NAME,
    NAME,
    HistoryRefused,
    damaged,
    open_writer,
    signed,
    signed_list,
)
from simswitch.journal.follower import ReaderFailed
from simswitch.journal.walk import Record
from simswitch.owner import opened

READER = "history"
LOCK_WAIT_S = 20.0
_KEPT = b"history was kept here\n"
DETAILS_MAX = 16
_HOUR_MS = 3_600_000
_POOL_MS = 60_000
_MINUTE_MS = 60_000
_BYTES_MAX = (1 << 63) - 1
_MISTAKES = frozenset(
    {layout.NOT_PERMITTED, layout.INVALID_ARGUMENT, layout.UNKNOWN_ACCESS_SERVER, layout.UNKNOWN_MARKET}
)
"""Refusals of an access server that asks wrongly, whatever terminal it names."""
STRANGERS_MAX = 1_024
"""Refused terminals that never had a SIM, which may be made up: of so many a minute and access server history keeps the
names. The others are only counted."""
_HEALTHS = (
    layout.HEALTHY, layout.LOW, layout.EXHAUSTED, layout.THROTTLED, layout.QUARANTINED, layout.RETIRED,
)  # fmt: skip
_EVENT_FIELDS = ("event", "kind", "terminal", "subscriber", "a", "b", "job", "access_server", "reason")
_DECISIONS = frozenset(
    kind for kind, roles in COMMAND_ROLES.items() if layout.ROLE_ACCESS_SERVER not in roles and kind != layout.TICK
)

DECISION_COLUMNS = "at_ms, sequence, run, actor, kind, subject, items, statuses, detail, digest"

Key = tuple[int, ...]


def is_decision(kind: int) -> bool:
    """Whether a command has its row in ``decisions``."""
    return kind in _DECISIONS


def month_of(day: int) -> int:
    return int(np.datetime64(day, "D").astype("datetime64[M]").astype(np.int64))


def names_of(machine: Machine) -> tuple[dict[int, str], dict[int, int]]:
    """What everything that is defined is called, by its index, and which index each access server's number has."""
    entities = machine.entities()
    servers = {
        number: entity["index"]
        for entity in entities
        if entity["kind"] == layout.ACCESS_SERVER and (number := machine.server_index(entity["index"])) is not None
    }
    return {entity["index"]: entity["name"] for entity in entities}, servers


def decision_row(
    place: int,
    run: CommandRun,
    outcome: OutcomeRun,
    record: Record,
    names: Mapping[int, str],
    servers: Mapping[int, int],
) -> tuple[Any, ...]:
    """The row of a decision, in DECISION_COLUMNS; the names are those after its record.

    ``simswitch audit verify`` replays the journal and makes the rows anew: what a row looks like changes with the
    machine's version only, whose journals no other version replays.
    """
    statuses = Counter(layout.Status(status).name.lower() for status in outcome["status"].tolist())
    columns = {name: _plain(run[name][:DETAILS_MAX]) for name, code in COMMAND_COLUMNS[run.kind] if code != "V1024"}
    if run.kind == layout.DEFINE:
        columns["defined"] = [names.get(index, "") for index in outcome["index"].tolist()]
    subject = names.get(servers.get(run.access_server, -1), "")
    if not subject and run.argument:
        said = {int(layout.SET_CAP): "instead of what waits"}
        said |= dict.fromkeys((int(layout.CARRIER_USAGE), int(layout.POOL_USAGE)), "dry run")
        subject = said.get(run.kind, str(run.argument))
    return (
        record.header.now_ms,
        record.header.sequence,
        place,
        names.get(run.actor, str(run.actor)),
        layout.Command(run.kind).name.lower(),
        subject,
        run.count,
        _json(statuses),
        _json(columns),
        hashlib.sha256(run.whole).digest(),
    )


class Projector:
    """The reader that writes ``history.sqlite``."""

    name = READER

    def __init__(self, folder: str | Path, months: int = MONTHS, cache_mib: int = CACHE_MIB) -> None:
        """``months``: how long what is of people and single SIMs is kept; 0: for ever. ``cache_mib``: for its pages."""
        self._path = Path(folder) / NAME
        self._lock = _locked(Path(folder) / LOCK_NAME)
        try:
            self._connection = open_writer(folder, cache_mib)
            # Those of before the chain, ROWS_MAX a transaction.
            while self._connection.execute("SELECT 1 FROM decisions WHERE hash IS NULL LIMIT 1").fetchone():
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    chain(self._connection)
            row = self._connection.execute(
                "SELECT sequence, at_ms, checksum, journal_id FROM positions WHERE reader = ?", (READER,)
            ).fetchone()
        except (HistoryRefused, sqlite3.Error) as error:
            os.close(self._lock)
            reason = error if isinstance(error, HistoryRefused) else damaged(self._path, error)
            raise ReaderFailed(str(reason)) from error
        self.sequence: int = row[0] if row else 0
        self._tell_kept()
        self.rows_count = 0
        """Rows that were written or taken away since it was opened."""
        self._at_ms: int = row[1] if row else 0
        self._checksum: int = row[2] if row else 0
        self._journal_id: bytes | None = row[3] if row else None
        self._last = self.sequence
        # Of the record before: nothing is looked at twice, and a snapshot that was missed is made up for.
        self._minute = self._at_ms // _MINUTE_MS if row else -1
        self._pool = self._at_ms // _POOL_MS if row else -1
        self._hour = self._at_ms // _HOUR_MS if row else -1
        self._months = months
        # The day on which rows were last looked for that are too old; none while some are left.
        self._forgot_day: int | None = None
        self._begins_ms: int | None = None
        self._wait_target_us = 0
        self._names: dict[int, str] = {}
        self._servers: dict[int, int] = {}
        # Lots whose SIMs share a quota.
        self._shared: list[int] = []
        self._forget()

    def _forget(self) -> None:
        """What was gathered is written."""
        self._use: dict[int, list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]] = {}
        self._sims: dict[int, list[tuple[npt.NDArray[Any], ...]]] = {}
        self._users: dict[int, list[tuple[npt.NDArray[Any], ...]]] = {}
        self._places: Counter[tuple[int, int, int]] = Counter()
        self._pools: list[carriers.PoolUse] = []
        self._pool_counts: dict[int, tuple[int, int]] = {}
        self._refused: dict[tuple[int | None, ...], list[int]] = {}
        self._strangers: dict[int, set[Key]] = {}
        self._strangers_minute = 0
        self._waits: dict[Key, list[int]] = {}
        self._slowed: list[tuple[int, int, tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]]] = []
        self._over: list[int] = []
        self._rows: list[tuple[str, Key | tuple[Any, ...]]] = []
        self._entities: list[tuple[int, int, str]] = []

    def close(self) -> None:
        self._connection.close()
        os.close(self._lock)

    def _tell_kept(self) -> None:
        """What says that there was a history must not go with it. Where there is no room it is written later."""
        if self.sequence and not os.fstat(self._lock).st_size:
            with suppress(OSError):
                os.write(self._lock, _KEPT)

    # ------------------------------------------------------------------------------------------ one record

    def applied(self, record: Record, outcomes: list[OutcomeRun], machine: Machine) -> None:
        header = record.header
        self._follow_on(record, machine)
        self._look(header.now_ms, machine)
        runs = command_runs(record.payload)
        for place, (run, outcome) in enumerate(zip(runs, outcomes, strict=False)):
            if run.kind == layout.REPORT_USAGE:
                self._usage(run, outcome, header.now_ms, machine)
            elif run.kind == layout.ALLOCATE:
                self._refusals(run, outcome, header.now_ms, machine)
            elif run.kind == layout.REPORT_LOAD:
                self._load(run, outcome, header.now_ms)
            elif is_decision(run.kind):
                self._decision(place, run, outcome, record, machine)
        if outcomes[-1].count:
            self._events(outcomes[-1], outcomes[-2], header.now_ms, machine)
        self._last, self._at_ms, self._checksum = header.sequence, header.now_ms, record.checksum

    def _follow_on(self, record: Record, machine: Machine) -> None:
        header = record.header
        if self._journal_id not in (None, header.journal_id):
            raise ReaderFailed(f"{self._path} is of another journal. Move it away; a new one is begun")
        self._journal_id = header.journal_id
        if self._begins_ms is None:
            # The first record since the start: names and settings come from the state.
            self._learn(machine, header.now_ms)
            self._rows += limits.begun(machine.entities(layout.LIMIT_RULE), machine.exemptions(), header.now_ms)
        if header.sequence != self._last + 1:
            gap = (self._last + 1, header.sequence - 1, self._at_ms, header.now_ms)
            self._rows.append(("INSERT INTO gaps VALUES (?, ?, ?, ?)", gap))
        elif self._last and header.previous_checksum != self._checksum & 0xFFFF_FFFF_FFFF_FFFF:
            raise ReaderFailed(
                f"{self._path} saw another record {self._last} than the journal has now: the folder was restored from "
                "a copy, and history was not. Move it away, or restore it from the same copy"
            )

    def _learn(self, machine: Machine, now_ms: int) -> None:
        settings = machine.header()["settings"]
        self._begins_ms = settings["day_begins_ms"]
        self._rows.append((
            "INSERT OR REPLACE INTO day_begins SELECT ?, ? WHERE ? IS NOT "
            "(SELECT begins_ms FROM day_begins ORDER BY since_ms DESC LIMIT 1)",
            (now_ms, self._begins_ms, self._begins_ms),
        ))  # fmt: skip
        self._wait_target_us = settings["allocation_target_ms"] * 1000
        entities = machine.entities()
        self._entities = [(entity["index"], entity["kind"], entity["name"]) for entity in entities]
        self._names, self._servers = names_of(machine)
        numbers = {entity["index"]: entity["numbers"] for entity in entities}
        self._shared = [
            entity["index"]
            for entity in entities
            if entity["kind"] == layout.LOT and numbers[entity["numbers"][layout.LOT_PLAN]][layout.PLAN_POOLED] > 0
        ]

    def _look(self, now_ms: int, machine: Machine) -> None:
        """What is read from the state, as it is after the first record of a minute and of an hour."""
        assert self._begins_ms is not None
        if now_ms // _MINUTE_MS != self._minute:
            self._minute = now_ms // _MINUTE_MS
            header = machine.header()
            if header["health"]["throttled"]:
                holders = machine.throttled_holders()
                if len(holders[0]):
                    self._slowed.append((self._minute, header["occupancy"]["assigned"], holders))
        if now_ms // _POOL_MS != self._pool:
            if self._pool >= 0:
                day = day_of(self._at_ms, self._begins_ms)
                self._rows += pool_rows(machine, day, now_ms, self._begins_ms, now_ms // _HOUR_MS != self._hour)
                if day != day_of(now_ms, self._begins_ms):
                    self._over.append(day)
            self._pool = now_ms // _POOL_MS
            self._hour = now_ms // _HOUR_MS

    def _load(self, run: CommandRun, outcome: OutcomeRun, now_ms: int) -> None:
        """What an access server tells of allocations there: those that waited for too long, or were given up."""
        waits_us = run["allocation_wait_us"]
        waits_us = np.where(waits_us == layout.NONE_INDEX, 0, waits_us)
        failed = run["failed_count"]
        some = ((waits_us > self._wait_target_us) | (failed > 0)) & (outcome["status"] == layout.OK)
        if some.any():
            key = (now_ms // _MINUTE_MS, self._servers.get(run.access_server, -1))
            found = self._waits.setdefault(key, [0, 0])
            found[0] = max(found[0], int(waits_us[some].max()) // 1000)
            found[1] += int(failed[some].sum())

    def _usage(self, run: CommandRun, outcome: OutcomeRun, now_ms: int, machine: Machine) -> None:
        counted = outcome["counted_bytes"]
        some = counted > 0
        if not some.any():
            return
        assert self._begins_ms is not None
        day = day_of(now_ms, self._begins_ms)
        self._use.setdefault(day, []).append((outcome["subscriber"][some], counted[some]))
        some &= outcome["sim"] != layout.NONE_INDEX
        iccids, counts = machine.sim_counts(outcome["sim"][some])
        now_s, spans_s = now_ms // 1000, run["span_ms"][some].astype(np.int64) // 1000
        # Where nobody said since when, it was since the hour began: what was before counts as used later, never less.
        from_s = np.where(spans_s, np.maximum(now_s - spans_s, 0), now_s // HOUR_S * HOUR_S)
        # Rounded up: by a figure's instant is counted what surely had come by then.
        until_s = np.full(len(iccids), -(-now_ms // 1000))
        self._sims.setdefault(now_s // HOUR_S, []).append((iccids, counts, counted[some], from_s, until_s))
        if len(iccids):
            users = (iccids, run["terminal"][some], outcome["subscriber"][some], counted[some])
            self._users.setdefault(day, []).append((*users, np.full(len(iccids), now_ms)))
            markets, lots = machine.use_places(run["terminal"][some], outcome["sim"][some])
            places = np.unique(markets.astype(np.uint64) << np.uint64(32) | lots, return_inverse=True)
            sums = np.zeros(len(places[0]), np.uint64)
            np.add.at(sums, places[1], counted[some])
            for place, used in zip(places[0].tolist(), sums.tolist(), strict=True):
                self._places[day, place >> 32, place & 0xFFFF_FFFF] += used
            if self._shared and (shares := np.isin(lots, self._shared)).any():
                use = carriers.PoolUse(*(column[shares] for column in (lots, counted[some], from_s, until_s)))
                self._pools.append(use)
                for lot in np.unique(use.lots).tolist():
                    count = machine.lot(lot)["pool_counted_bytes"]
                    self._pool_counts[lot] = ((int(until_s[0]) - 1) // HOUR_S, count)

    def _refusals(self, run: CommandRun, outcome: OutcomeRun, now_ms: int, machine: Machine) -> None:
        refused = np.flatnonzero(outcome["status"] >= layout.NOT_PERMITTED)
        if not refused.size:
            return
        minute = now_ms // _MINUTE_MS
        if minute != self._strangers_minute:
            self._strangers, self._strangers_minute = {}, minute
        server = self._servers.get(run.access_server, -1)
        strangers = self._strangers.setdefault(server, set())
        rows = zip(
            outcome["status"][refused].tolist(),
            run["market"][refused].tolist(),
            run["terminal"][refused].tolist(),
            signed_list(run["subscriber"][refused]),
            strict=True,
        )
        for status, market, terminal, subscriber in rows:
            key: tuple[int | None, ...] = (minute, server, market, status, None, 0)
            if status not in _MISTAKES:
                stranger = (market, status, terminal)
                known = machine.find_terminal(terminal) is not None or stranger in strangers
                if not known and len(strangers) < STRANGERS_MAX:
                    strangers.add(stranger)
                    known = True
                if known:
                    key = (minute, server, market, status, signed(terminal), subscriber)
            found = self._refused.setdefault(key, [now_ms, now_ms, 0])
            found[1] = now_ms
            found[2] += 1

    def _decision(self, place: int, run: CommandRun, outcome: OutcomeRun, record: Record, machine: Machine) -> None:
        now_ms = record.header.now_ms
        if run.kind in (layout.DEFINE, layout.CONFIGURE):
            self._learn(machine, now_ms)
        if run.kind == layout.DEFINE:
            self._rows += limits.defined(run, outcome, now_ms)
        elif run.kind == layout.EXEMPT:
            self._rows += limits.exempted(run, outcome, now_ms, self._names.get(run.actor, str(run.actor)))
        elif run.kind in (layout.CARRIER_USAGE, layout.POOL_USAGE):
            self._rows += carriers.figures_told(run, outcome, now_ms, self._names.get(run.actor, str(run.actor)))
        row = decision_row(place, run, outcome, record, self._names, self._servers)
        statement = f"INSERT INTO decisions ({DECISION_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._rows.append((statement, row))

    def _events(self, run: OutcomeRun, orders: OutcomeRun, now_ms: int, machine: Machine) -> None:
        sources = dict(zip(orders["order"].tolist(), signed_list(orders["source_iccid"]), strict=True))
        columns = (run[name].tolist() for name in _EVENT_FIELDS)
        for event, kind, terminal, subscriber, a, b, job, server, reason in zip(*columns, strict=True):
            order = signed(a)
            if kind == layout.EVENT_ORDERED:
                self._rows.append((
                    "INSERT OR REPLACE INTO swaps VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, 0, 0, ?)",
                    (order, _some(job), signed(terminal), signed(subscriber), self._servers.get(server, -1), signed(b),
                     reason, now_ms, sources.get(a)),
                ))  # fmt: skip
            elif kind == layout.EVENT_CONFIRMED:
                self._settled(order, 1, reason, now_ms)
            elif kind == layout.EVENT_REFUSED:
                self._settled(order, 2, reason, None)
            elif kind == layout.EVENT_OVERDUE:
                self._settled(order, 3, 0, None)
            elif kind == layout.EVENT_WITHDRAWN and order:
                self._settled(order, 4, reason, None)
            elif kind == layout.EVENT_GIVEN_UP:
                self._rows.append(("INSERT OR REPLACE INTO given_up VALUES (?, ?, ?)", (order, now_ms, b)))
            elif kind == layout.EVENT_TRAFFIC:
                self._rows.append((
                    "UPDATE swaps SET outage_ms = ? WHERE terminal = ? AND confirmed_ms = ?",
                    (b, signed(terminal), a),
                ))  # fmt: skip
            elif kind == layout.EVENT_LIMIT:
                self._rows.append(limits.limit_row(event, now_ms, subscriber, reason, a, b, terminal))
            elif kind == layout.EVENT_UNREPORTED:
                self._rows.append(carriers.unreported(event, now_ms, a, terminal, b, reason))
            elif kind == layout.EVENT_SET_ASIDE and (terminal or server != layout.NONE_SHORT):
                told_by = self._names.get(self._servers.get(server, -1), "")
                self._rows.append(carriers.report_aside(now_ms, b, a, reason, terminal, told_by))
            elif kind == layout.EVENT_JOB:
                self._job(job, a, reason, now_ms, machine)

    def _settled(self, order: int, result: int, why: int, confirmed_ms: int | None) -> None:
        statement = 'UPDATE swaps SET result = ?, why = ?, confirmed_ms = ? WHERE "order" = ?'
        self._rows.append((statement, (result, why, confirmed_ms, order)))

    def _job(self, job: int, state: int, why: int, now_ms: int, machine: Machine) -> None:
        try:
            figures = machine.job(job)
        except IndexError:
            # A later job has its place already, in the same record.
            figures = {}
        figures.pop("samples", None)
        row = (job, state, why, now_ms, _json(figures))
        self._rows.append(("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?)", row))

    # ------------------------------------------------------------------------------------------ commit

    def commit(self, sequence: int) -> None:
        if self._last == self.sequence:
            return
        connection = self._connection
        try:
            # Where the disk is full SQLite has ended the transaction itself, and nothing is left to roll back.
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                self._write(connection)
        except sqlite3.Error as error:
            raise ReaderFailed(str(damaged(self._path, error))) from error
        self.sequence = sequence
        self._tell_kept()
        self.rows_count = connection.total_changes
        self._forget()

    def _write(self, connection: sqlite3.Connection) -> None:
        held = connection.execute("SELECT sequence FROM positions WHERE reader = ?", (READER,)).fetchone()
        if (held[0] if held else 0) != self.sequence:
            raise ReaderFailed(
                f"{self._path} was written by another process, up to record {held[0]}. One folder has one follower: "
                "end the other one"
            )
        connection.executemany("INSERT OR REPLACE INTO entities VALUES (?, ?, ?)", self._entities)
        for statement, row in self._rows:
            connection.execute(statement, row)
        while chain(connection) == ROWS_MAX:
            pass
        for day, pieces in self._use.items():
            subscribers, place = np.unique(np.concatenate([piece[0] for piece in pieces]), return_inverse=True)
            totals = np.zeros(len(subscribers), np.uint64)
            np.add.at(totals, place, np.concatenate([piece[1] for piece in pieces]))
            _add(connection, "use_day", "day", day, subscribers, totals)
            _add(connection, "use_month", "month", month_of(day), subscribers, totals)
        connection.executemany(
            "INSERT INTO use_market VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
            [(*place, used) for place, used in self._places.items()],
        )
        for day in self._over:
            connection.execute(
                "INSERT OR REPLACE INTO days SELECT ?, coalesce(sum(bytes), 0), count(*) FROM use_day WHERE day = ?",
                (day, day),
            )
        written = 0
        for hour, counts in self._sims.items():
            written += _add_counts(connection, hour, [np.concatenate(column) for column in zip(*counts, strict=True)])
        if self._pools:
            use = carriers.PoolUse(*(np.concatenate(column) for column in zip(*self._pools, strict=True)))
            for statement, row in carriers.pool_hours(use, self._pool_counts):
                connection.execute(statement, row)
        forget_hours(connection, self._at_ms // _HOUR_MS, written)
        for day, uses in self._users.items():
            _add_users(connection, day, [np.concatenate(column) for column in zip(*uses, strict=True)])
        self._write_refusals(connection)
        connection.executemany(
            "INSERT INTO waits VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "wait_ms = max(wait_ms, excluded.wait_ms), failed = failed + excluded.failed",
            [(*key, *figures) for key, figures in self._waits.items()],
        )
        self._write_slowed(connection)
        day = day_of(self._at_ms, self._begins_ms or 0)
        if day != self._forgot_day:
            self._forgot_day = None if forget(connection, day, self._months) else day
        connection.execute(
            "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?, ?)",
            (READER, self._last, self._at_ms, signed(self._checksum), self._journal_id),
        )

    def _write_slowed(self, connection: sqlite3.Connection) -> None:
        for minute, leased, (terminals, subscribers, servers) in self._slowed:
            connection.execute("INSERT OR REPLACE INTO slowed VALUES (?, ?, ?)", (minute, len(terminals), leased))
            connection.executemany(
                f"INSERT INTO slowed_terminals VALUES ({minute // 60}, ?, ?, ?, {minute}, {minute}, 1) "
                "ON CONFLICT DO UPDATE SET last_minute = excluded.last_minute, minutes = minutes + 1",
                zip(
                    signed_list(terminals),
                    signed_list(subscribers),
                    (self._servers.get(server, -1) for server in servers.tolist()),
                    strict=True,
                ),
            )

    def _write_refusals(self, connection: sqlite3.Connection) -> None:
        for (minute, server, market, status, terminal, subscriber), (first, last, count) in self._refused.items():
            assert minute is not None
            key = (minute // 60, server, market, status, terminal)
            found = connection.execute(
                "SELECT last_ms FROM affected WHERE hour = ? AND access_server = ? AND market = ? AND status = ? "
                "AND terminal = ?",
                key,
            ).fetchone()
            # It counts as one of the minute's terminals once, however often history was written in that minute.
            again = terminal is None or (found is not None and found[0] >= minute * _MINUTE_MS)
            connection.execute(
                "INSERT INTO refusals VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "count = count + excluded.count, terminals = terminals + excluded.terminals",
                (minute, server, market, status, count, 0 if again else 1),
            )
            if terminal is None:
                continue
            connection.execute(
                "INSERT INTO affected VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "last_ms = excluded.last_ms, count = count + excluded.count",
                (*key, subscriber, first, last, count),
            )


def pool_rows(
    machine: Machine, day: int, at_ms: int, begins_ms: int, of_leases: bool
) -> list[tuple[str, tuple[Any, ...]]]:
    """The pool by lot and, when wanted, the leases by market, as rows of the tables ``lots`` and ``leases``."""
    pool = machine.lots_pool()
    entities = {entity["index"]: entity for entity in machine.entities()}
    fit: Counter[int] = Counter()
    rows: list[tuple[str, tuple[Any, ...]]] = []
    for index, entity in entities.items():
        if entity["kind"] != layout.LOT:
            continue
        healths = [int(count) for count in pool["healths"][index]]
        sims, not_valid = sum(healths), 0
        if machine.lot(index)["validity"] != layout.VALID:
            not_valid, healths[layout.EXHAUSTED] = healths[layout.EXHAUSTED], 0
        fit[entity["numbers"][layout.LOT_CLASS]] += healths[layout.HEALTHY] + healths[layout.LOW]
        figures = (
            day,
            index,
            at_ms,
            sims,
            *(healths[health] for health in _HEALTHS),
            sum(healths) - sum(healths[health] for health in _HEALTHS),
            int(pool["occupancies"][index][layout.FREE]),
            int(pool["occupancies"][index][layout.ASSIGNED]),
            int(pool["unlimited"][index]),
            min(int(pool["headroom_bytes"][index]), _BYTES_MAX),
            int(pool["used_cycle_bytes"][index]),
            int(pool["counted_bytes"][index]),
            _json(_lot_detail(machine, entity, entities, begins_ms)),
            int(pool["probation"][index]),
            not_valid,
        )
        rows.append((f"INSERT OR REPLACE INTO lots VALUES ({', '.join('?' * len(figures))})", figures))
    if not of_leases:
        return rows
    terminals, leased = machine.markets_pool()
    for index, entity in entities.items():
        if entity["kind"] == layout.MARKET:
            classes = entity["numbers"][layout.MARKET_FIRST_CLASS : layout.MARKET_FIRST_CLASS + layout.MARKET_CLASSES]
            market = (at_ms // _HOUR_MS, index, int(terminals[index]), int(leased[index]), sum(fit[c] for c in classes))
            rows.append(("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", market))
    return rows


def _lot_detail(
    machine: Machine, lot: dict[str, Any], entities: dict[int, dict[str, Any]], begins_ms: int
) -> dict[str, Any]:
    numbers = lot["numbers"]

    def name(index: int) -> str:
        return entities[index]["name"] if index in entities else ""

    sim_class = entities.get(numbers[layout.LOT_CLASS])
    caps = machine.lot(lot["index"])
    served = slice(layout.MARKET_FIRST_CLASS, layout.MARKET_FIRST_CLASS + layout.MARKET_CLASSES)
    return {
        "name": lot["name"],
        "markets": [
            entity["name"]
            for entity in entities.values()
            if entity["kind"] == layout.MARKET and numbers[layout.LOT_CLASS] in entity["numbers"][served]
        ],
        "supplier": name(numbers[layout.LOT_SUPPLIER]),
        "carrier": name(sim_class["numbers"][layout.CLASS_CARRIER]) if sim_class else "",
        "plan": name(numbers[layout.LOT_PLAN]),
        "class": name(numbers[layout.LOT_CLASS]),
        "active_from_s": numbers[layout.LOT_ACTIVE_FROM_S],
        "valid_until_s": numbers[layout.LOT_VALID_UNTIL_S],
        "next_cycle_day": day_of(caps["reset_ms"][0], begins_ms) if caps["reset_ms"][0] else None,
        **{
            key: caps[key]
            for key in ("quota_bytes", "basis", "since_ms", "before_bytes", "planned_bytes", "rolling_days", "pooled")
        },
    }


def _add(
    connection: sqlite3.Connection,
    table: str,
    span: str,
    number: int,
    subscribers: npt.NDArray[Any],
    totals: npt.NDArray[Any],
) -> None:
    connection.executemany(
        f"INSERT INTO {table} VALUES ({number}, ?, ?) ON CONFLICT ({span}, subscriber) "
        "DO UPDATE SET bytes = bytes + excluded.bytes",
        zip(signed_list(subscribers), signed_list(totals), strict=True),
    )


def _add_counts(connection: sqlite3.Connection, hour: int, columns: list[npt.NDArray[Any]]) -> int:
    """Of SIMs: ICCIDs, lifetime counts, what was newly counted, since when and up to when it was used, in an hour; how
    many SIMs that are."""
    iccids, place = np.unique(columns[0], return_inverse=True)
    # A lifetime count only grows, so the last one is the largest.
    counts, counted = np.zeros(len(iccids), np.uint64), np.zeros(len(iccids), np.uint64)
    np.maximum.at(counts, place, columns[1])
    np.add.at(counted, place, columns[2])
    from_s = np.full(len(iccids), np.iinfo(np.int64).max)
    np.minimum.at(from_s, place, columns[3])
    until_s = np.zeros(len(iccids), np.int64)
    np.maximum.at(until_s, place, columns[4])
    connection.executemany(
        f"INSERT INTO use_hour VALUES ({hour}, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "counted_bytes = excluded.counted_bytes, from_s = min(from_s, excluded.from_s), until_s = excluded.until_s",
        zip(
            *(signed_list(column) for column in (iccids, counts - counted, counts)),
            from_s.tolist(),
            until_s.tolist(),
            strict=True,
        ),
    )
    return len(iccids)


def _add_users(connection: sqlite3.Connection, day: int, columns: list[npt.NDArray[Any]]) -> None:
    """Who used which SIM: ICCIDs, terminals, subscribers, bytes and instants, in the order of time."""
    order = np.lexsort((columns[2], columns[1], columns[0]))
    iccids, terminals, subscribers, counted, at_ms = (column[order] for column in columns)
    changes = np.flatnonzero(np.diff(iccids) | np.diff(terminals) | np.diff(subscribers)) + 1
    begins = np.concatenate(([0], changes))
    connection.executemany(
        f"INSERT INTO use_sim VALUES ({day}, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "bytes = bytes + excluded.bytes, last_ms = excluded.last_ms",
        zip(
            *(signed_list(column[begins]) for column in (iccids, terminals, subscribers)),
            np.add.reduceat(counted, begins).tolist(),
            np.minimum.reduceat(at_ms, begins).tolist(),
            np.maximum.reduceat(at_ms, begins).tolist(),
            strict=True,
        ),
    )


def _locked(path: Path) -> int:
    """Of two followers that overlap the second waits until the first, whose server is gone, has ended."""
    lock = opened(path.parent, path.name, os.O_RDWR | os.O_CREAT)
    end_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end_s:
                os.close(lock)
                raise ReaderFailed(f"{path} is held by another follower: end it, and start the service again") from None
            time.sleep(0.05)
        else:
            return lock


def _some(job: int) -> int | None:
    return None if job == layout.NONE_INDEX else job


def _plain(values: npt.NDArray[Any]) -> list[Any]:
    return [value.decode(errors="replace") if isinstance(value, bytes) else value for value in values.tolist()]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))

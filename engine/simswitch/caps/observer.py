"""The detector beside the service: a reader of the follower that keeps in history what it sees of slowed SIMs.

    REPORT_USAGE ─▶ gathered ─▶ detector ─▶ decisions ─▶ throttles, observations      (at most a second, or a minute of
         │                          │                                                  the journal's time, later)
         └─ another terminal ──▶ moved       every ten minutes: quiet SIMs ─▶ observations
    events HEALTH, TRUSTED, CAP, CAP_CHANGED ────────────────────────────▶ health, trusted, caps, cap_shifts

Reports are gathered and worked on together, since a call of the detector costs the same for one report and for a
thousand. Rows and position go into one transaction, so each row stands in history once, whatever is killed when. What
the detector knows is in memory only: after a restart it is told which SIMs it held for slowed and the engine still
does, or has on probation, and sees runs anew within three windows.

Whom a published limit of our own slows, and who is back at full speed but reports of a time before that, shows nothing
of the carrier: of such a report only the bytes count.

What it says of a SIM holds for the terminal that the SIM is in: when another one reports, it begins anew. A SIM that
the engine held for slowed and no longer does isn't slowed for the detector either: it may find anew that it is. While
the SIM is on probation after its reset, the detector doubts it, whatever terminals it is in: a carrier that has not
lifted its limit is seen by that the SIM stands where it stood.

Bounds: 73 bytes a SIM that has reported; 65,536 gathered reports; 16,384 SIMs looked at for quiet ones each time that
reports were worked on; 200 quiet SIMs of each lot and window.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

from simswitch.caps.evidence import Observations, Window, gathered, highest, of_throttled, of_unthrottled
from simswitch.caps.throttle import Column, Decisions, Reports, ThrottleDetector
from simswitch.core import layout
from simswitch.core.commands import CommandRun, OutcomeRun, command_runs
from simswitch.core.machine import Machine
from simswitch.history.schema import CACHE_OF_FEW_MIB, NAME, HistoryRefused, damaged, open_writer, signed, signed_list
from simswitch.journal.follower import ReaderFailed
from simswitch.journal.walk import Record

READER = "caps"
GATHERED_MAX = 65_536
GATHERED_MS = 60_000
QUIET_MS = 600_000
QUIET_BACK_MS = 7_200_000
"""A SIM that was seen fast longer ago is not looked at again, however long a look takes."""
QUIET_SIMS = 16_384
KEPT_MS = 62 * 86_400_000
"""Observations: two cycles."""
_TERMINALS = (layout.OK, layout.LATE)
"""Statuses of reports of the lease that is on: whoever reports so has the SIM."""
_EVENTS = (layout.EVENT_HEALTH, layout.EVENT_TRUSTED, layout.EVENT_CAP, layout.EVENT_CAP_CHANGED)
_STILL_LIMITED = 0xFFFFFFFF
_COLUMNS = ("span_ms", "goodput_kbps", "demand_permille", "radio")

_OBSERVE = "INSERT OR IGNORE INTO observations VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_OBSERVE_QUIET = (
    "INSERT INTO observations VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (iccid, window, at_ms / 86400000) "
    "WHERE censored DO UPDATE SET at_ms = excluded.at_ms, used_lower = excluded.used_lower "
    "WHERE excluded.used_lower > used_lower"
)
_THROTTLE = "INSERT OR REPLACE INTO throttles VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class Observer:
    """The reader that writes what was observed."""

    name = READER

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / NAME
        try:
            self._connection = open_writer(folder, CACHE_OF_FEW_MIB)
            row = self._connection.execute(
                "SELECT sequence, at_ms, checksum, journal_id FROM positions WHERE reader = ?", (READER,)
            ).fetchone()
        except (HistoryRefused, sqlite3.Error) as error:
            reason = error if isinstance(error, HistoryRefused) else damaged(self._path, error)
            raise ReaderFailed(str(reason)) from error
        self.sequence: int = row[0] if row else 0
        self.rows_count = 0
        """Rows that were written or taken away since it was opened."""
        self._last = self.sequence
        self._at_ms: int = row[1] if row else 0
        self._checksum: int = row[2] if row else 0
        self._journal_id: bytes | None = row[3] if row else None
        self._machine: Machine | None = None
        self._detector = ThrottleDetector()
        self._holder = np.zeros(0, np.uint32)
        """A hash of the terminal that reported last with each SIM; 0: none has."""
        self._slowed = np.zeros(0, bool)
        """Which SIMs the engine was told to be slowed."""
        self._full_speed_s = np.zeros(0, np.uint32)
        """Since when the terminal in each SIM is no longer slowed by a published limit, Unix seconds. 0: it never was;
        ``_STILL_LIMITED``: it is."""
        self._days: dict[int, int] = {}
        """By lot: of how many days its rolling window is, as the record of caps has it."""
        self._gathered: list[dict[str, Column]] = []
        self._gathered_count = 0
        self._gathered_ms = 0
        self._quiet: Observations | None = None
        self._quiet_next = 0
        """The first SIM that this look at quiet ones has not come to."""
        self._quiet_since_ms = self._at_ms
        self._rows: list[tuple[str, tuple[Any, ...]]] = []

    def close(self) -> None:
        self._connection.close()

    # ------------------------------------------------------------------------------------------ one record

    def applied(self, record: Record, outcomes: list[OutcomeRun], machine: Machine) -> None:
        header = record.header
        if self._journal_id not in (None, header.journal_id):
            raise ReaderFailed(f"{self._path} is of another journal. Move it away; a new one is begun")
        self._journal_id = header.journal_id
        if machine is not self._machine:
            self._begin(machine)
            self._quiet_since_ms = self._quiet_since_ms or header.now_ms
        said: dict[int, tuple[int, str]] = {}
        defined = False
        for run, outcome in zip(command_runs(record.payload), outcomes, strict=False):
            if run.kind == layout.REPORT_USAGE:
                self._gather(run, outcome, header.now_ms)
            elif run.kind == layout.SET_HEALTH:
                said.update(dict.fromkeys(run["iccid"].tolist(), (run.actor, "")))
            elif run.kind == layout.CARRIER_LIFE:
                reasons = (reason.decode(errors="replace") for reason in run["reason"].tolist())
                said.update(
                    (iccid, (run.actor, reason)) for iccid, reason in zip(run["iccid"].tolist(), reasons, strict=True)
                )
            elif run.kind == layout.DEFINE:
                defined = True
        if outcomes[-1].count:
            self._events(outcomes[-1], header.now_ms, said)
        if defined:
            self._lengths(machine, header.now_ms)
        self._last, self._at_ms, self._checksum = header.sequence, header.now_ms, record.checksum
        if self._gathered_count >= GATHERED_MAX or (
            self._gathered_count and header.now_ms - self._gathered_ms >= GATHERED_MS
        ):
            self._work()

    def _begin(self, machine: Machine) -> None:
        """The first record since the start, or after a leap: the engine knows who is held for slowed, history how
        slow."""
        self._machine = machine
        found = self._connection.execute(
            "SELECT iccid, goodput_kbps, throttled, max(at_ms) FROM throttles GROUP BY iccid"
        )
        known = [(machine.find_sim(iccid), speed) for iccid, speed, throttled, _ in found if throttled]
        sims = np.array([sim for sim, _ in known if sim is not None], np.int64)
        speeds = np.array([speed for sim, speed in known if sim is not None])
        uses = _uses(machine, sims)
        slowed = uses["health"] == layout.THROTTLED
        known_slow = slowed | ~uses["trusted"]
        self._detector.told(sims[known_slow], np.ones(int(known_slow.sum()), bool), speeds[known_slow])
        self._detector.doubted(sims[known_slow & ~slowed])
        self._hold(int(sims.max(initial=-1)) + 1)
        self._slowed[sims[slowed]] = True
        # They may have been kept when a cycle without an end was evidence whatever else was known of its lot.
        lots = [lot["index"] for lot in machine.entities(layout.LOT)]
        self._days = {lot: days for lot in lots if (days := self._lot_days(lot))}
        self._days |= self._connection.execute(
            "SELECT lot, days FROM caps AS kept WHERE window = ? AND days IS NOT NULL AND at_ms = "
            "(SELECT max(at_ms) FROM caps WHERE lot = kept.lot AND window = kept.window)",
            (int(layout.WINDOW_ROLLING),),
        ).fetchall()
        endless = [lot for lot in lots if not _turning(machine.lot(lot))]
        self._rows += [("DELETE FROM observations WHERE lot = ?", (lot,)) for lot in endless]

    def _gather(self, run: CommandRun, outcome: OutcomeRun, now_ms: int) -> None:
        some = np.flatnonzero(outcome["sim"] != layout.NONE_INDEX)
        if not some.size:
            return
        # Of a lease that is over only the bytes count: somebody else may have the SIM by now.
        holds = np.isin(outcome["status"][some], _TERMINALS)
        sims = outcome["sim"][some].astype(np.int64)
        shows = holds & ~self._limited(sims, holds, outcome["slow_kbps"][some] != 0, run["span_ms"][some], now_ms)
        columns = {name: np.where(shows, run[name][some], 0) for name in _COLUMNS}
        terminal = run["terminal"][some]
        columns["terminal"] = np.where(holds, (terminal ^ (terminal >> np.uint64(32))).astype(np.uint32), 0)
        columns["sim"] = sims
        columns["counted_bytes"] = outcome["counted_bytes"][some]
        columns["at_ms"] = np.full(some.size, now_ms)
        if not self._gathered_count:
            self._gathered_ms = now_ms
        self._gathered.append(columns)
        self._gathered_count += some.size

    def _limited(self, sims: Column, holds: Column, slowed: Column, spans_ms: Column, now_ms: int) -> Column:
        """Which reports are of a time in which a published limit of our own may have slowed the terminal.

        It is at full speed from the first answer on that says so, and what was held back until then is older.
        """
        self._hold(int(sims.max()) + 1)
        back = holds & ~slowed & (self._full_speed_s[sims] == _STILL_LIMITED)
        self._full_speed_s[sims[back]] = now_ms // 1000
        self._full_speed_s[sims[holds & slowed]] = _STILL_LIMITED
        return slowed | (now_ms - spans_ms.astype(np.int64) < self._full_speed_s[sims].astype(np.int64) * 1000)

    def _events(self, run: OutcomeRun, now_ms: int, said: dict[int, tuple[int, str]]) -> None:
        """``said``: the actor that last spoke of a SIM's health in this record, and why, by ICCID."""
        wanted = np.isin(run["kind"], _EVENTS)
        if not wanted.any():
            return
        columns = (run[name][wanted].tolist() for name in ("kind", "a", "b", "reason", "terminal"))
        for kind, a, b, reason, terminal in zip(*columns, strict=True):
            if kind == layout.EVENT_HEALTH:
                self._rows.append((
                    "INSERT OR REPLACE INTO health VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (signed(a), now_ms, reason, b & 0xFFFFFFFF, b >> 32 & 0xFFFF, b >> 48, *said.get(a, (0, ""))),
                ))  # fmt: skip
                self._agreed(a, reason)
            elif kind == layout.EVENT_TRUSTED:
                self._rows.append((
                    "INSERT OR REPLACE INTO trusted VALUES (?, ?, ?, ?)", (signed(a), now_ms, signed(terminal), b),
                ))  # fmt: skip
            elif kind == layout.EVENT_CAP:
                quota = a if a < 1 << 62 else None
                window = b >> 16 & 0xFF
                for entity in (b & 0xFFFF, *self._followers(b & 0xFFFF, window, now_ms)):
                    self._cap(entity, window, now_ms, quota, b >> 24)
            else:
                self._rows.append((
                    "INSERT OR REPLACE INTO cap_shifts VALUES (?, ?, ?, ?, ?, ?)",
                    (b & 0xFFFF, b >> 16 & 0xFF, now_ms, reason, a, (b >> 24) * 1000),
                ))  # fmt: skip

    def _cap(self, entity: int, window: int, now_ms: int, quota: int | None, basis: int) -> None:
        days = self._lot_days(entity) if window == layout.WINDOW_ROLLING else None
        row = (entity, window, now_ms, quota, basis, days)
        self._rows.append(("INSERT OR REPLACE INTO caps VALUES (?, ?, ?, ?, ?, ?)", row))
        if days:
            self._days[entity] = days

    def _lot_days(self, lot: int) -> int | None:
        """Of how many days the lot's rolling window is. None: it has none, or it is no lot."""
        assert self._machine is not None
        try:
            return self._machine.lot(lot)["rolling_days"] or None
        except IndexError:
            return None

    def _lengths(self, machine: Machine, now_ms: int) -> None:
        """Something was defined: rolling windows that are of other days now."""
        place = layout.WINDOW_ROLLING - 1
        for entity, known in list(self._days.items()):
            lot = machine.lot(entity)
            if lot["rolling_days"] not in (0, known) and lot["quota_bytes"][place] is not None:
                self._cap(entity, layout.WINDOW_ROLLING, now_ms, lot["quota_bytes"][place], lot["basis"][place])

    def _followers(self, plan: int, window: int, now_ms: int) -> list[int]:
        """The lots whose cap has become another just now because their plan's has; none where it is no plan."""
        machine = self._machine
        assert machine is not None
        try:
            machine.lot(plan)
        except IndexError:
            lots = [lot["index"] for lot in machine.entities(layout.LOT) if lot["numbers"][layout.LOT_PLAN] == plan]
            return [lot for lot in lots if machine.lot(lot)["since_ms"][window - 1] == now_ms]
        return []

    def _agreed(self, iccid: int, health: int) -> None:
        assert self._machine is not None
        sim = self._machine.find_sim(iccid)
        if health == layout.THROTTLED and sim is not None:
            self._hold(sim + 1)
            self._slowed[sim] = True

    def _forget(self, sims: Column) -> None:
        """The engine doesn't hold them for slowed: it trusts them, or has them on probation."""
        assert self._machine is not None
        held = sims[self._detector.throttled(sims)]
        trusted = _uses(self._machine, held)["trusted"]
        self._detector.doubted(held[~trusted])
        self._detector.told(held[trusted], np.zeros(int(trusted.sum()), bool), np.ones(int(trusted.sum())))

    # ------------------------------------------------------------------------------------------ what it shows

    def _work(self) -> None:
        """Shows the detector what was gathered. The engine's counts are those after the last of it."""
        machine = self._machine
        assert machine is not None
        if self._gathered_count:
            columns = {name: np.concatenate([part[name] for part in self._gathered]) for name in self._gathered[0]}
            self._gathered, self._gathered_count = [], 0
            sims = columns["sim"]
            uses = _uses(machine, sims)
            self._detector.trusted(sims[uses["trusted"]])
            self._move(sims, columns.pop("terminal"), uses["health"])
            self._decided(self._detector.observe(Reports(lot=uses["lot"], **columns)), machine)
        self._look_for_quiet(machine)

    def _hold(self, sims: int) -> None:
        """Room for so many. All at once: pages that no SIM has touched cost nothing."""
        assert self._machine is not None
        if sims > len(self._holder):
            most = max(sims, self._machine.header()["sims_max"])
            for name in ("_holder", "_slowed", "_full_speed_s"):
                known = getattr(self, name)
                grown = np.zeros(most, known.dtype)
                grown[: len(known)] = known
                setattr(self, name, grown)

    def _move(self, sims: Column, terminals: Column, health: Column) -> None:
        """SIMs that are in another terminal now, and those that the engine holds for slowed no longer (a reset, or
        because a person says so)."""
        self._hold(int(sims.max()) + 1)
        back = np.unique(sims[self._slowed[sims] & (health != layout.THROTTLED)])
        self._slowed[back] = False
        self._forget(back)
        other = (terminals != 0) & (self._holder[sims] != terminals)
        moved = np.unique(sims[other])
        self._holder[sims[other]] = terminals[other]
        if moved.size:
            self._detector.moved(moved)
            self._forget(moved[~self._slowed[moved]])

    def _decided(self, decisions: Decisions, machine: Machine) -> None:
        if not len(decisions):
            return
        uses = _uses(machine, decisions.sim)
        iccids = signed_list(uses["iccid"])
        columns = (
            decisions.at_ms, decisions.lot, decisions.throttled, decisions.goodput_kbps,
            decisions.windows, decisions.demand_s, decisions.confidence_permille,
        )  # fmt: skip
        rows = zip(*(column.astype(np.int64).tolist() for column in columns), strict=True)
        self._rows += [(_THROTTLE, (iccid, *row)) for iccid, row in zip(iccids, rows, strict=True)]
        self._observed(of_throttled(decisions, _used(uses)), machine)

    def _observed(self, observations: Observations, machine: Machine) -> None:
        observations = observations.chosen(_begins_anew(observations, machine))
        iccids = signed_list(_uses(machine, observations.sim)["iccid"])
        slowed = observations.upper_bytes > 0
        columns = (
            observations.lot, observations.window, observations.at_ms, observations.lower_bytes,
            observations.upper_bytes, ~slowed, observations.goodput_kbps,
        )  # fmt: skip
        rows = zip(iccids, *(column.astype(np.int64).tolist() for column in columns), strict=True)
        for iccid, lot, window, at_ms, lower, upper, censored, goodput_kbps in rows:
            row = (lot, iccid, window, at_ms, lower, None if censored else upper, censored, goodput_kbps)
            self._rows.append((_OBSERVE_QUIET if censored else _OBSERVE, row))

    def _look_for_quiet(self, machine: Machine) -> None:
        """Every ten minutes, some SIMs at a time: those that have used most and were not slowed."""
        if self._quiet is None:
            if self._at_ms - self._quiet_since_ms < QUIET_MS:
                return
            self._quiet, self._quiet_next = gathered([]), 0
        sims = machine.header()["sims_count"]
        begin, self._quiet_next = self._quiet_next, min(self._quiet_next + QUIET_SIMS, sims)
        since_s = max(self._quiet_since_ms, self._at_ms - QUIET_BACK_MS) // 1000
        unslowed = self._detector.unslowed(begin, self._quiet_next, since_s)
        uses = _uses(machine, unslowed.sim)
        found = of_unthrottled(unslowed, uses["lot"], _used(uses))
        self._quiet = highest(gathered([self._quiet, found]))
        if self._quiet_next == sims:
            self._observed(self._quiet, machine)
            self._rows.append(("DELETE FROM observations WHERE at_ms < ?", (self._at_ms - KEPT_MS,)))
            self._quiet, self._quiet_since_ms = None, self._at_ms

    # ------------------------------------------------------------------------------------------ commit

    def commit(self, sequence: int) -> None:
        if self._last == self.sequence:
            return
        self._work()
        connection = self._connection
        try:
            # Where the disk is full SQLite has ended the transaction itself, and nothing is left to roll back.
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                self._write(connection)
        except sqlite3.Error as error:
            raise ReaderFailed(str(damaged(self._path, error))) from error
        self.sequence = sequence
        self.rows_count = connection.total_changes
        self._rows = []

    def _write(self, connection: sqlite3.Connection) -> None:
        held = connection.execute("SELECT sequence FROM positions WHERE reader = ?", (READER,)).fetchone()
        if (held[0] if held else 0) != self.sequence:
            raise ReaderFailed(
                f"{self._path} was written by another process, up to record {held[0]}. One folder has one follower: "
                "end the other one"
            )
        for statement, row in self._rows:
            connection.execute(statement, row)
        connection.execute(
            "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?, ?)",
            (READER, self._last, self._at_ms, signed(self._checksum), self._journal_id),
        )


def _uses(machine: Machine, sims: Column) -> dict[str, Any]:
    return machine.sim_uses(sims.astype(np.uint32))


def _begins_anew(observations: Observations, machine: Machine) -> Column:
    """Which are of a window that somebody knows the end of, and of a lot that is not beyond one.

    A reset that is past and has not begun waits for a clock that jumped, or for the one before it. What is counted
    meanwhile in any window may be the use of two of the carrier's; what was while the clock was frozen is in the
    window that began then, too.
    """
    now_ms = machine.now_ms
    turning = set()
    for index in np.unique(observations.lot).tolist():
        lot = machine.lot(index)
        if not any(0 < at_ms <= now_ms for at_ms in lot["reset_ms"]):
            turning |= {(index, int(window)) for window in _turning(lot)}
    pairs = zip(observations.lot.tolist(), observations.window.tolist(), strict=True)
    return np.fromiter((pair in turning for pair in pairs), bool, len(observations))


def _turning(lot: dict[str, Any]) -> set[Window]:
    """The windows of a lot that are evidence.

    What was ever used is no day's use. A cycle without an end is a quota that is bought once, if somebody knows the
    days: where nobody knows either, a cap of the day would be learned as that quota's, and kept for good, for no SIM of
    the lot would be handed out again that could show that it is none.
    """
    turning = {window for window in Window if lot["reset_ms"][window - 1] or lot["last_reset_ms"][window - 1]}
    turning |= {Window.CYCLE} if Window.DAY in turning else set()
    return {window for window in turning if not lot["held_over"][window - 1]}


def _used(uses: dict[str, Any]) -> dict[Window, Column]:
    return {window: uses["used_bytes"][window - 1] for window in Window}

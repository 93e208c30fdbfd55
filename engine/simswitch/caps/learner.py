"""What follows from what was observed: a process beside the service, which posts it as commands.

    history.sqlite ──▶ decisions nobody has answered ──▶ SetSimHealth, with their evidence          once a second
                   └─▶ observations of each lot ──▶ find ──▶ SetCaps (learned), TellCapShifts       once an hour, and
                                                    soon where SIMs went beyond the cap and were not slowed

So the engine's journal holds integers only, and a replay needs no statistics.

It keeps nothing. What was posted comes back through the journal into history (tables health, caps and cap_shifts), so
after a restart of either side it posts what has had no answer, and what it posts twice changes nothing: a decision is
answered by any later word on its SIM's health, its own or a person's; a cap by one within a percent; a shift by one of
the same lot, window and kind whose first evidence is within a day. That a SIM was seen slowed is posted as long as it
says something of its window: once one with a cap has begun anew, nobody has seen that the SIM still is.

What it sets: in each window the lowest cap that slows SIMs, by its lower 5 % quantile, when that differs by more than a
percent from what is in force. A contractual cap is only ever lowered: that a carrier slows later than it may is nothing
to rely on. What somebody said of a cap, in a plan or by SetCaps, is overruled by what was observed after that only. A
shift is told and logged; a raised cap whose new value nobody has met yet sets nothing. Of a lot whose SIMs share a
quota nothing is learned, nor of one of whose windows nobody knows when they start anew; that one is named, once.

While a jump of the clock is not confirmed no window begins anew, and no cap is learned; that is said, once.

A lot that can't be learned from (a damaged row, a fit that fails) is named with its error, and looked at again the next
time; the others are not held up by it.

Needs SciPy.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np

from simswitch.caps.evidence import Observations, Window
from simswitch.caps.tiers import SIMS_MIN, Change, ChangeKind, Findings, LearnedCap, find
from simswitch.client import OperatorClient
from simswitch.core import layout
from simswitch.history.schema import unsigned
from simswitch.v1 import caps_pb2, inventory_pb2, sim_pb2, status_pb2

DAY_MS = 86_400_000
POSTED_MAX = 4_096
SLOWED_MAX, QUIET_MAX = 30_000, 10_000
"""The newest observations of a lot that are read."""
SOON_LOTS_MAX = 8
"""Lots that are looked at before their hour in one go: decisions wait meanwhile."""
MOVED = 0.01
"""A cap that differs by less from the one in force stays."""
OLD_MS = 7 * DAY_MS
"""What changed longer ago is no news."""
_OVERLAP_MS = 60_000
_OF_A_LOT = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
_SHIFTS = {
    ChangeKind.LOWERED: caps_pb2.CAP_SHIFT_LOWERED,
    ChangeKind.RAISED: caps_pb2.CAP_SHIFT_RAISED,
    ChangeKind.SPEED: caps_pb2.CAP_SHIFT_SPEED,
}


def observed(connection: sqlite3.Connection, lot: int) -> Observations:
    """What history has observed of a lot (entity index): the newest, in the order of time."""
    select = (
        "SELECT iccid, window, at_ms, used_lower, coalesce(used_upper, 0), goodput_kbps FROM observations "
        "WHERE lot = ? AND censored = ? ORDER BY at_ms DESC LIMIT ?"
    )
    found = [
        row
        for censored, most in ((0, SLOWED_MAX), (1, QUIET_MAX))
        for row in connection.execute(select, (lot, censored, most))
    ]
    columns = np.array(found, np.int64).reshape(-1, 6)
    columns = columns[np.argsort(columns[:, 2], kind="stable")]
    sim, window, at_ms, lower, upper, goodput = columns.T
    return Observations(np.full(len(columns), lot), sim, window, at_ms, lower, upper, goodput)


def lots(connection: sqlite3.Connection) -> dict[int, str]:
    """The names of lots by their entity index."""
    kind = int(layout.LOT)
    return dict(connection.execute("SELECT entity, name FROM entities WHERE kind = ? ORDER BY entity", (kind,)))


def lowest(findings: Findings) -> dict[Window, LearnedCap]:
    """Of each window the cap that slows first."""
    found: dict[Window, LearnedCap] = {}
    for cap in findings.caps:
        if cap.window not in found or cap.quota_bytes < found[cap.window].quota_bytes:
            found[cap.window] = cap
    return found


def _said_since(
    connection: sqlite3.Connection, lot: int, in_force: dict[Window, caps_pb2.LotCap]
) -> dict[int, list[Window]]:
    """When somebody last said what a cap is, and of which windows: also where something was learned since."""
    said = dict(
        connection.execute(
            "SELECT window, max(at_ms) FROM caps WHERE lot = ? AND basis IN (?, ?) GROUP BY window",
            (lot, int(layout.BASIS_CONTRACTUAL), int(layout.BASIS_BELIEVED)),
        ).fetchall()
    )
    found: dict[int, list[Window]] = {}
    for window, cap in in_force.items():
        since_ms = said.get(int(window), 0)
        if cap.HasField("quota_bytes") and cap.certainty != inventory_pb2.CERTAINTY_LEARNED:
            since_ms = max(since_ms, cap.since_ms)
        if since_ms:
            # An observation's instant is that of its second's begin.
            found.setdefault(since_ms // 1_000 * 1_000, []).append(window)
    return found


@dataclass(slots=True)
class Learner:
    """Looks at history when it is told to, and posts what follows. ``said`` hears each thing that was posted."""

    service: OperatorClient
    said: Callable[[str], object]
    _after_ms: int | None = None
    """Decisions up to here have been looked at, but for some that may have come later at nearly the same time."""
    _began_ms: int = 0
    """How far history was when it first looked: what was decided by then had waited for a learner."""
    _posted: dict[tuple[int, int], None] = field(default_factory=dict)
    _seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By lot: how many observations there were, and the newest."""
    _beyond: dict[int, int] = field(default_factory=dict)
    """By lot: the newest observation of a SIM that went beyond the cap in force and was not slowed."""
    _shifts: list[tuple[int, int, int, int]] = field(default_factory=list)
    _endless: set[int] = field(default_factory=set)
    """Lots that were named because nobody knows when their windows start anew."""
    _waiting: bool = False
    """It was said that the clock jumped."""
    lots_failed: int = 0
    """Looks at a lot that ended with an error, ever."""

    # ------------------------------------------------------------------------------------------ health

    def decide(self, connection: sqlite3.Connection) -> int:
        """Posts the decisions of the last day that nobody has answered: of each SIM the last one. How many."""
        if self._after_ms is None:
            # Not the wall clock: while a jump of it is not confirmed, the engine's time is another.
            self._began_ms = connection.execute("SELECT max(at_ms) FROM positions").fetchone()[0] or 0
            self._after_ms = self._began_ms - DAY_MS
        found = connection.execute(
            "SELECT iccid, at_ms, throttled, goodput_kbps, windows, confidence_permille, lot FROM throttles AS decided "
            "WHERE at_ms >= ? "
            "AND NOT EXISTS (SELECT 1 FROM throttles WHERE iccid = decided.iccid AND at_ms > decided.at_ms) "
            "AND NOT EXISTS (SELECT 1 FROM health WHERE iccid = decided.iccid AND at_ms >= decided.at_ms) "
            "ORDER BY at_ms LIMIT ?",
            (self._after_ms - _OVERLAP_MS, POSTED_MAX + len(self._posted)),
        ).fetchall()
        decisions = [row for row in found if row[:2] not in self._posted][:POSTED_MAX]
        slowed = self._still_slowed(connection, [row for row in decisions if row[2]])
        fast = [row for row in decisions if not row[2]]
        self._say(1, slowed)
        self._say(0, fast)
        if decisions:
            self._after_ms = max(self._after_ms, decisions[-1][1])
            self._posted.update(dict.fromkeys(row[:2] for row in decisions))
            self._posted = {key: None for key in self._posted if key[1] >= self._after_ms - _OVERLAP_MS}
        return len(slowed) + len(fast)

    def _still_slowed(self, connection: sqlite3.Connection, decisions: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Without those that a reset came after: their SIMs would be out of use for a whole window that is new."""
        names = lots(connection)
        begun: dict[int, tuple[int, int]] = {}
        for lot in {row[6] for row in decisions} & names.keys():
            with self._alone(names[lot]):
                begun[lot] = self._begun(names[lot])
        still = []
        for row in decisions:
            first_ms, last_ms = begun.get(row[6], (0, 0))
            # A reset comes to one SIM after the other. What was decided between the first and the last, and waited for
            # a learner until all had been reset, is taken to be of before it; what one hears at once is of now.
            if row[1] >= (last_ms if row[1] <= self._began_ms else first_ms):
                still.append(row)
        if len(still) < len(decisions):
            self.said(
                f"{len(decisions) - len(still)} SIMs that were seen slowed before their window began anew stay in use"
            )
        return still

    def _begun(self, name: str) -> tuple[int, int]:
        """When a window of the lot that has a cap last began anew: for its first SIM, and for all of them.

        A rolling one lets go of a day and never begins anew: who was slowed in it most likely still is, and is on
        probation at the next midnight.
        """
        first_ms = last_ms = 0
        for window in (window for each in self._caps(name) for window in each.windows):
            if window.HasField("quota_bytes") and window.window != inventory_pb2.CAP_WINDOW_KIND_ROLLING:
                first_ms = max(first_ms, window.begun_ms)
                last_ms = max(last_ms, window.begun_ms, window.ended_ms)
        return first_ms, last_ms

    def _say(self, throttled: int, decisions: list[tuple[int, ...]]) -> None:
        if not decisions:
            return
        response = self.service.inventory.SetSimHealth(
            inventory_pb2.SetSimHealthRequest(
                iccid=[unsigned(row[0]) for row in decisions],
                health=sim_pb2.HEALTH_THROTTLED if throttled else sim_pb2.HEALTH_HEALTHY,
                goodput_kbps=[row[3] for row in decisions],
                windows_count=[row[4] for row in decisions],
                confidence_permille=[row[5] for row in decisions],
            )
        )
        done = sum(status == status_pb2.STATUS_OK for status in response.status)
        what = "slowed" if throttled else "no longer slowed"
        self.said(f"{done} of {len(decisions)} SIMs that were seen {what} have another health now")

    # ------------------------------------------------------------------------------------------ caps

    def learn(self, connection: sqlite3.Connection) -> int:
        """Looks at the lots of which something new was observed. How many they are."""
        if self._waits():
            return 0
        looked = 0
        for lot, name in lots(connection).items():
            seen = connection.execute("SELECT count(*), max(at_ms) FROM observations WHERE lot = ?", (lot,)).fetchone()
            if seen == self._seen.get(lot, (0, None)):
                continue
            with self._alone(name):
                looked += self._learn_lot(connection, lot, name)
                self._seen[lot] = seen
        self._name_endless(connection)
        return looked

    def _waits(self) -> bool:
        """Whether windows go on beyond their resets, and what is used in them with them."""
        frozen = self.service.caps.ListLotCaps(caps_pb2.ListLotCapsRequest(page_size=1)).frozen
        if frozen and not self._waiting:
            self.said(
                "the clock jumped, and no window starts anew until somebody has said that it is right "
                "(`simswitch clock confirm`): no caps are learned until then"
            )
        self._waiting = frozen
        return frozen

    def _name_endless(self, connection: sqlite3.Connection) -> None:
        """Lots with slowed SIMs of which nothing is observed, since no window of theirs has an end that is known."""
        names = lots(connection)
        slowed = connection.execute(
            "SELECT lot, count(DISTINCT iccid) FROM throttles "
            "WHERE throttled AND at_ms >= (SELECT max(at_ms) FROM throttles) - ? "
            "AND NOT EXISTS (SELECT 1 FROM observations WHERE lot = throttles.lot) "
            "GROUP BY lot HAVING count(DISTINCT iccid) >= ?",
            (DAY_MS, SIMS_MIN),
        ).fetchall()
        for lot, sims in slowed:
            if lot in self._endless or lot not in names:
                continue
            with self._alone(names[lot]):
                windows = [window for each in self._caps(names[lot]) for window in each.windows]
                if any(window.reset_ms or window.last_reset_ms for window in windows):
                    continue
                self._endless.add(lot)
                self.said(
                    f"lot {names[lot]}: {sims} SIMs were slowed, but nothing is learned from what they had used: "
                    "nobody knows when its windows start anew. Give its plan `resets`"
                )

    def learn_soon(self, connection: sqlite3.Connection) -> int:
        """Looks at some of the lots whose SIMs went beyond the cap in force meanwhile and were not slowed. How many."""
        if self._waits():
            return 0
        looked = 0
        for lot, name in lots(connection).items():
            with self._alone(name):
                newest = self._newest_beyond(connection, lot, name)
                if newest > self._beyond.get(lot, 0):
                    looked += self._learn_lot(connection, lot, name)
                    self._beyond[lot] = newest
            if looked == SOON_LOTS_MAX:
                break
        return looked

    def _newest_beyond(self, connection: sqlite3.Connection, lot: int, name: str) -> int:
        newest = 0
        for cap in (cap for each in self._caps(name) for cap in each.windows):
            if cap.HasField("quota_bytes"):
                (at_ms,) = connection.execute(
                    "SELECT max(at_ms) FROM observations WHERE lot = ? AND window = ? AND censored "
                    "AND used_lower > ? AND at_ms > ?",
                    (lot, int(cap.window), cap.quota_bytes, max(self._beyond.get(lot, 0), cap.since_ms)),
                ).fetchone()
                newest = max(newest, at_ms or 0)
        return newest

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """What is wrong with one lot holds up no other. That service or history can't be reached is no lot's fault."""
        try:
            yield
        except sqlite3.Error:
            raise
        except grpc.RpcError as error:
            if error.code() not in _OF_A_LOT:
                raise
            self._failed(name, error)
        except Exception as error:
            self._failed(name, error)

    def _failed(self, name: str, error: Exception) -> None:
        self.lots_failed += 1
        self.said(f"lot {name}: nothing was learned from what was observed of it: {error!r}")

    def _caps(self, name: str) -> Sequence[caps_pb2.LotCaps]:
        return self.service.caps.ListLotCaps(caps_pb2.ListLotCapsRequest(lot=name)).lots

    def _learn_lot(self, connection: sqlite3.Connection, lot: int, name: str) -> bool:
        found = self._caps(name)
        if any(each.HasField("pool") for each in found):
            return False  # what each SIM had used when it was slowed says nothing of a quota that they share
        observations = observed(connection, lot)
        findings = find(observations)
        self._tell(connection, lot, name, findings.changes)
        in_force = {Window(cap.window): cap for each in found for cap in each.windows}
        learned = lowest(findings)
        for since_ms, windows in _said_since(connection, lot, in_force).items():
            if since_ms > observations.at_ms.min(initial=since_ms):
                later = lowest(find(observations.chosen(observations.at_ms >= since_ms)))
                learned = {window: cap for window, cap in learned.items() if window not in windows}
                learned |= {window: cap for window, cap in later.items() if window in windows}
        self._set(name, in_force, learned)
        return True

    def _set(self, name: str, in_force: dict[Window, caps_pb2.LotCap], learned: dict[Window, LearnedCap]) -> None:
        moved = []
        for window, cap in learned.items():
            now = in_force.get(window)
            if now is not None and now.HasField("quota_bytes"):
                contractual = (
                    now.planned_bytes if now.planned_certainty == inventory_pb2.CERTAINTY_CONTRACTUAL else None
                )
                quota = cap.quota_bytes if contractual is None else min(cap.quota_bytes, contractual)
                if abs(quota - now.quota_bytes) <= MOVED * now.quota_bytes:
                    continue
                before = f"{now.quota_bytes:,} bytes"
            else:
                quota, before = cap.quota_bytes, "none"
            moved.append((window, cap, quota, before))
        self._post(name, moved)

    def _post(self, name: str, moved: list[tuple[Window, LearnedCap, int, str]]) -> None:
        if not moved:
            return
        response = self.service.caps.SetCaps(
            caps_pb2.SetCapsRequest(
                changes=[
                    caps_pb2.CapChange(
                        lot=name,
                        window=inventory_pb2.CapWindowKind.ValueType(window),
                        quota_bytes=quota,
                        certainty=inventory_pb2.CERTAINTY_LEARNED,
                    )
                    for window, _, quota, _ in moved
                ]
            )
        )
        for (window, cap, quota, before), status in zip(moved, response.statuses, strict=True):
            word = status_pb2.Status.Name(status).removeprefix("STATUS_").lower()
            self.said(
                f"lot {name}, {window.name.lower()}: {quota:,} bytes from {cap.throttled} slowed SIMs, "
                f"{cap.speed_kbps} kbit/s after it; before {before} ({word})"
            )

    def _tell(self, connection: sqlite3.Connection, lot: int, name: str, changes: Iterable[Change]) -> None:
        told = connection.execute("SELECT lot, window, shift, first_evidence_ms FROM cap_shifts WHERE lot = ?", (lot,))
        known = [*told.fetchall(), *self._shifts]
        newest = connection.execute("SELECT max(at_ms) FROM observations WHERE lot = ?", (lot,)).fetchone()[0]
        for change in changes:
            shift, speed = _SHIFTS[change.kind], change.kind == ChangeKind.SPEED
            key = (lot, int(change.window), int(shift))
            again = any(other[:3] == key and abs(other[3] - change.at_ms) < DAY_MS for other in known)
            if again or change.at_ms < newest - OLD_MS:
                continue
            seen = caps_pb2.CapShiftSeen(
                lot=name,
                window=inventory_pb2.CapWindowKind.ValueType(change.window),
                shift=shift,
                amount=change.speed_kbps if speed else change.after_bytes,
                before=change.speed_before_kbps if speed else change.before_bytes,
                first_evidence_ms=change.at_ms,
            )
            self.service.caps.TellCapShifts(caps_pb2.TellCapShiftsRequest(shifts=[seen]))
            self._shifts = [*self._shifts[-999:], (*key, change.at_ms)]
            self.said(
                f"lot {name}, {change.window.name.lower()}: {change.kind} without a word, from {change.before_bytes:,} "
                f"bytes at {change.speed_before_kbps} kbit/s to {change.after_bytes:,} at {change.speed_kbps}"
            )

"""The file ``history.sqlite`` of a data folder. This comment is its specification, with the statements below.

It is a SQLite database in WAL mode, written by the follower's process alone; anybody may read it. ``application_id`` is
0x53494D48, ``user_version`` the version of the schema. A file of a later version is refused; one of an earlier gets the
tables that it lacks (``ADDITIONS``) when the follower opens it.

Exactly once: ``positions`` says up to which record a reader of the journal has come, and is written in the transaction
that writes what came of those records. Every transaction is synced (``synchronous = FULL``) before the follower takes a
snapshot, so a segment that is removed is in history. What history does not know stands in ``gaps``.

Numbers: day = days since 1970-01-01 of the local date (the setting DAY_BEGINS_MS), month = months since 1970-01 of that
date, hour and minute = since 1970-01-01 UTC; all are those of numpy's datetime64. Instants are Unix milliseconds.
Terminals, subscribers and orders are 64 bits without a sign there and with one here (``signed``).
ICCIDs are as the engine encodes them. Access servers, markets, lots and actors are entity indexes; ``entities`` has
their names.

    bytes a row, about     use_day, use_month 22 · use_hour 45 · swaps 130 · use_sim 80 · affected, slowed_terminals 50
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from simswitch.owner import opened, refuse_no_file

T = TypeVar("T")

NAME = "history.sqlite"
LOCK_NAME = "history.lock"
"""Its writer's. It stays, and has a text from the first record on that was written into history."""
APPLICATION_ID = 0x53494D48
CACHE_MIB = 64
"""Pages of the file that the connection which writes most keeps in memory, at most; a file of some 150 MB fills it."""
CACHE_OF_FEW_MIB = 8
"""The same for one that writes few rows."""

SCHEMA = """
CREATE TABLE positions (reader TEXT PRIMARY KEY, sequence INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    checksum INTEGER NOT NULL, journal_id BLOB NOT NULL) STRICT;
-- Records that history never saw; until_ms: the instant of the first that it saw again.
CREATE TABLE gaps (first_sequence INTEGER PRIMARY KEY, last_sequence INTEGER NOT NULL, from_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL) STRICT;
CREATE TABLE entities (entity INTEGER PRIMARY KEY, kind INTEGER NOT NULL, name TEXT NOT NULL) STRICT;
-- Newly counted bytes, by the instant of the record that counted them. Subscriber 0: told of none.
CREATE TABLE use_day (day INTEGER, subscriber INTEGER, bytes INTEGER NOT NULL,
    PRIMARY KEY (day, subscriber)) STRICT, WITHOUT ROWID;
CREATE TABLE use_month (month INTEGER, subscriber INTEGER, bytes INTEGER NOT NULL,
    PRIMARY KEY (month, subscriber)) STRICT, WITHOUT ROWID;
-- The lifetime count at the end of the hour, of SIMs on which something was counted in it.
CREATE TABLE sim_hour (hour INTEGER, iccid INTEGER, counted_bytes INTEGER NOT NULL,
    PRIMARY KEY (hour, iccid)) STRICT, WITHOUT ROWID;
-- One row an order. result: 0 ordered, 1 confirmed (why: ConfirmedBy), 2 refused (why: Acknowledgement), 3 overdue,
-- 4 withdrawn (why: WithdrawnBy). outage_ms: null until traffic was reported, or not in time.
CREATE TABLE swaps ("order" INTEGER PRIMARY KEY, job INTEGER, terminal INTEGER NOT NULL, subscriber INTEGER NOT NULL,
    access_server INTEGER NOT NULL, target INTEGER NOT NULL, priority INTEGER NOT NULL, ordered_ms INTEGER NOT NULL,
    confirmed_ms INTEGER, outage_ms INTEGER, result INTEGER NOT NULL, why INTEGER NOT NULL) STRICT;
CREATE INDEX swaps_terminal ON swaps (terminal, ordered_ms);
CREATE INDEX swaps_subscriber ON swaps (subscriber, ordered_ms);
CREATE INDEX swaps_job ON swaps (job) WHERE job IS NOT NULL;
CREATE INDEX swaps_ordered ON swaps (ordered_ms);
-- Swaps that were given up after their last refusal: orders of ``swaps``.
CREATE TABLE given_up ("order" INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, attempts INTEGER NOT NULL) STRICT;
-- State by state, as events told; the figures are those after the record.
CREATE TABLE jobs (job INTEGER PRIMARY KEY, state INTEGER NOT NULL, why INTEGER NOT NULL, changed_ms INTEGER NOT NULL,
    detail TEXT NOT NULL) STRICT;
-- Allocations refused. terminals: how many different ones in that minute, of those that stand in affected: an access
-- server's mistakes name none, and of terminals that never had a SIM no more than 1,024 a minute and access server are.
CREATE TABLE refusals (minute INTEGER, access_server INTEGER, market INTEGER, status INTEGER, count INTEGER NOT NULL,
    terminals INTEGER NOT NULL, PRIMARY KEY (minute, access_server, market, status)) STRICT, WITHOUT ROWID;
-- Who was refused, by hour: people can be counted over any span without counting one twice.
CREATE TABLE affected (hour INTEGER, access_server INTEGER, market INTEGER, status INTEGER, terminal INTEGER,
    subscriber INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (hour, access_server, market, status, terminal)) STRICT, WITHOUT ROWID;
-- One row a run of commands that an access server may not give, refused ones too; ticks are none. run: its place in the
-- record. statuses: how often each was answered. detail: the columns of up to 16 items. digest: SHA-256 of the run.
CREATE TABLE decisions (event INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, sequence INTEGER NOT NULL,
    run INTEGER NOT NULL, actor TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, items INTEGER NOT NULL,
    statuses TEXT NOT NULL, detail TEXT NOT NULL, digest BLOB NOT NULL, UNIQUE (sequence, run)) STRICT;
-- What was observed of a SIM between resets; written by whoever observes (its own row in positions).
CREATE TABLE observations (lot INTEGER NOT NULL, iccid INTEGER NOT NULL, window INTEGER NOT NULL,
    at_ms INTEGER NOT NULL, used_lower INTEGER NOT NULL, used_upper INTEGER, censored INTEGER NOT NULL,
    goodput_kbps INTEGER NOT NULL) STRICT;
CREATE INDEX observations_lot ON observations (lot, at_ms);
"""

ADDITIONS = {
    2: """
-- Minutes in which an access server told of allocations that waited for longer than their target (wait_ms: the longest)
-- or that were given up there, of which it tells the number only.
CREATE TABLE waits (minute INTEGER, access_server INTEGER, wait_ms INTEGER NOT NULL, failed INTEGER NOT NULL,
    PRIMARY KEY (minute, access_server)) STRICT, WITHOUT ROWID;
-- Minutes at whose first record terminals held throttled SIMs: how many, of how many with a lease.
CREATE TABLE slowed (minute INTEGER PRIMARY KEY, terminals INTEGER NOT NULL, leased INTEGER NOT NULL) STRICT;
-- Which ones, by hour as in ``affected``: in how many of its minutes.
CREATE TABLE slowed_terminals (hour INTEGER, terminal INTEGER, subscriber INTEGER NOT NULL,
    access_server INTEGER NOT NULL, first_minute INTEGER NOT NULL, last_minute INTEGER NOT NULL,
    minutes INTEGER NOT NULL, PRIMARY KEY (hour, terminal)) STRICT, WITHOUT ROWID;
-- The pool by lot at the end of each day, written at the first record of every minute for the day of the record
-- before; at_ms is that first record's instant. SIMs by health (others: suspended, unreachable, missing) and by
-- occupancy; headroom_bytes of healthy and low SIMs with a cap; unlimited: how many of them have none; used_cycle_bytes
-- of healthy, low and exhausted ones. detail: supplier, carrier, plan and class by name, the caps by window with their
-- bases, and dates.
CREATE TABLE lots (day INTEGER, lot INTEGER, at_ms INTEGER NOT NULL, sims INTEGER NOT NULL, healthy INTEGER NOT NULL,
    low INTEGER NOT NULL, exhausted INTEGER NOT NULL, throttled INTEGER NOT NULL, quarantined INTEGER NOT NULL,
    retired INTEGER NOT NULL, others INTEGER NOT NULL, free INTEGER NOT NULL, assigned INTEGER NOT NULL,
    unlimited INTEGER NOT NULL, headroom_bytes INTEGER NOT NULL, used_cycle_bytes INTEGER NOT NULL,
    counted_bytes INTEGER NOT NULL, detail TEXT NOT NULL, PRIMARY KEY (day, lot)) STRICT, WITHOUT ROWID;
-- At the first record of every hour: terminals that were last in the market, those with a lease, and the SIMs of its
-- classes that are healthy or low.
CREATE TABLE leases (hour INTEGER, market INTEGER, terminals INTEGER NOT NULL, leased INTEGER NOT NULL,
    fit INTEGER NOT NULL, PRIMARY KEY (hour, market)) STRICT, WITHOUT ROWID;
""",
    3: """
-- Of a SIM that was slowed one row a window and instant; of one that was not (censored; used_upper is null then) the
-- highest use of each window and day.
CREATE UNIQUE INDEX observations_quiet ON observations (iccid, window, at_ms / 86400000) WHERE censored;
CREATE UNIQUE INDEX observations_slowed ON observations (iccid, window, at_ms) WHERE NOT censored;
CREATE INDEX observations_at ON observations (at_ms);
-- What the detector decided of a SIM: slowed to goodput_kbps, or no longer (throttled 0). Evidence: windows of the
-- plateau that agree, the demand in them, how sure that makes it.
CREATE TABLE throttles (iccid INTEGER, at_ms INTEGER, lot INTEGER NOT NULL, throttled INTEGER NOT NULL,
    goodput_kbps INTEGER NOT NULL, windows INTEGER NOT NULL, demand_s INTEGER NOT NULL,
    confidence_permille INTEGER NOT NULL, PRIMARY KEY (iccid, at_ms)) STRICT, WITHOUT ROWID;
CREATE INDEX throttles_at ON throttles (at_ms);
-- What was said of a SIM's health (Health), with what spoke for it; zeros: a person said so, or an attach failed.
CREATE TABLE health (iccid INTEGER, at_ms INTEGER, health INTEGER NOT NULL, goodput_kbps INTEGER NOT NULL,
    windows INTEGER NOT NULL, confidence_permille INTEGER NOT NULL, PRIMARY KEY (iccid, at_ms)) STRICT, WITHOUT ROWID;
-- Which cap was in force from then on, of a lot, or of a plan; lots that follow a plan have rows of their own.
-- quota_bytes null: none.
CREATE TABLE caps (lot INTEGER, window INTEGER, at_ms INTEGER, quota_bytes INTEGER, basis INTEGER NOT NULL,
    PRIMARY KEY (lot, window, at_ms)) STRICT, WITHOUT ROWID;
-- Caps that a carrier was seen to have changed. shift: CapShift; amount: bytes, of another speed kbit/s.
CREATE TABLE cap_shifts (lot INTEGER, window INTEGER, at_ms INTEGER, shift INTEGER, amount INTEGER NOT NULL,
    first_evidence_ms INTEGER NOT NULL, PRIMARY KEY (lot, window, at_ms, shift)) STRICT, WITHOUT ROWID;
""",
    5: """
-- Of days that are over: what was used, and by how many subscribers. So that nobody counts millions of rows again.
CREATE TABLE days (day INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, subscribers INTEGER NOT NULL) STRICT;
""",
    6: """
-- What published limits did, by the number of the event. step: LimitReason; of_day: 1 of the day's limit, 0 of the
-- month's; rule: also that of which something was lifted (0: not kept before machine version 12); terminal: which
-- showed it, 0: none.
CREATE TABLE limits (event INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, subscriber INTEGER NOT NULL,
    step INTEGER NOT NULL, of_day INTEGER NOT NULL, used_bytes INTEGER NOT NULL, limit_bytes INTEGER NOT NULL,
    rule INTEGER NOT NULL, terminal INTEGER NOT NULL) STRICT;
CREATE INDEX limits_subscriber ON limits (subscriber, at_ms);
-- Limit rules as they were defined; each holds until the next of the same rule. since_ms 0: before history began.
-- The columns are the numbers of the definition (-1: not said), document the rest of it, with the published text.
CREATE TABLE limit_rules (rule INTEGER, since_ms INTEGER, name TEXT NOT NULL, subscriber_group INTEGER NOT NULL,
    month_bytes INTEGER NOT NULL, day_bytes INTEGER NOT NULL, warn_permille INTEGER NOT NULL, action INTEGER NOT NULL,
    slow_kbps INTEGER NOT NULL, published_day INTEGER NOT NULL, withdrawn INTEGER NOT NULL, document BLOB NOT NULL,
    PRIMARY KEY (rule, since_ms)) STRICT, WITHOUT ROWID;
-- Who was exempt from limits. ended_ms: when somebody ended it, or gave it another end or reason, before until_ms.
CREATE TABLE exemptions (subscriber INTEGER, since_ms INTEGER, until_ms INTEGER NOT NULL, reason TEXT NOT NULL,
    actor TEXT NOT NULL, ended_ms INTEGER, ended_by TEXT, PRIMARY KEY (subscriber, since_ms)) STRICT, WITHOUT ROWID;
""",
    7: """
-- Which SIM was used by whom on which day: newly counted bytes, and the first and the last record that counted some.
-- The day stands first, so that what is written lies together; who looks for one SIM or person goes day by day.
CREATE TABLE use_sim (day INTEGER, iccid INTEGER, terminal INTEGER, subscriber INTEGER, bytes INTEGER NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, PRIMARY KEY (day, iccid, terminal, subscriber)) STRICT,
    WITHOUT ROWID;
CREATE INDEX use_sim_subscriber ON use_sim (day, subscriber);
-- The SIM that the swap moves its terminal off. null: not known.
ALTER TABLE swaps ADD COLUMN source INTEGER;
CREATE INDEX swaps_target ON swaps (target, ordered_ms);
CREATE INDEX swaps_source ON swaps (source, ordered_ms);
-- Who said so. 0: the engine itself, or not known.
ALTER TABLE health ADD COLUMN actor INTEGER NOT NULL DEFAULT 0;
CREATE INDEX decisions_at ON decisions (at_ms);
CREATE INDEX given_up_at ON given_up (at_ms);
CREATE INDEX health_at ON health (at_ms);
-- SIMs of the lot that were slowed before a reset and have not been seen fast since.
ALTER TABLE lots ADD COLUMN probation INTEGER NOT NULL DEFAULT 0;
-- SIMs that had been slowed before a reset and were seen fast again: with which terminal, how fast.
CREATE TABLE trusted (iccid INTEGER, at_ms INTEGER, terminal INTEGER NOT NULL, goodput_kbps INTEGER NOT NULL,
    PRIMARY KEY (iccid, at_ms)) STRICT, WITHOUT ROWID;
-- What was used in which market over SIMs of which lot: newly counted bytes. market 0: its terminal was gone already.
CREATE TABLE use_market (day INTEGER, market INTEGER, lot INTEGER, bytes INTEGER NOT NULL,
    PRIMARY KEY (day, market, lot)) STRICT, WITHOUT ROWID;
-- When local days begin, from then on: the setting DAY_BEGINS_MS, after midnight UTC.
CREATE TABLE day_begins (since_ms INTEGER PRIMARY KEY, begins_ms INTEGER NOT NULL) STRICT;
-- Carriers' figures that were taken. our_bytes: our own count in the window as of the same instant, as far as it was
-- known; correction_bytes: the carrier's less ours, which counts in the window until it starts anew.
CREATE TABLE corrections (iccid INTEGER, window INTEGER, as_of_ms INTEGER, at_ms INTEGER,
    carrier_bytes INTEGER NOT NULL, our_bytes INTEGER NOT NULL, correction_bytes INTEGER NOT NULL, actor TEXT NOT NULL,
    PRIMARY KEY (iccid, window, as_of_ms, at_ms)) STRICT, WITHOUT ROWID;
CREATE INDEX corrections_at ON corrections (at_ms);
-- What was told of usage and not counted, and why (Status): reports of access servers (iccid 0: not known), bytes as
-- told; and, with a window and an instant, carriers' figures, each once (terminal 0). actor: who told it.
CREATE TABLE set_aside (at_ms INTEGER NOT NULL, iccid INTEGER NOT NULL, window INTEGER, as_of_ms INTEGER,
    bytes INTEGER NOT NULL, status INTEGER NOT NULL, terminal INTEGER NOT NULL, actor TEXT NOT NULL) STRICT;
CREATE INDEX set_aside_at ON set_aside (at_ms);
CREATE UNIQUE INDEX set_aside_figures ON set_aside (iccid, window, as_of_ms, bytes) WHERE window IS NOT NULL;
-- What leases may have used that ended without a word of their access server, by the number of the event; negative: it
-- counts no more, since it was reported after all. Each counts in the SIM's windows until those start anew.
CREATE TABLE unreported (event INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, iccid INTEGER NOT NULL,
    terminal INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
CREATE INDEX unreported_at ON unreported (at_ms);
-- The chain over the decisions (audit/decisions.py): a row that has its hash stays as it is.
ALTER TABLE decisions ADD COLUMN hash BLOB;
CREATE TRIGGER decisions_change BEFORE UPDATE ON decisions WHEN old.hash IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'a decision is never changed'); END;
CREATE TRIGGER decisions_go BEFORE DELETE ON decisions BEGIN SELECT RAISE(ABORT, 'a decision is never removed'); END;
""",
    8: """
-- Why, of what a carrier did to the SIM. Empty: nobody said.
ALTER TABLE health ADD COLUMN reason TEXT NOT NULL DEFAULT '';
-- SIMs that nothing is left of because their lot does not work yet, or no longer, by its dates: they are not exhausted.
ALTER TABLE lots ADD COLUMN not_valid INTEGER NOT NULL DEFAULT 0;
-- Of the last days, more exactly: the lifetime count at the end of each five minutes (slot, since 1970-01-01 UTC) in
-- which something was counted. What it has beyond the row before was used after from_s and up to until_s, the instant
-- of the last report, Unix seconds. from_s 0: since the row before, nobody said more.
CREATE TABLE sim_slot (slot INTEGER, iccid INTEGER, counted_bytes INTEGER NOT NULL, from_s INTEGER NOT NULL,
    until_s INTEGER NOT NULL, PRIMARY KEY (slot, iccid)) STRICT, WITHOUT ROWID;
-- What may have been used after the figure's instant although it is taken to be before, which is allowed for.
ALTER TABLE corrections ADD COLUMN straddling_bytes INTEGER NOT NULL DEFAULT 0;
""",
    9: """
-- Of the last days: one row a SIM and hour in which something was counted on it. The lifetime count before and at its
-- end; what is between was used after from_s, which may lie before the hour, and up to until_s, the instant of the last
-- report, Unix seconds. It takes the place of two tables of which the one kept months, the other five minutes each.
DROP TABLE sim_slot;
DROP TABLE sim_hour;
CREATE TABLE use_hour (hour INTEGER, iccid INTEGER, before_bytes INTEGER NOT NULL, counted_bytes INTEGER NOT NULL,
    from_s INTEGER NOT NULL, until_s INTEGER NOT NULL, PRIMARY KEY (hour, iccid)) STRICT, WITHOUT ROWID;
""",
    10: """
-- Of the last days: what the SIMs of a lot that share a quota used together, by the hour in which it was used, as if it
-- had gone evenly over the time that each report is of. straddling_bytes: what of reports that are also of before the
-- hour is taken to be from before it. counted_bytes: the pool's lifetime count at the end of the last hour that has a
-- row. Of hours up to that of lot 0 nothing was kept.
CREATE TABLE pool_hour (hour INTEGER, lot INTEGER, used_bytes INTEGER NOT NULL, straddling_bytes INTEGER NOT NULL,
    counted_bytes INTEGER NOT NULL, PRIMARY KEY (hour, lot)) STRICT, WITHOUT ROWID;
INSERT INTO pool_hour SELECT at_ms / 3600000, 0, 0, 0, 0 FROM positions WHERE reader = 'history';
-- Carriers' figures of all SIMs of a lot together that were taken; else as corrections. our_bytes has what figures of
-- its SIMs had corrected.
CREATE TABLE pool_corrections (lot INTEGER, window INTEGER, as_of_ms INTEGER, at_ms INTEGER,
    carrier_bytes INTEGER NOT NULL, our_bytes INTEGER NOT NULL, correction_bytes INTEGER NOT NULL, actor TEXT NOT NULL,
    straddling_bytes INTEGER NOT NULL, PRIMARY KEY (lot, window, as_of_ms, at_ms)) STRICT, WITHOUT ROWID;
CREATE INDEX pool_corrections_at ON pool_corrections (at_ms);
-- The lot, of a carrier's figure of all its SIMs together (iccid 0). 0: it is of one SIM.
ALTER TABLE set_aside ADD COLUMN lot INTEGER NOT NULL DEFAULT 0;
-- Of how many days a rolling window was from then on. Another length has a row of its own. null: of another window, or
-- not kept.
ALTER TABLE caps ADD COLUMN days INTEGER;
DROP INDEX set_aside_figures;
CREATE UNIQUE INDEX set_aside_figures ON set_aside (iccid, lot, window, as_of_ms, bytes) WHERE window IS NOT NULL;
""",
}
"""What each version after the first adds."""

VERSION = max(ADDITIONS)


class HistoryRefused(Exception):
    """The file can't be used; the text says why, and what to do."""


class NoHistoryYet(HistoryRefused):
    """There is no file, or nothing in it."""


def was_kept(folder: Path) -> bool:
    """Whether there ever was a record in the folder's history, also where that is gone. A copy has no lock, and no
    history in which there is none."""
    lock = folder / LOCK_NAME
    return lock.stat().st_size > 0 if lock.is_file() else (folder / NAME).exists()


def open_writer(folder: str | Path, cache_mib: int = CACHE_MIB) -> sqlite3.Connection:
    """The file, made when it is missing. Raises ``HistoryRefused``."""
    path = Path(folder) / NAME
    try:
        # As the journal: for its owner and group only. SQLite gives its files beside it the same. A file that is there
        # is left alone: closing any descriptor of it would drop the locks that this process has on it.
        with suppress(FileExistsError):
            os.close(opened(path.parent, path.name, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        connection, tables = _connected(path, os.fspath(path), isolation_level=None)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version or tables or connection.execute("PRAGMA application_id").fetchone()[0]:
            _check(connection, path, at_least=1)
        # Nothing was written before this.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{cache_mib << 10}")
        if version < VERSION:
            added = "".join(text for number, text in ADDITIONS.items() if number > version)
            connection.executescript(
                f"BEGIN IMMEDIATE; {'' if version else SCHEMA} {added} PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {VERSION}; COMMIT"
            )
        _check(connection, path)
    except (sqlite3.Error, OSError) as error:
        raise damaged(path, error) from error
    return connection


def open_reader(folder: str | Path, *, writes_nothing: bool = False) -> sqlite3.Connection:
    """The file for reading only. Raises ``HistoryRefused``, also when there is no history yet.

    A reader leaves files of SQLite's beside it, unless ``writes_nothing``: where nobody has it open, and so no log of
    it is left, it is read as it stands.
    """
    path = Path(folder).absolute() / NAME
    try:
        alone = writes_nothing and not path.with_name(f"{path.name}-wal").exists()
        connection, tables = _connected(path, f"{path.as_uri()}?mode=ro{'&immutable=1' if alone else ''}", uri=True)
        if not tables:
            raise _not_yet(path)
        _check(connection, path)
    except FileNotFoundError as error:
        raise _not_yet(path) from error
    except sqlite3.Error as error:
        raise damaged(path, error) from error
    return connection


def open_kept(folder: str | Path, *, writes_nothing: bool = False) -> sqlite3.Connection:
    """As ``open_reader``; one that has come to no record is none yet, too."""
    connection = open_reader(folder, writes_nothing=writes_nothing)
    path = Path(folder).absolute() / NAME
    try:
        if connection.execute("SELECT 1 FROM positions WHERE reader = 'history'").fetchone() is None:
            raise _not_yet(path)
    except sqlite3.Error as error:
        connection.close()
        raise damaged(path, error) from error
    except NoHistoryYet:
        connection.close()
        raise
    return connection


def _connected(path: Path, address: str, **options: Any) -> tuple[sqlite3.Connection, int]:
    """The file of that name, read only so far, and how many tables and indexes it has. Raises as ``_file`` does."""
    found = _file(path)
    connection = sqlite3.connect(address, timeout=10, **options)
    try:
        # All of its text is read, since SQLite's own texts and the names of columns quote it: where it is damaged they
        # need not be UTF-8, and any question later would end with that.
        tables = len(connection.execute("SELECT name, tbl_name, sql FROM sqlite_schema").fetchall())
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError("malformed database schema") from error
    if not os.path.samestat(found, _file(path)):
        raise HistoryRefused(f"{path} can't be used: another file was put in its place just now. Try again")
    return connection, tables


def _file(path: Path) -> os.stat_result:
    """SQLite would follow a link, to what its owner may not read or write. Raises ``FileNotFoundError``, and
    ``HistoryRefused`` for what is no file."""
    try:
        return refuse_no_file(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise HistoryRefused(f"{path} can't be used: {error.strerror}") from error


def asked(folder: str | Path | None, question: Callable[[sqlite3.Connection], T]) -> tuple[T | None, str]:
    """What the history of a service's folder answers, or why it has no answer. For a thread beside the loop."""
    if folder is None:
        return None, "the service keeps no data folder"
    try:
        with closing(open_reader(folder)) as connection:
            return question(connection), ""
    except HistoryRefused as error:
        return None, str(error)


def _not_yet(path: Path) -> HistoryRefused:
    return NoHistoryYet(f"there is no history yet in {path}. The follower of a running service makes it")


def damaged(path: Path, error: sqlite3.Error | OSError) -> HistoryRefused:
    if _is_no_room(error):
        return HistoryRefused(
            f"{path} can't be used: {error}. There is no room on its disk: make some, and start the service again. "
            "Leave the file where it is, what is in it is not damaged"
        )
    room = ""
    # A quota that is used up has no code of its own.
    if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC):
        room = " If its disk has no room, or its owner no quota left, make some, start again, and leave the file there."
    return HistoryRefused(
        f"{path} can't be used: {error}.{room} If it is damaged, stop the service, move it and its -wal and -shm away, "
        "and start again: a new one begins with the oldest segment of the journal that is left"
    )


def _is_no_room(error: sqlite3.Error | OSError) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # What is thrown outside of SQLite's own code has none. The second: no room for the file beside it.
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)


def _check(connection: sqlite3.Connection, path: Path, at_least: int = VERSION) -> None:
    identity = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if identity != APPLICATION_ID:
        raise HistoryRefused(f"{path} is no history of simswitch. Move it away")
    if version > VERSION:
        raise HistoryRefused(
            f"{path} has schema version {version}, this program knows {VERSION}: use the one that made it"
        )
    if version < at_least:
        raise HistoryRefused(
            f"{path} has schema version {version}, this program wants {VERSION}: start the service with this program "
            "once, its follower adds what is missing"
        )


def signed(number: int) -> int:
    """As SQLite keeps 64 bits."""
    return number - (1 << 64) if number >> 63 else number


def unsigned(number: int) -> int:
    return number & 0xFFFF_FFFF_FFFF_FFFF


def signed_list(numbers: npt.NDArray[Any]) -> list[int]:
    values: list[int] = numbers.astype(np.uint64).view(np.int64).tolist()
    return values

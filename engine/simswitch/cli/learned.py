"""What was learned of caps, beside what is believed: the part of ``simswitch caps`` that reads history."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simswitch.cli.amounts import bytes_text, instant_text
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.screen import Table, table

if TYPE_CHECKING:
    from simswitch.caps.tiers import Findings

COLUMNS = (
    "lot", "window", "slowed to", "believed", "decided upon", "median", "from", "to", "SIMs slowed", "not", "since",
    "last change",
)  # fmt: skip


def needs_scipy() -> None:
    try:
        import scipy  # noqa: F401
    except ImportError:
        raise CommandFailed(Exit.USAGE, "this needs the extra: pip install 'simswitch[caps]'") from None


@contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """The history of a folder. What can't be read may be there later: the service makes it."""
    from simswitch.history.schema import HistoryRefused, open_reader

    try:
        with closing(open_reader(folder)) as connection:
            yield connection
    except (HistoryRefused, sqlite3.Error) as error:
        raise CommandFailed(Exit.REFUSED, str(error), later=True) from error


def find_learned(folder: Path, lots: list[dict[str, Any]]) -> dict[str, Findings]:
    """What the history of a folder says of lots, by their names; of those whose SIMs share a quota it says nothing."""
    needs_scipy()
    from simswitch.caps import learner
    from simswitch.caps.tiers import find

    with opened(folder) as connection:
        indexes = {name: index for index, name in learner.lots(connection).items()}
        return {
            name: find(learner.observed(connection, indexes[name]))
            for name in (each["lot"] for each in lots if each["pool"] is None)
            if name in indexes
        }


def described(findings: Findings) -> dict[str, Any]:
    """As JSON shows it, under ``learned`` and ``shifts``."""
    return {
        "learned": [
            {
                "window": cap.window.name.lower(),
                "speed_kbps": cap.speed_kbps,
                "decided_bytes": cap.quota_bytes,
                "median_bytes": cap.median_bytes,
                "low_bytes": cap.low_bytes,
                "high_bytes": cap.high_bytes,
                "upper_bytes": cap.upper_bytes,
                "sims_slowed": cap.throttled,
                "sims_not_slowed": cap.unthrottled,
                "since_ms": cap.since_ms,
            }
            for cap in findings.caps
        ],
        "shifts": [
            {
                "window": change.window.name.lower(),
                "shift": str(change.kind),
                "first_evidence_ms": change.at_ms,
                "before_bytes": change.before_bytes,
                "after_bytes": change.after_bytes,
                "speed_before_kbps": change.speed_before_kbps,
                "speed_kbps": change.speed_kbps,
            }
            for change in findings.changes
        ],
    }


def learned_table(lots: list[dict[str, Any]]) -> Table | str:
    """Each cap that was learned, with all that is known of it. ``lots`` have what ``described`` says."""
    rows = []
    for lot in lots:
        believed = {window["window"]: window["planned_bytes"] for window in lot["windows"]}
        for cap in lot.get("learned", ()):
            quota = believed.get(cap["window"])
            shifts = [shift for shift in lot["shifts"] if shift["window"] == cap["window"]]
            rows.append(
                [
                    lot["lot"],
                    cap["window"],
                    f"{cap['speed_kbps']:,} kbit/s",
                    bytes_text(quota) if quota is not None else "",
                    *(bytes_text(cap[f"{name}_bytes"]) for name in ("decided", "median", "low", "high")),
                    cap["sims_slowed"],
                    cap["sims_not_slowed"],
                    instant_text(cap["since_ms"]),
                    _shifted(shifts[-1]) if shifts else "",
                ]
            )
    if not rows:
        return (
            "Nothing is learned yet: for a cap five SIMs of its lot have to be slowed that agree, and its "
            "plan has to say when its windows start anew (`resets`)."
        )
    return table("Learned: decided upon is the lower 5 %, from and to hold the median with 90 %", COLUMNS, rows)


def _shifted(shift: dict[str, Any]) -> str:
    if shift["shift"] == "speed":
        what = f"{shift['speed_before_kbps']:,} to {shift['speed_kbps']:,} kbit/s"
    else:
        what = f"{shift['shift']}, {bytes_text(shift['before_bytes'])} to {bytes_text(shift['after_bytes'])}"
    return f"{instant_text(shift['first_evidence_ms'])}: {what}"


def draw(found: dict[str, Findings], lots: list[dict[str, Any]], path: Path) -> None:
    """The one lot's cap that most SIMs were slowed by, beside the believed one."""
    from simswitch.caps.picture import plot

    if len(lots) != 1:
        raise CommandFailed(Exit.USAGE, "--plot draws one lot: say which with --lot")
    (lot,) = lots
    findings = found.get(lot["lot"])
    if findings is None or not findings.caps:
        raise CommandFailed(Exit.REFUSED, f"nothing is learned of lot {lot['lot']} yet: there is nothing to draw")
    cap = max(findings.caps, key=lambda each: each.throttled)
    believed = {window["window"]: window["planned_bytes"] for window in lot["windows"]}
    try:
        plot(f"lot {lot['lot']}", cap, findings.changes, believed.get(cap.window.name.lower()), path)
    except ImportError as error:
        raise CommandFailed(Exit.USAGE, "--plot needs the extra: pip install 'simswitch[plot]'") from error

"""``simswitch inspect`` and ``simswitch follow``: commands that work on a data folder, without a service."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from simswitch.cli.amounts import counted, exact_text
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ConfigOption, JsonOption, MetricsBeyondOption, MetricsOption, settings
from simswitch.cli.screen import print_json, show, table

_RECORD_MAX = (1 << 63) - 1
_REASON_MAX = 1_000
Folder = Annotated[Path, typer.Argument(help="The data folder.", exists=True, file_okay=False)]


def inspect(folder: Folder, json: JsonOption = False) -> None:
    """Show what a data folder holds. Changes nothing, and works while a server runs on it."""
    from simswitch.journal.errors import JournalError
    from simswitch.journal.inspect import inspect as inspect_folder

    try:
        found = inspect_folder(folder)
    except JournalError as error:
        raise CommandFailed(Exit.DAMAGED, str(error)) from error
    if json:
        print_json(found)
    else:
        show(*_described(folder, found))
    if found["tail"]["damaged"]:
        raise CommandFailed(Exit.DAMAGED, str(found["tail"]["text"]))
    if found["alarm"]:
        raise CommandFailed(Exit.DAMAGED, f"the follower raised an alarm: {found['alarm']}")


def ours(folder: Path) -> None:
    """Refuses a folder in which no service has ever run: what it does not hold would all be sound."""
    from simswitch.journal.disk import RealDisk
    from simswitch.journal.snapshot import snapshot_sequences
    from simswitch.journal.walk import list_segments

    disk = RealDisk(folder, create=False)
    if not list_segments(disk) and not snapshot_sequences(disk) and not (folder / "history.sqlite").exists():
        raise CommandFailed(
            Exit.REFUSED, f"{folder} is no data folder: it has neither journal nor snapshot nor history"
        )


def check(folder: Folder, json: JsonOption = False) -> None:
    """Verify everything in a data folder.

    Snapshots, journal by replay, invariants, history and audit log. Changes nothing, and works while a server runs on
    it. It needs about the memory that the service has, and the time of replaying what the journal holds.
    """
    from simswitch.folder.apart import Refused
    from simswitch.folder.check import check_folder

    ours(folder)
    try:
        checked = check_folder(folder)
    except Refused as error:
        raise CommandFailed(Exit.DAMAGED, str(error)) from error
    if json:
        print_json(checked.plain())
    else:
        rows = [[part.part, part.file, "sound" if part.sound else "DAMAGED", part.text] for part in checked.parts]
        user = "nobody" if checked.server is None else f"process {checked.server}"
        show(table(f"Data folder {folder}, in use by {user}", ["part", "file", "verdict", "what was found"], rows))
    faults = [part for part in checked.parts if not part.sound]
    if faults:
        words = "; ".join(f"{part.part} {part.file}: {part.text}" for part in faults)
        raise CommandFailed(Exit.DAMAGED, f"{folder} is not sound. {words}")


def backup(
    folder: Folder,
    target: Annotated[Path, typer.Argument(help="Where the copy goes: a folder that is empty, or not there.")],
    json: JsonOption = False,
) -> None:
    """Copy a data folder while a server runs on it, and check the copy.

    Everything acknowledged before is in it: journal, snapshots, history, audit log and tokens.
    """
    from simswitch.folder.apart import Refused
    from simswitch.folder.backup import backup as back_up

    ours(folder)
    if target.resolve().is_relative_to(folder.resolve()):
        raise CommandFailed(Exit.REFUSED, f"{target} is inside of {folder}: a backup stands elsewhere, on another disk")
    try:
        found = back_up(folder, target)
    except Refused as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    if json:
        print_json(found)
    else:
        show(
            f"{target} is a backup of {folder} up to record {found['source_sequence']:,} "
            f"({exact_text(found['now_ms'])})"
        )
        _show_passed_over(found)


def restore(
    source: Annotated[
        Path, typer.Argument(metavar="BACKUP", help="A backup, or a data folder that nobody uses.", exists=True)
    ],
    folder: Annotated[Path, typer.Argument(help="The new data folder: empty, or not there.")],
    until: Annotated[
        str | None,
        typer.Option(help="A record's number, or an instant such as 2026-03-21T09:30 (local time). Default: the end."),
    ] = None,
    skip: Annotated[
        list[int] | None,
        typer.Option(help="Leave this record out. Needs --reason. Up to 1,000 times.", min=1, max=_RECORD_MAX),
    ] = None,
    reason: Annotated[
        str, typer.Option(help=f"Why, up to {_REASON_MAX:,} characters; it is kept in the audit log.")
    ] = "",
    json: JsonOption = False,
) -> None:
    """Make a data folder out of a backup, as it was after a record or at an instant.

    Every epoch handed out after that point is fenced. Point the server at the new folder; access servers reconcile as
    after any restart, and nobody is given a SIM anew before all of them have, or were declared dead.
    """
    from simswitch.cli.status import awaited_lines
    from simswitch.folder.apart import Refused
    from simswitch.folder.restore import ANEW, Wanted
    from simswitch.folder.restore import restore as restore_folder

    if len(reason) > _REASON_MAX:
        raise CommandFailed(Exit.USAGE, f"--reason takes {_REASON_MAX:,} characters, this has {len(reason):,}")
    wanted = Wanted(skip=tuple(sorted(set(skip or ()))), reason=reason)
    if until is not None and until.isascii() and until.isdigit():
        wanted = replace(wanted, until_sequence=_record(until))
    elif until is not None:
        wanted = replace(wanted, until_ms=instant_ms(until))
    try:
        found = restore_folder(source, folder, wanted)
    except Refused as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    if json:
        print_json(found)
        return
    show(f"{folder} stands as after record {found['sequence']:,} ({exact_text(found['now_ms'])})")
    show(f"fenced at {exact_text(found['at_ms'])}: no epoch that was handed out later is accepted")
    show(f"it belongs to {found['owner']}, as whom the service has to run")
    show(*awaited_lines(found["unheard"]))
    _show_passed_over(found)
    for text in found["set_aside"]:
        show(f"DAMAGED: {text}, and a new one begins. If it is that of tokens, make new ones")
    if found["valid_tokens"]:
        tokens = counted(len(found["valid_tokens"]), "token")
        one = len(found["valid_tokens"]) == 1
        show(
            f"{tokens} {'counts as it' if one else 'count as they'} did then, also what was revoked since: look with "
            f"`simswitch token list {folder}`"
        )
    if found["skipped"]:
        left_out = ", ".join(f"{sequence:,}" for sequence in found["skipped"])
        others = f"of the {found['replayed']:,} others {found['changed']:,} have other outcomes now"
        show(f"left out: {left_out}; {others}")
    if found["history"] == ANEW:
        show("there was no history, so one begins with what was replayed. If there should be one, take another backup")
    elif found["history"] != "kept":
        show(f"history tells of more than that, so it stands beside as {found['history']}, and a new one begins")


def _show_passed_over(found: dict[str, Any]) -> None:
    for text in found["passed_over"]:
        show(f"DAMAGED, and not needed: {text}")


def _record(digits: str) -> int:
    sequence = int(digits[:20])
    if len(digits) > 19 or not 1 <= sequence <= _RECORD_MAX:
        raise CommandFailed(Exit.USAGE, f"a record's number is 1 to {_RECORD_MAX:,}, not {digits[:20]}")
    return sequence


def instant_ms(text: str) -> int:
    """Exactly: a record that was written at that very millisecond is meant."""
    try:
        at = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise CommandFailed(Exit.USAGE, f"{text!r} is no record's number and no instant: {error}") from error
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


def _described(folder: Path, found: dict[str, Any]) -> list[Any]:
    """The same for people: what the folder holds, and how its journal ends."""
    holder, tail = found["lock"]["pid"], found["tail"]
    versions = ", ".join(map(str, found["machine_versions"])) or "none"
    parts: list[Any] = [
        f"Data folder {folder}, in use by {'nobody' if holder is None else f'process {holder}'}",
        f"Journal {found['journal_id'] or 'not begun'}, format version {found['format_version']}, records of machine "
        f"version {versions}, known durable up to record {found['durable_sequence']:,}",
    ]
    for title in ("segments", "snapshots"):
        records = found[title]
        if records:
            columns = ["as of" if column == "now_ms" else column.replace("_", " ") for column in records[0]]
            rows = [
                [exact_text(value) if name == "now_ms" and value else value for name, value in record.items()]
                for record in records
            ]
            parts.append(table(title.capitalize(), columns, rows))
        else:
            parts.append(f"There are no {title}.")
    end = tail["text"]
    if not tail["damaged"]:
        end += f": segment {tail['segment']}, byte {tail['offset']:,}; the next record is {tail['next_sequence']:,}"
        end += f"; {counted(tail['cut_bytes'], 'byte')} behind it are cut off at the next start" * bool(
            tail["cut_bytes"]
        )
    parts.append(f"The end of the journal: {end}")
    if found["alarm"]:
        parts.append(f"ALARM of the follower: {found['alarm']}")
    return parts


def follow(
    folder: Folder,
    metrics: MetricsOption = None,
    metrics_beyond_loopback: MetricsBeyondOption = False,
    config: ConfigOption = None,
) -> None:
    """Follow a server's journal: check every outcome, and make the snapshots. `serve` starts this by itself."""
    from simswitch.following import EXIT_USAGE
    from simswitch.following import main as follow_folder
    from simswitch.journal.errors import JournalError

    values = settings(config)
    seconds = values.number("follower", "snapshot_seconds")
    keep_ms = values.number("journal", "keep_hours") * 3_600_000
    figures: tuple[str, ...] = () if metrics is None else ("--metrics", metrics)
    if metrics_beyond_loopback:
        figures = (*figures, "--metrics-beyond-loopback")
    try:
        code = follow_folder([str(folder), "--snapshot-seconds", str(seconds), "--keep-ms", str(keep_ms), *figures])
    except JournalError as error:
        raise CommandFailed(Exit.DAMAGED, str(error)) from error
    if code == EXIT_USAGE:
        raise CommandFailed(Exit.USAGE, "the line above says what is wrong with --metrics")
    if code:
        raise CommandFailed(Exit.DAMAGED, f"following {folder} ended with a failure; the lines above say why")

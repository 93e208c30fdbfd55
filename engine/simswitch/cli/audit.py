"""``simswitch audit``: whether anybody touched the audit log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import JsonOption
from simswitch.cli.screen import print_json, show, table

app = typer.Typer(help="Verify the audit log.", no_args_is_help=True)


@app.command("verify")
def verify(
    folder: Annotated[Path, typer.Argument(help="The data folder.", exists=True, file_okay=False)],
    expect: Annotated[
        list[str] | None,
        typer.Option(help="FILE:NUMBER:HASH as this command printed it earlier: the entry must still be that one."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Walk every chained file and the decisions, and print their last hashes.

    Decisions are also compared with the journal, which is replayed, as far as that reaches back. A change, a gap or an
    insertion is named with its place, and so is what was found damaged before and set aside. Whoever may write the
    files could make them anew from the start: keep what this prints somewhere else, and give it back with --expect.
    """
    from simswitch.audit.chain import ChainDamaged
    from simswitch.audit.verify import Expected, set_aside_in
    from simswitch.folder.apart import Refused
    from simswitch.folder.audit import verify_audit
    from simswitch.history.schema import HistoryRefused
    from simswitch.journal.errors import JournalError

    try:
        wanted = [Expected.of(text) for text in expect or ()]
    except ValueError as error:
        raise CommandFailed(Exit.USAGE, str(error)) from error
    try:
        found = verify_audit(folder, wanted)
    except OSError as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except (ChainDamaged, HistoryRefused, JournalError, Refused) as error:
        raise CommandFailed(Exit.DAMAGED, str(error)) from error
    aside = set_aside_in(folder)
    if not found and not aside:
        raise CommandFailed(Exit.REFUSED, f"there is no audit log in {folder}: nothing was verified")
    names = ["file", "first", "last", "hash"]
    rows = [[file.name, file.first, file.last, file.hash] for file in found]
    if json:
        print_json({"files": [dict(zip(names, row, strict=True)) for row in rows], "set_aside": aside})
    elif found:
        show(table("Sound, of the audit log" if aside else "The audit log is sound", names, rows))
    faults = [file.gone for file in found if file.gone]
    if aside:
        faults.append(
            f"in {folder} was found damaged, and set aside: {', '.join(aside)}. Look at it, and then move it away"
        )
    if faults:
        raise CommandFailed(Exit.DAMAGED if aside else Exit.REFUSED, "; ".join(faults))

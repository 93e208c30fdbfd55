"""``simswitch import``: an inventory from files into a running service."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from simswitch.cli.amounts import counted
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import complain, print_json, progress, show, table


def import_inventory(
    definitions: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Suppliers, plans, classes, markets, banks, access servers: TOML."
        ),
    ] = None,
    lots: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Lots: CSV, one line a purchase.")
    ] = None,
    sims: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="SIMs: CSV, one line a card, with opening balances and live assignments."
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take the good lines of SIMs and write the others, with why, to a file.")
    ] = False,
    rejected: Annotated[
        Path | None, typer.Option(help="Where --partial writes the others. Default: beside the file, .rejected.csv.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only check the files against the service; import nothing.")
    ] = False,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Import an inventory. A file with a bad line is refused as a whole, and each bad line named."""
    if not (definitions or lots or sims):
        raise CommandFailed(Exit.USAGE, "name at least one of --definitions, --lots and --sims")
    if partial and not sims:
        raise CommandFailed(Exit.USAGE, "--partial is about SIMs: name them with --sims")
    from simswitch.cli.connection import connected
    from simswitch.inventory.problems import FileRefused
    from simswitch.toml_lines import TomlRefused

    try:
        with connected(*target(config, address, actor)) as service:
            report = import_files(service.inventory, definitions, lots, sims, partial, rejected, check)
    except TomlRefused as error:
        raise CommandFailed(Exit.REFUSED, f"{error}; nothing was imported") from error
    except FileRefused as refused:
        if json:
            print_json({"file": str(refused.file), "problems": [_problem(problem) for problem in refused.problems]})
        for problem in refused.problems:
            complain(problem.render(refused.file))
        raise CommandFailed(Exit.REFUSED, f"{refused}; nothing was imported") from refused
    if json:
        print_json(report)
    else:
        _show(report)
    if report.get("refused"):
        for entry in report["refused"]:
            complain(f"{sims}:{entry['line']}: {entry['what']}: the service refused it: {entry['status']}")
        taken = report["sims"]["imported_count"]
        raise CommandFailed(
            Exit.REFUSED,
            "the service refused the lines above; "
            + (
                f"{counted(taken, 'SIM was', 'SIMs were')} imported"
                if taken
                else "no SIM was imported, the definitions were"
            ),
        )


def _problem(problem: Any) -> dict[str, Any]:
    return {"line": problem.line, "column": problem.column, "value": problem.value, "text": problem.text}


def import_files(
    stub: Any,
    definitions_file: Path | None,
    lots_file: Path | None,
    sims_file: Path | None,
    partial: bool,
    rejected_file: Path | None,
    check: bool,
) -> dict[str, Any]:
    """Reads and checks every file before the first of them is sent."""
    from simswitch.inventory.definitions import Definitions, read_definitions
    from simswitch.inventory.importer import adopt_terminals, define, import_sims, read_catalogue
    from simswitch.inventory.lots import read_lots
    from simswitch.inventory.sims import read_sims

    report: dict[str, Any] = {"checked_only": check, "notes": []}
    catalogue = read_catalogue(stub)
    definitions = read_definitions(definitions_file) if definitions_file else Definitions()
    catalogue.extend(definitions, [])
    lots = read_lots(lots_file, catalogue.suppliers, catalogue.plans, catalogue.classes) if lots_file else []
    report["notes"] += [
        f"nobody says when the windows of plan {plan.name} start anew (it has no `resets`): what is used in them "
        "counts for good, but for lots with a closing day of their own"
        for plan in definitions.plans
        if plan.windows and plan.resets is None
    ]
    catalogue.extend(Definitions(), lots)
    now = datetime.now().astimezone()
    known = catalogue.known(now)
    reading = None
    with progress() as display:
        if sims_file:
            task = display.add_task("reading bytes", total=sims_file.stat().st_size)
            reading = read_sims(
                sims_file,
                known,
                now,
                partial=partial,
                progress=lambda position: display.update(task, completed=position),
            )
            report["notes"] += reading.notes
        if not check:
            task = display.add_task("definitions", total=definitions.count + len(lots))
            define(stub, definitions, lots, lambda count: display.update(task, completed=count))
        report["definitions"] = {
            "suppliers": len(definitions.suppliers),
            "plans": len(definitions.plans),
            "classes": len(definitions.classes),
            "markets": len(definitions.markets),
            "banks": len(definitions.banks),
            "access_servers": len(definitions.access_servers),
            "subscriber_groups": len(definitions.subscriber_groups),
            "lots": len(lots),
        }
        if reading is None:
            return report
        columns = reading.columns
        report["sims"] = {"good_count": columns.count, "bad_count": len(reading.table.bad_lines)}
        report["assignments"] = {"good_count": columns.assignments_count}
        left_out = {line: list(reasons) for line, reasons in reading.table.bad_lines.items()}
        if check or not columns.count:
            _write_left_out(reading, left_out, rejected_file, report, check)
            return report
        task = display.add_task("SIMs", total=columns.count)
        result = import_sims(
            stub, columns, known, partial=partial, progress=lambda count: display.update(task, completed=count)
        )
        report["sims"].update(
            imported_count=result.imported_count, same_count=result.same_count, refused_count=result.refused_count
        )
        if columns.assignments_count and (partial or not result.refused_count):
            task = display.add_task("live assignments", total=columns.assignments_count)
            adopt_terminals(stub, columns, known, result, lambda count: display.update(task, completed=count))
        report["assignments"].update(adopted_count=result.adopted_count, same_count=result.adopted_same_count)
        report["refused"] = [
            {"line": entry.line, "what": entry.what, "status": entry.status} for entry in result.refused
        ]
        if partial:
            for entry in result.refused:
                left_out.setdefault(entry.line, []).append(f"{entry.what}: refused by the service: {entry.status}")
        _write_left_out(reading, left_out, rejected_file, report, check)
    return report


def _write_left_out(
    reading: Any, left_out: dict[int, list[str]], rejected_file: Path | None, report: dict[str, Any], check: bool
) -> None:
    """The lines that were not taken, by the file's check or by the service, go to a file, each with why."""
    if left_out and not check:
        rejected = rejected_file or reading.file.with_name(reading.file.name + ".rejected.csv")
        report["rejected_file"] = str(rejected)
        reading.table.write_rejected(rejected, left_out)


def _show(report: dict[str, Any]) -> None:
    rows: list[list[object]] = [
        [kind.replace("_", " "), count] for kind, count in report["definitions"].items() if count
    ]
    for kind in ("sims", "assignments"):
        for name, count in report.get(kind, {}).items():
            words = name.removesuffix("_count").replace("same", "there already").replace("_", " ")
            rows.append([f"{'SIMs' if kind == 'sims' else 'live assignments'}, {words}", count])
    show(table("Checked, nothing imported" if report["checked_only"] else "Imported", ["what", "count"], rows))
    for note in report["notes"]:
        show(f"Note: {note}.")
    if "rejected_file" in report:
        show(f"The lines that were left out stand in {report['rejected_file']}, each with why.")

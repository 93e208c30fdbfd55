"""``simswitch usage import``: what a carrier says that its SIMs, or all of a lot, have used, from its portal's CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from simswitch.cli.amounts import bytes_text, counted, instant_text
from simswitch.cli.caps import WindowWord
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import complain, print_json, show, table

if TYPE_CHECKING:
    from simswitch.client import OperatorClient
    from simswitch.inventory.carrier_usage import Figures

app = typer.Typer(help="Take carriers' figures of what SIMs have used.")

CHUNK = 16_384
SHOWN = 50
CALL_TIMEOUT_S = 120.0
SET_ASIDE = {
    "negative_usage": "less than nothing was used: ask the carrier for the total instead of its own correction",
    "future_usage": "it is of an instant to come: look at the instant (--as-of, or its column) and its time zone; "
    "with --of-day: or the day is not over",
    "impossible_usage": "no line carries so much since the window began: look at the unit and the decimal sign "
    "(--columns unit=, unit_column=, --decimal-comma), or raise line_bytes_per_s if the line is that fast; or the "
    "carrier itself said more, no later, of the day (or the rolling days) in that window, or of the SIMs of that lot: "
    "ask it which figure is right",
    "past_window": "its window had not begun then at every SIM of the lot, or its day has left the rolling window: "
    "take a figure of what runs (of an older day of a rolling one: --of-day)",
    "no_window": "its lot has no such window: look at --window, or give its plan one; with a lot: or its SIMs don't "
    "share it; with --of-day: days are kept one by one only of a rolling window of up to 15",
}
"""What is kept in history and counts nothing: why, and what to do."""
FROZEN = (
    "the service's clock jumped and is at {now} until it is confirmed: by it, it is of an instant to come. Look at the "
    "machine's clock, then `simswitch clock confirm`, and import it again"
)
"""Why, and what to do, where the clock may be what is wrong with a figure of an instant to come."""
FINE = ("ok", "same", "late", *SET_ASIDE)
"""What needs no mending: taken, known already, or set aside and shown."""
REFUSED = {
    "unknown_sim": "the pool has no such SIM: import it, or leave the line out with --partial",
    "unknown_lot": "there is no such lot (`simswitch pool` names all): leave the line out with --partial",
    "count_unknown": "history has a gap before its instant, or knows of lots not so far back, and our count by then is "
    "not known: take a later one",
    "wrong_state": "its window starts anew just now, or once the clock is confirmed: import it again in a few minutes",
    "invalid_argument": "it has no instant (--as-of, or its column)",
}
"""What was not taken: why, and what to do."""


@app.callback()
def usage() -> None:
    """Take carriers' figures of what SIMs have used."""


@app.command("import")
def import_usage(
    file: Annotated[Path, typer.Argument(help="CSV, as the carrier's portal gives it.", exists=True, dir_okay=False)],
    columns: Annotated[
        str,
        typer.Option(
            help="Which column says what: iccid=ICC-ID (or imsi=…, or lot=… of figures of all SIMs of a lot together), "
            "used=…, unit_column=… where each line has its unit, as_of=… where each has its instant; and unit=MB, no "
            "column: of amounts for which nothing names one, not even their column's title, such as Used (MB). A pair "
            "whose column has a comma stands in quotes: "
            '"used=used, total". Default: iccid=iccid,used=used; with --lot: used=used.'
        ),
    ] = "",
    lot: Annotated[
        str, typer.Option("--lot", help="All lines are of this lot: of all its SIMs together, which share the window.")
    ] = "",
    window: Annotated[WindowWord, typer.Option(help="Which window the figures are of.")] = WindowWord.CYCLE,
    of_day: Annotated[
        bool,
        typer.Option(
            "--of-day",
            help="With --window rolling: each figure is of a single day of it, and its instant when that ended.",
        ),
    ] = False,
    as_of: Annotated[str, typer.Option("--as-of", help="Up to when the figures count: 2026-03-21T07:00+09:00.")] = "",
    zone: Annotated[
        str, typer.Option(help="Of instants that name none: Asia/Tokyo or +09:00. Without it such are refused.")
    ] = "",
    encoding: Annotated[str, typer.Option(help="The file's: cp932 of a Japanese Excel, say.")] = "utf-8",
    delimiter: Annotated[str, typer.Option(help="Between the fields of a line; tab for one.")] = ",",
    decimal_comma: Annotated[bool, typer.Option("--decimal-comma", help="Amounts are written 1.234,5.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take the good lines and write the others, with why, to a file.")
    ] = False,
    rejected: Annotated[
        Path | None, typer.Option(help="Where --partial writes the others. Default: beside the file, .rejected.csv.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show how the figures differ from ours; take nothing.")
    ] = False,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Import what a carrier says was used, by SIM or by pooled lot.

    A file with a bad line is refused as a whole, and each bad line named.

    What counts from then on is the carrier's figure and what we counted since. The same file again changes nothing.
    """
    from simswitch.cli.connection import connected
    from simswitch.inventory.carrier_usage import read_carrier_usage, read_format, read_instant, read_zone
    from simswitch.inventory.problems import FileRefused

    with _option("--encoding"):
        _check_encoding(encoding)
    with _option("--zone"):
        of_zone = read_zone(zone) if zone else None
    delimiter = "\t" if delimiter in ("tab", "\\t") else delimiter
    with _option("--columns"):
        written = read_format(
            columns or ("used=used" if lot else "iccid=iccid,used=used"),
            delimiter=delimiter,
            decimal_comma=decimal_comma,
            encoding=encoding,
            zone=of_zone,
            of_lot=lot,
        )
    if of_day and window != WindowWord.ROLLING:
        raise CommandFailed(
            Exit.USAGE, "--of-day goes with --window rolling: other windows are of one day, or of their cycle"
        )
    if len(delimiter) != 1:
        raise CommandFailed(Exit.USAGE, f"--delimiter takes one character, not {delimiter!r}")
    if bool(as_of) == bool(written.as_of):
        raise CommandFailed(
            Exit.USAGE, "say with --as-of up to when the figures count, or with as_of= which column does"
        )
    with _option("--as-of"):
        at = read_instant(as_of, of_zone) if as_of else None
    try:
        figures = read_carrier_usage(file, written, at, partial=partial)
    except FileRefused as refused:
        if json:
            problems = [
                {"line": each.line, "column": each.column, "value": each.value, "text": each.text}
                for each in refused.problems
            ]
            print_json({"file": str(file), "problems": problems})
        for problem in refused.problems[:SHOWN]:
            complain(problem.render(file))
        if len(refused.problems) > SHOWN:
            complain(f"{len(refused.problems) - SHOWN:,} more; --json has all")
        raise CommandFailed(Exit.REFUSED, f"{refused}; nothing was imported") from refused
    with connected(*target(config, address, actor)) as service:
        asked = Asked(window, of_day, "iccid" if written.iccid else "imsi" if written.imsi else "lot")
        report = take(service, figures, asked, partial=partial, dry_run=dry_run)
    left_out = figures.table.bad_lines
    for each in report["refused"]:
        left_out.setdefault(each["line"], []).append(f"the service refused it: {each['status']}: {each['why']}")
    report["left_out_count"] = len(left_out)
    report["repeated_count"] = figures.repeated_count
    if partial and left_out and not dry_run:
        target_file = rejected or file.with_name(file.name + ".rejected.csv")
        figures.table.write_rejected(target_file, left_out)
        report["rejected_file"] = str(target_file)
    if json:
        print_json(report)
    else:
        _show(report, dry_run)
    aside = "set aside" if report["taken"] else "would be set aside"
    _name(file, [each for each in report["figures"] if each["status"] in SET_ASIDE], aside)
    _name(file, report["refused"], "the service refused it")
    if report["refused"] and not partial:
        raise CommandFailed(Exit.REFUSED, "the service refused the lines above; no figure was taken")


@contextmanager
def _option(name: str) -> Iterator[None]:
    """What is wrong with the value of an option, told with its name."""
    try:
        yield
    except ValueError as error:
        raise CommandFailed(Exit.USAGE, f"{name}: {error}") from error


def _check_encoding(name: str) -> None:
    """Fields and lines are told apart in text: every encoding that has ASCII as it is can be read."""
    try:
        plain = "iccid,0\r\n".encode(name) == b"iccid,0\r\n"
    except (LookupError, UnicodeError):
        raise ValueError(f"there is no encoding {name!r}; it is such as utf-8, cp932 or latin-1") from None
    if not plain:
        raise ValueError(f"{name} can't be read here; save the file as UTF-8")


class Asked(NamedTuple):
    """What the figures of a file are of."""

    window: WindowWord
    of_day: bool
    named_by: str
    """``iccid`` or ``imsi``; ``lot``: each is of all its SIMs together."""


def take(service: OperatorClient, figures: Figures, asked: Asked, *, partial: bool, dry_run: bool) -> dict[str, Any]:
    """Asks what would become of every figure, and takes them unless one can't be, or it was only asked."""
    found = _send(service, figures, range(len(figures.line)), asked, dry_run=True)
    refused = [each for each in found if each["status"] not in FINE]
    if not dry_run and (partial or not refused):
        # That a SIM is not known is told in earnest too: so the figure stands in history, among those set aside.
        good = [place for place, each in enumerate(found) if each["status"] in (*FINE, "unknown_sim")]
        taken = _send(service, figures, good, asked, dry_run=False)
        for place, each in zip(good, taken, strict=True):
            found[place] = each
        refused = [each for each in found if each["status"] not in FINE]
    counts = Counter(each["status"] for each in found)
    if counts["future_usage"]:
        _look_at_the_clock(service, [each for each in found if each["status"] == "future_usage"])
    return {
        "dry_run": dry_run,
        "window": str(asked.window),
        "of_day": asked.of_day,
        "taken": not dry_run and (partial or not refused),
        "counts": dict(sorted(counts.items())),
        "correction_bytes": sum(each["correction_bytes"] for each in found if each["status"] == "ok"),
        "figures": found,
        "refused": refused,
    }


def _look_at_the_clock(service: OperatorClient, future: list[dict[str, Any]]) -> None:
    from simswitch.v1 import pool_pb2

    summary = service.pool.GetSummary(pool_pb2.GetSummaryRequest(), timeout=CALL_TIMEOUT_S)
    if summary.frozen:
        for each in future:
            each["why"] = FROZEN.format(now=instant_text(summary.now_ms))


def _send(
    service: OperatorClient,
    figures: Figures,
    places: range | list[int],
    asked: Asked,
    *,
    dry_run: bool,
) -> list[dict[str, Any]]:
    from simswitch.cli.messages import enum_word
    from simswitch.client.operator import how_far
    from simswitch.core.commands import decode_iccid
    from simswitch.v1 import caps_pb2, inventory_pb2, status_pb2

    kind = inventory_pb2.CapWindowKind.Value(f"CAP_WINDOW_KIND_{asked.window.name}")
    found: list[dict[str, Any]] = []
    words = "{:,} of {:,} figures were told, and telling them again changes nothing"
    with how_far(lambda: "no figure was taken" if dry_run else words.format(len(found), len(places))):
        for start in range(0, len(places), CHUNK):
            part = places[start : start + CHUNK]
            named: list[Any] = [figures.lot[place] if asked.named_by == "lot" else figures.sim[place] for place in part]
            request = caps_pb2.ImportCarrierUsageRequest(
                window=kind,
                of_day=asked.of_day,
                iccid=named if asked.named_by == "iccid" else [],
                imsi=named if asked.named_by == "imsi" else [],
                lot=named if asked.named_by == "lot" else [],
                as_of_s=[figures.as_of_s[place] for place in part],
                carrier_bytes=[figures.carrier_bytes[place] for place in part],
                dry_run=dry_run,
            )
            answer = service.caps.ImportCarrierUsage(request, timeout=CALL_TIMEOUT_S)
            columns = (answer.status, answer.correction_bytes, answer.lowered_bytes, answer.raised_bytes, answer.iccid)
            for place, name, status, correction, lowered, raised, iccid in zip(part, named, *columns, strict=True):
                word = enum_word(status_pb2.Status.DESCRIPTOR, status)
                told = figures.carrier_bytes[place]
                found.append(
                    {
                        "line": figures.line[place],
                        "sim": ""
                        if asked.named_by == "lot"
                        else decode_iccid(name)
                        if asked.named_by == "iccid"
                        else str(name),
                        "lot": name if asked.named_by == "lot" else "",
                        "iccid": decode_iccid(iccid) if iccid else "",
                        "as_of_ms": figures.as_of_s[place] * 1000,
                        "carrier_bytes": told,
                        "our_bytes": told - correction if word in ("ok", "same") else None,
                        "correction_bytes": correction,
                        "lowered_bytes": lowered,
                        "raised_bytes": raised,
                        "status": word,
                        "why": SET_ASIDE.get(word, REFUSED.get(word, "")),
                    }
                )
    return found


def _show(report: dict[str, Any], dry_run: bool) -> None:
    largest = sorted(report["figures"], key=lambda each: -abs(each["correction_bytes"]))[:SHOWN]
    if dry_run:
        rows = [
            [
                each["sim"] or each["lot"],
                each["line"],
                instant_text(each["as_of_ms"]),
                _signed(each["carrier_bytes"]),
                "-" if each["our_bytes"] is None else _signed(each["our_bytes"]),
                _signed(each["correction_bytes"]),
                each["status"].replace("_", " "),
            ]
            for each in largest
        ]
        title = f"What the carrier says of the {report['window']} beside our own count, nothing taken"
        show(table(title, ["SIM or lot", "line", "as of", "carrier", "we", "difference", "would be"], rows))
        if len(report["figures"]) > SHOWN:
            show(
                f"These are the {SHOWN} largest differences of {counted(len(report['figures']), 'figure')}; "
                "--json has all."
            )
    taken = "taken" if report["taken"] else "would be taken"
    words = {"ok": taken, "same": "there already", "late": "older than the last one"}
    if report["of_day"]:
        # Of several days that stand as one, nobody knows what of it is of this one.
        words["late"] = "of a day for which one of the whole window holds, or which stands as one with others"
    words.update(impossible_usage="impossible, set aside", past_window="of before its window, set aside")
    words.update(no_window="of a window that its lot has not, set aside")
    words.update(negative_usage="negative, set aside", future_usage="of an instant to come, set aside")
    if not report["taken"]:
        words = {name: word.replace(", set aside", ", would be set aside") for name, word in words.items()}
    rows = [[words.get(name, name.replace("_", " ")), count] for name, count in report["counts"].items()]
    if report["left_out_count"]:
        rows.append(["lines left out", report["left_out_count"]])
    if report["repeated_count"]:
        rows.append(["lines that say an earlier one again", report["repeated_count"]])
    show(table("Figures", ["what", "count"], rows))
    beyond = report["correction_bytes"]
    show(f"Altogether the carrier counted {bytes_text(abs(beyond))} {'less' if beyond < 0 else 'more'} than we had.")
    lowered = sorted(
        (each for each in report["figures"] if each["lowered_bytes"]), key=lambda each: -each["lowered_bytes"]
    )
    if lowered:
        first = lowered[0]
        kept = "corrections" if first["sim"] else "pool_corrections"
        show(
            f"{counted(len(lowered), 'figure')} below what the carrier said before of the same window, most so "
            f"{'SIM ' + first['sim'] if first['sim'] else first['lot']}, by {bytes_text(first['lowered_bytes'])}: it "
            f"corrects itself, or one of the two is wrong (`simswitch history {kept}` has both)."
        )
    for each in report["figures"]:
        if each["raised_bytes"]:
            show(
                f"{each['lot']}: {bytes_text(each['raised_bytes'])} more counts than the carrier said of all its SIMs, "
                "since it said no less of them one by one: ask it which is right (`simswitch caps` has both)."
            )
    if "rejected_file" in report:
        show(f"The lines that were left out stand in {report['rejected_file']}, each with why.")


def _name(file: Path, figures: list[dict[str, Any]], what: str) -> None:
    """Each row that does not count: which, what it says, why not, and what to do."""
    for each in figures[:SHOWN]:
        said = f"{_signed(each['carrier_bytes'])} as of {instant_text(each['as_of_ms'])}"
        why = f" ({each['why']})" if each["why"] else ""
        named = each["sim"] or each["lot"]
        complain(f"{file}:{each['line']}: {named}: {said}: {what}: {each['status'].replace('_', ' ')}{why}")
    if len(figures) > SHOWN:
        complain(f"{len(figures) - SHOWN:,} more like these; --json has all")


def _signed(count: int) -> str:
    return f"-{bytes_text(-count)}" if count < 0 else bytes_text(count)

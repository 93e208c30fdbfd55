"""``simswitch report``: reports for people who were not there."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from json import loads
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, Target, file_text, target
from simswitch.cli.replay import scenario_file
from simswitch.cli.screen import complain, print_json

app = typer.Typer(help="Write reports from what happened.", no_args_is_help=True)

REPORT_TIMEOUT_S = 70.0
"""The service gives up before."""
_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M"]


class Language(StrEnum):
    JAPANESE = "ja"
    ENGLISH = "en"


ZoneOption = Annotated[
    str, typer.Option("--zone", help="Time zone of the report's dates; that of the setting day_begins.")
]
LanguageOption = Annotated[Language, typer.Option("--language", help="ja or en.")]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Write a page that prints well to this file, instead of Markdown.")
]


@app.command("accident")
def accident(
    facts: Annotated[Path, typer.Option("--facts", help="TOML: what people know (examples/accident-2020.toml).")],
    folder: Annotated[
        Path | None, typer.Argument(help="A data folder. Without one the service is asked.", file_okay=False)
    ] = None,
    from_: Annotated[
        datetime | None,
        typer.Option("--from", formats=_FORMATS, help="From when on, in the zone. Without: as far as history goes."),
    ] = None,
    to: Annotated[
        datetime | None,
        typer.Option("--to", formats=_FORMATS, help="Before when, in the zone. Without: as far as history goes."),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option("--replay", help="First replay this scenario, on each of its dates, and keep its history in DIR."),
    ] = None,
    policy: Annotated[
        str, typer.Option("--policy", help="How swaps are ordered in it: unbounded (as in 2020), fixed, engine.")
    ] = "unbounded",
    zone: ZoneOption = "Asia/Tokyo",
    rules: Annotated[
        str, typer.Option("--rules", help="Rule set: the name of one that is shipped, or a TOML file.")
    ] = "jp-2020",
    language: LanguageOption = Language.JAPANESE,
    html: HtmlOption = None,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
) -> None:
    """Write the report on an accident.

    When allocations failed or service was degraded, for whom, how long, and what that makes of it by the rules.
    """
    from simswitch.history.schema import HistoryRefused, open_reader
    from simswitch.reports import accident as accidents
    from simswitch.reports import rendering
    from simswitch.reports.rules import read_rules, shipped
    from simswitch.toml_lines import TomlRefused

    here = _zone(zone)
    if replay is None and (from_ is None or to is None):
        raise CommandFailed(Exit.USAGE, "which time? Give --from and --to (only what was replayed is taken as a whole)")
    begin_ms = 0 if from_ is None else round(from_.replace(tzinfo=here).timestamp() * 1000)
    end_ms = 1 << 50 if to is None else round(to.replace(tzinfo=here).timestamp() * 1000)
    if begin_ms >= end_ms:
        raise CommandFailed(Exit.USAGE, f"--from {from_} is not before --to {to}")
    if folder is None:
        if replay is not None:
            raise CommandFailed(Exit.USAGE, "name a folder in which the history of the replay is kept")
        form = "markdown" if html is None else "html"
        at = target(config, address, actor)
        _write(_accident_asked(facts, begin_ms, end_ms, zone, rules, language, form, at), html)
        return
    if replay is not None:
        _replay(replay, policy, folder)
    path = shipped().get(rules, Path(rules))
    try:
        rule_set, known = read_rules(path), accidents.read_facts(facts)
        history = open_reader(folder)
        found = accidents.read_accident(history, begin_ms, end_ms, known, rule_set, here)
        if replay is None:
            found.unknown.extend(accidents.not_on_record(history, begin_ms, end_ms, here))
        document = accidents.report(found, known, rule_set, str(folder))
        page = rendering.markdown(document, language) if html is None else rendering.html(document, language)
    except OSError as error:
        hint = f"; shipped are {', '.join(shipped())}" if error.filename == str(path) else ""
        raise CommandFailed(Exit.REFUSED, f"{error.filename} can't be read: {error.strerror}{hint}") from error
    except ImportError as error:
        raise CommandFailed(Exit.REFUSED, "--html needs Jinja: install simswitch[report]") from error
    except (HistoryRefused, TomlRefused, ValueError) as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    _write(page, html)


@app.command("daily")
def daily(
    folder: Annotated[
        Path | None,
        typer.Argument(help="A data folder. Without one the service is asked, which shows what the actor may see."),
    ] = None,
    day: Annotated[
        datetime | None,
        typer.Option("--day", formats=["%Y-%m-%d"], help="Which day. Default: the last that is over."),
    ] = None,
    zone: ZoneOption = "Asia/Tokyo",
    language: LanguageOption = Language.JAPANESE,
    html: HtmlOption = None,
    json: JsonOption = False,
    for_: Annotated[
        str | None,
        typer.Option(
            "--for",
            help="Of a folder, for whom: operator (the default), supplier:NAME, technology-provider, or auditor (with "
            "the decisions).",
        ),
    ] = None,
    cycle_day: Annotated[
        int,
        typer.Option("--cycle-day", min=1, max=31, help="When cycles begin that follow no calendar."),
    ] = 1,
    terms: Annotated[
        Path | None,
        typer.Option("--terms", help="TOML: holidays, campaigns, supplies (examples/plan/terms.toml)."),
    ] = None,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
) -> None:
    """Write the daily operations report.

    Pool by lot, use, swaps, service and jobs, against the day before.
    """
    from simswitch.history.schema import HistoryRefused, open_reader
    from simswitch.planning.terms import read_terms
    from simswitch.reports import daily as pages
    from simswitch.reports import rendering
    from simswitch.reports.views import View
    from simswitch.toml_lines import TomlRefused

    here = _zone(zone)
    if folder is None:
        if for_ is not None:
            raise CommandFailed(
                Exit.USAGE, "--for goes with a folder; a service shows what the actor may see (--actor)"
            )
        form = "json" if json else "markdown" if html is None else "html"
        page = _asked(day, zone, language, form, cycle_day, terms, target(config, address, actor))
        if json:
            print_json(loads(page))
        else:
            _write(page, html)
        return
    try:
        view = View.of(for_ or "operator")
    except ValueError as error:
        raise CommandFailed(Exit.USAGE, f"--for: {error}") from error
    try:
        history = open_reader(folder)
        wanted = pages.last_day(history) if day is None else day.date()
        if wanted is None:
            raise CommandFailed(Exit.REFUSED, "history has no day that is over yet: name one with --day")
        days = (pages.read_day(history, at, here) for at in (wanted, wanted - timedelta(days=1)))
        today, yesterday = (view.seen(day) for day in days)
        shortfall = pages.shortfall_text(history, wanted, cycle_day, read_terms(terms), today.rights)
    except OSError as error:
        raise CommandFailed(Exit.REFUSED, f"{error.filename} can't be read: {error.strerror}") from error
    except (HistoryRefused, TomlRefused) as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    if json:
        print_json(pages.document(today, yesterday, shortfall))
        return
    document = pages.report(today, yesterday, shortfall, here, str(folder))
    try:
        page = rendering.markdown(document, language) if html is None else rendering.html(document, language)
    except ImportError as error:
        raise CommandFailed(Exit.REFUSED, "--html needs Jinja: install simswitch[report]") from error
    _write(page, html)


def _asked(
    day: datetime | None, zone: str, language: Language, form: str, cycle_day: int, terms: Path | None, at: Target
) -> str:
    """The page as the service makes it."""
    from simswitch.cli.connection import connected
    from simswitch.v1 import history_pb2 as pb

    with connected(*at) as service:
        request = pb.MakeDailyReportRequest(
            day="" if day is None else f"{day:%Y-%m-%d}",
            zone=zone,
            language=language.value,
            form=pb.ReportForm.Value(f"REPORT_FORM_{form.upper()}"),
            cycle_day=cycle_day,
            terms=file_text(terms),
        )
        return service.history.MakeDailyReport(request, timeout=REPORT_TIMEOUT_S).page


def _accident_asked(
    facts: Path, from_ms: int, until_ms: int, zone: str, rules: str, language: Language, form: str, at: Target
) -> str:
    """The page as the service makes it."""
    from simswitch.cli.connection import connected
    from simswitch.reports.rules import shipped
    from simswitch.v1 import history_pb2 as pb

    with connected(*at) as service:
        request = pb.MakeAccidentReportRequest(
            facts=file_text(facts),
            from_ms=from_ms,
            until_ms=until_ms,
            zone=zone,
            rules=shipped()[rules].read_text(encoding="utf-8") if rules in shipped() else file_text(Path(rules)),
            language=language.value,
            form=pb.ReportForm.Value(f"REPORT_FORM_{form.upper()}"),
        )
        return service.history.MakeAccidentReport(request, timeout=REPORT_TIMEOUT_S).page


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise CommandFailed(Exit.USAGE, f"--zone: there is no time zone {name!r}") from error


def _write(page: str, html: Path | None) -> None:
    if html is None:
        typer.echo(page, nl=False)
        return
    try:
        html.write_text(page, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(Exit.REFUSED, f"{html} can't be written: {error.strerror}") from error
    complain(f"report: {html}")


def _replay(scenario: Path, policy: str, folder: Path) -> None:
    from simswitch import twin
    from simswitch.history.schema import HistoryRefused

    try:
        twin.record(scenario_file(scenario), policy, folder, lambda day: complain(f"{day} is replayed"))
    except twin.ScenarioError as error:
        raise CommandFailed(Exit.USAGE, str(error)) from error
    except (twin.ReplayError, HistoryRefused) as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error

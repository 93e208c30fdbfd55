"""``simswitch plan``: when the pool runs dry, what to buy, which limit would close the gap."""

from __future__ import annotations

from json import loads
from pathlib import Path
from typing import Annotated, Any

import typer

from simswitch.cli.amounts import bytes_text
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, Target, file_text, target
from simswitch.cli.screen import complain, print_json, show, table

PLAN_TIMEOUT_S = 70.0
"""The service gives up before."""


def plan(
    use: Annotated[
        Path | None,
        typer.Argument(
            help="A service's data folder; or a CSV: day, used_bytes, subscribers; terminals and peak_active if known. "
            "Without any the service is asked."
        ),
    ] = None,
    lots: Annotated[
        Path | None,
        typer.Argument(help="With a CSV of use, one of lots: what each has left, and how well its cap is known."),
    ] = None,
    subscribers: Annotated[
        Path | None,
        typer.Option("--subscribers", help="CSV with the column used_bytes: each subscriber's use in this month."),
    ] = None,
    terms: Annotated[
        Path | None,
        typer.Option("--terms", help="TOML: holidays, campaigns, supplies, offers, costs (examples/plan/terms.toml)."),
    ] = None,
    cycle_day: Annotated[
        int,
        typer.Option(
            "--cycle-day",
            min=1,
            max=31,
            help="Of a folder: when cycles begin that follow no calendar.",
        ),
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the paths that are drawn.")] = 1,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw use, what is left and the dry date (PNG).")] = None,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Say when the pool runs dry, what to buy by when, and which limit would do.

    How many SIMs of each offer, and which limit for each subscriber would close the gap.
    """
    if use is None:
        if plot is not None or subscribers is not None:
            raise CommandFailed(Exit.USAGE, "--plot and --subscribers go with a folder or files, not with a service")
        document = _asked(terms, cycle_day, seed, target(config, address, actor))
        if json:
            print_json(document)
        else:
            show(*_shown(document))
        return
    from simswitch.history.schema import HistoryRefused, open_reader
    from simswitch.inventory.problems import FileRefused
    from simswitch.planning import observed, tables
    from simswitch.planning.plan import plan as make_plan
    from simswitch.planning.terms import read_terms
    from simswitch.toml_lines import TomlRefused

    if use.is_dir() != (lots is None):
        raise CommandFailed(Exit.USAGE, "give the data folder of a service, or two CSV files: of use and of lots")
    if use.is_dir() and subscribers is not None:
        raise CommandFailed(Exit.USAGE, "--subscribers goes with CSV files; a service's history knows them")
    try:
        if lots is None:
            situation = observed.read_situation(open_reader(use), cycle_day=cycle_day)
        else:
            situation = tables.read_situation(use, lots, subscribers)
        found = make_plan(situation, read_terms(terms), seed=seed)
    except FileRefused as error:
        for problem in error.problems:
            complain(problem.render(error.file))
        raise CommandFailed(Exit.REFUSED, f"{error}; nothing was planned") from error
    except (HistoryRefused, TomlRefused, observed.NotEnough) as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except OSError as error:
        raise CommandFailed(Exit.REFUSED, f"{error.filename} can't be read: {error.strerror}") from error
    except ImportError as error:
        raise CommandFailed(Exit.REFUSED, f"planning needs {error.name}: install simswitch[plan]") from error
    if json:
        print_json(found.document)
    else:
        show(*_shown(found.document))
    if plot is not None:
        from simswitch.planning.picture import draw

        try:
            draw(found, plot)
        except ImportError as error:
            raise CommandFailed(Exit.REFUSED, "--plot needs matplotlib: install simswitch[plot]") from error
        except OSError as error:
            raise CommandFailed(Exit.REFUSED, f"{plot} can't be written: {error.strerror}") from error
        complain(f"picture: {plot}")


def _asked(terms: Path | None, cycle_day: int, seed: int, at: Target) -> dict[str, Any]:
    """The figures as the service works them out."""
    from simswitch.cli.connection import connected
    from simswitch.v1 import history_pb2 as pb

    with connected(*at) as service:
        request = pb.MakePlanRequest(terms=file_text(terms), cycle_day=cycle_day, seed=seed)
        document: dict[str, Any] = loads(service.history.MakePlan(request, timeout=PLAN_TIMEOUT_S).document)
    return document


def _day(value: str | None, days: int) -> str:
    return value or f"not within {days} days"


def _shown(found: dict[str, Any]) -> list[Any]:
    days = found["horizon_days"]
    volume, limit, simultaneity = found["volume"], found["operating_limit"], found["simultaneity"]
    forecast = volume["forecast"]
    test = forecast["backtest"]
    parts: list[Any] = [
        f"The pool on {found['today']}, {days} days ahead (seed {found['seed']})",
        "",
        f"  dry, P50                 {_day(volume['dry_p50'], days)}",
        f"  dry, P95                 {_day(volume['dry_p95'], days)} (with 95 % certainty not before)",
        f"  left                     {bytes_text(round(volume['left_bytes']['lower_bound']))} at the lower bound of "
        f"the caps, {bytes_text(round(volume['left_bytes']['median']))} at their median",
        f"  missing in all           {bytes_text(round(volume['short_p50_bytes']))} at P50, "
        f"{bytes_text(round(volume['short_p95_bytes']))} at P95",
        f"  if nobody new is taken   {_day(found['no_new_sales']['dry_p50'], days)} (P50), "
        f"{bytes_text(round(found['no_new_sales']['short_p50_bytes']))} missing in all",
        f"  forecast by              {forecast['model']}",
    ]
    if test["origins"]:
        parts += [
            f"  tried on {test['origins']} past weeks   off by {test['error_mean']:.1%} on average, the week "
            f"before by {test['naive_error_mean']:.1%}; {test['covered']:.0%} within 5 % to 95 %",
            f"                           ({test['covered_by_the_model']:.0%} before its bands were widened, now by "
            f"{test['widening']:.2f})",
        ]
    if simultaneity is not None:
        parts += [
            f"  at once                  {simultaneity['blocking']:.2%} of the attempts in the busiest hour find no "
            f"SIM; for {simultaneity['blocking_max']:.2%} it takes {simultaneity['sims_needed']:,} SIMs, "
            f"{simultaneity['sims_missing']:,} more",
        ]
    parts.append("  " + _limit_line(limit))
    if volume["supplies_not_counted"]:
        names = ", ".join(volume["supplies_not_counted"])
        parts.append(f"  not counted              {names}: the day is past, or the lot is here; say anew when it comes")
    parts.append("")
    if len(found["markets"]) > 1:
        lines = [
            [
                row["market"],
                row["terminals"],
                row["sims"],
                f"{row['blocking']:.2%}",
                row["sims_needed"],
                row["sims_missing"],
            ]
            for row in found["markets"]
        ]
        columns = [
            "market",
            "terminals",
            "SIMs that serve it",
            "find none in the busy hour",
            "SIMs needed",
            "missing",
        ]
        parts.append(table("At once, by market", columns, lines))
    for way, rows in volume["groups"].items():
        if len(rows) > 1 or way == "lot":
            lines = [
                [
                    row["name"] or "-",
                    row["sims"],
                    bytes_text(round(row["left_lower_bound_bytes"])),
                    f"{row['share_of_use']:.1%}",
                    _day(row["dry_p50"], days),
                    _day(row["dry_p95"], days),
                ]
                for row in rows
            ]
            parts.append(
                table(f"By {way}", [way, "SIMs", "left, lower bound", "share of use", "dry, P50", "dry, P95"], lines)
            )
    if found["purchases"]:
        lines = [
            [
                row["offer"],
                row["sims"],
                f"{row['cost']:,.0f}",
                row["order_by"] or "no need",
                row["arrives"],
                row["days_too_late"] or "-",
                bytes_text(round(row["short_before_p50_bytes"])),
            ]
            for row in found["purchases"]
        ]
        columns = [
            "offer",
            "SIMs",
            "cost",
            "order by",
            "ordered today, there on",
            "days too late",
            "missing until then, P50",
        ]
        parts.append(table("What to buy (each offer alone)", columns, lines))
    lines = [
        [row["if"], _day(row["dry_p50"], days), _day(row["dry_p95"], days), bytes_text(round(row["short_p50_bytes"]))]
        for row in found["what_if"]
    ]
    parts.append(table("What would be if", ["if", "dry, P50", "dry, P95", "missing, P50"], lines))
    return parts


def _limit_line(limit: dict[str, Any] | None) -> str:
    words = "operating limit          "
    if limit is None:
        return words + "not known: say with --subscribers what each has used this month"
    if limit["limit_bytes"] is None:
        return words + "none is needed this month"
    if not limit["enough"]:
        return words + "no limit is enough: the rest of the month can't be served at all"
    return words + (
        f"{bytes_text(limit['limit_bytes'])} a month for each subscriber closes the gap; it touches "
        f"{limit['touched']:,} of {limit['subscribers']:,}, {limit['touched_already']:,} of them already"
    )

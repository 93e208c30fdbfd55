"""``simswitch load``: terminals come, stay and leave at a rate that is held, or said to be missed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simswitch.cli.amounts import counted
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import complain, print_json, progress, show, table

if TYPE_CHECKING:
    from simswitch.load.run import Load


def load(
    rate: Annotated[
        float | None,
        typer.Option(
            help="Operations a second, all kinds together. The times below are scaled to it, so that their mix stays. "
            "Default: what the times give as they are.",
            min=0.01,
        ),
    ] = None,
    duration: Annotated[float, typer.Option(help="Seconds that are measured.", min=0.1)] = 10.0,
    warm_up: Annotated[float, typer.Option(help="Seconds before that, which are not.", min=0.0)] = 2.0,
    terminals: Annotated[int, typer.Option(help="Terminals, connected and away.", min=1, max=16_777_216)] = 1_000,
    dwell: Annotated[float, typer.Option(help="Mean stay of a terminal, seconds.", min=0.001)] = 600.0,
    away: Annotated[float, typer.Option(help="Mean absence of a terminal, seconds.", min=0.001)] = 60.0,
    renew: Annotated[float, typer.Option(help="Seconds from one renewal to the next; 0: none.", min=0.0)] = 60.0,
    usage: Annotated[float, typer.Option(help="Seconds from one usage report to the next; 0: none.", min=0.0)] = 60.0,
    usage_bytes: Annotated[
        int,
        typer.Option(
            help="Bytes that each report adds. They count against the SIMs, and that is not undone.", min=0, max=1 << 40
        ),
    ] = 1_000,
    batch: Annotated[
        int,
        typer.Option(
            help="Terminals a call, at most; a call waits up to 5 ms for them. 1: one call for each.", min=1, max=65_536
        ),
    ] = 1,
    processes: Annotated[int, typer.Option(help="Client processes.", min=1, max=64)] = 2,
    access_servers: Annotated[
        int | None,
        typer.Option(
            help="Access servers, called load-1 and so on; defined where they are missing. Default: one a process.",
            min=1,
            max=1_000,
        ),
    ] = None,
    market: Annotated[str | None, typer.Option(help="Where the terminals are. Needed when there are several.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same plan.", min=0, max=(1 << 63) - 1)] = 1,
    leave: Annotated[
        bool, typer.Option("--leave", help="Leave the terminals with their SIMs. The next load takes them away first.")
    ] = False,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Put load on a running service, and say whether it held the rate.

    The load is an open loop: a latency counts from the instant at which the operation was due, whether or not the
    service was ready for it. Ctrl-C ends it early, gives the SIMs back and shows what there is.
    """
    from simswitch.cli.connection import failure
    from simswitch.client import ServiceError

    try:
        from simswitch.load.plan import Plan
        from simswitch.load.run import Load, LoadFailed, LoadRefused
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "hdrh":
            raise
        raise CommandFailed(Exit.REFUSED, "load needs hdrhistogram: install simswitch[load]") from error

    plan = Plan(
        terminals=terminals,
        access_servers=access_servers or processes,
        duration_s=duration,
        warm_up_s=warm_up,
        dwell_s=dwell,
        away_s=away,
        renew_s=renew,
        usage_s=usage,
        rate=rate or Plan.natural(terminals, dwell, away, renew, usage),
        usage_bytes=usage_bytes,
        batch=batch,
        seed=seed,
    )
    where, who, credentials = target(config, address, actor)
    # A service manager's SIGTERM ends a load as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run = Load(where, plan, processes=processes, market=market, actor=who, credentials=credentials, leave=leave)
        document = with_progress(run)
    except ServiceError as error:
        raise failure(error, where) from error
    except LoadRefused as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except LoadFailed as error:
        if error.document is not None and error.document["rate"]["planned"]:
            tell(error.document, json)
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    tell(document, json)
    if document["leases"]["left"] is None or (document["leases"]["left"] and not leave):
        complain("SIMs may be left with the load's terminals; the next load takes them away first")
    if document["interrupted"]:
        raise CommandFailed(Exit.INTERRUPTED, "interrupted: the figures are those until then")
    if not document["rate"]["held"]:
        raise CommandFailed(Exit.MISSED, missed(document))


def with_progress(run: Load) -> dict[str, Any]:
    """Runs it behind a bar on standard error."""
    with progress() as bar:
        task = bar.add_task("looking at the service", total=None)
        run.on_progress = lambda phase, done, total, words: bar.update(
            task, description=f"{phase} {words}".strip(), completed=round(done), total=round(total)
        )
        return run.run()


def missed(document: dict[str, Any]) -> str:
    rate = document["rate"]
    return (
        f"the rate was not held: {rate['achieved']:,.1f} of {rate['planned']:,.1f} operations a second. {rate['text']}"
    )


def tell(document: dict[str, Any], json: bool) -> None:
    """The figures as JSON, or as tables for people."""
    if json:
        print_json(document)
    else:
        show(*described(document))


def described(document: dict[str, Any]) -> list[Any]:
    plan, rate, client, leases = (document[name] for name in ("plan", "rate", "client", "leases"))
    way = f"up to {plan['batch']:,} a call" if plan["batch"] > 1 else "one a call"
    parts: list[Any] = [
        f"{counted(plan['terminals'], 'terminal')} on {counted(plan['access_servers'], 'access server')}, "
        f"{counted(plan['processes'], 'process', 'processes')}, "
        f"{way}, market {plan['market']}, seed {plan['seed']}; measured for {document['measured_s']:,.1f} s "
        f"after {plan['warm_up_s']:g} s",
        f"stay {_span(plan, 'dwell_s')}, absence {_span(plan, 'away_s')}, renewal every {_span(plan, 'renew_s')}, "
        f"report every {_span(plan, 'usage_s')}",
    ]
    names = ("p50", "p90", "p99", "p99.9", "max")
    rows = [
        [name, figures["planned"], figures["carried_out"], sum(figures["refused"].values())]
        + [_milliseconds(figures["latency_ms"][column]) for column in names]
        for name, figures in document["operations"].items()
    ]
    total = [sum(int(row[column]) for row in rows) for column in (1, 2, 3)]
    rows.append(["all", *total, *(_milliseconds(document["latency_ms"][column]) for column in names)])
    late = ["client late", None, None, None, *(_milliseconds(client["late_ms"][column]) for column in names)]
    columns = ["", "due", "carried out", "not carried out", *(f"{name}, ms" for name in names)]
    parts.append(table("Operations, latency from the instant at which each was due", columns, [*rows, late]))
    refused = [
        [name, word, count]
        for name, figures in document["operations"].items()
        for word, count in figures["refused"].items()
    ]
    if refused:
        parts.append(table("Not carried out", ["operation", "why", "count"], refused))
    verdict = "held" if rate["held"] else "NOT HELD"
    shares = zip(client["busy_shares"], client["cpu_shares"], strict=True)
    busy = ", ".join(f"{busy:.0%} (processor {running:.0%})" for busy, running in shares)
    parts += [
        f"rate {verdict}: told {rate['told']:,.1f}/s, due {rate['planned']:,.1f}/s, "
        f"carried out {rate['achieved']:,.1f}/s",
        f"client processes running or waiting for a processor: {busy or 'not known'}",
    ]
    if client["late"]:
        parts.append(
            f"The client itself began one operation in a hundred later than {client['late_ms']['p99']:,.1f} ms: "
            "the latencies are its own as well as the service's."
        )
    left = "not known how many are left" if leases["left"] is None else f"{leases['left']:,} left"
    parts.append(f"SIMs given back at the end: {leases['given_back']:,}; {left}")
    return parts


def _span(plan: dict[str, Any], name: str) -> str:
    if not plan[name]:
        return "never"
    scaled = f" (told {plan[name]:g} s)" if abs(plan["scale"] - 1) > 0.001 else ""
    seconds = plan[name] * plan["scale"]
    return f"{seconds:,.0f} s{scaled}" if seconds >= 100 else f"{seconds:.3g} s{scaled}"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"

"""The program ``simswitch``: its commands, and how it ends.

A command's module is light; what it needs (gRPC, NumPy, matplotlib) it imports when it runs, so that ``--help`` and
completion answer at once. A command ends with one of the codes in exits.py: what it raises as ``CommandFailed`` becomes
one line on standard error, never a traceback.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from simswitch import __version__
from simswitch.cli import (
    access_server,
    audit,
    breakers,
    caps,
    carrier,
    clock,
    data,
    demonstration,
    events,
    history,
    inventory,
    learn,
    limit,
    load,
    mask,
    plan,
    pool,
    replay,
    report,
    serve,
    settings,
    sim,
    status,
    subscriber,
    swap,
    token,
    usage,
    webhook,
)
from simswitch.cli.exits import MEANINGS, CommandFailed
from simswitch.cli.options import given
from simswitch.cli.screen import complain

EPILOG = "Exit codes: " + "; ".join(f"{code.value} {text}" for code, text in MEANINGS.items()) + "."

app = typer.Typer(
    name="simswitch",
    help="Hands out SIMs to terminals that carry none, and moves terminals off bad SIMs.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"simswitch {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", callback=_version, is_eager=True)
    ] = False,
    ca: Annotated[
        Path | None, typer.Option("--ca", envvar="SIMSWITCH_CA", help="Who signed the service's certificate: TLS.")
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", envvar="SIMSWITCH_CERTIFICATE", help="An access server's certificate."),
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", envvar="SIMSWITCH_KEY", help="The key of that.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            envvar="SIMSWITCH_TOKEN_FILE",
            help="The file with a person's token; others must not be able to read it.",
        ),
    ] = None,
) -> None:
    """Hands out SIMs to terminals that carry none, and moves terminals off bad SIMs."""
    del version
    given.update(ca=ca, certificate=certificate, key=key, token_file=token_file)


app.command("serve")(serve.serve)
app.command("import")(inventory.import_inventory)
app.command("status")(status.status)
app.add_typer(swap.app, name="swap")
app.add_typer(access_server.app, name="access-server")
app.add_typer(limit.app, name="limit")
app.command("pool")(pool.pool)
app.command("sim")(sim.sim)
app.command("carrier")(carrier.carrier)
app.command("subscriber")(subscriber.subscriber)
app.add_typer(clock.app, name="clock")
app.add_typer(token.app, name="token")
app.add_typer(audit.app, name="audit")
app.command("breakers")(breakers.breakers)
app.command("mask")(mask.mask)
app.command("learn")(learn.learn)
app.add_typer(caps.app, name="caps")
app.add_typer(usage.app, name="usage")
app.command("events")(events.events)
app.command("webhook")(webhook.webhook)
app.command("replay")(replay.replay)
app.command("plan")(plan.plan)
app.add_typer(report.app, name="report")
app.command("load")(load.load)
app.command("demo")(demonstration.demo)
app.command("inspect")(data.inspect)
app.command("check")(data.check)
app.command("backup")(data.backup)
app.command("restore")(data.restore)
app.command("follow")(data.follow)
app.command("history")(history.history)
app.command("export")(history.export)
app.command("config")(settings.config)


def main() -> None:
    """Runs the program and ends the process."""
    # Fits here are small: a second thread only waits for the first, and takes a processor for it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        app(prog_name="simswitch")
    except CommandFailed as failure:
        complain(f"simswitch: {failure}")
        sys.exit(int(failure.code))
    except BrokenPipeError:
        # The reader of our output has left, as `| head` does. What is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()

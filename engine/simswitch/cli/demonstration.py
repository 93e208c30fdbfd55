"""``simswitch demo``: the incident against a real server, in under two minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path, typer.Option(help="Folder for demo.json, demo.png and the logs.")] = Path("build"),
    short: Annotated[bool, typer.Option("--short", help="A tenth of the terminals, for a quick look.")] = False,
    keep: Annotated[
        int, typer.Option(help="Seconds that the server stays up afterwards when a person is at the terminal.", min=0)
    ] = 600,
) -> None:
    """Show the incident of 2020, and the same bulk switch through the engine.

    On a real server with real clients; it is killed in the middle, and goes on.
    """
    from simswitch.demo.run import run_demo

    run_demo(output, short=short, keep_s=keep)

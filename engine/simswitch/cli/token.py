"""``simswitch token``: what people prove themselves with. Works on the data folder, while the service runs or not."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from simswitch.cli.amounts import span_ms
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import JsonOption
from simswitch.cli.screen import complain, print_json, show, table

app = typer.Typer(help="Make, list and revoke the tokens that people prove themselves with.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The data folder of the service.", file_okay=False)]


@app.command("create")
def create(
    folder: Folder,
    actor: Annotated[str, typer.Argument(help="Role and name: operator:alice, auditor:ann, supplier:wholesale …")],
    lasts: Annotated[str, typer.Option("--lasts", help="How long it counts: 12h, 90d; at most 400d.")] = "90d",
) -> None:
    """Make a token and print it, this once: only its hash is kept.

    Give it to the person in a file that nobody else may read; it counts from within a second on.
    """
    from simswitch.access.tokens import TokenRefused, create_token
    from simswitch.audit.chain import ChainDamaged, ChainInUse
    from simswitch.core.layout import NAME_BYTES
    from simswitch.core.roles import ROLE_WORDS

    word, _, name = actor.partition(":")
    if word not in ROLE_WORDS or not name or len(actor.encode()) > NAME_BYTES or not actor.isprintable():
        raise CommandFailed(Exit.USAGE, f"{actor!r} is no role and name; roles are {', '.join(ROLE_WORDS)}")
    try:
        token, text = create_token(folder, actor, span_ms("--lasts", lasts))
    except (TokenRefused, ChainInUse) as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except ChainDamaged as error:
        raise CommandFailed(Exit.DAMAGED, str(error)) from error
    complain(f"token {token.id} of {actor}, until {_instant(token.expires_ms)}; it is not shown again")
    typer.echo(text)


@app.command("list")
def list_(folder: Folder, json: JsonOption = False) -> None:
    """Show whom tokens were made for, by whom, and which of them count."""
    from simswitch.access.tokens import read_tokens
    from simswitch.audit.chain import ChainDamaged

    try:
        tokens = list(read_tokens(folder).values())
    except ChainDamaged as error:
        raise CommandFailed(Exit.DAMAGED, str(error)) from error
    now_ms = time.time_ns() // 1_000_000
    rows = [
        (
            token.id,
            token.actor,
            token.state(now_ms),
            _instant(token.created_ms),
            _instant(token.expires_ms),
            token.created_by,
        )
        for token in tokens
    ]
    names = ("token", "actor", "state", "made", "expires", "made by")
    if json:
        print_json({"tokens": [dict(zip(names, row, strict=True)) for row in rows]})
    else:
        show(table("Tokens", list(names), [list(row) for row in rows], numbers_from=len(names)))


@app.command("revoke")
def revoke(
    folder: Folder, token: Annotated[str, typer.Argument(help="Its id, of 16 digits, as `token list` shows it.")]
) -> None:
    """Make a token count no more: from within a second on, and streams that were opened with it end."""
    from simswitch.access.tokens import TokenRefused, revoke_token
    from simswitch.audit.chain import ChainDamaged, ChainInUse

    try:
        known = revoke_token(folder, token)
    except (TokenRefused, ChainInUse) as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except ChainDamaged as error:
        raise CommandFailed(Exit.DAMAGED, str(error)) from error
    show(f"The token {known.id} of {known.actor} is revoked.")


def _instant(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")

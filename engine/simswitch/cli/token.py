"""``simswitch token``: what people prove themselves with. Works on the data folder, while the service runs or not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from simswitch.cli.amounts import instant_text, span_ms
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
    json: JsonOption = False,
) -> None:
    """Make a token and print it, this once: only its hash is kept.

    Give it to the person in a file that nobody else may read; it counts from within a second on.
    """
    from simswitch.access.tokens import TokenRefused, create_token
    from simswitch.audit.chain import ChainDamaged, ChainInUse
    from simswitch.core.layout import NAME_BYTES
    from simswitch.core.roles import ROLE_WORDS
    from simswitch.plain_text import is_plain

    word, _, name = actor.partition(":")
    if word not in ROLE_WORDS or not name or len(actor.encode()) > NAME_BYTES or not is_plain(actor):
        raise CommandFailed(Exit.USAGE, f"{actor!r} is no role and name; roles are {', '.join(ROLE_WORDS)}")
    try:
        token, text = create_token(folder, actor, span_ms("--lasts", lasts))
    except (TokenRefused, ChainInUse, OSError) as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except ChainDamaged as error:
        raise CommandFailed(Exit.DAMAGED, str(error)) from error
    complain(f"token {token.id} of {actor}, until {instant_text(token.expires_ms)}; it is not shown again")
    if json:
        print_json({"token": token.id, "actor": actor, "expires_ms": token.expires_ms, "text": text})
    else:
        typer.echo(text)


@app.command("list")
def list_(folder: Folder, json: JsonOption = False) -> None:
    """Show whom tokens were made for, by whom, and which of them count."""
    from simswitch.access.tokens import read_tokens
    from simswitch.audit.chain import ChainDamaged

    try:
        tokens = list(read_tokens(folder).values())
    except OSError as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except ChainDamaged as error:
        raise CommandFailed(Exit.DAMAGED, str(error)) from error
    now_ms = time.time_ns() // 1_000_000
    found = [
        {
            "token": token.id,
            "actor": token.actor,
            "state": token.state(now_ms),
            "created_ms": token.created_ms,
            "expires_ms": token.expires_ms,
            "created_by": token.created_by,
        }
        for token in tokens
    ]
    if json:
        print_json({"tokens": found})
    elif not found:
        show("There are no tokens: `simswitch token create` makes one.")
    else:
        rows = [[instant_text(value) if isinstance(value, int) else value for value in each.values()] for each in found]
        show(table("Tokens", ["token", "actor", "state", "made", "expires", "made by"], rows))


@app.command("revoke")
def revoke(
    folder: Folder,
    token: Annotated[str, typer.Argument(help="Its id, of 16 digits, as `token list` shows it.")],
    json: JsonOption = False,
) -> None:
    """Make a token count no more.

    From within a second on; streams that were opened with it end.
    """
    from simswitch.access.tokens import TokenRefused, revoke_token
    from simswitch.audit.chain import ChainDamaged, ChainInUse

    try:
        known = revoke_token(folder, token)
    except (TokenRefused, ChainInUse, OSError) as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except ChainDamaged as error:
        raise CommandFailed(Exit.DAMAGED, str(error)) from error
    if json:
        print_json({"token": known.id, "actor": known.actor})
    else:
        show(f"The token {known.id} of {known.actor} is revoked.")

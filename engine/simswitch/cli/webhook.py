"""``simswitch webhook``: sends announcements and what became of them to a web address."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from simswitch.cli.amounts import counted
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, Target, target
from simswitch.cli.screen import complain, show

AGAIN_S = 2.0


def webhook(
    url: Annotated[str, typer.Argument(help="Where to: https, or http on loopback.")],
    secret_file: Annotated[Path, typer.Option(help="The shared secret; only you may be able to read the file.")],
    cursor: Annotated[Path, typer.Option(help="Keeps the number of the last event that was taken.")],
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
) -> None:
    """Post events to a web address as they happen, signed, until interrupted.

    In order and at least once: announcements, withdrawals, confirmations, outages, swaps that were given up, limits and
    exemptions. What a receiver doesn't take is tried again for ever. After a restart it goes on where the cursor
    stands.
    """
    try:
        import urllib3  # noqa: F401
    except ImportError:
        raise CommandFailed(Exit.USAGE, "this needs the extra: pip install 'simswitch[webhook]'") from None
    from simswitch.webhook import Sender, WebhookRefused, deliver, read_cursor, read_secret, told_url

    try:
        sender = Sender(url, read_secret(secret_file), complain=complain)
        read_cursor(cursor)
        show(f"Events go to {told_url(url)}.")
        while True:
            try:
                deliver(_batches(target(config, address, actor), read_cursor(cursor)), sender, cursor)
            except CommandFailed as error:
                if not error.later:
                    raise
                complain(f"{error}. Again in {AGAIN_S:.0f} s")
            time.sleep(AGAIN_S)
    except WebhookRefused as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except KeyboardInterrupt:
        return


def _batches(service_at: Target, after: int) -> Iterator[tuple[list[dict[str, Any]], int]]:
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import plain
    from simswitch.v1 import event_pb2
    from simswitch.webhook import KINDS

    request = event_pb2.WatchEventsRequest(
        after=after, kinds=[event_pb2.EventKind.Value(f"EVENT_KIND_{word}") for word in KINDS]
    )
    with connected(*service_at) as service:
        for response in service.events.WatchEvents(request):
            if response.missed_count:
                complain(f"{counted(response.missed_count, 'event')} not remembered any more, and not sent")
            yield [plain(event) for event in response.events], response.last

"""``simswitch access-server``: the access servers, and what to do about one that will not come back."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from simswitch.cli.amounts import counted, instant_text
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, Target, target
from simswitch.cli.screen import print_json, show

app = typer.Typer(
    help="Look at the access servers; pause one; declare one dead.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_servers(
    address: AddressOption = None, actor: ActorOption = None, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Show all access servers: gate, window, orders, and what they wait for.

    Beside gate and window it says why each last changed.
    """
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import pages, plain
    from simswitch.cli.status import awaited_lines, awaited_servers, server_table
    from simswitch.v1 import pool_pb2

    with connected(*target(config, address, actor)) as service:
        request = pool_pb2.ListAccessServerStatusesRequest
        servers = [plain(entry) for entry in pages(service.pool.ListAccessServerStatuses, request, "statuses")]
    if json:
        print_json({"access_servers": servers})
    else:
        show(
            *awaited_lines(awaited_servers(servers)),
            server_table(servers)
            if servers
            else "There are no access servers: `simswitch import --definitions` defines some.",
        )


Name = Annotated[str, typer.Argument(help="The access server's name.")]


@app.command("pause")
def pause(
    name: Name,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Send an access server no order any more, until `resume`. What is out is finished; allocations go on."""
    from simswitch.v1 import pool_pb2

    said = f"{name} gets no orders, whatever becomes of its session, until `simswitch access-server resume {name}`."
    request = pool_pb2.PauseAccessServerRequest(access_server=name)
    _change(target(config, address, actor), "PauseAccessServer", request, said, json)


@app.command("resume")
def resume(
    name: Name,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Let orders go to a paused access server again.

    One first, to see how it is, then a ramp.
    """
    from simswitch.v1 import pool_pb2

    request = pool_pb2.ResumeAccessServerRequest(access_server=name)
    _change(target(config, address, actor), "ResumeAccessServer", request, f"{name} gets orders again.", json)


def _change(where: Target, call: str, request: Any, said: str, json: bool) -> None:
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import CALL_TIMEOUT_S, plain

    with connected(*where) as service:
        server = plain(getattr(service.pool, call)(request, timeout=CALL_TIMEOUT_S).status)
    if json:
        print_json(server)
    else:
        show(f"{said} {counted(server['outstanding_count'], 'order is', 'orders are')} outstanding.")


@app.command("declare-dead")
def declare_dead(
    name: Name,
    undo: Annotated[bool, typer.Option("--undo", help="It is not dead after all.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask for the name again.")] = False,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Free what a dead access server held, after a delay.

    Until then nothing it holds is given to another, and a sign of life from it undoes this. Be sure that it is off: two
    terminals on one IMSI are worse than one without.
    """
    if not undo and not yes and typer.prompt(f"Type {name} to declare it dead", err=True) != name:
        raise CommandFailed(Exit.USAGE, "the names differ: nothing was done")
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import CALL_TIMEOUT_S, plain
    from simswitch.v1 import pool_pb2

    with connected(*target(config, address, actor)) as service:
        request = pool_pb2.DeclareDeadRequest(access_server=name, undo=undo)
        server = plain(service.pool.DeclareDead(request, timeout=CALL_TIMEOUT_S).status)
    if json:
        print_json(server)
    elif undo:
        show(f"{name} is not declared dead any more. It is disconnected, and what it holds stays held.")
    elif server["dead_ms"] is None:
        show(f"{name} is dead, and what it held is freed already.")
    else:
        show(
            f"{name} is declared dead. What it held is freed at {instant_text(server['dead_ms'])}, "
            f"unless it gives a sign of life. `simswitch access-server declare-dead {name} --undo` takes this back."
        )

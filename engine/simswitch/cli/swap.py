"""``simswitch swap``: bulk moves of terminals, and the means to hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, target
from simswitch.cli.screen import print_json, progress, show

TERMINALS_OF_CALL_MAX = 65_536
WATCH_INTERVAL_MS = 500
CALL_TIMEOUT_S = 30.0
FINISHED = ("done", "cancelled")

app = typer.Typer(
    help="Move terminals off bad SIMs, in bulk; pause, cancel or stop that.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Job = Annotated[int, typer.Argument(help="The job's number.", min=0)]


class HealthWord(StrEnum):
    """Healths that a job can select by."""

    HEALTHY = "healthy"
    LOW = "low"
    EXHAUSTED = "exhausted"
    THROTTLED = "throttled"
    SUSPENDED = "suspended"
    UNREACHABLE = "unreachable"
    MISSING = "missing"
    QUARANTINED = "quarantined"


class PriorityWord(StrEnum):
    """How urgent a job is."""

    FAILURE = "failure"
    THROTTLED = "throttled"
    PREDICTED = "predicted"
    REBALANCE = "rebalance"


@app.command("create")
def create(
    reason: Annotated[str, typer.Option(help="Why, 1 to 64 bytes. Shown with the job.")],
    health: Annotated[
        list[HealthWord] | None,
        typer.Option(help="Move the terminals whose SIM has this health. May be repeated. Default: throttled."),
    ] = None,
    lot: Annotated[str, typer.Option(help="Only terminals with a SIM of this lot.")] = "",
    access_server: Annotated[str, typer.Option(help="Only terminals on this access server.")] = "",
    priority: Annotated[PriorityWord, typer.Option(help="How urgent.")] = PriorityWord.THROTTLED,
    terminals: Annotated[
        Path | None, typer.Option(help="Exactly the terminals in this file, one number a line, instead of the filter.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show how far the job is until it is over.")] = False,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Order a bulk switch. The engine paces it: no access server ever has more than 200 orders outstanding."""
    if not 1 <= len(reason.encode()) <= 64:
        raise CommandFailed(Exit.USAGE, f"--reason takes 1 to 64 bytes, this has {len(reason.encode())}")
    if terminals and (health or lot or access_server):
        raise CommandFailed(Exit.USAGE, "--terminals names them all: leave out --health, --lot and --access-server")
    named = _read_terminals(terminals) if terminals else None
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import plain
    from simswitch.v1 import sim_pb2, swap_pb2

    with connected(*target(config, address, actor)) as service:
        words = [] if named is not None else health or [HealthWord.THROTTLED]
        response = service.swaps.CreateJob(
            swap_pb2.CreateJobRequest(
                reason=reason,
                healths=[sim_pb2.Health.Value(f"HEALTH_{word.name}") for word in words],
                lot=lot,
                access_server=access_server,
                priority=swap_pb2.Priority.Value(f"PRIORITY_{priority.name}"),
                terminals_follow=named is not None,
            ),
            timeout=CALL_TIMEOUT_S,
        )
        job = response.job
        if named is not None:
            for start in range(0, len(named), TERMINALS_OF_CALL_MAX):
                part = named[start : start + TERMINALS_OF_CALL_MAX]
                request = swap_pb2.AddJobTerminalsRequest(job=job.number, terminal=part)
                service.swaps.AddJobTerminals(request, timeout=CALL_TIMEOUT_S)
            # Saying "go on" also says that the list is complete.
            job = service.swaps.ResumeJob(swap_pb2.ResumeJobRequest(job=job.number), timeout=CALL_TIMEOUT_S).job
        if watch:
            _watch(service, job.number, json)
        elif json:
            print_json(plain(job))
        else:
            show(f"job {job.number} is ordered. `simswitch swap watch {job.number}` shows how far it is.")


@app.command("list")
def list_jobs(
    address: AddressOption = None, actor: ActorOption = None, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Show all jobs, oldest first."""
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import pages, plain
    from simswitch.cli.status import job_table
    from simswitch.v1 import swap_pb2

    with connected(*target(config, address, actor)) as service:
        jobs = [plain(entry) for entry in pages(service.swaps.ListJobs, swap_pb2.ListJobsRequest, "jobs")]
    if json:
        print_json({"jobs": jobs})
    else:
        show(job_table(jobs) if jobs else "There are no jobs.")


@app.command("show")
def show_job(
    job: Job,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show one job."""
    from simswitch.v1 import swap_pb2

    _on_job(target(config, address, actor), "GetJob", swap_pb2.GetJobRequest(job=job), json)


@app.command("pause")
def pause(
    job: Job,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Send no more orders of a job. Those that are out are finished."""
    from simswitch.v1 import swap_pb2

    _on_job(target(config, address, actor), "PauseJob", swap_pb2.PauseJobRequest(job=job), json)


@app.command("resume")
def resume(
    job: Job,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Go on with a paused job."""
    from simswitch.v1 import swap_pb2

    _on_job(target(config, address, actor), "ResumeJob", swap_pb2.ResumeJobRequest(job=job), json)


@app.command("cancel")
def cancel(
    job: Job,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """End a job. Orders that are out are finished, the others dropped."""
    from simswitch.v1 import swap_pb2

    _on_job(target(config, address, actor), "CancelJob", swap_pb2.CancelJobRequest(job=job), json)


@app.command("stop")
def stop(
    everything: Annotated[bool, typer.Option("--all", help="Really all swaps of all jobs.")] = False,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
) -> None:
    """Stop all swaps at once, until `lift`. Allocations go on."""
    if not everything:
        raise CommandFailed(Exit.USAGE, "`swap stop` stops every job: say --all, or end one job with `swap cancel JOB`")
    from simswitch.cli.connection import connected
    from simswitch.v1 import swap_pb2

    with connected(*target(config, address, actor)) as service:
        service.swaps.StopAllSwaps(swap_pb2.StopAllSwapsRequest(), timeout=CALL_TIMEOUT_S)
    show("All swaps are stopped. Allocations go on. `simswitch swap lift` lets swaps go on.")


@app.command("lift")
def lift(address: AddressOption = None, actor: ActorOption = None, config: ConfigOption = None) -> None:
    """Let swaps go on after `stop --all`."""
    from simswitch.cli.connection import connected
    from simswitch.v1 import swap_pb2

    with connected(*target(config, address, actor)) as service:
        service.swaps.LiftStop(swap_pb2.LiftStopRequest(), timeout=CALL_TIMEOUT_S)
    show("The stop is lifted.")


@app.command("watch")
def watch_job(
    job: Job,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show how far a job is until it is over. Leaving with Ctrl-C doesn't touch the job."""
    from simswitch.cli.connection import connected

    with connected(*target(config, address, actor)) as service:
        _watch(service, job, json)


def _on_job(where: tuple[str, str], call: str, request: Any, json: bool) -> None:
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import plain
    from simswitch.cli.status import job_table

    with connected(*where) as service:
        job = plain(getattr(service.swaps, call)(request, timeout=CALL_TIMEOUT_S).job)
    if json:
        print_json(job)
    else:
        show(job_table([job]))


def _watch(service: Any, number: int, json: bool) -> None:
    from simswitch.cli.messages import plain
    from simswitch.cli.status import job_table
    from simswitch.v1 import swap_pb2

    request = swap_pb2.WatchJobRequest(job=number, interval_ms=WATCH_INTERVAL_MS)
    last: dict[str, Any] = {}
    with progress() as display:
        task = display.add_task(f"job {number}", total=None)
        updates: Iterable[Any] = service.swaps.WatchJob(request)
        for update in updates:
            last = plain(update.job)
            settled = last["confirmed_count"] + last["given_up_count"] + last["skipped_count"]
            display.update(
                task,
                total=last["terminals_count"] or None,
                completed=settled,
                description=f"job {number} {last['state']}, {last['outstanding_count']} outstanding",
            )
    if not last:
        raise CommandFailed(Exit.REFUSED, f"the service said nothing about job {number}")
    _end(last, json, lambda: show(job_table([last])))


def _end(job: dict[str, Any], json: bool, describe: Callable[[], None]) -> None:
    if json:
        print_json(job)
    else:
        describe()
    if job["state"] not in FINISHED:
        raise CommandFailed(Exit.REFUSED, f"job {job['number']} is {job['state']}, and the service ended the watch")
    if job["given_up_count"]:
        raise CommandFailed(Exit.REFUSED, f"{job['given_up_count']:,} terminals stay where they were")


def _read_terminals(path: Path) -> list[int]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except UnicodeDecodeError as error:
        raise CommandFailed(Exit.REFUSED, f"{path}: this is no list of numbers") from error
    except OSError as error:
        raise CommandFailed(Exit.REFUSED, f"{path} can't be read: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        if not text.isdigit() or int(text) >= 1 << 64:
            raise CommandFailed(
                Exit.REFUSED, f"{path}:{number}: {text[:40]!r}: a terminal's number below 2^64 belongs here"
            )
        found.append(int(text))
    if not found:
        raise CommandFailed(Exit.REFUSED, f"{path}: there is no terminal in the file")
    return found

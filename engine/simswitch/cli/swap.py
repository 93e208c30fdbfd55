"""``simswitch swap``: bulk moves of terminals, and the means to hold them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from simswitch.cli.amounts import bytes_of, bytes_text, counted, hours_ms, instant_ms, instant_text, share_ppm, span_ms
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.options import ActorOption, AddressOption, ConfigOption, JsonOption, Target, target
from simswitch.cli.screen import print_json, progress, show, table

TERMINALS_OF_CALL_MAX = 65_536
WATCH_INTERVAL_MS = 500
CALL_TIMEOUT_S = 30.0
FINISHED = ("done", "cancelled", "refused", "checked")
CHECK_POLL_S = 0.05
SAMPLES_SHOWN = 5
RATE_MAX = 60_000_000

app = typer.Typer(
    help="Move terminals off bad SIMs, in bulk; pause, cancel or stop that.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Job = Annotated[int, typer.Argument(help="The job's number.", min=0, max=0xFFFFFFFE)]
GOING_ON = ("selecting", "running", "paused", "awaiting_approval")
WHY = {
    "operator": "an operator wanted it",
    "canary": "too many of its first swaps failed",
    "budget": "too many of its swaps failed",
    "targets": "not every terminal would get a target",
    "late": "it would be over after its deadline",
    "quiet": "its quiet hours",
    "size": "more terminals came under its filter than its check had found",
}
WITHOUT = {
    "target": "with no healthy SIM to be had",
    "swap": "in another swap",
    "rest": "in their cool-down",
    "access_server": "on an access server that is not connected, or is paused",
    "ceiling": "swapped as often today as a terminal may be",
}
LEFT_OUT = {
    "unknown_terminal": "that nobody knows",
    "no_lease": "without a SIM",
    "same": "named twice, or in another swap",
    "resting": "in their cool-down",
    "day_ceiling": "swapped as often today as a terminal may be",
    "orders_full": "for which there is no order left: raise [capacity] orders",
}
"""Why a terminal of a list is not in the job."""


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


class InfeasibleWord(StrEnum):
    """What becomes of a job that is not feasible."""

    REFUSE = "refuse"
    PROCEED = "proceed"
    PAUSE = "pause"


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
    supplier: Annotated[str, typer.Option(help="Only terminals with a SIM of this supplier.")] = "",
    carrier: Annotated[str, typer.Option(help="Only terminals with a SIM of this carrier.")] = "",
    sim_class: Annotated[str, typer.Option("--class", help="Only terminals with a SIM of this class.")] = "",
    bank: Annotated[str, typer.Option(help="Only terminals with a SIM in this bank.")] = "",
    headroom_below: Annotated[
        str, typer.Option(help="Only terminals whose SIM has less left than this, such as 500MB.")
    ] = "",
    access_server: Annotated[str, typer.Option(help="Only terminals on this access server.")] = "",
    priority: Annotated[PriorityWord, typer.Option(help="How urgent.")] = PriorityWord.THROTTLED,
    terminals: Annotated[
        Path | None, typer.Option(help="Exactly the terminals in this file, one number a line, instead of the filter.")
    ] = None,
    deadline: Annotated[str, typer.Option(help="By when it is to be over: a span (4h) or an instant.")] = "",
    announce_ahead: Annotated[str, typer.Option(help="How long ahead each swap is announced, such as 2m.")] = "",
    quiet: Annotated[str, typer.Option(help="Hours without swaps: 22:00-07:00, or '22:00-07:00 Asia/Tokyo'.")] = "",
    canary: Annotated[
        int, typer.Option(help="Swaps that must do well before the others are sent.", min=0, max=0xFFFFFFFF)
    ] = 0,
    error_budget: Annotated[str, typer.Option(help="Share of failures beyond which it pauses.")] = "5%",
    rate: Annotated[int, typer.Option(help="Swaps a minute, at the most. 0: no ceiling.", min=0, max=RATE_MAX)] = 0,
    if_infeasible: Annotated[
        InfeasibleWord, typer.Option(help="When somebody would go without, or it would be late.")
    ] = InfeasibleWord.REFUSE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show how far the job is until it is over.")] = False,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Order a bulk switch. The engine paces it: no access server ever has more than 200 orders outstanding."""
    if not 1 <= len(reason.encode()) <= 64:
        raise CommandFailed(Exit.USAGE, f"--reason takes 1 to 64 bytes, this has {len(reason.encode())}")
    if terminals and (health or lot or supplier or carrier or sim_class or bank or headroom_below or access_server):
        raise CommandFailed(Exit.USAGE, "--terminals names them all: leave out --health, --lot and the other filters")
    now = datetime.now().astimezone()
    quiet_from_ms, quiet_until_ms = hours_ms("--quiet", quiet, now) if quiet else (0, 0)
    named = _read_terminals(terminals) if terminals else None
    left_out: dict[str, list[int]] = {}
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import plain
    from simswitch.client.operator import how_far
    from simswitch.v1 import sim_pb2, status_pb2, swap_pb2

    with connected(*target(config, address, actor)) as service:
        words = [] if named is not None else health or [HealthWord.THROTTLED]
        response = service.swaps.CreateJob(
            swap_pb2.CreateJobRequest(
                reason=reason,
                healths=[sim_pb2.Health.Value(f"HEALTH_{word.name}") for word in words],
                lot=lot,
                supplier=supplier,
                carrier=carrier,
                sim_class=sim_class,
                bank=bank,
                headroom_below_bytes=bytes_of("--headroom-below", headroom_below) if headroom_below else 0,
                access_server=access_server,
                priority=swap_pb2.Priority.Value(f"PRIORITY_{priority.name}"),
                terminals_follow=named is not None,
                deadline_ms=instant_ms("--deadline", deadline, now) if deadline else 0,
                announce_ahead_ms=span_ms("--announce-ahead", announce_ahead) if announce_ahead else 0,
                quiet_hours=swap_pb2.QuietHours(from_ms=quiet_from_ms, until_ms=quiet_until_ms) if quiet else None,
                canary_count=canary,
                error_budget_ppm=share_ppm("--error-budget", error_budget),
                rate_per_minute=rate,
                on_infeasible=swap_pb2.Infeasible.Value(f"INFEASIBLE_{if_infeasible.name}"),
                dry_run=dry_run,
            ),
            timeout=CALL_TIMEOUT_S,
        )
        job = response.job
        if named is not None:
            number, sent = job.number, 0
            so_far = "job {0} has {1:,} of {2:,} terminals: `simswitch swap cancel {0}` before you make another"
            with how_far(lambda: so_far.format(number, sent, len(named))):
                for start in range(0, len(named), TERMINALS_OF_CALL_MAX):
                    part = named[start : start + TERMINALS_OF_CALL_MAX]
                    request = swap_pb2.AddJobTerminalsRequest(job=job.number, terminal=part)
                    added = service.swaps.AddJobTerminals(request, timeout=CALL_TIMEOUT_S)
                    for terminal, status in zip(part, added.status, strict=True):
                        if status != status_pb2.STATUS_OK:
                            word = status_pb2.Status.Name(status).removeprefix("STATUS_").lower()
                            left_out.setdefault(word, []).append(terminal)
                    sent += len(part)
                # Saying "go on" also says that the list is complete.
                job = service.swaps.ResumeJob(swap_pb2.ResumeJobRequest(job=job.number), timeout=CALL_TIMEOUT_S).job
        while job.state == swap_pb2.JOB_STATE_CHECKING:
            time.sleep(CHECK_POLL_S)
            job = service.swaps.GetJob(swap_pb2.GetJobRequest(job=job.number), timeout=CALL_TIMEOUT_S).job
        checked = plain(job)
        if named is not None:
            checked["left_out"] = left_out
        if json and not (watch and checked["state"] in GOING_ON):
            print_json(checked)
        elif not json:
            show(*check_lines(checked))
            if service.swaps.ListJobs(swap_pb2.ListJobsRequest(page_size=1), timeout=CALL_TIMEOUT_S).stopped:
                show("All swaps are stopped: none is sent until `simswitch swap lift`.")
        if checked["state"] == "refused":
            raise CommandFailed(Exit.REFUSED, f"job {job.number} moves nobody: {WHY[checked['why']]}")
        if watch and checked["state"] in GOING_ON:
            _watch(service, job.number, json)


def check_lines(job: dict[str, Any]) -> list[str]:
    """What the check of a job found, and what it does now."""
    found = job["feasibility"]
    lines = [
        f"would move  {found['terminals_count']:>12,} {'terminal' if found['terminals_count'] == 1 else 'terminals'}",
        f"targets     {found['targets_count']:>12,}",
        f"headroom    {bytes_text(found['headroom_needed_bytes']):>12} needed, at least "
        f"{bytes_text(found['headroom_found_bytes'])} found",
    ]
    for entry in found["without"]:
        some = ", ".join(str(terminal) for terminal in entry["terminals"][:SAMPLES_SHOWN])
        lines.append(f"without     {entry['count']:>12,} {WITHOUT[entry['why']]}{f' (such as {some})' if some else ''}")
    for status, terminals in job.get("left_out", {}).items():
        some = ", ".join(map(str, terminals[:SAMPLES_SHOWN]))
        lines.append(
            f"left out    {len(terminals):>12,} {LEFT_OUT.get(status, status.replace('_', ' '))} (such as {some})"
        )
    if found["targets_count"]:
        lines.append(f"over by     {instant_text(job['expected_finish_ms'])}, with today's windows")
    else:
        lines.append("over by     not known: nobody can be moved now")
    if job["deadline_ms"] is not None:
        lines.append(f"deadline    {instant_text(job['deadline_ms'])}")
    number = job["number"]
    if job["state"] == "checked":
        can = "It can be done" if found["terminals_count"] else "Nobody would be"
        lines.append(f"A dry run: nobody is moved. {WHY[job['why']].capitalize() if job['why'] else can}.")
    elif job["state"] == "awaiting_approval":
        lines.append(f"So many need a second person: `simswitch swap approve {number}`.")
    elif job["why"] == "quiet":
        lines.append(f"job {number} is paused: its quiet hours. It goes on by itself when they are over.")
    elif job["state"] == "done":
        lines.append(f"job {number} is over: there was nobody to move.")
    elif job["state"] == "paused":
        lines.append(f"job {number} is paused: {WHY[job['why']]}. `simswitch swap resume {number}` lets it go on.")
    elif job["state"] != "refused":
        lines.append(f"job {number} is ordered. `simswitch swap watch {number}` shows how far it is.")
    return lines


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
        show(job_table(jobs) if jobs else "There are no swap jobs: `simswitch swap create` orders one.")


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


@app.command("approve")
def approve(
    job: Job,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Let a large job begin. Who ordered it can't: it takes a second person."""
    from simswitch.v1 import swap_pb2

    _on_job(target(config, address, actor), "ApproveJob", swap_pb2.ApproveJobRequest(job=job), json)


@app.command("work")
def work(
    resolve: Annotated[
        list[int] | None,
        typer.Option(help="Take the entry with this number off the list. May be repeated.", min=1, max=(1 << 64) - 1),
    ] = None,
    address: AddressOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show the work list: swaps that were given up.

    Their terminals stay where they are until somebody looks.
    """
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import pages, plain
    from simswitch.v1 import status_pb2, swap_pb2

    with connected(*target(config, address, actor)) as service:
        if resolve:
            request = swap_pb2.ResolveGivenUpRequest(numbers=resolve)
            statuses = service.swaps.ResolveGivenUp(request, timeout=CALL_TIMEOUT_S).status
            for number, status in zip(resolve, statuses, strict=True):
                if status == status_pb2.STATUS_UNKNOWN_ORDER:
                    raise CommandFailed(Exit.REFUSED, f"the work list has no entry {number}")
        entries = [plain(entry) for entry in pages(service.swaps.ListGivenUp, swap_pb2.ListGivenUpRequest, "entries")]
        # Asked last: entries that made room while the pages came are in it.
        first = swap_pb2.ListGivenUpRequest(page_size=1)
        lost = service.swaps.ListGivenUp(first, timeout=CALL_TIMEOUT_S).lost_count
    if json:
        print_json({"entries": entries, "lost_count": lost})
        return
    if not entries:
        show("The work list is empty.")
    else:
        rows = [
            [
                str(entry["number"]),
                str(entry["terminal"]),
                str(entry["subscriber"]),
                entry["access_server"],
                instant_text(entry["at_ms"]),
                why_given_up(entry),
                entry["attempts_count"],
                entry["job"],
            ]
            for entry in entries
        ]
        columns = ["entry", "terminal", "subscriber", "access server", "given up", "why", "attempts", "job"]
        title = "Given up: refused by their access servers as often as a swap is tried"
        show(table(title, columns, rows))
    if lost:
        kept = "`simswitch history DIR given_up` has them"
        show(f"{lost:,} more made room for newer ones before anybody had resolved them; {kept}.")


def why_given_up(entry: dict[str, Any]) -> str:
    """What is known of it: access servers give no reasons."""
    last = f", last for SIM {entry['last_target']}" if entry["last_target"] else ""
    return f"{entry['last_result']}{last}"


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
    json: JsonOption = False,
) -> None:
    """Stop all swaps at once, until `lift`. Allocations go on."""
    if not everything:
        raise CommandFailed(Exit.USAGE, "`swap stop` stops every job: say --all, or end one job with `swap cancel JOB`")
    from simswitch.v1 import swap_pb2

    said = "All swaps are stopped. Allocations go on. `simswitch swap lift` lets swaps go on."
    _on_all(target(config, address, actor), "StopAllSwaps", swap_pb2.StopAllSwapsRequest(), said, json)


@app.command("lift")
def lift(
    address: AddressOption = None, actor: ActorOption = None, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Let swaps go on after `stop --all`."""
    from simswitch.v1 import swap_pb2

    _on_all(target(config, address, actor), "LiftStop", swap_pb2.LiftStopRequest(), "The stop is lifted.", json)


def _on_all(where: Target, call: str, request: Any, said: str, json: bool) -> None:
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import plain

    with connected(*where) as service:
        answer = plain(getattr(service.swaps, call)(request, timeout=CALL_TIMEOUT_S))
    if json:
        print_json(answer)
    else:
        show("It was so already." if answer["status"] == "same" else said)


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


def _on_job(where: Target, call: str, request: Any, json: bool) -> None:
    from simswitch.cli.connection import connected
    from simswitch.cli.messages import plain
    from simswitch.cli.status import job_table

    with connected(*where) as service:
        job = plain(getattr(service.swaps, call)(request, timeout=CALL_TIMEOUT_S).job)
    if json:
        print_json(job)
    else:
        show(job_table([job]))
        # Who is to approve a job, or wonders why it moves nobody, wants to know what its check found.
        if job["feasibility"] and job["state"] in ("awaiting_approval", "refused", "checked"):
            show(*check_lines(job))


def _watch(service: Any, number: int, json: bool) -> None:
    from simswitch.cli.messages import plain
    from simswitch.cli.status import job_table, over_by_text
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
                description=f"job {number} {_state_text(last)}, {last['outstanding_count']} outstanding"
                + (f", over by {over_by}" if (over_by := over_by_text(last)) else ""),
            )
    if not last:
        raise CommandFailed(Exit.REFUSED, f"the service said nothing about job {number}")
    _end(last, json, lambda: show(job_table([last])))


def _state_text(job: dict[str, Any]) -> str:
    state = job["state"].replace("_", " ")
    return f"{state} ({job['why']})" if job["why"] else str(state)


def _end(job: dict[str, Any], json: bool, describe: Callable[[], None]) -> None:
    if json:
        print_json(job)
    else:
        describe()
    if job["state"] not in FINISHED:
        raise CommandFailed(Exit.REFUSED, f"job {job['number']} is {job['state']}, and the service ended the watch")
    if job["state"] == "refused":
        raise CommandFailed(Exit.REFUSED, f"job {job['number']} moves nobody: {WHY[job['why']]}")
    if job["beyond_count"]:
        raise CommandFailed(
            Exit.REFUSED,
            f"its filter had {counted(job['beyond_count'], 'terminal')} beyond the {job['size_max']:,} that it may "
            "move, which stay where they are: order another job for them",
        )
    if job["given_up_count"]:
        raise CommandFailed(
            Exit.REFUSED,
            f"{counted(job['given_up_count'], 'terminal was', 'terminals were')} not moved: see `simswitch swap work`",
        )


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
        if not text.isdecimal() or int(text) >= 1 << 64:
            raise CommandFailed(
                Exit.REFUSED, f"{path}:{number}: {text[:40]!r}: a terminal's number below 2^64 belongs here"
            )
        found.append(int(text))
    if not found:
        raise CommandFailed(Exit.REFUSED, f"{path}: there is no terminal in the file")
    return found

"""The story, told twice with the same seed: once the way it was done in 2020, once through the engine.

Each time: a new data folder and a real server process, the inventory out of files, access servers as clients in two
processes of their own, a SIM for every terminal, terminals that come and go, the carrier slows a lot, the operator
orders the switch. The second time the server is killed in the middle with SIGKILL and started again on the same folder.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simswitch.cli.connection import connected
from simswitch.cli.exits import CommandFailed, Exit
from simswitch.cli.replay import comparison
from simswitch.cli.screen import progress as progress_display
from simswitch.cli.screen import show
from simswitch.core.commands import encode_iccid
from simswitch.demo.plan import ACCESS_SERVERS, SHORT, SLOWED_LOT, STANDARD, Plan, write_sims
from simswitch.demo.processes import DemonstrationFailed, FleetProcess, Server
from simswitch.inventory.digits import luhn_check_digit

if TYPE_CHECKING:
    from simswitch.client import OperatorClient

ACTOR = "operator:demo"
DATA = Path(__file__).parent / "data"
SAMPLE_S = 0.2
LONGER = 4
"""As many times as long as planned the story is watched while there are switches to come."""
SCENARIO = "demonstration"


@dataclass(slots=True)
class Told:
    """What one telling of the story gave."""

    figures: dict[str, Any]
    series: dict[str, list[float | None]]
    notes: dict[str, float] = field(default_factory=dict)
    crash: dict[str, Any] = field(default_factory=dict)


def run_demo(output: Path, *, short: bool = False, keep_s: int = 600) -> dict[str, Any]:
    """Tells the story, writes demo.json and demo.png into ``output`` and gives what stands in the former."""
    plan = SHORT if short else STANDARD
    begun_s = time.monotonic()
    folder = output / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    terminals = plan.terminals_count * len(ACCESS_SERVERS)
    switches = plan.slowed_count * len(ACCESS_SERVERS)
    show(
        f"The incident of 2020 in small: {len(ACCESS_SERVERS)} access servers of {plan.operations_per_s:g} operations "
        f"a second, {terminals:,} terminals, {switches:,} of them on SIMs that get slowed.",
        f"Time is compressed: 1 second here stands for {plan.scale} seconds. All times below are of the story. "
        "All figures are assumed.",
        "",
    )
    server: Server | None = None
    try:
        show("1. The way it was done in 2020: every switch at once, straight to the access servers")
        by_hand, server = tell(plan, folder / "unbounded", through_engine=False)
        server.stop()
        show("", "2. Through the engine: the same switch as a job; the server is killed in the middle of it")
        engine, server = tell(plan, folder / "engine", through_engine=True)
        result = {
            "scenario": SCENARIO,
            "seed": plan.seed,
            "state_hash": state_hash(server.folder),
            "policies": {"unbounded": by_hand.figures, "engine": engine.figures},
            "crash": engine.crash,
        }
        files = write_files(output, result, by_hand, engine)
        from simswitch.demo.picture import TITLES

        if engine.crash:
            show("", "The engine's waits include the time in which its server was killed and came back.")
        show("", comparison(result, TITLES))
        show(*crash_lines(engine.crash))
        show("", *files, f"Took {time.monotonic() - begun_s:.0f} s.", "")
        show(
            "The server is still running. Look at it:",
            f"    {program()} status --address {server.address}",
        )
        _keep(server, keep_s)
        return result
    except DemonstrationFailed as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    finally:
        if server is not None:
            server.stop()


def tell(plan: Plan, folder: Path, *, through_engine: bool) -> tuple[Told, Server]:
    """Tells the story once; the server is left running."""
    folder.mkdir(parents=True)
    config = folder / "simswitch.toml"
    config.write_text(settings(plan), encoding="utf-8")
    server = Server(folder / "data", config, folder / "server.log")
    fleets: list[FleetProcess] = []
    try:
        took_s = server.start()
        show(f"   server process {server.process_id} at {server.address}, after {took_s:.1f} s")
        import_inventory(server.address, folder, plan)
        numbered = list(enumerate(ACCESS_SERVERS))
        fleets = [
            FleetProcess(server.address, part, plan, folder / f"fleet-{place}.log")
            for place, part in enumerate((numbered[::2], numbered[1::2]))
        ]
        for fleet in fleets:
            fleet.expect("ready")
        _fill(fleets, plan)
        told = _watch(plan, server, fleets, through_engine)
        return told, server
    except BaseException:
        server.stop()
        raise
    finally:
        for fleet in fleets:
            fleet.stop()


def settings(plan: Plan) -> str:
    """The server's settings: the story's durations, compressed like everything else."""
    scale = plan.scale
    return "\n".join(
        (
            "[capacity]",
            "sims = 20_000",
            "terminals = 40_000",
            "orders = 10_000",
            "[journal]",
            f"segment_bytes = {16 << 20:_}",
            "free_mark_bytes = 0",
            "[engine]",
            "automatic_swaps = 0",
            # Its access servers ask when the operation is done, not before.
            "admission_queue_ms = 0",
            f"lease_ms = {3_600_000 // scale:_}",
            f"cooling_ms = {20_000 // scale:_}",
            f"order_deadline_ms = {180_000 // scale:_}",
            "",
        )
    )


def import_inventory(address: str, folder: Path, plan: Plan) -> None:
    """The definitions and lots that come with the program, and a CSV of SIMs that is written for this run."""
    from simswitch.cli.inventory import import_files

    sims = folder / "sims.csv"
    count = write_sims(sims, plan)
    with connected(address, ACTOR) as service:
        import_files(service.inventory, DATA / "inventory.toml", DATA / "lots.csv", sims, False, None, False)
    show(f"   {count:,} SIMs imported from {sims}")


def _fill(fleets: list[FleetProcess], plan: Plan) -> None:
    total = plan.terminals_count * len(ACCESS_SERVERS)
    with progress_display() as display:
        task = display.add_task("   handing out SIMs", total=total)
        # The engine hands out the SIMs with most left, so the lot that gets slowed goes first: to as many terminals of
        # each access server.
        for first, last in ((0, plan.slowed_count), (plan.slowed_count, plan.terminals_count)):
            for fleet in fleets:
                fleet.tell("fill", first=first, last=last)
            for fleet in fleets:
                fleet.expect("filled")
            display.update(task, completed=last * len(ACCESS_SERVERS))
    show(f"   {total:,} terminals have a SIM")


def slowed_iccids(plan: Plan) -> list[int]:
    """The SIMs of the lot that gets slowed, as numbers."""
    bodies = (f"8981100{number:011d}" for number in range(plan.slowed_sims_count))
    return [encode_iccid(f"{body}{luhn_check_digit(body)}") for body in bodies]


def slow(address: str, plan: Plan) -> None:
    """The carrier slows the lot; the operator has seen it."""
    from simswitch.v1 import inventory_pb2, sim_pb2

    with connected(address, ACTOR) as service:
        service.inventory.SetSimHealth(
            inventory_pb2.SetSimHealthRequest(iccid=slowed_iccids(plan), health=sim_pb2.HEALTH_THROTTLED), timeout=30
        )
    show(f"   the carrier slows the {plan.slowed_sims_count:,} SIMs of the lot {SLOWED_LOT!r}")


def order_switch(address: str) -> int:
    """The operator orders the bulk switch; gives the job's number."""
    from simswitch.v1 import sim_pb2, swap_pb2

    with connected(address, ACTOR) as service:
        response = service.swaps.CreateJob(
            swap_pb2.CreateJobRequest(
                reason="slowed by the carrier",
                healths=[sim_pb2.HEALTH_THROTTLED],
                on_infeasible=swap_pb2.INFEASIBLE_PROCEED,
            ),
            timeout=30,
        )
    return response.job.number


def _watch(plan: Plan, server: Server, fleets: list[FleetProcess], through_engine: bool) -> Told:
    """From the first terminals that come and go to the end of the time that is watched."""
    for fleet in fleets:
        fleet.tell("run")
    time.sleep(plan.quiet_s / plan.scale / 2)
    slow(server.address, plan)
    time.sleep(plan.quiet_s / plan.scale / 2)
    told = Told({}, {name: [] for name in ("t", "failed_per_s", "wait_s", "outstanding", "switched")})
    for fleet in fleets:
        fleet.tell("watch")
    ordered_s = time.monotonic()
    if through_engine:
        job = order_switch(server.address)
        show(f"   the switch is ordered: job {job}")
    else:
        iccids = slowed_iccids(plan)
        for fleet in fleets:
            fleet.tell("switch_all", first=min(iccids), last=max(iccids))
        show("   the switch is ordered: all at once")
    total = plan.slowed_sims_count
    totals_max = 0
    killed = not through_engine
    windows = Windows(server) if through_engine else None
    with progress_display() as display:
        task = display.add_task("   switches", total=total)
        now = _now(fleets)
        # A machine that is busy with other work may take longer over it.
        while (elapsed_s := time.monotonic() - ordered_s) * plan.scale < plan.watched_s * (
            1 if now["completed"] >= total else LONGER
        ):
            now = _now(fleets)
            totals_max = max(totals_max, now["in_flight"])
            _sample(told.series, plan, elapsed_s, now, _longest_wait_s(fleets))
            seen = f"{now['in_flight']} outstanding"
            if windows is not None:
                seen += f" in windows of {windows.look(told.series)}"
            display.update(
                task,
                completed=now["completed"],
                description=f"   switches; {seen}, {now['failed']} allocations failed",
            )
            if not killed and now["completed"] >= total * plan.killed_after_share:
                killed = True
                told.notes["kill -9"] = elapsed_s * plan.scale
                told.crash = _crash(server, fleets)
                told.notes["back"] = (time.monotonic() - ordered_s) * plan.scale
            time.sleep(SAMPLE_S)
    servers = []
    for fleet in fleets:
        fleet.tell("finish")
    for fleet in fleets:
        servers += fleet.expect("figures")["servers"]
    # The waits that ended since the last look are in the figures, so they are in the picture too.
    _sample(told.series, plan, time.monotonic() - ordered_s, _now(fleets), _longest_wait_s(fleets))
    if windows is not None:
        windows.look(told.series)
        windows.close()
        show(*(f"   the window of {name}: {path}" for name, path in window_paths(told.series).items()))
    told.figures = figures(plan, servers, totals_max)
    if told.crash:
        told.crash["failed_meanwhile"] = sum(entry["allocations_unanswered"] for entry in servers)
        told.crash["reconciled"] = _reconciled(fleets)
    return told


WINDOW = "window of "
"""Begins the names of the columns that have them."""


class Windows:
    """The access servers' windows, as the server tells an operator; nothing while it is away."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client: OperatorClient | None = None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def look(self, series: dict[str, list[float | None]]) -> str:
        """Adds a point to each column; gives all of them in a few words."""
        import grpc

        from simswitch.client import OperatorClient, ServiceError
        from simswitch.v1 import pool_pb2

        found: dict[str, int] = {}
        try:
            if self._client is None:
                self._client = OperatorClient(self._server.address, actor=ACTOR)
            request = pool_pb2.ListAccessServerStatusesRequest()
            statuses = self._client.pool.ListAccessServerStatuses(request, timeout=SAMPLE_S).statuses
            found = {status.name: status.window for status in statuses}
        except (grpc.RpcError, ServiceError):
            self.close()
        for name in ACCESS_SERVERS:
            series.setdefault(WINDOW + name, []).append(found.get(name))
        return ", ".join(str(found.get(name, "?")) for name in ACCESS_SERVERS)


def window_paths(series: dict[str, list[float | None]]) -> dict[str, str]:
    """By access server: the sizes that its window had, one after the other."""
    paths = {}
    for column, values in series.items():
        if column.startswith(WINDOW):
            known = [int(value) for value in values if value is not None]
            steps = known[:1] + [after for before, after in itertools.pairwise(known) if after != before]
            paths[column.removeprefix(WINDOW)] = " → ".join(map(str, steps))
    return paths


def _now(fleets: list[FleetProcess]) -> dict[str, int]:
    """The counts of all access servers, as they said them last."""
    return {key: sum(fleet.progress.get(key, 0) for fleet in fleets) for key in ("failed", "in_flight", "completed")}


def _longest_wait_s(fleets: list[FleetProcess]) -> float | None:
    """The longest wait that ended since the last look; None: none did, as while the server is away."""
    waits_s = [wait_s for fleet in fleets if (wait_s := fleet.take_longest_wait_s()) is not None]
    return max(waits_s, default=None)


def _sample(
    series: dict[str, list[float | None]], plan: Plan, elapsed_s: float, now: dict[str, int], wait_s: float | None
) -> None:
    """One point of the picture. Rates are over the last second of the story's clock here."""
    failed = series.setdefault("failed", [])
    failed.append(now["failed"])
    window = min(len(failed) - 1, int(1 / SAMPLE_S))
    span_s = window * SAMPLE_S * plan.scale
    failed_per_s = (now["failed"] - (failed[-1 - window] or 0)) / span_s if window else 0.0
    series["t"].append(elapsed_s * plan.scale)
    series["failed_per_s"].append(failed_per_s)
    series["wait_s"].append(None if wait_s is None else wait_s * plan.scale)
    series["outstanding"].append(now["in_flight"])
    series["switched"].append(now["completed"])


def _crash(server: Server, fleets: list[FleetProcess]) -> dict[str, Any]:
    """Kills the server and starts it again on the same folder."""
    process_id = server.process_id
    held = sum(fleet.progress.get("held", 0) for fleet in fleets)
    for fleet in fleets:
        fleet.reconciled.clear()
    server.kill()
    show(f"   kill -9 {process_id}: the server is gone, the access servers go on with {held:,} terminals")
    took_s = server.start()
    show(f"   server process {server.process_id} has recovered from the journal after {took_s:.1f} s here, and goes on")
    return {"held": held, "recovery_s": took_s}


def _reconciled(fleets: list[FleetProcess]) -> dict[str, int]:
    """What the recovered server made of everything that the access servers really hold."""
    totals: dict[str, int] = {}
    for fleet in fleets:
        for event in fleet.reconciled:
            for status, count in event["differences"].items():
                totals[status] = totals.get(status, 0) + count
    return totals


def program() -> str:
    """How this program was called, so that the command that is shown can be typed as it stands."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "simswitch" and os.access(called, os.X_OK) else "simswitch"


def crash_lines(crash: dict[str, Any]) -> list[str]:
    """What the crash cost, for people."""
    if not crash:
        return ["The server was not killed: the switch was over too soon."]
    found = crash["reconciled"]
    known = sum(found.get(status, 0) for status in ("OK", "SAME", "SETTLED", "REVOKED"))
    lost = sum(found.values()) - known
    settled = found.get("SETTLED", 0)
    gone = crash["failed_meanwhile"]
    failed = f" Of the allocations that failed, {gone:,} had no answer in time: it was away, or busy." if gone else ""
    return [
        f"After kill -9 the access servers told what they really held: {sum(found.values()):,} leases. The server "
        f"knew {known:,} of them; {settled:,} switches that were under way were settled so; {lost:,} leases were lost."
        f"{failed}"
    ]


def figures(plan: Plan, servers: list[dict[str, Any]], totals_max: int) -> dict[str, Any]:
    """The figures of one telling, in seconds of the story, with the keys that a replay's figures have."""
    scale = plan.scale
    waits_s = np.array([wait for entry in servers for wait in entry["waits_s"]] or [0.0])
    finished = [entry["finished_s"] for entry in servers]
    over = all(entry["in_flight"] == 0 for entry in servers) and None not in finished
    completed = sum(entry["swaps_completed"] for entry in servers)
    failed = sum(entry["swaps_failed"] for entry in servers)
    over = over and completed + failed >= plan.slowed_sims_count
    return {
        "allocations_requested": sum(entry["allocations_requested"] for entry in servers),
        "allocations_failed": sum(entry["allocations_failed"] for entry in servers),
        "allocation_wait_p50_s": round(float(np.percentile(waits_s, 50)) * scale, 3),
        "allocation_wait_p99_s": round(float(np.percentile(waits_s, 99)) * scale, 3),
        "allocation_wait_max_s": round(float(waits_s.max()) * scale, 3),
        "swaps_completed": completed,
        "swaps_failed": failed,
        "swaps_in_flight_max": max(entry["swaps_in_flight_max"] for entry in servers),
        "swaps_in_flight_total_max": max(totals_max, max(entry["swaps_in_flight_max"] for entry in servers)),
        "swaps_finished_s": round(max(finished) * scale, 1) if over else None,
        "outage_user_seconds": round(sum(entry["outage_s"] for entry in servers), 1),
    }


def state_hash(folder: Path) -> str:
    """The hash of the running server's state as its journal tells it: the folder is only read."""
    from simswitch.journal.disk import RealDisk
    from simswitch.journal.recovery import real_machine, recover

    recovery = recover(RealDisk(folder, create=False), real_machine(), repair=False)
    return f"{recovery.machine.state_hash():016x}"


def write_files(output: Path, result: dict[str, Any], by_hand: Told, engine: Told) -> list[str]:
    """Writes the figures and the picture; gives a line for each file."""
    from simswitch.demo.picture import draw

    numbers = output / "demo.json"
    numbers.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    lines = [f"Figures: {numbers}"]
    picture = output / "demo.png"
    series = {"unbounded": by_hand.series, "engine": engine.series}
    (output / "demo" / "picture.json").write_text(json.dumps(series) + "\n", encoding="utf-8")
    try:
        draw(result, series, engine.notes, picture)
        lines.append(f"Picture: {picture}")
    except ImportError:
        lines.append("No picture: matplotlib is not installed (simswitch[plot]).")
    lines.append(f"Data folders, logs, the CSV and the points of the picture: {output / 'demo'}")
    return lines


def _keep(server: Server, keep_s: int, is_person: Callable[[], bool] = sys.stdin.isatty) -> None:
    """Leaves the server up for a person at the terminal until Enter, Ctrl-C or the time is over."""
    if not is_person():
        show("(Without a person at the terminal it is stopped now.)")
        return
    import select

    show(f"Enter or Ctrl-C stops it, at the latest after {keep_s} s.")
    try:
        select.select([sys.stdin], [], [], keep_s)
    except KeyboardInterrupt:
        show("")
    del server

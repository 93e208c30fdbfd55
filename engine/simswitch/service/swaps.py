"""SwapService: orders jobs and tells how far they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import numpy as np

from simswitch.cell import Cell
from simswitch.core import layout
from simswitch.core.commands import OutcomeRun, decode_iccid, job_create, run
from simswitch.core.machine import Machine
from simswitch.core.roles import Read
from simswitch.core.wire import ITEMS_MAX
from simswitch.service.call import Call
from simswitch.service.directory import Directory
from simswitch.service.errors import INVALID_ARGUMENT, STATUS_REASONS, TOO_MANY_ITEMS, Refused, check
from simswitch.service.paging import page_size, page_start, page_token
from simswitch.service.reason import reason_bytes
from simswitch.v1 import sim_pb2
from simswitch.v1 import swap_pb2 as pb

RESOLVED_MAX = 1_000
ERROR_BUDGET_PPM = 50_000
"""Of a job that says nothing of it."""
WATCH_DEFAULT_MS = 1_000
WATCH_MIN_MS = 100
WATCH_MAX_MS = 60_000

_MOST = {
    "deadline_ms": (1 << 52) - 1,
    "announce_ahead_ms": 86_400_000,
    "error_budget_ppm": 1_000_000,
    "rate_per_minute": 60_000_000,
    "headroom_below_bytes": (1 << 62) - 1,
}
"""What the core would refuse without saying which field it is."""

_LIST = b"jobs"
_LIST_GIVEN_UP = b"given"
_FINISHED = (pb.JOB_STATE_CANCELLED, pb.JOB_STATE_DONE, pb.JOB_STATE_REFUSED, pb.JOB_STATE_CHECKED)
_WITHOUT = {
    layout.WITHOUT_TARGET: pb.WITHOUT_TARGET,
    layout.WITHOUT_SWAP: pb.WITHOUT_SWAP,
    layout.WITHOUT_REST: pb.WITHOUT_REST,
    layout.WITHOUT_SERVER: pb.WITHOUT_ACCESS_SERVER,
    layout.WITHOUT_CEILING: pb.WITHOUT_CEILING,
}


class SwapHandlers:
    """SwapService."""

    def __init__(self, cell: Cell, directory: Directory) -> None:
        self._cell = cell
        self._directory = directory
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Ends those who watch."""
        self._draining.set()

    async def create_job(self, data: bytes, call: Call) -> bytes:
        call.may(layout.JOB_CREATE)
        request = pb.CreateJobRequest.FromString(data)
        reason_bytes(request.reason)
        if len(request.terminal) > ITEMS_MAX:
            raise Refused(TOO_MANY_ITEMS, f"{len(request.terminal):,} terminals; a call may have {ITEMS_MAX:,}")
        if not 0 <= request.priority <= pb.PRIORITY_REBALANCE:
            raise Refused(INVALID_ARGUMENT, f"priority {request.priority} does not exist")
        health_mask = 0
        for health in request.healths:
            if not sim_pb2.HEALTH_HEALTHY <= health <= sim_pb2.HEALTH_RETIRED:
                raise Refused(INVALID_ARGUMENT, f"health {health} does not exist")
            health_mask |= 1 << health
        selecting = not request.terminal and not request.terminals_follow
        if not 0 <= request.on_infeasible <= pb.INFEASIBLE_PAUSE:
            raise Refused(INVALID_ARGUMENT, f"on_infeasible {request.on_infeasible} does not exist")
        for field, most in _MOST.items():
            if getattr(request, field) > most:
                raise Refused(INVALID_ARGUMENT, f"{field} is at most {most:,}, not {getattr(request, field):,}")
        outcome = await self._cell.submit(
            job_create(
                request.reason,
                actor=call.actor.index,
                health_mask=health_mask,
                lot=self._index(layout.LOT, request.lot),
                supplier=self._index(layout.SUPPLIER, request.supplier),
                carrier=self._index(layout.CARRIER, request.carrier),
                sim_class=self._index(layout.SIM_CLASS, request.sim_class),
                bank=self._index(layout.BANK, request.bank),
                server=self._directory.server(request.access_server).server
                if request.access_server
                else layout.NONE_SHORT,
                headroom_below_bytes=request.headroom_below_bytes,
                priority=request.priority or pb.PRIORITY_THROTTLED,
                selecting=int(selecting),
                deadline_ms=request.deadline_ms,
                announce_ahead_ms=request.announce_ahead_ms,
                quiet_from_ms=request.quiet_hours.from_ms,
                quiet_until_ms=request.quiet_hours.until_ms,
                canary_count=request.canary_count,
                budget_ppm=request.error_budget_ppm if request.HasField("error_budget_ppm") else ERROR_BUDGET_PPM,
                rate_per_minute=request.rate_per_minute,
                on_infeasible=request.on_infeasible or pb.INFEASIBLE_REFUSE,
                dry_run=int(request.dry_run),
            )
        )
        check(int(outcome["status"][0]), request.reason)
        number = int(outcome["job"][0])
        response = pb.CreateJobResponse()
        if request.terminal:
            added = await self._add(number, request.terminal, call)
            response.status.extend(added["status"].tolist())
            if not request.terminals_follow:
                await self._complete(number, call)
        response.job.CopyFrom(await self._job(number, call))
        return response.SerializeToString()

    async def add_job_terminals(self, data: bytes, call: Call) -> bytes:
        call.may(layout.JOB_ADD)
        request = pb.AddJobTerminalsRequest.FromString(data)
        if len(request.terminal) > ITEMS_MAX:
            raise Refused(TOO_MANY_ITEMS, f"{len(request.terminal):,} terminals; a call may have {ITEMS_MAX:,}")
        await self._job(request.job, call)
        response = pb.AddJobTerminalsResponse()
        if request.terminal:
            added = await self._add(request.job, request.terminal, call)
            response.status.extend(added["status"].tolist())
        if request.last:
            await self._complete(request.job, call)
        return response.SerializeToString()

    def _index(self, kind: int, name: str) -> int:
        return self._directory.get(kind, name).index if name else layout.NONE_SHORT

    def _add(self, number: int, terminals: Any, call: Call) -> asyncio.Future[OutcomeRun]:
        keys = np.fromiter(terminals, np.uint64, len(terminals))
        return self._cell.submit(run(layout.JOB_ADD, len(keys), actor=call.actor.index, argument=number, terminal=keys))

    async def _complete(self, number: int, call: Call) -> None:
        # The core takes RESUME for "no more terminals follow".
        outcome = await self._cell.submit(run(layout.JOB_RESUME, actor=call.actor.index, argument=number))
        check(int(outcome["status"][0]), f"job {number}")

    async def get_job(self, data: bytes, call: Call) -> bytes:
        call.may_read(Read.SWAPS)
        number = pb.GetJobRequest.FromString(data).job
        return pb.GetJobResponse(job=await self._job(number, call)).SerializeToString()

    async def list_jobs(self, data: bytes, call: Call) -> bytes:
        call.may_read(Read.SWAPS)
        request = pb.ListJobsRequest.FromString(data)
        size = page_size(request.page_size)
        start = page_start(request.page_token, _LIST)

        def read(machine: Machine) -> tuple[list[Mapping[str, Any]], int, bool]:
            numbers = [number for number in machine.job_ids() if number >= start]
            following = numbers[size] if len(numbers) > size else 0
            jobs: list[Mapping[str, Any]] = [machine.job(number) for number in numbers[:size]]
            return jobs, following, bool(machine.header()["swaps_stopped"])

        jobs, following, stopped = await self._cell.read(read)
        return pb.ListJobsResponse(
            jobs=[call.seen(self._message(job)) for job in jobs],
            next_page_token=page_token(following, _LIST) if following else "",
            stopped=stopped,
        ).SerializeToString()

    async def pause_job(self, data: bytes, call: Call) -> bytes:
        number = pb.PauseJobRequest.FromString(data).job
        return pb.PauseJobResponse(job=await self._change(layout.JOB_PAUSE, number, call)).SerializeToString()

    async def resume_job(self, data: bytes, call: Call) -> bytes:
        number = pb.ResumeJobRequest.FromString(data).job
        return pb.ResumeJobResponse(job=await self._change(layout.JOB_RESUME, number, call)).SerializeToString()

    async def approve_job(self, data: bytes, call: Call) -> bytes:
        number = pb.ApproveJobRequest.FromString(data).job
        return pb.ApproveJobResponse(job=await self._change(layout.JOB_APPROVE, number, call)).SerializeToString()

    async def list_given_up(self, data: bytes, call: Call) -> bytes:
        call.may_read(Read.SWAPS)
        request = pb.ListGivenUpRequest.FromString(data)
        size = page_size(request.page_size)
        start = page_start(request.page_token, _LIST_GIVEN_UP)
        entries, lost = await self._cell.read(lambda machine: (machine.given_up(), machine.header()["given_up_lost"]))
        entries = [entry for entry in entries if entry["number"] >= start]
        servers = {entity.server: entity.name for entity in self._directory.all(layout.ACCESS_SERVER)}
        response = pb.ListGivenUpResponse(
            entries=[
                pb.GivenUp(
                    number=entry["number"],
                    at_ms=entry["at_ms"],
                    terminal=entry["terminal"],
                    subscriber=entry["subscriber"],
                    job=entry["job"],
                    access_server=servers[entry["server"]],
                    attempts_count=entry["attempts"],
                    last_result=entry["why"],
                    last_target=decode_iccid(entry["target"]) if entry["target"] else "",
                )
                for entry in entries[:size]
            ],
            next_page_token=page_token(entries[size]["number"], _LIST_GIVEN_UP) if len(entries) > size else "",
            lost_count=lost,
        )
        return call.seen(response).SerializeToString()

    async def resolve_given_up(self, data: bytes, call: Call) -> bytes:
        call.may(layout.GIVEN_UP_RESOLVE)
        numbers = pb.ResolveGivenUpRequest.FromString(data).numbers
        if not 1 <= len(numbers) <= RESOLVED_MAX:
            raise Refused(INVALID_ARGUMENT, f"{len(numbers):,} numbers; a call has 1 to {RESOLVED_MAX:,}")
        outcome = await self._cell.submit(
            run(layout.GIVEN_UP_RESOLVE, len(numbers), actor=call.actor.index, number=np.array(numbers, np.uint64))
        )
        return pb.ResolveGivenUpResponse(status=outcome["status"].tolist()).SerializeToString()

    async def cancel_job(self, data: bytes, call: Call) -> bytes:
        number = pb.CancelJobRequest.FromString(data).job
        return pb.CancelJobResponse(job=await self._change(layout.JOB_CANCEL, number, call)).SerializeToString()

    async def stop_all_swaps(self, data: bytes, call: Call) -> bytes:
        pb.StopAllSwapsRequest.FromString(data)
        call.may(layout.SWAPS_STOP)
        outcome = await self._cell.submit(run(layout.SWAPS_STOP, actor=call.actor.index))
        return pb.StopAllSwapsResponse(status=outcome["status"].tolist()[0]).SerializeToString()

    async def lift_stop(self, data: bytes, call: Call) -> bytes:
        pb.LiftStopRequest.FromString(data)
        call.may(layout.SWAPS_LIFT)
        outcome = await self._cell.submit(run(layout.SWAPS_LIFT, actor=call.actor.index))
        return pb.LiftStopResponse(status=outcome["status"].tolist()[0]).SerializeToString()

    async def watch_job(self, data: bytes, call: Call) -> AsyncGenerator[bytes, None]:
        call.may_read(Read.SWAPS)
        request = pb.WatchJobRequest.FromString(data)
        interval_ms = request.interval_ms or WATCH_DEFAULT_MS
        if not WATCH_MIN_MS <= interval_ms <= WATCH_MAX_MS:
            raise Refused(INVALID_ARGUMENT, f"interval_ms is {WATCH_MIN_MS} to {WATCH_MAX_MS}, not {interval_ms}")
        while not self._draining.is_set():
            job = await self._job(request.job, call)
            yield pb.WatchJobResponse(job=job).SerializeToString()
            if job.state in _FINISHED:
                return
            try:
                async with asyncio.timeout(interval_ms / 1000):
                    await self._draining.wait()
            except TimeoutError:
                continue

    async def _change(self, kind: int, number: int, call: Call) -> pb.Job:
        call.may(kind)
        await self._job(number, call)
        outcome = await self._cell.submit(run(kind, actor=call.actor.index, argument=number))
        job = await self._job(number, call)
        state = pb.JobState.Name(job.state).removeprefix("JOB_STATE_").lower().replace("_", " ")
        check(int(outcome["status"][0]), f"job {number} is {state}")
        return job

    async def _job(self, number: int, call: Call) -> pb.Job:
        job = await self._cell.read(lambda machine: _find_job(machine, number))
        if job is None:
            raise Refused(STATUS_REASONS[layout.UNKNOWN_JOB], str(number))
        return call.seen(self._message(job))

    def _message(self, job: Mapping[str, Any]) -> pb.Job:
        finished_ms = job["finished_ms"]
        return pb.Job(
            number=job["id"],
            state=job["state"],
            reason=job["reason"],
            actor=self._directory.name(job["actor"]),
            priority=job["priority"],
            created_ms=job["created_ms"],
            finished_ms=finished_ms or None,
            terminals_count=job["terminals_count"],
            queued_count=job["queued_count"],
            outstanding_count=job["outstanding_count"],
            confirmed_count=job["confirmed_count"],
            refused_count=job["refused_count"],
            given_up_count=job["given_up_count"],
            skipped_count=job["skipped_count"],
            outages_count=job["outages_count"],
            outage_ms=job["outage_ms"],
            outage_max_ms=job["outage_max_ms"],
            unmeasured_count=job["unmeasured_count"],
            why=job["why"],
            feasibility=_feasibility(job) if job["expected_finish_ms"] else None,
            expected_finish_ms=job["expected_finish_ms"] or None,
            deadline_ms=job["deadline_ms"] or None,
            failed_count=job["failed_count"],
            announced_count=job["announced_count"],
            canary=job["canary"],
            approver="" if job["approver"] is None else self._directory.name(job["approver"]),
            dry_run=job["dry_run"],
            size_max=job["size_max"],
            beyond_count=job["beyond_count"],
        )


def _feasibility(job: Mapping[str, Any]) -> pb.Feasibility:
    samples = job["samples"] or [[]] * len(_WITHOUT)
    return pb.Feasibility(
        terminals_count=job["demand_count"],
        targets_count=job["targets_count"],
        headroom_needed_bytes=job["headroom_needed_bytes"],
        headroom_found_bytes=job["headroom_found_bytes"],
        without=[
            pb.WithoutCount(why=word, count=job["without"][why], terminals=samples[why])
            for why, word in _WITHOUT.items()
            if job["without"][why]
        ],
    )


def _find_job(machine: Machine, number: int) -> Mapping[str, Any] | None:
    """None: there is no such job any more, or not yet."""
    if number >= layout.NONE_INDEX:
        return None
    try:
        return machine.job(number)
    except IndexError:
        return None

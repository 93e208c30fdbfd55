"""Cells with a machine that only remembers: gathering, overlap, durability, bounds, deadlines, clock and failures."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence

import pytest
from simswitch.cell import (
    STALL_S,
    Capacity,
    Cell,
    CellClosed,
    CellExpired,
    CellFailed,
    CellOverloaded,
    CellSettings,
    JournalFull,
    JournalSettings,
    Posted,
    RecordTooLarge,
    VirtualClock,
    WallClock,
)
from simswitch.clock import Clock
from simswitch.core import commands
from simswitch.core.commands import OutcomeRun
from simswitch.core.layout import (
    ACCESS_SERVER,
    DECLARE_DEAD,
    DEFINE,
    FREEZE,
    RESTART,
    SESSION_HOLDS,
    SESSION_OPEN,
    SESSION_READY,
    THAW,
    TICK,
)
from simswitch.core.machine import Machine, MalformedBatch
from simswitch.journal.recovery import recover
from simswitch.journal.snapshot import snapshot_sequences

from tests.cell.event_loop import in_event_loop
from tests.cell.small_pool import SERVER_NUMBER, allocate, fill
from tests.journal.faulty_disk import FaultyDisk
from tests.journal.tiny_machine import BROKEN, WITH_ORDER, TinyMachine, number_run, numbers_of, tiny_kind

ONE = Capacity(1, 1, 1)


@pytest.fixture
def slow_commits_alone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that another process held up is no reason to do nothing in place of the worker."""
    monkeypatch.setattr("simswitch.cell.COMMIT_ALONE_US_MAX", 3_600_000_000)


class Gate:
    """Holds up every commit after ``shut`` until ``open_once`` lets one through, or ``release`` all.

    A TICK is journaled first: it begins the first segment, and from then on each commit is one fdatasync.
    """

    def __init__(self, disk: FaultyDisk, cell: Cell) -> None:
        cell.step(commands.run(TICK))
        self._permits = threading.Semaphore(0)
        self._shut = False
        self.waiting = threading.Event()
        disk.before = self._before

    def _before(self, event: str) -> None:
        committing = event == "fdatasync" and threading.current_thread().name.startswith("simswitch-cell")
        if committing and self._shut:
            self.waiting.set()
            assert self._permits.acquire(timeout=60)

    def shut(self) -> None:
        self.waiting.clear()
        self._shut = True

    def open_once(self) -> None:
        self.waiting.clear()
        self._permits.release()

    def release(self) -> None:
        self._shut = False
        self._permits.release(1000)


def opened(
    disk: FaultyDisk,
    settings: CellSettings | None = None,
    clock: Clock | None = None,
    stopped: Callable[[str], object] = print,
) -> Cell:
    return Cell.open(
        "in memory",
        disk=disk,
        machine=tiny_kind(),
        capacity=ONE,
        settings=settings,
        journal=JournalSettings(segment_bytes=1024 * 1024, free_mark_bytes=0),
        clock=clock or VirtualClock(1000),
        fail_stop=stopped,
    )


def tiny(cell: Cell) -> TinyMachine:
    machine = cell._machine
    assert isinstance(machine, TinyMachine)
    return machine


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what has to come; the test's own limit ends it otherwise."""
    while not condition():
        await asyncio.sleep(0.001)


def serving_leases(cell: Cell) -> None:
    """40 terminals on SIMs, and the session of their access server."""
    cell.step(allocate(1, 40))
    answer = commands.outcome_runs(cell.step(commands.run(SESSION_OPEN, access_server=SERVER_NUMBER)).data)[0]
    session = int(answer["session"][0])
    held = cell.machine.terminals_columns()
    iccids = cell.machine.sims_columns()["iccid"][held["sim"]]
    cell.step(
        commands.run(
            SESSION_HOLDS, 40, access_server=SERVER_NUMBER, argument=session, terminal=held["key"], epoch=held["epoch"],
            iccid=iccids,
        )
    )  # fmt: skip
    cell.step(commands.run(SESSION_READY, access_server=SERVER_NUMBER, argument=session))


def test_step_applies_and_is_durable() -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    for number in range(5):
        cell.step(number_run(number))
        assert cell.durable_sequence == number + 1
        assert disk.events[-1] == "fdatasync"
    assert numbers_of(recover(disk.copy(), tiny_kind(), repair=False).machine) == list(range(5))


def test_in_memory_nothing_is_written() -> None:
    clock = VirtualClock(5)
    cell = Cell.in_memory(machine=tiny_kind(), capacity=ONE, clock=clock)
    cell.step(number_run(3))
    assert cell.durable_sequence == 1
    assert cell.journal_id is None
    assert cell.step_tick() is None
    tiny(cell).next_due_ms = 10
    clock.set(10)
    assert cell.step_tick() is not None
    assert tiny(cell).kinds[-1] == TICK
    cell.close()


def test_i6_restart_is_the_first_command_after_a_recovery() -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    assert tiny(cell).kinds == []
    cell.step(number_run(1))
    cell.close()
    again = opened(disk)
    assert tiny(again).kinds == [RESTART]
    assert numbers_of(again.machine) == [1]


@in_event_loop
async def test_no_reply_no_read_and_no_order_leaves_before_it_is_durable() -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    gate = Gate(disk, cell)
    left: list[object] = []
    cell.on_orders = lambda orders: left.append(("orders", int(orders["order"][0])))
    cell.start()
    gate.shut()
    reply = cell.submit(number_run(9, kind=WITH_ORDER))
    reply.add_done_callback(lambda _: left.append("reply"))
    await until(gate.waiting.is_set)
    shown = cell.read(lambda machine: machine.sequence)
    shown.add_done_callback(lambda _: left.append("read"))
    await asyncio.sleep(0.05)
    assert tiny(cell).sequence == 2, "the group was applied"
    assert left == []
    gate.open_once()
    assert await shown == 2
    await reply
    assert left == [("orders", 9), "reply", "read"]
    gate.release()
    await asyncio.to_thread(cell.close)


@in_event_loop
async def test_a_large_group_is_applied_while_the_one_before_is_written_and_a_small_one_gathers() -> None:
    disk = FaultyDisk()
    cell = opened(disk, CellSettings(overlap_bytes=2000))
    gate = Gate(disk, cell)
    cell.start()
    gate.shut()
    first = cell.submit(number_run(1))
    await until(gate.waiting.is_set)
    replies = [cell.submit(number_run(number)) for number in range(2, 12)]
    await asyncio.sleep(0.05)
    assert tiny(cell).sequence == 2, "ten small runs go on gathering while the disk is busy"
    replies.append(cell.submit(number_run(12, 4000)))
    await until(lambda: tiny(cell).sequence == 3)
    assert tiny(cell).numbers == list(range(1, 13))
    assert not first.done()
    gate.open_once()
    await first
    await until(gate.waiting.is_set)
    assert not any(reply.done() for reply in replies)
    gate.open_once()
    outcomes = await asyncio.gather(*replies)
    assert [int(outcome["session"][0]) for outcome in outcomes] == list(range(2, 13))
    assert cell.durable_sequence == 3
    gate.release()
    await asyncio.to_thread(cell.close)
    assert numbers_of(recover(disk, tiny_kind(), repair=False).machine) == list(range(1, 13))


@in_event_loop
async def test_groups_and_orders_keep_their_order_under_load() -> None:
    disk = FaultyDisk()
    cell = opened(disk, CellSettings(overlap_bytes=100, group_calls_max=7))
    orders: list[int] = []

    def note(run: OutcomeRun) -> None:
        orders.extend(run["order"].tolist())

    cell.on_orders = note
    cell.start()
    answered: list[int] = []

    async def client(base: int) -> None:
        for number in range(base, base + 100):
            kind = WITH_ORDER if number % 3 == 0 else None
            run = number_run(number, kind=kind) if kind else number_run(number)
            await cell.submit(run)
            answered.append(number)
            if kind:
                assert number in orders, "orders come before the reply of their own record"

    await asyncio.gather(*(client(base * 1000) for base in range(20)))
    assert len(answered) == 2000
    await asyncio.to_thread(cell.close)
    recovered = recover(disk, tiny_kind(), repair=False).machine
    assert recovered.state_hash() == tiny(cell).state_hash()
    assert sorted(orders) == sorted(number for number in answered if number % 3 == 0)


@in_event_loop
async def test_a_lone_call_is_served_by_who_brings_it_and_nobody_else_is_overtaken() -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    gate = Gate(disk, cell)
    served: list[tuple[str, int]] = []

    def finish(calls: Sequence[Posted]) -> None:
        for call in calls:
            assert call.outcome is not None
            served.append((threading.current_thread().name, int(call.outcome["session"][0])))

    def serve(number: int) -> bool:
        return cell.serve_alone(Posted(number_run(number), finish))

    cell.start()
    await until(lambda: cell._gathering)
    assert await asyncio.to_thread(serve, 1)
    assert cell.durable_sequence == 2
    gate.shut()
    written = cell.submit(number_run(2))
    await until(gate.waiting.is_set)
    gathering = cell.submit(number_run(3))
    assert not serve(9), "another call is being written"
    gate.release()
    await asyncio.gather(written, gathering)
    await until(lambda: cell._gathering)
    assert serve(4)
    cell._commit_us = 1_000_000
    assert not serve(9), "the disk is slow"
    assert [number for _, number in served] == [1, 4]
    assert not any(name.startswith("simswitch-cell") for name, _ in served)
    await asyncio.to_thread(cell.close)
    assert not serve(9)
    assert numbers_of(recover(disk, tiny_kind(), repair=False).machine) == [1, 2, 3, 4]


@pytest.mark.usefixtures("slow_commits_alone_too")
@in_event_loop
async def test_what_comes_while_a_lone_call_is_served_has_its_turn() -> None:
    disk = FaultyDisk()
    cell = opened(disk, clock=WallClock())
    cell.start()
    reached, go_on = threading.Event(), threading.Event()

    def hold_up(event: str) -> None:
        if event == "fdatasync" and not threading.current_thread().name.startswith("simswitch-cell"):
            reached.set()
            assert go_on.wait(20)

    await cell.submit(number_run(1))
    await until(lambda: cell._gathering)
    disk.before = hold_up
    alone = Posted(number_run(2), lambda _: None)
    serving = asyncio.create_task(asyncio.to_thread(cell.serve_alone, alone))
    await until(reached.is_set)
    later = [cell.submit(number_run(number)) for number in (3, 4)]
    # A tick that is due before the worker would have looked again.
    tiny(cell).next_due_ms = tiny(cell).now_ms + 50
    closing = asyncio.create_task(asyncio.to_thread(cell.close))
    await asyncio.sleep(0.05)
    assert alone.outcome is not None
    assert not any(reply.done() for reply in later)
    assert not closing.done()
    go_on.set()
    assert await serving
    await asyncio.gather(*later)
    await closing
    assert numbers_of(recover(disk, tiny_kind(), repair=False).machine) == [1, 2, 3, 4]


@pytest.mark.usefixtures("slow_commits_alone_too")
@in_event_loop
async def test_stop_waits_for_a_caller_that_serves_itself() -> None:
    cell = opened(FaultyDisk())
    cell.start()
    await cell.submit(number_run(1))
    await until(lambda: cell._gathering)
    told, go_on = threading.Event(), threading.Event()

    def finish(_: Sequence[Posted]) -> None:
        told.set()
        assert go_on.wait(20)

    serving = asyncio.create_task(asyncio.to_thread(cell.serve_alone, Posted(number_run(2), finish)))
    await until(told.is_set)
    stopping = asyncio.create_task(asyncio.to_thread(cell.stop))
    await until(lambda: not any(worker.is_alive() for worker in cell._workers))
    await asyncio.sleep(0.02)
    assert not stopping.done()
    go_on.set()
    await stopping
    assert await serving
    await asyncio.to_thread(cell.close)


@pytest.mark.usefixtures("slow_commits_alone_too")
@in_event_loop
async def test_a_tick_that_a_lone_call_makes_due_comes_in_time() -> None:
    cell = opened(FaultyDisk(), clock=WallClock())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simswitch.cell._IDLE_WAIT_MAX_S", 3600.0)
        cell.start()
        await cell.submit(number_run(1))
        await until(lambda: cell._gathering and cell._sleeps_until_s > time.monotonic() + 1800)
        tiny(cell).next_due_ms = tiny(cell).now_ms + 100
        assert cell.serve_alone(Posted(number_run(2), lambda _: None))
        await until(lambda: tiny(cell).kinds[-1] == TICK)
    await asyncio.to_thread(cell.close)


@pytest.mark.usefixtures("slow_commits_alone_too")
@in_event_loop
async def test_a_lone_call_that_fails_ends_the_process_as_any_other() -> None:
    disk = FaultyDisk()
    stopped: list[str] = []
    cell = opened(disk, stopped=stopped.append)
    cell.start()
    await cell.submit(number_run(1))
    await until(lambda: cell._gathering)

    def fail_commit(event: str) -> None:
        if event == "fdatasync":
            raise disk.failure

    disk.before = fail_commit
    failing = Posted(number_run(2), lambda _: None)
    assert cell.serve_alone(failing)
    disk.before = None
    assert isinstance(failing.error, CellFailed)
    assert len(stopped) == 1
    with pytest.raises((CellFailed, CellClosed)):
        await cell.submit(number_run(3))
    await asyncio.to_thread(cell.close)
    assert snapshot_sequences(disk) == []


@in_event_loop
async def test_a_malformed_run_hurts_nobody_else_in_its_group() -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    gate = Gate(disk, cell)
    cell.start()
    gate.shut()
    first = cell.submit(number_run(0))
    await until(gate.waiting.is_set)
    replies = [
        cell.submit(number_run(number, kind=BROKEN) if number == 5 else number_run(number)) for number in range(1, 12)
    ]
    gate.release()
    results = await asyncio.gather(first, *replies, return_exceptions=True)
    assert isinstance(results[5], MalformedBatch)
    assert [int(r["session"][0]) for r in results if isinstance(r, OutcomeRun)] == [0, 1, 2, 3, 4, *range(6, 12)]
    for run in (b"", bytes(24), number_run(1) + bytes(8), number_run(1)[:-1]):
        with pytest.raises(ValueError, match="one run"):
            cell.submit(run)
    await asyncio.to_thread(cell.close)
    assert numbers_of(recover(disk, tiny_kind(), repair=False).machine) == [0, 1, 2, 3, 4, *range(6, 12)]


@in_event_loop
async def test_the_queue_is_bounded_in_calls_and_in_bytes() -> None:
    disk = FaultyDisk()
    cell = opened(disk, CellSettings(queue_calls_max=3, queue_bytes_max=5000))
    gate = Gate(disk, cell)
    cell.start()
    gate.shut()
    waiting = [cell.submit(number_run(0))]
    await until(gate.waiting.is_set)
    waiting += [cell.submit(number_run(number)) for number in (1, 2, 3)]
    with pytest.raises(CellOverloaded):
        cell.submit(number_run(4))
    with pytest.raises(CellOverloaded):
        cell.read(lambda machine: machine.sequence)
    gate.open_once()
    await waiting[0]
    await until(gate.waiting.is_set)
    waiting.append(cell.submit(number_run(5, 4000)))
    with pytest.raises(CellOverloaded):
        cell.submit(number_run(6, 1008))
    gate.release()
    await asyncio.gather(*waiting)
    await asyncio.to_thread(cell.close)
    assert numbers_of(recover(disk, tiny_kind(), repair=False).machine) == [0, 1, 2, 3, 5]


@in_event_loop
async def test_a_group_is_never_larger_than_a_segment() -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    gate = Gate(disk, cell)
    cell.start()
    gate.shut()
    replies = [cell.submit(number_run(0))]
    await until(gate.waiting.is_set)
    replies += [cell.submit(number_run(number, 400_000)) for number in range(1, 8)]
    gate.release()
    await asyncio.gather(*replies)
    with pytest.raises(RecordTooLarge):
        cell.submit(number_run(9, 1024 * 1024))
    await asyncio.to_thread(cell.close)
    assert numbers_of(recover(disk, tiny_kind(), repair=False).machine) == list(range(8))


@in_event_loop
async def test_an_expired_or_cancelled_call_is_dropped_before_it_is_applied() -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    gate = Gate(disk, cell)
    cell.start()
    gate.shut()
    first = cell.submit(number_run(0))
    await until(gate.waiting.is_set)
    # Their deadline has passed by the time that it is their turn.
    expired = cell.submit(number_run(1), deadline=time.monotonic())
    expired_read = cell.read(lambda machine: machine.sequence, deadline=time.monotonic())
    cancelled = cell.submit(number_run(2))
    cancelled.cancel()
    in_time = cell.submit(number_run(3), deadline=math.inf)
    gate.release()
    await first
    await in_time
    for future in (expired, expired_read):
        with pytest.raises(CellExpired):
            await future
    assert await cell.read(numbers_of) == [0, 3]
    await asyncio.to_thread(cell.close)


@in_event_loop
async def test_a_read_that_raises_raises_for_its_caller_only() -> None:
    cell = opened(FaultyDisk())
    cell.start()

    def fails(machine: Machine) -> int:
        raise KeyError(machine.sequence)

    with pytest.raises(KeyError):
        await cell.read(fails)
    assert int((await cell.submit(number_run(1)))["session"][0]) == 1
    await asyncio.to_thread(cell.close)


@in_event_loop
async def test_ticks_come_when_they_are_due_and_an_idle_cell_journals_nothing() -> None:
    disk = FaultyDisk()
    cell = opened(disk, clock=WallClock())
    cell.start()
    await cell.submit(number_run(1))
    await asyncio.sleep(0.1)
    assert cell.durable_sequence == 1

    def due_soon(machine: Machine) -> None:
        assert isinstance(machine, TinyMachine)
        machine.next_due_ms = machine.now_ms + 400

    due_ms = tiny(cell).now_ms + 400
    await cell.read(due_soon)
    # A read does not change when the machine is due, so the cell looks again after the next group.
    await cell.submit(number_run(2))
    await until(lambda: cell.durable_sequence == 3)
    assert due_ms <= tiny(cell).now_ms < due_ms + 5000
    assert tiny(cell).kinds[-1] == TICK
    await asyncio.to_thread(cell.close)


@in_event_loop
async def test_a_full_disk_refuses_and_reads_go_on() -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    cell.start()
    await cell.submit(number_run(1))
    disk.free = -1
    with pytest.raises(JournalFull):
        await cell.submit(number_run(2))
    assert await cell.read(numbers_of) == [1]
    disk.free = 1 << 40
    await cell.submit(number_run(3))
    assert await cell.read(numbers_of) == [1, 3]
    await asyncio.to_thread(cell.close)


@in_event_loop
async def test_time_in_which_the_disk_was_full_takes_no_lease_and_settles_no_death() -> None:
    """Nobody could renew, and who was declared dead could give no sign of life."""
    disk, clock = FaultyDisk(), VirtualClock(1_700_000_000_000)
    journal = JournalSettings(segment_bytes=1024 * 1024, free_mark_bytes=0)
    cell = Cell.open("in memory", disk=disk, capacity=Capacity(100, 100, 100), journal=journal, clock=clock)
    fill(cell.step, 80)
    second = commands.definition(ACCESS_SERVER, "as-02", {})
    cell.step(commands.run(DEFINE, definition=second))
    serving_leases(cell)
    cell.step(commands.run(DECLARE_DEAD, 1, access_server=SERVER_NUMBER + 1, undo=0))
    leases = len(cell.machine.terminals_columns()["key"])
    told: list[OutcomeRun] = []
    cell.on_orders = told.append
    cell.start()
    disk.free = -1
    with pytest.raises(JournalFull):
        await cell.submit(allocate(100))
    clock.advance(86_400_000)
    cell._able_s -= 86_400
    assert await cell.read(lambda machine: machine.now_ms) < clock.now_ms()
    disk.free = 1 << 40
    await cell.submit(allocate(100))
    dead_ms = await cell.read(lambda machine: machine.server(SERVER_NUMBER + 1)["dead_ms"])
    assert dead_ms > clock.now_ms()
    assert not await cell.read(lambda machine: machine.header()["frozen"])
    assert len(await cell.read(lambda machine: machine.terminals_columns()["key"])) == leases + 1
    assert not told, "a lease was taken away"
    await asyncio.to_thread(cell.close)


@in_event_loop
async def test_time_in_which_a_commit_hung_is_made_up_for_before_anything_else_and_once() -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    gate = Gate(disk, cell)
    cell.start()
    gate.shut()
    held_up = cell.submit(number_run(1))
    await until(gate.waiting.is_set)
    cell._able_s -= STALL_S
    gate.release()
    await held_up
    await cell.submit(number_run(2))
    await cell.submit(number_run(3))
    number = tiny(cell).kinds[-1]
    assert tiny(cell).kinds[-5:] == [number, FREEZE, THAW, number, number]
    assert not cell.clock_frozen
    await asyncio.to_thread(cell.close)


@in_event_loop
async def test_a_failing_fsync_stops_the_process_and_acknowledges_nothing() -> None:
    disk = FaultyDisk()

    def fail_commit(event: str) -> None:
        if event == "fdatasync" and threading.current_thread().name.startswith("simswitch-cell"):
            raise disk.failure

    stopped: list[str] = []
    cell = opened(disk, stopped=stopped.append)
    cell.start()
    await cell.submit(number_run(1))
    disk.before = fail_commit
    with pytest.raises(CellFailed):
        await cell.submit(number_run(2))
    disk.before = None
    assert len(stopped) == 1
    assert "the disk failed" in stopped[0]
    with pytest.raises((CellFailed, CellClosed)):
        await cell.submit(number_run(3))
    await asyncio.to_thread(cell.close)
    assert snapshot_sequences(disk) == [], "no snapshot of a state that nobody vouches for"


@in_event_loop
async def test_a_machine_that_fails_in_the_middle_stops_the_process() -> None:
    stopped: list[str] = []
    cell = opened(FaultyDisk(), stopped=stopped.append)
    cell.start()
    tiny(cell).explode = MemoryError("no memory")
    with pytest.raises(CellFailed):
        await cell.submit(number_run(1))
    assert "MemoryError" in stopped[0]
    await asyncio.to_thread(cell.close)


@in_event_loop
async def test_close_drains_what_is_queued_and_refuses_what_comes_after() -> None:
    disk = FaultyDisk()
    cell = opened(disk)
    cell.start()
    replies = [cell.submit(number_run(number)) for number in range(500)]
    await asyncio.to_thread(cell.close)
    outcomes = await asyncio.gather(*replies)
    assert [int(outcome["session"][0]) for outcome in outcomes] == list(range(500))
    with pytest.raises(CellClosed):
        cell.submit(number_run(1))
    recovery = recover(disk, tiny_kind(), repair=False)
    assert recovery.replayed_count == 0, "a clean end leaves a snapshot"
    assert numbers_of(recovery.machine) == list(range(500))


def test_threads_call_without_an_event_loop() -> None:
    cell = opened(FaultyDisk())
    cell.start()
    results: list[int] = []

    def client(base: int) -> None:
        for number in range(base, base + 50):
            outcome = cell.call(number_run(number), timeout_s=20)
            results.append(int(outcome["session"][0]))

    threads = [threading.Thread(target=client, args=(base * 100,)) for base in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(cell.call_read(numbers_of))
    cell.close()


@in_event_loop
async def test_a_clock_that_jumps_freezes_until_it_is_confirmed() -> None:
    times = {"wall": 1_000_000, "monotonic": 0}
    clock = WallClock(lambda: times["wall"], lambda: times["monotonic"])
    disk = FaultyDisk()
    cell = opened(disk, clock=clock)
    cell.start()
    await cell.submit(number_run(1))
    times["wall"] += 61_000
    times["monotonic"] += 500
    await cell.submit(number_run(2))
    assert tiny(cell).kinds[-2:] == [FREEZE, tiny(cell).kinds[-1]]
    assert tiny(cell).now_ms == 1_000_500
    assert cell.clock_frozen
    await cell.submit(number_run(3))
    assert tiny(cell).kinds.count(FREEZE) == 1
    await cell.confirm_clock()
    assert THAW in tiny(cell).kinds
    await cell.submit(number_run(4))
    assert tiny(cell).now_ms == 1_061_000
    await asyncio.to_thread(cell.close)
    assert recover(disk, tiny_kind(), repair=False).machine.state_hash() == tiny(cell).state_hash()


@in_event_loop
async def test_one_start_with_a_clock_that_is_a_year_ahead_is_undone_by_setting_it_right() -> None:
    begin_ms, year_ms = 1_700_000_000_000, 365 * 86_400_000
    times = {"wall": begin_ms}
    disk = FaultyDisk()

    def started() -> Cell:
        return opened(disk, clock=WallClock(lambda: times["wall"], lambda: 0))

    cell = started()
    cell.step(number_run(1))
    cell.close()
    times["wall"] += year_ms
    cell = started()
    assert tiny(cell).kinds == [FREEZE, RESTART]
    assert (cell.clock_frozen, tiny(cell).now_ms) == (True, begin_ms)
    cell.close()
    times["wall"] = begin_ms + 60_000
    cell = started()
    assert cell.clock_frozen, "nobody has confirmed it"
    cell.start()
    await cell.confirm_clock()
    await cell.submit(number_run(2))
    assert tiny(cell).now_ms == begin_ms + 60_000
    await asyncio.to_thread(cell.close)


@in_event_loop
async def test_orders_of_a_tick_are_handed_out_too() -> None:
    cell = Cell.in_memory(capacity=Capacity(100, 100, 100))
    fill(cell.step, 80)
    serving_leases(cell)
    told: list[int] = []
    window_full = asyncio.Event()

    def on_orders(orders: OutcomeRun) -> None:
        told.extend(int(number) for number in orders["order"])
        if len(told) >= 20:
            window_full.set()

    cell.on_orders = on_orders
    cell.start()
    # An empty mask is every SIM. The window of 20 is sent at a pace, so most of it comes of ticks, not of this command.
    await cell.submit(commands.job_create("test", selecting=1))
    await asyncio.wait_for(window_full.wait(), 30)
    assert len(set(told)) == 20
    assert await cell.read(lambda machine: machine.server(0)["outstanding"]) == 20
    await asyncio.to_thread(cell.close)

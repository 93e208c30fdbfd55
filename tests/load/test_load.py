"""Loads on a real server: what they measure, what they say when it is too much, and that they give everything back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from simswitch.cli.exits import Exit
from simswitch.client import Client, OperatorClient, Result, ServiceError, SessionState, SessionThread
from simswitch.load.access_server import AccessServer
from simswitch.load.held import FIRST_KEY
from simswitch.load.plan import Plan
from simswitch.load.records import Recorder
from simswitch.load.run import Load, LoadFailed, LoadRefused
from simswitch.v1 import pool_pb2

from tests.load.conftest import SIMS, configure, occupied, sessions
from tests.service.serving import Serving

MakePlan = Callable[..., Plan]
WORDS = ["load", "--terminals", "200", "--dwell", "60", "--away", "10", "--renew", "10", "--usage", "10", "--json"]


def carried_out(document: dict[str, Any]) -> dict[str, int]:
    return {kind: figures["carried_out"] for kind, figures in document["operations"].items()}


def program(serving: Serving, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "simswitch", *WORDS, *words],
        env={**os.environ, "SIMSWITCH_ADDRESS": serving.address},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(condition: Callable[[], bool]) -> None:
    """Waits for what has to come; the test's own limit ends it otherwise."""
    while not condition():
        time.sleep(0.02)


def counted_bytes(serving: Serving) -> int:
    with OperatorClient(serving.address) as operator:
        return operator.pool.GetSummary(pool_pb2.GetSummaryRequest()).counted_bytes


@pytest.mark.parametrize("batch", [1, 20])
def test_a_load_is_carried_out_counted_and_given_back(serving: Serving, plan: MakePlan, batch: int) -> None:
    told = plan(batch=batch)
    document = Load(serving.address, told, processes=2).run()
    assert not document["interrupted"]
    assert document["failure"] is None
    done = carried_out(document)
    assert all(done.values()), done
    assert all(not figures["refused"] for figures in document["operations"].values()), document["operations"]
    planned = sum(figures["planned"] for figures in document["operations"].values())
    assert sum(done.values()) == planned == pytest.approx(told.rate * told.duration_s, rel=0.2)
    assert HdrHistogram.decode(document["histogram"]).get_total_count() == planned
    # What the service counted: each report adds as much, those of the warm-up included.
    assert counted_bytes(serving) >= done["usage"] * told.usage_bytes
    leases = document["leases"]
    assert leases["held_at_end"] == leases["given_back"] > 0
    assert leases["left"] == 0
    assert occupied(serving) == 0
    assert sessions(serving) == {"load-1": 0, "load-2": 0}
    again = Load(serving.address, told, processes=1).run()
    assert again["plan"]["hashes"] == document["plan"]["hashes"]
    assert occupied(serving) == 0


def test_a_stall_is_charged_to_every_operation_that_was_due_in_it(serving: Serving, plan: MakePlan) -> None:
    """The service stands still for half of the time measured. A closed loop would have seen that in a call or two."""
    stall_s = 1.0
    load = Load(serving.address, plan(duration_s=2 * stall_s, warm_up_s=0.0), processes=2)
    stalls: list[threading.Thread] = []

    def stall(phase: str, done: float, _total: float, _words: str) -> None:
        if phase == "load" and done > 0.1 and not stalls:
            stalls.append(threading.Thread(target=serving.in_loop, args=(lambda: time.sleep(stall_s),)))
            stalls[0].start()

    load.on_progress = stall
    document = load.run()
    stalls[0].join()
    latency = document["latency_ms"]
    assert latency["max"] >= 900 * stall_s
    # Half of the operations were due in the stall, spread over it: one in four waited for half of it at least, and one
    # in ten for eight tenths.
    assert latency["p90"] >= 600 * stall_s
    assert document["seconds"]["latency_max_ms"][0] >= 700 * stall_s
    assert document["client"]["late_ms"]["p50"] < 0.5 * latency["p90"]
    # On a busy machine the service sheds some of what comes all at once: that is told apart, and nothing is left out.
    for kind, found in document["operations"].items():
        assert found["carried_out"] > 0, kind
        assert found["carried_out"] + sum(found["refused"].values()) == found["planned"], (kind, found)
    assert occupied(serving) == 0


@pytest.mark.parametrize("batch", ["1", "7"])
def test_a_rate_out_of_reach_is_said_to_be_missed(serving: Serving, batch: str) -> None:
    words = ["--rate", "200000", "--duration", "0.5", "--warm-up", "0", "--dwell", "100000", "--batch", batch]
    process = program(serving, *words)
    out, error = process.communicate(timeout=60)
    assert process.returncode == Exit.MISSED, error
    document = json.loads(out)
    rate = document["rate"]
    assert not rate["held"]
    assert rate["cause"] in ("client", "service")
    assert rate["achieved"] < 0.9 * rate["planned"]
    assert "the rate was not held" in error
    assert rate["text"] in error
    # What was not sent is in the percentiles with the time that it waited.
    unsent = sum(figures["refused"]["NOT_SENT"] for figures in document["operations"].values() if figures["planned"])
    total = HdrHistogram.decode(document["histogram"]).get_total_count()
    assert unsent > 0
    assert total == unsent + sum(carried_out(document).values())
    assert document["leases"]["left"] == 0
    assert occupied(serving) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_load_reports_and_gives_back(serving: Serving, number: signal.Signals) -> None:
    process = program(serving, "--rate", "400", "--duration", "600", "--warm-up", "0")
    until(lambda: counted_bytes(serving) > 20_000)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED, error
    document = json.loads(out)
    assert document["interrupted"]
    assert document["rate"]["held"]
    assert 0 < document["measured_s"] < 600
    assert carried_out(document)["usage"] >= 15
    assert document["leases"]["given_back"] == document["leases"]["held_at_end"] > 0
    assert occupied(serving) == 0


def test_nothing_is_left_when_the_load_is_killed(serving: Serving) -> None:
    process = program(serving, "--rate", "400", "--duration", "600")
    until(lambda: counted_bytes(serving) > 5_000)
    process.kill()
    process.communicate()
    until(lambda: occupied(serving) == 0 and not any(sessions(serving).values()))


def test_who_has_said_all_may_end_before_the_others_and_nobody_else(plan: MakePlan) -> None:
    for said, failure in (("finished", None), ("done", "worker 0 has ended (exit code 0)")):
        load = Load("127.0.0.1:9", plan(), processes=2)
        load._workers = [None, None]  # type: ignore[list-item]
        for event in ((0, {"event": said}), (0, {"event": "ended", "code": 0}), (1, {"event": "finished"})):
            load._events.put(event)
        load._collect("finished", "giving the SIMs back", 60)
        assert load._failure is failure or (failure and load._failure and load._failure.startswith(failure))


def test_a_server_that_goes_and_comes_back_is_met_again(serving: Serving, plan: MakePlan) -> None:
    load = Load(serving.address, plan(duration_s=5.0, warm_up_s=0.0, away_s=60.0), processes=1)
    restarted: list[int] = []

    def restart(phase: str, done: float, _total: float, _words: str) -> None:
        if phase == "load" and done > 0.1 and not restarted:
            restarted.append(serving.running.port if serving.running else 0)
            serving.drain()
            serving.begin(restarted[0])

    load.on_progress = restart
    document = load.run()
    assert restarted
    assert document["failure"] is None
    seconds = document["seconds"]["carried_out"]
    assert seconds[0] > 0
    assert seconds[-1] > 0
    assert occupied(serving) == 0


def test_terminals_can_be_left_and_the_next_load_takes_them_away(serving: Serving, plan: MakePlan) -> None:
    left = Load(serving.address, plan(), processes=1, leave=True).run()["leases"]
    assert left["left"] == left["held_at_end"] == occupied(serving) > 0
    assert Load(serving.address, plan(), processes=1).run()["leases"]["left"] == 0
    assert occupied(serving) == 0


# ------------------------------------------------------------------------------------------------- refusals


def refusal(serving: Serving, plan: Plan, **options: Any) -> str:
    before = occupied(serving)
    with pytest.raises(LoadRefused) as caught:
        Load(serving.address, plan, **{"processes": 1, **options}).run()
    assert occupied(serving) == before
    return str(caught.value)


def test_an_unknown_market_is_named_beside_those_that_there_are(serving: Serving, plan: MakePlan) -> None:
    assert refusal(serving, plan(), market="mars") == "the service has no market 'mars'; it has jp"


def test_a_load_that_would_leave_others_without_is_not_begun(serving: Serving, plan: MakePlan) -> None:
    assert f"{SIMS} can be handed out" in refusal(serving, plan(terminals=SIMS + 100))
    with OperatorClient(serving.address) as operator:
        configure(operator, pool_pb2.SETTING_COOLING_MS, 3_600_000)
    assert "resting after a release" in refusal(serving, plan())


def test_without_a_healthy_sim_nothing_is_begun(serving: Serving, plan: MakePlan) -> None:
    with OperatorClient(serving.address) as operator:
        operator.pool.SetMask(pool_pb2.SetMaskRequest(lot="lot", masked=True))
    assert "the market 'jp' has no free healthy SIM" in refusal(serving, plan())


def test_when_no_terminal_gets_a_sim_the_load_ends_and_says_why(serving: Serving, plan: MakePlan) -> None:
    """The SIMs are free and healthy, and none has as much headroom as a lease is expected to use."""
    with OperatorClient(serving.address) as operator:
        configure(operator, pool_pb2.SETTING_EXPECTED_FLOOR_BYTES, 1 << 40)
    with pytest.raises(LoadFailed, match="no terminal got a SIM: NO_HEALTHY_SIM"):
        Load(serving.address, plan(), processes=2).run()
    assert not any(sessions(serving).values())


def test_terminals_that_would_lose_their_lease_are_not_begun_with(serving: Serving, plan: MakePlan) -> None:
    told = plan()
    rate = Plan.natural(told.terminals, told.dwell_s, told.away_s, told.renew_s, told.usage_s) / 100
    with OperatorClient(serving.address) as operator:
        configure(operator, pool_pb2.SETTING_LEASE_MS, 300_000)
    assert "is silent for 1,000 s, and a lease lasts 300 s" in refusal(serving, plan(rate=rate))


def test_a_name_that_has_a_session_is_not_taken_from_it(serving: Serving, plan: MakePlan) -> None:
    process = program(serving, "--rate", "400", "--duration", "600")
    until(lambda: counted_bytes(serving) > 0)
    before = sessions(serving)
    with pytest.raises(LoadRefused, match="load-1 has a session"):
        Load(serving.address, plan(), processes=1).run()
    assert sessions(serving) == before
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def test_a_load_whose_name_is_taken_ends_and_leaves_it_to_the_other(serving: Serving, plan: MakePlan) -> None:
    load = Load(serving.address, plan(duration_s=600.0, warm_up_s=0.0), processes=2)
    others: list[SessionThread] = []

    def take(phase: str, done: float, _total: float, _words: str) -> None:
        if phase == "load" and done > 0.1 and not others:
            others.append(SessionThread(serving.address, "load-1", lambda _order: Result.DONE))
            others[0].serving(10)

    load.on_progress = take
    with pytest.raises(LoadFailed) as caught:
        load.run()
    assert "load-1" in str(caught.value)
    with others[0] as other:
        assert other.session.state is SessionState.SERVING
        assert sessions(serving)["load-1"] == other.serving(10).session
        until(lambda: occupied(serving) == 0)
    document = caught.value.document
    assert document is not None
    assert 0 < document["measured_s"] < 600
    assert document["leases"]["left"] == 0


def test_nobody_answers(plan: MakePlan) -> None:
    with pytest.raises(ServiceError) as caught:
        Load("127.0.0.1:9", plan(), processes=1).run()
    assert caught.value.unreachable


def test_without_hdrhistogram_the_command_says_what_to_install() -> None:
    text = (
        "import sys; sys.argv = ['simswitch', 'load']; sys.modules['hdrh'] = None\n"
        "from simswitch.cli.main import main\nmain()"
    )
    found = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert found.returncode == Exit.REFUSED
    assert found.stderr == "simswitch: load needs hdrhistogram: install simswitch[load]\n"


def test_more_processes_than_access_servers_are_refused(plan: MakePlan) -> None:
    with pytest.raises(LoadRefused, match="each process speaks for one access server at least"):
        Load("127.0.0.1:9", plan(access_servers=2), processes=3)


# ------------------------------------------------------------------------------------------------- what is held


def test_orders_and_reconciliation_see_what_the_terminals_hold(serving: Serving, plan: MakePlan) -> None:
    server = AccessServer(serving.address, "as-01", 1, "jp", plan(), Recorder())
    held = server.held
    assert held.key.tolist()[:2] == [FIRST_KEY + 1, FIRST_KEY + 3]
    with Client(serving.address, access_server="as-01", holdings=held) as client:
        lease = client.allocate(FIRST_KEY + 3, "jp")
        assert list(held) == [held.get(FIRST_KEY + 3)]
        assert [found.iccid for found in held] == [lease.iccid]
        assert (len(held), FIRST_KEY + 3 in held, FIRST_KEY + 1 in held, FIRST_KEY + 2 in held) == (
            1,
            True,
            False,
            False,
        )
        assert not held.drop(FIRST_KEY + 3, "8900000000000000000")
        client.release([FIRST_KEY + 3], [lease.epoch])
    assert not np.any(held.epoch)

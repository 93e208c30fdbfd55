"""The sums that figures are made of, against the objects that they stand for."""

from __future__ import annotations

from collections import Counter

from simswitch.core import layout

from tests.model.walk import Walk


def test_totals_are_the_sums_of_what_there_is() -> None:
    walk = Walk(3, keeps_records=False)
    met: Counter[str] = Counter()
    while walk.commands_count < 1_500:
        for _ in range(10):
            walk.step()
        machine = walk.machine
        totals, header = machine.totals(), machine.header()
        servers = [machine.server(index) for index in range(header["servers_count"])]
        assert totals["gates"] == [sum(server["gate"] == gate for server in servers) for gate in range(8)]
        assert totals["sessions"] == sum(server["session"] != 0 for server in servers)
        for name, of in (
            ("paused", "paused"),
            ("window", "window"),
            ("outstanding", "outstanding"),
            ("queued", "queued_count"),
            ("announced", "announced_count"),
            ("confirmed", "confirmed_count"),
            ("waits", "waits_count"),
        ):
            assert totals[name] == sum(server[of] for server in servers), name
            met[name] += totals[name]
        jobs = Counter(machine.job(job)["state"] for job in machine.job_ids())
        assert totals["jobs"] == [jobs[state] for state in range(16)]
        breakers = Counter(breaker["state"] for breaker in machine.breakers())
        assert totals["breakers"][1:] == [breakers[state] for state in range(1, 4)]
        free = Counter[int]()
        for group in machine.groups():
            free[group["class"]] += 0 if group["masked"] else group["free_count"]
        markets = machine.entities(layout.MARKET)
        assert [(name, count) for name, count, _ in totals["markets"]] == [
            (market["name"], sum(free[each] for each in market["numbers"][layout.MARKET_FIRST_CLASS :] if each > 0))
            for market in markets
        ]
        met["jobs"] += machine.header()["jobs_count"]
    assert all(met[name] for name in ("window", "outstanding", "queued", "confirmed", "jobs")), met

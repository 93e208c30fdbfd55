"""What Prometheus is told, as its own parser reads it: values move as they should, name nobody, and cost nobody."""

from __future__ import annotations

import re
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from simswitch import metrics_listener
from simswitch.access.certificates import TlsFiles, ends_s
from simswitch.cli.exits import Exit
from simswitch.client import Client, OperatorClient, ServiceError
from simswitch.demo.processes import Server
from simswitch.metrics import MetricsRefused, MetricsSettings, counter, listening, parse_listen
from simswitch.metrics_listener import Listener
from simswitch.service.access import AccessSettings
from simswitch.v1 import pool_pb2

from tests.access.authority import Authority
from tests.cli.conftest import program
from tests.service.serving import SIMS, Serving, define

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(address: str, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
        return str(answer.read().decode())


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"simswitch_{name}", frozenset(labels.items())]


@pytest.fixture
def serving(tmp_path: Path, transport: str) -> Iterator[Serving]:
    serving = Serving(tmp_path / "data", transport, options={"metrics": ("127.0.0.1", 0)})
    try:
        yield serving
    finally:
        serving.end()


def scrape(serving: Serving) -> str:
    assert serving.running is not None
    assert serving.running.figures is not None
    return read(serving.running.figures.address)


def test_when_the_certificate_in_use_ends_is_told(tmp_path: Path) -> None:
    own = Authority(tmp_path / "own")
    files = TlsFiles(*own.sign("service", host=True), own.pem)
    options = {"metrics": ("127.0.0.1", 0), "access": AccessSettings(tls=files)}
    serving = Serving(tmp_path / "data", options=options)
    try:

        def told() -> float:
            return value(samples(scrape(serving)), "certificate_ends_timestamp_seconds")

        first = told()
        assert first == ends_s(files.certificate.read_bytes())
        pem, key = own.sign("service", host=True, file="next", ends_hours=48)
        # Until both are there the old ones stay in use, and an alert goes on.
        shutil.copy(pem, files.certificate)
        assert told() == first
        shutil.copy(key, files.key)
        assert told() == ends_s(pem.read_bytes()) > first
    finally:
        serving.end()


def test_figures_move_with_what_happens(serving: Serving, pool: OperatorClient) -> None:
    before = samples(scrape(serving))
    assert value(before, "market_selectable_sims", market="jp") == value(before, "sims", health="healthy") == SIMS
    assert ("simswitch_calls_total", frozenset({("call", "AllocationService/Allocate"), ("code", "OK")})) not in before
    with Client(serving.address, access_server="as-01") as client:
        epoch = client.allocate(1, "jp").epoch
        epochs = client.allocate_many([2, 3, 4], "jp").epoch
        client.report_usage([2, 3], epochs[:2], 10**6, 0)
        # Of a lease that never was.
        client.report_usage([9], [epoch + 99], 10**6, 0)
        client.release([1], [epoch])
    with Client(serving.address, access_server="as-99") as stranger, pytest.raises(ServiceError):
        stranger.allocate(1, "jp")
    with pytest.raises(grpc.RpcError):
        pool.pool.GetAccessServerStatus(pool_pb2.GetAccessServerStatusRequest(name="as-99"))
    # A call is counted when its answer has gone out.
    assert serving.running is not None
    assert serving.running.figures is not None
    address = serving.running.figures.address
    until(address, "calls_total", 1, call="AllocationService/Allocate", code="OK")
    until(address, "calls_total", 1, call="AllocationService/Allocate", code="NOT_FOUND")
    until(address, "calls_total", 1, call="PoolService/GetAccessServerStatus", code="NOT_FOUND")
    text = scrape(serving)
    after = samples(text)

    def moved(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert value(after, "calls_total", call="AllocationService/Allocate", code="OK") == 1
    assert value(after, "calls_total", call="AllocationService/Allocate", code="NOT_FOUND") == 1
    assert value(after, "calls_total", call="PoolService/GetAccessServerStatus", code="NOT_FOUND") == 1
    assert moved("call_duration_seconds_count", call="AllocationService/Allocate") == 1
    assert moved("call_duration_seconds_sum", call="AllocationService/Allocate") > 0
    assert moved("call_duration_seconds_bucket", call="AllocationService/Allocate", le="+Inf") == 1
    assert moved("leases") == moved("sims_occupancy", occupancy="assigned") == 3
    assert moved("sims_occupancy", occupancy="cooling") == 1
    assert moved("market_selectable_sims", market="jp") == -4
    assert moved("terminals") == 4
    assert moved("usage_bytes_total") == 2 * 10**6
    assert moved("usage_set_aside_reports_total") == 1
    assert moved("events_total", kind="set_aside") == 1
    records = moved("journal_records_total")
    assert records >= 5
    assert moved("commit_duration_seconds_count") == records
    assert moved("group_calls_count") >= records
    assert value(after, "engine_read") == 1
    assert value(after, "access_servers", gate="disconnected") == 2
    assert value(after, "sessions") == value(after, "alarm") == value(after, "disk_full") == 0
    assert value(after, "journal_size_bytes") >= value(after, "journal_segments") > 0
    assert value(after, "calls_shed_total", kind="read") == 0
    assert after["process_resident_memory_bytes", frozenset()] > 0
    assert after["process_open_fds", frozenset()] > 0
    # Nobody is named: no card, no terminal, no access server, no person.
    for name in ("as-01", "as-99", "operator:", "44010000", str(2 * 10**15)[:9]):
        assert not re.search(rf"(?<!\d){name}", text), "and not as the end of 0.8200000000000001"
    # Another pool has other values, and as many of them.
    with OperatorClient(serving.address) as operator:
        operator.pool.SetMask(pool_pb2.SetMaskRequest(lot="lot", masked=True))
    masked = samples(scrape(serving))
    assert value(masked, "market_selectable_sims", market="jp") == 0
    assert {name for name, _ in masked} == {name for name, _ in after}


def test_every_figure_has_its_words_and_a_unit_where_it_has_one(serving: Serving) -> None:
    families = list(text_string_to_metric_families(scrape(serving)))
    ours = [family for family in families if family.name.startswith("simswitch_")]
    assert len({family.name for family in ours}) == len(ours) > 40
    for family in ours:
        assert family.documentation.endswith((".", "…"))
        assert not family.name.endswith(("_ms", "_us", "_count", "_milliseconds"))


def test_without_the_engine_the_rest_is_told(serving: Serving, pool: OperatorClient) -> None:
    assert pool
    serving.cell.stop()
    found = samples(scrape(serving))
    assert value(found, "engine_read") == 0
    assert value(found, "queue_calls") == 0
    assert value(found, "commit_duration_seconds_count") > 0
    assert not any(name == "simswitch_sims" for name, _ in found)


def test_it_is_told_on_loopback_only_unless_said_in_so_many_words() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example"):
        with pytest.raises(MetricsRefused, match="beyond_loopback"):
            MetricsSettings(follower=(host, 0)).check()
        MetricsSettings(follower=(host, 0), beyond_loopback=True).check()
    MetricsSettings(("127.0.0.1", 0), ("::1", 0), ("localhost", 0)).check()
    for text in ("9467", ":9467", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:http"):
        with pytest.raises(MetricsRefused, match="is no address"):
            parse_listen(text)
    assert parse_listen("[::1]:9467") == ("::1", 9467)


def test_nobody_begins_where_it_would_be_told_to_others(tmp_path: Path) -> None:
    config = tmp_path / "simswitch.toml"
    config.write_text('[metrics]\nlearner_listen = "0.0.0.0:0"\n', encoding="utf-8")
    served = program("serve", "data", "--config", str(config), folder=tmp_path)
    assert (served.returncode, "beyond_loopback = true" in served.stderr) == (Exit.USAGE, True)
    assert not (tmp_path / "data").exists()
    followed = program("follow", ".", "--metrics", "0.0.0.0:0", folder=tmp_path)
    assert (followed.returncode, "beyond_loopback = true" in followed.stderr) == (Exit.USAGE, True)


def test_garbage_ends_nobody_and_no_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is sent to it; and it begins where no name server answers."""
    monkeypatch.setattr(socket, "getfqdn", lambda _: pytest.fail("a name was looked up"))
    listener = Listener("127.0.0.1", 0, list)
    host, _, port = listener.address.rpartition(":")
    words = [b"GET / HTTP/9.9", b"POST /metrics HTTP/1.1", b"GET /metrics HTTP/1.1\r\nAccept: " + b"x" * 70_000]
    words += [
        b"",
        b"\0" * 9,
        b"\xff\r\n" * 300,
        b"GET " + b"/" * 70_000,
        b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 200,
    ]
    for word in words:
        with socket.create_connection((host, int(port)), 20) as connection:
            connection.sendall(word + b"\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                assert b"200 OK" not in connection.recv(64)
    with urllib.request.urlopen(f"http://{listener.address}/metrics", timeout=20) as answer:
        assert answer.status == 200
    listener.close()


def test_a_port_that_is_taken_keeps_no_process_beside_the_service_from_its_work() -> None:
    said: list[str] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with listening(f"127.0.0.1:{taken.getsockname()[1]}", False, lambda: (), said.append):
            assert "no figures are told" in said[0]


def test_a_service_says_that_it_is_its_figures_whose_port_is_taken(tmp_path: Path) -> None:
    config = tmp_path / "simswitch.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        there = f"127.0.0.1:{taken.getsockname()[1]}"
        config.write_text(
            f'[capacity]\nsims = 1_000\nterminals = 1_000\norders = 1_000\n[metrics]\nlisten = "{there}"\n'
        )
        served = program("serve", "data", "--address", "127.0.0.1:0", "--config", str(config), folder=tmp_path)
    said = f"nobody can listen at {there} for its figures ([metrics] listen)"
    assert (served.returncode, said in served.stderr) == (Exit.REFUSED, True), served.stderr


def test_who_does_not_ask_on_is_cut_off_and_nobody_waits_for_him(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_listener, "REQUEST_S", 0.2)
    listener = Listener("127.0.0.1", 0, lambda: [counter("asked", "Asked.", 1)])
    try:
        host, _, port = listener.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as silent:
            silent.sendall(b"GET /metrics HT")
            assert "simswitch_asked_total 1.0" in read(listener.address)
            assert silent.recv(1_000) == b""
        with pytest.raises(urllib.error.HTTPError, match="404"):
            read(listener.address, "/")
    finally:
        listener.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_service_follower_and_learner_each_tell_of_themselves(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(2)]
    config = tmp_path / "simswitch.toml"
    config.write_text(
        "[journal]\nsegment_bytes = 1_048_576\nfree_mark_bytes = 0\n[learner]\nenabled = true\n[metrics]\n"
        f'listen = "127.0.0.1:0"\nfollower_listen = "127.0.0.1:{ports[0]}"\nlearner_listen = "127.0.0.1:{ports[1]}"\n',
        encoding="utf-8",
    )
    server = Server(tmp_path / "data", config, tmp_path / "server.log")
    server.start()
    try:
        with OperatorClient(server.address) as operator:
            define(operator)
        own = (tmp_path / "data" / "metrics-address").read_text().strip()
        sequence = value(samples(read(own)), "journal_records_total")
        followed = until(f"127.0.0.1:{ports[0]}", "follower_reader_sequence", sequence, reader="history")
        assert value(followed, "follower_records_total") >= sequence
        assert value(followed, "follower_rows_total", reader="history") > 0
        assert value(followed, "follower_alarm") == 0
        assert value(samples(read(own)), "history_lag_records", reader="history") >= 0
        until(f"127.0.0.1:{ports[1]}", "learner_last_look_timestamp_seconds", 1)
    finally:
        server.stop()
    assert not (tmp_path / "data" / "metrics-address").exists()


def until(address: str, name: str, least: float, **labels: str) -> Samples:
    """The figures, once the process is there and this one has come so far."""
    for _ in range(1_200):
        try:
            found = samples(read(address))
            if value(found, name, **labels) >= least:
                return found
        except (urllib.error.URLError, KeyError):
            pass
        threading.Event().wait(0.05)
    raise AssertionError(f"{name} does not come to {least}")

"""A whole run of the real program with TLS, certificates and tokens: what opens a door stands in nothing that it
writes, and what names a person or a SIM in none of its logs."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from simswitch.access.tokens import create_token, revoke_token
from simswitch.client import Client, OperatorClient, Result, ServiceError, SessionThread
from simswitch.client.credentials import Credentials
from simswitch.core.commands import decode_iccid
from simswitch.demo.processes import Server
from simswitch.v1 import inventory_pb2 as inv
from simswitch.v1 import pool_pb2, sim_pb2, swap_pb2

from tests.access.authority import Authority
from tests.service.serving import SIMS, define

ICCIDS = tuple(decode_iccid(2 * (10**15 + number)) for number in range(SIMS))
IMSIS = tuple(str(440_100_000_000_000 + number) for number in range(SIMS))
SUBSCRIBER = 81_901_234_567_890


def tried(call: Callable[[], Any]) -> None:
    with suppress(ServiceError, grpc.RpcError):
        call()


def test_no_secret_and_no_number_stands_in_what_a_run_leaves(tmp_path: Path) -> None:
    own, servers = Authority(tmp_path / "own"), Authority(tmp_path / "servers")
    certificate, key = own.sign("service", host=True)
    data, config, log = tmp_path / "data", tmp_path / "simswitch.toml", tmp_path / "server.log"
    data.mkdir()
    config.write_text(
        f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\nclient_ca = "{servers.pem}"\n'
        'people_address = "127.0.0.1:0"\n[metrics]\nlisten = "127.0.0.1:0"\n'
        "[capacity]\nsims = 1_000\nterminals = 1_000\norders = 1_000\n"
        "[journal]\nsegment_bytes = 1_048_576\nfree_mark_bytes = 0\n"
    )
    tokens = {
        actor: create_token(data, actor, 3_600_000) for actor in ("operator:alice", "auditor:ann", "operator:bob")
    }
    revoke_token(data, tokens["operator:bob"][0].id)
    server = Server(data, config, log)
    server.start()
    people = (data / "people-address").read_text().strip()

    def operator(text: str, actor: str | None = None) -> OperatorClient:
        path = tmp_path / "token"
        path.write_text(text)
        path.chmod(0o600)
        return OperatorClient(people, actor=actor, credentials=Credentials(own.pem, token_file=path))

    named, private = servers.sign("as-01")
    credentials = Credentials(own.pem, named, private)
    alice = tokens["operator:alice"][1]
    summary = pool_pb2.GetSummaryRequest()
    with operator(alice) as person, Client(server.address, access_server="as-01", credentials=credentials) as client:
        define(person)
        grants = client.allocate_many(range(1, 21), "jp", subscribers=[SUBSCRIBER] * 20)
        with SessionThread(server.address, "as-01", lambda _: Result.DONE, credentials=credentials) as session:
            session.serving(20)
            person.swaps.CreateJob(swap_pb2.CreateJobRequest(reason=f"bad: {ICCIDS[0]}", terminal=[1, 2]))
            session.report_usage([1, 2], grants.epoch[:2], [10**6] * 2, [10**6] * 2)
        tried(lambda: client.release([5], [99]))
        person.inventory.SetSimHealth(inv.SetSimHealthRequest(iccid=[2 * 10**15], health=sim_pb2.HEALTH_QUARANTINED))
        # What is wrong with a call goes back to whoever made it, and with what he had to log and audit.
        for wrong in (ICCIDS[3], IMSIS[3], f"{SUBSCRIBER}", alice):
            tried(lambda wrong=wrong: person.inventory.GetLot(inv.GetLotRequest(name=wrong)))  # type: ignore[misc]
            tried(lambda wrong=wrong: client.allocate(1, wrong))  # type: ignore[misc]
            for text in (wrong, alice[:-4] + "0000", tokens["operator:bob"][1], tokens["auditor:ann"][1]):
                with operator(text, f"operator:{wrong}"[:64]) as other:
                    tried(lambda other=other: other.pool.GetSummary(summary))  # type: ignore[misc]
        with operator(tokens["auditor:ann"][1]) as other:
            tried(lambda: other.inventory.DefineBank(inv.DefineBankRequest(bank=inv.Bank(name="x"))))
        foreign = Credentials(own.pem, *Authority(tmp_path / "foreign").sign(ICCIDS[4]))
        with Client(server.address, access_server="as-01", credentials=foreign) as stranger:
            tried(lambda: stranger.allocate(1, "jp"))
        figures = urllib.request.urlopen(f"http://{(data / 'metrics-address').read_text().strip()}/metrics").read()
    server.stop()
    # Who has no certificate of ours writes no line in the log by knocking.
    assert len(log.read_text().splitlines()) == 1
    secrets = [text.rpartition("_")[2].encode() for _, text in tokens.values()]
    secrets += [line for path in (key, private) for line in path.read_bytes().splitlines() if b"-----" not in line]
    assert all(len(secret) > 20 for secret in secrets)
    files = {path: path.read_bytes() for path in (*data.rglob("*"), log) if path.is_file()}
    assert {"attempts.log", "tokens.log", "server.log"} <= {path.name for path in files}
    for path, content in files.items():
        assert not [secret for secret in secrets if secret in content], path
    # Journal and history have the numbers, whole: it is what they are for.
    told = {path: content for path, content in files.items() if path.suffix == ".log"} | {Path("figures"): figures}
    (attempts,) = (content for path, content in files.items() if path.name == "attempts.log")
    assert b"****" in attempts, attempts
    for path, content in told.items():
        numbers = {found.decode() for found in re.findall(rb"\d{14,}", content)}
        assert not numbers & {*ICCIDS, *IMSIS, f"{SUBSCRIBER}"}, path

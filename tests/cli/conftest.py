"""A real server for the commands, and the program as a person calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simswitch.demo.processes import Server

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def program(*words: str, address: str | None = None, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SIMSWITCH_")}
    if address:
        environment["SIMSWITCH_ADDRESS"] = address
    return subprocess.run(
        [sys.executable, "-m", "simswitch", *words],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    config = folder / "simswitch.toml"
    config.write_text(
        "[capacity]\nsims = 1_000\nterminals = 1_000\norders = 1_000\n"
        "[journal]\nsegment_bytes = 1_048_576\nfree_mark_bytes = 0\n[engine]\ncooling_ms = 1_234\n",
        encoding="utf-8",
    )
    running = Server(folder / "data", config, folder / "server.log")
    running.start()
    yield running
    running.stop()


@pytest.fixture
def run(server: Server, tmp_path: Path) -> Run:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return program(*words, address=server.address, folder=tmp_path)

    return call

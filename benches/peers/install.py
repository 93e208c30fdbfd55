"""The Debian packages of the peers and of our compiled client: which are missing, and installing them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLIENT = "a compiler with gRPC for C++"
PACKAGES = {"redis": ["redis-server"], "postgresql": ["postgresql"], CLIENT: ["g++", "pkg-config", "libgrpc++-dev"]}
POLICY = Path("/usr/sbin/policy-rc.d")


class NotInstalled(RuntimeError):
    """What is needed is not there, and can't be installed."""


def redis_server() -> str | None:
    """The program, or None."""
    return shutil.which("redis-server")


def postgresql_programs() -> Path | None:
    """The folder with the newest initdb, postgres and pgbench, or None. Debian keeps them out of the path."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True
    )
    if (found := shutil.which("initdb")) is not None:
        folders.append(Path(found).parent)
    for folder in folders:
        if all((folder / program).exists() for program in ("initdb", "postgres", "pgbench")):
            return folder
    return None


def compiler() -> str | None:
    """The C++ compiler, where pkg-config finds gRPC for it, or None."""
    programs = [shutil.which(program) for program in ("g++", "pkg-config")]
    if None in programs or subprocess.run(["pkg-config", "--exists", "grpc++"], check=False).returncode:
        return None
    return programs[0]


FIND = {"redis": redis_server, "postgresql": postgresql_programs, CLIENT: compiler}


def ensure(peer: str) -> None:
    """Installs what ``peer`` needs unless it is there. Raises ``NotInstalled`` with what would be needed."""
    if peer not in FIND or FIND[peer]() is not None:
        return
    packages = PACKAGES[peer]
    named = " ".join(packages)
    apt = shutil.which("apt-get")
    if apt is None:
        raise NotInstalled(f"{peer} is not installed and there is no apt-get: install what Debian calls {named}")
    if os.geteuid() != 0:
        raise NotInstalled(f"{peer} is not installed and only root may do it: apt-get install {named}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with no_services():
        for words in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            done = subprocess.run(
                [apt, "--quiet", *words], env=quiet, capture_output=True, text=True, errors="replace", check=False
            )
            if done.returncode != 0:
                raise NotInstalled(f"apt-get {' '.join(words)} failed: {done.stderr.strip() or done.stdout.strip()}")
    if FIND[peer]() is None:
        raise NotInstalled(f"installed is {named}, but {peer} is not where it should be")


@contextmanager
def no_services() -> Iterator[None]:
    """Keeps Debian from starting what it installs: the bench starts its own."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()

"""The command line's connection to a running service, and what a failed call means for the person at the terminal.

Imported only by commands that talk to a service: it brings gRPC with it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from simswitch.cli.exits import CommandFailed, Exit
from simswitch.client import OperatorClient, ServiceError
from simswitch.client.credentials import PLAIN, Credentials, CredentialsRefused
from simswitch.client.operator import service_errors

PATIENCE_S = 60.0
"""How long a command waits for the turn of one call, where its identity calls too often."""


@contextmanager
def connected(address: str, actor: str | None, credentials: Credentials = PLAIN) -> Iterator[OperatorClient]:
    """A connection for the time of a command; a call that fails inside becomes ``CommandFailed``."""
    # gRPC would otherwise write lines of its own beside ours when nobody answers.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        client = OperatorClient(address, actor=actor, credentials=credentials, patience_s=PATIENCE_S)
    except CredentialsRefused as error:
        raise CommandFailed(Exit.USAGE, str(error)) from error
    with client:
        try:
            with service_errors():
                yield client
        except ServiceError as error:
            raise failure(error, address) from error


def failure(error: ServiceError, address: str) -> CommandFailed:
    """The exit code and the line for a failed call."""
    failed = _failure(error, address)
    return CommandFailed(failed.code, "; ".join((str(failed), *error.how_far)), later=failed.later)


def _failure(error: ServiceError, address: str) -> CommandFailed:
    if error.code is grpc.StatusCode.UNAVAILABLE and not error.reason:
        if "handshake" in error.text.lower():
            return CommandFailed(
                Exit.UNREACHABLE, f"{address} was reached, but the two sides do not trust each other: {error.text}"
            )
        return CommandFailed(
            Exit.UNREACHABLE,
            f"no service answers at {address}. Start one with `simswitch serve DIR`, or name another with --address",
            later=True,
        )
    if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CommandFailed(Exit.UNREACHABLE, f"the service at {address} did not answer in time", later=True)
    if error.code is grpc.StatusCode.UNIMPLEMENTED:
        return CommandFailed(Exit.UNREACHABLE, f"what answers at {address} is no simswitch service of this version")
    advice = f"; try again in {_wait_text(error.retry_after_ms)}" if error.retry_after_ms else ""
    return CommandFailed(Exit.REFUSED, f"{error}{advice}", later=bool(error.retry_after_ms))


def _wait_text(wait_ms: int) -> str:
    """No less than it is: who comes too early is refused again."""
    return f"{wait_ms} ms" if wait_ms < 1_000 else f"{math.ceil(wait_ms / 100) / 10:,.1f} s"

"""Work that replays a journal, in a process of its own: an invariant that a record breaks ends that one only, and the
record can be named.

The process is begun anew and is no copy of this one: in a copy only the thread that calls goes on, and a lock that
another one has just then, SQLite's perhaps, is never given back. So work and what it is given can be pickled.

It ends with this one, however that ends: nobody waits for its answer any more, and it may have a machine's memory.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Concatenate, ParamSpec, TypeVar

from simswitch.journal.errors import JournalError

_PR_SET_PDEATHSIG = 1

Note = Callable[[int], object]
"""Told the sequence that is applied next; 0: none is any more."""

P = ParamSpec("P")
T = TypeVar("T")


class Refused(Exception):
    """The folder can't be used as it is; the text says why, where, and what to do."""


def apart(work: Callable[Concatenate[Note, P], T], *arguments: P.args, **named: P.kwargs) -> T:
    """What ``work`` gives, from a process of its own. Raises ``Refused`` for what refuses or ends that."""
    context = multiprocessing.get_context("spawn")
    place = context.RawValue(ctypes.c_uint64, 0)
    reading, writing = context.Pipe(duplex=False)
    child = context.Process(target=_begun, args=(os.getpid(), place, writing, work, arguments, named))
    answer: tuple[bool, Any] | None = None
    try:
        child.start()
        writing.close()
        with suppress(EOFError, OSError):
            answer = reading.recv()
    except BaseException:
        # Who is interrupted leaves nobody behind, with whatever locks he had.
        if child.pid is not None:
            child.kill()
        raise
    finally:
        if child.pid is not None:
            child.join()
        reading.close()
    if answer is None:
        raise Refused(_why_ended(int(place.value), child.exitcode))
    done, found = answer
    if not done:
        raise Refused(found)
    return found  # type: ignore[no-any-return]


def _begun(parent: int, *words: Any) -> None:
    # Linux: it is told to the kernel, and what has happened before is seen by the number.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == parent:
        _answer(*words)


def _answer(
    place: ctypes.c_uint64, writing: Connection, work: Callable[..., Any], arguments: Any, named: dict[str, Any]
) -> None:
    def note(sequence: int) -> None:
        place.value = sequence

    try:
        answer: tuple[bool, Any] = (True, work(note, *arguments, **named))
        note(0)
    except (JournalError, Refused, OSError) as error:
        answer = (False, str(error))
    except BaseException as error:
        answer = (False, f"{type(error).__name__}: {error}")
    # Whoever asked may be gone.
    with suppress(BrokenPipeError):
        writing.send(answer)


def _why_ended(sequence: int, exit_code: int | None) -> str:
    """A record is to blame only where the process ended itself while it was applied."""
    if exit_code == -signal.SIGKILL:
        at = f" at record {sequence}" if sequence else ""
        return (
            f"the process that replays the journal was killed{at} ({_ended(exit_code)}). Is there memory enough? The "
            "kernel's log says whom it has killed. The folder is as it was: make room, and try again"
        )
    if not sequence:
        return (
            f"the process that replays the journal ended, and not while it applied a record ({_ended(exit_code)}); "
            "what it said stands above. The folder is as it was"
        )
    return (
        f"replaying record {sequence} ended the process ({_ended(exit_code)}); what it said stands above. Keep the "
        "folder as it is. If the record is what is wrong, `simswitch restore` makes a folder without it: "
        f"--skip {sequence}"
    )


def _ended(exit_code: int | None) -> str:
    return f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"status {exit_code}"

"""Work that replays a journal, in a process of its own: an invariant that a record breaks ends that one only, and the
record can be named.

The child is a copy of a process whose other threads, if it has any, do nothing, as those of a command of the program.
Only the thread that calls goes on in a copy, and a lock that another one has just then, SQLite's perhaps, is never
given back there. Beside a server of its own a process runs the command instead.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import struct
from collections.abc import Callable
from typing import Any

from simswitch.journal.errors import JournalError

Note = Callable[[int], object]
"""Told the sequence that is applied next."""


class Refused(Exception):
    """The folder can't be used as it is; the text says why, where, and what to do."""


def apart(work: Callable[[Note], Any]) -> Any:
    """What ``work`` gives, from a child process. Raises ``Refused`` for what refuses or ends the child."""
    place = mmap.mmap(-1, 8)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            answer: tuple[bool, Any] = (True, work(lambda sequence: struct.pack_into("<Q", place, 0, sequence)))
        except (JournalError, Refused, OSError) as error:
            answer = (False, str(error))
        except BaseException as error:
            answer = (False, f"{type(error).__name__}: {error}")
        with os.fdopen(writing, "wb") as file:
            file.write(pickle.dumps(answer))
        os._exit(0)
    try:
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            told = file.read()
    except BaseException:
        # Who is interrupted leaves nobody behind, with whatever locks he had.
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    sequence = struct.unpack_from("<Q", place)[0]
    place.close()
    if not told:
        raise Refused(
            f"replaying record {sequence} ended the process ({_ended(status)}); what it said stands above. Keep the "
            f"folder as it is. If the record is what is wrong, `simswitch restore` makes a folder without it: --skip "
            f"{sequence}"
        )
    done, found = pickle.loads(told)
    if not done:
        raise Refused(found)
    return found


def _ended(status: int) -> str:
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.waitstatus_to_exitcode(status)}"

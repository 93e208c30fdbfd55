"""What the exit codes of every command mean. This is the one place that says so; ``simswitch --help`` quotes it."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    DAMAGED = 4
    MISSED = 5
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "done",
    Exit.REFUSED: "refused or failed: the message says why, and what was done before, if anything was",
    Exit.USAGE: "the command line or the settings file is wrong",
    Exit.UNREACHABLE: "the service can't be reached",
    Exit.DAMAGED: "a data folder is damaged; nothing was changed",
    Exit.MISSED: "a load did not hold its rate",
    Exit.INTERRUPTED: "a load was interrupted",
}


class CommandFailed(Exception):
    """Ends a command with an exit code and one clear line."""

    def __init__(self, code: Exit, text: str, *, later: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.later = later
        """Trying again later helps."""

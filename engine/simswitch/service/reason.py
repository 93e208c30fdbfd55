"""Why somebody decided something: kept with it, in the words that he gave."""

from __future__ import annotations

from simswitch.plain_text import shows_nothing
from simswitch.service.errors import INVALID_ARGUMENT, Refused
from simswitch.service.texts import check_plain

REASON_BYTES = 64


def reason_bytes(text: str) -> bytes:
    """As a command takes it. Raises ``Refused`` when there is none, or too much of it."""
    reason = text.encode()
    if not 1 <= len(reason) <= REASON_BYTES or shows_nothing(text):
        raise Refused(INVALID_ARGUMENT, f"a reason has 1 to {REASON_BYTES} bytes and is not blank, not {text!r}")
    check_plain("a reason", text)
    return reason

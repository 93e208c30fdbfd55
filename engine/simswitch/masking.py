"""Numbers of SIMs, subscribers and devices have no business in logs: what is logged is masked here, tracebacks
included, and plain text: what strangers send moves no cursor of whoever reads it, and makes no line of its own.

Any run of 14 digits or more (ICCID, IMSI, IMEI, or several without a space) keeps its first four and last two; a token
keeps its id. The name of a snapshot's file stays: its record's number of 20 digits begins with so many zeros that the
rest is too short for a number of ours.
"""

from __future__ import annotations

import logging
import re

from simswitch.plain_text import escaped

_DIGITS = re.compile(r"(?<=snapshot-)0{7}\d{13}(?=\.state)|(\d{14,})")
_TOKEN = re.compile(r"(ss_[0-9a-f]{16})_[0-9a-f]+")


def masked(text: str) -> str:
    """The text without what would name a person or open a door."""
    text = _TOKEN.sub(r"\1_…", text)
    return _DIGITS.sub(_masked_digits, text)


def _masked_digits(found: re.Match[str]) -> str:
    digits = found[0]
    return f"{digits[:4]}{'*' * (len(digits) - 6)}{digits[-2:]}" if found[1] else digits


def hidden(number: int) -> str:
    """The number of a person or device as it may be shown: masked as above, a shorter one up to its last two digits."""
    text = str(number)
    return masked(text) if len(text) >= 14 else "*" * max(len(text) - 2, 4) + text[-2:]


class MaskingFormatter(logging.Formatter):
    """Masks the whole line, after everything has come together in it. Only a traceback has more lines."""

    def format(self, record: logging.LogRecord) -> str:
        return escaped(masked(super().format(record)), "\n\t")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return escaped(super().formatMessage(record), "\t")


def log_masked() -> None:
    """Makes the process's log: warnings and worse on standard error, masked."""
    handler = logging.StreamHandler()
    handler.setFormatter(MaskingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])

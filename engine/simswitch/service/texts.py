"""Texts as the service takes them: names, reasons, and the words of definitions go to the screens of others."""

from __future__ import annotations

from google.protobuf.message import Message

from simswitch.plain_text import is_plain
from simswitch.service.errors import INVALID_ARGUMENT, Refused

_LINES = "\n\t"
_OF_LINES = ("terms", "text")
"""Fields of definitions that may have several lines."""


def check_plain(what: str, text: str, kept: str = "") -> None:
    """Raises ``Refused`` when a text has what a screen would obey, besides what is ``kept``."""
    if not is_plain(text, kept):
        place, letter = next(each for each in enumerate(text, 1) if not is_plain(each[1], kept))
        said = f"{what} is text that a screen shows, and its character {place} is {letter!a}: leave it out"
        raise Refused(INVALID_ARGUMENT, said)


def check_texts(message: Message) -> None:
    """``check_plain`` for all texts of a definition. Lines that end as on Windows then end as elsewhere."""
    for field, value in message.ListFields():
        if field.name in _OF_LINES:
            value = value.replace("\r\n", "\n")
            setattr(message, field.name, value)
        for each in value if field.is_repeated else (value,):
            if isinstance(each, str):
                check_plain(field.name, each, _LINES if field.name in _OF_LINES else "")
            elif isinstance(each, Message):
                check_texts(each)

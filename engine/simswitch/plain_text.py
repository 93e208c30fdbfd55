"""Plain text: what a screen shows, and nothing that it obeys.

Names, reasons and texts come from many and go to the screens of others: to whoever approves a job, the reason that its
creator gave. An escape sequence in it would draw there what its writer wants to be seen. The service takes no such
text, and what prints shows it in the spelling of JSON: older journals, and files, may have some.
"""

from __future__ import annotations

import json
import re
import unicodedata

_SHOWN = ("Zs", "Co", "Cn")
"""Besides what Python calls printable: blanks; letters of private use, as names have that no character set has; those
that are younger than the interpreter, whose age is to make no difference."""
_JOINERS = "\u200c\u200d"
_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"
"""Printable to Python, and no screen shows a thing: fillers of Hangul, and the sign of Braille without a dot."""
_BLANK = re.compile(f"[{_BLANKS}]")
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""What Unicode calls Default_Ignorable_Code_Point."""


def is_plain(text: str, kept: str = "") -> bool:
    """Neither control characters nor marks of direction, nor line breaks but those that are ``kept``, nor letters that
    nobody can see."""
    return _is_printable(text) or all(_is_shown(letter, kept) for letter in text)


def escaped(text: str, kept: str = "") -> str:
    r"""A text as a screen can show it: an escape becomes ``\u001b``. A JSON document still says the same."""
    if _is_printable(text):
        return text
    return "".join(letter if _is_shown(letter, kept) else json.dumps(letter)[1:-1] for letter in text)


def shows_nothing(text: str) -> bool:
    """Blanks, letters that nobody sees, and accents on no letter."""
    return all(letter.isspace() or unicodedata.category(letter) in ("Mn", "Me") for letter in INVISIBLE.sub("", text))


def _is_printable(text: str) -> bool:
    return text.isprintable() and not _BLANK.search(text)


def _is_shown(letter: str, kept: str) -> bool:
    return _is_printable(letter) or letter in kept or letter in _JOINERS or unicodedata.category(letter) in _SHOWN

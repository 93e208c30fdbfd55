"""Pages of lists: a token is the place where the next page begins, as text that means nothing to clients."""

from __future__ import annotations

import base64
import binascii
import struct

from simswitch.service.errors import INVALID_ARGUMENT, INVALID_PAGE_TOKEN, Refused

PAGE_DEFAULT = 100
PAGE_MAX = 1_000

_TOKEN = struct.Struct("<4sQ")


def page_size(wanted: int) -> int:
    if wanted > PAGE_MAX:
        raise Refused(INVALID_ARGUMENT, f"page_size is at most {PAGE_MAX:,}, not {wanted:,}")
    return wanted or PAGE_DEFAULT


def page_start(token: str, list_name: bytes) -> int:
    """Where the page of a token begins; refuses one of another list."""
    if not token:
        return 0
    try:
        name, start = _TOKEN.unpack(base64.urlsafe_b64decode(token.encode("ascii")))
    except (binascii.Error, struct.error, UnicodeEncodeError) as error:
        raise Refused(INVALID_PAGE_TOKEN, repr(token[:80])) from error
    if name != list_name:
        raise Refused(INVALID_PAGE_TOKEN, repr(token[:80]))
    return int(start)


def page_token(start: int, list_name: bytes) -> str:
    return base64.urlsafe_b64encode(_TOKEN.pack(list_name, start)).decode("ascii")

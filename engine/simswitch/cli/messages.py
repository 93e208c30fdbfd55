"""Messages of the service as plain values, and lists page by page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

PAGE_SIZE = 1_000
CALL_TIMEOUT_S = 30.0


def pages(call: Any, request: Any, entries: str) -> Iterator[Any]:
    """All entries of a list, over as many pages as it takes."""
    token = ""
    while True:
        page = call(request(page_size=PAGE_SIZE, page_token=token), timeout=CALL_TIMEOUT_S)
        yield from getattr(page, entries)
        token = page.next_page_token
        if not token:
            return


def plain(message: Message) -> dict[str, Any]:
    """A message as a dictionary: enum values in lower case without their prefix, None for what is absent."""
    return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        return [_single(field, entry) for entry in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _single(field, value)


def _single(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        return enum_word(field.enum_type, value)
    return value


def enum_word(enum: Any, number: int) -> str:
    """An enum value as a word: HEALTH_THROTTLED is throttled. A number that is not known stays a number."""
    found = enum.values_by_number.get(number)
    prefix = "".join(f"_{letter}" if letter.isupper() else letter for letter in enum.name).strip("_").upper() + "_"
    if found is None:
        return str(number)
    word = found.name.removeprefix(prefix).lower()
    return "" if word == "unspecified" else word

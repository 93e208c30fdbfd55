"""Messages that a peer might send, from sound to absurd, drawn from a ``random.Random``.

A sound message is put together from fields in any of the forms that protobuf allows; then fields that nobody knows or
that lie about themselves are mixed in; then bytes are changed. Hypothesis gives its own ``Random``, so that it can
shrink.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from google.protobuf.descriptor import FieldDescriptor
from simswitch.v1 import access_server_pb2

from tests.fuzz.agreement import Shape

_WIRES = {
    FieldDescriptor.TYPE_FIXED64: 1,
    FieldDescriptor.TYPE_FIXED32: 5,
    FieldDescriptor.TYPE_UINT32: 0,
    FieldDescriptor.TYPE_ENUM: 0,
    FieldDescriptor.TYPE_STRING: 2,
}
_NUMBERS = [0, 1, 2, 127, 128, 255, 256, 16_383, 16_384, 65_535, 65_536, 2**21, 2**28, 2**31 - 1, 2**31, 2**32 - 1]
_WIDE = [*_NUMBERS, 2**32, 2**35, 2**63 - 1, 2**63, 2**64 - 1]
_TEXTS = [
    b"",
    b"jp",
    b"as-01",
    b"a name of more than sixteen bytes",
    b"\0",
    "é".encode(),
    "世界".encode(),
    "\U0001f4f6".encode(),
    b"\xc3",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"sixteen bytes ..\xe4\xb8",
]
_SOUND_TEXTS = _TEXTS[:8]
_FIELD_NUMBERS = [0, 1, 13, 15, 16, 31, 32, 33, 255, 256, 2**28, 2**29 - 1]
_SIZES = [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**35, 2**63, 2**64 - 1]


def varint(value: int, longer: int = 0) -> bytes:
    """A number, in ``longer`` bytes more than it needs."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    if not longer:
        return bytes(encoded) + bytes([value])
    return bytes(encoded) + bytes([value | 0x80]) + b"\x80" * (longer - 1) + b"\0"


def tag(number: int, wire: int, longer: int = 0) -> bytes:
    return varint(number << 3 | wire, longer)


def _longer(random: Random) -> int:
    """Mostly a number is as short as can be."""
    return 0 if random.random() < 0.97 else random.randrange(1, 10)


def _number(random: Random) -> bytes:
    """A varint; seldom one that is longer than a number may be, or whose tenth byte has bits that count for nothing."""
    if random.random() < 0.02:
        return b"\xff" * random.randrange(8, 12) + bytes([random.choice([0, 1, 2, 0x7F])])
    return varint(random.choice(_WIDE), _longer(random))


def sized(random: Random, number: int, content: bytes) -> bytes:
    return tag(number, 2, _longer(random)) + varint(len(content), _longer(random)) + content


def _item(field: FieldDescriptor, value: int, random: Random) -> bytes:
    wire = _WIRES[field.type]
    if wire == 0:
        return varint(value, _longer(random))
    return (value & 2**64 - 1).to_bytes(8, "little") if wire == 1 else (value & 2**32 - 1).to_bytes(4, "little")


def _column(field: FieldDescriptor, values: list[int], random: Random) -> list[bytes]:
    """A column in any form: packed, packed in pieces, one by one, or all of that."""
    form = random.random()
    if form < 0.6:
        return [sized(random, field.number, b"".join([_item(field, value, random) for value in values]))]
    pieces = []
    start = 0
    while start < len(values):
        size = 1 if form > 0.8 else random.randrange(0, len(values) - start + 1)
        items = b"".join([_item(field, value, random) for value in values[start : start + size]])
        if size == 1 and random.random() < 0.7:
            pieces.append(tag(field.number, _WIRES[field.type], _longer(random)) + items)
        else:
            pieces.append(sized(random, field.number, items))
        start += size
    return pieces


def _count(random: Random) -> int:
    choice = random.random()
    return random.randrange(4) if choice < 0.6 else random.randrange(12, 40) if choice < 0.95 else random.randrange(300)


def _mixed(streams: list[list[bytes]], random: Random) -> list[bytes]:
    """One list in which the elements of each stream keep their order."""
    places = [index for index, stream in enumerate(streams) for _ in stream]
    if random.random() < 0.5:
        random.shuffle(places)
    rest = [iter(stream) for stream in streams]
    return [next(rest[index]) for index in places]


def sound(shape: Shape, random: Random) -> list[bytes]:
    """The fields of a message that is mostly accepted: columns of one length, texts."""
    count = _count(random)
    names: dict[str, int] = {}
    streams = []
    for field in shape.texts:
        repeats = random.choice([1, 1, 1, 2, 3, 0]) if random.random() < 0.98 else random.choice([130, 256, 257])
        names[field.name] = repeats
        streams.append([sized(random, field.number, random.choice(_SOUND_TEXTS)) for _ in range(repeats)])
    for name, code in shape.columns:
        column = shape.message.DESCRIPTOR.fields_by_name.get(name)
        if column is None or random.random() < 0.03:
            continue
        into = shape.names_of(name)
        if into is not None:
            known = names[into]
            values = [random.randrange(known) if known and random.random() < 0.99 else 3 for _ in range(count)]
        elif random.random() < 0.6:
            values = [random.randrange(4) for _ in range(count)]
        else:
            values = [
                random.choice(_WIDE if code == "<u8" or _WIRES[column.type] == 0 else _NUMBERS) for _ in range(count)
            ]
        streams.append(_column(column, values, random))
    return _mixed(streams, random)


def _group(random: Random, number: int, depth: int) -> bytes:
    """A group, nested as deep as parsers follow and deeper, or with fields in it; seldom with the wrong end."""
    end = number if random.random() < 0.95 else number + 1
    if depth == 0 and random.random() < 0.3:
        nested = random.choice([1, 2, 97, 98, 99, 100, 101])
        return tag(number, 3) + tag(3, 3) * (nested - 1) + tag(3, 4) * (nested - 1) + tag(end, 4)
    fields = [
        _unknown(random, random.choice(_FIELD_NUMBERS), depth + 1)
        for _ in range(random.randrange(4 if depth < 3 else 1))
    ]
    return tag(number, 3, _longer(random)) + b"".join(fields) + tag(end, 4, _longer(random))


def _unknown(random: Random, number: int, depth: int = 0) -> bytes:
    """A field of any number and any wire type, 6 and 7 among them, which do not exist."""
    wire = random.choice([0, 0, 1, 1, 2, 2, 2, 3, 3, 5, 5, 4, 6, 7] if random.random() < 0.2 else [0, 1, 2, 3, 5])
    if wire == 3:
        return _group(random, number, depth)
    start = tag(number, wire, _longer(random))
    if wire == 0:
        return start + _number(random)
    if wire == 2:
        content = random.choice(_TEXTS)
        size = random.choice(_SIZES) if random.random() < 0.05 else len(content)
        return start + varint(size, _longer(random)) + content
    return start + random.randbytes({1: 8, 5: 4}.get(wire, 0))


def _odd(shape: Shape, random: Random) -> bytes:
    """A field that has no place in a sound message."""
    choice = random.random()
    if choice < 0.4:
        return _unknown(random, random.choice(_FIELD_NUMBERS))
    field = random.choice(shape.fields())
    if choice < 0.7:
        return _unknown(random, field.number)
    if choice < 0.8:
        return sized(random, field.number, random.choice(_TEXTS))
    content = random.randbytes(random.randrange(20))
    return tag(field.number, 2) + varint(random.choice([len(content), len(content) + 1, *_SIZES])) + content


def changed(data: bytes, random: Random) -> bytes:
    """A few bytes set, flipped, cut out, doubled or cut off."""
    changes = random.randrange(1, 4)
    for _ in range(changes):
        if not data:
            return data
        place = random.randrange(len(data))
        end = min(len(data), place + random.randrange(1, 9))
        choice = random.randrange(6)
        if choice == 0:
            data = (
                data[:place] + bytes([random.choice([0, 1, 0x7F, 0x80, 0xFF, data[place] ^ 0x80])]) + data[place + 1 :]
            )
        elif choice == 1:
            data = data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]
        elif choice == 2:
            data = data[:place] + data[end:]
        elif choice == 3:
            data = data[:end] + data[place:end] + data[end:]
        elif choice == 4:
            data = data[:place] + random.randbytes(random.randrange(1, 4)) + data[place:]
        else:
            data = data[:place]
    return data


def message(shape: Shape, random: Random, known: list[bytes] | None = None) -> bytes:
    """One message. ``known``: inputs to start from now and then."""
    if known and random.random() < 0.1:
        data = random.choice(known)
    else:
        fields = sound(shape, random)
        while random.random() > 0.6:
            fields.insert(random.randrange(len(fields) + 1), _odd(shape, random))
        data = b"".join(fields)
    if random.random() < 0.1:
        # Two messages one after the other are one message.
        data += b"".join(sound(shape, random))
    return changed(data, random) if random.random() < 0.35 else data


def session(shapes: Mapping[str, Shape], random: Random) -> bytes:
    """A ``SessionRequest``: members of the oneof, fields that do not belong there, changed bytes."""
    parts: list[bytes] = []
    while not parts or random.random() > 0.8:
        member = random.choice(access_server_pb2.SessionRequest.DESCRIPTOR.fields)
        shape = None if member.message_type is None else shapes.get(member.message_type.name)
        if shape is not None:
            content = b"".join(sound(shape, random)) if random.random() < 0.8 else message(shape, random)
        else:
            content = tag(1, 0) + _number(random) if random.random() < 0.5 else sized(random, 1, random.choice(_TEXTS))
        if random.random() < 0.1:
            content += _unknown(random, 40)
        parts.append(sized(random, member.number, content))
    if random.random() < 0.2:
        parts.insert(random.randrange(len(parts) + 1), _unknown(random, random.choice(_FIELD_NUMBERS)))
    data = b"".join(parts)
    return changed(data, random) if random.random() < 0.2 else data


def numbered(shapes: Mapping[str, Shape], random: Random) -> bytes:
    """An ``AllocateStreamRequest``: mostly a number and a batch, in this order."""
    # Groups within groups are for the batch alone: in here protobuf allows one level less.
    batch = b"".join(sound(shapes["AllocateSimsRequest"], random))
    parts = [tag(1, 0, _longer(random)) + _number(random)] if random.random() < 0.8 else []
    parts += [sized(random, 2, batch)] * random.choice([0, 1, 1, 1, 1, 1, 2])
    if random.random() < 0.2:
        random.shuffle(parts)
    data = b"".join(parts)
    return changed(data, random) if random.random() < 0.3 else data


def columns(shape: Shape, random: Random) -> tuple[dict[str, list[int]], list[int] | None]:
    """Columns to encode, and the rows to pick: none, some in any order, some twice."""
    count = _count(random)
    found = {}
    for name, code in shape.columns:
        largest = {"u1": 0xFF, "<u2": 0xFFFF, "<u4": 2**32 - 1, "<u8": 2**64 - 1}[code]
        values = [value for value in _WIDE if value <= largest]
        upper = random.choice([1, 128, 129, 256, 16_384])
        lower = random.choice([0, 0, min(upper, 128) - 1, min(upper - 1, 128)])
        found[name] = [
            random.choice(values) if upper == 1 else min(largest, random.randrange(lower, upper)) for _ in range(count)
        ]
    rows = (
        [random.randrange(count) for _ in range(random.randrange(2 * count))]
        if count and random.random() < 0.3
        else None
    )
    return found, rows

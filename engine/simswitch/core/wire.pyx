# Columns between the bytes of a protobuf message and the runs of commands.py, without an object per item.
#
#     message   | tag len access_server | tag len a0 a1 a2 … | tag len b0 b1 b2 … |       packed repeated fields
#     run       | header | a0 a1 a2 … | b0 b1 b2 … | pad |                                a run of commands
#
# A Table says which field of a message is which column. Decoding goes over the fields twice: the first time it checks
# every byte, counts each column and keeps the few texts; the second time it copies. Encoding works out the exact size
# of the reply first and fills its bytes in place; a column that may be left out is, when it is all zeros. What an item costs:
#
#     the same width in message and run          one memcpy a column
#     fixed32 <-> u2                             a loop that the compiler vectorises
#     numbers, each below 0x80: statuses, kinds  one look at all bytes together, then a memcpy or such a loop
#     numbers below 0x80 that stand for names    the same look, then one load from a table of at most 512 bytes an item
#     other numbers                              a loop over their bytes
#
# Columns of a message stand at any address. A copy between odd addresses takes 15 to 20 % longer as long as all lies in the
# first cache, 0.006 ns an item and column, and 2 % beyond: too little to pad for. Values there are read and written with
# memcpy.
#
# The GIL is kept: 5,000,000 allocations a second hold it for under 1 % of the time here, and whoever drops it may have to
# wait for a hand-off that takes longer than decoding 10,000 items.
#
# What is accepted is what protobuf's own parser accepts, no more and no less (tests/fuzz compares them): packed or
# single values, a column in several pieces, unknown fields, groups among them, tags and lengths that are longer than
# they need be. A scalar that comes twice counts the last time; a field of the wrong wire type is an unknown field.
#
# Bounds: 65,536 items, 16 columns, 4 text fields, 256 texts of a repeated one. Time is linear in the bytes, memory is
# the outcome. A table owns its numbers and at most 64 short texts that came before; a Batch keeps the message alive.

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport int8_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cdef enum:
    ITEMS_LIMIT = 65536
    COLUMNS_LIMIT = 16
    TEXT_FIELDS_LIMIT = 4
    TEXTS_LIMIT = 256
    FIELD_NUMBERS_LIMIT = 32
    KNOWN_TEXTS = 64            # of a table, each of at most KNOWN_TEXT_BYTES
    KNOWN_TEXT_BYTES = 64
    GROUPS_LIMIT = 100          # how deep protobuf's parser follows nested groups
    HEADER_BYTES = 24           # of a run, see commands.py

    SLOT_UNKNOWN = 255
    SLOT_TEXT = 64              # slots from here on are text fields

    # Wire types.
    WIRE_VARINT = 0
    WIRE_FIXED64 = 1
    WIRE_SIZED = 2
    WIRE_GROUP = 3
    WIRE_GROUP_END = 4
    WIRE_FIXED32 = 5

ITEMS_MAX = ITEMS_LIMIT
TEXTS_MAX = TEXTS_LIMIT

cdef dict WIRE_TYPES = {"fixed64": WIRE_FIXED64, "fixed32": WIRE_FIXED32, "varint": WIRE_VARINT}
cdef dict WIDTHS = {"fixed64": (8,), "fixed32": (2, 4), "varint": (1, 2)}


class Malformed(ValueError):
    """The bytes are not a message of this type."""


class ColumnsDiffer(ValueError):
    """The columns of a request differ in length, or an index points past the names."""


class TooManyItems(ValueError):
    """More items or names than one call may have."""


cdef struct Column:
    uint8_t number                      # of the field; 0: the run has this column, the message does not
    uint8_t wire                        # WIRE_FIXED64, WIRE_FIXED32 or WIRE_VARINT
    uint8_t width                       # bytes of an item in the run
    uint8_t required
    int8_t names                        # text field whose texts the values are indexes into; -1: plain values

cdef struct Slice:
    const uint8_t *at
    const uint8_t *end

cdef struct Names:                      # what stands for the texts of a field
    uint32_t count
    uint16_t values[TEXTS_LIMIT]


cdef int malformed(const char *what) except -1 nogil:
    with gil:
        raise Malformed(what.decode())


cdef inline int read_varint(Slice *slice, uint64_t *value) except -1 nogil:
    # At most ten bytes; of the tenth the lowest bit counts, and protobuf does not look at the others.
    cdef uint64_t result = 0
    cdef uint8_t byte
    cdef int shift
    for shift in range(0, 70, 7):
        if slice.at == slice.end:
            return malformed(b"a number is cut off")
        byte = slice.at[0]
        slice.at += 1
        result |= (<uint64_t> (byte & 0x7F)) << shift
        if byte < 0x80:
            value[0] = result
            return 0
    return malformed(b"a number has more than 64 bits")


cdef inline int read_short_varint(Slice *slice, uint64_t limit, uint64_t *value) except -1 nogil:
    # Tags and lengths have at most five bytes.
    cdef const uint8_t *start = slice.at
    read_varint(slice, value)
    if slice.at - start > 5 or value[0] > limit:
        return malformed(b"a tag or a length is out of range")
    return 0


cdef inline int read_tag(Slice *slice, uint32_t *number, uint32_t *wire) except -1 nogil:
    cdef uint64_t tag = 0
    read_short_varint(slice, 0xFFFFFFFF, &tag)
    number[0] = <uint32_t> (tag >> 3)
    wire[0] = <uint32_t> (tag & 7)
    return 0


cdef inline int read_field(Slice *slice, uint32_t *number, uint32_t *wire) except -1 nogil:
    # A tag of the message itself. Inside an unknown group protobuf lets the number 0 pass.
    read_tag(slice, number, wire)
    if number[0] == 0:
        return malformed(b"a field has the number 0")
    return 0


cdef inline int read_sized(Slice *slice, Slice *content) except -1 nogil:
    cdef uint64_t size = 0
    read_short_varint(slice, 0x7FFFFFFF, &size)
    if size > <uint64_t> (slice.end - slice.at):
        return malformed(b"a field is cut off")
    content.at = slice.at
    content.end = slice.at + size
    slice.at = content.end
    return 0


cdef inline int skip_bytes(Slice *slice, uint64_t size) except -1 nogil:
    if size > <uint64_t> (slice.end - slice.at):
        return malformed(b"a field is cut off")
    slice.at += size
    return 0


cdef int skip_field(Slice *slice, uint32_t number, uint32_t wire, int depth) except -1 nogil:
    # An unknown field, or a known one of the wrong wire type. Groups nest.
    cdef uint64_t value = 0
    cdef Slice content = Slice(NULL, NULL)
    cdef uint32_t inner_number
    cdef uint32_t inner_wire
    if wire == WIRE_VARINT:
        return read_varint(slice, &value)
    if wire == WIRE_FIXED64:
        return skip_bytes(slice, 8)
    if wire == WIRE_FIXED32:
        return skip_bytes(slice, 4)
    if wire == WIRE_SIZED:
        return read_sized(slice, &content)
    if wire == WIRE_GROUP:
        if depth >= GROUPS_LIMIT:
            return malformed(b"groups are nested too deep")
        while True:
            if slice.at == slice.end:
                return malformed(b"a group is cut off")
            read_tag(slice, &inner_number, &inner_wire)
            if inner_wire == WIRE_GROUP_END:
                if inner_number != number:
                    return malformed(b"a group ends that did not begin")
                return 0
            skip_field(slice, inner_number, inner_wire, depth + 1)
    return malformed(b"a group ends that did not begin, or a wire type does not exist")


cdef inline uint8_t largest_byte(const uint8_t *at, uint64_t size) noexcept nogil:
    # Below 0x80: each of these bytes is a number. Vectorises.
    cdef uint8_t largest = 0
    cdef uint64_t item
    for item in range(size):
        largest = at[item] if at[item] > largest else largest
    return largest


cdef long long count_numbers(Slice content) except -1 nogil:
    # Checks a packed piece of numbers and counts them.
    cdef long long count = 0
    cdef uint64_t value = 0
    if largest_byte(content.at, content.end - content.at) < 0x80:
        return content.end - content.at
    while content.at < content.end:
        read_varint(&content, &value)
        count += 1
    return count


cdef inline void store(uint8_t *place, uint8_t width, uint32_t value) noexcept nogil:
    # A number that does not fit becomes the largest one, which no command takes for anything else.
    cdef uint16_t half
    if width == 2:
        half = <uint16_t> value if value < 0xFFFF else 0xFFFF
        memcpy(place, &half, 2)
    else:
        place[0] = <uint8_t> value if value < 0xFF else 0xFF


cdef inline uint16_t load_half(const uint8_t *place) noexcept nogil:
    cdef uint16_t half
    memcpy(&half, place, 2)
    return half


cdef inline uint32_t load_word(const uint8_t *place) noexcept nogil:
    cdef uint32_t word
    memcpy(&word, place, 4)
    return word


cdef inline uint16_t load(const uint8_t *column, uint8_t width, uint64_t item) noexcept nogil:
    # A column that a message has as varints is 1 or 2 bytes wide.
    return column[item] if width == 1 else load_half(column + 2 * item)


cdef inline uint64_t varint_bytes(uint64_t value) noexcept nogil:
    cdef uint64_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline uint8_t *write_varint(uint8_t *place, uint64_t value) noexcept nogil:
    while value >= 0x80:
        place[0] = <uint8_t> (value | 0x80)
        value >>= 7
        place += 1
    place[0] = <uint8_t> value
    return place + 1


cdef inline uint16_t all_bits(const uint8_t *column, uint8_t width, uint64_t count) noexcept nogil:
    # The values or-ed together: below 0x80, each takes one byte as a varint. Vectorises.
    cdef uint8_t byte_bits = 0
    cdef uint16_t half_bits = 0
    cdef uint64_t item
    if width == 1:
        for item in range(count):
            byte_bits |= column[item]
        return byte_bits
    for item in range(count):
        half_bits |= load_half(column + 2 * item)
    return half_bits


cdef uint64_t numbers_bytes(const uint8_t *column, uint8_t width, uint64_t count) noexcept nogil:
    # How long a column is as packed varints.
    cdef uint64_t size = 0
    cdef uint64_t item
    if all_bits(column, width, count) < 0x80:
        return count
    for item in range(count):
        size += varint_bytes(load(column, width, item))
    return size


cdef uint8_t *write_numbers(
    uint8_t *place, uint64_t size, const uint8_t *column, uint8_t width, uint64_t count
) noexcept nogil:
    cdef uint64_t item
    if size != count:
        for item in range(count):
            place = write_varint(place, load(column, width, item))
        return place
    if width == 1:
        memcpy(place, column, count)
    else:
        # Each number is below 0x80: its first byte is all of it.
        for item in range(count):
            place[item] = column[2 * item]
    return place + count


cdef uint8_t *write_widened(uint8_t *place, const uint8_t *column, uint64_t count) noexcept nogil:
    # u2 to fixed32.
    cdef uint32_t word
    cdef uint64_t item
    for item in range(count):
        word = load_half(column + 2 * item)
        memcpy(place + 4 * item, &word, 4)
    return place + 4 * count


cdef inline bint all_zeros(const uint8_t *column, uint64_t size) noexcept nogil:
    # Most columns that are not show it in their first bytes.
    return column[0] == 0 and memcmp(column, column + 1, size - 1) == 0


cdef void pick(uint8_t *place, const uint8_t *column, uint8_t width, const uint32_t *rows, uint64_t count) noexcept nogil:
    cdef uint64_t item
    if width == 8:
        for item in range(count):
            memcpy(place + 8 * item, column + 8 * <uint64_t> rows[item], 8)
    else:
        for item in range(count):
            memcpy(place + width * item, column + width * <uint64_t> rows[item], width)


cdef class Table:
    """Which field of a message is which column of a run."""

    cdef Column columns[COLUMNS_LIMIT]
    cdef uint8_t slots[FIELD_NUMBERS_LIMIT]
    cdef uint8_t text_repeated[TEXT_FIELDS_LIMIT]
    cdef int columns_count
    cdef int texts_count
    cdef uint64_t row_bytes
    cdef readonly str message
    cdef readonly tuple names
    cdef list known                     # short texts that came before, placed by their bytes; None: none yet

    def __init__(self, str message, columns, texts=()):
        memset(self.slots, SLOT_UNKNOWN, FIELD_NUMBERS_LIMIT)
        columns = list(columns)
        texts = list(texts)
        if len(columns) > COLUMNS_LIMIT or len(texts) > TEXT_FIELDS_LIMIT:
            raise ValueError(f"{message} has more columns or texts than a table holds")
        self.message = message
        self.names = tuple([name for name, *_ in columns])
        self.columns_count = 0
        self.texts_count = 0
        self.row_bytes = 0
        self.known = [None] * KNOWN_TEXTS
        text_names = [name for name, *_ in texts]
        for position, (name, number, repeated) in enumerate(texts):
            self.claim(number, SLOT_TEXT + position)
            self.text_repeated[position] = repeated
            self.texts_count += 1
        for position, (name, number, wire, width, required, names) in enumerate(columns):
            if width not in (WIDTHS[wire] if number else (1, 2, 4, 8)):
                raise ValueError(f"column {name} of {message}, {wire}, can't be {width} bytes wide")
            if names is not None and (wire, width) != ("varint", 2):
                raise ValueError(f"column {name} of {message} stands for names: it has to be varint and 2 bytes wide")
            if number:
                self.claim(number, position)
            self.columns[position] = Column(
                number, WIRE_TYPES[wire], width, required, -1 if names is None else text_names.index(names)
            )
            self.row_bytes += width
            self.columns_count += 1

    cdef int claim(self, int number, int slot) except -1:
        if not 0 < number < FIELD_NUMBERS_LIMIT or self.slots[number] != SLOT_UNKNOWN:
            raise ValueError(f"field {number} of {self.message} is out of range or taken")
        self.slots[number] = slot
        return 0

    cdef str text_of(self, Slice content):
        # The same few names come with every message: comparing one is cheaper than making it anew, and its hash is known.
        cdef Py_ssize_t size = content.end - content.at
        cdef Py_ssize_t known_size = 0
        cdef const char *known
        cdef int place = 0
        if 0 < size <= KNOWN_TEXT_BYTES:
            place = (content.at[0] * 31 + content.at[size - 1] + size * 7) % KNOWN_TEXTS
            if self.known[place] is not None:
                known = PyUnicode_AsUTF8AndSize(self.known[place], &known_size)
                if known_size == size and memcmp(known, content.at, size) == 0:
                    return self.known[place]
        try:
            text = PyUnicode_DecodeUTF8(<const char *> content.at, size, NULL)
        except UnicodeDecodeError as error:
            raise Malformed("a text is not UTF-8") from error
        if 0 < size <= KNOWN_TEXT_BYTES:
            self.known[place] = text
        return text

    def decode(self, bytes data not None):
        """Checks a message. The columns are copied by the batch's own methods."""
        cdef Batch batch = Batch.__new__(Batch)
        batch.table = self
        batch.data = data
        batch.texts = [None] * self.texts_count
        batch.scan()
        return batch

    def encode(self, columns, uint32_t count, rows=None):
        """The message's columns, from columns that lie one after the other as in a run (without a header).

        ``count`` is how many items ``columns`` holds; ``rows``, bytes of native uint32, picks some of them.
        """
        cdef Py_buffer view
        PyObject_GetBuffer(columns, &view, PyBUF_SIMPLE)
        try:
            if <uint64_t> view.len < self.row_bytes * count:
                raise ValueError(f"{self.message}: {view.len} bytes are too few for {count} items")
            if rows is not None:
                return self.write_picked(<const uint8_t *> view.buf, count, bytes(rows))
            return self.write(<const uint8_t *> view.buf, count)
        finally:
            PyBuffer_Release(&view)

    cdef bytes write_picked(self, const uint8_t *source, uint64_t count, bytes rows_bytes):
        cdef const uint32_t *rows = <const uint32_t *> PyBytes_AS_STRING(rows_bytes)
        cdef uint64_t rows_count = len(rows_bytes) // 4
        cdef uint64_t row
        cdef int index
        cdef bytes picked = PyBytes_FromStringAndSize(NULL, self.row_bytes * rows_count)
        cdef uint8_t *place = <uint8_t *> PyBytes_AS_STRING(picked)
        for row in range(rows_count):
            if rows[row] >= count:
                raise IndexError(f"row {rows[row]} of {count}")
        for index in range(self.columns_count):
            pick(place, source, self.columns[index].width, rows, rows_count)
            place += self.columns[index].width * rows_count
            source += self.columns[index].width * count
        return self.write(<const uint8_t *> PyBytes_AS_STRING(picked), rows_count)

    cdef bytes write(self, const uint8_t *source, uint64_t count):
        cdef uint64_t sizes[COLUMNS_LIMIT]
        cdef uint64_t total = 0
        cdef const uint8_t *column = source
        cdef uint8_t *place
        cdef Column *kind
        cdef int index
        cdef bytes result
        if count == 0:
            return b""
        for index in range(self.columns_count):
            kind = &self.columns[index]
            sizes[index] = 0
            if kind.number and (kind.required or kind.names >= 0 or not all_zeros(column, kind.width * count)):
                if kind.wire == WIRE_VARINT:
                    sizes[index] = numbers_bytes(column, kind.width, count)
                else:
                    sizes[index] = (8 if kind.wire == WIRE_FIXED64 else 4) * count
                total += varint_bytes(kind.number << 3 | WIRE_SIZED) + varint_bytes(sizes[index]) + sizes[index]
            column += kind.width * count
        result = PyBytes_FromStringAndSize(NULL, total)
        place = <uint8_t *> PyBytes_AS_STRING(result)
        column = source
        for index in range(self.columns_count):
            kind = &self.columns[index]
            if sizes[index]:
                place = write_varint(place, kind.number << 3 | WIRE_SIZED)
                place = write_varint(place, sizes[index])
                if kind.wire == WIRE_VARINT:
                    place = write_numbers(place, sizes[index], column, kind.width, count)
                elif kind.wire == WIRE_FIXED32 and kind.width == 2:
                    place = write_widened(place, column, count)
                else:
                    memcpy(place, column, sizes[index])
                    place += sizes[index]
            column += kind.width * count
        return result


@cython.no_gc
@cython.freelist(16)
cdef class Batch:
    """A message that was found sound."""

    # Nothing here can refer back to the batch, so the garbage collector need not follow it.
    cdef Table table
    cdef bytes data
    cdef list texts                     # a field's text, or its list of texts; None: it did not come
    cdef uint64_t counts[COLUMNS_LIMIT]
    cdef readonly uint32_t count

    cdef int scan(self) except -1:
        cdef Table table = self.table
        cdef Slice slice
        cdef Slice content = Slice(NULL, NULL)
        cdef uint32_t number
        cdef uint32_t wire
        cdef uint8_t slot
        cdef uint8_t column_wire
        cdef uint64_t width
        memset(self.counts, 0, sizeof(self.counts))
        slice.at = <const uint8_t *> PyBytes_AS_STRING(self.data)
        slice.end = slice.at + len(self.data)
        while slice.at < slice.end:
            read_field(&slice, &number, &wire)
            slot = table.slots[number] if number < FIELD_NUMBERS_LIMIT else SLOT_UNKNOWN
            if slot >= SLOT_TEXT:
                if slot == SLOT_UNKNOWN or wire != WIRE_SIZED:
                    skip_field(&slice, number, wire, 0)
                    continue
                read_sized(&slice, &content)
                self.keep_text(slot - SLOT_TEXT, content)
                continue
            column_wire = table.columns[slot].wire
            if wire != WIRE_SIZED:
                skip_field(&slice, number, wire, 0)
                self.counts[slot] += wire == column_wire
                continue
            read_sized(&slice, &content)
            if column_wire == WIRE_VARINT:
                self.counts[slot] += count_numbers(content)
                continue
            width = 8 if column_wire == WIRE_FIXED64 else 4
            if (content.end - content.at) % width:
                malformed(b"a column has a part of an item")
            self.counts[slot] += (content.end - content.at) // width
        return self.agree()

    cdef int keep_text(self, int field, Slice content) except -1:
        text = self.table.text_of(content)
        if not self.table.text_repeated[field]:
            self.texts[field] = text
        elif self.texts[field] is None:
            self.texts[field] = [text]
        elif len(<list> self.texts[field]) < TEXTS_LIMIT:
            (<list> self.texts[field]).append(text)
        else:
            raise TooManyItems(f"{self.table.message} has more than {TEXTS_LIMIT} names in one field")
        return 0

    cdef int agree(self) except -1:
        # Every column has the same length; one that may be left out may also be empty.
        cdef Table table = self.table
        cdef uint64_t count = 0
        cdef int index
        for index in range(table.columns_count):
            if self.counts[index] > count:
                count = self.counts[index]
        if count > ITEMS_LIMIT:
            raise TooManyItems(f"{table.message} has {count} items, a call may have {ITEMS_LIMIT}")
        for index in range(table.columns_count):
            if self.counts[index] == count:
                continue
            if table.columns[index].required or self.counts[index]:
                lengths = ", ".join([f"{name} {self.counts[at]}" for at, name in enumerate(table.names)])
                raise ColumnsDiffer(f"the columns of {table.message} differ in length: {lengths}")
            if table.columns[index].names >= 0 and len(self.texts[table.columns[index].names] or ()) != 1:
                raise ColumnsDiffer(
                    f"the column {table.names[index]} of {table.message} may only be left out with exactly one name"
                )
        self.count = <uint32_t> count
        return 0

    cdef int has_text(self, int field) except -1:
        if not 0 <= field < len(self.texts):
            raise IndexError(f"{self.table.message} has {len(self.texts)} text fields, not number {field}")
        return 0

    def text(self, int field):
        """The text of a field that is not repeated; empty when it did not come. IndexError: there is no such field."""
        self.has_text(field)
        return self.texts[field] or ""

    def names(self, int field):
        """The texts of a repeated field. IndexError: there is no such field."""
        self.has_text(field)
        return list(self.texts[field] or ())

    def run(self, uint16_t kind, *, uint32_t actor, uint16_t access_server, uint64_t argument=0, indexes=()):
        """The run of commands. ``indexes`` has, for each text field, native uint16 values that stand for its texts."""
        cdef uint64_t size = HEADER_BYTES + self.table.row_bytes * self.count
        cdef uint64_t padded = (size + 7) & ~<uint64_t> 7
        cdef bytes result = PyBytes_FromStringAndSize(NULL, padded)
        cdef uint8_t *place = <uint8_t *> PyBytes_AS_STRING(result)
        cdef uint32_t size_word = <uint32_t> padded
        memcpy(place, &size_word, 4)
        memcpy(place + 4, &kind, 2)
        memcpy(place + 6, &access_server, 2)
        memcpy(place + 8, &self.count, 4)
        memcpy(place + 12, &actor, 4)
        memcpy(place + 16, &argument, 8)
        self.fill(place + HEADER_BYTES, indexes)
        memset(place + size, 0, padded - size)
        return result

    def columns(self):
        """The columns one after the other, as in a run, without a header."""
        cdef bytes result = PyBytes_FromStringAndSize(NULL, self.table.row_bytes * self.count)
        self.fill(<uint8_t *> PyBytes_AS_STRING(result), ())
        return result

    cdef int fill(self, uint8_t *start, indexes) except -1:
        cdef Table table = self.table
        cdef uint8_t *places[COLUMNS_LIMIT]
        cdef Names names[TEXT_FIELDS_LIMIT]
        cdef Slice slice
        cdef Slice content = Slice(NULL, NULL)
        cdef uint32_t number
        cdef uint32_t wire
        cdef uint8_t slot
        cdef int index
        cdef tuple given = tuple(indexes)
        if len(given) > TEXT_FIELDS_LIMIT:
            raise ValueError(f"{table.message}: {len(given)} indexes are more than the text fields of any table")
        for index in range(TEXT_FIELDS_LIMIT):
            names[index].count = 0
            if index < len(given):
                read_names(&names[index], given[index])
        for index in range(table.columns_count):
            places[index] = start
            if self.counts[index] == 0 and self.count:
                self.fill_absent(index, start, names)
            start += table.columns[index].width * self.count
        slice.at = <const uint8_t *> PyBytes_AS_STRING(self.data)
        slice.end = slice.at + len(self.data)
        while slice.at < slice.end:
            read_field(&slice, &number, &wire)
            slot = table.slots[number] if number < FIELD_NUMBERS_LIMIT else SLOT_UNKNOWN
            if slot >= SLOT_TEXT or (wire != WIRE_SIZED and wire != table.columns[slot].wire):
                skip_field(&slice, number, wire, 0)
                continue
            if wire == WIRE_SIZED:
                read_sized(&slice, &content)
            else:
                content.at = slice.at
                skip_field(&slice, number, wire, 0)
                content.end = slice.at
            if table.columns[slot].names < 0:
                places[slot] = copy_piece(&table.columns[slot], places[slot], content)
            else:
                places[slot] = self.translate(slot, places[slot], content, &names[table.columns[slot].names])
        return 0

    cdef int fill_absent(self, int index, uint8_t *place, const Names *names) except -1:
        cdef Column *column = &self.table.columns[index]
        cdef uint64_t count = self.count
        cdef uint64_t item
        cdef uint16_t value
        if column.names < 0:
            memset(place, 0, column.width * count)
            return 0
        if names[column.names].count == 0:
            return self.refuse_index(index, 0, 0)
        value = names[column.names].values[0]
        for item in range(count):
            memcpy(place + 2 * item, &value, 2)
        return 0

    cdef uint8_t *translate(self, int index, uint8_t *place, Slice content, const Names *names) except NULL:
        # From indexes into the message's names to what stands for the names. The piece was checked by scan.
        cdef uint64_t size = content.end - content.at
        cdef uint8_t largest = largest_byte(content.at, size)
        cdef uint32_t value
        cdef uint64_t item
        if largest < 0x80 and (largest < names.count or not size):
            for item in range(size):
                memcpy(place + 2 * item, &names.values[content.at[item]], 2)
            return place + 2 * size
        while content.at < content.end:
            value = next_number(&content)
            if value >= names.count:
                self.refuse_index(index, value, names.count)
            memcpy(place, &names.values[value], 2)
            place += 2
        return place

    cdef int refuse_index(self, int index, uint32_t value, uint32_t names_count) except -1:
        raise ColumnsDiffer(
            f"the column {self.table.names[index]} of {self.table.message} has the index {value},"
            f" there are {names_count} names"
        )


cdef int read_names(Names *names, values) except -1:
    cdef Py_buffer view
    PyObject_GetBuffer(values, &view, PyBUF_SIMPLE)
    try:
        if <uint64_t> view.len > sizeof(names.values):
            raise ValueError(f"{view.len // 2} indexes are more than {TEXTS_LIMIT} texts")
        memcpy(names.values, view.buf, view.len)
        names.count = <uint32_t> (view.len // 2)
    finally:
        PyBuffer_Release(&view)
    return 0


cdef inline uint32_t next_number(Slice *content) noexcept nogil:
    # A number of a piece that scan has checked. Every varint column is a uint32 or an enum, of which protobuf keeps the
    # lower 32 bits.
    cdef uint64_t value = 0
    cdef uint8_t byte
    cdef int shift = 0
    while True:
        byte = content.at[0]
        content.at += 1
        if shift < 32:
            value |= (<uint64_t> (byte & 0x7F)) << shift
        shift += 7
        if byte < 0x80:
            return <uint32_t> value


cdef uint8_t *copy_piece(const Column *column, uint8_t *place, Slice content) noexcept nogil:
    # The piece was checked by scan.
    cdef uint64_t size = content.end - content.at
    cdef uint64_t item
    if column.wire == WIRE_FIXED64 or (column.wire == WIRE_FIXED32 and column.width == 4):
        memcpy(place, content.at, size)
        return place + size
    if column.wire == WIRE_FIXED32:
        for item in range(size // 4):
            store(place + 2 * item, 2, load_word(content.at + 4 * item))
        return place + size // 2
    if largest_byte(content.at, size) < 0x80:
        if column.width == 1:
            memcpy(place, content.at, size)
        else:
            for item in range(size):
                store(place + column.width * item, column.width, content.at[item])
        return place + column.width * size
    while content.at < content.end:
        store(place, column.width, next_number(&content))
        place += column.width
    return place


def only_message(bytes data not None, uint32_t number_max):
    """The one sub-message that a message consists of: (field number, its bytes).

    None when there is anything else but unknown fields: several fields from 1 to ``number_max``, or one of another wire
    type. Then protobuf's own parser is to put the message in order.
    """
    cdef Slice slice
    cdef Slice content = Slice(NULL, NULL)
    cdef Slice kept = Slice(NULL, NULL)
    cdef uint32_t number
    cdef uint32_t wire
    cdef uint32_t kept_number = 0
    slice.at = <const uint8_t *> PyBytes_AS_STRING(data)
    slice.end = slice.at + len(data)
    while slice.at < slice.end:
        read_field(&slice, &number, &wire)
        if number > number_max:
            skip_field(&slice, number, wire, 0)
            continue
        if wire != WIRE_SIZED or kept_number:
            return None
        read_sized(&slice, &content)
        kept = content
        kept_number = number
    if kept_number == 0:
        return None
    content = kept
    while content.at < content.end:
        # Not every member is parsed by its reader, and its groups are one level deeper than its own parser would believe.
        # A field's number may be 0: protobuf lets that pass in a message that has no fields.
        read_tag(&content, &number, &wire)
        skip_field(&content, number, wire, 1)
    return kept_number, PyBytes_FromStringAndSize(<const char *> kept.at, kept.end - kept.at)


def enclose(uint32_t number, bytes message not None):
    """A message as the sub-message ``number`` of another one."""
    cdef uint64_t size = len(message)
    cdef uint64_t tag = (<uint64_t> number << 3) | WIRE_SIZED
    cdef bytes result = PyBytes_FromStringAndSize(NULL, varint_bytes(tag) + varint_bytes(size) + size)
    cdef uint8_t *place = <uint8_t *> PyBytes_AS_STRING(result)
    place = write_varint(place, tag)
    place = write_varint(place, size)
    memcpy(place, PyBytes_AS_STRING(message), size)
    return result

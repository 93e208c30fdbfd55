# Allocations that came one by one, joined into one run of commands, and its outcome taken apart into their answers.
#
#     AllocateRequest   | 0A len access_server | 12 len market | 19 terminal | 21 subscriber | 28 expected |   fields 1 to 5
#     run               | header | terminals … | subscribers … | expected … | markets … | pad |
#     outcome           | epochs … | expiries … | iccids … | sims … | retry … | slow … | banks … | slots … | statuses … |
#     AllocateResponse  | 08 status | 12 len | 09 terminal | 11 epoch | 19 expiry | 22 iccid | 2A bank | 30 slot |
#
# Only the usual form of a request is read here: each field at most once, with its own wire type, texts of under 128
# bytes that are known names. add() declines any other, and protobuf decides what it is and how it is refused. Likewise
# answers() leaves out what was refused or is to be slowed. So this file has no errors and no words for them; tests compare it with protobuf.
#
# 26 bytes an item, in one piece that grows by doubling and belongs to the object.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from simswitch.core.commands import COMMAND_COLUMNS, OUTCOME_COLUMNS
from simswitch.core.layout import ALLOCATE, MOVED, NAME_BYTES

cdef enum:
    HEADER_BYTES = 24           # of a run, see core/commands.py
    COMMAND_BYTES = 26          # of an item in the run
    GRANT_BYTES = 41            # of an item in the outcome
    ANSWER_LIMIT = 160          # an answer is shorter; its lease is under 128, so its length is one byte

cdef uint16_t KIND = ALLOCATE
cdef uint8_t GRANTED_LAST = MOVED   # OK, SAME and MOVED come with a lease

if COMMAND_COLUMNS[ALLOCATE] != (
    ("terminal", "<u8"), ("subscriber", "<u8"), ("expected_bytes", "<u8"), ("market", "<u2"),
) or OUTCOME_COLUMNS[ALLOCATE] != (
    ("epoch", "<u8"), ("expires_ms", "<u8"), ("iccid", "<u8"), ("sim", "<u4"), ("retry_after_ms", "<u4"),
    ("slow_kbps", "<u4"), ("bank", "<u2"), ("slot", "<u2"), ("status", "u1"),
) or NAME_BYTES > 64:
    raise TypeError("the columns of ALLOCATE are not those that singles.pyx knows")

cdef struct Item:
    uint64_t terminal
    uint64_t subscriber
    uint64_t expected_bytes
    uint16_t market

cdef struct Text:
    const uint8_t *at
    Py_ssize_t size

cdef struct Request:
    Text access_server
    Text market
    uint64_t terminal
    uint64_t subscriber
    uint64_t expected_bytes


cdef bint read_request(const uint8_t *at, Py_ssize_t size, Request *request) noexcept nogil:
    # False: not the usual form.
    cdef const uint8_t *end = at + size
    cdef uint32_t seen = 0
    cdef uint32_t number
    cdef Text *text
    cdef uint64_t *value
    cdef int shift
    cdef uint8_t byte
    memset(request, 0, sizeof(Request))
    while at < end:
        number = at[0] >> 3
        if number < 1 or number > 5 or seen >> number & 1:
            return False
        seen |= <uint32_t> 1 << number
        if at[0] == 0x0A or at[0] == 0x12:
            text = &request.access_server if number == 1 else &request.market
            if end - at < 2 or at[1] > 127 or end - at - 2 < at[1]:
                return False
            text.at = at + 2
            text.size = at[1]
            at = text.at + text.size
        elif at[0] == 0x19 or at[0] == 0x21:
            value = &request.terminal if number == 3 else &request.subscriber
            if end - at < 9:
                return False
            memcpy(value, at + 1, 8)
            at += 9
        elif at[0] == 0x28:
            at += 1
            for shift in range(0, 63, 7):
                if at == end:
                    return False
                byte = at[0]
                at += 1
                request.expected_bytes |= (<uint64_t> (byte & 0x7F)) << shift
                if byte < 0x80:
                    break
            else:
                return False
        else:
            return False
    return True


cdef inline bint is_text(Text text, bytes known) noexcept:
    return PyBytes_GET_SIZE(known) == text.size and memcmp(PyBytes_AS_STRING(known), text.at, text.size) == 0


cdef inline bytes as_bytes(Text text):
    return PyBytes_FromStringAndSize(<const char *> text.at, text.size)


cdef inline uint8_t *write_fixed64(uint8_t *at, uint8_t tag, uint64_t value) noexcept nogil:
    if value:
        at[0] = tag
        memcpy(at + 1, &value, 8)
        at += 9
    return at


cdef inline uint8_t *write_iccid(uint8_t *at, uint64_t iccid) noexcept nogil:
    # As commands.decode_iccid: 89, and at least 17 or 18 digits.
    cdef int digits = 18 if iccid & 1 else 17
    cdef uint64_t value = iccid >> 1
    cdef uint64_t rest = value
    cdef int width = 0
    while rest:
        rest //= 10
        width += 1
    if width > digits:
        digits = width
    at[0] = 0x22
    at[1] = <uint8_t> (2 + digits)
    at[2] = c"8"
    at[3] = c"9"
    at += 4
    for width in range(digits):
        at[digits - 1 - width] = <uint8_t> (c"0" + value % 10)
        value //= 10
    return at + digits


def access_server(bytes request not None):
    """The name of the access server as its bytes; None: the request is not of the usual form."""
    cdef Request found
    if not read_request(<const uint8_t *> PyBytes_AS_STRING(request), PyBytes_GET_SIZE(request), &found):
        return None
    return as_bytes(found.access_server)


cdef class Allocations:
    """Requests of one actor for one access server."""

    cdef:
        bytes access_server
        object market_index
        object bank_name
        bytes market_last
        uint16_t market_last_index
        Item *items
        Py_ssize_t items_max
        readonly Py_ssize_t count

    def __cinit__(self, bytes access_server not None, market_index, bank_name):
        self.access_server = access_server
        self.market_index = market_index
        self.bank_name = bank_name

    def __dealloc__(self):
        free(self.items)

    def add(self, bytes request not None):
        """Takes it, as the next item, or declines."""
        cdef Request found
        cdef Item *items
        if not read_request(<const uint8_t *> PyBytes_AS_STRING(request), PyBytes_GET_SIZE(request), &found):
            return False
        if not is_text(found.access_server, self.access_server):
            return False
        if self.market_last is None or not is_text(found.market, self.market_last):
            market = as_bytes(found.market)
            index = self.market_index(market)
            if index is None:
                return False
            self.market_last = market
            self.market_last_index = index
        if self.count == self.items_max:
            items = <Item *> realloc(self.items, max(16, 2 * self.items_max) * sizeof(Item))
            if items == NULL:
                raise MemoryError
            self.items = items
            self.items_max = max(16, 2 * self.items_max)
        items = self.items + self.count
        items.terminal = found.terminal
        items.subscriber = found.subscriber
        items.expected_bytes = found.expected_bytes
        items.market = self.market_last_index
        self.count += 1
        return True

    def run(self, uint32_t actor, uint16_t access_server):
        """The run of commands."""
        cdef Py_ssize_t count = self.count
        cdef Py_ssize_t size = (HEADER_BYTES + COMMAND_BYTES * count + 7) // 8 * 8
        cdef bytes run = PyBytes_FromStringAndSize(NULL, size)
        cdef uint8_t *at = <uint8_t *> PyBytes_AS_STRING(run)
        cdef uint64_t *numbers = <uint64_t *> (at + HEADER_BYTES)
        cdef uint16_t *markets = <uint16_t *> (numbers + 3 * count)
        cdef Py_ssize_t i
        memset(at + size - 8, 0, 8)
        (<uint32_t *> at)[0] = <uint32_t> size
        (<uint16_t *> at)[2] = KIND
        (<uint16_t *> at)[3] = access_server
        (<uint32_t *> at)[2] = <uint32_t> count
        (<uint32_t *> at)[3] = actor
        (<uint64_t *> at)[2] = 0
        for i in range(count):
            numbers[i] = self.items[i].terminal
            numbers[count + i] = self.items[i].subscriber
            numbers[2 * count + i] = self.items[i].expected_bytes
            markets[i] = self.items[i].market
        return run

    def answers(self, const uint8_t[::1] outcome not None):
        """The answer to each request, in the order of add; None where protobuf has to make it."""
        cdef Py_ssize_t count = self.count
        if count == 0 or outcome.shape[0] < GRANT_BYTES * count:
            raise ValueError(f"the outcome of {count} allocations has {outcome.shape[0]} bytes")
        cdef const uint8_t *column = &outcome[0]
        cdef const uint64_t *numbers = <const uint64_t *> column
        cdef const uint32_t *slow_kbps = <const uint32_t *> (column + 32 * count)
        cdef const uint16_t *banks = <const uint16_t *> (column + 36 * count)
        cdef const uint16_t *slots = banks + count
        cdef const uint8_t *statuses = column + 40 * count
        cdef uint8_t answer[ANSWER_LIMIT]
        cdef uint8_t *at
        cdef uint32_t rest
        cdef Py_ssize_t i
        cdef int bank_last = -1
        cdef bytes bank = b""
        cdef list answers = [None] * count
        for i in range(count):
            if not 1 <= statuses[i] <= GRANTED_LAST or slow_kbps[i]:
                continue
            if banks[i] != bank_last:
                bank = self.bank_name(banks[i])
                bank_last = banks[i]
                if PyBytes_GET_SIZE(bank) > 64:
                    raise ValueError("the name of a bank is too long")
            at = write_fixed64(answer + 4, 0x09, self.items[i].terminal)
            at = write_fixed64(at, 0x11, numbers[i])
            at = write_fixed64(at, 0x19, numbers[count + i])
            at = write_iccid(at, numbers[2 * count + i])
            if PyBytes_GET_SIZE(bank):
                at[0] = 0x2A
                at[1] = <uint8_t> PyBytes_GET_SIZE(bank)
                memcpy(at + 2, PyBytes_AS_STRING(bank), PyBytes_GET_SIZE(bank))
                at += 2 + PyBytes_GET_SIZE(bank)
            rest = slots[i]
            if rest:
                at[0] = 0x30
                at += 1
                while rest > 127:
                    at[0] = <uint8_t> (rest | 0x80)
                    at += 1
                    rest >>= 7
                at[0] = <uint8_t> rest
                at += 1
            answer[0] = 0x08
            answer[1] = statuses[i]
            answer[2] = 0x12
            answer[3] = <uint8_t> (at - answer - 4)
            answers[i] = PyBytes_FromStringAndSize(<const char *> answer, at - answer)
        return answers

    def outcome_of(self, Py_ssize_t item, const uint8_t[::1] outcome not None):
        """The columns of one item, as if it had been a run of its own."""
        cdef Py_ssize_t count = self.count
        if not 0 <= item < count or outcome.shape[0] < GRANT_BYTES * count:
            raise ValueError(f"no item {item} in the outcome of {count} allocations")
        cdef uint8_t one[GRANT_BYTES]
        cdef const uint8_t *column = &outcome[0]
        cdef uint8_t *at = one
        cdef Py_ssize_t width
        for width in (8, 8, 8, 4, 4, 4, 2, 2, 1):
            memcpy(at, column + width * item, width)
            at += width
            column += width * count
        return PyBytes_FromStringAndSize(<const char *> one, GRANT_BYTES)

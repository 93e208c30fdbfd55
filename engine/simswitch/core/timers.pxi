# A hierarchical timing wheel (Varghese and Lauck 1987): arm, disarm and fire in O(1).
#
# 4 levels of 256 slots; the lowest turns once in 64 ms x 256 = 16 s, the whole wheel spans 8 years. A slot is a circular
# doubly linked list whose head stands in Wheel.heads; the nodes stand in arrays beside what they belong to, 8 bytes each. A timer's id
# names both: TimerKind in the upper 3 bits, the index of its owner in the lower 29.
#
# `header.timer_tick` is the last tick whose timers have all fired. A tick's work may be cut by the bound on work and is
# taken up again by the next apply. What fires is the owner's question "are you due?": an owner that was put off
# since (a renewed lease) is armed again then, and a renewal costs the wheel nothing.

cdef enum:
    LEVELS = 4
    SLOTS = 256
    HEADS = 1024


cdef inline TimerNode *timer_node(State *state, uint32_t timer) noexcept nogil:
    return <TimerNode *> (state.timers[timer >> 29] + (timer & 0x1FFFFFFF) * state.timer_strides[timer >> 29])


cdef inline uint32_t _head(int position) noexcept nogil:
    return (<uint32_t> TIMER_HEAD << 29) | <uint32_t> position


cdef void timers_clear(State *state) noexcept nogil:
    """Makes every list empty. The nodes of owners must be set to NONE_INDEX by whoever takes their memory."""
    cdef int position
    for position in range(HEADS):
        state.wheel.heads[position].next = _head(position)
        state.wheel.heads[position].previous = _head(position)
    for position in range(16):
        state.wheel.bits[position] = 0
    for position in range(RECENT):
        state.wheel.recent[position] = NONE_INDEX


cdef inline void _link(State *state, uint32_t timer, TimerNode *node, uint64_t due_tick) noexcept nogil:
    cdef uint64_t next_tick = state.header.timer_tick + 1
    cdef uint64_t distance
    cdef int level, position
    cdef TimerNode *head
    if due_tick < next_tick:
        due_tick = next_tick
    # The level is that of the highest digit in which the due tick differs from the tick that fires next: the timer
    # then comes down when that digit turns.
    distance = due_tick ^ next_tick
    level = min(last_set(distance | 1) >> 3, <int> LEVELS - 1)
    if due_tick - next_tick > <uint64_t> (SLOTS - 1) << (8 * (LEVELS - 1)):
        # Beyond the span of the wheel: wait in the last slot to come round, then be asked again. Within it, a top digit
        # below the present one is simply met in the next round.
        due_tick = next_tick + (<uint64_t> (SLOTS - 1) << (8 * (LEVELS - 1)))
    position = level * SLOTS + <int> ((due_tick >> (8 * level)) & (SLOTS - 1))
    head = &state.wheel.heads[position]
    node.next = _head(position)
    node.previous = head.previous
    timer_node(state, head.previous).next = timer
    head.previous = timer
    state.wheel.bits[position >> 6] |= <uint64_t> 1 << (position & 63)


cdef void _unlink(State *state, uint32_t timer) noexcept nogil:
    cdef TimerNode *node = timer_node(state, timer)
    cdef int position
    timer_node(state, node.previous).next = node.next
    timer_node(state, node.next).previous = node.previous
    if node.next == node.previous and (node.next >> 29) == TIMER_HEAD:
        position = <int> (node.next & 0x1FFFFFFF)
        state.wheel.bits[position >> 6] &= ~(<uint64_t> 1 << (position & 63))
    node.next = NONE_INDEX
    node.previous = NONE_INDEX


cdef inline void timer_arm(State *state, int kind, uint32_t index, uint64_t due_ms) noexcept nogil:
    """Arms for the first tick that is not before ``due_ms``; moves a timer that is armed already."""
    cdef uint32_t timer = (<uint32_t> kind << 29) | index
    cdef TimerNode *node = <TimerNode *> (state.timers[kind] + index * state.timer_strides[kind])
    if node.next != NONE_INDEX:
        _unlink(state, timer)
    _link(state, timer, node, (due_ms + (1 << TICK_SHIFT) - 1) >> TICK_SHIFT)


cdef void timer_disarm(State *state, int kind, uint32_t index) noexcept nogil:
    cdef uint32_t timer = (<uint32_t> kind << 29) | index
    if timer_node(state, timer).next != NONE_INDEX:
        _unlink(state, timer)


cdef inline int _first_position(State *state, int level, int start) noexcept nogil:
    """The first slot of a level from ``start`` on that is not empty, or -1. Doesn't go round."""
    cdef int word = start >> 6
    cdef uint64_t bits
    if start >= SLOTS:
        return -1
    bits = state.wheel.bits[level * 4 + word] & (~<uint64_t> 0 << (start & 63))
    while True:
        if bits != 0:
            return (word << 6) + first_set(bits)
        word += 1
        if word == 4:
            return -1
        bits = state.wheel.bits[level * 4 + word]


cdef uint64_t _next_tick(State *state) noexcept nogil:
    """The next tick at which a timer fires or comes down a level; ~0 if none is armed."""
    cdef uint64_t next_tick = state.header.timer_tick + 1
    cdef uint64_t best = ~<uint64_t> 0
    cdef uint64_t start
    cdef int level, position, digit
    for level in range(LEVELS):
        digit = <int> ((next_tick >> (8 * level)) & (SLOTS - 1))
        # On a higher level the slot of the present digit has come down already, unless its turn is this very tick.
        if level > 0 and next_tick & ((<uint64_t> 1 << (8 * level)) - 1):
            digit += 1
        position = _first_position(state, level, digit)
        if position >= 0:
            start = ((next_tick >> (8 * (level + 1))) << 8) + <uint64_t> position
        else:
            position = _first_position(state, level, 0)
            if position < 0:
                continue
            start = (((next_tick >> (8 * (level + 1))) + 1) << 8) + <uint64_t> position
        start <<= 8 * level
        if start < best:
            best = start
    return best


cdef uint32_t timer_fire(State *state, uint64_t now_ms, int *work) noexcept nogil:
    """Takes the next timer that is due at ``now_ms`` off the wheel, or gives NONE_INDEX.

    ``work`` is what may still be done; one timer moved or fired is one unit, and at 0 nothing more is given.
    """
    cdef uint64_t target = now_ms >> TICK_SHIFT
    cdef uint64_t tick
    cdef int level, position
    cdef uint32_t timer
    while state.header.timer_tick < target:
        tick = state.header.timer_tick + 1
        # Slots of higher levels come down when the digits below them turn to zero, the highest level first.
        for level in range(LEVELS - 1, 0, -1):
            if tick & ((<uint64_t> 1 << (8 * level)) - 1):
                continue
            position = level * SLOTS + <int> ((tick >> (8 * level)) & (SLOTS - 1))
            while state.wheel.heads[position].next != _head(position):
                if work[0] <= 0:
                    return NONE_INDEX
                work[0] -= 1
                timer = state.wheel.heads[position].next
                _unlink(state, timer)
                # What it is due at is not kept: it is asked, by firing it, and armed again if it was not yet due.
                return timer
        position = <int> (tick & (SLOTS - 1))
        if state.wheel.heads[position].next != _head(position):
            if work[0] <= 0:
                return NONE_INDEX
            work[0] -= 1
            timer = state.wheel.heads[position].next
            _unlink(state, timer)
            return timer
        # Nothing (more) at this tick: go on to the next one at which something fires or comes down.
        state.header.timer_tick = tick
        tick = _next_tick(state) - 1
        state.header.timer_tick = tick if tick < target else target
    return NONE_INDEX


cdef bint timers_behind(State *state, uint64_t now_ms) noexcept nogil:
    """Whether timers that are due were left for the next apply."""
    return state.header.timer_tick < (now_ms >> TICK_SHIFT)


cdef uint64_t timers_next_ms(State *state) noexcept nogil:
    """A lower bound of when the next timer is due, exact within the next 16 s; ~0 if none is armed."""
    cdef uint64_t tick = _next_tick(state)
    return tick << TICK_SHIFT if tick != ~<uint64_t> 0 else tick

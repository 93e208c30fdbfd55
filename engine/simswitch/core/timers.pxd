# A hierarchical timing wheel (Varghese and Lauck 1987): arm, disarm and fire in O(1).
#
# 4 levels of 256 slots; the lowest turns once in 64 ms x 256 = 16 s, the whole wheel spans 8 years. A slot is a circular
# doubly linked list whose head stands in Wheel.heads; the nodes stand in arrays beside what they belong to, 8 bytes each. A timer's id
# names both: TimerKind in the upper 3 bits, the index of its owner in the lower 29.
#
# `header.timer_tick` is the last tick whose timers have all fired. A tick's work may be cut by the bound on work and is
# taken up again by the next apply. What fires is the owner's question "are you due?": an owner that was put off
# since (a renewed lease) is armed again then, and a renewal costs the wheel nothing.

from libc.stdint cimport uint32_t, uint64_t

from simswitch.core.layout cimport State, TimerNode
from simswitch.core.layout cimport NONE_INDEX


cdef inline TimerNode *timer_node(State *state, uint32_t timer) noexcept nogil:
    return &state.timers[timer >> 29][timer & 0x1FFFFFFF]


cdef inline bint timer_armed(State *state, int kind, uint32_t index) noexcept nogil:
    return state.timers[kind][index].next != NONE_INDEX


cdef void timer_arm(State *state, int kind, uint32_t index, uint64_t due_ms) noexcept nogil
cdef void timer_disarm(State *state, int kind, uint32_t index) noexcept nogil
cdef uint32_t timer_fire(State *state, uint64_t now_ms, int *work) noexcept nogil
cdef bint timers_behind(State *state, uint64_t now_ms) noexcept nogil
cdef uint64_t timers_next_ms(State *state) noexcept nogil
cdef void timers_clear(State *state) noexcept nogil

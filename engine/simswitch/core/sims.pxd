# A SIM's life, in verbs: import -> free -> (reserve ->) assign -> release: cool -> free; and beside that its health.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from simswitch.core.layout cimport Sim, State

cdef uint32_t sim_find(State *state, uint64_t iccid) noexcept nogil
cdef uint32_t sim_find_imsi(State *state, uint64_t imsi) noexcept nogil
cdef void sim_enter(State *state, uint32_t index) noexcept nogil
cdef void sim_occupy(State *state, uint32_t index, int occupancy, uint32_t terminal) noexcept nogil
cdef void sim_cool(State *state, uint32_t index, uint64_t now_ms) noexcept nogil
cdef void sim_hold(State *state, uint32_t index, uint32_t terminal, uint32_t order) noexcept nogil
cdef void sim_timer(State *state, uint32_t index, uint64_t now_ms) noexcept nogil
cdef void sim_set_health(State *state, uint32_t index, int health, uint64_t now_ms) noexcept nogil
cdef void sim_judge_headroom(State *state, uint32_t index, uint64_t now_ms) noexcept nogil
cdef void sim_set_limit(State *state, uint32_t index, uint64_t now_ms) noexcept nogil
cdef void group_set_masked(State *state, uint32_t group, bint masked) noexcept nogil
cdef uint64_t draw(State *state) noexcept nogil

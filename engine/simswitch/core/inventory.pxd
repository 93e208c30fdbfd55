# Commands on what there is: entities, SIMs, health, settings, masks, resets.

from simswitch.core.layout cimport State
from simswitch.core.runs cimport Run

cdef void apply_define(State *state, const Run *run) noexcept nogil
cdef void apply_import_sims(State *state, const Run *run) noexcept nogil
cdef void apply_set_health(State *state, const Run *run) noexcept nogil
cdef void apply_configure(State *state, const Run *run) noexcept nogil
cdef void apply_mask(State *state, const Run *run) noexcept nogil
cdef void apply_reset_window(State *state, const Run *run) noexcept nogil
cdef void apply_thaw(State *state, const Run *run) noexcept nogil
cdef void settings_default(State *state) noexcept nogil

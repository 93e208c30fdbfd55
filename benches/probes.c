/* Tells callgrind what to count: without it every call does nothing. Valgrind's own header comes with its package. */

#include <valgrind/callgrind.h>

void probes_start(void) { CALLGRIND_START_INSTRUMENTATION; }

void probes_toggle(void) { CALLGRIND_TOGGLE_COLLECT; }

void probes_dump(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }

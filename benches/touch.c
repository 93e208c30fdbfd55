/* The reference of the core's benches: a loop that touches as many random cache lines as the operation, with no logic.
 *
 * An operation of the core finds a terminal by key (one line of the table), changes its record (one line) and changes
 * no, one or two SIM records (a line each). This does the same to arrays of the same size and says what the memory alone
 * costs on this machine, now. Absolute figures drift with the machine; the ratio to this loop is what counts.
 *
 *   lines   touched                                   stands for
 *   2       table slot, terminal                      renew
 *   3       table slot, terminal, SIM                 allocate, release, usage
 *   4       table slot, terminal, SIM, second SIM     a swap confirmed
 *
 * The next command's lines are independent of this one's, so the processor may fetch them ahead, as it may in the core.
 * Memory is asked for in huge pages, as the core's is. All of it belongs to the arena and is freed with it. */

#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

typedef struct { uint64_t words[8]; } line_t;   /* 64 B, one cache line */

typedef struct {
    uint32_t *table;            /* two words a slot, as in the core: a tag and an index */
    line_t *terminals;
    line_t *sims;
    uint64_t mask, count, table_bytes, lines_bytes;
} arena_t;

static void *map(uint64_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

static uint64_t huge(uint64_t bytes) { return (bytes + (2u << 20) - 1) & ~(uint64_t)((2u << 20) - 1); }

void arena_free(arena_t *arena) {
    if (arena->table) munmap(arena->table, arena->table_bytes);
    if (arena->terminals) munmap(arena->terminals, arena->lines_bytes);
    if (arena->sims) munmap(arena->sims, arena->lines_bytes);
    free(arena);
}

arena_t *arena_new(uint64_t count) {
    arena_t *arena = calloc(1, sizeof(arena_t));
    uint64_t slots = 16;
    if (!arena) return NULL;
    while (slots * 6 < count * 10) slots *= 2;
    arena->mask = slots - 1;
    arena->count = count;
    arena->table_bytes = huge(slots * 8);
    arena->lines_bytes = huge(count * sizeof(line_t));
    arena->table = map(arena->table_bytes);
    arena->terminals = map(arena->lines_bytes);
    arena->sims = map(arena->lines_bytes);
    if (!arena->table || !arena->terminals || !arena->sims) {
        arena_free(arena);
        return NULL;
    }
    for (uint64_t slot = 0; slot < slots; slot++) {
        arena->table[2 * slot] = (uint32_t)(slot * 2654435761u);
        arena->table[2 * slot + 1] = (uint32_t)((slot * 0x9E3779B97F4A7C15u >> 20) % count);
    }
    for (uint64_t index = 0; index < count; index++) {
        arena->terminals[index].words[0] = index;
        arena->sims[index].words[0] = index;
    }
    return arena;
}

/* Touches `lines` lines for each key. `sims` gives the SIM of each; a second one is its mirror image. */
uint64_t arena_touch(arena_t *arena, const uint64_t *keys, const uint32_t *sims, uint64_t count, int lines, uint64_t *out) {
    uint64_t sum = 0;
    for (uint64_t item = 0; item < count; item++) {
        uint64_t slot = (keys[item] * 0x9E3779B97F4A7C15u >> 17) & arena->mask;
        line_t *terminal = &arena->terminals[arena->table[2 * slot + 1]];
        uint64_t value = terminal->words[0] + arena->table[2 * slot];
        terminal->words[3] = value;
        if (lines > 2) {
            line_t *sim = &arena->sims[sims[item]];
            value += sim->words[0];
            sim->words[2] = value;
        }
        if (lines > 3) {
            line_t *sim = &arena->sims[arena->count - 1 - sims[item]];
            value += sim->words[0];
            sim->words[2] = value;
        }
        out[item] = value;
        sum += value;
    }
    return sum;
}

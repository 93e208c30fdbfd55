/* The reference of the core's benches: what an allocation has to move through memory, with no logic.
 *
 * An allocation reads its command's columns, finds a terminal by key (a random line of the table), changes the terminal's
 * record (a random line) and that of a SIM (a random line), and writes its outcome's columns. This does the same to arrays of
 * the same size. It compares nothing, chooses nothing, checks nothing and fetches nothing ahead. Which SIM comes next
 * it reads from a list; where a key's slot lies in the table it takes from a multiplication.
 *
 *   read    26 B of command columns   terminal, subscriber, expected_bytes u64 · market u16
 *   touch   3 random lines            table slot, terminal, SIM
 *   write   37 B of outcome columns   epoch, expires_ms, iccid u64 · sim, retry_after_ms u32 · bank, slot u16 · status u8
 *
 * The lines of the next command don't depend on this one's, so the processor may fetch them early, as it may in the core.
 * Memory is asked for in huge pages, as the core's is. All of it belongs to the arena and is freed with it. */

#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

typedef struct { uint32_t tag, index; } slot_t;
typedef struct { uint64_t key, subscriber, epoch, expires_ms, counted[2]; uint32_t sim, rest[3]; } terminal_t;   /* 64 B */
typedef struct { uint64_t iccid, counted[4]; uint32_t terminal, links[3]; uint16_t bank, slot; uint32_t state; } sim_t;   /* 64 B */

typedef struct {
    slot_t *table;
    terminal_t *terminals;
    sim_t *sims;
    uint64_t mask, table_bytes, lines_bytes;
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
    uint64_t slots = 1024;
    if (!arena) return NULL;
    while (slots * 3 < count * 5) slots *= 2;   /* a load of 0.6 or less, and slots with a whole tag: twice the core's table */
    arena->mask = slots - 1;
    arena->table_bytes = huge(slots * sizeof(slot_t));
    arena->lines_bytes = huge(count * sizeof(sim_t));
    arena->table = map(arena->table_bytes);
    arena->terminals = map(arena->lines_bytes);
    arena->sims = map(arena->lines_bytes);
    if (!arena->table || !arena->terminals || !arena->sims) {
        arena_free(arena);
        return NULL;
    }
    for (uint64_t slot = 0; slot < slots; slot++) {
        arena->table[slot].tag = (uint32_t)slot;
        arena->table[slot].index = (uint32_t)((slot * 0x9E3779B97F4A7C15u >> 20) % count);
    }
    for (uint64_t index = 0; index < count; index++) {
        arena->terminals[index].key = index;
        arena->sims[index].iccid = index;
    }
    return arena;
}

/* One batch: `count` commands' columns in, as many outcomes' columns out. `sims` names the SIM of each. */
void arena_touch(arena_t *arena, const uint8_t *commands, const uint32_t *sims, uint64_t count, uint8_t *outcomes) {
    const uint64_t *keys = (const uint64_t *)commands, *subscribers = keys + count, *expected = subscribers + count;
    const uint16_t *markets = (const uint16_t *)(expected + count);
    uint64_t *epoch = (uint64_t *)outcomes, *expires_ms = epoch + count, *iccid = expires_ms + count;
    uint32_t *sim_index = (uint32_t *)(iccid + count), *retry_after_ms = sim_index + count;
    uint16_t *bank = (uint16_t *)(retry_after_ms + count), *slot = bank + count;
    uint8_t *status = (uint8_t *)(slot + count);
    for (uint64_t item = 0; item < count; item++) {
        slot_t place = arena->table[(keys[item] * 0x9E3779B97F4A7C15u >> 17) & arena->mask];
        terminal_t *terminal = &arena->terminals[place.index];
        sim_t *sim = &arena->sims[sims[item]];
        terminal->epoch += subscribers[item];
        sim->terminal = place.index + place.tag;
        epoch[item] = terminal->epoch;
        expires_ms[item] = expected[item] + markets[item];
        iccid[item] = sim->iccid;
        sim_index[item] = sims[item];
        retry_after_ms[item] = 0;
        bank[item] = sim->bank;
        slot[item] = sim->slot;
        status[item] = 1;
    }
}

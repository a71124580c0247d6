/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory for arguments: every array has exactly the bytes that the header asks for, and lies between two pages that may
 * not be touched, against the first, against the last, or at an odd place among bytes that are compared afterwards. */
#ifndef FUZZ_MEMORY_H
#define FUZZ_MEMORY_H

#include "../C/numbers.h"
#include "draws.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { most_blocks = 48, room = 1 << 22, page = 1 << 16, margin = 192 };
enum placement { at_end, at_start, at_odd_place, placements };

typedef struct block {
    const char *name;
    void **holder; /* the argument that points here, or the member of a structure */
    unsigned char *values;
    size_t runs, width, stride, bytes; /* of runs that are `stride` apart, in bytes */
    size_t element;
    bn_dtype dtype; /* 0: no numbers */
    int is_output, is_shared; /* shared: an output in the place of an input, which two arguments point to */
    unsigned char *window; /* the bytes that are compared: the block and its margins */
    size_t window_bytes;
} block;

static block blocks[most_blocks];
static int block_count;
static unsigned char *slots, *snapshots;
static int placement_for_all = -1;

/* The harness is at fault. */
static void misuse(const char *why) {
    fprintf(stderr, "the fuzzer itself: %s\n", why);
    abort();
}

static inline void make_room(void) {
    size_t slot = room + 2 * page;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    slots = mmap(NULL, most_blocks * slot, PROT_NONE, flags, -1, 0);
    snapshots = mmap(NULL, (size_t)most_blocks * room, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (slots == MAP_FAILED || snapshots == MAP_FAILED) misuse("no memory");
    for (size_t i = 0; i < most_blocks; i++) {
        if (mprotect(slots + i * slot + page, room, PROT_READ | PROT_WRITE) != 0) misuse("no memory");
    }
}

/* The place of a block has no part in any other choice, so that placements can be compared. */
static inline unsigned char *place_block(unsigned char *start, size_t bytes, size_t element, uint64_t random) {
    int where = placement_for_all >= 0 ? placement_for_all : (int)(random % placements);
    size_t odd = element * (1 + random / placements % 40);
    if (where == at_start) return start;
    return where == at_odd_place && odd + bytes <= room ? start + odd : start + room - bytes;
}

/* Room for `runs` of `width` bytes, which *holder points to from now on. */
static inline block *take(void **holder, const char *name, size_t element, size_t runs, size_t width, size_t stride) {
    if (block_count == most_blocks) misuse("too many blocks");
    size_t bytes = runs > 0 && width > 0 ? (runs - 1) * stride + width : 0;
    if (bytes > room) misuse("a block is too large");
    unsigned char *start = slots + (size_t)block_count * (room + 2 * page) + page, *end = start + room;
    uint64_t random = noise();
    block *b = &blocks[block_count++];
    *b = (block){name, holder, place_block(start, bytes, element, random), runs, width, stride, bytes, element, 0, 0, 0, 0, 0};
    b->window = b->values - start > margin ? b->values - margin : start;
    b->window_bytes = (size_t)((end - b->values - (ptrdiff_t)bytes > margin ? b->values + bytes + margin : end) - b->window);
    /* The same bytes in the block wherever it lies. */
    for (size_t i = 0; i < b->window_bytes; i++) {
        b->window[i] = (unsigned char)(random >> 8 * ((size_t)(b->window + i - b->values) % 8));
    }
    *holder = b->values;
    return b;
}

static inline unsigned char *snapshot_of(const block *b) { return snapshots + (size_t)(b - blocks) * room; }

static inline void take_snapshots(void) {
    for (block *b = blocks; b < blocks + block_count; b++) memcpy(snapshot_of(b), b->window, b->window_bytes);
}

/* Says which bytes of a block a call wrote that it may not write; NULL if there are none. */
static inline const char *trespass(const block *b, int failed) {
    const unsigned char *before = snapshot_of(b), *after = b->window;
    size_t head = (size_t)(b->values - b->window), tail = head + b->bytes;
    if (failed && memcmp(before, after, b->window_bytes) != 0) return "was written by a call that failed";
    if (!b->is_output && memcmp(before, after, b->window_bytes) != 0) return "is an input, and was written";
    if (memcmp(before, after, head) != 0) return "was written before its start";
    if (memcmp(before + tail, after + tail, b->window_bytes - tail) != 0) return "was written behind its end";
    for (size_t run = 0; b->stride > b->width && run + 1 < b->runs; run++) {
        size_t gap = head + run * b->stride + b->width;
        if (memcmp(before + gap, after + gap, b->stride - b->width) != 0) return "was written in a gap";
    }
    return NULL;
}

#endif

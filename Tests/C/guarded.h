/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory between pages that may not be touched. */
#ifndef GUARDED_H
#define GUARDED_H

#include "problem.h"

#include <sys/mman.h>
#include <unistd.h>

enum { tensor_count = 12, margin = 0xA5 };

/* The place of a tensor between its guards: at their edge, or at an address that is aligned to its element alone. */
enum placement { at_start, at_end, at_odd_address, placements };

/* Readable pages between two that are not. */
typedef struct guarded {
    char *pages;
    char *values;
    size_t bytes, room;
} guarded;

enum { most_room = 1 << 16 }; /* bytes between the guards: a multiple of every page size in use */

/* With so many bytes between the guards, or with as many as a page has. */
static inline guarded make_guarded(size_t room) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    room = (room + page - 1) / page * page;
    char *memory = mmap(NULL, room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + page, room, PROT_READ | PROT_WRITE) != 0) abort();
    guarded g = {memory + page, NULL, 0, room};
    return g;
}

static inline void *place(guarded *g, enum placement where, const void *values, size_t bytes, size_t element) {
    g->bytes = bytes;
    g->values = where == at_end ? g->pages + g->room - bytes : g->pages + (where == at_odd_address ? 64 + element : 0);
    memset(g->pages, margin, g->room);
    return memcpy(g->values, values, bytes);
}

static inline int margins_are_intact(const guarded *g) {
    for (const char *p = g->pages; p < g->pages + g->room; p++) {
        int outside = p < g->values || p >= g->values + g->bytes;
        if (outside && *(const unsigned char *)p != margin) return 0;
    }
    return 1;
}

/* The same problem, with all its tensors in guarded memory. */
static inline problem guard(const problem *p, guarded *guards, enum placement where) {
    size_t element = size_of(p->dtype), tensor = p->elements * element, vector = p->shape.channels * element;
    size_t doubles = p->shape.channels * sizeof(double);
    problem g = *p;
    g.x = place(&guards[0], where, p->x, tensor, element);
    g.y = place(&guards[1], where, p->y, tensor, element);
    g.dy = place(&guards[2], where, p->dy, tensor, element);
    g.dx = place(&guards[3], where, p->dx, tensor, element);
    g.gamma = place(&guards[4], where, p->gamma, vector, element);
    g.beta = place(&guards[5], where, p->beta, vector, element);
    g.running_mean = place(&guards[6], where, p->running_mean, vector, element);
    g.running_var = place(&guards[7], where, p->running_var, vector, element);
    g.dgamma = place(&guards[8], where, p->dgamma, vector, element);
    g.dbeta = place(&guards[9], where, p->dbeta, vector, element);
    g.mean = place(&guards[10], where, p->mean, doubles, sizeof(double));
    g.invstd = place(&guards[11], where, p->invstd, doubles, sizeof(double));
    return g;
}

#endif

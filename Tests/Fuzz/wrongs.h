/* SPDX-License-Identifier: Apache-2.0
 *
 * One thing about a call that is wrong. The call may still not read or write memory that is not its own. */
#ifndef FUZZ_WRONGS_H
#define FUZZ_WRONGS_H

#include "strides.h"

enum { NOTHING, A_FIELD, A_DATUM, A_NULL, A_MISALIGNMENT, AN_OVERLAP };

/* must_fail: where no reading of the header lets the call succeed. */
typedef struct wrong {
    int kind, must_fail;
    const char *name;
    const block *moved, *base; /* of an overlap */
} wrong;

static wrong what_is_wrong;
static const wrong none = {NOTHING, 0, "nothing", NULL, NULL};

static inline size_t draw_far_too_large(void) { return ONE_OF(size_t, SIZE_MAX, SIZE_MAX - 7, SIZE_MAX / 2 + 1); }

static inline int spoil_field(const field *f) {
    int32_t other = (int32_t)(noise() >> 33);
    switch (f->kind) {
    case SIZE: *(size_t *)f->at = draw_far_too_large(); return 0;
    case CHANNELS: *(size_t *)f->at = percent(50) ? 0 : draw_far_too_large(); return 1;
    case GROUPS: *(size_t *)f->at = percent(50) ? 0 : draw_far_too_large(); return *(size_t *)f->at == 0;
    case STRUCT_SIZE: *(size_t *)f->at += ONE_OF(size_t, 1, 8, (size_t)-8, (size_t)-1, 4096); return 1;
    case STRIDE: *(size_t *)f->at = slice_of() > 1 && percent(50) ? slice_of() - 1 : draw_far_too_large(); return 0;
    case ROW_STRIDE:
        *(size_t *)f->at = k.shape.channels > 1 && percent(50) ? k.shape.channels - 1 : draw_far_too_large();
        return 1;
    case CHOICE: *(int32_t *)f->at = percent(50) ? other | 8 : -1 - other; return 1;
    case FLAG: *(int32_t *)f->at = percent(50) ? other | 2 : -1 - other; return 1;
    case NUMBER: *(double *)f->at = ONE_OF(double, NAN, -1, -HUGE_VAL, HUGE_VAL, 1e308); return isnan(*(double *)f->at);
    default: *(bn_dtype *)f->at = (bn_dtype)(percent(50) ? 5 + other : -1 - other); return 1;
    }
}

static inline int spoil_datum(const datum *d) {
    unsigned char *values = d->in->values;
    size_t count = values_in(d->in);
    if (count == 0) return 0;
    size_t i = below(count);
    switch (d->kind) {
    case GROUP: ((int32_t *)values)[i] = percent(50) ? -1 - (int32_t)below(9) : (int32_t)(k.groups.groups + below(9)); return 1;
    case LENGTH: ((size_t *)values)[i] = percent(50) ? SIZE_MAX : k.shape.inner + 1; return positions() > 0;
    case BATCHES: ((int64_t *)values)[i] = percent(50) ? -1 : INT64_MAX; return k.function == TRAINING;
    case WEIGHT: put_value(d->in, i, ONE_OF(double, -1, NAN, HUGE_VAL)); return 1;
    default: put_value(d->in, i, ONE_OF(double, -1, NAN, HUGE_VAL, 1e251, 1e-151)); return 1;
    }
}

static inline block *any_block(void) {
    block *b = &blocks[below((size_t)block_count)];
    return *b->holder == b->values ? b : NULL; /* NULL: left out by the call */
}

/* Backward and inference look at nothing that bn_running points to; backward at z and mask where an activation asks for
 * them. */
static inline int may_be_ignored(const block *b) { return k.function != TRAINING && strstr(b->name, "->") != NULL; }

/* One array moved on top of another. */
static inline wrong overlap(void) {
    block *moved = any_block(), *base = any_block();
    if (moved == NULL || base == NULL || moved == base || moved->is_shared) return none;
    if (moved->bytes == 0 || base->bytes < moved->bytes) return none;
    unsigned char *there = base->values + below((base->bytes - moved->bytes) / moved->element + 1) * moved->element;
    if ((uintptr_t)there % moved->element == 0) *moved->holder = there;
    return (wrong){AN_OVERLAP, 0, moved->name, moved, base};
}

static inline int are(const char *const pair[2], const char *a, const char *b) {
    return (strcmp(pair[0], a) == 0 && strcmp(pair[1], b) == 0) || (strcmp(pair[0], b) == 0 && strcmp(pair[1], a) == 0);
}

/* True if a call may have taken this overlap: two inputs, an output in the place of its input, or what the function
 * does not look at. Gaps belong to nobody. */
static inline int is_allowed(const wrong *w) {
    static const char *const in_place[][2] = {
        {"y", "x"}, {"dx", "dy"}, {"epilogue->dz", "dy"}, {"invstd", "m2"}, {"count", "counts"}, {"mean", "means"},
        {"m2", "m2s"}, {"y_tangent", "x_tangent"}, {"grad_dy", "grad_dx"}, {"grad_x", "dy"}, {"folded_bias", "bias"},
        {"folded_weight", "weight"},
    };
    const block *a = w->moved, *b = w->base;
    if (*a->holder == a->values) return 1; /* the alignment forbade it */
    if ((!a->is_output && !b->is_output) || may_be_ignored(a) || may_be_ignored(b)) return 1;
    if (a->stride > a->width || b->stride > b->width) return 1;
    for (size_t i = 0; i < sizeof in_place / sizeof in_place[0]; i++) {
        if (are(in_place[i], a->name, b->name)) return *a->holder == *b->holder;
    }
    return 0;
}

static inline wrong spoil(void) {
    block *b;
    if (k.function == LIBRARY || !percent(30)) return none;
    switch (between(A_FIELD, AN_OVERLAP)) {
    case A_FIELD:
        if (k.field_count == 0) return none;
        field *f = &k.fields[below((size_t)k.field_count)];
        return (wrong){A_FIELD, spoil_field(f), f->name, NULL, NULL};
    case A_DATUM:
        if (k.datum_count == 0) return none;
        datum *d = &k.data[below((size_t)k.datum_count)];
        return (wrong){A_DATUM, spoil_datum(d), d->in->name, NULL, NULL};
    case A_NULL:
        if ((b = any_block()) == NULL) return none;
        *b->holder = NULL;
        return (wrong){A_NULL, 0, b->name, NULL, NULL};
    case A_MISALIGNMENT:
        if ((b = any_block()) == NULL || b->element == 1) return none;
        *b->holder = b->values + (percent(70) ? 1 : -1);
        return (wrong){A_MISALIGNMENT, b->bytes > 0 && positions() > 0 && !may_be_ignored(b), b->name, NULL, NULL};
    default: return overlap();
    }
}

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * Tensors by sizes and strides: dense ones in some order, slices of larger ones, and now and then what none can be. */
#ifndef FUZZ_STRIDES_H
#define FUZZ_STRIDES_H

#include "steps.h"

enum { most_axes = 6, most_tensors = 4 };

/* A dense tensor in an order of its axes, with a gap below one of them. */
static inline void put_strides(int64_t *strides, const int64_t *sizes, const size_t *order, size_t gap_below) {
    uint64_t next = 1;
    for (size_t i = k.rank; i-- > 0;) {
        strides[order[i]] = (int64_t)next;
        next *= sizes[order[i]] > 0 ? (uint64_t)sizes[order[i]] : 1;
        if (i == gap_below) next += between(1, 9);
    }
}

static inline void draw_shape_from_strides(void) {
    k.rank = between(1, most_axes), k.tensors = between(1, most_tensors);
    k.axis = below(k.rank), k.axes = between(1, k.rank - k.axis);
    k.samples_outermost = k.axis > 0 && percent(30);
    k.may_refuse = 1; /* for the order that is drawn */
    FIELD(rank, SIZE), FIELD(axis, SIZE), FIELD(axes, SIZE), FIELD(tensors, SIZE), FIELD(samples_outermost, FLAG);
    int64_t *sizes = (int64_t *)take_bytes(&k.sizes, "sizes", 8, k.rank, IN)->values;
    int64_t *strides = (int64_t *)take_bytes(&k.strides, "strides", 8, k.rank * k.tensors, IN)->values;
    size_t order[most_axes];
    for (size_t i = 0; i < k.rank; i++) {
        sizes[i] = (int64_t)(percent(96) ? between(1, 5) : ONE_OF(size_t, 0, (size_t)-1, SIZE_MAX / 2, (size_t)1 << 40));
        order[i] = i;
    }
    for (size_t i = k.rank; percent(60) && i-- > 1;) {
        size_t other = below(i + 1), kept = order[i];
        order[i] = order[other], order[other] = kept;
    }
    size_t gap_below = percent(30) ? k.axis : percent(10) ? below(k.rank) : k.rank;
    for (size_t t = 0; t < k.tensors; t++) put_strides(strides + t * k.rank, sizes, order, percent(50) ? gap_below : k.rank);
    if (percent(10)) strides[below(k.rank * k.tensors)] = ONE_OF(int64_t, 0, -1, 1, 2, INT64_MAX, INT64_MIN);
    take_bytes(&k.found, "shape", 8, sizeof(bn_shape) / 8, OUT);
    if (percent(80)) take_bytes(&k.outer_strides, "outer_strides", 8, k.tensors, OUT);
}

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * Layers of samples in groups: in every place that they may lie, with a row for each of whatever may have one. */
#ifndef GROUPED_H
#define GROUPED_H

#include "agrees.h"

enum { contiguous, interleaved, indexed, layouts };

/* Samples, outer indices of each, channels and inner extent: NCHW, small and with rows of channels; NC; NHWC. */
static const size_t shapes[][4] = {{12, 1, 3, 49}, {12, 1, 5, 3}, {24, 1, 37, 1}, {12, 25, 7, 1}, {12, 300, 3, 1},
                                   {6, 2, 4, 9}};
enum { shape_count = sizeof shapes / sizeof shapes[0] };

static const int32_t per_groups[] = {
    BN_PER_GROUP_STATISTICS,
    BN_PER_GROUP_STATISTICS | BN_PER_GROUP_RUNNING,
    BN_PER_GROUP_STATISTICS | BN_PER_GROUP_PARAMETERS,
    BN_PER_GROUP_STATISTICS | BN_PER_GROUP_RUNNING | BN_PER_GROUP_PARAMETERS,
    BN_PER_GROUP_PARAMETERS,
};
enum { per_group_count = sizeof per_groups / sizeof per_groups[0] };

/* Gives every group some samples, but for the first and the last if there are to be absent ones. */
static inline void choose_index(layer *l, int has_absent) {
    int32_t *index = l->arrays[INDEX];
    size_t groups = l->groups.groups, used = has_absent ? groups - 2 : groups, least = l->groups.samples / (2 * used);
    for (size_t s = 0; index != NULL && s < l->groups.samples; s++) {
        size_t group = s < least * used ? s / least : random_bits() % used;
        index[s] = (int32_t)(has_absent ? group + 1 : group); /* the first group is absent, and the last */
    }
    for (size_t s = l->groups.samples; index != NULL && s > 1; s--) {
        size_t other = random_bits() % s;
        int32_t swapped = index[s - 1];
        index[s - 1] = index[other], index[other] = swapped;
    }
}

/* The first and the last position of every sample get a weight, so that no group is a single value by chance. */
static inline void weigh_ends(layer *l) {
    size_t positions = l->shape.outer * l->shape.inner, length = positions / l->groups.samples;
    bn_dtype number = l->dtype == BN_FLOAT64 ? BN_FLOAT64 : BN_FLOAT32;
    for (size_t first = 0; l->arrays[WEIGHTS] != NULL && first < positions; first += length) {
        put(number, l->arrays[WEIGHTS], first, 1);
        put(number, l->arrays[WEIGHTS], first + length - 1, 1);
    }
}

static inline layer grouped(int shape, int layout, int32_t per_group, size_t groups, bn_dtype dtype, int with) {
    const size_t *e = shapes[shape];
    with |= WITH_GROUPS | (layout == indexed ? WITH_INDEX : 0);
    layer l = layer_of(e[0] * e[1], e[2], e[3], dtype, with);
    l.groups.samples = e[0];
    l.groups.groups = groups;
    l.groups.per_group = per_group;
    l.groups.interleaved = layout == interleaved;
    return l;
}

static inline void each_case(int with, int has_absent, void (*prepare)(layer *l), void (*agrees)(layer *l)) {
    for (int s = 0; s < shape_count; s++) {
        for (int layout = has_absent ? indexed : contiguous; layout < layouts; layout++) {
            for (int p = 0; p < per_group_count; p++) {
                for (int d = 0; d < all_dtype_count; d++) {
                    size_t groups = has_absent ? 5 : 3;
                    layer l = grouped(s, layout, per_groups[p], groups, all_dtypes[d], with);
                    size_t slice = l.shape.channels * l.shape.inner;
                    if (d % 2) {
                        l.shape.x_stride = slice + 3, l.shape.y_stride = slice + 1, l.shape.dx_stride = slice + 5;
                    }
                    if (prepare != NULL) prepare(&l);
                    make_arrays(&l);
                    choose_index(&l, has_absent);
                    weigh_ends(&l);
                    agrees(&l);
                    free_arrays(&l);
                }
            }
        }
    }
}

#endif

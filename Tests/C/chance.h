/* SPDX-License-Identifier: Apache-2.0
 *
 * Layers with whatever descriptors chance gives them, in shapes that chance gives. */
#ifndef CHANCE_H
#define CHANCE_H

#include "layer.h"

static inline size_t below(size_t end) {
    return (size_t)(random_bits() % end);
}

/* Extents of which the smallest are the most frequent. */
static inline size_t extent(size_t most) {
    return 1 + below(1 + below(1 + below(most)));
}

static inline int32_t choose_per_group(void) {
    static const int32_t all[] = {1, 3, 4, 5, 7};
    return all[below(5)];
}

static inline void choose_groups(layer *l) {
    size_t length = extent(5), groups = 1 + below(4), members = 1 + below(4);
    l->shape.outer = length * groups * members;
    l->groups.samples = groups * members;
    l->groups.groups = l->with & WITH_INDEX ? 1 + below(5) : groups;
    l->groups.per_group = choose_per_group();
    l->groups.interleaved = (l->with & WITH_INDEX) == 0 && below(2);
    l->groups.averaged = (l->groups.per_group & 3) == 1 && below(2);
}

static inline void choose_epilogue(layer *l) {
    int is_bit = (l->with & WITH_MASK) != 0;
    l->epilogue.activation = (bn_activation)below(is_bit ? BN_CLIP + 1 : BN_SILU + 1);
    l->epilogue.slope = 0.125 * (double)(1 + below(10));
    l->epilogue.low = random_value() - 1, l->epilogue.high = random_value() + 1;
    int is_undone = l->epilogue.activation == BN_IDENTITY || l->epilogue.activation == BN_LEAKY_RELU;
    int is_shared = (l->with & WITH_GROUPS) != 0 && l->groups.per_group == BN_PER_GROUP_PARAMETERS;
    int has_others = (l->with & (WITH_Z | WITH_SOURCE | WITH_MASK)) != 0;
    l->epilogue.from_output = is_undone && !is_shared && !has_others && below(2);
}

static inline void choose_source(layer *l) {
    int is_shared = (l->with & WITH_GROUPS) != 0 && (l->groups.per_group & 3) == 1;
    l->source.kind = (bn_source_kind)below(is_shared ? BN_SOURCE_RENORM + 1 : BN_SOURCE_UPDATED + 1);
    l->source.pseudo_count = (double)below(100);
    l->source.r_min = 0.25 * (double)below(5), l->source.r_max = 1 + 0.25 * (double)below(5);
    l->source.d_max = 0.25 * (double)below(5);
}

static inline size_t gap(void) {
    return below(2) ? below(20) : 0;
}

static inline layer choose_layer(void) {
    int with = (int)(random_bits() & random_bits() & 511);
    if (with & (WITH_Z | WITH_MASK)) with |= WITH_EPILOGUE;
    if (with & WITH_NEW) with |= WITH_RUNNING;
    if (with & WITH_INDEX) with |= WITH_GROUPS;
    layer l = layer_of(extent(200), extent(80), below(3) ? extent(300) : 1, all_dtypes[below(all_dtype_count)], with);
    if (with & WITH_GROUPS) choose_groups(&l);
    if (with & WITH_EPILOGUE) choose_epilogue(&l);
    if (with & WITH_SOURCE) choose_source(&l);
    size_t slice = l.shape.channels * l.shape.inner;
    l.shape.x_stride = slice + gap(), l.shape.y_stride = slice + gap(), l.shape.dx_stride = slice + gap();
    l.epilogue.z_stride = slice + gap(), l.epilogue.dz_stride = slice + gap();
    l.weights.masked = (bn_masked)below(3);
    l.running.average = with & WITH_RUNNING ? (bn_average)below(5) : BN_AVERAGE_EXPONENTIAL;
    l.running.nonfinite = (bn_nonfinite)below(3);
    l.options.momentum = 0.125 * (double)(1 + below(8));
    l.options.biased_running_var = (with & WITH_WEIGHTS) != 0 || below(2);
    if (below(4) == 0) l.param = l.options.param_dtype = l.dtype == BN_FLOAT64 ? BN_FLOAT32 : BN_FLOAT64;
    return l;
}

static inline void show(const layer *l) {
    fprintf(stderr, "%zu x %zu x %zu, strides %zu %zu %zu %zu %zu, with %d, activation %d, from_output %d, masked %d\n",
            l->shape.outer, l->shape.channels, l->shape.inner, l->shape.x_stride, l->shape.y_stride, l->shape.dx_stride,
            l->epilogue.z_stride, l->epilogue.dz_stride, l->with, (int)l->epilogue.activation, l->epilogue.from_output,
            (int)l->weights.masked);
    fprintf(stderr, "source %d, %zu samples, %zu groups, per_group %d, interleaved %d, averaged %d, param_dtype %d\n",
            (int)l->source.kind, l->groups.samples, l->groups.groups, l->groups.per_group, l->groups.interleaved,
            l->groups.averaged, (int)l->options.param_dtype);
}

#endif

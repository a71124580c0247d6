/* SPDX-License-Identifier: Apache-2.0
 *
 * Extents, strides, types and weights, as any function with a bn_shape takes them. */
#ifndef FUZZ_SHAPES_H
#define FUZZ_SHAPES_H

#include "call.h"

enum { most_elements = 300000 };

/* Small and odd ones, narrow and long ones, and now and then one that is worth several threads. */
static inline void draw_extents(void) {
    size_t outer = 1, channels = 1, inner = 1, choice = below(100);
    if (choice < 50) outer = below(7), channels = between(1, 9), inner = below(12);
    else if (choice < 70) outer = below(300), channels = between(1, 70);
    else if (choice < 88) outer = below(9), channels = between(1, 20), inner = below(700);
    else if (choice < 97) outer = between(1, 40), channels = between(1, 40), inner = between(1, 20);
    else {
        outer = between(1, 60), channels = between(1, 64);
        inner = between(1, most_elements / (outer * channels));
        if (percent(30)) outer *= inner, inner = 1;
    }
    if (percent(92)) outer += outer == 0, inner += inner == 0;
    if (percent(90)) outer += outer * inner == 1;
    k.shape = (bn_shape)BN_SHAPE(outer, channels, inner);
    k.channels = channels;
}

static inline void add_fields_of_shape(void) {
    switch (k.function) {
    case MERGE: FIELD(parts, SIZE); /* fall through */
    case INVERSE_STD: case UPDATE: case SCALE_SHIFT: FIELD(channels, CHANNELS); break;
    case STRIDES: return;
    case LENGTHS: FIELD(shape.outer, SIZE), FIELD(shape.inner, SIZE); break;
    default:
        FIELD(shape.struct_size, STRUCT_SIZE), FIELD(shape.outer, SIZE), FIELD(shape.channels, CHANNELS);
        FIELD(shape.inner, SIZE), FIELD(shape.x_stride, STRIDE), FIELD(shape.y_stride, STRIDE);
        FIELD(shape.dx_stride, STRIDE);
    }
    if (k.function != MERGE && k.function != INVERSE_STD) FIELD(dtype, DTYPE);
}

static inline void draw_dtypes(void) {
    k.dtype = (bn_dtype)between(BN_FLOAT32, BN_BFLOAT16);
    if (positions() * k.shape.channels > 200000 && k.dtype == BN_FLOAT64) k.dtype = BN_FLOAT32;
    k.param = k.dtype == BN_FLOAT64 ? BN_FLOAT64 : BN_FLOAT32;
}

/* 0, dense, or up to 40 elements more than that. */
static inline size_t draw_stride(void) {
    size_t slice = slice_of(), gap = percent(25) ? below(40) : 0, shown = percent(10);
    if (slice == 0 || k.shape.outer * (slice + 40) * size_of(k.dtype) > room) return 0;
    return gap > 0 ? slice + gap : shown ? slice : 0;
}

static inline void draw_weights(void) {
    bn_dtype number = k.dtype == BN_FLOAT64 ? BN_FLOAT64 : BN_FLOAT32;
    static const double all[] = {0, 1, 0.5, 1e-40, 3e38, 6e-8, 2};
    k.weights = (bn_weights)BN_WEIGHTS_INIT;
    k.weights.masked = (bn_masked)below(3);
    block *b = take_vector((void **)&k.weights.values, "weights->values", number, positions(), IN);
    size_t choice = below(6);
    for (size_t i = 0; i < positions(); i++) {
        double ones_and_zeros[] = {1, (double)(noise() % 2), noise() % 5 != 0};
        double others[] = {(double)(noise() % 1000) / 100, 0, all[noise() % 7]};
        put_value(b, i, choice < 3 ? ones_and_zeros[choice] : others[choice - 3]);
    }
    k.shape.weights = &k.weights;
    FIELD(weights.struct_size, STRUCT_SIZE), FIELD(weights.masked, CHOICE), FIELD(weights.reserved, FLAG);
    add_datum(b, WEIGHT);
}

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * One call of a function: its arguments, by the names that the header has for them, and what of them can be made wrong. */
#ifndef FUZZ_CALL_H
#define FUZZ_CALL_H

#include "values.h"

enum function {
    TRAINING, INFERENCE, BACKWARD, MOMENTS, MERGE, INVERSE_STD, NORMALIZE, REDUCE, APPLY, UPDATE, LENGTHS, JVP,
    DOUBLE_BACKWARD, SCALE_SHIFT, FOLD_PREVIOUS, FOLD_NEXT, STRIDES, LIBRARY, function_count
};

static const char *const function_names[function_count] = {
    "bn_forward_training", "bn_forward_inference", "bn_backward", "bn_moments", "bn_merge_moments", "bn_inverse_std",
    "bn_normalize", "bn_backward_reduce", "bn_backward_apply", "bn_update_running", "bn_length_weights", "bn_jvp",
    "bn_double_backward", "bn_scale_shift", "bn_fold_into_previous", "bn_fold_into_next",
    "bn_shape_from_strides", "the library",
};

/* A member of a structure, or an argument that is passed by value. */
enum field_kind { SIZE, CHANNELS, GROUPS, STRUCT_SIZE, STRIDE, ROW_STRIDE, CHOICE, FLAG, NUMBER, DTYPE };
typedef struct field {
    void *at;
    enum field_kind kind;
    const char *name;
} field;

/* Numbers in a block that are looked at before the call computes. */
enum datum_kind { GROUP, WEIGHT, COUNT, LENGTH, BATCHES };
typedef struct datum {
    const block *in;
    enum datum_kind kind;
} datum;

enum { most_fields = 64, most_data = 8 };

static struct call {
    enum function function;
    bn_shape shape;
    bn_weights weights;
    bn_options options;
    bn_epilogue epilogue;
    bn_running running;
    bn_source source;
    bn_groups groups;
    bn_dtype dtype, param;
    size_t parts, channels; /* of calls without a shape */
    size_t stride;          /* of rows */
    size_t rank, axis, axes, tensors;
    int32_t samples_outermost;
    void *shape_at, *options_at; /* NULL for options: the defaults */
    int has_options, may_refuse; /* may_refuse: for what the values are */
    field fields[most_fields];
    datum data[most_data];
    int field_count, datum_count;

    void *x, *y, *dy, *dx, *gamma, *beta, *running_mean, *running_var, *dgamma, *dbeta;
    void *mean, *invstd, *count, *m2, *sum_dy, *sum_dy_x_hat, *counts, *means, *m2s;
    void *lengths, *length_weights;
    void *x_tangent, *gamma_tangent, *beta_tangent, *y_tangent;
    void *grad_dx, *grad_dgamma, *grad_dbeta, *grad_dy, *grad_x, *grad_gamma;
    void *sizes, *strides, *found, *outer_strides;
    void *weight, *bias, *scale, *shift, *folded_weight, *folded_bias;
} k;

static inline void add_field(void *at, enum field_kind kind, const char *name) {
    if (k.field_count == most_fields) misuse("too many fields");
    k.fields[k.field_count++] = (field){at, kind, name};
}
#define FIELD(member, kind) add_field(&k.member, kind, #member)

static inline void add_datum(const block *in, enum datum_kind kind) {
    if (k.datum_count == most_data) misuse("too many data");
    k.data[k.datum_count++] = (datum){in, kind};
}

static inline size_t slice_of(void) { return k.shape.channels * k.shape.inner; }
static inline size_t positions(void) { return k.shape.outer * k.shape.inner; }

/* Inputs are filled; outputs keep what their room was filled with. */
static inline block *finish_block(block *b, bn_dtype dtype, int is_output, enum kind kind) {
    b->dtype = dtype;
    b->is_output = is_output;
    if (!is_output) fill_block(b, kind);
    return b;
}

static inline block *take_tensor(void **holder, const char *name, size_t stride, int is_output) {
    size_t element = size_of(k.dtype), slice = slice_of() * element;
    size_t apart = stride == 0 ? slice : stride * element;
    block *b = take(holder, name, element, slice == 0 ? 0 : k.shape.outer, slice, apart);
    return finish_block(b, k.dtype, is_output, draw_kind());
}

static inline block *take_vector(void **holder, const char *name, bn_dtype dtype, size_t length, int is_output) {
    size_t bytes = length * size_of(dtype);
    return finish_block(take(holder, name, size_of(dtype), 1, bytes, bytes), dtype, is_output, draw_kind());
}

static inline block *take_bytes(void **holder, const char *name, size_t element, size_t length, int is_output) {
    block *b = take(holder, name, element, 1, length * element, length * element);
    b->is_output = is_output;
    return b;
}

#define IN 0
#define OUT 1
#define TENSOR(member, stride, role) take_tensor(&k.member, #member, stride, role)
#define PARAMETER(member, rows, role) take_vector(&k.member, #member, k.param, (rows) * k.shape.channels, role)
#define DOUBLES(member, rows, role) take_vector(&k.member, #member, BN_FLOAT64, (rows) * k.shape.channels, role)

/* An output in the place of an input, which is taken for it. */
static inline void *in_place(block *b) {
    b->is_output = OUT, b->is_shared = 1;
    return b->values;
}

/* Rows of doubles, as far apart as k.stride says. */
static inline block *take_rows(void **holder, const char *name, size_t rows, int is_output) {
    size_t width = k.shape.channels * sizeof(double), apart = k.stride == 0 ? width : k.stride * sizeof(double);
    return finish_block(take(holder, name, sizeof(double), rows, width, apart), BN_FLOAT64, is_output, draw_kind());
}
#define ROWS(member, rows, role) take_rows(&k.member, #member, rows, role)

static inline void fill_counts(const block *b, int may_be_zero) {
    for (size_t i = 0; i < values_in(b); i++) {
        static const double counts[] = {0, 1, 2, 5, 100, 1.5, 0.5, 9007199254740992.0, 1e250, 1e-150};
        double count = counts[noise() % 10];
        put_value(b, i, count == 0 && !may_be_zero ? 3 : count);
    }
    add_datum(b, COUNT);
}

static inline void take_counts(void **holder, const char *name, size_t length, int may_be_zero) {
    fill_counts(take_vector(holder, name, BN_FLOAT64, length, IN), may_be_zero);
}

#endif

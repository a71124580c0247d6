/* SPDX-License-Identifier: Apache-2.0
 *
 * The steps, the derivatives and folding. */
#ifndef FUZZ_STEPS_H
#define FUZZ_STEPS_H

#include "layers.h"

/* 0, dense, or some doubles more than that; it is there beside no options as well. */
static inline void draw_row_stride(void) {
    k.stride = percent(50) ? 0 : k.shape.channels + below(2 * k.shape.channels + 3);
    FIELD(stride, ROW_STRIDE);
}

static inline void draw_step_options(void) {
    draw_options();
    if (percent(18)) draw_weights();
    if (percent(30)) draw_groups();
}

static inline void draw_moments(void) {
    draw_step_options(), draw_row_stride();
    k.shape.x_stride = draw_stride();
    TENSOR(x, k.shape.x_stride, IN);
    ROWS(count, statistics_rows(), OUT), ROWS(mean, statistics_rows(), OUT), ROWS(m2, statistics_rows(), OUT);
}

/* The outputs may be the first rows of the inputs. */
static inline void draw_merge(void) {
    k.parts = below(6);
    draw_row_stride();
    block *counts = ROWS(counts, k.parts, IN), *means = ROWS(means, k.parts, IN), *m2s = ROWS(m2s, k.parts, IN);
    fill_counts(counts, 1);
    if (k.parts > 0 && percent(30)) {
        k.count = in_place(counts), k.mean = in_place(means), k.m2 = in_place(m2s);
    } else {
        DOUBLES(count, 1, OUT), DOUBLES(mean, 1, OUT), DOUBLES(m2, 1, OUT);
    }
}

static inline void draw_inverse_std(void) {
    draw_options();
    take_counts(&k.count, "count", k.channels, 1);
    block *m2 = DOUBLES(m2, 1, IN);
    if (percent(40)) k.invstd = in_place(m2);
    else DOUBLES(invstd, 1, OUT);
}

static inline void draw_mean_and_invstd(void) {
    DOUBLES(mean, statistics_rows(), IN), make_positive(DOUBLES(invstd, statistics_rows(), IN));
}

static inline void draw_normalize(void) {
    draw_step_options();
    if (percent(35)) draw_epilogue();
    draw_x_and_y(1);
    draw_mean_and_invstd();
}

static inline void draw_reduce(void) {
    draw_step_options(), draw_row_stride();
    k.shape.x_stride = draw_stride(), k.shape.y_stride = draw_stride();
    TENSOR(dy, k.shape.y_stride, IN), TENSOR(x, k.shape.x_stride, IN);
    draw_mean_and_invstd();
    size_t groups = k.options.groups == NULL ? 1 : k.groups.groups;
    ROWS(sum_dy, groups, OUT), ROWS(sum_dy_x_hat, groups, OUT);
}

static inline void draw_apply(void) {
    draw_step_options();
    draw_dy_x_and_dx(1);
    if (percent(75)) PARAMETER(gamma, parameter_rows(), IN);
    draw_mean_and_invstd();
    take_counts(&k.count, "count", statistics_rows() * k.channels, 0);
    DOUBLES(sum_dy, statistics_rows(), IN), DOUBLES(sum_dy_x_hat, statistics_rows(), IN);
}

static inline void draw_update(void) {
    draw_options();
    k.options.param_dtype = (bn_dtype)0; /* the statistics are of the call's type */
    k.param = k.dtype;
    take_counts(&k.count, "count", k.channels, 1);
    DOUBLES(mean, 1, IN), make_positive(DOUBLES(m2, 1, IN));
    draw_running_statistics(OUT);
}

static inline void draw_length_weights(void) {
    bn_dtype number = k.dtype == BN_FLOAT64 ? BN_FLOAT64 : BN_FLOAT32;
    block *b = take_bytes(&k.lengths, "lengths", sizeof(size_t), k.shape.outer, IN);
    for (size_t i = 0; i < k.shape.outer; i++) ((size_t *)b->values)[i] = noise() % (k.shape.inner + 1);
    add_datum(b, LENGTH);
    take_vector(&k.length_weights, "weights", number, positions(), OUT);
}

static inline void draw_jvp(void) {
    draw_options();
    if (percent(30)) draw_groups();
    k.shape.x_stride = draw_stride(), k.shape.y_stride = draw_stride(), k.shape.dx_stride = draw_stride();
    int is_in_place = percent(25);
    if (is_in_place) k.shape.y_stride = k.shape.dx_stride;
    TENSOR(x, k.shape.x_stride, IN);
    if (is_in_place) k.y_tangent = in_place(TENSOR(x_tangent, k.shape.dx_stride, IN));
    else TENSOR(y_tangent, k.shape.y_stride, OUT);
    if (!is_in_place && percent(75)) TENSOR(x_tangent, k.shape.dx_stride, IN);
    if (percent(75)) PARAMETER(gamma, parameter_rows(), IN);
    if (percent(75)) PARAMETER(gamma_tangent, parameter_rows(), IN);
    if (percent(75)) PARAMETER(beta_tangent, parameter_rows(), IN);
    draw_mean_and_invstd();
}

static inline void draw_double_backward(void) {
    draw_options();
    if (percent(30)) draw_groups();
    /* Shared statistics, which have to be constants. */
    k.may_refuse = k.options.groups != NULL && (k.groups.per_group & 5) == 4 && !k.options.frozen;
    k.shape.x_stride = draw_stride(), k.shape.y_stride = draw_stride(), k.shape.dx_stride = draw_stride();
    int is_of_grad_dx = percent(20), is_of_dy = percent(20);
    if (is_of_grad_dx || is_of_dy) k.shape.dx_stride = k.shape.y_stride;
    block *dy = TENSOR(dy, k.shape.y_stride, IN);
    TENSOR(x, k.shape.x_stride, IN);
    block *grad_dx = is_of_grad_dx || percent(80) ? TENSOR(grad_dx, k.shape.dx_stride, IN) : NULL;
    if (is_of_grad_dx) k.grad_dy = in_place(grad_dx);
    else if (percent(80)) TENSOR(grad_dy, k.shape.y_stride, OUT);
    if (is_of_dy) k.grad_x = in_place(dy);
    else if (percent(80)) TENSOR(grad_x, k.shape.dx_stride, OUT);
    if (percent(75)) PARAMETER(grad_dgamma, parameter_rows(), IN);
    if (percent(75)) PARAMETER(grad_dbeta, parameter_rows(), IN);
    if (percent(75)) PARAMETER(gamma, parameter_rows(), IN);
    if (percent(75)) PARAMETER(grad_gamma, parameter_rows(), OUT);
    draw_mean_and_invstd();
}

static inline void draw_scale_shift(void) {
    draw_options();
    k.options.param_dtype = (bn_dtype)0;
    k.param = k.dtype;
    k.may_refuse = 1; /* a variance that is negative, or NaN */
    if (percent(75)) PARAMETER(gamma, 1, IN);
    if (percent(75)) PARAMETER(beta, 1, IN);
    draw_running_statistics(IN);
    DOUBLES(scale, 1, OUT), DOUBLES(shift, 1, OUT);
}

static inline void draw_fold(void) {
    size_t biases = k.function == FOLD_NEXT ? k.shape.outer : k.shape.channels;
    k.shape.x_stride = draw_stride(), k.shape.y_stride = draw_stride();
    int is_weight = percent(25), is_bias = percent(25);
    if (is_weight) k.shape.y_stride = k.shape.x_stride;
    block *weight = TENSOR(weight, k.shape.x_stride, IN);
    if (is_weight) k.folded_weight = in_place(weight);
    else TENSOR(folded_weight, k.shape.y_stride, OUT);
    if (is_bias) k.folded_bias = in_place(take_vector(&k.bias, "bias", k.dtype, biases, IN));
    else take_vector(&k.folded_bias, "folded_bias", k.dtype, biases, OUT);
    if (!is_bias && percent(75)) take_vector(&k.bias, "bias", k.dtype, biases, IN);
    DOUBLES(scale, 1, IN), DOUBLES(shift, 1, IN);
}

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * bn_jvp and bn_double_backward of a layer: what bn_backward writes is given here, and what it does not take is
 * written. */
#ifndef DERIVATIVES_H
#define DERIVATIVES_H

#include "layer.h"

static inline layer derivative_of(size_t outer, size_t channels, size_t inner, bn_dtype dtype, int frozen) {
    layer l = layer_of(outer, channels, inner, dtype, WITH_Z);
    l.options.frozen = frozen;
    return l;
}

/* The index of value i of a channel in a dense tensor. */
static inline size_t value_of(const layer *l, size_t channel, size_t i) {
    return (i / l->shape.inner * l->shape.channels + channel) * l->shape.inner + i % l->shape.inner;
}

/* The nearest element. */
static inline double rounded_to(bn_dtype dtype, double value) {
    double memory;
    put(dtype, &memory, 0, value);
    return get(dtype, &memory, 0);
}

/* Mean and invstd of x as it is, or with frozen the running statistics. */
static inline void find_statistics(layer *l) {
    size_t count = l->shape.outer * l->shape.inner;
    for (size_t c = 0; c < l->shape.channels; c++) {
        long double mean = 0, var = 0;
        for (size_t i = 0; i < count; i++) mean += element(l, X, value_of(l, c, i));
        if (count > 0) mean /= (long double)count;
        for (size_t i = 0; i < count; i++) {
            long double deviation = element(l, X, value_of(l, c, i)) - mean;
            var += deviation * deviation / (long double)count;
        }
        if (l->options.frozen) mean = parameter(l, RUNNING_MEAN, c), var = parameter(l, RUNNING_VAR, c);
        var += l->options.eps;
        ((double *)l->arrays[SAVED_MEAN])[c] = (double)mean;
        ((double *)l->arrays[SAVED_INVSTD])[c] = var == 0 ? 0 : (double)(1 / sqrtl(var));
    }
}

static inline void fill_directions(layer *l) {
    fill(l, GRAD_DX, l->dtype, 0.125, 1);
    fill(l, GRAD_DGAMMA, l->param, 0.25, 1);
    fill(l, GRAD_DBETA, l->param, -0.5, 1);
}

static inline void make_derivative(layer *l) {
    l->epilogue.z_stride = l->shape.y_stride, l->epilogue.dz_stride = l->shape.dx_stride;
    make_arrays(l);
    fill_directions(l);
    find_statistics(l);
}

static inline bn_status run_jvp(layer *l) {
    void **a = l->arrays;
    return bn_jvp(&l->shape, l->dtype, a[X], a[GRAD_DX], a[GAMMA], a[GRAD_DGAMMA], a[GRAD_DBETA], a[SAVED_MEAN],
                  a[SAVED_INVSTD], a[Y_TANGENT], &l->options);
}

static inline bn_status run_double_backward(layer *l) {
    void **a = l->arrays;
    return bn_double_backward(&l->shape, l->dtype, a[GRAD_DX], a[GRAD_DGAMMA], a[GRAD_DBETA], a[DY], a[X], a[GAMMA],
                              a[SAVED_MEAN], a[SAVED_INVSTD], a[GRAD_DY], a[GRAD_X], a[GRAD_GAMMA], &l->options);
}

/* An array that is not there: NULL for the calls, and nothing to be compared. */
static inline void leave_out(layer *l, int array) {
    free(l->arrays[array]);
    l->arrays[array] = NULL;
    l->bytes[array] = 0;
}

#endif

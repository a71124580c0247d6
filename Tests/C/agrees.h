/* SPDX-License-Identifier: Apache-2.0
 *
 * Compares what a layer gives with the oracle: each value, within a few roundings. */
#ifndef AGREES_H
#define AGREES_H

#include "oracle.h"

/* The distance that two correct results may have, for values of this size. The inputs are a few units large and well
 * conditioned, so that some dozens of roundings are generous; the output of a 16-bit tensor is rounded once more,
 * and is a multiple of 2^-24 where it is small. */
static inline double tolerance(bn_dtype dtype, double magnitude) {
    double number = dtype == BN_FLOAT64 ? 0x1p-53 : 0x1p-24;
    double allowed = 64 * number * (4 + magnitude);
    if (dtype == BN_FLOAT16) allowed += 0x1p-11 * magnitude + 0x1p-25;
    if (dtype == BN_BFLOAT16) allowed += 0x1p-8 * magnitude;
    return allowed;
}

static inline void check_close(const layer *l, double result, double expected, double magnitude, const char *what,
                               size_t i) {
    int is_same = result == expected || (isnan(result) && isnan(expected));
    double allowed = tolerance(l->dtype, magnitude);
    CHECK(is_same || fabs(result - expected) <= allowed, "%s[%zu] is %.9g, expected %.9g +- %.2g (%s, %zu x %zu x %zu)",
          what, i, result, expected, allowed, name_of(l->dtype), l->shape.outer, l->shape.channels, l->shape.inner);
}

/* Checks a parameter, which may have another type than the tensors. */
static inline void check_parameter(const layer *l, double result, double expected, double magnitude, const char *what,
                                   size_t i) {
    double allowed = fmax(tolerance(l->dtype, magnitude), tolerance(l->param, fabs(expected)));
    int is_same = result == expected || (isnan(result) && isnan(expected)) || fabs(result - expected) <= allowed;
    CHECK(is_same, "%s[%zu] is %.9g, expected %.9g +- %.2g (%s, %zu x %zu x %zu)", what, i, result, expected, allowed,
          name_of(l->dtype), l->shape.outer, l->shape.channels, l->shape.inner);
}

static inline void check_tensor(const layer *l, enum array tensor, const double *expected) {
    for (size_t i = 0; i < elements_of(l); i++) {
        double value = element(l, tensor, i);
        check_close(l, value, expected[i], fabs(expected[i]), array_names[tensor], i);
    }
    size_t size = size_of(l->dtype), slice = l->shape.channels * l->shape.inner, stride = stride_of(l, tensor);
    for (size_t n = 0; n < l->shape.outer; n++) {
        const unsigned char *gap = (const unsigned char *)l->arrays[tensor] + (n * stride + slice) * size;
        for (size_t b = 0; b < (stride - slice) * size; b++) {
            if (gap[b] != 0xA5) CHECK(0, "%s: written behind slice %zu", array_names[tensor], n);
        }
    }
}

static inline void check_bits(const oracle *o) {
    const layer *l = o->l;
    const uint8_t *mask = l->arrays[MASK];
    for (size_t i = 0; i < elements_of(l); i++) {
        if (is_near_kink(&l->epilogue, l->dtype, o->u[i]) || !takes_part(l, i)) continue;
        int is_below = l->epilogue.activation == BN_LEAKY_RELU && o->u[i] <= 0; /* also if the slope is 1 */
        int bit = mask[i / 8] >> i % 8 & 1, expected = o->derivative[i] == 1 && !is_below;
        CHECK(bit == expected, "bit %zu is %d, where u is %g", i, bit, o->u[i]);
    }
}

/* Checks all outputs of a forward call in training, but for saved_mean and saved_invstd of a call with a source: the
 * library is free to choose those. */
static inline void check_training(const oracle *o) {
    const layer *l = o->l;
    size_t channels = l->shape.channels, rows = rows_of(l, BN_PER_GROUP_STATISTICS);
    check_tensor(l, Y, o->y);
    for (size_t i = 0; i < rows * channels && (l->with & WITH_SOURCE) == 0; i++) {
        const normalizer *n = &o->normalizers[i];
        double mean = saved(l, SAVED_MEAN, i), invstd = saved(l, SAVED_INVSTD, i);
        int is_same = !isfinite(n->a + n->b) && !isfinite(mean) && isfinite(invstd) == isfinite(n->b);
        is_same = is_same || (fabs(mean - n->a) <= 1e-12 && fabs(invstd - n->b) <= 1e-10 * n->b);
        CHECK(is_same, "saved[%zu]: %.17g and %.17g, expected %.17g and %.17g", i, mean, invstd, n->a, n->b);
    }
    int is_new = l->arrays[NEW_MEAN] != NULL;
    for (size_t i = 0; i < rows_of(l, BN_PER_GROUP_RUNNING) * channels; i++) {
        double mean = parameter(l, is_new ? NEW_MEAN : RUNNING_MEAN, i);
        double variance = parameter(l, is_new ? NEW_VAR : RUNNING_VAR, i);
        check_parameter(l, mean, o->running_mean[i], fabs(o->running_mean[i]), "running_mean", i);
        check_parameter(l, variance, o->running_var[i], fabs(o->running_var[i]), "running_var", i);
    }
    const int64_t *batches = l->arrays[is_new ? NEW_NUM_BATCHES : NUM_BATCHES];
    for (size_t i = 0; batches != NULL && i < rows_of(l, BN_PER_GROUP_RUNNING); i++) {
        CHECK(batches[i] == o->batches[i], "num_batches[%zu] is %lld", i, (long long)batches[i]);
    }
    for (size_t i = 0; l->arrays[OUTCOME] != NULL && i < rows; i++) {
        int outcome = ((const int32_t *)l->arrays[OUTCOME])[i];
        CHECK(outcome == o->outcomes[i], "outcome[%zu] is %d, expected %d", i, outcome, o->outcomes[i]);
    }
    if (l->arrays[MASK] != NULL) check_bits(o);
}

static inline void check_gradients(const oracle *o) {
    const layer *l = o->l;
    check_tensor(l, DX, o->dx);
    if (l->arrays[DZ] != NULL) check_tensor(l, DZ, o->dz);
    for (size_t i = 0; i < rows_of(l, BN_PER_GROUP_PARAMETERS) * l->shape.channels; i++) {
        check_parameter(l, parameter(l, DGAMMA, i), o->dgamma[i], o->magnitude[i], "dgamma", i);
        check_parameter(l, parameter(l, DBETA, i), o->dbeta[i], o->magnitude[i], "dbeta", i);
    }
}

/* Forward and backward against the oracle. */
static inline void training_agrees(layer *l) {
    oracle o = expected_training(l);
    layer before = clone_of(l);
    CHECK_OK(train_layer(l));
    check_training(&o);
    expect_gradients(&o, BN_PER_GROUP_STATISTICS);
    CHECK_OK(back_layer(l));
    check_gradients(&o);
    static const enum array inputs[] = {X, Z, WEIGHTS, GAMMA, BETA, INDEX};
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        int is_kept = memcmp(l->arrays[inputs[i]] ? l->arrays[inputs[i]] : "",
                             before.arrays[inputs[i]] ? before.arrays[inputs[i]] : "", l->bytes[inputs[i]]) == 0;
        CHECK(is_kept, "%s was written", array_names[inputs[i]]);
    }
    free_arrays(&before), free_oracle(&o);
}

static inline void inference_agrees(layer *l) {
    oracle o = expected_inference(l);
    l->options.frozen = 1;
    CHECK_OK(infer_layer(l));
    check_tensor(l, Y, o.y);
    if (l->arrays[MASK] != NULL) check_bits(&o);
    free_oracle(&o);
}

#endif

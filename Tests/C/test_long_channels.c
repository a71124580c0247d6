/* SPDX-License-Identifier: Apache-2.0
 *
 * The mean of channels of millions of float64 values is within 2^-51 of the largest of them, wherever it leaves:
 * saved_mean, running_mean, bn_moments and bn_merge_moments. Thousands of blocks are put together for it. */
#include "problem.h"

enum { most = 1 << 24 };

static double *x;

/* Sum of what each addition rounded away (Neumaier), in long double where that is more. */
static double mean_of(size_t first, size_t step, size_t count) {
    long double sum = 0, rest = 0;
    for (size_t i = 0; i < count; i++) {
        long double value = x[first + i * step], next = sum + value;
        rest += fabsl(sum) >= fabsl(value) ? sum - next + value : value - next + sum;
        sum = next;
    }
    return (double)((sum + rest) / (long double)count);
}

static void expect_mean(double found, double expected, const char *what) {
    CHECK(fabs(found - expected) <= ldexp(101, -51), "%s is %.17g, expected %.17g", what, found, expected);
}

static void check_shape(size_t outer, size_t channels, size_t inner) {
    bn_shape shape = dense(outer, channels, inner);
    double mean[8], invstd[8], running_mean[8] = {0}, running_var[8] = {0}, count[8], moment[8], m2[8];
    bn_options options = BN_OPTIONS_INIT;
    options.momentum = 1;
    CHECK_OK(bn_forward_training(&shape, BN_FLOAT64, x, NULL, NULL, running_mean, running_var, NULL, mean, invstd,
                                 &options));
    CHECK_OK(bn_moments(&shape, BN_FLOAT64, x, count, moment, m2, 0, NULL));
    for (size_t c = 0; c < channels; c++) {
        double expected = inner == 1 ? mean_of(c, channels, outer) : mean_of(c * inner, 1, inner);
        expect_mean(mean[c], expected, "saved_mean");
        expect_mean(running_mean[c], expected, "running_mean");
        expect_mean(moment[c], expected, "bn_moments' mean");
    }
}

static void planes(void) { check_shape(1, 1, most); }
static void rows(void) { check_shape(most / 4, 4, 1); }

/* A channel of many small parts, each with a mean of its own. */
static void parts(void) {
    enum { values = 64, part_count = most / 64 };
    double *counts = allocate(part_count, sizeof(double)), *means = allocate(part_count, sizeof(double));
    double *m2s = allocate(part_count, sizeof(double));
    bn_shape shape = dense(1, 1, values);
    long double total = 0;
    for (size_t p = 0; p < part_count; p++) {
        CHECK_OK(bn_moments(&shape, BN_FLOAT64, x + p * values, counts + p, means + p, m2s + p, 0, NULL));
        total += (long double)means[p];
    }
    double count, mean, m2;
    CHECK_OK(bn_merge_moments(part_count, 1, counts, means, m2s, 0, &count, &mean, &m2));
    expect_mean(mean, (double)(total / part_count), "bn_merge_moments' mean");
    free(counts), free(means), free(m2s);
}

int main(void) {
    start();
    random_state = seed;
    x = allocate(most, sizeof(double));
    for (size_t i = 0; i < most; i++) x[i] = 100 + random_value();
    RUN(planes);
    RUN(rows);
    RUN(parts);
    free(x);
    return finish();
}

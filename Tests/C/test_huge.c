/* SPDX-License-Identifier: Apache-2.0
 *
 * More than 2^31 elements, of memory that was mapped and is not there: what nobody writes is a page of zeros that all
 * addresses share. */
#define _DEFAULT_SOURCE
#include "child.h"

#include <batchnorm.h>
#include <math.h>
#include <sys/mman.h>

static const size_t elements = ((size_t)1 << 31) + 42;

static float *map_zeros(size_t count) {
    float *x = mmap(NULL, count * sizeof *x, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return x == MAP_FAILED ? NULL : x;
}

/* x is 0 but for its first and its last element, which are 1: one in each of two channels, or both in the only one. */
static void expect_sums(float *x, bn_shape shape) {
    double count[2], mean[2], m2[2], dy[2], dy_xhat[2], zero[2] = {0, 0}, one[2] = {1, 1};
    double n = (double)shape.outer * (double)shape.inner;
    double ones = 2.0 / (double)shape.channels;
    bn_status status = bn_moments(&shape, BN_FLOAT32, x, count, mean, m2, 0, NULL);
    CHECK(status == BN_OK, "%s", bn_last_error());
    status = bn_backward_reduce(&shape, BN_FLOAT32, x, x, zero, one, dy, dy_xhat, 0, NULL);
    CHECK(status == BN_OK, "%s", bn_last_error());
    for (size_t c = 0; c < shape.channels; c++) {
        double expected = ones - ones * ones / n;
        CHECK(count[c] == n && fabs(mean[c] * n - ones) < 1e-9, "count %.17g, mean %.17g", count[c], mean[c]);
        CHECK(fabs(m2[c] - expected) < 1e-9, "m2 %.17g, not %.17g", m2[c], expected);
        CHECK(dy[c] == ones && dy_xhat[c] == ones, "sums %.17g and %.17g", dy[c], dy_xhat[c]);
    }
}

static void sums_of_huge_tensors(void) {
    float *x = map_zeros(elements);
    if (x == NULL) {
        skip("no 8 GiB of address space");
        return;
    }
    x[0] = x[elements - 1] = 1;
    expect_sums(x, (bn_shape)BN_SHAPE(1, 2, elements / 2));
    expect_sums(x, (bn_shape)BN_SHAPE(elements / 2, 2, 1));
    expect_sums(x, (bn_shape)BN_SHAPE(elements, 1, 1));
    munmap(x, elements * sizeof *x);
}

/* Slices that begin 2^31 elements apart, in planes and in rows. */
static void maps_of_distant_slices(void) {
    enum { slices = 3, slice = 48 };
    float *x = map_zeros((slices - 1) * elements + slice);
    if (x == NULL) {
        skip("no 16 GiB of address space");
        return;
    }
    for (size_t channels = 1; channels <= slice; channels *= 48) {
        bn_shape shape = {sizeof(bn_shape), slices, channels, slice / channels, elements, elements, elements, NULL};
        double n = (double)(slices * slice / channels);
        for (size_t i = 0; i < slices * slice; i++) x[i / slice * elements + i % slice] = (float)(i / slice);
        bn_options options = BN_OPTIONS_INIT;
        options.eps = 0;
        bn_status status = bn_forward_training(&shape, BN_FLOAT32, x, NULL, NULL, NULL, NULL, x, NULL, NULL, &options);
        CHECK(status == BN_OK, "%s", bn_last_error());
        for (size_t i = 0; i < slices * slice; i++) {
            double y = x[i / slice * elements + i % slice], expected = ((double)(i / slice) - 1) * sqrt(1.5);
            CHECK(fabs(y - expected) < 1e-6, "%zu of %zu, %g values per channel: %g, not %g", i, channels, n, y, expected);
        }
    }
    munmap(x, ((slices - 1) * elements + slice) * sizeof *x);
}

/* Directions of 0, 1 and 2 in slices 2^31 elements apart, doubled in place by each of four calls: statistics are frozen
 * at mean 0 and invstd 1, gamma is 2, and so is the scale of what is folded. */
static void derivatives_of_distant_slices(void) {
    enum { slices = 3, slice = 48 };
    size_t count = (slices - 1) * elements + slice;
    float *x = map_zeros(count), *v = map_zeros(count), *dy = map_zeros(count);
    if (x == NULL || v == NULL || dy == NULL) {
        skip("no 48 GiB of address space");
        return;
    }
    double zeros[slice] = {0}, ones[slice], twos[slice];
    float gamma[slice], three[slice], grad_gamma[slice], bias[slice];
    for (int i = 0; i < slice; i++) ones[i] = 1, twos[i] = 2, gamma[i] = 2, three[i] = 3;
    for (size_t channels = 1; channels <= slice; channels *= 48) {
        bn_shape shape = {sizeof(bn_shape), slices, channels, slice / channels, elements, elements, elements, NULL};
        bn_options options = BN_OPTIONS_INIT;
        options.frozen = 1;
        for (size_t i = 0; i < slices * slice; i++) {
            size_t place = i / slice * elements + i % slice;
            v[place] = (float)(i / slice), x[place] = 0, dy[place] = 1;
        }
        bn_status status = bn_jvp(&shape, BN_FLOAT32, x, v, gamma, NULL, NULL, zeros, ones, v, &options);
        CHECK(status == BN_OK, "%s", bn_last_error());
        status = bn_double_backward(&shape, BN_FLOAT32, v, three, NULL, dy, x, gamma, zeros, ones, v, dy,
                                    grad_gamma, &options);
        CHECK(status == BN_OK, "%s", bn_last_error());
        for (size_t c = 0; c < channels; c++) {
            CHECK(grad_gamma[c] == 2 * (0 + 1 + 2) * slice / channels, "grad_gamma %g", grad_gamma[c]);
        }
        status = bn_fold_into_previous(&shape, BN_FLOAT32, v, NULL, twos, zeros, v, bias);
        CHECK(status == BN_OK, "%s", bn_last_error());
        status = bn_fold_into_next(&shape, BN_FLOAT32, v, NULL, twos, ones, v, bias);
        CHECK(status == BN_OK, "%s", bn_last_error());
        for (size_t i = 0; i < slices * slice; i++) {
            size_t place = i / slice * elements + i % slice;
            CHECK(v[place] == 16 * (float)(i / slice), "%zu: grad_dy, folded twice: %g", i, v[place]);
            CHECK(dy[place] == 3, "%zu: grad_x %g", i, dy[place]);
        }
        for (int i = 0; i < slices; i++) CHECK(bias[i] == 8 * (float)(i * slice), "folded_bias %g", bias[i]);
    }
    munmap(x, count * sizeof *x), munmap(v, count * sizeof *v), munmap(dy, count * sizeof *dy);
}

/* The working memory for so many channels overflows a size: that is an error, and not a small piece of memory. */
static void channels_beyond_memory(void) {
    float x = 1;
    for (int bits = 40; bits < 61; bits++) {
        for (size_t inner = 1; inner <= 32; inner *= 32) {
            bn_shape shape = BN_SHAPE(1, (size_t)1 << bits, inner);
            bn_status status = bn_forward_training(&shape, BN_FLOAT32, &x, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
            bn_status expected = inner == 1 ? BN_ERROR_SINGLE_VALUE : BN_ERROR_MEMORY;
            CHECK(status == expected || status == BN_ERROR_SHAPE, "2^%d x %zu: %d", bits, inner, status);
            double zero = 0;
            status = bn_double_backward(&shape, BN_FLOAT32, &x, &x, &x, &x, &x, &x, &zero, &zero, NULL, NULL, NULL,
                                        NULL);
            CHECK(status == BN_ERROR_MEMORY || status == BN_ERROR_SHAPE, "2^%d x %zu: %d", bits, inner, status);
        }
    }
}

/* The slices are empty, and more than anybody can count. */
static void touch_nothing(void) {
    static const size_t slices[] = {(size_t)1 << 40, (size_t)1 << 62, PTRDIFF_MAX};
    float x = 1, y = 2, gradient = 3;
    double zero = 0, one = 1;
    alarm(10);
    for (int i = 0; i < 3 * 2; i++) {
        bn_shape shape = BN_SHAPE(slices[i / 2], 1, 0);
        bn_options options = BN_OPTIONS_INIT;
        options.frozen = i % 2;
        bn_status status = bn_jvp(&shape, BN_FLOAT32, &x, &x, NULL, NULL, NULL, &zero, &one, &y, &options);
        CHECK(status == BN_OK, "%s", bn_last_error());
        status = bn_double_backward(&shape, BN_FLOAT32, &x, NULL, NULL, &x, &x, NULL, &zero, &one, NULL, &y, &gradient,
                                    &options);
        CHECK(status == BN_OK && gradient == 0, "%g: %s", gradient, bn_last_error());
        status = bn_fold_into_previous(&shape, BN_FLOAT32, &x, NULL, &one, &one, &y, &gradient);
        CHECK(status == BN_OK && y == 2 && gradient == 1, "%g and %g: %s", y, gradient, bn_last_error());
    }
}

/* A bias for each of more outer indices than there are addresses. */
static void count_biases(void) {
    float x = 1, y = 2, bias = 3;
    double one = 1;
    bn_shape shape = BN_SHAPE(PTRDIFF_MAX / sizeof(float) + 1, 1, 0);
    bn_status status = bn_fold_into_next(&shape, BN_FLOAT32, &x, NULL, &one, &one, &y, &bias);
    CHECK(status == BN_ERROR_SHAPE && bias == 3, "status %d: %s", (int)status, bn_last_error());
}

/* Weights, and rows of groups, of more bytes than there are addresses. */
static void count_weights_and_rows(void) {
    float x = 1, y = 2;
    double count, mean, m2;
    bn_weights weights = BN_WEIGHTS_INIT;
    bn_shape shape = BN_SHAPE(PTRDIFF_MAX / 3, 1, 1);
    weights.values = &x;
    shape.weights = &weights;
    bn_status status = bn_moments(&shape, BN_FLOAT16, &x, &count, &mean, &m2, 0, NULL);
    CHECK(status == BN_ERROR_SHAPE && strstr(bn_last_error(), "weights") != NULL, "status %d: %s", (int)status,
          bn_last_error());
    bn_groups groups = BN_GROUPS_INIT;
    bn_options options = BN_OPTIONS_INIT;
    shape = (bn_shape)BN_SHAPE(0, (size_t)1 << 40, 1);
    groups.samples = groups.groups = (size_t)1 << 24;
    options.groups = &groups;
    status = bn_forward_training(&shape, BN_FLOAT32, &x, NULL, NULL, NULL, NULL, &y, NULL, NULL, &options);
    CHECK(status == BN_ERROR_OPTION && strstr(bn_last_error(), "groups->groups") != NULL, "status %d: %s", (int)status,
          bn_last_error());
    CHECK(y == 2, "y was written");
}

/* One slice may be as large as memory, and none of it is read where there are no samples; one element more is too much. */
static void count_elements(void) {
    float x = 1, y = 2;
    size_t most = PTRDIFF_MAX / sizeof x;
    for (size_t more = 0; more < 2; more++) {
        bn_shape shape = BN_SHAPE(0, 1, most + more);
        bn_status status = bn_forward_inference(&shape, BN_FLOAT32, &x, NULL, NULL, &x, &x, &y, NULL, NULL, NULL);
        CHECK(status == (more ? BN_ERROR_SHAPE : BN_OK), "%zu more: %d, %s", more, (int)status, bn_last_error());
        CHECK(y == 2, "y is %g", y);
    }
}

static void slices_as_large_as_memory(void) { in_child(NULL, NULL, count_elements); }
static void slices_of_nothing(void) { in_child(NULL, NULL, touch_nothing); }
static void biases_beyond_memory(void) { in_child(NULL, NULL, count_biases); }
static void weights_and_rows_beyond_memory(void) { in_child(NULL, NULL, count_weights_and_rows); }

int main(void) {
    start();
    RUN(slices_of_nothing);
    RUN(slices_as_large_as_memory);
    RUN(biases_beyond_memory);
    RUN(weights_and_rows_beyond_memory);
    RUN(sums_of_huge_tensors);
    RUN(maps_of_distant_slices);
    RUN(derivatives_of_distant_slices);
    RUN(channels_beyond_memory);
    return finish();
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * More than 2^31 elements, of memory that was mapped and is not there: what nobody writes is a page of zeros that all
 * addresses share. */
#define _DEFAULT_SOURCE
#include "check.h"

#include <batchnorm.h>
#include <math.h>
#include <sys/mman.h>

static const size_t elements = ((size_t)1 << 31) + 42;

static float *map_zeros(size_t count) {
    float *x = mmap(NULL, count * sizeof *x, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return x == MAP_FAILED ? NULL : x;
}

/* Of zeros and two ones, the first element and the last: of each of two channels as planes and as rows, of one. */
static void expect_sums(float *x, bn_shape shape) {
    double count[2], mean[2], m2[2], dy[2], dy_xhat[2], zero[2] = {0, 0}, one[2] = {1, 1};
    double n = (double)shape.outer * (double)shape.inner;
    double ones = 2.0 / (double)shape.channels;
    bn_status status = bn_moments(&shape, BN_FLOAT32, x, count, mean, m2);
    CHECK(status == BN_OK, "%s", bn_last_error());
    status = bn_backward_reduce(&shape, BN_FLOAT32, x, x, zero, one, dy, dy_xhat);
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

/* So many channels that the working memory for them is no number: an error, and not a small piece of memory. */
static void channels_beyond_memory(void) {
    float x = 1;
    for (int bits = 40; bits < 56; bits++) {
        for (size_t inner = 1; inner <= 32; inner *= 32) {
            bn_shape shape = BN_SHAPE(1, (size_t)1 << bits, inner);
            bn_status status = bn_forward_training(&shape, BN_FLOAT32, &x, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
            bn_status expected = inner == 1 ? BN_ERROR_SINGLE_VALUE : BN_ERROR_MEMORY;
            CHECK(status == expected || status == BN_ERROR_SHAPE, "2^%d x %zu: %d", bits, inner, status);
        }
    }
}

int main(void) {
    start();
    RUN(sums_of_huge_tensors);
    RUN(maps_of_distant_slices);
    RUN(channels_beyond_memory);
    return finish();
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * Tensors of 16-bit elements, parameters of another type than the tensors, and the options of version 1.0. */
#define _DEFAULT_SOURCE
#include "layer.h"

#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

enum { outer = 6, channels = 5, inner = 37, count = outer * channels * inner };

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Whole numbers of less than eight bits and quarters of them are exact in either type. */
static uint16_t half_of(bn_dtype dtype, float value) {
    uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (dtype == BN_BFLOAT16 || magnitude == 0) return (uint16_t)(bits >> 16);
    return (uint16_t)(sign | ((magnitude >> 13) - (112u << 10)));
}

static float float_of_half(bn_dtype dtype, uint16_t half) {
    uint32_t magnitude = half & 0x7fffu, sign = (uint32_t)(half & 0x8000) << 16;
    if (dtype == BN_BFLOAT16 || magnitude == 0) return float_of((uint32_t)half << 16);
    return float_of(sign | ((magnitude << 13) + (112u << 23)));
}

static void normalizes(bn_dtype dtype) {
    static uint16_t x[count], y[count];
    bn_shape shape = BN_SHAPE(outer, channels, inner);
    float gamma[channels], beta[channels];
    double mean[channels], invstd[channels];
    for (int i = 0; i < count; i++) x[i] = half_of(dtype, (float)(i * 7 % 61) / 4 - 3);
    for (int c = 0; c < channels; c++) gamma[c] = 1.25f + (float)c, beta[c] = 0.5f * (float)c - 1;
    CHECK(bn_forward_training(&shape, dtype, x, gamma, beta, NULL, NULL, y, mean, invstd, NULL) == BN_OK, "%s",
          bn_last_error());
    for (int c = 0; c < channels; c++) {
        double sum = 0, squares = 0;
        for (int n = 0; n < outer; n++) {
            for (int k = 0; k < inner; k++) {
                double value = float_of_half(dtype, x[(n * channels + c) * inner + k]);
                sum += value, squares += value * value;
            }
        }
        double expected = sum / (outer * inner), variance = squares / (outer * inner) - expected * expected;
        CHECK(fabs(mean[c] - expected) < 1e-12, "mean %.17g, not %.17g", mean[c], expected);
        CHECK(fabs(invstd[c] * sqrt(variance + 1e-5) - 1) < 1e-9, "invstd %.17g", invstd[c]);
        for (int n = 0; n < outer; n++) {
            for (int k = 0; k < inner; k++) {
                int i = (n * channels + c) * inner + k;
                double value = gamma[c] * ((float_of_half(dtype, x[i]) - mean[c]) * invstd[c]) + beta[c];
                double unit = dtype == BN_FLOAT16 ? 0x1p-11 : 0x1p-8;
                if (fabs(value) < 1e-3) continue; /* half_of() knows no subnormal numbers */
                CHECK(fabs(float_of_half(dtype, y[i]) - value) <= unit * fabs(value) + 1e-5, "%g, not %g",
                      float_of_half(dtype, y[i]), value);
            }
        }
    }
}

static void float16_is_normalized(void) { normalizes(BN_FLOAT16); }
static void bfloat16_is_normalized(void) { normalizes(BN_BFLOAT16); }

/* A page, or two, with one on either side that may not be touched. */
static uint16_t *guarded_pages(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *all = (char *)mmap(NULL, bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all + page, bytes, PROT_READ | PROT_WRITE) != 0) abort();
    return (uint16_t *)(all + page);
}

/* Tensors of every small width, flush against what may not be touched: a byte too far kills this program. */
static void nothing_outside_is_touched(void) {
    enum { widest = 70, planes = 3 };
    size_t bytes = 2 * (size_t)sysconf(_SC_PAGESIZE);
    uint16_t *tensors[3];
    double mean[widest], invstd[widest];
    float dgamma[widest], dbeta[widest];
    for (int t = 0; t < 3; t++) tensors[t] = guarded_pages(bytes);
    for (size_t width = 1; width <= widest; width++) {
        for (int rows = 0; rows < 2; rows++) {
            for (int at_end = 0; at_end < 2; at_end++) {
                size_t samples = 5, elements = samples * planes * width;
                bn_shape of_planes = BN_SHAPE(samples, planes, width), of_rows = BN_SHAPE(samples * planes, width, 1);
                bn_shape shape = rows ? of_rows : of_planes;
                size_t start = at_end ? bytes / 2 - elements : 0;
                uint16_t *x = tensors[0] + start, *y = tensors[1] + start, *dx = tensors[2] + start;
                for (int dtype = BN_FLOAT16; dtype <= BN_BFLOAT16; dtype++) {
                    for (size_t i = 0; i < elements; i++) x[i] = half_of((bn_dtype)dtype, (float)(i % 13) / 4);
                    CHECK_OK(bn_forward_training(&shape, (bn_dtype)dtype, x, NULL, NULL, NULL, NULL, y, mean, invstd, NULL));
                    CHECK_OK(bn_backward(&shape, (bn_dtype)dtype, y, x, NULL, NULL, mean, invstd, dx, dgamma, dbeta, NULL));
                }
            }
        }
    }
    for (int t = 0; t < 3; t++) munmap(tensors[t], bytes);
}

/* Parameters of any type beside tensors of any type. */
static void parameters_of_another_type(void) {
    problem p = make_problem(dense(outer, channels, inner), BN_FLOAT32, 1, 2);
    double gamma[channels], beta[channels], mean[channels], var[channels];
    float *y = (float *)p.y, *expected = (float *)allocate(p.elements, sizeof(float));
    for (int c = 0; c < channels; c++) {
        gamma[c] = ((float *)p.gamma)[c], beta[c] = ((float *)p.beta)[c];
        mean[c] = ((float *)p.running_mean)[c], var[c] = ((float *)p.running_var)[c];
    }
    bn_options options = BN_OPTIONS_INIT;
    options.param_dtype = BN_FLOAT64;
    CHECK(bn_forward_training(&p.shape, p.dtype, p.x, gamma, beta, mean, var, expected, NULL, NULL, &options) == BN_OK,
          "%s", bn_last_error());
    CHECK_OK(train(&p, NULL));
    CHECK(memcmp(y, expected, p.elements * sizeof *y) == 0, "y differs");
    for (int c = 0; c < channels; c++) {
        CHECK((float)mean[c] == ((float *)p.running_mean)[c], "running_mean %.17g", mean[c]);
        CHECK((float)var[c] == ((float *)p.running_var)[c], "running_var %.17g", var[c]);
    }
    free(expected), free_problem(&p);
}

/* One NaN in a channel makes all that is stored of it NaN, and nothing else. */
static void nan_is_stored(bn_dtype dtype) {
    layer l = layer_of(outer, channels, inner, dtype, 0);
    l.param = l.options.param_dtype = dtype;
    make_arrays(&l);
    put(dtype, l.arrays[X], 0, NAN), put(dtype, l.arrays[DY], 0, NAN);
    CHECK_OK(train_layer(&l));
    CHECK_OK(back_layer(&l));
    static const enum array stored[] = {RUNNING_MEAN, RUNNING_VAR, DGAMMA, DBETA};
    for (size_t i = 0; i < sizeof stored / sizeof stored[0]; i++) {
        for (size_t c = 0; c < channels; c++) {
            double value = parameter(&l, stored[i], c);
            CHECK(c == 0 ? isnan(value) : isfinite(value), "%s[%zu] is %g", array_names[stored[i]], c, value);
        }
    }
    free_arrays(&l);
}

static void float16_stores_nan(void) { nan_is_stored(BN_FLOAT16); }
static void bfloat16_stores_nan(void) { nan_is_stored(BN_BFLOAT16); }

int main(void) {
    start();
    RUN(float16_is_normalized);
    RUN(bfloat16_is_normalized);
    RUN(nothing_outside_is_touched);
    RUN(parameters_of_another_type);
    RUN(float16_stores_nan);
    RUN(bfloat16_stores_nan);
    return finish();
}

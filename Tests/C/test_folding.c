/* SPDX-License-Identifier: Apache-2.0
 *
 * A batch norm folded into the layer beside it: what the two did one after the other, in plain loops over doubles, the
 * one does alone; and every weight and bias is the double that the formulas give, rounded once. */
#include "layer.h"

enum { most = 4096 };

/* A convolution over one dimension without padding, or the transposed one; linear with a kernel and a length of 1.
 * Weights are (out, in / groups, kernel), or transposed (in, out / groups, kernel). */
typedef struct convolution {
    size_t in, out, groups, kernel, length;
    int is_transposed;
} convolution;

static const convolution convolutions[] = {
    {5, 4, 1, 1, 1, 0}, {1, 7, 1, 1, 1, 0}, {3, 4, 1, 3, 9, 0}, {6, 4, 2, 3, 8, 0}, {5, 5, 5, 4, 7, 0},
    {4, 8, 4, 2, 6, 0}, {3, 4, 1, 3, 5, 1}, {6, 4, 2, 3, 4, 1}, {5, 5, 5, 2, 6, 1}, {4, 8, 4, 2, 1, 1},
};
enum { convolution_count = sizeof convolutions / sizeof convolutions[0] };

static size_t weights_of(const convolution *v) {
    return v->in * v->out / v->groups * v->kernel;
}

static size_t length_after(const convolution *v) {
    return v->is_transposed ? v->length + v->kernel - 1 : v->length - v->kernel + 1;
}

/* bias may be NULL. */
static void convolve(const convolution *v, bn_dtype dtype, const void *weight, const void *bias, const double *x,
                     double *y) {
    size_t ins = v->in / v->groups, outs = v->out / v->groups, after = length_after(v);
    for (size_t o = 0; o < v->out; o++) {
        for (size_t t = 0; t < after; t++) y[o * after + t] = bias != NULL ? get(dtype, bias, o) : 0;
        for (size_t j = 0; j < ins; j++) {
            size_t i = o / outs * ins + j;
            for (size_t p = 0; p < v->kernel; p++) {
                size_t place = v->is_transposed ? (i * outs + o % outs) * v->kernel + p : (o * ins + j) * v->kernel + p;
                for (size_t t = 0; t < (v->is_transposed ? v->length : after); t++) {
                    size_t from = v->is_transposed ? t : t + p, to = v->is_transposed ? t + p : t;
                    y[o * after + to] += get(dtype, weight, place) * x[i * v->length + from];
                }
            }
        }
    }
}

typedef struct norm {
    void *gamma, *beta, *mean, *var;
    double *scale, *shift;
} norm;

/* A layer whose gamma and beta may be left out; one gamma is 0 and some are negative. */
static norm make_norm(bn_dtype dtype, size_t channels, int is_plain, double eps) {
    norm n = {NULL, NULL, random_values(dtype, channels, 0.5, 1), random_values(dtype, channels, 1.5, 1),
              allocate(channels, sizeof(double)), allocate(channels, sizeof(double))};
    if (!is_plain) {
        n.gamma = random_values(dtype, channels, 0.25, 1), n.beta = random_values(dtype, channels, 0, 1);
        put(dtype, n.gamma, channels / 2, 0);
    }
    bn_options options = BN_OPTIONS_INIT;
    options.eps = eps;
    CHECK_OK(bn_scale_shift(channels, dtype, n.gamma, n.beta, n.mean, n.var, n.scale, n.shift, &options));
    return n;
}

static void free_norm(norm *n) {
    free(n->gamma), free(n->beta), free(n->mean), free(n->var), free(n->scale), free(n->shift);
}

/* In inference, of channels of so many values. */
static void normalize(const norm *n, bn_dtype dtype, size_t channels, size_t length, double eps, double *x) {
    for (size_t i = 0; i < channels * length; i++) {
        size_t c = i / length;
        double x_hat = (x[i] - get(dtype, n->mean, c)) / sqrt(get(dtype, n->var, c) + eps);
        x[i] = (n->gamma ? get(dtype, n->gamma, c) : 1) * x_hat + (n->beta ? get(dtype, n->beta, c) : 0);
    }
}

static bn_status fold(const convolution *v, bn_dtype dtype, int is_next, const void *weight, const void *bias,
                      const norm *n, void *folded_weight, void *folded_bias) {
    size_t ins = v->in / v->groups, outs = v->out / v->groups, size = size_of(dtype);
    size_t all = weights_of(v) / v->groups * size;
    bn_status status = BN_OK;
    if (!is_next && !v->is_transposed) {
        bn_shape shape = BN_SHAPE(1, v->out, ins * v->kernel);
        return bn_fold_into_previous(&shape, dtype, weight, bias, n->scale, n->shift, folded_weight, folded_bias);
    }
    for (size_t g = 0; g < v->groups && status == BN_OK; g++) {
        const void *w = (const char *)weight + g * all, *b = bias ? (const char *)bias + g * outs * size : NULL;
        void *new_w = (char *)folded_weight + g * all, *new_b = (char *)folded_bias + g * outs * size;
        bn_shape previous = BN_SHAPE(ins, outs, v->kernel), next = BN_SHAPE(outs, ins, v->kernel);
        size_t first = g * (is_next ? ins : outs);
        status = (is_next ? bn_fold_into_next : bn_fold_into_previous)(
            is_next ? &next : &previous, dtype, w, b, n->scale + first, n->shift + first, new_w, new_b);
    }
    return status;
}

/* Some dozens of terms of a few units each: as many roundings in double, and one of each weight and bias. */
static void does_what_two_did(const convolution *v, bn_dtype dtype, int is_next, int is_plain) {
    static double x[most], y[most], folded_y[most];
    size_t channels = is_next ? v->in : v->out, after = length_after(v), size = size_of(dtype);
    double eps = 0.125, one = dtype == BN_FLOAT64 ? 0x1p-53 : 0x1p-24;
    if (is_half(dtype)) one = ldexp(1, -half_digits(dtype) - 1);
    norm n = make_norm(dtype, channels, is_plain, eps);
    void *weight = random_values(dtype, weights_of(v), 0.125, 1);
    void *bias = is_plain ? NULL : random_values(dtype, v->out, 0, 1);
    void *new_weight = allocate(weights_of(v), size), *new_bias = allocate(v->out, size);
    CHECK_OK(fold(v, dtype, is_next, weight, bias, &n, new_weight, new_bias));
    for (size_t i = 0; i < v->in * v->length; i++) x[i] = 2 * random_value();
    convolve(v, dtype, new_weight, new_bias, x, folded_y);
    if (is_next) normalize(&n, dtype, v->in, v->length, eps, x);
    convolve(v, dtype, weight, bias, x, y);
    if (!is_next) normalize(&n, dtype, v->out, after, eps, y);
    double terms = 3 + (double)(v->in / v->groups * v->kernel), largest = 8;
    for (size_t i = 0; i < v->out * after; i++) {
        CHECK(fabs(y[i] - folded_y[i]) <= terms * largest * (one + 8 * 0x1p-53),
              "y[%zu] is %.17g, not %.17g (%s, %zu to %zu, %zu groups, kernel %zu, transposed %d, next %d)", i,
              folded_y[i], y[i], name_of(dtype), v->in, v->out, v->groups, v->kernel, v->is_transposed, is_next);
    }
    free_norm(&n), free(weight), free(bias), free(new_weight), free(new_bias);
}

static void one_layer_for_two(void) {
    for (int number = 0; number < convolution_count * all_dtype_count * 2 * 2; number++) {
        const convolution *v = &convolutions[number / 4 % convolution_count];
        int is_next = number % 2;
        if (is_next && v->is_transposed) continue; /* its inputs are not the channels of its shape */
        does_what_two_did(v, all_dtypes[number / 4 / convolution_count], is_next, number / 2 % 2);
    }
}

/* Weights and biases of either function, with gaps, and in the place of the old ones. */
typedef struct folding {
    bn_shape shape;
    bn_dtype dtype;
    size_t biases, weight_bytes, bias_bytes;
    void *weight, *bias, *new_weight, *new_bias;
    double *scale, *shift;
} folding;

static folding make_folding(bn_shape shape, bn_dtype dtype, int is_next) {
    folding f = {shape, dtype, is_next ? shape.outer : shape.channels, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL};
    size_t elements = shape.outer * larger(larger(shape.x_stride, shape.y_stride), shape.channels * shape.inner);
    f.weight_bytes = elements * size_of(dtype), f.bias_bytes = f.biases * size_of(dtype);
    f.weight = random_values(dtype, elements, 0, 2), f.bias = random_values(dtype, f.biases, 0, 2);
    f.new_weight = random_values(dtype, elements, 0, 1), f.new_bias = random_values(dtype, f.biases, 0, 1);
    f.scale = random_values(BN_FLOAT64, shape.channels, 0, 1);
    f.shift = random_values(BN_FLOAT64, shape.channels, 0, 1);
    f.scale[shape.channels / 2] = 0;
    return f;
}

static void free_folding(folding *f) {
    free(f->weight), free(f->bias), free(f->new_weight), free(f->new_bias), free(f->scale), free(f->shift);
}

static bn_status run_folding(const folding *f, int is_next) {
    return (is_next ? bn_fold_into_next : bn_fold_into_previous)(
        &f->shape, f->dtype, f->weight, f->bias, f->scale, f->shift, f->new_weight, f->new_bias);
}

static int same_element(bn_dtype dtype, const void *values, size_t i, double expected) {
    char nearest[sizeof(double)];
    put(dtype, nearest, 0, expected);
    return memcmp((const char *)values + i * size_of(dtype), nearest, size_of(dtype)) == 0;
}

/* Weights bit for bit; where shifts and weights are whole numbers, so that any order of summation gives the same,
 * biases as well. A product and a sum stand in statements of their own, lest the compiler fuse them. */
static void expect_bits(bn_shape shape, bn_dtype dtype, int is_next, int has_bias) {
    folding f = make_folding(shape, dtype, is_next);
    size_t elements = f.weight_bytes / size_of(dtype);
    for (size_t i = 0; is_next && i < elements; i++) put(dtype, f.weight, i, floor(100 * get(dtype, f.weight, i)));
    for (size_t c = 0; is_next && c < shape.channels; c++) f.shift[c] = floor(1000 * f.shift[c]);
    if (!has_bias) free(f.bias), f.bias = NULL;
    void *before = copy_of(f.new_weight, f.weight_bytes), *weight = copy_of(f.weight, f.weight_bytes);
    CHECK_OK(run_folding(&f, is_next));
    CHECK(memcmp(weight, f.weight, f.weight_bytes) == 0, "weight was written");
    for (size_t i = 0; i < elements && shape.inner > 0; i++) {
        size_t slice = shape.channels * shape.inner, stride = shape.y_stride ? shape.y_stride : slice;
        size_t n = i / stride, place = i % stride, c = place / shape.inner;
        if (n >= shape.outer) break;
        double expected = place >= slice ? get(dtype, before, i)
                                         : get(dtype, weight, at(&shape, shape.x_stride, n, 0, place)) * f.scale[c];
        CHECK(same_element(dtype, f.new_weight, i, expected), "folded_weight[%zu] is %.17g, not %.17g (%s)", i,
              get(dtype, f.new_weight, i), expected, name_of(dtype));
    }
    for (size_t i = 0; i < f.biases; i++) {
        double bias = has_bias ? get(dtype, f.bias, i) : 0, sum = 0;
        if (!is_next) sum = bias * f.scale[i];
        for (size_t c = 0; is_next && c < shape.channels; c++) {
            for (size_t p = 0; p < shape.inner; p++) {
                sum += f.shift[c] * get(dtype, weight, at(&shape, shape.x_stride, i, c, p));
            }
        }
        double expected = sum + (is_next ? bias : f.shift[i]);
        CHECK(same_element(dtype, f.new_bias, i, expected), "folded_bias[%zu] is %.17g, not %.17g (%s, next %d)", i,
              get(dtype, f.new_bias, i), expected, name_of(dtype), is_next);
    }
    free(before), free(weight), free_folding(&f);
}

static void rounded_once(void) {
    static const size_t shapes[][3] = {{1, 1, 1}, {1, 7, 27}, {5, 7, 1}, {3, 4, 9}, {6, 33, 2}, {0, 3, 4}, {3, 2, 0}};
    for (int number = 0; number < 7 * all_dtype_count * 2 * 2 * 3; number++) {
        const size_t *extent = shapes[number % 7];
        bn_shape shape = dense(extent[0], extent[1], extent[2]);
        if (number / 112 == 1) shape.x_stride = extent[1] * extent[2] + 3;
        if (number / 112 == 2) shape.x_stride = extent[1] * extent[2], shape.y_stride = extent[1] * extent[2] + 5;
        expect_bits(shape, all_dtypes[number / 7 % all_dtype_count], number / 28 % 2, number / 56 % 2);
    }
}

static void in_place(void) {
    for (int number = 0; number < all_dtype_count * 2 * 2 * 3; number++) {
        bn_shape shape = dense(5, 6, 7);
        if (number % 2) shape.x_stride = shape.y_stride = 6 * 7 + 3;
        int is_next = number / 2 % 2, which = 1 + number / 4 % 3;
        folding f = make_folding(shape, all_dtypes[number / 12], is_next), g = f;
        memcpy(f.new_weight, f.weight, f.weight_bytes); /* the gaps are compared too */
        CHECK_OK(run_folding(&f, is_next));
        if (which & 1) g.new_weight = g.weight;
        if (which & 2) g.new_bias = g.bias;
        void *apart = copy_of(f.new_weight, f.weight_bytes), *bias_apart = copy_of(f.new_bias, f.bias_bytes);
        CHECK_OK(run_folding(&g, is_next));
        CHECK(memcmp(g.new_weight, apart, f.weight_bytes) == 0, "folded_weight differs in place %d", which);
        CHECK(memcmp(g.new_bias, bias_apart, f.bias_bytes) == 0, "folded_bias differs in place %d", which);
        free(apart), free(bias_apart), free_folding(&f);
    }
}

/* An infinity stays in its own output. */
static void outputs_are_apart(void) {
    for (int d = 0; d < all_dtype_count; d++) {
        folding f = make_folding(dense(4, 3, 5), all_dtypes[d], 1);
        put(f.dtype, f.weight, at(&f.shape, 0, 2, 1, 3), INFINITY);
        CHECK_OK(run_folding(&f, 1));
        for (size_t n = 0; n < 4; n++) CHECK(isfinite(get(f.dtype, f.new_bias, n)) == (n != 2), "folded_bias[%zu]", n);
        free_folding(&f);
    }
}

/* The square roots of these variances are exact, and so are 1 over them: scale is a product, shift a product and a
 * difference. */
static void scale_and_shift(void) {
    static const double vars[] = {0.1875, 0.9375, 3.9375, 15.9375};
    enum { channels = 6 };
    for (int number = 0; number < all_dtype_count * 4; number++) {
        bn_dtype dtype = all_dtypes[number / 4];
        void *gamma = number % 2 ? random_values(dtype, channels, 0, 1) : NULL;
        void *beta = number / 2 % 2 ? random_values(dtype, channels, 0, 1) : NULL;
        void *mean = random_values(dtype, channels, 0, 3), *var = allocate(channels, size_of(dtype));
        double scale[channels], shift[channels];
        bn_options options = BN_OPTIONS_INIT;
        options.eps = 0.0625;
        for (size_t c = 0; c < channels; c++) put(dtype, var, c, vars[c % 4]);
        if (gamma != NULL) put(dtype, gamma, 1, 0), put(dtype, gamma, 2, -0.75);
        CHECK_OK(bn_scale_shift(channels, dtype, gamma, beta, mean, var, scale, shift, &options));
        for (size_t c = 0; c < channels; c++) {
            double invstd = 1 / ldexp(0.5, (int)c % 4);
            double expected = (gamma ? get(dtype, gamma, c) : 1) * invstd, moved = get(dtype, mean, c) * expected;
            double down = (beta ? get(dtype, beta, c) : 0) - moved;
            CHECK(scale[c] == expected, "scale %.17g, not %.17g (%s)", scale[c], expected, name_of(dtype));
            CHECK(shift[c] == down, "shift %.17g, not %.17g (%s)", shift[c], down, name_of(dtype));
        }
        free(gamma), free(beta), free(mean), free(var);
    }
}

/* No variance and no eps: the layer's output is beta. One of -eps is none either. */
static void scale_without_variance(void) {
    float gamma[] = {2, 2, 2, 2}, beta[] = {0.5f, 0.5f, 0.5f, 0.5f}, mean[] = {3, 3, 3, 3}, y[4];
    float var[] = {0, 0.25f, INFINITY, 0}, negative[] = {-0.25f, 0.75f, 0, -0.25f};
    double scale[4], shift[4];
    bn_options options = BN_OPTIONS_INIT;
    bn_shape shape = BN_SHAPE(1, 4, 1);
    for (int i = 0; i < 2; i++) {
        options.eps = i == 0 ? 0 : 0.25;
        float *variance = i == 0 ? var : negative;
        CHECK_OK(bn_scale_shift(4, BN_FLOAT32, gamma, beta, mean, variance, scale, shift, &options));
        CHECK_OK(bn_forward_inference(&shape, BN_FLOAT32, mean, gamma, beta, mean, variance, y, NULL, NULL, &options));
        for (int c = 0; c < 4; c++) {
            double var_and_eps = variance[c] + options.eps;
            double expected = var_and_eps == 0 ? 0 : 2 / sqrt(var_and_eps);
            CHECK(scale[c] == expected, "scale %g, of %g", scale[c], var_and_eps);
            CHECK(shift[c] == 0.5 - 3 * expected, "shift %g, of %g", shift[c], var_and_eps);
            CHECK(y[c] == (float)(3 * scale[c] + shift[c]), "inference gives %g", y[c]);
        }
    }
    CHECK_OK(bn_scale_shift(4, BN_FLOAT32, NULL, NULL, mean, gamma, scale, shift, NULL));
    for (int c = 0; c < 4; c++) CHECK(fabs(scale[c] * sqrt(2 + 1e-5) - 1) < 1e-15, "of another eps: %.17g", scale[c]);
}

int main(void) {
    start();
    RUN(one_layer_for_two);
    RUN(rounded_once);
    RUN(in_place);
    RUN(outputs_are_apart);
    RUN(scale_and_shift);
    RUN(scale_without_variance);
    return finish();
}

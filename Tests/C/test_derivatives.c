/* SPDX-License-Identifier: Apache-2.0
 *
 * bn_jvp and bn_double_backward against the chain rule, in every layout and type, with any of their inputs and
 * outputs. */
#include "chain_rule.h"

#include <fenv.h>

static void run_both(layer *l) {
    CHECK_OK(run_jvp(l));
    CHECK_OK(run_double_backward(l));
}

/* Inputs stay as they were, and so do the gaps between slices. */
static void check_rest(const layer *l, const layer *before) {
    static const int inputs[] = {X, DY, GAMMA, GRAD_DX, GRAD_DGAMMA, GRAD_DBETA, SAVED_MEAN, SAVED_INVSTD};
    static const int outputs[] = {Y_TANGENT, GRAD_DY, GRAD_X};
    for (int i = 0; i < 8; i++) {
        int is_kept = l->bytes[inputs[i]] == 0 ||
                      memcmp(l->arrays[inputs[i]], before->arrays[inputs[i]], l->bytes[inputs[i]]) == 0;
        CHECK(is_kept, "%s was written", array_names[inputs[i]]);
    }
    size_t size = size_of(l->dtype), slice = l->shape.channels * l->shape.inner;
    for (int t = 0; t < 3; t++) {
        size_t stride = stride_of(l, (enum array)outputs[t]);
        for (size_t n = 0; n < l->shape.outer; n++) {
            size_t gap = (n * stride + slice) * size;
            const char *now = l->arrays[outputs[t]], *then = before->arrays[outputs[t]];
            CHECK(memcmp(now + gap, then + gap, (stride - slice) * size) == 0, "output %d: behind slice %zu", t, n);
        }
    }
}

static void agrees(layer *l) {
    layer before = clone_of(l);
    run_both(l);
    for (size_t c = 0; c < l->shape.channels; c++) check_channel(l, c);
    check_rest(l, &before);
    free_arrays(&before);
}

static void formulas_hold(size_t outer, size_t channels, size_t inner, int is_strided, bn_dtype param) {
    for (int d = 0; d < all_dtype_count; d++) {
        for (int frozen = 0; frozen < 2; frozen++) {
            layer l = derivative_of(outer, channels, inner, all_dtypes[d], frozen);
            size_t slice = channels * inner;
            if (is_strided) l.shape.x_stride = slice + 3, l.shape.y_stride = slice + 1;
            if (is_strided) l.shape.dx_stride = 2 * slice + 1;
            if (param != 0) l.param = l.options.param_dtype = param;
            make_derivative(&l);
            agrees(&l);
            free_arrays(&l);
        }
    }
}

static void every_length(void) {
    static const bn_dtype params[] = {(bn_dtype)0, BN_FLOAT64, BN_FLOAT32, BN_FLOAT16, BN_BFLOAT16};
    for (size_t length = 1; length <= 70; length++) {
        formulas_hold(1 + length % 3, 2, length, length % 2, params[length % 5]);
        formulas_hold(3 + length % 4, length, 3, length % 2, params[(length + 1) % 5]);
        formulas_hold(2 + length % 9, length, 1, length / 2 % 2, params[(length + 2) % 5]);
        formulas_hold(length, 1 + length % 5, 1, length % 2, params[(length + 3) % 5]);
    }
}

static void every_layout(void) {
    static const size_t shapes[][3] = {{3, 2, 2001}, {1, 3, 6001}, {700, 64, 1}, {5000, 3, 1}, {8, 37, 49},
                                       {900, 5, 6},  {60, 133, 1}, {1, 5, 1},    {2, 1, 1},    {40, 7, 64}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (int is_strided = 0; is_strided < 2; is_strided++) {
            formulas_hold(shapes[s][0], shapes[s][1], shapes[s][2], is_strided, (bn_dtype)0);
        }
    }
}

/* Planes, tiny planes and rows, in every type, frozen and not; the strides are equal, so that outputs may be inputs. */
static void each_derivative(void (*use)(layer *l)) {
    static const size_t shapes[][3] = {{4, 3, 50}, {9, 5, 6}, {33, 21, 1}};
    for (int s = 0; s < 3; s++) {
        for (int d = 0; d < all_dtype_count; d++) {
            for (int frozen = 0; frozen < 2; frozen++) {
                layer l = derivative_of(shapes[s][0], shapes[s][1], shapes[s][2], all_dtypes[d], frozen);
                l.shape.y_stride = l.shape.dx_stride = shapes[s][1] * shapes[s][2] + (s == 1 ? 0 : 5);
                make_derivative(&l);
                use(&l);
                free_arrays(&l);
            }
        }
    }
}

static layer clone_without(const layer *l, const int *arrays, int count, int subset) {
    layer clone = clone_of(l);
    for (int i = 0; i < count; i++) {
        if (subset >> i & 1) leave_out(&clone, arrays[i]);
    }
    return clone;
}

static void leave_inputs_out(layer *l) {
    static const int inputs[] = {GRAD_DX, GRAD_DGAMMA, GRAD_DBETA, GAMMA};
    for (int subset = 0; subset < 16; subset++) {
        layer less = clone_without(l, inputs, 4, subset);
        agrees(&less);
        free_arrays(&less);
    }
}

static void leave_outputs_out(layer *l) {
    static const int outputs[] = {GRAD_DY, GRAD_X, GRAD_GAMMA}, inputs[] = {GRAD_DX, GRAD_DGAMMA};
    for (int number = 0; number < 4 * 8; number++) {
        layer all = clone_without(l, inputs, 2, number / 8), some = clone_without(&all, outputs, 3, number % 8);
        CHECK_OK(run_double_backward(&all));
        CHECK_OK(run_double_backward(&some));
        for (int i = 0; i < 3; i++) {
            size_t bytes = some.bytes[outputs[i]];
            CHECK(bytes == 0 || memcmp(all.arrays[outputs[i]], some.arrays[outputs[i]], bytes) == 0,
                  "output %d differs (%s, case %d, frozen %d)", i, name_of(l->dtype), number, l->options.frozen);
        }
        free_arrays(&all), free_arrays(&some);
    }
}

/* The slices of an output, which stands for an input or has memory of its own. */
static void check_slices(const layer *l, int array, const layer *apart, int other, const char *name) {
    size_t size = size_of(l->dtype), slice = l->shape.channels * l->shape.inner * size;
    for (size_t n = 0; n < l->shape.outer; n++) {
        size_t first = n * stride_of(l, (enum array)array) * size;
        CHECK(memcmp((char *)l->arrays[array] + first, (char *)apart->arrays[other] + first, slice) == 0,
              "%s differs in place (%s, frozen %d)", name, name_of(l->dtype), l->options.frozen);
    }
}

/* Calls in which the outputs of the set are inputs; with and without what makes x count when frozen. */
static void write_in_place(layer *l) {
    static const int inputs[] = {GRAD_DGAMMA, GRAD_DBETA};
    for (int number = 0; number < 4 * 4; number++) {
        layer apart = clone_without(l, inputs, 2, number / 4), both = clone_of(&apart), tangent = clone_of(&apart);
        int grad_dy = number & 1 ? GRAD_DX : GRAD_DY, grad_x = number & 2 ? DY : GRAD_X;
        void **a = both.arrays, **t = tangent.arrays;
        run_both(&apart);
        CHECK_OK(bn_double_backward(&l->shape, l->dtype, a[GRAD_DX], a[GRAD_DGAMMA], a[GRAD_DBETA], a[DY], a[X],
                                    a[GAMMA], a[SAVED_MEAN], a[SAVED_INVSTD], a[grad_dy], a[grad_x], a[GRAD_GAMMA],
                                    &l->options));
        check_slices(&both, grad_dy, &apart, GRAD_DY, "grad_dy");
        check_slices(&both, grad_x, &apart, GRAD_X, "grad_x");
        CHECK(memcmp(a[GRAD_GAMMA], apart.arrays[GRAD_GAMMA], l->bytes[GRAD_GAMMA]) == 0, "grad_gamma differs");
        CHECK_OK(bn_jvp(&l->shape, l->dtype, t[X], t[GRAD_DX], t[GAMMA], t[GRAD_DGAMMA], t[GRAD_DBETA], t[SAVED_MEAN],
                        t[SAVED_INVSTD], t[GRAD_DX], &l->options));
        check_slices(&tangent, GRAD_DX, &apart, Y_TANGENT, "y_tangent");
        free_arrays(&apart), free_arrays(&both), free_arrays(&tangent);
    }
}

static void nothing_stands_for_zero(void) { each_derivative(leave_inputs_out); }
static void outputs_are_optional(void) { each_derivative(leave_outputs_out); }
static void in_place(void) { each_derivative(write_in_place); }

/* Tensors of nothing, that may be NULL; for a host that looks at floating-point exceptions. */
static void empty_batches(void) {
    static const size_t shapes[][3] = {{0, 5, 7}, {3, 5, 0}, {0, 40, 1}, {0, 1, 0}};
    for (int number = 0; number < 4 * all_dtype_count * 2 * 2; number++) {
        const size_t *shape = shapes[number % 4];
        bn_dtype dtype = all_dtypes[number / 4 % all_dtype_count];
        layer l = derivative_of(shape[0], shape[1], shape[2], dtype, number / 16 % 2);
        make_derivative(&l);
        if (number >= 32) leave_out(&l, GRAD_DGAMMA);
        feclearexcept(FE_ALL_EXCEPT);
        bn_status statuses[] = {run_jvp(&l), run_double_backward(&l)};
        int raised = fetestexcept(FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW);
        CHECK(statuses[0] == BN_OK && statuses[1] == BN_OK, "%d and %d: %s", statuses[0], statuses[1], bn_last_error());
        CHECK(raised == 0, "case %d raised %d", number, raised);
        for (size_t c = 0; c < shape[1]; c++) CHECK(parameter(&l, GRAD_GAMMA, c) == 0, "grad_gamma of nothing");
        free_arrays(&l);
    }
}

static void number_of_threads_does_not_matter(void) {
    static const size_t shapes[][3] = {{12, 32, 400}, {6, 3, 7001}, {4200, 40, 1}, {999, 7, 25}, {3, 1, 150000}};
    for (int number = 0; number < 5 * all_dtype_count * 2; number++) {
        const size_t *shape = shapes[number % 5];
        bn_dtype dtype = all_dtypes[number / 5 % all_dtype_count];
        layer alone = derivative_of(shape[0], shape[1], shape[2], dtype, number / 20);
        make_derivative(&alone);
        layer original = clone_of(&alone);
        for (int threads = 1; threads <= 4; threads++) {
            layer l = threads == 1 ? alone : clone_of(&original);
            CHECK_OK(bn_set_num_threads(threads));
            run_both(&l);
            const char *other = difference(&alone, &l);
            CHECK(other == NULL, "%d threads: %s (%s, case %d)", threads, other, name_of(dtype), number);
            if (threads > 1) free_arrays(&l);
        }
        free_arrays(&original), free_arrays(&alone);
    }
    CHECK_OK(bn_set_num_threads(0));
}

/* 21 MB each: beyond half of a last cache of up to 40 MB results go past the caches. */
static void past_the_caches(void) {
    layer l = derivative_of(10, 1024, 512, BN_FLOAT32, 0);
    make_derivative(&l);
    run_both(&l);
    for (size_t c = 0; c < 1024; c += 93) check_channel(&l, c);
    free_arrays(&l);
}

static void multiply(layer *l, int array, size_t channel, double factor) {
    for (size_t i = 0; i < l->shape.outer * l->shape.inner; i++) {
        size_t place = place_of(l, (enum array)array, value_of(l, channel, i));
        put(l->dtype, l->arrays[array], place, factor * get(l->dtype, l->arrays[array], place));
    }
}

/* Coefficients that float32 does not have, whose products it has; among channels of ordinary ones. */
static void coefficients_beyond_float32(void) {
    static const struct { double x, u, g, gamma; } factors[] = {
        {1, 1, 1, 1}, {1, 1, 1, 1e-30}, {1, 1, 1, 1e-40}, {1e-25, 1e-25, 1, 1}, {1e-25, 1e-25, 1, 1e-20}, {1, 1, 1, 1},
        {1e30, 1, 1, 1}, {1e30, 1, 1, 1e30}, {1, 1e30, 1, 1}, {1, 1, 1e30, 1e-20}, {1e10, 1, 1, 1e-30},
        {1e37, 1e37, 1, 1},
    };
    static const bn_dtype wide[] = {BN_FLOAT32, BN_FLOAT64, BN_BFLOAT16};
    enum { channels = sizeof factors / sizeof factors[0] };
    for (int number = 0; number < 3 * 3 * 2; number++) {
        size_t inner = number % 3 == 0 ? 150 : number % 3 == 1 ? 3 : 1;
        layer l = derivative_of(5 * (150 / inner), channels, inner, wide[number / 3 % 3], number / 9);
        l.options.eps = 0;
        l.shape.x_stride = channels * inner + (size_t)number % 2;
        make_derivative(&l);
        for (size_t c = 0; c < channels; c++) {
            multiply(&l, X, c, factors[c].x), multiply(&l, GRAD_DX, c, factors[c].u);
            multiply(&l, DY, c, factors[c].g);
            put(l.param, l.arrays[GAMMA], c, factors[c].gamma * parameter(&l, GAMMA, c));
            put(l.param, l.arrays[RUNNING_MEAN], c, fmin(factors[c].x, 1e15) * parameter(&l, RUNNING_MEAN, c));
            put(l.param, l.arrays[RUNNING_VAR], c, fmin(factors[c].x, 1e15) * parameter(&l, RUNNING_VAR, c));
        }
        find_statistics(&l);
        agrees(&l);
        free_arrays(&l);
    }
}

/* A direction that is nearly x's: two terms that float32 does not have, and a sum that it has. */
static void terms_beyond_float32(void) {
    for (int number = 0; number < 2 * 3; number++) {
        size_t inner = number % 3 == 0 ? 60 : number % 3 == 1 ? 3 : 1;
        layer l = derivative_of(3 * (60 / inner), 2, inner, number / 3 ? BN_BFLOAT16 : BN_FLOAT32, 0);
        l.options.eps = 0;
        make_derivative(&l);
        for (size_t i = 0; i < elements_of(&l); i++) {
            double x = element(&l, X, i) - 0.5, other = element(&l, GRAD_DX, i);
            put(l.dtype, l.arrays[X], i, 1e10 * x);
            put(l.dtype, l.arrays[GRAD_DX], i, 1e29 * x + 1e27 * other);
        }
        for (size_t c = 0; c < 2; c++) put(l.param, l.arrays[GAMMA], c, 1e20);
        find_statistics(&l);
        agrees(&l);
        free_arrays(&l);
    }
}

/* x is as small or as large as its variance can be: grad_x goes with its square, and the steps to it with its cube. */
static void deviations_of_float64(void) {
    static const double factors[] = {1e-140, 1e-120, 1e-80, 1e80, 1e120, 1e140};
    layer l = derivative_of(50, 6, 1, BN_FLOAT64, 0);
    l.options.eps = 0;
    make_derivative(&l);
    leave_out(&l, GRAD_DGAMMA);
    for (size_t c = 0; c < 6; c++) multiply(&l, X, c, factors[c]);
    find_statistics(&l);
    agrees(&l);
    free_arrays(&l);
}

/* x, dy and grad_dx far from 0 beside their spread: what is not centred loses these digits. */
static void large_means(void) {
    static const double centers[][3] = {{1e4, 0, 0}, {0, 1e4, 0}, {0, 0, 1e4}, {1e4, -1e4, 1e4}, {-1e4, 1e3, 0}};
    for (int number = 0; number < 5 * 3 * 2 * 2; number++) {
        size_t inner = number % 3 == 0 ? 700 : number % 3 == 1 ? 3 : 1;
        const double *center = centers[number / 3 % 5];
        layer l = derivative_of(700 / inner * 2, 5, inner, dtypes[number / 15 % 2], number / 30);
        make_derivative(&l);
        fill(&l, X, l.dtype, center[0], 1), fill(&l, DY, l.dtype, center[1], 1);
        fill(&l, GRAD_DX, l.dtype, center[2], 1);
        find_statistics(&l);
        agrees(&l);
        free_arrays(&l);
    }
}

/* A constant that is added to dy changes no gradient with respect to x: P takes it away. About 2^20 the deviations here
 * are a few units in the last place, so that a mean that is rounded to a double would be off by a large part of them. */
static void a_constant_in_dy_has_no_part(void) {
    enum { values = 7 };
    static const double x[values] = {0.5, -1, 2, 0.25, -0.75, 1.5, -2.5}, v[values] = {1, -0.5, 0.25, 2, -1, 0.75, -2};
    static const int units[values] = {0, 1, 3, 0, 2, 7, 4};
    double near[values], far[values], of_near[values], of_far[values], mean = 0, gamma = 1.5, direction = 0.75;
    double invstd = 0.5; /* x has a mean of 0, and eps may be anything */
    bn_shape shape = BN_SHAPE(values, 1, 1);
    for (int i = 0; i < values; i++) {
        near[i] = ldexp(units[i], -32);
        far[i] = ldexp(1, 20) + near[i];
    }
    CHECK_OK(bn_double_backward(&shape, BN_FLOAT64, v, &direction, NULL, near, x, &gamma, &mean, &invstd, NULL, of_near,
                                NULL, NULL));
    CHECK_OK(bn_double_backward(&shape, BN_FLOAT64, v, &direction, NULL, far, x, &gamma, &mean, &invstd, NULL, of_far,
                                NULL, NULL));
    for (int i = 0; i < values; i++) {
        double error = fabs(of_far[i] - of_near[i]);
        CHECK(error <= ldexp(1, -40), "value %d: %g instead of %g", i, of_far[i], of_near[i]);
    }
}

/* Statistics that are constants need no x, unless the direction of gamma does. */
static void no_x(void) {
    for (int d = 0; d < all_dtype_count; d++) {
        layer l = derivative_of(6, 3, 35, all_dtypes[d], 1);
        make_derivative(&l);
        leave_out(&l, GRAD_DGAMMA);
        layer without = clone_of(&l);
        leave_out(&without, X);
        CHECK_OK(run_jvp(&l));
        CHECK_OK(run_jvp(&without));
        CHECK(memcmp(l.arrays[Y_TANGENT], without.arrays[Y_TANGENT], l.bytes[Y_TANGENT]) == 0, "y_tangent differs");
        free_arrays(&l), free_arrays(&without);
    }
}

/* All values are equal and eps is 0: x_hat is 0 wherever x goes. */
static void no_variance(void) {
    for (int d = 0; d < all_dtype_count; d++) {
        layer l = derivative_of(6, 3, 35, all_dtypes[d], 0);
        l.options.eps = 0;
        make_derivative(&l);
        fill(&l, X, l.dtype, 12.375, 0);
        find_statistics(&l);
        run_both(&l);
        for (size_t i = 0; i < elements_of(&l); i++) {
            double beta = parameter(&l, GRAD_DBETA, channel_of(&l, i)), nearest = rounded_to(l.dtype, beta);
            CHECK(element(&l, Y_TANGENT, i) == nearest, "y_tangent %g, not %g", element(&l, Y_TANGENT, i), nearest);
            CHECK(element(&l, GRAD_DY, i) == nearest, "grad_dy %g, not %g", element(&l, GRAD_DY, i), nearest);
            CHECK(element(&l, GRAD_X, i) == 0, "grad_x %g", element(&l, GRAD_X, i));
        }
        for (size_t c = 0; c < 3; c++) CHECK(parameter(&l, GRAD_GAMMA, c) == 0, "%g", parameter(&l, GRAD_GAMMA, c));
        free_arrays(&l);
    }
}

/* A NaN or an infinity reaches every value of its channel that depends on it, and no other channel. */
static void channels_are_apart(void) {
    static const double poisons[] = {NAN, INFINITY, -INFINITY};
    static const int poisoned[] = {X, DY, GRAD_DX};
    for (int number = 0; number < 3 * 3 * all_dtype_count * 2; number++) {
        size_t inner = number % 2 ? 1 : 9;
        layer l = derivative_of(5 * 9 / inner, 4, inner, all_dtypes[number / 18], 0);
        make_derivative(&l);
        int array = poisoned[number / 2 % 3];
        put(l.dtype, l.arrays[array], value_of(&l, 2, 31), poisons[number / 6 % 3]);
        find_statistics(&l);
        run_both(&l);
        for (size_t i = 0; i < elements_of(&l); i++) {
            int is_hit = channel_of(&l, i) == 2;
            CHECK(isfinite(element(&l, Y_TANGENT, i)) == (!is_hit || array == DY), "y_tangent[%zu]", i);
            CHECK(isfinite(element(&l, GRAD_DY, i)) == (!is_hit || array == DY), "grad_dy[%zu]", i);
            CHECK(isfinite(element(&l, GRAD_X, i)) == !is_hit, "grad_x[%zu]", i);
        }
        for (size_t c = 0; c < 4; c++) CHECK(isfinite(parameter(&l, GRAD_GAMMA, c)) == (c != 2), "grad_gamma[%zu]", c);
        free_arrays(&l);
    }
}

int main(void) {
    start();
    RUN(every_length);
    RUN(every_layout);
    RUN(nothing_stands_for_zero);
    RUN(outputs_are_optional);
    RUN(in_place);
    RUN(empty_batches);
    RUN(number_of_threads_does_not_matter);
    RUN(past_the_caches);
    RUN(coefficients_beyond_float32);
    RUN(terms_beyond_float32);
    RUN(deviations_of_float64);
    RUN(large_means);
    RUN(a_constant_in_dy_has_no_part);
    RUN(no_x);
    RUN(no_variance);
    RUN(channels_are_apart);
    return finish();
}

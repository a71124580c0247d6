/* SPDX-License-Identifier: Apache-2.0
 *
 * Normalization in training with more than the batch's own statistics; gradients also by finite differences, which know
 * nothing of the formulas. */
#include "agrees.h"

static const bn_source_kind kinds[] = {BN_SOURCE_BATCH, BN_SOURCE_BLEND, BN_SOURCE_RENORM, BN_SOURCE_UPDATED};
enum { kind_count = 4, variants = 3 };

static const size_t shapes[][3] = {{5, 3, 49}, {7, 5, 3}, {61, 7, 1}, {9, 133, 1}, {2, 3, 1031}};
enum { shape_count = sizeof shapes / sizeof shapes[0] };

/* Three settings of each kind: of little effect, of some, and at the limits. */
static void choose(layer *l, bn_source_kind kind, int variant) {
    static const double pseudo_counts[] = {0, 16, 1e6}, r_mins[] = {0, 0.5, 1}, r_maxs[] = {HUGE_VAL, 1.1, 1};
    static const double d_maxs[] = {HUGE_VAL, 0.25, 0}, momenta[] = {0.1, 0.75, 1};
    l->source.kind = kind;
    l->source.pseudo_count = pseudo_counts[variant];
    l->source.r_min = r_mins[variant], l->source.r_max = r_maxs[variant], l->source.d_max = d_maxs[variant];
    l->options.momentum = momenta[variant];
    l->options.biased_running_var = variant == 1;
}

static void each_case(int with, const bn_dtype *dtypes_used, int dtypes_count, void (*agrees)(layer *l)) {
    for (int s = 0; s < shape_count; s++) {
        for (int d = 0; d < dtypes_count; d++) {
            for (int k = 0; k < kind_count; k++) {
                for (int v = 0; v < variants; v++) {
                    layer l = layer_of(shapes[s][0], shapes[s][1], shapes[s][2], dtypes_used[d], with | WITH_SOURCE);
                    choose(&l, kinds[k], v);
                    if (with & WITH_EPILOGUE) l.epilogue.activation = BN_SILU;
                    make_arrays(&l);
                    agrees(&l);
                    free_arrays(&l);
                }
            }
        }
    }
}

static void sources(void) { each_case(0, all_dtypes, all_dtype_count, training_agrees); }

static void sources_with_epilogue(void) {
    each_case(WITH_EPILOGUE | WITH_Z, all_dtypes, all_dtype_count, training_agrees);
}

static void sources_with_weights(void) { each_case(WITH_WEIGHTS, all_dtypes, all_dtype_count, training_agrees); }

static void kept_agrees(layer *l) {
    l->running.average = BN_AVERAGE_WINDOWED;
    training_agrees(l);
}

static void sources_with_running(void) {
    each_case(WITH_RUNNING, all_dtypes, all_dtype_count, kept_agrees);
    each_case(WITH_RUNNING | WITH_NEW | WITH_WEIGHTS, all_dtypes, all_dtype_count, kept_agrees);
}

/* A loss whose gradient with respect to y is dy. */
static double loss(layer *l) {
    long double sum = 0;
    layer trial = clone_of(l);
    CHECK_OK(train_layer(&trial));
    for (size_t i = 0; i < elements_of(l); i++) sum += (long double)element(l, DY, i) * element(&trial, Y, i);
    free_arrays(&trial);
    return (double)sum;
}

/* True if difference quotients are what bn_backward gives: it takes r and d of batch renormalization for constants, but
 * they move with x, unless their limits hold them still. */
static int is_smooth(const layer *l) {
    return l->source.kind != BN_SOURCE_RENORM || (l->source.r_min == 1 && l->source.r_max == 1 && l->source.d_max == 0);
}

static double difference_quotient(layer *l, enum array array, bn_dtype dtype, size_t place) {
    const double step = 1e-5;
    double value = get(dtype, l->arrays[array], place), low, high;
    put(dtype, l->arrays[array], place, value + step);
    high = loss(l);
    put(dtype, l->arrays[array], place, value - step);
    low = loss(l);
    put(dtype, l->arrays[array], place, value);
    return (high - low) / (2 * step);
}

/* A few elements of each gradient: each takes two calls. Their thousands of outputs are rounded to 2^-53 each, which
 * the step makes 1e-7 of. */
static void check_quotients(layer *l) {
    if (!is_smooth(l)) return;
    layer gradients = clone_of(l);
    CHECK_OK(train_layer(&gradients));
    CHECK_OK(back_layer(&gradients));
    size_t count = elements_of(l), channels = l->shape.channels;
    for (size_t i = 0; i < count; i += count / 6 + 1) {
        double quotient = difference_quotient(l, X, l->dtype, place_of(l, X, i)), dx = element(&gradients, DX, i);
        CHECK(fabs(dx - quotient) <= 1e-6 * (1 + fabs(quotient)), "dx[%zu] is %.12g, expected %.12g (kind %d)", i, dx,
              quotient, (int)l->source.kind);
        if (l->arrays[DZ] == NULL) continue;
        double dz = element(&gradients, DZ, i);
        quotient = difference_quotient(l, Z, l->dtype, place_of(l, Z, i));
        CHECK(fabs(dz - quotient) <= 1e-6 * (1 + fabs(quotient)), "dz[%zu] is %.12g, expected %.12g", i, dz, quotient);
    }
    for (size_t c = 0; c < channels; c += channels / 3 + 1) {
        double dgamma = parameter(&gradients, DGAMMA, c), dbeta = parameter(&gradients, DBETA, c);
        double by_gamma = difference_quotient(l, GAMMA, l->param, c);
        double by_beta = difference_quotient(l, BETA, l->param, c);
        CHECK(fabs(dgamma - by_gamma) <= 1e-6 * (1 + fabs(by_gamma)), "dgamma %.12g, expected %.12g", dgamma, by_gamma);
        CHECK(fabs(dbeta - by_beta) <= 1e-6 * (1 + fabs(by_beta)), "dbeta %.12g, expected %.12g", dbeta, by_beta);
    }
    free_arrays(&gradients);
}

static const bn_dtype float64_alone[] = {BN_FLOAT64};

static void finite_differences(void) {
    each_case(0, float64_alone, 1, check_quotients);
    each_case(WITH_EPILOGUE | WITH_Z, float64_alone, 1, check_quotients);
    each_case(WITH_WEIGHTS, float64_alone, 1, check_quotients);
}

/* The loss of a moved x, with r and d of the unmoved one. */
static void renorm_by_differences(void) {
    for (int v = 0; v < variants; v++) {
        layer l = layer_of(5, 2, 9, BN_FLOAT64, WITH_SOURCE);
        choose(&l, BN_SOURCE_RENORM, v);
        make_arrays(&l);
        oracle o = expected_training(&l);
        CHECK_OK(train_layer(&l));
        CHECK_OK(back_layer(&l));
        for (size_t i = 0; i < elements_of(&l); i += 5) {
            double losses[2], place = element(&l, X, i);
            for (int side = 0; side < 2; side++) {
                put(l.dtype, l.arrays[X], i, place + (side ? 1e-5 : -1e-5));
                oracle moved = expected_training(&l);
                losses[side] = 0;
                for (size_t k = 0; k < elements_of(&l); k++) {
                    size_t c = channel_of(&l, k);
                    const normalizer *n = &moved.normalizers[c], *unmoved = &o.normalizers[c];
                    double r = unmoved->b * sqrt(unmoved->variance + l.options.eps);
                    double x_hat = (element(&l, X, k) - n->mean) / sqrt(n->variance + l.options.eps) * r + unmoved->d;
                    losses[side] += element(&l, DY, k) * parameter(&l, GAMMA, c) * x_hat;
                }
                free_oracle(&moved);
            }
            put(l.dtype, l.arrays[X], i, place);
            double quotient = (losses[1] - losses[0]) / 2e-5, dx = element(&l, DX, i);
            CHECK(fabs(dx - quotient) <= 1e-7 * (1 + fabs(quotient)), "dx[%zu] is %.12g, expected %.12g", i, dx,
                  quotient);
        }
        free_arrays(&l), free_oracle(&o);
    }
}

/* Numbers worked out by hand: x of mean 3 and variance 4, running statistics of mean 1 and variance 16, eps 0. */
static void by_hand(void) {
    double x[4] = {1, 1, 5, 5}, y[4], running_mean, running_var, saved_values[4], mean, invstd;
    bn_shape shape = BN_SHAPE(4, 1, 1);
    bn_options options = BN_OPTIONS_INIT;
    bn_source source = BN_SOURCE_INIT;
    options.eps = 0, options.momentum = 0.5, options.biased_running_var = 1;
    options.source = &source;
    source.saved = saved_values;
    static const struct { bn_source_kind kind; double pseudo_count, r_min, r_max, d_max, low, high; } cases[] = {
        {BN_SOURCE_BATCH, 0, 0, HUGE_VAL, HUGE_VAL, -1, 1},
        {BN_SOURCE_BLEND, 0, 0, HUGE_VAL, HUGE_VAL, -1, 1},
        {BN_SOURCE_BLEND, 12, 0, HUGE_VAL, HUGE_VAL, -0.5 / 3.605551275463989, 3.5 / 3.605551275463989}, /* 1.5, 13 */
        {BN_SOURCE_RENORM, 0, 0, HUGE_VAL, HUGE_VAL, 0, 1},    /* r = 1 / 2, d = 1 / 2 */
        {BN_SOURCE_RENORM, 0, 0.75, HUGE_VAL, 0.25, -0.5, 1},  /* r = 3 / 4, d = 1 / 4 */
        {BN_SOURCE_RENORM, 0, 1, 1, 0, -1, 1},
        {BN_SOURCE_UPDATED, 0, 0, HUGE_VAL, HUGE_VAL, -1 / 3.1622776601683795, 3 / 3.1622776601683795}, /* 2 and 10 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        running_mean = 1, running_var = 16;
        source.kind = cases[i].kind, source.pseudo_count = cases[i].pseudo_count;
        source.r_min = cases[i].r_min, source.r_max = cases[i].r_max, source.d_max = cases[i].d_max;
        CHECK_OK(bn_forward_training(&shape, BN_FLOAT64, x, NULL, NULL, &running_mean, &running_var, y, &mean, &invstd,
                                     &options));
        CHECK(fabs(y[0] - cases[i].low) < 1e-14 && fabs(y[3] - cases[i].high) < 1e-14, "case %zu: %.17g %.17g", i,
              y[0], y[3]);
        CHECK(y[1] == y[0] && y[2] == y[3], "case %zu", i);
        CHECK(running_mean == 2 && running_var == 10, "case %zu: running %g %g", i, running_mean, running_var);
    }
}

/* A batch whose weights are all 0 has no say: what is left is the running statistics, of mean 1 and variance 16, or mean 0
 * and variance 0 where there are no others. eps is 9. */
static void batches_without_weight(void) {
    double x[4] = {1, 1, 6, 6}, dy[4] = {1, 2, 3, 4}, y[4], dx[4], saved_values[4], mean, invstd, running[2];
    double zeros[4] = {0, 0, 0, 0};
    bn_weights weights = BN_WEIGHTS_INIT;
    bn_shape shape = BN_SHAPE(4, 1, 1);
    bn_options options = BN_OPTIONS_INIT;
    bn_source source = BN_SOURCE_INIT;
    weights.values = zeros, shape.weights = &weights;
    options.eps = 9, options.source = &source, source.saved = saved_values;
    static const struct { bn_source_kind kind; double pseudo_count, r_min, r_max, low, high, slope; } cases[] = {
        {BN_SOURCE_BATCH, 0, 0, HUGE_VAL, 1 / 3.0, 2, 1 / 3.0}, {BN_SOURCE_BLEND, 0, 0, HUGE_VAL, 1 / 3.0, 2, 1 / 3.0},
        {BN_SOURCE_BLEND, 12, 0, HUGE_VAL, 0, 1, 0.2},          {BN_SOURCE_UPDATED, 0, 0, HUGE_VAL, 0, 1, 0.2},
        {BN_SOURCE_RENORM, 0, 0, HUGE_VAL, 0, 1, 0.2},          {BN_SOURCE_RENORM, 0, 1, 1, 2 / 15.0, 1.8, 1 / 3.0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        running[0] = 1, running[1] = 16;
        source.kind = cases[i].kind, source.pseudo_count = cases[i].pseudo_count;
        source.r_min = cases[i].r_min, source.r_max = cases[i].r_max;
        CHECK_OK(bn_forward_training(&shape, BN_FLOAT64, x, NULL, NULL, &running[0], &running[1], y, &mean, &invstd,
                                     &options));
        CHECK_OK(bn_backward(&shape, BN_FLOAT64, dy, x, NULL, NULL, &mean, &invstd, dx, NULL, NULL, &options));
        CHECK(fabs(y[0] - cases[i].low) < 1e-14 && fabs(y[3] - cases[i].high) < 1e-14, "case %zu: %.17g %.17g", i,
              y[0], y[3]);
        for (int k = 0; k < 4; k++) {
            CHECK(fabs(dx[k] - cases[i].slope * dy[k]) < 1e-14, "case %zu: dx[%d] is %.17g", i, k, dx[k]);
        }
        CHECK(running[0] == 1 && running[1] == 16, "case %zu: running %g %g", i, running[0], running[1]);
    }
}

/* An updated average of momentum 0 is the running statistics: as in inference, and frozen to the gradient. */
static void constants(void) {
    for (int d = 0; d < all_dtype_count; d++) {
        layer l = layer_of(5, 3, 49, all_dtypes[d], WITH_SOURCE);
        l.source.kind = BN_SOURCE_UPDATED;
        l.options.momentum = 0;
        make_arrays(&l);
        training_agrees(&l);
        layer other = clone_of(&l);
        other.options.frozen = 1;
        CHECK_OK(infer_layer(&other));
        other.with = 0;
        CHECK_OK(back_layer(&other));
        for (size_t i = 0; i < elements_of(&l); i++) {
            check_close(&l, element(&l, Y, i), element(&other, Y, i), fabs(element(&other, Y, i)), "y", i);
            check_close(&l, element(&l, DX, i), element(&other, DX, i), fabs(element(&other, DX, i)), "dx", i);
        }
        free_arrays(&l), free_arrays(&other);
    }
}

/* Batches of one value have another source as well: nothing of them is dx. */
static void single_values(void) {
    for (int k = 1; k < kind_count; k++) {
        layer l = layer_of(1, 5, 1, BN_FLOAT64, WITH_SOURCE | WITH_RUNNING);
        choose(&l, kinds[k], 1);
        l.running.single_value = BN_SINGLE_VALUE_RUNNING;
        l.options.frozen = 1;
        make_arrays(&l);
        training_agrees(&l);
        free_arrays(&l);
    }
}

/* Where one value per channel is to give beta, it does so whatever it would be normalized with. */
static void single_values_are_beta(void) {
    for (int k = 0; k < kind_count; k++) {
        layer l = layer_of(1, 5, 1, BN_FLOAT64, WITH_SOURCE | WITH_RUNNING);
        choose(&l, kinds[k], 1);
        l.running.single_value = BN_SINGLE_VALUE_BETA;
        make_arrays(&l);
        CHECK_OK(train_layer(&l));
        CHECK(*(int32_t *)l.arrays[OUTCOME] == BN_OUTCOME_BETA, "outcome %d", *(int32_t *)l.arrays[OUTCOME]);
        CHECK_OK(back_layer(&l));
        for (size_t c = 0; c < 5; c++) {
            CHECK(element(&l, Y, c) == parameter(&l, BETA, c), "y is %g, beta %g (kind %d)", element(&l, Y, c),
                  parameter(&l, BETA, c), k);
            CHECK(element(&l, DX, c) == 0, "dx is %g (kind %d)", element(&l, DX, c), k);
            CHECK(parameter(&l, DGAMMA, c) == 0, "dgamma is %g (kind %d)", parameter(&l, DGAMMA, c), k);
        }
        free_arrays(&l);
    }
}

int main(void) {
    start();
    RUN(sources);
    RUN(sources_with_epilogue);
    RUN(sources_with_weights);
    RUN(sources_with_running);
    RUN(finite_differences);
    RUN(renorm_by_differences);
    RUN(by_hand);
    RUN(batches_without_weight);
    RUN(constants);
    RUN(single_values);
    RUN(single_values_are_beta);
    return finish();
}

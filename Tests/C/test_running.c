/* SPDX-License-Identifier: Apache-2.0
 *
 * Policies for running statistics: averages, the pure form, batches of one value or with values that are not finite. */
#include "agrees.h"

static const bn_average averages[] = {BN_AVERAGE_EXPONENTIAL, BN_AVERAGE_CUMULATIVE, BN_AVERAGE_WINDOWED,
                                      BN_AVERAGE_DEBIASED, BN_AVERAGE_FILLED};
enum { average_count = sizeof averages / sizeof averages[0], calls = 15 };

/* One batch after another, from the first; a tenth counts for more than 1 / n from the tenth on. */
static void a_history(bn_average average, bn_dtype dtype, int with, int is_biased, double momentum) {
    layer l = layer_of(5, 3, 7, dtype, with | WITH_RUNNING);
    l.running.average = average;
    l.options.momentum = momentum;
    l.options.biased_running_var = is_biased;
    make_arrays(&l);
    memset(l.arrays[NUM_BATCHES], 0, l.bytes[NUM_BATCHES]);
    for (int call = 0; call < calls; call++) {
        fill(&l, X, l.dtype, random_value(), 2);
        training_agrees(&l);
        if ((with & WITH_NEW) == 0) continue;
        memcpy(l.arrays[RUNNING_MEAN], l.arrays[NEW_MEAN], l.bytes[NEW_MEAN]);
        memcpy(l.arrays[RUNNING_VAR], l.arrays[NEW_VAR], l.bytes[NEW_VAR]);
        memcpy(l.arrays[NUM_BATCHES], l.arrays[NEW_NUM_BATCHES], l.bytes[NEW_NUM_BATCHES]);
    }
    CHECK(*(int64_t *)l.arrays[NUM_BATCHES] == calls, "%lld batches", (long long)*(int64_t *)l.arrays[NUM_BATCHES]);
    free_arrays(&l);
}

static void histories(void) {
    for (int a = 0; a < average_count; a++) {
        for (int d = 0; d < all_dtype_count; d++) {
            for (int is_new = 0; is_new < 2; is_new++) {
                for (int is_biased = 0; is_biased < 2; is_biased++) {
                    a_history(averages[a], all_dtypes[d], is_new ? WITH_NEW : 0, is_biased, 0.1);
                    a_history(averages[a], all_dtypes[d], is_new ? WITH_NEW : 0, is_biased, 1);
                }
            }
        }
    }
}

/* The mean of the means of all batches so far, as PyTorch's momentum=None keeps it. */
static void cumulative_average(void) {
    double running_mean = 77, running_var = 77, x[4] = {0};
    int64_t batches = 0;
    bn_shape shape = BN_SHAPE(4, 1, 1);
    bn_options options = BN_OPTIONS_INIT;
    bn_running running = BN_RUNNING_INIT;
    running.average = BN_AVERAGE_CUMULATIVE;
    running.num_batches = &batches;
    options.running = &running;
    options.biased_running_var = 1;
    for (int i = 1; i <= 8; i++) {
        x[0] = x[1] = i, x[2] = x[3] = 3 * i; /* mean 2 i, variance i * i */
        CHECK_OK(bn_forward_training(&shape, BN_FLOAT64, x, NULL, NULL, &running_mean, &running_var, NULL, NULL, NULL,
                                     &options));
        double squares = (i + 1) * (2 * i + 1) / 6.0;
        CHECK(fabs(running_mean - (i + 1)) < 1e-14 * i, "%.17g after %d", running_mean, i);
        CHECK(fabs(running_var - squares) < 1e-14 * squares * i, "%.17g after %d", running_var, i);
        CHECK(batches == i, "%lld batches", (long long)batches);
    }
}

/* A momentum of 0 is where the formula of BN_AVERAGE_DEBIASED has no value, but a limit, 1 / n. */
static void debiased_without_momentum(void) {
    layer l = layer_of(5, 3, 7, BN_FLOAT64, WITH_RUNNING);
    l.running.average = BN_AVERAGE_DEBIASED;
    l.options.momentum = 0;
    make_arrays(&l);
    for (size_t i = 0; i < 3; i++) {
        *(int64_t *)l.arrays[NUM_BATCHES] = 3;
        double before = parameter(&l, RUNNING_MEAN, i);
        CHECK_OK(train_layer(&l));
        double expected = 0.75 * before + 0.25 * saved(&l, SAVED_MEAN, i), mean = parameter(&l, RUNNING_MEAN, i);
        CHECK(fabs(mean - expected) < 1e-14, "%.17g, expected %.17g", mean, expected);
    }
    free_arrays(&l);
}

/* Very many batches: the weight of the next is what is left. */
static void many_batches(void) {
    for (int a = 1; a < average_count; a++) {
        layer l = layer_of(5, 3, 7, BN_FLOAT64, WITH_RUNNING);
        l.running.average = averages[a];
        make_arrays(&l);
        *(int64_t *)l.arrays[NUM_BATCHES] = INT64_C(1) << 60;
        training_agrees(&l);
        free_arrays(&l);
    }
}

/* The same bits into new arrays, and nothing into the old ones. */
static void pure_form(void) {
    for (int a = 0; a < average_count; a++) {
        for (int d = 0; d < all_dtype_count; d++) {
            layer l = layer_of(5, 3, 7, all_dtypes[d], WITH_RUNNING | WITH_NEW);
            l.running.average = averages[a];
            make_arrays(&l);
            layer before = clone_of(&l), in_place = clone_of(&l);
            CHECK_OK(train_layer(&l));
            void *news[3];
            for (int i = 0; i < 3; i++) news[i] = in_place.arrays[NEW_MEAN + i], in_place.arrays[NEW_MEAN + i] = NULL;
            CHECK_OK(train_layer(&in_place));
            for (int i = 0; i < 3; i++) in_place.arrays[NEW_MEAN + i] = news[i];
            CHECK(memcmp(l.arrays[RUNNING_MEAN], before.arrays[RUNNING_MEAN], l.bytes[RUNNING_MEAN]) == 0, "mean");
            CHECK(memcmp(l.arrays[RUNNING_VAR], before.arrays[RUNNING_VAR], l.bytes[RUNNING_VAR]) == 0, "var");
            CHECK(memcmp(l.arrays[NUM_BATCHES], before.arrays[NUM_BATCHES], l.bytes[NUM_BATCHES]) == 0, "batches");
            CHECK(memcmp(l.arrays[NEW_MEAN], in_place.arrays[RUNNING_MEAN], l.bytes[NEW_MEAN]) == 0, "new mean");
            CHECK(memcmp(l.arrays[NEW_VAR], in_place.arrays[RUNNING_VAR], l.bytes[NEW_VAR]) == 0, "new var");
            CHECK(memcmp(l.arrays[NEW_NUM_BATCHES], in_place.arrays[NUM_BATCHES], l.bytes[NUM_BATCHES]) == 0, "count");
            CHECK(memcmp(l.arrays[Y], in_place.arrays[Y], l.bytes[Y]) == 0, "y");
            free_arrays(&l), free_arrays(&before), free_arrays(&in_place);
        }
    }
}

/* Those of the three that there are: without num_batches there are two. */
static void pure_form_without_count(void) {
    layer l = layer_of(5, 3, 7, BN_FLOAT32, WITH_RUNNING | WITH_NEW);
    make_arrays(&l);
    void *counts[2] = {l.arrays[NUM_BATCHES], l.arrays[NEW_NUM_BATCHES]};
    l.arrays[NUM_BATCHES] = l.arrays[NEW_NUM_BATCHES] = NULL;
    oracle o = expected_training(&l);
    CHECK_OK(train_layer(&l));
    check_training(&o);
    l.arrays[NUM_BATCHES] = counts[0], l.arrays[NEW_NUM_BATCHES] = counts[1];
    free_arrays(&l), free_oracle(&o);
}

/* A batch that does not count leaves the old numbers, in place or as the new ones. */
static void check_kept(const layer *l, const layer *before) {
    int is_new = (l->with & WITH_NEW) != 0;
    CHECK(memcmp(l->arrays[RUNNING_MEAN], before->arrays[RUNNING_MEAN], l->bytes[RUNNING_MEAN]) == 0, "running_mean");
    CHECK(memcmp(l->arrays[RUNNING_VAR], before->arrays[RUNNING_VAR], l->bytes[RUNNING_VAR]) == 0, "running_var");
    CHECK(memcmp(l->arrays[NUM_BATCHES], before->arrays[NUM_BATCHES], l->bytes[NUM_BATCHES]) == 0, "num_batches");
    if (!is_new) return;
    CHECK(memcmp(l->arrays[NEW_MEAN], before->arrays[RUNNING_MEAN], l->bytes[NEW_MEAN]) == 0, "new_running_mean");
    CHECK(memcmp(l->arrays[NEW_VAR], before->arrays[RUNNING_VAR], l->bytes[NEW_VAR]) == 0, "new_running_var");
    CHECK(memcmp(l->arrays[NEW_NUM_BATCHES], before->arrays[NUM_BATCHES], l->bytes[NEW_NUM_BATCHES]) == 0, "counts");
}

/* Rounded running statistics would differ in the oracle's bits, but they are not to be touched at all. */
static void single_value(void) {
    for (int policy = BN_SINGLE_VALUE_RUNNING; policy <= BN_SINGLE_VALUE_BETA; policy++) {
        for (int d = 0; d < all_dtype_count; d++) {
            for (int is_more = 0; is_more < 2; is_more++) {
                int with = is_more ? WITH_NEW | WITH_EPILOGUE | WITH_Z : 0;
                layer l = layer_of(1, 37, 1, all_dtypes[d], WITH_RUNNING | with);
                l.running.single_value = (bn_single_value)policy;
                l.epilogue.activation = is_more ? BN_SILU : BN_IDENTITY;
                make_arrays(&l);
                layer before = clone_of(&l);
                l.options.frozen = policy == BN_SINGLE_VALUE_RUNNING;
                training_agrees(&l);
                check_kept(&l, &before);
                if (policy == BN_SINGLE_VALUE_BETA) {
                    for (size_t c = 0; c < 37; c++) CHECK(element(&l, DX, c) == 0, "dx %g", element(&l, DX, c));
                }
                free_arrays(&l), free_arrays(&before);
            }
        }
    }
}

/* One position has the only weight: the others are mapped with the same coefficients as this one. */
static void single_weight(void) {
    for (int policy = BN_SINGLE_VALUE_RUNNING; policy <= BN_SINGLE_VALUE_BETA; policy++) {
        layer l = layer_of(4, 3, 5, BN_FLOAT64, WITH_RUNNING | WITH_WEIGHTS);
        l.running.single_value = (bn_single_value)policy;
        make_arrays(&l);
        memset(l.arrays[WEIGHTS], 0, l.bytes[WEIGHTS]);
        ((double *)l.arrays[WEIGHTS])[7] = 0.5;
        l.options.frozen = policy == BN_SINGLE_VALUE_RUNNING;
        layer before = clone_of(&l);
        training_agrees(&l);
        check_kept(&l, &before);
        free_arrays(&l), free_arrays(&before);
    }
}

static void single_value_is_an_error(void) {
    layer l = layer_of(1, 37, 1, BN_FLOAT32, WITH_RUNNING);
    make_arrays(&l);
    layer before = clone_of(&l);
    CHECK(train_layer(&l) == BN_ERROR_SINGLE_VALUE, "%s", bn_last_error());
    CHECK(difference(&l, &before) == NULL, "%s was written", difference(&l, &before));
    free_arrays(&l), free_arrays(&before);
}

/* A batch with values that are not finite, in the middle one of its channels; or whose variance overflows. */
static layer spoilt(bn_dtype dtype, double value, int with, bn_nonfinite policy) {
    layer l = layer_of(5, 3, 49, dtype, with | WITH_RUNNING);
    l.running.nonfinite = policy;
    make_arrays(&l);
    put(dtype, l.arrays[X], 49 + 7, value);
    return l;
}

static const double spoilers[] = {NAN, HUGE_VAL, -HUGE_VAL};
enum { spoiler_count = sizeof spoilers / sizeof spoilers[0] };

static void nonfinite_is_propagated(void) {
    for (int d = 0; d < all_dtype_count; d++) {
        for (int i = 0; i < spoiler_count; i++) {
            layer l = spoilt(all_dtypes[d], spoilers[i], i == 1 ? WITH_NEW : 0, BN_NONFINITE_PROPAGATE);
            layer before = clone_of(&l), clean = clone_of(&l);
            put(clean.dtype, clean.arrays[X], 49 + 7, 1);
            CHECK_OK(train_layer(&l));
            CHECK_OK(train_layer(&clean));
            enum array means = i == 1 ? NEW_MEAN : RUNNING_MEAN, vars = i == 1 ? NEW_VAR : RUNNING_VAR;
            for (size_t c = 0; c < 3; c++) {
                double mean = parameter(&l, means, c), var = parameter(&l, vars, c);
                if (c == 1) CHECK(!isfinite(mean) && !isfinite(var), "%g and %g", mean, var);
                else CHECK(mean == parameter(&clean, means, c) && var == parameter(&clean, vars, c), "%g, %g", mean,
                           var);
            }
            const int64_t *counts = l.arrays[i == 1 ? NEW_NUM_BATCHES : NUM_BATCHES];
            CHECK(*counts == *(int64_t *)before.arrays[NUM_BATCHES] + 1, "not counted");
            CHECK(*(int32_t *)l.arrays[OUTCOME] == BN_OUTCOME_USED, "outcome %d", *(int32_t *)l.arrays[OUTCOME]);
            free_arrays(&l), free_arrays(&before), free_arrays(&clean);
        }
    }
}

static void nonfinite_is_skipped(void) {
    for (int d = 0; d < all_dtype_count; d++) {
        for (int i = 0; i < 2 * spoiler_count; i++) {
            layer l = spoilt(all_dtypes[d], spoilers[i / 2], i % 2 ? WITH_NEW : 0, BN_NONFINITE_SKIP);
            layer before = clone_of(&l), plain = clone_of(&l);
            plain.running.nonfinite = BN_NONFINITE_PROPAGATE;
            CHECK_OK(train_layer(&l));
            CHECK_OK(train_layer(&plain));
            check_kept(&l, &before);
            CHECK(*(int32_t *)l.arrays[OUTCOME] == BN_OUTCOME_NONFINITE, "outcome %d", *(int32_t *)l.arrays[OUTCOME]);
            for (size_t k = 0; k < elements_of(&l); k++) {
                double y = element(&l, Y, k), expected = element(&plain, Y, k);
                CHECK(y == expected || (isnan(y) && isnan(expected)), "y[%zu] is %g, expected %g", k, y, expected);
            }
            free_arrays(&l), free_arrays(&before), free_arrays(&plain);
        }
    }
}

static void nonfinite_is_an_error(void) {
    for (int d = 0; d < all_dtype_count; d++) {
        for (int i = 0; i < 2 * spoiler_count; i++) {
            int with = WITH_EPILOGUE | WITH_MASK | (i % 2 ? WITH_NEW : 0);
            layer l = spoilt(all_dtypes[d], spoilers[i / 2], with, BN_NONFINITE_ERROR);
            layer before = clone_of(&l);
            bn_status status = train_layer(&l);
            CHECK(status == BN_ERROR_NONFINITE, "status %d: %s", (int)status, bn_last_error());
            CHECK(strstr(bn_last_error(), " x") != NULL, "\"%s\"", bn_last_error());
            CHECK(difference(&l, &before) == NULL, "%s was written", difference(&l, &before));
            put(l.dtype, l.arrays[X], 49 + 7, 1); /* and of finite values, it is as if nothing had been asked */
            training_agrees(&l);
            free_arrays(&l), free_arrays(&before);
        }
    }
}

/* Finite float64 values whose variance is not; of float32 there are none, but for what running_var holds. */
static void overflow_is_not_finite(void) {
    layer l = spoilt(BN_FLOAT64, 1e300, 0, BN_NONFINITE_ERROR), f = spoilt(BN_FLOAT32, 3e18, 0, BN_NONFINITE_ERROR);
    CHECK(train_layer(&l) == BN_ERROR_NONFINITE, "%s", bn_last_error());
    CHECK_OK(train_layer(&f));
    free_arrays(&l), free_arrays(&f);
}

/* The message names the element of running_var, row by row. */
static void overflow_has_its_place(void) {
    layer l = layer_of(6, 3, 49, BN_FLOAT32, WITH_RUNNING | WITH_GROUPS);
    l.groups.samples = 6, l.groups.groups = 2, l.groups.per_group = BN_PER_GROUP_STATISTICS | BN_PER_GROUP_RUNNING;
    l.running.nonfinite = BN_NONFINITE_ERROR;
    make_arrays(&l);
    for (size_t i = 0; i < elements_of(&l); i++) {
        if (i / (3 * 49) >= 3 && channel_of(&l, i) == 2) put(l.dtype, l.arrays[X], i, i % 2 ? 3e20 : -3e20);
    }
    CHECK(train_layer(&l) == BN_ERROR_NONFINITE, "%s", bn_last_error());
    CHECK(strstr(bn_last_error(), "running_var[5]") != NULL, "\"%s\"", bn_last_error());
    free_arrays(&l);
}

/* A NaN that has no weight is none. */
static void hidden_nan_is_finite(void) {
    layer l = layer_of(5, 3, 49, BN_FLOAT32, WITH_RUNNING | WITH_WEIGHTS);
    l.running.nonfinite = BN_NONFINITE_ERROR;
    l.weights.masked = BN_MASKED_ZERO;
    make_arrays(&l);
    ((float *)l.arrays[WEIGHTS])[7] = 0;
    put(l.dtype, l.arrays[X], 49 + 7, NAN);
    training_agrees(&l);
    free_arrays(&l);
}

static void empty_batches(void) {
    static const size_t empty[][2] = {{0, 7}, {5, 0}, {0, 0}};
    for (int i = 0; i < 3; i++) {
        for (int with = 0; with <= WITH_NEW; with += WITH_NEW) {
            layer l = layer_of(empty[i][0], 3, empty[i][1], BN_FLOAT32, WITH_RUNNING | with);
            l.running.average = BN_AVERAGE_CUMULATIVE;
            make_arrays(&l);
            layer before = clone_of(&l);
            CHECK_OK(train_layer(&l));
            check_kept(&l, &before);
            CHECK(*(int32_t *)l.arrays[OUTCOME] == BN_OUTCOME_EMPTY, "outcome %d", *(int32_t *)l.arrays[OUTCOME]);
            CHECK(saved(&l, SAVED_MEAN, 0) == 0, "saved_mean %g", saved(&l, SAVED_MEAN, 0));
            CHECK(fabs(saved(&l, SAVED_INVSTD, 0) * sqrt(l.options.eps) - 1) < 1e-12, "%.17g",
                  saved(&l, SAVED_INVSTD, 0));
            free_arrays(&l), free_arrays(&before);
        }
    }
}

/* Without running statistics there is an outcome all the same. */
static void outcome_alone(void) {
    float x[6] = {1, 2, 3, 4, 5, 6}, y[6];
    int32_t outcome = -1;
    bn_shape shape = BN_SHAPE(3, 2, 1);
    bn_options options = BN_OPTIONS_INIT;
    bn_running running = BN_RUNNING_INIT;
    running.outcome = &outcome;
    options.running = &running;
    CHECK_OK(bn_forward_training(&shape, BN_FLOAT32, x, NULL, NULL, NULL, NULL, y, NULL, NULL, &options));
    CHECK(outcome == BN_OUTCOME_USED, "outcome %d", outcome);
    running.single_value = BN_SINGLE_VALUE_BETA;
    shape.outer = 1;
    CHECK_OK(bn_forward_training(&shape, BN_FLOAT32, x, NULL, NULL, NULL, NULL, y, NULL, NULL, &options));
    CHECK(outcome == BN_OUTCOME_BETA && y[0] == 0 && y[1] == 0, "outcome %d: %g %g", outcome, y[0], y[1]);
}

int main(void) {
    start();
    RUN(histories);
    RUN(cumulative_average);
    RUN(debiased_without_momentum);
    RUN(many_batches);
    RUN(pure_form);
    RUN(pure_form_without_count);
    RUN(single_value);
    RUN(single_weight);
    RUN(single_value_is_an_error);
    RUN(nonfinite_is_propagated);
    RUN(nonfinite_is_skipped);
    RUN(nonfinite_is_an_error);
    RUN(overflow_is_not_finite);
    RUN(overflow_has_its_place);
    RUN(hidden_nan_is_finite);
    RUN(empty_batches);
    RUN(outcome_alone);
    return finish();
}

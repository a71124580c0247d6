/* SPDX-License-Identifier: Apache-2.0
 *
 * bn_nonfinite looks at the values that would be stored: a batch whose variance is a fine double, but makes running_var
 * one that its type does not hold, is skipped, or an error and nothing written. */
#include "layer.h"

static const struct { bn_dtype dtype, param; double std; } kinds[] = {
    {BN_FLOAT16, BN_FLOAT16, 1500}, {BN_BFLOAT16, BN_BFLOAT16, 6e19}, {BN_FLOAT32, BN_FLOAT32, 6e19},
    {BN_BFLOAT16, BN_FLOAT32, 6e19}, {BN_FLOAT64, BN_FLOAT64, 1e154},
};
enum { kind_count = sizeof kinds / sizeof kinds[0] };

/* A layer of which channel 1 has values of that standard deviation: momentum times their variance is too much. */
static layer too_wide(int kind, int with, bn_nonfinite policy) {
    layer l = layer_of(8, 3, 5, kinds[kind].dtype, with | WITH_RUNNING);
    l.param = kinds[kind].param;
    l.options.param_dtype = kinds[kind].param;
    l.options.momentum = 0.5;
    l.running.nonfinite = policy;
    l.groups.samples = 8, l.groups.groups = 4;
    make_arrays(&l);
    for (size_t i = 0; i < elements_of(&l); i++) {
        double sign = i % 2 ? 1 : -1;
        if (channel_of(&l, i) == 1) put(l.dtype, l.arrays[X], i, sign * kinds[kind].std * (1 + 0.01 * (double)(i % 7)));
    }
    return l;
}

static int is_finite(const layer *l, enum array vector) {
    for (size_t c = 0; c < l->bytes[vector] / size_of(l->param); c++) {
        if (!isfinite(parameter(l, vector, c))) return 0;
    }
    return 1;
}

static void batch_is_skipped(void) {
    for (int k = 0; k < kind_count; k++) {
        for (int is_new = 0; is_new < 2; is_new++) {
            layer l = too_wide(k, is_new ? WITH_NEW : 0, BN_NONFINITE_SKIP);
            layer before = clone_of(&l), plain = clone_of(&l);
            enum array mean = is_new ? NEW_MEAN : RUNNING_MEAN, var = is_new ? NEW_VAR : RUNNING_VAR;
            plain.running.nonfinite = BN_NONFINITE_PROPAGATE;
            CHECK_OK(train_layer(&plain));
            CHECK(!is_finite(&plain, var), "%s holds it", name_of(l.param));
            CHECK_OK(train_layer(&l));
            CHECK(*(int32_t *)l.arrays[OUTCOME] == BN_OUTCOME_NONFINITE, "outcome %d", *(int32_t *)l.arrays[OUTCOME]);
            CHECK(memcmp(l.arrays[mean], before.arrays[RUNNING_MEAN], l.bytes[mean]) == 0, "the mean has moved");
            CHECK(memcmp(l.arrays[var], before.arrays[RUNNING_VAR], l.bytes[var]) == 0, "the variance has moved");
            CHECK(memcmp(l.arrays[Y], plain.arrays[Y], l.bytes[Y]) == 0, "y differs");
            free_arrays(&l), free_arrays(&before), free_arrays(&plain);
        }
    }
}

static void batch_is_an_error(void) {
    for (int k = 0; k < kind_count; k++) {
        for (int is_new = 0; is_new < 2; is_new++) {
            layer l = too_wide(k, is_new ? WITH_NEW : 0, BN_NONFINITE_ERROR), before = clone_of(&l);
            CHECK(train_layer(&l) == BN_ERROR_NONFINITE, "%s: %s", name_of(l.param), bn_last_error());
            CHECK(strstr(bn_last_error(), kinds[k].dtype == BN_FLOAT64 ? "[1]" : "running_var[1]") != NULL, "\"%s\"",
                  bn_last_error());
            CHECK(difference(&l, &before) == NULL, "%s was written", difference(&l, &before));
            free_arrays(&l), free_arrays(&before);
        }
    }
}

/* Groups that share running statistics move them one after the other: the batch of one is skipped, or stops all. */
static void of_groups(void) {
    for (int k = 0; k < kind_count - 1; k++) {
        for (int averaged = 0; averaged < 2; averaged++) {
            layer l = too_wide(k, WITH_GROUPS, BN_NONFINITE_SKIP);
            l.groups.averaged = averaged;
            for (size_t i = 0; i < elements_of(&l); i++) { /* in the third group alone, of samples 4 and 5 */
                size_t sample = i / 15;
                if (channel_of(&l, i) == 1 && sample / 2 != 2) put(l.dtype, l.arrays[X], i, 0.25 * (double)(i % 5));
            }
            layer stopped = clone_of(&l), before = clone_of(&l);
            stopped.running.nonfinite = BN_NONFINITE_ERROR;
            int64_t batches = *(int64_t *)l.arrays[NUM_BATCHES];
            CHECK_OK(train_layer(&l));
            const int32_t *outcome = l.arrays[OUTCOME];
            CHECK(is_finite(&l, RUNNING_VAR) && is_finite(&l, RUNNING_MEAN), "%s: not finite", name_of(l.param));
            for (int g = 0; g < 4; g++) {
                int expected = averaged || g == 2 ? BN_OUTCOME_NONFINITE : BN_OUTCOME_USED;
                CHECK(outcome[g] == expected, "group %d: outcome %d, expected %d", g, outcome[g], expected);
            }
            CHECK(*(int64_t *)l.arrays[NUM_BATCHES] == batches + (averaged ? 0 : 3), "%lld batches",
                  (long long)*(int64_t *)l.arrays[NUM_BATCHES]);
            CHECK(train_layer(&stopped) == BN_ERROR_NONFINITE, "%s", bn_last_error());
            CHECK(difference(&stopped, &before) == NULL, "%s was written", difference(&stopped, &before));
            free_arrays(&l), free_arrays(&stopped), free_arrays(&before);
        }
    }
}

/* The first of two groups is too much, and the second would bring it back, were infinity to come back; and both together are,
 * of which neither is. */
static void in_turn(void) {
    float x[] = {-3e19f, 3e19f, 0, 1, -1.58e19f, 1.58e19f, -1.58e19f, 1.58e19f}, y[4], mean = 0, var = 0;
    bn_shape shape = BN_SHAPE(4, 1, 1);
    bn_groups groups = BN_GROUPS_INIT;
    groups.samples = 4, groups.groups = 2;
    bn_running running = BN_RUNNING_INIT;
    running.nonfinite = BN_NONFINITE_ERROR;
    bn_options options = BN_OPTIONS_INIT;
    options.groups = &groups, options.running = &running;
    for (int i = 0; i < 2; i++) {
        options.momentum = i == 0 ? 1 : 0.5;
        CHECK(bn_forward_training(&shape, BN_FLOAT32, x + 4 * i, NULL, NULL, &mean, &var, y, NULL, NULL, &options) ==
                  BN_ERROR_NONFINITE, "%d: %s", i, bn_last_error());
        CHECK(mean == 0 && var == 0, "something was written");
    }
    groups.groups = 1;
    CHECK_OK(bn_forward_training(&shape, BN_FLOAT32, x + 4, NULL, NULL, &mean, &var, y, NULL, NULL, &options));
}

int main(void) {
    start();
    random_state = seed;
    RUN(batch_is_skipped);
    RUN(batch_is_an_error);
    RUN(of_groups);
    RUN(in_turn);
    return finish();
}

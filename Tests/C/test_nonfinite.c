/* SPDX-License-Identifier: Apache-2.0
 *
 * BN_NONFINITE_SKIP and BN_NONFINITE_ERROR at the border of the type of the running statistics: on either side of
 * the number that rounds to infinity, for groups one after the other and their average, for all averages and sources. */
#include "layer.h"

enum { channels = 3, inner = 8, spoilt = 1 }; /* which channel is large */

/* Half of the values are center - spread, the others center + spread, so that mean and biased variance are exact. */
static void fill_exactly(layer *l, size_t group, size_t c, double center, double spread) {
    size_t samples = l->shape.outer / (l->with & WITH_GROUPS ? l->groups.groups : 1);
    for (size_t n = group * samples; n < (group + 1) * samples; n++) {
        for (size_t k = 0; k < inner; k++) {
            double value = k % 2 == 0 ? center - spread : center + spread;
            put(l->dtype, l->arrays[X], place_of(l, X, (n * channels + c) * inner + k), value);
        }
    }
}

static layer layer_with(bn_dtype dtype, bn_dtype param, size_t groups, int with) {
    layer l = layer_of(2 * groups, channels, inner, dtype, with | WITH_RUNNING | (groups > 1 ? WITH_GROUPS : 0));
    l.param = l.options.param_dtype = param;
    l.options.biased_running_var = 1;
    l.options.momentum = 0.5;
    l.groups.samples = 2 * groups, l.groups.groups = groups;
    make_arrays(&l);
    for (size_t g = 0; g < groups; g++) {
        for (size_t c = 0; c < channels; c++) fill_exactly(&l, g, c, 0, 1);
    }
    memset(l.arrays[NUM_BATCHES], 0, l.bytes[NUM_BATCHES]);
    return l;
}

static void set_running(layer *l, double mean, double variance) {
    for (size_t c = 0; c < channels; c++) {
        put(l->param, l->arrays[RUNNING_MEAN], c, mean), put(l->param, l->arrays[RUNNING_VAR], c, variance);
    }
}

static enum array stored(const layer *l, enum array running) {
    return l->with & WITH_NEW ? (enum array)(running - RUNNING_MEAN + NEW_MEAN) : running;
}

static int64_t batches_of(const layer *l) {
    return *(const int64_t *)l->arrays[l->with & WITH_NEW ? NEW_NUM_BATCHES : NUM_BATCHES];
}

/* Under each policy: mean and variance are what the large channel has after BN_NONFINITE_SKIP, with these outcomes;
 * BN_NONFINITE_ERROR is an error that names the statistic, if any is lost. */
static void check_policies(const layer *given, const int *outcomes, double mean, double variance, const char *word) {
    size_t rows = rows_of(given, BN_PER_GROUP_STATISTICS);
    int lost = 0;
    int64_t counted = 0;
    for (size_t i = 0; i < rows; i++) {
        lost += outcomes[i] == BN_OUTCOME_NONFINITE;
        counted += outcomes[i] == BN_OUTCOME_USED;
    }
    if (given->with & WITH_GROUPS && given->groups.averaged) counted = lost == 0;

    layer plain = clone_of(given);
    CHECK_OK(train_layer(&plain));
    int is_finite = isfinite(parameter(&plain, stored(&plain, RUNNING_VAR), spoilt)) &&
                    isfinite(parameter(&plain, stored(&plain, RUNNING_MEAN), spoilt));
    CHECK(is_finite == (lost == 0), "stored %g", parameter(&plain, stored(&plain, RUNNING_VAR), spoilt));

    layer skipping = clone_of(given);
    skipping.running.nonfinite = BN_NONFINITE_SKIP;
    CHECK_OK(train_layer(&skipping));
    for (size_t i = 0; i < rows; i++) {
        int outcome = ((int32_t *)skipping.arrays[OUTCOME])[i];
        CHECK(outcome == outcomes[i], "outcome[%zu] is %d, expected %d (%s of %s)", i, outcome, outcomes[i],
              name_of(given->param), name_of(given->dtype));
    }
    double found_mean = parameter(&skipping, stored(&skipping, RUNNING_MEAN), spoilt);
    double found = parameter(&skipping, stored(&skipping, RUNNING_VAR), spoilt);
    CHECK(found_mean == mean && found == variance, "%.9g and %.9g, expected %.9g and %.9g (%s)", found_mean, found,
          mean, variance, name_of(given->param));
    CHECK(batches_of(&skipping) == counted, "%d batches, expected %d", (int)batches_of(&skipping), (int)counted);
    CHECK(memcmp(plain.arrays[Y], skipping.arrays[Y], plain.bytes[Y]) == 0, "y differs");

    layer refusing = clone_of(given), before = clone_of(given);
    refusing.running.nonfinite = BN_NONFINITE_ERROR;
    bn_status status = train_layer(&refusing);
    CHECK(status == (lost ? BN_ERROR_NONFINITE : BN_OK), "status %d: %s", (int)status, bn_last_error());
    const layer *expected = lost ? &before : &plain;
    const char *name = difference(&refusing, expected);
    CHECK(name == NULL, "%s is not as it should be", name);
    CHECK(!lost || strstr(bn_last_error(), word) != NULL, "\"%s\" does not name %s", bn_last_error(), word);
    free_arrays(&plain), free_arrays(&skipping), free_arrays(&refusing), free_arrays(&before);
}

/* Twice the number from which on numbers round to infinity. */
static double twice_the_greatest(bn_dtype type) {
    if (type == BN_FLOAT16) return 2 * 65520.0;
    if (type == BN_BFLOAT16) return 2 * 0x1.FFp127;
    return 2 * 0x1.FFFFFFp127;
}

/* A batch whose variance, times the momentum, is a little below or above the largest number of the type. */
static void one_batch_of(bn_dtype dtype, bn_dtype param) {
    static const double factors[] = {0.25, 0.999, 0.99999999, 1.00000001, 1.001, 4, 1e4};
    for (int i = 0; i < 7; i++) {
        for (int with = 0; with <= WITH_NEW; with += WITH_NEW) {
            layer l = layer_with(dtype, param, 1, with);
            set_running(&l, 0, 0);
            fill_exactly(&l, 0, spoilt, 0, sqrt(twice_the_greatest(param) * factors[i]));
            double x = element(&l, X, spoilt * inner), next = 0.5 * x * x;
            int is_lost = next >= twice_the_greatest(param) / 2;
            int outcome = is_lost ? BN_OUTCOME_NONFINITE : BN_OUTCOME_USED;
            put(param, l.arrays[NEW_MEAN] ? l.arrays[NEW_MEAN] : l.arrays[DGAMMA], 0, next); /* rounds it */
            double rounded = parameter(&l, l.arrays[NEW_MEAN] ? NEW_MEAN : DGAMMA, 0);
            check_policies(&l, &outcome, 0, is_lost ? 0 : rounded, "running_var[1] is inf");
            free_arrays(&l);
        }
    }
}

static void variance_beyond_the_type(void) {
    one_batch_of(BN_FLOAT16, BN_FLOAT16);
    one_batch_of(BN_FLOAT32, BN_FLOAT16);
    one_batch_of(BN_FLOAT64, BN_FLOAT16);
    one_batch_of(BN_BFLOAT16, BN_BFLOAT16);
    one_batch_of(BN_FLOAT32, BN_BFLOAT16);
    one_batch_of(BN_FLOAT32, BN_FLOAT32);
    one_batch_of(BN_FLOAT64, BN_FLOAT32);
    one_batch_of(BN_BFLOAT16, BN_FLOAT32);
}

/* The mean is beyond the type, and the variance is small. */
static void mean_beyond_the_type(void) {
    static const bn_dtype types[][2] = {{BN_FLOAT32, BN_FLOAT16}, {BN_FLOAT64, BN_FLOAT32}, {BN_BFLOAT16, BN_FLOAT16}};
    for (int i = 0; i < 3; i++) {
        for (int sign = -1; sign <= 1; sign += 2) {
            layer l = layer_with(types[i][0], types[i][1], 1, 0);
            set_running(&l, 3, 2);
            fill_exactly(&l, 0, spoilt, sign * 4 * twice_the_greatest(types[i][1]), 0);
            int outcome = BN_OUTCOME_NONFINITE;
            check_policies(&l, &outcome, 3, 2, sign < 0 ? "running_mean[1] is -inf" : "running_mean[1] is inf");
            free_arrays(&l);
        }
    }
}

/* A running statistic that is not finite already stays so: its batch is not counted either. */
static void old_statistics_are_not_finite(void) {
    layer l = layer_with(BN_FLOAT32, BN_FLOAT32, 1, 0);
    set_running(&l, 0, HUGE_VAL);
    int outcome = BN_OUTCOME_NONFINITE;
    check_policies(&l, &outcome, 0, HUGE_VAL, "running_var[0] is inf");
    free_arrays(&l);
}

/* 60000, then halfway to 80000 more: the second alone would be 40000. */
static void groups_in_order(void) {
    for (int with = 0; with <= WITH_NEW; with += WITH_NEW) {
        layer l = layer_with(BN_FLOAT32, BN_FLOAT16, 3, with);
        set_running(&l, 0, 0);
        fill_exactly(&l, 0, spoilt, 0, sqrt(120000));
        fill_exactly(&l, 1, spoilt, 0, sqrt(80000));
        fill_exactly(&l, 2, spoilt, 0, sqrt(60000));
        static const int outcomes[] = {BN_OUTCOME_USED, BN_OUTCOME_NONFINITE, BN_OUTCOME_USED};
        double x = element(&l, X, spoilt * inner), y = element(&l, X, (4 * channels + spoilt) * inner);
        put(BN_FLOAT16, l.arrays[DGAMMA], 0, 0.5 * x * x);
        put(BN_FLOAT16, l.arrays[DGAMMA], 0, 0.5 * parameter(&l, DGAMMA, 0) + 0.5 * y * y);
        double variance = parameter(&l, DGAMMA, 0);
        layer apart = clone_of(&l);
        CHECK_OK(train_layer(&apart)); /* the third batch brings infinity back to no number */
        CHECK(!isfinite(parameter(&apart, stored(&l, RUNNING_VAR), spoilt)), "finite");
        check_policies(&l, outcomes, 0, variance, "running_var[1] is inf");
        free_arrays(&l), free_arrays(&apart);
    }
}

/* Once, with the average of the variances: 90000, of which a half fits, and 150000, of which it does not. */
static void groups_averaged(void) {
    static const double variances[][3] = {{180000, 60000, 30000}, {180000, 180000, 90000}};
    for (int i = 0; i < 2; i++) {
        layer l = layer_with(BN_FLOAT64, BN_FLOAT16, 3, 0);
        l.groups.averaged = 1;
        set_running(&l, 0, 1000);
        int outcomes[3];
        double average = 0;
        for (size_t g = 0; g < 3; g++) {
            fill_exactly(&l, g, spoilt, 0, sqrt(variances[i][g]));
            average += variances[i][g] / 3;
            outcomes[g] = i == 0 ? BN_OUTCOME_USED : BN_OUTCOME_NONFINITE;
        }
        put(BN_FLOAT16, l.arrays[DGAMMA], 0, 500 + average / 2);
        check_policies(&l, outcomes, 0, i == 0 ? parameter(&l, DGAMMA, 0) : 1000, "running_var[1] is inf");
        free_arrays(&l);
    }
}

/* Each row for itself. */
static void groups_apart(void) {
    layer l = layer_with(BN_FLOAT32, BN_FLOAT16, 3, 0);
    free_arrays(&l);
    l.groups.per_group = BN_PER_GROUP_STATISTICS | BN_PER_GROUP_RUNNING;
    make_arrays(&l);
    fill_exactly(&l, 1, spoilt, 0, 1000);
    l.running.nonfinite = BN_NONFINITE_SKIP;
    layer before = clone_of(&l);
    CHECK_OK(train_layer(&l));
    for (size_t g = 0; g < 3; g++) {
        int is_same = 1, outcome = ((int32_t *)l.arrays[OUTCOME])[g];
        for (size_t i = g * channels; i < (g + 1) * channels; i++) {
            is_same &= parameter(&l, RUNNING_VAR, i) == parameter(&before, RUNNING_VAR, i);
        }
        CHECK(is_same == (g == 1), "row %zu", g);
        CHECK(outcome == (g == 1 ? BN_OUTCOME_NONFINITE : BN_OUTCOME_USED), "outcome[%zu] is %d", g, outcome);
        int64_t moved = ((int64_t *)l.arrays[NUM_BATCHES])[g] - ((int64_t *)before.arrays[NUM_BATCHES])[g];
        CHECK(moved == (g != 1), "num_batches[%zu] moved by %d", g, (int)moved);
    }
    free_arrays(&l), free_arrays(&before);
}

/* Other averages weigh the batch otherwise: the first counts alone, and the 100th next to nothing. */
static void averages(void) {
    static const struct {
        bn_average average;
        int64_t batches;
        double factor;
    } kinds[] = {{BN_AVERAGE_CUMULATIVE, 0, 1}, {BN_AVERAGE_CUMULATIVE, 99, 0.01}, {BN_AVERAGE_FILLED, 0, 1},
                 {BN_AVERAGE_DEBIASED, 0, 1},   {BN_AVERAGE_WINDOWED, 1, 0.5},     {BN_AVERAGE_WINDOWED, 0, 1}};
    for (int i = 0; i < 6; i++) {
        for (int is_lost = 0; is_lost < 2; is_lost++) {
            layer l = layer_with(BN_FLOAT32, BN_FLOAT16, 1, 0);
            l.running.average = kinds[i].average;
            l.running.nonfinite = BN_NONFINITE_SKIP;
            *(int64_t *)l.arrays[NUM_BATCHES] = kinds[i].batches;
            set_running(&l, 0, 0);
            fill_exactly(&l, 0, spoilt, 0, sqrt(65000 / kinds[i].factor * (is_lost ? 1.02 : 0.98)));
            CHECK_OK(train_layer(&l));
            int outcome = *(int32_t *)l.arrays[OUTCOME];
            CHECK(outcome == (is_lost ? BN_OUTCOME_NONFINITE : BN_OUTCOME_USED), "outcome %d (case %d)", outcome, i);
            free_arrays(&l);
        }
    }
}

/* The policies hold beside each source of statistics, too. */
static void sources(void) {
    for (int kind = BN_SOURCE_BATCH; kind <= BN_SOURCE_UPDATED; kind++) {
        layer l = layer_with(BN_FLOAT32, BN_FLOAT16, 1, WITH_SOURCE);
        l.source.kind = (bn_source_kind)kind;
        set_running(&l, 0, 1);
        fill_exactly(&l, 0, spoilt, 0, 1000);
        int outcome = BN_OUTCOME_NONFINITE;
        check_policies(&l, &outcome, 0, 1, "running_var[1] is inf");
        free_arrays(&l);
    }
}

int main(void) {
    start();
    RUN(variance_beyond_the_type);
    RUN(mean_beyond_the_type);
    RUN(old_statistics_are_not_finite);
    RUN(groups_in_order);
    RUN(groups_averaged);
    RUN(groups_apart);
    RUN(averages);
    RUN(sources);
    return finish();
}

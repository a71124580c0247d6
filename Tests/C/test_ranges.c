/* SPDX-License-Identifier: Apache-2.0
 *
 * The ranges that the header gives, at their ends: those of weights and counts, within which no sum overflows; of
 * slopes, and of numbers of batches. */
#include "problem.h"

static const double within[] = {0, 1e-150, 1, 1e150};
static const double counts_beyond[] = {5e-324, 0.99e-150, 1.01e250, 1.7e308, -1, -1e-200, NAN, HUGE_VAL};
static const double beyond[] = {5e-324, 0.99e-150, 1.01e150, 1.7e308, -1, -1e-200, NAN, HUGE_VAL};
enum { within_count = 4, beyond_count = 8 };

static int says(const char *word) { return strstr(bn_last_error(), word) != NULL; }

static void weights_of_float64(void) {
    double x[] = {1, 2, 3, 5}, y[4], values[] = {1, 1, 1, 1}, mean, invstd;
    bn_weights weights = BN_WEIGHTS_INIT;
    weights.values = values;
    bn_shape shape = dense(4, 1, 1);
    shape.weights = &weights;
    for (int i = 0; i < beyond_count; i++) {
        values[2] = beyond[i], mean = 77;
        bn_status status = bn_forward_training(&shape, BN_FLOAT64, x, NULL, NULL, NULL, NULL, y, &mean, &invstd, NULL);
        CHECK(status == BN_ERROR_OPTION && says("weights->values[2]"), "%g: %s", beyond[i], bn_last_error());
        CHECK(mean == 77, "something was written");
    }
    /* All alike: the weight cancels, at both ends. */
    for (int i = 1; i < within_count; i++) {
        for (int k = 0; k < 4; k++) values[k] = within[i];
        CHECK_OK(bn_forward_training(&shape, BN_FLOAT64, x, NULL, NULL, NULL, NULL, y, &mean, &invstd, NULL));
        CHECK(fabs(mean - 2.75) < 1e-14, "%g: mean %g", within[i], mean);
        CHECK(fabs(1 / (invstd * invstd) - 2.1875 - 1e-5) < 1e-13, "%g: invstd %g", within[i], invstd);
    }
    /* Both ends at once: the small one has no say. */
    values[0] = 1e-150, values[1] = 1e150, values[2] = values[3] = 0;
    CHECK_OK(bn_forward_training(&shape, BN_FLOAT64, x, NULL, NULL, NULL, NULL, y, &mean, &invstd, NULL));
    CHECK(mean == 2 && fabs(invstd * invstd - 1e5) < 1e-6, "mean %g, invstd %g", mean, invstd);
}

/* Every positive number of float32 is a weight. */
static void weights_of_float32(void) {
    float x[] = {1, 2, 3, 5}, y[4], values[4];
    static const float alike[] = {1.4e-45f, 1e-38f, 1, 3.4e38f};
    double mean, invstd;
    bn_weights weights = BN_WEIGHTS_INIT;
    weights.values = values;
    bn_shape shape = dense(4, 1, 1);
    shape.weights = &weights;
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < 4; k++) values[k] = alike[i];
        CHECK_OK(bn_forward_training(&shape, BN_FLOAT32, x, NULL, NULL, NULL, NULL, y, &mean, &invstd, NULL));
        CHECK(fabs(mean - 2.75) < 1e-14 && fabs(1 / (invstd * invstd) - 2.1875 - 1e-5) < 1e-13, "%g: mean %g", alike[i],
              mean);
    }
}

static void counts(void) {
    double counts[] = {4, 4}, means[] = {1, 3}, m2s[] = {2, 2}, count, mean, m2, invstd, sums[] = {0, 0};
    double x[] = {1, 2}, dy[] = {1, 2}, dx[2], one[] = {1, 1}, running_mean[] = {0, 0}, running_var[] = {1, 1};
    bn_shape shape = dense(1, 2, 1);
    bn_options biased = BN_OPTIONS_INIT;
    biased.biased_running_var = 1;
    for (int i = 0; i < beyond_count; i++) {
        counts[1] = counts_beyond[i];
        CHECK(bn_merge_moments(2, 1, counts, means, m2s, 0, &count, &mean, &m2) == BN_ERROR_OPTION && says("counts[1]"),
              "%g: %s", counts_beyond[i], bn_last_error());
        CHECK(bn_inverse_std(1, counts + 1, m2s, &invstd, NULL) == BN_ERROR_OPTION && says("count[0]"), "%g: %s",
              counts_beyond[i], bn_last_error());
        CHECK(bn_update_running(2, BN_FLOAT64, counts, means, m2s, running_mean, running_var, &biased) ==
                  BN_ERROR_OPTION && says("count[1]") && running_var[0] == 1, "%g: %s", counts_beyond[i], bn_last_error());
        CHECK(bn_backward_apply(&shape, BN_FLOAT64, dy, x, NULL, means, one, counts, sums, sums, dx, NULL) ==
                  BN_ERROR_OPTION && says("count[1]"), "%g: %s", counts_beyond[i], bn_last_error());
    }
    counts[1] = 0;
    CHECK(bn_backward_apply(&shape, BN_FLOAT64, dy, x, NULL, means, one, counts, sums, sums, dx, NULL) ==
              BN_ERROR_OPTION && says("count[1]"), "%s", bn_last_error());
    for (int i = 0; i < within_count; i++) {
        counts[0] = counts[1] = within[i];
        CHECK_OK(bn_merge_moments(2, 1, counts, means, m2s, 0, &count, &mean, &m2));
        CHECK(count == 2 * within[i] && (count == 0 || mean == 2), "count %g, mean %g", count, mean);
    }
}

/* The other steps take the counts that bn_moments gives for weights within the limits. */
static void counts_of_moments(void) {
    for (int i = 1; i < within_count; i++) {
        double x[] = {1, 2, 3, 5}, dx[4], values[4], count, mean, m2, invstd, sums[] = {0}, running[] = {0, 1};
        for (int k = 0; k < 4; k++) values[k] = within[i];
        bn_weights weights = BN_WEIGHTS_INIT;
        weights.values = values;
        bn_shape shape = dense(4, 1, 1);
        shape.weights = &weights;
        bn_options biased = BN_OPTIONS_INIT;
        biased.biased_running_var = 1;
        CHECK_OK(bn_moments(&shape, BN_FLOAT64, x, &count, &mean, &m2, 0, NULL));
        CHECK_OK(bn_inverse_std(1, &count, &m2, &invstd, NULL));
        CHECK_OK(bn_update_running(1, BN_FLOAT64, &count, &mean, &m2, running, running + 1, &biased));
        CHECK_OK(bn_backward_apply(&shape, BN_FLOAT64, x, x, NULL, &mean, &invstd, &count, sums, sums, dx, NULL));
        CHECK_OK(bn_merge_moments(1, 1, &count, &mean, &m2, 0, &count, &mean, &m2));
    }
}

static void slopes(void) {
    float x[] = {-1, -2, 3, 4}, y[4];
    double d[] = {-1, -2, 3, 4}, e[4];
    bn_shape shape = dense(4, 1, 1);
    bn_epilogue leaky = BN_EPILOGUE_INIT;
    bn_options options = BN_OPTIONS_INIT;
    options.epilogue = &leaky;
    static const struct { double slope; int float32, float64; } cases[] = {
        {0, 1, 1}, {1.2e-38, 1, 1}, {3.4e38, 1, 1}, {1.1e-38, 0, 1}, {1e-50, 0, 1}, {3.5e38, 0, 1}, {2.3e-308, 0, 1},
        {1.7e308, 0, 1}, {2.2e-308, 0, 0}, {5e-324, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        leaky.slope = cases[i].slope;
        leaky.activation = BN_LEAKY_RELU;
        bn_status status[] = {
            bn_forward_training(&shape, BN_FLOAT32, x, NULL, NULL, NULL, NULL, y, NULL, NULL, &options),
            bn_forward_training(&shape, BN_FLOAT64, d, NULL, NULL, NULL, NULL, e, NULL, NULL, &options),
        };
        CHECK(status[0] == (cases[i].float32 ? BN_OK : BN_ERROR_OPTION), "%g of float32: %d", leaky.slope, status[0]);
        CHECK(status[1] == (cases[i].float64 ? BN_OK : BN_ERROR_OPTION), "%g of float64: %d", leaky.slope, status[1]);
        leaky.activation = BN_IDENTITY; /* has no slope that could be wrong */
        CHECK_OK(bn_forward_training(&shape, BN_FLOAT32, x, NULL, NULL, NULL, NULL, y, NULL, NULL, &options));
    }
}

static void numbers_of_batches(void) {
    float x[] = {1, 2, 4, 8}, y[4], running_mean[2] = {0, 0}, running_var[2] = {1, 1};
    int64_t batches = INT64_MAX;
    bn_running running = BN_RUNNING_INIT;
    running.num_batches = &batches;
    bn_options options = BN_OPTIONS_INIT;
    options.running = &running;
    bn_shape shape = dense(4, 1, 1);
    for (int groups = 1; groups <= 2; groups++) {
        bn_groups ghosts = BN_GROUPS_INIT;
        ghosts.samples = 4, ghosts.groups = (size_t)groups;
        options.groups = groups > 1 ? &ghosts : NULL;
        batches = INT64_MAX - groups + 1;
        CHECK(bn_forward_training(&shape, BN_FLOAT32, x, NULL, NULL, running_mean, running_var, y, NULL, NULL,
                                  &options) == BN_ERROR_OPTION && says("num_batches[0]"), "%s", bn_last_error());
        batches = INT64_MAX - groups;
        CHECK_OK(bn_forward_training(&shape, BN_FLOAT32, x, NULL, NULL, running_mean, running_var, y, NULL, NULL,
                                     &options));
        CHECK(batches == INT64_MAX, "%lld", (long long)batches);
    }
}

int main(void) {
    start();
    RUN(weights_of_float64);
    RUN(weights_of_float32);
    RUN(counts);
    RUN(counts_of_moments);
    RUN(slopes);
    RUN(numbers_of_batches);
    return finish();
}

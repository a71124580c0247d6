/* SPDX-License-Identifier: Apache-2.0
 *
 * The layer put together from its building blocks, over a batch that is cut into uneven and empty parts. */
#include "expect.h"

enum { most_parts = 5 };

/* Each part takes so many of 12 samples. */
static const size_t cuts[][most_parts] = {{12, 0, 0, 0, 0}, {1, 5, 0, 2, 4}, {0, 11, 1, 0, 0}, {3, 3, 3, 3, 0}};

static bn_shape part_of(const bn_shape *whole, size_t samples) {
    bn_shape part = *whole;
    part.outer = samples;
    return part;
}

/* Sample `first` of a dense tensor. */
static void *sample(const problem *p, void *tensor, size_t first) {
    return (char *)tensor + first * p->shape.channels * p->shape.inner * size_of(p->dtype);
}

/* Forward by blocks into y; leaves the merged moments in count, mean and m2. */
static void forward_in_parts(problem *p, const size_t *cut, double *count, double *mean, double *m2, double *invstd) {
    size_t channels = p->shape.channels, first = 0;
    double *counts = allocate(most_parts * channels, sizeof(double));
    double *means = allocate(most_parts * channels, sizeof(double));
    double *m2s = allocate(most_parts * channels, sizeof(double));
    for (size_t i = 0; i < most_parts; first += cut[i++]) {
        bn_shape part = part_of(&p->shape, cut[i]);
        size_t row = i * channels;
        CHECK_OK(bn_moments(&part, p->dtype, sample(p, p->x, first), counts + row, means + row, m2s + row, 0, NULL));
    }
    CHECK_OK(bn_merge_moments(most_parts, channels, counts, means, m2s, 0, count, mean, m2));
    CHECK_OK(bn_inverse_std(channels, count, m2, invstd, NULL));
    first = 0;
    for (size_t i = 0; i < most_parts; first += cut[i++]) {
        bn_shape part = part_of(&p->shape, cut[i]);
        CHECK_OK(bn_normalize(&part, p->dtype, sample(p, p->x, first), p->gamma, p->beta, mean, invstd,
                              sample(p, p->y, first), NULL));
    }
    CHECK_OK(bn_update_running(channels, p->dtype, count, mean, m2, p->running_mean, p->running_var, NULL));

    /* Merging into the first row of the inputs gives the same bits. */
    CHECK_OK(bn_merge_moments(most_parts, channels, counts, means, m2s, 0, counts, means, m2s));
    CHECK(memcmp(counts, count, channels * sizeof(double)) == 0, "count differs in place");
    CHECK(memcmp(means, mean, channels * sizeof(double)) == 0, "mean differs in place");
    CHECK(memcmp(m2s, m2, channels * sizeof(double)) == 0, "m2 differs in place");
    free(counts), free(means), free(m2s);
}

static void forward_matches(problem *p, const size_t *cut) {
    size_t channels = p->shape.channels, vector = channels * size_of(p->dtype);
    double *moments = allocate(4 * channels, sizeof(double));
    double *count = moments, *mean = moments + channels, *m2 = mean + channels, *invstd = m2 + channels;
    void *old_mean = copy_of(p->running_mean, vector), *old_var = copy_of(p->running_var, vector);
    forward_in_parts(p, cut, count, mean, m2, invstd);
    for (size_t c = 0; c < channels; c++) {
        statistics s = reference_statistics(p, c, 1e-5);
        CHECK(count[c] == s.count, "count %g", count[c]);
        check_near(mean[c], s.mean, "mean", p, c);
        check_near(m2[c], s.m2, "m2", p, c);
        check_near(invstd[c], s.invstd, "invstd", p, c);
        check_y(p, c, p->gamma, p->beta, s.mean, s.invstd);
        check_running(p, c, old_mean, old_var, &s, 0.1, 0);
    }
    free(moments), free(old_mean), free(old_var);
}

static void backward_matches(problem *p, const size_t *cut) {
    size_t channels = p->shape.channels, first = 0;
    double *memory = allocate(5 * channels, sizeof(double));
    double *count = memory, *dy = count + channels, *dy_x_hat = dy + channels;
    double *part_dy = dy_x_hat + channels, *part_dy_x_hat = part_dy + channels;
    CHECK_OK(train(p, NULL));
    for (size_t i = 0; i < most_parts; first += cut[i++]) {
        bn_shape part = part_of(&p->shape, cut[i]);
        CHECK_OK(bn_backward_reduce(&part, p->dtype, sample(p, p->dy, first), sample(p, p->x, first), p->mean,
                                    p->invstd, part_dy, part_dy_x_hat, 0, NULL));
        for (size_t c = 0; c < channels; c++) {
            dy[c] += part_dy[c];
            dy_x_hat[c] += part_dy_x_hat[c];
            count[c] += (double)(cut[i] * p->shape.inner);
        }
    }
    first = 0;
    for (size_t i = 0; i < most_parts; first += cut[i++]) {
        bn_shape part = part_of(&p->shape, cut[i]);
        CHECK_OK(bn_backward_apply(&part, p->dtype, sample(p, p->dy, first), sample(p, p->x, first), p->gamma, p->mean,
                                   p->invstd, count, dy, dy_x_hat, sample(p, p->dx, first), NULL));
    }
    for (size_t c = 0; c < channels; c++) {
        sums s = reference_sums(p, c);
        check_near(dy[c], s.dy, "sum_dy", p, c);
        check_near(dy_x_hat[c], s.dy_x_hat, "sum_dy_x_hat", p, c);
        check_dx(p, c, divided(s.dy, count[c]), divided(s.dy_x_hat, count[c]));
    }
    free(memory);
}

static void each_cut(void (*use)(problem *p, const size_t *cut)) {
    static const bn_shape shapes[] = {BN_SHAPE(12, 5, 49), BN_SHAPE(12, 70, 1)};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
            for (int d = 0; d < dtype_count; d++) {
                problem p = make_problem(shapes[s], dtypes[d], 100, 1);
                use(&p, cuts[i]);
                free_problem(&p);
            }
        }
    }
}

static void forward(void) { each_cut(forward_matches); }
static void gradients(void) { each_cut(backward_matches); }

/* Merging nothing, or only empty sets, gives the empty set. */
static void merge_of_nothing(void) {
    double zeros[4] = {0, 0, 0, 0}, count[2] = {9, 9}, mean[2] = {9, 9}, m2[2] = {9, 9};
    for (size_t parts = 0; parts <= 2; parts++) {
        CHECK_OK(bn_merge_moments(parts, 2, zeros, zeros, zeros, 0, count, mean, m2));
        for (int c = 0; c < 2; c++) {
            CHECK(count[c] == 0 && mean[c] == 0 && m2[c] == 0, "%g %g %g", count[c], mean[c], m2[c]);
        }
    }
    CHECK_OK(bn_merge_moments(0, 2, NULL, NULL, NULL, 0, count, mean, m2));
}

/* Channels may have counts of their own; one of 0 leaves its running statistics alone. */
static void counts_by_channel(void) {
    double count[3] = {0, 1, 4}, mean[3] = {7, 8, 9}, m2[3] = {5, 0, 8}, invstd[3];
    double running_mean[3] = {1, 1, 1}, running_var[3] = {2, 2, 2};
    bn_options options = BN_OPTIONS_INIT;
    options.momentum = 0.5;
    options.biased_running_var = 1;
    options.eps = 0;
    CHECK_OK(bn_update_running(3, BN_FLOAT64, count, mean, m2, running_mean, running_var, &options));
    CHECK(running_mean[0] == 1 && running_var[0] == 2, "empty: %g %g", running_mean[0], running_var[0]);
    CHECK(running_mean[1] == 4.5 && running_var[1] == 1, "one value: %g %g", running_mean[1], running_var[1]);
    CHECK(running_mean[2] == 5 && running_var[2] == 2, "four values: %g %g", running_mean[2], running_var[2]);
    CHECK_OK(bn_inverse_std(3, count, m2, invstd, &options));
    CHECK(invstd[0] == 0 && invstd[1] == 0, "no variance: %g %g", invstd[0], invstd[1]);
    CHECK(fabs(invstd[2] - sqrt(0.5)) < 4 * unit, "%.17g", invstd[2]);
    CHECK_OK(bn_inverse_std(3, count, m2, m2, &options));
    CHECK(memcmp(m2, invstd, sizeof m2) == 0, "differs in place");
}

int main(void) {
    start();
    RUN(forward);
    RUN(gradients);
    RUN(merge_of_nothing);
    RUN(counts_by_channel);
    return finish();
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * Training and inference against the formulas, in every layout and both element types. */
#include "expect.h"

static void training_matches(problem *p, const bn_options *options, int biased, double momentum, double eps) {
    size_t bytes = p->shape.channels * size_of(p->dtype);
    void *old_mean = copy_of(p->running_mean, bytes), *old_var = copy_of(p->running_var, bytes);
    CHECK_OK(train(p, options));
    for (size_t c = 0; c < p->shape.channels; c++) {
        statistics s = reference_statistics(p, c, eps);
        check_near(p->mean[c], s.mean, "saved_mean", p, c);
        check_near(p->invstd[c], s.invstd, "saved_invstd", p, c);
        check_y(p, c, p->gamma, p->beta, s.mean, s.invstd);
        check_running(p, c, old_mean, old_var, &s, momentum, biased);
    }
    free(old_mean);
    free(old_var);
}

static void training_with_defaults(problem *p) {
    training_matches(p, NULL, 0, 0.1, 1e-5);
}

static void training_with_options(problem *p) {
    bn_options options = BN_OPTIONS_INIT;
    options.eps = 1e-3;
    options.momentum = 0.75;
    options.biased_running_var = 1;
    training_matches(p, &options, 1, 0.75, 1e-3);
}

static void training_plain(problem *p) {
    CHECK_OK(bn_forward_training(&p->shape, p->dtype, p->x, NULL, NULL, NULL, NULL, p->y, NULL, NULL, NULL));
    for (size_t c = 0; c < p->shape.channels; c++) {
        statistics s = reference_statistics(p, c, 1e-5);
        check_y(p, c, NULL, NULL, s.mean, s.invstd);
    }
}

static void inference_matches(problem *p) {
    size_t bytes = p->shape.channels * size_of(p->dtype);
    void *old_mean = copy_of(p->running_mean, bytes), *old_var = copy_of(p->running_var, bytes);
    CHECK_OK(infer(p, NULL));
    CHECK(memcmp(old_mean, p->running_mean, bytes) == 0, "running_mean was written");
    CHECK(memcmp(old_var, p->running_var, bytes) == 0, "running_var was written");
    for (size_t c = 0; c < p->shape.channels; c++) {
        bounded mean = {get(p->dtype, p->running_mean, c), 0}, var = {get(p->dtype, p->running_var, c), 0};
        bounded invstd = reference_invstd(var, 1e-5);
        check_near(p->mean[c], mean, "saved_mean", p, c);
        check_near(p->invstd[c], invstd, "saved_invstd", p, c);
        check_y(p, c, p->gamma, p->beta, mean, invstd);
    }
    free(old_mean);
    free(old_var);
}

static void training(void) { each_problem(training_with_defaults); }
static void training_options(void) { each_problem(training_with_options); }
static void training_without_parameters(void) { each_problem(training_plain); }
static void inference(void) { each_problem(inference_matches); }

int main(void) {
    start();
    RUN(training);
    RUN(training_options);
    RUN(training_without_parameters);
    RUN(inference);
    return finish();
}

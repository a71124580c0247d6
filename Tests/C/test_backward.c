/* SPDX-License-Identifier: Apache-2.0
 *
 * The gradients against the formulas, in every layout and both element types. */
#include "expect.h"

static void backward_matches(problem *p, const bn_options *options) {
    int frozen = options != NULL && options->frozen;
    CHECK_OK(frozen ? infer(p, NULL) : train(p, NULL));
    CHECK_OK(backward(p, options));
    for (size_t c = 0; c < p->shape.channels; c++) {
        sums s = reference_sums(p, c);
        check_near(get(p->dtype, p->dbeta, c), rounded(p->dtype, s.dy), "dbeta", p, c);
        check_near(get(p->dtype, p->dgamma, c), rounded(p->dtype, s.dy_x_hat), "dgamma", p, c);
        double count = (double)p->shape.outer * (double)p->shape.inner;
        bounded none = {0, 0};
        check_dx(p, c, frozen ? none : divided(s.dy, count), frozen ? none : divided(s.dy_x_hat, count));
    }
}

static void backward_of_training(problem *p) {
    backward_matches(p, NULL);
}

static void backward_frozen(problem *p) {
    bn_options options = BN_OPTIONS_INIT;
    options.frozen = 1;
    backward_matches(p, &options);
}

static void after_training(void) { each_problem(backward_of_training); }
static void after_inference(void) { each_problem(backward_frozen); }

/* Sums about a mean of exactly 1, which they are far from 0 for: none of them may be taken for a sum about 0. */
static void about_a_mean_of_one(void) {
    enum { values = 64 };
    float x[values], dy[values], dx[values], gamma = 1, dgamma = 0, dbeta = 0;
    double mean = 1, invstd = 1024;
    bn_shape shape = BN_SHAPE(values, 1, 1);
    for (int i = 0; i < values; i++) {
        x[i] = i % 2 ? 1 - 1 / 1024.0f : 1 + 1 / 1024.0f;
        dy[i] = i % 2 ? -0.5f : 1.5f;
    }
    CHECK_OK(bn_backward(&shape, BN_FLOAT32, dy, x, &gamma, NULL, &mean, &invstd, dx, &dgamma, &dbeta, NULL));
    CHECK(dbeta == values / 2 && dgamma == values, "dbeta %g, dgamma %g", dbeta, dgamma);
    for (int i = 0; i < values; i++) CHECK(dx[i] == 0, "dx %g", dx[i]); /* dy is a line over x_hat */
}

int main(void) {
    start();
    RUN(after_training);
    RUN(after_inference);
    RUN(about_a_mean_of_one);
    return finish();
}

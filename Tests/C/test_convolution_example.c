/* SPDX-License-Identifier: Apache-2.0
 *
 * The network of examples/c/convolution.h, in double: every gradient against differences of the loss, and evaluation
 * against the formula. beta is far from 0, so that ReLU passes elsewhere than it would without. */
#define REAL double
#define REAL_DTYPE BN_FLOAT64
#include "../../examples/c/convolution.h"
#include "check.h"

#include <math.h>

static struct network net;
static struct pass pass;
static double target[BATCH];

/* The loss is of order 1, its rounding about 1e-15: a difference over 2 * step is off by 1e-10, and by step^2 times
 * the third derivative. */
static const double step = 1e-5, tolerance = 1e-8;

static double random_loss(void) {
    forward(&net, &pass, 1);
    return loss(&pass, target);
}

/* No step may take a value across 0, where the loss has no derivative: in most random networks there is none near. */
static int is_near_a_kink(void) {
    int is_near = 0;
    net.options.epilogue = NULL;
    forward(&net, &pass, 1);
    for (int k = 0; k < BATCH * PIXELS * OUTPUTS; k++) is_near |= fabs((&pass.y[0][0][0][0])[k]) < 10 * step;
    net.options.epilogue = &net.relu;
    return is_near;
}

static void draw(void) {
    prepare(&net);
    for (int k = 0; k < BATCH * PIXELS * INPUTS; k++) (&pass.x[0][0][0][0])[k] = 0.5 + random_value();
    for (int k = 0; k < KERNEL * KERNEL * INPUTS * OUTPUTS; k++)
        (&net.learned.weights[0][0][0][0])[k] = random_value();
    for (int b = 0; b < BATCH; b++) target[b] = random_value();
    for (int c = 0; c < OUTPUTS; c++) {
        net.learned.gamma[c] = (c % 2 ? -1 : 1) * (1 + 0.2 * random_value());
        net.learned.beta[c] = (c / 2 ? -1 : 1) * (0.6 + 0.2 * random_value());
        net.learned.readout[c] = 1 + 0.5 * random_value();
    }
}

static void draw_smooth(void) {
    do draw();
    while (is_near_a_kink());
}

static double difference(double *value) {
    double kept = *value;
    *value = kept + step;
    double above = random_loss();
    *value = kept - step;
    double below = random_loss();
    *value = kept;
    return (above - below) / (2 * step);
}

static void compare(const char *name, double *values, const double *gradient, int count) {
    double largest = 0;
    for (int k = 0; k < count; k++) {
        double wanted = difference(&values[k]);
        largest = fmax(largest, fabs(wanted));
        CHECK(fabs(gradient[k] - wanted) <= tolerance, "d%s[%d] is %.10g, the difference %.10g", name, k, gradient[k],
              wanted);
    }
    CHECK(largest > 1e4 * tolerance, "no gradient with respect to %s is above %g", name, largest);
}

static void gradients(void) {
    static struct parameters d;
    static double dx[BATCH][SIDE][SIDE][INPUTS];
    struct parameters *p = &net.learned;

    draw_smooth();
    random_loss();
    backward(&net, &pass, target, &d, dx);
    compare("weights", &p->weights[0][0][0][0], &d.weights[0][0][0][0], KERNEL * KERNEL * INPUTS * OUTPUTS);
    compare("gamma", p->gamma, d.gamma, OUTPUTS);
    compare("beta", p->beta, d.beta, OUTPUTS);
    compare("readout", p->readout, d.readout, OUTPUTS);
    compare("x", &pass.x[0][0][0][0], &dx[0][0][0][0], BATCH * PIXELS * INPUTS);
}

/* After batches in training, y is as the formula says of the plain average of their means and unbiased variances. */
static void evaluation(void) {
    enum { BATCHES = 3 };
    double mean[OUTPUTS] = {0}, variance[OUTPUTS] = {0}, values = BATCH * PIXELS;

    draw();
    for (int i = 0; i < BATCHES; i++) {
        for (int k = 0; k < BATCH * PIXELS * INPUTS; k++) (&pass.x[0][0][0][0])[k] += (i + 1) * random_value();
        forward(&net, &pass, 1);
        for (int c = 0; c < OUTPUTS; c++) {
            mean[c] += pass.mean[c] / BATCHES;
            variance[c] += (1 / (pass.invstd[c] * pass.invstd[c]) - 1e-5) * values / (values - 1) / BATCHES;
        }
    }
    forward(&net, &pass, 0);
    CHECK(net.num_batches == BATCHES, "num_batches is %lld", (long long)net.num_batches);
    for (int k = 0; k < BATCH * PIXELS * OUTPUTS; k++) {
        int c = k % OUTPUTS;
        double x_hat = ((&pass.u[0][0][0][0])[k] - mean[c]) / sqrt(variance[c] + 1e-5);
        double wanted = fmax(0, net.learned.gamma[c] * x_hat + net.learned.beta[c]), y = (&pass.y[0][0][0][0])[k];
        CHECK(fabs(y - wanted) <= 1e-9, "y[%d] is %.12g, expected %.12g", k, y, wanted);
    }
}

int main(void) {
    start();
    RUN(gradients);
    RUN(evaluation);
    return finish();
}

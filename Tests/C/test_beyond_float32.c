/* SPDX-License-Identifier: Apache-2.0
 *
 * Channels whose scale is beyond float32, though what comes out is not: calls that are a product and a sum per element,
 * against the same in double. */
#include "problem.h"

enum { samples = 37, channels = 3 };

/* The factors of x or dy are 1, about 1e40 and about 1e-50 in these channels. */
static const double invstd[channels] = {1, 1e10, 1e-25};
static const float gamma[channels] = {1, 1.5e30f, 2e-25f};
/* With these sizes products are neither 0 nor infinite. */
static const double size_of_input[channels] = {1, 1e-10, 1e15};

/* Channels as planes, and as rows. */
static const size_t layouts[][2] = {{1, samples}, {samples, 1}};

static void draw(float *x, const bn_shape *shape) {
    for (size_t i = 0; i < samples * channels; i++) {
        x[i] = (float)(size_of_input[i / shape->inner % channels] * random_value());
    }
}

/* Within some roundings to float32 of the largest, for terms that cancel. */
static void expect_near(float found, float input, double shift, double scale, size_t channel) {
    double expected = ((double)input - shift) * scale, most = 1e-5 * size_of_input[channel] * scale;
    CHECK(fabs(found - expected) <= most, "channel %zu: %g, not %g", channel, found, expected);
}

/* dx = dy * gamma * invstd */
static void frozen_gradient(void) {
    float x[samples * channels], dy[samples * channels], dx[samples * channels];
    double mean[channels] = {0};
    bn_options options = BN_OPTIONS_INIT;
    options.frozen = 1;
    for (int i = 0; i < 2; i++) {
        bn_shape shape = BN_SHAPE(layouts[i][0], channels, layouts[i][1]);
        draw(x, &shape), draw(dy, &shape);
        CHECK_OK(bn_backward(&shape, BN_FLOAT32, dy, x, gamma, NULL, mean, invstd, dx, NULL, NULL, &options));
        for (size_t k = 0; k < samples * channels; k++) {
            size_t c = k / shape.inner % channels;
            expect_near(dx[k], dy[k], 0, (double)gamma[c] * invstd[c], c);
        }
    }
}

/* With a residual's gradient beside it: dz = dy * activation'(u) */
static void frozen_gradient_and_residual(void) {
    float x[samples * channels], dy[samples * channels], dx[samples * channels], dz[samples * channels];
    double mean[channels] = {0};
    bn_options options = BN_OPTIONS_INIT;
    bn_epilogue leaky = BN_EPILOGUE_INIT;
    leaky.activation = BN_LEAKY_RELU;
    leaky.slope = 0.25;
    leaky.dz = dz;
    options.frozen = 1;
    options.epilogue = &leaky;
    for (int i = 0; i < 2; i++) {
        bn_shape shape = BN_SHAPE(layouts[i][0], channels, layouts[i][1]);
        draw(x, &shape), draw(dy, &shape);
        CHECK_OK(bn_backward(&shape, BN_FLOAT32, dy, x, gamma, NULL, mean, invstd, dx, NULL, NULL, &options));
        for (size_t k = 0; k < samples * channels; k++) {
            size_t c = k / shape.inner % channels;
            float du = x[k] > 0 ? dy[k] : dy[k] / 4;
            CHECK(dz[k] == du, "channel %zu: dz is %g, not %g", c, dz[k], du);
            expect_near(dx[k], du, 0, (double)gamma[c] * invstd[c], c);
        }
    }
}

/* y' = gamma' * x_hat without x'; and y' = gamma * invstd * x' where statistics are constants. */
static void tangents(void) {
    float x[samples * channels], tangent[samples * channels], y[samples * channels];
    double mean[channels] = {0};
    bn_options options = BN_OPTIONS_INIT;
    for (int i = 0; i < 2; i++) {
        bn_shape shape = BN_SHAPE(layouts[i][0], channels, layouts[i][1]);
        draw(x, &shape), draw(tangent, &shape);
        options.frozen = 0;
        CHECK_OK(bn_jvp(&shape, BN_FLOAT32, x, NULL, NULL, gamma, NULL, mean, invstd, y, &options));
        for (size_t k = 0; k < samples * channels; k++) {
            size_t c = k / shape.inner % channels;
            expect_near(y[k], x[k], 0, (double)gamma[c] * invstd[c], c);
        }
        options.frozen = 1;
        CHECK_OK(bn_jvp(&shape, BN_FLOAT32, x, tangent, gamma, NULL, NULL, mean, invstd, y, &options));
        for (size_t k = 0; k < samples * channels; k++) {
            size_t c = k / shape.inner % channels;
            expect_near(y[k], tangent[k], 0, (double)gamma[c] * invstd[c], c);
        }
    }
}

/* Statistics that the batch has moved: those that the call leaves behind. */
static void updated_statistics(void) {
    float x[samples * channels], y[samples * channels];
    double saved[4 * channels];
    bn_options options = BN_OPTIONS_INIT;
    bn_source source = BN_SOURCE_INIT;
    source.kind = BN_SOURCE_UPDATED;
    source.saved = saved;
    options.source = &source;
    options.eps = 0;
    for (int i = 0; i < 2; i++) {
        float mean[channels] = {0}, variance[channels] = {1, 1e-20f, 1e30f};
        bn_shape shape = BN_SHAPE(layouts[i][0], channels, layouts[i][1]);
        draw(x, &shape);
        CHECK_OK(bn_forward_training(&shape, BN_FLOAT32, x, gamma, NULL, mean, variance, y, NULL, NULL, &options));
        for (size_t k = 0; k < samples * channels; k++) {
            size_t c = k / shape.inner % channels;
            CHECK(mean[c] != 0, "channel %zu: the running mean has not moved", c);
            expect_near(y[k], x[k], (double)mean[c], (double)gamma[c] / sqrt((double)variance[c]), c);
        }
    }
}

int main(void) {
    start();
    RUN(frozen_gradient);
    RUN(frozen_gradient_and_residual);
    RUN(tangents);
    RUN(updated_statistics);
    return finish();
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * Trains one batch-norm layer by gradient descent, with nothing but batchnorm.h: the four channels of the input differ
 * widely in mean and scale, and gamma and beta have to be found from noisy examples of
 *
 *     target = true_gamma * (x - true_mean) / true_std + true_beta + noise
 */
#include <batchnorm.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { SAMPLES = 16, CHANNELS = 4, PIXELS = 8 * 8, SIZE = SAMPLES * CHANNELS * PIXELS, STEPS = 200 };

/* N, C and H * W. */
static const bn_shape batch = BN_SHAPE(SAMPLES, CHANNELS, PIXELS);

struct layer {
    float gamma[CHANNELS], beta[CHANNELS], running_mean[CHANNELS], running_var[CHANNELS];
};

static const float true_mean[CHANNELS] = {0.0f, 1000.0f, -50.0f, 0.5f};
static const float true_std[CHANNELS] = {1.0f, 0.25f, 300.0f, 0.1f};
static const float true_gamma[CHANNELS] = {2.0f, -1.0f, 0.5f, 3.0f};
static const float true_beta[CHANNELS] = {-1.0f, 4.0f, 0.0f, 0.25f};
static const float noise = 0.1f;

/* A batch of 1,024 values knows its mean to within std / 32. The steps average over many batches, and gamma is at most 3:
 * that leaves errors of about 0.03. */
static const double tolerance = 0.05;

static void check(bn_status status, const char *call)
{
    if (status != BN_OK) {
        fprintf(stderr, "%s: %s: %s\n", call, bn_status_string(status), bn_last_error());
        exit(EXIT_FAILURE);
    }
}

static void introduce(void)
{
    int version = bn_version();
    if (version / 10000 != BN_VERSION_MAJOR || version / 100 < BN_VERSION / 100) {
        fprintf(stderr, "libbatchnorm %d.%d or a later %d.x is needed, but libbatchnorm.so.2 is %d.%d.%d\n",
                BN_VERSION_MAJOR, BN_VERSION_MINOR, BN_VERSION_MAJOR, version / 10000, version / 100 % 100,
                version % 100);
        exit(EXIT_FAILURE);
    }
    const char *isa = bn_isa_name();
    int threads = bn_get_num_threads();
    check(isa != NULL && threads > 0 ? BN_OK : BN_ERROR_ENVIRONMENT, "environment");
    printf("libbatchnorm %d.%d.%d, instruction set: %s, threads: %d\n\n", version / 10000, version / 100 % 100,
           version % 100, isa, threads);
}

/* A generator of our own, for the same numbers on every machine: Knuth's 64-bit linear congruence, the high bits of it. */
static double uniform(void)
{
    static uint64_t state = 20150211;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) / 9007199254740992.0; /* 2^53 */
}

/* Mean 0 and variance 1, nearly normal: the sum of twelve uniform numbers. */
static float normal(void)
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += uniform();
    return (float)sum;
}

/* Fills a minibatch, NCHW, and the output that is wanted for it. */
static void draw_batch(float *x, float *target)
{
    for (int i = 0; i < SIZE; i++) {
        int c = i / PIXELS % CHANNELS;
        float x_hat = normal();
        x[i] = true_mean[c] + true_std[c] * x_hat;
        target[i] = true_gamma[c] * x_hat + true_beta[c] + noise * normal();
    }
}

/* Half the squared error, summed over channels and averaged over the values of each; dy takes its gradient with respect
 * to y. */
static double loss(const float *y, const float *target, float *dy)
{
    double sum = 0;
    for (int i = 0; i < SIZE; i++) {
        float error = y[i] - target[i];
        sum += 0.5 * error * error;
        dy[i] = error / (SAMPLES * PIXELS);
    }
    return sum / (SAMPLES * PIXELS);
}

static int far(double value, double wanted)
{
    double error = value - wanted;
    return !(error <= tolerance && error >= -tolerance); /* true for NaN, too */
}

static void train(struct layer *layer)
{
    static float x[SIZE], y[SIZE], target[SIZE], dy[SIZE];
    const float learning_rate = 0.1f;

    for (int step = 0; step <= STEPS; step++) {
        double mean[CHANNELS], invstd[CHANNELS];
        float dgamma[CHANNELS], dbeta[CHANNELS];

        draw_batch(x, target);
        check(bn_forward_training(&batch, BN_FLOAT32, x, layer->gamma, layer->beta, layer->running_mean,
                                  layer->running_var, y, mean, invstd, NULL),
              "bn_forward_training");
        double error = loss(y, target, dy);
        if (step % 25 == 0)
            printf("step %3d   loss %8.5f\n", step, error);

        /* No layer below needs the gradient with respect to x: dx is NULL. */
        check(bn_backward(&batch, BN_FLOAT32, dy, x, layer->gamma, layer->beta, mean, invstd, NULL, dgamma, dbeta, NULL),
              "bn_backward");
        for (int c = 0; c < CHANNELS; c++) {
            layer->gamma[c] -= learning_rate * dgamma[c];
            layer->beta[c] -= learning_rate * dbeta[c];
        }
    }
}

static int compare_parameters(const struct layer *layer)
{
    int failures = 0;
    printf("\nchannel    gamma     true     beta     true\n");
    for (int c = 0; c < CHANNELS; c++) {
        printf("%7d %8.3f %8.3f %8.3f %8.3f\n", c, layer->gamma[c], true_gamma[c], layer->beta[c], true_beta[c]);
        failures += far(layer->gamma[c], true_gamma[c]) + far(layer->beta[c], true_beta[c]);
    }
    return failures;
}

/* In use, the running statistics take the place of the batch's. */
static int infer(const struct layer *layer)
{
    static float x[SIZE], y[SIZE], target[SIZE], dy[SIZE];
    draw_batch(x, target);
    check(bn_forward_inference(&batch, BN_FLOAT32, x, layer->gamma, layer->beta, layer->running_mean,
                               layer->running_var, y, NULL, NULL, NULL),
          "bn_forward_inference");
    double error = loss(y, target, dy);
    double unavoidable = CHANNELS * 0.5 * noise * noise;
    printf("\ninference on new data: loss %.5f, of which %.5f is noise in the target\n", error, unavoidable);
    return far(error, unavoidable);
}

/* One value per channel is enough for inference: the mean of the channel becomes beta, but for what the running mean is
 * off by. Training has to refuse it. */
static int infer_single(struct layer *layer)
{
    const bn_shape single = BN_SHAPE(1, CHANNELS, 1);
    float y[CHANNELS];
    int failures = 0;

    check(bn_forward_inference(&single, BN_FLOAT32, true_mean, layer->gamma, layer->beta, layer->running_mean,
                               layer->running_var, y, NULL, NULL, NULL),
          "bn_forward_inference");
    printf("\nchannel  true mean        y     beta\n");
    for (int c = 0; c < CHANNELS; c++) {
        printf("%7d %10.1f %8.3f %8.3f\n", c, true_mean[c], y[c], layer->beta[c]);
        failures += far(y[c], layer->beta[c]);
    }

    bn_status status = bn_forward_training(&single, BN_FLOAT32, true_mean, layer->gamma, layer->beta,
                                           layer->running_mean, layer->running_var, y, NULL, NULL, NULL);
    printf("\ntraining on it: %s\n", status == BN_OK ? "accepted" : bn_last_error());
    return failures + (status != BN_ERROR_SINGLE_VALUE);
}

int main(void)
{
    struct layer layer = {{1, 1, 1, 1}, {0, 0, 0, 0}, {0, 0, 0, 0}, {1, 1, 1, 1}};
    int failures = 0;

    introduce();
    train(&layer);
    failures += compare_parameters(&layer);
    failures += infer(&layer);
    failures += infer_single(&layer);

    puts(failures ? "\nnot converged" : "\nconverged");
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

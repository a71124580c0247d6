/* SPDX-License-Identifier: Apache-2.0
 *
 * A network in three steps: a 3x3 convolution; batch norm and ReLU in one call; and the mean over the pixels, weighted
 * into one score per image. Channels come last: an image is rows x columns x channels, and to the batch norm every
 * pixel of a batch is a row of OUTPUTS channels. Loss is half the squared error of the scores, averaged over the batch.
 *
 * The three calls of the layer share one bn_options. Backward finds again where ReLU passed, from gamma, beta and the
 * convolution's output, so that no mask is kept. */
#ifndef CONVOLUTION_H
#define CONVOLUTION_H

#include <batchnorm.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef REAL
#define REAL float
#define REAL_DTYPE BN_FLOAT32
#endif

enum { BATCH = 16, SIDE = 8, PIXELS = SIDE * SIDE, KERNEL = 3, INPUTS = 2, OUTPUTS = 4 };

static const bn_shape pixels = BN_SHAPE(BATCH * PIXELS, OUTPUTS, 1);

/* The learned parameters, or the gradients of a loss with respect to them: one type, so that a step is a loop. */
struct parameters {
    REAL weights[KERNEL][KERNEL][INPUTS][OUTPUTS], gamma[OUTPUTS], beta[OUTPUTS], readout[OUTPUTS];
};

/* Do not copy it: its options point into it. */
struct network {
    struct parameters learned;
    REAL running_mean[OUTPUTS], running_var[OUTPUTS];
    int64_t num_batches;
    bn_epilogue relu;
    bn_running average;
    bn_options options;
};

/* The values that a forward pass leaves for the backward pass. */
struct pass {
    REAL x[BATCH][SIDE][SIDE][INPUTS], u[BATCH][SIDE][SIDE][OUTPUTS], y[BATCH][SIDE][SIDE][OUTPUTS], score[BATCH];
    double mean[OUTPUTS], invstd[OUTPUTS];
};

static void check_status(bn_status status)
{
    if (status != BN_OK) {
        fprintf(stderr, "%s\n", bn_last_error());
        exit(EXIT_FAILURE);
    }
}

/* ReLU after the normalization, and running statistics that are the plain average since num_batches was 0. */
static void prepare(struct network *n)
{
    n->relu = (bn_epilogue)BN_EPILOGUE_INIT;
    n->relu.activation = BN_RELU;
    n->average = (bn_running)BN_RUNNING_INIT;
    n->average.average = BN_AVERAGE_CUMULATIVE;
    n->average.num_batches = &n->num_batches;
    n->options = (bn_options)BN_OPTIONS_INIT;
    n->options.epilogue = &n->relu;
    n->options.running = &n->average;

    n->num_batches = 0;
    for (int c = 0; c < OUTPUTS; c++) {
        n->running_mean[c] = 0;
        n->running_var[c] = 1;
    }
}

/* Every product of the convolution: an output pixel, an input pixel below the kernel, and the weights between the two.
 * Beyond the border of an image there are zeros, which add nothing. */
#define FOR_EACH_TAP                                                                                                   \
    for (int b = 0; b < BATCH; b++)                                                                                    \
        for (int row = 0; row < SIDE; row++)                                                                           \
            for (int column = 0; column < SIDE; column++)                                                              \
                for (int i = 0; i < KERNEL; i++)                                                                       \
                    for (int j = 0; j < KERNEL; j++)                                                                   \
                        if (row + i >= 1 && row + i <= SIDE && column + j >= 1 && column + j <= SIDE)                  \
                            for (int in = 0; in < INPUTS; in++)                                                        \
                                for (int out = 0; out < OUTPUTS; out++)

static void convolve(const struct parameters *p, struct pass *s)
{
    REAL *u = &s->u[0][0][0][0];
    for (int k = 0; k < BATCH * PIXELS * OUTPUTS; k++)
        u[k] = 0;
    FOR_EACH_TAP
        s->u[b][row][column][out] += p->weights[i][j][in][out] * s->x[b][row + i - 1][column + j - 1][in];
}

/* Scores of the images s->x. In training the batch's own statistics count, and the running ones take their part. */
static void forward(struct network *n, struct pass *s, int is_training)
{
    struct parameters *p = &n->learned;
    convolve(p, s);
    if (is_training)
        check_status(bn_forward_training(&pixels, REAL_DTYPE, s->u, p->gamma, p->beta, n->running_mean, n->running_var,
                                         s->y, s->mean, s->invstd, &n->options));
    else
        check_status(bn_forward_inference(&pixels, REAL_DTYPE, s->u, p->gamma, p->beta, n->running_mean, n->running_var,
                                          s->y, NULL, NULL, &n->options));
    for (int b = 0; b < BATCH; b++) {
        s->score[b] = 0;
        for (int k = 0; k < PIXELS; k++)
            for (int c = 0; c < OUTPUTS; c++)
                s->score[b] += s->y[b][k / SIDE][k % SIDE][c] * p->readout[c] / PIXELS;
    }
}

static double loss(const struct pass *s, const REAL target[BATCH])
{
    double sum = 0;
    for (int b = 0; b < BATCH; b++)
        sum += 0.5 * (s->score[b] - target[b]) * (s->score[b] - target[b]);
    return sum / BATCH;
}

/* Gradients of the loss with respect to all that is learned, and to the images unless dx is NULL, after a forward pass
 * in training. */
static void backward(const struct network *n, const struct pass *s, const REAL target[BATCH], struct parameters *d,
                     REAL dx[BATCH][SIDE][SIDE][INPUTS])
{
    static REAL du[BATCH][SIDE][SIDE][OUTPUTS]; /* with respect to y first, then to u, in place */
    const struct parameters *p = &n->learned;

    *d = (struct parameters){0};
    for (int b = 0; b < BATCH; b++) {
        REAL error = (s->score[b] - target[b]) / (BATCH * PIXELS);
        for (int k = 0; k < PIXELS; k++)
            for (int c = 0; c < OUTPUTS; c++) {
                du[b][k / SIDE][k % SIDE][c] = error * p->readout[c];
                d->readout[c] += error * s->y[b][k / SIDE][k % SIDE][c];
            }
    }
    check_status(bn_backward(&pixels, REAL_DTYPE, du, s->u, p->gamma, p->beta, s->mean, s->invstd, du, d->gamma,
                             d->beta, &n->options));
    FOR_EACH_TAP
        d->weights[i][j][in][out] += du[b][row][column][out] * s->x[b][row + i - 1][column + j - 1][in];
    if (dx == NULL)
        return;
    REAL *each = &dx[0][0][0][0];
    for (int k = 0; k < BATCH * PIXELS * INPUTS; k++)
        each[k] = 0;
    FOR_EACH_TAP
        dx[b][row + i - 1][column + j - 1][in] += du[b][row][column][out] * p->weights[i][j][in][out];
}

#endif

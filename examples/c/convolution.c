/* SPDX-License-Identifier: Apache-2.0
 *
 * Trains the network of convolution.h to tell horizontal stripes from vertical ones, in small noisy images; then takes
 * the running statistics anew, for the weights as they are now, and evaluates with them on images that it never saw. */
#include "convolution.h"

enum { STEPS = 60, POOLED = 20, EVALUATED = 50 };

/* A generator of our own, for the same numbers on every machine: the high bits of Knuth's 64-bit linear congruence. */
static double uniform(void) /* in [-1, 1) */
{
    static uint64_t state = 20150211;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) / 4503599627370496.0 - 1; /* 2^52 */
}

/* Stripes two pixels wide in the first channel of each image, under noise; noise alone, far from 0, in the second. */
static void draw_batch(struct pass *s, REAL target[BATCH])
{
    for (int b = 0; b < BATCH; b++) {
        int is_horizontal = uniform() < 0, phase = (int)(2 + 2 * uniform());
        target[b] = is_horizontal ? 1 : -1;
        for (int k = 0; k < PIXELS; k++) {
            int row = k / SIDE, column = k % SIDE, at = (is_horizontal ? row : column) + phase;
            s->x[b][row][column][0] = (REAL)((at / 2 % 2 ? 1 : -1) + 2 * uniform());
            s->x[b][row][column][1] = (REAL)(5 + uniform());
        }
    }
}

static void descend(struct parameters *p, const struct parameters *gradient)
{
    const REAL learning_rate = 0.2f, *d = (const REAL *)gradient;
    REAL *value = (REAL *)p;
    for (size_t i = 0; i < sizeof *p / sizeof *value; i++)
        value[i] -= learning_rate * d[i];
}

int main(void)
{
    static struct network net;
    static struct pass pass;
    struct parameters gradient;
    REAL target[BATCH], *weights = &net.learned.weights[0][0][0][0];

    prepare(&net);
    for (int i = 0; i < KERNEL * KERNEL * INPUTS * OUTPUTS; i++)
        weights[i] = (REAL)(0.3 * uniform());
    for (int c = 0; c < OUTPUTS; c++) {
        net.learned.gamma[c] = 1;
        net.learned.readout[c] = c % 2 ? 1 : -1;
    }

    for (int step = 0; step <= STEPS; step++) {
        draw_batch(&pass, target);
        forward(&net, &pass, 1);
        if (step % 10 == 0)
            printf("step %2d   loss %.3f\n", step, loss(&pass, target));
        backward(&net, &pass, target, &gradient, NULL); /* nothing lies below the images */
        descend(&net.learned, &gradient);
    }
    printf("beta %.3f %.3f %.3f %.3f\n", net.learned.beta[0], net.learned.beta[1], net.learned.beta[2],
           net.learned.beta[3]);

    /* The average holds statistics of weights that are gone: begin it again. */
    net.num_batches = 0;
    for (int i = 0; i < POOLED; i++) {
        draw_batch(&pass, target);
        forward(&net, &pass, 1);
    }

    int right = 0;
    double sum = 0;
    for (int i = 0; i < EVALUATED; i++) {
        draw_batch(&pass, target);
        forward(&net, &pass, 0);
        sum += loss(&pass, target) / EVALUATED;
        for (int b = 0; b < BATCH; b++)
            right += (pass.score[b] > 0) == (target[b] > 0);
    }
    printf("evaluation   loss %.3f, %d of %d right\n", sum, right, EVALUATED * BATCH);
    return right < EVALUATED * BATCH * 9 / 10;
}

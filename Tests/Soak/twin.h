/* SPDX-License-Identifier: Apache-2.0
 *
 * A layer's parameters and running statistics in double, which follow their own gradients and never see the library's,
 * and how far the library's may have come from them.
 *
 * The bound is carried along. A step multiplies what there was by what the formulas multiply it by, and adds what the
 * step itself may lose: the rounding of what is stored, those of a sum's terms and additions, and what comes of numbers
 * that are off by as much as they may be, to the first order, and up to twice that, as the second is far smaller. */
#ifndef SOAK_TWIN_H
#define SOAK_TWIN_H

#include "../C/agrees.h"

enum { state_count = 4 };
static const enum array state[state_count] = {GAMMA, BETA, RUNNING_MEAN, RUNNING_VAR};

typedef struct twin {
    layer l;                      /* its tensors are the library's, its state is its own */
    bn_dtype stored_as;           /* the type in which the library stores its own */
    double *allowed[array_count]; /* of the four of `state`, and of the sums DGAMMA and DBETA */
} twin;

static double most_of_allowed; /* the largest difference of the run, as a part of what it may be */

static inline double unit_of_type(bn_dtype dtype) { return dtype == BN_FLOAT64 ? 0x1p-53 : 0x1p-24; }

/* The error of a number that is computed in double and stored: its rounding, and those of a few terms of its size. */
static inline double stored(bn_dtype param, double value) {
    return 1.001 * unit_of_type(param) * fabs(value) + 8 * 0x1p-53 * (fabs(value) + 1);
}

static inline twin twin_of(const layer *l) {
    twin t = {*l, l->param, {NULL}};
    t.l.param = BN_FLOAT64;
    static const enum array bounded[] = {GAMMA, BETA, RUNNING_MEAN, RUNNING_VAR, DGAMMA, DBETA};
    for (size_t a = 0; a < sizeof bounded / sizeof bounded[0]; a++) {
        enum array array = bounded[a];
        size_t count = l->bytes[array] / size_of(l->param);
        t.allowed[array] = allocate(count, sizeof(double));
        double *values = t.l.arrays[array] = allocate(count, sizeof(double));
        for (size_t i = 0; i < count; i++) values[i] = parameter(l, array, i);
        t.l.bytes[array] = count * sizeof(double);
    }
    void *batches = l->arrays[NUM_BATCHES];
    if (batches != NULL) t.l.arrays[NUM_BATCHES] = copy_of(batches, l->bytes[NUM_BATCHES]);
    return t;
}

static inline void free_twin(twin *t) {
    for (int a = 0; a < array_count; a++) {
        if (t->allowed[a] != NULL) free(t->allowed[a]), free(t->l.arrays[a]);
    }
    free(t->l.arrays[NUM_BATCHES]);
}

/* Bounds of the errors of a, b and d in x_hat = (x - a) * b + d, where they are made of running statistics. */
typedef struct doubt {
    double a, b, d;
} doubt;

static inline doubt doubt_of(const twin *t, const normalizer *n, size_t running) {
    const layer *l = &t->l;
    double mean = t->allowed[RUNNING_MEAN][running], variance = t->allowed[RUNNING_VAR][running];
    int is_of_batch = (l->with & WITH_SOURCE) == 0 || l->source.kind == BN_SOURCE_BATCH;
    doubt none = {0, 0, 0};
    if (is_of_batch && !l->options.frozen) return none;
    if (l->options.frozen || l->source.kind != BN_SOURCE_RENORM) {
        doubt blended = {mean, n->b * n->b * n->b * variance, 0};
        return blended;
    }
    double of_running = parameter(l, RUNNING_VAR, running) + l->options.eps, std = sqrt(of_running);
    double away = fabs(n->mean - parameter(l, RUNNING_MEAN, running)) / std;
    doubt renormalized = {0, n->b * variance / of_running, mean / std + away * variance / of_running};
    return renormalized;
}

/* The size of the second derivative; no third is above 1. */
static inline double curvature(const bn_epilogue *e, double u) {
    double s = 1 / (1 + exp(-u));
    return e->activation == BN_HARD_SWISH ? 1.0 / 3 : fabs(s * (1 - s) * (2 + u * (1 - 2 * s)));
}

/* Bounds the errors of the sums dgamma and dbeta. False if u is so unsure that it may be on the other side of a kink
 * from the library's, or that the bound, which a curved activation feeds back to itself, says little: life ends there. */
static inline int doubt_sums(twin *t, const oracle *o, int per_group) {
    const layer *l = &t->l;
    const bn_epilogue *e = &l->epilogue;
    size_t channels = l->shape.channels, positions = l->shape.outer * l->shape.inner;
    size_t parameters = l->bytes[GAMMA] / sizeof(double);
    int is_curved = e->activation == BN_SILU || e->activation == BN_HARD_SWISH;
    double most = 0, lost = 16 * unit_of_type(l->dtype) + (double)positions * 0x1p-53;
    for (size_t p = 0; p < parameters; p++) {
        t->allowed[DGAMMA][p] = t->allowed[DBETA][p] = lost * o->magnitude[p];
    }
    for (size_t i = 0; i < elements_of(l); i++) {
        if (!takes_part(l, i)) continue;
        const normalizer *n = normalizer_of(o, i, per_group);
        size_t c = channel_of(l, i), p = row_of(l, i, BN_PER_GROUP_PARAMETERS) * channels + c;
        doubt d = doubt_of(t, n, row_of(l, i, BN_PER_GROUP_RUNNING) * channels + c);
        double x = element(l, X, i), x_hat = (x - n->a) * n->b + n->d, dy = fabs(element(l, DY, i));
        double gamma = parameter(l, GAMMA, p), beta = parameter(l, BETA, p);
        double of_gamma = t->allowed[GAMMA][p], of_beta = t->allowed[BETA][p];
        double of_x_hat = n->b * d.a + fabs(x - n->a) * d.b + d.d;
        double of_u = fabs(gamma) * of_x_hat + fabs(x_hat) * of_gamma + of_beta;
        most = fmax(most, of_u);
        if (e->from_output) {
            double u = gamma * x_hat + beta;
            of_x_hat += 2 * (of_beta + fabs(x_hat) * of_gamma + lost * (fabs(u) + fabs(beta))) / fabs(gamma);
        }
        double of_g = is_curved ? dy * (of_u * (curvature(e, o->u[i]) + of_u) + lost * (1 + fabs(o->u[i]))) : 0;
        t->allowed[DBETA][p] += of_g;
        t->allowed[DGAMMA][p] += of_g * fabs(x_hat) + dy * fabs(o->derivative[i]) * of_x_hat;
    }
    return most < 1e-4;
}

/* One number that moves towards another, and what it may be off by. */
static inline void move(twin *t, enum array array, size_t at, const double of[2], double batch, double lost) {
    double *value = &((double *)t->l.arrays[array])[at], *allowed = &t->allowed[array][at];
    *value = of[0] * *value + of[1] * batch;
    *allowed = of[0] * *allowed + of[1] * lost + stored(t->stored_as, *value);
}

/* Moves the running statistics as update() in oracle.h does. The library's variance of floats is good to 12 bits less
 * than a double, that of doubles to as many less as there are bits in the number of values. */
static inline void move_running(twin *t, const oracle *o) {
    layer *l = &t->l;
    size_t channels = l->shape.channels, rows = rows_of(l, BN_PER_GROUP_STATISTICS), used = 0, seen = 0;
    int is_averaged = l->with & WITH_GROUPS && l->groups.averaged;
    double lost = (double)(l->shape.outer * l->shape.inner) * 0x1p-53 + (l->dtype == BN_FLOAT64 ? 0x1p-47 : 0x1p-40);
    int64_t *batches = l->arrays[NUM_BATCHES];
    for (size_t row = 0; row < rows; row++) used += o->outcomes[row] == BN_OUTCOME_USED;
    for (size_t row = 0; row < rows; row++) {
        if (o->outcomes[row] != BN_OUTCOME_USED) continue;
        size_t own = rows_of(l, BN_PER_GROUP_RUNNING) == 1 ? 0 : row;
        double factor = factor_of(l, batches != NULL ? batches[own] : 0);
        double of[2] = {is_averaged && seen > 0 ? 1 : 1 - factor, is_averaged ? factor / (double)used : factor};
        for (size_t c = 0, at = own * channels; c < channels; c++, at++) {
            const normalizer *n = &o->normalizers[row * channels + c];
            double k = l->options.biased_running_var ? 1 : n->count / (n->count - 1);
            double of_variance = k * lost * (1 + n->variance + n->mean * n->mean);
            move(t, RUNNING_MEAN, at, of, n->mean, lost * (1 + fabs(n->mean)));
            move(t, RUNNING_VAR, at, of, k * n->variance, of_variance);
        }
        seen += 1;
        if (batches != NULL && (!is_averaged || seen == used)) batches[own] += 1;
    }
}

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * The results of a layer with descriptors, in plain loops over doubles.
 *
 * Normalization of every kind is x_hat = (x - a) * b + d, for each channel of each group of statistics. The
 * gradient has to know no more than the shares of a and of the variance in b that come from the batch (of_mean and
 * of_variance). */
#ifndef ORACLE_H
#define ORACLE_H

#include "layer.h"

typedef struct normalizer {
    double count, mean, variance; /* of the batch; the variance is biased */
    double a, b, d;
    double of_mean, of_variance; /* da / dmean, and -2 * (db / dvariance) / b */
    double sum, product;         /* of gamma * g and gamma * g * (x - a) * b */
} normalizer;

typedef struct oracle {
    layer *l;
    normalizer *normalizers;              /* rows of statistics x channels */
    int *outcomes;                        /* of each row */
    double *running_mean, *running_var;   /* as they should be after the call */
    int64_t *batches;
    double *u, *y, *derivative, *dx, *dz; /* dense tensors */
    double *dgamma, *dbeta, *magnitude;   /* magnitude: how large the terms of dgamma and dbeta are together */
} oracle;

/* The position, group, row and weight of element i. */
static inline size_t position_of(const layer *l, size_t i) {
    size_t slice = l->shape.channels * l->shape.inner;
    return i / slice * l->shape.inner + i % l->shape.inner;
}

static inline size_t group_of(const layer *l, size_t i) {
    if ((l->with & WITH_GROUPS) == 0) return 0;
    size_t samples = l->groups.samples, groups = l->groups.groups;
    size_t sample = i / (elements_of(l) / samples);
    if (l->arrays[INDEX] != NULL) return (size_t)((const int32_t *)l->arrays[INDEX])[sample];
    return l->groups.interleaved ? sample % groups : sample / (samples / groups);
}

static inline size_t row_of(const layer *l, size_t i, int per_group) {
    return rows_of(l, per_group) == 1 ? 0 : group_of(l, i);
}

static inline double weight_of(const layer *l, size_t i) {
    if (l->arrays[WEIGHTS] == NULL) return 1;
    return get(l->dtype == BN_FLOAT64 ? BN_FLOAT64 : BN_FLOAT32, l->arrays[WEIGHTS], position_of(l, i));
}

/* True if y depends on the statistics there. */
static inline int takes_part(const layer *l, size_t i) {
    return l->weights.masked == BN_MASKED_NORMALIZE || weight_of(l, i) > 0;
}

static inline double activate(const bn_epilogue *e, double u) {
    switch (e->activation) {
    case BN_RELU: return u > 0 ? u : 0;
    case BN_LEAKY_RELU: return u > 0 ? u : e->slope * u;
    case BN_CLIP: return fmin(fmax(u, e->low), e->high);
    case BN_HARD_SWISH: return u * fmin(fmax(u + 3, 0), 6) / 6;
    case BN_SILU: return u / (1 + exp(-u));
    default: return u;
    }
}

static inline double activate_derivative(const bn_epilogue *e, double u) {
    double s = 1 / (1 + exp(-u));
    switch (e->activation) {
    case BN_RELU: return u > 0;
    case BN_LEAKY_RELU: return u > 0 ? 1 : e->slope;
    case BN_CLIP: return u > e->low && u < e->high;
    case BN_HARD_SWISH: return u <= -3 ? 0 : u >= 3 ? 1 : (2 * u + 3) / 6;
    case BN_SILU: return s * (1 + u * (1 - s));
    default: return 1;
    }
}

/* True if u is so near a kink that rounding decides which derivative it has. */
static inline int is_near_kink(const bn_epilogue *e, bn_dtype dtype, double u) {
    double kinks[2] = {0, 0}, margin = is_half(dtype) ? 0.05 : 1e-4;
    if (e->activation == BN_IDENTITY || e->activation == BN_SILU) return 0;
    if (e->activation == BN_CLIP) kinks[0] = e->low, kinks[1] = e->high;
    if (e->activation == BN_HARD_SWISH) kinks[0] = -3, kinks[1] = 3;
    return fabs(u - kinks[0]) < margin || fabs(u - kinks[1]) < margin;
}

static inline double factor_of(const layer *l, int64_t batches) {
    double n = (double)batches + 1, momentum = l->options.momentum;
    switch (l->running.average) {
    case BN_AVERAGE_CUMULATIVE: return 1 / n;
    case BN_AVERAGE_WINDOWED: return fmax(1 / n, momentum);
    case BN_AVERAGE_DEBIASED: return momentum / (1 - pow(1 - momentum, n));
    case BN_AVERAGE_FILLED: return n == 1 ? 1 : momentum;
    default: return momentum;
    }
}

/* Moments, and an outcome, of each row. */
static inline void weigh(oracle *o) {
    layer *l = o->l;
    size_t channels = l->shape.channels, rows = rows_of(l, BN_PER_GROUP_STATISTICS), count = elements_of(l);
    size_t *positive = allocate(rows * channels, sizeof(size_t));
    for (size_t i = 0; i < count; i++) {
        size_t at = row_of(l, i, BN_PER_GROUP_STATISTICS) * channels + channel_of(l, i);
        double w = weight_of(l, i);
        if (w == 0) continue; /* x may be NaN there */
        o->normalizers[at].count += w;
        o->normalizers[at].mean += w * element(l, X, i);
        positive[at] += 1;
    }
    for (size_t at = 0; at < rows * channels; at++) {
        if (positive[at] > 0) o->normalizers[at].mean /= o->normalizers[at].count;
        o->outcomes[at / channels] = positive[at] == 0 ? BN_OUTCOME_EMPTY : BN_OUTCOME_USED;
        if (positive[at] != 1 || (l->with & WITH_RUNNING) == 0) continue;
        int is_running = l->running.single_value == BN_SINGLE_VALUE_RUNNING;
        o->outcomes[at / channels] = is_running ? BN_OUTCOME_RUNNING : BN_OUTCOME_BETA;
    }
    for (size_t i = 0; i < count; i++) {
        normalizer *n = &o->normalizers[row_of(l, i, BN_PER_GROUP_STATISTICS) * channels + channel_of(l, i)];
        double w = weight_of(l, i), deviation = w == 0 ? 0 : element(l, X, i) - n->mean;
        if (w != 0) n->variance += w * deviation * deviation / n->count;
    }
    for (size_t at = 0; at < rows * channels; at++) {
        const normalizer *n = &o->normalizers[at];
        int is_lost = l->running.nonfinite == BN_NONFINITE_SKIP && !isfinite(n->mean + n->variance);
        if (is_lost && o->outcomes[at / channels] == BN_OUTCOME_USED) o->outcomes[at / channels] = BN_OUTCOME_NONFINITE;
    }
    free(positive);
}

static inline void settle(oracle *o, size_t row, size_t c) {
    layer *l = o->l;
    const bn_source *s = &l->source;
    normalizer *n = &o->normalizers[row * l->shape.channels + c];
    size_t running = (rows_of(l, BN_PER_GROUP_RUNNING) == 1 ? 0 : row), at = running * l->shape.channels + c;
    double eps = l->options.eps, mean = parameter(l, RUNNING_MEAN, at), variance = parameter(l, RUNNING_VAR, at);
    n->a = n->mean, n->b = inverse(n->variance, eps), n->d = 0, n->of_mean = n->of_variance = 1;
    if (o->outcomes[row] == BN_OUTCOME_EMPTY) n->of_mean = n->of_variance = 0;
    if (o->outcomes[row] == BN_OUTCOME_RUNNING) {
        n->a = mean, n->b = inverse(variance, eps), n->of_mean = n->of_variance = 0;
    } else if (l->with & WITH_SOURCE && s->kind == BN_SOURCE_BLEND) {
        double m = n->count == 0 && s->pseudo_count == 0 ? 1 : n->count / (s->pseudo_count + n->count);
        n->a = (1 - m) * mean + m * n->mean, n->b = inverse((1 - m) * variance + m * n->variance, eps);
        n->of_mean = m * n->of_mean, n->of_variance = m * n->of_variance * n->b * n->b;
        return;
    } else if (l->with & WITH_SOURCE && s->kind == BN_SOURCE_RENORM) {
        double std = sqrt(n->variance + eps), running_std = sqrt(variance + eps);
        double r = fmin(fmax(std / running_std, s->r_min), s->r_max);
        n->d = fmin(fmax((n->mean - mean) / running_std, -s->d_max), s->d_max);
        n->b = r / std, n->of_variance *= 1 / (std * std);
        return;
    } else if (l->with & WITH_SOURCE && s->kind == BN_SOURCE_UPDATED && o->outcomes[row] == BN_OUTCOME_EMPTY) {
        n->a = mean, n->b = inverse(variance, eps); /* updated to what they were */
    } else if (l->with & WITH_SOURCE && s->kind == BN_SOURCE_UPDATED) {
        int64_t batches = l->arrays[NUM_BATCHES] != NULL ? ((int64_t *)l->arrays[NUM_BATCHES])[running] : 0;
        double m = factor_of(l, batches), k = l->options.biased_running_var ? 1 : n->count / (n->count - 1);
        n->a = (1 - m) * mean + m * n->mean, n->b = inverse((1 - m) * variance + m * k * n->variance, eps);
        n->of_mean = m, n->of_variance = m * k * n->b * n->b;
        return;
    }
    n->of_variance *= n->b * n->b;
}

/* Every used row in order, or their average at once. */
static inline void update(oracle *o) {
    layer *l = o->l;
    size_t channels = l->shape.channels, rows = rows_of(l, BN_PER_GROUP_STATISTICS), used = 0;
    int is_averaged = l->with & WITH_GROUPS && l->groups.averaged;
    for (size_t row = 0; row < rows; row++) used += o->outcomes[row] == BN_OUTCOME_USED;
    size_t seen = 0;
    for (size_t row = 0; row < rows; row++) {
        if (o->outcomes[row] != BN_OUTCOME_USED) continue;
        size_t own = rows_of(l, BN_PER_GROUP_RUNNING) == 1 ? 0 : row;
        double factor = factor_of(l, o->batches != NULL ? o->batches[own] : 0);
        if (is_averaged) factor /= (double)used;
        for (size_t c = 0; c < channels; c++) {
            const normalizer *n = &o->normalizers[row * channels + c];
            double *mean = &o->running_mean[own * channels + c], *variance = &o->running_var[own * channels + c];
            double unbiased = l->options.biased_running_var ? 1 : n->count / (n->count - 1);
            double kept = is_averaged ? (seen == 0 ? 1 - factor * (double)used : 1) : 1 - factor;
            *mean = kept * *mean + factor * n->mean;
            *variance = kept * *variance + factor * unbiased * n->variance;
        }
        seen += 1;
        if (o->batches != NULL && (!is_averaged || seen == used)) o->batches[own] += 1;
    }
}

static inline oracle make_oracle(layer *l) {
    oracle o;
    size_t channels = l->shape.channels, count = elements_of(l), running = rows_of(l, BN_PER_GROUP_RUNNING);
    size_t parameters = rows_of(l, BN_PER_GROUP_PARAMETERS) * channels;
    o.l = l;
    o.normalizers = allocate(larger(rows_of(l, BN_PER_GROUP_STATISTICS), running) * channels, sizeof(normalizer));
    o.outcomes = allocate(larger(rows_of(l, BN_PER_GROUP_STATISTICS), running), sizeof(int));
    double *tensors = allocate(5 * count, sizeof(double));
    o.u = tensors, o.y = tensors + count, o.derivative = tensors + 2 * count;
    o.dx = tensors + 3 * count, o.dz = tensors + 4 * count;
    o.dgamma = allocate(3 * parameters, sizeof(double));
    o.dbeta = o.dgamma + parameters, o.magnitude = o.dbeta + parameters;
    o.running_mean = allocate(2 * running * channels, sizeof(double));
    o.running_var = o.running_mean + running * channels;
    for (size_t i = 0; i < running * channels; i++) {
        o.running_mean[i] = parameter(l, RUNNING_MEAN, i), o.running_var[i] = parameter(l, RUNNING_VAR, i);
    }
    o.batches = l->arrays[NUM_BATCHES] != NULL ? copy_of(l->arrays[NUM_BATCHES], l->bytes[NUM_BATCHES]) : NULL;
    return o;
}

static inline void free_oracle(oracle *o) {
    free(o->normalizers), free(o->outcomes), free(o->u), free(o->dgamma), free(o->running_mean), free(o->batches);
}

static inline normalizer *normalizer_of(const oracle *o, size_t i, int per_group) {
    return &o->normalizers[row_of(o->l, i, per_group) * o->l->shape.channels + channel_of(o->l, i)];
}

/* x_hat, u and y of every element, each normalized as its row of per_group says. */
static inline void map_forward(oracle *o, int per_group) {
    layer *l = o->l;
    for (size_t i = 0; i < elements_of(l); i++) {
        const normalizer *n = normalizer_of(o, i, per_group);
        size_t p = row_of(l, i, BN_PER_GROUP_PARAMETERS) * l->shape.channels + channel_of(l, i);
        double x = element(l, X, i), x_hat = (x - n->a) * n->b + n->d;
        o->u[i] = parameter(l, GAMMA, p) * x_hat + parameter(l, BETA, p);
        if (l->arrays[Z] != NULL) o->u[i] += element(l, Z, i);
        o->y[i] = activate(&l->epilogue, o->u[i]);
        o->derivative[i] = activate_derivative(&l->epilogue, o->u[i]);
        if (!takes_part(l, i)) o->y[i] = l->weights.masked == BN_MASKED_ZERO ? 0 : x;
    }
}

/* The library's forward call moves the running statistics, so this comes before it. */
static inline oracle expected_training(layer *l) {
    oracle o = make_oracle(l);
    weigh(&o);
    for (size_t row = 0; row < rows_of(l, BN_PER_GROUP_STATISTICS); row++) {
        for (size_t c = 0; c < l->shape.channels; c++) settle(&o, row, c);
    }
    update(&o);
    map_forward(&o, BN_PER_GROUP_STATISTICS);
    return o;
}

static inline oracle expected_inference(layer *l) {
    oracle o = make_oracle(l);
    for (size_t i = 0; i < rows_of(l, BN_PER_GROUP_RUNNING) * l->shape.channels; i++) {
        o.normalizers[i].a = parameter(l, RUNNING_MEAN, i);
        o.normalizers[i].b = inverse(parameter(l, RUNNING_VAR, i), l->options.eps);
    }
    map_forward(&o, BN_PER_GROUP_RUNNING);
    return o;
}

/* Gradients, of dy that is 0 wherever rounding may decide about the derivative: they are then as sure as sums. Where
 * bn_backward reads the output alone, x_hat is what the rounded output says. */
static inline void expect_gradients(oracle *o, int per_group) {
    layer *l = o->l;
    size_t channels = l->shape.channels, count = elements_of(l);
    double *x_hat = allocate(count, sizeof(double));
    for (size_t i = 0; i < count; i++) {
        normalizer *n = normalizer_of(o, i, per_group);
        if (is_near_kink(&l->epilogue, l->dtype, o->u[i])) put(l->dtype, l->arrays[DY], place_of(l, DY, i), 0);
        size_t p = row_of(l, i, BN_PER_GROUP_PARAMETERS) * channels + channel_of(l, i);
        double gamma = parameter(l, GAMMA, p), g = element(l, DY, i) * o->derivative[i];
        x_hat[i] = (element(l, X, i) - n->a) * n->b;
        if (l->epilogue.from_output) {
            double y = element(l, Y, i);
            double u = y <= 0 && l->epilogue.activation != BN_IDENTITY ? y / l->epilogue.slope : y;
            x_hat[i] = (u - parameter(l, BETA, p)) / gamma;
        }
        o->dz[i] = takes_part(l, i) ? g : 0;
        if (!takes_part(l, i)) continue;
        o->dbeta[p] += g;
        o->dgamma[p] += g * (x_hat[i] + n->d);
        o->magnitude[p] += fabs(g) * (1 + fabs(x_hat[i]) + fabs(n->d));
        n->sum += gamma * g;
        n->product += gamma * g * x_hat[i];
    }
    for (size_t i = 0; i < count; i++) {
        const normalizer *n = normalizer_of(o, i, per_group);
        size_t p = row_of(l, i, BN_PER_GROUP_PARAMETERS) * channels + channel_of(l, i);
        double w = weight_of(l, i), x = element(l, X, i), share = n->count == 0 ? 0 : w / n->count;
        if (!takes_part(l, i)) {
            o->dx[i] = l->weights.masked == BN_MASKED_ZERO ? 0 : element(l, DY, i);
            continue;
        }
        double gamma = parameter(l, GAMMA, p), deviation = w == 0 ? 0 : x - n->mean;
        if (l->epilogue.from_output) deviation = x_hat[i] / n->b;
        o->dx[i] = gamma * n->b * o->dz[i];
        if (l->options.frozen) continue;
        o->dx[i] -= share * (n->b * n->of_mean * n->sum + n->of_variance * deviation * n->product);
    }
    free(x_hat);
}

/* True if some group has one value: other tests are about those. */
static inline int has_single_value(layer *l) {
    int with = l->with, is_single = 0;
    oracle o = make_oracle(l);
    l->with |= WITH_RUNNING;
    weigh(&o);
    for (size_t row = 0; row < rows_of(l, BN_PER_GROUP_STATISTICS); row++) {
        is_single = is_single || o.outcomes[row] == BN_OUTCOME_BETA || o.outcomes[row] == BN_OUTCOME_RUNNING;
    }
    free_oracle(&o);
    l->with = with;
    return is_single;
}

#endif

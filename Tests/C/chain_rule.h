/* SPDX-License-Identifier: Apache-2.0
 *
 * bn_jvp and bn_double_backward by the chain rule, step by step through mean, variance and invstd, in long double:
 * forward for the one, backward through bn_backward for the other. And the distance that a result may have. */
#ifndef CHAIN_RULE_H
#define CHAIN_RULE_H

#include "derivatives.h"
#include "reference.h"

typedef long double real;

enum { most_values = 6144 };

/* One channel: what is given, and what should come of it. */
static struct channel {
    size_t count;
    int frozen;
    real gamma, a, b, s, mean; /* a, b: of gamma and beta; s: invstd */
    real x[most_values], q[most_values], u[most_values], g[most_values]; /* x - mean, x_hat, grad_dx, dy */
    real tangent[most_values], grad_dy[most_values], grad_x[most_values], grad_gamma;
} k;

static inline real given(const layer *l, int array, size_t i, real otherwise) {
    return l->arrays[array] == NULL ? otherwise : (real)element(l, (enum array)array, i);
}

static inline real given_parameter(const layer *l, int array, size_t c, real otherwise) {
    return l->arrays[array] == NULL ? otherwise : (real)parameter(l, (enum array)array, c);
}

static inline void gather(const layer *l, size_t c) {
    k.count = l->shape.outer * l->shape.inner;
    if (k.count > most_values) abort();
    k.frozen = l->options.frozen;
    k.gamma = given_parameter(l, GAMMA, c, 1);
    k.a = given_parameter(l, GRAD_DGAMMA, c, 0), k.b = given_parameter(l, GRAD_DBETA, c, 0);
    k.mean = saved(l, SAVED_MEAN, c), k.s = saved(l, SAVED_INVSTD, c);
    for (size_t i = 0; i < k.count; i++) {
        size_t place = value_of(l, c, i);
        k.x[i] = element(l, X, place) - k.mean;
        k.q[i] = k.x[i] * k.s;
        k.u[i] = given(l, GRAD_DX, place, 0), k.g[i] = element(l, DY, place);
    }
}

static inline real sum(const real *values) {
    real total = 0;
    for (size_t i = 0; i < k.count; i++) total += values[i];
    return total;
}

static inline real dot(const real *v, const real *w) {
    real total = 0;
    for (size_t i = 0; i < k.count; i++) total += v[i] * w[i];
    return total;
}

static inline real sum_of_magnitudes(const real *v, const real *w) {
    real total = 0;
    for (size_t i = 0; i < k.count; i++) total += fabsl(v[i]) * (w != NULL ? fabsl(w[i]) : 1);
    return total;
}

/* y = gamma * x_hat + beta, x_hat = (x - mean) * s, s = (var + eps)^(-1/2): each one's rate of change in turn. */
static inline void differentiate_forward(void) {
    real m = (real)k.count, mean = sum(k.u) / m, var = 0;
    for (size_t i = 0; i < k.count; i++) var += 2 * k.x[i] * (k.u[i] - mean) / m;
    real s = -k.s * k.s * k.s * var / 2;
    if (k.frozen) mean = s = 0;
    for (size_t i = 0; i < k.count; i++) {
        real q = (k.u[i] - mean) * k.s + k.x[i] * s;
        k.tangent[i] = k.a * k.q[i] + k.gamma * q + k.b;
    }
}

/* dbeta = sum(g), dgamma = sum(g * q), t = g - dbeta / M - q * dgamma / M and dx = gamma * s * t: from the last step to
 * the first. A name with _ is what the loss changes by with what it names. */
static inline void differentiate_backward(void) {
    real m = (real)k.count, is_live = k.frozen ? 0 : 1, dbeta = sum(k.g), dgamma = dot(k.g, k.q), of_t = 0;
    for (size_t i = 0; i < k.count; i++) of_t += k.u[i] * (k.g[i] - is_live * (dbeta + k.q[i] * dgamma) / m);
    k.grad_gamma = k.s * of_t;
    real scale = k.gamma * k.s, s_ = k.gamma * of_t, mean_ = 0;
    real dbeta_ = k.b - is_live * scale * sum(k.u) / m, dgamma_ = k.a - is_live * scale * dot(k.u, k.q) / m;
    for (size_t i = 0; i < k.count; i++) {
        real q_ = dgamma_ * k.g[i] - is_live * scale * k.u[i] * dgamma / m;
        k.grad_dy[i] = scale * k.u[i] + dbeta_ + dgamma_ * k.q[i];
        k.grad_x[i] = q_ * k.s;
        s_ += q_ * k.x[i], mean_ -= q_ * k.s;
    }
    if (k.frozen) return;
    real var_ = -k.s * k.s * k.s * s_ / 2;
    mean_ -= 2 * var_ * sum(k.x) / m;
    for (size_t i = 0; i < k.count; i++) k.grad_x[i] += 2 * var_ * k.x[i] / m + mean_ / m;
}

/* The distance that a result may have from the real one. An element is a sum of products of centred values, with so
 * many roundings of the type that is computed with; a mean is rounded to that type, and made up for to the square of
 * its unit. Each coefficient is a product of at most three sums of M doubles. x_hat is 0 on average, but for the mean's
 * rounding. */
typedef struct bounds {
    double u, in_double;
    real mean_u, mean_g, mean_q, sum_u, sum_g; /* the sums are by x_hat */
    real size_u, size_g, abs_u, abs_g, abs_a;  /* means and sums of magnitudes */
} bounds;

static inline bounds bound(bn_dtype dtype) {
    real m = (real)k.count, scatter = 0;
    bounds r = {0};
    r.u = dtype == BN_FLOAT64 ? unit : FLT_EPSILON / 2;
    r.in_double = (3 * (double)k.count + 32) * unit;
    r.abs_u = sum_of_magnitudes(k.u, k.q), r.abs_g = sum_of_magnitudes(k.g, k.q);
    if (k.frozen) {
        r.abs_a = sum_of_magnitudes(k.u, k.g);
        return r;
    }
    r.mean_u = sum(k.u) / m, r.mean_g = sum(k.g) / m, r.mean_q = fabsl(sum(k.q) / m);
    r.sum_u = dot(k.u, k.q), r.sum_g = dot(k.g, k.q);
    r.size_u = sum_of_magnitudes(k.u, NULL) / m, r.size_g = sum_of_magnitudes(k.g, NULL) / m;
    for (size_t i = 0; i < k.count; i++) scatter += fabsl(k.u[i]) * (fabsl(k.g[i] - r.mean_g) + r.size_g * unit);
    r.abs_a = scatter + r.abs_u * r.abs_g / m;
    return r;
}

static inline real centred(const bounds *r, real value, real mean) {
    return fabsl(value - mean) + 2 * r->u * fabsl(mean);
}

static inline real centred_q(const bounds *r, size_t i) {
    return fabsl(k.q[i]) + 2 * r->u * fabsl(k.mean * k.s);
}

static inline double error_of_direction(const bounds *r, size_t i) {
    real m = (real)k.count, scale = fabsl(k.gamma * k.s), q = centred_q(r, i);
    real size = scale * (centred(r, k.u[i], r->mean_u) + q * fabsl(r->sum_u) / m) + fabsl(k.a) * q + fabsl(k.b);
    if (k.frozen) return (double)(roundings * r->u * size);
    real of_sums = scale * (r->size_u + fabsl(k.q[i]) * r->abs_u / m);
    return (double)(roundings * r->u * size + r->in_double * of_sums + scale * q * fabsl(r->mean_u) * r->mean_q);
}

static inline double error_of_grad_x(const bounds *r, size_t i) {
    real m = (real)k.count, scale = fabsl(k.gamma * k.s), q = centred_q(r, i);
    if (k.frozen) return (double)(roundings * r->u * fabsl(k.a * k.s * k.g[i]));
    real of_g = fabsl(k.a - k.gamma * k.s * r->sum_u / m), of_u = scale * fabsl(r->sum_g) / m;
    real most_of_g = fabsl(k.a) + scale * r->abs_u / m, most_of_u = scale * r->abs_g / m;
    real of_q = (most_of_g * r->abs_g + most_of_u * r->abs_u + scale * r->abs_a) / m;
    real through = fabsl(k.s * k.gamma * k.grad_gamma) / m;
    through += k.s * (of_g * fabsl(r->sum_g) + of_u * fabsl(r->sum_u)) / m;
    real size = k.s * (of_g * centred(r, k.g[i], r->mean_g) + of_u * centred(r, k.u[i], r->mean_u)) + through * q;
    real of_sums = most_of_g * (fabsl(k.g[i] - r->mean_g) + r->size_g);
    of_sums += most_of_u * (fabsl(k.u[i] - r->mean_u) + r->size_u) + fabsl(k.q[i]) * of_q;
    return (double)(roundings * r->u * size + r->in_double * k.s * of_sums + k.s * of_q * r->mean_q);
}

/* Rounded once more where the type is narrower than what is computed with; and its least numbers are apart. */
static inline double error_of_type(bn_dtype dtype, double value) {
    switch (dtype) {
    case BN_FLOAT16: return 0x1.01p-11 * fabs(value) + 0x1p-25;
    case BN_BFLOAT16: return 0x1.01p-8 * fabs(value) + 0x1p-133;
    case BN_FLOAT32: return unit_of(dtype) * fabs(value) + 8 * 0x1p-149;
    default: return unit * fabs(value) + 8 * 0x1p-1074;
    }
}

static inline void check_value(const layer *l, double result, double expected, double error, const char *what,
                               size_t c, size_t i) {
    CHECK(fabs(result - expected) <= error,
          "%s[%zu] of channel %zu is %.17g, expected %.17g +- %.3g (%s, %zu x %zu x %zu, frozen %d)", what, i, c,
          result, expected, error, name_of(l->dtype), l->shape.outer, l->shape.channels, l->shape.inner,
          l->options.frozen);
}

/* The tensors of a channel; returns what the error of its grad_gamma is bounded by. */
static inline double check_tensors(const layer *l, size_t c) {
    gather(l, c);
    differentiate_forward();
    differentiate_backward();
    bounds r = bound(l->dtype);
    static const struct { int array; const real *expected; const char *name; } tensors[] = {
        {Y_TANGENT, k.tangent, "y_tangent"}, {GRAD_DY, k.grad_dy, "grad_dy"}, {GRAD_X, k.grad_x, "grad_x"},
    };
    for (int t = 0; t < 3; t++) {
        for (size_t i = 0; i < k.count; i++) {
            double expected = (double)tensors[t].expected[i];
            double error = t < 2 ? error_of_direction(&r, i) : error_of_grad_x(&r, i);
            double result = element(l, (enum array)tensors[t].array, value_of(l, c, i));
            check_value(l, result, expected, error + error_of_type(l->dtype, expected), tensors[t].name, c, i);
        }
    }
    return r.in_double * (double)(k.s * r.abs_a);
}

static inline void check_channel(const layer *l, size_t c) {
    double error = check_tensors(l, c), expected = (double)k.grad_gamma, result = parameter(l, GRAD_GAMMA, c);
    error += error_of_type(l->param, expected);
    check_value(l, result, expected, error, "grad_gamma", c, 0);
}

#endif

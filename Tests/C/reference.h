/* SPDX-License-Identifier: Apache-2.0
 *
 * Batch normalization as the formulas say, in plain loops, and how far a correct result may be from it.
 *
 * The bounds count roundings. A sum of M doubles is wrong by at most M * u * (sum of magnitudes), u = 2^-53; an
 * elementwise result by a few roundings of its own type, relative to the terms it is made of, plus what the statistics
 * that went into it were wrong by. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include "problem.h"

#include <float.h>
#include <math.h>

enum { roundings = 8 }; /* in y or dx: subtract twice, scale, multiply, add; and those of the scale itself */

/* A value and how far from it a correct result may be. */
typedef struct bounded {
    double value, error;
} bounded;

typedef struct statistics {
    double count;
    bounded mean, m2, var, invstd;
} statistics;

static const double unit = DBL_EPSILON / 2;

static inline double unit_of(bn_dtype dtype) {
    return dtype == BN_FLOAT32 ? FLT_EPSILON / 2 : unit;
}

static inline void check_near(double result, bounded expected, const char *what, const problem *p, size_t channel) {
    CHECK(fabs(result - expected.value) <= expected.error,
          "%s of channel %zu is %.17g, expected %.17g +- %.3g (%s, %zu x %zu x %zu)", what, channel, result,
          expected.value, expected.error, name_of(p->dtype), p->shape.outer, p->shape.channels, p->shape.inner);
}

static inline bounded reference_invstd(bounded var, double eps) {
    double shifted = var.value + eps;
    bounded invstd = {inverse(var.value, eps), 0};
    if (shifted != 0) invstd.error = invstd.value * (var.error / shifted + 4 * unit);
    return invstd;
}

static inline statistics reference_statistics(const problem *p, size_t c, double eps) {
    const bn_shape *s = &p->shape;
    long double sum = 0, magnitudes = 0, squares = 0;
    for (size_t n = 0; n < s->outer; n++) {
        for (size_t k = 0; k < s->inner; k++) {
            double x = get(p->dtype, p->x, at(s, s->x_stride, n, c, k));
            sum += x;
            magnitudes += fabs(x);
        }
    }
    statistics r = {0};
    r.count = (double)s->outer * (double)s->inner;
    if (r.count > 0) {
        long double mean = sum / r.count;
        for (size_t n = 0; n < s->outer; n++) {
            for (size_t k = 0; k < s->inner; k++) {
                long double deviation = get(p->dtype, p->x, at(s, s->x_stride, n, c, k)) - mean;
                squares += deviation * deviation;
            }
        }
        r.mean.value = (double)mean;
        r.mean.error = unit * ((double)magnitudes + 2 * fabs(r.mean.value));
        r.m2.value = (double)squares;
        /* The last two terms: each block's mean is a little off when the moments of blocks are merged. */
        r.m2.error = unit * (r.count + 8) * r.m2.value + 2 * sqrt(r.m2.value * r.count) * r.mean.error +
                     r.count * r.mean.error * r.mean.error;
        r.var.value = r.m2.value / r.count;
        r.var.error = r.m2.error / r.count + unit * r.var.value;
    }
    r.invstd = reference_invstd(r.var, eps);
    return r;
}

/* gamma * (x - mean) * invstd + beta. The mean may be held as a sum of two floats, good to the square of their unit. */
static inline bounded reference_y(bn_dtype dtype, double x, double gamma, double beta, bounded mean, bounded invstd) {
    long double deviation = (long double)x - mean.value;
    double scaled = (double)(gamma * deviation * invstd.value);
    double u = unit_of(dtype);
    bounded y = {(double)(gamma * deviation * invstd.value + beta), 0};
    y.error = roundings * u * (fabs(scaled) + fabs(beta));
    y.error += fabs(gamma) * invstd.value * (mean.error + 2 * u * u * fabs(mean.value));
    y.error += fabs(gamma * (double)deviation) * invstd.error;
    return y;
}

/* sum(dy) and sum(dy * x_hat), given the statistics that the library was given. */
typedef struct sums {
    bounded dy, dy_x_hat;
} sums;

static inline sums reference_sums(const problem *p, size_t c) {
    const bn_shape *s = &p->shape;
    long double sum = 0, magnitudes = 0, products = 0, product_magnitudes = 0;
    for (size_t n = 0; n < s->outer; n++) {
        for (size_t k = 0; k < s->inner; k++) {
            double dy = get(p->dtype, p->dy, at(s, s->y_stride, n, c, k));
            double x = get(p->dtype, p->x, at(s, s->x_stride, n, c, k));
            long double x_hat = ((long double)x - p->mean[c]) * p->invstd[c];
            sum += dy;
            magnitudes += fabs(dy);
            products += dy * x_hat;
            product_magnitudes += fabsl(dy * x_hat);
        }
    }
    double count = (double)s->outer * (double)s->inner;
    sums r = {{(double)sum, unit * (count + 2) * (double)magnitudes}, {(double)products, 0}};
    r.dy_x_hat.error = unit * (count + 8) * (double)product_magnitudes;
    return r;
}

/* gamma * invstd * (dy - a - x_hat * b), where a and b are the mean gradients, or 0 for a frozen layer. */
static inline bounded reference_dx(bn_dtype dtype, double dy, double x_hat, double scale, bounded a, bounded b) {
    bounded dx = {scale * (dy - a.value - x_hat * b.value), 0};
    double terms = fabs(dy) + fabs(a.value) + fabs(x_hat * b.value);
    dx.error = fabs(scale) * (roundings * unit_of(dtype) * terms + a.error + fabs(x_hat) * b.error);
    return dx;
}

static inline bounded divided(bounded sum, double count) {
    bounded r = {sum.value / count, sum.error / count};
    return r;
}

/* A value that is rounded once more on the way out. */
static inline bounded rounded(bn_dtype dtype, bounded r) {
    r.error += 2 * unit_of(dtype) * fabs(r.value);
    return r;
}

#endif

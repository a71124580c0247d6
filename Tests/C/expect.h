/* SPDX-License-Identifier: Apache-2.0
 *
 * The outputs of a problem against the reference, one channel at a time. */
#ifndef EXPECT_H
#define EXPECT_H

#include "reference.h"

/* NULL stands for gamma 1 and beta 0. */
static inline void check_y(const problem *p, size_t c, const void *gamma, const void *beta, bounded mean,
                           bounded invstd) {
    const bn_shape *s = &p->shape;
    double scale = gamma ? get(p->dtype, gamma, c) : 1, shift = beta ? get(p->dtype, beta, c) : 0;
    for (size_t n = 0; n < s->outer; n++) {
        for (size_t k = 0; k < s->inner; k++) {
            double x = get(p->dtype, p->x, at(s, s->x_stride, n, c, k));
            double y = get(p->dtype, p->y, at(s, s->y_stride, n, c, k));
            check_near(y, reference_y(p->dtype, x, scale, shift, mean, invstd), "y", p, c);
        }
    }
}

static inline bounded blend(double momentum, double old, bounded new) {
    bounded r = {(1 - momentum) * old + momentum * new.value, momentum * new.error};
    r.error += 4 * unit * (fabs(old) + fabs(new.value));
    return r;
}

/* The running statistics, which were old_mean and old_var before they moved towards s. */
static inline void check_running(const problem *p, size_t c, const void *old_mean, const void *old_var,
                                 const statistics *s, double momentum, int biased) {
    bounded mean = blend(momentum, get(p->dtype, old_mean, c), s->mean);
    bounded var = blend(momentum, get(p->dtype, old_var, c), biased ? s->var : divided(s->m2, s->count - 1));
    check_near(get(p->dtype, p->running_mean, c), rounded(p->dtype, mean), "running_mean", p, c);
    check_near(get(p->dtype, p->running_var, c), rounded(p->dtype, var), "running_var", p, c);
}

static inline void check_dx(const problem *p, size_t c, bounded a, bounded b) {
    const bn_shape *s = &p->shape;
    double scale = get(p->dtype, p->gamma, c) * p->invstd[c];
    for (size_t n = 0; n < s->outer; n++) {
        for (size_t k = 0; k < s->inner; k++) {
            double dy = get(p->dtype, p->dy, at(s, s->y_stride, n, c, k));
            double x = get(p->dtype, p->x, at(s, s->x_stride, n, c, k));
            double dx = get(p->dtype, p->dx, at(s, s->dx_stride, n, c, k));
            double x_hat = (x - p->mean[c]) * p->invstd[c];
            check_near(dx, reference_dx(p->dtype, dy, x_hat, scale, a, b), "dx", p, c);
        }
    }
}

#endif

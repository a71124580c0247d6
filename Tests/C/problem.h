/* SPDX-License-Identifier: Apache-2.0
 *
 * A problem: everything that the calls of the layer take, filled with random values. */
#ifndef PROBLEM_H
#define PROBLEM_H

#include "batchnorm.h"
#include "check.h"
#include "numbers.h"

#include <string.h>

static const bn_dtype dtypes[] = {BN_FLOAT32, BN_FLOAT64};
enum { dtype_count = 2 };

typedef struct problem {
    bn_shape shape;
    bn_dtype dtype;
    size_t elements; /* of a tensor, gaps included */
    void *x, *y, *dy, *dx;
    void *gamma, *beta, *running_mean, *running_var, *dgamma, *dbeta;
    double *mean, *invstd;
} problem;

static inline bn_shape dense(size_t outer, size_t channels, size_t inner) {
    bn_shape shape = BN_SHAPE(outer, channels, inner);
    return shape;
}

/* The index of element (n, c, k) in a tensor of the given stride. */
static inline size_t at(const bn_shape *shape, size_t stride, size_t n, size_t c, size_t k) {
    size_t slice = shape->channels * shape->inner;
    return n * (stride == 0 ? slice : stride) + c * shape->inner + k;
}

static inline void *allocate(size_t count, size_t size) {
    void *memory = calloc(count + 1, size); /* one more: an empty batch has an address too */
    if (memory == NULL) abort();
    return memory;
}

static inline void *random_values(bn_dtype dtype, size_t count, double center, double spread) {
    void *values = allocate(count, size_of(dtype));
    for (size_t i = 0; i < count; i++) put(dtype, values, i, center + spread * random_value());
    return values;
}

static inline size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* x has the given center and spread, so that |mean| / std can be made large. */
static inline problem make_problem(bn_shape shape, bn_dtype dtype, double center, double spread) {
    size_t stride = larger(larger(shape.x_stride, shape.y_stride), larger(shape.dx_stride, at(&shape, 0, 1, 0, 0)));
    problem p = {0};
    p.shape = shape;
    p.dtype = dtype;
    p.elements = shape.outer * stride;
    p.x = random_values(dtype, p.elements, center, spread);
    p.y = random_values(dtype, p.elements, 0, 1);
    p.dy = random_values(dtype, p.elements, 0.25, 1);
    p.dx = random_values(dtype, p.elements, 0, 1);
    p.gamma = random_values(dtype, shape.channels, 1, 0.5);
    p.beta = random_values(dtype, shape.channels, 0, 0.5);
    p.running_mean = random_values(dtype, shape.channels, center, spread);
    p.running_var = random_values(dtype, shape.channels, 1.5, 1);
    p.dgamma = random_values(dtype, shape.channels, 0, 1);
    p.dbeta = random_values(dtype, shape.channels, 0, 1);
    p.mean = random_values(BN_FLOAT64, shape.channels, 0, 1);
    p.invstd = random_values(BN_FLOAT64, shape.channels, 0, 1);
    return p;
}

static inline void free_problem(problem *p) {
    void *all[] = {p->x,    p->y,            p->dy,          p->dx,     p->gamma, p->beta,
                   p->mean, p->running_mean, p->running_var, p->dgamma, p->dbeta, p->invstd};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
}

/* A copy to compare with or to go back to. */
static inline void *copy_of(const void *values, size_t bytes) {
    return memcpy(allocate(bytes, 1), values, bytes);
}

static inline bn_status train(problem *p, const bn_options *options) {
    return bn_forward_training(&p->shape, p->dtype, p->x, p->gamma, p->beta, p->running_mean, p->running_var, p->y,
                               p->mean, p->invstd, options);
}

static inline bn_status infer(problem *p, const bn_options *options) {
    return bn_forward_inference(&p->shape, p->dtype, p->x, p->gamma, p->beta, p->running_mean, p->running_var, p->y,
                                p->mean, p->invstd, options);
}

static inline bn_status backward(problem *p, const bn_options *options) {
    return bn_backward(&p->shape, p->dtype, p->dy, p->x, p->gamma, p->beta, p->mean, p->invstd, p->dx, p->dgamma,
                       p->dbeta, options);
}

/* One line for a CHECK on a status. */
#define CHECK_OK(call) check_ok(call, __FILE__, __LINE__, #call)

static inline void check_ok(bn_status status, const char *file, int line, const char *text) {
    check(status == BN_OK, file, line, text, "status %d: %s", (int)status, bn_last_error());
}

/* NCHW with small, odd and long planes; NHWC; NC; one sample; one channel; a few wide planes. */
static const size_t extents[][3] = {{4, 3, 25}, {8, 37, 49}, {2, 5, 1024}, {3, 2, 5003}, {60, 7, 1},
                                    {9, 133, 1}, {700, 64, 1}, {1, 6, 81},  {50, 1, 20},  {2, 1, 1}};

/* Centers and spreads of x. The second has a mean that is a million times its standard deviation. */
static const double inputs[][2] = {{0.5, 2}, {1000, 0.001}, {-1e-3, 1e-3}};

static inline void each_problem(void (*use)(problem *p)) {
    for (size_t e = 0; e < sizeof extents / sizeof extents[0]; e++) {
        for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
            for (int d = 0; d < dtype_count; d++) {
                bn_shape shape = dense(extents[e][0], extents[e][1], extents[e][2]);
                problem p = make_problem(shape, dtypes[d], inputs[i][0], inputs[i][1]);
                use(&p);
                free_problem(&p);
            }
        }
    }
}

#endif

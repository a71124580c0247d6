/* SPDX-License-Identifier: Apache-2.0
 *
 * Programs that were compiled against version 1.0 give shapes of 56 bytes and options of 32. What lies behind
 * those is not theirs: here it is a page that may not be touched. */
#define _DEFAULT_SOURCE
#include "guarded.h"

enum { old_shape = offsetof(bn_shape, weights), old_options = offsetof(bn_options, param_dtype) };

static guarded shape_guard, options_guard;

/* The first bytes of a structure, at the end of what may be read. */
static void *cut(guarded *g, const void *structure, size_t bytes) {
    return place(g, at_end, structure, bytes, sizeof(size_t));
}

typedef bn_status (*call)(const problem *p, const bn_shape *shape, const bn_options *options);

static double count[8], mean[8], m2[8], sums[2][8];

static bn_status training(const problem *p, const bn_shape *shape, const bn_options *options) {
    return bn_forward_training(shape, p->dtype, p->x, p->gamma, p->beta, p->running_mean, p->running_var, p->y, p->mean,
                               p->invstd, options);
}

static bn_status inference(const problem *p, const bn_shape *shape, const bn_options *options) {
    return bn_forward_inference(shape, p->dtype, p->x, p->gamma, p->beta, p->running_mean, p->running_var, p->y,
                                p->mean, p->invstd, options);
}

static bn_status gradients(const problem *p, const bn_shape *shape, const bn_options *options) {
    return bn_backward(shape, p->dtype, p->dy, p->x, p->gamma, p->mean, p->invstd, p->dx, p->dgamma, p->dbeta, options);
}

static bn_status moments(const problem *p, const bn_shape *shape, const bn_options *options) {
    (void)options;
    return bn_moments(shape, p->dtype, p->x, count, mean, m2);
}

static bn_status normalize(const problem *p, const bn_shape *shape, const bn_options *options) {
    return bn_normalize(shape, p->dtype, p->x, p->gamma, p->beta, mean, p->invstd, p->y, options);
}

static bn_status reduce(const problem *p, const bn_shape *shape, const bn_options *options) {
    (void)options;
    return bn_backward_reduce(shape, p->dtype, p->dy, p->x, mean, p->invstd, sums[0], sums[1]);
}

static bn_status apply(const problem *p, const bn_shape *shape, const bn_options *options) {
    return bn_backward_apply(shape, p->dtype, p->dy, p->x, p->gamma, mean, p->invstd, count, sums[0], sums[1], p->dx,
                             options);
}

static bn_status inverse_std(const problem *p, const bn_shape *shape, const bn_options *options) {
    return bn_inverse_std(shape->channels, count, m2, p->invstd, options);
}

static bn_status update_running(const problem *p, const bn_shape *shape, const bn_options *options) {
    return bn_update_running(shape->channels, p->dtype, count, mean, m2, p->running_mean, p->running_var, options);
}

static bn_status tangent(const problem *p, const bn_shape *shape, const bn_options *options) {
    return bn_jvp(shape, p->dtype, p->x, p->dy, p->gamma, p->dgamma, p->dbeta, mean, p->invstd, p->y, options);
}

static bn_status second_order(const problem *p, const bn_shape *shape, const bn_options *options) {
    return bn_double_backward(shape, p->dtype, p->y, p->dgamma, p->beta, p->dy, p->x, p->gamma, mean, p->invstd, NULL,
                              p->dx, p->running_mean, options);
}

static bn_status scale_shift(const problem *p, const bn_shape *shape, const bn_options *options) {
    return bn_scale_shift(shape->channels, p->dtype, p->gamma, p->beta, p->running_mean, p->running_var, p->mean,
                          p->invstd, options);
}

static bn_status into_previous(const problem *p, const bn_shape *shape, const bn_options *options) {
    (void)options;
    return bn_fold_into_previous(shape, p->dtype, p->x, p->gamma, p->mean, p->invstd, p->y, p->dgamma);
}

static bn_status into_next(const problem *p, const bn_shape *shape, const bn_options *options) {
    (void)options;
    return bn_fold_into_next(shape, p->dtype, p->x, p->y, p->mean, p->invstd, p->dy, p->dx);
}

/* In an order in which each finds what it needs. */
static const struct { call function; int has_shape, has_options; } calls[] = {
    {training, 1, 1}, {gradients, 1, 1}, {inference, 1, 1}, {moments, 1, 0}, {normalize, 1, 1}, {reduce, 1, 0},
    {apply, 1, 1}, {inverse_std, 0, 1}, {update_running, 0, 1}, {tangent, 1, 1}, {second_order, 1, 1},
    {scale_shift, 0, 1}, {into_previous, 1, 0}, {into_next, 1, 0},
};
enum { call_count = sizeof calls / sizeof calls[0] };

static problem problem_of(bn_dtype dtype) {
    random_state = seed;
    return make_problem(dense(9, 5, 11), dtype, 1, 2);
}

/* The options of before: eps counts, and what was not known then is the default. */
static void old_sizes_work(void) {
    for (int d = 0; d < dtype_count; d++) {
        problem new = problem_of(dtypes[d]), old = problem_of(dtypes[d]);
        bn_options options = BN_OPTIONS_INIT;
        options.eps = 0.25, options.momentum = 0.5, options.biased_running_var = 1;
        bn_shape short_shape = new.shape;
        bn_options short_options = options;
        short_shape.struct_size = old_shape, short_options.struct_size = old_options;
        const bn_shape *s = cut(&shape_guard, &short_shape, old_shape);
        const bn_options *o = cut(&options_guard, &short_options, old_options);
        for (int i = 0; i < call_count; i++) {
            CHECK_OK(calls[i].function(&new, &new.shape, &options));
            CHECK_OK(calls[i].function(&old, s, o));
            size_t tensor = new.elements * size_of(new.dtype), vector = 5 * size_of(new.dtype);
            CHECK(memcmp(new.y, old.y, tensor) == 0, "y differs after call %d", i);
            CHECK(memcmp(new.dx, old.dx, tensor) == 0, "dx differs after call %d", i);
            CHECK(memcmp(new.dgamma, old.dgamma, vector) == 0, "dgamma differs after call %d", i);
            CHECK(memcmp(new.running_mean, old.running_mean, vector) == 0, "running_mean differs after call %d", i);
            CHECK(memcmp(new.running_var, old.running_var, vector) == 0, "running_var differs after call %d", i);
            CHECK(memcmp(new.invstd, old.invstd, 5 * sizeof(double)) == 0, "invstd differs after call %d", i);
        }
        free_problem(&new), free_problem(&old);
    }
}

/* A structure that ends before the size of one that is known cannot be read to the end of that. */
static void sizes_in_between(void) {
    problem p = problem_of(BN_FLOAT32), before = problem_of(BN_FLOAT32);
    size_t tensor = p.elements * sizeof(float);
    for (size_t size = 0; size <= sizeof(bn_options) + 16; size++) {
        bn_shape shape = p.shape;
        bn_options options = BN_OPTIONS_INIT;
        char shape_bytes[sizeof(bn_options) + 16] = {0}, options_bytes[sizeof(bn_options) + 16] = {0};
        shape.struct_size = options.struct_size = size;
        memcpy(shape_bytes, &shape, sizeof shape), memcpy(options_bytes, &options, sizeof options);
        /* as many bytes as it says, rounded to what keeps it aligned, and the size itself */
        size_t bytes = size < 8 ? 8 : size / 8 * 8;
        const bn_shape *s = cut(&shape_guard, shape_bytes, bytes);
        const bn_options *o = cut(&options_guard, options_bytes, bytes);
        for (int i = 0; i < call_count; i++) {
            if (calls[i].has_shape && size != old_shape && size != sizeof(bn_shape)) {
                CHECK(calls[i].function(&p, s, NULL) == BN_ERROR_STRUCT_SIZE, "shape of %zu bytes, call %d", size, i);
                CHECK(strstr(bn_last_error(), "shape") != NULL, "\"%s\"", bn_last_error());
            }
            if (calls[i].has_options && size != old_options && size != sizeof(bn_options)) {
                CHECK(calls[i].function(&p, &p.shape, o) == BN_ERROR_STRUCT_SIZE, "options of %zu bytes, call %d",
                      size, i);
                CHECK(strstr(bn_last_error(), "options") != NULL, "\"%s\"", bn_last_error());
            }
        }
    }
    CHECK(memcmp(p.y, before.y, tensor) == 0 && memcmp(p.dx, before.dx, tensor) == 0, "something was written");
    free_problem(&p), free_problem(&before);
}

int main(void) {
    start();
    shape_guard = make_guarded(1), options_guard = make_guarded(1);
    RUN(old_sizes_work);
    RUN(sizes_in_between);
    return finish();
}

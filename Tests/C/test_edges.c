/* SPDX-License-Identifier: Apache-2.0
 *
 * The corners of the contract: nothing asked for, nothing given, no variance, values that are not numbers. */
#include "reference.h"

#include <fenv.h>

static const bn_options defaults = BN_OPTIONS_INIT;

static int same(const void *a, const void *b, size_t bytes) {
    return memcmp(a, b, bytes) == 0;
}

static void null_options_are_the_defaults(problem *p) {
    size_t tensor = p->elements * size_of(p->dtype), vector = p->shape.channels * size_of(p->dtype);
    void *mean = copy_of(p->running_mean, vector), *var = copy_of(p->running_var, vector);
    CHECK_OK(train(p, &defaults));
    void *y = copy_of(p->y, tensor), *new_mean = copy_of(p->running_mean, vector);
    memcpy(p->running_mean, mean, vector);
    memcpy(p->running_var, var, vector);
    CHECK_OK(train(p, NULL));
    CHECK(same(y, p->y, tensor), "y differs");
    CHECK(same(new_mean, p->running_mean, vector), "running_mean differs");
    free(mean), free(var), free(y), free(new_mean);
}

/* Leaving an output out does not change the others by more than rounding, and never crashes. */
static void outputs_are_optional(problem *p) {
    CHECK_OK(bn_forward_training(&p->shape, p->dtype, p->x, NULL, NULL, NULL, NULL, NULL, p->mean, NULL, NULL));
    CHECK_OK(bn_forward_training(&p->shape, p->dtype, p->x, NULL, NULL, NULL, NULL, NULL, NULL, p->invstd, NULL));
    sums *s = allocate(p->shape.channels, sizeof *s);
    for (size_t c = 0; c < p->shape.channels; c++) {
        statistics r = reference_statistics(p, c, 1e-5);
        check_near(p->mean[c], r.mean, "saved_mean", p, c);
        check_near(p->invstd[c], r.invstd, "saved_invstd", p, c);
        s[c] = reference_sums(p, c);
    }
    CHECK_OK(bn_backward(&p->shape, p->dtype, p->dy, p->x, NULL, NULL, p->mean, p->invstd, NULL, p->dgamma, NULL, NULL));
    CHECK_OK(bn_backward(&p->shape, p->dtype, p->dy, p->x, NULL, NULL, p->mean, p->invstd, NULL, NULL, p->dbeta, NULL));
    CHECK_OK(bn_backward(&p->shape, p->dtype, p->dy, p->x, NULL, NULL, p->mean, p->invstd, NULL, NULL, NULL, NULL));
    for (size_t c = 0; c < p->shape.channels; c++) {
        check_near(get(p->dtype, p->dgamma, c), rounded(p->dtype, s[c].dy_x_hat), "dgamma", p, c);
        check_near(get(p->dtype, p->dbeta, c), rounded(p->dtype, s[c].dy), "dbeta", p, c);
    }
    free(s);
    CHECK_OK(bn_forward_inference(&p->shape, p->dtype, p->x, NULL, NULL, p->running_mean, p->running_var, NULL, NULL,
                                  NULL, NULL));
}

/* With frozen statistics, dx and dbeta do not depend on x. */
static void frozen_needs_no_x(problem *p) {
    bn_options frozen = BN_OPTIONS_INIT;
    frozen.frozen = 1;
    size_t tensor = p->elements * size_of(p->dtype), vector = p->shape.channels * size_of(p->dtype);
    CHECK_OK(infer(p, NULL));
    CHECK_OK(backward(p, &frozen));
    void *dx = copy_of(p->dx, tensor), *dbeta = copy_of(p->dbeta, vector);
    CHECK_OK(bn_backward(&p->shape, p->dtype, p->dy, NULL, p->gamma, NULL, p->mean, p->invstd, p->dx, NULL, p->dbeta,
                         &frozen));
    CHECK(same(dx, p->dx, tensor), "dx differs");
    CHECK(same(dbeta, p->dbeta, vector), "dbeta differs");
    free(dx), free(dbeta);
}

static void check_empty(bn_shape shape, bn_dtype dtype, double eps, double invstd) {
    problem p = make_problem(shape, dtype, 0, 1);
    bn_options options = BN_OPTIONS_INIT;
    options.eps = eps;
    size_t vector = shape.channels * size_of(dtype);
    void *mean = copy_of(p.running_mean, vector), *var = copy_of(p.running_var, vector);
    CHECK_OK(train(&p, &options));
    CHECK(same(mean, p.running_mean, vector), "running_mean moved");
    CHECK(same(var, p.running_var, vector), "running_var moved");
    for (size_t c = 0; c < shape.channels; c++) {
        CHECK(p.mean[c] == 0, "saved_mean %g", p.mean[c]);
        CHECK(fabs(p.invstd[c] - invstd) <= 4 * unit * invstd, "saved_invstd %.17g", p.invstd[c]);
    }
    CHECK_OK(backward(&p, NULL));
    for (size_t c = 0; c < shape.channels; c++) {
        CHECK(get(dtype, p.dgamma, c) == 0, "dgamma %g", get(dtype, p.dgamma, c));
        CHECK(get(dtype, p.dbeta, c) == 0, "dbeta %g", get(dtype, p.dbeta, c));
    }
    free(mean), free(var), free_problem(&p);
}

/* For a host that has unmasked floating-point exceptions, or looks at them afterwards. */
static void expect_no_exceptions(bn_shape shape, bn_dtype dtype) {
    problem p = make_problem(shape, dtype, 0, 1);
    bn_options frozen = BN_OPTIONS_INIT;
    frozen.frozen = 1;
    CHECK_OK(train(&p, NULL));
    bn_status (*const calls[])(problem *p, const bn_options *options) = {train, infer, backward};
    for (int call = 0; call < 3; call++) {
        for (int is_frozen = 0; is_frozen < 2; is_frozen++) {
            feclearexcept(FE_ALL_EXCEPT);
            bn_status status = calls[call](&p, is_frozen ? &frozen : NULL);
            int raised = fetestexcept(FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW);
            CHECK(status == BN_OK, "status %d", (int)status);
            CHECK(raised == 0, "call %d (%s, frozen %d): invalid %d, divided by zero %d, overflow %d", call,
                  name_of(dtype), is_frozen, (raised & FE_INVALID) != 0, (raised & FE_DIVBYZERO) != 0,
                  (raised & FE_OVERFLOW) != 0);
        }
    }
    free_problem(&p);
}

static void empty_batch_raises_nothing(void) {
    for (int d = 0; d < dtype_count; d++) {
        expect_no_exceptions(dense(0, 5, 7), dtypes[d]);
        expect_no_exceptions(dense(3, 5, 0), dtypes[d]);
        expect_no_exceptions(dense(8, 5, 0), dtypes[d]);
        expect_no_exceptions(dense(0, 40, 1), dtypes[d]);
        expect_no_exceptions(dense(0, 1, 0), dtypes[d]);
    }
}

static void empty_batch(void) {
    for (int d = 0; d < dtype_count; d++) {
        check_empty(dense(0, 5, 7), dtypes[d], 0.25, 2);
        check_empty(dense(3, 5, 0), dtypes[d], 0.25, 2);
        check_empty(dense(8, 5, 0), dtypes[d], 0.25, 2);
        check_empty(dense(0, 5, 7), dtypes[d], 0, 0);
    }
}

/* One value per channel cannot train, but infers. */
static void single_value(void) {
    for (int d = 0; d < dtype_count; d++) {
        problem p = make_problem(dense(1, 5, 1), dtypes[d], 0, 1);
        CHECK(train(&p, NULL) == BN_ERROR_SINGLE_VALUE, "last error: %s", bn_last_error());
        CHECK_OK(infer(&p, NULL));
        free_problem(&p);
    }
}

/* Equal values have exactly variance 0; with eps 0, y is then beta. */
static void no_variance(void) {
    for (int d = 0; d < dtype_count; d++) {
        problem p = make_problem(dense(6, 3, 35), dtypes[d], 12345.678, 0);
        bn_options options = BN_OPTIONS_INIT;
        options.eps = 0;
        CHECK_OK(train(&p, &options));
        CHECK(p.mean[1] == get(p.dtype, p.x, 0), "saved_mean %.17g", p.mean[1]);
        CHECK(p.invstd[1] == 0, "saved_invstd %.17g", p.invstd[1]);
        for (size_t i = 0; i < p.elements; i++) {
            double y = get(p.dtype, p.y, i), beta = get(p.dtype, p.beta, i / 35 % 3);
            CHECK(y == beta, "y[%zu] is %.17g, beta %.17g", i, y, beta);
        }
        free_problem(&p);
    }
}

/* A NaN or an infinity reaches every value of its channel and no other. */
static void channels_are_apart(void) {
    static const double poisons[] = {NAN, INFINITY, -INFINITY};
    for (int d = 0; d < dtype_count; d++) {
        for (int v = 0; v < 3; v++) {
            problem p = make_problem(dense(5, 4, 9), dtypes[d], 0, 1);
            put(p.dtype, p.x, at(&p.shape, 0, 3, 2, 4), poisons[v]);
            CHECK_OK(train(&p, NULL));
            CHECK_OK(backward(&p, NULL));
            for (size_t i = 0; i < p.elements; i++) {
                int poisoned = i / 9 % 4 == 2;
                double y = get(p.dtype, p.y, i), dx = get(p.dtype, p.dx, i);
                CHECK(poisoned ? isnan(y) && isnan(dx) : isfinite(y) && isfinite(dx), "[%zu]: y %g, dx %g", i, y, dx);
            }
            free_problem(&p);
        }
    }
}

/* Momentum 0 leaves the running statistics alone, 1 replaces them. */
static void momentum_ends(void) {
    for (int d = 0; d < dtype_count; d++) {
        problem p = make_problem(dense(7, 3, 11), dtypes[d], 3, 1);
        size_t vector = 3 * size_of(p.dtype);
        void *before = copy_of(p.running_mean, vector);
        bn_options options = BN_OPTIONS_INIT;
        options.momentum = 0;
        CHECK_OK(train(&p, &options));
        CHECK(same(before, p.running_mean, vector), "running_mean moved");
        options.momentum = 1;
        CHECK_OK(train(&p, &options));
        for (size_t c = 0; c < 3; c++) {
            bounded mean = {p.mean[c], 0};
            check_near(get(p.dtype, p.running_mean, c), rounded(p.dtype, mean), "running_mean", &p, c);
        }
        free(before), free_problem(&p);
    }
}

static void null_options(void) { each_problem(null_options_are_the_defaults); }
static void null_outputs(void) { each_problem(outputs_are_optional); }
static void null_x(void) { each_problem(frozen_needs_no_x); }

int main(void) {
    start();
    RUN(null_options);
    RUN(null_outputs);
    RUN(null_x);
    RUN(empty_batch);
    RUN(empty_batch_raises_nothing);
    RUN(single_value);
    RUN(no_variance);
    RUN(channels_are_apart);
    RUN(momentum_ends);
    return finish();
}

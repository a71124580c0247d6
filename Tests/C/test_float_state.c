/* SPDX-License-Identifier: Apache-2.0
 *
 * The caller's rounding mode and its treatment of subnormal numbers hold on every thread, and are left as they are. */
#define _GNU_SOURCE
#include "problem.h"

#include <fenv.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

enum { rounds = 10 };
static const size_t split[][3] = {{16, 64, 784}, {64, 3, 5000}, {20000, 96, 1}};
enum { split_count = sizeof split / sizeof split[0] };

static int same_outputs(const problem *a, const problem *b) {
    size_t tensor = a->elements * size_of(a->dtype), vector = a->shape.channels * size_of(a->dtype);
    return memcmp(a->y, b->y, tensor) == 0 && memcmp(a->dx, b->dx, tensor) == 0 &&
           memcmp(a->dgamma, b->dgamma, vector) == 0 && memcmp(a->dbeta, b->dbeta, vector) == 0 &&
           memcmp(a->mean, b->mean, a->shape.channels * sizeof(double)) == 0;
}

static void run_layer(problem *p, int threads) {
    CHECK_OK(bn_set_num_threads(threads));
    CHECK_OK(bn_forward_training(&p->shape, p->dtype, p->x, NULL, NULL, NULL, NULL, p->y, p->mean, p->invstd, NULL));
    CHECK_OK(bn_backward(&p->shape, p->dtype, p->dy, p->x, NULL, p->mean, p->invstd, p->dx, p->dgamma, p->dbeta, NULL));
}

/* The threads have begun to work before the state is set, so that they have not inherited it. The usual state comes
 * last: they do not keep the other one either. Returns whether the state made a difference. */
static int expect_same_bits(const problem *input, void (*set)(void), void (*unset)(void)) {
    problem usual = *input, alone = *input, together = *input;
    problem *all[] = {&usual, &alone, &together};
    for (int i = 0; i < 3; i++) {
        all[i]->y = allocate(input->elements, size_of(input->dtype));
        all[i]->dx = allocate(input->elements, size_of(input->dtype));
        all[i]->dgamma = allocate(input->shape.channels, size_of(input->dtype));
        all[i]->dbeta = allocate(input->shape.channels, size_of(input->dtype));
        all[i]->mean = allocate(input->shape.channels, sizeof(double));
        all[i]->invstd = allocate(input->shape.channels, sizeof(double));
    }
    run_layer(&usual, 2);
    set();
    run_layer(&alone, 1);
    for (int round = 0; round < rounds; round++) {
        run_layer(&together, 2);
        CHECK(same_outputs(&alone, &together), "differs with 2 threads (%s, %zu x %zu x %zu)", name_of(input->dtype),
              input->shape.outer, input->shape.channels, input->shape.inner);
    }
    unset();
    for (int round = 0; round < rounds; round++) {
        run_layer(&together, 2);
        CHECK(same_outputs(&usual, &together), "differs afterwards (%s, %zu x %zu x %zu)", name_of(input->dtype),
              input->shape.outer, input->shape.channels, input->shape.inner);
    }
    int different = !same_outputs(&usual, &alone);
    for (int i = 0; i < 3; i++) {
        free(all[i]->y), free(all[i]->dx), free(all[i]->dgamma), free(all[i]->dbeta);
        free(all[i]->mean), free(all[i]->invstd);
    }
    return different;
}

#if defined(__x86_64__)

static unsigned changed_state;

static void set_state(void) { _mm_setcsr(changed_state); }

static void unset_state(void) {
    CHECK((_mm_getcsr() & ~0x3Fu) == changed_state, "the caller's state became %#x", _mm_getcsr());
    _mm_setcsr(0x1F80);
}

/* Exceptions masked, as they usually are. */
static void use_state(unsigned bits, const double scales[dtype_count]) {
    changed_state = 0x1F80 | bits;
    for (int i = 0; i < split_count; i++) {
        for (int d = 0; d < dtype_count; d++) {
            problem p = make_problem(dense(split[i][0], split[i][1], split[i][2]), dtypes[d], 0, 1);
            for (size_t k = 0; k < p.elements; k++) {
                put(p.dtype, p.x, k, scales[d] * get(p.dtype, p.x, k));
                put(p.dtype, p.dy, k, scales[d] * get(p.dtype, p.dy, k));
            }
            CHECK(expect_same_bits(&p, set_state, unset_state), "the state %#x makes no difference (%s)", bits,
                  name_of(p.dtype));
            free_problem(&p);
        }
    }
    CHECK_OK(bn_set_num_threads(0));
}

static const double subnormal[] = {1e-39, 1e-309}, ordinary[] = {1, 1};

static void subnormals_are_zero(void) { use_state(0x0040, subnormal); }
static void results_are_flushed(void) { use_state(0x8000, subnormal); }
static void flushed_and_zero(void) { use_state(0x8040, subnormal); }
static void upward(void) { use_state(0x4000, ordinary); }
static void downward(void) { use_state(0x2000, ordinary); }
static void towards_zero(void) { use_state(0x6000, ordinary); }

#else

static void not_here(void) { skip("x86-64 alone"); }
static void set_upward(void) { CHECK(fesetround(FE_UPWARD) == 0, "cannot be set"); }
static void unset_upward(void) {
    CHECK(fegetround() == FE_UPWARD, "the caller's rounding changed");
    CHECK(fesetround(FE_TONEAREST) == 0, "cannot be set");
}

static void upward(void) {
    for (int i = 0; i < split_count; i++) {
        for (int d = 0; d < dtype_count; d++) {
            problem p = make_problem(dense(split[i][0], split[i][1], split[i][2]), dtypes[d], 0, 1);
            CHECK(expect_same_bits(&p, set_upward, unset_upward), "makes no difference (%s)", name_of(p.dtype));
            free_problem(&p);
        }
    }
    CHECK_OK(bn_set_num_threads(0));
}

#endif

int main(void) {
    start();
#if defined(__x86_64__)
    RUN(subnormals_are_zero);
    RUN(results_are_flushed);
    RUN(flushed_and_zero);
    RUN(upward);
    RUN(downward);
    RUN(towards_zero);
#else
    RUN(not_here);
    RUN(upward);
#endif
    return finish();
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * The caller's rounding mode and its treatment of subnormal numbers hold on every thread, and are left as they are. */
#define _GNU_SOURCE
#include "problem.h"

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

/* MXCSR; exceptions masked, as they usually are. */
enum {
    usual = 0x1F80, up = 0x4000, down = 0x2000, to_zero = 0x6000, results_flushed = 0x8000, inputs_flushed = 0x0040,
    met = 0x3F /* exceptions so far */
};
static unsigned get_state(void) { return _mm_getcsr(); }
static void put_state(unsigned state) { _mm_setcsr(state); }

#elif defined(__aarch64__)

/* FPCR, of which one bit flushes inputs and results alike. */
enum { usual = 0, up = 1 << 22, down = 2 << 22, to_zero = 3 << 22, results_flushed = 1 << 24, met = 0 };
static unsigned get_state(void) {
    unsigned long state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    return (unsigned)state;
}
static void put_state(unsigned state) { __asm__ volatile("msr fpcr, %0" : : "r"((unsigned long)state)); }

#endif

static unsigned changed_state;

static void set_state(void) { put_state(changed_state); }

static void unset_state(void) {
    CHECK((get_state() & ~(unsigned)met) == changed_state, "the caller's state became %#x", get_state());
    put_state(usual);
}

static void use_state(unsigned bits, const double scales[dtype_count]) {
    changed_state = usual | bits;
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

#if defined(__x86_64__)
static void inputs_are_flushed(void) { use_state(inputs_flushed, subnormal); }
static void both_are_flushed(void) { use_state(results_flushed | inputs_flushed, subnormal); }
#endif
static void results_are_flushed(void) { use_state(results_flushed, subnormal); }
static void upward(void) { use_state(up, ordinary); }
static void downward(void) { use_state(down, ordinary); }
static void towards_zero(void) { use_state(to_zero, ordinary); }

int main(void) {
    start();
#if defined(__x86_64__)
    RUN(inputs_are_flushed);
    RUN(both_are_flushed);
#endif
    RUN(results_are_flushed);
    RUN(upward);
    RUN(downward);
    RUN(towards_zero);
    return finish();
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * No call takes more of the caller's stack than the header says. Below the caller's frame the stack is painted, and
 * after the call is looked at for what is still paint; of all calls that digests.h makes, by these macros. */
#define _GNU_SOURCE
#include "batchnorm.h"

#include <limits.h>
#include <pthread.h>
#include <stdint.h>

enum { promised = 14 * 1024, painted = 128 * 1024, untouched = 256, paint = 0xC3 };

static size_t deepest;
static const char *deepest_call;

/* Leaf functions, which leave alone what is just below their own frames. The second is called somewhat lower, where the
 * arguments of the call are still on the stack. */
__attribute__((noinline)) static void paint_stack(void) {
    volatile unsigned char here;
    uintptr_t top = (uintptr_t)&here - untouched;
    for (size_t i = 0; i < painted + untouched; i++) ((volatile unsigned char *)(top - painted - untouched))[i] = paint;
}

__attribute__((noinline)) static bn_status measure_stack(const char *call, bn_status status) {
    volatile unsigned char here;
    uintptr_t top = (uintptr_t)&here - untouched;
    size_t clean = 0;
    while (clean < painted && ((volatile unsigned char *)(top - painted))[clean] == paint) clean++;
    if (painted - clean + untouched > deepest) deepest = painted - clean + untouched, deepest_call = call;
    return status;
}

#define MEASURED(call) (paint_stack(), measure_stack(#call, call))
#define bn_forward_training(...) MEASURED(bn_forward_training(__VA_ARGS__))
#define bn_forward_inference(...) MEASURED(bn_forward_inference(__VA_ARGS__))
#define bn_backward(...) MEASURED(bn_backward(__VA_ARGS__))
#define bn_moments(...) MEASURED(bn_moments(__VA_ARGS__))
#define bn_merge_moments(...) MEASURED(bn_merge_moments(__VA_ARGS__))
#define bn_inverse_std(...) MEASURED(bn_inverse_std(__VA_ARGS__))
#define bn_normalize(...) MEASURED(bn_normalize(__VA_ARGS__))
#define bn_backward_reduce(...) MEASURED(bn_backward_reduce(__VA_ARGS__))
#define bn_backward_apply(...) MEASURED(bn_backward_apply(__VA_ARGS__))
#define bn_update_running(...) MEASURED(bn_update_running(__VA_ARGS__))
#define bn_length_weights(...) MEASURED(bn_length_weights(__VA_ARGS__))
#define bn_jvp(...) MEASURED(bn_jvp(__VA_ARGS__))
#define bn_double_backward(...) MEASURED(bn_double_backward(__VA_ARGS__))
#define bn_scale_shift(...) MEASURED(bn_scale_shift(__VA_ARGS__))
#define bn_fold_into_previous(...) MEASURED(bn_fold_into_previous(__VA_ARGS__))
#define bn_fold_into_next(...) MEASURED(bn_fold_into_next(__VA_ARGS__))
#define bn_set_num_threads(...) MEASURED(bn_set_num_threads(__VA_ARGS__))
#define bn_set_parallel_for(...) MEASURED(bn_set_parallel_for(__VA_ARGS__))

#include "digests.h"
#include "lent.h"

static void expect_promise(const char *what) {
    CHECK(deepest > 1000, "%s: %zu bytes were found, which says nothing", what, deepest);
    CHECK(deepest <= promised, "%s: %zu bytes of stack, in %s", what, deepest, deepest_call);
    deepest = 0;
}

static void ignore(const char *name, uint64_t digest) { (void)name, (void)digest; }

/* The first of the process, which looks at the environment and the machine. */
static void first_call(void) {
    problem p = make_problem(dense(6, 3, 50), BN_FLOAT32, 0, 1);
    CHECK_OK(bn_forward_training(&p.shape, p.dtype, p.x, p.gamma, p.beta, p.running_mean, p.running_var, p.y, p.mean,
                                 p.invstd, NULL));
    expect_promise("the first call");
    free_problem(&p);
}

static void every_call(void) {
    on_digest = ignore;
    for (int way = 0; way < 3; way++) {
        CHECK_OK(bn_set_num_threads(way == 0 ? 1 : 2));
        CHECK_OK(bn_set_parallel_for(way == 2 ? turns_in_order : NULL, NULL));
        for (int d = 0; d < all_dtype_count; d++) {
            digest_all(all_dtypes[d]);
            expect_promise(name_of(all_dtypes[d]));
        }
    }
    CHECK_OK(bn_set_num_threads(0));
    CHECK_OK(bn_set_parallel_for(NULL, NULL));
}

/* A message with a number in it is made by snprintf(). */
static void errors(void) {
    bn_options options = BN_OPTIONS_INIT;
    options.eps = -0.1;
    bn_shape shape = BN_SHAPE(4, 2, 3);
    float x[24] = {0}, y[24];
    CHECK(bn_forward_training(&shape, BN_FLOAT32, x, NULL, NULL, NULL, NULL, y, NULL, NULL, &options) ==
              BN_ERROR_OPTION, "not refused");
    CHECK(bn_set_num_threads(-1) == BN_ERROR_OPTION, "not refused");
    expect_promise("errors");
}

static void *train_here(void *memory) {
    problem *p = memory;
    CHECK_OK((bn_forward_training)(&p->shape, p->dtype, p->x, p->gamma, p->beta, p->running_mean, p->running_var, p->y,
                                   p->mean, p->invstd, NULL));
    CHECK_OK((bn_backward)(&p->shape, p->dtype, p->dy, p->x, p->gamma, p->beta, p->mean, p->invstd, p->dx, p->dgamma,
                           p->dbeta, NULL));
    return NULL;
}

/* The smallest stack that a thread can have. */
static void smallest_thread(void) {
    problem p = make_problem(dense(64, 3, 64), BN_FLOAT32, 0, 1);
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0, "no attributes");
    CHECK(pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN) == 0, "no such stack");
    CHECK(pthread_create(&thread, &attributes, train_here, &p) == 0, "no thread");
    pthread_join(thread, NULL);
    free_problem(&p);
}

int main(void) {
    start();
    random_state = seed;
    RUN(first_call);
    RUN(every_call);
    RUN(errors);
    RUN(smallest_thread);
    return finish();
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * The state that the library keeps from call to call: the number of threads, the threads, and the last error. */
#define _GNU_SOURCE
#include "child.h"
#include "problem.h"
#include "tasks.h"

#include <sched.h>

enum { rounds = 5 };

/* Each kind of call, with enough to do for several threads, in planes and in rows. */
static void call_all(void) {
    static const size_t large[][3] = {{16, 64, 784}, {20000, 96, 1}};
    for (int i = 0; i < 2; i++) {
        problem p = make_problem(dense(large[i][0], large[i][1], large[i][2]), BN_FLOAT32, 3, 1);
        double m2[96], sum[96], product[96];
        for (int round = 0; round < rounds; round++) {
            CHECK_OK(bn_backward_reduce(&p.shape, p.dtype, p.dy, p.x, p.mean, p.invstd, sum, product, 0, NULL));
            CHECK_OK(bn_moments(&p.shape, p.dtype, p.x, p.mean, p.invstd, m2, 0, NULL));
            CHECK_OK(bn_normalize(&p.shape, p.dtype, p.x, p.gamma, p.beta, sum, m2, p.y, NULL));
            CHECK_OK(infer(&p, NULL));
            CHECK_OK(train(&p, NULL));
            CHECK_OK(backward(&p, NULL));
        }
        free_problem(&p);
    }
}

/* Threads are no more than processors, whatever is asked for; one of them is the caller. */
static int at_once(int threads) {
    cpu_set_t granted;
    CHECK(sched_getaffinity(0, sizeof granted, &granted) == 0, "no affinity mask");
    return threads < CPU_COUNT(&granted) ? threads : CPU_COUNT(&granted);
}

static void expect_threads(int threads, int most) {
    CHECK_OK(bn_set_num_threads(threads));
    CHECK(bn_get_num_threads() == threads, "%d before the calls", bn_get_num_threads());
    call_all();
    CHECK(bn_get_num_threads() == threads, "%d after the calls", bn_get_num_threads());
    CHECK(tasks() == at_once(most), "%d threads in the process", tasks());
}

static void keep_threads(void) {
    CHECK(tasks() == 1, "%d threads in the process", tasks());
    expect_threads(1, 1);
    expect_threads(2, 2);
    expect_threads(3, 3);
    expect_threads(2, 3); /* they stay for the next */
    CHECK_OK(bn_set_num_threads(0));
    CHECK(bn_get_num_threads() == 5, "%d by default", bn_get_num_threads());
    call_all();
    CHECK(tasks() == at_once(5), "%d threads in the process", tasks());
}

static void keep_error(void) {
    char message[1000];
    CHECK(bn_set_num_threads(1025) == BN_ERROR_OPTION, "not refused");
    strncpy(message, bn_last_error(), sizeof message - 1)[sizeof message - 1] = '\0';
    CHECK(message[0] != '\0', "without a word");
    CHECK_OK(bn_set_num_threads(2));
    CHECK(bn_get_num_threads() == 2 && bn_isa_name() != NULL, "%s", bn_last_error());
    call_all();
    CHECK(strcmp(message, bn_last_error()) == 0, "\"%s\" became \"%s\"", message, bn_last_error());
}

static void threads_are_as_many_as_said(void) { in_child("BATCHNORM_NUM_THREADS", "5", keep_threads); }
static void last_error_is_kept(void) { in_child("BATCHNORM_NUM_THREADS", "5", keep_error); }

int main(void) {
    start();
    RUN(threads_are_as_many_as_said);
    RUN(last_error_is_kept);
    return finish();
}

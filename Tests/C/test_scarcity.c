/* SPDX-License-Identifier: Apache-2.0
 *
 * A process that can have no more memory: a call either fails as a whole or succeeds as a whole, and needs no threads. */
#define _DEFAULT_SOURCE
#include "child.h"
#include "problem.h"

#include <sys/resource.h>

/* No new memory from the kernel, and so no stack for a new thread; what the process has stays. */
static bn_status without_memory(bn_status (*call)(problem *p, const bn_options *options), problem *p) {
    struct rlimit usual, none;
    CHECK(getrlimit(RLIMIT_AS, &usual) == 0, "no limits here");
    none = usual;
    none.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_AS, &none) == 0, "cannot be limited");
    bn_status status = call(p, NULL);
    CHECK(setrlimit(RLIMIT_AS, &usual) == 0, "stays limited");
    return status;
}

/* A few numbers for each of so many channels do not fit into the memory that the process may have. */
static void many_channels(void) {
    problem p = make_problem(dense(2, 1 << 20, 1), BN_FLOAT32, 0, 1);
    size_t tensor = p.elements * sizeof(float), vector = p.shape.channels * sizeof(float);
    void *y = copy_of(p.y, tensor), *mean = copy_of(p.running_mean, vector), *var = copy_of(p.running_var, vector);
    if (without_memory(train, &p) != BN_OK) {
        CHECK(without_memory(train, &p) == BN_ERROR_MEMORY, "%s", bn_last_error());
        CHECK(bn_last_error()[0] != '\0', "without a word");
        CHECK(memcmp(y, p.y, tensor) == 0, "y was written");
        CHECK(memcmp(mean, p.running_mean, vector) == 0, "running_mean was written");
        CHECK(memcmp(var, p.running_var, vector) == 0, "running_var was written");
    }
    CHECK_OK(train(&p, NULL));
    CHECK_OK(backward(&p, NULL));
    free(y), free(mean), free(var), free_problem(&p);
}

/* A call that would like threads does without them. */
static void few_channels(void) {
    problem p = make_problem(dense(64, 3, 20000), BN_FLOAT32, 0, 1);
    size_t tensor = p.elements * sizeof(float);
    void *unchanged = copy_of(p.y, tensor);
    free(allocate(1 << 16, 1)); /* some small memory to be had */
    CHECK_OK(bn_set_num_threads(4));
    CHECK(without_memory(train, &p) == BN_OK, "%s", bn_last_error());
    void *y = copy_of(p.y, tensor);
    memcpy(p.y, unchanged, tensor);
    CHECK_OK(train(&p, NULL));
    CHECK(memcmp(y, p.y, tensor) == 0, "y differs");
    free(unchanged), free(y), free_problem(&p);
}

static void no_working_memory(void) { in_child(NULL, NULL, many_channels); }
static void no_threads(void) { in_child(NULL, NULL, few_channels); }

int main(void) {
    start();
    RUN(no_working_memory);
    RUN(no_threads);
    return finish();
}

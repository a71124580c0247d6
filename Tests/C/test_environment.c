/* SPDX-License-Identifier: Apache-2.0
 *
 * BATCHNORM_NUM_THREADS, OMP_NUM_THREADS and BATCHNORM_ISA: honoured or refused, and read once. */
#define _GNU_SOURCE
#include "arguments.h"
#include "child.h"

#include <sched.h>

static void every_call_works(void) {
    for (size_t i = 0; i < LENGTH(every_call); i++) {
        reset();
        bn_status status = every_call[i]();
        CHECK(status == BN_OK, "call %zu: %s", i, bn_last_error());
    }
}

static void expect_3_threads(void) {
    CHECK(bn_get_num_threads() == 3, "%d", bn_get_num_threads());
    every_call_works();
    CHECK(bn_set_num_threads(2) == BN_OK && bn_get_num_threads() == 2, "set: %d", bn_get_num_threads());
    CHECK(bn_set_num_threads(0) == BN_OK && bn_get_num_threads() == 3, "back: %d", bn_get_num_threads());
}

static void ours_leads(void) {
    setenv("OMP_NUM_THREADS", "5", 1);
    expect_3_threads();
}

static void threads_from_environment(void) {
    in_child("BATCHNORM_NUM_THREADS", "3", expect_3_threads);
    in_child("OMP_NUM_THREADS", "3", expect_3_threads);
    in_child("BATCHNORM_NUM_THREADS", "3", ours_leads);
}

static void expect_some_cpus(void) {
    long cpus = sysconf(_SC_NPROCESSORS_CONF);
    CHECK(bn_get_num_threads() >= 1 && bn_get_num_threads() <= cpus, "%d of %ld", bn_get_num_threads(), cpus);
}

static void expect_one_cpu(void) {
    cpu_set_t granted, one;
    CHECK(sched_getaffinity(0, sizeof granted, &granted) == 0, "no affinity mask");
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++) {
        if (CPU_ISSET(cpu, &granted)) CPU_SET(cpu, &one);
    }
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0, "cannot bind to one CPU");
    CHECK(bn_get_num_threads() == 1, "%d", bn_get_num_threads());
}

static void threads_from_affinity(void) {
    in_child(NULL, NULL, expect_some_cpus);
    in_child(NULL, NULL, expect_one_cpu);
}

static void expect_threads_refused(void) {
    CHECK(bn_get_num_threads() == 0, "%d", bn_get_num_threads());
    CHECK(names(bn_last_error(), "BATCHNORM_NUM_THREADS"), "\"%s\"", bn_last_error());
    for (size_t i = 0; i < LENGTH(every_call); i++) {
        REFUSED(every_call[i], BN_ERROR_ENVIRONMENT, "BATCHNORM_NUM_THREADS", (void)0);
    }
}

static void threads_refused(void) {
    static const char *const values[] = {"0", "-1", "1025", "99999999999999999999", "two", "3x", "2.5"};
    for (size_t v = 0; v < LENGTH(values); v++) in_child("BATCHNORM_NUM_THREADS", values[v], expect_threads_refused);
}

static void expect_isa_refused(void) {
    CHECK(bn_isa_name() == NULL, "%s", bn_isa_name());
    CHECK(names(bn_last_error(), "BATCHNORM_ISA"), "\"%s\"", bn_last_error());
    for (size_t i = 0; i < LENGTH(every_call); i++) {
        REFUSED(every_call[i], BN_ERROR_ENVIRONMENT, "BATCHNORM_ISA", (void)0);
    }
}

static void isa_refused(void) {
    static const char *const values[] = {"sse", "AVX2", "avx", "avx5120", "avx2,avx512"};
    for (size_t v = 0; v < LENGTH(values); v++) in_child("BATCHNORM_ISA", values[v], expect_isa_refused);
}

static void change_after_first_call(void) {
    every_call_works();
    setenv("BATCHNORM_ISA", "nonsense", 1);
    setenv("BATCHNORM_NUM_THREADS", "nonsense", 1);
    every_call_works();
    CHECK(bn_get_num_threads() >= 1, "%d", bn_get_num_threads());
}

static void read_once(void) {
    in_child(NULL, NULL, change_after_first_call);
}

int main(void) {
    start();
    RUN(threads_from_environment);
    RUN(threads_from_affinity);
    RUN(threads_refused);
    RUN(isa_refused);
    RUN(read_once);
    return finish();
}

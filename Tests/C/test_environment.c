/* SPDX-License-Identifier: Apache-2.0
 *
 * BATCHNORM_NUM_THREADS, OMP_NUM_THREADS and BATCHNORM_ISA: honoured or refused, and read once. */
#define _GNU_SOURCE
#include "arguments.h"
#include "child.h"

#include <sched.h>
#include <sys/mman.h>

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

static void expect_some_cpus(void) {
    long cpus = sysconf(_SC_NPROCESSORS_CONF);
    CHECK(bn_get_num_threads() >= 1 && bn_get_num_threads() <= cpus, "%d of %ld", bn_get_num_threads(), cpus);
}

static void expect_one_thread(void) { CHECK(bn_get_num_threads() == 1, "%d", bn_get_num_threads()); }

static void threads_from_environment(void) {
    in_child("BATCHNORM_NUM_THREADS", "3", expect_3_threads);
    in_child("OMP_NUM_THREADS", "3", expect_3_threads);
    in_child("OMP_NUM_THREADS", "3,2", expect_3_threads); /* one for each level of nesting */
    in_child("OMP_NUM_THREADS", "1", expect_one_thread);
    in_child("OMP_NUM_THREADS", "0", expect_some_cpus);
    in_child("BATCHNORM_NUM_THREADS", "", expect_some_cpus);
    in_child("BATCHNORM_NUM_THREADS", "3", ours_leads);
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
    /* Ten digits are no number of OpenMP's. */
    in_child("OMP_NUM_THREADS", "1000000000", expect_some_cpus);
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

static void expect_baseline(void) {
    CHECK(bn_isa_name() != NULL && strcmp(bn_isa_name(), "baseline") == 0, "%s", bn_last_error());
    every_call_works();
}

static void isa_honoured(void) {
    in_child("BATCHNORM_ISA", "baseline", expect_baseline);
    in_child("BATCHNORM_ISA", "", every_call_works); /* as without */
}

static void isa_refused(void) {
    static const char *const values[] = {"sse", "AVX2", "avx", "avx5120", "avx2,avx512",
#if !defined(__x86_64__)
                                         "avx2", "avx512",
#endif
    };
    for (size_t v = 0; v < LENGTH(values); v++) in_child("BATCHNORM_ISA", values[v], expect_isa_refused);
}

/* Names of sets that there are, but not on this machine. */
#if defined(__x86_64__)
static const char *available;

static void expect_what_there_is(void) {
    expect_isa_refused();
    const char *message = bn_last_error(), *end = message + strlen(message) - strlen(available);
    CHECK(end > message && strcmp(end, available) == 0, "\"%s\" does not end in \"%s\"", message, available);
}

static void isa_that_is_not_here(void) {
    int has_avx2 = __builtin_cpu_supports("avx2"), has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f");
    available = has_avx2 ? "what this machine has: baseline or avx2" : "what this machine has: baseline";
    if (!has_avx2) in_child("BATCHNORM_ISA", "avx2", expect_what_there_is);
    if (!has_avx512) in_child("BATCHNORM_ISA", "avx512", expect_what_there_is);
    else skip("this machine has every instruction set");
}
#else
static void isa_that_is_not_here(void) { skip("this architecture has one instruction set"); }
#endif

/* The text of a variable is the host's: here it is overwritten after the first call, then gone. */
static const char *variable;

static void expect_own_copy(void) {
    char message[1000];
    size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
    char *text = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(text != MAP_FAILED, "no page");
    sprintf(text, "%s=first-text", variable);
    CHECK(putenv(text) == 0, "cannot be put");
    REFUSED(training, BN_ERROR_ENVIRONMENT, "first-text", (void)0);
    strncpy(message, bn_last_error(), sizeof message - 1)[sizeof message - 1] = '\0';

    memset(text + strlen(variable) + 1, '#', bytes - strlen(variable) - 2);
    REFUSED(training, BN_ERROR_ENVIRONMENT, variable, (void)0);
    CHECK(strcmp(message, bn_last_error()) == 0, "\"%s\" became \"%s\"", message, bn_last_error());

    text[strlen(variable) + 2] = '\0'; /* for unsetenv to find */
    CHECK(unsetenv(variable) == 0 && munmap(text, bytes) == 0, "cannot be taken back");
    for (size_t i = 0; i < LENGTH(every_call); i++) {
        REFUSED(every_call[i], BN_ERROR_ENVIRONMENT, "first-text", (void)0);
    }
    REFUSED(training, BN_ERROR_ENVIRONMENT, variable, (void)0);
    CHECK(strcmp(message, bn_last_error()) == 0, "\"%s\" became \"%s\"", message, bn_last_error());
}

static void text_is_copied(void) {
    variable = "BATCHNORM_ISA";
    in_child(NULL, NULL, expect_own_copy);
    variable = "BATCHNORM_NUM_THREADS";
    in_child(NULL, NULL, expect_own_copy);
}

static void expect_printable(void) {
    REFUSED(training, BN_ERROR_ENVIRONMENT, variable, (void)0);
    const char *message = bn_last_error();
    for (const char *p = message; *p != '\0'; p++) {
        CHECK(*p >= 0x20 && *p <= 0x7E, "byte %#x at %d of \"%s\"", *p & 0xFF, (int)(p - message), message);
    }
    CHECK(strstr(message, "sse") != NULL, "\"%s\" lacks the text", message);
    CHECK(names(message, "expected"), "\"%s\" lacks what was expected", message);
}

/* Control characters, bytes that are no UTF-8, and UTF-8 that would be cut in the middle of a character. */
static void text_is_made_printable(void) {
    static const char *const values[] = {"sse\n", "sse\nsecond line\r\n", "sse\t\033[31m\177", "sse\200\377\303",
                                         "sse \303\244\342\202\254"};
    char wide[2000] = "sse";
    for (int i = 3; i < 1997; i += 2) memcpy(wide + i, "\303\244", 2);
    static const char *const variables[] = {"BATCHNORM_ISA", "BATCHNORM_NUM_THREADS"};
    for (size_t i = 0; i < LENGTH(variables); i++) {
        variable = variables[i];
        for (size_t v = 0; v < LENGTH(values); v++) in_child(variable, values[v], expect_printable);
        in_child(variable, wide, expect_printable);
    }
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
    RUN(isa_honoured);
    RUN(isa_refused);
    RUN(isa_that_is_not_here);
    RUN(text_is_copied);
    RUN(text_is_made_printable);
    RUN(read_once);
    return finish();
}

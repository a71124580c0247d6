/* SPDX-License-Identifier: Apache-2.0
 *
 * A test program is a few functions without arguments, run one by one from main:
 *
 *     int main(void) {
 *         start();
 *         RUN(empty_batch);
 *         return finish();
 *     }
 *
 * A function counts as passed if it made at least one CHECK and all of them held. */
#ifndef CHECK_H
#define CHECK_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { failures_shown = 5 };

static int tests_passed, tests_failed, tests_skipped;
static unsigned long checks_made, checks_failed;
static int is_skipped;
static uint64_t seed = 1, random_state;

/* CHECK(what must hold, printf arguments that show the values) */
#define CHECK(condition, ...) check(!!(condition), __FILE__, __LINE__, #condition, __VA_ARGS__)

static inline void check(int holds, const char *file, int line, const char *text, const char *format, ...) {
    checks_made += 1;
    if (holds) return;
    checks_failed += 1;
    if (checks_failed > failures_shown) return;
    va_list values;
    va_start(values, format);
    fprintf(stderr, "%s:%d: %s: ", file, line, text);
    vfprintf(stderr, format, values);
    fprintf(stderr, "\n");
    va_end(values);
}

/* For a test that this machine cannot run. */
static inline void skip(const char *reason) {
    is_skipped = 1;
    fprintf(stderr, "skipped: %s\n", reason);
}

/* The seed is 1, or TEST_SEED from the environment. */
static inline void start(void) {
    const char *chosen = getenv("TEST_SEED");
    if (chosen != NULL) seed = strtoull(chosen, NULL, 10);
}

/* True if TEST_SKIP has this name: a list of names like "test_fork.c:fork_amid_calls ", with a space after each. */
static inline int is_left_out(const char *file, const char *name) {
    const char *list = getenv("TEST_SKIP"), *slash = strrchr(file, '/');
    char entry[200];
    snprintf(entry, sizeof entry, "%s:%s ", slash != NULL ? slash + 1 : file, name);
    return list != NULL && strstr(list, entry) != NULL;
}

#define RUN(test) run(test, __FILE__, #test)

/* Every test starts from the seed, so that it draws the same values alone and after others. */
static inline void run(void (*test)(void), const char *file, const char *name) {
    checks_made = checks_failed = 0;
    is_skipped = 0;
    random_state = seed;
    if (is_left_out(file, name)) skip(name);
    else test();
    if (is_skipped && checks_failed == 0) {
        tests_skipped += 1;
    } else if (checks_made > 0 && checks_failed == 0) {
        tests_passed += 1;
    } else {
        tests_failed += 1;
        fprintf(stderr, "FAILED %s: %lu of %lu checks, seed %llu\n", name, checks_failed, checks_made,
                (unsigned long long)seed);
    }
}

/* The last line of every program: what the scripts add up. */
static inline int finish(void) {
    printf("%d passed, %d failed, %d skipped\n", tests_passed, tests_failed, tests_skipped);
    return tests_failed > 0;
}

/* splitmix64 (Steele, Lea and Flood, 2014) */
static inline uint64_t random_bits(void) {
    random_state += 0x9E3779B97F4A7C15u;
    uint64_t z = random_state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Uniform in [-1, 1). */
static inline double random_value(void) {
    return (double)(random_bits() >> 11) / (double)(UINT64_C(1) << 52) - 1;
}

#endif

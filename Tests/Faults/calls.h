/* SPDX-License-Identifier: Apache-2.0
 *
 * The fuzzer's random calls, made in processes that have made none before: what a call does, and where, is drawn by
 * the parent, so that every child can make the same one. A child that dies, or hangs until its watchdog kills it, has
 * failed; what it learnt it leaves in shared memory. */
#ifndef FAULTS_CALLS_H
#define FAULTS_CALLS_H

#include "../C/check.h"
#include "../Fuzz/digest.h"
#include "../Fuzz/perform.h"
#include "interpose.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { patience = 120, some_keys = 64, worth_threads = 1 << 19 };

/* A child's report to its parent. */
static struct outcome {
    uint64_t digest;
    bn_status status;
    long seen[events], failed, blocks, bytes;
} *outcome;

/* Figures of the whole program. */
static unsigned long long processes, injected;
static double seconds;
static time_t begun;

/* The program's arguments: SECONDS, and there is at least a short form of each test. */
static inline void begin(int argc, char **argv) {
    start();
    call_seed = seed;
    seconds = argc > 1 ? strtod(argv[1], NULL) : 0;
    begun = time(NULL);
    make_room();
    outcome = mmap(NULL, sizeof *outcome, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (outcome == MAP_FAILED) misuse("no memory");
}

/* True if this share of the program's time is over. */
static inline int is_time_over(double share) { return difftime(time(NULL), begun) >= share * seconds; }

static inline void say_figures(void) {
    printf("figure: processes = %llu\nfigure: injected faults = %llu\n", processes, injected);
}

/* The short form of a test has some small calls of every function, and of every function that takes tensors one that
 * is worth several threads. */
static int drawn_so_far[function_count][2];

static inline int takes_tensors(int function) {
    return function != MERGE && function != INVERSE_STD && function != UPDATE && function != SCALE_SHIFT &&
           function != LENGTHS;
}

static inline int are_all_drawn(int small_calls) {
    for (int f = 0; f < LIBRARY; f++) {
        if (drawn_so_far[f][0] < small_calls || drawn_so_far[f][1] < takes_tensors(f)) return 0;
    }
    return 1;
}

/* True if the call is not one too many for the short form. */
static inline int is_wanted(int small_calls) {
    if (k.function == LIBRARY) return 0;
    if (are_all_drawn(small_calls)) return 1;
    size_t bytes = positions() * k.shape.channels * size_of(k.dtype);
    int is_large = takes_tensors(k.function) && bytes > worth_threads;
    return bytes < 2 * worth_threads && drawn_so_far[k.function][is_large]++ < (is_large ? 1 : small_calls);
}

/* A drawn call is call_number of call_seed, as a message names it. */
static inline void draw_next_call(int small_calls) {
    do {
        call_number += 1;
        draw_from_seed(call_seed, call_number);
        draw_outline();
    } while (!is_wanted(small_calls));
    draw_from_seed(call_seed, call_number);
    draw_call();
    environment = (enum environment)(call_number % environments);
}

/* Puts the arrays that the call may write back to what they were before it. */
static inline void restore(void) {
    for (block *b = blocks; b < blocks + block_count; b++) memcpy(b->window, snapshot_of(b), b->window_bytes);
}

/* One call, while things fail as they were told to. All else that perform() looks at has to hold nevertheless. */
static inline bn_status make_interposed_call(void) {
    unsigned before = enter_environment();
    interpose();
    bn_status status = make_call();
    leave_alone();
    if (!environment_is_kept(before)) fault("was changed", "the floating-point environment");
    leave_environment();
    examine_memory(status);
    return status;
}

/* Makes a small call, on memory of its own. */
static inline void call_little(void) {
    bn_shape shape = BN_SHAPE(2, 1, 1);
    float x[2] = {1, 2};
    double n, mean, m2;
    bn_status status = bn_moments(&shape, BN_FLOAT32, x, &n, &mean, &m2, 0, NULL);
    if (status != BN_OK || mean != 1.5) fault(bn_last_error(), "a small call");
}

static inline void fail_nothing(void) { fail_from(can_fail, 0, 0, 0); }

/* Makes the call while nothing fails, and keeps what it gives for the calls that follow. */
static inline void learn(void) {
    take_snapshots();
    bn_status status = make_interposed_call();
    examine_status(status);
    outcome->status = status, outcome->digest = digest_of_call(status);
    memcpy(outcome->seen, interposed.seen, sizeof outcome->seen);
}

/* The same; or an error, where memory may be missing. */
static inline void expect(bn_status status, int may_lack_memory, const char *what) {
    if (status == BN_ERROR_MEMORY && may_lack_memory) return;
    if (status != outcome->status) fault(bn_status_string(status), what);
    if (digest_of_call(status) != outcome->digest) fault("has other bits", what);
}

/* Again, and nothing fails. */
static inline void expect_usual(const char *what) {
    restore();
    fail_nothing();
    expect(make_interposed_call(), 0, what);
}

/* A child dies of what it finds wrong. True if it did not. */
static inline int in_process(void (*body)(void), const char *threads) {
    static const struct rlimit no_core = {0, 0};
    int status = -1;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(patience);
        setrlimit(RLIMIT_CORE, &no_core);
        unsetenv("BATCHNORM_ISA"), unsetenv("OMP_NUM_THREADS");
        setenv("BATCHNORM_NUM_THREADS", threads, 1);
        body();
        _exit(0);
    }
    processes += 1;
    int ended = child > 0 && waitpid(child, &status, 0) == child;
    if (ended && WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) fprintf(stderr, "it hangs\n");
    return ended && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static inline int in_processes(void (*body)(void), const char *threads) {
    return in_process(learn, "1") && in_process(body, threads);
}

/* Takes keys, so that values of the library's key need memory: the C library has room for those of the first few. */
static inline void take_some_keys(void) {
    pthread_key_t key;
    for (int i = 0; i < some_keys; i++) {
        if (pthread_key_create(&key, NULL) != 0) misuse("no key");
    }
}

#endif

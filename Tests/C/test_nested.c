/* SPDX-License-Identifier: Apache-2.0
 *
 * A call from a signal handler that interrupts another call on the same thread is refused, and harms nobody. The
 * handler is that of a page of x that is opened when the call first touches it, so that the interruption is certain. */
#define _GNU_SOURCE
#include "problem.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

static char *lazy;
static size_t lazy_bytes;
static volatile sig_atomic_t interruptions, refusals, written;
static char said[300];
static const char *isa;
static int threads;

static problem inner_problem; /* of the calls that the handler makes */
static void *inner_y, *inner_wanted;
static size_t inner_bytes;

static int jumps;
static sigjmp_buf before_call;

static void interrupt(int signal, siginfo_t *information, void *context) {
    (void)signal, (void)context;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t address = (uintptr_t)information->si_addr, start = (uintptr_t)lazy;
    if (address < start || address >= start + lazy_bytes) _exit(99);
    if (mprotect((void *)(address / page * page), page, PROT_READ) != 0) _exit(98);
    interruptions = interruptions + 1;
    bn_status status[] = {
        train(&inner_problem, NULL), infer(&inner_problem, NULL), backward(&inner_problem, NULL),
        bn_set_num_threads(7),
    };
    for (int i = 0; i < 4; i++) refusals = refusals + (status[i] == BN_ERROR_NESTED);
    isa = bn_isa_name();
    threads = bn_get_num_threads();
    if (memcmp(inner_y, inner_wanted, inner_bytes) != 0) written = 1;
    strncpy(said, bn_last_error(), sizeof said - 1);
    if (jumps) siglongjmp(before_call, 1);
}

/* x of the problem in closed pages. */
static void *closed_copy(const problem *p) {
    lazy_bytes = p->elements * size_of(p->dtype);
    lazy = mmap(NULL, lazy_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(lazy != MAP_FAILED, "no memory");
    memcpy(lazy, p->x, lazy_bytes);
    return lazy;
}

static void close_pages(void) { CHECK(mprotect(lazy, lazy_bytes, PROT_NONE) == 0, "not closed"); }

static void prepare(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = interrupt;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0, "cannot be handled");
    CHECK_OK(bn_set_num_threads(1));
    random_state = seed;
    inner_problem = make_problem(dense(7, 5, 300), BN_FLOAT32, 1, 1);
    inner_y = inner_problem.y;
    inner_bytes = inner_problem.elements * sizeof(float);
    inner_wanted = malloc(inner_bytes);
    memcpy(inner_wanted, inner_y, inner_bytes);
}

static void outer_call_is_unharmed(void) {
    for (int d = 0; d < dtype_count; d++) {
        problem p = make_problem(dense(16, 6, 1024), dtypes[d], 1, 2), q = p;
        size_t bytes = p.elements * size_of(p.dtype);
        q.x = closed_copy(&p);
        q.y = allocate(p.elements, size_of(p.dtype)), q.dx = allocate(p.elements, size_of(p.dtype));
        q.running_mean = random_values(p.dtype, 6, 0, 0), q.running_var = random_values(p.dtype, 6, 0, 0);
        memcpy(q.running_mean, p.running_mean, 6 * size_of(p.dtype));
        memcpy(q.running_var, p.running_var, 6 * size_of(p.dtype));
        CHECK_OK(train(&p, NULL));
        CHECK_OK(backward(&p, NULL));
        interruptions = refusals = written = 0;
        close_pages();
        CHECK_OK(train(&q, NULL));
        CHECK(memcmp(p.y, q.y, bytes) == 0, "other bits of y");
        CHECK(memcmp(p.running_var, q.running_var, 6 * size_of(p.dtype)) == 0, "other bits of running_var");
        close_pages();
        CHECK_OK(backward(&q, NULL));
        CHECK(memcmp(p.dx, q.dx, bytes) == 0, "other bits of dx");
        CHECK(interruptions > 50 && refusals == 4 * interruptions, "%d of 4 * %d", (int)refusals, (int)interruptions);
        CHECK(!written, "a call that was refused has written");
        CHECK(strstr(said, "interrupts another one") != NULL, "\"%s\"", said);
        CHECK(isa == NULL && threads == 0, "answered amid a call");
        munmap(lazy, lazy_bytes);
        q.x = p.x;
        free(q.y), free(q.dx), free(q.running_mean), free(q.running_var);
        free_problem(&p);
    }
    CHECK_OK(train(&inner_problem, NULL));
    CHECK(bn_isa_name() != NULL && bn_get_num_threads() == 1, "%d", bn_get_num_threads());
}

/* The outer call's own error is not lost: it fails when a group of one value is found, after x was read. */
static void outer_failure_is_told(void) {
    problem p = make_problem(dense(16, 6, 1024), BN_FLOAT64, 1, 2);
    p.x = closed_copy(&p);
    bn_running running = BN_RUNNING_INIT;
    running.nonfinite = BN_NONFINITE_ERROR;
    bn_options options = BN_OPTIONS_INIT;
    options.running = &running;
    ((double *)p.x)[5] = HUGE_VAL;
    close_pages();
    interruptions = 0;
    CHECK(train(&p, &options) == BN_ERROR_NONFINITE && interruptions > 0, "not refused");
    CHECK(strstr(bn_last_error(), "bn_forward_training: the variance of x") != NULL, "\"%s\"", bn_last_error());
    CHECK(mprotect(lazy, lazy_bytes, PROT_READ | PROT_WRITE) == 0, "not opened");
    munmap(lazy, lazy_bytes);
}

static void *jump_out(void *unused) {
    (void)unused;
    problem p = make_problem(dense(16, 6, 1024), BN_FLOAT32, 1, 2), q = p;
    q.x = closed_copy(&p);
    close_pages();
    jumps = 1;
    if (sigsetjmp(before_call, 1) == 0) {
        train(&q, NULL);
        CHECK(0, "the call came back");
    }
    jumps = 0;
    for (int i = 0; i < 3; i++) CHECK(train(&p, NULL) == BN_ERROR_NESTED, "%s", bn_last_error());
    CHECK(strstr(bn_last_error(), "interrupts another one") != NULL, "\"%s\"", bn_last_error());
    return NULL;
}

/* A call that is left by a jump is never over: its thread makes no more, and others do. */
static void jump_is_told(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, jump_out, NULL) == 0, "no thread");
    pthread_join(thread, NULL);
    CHECK_OK(train(&inner_problem, NULL));
}

int main(void) {
    start();
    prepare();
    RUN(outer_call_is_unharmed);
    RUN(outer_failure_is_told);
    RUN(jump_is_told);
    return finish();
}

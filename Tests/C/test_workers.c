/* SPDX-License-Identifier: Apache-2.0
 *
 * A caller whose helper is held up in the middle of its work: others who call meanwhile do not wait for it, and a child
 * that is forked meanwhile has no memory of it. The thread is held where it first reads x, whose memory is out of reach
 * until then. */
#define _GNU_SOURCE
#include "child.h"
#include "problem.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { patience = 60, calls_of_child = 3 };

static problem p, other;
static size_t bytes;
static char *expected;
static pid_t caller, helper;
static int may_go_on; /* the helper; else once its caller sleeps */

static pid_t this_thread(void) { return (pid_t)syscall(SYS_gettid); }

/* With pages of its own for x. */
static void make_large(problem *made) {
    random_state = seed;
    *made = make_problem(dense(32, 64, 784), BN_FLOAT32, 3, 1);
    bytes = made->elements * sizeof(float);
    void *x = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(x != MAP_FAILED, "no memory");
    memcpy(x, made->x, bytes);
    free(made->x);
    made->x = x;
}

/* By system calls alone. */
static int sleeps(pid_t thread) {
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
    if (file < 0) return 0;
    long length = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    const char *end = length > 0 ? strrchr(text, ')') : NULL;
    return end != NULL && end[2] == 'S';
}

/* The caller waits here for its helper, and the helper for whoever lets it go on. */
static void hold_up(int signal, siginfo_t *fault, void *context) {
    (void)context;
    const char *place = fault->si_addr, *x = p.x;
    if (place < x || place >= x + bytes) {
        struct sigaction usual = {.sa_handler = SIG_DFL};
        sigaction(signal, &usual, NULL);
        return;
    }
    if (this_thread() == __atomic_load_n(&caller, __ATOMIC_SEQ_CST)) {
        while (__atomic_load_n(&helper, __ATOMIC_SEQ_CST) == 0) sched_yield();
        mprotect(p.x, bytes, PROT_READ | PROT_WRITE);
        return;
    }
    __atomic_store_n(&helper, this_thread(), __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&may_go_on, __ATOMIC_SEQ_CST) || !sleeps(caller)) sched_yield();
}

static bn_status call_with_helper_held(void) {
    caller = this_thread();
    helper = 0;
    if (mprotect(p.x, bytes, PROT_NONE) != 0) return BN_ERROR_MEMORY;
    return train(&p, NULL);
}

static void *call_held(void *unused) {
    (void)unused;
    return call_with_helper_held() == BN_OK && memcmp(p.y, expected, bytes) == 0 ? &p : NULL;
}

static void wait_for_caller(void) {
    while (__atomic_load_n(&helper, __ATOMIC_SEQ_CST) == 0 || !sleeps(caller)) sched_yield();
}

/* 0 where a quota grants one processor: there are no helpers. */
static int begin(pthread_t *thread) {
    int threads = bn_get_num_threads();
    struct sigaction on_fault = {.sa_sigaction = hold_up, .sa_flags = SA_SIGINFO};
    alarm(2 * patience);
    CHECK_OK(bn_set_num_threads(2));
    if (threads < 2) return 0;
    make_large(&other), make_large(&p);
    expected = other.y;
    CHECK_OK(train(&other, NULL));
    CHECK(sigaction(SIGSEGV, &on_fault, NULL) == 0, "no handler");
    CHECK(pthread_create(thread, NULL, call_held, NULL) == 0, "no thread");
    wait_for_caller();
    return 1;
}

static void end(pthread_t thread) {
    void *result;
    __atomic_store_n(&may_go_on, 1, __ATOMIC_SEQ_CST);
    pthread_join(thread, &result);
    CHECK(result != NULL, "the call that was held up went wrong");
}

static void call_beside(void) {
    pthread_t thread;
    if (!begin(&thread)) return;
    void *apart = allocate(bytes, 1), *usual = other.y;
    other.y = apart;
    CHECK_OK(train(&other, NULL));
    CHECK(memcmp(apart, usual, bytes) == 0, "the call beside it went wrong");
    other.y = usual;
    end(thread);
}

/* More than one: the first wait of a child's may end by luck. */
static int calls_of_a_child(void) {
    int wrong = 0;
    alarm(patience);
    may_go_on = 1;
    for (int i = 0; i < calls_of_child; i++) wrong += call_held(NULL) == NULL;
    return wrong;
}

static void fork_beside(void) {
    pthread_t thread;
    int status = -1;
    if (!begin(&thread)) return;
    pid_t child = fork();
    if (child == 0) _exit(calls_of_a_child());
    CHECK(child > 0 && waitpid(child, &status, 0) == child, "no child");
    CHECK(!WIFSIGNALED(status) || WTERMSIG(status) != SIGALRM, "the child waits for ever");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %d", status);
    end(thread);
}

static void in_child_with_helper(void (*function)(void)) {
    cpu_set_t granted;
    CHECK(sched_getaffinity(0, sizeof granted, &granted) == 0, "no affinity mask");
    if (CPU_COUNT(&granted) < 2) skip("one processor");
    else in_child(NULL, NULL, function);
}

static void others_do_not_wait(void) { in_child_with_helper(call_beside); }
static void a_fork_beside(void) { in_child_with_helper(fork_beside); }

int main(void) {
    start();
    RUN(others_do_not_wait);
    RUN(a_fork_beside);
    return finish();
}

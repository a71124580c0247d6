/* SPDX-License-Identifier: Apache-2.0
 *
 * Signals are the host's: those that a memory access raises reach its handler on whichever thread made it, all others
 * reach the host's threads alone. */
#define _GNU_SOURCE
#include "child.h"
#include "problem.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { signals_sent = 2000, rounds = 1000 };

static pid_t main_thread;
static volatile sig_atomic_t handled_on_main, handled_elsewhere;

static void count_signal(void) {
    if (syscall(SYS_gettid) == main_thread) handled_on_main = handled_on_main + 1;
    else handled_elsewhere = 1;
}

static char *lazy;
static size_t lazy_bytes;

/* Some hosts fill memory when it is first touched, by a handler like this one. */
static void open_page(int signal, siginfo_t *information, void *context) {
    (void)signal, (void)context;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t address = (uintptr_t)information->si_addr, start = (uintptr_t)lazy;
    if (address < start || address >= start + lazy_bytes) _exit(99);
    if (mprotect((void *)(address / page * page), page, PROT_READ) != 0) _exit(98);
    count_signal();
    sched_yield();
}

static void handle(int signal, void (*handler)(int, siginfo_t *, void *)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    CHECK(sigaction(signal, &action, NULL) == 0, "cannot be handled");
}

/* Calls until one of the library's threads has come upon a closed page; the test cannot choose the thread. */
static void fault_in_calls(void) {
    main_thread = (pid_t)syscall(SYS_gettid);
    problem p = make_problem(dense(16, 64, 1024), BN_FLOAT32, 3, 1);
    void *x = p.x, *y = p.y;
    lazy_bytes = p.elements * sizeof(float);
    CHECK_OK(bn_set_num_threads(1));
    CHECK_OK(infer(&p, NULL));
    p.y = allocate(p.elements, sizeof(float));

    lazy = mmap(NULL, lazy_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(lazy != MAP_FAILED, "no pages");
    p.x = memcpy(lazy, x, lazy_bytes);
    handle(SIGSEGV, open_page);
    CHECK_OK(bn_set_num_threads(2));
    for (int round = 0; round < rounds && !handled_elsewhere; round++) {
        CHECK(mprotect(lazy, lazy_bytes, PROT_NONE) == 0, "cannot be closed");
        CHECK_OK(infer(&p, NULL));
        CHECK(memcmp(p.y, y, lazy_bytes) == 0, "y differs");
    }
    CHECK(handled_on_main > 0, "no fault");
    CHECK(handled_elsewhere, "no fault in a thread of the library");
}

static void on_user_signal(int signal, siginfo_t *information, void *context) {
    (void)signal, (void)information, (void)context;
    count_signal();
}

static int sent_all;

static void *send_signals(void *unused) {
    (void)unused;
    for (int i = 0; i < signals_sent; i++) {
        kill(getpid(), SIGUSR1);
        sched_yield();
    }
    __atomic_store_n(&sent_all, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static void call_while_sent(problem *p) {
    pthread_t sender;
    sigset_t user, before;
    sigemptyset(&user);
    sigaddset(&user, SIGUSR1);
    sent_all = 0;
    pthread_sigmask(SIG_BLOCK, &user, &before);
    CHECK(pthread_create(&sender, NULL, send_signals, NULL) == 0, "no thread");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    while (!__atomic_load_n(&sent_all, __ATOMIC_SEQ_CST)) CHECK_OK(train(p, NULL));
    pthread_join(sender, NULL);
    CHECK_OK(train(p, NULL));
}

static void signals_in_calls(void) {
    main_thread = (pid_t)syscall(SYS_gettid);
    problem p = make_problem(dense(16, 64, 784), BN_FLOAT32, 3, 1);
    handle(SIGUSR1, on_user_signal);
    CHECK_OK(bn_set_num_threads(3));
    CHECK_OK(train(&p, NULL));
    call_while_sent(&p);
    CHECK(handled_on_main > 0, "no signal");
    CHECK(!handled_elsewhere, "handled on a thread of the library");

    /* Signals wait while the main thread does not take them. */
    sigset_t user, before, pending;
    sigemptyset(&user);
    sigaddset(&user, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &user, &before);
    handled_on_main = 0;
    call_while_sent(&p);
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1), "none is waiting");
    CHECK(handled_on_main == 0 && !handled_elsewhere, "handled, although blocked");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    CHECK(handled_on_main == 1, "handled %d times", (int)handled_on_main);
    free_problem(&p);
}

static void faults_reach_the_handler(void) { in_child(NULL, NULL, fault_in_calls); }
static void others_reach_the_host(void) { in_child(NULL, NULL, signals_in_calls); }

int main(void) {
    start();
    RUN(faults_reach_the_handler);
    RUN(others_reach_the_host);
    return finish();
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * states [SECONDS]: random calls of every function, held up at each thing that they ask the system for: memory, a
 * thread, a key, a file, a lock, an unlock. While a call stands there, the process forks, and its child and its
 * child's child make the same call; or the process exits, with a call among its last words; or other threads call and
 * end. Then it goes on, and gives the bits that it always gives. */
#define _GNU_SOURCE
#include "calls.h"

#include <errno.h>
#include <semaphore.h>

enum { of_each = 1, most_stops = 60, threads_beside = 3 };

/* The event that happens while a call is held up. */
enum meanwhile { FORK, EXIT, OTHER_THREADS, meanwhiles };
static const char *const meanwhile_names[meanwhiles] = {"fork()", "exit()", "other threads"};

static enum meanwhile meanwhile;
static int is_first; /* the call that is held up is the first of the process */
static long stop, passed;
static pthread_t caller;
static sem_t stands, may_go_on;
static unsigned long long held_up;

static void wait_for(sem_t *semaphore) {
    while (sem_wait(semaphore) != 0) continue;
}

/* A worker of the library's is held up only where this process makes no call meanwhile: it may hold a lock. */
static void hold_up(enum event event, long number) {
    (void)event, (void)number;
    if (meanwhile != FORK && !pthread_equal(pthread_self(), caller)) return;
    if (__atomic_fetch_add(&passed, 1, __ATOMIC_SEQ_CST) != stop) return;
    outcome->failed = 1;
    sem_post(&stands);
    wait_for(&may_go_on);
}

static void *call_held_up(void *unused) {
    caller = pthread_self();
    interposed.on_event = hold_up;
    bn_status status = make_interposed_call();
    interposed.on_event = NULL;
    if (passed <= stop) sem_post(&stands); /* there was no such event */
    expect(status, 0, "the call that was held up");
    return unused;
}

static void call_in_descendants(int generations) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(patience);
        leave_alone();
        interposed.on_event = NULL;
        expect_usual("a child's call");
        expect_usual("a child's second call");
        if (generations > 1) call_in_descendants(generations - 1);
        if (stop % 2 == 0) exit(0);
        _exit(0);
    }
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) fault("failed", "a child");
}

static void last_call(void) { call_little(); }

static void *call_and_end(void *unused) {
    call_little();
    pthread_exit(unused);
}

static void call_in_threads(void) {
    pthread_t threads[threads_beside];
    for (int i = 0; i < threads_beside; i++) {
        if (pthread_create(&threads[i], NULL, call_and_end, NULL) != 0) misuse("no thread");
    }
    for (int i = 0; i < threads_beside; i++) pthread_join(threads[i], NULL);
}

static void hold_up_a_call(void) {
    pthread_t thread;
    if (sem_init(&stands, 0, 0) != 0 || sem_init(&may_go_on, 0, 0) != 0) misuse("no semaphores");
    take_snapshots();
    passed = 0;
    interposed.processors = 4;
    fail_nothing();
    if (!is_first) expect_usual("the first call");
    restore();
    if (pthread_create(&thread, NULL, call_held_up, NULL) != 0) misuse("no thread");
    wait_for(&stands);
    if (meanwhile == EXIT) {
        if (atexit(last_call) != 0) misuse("no atexit()");
        exit(0);
    }
    if (meanwhile == FORK) call_in_descendants(2);
    if (meanwhile == OTHER_THREADS) call_in_threads();
    sem_post(&may_go_on);
    pthread_join(thread, NULL);
    expect_usual("the next call");
}

/* Holds the call up at each request of the system, until there is none. */
static void hold_up_everywhere(void) {
    static const char *const numbers[] = {"1", "3"};
    const char *threads = numbers[call_number % 2];
    CHECK(in_process(learn, "1"), "call %llu: %s", call_number, function_names[k.function]);
    for (is_first = 0; is_first <= 1; is_first++) {
        if (meanwhile != FORK && is_first == (int)(call_number / 2 % 2)) continue; /* one of the two */
        for (stop = 0; stop < most_stops; stop++) {
            outcome->failed = 0;
            CHECK(in_process(hold_up_a_call, threads), "call %llu, with %s threads, first %d: %s at event %ld of %s",
                  call_number, threads, is_first, meanwhile_names[meanwhile], stop, function_names[k.function]);
            if (!outcome->failed) break;
            held_up += 1;
        }
    }
}

static void in_every_state(enum meanwhile wanted) {
    meanwhile = wanted;
    memset(drawn_so_far, 0, sizeof drawn_so_far);
    while (!are_all_drawn(of_each) || !is_time_over((1 + wanted) / (double)meanwhiles)) {
        draw_next_call(of_each);
        hold_up_everywhere();
    }
}

static void forks(void) { in_every_state(FORK); }
static void exits(void) { in_every_state(EXIT); }
static void threads_that_end(void) { in_every_state(OTHER_THREADS); }

int main(int argc, char **argv) {
    begin(argc, argv);
    RUN(forks);
    RUN(exits);
    RUN(threads_that_end);
    say_figures();
    printf("figure: calls held up = %llu\n", held_up);
    return finish();
}

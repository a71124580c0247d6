/* SPDX-License-Identifier: Apache-2.0
 *
 * signals [SECONDS]: random calls of every function in a storm of signals, with handlers that call the library, and
 * that fork. A call from a handler interrupts another one and is refused, with nothing written, or comes between two
 * and gives what it always gives; the call that was interrupted gives the bits of a quiet process. */
#define _GNU_SOURCE
#include "calls.h"

#include <errno.h>
#include <signal.h>

enum { of_each = 1, rounds = 12, nanoseconds = 50000, calls_between_forks = 97, handler_failed = 97 };

/* The sightings of a child's handlers, added up in shared memory. */
static struct counts {
    long signals, refused, made, forks;
} *counts;

static volatile sig_atomic_t may_call, may_fork;

static void fail_in_handler(const char *why) {
    if (write(2, why, strlen(why)) < 0) _exit(handler_failed);
    _exit(handler_failed);
}

/* bn_last_error() is the thread's; here that of the refusal, or of an earlier one. */
static bn_status call_from_handler(void) {
    bn_shape shape = BN_SHAPE(2, 1, 1);
    const float x[2] = {1, 2};
    double n = -7, mean = -7, m2 = -7;
    bn_status status = bn_moments(&shape, BN_FLOAT32, x, &n, &mean, &m2, 0, NULL);
    int is_untouched = n == -7 && mean == -7 && m2 == -7, is_right = n == 2 && mean == 1.5 && m2 == 0.5;
    if (status == BN_OK ? !is_right : status != BN_ERROR_NESTED || !is_untouched) {
        fail_in_handler("a handler's call is wrong\n");
    }
    if (status != BN_OK && strstr(bn_last_error(), "interrupts another one") == NULL) {
        fail_in_handler("a handler's call is refused without a word\n");
    }
    return status;
}

/* The child makes no more of the call that the handler interrupted. */
static void fork_from_handler(void) {
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        call_from_handler();
        _exit(0);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    if (status != 0) fail_in_handler("a handler's child went wrong\n");
    counts->forks += 1;
}

static void on_signal(int signal) {
    (void)signal;
    int before = errno;
    counts->signals += 1;
    if (may_call) {
        bn_status status = call_from_handler();
        counts->refused += status != BN_OK, counts->made += status == BN_OK;
        if (may_fork && counts->signals % calls_between_forks == 0) fork_from_handler();
    }
    errno = before;
}

static timer_t start_storm(void) {
    struct sigaction action;
    struct sigevent event;
    struct itimerspec often = {{0, nanoseconds}, {0, nanoseconds}};
    timer_t timer = NULL;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = call_number % 2 ? SA_RESTART : 0;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGUSR1;
    if (sigaction(SIGUSR1, &action, NULL) != 0 || timer_create(CLOCK_MONOTONIC, &event, &timer) != 0 ||
        timer_settime(timer, 0, &often, NULL) != 0) {
        misuse("no signals");
    }
    return timer;
}

/* The first call takes memory, and the next one may still: no handler calls meanwhile, as malloc() may have been
 * interrupted. */
static void call_in_storm(void) {
    take_snapshots();
    timer_t timer = start_storm();
    fail_nothing();
    expect_usual("the first call");
    expect_usual("the second call");
    may_call = 1;
    for (int round = 0; round < rounds; round++) {
        if (round == rounds / 2) may_fork = 1;
        expect_usual("a call");
    }
    may_call = may_fork = 0;
    timer_delete(timer);
    expect_usual("the call after the storm");
}

static void storms(void) {
    static const char *const numbers[] = {"1", "2", "3"};
    memset(counts, 0, sizeof *counts);
    /* Once more where no handler came between: how often they do is not for the test to say. */
    while (!are_all_drawn(of_each) || !is_time_over(1) || !counts->refused || !counts->made || !counts->forks) {
        draw_next_call(of_each);
        CHECK(in_processes(call_in_storm, numbers[call_number % 3]), "call %llu: %s", call_number,
              function_names[k.function]);
        if (checks_failed > 0) break;
    }
    printf("figure: signals = %ld\nfigure: calls from handlers = %ld\n", counts->signals,
           counts->made + counts->refused);
    printf("figure: calls from handlers that were refused = %ld\nfigure: forks from handlers = %ld\n", counts->refused,
           counts->forks);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED) misuse("no memory");
    RUN(storms);
    say_figures();
    return finish();
}

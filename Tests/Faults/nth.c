/* SPDX-License-Identifier: Apache-2.0
 *
 * nth [SECONDS]: random calls of every function that takes tensors or descriptors, in which the n-th allocation
 * fails, once and from there on, for every n; and so for all else that a call asks the system for. A call gives the
 * bits that it always gives, or an error and has written nothing; after it the same call gives those bits, the one
 * after that allocates nothing, and when the thread has ended there is as much memory in use as where nothing had
 * failed. */
#define _GNU_SOURCE
#include "calls.h"

#include <errno.h>

enum { of_each = 2, most_numbers = 24, forever = 1 << 30 };

/* The state of the library, and of the thread, when the call is made. */
enum state { NOTHING_YET, ANOTHER_THREADS, TOO_LITTLE, states };
static const char *const state_names[states] = {"first call", "a thread's first call", "a call larger than before"};

static enum state state;
static int is_clean;
static enum event failing;
static long first, count;
static int error;

/* True if the failure can only be a lack of memory: that of the call, of its thread's state or of the library's. */
static int may_lack_memory(void) {
    return interposed.failed > 0 && (failing == ALLOCATION || failing == KEY || failing == VALUE);
}

/* It may be empty, as there may be nowhere to keep it. */
static void ask_for_message(void) {
    interpose();
    const char *message = bn_last_error();
    leave_alone();
    if (message == NULL || strlen(message) > 255 || strchr(message, '\n') != NULL) {
        fault("is no message", "bn_last_error()");
    }
}

static void *make_the_call(void *unused) {
    if (state == TOO_LITTLE) call_little();
    if (is_clean) {
        learn();
    } else {
        fail_from(failing, first, count, error);
        bn_status status = make_interposed_call();
        outcome->failed = interposed.failed;
        expect(status, may_lack_memory(), "the call");
        fail_from(failing, 0, count, error);
        ask_for_message();
    }
    expect_usual("the call after it");
    expect_usual("the third call");
    if (interposed.seen[ALLOCATION] > 0) fault("allocates", "the third call");
    return unused;
}

static void in_a_thread(void) {
    pthread_t thread;
    take_some_keys();
    interposed.processors = 4;
    fail_nothing();
    interpose();
    if (state != NOTHING_YET) call_little();
    take_snapshots();
    long before = interposed.blocks;
    if (pthread_create(&thread, NULL, make_the_call, NULL) != 0) misuse("no thread");
    pthread_join(thread, NULL);
    if (is_clean) outcome->blocks = interposed.blocks - before;
    else if (interposed.blocks - before != outcome->blocks) {
        fprintf(stderr, "%ld blocks in use, where without a fault there are %ld\n", interposed.blocks - before,
                outcome->blocks);
        fault("is lost", "memory");
    }
}

/* True if something failed: there may be a later one to fail. */
static int fail_one(const char *threads) {
    outcome->failed = 0;
    int holds = in_process(in_a_thread, threads);
    injected += (unsigned long long)outcome->failed;
    CHECK(holds, "call %llu: %s of %s, with %s threads; %ld times %s, from %ld on, errno %d", call_number,
          state_names[state], function_names[k.function], threads, count, event_names[failing], first, error);
    return outcome->failed > 0;
}

static void fail_each(void) {
    static const char *const numbers[] = {"1", "2", "3"};
    static const int errors[] = {ENOENT, EACCES, EMFILE, EINTR, EPERM, ENOSYS};
    const char *threads = numbers[call_number % 3];
    is_clean = 1;
    CHECK(in_process(in_a_thread, threads), "call %llu: %s of %s", call_number, state_names[state],
          function_names[k.function]);
    is_clean = 0;
    for (int e = 0; e < can_fail; e++) {
        failing = (enum event)e;
        for (count = 1; count <= forever; count += forever - 1) {
            for (first = 0; first < most_numbers && first < outcome->seen[e]; first++) {
                error = errors[(first + (long)call_number) % 6];
                if (!fail_one(threads)) break;
            }
        }
    }
}

/* Every third of the program's time. */
static void in_state(enum state wanted) {
    state = wanted;
    memset(drawn_so_far, 0, sizeof drawn_so_far);
    while (!are_all_drawn(of_each) || !is_time_over((1 + wanted) / (double)states)) {
        draw_next_call(of_each);
        fail_each();
    }
}

static void of_a_first_call(void) { in_state(NOTHING_YET); }
static void of_a_threads_first_call(void) { in_state(ANOTHER_THREADS); }
static void of_a_larger_call(void) { in_state(TOO_LITTLE); }

int main(int argc, char **argv) {
    begin(argc, argv);
    RUN(of_a_first_call);
    RUN(of_a_threads_first_call);
    RUN(of_a_larger_call);
    say_figures();
    return finish();
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * fork() while another thread is in the middle of a call: the child computes right, and so does its parent. */
#define _DEFAULT_SOURCE
#include "allocations.h"
#include "child.h"
#include "problem.h"
#include "tasks.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

enum { forks = 50, stuck = 77 };

/* The library waits through these. A process of one thread that waits for another does so for ever: it ends here. */
static int is_child;

int pthread_mutex_lock(pthread_mutex_t *mutex) {
    int error;
    while ((error = pthread_mutex_trylock(mutex)) == EBUSY) {
        if (is_child && tasks() == 1) _exit(stuck);
        sched_yield();
    }
    return error;
}

int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex) {
    static const struct timespec never = {LONG_MAX, 0};
    if (is_child && tasks() == 1) _exit(stuck);
    return pthread_cond_timedwait(condition, mutex, &never);
}

static const size_t large[3] = {32, 64, 784};

static problem large_problem(void) {
    random_state = seed;
    return make_problem(dense(large[0], large[1], large[2]), BN_FLOAT32, 3, 1);
}

static int right(problem *p, const problem *expected) {
    size_t tensor = p->elements * sizeof(float);
    return train(p, NULL) == BN_OK && backward(p, NULL) == BN_OK && memcmp(p->y, expected->y, tensor) == 0 &&
           memcmp(p->dx, expected->dx, tensor) == 0;
}

/* A thread that calls until it is told to end. CHECK is not for threads: it counts without a lock. */
typedef struct caller {
    pthread_t thread;
    problem problem;
    const problem *expected;
    int calls, wrong, ends;
} caller;

static void *call_on(void *argument) {
    caller *c = argument;
    while (!__atomic_load_n(&c->ends, __ATOMIC_SEQ_CST)) {
        c->wrong += !right(&c->problem, c->expected);
        __atomic_fetch_add(&c->calls, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

/* The child of a child, too, as it has threads of its own by then. */
static int descend(problem *p, const problem *expected, int generations) {
    pid_t child = fork();
    if (child == 0) {
        is_child = 1;
        int wrong = !right(p, expected) + !right(p, expected);
        if (generations > 1) wrong += descend(p, expected, generations - 1);
        _exit(wrong);
    }
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

static void amid_calls(void) {
    problem expected = large_problem(), p = large_problem();
    caller c = {.problem = large_problem(), .expected = &expected};
    CHECK_OK(bn_set_num_threads(3));
    CHECK_OK(train(&expected, NULL));
    CHECK_OK(backward(&expected, NULL));
    CHECK(pthread_create(&c.thread, NULL, call_on, &c) == 0, "no thread");
    for (int i = 0; i < forks; i++) {
        int wrong = descend(&p, &expected, 2);
        CHECK(wrong < stuck, "a child of fork %d would wait for ever for a thread that it has not", i);
        CHECK(wrong == 0, "the children of fork %d gave %d", i, wrong);
        CHECK(right(&p, &expected), "the parent went wrong after fork %d", i);
    }
    __atomic_store_n(&c.ends, 1, __ATOMIC_SEQ_CST);
    pthread_join(c.thread, NULL);
    CHECK(c.calls > 0 && c.wrong == 0, "%d of %d calls beside the forks went wrong", c.wrong, c.calls);
    free_problem(&expected), free_problem(&p), free_problem(&c.problem);
}

static pthread_t first_caller;
static sem_t has_begun, may_go_on;

static void wait_in_first_call(void) {
    if (!pthread_equal(pthread_self(), first_caller)) return;
    on_allocation = NULL;
    sem_post(&has_begun);
    while (sem_wait(&may_go_on) != 0) continue;
}

static void *call_first(void *argument) {
    first_caller = pthread_self();
    on_allocation = wait_in_first_call;
    return train(argument, NULL) == BN_OK ? NULL : argument;
}

/* The other thread has got as far as the first of the first call's allocations. */
static void amid_first_call(void) {
    problem p = large_problem(), own = large_problem();
    pthread_t thread;
    void *result;
    CHECK(sem_init(&has_begun, 0, 0) == 0 && sem_init(&may_go_on, 0, 0) == 0, "no semaphores");
    CHECK(pthread_create(&thread, NULL, call_first, &p) == 0, "no thread");
    while (sem_wait(&has_begun) != 0) continue;
    pid_t child = fork();
    if (child == 0) {
        is_child = 1;
        _exit(train(&own, NULL) == BN_OK ? 0 : 1);
    }
    sem_post(&may_go_on);
    pthread_join(thread, &result);
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status), "no child");
    CHECK(WEXITSTATUS(status) != stuck, "the child would wait for ever for a thread that it has not");
    CHECK(WEXITSTATUS(status) == 0, "the child gave %d", WEXITSTATUS(status));
    CHECK(result == NULL, "the first call failed");
    CHECK_OK(train(&own, NULL));
    CHECK(memcmp(own.y, p.y, p.elements * sizeof(float)) == 0, "y differs");
}

static void fork_amid_first_call(void) { in_child("BATCHNORM_NUM_THREADS", "1", amid_first_call); }

static void fork_amid_calls(void) { in_child(NULL, NULL, amid_calls); }

int main(void) {
    start();
    RUN(fork_amid_first_call);
    RUN(fork_amid_calls);
    return finish();
}

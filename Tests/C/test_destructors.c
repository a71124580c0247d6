/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls from the destructors of a thread's keys, in each of the rounds that there are. The thread's memory is given
 * back after a call in any round but the last, as the header says: nothing is destroyed after that one. */
#define _DEFAULT_SOURCE
#include "allocations.h"
#include "problem.h"

#include <limits.h>
#include <pthread.h>

static pthread_key_t key;
static int round_now, round_of_call;
static bn_status status;
static problem p;

/* Asks for one more round until it has had the last. */
static void in_a_round(void *value) {
    round_now++;
    if (round_now < PTHREAD_DESTRUCTOR_ITERATIONS) pthread_setspecific(key, value);
    if (round_now == round_of_call) status = train(&p, NULL);
}

static void *live(void *unused) {
    if (pthread_setspecific(key, &key) != 0) abort();
    return unused;
}

/* Blocks that a thread leaves which makes its call in this round. */
static long left(int round) {
    pthread_t thread;
    long blocks = blocks_in_use;
    round_now = 0, round_of_call = round;
    status = BN_ERROR_NULL;
    if (pthread_create(&thread, NULL, live, NULL) != 0) abort();
    pthread_join(thread, NULL);
    CHECK(status == BN_OK, "round %d: %s", round, bn_status_string(status));
    return blocks_in_use - blocks;
}

static void every_round(void) {
    p = make_problem(dense(4, 24, 9), BN_FLOAT32, 3, 1);
    CHECK_OK(bn_set_num_threads(1));
    /* The library's key is there before this one, so that in each round its destructor comes first. */
    CHECK_OK(train(&p, NULL));
    CHECK(pthread_key_create(&key, in_a_round) == 0, "no key");
    left(1); /* the C library keeps this much for the first thread */
    for (int round = 1; round < PTHREAD_DESTRUCTOR_ITERATIONS; round++) {
        long blocks = left(round);
        CHECK(blocks == 0, "round %d leaves %ld blocks", round, blocks);
    }
    CHECK(left(PTHREAD_DESTRUCTOR_ITERATIONS) > 0, "the last round leaves nothing: the header need not speak of it");
    free_problem(&p);
}

int main(void) {
    start();
    RUN(every_round);
    return finish();
}

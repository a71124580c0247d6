/* SPDX-License-Identifier: Apache-2.0
 *
 * threads [SECONDS]: 64 threads at once, two seconds long at least, that train layers of every kind and take
 * derivatives, fail in between, change the number of threads, and end in the middle of the others' work, whereupon
 * another one takes their place. All bits are those of one thread alone; each thread's error is its own; in the end
 * as much memory is in use as before. */
#define _GNU_SOURCE
#include "../C/cases.h"
#include "../C/derivatives.h"
#include "interpose.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

enum { at_once = 64, least_seconds = 2, patience = 600, layers_each = 2, life_in_rounds = 10 };
enum { small_stack = 1 << 17 }; /* the C library keeps those of all threads, and does not free what it took for them */
enum { kinds = case_count + 4 };

/* The layer of each kind, before and after its calls. */
static layer originals[kinds], expected[kinds];

/* Counters of 64 threads, which count without a lock. */
static unsigned long calls, wrong, lives;
static int is_over;

static void count_up(unsigned long *counter, unsigned long by) { __atomic_fetch_add(counter, by, __ATOMIC_SEQ_CST); }

static int is_derivative(int kind) { return kind >= case_count; }

static layer layer_of_kind(int kind) {
    static const size_t extents[][3] = {{6, 5, 40}, {12, 16, 196}, {900, 24, 1}, {60, 33, 9}, {12, 32, 1200}};
    const size_t *e = extents[kind % 5];
    bn_dtype dtype = all_dtypes[kind % all_dtype_count];
    layer l = is_derivative(kind) ? derivative_of(e[0], e[1], e[2], dtype, kind % 2)
                                  : layer_of_case(kind, e[0], e[1], e[2], dtype);
    if (is_derivative(kind)) make_derivative(&l);
    else make_arrays(&l);
    return l;
}

static int call_layer(layer *l, int kind) {
    if (is_derivative(kind)) return run_jvp(l) == BN_OK && run_double_backward(l) == BN_OK;
    return train_layer(l) == BN_OK && back_layer(l) == BN_OK && infer_layer(l) == BN_OK;
}

static void refill(layer *l, const layer *from) {
    for (int i = 0; i < array_count; i++) {
        if (l->arrays[i] != NULL) memcpy(l->arrays[i], from->arrays[i], l->bytes[i]);
    }
}

/* Whose message it is shows in the number that is refused. */
static int fail_on_purpose(int own) {
    char number[32];
    snprintf(number, sizeof number, "%d", -1000 - own);
    return bn_set_num_threads(-1000 - own) == BN_ERROR_OPTION && strstr(bn_last_error(), number) != NULL;
}

static void *live(void *argument) {
    int own = *(int *)argument, is_wrong = 0, made = 0;
    int kind[layers_each];
    layer l[layers_each];
    for (int i = 0; i < layers_each; i++) {
        kind[i] = (int)((own * 7u + (unsigned)i * 11u + __atomic_load_n(&lives, __ATOMIC_SEQ_CST)) % kinds);
        l[i] = clone_of(&originals[kind[i]]);
    }
    for (int round = 0; round < life_in_rounds && !__atomic_load_n(&is_over, __ATOMIC_SEQ_CST); round++) {
        int i = round % layers_each;
        refill(&l[i], &originals[kind[i]]);
        is_wrong += !call_layer(&l[i], kind[i]) || difference(&l[i], &expected[kind[i]]) != NULL;
        is_wrong += round % 7 == 0 && !fail_on_purpose(own);
        if (round % 16 == own % 16) is_wrong += bn_set_num_threads(own % 5) != BN_OK;
        made += 3;
    }
    for (int i = 0; i < layers_each; i++) free_arrays(&l[i]);
    count_up(&calls, (unsigned long)made), count_up(&wrong, (unsigned long)is_wrong), count_up(&lives, 1);
    return NULL;
}

static int start_thread(pthread_t *thread, void *(*body)(void *), void *argument) {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0 || pthread_attr_setstacksize(&attributes, small_stack) != 0) return 0;
    int error = pthread_create(thread, &attributes, body, argument);
    pthread_attr_destroy(&attributes);
    return error == 0;
}

/* One life after the other. */
static void *live_again(void *argument) {
    while (!__atomic_load_n(&is_over, __ATOMIC_SEQ_CST)) {
        pthread_t life;
        if (!start_thread(&life, live, argument)) return argument;
        pthread_join(life, NULL);
    }
    return NULL;
}

static unsigned seconds;

static void sixty_four(void) {
    static int numbers[at_once];
    pthread_t threads[at_once];
    int missing = 0;
    for (int kind = 0; kind < kinds; kind++) {
        originals[kind] = layer_of_kind(kind);
        expected[kind] = clone_of(&originals[kind]);
        CHECK_OK(bn_set_num_threads(1));
        CHECK(call_layer(&expected[kind], kind), "%s (kind %d)", bn_last_error(), kind);
    }
    CHECK_OK(bn_set_num_threads(0));
    long blocks = interposed.blocks;
    for (int i = 0; i < at_once; i++) {
        numbers[i] = i;
        missing += !start_thread(&threads[i], live_again, &numbers[i]);
    }
    if (missing == 0) {
        sleep(seconds);
        while (__atomic_load_n(&lives, __ATOMIC_SEQ_CST) <= at_once) usleep(1000); /* somebody has ended meanwhile */
        __atomic_store_n(&is_over, 1, __ATOMIC_SEQ_CST);
        for (int i = 0; i < at_once; i++) pthread_join(threads[i], NULL);
    }
    CHECK(missing == 0, "%d threads could not be had", missing);
    CHECK(calls > 0 && lives > at_once, "%lu calls in %lu lives", calls, lives);
    CHECK(wrong == 0, "%lu of %lu calls went wrong", wrong, calls);
    CHECK(interposed.blocks == blocks, "%ld more blocks in use", interposed.blocks - blocks);
    for (int kind = 0; kind < kinds; kind++) free_arrays(&originals[kind]), free_arrays(&expected[kind]);
}

int main(int argc, char **argv) {
    start();
    seconds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    if (seconds < least_seconds) seconds = least_seconds;
    alarm(seconds + patience);
    RUN(sixty_four);
    printf("figure: calls of 64 threads = %lu\nfigure: threads that ended amid the others = %lu\n", calls, lives);
    return finish();
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * A stand-in for POSIX threads in a module of WebAssembly, which has one thread: nobody to lock out, to wait for or to
 * start, and one value for each key.
 */
#ifndef SINGLE_THREAD_H
#define SINGLE_THREAD_H

#include <stdbool.h>
#include <stdlib.h>

typedef struct pthread_mutex_t {
    char unused;
} pthread_mutex_t, pthread_cond_t;

static inline int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes) { return 0; }
static inline int pthread_mutex_lock(pthread_mutex_t *mutex) { return 0; }
static inline int pthread_mutex_unlock(pthread_mutex_t *mutex) { return 0; }
static inline int pthread_cond_init(pthread_cond_t *condition, const void *attributes) { return 0; }
static inline int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex) { return 0; }
static inline int pthread_cond_signal(pthread_cond_t *condition) { return 0; }
static inline int pthread_cond_broadcast(pthread_cond_t *condition) { return 0; }
static inline int pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void)) { return 0; }

/* In memory of its own: a static variable would be one in every object file. */
typedef struct pthread_key_t {
    void **value;
} pthread_key_t;

static inline int threads_key_create(pthread_key_t *key, void (*destroy)(void *)) {
    key->value = (void **)calloc(1, sizeof *key->value);
    return key->value ? 0 : -1;
}

static inline void threads_key_delete(pthread_key_t key) { free(key.value); }

static inline void *threads_get(pthread_key_t key) { return *key.value; }

static inline int threads_set(pthread_key_t key, void *value) {
    *key.value = value;
    return 0;
}

typedef struct threads_place {
    int processor;
} threads_place;

static inline int threads_start(void *(*body)(void *), void *argument) { return -1; }
static inline int threads_processor(void) { return -1; }
static inline void threads_park(threads_place *place) {}
static inline bool threads_is_parked(const threads_place *place) { return false; }
static inline void threads_rise(threads_place *place) {}
static inline void threads_move_from(threads_place *place, int processor) {}

#endif

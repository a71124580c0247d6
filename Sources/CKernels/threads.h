/* SPDX-License-Identifier: Apache-2.0
 *
 * POSIX threads for Swift, which imports neither their initializers nor thread-local variables.
 */
#ifndef THREADS_H
#define THREADS_H

#if defined(__wasm__)
#include "single_thread.h"
#else
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Binds a function to the oldest of its versions. glibc 2.34 took those of libpthread into libc under new ones, 2.32 another,
 * with no change in what they do; a library that asks for these cannot be loaded where there are none. */
#if defined(__GLIBC__) && defined(__x86_64__)
#define THREADS_OLDEST(function) __asm__(".symver " #function ", " #function "@GLIBC_2.2.5")
#elif defined(__GLIBC__) && defined(__aarch64__)
#define THREADS_OLDEST(function) __asm__(".symver " #function ", " #function "@GLIBC_2.17")
#else
#define THREADS_OLDEST(function) (void)0
#endif

/* A detached thread that takes none of the signals that are sent to the host. Those that its own instructions raise are
 * the host's to handle: blocked, they would be fatal. Returns 0, or what pthread_create does. */
static inline int threads_start(void *(*body)(void *), void *argument) {
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;
    THREADS_OLDEST(pthread_create);
    THREADS_OLDEST(pthread_sigmask);
    int error = pthread_attr_init(&attributes);
    if (error) return error;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGTRAP);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, &attributes, body, argument);
    pthread_sigmask(SIG_SETMASK, &before, 0);
    pthread_attr_destroy(&attributes);
    return error;
}

/* A pointer for each thread, destroyed with it. */
static inline int threads_key_create(pthread_key_t *key, void (*destroy)(void *)) {
    THREADS_OLDEST(pthread_key_create);
    return pthread_key_create(key, destroy);
}

static inline void threads_key_delete(pthread_key_t key) {
    THREADS_OLDEST(pthread_key_delete);
    pthread_key_delete(key);
}

static inline void *threads_get(pthread_key_t key) {
    THREADS_OLDEST(pthread_getspecific);
    return pthread_getspecific(key);
}

static inline int threads_set(pthread_key_t key, const void *value) {
    THREADS_OLDEST(pthread_setspecific);
    return pthread_setspecific(key, value);
}

/* Where a thread is parked, and where it may run. glibc declares its wrappers of these system calls under _GNU_SOURCE
 * only. */
typedef struct threads_place {
    int thread;    /* 0 while it is awake */
    int processor; /* -1 while it is awake, or if the kernel does not tell */
    bool moved;
    unsigned long allowed[16], others[16];
} threads_place;

static inline int threads_processor(void) {
    unsigned processor = 0;
    return syscall(SYS_getcpu, &processor, 0, 0) == 0 ? (int)processor : -1;
}

/* For the thread itself: before it parks, and when it is awake again. */
static inline void threads_park(threads_place *place) {
    place->thread = (int)syscall(SYS_gettid);
    place->processor = threads_processor();
}

static inline bool threads_is_parked(const threads_place *place) { return place->thread != 0; }

static inline void threads_rise(threads_place *place) {
    place->thread = 0;
    place->processor = -1;
    if (!place->moved) return;
    /* Unless somebody else has said meanwhile where it may run. */
    unsigned long now[16] = {0};
    int known = syscall(SYS_sched_getaffinity, 0, sizeof now, now) > 0;
    int others = known && __builtin_memcmp(now, place->others, sizeof now) == 0;
    place->moved = others && syscall(SYS_sched_setaffinity, 0, sizeof place->allowed, place->allowed) != 0;
}

/* For the thread that wakes it: the kernel lets a thread wake where it went to sleep, and after a busy time looks for no
 * idle processor. There it would wait for the one that woke it, and come when the work is done. */
static inline void threads_move_from(threads_place *place, int processor) {
    unsigned long *others = place->others;
    const int bits = 8 * sizeof *others;
    if (processor < 0 || place->processor != processor || processor >= 16 * bits) return;
    if (!place->moved) {
        __builtin_memset(place->allowed, 0, sizeof place->allowed);
        if (syscall(SYS_sched_getaffinity, place->thread, sizeof place->allowed, place->allowed) <= 0) return;
    }
    __builtin_memcpy(others, place->allowed, sizeof place->others);
    others[processor / bits] &= ~(1ul << processor % bits);
    if (syscall(SYS_sched_setaffinity, place->thread, sizeof place->others, others) == 0) place->moved = true;
}

#endif
#endif

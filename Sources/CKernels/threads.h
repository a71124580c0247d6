/* SPDX-License-Identifier: Apache-2.0
 *
 * POSIX threads for Swift, which imports neither their initializers nor thread-local variables.
 */
#ifndef THREADS_H
#define THREADS_H

#include <pthread.h>
#include <signal.h>

/* A detached thread that takes none of the signals that are sent to the host. Those that its own instructions raise are
 * the host's to handle: blocked, they would be fatal. Returns 0, or what pthread_create does. */
static inline int threads_start(void *(*body)(void *), void *argument) {
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;
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

#endif

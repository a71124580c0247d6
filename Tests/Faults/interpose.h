/* SPDX-License-Identifier: Apache-2.0
 *
 * The C library behind libbatchnorm, as a program wants it: it counts what it is asked for, fails the n-th time or from
 * there on, tells of processors that are not there, and has other text in the files of the system.
 * interpose.c comes before the C library in the order of symbols, for every caller in the process. */
#ifndef INTERPOSE_H
#define INTERPOSE_H

/* The requests that a program makes of the system. The first ones may fail. */
enum event {
    ALLOCATION, /* malloc() and all others that give memory */
    THREAD,     /* pthread_create() */
    KEY,        /* pthread_key_create() */
    VALUE,      /* pthread_setspecific() */
    FORK_HOOK,  /* pthread_atfork() */
    AFFINITY,   /* sched_getaffinity() and sched_setaffinity(), as system calls */
    PROCESSOR,  /* getcpu() */
    OPEN,       /* of what lies in /sys and /proc */
    READ,
    can_fail,
    LOCK = can_fail, /* of a mutex */
    UNLOCK,
    WAKE,            /* pthread_cond_signal() and pthread_cond_broadcast() */
    events
};

static const char *const event_names[events] = {
    "an allocation", "a thread", "a key", "a thread's value", "pthread_atfork()", "an affinity mask", "getcpu()",
    "a file", "read()", "a lock", "an unlock", "a wake",
};

extern struct interposed {
    int is_on; /* else all is as it is without this */
    long seen[events];

    enum event failing;
    long first, count; /* the number of the first that fails, from 0, and how many do */
    int error;         /* their errno */
    long failed;       /* so many did */

    int processors;    /* in every affinity mask, if there are any */
    const char *text;  /* of every file in /sys and /proc, if not NULL, */
    unsigned long text_bytes;
    unsigned long longest_read; /* if not 0 */

    /* Called at each event, before it happens, by the thread that it happens to. */
    void (*on_event)(enum event event, long number);

    /* Memory: blocks in use, on or off, and bytes that were asked for. The C library's own memory for a thread is left
     * out. */
    long blocks, bytes;
} interposed;

static inline void fail_from(enum event event, long first, long count, int error) {
    interposed.failing = event;
    interposed.first = first;
    interposed.count = count;
    interposed.error = error;
}

static inline void interpose(void) {
    for (int i = 0; i < events; i++) interposed.seen[i] = 0;
    interposed.failed = interposed.bytes = 0;
    __atomic_store_n(&interposed.is_on, 1, __ATOMIC_SEQ_CST);
}

static inline void leave_alone(void) { __atomic_store_n(&interposed.is_on, 0, __ATOMIC_SEQ_CST); }

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "interpose.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *memory);

struct interposed interposed;

/* The C library's own, found before anything is interposed: to look for them may allocate. */
static struct {
    int (*thread)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    int (*key)(pthread_key_t *, void (*)(void *));
    int (*value)(pthread_key_t, const void *);
    int (*fork_hook)(void (*)(void), void (*)(void), void (*)(void), void *);
    long (*system_call)(long, ...);
    int (*open)(const char *, int, ...);
    ssize_t (*read)(int, void *, size_t);
    int (*lock)(pthread_mutex_t *), (*unlock)(pthread_mutex_t *);
    int (*signal)(pthread_cond_t *), (*broadcast)(pthread_cond_t *);
} real;

/* A function and a pointer to it are no data to ISO C. */
#define FIND(member, name) (*(void **)&real.member = dlsym(RTLD_NEXT, name))

__attribute__((constructor)) static void find_all(void) {
    FIND(thread, "pthread_create"), FIND(key, "pthread_key_create"), FIND(value, "pthread_setspecific");
    FIND(fork_hook, "__register_atfork"), FIND(system_call, "syscall"), FIND(open, "open"), FIND(read, "read");
    FIND(lock, "pthread_mutex_lock"), FIND(unlock, "pthread_mutex_unlock");
    FIND(signal, "pthread_cond_signal"), FIND(broadcast, "pthread_cond_broadcast");
}

static int is_on(void) { return __atomic_load_n(&interposed.is_on, __ATOMIC_SEQ_CST); }

/* Tells of an event; true if it has to fail. */
static int fails(enum event event) {
    if (!is_on()) return 0;
    long number = __atomic_fetch_add(&interposed.seen[event], 1, __ATOMIC_SEQ_CST);
    if (interposed.on_event != NULL) interposed.on_event(event, number);
    if (event != interposed.failing || number < interposed.first) return 0;
    if (number - interposed.first >= interposed.count) return 0;
    __atomic_fetch_add(&interposed.failed, 1, __ATOMIC_SEQ_CST);
    return 1;
}

/* ---- Memory ---- */

/* The C library keeps the memory that pthread_create() takes for a thread, and gives it to the next one. */
static __thread int makes_thread __attribute__((tls_model("initial-exec")));

static void *counted(void *memory, size_t bytes) {
    if (memory == NULL) errno = ENOMEM;
    if (memory == NULL || makes_thread) return memory;
    __atomic_fetch_add(&interposed.blocks, 1, __ATOMIC_SEQ_CST);
    if (is_on()) __atomic_fetch_add(&interposed.bytes, (long)bytes, __ATOMIC_SEQ_CST);
    return memory;
}

void *malloc(size_t size) { return counted(fails(ALLOCATION) ? NULL : __libc_malloc(size), size); }
void *calloc(size_t count, size_t size) {
    return counted(fails(ALLOCATION) ? NULL : __libc_calloc(count, size), count * size);
}

void *realloc(void *memory, size_t size) {
    if (memory == NULL) return malloc(size);
    if (!fails(ALLOCATION)) return __libc_realloc(memory, size);
    errno = ENOMEM;
    return NULL;
}

void *aligned_alloc(size_t alignment, size_t size) {
    return counted(fails(ALLOCATION) ? NULL : __libc_memalign(alignment, size), size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    int before = errno;
    void *block = aligned_alloc(alignment, size);
    errno = before;
    if (block == NULL) return ENOMEM;
    *memory = block;
    return 0;
}

void free(void *memory) {
    if (memory != NULL) __atomic_fetch_sub(&interposed.blocks, 1, __ATOMIC_SEQ_CST);
    __libc_free(memory);
}

/* ---- Threads ---- */

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument) {
    if (fails(THREAD)) return EAGAIN;
    makes_thread = 1;
    int error = real.thread(thread, attributes, body, argument);
    makes_thread = 0;
    return error;
}

int pthread_key_create(pthread_key_t *key, void (*destroy)(void *)) {
    return fails(KEY) ? EAGAIN : real.key(key, destroy);
}

int pthread_setspecific(pthread_key_t key, const void *value) { return fails(VALUE) ? ENOMEM : real.value(key, value); }

/* pthread_atfork() is made of this one, in each library. */
int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *library) {
    return fails(FORK_HOOK) ? ENOMEM : real.fork_hook(prepare, parent, child, library);
}

int pthread_mutex_lock(pthread_mutex_t *mutex) {
    (void)fails(LOCK);
    return real.lock(mutex);
}

int pthread_mutex_unlock(pthread_mutex_t *mutex) {
    (void)fails(UNLOCK);
    return real.unlock(mutex);
}

int pthread_cond_signal(pthread_cond_t *condition) {
    (void)fails(WAKE);
    return real.signal(condition);
}

int pthread_cond_broadcast(pthread_cond_t *condition) {
    (void)fails(WAKE);
    return real.broadcast(condition);
}

/* ---- The machine ---- */

static long tell_of_processors(unsigned char *mask, size_t bytes) {
    enum { kernel_bytes = 128 };
    if (bytes < kernel_bytes) return -1;
    memset(mask, 0, kernel_bytes);
    for (int i = 0; i < interposed.processors; i++) mask[i / 8] |= (unsigned char)(1 << i % 8);
    return kernel_bytes;
}

long syscall(long number, ...) {
    va_list values;
    va_start(values, number);
    long a = va_arg(values, long), b = va_arg(values, long), c = va_arg(values, long);
    long d = va_arg(values, long), e = va_arg(values, long), f = va_arg(values, long);
    va_end(values);
    int is_affinity = number == SYS_sched_getaffinity || number == SYS_sched_setaffinity;
    if ((is_affinity && fails(AFFINITY)) || (number == SYS_getcpu && fails(PROCESSOR))) {
        errno = interposed.error;
        return -1;
    }
    if (is_on() && number == SYS_sched_getaffinity && interposed.processors > 0) {
        return tell_of_processors((unsigned char *)c, (size_t)b);
    }
    return real.system_call(number, a, b, c, d, e, f);
}

int open(const char *path, int flags, ...) {
    va_list values;
    va_start(values, flags);
    int mode = va_arg(values, int);
    va_end(values);
    int is_of_system = strncmp(path, "/sys/", 5) == 0 || strncmp(path, "/proc/", 6) == 0;
    if (is_of_system && fails(OPEN)) {
        errno = interposed.error;
        return -1;
    }
    if (!is_on() || !is_of_system || interposed.text == NULL) return real.open(path, flags, mode);
    int file = memfd_create("text", MFD_CLOEXEC);
    if (file >= 0 && write(file, interposed.text, interposed.text_bytes) != (ssize_t)interposed.text_bytes) abort();
    if (file >= 0) lseek(file, 0, SEEK_SET);
    return file;
}

ssize_t read(int file, void *bytes, size_t count) {
    if (fails(READ)) {
        errno = interposed.error;
        return -1;
    }
    if (is_on() && interposed.longest_read > 0 && count > interposed.longest_read) count = interposed.longest_read;
    return real.read(file, bytes, count);
}

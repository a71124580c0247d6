/* SPDX-License-Identifier: Apache-2.0
 *
 * The program's own allocator in front of glibc's, for every caller in the process: it counts, and fails when told to.
 * Allocations that a library makes through any other function than these are not seen. */
#ifndef ALLOCATIONS_H
#define ALLOCATIONS_H

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *memory);

/* Asked for, and not given back, since the program began. */
static long allocations, blocks_in_use;

/* Allocations until the first that fails, and how many fail from there on. */
static long allocations_left = LONG_MAX, failures_left;

/* Called at every allocation, if set. */
static void (*on_allocation)(void);

static inline void fail_allocations(long first, long count) {
    __atomic_store_n(&failures_left, count, __ATOMIC_SEQ_CST);
    __atomic_store_n(&allocations_left, first, __ATOMIC_SEQ_CST);
}

static inline int allocation_fails(void) {
    __atomic_fetch_add(&allocations, 1, __ATOMIC_SEQ_CST);
    if (on_allocation != NULL) on_allocation();
    if (__atomic_fetch_sub(&allocations_left, 1, __ATOMIC_SEQ_CST) > 0) return 0;
    return __atomic_fetch_sub(&failures_left, 1, __ATOMIC_SEQ_CST) > 0;
}

static inline void *counted(void *memory) {
    if (memory != NULL) __atomic_fetch_add(&blocks_in_use, 1, __ATOMIC_SEQ_CST);
    else errno = ENOMEM;
    return memory;
}

void *malloc(size_t size) {
    return counted(allocation_fails() ? NULL : __libc_malloc(size));
}

void *calloc(size_t count, size_t size) {
    return counted(allocation_fails() ? NULL : __libc_calloc(count, size));
}

void *realloc(void *memory, size_t size) {
    if (memory == NULL) return malloc(size);
    if (!allocation_fails()) return __libc_realloc(memory, size);
    errno = ENOMEM;
    return NULL;
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    void *block = counted(allocation_fails() ? NULL : __libc_memalign(alignment, size));
    if (block != NULL) *memory = block;
    return block != NULL ? 0 : ENOMEM;
}

void *aligned_alloc(size_t alignment, size_t size) {
    return counted(allocation_fails() ? NULL : __libc_memalign(alignment, size));
}

void free(void *memory) {
    if (memory != NULL) __atomic_fetch_sub(&blocks_in_use, 1, __ATOMIC_SEQ_CST);
    __libc_free(memory);
}

#endif

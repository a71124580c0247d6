/* SPDX-License-Identifier: Apache-2.0
 *
 * What the machine has: instruction sets, processors, and the limits it was given.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if !defined(__wasm__)
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#if defined(__x86_64__)
/* __builtin_cpu_supports also asks whether the operating system saves the wide registers. */
static inline bool machine_has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

static inline bool machine_has_avx512(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
#endif

#if defined(__wasm__)
/* A module of WebAssembly has one thread, and no files. */
static inline int machine_affinity(void) { return 1; }

static inline void machine_read(const char *path, char *text, size_t size) {
    (void)path, (void)size;
    text[0] = 0;
}
#else
/* CPUs in the affinity mask of this thread; 1 if it cannot be read. The system call itself, as glibc declares
   its wrapper under _GNU_SOURCE only, and with that a module no longer agrees with Swift's own view of the C library.
   */
static inline int machine_affinity(void) {
    unsigned long mask[128];
    long bytes = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
    int count = 0;
    for (long i = 0; i < bytes / (long)sizeof *mask; i++) count += __builtin_popcountl(mask[i]);
    return count > 0 ? count : 1;
}

/* The start of a small file as a string; "" if there is none. */
static inline void machine_read(const char *path, char *text, size_t size) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? 0 : read(file, text, size - 1);
    text[length < 0 ? 0 : length] = 0;
    if (file >= 0) close(file);
}
#endif

/* Rounding mode and what becomes of subnormal numbers, as the calling thread has them. */
static inline unsigned machine_float_state(void) {
#if defined(__x86_64__)
    return _mm_getcsr();
#elif defined(__aarch64__)
    unsigned long state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    return (unsigned)state;
#else
    return 0;
#endif
}

static inline void machine_set_float_state(unsigned state) {
#if defined(__x86_64__)
    _mm_setcsr(state & ~0x3fu); /* without the exceptions that the other thread has met */
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"((unsigned long)state));
#else
    (void)state;
#endif
}

/* Lets a processor that shares its units with this one have them for a moment. */
static inline void machine_pause(void) {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* A pointer that is set once: what is there, and whether this thread was the one to set it. */
static inline void *machine_load(void *const *place) { return __atomic_load_n(place, __ATOMIC_ACQUIRE); }
static inline bool machine_publish(void **place, void *value) {
    void *none = 0;
    return __atomic_compare_exchange_n(place, &none, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* The shortest of the usual spellings of a double; Swift's own needs tables of 30 KB. Returns the length. */
static inline int machine_print(double value, char *text, size_t size) {
    return snprintf(text, size, "%g", value);
}

#endif

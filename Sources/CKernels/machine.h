/* SPDX-License-Identifier: Apache-2.0
 *
 * Facts about the machine: instruction sets, processors, and the limits it was given.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if !defined(__wasm__)
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#include <xmmintrin.h>
#endif

#if defined(__x86_64__)
/* True if CPUID names these features (of leaf 1 in ECX, of leaf 7 in EBX), and the operating system keeps these registers, as
 * XGETBV says. The compiler's __builtin_cpu_supports() knows every processor by name: 4.5 KB, and a constructor that runs
 * when the library is loaded. */
static inline bool machine_has(unsigned first, unsigned seventh, unsigned registers) {
    const unsigned osxsave = 1u << 27;
    unsigned a, b, c, d, kept, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & osxsave) == 0 || (c & first) != first) return false;
    __asm__ volatile("xgetbv" : "=a"(kept), "=d"(high) : "c"(0));
    return (kept & registers) == registers && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & seventh) == seventh;
}

static inline bool machine_has_avx2(void) {
    const unsigned fma = 1u << 12, avx = 1u << 28, f16c = 1u << 29, avx2 = 1u << 5, xmm_and_ymm = 0x6;
    return machine_has(fma | avx | f16c, avx2, xmm_and_ymm);
}

static inline bool machine_has_avx512(void) {
    const unsigned f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31, masks_and_zmm = 0xe6;
    return machine_has_avx2() && machine_has(0, f | dq | bw | vl, masks_and_zmm);
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
    int kept = errno; /* a file that is not there is no error of the caller's */
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? 0 : read(file, text, size - 1);
    text[length < 0 ? 0 : length] = 0;
    if (file >= 0) close(file);
    errno = kept;
}
#endif

/* The floating-point environment of a thread: how it rounds, what becomes of subnormal numbers, which exceptions trap, and
 * which it has met. */
typedef struct machine_floats {
    unsigned long control, flags;
} machine_floats;

/* Goes over to the default, to nearest, with subnormal numbers and without traps; returns what was before. To look takes
 * 2 ns, to set 5: it is rarely needed. */
static inline machine_floats machine_enter_floats(void) {
    machine_floats before = {0, 0};
#if defined(__x86_64__)
    const unsigned flags = 0x3f, standard = 0x1f80;
    before.control = _mm_getcsr();
    if ((before.control & ~flags) != standard) _mm_setcsr(standard);
#elif defined(__aarch64__)
    __asm__ volatile("mrs %0, fpcr" : "=r"(before.control) : : "memory");
    __asm__ volatile("mrs %0, fpsr" : "=r"(before.flags) : : "memory");
    if (before.control != 0) __asm__ volatile("msr fpcr, %0" : : "r"(0ul) : "memory");
#endif
    return before;
}

static inline void machine_leave_floats(machine_floats before) {
#if defined(__x86_64__)
    if (_mm_getcsr() != before.control) _mm_setcsr((unsigned)before.control);
#elif defined(__aarch64__)
    if (before.control != 0) __asm__ volatile("msr fpcr, %0" : : "r"(before.control) : "memory");
    __asm__ volatile("msr fpsr, %0" : : "r"(before.flags) : "memory");
#else
    (void)before;
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

/* Enters a thread, and returns false if it had entered. A signal handler on the same thread sees it, or has done its work
 * before the thread enters; no other thread looks. */
static inline bool machine_enter(volatile int *inside) {
    if (*inside) return false;
    *inside = 1;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    return true;
}

static inline void machine_leave(volatile int *inside) {
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    *inside = 0;
}

/* A pointer that is set once: what is there, and whether this thread was the one to set it. */
static inline void *machine_load(void *const *place) { return __atomic_load_n(place, __ATOMIC_ACQUIRE); }
static inline bool machine_publish(void **place, void *value) {
    void *none = 0;
    return __atomic_compare_exchange_n(place, &none, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* The shortest of the usual spellings of a double; Swift's own needs tables of 30 KB. Returns the length. */
static inline int machine_print(double value, char *text, size_t size) {
    /* The C library rounds decimals as the caller has it rounded; on x86-64 it asks the x87. */
    machine_floats before = machine_enter_floats();
#if defined(__x86_64__)
    unsigned short control, standard = 0x37f;
    __asm__ volatile("fnstcw %0" : "=m"(control));
    __asm__ volatile("fldcw %0" : : "m"(standard));
#endif
    int length = snprintf(text, size, "%g", value);
#if defined(__x86_64__)
    __asm__ volatile("fldcw %0" : : "m"(control));
#endif
    machine_leave_floats(before);
    return length;
}

#endif

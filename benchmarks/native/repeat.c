/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls of the library from C, so that the price of a call from Python can be told from the library's own. */
#define _POSIX_C_SOURCE 199309L
#include <time.h>

/* The forward functions: shape, dtype, eight pointers, options. Backward has nine. */
typedef int forward_call(const void *shape, int dtype, const void *, const void *, const void *, const void *,
                         const void *, const void *, const void *, const void *, const void *options);
typedef int backward_call(const void *shape, int dtype, const void *, const void *, const void *, const void *,
                          const void *, const void *, const void *, const void *, const void *, const void *options);

/* Seconds for that many calls, or minus the status of one that failed. */
double repeat_call(void *call, long times, const void *shape, int dtype, const void *const p[9], int count,
                   const void *options) {
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < times; i++) {
        int status =
            count == 9
                ? ((backward_call *)call)(shape, dtype, p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], options)
                : ((forward_call *)call)(shape, dtype, p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], options);
        if (status) return -status;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
}

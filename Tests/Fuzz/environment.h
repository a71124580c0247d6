/* SPDX-License-Identifier: Apache-2.0
 *
 * The floating-point environment that calls are made in. */
#ifndef FUZZ_ENVIRONMENT_H
#define FUZZ_ENVIRONMENT_H

#include <fenv.h>
#ifdef __SSE2__
#include <xmmintrin.h>
#endif

/* The default; to the three other directions; subnormal numbers as 0, read and written, on x86. */
enum environment { TO_NEAREST, DOWNWARD, UPWARD, TOWARD_ZERO, WITHOUT_SUBNORMALS, environments };
static enum environment environment;

#ifdef __SSE2__
static inline unsigned control(void) { return _mm_getcsr(); }
static inline void take_subnormals_for_zero(void) { _mm_setcsr(_mm_getcsr() | 0x8040); }
#else
static inline unsigned control(void) { return (unsigned)fegetround(); }
static inline void take_subnormals_for_zero(void) {}
#endif

static inline unsigned enter_environment(void) {
    static const int directions[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO, FE_TONEAREST};
    feclearexcept(FE_ALL_EXCEPT);
    fesetround(directions[environment]);
    if (environment == WITHOUT_SUBNORMALS) take_subnormals_for_zero();
    return control();
}

/* The flags among it. */
static inline int environment_is_kept(unsigned before) {
    return control() == before && fetestexcept(FE_ALL_EXCEPT) == 0;
}

static inline void leave_environment(void) { fesetenv(FE_DFL_ENV); }

#endif

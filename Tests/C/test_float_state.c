/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls compute in the default floating-point environment, whatever the caller's is: the same bits, no trap, and the
 * caller's environment as it was, with the exceptions that it had met and no other. errno is as it was, too.
 *
 * The digests are those of some thousand calls. The macros change the environment for the call alone, as the inputs are
 * to be the same. */
#define _GNU_SOURCE
#include "batchnorm.h"

#include <errno.h>

#if defined(__x86_64__)
#include <xmmintrin.h>

/* MXCSR. */
enum { usual = 0x1F80, up = 0x4000, down = 0x2000, to_zero = 0x6000, flush = 0x8000, zero_inputs = 0x0040 };
enum { traps = 0x0680, met = 0x3F, some_met = 0x21 }; /* masks of invalid, division by zero and overflow */
static unsigned get_state(void) { return _mm_getcsr(); }
static void put_state(unsigned state) { _mm_setcsr(state); }
static const unsigned states[] = {
    usual ^ traps, usual | up | some_met, (usual | down | flush | zero_inputs) ^ traps, usual | to_zero | zero_inputs,
    usual | flush, usual | flush | zero_inputs,
};

#elif defined(__aarch64__)

/* FPCR, of which one bit flushes inputs and results alike, and FPSR in the upper half. */
enum { usual = 0, up = 1 << 22, down = 2 << 22, flush = 1 << 24 };
static unsigned long get_state(void) {
    unsigned long control, flags;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("mrs %0, fpsr" : "=r"(flags));
    return control | (flags & 0x9F) << 32;
}
static void put_state(unsigned long state) {
    __asm__ volatile("msr fpcr, %0" : : "r"(state & 0xFFFFFFFF));
    __asm__ volatile("msr fpsr, %0" : : "r"(state >> 32));
}
/* Few, as an emulator takes a minute for each. */
static const unsigned long states[] = {down | flush, up | 0x11ul << 32};

#endif

enum { state_count = sizeof states / sizeof states[0] };

static unsigned long state = usual, left_changed, errno_changed;
enum { own_errno = 77 };

static void enter(void) {
    errno = own_errno;
    put_state(state);
}

static bn_status leave(bn_status status) {
    if (get_state() != state) left_changed += 1;
    if (errno != own_errno) errno_changed += 1;
    put_state(usual);
    return status;
}

#define bn_forward_training(...) (enter(), leave(bn_forward_training(__VA_ARGS__)))
#define bn_forward_inference(...) (enter(), leave(bn_forward_inference(__VA_ARGS__)))
#define bn_backward(...) (enter(), leave(bn_backward(__VA_ARGS__)))
#define bn_moments(...) (enter(), leave(bn_moments(__VA_ARGS__)))
#define bn_merge_moments(...) (enter(), leave(bn_merge_moments(__VA_ARGS__)))
#define bn_inverse_std(...) (enter(), leave(bn_inverse_std(__VA_ARGS__)))
#define bn_normalize(...) (enter(), leave(bn_normalize(__VA_ARGS__)))
#define bn_backward_reduce(...) (enter(), leave(bn_backward_reduce(__VA_ARGS__)))
#define bn_backward_apply(...) (enter(), leave(bn_backward_apply(__VA_ARGS__)))
#define bn_update_running(...) (enter(), leave(bn_update_running(__VA_ARGS__)))
#define bn_length_weights(...) (enter(), leave(bn_length_weights(__VA_ARGS__)))
#define bn_jvp(...) (enter(), leave(bn_jvp(__VA_ARGS__)))
#define bn_double_backward(...) (enter(), leave(bn_double_backward(__VA_ARGS__)))
#define bn_scale_shift(...) (enter(), leave(bn_scale_shift(__VA_ARGS__)))
#define bn_fold_into_previous(...) (enter(), leave(bn_fold_into_previous(__VA_ARGS__)))
#define bn_fold_into_next(...) (enter(), leave(bn_fold_into_next(__VA_ARGS__)))

#include "digests.h"

#include <fenv.h>

enum { most_digests = 8192 };
static uint64_t wanted[most_digests];
static unsigned long place;

static void keep(const char *name, uint64_t digest) {
    CHECK(place < most_digests, "no room for %s", name);
    wanted[place++] = digest;
}

static void compare(const char *name, uint64_t digest) {
    CHECK(digest == wanted[place++], "%s: other bits in the environment %#lx", name, state);
}

static void digest_in(unsigned long environment, bn_dtype dtype) {
    state = environment;
    left_changed = errno_changed = place = 0;
    random_state = seed;
    digest_all(dtype);
    CHECK(left_changed == 0, "the environment %#lx was left otherwise by %lu calls", state, left_changed);
    CHECK(errno_changed == 0, "errno was left otherwise by %lu calls", errno_changed);
}

static void same_bits(bn_dtype dtype) {
    on_digest = keep;
    digest_in(usual, dtype);
    unsigned long count = place;
    on_digest = compare;
    for (int i = 0; i < state_count; i++) {
        /* Every other one on two threads, which work for callers of different environments. */
        CHECK_OK(bn_set_num_threads(1 + i % 2));
        digest_in(states[i], dtype);
        CHECK(place == count, "%lu digests, %lu before", place, count);
    }
    CHECK_OK(bn_set_num_threads(0));
    state = usual;
}

static void float32(void) { same_bits(BN_FLOAT32); }
static void float64(void) { same_bits(BN_FLOAT64); }
static void float16(void) { same_bits(BN_FLOAT16); }
static void bfloat16(void) { same_bits(BN_BFLOAT16); }

/* A call that is refused, and one of an empty group, whose mean would be 0 / 0. */
static void others(void) {
    for (int i = 0; i < state_count; i++) {
        state = states[i];
        left_changed = errno_changed = 0;
        bn_shape shape = BN_SHAPE(4, 0, 1), sound = BN_SHAPE(4, 2, 3);
        float x[24] = {1, 2, 3, 4, 5, 7}, y[24];
        double mean[6], invstd[6];
        CHECK(bn_forward_training(&shape, BN_FLOAT32, x, NULL, NULL, NULL, NULL, y, mean, invstd, NULL) ==
                  BN_ERROR_SHAPE, "not refused");
        const int32_t index[] = {0, 2, 0, 2};
        bn_groups groups = BN_GROUPS_INIT;
        groups.samples = 4, groups.groups = 3, groups.index = index;
        bn_options options = BN_OPTIONS_INIT;
        options.groups = &groups;
        CHECK_OK(bn_forward_training(&sound, BN_FLOAT32, x, NULL, NULL, NULL, NULL, y, mean, invstd, &options));
        CHECK(left_changed == 0, "the environment %#lx was left otherwise", state);
        CHECK(errno_changed == 0, "errno was left otherwise");
    }
    state = usual;
}

/* The value in a message is that of the argument, to nearest: snprintf() rounds as fesetround() says, which on
 * x86-64 is the x87's business as well. */
static void messages(void) {
    static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    static const double values[] = {-0.1, -0.3, -1.0 / 3, -1e-5};
    bn_options options = BN_OPTIONS_INIT;
    bn_shape shape = BN_SHAPE(4, 1, 1);
    float x[4] = {1, 2, 3, 5}, y[4];
    for (int m = 0; m < 4; m++) {
        for (int v = 0; v < 4; v++) {
            char expected[64];
            snprintf(expected, sizeof expected, "eps is %g;", values[v]);
            options.eps = values[v];
            fesetround(modes[m]);
            bn_status status = (bn_forward_training)(&shape, BN_FLOAT32, x, NULL, NULL, NULL, NULL, y, NULL, NULL,
                                                     &options);
            int mode = fegetround();
            fesetround(FE_TONEAREST);
            CHECK(status == BN_ERROR_OPTION && mode == modes[m], "status %d, mode %d", (int)status, mode);
            CHECK(strstr(bn_last_error(), expected) != NULL, "mode %d: \"%s\", not \"%s\"", m, bn_last_error(),
                  expected);
        }
    }
}

int main(void) {
    start();
    RUN(float32);
    RUN(float64);
    RUN(float16);
    RUN(bfloat16);
    RUN(others);
    RUN(messages);
    return finish();
}

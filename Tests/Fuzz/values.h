/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers to fill blocks with: ordinary ones, and all that is not. */
#ifndef FUZZ_VALUES_H
#define FUZZ_VALUES_H

#include "memory.h"

enum kind { ordinary, far_from_zero, constant, some_special, any_bits, tiny, huge, alternating, all_special, mostly_zero, kinds };

static const double special[] = {
    0.0, -0.0, 1e-45, -1e-45, 1e-40, 1.17e-38, 3.4e38, -3.4e38, 65504, -65504, 6e-8, 1e300, -1e300, 1.79e308,
    -1.79e308, 5e-324, 1e-310, HUGE_VAL, -HUGE_VAL, NAN, 1, -1, 0.5, 16777217, 9007199254740993.0,
};

static inline enum kind draw_kind(void) { return percent(67) ? ordinary : (enum kind)below(kinds); }
static inline double uniform(void) { return (double)(noise() >> 11) / (double)(UINT64_C(1) << 52) - 1; }
static inline double draw_special(void) { return special[noise() % (sizeof special / sizeof special[0])]; }

static inline double number_of(enum kind kind, size_t i) {
    switch (kind) {
    case far_from_zero: return 1e4 + uniform();
    case constant: return 2.5;
    case some_special: return noise() % 30 == 0 ? draw_special() : uniform();
    case tiny: return 1e-39 * uniform();
    case huge: return 3e38 * uniform();
    case alternating: return i % 2 ? 3.4e38 : -3.4e38;
    case all_special: return draw_special();
    case mostly_zero: return noise() % 3 == 0 ? uniform() : 0;
    default: return 3 * uniform();
    }
}

static inline size_t values_in(const block *b) { return b->runs * (b->width / b->element); }

/* The address of value i of a block, without its gaps. */
static inline unsigned char *value_at(const block *b, size_t i) {
    size_t of_run = b->width / b->element;
    return b->values + i / of_run * b->stride + i % of_run * b->element;
}

static inline void put_value(const block *b, size_t i, double value) { put(b->dtype, value_at(b, i), 0, value); }
static inline double get_value(const block *b, size_t i) { return get(b->dtype, value_at(b, i), 0); }

static inline void fill_block(const block *b, enum kind kind) {
    for (size_t i = 0; i < values_in(b); i++) {
        uint64_t bits = noise();
        if (kind == any_bits) memcpy(value_at(b, i), &bits, b->element);
        else put_value(b, i, number_of(kind, i));
    }
}

/* For variances and the like: nine in ten are not negative. */
static inline void make_positive(const block *b) {
    for (size_t i = 0; i < values_in(b); i++) {
        if (noise() % 10 != 0 || isnan(get_value(b, i))) put_value(b, i, fabs(get_value(b, i)));
    }
}

#endif

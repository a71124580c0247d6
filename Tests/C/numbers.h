/* SPDX-License-Identifier: Apache-2.0
 *
 * Elements of every type as doubles. 16-bit ones are taken apart by hand, as C99 has no type for them. */
#ifndef NUMBERS_H
#define NUMBERS_H

#include "batchnorm.h"

#include <math.h>
#include <stdint.h>

static inline int is_half(bn_dtype dtype) {
    return dtype == BN_FLOAT16 || dtype == BN_BFLOAT16;
}

/* Digits after the point, and what is added to the exponent. */
static inline int half_digits(bn_dtype dtype) {
    return dtype == BN_FLOAT16 ? 10 : 7;
}

static inline int half_bias(bn_dtype dtype) {
    return dtype == BN_FLOAT16 ? 15 : 127;
}

/* Rounds to nearest, ties to even. A significand that is rounded up to a power of two carries into the exponent. */
static inline uint16_t to_half(bn_dtype dtype, double value) {
    int digits = half_digits(dtype), bias = half_bias(dtype);
    uint16_t sign = signbit(value) ? 0x8000 : 0, infinite = (uint16_t)((2 * bias + 1) << digits);
    if (isnan(value)) return (uint16_t)(sign | infinite | 1 << (digits - 1));
    if (isinf(value)) return (uint16_t)(sign | infinite);
    if (value == 0) return sign;
    int exponent = ilogb(value) < 1 - bias ? 1 - bias : ilogb(value);
    long significand = lrint(ldexp(fabs(value), digits - exponent));
    long bits = significand + (((long)exponent + bias - 1) << digits);
    return (uint16_t)(sign | (bits > infinite ? infinite : bits));
}

static inline double from_half(bn_dtype dtype, uint16_t half) {
    int digits = half_digits(dtype), bias = half_bias(dtype);
    int exponent = (half & 0x7FFF) >> digits, significand = half & ((1 << digits) - 1);
    double magnitude;
    if (exponent == 2 * bias + 1) magnitude = significand != 0 ? (double)NAN : HUGE_VAL;
    else if (exponent == 0) magnitude = ldexp(significand, 1 - bias - digits);
    else magnitude = ldexp(significand + (1 << digits), exponent - bias - digits);
    return half & 0x8000 ? -magnitude : magnitude;
}

static inline size_t size_of(bn_dtype dtype) {
    return is_half(dtype) ? sizeof(uint16_t) : dtype == BN_FLOAT32 ? sizeof(float) : sizeof(double);
}

static inline const char *name_of(bn_dtype dtype) {
    static const char *const names[] = {"float32", "float64", "float16", "bfloat16"};
    return names[dtype - BN_FLOAT32];
}

static inline double get(bn_dtype dtype, const void *values, size_t index) {
    if (is_half(dtype)) return from_half(dtype, ((const uint16_t *)values)[index]);
    return dtype == BN_FLOAT32 ? (double)((const float *)values)[index] : ((const double *)values)[index];
}

static inline void put(bn_dtype dtype, void *values, size_t index, double value) {
    if (is_half(dtype)) ((uint16_t *)values)[index] = to_half(dtype, value);
    else if (dtype == BN_FLOAT32) ((float *)values)[index] = (float)value;
    else ((double *)values)[index] = value;
}

/* 1 / sqrt(variance + eps), and 0 where that would divide by 0. */
static inline double inverse(double variance, double eps) {
    return variance + eps == 0 ? 0 : 1 / sqrt(variance + eps);
}

#endif

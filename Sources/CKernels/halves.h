/* SPDX-License-Identifier: Apache-2.0
 *
 * Elements of sixteen bits: to float32, which holds each of them, and back, to the nearest, ties to even. The same bits
 * from an instruction, where there is one, and from integers.
 */
#ifndef HALVES_H
#define HALVES_H

#include "vectors.h"

/* Functions that are not inlined are static, so that no other file depends on how vectors are passed. */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpsabi"

typedef unsigned short vector_u16x16 __attribute__((ext_vector_type(16)));

VECTOR_INLINE vector_u16x16 vector_load_u16(const void *p) {
    vector_u16x16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

VECTOR_INLINE void vector_store_u16(vector_u16x16 v, void *p) { memcpy(p, &v, sizeof v); }

VECTOR_INLINE void vector_stream_u16(vector_u16x16 v, void *p) {
    __builtin_nontemporal_store(v, (vector_u16x16 *)p);
}

/* The first 1 to 15 lanes; the others are 0. */
#if defined(__AVX512F__)
VECTOR_INLINE vector_u16x16 vector_load_some_u16(const void *p, long lanes) {
    return (vector_u16x16)_mm256_maskz_loadu_epi16((__mmask16)((1u << lanes) - 1), p);
}

VECTOR_INLINE void vector_store_some_u16(vector_u16x16 v, void *p, long lanes) {
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << lanes) - 1), (__m256i)v);
}
#else
VECTOR_INLINE vector_u16x16 vector_load_some_u16(const void *p, long lanes) {
    vector_u16x16 v = 0;
    vector_copy(&v, p, lanes, 2);
    return v;
}

VECTOR_INLINE void vector_store_some_u16(vector_u16x16 v, void *p, long lanes) { vector_copy(p, &v, lanes, 2); }
#endif

/* The first lanes, and `fill` in the others. */
VECTOR_INLINE vector_f32x16 vector_fill(vector_f32x16 v, long lanes, vector_f32x16 fill) {
    typedef int vector_i32x16 __attribute__((ext_vector_type(16)));
    const vector_i32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lane < (int)lanes ? v : fill;
}

VECTOR_INLINE vector_f32x16 vector_float_of(vector_u32x16 bits) {
    vector_f32x16 v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

VECTOR_INLINE vector_u32x16 vector_bits_of(vector_f32x16 v) {
    vector_u32x16 bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

/* bfloat16 is the upper half of a float32. */
VECTOR_INLINE vector_f32x16 vector_widen_bf16(vector_u16x16 v) {
    return vector_float_of(__builtin_convertvector(v, vector_u32x16) << 16);
}

/* Half a unit less one, and one more where the kept part is odd, carries into it when it is to be rounded up; on into the
 * exponent, and from the largest number to infinity. To a NaN nothing is added, so that it stays one: what arithmetic gives
 * is quiet, which shows in the kept part. */
VECTOR_INLINE vector_u16x16 vector_narrow_bf16(vector_f32x16 v) {
    vector_u32x16 bits = vector_bits_of(v);
    vector_u32x16 half = ((bits >> 16) & 1) + 0x7fff;
    return __builtin_convertvector((bits + (v == v ? half : (vector_u32x16)0)) >> 16, vector_u16x16);
}

#if defined(__AVX512F__)
VECTOR_INLINE vector_f32x16 vector_widen_f16(vector_u16x16 v) { return (vector_f32x16)_mm512_cvtph_ps((__m256i)v); }

VECTOR_INLINE vector_u16x16 vector_narrow_f16(vector_f32x16 v) {
    return (vector_u16x16)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#elif defined(__F16C__)
VECTOR_INLINE vector_f32x16 vector_widen_f16(vector_u16x16 v) {
    vector_f32x16 f;
    f.lo = _mm256_cvtph_ps((__m128i)v.lo);
    f.hi = _mm256_cvtph_ps((__m128i)v.hi);
    return f;
}

VECTOR_INLINE vector_u16x16 vector_narrow_f16(vector_f32x16 v) {
    typedef unsigned short half __attribute__((ext_vector_type(8)));
    vector_u16x16 h;
    h.lo = (half)_mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    h.hi = (half)_mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return h;
}
#elif defined(__aarch64__)
/* Rounded as the caller's state says, as all arithmetic is; the instructions of x86-64 round to nearest whatever it says. */
typedef _Float16 vector_f16x16 __attribute__((ext_vector_type(16)));

VECTOR_INLINE vector_f32x16 vector_widen_f16(vector_u16x16 v) {
    vector_f16x16 h;
    memcpy(&h, &v, sizeof h);
    return __builtin_convertvector(h, vector_f32x16);
}

VECTOR_INLINE vector_u16x16 vector_narrow_f16(vector_f32x16 v) {
    vector_f16x16 h = __builtin_convertvector(v, vector_f16x16);
    vector_u16x16 bits;
    memcpy(&bits, &h, sizeof bits);
    return bits;
}
#else
/* The exponent of binary16 is five bits about 15, that of float32 eight about 127, with 13 bits more behind the point.
 * Subnormal numbers are multiples of 2^-24. Both functions are out of line, as they are fifty instructions or more. */
static __attribute__((noinline)) vector_f32x16 vector_widen_f16(vector_u16x16 v) {
    vector_u32x16 bits = __builtin_convertvector(v, vector_u32x16);
    vector_u32x16 sign = (bits & 0x8000) << 16, magnitude = bits & 0x7fff;
    vector_u32x16 normal = (magnitude << 13) + ((127 - 15) << 23);
    vector_u32x16 quiet = magnitude > 0x7c00 ? 0x400000 : (vector_u32x16)0;
    vector_u32x16 special = 0x7f800000 | magnitude << 13 | quiet;
    vector_u32x16 subnormal = vector_bits_of(__builtin_convertvector(magnitude, vector_f32x16) * 0x1p-24f);
    vector_u32x16 finite = magnitude < 0x400 ? subnormal : normal;
    return vector_float_of(sign | (magnitude < 0x7c00 ? finite : special));
}

/* Normal results are rounded as for bfloat16. Below 2^-14 the sum with 1/2, whose unit is 2^-24, is. */
static __attribute__((noinline)) vector_u16x16 vector_narrow_f16(vector_f32x16 v) {
    vector_u32x16 bits = vector_bits_of(v);
    vector_u32x16 sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
    vector_u32x16 normal = ((magnitude + 0xfff + ((magnitude >> 13) & 1)) >> 13) - ((127 - 15) << 10);
    vector_u32x16 subnormal = vector_bits_of(vector_float_of(magnitude) + 0.5f) - 0x3f000000;
    vector_u32x16 infinite = 0x7c00, nan = 0x7e00 | ((magnitude >> 13) & 0x1ff);
    vector_u32x16 finite = magnitude < 0x38800000 ? subnormal : normal;
    vector_u32x16 special = magnitude > 0x7f800000 ? nan : infinite;
    return __builtin_convertvector(sign | (magnitude < 0x477ff000 ? finite : special), vector_u16x16);
}
#endif

#pragma clang diagnostic pop

#endif
